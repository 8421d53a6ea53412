//! Where contexts and Dockerfiles may be: directories, repositories, web servers, standard input, layouts; and their age.

use rbuild_registry::testing::{FakeRegistry, ServedFile};

use crate::common::{GitServer, Repository, TestEnvironment, Tree, gzip, tar_of};

const COPY_ALL: &str = "FROM scratch\nCOPY . /\n";

/// The tree of `rbuild build ARGUMENTS`, with this on standard input.
#[track_caller]
fn tree_of(test: &TestEnvironment, arguments: &[&str], stdin: impl Into<Vec<u8>>) -> Tree {
    let command = test.rbuild(&["build", "-o", "-"]).args(arguments).stdin(stdin);
    Tree::read(&command.outcome().succeeds().stdout_bytes)
}

fn plain(content: impl Into<Vec<u8>>) -> ServedFile {
    ServedFile { content: content.into(), ..ServedFile::default() }
}

#[test]
fn a_repository_can_be_the_context() {
    let test = TestEnvironment::new();
    let repository = Repository::new(test.path("repos/app"));
    let files = [
        ("Dockerfile", COPY_ALL),
        (".dockerignore", "f"),
        ("f", "1"),
        ("sub/My.file", COPY_ALL),
        ("sub/g", "2"),
    ];
    repository.commit(&files);
    let server = GitServer::start(&test.path("repos"), None);
    let url = server.url("app");
    // No ignore rules hold for what was chosen elsewhere.
    assert_eq!(tree_of(&test, &[&url], "").text("f"), "1");
    assert_eq!(tree_of(&test, &[&format!("{url}#main:sub"), "-f", "My.file"], "").text("g"), "2");
    assert_eq!(tree_of(&test, &[&url, "-f", "sub/My.file"], "").text("sub/g"), "2");
    assert!(tree_of(&test, &[&url, "--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"], "").has(".git/HEAD"));

    let again = test.rbuild(&["build", "--progress", "plain", &url]).outcome().succeeds();
    assert_eq!(again.cached(), ["COPY . /"]);
    repository.commit(&[("f", "changed")]);
    assert_eq!(tree_of(&test, &[&url], "").text("f"), "changed");
}

#[test]
fn standard_input_is_a_context_or_a_dockerfile() {
    let test = TestEnvironment::new();
    let files = [("Dockerfile", COPY_ALL), (".dockerignore", "f"), ("f", "1"), ("sub/Other", COPY_ALL)];
    let tar = tar_of(&files);
    assert_eq!(tree_of(&test, &["-"], tar.clone()).text("f"), "1");
    assert_eq!(tree_of(&test, &["-f", "sub/Other", "-"], gzip(&tar)).text("f"), "1");
    let tree = tree_of(&test, &["-"], "FROM scratch\nCOPY <<x /a\nhi\nx\n");
    assert_eq!(tree.text("a"), "hi\n");

    let context = test.context("app", &[("f", "2"), ("g", "3"), (".dockerignore", "g")]);
    let tree = tree_of(&test, &["-f", "-", context.path.to_str().unwrap()], COPY_ALL);
    assert_eq!(tree.text("f"), "2");
    assert!(!tree.has("g"));
    assert_eq!(test.store_entries("active"), 0);
}

#[test]
fn a_web_server_has_contexts_and_dockerfiles() {
    let test = TestEnvironment::new();
    let web = FakeRegistry::start().unwrap();
    let tar = tar_of(&[("Dockerfile", COPY_ALL), ("f", "1")]);
    web.add_file("context.tgz", plain(gzip(&tar)));
    web.add_file("tar", plain(tar));
    web.add_file("Dockerfile", plain("FROM scratch\nCOPY <<x /a\nhi\nx\n"));
    assert_eq!(tree_of(&test, &[&web.url("/files/context.tgz")], "").text("f"), "1");
    assert_eq!(tree_of(&test, &[&web.url("/files/tar")], "").text("f"), "1");
    assert_eq!(tree_of(&test, &[&web.url("/files/Dockerfile")], "").text("a"), "hi\n");
    let context = test.context("app", &[]);
    let arguments = ["-f", &web.url("/files/Dockerfile"), context.path.to_str().unwrap()];
    assert_eq!(tree_of(&test, &arguments, "").text("a"), "hi\n");
}

