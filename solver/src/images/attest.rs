//! Attestations of images: manifests of an index whose layers are statements about its other manifests.
//!
//! What is said of an image is said of the digest of its manifest, which is another one when its layers are compressed: it is then
//! said anew of that.

use rbuild_cache::Snapshot;
use rbuild_cache::root_dir::{DirEntry, RootDir};
use rbuild_image::{
    Descriptor, DiffId, Digest, ImageConfig, Index, Manifest, MediaType, PREDICATE_TYPE, Platform, Reference,
    Statement, Subject, package_url,
};
use rustix::fs::FileType;
use serde_json::Value;

use super::{ImageError, Images, StoredImage, Watch, there};

/// Forms of predicates that say how an image was made begin so.
const PROVENANCE: &str = "https://slsa.dev/provenance/";
/// The largest statement that is read: BuildKit's limit.
const STATEMENT_SIZE_BYTES_MAX: u64 = 80 << 20;

/// Something that is to be said of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Predicate {
    /// The name of its form.
    pub kind: String,
    /// What is said.
    pub content: Value,
    /// What it is said of beside the image.
    pub subjects: Vec<Subject>,
    /// What the file is called that says it beside files that are written out, if one is to.
    pub file: Option<String>,
}

impl Predicate {
    /// Whether it says how the image was made.
    pub fn is_provenance(&self) -> bool {
        self.kind.starts_with(PROVENANCE)
    }
}

/// A manifest of an index that attests another.
#[derive(Debug, Clone)]
pub struct Attestation {
    /// Its entry in the index, which says what it is of.
    pub(super) entry: Descriptor,
    pub(super) manifest: Manifest,
}

impl Attestation {
    /// The manifest that it is of.
    pub(super) fn of(&self) -> Option<Digest> {
        self.entry.attests()
    }

    /// What it needs beside its manifest.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifest.layers.iter().chain([&self.manifest.config])
    }
}

impl Images {
    /// Says something of an image, which goes by these names. What it says is in the store; it is to be named by an index.
    ///
    /// # Errors
    /// When the store fails.
    pub fn attest(
        &self,
        image: &StoredImage,
        names: &[Reference],
        predicates: Vec<Predicate>,
    ) -> Result<Attestation, ImageError> {
        let digest = image.manifest_descriptor.digest;
        let mut own: Vec<String> =
            names.iter().map(|name| package_url(name, &image.config.platform)).collect();
        if own.is_empty() {
            own.push("_".to_owned());
        }
        let statement = |predicate: Predicate| {
            let own = own.iter().map(|name| Subject::new(name.clone(), digest));
            let subjects = if predicate.subjects.is_empty() { own.collect() } else { predicate.subjects };
            self.keep_statement(&Statement::new(predicate.kind, subjects, predicate.content))
        };
        let layers = predicates.into_iter().map(statement).collect::<Result<_, _>>()?;
        self.keep_attestation(digest, layers)
    }

    /// Brings what an index says of one of its images into the store, as far as the registry has it.
    ///
    /// # Errors
    /// When the registry or the store fails.
    pub fn pull_attestations(
        &self,
        reference: &Reference,
        image: &StoredImage,
        watch: Watch<'_>,
    ) -> Result<(), ImageError> {
        if !image.target.media_type.is_index() {
            return Ok(());
        }
        let index = self.document(&image.target, Index::parse)?;
        let of = Some(image.manifest_descriptor.digest);
        for entry in index.manifests.iter().filter(|entry| entry.attests() == of) {
            match self.pull_attestation(reference, entry, watch) {
                // A mirror, or who copied the image alone, lacks them.
                Err(ImageError::Registry(error)) if error.is_not_found() => {}
                pulled => pulled?,
            }
        }
        Ok(())
    }

    fn pull_attestation(
        &self,
        reference: &Reference,
        entry: &Descriptor,
        watch: Watch<'_>,
    ) -> Result<(), ImageError> {
        let found = self.registry.resolve(&reference.with_digest(entry.digest), watch.cancel)?;
        self.keep(entry, &found.bytes)?;
        let manifest = self.document(entry, Manifest::parse)?;
        let from = self.repository(reference);
        let mut blobs = manifest.layers.iter().chain([&manifest.config]);
        // What nobody reads, being too large, stays where it is, and what belongs to it.
        if blobs.clone().any(|blob| blob.size_bytes > STATEMENT_SIZE_BYTES_MAX) {
            return Ok(());
        }
        blobs.try_for_each(|blob| self.fetch_blob(&from, blob, watch))
    }

