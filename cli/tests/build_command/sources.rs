//! ADD of what is elsewhere: files of web servers, git repositories.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use rbuild_image::Platform;
use rbuild_registry::testing::{FakeRegistry, Fault, ServedFile};

use crate::common::{GitServer, Repository, TestEnvironment, Tree, gzip, tar_of};

fn served(content: &str) -> ServedFile {
    ServedFile {
        content: content.into(),
        etag: Some(format!("\"{content}\"")),
        last_modified: Some("Wed, 21 Oct 2015 07:28:00 GMT".into()),
    }
}

/// The tree of a build whose Dockerfile is `FROM scratch` and this.
#[track_caller]
fn build(test: &TestEnvironment, steps: &str, arguments: &[&str]) -> Tree {
    test.build_tree(&test.dockerfile(&format!("FROM scratch\n{steps}\n")), arguments)
}

#[test]
fn a_file_is_fetched_again_only_if_it_changed() {
    let test = TestEnvironment::new();
    let web = FakeRegistry::start().unwrap();
    web.add_file("a.txt", served("one"));
    let steps = format!("ADD {} /", web.url("/files/a.txt?token=1"));
    let tree = build(&test, &steps, &[]);
    let file = tree.entry("a.txt");
    assert_eq!((file.mode, file.owner, file.mtime), (0o600, (0, 0), 1_445_412_480));
    assert_eq!(tree.text("a.txt"), "one");

    build(&test, &steps, &[]);
    assert_eq!(web.count("GET", "a.txt"), 2);
    assert_eq!(web.requests()[1].header("if-none-match"), Some("\"one\""));

    web.add_file("a.txt", served("two"));
    assert_eq!(build(&test, &steps, &[]).text("a.txt"), "two");
}

#[test]
fn a_file_without_a_date_is_as_old_as_time() {
    let test = TestEnvironment::new();
    let web = FakeRegistry::start().unwrap();
    let content = gzip(&tar_of(&[("in/side", "x")]));
    web.add_file("a.tgz", ServedFile { content, ..ServedFile::default() });
    let url = web.url("/files/a.tgz");
    assert_eq!(build(&test, &format!("ADD {url} /"), &[]).entry("a.tgz").mtime, 0);
    assert_eq!(build(&test, &format!("ADD --unpack {url} /"), &[]).text("in/side"), "x");
}

/// A file is called what the Dockerfile says, and a server has no say in it.
#[test]
fn a_server_does_not_choose_where_its_file_goes() {
    let test = TestEnvironment::new();
    let web = FakeRegistry::start().unwrap();
    for name in ["a", "../../etc/passwd", "/etc/passwd"] {
        web.add_file("a", served(name));
        let disposition =
            format!("attachment; filename=\"{name}\"; filename*=UTF-8''{}", name.replace('/', "%2F"));
        web.plan("GET", "/files/a", 1, Fault::Headers(vec![("content-disposition", disposition)]));
        let tree = build(&test, &format!("ADD {} /in/", web.url("/files/a")), &[]);
        assert_eq!((tree.text("in/a"), tree.0.len()), (name, 2));
    }
}

#[test]
fn with_a_checksum_the_server_is_not_asked_again() {
    let test = TestEnvironment::new();
    let web = FakeRegistry::start().unwrap();
    web.add_file("a", served("one"));
    let url = web.url("/files/a");
    let right = rbuild_image::Digest::of("one");
    let steps = format!("ADD --checksum={right} {url} /");
    for _ in 0..2 {
        assert_eq!(build(&test, &steps, &[]).text("a"), "one");
        assert_eq!(web.requests().len(), 1);
    }
    let wrong = rbuild_image::Digest::of("two");
    let context = test.dockerfile(&format!("FROM scratch\nADD --checksum={wrong} {url} /\n"));
    test.build(&context, &[]).exits(2).says(&["digest mismatch", "--> Dockerfile:2", &wrong.to_string()]);
}

