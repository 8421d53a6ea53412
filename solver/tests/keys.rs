//! The inclusion table of `cache_key`, row by row, and golden keys.

use std::collections::BTreeMap;
use std::path::Path;

use rbuild_image::{Digest, Platform};
use rbuild_llb::{
    CacheSharing, Chmod, ChownId, CopyAction, DiffOp, ExecOp, ExtraHost, FileAction, FileInput, FileOp,
    FileStep, GitSource, HttpSource, ImageSource, InputIndex, LocalSource, MergeOp, MkdirAction,
    MkfileAction, Mount, MountKind, Network, OciLayoutSource, Op, OutputIndex, Owner, ProxyEnv, ResolveMode,
    RmAction, SecretEnv, SecretFile, Security, SourceOp, SourceRange, SshSocket, SymlinkAction, Ulimit,
    Vertex, VertexId,
};
use rbuild_solver::cache_key::{content_key, definition_key, op_digest};
use rbuild_solver::testing::{copy_action, copy_op, exec_op, vertex};
use rbuild_solver::{
    CacheKey, CacheMap, ContentDigest, Contribution, SelectedPath, Selection, SourceIdentity,
};

/// A field of an op, as a change to it, and whether it is in the key.
type Row<T> = (&'static str, bool, fn(&mut T));

fn check<T: Clone>(base: &T, rows: &[Row<T>], digest: impl Fn(&T) -> [u8; 32]) {
    let before = digest(base);
    for (name, in_key, change) in rows {
        let mut changed = base.clone();
        change(&mut changed);
        assert_eq!(digest(&changed) != before, *in_key, "`{name}` in the key");
    }
}

fn inputs() -> Vec<rbuild_llb::Edge> {
    vec![VertexId(0).into(), VertexId(1).into()]
}

fn digest_of(op: Op) -> [u8; 32] {
    op_digest(&vertex(op, &inputs())).0
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

fn mount(kind: MountKind) -> Mount {
    Mount {
        input: None,
        selector: String::new(),
        target: "/mnt".to_owned(),
        output: None,
        readonly: false,
        kind,
    }
}

#[test]
fn facts_for_people_and_limits_are_out() {
    let rows: [Row<Vertex>; 6] = [
        ("name", false, |vertex| vertex.meta.name.push('x')),
        ("source lines", false, |vertex| {
            vertex.meta.source = Some(SourceRange { line_first: 1, line_last: 2 });
        }),
        ("ignore cache", false, |vertex| vertex.meta.ignore_cache = true),
        ("internal", false, |vertex| vertex.meta.internal = true),
        ("limits", false, |vertex| {
            vertex.meta.limits.insert("memory".to_owned(), "1g".to_owned());
        }),
        ("platform of an exec", true, |vertex| vertex.platform = Some(Platform::new("linux", "arm64", None))),
    ];
    check(&vertex(Op::Exec(exec_op(&["true"])), &inputs()), &rows, |vertex| op_digest(vertex).0);
}

#[test]
fn the_platform_counts_where_something_looks_at_it() {
    let platform: [Row<Vertex>; 1] =
        [("platform", true, |vertex| vertex.platform = Some(Platform::new("linux", "arm64", None)))];
    let no_platform: [Row<Vertex>; 1] = [("platform", false, platform[0].2)];
    let digest = |vertex: &Vertex| op_digest(vertex).0;
    check(&vertex(Op::Source(SourceOp::Image(image())), &[]), &platform, digest);
    check(&vertex(Op::Source(SourceOp::Http(http())), &[]), &no_platform, digest);
    let copy = copy_op(FileInput::Input(InputIndex(0)), copy_action("/a", "/b"));
    check(&vertex(copy, &inputs()), &no_platform, digest);
}

#[test]
fn an_exec_is_what_it_runs_and_where() {
    let rows: [Row<ExecOp>; 18] = [
        ("arguments", true, |exec| exec.process.args.push("x".to_owned())),
        ("framing of arguments", true, |exec| exec.process.args = strings(&["a", "bc"])),
        ("environment", true, |exec| exec.process.env.push("A=1".to_owned())),
        ("order of the environment", true, |exec| exec.process.env.reverse()),
        ("directory", true, |exec| exec.process.cwd = "/work".to_owned()),
        ("user", true, |exec| exec.process.user = "app".to_owned()),
        ("host name", true, |exec| exec.process.hostname = "host".to_owned()),
        ("proxy variables", false, |exec| {
            exec.process.proxy = Some(ProxyEnv { http: "http://proxy".to_owned(), ..ProxyEnv::default() });
        }),
        ("name of an extra host", true, |exec| exec.process.extra_hosts[0].host.push('x')),
        ("address of an extra host", false, |exec| exec.process.extra_hosts[0].ip = "10.0.0.2".to_owned()),
        ("ulimits", true, |exec| {
            exec.process.ulimits.push(Ulimit { name: "nofile".to_owned(), soft: -1, hard: 5 });
        }),
        ("parent cgroup", true, |exec| exec.process.cgroup_parent = Some("group".to_owned())),
        ("accepted exit codes", true, |exec| exec.process.valid_exit_codes.push(3)),
        ("stub removal", true, |exec| exec.process.remove_mount_stubs_recursive = true),
        ("network", true, |exec| exec.network = Network::None),
        ("security", true, |exec| exec.security = Security::Insecure),
        ("devices", true, |exec| exec.devices.push(("vendor/class".to_owned(), true))),
        ("secret variables", true, |exec| {
            let (id, name) = ("token".to_owned(), "TOKEN".to_owned());
            exec.secret_env.push(SecretEnv { id, name, optional: false });
        }),
    ];
    let mut exec = exec_op(&["ab", "c"]);
    exec.process.env = strings(&["X=1", "Y=2"]);
    exec.process.extra_hosts = vec![ExtraHost { host: "db".to_owned(), ip: "10.0.0.1".to_owned() }];
    check(&exec, &rows, |exec| digest_of(Op::Exec(exec.clone())));
}

fn check_mount(kind: MountKind, rows: &[Row<Mount>]) {
    check(&mount(kind), rows, |mount| {
        let mut exec = exec_op(&["true"]);
        exec.mounts.push(mount.clone());
        digest_of(Op::Exec(exec))
    });
}

#[test]
fn a_mount_is_where_it_is_and_what_is_kept() {
    check_mount(
        MountKind::Bind,
        &[
            ("target", true, |mount| mount.target = "/other".to_owned()),
            ("read-only", true, |mount| mount.readonly = true),
            ("output", true, |mount| mount.output = Some(OutputIndex(1))),
            ("which input", true, |mount| mount.input = Some(InputIndex(1))),
            ("kind", true, |mount| mount.kind = MountKind::Tmpfs { size_bytes: None }),
        ],
    );
}

#[test]
fn a_selector_is_in_the_op_only_where_the_content_does_not_say_it() {
    let rows = |in_key| -> [Row<Mount>; 1] {
        [("selector", in_key, |mount| mount.selector = "/elsewhere".to_owned())]
    };
    let digest = |mount: &Mount| {
        let mut exec = exec_op(&["true"]);
        exec.mounts.push(mount.clone());
        digest_of(Op::Exec(exec))
    };
    let mut base = mount(MountKind::Bind);
    base.selector = "/sub".to_owned();
    base.input = Some(InputIndex(1));
    check(&base, &rows(false), digest);
    base.output = Some(OutputIndex(1));
    check(&base, &rows(true), digest);
}

#[test]
fn a_cache_mount_is_only_that_it_is_one() {
    fn cache(mount: &mut Mount) -> (&mut String, &mut CacheSharing) {
        match &mut mount.kind {
            MountKind::Cache { id, sharing } => (id, sharing),
            _ => panic!("a cache mount"),
        }
    }
    check_mount(
        MountKind::Cache { id: "go".to_owned(), sharing: CacheSharing::Shared },
        &[
            ("id", false, |mount| cache(mount).0.push('x')),
            ("sharing", false, |mount| *cache(mount).1 = CacheSharing::Locked),
            ("kind", true, |mount| mount.kind = MountKind::Bind),
        ],
    );
}

#[test]
fn a_tmpfs_has_a_size() {
    check_mount(
        MountKind::Tmpfs { size_bytes: None },
        &[("size", true, |mount| mount.kind = MountKind::Tmpfs { size_bytes: Some(0) })],
    );
}

#[test]
fn a_secret_is_its_name_and_how_it_is_seen() {
    fn secret(mount: &mut Mount) -> &mut SecretFile {
        match &mut mount.kind {
            MountKind::Secret(secret) => secret,
            _ => panic!("a secret"),
        }
    }
    let file = SecretFile { id: "token".to_owned(), uid: 0, gid: 0, mode: 0o400, optional: false };
    check_mount(
        MountKind::Secret(file),
        &[
            ("id", true, |mount| secret(mount).id.push('x')),
            ("user", true, |mount| secret(mount).uid = 1),
            ("group", true, |mount| secret(mount).gid = 1),
            ("mode", true, |mount| secret(mount).mode = 0o444),
            ("optional", true, |mount| secret(mount).optional = true),
        ],
    );
}

#[test]
fn an_ssh_socket_is_its_name_and_how_it_is_seen() {
    fn ssh(mount: &mut Mount) -> &mut SshSocket {
        match &mut mount.kind {
            MountKind::Ssh(ssh) => ssh,
            _ => panic!("an ssh socket"),
        }
    }
    let socket = SshSocket { id: "default".to_owned(), uid: 0, gid: 0, mode: 0o600, optional: false };
    check_mount(
        MountKind::Ssh(socket),
        &[
            ("id", true, |mount| ssh(mount).id.push('x')),
            ("user", true, |mount| ssh(mount).uid = 1),
            ("group", true, |mount| ssh(mount).gid = 1),
            ("mode", true, |mount| ssh(mount).mode = 0o660),
            ("optional", true, |mount| ssh(mount).optional = true),
        ],
    );
}

#[test]
fn secret_variables_are_their_names() {
    let rows: [Row<SecretEnv>; 3] = [
        ("id", true, |secret| secret.id.push('x')),
        ("name", true, |secret| secret.name.push('x')),
        ("optional", true, |secret| secret.optional = true),
    ];
    let secret = SecretEnv { id: "token".to_owned(), name: "TOKEN".to_owned(), optional: false };
    check(&secret, &rows, |secret| {
        let mut exec = exec_op(&["true"]);
        exec.secret_env.push(secret.clone());
        digest_of(Op::Exec(exec))
    });
}

fn digest_of_copy(copy: &CopyAction) -> [u8; 32] {
    digest_of(copy_op(FileInput::Input(InputIndex(0)), copy.clone()))
}

#[test]
fn a_copy_is_what_it_makes_of_what_it_takes() {
    let rows: [Row<CopyAction>; 18] = [
        ("directory of the source", false, |copy| copy.src = "/elsewhere/a".to_owned()),
        ("last component of the source", true, |copy| copy.src = "/src/b".to_owned()),
        ("destination", true, |copy| copy.dest.push('/')),
        ("owner", true, |copy| copy.owner = Some(Owner { user: Some(ChownId::Id(0)), group: None })),
        ("group", true, |copy| copy.owner = Some(Owner { user: None, group: Some(ChownId::Id(0)) })),
        ("mode", true, |copy| copy.mode = Some(Chmod::Octal(0o644))),
        ("symbolic mode", true, |copy| copy.mode = Some(Chmod::Symbolic("+x".to_owned()))),
        ("follow links", true, |copy| copy.follow_symlinks ^= true),
        ("copy contents", true, |copy| copy.dir_copy_contents ^= true),
        ("unpack", true, |copy| copy.attempt_unpack ^= true),
        ("make the destination", true, |copy| copy.create_dest_path ^= true),
        ("wildcard", true, |copy| copy.allow_wildcard ^= true),
        ("empty wildcard", true, |copy| copy.allow_empty_wildcard ^= true),
        ("include", true, |copy| copy.include.push("*.c".to_owned())),
        ("exclude", true, |copy| copy.exclude.push("*.c".to_owned())),
        ("parents", true, |copy| copy.parents ^= true),
        ("replace", true, |copy| copy.always_replace ^= true),
        ("timestamp", true, |copy| copy.timestamp_ns = Some(0)),
    ];
    check(&copy_action("/src/a", "/dst"), &rows, digest_of_copy);
}

#[test]
fn a_source_directory_counts_where_the_content_does_not_say_it() {
    let directory: [Row<CopyAction>; 1] =
        [("directory of the source", true, |copy| copy.src = "/elsewhere/a".to_owned())];
    let mut with_parents = copy_action("/src/a", "/dst");
    with_parents.parents = true;
    check(&with_parents, &directory, digest_of_copy);
    let mut from_base = copy_action("/src/a", "/dst");
    from_base.from = FileInput::Input(InputIndex(0));
    check(&from_base, &directory, digest_of_copy);
    let mut from_scratch = copy_action("/src/a", "/dst");
    from_scratch.from = FileInput::Scratch;
    check(&from_scratch, &directory, digest_of_copy);
}

#[test]
fn a_file_step_is_where_it_stands() {
    let rows: [Row<FileStep>; 3] = [
        ("base", true, |step| step.base = FileInput::Scratch),
        ("output", true, |step| step.output = None),
        ("action", true, |step| step.action = rm()),
    ];
    let step = FileStep {
        base: FileInput::Input(InputIndex(0)),
        action: FileAction::Copy(copy_action("/a", "/b")),
        output: Some(OutputIndex(0)),
    };
    check(&step, &rows, |step| digest_of(Op::File(FileOp { steps: vec![step.clone()] })));
}

fn rm() -> FileAction {
    FileAction::Rm(RmAction { path: "/p".to_owned(), allow_not_found: false, allow_wildcard: false })
}

fn digest_of_action(action: FileAction) -> [u8; 32] {
    let step = FileStep { base: FileInput::Scratch, action, output: Some(OutputIndex(0)) };
    digest_of(Op::File(FileOp { steps: vec![step] }))
}

fn root() -> Owner {
    Owner { user: Some(ChownId::Id(0)), group: None }
}

fn mkfile() -> MkfileAction {
    let data = b"data".to_vec();
    MkfileAction { path: "/p".to_owned(), mode: 0o644, data, owner: None, timestamp_ns: None }
}

fn mkdir() -> MkdirAction {
    MkdirAction { path: "/p".to_owned(), mode: 0o755, make_parents: false, owner: None, timestamp_ns: None }
}

fn symlink() -> SymlinkAction {
    SymlinkAction { target: "/t".to_owned(), path: "/p".to_owned(), owner: None, timestamp_ns: None }
}

#[test]
fn other_file_actions_are_all_that_they_say() {
    check(
        &mkfile(),
        &[
            ("path", true, |action| action.path.push('x')),
            ("mode", true, |action| action.mode = 0),
            ("data", true, |action| action.data.push(0)),
            ("owner", true, |action| action.owner = Some(root())),
            ("timestamp", true, |action| action.timestamp_ns = Some(-1)),
        ],
        |action| digest_of_action(FileAction::Mkfile(action.clone())),
    );
    check(
        &mkdir(),
        &[
            ("path", true, |action| action.path.push('x')),
            ("mode", true, |action| action.mode = 0),
            ("parents", true, |action| action.make_parents = true),
            ("owner", true, |action| action.owner = Some(root())),
            ("timestamp", true, |action| action.timestamp_ns = Some(0)),
        ],
        |action| digest_of_action(FileAction::Mkdir(action.clone())),
    );
    check(
        &symlink(),
        &[
            ("target", true, |action| action.target.push('x')),
            ("path", true, |action| action.path.push('x')),
            ("owner", true, |action| action.owner = Some(root())),
            ("timestamp", true, |action| action.timestamp_ns = Some(0)),
        ],
        |action| digest_of_action(FileAction::Symlink(action.clone())),
    );
    check(
        &rm(),
        &[
            ("path", true, |action| {
                *action = FileAction::Rm(RmAction { path: "/q".to_owned(), ..removed(action) });
            }),
            ("not found", true, |action| {
                *action = FileAction::Rm(RmAction { allow_not_found: true, ..removed(action) });
            }),
            ("wildcard", true, |action| {
                *action = FileAction::Rm(RmAction { allow_wildcard: true, ..removed(action) });
            }),
        ],
        |action| digest_of_action(action.clone()),
    );
}

fn removed(action: &FileAction) -> RmAction {
    match action {
        FileAction::Rm(action) => action.clone(),
        _ => panic!("a removal"),
    }
}

#[test]
fn an_owner_is_who_and_where_it_is_looked_up() {
    let named = |name: &str, lookup: FileInput| {
        let user = ChownId::Name { name: name.to_owned(), lookup };
        let mut action = mkdir();
        action.owner = Some(Owner { user: Some(user), group: None });
        digest_of_action(FileAction::Mkdir(action))
    };
    let base = named("app", FileInput::Scratch);
    assert_ne!(base, named("other", FileInput::Scratch));
    assert_ne!(base, named("app", FileInput::Input(InputIndex(0))));
}

#[test]
fn merge_and_diff_are_their_inputs() {
    let merge = |inputs: &[Option<u32>]| {
        let inputs = inputs.iter().map(|input| input.map(InputIndex)).collect();
        digest_of(Op::Merge(MergeOp { inputs }))
    };
    assert_ne!(merge(&[Some(0), Some(1)]), merge(&[Some(1), Some(0)]));
    assert_ne!(merge(&[Some(0), None]), merge(&[None, Some(0)]));
    let diff = |lower: Option<u32>, upper: Option<u32>| {
        digest_of(Op::Diff(DiffOp { lower: lower.map(InputIndex), upper: upper.map(InputIndex) }))
    };
    assert_ne!(diff(Some(0), Some(1)), diff(Some(1), Some(0)));
    assert_ne!(diff(None, Some(0)), diff(Some(0), None));
}

fn image() -> ImageSource {
    let reference = "docker.io/library/base:1".parse().unwrap();
    ImageSource { reference, resolve_mode: ResolveMode::Default, layer_limit: None }
}

#[test]
fn an_image_is_what_it_is_pinned_to() {
    let rows: [Row<ImageSource>; 3] = [
        ("name", false, |image| image.reference = "example.com/other:2".parse().unwrap()),
        ("where to look", false, |image| image.resolve_mode = ResolveMode::ForcePull),
        ("layer limit", true, |image| image.layer_limit = Some(1)),
    ];
    check(&image(), &rows, |image| digest_of(Op::Source(SourceOp::Image(image.clone()))));
    let layout = OciLayoutSource { store: "a".to_owned(), digest: Digest::of("a"), layer_limit: None };
    let rows: [Row<OciLayoutSource>; 3] = [
        ("layout", false, |layout| layout.store.push('x')),
        ("manifest, which is the identity", false, |layout| layout.digest = Digest::of("b")),
        ("layer limit", true, |layout| layout.layer_limit = Some(1)),
    ];
    check(&layout, &rows, |layout| digest_of(Op::Source(SourceOp::OciLayout(layout.clone()))));
}

fn git() -> GitSource {
    GitSource {
        remote: "https://example.com/a.git".to_owned(),
        git_ref: "main".to_owned(),
        subdir: String::new(),
        checksum: None,
        keep_git_dir: false,
        skip_submodules: false,
        auth_token_secret: None,
        auth_header_secret: None,
        ssh_id: None,
        known_hosts: None,
        mtime_of_commit: false,
    }
}

#[test]
fn a_repository_is_its_commit_and_how_it_is_checked_out() {
    let rows: [Row<GitSource>; 11] = [
        ("remote", false, |git| git.remote.push('x')),
        ("branch", false, |git| git.git_ref.push('x')),
        ("directory", true, |git| git.subdir.push('x')),
        ("expected commit", false, |git| git.checksum = Some("abc".to_owned())),
        ("keep .git", true, |git| git.keep_git_dir = true),
        ("submodules", true, |git| git.skip_submodules = true),
        ("token", false, |git| git.auth_token_secret = Some("token".to_owned())),
        ("header", false, |git| git.auth_header_secret = Some("header".to_owned())),
        ("agent", false, |git| git.ssh_id = Some("default".to_owned())),
        ("host keys", false, |git| git.known_hosts = Some("keys".to_owned())),
        ("commit times", true, |git| git.mtime_of_commit = true),
    ];
    let digest = |git: &GitSource| digest_of(Op::Source(SourceOp::Git(git.clone())));
    check(&git(), &rows, digest);
    let mut with_git_dir = git();
    with_git_dir.keep_git_dir = true;
    check(&with_git_dir, &[("remote beside .git", true, |git| git.remote.push('x'))], digest);
}

fn http() -> HttpSource {
    HttpSource {
        url: "https://example.com/a".to_owned(),
        checksum: None,
        filename: "a".to_owned(),
        mode: 0o600,
        uid: 0,
        gid: 0,
        auth_header_secret: None,
        headers: Vec::new(),
    }
}

#[test]
fn a_download_is_its_content_and_the_file_it_becomes() {
    let rows: [Row<HttpSource>; 8] = [
        ("URL", false, |http| http.url.push('x')),
        ("expected digest", false, |http| http.checksum = Some(Digest::of("a"))),
        ("file name", true, |http| http.filename.push('x')),
        ("mode", true, |http| http.mode = 0o644),
        ("user", true, |http| http.uid = 1),
        ("group", true, |http| http.gid = 1),
        ("header", false, |http| http.auth_header_secret = Some("header".to_owned())),
        ("headers", false, |http| http.headers.push(("a".to_owned(), "b".to_owned()))),
    ];
    check(&http(), &rows, |http| digest_of(Op::Source(SourceOp::Http(http.clone()))));
}

#[test]
fn a_local_directory_is_nothing_but_its_content() {
    let rows: [Row<LocalSource>; 5] = [
        ("name", false, |local| local.name.push('x')),
        ("include", false, |local| local.include.push("*".to_owned())),
        ("exclude", false, |local| local.exclude.push("*".to_owned())),
        ("followed paths", false, |local| local.follow_paths.push("/a".to_owned())),
        ("hint", false, |local| local.shared_key_hint = Some("a".to_owned())),
    ];
    check(&LocalSource::default(), &rows, |local| digest_of(Op::Source(SourceOp::Local(local.clone()))));
}

#[test]
fn ops_of_different_kinds_differ() {
    let mut digests: Vec<[u8; 32]> = golden_ops().into_values().map(|vertex| op_digest(&vertex).0).collect();
    let count = digests.len();
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), count);
}

