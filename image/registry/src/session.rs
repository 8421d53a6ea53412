//! Speaking to one registry: its address, who asks, and what it says besides.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rbuild_image::Reference;
use reqwest::header::{HeaderName, HeaderValue, LINK};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::auth::{Access, Auth, CredentialSource};
use crate::error::clean;
use crate::host::{base_url, same_origin, security_of};
use crate::mirrors::is_blocked;
use crate::options::Security;
use crate::transport::{Answer, Call, Transport, read_document};
use crate::{ClientOptions, Error, Result, ShownUrl};

const WARNING: HeaderName = HeaderName::from_static("warning");
/// One page of tags or repositories.
const LIST_PAGE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// With what registries put on a page, far more names than anybody reads.
const LIST_PAGES_MAX: usize = 1000;

/// What the methods of [`Client`](crate::Client) work with.
pub(crate) struct Session {
    pub(crate) transport: Transport,
    auth: Auth,
    /// The addresses of registries that had to be tried out.
    probed: Mutex<HashMap<String, Url>>,
    /// The hosts of mirrors that failed.
    pub(crate) failed_mirrors: Mutex<HashSet<String>>,
    pub(crate) transfers: Semaphore,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("options", &self.transport.options).finish_non_exhaustive()
    }
}

/// A repository, and what will be done with it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Ends in `/v2/`.
    base: Url,
    pub(crate) access: Access,
}

impl Target {
    /// An address below the repository: `blobs/sha256:…`.
    pub(crate) fn url(&self, rest: &str) -> Result<Url> {
        let path = format!("{}/{rest}", self.access.repository);
        self.base.join(&path).map_err(|_| Error::Url { url: format!("{}{path}", self.base) })
    }

    /// The same, and reading another repository of the registry.
    pub(crate) fn and_pull(&self, repository: &str) -> Self {
        Self { access: self.access.and_pull(repository), base: self.base.clone() }
    }

    /// Whether an address may see what authorizes us here.
    fn trusts(&self, url: &Url) -> bool {
        same_origin(&self.base, url)
    }
}

impl Session {
    pub(crate) fn new(options: ClientOptions, credentials: Arc<dyn CredentialSource>) -> Self {
        let transfers = Semaphore::new(options.transfers_max.clamp(1, Semaphore::MAX_PERMITS));
        Self {
            transport: Transport::new(options),
            auth: Auth::new(credentials),
            probed: Mutex::new(HashMap::new()),
            failed_mirrors: Mutex::default(),
            transfers,
        }
    }

    /// The repository of a reference, for `pull` or `pull,push`.
    pub(crate) async fn target(&self, reference: &Reference, actions: &str) -> Result<Target> {
        if is_blocked(&self.transport.options, reference) {
            return Err(Error::Blocked { reference: Box::new(reference.clone()) });
        }
        let (registry, repository) = (reference.registry(), reference.repository());
        let access = Access {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            scopes: vec![format!("repository:{repository}:{actions}")],
        };
        Ok(Target { base: self.base(registry).await?, access })
    }

    async fn base(&self, registry: &str) -> Result<Url> {
        match security_of(&self.transport.options, registry) {
            Security::Plain => base_url("http", registry),
            Security::Verified => base_url("https", registry),
            Security::Unverified => self.probe(registry).await,
        }
    }

    /// TLS if the registry speaks it.
    async fn probe(&self, registry: &str) -> Result<Url> {
        if let Some(known) = self.probed.lock().unwrap_or_else(PoisonError::into_inner).get(registry) {
            return Ok(known.clone());
        }
        let secure = base_url("https", registry)?;
        let base = match self.transport.send(Call::new(Method::GET, secure.clone())).await {
            Err(error) if error.is_connect() => base_url("http", registry)?,
            _ => secure,
        };
        self.probed.lock().unwrap_or_else(PoisonError::into_inner).insert(registry.to_owned(), base.clone());
        Ok(base)
    }

    /// Sends a request with the right to do it; `call` makes it, twice if the first one is answered `401`. Answers
    /// with other statuses than these are errors.
    pub(crate) async fn request(
        &self,
        target: &Target,
        statuses: &[u16],
        mut call: impl FnMut() -> Call,
    ) -> Result<Answer> {
        let (mut answer, authorization) = self.ask(target, call()).await?;
        if authorization.is_some() {
            answer = self.send(target, Call { authorization, ..call() }).await?;
        }
        answer.expect(statuses).await
    }

    /// [`request`](Self::request) for a body that can be sent only once. A `401` is an error; by then a new token
    /// is at hand for another try.
    pub(crate) async fn request_once(&self, target: &Target, statuses: &[u16], call: Call) -> Result<Answer> {
        self.ask(target, call).await?.0.expect(statuses).await
    }

