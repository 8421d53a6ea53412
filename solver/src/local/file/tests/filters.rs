use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use proptest::prelude::*;
use rbuild_cache::content_digest::Verdict;
use rbuild_cache::root_dir::RootDir;
use rbuild_llb::pattern::{CopySelection, Patterns};

use super::super::filter::{Decision, Filter, Level};
use super::super::{CopySource, FileError, SourceKind};
use super::{Bed, lines};
use crate::local::content;

fn parents(bed: &Bed, src: &str, dest: &str) -> Result<super::Stats, FileError> {
    bed.copy_with(src, dest, |action| action.parents = true)
}

#[test]
fn parents_keep_the_path_with_the_modes_of_the_source() {
    let bed = Bed::new(&["a/b/f=1", "a/b/g=2", "a/b:711", "a:750", "other/f=3"]);
    parents(&bed, "/a/b/f", "/x/").unwrap();
    lines(&bed, &["0755 x/", "0750 x/a/", "0711 x/a/b/", "0644 x/a/b/f = 1"]);
}

#[test]
fn parents_start_at_the_pivot() {
    let bed = Bed::new(&["a/b/c/f=1", "a/b/c/g=2", "a/z=3"]);
    parents(&bed, "/a/./b/*/f", "/x").unwrap();
    parents(&bed, "/a/b/c/./", "/y").unwrap();
    lines(
        &bed,
        &[
            "0755 x/",
            "0755 x/b/",
            "0755 x/b/c/",
            "0644 x/b/c/f = 1",
            "0755 y/",
            "0644 y/f = 1",
            "0644 y/g = 2",
        ],
    );
}

#[test]
fn parents_may_use_two_stars() {
    let bed = Bed::new(&["a/x.go=1", "a/b/c/y.go=2", "a/b/skip.c=3", "empty/", "z.go=4"]);
    parents(&bed, "/**/*.go", "/x").unwrap();
    lines(
        &bed,
        &[
            "0755 x/",
            "0755 x/a/",
            "0755 x/a/b/",
            "0755 x/a/b/c/",
            "0644 x/a/b/c/y.go = 2",
            "0644 x/a/x.go = 1",
            "0644 x/z.go = 4",
        ],
    );
}

#[test]
fn a_directory_with_parents_is_taken_whole() {
    let bed = Bed::new(&["a/b/f=1", "a/b/e/", "a/c=2"]);
    parents(&bed, "/a/b", "/").unwrap();
    lines(&bed, &["0755 a/", "0755 a/b/", "0755 a/b/e/", "0644 a/b/f = 1"]);
}

#[test]
fn parents_that_match_nothing_still_make_the_destination_and_a_missing_name_is_an_error() {
    let bed = Bed::new(&["a/b=1"]);
    parents(&bed, "/a/*.go", "/x").unwrap();
    lines(&bed, &["0755 x/"]);
    assert_eq!(parents(&bed, "/a/c", "/y").unwrap_err().to_string(), "`/a/c`: not found");
    assert_eq!(parents(&bed, "/n/./c", "/y").unwrap_err().to_string(), "`/n/./c`: not found");
}

#[test]
fn directories_on_the_way_to_a_match_keep_their_owner_and_time() {
    let bed = Bed::new(&["a/f=1", "a:711"]).with_dest(&["a/"]);
    let time = std::time::SystemTime::UNIX_EPOCH;
    fs::File::open(bed.source("a")).unwrap().set_modified(time).unwrap();
    parents(&bed, "/a/f", "/").unwrap();
    lines(&bed, &["0711 a/", "0644 a/f = 1"]);
    assert_ne!(fs::metadata(bed.dest("a")).unwrap().mtime(), 0);
}

#[test]
fn exclude_is_relative_to_the_source() {
    let bed = Bed::new(&["a/x.md=1", "a/x.c=2", "a/s/y.md=3", "a/s/keep.md=4"]);
    let excluding = |dest: &str, lines: &[&str]| {
        bed.copy_with("/a", dest, |action| {
            action.exclude = lines.iter().map(|&line| line.to_owned()).collect();
        })
        .unwrap();
    };
    excluding("/one", &["*.md"]);
    excluding("/two", &["**/*.md", "!s/keep.md"]);
    excluding("/three", &["s", "x.*"]);
    lines(
        &bed,
        &[
            "0755 one/",
            "0755 one/s/",
            "0644 one/s/keep.md = 4",
            "0644 one/s/y.md = 3",
            "0644 one/x.c = 2",
            "0755 three/",
            "0755 two/",
            "0755 two/s/",
            "0644 two/s/keep.md = 4",
            "0644 two/x.c = 2",
        ],
    );
}