fn selected(path: &str) -> SelectedPath {
    SelectedPath { path: path.to_owned(), ..SelectedPath::default() }
}

#[test]
fn an_input_is_its_key_its_output_and_what_is_taken() {
    let op = op_digest(&vertex(Op::Exec(exec_op(&["true"])), &inputs()));
    let key = |contribution| definition_key(op, &[contribution]);
    let input = |byte: u8, output: u32, selection: Selection| Contribution::Definition {
        key: CacheKey([byte; 32]),
        output: OutputIndex(output),
        selection,
    };
    let keys = [
        key(input(1, 0, Selection::Whole)),
        key(input(2, 0, Selection::Whole)),
        key(input(1, 1, Selection::Whole)),
        key(input(1, 0, Selection::Paths(Vec::new()))),
        key(input(1, 0, Selection::Paths(vec![selected("/a")]))),
        key(input(1, 0, Selection::Paths(vec![selected("/a"), selected("/b")]))),
        key(input(1, 0, Selection::Paths(vec![selected("/b"), selected("/a")]))),
        key(Contribution::Content(ContentDigest([1; 32]))),
        key(Contribution::Identity(SourceIdentity([1; 32]))),
        definition_key(op, &[]),
        content_key(op, &[]),
        content_key(op, &[ContentDigest([1; 32])]),
    ];
    let different: std::collections::BTreeSet<CacheKey> = keys.into_iter().collect();
    assert_eq!(different.len(), keys.len());
}

