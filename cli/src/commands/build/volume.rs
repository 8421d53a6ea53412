//! `-v HOST:CONTAINER[:OPTION,…]`: a directory or file of the host that RUN steps see, as in Buildah. It is in no layer and in no
//! key: what steps make of it is cached as if it were always the same.

use std::path::PathBuf;

use rbuild_solver::local::Volume;
use thiserror::Error;

use crate::report::{Failure, Kind};

#[derive(Debug, PartialEq, Eq, Error)]
enum ParseVolumeError {
    #[error("expected HOST:CONTAINER[:OPTION,...]")]
    Form,
    #[error("`{0}` is not an absolute path")]
    Relative(String),
    #[error("the option `{0}` is not supported (there are ro, rw, z and Z)")]
    Option(String),
}

/// Reads one.
///
/// # Errors
/// When it is malformed, or the host has no such path.
pub(super) fn parse(text: &str) -> Result<Volume, Failure> {
    let invalid = |failure: Failure| failure.while_doing(&format!("invalid --volume `{text}`"));
    let volume = read(text).map_err(|error| invalid(Failure::caused_by(Kind::Input, &error)))?;
    match volume.source.metadata() {
        Ok(_) => Ok(volume),
        Err(error) => Err(invalid(Failure::caused_by(Kind::Input, &error))),
    }
}

fn read(text: &str) -> Result<Volume, ParseVolumeError> {
    let mut words = text.splitn(3, ':');
    let mut path = || {
        let word = words.next().ok_or(ParseVolumeError::Form)?;
        let path = PathBuf::from(word);
        if path.is_absolute() { Ok(path) } else { Err(ParseVolumeError::Relative(word.to_owned())) }
    };
    let (source, target) = (path()?, path()?);
    let mut volume = Volume { source, target, readonly: false };
    for option in words.next().unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => volume.readonly = true,
            "rw" => volume.readonly = false,
            // Labels of SELinux, which rbuild gives to nothing.
            "z" | "Z" => {}
            _ => return Err(ParseVolumeError::Option(option.to_owned())),
        }
    }
    Ok(volume)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_as_buildah_does() {
        for (text, readonly) in
            [("/a:/b", false), ("/a:/b:ro", true), ("/a:/b:rw,z", false), ("/a:/b:Z,ro", true)]
        {
            let (source, target) = ("/a".into(), "/b".into());
            assert_eq!(read(text), Ok(Volume { source, target, readonly }), "{text}");
        }
        let cases = [
            ("/a", ParseVolumeError::Form),
            ("a:/b", ParseVolumeError::Relative("a".to_owned())),
            ("/a:b", ParseVolumeError::Relative("b".to_owned())),
            ("/a:/b:U", ParseVolumeError::Option("U".to_owned())),
        ];
        for (text, error) in cases {
            assert_eq!(read(text), Err(error), "{text}");
        }
    }
}
