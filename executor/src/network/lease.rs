//! Addresses that any number of processes take without asking each other.
//!
//! ```text
//! net/host-4026531840/lock            of a network namespace; held shared by each process that uses it
//!                    /change          held by the one that makes or removes a bridge in it
//!                    /10.90.17.4      one for each address in use, locked by the process that uses it
//! net/own-4026532711/…                a namespace that goes with the process that made it, and all that is in it
//! ```
//!
//! An address is in use as long as its file is *locked*; that there is a file says nothing. So a process that was killed
//! holds nothing, and whoever finds its file removes what it left. All names of what belongs to an address (the interface
//! on the bridge, the firewall's table for its ports) are made of the address alone: what is to be removed needs no list.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::subnet::Subnet;

/// The largest lease that is read.
const LEASE_SIZE_BYTES_MAX: u64 = 64 * 1024;
/// What the directory of a namespace is called that a process has made for itself.
pub(super) const OWN_NAMESPACE: &str = "own-";
/// What that of the machine's is called.
pub(super) const HOST_NAMESPACE: &str = "host-";

/// What is known of an address that is in use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tenant {
    /// The network.
    pub network: String,
    /// The names under which others on the network find it.
    pub names: Vec<String>,
}

/// The addresses of one namespace.
#[derive(Debug)]
pub(super) struct Leases {
    directory: PathBuf,
    #[expect(dead_code, reason = "held for its lock, which keeps the directory from being swept")]
    lock: File,
}

/// An address that is this process's until it is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    address: Ipv4Addr,
    path: PathBuf,
    #[expect(dead_code, reason = "held for its lock, which is the lease")]
    file: File,
}

impl Leases {
    /// The addresses of a namespace, whose leases are kept in `directory`.
    pub(super) fn open(directory: PathBuf) -> io::Result<Self> {
        let path = directory.join("lock");
        loop {
            fs::create_dir_all(&directory)?;
            let lock = match File::options().create(true).append(true).open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other?,
            };
            flock(&lock, FlockOperation::LockShared)?;
            // Somebody may have swept the directory away before it was locked.
            if is_at(&lock, &path)? {
                return Ok(Self { directory, lock });
            }
        }
    }

    /// Removes all of it, which is of a namespace that nobody else uses.
    pub(super) fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.directory)
    }

    /// Does something while no other process does it in this namespace.
    pub(super) fn exclusively<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let lock = File::options().create(true).append(true).open(self.directory.join("change"))?;
        flock(&lock, FlockOperation::LockExclusive)?;
        Ok(work())
    }

    /// Takes an address. The search begins at `seed`, which should be another one each time, so that an address whose interface the
    /// kernel is still removing is not taken again at once.
    pub(super) fn take(&self, subnet: Subnet, seed: u32, tenant: &Tenant) -> io::Result<Option<Lease>> {
        let offsets = subnet.offsets();
        let count = offsets.end.saturating_sub(offsets.start);
        for step in 0..count {
            let offset = offsets.start + (seed.wrapping_add(step)) % count;
            let std::net::IpAddr::V4(address) = subnet.address(offset) else { return Ok(None) };
            if let Some(lease) = self.try_take(address, tenant)? {
                return Ok(Some(lease));
            }
        }
        Ok(None)
    }

    /// Takes this address; `None` when somebody has it.
    pub(super) fn try_take(&self, address: Ipv4Addr, tenant: &Tenant) -> io::Result<Option<Lease>> {
        let path = self.directory.join(address.to_string());
        let Some(mut file) = lock(&path)? else { return Ok(None) };
        file.set_len(0)?;
        file.write_all(&serde_json::to_vec(tenant)?)?;
        Ok(Some(Lease { address, path, file }))
    }

    /// Removes the leases of the dead, each after `clean` has removed what belongs to its address.
    pub(super) fn sweep(&self, mut clean: impl FnMut(Ipv4Addr)) -> io::Result<()> {
        for (address, path) in self.files()? {
            if let Some(file) = lock(&path)? {
                clean(address);
                fs::remove_file(&path)?;
                drop(file);
            }
        }
        Ok(())
    }

    /// The addresses in use, and by whom.
    pub(super) fn tenants(&self) -> io::Result<Vec<(Ipv4Addr, Tenant)>> {
        let mut tenants = Vec::new();
        for (address, path) in self.files()? {
            let Ok(file) = File::open(&path) else { continue };
            // Nobody else asks with an exclusive lock for longer than it takes to see that it is free.
            if flock(&file, FlockOperation::NonBlockingLockShared) != Err(Errno::WOULDBLOCK) {
                continue;
            }
            let mut text = Vec::new();
            file.take(LEASE_SIZE_BYTES_MAX).read_to_end(&mut text)?;
            tenants.extend(serde_json::from_slice(&text).ok().map(|tenant| (address, tenant)));
        }
        Ok(tenants)
    }

    fn files(&self) -> io::Result<Vec<(Ipv4Addr, PathBuf)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let address = entry.file_name().to_str().and_then(|name| name.parse().ok());
            files.extend(address.map(|address| (address, entry.path())));
        }
        Ok(files)
    }
}

