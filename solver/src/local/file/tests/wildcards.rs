use super::super::{FileError, Warning};
use super::{Bed, lines};

#[test]
fn a_wildcard_stays_within_a_component() {
    let bed = Bed::new(&["a/x.txt=1", "a/b/y.txt=2", "c/x.txt=3", "z.txt=4"]);
    bed.copy("/*/*.txt", "/one/").unwrap();
    bed.copy("/?/b/[w-y].txt", "/two/").unwrap();
    lines(&bed, &["0755 one/", "0644 one/x.txt = 3", "0755 two/", "0644 two/y.txt = 2"]);
}

#[test]
fn two_stars_are_one_without_parents() {
    let bed = Bed::new(&["a/x=1", "a/b/x=2"]);
    bed.copy("/**/x", "/out/").unwrap();
    lines(&bed, &["0755 out/", "0644 out/x = 1"]);
}

#[test]
fn a_directory_that_matches_gives_its_contents() {
    let bed = Bed::new(&["d1/a=1", "d2/b=2", "dx=file"]);
    bed.copy("/d*", "/out/").unwrap();
    lines(&bed, &["0755 out/", "0644 out/a = 1", "0644 out/b = 2", "0644 out/dx = file"]);
}

#[test]
fn a_wildcard_that_matches_nothing_does_nothing_and_is_told() {
    let bed = Bed::new(&["a=1"]);
    let stats = bed.copy("/fil[e]", "/x/").unwrap();
    assert_eq!(stats.warnings, [Warning::NothingMatched { pattern: "/fil[e]".into() }]);
    let missing_dir = bed.copy("/no/*", "/x/").unwrap();
    assert_eq!(missing_dir.warnings.len(), 1);
    lines(&bed, &[]);
    let strict = bed.copy_with("/fil[e]", "/x/", |action| action.allow_empty_wildcard = false);
    assert!(matches!(strict, Err(FileError::NotFound { path, .. }) if path == "/fil[e]"));
}

#[test]
fn a_link_that_leads_nowhere_is_an_error_also_when_a_wildcard_finds_it() {
    let bed = Bed::new(&["broken->nowhere"]);
    let error = bed.copy("/bro*", "/x").unwrap_err();
    assert_eq!(error.to_string(), "`/broken`: not found");
    assert!(matches!(error, FileError::NotFound { similar, .. } if similar.is_empty()));
}

#[test]
fn links_to_directories_are_followed_before_a_wildcard_and_not_within_it() {
    let bed = Bed::new(&["real/f.c=1", "link->real"]);
    bed.copy("/link/*.c", "/one/").unwrap();
    bed.copy("/l*/f.c", "/two/").unwrap();
    lines(&bed, &["0755 one/", "0644 one/f.c = 1"]);
}

#[test]
fn wildcards_are_names_where_they_are_not_allowed_or_escaped() {
    let bed = Bed::new(&["a*=star", "ab=b"]);
    bed.copy_with("/a*", "/one", |action| action.allow_wildcard = false).unwrap();
    bed.copy(r"/a\*", "/two").unwrap();
    lines(&bed, &["0644 one = star", "0644 two = star"]);
}

#[test]
fn a_malformed_wildcard_is_an_error() {
    let bed = Bed::new(&["a=1"]);
    assert!(matches!(bed.copy("/[a", "/x"), Err(FileError::Pattern(_))));
}
