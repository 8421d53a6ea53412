//! Places at which the store can be made to fail, so that tests can prove what a crash or a full disk leaves.
//!
//! There is one before every write, sync, rename and transaction that a promise of the store rests on, and one after each
//! step that cannot be taken back. They are listed here and nowhere else; a test of the command kills rbuild at every one of
//! them. A release build has none: `FailPoint::reach` is empty there.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::process::{Signal, getpid, kill_process};

macro_rules! fail_points {
    ($($(#[doc = $doc:literal])* $point:ident $name:literal,)*) => {
        /// A place at which the store can be made to fail.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum FailPoint {
            $($(#[doc = $doc])* $point,)*
        }

        impl FailPoint {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$point,)*];

            /// What it is called in a [`Failing`].
            pub const fn name(self) -> &'static str {
                match self { $(Self::$point => $name,)* }
            }
        }
    };
}

fail_points! {
    /// Before a directory of a new store is made.
    StoreDirectory "store-directory",
    /// Before a new store is given its version.
    StoreVersion "store-version",
    /// A lock file was made, but is not locked.
    LockFile "lock-file",
    /// Before a part of a blob is written.
    BlobWrite "blob-write",
    /// Before a blob is made durable.
    BlobSync "blob-sync",
    /// Before a blob is given its name.
    BlobRename "blob-rename",
    /// A blob has its name.
    BlobNamed "blob-named",
    /// A directory for a layer in the making was made, but is not locked.
    ActiveDirectory "active-directory",
    /// Before an entry of an archive is unpacked.
    LayerEntry "layer-entry",
    /// Before a layer is given its name, inside the transaction that adds its row.
    LayerRename "layer-rename",
    /// A layer has its name, but its row is not committed.
    LayerNamed "layer-named",
    /// Before something is moved to the trash.
    TrashRename "trash-rename",
    /// Before something is removed from the trash.
    TrashRemove "trash-remove",
    /// Before a complete cache mount is given its name.
    CacheMountRename "cache-mount-rename",
    /// A cache mount has its name.
    CacheMountNamed "cache-mount-named",
    /// Before a transaction begins.
    TransactionBegin "transaction-begin",
    /// Before a transaction is committed.
    TransactionCommit "transaction-commit",
    /// A transaction is committed, but nobody knows.
    TransactionCommitted "transaction-committed",
}

/// How to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// The process kills itself.
    Kill,
    /// The system is said to have refused.
    Errno(Errno),
}

/// What is to fail, as it is written: `POINT[:COUNT]=kill|enospc|eio`, from the `COUNT`th time on that the point is reached.
#[derive(Debug)]
pub struct Failing {
    point: FailPoint,
    reached_before: AtomicU64,
    first: u64,
    failure: Failure,
}

/// What was written is no [`Failing`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not of the form POINT[:COUNT]=kill|enospc|eio")]
pub struct NotFailing;

static FAILING: OnceLock<Failing> = OnceLock::new();

impl FromStr for Failing {
    type Err = NotFailing;

    fn from_str(text: &str) -> Result<Self, NotFailing> {
        let (place, failure) = text.split_once('=').ok_or(NotFailing)?;
        let (name, first) = match place.split_once(':') {
            Some((name, count)) => (name, count.parse().map_err(|_| NotFailing)?),
            None => (place, 1),
        };
        let failure = match failure {
            "kill" => Failure::Kill,
            "enospc" => Failure::Errno(Errno::NOSPC),
            "eio" => Failure::Errno(Errno::IO),
            _ => return Err(NotFailing),
        };
        let point = FailPoint::ALL.iter().find(|point| point.name() == name).ok_or(NotFailing)?;
        Ok(Self { point: *point, reached_before: AtomicU64::new(0), first, failure })
    }
}

impl fmt::Display for FailPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Failing {
    /// Makes this process fail so from now on. Once for a process.
    pub fn arm(self) {
        // What was armed first stays.
        drop(FAILING.set(self));
    }

    fn reach(&self) -> io::Result<()> {
        if self.reached_before.fetch_add(1, Ordering::Relaxed) + 1 < self.first {
            return Ok(());
        }
        match self.failure {
            Failure::Kill => Ok(kill_process(getpid(), Signal::KILL)?),
            Failure::Errno(errno) => Err(errno.into()),
        }
    }
}

impl FailPoint {
    /// Fails here, if that is what was asked for.
    pub(crate) fn reach(self) -> io::Result<()> {
        if !cfg!(debug_assertions) {
            return Ok(());
        }
        match FAILING.get() {
            Some(failing) if failing.point == self => failing.reach(),
            _ => Ok(()),
        }
    }

    /// The same inside SQLite.
    pub(crate) fn reach_in_database(self) -> rusqlite::Result<()> {
        use rusqlite::ffi;
        self.reach().map_err(|error| {
            let full = Errno::from_io_error(&error) == Some(Errno::NOSPC);
            let code = if full { ffi::SQLITE_FULL } else { ffi::SQLITE_IOERR };
            rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_read() {
        let failing: Failing = "blob-sync:3=enospc".parse().unwrap();
        assert_eq!((failing.point, failing.first), (FailPoint::BlobSync, 3));
        for wrong in ["", "blob-sync", "blob-sync=", "blob-sync:x=kill", "nowhere=kill", "blob-sync=stop"] {
            assert_eq!(wrong.parse::<Failing>().unwrap_err(), NotFailing, "{wrong}");
        }
    }

    #[test]
    fn it_fails_from_the_given_time_on() {
        let failing: Failing = "blob-sync:3=eio".parse().unwrap();
        let failed: Vec<bool> = (0..5).map(|_| failing.reach().is_err()).collect();
        assert_eq!(failed, [false, false, true, true, true]);
    }
}