    /// Sends a request with the authorization we have. After a `401`, gives what to send it with again.
    async fn ask(&self, target: &Target, mut call: Call) -> Result<(Answer, Option<HeaderValue>)> {
        let at_home = target.trusts(&call.url);
        if at_home {
            call.authorization = self.auth.header(&self.transport, &target.access).await?;
        }
        let (url, sent) = (call.url.clone(), call.authorization.clone());
        let answer = self.send(target, call).await?;
        // A `401` from elsewhere, such as where a redirect led, is not the registry's question.
        if answer.status().as_u16() != 401 || !at_home || !target.trusts(answer.response.url()) {
            return Ok((answer, None));
        }
        let challenge = (answer.headers(), sent.as_ref());
        let next = self.auth.after_401(&self.transport, &target.access, &url, challenge).await?;
        Ok((answer, next))
    }

    async fn send(&self, target: &Target, call: Call) -> Result<Answer> {
        let answer = self.transport.send(call).await?;
        self.report_warnings(&target.access.registry, &answer);
        Ok(answer)
    }

    /// [`request`](Self::request), and again when it fails in passing.
    pub(crate) async fn request_with_retries(
        &self,
        target: &Target,
        statuses: &[u16],
        call: impl Fn() -> Call,
    ) -> Result<Answer> {
        self.transport.retry(async || self.request(target, statuses, &call).await).await
    }

    fn report_warnings(&self, registry: &str, answer: &Answer) {
        let Some(sink) = &self.transport.options.warnings else { return };
        for value in answer.headers().get_all(WARNING) {
            if let Some(text) = value.to_str().ok().and_then(warning_text) {
                sink(registry, &clean(text));
            }
        }
    }

    pub(crate) async fn list_tags(&self, reference: &Reference) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Tags {
            tags: Option<Vec<String>>,
        }
        let target = self.target(reference, "pull").await?;
        let start = target.url("tags/list")?;
        self.list(&target, start, |page: Tags| page.tags.unwrap_or_default()).await
    }

    pub(crate) async fn ping(&self, registry: &str) -> Result<()> {
        let base = self.base(registry).await?;
        let (registry, repository) = (registry.to_owned(), String::new());
        let target =
            Target { base: base.clone(), access: Access { registry, repository, scopes: Vec::new() } };
        self.request_with_retries(&target, &[200], || Call::new(Method::GET, base.clone())).await.map(drop)
    }

    pub(crate) async fn catalog(&self, registry: &str) -> Result<Vec<String>> {
        #[derive(Deserialize)]
        struct Catalog {
            repositories: Vec<String>,
        }
        let base = self.base(registry).await?;
        let start = base.join("_catalog").map_err(|_| Error::Url { url: format!("{base}_catalog") })?;
        let access = Access {
            registry: registry.to_owned(),
            repository: String::new(),
            scopes: vec!["registry:catalog:*".to_owned()],
        };
        self.list(&Target { base, access }, start, |page: Catalog| page.repositories).await
    }

    /// Collects the pages of a list, along their `Link` headers.
    async fn list<P: DeserializeOwned>(
        &self,
        target: &Target,
        start: Url,
        names: impl Fn(P) -> Vec<String>,
    ) -> Result<Vec<String>> {
        let shown = ShownUrl::of(&start);
        let mut all = Vec::new();
        let mut next = Some(start);
        for _ in 0..LIST_PAGES_MAX {
            let Some(url) = next else { return Ok(all) };
            let (page, link) = self.transport.retry(async || self.page(target, &url).await).await?;
            let page = serde_json::from_slice(&page);
            all.extend(names(
                page.map_err(|_| Error::Protocol { url: shown.clone(), missing: "a list of names" })?,
            ));
            next = link.and_then(|link| url.join(&link).ok()).filter(|next| target.trusts(next));
        }
        Err(Error::TooLarge { url: shown, limit_bytes: LIST_PAGES_MAX as u64 * LIST_PAGE_BYTES_MAX })
    }

    async fn page(&self, target: &Target, url: &Url) -> Result<(Vec<u8>, Option<String>)> {
        let answer = self.request(target, &[200], || Call::new(Method::GET, url.clone())).await?;
        let link = answer.text(&LINK).and_then(next_link).map(str::to_owned);
        let shown = answer.shown();
        Ok((read_document(answer, &shown, LIST_PAGE_BYTES_MAX).await?, link))
    }
}

/// The address in `<address>; rel="next"`.
fn next_link(header: &str) -> Option<&str> {
    let (address, relation) = header.trim().strip_prefix('<')?.split_once('>')?;
    relation.contains("next").then_some(address)
}

/// The text in `299 - "text"`, the only form that the distribution specification has.
fn warning_text(header: &str) -> Option<&str> {
    header.strip_prefix("299 - \"")?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_warnings_are_read() {
        assert_eq!(
            next_link(r#"</v2/a/tags/list?last=b&n=2>; rel="next""#),
            Some("/v2/a/tags/list?last=b&n=2")
        );
        assert_eq!(next_link(r#"</x>; rel="prev""#), None);
        assert_eq!(next_link("nonsense"), None);
        assert_eq!(warning_text(r#"299 - "this tag is deprecated""#), Some("this tag is deprecated"));
        assert_eq!(warning_text(r#"199 - "x""#), None);
    }
}
