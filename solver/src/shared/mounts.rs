//! Cache mounts in a shared cache: their content as a tar, in chunks that are cut where the content says.
//!
//! A chunk is a blob, so a cache mount that changed costs the chunks that changed. Which chunks make it is a document of its own, one
//! for each id; whoever writes last wins, as with a cache mount that two steps share.

use std::collections::HashMap;
use std::io::{self, Read, Write};

use fastcdc::v2020::StreamCDC;
use rbuild_cache::layer::compression::{Decoder, Encoder, Encoding};
use rbuild_image::{Descriptor, Digest, Manifest, MediaType};
use rbuild_registry::{BlobUpload, RemoteStore};

use super::record::{CREATED, STEP, artifact, used_at};
use super::{DocumentName, ExportOptions, SharedCaches};
use crate::cache_key::CacheKey;
use crate::images::{ImageError, Images, Watch, in_parallel, produced};
use crate::local::cache_mount_key;

const MOUNT_TYPE: &str = "application/vnd.rbuild.cache.mount.v1";
const CHUNK_TYPE: &str = "application/vnd.rbuild.cache.chunk.v1+zstd";
/// The digest of a chunk before it was compressed.
const CHUNK: &str = "dev.rbuild.chunk";
/// How large chunks are. A document of 4 MiB names some 12,000 of them.
const CHUNK_BYTES_MIN: usize = 128 * 1024;
const CHUNK_BYTES_AVERAGE: usize = 512 * 1024;
const CHUNK_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many are sent or fetched at a time.
const CHUNKS_AT_ONCE: usize = 8;
const ENCODING: Encoding = Encoding::Zstd { level: 3 };

/// What became of a cache mount that was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MountExported {
    /// Of how many chunks it is.
    pub chunks: usize,
    /// How many of them the cache lacked.
    pub sent: usize,
}

/// A cache mount that a shared cache has.
#[derive(Debug)]
pub struct SharedMount {
    store: RemoteStore,
    manifest: Box<Manifest>,
}

fn name_of(id: &str) -> DocumentName {
    DocumentName::Mount(CacheKey(cache_mount_key(id, None).0))
}

impl SharedCaches {
    /// A cache mount, from the first cache that has it.
    pub fn mount(&self, id: &str, watch: Watch<'_>) -> Option<SharedMount> {
        let find = |cache| {
            let manifest = self.documents(cache, &[name_of(id)], watch.cancel).pop()??;
            let is_one = manifest.artifact_type.as_ref().is_some_and(|kind| kind.as_str() == MOUNT_TYPE);
            let is_it = is_one && manifest.annotations.get(STEP).is_some_and(|name| name == id);
            is_it.then(|| SharedMount { store: cache.store.clone(), manifest })
        };
        self.caches.iter().find_map(find)
    }
}

impl Images {
    /// Writes a cache mount, the content of which is the tar that `write` writes.
    ///
    /// # Errors
    /// `write`'s, and the cache's.
    pub fn export_mount(
        &self,
        id: &str,
        write: impl FnOnce(&mut dyn Write) -> Result<(), ImageError> + Send + 'static,
        options: &ExportOptions<'_>,
        watch: Watch<'_>,
    ) -> Result<MountExported, ImageError> {
        let name = name_of(id).to_string();
        let before = options.to.documents(std::slice::from_ref(&name), watch.cancel)?.pop().flatten();
        let before = before.and_then(|bytes| Manifest::parse(&bytes).ok());
        let mut known: HashMap<Digest, Descriptor> = HashMap::new();
        for layer in before.iter().flat_map(|manifest| &manifest.layers) {
            known.extend(chunk_digest(layer).map(|digest| (digest, layer.clone())));
        }
        let (layers, exported) = self.push_chunks(produced(write), &mut known, options, watch)?;
        self.push_config(options.to, watch)?;
        let mut manifest = artifact(MOUNT_TYPE, Default::default(), layers);
        manifest.annotations.insert(STEP.to_owned(), id.to_owned());
        manifest.annotations.insert(CREATED.to_owned(), options.now.to_string());
        let manifest = used_at(options.caches.trust.seal(manifest), options.now);
        options.to.put_document(&name, &manifest.to_bytes(), watch.cancel)?;
        Ok(exported)
    }

