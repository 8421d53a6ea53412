//! `testdata/dockerfiles/{ok,err}/<case>/`: a Dockerfile, what the caller asks for (`options`), and what comes of it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use rbuild_frontend::{
    Error, Lowered, MainContext, NamedContext, NoCache, Options, RemoteContext, dockerignore, lower,
};
use rbuild_image::Platform;
use rbuild_llb::{Edge, ExtraHost, FileInput, FileOp, Network, Op, SourceOp, Ulimit};

use crate::images::Fixtures;

const CREATED: &str = "2026-01-02T03:04:05Z";

/// One folder.
struct Case {
    folder: PathBuf,
    source: Vec<u8>,
    options: Options,
}

fn cases(kind: &str) -> Vec<Case> {
    let mut folders: Vec<PathBuf> = fs::read_dir(crate::testdata("dockerfiles").join(kind))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    folders.sort();
    assert!(!folders.is_empty());
    folders.into_iter().map(Case::read).collect()
}

impl Case {
    fn read(folder: PathBuf) -> Self {
        let source = fs::read(folder.join("Dockerfile"))
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let text = fs::read_to_string(folder.join("options")).unwrap_or_default();
        let mut options = Options::new(Platform::new("linux", "amd64", None), CREATED);
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            set(&mut options, key, value);
        }
        if let Ok(rules) = fs::read(folder.join("dockerignore")) {
            options.ignore = dockerignore::parse(&rules).unwrap();
        }
        Self { folder, source, options }
    }

    fn name(&self) -> String {
        self.folder.file_name().unwrap().to_string_lossy().into_owned()
    }

    fn lower(&self) -> Result<Lowered, Error> {
        lower(&self.source, &self.options, &Fixtures)
    }
}

fn set(options: &mut Options, key: &str, value: &str) {
    let pair = || value.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned())).unwrap();
    match key {
        "build-arg" => options.build_args.extend([pair()]),
        "target" => options.target = Some(value.to_owned()),
        "label" => options.labels.push(pair()),
        "no-cache" if value.is_empty() => options.no_cache = NoCache::All,
        "no-cache" => options.no_cache = NoCache::Stages(value.split(',').map(str::to_owned).collect()),
        "platform" => {
            options.platform = value.parse().unwrap();
            options.platform_is_default = false;
        }
        "multi-platform" => options.multi_platform = true,
        "epoch" => options.source_date_epoch = Some(value.parse().unwrap()),
        "network" if value == "host" => options.network = Network::Host,
        "hostname" => value.clone_into(&mut options.hostname),
        "shm-size" => options.shm_size_bytes = Some(value.parse().unwrap()),
        "cgroup-parent" => options.cgroup_parent = Some(value.to_owned()),
        "limit" => options.limits.extend([pair()]),
        "add-host" => {
            let (host, ip) = pair();
            options.extra_hosts.push(ExtraHost { host, ip });
        }
        "ulimit" => {
            let (name, value) = pair();
            let value = value.parse().unwrap();
            options.ulimits.push(Ulimit { name, soft: value, hard: value });
        }
        "context" => {
            let (name, value) = pair();
            options.contexts.insert(name, context(&value));
        }
        "git-context" => {
            options.context = MainContext::Remote(RemoteContext::Git(serde_json::from_str(value).unwrap()));
        }
        _ => panic!("unknown option `{key}`"),
    }
}

fn context(value: &str) -> NamedContext {
    match value.split_once(':').unwrap() {
        ("docker-image", reference) => {
            NamedContext::Image(reference.trim_start_matches('/').parse().unwrap())
        }
        ("remote", url) => NamedContext::Remote(RemoteContext::named(url).unwrap().unwrap()),
        ("local", name) => NamedContext::Local { name: name.to_owned(), ignore: vec!["*.tmp".to_owned()] },
        _ => panic!("unknown context `{value}`"),
    }
}

