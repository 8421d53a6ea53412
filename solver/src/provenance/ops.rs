//! Operations as BuildKit writes them in JSON: the fields of `pb.Op`, in the words of its Go types.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_llb::{
    CacheSharing, Chmod, ChownId, CopyAction, ExecOp, FileAction, FileInput, FileOp, FileStep, GitSource,
    HttpSource, InputIndex, Mount, MountKind, Network, Op, Owner, Process, Security, SourceOp, Vertex,
};
use serde_json::{Map, Value, json};

/// Nothing, where a number is needed.
const NONE: i64 = -1;

/// What a vertex does, without its inputs.
pub(super) fn op(vertex: &Vertex) -> Value {
    let (name, said) = match &vertex.op {
        Op::Source(op) => ("source", source(op)),
        Op::Exec(op) => ("exec", exec(op)),
        Op::File(op) => ("file", file(op, vertex.inputs.len())),
        Op::Merge(op) => {
            ("merge", json!({ "inputs": op.inputs.iter().map(|input| from(*input)).collect::<Vec<_>>() }))
        }
        Op::Diff(op) => ("diff", json!({ "lower": from(op.lower), "upper": from(op.upper) })),
    };
    let mut op = json!({ "Op": { name: said }, "constraints": {} });
    if let Some(platform) = &vertex.platform {
        op["platform"] = json!({ "Architecture": platform.architecture, "OS": platform.os });
        if let Some(variant) = &platform.variant {
            op["platform"]["Variant"] = json!(variant);
        }
    }
    op
}

fn input(input: Option<InputIndex>) -> i64 {
    input.map_or(NONE, |input| i64::from(input.0))
}

fn from(index: Option<InputIndex>) -> Value {
    json!({ "input": input(index) })
}

