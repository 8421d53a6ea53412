//! GitHub's cache service, version 2: entries that are written once, and found by what their names begin with.
//!
//! ```text
//! POST <service>/CreateCacheEntry            {key, version}                 an address to write to; 409 if the name was given away
//! PUT  <address>                             as an Azure block blob
//! POST <service>/FinalizeCacheEntryUpload    {key, version, size_bytes}
//! POST <service>/GetCacheEntryDownloadURL    {key, restore_keys, version}   an address to read from, and the name
//! ```
//!
//! A name stays given away though whoever got it died before writing. So names end in a number, and under a name is what was written last
//! of those that begin with it: nobody waits for another, and what turned out damaged can be written anew. Who finds under a name what was
//! not there before leaves it: two that write the same key write the same.
//!
//! Requests are counted, entries are not listed, and what nobody reads for a week goes by itself. A branch reads what its base has and
//! writes its own, says the service by itself.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path;
use object_store::{ClientOptions as HttpOptions, azure::MicrosoftAzureBuilder};
use rbuild_image::{Descriptor, Digest, MediaType};
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use serde::{Deserialize, Serialize};

use super::bucket::{Bucket, PART_TIMEOUT, retry_config};
use crate::auth::Secret;
use crate::error::clean;
use crate::host::{is_link_local, security_of_url};
use crate::session::Session;
use crate::transport::{Call, build_client, read_document};
use crate::{BlobUpload, ClientOptions, Error, PushOutcome, Result, ShownUrl, Watch};

const SERVICE: &str = "twirp/github.actions.results.api.v1.CacheService";
const ANSWER_SIZE_BYTES_MAX: u64 = 64 * 1024;
/// How many names that were given away are passed over before an entry is given up, and among how many the first of them is chosen: twice
/// as many each time, as two hundred may want one name at once.
const NUMBERS_MAX: u32 = 8;
const NUMBERS_AMONG: u64 = 4;
/// What tells rbuild's entries from others; another form is another version.
const FORM: &str = "rbuild cache 1";

/// The cache of a repository at GitHub, as a step of a workflow sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionsOptions {
    /// Where the service is: `ACTIONS_RESULTS_URL`. Without it every request is [`Error::NotInActions`].
    pub url: Option<String>,
    /// Who asks: `ACTIONS_RUNTIME_TOKEN`; the same without it.
    pub token: Option<Secret>,
    /// What the names of documents begin with, so that builds of one repository keep apart.
    pub scope: String,
}

/// The service, and the way to it.
#[derive(Debug, Clone)]
pub(super) struct Actions {
    options: ActionsOptions,
    version: String,
    /// The keys that were found or written last, by the names of documents.
    seen: Arc<Mutex<HashMap<String, String>>>,
    /// For what is at a signed address: to read, and with more patience to write.
    http: Option<[Connected; 2]>,
}

/// Gives all stores the same connections.
#[derive(Debug, Clone)]
struct Connected(HttpClient);

impl HttpConnector for Connected {
    fn connect(&self, _: &HttpOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

#[derive(Serialize)]
struct Question<'a> {
    key: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    restore_keys: Option<[&'a str; 1]>,
    /// As Twirp writes large numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    size_bytes: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer {
    ok: bool,
    message: String,
    signed_upload_url: String,
    signed_download_url: String,
    matched_key: String,
}

/// What is there under a name.
struct Found {
    key: String,
    url: String,
}

impl fmt::Display for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gha:{}", self.options.scope)
    }
}

impl Actions {
    pub(super) fn new(options: ActionsOptions, client: &ClientOptions) -> Result<Self> {
        let connect = |text: &String| {
            let url: Url = text.parse().map_err(|_| Error::Url { url: text.clone() })?;
            let http = |read_timeout| {
                let options = ClientOptions { read_timeout, ..client.clone() };
                build_client(&options, security_of_url(&options, &url), None)
                    .map(|http| Connected(HttpClient::new(http)))
            };
            Ok([http(client.read_timeout)?, http(client.read_timeout.max(PART_TIMEOUT))?])
        };
        let http = options.url.as_ref().map(connect).transpose()?;
        Ok(Self { options, version: Digest::of(FORM).hex(), seen: Arc::default(), http })
    }

