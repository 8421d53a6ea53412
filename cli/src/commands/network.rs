//! `rbuild network`: the networks that containers can be on.

use std::net::IpAddr;

use rbuild_container::{
    Attachment, Container, ContainerError, Containers, KnownNetworks, NetworkDriver, NetworkRecord,
    NewNetwork,
};
use serde_json::{Map, Value, json};

use super::container::{each, endpoint, failure, labels};
use super::filter::ObjectFilters;
use super::print;
use crate::app::{App, unix_now};
use crate::args::{
    NetworkCommand, NetworkConnectArgs, NetworkCreateArgs, NetworkDisconnectArgs, NetworkInspectArgs,
    NetworkLsArgs, NetworkMember, NetworkRmArgs, ObjectPruneArgs,
};
use crate::format::rfc3339;
use crate::report::{Failure, Kind};
use crate::template;

const TABLE: &str = "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}";
/// How much of an id people read.
const SHORT_ID_CHARS: usize = 12;

pub(crate) fn run(app: &App, command: &NetworkCommand) -> Result<u8, Failure> {
    match command {
        NetworkCommand::Create(args) => create(app, args),
        NetworkCommand::Ls(args) => ls(app, args),
        NetworkCommand::Inspect(args) => inspect(app, args),
        NetworkCommand::Rm(args) => rm(app, args),
        NetworkCommand::Connect(args) => connect(app, args),
        NetworkCommand::Disconnect(args) => disconnect(app, args),
        NetworkCommand::Prune(args) => prune(app, args),
    }
}

fn known(app: &App) -> Result<KnownNetworks, Failure> {
    Ok(KnownNetworks::of(app.store()?))
}

fn all(app: &App) -> Result<Containers, Failure> {
    Ok(Containers::new(app.store()?.clone()))
}

fn create(app: &App, args: &NetworkCreateArgs) -> Result<u8, Failure> {
    let network = NewNetwork {
        name: args.name.clone(),
        subnets: args.subnets.clone(),
        internal: args.internal,
        labels: labels(&args.labels),
    };
    let record = known(app)?.create(&app.networks(), network, unix_now()).map_err(failure)?;
    all(app)?.note_network(&record, "create", None);
    print(&format!("{}\n", record.id)).map(|()| 0)
}

fn ls(app: &App, args: &NetworkLsArgs) -> Result<u8, Failure> {
    let records = known(app)?.list().map_err(failure)?;
    let shorten = |id: &str| if args.no_trunc { id.to_owned() } else { id[..SHORT_ID_CHARS].to_owned() };
    let rows: Vec<Value> = records
        .iter()
        .map(|record| {
            let config = &record.config;
            let labels: Vec<String> =
                config.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
            json!({
                "ID": shorten(&record.id), "Name": config.name, "Driver": record.driver.name(), "Scope": "local",
                "Internal": config.internal.to_string(), "Labels": labels.join(","),
                "CreatedAt": rfc3339(record.created),
            })
        })
        .collect();
    let format = match (&args.format, args.quiet) {
        (_, true) => "{{.ID}}",
        (Some(format), _) if format != "table" => format,
        _ => TABLE,
    };
    let headings = json!({
        "ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "Internal": "INTERNAL",
        "Labels": "LABELS", "CreatedAt": "CREATED AT",
    });
    let text =
        template::list(format, &headings, &rows).map_err(|error| Failure::caused_by(Kind::Run(1), &error))?;
    print(&text).map(|()| 0)
}

fn inspect(app: &App, args: &NetworkInspectArgs) -> Result<u8, Failure> {
    super::inspect::show_each(args.format.as_deref(), &args.networks, |name| {
        super::inspect::inspected(find(app, name)?)
    })
}

/// What is known of the network of this name.
pub(super) fn find(app: &App, name: &str) -> Result<Result<Value, ContainerError>, Failure> {
    let (known, containers) = (known(app)?, all(app)?.list().map_err(failure)?);
    Ok(known.get(name).map(|record| network_json(app, &record, &containers)))
}

