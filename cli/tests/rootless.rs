//! What a user who is not root must be able to do. All of it holds for root as well, and is tested as both.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Output};

use crate::common::{TestEnvironment, copy_program, is_root};

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
    // A store of its own, as the files in it have other owners.
    test.set_store(test.path("user"));
    let tar = test.path("busybox.tar").display().to_string();
    test.rbuild(&["--isolation", "user", "import", &tar, "busybox"]).outcome().succeeds();
    assert_ne!(map("user", &test), MACHINE);
}

/// Users, files, deletions, modes, and what is moved to its place and back.
const STEPS: &str = "FROM busybox
RUN mkdir -p /srv/a/b /tmp && chmod 1777 /tmp && echo 1 >/srv/a/b/f && chown -R 500:50 /srv/a && chmod 2750 /srv/a
COPY file /srv/file
RUN rm -r /srv/a/b && mkdir /srv/a/b && mv /srv/file /srv/moved && ln -s moved /srv/link && chmod 700 /srv
USER 500
RUN --mount=type=cache,target=/var/cache/x,uid=500 --mount=type=bind,target=/in --mount=type=tmpfs,target=/scratch \
    id -u >/tmp/id && cp /in/file /tmp/copy && touch /var/cache/x/kept /scratch/gone && cat /etc/hosts >/dev/null
RUN --mount=type=cache,target=/var/cache/x,uid=500 test -e /var/cache/x/kept && ! test -e /in && ! test -e /scratch
";
/// What Docker leaves a container.
const DOCKERS: &str = "-all,+chown,+dac_override,+fsetid,+fowner,+mknod,+net_raw,+setgid,+setuid,+setfcap,+setpcap,\
                       +net_bind_service,+sys_chroot,+kill,+audit_write";

#[test]
fn without_namespaces_the_same_layers_are_made() {
    if !is_root("to drop capabilities") {
        return;
    }
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context("context", &[("Dockerfile", STEPS), ("file", "content\n")]);
    context.chmod("file", 0o644);
    let built = |store: &str, wrapper: &[&str], isolation: &str| {
        let rbuild = |arguments: &[&str]| {
            let line =
                [&[env!("CARGO_BIN_EXE_rbuild"), "--root", store, "--isolation", isolation], arguments];
            let output = in_place(&test, &[wrapper, &line.concat()].concat());
            let errors = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{arguments:?}\n{errors}");
            (String::from_utf8(output.stdout).unwrap(), errors)
        };
        rbuild(&["import", "busybox.tar", "busybox"]);
        rbuild(&["build", "-t", "app", "--build-arg", "SOURCE_DATE_EPOCH=0", "context"]);
        let (config, said) = rbuild(&["inspect", "app"]);
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        (config[0]["RootFS"].clone(), said)
    };
    let (mounted, quiet) = built("mounted", &[], "root");
    let (plain, said) = built("plain", &["setpriv", "--bounding-set", DOCKERS], "chroot");
    assert_eq!(plain, mounted);
    assert!(quiet.is_empty() && said.contains("the machine's network"), "{said}");
    assert_eq!(test.path("plain/active").read_dir().unwrap().count(), 0);
}

#[test]
fn what_a_step_without_namespaces_may_do() {
    if !is_root("isolation without a user namespace") {
        return;
    }
    let Some(mut test) = TestEnvironment::with_base() else { return };
    test.set_store(test.path("plain"));
    let chroot = |arguments: &[&str]| test.rbuild(&["--isolation", "chroot"]).args(arguments).outcome();
    chroot(&["import", "busybox.tar", "busybox"]).succeeds();
    let build = |instruction: &str| {
        test.dockerfile(&format!("FROM busybox\n{instruction}\n"));
        chroot(&["build", "--no-cache", "--allow", "security.insecure", "context"])
    };
    let outside = format!("kill -0 {} 2>&1", std::process::id());
    for refused in ["chroot / true", "mknod /null c 1 3", "mount -t tmpfs none /mnt", &outside] {
        build(&format!("RUN ! {refused}")).succeeds();
    }
    build("RUN echo text >/dev/null && head -c1 /dev/urandom >/dev/null && test ! -e /proc/self").succeeds();
    // What stays behind goes with its step, as its output ends with it.
    build("RUN (sleep 1000 &)").succeeds();
    let cases = [
        ("--network=none true", "no step without a network"),
        ("--security=insecure true", "no step without a sandbox"),
        ("--mount=type=secret,id=x,required=false true", "no secret or ssh mount (on `/run/secrets/x`)"),
    ];
    for (run, complaint) in cases {
        build(&format!("RUN {run}")).exits(3).says(&[complaint]);
    }
    chroot(&["run", "busybox", "true"]).says(&["builds, and runs no containers"]);
}

/// A job of a CI system: rbuild itself in a container that has no right to make another, with Docker's filter and capabilities.
#[test]
fn in_a_container_of_another_engine_builds_go_on() {
    if !is_root("to have devices where they cannot be mounted") {
        return;
    }
    let Some(test) = TestEnvironment::with_base() else { return };
    let program = env!("CARGO_BIN_EXE_rbuild");
    let context = test.context("pod", &[("Dockerfile", "FROM busybox\nCOPY root /\nCOPY work /work/\n")]);
    copy_program(program, &context.path.join("root"));
    fs::create_dir(context.path.join("work")).unwrap();
    fs::copy(test.path("busybox.tar"), context.path.join("work/busybox.tar")).unwrap();
    context.write("work/context/Dockerfile", STEPS).write("work/context/file", "content\n");
    test.build(&context, &["-t", "pod"]).succeeds();
    let script = format!(
        "cd /work && {program} import busybox.tar busybox && {program} build -t app context && {program} images -q"
    );
    let run =
        ["run", "--rm", "--network", "none", "-e", "RBUILD_ROOT=/work/store", "pod", "sh", "-c", &script];
    let outcome = test.rbuild(&run).outcome().succeeds().says(&["isolation `chroot`"]);
    assert_eq!(outcome.stdout.lines().filter(|line| line.len() == 12).count(), 2, "{}", outcome.stdout);
}

/// Runs a command line in the test's directory.
fn in_place(test: &TestEnvironment, line: &[&str]) -> Output {
    #[expect(clippy::disallowed_methods, reason = "the program under test, with fewer rights")]
    let mut command = Command::new(line[0]);
    command.env_clear().current_dir(test.path("")).env("HOME", test.path("home"));
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").args(&line[1..]).output().unwrap()
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
        (String::from_utf8(output.stdout).unwrap(), errors)
    };
    // It is told once.
    assert!(rbuild(&["import", "busybox.tar", "busybox"]).1.starts_with("note: "));
    rbuild(&["build", "-t", "app", "context"]);
    assert_eq!(rbuild(&["run", "--rm", "--network", "none", "app"]), ("hi\n".to_owned(), String::new()));
    let other = as_stranger(&program, &test.path(""), &["run", "--rm", "-u", "7", "app"]);
    let errors = String::from_utf8(other.stderr).unwrap();
    assert!(errors.contains("become user 7, which this user namespace has not"), "{errors}");
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
