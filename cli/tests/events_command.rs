//! `events`: what was done is told, to those who come later and to those who wait.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use serde_json::Value;

use crate::common::TestEnvironment;

/// What has happened so far, as `container die`.
fn told(test: &TestEnvironment, filters: &[&str]) -> Vec<String> {
    let line = ["events", "--since", "1h", "--until", "0s", "--format", "{{.Type}} {{.Action}}"];
    let filters: Vec<&str> = filters.iter().flat_map(|filter| ["--filter", filter]).collect();
    let outcome = test.rbuild(&[&line[..], &filters].concat()).outcome().succeeds();
    outcome.stdout.lines().map(str::to_owned).collect()
}

#[test]
fn what_happens_to_a_container_is_told_in_order() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let run = [
        "run",
        "--rm",
        "--network",
        "none",
        "--name",
        "web",
        "--label",
        "l=1",
        "busybox",
        "sh",
        "-c",
        "exit 3",
    ];
    test.rbuild(&run).outcome().exits(3);
    let expected =
        ["create", "attach", "start", "die", "destroy"].map(|action| format!("container {action}"));
    assert_eq!(told(&test, &["container=web", "type=container"]), expected);
    assert_eq!(told(&test, &["label=l=1", "event=die", "event=start"]), expected[2..4]);
    assert_eq!(told(&test, &["type=network"]), ["network connect", "network disconnect"]);
    let text = test.rbuild(&["events", "--since", "1h", "--until", "0s", "-f", "event=die"]).outcome().stdout;
    assert!(
        text.contains("Z container die ") && text.contains("exitCode=3, image=busybox, l=1, name=web)"),
        "{text}"
    );

    test.rbuild(&["run", "-d", "--network", "none", "--name", "long", "busybox", "sleep", "600"])
        .outcome()
        .succeeds();
    test.write("file", "1");
    for line in [
        &["exec", "long", "true"][..],
        &["exec", "-d", "long", "sleep", "600"],
        &["top", "long"],
        &["cp", "file", "long:/file"],
        &["cp", "long:/file", "back"],
        &["export", "-o", "all.tar", "long"],
        &["commit", "--pause=false", "-m", "why", "long", "image"],
        &["update", "--restart", "no", "long"],
        &["pause", "long"],
        &["unpause", "long"],
        &["rename", "long", "longer"],
        &["stop", "-t", "0", "longer"],
        &["rm", "longer"],
    ] {
        test.rbuild(line).outcome().succeeds();
    }
    let mut told = told(&test, &["type=container"]).split_off(5);
    // Who stops and what stops tell each for itself.
    told.sort();
    let own = ["create", "start", "pause", "unpause", "rename", "die", "stop", "destroy"];
    let exec = ["exec_create: true", "exec_start: true", "exec_die"];
    let detached = ["exec_create: sleep 600", "exec_start: sleep 600", "exec_die"];
    let others = ["top", "extract-to-dir", "archive-path", "export", "commit", "update"];
    let all = own.iter().chain(&exec).chain(&detached).chain(&others);
    let mut expected: Vec<String> = all.map(|action| format!("container {action}")).collect();
    expected.sort();
    assert_eq!(told, expected);
    let exec = |action: &str| {
        let filter = format!("event={action}");
        let line = [
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "-f",
            &filter,
            "--format",
            "{{json .Actor.Attributes}}",
        ];
        let text = test.rbuild(&line).outcome().succeeds().stdout;
        serde_json::from_str::<Value>(text.lines().next().unwrap()).unwrap()
    };
    assert_eq!(exec("exec_create")["execID"], exec("exec_die")["execID"]);
    assert_eq!((&exec("exec_die")["exitCode"], &exec("commit")["comment"]), (&"0".into(), &"why".into()));
}

#[test]
fn what_happens_to_images_and_volumes_is_told() {
    let test = TestEnvironment::new();
    let tar = test.write("small.tar", crate::common::tar_of(&[("a", "1")]));
    let id = test.rbuild(&["import", tar.to_str().unwrap(), "app"]).outcome().succeeds().stdout;
    for line in [
        &["tag", "app", "other"][..],
        &["save", "-o", "app.tar", "app"],
        &["rmi", "other"],
        &["rmi", "app"],
        &["volume", "create", "data"],
        &["volume", "rm", "data"],
    ] {
        test.rbuild(line).outcome().succeeds();
    }
    let expected = [
        "image tag",
        "image import",
        "image tag",
        "image save",
        "image untag",
        "image untag",
        "image delete",
        "volume create",
        "volume destroy",
    ];
    assert_eq!(told(&test, &[]), expected);
    let line = ["events", "--since", "1h", "--until", "0s", "--format", "json", "--filter", "event=delete"];
    let json: Value = test.rbuild(&line).outcome().succeeds().json();
    assert_eq!((&json["Actor"]["ID"], &json["status"]), (&id.trim().into(), &"delete".into()));
    test.rbuild(&["events", "--since", "x"]).outcome().exits(1).says(&["`x`"]);
    test.rbuild(&["events", "--filter", "x=1"]).outcome().exits(1).says(&["invalid filter"]);
    test.assert_sound();
}

#[test]
fn who_waits_is_told_at_once() {
    let test = TestEnvironment::new();
    let line = ["events", "--since", "0", "--filter", "type=volume", "--format", "{{.Action}} {{.ID}}"];
    let mut waiting = test.rbuild(&line).start_on(Stdio::null(), Stdio::piped(), Stdio::inherit());
    let mut lines = BufReader::new(waiting.stdout.take().unwrap()).lines();
    for (command, told) in [("create", "create data"), ("rm", "destroy data")] {
        test.rbuild(&["volume", command, "data"]).outcome().succeeds();
        assert_eq!(lines.next().unwrap().unwrap(), told);
    }
    waiting.kill().unwrap();
    waiting.wait().unwrap();
}
