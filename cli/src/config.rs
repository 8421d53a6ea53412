//! The config file: `$XDG_CONFIG_HOME/rbuild/rbuild.toml`, or else `/etc/rbuild/rbuild.toml`.
//!
//! ```toml
//! [cache]
//! size = "20GB"
//! shared = "type=registry,ref=registry.example/team/cache"
//! sign-key = "/etc/rbuild/cache.pem"                             # `openssl genpkey -algorithm ed25519`
//! require-signed-by = ["/etc/rbuild/ci.pub", "ssh-ed25519 AAAA…"]
//!
//! [registry."registry.example:5000"]
//! ca = "/etc/rbuild/registry.pem"        # also client-cert and client-key, plain-http = true, insecure = true
//! mirrors = ["mirror.example/path"]      # asked before it, in this order
//!
//! [security]
//! options = ["seccomp=/etc/rbuild/seccomp.json"]
//! isolation = "user"
//! trust-ca = ["/etc/rbuild/company.pem"]
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::args::{IsolationArg, LayersArg};
use crate::commands::io_failure;
use crate::registry_hosts::RegistryConfig;
use crate::report::{Failure, Kind};

/// What the file says. A key that is not known is an error: it is a slip, or of another version.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// What holds for the cache.
    #[serde(default)]
    pub(crate) cache: CacheConfig,
    /// What holds for the store.
    #[serde(default)]
    pub(crate) store: StoreConfig,
    /// What holds the processes of steps and containers.
    #[serde(default)]
    pub(crate) security: SecurityConfig,
    /// What holds for single registries, by `HOST[:PORT]`.
    #[serde(default)]
    pub(crate) registry: BTreeMap<String, RegistryConfig>,
}

/// What holds the processes of steps and containers.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct SecurityConfig {
    /// What `--security-opt` takes, before what is on the command line.
    #[serde(default)]
    pub(crate) options: Vec<String>,
    /// What `--trust-ca` takes, before what is on the command line.
    #[serde(default)]
    pub(crate) trust_ca: Vec<PathBuf>,
    /// What `--isolation` takes.
    pub(crate) isolation: Option<IsolationArg>,
}

/// What holds for the store.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoreConfig {
    /// In which form copies of directories are kept.
    pub(crate) layers: Option<LayersArg>,
    /// Into parts of what size the archives of large layers are cut, 0 for not at all.
    #[serde(rename = "part-size")]
    pub(crate) part_size: Option<String>,
}

/// What holds for the cache.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct CacheConfig {
    /// How much it may take, as `--cache-size` takes it.
    pub(crate) size: Option<String>,
    /// A cache shared with other machines, as `--cache-from` and `--cache-to` take it: every build that says nothing else of
    /// shared caches reads it before and writes all of its steps to it after.
    pub(crate) shared: Option<String>,
    /// The private key that what is written to shared caches is signed with.
    pub(crate) sign_key: Option<PathBuf>,
    /// Public keys, or the files they are in: what none of them signed is as if it were not in a shared cache.
    #[serde(default)]
    pub(crate) require_signed_by: Vec<String>,
}

impl Config {
    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read, or is not what it should be.
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path).map_err(io_failure("read", path))?;
        Self::parse(&text).map_err(|error| {
            Failure::new(Kind::Input, format!("failed to read `{}`: {}", path.display(), error.message()))
        })
    }

    fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_refused() {
        assert_eq!(Config::parse("").unwrap().cache.size, None);
        assert_eq!(Config::parse("[cache]\nsize = \"1GB\"\n").unwrap().cache.size.as_deref(), Some("1GB"));
        for text in ["x = 1", "[cache]\nsise = \"1GB\"", "[cache]\nsize = 1", "["] {
            assert!(Config::parse(text).is_err(), "{text}");
        }
    }
}
