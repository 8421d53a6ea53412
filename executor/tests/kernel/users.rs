//! Whom a process runs as.

use std::fs;

use rbuild_executor::{Error, user};

use super::fixture::{Fixture, succeeded};

pub(crate) fn names_and_numbers(fixture: &Fixture) {
    let cases = [
        ("", "0 0 0 10 /root"),
        ("root", "0 0 0 10 /root"),
        ("ada", "1234 2345 2345 10 50 /home/ada"),
        ("1234", "1234 2345 2345 10 50 /home/ada"),
        ("ada:staff", "1234 50 50 /home/ada"),
        ("12:34", "12 34 34 /"),
        ("77", "77 0 0 /"),
    ];
    for (user, expected) in cases.into_iter().take(if fixture.has_ids() { usize::MAX } else { 2 }) {
        let mut container = fixture.shell("echo $(id -u) $(id -g) $(id -G) $HOME");
        container.process.user = user.to_owned();
        let output = succeeded(fixture.run(container));
        // Without a range of ids there are no groups to be in; those of the caller show as the overflow id.
        if fixture.has_ids() {
            assert_eq!(output.trim(), expected, "{user}");
        } else {
            assert!(output.starts_with("0 0 0") && output.ends_with("/root\n"), "{output}");
        }
    }
    if !fixture.has_ids() {
        let mut container = fixture.container(&["true"]);
        container.process.user = "12:34".to_owned();
        let error = fixture.try_run(container).unwrap_err();
        assert!(error.to_string().starts_with("failed to become group 34"), "{error}");
    }
}

pub(crate) fn unknown_names(fixture: &Fixture) {
    let mut container = fixture.container(&["true"]);
    container.process.user = "nosuch".to_owned();
    let error = fixture.try_run(container).unwrap_err();
    assert_eq!(error.to_string(), "unable to find user nosuch: no matching entries in passwd file");
    let mut container = fixture.container(&["true"]);
    container.process.user = "root:nosuch".to_owned();
    assert!(matches!(
        fixture.try_run(container).unwrap_err(),
        Error::User(user::Error::UnknownGroup(group)) if group == "nosuch"
    ));
}

pub(crate) fn standard_output_can_be_reopened(fixture: &Fixture) {
    let mut container = fixture.shell("echo out >/dev/stdout; echo err >/dev/stderr");
    if fixture.has_ids() {
        container.process.user = "ada".to_owned();
    }
    let output = fixture.run(container);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("out\n", "err\n"));
}

pub(crate) fn broken_user_files(fixture: &Fixture) {
    let passwd = fixture.root().join("etc/passwd");
    let saved = fs::read(&passwd).unwrap();
    fs::remove_file(&passwd).unwrap();
    assert_eq!(fixture.sh("echo $HOME"), "/\n");
    fs::create_dir(&passwd).unwrap();
    let error = fixture.try_run(fixture.container(&["true"])).unwrap_err();
    assert!(matches!(error, Error::User(user::Error::BadFile(_))), "{error:?}");
    fs::remove_dir(&passwd).unwrap();
    // A link that leads out of the root finds nothing there.
    std::os::unix::fs::symlink("../../../../../../../../etc/passwd", &passwd).unwrap();
    fixture.try_run(fixture.container(&["true"])).unwrap_err();
    fs::remove_file(&passwd).unwrap();
    fs::write(&passwd, saved).unwrap();
}
