//! `--network`, `-p` and what belongs to them, and `rbuild port`: how a container is reached.

use rbuild_container::{Container, Containers, DEFAULT_NETWORK, Endpoint, KnownNetworks, NetworkMode};
use rbuild_executor::network::PublishedPort;
use rbuild_image::ContainerConfig;

use super::create::invalid;
use super::{EXIT_FAILED, containers, failure, run_failure};
use crate::app::App;
use crate::args::{CreateOptions, PortArgs};
use crate::commands::print;
use crate::report::{Failure, Kind, eprint};

/// What a container is to see of networks, and the names that it has there beside its own.
pub(super) fn mode(
    app: &App,
    containers: &Containers,
    options: &CreateOptions,
) -> Result<(NetworkMode, Vec<String>), Failure> {
    let mut aliases = options.network_aliases.clone();
    let mut names = Vec::new();
    for text in &options.networks {
        let (name, more) = attachment(text)?;
        aliases.extend(more);
        names.push(name);
    }
    let mode = match names.as_slice() {
        [] => NetworkMode::default_network(),
        ["host"] => NetworkMode::Host,
        ["none"] => NetworkMode::None,
        [name] if name.starts_with("container:") => {
            let other = containers.find(&name["container:".len()..]).map_err(run_failure)?;
            NetworkMode::Container(other.id)
        }
        names => NetworkMode::Networks(own_networks(app, names)?),
    };
    if options.publishes() {
        match &mode {
            NetworkMode::Host => {
                eprint("WARNING: Published ports are discarded when using host network mode\n");
            }
            NetworkMode::Container(_) => {
                let message = "conflicting options: port publishing and the container type network mode";
                return Err(invalid(message));
            }
            NetworkMode::None | NetworkMode::Networks(_) => {}
        }
    }
    Ok((mode, aliases))
}

fn own_networks(app: &App, names: &[&str]) -> Result<Vec<String>, Failure> {
    let known = KnownNetworks::of(app.store()?);
    let mut found = Vec::new();
    for name in names {
        if matches!(*name, "host" | "none") || name.starts_with("container:") {
            return Err(invalid(format!("conflicting options: `{name}` with another network")));
        }
        let name = known.get(name).map_err(run_failure)?.config.name;
        if !found.contains(&name) {
            found.push(name);
        }
    }
    Ok(found)
}

/// `NAME`, or `name=NAME[,alias=NAME]…`.
fn attachment(text: &str) -> Result<(&str, Vec<String>), Failure> {
    if !text.contains('=') {
        return Ok((text, Vec::new()));
    }
    let (mut name, mut aliases) = (DEFAULT_NETWORK, Vec::new());
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("name", value)) => name = value,
            Some(("alias", value)) => aliases.push(value.to_owned()),
            _ => return Err(invalid(format!("invalid field `{field}` in the network `{text}`"))),
        }
    }
    Ok((name, aliases))
}

/// The ports that `-p` names, and with `-P` those that the image and `--expose` tell of.
pub(super) fn ports(
    options: &CreateOptions,
    config: &ContainerConfig,
) -> Result<Vec<PublishedPort>, Failure> {
    let mut ports = Vec::new();
    for text in &options.publish {
        ports.extend(parse("--publish", text)?);
    }
    if options.publish_all {
        for text in &config.exposed_ports {
            let exposed = parse("exposed port", text)?;
            let is_new = |port: &PublishedPort| {
                let same = |known: &PublishedPort| private(known) == private(port);
                !ports.iter().any(same)
            };
            let new: Vec<_> = exposed.into_iter().filter(is_new).collect();
            ports.extend(new);
        }
    }
    Ok(ports)
}

/// The ports that `--expose` names, as an image's config has them.
pub(super) fn exposed(options: &CreateOptions) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    for text in &options.expose {
        names.extend(parse("--expose", text)?.iter().map(private));
    }
    Ok(names)
}

fn parse(flag: &str, text: &str) -> Result<Vec<PublishedPort>, Failure> {
    PublishedPort::parse(text).map_err(|error| invalid(format!("invalid {flag} `{text}`: {error}")))
}

/// A container's port as it is named: `80/tcp`.
pub(crate) fn private(port: &PublishedPort) -> String {
    format!("{}/{}", port.container_port, port.protocol.name())
}

/// The addresses of the host that a port is published at, as they are written.
pub(crate) fn host_addresses(port: &PublishedPort) -> Vec<String> {
    match port.host_ip {
        None => vec!["0.0.0.0".to_owned(), "::".to_owned()],
        Some(ip) => vec![ip.to_string()],
    }
}

fn public(port: &PublishedPort) -> impl Iterator<Item = String> {
    let bracketed = |ip: String| if ip.contains(':') { format!("[{ip}]") } else { ip };
    let host_port = port.host_port;
    host_addresses(port).into_iter().map(move |ip| format!("{}:{host_port}", bracketed(ip)))
}

/// Where a container is reached, if it runs.
pub(crate) fn endpoint(container: &Container) -> Option<&Endpoint> {
    container.state.status.run().map(|run| &run.endpoint)
}

/// The ports of a container that runs, in the column of a list: published ones with their place, others that it exposes by name.
pub(super) fn column(container: &Container) -> String {
    let Some(endpoint) = endpoint(container) else { return String::new() };
    let published = endpoint
        .ports
        .iter()
        .flat_map(|port| public(port).map(move |public| format!("{public}->{}", private(port))));
    let is_published = |name: &&String| endpoint.ports.iter().any(|port| private(port) == **name);
    let exposed = container.state.spec.config.exposed_ports.iter().filter(|name| !is_published(name));
    published.chain(exposed.cloned()).collect::<Vec<_>>().join(", ")
}

pub(super) fn port(app: &App, args: &PortArgs) -> Result<u8, Failure> {
    let container = containers(app)?.find(&args.container).map_err(failure)?;
    let ports = endpoint(&container).map_or(&[][..], |endpoint| &endpoint.ports);
    let Some(wanted) = &args.port else {
        let line = |port| public(port).map(move |public| format!("{} -> {public}\n", private(port)));
        return print(&ports.iter().flat_map(line).collect::<String>()).map(|()| 0);
    };
    let whole = if wanted.contains('/') { wanted.clone() } else { format!("{wanted}/tcp") };
    let found = ports.iter().filter(|port| private(port) == whole).flat_map(public);
    let lines: String = found.map(|public| format!("{public}\n")).collect();
    if lines.is_empty() {
        let message = format!("No public port '{wanted}' published for {}", args.container);
        return Err(Failure::new(Kind::Run(EXIT_FAILED), message));
    }
    print(&lines).map(|()| 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_are_read() {
        assert_eq!(attachment("web").unwrap(), ("web", vec![]));
        let expected = ("web", vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!(attachment("name=web,alias=a,alias=b").unwrap(), expected);
        assert!(attachment("name=web,ip=1.2.3.4").is_err());
    }

    #[test]
    fn ports_are_shown_at_each_address() {
        let shown = |text: &str| {
            let port = PublishedPort::parse(text).unwrap()[0];
            (private(&port), public(&port).collect::<Vec<_>>().join(" "))
        };
        let both = ("80/tcp".to_owned(), "0.0.0.0:8080 [::]:8080".to_owned());
        assert_eq!(shown("8080:80"), both);
        assert_eq!(shown("[::1]:53:53/udp"), ("53/udp".to_owned(), "[::1]:53".to_owned()));
    }
}
