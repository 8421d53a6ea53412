//! A directory to apply archives in, and beside it what must not change. In memory, where there is a file system for that.

use std::fs;
use std::path::Path;

use rbuild_cache::OverlayXattrs;
use rbuild_cache::layer::{ApplyOptions, Limits, apply};
use rbuild_cache::root_dir::RootDir;
use tempfile::TempDir;

pub struct Yard(TempDir);

impl Yard {
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let outer = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        let outer = outer.expect("a temporary directory can be made");
        for directory in ["root", "outside"] {
            fs::create_dir(outer.path().join(directory)).expect("a directory can be made");
        }
        for file in ["neighbour", "outside/secret"] {
            fs::write(outer.path().join(file), "untouched").expect("a file can be written");
        }
        Self(outer)
    }

    /// Applies an archive, and sees that nothing outside of the root has changed. What becomes of the archive is its own affair.
    pub fn apply(&self, archive: &[u8], options: &ApplyOptions<'_>) {
        let root = RootDir::open(self.0.path().join("root")).expect("the root is there");
        drop(apply(&mut &archive[..], &root, options));
        assert_eq!(self.names(""), ["neighbour", "outside", "root"]);
        assert_eq!(self.names("outside"), ["secret"]);
        for file in ["neighbour", "outside/secret"] {
            let metadata = fs::symlink_metadata(self.0.path().join(file)).expect("the file is there");
            assert!(metadata.is_file(), "{file} is a file");
            assert_eq!(fs::read(self.0.path().join(file)).expect("it can be read"), b"untouched", "{file}");
        }
    }

    fn names(&self, below: &str) -> Vec<String> {
        let entries = fs::read_dir(self.0.path().join(below)).expect("the directory is there");
        let mut names: Vec<String> = entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

/// A plain archive or a layer, with small limits.
pub fn options(flags: u8) -> ApplyOptions<'static> {
    let options = match flags % 3 {
        0 => ApplyOptions::literal(),
        1 => ApplyOptions::layer(OverlayXattrs::User),
        _ => ApplyOptions::layer(OverlayXattrs::Trusted),
    };
    ApplyOptions { limits: Limits { entries: 200, content_bytes: 1 << 20, ..Limits::default() }, ..options }
}
