//! `rbuild system`: looks after the store.

use rbuild_cache::{CheckReport, Problem, set_damaged_metadata_aside};

use super::print;
use crate::app::App;
use crate::args::{SystemCheckArgs, SystemCommand};
use crate::format::size;
use crate::report::{Failure, Kind};

pub(crate) fn run(app: &App, command: &SystemCommand) -> Result<u8, Failure> {
    match command {
        SystemCommand::Check(args) => check(app, args),
    }
}

fn check(app: &App, args: &SystemCheckArgs) -> Result<u8, Failure> {
    if !args.repair {
        return finish(&app.store()?.check(app.pool()?)?);
    }
    if app.root().exists()
        && let Some(aside) = set_damaged_metadata_aside(app.root())?
    {
        print(&format!(
            "the metadata was damaged: it is kept as `{}`, and all is forgotten\n",
            aside.display()
        ))?;
    }
    let (found, report) = app.store()?.repair(app.pool()?)?;
    let repaired: Vec<&Problem> = found.iter().filter(|problem| !report.problems.contains(problem)).collect();
    print(&repaired.iter().map(|problem| format!("repaired: {problem}\n")).collect::<String>())?;
    finish(&report)
}

fn finish(report: &CheckReport) -> Result<u8, Failure> {
    print(&summary(report))?;
    if report.problems.is_empty() {
        return print("the store is sound\n").map(|()| 0);
    }
    print(&report.problems.iter().map(|problem| format!("{problem}\n")).collect::<String>())?;
    let count = report.problems.len();
    let plural = if count == 1 { "" } else { "s" };
    Err(Failure::new(Kind::Environment, format!("{count} problem{plural} in the store"))
        .hint("`rbuild system check --repair` forgets what is damaged, so that it is made or fetched again"))
}

/// What was verified.
fn summary(report: &CheckReport) -> String {
    let CheckReport { blobs, layers, layers_unproven, snapshots, results, images, .. } = report;
    let all = layers + layers_unproven;
    format!(
        "verified {blobs} blobs ({}), {all} layers (the content of {layers}), {snapshots} snapshots, \
         {results} results, {images} images\n",
        size(report.blob_bytes)
    )
}
