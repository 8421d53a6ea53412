//! `images`, `history`, `inspect`, `tag` and `rmi`, from the outside.

use crate::common::{Outcome, TestEnvironment, tar_of};

/// `rbuild ARGUMENTS`, which must succeed.
#[track_caller]
fn rbuild(test: &TestEnvironment, arguments: &[&str]) -> Outcome {
    test.rbuild(arguments).outcome().succeeds()
}

/// Imports a small file system. Different messages make different images of the same layer.
#[track_caller]
fn import(test: &TestEnvironment, message: &str, names: &[&str]) -> String {
    let tar = test.write("small.tar", tar_of(&[("etc/", ""), ("etc/motd", "hello\n")]));
    let arguments = ["import", "-m", message, "-c", "CMD [\"sh\"]", tar.to_str().unwrap()];
    rbuild(test, &[&arguments, names].concat()).stdout.trim().to_owned()
}

/// The cells of a table: columns are three spaces apart.
fn cells(table: &str) -> Vec<Vec<&str>> {
    let cells = |line| {
        let cells = str::split(line, "   ").map(str::trim);
        cells.filter(|cell| !cell.is_empty()).collect()
    };
    table.lines().map(cells).collect()
}

fn images<'a>(test: &TestEnvironment, arguments: &[&str], into: &'a mut String) -> Vec<Vec<&'a str>> {
    *into = test.rbuild(&["images"]).args(arguments).outcome().succeeds().stdout;
    cells(into)
}

#[test]
fn images_are_listed_as_docker_lists_them() {
    let test = TestEnvironment::new();
    let id = import(&test, "first", &["app:1"]);
    rbuild(&test, &["tag", "app:1", "127.0.0.1:5000/team/app:stable"]);
    let short = &id["sha256:".len()..][..12];
    let mut text = String::new();

    let listed = images(&test, &[], &mut text);
    assert_eq!(listed[0], ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]);
    assert_eq!(listed[1][..3], ["127.0.0.1:5000/team/app", "stable", short]);
    assert_eq!(listed[2][..3], ["app", "1", short]);
    assert!(listed[2][3].ends_with(" ago"), "{listed:?}");
    assert_eq!((listed[2].len(), listed.len()), (5, 3));

    assert_eq!(rbuild(&test, &["images", "-q"]).stdout, format!("{short}\n"));
    assert_eq!(rbuild(&test, &["images", "-q", "--no-trunc"]).stdout, format!("{id}\n"));
    let digest = test.inspect("app:1")["Descriptor"]["digest"].as_str().unwrap().to_owned();
    let listed = images(&test, &["--digests", "--no-trunc", "app"], &mut text);
    assert_eq!(listed[0][2], "DIGEST");
    assert_eq!(listed[1][..4], ["app", "1", &digest, &id]);
    assert_eq!(listed.len(), 2);
    for (name, count) in [("app", 1), ("app:1", 1), ("app:2", 0), ("nosuch", 0)] {
        assert_eq!(images(&test, &[name], &mut text).len(), count + 1, "{name}");
    }
}

#[test]
fn layers_below_an_image_are_listed_with_all() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nRUN echo 1 >/a\nRUN echo 2 >/b\n");
    test.build(&context, &["-t", "app"]).succeeds();
    let mut text = String::new();
    assert_eq!(images(&test, &[], &mut text).len(), 3);
    let listed = images(&test, &["-a", "app"], &mut text);
    assert_eq!(listed.len(), 2);
    // Three layers make the image, and the upper two stand on one each.
    let listed = images(&test, &["-a"], &mut text);
    assert_eq!(listed.iter().filter(|row| row[0] == "<none>" && row[1] == "<none>").count(), 2);
}

#[test]
fn an_image_that_loses_its_name_is_none() {
    let test = TestEnvironment::new();
    let old = import(&test, "old", &["app"]);
    let new = import(&test, "new", &["app"]);
    let mut text = String::new();
    let listed = images(&test, &[], &mut text);
    let ids: Vec<&str> = listed[1..].iter().map(|row| row[2]).collect();
    assert!(old[7..].starts_with(ids[1]) && new[7..].starts_with(ids[0]), "{listed:?}");
    assert_eq!(
        (listed[1][..2].to_vec(), listed[2][..2].to_vec()),
        (vec!["app", "latest"], vec!["<none>"; 2])
    );
    assert_eq!(rbuild(&test, &["rmi", &old]).stdout, format!("Deleted: {old}\n"));
    assert_eq!(images(&test, &[], &mut text).len(), 2);
}