#[test]
fn a_secret_of_the_host_is_shown_to_it_and_to_nobody_else() {
    let test = TestEnvironment::new();
    let (web, elsewhere) = (FakeRegistry::start().unwrap(), FakeRegistry::start().unwrap());
    elsewhere.add_file("a", served("one"));
    web.plan("GET", "/files/", 1, Fault::Redirect(elsewhere.url("/files/a")));
    let context = test.dockerfile(&format!("FROM scratch\nADD {} /\n", web.url("/files/a")));
    let arguments = ["--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,env=TOKEN"];
    let outcome = test.build_command(&context, &arguments).env("TOKEN", "hunter2\n").outcome().succeeds();
    assert_eq!(web.requests()[0].header("authorization"), Some("Bearer hunter2"));
    assert_eq!(elsewhere.requests()[0].header("authorization"), None);
    outcome.says_nothing_of(&["hunter2"]);
}

#[test]
fn files_that_cannot_be_had_fail_the_build() {
    let test = TestEnvironment::new();
    let web = FakeRegistry::start().unwrap();
    web.add_file("cut", ServedFile { content: vec![b'x'; 100_000], ..ServedFile::default() });
    web.plan("GET", "/files/cut", usize::MAX, Fault::CutAfter(1000));
    web.plan("GET", "/files/private", usize::MAX, Fault::Status(403, vec![], String::new()));
    let cases = [("none", "status 404"), ("cut", "changed while"), ("private", "HTTP_AUTH_TOKEN_")];
    for (name, says) in cases {
        let url = web.url(&format!("/files/{name}")).replace("http://", "http://me:$PASSWORD@");
        let context = test.dockerfile(&format!("FROM scratch\nARG PASSWORD\nADD {url} /\n"));
        test.build(&context, &["--build-arg", "PASSWORD=hunter2"])
            .exits(4)
            .says(&[says])
            .says_nothing_of(&["hunter2"]);
    }
    test.assert_sound();
}

#[test]
fn a_repository_is_taken_at_what_its_reference_says() {
    let test = TestEnvironment::new();
    let repository = Repository::new(test.path("repos/app"));
    let first = repository.commit(&[("d/f", "1"), ("run.sh", "x")]);
    repository.git(&["tag", "--annotate", "v1", "--message=v1"]);
    repository.git(&["update-ref", "refs/pull/7/head", &first]);
    fs::set_permissions(repository.path.join("run.sh"), PermissionsExt::from_mode(0o700)).unwrap();
    let second = repository.commit(&[("d/f", "2")]);
    let server = GitServer::start(&test.path("repos"), None);
    let url = server.url("app");
    let cases = [
        (String::new(), "d/f", "2"),
        ("#main".to_owned(), "d/f", "2"),
        ("#v1".to_owned(), "d/f", "1"),
        ("#refs/pull/7/head".to_owned(), "d/f", "1"),
        (format!("#{first}"), "d/f", "1"),
        ("#main:d".to_owned(), "f", "2"),
        (format!("?tag=v1&commit={}", &first[..7]), "d/f", "1"),
    ];
    for (rest, path, content) in cases {
        let tree = build(&test, &format!("ADD {url}{rest} /"), &[]);
        assert_eq!(tree.text(path), content, "{rest}");
        assert!(!tree.has(".git"), "{rest}");
    }
    let tree = build(&test, &format!("ADD {url}#{second} /"), &[]);
    assert_eq!(
        (tree.entry("run.sh").mode, tree.entry("d/f").mode, tree.entry("d").mode),
        (0o755, 0o644, 0o755)
    );

    let mistakes = [
        ("ADD URL#nope /", "does not contain ref nope"),
        ("ADD URL#main:nope /", "has no directory `nope`"),
        ("ADD --checksum=abc URL#main /", "expected checksum to match abc, got"),
        ("ADD --checksum=xyz URL#main /", "invalid checksum xyz"),
        ("ADD URL#-x /", "`-x` is not a git reference"),
    ];
    for (step, says) in mistakes {
        let step = step.replace("URL", &url);
        test.build(&test.dockerfile(&format!("FROM scratch\n{step}\n")), &[]).exits(2).says(&[says]);
    }
}

