//! From an error to what the user sees: what failed, where in the Dockerfile, what it said last, what to do, and an exit
//! code. The only file that knows exit codes, and the only one that gives advice.
//!
//! ```text
//! error: process "/bin/sh -c make" did not complete successfully: exit code: 2
//!  --> Dockerfile:7:1
//!   |
//! 6 | COPY . .
//! 7 | RUN make
//!   | ^^^^^^^^
//!   = last output:
//!     make: *** No targets.  Stop.
//!   = help: …
//! ```

use std::error::Error as StdError;
use std::io::Write as _;
use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet, Title};
use rbuild_frontend::Span;
use rbuild_llb::SourceRange;
use rbuild_solver::images::ImageError;

use crate::commands::FAILED;

/// What kind of failure it is: what decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A step of the build failed.
    Step,
    /// The command line, the Dockerfile or the context is wrong.
    Input,
    /// The machine or the store is in the way.
    Environment,
    /// A registry or the network failed.
    Remote,
    /// The user asked to stop.
    Cancelled,
    /// A container could not be created or started, in Docker's codes.
    Run(u8),
    /// rbuild is wrong.
    Internal,
}

impl Kind {
    /// The exit code.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Step => 1,
            Self::Input => 2,
            Self::Environment => 3,
            Self::Remote => 4,
            Self::Internal => 70,
            Self::Cancelled => 130,
            Self::Run(code) => code,
        }
    }
}

/// Lines of a file that an error is about, or one word in them.
#[derive(Debug, Clone)]
pub(crate) struct Excerpt {
    /// What the file is called.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
    /// Which lines.
    pub(crate) range: SourceRange,
    /// Which word.
    pub(crate) span: Option<Span>,
}

/// A failure, ready to be shown.
#[derive(Debug, Clone)]
pub(crate) struct Failure {
    /// What kind.
    pub(crate) kind: Kind,
    /// What failed, with its causes.
    pub(crate) message: String,
    /// Where.
    pub(crate) excerpt: Option<Box<Excerpt>>,
    /// What the failed step printed last.
    pub(crate) tail: Vec<String>,
    /// What to do.
    pub(crate) hints: Vec<String>,
    /// What lint found: shown before.
    pub(crate) findings: Vec<Finding>,
}

/// Something that is allowed and probably not meant, ready to be shown.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    /// What is wrong.
    pub(crate) message: String,
    /// The lint rule that was broken.
    pub(crate) rule: Option<&'static str>,
    /// Where the rule is explained.
    pub(crate) url: Option<String>,
    /// Where.
    pub(crate) excerpt: Option<Box<Excerpt>>,
}

impl Finding {
    /// A finding without place and rule.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), rule: None, url: None, excerpt: None }
    }

    fn render(&self, color: bool) -> String {
        let window = self.excerpt.as_deref().map(|excerpt| Window::of(excerpt, 0));
        let mut title = Level::WARNING.primary_title(&self.message);
        if let Some(rule) = self.rule {
            title = title.id(rule);
        }
        let mut group = with_place(title, window.as_ref());
        if let Some(url) = &self.url {
            group = group.element(Level::NOTE.no_name().message(url));
        }
        rendered(group, color)
    }
}

/// How many lines around the ones to blame an error shows.
const CONTEXT_LINES: u32 = 2;

/// The kernel's and SQLite's words for it.
const FULL_DISK_TEXTS: [&str; 2] = ["No space left on device", "database or disk is full"];
/// How the failure begins when rbuild's own output cannot be written.
pub(crate) const OUTPUT_LOST: &str = "failed to write to standard ";
const FULL_DISK_HINT: &str =
    "the disk is full: `rbuild rmi` removes images, `--root` names another place for the store";

