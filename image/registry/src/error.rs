//! What can go wrong between here and a server.
//!
//! Every variant names its subject: an address (never with credentials or a query, which may be a signature), a
//! reference or a digest. What a registry says of itself is decoded into [`ErrorCode`], so that the command line
//! can give advice without reading messages. Text from a server is cut and cleaned before it is kept.

use std::fmt;
use std::io;
use std::time::Duration;

use rbuild_image::{Digest, ManifestError, Platform, Reference};
use reqwest::{Method, Url};
use serde::Deserialize;
use thiserror::Error;

/// The result of everything that talks to a server.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Enough for a sentence; a server does not get to fill the terminal.
const SERVER_MESSAGE_CHARS_MAX: usize = 300;

/// Why a request, or what was made of its answer, failed.
#[derive(Debug, Error)]
pub enum Error {
    /// The server answered, and it was not what was asked for.
    #[error(transparent)]
    Status(Box<StatusError>),
    /// No answer, or it broke off: name resolution, connection, TLS, timeout.
    #[error("failed to `{method}` `{url}`")]
    Network {
        /// The method of the request.
        method: Method,
        /// Where it went.
        url: ShownUrl,
        /// What the transport says, without the address.
        source: reqwest::Error,
    },
    /// The user's settings forbid what it names.
    #[error("`{reference}` is blocked by the settings of registries")]
    Blocked {
        /// What was asked for.
        reference: Box<Reference>,
    },
    /// The user's settings forbid to ask anybody.
    #[error("`{url}` was not asked for: rbuild is offline")]
    Offline {
        /// What would have been asked for.
        url: ShownUrl,
    },
    /// A body ended before its announced length.
    #[error("`{url}` ended after {received_bytes} bytes")]
    Cut {
        /// What was fetched.
        url: ShownUrl,
        /// What arrived, over all attempts.
        received_bytes: u64,
    },
    /// A server that keeps a connection open and sends next to nothing.
    #[error("`{url}` stalled after {received_bytes} bytes")]
    Stalled {
        /// What was fetched.
        url: ShownUrl,
        /// What arrived, over all attempts.
        received_bytes: u64,
    },
    /// More than what is accepted, or than the descriptor promised.
    #[error("`{url}` is larger than {limit_bytes} bytes")]
    TooLarge {
        /// What was fetched.
        url: ShownUrl,
        /// The limit.
        limit_bytes: u64,
    },
    /// The content is not what its name says.
    #[error("`{url}` has the digest `{found}`, not `{expected}`")]
    DigestMismatch {
        /// What was fetched or pushed.
        url: ShownUrl,
        /// The digest asked for.
        expected: Digest,
        /// The digest of the bytes.
        found: Digest,
    },
    /// The content is not as long as its descriptor says.
    #[error("`{url}` has {found_bytes} bytes, not {expected_bytes}")]
    SizeMismatch {
        /// What was fetched.
        url: ShownUrl,
        /// The size of the descriptor.
        expected_bytes: u64,
        /// The size of the bytes.
        found_bytes: u64,
    },
    /// The file behind an address changed between two parts of a download.
    #[error("`{url}` changed while it was downloaded")]
    Changed {
        /// What was fetched.
        url: ShownUrl,
    },
    /// A document of a kind that is no image, such as a schema 1 manifest.
    #[error("`{reference}` is of the unsupported media type `{media_type}`")]
    UnsupportedMediaType {
        /// What was resolved.
        reference: Box<Reference>,
        /// What the registry calls it.
        media_type: String,
    },
    /// A document that can be read as a manifest and as an index, or that contradicts its header (CVE-2021-41190).
    #[error("`{reference}` is ambiguous: it can be read as a manifest and as an index")]
    AmbiguousManifest {
        /// What was resolved.
        reference: Box<Reference>,
    },
    /// A manifest, index or config that does not parse.
    #[error("failed to read the manifest of `{reference}`")]
    Manifest {
        /// What was resolved.
        reference: Box<Reference>,
        /// What is wrong with it.
        source: ManifestError,
    },
    /// The image exists, for other platforms.
    #[error("`{reference}` has no image for platform `{platform}`")]
    NoPlatform {
        /// What was resolved.
        reference: Box<Reference>,
        /// What was asked for.
        platform: Box<Platform>,
        /// What there is.
        available: Vec<Platform>,
    },
    /// An index that leads to indexes that lead to indexes.
    #[error("the indexes of `{reference}` are nested more than {depth_max} deep")]
    NestedIndex {
        /// What was resolved.
        reference: Box<Reference>,
        /// The limit.
        depth_max: usize,
    },
    /// A `401` that does not say, or not in a way we may follow, how to authenticate.
    #[error("registry `{registry}` asks for authentication in a way that cannot be followed: {reason}")]
    Challenge {
        /// Which registry.
        registry: String,
        /// What is wrong with the challenge.
        reason: &'static str,
    },
    /// The credentials for a registry could not be had.
    #[error("failed to get credentials for registry `{registry}`")]
    Credentials {
        /// Which registry.
        registry: String,
        /// What the [`CredentialSource`](crate::CredentialSource) says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer outside the protocol.
    #[error("`{url}` answered without {missing}")]
    Protocol {
        /// What was asked.
        url: ShownUrl,
        /// What a right answer has.
        missing: &'static str,
    },
    /// Redirected in circles, or to nowhere.
    #[error("`{url}` redirects too often or to an unusable address")]
    Redirect {
        /// Where it started.
        url: ShownUrl,
    },
    /// An address that is none, or not one of HTTP.
    #[error("`{url}` is not an address that can be fetched")]
    Url {
        /// The address as given, without user and query.
        url: String,
    },
    /// A request header that cannot be sent.
    #[error("`{name}` is not a valid request header")]
    Header {
        /// Its name; the value may be secret.
        name: String,
    },
    /// The receiver of a download failed.
    #[error("failed to store the content of `{url}`")]
    Sink {
        /// What was fetched.
        url: ShownUrl,
        /// What the receiver says.
        source: io::Error,
    },
    /// The content of an upload could not be read.
    #[error("failed to read blob `{digest}` for upload")]
    Source {
        /// What was to be pushed.
        digest: Digest,
        /// What the reader says.
        source: io::Error,
    },
    /// The content of an upload is not as long as its descriptor says.
    #[error("blob `{digest}` has {found_bytes} bytes, not {expected_bytes}")]
    SourceSize {
        /// What was to be pushed.
        digest: Digest,
        /// The size of the descriptor.
        expected_bytes: u64,
        /// What the reader gave; reading stops at the first byte too many.
        found_bytes: u64,
    },
    /// The content of an upload that has no name yet could not be read.
    #[error("failed to read a blob for upload")]
    UnnamedSource {
        /// What the reader says.
        source: io::Error,
    },
    /// An object store does not do what it is asked.
    #[error("failed to {verb} {object}")]
    Object {
        /// What was being done.
        verb: &'static str,
        /// To what.
        object: String,
        /// What the object store, or the way to it, says.
        source: object_store::Error,
    },
    /// A place that takes only what has a name was given something that has none yet.
    #[error("{place} takes no blob before its digest is known")]
    NeedsName {
        /// The place.
        place: String,
    },
    /// GitHub's cache service is not known here.
    #[error(
        "`{variable}` is not known: GitHub gives it to actions, and a step that runs a command has to be given it by one"
    )]
    NotInActions {
        /// The variable of the environment that has it.
        variable: &'static str,
    },
    /// A place says no, and why.
    #[error("`{place}` refuses it: {reason}")]
    Refused {
        /// The place.
        place: String,
        /// What it says, cut and cleaned.
        reason: String,
    },
    /// One thing took longer than all of it may.
    #[error("`{place}` took longer than {limit:?}")]
    Late {
        /// Who was asked.
        place: String,
        /// The limit.
        limit: Duration,
    },
    /// A place that does not say what it has.
    #[error("`{place}` does not list what it has, and removes by itself what is not used")]
    Unlisted {
        /// The place.
        place: String,
    },
    /// A certificate or proxy of the options is unusable.
    #[error("failed to use the {what} of the settings")]
    Options {
        /// `certificate bundle`, `proxy` or `connection settings`.
        what: &'static str,
        /// What is wrong with it.
        source: reqwest::Error,
    },
    /// The machine refused threads or descriptors for network work.
    #[error("failed to start the network threads")]
    Runtime {
        /// What it says.
        source: io::Error,
    },
    /// The caller's flag was raised.
    #[error("cancelled")]
    Cancelled,
}