    pub(super) async fn has_blob(&self, session: &Session, digest: Digest) -> Result<bool> {
        Ok(self.find(session, &blob_name(digest)).await?.is_some())
    }

    pub(super) async fn push_blob(
        &self,
        session: &Session,
        upload: &BlobUpload<'_>,
        watch: Watch<'_>,
    ) -> Result<PushOutcome> {
        let name = blob_name(upload.descriptor.digest);
        let Some(entry) = self.reserve(session, &name, None).await? else {
            return Ok(PushOutcome::AlreadyThere);
        };
        self.write(session, &entry, upload, watch).await?;
        Ok(PushOutcome::Uploaded)
    }

    pub(super) async fn fetch_blob(
        &self,
        session: &Session,
        descriptor: &Descriptor,
        sink: &mut dyn io::Write,
        watch: Watch<'_>,
    ) -> Result<()> {
        let name = blob_name(descriptor.digest);
        let Some(found) = self.find(session, &name).await? else { return Err(self.not_there(name)) };
        let (bucket, path) = self.signed(&found.url)?;
        bucket.read(&path, descriptor, sink, watch).await
    }

    pub(super) async fn document(
        &self,
        session: &Session,
        name: &str,
        size_bytes_max: u64,
    ) -> Result<Option<Vec<u8>>> {
        let name = self.document_name(name);
        let Some(found) = self.find(session, &name).await? else { return Ok(None) };
        let (bucket, path) = self.signed(&found.url)?;
        let document = bucket.read_document(&path, size_bytes_max).await?;
        self.saw(name, found);
        Ok(Some(document))
    }