impl Failure {
    /// A failure without place and advice.
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            excerpt: None,
            tail: Vec::new(),
            hints: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// A failure that an error of a library caused: its message and those of its causes.
    pub(crate) fn caused_by(kind: Kind, error: &(dyn StdError + 'static)) -> Self {
        Self::new(kind, chain(error))
    }

    /// Adds advice.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Says what was being done.
    #[must_use]
    pub(crate) fn while_doing(mut self, what: &str) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    /// The failure as text, ending in a newline.
    pub(crate) fn render(&self, color: bool) -> String {
        let window = self.excerpt.as_deref().map(|excerpt| Window::of(excerpt, CONTEXT_LINES));
        let title = Level::ERROR.primary_title(&self.message);
        let mut group = with_place(title, window.as_ref());
        let tail = (!self.tail.is_empty()).then(|| format!("last output:\n{}", self.tail.join("\n")));
        if let Some(tail) = &tail {
            group = group.element(Level::NOTE.no_name().message(tail));
        }
        for hint in self.hints.iter().map(String::as_str).chain(self.full_disk_hint()) {
            group = group.element(Level::HELP.message(hint));
        }
        rendered(group, color)
    }

    /// A full disk shows up in every kind of error, and in what steps print; what to do about it is always the same, unless it is the one
    /// that rbuild's own output goes to.
    fn full_disk_hint(&self) -> Option<&'static str> {
        if self.message.starts_with(OUTPUT_LOST) {
            return None;
        }
        let tells = |line: &String| FULL_DISK_TEXTS.iter().any(|text| line.contains(text));
        (tells(&self.message) || self.tail.iter().any(tells)).then_some(FULL_DISK_HINT)
    }

    /// Shows the failure on standard error.
    pub(crate) fn show(&self, color: bool) {
        if self.kind == Kind::Cancelled {
            return eprint("cancelled\n");
        }
        let mut text = render_findings(&self.findings, color) + &self.render(color);
        if self.kind == Kind::Internal {
            text.push_str(
                "this is a bug in rbuild: please report it with the command and the output above\n",
            );
        }
        eprint(&text);
    }
}

/// Findings as text, with their number at the end; nothing when there are none.
pub(crate) fn render_findings(findings: &[Finding], color: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        text.push('\n');
        text.push_str(&finding.render(color));
    }
    match findings.len() {
        0 => {}
        1 => text.push_str("\n1 warning found\n"),
        count => text.push_str(&format!("\n{count} warnings found\n")),
    }
    text
}

fn with_place<'a>(title: Title<'a>, window: Option<&'a Window>) -> Group<'a> {
    match window {
        Some(window) => title.element(window.snippet()),
        None => Group::with_title(title),
    }
}

fn rendered(group: Group<'_>, color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    // The renderer shows all other control characters, but leaves these, which terminals take for the beginning of sequences.
    let is_c1 = |c: char| matches!(c, '\u{80}'..='\u{9f}');
    renderer.render(&[group]).replace(is_c1, "\u{fffd}") + "\n"
}

/// Writes to standard error. That it is closed is no reason to fail.
pub(crate) fn eprint(text: &str) {
    drop(std::io::stderr().write_all(text.as_bytes()));
}

/// A part of a file around the lines to blame.
struct Window {
    path: String,
    text: String,
    line_first: u32,
    span: Range<usize>,
}

impl Window {
    /// The lines to blame, with some around them.
    fn of(excerpt: &Excerpt, context_lines: u32) -> Self {
        let range = excerpt.span.as_ref().map_or(excerpt.range, |span| SourceRange::line(span.line));
        let first = range.line_first.saturating_sub(context_lines).max(1);
        let last = range.line_last.saturating_add(context_lines);
        let mut text = String::new();
        let mut marked: Option<Range<usize>> = None;
        let lines = excerpt.text.trim_start_matches('\u{feff}').lines();
        for (number, line) in (1u32..).zip(lines).skip_while(|(number, _)| *number < first) {
            if number > last {
                break;
            }
            let at = text.len();
            text.push_str(&line.replace('\t', " "));
            if (range.line_first..=range.line_last).contains(&number) {
                let line = at..text.len();
                marked = Some(marked.map_or(line.start, |marked| marked.start)..line.end);
            }
            text.push('\n');
        }
        let mut marked = marked.unwrap_or(0..0);
        if let Some(span) = &excerpt.span {
            marked = columns_of(&text, &marked, &span.columns);
        }
        Self { path: excerpt.path.clone(), text, line_first: first, span: marked }
    }

