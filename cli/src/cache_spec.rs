//! `--cache-to` and `--cache-from`: where builds of several machines share what they made, in BuildKit's spelling.
//!
//! ```text
//! type=registry,ref=REF         a repository; the tag does not matter, each record has its own
//! type=local,dest=DIR           a directory (src=DIR to read; path=DIR for both, as in the config file)
//! type=s3,bucket=B[,region=R][,endpoint_url=URL][,prefix=P][,use_path_style=true][,access_key_id=…,secret_access_key=…,session_token=…]
//! type=gcs,bucket=B[,prefix=P][,endpoint_url=URL]
//! type=azblob,account_url=URL,name=CONTAINER[,prefix=P][,secret_access_key=…]
//! type=gha[,scope=S][,url_v2=URL,token=…]      the cache of a repository at GitHub
//! type=inline                   the image itself (to read: type=registry,ref=IMAGE)
//! REF                           type=registry,ref=REF
//! ```
//!
//! and, both ways, `timeout=` for one thing that is asked of it (for GitHub 10 minutes, else none), `mounts=ID` for cache mounts that travel too (repeatable, or with `;` between them); to write, `mode=min|max`, `compression=`, `compression-level=`, `force-compression=` and `ignore-error=`. Keys are better
//! given in the environment, as other programs take them: a command line is there for all to see.

use std::path::PathBuf;
use std::time::Duration;

use rbuild_frontend::parse_duration;
use rbuild_image::Reference;
use rbuild_registry::{ActionsOptions, BucketKind, BucketOptions, Secret};
use rbuild_solver::images::CompressionConfig;
use rbuild_solver::shared::ExportMode;
use thiserror::Error;

use crate::fields::{FieldError, Fields};

/// As BuildKit has it.
const ACTIONS_TIMEOUT: Duration = Duration::from_mins(10);

/// What is said of one shared cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheSpec {
    /// Where it is.
    pub(crate) place: CachePlace,
    /// Which records are written.
    pub(crate) mode: ExportMode,
    /// In what form layers are written.
    pub(crate) compression: CompressionConfig,
    /// Whether nothing is said when it cannot be written.
    pub(crate) ignore_error: bool,
    /// How long one thing that is asked of it may take, if there is a limit.
    pub(crate) timeout: Option<Duration>,
    /// The cache mounts that travel too, by what a Dockerfile calls them.
    pub(crate) mounts: Vec<String>,
}

/// Where a shared cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CachePlace {
    Repository(Reference),
    Directory(PathBuf),
    Bucket(BucketOptions),
    Actions(ActionsOptions),
    /// The image that is built; it is read as a repository.
    Inline,
}

impl CachePlace {
    /// Whether nobody is asked for what it has.
    pub(crate) const fn is_here(&self) -> bool {
        matches!(self, Self::Directory(_))
    }
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    To,
    From,
}

/// A look at the environment.
pub(crate) type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Why a word is no shared cache.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ParseCacheError {
    #[error("cache `{0}` has no `type=`")]
    NoType(String),
    #[error("unknown cache type `{0}` (expected registry, local, s3, gcs, azblob, gha or inline)")]
    UnknownType(String),
    #[error(
        "GitHub has shut off version 1 of its cache service; version 2 is at `url_v2=`, or $ACTIONS_RESULTS_URL"
    )]
    ActionsVersion,
    #[error("cache type `{kind}` needs `{key}=`")]
    Missing { kind: String, key: &'static str },
    #[error("an inline cache is read by the image's name: `type=registry,ref=IMAGE`")]
    InlineFrom,
    #[error("invalid cache reference `{0}`")]
    Reference(String),
    #[error(transparent)]
    Field(#[from] FieldError),
}

impl CacheSpec {
    /// Reads one word.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn parse(
        text: &str,
        direction: Direction,
        environment: Environment<'_>,
    ) -> Result<Self, ParseCacheError> {
        if !text.contains('=') {
            return Ok(Self::of(CachePlace::Repository(reference(text)?)));
        }
        let mut fields = Fields::split("cache", text);
        let kind = fields.take("type").ok_or_else(|| ParseCacheError::NoType(text.to_owned()))?;
        let mut spec = Self::of(place(&kind, &mut fields, direction, environment)?);
        while let Some(ids) = fields.take("mounts") {
            spec.mounts.extend(ids.split(';').filter(|id| !id.is_empty()).map(str::to_owned));
        }
        spec.timeout = fields.parse("timeout", duration)?.or(spec.timeout);
        if direction == Direction::To {
            spec.mode = fields.parse("mode", mode)?.unwrap_or_default();
            spec.compression = fields.compression()?;
            spec.ignore_error = fields.flag("ignore-error", false)?;
        }
        fields.nothing_left(&kind)?;
        Ok(spec)
    }

    fn of(place: CachePlace) -> Self {
        let (mode, compression) = (ExportMode::default(), CompressionConfig::default());
        let timeout = matches!(place, CachePlace::Actions(_)).then_some(ACTIONS_TIMEOUT);
        Self { place, mode, compression, ignore_error: false, timeout, mounts: Vec::new() }
    }
}