/// An answer with a status that is an error.
#[derive(Debug)]
pub struct StatusError {
    /// The method of the request.
    pub method: Method,
    /// Where it went.
    pub url: ShownUrl,
    /// The status code.
    pub status: u16,
    /// What the registry calls the error.
    pub code: Option<ErrorCode>,
    /// What the registry says of it, cut and cleaned.
    pub message: Option<String>,
    /// How long the server asks to wait.
    pub retry_after: Option<Duration>,
}

impl std::error::Error for StatusError {}

impl fmt::Display for StatusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to `{}` `{}`: status {}", self.method, self.url, self.status)?;
        self.code.iter().try_for_each(|code| write!(f, ", {code}"))?;
        self.message.iter().try_for_each(|message| write!(f, ": {message}"))
    }
}

impl Error {
    /// The status of the answer, if there was one.
    pub fn status(&self) -> Option<u16> {
        self.status_error().map(|error| error.status)
    }

    /// The whole of a bad answer, if there was one.
    pub const fn status_error(&self) -> Option<&StatusError> {
        if let Self::Status(error) = self { Some(error) } else { None }
    }

    /// What the registry calls the error.
    pub fn code(&self) -> Option<&ErrorCode> {
        self.status_error().and_then(|error| error.code.as_ref())
    }

