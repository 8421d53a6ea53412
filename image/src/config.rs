//! The image config: how to run the image, what its layers are, and where they came from.
//!
//! The OCI fields and the Docker additions (docker-image-spec 1.3) that Dockerfiles write and base images
//! hand down. Fields that rbuild does not know are carried in `extra`, so that a base image's config loses nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use crate::manifest::{ManifestError, parse};
use crate::{DiffId, Platform};

/// An image config document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it (`MAINTAINER`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// What it runs on.
    #[serde(flatten)]
    pub platform: Platform,
    /// How to run it. `null` in some old images.
    #[serde(default, deserialize_with = "null_is_default")]
    pub config: ContainerConfig,
    /// The layers, bottom first.
    #[serde(default)]
    pub rootfs: RootFs,
    /// One entry for each instruction; the entries that are not `empty_layer` are as many as the layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub history: Vec<History>,
    /// What rbuild does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ImageConfig {
    /// A config without layers for `platform`.
    pub fn new(platform: Platform) -> Self {
        Self {
            created: None,
            author: None,
            platform,
            config: ContainerConfig::default(),
            rootfs: RootFs::default(),
            history: Vec::new(),
            extra: Map::new(),
        }
    }

    /// Reads a config.
    ///
    /// # Errors
    /// When the bytes are not an image config.
    pub fn parse(bytes: &[u8]) -> Result<Self, ManifestError> {
        parse(bytes, "image config")
    }

    /// The bytes of a config that rbuild made.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an image config has no map with non-string keys")
    }
}

/// How to run a container of the image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerConfig {
    /// `user[:group]`, by name or number; empty for root.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `80/tcp` and the like.
    #[serde(with = "set_of_keys", skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<String>,
    /// `NAME=value`, in order, names unique.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub env: Vec<String>,
    /// What precedes [`cmd`](Self::cmd) on the command line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// The default command or, with an entrypoint, its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// Paths that a runtime backs with volumes.
    #[serde(with = "set_of_keys", skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    /// The directory a container starts in, as written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Free-form facts.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_default")]
    pub labels: BTreeMap<String, String>,
    /// The signal that `stop` sends, as written.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Docker: a command that tells whether the container is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Docker: instructions for the builds on top of this image.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_default")]
    pub on_build: Vec<String>,
    /// Docker: what shell-form instructions are run with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
    /// Docker: always set beside a `CMD`, of meaning on Windows only.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// What rbuild does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ContainerConfig {
    /// The value of an environment variable.
    pub fn env_get(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value))
    }

    /// Sets an environment variable: in place when it is there, at the end otherwise.
    pub fn env_set(&mut self, name: &str, value: &str) {
        let pair = format!("{name}={value}");
        let same = |pair: &&mut String| pair.split_once('=').is_some_and(|(key, _)| key == name);
        match self.env.iter_mut().find(same) {
            Some(slot) => *slot = pair,
            None => self.env.push(pair),
        }
    }
}

/// A health check, durations in nanoseconds; zero is "inherit, or the runtime's default".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", args…]` or `["CMD-SHELL", command]`; empty inherits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Time between two checks.
    #[serde(rename = "Interval", skip_serializing_if = "is_zero")]
    pub interval_ns: i64,
    /// How long one check may take.
    #[serde(rename = "Timeout", skip_serializing_if = "is_zero")]
    pub timeout_ns: i64,
    /// How long failures do not count after the start.
    #[serde(rename = "StartPeriod", skip_serializing_if = "is_zero")]
    pub start_period_ns: i64,
    /// Time between two checks during the start period.
    #[serde(rename = "StartInterval", skip_serializing_if = "is_zero")]
    pub start_interval_ns: i64,
    /// Consecutive failures that make a container unhealthy.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde asks for")]
const fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// The layers of an image, by the digests of their uncompressed tars, bottom first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The layers, bottom first.
    #[serde(deserialize_with = "null_is_default")]
    pub diff_ids: Vec<DiffId>,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new() }
    }
}

/// What one instruction did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// When, RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction, in the form that `docker history` shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Which builder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether the instruction made no layer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

pub(crate) fn null_is_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Go writes a set as a map from key to the empty object.
mod set_of_keys {
    use super::{BTreeMap, BTreeSet, Deserialize, Deserializer, Map, Serializer, Value};

    pub(super) fn serialize<S: Serializer>(set: &BTreeSet<String>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(set.iter().map(|key| (key, Map::<String, Value>::new())))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<String>, D::Error> {
        let map = Option::<BTreeMap<String, Value>>::deserialize(deserializer)?;
        Ok(map.unwrap_or_default().into_keys().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: &str = r#"{
        "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
        "docker_version": "28.0.0", "container": "abc",
        "config": {
            "User": "app", "ExposedPorts": {"80/tcp": {}}, "Env": ["PATH=/bin", "A=b=c"], "Cmd": ["sh"],
            "Entrypoint": null, "Volumes": null, "Labels": null, "WorkingDir": "/srv", "OnBuild": ["RUN x"],
            "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 1000000000}, "Shell": ["/bin/bash", "-c"],
            "ArgsEscaped": true, "Domainname": "kept"
        },
        "rootfs": {"type": "layers", "diff_ids": ["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
        "history": [{"created_by": "COPY", "comment": "buildkit.dockerfile.v0"}, {"empty_layer": true}]
    }"#;

    #[test]
    fn nothing_of_a_docker_config_is_lost() {
        let config = ImageConfig::parse(DOCKER.as_bytes()).unwrap();
        assert_eq!(config.extra["docker_version"], "28.0.0");
        assert_eq!(config.config.extra["Domainname"], "kept");
        assert_eq!(config.config.healthcheck.as_ref().unwrap().interval_ns, 1_000_000_000);
        assert_eq!(config.config.on_build, ["RUN x"]);
        let again: Value = serde_json::from_slice(&config.to_bytes()).unwrap();
        let mut expected: Value = serde_json::from_str(DOCKER).unwrap();
        let section = expected["config"].as_object_mut().unwrap();
        section.retain(|_, value| !value.is_null());
        assert_eq!(again, expected);
    }

    #[test]
    fn a_null_config_is_an_empty_one() {
        let config =
            ImageConfig::parse(br#"{"architecture":"arm64","os":"linux","config":null,"history":null}"#)
                .unwrap();
        assert_eq!(config.config, ContainerConfig::default());
    }

    #[test]
    fn env_is_set_in_place() {
        let mut config = ContainerConfig { env: vec!["A=1".into(), "B=2".into()], ..Default::default() };
        config.env_set("A", "x=y");
        config.env_set("C", "");
        assert_eq!(config.env, ["A=x=y", "B=2", "C="]);
        assert_eq!(config.env_get("A"), Some("x=y"));
        assert_eq!(config.env_get("D"), None);
    }
}
