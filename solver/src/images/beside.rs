//! What is said of a result that is written out as files, in files beside them, as BuildKit has it: `provenance.json`, `sbom.spdx.json`.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use rbuild_cache::Snapshot;
use rbuild_cache::root_dir::RootDir;
use rbuild_image::{HashingWriter, Statement, Subject};
use rustix::fs::{FileType, OFlags};

use super::{ImageError, Images, Predicate};

impl Images {
    /// A tree with what is said of all its files, in files of its root. One of the same name is replaced.
    ///
    /// # Errors
    /// When a file cannot be read, or the store fails.
    pub fn with_statements(&self, tree: &Snapshot, said: &[Predicate]) -> Result<Snapshot, ImageError> {
        let said: Vec<_> = said.iter().filter_map(|said| Some((said.file.as_deref()?, said))).collect();
        if said.is_empty() {
            return Ok(tree.clone());
        }
        let mut files = Vec::new();
        subjects(&RootDir::from_fd(self.store().view(tree)?.into()), Path::new(""), &mut files)?;
        let layer = self.store().prepare(tree)?;
        {
            let root = RootDir::from_fd(layer.mount_to_copy()?.into());
            for (name, said) in said {
                let subjects = if said.subjects.is_empty() { &files } else { &said.subjects };
                let statement = Statement::new(said.kind.clone(), subjects.clone(), said.content.clone());
                let text = serde_json::to_vec_pretty(&statement).expect("a statement has string keys only");
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
                let mut file = root.open_file(name, flags)?;
                file.write_all(&text).map_err(ImageError::io("write", name))?;
            }
        }
        Ok(layer.commit()?)
    }
}

/// The regular files below a directory, by their names and digests.
fn subjects(root: &RootDir, directory: &Path, found: &mut Vec<Subject>) -> Result<(), ImageError> {
    for entry in root.read_dir(directory)? {
        let path = directory.join(&entry.name);
        match entry.kind {
            FileType::Directory => subjects(root, &path, found)?,
            FileType::RegularFile => found.push(subject(root, path)?),
            _ => {}
        }
    }
    Ok(())
}

fn subject(root: &RootDir, path: PathBuf) -> Result<Subject, ImageError> {
    let mut file = root.open_file(&path, OFlags::RDONLY | OFlags::NOFOLLOW)?;
    let name = path.to_string_lossy().into_owned();
    let mut hashed = HashingWriter::new(io::sink());
    io::copy(&mut file, &mut hashed).map_err(ImageError::io("read", name.clone()))?;
    let (digest, _, _) = hashed.finish();
    Ok(Subject::new(name, digest))
}
