//! The form of an image archive: an OCI layout as a tar or a directory, with Docker's `manifest.json` beside it when asked.
//!
//! ```text
//! oci-layout               {"imageLayoutVersion":"1.0.0"}
//! index.json               one entry for each name
//! manifest.json            Docker: config, layers and names of each image
//! blobs/sha256/<hex>       manifests, configs, layers; each once
//! ```

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rbuild_image::Digest;
use serde::{Deserialize, Serialize};

/// The OCI name of the tag in an index entry.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// containerd's (and so Docker's) name of the whole reference in an index entry.
pub(super) const IMAGE_NAME: &str = "io.containerd.image.name";
pub(super) const OCI_LAYOUT: &str = "oci-layout";
pub(super) const OCI_LAYOUT_CONTENT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
pub(super) const INDEX: &str = "index.json";
/// Below it every file is named by its digest.
pub(super) const BLOBS: &str = "blobs/sha256/";
pub(super) const DOCKER_MANIFEST: &str = "manifest.json";
/// In directories of skopeo's transport `dir:` alone. Their `manifest.json` is the image's manifest, or an index, and blobs are named by
/// the digits of their digests.
pub(super) const SKOPEO_VERSION: &str = "version";

/// What an archive can be read by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// By Docker, and by all that read OCI layouts.
    Docker,
    /// By all that read OCI layouts.
    Oci,
}

/// An image in Docker's `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerImage {
    pub(super) config: String,
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    /// `null` where there are none.
    #[serde(default)]
    pub(super) layers: Option<Vec<String>>,
}

/// Where a blob stands in a layout.
pub(super) fn blob_path(digest: Digest) -> String {
    format!("{BLOBS}{}", digest.hex())
}

/// Somewhere to put the files of a layout.
pub trait LayoutSink {
    /// Adds a file of known size.
    ///
    /// # Errors
    /// When it cannot be written, or `content` is not as long as announced.
    fn add(&mut self, path: &str, size_bytes: u64, content: &mut dyn Read) -> io::Result<()>;

    /// Ends the layout.
    ///
    /// # Errors
    /// When what was written cannot be flushed.
    fn finish(&mut self) -> io::Result<()>;
}

/// A layout as a tar.
///
/// Directories come before what is in them: some readers give those that an archive lacks to root, and fail where they
/// are not root.
pub struct TarSink<W: Write> {
    tar: tar::Builder<W>,
    has_directories: bool,
}

impl<W: Write> std::fmt::Debug for TarSink<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TarSink")
    }
}

impl<W: Write> TarSink<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { tar: tar::Builder::new(out), has_directories: false }
    }

    fn add_directories(&mut self) -> io::Result<()> {
        for path in ["blobs/", BLOBS] {
            let mut header = header(tar::EntryType::Directory, 0o755, 0);
            self.tar.append_data(&mut header, path, io::empty())?;
        }
        self.has_directories = true;
        Ok(())
    }
}

fn header(kind: tar::EntryType, mode: u32, size_bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(size_bytes);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

impl<W: Write> LayoutSink for TarSink<W> {
    fn add(&mut self, path: &str, size_bytes: u64, content: &mut dyn Read) -> io::Result<()> {
        if path.starts_with(BLOBS) && !self.has_directories {
            self.add_directories()?;
        }
        let mut header = header(tar::EntryType::Regular, 0o444, size_bytes);
        let mut content = Exact { inner: content, left_bytes: size_bytes };
        self.tar.append_data(&mut header, path, &mut content)?;
        content.check()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.tar.finish()?;
        self.tar.get_mut().flush()
    }
}

/// A layout as a directory.
#[derive(Debug)]
pub struct DirectorySink(PathBuf);

impl DirectorySink {
    /// Writes below `directory`, which is made.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory.join("blobs/sha256"))?;
        Ok(Self(directory.to_owned()))
    }
}

impl LayoutSink for DirectorySink {
    fn add(&mut self, path: &str, size_bytes: u64, content: &mut dyn Read) -> io::Result<()> {
        let path = self.0.join(path);
        let temporary = path.with_extension("partial");
        let mut content = Exact { inner: content, left_bytes: size_bytes };
        io::copy(&mut content, &mut File::create(&temporary)?)?;
        content.check()?;
        fs::rename(temporary, path)
    }

    fn finish(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A reader that must yield exactly as much as was announced.
struct Exact<'a> {
    inner: &'a mut dyn Read,
    left_bytes: u64,
}

impl Exact<'_> {
    fn check(&mut self) -> io::Result<()> {
        if self.left_bytes == 0 && self.inner.read(&mut [0])? == 0 {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the content is not as long as its descriptor says"))
    }
}

impl Read for Exact<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left_bytes).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.inner.read(&mut buffer[..most])?;
        self.left_bytes -= count as u64;
        Ok(count)
    }
}
