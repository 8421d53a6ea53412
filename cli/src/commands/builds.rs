//! `rbuild builds`: the builds that were, what their steps printed, and forgetting them.

use std::io::{self, IsTerminal, Write};

use rbuild_cache::Origin;
use rbuild_cache::builds::LogStream;
use serde_json::{Value, json};

use super::print;
use crate::app::{App, unix_now};
use crate::args::{BuildsCommand, BuildsLsArgs, BuildsRmArgs, FormatArg, InspectBuildArgs, StepArgs};
use crate::format::{ago, rfc3339_ns, shorten, table};
use crate::history::find::{self, Found};
use crate::history::{BuildDocument, BuildOutcome, StepDocument, StepState, why};
use crate::progress::LineBuffer;
use crate::report::{Failure, Kind};

/// How much of an id is shown: enough to tell the builds of a history apart.
const ID_CHARS: usize = 12;
const NAME_CHARS_MAX: usize = 40;

pub(crate) fn run(app: &App, command: &BuildsCommand) -> Result<u8, Failure> {
    match command {
        BuildsCommand::Ls(args) => ls(app, args),
        BuildsCommand::Inspect(args) => inspect(app, args),
        BuildsCommand::Logs(args) => logs(app, args),
        BuildsCommand::Rm(args) => rm(app, args),
    }
    .map(|()| 0)
}

fn ls(app: &App, args: &BuildsLsArgs) -> Result<(), Failure> {
    let builds = find::all(app.store()?)?;
    if args.format == FormatArg::Json {
        let lines: String = builds.iter().map(|found| format!("{}\n", summary(found))).collect();
        return print(&lines);
    }
    let header = ["BUILD ID", "NAME", "STATUS", "STEPS", "CREATED", "DURATION"].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = std::iter::once(header).chain(builds.iter().map(row)).collect();
    print(&table(&rows))
}

fn row(found: &Found) -> Vec<String> {
    let document = &found.document;
    let (cached, total) = counts(document);
    vec![
        found.name.id().chars().take(ID_CHARS).collect(),
        shorten(&document.name, NAME_CHARS_MAX),
        status(&document.outcome).to_owned(),
        format!("{total} ({cached} cached)"),
        ago(unix_now(), document.started_ms / 1000),
        document
            .ended_ms
            .map_or_else(String::new, |ended| seconds(ended.saturating_sub(document.started_ms))),
    ]
}

/// The steps that a person wrote: those that did not run, and all.
fn counts(document: &BuildDocument) -> (usize, usize) {
    let cached = document.shown_steps().filter(|step| step.state == StepState::Cached).count();
    (cached, document.shown_steps().count())
}

const fn status(outcome: &BuildOutcome) -> &'static str {
    match outcome {
        BuildOutcome::Running => "running",
        BuildOutcome::Completed => "completed",
        BuildOutcome::Failed(_) => "failed",
        BuildOutcome::Cancelled => "cancelled",
        BuildOutcome::Died => "died",
    }
}

fn summary(found: &Found) -> Value {
    let document = &found.document;
    let (cached, total) = counts(document);
    let time = |ms: i64| rfc3339_ns(ms.saturating_mul(1_000_000));
    json!({
        "id": found.name.id(),
        "name": document.name,
        "status": status(&document.outcome),
        "error": match &document.outcome {
            BuildOutcome::Failed(error) => Some(error),
            _ => None,
        },
        "context": document.context,
        "dockerfile": document.dockerfile,
        "target": document.target,
        "started": time(document.started_ms),
        "ended": document.ended_ms.map(time),
        "steps_total": total,
        "steps_cached": cached,
    })
}

fn inspect(app: &App, args: &InspectBuildArgs) -> Result<(), Failure> {
    let found = find::build(app.store()?, args.build.as_deref())?;
    if args.format == FormatArg::Json {
        let mut value = summary(&found);
        value["steps"] = found.document.steps.iter().map(step_json).collect();
        return print(&format!("{value:#}\n"));
    }
    let document = &found.document;
    let mut text = String::new();
    for (name, value) in [
        ("Build", found.name.id().to_owned()),
        ("Name", document.name.clone()),
        ("Context", document.context.clone()),
        ("Dockerfile", document.dockerfile.clone()),
        ("Target", document.target.clone().unwrap_or_default()),
        ("Started", rfc3339_ns(document.started_ms.saturating_mul(1_000_000))),
        ("Status", status(&document.outcome).to_owned()),
        (
            "Error",
            if let BuildOutcome::Failed(error) = &document.outcome { error.clone() } else { String::new() },
        ),
    ] {
        if !value.is_empty() {
            text.push_str(&format!("{:12}{value}\n", format!("{name}:")));
        }
    }
    let header = ["#", "STEP", "STATUS", "DURATION", "WHY"].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> =
        std::iter::once(header).chain(document.steps_as_shown().into_iter().map(step_row)).collect();
    print(&format!("{text}\n{}", table(&rows)))
}

