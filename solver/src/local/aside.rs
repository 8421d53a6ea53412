//! What goes on beside the steps, for which no step waits: layers of results are described, and lists of files kept.
//!
//! One thing at a time, in the order in which they came up. A failure is nobody's here: whoever needs the description of a layer
//! meets it again, and without its list of files an explanation says less.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use rayon::ThreadPool;
use rbuild_cache::{Errand, Snapshot};
use rbuild_llb::{Op, OutputIndex};

use super::LocalWorker;
use crate::explain::FileList;
use crate::worker::VertexRef;

/// A list of files, made by whoever wants it first.
pub(super) type LateFileList = LazyLock<Arc<FileList>, Box<dyn FnOnce() -> Arc<FileList> + Send>>;

/// Errands, run on a pool. Clones share them.
#[derive(Clone, Default)]
pub(super) struct Aside(Arc<(Mutex<Queue>, Condvar)>);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Errand>,
    /// Whether somebody takes from it.
    is_served: bool,
}

impl fmt::Debug for Aside {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aside").field("waiting", &self.lock().waiting.len()).finish_non_exhaustive()
    }
}

impl Aside {
    pub(super) fn add(&self, pool: &ThreadPool, errand: impl FnOnce() + Send + 'static) {
        let mut queue = self.lock();
        queue.waiting.push_back(Box::new(errand));
        if !std::mem::replace(&mut queue.is_served, true) {
            let this = self.clone();
            pool.spawn(move || this.serve());
        }
    }

    fn serve(&self) {
        while let Some(errand) = self.next() {
            errand();
        }
        self.0.1.notify_all();
    }

    fn next(&self) -> Option<Errand> {
        let mut queue = self.lock();
        let next = queue.waiting.pop_front();
        queue.is_served = next.is_some();
        next
    }

    /// Waits until nothing is left to do. Not to be called on the pool.
    fn wait(&self) {
        let queue = self.0.1.wait_while(self.lock(), |queue| queue.is_served);
        drop(queue.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LocalWorker<'_> {
    /// Waits for what goes on beside the steps. To be called when all steps are done, before the results are used.
    pub fn finish(&self) {
        self.aside.wait();
        let (seen, digested) = (take(&self.seen), take(&self.digested));
        let lists = take(&self.file_lists);
        // Of a large context it takes a while, for which nobody has to wait.
        self.pool.spawn(move || drop((seen, digested, lists)));
    }

    /// Which output of a step is described ahead: what a copy made of a result, and what that lies on. To hash a layer takes about as long as to copy it,
    /// and needs nothing of what comes after. Not after every command: there may be a thousand, each on top of all others.
    pub(super) fn described(&self, vertex: VertexRef<'_>) -> Option<OutputIndex> {
        let is_wanted = self.options.makes_images && matches!(vertex.vertex().op, Op::File(_));
        if is_wanted { output_in_results(vertex) } else { None }
    }

    /// Describes that.
    pub(super) fn describe_ahead(&self, vertex: VertexRef<'_>, outputs: &[Snapshot]) {
        let output = self.described(vertex).and_then(|output| outputs.get(output.0 as usize));
        if let Some(snapshot) = output.cloned() {
            let store = self.store().clone();
            self.aside.add(self.pool, move || drop(store.describe_layers(&snapshot, None)));
        }
    }

    /// Keeps what a step was given, so that a later build can say which files changed.
    pub(super) fn keep_file_list(&self, digest: [u8; 32], list: impl FnOnce() -> FileList + Send + 'static) {
        if self.store().has_file_list(&digest) {
            return;
        }
        let list: Arc<LateFileList> = Arc::new(LazyLock::new(Box::new(|| Arc::new(list()))));
        let store = self.store().clone();
        self.file_lists.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, Arc::clone(&list));
        self.aside.add(self.pool, move || drop(store.keep_file_list(&digest, list.as_bytes())));
    }
}

fn take<T: Default>(of: &Mutex<T>) -> T {
    std::mem::take(&mut of.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Which output of a vertex is a result, or one lies on it.
fn output_in_results(vertex: VertexRef<'_>) -> Option<OutputIndex> {
    let VertexRef { definition, id } = vertex;
    let mut stacks = definition.targets().iter().flatten().flat_map(|target| definition.stack(*target));
    stacks.find(|edge| edge.vertex == id).map(|edge| edge.output)
}

#[cfg(test)]
mod tests {
    use rayon::ThreadPoolBuilder;

    use super::*;

    #[test]
    fn errands_are_run_one_at_a_time_in_their_order() {
        let pool = ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let (aside, done) = (Aside::default(), Arc::new(Mutex::new(Vec::new())));
        for round in 0..50 {
            for number in 0..10 {
                let done = Arc::clone(&done);
                aside.add(&pool, move || done.try_lock().expect("one at a time").push(round * 10 + number));
            }
            aside.wait();
            assert_eq!(*done.lock().unwrap(), (0..(round + 1) * 10).collect::<Vec<_>>());
        }
    }
}
