//! From an archive into the store: what `save`, Docker, Podman, skopeo and BuildKit write.
//!
//! An archive is read once, front to back, because it may be a pipe and its index may stand at its end: every file becomes
//! a blob of the content store, small JSON files are kept in memory as well, and only then is it known what they
//! were. What no image turns out to use is garbage for the next gc.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use rbuild_cache::Expected;
use rbuild_cache::layer::compression::{self, Decoder};
use rbuild_image::{
    Descriptor, Digest, ImageConfig, Index, MANIFEST_SIZE_BYTES_MAX, Manifest, MediaType, Platform, Reference,
};
use serde::de::DeserializeOwned;

use super::archive::{
    BLOBS, DOCKER_MANIFEST, DockerImage, IMAGE_NAME, INDEX, REF_NAME, SKOPEO_VERSION, blob_path,
};
use super::layout::{media_type, unnamed};
use super::pull::layers;
use super::{ImageError, Images, StoredImage, Watch};

/// How large a whole archive may be.
const ARCHIVE_SIZE_BYTES_MAX: u64 = 1 << 40;
/// How much is read at a time.
const READ_SIZE_BYTES: usize = 128 * 1024;
/// How many links are followed to one file, as Linux follows.
const LINKS_MAX: usize = 40;

/// An image that was loaded: its names, or its id where it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its id.
    pub id: Digest,
    /// Its names.
    pub names: Vec<Reference>,
}

/// The files of an archive, by path.
#[derive(Default)]
struct Files {
    blobs: BTreeMap<String, (Digest, u64)>,
    /// Symlinks and hard links, and what they lead to from the archive's root; not followed yet.
    links: BTreeMap<String, PathBuf>,
    documents: BTreeMap<String, Vec<u8>>,
}

impl Files {
    fn document<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, ImageError> {
        let parse = |bytes: &Vec<u8>| {
            serde_json::from_slice(bytes)
                .map_err(|source| ImageError::ArchiveDocument { path: path.to_owned(), source })
        };
        self.documents.get(path).map(parse).transpose()
    }

    /// The blob at a path; Docker before 25 writes layers that repeat as symlinks.
    fn blob(&self, path: &str) -> Result<(Digest, u64), ImageError> {
        let mut at = path.to_owned();
        for _ in 0..=LINKS_MAX {
            if let Some(found) = self.blobs.get(&at) {
                return Ok(*found);
            }
            let Some(target) = self.links.get(&at) else { break };
            at = normal(target)
                .ok_or_else(|| ImageError::ArchiveLink { path: at, target: target.display().to_string() })?;
        }
        Err(ImageError::ArchiveEntry { path: path.to_owned() })
    }

    /// The manifest or index of a directory of skopeo's.
    fn skopeo_s(&self) -> Option<Descriptor> {
        let bytes =
            self.documents.get(DOCKER_MANIFEST).filter(|_| self.blobs.contains_key(SKOPEO_VERSION))?;
        Some(Descriptor::of(media_type(bytes), bytes))
    }
}

impl Images {
    /// Reads images from a tar, plain or compressed; with a platform, of each only what is for that.
    ///
    /// # Errors
    /// When it is damaged, or holds no image, or one not for the platform.
    pub fn load(
        &self,
        archive: impl Read + Send,
        platform: Option<&Platform>,
        watch: Watch<'_>,
    ) -> Result<Vec<Loaded>, ImageError> {
        let failed = || unreadable("the archive");
        let decoder = Decoder::new(archive, ARCHIVE_SIZE_BYTES_MAX).map_err(failed())?;
        let mut archive = tar::Archive::new(decoder);
        let mut files = Files::default();
        for entry in archive.entries().map_err(failed())? {
            let mut entry = entry.map_err(failed())?;
            let path = relative(&entry.path().map_err(failed())?);
            match entry.header().entry_type() {
                tar::EntryType::Regular | tar::EntryType::Continuous => {
                    self.take(&mut files, path, &mut entry)?;
                }
                tar::EntryType::Symlink | tar::EntryType::Link => {
                    let target = entry.link_name().map_err(failed())?.unwrap_or_default();
                    let base = Path::new(&path).parent().unwrap_or(Path::new(""));
                    let target = match entry.header().entry_type() {
                        tar::EntryType::Symlink => base.join(target),
                        _ => target.into_owned(),
                    };
                    files.links.insert(path, target);
                }
                _ => {}
            }
        }
        self.register(&files, platform, watch)
    }