fn mode(text: &str) -> Option<ExportMode> {
    match text {
        "min" => Some(ExportMode::Min),
        "max" => Some(ExportMode::Max),
        _ => None,
    }
}

fn reference(text: &str) -> Result<Reference, ParseCacheError> {
    text.parse().map_err(|_| ParseCacheError::Reference(text.to_owned()))
}

fn place(
    kind: &str,
    fields: &mut Fields,
    direction: Direction,
    environment: Environment<'_>,
) -> Result<CachePlace, ParseCacheError> {
    let missing = |key: &'static str| ParseCacheError::Missing { kind: kind.to_owned(), key };
    match kind {
        "registry" => {
            let name = fields.take("ref").ok_or_else(|| missing("ref"))?;
            Ok(CachePlace::Repository(reference(&name)?))
        }
        "local" => {
            let key = if direction == Direction::To { "dest" } else { "src" };
            let either = fields.take("path");
            let path = either.or_else(|| fields.take(key));
            Ok(CachePlace::Directory(path.ok_or_else(|| missing(key))?.into()))
        }
        "s3" => s3(fields, environment).map(CachePlace::Bucket),
        "gcs" => {
            let kind = BucketKind::Gcs {
                service_account: environment("GOOGLE_SERVICE_ACCOUNT_KEY").map(Secret::new),
                endpoint: fields.take("endpoint_url"),
            };
            Ok(CachePlace::Bucket(bucket(fields, "gcs", "bucket", kind)?))
        }
        "azblob" => azure(fields, environment).map(CachePlace::Bucket),
        "inline" if direction == Direction::To => Ok(CachePlace::Inline),
        "inline" => Err(ParseCacheError::InlineFrom),
        "gha" => actions(fields, environment).map(CachePlace::Actions),
        _ => Err(ParseCacheError::UnknownType(kind.to_owned())),
    }
}

fn s3(fields: &mut Fields, environment: Environment<'_>) -> Result<BucketOptions, ParseCacheError> {
    let mut either = |key: &str, variable: &str| fields.take(key).or_else(|| environment(variable));
    let kind = BucketKind::S3 {
        region: either("region", "AWS_REGION"),
        endpoint: either("endpoint_url", "AWS_ENDPOINT_URL"),
        access_key_id: either("access_key_id", "AWS_ACCESS_KEY_ID"),
        secret_access_key: either("secret_access_key", "AWS_SECRET_ACCESS_KEY").map(Secret::new),
        session_token: either("session_token", "AWS_SESSION_TOKEN").map(Secret::new),
        path_style: fields.flag("use_path_style", false)?,
    };
    bucket(fields, "s3", "bucket", kind)
}

/// `account_url=https://ACCOUNT.blob.core.windows.net`.
fn azure(fields: &mut Fields, environment: Environment<'_>) -> Result<BucketOptions, ParseCacheError> {
    let missing = || ParseCacheError::Missing { kind: "azblob".to_owned(), key: "account_url" };
    let url = fields.take("account_url").or_else(|| environment("BUILDKIT_AZURE_STORAGE_ACCOUNT_URL"));
    let url = url.ok_or_else(missing)?;
    let host = url.split_once("://").map_or(url.as_str(), |(_, host)| host);
    let account = host.split(['.', '/', ':']).next().unwrap_or_default().to_owned();
    let key = fields.take("secret_access_key").or_else(|| environment("AZURE_STORAGE_ACCOUNT_KEY"));
    let kind = BucketKind::Azure {
        account: fields.take("account_name").unwrap_or(account),
        access_key: key.map(Secret::new),
        endpoint: Some(url),
    };
    bucket(fields, "azblob", "name", kind)
}

