//! What a container has written, seen beside the container: its tree to read, and a layer made of a copy.

use std::io::{BufReader, BufWriter};
use std::path::Path;

use super::Snapshot;
use super::overlay::MountedRoot;
use crate::layer::{self, ArchiveOptions};
use crate::root_dir::RootDir;
use crate::{Result, Store, piped};

impl Store {
    /// Mounts what [`Store::mount_writable`] shows, read-only. Also while that is mounted: what changes meanwhile may be seen or not.
    ///
    /// # Errors
    /// As there.
    pub fn view_writable(&self, snapshot: &Snapshot, directory: &Path) -> Result<MountedRoot> {
        let upper = directory.join("upper");
        if !upper.exists() {
            return self.view(snapshot);
        }
        self.touch(snapshot)?;
        let mut lowers = vec![upper];
        lowers.extend(self.lowers(snapshot, None)?);
        self.join(lowers)
    }

    /// Makes a layer on top of `parent` of a copy of a directory in overlayfs's form.
    ///
    /// # Errors
    /// When the directory cannot be read, or the disk is full.
    pub fn commit_copy(&self, parent: &Snapshot, upper: &Path) -> Result<Snapshot> {
        let lowers = self.open_stack(parent)?;
        let failed = |source| crate::Error::CopyLayer { path: upper.to_owned(), source };
        let upper = RootDir::open(upper)?;
        let (archived, snapshot) = piped(
            |writer| {
                let mut writer = BufWriter::new(writer);
                layer::diff(&upper, &lowers, self.xattrs(), &ArchiveOptions::default(), &mut writer)
            },
            |reader| self.apply_layer(parent, None, None, &mut BufReader::new(reader)),
        )
        .map_err(|error| failed(layer::Error::Write(error)))?;
        archived.map_err(failed).and(snapshot)
    }
}
