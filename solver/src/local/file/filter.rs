//! What of a directory is copied: `.dockerignore`, `--exclude` and what `--parents` asks for, carried down a walk.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rbuild_llb::pattern::{CopySelection, Patterns, State};

use super::CopySource;

/// The lists that apply to one source.
#[derive(Debug, Default)]
pub(super) struct Filter<'a> {
    rules: Vec<Rule<'a>>,
}

#[derive(Debug)]
struct Rule<'a> {
    patterns: &'a Patterns,
    effect: Effect,
    /// Where the source is below the directory that the patterns are anchored at: empty, or with a slash at the end.
    anchor: Vec<u8>,
}

/// What a match means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Exclude,
    Include,
}

/// For each rule what it said about a directory; `None` where it has no more to say below it.
#[derive(Debug, Clone, Default)]
pub(super) struct Level(Vec<Option<State>>);

/// What becomes of a directory.
#[derive(Debug)]
pub(super) enum Decision {
    /// Neither it nor anything in it is copied.
    Prune,
    /// It is made when something in it is copied.
    Pass(Level),
    /// It is copied.
    Take(Level),
}

impl<'a> Filter<'a> {
    /// What a copy takes of what is at `path` in its source.
    pub(super) fn of(source: &CopySource<'a>, selection: &'a CopySelection, path: &Path) -> Self {
        let (mut filter, nowhere) = (Self::default(), Path::new(""));
        let lists = [
            (source.exclude, Effect::Exclude, path),
            (selection.exclude.as_ref(), Effect::Exclude, nowhere),
            (selection.include.as_ref(), Effect::Include, nowhere),
        ];
        for (patterns, effect, at) in lists {
            if let Some(patterns) = patterns.filter(|patterns| !patterns.is_empty()) {
                filter.add(patterns, effect, at);
            }
        }
        filter
    }

    /// Adds a list. `source` is the source's path below the directory that the list is anchored at.
    fn add(&mut self, patterns: &'a Patterns, effect: Effect, source: &Path) {
        let mut anchor = source.as_os_str().as_bytes().to_vec();
        if !anchor.is_empty() {
            anchor.push(b'/');
        }
        self.rules.push(Rule { patterns, effect, anchor });
    }

    /// Whether only what is asked for is copied.
    pub(super) fn includes(&self) -> bool {
        self.rules.iter().any(|rule| rule.effect == Effect::Include)
    }

    /// Where the walk starts.
    pub(super) fn top(&self) -> Level {
        Level(self.rules.iter().map(|rule| Some(rule.top())).collect())
    }

    /// Whether the file at `dir`/`name` is copied.
    pub(super) fn takes(&self, level: &Level, dir: &Path, name: &OsStr) -> bool {
        self.active(level).all(|(rule, state)| rule.takes(state, &rule.path(dir, name)))
    }

    /// What becomes of the directory at `dir`/`name`.
    pub(super) fn decide(&self, level: &Level, dir: &Path, name: &OsStr) -> Decision {
        let mut taken = true;
        let mut below = Vec::with_capacity(level.0.len());
        for (rule, state) in self.rules.iter().zip(&level.0) {
            let Some(state) = state else {
                below.push(None);
                continue;
            };
            let verdict = rule.patterns.verdict(state, rule.path(dir, name), true);
            let takes = verdict.matched == (rule.effect == Effect::Include);
            if !takes && verdict.settled {
                return Decision::Prune;
            }
            taken &= takes;
            below.push((!verdict.settled).then_some(verdict.state));
        }
        if taken { Decision::Take(Level(below)) } else { Decision::Pass(Level(below)) }
    }

    fn active<'s>(&'s self, level: &'s Level) -> impl Iterator<Item = (&'s Rule<'a>, &'s State)> {
        self.rules.iter().zip(&level.0).filter_map(|(rule, state)| Some((rule, state.as_ref()?)))
    }
}

impl Rule<'_> {
    fn top(&self) -> State {
        match self.anchor.strip_suffix(b"/") {
            Some(source) => self.patterns.verdict_from_root(source, true).state,
            None => self.patterns.root(),
        }
    }

    fn takes(&self, state: &State, path: &[u8]) -> bool {
        self.patterns.verdict(state, path, false).matched == (self.effect == Effect::Include)
    }

    fn path(&self, dir: &Path, name: &OsStr) -> Vec<u8> {
        let mut path = self.anchor.clone();
        path.extend_from_slice(dir.join(name).as_os_str().as_bytes());
        path
    }
}
