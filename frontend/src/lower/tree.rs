//! Trees that steps read from and write to: the inputs of a vertex, local directories and which of their paths are
//! used, and file operations as they grow.

use std::collections::{BTreeSet, HashMap};

use rbuild_llb::{
    CopyAction, Edge, FileAction, FileInput, FileOp, FileStep, InputIndex, LocalSource, Meta, MkfileAction,
    Op, OutputIndex, SourceOp, VertexId,
};

use super::Lowerer;
use super::state::State;
use crate::options::MainContext;
use crate::paths;
use crate::remote::RemoteContext;

/// The name under which the solver knows the main context.
pub(super) const MAIN_CONTEXT: &str = "context";

/// The inputs of a vertex, each once.
#[derive(Debug, Default)]
pub(super) struct Inputs(Vec<Edge>);

impl Inputs {
    pub(super) fn index(&mut self, edge: Edge) -> InputIndex {
        let position = self.0.iter().position(|known| *known == edge).unwrap_or_else(|| {
            self.0.push(edge);
            self.0.len() - 1
        });
        InputIndex(u32::try_from(position).expect("an instruction has fewer than 2^32 sources"))
    }

    pub(super) fn into_edges(self) -> Vec<Edge> {
        self.0
    }
}

/// A local directory of the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LocalId(usize);

/// The local directories, and what of them is used.
#[derive(Debug, Default)]
pub(super) struct LocalTrees {
    trees: Vec<LocalTree>,
    by_name: HashMap<String, LocalId>,
}

#[derive(Debug)]
struct LocalTree {
    vertex: VertexId,
    /// The paths that steps name; `None` when one needs all.
    paths: Option<BTreeSet<String>>,
}

impl LocalTrees {
    /// The name under which the solver knows the directory.
    fn name(&self, id: LocalId) -> &str {
        self.by_name.iter().find(|(_, known)| **known == id).map_or("", |(name, _)| name)
    }

    /// Notes that a step needs the whole directory.
    pub(super) fn use_all(&mut self, id: LocalId) {
        self.trees[id.0].paths = None;
    }

    /// Notes that a step needs a path or pattern.
    pub(super) fn use_path(&mut self, id: LocalId, path: &str) {
        let path = paths::absolute(path);
        match path.trim_start_matches('/') {
            "" => self.use_all(id),
            path => {
                if let Some(paths) = &mut self.trees[id.0].paths {
                    paths.insert(path.to_owned());
                }
            }
        }
    }
}

/// Where a COPY or a mount reads from.
#[derive(Debug, Clone, Copy)]
pub(super) struct SourceTree {
    /// `None` is the empty tree.
    pub(super) edge: Option<Edge>,
    pub(super) local: Option<LocalId>,
}

impl Lowerer<'_> {
    /// The main build context.
    pub(super) fn main_context(&mut self) -> SourceTree {
        match &self.options.context {
            MainContext::Local => {
                let (local, edge) = self.local_tree(MAIN_CONTEXT, &self.options.ignore);
                SourceTree { edge: Some(edge), local: Some(local) }
            }
            MainContext::Remote(remote) => {
                SourceTree { edge: Some(self.remote_context(remote)), local: None }
            }
        }
    }

    pub(super) fn remote_context(&mut self, remote: &RemoteContext) -> Edge {
        remote.add_to(&mut self.builder)
    }

    /// A local directory. Which of its paths are used is filled in at the end.
    pub(super) fn local_tree(&mut self, name: &str, ignore: &[String]) -> (LocalId, Edge) {
        if let Some(id) = self.locals.by_name.get(name) {
            return (*id, self.locals.trees[id.0].vertex.into());
        }
        let source =
            LocalSource { name: name.to_owned(), exclude: ignore.to_vec(), ..LocalSource::default() };
        let title = if name == MAIN_CONTEXT {
            "[internal] load build context".to_owned()
        } else {
            format!("[context {name}] load")
        };
        let meta = Meta { name: title, internal: true, ..Meta::default() };
        let edge = self.add_vertex(Op::Source(SourceOp::Local(source)), Vec::new(), meta);
        let id = LocalId(self.locals.trees.len());
        self.locals.trees.push(LocalTree { vertex: edge.vertex, paths: Some(BTreeSet::new()) });
        self.locals.by_name.insert(name.to_owned(), id);
        (id, edge)
    }

    /// Makes a layer of a root that still is a local directory.
    pub(super) fn take_root(&mut self, state: &mut State) {
        let Some(local) = state.local.take() else { return };
        self.locals.use_all(local);
        let name = self.locals.name(local).to_owned();
        let mut steps = FileSteps::on(None);
        let from = steps.input(state.edge);
        steps.copy(CopyAction::new(from, "/", "/"));
        let (op, inputs) = steps.finish();
        let meta = Meta { name: format!("[context {name}] local source"), internal: true, ..Meta::default() };
        state.edge = Some(self.add_vertex(op, inputs, meta));
        self.record_root(state, format!("local source for {name}"));
    }

    /// Tells each local source which of its paths are read.
    pub(super) fn fill_follow_paths(&mut self) {
        for tree in &self.locals.trees {
            let vertex = self.builder.vertex_mut(tree.vertex);
            if let (Op::Source(SourceOp::Local(source)), Some(paths)) = (&mut vertex.op, &tree.paths) {
                source.follow_paths = paths.iter().cloned().collect();
            }
        }
    }
}

/// A file operation: steps, each on the result of the one before.
#[derive(Debug)]
pub(super) struct FileSteps {
    inputs: Inputs,
    steps: Vec<FileStep>,
    tree: FileInput,
}

impl FileSteps {
    /// Starts on a tree; `None` is the empty one.
    pub(super) fn on(tree: Option<Edge>) -> Self {
        let mut steps = Self { inputs: Inputs::default(), steps: Vec::new(), tree: FileInput::Scratch };
        steps.tree = steps.input(tree);
        steps
    }

    /// A tree as steps name it.
    pub(super) fn input(&mut self, edge: Option<Edge>) -> FileInput {
        edge.map_or(FileInput::Scratch, |edge| FileInput::Input(self.inputs.index(edge)))
    }

    /// The tree that the operation started on, for looking up names in it.
    pub(super) const fn tree(&self) -> FileInput {
        self.tree
    }

    /// Copies into the tree.
    pub(super) fn copy(&mut self, copy: CopyAction) {
        self.apply(FileAction::Copy(copy));
    }

    /// Changes the tree.
    pub(super) fn apply(&mut self, action: FileAction) {
        self.steps.push(FileStep { base: self.tree, action, output: None });
        self.tree = self.last();
    }

    /// Writes a file into an empty tree of its own.
    pub(super) fn file(&mut self, file: MkfileAction) -> FileInput {
        let action = FileAction::Mkfile(file);
        self.steps.push(FileStep { base: FileInput::Scratch, action, output: None });
        self.last()
    }

    fn last(&self) -> FileInput {
        let position = self.steps.len() - 1;
        FileInput::Step(u32::try_from(position).expect("an instruction has fewer than 2^32 sources"))
    }

    pub(super) fn finish(mut self) -> (Op, Vec<Edge>) {
        if let Some(last) = self.steps.last_mut() {
            last.output = Some(OutputIndex(0));
        }
        (Op::File(FileOp { steps: self.steps }), self.inputs.into_edges())
    }
}