/// A step as programs read it, with the reasons in words as well.
pub(crate) fn step_json(step: &StepDocument) -> Value {
    let mut value = serde_json::to_value(step).unwrap_or_default();
    value["why"] = why(step).into();
    value
}

fn step_row(step: &StepDocument) -> Vec<String> {
    vec![
        step.number.map_or_else(String::new, |number| number.to_string()),
        shorten(&step.name, 60),
        match &step.state {
            StepState::Waiting => "not reached",
            StepState::Cached => "cached",
            StepState::Running => "running",
            StepState::Completed => "done",
            StepState::Failed(_) => "failed",
            StepState::Cancelled => "cancelled",
        }
        .to_owned(),
        step.duration_ms.map_or_else(String::new, seconds),
        shorten(&why(step).join("; "), 80),
    ]
}

fn seconds(ms: i64) -> String {
    format!("{}.{}s", ms / 1000, ms % 1000 / 100)
}

/// All steps that printed something, or one. What a step printed that did not run is what it printed when it did.
fn logs(app: &App, args: &StepArgs) -> Result<(), Failure> {
    let store = app.store()?;
    let (found, word) = find::build_and_step(store, &args.words)?;
    let steps: Vec<&StepDocument> = match word {
        Some(word) => vec![find::step(&found.document, word)?],
        None => found.document.steps_as_shown(),
    };
    let is_one = word.is_some();
    for step in steps {
        let own = || Origin { build: found.name.clone(), step: step.vertex.0 };
        let Some(log) = store.builds().log(&step.origin().unwrap_or_else(own))? else { continue };
        if !is_one {
            let number = step.number.map_or_else(String::new, |number| format!("#{number} "));
            print(&format!("{number}{}\n", step.name))?;
        }
        let second = if is_one { Shown::new(io::stderr()) } else { Shown::new(io::stdout()) };
        let mut streams = [Shown::new(io::stdout()), second];
        for chunk in log {
            let chunk = chunk.map_err(|error| {
                Failure::new(Kind::Environment, format!("failed to read the log of `{}`: {error}", step.name))
            })?;
            let stream = usize::from(chunk.stream == LogStream::Stderr);
            if streams[stream].write(&chunk.bytes).is_err() {
                // The reader went away.
                return Ok(());
            }
        }
        if streams.iter_mut().try_for_each(Shown::finish).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Where a stream of a step goes: as it was, or on a terminal as lines that do not steer it, as they were shown when the step ran.
struct Shown {
    out: Box<dyn Write>,
    lines: Option<LineBuffer>,
}

impl Shown {
    fn new(out: impl Write + IsTerminal + 'static) -> Self {
        Self { lines: out.is_terminal().then(LineBuffer::default), out: Box::new(out) }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.lines {
            None => self.out.write_all(bytes),
            Some(lines) => lines.push(bytes).iter().try_for_each(|line| writeln!(self.out, "{line}")),
        }
    }

    /// The line that was begun.
    fn finish(&mut self) -> io::Result<()> {
        let rest = self.lines.as_mut().and_then(LineBuffer::flush);
        rest.map_or(Ok(()), |line| writeln!(self.out, "{line}"))
    }
}

fn rm(app: &App, args: &BuildsRmArgs) -> Result<(), Failure> {
    let store = app.store()?;
    if args.all {
        // Those that run stay.
        return Ok(store
            .builds()
            .names()?
            .iter()
            .try_for_each(|name| store.builds().remove(name).map(drop))?);
    }
    for word in &args.builds {
        let found = find::build(store, Some(word))?;
        if !store.builds().remove(&found.name)? {
            return Err(Failure::new(Kind::Input, format!("build `{word}` is running")));
        }
        print(&format!("{}\n", found.name.id()))?;
    }
    Ok(())
}
