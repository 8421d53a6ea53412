//! The fields of each op, as they are hashed. The table in [`cache_key`](super) is the specification.
//!
//! Structs are taken apart without `..`, so that a new field does not compile until someone has decided.

use rbuild_image::KeyHasher;
use rbuild_llb::{
    Chmod, ChownId, CopyAction, DiffOp, ExecOp, FileAction, FileInput, FileOp, FileStep, GitSource,
    HttpSource, ImageSource, InputIndex, MergeOp, MkdirAction, MkfileAction, Mount, MountKind, Network,
    OciLayoutSource, Op, OpDigest, OutputIndex, Owner, Process, RmAction, SecretEnv, SecretFile, Security,
    SourceOp, SshSocket, SymlinkAction, Ulimit, Vertex, without_credentials,
};

use crate::cache_map::Selection;

const EXEC: &str = "rbuild.exec.v1";
const FILE: &str = "rbuild.file.v2";
const MERGE: &str = "rbuild.merge.v1";
const DIFF: &str = "rbuild.diff.v1";
const IMAGE: &str = "rbuild.source.image.v1";
const OCI_LAYOUT: &str = "rbuild.source.oci-layout.v1";
const GIT: &str = "rbuild.source.git.v1";
const HTTP: &str = "rbuild.source.http.v1";
const LOCAL: &str = "rbuild.source.local.v1";

/// What the selections of the op's inputs leave to be said in the op itself.
#[derive(Clone, Copy)]
struct Taken<'a>(&'a [Selection]);

impl Taken<'_> {
    /// Whether the selection of an input already says which paths are used.
    fn says_paths(self, input: InputIndex) -> bool {
        matches!(self.0.get(input.index()), Some(Selection::Paths(_)))
    }
}

pub(super) fn digest(vertex: &Vertex, selections: &[Selection]) -> OpDigest {
    let taken = Taken(selections);
    let mut hasher = match &vertex.op {
        Op::Source(source) => of_source(source),
        Op::Exec(exec) => of_exec(exec, taken),
        Op::File(file) => of_file(file, taken),
        Op::Merge(MergeOp { inputs }) => {
            let mut hasher = KeyHasher::new(MERGE);
            hasher.list(inputs, |hasher, input| feed_input(hasher, *input));
            hasher
        }
        Op::Diff(DiffOp { lower, upper }) => {
            let mut hasher = KeyHasher::new(DIFF);
            feed_input(&mut hasher, *lower);
            feed_input(&mut hasher, *upper);
            hasher
        }
    };
    if depends_on_platform(&vertex.op) {
        hasher.option(vertex.platform.as_ref(), |hasher, platform| {
            hasher.str(&platform.os).str(&platform.architecture);
            feed_text_option(hasher, platform.variant.as_deref());
            feed_text_option(hasher, platform.os_version.as_deref());
        });
    }
    OpDigest(hasher.finish())
}

const fn depends_on_platform(op: &Op) -> bool {
    matches!(op, Op::Exec(_) | Op::Source(SourceOp::Image(_) | SourceOp::OciLayout(_)))
}

fn of_source(source: &SourceOp) -> KeyHasher {
    match source {
        SourceOp::Image(image) => of_image(image),
        SourceOp::OciLayout(layout) => of_layout(layout),
        SourceOp::Git(git) => of_git(git),
        SourceOp::Http(http) => of_http(http),
        SourceOp::Local(_) => KeyHasher::new(LOCAL),
    }
}

fn of_image(image: &ImageSource) -> KeyHasher {
    let ImageSource { reference: _, resolve_mode: _, layer_limit } = image;
    let mut hasher = KeyHasher::new(IMAGE);
    feed_layer_limit(&mut hasher, *layer_limit);
    hasher
}

fn of_layout(layout: &OciLayoutSource) -> KeyHasher {
    let OciLayoutSource { store: _, digest: _, layer_limit } = layout;
    let mut hasher = KeyHasher::new(OCI_LAYOUT);
    feed_layer_limit(&mut hasher, *layer_limit);
    hasher
}

fn of_git(git: &GitSource) -> KeyHasher {
    let GitSource {
        remote,
        git_ref: _,
        subdir,
        checksum: _,
        keep_git_dir,
        skip_submodules,
        auth_token_secret: _,
        auth_header_secret: _,
        ssh_id: _,
        known_hosts: _,
        mtime_of_commit,
    } = git;
    let mut hasher = KeyHasher::new(GIT);
    hasher.str(subdir).number(*skip_submodules).number(*mtime_of_commit);
    let kept = keep_git_dir.then(|| without_credentials(remote));
    feed_text_option(&mut hasher, kept.as_deref());
    hasher
}