    fn push_chunks(
        &self,
        tar: impl Read,
        known: &mut HashMap<Digest, Descriptor>,
        options: &ExportOptions<'_>,
        watch: Watch<'_>,
    ) -> Result<(Vec<Descriptor>, MountExported), ImageError> {
        let failed = |error: fastcdc::v2020::Error| {
            ImageError::io("read", "a cache mount")(io::Error::other(error.to_string()))
        };
        let mut cut = StreamCDC::new(tar, CHUNK_BYTES_MIN, CHUNK_BYTES_AVERAGE, CHUNK_BYTES_MAX).peekable();
        let (mut order, mut exported) = (Vec::new(), MountExported::default());
        while cut.peek().is_some() {
            let mut new: HashMap<Digest, Vec<u8>> = HashMap::new();
            for chunk in cut.by_ref().take(CHUNKS_AT_ONCE) {
                let data = chunk.map_err(failed)?.data;
                let digest = Digest::of(&data);
                order.push(digest);
                if !known.contains_key(&digest) {
                    new.insert(digest, data);
                }
            }
            let new: Vec<_> = new.into_iter().collect();
            exported.sent += new.len();
            let push = |(digest, data): &(Digest, Vec<u8>)| self.push_chunk(*digest, data, options.to, watch);
            let sent = in_parallel(&new, CHUNKS_AT_ONCE, push)?;
            known.extend(new.iter().map(|(digest, _)| *digest).zip(sent));
        }
        exported.chunks = order.len();
        Ok((order.iter().map(|digest| known[digest].clone()).collect(), exported))
    }

    fn push_chunk(
        &self,
        digest: Digest,
        data: &[u8],
        to: &RemoteStore,
        watch: Watch<'_>,
    ) -> Result<Descriptor, ImageError> {
        let failed = || ImageError::io("compress", "a chunk of a cache mount");
        let mut encoder =
            Encoder::new(Vec::new(), ENCODING, self.pool().map_err(failed())?).map_err(failed())?;
        encoder.write_all(data).map_err(failed())?;
        let packed = encoder.finish().map_err(failed())?;
        let mut descriptor = Descriptor::of(MediaType::from(CHUNK_TYPE), &packed);
        let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::Cursor::new(packed.clone()))) };
        let upload = BlobUpload { descriptor: &descriptor, open: &open, mount_from: &[] };
        to.push_blob(&upload, rbuild_registry::Watch { progress: &|_| {}, cancel: watch.cancel })?;
        descriptor.annotations.insert(CHUNK.to_owned(), digest.to_string());
        Ok(descriptor)
    }
}

impl SharedMount {
    /// Its content: a tar, fetched as it is read.
    pub fn open<'a>(&'a self, watch: Watch<'a>) -> impl Read + Send + 'a {
        Chunks { mount: self, watch, next: 0, content: io::Cursor::default() }
    }

    fn fetch(&self, layer: &Descriptor, watch: Watch<'_>) -> io::Result<Vec<u8>> {
        let mut packed = Vec::new();
        let watch = rbuild_registry::Watch { progress: &|_| {}, cancel: watch.cancel };
        self.store.fetch_blob(layer, &mut packed, watch).map_err(io::Error::other)?;
        let mut chunk = Vec::new();
        Decoder::new(packed.as_slice(), CHUNK_BYTES_MAX as u64)?.read_to_end(&mut chunk)?;
        if chunk_digest(layer) == Some(Digest::of(&chunk)) {
            return Ok(chunk);
        }
        Err(io::Error::other("a chunk is not what its digest says"))
    }
}

/// The chunks of a cache mount, one after the other.
struct Chunks<'a> {
    mount: &'a SharedMount,
    watch: Watch<'a>,
    next: usize,
    content: io::Cursor<Vec<u8>>,
}

impl Read for Chunks<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let layers = &self.mount.manifest.layers;
        if self.content.position() == self.content.get_ref().len() as u64 && self.next < layers.len() {
            let some = &layers[self.next..layers.len().min(self.next + CHUNKS_AT_ONCE)];
            let chunks = in_parallel(some, CHUNKS_AT_ONCE, |layer| self.mount.fetch(layer, self.watch))?;
            self.next += some.len();
            self.content = io::Cursor::new(chunks.concat());
        }
        self.content.read(buffer)
    }
}

fn chunk_digest(layer: &Descriptor) -> Option<Digest> {
    layer.annotations.get(CHUNK)?.parse().ok()
}
