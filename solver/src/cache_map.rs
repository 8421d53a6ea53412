//! What a vertex takes from each of its inputs.
//!
//! A step rarely depends on all of what it is given: a `COPY --from=build /out/app` needs one file of a tree. The
//! [`CacheMap`] says, for each input, which part matters. It is what the content key hashes of the input, and, as
//! a description, part of the definition key.
//!
//! | the op uses the input as | it takes |
//! |---|---|
//! | base of a file step, tree of a merge or diff | everything |
//! | a mount that becomes an output, or shows the input's root | everything |
//! | any other mount with a selector | the selector's path |
//! | source of a copy | the path or pattern, with its include and exclude patterns |
//! | tree in which an owner's name is looked up | `/etc/passwd` and `/etc/group` |
//!
//! An input that is used in several ways gives the list of what they take, in the order of the op, one entry for
//! each use even where two are equal: the op refers to them by position. If one of them takes everything, so does the
//! whole, and the op's digest then holds the paths in full (see [`cache_key`]).
//!
//! What a step gives begins with the layers of an input, its *base* (`bases`). A result that is found by its content key is laid on the
//! base that the step has now: the digest says that it holds the same, not that it has the same times.

use std::collections::BTreeMap;

use rbuild_llb::{
    ChownId, CopyAction, ExecOp, FileAction, FileInput, FileOp, FileStep, InputIndex, OpDigest, OutputIndex,
    Owner, Vertex,
};
use rbuild_llb::{Mount, Op};
use serde::{Deserialize, Serialize};

use crate::cache_key;

/// How a vertex enters its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheMap {
    /// What the vertex does, without its inputs.
    pub op: OpDigest,
    /// What it takes of each input, in the order of [`Vertex::inputs`].
    pub inputs: Vec<InputRequest>,
}

/// What is taken of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRequest {
    /// Which input.
    pub input: InputIndex,
    /// What of it.
    pub selection: Selection,
}

/// A part of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Selection {
    /// All of it.
    Whole,
    /// What these name, one after the other. A digest of it must depend on their order.
    Paths(Vec<SelectedPath>),
}

/// A path in a tree, and how it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SelectedPath {
    /// The path or pattern, absolute and clean.
    pub path: String,
    /// Whether it is a pattern. A pattern may match nothing.
    pub wildcard: bool,
    /// Whether a symbolic link at the end of the path is followed.
    pub follow_links: bool,
    /// Of a directory, take what is in it and not its own owner and mode.
    pub contents_only: bool,
    /// The directories above it matter too, from the pivot `/./` on.
    pub parents: bool,
    /// Below it, take only what matches one of these, where there are any.
    pub include: Vec<String>,
    /// Below it, leave out what matches one of these.
    pub exclude: Vec<String>,
}

impl Selection {
    /// Whether nothing is taken: an input that the op never names.
    pub const fn is_empty(&self) -> bool {
        matches!(self, Self::Paths(paths) if paths.is_empty())
    }

    fn add(&mut self, taken: Self) {
        match (&mut *self, taken) {
            (Self::Paths(paths), Self::Paths(more)) => paths.extend(more),
            (_, Self::Whole) => *self = Self::Whole,
            (Self::Whole, Self::Paths(_)) => {}
        }
    }
}

impl CacheMap {
    /// The map of a vertex.
    pub fn of(vertex: &Vertex) -> Self {
        let selections = selections(vertex);
        let op = cache_key::op_digest_with(vertex, &selections);
        let inputs = (0u32..)
            .zip(selections)
            .map(|(input, selection)| InputRequest { input: InputIndex(input), selection })
            .collect();
        Self { op, inputs }
    }
}

/// What is taken of each input, in the order of [`Vertex::inputs`].
pub(crate) fn selections(vertex: &Vertex) -> Vec<Selection> {
    let mut selections = vec![Selection::Paths(Vec::new()); vertex.inputs.len()];
    let mut take = |input: InputIndex, taken: Selection| {
        if let Some(selection) = selections.get_mut(input.index()) {
            selection.add(taken);
        }
    };
    match &vertex.op {
        Op::Source(_) => {}
        Op::Exec(exec) => of_exec(exec, &mut take),
        Op::File(file) => of_file(file, &mut take),
        Op::Merge(merge) => merge.inputs.iter().flatten().for_each(|input| take(*input, Selection::Whole)),
        Op::Diff(diff) => {
            [diff.lower, diff.upper].into_iter().flatten().for_each(|input| take(input, Selection::Whole));
        }
    }
    selections
}

