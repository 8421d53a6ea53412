//! What this machine offers, found out by trying, once per process.
//!
//! A release number decides nothing: distributions switch things off and port things back.

use std::fs;
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{Access as Rights, access};
use rustix::mount::MountAttrFlags;
use serde::Serialize;

use crate::cgroup::CgroupSupport;
use crate::mount::filesystem;
use crate::sys;

/// Where the kernel lists them.
const BINFMT: &str = "/proc/sys/fs/binfmt_misc";

/// What was found.
#[derive(Debug, Clone, Serialize)]
pub struct Probe {
    /// The kernel's release, for people.
    pub kernel: String,
    /// Whether system calls can be filtered.
    pub seccomp: bool,
    /// The version of Landlock, if it is there.
    pub landlock: Option<u32>,
    /// Whether the kernel has AppArmor, and it is on.
    pub apparmor: bool,
    /// Whether SELinux is on.
    pub selinux: bool,
    /// Whether this process can make mounts that show files with other owners.
    pub idmapped_mounts: bool,
    /// Which foreign programs the kernel has an interpreter for.
    pub emulators: Vec<String>,
    /// `/dev/fuse` can be opened by this user.
    pub fuse: bool,
    /// `/dev/net/tun` can be opened by this user.
    pub tun: bool,
    /// Control groups.
    pub cgroups: CgroupSupport,
}

impl Probe {
    /// That of this machine, as this process is now.
    pub fn get() -> &'static Self {
        static PROBE: OnceLock<Probe> = OnceLock::new();
        PROBE.get_or_init(Self::look)
    }

    fn look() -> Self {
        Self {
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            seccomp: sys::has_seccomp_filter(),
            landlock: sys::landlock_version(),
            apparmor: starts_with("/sys/module/apparmor/parameters/enabled", "Y"),
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
            idmapped_mounts: has_idmapped_mounts().unwrap_or(false),
            emulators: emulators(),
            fuse: can_open("/dev/fuse"),
            tun: can_open("/dev/net/tun"),
            cgroups: CgroupSupport::get().clone(),
        }
    }
}

fn starts_with(path: &str, text: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|content| content.starts_with(text))
}

fn can_open(path: &str) -> bool {
    access(path, Rights::READ_OK | Rights::WRITE_OK).is_ok()
}

/// Asks for one with the machine's own ids. No kernel makes that: one that has such mounts refuses these ids, any other the whole idea.
fn has_idmapped_mounts() -> io::Result<bool> {
    let ids = fs::File::open("/proc/self/ns/user")?;
    let mount = filesystem("tmpfs", &[], MountAttrFlags::empty())?;
    let refused = sys::mount_idmapped(mount.as_fd(), ids.as_fd()).err();
    Ok(refused.is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied))
}

fn emulators() -> Vec<String> {
    let entries = fs::read_dir(BINFMT).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_emulator = |path: &PathBuf| {
        fs::read_to_string(path).is_ok_and(|text| text.starts_with("enabled") && text.contains("interpreter"))
    };
    let name = |path: PathBuf| Some(path.file_name()?.to_string_lossy().into_owned());
    let mut names: Vec<String> = entries.filter(is_emulator).filter_map(name).collect();
    names.sort();
    names
}