#[test]
fn every_field_of_a_selected_path_counts() {
    let rows: [Row<SelectedPath>; 7] = [
        ("path", true, |selected| selected.path.push('x')),
        ("wildcard", true, |selected| selected.wildcard = true),
        ("follow links", true, |selected| selected.follow_links = true),
        ("contents only", true, |selected| selected.contents_only = true),
        ("parents", true, |selected| selected.parents = true),
        ("include", true, |selected| selected.include.push("x".to_owned())),
        ("exclude", true, |selected| selected.exclude.push("x".to_owned())),
    ];
    let op = op_digest(&vertex(Op::Exec(exec_op(&["true"])), &inputs()));
    check(&selected("/a"), &rows, |selected| {
        let selection = Selection::Paths(vec![selected.clone()]);
        let (key, output) = (CacheKey([0; 32]), OutputIndex(0));
        definition_key(op, &[Contribution::Definition { key, output, selection }]).0
    });
}

/// One vertex for each kind of op, with its options in use.
fn golden_ops() -> BTreeMap<&'static str, Vertex> {
    let mut exec = exec_op(&["/bin/sh", "-c", "make"]);
    exec.process.env = strings(&["PATH=/bin", "A=1"]);
    exec.process.cwd = "/src".to_owned();
    exec.process.user = "app:app".to_owned();
    exec.process.extra_hosts = vec![ExtraHost { host: "db".to_owned(), ip: "10.0.0.1".to_owned() }];
    exec.mounts.extend([
        mount(MountKind::Cache { id: "go".to_owned(), sharing: CacheSharing::Locked }),
        mount(MountKind::Tmpfs { size_bytes: Some(1) }),
        mount(MountKind::Secret(SecretFile {
            id: "token".to_owned(),
            uid: 1,
            gid: 2,
            mode: 0o400,
            optional: false,
        })),
    ]);
    let mut copy = copy_action("/src/*.c", "/dst/");
    copy.allow_wildcard = true;
    copy.mode = Some(Chmod::Octal(0o755));
    copy.owner = Some(Owner { user: Some(ChownId::Id(1)), group: Some(ChownId::Id(2)) });
    let merge = MergeOp { inputs: vec![Some(InputIndex(0)), Some(InputIndex(1))] };
    let diff = DiffOp { lower: Some(InputIndex(0)), upper: Some(InputIndex(1)) };
    let layout = OciLayoutSource { store: "a".to_owned(), digest: Digest::of("a"), layer_limit: None };
    let action = |action| {
        Op::File(FileOp {
            steps: vec![FileStep { base: FileInput::Scratch, action, output: Some(OutputIndex(0)) }],
        })
    };
    let ops = [
        ("exec", Op::Exec(exec)),
        ("copy", copy_op(FileInput::Input(InputIndex(0)), copy)),
        ("mkfile", action(FileAction::Mkfile(mkfile()))),
        ("mkdir", action(FileAction::Mkdir(mkdir()))),
        ("symlink", action(FileAction::Symlink(symlink()))),
        ("rm", action(rm())),
        ("merge", Op::Merge(merge)),
        ("diff", Op::Diff(diff)),
        ("image", Op::Source(SourceOp::Image(image()))),
        ("oci-layout", Op::Source(SourceOp::OciLayout(layout))),
        ("git", Op::Source(SourceOp::Git(git()))),
        ("http", Op::Source(SourceOp::Http(http()))),
        ("local", Op::Source(SourceOp::Local(LocalSource::default()))),
    ];
    let platform = Some(Platform::new("linux", "arm", Some("v7")));
    ops.into_iter()
        .map(|(name, op)| {
            let is_source = matches!(op, Op::Source(_));
            let inputs = if is_source { Vec::new() } else { inputs() };
            (name, Vertex { platform: platform.clone(), ..vertex(op, &inputs) })
        })
        .collect()
}

