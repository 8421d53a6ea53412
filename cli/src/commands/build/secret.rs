//! `--secret id=ID[,src=FILE|,env=NAME][,type=file|env]`, by BuildKit's rules.
//!
//! With neither `src` nor `env`, the id is the name of a variable if there is one, and of a file otherwise. With
//! `type=env`, `src` names a variable. A variable that is not set is an empty secret.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use rbuild_frontend::csv;
use rbuild_solver::secrets::{SecretError, SecretValue, Secrets};
use thiserror::Error;

use crate::report::{Failure, Kind};

/// Where a secret comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source {
    File(PathBuf),
    Variable(String),
}

#[derive(Debug, PartialEq, Eq, Error)]
enum ParseSecretError {
    #[error("{0}")]
    Csv(&'static str),
    #[error("the field `{0}` must be `key=value`")]
    NoValue(String),
    #[error("there is no key `{0}` (expected id, src, env or type)")]
    UnknownKey(String),
    #[error("there is no type `{0}` (expected file or env)")]
    UnknownType(String),
    #[error("it has no `id=`")]
    NoId,
}

/// The secrets that `--secret` names. `environment` looks a variable up.
///
/// # Errors
/// When one is malformed, or its file is missing or too big.
pub(super) fn secrets(
    specs: &[String],
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Secrets, Failure> {
    let mut secrets = Secrets::default();
    for spec in specs.iter().filter(|spec| !spec.is_empty()) {
        let invalid = |error| Failure::caused_by(Kind::Input, &error);
        let (id, source) = parse(spec, environment)
            .map_err(|error| invalid(error).while_doing(&format!("invalid --secret `{spec}`")))?;
        match source {
            Source::File(path) => secrets.add_file(id, path),
            Source::Variable(name) => {
                let value = environment(&name).unwrap_or_default();
                secrets.add_value(id, SecretValue::new(value.into_vec()))
            }
        }
        .map_err(|error: SecretError| Failure::caused_by(Kind::Input, &error))?;
    }
    Ok(secrets)
}

fn parse(
    spec: &str,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<(String, Source), ParseSecretError> {
    let (mut id, mut file, mut variable, mut src_is_variable) =
        (String::new(), String::new(), String::new(), false);
    for field in csv::split(spec).map_err(ParseSecretError::Csv)? {
        let Some((key, value)) = field.split_once('=') else { return Err(ParseSecretError::NoValue(field)) };
        match key.to_ascii_lowercase().as_str() {
            "id" => value.clone_into(&mut id),
            "src" | "source" => value.clone_into(&mut file),
            "env" => value.clone_into(&mut variable),
            "type" if matches!(value, "file" | "env") => src_is_variable = value == "env",
            "type" => return Err(ParseSecretError::UnknownType(value.to_owned())),
            key => return Err(ParseSecretError::UnknownKey(key.to_owned())),
        }
    }
    if id.is_empty() {
        return Err(ParseSecretError::NoId);
    }
    if src_is_variable && variable.is_empty() {
        variable = std::mem::take(&mut file);
    }
    let source = match (file.is_empty(), variable.is_empty()) {
        (_, false) => Source::Variable(variable),
        (false, true) => Source::File(file.into()),
        (true, true) if environment(&id).is_some() => Source::Variable(id.clone()),
        (true, true) => Source::File(id.clone().into()),
    };
    Ok((id, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<OsString> {
        (name == "SET").then(|| "value".into())
    }

    #[test]
    fn the_source_is_what_buildkit_takes() {
        let file = |path: &str| Source::File(path.into());
        let variable = |name: &str| Source::Variable(name.into());
        let cases = [
            ("id=a,src=f", "a", file("f")),
            ("source=f,ID=a", "a", file("f")),
            ("id=a,env=V", "a", variable("V")),
            ("id=a,env=V,src=f", "a", variable("V")),
            ("id=a,type=env,src=V", "a", variable("V")),
            ("id=a,type=env", "a", file("a")),
            ("id=a,type=file,src=f", "a", file("f")),
            ("id=SET", "SET", variable("SET")),
            ("id=SET,type=file", "SET", variable("SET")),
            ("id=UNSET", "UNSET", file("UNSET")),
            ("id=a,\"src=f,g\"", "a", file("f,g")),
            ("id=a,src=f=g", "a", file("f=g")),
            ("id=a,id=b,src=f", "b", file("f")),
        ];
        for (spec, id, source) in cases {
            assert_eq!(parse(spec, &environment), Ok((id.to_owned(), source)), "{spec}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("SET", "the field `SET` must be `key=value`"),
            ("src=f", "it has no `id=`"),
            ("id=,src=f", "it has no `id=`"),
            ("id=a,type=dir", "there is no type `dir` (expected file or env)"),
            ("id=a,mode=0400", "there is no key `mode` (expected id, src, env or type)"),
            ("id=\"a", "bare quote in a field that is not quoted"),
        ];
        for (spec, expected) in cases {
            assert_eq!(parse(spec, &environment).unwrap_err().to_string(), expected, "{spec}");
        }
    }
}