/// What a case must give, file by file.
fn expectations(case: &Case, lowered: &Lowered) -> Vec<(&'static str, String)> {
    let mut config = serde_json::to_string_pretty(&lowered.config).unwrap();
    config.push('\n');
    let mut files = vec![("expected.llb", lowered.definition.to_string()), ("expected.config.json", config)];
    let mut warnings = String::new();
    for warning in &lowered.warnings {
        let name = warning.rule.name();
        writeln!(warnings, "{}: {name}: {}", warning.range.line_first, warning.message).unwrap();
    }
    if !warnings.is_empty() || case.folder.join("expected.warnings").exists() {
        files.push(("expected.warnings", warnings));
    }
    files
}

/// Where and why, and the word to blame under its line.
fn describe(error: &Error, source: &[u8]) -> String {
    let message = match error.similar() {
        Some(similar) => format!("{error}\nsimilar: {similar}"),
        None => error.to_string(),
    };
    let place = match (error.range(), error.span()) {
        (_, Some(span)) => format!("{}:{}", span.line, span.columns.start),
        (None, _) => String::new(),
        (Some(range), _) if range.line_first == range.line_last => range.line_first.to_string(),
        (Some(range), _) => format!("{}-{}", range.line_first, range.line_last),
    };
    let mut text = format!("Dockerfile:{place}: {message}\n");
    if let Some(span) = error.span() {
        let source = String::from_utf8_lossy(source);
        let line = source.lines().nth(span.line as usize - 1).unwrap();
        let (indent, width) = (span.columns.start as usize - 1, span.columns.len());
        writeln!(text, "{line}\n{:indent$}{}", "", "^".repeat(width)).unwrap();
    }
    text
}

#[test]
fn dockerfiles_that_build() {
    for case in cases("ok") {
        let lowered = case
            .lower()
            .unwrap_or_else(|error| panic!("{}: {}", case.name(), describe(&error, &case.source)));
        check_invariants(&case.name(), &lowered);
        for (file, actual) in expectations(&case, &lowered) {
            assert_same(&case.folder.join(file), &actual);
        }
    }
}

#[test]
fn dockerfiles_that_do_not_build() {
    for case in cases("err") {
        match case.lower() {
            Ok(_) => panic!("{}: builds", case.name()),
            Err(error) => assert_same(&case.folder.join("expected.txt"), &describe(&error, &case.source)),
        }
    }
}

fn assert_same(path: &Path, actual: &str) {
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(expected == actual, "{} differs; it would be\n{actual}", path.display());
}

#[test]
#[ignore = "writes the golden files"]
fn regenerate() {
    for case in cases("ok") {
        let lowered = case
            .lower()
            .unwrap_or_else(|error| panic!("{}: {}", case.name(), describe(&error, &case.source)));
        for (file, actual) in expectations(&case, &lowered) {
            fs::write(case.folder.join(file), actual).unwrap();
        }
    }
    for case in cases("err") {
        let error = case.lower().err().unwrap_or_else(|| panic!("{} builds", case.name()));
        fs::write(case.folder.join("expected.txt"), describe(&error, &case.source)).unwrap();
    }
}

/// Every fixture is used, and is where it is looked for.
#[test]
fn no_fixture_is_forgotten() {
    let known = [
        "Dockerfile",
        "options",
        "dockerignore",
        "expected.llb",
        "expected.config.json",
        "expected.warnings",
    ];
    for (kind, files) in [("ok", &known[..]), ("err", &["Dockerfile", "options", "expected.txt"][..])] {
        for case in cases(kind) {
            for entry in fs::read_dir(&case.folder).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                assert!(files.contains(&name.as_str()), "{}/{name}", case.name());
            }
        }
    }
}

