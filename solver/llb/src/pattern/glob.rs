//! COPY sources: one pattern, matched component by component.

use super::program::{Grammar, Program};
use super::{PatternError, clean_rooted};

/// A path with wildcards, as Go's `filepath.Match` has them: `*` and `?` never stand for a slash, there is no `**`.
///
/// Paths are matched from the root of a tree on; slashes at their start do not matter.
#[derive(Debug, Clone)]
pub struct Glob {
    components: Vec<Program>,
}

impl Glob {
    /// Compiles a pattern. It is cleaned first, as if it stood below `/`.
    ///
    /// # Errors
    /// When the pattern is malformed.
    pub fn new(pattern: &str) -> Result<Self, PatternError> {
        let cleaned = clean_rooted(pattern);
        let components = cleaned.split('/').filter(|component| !component.is_empty());
        let components = components.map(|component| Program::new(component, Grammar::Component));
        Ok(Self { components: components.collect::<Result<_, _>>()? })
    }

    /// Whether there is no wildcard in it.
    pub fn is_literal(&self) -> bool {
        self.components.iter().all(|component| component.as_literal().is_some())
    }

    /// The components before the first with a wildcard, unescaped, as a relative path; empty for the root.
    pub fn literal_prefix(&self) -> String {
        let literals = self.components.iter().map_while(Program::as_literal);
        literals.collect::<Vec<_>>().join("/")
    }

    /// What is left to match below [`literal_prefix`](Self::literal_prefix), one matcher per directory level.
    #[must_use]
    pub fn below_literal_prefix(&self) -> Self {
        let wild = self.components.iter().skip_while(|component| component.as_literal().is_some());
        Self { components: wild.cloned().collect() }
    }

    /// How many components it has: the depth of everything it matches.
    pub const fn depth(&self) -> usize {
        self.components.len()
    }

    /// Whether a name matches the component at `depth`, counted from 0.
    pub fn matches_name(&self, depth: usize, name: impl AsRef<[u8]>) -> bool {
        self.components.get(depth).is_some_and(|component| component.matches(name.as_ref()))
    }

    /// Whether the path matches.
    pub fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        let names = components(path.as_ref());
        names.len() == self.components.len() && self.matches_start(&names)
    }

    /// Whether something below the directory `dir` could match, so that it must be walked.
    pub fn may_match_below(&self, dir: impl AsRef<[u8]>) -> bool {
        let names = components(dir.as_ref());
        names.len() < self.components.len() && self.matches_start(&names)
    }

    fn matches_start(&self, names: &[&[u8]]) -> bool {
        names.iter().zip(&self.components).all(|(name, component)| component.matches(name))
    }
}

fn components(path: &[u8]) -> Vec<&[u8]> {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect()
}
