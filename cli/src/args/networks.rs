//! The commands that look after networks.

use std::net::Ipv4Addr;

use clap::{Args, Subcommand};
use rbuild_executor::network::Subnet;

use super::ObjectPruneArgs;

/// `rbuild network`.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum NetworkCommand {
    /// Makes a network.
    Create(NetworkCreateArgs),
    /// Lists networks.
    #[command(alias = "list")]
    Ls(NetworkLsArgs),
    /// Shows what is known of networks, as JSON.
    Inspect(NetworkInspectArgs),
    /// Removes networks.
    #[command(alias = "remove")]
    Rm(NetworkRmArgs),
    /// Puts a container on a network, at once where it runs.
    Connect(NetworkConnectArgs),
    /// Takes a container from a network, at once where it runs.
    Disconnect(NetworkDisconnectArgs),
    /// Removes all networks that no container is on.
    Prune(ObjectPruneArgs),
}

/// `rbuild network create`.
#[derive(Debug, Args)]
pub(crate) struct NetworkCreateArgs {
    /// Its kind; there is one.
    #[arg(short, long, value_name = "DRIVER", default_value = "bridge", value_parser = ["bridge"])]
    _driver: String,
    /// Its addresses: `10.1.2.0/24` [default: what is free] (repeatable).
    #[arg(long = "subnet", value_name = "SUBNET", value_parser = parse_subnet)]
    pub(crate) subnets: Vec<Subnet>,
    /// Lets nothing outside be reached.
    #[arg(long)]
    pub(crate) internal: bool,
    /// Adds a label (repeatable).
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Its name.
    pub(crate) name: String,
}

/// `rbuild network ls`.
#[derive(Debug, Args)]
pub(crate) struct NetworkLsArgs {
    /// Shows ids only.
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Does not shorten ids.
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// `table`, `json`, or a Go template.
    #[arg(long)]
    pub(crate) format: Option<String>,
}

/// `rbuild network inspect`.
#[derive(Debug, Args)]
pub(crate) struct NetworkInspectArgs {
    /// `json`, or a Go template.
    #[arg(short, long)]
    pub(crate) format: Option<String>,
    /// Networks, by name, id or unique prefix.
    #[arg(required = true, value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
}

/// `rbuild network rm`.
#[derive(Debug, Args)]
pub(crate) struct NetworkRmArgs {
    /// Says nothing of missing ones.
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Networks, by name, id or unique prefix.
    #[arg(required = true, value_name = "NETWORK")]
    pub(crate) networks: Vec<String>,
}

/// `rbuild network connect`.
#[derive(Debug, Args)]
pub(crate) struct NetworkConnectArgs {
    /// Its address there [default: any that is free].
    #[arg(long, value_name = "IP")]
    pub(crate) ip: Option<Ipv4Addr>,
    /// A further name there (repeatable).
    #[arg(long = "alias", value_name = "NAME")]
    pub(crate) aliases: Vec<String>,
    #[command(flatten)]
    pub(crate) member: NetworkMember,
}

/// `rbuild network disconnect`.
#[derive(Debug, Args)]
pub(crate) struct NetworkDisconnectArgs {
    /// Changes nothing: a container is always taken from it at once.
    #[arg(short, long)]
    _force: bool,
    #[command(flatten)]
    pub(crate) member: NetworkMember,
}

/// Who is to be on a network, or not.
#[derive(Debug, Args)]
pub(crate) struct NetworkMember {
    /// The network, by name, id or unique prefix.
    pub(crate) network: String,
    /// The container, by name, id or unique prefix.
    pub(crate) container: String,
}

fn parse_subnet(text: &str) -> Result<Subnet, String> {
    let malformed = || "expected an address and a number of bits: 10.1.2.0/24".to_owned();
    let (address, bits) = text.split_once('/').ok_or_else(malformed)?;
    let address: std::net::IpAddr = address.parse().map_err(|_| malformed())?;
    let most = if address.is_ipv4() { 30 } else { 64 };
    let bits = bits.parse().ok().filter(|bits| (8..=most).contains(bits)).ok_or_else(malformed)?;
    Ok(Subnet::containing(address, bits))
}
