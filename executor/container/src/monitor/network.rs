//! From what a container is to see of networks to what the executor gives it. What is made here goes with the container's process.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rbuild_executor::{Connection, Dns, Error, Network, PidNamespace};

use super::Monitor;
use crate::networks::KnownNetworks;
use crate::spec::{NetworkMode, PidMode};
use crate::state::{Endpoint, Run, Status};
use crate::{Container, ContainerError};

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
            NetworkMode::Networks(names) => match self.connect(container, names) {
                Err(ContainerError::Executor(Error::NoNetwork(lack)))
                    if spec.network == NetworkMode::default_network() && spec.ports.is_empty() =>
                {
                    let warning = Some(format!("the container has no network: {lack}"));
                    Ok(Joined { warning, ..plain(Network::None) })
                }
                connected => {
                    let (connection, endpoint) = connected?;
                    Ok(Joined { endpoint, ..plain(Network::Own(connection)) })
                }
            },
        }
    }

    fn connect(
        &self,
        container: &Container,
        networks: &[String],
    ) -> Result<(Connection, Endpoint), ContainerError> {
        let spec = &container.state.spec;
        let own = [container.name.clone(), container.short_id().to_owned(), spec.hostname.clone()];
        let names: Vec<String> =
            own.into_iter().chain(spec.aliases.iter().cloned()).filter(|name| !name.is_empty()).collect();
        let known = KnownNetworks::of(self.containers.store());
        let mut endpoint = Endpoint::default();
        let mut connection: Option<Connection> = None;
        for name in networks {
            let config = known.get(name)?.config;
            let before = connection.as_ref().map_or(0, |connection| connection.addresses().len());
            match &mut connection {
                Some(connection) => connection.join(&config, &names)?,
                None => connection = Some(self.networks.join(&config, &names)?),
            }
            let addresses = connection.iter().flat_map(Connection::addresses).skip(before).collect();
            endpoint.networks.push((name.clone(), addresses));
        }
        // The command line gives at least one.
        let mut connection = connection.ok_or(ContainerError::NoSuchNetwork { name: String::new() })?;
        connection.resolve_names(&spec.dns)?;
        endpoint.ports = connection.publish(&spec.ports)?.to_vec();
        endpoint.name_server = connection.name_server();
        Ok((connection, endpoint))
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