fn of_http(http: &HttpSource) -> KeyHasher {
    let HttpSource { url: _, checksum: _, filename, mode, uid, gid, auth_header_secret: _, headers: _ } =
        http;
    let mut hasher = KeyHasher::new(HTTP);
    hasher.str(filename).number(*mode).number(*uid).number(*gid);
    hasher
}

fn of_exec(exec: &ExecOp, taken: Taken<'_>) -> KeyHasher {
    let ExecOp { process, mounts, network, security, secret_env, devices } = exec;
    let mut hasher = KeyHasher::new(EXEC);
    feed_process(&mut hasher, process);
    hasher.list(mounts, |hasher, mount| feed_mount(hasher, mount, taken));
    hasher.number(match network {
        Network::Default => 0u8,
        Network::Host => 1,
        Network::None => 2,
    });
    hasher.number(match security {
        Security::Sandbox => 0u8,
        Security::Insecure => 1,
    });
    hasher.list(secret_env, |hasher, secret| {
        let SecretEnv { id, name, optional } = secret;
        hasher.str(id).str(name).number(*optional);
    });
    hasher.list(devices, |hasher, (name, required)| {
        hasher.str(name).number(*required);
    });
    hasher
}

fn feed_process(hasher: &mut KeyHasher, process: &Process) {
    let Process {
        args,
        env,
        cwd,
        user,
        hostname,
        proxy: _,
        extra_hosts,
        ulimits,
        cgroup_parent,
        valid_exit_codes,
        remove_mount_stubs_recursive,
    } = process;
    feed_texts(hasher, args);
    feed_texts(hasher, env);
    hasher.str(cwd).str(user).str(hostname);
    hasher.list(extra_hosts, |hasher, extra| {
        hasher.str(&extra.host);
    });
    hasher.list(ulimits, |hasher, Ulimit { name, soft, hard }| {
        hasher.str(name).signed(*soft).signed(*hard);
    });
    feed_text_option(hasher, cgroup_parent.as_deref());
    hasher.list(valid_exit_codes, |hasher, code| {
        hasher.signed(i64::from(*code));
    });
    hasher.number(*remove_mount_stubs_recursive);
}

fn feed_mount(hasher: &mut KeyHasher, mount: &Mount, taken: Taken<'_>) {
    let Mount { input, selector, target, output, readonly, kind } = mount;
    feed_input(hasher, *input);
    let selector = input.filter(|input| !taken.says_paths(*input)).map(|_| selector.as_str());
    feed_text_option(hasher, selector);
    hasher.str(target);
    feed_output(hasher, *output);
    hasher.number(*readonly);
    match kind {
        MountKind::Bind => {
            hasher.number(0u8);
        }
        MountKind::Cache { id: _, sharing: _ } => {
            hasher.number(1u8);
        }
        MountKind::Tmpfs { size_bytes } => {
            hasher.number(2u8).option(size_bytes.as_ref(), |hasher, size| {
                hasher.number(*size);
            });
        }
        MountKind::Secret(SecretFile { id, uid, gid, mode, optional }) => {
            hasher.number(3u8).str(id).number(*uid).number(*gid).number(*mode).number(*optional);
        }
        MountKind::Ssh(SshSocket { id, uid, gid, mode, optional }) => {
            hasher.number(4u8).str(id).number(*uid).number(*gid).number(*mode).number(*optional);
        }
    }
}

fn of_file(file: &FileOp, taken: Taken<'_>) -> KeyHasher {
    let FileOp { steps } = file;
    let mut hasher = KeyHasher::new(FILE);
    hasher.list(steps, |hasher, FileStep { base, action, output }| {
        feed_file_input(hasher, *base);
        feed_output(hasher, *output);
        feed_action(hasher, action, taken);
    });
    hasher
}

