//! How a process begins in a group.
//!
//! To move a process from group to group, the kernel stops all forks and ends of processes on the machine, for which it waits until
//! every processor has been elsewhere (`cgroup_threadgroup_rwsem`): 5 to 12 ms, as long as all else of a step. A process that begins in
//! its group was never moved:
//!
//! * Version 2 makes a child in any group (`CLONE_INTO_CGROUP`, Linux 5.7).
//! * In version 1 a child begins where the thread is that makes it. A thread that moves itself stops nobody (Linux 5.4), so ours goes
//!   there and comes back.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

use super::{Cgroup, Directory, Error, Version};

/// The list of a group's threads, in version 1.
const THREADS: &str = "tasks";
/// The list of a group's processes.
const PROCESSES: &str = "cgroup.procs";
/// What a thread writes to such a list to be in the group.
const SELF: &str = "0";

/// Where a child is to begin; where the thread is, by default.
#[derive(Debug, Default)]
pub(crate) struct Entrance(Vec<Way>);

/// The way into a group's directory in one tree.
#[derive(Debug)]
struct Way {
    group: OwnedFd,
    means: Means,
}

#[derive(Debug)]
enum Means {
    /// The kernel makes the child there.
    Born,
    /// The thread goes `there` and comes `back`.
    Visit { there: OwnedFd, back: OwnedFd },
    /// The child is moved there.
    Moved,
}

impl Cgroup {
    /// The way into it for a child of this process.
    ///
    /// # Errors
    /// When the group is gone.
    pub(crate) fn entrance(&self) -> Result<Entrance, Error> {
        self.entrance_from(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default())
    }

    /// The way into it for a child of a process whose `/proc/self/cgroup` says this.
    pub(super) fn entrance_from(&self, own_groups: &str) -> Result<Entrance, Error> {
        let way = |directory: &Directory| {
            directory.way(own_groups).map_err(Error::io("open the threads of", &directory.path))
        };
        self.directories.iter().map(way).collect::<Result<_, _>>().map(Entrance)
    }
}

impl Directory {
    fn way(&self, own_groups: &str) -> io::Result<Way> {
        let group = self.lock.try_clone()?;
        let back = self.hierarchy.own_group(own_groups).map(|path| path.join(THREADS));
        // Not found where only a part of the tree is mounted here.
        let back = back.and_then(|path| to_write(CWD, &path).ok());
        let means = match (self.hierarchy.version, back) {
            (Version::V2, _) => Means::Born,
            (Version::V1, Some(back)) => {
                Means::Visit { there: to_write(group.as_fd(), THREADS.as_ref())?, back }
            }
            (Version::V1, None) => Means::Moved,
        };
        Ok(Way { group, means })
    }
}

impl Entrance {
    /// Has the calling thread make a child that begins in the group. `make` is given the directory of version 2.
    ///
    /// # Errors
    /// When the kernel refuses the group, or what `make` fails with.
    pub(crate) fn enter<T>(
        &mut self,
        mut make: impl FnMut(Option<BorrowedFd<'_>>) -> io::Result<T>,
    ) -> io::Result<T> {
        match self.try_enter(&mut make) {
            // Nothing is forked in a group that is full, but whoever comes from elsewhere is let in: to end what fills it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.0.iter_mut().for_each(|way| way.means = Means::Moved);
                make(None)
            }
            made => made,
        }
    }

    fn try_enter<T>(&self, make: impl FnOnce(Option<BorrowedFd<'_>>) -> io::Result<T>) -> io::Result<T> {
        let gone = self.visits().try_for_each(|(there, _)| write(there, SELF));
        let unified = self.0.iter().find(|way| matches!(way.means, Means::Born)).map(|way| way.group.as_fd());
        let made = gone.and_then(|()| make(unified));
        // To where this process is all the time, which lets it in.
        self.visits().try_for_each(|(_, back)| write(back, SELF))?;
        made
    }

    fn visits(&self) -> impl Iterator<Item = (&OwnedFd, &OwnedFd)> {
        self.0.iter().filter_map(|way| match &way.means {
            Means::Visit { there, back } => Some((there, back)),
            Means::Born | Means::Moved => None,
        })
    }

    /// Moves the child to where it did not begin.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn follow(&self, pid: i32) -> io::Result<()> {
        let moved = self.0.iter().filter(|way| matches!(way.means, Means::Moved));
        for way in moved {
            write(&to_write(way.group.as_fd(), PROCESSES.as_ref())?, &pid.to_string())?;
        }
        Ok(())
    }
}

fn to_write(directory: BorrowedFd<'_>, file: &Path) -> io::Result<OwnedFd> {
    Ok(openat(directory, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn write(file: &OwnedFd, value: &str) -> io::Result<()> {
    Ok(rustix::io::write(file, value.as_bytes()).map(drop)?)
}
