//! Which files a step was given, by the digest of all of them: to say, when there is another digest, which files differ.
//!
//! A list is bytes of its writer's, kept once for each digest as long as a result names it. It is written before the result, and
//! not synced: without it, an explanation says less.
//!
//! ```text
//! file-lists/<digest>   a zstd frame; or what this is, the digest of another list, and what differs from that
//! file-lists/key-<n>    the digest of the last list of about this size that is whole: from which the next is told
//! ```

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::difference;
use crate::root_dir::{At, PathError};
use crate::store::unique_name;
use crate::{Result, Store};

/// The largest list that is read.
const LIST_SIZE_BYTES_MAX: u64 = 1 << 30;
/// Lists are written while a step waits.
const ZSTD_LEVEL: i32 = 1;
/// A list is told from another if that takes this part of it at most: a quarter of what it takes by itself.
const DIFFERENCE_PART: usize = 16;
const MAGIC: &[u8; 6] = b"rbdiff";
const KEY_PREFIX: &str = "key-";

/// The list that was read last of those from which others are told.
#[derive(Debug, Default)]
pub(crate) struct LastKey(Mutex<Option<KeyList>>);

#[derive(Debug)]
struct KeyList {
    digest: [u8; 32],
    list: Arc<Vec<u8>>,
}

