//! What has to make a step run again, and what must not: BuildKit's rules, where it is right.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{XattrFlags, setxattr};

use crate::common::{Context, TestEnvironment, is_root};

/// What is copied, and what is made of it.
const COPY: &str = "COPY dir /dir";
const COPY_ALL: &str = "COPY . /all";
const RUN: &str = "RUN cat /dir/a >/b";

/// What is done between two builds, and the arguments of the second.
type Change = fn(&Context) -> &'static [&'static str];

/// The change, and the steps that run again after it.
type Case = (&'static str, Change, &'static [&'static str]);

const FILES: &[Case] = &[
    ("nothing", |_| &[], &[]),
    ("a modification time", |context| touch(context, "dir/a"), &[]),
    ("the times of a directory", |context| touch(context, "dir"), &[]),
    ("content", |context| write(context, "dir/a", "A\n"), &[COPY, RUN]),
    (
        "content of the same size and time",
        |context| write_at_the_same_time(context, "dir/a", "A\n"),
        &[COPY, RUN],
    ),
    ("the same content in a new file", |context| replace(context, "dir/a"), &[]),
    ("a mode", |context| chmod(context, "dir/a", 0o600), &[COPY, RUN]),
    ("the mode of a directory that is copied", |context| chmod(context, "dir/sub", 0o700), &[COPY, RUN]),
    ("a new empty directory", |context| make(fs::create_dir(context.path.join("dir/new"))), &[COPY, RUN]),
    ("a new file", |context| write(context, "dir/new", ""), &[COPY, RUN]),
    ("a removed file", |context| make(fs::remove_file(context.path.join("dir/sub/c"))), &[COPY, RUN]),
    (
        "a renamed file",
        |context| make(fs::rename(context.path.join("dir/sub/c"), context.path.join("dir/sub/d"))),
        &[COPY, RUN],
    ),
    (
        "the target of a link",
        |context| {
            fs::remove_file(context.path.join("dir/link")).unwrap();
            make(symlink("sub", context.path.join("dir/link")))
        },
        &[COPY, RUN],
    ),
    ("a file that is not copied", |context| write(context, "other", "changed"), &[]),
    ("a comment in .dockerignore", |context| write(context, ".dockerignore", "# new\nother\n"), &[]),
    (
        "a rule that hides a file",
        |context| write(context, ".dockerignore", "other\ndir/sub/c\n"),
        &[COPY, RUN],
    ),
    ("a rule that hides nothing copied", |context| write(context, ".dockerignore", "other\nno\n"), &[]),
];

const OPTIONS: &[Case] = &[
    ("an argument that nobody declares", |_| &["--build-arg", "NOBODY=1"], &[]),
    ("a proxy", |_| &["--build-arg", "HTTP_PROXY=http://127.0.0.1:1", "--build-arg", "no_proxy=x"], &[]),
    ("a label", |_| &["--label", "new=1"], &[]),
    ("a name", |_| &["-t", "another"], &[]),
    ("the address of a host", |_| &["--add-host", "here:127.0.0.2"], &[]),
    ("a new host", |_| &["--add-host", "here:127.0.0.1", "--add-host", "there:127.0.0.1"], &[RUN]),
    ("no network", |_| &["--network", "none"], &[RUN]),
    ("a size of shared memory", |_| &["--shm-size", "1m"], &[RUN]),
    ("a limit that processes see", |_| &["--ulimit", "nofile=100"], &[RUN]),
];

#[test]
fn files_of_the_context() {
    check(FILES, &[]);
}

#[test]
fn options_of_the_command() {
    check(OPTIONS, &["--add-host", "here:127.0.0.1"]);
}

/// Builds, changes, builds.
fn check(cases: &[Case], base_arguments: &[&str]) {
    let Some(test) = TestEnvironment::with_base() else { return };
    for (index, (what, change, expected)) in cases.iter().enumerate() {
        let dockerfile = format!("FROM busybox\n{COPY}\n{RUN}\n");
        let context = test.context(&format!("context-{index}"), &[("Dockerfile", &dockerfile)]);
        // What no other case has, so that nothing is found that another case made.
        context.write("dir/a", "a\n").write("dir/sub/c", "").write("dir/case", index.to_string());
        context.write("other", "").write(".dockerignore", "other\n").symlink("a", "dir/link");
        test.build(&context, base_arguments).succeeds();
        let arguments = change(&context);
        let kept = if arguments.contains(&"--add-host") { &[] } else { base_arguments };
        let outcome = test.build(&context, &[kept, arguments].concat()).succeeds();
        assert_eq!(outcome.ran(), *expected, "{what}");
    }
}

#[test]
fn the_owner_of_a_file_of_the_context_does_not_matter() {
    if !is_root("to give a file away") {
        return;
    }
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context("context", &[("Dockerfile", "FROM busybox\nCOPY . /all\n"), ("a", "a\n")]);
    test.build(&context, &[]).succeeds();
    std::os::unix::fs::chown(context.path.join("a"), Some(4321), Some(4321)).unwrap();
    assert_eq!(test.build(&context, &[]).succeeds().ran(), [""; 0]);
}

#[test]
fn an_extended_attribute_matters() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context("context", &[("Dockerfile", "FROM busybox\nCOPY . /all\n"), ("a", "a\n")]);
    test.build(&context, &[]).succeeds();
    if setxattr(context.path.join("a"), "user.new", b"1", XattrFlags::empty()).is_err() {
        crate::common::say("SKIPPED: no extended attributes here");
        return;
    }
    assert_eq!(test.build(&context, &[]).succeeds().ran(), [COPY_ALL]);
    assert_eq!(test.build(&context, &[]).succeeds().ran(), [""; 0]);
}

#[test]
fn the_value_of_a_secret_does_not_matter() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let step = "RUN --mount=type=secret,id=key wc -c /run/secrets/key >/count";
    let context = test.dockerfile(&format!("FROM busybox\n{step}\n"));
    for (value, ran) in [("one", 1), ("another", 0)] {
        test.write("key", value);
        let outcome = test.build(&context, &["--secret", "id=key,src=key"]).succeeds();
        assert_eq!(outcome.ran().len(), ran, "{value}");
    }
}

