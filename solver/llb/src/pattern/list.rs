//! `.dockerignore` files and `--exclude`: an ordered list of patterns.

use super::program::{Grammar, Program};
use super::{PatternError, clean};

/// The most patterns in one list: far above any real `.dockerignore`.
pub const PATTERNS_MAX: usize = 16_384;

/// An ordered list of patterns, of which the last one that matches a path decides.
///
/// Paths are relative to the root that the patterns are anchored at, clean, and without a slash at either end.
///
/// What "matches" means for a path below a directory is moby's rule, to the letter: a pattern that was tried on the
/// directory and matched also matches everything in it. A pattern is tried only if it could change the verdict,
/// so a `!` pattern for a directory that nothing excludes does *not* protect what is in it from a pattern for single files.
#[derive(Debug, Clone)]
pub struct Patterns {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    negated: bool,
    program: Program,
}

/// Which patterns matched a directory, and so match what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State(Box<[bool]>);

/// What a list says about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the list matches: the path is excluded by an exclusion list, included by an inclusion list.
    pub matched: bool,
    /// Whether the same holds for everything below. Then nothing below need be asked about, and an excluded directory
    /// need not be walked. Always `true` for what is not a directory.
    pub settled: bool,
    /// What to ask with about the entries of this directory.
    pub state: State,
}

impl Patterns {
    /// Compiles patterns: the lines of a `.dockerignore` without comments, or the values of `--exclude`.
    ///
    /// Each is trimmed and cleaned, a slash at its end is dropped, and empty ones are skipped. One that begins with a slash matches nothing:
    /// that of a `.dockerignore` is dropped where the file is read.
    ///
    /// # Errors
    /// When a pattern is malformed.
    pub fn new<S: AsRef<str>>(patterns: &[S]) -> Result<Self, PatternError> {
        if patterns.len() > PATTERNS_MAX {
            return Err(PatternError::TooMany { found: patterns.len() });
        }
        let compiled = patterns.iter().map(|text| Pattern::new(text.as_ref())).filter_map(Result::transpose);
        Ok(Self { patterns: compiled.collect::<Result<_, _>>()? })
    }

    /// Whether there is no pattern, so that nothing matches.
    pub const fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a pattern takes back what others matched.
    pub fn has_negated(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.negated)
    }

    /// What to ask with about the entries of the root.
    pub fn root(&self) -> State {
        State(vec![false; self.patterns.len()].into())
    }

    /// Whether the list matches a path, given nothing but the path.
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        self.verdict_from_root(path.as_ref(), false).matched
    }

    /// What a walk from the root would say about a path.
    pub fn verdict_from_root(&self, path: impl AsRef<[u8]>, is_dir: bool) -> Verdict {
        let path = path.as_ref();
        let mut state = self.root();
        for end in path.iter().enumerate().filter_map(|(at, byte)| (*byte == b'/').then_some(at)) {
            state = self.matched(&state, &path[..end]).1;
        }
        self.verdict(&state, path, is_dir)
    }

    /// What the list says about a path whose directory gave `parent`.
    pub fn verdict(&self, parent: &State, path: impl AsRef<[u8]>, is_dir: bool) -> Verdict {
        let path = path.as_ref();
        let (matched, state) = self.matched(parent, path);
        let settled = !is_dir || !self.may_change_below(matched, &state, path);
        Verdict { matched, settled, state }
    }

    fn matched(&self, parent: &State, path: &[u8]) -> (bool, State) {
        let mut matched = false;
        let state = self.patterns.iter().zip(&parent.0).map(|(pattern, inherited)| {
            let could_change = pattern.negated == matched;
            let matches = *inherited || (could_change && pattern.program.matches(path));
            if matches {
                matched = !pattern.negated;
            }
            matches
        });
        let state = State(state.collect());
        (matched, state)
    }

    fn may_change_below(&self, matched: bool, state: &State, dir: &[u8]) -> bool {
        self.patterns.iter().zip(&state.0).any(|(pattern, inherited)| {
            pattern.negated == matched && !inherited && pattern.program.may_match_below(dir)
        })
    }
}

impl Pattern {
    fn new(text: &str) -> Result<Option<Self>, PatternError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let (negated, text) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest.trim_start()));
        if text.is_empty() {
            return Err(PatternError::NothingNegated);
        }
        Ok(Some(Self { negated, program: Program::new(&clean(text), Grammar::Ignore)? }))
    }
}
