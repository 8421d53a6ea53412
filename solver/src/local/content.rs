//! Content digests: of a snapshot's tree, and of a build context's files.
//!
//! What a copy takes is found by the same code that copies it ([`file::find_sources`]), so that a digest covers just what the
//! step is given. A path that is not there counts as absent: it is the step that fails, and knows how to say so.
//!
//! The digest of a whole snapshot is made of the digests of its layers, each computed once ever. Two different stacks that
//! show one tree then differ: that costs a step that could have been reused, never a wrong result.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};

use rbuild_cache::Snapshot;
use rbuild_cache::content_digest::{
    DigestOptions, Memory, Seen, SeenGroup, Selected, TreeOwner, Verdict, look_at_tree,
};
use rbuild_image::KeyHasher;
use rbuild_llb::pattern::{CopySelection, Patterns};
use rbuild_llb::{CopyAction, FileInput, InputIndex, LocalSource, Op, SourceOp};

use super::file::{CopySource, FileError, SourceKind, find_sources};
use super::{LocalWorker, WorkerError};
use crate::cache_key::ContentDigest;
use crate::cache_map::{SelectedPath, Selection, selections};
use crate::explain::{FileEntry, FileList};
use crate::worker::{Context, Input, VertexRef};

/// How many selections of contexts, and how many of snapshots, are remembered until somebody copies them: each takes some ten megabytes for 50,000 files.
const SEEN_MAX: usize = 4;

