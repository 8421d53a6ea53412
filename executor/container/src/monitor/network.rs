//! From what a container is to see of networks to what the executor gives it. What is made here goes with the container's process.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rbuild_cache::root_dir::RootDir;
use rbuild_executor::network::{EndpointConfig, Link, NetworkConfig, SharedConnection, hosts_line};
use rbuild_executor::{Connection, Dns, Error, Network, PidNamespace};
use rustix::fs::OFlags;

use super::hub::locked;
use super::{Current, Monitor, process};
use crate::networks::KnownNetworks;
use crate::spec::{Attachment, ContainerLink, NetworkMode, PidMode};
use crate::state::{Endpoint, Run, Status};
use crate::{Container, ContainerError};

/// The largest `/etc/hosts` that is changed.
const HOSTS_SIZE_BYTES_MAX: u64 = 1024 * 1024;

/// What a container sees of networks.
pub(super) struct Joined {
    pub(super) network: Network,
    pub(super) endpoint: Endpoint,
    pub(super) dns: Dns,
    /// What the machine could not do.
    pub(super) warning: Option<String>,
}

impl Monitor {
    /// Joins the networks of a container. One that asked for nothing has none where none can be made.
    pub(super) fn join_networks(&self, container: &Container) -> Result<Joined, ContainerError> {
        let spec = &container.state.spec;
        let (servers, search, options) =
            (spec.dns.clone(), spec.dns_search.clone(), spec.dns_options.clone());
        let dns = Dns { servers, search, options };
        let plain =
            |network| Joined { network, endpoint: Endpoint::default(), dns: dns.clone(), warning: None };
        match &spec.network {
            NetworkMode::Host => Ok(plain(Network::Host)),
            NetworkMode::None => Ok(plain(Network::None)),
            NetworkMode::Container(id) => {
                let (namespace, run) = self.namespace_of(id, "net")?;
                let server = run.endpoint.name_server;
                let mut joined = plain(Network::Namespace(namespace));
                joined.dns.servers = server.map_or(joined.dns.servers, |server| vec![server]);
                Ok(joined)
            }
            NetworkMode::Networks(attachments) => match self.connect(container, attachments) {
                Err(ContainerError::Executor(Error::NoNetwork(lack)))
                    if spec.network == NetworkMode::default_network() && spec.ports.is_empty() =>
                {
                    let warning = Some(format!("the container has no network: {lack}"));
                    Ok(Joined { warning, ..plain(Network::None) })
                }
                connected => {
                    let (connection, endpoint) = connected?;
                    Ok(Joined { endpoint, ..plain(connection.into()) })
                }
            },
        }
    }

    fn connect(
        &self,
        container: &Container,
        attachments: &[Attachment],
    ) -> Result<(Connection, Endpoint), ContainerError> {
        let spec = &container.state.spec;
        let mut connection = self.networks.open()?;
        let mut endpoint = Endpoint::default();
        for attachment in attachments {
            let addresses = self.join(&mut connection, container, attachment)?;
            endpoint.networks.push((attachment.network.clone(), addresses));
        }
        connection.resolve_names(&spec.dns, self.links(container)?)?;
        endpoint.ports = connection.publish(&spec.ports)?.to_vec();
        endpoint.name_server = connection.name_server();
        Ok((connection, endpoint))
    }

    /// Joins a network under all names that the container has there.
    fn join(
        &self,
        connection: &mut Connection,
        container: &Container,
        attachment: &Attachment,
    ) -> Result<Vec<IpAddr>, ContainerError> {
        let spec = &container.state.spec;
        let own = [container.name.clone(), container.short_id().to_owned(), spec.hostname.clone()];
        let all = own.into_iter().chain(attachment.aliases.iter().cloned());
        let endpoint = EndpointConfig {
            names: all.filter(|name| !name.is_empty()).collect(),
            address: attachment.address,
            mac: attachment.mac,
        };
        Ok(connection.join(&self.network(&attachment.network)?, &endpoint)?)
    }

    fn network(&self, name: &str) -> Result<NetworkConfig, ContainerError> {
        Ok(KnownNetworks::of(self.containers.store()).get(name)?.config)
    }

    /// What the container calls others, which run.
    fn links(&self, container: &Container) -> Result<Vec<Link>, ContainerError> {
        let link = |link: &ContainerLink| {
            let other = self.containers.get(&link.id)?;
            if other.is_running() {
                return Ok(Link { alias: link.alias.clone(), name: other.short_id().to_owned() });
            }
            let (other, name, alias) = (&other.name, &container.name, &link.alias);
            let message = format!("Cannot link to a non running container: /{other} AS /{name}/{alias}");
            Err(ContainerError::Illegal { message })
        };
        container.state.spec.links.iter().map(link).collect()
    }

