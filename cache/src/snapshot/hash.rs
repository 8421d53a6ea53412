//! From layers to the digests of their tars.
//!
//! A tree that was made by this handle is at hand, with the digests of all contents: of what its parts would hold a digest is made
//! without reading one, and a part that was hashed for another layer is not hashed again.

use std::cmp::Ordering;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use rbuild_image::{DiffId, HashingWriter};

use super::LayerId;
use super::layers::{Archive, archives_of_entries, failed};
use crate::content_digest::Blake3;
use crate::layer::archive::{diff_into, write_error};
use crate::layer::merged::Merged;
use crate::layer::parts::{PartSink, Parts, Taking};
use crate::layer::{self, ArchiveOptions, Mtimes};
use crate::root_dir::RootDir;
use crate::tree::archive::ArchivedTree;
use crate::{Result, Store};

/// How much is hashed at once, how many such pieces may wait, and what one write adds to a piece at most.
const CHUNK_BYTES: usize = 1 << 20;
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
        how: HowMade,
    ) -> Result<Vec<Archive>, layer::Error> {
        let sink = self.archive_parts(stack, index, how, Hashes::default())?;
        Ok(sink
            .finish()
            .into_iter()
            .enumerate()
            .map(|(part, hashed)| how.archive(part, hashed, None))
            .collect())
    }

    /// The same of a layer that this handle has just made of a tree; `None` if it has not.
    pub(super) fn hash_grown(
        &self,
        layer: LayerId,
        lowers: &[RootDir],
        how: HowMade,
    ) -> Result<Option<Vec<Archive>>> {
        let Some(grown) = self.take_grown(layer) else { return Ok(None) };
        let lowers = Merged { layers: lowers, xattrs: self.xattrs() };
        let packs = grown.packs.iter().map(|pack| &pack.file).collect();
        let tree = ArchivedTree::new(&grown.tree, packs, lowers, mtimes(how.mtime_max));
        let source = GrownSource { tree, part_size_bytes: how.part_size_bytes };
        let entries =
            if source.has_parts() { source.digest_entries().map_err(failed(layer))? } else { Vec::new() };
        let known = self.0.db.read("look up archives", |db| archives_of_entries(db, &entries))?;
        let hashed = if !known.is_empty() && known.iter().all(Option::is_some) {
            known.into_iter().flatten().collect()
        } else {
            source.hash_aside(known).map_err(failed(layer))?
        };
        let archive = |(part, hashed)| how.archive(part, hashed, entries.get(part).copied());
        Ok(Some(hashed.into_iter().enumerate().map(archive).collect()))
    }

    /// Archives layer `index`, counted from the bottom of `stack`, which has the top first.
    pub(super) fn archive(
        &self,
        stack: &[RootDir],
        index: usize,
        mtime_max: Option<i64>,
        writer: &mut dyn Write,
    ) -> Result<(), layer::Error> {
        let at = stack.len() - 1 - index;
        let options = ArchiveOptions { mtimes: mtimes(mtime_max), cancel: None };
        layer::diff(&stack[at], &stack[at + 1..], self.xattrs(), &options, writer).map(drop)
    }

    /// The same, in parts.
    pub(super) fn archive_parts<S: PartSink>(
        &self,
        stack: &[RootDir],
        index: usize,
        how: HowMade,
        sink: S,
    ) -> Result<S, layer::Error> {
        let at = stack.len() - 1 - index;
        let options = ArchiveOptions { mtimes: mtimes(how.mtime_max), cancel: None };
        let lowers = Merged { layers: &stack[at + 1..], xattrs: self.xattrs() };
        let mut parts = Parts::new(sink, how.part_size_bytes);
        match diff_into(&stack[at], lowers, &options, &mut parts) {
            Ok(_) => end(parts),
            Err(error) => parts.satisfied().ok_or(error),
        }
    }
}

/// How archives are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct HowMade {
    pub(super) mtime_max: Option<i64>,
    /// Into parts of what size; 0: in one.
    pub(super) part_size_bytes: u64,
}

impl HowMade {
    /// One of them. Where its layer stands is said when all of the stack is known.
    const fn archive(self, part: usize, hashed: Hashed, entries: Option<Blake3>) -> Archive {
        let (diff_id, size_bytes) = hashed;
        let Self { mtime_max, part_size_bytes } = self;
        let continues = part > 0;
        Archive {
            diff_id,
            size_bytes,
            base: None,
            mtime_max,
            made: true,
            part_size_bytes,
            continues,
            entries,
        }
    }
}

