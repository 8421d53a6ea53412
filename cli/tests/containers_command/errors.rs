//! Docker's words and exit codes for what cannot be done.

use super::{clean_up, detached, printed, rbuild};
use crate::common::TestEnvironment;

/// Runs each line, and compares its exit code and what it says. `<run>` and `<idle>` stand for the ids of the containers of these names.
#[track_caller]
fn all_fail(test: &TestEnvironment, ids: [&str; 2], cases: &[(&str, i32, &str)]) {
    for (line, code, message) in cases {
        let words: Vec<&str> = line.split(' ').collect();
        let outcome = rbuild(test, &words);
        let message = message.replace("<idle>", ids[1]).replace("<run>", ids[0]);
        assert!(
            outcome.code == *code && outcome.stderr.contains(&message),
            "{line}: {code} {message}\ngot {} {}",
            outcome.code,
            outcome.stderr
        );
    }
}

#[test]
fn states_are_in_the_way() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let id = detached(&test, "run", &["sleep", "1000"]).id;
    let other = printed(&test, &["create", "--name", "idle", "--network", "none", "busybox", "true"]);
    let ids = [id.as_str(), other.trim()];
    let taken = "Error when allocating new name: Conflict. The container name \"/idle\" is already in use by \
        container \"<idle>\". You have to remove (or rename) that container to be able to reuse that name.";
    all_fail(
        &test,
        ids,
        &[
            ("rm -f nosuch", 0, "No such container: nosuch"),
            ("rm run", 1, "cannot remove container \"run\": container is running: stop the container before"),
            ("exec idle true", 1, "container <idle> is not running"),
            ("attach idle", 1, "You cannot attach to a stopped container, start it first"),
            ("pause idle", 1, "container <idle> is not running"),
            ("unpause idle", 1, "Container <idle> is not paused"),
            ("unpause run", 1, "Container <run> is not paused"),
            ("kill idle", 1, "cannot kill container: idle: container <idle> is not running"),
            ("kill -s NOSUCH run", 1, "cannot kill container: run: invalid signal: NOSUCH"),
            ("top idle", 1, "container <idle> is not running"),
            ("rename run idle", 1, taken),
            ("rename run run", 1, "Renaming a container with the same name as its current name"),
            ("rename run -- -x", 1, "Error when allocating new name: Invalid container name (-x)"),
            ("port run 80", 1, "No public port '80' published for run"),
            ("update run", 1, "you must provide one or more flags when using this command"),
            ("start -a run idle", 1, "you cannot start and attach multiple containers at once"),
            (
                "run --rm --name run busybox",
                125,
                "Conflict. The container name \"/run\" is already in use by container \"<run>\"",
            ),
            (
                "run --rm --network container:idle busybox",
                125,
                "cannot join network namespace of a non running container",
            ),
        ],
    );
    printed(&test, &["pause", "run"]);
    all_fail(
        &test,
        ids,
        &[
            ("pause run", 1, "Container <run> is already paused"),
            ("exec run true", 1, "Container run is paused, unpause the container before exec"),
            ("attach run", 1, "You cannot attach to a paused container, unpause it first"),
            ("rm run", 1, "cannot remove container \"run\": container is paused and must be unpaused first"),
            ("start run", 1, "cannot start a paused container, try unpause instead"),
        ],
    );
    // A frozen one is ended all the same.
    printed(&test, &["kill", "run"]);
    clean_up(&test, &["run", "idle"]);
}

#[test]
fn nothing_is_called_so() {
    let Some(test) = TestEnvironment::with_base() else { return };
    for command in [
        "rm",
        "start",
        "stop",
        "restart",
        "wait",
        "pause",
        "unpause",
        "logs",
        "top",
        "port",
        "diff",
        "export",
        "commit",
        "attach",
        "stats --no-stream",
        "exec none true",
        "rename none other",
        "cp none:/x .",
    ] {
        let line = if command.contains("none") { command.to_owned() } else { format!("{command} none") };
        all_fail(&test, ["", ""], &[(&line, 1, "No such container: none")]);
    }
    all_fail(
        &test,
        ["", ""],
        &[
            ("kill none", 1, "cannot kill container: none: No such container: none"),
            ("run --volumes-from none busybox", 125, "No such container: none"),
            ("run --network container:none busybox", 125, "No such container: none"),
            ("run --pid container:none busybox", 125, "No such container: none"),
        ],
    );
    rbuild(&test, &["rm", "-f", "none"]).succeeds();
    // Two whose ids begin alike: among seventeen there are.
    let ids: Vec<String> = (0..17).map(|_| printed(&test, &["create", "busybox"])).collect();
    let twice =
        ids.iter().map(|id| &id[..1]).find(|start| ids.iter().filter(|id| id.starts_with(start)).count() > 1);
    let message = format!("multiple IDs found with provided prefix: {}", twice.unwrap());
    rbuild(&test, &["start", twice.unwrap()]).exits(1).says(&[&message]);
    printed(&test, &["container", "prune", "-f"]);
    clean_up(&test, &["none"]);
}

