//! What rbuild says, and with which exit code it ends, when the command line, the Dockerfile, the context or a step is
//! wrong. Nothing that fails leaves a name behind.

use crate::common::TestEnvironment;

/// A Dockerfile, arguments, the exit code, and what is said.
type Case<'a> = (&'a str, &'a [&'a str], i32, &'a [&'a str]);

fn check(test: &TestEnvironment, cases: &[Case<'_>]) {
    let context =
        test.context("context", &[("main.c", ""), ("hidden.txt", ""), (".dockerignore", "hidden.*\n")]);
    for (dockerfile, arguments, code, texts) in cases {
        context.dockerfile(dockerfile);
        let outcome = test.build(&context, &[&["-t", "broken"], *arguments].concat());
        outcome.exits(*code).says(&["error: "]).says(texts).says_nothing_of(&["panicked", "this is a bug"]);
        assert!(!test.has("broken"), "{dockerfile}");
    }
    assert_eq!(test.store_entries("active"), 0);
    test.assert_sound();
}

#[test]
fn mistakes_in_the_dockerfile() {
    let Some(test) = TestEnvironment::with_base() else { return };
    check(
        &test,
        &[
            ("", &[], 2, &["the Dockerfile cannot be empty"]),
            ("# nothing\n\n", &[], 2, &["no instructions"]),
            (
                "FROM busybox\nRUNN true\n",
                &[],
                2,
                &["unknown instruction: RUNN (did you mean RUN?)", "--> Dockerfile:2"],
            ),
            ("RUN true\n", &[], 2, &["no build stage in current context", "--> Dockerfile:1"]),
            (
                "FROM busybox\nCOPY --chonw=1 main.c /\n",
                &[],
                2,
                &["unknown flag: --chonw (did you mean chown?)"],
            ),
            (
                "FROM busybox\nRUN --network=wat true\n",
                &[],
                2,
                &["unsupported value `wat`", "--> Dockerfile:2"],
            ),
            ("FROM busybox\nCOPY --from=9 /a /b\n", &[], 2, &["invalid stage index 9", "--> Dockerfile:2"]),
            (
                "FROM a AS b\nCOPY --from=c / /\nFROM busybox AS c\nCOPY --from=b / /\n",
                &[],
                2,
                &["circular dependency detected on stage"],
            ),
            (
                "FROM busybox AS x\nCOPY --from=x /a /b\n",
                &[],
                2,
                &["circular dependency detected on stage: x"],
            ),
            ("FROM busybox AS builder\n", &["--target", "bilder"], 2, &["`bilder`", "did you mean builder?"]),
            ("FROM busybox\nEXPOSE 99999\n", &[], 2, &["99999", "--> Dockerfile:2"]),
            ("FROM busybox\nRUN <<EOF\ntrue\n", &[], 2, &["EOF", "--> Dockerfile:2"]),
        ],
    );
}

#[test]
fn images_that_cannot_be_had() {
    let Some(test) = TestEnvironment::with_base() else { return };
    check(
        &test,
        &[
            (
                "FROM localhost:1/none\n",
                &[],
                4,
                &["failed to resolve image `localhost:1/none:latest`", "--> Dockerfile:1"],
            ),
            (
                "FROM busybox AS builder\nFROM busybox\nCOPY --from=bilder /a /b\n",
                &[],
                4,
                &["help: did you mean `builder`?", "--> Dockerfile:3:6"],
            ),
            ("FROM BusyBox\n", &[], 2, &["must be lowercase", "--> Dockerfile:1"]),
        ],
    );
}

#[test]
fn files_that_are_not_there() {
    let Some(test) = TestEnvironment::with_base() else { return };
    check(
        &test,
        &[
            (
                "FROM busybox\nCOPY nothing/like/it /\n",
                &[],
                2,
                &["`/nothing/like/it`: not found", "--> Dockerfile:2"],
            ),
            ("FROM busybox\nCOPY mian.c /\n", &[], 2, &["`/mian.c`: not found", "did you mean `/main.c`?"]),
            (
                "FROM busybox\nCOPY hidden.txt /\n",
                &[],
                2,
                &["`/hidden.txt`: not found", "it is there, but `.dockerignore` excludes it"],
            ),
            ("FROM busybox\nCOPY ../outside /\n", &[], 2, &["`/outside`: not found"]),
            ("FROM busybox AS x\nFROM busybox\nCOPY --from=x /none /\n", &[], 2, &["`/none`: not found"]),
            ("FROM busybox\nCOPY main.c /bin/busybox/x\n", &[], 2, &["--> Dockerfile:2"]),
        ],
    );
}

#[test]
fn steps_that_fail() {
    let Some(test) = TestEnvironment::with_base() else { return };
    check(
        &test,
        &[
            (
                "FROM busybox\nWORKDIR /x\nRUN echo said; echo this >&2; exit 7\nRUN echo never\n",
                &[],
                1,
                &[
                    "process \"/bin/sh -c echo said; echo this >&2; exit 7\" did not complete successfully: exit code: 7",
                    "--> Dockerfile:3",
                    "last output:\n    said\n    this\n",
                ],
            ),
            (
                "FROM busybox\nRUN i=0; while [ $i -lt 500 ]; do i=$((i+1)); echo line $i; done; false\n",
                &[],
                1,
                &["line 1\n", "    line 500\n"],
            ),
            ("FROM busybox\nRUN nosuchcommand\n", &[], 1, &["exit code: 127", "nosuchcommand: not found"]),
            (
                "FROM busybox\nRUN [\"/nosuch\", \"x\"]\n",
                &[],
                1,
                &["/nosuch", "No such file or directory", "Dockerfile:2"],
            ),
            ("FROM busybox\nRUN [\"/etc/passwd\"]\n", &[], 1, &["/etc/passwd", "Permission denied"]),
            ("FROM scratch\nRUN true\n", &[], 1, &["/bin/sh", "No such file or directory", "Dockerfile:2"]),
            (
                "FROM busybox\nUSER ghost\nRUN true\n",
                &[],
                1,
                &["unable to find user ghost", "--> Dockerfile:3"],
            ),
            (
                "FROM busybox\nUSER 0:ghosts\nRUN true\n",
                &[],
                1,
                &["unable to find group ghosts", "--> Dockerfile:3"],
            ),
            (
                "FROM busybox\nRUN sh -c 'kill -TERM $$'; exit $?\n",
                &[],
                1,
                &["exit code: 143", "--> Dockerfile:2"],
            ),
            (
                "FROM busybox AS a\nRUN sleep 100\nFROM busybox AS b\nRUN exit 9\nFROM a\nCOPY --from=b / /\n",
                &[],
                1,
                &["exit code: 9", "CANCELED"],
            ),
        ],
    );
}

#[test]
fn mistakes_on_the_command_line() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let dockerfile = "FROM busybox\n";
    check(
        &test,
        &[
            (dockerfile, &["-t", "UPPER"], 2, &["invalid tag `UPPER`", "must be lowercase"]),
            (dockerfile, &["-t", "a b"], 2, &["invalid tag `a b`"]),
            (dockerfile, &["-t", ""], 2, &["invalid tag ``"]),
            (dockerfile, &["-o", "type=zip,dest=x"], 2, &["unknown output type `zip`"]),
            (dockerfile, &["-o", "type=oci"], 2, &["output type `oci` needs `dest=`"]),
            (dockerfile, &["-o", "type=local,dest=-"], 2, &["cannot be written to standard output"]),
            (dockerfile, &["-o", "-", "-o", "type=oci,dest=-"], 2, &["only one output"]),
            (dockerfile, &["--build-arg", "=x"], 2, &["invalid build argument `=x`"]),
            (
                dockerfile,
                &["--build-arg", "SOURCE_DATE_EPOCH=soon"],
                2,
                &["invalid SOURCE_DATE_EPOCH: `soon`"],
            ),
            (dockerfile, &["--platform", "lin ux"], 2, &["lin ux"]),
            (dockerfile, &["--add-host", "db"], 2, &["invalid --add-host `db`"]),
            (dockerfile, &["--jobs", "0"], 2, &["--jobs must be at least 1"]),
            (dockerfile, &["--nosuch"], 2, &["unexpected argument '--nosuch'"]),
            (
                dockerfile,
                &["-f", "nope"],
                2,
                &["failed to read Dockerfile `nope`: No such file or directory"],
            ),
            (
                dockerfile,
                &["-f", "Dockerfile"],
                2,
                &["-f is relative to the current directory: did you mean"],
            ),
            (dockerfile, &["-f", "context"], 2, &["failed to read Dockerfile `context`: Is a directory"]),
        ],
    );
}

#[test]
fn contexts_that_are_none() {
    let test = TestEnvironment::new();
    test.write("file", "");
    test.write("empty/x", "");
    let cases: [(&[&str], &[&str]); 4] = [
        (&["build", "nowhere"], &["failed to open build context `nowhere`: No such file or directory"]),
        (&["build", "file"], &["build context `file` is not a directory"]),
        (&["build", "empty"], &["there is no Dockerfile in", "-f FILE names a Dockerfile"]),
        (&["build"], &["<PATH|URL|->"]),
    ];
    for (arguments, texts) in cases {
        test.rbuild(arguments).outcome().exits(2).says(texts);
    }
}