impl Lease {
    pub(super) const fn address(&self) -> Ipv4Addr {
        self.address
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // While it is still locked: nobody can have taken it. What stays is the next sweep's.
        drop(fs::remove_file(&self.path));
    }
}

/// The file at a path, made where it is missing, and locked; `None` when somebody else has it.
fn lock(path: &Path) -> io::Result<Option<File>> {
    loop {
        let file = File::options().create(true).truncate(false).read(true).write(true).open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        // Its last owner may have removed it between the opening and the locking.
        if is_at(&file, path)? {
            return Ok(Some(file));
        }
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt as _;
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((open.dev(), open.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes the directories of namespaces that have gone with their process.
pub(super) fn sweep_namespaces(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(OWN_NAMESPACE.as_bytes()) {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join("lock")) else { continue };
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet() -> Subnet {
        Subnet::containing(Ipv4Addr::new(10, 9, 8, 0).into(), 29)
    }

    fn leases(directory: &tempfile::TempDir) -> Leases {
        Leases::open(directory.path().join("own-1")).unwrap()
    }

    #[test]
    fn an_address_is_given_once_until_it_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let (one, other) = (leases(&directory), leases(&directory));
        let tenant = Tenant::default();
        let mut taken = Vec::new();
        for turn in 0..5 {
            let leases = if turn % 2 == 0 { &one } else { &other };
            taken.push(leases.take(subnet(), 3, &tenant).unwrap().unwrap());
        }
        let last: Vec<u8> = taken.iter().map(|lease| lease.address().octets()[3]).collect();
        assert_eq!(last, [5, 6, 2, 3, 4]);
        assert!(other.take(subnet(), 0, &tenant).unwrap().is_none());
        taken.remove(2);
        assert_eq!(other.take(subnet(), 0, &tenant).unwrap().unwrap().address(), Ipv4Addr::new(10, 9, 8, 2));
    }

    #[test]
    fn what_the_dead_left_is_swept_and_what_is_held_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let leases = leases(&directory);
        let tenant = Tenant { network: "n".into(), names: vec!["db".into()] };
        let held = leases.take(subnet(), 0, &tenant).unwrap().unwrap();
        fs::write(leases.directory.join("10.9.8.6"), "half a lea").unwrap();
        assert_eq!(leases.tenants().unwrap(), [(held.address(), tenant)]);
        let mut cleaned = Vec::new();
        leases.sweep(|address| cleaned.push(address)).unwrap();
        assert_eq!(cleaned, [Ipv4Addr::new(10, 9, 8, 6)]);
        assert_eq!(leases.files().unwrap().len(), 1);
        drop(held);
        assert_eq!(leases.files().unwrap(), []);
    }

    #[test]
    fn only_namespaces_that_die_with_their_process_are_swept() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["own-1", "own-2", "host-3"];
        let mut open: Vec<Leases> =
            names.iter().map(|name| Leases::open(directory.path().join(name)).unwrap()).collect();
        open.truncate(1);
        sweep_namespaces(directory.path()).unwrap();
        assert_eq!(names.map(|name| directory.path().join(name).exists()), [true, false, true]);
    }
}
