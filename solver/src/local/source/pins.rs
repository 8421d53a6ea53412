//! What remote sources turned out to be: a build asks once, and sees one state of the world however long it takes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_image::{Digest, Reference};
use rbuild_llb::SourceOp;

use super::git::{self, Pinned};
use super::http::{self, RemoteFile};
use crate::provenance::SourceDigest;

/// How long a commit's name is, but in repositories of SHA-256.
const SHA1_HEX_DIGITS: usize = 40;

/// What the remote sources of one build are. To be shared by all workers of the build.
#[derive(Debug, Default)]
pub struct Pins {
    pub(super) commits: Memo<Pinned>,
    pub(super) files: Memo<RemoteFile>,
    /// What names of images led to, by the names with the digests of the manifests that were chosen there.
    images: Mutex<HashMap<String, Digest>>,
}

impl Pins {
    /// Notes what the name of an image led to, which is here with the digest of its manifest: that, or the index it was chosen from.
    pub fn note_image(&self, pinned: &Reference, found: Digest) {
        let mut images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
        images.insert(pinned.to_string(), found);
    }

    /// What a remote source turned out to be, if it was asked for: the commit of a repository, the digest of a file, of an image or of
    /// the index that it is in.
    pub fn digest_of(&self, source: &SourceOp) -> Option<SourceDigest> {
        match source {
            SourceOp::Git(source) => {
                let commit = self.commits.known(&git::question(source)?)?.commit;
                Some((if commit.len() == SHA1_HEX_DIGITS { "sha1" } else { "sha256" }, commit))
            }
            SourceOp::Http(source) => {
                let known = self.files.known(&http::question(source)).map(|file| file.digest);
                Some(("sha256", known.or(source.checksum)?.hex()))
            }
            SourceOp::Image(image) => {
                let images = self.images.lock().unwrap_or_else(PoisonError::into_inner);
                let known = images.get(&image.reference.to_string()).copied();
                Some(("sha256", known.or(image.reference.digest())?.hex()))
            }
            SourceOp::OciLayout(layout) => Some(("sha256", layout.digest.hex())),
            SourceOp::Local(_) => None,
        }
    }
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
    /// The answer, if it was found.
    fn known(&self, question: &str) -> Option<T> {
        let slot = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(question).map(Arc::clone)?;
        slot.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

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