    /// Reads images from a directory: an OCI layout, an archive that was unpacked, or one of skopeo's.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_directory(
        &self,
        directory: &Path,
        platform: Option<&Platform>,
        watch: Watch<'_>,
    ) -> Result<Vec<Loaded>, ImageError> {
        let mut files = Files::default();
        let mut pending = vec![PathBuf::new()];
        while let Some(below) = pending.pop() {
            let folder = directory.join(&below);
            let failed = || ImageError::io("read", format!("`{}`", folder.display()));
            for entry in fs::read_dir(&folder).map_err(failed())? {
                let entry = entry.map_err(failed())?;
                let path = below.join(entry.file_name());
                let kind = entry.file_type().map_err(failed())?;
                if kind.is_dir() {
                    pending.push(path);
                } else if kind.is_file() {
                    let mut file = File::open(entry.path()).map_err(failed())?;
                    self.take(&mut files, relative(&path), &mut file)?;
                } else if kind.is_symlink() {
                    let target = fs::read_link(entry.path()).map_err(failed())?;
                    files.links.insert(relative(&path), below.join(target));
                }
            }
        }
        self.register(&files, platform, watch)
    }

    fn take(&self, files: &mut Files, path: String, content: &mut dyn Read) -> Result<(), ImageError> {
        if path.ends_with(".json") && !path.contains('/') {
            let mut bytes = Vec::new();
            let mut limited = content.take(MANIFEST_SIZE_BYTES_MAX);
            limited.read_to_end(&mut bytes).map_err(unreadable(&path))?;
            let expected = Expected { digest: Digest::of(&bytes), size_bytes: bytes.len() as u64 };
            self.store.content().ingest(&mut &bytes[..], expected)?;
            files.blobs.insert(path.clone(), (expected.digest, expected.size_bytes));
            files.documents.insert(path, bytes);
            return Ok(());
        }
        let mut writer = self.store.content().writer(ARCHIVE_SIZE_BYTES_MAX)?;
        let mut buffer = vec![0; READ_SIZE_BYTES];
        loop {
            match content.read(&mut buffer).map_err(unreadable(&path))? {
                0 => break,
                count => writer.push(&buffer[..count])?,
            }
        }
        let (digest, size_bytes) = writer.commit(None)?;
        if path.starts_with(BLOBS) && path != blob_path(digest) {
            return Err(ImageError::DamagedArchive { reason: format!("`{path}` is not what its name says") });
        }
        files.blobs.insert(path, (digest, size_bytes));
        Ok(())
    }

    fn register(
        &self,
        files: &Files,
        platform: Option<&Platform>,
        watch: Watch<'_>,
    ) -> Result<Vec<Loaded>, ImageError> {
        let targets = if let Some(index) = files.document(INDEX)? {
            named_targets(index)
        } else if let Some(target) = files.skopeo_s() {
            vec![(target, Vec::new())]
        } else if let Some(images) = files.document::<Vec<DockerImage>>(DOCKER_MANIFEST)? {
            images.iter().map(|image| self.docker_target(files, image)).collect::<Result<_, _>>()?
        } else {
            return Err(ImageError::NotAnArchive);
        };
        let mut loaded: Vec<Loaded> = Vec::new();
        for (target, names) in targets {
            let id = self.register_one(&target, &names, platform, watch).map_err(not_held)?;
            match loaded.iter_mut().find(|known| known.id == id) {
                Some(known) => known.names.extend(names),
                None => loaded.push(Loaded { id, names }),
            }
        }
        Ok(loaded)
    }

    fn register_one(
        &self,
        target: &Descriptor,
        names: &[Reference],
        platform: Option<&Platform>,
        watch: Watch<'_>,
    ) -> Result<Digest, ImageError> {
        let image = platform
            .map_or_else(|| self.open(target, &Platform::host()), |platform| self.only(target, platform))?;
        let placeholder = names.first().cloned().unwrap_or_else(unnamed);
        let layers = layers(&placeholder, &image)?;
        let (present, mut snapshot) = self.store.longest_chain(&image.config.rootfs.diff_ids)?;
        for layer in &layers[present..] {
            let unpacked = self.unpack_blob(layer, watch)?;
            snapshot = self.store.attach(&snapshot, unpacked, Some(&layer.blob))?;
        }
        self.name(&image.target, &[snapshot], names)?;
        Ok(image.id())
    }

    /// The image for a platform, without the others of its index.
    fn only(&self, target: &Descriptor, platform: &Platform) -> Result<StoredImage, ImageError> {
        let image = self.open_exactly(target, platform)?;
        let image = image.filter(|image| image.config.platform.runs_on(platform));
        let image = image.ok_or_else(|| ImageError::NoPlatform {
            name: target.digest.to_string(),
            platform: platform.clone(),
        })?;
        Ok(StoredImage { target: image.manifest_descriptor.clone(), ..image })
    }

    /// Makes a manifest for an image that Docker described in its own way.
    fn docker_target(
        &self,
        files: &Files,
        image: &DockerImage,
    ) -> Result<(Descriptor, Vec<Reference>), ImageError> {
        let (config, size_bytes) = files.blob(&image.config)?;
        let config = Descriptor::new(MediaType::OciConfig, config, size_bytes);
        self.document(&config, ImageConfig::parse)?;
        let layer = |path: &String| {
            let (digest, size_bytes) = files.blob(path)?;
            Ok(Descriptor::new(self.layer_type(digest)?, digest, size_bytes))
        };
        let layers = image.layers.iter().flatten().map(layer).collect::<Result<_, ImageError>>()?;
        let bytes = Manifest::new(config, layers).to_bytes();
        let target = Descriptor::of(MediaType::OciManifest, &bytes);
        self.keep(&target, &bytes)?;
        let names = image.repo_tags.iter().flatten().map(|name| tag(name)).collect::<Result<_, _>>()?;
        Ok((target, names))
    }

    fn layer_type(&self, digest: Digest) -> Result<MediaType, ImageError> {
        let mut file = self.store.content().open(digest)?.ok_or(ImageError::MissingLayer { digest })?;
        let mut head = [0; compression::MAGIC_BYTES];
        let count = file.read(&mut head).map_err(ImageError::io("read", format!("blob `{digest}`")))?;
        Ok(match compression::detect(&head[..count]) {
            compression::Compression::Gzip => MediaType::OciLayerGzip,
            compression::Compression::Zstd => MediaType::OciLayerZstd,
            _ => MediaType::OciLayer,
        })
    }
}

