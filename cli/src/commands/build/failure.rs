//! A build's errors, with the lines of the Dockerfile to blame, the output of the failed step, and advice.

use rbuild_executor::network::Lack;
use rbuild_frontend::{ErrorKind, Lowered, ResolveErrorKind, Span, Warning, warning_documents};
use rbuild_image::Platform;
use rbuild_llb::SourceRange;
use rbuild_solver::SolveError;
use rbuild_solver::images::ImageError;
use rbuild_solver::local::{GitError, HttpError, WorkerError, file::FileError};
use serde_json::{Value, json};

use super::input::Input;
use super::settings::Settings;
use crate::app;
use crate::progress::{Mode, Progress};
use crate::report::{Excerpt, Failure, Finding, Kind, image_kind, render_findings};

/// Knows where errors come from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Blame<'a> {
    pub(crate) input: &'a Input,
    pub(crate) progress: &'a Progress,
}

impl Blame<'_> {
    /// An error of the Dockerfile itself, or of a base image it names.
    pub(crate) fn frontend(&self, error: &rbuild_frontend::Error) -> Failure {
        let mut failure = Failure::caused_by(Kind::Input, error);
        if let ErrorKind::Resolve { source, .. } = error.kind() {
            failure.kind = resolve_kind(source);
            if source.kind == ResolveErrorKind::NotFound {
                failure = failure.hint(
                    "`rbuild images` lists what the store has; `rbuild import` makes an image from a tar",
                );
            }
        }
        if let ErrorKind::EpochSource { source } = error.kind()
            && let Some(source) = source.downcast_ref::<WorkerError>()
        {
            failure = worker(source).while_doing("failed to resolve SOURCE_DATE_EPOCH");
        }
        failure.excerpt = error.range().map(|range| self.excerpt(range, error.span().cloned()));
        if let ErrorKind::Lint { warnings } = error.kind() {
            failure.excerpt = None;
            failure.findings = self.lint(warnings);
        }
        if let Some(similar) = error.similar()
            && !failure.message.contains("did you mean")
        {
            failure = failure.hint(format!("did you mean `{similar}`?"));
        }
        failure
    }

    /// The same in a build, which shows as well what lint found before.
    pub(crate) fn frontend_in_build(&self, error: &rbuild_frontend::Error, settings: &Settings) -> Failure {
        let mut failure = self.frontend(error);
        if failure.findings.is_empty() && shows_findings(settings) {
            failure.findings = self.lint(error.warnings());
        }
        failure
    }

    /// An error of a step, or of what surrounds the steps.
    pub(crate) fn solve(&self, error: SolveError<WorkerError>) -> Failure {
        match error {
            SolveError::Cancelled => Failure::new(Kind::Cancelled, "cancelled"),
            SolveError::Vertex { vertex, range, source, .. } => {
                let mut failure = worker(&source);
                failure.excerpt = range.map(|range| self.excerpt(range, self.path_to_blame(&source, range)));
                failure.tail = self.progress.tail(vertex);
                failure
            }
            SolveError::NotAllowed { entitlement, range } => {
                let mut failure = Failure::caused_by(Kind::Input, &error);
                failure.excerpt = range.map(|range| self.excerpt(range, None));
                failure.hint(format!("`--allow {entitlement}` allows it"))
            }
            SolveError::Lookup { source } => worker(&source),
            error @ SolveError::MissingOutput { .. } => Failure::caused_by(Kind::Internal, &error),
        }
    }

    /// What is to be said of a Dockerfile that builds, when that is done.
    pub(crate) fn warnings(&self, lowered: &[Lowered], settings: &Settings) -> String {
        match settings.progress {
            _ if settings.quiet => String::new(),
            Mode::RawJson => match self.warning_documents(lowered) {
                documents if documents.is_empty() => String::new(),
                documents => format!("{}\n", json!({ "warnings": documents })),
            },
            _ => render_findings(&self.findings(lowered), app::color()),
        }
    }

    /// The same for programs.
    pub(crate) fn warning_documents(&self, lowered: &[Lowered]) -> Vec<Value> {
        let Input { dockerfile, dockerfile_name, .. } = self.input;
        warning_documents(&distinct_warnings(lowered), dockerfile_name, dockerfile)
    }

    /// What is to be said of a Dockerfile before the failure of its build.
    pub(crate) fn findings_shown(&self, lowered: &[Lowered], settings: &Settings) -> Vec<Finding> {
        if shows_findings(settings) { self.findings(lowered) } else { Vec::new() }
    }

    fn findings(&self, lowered: &[Lowered]) -> Vec<Finding> {
        let mut findings = self.lint(&distinct_warnings(lowered));
        let unused = |name: &&String| lowered.iter().all(|lowered| lowered.unused_build_args.contains(name));
        let of_first = lowered.first().map_or(&[][..], |lowered| &lowered.unused_build_args);
        let unused: Vec<&str> = of_first.iter().filter(unused).map(String::as_str).collect();
        if !unused.is_empty() {
            let names = unused.join(" ");
            findings.push(Finding::new(format!("One or more build-args [{names}] were not consumed")));
        }
        findings
    }

    /// What lint found, in the order of the file.
    fn lint(&self, warnings: &[Warning]) -> Vec<Finding> {
        let mut warnings: Vec<&Warning> = warnings.iter().collect();
        warnings.sort_by_key(|warning| warning.range.line_first);
        let finding = |warning: &Warning| Finding {
            message: warning.message.clone(),
            rule: Some(warning.rule.name()),
            url: warning.rule.url(),
            excerpt: Some(self.excerpt(warning.range, None)),
        };
        warnings.into_iter().map(finding).collect()
    }

    /// Where an instruction names the file that is not there.
    fn path_to_blame(&self, error: &WorkerError, range: SourceRange) -> Option<Span> {
        let WorkerError::File(FileError::NotFound { path, .. }) = error else { return None };
        let text = self.input.dockerfile_text();
        [path.as_str(), path.trim_start_matches('/')].iter().find_map(|path| Span::find(&text, range, path))
    }

    fn excerpt(&self, range: SourceRange, span: Option<Span>) -> Box<Excerpt> {
        let text = self.input.dockerfile_text().into_owned();
        Box::new(Excerpt { path: self.input.dockerfile_name.clone(), text, range, span })
    }
}

