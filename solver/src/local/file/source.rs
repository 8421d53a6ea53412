//! Which paths of a tree a copy takes: one literal path, or what a wildcard matches.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rbuild_cache::root_dir::{PathError, RootDir, Stat};
use rbuild_llb::CopyAction;
use rbuild_llb::pattern::{CopySelection, Glob, Patterns};
use rustix::fs::FileType;

use super::{CopySource, FileError};

/// How many names are suggested for one that is not there.
const SIMILAR_MAX: usize = 3;
/// Names longer than this are not compared: the time grows with the square.
const COMPARED_LENGTH_MAX: usize = 64;

/// A source that exists.
#[derive(Debug)]
pub(in crate::local) struct Found {
    /// Where it is: relative to the root of its tree, without symlinks; empty for the root.
    pub(in crate::local) path: PathBuf,
    /// The name it was found by, which is not that of a link's target; empty for the root.
    pub(in crate::local) name: OsString,
    pub(super) stat: Stat,
}

impl Found {
    pub(super) fn is_dir(&self) -> bool {
        self.kind().is_dir()
    }

    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// Finds the sources of a copy, sorted by path. None means that a wildcard matched nothing.
pub(in crate::local) fn find(
    source: &CopySource<'_>,
    action: &CopyAction,
    selection: &CopySelection,
) -> Result<Vec<Found>, FileError> {
    let finder = Finder { source, action };
    let found = match &selection.glob {
        None => vec![finder.locate(Path::new(&selection.base))?],
        Some(glob) => {
            let paths = finder.expand(&selection.base, glob)?;
            paths.iter().map(|path| finder.locate(path)).collect::<Result<_, _>>()?
        }
    };
    if let Some(required) = &selection.required {
        for base in &found {
            finder.locate(&base.path.join(required))?;
        }
    }
    Ok(found)
}

struct Finder<'a> {
    source: &'a CopySource<'a>,
    action: &'a CopyAction,
}

impl Finder<'_> {
    fn root(&self) -> &RootDir {
        self.source.root
    }

    /// Resolves one path; a link at its end is followed if the action says so.
    fn locate(&self, written: &Path) -> Result<Found, FileError> {
        let path = match self.resolve(written) {
            Err(error) if error.is_not_found() => return Err(self.not_found(written, false)),
            path => path?,
        };
        let stat = match self.root().lstat(&path) {
            Err(error) if error.is_not_found() => return Err(self.not_found(written, false)),
            stat => stat?,
        };
        let found = Found { path, name: written.file_name().unwrap_or_default().to_owned(), stat };
        if self.is_hidden(relative(written), found.is_dir()) || self.is_hidden(&found.path, found.is_dir()) {
            return Err(self.not_found(written, true));
        }
        Ok(found)
    }

    fn resolve(&self, written: &Path) -> Result<PathBuf, PathError> {
        match (self.action.follow_symlinks, written.parent(), written.file_name()) {
            (false, Some(dir), Some(name)) => Ok(self.root().resolve(dir)?.join(name)),
            _ => self.root().resolve(written),
        }
    }

    /// Whether the path and all that is in it are excluded.
    fn is_hidden(&self, path: &Path, is_dir: bool) -> bool {
        self.source.exclude.is_some_and(|patterns| hides(patterns, path, is_dir))
    }

    /// The paths below `base` that match, sorted as a walk meets them. Links on the way are not followed.
    fn expand(&self, base: &str, glob: &Glob) -> Result<Vec<PathBuf>, FileError> {
        let base = match self.root().resolve(base) {
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            base => base?,
        };
        let mut level = vec![base];
        for depth in 0..glob.depth() {
            let mut next = Vec::new();
            for dir in &level {
                self.matching_entries(dir, glob, depth, &mut next)?;
            }
            level = next;
        }
        Ok(level)
    }

    fn matching_entries(
        &self,
        dir: &Path,
        glob: &Glob,
        depth: usize,
        into: &mut Vec<PathBuf>,
    ) -> Result<(), FileError> {
        let entries = match self.root().read_dir(dir) {
            Err(error) if error.is_not_found() => return Ok(()),
            entries => entries?,
        };
        let is_last = depth + 1 == glob.depth();
        for entry in entries {
            let is_dir = entry.kind.is_dir();
            if (is_last || is_dir) && glob.matches_name(depth, entry.name.as_bytes()) {
                let path = dir.join(entry.name);
                if !self.is_hidden(&path, is_dir) {
                    into.push(path);
                }
            }
        }
        Ok(())
    }

    fn not_found(&self, written: &Path, ignored: bool) -> FileError {
        let path = if self.action.allow_wildcard && !ends_like(&self.action.src, written) {
            Path::new("/").join(relative(written)).display().to_string()
        } else {
            self.action.src.clone()
        };
        let similar = if ignored { Vec::new() } else { self.similar(written) };
        FileError::NotFound { path, ignored, similar }
    }

    /// Names that could have been meant: those in the deepest directory that exists that resemble what is missing in it.
    fn similar(&self, written: &Path) -> Vec<String> {
        let mut missing = relative(written);
        while let Some(dir) = missing.parent() {
            if let Ok(entries) = self.root().read_dir(dir) {
                let name = missing.file_name().unwrap_or_default();
                // A link of this very name leads nowhere.
                let names = entries.iter().map(|entry| entry.name.as_os_str()).filter(|other| *other != name);
                let shown = names.filter(|name| !self.is_hidden(&dir.join(name), false));
                let join = |name: &OsStr| Path::new("/").join(dir).join(name).display().to_string();
                return closest(name, shown).into_iter().map(join).collect();
            }
            missing = dir;
        }
        Vec::new()
    }
}

