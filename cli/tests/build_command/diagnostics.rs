//! What is shown of mistakes, to the letter: which word is found to blame is in `testdata/dockerfiles/err`, here is how it
//! looks. And what is answered instead of building.

use crate::common::TestEnvironment;

#[test]
fn mistakes_are_shown_with_their_place() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context("context", &[("main.c", "")]);
    let cases = [
        (
            "FROM busybox\nRUN true\nCOPY --form=x a b\nCMD [\"sh\"]\n",
            "\
error: unknown flag: --form (did you mean from?)
 --> Dockerfile:3:6
  |
1 | FROM busybox
2 | RUN true
3 | COPY --form=x a b
  |      ^^^^^^
4 | CMD [\"sh\"]
  |
",
        ),
        (
            "FROM busybox AS builder\n\tENV \u{e4}=$\u{e4} A=${B:x}\n",
            "\
error: failed to process `${B:x}`: unsupported modifier (:x) in substitution
 --> Dockerfile:2:13
  |
1 | FROM busybox AS builder
2 |  ENV \u{e4}=$\u{e4} A=${B:x}
  |             ^^^^^^
",
        ),
        (
            "FROM busybox\nRUN --mount=type=cache,target=/c \\\n    # a comment\n    --mount=type=cash,target=/d \\\n    true\n",
            "\
error: unsupported mount type `cash` (did you mean cache?)
 --> Dockerfile:4:18
  |
2 | RUN --mount=type=cache,target=/c \\
3 |     # a comment
4 |     --mount=type=cash,target=/d \\
  |                  ^^^^
5 |     true
  |
",
        ),
        (
            "FROM busybox\nVOLUME \\\n  [\"\"]\n",
            "\
error: VOLUME specified can not be an empty string
 --> Dockerfile:2:1
  |
1 |   FROM busybox
2 | / VOLUME \\
3 | |   [\"\"]
  | |______^
",
        ),
    ];
    for (dockerfile, expected) in cases {
        context.dockerfile(dockerfile);
        let only_errors = ["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"];
        assert_eq!(test.build(&context, &only_errors).exits(2).stderr, expected);
    }
}

#[test]
fn a_missing_file_is_marked_where_it_is_named() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context("context", &[("src/main.c", "")]);
    context.dockerfile("FROM busybox\nCOPY src/mian.c /\n");
    test.build(&context, &[]).exits(2).says(&["\
error: `/src/mian.c`: not found
 --> Dockerfile:2:6
  |
1 | FROM busybox
2 | COPY src/mian.c /
  |      ^^^^^^^^^^
  |
  = help: did you mean `/src/main.c`?
"]);
}

#[test]
fn warnings_follow_a_build() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox AS Build\nARG used\nENV a b\n");
    let expected = "
warning[StageNameCasing]: Stage name 'Build' should be lowercase
 --> Dockerfile:1:1
  |
1 | FROM busybox AS Build
  | ^^^^^^^^^^^^^^^^^^^^^
  |
  = https://docs.docker.com/go/dockerfile/rule/stage-name-casing/

warning[LegacyKeyValueFormat]: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format
 --> Dockerfile:3:1
  |
3 | ENV a b
  | ^^^^^^^
  |
  = https://docs.docker.com/go/dockerfile/rule/legacy-key-value-format/
";
    let arguments = ["--build-arg", "used=1", "--build-arg", "HTTP_PROXY=x", "--build-arg", "unused=2"];
    let unused = "\nwarning: One or more build-args [unused] were not consumed\n\n3 warnings found\n";
    let shown = format!("{expected}{unused}");
    assert!(test.build(&context, &arguments).succeeds().stderr.ends_with(&shown));
    test.build(&context, &["--quiet"]).succeeds().says_nothing_of(&["warning"]);

    let skipped = ["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"];
    test.build(&context, &skipped).succeeds().says_nothing_of(&["warning"]);
    let error = ["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=error=true"];
    let verdict = "error: lint violation found for rules: StageNameCasing, LegacyKeyValueFormat\n";
    assert_eq!(
        test.build(&context, &error).exits(2).stderr,
        format!("{expected}\n2 warnings found\n{verdict}")
    );
}

#[test]
fn warnings_precede_a_failure() {
    let Some(test) = TestEnvironment::with_base() else { return };
    for (failing, code) in [("RUN false", 1), ("COPY none /", 2), ("WORKDIR ${x:?}", 2)] {
        let context = test.dockerfile(&format!("FROM busybox AS Build\n{failing}\n"));
        let shown = test.build(&context, &[]).exits(code).stderr;
        let (warnings, error) = shown.split_once("\n1 warning found\nerror: ").expect(failing);
        assert!(warnings.contains("warning[StageNameCasing]"), "{failing}: {shown}");
        assert!(!error.contains("warning"), "{failing}: {shown}");
        assert!(!test.build(&context, &["--quiet"]).exits(code).stderr.contains("warning"), "{failing}");
    }
}

#[test]
fn a_check_ends_as_what_it_found() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\nCMD [\"sh\"]\n");
    let outcome = test.build(&context, &["--check"]).succeeds();
    assert_eq!(
        (outcome.stdout.as_str(), outcome.stderr.as_str()),
        ("Check complete, no warnings found.\n", "")
    );

    context.dockerfile("FROM busybox\nCMD sh\n");
    let outcome = test.build(&context, &["--check"]).exits(1);
    assert!(outcome.stdout.starts_with("Check complete, 1 warning has been found!\n\nWARNING: JSONArgs"));
    assert_eq!(outcome.stderr, "");

    context.dockerfile("FROM busybox\nCMD sh\nRUN --mnt true\n");
    let outcome = test.build(&context, &["--call=check,format=json"]).exits(2);
    let json: serde_json::Value = outcome.json();
    assert_eq!(json["buildError"]["message"], "unknown flag: --mnt (did you mean mount?)");
    outcome.says(&["--> Dockerfile:3:5"]);

    context.dockerfile("FROM localhost:1/none\nRUN true\n");
    test.build(&context, &["--check"]).exits(4).says(&["--> Dockerfile:1:6"]);
}

#[test]
fn calls_do_not_build() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let dockerfile = "# app is it\nFROM busybox AS app\nARG mode=fast\nRUN exit 1\n";
    let context = test.dockerfile(dockerfile);
    let answer = |arguments: &[&str]| test.build(&context, arguments).succeeds().stdout;
    let outline = "\
TARGET:      app
DESCRIPTION: is it

BUILD ARG   VALUE   DESCRIPTION
mode        slow    

";
    assert_eq!(answer(&["--call", "outline", "--build-arg", "mode=slow"]), outline);
    // No image is asked for.
    context.dockerfile(&dockerfile.replace("busybox", "localhost:1/none"));
    assert_eq!(answer(&["--call=targets"]), "TARGET        DESCRIPTION\napp (default) is it\n");
    assert!(answer(&["--call=subrequests.describe"]).starts_with("NAME "));
    test.build(&context, &["--call=nosuch"]).exits(2).says(&["unknown method `nosuch`"]);
    test.build(&context, &["--call=outline", "--target=ap"]).exits(2).says(&["did you mean app?"]);
}
