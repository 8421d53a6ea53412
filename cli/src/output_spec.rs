//! `--output`: where a build's result goes, in BuildKit's spelling.
//!
//! ```text
//! type=oci,dest=app.tar        an OCI layout, as a tar or (tar=false) a directory
//! type=docker,dest=app.tar     the same with Docker's manifest.json, for `docker load`
//! type=tar,dest=root.tar       the root file system as one tar
//! type=local,dest=DIR          the root file system as files
//! type=image[,name=REF]        the store; with push=true the registry as well
//! type=registry[,name=REF]     the same as type=image,push=true
//! DIR                          type=local,dest=DIR
//! -                            type=tar,dest=-
//! ```

use std::path::PathBuf;
use std::str::FromStr;

use rbuild_image::Reference;
use thiserror::Error;

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutputSpec {
    /// Into the store, under further names.
    Image { names: Vec<Reference>, push: bool, rewrite_timestamp: bool },
    /// An OCI layout.
    OciArchive { dest: Dest, as_directory: bool },
    /// An OCI layout that Docker can load.
    DockerArchive { dest: Dest },
    /// The root file system as one tar.
    Tar { dest: Dest },
    /// The root file system as files.
    Local { dest: PathBuf },
    /// Nowhere: only the cache is filled.
    CacheOnly,
}

/// A file, or standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Dest {
    File(PathBuf),
    Stdout,
}

/// Why a word is no output.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ParseOutputError {
    #[error("output `{0}` has no `type=`")]
    NoType(String),
    #[error("unknown output type `{0}` (expected oci, docker, tar, local, image, registry or cacheonly)")]
    UnknownType(String),
    #[error("output type `{kind}` has no key `{key}`")]
    UnknownKey { kind: String, key: String },
    #[error("output type `{0}` needs `dest=`")]
    NoDest(String),
    #[error("output key `{key}` cannot be `{value}`")]
    Value { key: String, value: String },
    #[error("output type `local` cannot be written to standard output")]
    LocalToStdout,
}

impl OutputSpec {
    /// Whether this output is written to standard output.
    pub(crate) fn uses_stdout(&self) -> bool {
        match self {
            Self::OciArchive { dest, .. } | Self::DockerArchive { dest } | Self::Tar { dest } => {
                *dest == Dest::Stdout
            }
            Self::Image { .. } | Self::Local { .. } | Self::CacheOnly => false,
        }
    }
}

impl FromStr for OutputSpec {
    type Err = ParseOutputError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !text.contains('=') {
            return Ok(match text {
                "-" => Self::Tar { dest: Dest::Stdout },
                dir => Self::Local { dest: dir.into() },
            });
        }
        let mut fields = Fields::split(text);
        let kind = fields.take("type").ok_or_else(|| ParseOutputError::NoType(text.to_owned()))?;
        let spec = match kind.as_str() {
            "image" | "registry" => Self::Image {
                names: fields.references("name")?,
                push: fields.flag("push", kind == "registry")?,
                rewrite_timestamp: fields.flag("rewrite-timestamp", true)?,
            },
            "oci" => Self::OciArchive { as_directory: !fields.flag("tar", true)?, dest: fields.dest(&kind)? },
            "docker" => Self::DockerArchive { dest: fields.dest(&kind)? },
            "tar" => Self::Tar { dest: fields.dest(&kind)? },
            "local" => match fields.dest(&kind)? {
                Dest::File(dest) => Self::Local { dest },
                Dest::Stdout => return Err(ParseOutputError::LocalToStdout),
            },
            "cacheonly" => Self::CacheOnly,
            _ => return Err(ParseOutputError::UnknownType(kind)),
        };
        fields.nothing_left(&kind)?;
        Ok(spec)
    }
}

struct Fields(Vec<(String, String)>);

impl Fields {
    fn split(text: &str) -> Self {
        let pair = |field: &str| {
            let (key, value) = field.split_once('=').unwrap_or((field, ""));
            (key.trim().to_ascii_lowercase(), value.to_owned())
        };
        Self(text.split(',').map(pair).collect())
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let at = self.0.iter().position(|(found, _)| found == key)?;
        Some(self.0.remove(at).1)
    }

    fn dest(&mut self, kind: &str) -> Result<Dest, ParseOutputError> {
        match self.take("dest") {
            None => Err(ParseOutputError::NoDest(kind.to_owned())),
            Some(dest) if dest == "-" => Ok(Dest::Stdout),
            Some(dest) => Ok(Dest::File(dest.into())),
        }
    }

    fn flag(&mut self, key: &str, default: bool) -> Result<bool, ParseOutputError> {
        match self.take(key).as_deref() {
            None => Ok(default),
            Some("true" | "1" | "") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(value) => Err(ParseOutputError::Value { key: key.to_owned(), value: value.to_owned() }),
        }
    }

    fn references(&mut self, key: &str) -> Result<Vec<Reference>, ParseOutputError> {
        let parse = |value: String| {
            value.parse().map_err(|_| ParseOutputError::Value { key: key.to_owned(), value: value.clone() })
        };
        self.take(key).into_iter().map(parse).collect()
    }

    fn nothing_left(&self, kind: &str) -> Result<(), ParseOutputError> {
        match self.0.first() {
            None => Ok(()),
            Some((key, _)) => Err(ParseOutputError::UnknownKey { kind: kind.to_owned(), key: key.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> Dest {
        Dest::File(path.into())
    }

    #[test]
    fn outputs_are_parsed() {
        let cases = [
            ("type=oci,dest=a.tar", OutputSpec::OciArchive { dest: file("a.tar"), as_directory: false }),
            ("dest=d,type=oci,tar=false", OutputSpec::OciArchive { dest: file("d"), as_directory: true }),
            ("type=docker,dest=-", OutputSpec::DockerArchive { dest: Dest::Stdout }),
            ("type=tar,dest=r.tar", OutputSpec::Tar { dest: file("r.tar") }),
            ("type=local,dest=out", OutputSpec::Local { dest: "out".into() }),
            ("out", OutputSpec::Local { dest: "out".into() }),
            ("-", OutputSpec::Tar { dest: Dest::Stdout }),
            (
                "type=image,name=a:1",
                OutputSpec::Image {
                    names: vec!["a:1".parse().unwrap()],
                    push: false,
                    rewrite_timestamp: true,
                },
            ),
            ("type=cacheonly", OutputSpec::CacheOnly),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("dest=x", "output `dest=x` has no `type=`"),
            (
                "type=zip,dest=x",
                "unknown output type `zip` (expected oci, docker, tar, local, image, registry or cacheonly)",
            ),
            ("type=oci", "output type `oci` needs `dest=`"),
            ("type=tar,dest=x,foo=1", "output type `tar` has no key `foo`"),
            ("type=oci,dest=x,tar=maybe", "output key `tar` cannot be `maybe`"),
            ("type=local,dest=-", "output type `local` cannot be written to standard output"),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<OutputSpec>().unwrap_err().to_string(), expected, "{text}");
        }
    }
}
