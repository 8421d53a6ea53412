//! The container's file systems, up to `pivot_root`.
//!
//! Where things are until then: a small tmpfs of our own, the *scratch*, is mounted over `/`. Nothing sees it by path (a
//! process's root directory is what lies below), so no directory of the host is needed and the host's paths stay usable.
//! The container's root is attached in the scratch, all else in the container's root, by descriptor.
//! Detaching the old root at the end takes the scratch with it.

use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, StatxFlags, chownat, fstat, makedev, mkdirat, mknodat, openat,
    statx, symlinkat,
};
use rustix::io::Errno;
use rustix::mount::{
    MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change,
    move_mount, open_tree, unmount,
};

use super::targets::{Kind, Targets, kind_of, open_beneath};
use crate::error::Note;
use crate::handshake::{Channel, Failure, Message, NewPlace, SourceSpec, Spec, Step, StepExt as _};
use crate::mount::{MountFlags, TmpfsOptions, filesystem};
use crate::sys::{self, MountChange};

/// Docker's size of `/dev`.
const DEV_SIZE: &str = "65536k";
/// The scratch holds two small files.
const SCRATCH_SIZE: &str = "1m";
/// For all users, as `/tmp` is: the kernel's own choice.
const TMPFS_MODE_DEFAULT: u32 = 0o1777;
/// Where the files are that say how names are looked up.
const ETC: &str = "etc";
/// The group `tty`, which terminals belong to on every distribution.
const TTY_GROUP: &str = "5";

/// Nothing below can gain privileges, be a device, or be executed.
const INERT: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NODEV)
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

const READONLY: MountChange =
    MountChange { set: libc::MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, recursive: true };

const PRIVATE: MountChange = MountChange { set: 0, clear: 0, propagation: libc::MS_PRIVATE, recursive: true };

/// Device files: name, major, minor.
pub(crate) const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// What is there beside them without protection, where the kernel has it and lets it be made. BuildKit's list.
const INSECURE_DEVICES: [(&str, u32, u32); 6] = [
    ("kmsg", 1, 11),
    ("cuse", 10, 203),
    ("fuse", 10, 229),
    ("kvm", 10, 232),
    ("net/tun", 10, 200),
    ("loop-control", 10, 237),
];
/// What of the machine's `/dev` is never shown: terminals, memory and queues are a container's own.
const OWN_DIRECTORIES: [&str; 3] = ["pts", "shm", "mqueue"];
/// How deep devices are looked for: `/dev/bus/usb/001/002`.
const DEVICE_DEPTH_MAX: u32 = 4;
/// The device number of loop devices, and how many are there.
const LOOP_MAJOR: u32 = 7;
const LOOP_DEVICES: u32 = 16;

pub(crate) const DEV_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// What a sandbox must not read: it tells of the machine, or of other containers. Docker's list.
const MASKED: [&str; 12] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
];

/// What a sandbox must not write: it changes the machine. Docker's list.
const PROC_READONLY: [&str; 5] = ["proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger"];

/// Makes the whole tree of mounts and moves into it.
pub(super) fn set_up(
    place: &NewPlace,
    spec: &Spec,
    descriptors: Vec<OwnedFd>,
    channel: &mut Channel,
) -> Step<()> {
    // Before anything is mounted: nothing may reach the host.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .step("make the mount namespace private")?;
    let scratch = scratch(place)?;
    let root = descriptors[place.root].as_fd();
    attach_root(root, &scratch)?;

    let mut container = Mounter { targets: Targets { root, channel }, scratch, insecure: spec.insecure };
    container.proc()?;
    container.sysctls(&place.sysctls)?;
    container.sys()?;
    let dev = container.dev(place)?;
    for (name, content) in spec.process.trust.files(root) {
        write_file(&dev, name, &content)?;
    }
    if place.masked {
        container.protect(&dev)?;
    }
    container.declared(place, &descriptors)?;
    // What is mounted in it has flags of its own.
    let flags = MountFlags { readonly: place.readonly_root, nodev: place.nodev, ..MountFlags::default() };
    let change = MountChange { recursive: false, ..change(flags) };
    sys::mount_setattr(root, change).step("set the flags of the root")?;
    pivot(root)
}

