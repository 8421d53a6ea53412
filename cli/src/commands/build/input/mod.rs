//! What a build reads: its contexts, the Dockerfile, and the rules of what of a context is not seen.
//!
//! * `place`: what PATH names: a directory, an archive on standard input, a repository, a file of a web server;
//! * `dockerfile`: which file of which of them is the Dockerfile;
//! * `ignore`: `.dockerignore` and its like;
//! * `named`: `--build-context`;
//! * `remote`: what has to be fetched before there is a graph.

mod dockerfile;
mod ignore;
mod named;
mod place;
mod remote;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::PathBuf;

use rbuild_cache::ActiveSnapshot;
use rbuild_frontend::{MainContext, NamedContext, parser};
use rbuild_solver::local::LocalContext;

pub(crate) use self::remote::Remote;

use self::dockerfile::Dockerfile;
use self::named::Named;
use self::place::{Archive, Place};
use super::settings::Settings;
use crate::report::Failure;

/// The name under which the frontend knows the main context, where that is a directory.
pub(crate) const MAIN_CONTEXT: &str = "context";

/// What a build is made of.
#[derive(Debug)]
pub(crate) struct Input {
    /// Where the main context is.
    pub(crate) context: MainContext,
    /// What other names stand for.
    pub(crate) contexts: BTreeMap<String, NamedContext>,
    /// What of them is on this machine.
    pub(crate) trees: Trees,
    /// What the Dockerfile is called in messages: as the user would type it.
    pub(crate) dockerfile_name: String,
    /// The Dockerfile.
    pub(crate) dockerfile: Vec<u8>,
    /// The rules of what of the main context is not seen.
    pub(crate) ignore: Vec<String>,
    /// What an archive was unpacked to; gone with this.
    #[expect(dead_code, reason = "held for its drop")]
    unpacked: Option<ActiveSnapshot>,
}

/// The places on this machine that a build reads from, by the names under which its graph knows them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trees {
    /// Directories.
    pub(crate) contexts: BTreeMap<String, LocalContext>,
    /// OCI image layouts.
    pub(crate) layouts: BTreeMap<String, PathBuf>,
}

impl Input {
    /// The Dockerfile as text, for excerpts.
    pub(crate) fn dockerfile_text(&self) -> Cow<'_, str> {
        parser::text(&self.dockerfile)
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// When there is no context or no Dockerfile, an ignore file is malformed, or something cannot be fetched.
    pub(crate) fn read(settings: &Settings, remote: &Remote<'_>) -> Result<Self, Failure> {
        let place = Place::find(settings, remote)?;
        let dockerfile = Dockerfile::read(&place, settings, remote)?;
        let ignore = ignore::rules(&place, &dockerfile, settings)?;
        let Named { contexts, mut trees } = named::contexts(settings, remote)?;
        let mut unpacked = None;
        let context = match place {
            Place::Remote { context, .. } => MainContext::Remote(context),
            Place::Directory(directory) => {
                trees.contexts.insert(MAIN_CONTEXT.to_owned(), LocalContext::directory(directory));
                MainContext::Local
            }
            Place::Archive(Archive { tree, active, .. }) => {
                trees.contexts.insert(MAIN_CONTEXT.to_owned(), tree);
                unpacked = Some(active);
                MainContext::Local
            }
        };
        let Dockerfile { name: dockerfile_name, text: dockerfile, .. } = dockerfile;
        Ok(Self { context, contexts, trees, dockerfile_name, dockerfile, ignore, unpacked })
    }
}