    /// What the files of a tree say, as a scanner writes them: a statement each, the one called `main` first.
    ///
    /// # Errors
    /// When one is no statement, or says how the image was made, which only who made it knows.
    pub fn unbundle(&self, tree: &Snapshot, main: &str) -> Result<Vec<Predicate>, ImageError> {
        let root = RootDir::from_fd(self.store.view(tree)?.into());
        let mut files = root.read_dir("/")?;
        files.retain(|file| file.kind == FileType::RegularFile);
        let is_main = |name: &str| name.split('.').next() == Some(main);
        files.sort_by_key(|file| !is_main(&file.name.to_string_lossy()));
        let read = |file: &DirEntry| {
            let name = file.name.to_string_lossy().into_owned();
            let bytes = root.read(&file.name, STATEMENT_SIZE_BYTES_MAX)?;
            let statement: Statement = serde_json::from_slice(&bytes)
                .map_err(|source| ImageError::ScannedStatement { name: name.clone(), source })?;
            let Statement { predicate_type: kind, subject: subjects, predicate: content, .. } = statement;
            let said = Predicate { kind, content, subjects, file: Some(name.clone()) };
            if said.is_provenance() { Err(ImageError::ScannedProvenance { name }) } else { Ok(said) }
        };
        files.iter().map(read).collect()
    }

    /// Says of one manifest what was said of another.
    pub(super) fn attest_anew(
        &self,
        attestation: &Attestation,
        before: Digest,
        now: Digest,
    ) -> Result<Attestation, ImageError> {
        let moved = |layer: &Descriptor| {
            if layer.media_type != MediaType::InToto {
                return Ok(layer.clone());
            }
            let digest = layer.digest;
            let bytes = self.store.content().read(digest, STATEMENT_SIZE_BYTES_MAX)?;
            let bytes = bytes.ok_or(ImageError::MissingDocument { digest })?;
            let mut statement: Statement =
                serde_json::from_slice(&bytes).map_err(|source| ImageError::Statement { digest, source })?;
            statement.move_to(before, now);
            self.keep_statement(&statement)
        };
        let layers = attestation.manifest.layers.iter().map(moved).collect::<Result<_, _>>()?;
        self.keep_attestation(now, layers)
    }

    fn keep_statement(&self, statement: &Statement) -> Result<Descriptor, ImageError> {
        let bytes = serde_json::to_vec(statement).expect("a statement has no map with non-string keys");
        let mut layer = self.keep_new(MediaType::InToto, &bytes)?;
        layer.annotations.insert(PREDICATE_TYPE.to_owned(), statement.predicate_type.clone());
        Ok(layer)
    }

    /// The config is an image's, so that whoever knows nothing of attestations can read and keep it.
    fn keep_attestation(&self, of: Digest, layers: Vec<Descriptor>) -> Result<Attestation, ImageError> {
        let mut config = ImageConfig::new(Platform::new("unknown", "unknown", None));
        config.rootfs.diff_ids = layers.iter().map(|layer| DiffId(layer.digest)).collect();
        let config = self.keep_new(MediaType::OciConfig, &config.to_bytes())?;
        let manifest = Manifest::new(config, layers);
        let entry = self.keep_new(MediaType::OciManifest, &manifest.to_bytes())?.attesting(of);
        Ok(Attestation { entry, manifest })
    }

    /// An attestation, if all of it is here.
    pub(super) fn open_attestation(&self, entry: &Descriptor) -> Result<Option<Attestation>, ImageError> {
        let Some(manifest) = there(self.document(entry, Manifest::parse))? else { return Ok(None) };
        let attestation = Attestation { entry: entry.clone(), manifest };
        for blob in attestation.blobs() {
            if !self.store.content().contains(blob.digest)? {
                return Ok(None);
            }
        }
        Ok(Some(attestation))
    }
}
