//! Control groups: what the processes of a container may use, and what they have used.
//!
//! The kernel offers controllers (memory, cpu, pids, …) in trees of directories: version 2 has one tree for all of them, version 1
//! one for each, and a machine may be a hybrid. A [`Cgroup`] hides that: it is one name, below which each tree that is
//! needed has a directory. For every controller the first tree that has it counts, version 1 before version 2, as a controller
//! is never in two.
//!
//! What holds:
//!
//! * A process is in its group before it executes anything: it begins there (`entrance`), and init waits for its instructions.
//! * Whoever made a group, or opened it to look after it, holds a lock (`flock`) on its directories. One without a lock and without
//!   processes is a leftover of somebody who died; [`clean_up`] removes those.
//! * What this machine cannot limit is told beforehand ([`CgroupSupport::keep`]); what is asked of a [`Cgroup`] is done or an error.

mod devices;
mod entrance;
mod limits;
mod stats;
mod support;

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub(crate) use entrance::Entrance;
pub use limits::{CpuQuota, DeviceLimit, DeviceNumber, DeviceRate, Limits, Swap};
pub use stats::Stats;
pub use support::{CgroupSupport, Controller, Discarded, Refusal, Version};

pub(crate) use devices::DeviceKind;
pub use devices::DeviceRule;
use limits::Setting;
use support::Hierarchy;

/// The group that those of containers are in, unless another parent was asked for.
pub const PARENT_DEFAULT: &str = "rbuild";
/// How often a group is made anew that somebody else has removed meanwhile.
const MAKE_TRIES_MAX: u32 = 5;
/// How often a group is tried to be removed: processes that were killed are in it until they are gone.
const REMOVE_TRIES_MAX: u32 = 100;
/// How long to wait between.
const REMOVE_PAUSE: Duration = Duration::from_millis(5);
/// How often all processes of a group are signalled: they may fork faster than they are listed.
const KILL_ROUNDS_MAX: u32 = 100;

/// What went wrong with a group.
#[derive(Debug, Error)]
pub enum Error {
    /// This process may not make groups.
    #[error("no control groups: {0}")]
    Refused(Refusal),
    /// No tree has the controller.
    #[error("no control group controller `{0}`")]
    NoController(Controller),
    /// A name that leads out of the tree, or is none.
    #[error("invalid name of a control group: `{0}`")]
    Name(String),
    /// There is no group of that name.
    #[error("no control group `{0}`")]
    NotFound(String),
    /// The kernel refused something.
    #[error("failed to {verb} `{path}`", path = path.display())]
    Io {
        /// What was done.
        verb: String,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

impl Error {
    fn io(verb: impl Into<String>, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let (verb, path) = (verb.into(), path.to_owned());
        move |source| Self::Io { verb, path, source }
    }
}

/// A group that does not exist yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupSpec {
    /// The group it is made in, from the top of the tree; [`PARENT_DEFAULT`] when not given.
    pub parent: Option<String>,
    /// Its own name there.
    pub name: String,
    /// What its processes may use.
    pub limits: Limits,
    /// Whether [`Cgroup::stats`] and [`Cgroup::freeze`] are wanted. Without, only trees that a limit needs are touched.
    pub accounting: bool,
    /// Whether a container runs without it where it cannot be made.
    pub optional: bool,
}

impl CgroupSpec {
    /// The group, which another process has made.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, support: &CgroupSupport) -> Result<Cgroup, Error> {
        Cgroup::open(support, &self.path(support)?)
    }

    fn path(&self, support: &CgroupSupport) -> Result<String, Error> {
        support.name(self.parent.as_deref().unwrap_or(PARENT_DEFAULT), &self.name)
    }
}

/// A group of processes.
#[derive(Debug)]
pub struct Cgroup {
    name: String,
    directories: Vec<Directory>,
}

/// A group's directory in one tree.
#[derive(Debug)]
struct Directory {
    hierarchy: Hierarchy,
    path: PathBuf,
    /// Open, and locked as long as this group is looked after.
    lock: OwnedFd,
}

impl Cgroup {
    /// Makes a group with its limits.
    ///
    /// # Errors
    /// When the machine has not what it needs, or refuses a limit's value. Nothing is left then.
    pub fn create(support: &CgroupSupport, spec: &CgroupSpec) -> Result<Self, Error> {
        let settings = spec.limits.settings();
        let mut wanted: Vec<Controller> = settings.iter().map(|setting| setting.controller).collect();
        if spec.accounting {
            wanted.extend(Controller::ACCOUNTING.into_iter().filter(|one| support.hierarchy(*one).is_some()));
        }
        let name = spec.path(support)?;
        let mut group = Self { name, directories: Vec::new() };
        match group.fill(support, &wanted, &settings) {
            Ok(()) => Ok(group),
            Err(error) => {
                // The first error is the one that tells.
                drop(group.remove());
                Err(error)
            }
        }
    }

