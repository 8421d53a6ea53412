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

    // A line for each name, as with Docker.
    assert_eq!(rbuild(&test, &["images", "-q"]).stdout, format!("{short}\n").repeat(2));
    assert_eq!(rbuild(&test, &["image", "ls", "-q", "--no-trunc", "app"]).stdout, format!("{id}\n"));
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
    assert_eq!(listed.len(), 2, "what has no name has not this one");
    // Three layers make the image: the top one is its own, the lowest that of its base.
    let listed = images(&test, &["-a"], &mut text);
    let below: Vec<_> = listed.iter().filter(|row| row[0] == "<none>" && row[1] == "<none>").collect();
    assert_eq!(below.len(), 1);
    assert!(below[0][3].ends_with(" ago"), "{below:?}");
}

#[test]
fn images_are_filtered() {
    let test = TestEnvironment::new();
    import(&test, "old", &["app:1"]);
    import(&test, "new", &["app:1"]);
    import(&test, "other", &["127.0.0.1:5000/team/tool:2"]);
    let tar = test.path("small.tar");
    rbuild(&test, &["import", "-c", "LABEL a=b", tar.to_str().unwrap(), "labelled"]);
    let names = |filters: &[&str]| {
        let filters: Vec<&str> = filters.iter().flat_map(|filter| ["--filter", filter]).collect();
        let format = ["images", "--format", "{{.Repository}}:{{.Tag}}"];
        let mut names: Vec<String> =
            rbuild(&test, &[&format, &*filters].concat()).stdout.lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    let (none, app, tool, labelled) =
        ("<none>:<none>", "app:1", "127.0.0.1:5000/team/tool:2", "labelled:latest");
    let cases: [(&[&str], &str); 12] = [
        (&[], &[tool, none, app, labelled].join(" ")),
        (&["dangling=true"], none),
        (&["dangling=false"], &[tool, app, labelled].join(" ")),
        (&["label=a"], labelled),
        (&["label=a=b"], labelled),
        (&["label=a=c"], ""),
        (&["reference=app"], app),
        (&["reference=a*:1"], app),
        (&["reference=*/*/tool"], tool),
        (&["reference=app", "reference=l*"], &[app, labelled].join(" ")),
        (&["reference=tool"], ""),
        (&["until=1h"], ""),
    ];
    for (filters, expected) in cases {
        assert_eq!(names(filters), expected, "{filters:?}");
    }
    // All were made in one second, or not: none before itself.
    assert!(!names(&["before=app:1"]).contains("app:1") && !names(&["since=app:1"]).contains("app:1"));
    for (filter, message) in [
        ("nosuch=1", "invalid filter 'nosuch=1'"),
        ("dangling=x", "invalid filter 'dangling=x'"),
        ("before=nosuch", "No such image: nosuch:latest"),
        ("dangling", "invalid filter 'dangling'"),
    ] {
        test.rbuild(&["images", "--filter", filter]).outcome().exits(1).says(&[message]);
    }
}

#[test]
fn images_have_the_form_that_is_asked_for() {
    let test = TestEnvironment::new();
    let id = import(&test, "first", &["app:1"]);
    rbuild(&test, &["create", "app:1"]);
    let listed: serde_json::Value = rbuild(&test, &["images", "--format", "json"]).json();
    let short = &id[7..19];
    for (name, value) in
        [("Repository", "app"), ("Tag", "1"), ("ID", short), ("Containers", "1"), ("SharedSize", "N/A")]
    {
        assert_eq!(listed[name], value, "{name}");
    }
    assert!(listed["CreatedAt"].as_str().unwrap().ends_with(" +0000 UTC"), "{listed}");
    let table = ["images", "--format", "table {{.ID}}\\t{{.Tag}}"];
    assert_eq!(rbuild(&test, &table).stdout, format!("IMAGE ID       TAG\n{short}   1\n"));
    let tree = rbuild(&test, &["images", "--tree"]).stdout;
    let lines = cells(&tree);
    assert_eq!(lines[0], ["IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"]);
    assert_eq!((lines[1][0], lines[1][1], lines[1][4]), ("app:1", short, "U"));
    let wrong = ["images", "--format", "{{.Nosuch}}"];
    test.rbuild(&wrong).outcome().exits(1).says(&["can't evaluate field Nosuch"]);
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
    let raw = rbuild(&test, &["history", "--human=false", "app"]).stdout;
    let raw = cells(&raw);
    assert_eq!((raw[0][1], raw[1][3]), ("CREATED AT", "0"));
    assert!(raw[1][1].ends_with('Z'), "{raw:?}");
    let format = "{{.CreatedBy}}|{{.Size}}";
    let first = rbuild(&test, &["image", "history", "--format", format, "app"]).stdout;
    assert!(first.starts_with("CMD [\"sh\"]|0B\n"), "{first}");
    test.rbuild(&["history", "--platform", "linux/s390x", "app"])
        .outcome()
        .exits(1)
        .says(&["does not provide the specified platform (linux/s390x)"]);
    let ids = rbuild(&test, &["history", "-q", "app"]).stdout;
    assert_eq!(ids, format!("{}\n{}", &id[7..19], "<missing>\n".repeat(3)));
}

#[test]
fn what_an_image_does_not_set_is_empty_in_templates() {
    let test = TestEnvironment::new();
    let tar = test.write("small.tar", tar_of(&[("etc/", "")]));
    rbuild(&test, &["import", tar.to_str().unwrap(), "app"]);
    let image = test.inspect("app");
    let config = serde_json::json!({
        "Cmd": null, "Entrypoint": null, "Env": image["Config"]["Env"], "Labels": null, "OnBuild": null, "User": "",
        "Volumes": null, "WorkingDir": "/",
    });
    assert_eq!(image["Config"], config);
    assert!(image.get("Variant").is_none() && image.get("OsVersion").is_none(), "{image}");
    let cases = [
        ("{{range $p, $_ := .Config.ExposedPorts}}{{$p}}{{end}}{{json .Config.ExposedPorts}}", "null"),
        ("{{if .Config.Healthcheck}}1{{else}}2{{end}} {{json .Config.Healthcheck}}", "2 null"),
        ("{{.Config.StopSignal}}|{{json .Config.StopSignal}}|{{.OsVersion}}|{{.Variant}}", "|\"\"||"),
        ("{{.Config.Shell}} {{len .Config.Shell}} {{.Config.ArgsEscaped}}", "[] 0 false"),
        ("{{.Config.Volumes}} {{.Config.OnBuild}} {{.Config.Entrypoint}} {{.Config.Cmd}}", "map[] [] [] []"),
        ("{{json .Config.Entrypoint}} {{.Config.Labels}} {{.Config.Labels.x}}", "null map[] <no value>"),
        ("{{if not .Config.Labels.x}}1{{end}} {{or .Config.Labels.x \"2\"}}", "1 2"),
        ("{{with .Config}}{{.Shell}}{{end}}{{if .Config.Labels.x}}set{{end}}", "[]"),
    ];
    for (template, expected) in cases {
        assert_eq!(
            rbuild(&test, &["inspect", "-f", template, "app"]).stdout,
            format!("{expected}\n"),
            "{template}"
        );
    }
    test.rbuild(&["inspect", "-f", "{{.Config.Nosuch}}", "app"]).outcome().exits(1);
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
    test.rbuild(&["inspect", "app:1", "nosuch"]).outcome().exits(1).says(&["No such object: nosuch"]);
    // What there is, is shown all the same.
    let both = test.rbuild(&["inspect", "-f", "{{.Id}}", "nosuch", "app:1"]).outcome().exits(1);
    assert_eq!(both.stdout, format!("{id}\n"));
    assert_eq!(test.rbuild(&["image", "inspect", "nosuch"]).outcome().exits(1).stdout, "[]\n");
    let cases = [
        ("image", "No such image: nosuch:latest"),
        ("container", "No such container: nosuch"),
        ("network", "network nosuch not found"),
        ("x", "unknown type: \"x\""),
    ];
    for (kind, message) in cases {
        test.rbuild(&["inspect", "--type", kind, "nosuch"]).outcome().exits(1).says(&[message]);
    }
    // All fields are there for templates; one that is none is told from one that asks for too much.
    let asked = ["inspect", "-f", "{{.Config.Entrypoint}}|{{.Config.WorkingDir}}|{{.Comment}}", "app:1"];
    assert_eq!(rbuild(&test, &asked).stdout, "[]|/|first\n");
    test.rbuild(&["inspect", "-f", "{{.Id", "app:1"]).outcome().exits(64);
    test.rbuild(&["inspect", "-f", "{{.Nosuch}}", "app:1"]).outcome().exits(1);
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
    test.rbuild(&["rmi", &digit(twin)]).outcome().exits(1).says(&["multiple IDs found"]);
    assert!(test.has(twin));
}

#[test]
fn tag_gives_further_names() {
    let test = TestEnvironment::new();
    let id = import(&test, "first", &["app"]);
    rbuild(&test, &["tag", &id[7..19], "docker.io/library/other"]);
    assert_eq!(test.image_id("other:latest"), id);
    for (source, target, message) in [
        ("nosuch", "x", "No such image: nosuch:latest"),
        (
            "app",
            "Not A Name",
            "Error parsing reference: \"Not A Name\" is not a valid repository/tag: invalid reference",
        ),
        ("app", "", "an image reference cannot be empty"),
        ("app", "sha256:aa", "refusing to create an ambiguous tag"),
    ] {
        test.rbuild(&["tag", source, target]).outcome().exits(1).says(&[message]);
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
    // Names of one repository go with the image, those of several do not.
    rbuild(&test, &["tag", "app:3", "other"]);
    let conflict = format!(
        "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
        &id[7..19]
    );
    test.rbuild(&["rmi", &id]).outcome().exits(1).says(&[&conflict]);
    rbuild(&test, &["rmi", "other"]);
    let removed = rbuild(&test, &["image", "rm", &id]).stdout;
    assert_eq!(removed, format!("Untagged: app:3\nUntagged: app:4\nDeleted: {id}\n"));
    assert_eq!(rbuild(&test, &["images", "-aq"]).stdout, "");
    let absent = ["No such image: app:1", "No such image: nosuch:latest"];
    test.rbuild(&["rmi", "app:1", "nosuch"]).outcome().exits(1).says(&absent);
    test.rbuild(&["rmi", "-f", "app:1"]).outcome().succeeds().says(&absent[..1]);
    test.assert_sound();
}

#[test]
fn an_image_that_a_container_needs_stays() {
    let Some(test) = TestEnvironment::with_base() else { return };
    rbuild(&test, &["run", "--name", "user", "busybox", "true"]);
    let (id, user) =
        (test.image_id("busybox"), test.inspect("user")["Id"].as_str().unwrap()[..12].to_owned());
    let id = &id[7..19];
    let by_name = format!("(must force) - container {user} is using its referenced image {id}");
    test.rbuild(&["rmi", "busybox"]).outcome().exits(1).says(&["conflict: ", &by_name]);
    let by_id =
        format!("unable to delete {id} (must be forced) - image is being used by stopped container {user}");
    test.rbuild(&["rmi", id]).outcome().exits(1).says(&[&by_id]);
    assert!(test.has("busybox"));
    // One name of several can go.
    rbuild(&test, &["tag", "busybox", "other"]);
    rbuild(&test, &["rmi", "busybox"]);
    rbuild(&test, &["rmi", "-f", "other"]);
    assert!(!test.has("other"));
    rbuild(&test, &["rm", "user"]);
    test.assert_sound();
}
