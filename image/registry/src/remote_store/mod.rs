//! Places that hold blobs by digest and small documents by name: a repository of a registry, a bucket of an object store, a
//! directory, the cache of a repository at GitHub.
//!
//! The shared build cache lives in one, and images are pushed to one. What is put there under a name is never torn: an object is
//! there whole or not at all, and a document is written after the blobs it names. Whoever writes last wins, which is why names
//! should say what is under them.
//!
//! In a repository a document is a manifest, and its name a tag. GitHub's cache service has entries of its own kind (`actions`).

mod actions;
mod bucket;
#[cfg(test)]
mod tests;
mod upkeep;

use std::fmt;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rbuild_image::{Descriptor, Digest, MANIFEST_SIZE_BYTES_MAX, MediaType, Platform, Reference};

use self::actions::Actions;
pub use self::actions::ActionsOptions;
use self::bucket::Bucket;
pub use self::bucket::{BucketKind, BucketOptions};
pub use self::upkeep::ListedBlob;
use crate::session::Session;
use crate::{BlobUpload, Client, Error, OpenBlob, PushOutcome, ResolvedImage, Result, Watch};

/// How many documents are asked for at a time.
const DOCUMENTS_AT_ONCE: usize = 32;

/// A place for blobs and documents.
#[derive(Clone)]
pub struct RemoteStore {
    client: Arc<Client>,
    place: Place,
    /// How long one thing that is asked of it may take, with all retries.
    timeout: Option<Duration>,
}

#[derive(Clone)]
enum Place {
    Repository(Reference),
    Bucket(Bucket),
    Actions(Actions),
}

impl fmt::Debug for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteStore").field(&self.to_string()).finish()
    }
}

/// What people call it.
impl fmt::Display for RemoteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Repository(reference) => f.write_str(&reference.familiar_name()),
            Place::Bucket(bucket) => bucket.fmt(f),
            Place::Actions(actions) => actions.fmt(f),
        }
    }
}

impl RemoteStore {
    /// A repository: that of a reference, whose tag matters only for [`image`](Self::image).
    pub const fn repository(client: Arc<Client>, reference: Reference) -> Self {
        Self { client, place: Place::Repository(reference), timeout: None }
    }

    /// A directory, which is made if it is not there.
    ///
    /// # Errors
    /// When it cannot be.
    pub fn directory(client: Arc<Client>, path: &Path) -> Result<Self> {
        Ok(Self { client, place: Place::Bucket(Bucket::directory(path)?), timeout: None })
    }

    /// A bucket of an object store.
    ///
    /// # Errors
    /// When the options contradict each other.
    pub fn bucket(client: Arc<Client>, options: &BucketOptions) -> Result<Self> {
        let bucket = Bucket::new(options, client.options())?;
        Ok(Self { client, place: Place::Bucket(bucket), timeout: None })
    }

    /// The cache of a repository at GitHub.
    ///
    /// # Errors
    /// When the service has no usable address.
    pub fn actions(client: Arc<Client>, options: ActionsOptions) -> Result<Self> {
        let actions = Actions::new(options, client.options())?;
        Ok(Self { client, place: Place::Actions(actions), timeout: None })
    }

    /// The same, with a limit to how long one thing that is asked of it may take, with all retries.
    #[must_use]
    pub fn with_timeout(self, timeout: Option<Duration>) -> Self {
        Self { timeout, ..self }
    }

    /// Whether requests to it are counted, and what nobody reads goes from it by itself: only what is needed most should be asked of
    /// it, and written.
    pub const fn is_metered(&self) -> bool {
        matches!(self.place, Place::Actions(_))
    }

    /// The repository, where it is one.
    pub const fn reference(&self) -> Option<&Reference> {
        match &self.place {
            Place::Repository(reference) => Some(reference),
            Place::Bucket(_) | Place::Actions(_) => None,
        }
    }

    /// The image that a repository's reference names; `None` where there is none, and of another place.
    ///
    /// # Errors
    /// When the registry cannot be asked, or has something else under that name.
    pub fn image(&self, platform: &Platform, cancel: &AtomicBool) -> Result<Option<ResolvedImage>> {
        let Some(reference) = self.reference() else { return Ok(None) };
        match self.run(cancel, self.session().resolve_platform(reference, platform)) {
            Err(error) if error.is_not_found() => Ok(None),
            image => image.map(Some),
        }
    }

    /// How a blob is here without being sent. `mount_from` are other repositories of the same registry that may have it.
    ///
    /// # Errors
    /// When the place cannot be asked.
    pub fn find_blob(
        &self,
        digest: Digest,
        mount_from: &[String],
        cancel: &AtomicBool,
    ) -> Result<Option<PushOutcome>> {
        let there = |is_there: bool| is_there.then_some(PushOutcome::AlreadyThere);
        self.run(cancel, async {
            match &self.place {
                Place::Repository(reference) => self.session().find_blob(reference, digest, mount_from).await,
                Place::Bucket(bucket) => bucket.has_blob(digest).await.map(there),
                Place::Actions(actions) => actions.has_blob(self.session(), digest).await.map(there),
            }
        })
    }

