//! The secrets that a build may give to its steps, by id.
//!
//! A value is read when a step needs it and gone from memory when the last user of it lets go. Neither value nor path
//! ever reaches a key, a layer, an event or a `Debug`; errors name the id and, for a file, its path.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use thiserror::Error;
use zeroize::Zeroizing;

/// The largest secret; BuildKit's limit.
pub const SECRET_SIZE_BYTES_MAX: u64 = 500 * 1024;

/// The secrets of a build.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    sources: BTreeMap<String, Source>,
}

#[derive(Debug, Clone)]
enum Source {
    File(PathBuf),
    Value(SecretValue),
}

/// The bytes of a secret, which no `Debug` shows. Overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

/// Why a secret cannot be had.
#[derive(Debug, Error)]
pub enum SecretError {
    /// Its file cannot be read.
    #[error("failed to read secret `{id}` from `{}`", path.display())]
    Read {
        /// Which.
        id: String,
        /// Its file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// It is larger than [`SECRET_SIZE_BYTES_MAX`].
    #[error("secret `{id}` is too big: the limit is {} KiB", SECRET_SIZE_BYTES_MAX / 1024)]
    TooBig {
        /// Which.
        id: String,
    },
    /// It is to be a variable, and those hold text.
    #[error("secret `{id}` cannot be an environment variable: it is not text")]
    NotText {
        /// Which.
        id: String,
    },
}

impl SecretValue {
    /// Hides `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The secret itself.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

impl Secrets {
    /// Adds a secret that is the content of a file, which is read when it is needed. It replaces an earlier one of the id.
    ///
    /// # Errors
    /// When the file is missing or already too big.
    pub fn add_file(&mut self, id: impl Into<String>, path: impl Into<PathBuf>) -> Result<(), SecretError> {
        let (id, path) = (id.into(), path.into());
        let size_bytes = match path.metadata() {
            Ok(metadata) => metadata.len(),
            Err(source) => return Err(SecretError::Read { id, path, source }),
        };
        if size_bytes > SECRET_SIZE_BYTES_MAX {
            return Err(SecretError::TooBig { id });
        }
        self.sources.insert(id, Source::File(path));
        Ok(())
    }

    /// Adds a secret. It replaces an earlier one of the id.
    ///
    /// # Errors
    /// When it is too big.
    pub fn add_value(&mut self, id: impl Into<String>, value: SecretValue) -> Result<(), SecretError> {
        let id = id.into();
        if value.as_bytes().len() as u64 > SECRET_SIZE_BYTES_MAX {
            return Err(SecretError::TooBig { id });
        }
        self.sources.insert(id, Source::Value(value));
        Ok(())
    }

    /// The secret of an id, if the build was given one.
    ///
    /// # Errors
    /// When its file cannot be read, or has grown too big.
    pub fn get(&self, id: &str) -> Result<Option<SecretValue>, SecretError> {
        match self.sources.get(id) {
            None => Ok(None),
            Some(Source::Value(value)) => Ok(Some(value.clone())),
            Some(Source::File(path)) => read(id, path).map(Some),
        }
    }
}

fn read(id: &str, path: &Path) -> Result<SecretValue, SecretError> {
    let failed = |source| SecretError::Read { id: id.to_owned(), path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // All the room at once: growing would leave copies in freed memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SECRET_SIZE_BYTES_MAX as usize + 1));
    file.take(SECRET_SIZE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > SECRET_SIZE_BYTES_MAX {
        return Err(SecretError::TooBig { id: id.to_owned() });
    }
    Ok(SecretValue(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_an_id_counts_and_a_file_is_read_when_needed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "old").unwrap();
        let mut secrets = Secrets::default();
        secrets.add_value("token", SecretValue::new(b"first".to_vec())).unwrap();
        secrets.add_file("token", &path).unwrap();
        std::fs::write(&path, "new").unwrap();
        assert_eq!(secrets.get("token").unwrap().unwrap().as_bytes(), b"new");
        assert_eq!(secrets.get("other").unwrap(), None);
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(secrets.get("token"), Err(SecretError::Read { .. })));
    }

    #[test]
    fn the_limit_holds_when_added_and_when_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let limit = usize::try_from(SECRET_SIZE_BYTES_MAX).unwrap();
        let mut secrets = Secrets::default();
        std::fs::write(&path, vec![b'x'; limit]).unwrap();
        secrets.add_file("a", &path).unwrap();
        assert_eq!(secrets.get("a").unwrap().unwrap().as_bytes().len(), limit);
        std::fs::write(&path, vec![b'x'; limit + 1]).unwrap();
        assert!(matches!(secrets.get("a"), Err(SecretError::TooBig { .. })));
        assert_eq!(
            secrets.add_file("b", &path).unwrap_err().to_string(),
            "secret `b` is too big: the limit is 500 KiB"
        );
        assert!(secrets.add_value("c", SecretValue::new(vec![b'x'; limit + 1])).is_err());
    }

    #[test]
    fn no_debug_shows_a_value() {
        let mut secrets = Secrets::default();
        secrets.add_value("token", SecretValue::new(b"hunter2".to_vec())).unwrap();
        let shown = format!("{secrets:?} {:?}", secrets.get("token"));
        assert!(!shown.contains("hunter2") && !shown.contains("104, 117"), "{shown}");
    }
}
