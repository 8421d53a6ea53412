//! Mounts of images that processes take from each other.
//!
//! What the kernel has read of a file it keeps for each mount of an image anew. So a process that mounts a layer offers its mount to all others
//! while it lives, and one that needs the layer looks for such an offer first: their containers then have one page cache.
//!
//! ```text
//! locks/mount-<image>-<process>-<descriptor>-<mount>   locked as long as the descriptor is open
//! ```
//!
//! What is mounted is named by the digest of the image and by the files that its packs are ([`ImageName`]): as long as it is mounted, no other file can be
//! one of these. A taken mount is the same open file (`pidfd_getfd(2)`), and a detached mount goes with the last descriptor of it: so whoever ends first takes nothing
//! away, and nothing has to be cleaned up. The kernel gives no two mounts of one boot the same number, so that what was taken is known to be
//! what was offered, also where the process ids are those of another namespace. Where nothing can be taken, a process mounts for itself.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use rustix::fs::{AtFlags, StatxFlags, statx};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::overlay::MountedRoot;
use crate::content_digest::Blake3;
use crate::lock::{Holder, LockFile, holder};
use crate::root_dir::At as _;
use crate::{Result, Store};

/// What a mount is asked for by its number of this boot (`STATX_MNT_ID_UNIQUE`, Linux 6.8).
const MOUNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// Says that others may take a mount. To be dropped before it.
#[derive(Debug)]
pub(super) struct Offer(#[expect(dead_code, reason = "held for its drop")] LockFile);

/// Names an image with its packs, among all that are mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageName(String);

/// What an offer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offered {
    process: i32,
    descriptor: RawFd,
    mount: u64,
}

impl ImageName {
    /// Of the image with this digest.
    pub(super) fn new(digest: Blake3, packs: &[File]) -> Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&digest);
        for pack in packs {
            let metadata = pack.metadata().at("read the attributes of", "a pack")?;
            hasher.update(&metadata.dev().to_le_bytes()).update(&metadata.ino().to_le_bytes());
        }
        Ok(Self(hasher.finalize().to_string()))
    }

    fn prefix(&self) -> String {
        format!("mount-{}-", self.0)
    }
}

impl Store {
    /// Offers a mount of an image to other processes; `None` where that cannot be, which is nobody's loss but theirs.
    pub(super) fn offer_mount(&self, image: &ImageName, root: &MountedRoot) -> Option<Offer> {
        let process = rustix::process::getpid().as_raw_nonzero();
        let (descriptor, mount) = (root.as_fd().as_raw_fd(), mount_id(root)?);
        let name = format!("{}{process}-{descriptor}-{mount}", image.prefix());
        LockFile::try_lock(self.offers().join(name)).ok().flatten().map(Offer)
    }

    /// A mount of an image that a living process offers.
    pub(super) fn take_mount(&self, image: &ImageName) -> Option<MountedRoot> {
        let prefix = image.prefix();
        let directory = self.offers();
        fs::read_dir(&directory).ok()?.flatten().find_map(|entry| {
            let name = entry.file_name();
            let offered = Offered::parse(name.to_str()?.strip_prefix(&prefix)?)?;
            let is_live = matches!(holder(&directory.join(&name)), Ok(Holder::Live(_)));
            if is_live { offered.take().map(MountedRoot::taken) } else { None }
        })
    }

    fn offers(&self) -> PathBuf {
        self.0.layout.directory("locks")
    }
}

impl Offered {
    fn parse(text: &str) -> Option<Self> {
        let mut fields = text.split('-');
        let offered = Self {
            process: fields.next()?.parse().ok()?,
            descriptor: fields.next()?.parse().ok()?,
            mount: fields.next()?.parse().ok()?,
        };
        fields.next().is_none().then_some(offered)
    }

    fn take(self) -> Option<OwnedFd> {
        let process = rustix::process::Pid::from_raw(self.process)?;
        let process = pidfd_open(process, PidfdFlags::empty()).ok()?;
        let taken = pidfd_getfd(process, self.descriptor, PidfdGetfdFlags::empty()).ok()?;
        (mount_id(&taken)? == self.mount).then_some(taken)
    }
}

/// The number that no other mount of this boot has; `None` before Linux 6.8.
fn mount_id(root: impl AsFd) -> Option<u64> {
    let found = statx(root, "", AtFlags::EMPTY_PATH, MOUNT_ID_UNIQUE).ok()?;
    (found.stx_mask & MOUNT_ID_UNIQUE.bits() != 0).then_some(found.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_read_as_it_was_written() {
        let offered = Offered { process: 7, descriptor: 12, mount: 4_294_967_400 };
        assert_eq!(Offered::parse("7-12-4294967400"), Some(offered));
        for other in ["", "7", "7-12", "7-12-x", "7-12-3-4", "-7-12-3"] {
            assert_eq!(Offered::parse(other), None, "{other}");
        }
    }

    #[test]
    fn an_image_is_named_with_the_files_of_its_packs() {
        let [one, two] = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
        let name = |digest, packs: &[&File]| {
            let packs: Vec<File> = packs.iter().map(|pack| pack.try_clone().unwrap()).collect();
            ImageName::new([digest; 32], &packs).unwrap()
        };
        let same = name(1, &[&one, &two]);
        assert_eq!(name(1, &[&one, &two]), same);
        for other in [name(2, &[&one, &two]), name(1, &[&two, &one]), name(1, &[&one]), name(1, &[])] {
            assert_ne!(other, same);
        }
    }

    #[test]
    fn what_another_descriptor_leads_to_is_not_taken() {
        let file = tempfile::tempfile().unwrap();
        let process = rustix::process::getpid().as_raw_nonzero().get();
        let Some(mount) = mount_id(&file) else { return };
        let offered = Offered { process, descriptor: file.as_raw_fd(), mount };
        assert!(offered.take().is_some());
        assert!(Offered { mount: mount + 1, ..offered }.take().is_none());
        assert!(Offered { descriptor: RawFd::MAX, ..offered }.take().is_none());
        assert!(Offered { process: 0, ..offered }.take().is_none());
    }
}