/// Whether a list excludes a path and everything below it.
pub(super) fn hides(patterns: &Patterns, path: &Path, is_dir: bool) -> bool {
    if path.as_os_str().is_empty() {
        return false;
    }
    let verdict = patterns.verdict_from_root(path.as_os_str().as_bytes(), is_dir);
    verdict.matched && verdict.settled
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Whether `written` is what the user wrote, rather than something a wildcard found.
fn ends_like(src: &str, written: &Path) -> bool {
    relative(Path::new(src)) == relative(written) || src.contains("/./")
}

fn closest<'a>(name: &OsStr, candidates: impl Iterator<Item = &'a OsStr>) -> Vec<&'a OsStr> {
    let Some(name) = name.to_str() else { return Vec::new() };
    let allowed = (name.chars().count() / 3).max(1);
    let mut ranked: Vec<(usize, &OsStr)> = candidates
        .filter_map(|candidate| Some((distance(name, candidate.to_str()?)?, candidate)))
        .filter(|(distance, _)| *distance <= allowed)
        .collect();
    ranked.sort();
    ranked.into_iter().take(SIMILAR_MAX).map(|(_, candidate)| candidate).collect()
}

/// How many characters must be changed, put in, taken out or swapped to make one name of the other; case is free.
fn distance(a: &str, b: &str) -> Option<usize> {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    if a.len().max(b.len()) > COMPARED_LENGTH_MAX {
        return None;
    }
    // rows[i][j]: from the first i characters of one to the first j of the other.
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let swapped = (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                .then(|| rows[i - 2][j - 2] + 1);
            let best = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            row.push(swapped.map_or(best, |swapped| best.min(swapped)));
        }
        rows.push(row);
    }
    Some(rows[a.len()][b.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits_and_forgives_case() {
        let cases = [
            ("", "", 0),
            ("a", "", 1),
            ("kitten", "sitting", 3),
            ("Makefile", "makefile", 0),
            ("scr", "src", 1),
            ("ca", "abc", 3),
        ];
        for (a, b, expected) in cases {
            assert_eq!(distance(a, b), Some(expected), "{a} {b}");
            assert_eq!(distance(b, a), Some(expected), "{b} {a}");
        }
        assert_eq!(distance(&"a".repeat(COMPARED_LENGTH_MAX + 1), "a"), None);
    }
}
