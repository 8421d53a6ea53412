//! ADD of an archive: told by what is in the file, not by its name.

use std::fs::File;
use std::io::Seek;
use std::os::fd::OwnedFd;
use std::path::Path;

use rbuild_cache::ActiveSnapshot;
use rbuild_cache::layer::{
    Applied, ApplyOptions, Error as LayerError, Owners, apply, compression, has_entries, is_archive,
};
use rbuild_cache::root_dir::{At, OFlags, RootDir};
use rbuild_cache::tree::grow::PackedTree;

use super::attributes::Changes;
use super::run::Run;
use super::{FileError, Warning};

/// An archive that is to be unpacked. Owners are its own unless the action gives one; modes and times always are.
pub(super) struct Archive<'a> {
    run: &'a Run<'a>,
    file: File,
    path: &'a Path,
    changes: &'a Changes,
}

impl<'a> Archive<'a> {
    /// Opens a regular file if it is one.
    pub(super) fn open(
        run: &'a Run<'a>,
        root: &RootDir,
        path: &'a Path,
        changes: &'a Changes,
    ) -> Result<Option<Self>, FileError> {
        let file = root.open_file(path, OFlags::RDONLY)?;
        Ok(is_archive(&file).then_some(Self { run, file, path, changes }))
    }

    /// Whether it begins with so many entries.
    pub(super) fn has_entries(&self, count: usize) -> Result<bool, FileError> {
        Ok(has_entries(self.rewound()?, count))
    }

    /// Unpacks it into a directory.
    pub(super) fn unpack(&self, into: OwnedFd) -> Result<(), FileError> {
        let options = self.options();
        let mut tar = compression::decompress(self.rewound()?).map_err(|error| self.failed(error))?;
        let applied = apply(&mut tar, &RootDir::from_fd(into), &options);
        self.note(&applied.map_err(|error| self.failed(error))?);
        Ok(())
    }

    /// Unpacks it into a tree. `None` where it depends on what is in the directory already what becomes of it.
    pub(super) fn read(&self, layer: &ActiveSnapshot) -> Result<Option<(PackedTree, Applied)>, FileError> {
        let options = self.options();
        let mut tar = compression::decompress(self.rewound()?).map_err(|error| self.failed(error))?;
        match layer.read_archive(&mut tar, &options)? {
            Err(LayerError::Refused { .. }) => Ok(None),
            read => read.map(Some).map_err(|error| self.failed(error)),
        }
    }

    /// Notes what was unpacked.
    pub(super) fn note(&self, applied: &Applied) {
        self.run.count_many(applied.entries, applied.content_bytes);
        if applied.xattrs_refused > 0 {
            self.run.warn(Warning::CapabilitiesLost { path: self.path.to_owned() });
        }
        for path in &applied.devices_replaced {
            self.run.warn(Warning::DeviceReplaced { path: path.clone() });
        }
    }

    fn rewound(&self) -> Result<&File, FileError> {
        (&self.file).rewind().at("read", self.path)?;
        Ok(&self.file)
    }

    fn options(&self) -> ApplyOptions<'a> {
        let owners = match self.changes.ids {
            _ if self.run.options.single_id => Owners::Squash,
            Some(ids) => Owners::All { uid: ids.uid, gid: ids.gid },
            None => Owners::Keep,
        };
        ApplyOptions { owners, cancel: Some(self.run.options.cancel), ..ApplyOptions::literal() }
    }

    fn failed(&self, error: LayerError) -> FileError {
        match error {
            LayerError::Cancelled => FileError::Cancelled,
            source => FileError::Unpack { path: self.path.to_owned(), source },
        }
    }
}