    /// How long the server asks to wait before the next try.
    pub fn retry_after(&self) -> Option<Duration> {
        self.status_error().and_then(|error| error.retry_after)
    }

    /// Whether the server says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        let of_object = matches!(self, Self::Object { source: object_store::Error::NotFound { .. }, .. });
        of_object || self.status() == Some(404)
    }

    /// Whether what was asked for is not there, or not what it should be: asking again would not help.
    pub fn is_missing_or_wrong(&self) -> bool {
        let is_wrong =
            matches!(self, Self::DigestMismatch { .. } | Self::SizeMismatch { .. } | Self::TooLarge { .. });
        is_wrong || self.is_not_found()
    }

    /// Whether the registry does not take a blob in the form that it was sent in: all at once, in pieces, or without a length.
    pub const fn refuses_form(&self) -> bool {
        match self {
            Self::Status(error) => matches!(error.status, 405 | 411 | 413 | 415 | 501),
            Self::NeedsName { .. } => true,
            _ => false,
        }
    }

    /// Whether the same request may well succeed a little later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Status(error) => matches!(error.status, 408 | 429 | 500 | 502 | 503 | 504),
            Self::Network { source, .. } => !source.is_builder() && !is_certificate_error(source),
            Self::Cut { .. } | Self::Stalled { .. } => true,
            _ => false,
        }
    }

    /// Whether there is no answer for now, so that what an earlier one said is the best that is known.
    pub fn is_unanswered(&self) -> bool {
        self.is_transient() || matches!(self, Self::Offline { .. })
    }

    /// Whether no server was reached at all, or none that speaks TLS.
    pub(crate) fn is_connect(&self) -> bool {
        matches!(self, Self::Network { source, .. } if source.is_connect())
    }

    pub(crate) fn network(method: &Method, url: &Url, source: reqwest::Error) -> Self {
        Self::Network { method: method.clone(), url: ShownUrl::of(url), source: source.without_url() }
    }
}

/// A certificate does not get better by asking again.
fn is_certificate_error(error: &reqwest::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<rustls::Error>() {
            return true;
        }
        // The source of an `io::Error` is not what it wraps, but the source of that.
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}

/// An address as people may see it: without user, password, query and fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownUrl(String);

impl ShownUrl {
    /// Something that has a name, and no address.
    pub(crate) const fn object(name: String) -> Self {
        Self(name)
    }

    pub(crate) fn of(url: &Url) -> Self {
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Self(format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path()))
    }
}

impl fmt::Display for ShownUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The error codes of the distribution specification, and Docker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorCode {
    /// The registry does not have the blob.
    BlobUnknown,
    /// The registry does not have the manifest: wrong tag or digest.
    ManifestUnknown,
    /// A manifest names a blob that the registry does not have.
    ManifestBlobUnknown,
    /// The registry does not accept the manifest.
    ManifestInvalid,
    /// There is no such repository.
    NameUnknown,
    /// The repository name is not acceptable.
    NameInvalid,
    /// The content does not match its digest.
    DigestInvalid,
    /// The content does not match its size.
    SizeInvalid,
    /// The upload broke.
    BlobUploadInvalid,
    /// The upload session is gone.
    BlobUploadUnknown,
    /// Nobody, or somebody unknown, asks.
    Unauthorized,
    /// The one who asks may not. Docker Hub says this of repositories that do not exist, too.
    Denied,
    /// The registry cannot do this.
    Unsupported,
    /// A rate limit.
    TooManyRequests,
    /// A code of the registry's own.
    Other(String),
}

