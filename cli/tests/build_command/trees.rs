//! Copies of directories kept as trees: the same images as of directories, and little to write when little has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;
use tar::{Builder, EntryType, Header};

use crate::common::{Context, TestEnvironment, gzip, is_root, tar_of};

/// Copies of all kinds; what becomes a tree and what does not must not show.
pub(super) const DOCKERFILES: [&str; 15] = [
    "FROM busybox\nCOPY . /app\nUSER 9\nRUN ls /app\n",
    "FROM busybox\nWORKDIR /app\nCOPY . .\nRUN find . | sort > /list && chmod 600 d/a && chown 5:6 run.sh && mv d e && rm b\n",
    "FROM scratch\nCOPY . /\n",
    "FROM busybox\nCOPY --chown=7:8 --chmod=u+x,go-w d /new/way/\n",
    "FROM busybox\nCOPY --exclude=**/a . /app\nCOPY d /app\n",
    "FROM busybox\nCOPY --parents d/./in/*/x /app/\n",
    "FROM busybox\nCOPY b run.sh /app/\nCOPY d link /app/\n",
    "FROM busybox\nRUN mkdir -p /app/d && ln -s /app /to && rm -r /app/d\nCOPY --link d /to\nCOPY d /to/\n",
    "FROM busybox AS one\nCOPY . /app\nRUN ln /app/b /app/b2 && mkfifo /app/fifo\nFROM busybox\nCOPY --from=one /app /app\nCOPY --from=one /app/d /d\n",
    "FROM busybox\nRUN mkdir /app && echo 1 >/app/x\nRUN rm -r /app\nCOPY d /app\nRUN rm -r /app\nCOPY . /app\n",
    "FROM busybox\nCOPY *d /globbed\nCOPY d/ /app/\n",
    "FROM busybox\nCOPY run.sh d /app/\n",
    "FROM busybox\nWORKDIR /app\nCOPY b run.sh ./\nRUN mkdir -p d/in/two && chmod 700 d && chown 3:4 d/in && echo 1 >d/old && echo 2 >d/a\nCOPY --chown=8 . .\nRUN find . | sort >/list\n",
    "FROM busybox\nRUN mkdir -p /app/d/in /app/d/to && touch -d @9 /app/d && ln -s /to /app/d/link && echo 1 >/app/d/nowhere\nCOPY --parents d /app/\nCOPY . /app/d\n",
    "FROM busybox\nCOPY <<one.txt <<two.txt /app/\n1\none.txt\n2\ntwo.txt\nCOPY d /app/d\n",
];

