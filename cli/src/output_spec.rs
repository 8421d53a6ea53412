//! `--output`: where a build's result goes, in BuildKit's spelling.
//!
//! ```text
//! type=oci,dest=app.tar        an OCI layout, as a tar or (tar=false) a directory
//! type=docker,dest=app.tar     the same with Docker's manifest.json, for `docker load`
//! type=tar,dest=root.tar       the root file system as one tar
//! type=local,dest=DIR          the root file system as files
//! type=image[,name=REF]        the store; with push=true the registry as well
//! type=registry[,name=REF]     the same as type=image,push=true
//!                              images and layouts: compression=gzip|zstd|uncompressed, compression-level=N, force-compression=true
//! DIR                          type=local,dest=DIR
//! -                            type=tar,dest=-
//! ```

use std::path::PathBuf;
use std::str::FromStr;

use rbuild_image::Reference;
use rbuild_solver::images::CompressionConfig;
use thiserror::Error;

use crate::fields::{FieldError, Fields};

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OutputSpec {
    /// Into the store, under further names.
    Image { names: Vec<Reference>, push: bool, rewrite_timestamp: bool, compression: CompressionConfig },
    /// An OCI layout.
    OciArchive { dest: Dest, as_directory: bool, compression: CompressionConfig },
    /// An OCI layout that Docker can load.
    DockerArchive { dest: Dest, compression: CompressionConfig },
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
    #[error("output type `{0}` needs `dest=`")]
    NoDest(String),
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("output type `local` cannot be written to standard output")]
    LocalToStdout,
}

impl OutputSpec {
    /// Whether this output is written to standard output.
    pub(crate) fn uses_stdout(&self) -> bool {
        match self {
            Self::OciArchive { dest, .. } | Self::DockerArchive { dest, .. } | Self::Tar { dest } => {
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
        let mut fields = Fields::split("output", text);
        let kind = fields.take("type").ok_or_else(|| ParseOutputError::NoType(text.to_owned()))?;
        let spec = match kind.as_str() {
            "image" | "registry" => Self::Image {
                names: fields.parse("name", |name| name.parse().ok())?.into_iter().collect(),
                push: fields.flag("push", kind == "registry")?,
                rewrite_timestamp: fields.flag("rewrite-timestamp", true)?,
                compression: fields.compression()?,
            },
            "oci" => Self::OciArchive {
                as_directory: !fields.flag("tar", true)?,
                dest: dest(&mut fields, &kind)?,
                compression: fields.compression()?,
            },
            "docker" => {
                Self::DockerArchive { dest: dest(&mut fields, &kind)?, compression: fields.compression()? }
            }
            "tar" => Self::Tar { dest: dest(&mut fields, &kind)? },
            "local" => match dest(&mut fields, &kind)? {
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

fn dest(fields: &mut Fields, kind: &str) -> Result<Dest, ParseOutputError> {
    match fields.take("dest") {
        None => Err(ParseOutputError::NoDest(kind.to_owned())),
        Some(dest) if dest == "-" => Ok(Dest::Stdout),
        Some(dest) => Ok(Dest::File(dest.into())),
    }
}

#[cfg(test)]
mod tests {
    use rbuild_solver::images::Compression;

    use super::*;

    fn file(path: &str) -> Dest {
        Dest::File(path.into())
    }

    #[test]
    fn outputs_are_parsed() {
        let gzip = CompressionConfig::default();
        let zstd = CompressionConfig { compression: Compression::Zstd, level: Some(9), force: true };
        let cases = [
            (
                "type=oci,dest=a.tar",
                OutputSpec::OciArchive { dest: file("a.tar"), as_directory: false, compression: gzip },
            ),
            (
                "dest=d,type=oci,tar=false",
                OutputSpec::OciArchive { dest: file("d"), as_directory: true, compression: gzip },
            ),
            ("type=docker,dest=-", OutputSpec::DockerArchive { dest: Dest::Stdout, compression: gzip }),
            (
                "type=docker,dest=-,compression=zstd,compression-level=9,force-compression=true",
                OutputSpec::DockerArchive { dest: Dest::Stdout, compression: zstd },
            ),
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
                    compression: gzip,
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
