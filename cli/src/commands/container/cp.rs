//! `rbuild cp`: files between a container and this machine.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, absolute};

use rbuild_cache::layer::Owners;
use rbuild_container::{CopyError, Files, Place, copy, read_archive, write_archive};

use super::{EXIT_FAILED, containers, failure};
use crate::app::App;
use crate::args::CpArgs;
use crate::commands::io_failure;
use crate::format::size;
use crate::report::{Failure, Kind, eprint};

/// What is copied from or to, as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side<'a> {
    /// A path of a container.
    Container(&'a str, &'a str),
    /// A tar.
    Stream,
    /// A path of this machine.
    Machine(&'a str),
}

impl<'a> Side<'a> {
    fn parse(text: &'a str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Self::Stream,
            Some((container, path)) if !text.starts_with(['/', '.']) => Self::Container(container, path),
            _ => Self::Machine(text),
        }
    }
}

pub(super) fn cp(app: &App, args: &CpArgs) -> Result<u8, Failure> {
    let copied = match (Side::parse(&args.source), Side::parse(&args.target)) {
        (Side::Container(..), Side::Container(..)) => {
            return Err(refused("copying between containers is not supported"));
        }
        (Side::Container(name, path), target) => from_container(app, args, name, path, target)?,
        (source, Side::Container(name, path)) => to_container(app, args, name, path, source)?,
        _ => return Err(refused("must specify at least one container source")),
    };
    if let Some(bytes) = copied.filter(|_| !args.quiet && io::stderr().is_terminal()) {
        eprint(&format!("Successfully copied {} to {}\n", size(bytes), args.target));
    }
    Ok(0)
}

/// How much was copied, in bytes; not told of streams.
fn from_container(
    app: &App,
    args: &CpArgs,
    name: &str,
    path: &str,
    target: Side<'_>,
) -> Result<Option<u64>, Failure> {
    let (files, _) = open(app, name, "archive-path")?;
    let source = files.place(path, name).map_err(failed)?;
    let Side::Machine(text) = target else {
        let mut out = io::BufWriter::new(io::stdout());
        write_archive(&source, args.follow_link, &mut out).map_err(failed)?;
        return out.flush().map_err(io_failure("write", "the archive".as_ref())).map(|()| None);
    };
    let owners = match app.store()?.owners() {
        Owners::Keep if !args.archive => Owners::All { uid: 0, gid: 0 },
        owners => owners,
    };
    copy(&source, &machine(text)?, args.follow_link, owners).map_err(failed).map(Some)
}

fn to_container(
    app: &App,
    args: &CpArgs,
    name: &str,
    path: &str,
    source: Side<'_>,
) -> Result<Option<u64>, Failure> {
    let (files, user) = open(app, name, "extract-to-dir")?;
    let target = files.place(path, name).map_err(failed)?;
    let owners = match app.store()?.owners() {
        Owners::Keep if args.archive && !user.is_empty() => files.owner(&user).map_err(failure)?,
        owners => owners,
    };
    let Side::Machine(text) = source else {
        return read_archive(io::stdin(), &target, &args.target, owners).map_err(failed).map(|()| None);
    };
    copy(&machine(text)?, &target, args.follow_link, owners).map_err(failed).map(Some)
}

/// The files of a container, and its user; noted as `action`.
fn open(app: &App, name: &str, action: &str) -> Result<(Files, String), Failure> {
    let containers = containers(app)?;
    let container = containers.find(name).map_err(failure)?;
    let files = containers.files(&container).map_err(failure)?;
    containers.note(&container, action, []);
    Ok((files, container.state.spec.config.user))
}

fn machine(text: &str) -> Result<Place, Failure> {
    let path = absolute(Path::new(text)).map_err(io_failure("find", text.as_ref()))?;
    Place::of_machine(path, text).map_err(failed)
}

fn failed(error: CopyError) -> Failure {
    Failure::caused_by(Kind::Run(EXIT_FAILED), &error)
}

fn refused(message: &str) -> Failure {
    Failure::new(Kind::Run(EXIT_FAILED), message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_told_apart() {
        let cases = [
            ("box:/a:b", Side::Container("box", "/a:b")),
            ("box:", Side::Container("box", "")),
            ("-", Side::Stream),
            ("a", Side::Machine("a")),
            ("./a:b", Side::Machine("./a:b")),
            ("/a:b", Side::Machine("/a:b")),
        ];
        for (text, expected) in cases {
            assert_eq!(Side::parse(text), expected);
        }
    }
}
