//! The whole way that a person goes on the first day: build, look, run, ask, go in, keep, carry away, fetch back, clear up.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use nix::pty::openpty;

use super::networks::get;
use super::{clean_up, printed, rbuild};
use crate::common::TestEnvironment;

const DOCKERFILE: &str = "FROM busybox
WORKDIR /www
COPY index.html .
EXPOSE 8000
CMD [\"httpd\", \"-f\", \"-p\", \"8000\", \"-h\", \"/www\"]
";

/// What a command shows that is run at a terminal, where `keys` are typed.
fn at_a_terminal(test: &TestEnvironment, arguments: &[&str], keys: &str) -> String {
    let pty = openpty(None, None).unwrap();
    let end = || pty.slave.try_clone().unwrap();
    let mut child = test.rbuild(arguments).start_on(end(), end(), end());
    drop(pty.slave);
    let mut user = File::from(pty.master);
    user.write_all(keys.as_bytes()).unwrap();
    let (mut shown, mut buffer) = (Vec::new(), [0; 4096]);
    // The other side of a terminal whose last user has gone is an error, not an end.
    while let Ok(count) = user.read(&mut buffer) {
        shown.extend_from_slice(&buffer[..count]);
    }
    assert!(child.wait().unwrap().success());
    String::from_utf8(shown).unwrap()
}

#[test]
fn the_first_day() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.context("hellogin", &[("Dockerfile", DOCKERFILE), ("index.html", "hello, gin\n")]);
    test.build(&context, &["-t", "hellogin:1"]).succeeds();
    assert!(printed(&test, &["images", "-a"]).contains("hellogin"));
    assert!(printed(&test, &["history", "hellogin:1"]).contains("COPY index.html"));

    let port = TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port().to_string();
    let published = format!("{port}:8000");
    printed(&test, &["run", "--name", "gin", "-d", "-p", &published, "hellogin:1"]);
    assert!(get(&port).ends_with("hello, gin\n"));
    assert!(printed(&test, &["ps"]).contains(&format!("0.0.0.0:{port}->8000/tcp")));
    let shown =
        at_a_terminal(&test, &["exec", "-it", "gin", "sh"], "echo hello, $((40+2)) >index.html; tty; exit\n");
    assert!(shown.contains("/dev/pts/0"), "{shown}");
    assert!(get(&port).ends_with("hello, 42\n"));

    printed(&test, &["commit", "-m", "the answer", "gin", "hellogin:2"]);
    clean_up(&test, &["gin"]);
    printed(&test, &["save", "-o", "both.tar", "hellogin:1", "hellogin:2"]);
    printed(&test, &["rmi", "hellogin:1", "hellogin:2"]);
    assert!(!printed(&test, &["images"]).contains("hellogin"));
    printed(&test, &["load", "-i", "both.tar"]);
    for (image, page) in [("hellogin:1", "hello, gin\n"), ("hellogin:2", "hello, 42\n")] {
        assert_eq!(
            rbuild(&test, &["run", "--rm", "--network", "none", image, "cat", "index.html"])
                .succeeds()
                .stdout,
            page
        );
    }
    printed(&test, &["rmi", "hellogin:1", "hellogin:2"]);
    printed(&test, &["system", "prune", "-f"]);
    assert_eq!(printed(&test, &["ps", "-aq"]), "");
    test.assert_sound();
}
