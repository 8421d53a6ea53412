//! The way out of a namespace for those who may not touch the machine's: `pasta`, else `slirp4netns`.
//!
//! Either reads what leaves the namespace from a tap device and sends it on as an ordinary process would. One serves all steps of
//! a build, which are on a bridge in the namespace, so that its start is paid once. It ends with rbuild, however that ends.
//! Both are told to leave the machine's loopback interface alone.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::namespace::Namespace;
use super::netlink::Watch;
use super::subnet::Subnet;
use super::support::{Lack, Missing};
use crate::spawn::Spawner;
use crate::sys;

/// What such a program needs of the machine.
pub(super) const TUN: &str = "/dev/net/tun";
/// How much of a program's complaint is repeated.
const LAST_WORDS_SIZE_BYTES_MAX: u64 = 1024;
/// How long a program may take until it has set up the namespace's interface; one that takes longer hangs.
const START_TIMEOUT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// The name of the namespace as those programs want it: their standard input.
const NAMESPACE: &str = "/proc/self/fd/0";
/// As large as the loopback interface's: each packet costs two copies, whatever its size.
const MTU: &str = "65520";

/// What calls a program by its name with the options that connect a namespace.
type Program = (&'static str, fn(Subnet) -> Vec<String>);

/// In the order in which they are tried.
const PROGRAMS: [Program; 2] = [("pasta", pasta), ("slirp4netns", slirp4netns)];

/// Without an address of its own choice it takes the machine's, which then would lead to the namespace itself.
fn pasta(subnet: Subnet) -> Vec<String> {
    let own = ["--foreground", "--quiet", "--config-net", "--no-map-gw", "--mtu", MTU, "--netns", NAMESPACE];
    let no_ports = ["--tcp-ports", "none", "--udp-ports", "none", "--tcp-ns", "none", "--udp-ns", "none"];
    let (address, gateway) = (subnet.address(2).to_string(), subnet.address(1).to_string());
    let prefix = subnet.prefix().to_string();
    let addresses = ["--address", &address, "--netmask", &prefix, "--gateway", &gateway];
    [&own[..], &no_ports, &addresses].concat().iter().map(ToString::to_string).collect()
}

fn slirp4netns(subnet: Subnet) -> Vec<String> {
    let cidr = format!("--cidr={subnet}");
    let mtu = format!("--mtu={MTU}");
    let path = ["--netns-type=path", NAMESPACE, "tap0"];
    let own = ["--configure", "--disable-host-loopback", "--disable-dns", &cidr, &mtu];
    [&own[..], &path].concat().iter().map(ToString::to_string).collect()
}

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Relay {
    child: Child,
    /// What it says of itself.
    said: File,
}

impl Relay {
    /// Connects a namespace; it has an address of `subnet` and a way out when this returns.
    pub(super) fn start(namespace: &Namespace, subnet: Subnet) -> Result<Self, Lack> {
        rustix::fs::access(TUN, rustix::fs::Access::READ_OK | rustix::fs::Access::WRITE_OK)
            .map_err(|error| Lack::new(Missing::Tun, &error.into()))?;
        let mut reason = io::Error::from(io::ErrorKind::NotFound);
        for (program, arguments) in PROGRAMS {
            match Self::start_program(namespace, program, arguments(subnet)) {
                Ok(relay) => return Ok(relay),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => reason = io::Error::new(error.kind(), format!("`{program}`: {error}")),
            }
        }
        Err(Lack::new(Missing::Relay, &reason))
    }

    fn start_program(
        namespace: &Namespace,
        program: &'static str,
        arguments: Vec<String>,
    ) -> io::Result<Self> {
        let watch = namespace.run(Watch::open)?;
        let descriptor = namespace.as_fd().try_clone_to_owned()?;
        let said = File::from(memfd_create("relay", MemfdFlags::CLOEXEC)?);
        let stderr = said.try_clone()?;
        // The kernel ends it when the thread ends that started it.
        let child = Spawner::shared()?.run(move || start(program, &arguments, descriptor, stderr))??;
        let mut relay = Self { child, said };
        relay.wait_until_connected(namespace, &watch)?;
        Ok(relay)
    }

    fn wait_until_connected(&mut self, namespace: &Namespace, watch: &Watch) -> io::Result<()> {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::NotFound)?;
        let ended = pidfd_open(pid, PidfdFlags::empty())?;
        while !namespace.netlink.routes()?.iter().any(|route| route.destination.is_none() && !route.is_ipv6) {
            let mut polled = [PollFd::new(&ended, PollFlags::IN), PollFd::new(watch, PollFlags::IN)];
            match rustix::io::retry_on_intr(|| poll(&mut polled, Some(&START_TIMEOUT)))? {
                0 => return Err(io::ErrorKind::TimedOut.into()),
                _ if !polled[0].revents().is_empty() => return Err(self.last_words()),
                _ => watch.read()?,
            }
        }
        Ok(())
    }

    fn last_words(&mut self) -> io::Error {
        let mut text = Vec::new();
        let read = self
            .said
            .seek(SeekFrom::Start(0))
            .and_then(|_| (&self.said).take(LAST_WORDS_SIZE_BYTES_MAX).read_to_end(&mut text));
        let text = read.map(|_| String::from_utf8_lossy(&text).trim().replace('\n', ", "));
        io::Error::other(
            text.ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "it ended at once".to_owned()),
        )
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // One that has ended already is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[expect(clippy::disallowed_methods, reason = "user-mode networking is a program's of its own")]
fn start(program: &str, arguments: &[String], namespace: OwnedFd, stderr: File) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(namespace).stdout(Stdio::null()).stderr(stderr);
    sys::die_with_parent(&mut command);
    command.spawn()
}
