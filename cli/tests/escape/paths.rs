//! Ways out by name: links, archives and contexts that point at the machine.
//!
//! The machine is a directory beside the store, at the same path in the image, where `/link` points at it. Whatever is tried: nothing in it
//! changes, and nothing of it is seen.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tar::{Builder, EntryType, Header};

use crate::common::{Outcome, TestEnvironment};

/// What no build may show, as no build can know it.
const SECRET: &str = "of-the-machine-alone";

/// A test environment with a machine to get at, and an image `evil` with links to it.
struct Machine {
    test: TestEnvironment,
}

impl Machine {
    fn new() -> Option<Self> {
        let test = TestEnvironment::with_base()?;
        test.write("machine/secret", SECRET);
        test.write("machine/passwd", "mallory:x:0:0::/:/bin/sh\n");
        let machine = Self { test };
        let path = machine.path("");
        let links = format!(
            "mkdir -p {path} && ln -s {path} /link && ln -s {path}secret /file && ln -s ../../../../..{path} /up"
        );
        let context = machine.test.dockerfile(&format!("FROM busybox\nRUN {links}\n"));
        machine.test.build(&context, &["-t", "evil"]).succeeds();
        Some(machine)
    }

    fn path(&self, name: &str) -> String {
        self.test.path("machine").join(name).display().to_string()
    }

    /// Builds it, on top of `evil`, with what may be copied and mounted.
    fn build(&self, lines: &str) -> Outcome {
        let dockerfile =
            format!("FROM evil\n{}\n", lines.replace("{machine}", self.path("").trim_end_matches('/')));
        let context = self.test.context("context", &[("Dockerfile", &dockerfile), ("f", "mine\n")]);
        self.test.write("s", "given");
        self.test.build(&context, &["--secret", "id=s,src=s", "-t", "built"])
    }

    /// Fails if the machine was changed, or was seen in what a command said.
    #[track_caller]
    fn is_untouched(&self, by: &str, outcome: &Outcome, before: &[String]) {
        assert_eq!(listing(&self.test.path("machine")), before, "{by}");
        let said = [outcome.stdout.as_str(), outcome.stderr.as_str()].concat();
        assert!(!said.contains(SECRET), "{by}: {said}");
    }
}

/// All that is below a directory, with what an attacker may have changed.
fn listing(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let content = if metadata.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        found.push(format!(
            "{path:?} {:o} {} {} {content:?}",
            metadata.mode(),
            metadata.uid(),
            metadata.nlink()
        ));
        if metadata.is_dir() {
            found.extend(listing(&path));
        }
    }
    found.sort_unstable();
    found
}