fn network_json(app: &App, record: &NetworkRecord, containers: &[Container]) -> Value {
    let config = &record.config;
    // The default one's addresses are the kernel's to know; a machine that has no networks has none.
    let is_open = record.driver == NetworkDriver::Bridge && config.subnets.is_empty();
    let made = is_open.then(|| app.networks().create(config).ok()).flatten();
    let subnets = made.map_or_else(|| config.subnets.clone(), |made| made.subnets);
    let ipam: Vec<Value> = subnets
        .iter()
        .map(|subnet| json!({ "Subnet": subnet.to_string(), "Gateway": subnet.address(1).to_string() }))
        .collect();
    let mut members = Map::new();
    for container in containers {
        if let Some(addresses) = addresses(container, &config.name) {
            members.insert(
                container.id.clone(),
                json!({ "Name": container.name, "IPv4Address": text(addresses, true), "IPv6Address": text(addresses, false) }),
            );
        }
    }
    json!({
        "Name": config.name,
        "Id": record.id,
        "Created": rfc3339(record.created),
        "Scope": "local",
        "Driver": record.driver.name(),
        "EnableIPv4": true,
        "EnableIPv6": subnets.iter().any(|subnet| subnet.first().is_ipv6()),
        "IPAM": { "Driver": "default", "Options": {}, "Config": ipam },
        "Internal": config.internal,
        "Containers": members,
        "Options": { "com.docker.network.bridge.name": config.bridge },
        "Labels": config.labels,
    })
}

/// The first address of a family, or nothing.
pub(crate) fn text(addresses: &[IpAddr], v4: bool) -> String {
    let found = addresses.iter().find(|address| address.is_ipv4() == v4);
    found.map(ToString::to_string).unwrap_or_default()
}

/// The addresses of a container that runs on a network.
fn addresses<'a>(container: &'a Container, network: &str) -> Option<&'a [IpAddr]> {
    let networks = &endpoint(container)?.networks;
    networks.iter().find(|(name, _)| name == network).map(|(_, addresses)| addresses.as_slice())
}

fn rm(app: &App, args: &NetworkRmArgs) -> Result<u8, Failure> {
    let (known, containers) = (known(app)?, all(app)?);
    each(&args.networks, |name| match known.get(name) {
        Err(ContainerError::NoSuchNetwork { .. }) if args.force => Ok(()),
        record => {
            let record = record.map_err(failure)?;
            known.remove(&app.networks(), &record).map_err(failure)?;
            containers.note_network(&record, "destroy", None);
            print(&format!("{name}\n"))
        }
    })
}

/// A network and a container.
fn member(app: &App, member: &NetworkMember) -> Result<(NetworkRecord, Containers, Container), Failure> {
    let containers = all(app)?;
    let container = containers.find(&member.container).map_err(failure)?;
    let record = known(app)?.get(&member.network).map_err(failure)?;
    Ok((record, containers, container))
}

fn connect(app: &App, args: &NetworkConnectArgs) -> Result<u8, Failure> {
    let (record, containers, container) = member(app, &args.member)?;
    let attachment =
        Attachment { aliases: args.aliases.clone(), address: args.ip, ..Attachment::to(&record.config.name) };
    record.check(&attachment).map_err(failure)?;
    containers.connect_network(&container, attachment).map_err(failure)?;
    containers.note_network(&record, "connect", Some(&container));
    Ok(0)
}

fn disconnect(app: &App, args: &NetworkDisconnectArgs) -> Result<u8, Failure> {
    let (record, containers, container) = member(app, &args.member)?;
    containers.disconnect_network(&container, &record.config.name).map_err(failure)?;
    containers.note_network(&record, "disconnect", Some(&container));
    Ok(0)
}

fn prune(app: &App, args: &ObjectPruneArgs) -> Result<u8, Failure> {
    let filters = ObjectFilters::parse(&args.filters, unix_now())?;
    let (known, containers) = (known(app)?, all(app)?);
    let members = containers.list().map_err(failure)?;
    let mut removed = String::new();
    for record in known.list().map_err(failure)? {
        let name = &record.config.name;
        let is_used = members.iter().any(|container| container.state.spec.network.is_on(name));
        if is_used || record.is_predefined() || !filters.selects(record.created, &record.config.labels) {
            continue;
        }
        known.remove(&app.networks(), &record).map_err(failure)?;
        containers.note_network(&record, "destroy", None);
        removed += &format!("{name}\n");
    }
    if removed.is_empty() { Ok(0) } else { print(&format!("Deleted Networks:\n{removed}\n")).map(|()| 0) }
}
