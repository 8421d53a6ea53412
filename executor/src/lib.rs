//! Runs one process in a container.
//!
//! A container here is: a root file system, mounts in it, a set of namespaces of its own (PID, mount, IPC, UTS, cgroup, and
//! network unless it shares the host's), fewer capabilities, a filter for system calls, and one process that sees
//! nothing else. When that process ends, the kernel ends all others in its PID namespace.
//!
//! How a process comes to be:
//!
//! 1. [`Executor::spawn`] opens all that comes from the host (the root, the sources of binds) as detached mounts.
//! 2. A thread of its own `clone3`s into the new namespaces. The child of a threaded program may only make system calls,
//!    so it makes three and executes this very program again as `rbuild-init`, through a read-only view of it.
//! 3. [`init_hook`], the first line of `main`, finds that name. Init is a fresh, single-threaded program, PID 1 of the
//!    new namespaces, and does the rest in ordinary code: mounts, `pivot_root`, user, capabilities, filter, `execve`.
//! 4. It tells the parent over a socket what it does (`handshake.rs`). A step that the kernel refuses comes back by name.
//!
//! A further process joins a container that runs in the same way: [`Executor::join`].
//!
//! Where there are no namespaces to be had, `plain.rs` runs a process in a mere root directory.
//!
//! What holds, whatever happens: no mount is visible outside of the container; a path in the container is resolved
//! beneath its root; the process has descriptors 0, 1 and 2 and no other; when rbuild dies, the kernel kills the container.

mod capability;
pub mod cgroup;
mod confinement;
mod container;
mod describe;
pub mod detached;
mod error;
mod handshake;
mod init;
mod laid_over;
mod memory;
mod mount;
pub mod network;
mod output;
mod plain;
pub mod probe;
mod process;
pub mod rootless;
mod running;
mod seccomp;
mod spawn;
mod sys;
mod trust;
pub mod user;

pub use capability::Capabilities;
pub use confinement::{Confinement, ConfinementError};
pub use container::{Container, Device, DeviceAccess, Names, PidNamespace, Security};
pub use error::{Error, Note};
pub use init::init_hook;
pub use memory::Access;
pub use mount::{Mount, MountFlags, MountSource, PlainRoot, Root, Stubs, TmpfsOptions};
pub use network::{Connection, Dns, Network, Networks};
pub use output::{OutputSink, Stdio, Stream, TerminalSize};
pub use process::{Exit, Process, Resource, Ulimit};
pub use running::{Handle, Running};
pub use seccomp::{ProfileError, Seccomp};
pub use spawn::{Executor, ExecutorOptions};
pub use trust::{Trust, TrustError};
