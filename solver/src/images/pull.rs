//! From a registry into the store: layers are fetched and unpacked side by side, because none needs the one below it until
//! they are put on top of one another.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;

use rbuild_cache::layer::compression::decompress;
use rbuild_cache::{BlobWriter, CacheKey, Expected, KeyLock, Snapshot, UnpackedLayer};
use rbuild_image::{Descriptor, DiffId, Platform, Reference};
use rbuild_registry::RemoteStore;

use super::produced::{Sending, channel};
use super::push::reporting;
use super::{ImageError, Images, PullPolicy, StoredImage, Transfer, Watch};

/// How many blobs are fetched at once: more does not help one registry, and Docker's own default is 3.
const FETCHES_MAX: usize = 4;

/// A layer before it is unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PackedLayer {
    /// The form it is in.
    pub(crate) blob: Descriptor,
    /// What it must unpack to.
    pub(crate) diff_id: DiffId,
    /// When it was made, Unix seconds, where that is known.
    pub(crate) created: Option<i64>,
    /// Whether it is known that the step that made it has made the one below it, too.
    pub(crate) continues: bool,
}

/// Writes a layer's blob, from wherever it is.
pub(crate) type Fetch<'a> = &'a (dyn Fn(&Descriptor, &mut dyn Write) -> Result<(), ImageError> + Sync);

impl Images {
    /// Brings an image, documents and layers, into the store.
    ///
    /// # Errors
    /// When a registry or the store fails, or what the registry gives is not what its digests say.
    pub fn pull(
        &self,
        reference: &Reference,
        platform: &Platform,
        policy: PullPolicy,
        watch: Watch<'_>,
    ) -> Result<(StoredImage, Snapshot), ImageError> {
        let image = self.resolve(reference, platform, policy, watch.cancel)?;
        let snapshot = self.unpack(reference, &image, watch)?;
        Ok((image, snapshot))
    }

    /// The snapshot of an image; layers that the store lacks are fetched from the reference's registry.
    ///
    /// # Errors
    /// As [`pull`](Self::pull).
    pub fn unpack(
        &self,
        reference: &Reference,
        image: &StoredImage,
        watch: Watch<'_>,
    ) -> Result<Snapshot, ImageError> {
        let repository = self.repository(reference);
        self.unpack_from(
            reference,
            image,
            &|layer, out| self.fetch_from(&repository, layer, out, watch),
            watch,
        )
    }

    /// The snapshot of an image; `fetch` writes the blobs of layers that the store lacks.
    pub(super) fn unpack_from(
        &self,
        name: &Reference,
        image: &StoredImage,
        fetch: Fetch<'_>,
        watch: Watch<'_>,
    ) -> Result<Snapshot, ImageError> {
        if let Some(snapshot) = self.snapshot(image)? {
            return Ok(snapshot);
        }
        self.unpack_layers(&layers(name, image)?, fetch, watch)
    }

    /// The snapshot of layers, bottom first; `fetch` writes the blobs of those that the store lacks.
    pub(crate) fn unpack_layers(
        &self,
        layers: &[PackedLayer],
        fetch: Fetch<'_>,
        watch: Watch<'_>,
    ) -> Result<Snapshot, ImageError> {
        let diff_ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
        let (present, below) = self.store.longest_chain(&diff_ids)?;
        self.note_continuing(&layers[..present])?;
        self.unpack_layers_on(below, &layers[present..], fetch, watch)
    }

    /// The same on top of a snapshot; all of the layers are fetched.
    pub(crate) fn unpack_layers_on(
        &self,
        below: Snapshot,
        layers: &[PackedLayer],
        fetch: Fetch<'_>,
        watch: Watch<'_>,
    ) -> Result<Snapshot, ImageError> {
        let snapshot = self.fetch_and_unpack(layers, below, fetch, watch)?;
        self.note_continuing(layers)?;
        Ok(snapshot)
    }

