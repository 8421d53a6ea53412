//! A process in a plain directory, where there are no namespaces to be had: the weakest isolation, and it says so.
//!
//! The process has a root directory, few capabilities, a filter for system calls and rules for files of its own, and shares all
//! else with the machine: network, processes, host name, time. What would need more is refused.

use crate::capability::Capabilities;
use crate::container::{Container, Security};
use crate::error::Error;
use crate::handshake::Place;
use crate::laid_over::LaidOver;
use crate::mount::{PlainRoot, Root};
use crate::network::{HostsHead, Network, Resolver, hosts_file};
use crate::output::Stdio;
use crate::running::Running;
use crate::spawn::{Executor, Spawner, Wired, confine, no_process};
use crate::sys;

/// With these a process leaves its root directory, or finds the machine's disks.
const WAYS_OUT: Capabilities = Capabilities::SYS_CHROOT.union(Capabilities::MKNOD);

impl Executor {
    /// Starts the process of a container whose root is a plain directory.
    pub(crate) fn spawn_plain(
        &self,
        mut container: Container,
        root: PlainRoot,
        stdio: Stdio,
    ) -> Result<Running, Error> {
        refuse(&container, &stdio)?;
        let mut wired = Wired::new(stdio)?;
        let (group, _) = confine(&mut container)?;
        wired.group = group;
        let laid = lay_over(&mut container, root)?;
        let mut process = container.process;
        process.capabilities = process.capabilities.without(WAYS_OUT);
        // Without CAP_SYS_ADMIN there is neither filter nor Landlock for others.
        process.confinement.no_new_privileges = true;
        let root = laid.root().try_clone_to_owned().map_err(|error| Error::setup("keep the root", error))?;
        let place = Place::Chroot { root: wired.descriptors.keep(root) };
        let spec = self.spec(place, process, container.security, &mut wired)?;
        let spawner = Spawner::shared().map_err(no_process)?;
        let mut running = self.run(&spec, wired, spawner, |init| sys::clone_init(0, init))?;
        running.keep_laid_over(laid);
        Ok(running)
    }
}

fn refuse(container: &Container, stdio: &Stdio) -> Result<(), Error> {
    let what = match container {
        _ if matches!(stdio, Stdio::Terminal { .. }) => "terminal",
        Container { network: Network::Host, security: Security::Sandbox, readonly_root: false, .. } => {
            return Ok(());
        }
        Container { security: Security::Insecure, .. } => "step without a sandbox",
        Container { readonly_root: true, .. } => "read-only root file system",
        _ => "network but the machine's",
    };
    Err(Error::NeedsNamespaces(what.to_owned()))
}

fn lay_over(container: &mut Container, root: PlainRoot) -> Result<LaidOver, Error> {
    let mut laid = LaidOver::new(&root.root, root.scratch)?;
    laid.devices(&container.process.trust)?;
    let hosts = hosts_file(&HostsHead::Step(&container.hostname), &container.extra_hosts, None);
    laid.text("/etc/hosts".as_ref(), &hosts)?;
    if let Some(text) = Resolver::of_host().file(&container.dns, false) {
        laid.text("/etc/resolv.conf".as_ref(), &text)?;
    }
    container.mounts.sort_by_key(|mount| mount.target.components().count());
    container.mounts.drain(..).try_for_each(|mount| laid.mount(mount))?;
    Ok(laid)
}

impl Container {
    /// Its root, where that is a plain directory.
    pub(crate) fn plain_root(&self) -> Option<PlainRoot> {
        match &self.root {
            Root::Plain(root) => Some(root.clone()),
            Root::Detached(_) | Root::Directory(_) => None,
        }
    }
}