#[test]
fn a_link_does_not_depend_on_what_is_below() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let dockerfile =
        |below: &str| format!("FROM busybox\nRUN echo {below} >/below\nCOPY --link a /a\nCOPY a /b\n");
    let context = test.context("context", &[("Dockerfile", &dockerfile("one")), ("a", "a\n")]);
    test.build(&context, &[]).succeeds();
    context.dockerfile(&dockerfile("two"));
    // The link itself, which moves nothing, is made anew; the files are not copied again.
    let expected = ["COPY a /b", "LINK COPY --link a /a", "RUN echo two >/below"];
    assert_eq!(test.build(&context, &[]).succeeds().ran(), expected);
}

#[test]
fn a_comment_in_a_compiled_source_does_not_link_again() {
    let Some(test) = TestEnvironment::with_base() else { return };
    // What a compiler does with a comment: the object is the same, so the program is linked already.
    let dockerfile = "FROM busybox AS objects
COPY compile /bin/
COPY main.c /src/
RUN compile /src/main.c /main.o
FROM busybox AS link
COPY --from=objects /main.o /main.o
RUN cat /main.o /main.o >/program
RUN wc /program >/size
";
    let compile = "#!/bin/sh\ngrep -v '^//' \"$1\" >\"$2\"\n";
    let files = [("Dockerfile", dockerfile), ("compile", compile), ("main.c", "code\n// one\n")];
    let context = test.context("context", &files);
    context.chmod("compile", 0o755);
    test.build(&context, &["-t", "app"]).succeeds();
    context.write("main.c", "code\n// another\n");
    let again = test.build(&context, &["-t", "again"]).succeeds();
    assert_eq!(again.ran(), ["COPY main.c /src/", "RUN compile /src/main.c /main.o"]);
    assert_eq!(test.image_id("again"), test.image_id("app"));
}

#[test]
fn a_run_that_makes_the_same_ends_the_rebuild_of_a_chain() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let dockerfile =
        |word: &str| format!("FROM busybox\nRUN : {word}; echo same >/a\nRUN cat /a >/b\nRUN cat /b >/c\n");
    let context = test.dockerfile(&dockerfile("one"));
    test.build(&context, &["-t", "one"]).succeeds();
    context.dockerfile(&dockerfile("two"));
    let outcome = test.build(&context, &["-t", "two"]).succeeds();
    assert_eq!(outcome.ran(), ["RUN : two; echo same >/a"]);
}

#[test]
fn a_file_younger_than_the_clocks_tick_is_read_again() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context("context", &[("Dockerfile", "FROM scratch\nCOPY a /a\n")]);
    // As fast as it goes: some of these are within one tick, with the same size.
    for number in 100..120 {
        let content = format!("{number}\n");
        context.write("a", &content);
        assert_eq!(test.build_tree(&context, &[]).text("a"), content);
    }
}

fn make(result: std::io::Result<()>) -> &'static [&'static str] {
    result.unwrap();
    &[]
}

fn write(context: &Context, name: &str, content: &str) -> &'static [&'static str] {
    context.write(name, content);
    &[]
}

fn chmod(context: &Context, name: &str, mode: u32) -> &'static [&'static str] {
    context.chmod(name, mode);
    &[]
}

fn touch(context: &Context, name: &str) -> &'static [&'static str] {
    let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    make(File::open(context.path.join(name)).unwrap().set_modified(time))
}

fn write_at_the_same_time(context: &Context, name: &str, content: &str) -> &'static [&'static str] {
    let path = context.path.join(name);
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    context.write(name, content);
    make(File::open(path).unwrap().set_modified(time))
}

fn replace(context: &Context, name: &str) -> &'static [&'static str] {
    let (path, new) = (context.path.join(name), context.path.join("other"));
    fs::copy(&path, &new).unwrap();
    make(fs::rename(new, path))
}
