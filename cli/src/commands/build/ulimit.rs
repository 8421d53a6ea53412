//! `--ulimit NAME=SOFT[:HARD]`, by Docker's rules; -1 is unlimited.

use rbuild_executor::Resource;
use rbuild_llb::Ulimit;
use thiserror::Error;

use crate::report::{Failure, Kind};

#[derive(Debug, PartialEq, Eq, Error)]
enum ParseUlimitError {
    #[error("expected NAME=SOFT[:HARD]")]
    Form,
    #[error("there is no limit `{0}`")]
    Name(String),
    #[error("`{0}` is no number")]
    Number(String),
    #[error("the soft limit is above the hard one")]
    Order,
}

/// Reads one.
///
/// # Errors
/// When it is malformed.
pub(crate) fn parse(text: &str) -> Result<Ulimit, Failure> {
    read(text).map_err(|error| {
        Failure::caused_by(Kind::Input, &error).while_doing(&format!("invalid --ulimit `{text}`"))
    })
}

fn read(text: &str) -> Result<Ulimit, ParseUlimitError> {
    let (name, limits) = text.split_once('=').ok_or(ParseUlimitError::Form)?;
    Resource::from_name(name).ok_or_else(|| ParseUlimitError::Name(name.to_owned()))?;
    let number = |text: &str| match text.parse() {
        Ok(number) if number >= -1 => Ok(number),
        _ => Err(ParseUlimitError::Number(text.to_owned())),
    };
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard): (i64, i64) = (number(soft)?, number(hard)?);
    // Unlimited is more than any number.
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(ParseUlimitError::Order);
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_docker_does() {
        for (text, soft, hard) in
            [("nofile=10", 10, 10), ("nofile=10:20", 10, 20), ("nofile=5:-1", 5, -1), ("nofile=-1", -1, -1)]
        {
            assert_eq!(read(text), Ok(Ulimit { name: "nofile".to_owned(), soft, hard }), "{text}");
        }
        let number = |text: &str| ParseUlimitError::Number(text.to_owned());
        let name = |text: &str| ParseUlimitError::Name(text.to_owned());
        let cases = [
            ("nofile", ParseUlimitError::Form),
            ("nofile=20:10", ParseUlimitError::Order),
            ("nofile=-1:10", ParseUlimitError::Order),
            ("foo=1", name("foo")),
            (" nofile=1", name(" nofile")),
            ("NOFILE=1", name("NOFILE")),
            ("core=unlimited", number("unlimited")),
            ("nofile=-2", number("-2")),
            ("nofile=", number("")),
            ("nofile=1:2:3", number("2:3")),
            ("nofile=9223372036854775808", number("9223372036854775808")),
        ];
        for (text, error) in cases {
            assert_eq!(read(text), Err(error), "{text}");
        }
    }
}
