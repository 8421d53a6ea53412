//! Azure's storage, as Azurite has it: the stand-in of those who make the service, installed by `scripts/test.sh`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use crate::common::{TestEnvironment, skip};

/// The account that every Azurite has, and its key, which everybody knows.
const ACCOUNT: &str = "devstoreaccount1";
const KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const CONTAINER: &str = "cache";

/// Azurite in a process of its own, with one container; ended when dropped.
pub(super) struct Azurite {
    child: Child,
    url: String,
}

impl Drop for Azurite {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Azurite {
    /// Starts one that keeps its data in the test's directory. `None`, said aloud, where there is none.
    pub(super) fn start(test: &TestEnvironment) -> Option<Self> {
        let mut azurite = command("azurite-blob");
        azurite.args(["--blobHost", "127.0.0.1", "--blobPort", "0", "--location"]).arg(test.path("azurite"));
        let mut child = match azurite.stdout(Stdio::piped()).stderr(Stdio::null()).spawn() {
            Ok(child) => child,
            Err(error) => {
                skip(&format!("`azurite-blob` cannot be started: {error}"));
                return None;
            }
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| Some(line.unwrap().split_once("listens on ")?.1.to_owned()));
        let url = format!("{}/{ACCOUNT}", address.expect("Azurite listens"));
        std::thread::spawn(move || lines.for_each(drop));
        let azurite = Self { child, url };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/azure/container.mjs");
        let made = command("node").args([script, &azurite.url, CONTAINER, ACCOUNT, KEY]).output();
        let made = made.unwrap_or_else(|error| panic!("node: {error}"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Some(azurite)
    }

    /// It as a word of the command line.
    pub(super) fn cache(&self) -> String {
        format!(
            "type=azblob,account_url={},account_name={ACCOUNT},name={CONTAINER},prefix=team,secret_access_key={KEY}",
            self.url
        )
    }
}

#[expect(clippy::disallowed_methods, reason = "Azurite is a program of node's")]
fn command(program: &str) -> Command {
    Command::new(program)
}
