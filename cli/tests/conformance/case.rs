//! One case as a file: what it shows, a build context, arguments, and what must come of it. `testdata/conformance/README.md`
//! describes the form.

use std::fs;
use std::path::{Path, PathBuf};

use super::node::Node;

/// A piece of a case: a line `-- HEAD --` and the lines under it.
#[derive(Debug, Clone)]
struct Section {
    head: String,
    body: String,
}

/// A case.
#[derive(Debug)]
pub(super) struct Case {
    path: PathBuf,
    /// What stands above the first section: sentences, and `key: value` lines.
    preamble: String,
    sections: Vec<Section>,
}

/// One build of a case.
#[derive(Debug)]
pub(super) struct Build {
    /// What is written into the context before it.
    pub(super) nodes: Vec<Node>,
    pub(super) arguments: Vec<String>,
}

/// The sections that are not files of the context.
const ARGUMENTS: &str = "arguments";
const AGAIN: &str = "again";
const RESULT: &str = "result";
const ERROR: &str = "error";
const BUILDKIT: &str = "buildkit";

/// What a build comes to, as text that two builders are compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The image.
    Built(String),
    /// What both say of the failure, a line each.
    Failed(String),
}

impl Verdict {
    /// All of it, as lines.
    pub(super) fn lines(&self) -> Vec<String> {
        let (head, text) = match self {
            Self::Built(text) => (None, text),
            Self::Failed(text) => (Some(ERROR.to_owned()), text),
        };
        head.into_iter().chain(text.lines().map(str::to_owned)).collect()
    }

    /// As a user with one single id sees it: all is its own.
    pub(super) fn without_owners(&self) -> Self {
        let is_owner = |word: &&str| word.starts_with("owner=");
        let without = |line: &str| {
            let owner = line.split(' ').find(is_owner).map_or_else(String::new, |owner| format!(" {owner}"));
            line.replacen(&owner, "", 1) + "\n"
        };
        match self {
            Self::Built(text) => Self::Built(text.lines().map(without).collect()),
            Self::Failed(text) => Self::Failed(text.clone()),
        }
    }
}

impl Case {
    /// Reads a case.
    pub(super) fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let mut preamble = String::new();
        let mut sections: Vec<Section> = Vec::new();
        for line in text.split_inclusive('\n') {
            let head = line.trim_end().strip_prefix("-- ").and_then(|rest| rest.strip_suffix(" --"));
            match (head, sections.last_mut()) {
                (Some(head), _) => sections.push(Section { head: head.to_owned(), body: String::new() }),
                (None, Some(section)) => section.body.push_str(line),
                (None, None) => preamble.push_str(line),
            }
        }
        Self { path: path.to_owned(), preamble, sections }
    }

    /// `copy/directory-contents`.
    pub(super) fn name(&self) -> String {
        let topic = self.path.parent().unwrap().file_name().unwrap();
        Path::new(topic).join(self.path.file_stem().unwrap()).to_str().unwrap().to_owned()
    }

    /// The value of a `key: value` line of the preamble.
    fn fact(&self, key: &str) -> Option<&str> {
        self.preamble.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
    }

    /// Whether only root can set the case up.
    pub(super) fn needs_root(&self) -> bool {
        self.fact("needs").is_some_and(|needs| needs.contains("root"))
    }

    /// Whether a step becomes another user, gives files to one, or tells of owners.
    pub(super) fn needs_ids(&self) -> bool {
        self.fact("needs").is_some_and(|needs| needs.contains("ids"))
    }

    /// Whether an engine may be too old for it.
    pub(super) fn is_newer(&self) -> bool {
        self.fact("frontend").is_some()
    }

    /// Why BuildKit is meant to come to something else.
    pub(super) fn differs(&self) -> Option<&str> {
        self.fact("differs")
    }

    /// The paths whose times the semantics fix.
    pub(super) fn mtimes(&self) -> Vec<&str> {
        self.fact("mtimes").into_iter().flat_map(str::split_whitespace).collect()
    }

    /// The builds, one after the other: one or two.
    pub(super) fn builds(&self) -> Vec<Build> {
        let inputs = self.sections.iter().filter(|section| !is_expectation(&section.head));
        let inputs: Vec<&Section> = inputs.collect();
        let build = |sections: &[&Section]| Build {
            nodes: sections.iter().filter(|section| section.head != ARGUMENTS).map(|it| it.node()).collect(),
            arguments: sections
                .iter()
                .filter(|section| section.head == ARGUMENTS)
                .flat_map(|section| section.body.lines().map(str::to_owned))
                .collect(),
        };
        inputs.split(|section| section.head == AGAIN).map(build).collect()
    }

    fn section(&self, head: &str) -> Option<&str> {
        self.sections.iter().find(|section| section.head == head).map(|section| section.body.as_str())
    }

    /// What rbuild came to when it agreed with BuildKit.
    pub(super) fn expected(&self) -> Option<Verdict> {
        let built = self.section(RESULT).map(|text| Verdict::Built(text.to_owned()));
        built.or_else(|| self.section(ERROR).map(|text| Verdict::Failed(text.to_owned())))
    }

    /// How BuildKit's verdict differs, where it is meant to.
    pub(super) fn difference(&self) -> &str {
        self.section(BUILDKIT).unwrap_or_default()
    }

    /// Writes what was found into the file.
    pub(super) fn record(&mut self, verdict: &Verdict, difference: Option<&str>) {
        let (head, body) = match verdict {
            Verdict::Built(text) => (RESULT, text),
            Verdict::Failed(text) => (ERROR, text),
        };
        let keep = |section: &Section| {
            !is_expectation(&section.head) || (difference.is_none() && section.head == BUILDKIT)
        };
        let (mut sections, mut kept): (Vec<_>, Vec<_>) =
            self.sections.drain(..).filter(keep).partition(|section| section.head != BUILDKIT);
        sections.push(Section { head: head.to_owned(), body: body.clone() });
        if let Some(difference) = difference.filter(|difference| !difference.is_empty()) {
            kept.push(Section { head: BUILDKIT.to_owned(), body: difference.to_owned() });
        }
        sections.append(&mut kept);
        self.sections = sections;
        let sections =
            self.sections.iter().map(|section| format!("-- {} --\n{}", section.head, section.body));
        fs::write(&self.path, self.preamble.clone() + &sections.collect::<String>()).unwrap();
    }
}

impl Section {
    fn node(&self) -> Node {
        Node::parse(&self.head, &self.body)
    }
}

/// Whether a section says what comes of the case, not what goes into it.
fn is_expectation(head: &str) -> bool {
    matches!(head, RESULT | ERROR | BUILDKIT)
}
