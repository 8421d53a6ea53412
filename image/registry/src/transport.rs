//! One request: time limits, redirects, retries, and reading its answer within limits.
//!
//! Redirects are followed here rather than by the HTTP library, because every hop needs its own decisions: whether
//! it may see the `Authorization`, and how far its certificate is trusted. Requests with a body are not redirected;
//! registries send uploads elsewhere with a `Location`, not with a redirect.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use reqwest::header::{DATE, HeaderMap, HeaderName, HeaderValue, LOCATION, RETRY_AFTER};
use reqwest::{Body, Certificate, Identity, Method, NoProxy, Proxy, Url, redirect};

use crate::auth::{Secret, authorize};
use crate::error::{StatusError, decode_body};
use crate::host::{authority_of, is_link_local, same_origin, security_of_url};
use crate::options::{HostTls, Security};
use crate::pace::Pace;
use crate::{ClientOptions, Error, Result, ShownUrl};

/// As browsers do, roughly.
const REDIRECTS_MAX: usize = 10;
/// What is read of the body of an error.
const ERROR_BODY_BYTES_MAX: u64 = 16 * 1024;
/// The ceiling of the doubling.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A server that cannot be reached is not likely to come up: a wrong name should fail soon.
const CONNECT_RETRIES_MAX: u32 = 2;
/// How many retries all requests of a client may use up before successes have earned new ones.
const RETRY_BUDGET: u32 = 100;

/// A request before it is sent.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    /// Sent to the origin of `url` only.
    pub(crate) authorization: Option<HeaderValue>,
    /// Further headers that only the origin of `url` may see.
    pub(crate) private_headers: HeaderMap,
    pub(crate) body: Option<Body>,
}

impl Call {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            authorization: None,
            private_headers: HeaderMap::new(),
            body: None,
        }
    }

    pub(crate) fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.insert(name, value);
        self
    }
}

/// An answer, and where in the end it came from.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) method: Method,
    pub(crate) response: reqwest::Response,
    /// How long it may take to send next to nothing.
    patience: Duration,
}

impl Deref for Answer {
    type Target = reqwest::Response;

    fn deref(&self) -> &Self::Target {
        &self.response
    }
}

impl Answer {
    pub(crate) fn shown(&self) -> ShownUrl {
        ShownUrl::of(self.response.url())
    }

    /// A header, if it is there and readable.
    pub(crate) fn text(&self, name: &HeaderName) -> Option<&str> {
        self.response.headers().get(name).and_then(|value| value.to_str().ok())
    }

    /// For whoever reads its body.
    pub(crate) fn pace(&self) -> Pace {
        Pace::start(self.patience)
    }

    /// The next piece of the body; `None` at its end.
    pub(crate) async fn chunk(&mut self) -> Result<Option<bytes::Bytes>> {
        let chunk = self.response.chunk().await;
        chunk.map_err(|source| Error::network(&self.method, self.response.url(), source))
    }

    /// Passes answers with one of these statuses on; makes an error of others.
    pub(crate) async fn expect(self, statuses: &[u16]) -> Result<Self> {
        if statuses.contains(&self.response.status().as_u16()) {
            return Ok(self);
        }
        let mut error = StatusError {
            method: self.method.clone(),
            url: self.shown(),
            status: self.response.status().as_u16(),
            code: None,
            message: None,
            retry_after: retry_after(self.response.headers()),
        };
        // An error body that breaks off, or is too long, leaves the status to speak for itself.
        let shown = self.shown();
        if let Ok(body) = read_document(self, &shown, ERROR_BODY_BYTES_MAX).await {
            (error.code, error.message) = decode_body(&body);
        }
        Err(Error::Status(Box::new(error)))
    }
}

/// Reads a body that fits in memory.
pub(crate) async fn read_document(mut answer: Answer, shown: &ShownUrl, limit_bytes: u64) -> Result<Vec<u8>> {
    let too_large = || Error::TooLarge { url: shown.clone(), limit_bytes };
    if answer.content_length().is_some_and(|length| length > limit_bytes) {
        return Err(too_large());
    }
    let mut document = Vec::new();
    let mut pace = answer.pace();
    while let Some(chunk) = answer.chunk().await? {
        if (document.len() + chunk.len()) as u64 > limit_bytes {
            return Err(too_large());
        }
        document.extend_from_slice(&chunk);
        if pace.is_too_slow(chunk.len() as u64) {
            return Err(Error::Stalled { url: shown.clone(), received_bytes: document.len() as u64 });
        }
    }
    Ok(document)
}

