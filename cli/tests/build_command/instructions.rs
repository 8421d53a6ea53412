//! What each instruction does to the image's config and to its tree.

use serde_json::json;
use tar::EntryType;

use crate::common::{TestEnvironment, gzip, tar_of};

#[test]
fn configuration_ends_up_in_the_config() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile(
        r#"FROM busybox
MAINTAINER me <me@example.com>
ARG VERSION=1.2
ARG PREFIX
ENV MODE=fast LEVEL="two words"
ENV OLD form with spaces
ENV VERSION_SEEN=v$VERSION${PREFIX:-none}
LABEL one=1 "two"="2 2"
WORKDIR /app
WORKDIR deep
USER nobody
EXPOSE 80 443/udp
VOLUME /data /more
SHELL ["/bin/sh", "-e", "-c"]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --retries=2 CMD true
ONBUILD RUN echo onbuild
ENTRYPOINT ["/bin/echo"]
CMD run this
"#,
    );
    test.build(&context, &["-t", "app"]).succeeds().says(&["MaintainerDeprecated"]);
    let image = test.inspect("app");
    let expected = json!({
        "ArgsEscaped": true,
        "Cmd": ["/bin/sh", "-e", "-c", "run this"],
        "Entrypoint": ["/bin/echo"],
        "Env": [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "MODE=fast",
            "LEVEL=two words",
            "OLD=form with spaces",
            "VERSION_SEEN=v1.2none",
        ],
        "ExposedPorts": { "80/tcp": {}, "443/udp": {} },
        "Healthcheck": { "Interval": 5_000_000_000_u64, "Retries": 2, "Test": ["CMD-SHELL", "true"] },
        "Labels": { "one": "1", "two": "2 2" },
        "OnBuild": ["RUN echo onbuild"],
        "Shell": ["/bin/sh", "-e", "-c"],
        "StopSignal": "SIGINT",
        "User": "nobody",
        "Volumes": { "/data": {}, "/more": {} },
        "WorkingDir": "/app/deep",
    });
    assert_eq!(image["Config"], expected);
    assert_eq!(image["Author"], "me <me@example.com>");
    assert_eq!(image["Os"], "linux");
}

#[test]
fn run_works_in_shell_and_exec_form() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile(
        r#"FROM busybox
ARG WHO=arg
ENV GREETING=hello
WORKDIR /work
RUN echo "$GREETING $WHO" >shell && echo gone >removed
RUN ["sh", "-c", "echo $0 >exec", "word"]
RUN ["touch", "$GREETING"]
RUN rm removed
SHELL ["/bin/sh", "-c", "echo shell: \"$0\" >chosen"]
RUN anything at all
SHELL ["/bin/sh", "-c"]
USER 1234:77
RUN id >/tmp/id; pwd >/tmp/pwd; echo $HOME >/tmp/home
RUN umask 077; echo secret >/tmp/private
"#,
    );
    let tree = test.build_tree(&context, &[]);
    for (path, expected) in [
        ("work/shell", "hello arg\n"),
        ("work/exec", "word\n"),
        ("work/$GREETING", ""),
        ("work/chosen", "shell: anything at all\n"),
        ("tmp/id", "uid=1234 gid=77 groups=77\n"),
        ("tmp/pwd", "/work\n"),
        ("tmp/private", "secret\n"),
    ] {
        assert_eq!(tree.text(path), expected, "{path}");
    }
    assert!(!tree.has("work/removed"));
    let private = tree.entry("tmp/private");
    assert_eq!((private.mode, private.owner), (0o600, (1234, 77)));
}

