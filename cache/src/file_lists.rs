//! Which files a step was given, by the digest of all of them: to say, when there is another digest, which files differ.
//!
//! A list is bytes of its writer's, kept once for each digest as long as a result names it. It is written before the result, and
//! not synced: without it, an explanation says less.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::PathBuf;

use crate::root_dir::At;
use crate::store::unique_name;
use crate::{Result, Store};

/// The largest list that is read.
const LIST_SIZE_BYTES_MAX: u64 = 1 << 30;
/// Lists are written while a step waits.
const ZSTD_LEVEL: i32 = 1;

impl Store {
    /// Keeps a list, unless there is one for this digest.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_file_list(&self, digest: &[u8; 32], list: impl FnOnce() -> Vec<u8>) -> Result<()> {
        let path = self.file_list(digest);
        if path.exists() {
            return Ok(());
        }
        let bytes = zstd::encode_all(list().as_slice(), ZSTD_LEVEL).at("compress", &path)?;
        let partial = path.with_file_name(unique_name());
        fs::write(&partial, bytes).at("write", &partial)?;
        Ok(fs::rename(&partial, &path).at("create", &path)?)
    }

    /// The list for a digest, if it is there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_file_list(&self, digest: &[u8; 32]) -> Result<Option<Vec<u8>>> {
        let path = self.file_list(digest);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.at("open", &path)?,
        };
        let mut list = Vec::new();
        let decoder = zstd::Decoder::new(file).at("read", &path)?;
        decoder.take(LIST_SIZE_BYTES_MAX).read_to_end(&mut list).at("read", &path)?;
        Ok(Some(list))
    }

    /// Removes lists that no result names.
    ///
    /// In this order: a list that a build has written by now, and whose result it has not, is younger than the build's lease.
    pub(crate) fn sweep_file_lists(&self) -> Result<()> {
        let directory = self.0.layout.directory("file-lists");
        let entries = fs::read_dir(&directory).at("list", &directory)?.collect::<Result<Vec<_>, _>>();
        let in_use = self.in_use_since()?.map(|since| since.modified);
        let named = self.named_file_lists()?;
        for entry in entries.at("list", &directory)? {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let used = in_use.is_some_and(|since| modified.is_ok_and(|modified| modified >= since));
            if !used && !entry.file_name().to_str().is_some_and(|name| named.contains(name)) {
                match fs::remove_file(entry.path()) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    removed => removed.at("remove", entry.path())?,
                }
            }
        }
        Ok(())
    }

    fn named_file_lists(&self) -> Result<HashSet<String>> {
        self.0.db.read("list what results were given", |db| {
            let mut statement = db.prepare_cached("SELECT DISTINCT digest FROM result_files")?;
            let digests = statement.query_map((), |row| Ok(hex(&row.get(0)?)))?;
            Ok(digests.collect::<Result<_, _>>()?)
        })
    }

    fn file_list(&self, digest: &[u8; 32]) -> PathBuf {
        self.0.layout.directory("file-lists").join(hex(digest))
    }
}

fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use crate::testing::TestStore;
    use crate::{CacheKey, NewRecord};

    #[test]
    fn a_list_stays_as_long_as_a_result_names_it() {
        let store = TestStore::new();
        let (digest, key) = ([7; 32], CacheKey([1; 32]));
        store.keep_file_list(&digest, || b"list".to_vec()).unwrap();
        store.keep_file_list(&digest, || panic!("a list is made once")).unwrap();
        store.records().insert(&NewRecord { key, file_lists: &[digest], ..NewRecord::default() }).unwrap();
        let read = || store.read_file_list(&digest).unwrap();
        store.prune(&[]).unwrap();
        assert_eq!(read(), Some(b"list".to_vec()));
        store.records().remove(key).unwrap();
        store.prune(&[]).unwrap();
        assert_eq!(read(), None);
    }
}