fn scratch(place: &NewPlace) -> Step<OwnedFd> {
    let scratch = filesystem("tmpfs", &[("size", SCRATCH_SIZE), ("mode", "0700")], INERT)
        .step("create a scratch file system")?;
    let to_root = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&scratch, "", CWD, "/", to_root).step_at("mount a scratch file system on", "/")?;
    for directory in ["root", "empty"] {
        mkdirat(&scratch, directory, Mode::from_raw_mode(0o755)).step("fill the scratch file system")?;
    }
    place.etc.iter().try_for_each(|(name, text)| write_file(&scratch, name, text.as_bytes()))?;
    Ok(scratch)
}

fn write_file(directory: &OwnedFd, name: &str, content: &[u8]) -> Step<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = openat(directory, name, flags, Mode::from_raw_mode(0o644)).step_at("create", name)?;
    std::fs::File::from(file).write_all(content).step_at("write", name)
}

fn attach_root(root: BorrowedFd<'_>, scratch: &OwnedFd) -> Step<()> {
    sys::mount_setattr(root, PRIVATE).step("make the root private")?;
    move_mount(root, "", scratch, "root", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step("attach the root")
}

/// Makes `root` the root of this namespace and lets go of the old one.
fn pivot(root: BorrowedFd<'_>) -> Step<()> {
    rustix::process::fchdir(root).step("enter the root")?;
    // With both names the same, the old root ends up on top of the new one, and needs no directory there.
    rustix::process::pivot_root(".", ".").step("pivot to the root")?;
    // The topmost mount goes first: that is the scratch, which lies on the old root.
    unmount(".", UnmountFlags::DETACH).step("detach the scratch file system")?;
    unmount(".", UnmountFlags::DETACH).step("detach the host's root")?;
    rustix::process::chdir("/").step_at("change to", "/")?;
    confirm_alone(root)
}

/// All isolation rests on this, so it is looked at once more: what lies on top of the root, which `/..` leads to, is the
/// root itself.
fn confirm_alone(root: BorrowedFd<'_>) -> Step<()> {
    let mount_of = |directory: BorrowedFd<'_>, path: &str, flags| {
        statx(directory, path, flags, StatxFlags::MNT_ID)
            .step_at("examine", path)
            .map(|statx| statx.stx_mnt_id)
    };
    let top = mount_of(CWD, "/..", AtFlags::empty())?;
    if top == mount_of(root, "", AtFlags::EMPTY_PATH)? {
        return Ok(());
    }
    Err(Errno::XDEV).step("leave the host's root")
}

/// A detached copy of what `path` shows, with what is mounted below it.
fn copy(directory: impl AsFd, path: &str) -> rustix::io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    open_tree(directory, path, flags)
}

fn attach(mount: impl AsFd, target: impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

struct Mounter<'a> {
    targets: Targets<'a>,
    scratch: OwnedFd,
    insecure: bool,
}