#[test]
fn history_tells_what_made_each_layer() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile(
        "FROM busybox\nENV A=b\nRUN echo a line that is far too long to be shown as a whole >/x\nCMD [\"sh\"]\n",
    );
    test.build(&context, &["-t", "app"]).succeeds();
    let id = test.image_id("app");
    let text = rbuild(&test, &["history", "app"]).stdout;
    let listed = cells(&text);
    assert_eq!(listed[0], ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]);
    assert_eq!((listed[1][0], listed[1][2], listed[1][3]), (&id[7..19], "CMD [\"sh\"]", "0B"));
    assert_eq!((listed[2][0], listed[2][2].chars().count()), ("<missing>", 45));
    assert!(listed[2][2].starts_with("RUN /bin/sh -c echo a line") && listed[2][2].ends_with('…'));
    assert_ne!(listed[2][3], "0B");
    assert_eq!((listed[3][2], listed[3][3]), ("ENV A=b", "0B"));
    assert_eq!(listed[4].last(), Some(&"imported by rbuild"));
    let whole = rbuild(&test, &["history", "--no-trunc", "app"]).stdout;
    assert!(whole.contains("shown as a whole >/x # buildkit") && whole.contains(&id), "{whole}");
    let ids = rbuild(&test, &["history", "-q", "app"]).stdout;
    assert_eq!(ids, format!("{}\n{}", &id[7..19], "<missing>\n".repeat(3)));
}

#[test]
fn inspect_speaks_docker_s_words() {
    let test = TestEnvironment::new();
    let id = import(&test, "first", &["app:1"]);
    rbuild(&test, &["tag", "app:1", "app:2"]);
    let image = test.inspect("app:2");
    assert_eq!(image["Id"], id.as_str());
    assert_eq!(image["RepoTags"], serde_json::json!(["app:1", "app:2"]));
    let digest = image["Descriptor"]["digest"].as_str().unwrap();
    assert_eq!(image["RepoDigests"], serde_json::json!([format!("app@{digest}")]));
    assert_eq!(image["Config"]["Cmd"], serde_json::json!(["sh"]));
    assert_eq!((&image["Os"], image["RootFS"]["Layers"].as_array().unwrap().len()), (&"linux".into(), 1));
    let both: Vec<serde_json::Value> = rbuild(&test, &["inspect", "app:1", &id]).json();
    assert_eq!(both[0], both[1]);
    test.rbuild(&["inspect", "app:1", "nosuch"]).outcome().exits(2).says(&["no such image: `nosuch`"]);
}

#[test]
fn ids_may_be_cut_short_while_they_are_unique() {
    let test = TestEnvironment::new();
    // Two of seventeen must begin with the same digit.
    let ids: Vec<String> = (0..17).map(|number| import(&test, &number.to_string(), &[])).collect();
    let digit = |id: &str| id[7..8].to_owned();
    let twin =
        ids.iter().enumerate().find(|(at, id)| ids[..*at].iter().any(|other| digit(other) == digit(id)));
    let (_, twin) = twin.unwrap();
    for prefix in [twin.as_str(), &twin[7..], &twin[..19], &twin[7..19]] {
        assert_eq!(test.image_id(prefix), *twin);
    }
    test.rbuild(&["rmi", &digit(twin)]).outcome().exits(2).says(&["is the beginning of several image ids"]);
    assert!(test.has(twin));
}

#[test]
fn tag_gives_further_names() {
    let test = TestEnvironment::new();
    let id = import(&test, "first", &["app"]);
    rbuild(&test, &["tag", &id[7..19], "docker.io/library/other"]);
    assert_eq!(test.image_id("other:latest"), id);
    for (source, target, message) in [
        ("nosuch", "x", "no such image: `nosuch`"),
        ("app", "Not A Name", "invalid reference format"),
        ("app", "", "an image reference cannot be empty"),
    ] {
        test.rbuild(&["tag", source, target]).outcome().exits(2).says(&[message]);
    }
}

#[test]
fn rmi_takes_names_and_then_the_image() {
    let test = TestEnvironment::new();
    let id = import(&test, "first", &["app:1"]);
    for name in ["app:2", "app:3", "app:4"] {
        rbuild(&test, &["tag", "app:1", name]);
    }
    assert_eq!(rbuild(&test, &["rmi", "app:1", "app:2"]).stdout, "Untagged: app:1\nUntagged: app:2\n");
    test.rbuild(&["rmi", &id]).outcome().exits(2).says(&["has several names", "--force"]);
    assert!(test.has("app:3"));
    let removed = rbuild(&test, &["rmi", "-f", &id]).stdout;
    assert_eq!(removed, format!("Untagged: app:3\nUntagged: app:4\nDeleted: {id}\n"));
    assert_eq!(rbuild(&test, &["images", "-aq"]).stdout, "");
    test.rbuild(&["rmi", "app:1"]).outcome().exits(2).says(&["no such image: `app:1`"]);
    rbuild(&test, &["rmi", "-f", "app:1"]);
    test.assert_sound();
}

#[test]
fn an_image_that_a_container_needs_stays() {
    let Some(test) = TestEnvironment::with_base() else { return };
    rbuild(&test, &["run", "--name", "user", "busybox", "true"]);
    test.rbuild(&["rmi", "busybox"]).outcome().exits(2).says(&["is used by container `user`", "--force"]);
    assert!(test.has("busybox"));
    // One name of several can go.
    rbuild(&test, &["tag", "busybox", "other"]);
    rbuild(&test, &["rmi", "busybox"]);
    rbuild(&test, &["rmi", "-f", "other"]);
    assert!(!test.has("other"));
    rbuild(&test, &["rm", "user"]);
    test.assert_sound();
}
