//! `--network`, `-p` and what belongs to them, and `rbuild port`: how a container is reached.

use rbuild_container::{
    Attachment, Container, ContainerLink, Containers, DEFAULT_NETWORK, Endpoint, KnownNetworks, NetworkMode,
};
use rbuild_executor::network::{MacAddress, MacError, PublishedPort};
use rbuild_image::ContainerConfig;

use super::create::invalid;
use super::{EXIT_FAILED, containers, failure, run_failure};
use crate::app::App;
use crate::args::{CreateOptions, PortArgs};
use crate::commands::print;
use crate::report::{Failure, Kind, eprint};

/// What a container is to see of networks.
pub(super) fn mode(
    app: &App,
    containers: &Containers,
    options: &CreateOptions,
) -> Result<NetworkMode, Failure> {
    let mut wanted = options.networks.iter().map(|text| attachment(text)).collect::<Result<Vec<_>, _>>()?;
    if wanted.is_empty() {
        wanted.push(Attachment::to(DEFAULT_NETWORK));
    }
    // What has flags of its own is of the first, as with Docker.
    let first = &mut wanted[0];
    first.aliases.extend(options.network_aliases.iter().cloned());
    set_once(&mut first.address, options.ip, "--ip and per-network IPv4 address")?;
    let mac = options.mac_address.as_deref().map(mac_address).transpose()?;
    set_once(&mut first.mac, mac, "--mac-address and per-network MAC address")?;
    let mode = match wanted[0].network.as_str() {
        "host" if wanted.len() == 1 => NetworkMode::Host,
        "none" if wanted.len() == 1 => NetworkMode::None,
        name if name.starts_with("container:") && wanted.len() == 1 => {
            let other = containers.find(&name["container:".len()..]).map_err(run_failure)?;
            NetworkMode::Container(other.id)
        }
        _ => return Ok(NetworkMode::Networks(own_networks(app, wanted)?)),
    };
    refuse_own(app, &wanted[0], options)?;
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
    Ok(mode)
}

/// Takes what a flag says, where the network itself says nothing.
fn set_once<T>(field: &mut Option<T>, flag: Option<T>, both: &str) -> Result<(), Failure> {
    if field.is_some() && flag.is_some() {
        return Err(invalid(format!("conflicting options: cannot specify both {both}")));
    }
    *field = field.take().or(flag);
    Ok(())
}

/// What is had on networks only is not had where there is none.
fn refuse_own(app: &App, wanted: &Attachment, options: &CreateOptions) -> Result<(), Failure> {
    let name = &wanted.network;
    if wanted.address.is_some() {
        let record = KnownNetworks::of(app.store()?).get(name);
        record.and_then(|record| record.check(wanted)).map_err(run_failure)?;
    }
    if wanted.mac.is_some() && name != "none" {
        return Err(invalid("conflicting options: mac-address and the network mode"));
    }
    if !options.links.is_empty() && name == "host" {
        let message = "conflicting options: host type networking can't be used with links";
        return Err(invalid(message));
    }
    Ok(())
}

fn own_networks(app: &App, wanted: Vec<Attachment>) -> Result<Vec<Attachment>, Failure> {
    let known = KnownNetworks::of(app.store()?);
    let mut found: Vec<Attachment> = Vec::new();
    for attachment in wanted {
        let name = &attachment.network;
        if matches!(name.as_str(), "host" | "none") || name.starts_with("container:") {
            return Err(invalid(format!("conflicting options: `{name}` with another network")));
        }
        let record = known.get(name).map_err(run_failure)?;
        let attachment = Attachment { network: record.config.name.clone(), ..attachment };
        record.check(&attachment).map_err(run_failure)?;
        if found.iter().all(|known| known.network != attachment.network) {
            found.push(attachment);
        }
    }
    Ok(found)
}

/// `NAME`, or `name=NAME[,alias=NAME][,ip=IP][,mac-address=MAC]`.
fn attachment(text: &str) -> Result<Attachment, Failure> {
    if !text.contains('=') {
        return Ok(Attachment::to(text));
    }
    let mut attachment = Attachment::to(DEFAULT_NETWORK);
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("name", value)) => value.clone_into(&mut attachment.network),
            Some(("alias", value)) => attachment.aliases.push(value.to_owned()),
            Some(("ip", value)) => {
                let address = value.parse().map_err(|_| invalid(format!("invalid IPv4 address: {value}")))?;
                attachment.address = Some(address);
            }
            Some(("mac-address", value)) => attachment.mac = Some(mac_address(value)?),
            _ => return Err(invalid(format!("invalid field `{field}` in the network `{text}`"))),
        }
    }
    Ok(attachment)
}

fn mac_address(text: &str) -> Result<MacAddress, Failure> {
    text.parse().map_err(|error: MacError| invalid(error.to_string()))
}

/// What `--link` names: `CONTAINER[:ALIAS]`.
pub(super) fn links(containers: &Containers, texts: &[String]) -> Result<Vec<ContainerLink>, Failure> {
    let link = |text: &String| {
        let (name, alias) = text.split_once(':').unwrap_or((text, text));
        if name.is_empty() || alias.is_empty() || alias.contains(':') {
            return Err(invalid(format!("bad format for links: {text}")));
        }
        let container = containers
            .find(name)
            .map_err(|error| invalid(format!("could not get container for {name}: {error}")))?;
        Ok(ContainerLink { id: container.id, alias: alias.trim_start_matches('/').to_owned() })
    };
    texts.iter().map(link).collect()
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
        assert_eq!(attachment("web").unwrap(), Attachment::to("web"));
        let expected = Attachment {
            network: "web".to_owned(),
            aliases: vec!["a".to_owned(), "b".to_owned()],
            address: Some("10.1.2.3".parse().unwrap()),
            mac: Some("02:42:00:00:00:01".parse().unwrap()),
        };
        let text = "name=web,alias=a,alias=b,ip=10.1.2.3,mac-address=02:42:00:00:00:01";
        assert_eq!(attachment(text).unwrap(), expected);
        for text in ["name=web,ip=1.2.3", "name=web,mac-address=zz", "name=web,nosuch=1"] {
            assert!(attachment(text).is_err(), "{text}");
        }
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