    fn note_continuing(&self, layers: &[PackedLayer]) -> Result<(), ImageError> {
        let continuing = layers.iter().filter(|layer| layer.continues).map(|layer| layer.diff_id);
        Ok(self.store.note_continuing(&continuing.collect::<Vec<_>>())?)
    }

    /// Fetches and unpacks layers side by side, and puts them on top of one another in order as they come in.
    fn fetch_and_unpack(
        &self,
        layers: &[PackedLayer],
        below: Snapshot,
        fetch: Fetch<'_>,
        watch: Watch<'_>,
    ) -> Result<Snapshot, ImageError> {
        let (sender, arrivals) = mpsc::channel();
        let queue = Mutex::new(layers.iter().enumerate());
        thread::scope(|scope| {
            for _ in 0..FETCHES_MAX.min(layers.len()) {
                let (sender, queue) = (sender.clone(), &queue);
                scope.spawn(move || {
                    loop {
                        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                        let Some((index, layer)) = next else { break };
                        let unpacked = self.fetch_unpacking(layer, fetch, watch);
                        // A receiver that is gone has failed already.
                        if unpacked.is_err() | sender.send((index, unpacked)).is_err() {
                            break;
                        }
                    }
                });
            }
            drop(sender);
            self.attach_in_order(layers, below, arrivals)
        })
    }

    fn attach_in_order(
        &self,
        layers: &[PackedLayer],
        below: Snapshot,
        arrivals: mpsc::Receiver<(usize, Result<UnpackedLayer, ImageError>)>,
    ) -> Result<Snapshot, ImageError> {
        let mut waiting: HashMap<usize, UnpackedLayer> = HashMap::new();
        let mut snapshot = below;
        for (index, layer) in layers.iter().enumerate() {
            let unpacked = loop {
                if let Some(unpacked) = waiting.remove(&index) {
                    break unpacked;
                }
                let (arrived, unpacked) = arrivals.recv().map_err(|_| ImageError::Cancelled)?;
                waiting.insert(arrived, unpacked?);
            };
            snapshot = self.store.attach(&snapshot, unpacked, Some(&layer.blob))?;
        }
        Ok(snapshot)
    }

    /// Brings one blob into the content store. Of several who want it at a time, in whatever process, one fetches it.
    pub(crate) fn fetch_blob(
        &self,
        from: &RemoteStore,
        descriptor: &Descriptor,
        watch: Watch<'_>,
    ) -> Result<(), ImageError> {
        let _lock = self.lock_blob(descriptor, watch)?;
        if self.store.content().contains(descriptor.digest)? {
            return Ok(());
        }
        let mut writer = self.store.content().writer(descriptor.size_bytes)?;
        self.fetch_from(from, descriptor, &mut writer, watch)?;
        writer.commit(Some(Expected::from(descriptor)))?;
        Ok(())
    }

    /// Writes a blob of a registry or another place.
    pub(crate) fn fetch_from(
        &self,
        from: &RemoteStore,
        descriptor: &Descriptor,
        out: &mut dyn Write,
        watch: Watch<'_>,
    ) -> Result<(), ImageError> {
        let progress = reporting(watch, descriptor.digest.short(), Some(descriptor.size_bytes));
        let transfer = rbuild_registry::Watch { progress: &progress, cancel: watch.cancel };
        from.fetch_blob(descriptor, out, transfer)?;
        self.remember_place(from, descriptor.digest)
    }

    fn lock_blob(&self, descriptor: &Descriptor, watch: Watch<'_>) -> Result<KeyLock, ImageError> {
        Ok(self.store.lock_key(&CacheKey(*descriptor.digest.as_bytes()), watch.cancel)?)
    }

