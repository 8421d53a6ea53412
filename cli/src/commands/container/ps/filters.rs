//! `ps --filter`: which containers are listed. What is no filter has Docker's words.

use std::ops::RangeInclusive;

use rbuild_container::{Container, KnownNetworks, NetworkMode};
use regex_lite::Regex;

use super::super::lifecycle::has_label;
use super::super::networks::{endpoint, private};
use super::super::{EXIT_CANNOT_RUN, EXIT_FAILED};
use crate::report::{Failure, Kind};

const STATUSES: [&str; 7] = ["created", "running", "paused", "restarting", "removing", "exited", "dead"];
const HEALTHS: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];

/// All filters of a command line: values of one name are alternatives, names are all to be met.
#[derive(Debug, Default)]
pub(super) struct Filters(Vec<(String, Vec<Rule>)>);

#[derive(Debug)]
enum Rule {
    Id(Pattern),
    Name(Pattern),
    Label(String),
    Exited(i32),
    Status(String),
    Ancestor(String),
    Health(String),
    /// Created before this time, or after; of the same second, the list's order tells.
    Before(i64),
    Since(i64),
    /// On the network of this name.
    Network(String),
    /// With a volume of this name, a bind of this source, or either at this place.
    Volume(String),
    /// Ports of this machine that lead to it.
    Publish(Ports),
    /// Ports of its own.
    Expose(Ports),
    /// Whether it is a task of a swarm's, which none is.
    IsTask(bool),
}

/// A regular expression, which a text also matches that is the same by the letter. One that is malformed matches nothing else, as with
/// Docker.
#[derive(Debug)]
struct Pattern {
    text: String,
    regex: Option<Regex>,
}

impl Pattern {
    fn new(text: &str) -> Self {
        Self { text: text.to_owned(), regex: Regex::new(text).ok() }
    }

