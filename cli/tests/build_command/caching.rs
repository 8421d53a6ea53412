//! What runs again, and what does not.

use std::fs::{self, File};
use std::time::Duration;

use crate::common::{Context, TestEnvironment};

/// Two stages that share nothing, and one that joins them.
const DOCKERFILE: &str = "FROM busybox AS one
ARG DECLARED=1
COPY a /a
RUN wc -c </a >/count
FROM busybox AS two
ARG USED=1
RUN echo $USED >/used
COPY b /b
FROM busybox
COPY --from=one /count /count
COPY --from=two /b /b
RUN cat /count /b >/joined
";
const COPY_A: &str = "COPY a /a";
const COPY_B: &str = "COPY b /b";
const COUNT: &str = "RUN wc -c </a >/count";
const FROM_ONE: &str = "COPY --from=one /count /count";
const FROM_TWO: &str = "COPY --from=two /b /b";
const JOIN: &str = "RUN cat /count /b >/joined";

fn context(test: &TestEnvironment) -> Context {
    test.context("context", &[("Dockerfile", DOCKERFILE), ("a", "aaaa\n"), ("b", "b\n"), ("unread", "")])
}

#[test]
fn a_second_build_runs_nothing() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = context(&test);
    assert_eq!(test.build(&context, &["-t", "app"]).succeeds().ran().len(), 7);
    let id = test.image_id("app");
    let again = test.build(&context, &["-t", "again"]).succeeds();
    assert_eq!(again.ran(), [""; 0]);
    assert_eq!(again.cached().len(), 7);
    assert_eq!(test.image_id("again"), id);
}

/// Changes a context after a build, and gives more arguments.
type Change = fn(&Context) -> &'static [&'static str];

#[test]
fn what_depends_on_a_change_runs_again_and_nothing_else() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let cases: [(&str, Change, &[&str]); 9] = [
        ("nothing", |_| &[], &[]),
        (
            "a file of another size",
            |context| edit(context, "a", "longer\n"),
            &[FROM_ONE, FROM_TWO, COPY_A, JOIN, COUNT],
        ),
        (
            "a file of the same size, so that the count is the same",
            |context| edit(context, "a", "AAAA\n"),
            &[COPY_A, COUNT],
        ),
        ("a file that is not copied", |context| edit(context, "unread", "read me\n"), &[]),
        ("a new file that is not copied", |context| edit(context, "new", "new\n"), &[]),
        (
            "a mode",
            |context| {
                context.chmod("b", 0o700);
                &[]
            },
            &[FROM_TWO, COPY_B, JOIN],
        ),
        (
            "a modification time",
            |context| {
                set_mtime(context, "a", 1_000_000_000);
                &[]
            },
            &[],
        ),
        ("an argument that is declared, which steps see", |_| &["--build-arg", "DECLARED=2"], &[COUNT]),
        ("an argument that is not declared", |_| &["--build-arg", "UNKNOWN=2"], &[]),
    ];
    for (change, make, expected) in cases {
        let context = context(&test);
        context.chmod("b", 0o644);
        test.build(&context, &["--no-cache"]).succeeds();
        let arguments = make(&context);
        assert_eq!(test.build(&context, arguments).succeeds().ran(), expected, "{change}");
    }
}

fn edit(context: &Context, name: &str, content: &str) -> &'static [&'static str] {
    context.write(name, content);
    &[]
}

fn set_mtime(context: &Context, name: &str, seconds: u64) {
    let time = std::time::UNIX_EPOCH + Duration::from_secs(seconds);
    File::options().write(true).open(context.path.join(name)).unwrap().set_modified(time).unwrap();
}

#[test]
fn an_argument_that_a_step_uses_makes_it_run_again() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = context(&test);
    test.build(&context, &[]).succeeds();
    let ran = test.build(&context, &["--build-arg", "USED=2"]).succeeds();
    // What is copied on top is the same, and so is what is copied from there.
    assert_eq!(ran.ran(), [COPY_B, "RUN echo 2 >/used"]);
    assert_eq!(test.build(&context, &["--build-arg", "USED=2"]).succeeds().ran(), [""; 0]);
    assert_eq!(test.build(&context, &[]).succeeds().ran(), [""; 0]);
}

#[test]
fn content_is_seen_behind_the_same_size_and_time() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context("context", &[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "one\n")]);
    set_mtime(&context, "a", 1_000_000_000);
    assert_eq!(test.build_tree(&context, &[]).text("a"), "one\n");
    context.write("a", "two\n");
    set_mtime(&context, "a", 1_000_000_000);
    assert_eq!(test.build_tree(&context, &[]).text("a"), "two\n");
    // By another file under the same name.
    fs::write(context.path.join("b"), "six\n").unwrap();
    set_mtime(&context, "b", 1_000_000_000);
    fs::rename(context.path.join("b"), context.path.join("a")).unwrap();
    assert_eq!(test.build_tree(&context, &[]).text("a"), "six\n");
}

