//! From layers to the digests of their tars.
//!
//! A tree that was made by this handle is at hand, with the digests of all contents: of what its parts would hold a digest is made
//! without reading one, and a part that was hashed for another layer is not hashed again.

use std::cmp::Ordering;
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;

use rayon::prelude::*;
use rbuild_image::{DiffId, HashingWriter};

use super::active::Errand;
use super::image::NewTree;
use super::layers::{Archive, archives_of_entries};
use super::{LayerId, Snapshot};
use crate::content_digest::Blake3;
use crate::layer::archive::{diff_into, write_error};
use crate::layer::merged::Merged;
use crate::layer::parts::{Cuts, Entries, Measure, PartSink, Parts, Taking, Whole};
use crate::layer::tar::TarWriteError;
use crate::layer::{self, ArchiveOptions, Mtimes};
use crate::root_dir::RootDir;
use crate::tree::archive::ArchivedTree;
use crate::tree::grow::SettledTree;
use crate::{Result, Store};

/// How much is hashed at once, how many such pieces may wait, and what one write adds to a piece at most.
const CHUNK_BYTES: usize = 1 << 18;
const CHUNKS_AHEAD: usize = 4;
const COPY_BYTES_MAX: usize = 256 * 1024;

/// A tar's digest and size.
type Hashed = (DiffId, u64);

impl Store {
    /// Hashes the archives of layer `index`, counted from the bottom of `stack`, which has the top first.
    pub(super) fn hash(
        &self,
        stack: &[RootDir],
        index: usize,
        mtime_max: Option<i64>,
    ) -> Result<Vec<Archive>, layer::Error> {
        let mut whole = Whole::new(Hashes::default(), self.0.options.part_size_bytes);
        self.give(stack, index, mtime_max, &mut whole)?;
        let (cuts, hashes) = match whole.finish().map_err(write_failed)? {
            Ok(hashes) => (Cuts::default(), Some(hashes)),
            Err(cuts) => (cuts, None),
        };
        let how = HowMade { mtime_max, cuts };
        let cut = || self.archive_parts(stack, index, &how, Hashes::default());
        let hashed = hashes.map_or_else(cut, Ok)?.finish();
        Ok(how.archives(hashed, &[]))
    }

    /// Hashes archives again that were made so.
    pub(super) fn hash_again(
        &self,
        stack: &[RootDir],
        index: usize,
        how: &HowMade,
    ) -> Result<Vec<DiffId>, layer::Error> {
        let hashed = self.archive_parts(stack, index, how, Hashes::default())?.finish();
        Ok(hashed.into_iter().map(|(diff_id, _)| diff_id).collect())
    }

    /// Hashes those of a layer that this handle has just made of a tree, unless that was done while it was committed on the same layers.
    pub(super) fn hash_new(
        &self,
        new: &NewTree,
        below: &[LayerId],
        lowers: &[RootDir],
        mtime_max: Option<i64>,
    ) -> Result<Vec<Archive>, layer::Error> {
        let aside = new.aside.as_ref().filter(|_| mtime_max.is_none());
        match aside.and_then(|aside| aside.archives_on(below)) {
            Some(archives) => Ok(archives),
            None => self.hash_tree(&new.settled, lowers, mtime_max),
        }
    }

    fn hash_tree(
        &self,
        settled: &SettledTree,
        lowers: &[RootDir],
        mtime_max: Option<i64>,
    ) -> Result<Vec<Archive>, layer::Error> {
        let lowers = Merged { layers: lowers, xattrs: self.xattrs() };
        let packs = settled.packs.iter().map(|pack| &**pack).collect();
        let tree = ArchivedTree::new(&settled.tree, packs, lowers, mtimes(mtime_max));
        let source = TreeSource::new(tree, self.0.options.part_size_bytes)?;
        let entries = source.digest_entries()?;
        // What cannot be looked up is hashed.
        let known = self.0.db.read("look up archives", |db| archives_of_entries(db, &entries));
        let known = known.unwrap_or_default();
        let is_known = !known.is_empty() && known.iter().all(Option::is_some);
        let new = if is_known { Vec::new() } else { source.hash(&known)? };
        let mut new = new.into_iter();
        let mut hashed: Vec<Hashed> =
            known.into_iter().filter_map(|known| known.or_else(|| new.next())).collect();
        hashed.extend(new);
        Ok(HowMade { mtime_max, cuts: source.cuts }.archives(hashed, &entries))
    }

    /// Has the archives of a tree hashed by `begin`, as those of a layer on `below` that has yet to be committed.
    pub(super) fn hash_aside(
        &self,
        settled: &Arc<SettledTree>,
        below: &Snapshot,
        begin: &dyn Fn(Errand),
    ) -> Arc<HashedAside> {
        let hashed = Arc::new(HashedAside { below: below.layers.to_vec(), archives: OnceLock::new() });
        let (store, settled, into) = (self.clone(), Arc::clone(settled), Arc::clone(&hashed));
        begin(Box::new(move || {
            // Whoever describes the layer meets a failure again.
            let Ok(lowers) = store.open_layers(&into.below) else { return };
            if let Ok(archives) = store.hash_tree(&settled, &lowers, None) {
                let _first = into.archives.set(archives);
            }
        }));
        hashed
    }