#[test]
fn what_cannot_be_run_is_told_by_its_code() {
    let Some(test) = TestEnvironment::with_base() else { return };
    all_fail(
        &test,
        ["", ""],
        &[
            ("run --rm busybox nosuch", 127, "`nosuch`: executable file not found in $PATH"),
            ("run --rm busybox /etc/passwd", 126, "/etc/passwd"),
            ("run --nosuch busybox", 125, "--nosuch"),
            ("run --rm --pull never no/such", 125, "no/such"),
            ("run --rm -w relative busybox", 125, "the working directory"),
            (
                "run --rm -u nosuch busybox",
                125,
                "unable to find user nosuch: no matching entries in passwd file",
            ),
            (
                "run --rm --group-add nosuch busybox",
                125,
                "unable to find group nosuch: no matching entries in group file",
            ),
            ("run --rm --add-host foo busybox", 125, "invalid --add-host `foo`"),
            ("run --rm -e =x busybox", 125, "invalid environment variable: =x"),
            ("run --rm --label =x busybox", 125, "invalid label '=x': empty name"),
            ("run --rm -v /tmp:/x:rw,ro busybox", 125, "invalid mode: rw,ro"),
            ("run --rm -v /tmp:/x --tmpfs /x/ busybox", 125, "Duplicate mount point: /x"),
            ("run --rm -v /tmp:x busybox", 125, "invalid mount path: 'x' mount path must be absolute"),
            ("run --rm --tmpfs / busybox", 125, "invalid specification: destination can't be '/'"),
            ("run --rm --tmpfs /x:nosuch busybox", 125, "invalid tmpfs option \"nosuch\""),
            ("commit nosuch BAD", 1, "BAD"),
            ("run --rm -m 1 busybox", 125, "Minimum memory limit allowed is 6MB"),
            (
                "run --rm --memory-swap 1g busybox",
                125,
                "You should always set the Memory limit when using Memoryswap limit",
            ),
            ("run --rm --cap-add nosuch busybox", 125, "invalid CapAdd: unknown capability: \"CAP_NOSUCH\""),
            (
                "run --rm --restart always busybox",
                125,
                "conflicting options: cannot specify both --restart and --rm",
            ),
            ("run --rm --network nosuch busybox", 125, "network nosuch not found"),
            ("run --rm --env-file nosuch busybox", 125, "open nosuch: No such file or directory"),
            (
                "run --rm --device /dev/nosuch busybox",
                125,
                "error gathering device information while adding custom device \"/dev/nosuch\"",
            ),
            ("run --rm --device /dev/null:/dev/x:q busybox", 125, "bad mode specified: q"),
            ("run --rm --pid nosuch busybox", 125, "--pid: invalid PID mode"),
            ("run --rm --ipc nosuch busybox", 125, "invalid IPC mode: nosuch"),
            ("run --rm --uts nosuch busybox", 125, "--uts: invalid UTS mode"),
            ("run --rm --userns nosuch busybox", 125, "--userns: invalid USER mode"),
            ("run --rm --uts host -h x busybox", 125, "conflicting options: hostname and the UTS mode"),
            ("run --rm --security-opt nosuch busybox", 125, "nosuch"),
            ("run --rm --sysctl a.b=c busybox", 125, "sysctl 'a.b=c' is not allowed"),
            (
                "run --rm --sysctl net.x=1 --network host busybox",
                125,
                "sysctl 'net.x' not allowed in host namespace",
            ),
            (
                "run --rm --oom-score-adj 2000 busybox",
                125,
                "Invalid value 2000, range for oom score adj is [-1000, 1000]",
            ),
            ("run --rm --stop-signal NOSUCH busybox", 125, "invalid signal: NOSUCH"),
            ("run --rm --gpus all busybox", 125, "`--gpus` is not supported"),
            ("run --rm --ip6 fd00::9 busybox", 125, "`--ip6` is not supported"),
            ("run --rm -it busybox", 1, "the input device is not a TTY"),
        ],
    );
    rbuild(&test, &["run", "--rm", "--network", "none", "busybox", "sh", "-c", "exit 7"]).exits(7);
    rbuild(&test, &["run", "--rm", "--network", "none", "--init", "busybox", "sh", "-c", "kill -9 $$"])
        .exits(137);
    assert_eq!(printed(&test, &["ps", "-aq"]), "");
    test.assert_sound();
}

#[test]
fn mistakes_on_the_command_line_have_docker_s_code() {
    let test = TestEnvironment::new();
    for command in [
        "ps",
        "logs x",
        "stop x",
        "rm x",
        "container ls",
        "network ls",
        "network connect a b",
        "volume ls",
        "images",
        "rmi x",
        "image ls",
        "inspect x",
        "events",
        "system df",
        "load",
        "tag a b",
        "stats",
    ] {
        let line = format!("{command} --nosuch");
        all_fail(&test, ["", ""], &[(&line, 125, "unexpected argument '--nosuch'")]);
    }
    for line in ["logs", "stop", "container rm", "network create", "rmi", "run", "tag a"] {
        all_fail(&test, ["", ""], &[(line, 125, "required arguments were not provided")]);
    }
    for line in ["build --nosuch .", "prune --nosuch", "doctor --nosuch", "--nosuch ps", "nosuch --nosuch"] {
        all_fail(&test, ["", ""], &[(line, 2, "unexpected argument '--nosuch'")]);
    }
}