/// The definition key and the content key of each op, its inputs and the sources' identities made up.
fn golden_keys() -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    for (name, vertex) in golden_ops() {
        let map = CacheMap::of(&vertex);
        let mut contributions: Vec<Contribution> = (1u8..)
            .zip(&map.inputs)
            .map(|(byte, request)| Contribution::Definition {
                key: CacheKey([byte; 32]),
                output: OutputIndex(0),
                selection: request.selection.clone(),
            })
            .collect();
        if contributions.is_empty() {
            contributions.push(Contribution::Identity(SourceIdentity([9; 32])));
        }
        let contents: Vec<ContentDigest> =
            (1u8..).zip(&map.inputs).map(|(byte, _)| ContentDigest([byte; 32])).collect();
        keys.insert(format!("{name}: definition"), definition_key(map.op, &contributions).to_string());
        if !contents.is_empty() {
            keys.insert(format!("{name}: content"), content_key(map.op, &contents).to_string());
        }
    }
    keys
}

#[test]
fn keys_are_what_they_always_were() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/digests/cache_keys.json");
    let golden: BTreeMap<String, String> =
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".to_owned())).unwrap();
    let keys = golden_keys();
    assert!(
        golden == keys,
        "This change drops every user's cache: no record of an earlier rbuild is found any more. If that is \
         meant, bump the version in the domain of each op that changed (`cache_key/ops.rs`) and replace \
         testdata/digests/cache_keys.json by:\n{}",
        serde_json::to_string_pretty(&keys).unwrap()
    );
}
