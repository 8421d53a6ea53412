//! Secrets: what steps see of them, and that nothing else ever does.

use std::fs;
use std::io;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::common::TestEnvironment;

/// No other bytes of a test are like it.
const VALUE: &str = "correct-horse-battery-staple";

#[test]
fn a_step_sees_a_secret_as_a_file_or_a_variable() {
    let Some(test) = TestEnvironment::with_base() else { return };
    test.write("token", VALUE);
    let context = test.dockerfile(
        r#"FROM busybox
WORKDIR /work
RUN --mount=type=secret,id=token test "$(cat /run/secrets/token)" = correct-horse-battery-staple \
 && test "$(stat -c '%a %u %g' /run/secrets/token)" = "400 0 0" \
 && grep ' /run/secrets/token ro,nosuid,nodev,noexec' /proc/self/mountinfo \
 && ! touch /run/secrets/token
RUN --mount=type=secret,id=token,target=a/b,mode=0555 --mount=type=secret,id=token,dst=/c,env=TOKEN \
    cmp /work/a/b /c && test "$TOKEN" = correct-horse-battery-staple \
 && grep ' /work/a/b ro,nosuid,nodev,relatime' /proc/self/mountinfo
RUN --mount=type=secret,id=variable,env=V test "$V" = "from the environment" && test ! -e /run/secrets
RUN --mount=type=secret,id=missing,env=V --mount=type=secret,id=missing \
    test "${V-unset}" = "" && test ! -e /run/secrets/missing
RUN test ! -e /run/secrets && test ! -e /work/a && test ! -e /c
"#,
    );
    let build = test.build_command(&context, &["-t", "app", "--secret", "id=token,src=token"]);
    let build = build.args(&["--secret", "id=variable,env=V"]).env("V", "from the environment");
    build.outcome().succeeds();
    assert_eq!(
        test.run("app", "ls -A /work /run 2>&1 || true"),
        "ls: /run: No such file or directory\n/work:\n"
    );
}

#[test]
fn a_secret_can_belong_to_a_user() {
    let Some(test) = TestEnvironment::with_base() else { return };
    test.write("token", VALUE);
    let context = test.dockerfile(
        "FROM busybox\nUSER 42:43\nRUN --mount=type=secret,id=token,uid=42,gid=43,mode=0400 cat /run/secrets/token >/dev/null\n",
    );
    test.build(&context, &["--secret", "id=token,src=token"]).succeeds();
}

#[test]
fn another_value_is_no_other_build() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile(
        "FROM busybox\nRUN --mount=type=secret,id=token,env=T --mount=type=secret,id=token wc -c </run/secrets/token >/size\n",
    );
    let build = |value: &str| {
        let build = test.build_command(&context, &["--secret", "id=token,env=V"]).env("V", value);
        build.outcome().succeeds().ran().len()
    };
    assert_eq!((build("one"), build("eleven")), (1, 0));
    assert!(test.build(&context, &[]).succeeds().ran().is_empty());
}

#[test]
fn what_cannot_be_given_is_said() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let cases = [
        ("--mount=type=secret,id=token,required true", "secret token: not found"),
        ("--mount=type=secret,id=token,required,env=T true", "secret token: not found"),
        ("--mount=type=secret,id=binary,env=T true", "secret `binary` cannot be an environment variable"),
    ];
    test.write("binary", [0xff, 0xfe]);
    for (run, expected) in cases {
        let context = test.dockerfile(&format!("FROM busybox\nRUN {run}\n"));
        test.build(&context, &["--secret", "id=binary,src=binary"]).exits(2).says(&[expected, "RUN --mount"]);
    }
    let context = test.dockerfile("FROM busybox\n");
    test.build(&context, &["--secret", "id=x,src=nosuch"]).exits(2).says(&["secret `x` from `nosuch`"]);
    test.build(&context, &["--secret", "x"]).exits(2).says(&["invalid --secret `x`", "must be `key=value`"]);
    test.write("big", vec![b'x'; 512 * 1024]);
    test.build(&context, &["--secret", "id=x,src=big"]).exits(2).says(&["`x` is too big"]);
}

#[test]
fn the_store_never_holds_a_secret() {
    let Some(test) = TestEnvironment::with_base() else { return };
    test.write("outside", VALUE);
    let mounts = "--mount=type=secret,id=s --mount=type=secret,id=s,env=S --mount=type=cache,target=/cache";
    let used = "cat /run/secrets/s >/dev/null; test ${#S} -gt 9";
    let context = test.dockerfile(&format!("FROM busybox\nRUN {mounts} {used} && touch /made\n"));
    let arguments = ["-t", "app", "--secret", "id=s,src=outside", "--metadata-file", "metadata.json"];
    test.build(&context, &arguments).succeeds().says_nothing_of(&[VALUE]);
    assert_nowhere(&test);

    context.dockerfile(&format!("FROM busybox\nRUN {mounts} {used}; false\n"));
    test.build(&context, &arguments).exits(1).says_nothing_of(&[VALUE]);
    assert_nowhere(&test);

    context.dockerfile(&format!("FROM busybox\nRUN {mounts} {used}; printf 'star%s\\n' ted; sleep 100000\n"));
    let mut build = test.build_command(&context, &arguments).start();
    build.wait_for("started");
    assert_nowhere(&test);
    build.signal(Signal::SIGKILL);
    build.finish().exits(137).says_nothing_of(&[VALUE]);
    assert_nowhere(&test);
    test.assert_sound();
}

#[track_caller]
fn assert_nowhere(test: &TestEnvironment) {
    assert!(holders(test.store()) == ["nothing"; 0], "{:?}", holders(test.store()));
    assert!(test.path("metadata.json").exists() && !test.read("metadata.json").contains(VALUE));
    // It does find what is there.
    assert!(holders(test.path("").as_path()).iter().any(|path| path.ends_with("outside")));
}

/// The files below a directory, by name or content, that hold the value.
fn holders(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.path().display().to_string());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(holders(&path));
        } else if kind.is_file() {
            let bytes = match fs::read(&path) {
                // Files come and go while a build runs.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                read => read.unwrap_or_else(|error| panic!("{name}: {error}")),
            };
            // The history of builds is compressed.
            let bytes = zstd::decode_all(bytes.as_slice()).unwrap_or(bytes);
            if name.contains(VALUE) || bytes.windows(VALUE.len()).any(|window| window == VALUE.as_bytes()) {
                found.push(name);
            }
        }
    }
    found
}
