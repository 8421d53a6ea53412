//! What control groups this machine has, and where this process may make some.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;

use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

use super::Error;
use super::limits::{Limits, Swap};

/// The group into which this process moves when it stands in the way of others.
const ASIDE: &str = "rbuild-self";

/// The version of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Version {
    /// One of several.
    V1,
    /// The unified one.
    V2,
}

macro_rules! controllers {
    ($($(#[$doc:meta])* $variant:ident $name:literal $v1:literal $v2:literal,)*) => {
        /// What counts or limits.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Controller {
            $($(#[$doc])* $variant,)*
        }

        impl Controller {
            /// Every one that is of use here.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its usual name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What a version calls it; nothing where it needs no such thing.
            const fn kernel_name(self, version: Version) -> &'static str {
                match (self, version) {
                    $((Self::$variant, Version::V1) => $v1, (Self::$variant, Version::V2) => $v2,)*
                }
            }
        }
    };
}

controllers! {
    /// Memory and swap.
    Memory "memory" "memory" "memory",
    /// Processor time.
    Cpu "cpu" "cpu" "cpu",
    /// Counts processor time.
    CpuAccounting "cpuacct" "cpuacct" "",
    /// Which processors and memory nodes.
    CpuSet "cpuset" "cpuset" "cpuset",
    /// The count of processes and threads.
    Pids "pids" "pids" "pids",
    /// Input and output of block devices.
    Io "io" "blkio" "io",
    /// Stops processes.
    Freezer "freezer" "freezer" "",
    /// Which device files can be opened; version 2 asks a program of ours.
    Devices "devices" "devices" "",
}

impl Controller {
    /// What [`super::CgroupSpec::accounting`] needs.
    pub(super) const ACCOUNTING: [Self; 5] =
        [Self::Memory, Self::CpuAccounting, Self::Pids, Self::Io, Self::Freezer];
}

impl fmt::Display for Controller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Why this process can make no groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// Nothing is mounted.
    #[error("no cgroup file system is mounted")]
    NotMounted,
    /// It is mounted read-only, as in an unprivileged container.
    #[error("the cgroup file system is mounted read-only")]
    ReadOnly,
    /// No part of the tree is this user's.
    #[error("no part of the control groups is delegated to this user")]
    NotDelegated,
}

/// A limit that this machine cannot keep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("`{option}` is without effect: {reason}")]
pub struct Discarded {
    /// The `--option` that asks for it.
    pub option: &'static str,
    /// Why not.
    pub reason: String,
}

/// One mounted tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Hierarchy {
    pub(super) version: Version,
    pub(super) mount: PathBuf,
    controllers: Vec<Controller>,
}

/// What control groups this machine has, seen from this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CgroupSupport {
    hierarchies: Vec<Hierarchy>,
    /// Where this process may make groups, below each mount: the top, or the group that was delegated to it.
    base: PathBuf,
    refusal: Option<Refusal>,
}

impl CgroupSupport {
    /// That of this process; looked at once.
    pub fn get() -> &'static Self {
        static SUPPORT: OnceLock<CgroupSupport> = OnceLock::new();
        SUPPORT.get_or_init(|| {
            let read = |path| fs::read_to_string(path).unwrap_or_default();
            Self::probe(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
        })
    }

    /// That of a process whose `/proc/self/mountinfo` and `/proc/self/cgroup` say this.
    pub(super) fn probe(mountinfo: &str, cgroup: &str) -> Self {
        let mut hierarchies: Vec<Hierarchy> = mountinfo.lines().filter_map(Hierarchy::parse).collect();
        // A tree may be mounted at several places: the first is the one where it is looked for.
        let mut seen: Vec<(Version, Vec<Controller>)> = Vec::new();
        hierarchies.retain(|one| {
            let key = (one.version, one.controllers.clone());
            let new = !seen.contains(&key);
            seen.push(key);
            new
        });
        hierarchies.sort_by_key(|hierarchy| hierarchy.version == Version::V2);
        let (base, refusal) = base(&hierarchies, own_group(cgroup, "").unwrap_or_default());
        Self { hierarchies, base, refusal }
    }

    /// Whether groups can be made at all, and why not.
    pub const fn refusal(&self) -> Option<Refusal> {
        self.refusal
    }