/// Whether findings are for people: programs that asked for documents read none of a build that fails.
fn shows_findings(settings: &Settings) -> bool {
    !settings.quiet && settings.progress != Mode::RawJson
}

/// What lint found, once for all platforms.
fn distinct_warnings(lowered: &[Lowered]) -> Vec<Warning> {
    let mut warnings: Vec<Warning> = Vec::new();
    for warning in lowered.iter().flat_map(|lowered| &lowered.warnings) {
        if !warnings.contains(warning) {
            warnings.push(warning.clone());
        }
    }
    warnings
}

fn resolve_kind(error: &rbuild_frontend::ResolveError) -> Kind {
    error.source.downcast_ref::<ImageError>().map_or(Kind::Remote, image_kind)
}

/// What to say when steps wanted a network of their own and the machine has none for them.
pub(crate) fn network_warning(lack: Option<&Lack>, settings: &Settings) -> String {
    match lack {
        Some(lack) if !settings.quiet => {
            let had =
                if settings.steps.may_use_host_network() { "the machine's network" } else { "no network" };
            format!("warning: steps had {had} instead of one of their own: {lack}\n")
        }
        _ => String::new(),
    }
}

/// A step that fails for want of a network should not leave its user to guess.
pub(crate) fn without_network(failure: Failure, lack: Option<&Lack>, settings: &Settings) -> Failure {
    match (lack, failure.kind) {
        (Some(lack), Kind::Step) if !settings.steps.may_use_host_network() => failure
            .hint(format!("the step had no network of its own: {lack}"))
            .hint("`--allow network.host` lets steps use the machine's then, `--network host` always"),
        _ => failure,
    }
}

