//! A file from a web server, for `ADD`: asked for only if it changed, resumed only if it did not.

use std::io::Write;

use rbuild_image::Digest;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH,
    IF_RANGE, LAST_MODIFIED, RANGE, USER_AGENT,
};
use reqwest::{Method, Url};

use crate::auth::Secret;
use crate::fetch::{Received, from};
use crate::session::Session;
use crate::transport::{Call, http_date_seconds};
use crate::{Error, Result, ShownUrl, Watch};

/// A file to fetch.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// `http://` or `https://`. A user and password in it are sent as basic authorization.
    pub url: String,
    /// Further headers. Only `Accept` and `User-Agent` go along with a redirect to another origin.
    pub headers: Vec<(String, Secret)>,
    /// The `ETag` of the copy that the caller has.
    pub etag: Option<String>,
    /// The `Last-Modified` of the copy that the caller has, as it was received. Sent when there is no `etag`.
    pub last_modified: Option<String>,
    /// Files longer than this are refused.
    pub size_bytes_max: u64,
}

/// What became of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpOutcome {
    /// The copy that the caller has is current; the sink was given nothing.
    NotModified,
    /// The sink was given the file.
    Fetched(HttpFile),
}

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpFile {
    /// The digest of its content. Whether it is the one that was expected is for the caller to say.
    pub digest: Digest,
    /// Its length.
    pub size_bytes: u64,
    /// Its `ETag`, for the next time.
    pub etag: Option<String>,
    /// Its `Last-Modified`, for the next time.
    pub last_modified: Option<String>,
    /// `last_modified` in seconds since 1970, if it is a date.
    pub last_modified_seconds: Option<i64>,
}

/// Which version of a file the first answer brought.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    etag: Option<String>,
    last_modified: Option<String>,
}

impl Version {
    /// The validator that makes a range safe: a strong `ETag`. A date is too coarse.
    fn strong(&self) -> Option<HeaderValue> {
        let etag = self.etag.as_deref().filter(|etag| !etag.starts_with("W/"))?;
        HeaderValue::from_str(etag).ok()
    }
}

impl Session {
    pub(crate) async fn http_get(
        &self,
        request: &HttpRequest,
        sink: &mut dyn Write,
        watch: Watch<'_>,
    ) -> Result<HttpOutcome> {
        let _permit = self.transfers.acquire().await.map_err(|_| Error::Cancelled)?;
        let url = parse_url(&request.url)?;
        let headers = headers(request)?;
        let mut received = Received::new(sink, watch, request.size_bytes_max, ShownUrl::of(&url));
        // `None` until the first answer; `Some(None)` when that was "not modified".
        let mut version: Option<Option<Version>> = None;
        self.resume(&mut received, async |received: &mut Received<'_>| {
            let mut call = Call::new(Method::GET, url.clone());
            call.private_headers = headers.clone();
            split_public(&mut call);
            // An encoded file would be stored encoded.
            call.headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            self.file_attempt(call, &mut version, received).await
        })
        .await?;
        Ok(outcome(version.flatten(), received))
    }

    async fn file_attempt(
        &self,
        call: Call,
        version: &mut Option<Option<Version>>,
        received: &mut Received<'_>,
    ) -> Result<()> {
        let url = ShownUrl::of(&call.url);
        let start = received.size_bytes();
        let call = match version.as_ref().and_then(|version| version.as_ref()?.strong()) {
            Some(validator) if start > 0 => from(call, start).header(IF_RANGE, validator),
            _ => call,
        };
        let known = call.headers.get(IF_NONE_MATCH).cloned();
        let statuses = acceptable(&call);
        let answer = self.transport.send(call).await?.expect(statuses).await?;
        // Some servers give the validator and do not look at the condition.
        let is_known = known.is_some() && answer.headers().get(ETAG) == known.as_ref();
        if answer.status().as_u16() == 304 || is_known {
            *version = Some(None);
            return Ok(());
        }
        if answer.content_length().is_some_and(|length| length > received.limit_bytes()) {
            return Err(Error::TooLarge { url, limit_bytes: received.limit_bytes() });
        }
        let text = |name| answer.text(&name).map(str::to_owned);
        let found = Version { etag: text(ETAG), last_modified: text(LAST_MODIFIED) };
        // What the sink has must be of the version that comes now; without a strong validator nobody knows.
        if start > 0 && (found.strong().is_none() || version.as_ref() != Some(&Some(found.clone()))) {
            return Err(Error::Changed { url });
        }
        *version = Some(Some(found));
        let total = received.take(answer).await?;
        match total {
            Some(total) if received.size_bytes() < total => {
                Err(Error::Cut { url, received_bytes: received.size_bytes() })
            }
            _ => Ok(()),
        }
    }
}

/// A server does not get to send a part that was not asked for, or to vouch for a copy that is not there.
fn acceptable(call: &Call) -> &'static [u16] {
    let conditional = [IF_NONE_MATCH, IF_MODIFIED_SINCE].iter().any(|name| call.headers.contains_key(name));
    match (call.headers.contains_key(RANGE), conditional) {
        (true, _) => &[200, 206],
        (false, true) => &[200, 304],
        (false, false) => &[200],
    }
}

fn outcome(version: Option<Version>, received: Received<'_>) -> HttpOutcome {
    let Some(version) = version else { return HttpOutcome::NotModified };
    let size_bytes = received.size_bytes();
    HttpOutcome::Fetched(HttpFile {
        digest: received.finish(),
        size_bytes,
        last_modified_seconds: version.last_modified.as_deref().and_then(http_date_seconds),
        etag: version.etag,
        last_modified: version.last_modified,
    })
}

fn parse_url(text: &str) -> Result<Url> {
    // What is shown of an address that does not parse must not hold a password.
    let shown = || text.split(['?', '#']).next().unwrap_or_default().rsplit('@').next().unwrap_or_default();
    let url = text.parse::<Url>().ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.filter(Url::has_host).ok_or_else(|| Error::Url { url: shown().to_owned() })
}

/// All headers of the caller's, and the conditions.
fn headers(request: &HttpRequest) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let invalid = || Error::Header { name: name.clone() };
        let mut parsed = HeaderValue::from_str(value.expose()).map_err(|_| invalid())?;
        parsed.set_sensitive(true);
        headers.append(HeaderName::try_from(name.as_str()).map_err(|_| invalid())?, parsed);
    }
    let condition = match (&request.etag, &request.last_modified) {
        (Some(etag), _) => Some((IF_NONE_MATCH, etag)),
        (None, Some(date)) => Some((IF_MODIFIED_SINCE, date)),
        (None, None) => None,
    };
    if let Some((name, value)) = condition {
        let value = HeaderValue::from_str(value).map_err(|_| Error::Header { name: name.to_string() })?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Moves the headers that any server may see.
fn split_public(call: &mut Call) {
    for name in [ACCEPT, USER_AGENT, IF_NONE_MATCH, IF_MODIFIED_SINCE] {
        if let Some(value) = call.private_headers.remove(&name) {
            call.headers.insert(name, value);
        }
    }
}
