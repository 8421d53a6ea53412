//! HEALTHCHECK.

use rbuild_image::Healthcheck;

use super::flags::{FlagKind, Flags};
use super::{at_least_one, duration};
use crate::error::{Error, ErrorKind};
use crate::parser::{Node, words};

/// Below this a check would never end.
const INTERVAL_NS_MIN: i64 = 1_000_000;
/// The word for no check.
const NONE: &str = "NONE";

pub(super) fn parse(node: &Node) -> Result<Healthcheck, Error> {
    let test = test(node)?;
    // What is never checked has no interval: as in BuildKit its flags are not even read.
    if test == [NONE] {
        return Ok(Healthcheck { test, ..Healthcheck::default() });
    }
    let flags = Flags::parse(
        node,
        &[
            ("interval", FlagKind::Text),
            ("timeout", FlagKind::Text),
            ("start-period", FlagKind::Text),
            ("start-interval", FlagKind::Text),
            ("retries", FlagKind::Text),
        ],
    )?;
    Ok(Healthcheck {
        test,
        interval_ns: interval(&flags, "interval")?,
        timeout_ns: interval(&flags, "timeout")?,
        start_period_ns: interval(&flags, "start-period")?,
        start_interval_ns: interval(&flags, "start-interval")?,
        retries: flags.text("retries").map_or(Ok(0), retries)?,
    })
}

fn test(node: &Node) -> Result<Vec<String>, Error> {
    let (kind, command) = words::split_first(&node.arguments);
    match kind.to_ascii_uppercase().as_str() {
        "" => Err(at_least_one("HEALTHCHECK")),
        NONE if command.is_empty() => Ok(vec![NONE.to_owned()]),
        NONE => Err(ErrorKind::HealthcheckNone.into()),
        "CMD" => match &node.json {
            Some(arguments) if !arguments.is_empty() => {
                Ok(std::iter::once("CMD".to_owned()).chain(arguments.iter().cloned()).collect())
            }
            None if !command.is_empty() => Ok(vec!["CMD-SHELL".to_owned(), command.to_owned()]),
            _ => Err(ErrorKind::HealthcheckCommand.into()),
        },
        _ => Err(ErrorKind::HealthcheckType { found: kind.to_owned() }.into()),
    }
}

/// Zero, given or not, is "inherit, or the runtime's default".
fn interval(flags: &Flags, flag: &'static str) -> Result<i64, Error> {
    let Some(value) = flags.text(flag).filter(|value| !value.is_empty()) else { return Ok(0) };
    let nanoseconds = duration::parse(&value).ok_or(ErrorKind::Duration { flag, value })?;
    if nanoseconds != 0 && nanoseconds < INTERVAL_NS_MIN {
        return Err(ErrorKind::DurationTooShort { flag }.into());
    }
    Ok(nanoseconds)
}

fn retries(value: String) -> Result<i64, Error> {
    if value.is_empty() {
        return Ok(0);
    }
    let number = value.parse::<i32>().ok().filter(|number| *number >= 0);
    number.map(i64::from).ok_or_else(|| ErrorKind::Retries { value }.into())
}