/// Whether a vertex has a content key. A source is known by what it is pinned to; a merge and a diff are nothing but layers of their
/// inputs, which are put together in less time than it takes to look at what they hold.
pub const fn has_content_key(op: &Op) -> bool {
    matches!(op, Op::Exec(_) | Op::File(_))
}

/// The input that each output of an exec or a file op is laid on: the step adds a layer to that. `None` where it begins with nothing.
pub(crate) fn bases(op: &Op) -> BTreeMap<OutputIndex, Option<InputIndex>> {
    match op {
        Op::Exec(exec) => exec.mounts.iter().filter_map(|mount| Some((mount.output?, mount.input))).collect(),
        Op::File(file) => {
            file.steps.iter().filter_map(|step| Some((step.output?, base(file, step)))).collect()
        }
        Op::Source(_) | Op::Merge(_) | Op::Diff(_) => BTreeMap::new(),
    }
}

/// What the tree that a step works on began with.
fn base(file: &FileOp, step: &FileStep) -> Option<InputIndex> {
    match step.base {
        FileInput::Input(input) => Some(input),
        FileInput::Scratch => None,
        FileInput::Step(earlier) => base(file, file.steps.get(earlier as usize)?),
    }
}

fn of_exec(exec: &ExecOp, take: &mut impl FnMut(InputIndex, Selection)) {
    for mount in &exec.mounts {
        if let Some(input) = mount.input {
            take(input, of_mount(mount));
        }
    }
}

fn of_mount(mount: &Mount) -> Selection {
    let shows_root = mount.selector.is_empty() || mount.selector == "/";
    if shows_root || mount.output.is_some() {
        return Selection::Whole;
    }
    let path = SelectedPath { path: mount.selector.clone(), follow_links: true, ..SelectedPath::default() };
    Selection::Paths(vec![path])
}

fn of_file(file: &FileOp, take: &mut impl FnMut(InputIndex, Selection)) {
    for step in &file.steps {
        if let FileInput::Input(input) = step.base {
            take(input, Selection::Whole);
        }
        if let FileAction::Copy(copy) = &step.action
            && let FileInput::Input(input) = copy.from
        {
            take(input, Selection::Paths(vec![of_copy(copy)]));
        }
        lookups(owner(&step.action)).for_each(|input| take(input, accounts()));
    }
}

fn of_copy(copy: &CopyAction) -> SelectedPath {
    SelectedPath {
        path: copy.src.clone(),
        wildcard: copy.allow_wildcard,
        follow_links: copy.follow_symlinks,
        contents_only: copy.dir_copy_contents,
        parents: copy.parents,
        include: copy.include.clone(),
        exclude: copy.exclude.clone(),
    }
}

const fn owner(action: &FileAction) -> Option<&Owner> {
    match action {
        FileAction::Copy(copy) => copy.owner.as_ref(),
        FileAction::Mkfile(mkfile) => mkfile.owner.as_ref(),
        FileAction::Mkdir(mkdir) => mkdir.owner.as_ref(),
        FileAction::Symlink(symlink) => symlink.owner.as_ref(),
        FileAction::Rm(_) => None,
    }
}

fn lookups(owner: Option<&Owner>) -> impl Iterator<Item = InputIndex> {
    let ids = owner.into_iter().flat_map(|owner| [&owner.user, &owner.group]).flatten();
    ids.filter_map(|id| match id {
        ChownId::Name { lookup: FileInput::Input(input), .. } => Some(*input),
        _ => None,
    })
}

fn accounts() -> Selection {
    let file =
        |path: &str| SelectedPath { path: path.to_owned(), follow_links: true, ..SelectedPath::default() };
    Selection::Paths(vec![file("/etc/passwd"), file("/etc/group")])
}

#[cfg(test)]
mod tests {
    use rbuild_llb::{MountKind, VertexId};