#[test]
fn a_commit_that_the_store_has_needs_no_network() {
    let test = TestEnvironment::new();
    let repository = Repository::new(test.path("repos/app"));
    let commit = repository.commit(&[("f", "1")]);
    let server = GitServer::start(&test.path("repos"), None);
    let url = server.url("app");
    build(&test, &format!("ADD {url} /"), &[]);
    let before = server.requests();
    let steps = format!("ADD {url}#{commit} /other/");
    assert_eq!(build(&test, &steps, &["--no-cache"]).text("other/f"), "1");
    assert_eq!(server.requests(), before);
}

#[test]
fn a_kept_git_directory_knows_its_remote_and_not_its_secrets() {
    let test = TestEnvironment::new();
    let repository = Repository::new(test.path("repos/app"));
    repository.commit(&[("f", "1")]);
    let server = GitServer::start(&test.path("repos"), None);
    let url = server.url("app");
    let secret = url.replace("http://", "http://me:hunter2@");
    let tree = build(&test, &format!("ADD --keep-git-dir=true {secret}#main /"), &[]);
    assert!(tree.text(".git/config").contains(&format!("url = {url}\n")), "{}", tree.text(".git/config"));
    let holds = |text: &str| {
        tree.0.values().any(|entry| entry.content.windows(text.len()).any(|part| part == text.as_bytes()))
    };
    assert!(!holds("hunter2") && !holds(test.store().to_str().unwrap()));
    assert!(tree.has(".git/refs/heads/main") && tree.has(".git/HEAD") && tree.text("f") == "1");
}

#[test]
fn a_private_repository_is_opened_by_a_secret() {
    let test = TestEnvironment::new();
    Repository::new(test.path("repos/app")).commit(&[("f", "1")]);
    // `x-access-token:hunter2`.
    let server = GitServer::start(&test.path("repos"), Some("basic eC1hY2Nlc3MtdG9rZW46aHVudGVyMg=="));
    let context = test.dockerfile(&format!("FROM scratch\nADD {} /\n", server.url("app")));
    test.build(&context, &[]).exits(4).says(&["failed to fetch remote", "GIT_AUTH_TOKEN"]);
    let host = format!("id=GIT_AUTH_TOKEN.{},env=TOKEN", server.host());
    for secret in ["id=GIT_AUTH_TOKEN,env=TOKEN", host.as_str()] {
        let command = test.build_command(&context, &["--secret", secret, "--no-cache"]);
        command.env("TOKEN", "hunter2").outcome().succeeds().says_nothing_of(&["hunter2"]);
    }
}

#[test]
fn submodules_come_along_unless_they_are_not_wanted() {
    let test = TestEnvironment::new();
    let server = GitServer::start(&test.path("repos"), None);
    Repository::new(test.path("repos/lib")).commit(&[("inner", "i")]);
    let app = Repository::new(test.path("repos/app"));
    app.git(&["submodule", "--quiet", "add", &server.url("lib"), "vendor/lib"]);
    app.commit(&[("f", "1")]);
    let url = server.url("app");
    let tree = build(&test, &format!("ADD {url} /"), &[]);
    assert_eq!(tree.text("vendor/lib/inner"), "i");
    assert!(tree.paths("").iter().all(|path| !path.ends_with(".git")), "{:?}", tree.paths(""));
    assert!(!build(&test, &format!("ADD {url}?submodules=false /"), &[]).has("vendor/lib/inner"));

    // A submodule cannot reach into the machine.
    app.git(&["config", "--file=.gitmodules", "submodule.vendor/lib.url", "file:///etc"]);
    app.commit(&[]);
    let context = test.dockerfile(&format!("FROM scratch\nADD {url} /\n"));
    test.build(&context, &["--no-cache"]).exits(3).says(&["`git submodule` failed"]);
}