    fn fill(
        &mut self,
        support: &CgroupSupport,
        wanted: &[Controller],
        settings: &[Setting],
    ) -> Result<(), Error> {
        support.confirm()?;
        for controller in wanted {
            let hierarchy = support.hierarchy(*controller).ok_or(Error::NoController(*controller))?;
            if self.directory(*controller).is_none() {
                self.directories.push(Directory::make(hierarchy, &self.name, wanted)?);
            }
        }
        self.apply(settings)
    }

    /// The group of that name ([`Cgroup::name`]), which another process may have made.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(support: &CgroupSupport, name: &str) -> Result<Self, Error> {
        let name = support::normal(name)?;
        let mut directories = Vec::new();
        for hierarchy in support.hierarchies() {
            let path = hierarchy.path(&name);
            if path.is_dir() {
                directories.push(Directory::open(hierarchy.clone(), path)?);
            }
        }
        if directories.is_empty() { Err(Error::NotFound(name)) } else { Ok(Self { name, directories }) }
    }

    /// Refuses its processes all devices but those that a sandbox has, and these.
    ///
    /// # Errors
    /// When the machine cannot do that.
    pub(crate) fn confine_devices(
        &mut self,
        support: &CgroupSupport,
        allowed: &[DeviceRule],
    ) -> Result<(), Error> {
        self.fill(support, &[Controller::Devices], &[])?;
        let missing = Error::NoController(Controller::Devices);
        devices::confine(self.directory(Controller::Devices).ok_or(missing)?, allowed)
    }

    /// Its name from the top of the trees: what [`Cgroup::open`] takes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes limits; those not given stay as they are.
    ///
    /// # Errors
    /// When the group has no such controller, or the kernel refuses a value.
    pub fn update(&self, limits: &Limits) -> Result<(), Error> {
        self.apply(&limits.settings())
    }

    fn apply(&self, settings: &[Setting]) -> Result<(), Error> {
        for setting in settings {
            let directory =
                self.directory(setting.controller).ok_or(Error::NoController(setting.controller))?;
            directory.apply(setting)?;
        }
        Ok(())
    }

    /// Stops all processes, wherever they are, until [`Cgroup::thaw`].
    ///
    /// # Errors
    /// [`Error::NoController`] where there is no freezer.
    pub fn freeze(&self) -> Result<(), Error> {
        self.freezer()?.set_frozen(true)
    }

    /// Lets stopped processes go on.
    ///
    /// # Errors
    /// As [`Cgroup::freeze`].
    pub fn thaw(&self) -> Result<(), Error> {
        self.freezer()?.set_frozen(false)
    }

    fn freezer(&self) -> Result<&Directory, Error> {
        self.directory(Controller::Freezer).ok_or(Error::NoController(Controller::Freezer))
    }

    /// The processes that are in it, by their ids in the namespace of the caller.
    pub fn processes(&self) -> Vec<i32> {
        let Some(directory) = self.directories.first() else { return Vec::new() };
        let text = directory.read("cgroup.procs").unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Kills all processes in it, frozen ones too.
    ///
    /// # Errors
    /// When some are left that cannot be killed.
    pub fn kill(&self) -> Result<(), Error> {
        if self.directories.iter().any(|directory| directory.write("cgroup.kill", "1").is_ok()) {
            return Ok(());
        }
        for _ in 0..KILL_ROUNDS_MAX {
            let processes = self.processes();
            for pid in processes.iter().filter_map(|pid| Pid::from_raw(*pid)) {
                // One that has ended meanwhile is what is wanted.
                let _ = kill_process(pid, Signal::KILL);
            }
            if let Ok(freezer) = self.freezer() {
                freezer.set_frozen(false)?;
            }
            if processes.is_empty() {
                return Ok(());
            }
            std::thread::sleep(REMOVE_PAUSE);
        }
        Err(Error::io("kill the processes of", Path::new(&self.name))(io::ErrorKind::TimedOut.into()))
    }

    /// What its processes use and have used.
    pub fn stats(&self) -> Stats {
        stats::read(self)
    }

    /// How many of its processes the kernel has killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        self.directory(Controller::Memory).map_or(0, stats::oom_kills)
    }

    /// Removes it and all below it. Its processes must have been killed.
    ///
    /// # Errors
    /// When processes are left in it.
    pub fn remove(mut self) -> Result<(), Error> {
        let removed = self
            .directories
            .drain(..)
            .map(|directory| remove_patiently(&directory.path).map_err(Error::io("remove", &directory.path)));
        // All are tried, whatever happens to the first.
        removed.fold(Ok(()), Result::and)
    }

    fn directory(&self, controller: Controller) -> Option<&Directory> {
        self.directories.iter().find(|directory| directory.hierarchy.has(controller))
    }
}