    /// Archives layer `index`, counted from the bottom of `stack`, which has the top first.
    pub(super) fn archive_parts<S: PartSink>(
        &self,
        stack: &[RootDir],
        index: usize,
        how: &HowMade,
        sink: S,
    ) -> Result<S, layer::Error> {
        finished(Parts::new(sink, &how.cuts), |parts| self.give(stack, index, how.mtime_max, parts))
    }

    /// Gives the entries of a layer's archive to whoever takes them.
    fn give(
        &self,
        stack: &[RootDir],
        index: usize,
        mtime_max: Option<i64>,
        out: &mut dyn Entries,
    ) -> Result<(), layer::Error> {
        let at = stack.len() - 1 - index;
        let options = ArchiveOptions { mtimes: mtimes(mtime_max), cancel: None };
        let lowers = Merged { layers: &stack[at + 1..], xattrs: self.xattrs() };
        diff_into(&stack[at], lowers, &options, out).map(drop)
    }
}

/// The archives of a tree that were hashed before the layer was committed, if they were.
#[derive(Debug)]
pub(super) struct HashedAside {
    below: Vec<LayerId>,
    archives: OnceLock<Vec<Archive>>,
}

impl HashedAside {
    /// Those of the layer on these: what it hides of them is in it.
    pub(super) fn archives_on(&self, below: &[LayerId]) -> Option<Vec<Archive>> {
        self.archives.get().filter(|_| self.below == below).cloned()
    }
}

/// How archives are made.
#[derive(Debug, Clone, Default)]
pub(super) struct HowMade {
    pub(super) mtime_max: Option<i64>,
    pub(super) cuts: Cuts,
}

impl HowMade {
    /// How archives of a layer were made.
    pub(super) fn of(archives: &[Archive]) -> Self {
        let begins = archives.iter().filter_map(|archive| archive.begins.clone());
        Self { mtime_max: archives.first().and_then(|first| first.mtime_max), cuts: begins.collect() }
    }

    /// The archives of a layer, with the digests of their entries as far as they are known. Where it stands is said when all of the
    /// stack is known.
    fn archives(&self, hashed: Vec<Hashed>, entries: &[Blake3]) -> Vec<Archive> {
        let archive = |(part, (diff_id, size_bytes)): (usize, Hashed)| Archive {
            diff_id,
            size_bytes,
            base: None,
            mtime_max: self.mtime_max,
            made: true,
            begins: part.checked_sub(1).and_then(|before| self.cuts.begin_after(before)).map(<[u8]>::to_vec),
            continues: part > 0,
            entries: entries.get(part).copied(),
        };
        hashed.into_iter().enumerate().map(archive).collect()
    }
}

/// A tree that is at hand, as what archives are made of.
struct TreeSource<'a> {
    tree: ArchivedTree<'a>,
    /// Whether it may be so large that it is cut.
    is_large: bool,
    cuts: Cuts,
}

impl<'a> TreeSource<'a> {
    fn new(tree: ArchivedTree<'a>, part_size_bytes: u64) -> Result<Self, layer::Error> {
        let is_large = part_size_bytes > 0 && tree.size_bytes_max() >= part_size_bytes;
        let mut measure = Measure::new(part_size_bytes);
        if is_large {
            tree.give(&mut measure)?;
        }
        Ok(Self { tree, is_large, cuts: measure.finish() })
    }

    fn write<S: PartSink>(&self, sink: S) -> Result<S, layer::Error> {
        finished(Parts::new(sink, &self.cuts), |parts| self.tree.give(parts))
    }

    /// The digests of what its parts hold; none where it costs no less to hash them.
    fn digest_entries(&self) -> Result<Vec<Blake3>, layer::Error> {
        if !self.is_large || !self.tree.has_digests() {
            return Ok(Vec::new());
        }
        // Each thread has a share, and looks at what leads there; the last one may have a part with nothing but directories besides.
        let parts = self.cuts.count() + 1;
        let count = rayon::current_num_threads().min(parts);
        let begin = |share: usize| if share == count { usize::MAX } else { share * parts / count };
        let shares: Vec<Range<usize>> = (0..count).map(|share| begin(share)..begin(share + 1)).collect();
        let digests = |parts| Ok(self.write(EntryDigests { parts, digests: Vec::new() })?.digests);
        let all = shares.into_par_iter().map(digests).collect::<Result<Vec<Vec<u8>>, layer::Error>>()?;
        Ok(all.concat().as_chunks().0.to_vec())
    }

