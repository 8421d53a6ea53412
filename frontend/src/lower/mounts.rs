//! The mounts of a RUN.

use rbuild_llb::{
    ChownId, Edge, FileAction, Meta, MkdirAction, Mount, MountKind, Owner, SecretEnv, SecretFile, SshSocket,
};

use super::Lowerer;
use super::run::Surroundings;
use super::state::Current;
use super::tree::{FileSteps, SourceTree};
use crate::args;
use crate::error::{Error, ErrorKind};
use crate::instruction::mount::{MountSpec, MountType};
use crate::paths;
use crate::stage::StageId;

const SECRET_DIRECTORY: &str = "/run/secrets";
const SECRET_MODE: u32 = 0o400;
const SSH_SOCKET: &str = "/run/buildkit/ssh_agent";
const SSH_ID: &str = "default";
const SSH_MODE: u32 = 0o600;
/// The directory within its tree that a cache mount with an owner or mode starts as.
const CACHE_ROOT: &str = "/cache";
const CACHE_MODE: u32 = 0o755;

impl Lowerer<'_> {
    pub(super) fn mount(
        &mut self,
        current: &Current,
        spec: &MountSpec,
        source: Option<StageId>,
        surroundings: &mut Surroundings,
    ) -> Result<(), Error> {
        self.outline.mount(spec, surroundings.range);
        match spec.kind {
            MountType::Secret => secret(current, spec, surroundings),
            MountType::Ssh => ssh(current, spec, surroundings),
            MountType::Bind => self.bind(current, spec, source, surroundings),
            MountType::Cache => self.cache(current, spec, source, surroundings),
            MountType::Tmpfs => {
                let kind = MountKind::Tmpfs { size_bytes: spec.size_bytes };
                let target = target(current, spec)?;
                surroundings.mounts.push(mount(target, spec.readonly, kind));
                Ok(())
            }
        }
    }

    /// A tree of the build. What is written to it is lost.
    fn bind(
        &mut self,
        current: &Current,
        spec: &MountSpec,
        source: Option<StageId>,
        surroundings: &mut Surroundings,
    ) -> Result<(), Error> {
        let target = target(current, spec)?;
        let tree = match source {
            Some(stage) => self.source_tree(current, stage)?,
            None => self.main_context(),
        };
        let selector = self.selector(spec, tree);
        let input = tree.edge.map(|edge| surroundings.inputs.index(edge));
        let kind = MountKind::Bind;
        surroundings.mounts.push(Mount { input, selector, ..mount(target, spec.readonly, kind) });
        Ok(())
    }

    /// A directory that outlives the build.
    fn cache(
        &mut self,
        current: &Current,
        spec: &MountSpec,
        source: Option<StageId>,
        surroundings: &mut Surroundings,
    ) -> Result<(), Error> {
        let target = target(current, spec)?;
        let id = cache_id(spec);
        let id = match args::control(self.options, "BUILDKIT_CACHE_MOUNT_NS") {
            Some(space) => format!("{space}/{id}"),
            None => id,
        };
        let kind = MountKind::Cache { id, sharing: spec.sharing.unwrap_or_default() };
        let tree = match source {
            Some(stage) => self.source_tree(current, stage)?,
            None => SourceTree { edge: None, local: None },
        };
        let mut selector = self.selector(spec, tree);
        let mut edge = tree.edge;
        let has_owner = spec.uid.is_some() || spec.gid.is_some() || spec.mode.is_some();
        if has_owner && selector.is_empty() {
            edge = Some(self.cache_root(spec, tree.edge));
            CACHE_ROOT.clone_into(&mut selector);
        }
        let input = edge.map(|edge| surroundings.inputs.index(edge));
        surroundings.mounts.push(Mount { input, selector, ..mount(target, spec.readonly, kind) });
        Ok(())
    }

    /// The directory that a cache mount begins as, where that is not root's own.
    fn cache_root(&mut self, spec: &MountSpec, tree: Option<Edge>) -> Edge {
        let mut steps = FileSteps::on(tree);
        let id = |id: Option<u32>| Some(ChownId::Id(id.unwrap_or(0)));
        steps.apply(FileAction::Mkdir(MkdirAction {
            path: CACHE_ROOT.to_owned(),
            mode: spec.mode.unwrap_or(CACHE_MODE),
            make_parents: false,
            owner: Some(Owner { user: id(spec.uid), group: id(spec.gid) }),
            timestamp_ns: None,
        }));
        let (op, inputs) = steps.finish();
        let name = "[internal] setting cache mount permissions".to_owned();
        self.add_vertex(op, inputs, Meta { name, internal: true, ..Meta::default() })
    }

    /// The path within a tree that a mount shows; empty for the whole.
    fn selector(&mut self, spec: &MountSpec, tree: SourceTree) -> String {
        if let Some(local) = tree.local {
            self.locals.use_path(local, &spec.source);
        }
        match paths::absolute(&spec.source) {
            root if root == "/" => String::new(),
            path => path,
        }
    }

    /// The result of a stage that an instruction reads from.
    pub(super) fn source_tree(&self, current: &Current, stage: StageId) -> Result<SourceTree, Error> {
        let state = self.done.get(&stage).ok_or_else(|| ErrorKind::StageNotBefore {
            from: self.graph.stage(stage).display_name.clone(),
            stage: self.graph.stage(current.id).display_name.clone(),
        })?;
        Ok(SourceTree { edge: state.edge, local: state.local })
    }
}

