//! Copies of directories kept as trees: the same images as of directories, and little to write when little has changed.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::Value;

use crate::common::{Context, TestEnvironment, is_root};

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

/// Builds in a store of its own, with copies kept in this form, and gives the digests of the layers, and how many packs there are.
fn built_as(form: &str, dockerfile: &str) -> Option<(Value, usize)> {
    let test = TestEnvironment::with_base()?;
    let context = context(&test, dockerfile);
    let build = test.build_command(&context, &["-t", "app", "--layers", form]);
    // Directories that the build makes have its time.
    build.env("SOURCE_DATE_EPOCH", "1").outcome().succeeds();
    test.assert_sound();
    Some((test.inspect("app")["RootFS"]["Layers"].take(), test.store_entries("packs")))
}

#[test]
fn images_do_not_depend_on_the_form_of_layers() {
    let mut packs = 0;
    for dockerfile in DOCKERFILES {
        let Some((as_directories, no_packs)) = built_as("directory", dockerfile) else { return };
        let Some((as_trees, more_packs)) = built_as("tree", dockerfile) else { return };
        assert_eq!(as_trees, as_directories, "{dockerfile}");
        assert_eq!(no_packs, 0);
        packs += more_packs;
    }
    assert!(packs > 0 || !is_root("trees"), "some were trees");
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