    fn matches(&self, text: &str) -> bool {
        text == self.text || self.regex.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

/// Ports of one protocol.
#[derive(Debug)]
struct Ports {
    range: RangeInclusive<u16>,
    protocol: String,
}

impl Ports {
    /// `PORT[-PORT][/PROTOCOL]`.
    fn parse(text: &str) -> Option<Self> {
        let (range, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(Self { range: first.parse().ok()?..=last.parse().ok()?, protocol: protocol.to_owned() })
    }

    /// Whether a port named so, as `80/tcp`, is one of them.
    fn has(&self, name: &str) -> bool {
        let Some((port, protocol)) = name.split_once('/') else { return false };
        protocol == self.protocol && port.parse().is_ok_and(|port| self.range.contains(&port))
    }
}

impl Filters {
    /// Reads filters.
    ///
    /// # Errors
    /// When one is none.
    pub(super) fn parse(
        texts: &[String],
        all: &[Container],
        networks: &KnownNetworks,
    ) -> Result<Self, Failure> {
        let mut filters = Self::default();
        for text in texts {
            let no_pair = || {
                let message = "bad format of filter (expected name=value)";
                Failure::new(Kind::Run(EXIT_CANNOT_RUN), message)
            };
            let (name, value) = text.split_once('=').ok_or_else(no_pair)?;
            let rule = Rule::parse(name, value, all, networks)
                .map_err(|reason| Failure::new(Kind::Run(EXIT_FAILED), reason))?;
            // A port is looked for on either side.
            let name = if name == "expose" { "publish" } else { name };
            match filters.0.iter_mut().find(|(known, _)| known == name) {
                // Labels are all to be there.
                Some((_, rules)) if name != "label" => rules.push(rule),
                _ => filters.0.push((name.to_owned(), vec![rule])),
            }
        }
        Ok(filters)
    }

    /// Whether they speak of what does not run.
    pub(super) fn names_status(&self) -> bool {
        self.0.iter().any(|(name, _)| name == "status" || name == "exited")
    }

    /// Whether a container is meant.
    pub(super) fn select(&self, container: &Container) -> bool {
        self.0.iter().all(|(_, rules)| rules.iter().any(|rule| rule.is_met(container)))
    }
}

impl Rule {
    fn parse(name: &str, value: &str, all: &[Container], networks: &KnownNetworks) -> Result<Self, String> {
        let refused = || format!("invalid filter '{name}={value}'");
        let created = || {
            let meant = |it: &&Container| it.name == value || it.id.starts_with(value);
            let found = all.iter().find(meant).map(|container| container.created);
            found.ok_or_else(|| format!("No such container: {value}"))
        };
        let one_of = |what: &str, words: &[&str]| {
            let known = words.contains(&value).then(|| value.to_owned());
            let words = words.join(", ");
            known.ok_or_else(|| {
                format!("{}: invalid value for {what} ({value}): must be one of {words}", refused())
            })
        };
        let ports = || Ports::parse(value).ok_or_else(refused);
        Ok(match name {
            "id" => Self::Id(Pattern::new(value)),
            "name" => Self::Name(Pattern::new(value)),
            "label" => Self::Label(value.to_owned()),
            "exited" => Self::Exited(value.parse().map_err(|_| refused())?),
            "status" => Self::Status(one_of("state", &STATUSES)?),
            "ancestor" => Self::Ancestor(value.to_owned()),
            "health" => Self::Health(one_of("health", &HEALTHS)?),
            // One that is gone may be that of a container all the same.
            "network" => Self::Network(
                networks.get(value).map_or_else(|_| value.to_owned(), |known| known.config.name),
            ),
            "volume" => Self::Volume(value.to_owned()),
            "publish" => Self::Publish(ports()?),
            "expose" => Self::Expose(ports()?),
            "is-task" => match value {
                "true" | "1" => Self::IsTask(true),
                "false" | "0" => Self::IsTask(false),
                _ => return Err(format!("invalid filter 'is-task=[{value}]'")),
            },
            "before" => Self::Before(created()?),
            "since" => Self::Since(created()?),
            _ => return Err(format!("invalid filter '{name}'")),
        })
    }

    fn is_met(&self, container: &Container) -> bool {
        let spec = &container.state.spec;
        match self {
            Self::Id(id) => id.matches(&container.id),
            Self::Name(name) => {
                name.matches(&container.name) || name.matches(&format!("/{}", container.name))
            }
            Self::Label(label) => has_label(container, label),
            Self::Exited(code) => container.state.status.ended().is_some_and(|ended| ended.code == *code),
            Self::Status(name) => container.state.status.name() == name,
            Self::Ancestor(image) => {
                let bare = spec.image_id.strip_prefix("sha256:").unwrap_or(&spec.image_id);
                spec.image == *image
                    || spec.image.strip_suffix(":latest") == Some(image)
                    || spec.image_id == *image
                    || bare.starts_with(image.as_str())
            }
            Self::Health(name) => {
                container.state.health.as_ref().map_or("none", |health| health.status.name()) == name
            }
            Self::Before(time) => container.created < *time,
            Self::Since(time) => container.created > *time,
            Self::Network(name) => match &spec.network {
                mode @ NetworkMode::Networks(_) => mode.is_on(name),
                mode => mode.to_string() == *name,
            },
            Self::Volume(text) => {
                let binds = spec.binds.iter().flat_map(|bind| [&bind.source, &bind.target]);
                let volumes = spec.volumes.iter().flat_map(|volume| [&volume.name, &volume.target]);
                binds.chain(volumes).any(|known| known == text)
            }
            Self::Publish(ports) => endpoint(container).is_some_and(|endpoint| {
                let mut published = endpoint.ports.iter();
                published.any(|port| ports.has(&format!("{}/{}", port.host_port, port.protocol.name())))
            }),
            Self::Expose(ports) => endpoint(container).is_some_and(|endpoint| {
                let mut own = endpoint.ports.iter().map(private).chain(spec.config.exposed_ports.clone());
                own.any(|name| ports.has(&name))
            }),
            Self::IsTask(wanted) => !wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_regular_expressions() {
        let cases = [
            ("abc", "xabcx", true),
            ("^abc$", "abc", true),
            ("^abc$", "abcd", false),
            ("a.c", "abc", true),
            ("a[", "a[", true),
            ("a[", "a[b", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn ports_are_read() {
        let cases = [
            ("80", "80/tcp", true),
            ("80", "80/udp", false),
            ("80/udp", "80/udp", true),
            ("80-90", "85/tcp", true),
            ("80-90/tcp", "91/tcp", false),
        ];
        for (text, name, expected) in cases {
            assert_eq!(Ports::parse(text).unwrap().has(name), expected, "{text} {name}");
        }
        for text in ["", "x", "99999", "80-", "80-x/tcp"] {
            assert!(Ports::parse(text).is_none(), "{text}");
        }
    }
}
