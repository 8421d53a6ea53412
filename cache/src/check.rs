//! Proves the store: what the names promise is compared with what is there.
//!
//! Like any process that uses the store, a check first removes what dead ones have left; a directory of a layer without a row
//! is such a thing. Beside that it changes nothing. [`Store::repair`] forgets what is damaged, so that the next build makes
//! it again, or a registry is asked for it again.

mod metadata;
mod repair;

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rayon::ThreadPool;
use rbuild_image::{Descriptor, Digest, HashingReader, ImageConfig, MANIFEST_SIZE_BYTES_MAX, Manifest};
use rusqlite::Connection;
use rustix::fs::FlockOperation;

pub use self::metadata::set_damaged_metadata_aside;
use crate::db::Failure;
use crate::images::{ImageRecord, visit_blobs};
use crate::root_dir::At;
use crate::snapshot::LayerState;
use crate::{Error, LayerId, Result, Store};

/// A promise that the store breaks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Problem {
    /// SQLite finds the metadata damaged.
    #[error("the metadata is damaged: {0}")]
    Metadata(String),
    /// A blob does not hold what its name says.
    #[error("blob `{digest}` has the content of `{found}`")]
    Blob {
        /// Its name.
        digest: Digest,
        /// Its content's digest.
        found: Digest,
    },
    /// A file that is no blob lies among the blobs.
    #[error("`{}` is not a blob", .0.display())]
    ForeignFile(PathBuf),
    /// A layer has a row and no directory.
    #[error("layer {0} is missing")]
    LayerMissing(LayerId),
    /// A layer does not hold what it held when it was made.
    #[error("layer {0} has been changed")]
    LayerChanged(LayerId),
    /// A snapshot names a layer that has no row.
    #[error("snapshot {snapshot} needs layer {layer}, which is not recorded")]
    Snapshot {
        /// The snapshot.
        snapshot: i64,
        /// The layer.
        layer: i64,
    },
    /// A cache record names a snapshot that has no row.
    #[error("a result of `{description}` is snapshot {snapshot}, which is not recorded")]
    Record {
        /// The result.
        result: i64,
        /// The step.
        description: String,
        /// The snapshot.
        snapshot: i64,
    },
    /// An image needs a document or a layer that is not there, and cannot be made again.
    #[error("image `{target}` needs `{blob}`, which is missing or malformed")]
    Image {
        /// The image.
        target: Digest,
        /// What it needs.
        blob: Digest,
    },
    /// Something is mounted in the store.
    #[error("`{}` is a mount", .0.display())]
    Mount(PathBuf),
}

/// What a check has found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Blobs whose content was compared with their names.
    pub blobs: usize,
    /// The size of these.
    pub blob_bytes: u64,
    /// Layers whose content was compared with what is recorded of it.
    pub layers: usize,
    /// Layers that are there, but have nothing to be compared with: they were never exported, nor keyed by.
    pub layers_unproven: usize,
    /// Snapshots whose layers are there.
    pub snapshots: usize,
    /// Results of steps whose snapshots are there.
    pub results: usize,
    /// Images that have all that they need.
    pub images: usize,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

impl Store {
    /// Looks for broken promises. Reads every blob, and every layer.
    ///
    /// # Errors
    /// When something cannot be read at all.
    pub fn check(&self, pool: &ThreadPool) -> Result<CheckReport> {
        let mut report = CheckReport::default();
        // Nothing is pruned meanwhile.
        let _no_prune = self.lock_prune(FlockOperation::LockShared)?;
        self.check_blobs(&mut report)?;
        report.problems.extend(self.check_integrity()?);
        if report.problems.iter().any(|problem| matches!(problem, Problem::Metadata(_))) {
            // Rows that cannot be read are no reason to say that what they name is not needed.
            return Ok(report);
        }
        self.check_rows(&mut report)?;
        self.clean_up()?;
        report.problems.extend(mounts_below(self.root())?.into_iter().map(Problem::Mount));
        self.check_layers(&mut report, pool)?;
        self.check_images(&mut report)?;
        Ok(report)
    }

    fn check_layers(&self, report: &mut CheckReport, pool: &ThreadPool) -> Result<()> {
        let missing = self.missing_layers()?;
        for (layer, state) in self.verify_layers(&missing, pool)? {
            match state {
                LayerState::Whole => report.layers += 1,
                LayerState::Unproven => report.layers_unproven += 1,
                LayerState::Damaged => report.problems.push(Problem::LayerChanged(layer)),
            }
        }
        let mut missing: Vec<_> = missing.into_iter().collect();
        missing.sort_unstable();
        report.problems.extend(missing.into_iter().map(Problem::LayerMissing));
        Ok(())
    }