impl Store {
    /// Keeps a list, unless there is one for this digest.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_file_list(&self, digest: &[u8; 32], list: &[u8]) -> Result<()> {
        let path = self.file_list(digest);
        if path.exists() {
            return Ok(());
        }
        let directory = self.0.layout.directory("file-lists");
        let key_path = directory.join(format!("{KEY_PREFIX}{}", usize::BITS - list.len().leading_zeros()));
        if let Some(bytes) = self.difference(list, &key_path).at("compress", &path)? {
            return Ok(write_whole(&path, &bytes)?);
        }
        write_whole(&path, &zstd::bulk::compress(list, ZSTD_LEVEL).at("compress", &path)?)?;
        Ok(write_whole(&key_path, digest)?)
    }

    /// What differs from the list that the key names, if that is little.
    fn difference(&self, list: &[u8], key_path: &Path) -> io::Result<Option<Vec<u8>>> {
        let key = fs::read(key_path).ok().and_then(|digest| <[u8; 32]>::try_from(digest).ok());
        let Some(digest) = key else { return Ok(None) };
        let Ok(Some(key)) = self.key_list(&digest) else { return Ok(None) };
        let frame = difference::encode(list, &key)?;
        let is_little = frame.len() <= list.len() / DIFFERENCE_PART;
        Ok(is_little.then(|| [MAGIC.as_slice(), &digest, &frame].concat()))
    }

    /// Whether there is a list for a digest.
    pub fn has_file_list(&self, digest: &[u8; 32]) -> bool {
        self.file_list(digest).exists()
    }

    /// The list for a digest, if it is there.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_file_list(&self, digest: &[u8; 32]) -> Result<Option<Vec<u8>>> {
        let path = self.file_list(digest);
        let stored = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.at("read", &path)?,
        };
        let Some((key, frame)) = split(&stored) else {
            return decoded(&stored).at("read", &path).map(Some).map_err(Into::into);
        };
        let Some(key) = self.key_list(key)? else { return Ok(None) };
        Ok(Some(difference::decode(frame, &key).at("read", &path)?))
    }

    /// A list that is kept whole, if it is there. A build reads that of an earlier one and keeps its own, both of which are told from one as a rule, at
    /// the same time: it is unpacked once.
    fn key_list(&self, digest: &[u8; 32]) -> Result<Option<Arc<Vec<u8>>>> {
        let mut last = self.0.last_key.0.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.file_list(digest);
        if let Some(key) = last.as_ref().filter(|key| key.digest == *digest && path.exists()) {
            return Ok(Some(Arc::clone(&key.list)));
        }
        let list = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => Arc::new(read.and_then(|frame| decoded(&frame)).at("read", &path)?),
        };
        *last = Some(KeyList { digest: *digest, list: Arc::clone(&list) });
        Ok(Some(list))
    }

    /// Removes lists that no result names, and from which none is told that stays.
    ///
    /// In this order: a list that a build has written by now, and whose result it has not, is younger than the build's lease.
    pub(crate) fn sweep_file_lists(&self) -> Result<()> {
        let directory = self.0.layout.directory("file-lists");
        let entries = fs::read_dir(&directory).at("list", &directory)?.collect::<Result<Vec<_>, _>>();
        let in_use = self.in_use_since()?.map(|since| since.modified);
        let mut kept = self.named_file_lists()?;
        let (mut unnamed, mut keys) = (Vec::new(), HashSet::new());
        for entry in entries.at("list", &directory)? {
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let used = in_use.is_some_and(|since| modified.is_ok_and(|modified| modified >= since));
            let name = entry.file_name().to_string_lossy().into_owned();
            if used || name.starts_with(KEY_PREFIX) || kept.contains(&name) {
                keys.extend(key_of(&entry.path()));
            } else {
                unnamed.push(name);
            }
        }
        kept.extend(keys);
        for path in unnamed.iter().filter(|name| !kept.contains(*name)).map(|name| directory.join(name)) {
            match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.at("remove", &path)?,
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

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), PathError> {
    let partial = path.with_file_name(unique_name());
    fs::write(&partial, bytes).at("write", &partial)?;
    fs::rename(&partial, path).at("create", path)
}

fn decoded(frame: &[u8]) -> io::Result<Vec<u8>> {
    // In one piece it takes half of the time; frames of before do not say how long they are.
    match zstd::zstd_safe::get_frame_content_size(frame) {
        Ok(Some(length)) if length <= LIST_SIZE_BYTES_MAX => zstd::bulk::decompress(frame, length as usize),
        _ => {
            let mut list = Vec::new();
            zstd::Decoder::new(frame)?.take(LIST_SIZE_BYTES_MAX).read_to_end(&mut list)?;
            Ok(list)
        }
    }
}

/// The list from which another is told, and the frame that does.
fn split(stored: &[u8]) -> Option<(&[u8; 32], &[u8])> {
    stored.strip_prefix(MAGIC)?.split_first_chunk()
}

/// The name of the list from which the one at a path is told, if it is told from one.
fn key_of(path: &Path) -> Option<String> {
    let mut header = Vec::new();
    File::open(path).ok()?.take(MAGIC.len() as u64 + 32).read_to_end(&mut header).ok()?;
    split(&header).map(|(key, _)| hex(key))
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
        assert!(!store.has_file_list(&digest));
        store.keep_file_list(&digest, b"list").unwrap();
        store.keep_file_list(&digest, b"not the list: it is made once").unwrap();
        assert!(store.has_file_list(&digest));
        store.records().insert(&NewRecord { key, file_lists: &[digest], ..NewRecord::default() }).unwrap();
        let read = || store.read_file_list(&digest).unwrap();
        store.prune(&[]).unwrap();
        assert_eq!(read(), Some(b"list".to_vec()));
        store.records().remove(key).unwrap();
        store.prune(&[]).unwrap();
        assert_eq!(read(), None);
    }

    #[test]
    fn a_list_is_told_from_the_one_before_as_long_as_that_is_like_it() {
        let store = TestStore::new();
        let list = |seed: u64| -> Vec<u8> {
            let random = |index: u64| blake3::hash(&(seed + index).to_le_bytes()).as_bytes()[..8].to_vec();
            (0..1000).flat_map(random).collect()
        };
        let changed = [&list(0)[..4000], b"changed!", &list(0)[4008..]].concat();
        let lists = [(1, list(0)), (2, changed), (3, list(9000))];
        for (digest, list) in &lists {
            store.keep_file_list(&[*digest; 32], list).unwrap();
        }
        let size = |digest: u8| std::fs::metadata(store.file_list(&[digest; 32])).unwrap().len();
        assert!(size(1) > 7000 && size(2) < 200 && size(3) > 7000);
        let key = CacheKey([1; 32]);
        store.records().insert(&NewRecord { key, file_lists: &[[2; 32]], ..NewRecord::default() }).unwrap();
        store.prune(&[]).unwrap();
        let read = |digest: u8| store.read_file_list(&[digest; 32]).unwrap();
        assert_eq!(lists.map(|(digest, list)| read(digest) == Some(list)), [true, true, false]);
        store.records().remove(key).unwrap();
        store.prune(&[]).unwrap();
        assert_eq!([read(1), read(2)], [None, None]);
    }
}