pub(super) fn context(test: &TestEnvironment, dockerfile: &str) -> Context {
    let files = [
        ("Dockerfile", dockerfile),
        ("b", "b"),
        ("empty", ""),
        ("run.sh", "#!/bin/sh\n"),
        ("d/a", "a"),
        ("d/in/one/x", "x1"),
        ("d/in/two/x", "x2"),
        ("d/in/two/y", "y"),
    ];
    let context = test.context("context", &files);
    let path = |name: &str| context.path.join(name);
    fs::set_permissions(path("run.sh"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::write(path("d/large"), vec![b'l'; 300_000]).unwrap();
    for (link, target) in [("link", "d/a"), ("d/nowhere", "../missing")] {
        drop(fs::remove_file(path(link)));
        symlink(target, path(link)).unwrap();
    }
    drop(fs::remove_file(path("d/twin")));
    fs::hard_link(path("b"), path("d/twin")).unwrap();
    context
}

/// Archives that are unpacked; whether into a tree or not must not show.
const ADDS: [&str; 9] = [
    "FROM scratch\nADD a.tar /\n",
    "FROM busybox\nADD --chown=7:8 --chmod=700 a.tar.gz /new/way\nRUN find /new/way ! -type d -exec stat -c '%n %f %u %g %s %h %Y' {} + | sort >/list && rm -r /new/way/d\n",
    "FROM busybox\nRUN mkdir -p /app/d && chmod 700 /app/d && echo 1 >/app/f && echo 2 >/app/d/own\nADD a.tar /app\nADD a.tar.gz /app\n",
    "FROM busybox\nRUN mkdir -p /app/implied && chmod 711 /app/implied && touch -d @5 /app/implied\nADD a.tar /app\n",
    "FROM busybox\nRUN mkdir -p /app/to && ln -s to /app/d && ln -s to /app/implied\nADD implied.tar /app\n",
    "FROM busybox\nRUN mkdir -p /app/f/deep /app/link\nADD a.tar /app\n",
    "FROM busybox\nRUN mkdir -p /app/turn && echo 1 >/app/turn/hidden\nADD turn.tar /app\n",
    "FROM busybox\nRUN mkdir /app && echo 1 >/app/there\nADD linked.tar /app\n",
    "FROM busybox\nADD b a.tar run.sh implied.tar /app/\nADD a.tar empty-one.tar /other/\n",
];

/// An archive with an entry of each kind, in which each has another mode, owner and time.
fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (number, (path, kind, said)) in (1_u32..).zip(entries) {
        let mut header = Header::new_ustar();
        header.set_entry_type(*kind);
        header.set_mode(0o4600 + number);
        header.set_uid(u64::from(number) * 10);
        header.set_gid(u64::from(number) * 100);
        header.set_mtime(u64::from(number));
        match kind {
            EntryType::Regular => {
                let capability = [&[1, 0, 0, 2][..], &[9; 16]].concat();
                tar.append_pax_extensions([("SCHILY.xattr.security.capability", &capability[..])]).unwrap();
                header.set_size(said.len() as u64);
                tar.append_data(&mut header, path, said.as_bytes()).unwrap();
            }
            EntryType::Symlink | EntryType::Link => {
                header.set_size(0);
                tar.append_link(&mut header, path, said).unwrap();
            }
            _ => {
                header.set_size(0);
                tar.append_data(&mut header, path, &b""[..]).unwrap();
            }
        }
    }
    tar.into_inner().unwrap()
}

fn add_archives(context: &Context) {
    use EntryType::{Directory, Fifo, Link, Regular, Symlink};
    let large = "l".repeat(300_000);
    let all = archive(&[
        ("d/", Directory, ""),
        ("d/a", Regular, "a"),
        ("f", Regular, "file"),
        ("hard", Link, "f"),
        ("d/in/", Directory, ""),
        ("d/in/large", Regular, &large),
        ("link", Symlink, "d/in"),
        ("link/through", Regular, "through a link"),
        ("implied/.wh.deep", Regular, "no whiteout"),
        ("d/pipe", Fifo, ""),
        ("f", Regular, "another"),
        ("empty", Regular, ""),
    ]);
    context.write("a.tar", &all).write("a.tar.gz", gzip(&all));
    context.write("implied.tar", archive(&[("d/x", Regular, "x"), ("implied/y", Regular, "y")]));
    context.write("turn.tar", archive(&[("turn", Regular, "file"), ("turn/", Directory, "")]));
    context.write("linked.tar", archive(&[("new", Link, "there")]));
    context.write("empty-one.tar", archive(&[("./", Directory, "")]));
}

/// Builds in a store of its own, with copies kept in this form, and gives the digests of the layers, and how many packs there are.
fn built_as(form: &str, dockerfile: &str) -> Option<(Value, usize)> {
    let test = TestEnvironment::with_base()?;
    let context = context(&test, dockerfile);
    if dockerfile.contains("ADD") {
        add_archives(&context);
    }
    let build = test.build_command(&context, &["-t", "app", "--layers", form]);
    // Directories that the build makes have its time.
    build.env("SOURCE_DATE_EPOCH", "1000").outcome().succeeds();
    test.assert_sound();
    Some((test.inspect("app")["RootFS"]["Layers"].take(), test.store_entries("packs")))
}

#[test]
fn images_do_not_depend_on_the_form_of_layers() {
    assert_same_images(&DOCKERFILES);
}

#[test]
fn unpacked_archives_do_not_depend_on_the_form_of_layers() {
    assert_same_images(&ADDS);
}

fn assert_same_images(dockerfiles: &[&str]) {
    let mut packs = 0;
    for dockerfile in dockerfiles {
        let Some((as_directories, no_packs)) = built_as("directory", dockerfile) else { return };
        let Some((as_trees, more_packs)) = built_as("tree", dockerfile) else { return };
        assert_eq!(as_trees, as_directories, "{dockerfile}");
        assert_eq!(no_packs, 0);
        packs += more_packs;
    }
    assert!(packs > 0 || !is_root("trees"), "some were trees");
}

#[test]
fn an_archive_that_is_added_becomes_a_tree() {
    if !is_root("trees") {
        return;
    }
    for (form, count, packs) in [("auto", 300, 1), ("auto", 200, 0), ("tree", 1, 1), ("directory", 300, 0)] {
        let Some(test) = TestEnvironment::with_base() else { return };
        let context = test.dockerfile("FROM busybox\nADD many.tar.gz /app\nRUN cat /app/* | wc -c\n");
        let names: Vec<String> = (0..count).map(|number| format!("f{number}")).collect();
        let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        context.write("many.tar.gz", gzip(&tar_of(&files)));
        test.build(&context, &["--layers", form]).succeeds();
        assert_eq!(test.store_entries("packs"), packs, "{count} as {form}");
    }
}

#[test]
fn a_tree_that_is_copied_from_a_stage_is_not_read() {
    if !is_root("trees") {
        return;
    }
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile(
        "FROM busybox AS one\nCOPY many /app\nFROM scratch\nCOPY --chown=3:4 --from=one /app /there\n",
    );
    for number in 0..300 {
        context.write(&format!("many/{}/{number}", number / 100), "x".repeat(number + 1));
    }
    test.build(&context, &["--layers", "tree", "--target", "one"]).succeeds();
    // Whoever reads it sees something else, and writes it.
    let pack = fs::read_dir(test.store().join("packs")).unwrap().next().unwrap().unwrap().path();
    let file = fs::File::options().write(true).open(pack).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[b'y'; 100_000], 0).unwrap();
    test.build(&context, &["--layers", "tree"]).succeeds();
    assert_eq!(test.store_entries("packs"), 1);
}