/// Fields but those that say nothing, which Go leaves out.
fn fields<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let is_said = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Number(number) => number.as_i64() != Some(0),
        Value::Bool(true) | Value::Object(_) => true,
    };
    let said = fields.into_iter().filter(|(_, value)| is_said(value));
    Value::Object(said.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

fn source(op: &SourceOp) -> Value {
    let (identifier, attributes) = match op {
        SourceOp::Image(image) => (format!("docker-image://{}", image.reference), Value::Null),
        SourceOp::Local(local) => {
            let list = |list: &[String]| {
                if list.is_empty() { Value::Null } else { json!(json!(list).to_string()) }
            };
            let attributes = [
                ("local.includepattern", list(&local.include)),
                ("local.excludepatterns", list(&local.exclude)),
                ("local.followpaths", list(&local.follow_paths)),
                ("local.sharedkeyhint", json!(local.shared_key_hint)),
            ];
            (format!("local://{}", local.name), fields(attributes))
        }
        SourceOp::Git(git) => (format!("git://{}", git_identifier(git)), git_attributes(git)),
        SourceOp::Http(http) => (http.url.clone(), http_attributes(http)),
        SourceOp::OciLayout(layout) => {
            (format!("oci-layout://{}@{}", layout.store, layout.digest), Value::Null)
        }
    };
    fields([("identifier", json!(identifier)), ("attrs", attributes)])
}

fn git_identifier(git: &GitSource) -> String {
    let remote = git.remote.split_once("://").map_or(git.remote.as_str(), |(_, rest)| rest);
    match (git.git_ref.as_str(), git.subdir.as_str()) {
        ("", "") => remote.to_owned(),
        (name, "") => format!("{remote}#{name}"),
        (name, directory) => format!("{remote}#{name}:{directory}"),
    }
}

fn git_attributes(git: &GitSource) -> Value {
    let flag = |flag: bool| if flag { json!("true") } else { Value::Null };
    fields([
        ("git.fullurl", json!(git.remote)),
        ("git.checksum", json!(git.checksum)),
        ("git.keepgitdir", flag(git.keep_git_dir)),
        ("git.skipsubmodules", flag(git.skip_submodules)),
        ("git.authtokensecret", json!(git.auth_token_secret)),
        ("git.authheadersecret", json!(git.auth_header_secret)),
        ("git.mountsshsock", json!(git.ssh_id)),
        ("git.knownsshhosts", json!(git.known_hosts)),
    ])
}

fn http_attributes(http: &HttpSource) -> Value {
    let number = |number: u32, base: fn(u32) -> String| {
        if number == 0 { Value::Null } else { json!(base(number)) }
    };
    fields([
        ("http.checksum", json!(http.checksum)),
        ("http.filename", json!(http.filename)),
        ("http.perm", number(http.mode, |mode| format!("0{mode:o}"))),
        ("http.uid", number(http.uid, |id| id.to_string())),
        ("http.gid", number(http.gid, |id| id.to_string())),
        ("http.authheadersecret", json!(http.auth_header_secret)),
    ])
}

fn exec(op: &ExecOp) -> Value {
    let secret = |secret: &rbuild_llb::SecretEnv| {
        fields([("ID", json!(secret.id)), ("name", json!(secret.name)), ("optional", json!(secret.optional))])
    };
    let network = match op.network {
        Network::Default => 0,
        Network::Host => 1,
        Network::None => 2,
    };
    fields([
        ("meta", meta(&op.process)),
        ("mounts", op.mounts.iter().map(mount).collect()),
        ("network", json!(network)),
        ("security", json!(i32::from(op.security == Security::Insecure))),
        ("secretenv", op.secret_env.iter().map(secret).collect()),
    ])
}

fn meta(process: &Process) -> Value {
    let host = |host: &rbuild_llb::ExtraHost| json!({ "Host": host.host, "IP": host.ip });
    let limit =
        |limit: &rbuild_llb::Ulimit| json!({ "Name": limit.name, "Soft": limit.soft, "Hard": limit.hard });
    fields([
        ("args", json!(process.args)),
        ("env", json!(process.env)),
        ("cwd", json!(process.cwd)),
        ("user", json!(process.user)),
        ("extraHosts", process.extra_hosts.iter().map(host).collect()),
        ("hostname", json!(process.hostname)),
        ("ulimit", process.ulimits.iter().map(limit).collect()),
        ("cgroupParent", json!(process.cgroup_parent)),
        ("removeMountStubsRecursive", json!(process.remove_mount_stubs_recursive)),
        ("validExitCodes", json!(process.valid_exit_codes)),
    ])
}

fn mount(mount: &Mount) -> Value {
    let (kind, (name, options)) = match &mount.kind {
        MountKind::Bind => (0, ("", Value::Null)),
        MountKind::Secret(secret) => {
            let id = [secret.uid, secret.gid, secret.mode];
            (1, ("secretOpt", given(&secret.id, id, secret.optional)))
        }
        MountKind::Ssh(socket) => {
            let id = [socket.uid, socket.gid, socket.mode];
            (2, ("SSHOpt", given(&socket.id, id, socket.optional)))
        }
        MountKind::Cache { id, sharing } => {
            let sharing = match sharing {
                CacheSharing::Shared => 0,
                CacheSharing::Private => 1,
                CacheSharing::Locked => 2,
            };
            (3, ("cacheOpt", fields([("ID", json!(id)), ("sharing", json!(sharing))])))
        }
        MountKind::Tmpfs { size_bytes } => (4, ("TmpfsOpt", fields([("size", json!(size_bytes))]))),
    };
    fields([
        ("input", json!(input(mount.input))),
        ("selector", json!(mount.selector)),
        ("dest", json!(mount.target)),
        ("output", json!(mount.output.map_or(NONE, |output| i64::from(output.0)))),
        ("readonly", json!(mount.readonly)),
        ("mountType", json!(kind)),
        (name, options),
    ])
}

/// What a step is given by its id: a secret, an agent.
fn given(id: &str, [uid, gid, mode]: [u32; 3], optional: bool) -> Value {
    fields([
        ("ID", json!(id)),
        ("uid", json!(uid)),
        ("gid", json!(gid)),
        ("mode", json!(mode)),
        ("optional", json!(optional)),
    ])
}

fn file(op: &FileOp, inputs: usize) -> Value {
    let place = |input: FileInput| tree(input, inputs);
    let action = |step: &FileStep| {
        let (name, said, from) = match &step.action {
            FileAction::Copy(action) => ("copy", copy(action, inputs), place(action.from)),
            FileAction::Mkfile(action) => (
                "mkfile",
                fields([
                    ("path", json!(action.path)),
                    ("mode", json!(action.mode)),
                    ("data", json!(STANDARD.encode(&action.data))),
                    ("owner", owner(action.owner.as_ref(), inputs)),
                    ("timestamp", json!(action.timestamp_ns.unwrap_or(NONE))),
                ]),
                NONE,
            ),
            FileAction::Mkdir(action) => (
                "mkdir",
                fields([
                    ("path", json!(action.path)),
                    ("mode", json!(action.mode)),
                    ("makeParents", json!(action.make_parents)),
                    ("owner", owner(action.owner.as_ref(), inputs)),
                    ("timestamp", json!(action.timestamp_ns.unwrap_or(NONE))),
                ]),
                NONE,
            ),
            FileAction::Rm(action) => (
                "rm",
                fields([
                    ("path", json!(action.path)),
                    ("allowNotFound", json!(action.allow_not_found)),
                    ("allowWildcard", json!(action.allow_wildcard)),
                ]),
                NONE,
            ),
            FileAction::Symlink(action) => (
                "symlink",
                fields([
                    ("oldpath", json!(action.target)),
                    ("newpath", json!(action.path)),
                    ("owner", owner(action.owner.as_ref(), inputs)),
                    ("timestamp", json!(action.timestamp_ns.unwrap_or(NONE))),
                ]),
                NONE,
            ),
        };
        json!({
            "input": place(step.base),
            "secondaryInput": from,
            "output": step.output.map_or(NONE, |output| i64::from(output.0)),
            "Action": { name: said },
        })
    };
    json!({ "actions": op.steps.iter().map(action).collect::<Vec<_>>() })
}

/// Where the trees of earlier actions are counted on from the inputs.
fn tree(from: FileInput, inputs: usize) -> i64 {
    match from {
        FileInput::Scratch => NONE,
        FileInput::Input(input) => i64::from(input.0),
        FileInput::Step(step) => i64::try_from(inputs).unwrap_or(i64::MAX).saturating_add(i64::from(step)),
    }
}

fn copy(action: &CopyAction, inputs: usize) -> Value {
    let (mode, words) = match &action.mode {
        None => (NONE, None),
        Some(Chmod::Octal(mode)) => (i64::from(*mode), None),
        Some(Chmod::Symbolic(words)) => (NONE, Some(words)),
    };
    fields([
        ("src", json!(action.src)),
        ("dest", json!(action.dest)),
        ("owner", owner(action.owner.as_ref(), inputs)),
        ("mode", json!(mode)),
        ("modeStr", json!(words)),
        ("followSymlink", json!(action.follow_symlinks)),
        ("dirCopyContents", json!(action.dir_copy_contents)),
        ("attemptUnpackDockerCompatibility", json!(action.attempt_unpack)),
        ("createDestPath", json!(action.create_dest_path)),
        ("allowWildcard", json!(action.allow_wildcard)),
        ("allowEmptyWildcard", json!(action.allow_empty_wildcard)),
        ("timestamp", json!(action.timestamp_ns.unwrap_or(NONE))),
        ("include_patterns", json!(action.include)),
        ("exclude_patterns", json!(action.exclude)),
        ("alwaysReplaceExistingDestPaths", json!(action.always_replace)),
    ])
}

fn owner(owner: Option<&Owner>, inputs: usize) -> Value {
    let id = |id: &ChownId| {
        let said = match id {
            ChownId::Id(id) => fields([("byId", json!(id))]),
            ChownId::Name { name, lookup } => {
                json!({ "byName": { "name": name, "input": tree(*lookup, inputs) } })
            }
        };
        json!({ "User": said })
    };
    owner.map_or(Value::Null, |owner| {
        fields([
            ("user", owner.user.as_ref().map_or(Value::Null, id)),
            ("group", owner.group.as_ref().map_or(Value::Null, id)),
        ])
    })
}