/// Lines of a Dockerfile, and how the build ends.
const LINKS: &[(&str, i32)] = &[
    ("COPY f /link/\nRUN grep mine /link/f", 0),
    ("COPY f /link/secret", 0),
    ("COPY f /file", 0),
    ("COPY f /up/secret", 0),
    ("COPY --link f /link/secret", 0),
    ("COPY --chmod=777 --chown=7:7 . /link", 0),
    ("COPY --from=evil /link/secret /x", 2),
    ("COPY --from=evil /file /x", 2),
    ("COPY --from=evil /up/secret /x", 2),
    ("COPY --from=evil /link /x\nRUN ! cat /x/secret", 0),
    ("COPY --from=evil --parents /link/./secret /x", 2),
    ("COPY <<secret /link/\nnew\nsecret", 0),
    ("WORKDIR /link/made\nRUN touch here", 0),
    ("WORKDIR ../../../../../{machine}/made\nRUN touch here", 0),
    ("RUN --mount=type=bind,from=evil,source=/link,target=/m cat /m/secret", 1),
    ("RUN --mount=type=bind,from=evil,source=/file,target=/m cat /m", 1),
    ("RUN --mount=type=bind,source=../machine,target=/m cat /m/secret", 2),
    ("RUN --mount=type=bind,target=/m,rw echo other >/m/f && touch /m/made", 0),
    ("RUN --mount=type=bind,target=/link touch /link/made", 1),
    ("RUN --mount=type=cache,target=/link/made touch /link/made/x", 0),
    ("RUN --mount=type=cache,from=evil,source=/link,target=/c chmod 777 /c && touch /c/made", 0),
    ("RUN --mount=type=cache,id=../../machine,target=/c touch /c/made", 0),
    ("RUN --mount=type=tmpfs,target=/link touch /link/made", 0),
    ("RUN --mount=type=secret,id=s,target=/link/secret grep given /link/secret", 0),
    ("RUN --mount=type=secret,id=s,target=../../../../../{machine}/secret true", 0),
    ("RUN ln -sf {machine}/secret /etc/localtime && ! cat /etc/localtime", 0),
    ("RUN ln -sf {machine}/passwd /etc/passwd\nUSER mallory\nRUN true", 1),
    ("RUN rm /etc/passwd && mkfifo /etc/passwd\nUSER mallory\nRUN true", 1),
    ("RUN truncate -s 11M /etc/passwd\nUSER mallory\nRUN true", 1),
    ("RUN rm /etc/group && ln -s /dev/zero /etc/group\nUSER 1\nRUN true", 1),
    ("RUN rm -r /root && ln -s {machine} /root && touch /root/made", 0),
    ("RUN ln {machine}/secret /hard || ln /link/secret /hard", 1),
    ("VOLUME /link\nRUN touch /link/made", 0),
];

