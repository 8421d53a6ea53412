//! The history of builds on disk: what each was, and all that its steps printed.
//!
//! ```text
//! builds/<start>-<id>/     one build; its process holds the directory's lock
//!   record                 what the build was, a document of its writer's, zstd; written anew when more is known
//!   <step>.log             what a step printed: [`LogChunk`]s, as they came; zstd once the build is over
//! ```
//!
//! A build without a record is forgotten: what is left of it are logs of steps whose results are still in the cache, for
//! later builds to show. Nothing here is synced: a power failure takes history, never a result.

mod log;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

pub use self::log::{LogChunk, LogReader, LogStream};
use crate::root_dir::At;
use crate::{Error, Result, Store};

/// How many builds are remembered. The oldest are forgotten when a newer one ends.
pub const BUILDS_KEPT_MAX: usize = 200;
/// The largest record that is read: far above that of any real build.
const RECORD_SIZE_BYTES_MAX: u64 = 256 << 20;
const RECORD: &str = "record";
const LOG_SUFFIX: &str = ".log";
/// For speed: the unchanged build has to write one as well.
const ZSTD_LEVEL: i32 = 1;

/// What a build is called in the store: when it began, and an id that no other has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BuildName {
    started_ms: i64,
    id: String,
}

impl BuildName {
    fn new(started_ms: i64) -> Self {
        // Hashers are seeded from the kernel's randomness.
        let id = RandomState::new().build_hasher().finish();
        Self { started_ms, id: format!("{id:016x}") }
    }

    /// The id, for people: hex digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// When it began, Unix milliseconds.
    pub const fn started_ms(&self) -> i64 {
        self.started_ms
    }
}

/// `1700000000000-3f2a…`
impl fmt::Display for BuildName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:013}-{}", self.started_ms, self.id)
    }
}

/// A name that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the name of a build")]
pub struct ParseBuildNameError;

impl FromStr for BuildName {
    type Err = ParseBuildNameError;

    fn from_str(text: &str) -> Result<Self, ParseBuildNameError> {
        let (started_ms, id) = text.split_once('-').ok_or(ParseBuildNameError)?;
        let started_ms = started_ms.parse().map_err(|_| ParseBuildNameError)?;
        match id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            true => Ok(Self { started_ms, id: id.to_owned() }),
            false => Err(ParseBuildNameError),
        }
    }
}

/// Where a result came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The build that made it.
    pub build: BuildName,
    /// The step of that build, by the number under which its log is.
    pub step: u32,
}

/// The history of a store.
#[derive(Debug, Clone, Copy)]
pub struct Builds<'a>(&'a Store);

/// A build that is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedBuild {
    /// Its name.
    pub name: BuildName,
    /// Whether its process lives. One whose record says that it goes on while this is false has died.
    pub runs: bool,
    /// What its writer saved last.
    pub document: Vec<u8>,
}

impl Store {
    /// What is remembered of builds.
    pub const fn builds(&self) -> Builds<'_> {
        Builds(self)
    }
}