    use super::*;
    use crate::testing::{copy_action, copy_op, exec_op, vertex};

    fn selections_of(op: Op, inputs: usize) -> Vec<Selection> {
        let inputs: Vec<_> =
            (0..inputs).map(|index| VertexId(u32::try_from(index).unwrap()).into()).collect();
        selections(&vertex(op, &inputs))
    }

    fn paths(selection: &Selection) -> Vec<&str> {
        match selection {
            Selection::Whole => vec!["*"],
            Selection::Paths(paths) => paths.iter().map(|path| path.path.as_str()).collect(),
        }
    }

    #[test]
    fn a_copy_takes_its_base_whole_and_of_its_source_the_path() {
        let found = selections_of(copy_op(FileInput::Input(InputIndex(0)), copy_action("/src/a", "/dst")), 2);
        assert_eq!(found.iter().map(paths).collect::<Vec<_>>(), [vec!["*"], vec!["/src/a"]]);
    }

    #[test]
    fn an_input_that_is_base_and_source_is_taken_whole() {
        let mut action = copy_action("/src/a", "/dst");
        action.from = FileInput::Input(InputIndex(0));
        let found = selections_of(copy_op(FileInput::Input(InputIndex(0)), action), 1);
        assert_eq!(found, [Selection::Whole]);
    }

    #[test]
    fn a_linked_copy_has_no_base() {
        let mut action = copy_action("/a", "/dst");
        action.from = FileInput::Input(InputIndex(0));
        let found = selections_of(copy_op(FileInput::Scratch, action), 1);
        assert_eq!(paths(&found[0]), ["/a"]);
    }

    #[test]
    fn a_bind_mount_takes_its_selector_unless_it_is_kept() {
        let mount = |selector: &str, output: Option<u32>| Mount {
            input: Some(InputIndex(1)),
            selector: selector.to_owned(),
            target: "/mnt".to_owned(),
            output: output.map(OutputIndex),
            readonly: output.is_none(),
            kind: MountKind::Bind,
        };
        let with = |mount: Mount| {
            let mut exec = exec_op(&["true"]);
            exec.mounts.push(mount);
            selections_of(Op::Exec(exec), 2).remove(1)
        };
        assert_eq!(paths(&with(mount("/sub", None))), ["/sub"]);
        assert_eq!(with(mount("/sub", Some(1))), Selection::Whole);
        assert_eq!(with(mount("", None)), Selection::Whole);
    }

    #[test]
    fn equal_uses_are_not_merged() {
        let action = copy_action("/a", "/dst");
        let Op::File(mut file) = copy_op(FileInput::Scratch, action) else { panic!("a file op") };
        file.steps.push(file.steps[0].clone());
        assert_eq!(paths(&selections_of(Op::File(file), 2)[1]), ["/a", "/a"]);
    }

    #[test]
    fn what_an_output_is_laid_on_is_what_its_tree_began_with() {
        let step = |base: FileInput, output: Option<u32>| FileStep {
            base,
            output: output.map(OutputIndex),
            action: FileAction::Copy(copy_action("/a", "/a")),
        };
        let file = FileOp {
            steps: vec![
                step(FileInput::Scratch, None),
                step(FileInput::Input(InputIndex(2)), None),
                step(FileInput::Step(1), Some(1)),
                step(FileInput::Step(0), Some(0)),
            ],
        };
        let expected = [(OutputIndex(0), None), (OutputIndex(1), Some(InputIndex(2)))];
        assert_eq!(bases(&Op::File(file)), BTreeMap::from(expected));
        let expected = [(OutputIndex(0), Some(InputIndex(0)))];
        assert_eq!(bases(&Op::Exec(exec_op(&["true"]))), BTreeMap::from(expected));
    }

    #[test]
    fn a_name_is_looked_up_in_the_account_files() {
        let mut action = copy_action("/a", "/dst");
        let name = ChownId::Name { name: "app".to_owned(), lookup: FileInput::Input(InputIndex(0)) };
        action.owner = Some(Owner { user: Some(name), group: None });
        let found = selections_of(copy_op(FileInput::Scratch, action), 2);
        assert_eq!(paths(&found[0]), ["/etc/passwd", "/etc/group"]);
    }
}
