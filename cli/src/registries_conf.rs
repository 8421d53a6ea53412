//! What people have said of registries for Podman, Buildah and Skopeo: `registries.conf`, version 2.
//!
//! Read are mirrors, other locations, insecure and blocked registries; what else is there is not ours, and no error.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rbuild_registry::{ClientOptions, Mirror, Security};
use serde::Deserialize;

use crate::report::{Failure, Kind};

#[derive(Debug, Default, Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Registry>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Registry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<MirrorPlace>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MirrorPlace {
    location: String,
    #[serde(default)]
    insecure: bool,
    pull_from_mirror: Option<String>,
}

/// The files to read: the first main file that is there, then all additions of each directory, the user's own last.
pub(crate) fn files(home: Option<&Path>) -> Vec<PathBuf> {
    let own = home.map(|home| home.join(".config/containers"));
    let machine = PathBuf::from("/etc/containers");
    let main = own.iter().chain([&machine]).map(|directory| directory.join("registries.conf"));
    let mut files: Vec<PathBuf> = main.filter(|file| file.is_file()).take(1).collect();
    for directory in [Some(&machine), own.as_ref()].into_iter().flatten() {
        let entries = fs::read_dir(directory.join("registries.conf.d")).into_iter().flatten().flatten();
        let mut additions: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        additions.retain(|file| file.extension().is_some_and(|extension| extension == "conf"));
        additions.sort();
        files.extend(additions);
    }
    files
}

/// Adds what the files say to what is said already, which precedes; what a later file says of a registry replaces what an earlier one does.
///
/// # Errors
/// When a file cannot be read or understood.
pub(crate) fn tell(files: &[PathBuf], options: &mut ClientOptions) -> Result<(), Failure> {
    let mut registries = BTreeMap::new();
    for file in files {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::new(Kind::Environment, format!("failed to read `{}`: {error}", file.display()))
        };
        let text = fs::read_to_string(file).map_err(|error| failed(&error))?;
        let said: File = toml::from_str(&text).map_err(|error| failed(&error))?;
        let named =
            |registry: Registry| Some((registry.prefix.clone().or(registry.location.clone())?, registry));
        registries.extend(said.registry.into_iter().filter_map(named));
    }
    registries.into_iter().for_each(|(prefix, registry)| add(prefix, registry, options));
    Ok(())
}

fn add(prefix: String, registry: Registry, options: &mut ClientOptions) {
    let elsewhere = registry.location.filter(|location| *location != prefix);
    let mut security = |location: &str, insecure: bool| {
        let host = location.split('/').next().unwrap_or(location);
        if insecure {
            options.hosts.entry(host.to_owned()).or_insert(Security::Unverified);
        }
    };
    security(elsewhere.as_ref().unwrap_or(&prefix), registry.insecure);
    let mut mirrors = Vec::new();
    for mirror in registry.mirror {
        security(&mirror.location, mirror.insecure);
        let pinned = mirror.pull_from_mirror.as_deref() == Some("digest-only");
        let by_digest_only = pinned || registry.mirror_by_digest_only;
        mirrors.push(Mirror { location: mirror.location, by_digest_only });
    }
    if let Some(location) = elsewhere {
        options.moved.insert(prefix.clone(), location);
    }
    if registry.blocked {
        options.blocked.insert(prefix.clone());
    }
    if !mirrors.is_empty() {
        options.mirrors.entry(prefix).or_insert(mirrors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = r#"
        unqualified-search-registries = ["docker.io"]
        [[registry]]
        location = "docker.io"
        [[registry.mirror]]
        location = "mirror.example:5000/hub"
        insecure = true
        [[registry.mirror]]
        location = "pinned.example"
        pull-from-mirror = "digest-only"
        [[registry]]
        prefix = "*.example"
        blocked = true
        [[registry]]
        prefix = "old.example/team"
        location = "new.example/team"
    "#;
    const ADDITION: &str = "[[registry]]\nprefix = 'bad.example'\nblocked = true\n";

    #[test]
    fn what_was_said_to_podman_holds_here() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(".config/containers/registries.conf.d");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("../registries.conf"), MAIN).unwrap();
        fs::write(directory.join("10-bad.conf"), ADDITION).unwrap();
        fs::write(directory.join("README"), "not a file of settings").unwrap();
        let files: Vec<_> =
            files(Some(home.path())).into_iter().filter(|file| file.starts_with(home.path())).collect();
        let mut options = ClientOptions::default();
        tell(&files, &mut options).unwrap();
        let mirror =
            |location: &str, by_digest_only| Mirror { location: location.to_owned(), by_digest_only };
        assert_eq!(
            options.mirrors["docker.io"],
            [mirror("mirror.example:5000/hub", false), mirror("pinned.example", true)]
        );
        assert_eq!(options.moved["old.example/team"], "new.example/team");
        assert_eq!(options.hosts.keys().collect::<Vec<_>>(), ["mirror.example:5000"]);
        assert_eq!(options.blocked.iter().collect::<Vec<_>>(), ["*.example", "bad.example"]);
    }

    #[test]
    fn a_file_that_is_not_understood_is_an_error_with_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("registries.conf");
        fs::write(&file, "[[registry]\n").unwrap();
        let failure = tell(&[file], &mut ClientOptions::default()).unwrap_err();
        assert!(failure.message.contains("registries.conf"), "{}", failure.message);
    }
}
