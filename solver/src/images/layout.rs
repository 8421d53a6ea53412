//! An image of an OCI layout that lies in a directory, in place: its documents are taken into the store when it is named, its
//! layers when a step has to run on them.

use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::Path;

use rbuild_cache::{Expected, Snapshot};
use rbuild_image::{
    Descriptor, Digest, Index, MANIFEST_SIZE_BYTES_MAX, Manifest, MediaType, Platform, Reference,
};

use super::archive::{IMAGE_NAME, INDEX, REF_NAME, blob_path};
use super::{ImageError, Images, StoredImage, Watch};

/// Which image of a layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayoutSelector {
    /// The one that has this tag.
    Tag(String),
    /// The one with this digest, which the layout's index need not name.
    Digest(Digest),
}

impl Images {
    /// The documents of an image in a layout; they are in the store afterwards, its layers perhaps not.
    ///
    /// # Errors
    /// When the directory is no layout, or has no such image.
    pub fn open_layout(
        &self,
        directory: &Path,
        selector: &LayoutSelector,
        platform: &Platform,
    ) -> Result<StoredImage, ImageError> {
        let target = match selector {
            LayoutSelector::Digest(digest) => described(directory, *digest)?,
            LayoutSelector::Tag(tag) => tagged(directory, tag)?,
        };
        self.take_blob(directory, &target)?;
        let manifest = if target.media_type.is_index() {
            let index = self.document(&target, Index::parse)?;
            let chosen = index.select(platform).cloned();
            let missing = || ImageError::NoPlatform {
                name: format!("{}@{}", directory.display(), target.digest),
                platform: platform.clone(),
            };
            let chosen = chosen.ok_or_else(missing)?;
            self.take_blob(directory, &chosen)?;
            chosen
        } else {
            target
        };
        self.take_blob(directory, &self.document(&manifest, Manifest::parse)?.config)?;
        self.open(&manifest, platform)
    }

    /// The snapshot of an image of a layout; layers that the store lacks are taken from there.
    ///
    /// # Errors
    /// When the layout lacks one, or one is not what its digest says.
    pub fn unpack_layout(
        &self,
        directory: &Path,
        image: &StoredImage,
        watch: Watch<'_>,
    ) -> Result<Snapshot, ImageError> {
        let name = unnamed();
        self.unpack_from(&name, image, &|layer, out| write_blob(directory, layer, out), watch)
    }

    /// Takes a blob into the store, verified.
    fn take_blob(&self, directory: &Path, descriptor: &Descriptor) -> Result<(), ImageError> {
        if self.store.content().contains(descriptor.digest)? {
            return Ok(());
        }
        let path = directory.join(blob_path(descriptor.digest));
        let mut file = File::open(&path).map_err(ImageError::io("open", format!("`{}`", path.display())))?;
        Ok(self.store.content().ingest(&mut file, Expected::from(descriptor))?)
    }
}

/// Writes a blob of a layout.
fn write_blob(directory: &Path, descriptor: &Descriptor, out: &mut dyn Write) -> Result<(), ImageError> {
    let path = directory.join(blob_path(descriptor.digest));
    let failed = |verb| ImageError::io(verb, format!("`{}`", path.display()));
    let mut file = File::open(&path).map_err(failed("open"))?;
    io::copy(&mut file, out).map(drop).map_err(failed("copy"))
}

/// A document that is known by its digest alone.
fn described(directory: &Path, digest: Digest) -> Result<Descriptor, ImageError> {
    let bytes = read(&directory.join(blob_path(digest)))?;
    Ok(Descriptor::new(media_type(&bytes), digest, bytes.len() as u64))
}

/// What a manifest or index is that no descriptor tells the type of: what it says itself, if it does.
pub(super) fn media_type(bytes: &[u8]) -> MediaType {
    match Index::parse(bytes) {
        Ok(index) => index.media_type.unwrap_or(MediaType::OciIndex),
        Err(_) => {
            let manifest = Manifest::parse(bytes).ok();
            manifest.and_then(|manifest| manifest.media_type).unwrap_or(MediaType::OciManifest)
        }
    }
}

/// The manifest or index that has a tag: as such, or at the end of a whole name.
fn tagged(directory: &Path, tag: &str) -> Result<Descriptor, ImageError> {
    let path = directory.join(INDEX);
    let damaged =
        |error: rbuild_image::ManifestError| ImageError::DamagedArchive { reason: error.to_string() };
    let index = Index::parse(&read(&path)?).map_err(damaged)?;
    let has_tag = |entry: &&Descriptor| {
        [REF_NAME, IMAGE_NAME].iter().filter_map(|name| entry.annotations.get(*name)).any(|name| {
            let reference = name.parse::<Reference>().ok().filter(|_| name.contains(['/', ':']));
            name == tag || reference.is_some_and(|reference| reference.tag() == Some(tag))
        })
    };
    let found = index.manifests.iter().find(has_tag);
    let name = || format!("{}:{tag}", directory.display());
    let mut found = found.cloned().ok_or_else(|| ImageError::NotFound { name: name() })?;
    found.annotations.clear();
    found.platform = None;
    Ok(found)
}

fn read(path: &Path) -> Result<Vec<u8>, ImageError> {
    let failed = || ImageError::io("read", format!("`{}`", path.display()));
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed())?;
    file.take(MANIFEST_SIZE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed())?;
    Ok(bytes)
}

/// What messages call an image that has no name.
pub(super) fn unnamed() -> Reference {
    "unnamed".parse().expect("a literal that is a reference")
}