#[test]
fn heredocs_are_scripts_and_files() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context(
        "context",
        &[
            ("beside", "from the context\n"),
            (
                "Dockerfile",
                r#"FROM busybox
ARG NAME=me
RUN <<EOF
echo one >/script
echo two >>/script
EOF
RUN <<-TABS cat >/piped
	indented
	TABS
RUN <<EOF
#!/bin/awk -f
BEGIN { print "by awk" >"/awk" }
EOF
COPY <<first <<"second" beside /files/
hello $NAME
first
raw $NAME
second
COPY --chown=nobody:nogroup --chmod=0640 <<EOF /single
x
EOF
"#,
            ),
        ],
    );
    let tree = test.build_tree(&context, &[]);
    for (path, expected) in [
        ("script", "one\ntwo\n"),
        ("piped", "indented\n"),
        ("awk", "by awk\n"),
        ("files/first", "hello me\n"),
        ("files/second", "raw $NAME\n"),
        ("files/beside", "from the context\n"),
        ("single", "x\n"),
    ] {
        assert_eq!(tree.text(path), expected, "{path}");
    }
    assert_eq!(tree.paths("files"), ["files/beside", "files/first", "files/second"]);
    assert_eq!(tree.entry("files/first").mode, 0o644);
    let single = tree.entry("single");
    assert_eq!((single.mode, single.owner), (0o640, (65534, 65534)));
}

#[test]
fn copy_takes_from_the_context_what_is_not_ignored() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context(
        "context",
        &[
            ("Dockerfile", "FROM scratch\nCOPY . /all/\nCOPY src/*.c run.sh /some/\nCOPY src /renamed\n"),
            (".dockerignore", "# what is made\n*.log\n!keep.log\n**/tmp\nDockerfile\n.dockerignore\n"),
            ("a.log", ""),
            ("keep.log", ""),
            ("run.sh", "#!/bin/sh\n"),
            ("src/a.c", "a"),
            ("src/b.c", "b"),
            ("src/b.h", "h"),
            ("src/deep/tmp/x", ""),
            ("src/deep/y", ""),
        ],
    );
    context.chmod("run.sh", 0o755).symlink("../run.sh", "src/link");
    let tree = test.build_tree(&context, &[]);
    let all =
        ["keep.log", "run.sh", "src", "src/a.c", "src/b.c", "src/b.h", "src/deep", "src/deep/y", "src/link"];
    assert_eq!(tree.paths("all"), all.map(|path| format!("all/{path}")));
    assert_eq!(tree.paths("some"), ["some/a.c", "some/b.c", "some/run.sh"]);
    let renamed = ["a.c", "b.c", "b.h", "deep", "deep/y", "link"];
    assert_eq!(tree.paths("renamed"), renamed.map(|path| format!("renamed/{path}")));
    assert_eq!(tree.entry("some/run.sh").mode, 0o755);
    assert_eq!(tree.entry("some/a.c").owner, (0, 0));
    let link = tree.entry("all/src/link");
    assert_eq!((link.kind, link.target.as_deref()), (EntryType::Symlink, Some("../run.sh")));
}

#[test]
fn the_rules_beside_the_dockerfile_replace_those_of_the_context() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context("context", &[(".dockerignore", "a\n"), ("a", ""), ("b", "")]);
    test.write("elsewhere/app.Dockerfile", "FROM scratch\nCOPY . /\n");
    let file = ["-f", "elsewhere/app.Dockerfile"];
    assert!(!test.build_tree(&context, &file).has("a"));
    test.write("elsewhere/app.Dockerfile.dockerignore", "b\n");
    let tree = test.build_tree(&context, &file);
    assert!(tree.has("a") && !tree.has("b"));
}

#[test]
fn copy_takes_from_stages_and_images() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context(
        "context",
        &[
            ("a", "from the context\n"),
            (
                "Dockerfile",
                "FROM scratch AS files
COPY a /a
FROM busybox AS builder
RUN echo built >/built; echo -n >/empty; ln /built /hard
FROM builder AS more
RUN echo more >>/built
FROM scratch
COPY --from=files /a /named
COPY --from=0 /a /numbered
COPY --from=more --chown=12:34 --chmod=600 /built /empty /hard /out/
COPY --from=busybox /etc/passwd /passwd
",
            ),
        ],
    );
    let tree = test.build_tree(&context, &[]);
    assert_eq!(tree.text("named"), "from the context\n");
    assert_eq!(tree.text("numbered"), "from the context\n");
    assert_eq!(tree.text("out/built"), "built\nmore\n");
    assert!(tree.text("passwd").starts_with("root:x:0:0:"));
    let built = tree.entry("out/built");
    assert_eq!((built.mode, built.owner), (0o600, (12, 34)));
    let names = ["named", "numbered", "out", "out/built", "out/empty", "out/hard", "passwd"];
    assert_eq!(tree.paths(""), names);
}