/// The system may fail to read an archive; all else is the archive's own fault.
fn unreadable(subject: &str) -> impl FnOnce(io::Error) -> ImageError + use<'_> {
    move |source| match source.raw_os_error() {
        Some(_) => ImageError::Io { verb: "read", subject: subject.to_owned(), source },
        // What follows the first clause is bytes of the archive.
        None => {
            let text = source.to_string();
            let reason = text.split(':').next().unwrap_or_default();
            ImageError::DamagedArchive { reason: format!("failed to read {subject}: {reason}") }
        }
    }
}

/// What the store lacks, the archive should have brought.
fn not_held(error: ImageError) -> ImageError {
    match error {
        ImageError::MissingDocument { digest } | ImageError::MissingLayer { digest } => {
            ImageError::ArchiveEntry { path: blob_path(digest) }
        }
        other => other,
    }
}

/// The manifests of an index with their names; entries for one manifest are put together.
fn named_targets(index: Index) -> Vec<(Descriptor, Vec<Reference>)> {
    let mut targets: Vec<(Descriptor, Vec<Reference>)> = Vec::new();
    let said_of_others = |entry: &Descriptor| entry.attests().is_some();
    for mut entry in index.manifests.into_iter().filter(|entry| !said_of_others(entry)) {
        let annotations = std::mem::take(&mut entry.annotations);
        // A single word there is a tag, and an image that has only a tag has no name.
        let whole = |name: &&String| name.contains(['/', ':']);
        let name = annotations.get(IMAGE_NAME).or_else(|| annotations.get(REF_NAME).filter(whole));
        let name = name.and_then(|name| name.parse::<Reference>().ok());
        entry.platform = None;
        match targets.iter_mut().find(|(known, _)| known.digest == entry.digest) {
            Some((_, names)) => names.extend(name),
            None => targets.push((entry, name.into_iter().collect())),
        }
    }
    targets
}

/// A name in Docker's `manifest.json`: as with Docker, never one with a digest, because the manifest it is to stand for is made here.
fn tag(name: &str) -> Result<Reference, ImageError> {
    let tag = name.parse().ok().filter(|reference: &Reference| reference.digest().is_none());
    tag.ok_or_else(|| ImageError::ArchiveTag { tag: name.to_owned() })
}

/// Where a link leads, as archives spell it; `None` if that is above the archive's root.
fn normal(target: &Path) -> Option<String> {
    let mut parts = Vec::new();
    for part in target.components() {
        match part {
            Component::Normal(name) => parts.push(name.to_string_lossy()),
            Component::ParentDir => drop(parts.pop()?),
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    Some(parts.join("/"))
}

/// A path as archives spell it, without `./` and without a way up.
fn relative(path: &Path) -> String {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy()),
        _ => None,
    });
    parts.collect::<Vec<_>>().join("/")
}
