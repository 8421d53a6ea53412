//! A build begins again where what stood in its way is gone by then: what it made so far is found in the store.
//!
//! * A shared cache that failed on the way is given up.
//! * A layer that turned out to be damaged, or gone, has been forgotten.
//! * A context that was changed while a step took files of it is digested anew, so that what the step leaves is found by what it was given. Who goes on
//!   changing it has the build fail.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicBool;

use rbuild_cache::LayerId;
use rbuild_solver::images::Images;
use rbuild_solver::local::{LocalWorker, WorkerError};
use rbuild_solver::shared::Tree;
use rbuild_solver::{SolveError, Solved};

/// How often a context may change under a build.
const CHANGES_MAX: u32 = 3;

/// What a build came to.
pub(super) type Attempt = Result<Solved<Tree>, Box<SolveError<WorkerError>>>;

/// What a result is needed for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Need<'a> {
    /// Its files.
    Files,
    /// To be at the registries of its names.
    Push(&'a Images, &'a [rbuild_image::Reference]),
    /// To be there somewhere.
    Nothing,
}

/// Solves, and sees to it that the results are where they are needed, each for what `need` says of its number.
///
/// # Errors
/// Those of `solve`.
pub(super) fn solve<'a>(
    worker: &LocalWorker<'_>,
    need: &dyn Fn(usize) -> Need<'a>,
    cancel: &AtomicBool,
    solve: impl Fn() -> Attempt,
) -> Attempt {
    let mut obstacles = Obstacles::default();
    loop {
        let solved = solve().and_then(|mut solved| {
            for (number, output) in solved.outputs.iter_mut().enumerate() {
                let Some(output) = output else { continue };
                let settled = settle(output, worker, need(number), cancel);
                settled.map_err(|source| Box::new(SolveError::Lookup { source }))?;
            }
            Ok(solved)
        });
        match solved {
            Err(error) if obstacles.is_gone(&error) => {}
            solved => return solved,
        }
    }
}

/// What has stood in the way of a build so far.
#[derive(Debug, Default)]
struct Obstacles {
    lost: BTreeSet<LayerId>,
    changes: u32,
}

impl Obstacles {
    /// Whether the next attempt will not meet what this one failed for. A layer that is found a second time (a container needs it) fails the build.
    fn is_gone(&mut self, error: &SolveError<WorkerError>) -> bool {
        let (SolveError::Vertex { source, .. } | SolveError::Lookup { source }) = error else { return false };
        if source.is_change() {
            self.changes += 1;
            return self.changes <= CHANGES_MAX;
        }
        matches!(source, WorkerError::SharedCache { .. })
            || source.lost_layer().is_some_and(|layer| self.lost.insert(layer))
    }
}

/// Fetches a result that is not where it is needed.
fn settle(
    output: &mut Tree,
    worker: &LocalWorker<'_>,
    need: Need<'_>,
    cancel: &AtomicBool,
) -> Result<(), WorkerError> {
    let there = match (&*output, need) {
        (Tree::Here(_), _) | (_, Need::Nothing) => true,
        (Tree::Elsewhere(tree), Need::Push(images, names)) => {
            // What cannot be asked can be fetched.
            images.is_pushed(tree, names, cancel).unwrap_or(false)
        }
        (Tree::Elsewhere(_), Need::Files) => false,
    };
    if !there {
        *output = Tree::Here(worker.fetch_result(output, cancel)?);
    }
    Ok(())
}