#[test]
fn add_unpacks_archives_and_copies_the_rest() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let dockerfile = "FROM scratch
ADD plain.tar /plain/
ADD packed.tgz /packed/
ADD --chown=5:6 notes.txt dir /rest/
ADD broken.tgz /broken.tgz
COPY plain.tar /copied.tar
";
    let context = test.context(
        "context",
        &[
            ("Dockerfile", dockerfile),
            ("notes.txt", "notes\n"),
            ("dir/f", "f\n"),
            ("broken.tgz", "no gzip\n"),
        ],
    );
    let tar = tar_of(&[("top/", ""), ("top/inner", "inner\n")]);
    context.write("plain.tar", &tar).write("packed.tgz", gzip(&tar));
    let tree = test.build_tree(&context, &[]);
    assert_eq!(tree.text("plain/top/inner"), "inner\n");
    assert_eq!(tree.text("packed/top/inner"), "inner\n");
    assert_eq!(tree.text("rest/notes.txt"), "notes\n");
    assert_eq!(tree.entry("rest/f").owner, (5, 6));
    assert_eq!(tree.text("broken.tgz"), "no gzip\n");
    assert_eq!(tree.entry("copied.tar").content, tar);
}

#[test]
fn workdir_makes_directories_and_belongs_to_root() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context =
        test.dockerfile("FROM busybox\nENV BASE=/srv\nWORKDIR $BASE/a\nWORKDIR ../b\nRUN pwd >here\n");
    let tree = test.build_tree(&context, &[]);
    assert_eq!(tree.text("srv/b/here"), "/srv/b\n");
    let made = tree.entry("srv/a");
    assert_eq!((made.kind, made.mode, made.owner), (EntryType::Directory, 0o755, (0, 0)));
}

#[test]
fn onbuild_runs_in_the_image_that_is_built_on_it() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let base = test.context(
        "base",
        &[(
            "Dockerfile",
            "FROM busybox\nONBUILD COPY f /f\nONBUILD RUN cat /f >/copy\nONBUILD ENV BY=trigger\n",
        )],
    );
    test.build(&base, &["-t", "base"]).succeeds();
    let context =
        test.context("context", &[("f", "mine\n"), ("Dockerfile", "FROM base\nRUN cat /copy >/after\n")]);
    let outcome = test.build(&context, &["-t", "app"]).succeeds();
    assert_eq!(outcome.ran(), ["ONBUILD COPY f /f", "ONBUILD RUN cat /f >/copy", "RUN cat /copy >/after"]);
    assert_eq!(test.run("app", "cat /after; echo $BY"), "mine\ntrigger\n");
    assert_eq!(test.inspect("app")["Config"]["OnBuild"], json!(null));
}

#[test]
fn arguments_are_seen_where_they_are_declared() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile(
        "ARG BASE=nothing.invalid/none
ARG GLOBAL=global
FROM $BASE AS a
RUN echo \"${GLOBAL-unset}\" >/one
ARG GLOBAL
ARG LOCAL=default
RUN echo \"$GLOBAL $LOCAL\" >/two
ENV LOCAL=env
RUN echo $LOCAL >/three
",
    );
    let tree = test.build_tree(&context, &["--build-arg", "BASE=busybox", "--build-arg", "LOCAL=given"]);
    assert_eq!(
        (tree.text("one"), tree.text("two"), tree.text("three")),
        ("unset\n", "global given\n", "env\n")
    );
    let from_environment = test
        .build_command(&context, &["--build-arg", "BASE=busybox", "--build-arg", "LOCAL", "-t", "app"])
        .env("LOCAL", "environment");
    from_environment.outcome().succeeds();
    assert_eq!(test.run("app", "cat /two"), "global environment\n");
}

#[test]
fn what_no_stage_needs_is_not_looked_at() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile(
        "FROM localhost:1/nowhere AS bogus
RUN false
FROM busybox AS unused
COPY missing /
RUN false
FROM busybox AS used
RUN echo used >/used
FROM scratch
COPY --from=used /used /
",
    );
    let outcome = test.build(&context, &["-t", "app"]).succeeds();
    assert_eq!(outcome.ran(), ["COPY --from=used /used /", "RUN echo used >/used"]);
    outcome.says_nothing_of(&["bogus", "unused", "nowhere"]);
}
