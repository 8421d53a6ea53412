//! Names and values on the command line: build arguments, from flags, files and the environment, and labels.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::proxy;
use crate::args::BuildArgs;
use crate::commands::io_failure;
use crate::report::{Failure, Kind};

/// Reads a variable of the environment.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Every build argument that has a value. Flags are before files, and both before the environment and Docker's
/// configuration.
///
/// # Errors
/// When a file cannot be read or an argument has no name.
pub(super) fn read(
    args: &BuildArgs,
    config: Option<&Path>,
    environment: Environment<'_>,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut values = BTreeMap::new();
    for path in &args.build_arg_files {
        for line in lines(path)? {
            set(&mut values, &line, environment)?;
        }
    }
    for arg in &args.build_args {
        set(&mut values, arg, environment)?;
    }
    if let Some(seconds) = args.timestamp {
        values.insert(EPOCH.to_owned(), seconds.to_string());
    }
    if let Some(epoch) = environment(EPOCH) {
        values.entry(EPOCH.to_owned()).or_insert(epoch);
    }
    if let Some(config) = config {
        proxy::add(&mut values, config);
    }
    Ok(values)
}

/// One time for all that is made, Unix seconds. A word names what it is the age of: that is for the frontend to find.
pub(super) fn source_date_epoch(values: &BTreeMap<String, String>) -> Option<i64> {
    values.get(EPOCH)?.parse().ok()
}

/// The lines of a file that are neither blank nor a comment.
fn lines(path: &Path) -> Result<Vec<String>, Failure> {
    let text = fs::read_to_string(path).map_err(io_failure("read build arguments", path))?;
    Ok(text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

/// `K=V`, or `K` with its value from the environment; one that is not set there counts as not given.
fn set(
    values: &mut BTreeMap<String, String>,
    arg: &str,
    environment: Environment<'_>,
) -> Result<(), Failure> {
    let (name, value) = arg.split_once('=').map_or((arg, None), |(name, value)| (name, Some(value)));
    if name.is_empty() {
        return Err(Failure::new(Kind::Input, format!("invalid build argument `{arg}`: it has no name")));
    }
    match value.map(str::to_owned).or_else(|| environment(name)) {
        Some(value) => values.insert(name.to_owned(), value),
        None => values.remove(name),
    };
    Ok(())
}

/// `NAME=VALUE`; without a value it is empty.
pub(super) fn label(text: &str) -> Result<(String, String), Failure> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    if name.is_empty() {
        return Err(Failure::new(Kind::Input, format!("invalid label `{text}`: it has no name")));
    }
    Ok((name.to_owned(), value.to_owned()))
}
