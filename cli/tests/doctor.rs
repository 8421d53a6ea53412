//! `rbuild doctor`: what it says of this machine, and of one that lacks what is needed.

use std::fs;
use std::io::Read as _;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::common::{TestEnvironment, is_root};

#[test]
fn what_builds_is_found_fit() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let rows = test.rbuild(&["doctor", "--json"]).outcome().succeeds().stdout;
    let rows: Vec<Value> = serde_json::from_str(&rows).unwrap();
    let state = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap()["state"].clone();
    for name in ["kernel", "overlay", "seccomp"] {
        assert_eq!(state(name), "ok", "{name}");
    }
    for name in [
        "user",
        "control groups",
        "Landlock",
        "git",
        "network",
        "disk",
        "emulators",
        "io controller",
        "idmapped mounts",
    ] {
        assert_ne!(state(name), "missing", "{name}");
    }
    let table = test.rbuild(&["doctor"]).outcome().succeeds().stdout;
    assert!(table.contains("WHAT RBUILD DOES") && table.contains("layers are directories"), "{table}");
}

/// In a user namespace that allows no others, as a user who is not its root.
#[test]
#[expect(clippy::disallowed_methods, reason = "the system's way into namespaces")]
fn a_machine_without_user_namespaces_is_told_what_is_off() {
    if !is_root("forbidding user namespaces") {
        return;
    }
    let Some(test) = TestEnvironment::with_base() else { return };
    let program = test.path("rbuild");
    fs::copy(env!("CARGO_BIN_EXE_rbuild"), &program).unwrap();
    let script = format!(
        "echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --reuid=1001 --regid=1001 --clear-groups {} \"$@\"",
        program.display()
    );
    let run = |arguments: &[&str]| {
        // Who enters a namespace with a map is its root; who is in it before there is one has lost all rights.
        let mut holder = Command::new("unshare");
        holder.args(["--user", "--mount", "sh", "-c", "echo ready; read over"]);
        let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0; "ready\n".len()]).unwrap();
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("/proc/{}/{map}", holder.id()), "0 0 65536").unwrap();
        }
        let mut command = Command::new("nsenter");
        command.args(["--target", &holder.id().to_string(), "--user", "--mount", "sh", "-c", &script, "sh"]);
        let output = command.args(arguments).env("RBUILD_ROOT", "/nowhere").output().unwrap();
        drop(holder.stdin.take());
        holder.wait().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, shown, errors) = run(&["doctor"]);
    assert_eq!(code, Some(3), "{shown}{errors}");
    assert!(shown.contains("NO     user"), "{shown}");
    assert!(shown.contains("as root: `sysctl -w user.max_user_namespaces=15000`"), "{shown}");
    let (code, _, errors) = run(&["images"]);
    assert_eq!(code, Some(3), "{errors}");
    assert!(errors.contains("`rbuild doctor` says"), "{errors}");
}