    /// Whether groups are made in the one that this process was started in, and not at the top.
    pub fn is_delegated(&self) -> bool {
        !self.base.as_os_str().is_empty()
    }

    /// Where each controller is found; those that are nowhere are left out.
    pub fn controllers(&self) -> Vec<(Controller, Version)> {
        let found = |one: &Controller| Some((*one, self.hierarchy(*one)?.version));
        Controller::ALL.iter().filter_map(found).collect()
    }

    /// Splits limits into those that can be kept and a word on each of the others.
    ///
    /// Where memory is limited and swap is not spoken of, as much again may be swapped out, as in Docker.
    pub fn keep(&self, limits: Limits) -> (Limits, Vec<Discarded>) {
        let mut missing = Vec::new();
        let mut discarded = Vec::new();
        for setting in limits.settings() {
            let reason = match (self.refusal, self.hierarchy(setting.controller)) {
                (Some(refusal), _) => refusal.to_string(),
                (None, None) => Error::NoController(setting.controller).to_string(),
                (None, Some(_)) => continue,
            };
            missing.push(setting.controller);
            discarded.push(Discarded { option: setting.option, reason });
        }
        let mut kept = limits.without(&missing);
        match (kept.memory_bytes, kept.memory_swap) {
            (Some(bytes), None) if self.counts_swap() => {
                kept.memory_swap = Some(Swap::Total(bytes.saturating_mul(2)));
            }
            (_, Some(_)) if !self.counts_swap() => {
                kept.memory_swap = None;
                let reason = "this kernel does not count swap".to_owned();
                discarded.push(Discarded { option: "--memory-swap", reason });
            }
            _ => {}
        }
        (kept, discarded)
    }

    /// Version 1 may be told at boot not to. Where version 2 does not, the file is seen to be missing when it is written.
    fn counts_swap(&self) -> bool {
        self.hierarchy(Controller::Memory).is_some_and(|memory| {
            memory.version == Version::V2 || memory.mount.join("memory.memsw.limit_in_bytes").exists()
        })
    }

    pub(super) fn hierarchies(&self) -> &[Hierarchy] {
        &self.hierarchies
    }

    /// The tree that has a controller.
    pub(super) fn hierarchy(&self, controller: Controller) -> Option<&Hierarchy> {
        self.hierarchies.iter().find(|hierarchy| hierarchy.has(controller))
    }

    pub(super) fn confirm(&self) -> Result<(), Error> {
        self.refusal.map_or(Ok(()), |refusal| Err(Error::Refused(refusal)))
    }

    /// The whole name of a group in a parent.
    pub(super) fn name(&self, parent: &str, name: &str) -> Result<String, Error> {
        normal(&format!("{}/{parent}/{name}", self.base.display()))
    }
}

impl Hierarchy {
    /// A line of `/proc/self/mountinfo`, if it is of such a tree and has a controller of use.
    fn parse(line: &str) -> Option<Self> {
        let (place, kind) = line.split_once(" - ")?;
        let mount = PathBuf::from(unescape(place.split(' ').nth(4)?));
        let mut kind = kind.split(' ');
        let (version, names) = match kind.next()? {
            "cgroup" => (Version::V1, kind.nth(1)?.to_owned()),
            "cgroup2" => {
                (Version::V2, fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default())
            }
            _ => return None,
        };
        let names: Vec<&str> = names.split([',', ' ', '\n']).collect();
        // What version 2 does without a controller it does as soon as it is mounted.
        let has = |one: &Controller| {
            let name = one.kernel_name(version);
            names.contains(&name) || (name.is_empty() && version == Version::V2)
        };
        let controllers: Vec<Controller> = Controller::ALL.iter().copied().filter(has).collect();
        (!controllers.is_empty()).then_some(Self { version, mount, controllers })
    }

    pub(super) fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    /// The directory of the group that a process is in whose `/proc/self/cgroup` says this.
    pub(super) fn own_group(&self, cgroup: &str) -> Option<PathBuf> {
        let controller = self.controllers.first()?.kernel_name(self.version);
        own_group(cgroup, controller).map(|group| self.mount.join(group))
    }

