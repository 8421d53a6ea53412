//! What happened to images, containers, volumes and networks: a log of lines that every process appends to with one write each,
//! and that is read without anybody's help.
//!
//! ```text
//! events.log     {"time":1795296017379604181,"kind":"container","action":"start","id":"…","attributes":{"name":"app"}}
//! events.old     the same, from before the log had grown too long
//! ```
//!
//! Nothing depends on it and nothing fails for it: it is neither locked nor synced. A line of a process that died in the middle of
//! it is skipped.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::root_dir::At as _;
use crate::{Result, Store};

/// A log of this length is put aside, and the one that was is forgotten.
const LOG_SIZE_BYTES_MAX: u64 = 1 << 20;

/// What something happened to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// A container, by its id.
    Container,
    /// An image, by its id.
    Image,
    /// A network, by its id.
    Network,
    /// A volume, by its name.
    Volume,
}

impl Subject {
    /// Docker's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
        }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreEvent {
    /// When, Unix nanoseconds.
    pub time: i64,
    /// To what.
    pub kind: Subject,
    /// What: Docker's word, such as `start`.
    pub action: String,
    /// To which.
    pub id: String,
    /// What else is worth telling.
    pub attributes: BTreeMap<String, String>,
}

impl Store {
    /// Notes that something happened. That it cannot be noted is no reason for anything else to fail.
    pub fn note<'a>(
        &self,
        kind: Subject,
        action: &str,
        id: &str,
        attributes: impl IntoIterator<Item = (&'a str, String)>,
    ) {
        let attributes = attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let (action, id) = (action.to_owned(), id.to_owned());
        drop(self.append(&StoreEvent { time: (self.0.options.now)(), kind, action, id, attributes }));
    }

    fn append(&self, event: &StoreEvent) -> io::Result<()> {
        let path = self.0.layout.events();
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        let mut log = OpenOptions::new().append(true).create(true).open(&path)?;
        log.write_all(&line)?;
        // Of those that find it too long at once, one puts it aside: the others find another file under the name.
        if log.metadata()?.len() > LOG_SIZE_BYTES_MAX
            && flock(&log, FlockOperation::NonBlockingLockExclusive).is_ok()
            && fs::metadata(&path)?.ino() == log.metadata()?.ino()
        {
            fs::rename(&path, self.0.layout.old_events())?;
        }
        Ok(())
    }

    /// What happened, from the oldest that is remembered on.
    pub fn events(&self) -> EventReader {
        let (path, old) = (self.0.layout.events(), self.0.layout.old_events());
        EventReader { path, start: Some(old), file: None, line: Vec::new() }
    }
}

/// Reads the log, and goes on when it has grown.
#[derive(Debug)]
pub struct EventReader {
    path: PathBuf,
    /// What is read first, as long as it was not.
    start: Option<PathBuf>,
    file: Option<BufReader<File>>,
    line: Vec<u8>,
}

impl EventReader {
    /// The next event; `None` when there is none yet.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn next_event(&mut self) -> Result<Option<StoreEvent>> {
        loop {
            // Before its end is looked for: what is written to a log that was put aside is read as well.
            let is_last = self.is_current()?;
            match self.line()? {
                Some(event) => return Ok(Some(event)),
                None if is_last => return Ok(None),
                None => self.open_next()?,
            }
        }
    }

    /// The next whole line of the open file that is an event.
    fn line(&mut self) -> Result<Option<StoreEvent>> {
        let Some(file) = &mut self.file else { return Ok(None) };
        while file.read_until(b'\n', &mut self.line).at("read", &self.path)? > 0 {
            if !self.line.ends_with(b"\n") {
                return Ok(None);
            }
            let event = serde_json::from_slice(&self.line).ok();
            self.line.clear();
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    /// Whether the open file is the one that is written to. Where there is none yet, nothing is.
    fn is_current(&self) -> Result<bool> {
        let current = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(self.start.is_none()),
            found => found.at("look at", &self.path)?.ino(),
        };
        let open = self.file.as_ref().map(|file| file.get_ref().metadata()).transpose();
        Ok(open.at("look at", &self.path)?.is_some_and(|open| open.ino() == current))
    }

    fn open_next(&mut self) -> Result<()> {
        self.line.clear();
        let path = self.start.take().unwrap_or_else(|| self.path.clone());
        self.file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(BufReader::new(opened.at("open", &path)?)),
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestStore;

    fn note(store: &Store, action: &str) {
        store.note(Subject::Volume, action, "data", [("driver", "local".to_owned())]);
    }

    fn actions(reader: &mut EventReader) -> Vec<String> {
        std::iter::from_fn(|| reader.next_event().unwrap()).map(|event| event.action).collect()
    }

    #[test]
    fn what_is_noted_is_read_by_who_waits_and_by_who_comes_later() {
        let store = TestStore::new();
        let mut early = store.events();
        assert!(actions(&mut early).is_empty());
        note(&store, "create");
        note(&store.second_handle(), "destroy");
        let first = early.next_event().unwrap().unwrap();
        assert_eq!(
            (first.kind, first.action.as_str(), first.id.as_str()),
            (Subject::Volume, "create", "data")
        );
        assert_eq!(first.attributes["driver"], "local");
        assert_eq!(actions(&mut early), ["destroy"]);
        assert_eq!(actions(&mut store.events()), ["create", "destroy"]);
        note(&store, "create");
        assert_eq!(actions(&mut early), ["create"]);
    }

    #[test]
    fn a_log_that_is_too_long_is_put_aside_and_still_read() {
        let store = TestStore::new();
        let mut reader = store.events();
        let long = "x".repeat(1000);
        let count = usize::try_from(LOG_SIZE_BYTES_MAX).unwrap() / 1000 + 5;
        for _ in 0..count {
            note(&store, &long);
        }
        assert!(store.0.layout.old_events().exists());
        assert_eq!(actions(&mut reader).len(), count);
        assert_eq!(actions(&mut store.events()).len(), count);
        for _ in 0..count {
            note(&store, &long);
        }
        assert_eq!(actions(&mut reader).len(), count);
        assert!(actions(&mut store.events()).len() < 2 * count, "the oldest are forgotten");
    }

    #[test]
    fn what_is_no_line_is_skipped() {
        let store = TestStore::new();
        note(&store, "a");
        let mut log = OpenOptions::new().append(true).open(store.0.layout.events()).unwrap();
        log.write_all(b"{\"time\":1,\"kin\nnonsense\n\n").unwrap();
        note(&store, "b");
        log.write_all(b"{\"half").unwrap();
        assert_eq!(actions(&mut store.events()), ["a", "b"]);
    }
}