/// What is not in the environment is missed once it is needed: the same command line is used outside of GitHub.
fn actions(fields: &mut Fields, environment: Environment<'_>) -> Result<ActionsOptions, ParseCacheError> {
    let url = fields.take("url_v2").or_else(|| environment("ACTIONS_RESULTS_URL"));
    let first = fields.take("url").or_else(|| environment("ACTIONS_CACHE_URL"));
    if fields.take("version").is_some_and(|version| version != "2") || (url.is_none() && first.is_some()) {
        return Err(ParseCacheError::ActionsVersion);
    }
    // By these BuildKit asks GitHub what is there; here nobody has to.
    for key in ["repository", "ghtoken"] {
        fields.take(key);
    }
    let token = fields.take("token").or_else(|| environment("ACTIONS_RUNTIME_TOKEN"));
    Ok(ActionsOptions {
        url,
        token: token.map(Secret::new),
        scope: fields.take("scope").unwrap_or_else(|| "buildkit".to_owned()),
    })
}

fn duration(text: &str) -> Option<Duration> {
    Some(Duration::from_nanos(parse_duration(text)?.try_into().ok()?))
}

fn bucket(
    fields: &mut Fields,
    kind_name: &str,
    key: &'static str,
    kind: BucketKind,
) -> Result<BucketOptions, ParseCacheError> {
    let missing = || ParseCacheError::Missing { kind: kind_name.to_owned(), key };
    let bucket = fields.take(key).ok_or_else(missing)?;
    let prefix = fields.take("prefix").unwrap_or_default();
    let prefix = match prefix.trim_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    Ok(BucketOptions { bucket, prefix, kind })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, direction: Direction) -> Result<CacheSpec, String> {
        let environment = |name: &str| (name == "AWS_ACCESS_KEY_ID").then(|| "from-environment".to_owned());
        CacheSpec::parse(text, direction, &environment).map_err(|error| error.to_string())
    }

    #[test]
    fn caches_are_parsed() {
        let repository = CachePlace::Repository("r.example/cache".parse().unwrap());
        for text in ["r.example/cache", "type=registry,ref=r.example/cache"] {
            assert_eq!(parse(text, Direction::From).unwrap().place, repository);
        }
        let spec = parse(
            "type=local,dest=/c,mounts=a;b,mode=max,mounts=c,compression=zstd,compression-level=9,ignore-error=true",
            Direction::To,
        );
        let spec = spec.unwrap();
        assert_eq!((spec.place, spec.mode), (CachePlace::Directory("/c".into()), ExportMode::Max));
        assert_eq!((spec.compression.level, spec.ignore_error), (Some(9), true));
        assert_eq!(spec.mounts, ["a", "b", "c"]);
        let CachePlace::Bucket(options) =
            parse("type=s3,bucket=b,prefix=/p/q/,use_path_style=true", Direction::From).unwrap().place
        else {
            panic!("a bucket");
        };
        assert_eq!((options.bucket.as_str(), options.prefix.as_str()), ("b", "p/q/"));
        let BucketKind::S3 { access_key_id, path_style, .. } = options.kind else { panic!("S3") };
        assert_eq!((access_key_id.as_deref(), path_style), (Some("from-environment"), true));
        let spec =
            parse("type=gha,url=http://1/,url_v2=http://2/,scope=a,timeout=90s,ghtoken=x", Direction::From);
        let CacheSpec { place, timeout, .. } = spec.unwrap();
        let CachePlace::Actions(actions) = place else { panic!("GitHub's") };
        assert_eq!((actions.url.as_deref(), actions.scope.as_str()), (Some("http://2/"), "a"));
        assert_eq!((actions.token, timeout), (None, Some(Duration::from_secs(90))));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            ("ref=a", "cache `ref=a` has no `type=`"),
            ("type=registry", "cache type `registry` needs `ref=`"),
            ("type=local,src=/c", "cache type `local` needs `dest=`"),
            ("type=s3", "cache type `s3` needs `bucket=`"),
            (
                "type=gha,url=http://a/",
                "GitHub has shut off version 1 of its cache service; version 2 is at `url_v2=`, or $ACTIONS_RESULTS_URL",
            ),
            ("type=gha,timeout=soon", "cache key `timeout` cannot be `soon`"),
            (
                "type=tape",
                "unknown cache type `tape` (expected registry, local, s3, gcs, azblob, gha or inline)",
            ),
            ("type=registry,ref=a,mode=all", "cache key `mode` cannot be `all`"),
            ("type=registry,ref=a,foo=1", "cache type `registry` has no key `foo`"),
            ("A/B", "invalid cache reference `A/B`"),
        ] {
            assert_eq!(parse(text, Direction::To).unwrap_err(), expected, "{text}");
        }
    }
}