#[test]
fn names_stand_for_what_build_context_says() {
    let test = TestEnvironment::new();
    Repository::new(test.path("repos/lib")).commit(&[("sub/g", "git")]);
    let server = GitServer::start(&test.path("repos"), None);
    let web = FakeRegistry::start().unwrap();
    web.add_file("page", plain("web"));
    test.context("assets", &[("a", "1"), ("b", "2"), (".dockerignore", "b")]);
    let base = test.context("base", &[("Dockerfile", "FROM scratch\nCOPY f /f\nENV X=y\n"), ("f", "f")]);
    test.build(&base, &["-t", "local/base:v1", "-o", "type=oci,tar=false,dest=layout"]).succeeds();

    let dockerfile = "FROM image\nCOPY --from=assets . /assets\nCOPY --from=lib . /lib\nCOPY --from=page . /page\n\
        COPY --from=layout /f /from-layout\nCOPY --from=stage . /stage\n";
    let dockerfile = format!("FROM nowhere/at-all AS stage\nRUN exit 1\n{dockerfile}");
    let contexts = [
        "image=docker-image://local/base:v1".to_owned(),
        "assets=assets".to_owned(),
        "stage=assets".to_owned(),
        format!("lib={}#main:sub", server.url("lib")),
        format!("page={}", web.url("/files/page")),
        "layout=oci-layout://layout:v1".to_owned(),
    ];
    let arguments: Vec<&str> =
        contexts.iter().flat_map(|context| ["--build-context", context]).chain(["-"]).collect();
    let tree = tree_of(&test, &arguments, dockerfile.as_str());
    let expected = [
        ("f", "f"),
        ("assets/a", "1"),
        ("lib/g", "git"),
        ("page/page", "web"),
        ("from-layout", "f"),
        ("stage/a", "1"),
    ];
    for (path, content) in expected {
        assert_eq!(tree.text(path), content);
    }
    assert!(!tree.has("assets/b"));
}

#[test]
fn a_directory_and_a_repository_can_be_bases() {
    let test = TestEnvironment::new();
    let context = test.context("tree", &[("f", "1"), ("d/g", "2"), ("h", "x"), (".dockerignore", "h")]);
    let repository = Repository::new(test.path("repos/app"));
    repository.commit(&[("r", "3")]);
    let server = GitServer::start(&test.path("repos"), None);
    let (tree, app) = (format!("tree={}", context.path.display()), format!("app={}", server.url("app")));
    let build = |text: &str| {
        let arguments = ["--build-context", &tree, "--build-context", &app, "-t", "app", "-"];
        let found = tree_of(&test, &arguments, text);
        let history = test.rbuild(&["history", "-q", "app"]).outcome().succeeds().stdout.lines().count();
        (found, history)
    };
    let (found, history) = build("FROM tree\nWORKDIR /d/w\nCOPY --from=app r /d/\n");
    assert_eq!((found.text("f"), found.text("d/g"), found.text("d/r")), ("1", "2", "3"));
    assert!(!found.has("h") && found.has("d/w"));
    assert_eq!(history, 3);
    let (found, history) = build("FROM tree\nENV x=y\n");
    assert_eq!((found.text("f"), history), ("1", 2));
    let (found, history) = build("FROM app AS base\nFROM base\nCOPY --from=tree f /\n");
    assert_eq!((found.text("r"), found.text("f"), history), ("3", "1", 2));
    test.assert_sound();
}

