//! ssh agents: a step signs with keys that it never sees.
//!
//! The step's program is the machine's own `ssh-add`, copied into the build context with the libraries it needs.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::common::{Context, TestEnvironment, Tree, skip};

const COPY: &str = "FROM busybox\nCOPY tools /\n";

/// An agent of the machine that ends with the test.
struct Agent {
    socket: String,
    guard: Child,
}

impl Agent {
    fn start() -> Self {
        let mut guard = program("ssh-agent", &["sh", "-c", "echo $SSH_AUTH_SOCK; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut socket = String::new();
        BufReader::new(guard.stdout.take().unwrap()).read_line(&mut socket).unwrap();
        Self { socket: socket.trim().to_owned(), guard }
    }

    fn add(&self, key: &Path) {
        let mut add = program("ssh-add", &["-q", key.to_str().unwrap()]);
        assert!(add.env("SSH_AUTH_SOCK", &self.socket).status().unwrap().success());
    }

    fn keys(&self) -> String {
        let output = program("ssh-add", &["-l"]).env("SSH_AUTH_SOCK", &self.socket).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        self.guard.wait().unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "the machine's own ssh, which steps are given")]
fn program(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(name);
    command.args(arguments).stderr(Stdio::null());
    command
}

/// A key with this comment, and no passphrase unless one is given.
fn key(test: &TestEnvironment, comment: &str, passphrase: &str) -> PathBuf {
    let path = test.path(comment);
    let arguments = ["-q", "-t", "ed25519", "-N", passphrase, "-C", comment, "-f", path.to_str().unwrap()];
    assert!(program("ssh-keygen", &arguments).status().unwrap().success());
    path
}

/// A context in which `tools` holds `ssh-add` and all that it needs. `None`, said aloud, where there is none.
fn tools(test: &TestEnvironment) -> Option<Context> {
    let Ok(libraries) = program("ldd", &["/usr/bin/ssh-add"]).output() else {
        skip("there is no `ldd`");
        return None;
    };
    if !libraries.status.success() {
        skip("there is no `/usr/bin/ssh-add` (package openssh-client)");
        return None;
    }
    let text = String::from_utf8(libraries.stdout).unwrap();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    let context = test.context("context", &[]);
    for path in paths.chain(["/usr/bin/ssh-add"]) {
        let into = context.path.join("tools").join(&path[1..]);
        fs::create_dir_all(into.parent().unwrap()).unwrap();
        fs::copy(path, into).unwrap();
    }
    Some(context)
}

#[test]
fn a_step_lists_and_signs_with_the_keys_of_an_agent() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let Some(context) = tools(&test) else { return };
    let agent = Agent::start();
    let path = key(&test, "of-the-agent", "");
    agent.add(&path);
    context.write("key.pub", fs::read(path.with_extension("pub")).unwrap());
    context.dockerfile(&format!(
        "{COPY}COPY key.pub /\nRUN echo ada:x:1234:1234::/:/bin/sh >>/etc/passwd\n\
         RUN --mount=type=ssh test $SSH_AUTH_SOCK = /run/buildkit/ssh_agent.0 && test \"$(stat -c '%a %u %F' $SSH_AUTH_SOCK)\" = '600 0 socket' \
         && ssh-add -l | grep of-the-agent && ssh-add -T /key.pub\n\
         RUN --mount=type=ssh ! ssh-add -D && ! ssh-add -x </dev/null\n\
         RUN --mount=type=ssh,target=/a/socket,mode=0660,gid=5 test $SSH_AUTH_SOCK = /a/socket && test \"$(stat -c '%a %g' /a/socket)\" = '660 5' && ssh-add -l\n\
         USER ada\nRUN --mount=type=ssh,uid=1234 ssh-add -l | grep of-the-agent\n\
         RUN --mount=type=ssh ! ssh-add -l\n\
         ENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh test $SSH_AUTH_SOCK = /mine\n\
         USER root\nRUN test ! -e /run && test ! -e /a\n"
    ));
    let build = test.build_command(&context, &["--ssh", "default"]).env("SSH_AUTH_SOCK", &agent.socket);
    build.outcome().succeeds();
    assert!(agent.keys().contains("of-the-agent"));
}

#[test]
fn several_agents_and_key_files() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let Some(context) = tools(&test) else { return };
    let agent = Agent::start();
    agent.add(&key(&test, "one", ""));
    let (two, three, locked) =
        (key(&test, "two", ""), key(&test, "three", ""), key(&test, "locked", "secret"));
    context.dockerfile(&format!(
        "{COPY}RUN --mount=type=ssh,id=keys --mount=type=ssh,id=agent --mount=type=ssh,id=missing \
         ssh-add -l | cut -d' ' -f3 >/keys && SSH_AUTH_SOCK=/run/buildkit/ssh_agent.1 ssh-add -l | cut -d' ' -f3 >/agent \
         && test ! -e /run/buildkit/ssh_agent.2\n"
    ));
    let (keys, socket) =
        (format!("keys={},{}", two.display(), three.display()), format!("agent={}", agent.socket));
    let temporary = test.path("temporary");
    fs::create_dir(&temporary).unwrap();
    let build = test.build_command(&context, &["--ssh", &keys, "--ssh", &socket, "-o", "-"]);
    let outcome = build.env("TMPDIR", &temporary).outcome().succeeds();
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0, "an agent of the build is left");
    let tree = Tree::read(&outcome.stdout_bytes);
    assert_eq!((tree.text("keys"), tree.text("agent")), ("two\nthree\n", "one\n"));

    let with = |spec: &str| test.build(&context, &["--ssh", spec]).exits(2);
    with(&format!("keys={}", locked.display())).says(&["failed to add the key", "locked"]);
    with(&format!("keys={},{}", two.display(), agent.socket)).says(&["either one socket or key files"]);
    with(&format!("keys={},raw=true", two.display())).says(&["raw needs a socket"]);
    with("keys=nosuch").says(&["failed to open `nosuch`"]);
    with("default").says(&["SSH_AUTH_SOCK is not set"]);
    context.dockerfile("FROM busybox\nRUN --mount=type=ssh,required true\n");
    test.build(&context, &[]).exits(2).says(&["ssh agent default: not found", "--ssh default"]);
}