#[test]
fn one_changed_file_is_one_written_file() {
    if !is_root("trees") {
        return;
    }
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = context(&test, "FROM busybox\nCOPY . /app\nRUN cat /app/b /app/d/large | wc -c >/size\n");
    let build = |arguments: &[&str]| {
        test.build_command(&context, &["-t", "app", "--layers", "tree"]).args(arguments).outcome().succeeds()
    };
    build(&[]);
    let first = test.store_entries("packs");
    let written = || -> u64 {
        let packs = fs::read_dir(test.store().join("packs")).unwrap();
        packs.map(|pack| pack.unwrap().metadata().unwrap().len()).sum()
    };
    let before = written();
    context.write("b", "changed");
    build(&[]);
    assert_eq!(test.store_entries("packs"), first + 1);
    assert!(written() - before < 2000, "a pack of one small file");
    assert_eq!(test.run("app", "cat /app/b /size"), "changed300007\n");
    build(&["--no-cache"]);
    assert_eq!(test.store_entries("packs"), first + 1, "nothing is new");
    test.rbuild(&["image", "prune", "-a", "-f"]).outcome().succeeds();
    test.rbuild(&["prune", "-a", "-f"]).outcome().succeeds();
    assert_eq!(test.store_entries("packs"), 0);
    test.assert_sound();
}

#[test]
fn what_images_no_longer_need_of_a_pack_is_freed() {
    if !is_root("trees") {
        return;
    }
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = context(&test, "FROM busybox\nCOPY . /app\n");
    let build = || test.build_command(&context, &["-t", "app", "--layers", "tree"]).outcome().succeeds();
    build();
    context.write("d/large", "small");
    build();
    test.rbuild(&["image", "prune", "-f"]).outcome().succeeds();
    let pruned = test.rbuild(&["prune", "-a", "-f"]).outcome().succeeds();
    assert!(pruned.stdout.contains("Cut out of packs that stay:\t299kB"), "{}", pruned.stdout);
    assert_eq!(test.run("app", "cat /app/b /app/d/large"), "bsmall");
    test.assert_sound();
}