    /// Sees to it that a blob is here.
    ///
    /// # Errors
    /// When the place refuses it, or it cannot be read or is not what its descriptor says.
    pub fn push_blob(&self, upload: &BlobUpload<'_>, watch: Watch<'_>) -> Result<PushOutcome> {
        self.run(watch.cancel, async {
            match &self.place {
                Place::Repository(reference) => self.session().push_blob(reference, upload, watch).await,
                Place::Bucket(bucket) => bucket.push_blob(upload, watch).await,
                Place::Actions(actions) => actions.push_blob(self.session(), upload, watch).await,
            }
        })
    }

    /// Sends a blob that is made as it is sent, and says what it was: its digest, and its size in bytes.
    ///
    /// # Errors
    /// As [`Client::push_unnamed`]. Others than registries take no blob without a name: [`Error::refuses_form`].
    pub fn push_unnamed(&self, open: OpenBlob<'_>, watch: Watch<'_>) -> Result<(Digest, u64)> {
        match &self.place {
            Place::Repository(reference) => {
                self.run(watch.cancel, self.session().push_unnamed(reference, open, watch))
            }
            Place::Bucket(_) | Place::Actions(_) => Err(Error::NeedsName { place: self.to_string() }),
        }
    }

    /// Writes a blob to `sink`, in order, each byte once.
    ///
    /// # Errors
    /// Among others when digest or size are not the descriptor's; what `sink` was given is then worthless.
    pub fn fetch_blob(&self, descriptor: &Descriptor, sink: &mut dyn Write, watch: Watch<'_>) -> Result<()> {
        self.run(watch.cancel, async {
            match &self.place {
                Place::Repository(reference) => {
                    self.session().fetch_blob(reference, descriptor, sink, watch).await
                }
                Place::Bucket(bucket) => bucket.fetch_blob(descriptor, sink, watch).await,
                Place::Actions(actions) => actions.fetch_blob(self.session(), descriptor, sink, watch).await,
            }
        })
    }

    /// Documents by name, many at a time; `None` where there is none. The answers are in the order of the names. They are what
    /// the place says: nothing vouches for them. One that cannot be a document is empty.
    ///
    /// # Errors
    /// When the place cannot be asked, or sends more than a document may have.
    pub fn documents(&self, names: &[String], cancel: &AtomicBool) -> Result<Vec<Option<Vec<u8>>>> {
        let answers = stream::iter(names).map(|name| self.document(name)).buffered(DOCUMENTS_AT_ONCE);
        self.run(cancel, answers.try_collect())
    }

    async fn document(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let found = match &self.place {
            Place::Repository(reference) => {
                let tagged = reference.with_tag(name);
                self.session().resolve(&tagged).await.map(|resolved| Some(resolved.bytes))
            }
            Place::Bucket(bucket) => bucket.document(name, MANIFEST_SIZE_BYTES_MAX).await.map(Some),
            Place::Actions(actions) => actions.document(self.session(), name, MANIFEST_SIZE_BYTES_MAX).await,
        };
        match found {
            Err(error) if error.is_not_found() => Ok(None),
            Err(Error::UnsupportedMediaType { .. } | Error::DigestMismatch { .. }) => Ok(Some(Vec::new())),
            found => found,
        }
    }

    /// Stores a manifest under a name. The blobs that it names must be here.
    ///
    /// # Errors
    /// When the place refuses.
    pub fn put_document(&self, name: &str, manifest: &[u8], cancel: &AtomicBool) -> Result<()> {
        self.run(cancel, async {
            match &self.place {
                Place::Repository(reference) => {
                    let tagged = reference.with_tag(name);
                    let pushed = self.session().push_manifest(&tagged, &MediaType::OciManifest, manifest);
                    pushed.await.map(drop)
                }
                Place::Bucket(bucket) => bucket.put_document(name, manifest).await,
                Place::Actions(actions) => {
                    let watch = Watch { progress: &|_| {}, cancel };
                    actions.put_document(self.session(), name, manifest, watch).await
                }
            }
        })
    }

    fn session(&self) -> &Session {
        &self.client.session
    }

    /// Does one thing, within the time that one may take.
    fn run<T>(&self, cancel: &AtomicBool, work: impl Future<Output = Result<T>>) -> Result<T> {
        let Some(limit) = self.timeout else { return self.client.block_on(cancel, work) };
        let late = |_| Error::Late { place: self.to_string(), limit };
        self.client.block_on(cancel, async { tokio::time::timeout(limit, work).await.map_err(late)? })
    }
}
