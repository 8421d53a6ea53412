//! Several layers become one.
//!
//! Each is carried out, as an archive would be, in a mount of what stays: overlayfs itself then writes the one layer that makes
//! the same of it, whiteouts and all.

use super::hash::{HowMade, OnePart};
use super::{LayerId, Snapshot};
use crate::layer::{self, ApplyOptions, Form};
use crate::root_dir::RootDir;
use crate::{Error, Result, Store, piped};

impl Store {
    /// The same tree as `snapshot`, in which the layers above the lowest `kept` are one. A stack that has no two of these is
    /// returned as it is.
    ///
    /// # Errors
    /// When a layer has been pruned or cannot be read, overlayfs cannot be mounted here, or the disk is full.
    pub fn squash(&self, snapshot: &Snapshot, kept: usize) -> Result<Snapshot> {
        if snapshot.layers.len() <= kept + 1 {
            return Ok(snapshot.clone());
        }
        let active = self.prepare(&self.stack(&snapshot.layers[..kept])?)?;
        let tree = RootDir::from_fd(active.mount(None)?.into());
        self.carry_out_all(snapshot, kept, &tree)?;
        drop(tree);
        active.commit()
    }

    /// Does to `tree` what the layers above the lowest `kept` say.
    pub(super) fn carry_out_all(&self, snapshot: &Snapshot, kept: usize, tree: &RootDir) -> Result<()> {
        self.carry_out_stack(&self.open_stack(snapshot)?, &snapshot.layers[kept..], tree)
    }

    /// The same of the topmost layers of a stack: these, bottom first.
    pub(super) fn carry_out_stack(
        &self,
        stack: &[RootDir],
        layers: &[LayerId],
        tree: &RootDir,
    ) -> Result<()> {
        for (index, layer) in (stack.len() - layers.len()..).zip(layers) {
            for form in [Form::Removals, Form::Additions] {
                self.carry_out(stack, index, tree, form)
                    .map_err(|source| Error::Archive { layer: *layer, source })?;
            }
        }
        Ok(())
    }

    /// Does to `tree` what a layer says.
    fn carry_out(
        &self,
        stack: &[RootDir],
        index: usize,
        tree: &RootDir,
        form: Form,
    ) -> Result<(), layer::Error> {
        let (archived, applied) = piped(
            |writer| self.archive_parts(stack, index, &HowMade::default(), OnePart::new(0, writer)).map(drop),
            |reader| layer::apply(reader, tree, &ApplyOptions::onto_tree(form)).map(drop),
        )
        .map_err(layer::Error::Write)?;
        // A reader that failed breaks the writer's pipe: it is the cause.
        applied.and(archived)
    }
}
