//! Stores that cannot be used: of another version, not writable, full.

use std::fs;
use std::path::{Path, PathBuf};

use crate::common::{SmallDisk, TestEnvironment, is_root};

#[test]
fn a_store_of_another_version_is_refused() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\n");
    let version = test.store().join("version");
    let own = fs::read(&version).unwrap();
    for (content, texts) in [
        (
            Some("rbuild-store 999 trusted\n"),
            ["has format `rbuild-store 999 trusted` (this version reads `", "--root DIR"],
        ),
        (Some("garbage"), ["has format `garbage`", "--root DIR"]),
        (Some(""), ["has format ``", "--root DIR"]),
        (None, ["is neither empty nor a store", "--root DIR"]),
    ] {
        content.map_or_else(|| fs::remove_file(&version), |content| fs::write(&version, content)).unwrap();
        let before = listing(test.store());
        test.build(&context, &["-t", "app"]).exits(3).says(&texts);
        test.rbuild(&["images"]).outcome().exits(3).says(&texts);
        assert_eq!(listing(test.store()), before);
    }
    fs::write(&version, own).unwrap();
    test.build(&context, &["-t", "app"]).succeeds();
}

fn listing(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn a_store_that_cannot_be_is_the_machines_fault() {
    let mut test = TestEnvironment::new();
    let context = test.dockerfile("FROM scratch\n");
    test.write("file", "");
    // Root may write nearly everywhere, and a user's own closed directory is open to root of their user namespace.
    let foreign =
        if nix::unistd::geteuid().is_root() { None } else { Some(("/usr/store", "Permission denied")) };
    let places = [("file", "Not a directory"), ("file/store", "Not a directory")];
    for (place, cause) in places.into_iter().chain(foreign) {
        test.set_store(test.path(place));
        test.build(&context, &["-t", "app"]).exits(3).says(&[place, cause, "--root DIR"]);
    }
}

#[test]
fn a_full_disk_is_named_and_survived() {
    if !is_root("a disk of a test's own") {
        return;
    }
    let mut test = TestEnvironment::new();
    let disk = SmallDisk::new(test.path("disk"), "12m");
    test.set_store(test.path("disk/store"));
    if !test.import_base() {
        return;
    }
    let full = ["No space left on device", "help: the disk is full"];
    let context = test.context("context", &[("Dockerfile", "FROM busybox\nCOPY blob /\n")]);
    context.write("blob", vec![7; 20 << 20]);
    test.build(&context, &["-t", "app"]).exits(3).says(&full).says(&["--> Dockerfile:2"]);
    test.assert_sound();

    let fill = test.context("fill", &[("Dockerfile", "FROM busybox\nRUN echo 1 >/x\nRUN yes >/big\n")]);
    test.build(&fill, &["-t", "app"]).exits(1).says(&full).says(&["--> Dockerfile:3"]);
    assert!(!test.has("app"));
    test.assert_sound();

    // What failed left nothing, so that less fits; and what the first build had done is there.
    fill.dockerfile("FROM busybox\nRUN echo 1 >/x\nRUN echo small >/big\n");
    assert_eq!(test.build(&fill, &["-t", "small"]).succeeds().ran(), ["RUN echo small >/big"]);
    disk.grow("40m");
    test.build(&context, &["-t", "app"]).succeeds();
    assert_eq!(test.run("app", "wc -c </blob"), format!("{}\n", 20 << 20));
    assert_eq!(test.store_entries("active"), 0);
    test.assert_sound();
}

#[test]
fn a_disk_that_others_filled_is_named_and_survived() {
    if !is_root("a disk of a test's own") {
        return;
    }
    let mut test = TestEnvironment::new();
    let _disk = SmallDisk::new(test.path("disk"), "12m");
    test.set_store(test.path("disk/store"));
    if !test.import_base() {
        return;
    }
    fill(&test.path("disk/filler"));
    let context = test.dockerfile("FROM busybox\nRUN echo 1 >/x\n");
    test.build(&context, &["-t", "app"]).exits(3).says(&["full", "help: the disk is full"]);
    let arguments = ["import", "busybox.tar", "more"];
    test.rbuild(&arguments).outcome().exits(3).says(&["help: the disk is full"]);
    fs::remove_file(test.path("disk/filler")).unwrap();
    assert!(!test.has("more") && !test.has("app"));
    test.assert_sound();
    test.build(&context, &["-t", "app"]).succeeds();
    test.assert_sound();
}

#[test]
fn a_disk_that_leftovers_filled_is_usable_again() {
    if !is_root("a disk of a test's own") {
        return;
    }
    let mut test = TestEnvironment::new();
    let _disk = SmallDisk::new(test.path("disk"), "12m");
    test.set_store(test.path("disk/store"));
    if !test.import_base() {
        return;
    }
    let context = test.dockerfile("FROM busybox\nRUN echo 1 >/x\n");
    // What a process had no time to remove, and what one that was killed was making.
    for place in ["trash", "active"] {
        let left = test.store().join(place).join("left");
        fs::create_dir(&left).unwrap();
        fill(&left.join("over"));
        test.build(&context, &["--no-cache", "-t", "app"]).succeeds();
        assert!(!left.exists(), "{place}");
        test.assert_sound();
    }
}

/// Writes until nothing more fits.
fn fill(path: &Path) {
    use std::io::Write as _;
    let mut file = fs::File::create(path).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
}

#[test]
fn a_read_only_disk_is_the_machines_fault() {
    if !is_root("a disk of a test's own") {
        return;
    }
    let mut test = TestEnvironment::new();
    let disk = SmallDisk::new(test.path("disk"), "12m");
    test.set_store(test.path("disk/store"));
    disk.set_read_only();
    let context = test.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    test.build(&context, &["-t", "app"]).exits(3).says(&["Read-only file system", "--root DIR"]);
}

#[test]
fn an_image_may_have_more_layers_than_a_mount() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let copies: String = (0..600).map(|step| format!("COPY Dockerfile /steps/{step}\n")).collect();
    let last = "RUN ls /steps | wc -l >/count && rm /steps/0\n";
    let context = test.dockerfile(&format!("FROM busybox\n{copies}{last}RUN touch /end\n"));
    test.build(&context, &["-t", "deep"]).succeeds();
    assert_eq!(test.run("deep", "cat /count; test ! -e /steps/0 && ls /end"), "600\n/end\n");
    assert!(test.build(&context, &[]).succeeds().ran().is_empty());
    let tree = test.build_tree(&context, &[]);
    assert!(tree.has("steps/599") && !tree.has("steps/0"));
    test.assert_sound();
}
