//! Builds are remembered, explained, and can be looked into.

use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::common::{Context, Outcome, TestEnvironment};

const DOCKERFILE: &str = "FROM busybox
ARG VERSION=1
ENV COLOR=red
COPY src /app/src
RUN echo making $VERSION; echo warning >&2
RUN wc -c </app/src/a >/count
";
const MAKE: &str = "RUN echo making 1; echo warning >&2";

fn context(test: &TestEnvironment) -> Context {
    test.context("app", &[("Dockerfile", DOCKERFILE), ("src/a", "one\n"), ("src/b", "b\n")])
}

fn builds(test: &TestEnvironment) -> Vec<Value> {
    let list = test.rbuild(&["builds", "ls", "--format", "json"]).outcome().succeeds();
    list.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn statuses(test: &TestEnvironment) -> Vec<String> {
    builds(test).iter().map(|build| build["status"].as_str().unwrap().to_owned()).collect()
}

fn output(test: &TestEnvironment, arguments: &[&str]) -> String {
    test.rbuild(arguments).outcome().succeeds().stdout
}

#[test]
fn a_build_is_remembered_with_the_output_of_every_step() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = context(&test);
    test.build(&context, &["-t", "app"]).succeeds();
    test.build(&context, &["-t", "again"]).succeeds();
    let listed = builds(&test);
    let facts =
        |build: &Value| (build["name"].clone(), build["steps_cached"].clone(), build["steps_total"].clone());
    assert_eq!(facts(&listed[0]), ("docker.io/library/again:latest".into(), 4.into(), 4.into()));
    assert_eq!(facts(&listed[1]), ("docker.io/library/app:latest".into(), 0.into(), 4.into()));
    // A cached step shows what it printed when it ran.
    for build in &listed {
        let id = build["id"].as_str().unwrap();
        let log = test.rbuild(&["builds", "logs", id, MAKE]).outcome().succeeds();
        assert_eq!((log.stdout.as_str(), log.stderr.as_str()), ("making 1\n", "warning\n"));
    }
    let inspected: Value =
        test.rbuild(&["builds", "inspect", "--format", "json"]).outcome().succeeds().json();
    assert_eq!(inspected["steps"].as_array().unwrap().len(), 5);
    // Forgotten, a build leaves what later ones show.
    let first = listed[1]["id"].as_str().unwrap();
    output(&test, &["builds", "rm", &first[..6]]);
    assert_eq!(output(&test, &["builds", "logs", MAKE]), "making 1\n");
    test.rbuild(&["builds", "inspect", first]).outcome().exits(2).says(&["there is no build"]);
    output(&test, &["builds", "rm", "--all"]);
    assert_eq!(builds(&test), [Value::Null; 0]);
}

#[test]
fn how_a_build_ended_is_told() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let wait = test.context("wait", &[("Dockerfile", "FROM busybox\nRUN echo begun; sleep 60\n")]);
    let fail = test.context("fail", &[("Dockerfile", "FROM busybox\nRUN echo why; exit 3\n")]);
    let wrong = test.context("wrong", &[("Dockerfile", "FROM busybox\nRUM true\n")]);
    test.build(&fail, &[]).exits(1);
    test.build(&wrong, &[]).exits(2);
    assert_eq!(statuses(&test), ["failed", "failed"]);
    for (signal, status) in [(Signal::SIGTERM, "cancelled"), (Signal::SIGKILL, "died")] {
        let mut running = test.build_command(&wait, &[]).start();
        // The line itself, not the name of the step.
        running.wait_for("begun\n");
        assert_eq!(statuses(&test)[0], "running");
        let newest = builds(&test)[0]["id"].as_str().unwrap().to_owned();
        test.rbuild(&["builds", "rm", &newest]).outcome().exits(2).says(&["is running"]);
        running.signal(signal);
        running.finish();
        assert_eq!(statuses(&test)[0], status);
        assert_eq!(output(&test, &["builds", "logs", "begun"]), "begun\n", "{status}");
    }
    assert!(output(&test, &["builds", "inspect"]).contains("died"));
}

/// Changes a build, and gives more arguments.
type Change = fn(&Context) -> &'static [&'static str];