#[test]
fn exclude_with_parents_is_relative_to_the_pivot() {
    let bed = Bed::new(&["a/x.md=1", "a/x.c=2"]);
    let excluding = |src: &str, dest: &str, line: &str| {
        bed.copy_with(src, dest, |action| {
            action.parents = true;
            action.exclude = vec![line.to_owned()];
        })
        .unwrap();
    };
    excluding("/a/*", "/one", "*.md");
    excluding("/a/*", "/two", "**/*.md");
    excluding("/a/./*", "/three", "*.md");
    lines(
        &bed,
        &[
            "0755 one/",
            "0755 one/a/",
            "0644 one/a/x.c = 2",
            "0644 one/a/x.md = 1",
            "0755 three/",
            "0644 three/x.c = 2",
            "0755 two/",
            "0755 two/a/",
            "0644 two/a/x.c = 2",
        ],
    );
}

#[test]
fn what_the_context_ignores_is_not_there() {
    let files = ["a/x=1", "a/keep/y=2", "a/keep/z=3", "b/x=4", "logs/l=5", "only/n=6"];
    let bed = Bed::new(&files).ignoring(&["a", "!a/keep/y", "logs", "**/n", "b/x"]);
    bed.copy("/", "/all").unwrap();
    bed.copy("/a", "/a").unwrap();
    bed.copy("/a/keep", "/keep").unwrap();
    lines(
        &bed,
        &[
            "0755 a/",
            "0755 a/keep/",
            "0644 a/keep/y = 2",
            "0755 all/",
            "0755 all/a/",
            "0755 all/a/keep/",
            "0644 all/a/keep/y = 2",
            "0755 all/b/",
            "0755 all/only/",
            "0755 keep/",
            "0644 keep/y = 2",
        ],
    );
    for src in ["/logs", "/logs/l", "/only/n", "/a/x"] {
        let error = bed.copy(src, "/x").unwrap_err();
        assert!(matches!(error, FileError::NotFound { ignored: true, .. }), "{src}: {error}");
    }
    assert_eq!(bed.copy("/l*", "/x").unwrap().warnings.len(), 1);
}

#[test]
fn a_link_to_something_ignored_leads_nowhere() {
    let bed =
        Bed::new(&["secret=1", "l->secret", "hidden->plain", "plain=2"]).ignoring(&["secret", "hidden"]);
    for src in ["/l", "/hidden"] {
        assert!(matches!(bed.copy(src, "/x"), Err(FileError::NotFound { ignored: true, .. })), "{src}");
    }
}

const NAMES: [&str; 3] = ["a", "b", ".c"];

/// What is said of all paths of three names or fewer: of each whether a file there is taken, and whether a directory is.
#[derive(Debug, Default, PartialEq, Eq)]
struct Taken(Vec<(String, bool, bool)>);

impl Taken {
    /// As files are copied: what is known of a directory is carried down.
    fn copied(&mut self, filter: &Filter<'_>, level: &Level, dir: &Path) {
        for name in NAMES {
            let path = dir.join(name);
            let file = filter.takes(level, dir, OsStr::new(name));
            let (directory, below) = match filter.decide(level, dir, OsStr::new(name)) {
                Decision::Prune => (false, None),
                Decision::Pass(below) => (false, Some(below)),
                Decision::Take(below) => (true, Some(below)),
            };
            self.0.push((path.display().to_string(), file, directory));
            if let Some(below) = below.filter(|_| path.iter().count() < NAMES.len()) {
                self.copied(filter, &below, &path);
            }
        }
    }

    /// As they are digested: each path is asked for from the root.
    fn digested(&mut self, verdict: &dyn Fn(&Path, bool) -> Verdict, dir: &Path) {
        for name in NAMES {
            let path = dir.join(name);
            let (file, directory) = (verdict(&path, false), verdict(&path, true));
            let taken = |verdict| verdict == Verdict::Take;
            self.0.push((path.display().to_string(), taken(file), taken(directory)));
            if directory != Verdict::SkipTree && path.iter().count() < NAMES.len() {
                self.digested(verdict, &path);
            }
        }
    }
}

fn patterns() -> impl Strategy<Value = Option<Patterns>> {
    let name = prop::sample::select(vec!["a", "b", ".c", "*", "**", "?", "a*"]);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("/"));
    let pattern = (any::<bool>(), path).prop_map(|(not, path)| if not { format!("!{path}") } else { path });
    prop::option::of(prop::collection::vec(pattern, 1..4).prop_map(|list| Patterns::new(&list).unwrap()))
}

proptest! {
    #[test]
    fn the_digest_of_a_copy_covers_what_is_copied(
        ignored in patterns(),
        include in patterns(),
        exclude in patterns(),
        base in prop::sample::select(vec!["", "a", "b/a"]),
    ) {
        let root = RootDir::open("/").unwrap();
        let source =
            CopySource { root: &root, kind: SourceKind::Context, exclude: ignored.as_ref(), layers: None };
        let (base, glob, required) = (Path::new(base), None, None);
        let selection = CopySelection { base: String::new(), glob, include, exclude, required };
        let (mut copied, mut digested) = (Taken::default(), Taken::default());
        let filter = Filter::of(&source, &selection, base);
        copied.copied(&filter, &filter.top(), Path::new(""));
        match content::filter(&source, &selection, base) {
            Some(verdict) => digested.digested(&verdict, Path::new("")),
            None => digested.digested(&|_, _| Verdict::Take, Path::new("")),
        }
        prop_assert_eq!(copied, digested);
    }
}