/// The layers that history promises are the vertices on the root's chain, in number and kind.
pub(crate) fn check_invariants(case: &str, lowered: &Lowered) {
    let history = &lowered.config.history[lowered.history_inherited..];
    let promised: Vec<&str> = history
        .iter()
        .filter(|entry| !entry.empty_layer)
        .map(|entry| entry.created_by.as_deref().unwrap().split(' ').next().unwrap())
        .collect();
    let mut chain = Vec::new();
    let mut edge = lowered.definition.targets()[0];
    while let Some(Edge { vertex, output }) = edge {
        assert_eq!(output.0, 0, "{case}");
        let vertex = lowered.definition.vertex(vertex);
        let parent = match &vertex.op {
            Op::Source(SourceOp::Image(_) | SourceOp::OciLayout(_)) => break,
            Op::Source(SourceOp::Git(_)) => {
                chain.push("remote".to_owned());
                break;
            }
            Op::Exec(exec) => exec.mounts.iter().find(|mount| mount.target == "/").unwrap().input,
            Op::File(file) => root_of(file),
            Op::Merge(merge) => merge.inputs[0],
            Op::Source(SourceOp::Local(_) | SourceOp::Http(_)) | Op::Diff(_) => {
                panic!("{case}: on the root's chain")
            }
        };
        let name = vertex.meta.name.split_once("] ").map_or(vertex.meta.name.as_str(), |(_, text)| text);
        let name = name.trim_start_matches("ONBUILD ").trim_start_matches("LINK ");
        chain.push(name.split(' ').next().unwrap().to_owned());
        edge = parent.map(|input| vertex.inputs[input.index()]);
    }
    chain.reverse();
    assert_eq!(promised, chain, "{case}");
}

fn root_of(file: &FileOp) -> Option<rbuild_llb::InputIndex> {
    let mut step = file.steps.last().unwrap();
    assert_eq!(step.output.unwrap().0, 0);
    loop {
        match step.base {
            FileInput::Step(index) => step = &file.steps[index as usize],
            FileInput::Input(input) => return Some(input),
            FileInput::Scratch => return None,
        }
    }
}

const OUTLINED: &str = "\
# BASE is what all is built on
ARG BASE=alpine
ARG UNUSED=1
# app is the program
FROM $BASE AS app
# MODE says how
ARG MODE=fast
ARG BASE
RUN --mount=type=secret,id=token,required --mount=type=ssh --mount=type=cache,target=/c x
FROM app
ARG LATE
CMD shell form
";

#[test]
fn an_outline_lists_what_a_target_takes() {
    let mut options = Options::new(Platform::new("linux", "amd64", None), CREATED);
    options.target = Some("APP".to_owned());
    options.build_args.insert("MODE".to_owned(), "slow".to_owned());
    let outline = rbuild_frontend::outline(OUTLINED.as_bytes(), &options, &Fixtures).unwrap();
    assert_eq!((outline.name.as_str(), outline.description.as_deref()), ("app", Some("is the program")));
    let args: Vec<_> = outline
        .args
        .iter()
        .map(|arg| {
            (arg.name.as_str(), arg.description.as_deref(), arg.value.as_deref(), arg.range.line_first)
        })
        .collect();
    assert_eq!(
        args,
        [
            ("BASE", Some("is what all is built on"), Some("alpine"), 2),
            ("MODE", Some("says how"), Some("slow"), 7)
        ]
    );
    let mounts = [&outline.secrets, &outline.ssh, &outline.caches]
        .map(|mounts| mounts.iter().map(|mount| (mount.id.as_str(), mount.required)).collect::<Vec<_>>());
    assert_eq!(mounts, [vec![("token", true)], vec![("default", false)], vec![("/c", false)]]);
}

#[test]
fn targets_are_the_stages_of_the_file() {
    let targets = rbuild_frontend::targets(OUTLINED.as_bytes()).unwrap();
    let shown: Vec<_> = targets
        .targets
        .iter()
        .map(|target| (target.name.as_str(), target.base.as_str(), target.is_default))
        .collect();
    assert_eq!(shown, [("app", "$BASE", false), ("", "app", true)]);
}

#[test]
fn a_check_looks_at_every_stage() {
    let text = "FROM alpine AS unused\nRUN x\nCMD shell\nFROM scratch\nCOPY $NOPE /\nRUN --network=x y\n";
    let options = Options::new(Platform::new("linux", "amd64", None), CREATED);
    let checked = rbuild_frontend::check(text.as_bytes(), &options, &Fixtures);
    assert_eq!(checked.error.unwrap().range().unwrap().line_first, 6);
    let checked = rbuild_frontend::check(text.replace("--network=x", "").as_bytes(), &options, &Fixtures);
    assert!(checked.error.is_none());
    let rules: Vec<_> = checked.warnings.iter().map(|warning| warning.rule.name()).collect();
    assert_eq!(rules, ["JSONArgsRecommended", "UndefinedVar"]);
}
