//! Network namespaces, and threads that go to them.
//!
//! The namespace is a property of a thread. Threads of ours that leave the process's own end with what they were made for, so
//! no other code ever finds itself elsewhere.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use nix::sched::CloneFlags;

use super::netlink::Netlink;

/// A network namespace, and a socket to its interfaces.
#[derive(Debug)]
pub(super) struct Namespace {
    descriptor: OwnedFd,
    /// Whether it is another than the process's own, in which all threads are but those that are made here.
    is_foreign: bool,
    pub(super) netlink: Netlink,
}

impl Namespace {
    /// A new one, in which the loopback interface is on.
    pub(super) fn new() -> io::Result<Self> {
        on_thread(|| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNET)?;
            let here = Self { is_foreign: true, ..Self::current()? };
            here.netlink.set_up("lo")?;
            Ok(here)
        })
    }

    /// The process's own.
    pub(super) fn current() -> io::Result<Self> {
        let descriptor = File::open("/proc/thread-self/ns/net")?.into();
        Ok(Self { descriptor, is_foreign: false, netlink: Netlink::open()? })
    }

    /// The number that names it as long as it exists.
    pub(super) fn id(&self) -> io::Result<u64> {
        Ok(File::from(self.descriptor.try_clone()?).metadata()?.ino())
    }

    /// Does something in it.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        if !self.is_foreign {
            return work();
        }
        on_thread(|| {
            nix::sched::setns(&self.descriptor, CloneFlags::CLONE_NEWNET)?;
            work()
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("network".to_owned()).spawn_scoped(scope, work)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread in the network namespace panicked")))
    })
}