impl Directory {
    /// Makes it and locks it. Whoever cleans up takes one that is not locked yet for a leftover, so it may have to be made again.
    fn make(hierarchy: &Hierarchy, name: &str, wanted: &[Controller]) -> Result<Self, Error> {
        let make = || hierarchy.make(name, wanted).and_then(|path| Self::open(hierarchy.clone(), path));
        let mut made = make();
        for _ in 1..MAKE_TRIES_MAX {
            if made.as_ref().is_ok_and(Self::is_there) {
                break;
            }
            made = make();
        }
        made
    }

    /// Whether its path still leads to it.
    fn is_there(&self) -> bool {
        let place = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
        let named = rustix::fs::stat(&self.path).map(place);
        named.is_ok_and(|named| rustix::fs::fstat(&self.lock).map(place) == Ok(named))
    }

    fn open(hierarchy: Hierarchy, path: PathBuf) -> Result<Self, Error> {
        let lock = open_directory(&path).map_err(Error::io("open", &path))?;
        // Shared: another process may look after the group as well. A file system without locks keeps its leftovers.
        // Who holds it alone is about to remove the group, and done in a moment.
        let _ = flock(&lock, FlockOperation::LockShared);
        Ok(Self { hierarchy, path, lock })
    }

    fn read(&self, file: &str) -> io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut text = String::new();
        let file = openat(&self.lock, file, flags, Mode::empty())?;
        io::Read::read_to_string(&mut File::from(file), &mut text)?;
        Ok(text)
    }

    /// A file of one number; none where it is not there or says `max`.
    fn number(&self, file: &str) -> Option<u64> {
        self.read(file).ok()?.trim().parse().ok()
    }

    fn write(&self, file: &str, value: &str) -> Result<(), Error> {
        let write = || {
            let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::CLOEXEC;
            let opened = openat(&self.lock, file, flags, Mode::empty())?;
            io::Write::write_all(&mut File::from(opened), value.as_bytes())
        };
        write().map_err(Error::io(format!("write `{value}` to"), &self.path.join(file)))
    }

    fn apply(&self, setting: &Setting) -> Result<(), Error> {
        let writes = setting.writes(self.hierarchy.version);
        let apply =
            |writes: &[(&str, String)]| writes.iter().try_for_each(|(file, value)| self.write(file, value));
        // Two values that bound each other (memory, and memory with swap) are set in the order in which neither is below
        // what it must not be below: which one that is depends on whether they rise or fall.
        apply(&writes).or_else(|error| {
            let reversed: Vec<_> = writes.iter().rev().cloned().collect();
            if writes.len() > 1 { apply(&reversed) } else { Err(error) }
        })
    }

    fn set_frozen(&self, frozen: bool) -> Result<(), Error> {
        match self.hierarchy.version {
            Version::V1 => self.write("freezer.state", if frozen { "FROZEN" } else { "THAWED" }),
            Version::V2 => self.write("cgroup.freeze", if frozen { "1" } else { "0" }),
        }
    }
}

fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

fn remove_patiently(path: &Path) -> io::Result<()> {
    let mut tries = 1;
    loop {
        match remove_tree(path) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && tries < REMOVE_TRIES_MAX => tries += 1,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => return other,
        }
        std::thread::sleep(REMOVE_PAUSE);
    }
}

/// A group and those below it. Their files are the kernel's and need no removal.
fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

/// A name that no other group has: `prefix`, and something that comes only once.
pub fn unique_name(prefix: &str) -> String {
    static PROCESS: LazyLock<String> = LazyLock::new(|| {
        let random = fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
        let random: String = random.chars().filter(char::is_ascii_hexdigit).take(12).collect();
        format!("{}-{random}", std::process::id())
    });
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{prefix}-{}-{}", *PROCESS, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Removes the groups in `parent` (or [`PARENT_DEFAULT`]) that nobody looks after and no process is in.
///
/// What cannot be removed stays: the next one will try again.
pub fn clean_up(support: &CgroupSupport, parent: Option<&str>) {
    let Ok(name) = support.name(parent.unwrap_or(PARENT_DEFAULT), "") else { return };
    for hierarchy in support.hierarchies() {
        let Ok(entries) = fs::read_dir(hierarchy.path(&name)) else { continue };
        // All but the groups are the kernel's files, dozens of them: they are told apart without a look at each.
        let groups = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        groups.for_each(|group| remove_leftover(&group.path()));
    }
}

fn remove_leftover(path: &Path) {
    let Ok(directory) = open_directory(path) else { return };
    if flock(&directory, FlockOperation::NonBlockingLockExclusive).is_ok() {
        drop(remove_tree(path));
    }
}

#[cfg(test)]
mod tests;