impl LocalWorker<'_> {
    pub(super) fn digest_snapshot(
        &self,
        snapshot: &Snapshot,
        selection: &Selection,
        cx: &Context<'_>,
    ) -> Result<ContentDigest, WorkerError> {
        match selection {
            Selection::Whole => Ok(ContentDigest(self.store().content_digest(snapshot, self.pool)?)),
            Selection::Paths(paths) => {
                let root = self.view(snapshot)?;
                let layers = self.store().known_layers(snapshot, Vec::new());
                let source =
                    CopySource { root: &root, kind: SourceKind::Tree, exclude: None, layers: Some(&layers) };
                let (digest, looks) = self.digest_paths(&source, paths, cx)?;
                self.remember_seen(snapshot, &looks);
                Ok(digest)
            }
        }
    }

    /// The digest of what a step takes of a context, for its key. What was seen is kept where a tree is made of it, so that nobody looks again.
    pub(super) fn digest_local(
        &self,
        vertex: VertexRef<'_>,
        selection: &Selection,
        cx: &Context<'_>,
    ) -> Result<ContentDigest, WorkerError> {
        let local = local_source(vertex)?;
        let (digest, looks) = self.look_at_local(local, selection, cx)?;
        let seen = match &looks[..] {
            [Look { places, seen }] if places.len() == 1 && self.is_planned(seen.files()) => {
                Some((places[0].0.clone(), Arc::clone(seen)))
            }
            _ => None,
        };
        self.keep_file_list(digest.0, move || file_list(&looks));
        let taken = Taken { local: local.clone(), selection: selection.clone() };
        let mut all = self.digested.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|earlier| earlier.taken != taken);
        all.push(Digested { taken, digest, seen });
        all.iter_mut().rev().filter(|one| one.seen.is_some()).skip(SEEN_MAX).for_each(|one| one.seen = None);
        Ok(digest)
    }

    /// What the key of a step was made of; `None` where it has none, as who looks into a step runs it for nobody else.
    fn digested(&self, source: VertexRef<'_>, input: InputIndex, cx: &Context<'_>) -> Option<Digested> {
        let step = VertexRef { id: cx.vertex, ..source };
        let selection = selections(step.vertex()).into_iter().nth(input.index())?;
        let taken = Taken { local: local_source(source).ok()?.clone(), selection };
        let all = self.digested.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().find(|one| one.taken == taken).cloned()
    }

    /// What the key of a step has seen of a context, if that is kept, and where.
    pub(super) fn seen_of_context(
        &self,
        source: VertexRef<'_>,
        input: InputIndex,
        cx: &Context<'_>,
    ) -> Option<(PathBuf, Arc<Seen>)> {
        self.digested(source, input, cx)?.seen
    }

    /// Sees to it that what a step has just taken of a context is what its key was made of: whoever finds the result by that key is to get what the key says.
    ///
    /// # Errors
    /// [`WorkerError::ContextChanged`] if the context is another one by now.
    pub(super) fn check_context(
        &self,
        source: VertexRef<'_>,
        input: InputIndex,
        cx: &Context<'_>,
    ) -> Result<(), WorkerError> {
        let Some(Digested { taken, digest, .. }) = self.digested(source, input, cx) else { return Ok(()) };
        let (now, _) = self.look_at_local(&taken.local, &taken.selection, cx)?;
        if now == digest { Ok(()) } else { Err(WorkerError::ContextChanged { name: taken.local.name }) }
    }

    /// Why a step could not take something of a context: it may be that somebody has changed that.
    pub(super) fn changed_or(
        &self,
        error: WorkerError,
        source: VertexRef<'_>,
        input: InputIndex,
        cx: &Context<'_>,
    ) -> WorkerError {
        match self.check_context(source, input, cx) {
            Err(changed @ WorkerError::ContextChanged { .. }) if !cx.is_cancelled() => changed,
            _ => error,
        }
    }

    /// The digest of a part of an input as it is now, for no key.
    pub(super) fn digest_now(
        &self,
        input: Input<'_, Snapshot>,
        selection: &Selection,
        cx: &Context<'_>,
    ) -> Result<ContentDigest, WorkerError> {
        match input {
            Input::Output(snapshot) => self.digest_snapshot(snapshot, selection, cx),
            Input::Local(vertex) => Ok(self.look_at_local(local_source(vertex)?, selection, cx)?.0),
        }
    }

    fn look_at_local(
        &self,
        local: &LocalSource,
        selection: &Selection,
        cx: &Context<'_>,
    ) -> Result<(ContentDigest, Vec<Look>), WorkerError> {
        let context = self.context(local)?;
        let whole = [SelectedPath { path: "/".to_owned(), contents_only: true, ..SelectedPath::default() }];
        let paths = match selection {
            Selection::Whole => &whole[..],
            Selection::Paths(paths) => paths,
        };
        let (digest, looks) = self.digest_paths(&context.tree(), paths, cx)?;
        Ok((ContentDigest(self.as_taken_here(digest.0)), looks))
    }

    fn digest_paths(
        &self,
        source: &CopySource<'_>,
        paths: &[SelectedPath],
        cx: &Context<'_>,
    ) -> Result<(ContentDigest, Vec<Look>), WorkerError> {
        let mut hasher = KeyHasher::new("rbuild.selection.v1");
        let mut looks = Vec::new();
        for path in paths {
            match self.digest_path(source, path, cx, &mut looks) {
                Ok(digest) => hasher.number(1u64).bytes(&digest),
                Err(WorkerError::File(FileError::NotFound { .. })) => hasher.number(0u64),
                Err(error) => return Err(error),
            };
        }
        Ok((ContentDigest(hasher.finish()), looks))
    }

    /// Keeps what was seen of a snapshot for the step that takes it, where it pays: a tree is made of it without looking again.
    fn remember_seen(&self, of: &Snapshot, looks: &[Look]) {
        let looks = looks.iter().map(|look| &look.seen).filter(|seen| self.is_planned(seen.files()));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.extend(looks.map(|look| (of.clone(), Arc::clone(look))));
        let forgotten = seen.len().saturating_sub(SEEN_MAX);
        seen.drain(..forgotten);
    }

    /// What was seen of a snapshot lately.
    pub(super) fn seen(&self, of: &Snapshot) -> Vec<Arc<Seen>> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter().filter(|(what, _)| what == of).map(|(_, seen)| Arc::clone(seen)).collect()
    }

    fn digest_path(
        &self,
        source: &CopySource<'_>,
        path: &SelectedPath,
        cx: &Context<'_>,
        looks: &mut Vec<Look>,
    ) -> Result<[u8; 32], WorkerError> {
        let action = as_copy(path);
        let selection = CopySelection::new(&action)?;
        let found = find_sources(source, &action, &selection)?;
        let filters: Vec<_> = found.iter().map(|found| filter(source, &selection, &found.path)).collect();
        let named = path.wildcard || path.parents;
        let selected: Vec<Selected<'_>> = found
            .iter()
            .zip(&filters)
            .map(|(found, filter)| Selected {
                path: &found.path,
                name: if named { Path::new(&found.name) } else { Path::new("") },
                follow_links: path.follow_links,
                contents_only: path.contents_only,
                filter: filter.as_ref().map(|filter| filter as _),
            })
            .collect();
        let is_context = source.kind == SourceKind::Context;
        let stats = if is_context { Some(self.store().stat_cache()?) } else { None };
        let options = DigestOptions {
            pool: self.pool,
            owner: if is_context { TreeOwner::Zero } else { TreeOwner::Keep },
            memory: stats.map(|cache| Memory { cache, now_ns: self.options.now_ns }),
            layers: source.layers,
            cancel: Some(cx.cancel),
        };
        let (digested, seen) = look_at_tree(source.root, &selected, &options)?;
        let places = selected.iter().map(|it| (it.path.to_owned(), it.name.to_owned())).collect();
        looks.push(Look { places, seen: Arc::new(seen) });
        Ok(digested.digest)
    }
}

