//! Linux capabilities as a set of bits.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The capabilities by number, as `linux/capability.h` counts them.
const NAMES: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// A set of capabilities; bit `n` is capability number `n`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Capabilities(u64);

impl Capabilities {
    /// No capability.
    pub const NONE: Self = Self(0);
    /// What Docker gives a container: 14 capabilities.
    pub const DEFAULT: Self = Self(0xa804_25fb);
    /// To change the root directory, with which a process of user 0 leaves it.
    pub const SYS_CHROOT: Self = Self(1 << 18);
    /// To make device files.
    pub const MKNOD: Self = Self(1 << 27);
    /// Every capability, known or not.
    pub const ALL: Self = Self(u64::MAX);

    /// The one capability of that name, with or without `CAP_`, in any case; `ALL` is all of them.
    pub fn from_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_uppercase();
        if name == "ALL" {
            return Some(Self::ALL);
        }
        let bare = name.strip_prefix("CAP_").unwrap_or(&name);
        NAMES.iter().position(|known| known["CAP_".len()..] == *bare).map(|number| Self(1 << number))
    }

    /// The members of either set.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The members of this set that are not in `other`.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The members of both sets.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether every member of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The set as the kernel writes it in `/proc/PID/status`.
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Debug for Capabilities {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let members = NAMES.iter().enumerate().filter(|(number, _)| self.0 >> number & 1 == 1);
        formatter.debug_set().entries(members.map(|(_, name)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_any_spelling() {
        for name in ["CAP_SYS_ADMIN", "sys_admin", "Cap_Sys_Admin"] {
            assert_eq!(Capabilities::from_name(name).map(Capabilities::bits), Some(1 << 21), "{name}");
        }
        assert_eq!(Capabilities::from_name("all"), Some(Capabilities::ALL));
        for name in ["", "CAP_", "CAP_NOSUCH", "CAP_CAP_CHOWN"] {
            assert_eq!(Capabilities::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn the_default_set_is_dockers() {
        let names = "chown dac_override fsetid fowner mknod net_raw setgid setuid setfcap setpcap \
                     net_bind_service sys_chroot kill audit_write";
        let set = names
            .split_whitespace()
            .map(|name| Capabilities::from_name(name).unwrap())
            .fold(Capabilities::NONE, Capabilities::union);
        assert_eq!(set, Capabilities::DEFAULT);
    }
}