fn feed_action(hasher: &mut KeyHasher, action: &FileAction, taken: Taken<'_>) {
    match action {
        FileAction::Copy(copy) => feed_copy(hasher.number(0u8), copy, taken),
        FileAction::Mkfile(mkfile) => {
            let MkfileAction { path, mode, data, owner, timestamp_ns } = mkfile;
            hasher.number(1u8).str(path).number(*mode).bytes(data);
            feed_owner(hasher, owner.as_ref());
            feed_timestamp(hasher, *timestamp_ns);
        }
        FileAction::Mkdir(mkdir) => {
            let MkdirAction { path, mode, make_parents, owner, timestamp_ns } = mkdir;
            hasher.number(2u8).str(path).number(*mode).number(*make_parents);
            feed_owner(hasher, owner.as_ref());
            feed_timestamp(hasher, *timestamp_ns);
        }
        FileAction::Rm(RmAction { path, allow_not_found, allow_wildcard }) => {
            hasher.number(3u8).str(path).number(*allow_not_found).number(*allow_wildcard);
        }
        FileAction::Symlink(symlink) => {
            let SymlinkAction { target, path, owner, timestamp_ns } = symlink;
            hasher.number(4u8).str(target).str(path);
            feed_owner(hasher, owner.as_ref());
            feed_timestamp(hasher, *timestamp_ns);
        }
    }
}

fn feed_copy(hasher: &mut KeyHasher, copy: &CopyAction, taken: Taken<'_>) {
    let CopyAction {
        from,
        src,
        dest,
        owner,
        mode,
        follow_symlinks,
        dir_copy_contents,
        attempt_unpack,
        create_dest_path,
        allow_wildcard,
        allow_empty_wildcard,
        include,
        exclude,
        parents,
        always_replace,
        timestamp_ns,
    } = copy;
    let selected = matches!(from, FileInput::Input(input) if taken.says_paths(*input));
    feed_file_input(hasher, *from);
    hasher.str(if selected && !parents { last_component(src) } else { src }).str(dest);
    feed_owner(hasher, owner.as_ref());
    hasher.option(mode.as_ref(), |hasher, mode| {
        match mode {
            Chmod::Octal(bits) => hasher.number(0u8).number(*bits),
            Chmod::Symbolic(change) => hasher.number(1u8).str(change),
        };
    });
    hasher.number(*follow_symlinks).number(*dir_copy_contents).number(*attempt_unpack);
    hasher.number(*create_dest_path).number(*allow_wildcard).number(*allow_empty_wildcard);
    feed_texts(hasher, include);
    feed_texts(hasher, exclude);
    hasher.number(*parents).number(*always_replace);
    feed_timestamp(hasher, *timestamp_ns);
}

fn last_component(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, last)| last)
}

fn feed_owner(hasher: &mut KeyHasher, owner: Option<&Owner>) {
    hasher.option(owner, |hasher, Owner { user, group }| {
        for id in [user, group] {
            hasher.option(id.as_ref(), |hasher, id| match id {
                ChownId::Id(id) => {
                    hasher.number(0u8).number(*id);
                }
                ChownId::Name { name, lookup } => {
                    hasher.number(1u8).str(name);
                    feed_file_input(hasher, *lookup);
                }
            });
        }
    });
}

fn feed_file_input(hasher: &mut KeyHasher, input: FileInput) {
    match input {
        FileInput::Scratch => hasher.number(0u8),
        FileInput::Input(input) => hasher.number(1u8).number(input.0),
        FileInput::Step(step) => hasher.number(2u8).number(step),
    };
}

fn feed_input(hasher: &mut KeyHasher, input: Option<InputIndex>) {
    hasher.option(input.as_ref(), |hasher, input| {
        hasher.number(input.0);
    });
}

fn feed_output(hasher: &mut KeyHasher, output: Option<OutputIndex>) {
    hasher.option(output.as_ref(), |hasher, output| {
        hasher.number(output.0);
    });
}

fn feed_layer_limit(hasher: &mut KeyHasher, limit: Option<u32>) {
    hasher.option(limit.as_ref(), |hasher, limit| {
        hasher.number(*limit);
    });
}

fn feed_timestamp(hasher: &mut KeyHasher, timestamp_ns: Option<i64>) {
    hasher.option(timestamp_ns.as_ref(), |hasher, timestamp| {
        hasher.signed(*timestamp);
    });
}

fn feed_texts(hasher: &mut KeyHasher, texts: &[String]) {
    hasher.list(texts, |hasher, text| {
        hasher.str(text);
    });
}

fn feed_text_option(hasher: &mut KeyHasher, text: Option<&str>) {
    hasher.option(text.as_ref(), |hasher, text| {
        hasher.str(text);
    });
}