/// Sends requests.
pub(crate) struct Transport {
    pub(crate) options: ClientOptions,
    /// One for each [`Security`] and for each host with a TLS of its own, made when first needed: reading the system's
    /// certificates takes a while.
    clients: Mutex<HashMap<(Security, Option<String>), reqwest::Client>>,
    budget: RetryBudget,
}

impl Transport {
    pub(crate) fn new(options: ClientOptions) -> Self {
        Self { options, clients: Mutex::default(), budget: RetryBudget(AtomicU32::new(RETRY_BUDGET)) }
    }

    /// Sends a request and follows redirects. Any other status is an `Ok`.
    pub(crate) async fn send(&self, mut call: Call) -> Result<Answer> {
        if self.options.offline {
            return Err(Error::Offline { url: ShownUrl::of(&call.url) });
        }
        let start = call.url.clone();
        let redirectable = call.body.is_none();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.send_once(&mut call, &start).await?;
            let status = answer.status().as_u16();
            if !(redirectable && matches!(status, 301 | 302 | 303 | 307 | 308)) {
                return Ok(answer);
            }
            let target = redirect_target(&answer).filter(|to| !is_link_local(to) || is_link_local(&start));
            call.url = target.ok_or_else(|| redirect_error(&start))?;
        }
        Err(redirect_error(&start))
    }

    async fn send_once(&self, call: &mut Call, start: &Url) -> Result<Answer> {
        let client = self.client(&call.url)?;
        let mut headers = call.headers.clone();
        if same_origin(&call.url, start) {
            headers.extend(call.private_headers.clone());
            authorize(&mut headers, call.authorization.as_ref());
        }
        let mut request = client.request(call.method.clone(), call.url.clone()).headers(headers);
        if let Some(body) = call.body.take() {
            request = request.body(body);
        }
        let response =
            request.send().await.map_err(|source| Error::network(&call.method, &call.url, source))?;
        Ok(Answer { method: call.method.clone(), response, patience: self.options.read_timeout })
    }

    /// Does something until it works, fails for good, or has failed too often.
    pub(crate) async fn retry<T>(&self, mut attempt: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        let mut failures = 0;
        loop {
            match attempt().await {
                Ok(value) => {
                    self.budget.earn();
                    return Ok(value);
                }
                Err(error) => {
                    failures += 1;
                    self.back_off(error, failures).await?;
                }
            }
        }
    }

    /// Waits until something that failed for the `failures`th time in a row should be tried again.
    ///
    /// # Errors
    /// The error itself, when it should not.
    pub(crate) async fn back_off(&self, error: Error, failures: u32) -> Result<()> {
        let retries = if error.is_connect() {
            self.options.retries.min(CONNECT_RETRIES_MAX)
        } else {
            self.options.retries
        };
        let impatient = error.retry_after().is_some_and(|wait| wait > self.options.retry_after_max);
        if !error.is_transient() || failures > retries || impatient || !self.budget.spend() {
            return Err(error);
        }
        let doubled = self.options.backoff.saturating_mul(1 << (failures - 1).min(16));
        tokio::time::sleep(error.retry_after().unwrap_or_else(|| doubled.min(BACKOFF_MAX))).await;
        Ok(())
    }

    /// The client for whoever serves an address. Clones of one share their connections.
    fn client(&self, url: &Url) -> Result<reqwest::Client> {
        let security = security_of_url(&self.options, url);
        let authority = authority_of(url);
        let tls = self.options.tls.get(&authority).filter(|_| security != Security::Plain);
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (security, tls.map(|_| authority));
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = build_client(&self.options, security, tls)?;
        Ok(clients.entry(key).or_insert(client).clone())
    }
}

fn redirect_target(answer: &Answer) -> Option<Url> {
    let target = answer.response.url().join(answer.text(&LOCATION)?).ok()?;
    (matches!(target.scheme(), "http" | "https") && target.has_host()).then_some(target)
}

fn redirect_error(start: &Url) -> Error {
    Error::Redirect { url: ShownUrl::of(start) }
}

/// To be called before any HTTP client is made: those panic without it.
pub(crate) fn install_cryptography() {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        // Fails when the program has installed one already, which is then as good.
        rustls::crypto::ring::default_provider().install_default().ok();
    });
}