#[test]
fn a_layout_serves_a_store_that_has_never_seen_its_image() {
    let test = TestEnvironment::new();
    let base = test.context("base", &[("Dockerfile", "FROM scratch\nCOPY f /f\nENV X=y\n"), ("f", "f")]);
    test.build(&base, &["-t", "base", "-o", "type=oci,tar=false,dest=layout"]).succeeds();
    let other = TestEnvironment::new();
    let layout = format!("base=oci-layout://{}", test.path("layout").display());
    let arguments = ["build", "-t", "app", "--build-context", &layout, "-"];
    other.rbuild(&arguments).stdin("FROM base\nLABEL x=$X\n").outcome().succeeds();
    assert_eq!(other.inspect("app")["Config"]["Labels"]["x"], "y");
    other.assert_sound();
}

#[test]
fn ignore_rules_may_be_called_otherwise_or_be_elsewhere() {
    let test = TestEnvironment::new();
    let context = test.context("app", &[("Dockerfile", COPY_ALL), ("a", ""), ("b", ""), ("c", "")]);
    test.write("rules", "c");
    context.write(".containerignore", "a");
    let has = |arguments: &[&str]| {
        let tree = test.build_tree(&context, arguments);
        ["a", "b", "c"].map(|name| tree.has(name))
    };
    assert_eq!(has(&[]), [false, true, true]);
    assert_eq!(has(&["--ignorefile", "rules"]), [true, true, false]);
    context.write(".dockerignore", "b");
    assert_eq!(has(&[]), [true, false, true]);
}

#[test]
fn the_age_of_a_context_can_be_that_of_the_image() {
    let test = TestEnvironment::new();
    let dockerfile = "ARG SOURCE_DATE_EPOCH=context\nFROM scratch\nLABEL a=b\n";
    Repository::new(test.path("repos/app")).commit(&[("Dockerfile", dockerfile)]);
    let server = GitServer::start(&test.path("repos"), None);
    let web = FakeRegistry::start().unwrap();
    let tar = tar_of(&[("Dockerfile", dockerfile)]);
    let dated = Some("Wed, 21 Oct 2015 07:28:00 GMT".to_owned());
    web.add_file("dated", ServedFile { last_modified: dated, ..plain(tar.clone()) });
    web.add_file("undated", plain(tar.clone()));
    let created = |arguments: &[&str], stdin: &[u8]| {
        test.rbuild(&["build", "-t", "app"]).args(arguments).stdin(stdin).outcome().succeeds();
        test.inspect("app")["Created"].as_str().unwrap().to_owned()
    };
    assert_eq!(created(&[&server.url("app")], b""), "2001-09-09T01:46:40Z");
    assert_eq!(created(&[&web.url("/files/dated")], b""), "2015-10-21T07:28:00Z");
    assert_eq!(created(&[&web.url("/files/undated")], b""), "1970-01-01T00:00:00Z");
    assert_eq!(created(&["-"], &tar), "1970-01-01T00:00:00Z");
    let lib = format!("lib={}", server.url("app"));
    let named = ["--build-context", &lib, "--build-arg", "SOURCE_DATE_EPOCH=lib", "-"];
    assert_eq!(created(&named, b"FROM scratch\nLABEL a=b\n"), "2001-09-09T01:46:40Z");
    let stage = format!(
        "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nADD {} /\nFROM scratch\nLABEL a=b\n",
        web.url("/files/dated")
    );
    assert_eq!(created(&["-"], stage.as_bytes()), "2015-10-21T07:28:00Z");
}

#[test]
fn files_of_a_repository_are_as_old_as_their_commit_where_one_time_is_asked_for() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let dockerfile = "FROM busybox\nCOPY f /f\nRUN stat -c %Y /f >/time\n";
    Repository::new(test.path("repos/app")).commit(&[("Dockerfile", dockerfile), ("f", "")]);
    let server = GitServer::start(&test.path("repos"), None);
    let arguments = ["--build-arg", "SOURCE_DATE_EPOCH=2000000000", &server.url("app")];
    assert_eq!(tree_of(&test, &arguments, "").text("time"), "1000000000\n");
}

