//! What remote sources turned out to be: a build asks once, and sees one state of the world however long it takes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::git::Pinned;
use super::http::RemoteFile;

/// What the remote sources of one build are. To be shared by all workers of the build.
#[derive(Debug, Default)]
pub struct Pins {
    pub(super) commits: Memo<Pinned>,
    pub(super) files: Memo<RemoteFile>,
}

/// Answers by question, each found once. Who asks while the answer is being found waits for it.
#[derive(Debug)]
pub(super) struct Memo<T>(Mutex<HashMap<String, Arc<Mutex<Option<T>>>>>);

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Memo<T> {
    /// The answer, found now unless it is known. A failure is not remembered.
    pub(super) fn get<E>(&self, question: &str, find: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(question.to_owned()).or_default())
        };
        let mut answer = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*answer {
            return Ok(known.clone());
        }
        let found = find()?;
        *answer = Some(found.clone());
        Ok(found)
    }
}
