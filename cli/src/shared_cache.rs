//! The shared caches that the command line or the config file names, as they are opened, and whom they are believed for.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rbuild_registry::{Client, RemoteStore};
use rbuild_solver::shared::{KeyError, PublicKey, SigningKey, Trust};

use crate::app;
use crate::cache_spec::{CachePlace, CacheSpec, Direction, ParseCacheError};
use crate::commands::io_failure;
use crate::report::{Failure, Kind};

/// What the config file says of a cache for every build, if it does.
///
/// # Errors
/// When it is none.
pub(crate) fn configured(direction: Direction) -> Result<Option<CacheSpec>, Failure> {
    let parse = |text: String| {
        CacheSpec::parse(&text, direction, &app::environment)
            .map_err(|error| Failure::caused_by(Kind::Input, &error).while_doing("cache.shared"))
    };
    app::config()?.cache.shared.map(parse).transpose()
}

/// Opens one.
///
/// # Errors
/// When it cannot be what it is said to be.
pub(crate) fn open(client: &Arc<Client>, spec: &CacheSpec) -> Result<RemoteStore, Failure> {
    let client = Arc::clone(client);
    let opened = match &spec.place {
        CachePlace::Repository(reference) => Ok(RemoteStore::repository(client, reference.clone())),
        CachePlace::Directory(path) => RemoteStore::directory(client, path),
        CachePlace::Bucket(options) => RemoteStore::bucket(client, options),
        CachePlace::Actions(options) => RemoteStore::actions(client, options.clone()),
        CachePlace::Inline => return Err(Failure::caused_by(Kind::Input, &ParseCacheError::InlineFrom)),
    };
    let opened = opened.map(|store| store.with_timeout(spec.timeout));
    opened.map_err(|error| Failure::caused_by(Kind::Input, &error))
}

/// Whom the config file tells to believe, and what it tells to sign with.
///
/// # Errors
/// When a key cannot be read: nothing is to be believed by mistake.
pub(crate) fn trust() -> Result<Trust, Failure> {
    let config = app::config()?.cache;
    let sign = config.sign_key.map(|path| read(&path, SigningKey::parse)).transpose()?;
    let public = |key: &String| match PublicKey::parse(key) {
        Err(KeyError::Form) => read(Path::new(key), PublicKey::parse),
        key => key
            .map_err(|error| Failure::caused_by(Kind::Input, &error).while_doing("cache.require-signed-by")),
    };
    Ok(Trust { sign, require: config.require_signed_by.iter().map(public).collect::<Result<_, _>>()? })
}

fn read<K>(path: &Path, parse: fn(&str) -> Result<K, KeyError>) -> Result<K, Failure> {
    let text = fs::read_to_string(path).map_err(io_failure("read", path))?;
    let failed = |error| {
        Failure::caused_by(Kind::Input, &error)
            .while_doing(&format!("failed to read the key `{}`", path.display()))
    };
    parse(&text).map_err(failed)
}
