//! The content digest of a whole snapshot: what a step on top of it is given, without modification times.

use std::path::Path;

use rayon::ThreadPool;
use rbuild_image::KeyHasher;
use rusqlite::OptionalExtension as _;

use super::{LayerId, Snapshot};
use crate::content_digest::{Blake3, DigestOptions, TreeOwner, digest_layer};
use crate::root_dir::RootDir;
use crate::{Error, Result, Store};

impl Store {
    /// The digest of a snapshot's tree, made of the digests of its layers. Each layer is read once ever.
    ///
    /// # Errors
    /// When a layer has been pruned, or cannot be read.
    pub fn content_digest(&self, snapshot: &Snapshot, pool: &ThreadPool) -> Result<Blake3> {
        let mut hasher = KeyHasher::new("rbuild.snapshot.v1");
        for layer in &*snapshot.layers {
            hasher.bytes(&self.layer_content_digest(*layer, pool)?);
        }
        Ok(hasher.finish())
    }

    fn layer_content_digest(&self, layer: LayerId, pool: &ThreadPool) -> Result<Blake3> {
        let known = self.0.db.read("look up a layer's content digest", |db| {
            let sql = "SELECT content_digest FROM layer WHERE id = ?1";
            let known = db.prepare_cached(sql)?.query_row([layer.0], |row| row.get::<_, Option<Blake3>>(0));
            known.optional()?.ok_or_else(|| Error::LayerMissing(layer).into())
        })?;
        if let Some(digest) = known {
            return Ok(digest);
        }
        let digest = self.digest_directory(&self.layer_path(layer)?, pool)?;
        self.0.db.write("keep a layer's content digest", |db| {
            let sql = "UPDATE layer SET content_digest = ?2 WHERE id = ?1";
            db.prepare_cached(sql)?.execute((layer.0, digest))?;
            Ok(())
        })?;
        Ok(digest)
    }

    /// The content digest of a directory in the form of a layer.
    pub(super) fn digest_directory(&self, directory: &Path, pool: &ThreadPool) -> Result<Blake3> {
        let options =
            DigestOptions { pool, owner: TreeOwner::Keep, memory: None, layers: None, cancel: None };
        Ok(digest_layer(&RootDir::open(directory)?, self.xattrs(), &options)?.digest)
    }
}
