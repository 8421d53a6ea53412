//! A container that does not exist yet: all that its process will see, as data.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{FileType, major, minor};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::cgroup::{CgroupSpec, DeviceKind, DeviceRule};
use crate::error::Error;
use crate::mount::{Mount, Root};
use crate::network::{Dns, Network};
use crate::process::Process;
use crate::rootless;

/// Docker's size of `/dev/shm`.
const SHM_SIZE_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// A container that does not exist yet: all that its process will see.
#[derive(Debug)]
pub struct Container {
    /// The root file system.
    pub root: Root,
    /// Whether the root is read-only. What is mounted in it has its own flags.
    pub readonly_root: bool,
    /// Further mounts, made in order of depth.
    pub mounts: Vec<Mount>,
    /// What runs.
    pub process: Process,
    /// The name of the machine inside.
    pub hostname: String,
    /// The network it sees.
    pub network: Network,
    /// What it is protected from.
    pub security: Security,
    /// Further lines of `/etc/hosts`: host name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// How it looks names up.
    pub dns: Dns,
    /// The size of `/dev/shm`.
    pub shm_size_bytes: u64,
    /// What it is called, and by whom.
    pub names: Names,
    /// Devices of the machine beyond those that every container has.
    pub devices: Vec<Device>,
    /// What else may be done with devices, those that it makes itself too.
    pub device_rules: Vec<DeviceRule>,
    /// Whose processes it sees.
    pub pid: PidNamespace,
    /// Whether `/dev/shm`, message queues and the like are the machine's.
    pub machine_ipc: bool,
    /// Whether it sees control groups as the machine does.
    pub machine_cgroups: bool,
    /// Kernel parameters, by path below `/proc/sys`.
    pub sysctls: Vec<(String, String)>,
    /// The control group that it is alone in, made with it and removed with it; the caller's when not given.
    pub cgroup: Option<CgroupSpec>,
}

impl Container {
    /// A container with the defaults of a `RUN` step.
    pub fn new(root: Root, process: Process) -> Self {
        Self {
            root,
            readonly_root: false,
            mounts: Vec::new(),
            process,
            hostname: "buildkitsandbox".to_owned(),
            network: Network::Host,
            security: Security::Sandbox,
            extra_hosts: Vec::new(),
            dns: Dns::default(),
            shm_size_bytes: SHM_SIZE_BYTES_DEFAULT,
            names: Names::Step,
            devices: Vec::new(),
            device_rules: Vec::new(),
            pid: PidNamespace::Own,
            machine_ipc: false,
            machine_cgroups: false,
            sysctls: Vec::new(),
            cgroup: None,
        }
    }
}

/// What a container knows of its own name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Names {
    /// As a step of a build: `/etc/hosts` and `/etc/resolv.conf` cannot be written to.
    #[default]
    Step,
    /// As one that lives on: both can be, and so can `/etc/hostname`. Without protection it has all devices of the machine.
    Own {
        /// The domain of its host name; often empty.
        domainname: String,
    },
    /// The same with the machine's own names.
    Machine,
}

impl Names {
    /// The names of a container's own addresses in `/etc/hosts`, the longest first.
    pub fn of_addresses(&self, hostname: &str) -> String {
        match self {
            Self::Own { domainname } if !domainname.is_empty() => {
                format!("{hostname}.{domainname} {hostname}")
            }
            _ => hostname.to_owned(),
        }
    }
}

/// Whose processes a container sees.
#[derive(Debug, Default)]
pub enum PidNamespace {
    /// Its own.
    #[default]
    Own,
    /// All of the machine.
    Machine,
    /// Those of a PID namespace, opened.
    Of(OwnedFd),
}

/// A device of the machine for a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// On the machine.
    pub path: PathBuf,
    /// In the container.
    pub target: PathBuf,
    /// What may be done with it.
    pub access: DeviceAccess,
}

/// What may be done with a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceAccess {
    /// It can be read.
    pub read: bool,
    /// It can be written to.
    pub write: bool,
    /// Files of it can be made.
    pub make: bool,
}

impl Device {
    /// What its control group is to allow.
    pub(crate) fn rule(&self) -> Result<DeviceRule, Error> {
        let failed = |error: Errno| Error::setup_at("examine the device", &self.path, error);
        let stat = rustix::fs::stat(&self.path).map_err(failed)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::BlockDevice => DeviceKind::Block,
            FileType::CharacterDevice => DeviceKind::Character,
            _ => return Err(failed(Errno::NODEV)),
        };
        Ok(DeviceRule::new(kind, major(stat.st_rdev), minor(stat.st_rdev), self.access))
    }
}

/// What a process may do to the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Security {
    /// The capabilities of [`Process::capabilities`], filtered system calls, masked `/proc`, read-only `/sys`.
    #[default]
    Sandbox,
    /// All that rbuild itself may: every capability, no filter, writable `/sys`.
    Insecure,
}

impl Security {
    /// Whether device files must be kept shut: in a user namespace the kernel does.
    pub(crate) fn shuts_devices(self) -> bool {
        self == Self::Sandbox && !rootless::in_user_namespace()
    }
}
