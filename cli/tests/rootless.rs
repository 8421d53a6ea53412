//! What a user who is not root must be able to do. All of it holds for root as well, and is tested as both.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{TestEnvironment, is_root};

/// Gives files to others, as package managers do.
const DOCKERFILE: &str = "FROM busybox
RUN mkdir /spool && chown 42:43 /spool && touch /spool/mine && chown 33:33 /spool/mine && chmod 640 /spool/mine
COPY --chown=101:102 file /etc/file
USER nobody
CMD stat -c '%n %u:%g %a' /spool /spool/mine /etc/file; id -u
";
const OWNERS: &str = "/spool 42:43 755\n/spool/mine 33:33 640\n/etc/file 101:102 644\n65534\n";

#[test]
fn files_are_given_to_others() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context("context", &[("Dockerfile", DOCKERFILE), ("file", "content\n")]);
    context.chmod("file", 0o644);
    test.build(&context, &["-t", "app"]).succeeds();
    assert_eq!(test.rbuild(&["run", "--rm", "app"]).outcome().succeeds().stdout, OWNERS);
    let tree = test.build_tree(&context, &[]);
    assert_eq!((tree.entry("spool").owner, tree.entry("spool/mine").owner), ((42, 43), (33, 33)));
    let saved = test.rbuild(&["save", "app"]).outcome().succeeds().stdout_bytes;
    test.rbuild(&["rmi", "app"]).outcome().succeeds();
    test.rbuild(&["load"]).stdin(saved).outcome().succeeds();
    assert_eq!(test.rbuild(&["run", "--rm", "app"]).outcome().succeeds().stdout, OWNERS);
    test.assert_sound();
}

#[test]
fn files_of_a_local_output_are_the_user_s() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context("context", &[("Dockerfile", DOCKERFILE), ("file", "content\n")]);
    test.build(&context, &["-o", "type=local,dest=out", "-o", "type=tar,dest=out.tar"]).succeeds();
    let user = nix::unistd::geteuid().as_raw();
    for path in ["out", "out/spool", "out/spool/mine", "out/etc/file", "out/bin/busybox", "out.tar"] {
        assert_eq!(fs::metadata(test.path(path)).unwrap().uid(), user, "{path}");
    }
    assert_eq!(test.read("out/etc/file"), "content\n");
}

#[test]
fn isolation_is_what_was_asked_for() {
    let Some(mut test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN tr -s ' ' </proc/self/uid_map >/map\n");
    let map = |level: &str, test: &TestEnvironment| {
        test.build_tree(&context, &["--no-cache", "--isolation", level]).text("map").to_owned()
    };
    const MACHINE: &str = " 0 0 4294967295\n";
    if is_root("isolation without a user namespace") {
        assert_eq!((map("root", &test).as_str(), map("auto", &test).as_str()), (MACHINE, MACHINE));
    } else {
        test.build(&context, &["--isolation", "root"]).exits(3).says(&["is not root"]);
    }
    test.build(&context, &["--isolation", "chroot"])
        .exits(3)
        .says(&["isolation `chroot` is not supported yet"]);
    // A store of its own, as the files in it have other owners.
    test.set_store(test.path("user"));
    let tar = test.path("busybox.tar").display().to_string();
    test.rbuild(&["--isolation", "user", "import", &tar, "busybox"]).outcome().succeeds();
    assert_ne!(map("user", &test), MACHINE);
}

/// A user of whom `/etc/subuid` knows nothing.
const STRANGER: u32 = 54_321;

#[test]
fn a_user_with_one_single_id_builds_with_a_note() {
    if !is_root("becoming a user without subordinate ids") {
        return;
    }
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test
        .dockerfile("FROM busybox\nRUN echo hi >/x && ls -ln /x | cut -d' ' -f3-\nCMD [\"cat\", \"/x\"]\n");
    let program = test.path("rbuild");
    fs::copy(env!("CARGO_BIN_EXE_rbuild"), &program).unwrap();
    for path in [test.path(""), test.path("home"), context.path, program.clone(), test.path("busybox.tar")] {
        chown(&path, Some(STRANGER), Some(STRANGER)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let rbuild = |arguments: &[&str]| {
        let output = as_stranger(&program, &test.path(""), arguments);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}\n{errors}");
        assert!(errors.starts_with("note: "), "{errors}");
        String::from_utf8(output.stdout).unwrap()
    };
    rbuild(&["import", "busybox.tar", "busybox"]);
    rbuild(&["build", "-t", "app", "context"]);
    assert_eq!(rbuild(&["run", "--rm", "app"]), "hi\n");
    rbuild(&["build", "-o", "type=local,dest=out", "context"]);
    assert_eq!(fs::metadata(test.path("out/x")).unwrap().uid(), STRANGER);
    // Its home is where its store is.
    assert!(test.path("home/.local/share/rbuild").is_dir());
}

fn as_stranger(program: &Path, directory: &Path, arguments: &[&str]) -> Output {
    #[expect(clippy::disallowed_methods, reason = "the program under test, as another user")]
    let mut command = Command::new(program);
    command.uid(STRANGER).gid(STRANGER).env_clear().current_dir(directory);
    command.env("HOME", directory.join("home")).env("PATH", "/usr/bin:/bin").args(arguments).output().unwrap()
}
