//! One cause a row: a change to a step, and what is said of it.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use rbuild_cache::content_digest::TreeEntry;
use rbuild_cache::root_dir::FileType;
use rbuild_llb::{
    ChownId, CopyAction, ExtraHost, FileInput, GitSource, HttpSource, ImageSource, InputIndex, Mount,
    MountKind, Network, Op, OutputIndex, Owner, ProxyEnv, ResolveMode, SecretEnv, Security, SourceOp, Ulimit,
    VertexId,
};

use super::*;
use crate::cache_key::{SourceIdentity, op_digest};
use crate::cache_map::Selection;
use crate::testing::{copy_op, exec_op, vertex};

/// What is recorded, and what the step under test is compared with.
#[derive(Default)]
struct Fake {
    nearest: Option<Recorded>,
    recorded: HashMap<CacheKey, Recorded>,
    files: HashMap<[u8; 32], FileList>,
    files_asked: Cell<usize>,
}

impl Memory for Fake {
    fn nearest(&self, _: &str, _: &Recipe) -> Option<Recorded> {
        self.nearest.clone()
    }

    fn recorded(&self, key: CacheKey) -> Option<Recorded> {
        self.recorded.get(&key).cloned()
    }

    fn files(&self, digest: ContentDigest) -> Option<Arc<FileList>> {
        self.files_asked.set(self.files_asked.get() + 1);
        self.files.get(&digest.0).cloned().map(Arc::new)
    }
}

