//! Whom a shared cache is believed for.

use std::fs;
use std::path::{Path, PathBuf};

use rbuild_registry::testing::FakeRegistry;

use super::{STEPS, another, machine, names, records};
use crate::common::{Context, Outcome, TestEnvironment};

const KEYS: [(&str, &str); 2] = [
    (
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINYi9dDK0znhEaERpfa/n6q4zPK1QSLv0rMVViwVnauj\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAN2IF90DZ5k/YjQI+zJqe9+QhV6iuQzGxlvBVClPK4gE=\n-----END PUBLIC KEY-----\n",
    ),
    (
        "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIGP5W3S3GiNi+jKCr8I3tKZ2gj6nRYLqk5u0dPqOYdcr\n-----END PRIVATE KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA0VNoqNK4N/CO1nuqLTJoRRV+OX3ovL5FYrCYSH6Rt/Q=\n-----END PUBLIC KEY-----\n",
    ),
];

/// A company, its cache in a directory, and the two keys of its machines.
struct Company {
    test: TestEnvironment,
    context: Context,
    directory: PathBuf,
    machines: usize,
    _registry: FakeRegistry,
}

impl Company {
    fn new() -> Option<Self> {
        let (test, context, registry) = machine()?;
        for (number, (private, public)) in KEYS.iter().enumerate() {
            test.write(&format!("{number}.pem"), private);
            test.write(&format!("{number}.pub"), public);
        }
        let directory = test.path("cache");
        Some(Self { test, context, directory, machines: 0, _registry: registry })
    }

    /// A build on a machine that has nothing yet, with this config.
    #[track_caller]
    fn builds(&mut self, config: &str) -> Outcome {
        self.machines += 1;
        another(&mut self.test, &format!("machine {}", self.machines));
        let directory = self.test.path("config/rbuild");
        fs::create_dir_all(&directory).unwrap();
        let shared = format!("[cache]\nshared = \"type=local,path={}\"\n", self.directory.display());
        let config = config.replace("KEYS", self.test.path("").to_str().unwrap());
        fs::write(directory.join("rbuild.toml"), shared + &config).unwrap();
        let build = self.test.build_command(&self.context, &["-t", "app"]);
        let outcome = build.env("XDG_CONFIG_HOME", self.test.path("config")).outcome().succeeds();
        assert_eq!(self.test.run("app", "cat /all"), "one\ntool\nfile\n");
        outcome
    }
}

const SIGNS: &str = "sign-key = \"KEYS/0.pem\"\n";
const REQUIRES: &str = "require-signed-by = [\"KEYS/0.pub\"]\n";

#[test]
fn what_nobody_believed_signed_is_as_if_it_were_not_there() {
    let Some(mut company) = Company::new() else { return };
    assert_eq!(company.builds("").ran().len(), STEPS.len());
    let ran = company.builds(REQUIRES).says(&["were not used: none of `require-signed-by` signed them"]);
    assert_eq!(names(&ran.ran()), names(&STEPS));
    assert_eq!(ran.stderr.matches("warning").count(), 1, "said once: {}", ran.stderr);
    // Who does not sign cannot make it believed; who signs does, and others read it.
    assert_eq!(company.builds(REQUIRES).ran().len(), STEPS.len());
    assert_eq!(company.builds(&format!("{SIGNS}{REQUIRES}")).ran().len(), STEPS.len());
    assert_eq!(company.builds(REQUIRES).says_nothing_of(&["warning"]).ran(), [""; 0]);
    assert_eq!(company.builds("").ran(), [""; 0]);
    let others = "require-signed-by = [\"KEYS/1.pub\"]\n";
    assert_eq!(company.builds(others).ran().len(), STEPS.len());
    assert_eq!(company.builds("require-signed-by = [\"KEYS/1.pub\", \"KEYS/0.pub\"]\n").ran(), [""; 0]);
}

/// The record of the step that the attacker is after.
fn victim(directory: &Path) -> PathBuf {
    let is_it = |file: &PathBuf| fs::read_to_string(file).unwrap().contains("RUN cat /one");
    records(directory, "key-").into_iter().find(is_it).unwrap()
}

/// What somebody does to a cache's directory.
type Attack = fn(&Path);

#[test]
fn planted_altered_and_replayed_records_are_not_believed() {
    let attacks: [(&str, Attack); 3] = [
        ("planted, with another key", |directory| {
            let record = fs::read_to_string(victim(directory)).unwrap();
            let (before, rest) = record.split_once("cache.signature\":\"").unwrap();
            let after = rest.split_once('"').unwrap().1;
            let planted = format!("{before}cache.signature\":\"{}\"{after}", "A".repeat(86) + "==");
            fs::write(victim(directory), planted).unwrap();
        }),
        ("altered: the layers of another step", |directory| {
            let record = fs::read_to_string(victim(directory)).unwrap();
            fs::write(victim(directory), record.replace("[[0,1", "[[1,0")).unwrap();
        }),
        ("replayed: another step's signed record under this key", |directory| {
            let victim = victim(directory);
            let other = records(directory, "key-").into_iter().find(|file| *file != victim).unwrap();
            let name = |file: &Path| file.file_name().unwrap().to_str().unwrap().replace("key-", "");
            let replayed = fs::read_to_string(&other).unwrap().replace(&name(&other), &name(&victim));
            fs::write(victim, replayed).unwrap();
        }),
    ];
    for (name, attack) in attacks {
        let Some(mut company) = Company::new() else { return };
        company.builds(&format!("{SIGNS}{REQUIRES}"));
        attack(&company.directory);
        let ran = company.builds(REQUIRES).says(&["1 records of the shared cache"]);
        assert_eq!(ran.ran(), [STEPS[4]], "{name}");
        // Who has the key puts it right.
        assert_eq!(company.builds(&format!("{SIGNS}{REQUIRES}")).ran(), [STEPS[4]], "{name}");
        assert_eq!(company.builds(REQUIRES).says_nothing_of(&["warning"]).ran(), [""; 0], "{name}");
    }
}

#[test]
fn keys_that_cannot_be_read_stop_a_build() {
    let Some(company) = Company::new() else { return };
    for (config, expected) in [
        ("sign-key = \"nosuch.pem\"", "nosuch.pem"),
        ("sign-key = \"0.pub\"", "failed to read the key `0.pub`"),
        ("require-signed-by = [\"0.pem\"]", "failed to read the key `0.pem`"),
        ("require-signed-by = [\"ssh-ed25519 AAAA\"]", "it holds no Ed25519 key"),
    ] {
        company.test.write("config.toml", "");
        let directory = company.test.path("config/rbuild");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("rbuild.toml"), format!("[cache]\n{config}\n")).unwrap();
        let build = company.test.build_command(&company.context, &[]);
        let outcome = build.env("XDG_CONFIG_HOME", company.test.path("config")).outcome();
        outcome.exits(2).says(&[expected]);
    }
}
