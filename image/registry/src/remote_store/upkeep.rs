//! What a place has, and taking it away again.

use std::sync::atomic::AtomicBool;

use futures_util::TryStreamExt as _;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use rbuild_image::Digest;

use super::bucket::Bucket;
use super::{Place, RemoteStore};
use crate::{Error, Result};

/// A blob as a listing tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedBlob {
    /// Which.
    pub digest: Digest,
    /// Its size.
    pub size_bytes: u64,
    /// When it was written, Unix seconds.
    pub written: i64,
}

impl RemoteStore {
    /// The names of all documents; of a repository, all tags.
    ///
    /// # Errors
    /// When the place does not tell.
    pub fn document_names(&self, cancel: &AtomicBool) -> Result<Vec<String>> {
        self.run(cancel, async {
            match &self.place {
                Place::Repository(reference) => match self.session().list_tags(reference).await {
                    Err(error) if error.is_not_found() => Ok(Vec::new()),
                    tags => tags,
                },
                Place::Bucket(bucket) => bucket.document_names().await,
                Place::Actions(_) => Err(self.unlisted()),
            }
        })
    }

    /// All blobs. `None` where nobody but the place itself may remove them: a registry collects its garbage.
    ///
    /// # Errors
    /// When the place does not tell.
    pub fn blobs(&self, cancel: &AtomicBool) -> Result<Option<Vec<ListedBlob>>> {
        match &self.place {
            Place::Repository(_) => Ok(None),
            Place::Bucket(bucket) => self.run(cancel, bucket.blobs()).map(Some),
            Place::Actions(_) => Err(self.unlisted()),
        }
    }

    /// Removes a document. One that is not there is gone already.
    ///
    /// # Errors
    /// When the place refuses, as registries do that were not told to allow it.
    pub fn remove_document(&self, name: &str, cancel: &AtomicBool) -> Result<()> {
        self.run(cancel, async {
            match &self.place {
                Place::Repository(reference) => {
                    self.session().delete_manifest(&reference.with_tag(name)).await
                }
                Place::Bucket(bucket) => bucket.remove_document(name).await,
                Place::Actions(_) => Err(self.unlisted()),
            }
        })
    }

    /// Removes a blob of a place that lists its blobs; of another, nothing. One that is not there is gone already.
    ///
    /// # Errors
    /// When the place refuses.
    pub fn remove_blob(&self, digest: Digest, cancel: &AtomicBool) -> Result<()> {
        match &self.place {
            Place::Repository(_) => Ok(()),
            Place::Bucket(bucket) => self.run(cancel, bucket.remove_blob(digest)),
            Place::Actions(_) => Err(self.unlisted()),
        }
    }

    fn unlisted(&self) -> Error {
        Error::Unlisted { place: self.to_string() }
    }
}

impl Bucket {
    async fn document_names(&self) -> Result<Vec<String>> {
        let listed = self.list("records").await?;
        Ok(listed.iter().filter_map(|object| object.location.filename().map(str::to_owned)).collect())
    }

    async fn blobs(&self) -> Result<Vec<ListedBlob>> {
        let blob = |object: &ObjectMeta| {
            let digest = format!("sha256:{}", object.location.filename()?).parse().ok()?;
            let written = object.last_modified.timestamp();
            Some(ListedBlob { digest, size_bytes: object.size, written })
        };
        Ok(self.list("blobs/sha256").await?.iter().filter_map(blob).collect())
    }

    async fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>> {
        let path = self.path(folder);
        self.store.list(Some(&path)).try_collect().await.map_err(self.failed("list", &path))
    }

    async fn remove_document(&self, name: &str) -> Result<()> {
        self.remove(&self.document_path(name)).await
    }

    async fn remove_blob(&self, digest: Digest) -> Result<()> {
        self.remove(&self.blob(digest)).await
    }

    async fn remove(&self, path: &object_store::path::Path) -> Result<()> {
        match self.store.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.failed("remove", path)(source)),
        }
    }
}