#[test]
fn ssh_gets_the_agent_of_the_build_and_nothing_else() {
    let test = TestEnvironment::new();
    let repository = Repository::new(test.path("repos/app"));
    repository.commit(&[("f", "1")]);
    // In the place of ssh: notes its options and agent, and runs the command here.
    let script = format!(
        "#!/bin/sh\necho \"$SSH_AUTH_SOCK $*\" >{}\nfor last; do :; done\neval \"$last\"\n",
        test.path("ssh.log").display()
    );
    let ssh = test.write("bin/ssh", script);
    fs::set_permissions(&ssh, PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", ssh.parent().unwrap().display());
    let remote = format!("git@host.invalid:{}", repository.path.display());
    let context = test.dockerfile(&format!("FROM scratch\nADD {remote} /\n"));
    test.build(&context, &[]).exits(2).says(&["no SSH key `default` forwarded", "--ssh default"]);

    let socket = test.path("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let agent = format!("default={}", socket.display());
    test.build_command(&context, &["--ssh", &agent]).env("PATH", path).outcome().succeeds();
    let log = test.read("ssh.log");
    assert!(log.contains("-F /dev/null") && log.contains("BatchMode=yes"), "{log}");
    assert!(!log.starts_with(' '), "{log}");
}

#[test]
fn two_builds_may_fetch_one_repository_at_once() {
    let test = TestEnvironment::new();
    let repository = Repository::new(test.path("repos/app"));
    repository.commit(&[("f", "1")]);
    repository.git(&["branch", "other"]);
    let server = GitServer::start(&test.path("repos"), None);
    let context = |name: &str| {
        let dockerfile = format!("FROM scratch\nADD {}#{name} /{name}/\n", server.url("app"));
        test.context(name, &[("Dockerfile", &dockerfile)])
    };
    let running = ["main", "other"].map(|name| test.build_command(&context(name), &[]).start());
    for running in running {
        running.finish().succeeds();
    }
    test.assert_sound();
}

#[test]
fn without_git_a_build_says_what_to_install() {
    let test = TestEnvironment::new();
    let context = test.dockerfile("FROM scratch\nADD http://127.0.0.1:1/a.git /\n");
    let outcome = test.build_command(&context, &[]).env("PATH", test.path("nowhere")).outcome();
    outcome.exits(3).says(&["`git`, which is not installed", "apt-get install git"]);
}

/// What was used before is used as it was, whatever has become of it since; what was not is an error that says so.
#[test]
fn offline_nobody_is_asked() {
    let test = TestEnvironment::new();
    let repository = Repository::new(test.path("repos/app"));
    repository.commit(&[("f", "1")]);
    let (server, web) = (GitServer::start(&test.path("repos"), None), FakeRegistry::start().unwrap());
    web.add_file("a", served("one"));
    web.add_image("team/base", "1", &Platform::host(), &[&tar_of(&[("in/image", "x")])]);
    let image = format!("{}/team/base:1", web.name());
    let steps = |url: &str| format!("FROM {image}\nADD {url}#main /\nADD {} /a\n", web.url("/files/a"));
    let context = test.context("app", &[("Dockerfile", &steps(&server.url("app")))]);
    test.build(&context, &["-t", "app"]).succeeds();
    repository.commit(&[("f", "2")]);
    web.add_file("a", served("two"));
    let asked = || server.requests() + web.requests().len();
    let before = asked();
    for pull in ["--pull=missing", "--pull=newer"] {
        let tree = test.build_tree(&context, &["--offline", "--no-cache", pull]);
        assert_eq!((tree.text("f"), tree.text("a"), tree.text("in/image")), ("1", "one", "x"));
    }
    let mistakes = [
        (steps(&server.url("app")), "--pull=always", "manifests/1` was not asked for: rbuild is offline"),
        (steps(&server.url("other")), "--pull=missing", "other/.git was not asked for: rbuild is offline"),
        (format!("FROM {}/none\n", web.name()), "--pull=missing", "was not asked for: rbuild is offline"),
        (
            format!("FROM scratch\nADD {} /\n", web.url("/files/b")),
            "--pull=missing",
            "files/b` was not asked for",
        ),
    ];
    for (steps, pull, says) in mistakes {
        test.build(&test.dockerfile(&steps), &["--offline", pull]).exits(4).says(&[says]);
    }
    test.rbuild(&["pull", &image]).env("RBUILD_OFFLINE", "1").outcome().exits(4).says(&["rbuild is offline"]);
    assert_eq!(asked(), before);
    assert_eq!(test.build_tree(&context, &[]).text("f"), "2");
}