fn mount(target: String, readonly: bool, kind: MountKind) -> Mount {
    Mount { input: None, selector: String::new(), target, output: None, readonly, kind }
}

/// Where a mount is seen. Relative to WORKDIR, and so WORKDIR itself when nothing is said.
fn target(current: &Current, spec: &MountSpec) -> Result<String, Error> {
    let target = paths::resolve(&current.state.directory(), &spec.target);
    if target == "/" { Err(ErrorKind::MountTarget { target }.into()) } else { Ok(target) }
}

/// The name of a cache is its target as written, before WORKDIR comes in.
pub(super) fn cache_id(spec: &MountSpec) -> String {
    if spec.id.is_empty() { paths::clean(&spec.target) } else { spec.id.clone() }
}

pub(super) fn secret_id(spec: &MountSpec) -> String {
    let named = if spec.source.is_empty() { &spec.id } else { &spec.source };
    if named.is_empty() { paths::base_name(&spec.target).to_owned() } else { named.clone() }
}

pub(super) fn ssh_id(spec: &MountSpec) -> String {
    if spec.id.is_empty() { SSH_ID.to_owned() } else { spec.id.clone() }
}

/// A secret as a file, a variable, or both.
fn secret(current: &Current, spec: &MountSpec, surroundings: &mut Surroundings) -> Result<(), Error> {
    let id = secret_id(spec);
    let optional = !spec.required;
    if let Some(name) = &spec.env {
        surroundings.secret_env.push(SecretEnv { id: id.clone(), name: name.clone(), optional });
        if spec.target.is_empty() {
            return Ok(());
        }
    }
    let target = if spec.target.is_empty() {
        format!("{SECRET_DIRECTORY}/{}", paths::base_name(&id))
    } else {
        target(current, spec)?
    };
    let file = SecretFile {
        id,
        uid: spec.uid.unwrap_or(0),
        gid: spec.gid.unwrap_or(0),
        mode: spec.mode.unwrap_or(SECRET_MODE),
        optional,
    };
    surroundings.mounts.push(mount(target, true, MountKind::Secret(file)));
    Ok(())
}

/// The socket of an ssh agent.
fn ssh(current: &Current, spec: &MountSpec, surroundings: &mut Surroundings) -> Result<(), Error> {
    let target = if spec.target.is_empty() {
        format!("{SSH_SOCKET}.{}", surroundings.ssh_sockets.len())
    } else {
        target(current, spec)?
    };
    let socket = SshSocket {
        id: ssh_id(spec),
        uid: spec.uid.unwrap_or(0),
        gid: spec.gid.unwrap_or(0),
        mode: spec.mode.unwrap_or(SSH_MODE),
        optional: !spec.required,
    };
    surroundings.ssh_sockets.push(target.clone());
    surroundings.mounts.push(mount(target, true, MountKind::Ssh(socket)));
    Ok(())
}