#[test]
fn what_changed_is_said() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let cases: [(&str, Change, &str, &str); 9] = [
        (
            "content",
            |context| edit(context, "src/a", "two\n"),
            "COPY",
            "ran: 1 file changed: src/a (content)",
        ),
        (
            "a mode, a new file, one that is gone",
            |context| {
                context.chmod("src/a", 0o755);
                context.write("src/c", "c\n");
                std::fs::remove_file(context.path.join("src/b")).unwrap();
                &[]
            },
            "COPY",
            "ran: 1 file changed: src/a (mode 0644 -> 0755); 1 added: src/c; 1 removed: src/b",
        ),
        (
            "an earlier step",
            |context| edit(context, "src/a", "longer\n"),
            "RUN wc",
            "ran: an earlier step changed: [3/4] RUN echo making 1; echo warning >&2 \
             (first [2/4] COPY src /app/src: 1 file changed: src/a (content))",
        ),
        ("an argument", |_| &["--build-arg", "VERSION=2"], "making", "ran: argument VERSION: 1 -> 2"),
        (
            "a variable",
            |context| replace(context, "red", "blue"),
            "making",
            "ran: environment COLOR: red -> blue",
        ),
        (
            "a command",
            |context| replace(context, "wc -c", "wc -l"),
            "RUN wc",
            "ran: command changed: wc -c </app/src/a >/count -> wc -l </app/src/a >/count",
        ),
        ("an option", |_| &["--network", "none"], "RUN wc", "ran: option --network: default -> none"),
        ("no cache", |_| &["--no-cache"], "COPY", "ran: the cache was not to be used"),
        ("nothing", |_| &[], "RUN wc", "found under its key, made by build "),
    ];
    for (name, change, step, expected) in cases {
        let context = test.context(
            &format!("in {name}"),
            &[("Dockerfile", DOCKERFILE), ("src/a", "one\n"), ("src/b", "b\n")],
        );
        test.build(&context, &["--no-cache"]).succeeds();
        let arguments = change(&context);
        let outcome = test.build(&context, &[arguments, &["--explain"]].concat()).succeeds();
        let afterwards = output(&test, &["explain", step]);
        assert!(afterwards.contains(expected), "{name}: no {expected:?} in\n{afterwards}");
        let live = expected.trim_start_matches("ran: ").split(", made by").next().unwrap();
        assert!(outcome.stderr.contains(&format!("why: {live}")), "{name}: {live:?} in\n{}", outcome.stderr);
    }
    let json: Value = test.rbuild(&["explain", "--format", "json", "RUN wc"]).outcome().succeeds().json();
    assert_eq!(json[0]["decision"], "cached");
}

#[test]
fn another_base_image_and_a_first_build_are_told() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context("app", &[("Dockerfile", "FROM base\nRUN true\n")]);
    let base = test.context("base", &[("Dockerfile", "FROM busybox\nRUN echo 1 >/x\n")]);
    test.build(&base, &["-t", "base"]).succeeds();
    test.build(&context, &[]).succeeds();
    assert!(output(&test, &["explain", "RUN true"]).contains("never built before"));
    base.write("Dockerfile", "FROM busybox\nRUN echo 2 >/x\n");
    test.build(&base, &["-t", "base"]).succeeds();
    test.build(&context, &[]).succeeds();
    assert!(output(&test, &["explain", "FROM"]).contains("ran: base image is another: sha256:"));
    let run = output(&test, &["explain", "RUN true"]);
    assert!(
        run.contains("an earlier step changed: [1/2] FROM") && run.contains("base image is another"),
        "{run}"
    );
}

#[test]
fn a_shell_opens_in_what_a_failed_step_left() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let text = "FROM busybox\nENV A=b\nWORKDIR /work\nRUN touch left; exit 3\n";
    let context = test.context("app", &[("Dockerfile", text)]);
    let script = "echo in $PWD with $A; ls; exit 9\n";
    let outcome = test.build_command(&context, &["--on-error", "shell"]).stdin(script).outcome().exits(1);
    assert_eq!(outcome.stdout, "in /work with b\nleft\n");
    let without = test.build_command(&context, &["--on-error", "shell"]);
    let refused = without.start_on(Stdio::null(), Stdio::null(), Stdio::piped()).wait_with_output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("needs a terminal"));
}

#[test]
fn a_shell_opens_before_and_after_a_step_of_a_past_build() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let text = "FROM busybox\nENV A=b\nCOPY src /app\nRUN --mount=type=bind,source=src,target=/mnt cat /mnt/a >/app/out\n";
    let context = test.context("app", &[("Dockerfile", text), ("src/a", "one\n")]);
    test.build(&context, &["-t", "app"]).succeeds();
    let id = test.image_id("app");
    let debug = |arguments: &[&str], script: &str| -> Outcome {
        test.rbuild(&["debug"]).args(arguments).stdin(script).outcome()
    };
    let script = "ls /app /mnt; echo $A; exit 4\n";
    assert_eq!(debug(&["RUN"], script).exits(4).stdout, "/app:\na\n\n/mnt:\na\nb\n");
    assert_eq!(debug(&["--after", "RUN"], "ls /app; rm /app/out\n").succeeds().stdout, "a\nout\n");
    assert_eq!(debug(&["COPY"], "ls /app\n").exits(1).stdout, "");
    assert_eq!(debug(&["--after", "COPY"], "ls /app\n").succeeds().stdout, "a\n");
    debug(&["FROM"], "").exits(2).says(&["before this step there is no file system"]);
    debug(&["RUM"], "").exits(2).says(&["no step `RUM`"]);
    test.build(&context, &["-t", "app"]).succeeds();
    assert_eq!(test.image_id("app"), id, "what a shell changes is thrown away");
}

fn edit(context: &Context, path: &str, content: &str) -> &'static [&'static str] {
    context.write(path, content);
    &[]
}

fn replace(context: &Context, from: &str, to: &str) -> &'static [&'static str] {
    edit(context, "Dockerfile", &DOCKERFILE.replace(from, to))
}