    pub(super) async fn put_document(
        &self,
        session: &Session,
        name: &str,
        bytes: &[u8],
        watch: Watch<'_>,
    ) -> Result<()> {
        let name = self.document_name(name);
        let seen = self.seen().get(&name).cloned();
        let Some(entry) = self.reserve(session, &name, seen.as_deref()).await? else { return Ok(()) };
        let descriptor = Descriptor::of(MediaType::OciManifest, bytes);
        let open = || -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(io::Cursor::new(bytes.to_vec()))) };
        let upload = BlobUpload { descriptor: &descriptor, open: &open, mount_from: &[] };
        self.write(session, &entry, &upload, watch).await?;
        self.saw(name, entry);
        Ok(())
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn saw(&self, name: String, entry: Found) {
        self.seen().insert(name, entry.key);
    }

    fn document_name(&self, name: &str) -> String {
        format!("rbuild-{}-{name}", self.options.scope)
    }

    fn not_there(&self, name: String) -> Error {
        let source = object_store::Error::NotFound { path: name.clone(), source: "it is not there".into() };
        Error::Object { verb: "read", object: format!("{name} of {self}"), source }
    }

    /// What was written last of what begins with a name.
    async fn find(&self, session: &Session, name: &str) -> Result<Option<Found>> {
        let begins = format!("{name}#");
        let question = Question { restore_keys: Some([&begins]), ..self.question(&begins) };
        let answer = self.ask(session, "GetCacheEntryDownloadURL", &question).await?;
        let is_it = answer.ok && answer.matched_key.starts_with(&begins);
        Ok(is_it.then_some(Found { key: answer.matched_key, url: answer.signed_download_url }))
    }

    /// An entry of this name, to be written. `None` where there is another than the one that was seen.
    async fn reserve(&self, session: &Session, name: &str, seen: Option<&str>) -> Result<Option<Found>> {
        let last: Option<u64> = seen.and_then(|key| key.rsplit_once('#')?.1.parse().ok());
        let mut number = last.map_or(0, |last| last.saturating_add(1));
        for attempt in 0..NUMBERS_MAX {
            let key = format!("{name}#{number}");
            if let Some(url) = self.create(session, &key).await? {
                return Ok(Some(Found { key, url }));
            }
            let found = self.find(session, name).await?;
            if found.is_some_and(|found| Some(found.key.as_str()) != seen) {
                return Ok(None);
            }
            number = number.saturating_add(1 + chance(NUMBERS_AMONG << attempt));
        }
        Err(self.refused(&format!("all names like `{name}` were given away")))
    }

    /// The address to write an entry to; `None` where its name was given away.
    async fn create(&self, session: &Session, key: &str) -> Result<Option<String>> {
        match self.ask(session, "CreateCacheEntry", &self.question(key)).await {
            Ok(answer) if answer.ok => Ok(Some(answer.signed_upload_url)),
            Ok(answer) if !answer.message.is_empty() => Err(self.refused(&answer.message)),
            Err(error) if error.status() != Some(409) => Err(error),
            Ok(_) | Err(_) => Ok(None),
        }
    }

    async fn write(
        &self,
        session: &Session,
        entry: &Found,
        upload: &BlobUpload<'_>,
        watch: Watch<'_>,
    ) -> Result<()> {
        let (bucket, path) = self.signed(&entry.url)?;
        bucket.write(&path, upload, watch).await?;
        let size_bytes = Some(upload.descriptor.size_bytes.to_string());
        let question = Question { size_bytes, ..self.question(&entry.key) };
        let answer = self.ask(session, "FinalizeCacheEntryUpload", &question).await?;
        if answer.ok { Ok(()) } else { Err(self.refused(&answer.message)) }
    }

    fn refused(&self, reason: &str) -> Error {
        let reason = if reason.is_empty() { "it does not say why".to_owned() } else { clean(reason) };
        Error::Refused { place: self.to_string(), reason }
    }

    fn question<'a>(&'a self, key: &'a str) -> Question<'a> {
        Question { key, version: &self.version, restore_keys: None, size_bytes: None }
    }

    async fn ask(&self, session: &Session, method: &str, question: &Question<'_>) -> Result<Answer> {
        let missing = |variable| move || Error::NotInActions { variable };
        let url = self.options.url.as_ref().ok_or_else(missing("ACTIONS_RESULTS_URL"))?;
        let token = self.options.token.as_ref().ok_or_else(missing("ACTIONS_RUNTIME_TOKEN"))?;
        let address = format!("{}/{SERVICE}/{method}", url.trim_end_matches('/'));
        let url: Url = address.parse().map_err(|_| Error::Url { url: address })?;
        let mut bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
            .map_err(|_| Error::Header { name: "Authorization".to_owned() })?;
        bearer.set_sensitive(true);
        let body = serde_json::to_vec(question).expect("strings are always JSON");
        let attempt = async || {
            let mut call = Call::new(Method::POST, url.clone())
                .header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            (call.authorization, call.body) = (Some(bearer.clone()), Some(body.clone().into()));
            let answer = session.transport.send(call).await?.expect(&[200]).await?;
            read_document(answer, &ShownUrl::of(&url), ANSWER_SIZE_BYTES_MAX).await
        };
        let body = session.transport.retry(attempt).await?;
        let missing = "an answer of the cache service";
        serde_json::from_slice(&body).map_err(|_| Error::Protocol { url: ShownUrl::of(&url), missing })
    }

    /// What is at a signed address, as the one object of a store.
    fn signed(&self, text: &str) -> Result<(Bucket, Path)> {
        let unusable =
            || Error::Protocol { url: ShownUrl::object(self.to_string()), missing: "a usable address" };
        let [read, write] = self.http.as_ref().ok_or_else(unusable)?;
        let service = self.options.url.as_deref().and_then(|url| url.split_once("://"));
        let url = text
            .parse::<Url>()
            .ok()
            .filter(|url| service.is_some_and(|(scheme, _)| scheme == url.scheme()) && !is_link_local(url));
        let url = url.ok_or_else(unusable)?;
        let (container, path) = url.path().trim_start_matches('/').split_once('/').ok_or_else(unusable)?;
        let path = Path::from_url_path(path).map_err(|_| unusable())?;
        let store = |http: &Connected| {
            let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
            MicrosoftAzureBuilder::new()
                .with_account(url.host_str().unwrap_or_default())
                .with_endpoint(url.origin().ascii_serialization())
                .with_container_name(container)
                .with_sas_authorization(pairs)
                .with_http_connector(http.clone())
                .with_retry(retry_config())
                .build()
                .map_err(|_| unusable())
        };
        Ok((Bucket::of(store(read)?, store(write)?, self.to_string()), path))
    }
}

/// A number that nobody else is likely to choose.
fn chance(below: u64) -> u64 {
    RandomState::new().build_hasher().finish() % below
}

fn blob_name(digest: Digest) -> String {
    format!("rbuild-blob-{}", digest.hex())
}