    /// Hashes the parts that are not known by their number, on another thread than the one that writes them.
    fn hash(&self, known: &[Option<Hashed>]) -> Result<Vec<Hashed>, layer::Error> {
        let (sender, receiver) = mpsc::sync_channel(CHUNKS_AHEAD);
        let (back, used) = mpsc::channel();
        thread::scope(|scope| {
            let hasher = scope.spawn(move || {
                let mut hashes = Hashes::default();
                for message in receiver {
                    match message {
                        Message::Begin => hashes.begin_next(),
                        Message::Bytes(bytes) => {
                            hashes.update(&bytes);
                            // Nobody wants it any longer when the other side has ended.
                            drop(back.send(bytes));
                        }
                    }
                }
                hashes.finish()
            });
            let written = self.write(Chunks { sender, used, chunk: Vec::new(), known });
            let written = written.map(Chunks::finish);
            let hashed = hasher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            written.map(|()| hashed)
        })
    }
}

/// Gives a layer's parts to whoever takes them, or as many as it wants.
fn finished<S: PartSink>(
    mut parts: Parts<'_, S>,
    give: impl FnOnce(&mut Parts<'_, S>) -> Result<(), layer::Error>,
) -> Result<S, layer::Error> {
    match give(&mut parts) {
        Ok(()) => parts.finish().map_err(write_failed),
        Err(error) => parts.satisfied().ok_or(error),
    }
}

fn write_failed(error: TarWriteError) -> layer::Error {
    write_error(error, Path::new("/"))
}

fn mtimes(max: Option<i64>) -> Mtimes {
    max.map_or(Mtimes::Keep, Mtimes::AtMost)
}

/// Hashes every part.
#[derive(Default)]
struct Hashes(Vec<HashingWriter<io::Sink>>);

impl Hashes {
    fn begin_next(&mut self) {
        self.0.push(HashingWriter::new(io::sink()));
    }

    fn update(&mut self, bytes: &[u8]) {
        if let Some(last) = self.0.last_mut() {
            // Nothing fails that is written nowhere.
            drop(last.write_all(bytes));
        }
    }

    fn finish(self) -> Vec<Hashed> {
        let hashed = |writer: HashingWriter<io::Sink>| {
            let (digest, size_bytes, _) = writer.finish();
            (DiffId(digest), size_bytes)
        };
        self.0.into_iter().map(hashed).collect()
    }
}

impl PartSink for Hashes {
    fn begin(&mut self, _: usize) -> Taking {
        self.begin_next();
        Taking::All
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.update(bytes);
        Ok(())
    }
}

/// The digests of some parts, one after the other.
struct EntryDigests {
    parts: Range<usize>,
    digests: Vec<u8>,
}

impl PartSink for EntryDigests {
    fn begin(&mut self, part: usize) -> Taking {
        if part < self.parts.start {
            Taking::Nothing
        } else if self.parts.contains(&part) {
            Taking::Digest
        } else {
            Taking::NoMore
        }
    }

    fn put(&mut self, digest: &[u8]) -> io::Result<()> {
        self.digests.extend_from_slice(digest);
        Ok(())
    }
}

/// Writes one part.
pub(super) struct OnePart<W> {
    part: usize,
    writer: W,
}

impl<W> OnePart<W> {
    pub(super) const fn new(part: usize, writer: W) -> Self {
        Self { part, writer }
    }

    pub(super) fn finish(self) -> W {
        self.writer
    }
}

impl<W: Write> PartSink for OnePart<W> {
    fn begin(&mut self, part: usize) -> Taking {
        match part.cmp(&self.part) {
            Ordering::Less => Taking::Nothing,
            Ordering::Equal => Taking::All,
            Ordering::Greater => Taking::NoMore,
        }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }
}

enum Message {
    /// A part that is to be hashed begins.
    Begin,
    Bytes(Vec<u8>),
}

/// Hands on what is put in large pieces, but for parts that are known.
struct Chunks<'a> {
    sender: mpsc::SyncSender<Message>,
    /// Those that were hashed.
    used: mpsc::Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    /// What is known of parts, by their number.
    known: &'a [Option<Hashed>],
}

impl Chunks<'_> {
    fn send(&mut self) {
        let new = |_| Vec::with_capacity(CHUNK_BYTES + COPY_BYTES_MAX);
        let mut next = self.used.try_recv().unwrap_or_else(new);
        next.clear();
        // The other side ends with this one.
        drop(self.sender.send(Message::Bytes(std::mem::replace(&mut self.chunk, next))));
    }

    fn finish(mut self) {
        self.send();
    }
}

impl PartSink for Chunks<'_> {
    fn begin(&mut self, part: usize) -> Taking {
        if self.known.get(part).is_some_and(Option::is_some) {
            return Taking::Nothing;
        }
        self.send();
        drop(self.sender.send(Message::Begin));
        Taking::All
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.send();
        }
        Ok(())
    }
}
