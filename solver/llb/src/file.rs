//! File operations: what COPY, ADD and WORKDIR become.

use serde::{Deserialize, Serialize};

use crate::{InputIndex, OutputIndex};

/// A sequence of file actions, each on a tree that an input or an earlier action gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOp {
    /// The actions, in order.
    pub steps: Vec<FileStep>,
}

impl FileOp {
    /// See [`Op::base`](crate::Op::base).
    pub(crate) fn base(&self, output: OutputIndex) -> Option<InputIndex> {
        let mut step = self.steps.iter().find(|step| step.output == Some(output))?;
        loop {
            match step.base {
                FileInput::Scratch => return None,
                FileInput::Input(input) => return Some(input),
                FileInput::Step(earlier) => step = self.steps.get(earlier as usize)?,
            }
        }
    }
}

/// One action, what it works on, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStep {
    /// The tree that is changed.
    pub base: FileInput,
    /// The change.
    pub action: FileAction,
    /// The vertex output that the changed tree becomes; `None` when only later steps use it.
    pub output: Option<OutputIndex>,
}

/// A tree that a file action works on or reads from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileInput {
    /// The empty tree.
    Scratch,
    /// An input of the vertex.
    Input(InputIndex),
    /// The result of an earlier step of the same op, by position.
    Step(u32),
}

/// One change to a tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileAction {
    /// Copies from another tree.
    Copy(CopyAction),
    /// Writes a file.
    Mkfile(MkfileAction),
    /// Makes a directory.
    Mkdir(MkdirAction),
    /// Removes a path.
    Rm(RmAction),
    /// Makes a symbolic link.
    Symlink(SymlinkAction),
}

/// Copies paths from one tree into another.
///
/// Semantics are BuildKit's: a directory's *contents* are copied; symlinks at the top are followed within their
/// root, below it they are kept; a wildcard may match nothing when `allow_empty_wildcard` says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the fields of pb.FileActionCopy, each an independent option"
)]
pub struct CopyAction {
    /// The tree to copy from.
    pub from: FileInput,
    /// The path or pattern in it, absolute and clean.
    pub src: String,
    /// Where to, absolute; a trailing slash means a directory.
    pub dest: String,
    /// Who owns the copies; `None` keeps the source's owner.
    pub owner: Option<Owner>,
    /// The permission bits of the copies; `None` keeps the source's.
    pub mode: Option<Chmod>,
    /// Resolve a symlink at the top of the source.
    pub follow_symlinks: bool,
    /// Copy what is in a directory rather than the directory.
    pub dir_copy_contents: bool,
    /// Unpack the source if it is an archive, told by its content.
    pub attempt_unpack: bool,
    /// Make the destination's directory.
    pub create_dest_path: bool,
    /// Whether `src` is a pattern.
    pub allow_wildcard: bool,
    /// Whether a pattern may match nothing.
    pub allow_empty_wildcard: bool,
    /// Take only what matches one of these, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Leave out what matches one of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Keep the source's path below the destination, from the pivot `/./` on (`COPY --parents`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub parents: bool,
    /// Replace what is at the destination even where the types differ.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub always_replace: bool,
    /// The modification time of what is copied, Unix nanoseconds; `None` keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_ns: Option<i64>,
}

impl CopyAction {
    /// The copy of one literal path: links at its top followed, a directory's contents taken, attributes kept.
    pub fn new(from: FileInput, src: impl Into<String>, dest: impl Into<String>) -> Self {
        Self {
            from,
            src: src.into(),
            dest: dest.into(),
            owner: None,
            mode: None,
            follow_symlinks: true,
            dir_copy_contents: true,
            attempt_unpack: false,
            create_dest_path: true,
            allow_wildcard: false,
            allow_empty_wildcard: false,
            include: Vec::new(),
            exclude: Vec::new(),
            parents: false,
            always_replace: false,
            timestamp_ns: None,
        }
    }
}

/// New permission bits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Chmod {
    /// Replaces them.
    Octal(u32),
    /// Changes them as chmod(1) does, with an umask of 0: `u=rwX,go=rX`.
    Symbolic(String),
}

/// An owner, by name or number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user; `None` keeps it.
    pub user: Option<ChownId>,
    /// The group; `None` takes the named user's own group, or keeps it.
    pub group: Option<ChownId>,
}

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChownId {
    /// By number.
    Id(u32),
    /// By name, looked up in the `/etc/passwd` or `/etc/group` of a tree.
    Name {
        /// The name.
        name: String,
        /// The tree.
        lookup: FileInput,
    },
}

/// Writes a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MkfileAction {
    /// Where, absolute.
    pub path: String,
    /// Its permission bits.
    pub mode: u32,
    /// Its content.
    #[serde(with = "bytes_as_text")]
    pub data: Vec<u8>,
    /// Its owner; `None` is root.
    pub owner: Option<Owner>,
    /// Its modification time, Unix nanoseconds; `None` is the time of the build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_ns: Option<i64>,
}

/// Makes a directory. One that is there is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MkdirAction {
    /// Where, absolute.
    pub path: String,
    /// The permission bits of what is made.
    pub mode: u32,
    /// Make missing parents, with the same mode and owner.
    pub make_parents: bool,
    /// The owner of what is made; `None` is root.
    pub owner: Option<Owner>,
    /// The modification time of what is made, Unix nanoseconds; `None` is the time of the build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_ns: Option<i64>,
}

/// Removes a path and all below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RmAction {
    /// What, absolute.
    pub path: String,
    /// Whether nothing may be there.
    pub allow_not_found: bool,
    /// Whether `path` is a pattern.
    pub allow_wildcard: bool,
}

/// Makes a symbolic link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymlinkAction {
    /// What the link says.
    pub target: String,
    /// Where the link is, absolute.
    pub path: String,
    /// The link's owner; `None` is root.
    pub owner: Option<Owner>,
    /// The link's modification time, Unix nanoseconds; `None` is the time of the build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timestamp_ns: Option<i64>,
}

/// File contents as text where they are text, as hex otherwise, so that dumps stay readable.
mod bytes_as_text {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Form {
        Text(String),
        Hex(String),
    }

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let hex = || bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        str::from_utf8(bytes)
            .map_or_else(|_| Form::Hex(hex()), |text| Form::Text(text.to_owned()))
            .serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        use serde::de::Error;
        match Form::deserialize(deserializer)? {
            Form::Text(text) => Ok(text.into_bytes()),
            Form::Hex(hex) => (0..hex.len())
                .step_by(2)
                .map(|at| hex.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
                .collect::<Option<_>>()
                .ok_or_else(|| D::Error::custom("malformed hex")),
        }
    }
}