#[test]
fn mistakes_with_contexts_are_told() {
    let test = TestEnvironment::new();
    let repository = Repository::new(test.path("repos/app"));
    repository.commit(&[("f", "")]);
    let server = GitServer::start(&test.path("repos"), None);
    let url = server.url("app");
    test.context("app", &[("Dockerfile", COPY_ALL)]);
    let cases: [(&[&str], i32, &str); 12] = [
        (&["nowhere"], 2, "failed to open build context `nowhere`"),
        (&[&url], 2, "there is no Dockerfile in the build context"),
        (&["-f", "../../etc/passwd", &url], 2, "there is no ../../etc/passwd in the build context"),
        (&["http://127.0.0.1:1/x.tar"], 4, "Connection refused"),
        (&["http://127.0.0.1:1/x.git"], 4, "failed to fetch remote"),
        (&["-f", "-", "-"], 2, "standard input cannot be both"),
        (&["-f", "x", "-"], 2, "standard input is a Dockerfile, and -f names another"),
        (&["--ignorefile", "x", "-"], 2, "--ignorefile is for a context that is a directory"),
        (&["--build-context", "x", "app"], 2, "invalid --build-context `x`: expected NAME=VALUE"),
        (&["--build-context", "x=nowhere", "app"], 2, "failed to open build context `nowhere`"),
        (&["--build-context", "context=app", "app"], 2, "`context` always means the same"),
        (&["--build-context", "x=oci-layout://app", "app"], 3, "`"),
    ];
    for (arguments, code, says) in cases {
        let outcome = test.rbuild(&["build"]).args(arguments).stdin("FROM scratch\n").outcome();
        outcome.exits(code).says(&[says]);
    }
}

#[test]
fn a_step_is_found_by_what_it_was_given_whoever_edits_meanwhile() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let many: Vec<(String, String)> =
        (0..300).map(|number| (format!("c/{number}"), number.to_string())).collect();
    let files: Vec<(&str, &str)> = many
        .iter()
        .map(|(name, content)| (name.as_str(), content.as_str()))
        .chain([("c/f", "first")])
        .collect();
    // With and without a file that vanishes: only then the directory has another time.
    let cases = [
        ("COPY c /c", false),
        ("COPY c /c", true),
        ("COPY c /c\nCOPY . /all", false),
        ("COPY c/f c/7 /c/", false),
        ("RUN --mount=type=bind,source=c,target=/m cp -r /m /c", true),
    ];
    for (number, (copy, vanishes)) in cases.iter().enumerate() {
        let context = test.context("context", &files);
        // The step before waits until somebody has edited what the next one takes.
        let wait = "touch /sync/ready && until [ -e /sync/go ]; do sleep 0.02; done";
        context.write("Dockerfile", format!("FROM busybox\nRUN echo {number} >/number && {wait}\n{copy}\n"));
        let sync = test.path(&format!("sync-{number}"));
        std::fs::create_dir(&sync).unwrap();
        let volume = format!("{}:/sync", sync.display());
        let building = test.build_command(&context, &["-v", &volume, "-t", "app"]).start();
        await_file(&sync.join("ready"));
        context.write("c/f", "edited");
        if *vanishes {
            std::fs::remove_file(context.path.join("c/9")).unwrap();
        }
        std::fs::write(sync.join("go"), "").unwrap();
        building.finish().succeeds();
        // As it was before, of which all may be in the store, or as it is: not some of both.
        let nine = if *vanishes || number == 3 { "" } else { "9" };
        let before = if number == 3 { "" } else { "9" };
        let built = test.run("app", "cat /c/f && cat /c/9 2>/dev/null || true");
        let possible = [format!("first{before}"), format!("edited{nine}")];
        assert!(possible.contains(&built), "{copy}: {built}");
        for content in ["first", "edited"] {
            context.write("c/f", content);
            test.build(&context, &["-v", &volume, "-t", "app"]).succeeds();
            assert_eq!(test.run("app", "cat /c/f"), content, "{copy}");
        }
    }
    test.assert_sound();
}

/// Waits for a file that a step makes.
#[track_caller]
fn await_file(path: &std::path::Path) {
    for _ in 0..6_000 {
        if path.exists() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("no `{}` in a minute", path.display());
}