    fn snippet(&self) -> Snippet<'_, Annotation<'_>> {
        Snippet::source(&self.text)
            .line_start(self.line_first as usize)
            .path(&self.path)
            .fold(false)
            .annotation(AnnotationKind::Primary.span(self.span.clone()))
    }
}

/// The bytes of some columns of a line.
fn columns_of(text: &str, line: &Range<usize>, columns: &Range<u32>) -> Range<usize> {
    let byte = |column: u32| {
        let ends = text[line.clone()].char_indices().map(|(at, _)| line.start + at);
        ends.chain([line.end]).nth(column.saturating_sub(1) as usize).unwrap_or(line.end)
    };
    byte(columns.start)..byte(columns.end)
}

/// An error and its causes in one line, without saying anything twice: some messages already hold their cause's.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = error.source();
    }
    message
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Self {
        let kind = image_kind(&error);
        let failure = Self::caused_by(kind, &error);
        match &error {
            ImageError::NotFound { .. } => failure.hint("`rbuild images` lists what there is"),
            ImageError::NotPulled { .. } => failure.hint("`rbuild pull` fetches an image"),
            ImageError::Ambiguous { .. } => failure.hint("more digits tell them apart"),
            _ => failure,
        }
    }
}

/// Who is to blame for an error with images.
pub(crate) fn image_kind(error: &ImageError) -> Kind {
    match error {
        ImageError::Cancelled => Kind::Cancelled,
        ImageError::Import(rbuild_cache::layer::Error::Path(_)) => Kind::Environment,
        ImageError::Registry(rbuild_registry::Error::Cancelled) => Kind::Cancelled,
        ImageError::Registry(_)
        | ImageError::NoPlatform { .. }
        | ImageError::LayerCount { .. }
        | ImageError::Unpack { .. } => Kind::Remote,
        // As Docker.
        ImageError::NotFound { .. } | ImageError::Ambiguous { .. } => FAILED,
        ImageError::ScannedStatement { .. } | ImageError::ScannedProvenance { .. } => Kind::Step,
        ImageError::NotPulled { .. }
        | ImageError::OtherArtifact { .. }
        | ImageError::Import(_)
        | ImageError::NotAnArchive
        | ImageError::DamagedArchive { .. }
        | ImageError::ArchiveEntry { .. }
        | ImageError::ArchiveLink { .. }
        | ImageError::ArchiveTag { .. }
        | ImageError::ArchiveDocument { .. } => Kind::Input,
        ImageError::MissingDocument { .. }
        | ImageError::MissingLayer { .. }
        | ImageError::Document { .. }
        | ImageError::Statement { .. }
        | ImageError::Io { .. }
        | ImageError::Path(_)
        | ImageError::Store(_) => Kind::Environment,
    }
}

impl From<rbuild_cache::Error> for Failure {
    fn from(error: rbuild_cache::Error) -> Self {
        let failure = Self::caused_by(Kind::Environment, &error);
        if error.is_damaged_metadata() {
            return failure.hint("`rbuild system check --repair` begins the store's metadata anew");
        }
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_shows_place_output_and_help() {
        let text = "FROM busybox\nCOPY . .\nRUN make \\\n  all\nCMD sh\n";
        let failure = Failure {
            kind: Kind::Step,
            message: "process \"make all\" did not complete successfully: exit code: 2".into(),
            excerpt: Some(Box::new(Excerpt {
                path: "Dockerfile".into(),
                text: text.into(),
                range: SourceRange { line_first: 3, line_last: 4 },
                span: None,
            })),
            tail: vec!["make: *** No targets.  Stop.".into()],
            hints: vec!["add a Makefile".into()],
            findings: Vec::new(),
        };
        let shown = failure.render(false);
        for part in
            ["error: process", "--> Dockerfile:3", "RUN make", "last output:", "No targets", "help: add a"]
        {
            assert!(shown.contains(part), "no {part:?} in\n{shown}");
        }
    }

    #[test]
    fn causes_are_not_repeated() {
        let inner = std::io::Error::other("disk is full");
        let outer = ImageError::Io { verb: "write", subject: "the archive".into(), source: inner };
        assert_eq!(chain(&outer), "failed to write the archive: disk is full");
    }
}