#[test]
fn a_damaged_tree_is_made_again() {
    if !is_root("trees") {
        return;
    }
    let Some(test) = TestEnvironment::with_base() else { return };
    let copy = "FROM busybox\nCOPY d /app\n";
    let context = context(&test, copy);
    let build = || test.build_command(&context, &["-t", "app", "--layers", "tree"]).outcome();
    let damages: [fn(&Path); 3] = [
        |layer| fs::write(layer, "no image").unwrap(),
        |layer| fs::remove_file(layer).unwrap(),
        |layer| fs::remove_dir_all(layer.ancestors().nth(2).unwrap().join("packs")).unwrap(),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        context.write("Dockerfile", copy);
        build().succeeds();
        damage(&newest_image(&test));
        // Who runs it can do nothing but say so; a build finds nothing that it could use, and makes it.
        test.rbuild(&["run", "--rm", "--network", "none", "app"])
            .outcome()
            .exits(125)
            .says(&["is damaged: the layer was forgotten, and a build or a pull makes it anew"]);
        build().succeeds();
        assert_eq!(test.run("app", "cat /app/a"), "a");
        damage(&newest_image(&test));
        // One that meets it on the way begins again.
        context.write("Dockerfile", format!("{copy}RUN cat /app/a && echo {number}\n"));
        build().succeeds().says(&["the layer was forgotten"]);
        assert_eq!(test.run("app", "cat /app/a"), "a");
        // What the container had that was to run.
        test.rbuild(&["system", "check", "--repair"]).outcome().succeeds();
        assert_eq!(test.run("app", "cat /app/a"), "a");
        test.assert_sound();
    }
}

#[test]
fn a_device_that_would_hide_what_is_below_is_refused() {
    if !is_root("trees") {
        return;
    }
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = context(&test, "FROM busybox\nRUN mkdir /app && echo 1 >/app/victim\nCOPY d /app\n");
    let victim = context.path.join("d/victim");
    mknodat(CWD, victim, FileType::CharacterDevice, Mode::RUSR, 0).unwrap();
    for layers in ["tree", "directory"] {
        test.build(&context, &["--layers", layers]).exits(3).says(&["create the device", "victim"]);
    }
}

/// The newest layer that is an image.
fn newest_image(test: &TestEnvironment) -> PathBuf {
    let layers = fs::read_dir(test.store().join("layers")).unwrap();
    let number = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    let images = layers.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    images.max_by_key(number).unwrap()
}

#[test]
fn containers_of_a_tree_share_its_mount() {
    if !is_root("trees") {
        return;
    }
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = context(&test, "FROM busybox\nCOPY d /app\n");
    test.build_command(&context, &["-t", "app", "--layers", "tree"]).outcome().succeeds();
    let rbuild = |arguments: &[&str]| test.rbuild(arguments).outcome().succeeds();
    // By the processes that have them.
    let mounts = || -> BTreeMap<String, String> {
        let locks = fs::read_dir(test.store().join("locks")).unwrap();
        let names = locks.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let fields = |name: String| name.split('-').map(str::to_owned).collect::<Vec<_>>();
        names.map(fields).map(|fields| (fields[2].clone(), fields[4].clone())).collect()
    };
    let run = |name| rbuild(&["run", "-d", "--network", "none", "--name", name, "app", "sleep", "1000"]);
    let names = ["one", "two", "three"];
    names.iter().for_each(|name| drop(run(name)));
    let shared = mounts();
    assert_eq!(shared.len(), names.len(), "{shared:?}");
    assert_eq!(shared.values().collect::<BTreeSet<_>>().len(), 1, "{shared:?}");
    // Who has mounted it goes first.
    for name in names {
        assert_eq!(rbuild(&["exec", name, "cat", "/app/a"]).stdout, "a");
        rbuild(&["rm", "-f", name]);
    }
    // A monitor tells of the end of its container before its own.
    let begun = Instant::now();
    while !mounts().is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", mounts());
        thread::sleep(Duration::from_millis(10));
    }
}