impl Builds<'_> {
    /// Begins to remember a build. `started_ms` is the time, in Unix milliseconds: builds are listed in its order.
    ///
    /// # Errors
    /// When its directory cannot be made.
    pub fn begin(&self, started_ms: i64) -> Result<BuildWriter> {
        let name = BuildName::new(started_ms);
        let path = self.path(&name);
        fs::create_dir_all(&path).at("create", &path)?;
        let lock = File::open(&path).at("open", &path)?;
        // Who looks whether the build runs holds it for an instant.
        flock(&lock, FlockOperation::LockExclusive).at("lock", &path)?;
        Ok(BuildWriter { name, path, _lock: lock, logs: Mutex::default() })
    }

    /// All that are remembered, newest first.
    ///
    /// # Errors
    /// When the directory cannot be listed.
    pub fn names(&self) -> Result<Vec<BuildName>> {
        let mut names = self.directories()?;
        names.retain(|name| self.path(name).join(RECORD).exists());
        Ok(names)
    }

    /// What is remembered of one build; `None` when it is forgotten.
    ///
    /// # Errors
    /// When its record cannot be read.
    pub fn read(&self, name: &BuildName) -> Result<Option<RecordedBuild>> {
        let path = self.path(name).join(RECORD);
        // In this order: a build that ends in between has saved its last word.
        let runs = self.share(name)?.is_none();
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.at("open", &path)?,
        };
        let mut document = Vec::new();
        let decoder = zstd::Decoder::new(file).at("read", &path)?;
        decoder.take(RECORD_SIZE_BYTES_MAX).read_to_end(&mut document).at("read", &path)?;
        Ok(Some(RecordedBuild { name: name.clone(), runs, document }))
    }

    /// What a step printed; `None` when it printed nothing, or its log is gone.
    ///
    /// # Errors
    /// When the log cannot be opened.
    pub fn log(&self, origin: &Origin) -> Result<Option<LogReader>> {
        LogReader::open(&log_path(&self.path(&origin.build), origin.step))
    }

    /// Forgets a build, and what its steps printed unless the cache still has their results. Returns false, and forgets
    /// nothing, while the build runs.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn remove(&self, name: &BuildName) -> Result<bool> {
        let Some(_lock) = self.lock(name)? else { return Ok(false) };
        let path = self.path(name);
        remove_file(&path.join(RECORD))?;
        self.remove_unneeded_logs(name, &path)?;
        Ok(true)
    }

    /// Removes logs that neither a build nor a result needs, and forgets the oldest builds above [`BUILDS_KEPT_MAX`].
    ///
    /// # Errors
    /// When something cannot be listed or removed.
    pub fn sweep(&self) -> Result<()> {
        self.forget_oldest()?;
        let remembered = self.names()?;
        for name in self.directories()? {
            if !remembered.contains(&name)
                && let Some(_lock) = self.lock(&name)?
            {
                self.remove_unneeded_logs(&name, &self.path(&name))?;
            }
        }
        Ok(())
    }

    /// Forgets the oldest builds above [`BUILDS_KEPT_MAX`].
    ///
    /// # Errors
    /// When something cannot be listed or removed.
    pub fn forget_oldest(&self) -> Result<()> {
        let directories = self.directories()?;
        if directories.len() <= BUILDS_KEPT_MAX {
            return Ok(());
        }
        self.names()?.iter().skip(BUILDS_KEPT_MAX).try_for_each(|name| self.remove(name).map(drop))
    }

    fn remove_unneeded_logs(&self, name: &BuildName, path: &Path) -> Result<()> {
        let needed = self.0.records().steps_of(name)?;
        let mut rest = 0;
        for entry in fs::read_dir(path).at("list", path)? {
            let file = entry.at("list", path)?.file_name();
            let step = file.to_str().and_then(|file| file.strip_suffix(LOG_SUFFIX)?.parse::<u32>().ok());
            if step.is_some_and(|step| needed.contains(&step)) {
                rest += 1;
            } else {
                remove_file(&path.join(file))?;
            }
        }
        if rest == 0 {
            fs::remove_dir(path).at("remove", path)?;
        }
        Ok(())
    }

    /// Holds a build together with others who only read; `None` when it runs.
    fn share(&self, name: &BuildName) -> Result<Option<File>> {
        let path = self.path(name);
        let Ok(file) = File::open(&path) else { return Ok(None) };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Err(Errno::WOULDBLOCK) => Ok(None),
            locked => Ok(locked.map(|()| Some(file)).at("lock", &path)?),
        }
    }

    /// Holds a build alone; `None` when it runs.
    fn lock(&self, name: &BuildName) -> Result<Option<File>> {
        let Some(file) = self.share(name)? else { return Ok(None) };
        flock(&file, FlockOperation::LockExclusive).at("lock", self.path(name))?;
        Ok(Some(file))
    }

    /// Newest first.
    fn directories(&self) -> Result<Vec<BuildName>> {
        let directory = self.0.0.layout.directory("builds");
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.at("list", &directory)?,
        };
        let mut names = Vec::new();
        for entry in entries {
            let file = entry.at("list", &directory)?.file_name();
            names.extend(file.to_str().and_then(|file| file.parse::<BuildName>().ok()));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    fn path(&self, name: &BuildName) -> PathBuf {
        self.0.0.layout.directory("builds").join(name.to_string())
    }
}

/// Remembers a build that runs. Usable from many threads.
#[derive(Debug)]
pub struct BuildWriter {
    name: BuildName,
    path: PathBuf,
    _lock: File,
    logs: Mutex<BTreeMap<u32, File>>,
}

impl BuildWriter {
    /// The build's name.
    pub const fn name(&self) -> &BuildName {
        &self.name
    }

    /// Says what the build is, in the place of what was said before.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, document: &[u8]) -> Result<()> {
        let (path, partial) = (self.path.join(RECORD), self.path.join("record.partial"));
        let bytes = zstd::encode_all(document, ZSTD_LEVEL).at("compress", &path)?;
        fs::write(&partial, bytes).at("write", &partial)?;
        Ok(fs::rename(&partial, &path).at("create", &path)?)
    }

    /// Adds to what a step printed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&self, step: u32, chunk: &LogChunk) -> Result<()> {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        let path = log_path(&self.path, step);
        let file = match logs.entry(step) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(File::create(&path).at("create", &path)?),
        };
        // One write, so that a process that dies leaves no half of a chunk.
        Ok(file.write_all(&chunk.encode()).at("write", &path)?)
    }

    /// Compresses the logs; for when the build is over.
    ///
    /// # Errors
    /// When one cannot be written; it then stays as it is.
    pub fn compress_logs(&self) -> Result<()> {
        let logs = std::mem::take(&mut *self.logs.lock().unwrap_or_else(PoisonError::into_inner));
        logs.keys().try_for_each(|step| log::compress(&log_path(&self.path, *step), ZSTD_LEVEL))
    }
}

fn log_path(build: &Path, step: u32) -> PathBuf {
    build.join(format!("{step}{LOG_SUFFIX}"))
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => Ok(removed.at("remove", path)?),
    }
}

#[cfg(test)]
mod tests;