/// An error of the worker, whoever asked it.
pub(crate) fn worker(error: &WorkerError) -> Failure {
    let kind = match error {
        WorkerError::Step(_) => Kind::Step,
        WorkerError::Executor(cause) if cause.is_foreign_program() => return foreign_program(error),
        WorkerError::Executor(error) if error.exit_code().is_some() => Kind::Step,
        WorkerError::Executor(rbuild_executor::Error::User(_)) => Kind::Step,
        WorkerError::Executor(rbuild_executor::Error::Cancelled) | WorkerError::Cancelled => Kind::Cancelled,
        error if error.is_change() => {
            return Failure::caused_by(Kind::Environment, error)
                .hint("a build takes files as they are when it begins: let what writes them end first");
        }
        WorkerError::File(error) => return file(error),
        WorkerError::Image(error) => image_kind(error),
        WorkerError::Git(error) => return git(error),
        WorkerError::Http(HttpError::Fetch(error)) => return fetch(error),
        WorkerError::Http(_) | WorkerError::SecretNotText { .. } => Kind::Input,
        WorkerError::SharedCache { .. } => Kind::Remote,
        WorkerError::SecretNotFound { id } => {
            return Failure::caused_by(Kind::Input, error)
                .hint(format!("`--secret id={id},src=FILE` gives it"));
        }
        WorkerError::SshNotFound { id } => {
            return Failure::caused_by(Kind::Input, error).hint(format!("`--ssh {id}` gives it"));
        }
        WorkerError::Secret(_) | WorkerError::NoFileSystem | WorkerError::ResultMissing { .. } => Kind::Input,
        WorkerError::Pattern(_) | WorkerError::Unsupported { .. } => Kind::Input,
        WorkerError::UnknownContext { .. } | WorkerError::UnknownLayout { .. } => Kind::Internal,
        WorkerError::Executor(_)
        | WorkerError::Store(_)
        | WorkerError::ContextChanged { .. }
        | WorkerError::Digest(_)
        | WorkerError::Path(_)
        | WorkerError::Io { .. }
        | WorkerError::NeedsNamespaces { .. } => Kind::Environment,
    };
    Failure::caused_by(kind, error)
}

fn foreign_program(error: &WorkerError) -> Failure {
    let platform = Platform::host();
    Failure::caused_by(Kind::Step, error).hint(format!(
        "a program for another platform than this machine's, {platform}, runs only where an emulator for it is registered \
         with binfmt_misc (Debian's package: qemu-user-static)"
    ))
}

fn git(error: &GitError) -> Failure {
    let kind = match error {
        GitError::NotInstalled | GitError::Run { .. } | GitError::Failed { .. } => Kind::Environment,
        GitError::Fetch { .. } | GitError::Offline { .. } => Kind::Remote,
        _ => Kind::Input,
    };
    let failure = Failure::caused_by(kind, error);
    match error {
        GitError::NotInstalled => failure.hint("install git: on Debian, `apt-get install git`"),
        GitError::NoAgent { id } => failure.hint(format!("`--ssh {id}` forwards the agent of SSH_AUTH_SOCK")),
        GitError::Fetch { remote, .. } if remote.starts_with("http") => {
            failure.hint("a private repository needs `--secret id=GIT_AUTH_TOKEN,env=…`")
        }
        _ => failure,
    }
}

fn fetch(error: &rbuild_registry::Error) -> Failure {
    let kind = match error {
        rbuild_registry::Error::Url { .. } | rbuild_registry::Error::Header { .. } => Kind::Input,
        rbuild_registry::Error::Sink { .. } => Kind::Environment,
        _ => Kind::Remote,
    };
    let failure = Failure::caused_by(kind, error);
    match error.status() {
        Some(401 | 403) => {
            failure.hint("`--secret id=HTTP_AUTH_TOKEN_<host>,env=…` gives rbuild a token for the host")
        }
        _ => failure,
    }
}

/// A file op fails for what the Dockerfile and the context say, or for the disk.
fn file(error: &FileError) -> Failure {
    let kind = match error {
        FileError::Cancelled => Kind::Cancelled,
        FileError::Path(_) => Kind::Environment,
        FileError::Unpack { source: rbuild_cache::layer::Error::Path(_), .. } => Kind::Environment,
        _ => Kind::Input,
    };
    let failure = Failure::caused_by(kind, error);
    match error {
        FileError::NotFound { ignored: true, .. } => {
            failure.hint("it is there, but `.dockerignore` excludes it")
        }
        FileError::NotFound { similar, .. } => match similar.first() {
            Some(similar) => failure.hint(format!("did you mean `{similar}`?")),
            None => failure,
        },
        _ => failure,
    }
}