/// A change to a step, and what is said of it.
type Row<T> = (fn(&mut T), &'static str);

fn recipe(vertex: &Vertex, inputs: &[Contribution]) -> Recipe {
    Recipe::of(vertex, &KeyTrace { op: op_digest(vertex), inputs: inputs.to_vec() })
}

fn recorded(name: &str, recipe: Recipe) -> Recorded {
    Recorded { name: name.to_owned(), recipe }
}

fn words(causes: &[Cause]) -> String {
    causes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn said(before: &Vertex, after: &Vertex) -> String {
    let memory = Fake { nearest: Some(recorded("", recipe(before, &[]))), ..Fake::default() };
    words(&Explainer::default().causes(&memory, "", &recipe(after, &[])))
}

fn run() -> Vertex {
    let mut exec = exec_op(&["/bin/sh", "-c", "make"]);
    exec.process.env = vec!["PATH=/bin".to_owned(), "VERSION=1.2".to_owned()];
    let mut vertex = vertex(Op::Exec(exec), &[VertexId(0).into()]);
    vertex.meta.arguments = vec!["VERSION".to_owned()];
    vertex
}

fn exec(vertex: &mut Vertex) -> &mut rbuild_llb::ExecOp {
    match &mut vertex.op {
        Op::Exec(exec) => exec,
        _ => panic!("an exec"),
    }
}

#[test]
fn every_field_of_a_command_is_told() {
    let cache = || Mount {
        input: None,
        selector: String::new(),
        target: "/cache".to_owned(),
        output: None,
        readonly: false,
        kind: MountKind::Tmpfs { size_bytes: Some(1) },
    };
    let rows: [Row<Vertex>; 17] = [
        (|_| {}, "its result is no longer in the store"),
        (|v| exec(v).process.args[2] = "make all".to_owned(), "command changed: make -> make all"),
        (|v| exec(v).process.env[1] = "VERSION=1.3".to_owned(), "argument VERSION: 1.2 -> 1.3"),
        (|v| exec(v).process.env[0] = "PATH=/sbin".to_owned(), "environment PATH: /bin -> /sbin"),
        (|v| exec(v).process.env.push("X=y".to_owned()), "environment X added: y"),
        (|v| drop(exec(v).process.env.remove(0)), "environment PATH removed: /bin"),
        (|v| exec(v).process.cwd = "/app".to_owned(), "option WORKDIR added: /app"),
        (|v| exec(v).process.user = "app".to_owned(), "option USER added: app"),
        (|v| exec(v).network = Network::None, "option --network: default -> none"),
        (|v| exec(v).security = Security::Insecure, "option --security: sandbox -> insecure"),
        (|v| exec(v).process.hostname = "h".to_owned(), "option hostname added: h"),
        (
            |v| exec(v).process.extra_hosts.push(ExtraHost { host: "db".to_owned(), ip: "::1".to_owned() }),
            "option --add-host added: [{\"host\":\"db\",\"ip\":\"::1\"}]",
        ),
        (
            |v| exec(v).process.ulimits.push(Ulimit { name: "nofile".to_owned(), soft: 1, hard: 2 }),
            "option --ulimit added: [{\"hard\":2,\"name\":\"nofile\",\"soft\":1}]",
        ),
        (|v| exec(v).process.cgroup_parent = Some("g".to_owned()), "option --cgroup-parent added: g"),
        (
            |v| {
                exec(v).secret_env.push(SecretEnv {
                    id: "a".to_owned(),
                    name: "A".to_owned(),
                    optional: true,
                });
            },
            "option --mount=type=secret added: [{\"id\":\"a\",\"name\":\"A\",\"optional\":true}]",
        ),
        (|v| v.platform = Some("linux/arm64".parse().unwrap()), "option --platform added: linux/arm64"),
        (|v| exec(v).devices.push(("gpu".to_owned(), true)), "option --device added: [[\"gpu\",true]]"),
    ];
    for (change, expected) in rows {
        let mut changed = run();
        change(&mut changed);
        assert_eq!(said(&run(), &changed), expected);
    }
    let mut mounted = run();
    exec(&mut mounted).mounts.push(cache());
    assert!(
        said(&run(), &mounted).starts_with("option --mount /cache added: "),
        "{}",
        said(&run(), &mounted)
    );
    let mut larger = mounted.clone();
    exec(&mut larger).mounts.last_mut().unwrap().kind = MountKind::Tmpfs { size_bytes: Some(2) };
    assert_eq!(said(&mounted, &larger), "option --mount /cache tmpfs size_bytes: 1 -> 2");
}

#[test]
fn every_field_of_a_copy_is_told() {
    let copy = |change: fn(&mut CopyAction)| {
        let mut action = CopyAction::new(FileInput::Input(InputIndex(1)), "/src", "/dst");
        change(&mut action);
        vertex(copy_op(FileInput::Input(InputIndex(0)), action), &[VertexId(0).into(), VertexId(1).into()])
    };
    let rows: [Row<CopyAction>; 6] = [
        (|copy| copy.src = "/other".to_owned(), "option src: /src -> /other"),
        (|copy| copy.dest = "/to".to_owned(), "option destination: /dst -> /to"),
        (|copy| copy.mode = Some(rbuild_llb::Chmod::Octal(0o755)), "option --chmod added: {\"octal\":493}"),
        (
            |copy| copy.owner = Some(Owner { user: Some(ChownId::Id(7)), group: None }),
            "option --chown added: {\"group\":null,\"user\":{\"id\":7}}",
        ),
        (|copy| copy.parents = true, "option --parents added: true"),
        (|copy| copy.exclude = vec!["*.md".to_owned()], "option --exclude added: [\"*.md\"]"),
    ];
    for (change, expected) in rows {
        assert_eq!(said(&copy(|_| {}), &copy(change)), expected);
    }
}

fn entry(mode: u32, content: u8) -> FileEntry {
    FileEntry::new(&TreeEntry {
        kind: FileType::RegularFile,
        mode,
        uid: 0,
        gid: 0,
        size_bytes: 1,
        device: 0,
        content: Some([content; 32]),
        xattrs: None,
    })
}

fn list(files: &[(&str, u32, u8)]) -> FileList {
    let of = |(path, mode, content): &(&str, u32, u8)| ((*path).to_owned(), entry(*mode, *content));
    let list: FileList = files.iter().map(of).collect();
    assert_eq!(FileList::decode(list.as_bytes().to_vec()), Some(list.clone()));
    list
}

#[test]
fn files_are_told_by_what_became_of_them() {
    let copy =
        vertex(copy_op(FileInput::Scratch, CopyAction::new(FileInput::Input(InputIndex(0)), "/", "/")), &[]);
    let of = |content: u8| recipe(&copy, &[Contribution::Content(ContentDigest([content; 32]))]);
    let before = list(&[("same", 0o644, 1), ("src/a.c", 0o644, 1), ("run.sh", 0o644, 1), ("old", 0o644, 1)]);
    let after = list(&[("same", 0o644, 1), ("src/a.c", 0o644, 2), ("run.sh", 0o755, 1), ("new", 0o644, 1)]);
    let mut memory = Fake {
        nearest: Some(recorded("", of(1))),
        files: [([1; 32], before), ([2; 32], after)].into(),
        ..Fake::default()
    };
    let said = |memory: &Fake| words(&Explainer::default().causes(memory, "", &of(2)));
    let explainer = Explainer::default();
    let twice = [(); 2].map(|()| words(&explainer.causes(&memory, "", &of(2))));
    assert_eq!((twice[0] == twice[1], memory.files_asked.get()), (true, 2), "two lists are compared once");
    assert_eq!(
        said(&memory),
        "2 files changed: run.sh (mode 0644 -> 0755), src/a.c (content); 1 added: new; 1 removed: old"
    );
    memory.files.clear();
    assert_eq!(said(&memory), "files changed");
    let many: Vec<(String, u32, u8)> = (0..30).map(|number| (format!("{number:02}"), 0o644, 1)).collect();
    let many: Vec<_> = many.iter().map(|(path, mode, content)| (path.as_str(), *mode, *content)).collect();
    let changes = list(&many).changes_since(&FileList::default());
    assert_eq!((changes.added.count, changes.added.named.len()), (30, 20));
    assert!(changes.to_string().ends_with(", 19, …"), "{changes}");
}

#[test]
fn a_damaged_list_is_none() {
    let bytes = list(&[("a", 0o644, 1), ("b", 0o644, 1)]).as_bytes().to_vec();
    let half = bytes.len() / 2;
    let rows =
        [bytes[..half - 1].to_vec(), [&bytes[half..], &bytes[..half]].concat(), [&bytes[..half]; 2].concat()];
    assert_eq!(rows.map(FileList::decode), [None, None, None], "cut off; not sorted; twice");
    let mut spoiled = bytes;
    spoiled[4] = 0xff;
    assert_eq!(FileList::decode(spoiled), None, "no path");
}

fn source(source: SourceOp, identity: u8) -> Recipe {
    recipe(&vertex(Op::Source(source), &[]), &[Contribution::Identity(SourceIdentity([identity; 32]))])
}

fn image(digest: char, identity: u8) -> Recipe {
    let reference = format!("busybox@sha256:{}", digest.to_string().repeat(64)).parse().unwrap();
    source(
        SourceOp::Image(ImageSource { reference, resolve_mode: ResolveMode::Default, layer_limit: None }),
        identity,
    )
}

#[test]
fn a_source_is_told_by_what_it_is_pinned_to() {
    let said = |before: Recipe, after: &Recipe| {
        let memory = Fake { nearest: Some(recorded("", before)), ..Fake::default() };
        words(&Explainer::default().causes(&memory, "", after))
    };
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    assert_eq!(
        said(image('1', 1), &image('2', 2)),
        format!("base image is another: sha256:{one} -> sha256:{two}")
    );
    let http = |identity| {
        let url = "https://user:secret@host/f".to_owned();
        let http = HttpSource {
            url,
            checksum: None,
            filename: "f".to_owned(),
            mode: 0,
            uid: 0,
            gid: 0,
            auth_header_secret: None,
            headers: vec![("Authorization".to_owned(), "secret".to_owned())],
        };
        source(SourceOp::Http(http), identity)
    };
    assert_eq!(said(http(1), &http(2)), "source changed: https://host/f");
    let git = |git_ref: &str, identity| {
        let remote = "https://user:secret@host/r".to_owned();
        source(
            SourceOp::Git(GitSource { remote, git_ref: git_ref.to_owned(), ..GitSource::default() }),
            identity,
        )
    };
    assert_eq!(said(git("v1", 1), &git("v2", 2)), "source changed: https://host/r#v1 -> https://host/r#v2");
}

#[test]
fn a_recipe_is_read_as_it_was_written() {
    let copy =
        vertex(copy_op(FileInput::Scratch, CopyAction::new(FileInput::Input(InputIndex(0)), "/", "/")), &[]);
    for step in [run(), copy] {
        let written = recipe(&step, &[input(1), Contribution::Content(ContentDigest([2; 32]))]);
        let read: Recipe = serde_json::from_slice(&serde_json::to_vec(&written).unwrap()).unwrap();
        assert_eq!(read, written);
    }
    let read: Recipe = serde_json::from_slice(&serde_json::to_vec(&image('1', 1)).unwrap()).unwrap();
    assert_eq!(read, image('1', 1));
}

#[test]
fn credentials_are_in_no_recipe() {
    let mut step = run();
    exec(&mut step).process.proxy =
        Some(ProxyEnv { http: "http://u:secret@proxy".to_owned(), ..ProxyEnv::default() });
    let bytes = serde_json::to_string(&recipe(&step, &[])).unwrap();
    assert!(!bytes.contains("secret"), "{bytes}");
}

fn input(key: u8) -> Contribution {
    Contribution::Definition { key: CacheKey([key; 32]), output: OutputIndex(0), selection: Selection::Whole }
}

/// `FROM`, on it a `COPY`, on it a `RUN`: twice, on two bases.
#[test]
fn a_chain_is_followed_to_where_it_began() {
    let copy =
        vertex(copy_op(FileInput::Input(InputIndex(0)), CopyAction::new(FileInput::Scratch, "/", "/")), &[]);
    let recorded = [
        (1, recorded("FROM busybox", image('1', 1))),
        (2, recorded("FROM busybox", image('2', 2))),
        (3, recorded("COPY", recipe(&copy, &[input(1)]))),
        (4, recorded("COPY", recipe(&copy, &[input(2)]))),
    ];
    let memory = Fake {
        nearest: Some(Recorded { name: String::new(), recipe: recipe(&run(), &[input(3)]) }),
        recorded: recorded.into_iter().map(|(key, recorded)| (CacheKey([key; 32]), recorded)).collect(),
        ..Fake::default()
    };
    let said = words(&Explainer::default().causes(&memory, "", &recipe(&run(), &[input(4)])));
    let (one, two) = ("1".repeat(64), "2".repeat(64));
    assert_eq!(
        said,
        format!(
            "an earlier step changed: COPY (first FROM busybox: base image is another: sha256:{one} -> sha256:{two})"
        )
    );
    let lost = Fake { recorded: HashMap::new(), ..memory };
    let said = words(&Explainer::default().causes(&lost, "", &recipe(&run(), &[input(4)])));
    assert_eq!(said, "an earlier step changed: ");
}

#[test]
fn what_nothing_is_like_was_never_built() {
    let causes = Explainer::default().causes(&Fake::default(), "", &recipe(&run(), &[]));
    assert_eq!(causes, [Cause::NeverBuilt]);
}