/// What a vertex that is a context says of it.
pub(super) fn local_source(vertex: VertexRef<'_>) -> Result<&LocalSource, WorkerError> {
    match &vertex.vertex().op {
        Op::Source(SourceOp::Local(local)) => Ok(local),
        op => Err(WorkerError::unsupported(op)),
    }
}

/// A part of a context.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Taken {
    local: LocalSource,
    selection: Selection,
}

/// What a key was made of.
#[derive(Debug, Clone)]
pub(super) struct Digested {
    taken: Taken,
    digest: ContentDigest,
    /// What was seen, where it is kept, and at which path, if all of it is at one.
    seen: Option<(PathBuf, Arc<Seen>)>,
}

/// What was found of one selected path.
struct Look {
    /// Where each thing is in its tree, and what its entries' paths begin with.
    places: Vec<(PathBuf, PathBuf)>,
    seen: Arc<Seen>,
}

fn file_list(looks: &[Look]) -> FileList {
    let groups = looks.iter().flat_map(|look| look.seen.groups().map(move |group| (look, group)));
    groups.flat_map(|(look, group)| entries(look, group)).collect()
}

fn entries(look: &Look, group: SeenGroup<'_>) -> impl Iterator<Item = (String, FileEntry)> {
    let path = look.shown(&group.path);
    let inside = if path.is_empty() { String::new() } else { format!("{path}/") };
    let files = group.files.into_iter().map(move |(name, file)| {
        let path = [inside.as_str(), &*name.to_string_lossy()].concat();
        (path, file)
    });
    let all = group.own.map(|own| (path, own)).into_iter().chain(files);
    all.map(|(path, entry)| (path, FileEntry::new(&entry)))
}

impl Look {
    /// The path of an entry from the root of its tree.
    fn shown(&self, entry: &Path) -> String {
        let whole =
            self.places.iter().find_map(|(path, name)| Some(path.join(entry.strip_prefix(name).ok()?)));
        let whole = whole.unwrap_or_else(|| entry.to_owned());
        whole.to_string_lossy().trim_matches('/').to_owned()
    }
}

/// A selected path as the copy that would take it.
fn as_copy(path: &SelectedPath) -> CopyAction {
    CopyAction {
        follow_symlinks: path.follow_links,
        dir_copy_contents: path.contents_only,
        allow_wildcard: path.wildcard,
        allow_empty_wildcard: true,
        include: path.include.clone(),
        exclude: path.exclude.clone(),
        parents: path.parents,
        ..CopyAction::new(FileInput::Scratch, path.path.as_str(), "/")
    }
}

/// What of a source counts: the ignore rules of its tree, and what the copy includes and excludes. Just what [`file`](super::file) copies, which a test holds.
pub(super) fn filter<'a>(
    source: &CopySource<'a>,
    selection: &'a CopySelection,
    base: &'a Path,
) -> Option<impl Fn(&Path, bool) -> Verdict + Sync + use<'a>> {
    let ignored = source.exclude.filter(|patterns| !patterns.is_empty());
    let (include, exclude) = (selection.include.as_ref(), selection.exclude.as_ref());
    let any = ignored.is_some() || include.is_some() || exclude.is_some();
    any.then_some(move |path: &Path, is_dir: bool| {
        let ask = |patterns: &Patterns, path: &Path| {
            patterns.verdict_from_root(path.as_os_str().as_bytes(), is_dir)
        };
        let whole = base.join(path);
        let excluding = [ignored.map(|list| ask(list, &whole)), exclude.map(|list| ask(list, path))];
        let including = include.map(|list| ask(list, path));
        let excluded =
            |settled: bool| excluding.iter().flatten().any(|v| v.matched && (!settled || v.settled));
        let left_out = |settled: bool| including.iter().any(|v| !v.matched && (!settled || v.settled));
        if excluded(true) || left_out(true) {
            Verdict::SkipTree
        } else if excluded(false) || left_out(false) {
            Verdict::Skip
        } else {
            Verdict::Take
        }
    })
}