impl Mounter<'_> {
    /// Mounts `mount` on `target`, which is made when it is missing.
    fn place(&mut self, mount: &OwnedFd, target: &Path, kind: Kind) -> Step<()> {
        let place = self.targets.open(target, kind)?;
        attach(mount, &place).step_at("mount on", target)
    }

    fn note(&mut self, note: Note) -> Step<()> {
        self.targets
            .channel
            .send(&Message::Note(note))
            .map_err(|error| Failure::Handshake { reason: error.to_string() })
    }

    fn proc(&mut self) -> Step<()> {
        let proc = match filesystem("proc", &[], INERT) {
            Err(Errno::PERM) => {
                self.note(Note::OuterProc)?;
                copy(CWD, "/proc")
            }
            other => other,
        };
        self.place(&proc.step_at("mount", "/proc")?, Path::new("proc"), Kind::Directory)
    }

    fn sys(&mut self) -> Step<()> {
        let readonly = !self.insecure;
        let flags = if readonly { INERT.union(MountAttrFlags::MOUNT_ATTR_RDONLY) } else { INERT };
        match filesystem("sysfs", &[], flags) {
            Err(Errno::PERM) => {
                self.note(Note::OuterSys)?;
                let sys = copy(CWD, "/sys").step_at("copy", "/sys")?;
                let flags = MountFlags { readonly: true, nosuid: true, nodev: true, noexec: true };
                sys::mount_setattr(sys.as_fd(), change(flags)).step_at("make read-only", "/sys")?;
                self.place(&sys, Path::new("sys"), Kind::Directory)
            }
            sys => {
                self.place(&sys.step_at("mount", "/sys")?, Path::new("sys"), Kind::Directory)?;
                self.cgroup(flags)
            }
        }
    }

    /// Shows the container's own cgroup, where the host has version 2. Version 1 has no view that is safe to show.
    fn cgroup(&self, flags: MountAttrFlags) -> Step<()> {
        let is_version_2 = rustix::fs::statfs("/sys/fs/cgroup")
            .is_ok_and(|statfs| i128::from(statfs.f_type) == i128::from(libc::CGROUP2_SUPER_MAGIC));
        if !is_version_2 {
            return Ok(());
        }
        // Not all user namespaces may mount it; a container does without.
        let Ok(cgroup) = filesystem("cgroup2", &[], flags) else { return Ok(()) };
        let path = Path::new("sys/fs/cgroup");
        let place = open_beneath(self.targets.root, path).step_at("open the mount target", path)?;
        attach(&cgroup, &place).step_at("mount on", path)
    }

    /// Sets kernel parameters, those that are a namespace's.
    fn sysctls(&self, sysctls: &[(String, String)]) -> Step<()> {
        for (name, value) in sysctls {
            let path = Path::new("proc/sys").join(name);
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let file = openat(self.targets.root, &path, flags, Mode::empty());
            let mut file = std::fs::File::from(file.step_at("open the kernel parameter", &path)?);
            file.write_all(value.as_bytes()).step_at("set the kernel parameter", &path)?;
        }
        Ok(())
    }

    fn dev(&mut self, place: &NewPlace) -> Step<OwnedFd> {
        let nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID;
        let dev =
            filesystem("tmpfs", &[("mode", "0755"), ("size", DEV_SIZE)], nosuid).step_at("mount", "/dev")?;
        self.place(&dev, Path::new("dev"), Kind::Directory)?;
        for (name, major, minor) in DEVICES {
            device(&dev, name, major, minor).step_at("create the device", Path::new("/dev").join(name))?;
        }
        for (name, to) in DEV_LINKS {
            symlinkat(to, &dev, name).step_at("link", Path::new("/dev").join(name))?;
        }
        for name in OWN_DIRECTORIES {
            mkdirat(&dev, name, Mode::from_raw_mode(0o755))
                .step_at("create", Path::new("/dev").join(name))?;
        }
        match (self.insecure, place.machine_devices) {
            (true, true) => machine_devices(Path::new("/dev"), dev.as_fd(), 0),
            (true, false) => insecure_devices(&dev),
            (false, _) => {}
        }
        submount(&dev, "pts", devpts())?;
        let own = place.shm_size_bytes.to_string();
        let own = || filesystem("tmpfs", &[("mode", "1777"), ("size", &own)], INERT);
        submount(&dev, "shm", if place.machine_ipc { copy(CWD, "/dev/shm") } else { own() })?;
        let own = || filesystem("mqueue", &[], INERT);
        match if place.machine_ipc { copy(CWD, "/dev/mqueue") } else { own() } {
            // A kernel without message queues, or a machine that shows none.
            Err(Errno::NODEV | Errno::NOENT) => {}
            mqueue => submount(&dev, "mqueue", mqueue)?,
        }
        Ok(dev)
    }

    /// Hides and protects what in `/proc` and `/sys` is the machine's and not the container's.
    fn protect(&self, dev: &OwnedFd) -> Step<()> {
        for path in MASKED {
            let Ok(place) = open_beneath(self.targets.root, Path::new(path)) else { continue };
            let cover = match kind_of(&place).step_at("examine", path)? {
                Kind::Directory => copy(&self.scratch, "empty"),
                Kind::File => copy(dev, "null"),
            };
            let cover = cover.step_at("hide", path)?;
            sys::mount_setattr(cover.as_fd(), READONLY).step_at("hide", path)?;
            attach(&cover, &place).step_at("hide", path)?;
        }
        for path in PROC_READONLY {
            let Ok(place) = open_beneath(self.targets.root, Path::new(path)) else { continue };
            let same = copy(&place, "").step_at("make read-only", path)?;
            sys::mount_setattr(same.as_fd(), READONLY).step_at("make read-only", path)?;
            attach(&same, &place).step_at("make read-only", path)?;
        }
        Ok(())
    }

    /// Mounts a file of `/etc` that lies in the scratch under the same name.
    fn etc(&mut self, path: &Path, place: &NewPlace) -> Step<()> {
        let readonly = !place.etc_writable || place.readonly_root;
        let flags = MountFlags { readonly, nosuid: true, nodev: true, noexec: true };
        let target = match self.targets.open(path, Kind::File) {
            // What is mounted there lacks the file, and nobody may write to it: the container has none.
            Err(Failure::Step { errno: libc::EROFS | libc::EACCES | libc::EPERM, .. }) => return Ok(()),
            opened => opened?,
        };
        let name = path.strip_prefix(ETC).unwrap_or(path);
        let file = copy(&self.scratch, &name.to_string_lossy()).step_at("copy", path)?;
        sys::mount_setattr(file.as_fd(), change(flags)).step_at("protect", path)?;
        attach(&file, &target).step_at("mount on", path)
    }

    fn bind(&mut self, source: &OwnedFd, target: &Path, flags: MountFlags) -> Step<()> {
        let private = MountChange { propagation: libc::MS_PRIVATE, ..change(flags) };
        sys::mount_setattr(source.as_fd(), private).step_at("set the flags of", target)?;
        let kind = kind_of(source).step_at("examine the source of", target)?;
        self.place(source, target, kind)
    }

    /// A copy of what is at `path` in a detached mount. The whole stays in the scratch, and goes with it.
    fn part(&self, mount: &OwnedFd, index: usize, path: &Path) -> Step<OwnedFd> {
        let name = format!("source-{index}");
        mkdirat(&self.scratch, name.as_str(), Mode::from_raw_mode(0o700))
            .step("fill the scratch file system")?;
        move_mount(mount, "", &self.scratch, name.as_str(), MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .step_at("attach the source of a mount for", path)?;
        let inside = path.strip_prefix("/").unwrap_or(path);
        let place = open_beneath(mount.as_fd(), inside).step_at("open the source of a mount", path)?;
        copy(&place, "").step_at("copy the source of a mount", path)
    }

    /// The permissions of a target, if it is there.
    fn mode_of(&self, target: &Path) -> Option<u32> {
        let stat = open_beneath(self.targets.root, target).and_then(fstat).ok()?;
        Some(Mode::from_raw_mode(stat.st_mode).as_raw_mode())
    }

    /// The files of `/etc` and what the caller asked for; what lies deeper comes later, so that it is not covered, and of the same
    /// place what the caller asked for.
    fn declared(&mut self, place: &NewPlace, descriptors: &[OwnedFd]) -> Step<()> {
        let etc = place.etc.iter().map(|(name, _)| (Path::new(ETC).join(name), None));
        let asked = place.mounts.iter().map(|mount| (normal(&mount.target), Some(mount)));
        let mut mounts: Vec<_> = etc.chain(asked).collect();
        mounts.sort_by_key(|(target, mount)| match mount {
            // What a step mounts on `/etc` may lack them and be read-only: it covers them, as in BuildKit.
            None if !place.etc_writable => 0,
            _ => target.components().count(),
        });
        let mut all_tmpfs = Vec::new();
        for (target, mount) in mounts {
            let Some(mount) = mount else {
                self.etc(&target, place)?;
                continue;
            };
            match &mount.source {
                SourceSpec::Detached(index) => self.bind(&descriptors[*index], &target, mount.flags)?,
                SourceSpec::Within { mount: index, path } => {
                    let source = self.part(&descriptors[*index], *index, path)?;
                    self.bind(&source, &target, mount.flags)?;
                }
                SourceSpec::Tmpfs(options) => {
                    let mode = options.mode.or_else(|| self.mode_of(&target)).unwrap_or(TMPFS_MODE_DEFAULT);
                    let tmpfs = tmpfs(options, mode).step_at("create a tmpfs for", &target)?;
                    self.place(&tmpfs, &target, Kind::Directory)?;
                    all_tmpfs.push((tmpfs, mount.flags, target));
                }
            }
        }
        // One that may not be written to has a place by now for all that lies in it.
        all_tmpfs.into_iter().try_for_each(|(tmpfs, flags, target)| {
            sys::mount_setattr(tmpfs.as_fd(), change(flags)).step_at("set the flags of", target)
        })
    }
}

