//! What rbuild shows: no text of an image or a step steers the terminal, and none of it has a secret in it.

use std::fs::{self, File};
use std::io::Read as _;
use std::process::Stdio;

use nix::pty::openpty;

use crate::common::{Outcome, TestEnvironment};

/// A title for the terminal's window, a colour, and a change of the direction of writing.
const STEERING: &str = "\u{1b}]0;title\u{7}\u{1b}[31m\u{9b}32m\u{202e}";

/// What shows an image, a container or a build; `app` is built of `context`, and `box` is its container.
const SHOWS: &[&[&str]] = &[
    &["images"],
    &["history", "app"],
    &["history", "--no-trunc", "app"],
    &["inspect", "app"],
    &["inspect", "box"],
    &["ps", "-a"],
    &["ps", "-a", "--no-trunc"],
    &["du"],
    &["du", "--verbose"],
    &["system", "df"],
    &["builds", "ls"],
    &["builds", "inspect"],
    &["builds", "inspect", "--json"],
    &["explain"],
    &["build", "--check", "context"],
    &["build", "--call", "outline", "context"],
    &["build", "--progress", "plain", "--no-cache", "--explain", "context"],
    &["build", "--progress", "rawjson", "--no-cache", "context"],
    &["build", "--progress", "plain", "--no-cache", "-f", "context/failing", "context"],
    &["build", "--progress", "plain", "-f", "context/mistaken", "context"],
];

#[track_caller]
fn shows_none_of(outcome: &Outcome, what: &[&str], by: &[&str]) {
    let shown = outcome.stdout.clone() + &outcome.stderr;
    for unwanted in what {
        assert!(!shown.contains(unwanted), "{by:?}: {shown:?}");
    }
}

#[test]
fn no_text_steers_the_terminal() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let lines = format!(
        "FROM busybox AS base\nLABEL l=\"{STEERING}\"\nENV E=\"{STEERING}\"\nARG A=\"{STEERING}\"\n\
         RUN echo \"{STEERING}\"; printf '\\033[31m\\n'\nCOPY f \"/{STEERING}\"\n"
    );
    let text = format!("{lines}ENTRYPOINT [\"echo\", {}]\n", serde_json::to_string(STEERING).unwrap());
    let context = test.context("context", &[("Dockerfile", &text), ("f", "")]);
    context.write("failing", format!("{lines}RUN \"{STEERING}\"; false\n"));
    context.write("mistaken", format!("{lines}NO{STEERING} x\n"));
    test.build(&context, &["-t", "app"]).succeeds();
    test.rbuild(&["run", "--name", "box", "--network", "none", "app"]).outcome().succeeds();
    for command in SHOWS {
        let outcome = test.rbuild(command).outcome();
        shows_none_of(&outcome, &["\u{1b}", "\u{7}", "\u{9b}", "\u{202e}"], command);
    }
}

/// In a pipe a log is what the step printed; on a terminal it is what was shown then.
#[test]
fn logs_of_builds_steer_no_terminal() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN printf '\\033]0;title\\007said\\033[31m'\n");
    test.build(&context, &[]).succeeds();
    let piped = test.rbuild(&["builds", "logs"]).outcome().succeeds().stdout;
    assert!(piped.ends_with("\u{1b}]0;title\u{7}said\u{1b}[31m"), "{piped:?}");
    let pty = openpty(None, None).unwrap();
    let mut rbuild = test.rbuild(&["builds", "logs"]).start_on(Stdio::null(), pty.slave, Stdio::null());
    assert!(rbuild.wait().unwrap().success());
    let mut shown = [0; 4096];
    let count = File::from(pty.master).read(&mut shown).unwrap();
    let shown = String::from_utf8_lossy(&shown[..count]);
    assert!(shown.ends_with("said\r\n") && !shown.contains('\u{1b}'), "{shown:?}");
}

/// No other bytes of a test are like it.
const VALUE: &str = "wrong-donkey-capacitor-clip";

#[test]
fn a_secret_is_seen_by_its_step_alone() {
    let Some(test) = TestEnvironment::with_base() else { return };
    test.write("token", VALUE);
    let search = format!(
        "RUN ! grep -r '{}' /etc /home /root /run /tmp /var /dev/shm /proc/1/environ /proc/self/mountinfo 2>/dev/null\n",
        VALUE.replace('k', "[k]")
    );
    let mounts = "--mount=type=secret,id=token --mount=type=secret,id=token,env=TOKEN --mount=type=cache,target=/cache";
    let used = "test ${#TOKEN} -gt 9 && test -s /run/secrets/token";
    let text = format!("FROM busybox\nRUN {mounts} {used} && touch /used\n{search}CMD echo $TOKEN\n");
    let context = test.context("context", &[("Dockerfile", &text), ("f", "")]);
    context.write("failing", format!("FROM busybox\nRUN {mounts} {used} && false\n"));
    context.write("mistaken", "NO\n");
    let secret = ["--secret", "id=token,src=token", "-t", "app", "--metadata-file", "metadata.json"];
    test.build(&context, &secret).succeeds();
    test.rbuild(&["run", "--name", "box", "--network", "none", "app"]).outcome().succeeds();
    for command in SHOWS {
        let secret: &[&str] = if command[0] == "build" { &secret[..2] } else { &[] };
        let outcome = test.rbuild(command).args(secret).outcome();
        shows_none_of(&outcome, &[VALUE], command);
    }
    test.build(&context, &["--secret", "id=token,src=token", "-o", "type=tar,dest=tree.tar"]).succeeds();
    test.rbuild(&["save", "-o", "image.tar", "app"]).outcome().succeeds();
    for name in ["image.tar", "tree.tar", "metadata.json"] {
        let bytes = fs::read(test.path(name)).unwrap();
        assert!(!bytes.windows(VALUE.len()).any(|window| window == VALUE.as_bytes()), "{name}");
    }
}