    /// Makes the directory of a group and those above it, ready for the controllers of `wanted`.
    pub(super) fn make(&self, name: &str, wanted: &[Controller]) -> Result<PathBuf, Error> {
        let mut path = self.mount.clone();
        for component in Path::new(name).components() {
            self.prepare_parent(&path, wanted)?;
            path.push(component);
            match fs::create_dir(&path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("create the control group", &path)(error));
                }
                _ => {}
            }
            if self.version == Version::V1 && self.has(Controller::CpuSet) {
                inherit_cpuset(&path)?;
            }
        }
        Ok(path)
    }

    /// Version 2 gives a group only the controllers that its parent passes on.
    fn prepare_parent(&self, parent: &Path, wanted: &[Controller]) -> Result<(), Error> {
        if self.version == Version::V1 {
            return Ok(());
        }
        let file = parent.join("cgroup.subtree_control");
        let passed = fs::read_to_string(&file).unwrap_or_default();
        let names = wanted.iter().filter(|one| self.has(**one)).map(|one| one.kernel_name(Version::V2));
        for name in
            names.filter(|name| !name.is_empty() && !passed.split_whitespace().any(|one| one == *name))
        {
            let value = format!("+{name}");
            let pass_on = || fs::write(&file, &value);
            pass_on()
                .or_else(|error| match error.raw_os_error() {
                    // Only a group without processes of its own passes controllers on. If they are ours, they can leave.
                    Some(libc::EBUSY) => move_aside(parent).and_then(|()| pass_on()),
                    _ => Err(error),
                })
                .map_err(Error::io(format!("write `{value}` to"), &file))?;
        }
        Ok(())
    }
}

/// Moves this process into a group of its own in `group`.
fn move_aside(group: &Path) -> io::Result<()> {
    let aside = group.join(ASIDE);
    match fs::create_dir(&aside) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::write(aside.join("cgroup.procs"), "0")
}

/// A new cpuset of version 1 has no processors, and takes no process until it has.
fn inherit_cpuset(path: &Path) -> Result<(), Error> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let file = path.join(name);
        if fs::read_to_string(&file).is_ok_and(|text| !text.trim().is_empty()) {
            continue;
        }
        let above = path.parent().unwrap_or(path).join(name);
        let value = fs::read_to_string(&above).map_err(Error::io("read", &above))?;
        fs::write(&file, value.trim()).map_err(Error::io("write", &file))?;
    }
    Ok(())
}

/// A name as a path below a mount: without a leading slash, and nothing that leads out.
pub(super) fn normal(name: &str) -> Result<String, Error> {
    let invalid = || Error::Name(name.to_owned());
    let mut normal = PathBuf::new();
    for component in Path::new(name).components() {
        match component {
            Component::Normal(name) => normal.push(name),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return Err(invalid()),
        }
    }
    let text = normal.to_str().filter(|text| !text.is_empty() && !text.contains(['\0', '\n']));
    text.map(str::to_owned).ok_or_else(invalid)
}

/// The group of this process in the tree of a controller, relative to the top. Version 2's tree names none.
fn own_group(cgroup: &str, controller: &str) -> Option<PathBuf> {
    cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, group) = (fields.next()?, fields.next()?);
        let found = controllers.split(',').any(|name| name == controller);
        found.then(|| PathBuf::from(group.trim_start_matches('/')))
    })
}

/// Where groups may be made: at the top if all trees let us, else in the own group of version 2 if that lets us.
fn base(hierarchies: &[Hierarchy], own: PathBuf) -> (PathBuf, Option<Refusal>) {
    if hierarchies.is_empty() {
        return (PathBuf::new(), Some(Refusal::NotMounted));
    }
    let refused = hierarchies.iter().map(|one| writable(&one.mount)).find_map(Result::err);
    match refused {
        None => (PathBuf::new(), None),
        Some(rustix::io::Errno::ROFS) => (PathBuf::new(), Some(Refusal::ReadOnly)),
        Some(_) => {
            let unified = hierarchies.iter().find(|one| one.version == Version::V2);
            let delegated =
                unified.is_some_and(|one| hierarchies.len() == 1 && writable(&one.mount.join(&own)).is_ok());
            if delegated { (own, None) } else { (PathBuf::new(), Some(Refusal::NotDelegated)) }
        }
    }
}

fn writable(directory: &Path) -> rustix::io::Result<()> {
    access(directory, Access::WRITE_OK | Access::EXEC_OK)
}

/// What `mountinfo` writes as `\040` and the like.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}