/// Relative to the root, without `.` and `..`, which are taken by the letter: `/a/../b` is `/b` whatever `/a` is.
fn normal(target: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in target.components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::ParentDir => {
                normal.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    normal
}

fn change(flags: MountFlags) -> MountChange {
    let bits = [
        (flags.readonly, libc::MOUNT_ATTR_RDONLY),
        (flags.nosuid, libc::MOUNT_ATTR_NOSUID),
        (flags.nodev, libc::MOUNT_ATTR_NODEV),
        (flags.noexec, libc::MOUNT_ATTR_NOEXEC),
    ];
    let set = bits.iter().filter(|(wanted, _)| *wanted).fold(0, |set, (_, bit)| set | bit);
    MountChange { set, clear: 0, propagation: 0, recursive: true }
}

fn tmpfs(options: &TmpfsOptions, mode: u32) -> rustix::io::Result<OwnedFd> {
    let mode = format!("{mode:o}");
    let numbers = [
        ("size", options.size_bytes),
        ("nr_inodes", options.inodes_max),
        ("uid", options.uid.map(u64::from)),
        ("gid", options.gid.map(u64::from)),
    ];
    let numbers: Vec<(&str, String)> =
        numbers.into_iter().filter_map(|(name, number)| Some((name, number?.to_string()))).collect();
    let mut words = vec![("mode", mode.as_str())];
    words.extend(numbers.iter().map(|(name, number)| (*name, number.as_str())));
    filesystem("tmpfs", &words, MountAttrFlags::empty())
}

fn submount(dev: &OwnedFd, name: &str, mount: rustix::io::Result<OwnedFd>) -> Step<()> {
    let path = || Path::new("/dev").join(name);
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mount.step_at("mount", path())?, "", dev, name, flags).step_at("mount on", path())
}