#[test]
fn no_cache_runs_everything_or_one_stage() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = context(&test);
    test.build(&context, &["-t", "app"]).succeeds();
    assert_eq!(test.build(&context, &["--no-cache"]).succeeds().ran().len(), 7);
    let filtered = test.build(&context, &["--no-cache-filter", "one"]).succeeds();
    assert_eq!(filtered.ran(), [COPY_A, COUNT]);
}

#[test]
fn a_step_that_makes_the_same_stops_the_rebuild() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let dockerfile = "FROM busybox AS build
COPY source /source
RUN grep -v '^#' /source >/program
RUN touch /tmp/trace
FROM busybox
COPY --from=build /program /program
RUN wc /program >/lines
";
    let context = test.context("context", &[("Dockerfile", dockerfile), ("source", "code\n# one\n")]);
    test.build(&context, &["-t", "app"]).succeeds();
    context.write("source", "code\n# another comment\n");
    let ran = test.build(&context, &["-t", "again"]).succeeds();
    let expected = ["COPY source /source", "RUN grep -v '^#' /source >/program", "RUN touch /tmp/trace"];
    assert_eq!(ran.ran(), expected);
    assert_eq!(test.image_id("again"), test.image_id("app"));
}

/// What a step that runs again leaves otherwise, and no content digest tells, is in the image: what is found again lies on top of it.
#[test]
fn what_is_found_by_content_lies_on_what_was_made_anew() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let cases = [
        ("touch -d @1000000000 /file", "touch -d @1000000001 /file"),
        ("echo 1 >/file; cp /file /other", "echo 1 >/file; ln /file /other"),
        ("mkdir /d; touch -d @5 /d", "mkdir /d; touch -d @6 /d; true"),
    ];
    let look = "stat -c '%n %h %Y' /file /other /d; cat /after a";
    for (number, (before, edited)) in cases.into_iter().enumerate() {
        let name = format!("case{number}");
        let build = |step: &str, options: &[&str]| {
            let dockerfile =
                format!("FROM busybox\nRUN {step}\nRUN echo after >/after\nWORKDIR /made\nCOPY a .\n");
            let context = test.context(&name, &[("Dockerfile", &dockerfile), ("a", "a\n")]);
            let built = test.build(&context, &[&["-t", &name], options].concat()).succeeds();
            (built, test.rbuild(&["run", "--rm", &name, "sh", "-c", look]).outcome().stdout)
        };
        let (_, was) = build(before, &[]);
        let (built, is) = build(edited, &[]);
        assert_eq!(built.ran(), [format!("RUN {edited}")], "{was}");
        assert_ne!(is, was);
        // It is what a build without a cache makes of it, and is found at once from then on.
        let (again, same) = build(edited, &[]);
        assert_eq!((again.ran(), &same), (Vec::new(), &is));
        assert_eq!(build(before, &[]).1, was);
        test.assert_sound();
    }
}

/// Who owns the root, and what it lets whom do, is seen by the steps after it.
#[test]
fn the_mode_of_the_root_is_of_its_contents() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let build = |mode: &str| {
        let dockerfile = format!("FROM busybox\nRUN chmod {mode} /\nRUN stat -c %a / >/seen\n");
        let context = test.context("root", &[("Dockerfile", &dockerfile)]);
        test.build(&context, &["-t", "root"]).succeeds();
        test.run("root", "cat /seen; stat -c %a /")
    };
    assert_eq!(build("700"), "700\n700\n");
    assert_eq!(build("711"), "711\n711\n");
}

#[test]
fn a_step_is_shared_between_builds_of_different_dockerfiles() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo shared >/x\nRUN echo one >/y\n");
    test.build(&context, &[]).succeeds();
    context.dockerfile("# a comment\nFROM busybox AS named\nRUN   echo shared >/x\nRUN echo two >/y\n");
    assert_eq!(test.build(&context, &[]).succeeds().ran(), ["RUN echo two >/y"]);
}

#[test]
fn two_builds_at_once_run_each_step_once() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let step = "printf 'star%s\\n' ted; sleep 1; cat /proc/sys/kernel/random/uuid";
    let context = test.dockerfile(&format!("FROM busybox\nRUN {step} >/x\nRUN {step} >/y\n"));
    let mut first = test.build_command(&context, &["-t", "first"]).start();
    first.wait_for("started");
    let second = test.build(&context, &["-t", "second"]).succeeds();
    let first = first.finish().succeeds();
    let started = |text: &str| text.matches(" started\n").count();
    assert_eq!(started(&first.stderr) + started(&second.stderr), 2, "{}\n{}", first.stderr, second.stderr);
    assert_eq!(test.image_id("first"), test.image_id("second"));
    test.assert_sound();
}
