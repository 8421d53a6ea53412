//! What of networks a machine offers, and what it lacks.

use std::fmt;
use std::io;

use thiserror::Error;

/// What is missing for steps and containers to have networks of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// The right to change the machine's interfaces, and to make a namespace with some of its own.
    Permission,
    /// The program `nft`.
    Nft,
    /// Something of the kernel: bridges, virtual interfaces, or its packet filter.
    Kernel,
    /// `pasta` and `slirp4netns`, of which a user other than root needs one.
    Relay,
    /// Access to `/dev/net/tun`, which they need.
    Tun,
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Permission => "interfaces may neither be changed here nor in a namespace of one's own",
            Self::Nft => "the program `nft` is missing or fails",
            Self::Kernel => "the kernel has no bridges, or no packet filter",
            Self::Relay => "a user other than root needs `pasta` or `slirp4netns`",
            Self::Tun => "`/dev/net/tun` cannot be opened",
        })
    }
}

/// Why there are no networks but the machine's own and none.
#[derive(Debug, Clone, Error)]
#[error("{missing} ({reason})")]
pub struct Lack {
    /// What is missing.
    pub missing: Missing,
    reason: String,
}

impl Lack {
    pub(super) fn new(missing: Missing, reason: &io::Error) -> Self {
        Self { missing, reason: reason.to_string() }
    }

    /// What kept a bridge from being made.
    pub(super) fn of_bridge(error: io::Error) -> Self {
        let missing = match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Missing::Permission,
            // The kernel's refusals have a number; those of a program or without a program have none.
            _ if error.raw_os_error() == Some(libc::ENOENT) || error.raw_os_error().is_none() => Missing::Nft,
            _ => Missing::Kernel,
        };
        Self::new(missing, &error)
    }
}

/// What networks there are besides none and the machine's own.
#[derive(Debug, Clone)]
pub enum NetworkSupport {
    /// Bridges in the machine's own namespace.
    Host,
    /// Bridges in a namespace of this process, connected by a program.
    Relayed,
    /// None.
    Lacking(Lack),
}