impl From<&str> for ErrorCode {
    fn from(code: &str) -> Self {
        match code {
            "BLOB_UNKNOWN" => Self::BlobUnknown,
            "MANIFEST_UNKNOWN" => Self::ManifestUnknown,
            "MANIFEST_BLOB_UNKNOWN" => Self::ManifestBlobUnknown,
            "MANIFEST_INVALID" => Self::ManifestInvalid,
            "NAME_UNKNOWN" => Self::NameUnknown,
            "NAME_INVALID" => Self::NameInvalid,
            "DIGEST_INVALID" => Self::DigestInvalid,
            "SIZE_INVALID" => Self::SizeInvalid,
            "BLOB_UPLOAD_INVALID" => Self::BlobUploadInvalid,
            "BLOB_UPLOAD_UNKNOWN" => Self::BlobUploadUnknown,
            "UNAUTHORIZED" => Self::Unauthorized,
            "DENIED" => Self::Denied,
            "UNSUPPORTED" => Self::Unsupported,
            "TOOMANYREQUESTS" => Self::TooManyRequests,
            other => Self::Other(clean(other)),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BlobUnknown => "blob unknown",
            Self::ManifestUnknown => "manifest unknown",
            Self::ManifestBlobUnknown => "manifest names an unknown blob",
            Self::ManifestInvalid => "manifest invalid",
            Self::NameUnknown => "repository unknown",
            Self::NameInvalid => "repository name invalid",
            Self::DigestInvalid => "digest invalid",
            Self::SizeInvalid => "size invalid",
            Self::BlobUploadInvalid => "upload invalid",
            Self::BlobUploadUnknown => "upload unknown",
            Self::Unauthorized => "unauthorized",
            Self::Denied => "denied",
            Self::Unsupported => "unsupported",
            Self::TooManyRequests => "too many requests",
            Self::Other(code) => code,
        })
    }
}

/// The body of an error answer: the specification's form, the `{"details": "…"}` of token servers, or the `{"msg": "…"}` of Twirp's.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    errors: Vec<ErrorEntry>,
    details: Option<String>,
    msg: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ErrorEntry {
    code: String,
    message: Option<String>,
}

/// Reads the first error of an error body. A body of another form says nothing.
pub(crate) fn decode_body(body: &[u8]) -> (Option<ErrorCode>, Option<String>) {
    let body: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
    let (code, message) = match body.errors.into_iter().next() {
        Some(entry) => (Some(entry.code), entry.message),
        None => (None, body.details.or(body.msg)),
    };
    let code = code.filter(|code| !code.is_empty()).map(|code| ErrorCode::from(code.as_str()));
    (code, message.map(|message| clean(&message)).filter(|message| !message.is_empty()))
}

/// Cuts text of a server to a sensible length and takes control characters out.
pub(crate) fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SERVER_MESSAGE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_addresses_hide_user_and_query() {
        let url: Url = "https://me:secret@host:8443/v2/a?X-Signature=abc#f".parse().unwrap();
        assert_eq!(ShownUrl::of(&url).to_string(), "https://host:8443/v2/a");
    }

    #[test]
    fn error_bodies_are_decoded_and_cleaned() {
        let body = |text: &str| decode_body(text.as_bytes());
        assert_eq!(
            body(r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow\u001b[31m down","detail":[1]}]}"#),
            (Some(ErrorCode::TooManyRequests), Some("slow[31m down".to_owned()))
        );
        assert_eq!(
            body(r#"{"details":"incorrect username"}"#),
            (None, Some("incorrect username".to_owned()))
        );
        let twirp = r#"{"code":"unauthenticated","msg":"token is expired"}"#;
        assert_eq!(body(twirp), (None, Some("token is expired".to_owned())));
        assert_eq!(body("<html>"), (None, None));
        assert_eq!(body(r#"{"errors":[]}"#), (None, None));
        let long = format!(r#"{{"errors":[{{"code":"X","message":"{}"}}]}}"#, "é".repeat(1000));
        assert_eq!(body(&long).1.unwrap().chars().count(), SERVER_MESSAGE_CHARS_MAX);
    }
}
