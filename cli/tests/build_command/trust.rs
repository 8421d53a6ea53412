//! `--trust-ca`: an authority of one's own, for whoever reads the variables that name a bundle, and nothing of it in the image.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::common::{Context, TestEnvironment, copy_program, is_root, skip};

/// Fails unless it trusts who answers.
const ASK: &str = "openssl s_client -verify_return_error -connect";

/// A web server on the loopback interface whose certificate nobody signed but itself.
struct Server {
    process: Child,
    /// Its other end is its standard input, without which it ends.
    address: String,
    _output: BufReader<ChildStdout>,
}

impl Server {
    /// Its certificate is `ca.pem`. `None`, said aloud, where there is no openssl.
    fn start(test: &TestEnvironment) -> Option<Self> {
        let key = "req -x509 -nodes -days 2 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -subj /CN=test \
                   -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out ca.pem";
        match openssl(test).args(key.split_whitespace()).output() {
            Ok(made) => assert!(made.status.success()),
            Err(error) => {
                skip(&format!("`openssl` cannot be run: {error}"));
                return None;
            }
        }
        let serve = ["s_server", "-accept", "127.0.0.1:0", "-www", "-cert", "ca.pem", "-key", "key.pem"];
        let mut process =
            openssl(test).args(serve).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("ACCEPT ") {
            line.clear();
            assert!(output.read_line(&mut line).unwrap() > 0, "no server");
        }
        Some(Self { process, address: line["ACCEPT ".len()..].trim().to_owned(), _output: output })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

#[expect(clippy::disallowed_methods, reason = "no crate of ours serves TLS")]
fn openssl(test: &TestEnvironment) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(test.path("")).stderr(Stdio::null());
    command
}

/// `FROM client` is busybox with the machine's openssl.
fn make_client(test: &TestEnvironment, options: &[&str]) {
    let context = test.context("client", &[("Dockerfile", "FROM busybox\nCOPY root /\n")]);
    copy_program("/usr/bin/openssl", &context.path.join("root"));
    build_with(test, &context, options, &["-t", "client"]).succeeds();
}

fn build_with(
    test: &TestEnvironment,
    context: &Context,
    options: &[&str],
    arguments: &[&str],
) -> crate::common::Outcome {
    let build = ["build", context.path.to_str().unwrap(), "--network", "host"];
    test.rbuild(options).args(&build).args(arguments).outcome()
}

/// Steps, containers and further processes ask a server, and trust it only where they are told to.
fn trusts_what_it_is_told_to(test: &TestEnvironment, options: &[&str], has_containers: bool) {
    let Some(server) = Server::start(test) else { return };
    make_client(test, options);
    let asks = format!("{ASK} {} </dev/null", server.address);
    let context = test.dockerfile(&format!("FROM client\nRUN {asks}\nRUN ! test -e /dev/rbuild-ca.pem\n"));
    build_with(test, &context, options, &[]).exits(1).says(&["self-signed certificate"]);
    let context = test.dockerfile(&format!("FROM client\nUSER nobody\nRUN {asks} && test -r $APT_CONFIG\n"));
    build_with(test, &context, options, &["--trust-ca", "ca.pem"]).succeeds();
    if !has_containers {
        return;
    }
    let run = |arguments: &[&str]| test.rbuild(options).args(arguments).outcome();
    run(&["run", "--rm", "--network", "host", "client", "sh", "-c", &asks]).exits(1);
    let stays = ["--name", "asker", "--network", "host", "--trust-ca", "ca.pem", "client", "sleep", "1000"];
    run(&[&["run", "-d"], &stays[..]].concat()).succeeds();
    run(&["exec", "asker", "sh", "-c", &asks]).succeeds();
    run(&["rm", "-f", "asker"]).succeeds();
}

#[test]
fn a_server_is_trusted_by_steps_and_containers() {
    let Some(test) = TestEnvironment::with_base() else { return };
    trusts_what_it_is_told_to(&test, &[], true);
}

#[test]
fn a_server_is_trusted_without_namespaces() {
    if !is_root("isolation without a user namespace") {
        return;
    }
    let (test, options) = (TestEnvironment::new(), ["--isolation", "chroot"]);
    if test.import_base_with(&options) {
        trusts_what_it_is_told_to(&test, &options, false);
    }
}

/// A certificate that is whole, as far as anybody looks at it here.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";

#[test]
fn nothing_of_it_is_in_keys_layers_and_configs() {
    let Some(test) = TestEnvironment::with_base() else { return };
    test.write("ca.pem", CERTIFICATE);
    let context = test.dockerfile("FROM busybox\nRUN env | sort >/dev/null; ls -A / /etc >/list\nRUN true\n");
    let built = |arguments: &[&str]| {
        let outcome = test.build(&context, &[&["-t", "app"], arguments].concat()).succeeds();
        let inspected = test.inspect("app");
        (inspected["RootFS"].clone(), inspected["Config"].clone(), outcome.cached().len())
    };
    let without = built(&[]);
    let cached = built(&["--trust-ca", "ca.pem"]);
    assert_eq!(cached, (without.0.clone(), without.1.clone(), 2));
    let anew = built(&["--trust-ca", "ca.pem", "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=0"]);
    let plain = built(&["--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=0"]);
    assert_eq!((anew.0, anew.1), (plain.0, plain.1));
}

#[test]
fn the_image_s_own_come_first_and_what_a_step_sets_stays() {
    let Some(test) = TestEnvironment::with_base() else { return };
    test.write("ca.pem", format!("# of the company\n{CERTIFICATE}"));
    test.write("home/.config/rbuild/rbuild.toml", "[security]\ntrust-ca = [\"ca.pem\"]\n");
    let context = test.dockerfile(
        "FROM busybox
RUN mkdir -p /etc/ssl/certs && echo image >/etc/ssl/certs/ca-certificates.crt
ENV PIP_CERT=/mine
RUN cp $SSL_CERT_FILE /bundle && echo $PIP_CERT >/pip && cp $APT_CONFIG /apt
RUN mv /bundle /etc/ssl/certs/ca-certificates.crt && CURL_CA_BUNDLE=/x sh -c 'echo $CURL_CA_BUNDLE' >/curl
",
    );
    let tree = test.build_tree(&context, &[]);
    assert_eq!(tree.text("etc/ssl/certs/ca-certificates.crt"), format!("image\n\n{CERTIFICATE}"));
    assert_eq!((tree.text("pip"), tree.text("curl")), ("/mine\n", "/x\n"));
    assert_eq!(tree.text("apt"), "Acquire::https::CAInfo \"/dev/rbuild-ca.pem\";\n");
}

#[test]
fn what_is_no_certificate_is_refused() {
    let Some(test) = TestEnvironment::with_base() else { return };
    let context = test.dockerfile("FROM busybox\n");
    test.write(
        "key.pem",
        format!("{CERTIFICATE}-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"),
    );
    test.write("cut.pem", &CERTIFICATE[..40]);
    test.write("der", [0x30, 0x82]);
    let cases = [
        ("key.pem", "line 4: `PRIVATE KEY` is no certificate"),
        ("cut.pem", "line 1: the certificate that begins here is damaged"),
        ("der", "no certificate in PEM"),
        ("Dockerfile", "no certificate in PEM"),
        ("nowhere", "No such file"),
    ];
    fs::copy(Path::new(&context.path).join("Dockerfile"), test.path("Dockerfile")).unwrap();
    for (file, complaint) in cases {
        test.build(&context, &["--trust-ca", file]).exits(2).says(&[file, complaint]);
        test.rbuild(&["create", "--trust-ca", file, "busybox"]).outcome().exits(2).says(&[complaint]);
    }
}