/// A tree that is at hand, as what archives are made of.
struct GrownSource<'a> {
    tree: ArchivedTree<'a>,
    part_size_bytes: u64,
}

impl GrownSource<'_> {
    /// Whether it may be so large that it is cut.
    fn has_parts(&self) -> bool {
        let is_large = self.part_size_bytes > 0 && self.tree.size_bytes() >= self.part_size_bytes;
        is_large && self.tree.has_digests()
    }

    fn write<S: PartSink>(&self, sink: S) -> Result<S, layer::Error> {
        let mut parts = Parts::new(sink, self.part_size_bytes);
        self.tree.give(&mut parts)?;
        end(parts)
    }

    /// The digests of what its parts hold.
    fn digest_entries(&self) -> Result<Vec<Blake3>, layer::Error> {
        let digests = self.write(EntryDigests::default())?;
        Ok(digests.0.into_iter().map(|hasher| *hasher.finalize().as_bytes()).collect())
    }

    /// Hashes the parts that are not known, on another thread than the one that writes them.
    fn hash_aside(&self, known: Vec<Option<Hashed>>) -> Result<Vec<Hashed>, layer::Error> {
        let (sender, receiver) = mpsc::sync_channel(CHUNKS_AHEAD);
        let (back, used) = mpsc::channel();
        thread::scope(|scope| {
            let hasher = scope.spawn(move || {
                let mut hashes = Hashes::default();
                for message in receiver {
                    match message {
                        Message::Begin => drop(hashes.begin(0)),
                        Message::Bytes(bytes) => {
                            drop(hashes.write_all(&bytes));
                            // Nobody wants it any longer when the other side has ended.
                            drop(back.send(bytes));
                        }
                    }
                }
                hashes.finish()
            });
            let chunks = self.write(Chunks { sender, used, chunk: Vec::new(), known, parts: Vec::new() });
            let parts = chunks.map(Chunks::finish);
            let hashed = hasher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let mut hashed = hashed.into_iter();
            Ok(parts?.into_iter().filter_map(|known| known.or_else(|| hashed.next())).collect())
        })
    }
}

fn end<S: PartSink>(parts: Parts<S>) -> Result<S, layer::Error> {
    parts.finish().map_err(|error| write_error(error, Path::new("/")))
}

fn mtimes(max: Option<i64>) -> Mtimes {
    max.map_or(Mtimes::Keep, Mtimes::AtMost)
}

/// Hashes every part.
#[derive(Default)]
struct Hashes(Vec<HashingWriter<io::Sink>>);

impl Hashes {
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
        self.0.push(HashingWriter::new(io::sink()));
        Taking::All
    }
}

impl Write for Hashes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.last_mut().map_or(Ok(bytes.len()), |last| last.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Digests every part, with the digests of contents in their place.
#[derive(Default)]
struct EntryDigests(Vec<blake3::Hasher>);

impl PartSink for EntryDigests {
    fn begin(&mut self, _: usize) -> Taking {
        self.0.push(blake3::Hasher::new());
        Taking::Digests
    }
}

impl Write for EntryDigests {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(last) = self.0.last_mut() {
            last.update(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
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
}

impl<W: Write> Write for OnePart<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

enum Message {
    /// A part that is to be hashed begins.
    Begin,
    Bytes(Vec<u8>),
}

/// Hands on what is written in large pieces, but for parts that are known.
struct Chunks {
    sender: mpsc::SyncSender<Message>,
    /// Those that were hashed.
    used: mpsc::Receiver<Vec<u8>>,
    chunk: Vec<u8>,
    /// What is known of parts, by their number.
    known: Vec<Option<Hashed>>,
    /// The parts that have begun, with what is known of each.
    parts: Vec<Option<Hashed>>,
}

impl Chunks {
    fn send(&mut self) {
        let new = |_| Vec::with_capacity(CHUNK_BYTES + COPY_BYTES_MAX);
        let mut next = self.used.try_recv().unwrap_or_else(new);
        next.clear();
        // The other side ends with this one.
        drop(self.sender.send(Message::Bytes(std::mem::replace(&mut self.chunk, next))));
    }

    /// The parts, with what is known of each.
    fn finish(mut self) -> Vec<Option<Hashed>> {
        self.send();
        self.parts
    }
}

impl PartSink for Chunks {
    fn begin(&mut self, part: usize) -> Taking {
        let known = self.known.get(part).copied().flatten();
        self.parts.push(known);
        if known.is_some() {
            return Taking::Nothing;
        }
        self.send();
        drop(self.sender.send(Message::Begin));
        Taking::All
    }
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK_BYTES {
            self.send();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