    /// Unpacks a layer while its blob is fetched, unless that is in the content store. The blob is verified before the layer can
    /// be put anywhere.
    fn fetch_unpacking(
        &self,
        layer: &PackedLayer,
        fetch: Fetch<'_>,
        watch: Watch<'_>,
    ) -> Result<UnpackedLayer, ImageError> {
        let _lock = self.lock_blob(&layer.blob, watch)?;
        if self.store.content().contains(layer.blob.digest)? {
            return self.unpack_blob(layer, watch);
        }
        let (unpacker, mut received) = channel();
        let mut both = Both { blob: self.store.content().writer(layer.blob.size_bytes)?, unpacker };
        thread::scope(|scope| {
            let fetching = scope.spawn(move || {
                let fetched = fetch(&layer.blob, &mut both);
                both.finish(fetched, &layer.blob)
            });
            let unpacked = self.unpack_reader(layer, &mut received).and_then(|unpacked| {
                let rest = io::copy(&mut received, &mut io::sink());
                rest.map(|_| unpacked).map_err(ImageError::io("read", "the rest of a layer"))
            });
            drop(received);
            match fetching.join().unwrap_or(Fetched::Abandoned) {
                Fetched::Whole => unpacked,
                Fetched::Abandoned => unpacked.and(Err(ImageError::Cancelled)),
                Fetched::Failed(error) => Err(error),
            }
        })
    }

    /// Unpacks a blob of the content store, to be put on top of others.
    pub(super) fn unpack_blob(
        &self,
        layer: &PackedLayer,
        watch: Watch<'_>,
    ) -> Result<UnpackedLayer, ImageError> {
        let digest = layer.blob.digest;
        let mut blob = self.store.content().open(digest)?.ok_or(ImageError::MissingLayer { digest })?;
        (watch.transfers)(Transfer {
            name: format!("extracting {}", digest.short()),
            current_bytes: 0,
            total_bytes: Some(layer.blob.size_bytes),
        });
        self.unpack_reader(layer, &mut blob)
    }

    fn unpack_reader(
        &self,
        layer: &PackedLayer,
        blob: &mut (dyn Read + Send),
    ) -> Result<UnpackedLayer, ImageError> {
        let (digest, diff_id) = (layer.blob.digest, layer.diff_id);
        let failed =
            |source: Box<dyn std::error::Error + Send + Sync>| ImageError::Unpack { digest, diff_id, source };
        let mut tar = decompress(blob).map_err(|error| failed(error.into()))?;
        let unpacked = self.store.unpack_layer(Some(diff_id), &mut tar).map_err(|error| {
            if error.is_of_archive() { failed(error.into()) } else { ImageError::Store(error) }
        })?;
        Ok(unpacked.made_at(layer.created))
    }
}

/// A blob on its way to the content store and to who unpacks it.
struct Both {
    blob: BlobWriter,
    unpacker: Sending,
}

/// What came of fetching a blob.
enum Fetched {
    /// It is in the content store.
    Whole,
    /// Who unpacks it wanted no more.
    Abandoned,
    Failed(ImageError),
}

impl Both {
    fn finish(self, fetched: Result<(), ImageError>, descriptor: &Descriptor) -> Fetched {
        let Self { blob, unpacker } = self;
        if unpacker.is_abandoned() {
            return Fetched::Abandoned;
        }
        let whole = fetched.is_ok();
        unpacker.finish(if whole { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) });
        let kept = fetched.and_then(|()| Ok(blob.commit(Some(Expected::from(descriptor)))?));
        kept.map_or_else(Fetched::Failed, |_| Fetched::Whole)
    }
}

impl Write for Both {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.blob.write_all(buffer)?;
        self.unpacker.write_all(buffer)?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The layers of an image, bottom first: what to fetch, and what it must unpack to.
pub(super) fn layers(name: &Reference, image: &StoredImage) -> Result<Vec<PackedLayer>, ImageError> {
    let diff_ids = &image.config.rootfs.diff_ids;
    let layers = &image.manifest.layers;
    if diff_ids.len() != layers.len() {
        return Err(image.uneven(name.familiar()));
    }
    let packed = |(blob, diff_id): (&Descriptor, &DiffId)| PackedLayer {
        blob: blob.clone(),
        diff_id: *diff_id,
        created: None,
        continues: false,
    };
    Ok(layers.iter().zip(diff_ids).map(packed).collect())
}