    /// The layers whose directories are not there; those that are told from such a one are not whole either.
    fn missing_layers(&self) -> Result<HashSet<LayerId>> {
        // Inside a write transaction, so that no commit comes in between.
        self.0.db.write("check the layers", |db| {
            self.sweep_files(db)?;
            let rows: HashSet<LayerId> =
                column(db, "SELECT id FROM layer")?.into_iter().map(LayerId).collect();
            let mut missing: HashSet<LayerId> =
                rows.difference(&self.layer_directories()?).copied().collect();
            let mut deltas = db.prepare_cached("SELECT id, base FROM layer WHERE base IS NOT NULL")?;
            for delta in deltas.query_map((), |row| Ok((LayerId(row.get(0)?), LayerId(row.get(1)?))))? {
                let (delta, base) = delta?;
                missing.extend(missing.contains(&base).then_some(delta));
            }
            Ok(missing)
        })
    }

    fn check_blobs(&self, report: &mut CheckReport) -> Result<()> {
        let root = self.0.layout.directory("content/sha256");
        for fan in fs::read_dir(&root).at("list", &root)? {
            let fan = fan.at("list", &root)?.path();
            for entry in fs::read_dir(&fan).at("list", &fan)? {
                let path = entry.at("list", &fan)?.path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                match format!("sha256:{name}").parse() {
                    Ok(digest) => self.check_blob(digest, report)?,
                    Err(_) => report.problems.push(Problem::ForeignFile(path)),
                }
            }
        }
        Ok(())
    }

    fn check_blob(&self, digest: Digest, report: &mut CheckReport) -> Result<()> {
        let path = self.0.layout.blob(digest);
        let mut reader = HashingReader::new(File::open(&path).at("open", &path)?);
        report.blob_bytes += io::copy(&mut reader, &mut io::sink()).at("read", &path)?;
        let (found, _, _) = reader.finish();
        if found == digest {
            report.blobs += 1;
        } else {
            report.problems.push(Problem::Blob { digest, found });
        }
        Ok(())
    }

    fn check_images(&self, report: &mut CheckReport) -> Result<()> {
        for image in self.images().list()? {
            let target = image.target.digest;
            match self.missing_of(&image)? {
                None => report.images += 1,
                Some(blob) => report.problems.push(Problem::Image { target, blob }),
            }
        }
        Ok(())
    }

    /// The first thing that an image needs and that is not there.
    fn missing_of(&self, image: &ImageRecord) -> Result<Option<Digest>> {
        let target = image.target.digest;
        let mut needed: Vec<Descriptor> = Vec::new();
        match visit_blobs(self, &image.target, &mut |blob| needed.push(blob.clone())) {
            Err(Error::Document { digest, .. }) => return Ok(Some(digest)),
            visited => visited?,
        }
        // Of an index, only the manifests that somebody asked for are there.
        let whole = |blob: &&Descriptor| !image.target.media_type.is_index() || blob.digest == target;
        let documents = needed.iter().filter(|blob| !blob.media_type.is_layer()).filter(whole);
        if let Some(missing) = documents.map(|blob| blob.digest).find(|digest| !self.has_blob(*digest)) {
            return Ok(Some(missing));
        }
        // What was never unpacked may be elsewhere.
        let unpacked = image.target.media_type.is_manifest() && !image.snapshots.is_empty();
        if unpacked { self.missing_layer_of(target) } else { Ok(None) }
    }

    /// The first layer of an image that has neither a directory nor a blob that it can be unpacked from.
    fn missing_layer_of(&self, manifest: Digest) -> Result<Option<Digest>> {
        let Some(bytes) = self.content().read(manifest, MANIFEST_SIZE_BYTES_MAX)? else { return Ok(None) };
        let Ok(manifest) = Manifest::parse(&bytes) else { return Ok(None) };
        let Some(bytes) = self.content().read(manifest.config.digest, MANIFEST_SIZE_BYTES_MAX)? else {
            return Ok(None);
        };
        // What has another config is no image of a file system: nothing is unpacked of it.
        let Ok(config) = ImageConfig::parse(&bytes) else { return Ok(None) };
        let diff_ids = &config.rootfs.diff_ids;
        let (there, _) = self.chain_layers(diff_ids)?;
        let rest = diff_ids.iter().zip(&manifest.layers).skip(there);
        for (diff_id, layer) in rest {
            let blobs = self.blobs_of(*diff_id)?;
            if !self.has_blob(layer.digest) && !blobs.iter().any(|blob| self.has_blob(blob.digest)) {
                return Ok(Some(layer.digest));
            }
        }
        Ok(None)
    }

    fn has_blob(&self, digest: Digest) -> bool {
        self.0.layout.blob(digest).exists()
    }
}

/// The mounts of this process's namespace that are in a directory, itself aside.
fn mounts_below(root: &Path) -> Result<Vec<PathBuf>> {
    const TABLE: &str = "/proc/self/mountinfo";
    let table = fs::read_to_string(TABLE).at("read", TABLE)?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).map(PathBuf::from);
    Ok(points.filter(|point| point != root && point.starts_with(root)).collect())
}

fn column<T: rusqlite::types::FromSql>(db: &Connection, sql: &str) -> Result<Vec<T>, Failure> {
    Ok(db.prepare_cached(sql)?.query_map((), |row| row.get(0))?.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests;