pub(crate) fn build_client(
    options: &ClientOptions,
    security: Security,
    tls: Option<&HostTls>,
) -> Result<reqwest::Client> {
    install_cryptography();
    let builder = reqwest::Client::builder()
        .user_agent(&options.user_agent)
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(options.connect_timeout)
        .read_timeout(options.read_timeout);
    let builder = set_proxies(builder.no_proxy(), options)?;
    let builder = match security {
        Security::Verified => {
            let own = tls.map_or(&[][..], |tls| &tls.authorities);
            builder.tls_certs_merge(certificates(options.certificates.iter().chain(own))?)
        }
        Security::Unverified => builder.tls_danger_accept_invalid_certs(true),
        // Never used for TLS, so that nothing need be trusted, or read.
        Security::Plain => builder.tls_certs_only([]),
    };
    let builder = match tls.and_then(|tls| tls.identity.as_ref()) {
        Some(identity) => builder.identity(
            Identity::from_pem(identity.expose().as_bytes())
                .map_err(|source| Error::Options { what: "client certificate", source })?,
        ),
        None => builder,
    };
    builder.build().map_err(|source| Error::Options { what: "connection settings", source })
}

fn certificates<'a>(bundles: impl Iterator<Item = &'a Vec<u8>>) -> Result<Vec<Certificate>> {
    let bundles = bundles.map(|bundle| Certificate::from_pem_bundle(bundle));
    let bundles: Result<Vec<_>, _> = bundles.collect();
    Ok(bundles.map_err(|source| Error::Options { what: "certificate bundle", source })?.concat())
}

fn set_proxies(
    mut builder: reqwest::ClientBuilder,
    options: &ClientOptions,
) -> Result<reqwest::ClientBuilder> {
    let bypass = NoProxy::from_string(&options.proxies.bypass_with_loopback());
    let mut add = |secret: &Option<Secret>, make: fn(&str) -> reqwest::Result<Proxy>| {
        let Some(address) = secret else { return Ok(()) };
        let proxy = make(address.expose())
            .map_err(|source| Error::Options { what: "proxy", source: source.without_url() })?;
        let current = std::mem::take(&mut builder);
        builder = current.proxy(proxy.no_proxy(bypass.clone()));
        Ok(())
    };
    add(&options.proxies.http, |address| Proxy::http(address))?;
    add(&options.proxies.https, |address| Proxy::https(address))?;
    Ok(builder)
}

/// `Retry-After`: seconds, or a date, which is compared with the answer's own `Date` so that no clock is needed.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let wait = text(RETRY_AFTER)?.trim();
    if let Ok(seconds) = wait.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let (then, now) = (http_date_seconds(wait)?, http_date_seconds(text(DATE)?)?);
    Some(Duration::from_secs(then.saturating_sub(now).try_into().unwrap_or(0)))
}

/// The seconds since 1970 of an HTTP date (RFC 9110, 5.6.7; the obsolete forms are not read).
pub(crate) fn http_date_seconds(text: &str) -> Option<i64> {
    rfc2822::DateTimeParser::new().parse_timestamp(text).ok().map(Timestamp::as_second)
}

/// A bucket of retries: with a registry in trouble, many parallel requests must not multiply its load.
struct RetryBudget(AtomicU32);

impl RetryBudget {
    fn spend(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    fn earn(&self) {
        let more = |left: u32| (left < RETRY_BUDGET).then_some(left + 1);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let wait = |pairs: &[(HeaderName, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
            retry_after(&pairs.collect()).map(|wait| wait.as_secs())
        };
        let (now, then) = ("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:30 GMT");
        assert_eq!(wait(&[(RETRY_AFTER, "7")]), Some(7));
        assert_eq!(wait(&[(RETRY_AFTER, then), (DATE, now)]), Some(30));
        assert_eq!(wait(&[(RETRY_AFTER, now), (DATE, then)]), Some(0));
        assert_eq!(wait(&[(RETRY_AFTER, then)]), None);
        assert_eq!(wait(&[(RETRY_AFTER, "soon")]), None);
        assert_eq!(wait(&[]), None);
    }

    #[test]
    fn a_spent_budget_is_earned_back() {
        let budget = RetryBudget(AtomicU32::new(1));
        assert!(budget.spend());
        assert!(!budget.spend());
        budget.earn();
        assert!(budget.spend());
    }
}
