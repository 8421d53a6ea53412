//! The end: times, labels, and the parts put together.

use std::collections::HashSet;

use rbuild_image::ContainerConfig;

use super::Lowerer;
use super::epoch::Epoch;
use crate::error::{Error, ErrorKind};
use crate::expand::Variables;
use crate::instruction::Instruction;
use crate::options::Options;
use crate::stage::StageId;
use crate::{Lowered, args};

/// The last second of the year 9999, after which RFC 3339 has no dates.
const EPOCH_MAX: i64 = 253_402_300_799;

/// The times that a build gives to what it makes.
#[derive(Debug, Clone)]
pub(super) struct Times {
    /// What config and history say, RFC 3339.
    pub(super) created: Option<String>,
    /// `SOURCE_DATE_EPOCH`, wherever it was set.
    pub(super) epoch: Option<i64>,
    /// The time of files that the build makes, Unix nanoseconds. A global ARG alone does not set it.
    pub(super) file_ns: Option<i64>,
}

impl Times {
    pub(super) fn new(options: &Options, epoch: Epoch) -> Result<Self, Error> {
        let created = match epoch.all {
            Some(epoch) => Some(rfc3339(epoch)?),
            None => (!options.created.is_empty()).then(|| options.created.clone()),
        };
        let file_ns = epoch.given.and_then(|seconds| seconds.checked_mul(1_000_000_000));
        Ok(Self { created, epoch: epoch.all, file_ns })
    }
}

fn rfc3339(seconds: i64) -> Result<String, Error> {
    if !(0..=EPOCH_MAX).contains(&seconds) {
        return Err(ErrorKind::Epoch { value: seconds.to_string() }.into());
    }
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    Ok(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60))
}

/// The date of a day counted from 1970-01-01, after Howard Hinnant's algorithm: years begin in March, so that the
/// leap day is a year's last.
const fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

/// Completes the config of the target and ends the graph.
pub(super) fn finish(mut lowerer: Lowerer<'_>, target: StageId) -> Result<Lowered, Error> {
    lowerer.linter.verdict()?;
    let state = lowerer.done.remove(&target).expect("the target is reachable from itself");
    lowerer.fill_follow_paths();
    let unused_build_args = unused_build_args(&lowerer);
    let mut config = state.config;
    config.history = state.history.into_entries();
    overlay(&mut config.config, lowerer.options);
    config.created = lowerer.times.created;
    if !lowerer.options.platform_is_default {
        config.platform = lowerer.options.platform.clone();
    }
    Ok(Lowered {
        definition: lowerer.builder.finish(state.edge).map_err(ErrorKind::Definition)?,
        config,
        history_inherited: state.history_inherited,
        source_date_epoch: lowerer.times.epoch,
        stage: lowerer.graph.stage(target).name.clone(),
        warnings: Vec::new(),
        unused_build_args,
    })
}

/// What the caller sets and unsets after all instructions.
fn overlay(config: &mut ContainerConfig, options: &Options) {
    config.labels.retain(|name, _| !options.unset_labels.contains(name));
    config.labels.extend(options.labels.iter().cloned());
    let name = |pair: &String| pair.split_once('=').map_or(pair.clone(), |(name, _)| name.to_owned());
    config.env.retain(|pair| !options.unset_env.contains(&name(pair)));
}

/// The build arguments that no ARG declares and that mean nothing by themselves. An ARG of a stage that is not built
/// counts as well: the same arguments are given to builds of several targets.
fn unused_build_args(lowerer: &Lowerer<'_>) -> Vec<String> {
    let steps = lowerer.graph.all().into_iter().flat_map(|id| &lowerer.graph.stage(id).steps);
    let in_stages: HashSet<&str> = steps
        .filter_map(|step| match &step.command.instruction {
            Instruction::Arg(declarations) => Some(declarations),
            _ => None,
        })
        .flatten()
        .map(|declaration| declaration.key.as_str())
        .collect();
    let is_used = |name: &String| {
        in_stages.contains(name.as_str())
            || lowerer.globals.declared.contains(name)
            || lowerer.globals.env.get(name).is_some()
            || args::is_predefined(name)
    };
    lowerer.options.build_args.keys().filter(|name| !is_used(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (EPOCH_MAX, "9999-12-31T23:59:59Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(rfc3339(seconds).unwrap(), text);
        }
        assert!(rfc3339(-1).is_err());
        assert!(rfc3339(i64::MAX).is_err());
    }
}
