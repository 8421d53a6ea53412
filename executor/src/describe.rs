//! What init is told of a new container, with all that comes from the host opened.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;

use crate::container::{Container, Device, Names, PidNamespace, Security};
use crate::error::Error;
use crate::handshake::{DescriptorIndex, MountSpec, NetworkSpec, NewPlace, SourceSpec};
use crate::mount::{Mount, MountFlags, MountSource, PlainRoot, Root};
use crate::network::{Dns, HostsHead, Network, Resolver, hosts_file, locked};
use crate::spawn::detached_clone;

/// The descriptors that go with a spec, which names them by their place.
#[derive(Default)]
pub(crate) struct Descriptors(pub(crate) Vec<OwnedFd>);

impl Descriptors {
    pub(crate) fn keep(&mut self, descriptor: OwnedFd) -> DescriptorIndex {
        self.0.push(descriptor);
        self.0.len() - 1
    }
}

/// Opens what a new container consists of.
pub(crate) fn describe(
    container: Container,
    network: &Network,
    descriptors: &mut Descriptors,
) -> Result<NewPlace, Error> {
    let root = descriptors.keep(open_root(container.root)?);
    let mounts = describe_mounts(container.mounts, container.devices, descriptors)?;
    let etc = etc(&container.hostname, &container.names, (&container.extra_hosts, &container.dns), network);
    let machine_uts = container.names == Names::Machine;
    let (is_step, domainname) = match container.names {
        Names::Step => (true, String::new()),
        Names::Own { domainname } => (false, domainname),
        Names::Machine => (false, String::new()),
    };
    Ok(NewPlace {
        root,
        readonly_root: container.readonly_root,
        nodev: false,
        masked: container.security == Security::Sandbox && !container.process.confinement.unmasked,
        mounts,
        etc,
        etc_writable: !is_step,
        hostname: container.hostname,
        domainname,
        machine_uts,
        machine_ipc: container.machine_ipc,
        machine_cgroups: container.machine_cgroups,
        machine_devices: !is_step,
        sysctls: container.sysctls,
        network: describe_network(network, descriptors)?,
        shm_size_bytes: container.shm_size_bytes,
    })
}

fn describe_mounts(
    declared: Vec<Mount>,
    devices: Vec<Device>,
    descriptors: &mut Descriptors,
) -> Result<Vec<MountSpec>, Error> {
    let mut mounts = Vec::with_capacity(declared.len());
    for mount in declared {
        let source = match mount.source {
            MountSource::Tmpfs(options) => SourceSpec::Tmpfs(options),
            MountSource::Detached(descriptor) => SourceSpec::Detached(descriptors.keep(descriptor)),
            MountSource::Within { mount, path } => {
                SourceSpec::Within { mount: descriptors.keep(mount), path }
            }
            MountSource::Bind(path) | MountSource::Moved(path) => {
                SourceSpec::Detached(descriptors.keep(clone_path(&path)?))
            }
            MountSource::BindOpen(open) => SourceSpec::Detached(descriptors.keep(clone_open(open.as_fd())?)),
        };
        mounts.push(MountSpec { target: mount.target, source, flags: mount.flags });
    }
    for device in devices {
        let source = SourceSpec::Detached(descriptors.keep(clone_path(&device.path)?));
        mounts.push(MountSpec { target: device.target, source, flags: MountFlags::default() });
    }
    Ok(mounts)
}

fn describe_network(network: &Network, descriptors: &mut Descriptors) -> Result<NetworkSpec, Error> {
    let namespace = match network {
        Network::Host => return Ok(NetworkSpec::Host),
        Network::None => return Ok(NetworkSpec::None),
        Network::Namespace(namespace) => namespace.try_clone(),
        Network::Own(connection) => locked(connection).namespace(),
    };
    let namespace = namespace.map_err(|error| Error::setup("keep the network namespace", error))?;
    Ok(NetworkSpec::Join(descriptors.keep(namespace)))
}

/// Names and texts of the files in `/etc` that say how names are looked up, and what its own is.
fn etc(
    hostname: &str,
    names: &Names,
    (extra_hosts, dns): (&[(String, String)], &Dns),
    network: &Network,
) -> Vec<(String, String)> {
    let (mut dns, mut addresses, mut machine) = (dns.clone(), Vec::new(), None);
    if let Network::Own(connection) = network {
        let connection = locked(connection);
        dns.servers = connection.name_server().map_or(dns.servers, |server| vec![server]);
        (addresses, machine) = (connection.addresses(), connection.host_address());
    }
    let whole = names.of_addresses(hostname);
    let head = match (names, network) {
        (Names::Step, _) => HostsHead::Step(hostname),
        (_, Network::Host) => HostsHead::Machine,
        _ => HostsHead::Container { names: &whole, addresses: &addresses },
    };
    let mut files = vec![("hosts".to_owned(), hosts_file(&head, extra_hosts, machine))];
    let resolv_conf = Resolver::of_host().file(&dns, matches!(network, Network::Own(_)));
    files.extend(resolv_conf.map(|text| ("resolv.conf".to_owned(), text)));
    files.extend((*names != Names::Step).then(|| ("hostname".to_owned(), format!("{hostname}\n"))));
    files
}

/// The namespaces that are made for a container.
pub(crate) fn namespaces(network: &Network, container: &Container) -> i32 {
    // The cgroup namespace is init's to make: it must come after the process is in its cgroup.
    let wanted = [
        (true, libc::CLONE_NEWNS),
        (matches!(container.pid, PidNamespace::Own), libc::CLONE_NEWPID),
        (!container.machine_ipc, libc::CLONE_NEWIPC),
        (container.names != Names::Machine, libc::CLONE_NEWUTS),
        (matches!(network, Network::None), libc::CLONE_NEWNET),
    ];
    wanted.iter().filter(|(own, _)| *own).fold(0, |flags, (_, flag)| flags | flag)
}

fn open_root(root: Root) -> Result<OwnedFd, Error> {
    match root {
        Root::Detached(descriptor) => Ok(descriptor),
        Root::Directory(path) | Root::Plain(PlainRoot { root: path, .. }) => clone_path(&path),
    }
}

fn clone_path(path: &Path) -> Result<OwnedFd, Error> {
    detached_clone(CWD, path, OpenTreeFlags::AT_RECURSIVE)
        .map_err(|error| Error::setup_at("open the source of a mount", path, error))
}

fn clone_open(open: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::AT_RECURSIVE | OpenTreeFlags::AT_EMPTY_PATH;
    detached_clone(open, Path::new(""), flags)
        .map_err(|error| Error::setup("open the source of a mount", error))
}