#[test]
fn links_of_an_image_lead_nowhere_else() {
    let Some(machine) = Machine::new() else { return };
    let before = listing(&machine.test.path("machine"));
    let mut wrong = Vec::new();
    for (lines, code) in LINKS {
        let outcome = machine.build(lines);
        machine.is_untouched(lines, &outcome, &before);
        if outcome.code != *code {
            wrong.push(format!("{lines}: {} and not {code}: {}", outcome.code, outcome.stderr));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(fs::read_to_string(machine.test.path("context/f")).unwrap(), "mine\n");
    machine.test.assert_sound();
}

/// An entry of a hostile archive: its kind, its name as it stands in the header, the target or else the content.
type Part<'a> = (EntryType, &'a str, &'a str);

fn hostile(parts: &[Part<'_>], machine: &str) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    for (kind, name, rest) in parts {
        let (name, rest) = (name.replace("{machine}", machine), rest.replace("{machine}", machine));
        let content = if kind.is_file() { rest.as_bytes() } else { b"" };
        let mut header = Header::new_gnu();
        // Not through the crate's setters, which refuse what is tried here.
        let fields = header.as_old_mut();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        if !kind.is_file() {
            fields.linkname[..rest.len()].copy_from_slice(rest.as_bytes());
        }
        header.set_entry_type(*kind);
        header.set_mode(0o777);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content).unwrap();
    }
    tar.into_inner().unwrap()
}

const FILE: EntryType = EntryType::Regular;
const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;
const DIR: EntryType = EntryType::Directory;

const ARCHIVES: &[(&str, &[Part<'_>])] = &[
    ("upwards", &[(FILE, "../../../../../../..{machine}/secret", "new")]),
    ("absolute", &[(FILE, "{machine}/secret", "new")]),
    ("up in the middle", &[(DIR, "a", ""), (FILE, "a/../../../../../../../..{machine}/made", "new")]),
    ("through a link", &[(LINK, "a", "{machine}"), (FILE, "a/secret", "new")]),
    ("through a link upwards", &[(LINK, "a", "../../../../../../../..{machine}"), (FILE, "a/made", "new")]),
    ("through two links", &[(LINK, "a", "{machine}"), (LINK, "b", "a"), (FILE, "b/made", "new")]),
    ("onto a link", &[(LINK, "a", "{machine}/secret"), (FILE, "a", "new")]),
    ("a directory onto a link", &[(LINK, "a", "{machine}"), (DIR, "a", ""), (FILE, "a/made", "new")]),
    ("a hard link out", &[(HARD, "a", "{machine}/secret"), (FILE, "a", "new")]),
    ("a hard link upwards", &[(HARD, "a", "../../../../../../..{machine}/secret"), (FILE, "a", "new")]),
    ("a hard link to a link", &[(LINK, "a", "{machine}/secret"), (HARD, "b", "a"), (FILE, "b", "new")]),
    ("a hard link through a link", &[(LINK, "a", "{machine}"), (HARD, "b", "a/secret"), (FILE, "b", "new")]),
    ("a whiteout through a link", &[(LINK, "a", "{machine}"), (FILE, "a/.wh.secret", "")]),
    ("a whiteout of the parent", &[(FILE, ".wh...", ""), (FILE, ".wh..", "")]),
    ("an opaque link", &[(LINK, "a", "{machine}"), (FILE, "a/.wh..wh..opq", "")]),
    ("the root as a link", &[(LINK, "./", "{machine}"), (FILE, "made", "new")]),
    ("a fifo to wait at", &[(EntryType::Fifo, "a", ""), (FILE, "a", "new")]),
];

#[test]
fn archives_write_nowhere_else() {
    let Some(machine) = Machine::new() else { return };
    let before = listing(&machine.test.path("machine"));
    let context =
        machine.test.context("added", &[("Dockerfile", "FROM evil\nADD a.tar /into/\nADD a.tar /link/\n")]);
    for (name, parts) in ARCHIVES {
        let tar = hostile(parts, machine.path("").trim_end_matches('/'));
        context.write("a.tar", &tar);
        let doors = [
            machine.test.build(&context, &[]),
            machine
                .test
                .rbuild(&["import", context.path.join("a.tar").to_str().unwrap(), "imported"])
                .outcome(),
            machine.test.rbuild(&["load"]).stdin(tar.clone()).outcome(),
            machine.test.rbuild(&["build", "-"]).stdin(tar.clone()).outcome(),
        ];
        for outcome in doors {
            machine.is_untouched(name, &outcome, &before);
            assert!([0, 1, 2].contains(&outcome.code), "{name}: {outcome:?}");
        }
    }
    machine.test.assert_sound();
}

/// A tree that was written out before may hold links, which the next one does not follow.
#[test]
fn exports_write_nowhere_else() {
    let Some(machine) = Machine::new() else { return };
    let before = listing(&machine.test.path("machine"));
    for lines in [
        "RUN ln -s {machine} /a && ln -s {machine}/secret /b && ln -s {machine}/made /c",
        "RUN mkdir /a /d && echo new >/a/secret && echo new >/b && echo new >/c && ln -s /a/secret /d/e",
        "RUN ln -s {machine} /d && mkdir -p -m 777 /a && echo new >/a/made",
    ] {
        let dockerfile =
            format!("FROM busybox\n{}\n", lines.replace("{machine}", machine.path("").trim_end_matches('/')));
        let context = machine.test.dockerfile(&dockerfile);
        let outcome = machine.test.build(&context, &["-o", "type=local,dest=out"]);
        machine.is_untouched(lines, &outcome, &before);
        outcome.succeeds();
    }
}

#[test]
fn links_of_a_context_lead_nowhere_else() {
    let Some(machine) = Machine::new() else { return };
    let context = machine.test.context("context", &[("d/f", "mine\n")]);
    context
        .symlink(&machine.path(""), "out")
        .symlink(&machine.path("secret"), "file")
        .symlink("../machine", "up");
    let before = listing(&machine.test.path("machine"));
    for (lines, code) in [
        ("COPY out/secret /x", 2),
        ("COPY file /x", 2),
        ("COPY up/secret /x", 2),
        ("COPY ../machine/secret /x", 2),
        ("COPY up* /x/\nRUN ! cat /x/secret /x/up/secret", 2),
        ("ADD file /x", 2),
        ("COPY . /all\nRUN ! cat /all/out/secret /all/file /all/up/secret", 0),
        ("RUN --mount=type=bind,target=/m cat /m/file /m/out/secret", 1),
        ("RUN --mount=type=bind,source=out,target=/m cat /m/secret", 2),
    ] {
        context.dockerfile(&format!("FROM busybox\n{lines}\n"));
        let outcome = machine.test.build(&context, &[]);
        machine.is_untouched(lines, &outcome, &before);
        assert_eq!(outcome.code, code, "{lines}: {}", outcome.stderr);
    }
}

#[test]
fn nobody_waits_at_a_fifo_of_a_context() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context("context", &[("Dockerfile", "FROM busybox\nCOPY . /all\n"), ("f", "mine\n")]);
    let fifo = |name: &str| mkfifo(&context.path.join(name), Mode::S_IRWXU).unwrap();
    fifo("pipe");
    assert!(test.build_tree(&context, &[]).has("all/f"));
    context.dockerfile("FROM busybox\nCOPY pipe /x\nADD pipe /y\n");
    test.build(&context, &[]);
    fifo(".dockerignore");
    test.build(&context, &[]).exits(3).says(&[".dockerignore`: it is not a regular file"]);
}

/// While it is copied, a directory is a link to the machine every now and then.
#[test]
fn a_link_that_comes_while_files_are_copied_is_no_way_out() {
    let Some(machine) = Machine::new() else { return };
    let context = machine.test.context("context", &[("Dockerfile", "FROM scratch\nCOPY . /\n")]);
    for number in 0..200 {
        context.write(&format!("d/{number}/secret"), "mine\n");
    }
    for number in 0..200 {
        fs::create_dir_all(machine.test.path(&format!("machine/{number}"))).unwrap();
        machine.test.write(&format!("machine/{number}/secret"), SECRET);
    }
    let before = listing(&machine.test.path("machine"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| swap(&context.path, &machine.test.path("machine"), &done));
        for _ in 0..10 {
            // What changes under its hands may fail a build.
            let outcome = machine.test.build(&context, &["-o", "-", "--no-cache"]);
            machine.is_untouched("a race", &outcome, &before);
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Lets `d` be a directory and a link to the machine in turn.
fn swap(context: &Path, machine: &Path, done: &AtomicBool) {
    let (directory, aside): (PathBuf, PathBuf) = (context.join("d"), context.join("aside"));
    let link = context.join("link");
    symlink(machine, &link).unwrap();
    let exchange = |from: &Path, to: &Path| fs::rename(from, to).unwrap();
    while !done.load(Ordering::Relaxed) {
        exchange(&directory, &aside);
        exchange(&link, &directory);
        exchange(&directory, &link);
        exchange(&aside, &directory);
    }
}

/// A tree of five thousand levels, deeper than any path can say.
const DEEP: &str = "p=$(printf 'd/%.0s' $(seq 1000)); for i in 1 2 3 4 5; do mkdir -p /$i/$p && \
                    { [ ! -e /deep ] || mv /deep /$i/$p; } && mv /$i /deep || exit 1; done";

#[test]
fn nobody_is_lost_in_a_deep_tree() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let rbuild = |arguments: &[&str]| test.rbuild(arguments).outcome();
    rbuild(&["run", "--name", "deep", "--network", "none", "busybox", "sh", "-c", DEEP]).succeeds();
    for command in [&["diff", "deep"][..], &["export", "deep"], &["commit", "deep", "image"]] {
        let outcome = rbuild(command);
        assert!(matches!(outcome.code, 1..=3), "{command:?}: {}\n{}", outcome.code, outcome.stderr);
    }
    rbuild(&["rm", "deep"]).succeeds();
    test.assert_sound();
}
