use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;

use rbuild_cache::layer::{ArchiveOptions, export};
use rbuild_cache::root_dir::RootDir;
use rbuild_llb::Chmod;

use super::super::FileError;
use super::{Bed, lines, make};

fn add(bed: &Bed, src: &str, dest: &str) -> Result<super::Stats, FileError> {
    bed.copy_with(src, dest, |action| action.attempt_unpack = true)
}

/// The bytes of a tar with these entries.
fn tar_of(entries: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), entries);
    let mut tar = Vec::new();
    export(&RootDir::open(dir.path()).unwrap(), &ArchiveOptions::default(), &mut tar).unwrap();
    tar
}

#[test]
fn an_archive_is_unpacked_whatever_it_is_called_and_only_at_the_top() {
    let bed = Bed::new(&["d/", "no.tar=just text", "empty.tar="]);
    let tar = tar_of(&["x/f=1:600", "x:711", ".wh.name=2"]);
    let zstd = zstd_of(&tar);
    fs::write(bed.source("plain"), &tar).unwrap();
    fs::write(bed.source("d/inner.tar"), &tar).unwrap();
    fs::write(bed.source("packed"), &zstd).unwrap();
    add(&bed, "/plain", "/a").unwrap();
    add(&bed, "/packed", "/b/").unwrap();
    add(&bed, "/d", "/c").unwrap();
    add(&bed, "/*.tar", "/e/").unwrap();
    assert_eq!(fs::read(bed.dest("c/inner.tar")).unwrap(), tar);
    fs::remove_dir_all(bed.dest("c")).unwrap();
    lines(
        &bed,
        &[
            "0755 a/",
            "0644 a/.wh.name = 2",
            "0711 a/x/",
            "0600 a/x/f = 1",
            "0755 b/",
            "0644 b/.wh.name = 2",
            "0711 b/x/",
            "0600 b/x/f = 1",
            "0755 e/",
            "0644 e/empty.tar = ",
            "0644 e/no.tar = just text",
        ],
    );
}

#[test]
fn an_archive_is_copied_when_it_is_not_to_be_unpacked() {
    let bed = Bed::new(&[]);
    let tar = tar_of(&["f=1"]);
    fs::write(bed.source("a.tar"), &tar).unwrap();
    bed.copy("/a.tar", "/").unwrap();
    assert_eq!(fs::read(bed.dest("a.tar")).unwrap(), tar);
}

#[test]
fn modes_and_times_of_an_archive_are_its_own() {
    let bed = Bed::new(&[]);
    fs::write(bed.source("a.tar"), tar_of(&["f=1:640"])).unwrap();
    bed.copy_with("/a.tar", "/x", |action| {
        action.attempt_unpack = true;
        action.mode = Some(Chmod::Octal(0o700));
    })
    .unwrap();
    lines(&bed, &["0755 x/", "0640 x/f = 1"]);
    assert!(fs::metadata(bed.dest("x/f")).unwrap().mtime() > 1_700_000_000);
}

#[test]
fn an_archive_into_a_file_and_a_broken_archive_are_errors() {
    let bed = Bed::new(&[]).with_dest(&["file="]);
    let tar = tar_of(&["f=some content"]);
    fs::write(bed.source("a.tar"), &tar).unwrap();
    fs::write(bed.source("cut.tar"), &tar[..512 + 5]).unwrap();
    assert!(matches!(add(&bed, "/a.tar", "/file"), Err(FileError::NotADirectory { .. })));
    assert!(matches!(add(&bed, "/cut.tar", "/x"), Err(FileError::Unpack { .. })));
}

#[test]
fn a_link_to_an_archive_is_unpacked() {
    let bed = Bed::new(&["l->a.tar"]);
    fs::write(bed.source("a.tar"), tar_of(&["f=1"])).unwrap();
    fs::set_permissions(bed.source("a.tar"), fs::Permissions::from_mode(0o600)).unwrap();
    add(&bed, "/l", "/").unwrap();
    lines(&bed, &["0644 f = 1"]);
}

fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    use rbuild_cache::layer::compression::{Encoder, Encoding};
    let pool = std::sync::Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
    let mut encoder = Encoder::new(Vec::new(), Encoding::Zstd { level: 3 }, &pool).unwrap();
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
