//! Volumes: with names and without, their first content, and who removes them.

use super::{clean_up, printed, rbuild};
use crate::common::TestEnvironment;

/// An image with files below a VOLUME, and another user's directory.
fn image(test: &TestEnvironment) {
    let make = "mkdir -p /data/sub && echo one >/data/sub/file && chmod 640 /data/sub/file";
    let own = "chown -R 12:34 /data && chmod 750 /data";
    let text = format!("FROM busybox\nRUN {make}\nRUN {own}\nVOLUME /data\n");
    test.build(&test.dockerfile(&text), &["-t", "kept"]).succeeds();
}

#[test]
fn a_volume_begins_with_what_the_image_has_and_outlives_its_container() {
    let Some(test) = TestEnvironment::with_base() else { return };
    image(&test);
    let run = |mount: &str, script: &str| {
        let line = ["run", "--rm", "--network", "none", "-v", mount, "kept", "sh", "-c", script];
        rbuild(&test, &line)
    };
    let script = "stat -c '%a %u:%g' /data /data/sub/file; cat /data/sub/file; echo two >/data/sub/file";
    assert_eq!(run("box:/data", script).succeeds().stdout, "750 12:34\n640 12:34\none\n");
    assert_eq!(run("box:/other", "cat /other/sub/file").succeeds().stdout, "two\n");
    run("box:/data:ro", "echo x >/data/file").exits(1).says(&["Read-only file system"]);
    assert_eq!(run("empty:/data:nocopy", "ls /data").succeeds().stdout, "");
    // The image's own volume had no name, and went with its container.
    assert_eq!(printed(&test, &["volume", "ls"]), "DRIVER   VOLUME NAME\nlocal    box\nlocal    empty\n");
    assert_eq!(printed(&test, &["volume", "rm", "box", "empty"]), "box\nempty\n");
    test.assert_sound();
}

#[test]
fn volumes_without_a_name_go_with_their_container_where_that_is_wanted() {
    let Some(test) = TestEnvironment::with_base() else { return };
    image(&test);
    let count = || printed(&test, &["volume", "ls", "-q"]).lines().count();
    let create = |name: &str, flags: &[&str]| {
        printed(&test, &[&["create", "--name", name], flags, &["kept", "true"]].concat());
    };
    create("two", &["-v", "/scratch"]);
    assert_eq!(count(), 2);
    let format = "{{range .Mounts}}{{.Type}} {{.Destination}} {{end}}";
    assert_eq!(printed(&test, &["inspect", "-f", format, "two"]), "volume /data volume /scratch \n");
    printed(&test, &["rm", "-v", "two"]);
    assert_eq!(count(), 0);
    create("stays", &[]);
    printed(&test, &["rm", "stays"]);
    assert_eq!(count(), 1);
    create("named", &["--mount", "type=volume,source=box,target=/data"]);
    printed(&test, &["rm", "-v", "named"]);
    assert_eq!(printed(&test, &["volume", "prune", "-f"]).lines().next(), Some("Deleted Volumes:"));
    assert_eq!(printed(&test, &["volume", "ls", "-q"]), "box\n");
    create("last", &[]);
    printed(&test, &["system", "prune", "--volumes", "-f"]);
    assert_eq!(printed(&test, &["volume", "ls", "-q"]), "box\n");
}

#[test]
fn a_volume_in_use_stays() {
    let Some(test) = TestEnvironment::with_base() else { return };
    assert_eq!(printed(&test, &["volume", "create", "--label", "a=b", "box"]), "box\n");
    assert_eq!(printed(&test, &["volume", "inspect", "-f", "{{.Labels.a}} {{.Driver}}", "box"]), "b local\n");
    let id = printed(&test, &["create", "--name", "user", "-v", "box:/x", "busybox", "true"]);
    rbuild(&test, &["volume", "rm", "box"])
        .exits(1)
        .says(&[&format!("remove box: volume is in use - [{}]", id.trim())]);
    assert!(!printed(&test, &["volume", "prune", "-a", "-f"]).contains("box"));
    assert!(printed(&test, &["system", "df"]).contains("Local Volumes"));
    let listed = |filter: &str| printed(&test, &["volume", "ls", "-q", "--filter", filter]);
    assert_eq!(
        ["dangling=true", "dangling=false", "name=ox", "label=a=c"].map(listed),
        ["", "box\n", "box\n", ""]
    );
    clean_up(&test, &["user"]);
    assert!(printed(&test, &["volume", "prune", "-a", "-f"]).contains("box\n"));
    rbuild(&test, &["volume", "rm", "box"]).exits(1).says(&["get box: no such volume"]);
    for (name, code) in [("b", 125), ("a/b:/y", 1), ("b$:/y", 1), ("box:relative", 125)] {
        let line = ["create", "-v", name, "busybox"];
        assert_eq!(rbuild(&test, &line).code, code, "{name}");
    }
}

#[test]
fn names_are_known_whatever_lies_on_etc() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let run = |flags: &[&str], script: &str| {
        let line =
            [&["run", "--rm", "--network", "none", "-h", "me"], flags, &["busybox", "sh", "-c", script]];
        printed(&test, &line.concat())
    };
    let hosts = test.write("hosts", "127.0.0.9 own\n");
    let empty = test.path("empty");
    std::fs::create_dir(&empty).unwrap();
    let (own, bind) = (format!("{}:/etc/hosts", hosts.display()), format!("{}:/etc", empty.display()));
    for flags in [["-v", "etc:/etc"], ["-v", &bind], ["--tmpfs", "/etc"]] {
        assert_eq!(run(&flags, "cat /etc/hostname; grep -c me /etc/hosts"), "me\n1\n", "{flags:?}");
        let flags = [&flags[..], &["-v", &own]].concat();
        assert_eq!(run(&flags, "cat /etc/hosts"), "127.0.0.9 own\n", "{flags:?}");
    }
    for flags in [["-v", "new:/etc:ro"], ["-v", "bare:/etc:ro,nocopy"], ["--tmpfs", "/etc:ro"]] {
        assert_eq!(
            run(&flags, "cat /etc/hostname; echo x 2>&1 >/etc/x | grep -c only"),
            "me\n1\n",
            "{flags:?}"
        );
    }
    // Nobody may make the files there: the container has none, and runs.
    let bare = test.path("bare");
    std::fs::create_dir(&bare).unwrap();
    assert_eq!(run(&["-v", &format!("{}:/etc:ro", bare.display())], "ls /etc"), "");
    assert_eq!(std::fs::read_to_string(empty.join("hostname")).unwrap(), "");
    // The root's own are as they were.
    let line = ["run", "--name", "kept", "--network", "none", "-v", &bind, "busybox", "true"];
    printed(&test, &line);
    assert!(!printed(&test, &["diff", "kept"]).contains("host"));
    clean_up(&test, &["kept"]);
    rbuild(&test, &["volume", "rm", "etc", "new", "bare"]).succeeds();
}