/// A set of terminals of its own.
fn devpts() -> rustix::io::Result<OwnedFd> {
    let options = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", TTY_GROUP)];
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    match filesystem("devpts", &options, attributes) {
        // The group is not mapped into this user namespace.
        Err(Errno::INVAL) => filesystem("devpts", &options[..3], attributes),
        other => other,
    }
}

/// A user namespace may not make device files; there the host's own is shown.
fn device(dev: &OwnedFd, name: &str, major: u32, minor: u32) -> rustix::io::Result<()> {
    let mode = Mode::from_raw_mode(0o666);
    match mknodat(dev, name, FileType::CharacterDevice, mode, makedev(major, minor)) {
        Err(Errno::PERM) => {}
        other => return other,
    }
    drop(openat(dev, name, OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, mode)?);
    let host = copy(CWD, &format!("/dev/{name}"))?;
    move_mount(host, "", dev, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// All devices of the machine that are not there yet; programs that need one that cannot be made say so better.
fn machine_devices(machine: &Path, dev: BorrowedFd<'_>, depth: u32) {
    for entry in std::fs::read_dir(machine).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Ok(stat) = rustix::fs::lstat(&path) else { continue };
        let (kind, mode) =
            (FileType::from_raw_mode(stat.st_mode), Mode::from_raw_mode(stat.st_mode & 0o7777));
        match kind {
            // That one is the container's own terminal, if it has one.
            FileType::CharacterDevice if name == "console" => {}
            FileType::CharacterDevice | FileType::BlockDevice => {
                let owner = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
                if mknodat(dev, &name, kind, mode, stat.st_rdev).is_ok() {
                    let _ = chownat(dev, &name, Some(owner.0), Some(owner.1), AtFlags::SYMLINK_NOFOLLOW);
                }
            }
            FileType::Directory
                if depth < DEVICE_DEPTH_MAX && !OWN_DIRECTORIES.iter().any(|own| name == *own) =>
            {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let _ = mkdirat(dev, &name, Mode::from_raw_mode(0o755));
                if let Ok(below) = openat(dev, &name, flags, Mode::empty()) {
                    machine_devices(&path, below.as_fd(), depth + 1);
                }
            }
            _ => {}
        }
    }
}

/// A user namespace may make none of them; programs that need one say so better.
fn insecure_devices(dev: &OwnedFd) {
    let make = |name: &str, kind: FileType, major: u32, minor: u32| {
        let _ = mknodat(dev, name, kind, Mode::from_raw_mode(0o660), makedev(major, minor));
    };
    let _ = mkdirat(dev, "net", Mode::from_raw_mode(0o755));
    for (name, major, minor) in INSECURE_DEVICES {
        make(name, FileType::CharacterDevice, major, minor);
    }
    for minor in 0..LOOP_DEVICES {
        make(&format!("loop{minor}"), FileType::BlockDevice, LOOP_MAJOR, minor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_become_relative_and_plain() {
        for (from, to) in [("/a/b", "a/b"), ("a/./b/", "a/b"), ("/", ""), ("/a/../b", "b"), ("/../x", "x")] {
            assert_eq!(normal(Path::new(from)), Path::new(to));
        }
    }
}
