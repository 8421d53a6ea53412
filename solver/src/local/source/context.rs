//! The build context as a tree of its own, for the mounts that show it: steps read it in place otherwise.

use rbuild_cache::{ActiveSnapshot, Snapshot};
use rbuild_llb::{CopyAction, FileAction, FileInput};

use crate::local::content::local_source;
use crate::local::file_op::root_of;
use crate::local::{LocalWorker, WorkerError};
use crate::worker::{Context, VertexRef};

impl LocalWorker<'_> {
    /// Copies what a mount shows of a context, without what its ignore rules hide, to a tree that is thrown away.
    pub(in crate::local) fn copy_of_context(
        &self,
        vertex: VertexRef<'_>,
        selector: &str,
        cx: &Context<'_>,
    ) -> Result<ActiveSnapshot, WorkerError> {
        let context = self.context(local_source(vertex)?)?;
        let active = self.store().prepare(&Snapshot::empty())?;
        let path = if selector.is_empty() { "/" } else { selector };
        let action = FileAction::Copy(CopyAction::new(FileInput::Scratch, path, path));
        let dest = root_of(active.mount(None)?);
        self.apply_action(&action, &dest, &|_| Some(context.tree()), cx)?;
        Ok(active)
    }
}
