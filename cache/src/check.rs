//! Proves the store: what the names promise is compared with what is there. Changes nothing.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use rbuild_image::{Descriptor, Digest, HashingReader};
use rusqlite::Connection;

use crate::db::{Failure, unpack};
use crate::images::visit_blobs;
use crate::root_dir::At;
use crate::{Error, LayerId, Result, Store};

/// A promise that the store breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    /// A directory of a layer has no row. Not harmful: prune removes it.
    #[error("`{}` is not a known layer", .0.display())]
    LayerUnknown(PathBuf),
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
        /// The step.
        description: String,
        /// The snapshot.
        snapshot: i64,
    },
    /// An image needs a document that is not there or is none. Layers may be missing: they can be made again.
    #[error("image `{target}` needs `{blob}`, which is missing or malformed")]
    Image {
        /// The image.
        target: Digest,
        /// What it needs.
        blob: Digest,
    },
}

impl Store {
    /// Looks for broken promises. Reads every blob.
    ///
    /// # Errors
    /// When something cannot be read at all.
    pub fn check(&self) -> Result<Vec<Problem>> {
        let mut problems = self.check_metadata()?;
        self.check_layers(&mut problems)?;
        self.check_blobs(&mut problems)?;
        self.check_images(&mut problems)?;
        Ok(problems)
    }

    fn check_metadata(&self) -> Result<Vec<Problem>> {
        self.0.db.read("check the metadata", |db| {
            let lines: Vec<String> = column(db, "PRAGMA quick_check")?;
            let mut problems: Vec<_> =
                lines.into_iter().filter(|line| line != "ok").map(Problem::Metadata).collect();
            let layers: HashSet<i64> = column(db, "SELECT id FROM layer")?.into_iter().collect();
            let mut snapshots = HashSet::new();
            for (snapshot, packed) in pairs::<i64>(db, "SELECT id, layers FROM snapshot")? {
                snapshots.insert(snapshot);
                let missing =
                    unpack("snapshot", &packed)?.into_iter().filter(|layer| !layers.contains(layer));
                problems.extend(missing.map(|layer| Problem::Snapshot { snapshot, layer }));
            }
            for (description, packed) in pairs::<String>(db, "SELECT description, outputs FROM result")? {
                let outputs = unpack("result", &packed)?.into_iter();
                let missing = outputs.filter(|output| *output != 0 && !snapshots.contains(output));
                let problem = |snapshot| Problem::Record { description: description.clone(), snapshot };
                problems.extend(missing.map(problem));
            }
            Ok(problems)
        })
    }

    fn check_layers(&self, problems: &mut Vec<Problem>) -> Result<()> {
        // Directories and rows are compared inside a write transaction, so that no commit comes in between.
        self.0.db.write("check the layers", |db| {
            let rows: HashSet<i64> = column(db, "SELECT id FROM layer")?.into_iter().collect();
            let mut found = HashSet::new();
            for (name, id) in self.layer_directories()? {
                match id {
                    Some(id) if rows.contains(&id.0) => drop(found.insert(id.0)),
                    _ => problems.push(Problem::LayerUnknown(self.0.layout.directory("layers").join(name))),
                }
            }
            let mut missing: Vec<_> = rows.difference(&found).map(|id| LayerId(*id)).collect();
            missing.sort_unstable();
            problems.extend(missing.into_iter().map(Problem::LayerMissing));
            Ok(())
        })
    }

    fn check_blobs(&self, problems: &mut Vec<Problem>) -> Result<()> {
        let root = self.0.layout.directory("content/sha256");
        for fan in fs::read_dir(&root).at("list", &root)? {
            let fan = fan.at("list", &root)?.path();
            for entry in fs::read_dir(&fan).at("list", &fan)? {
                let path = entry.at("list", &fan)?.path();
                let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                let Ok(digest) = format!("sha256:{name}").parse() else {
                    problems.push(Problem::ForeignFile(path));
                    continue;
                };
                problems.extend(self.check_blob(digest)?);
            }
        }
        Ok(())
    }

    fn check_blob(&self, digest: Digest) -> Result<Option<Problem>> {
        let path = self.0.layout.blob(digest);
        let file = match File::open(&path) {
            // Pruned by somebody else meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.at("open", &path)?,
        };
        let mut reader = HashingReader::new(file);
        io::copy(&mut reader, &mut io::sink()).at("read", &path)?;
        let (found, _, _) = reader.finish();
        Ok((found != digest).then_some(Problem::Blob { digest, found }))
    }

    fn check_images(&self, problems: &mut Vec<Problem>) -> Result<()> {
        for image in self.images().list()? {
            let target = image.target.digest;
            let mut needed: Vec<Descriptor> = Vec::new();
            match visit_blobs(self, &image.target, &mut |blob| needed.push(blob.clone())) {
                Err(Error::Document { digest, .. }) => problems.push(Problem::Image { target, blob: digest }),
                visited => visited?,
            }
            // Of an index, only the manifests that somebody asked for are there; of a manifest, all but the layers has to be.
            let whole = |blob: &&Descriptor| !image.target.media_type.is_index() || blob.digest == target;
            for blob in needed.iter().filter(|blob| !blob.media_type.is_layer()).filter(whole) {
                if !self.0.layout.blob(blob.digest).exists() {
                    problems.push(Problem::Image { target, blob: blob.digest });
                }
            }
        }
        Ok(())
    }
}

fn column<T: rusqlite::types::FromSql>(db: &Connection, sql: &str) -> Result<Vec<T>, Failure> {
    Ok(db.prepare_cached(sql)?.query_map((), |row| row.get(0))?.collect::<Result<_, _>>()?)
}

fn pairs<T: rusqlite::types::FromSql>(db: &Connection, sql: &str) -> Result<Vec<(T, Vec<u8>)>, Failure> {
    let mut statement = db.prepare_cached(sql)?;
    Ok(statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests;