    /// Puts the container that runs on one more network.
    pub(super) fn connect_running(
        &self,
        current: &Current,
        attachment: Attachment,
    ) -> Result<(), ContainerError> {
        let container = self.container()?;
        let name = attachment.network.clone();
        if container.state.spec.network.is_on(&name) {
            let message = format!("endpoint with name {} already exists in network {name}", container.name);
            return Err(ContainerError::Illegal { message });
        }
        let mode = container.state.spec.network.with(attachment.clone())?;
        let shared = own_connection(current)?;
        let mut connection = locked(&shared);
        let addresses = self.join(&mut connection, &container, &attachment)?;
        let mut endpoint = endpoint_of(&container);
        endpoint.networks.push((name.clone(), addresses.clone()));
        let settled = self.settle(&mut connection, &container, mode, endpoint);
        if settled.is_err() {
            // The first error is the one that tells.
            drop(connection.leave(&self.network(&name)?));
        }
        settled?;
        let names = process::names(&container.state.spec).of_addresses(&process::hostname(&container));
        let lines: String = addresses.iter().map(|address| hosts_line(*address, &names)).collect();
        rewrite_hosts(current, |text| text + &lines);
        Ok(())
    }

    /// Takes the container that runs from a network.
    pub(super) fn disconnect_running(&self, current: &Current, name: &str) -> Result<(), ContainerError> {
        let container = self.container()?;
        let mode = container.state.spec.network.without(name, &container.id)?;
        let shared = own_connection(current)?;
        let mut connection = locked(&shared);
        connection.leave(&self.network(name)?)?;
        let mut endpoint = endpoint_of(&container);
        let left: Vec<_> = endpoint.networks.extract_if(.., |(network, _)| network == name).collect();
        self.settle(&mut connection, &container, mode, endpoint)?;
        let is_left = |line: &str| {
            let address = line.split_whitespace().next().and_then(|word| word.parse::<IpAddr>().ok());
            address.is_some_and(|address| left.iter().any(|(_, addresses)| addresses.contains(&address)))
        };
        rewrite_hosts(current, |text| text.split_inclusive('\n').filter(|line| !is_left(line)).collect());
        Ok(())
    }

    /// Makes names and ports follow the networks, and notes where the container is now.
    fn settle(
        &self,
        connection: &mut Connection,
        container: &Container,
        mode: NetworkMode,
        mut endpoint: Endpoint,
    ) -> Result<(), ContainerError> {
        let spec = &container.state.spec;
        connection.resolve_names(&spec.dns, self.links(container)?)?;
        let before = endpoint_of(container);
        // Ports lead to the first network.
        if before.networks.first() != endpoint.networks.first() {
            let ports = if before.ports.is_empty() { &spec.ports } else { &before.ports };
            endpoint.ports = connection.publish(ports)?.to_vec();
        }
        self.containers.change(&self.id, |state| {
            state.spec.network = mode;
            if let Some(run) = state.status.run_mut() {
                run.endpoint = endpoint;
            }
        })
    }

    /// Whose processes a container sees.
    pub(super) fn pid_namespace(&self, mode: &PidMode) -> Result<PidNamespace, ContainerError> {
        match mode {
            PidMode::Own => Ok(PidNamespace::Own),
            PidMode::Host => Ok(PidNamespace::Machine),
            PidMode::Container(id) => self.namespace_of(id, "pid").map(|(open, _)| PidNamespace::Of(open)),
        }
    }

    /// A namespace of a container that runs.
    fn namespace_of(&self, id: &str, kind: &str) -> Result<(OwnedFd, Run), ContainerError> {
        let name = if kind == "net" { "network" } else { kind };
        let not_running = || ContainerError::Illegal {
            message: format!("cannot join {name} namespace of a non running container: {id}"),
        };
        let run = |container: Container| match container.state.status {
            Status::Running(run) | Status::Paused(run) => Ok(run),
            _ => Err(not_running()),
        };
        let before = run(self.containers.get(id)?)?;
        let path = PathBuf::from(format!("/proc/{}/ns/{kind}", before.pid));
        let namespace = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied => ContainerError::ForeignNamespace { id: id.to_owned() },
            _ => not_running(),
        })?;
        // What still runs has had its process id all the while.
        if run(self.containers.get(id)?)? != before {
            return Err(not_running());
        }
        Ok((namespace.into(), before))
    }
}

/// The container's connection to its networks. A container without one sees the machine's network, another container's, or none.
fn own_connection(current: &Current) -> Result<SharedConnection, ContainerError> {
    let message = "the container has no network of its own".to_owned();
    current.handle.connection().ok_or(ContainerError::Illegal { message })
}

/// Where a container is reached now.
fn endpoint_of(container: &Container) -> Endpoint {
    container.state.status.run().map(|run| run.endpoint.clone()).unwrap_or_default()
}

/// Changes the `/etc/hosts` that the container sees. What it has made of that file is its own affair, and no failure.
fn rewrite_hosts(current: &Current, change: impl FnOnce(String) -> String) {
    const HOSTS: &str = "etc/hosts";
    let rewrite = || {
        let root = RootDir::from_fd(current.handle.root().ok()?);
        let text = String::from_utf8(root.read(HOSTS, HOSTS_SIZE_BYTES_MAX).ok()?).ok()?;
        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
        root.open_file(HOSTS, flags).ok()?.write_all(change(text).as_bytes()).ok()
    };
    // As said above.
    let _: Option<()> = rewrite();
}
