//! What is said of single registries: certificates where Docker and Podman look for them, and `rbuild.toml`.
//!
//! ```text
//! /etc/docker/certs.d/HOST[:PORT]/*.crt           authorities that are trusted for the registry
//! /etc/docker/certs.d/HOST[:PORT]/NAME.cert, .key what proves to it who asks
//! ```
//!
//! and the same below `/etc/containers` and `~/.config/containers`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rbuild_registry::{HostTls, Mirror, Secret, Security};
use serde::Deserialize;

/// `[registry."HOST[:PORT]"]` of the config file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct RegistryConfig {
    /// It speaks plain HTTP.
    #[serde(default)]
    plain_http: bool,
    /// Its certificate is not looked at; without TLS, plain HTTP.
    #[serde(default)]
    insecure: bool,
    /// `HOST[:PORT][/PATH]` of places that are asked before it.
    #[serde(default)]
    mirrors: Vec<String>,
    /// A PEM file of authorities that are trusted for it.
    ca: Option<PathBuf>,
    /// PEM files that prove to it who asks.
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
}

impl RegistryConfig {
    /// How to speak to it, where that is said.
    pub(crate) const fn security(&self) -> Option<Security> {
        match (self.plain_http, self.insecure) {
            (true, _) => Some(Security::Plain),
            (false, true) => Some(Security::Unverified),
            (false, false) => None,
        }
    }

    /// What is asked before it, where that is said.
    pub(crate) fn mirrors(&self) -> Option<Vec<Mirror>> {
        let mirror = |location: &String| Mirror { location: location.clone(), by_digest_only: false };
        Some(self.mirrors.iter().map(mirror).collect()).filter(|mirrors: &Vec<_>| !mirrors.is_empty())
    }

    /// Adds what it says of the registry's TLS. A file that cannot be read is as good as none: the connection says the rest.
    fn tell(&self, tls: &mut HostTls) {
        tls.authorities.extend(self.ca.as_ref().and_then(|path| fs::read(path).ok()));
        if let (Some(certificate), Some(key)) = (&self.client_cert, &self.client_key) {
            tls.identity = identity(certificate, key).or(tls.identity.take());
        }
    }
}

/// The TLS of all registries of which something is said.
pub(crate) fn tls(
    directories: &[PathBuf],
    configured: &BTreeMap<String, RegistryConfig>,
) -> BTreeMap<String, HostTls> {
    let mut all: BTreeMap<String, HostTls> = BTreeMap::new();
    for directory in directories {
        let hosts = fs::read_dir(directory).into_iter().flatten().flatten();
        for host in hosts.filter(|host| host.path().is_dir()) {
            let tls = all.entry(host.file_name().to_string_lossy().into_owned()).or_default();
            read_directory(&host.path(), tls);
        }
    }
    for (host, config) in configured {
        config.tell(all.entry(host.clone()).or_default());
    }
    all.retain(|_, tls| !tls.authorities.is_empty() || tls.identity.is_some());
    all
}

fn read_directory(directory: &Path, tls: &mut HostTls) {
    let mut files: Vec<PathBuf> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|file| file.path()).collect();
    files.sort();
    for file in files {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => tls.authorities.extend(fs::read(&file).ok()),
            Some("cert") => {
                tls.identity = identity(&file, &file.with_extension("key")).or(tls.identity.take());
            }
            _ => {}
        }
    }
}

/// A key and its certificate in one.
fn identity(certificate: &Path, key: &Path) -> Option<Secret> {
    let text = |path| fs::read_to_string(path).ok();
    Some(Secret::new(format!("{}\n{}", text(key)?, text(certificate)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_found_where_docker_looks() {
        let directory = tempfile::tempdir().unwrap();
        let host = directory.path().join("r.example:5000");
        fs::create_dir_all(&host).unwrap();
        for (name, text) in
            [("ca.crt", "A"), ("more.crt", "B"), ("client.cert", "C"), ("client.key", "K"), ("x", "")]
        {
            fs::write(host.join(name), text).unwrap();
        }
        fs::create_dir_all(directory.path().join("empty.example")).unwrap();
        let ca = directory.path().join("own.pem");
        fs::write(&ca, "O").unwrap();
        let own = RegistryConfig { ca: Some(ca), insecure: true, ..RegistryConfig::default() };
        let configured = BTreeMap::from([("own.example".to_owned(), own)]);
        let all = tls(&[directory.path().to_owned(), "/nowhere".into()], &configured);
        assert_eq!(all.keys().collect::<Vec<_>>(), ["own.example", "r.example:5000"]);
        assert_eq!(all["r.example:5000"].authorities, [b"A", b"B"]);
        assert_eq!(all["r.example:5000"].identity.as_ref().map(Secret::expose), Some("K\nC"));
        assert_eq!(all["own.example"].authorities, [b"O"]);
        assert_eq!(configured["own.example"].security(), Some(Security::Unverified));
    }
}
