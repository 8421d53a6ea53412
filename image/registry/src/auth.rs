//! Who asks: challenges, tokens and credentials.
//!
//! A registry that wants to know answers `401` with a challenge. `Basic` is answered with user and password;
//! `Bearer` names a token server, which gives a token for a set of scopes to those it knows and, for public images,
//! to anybody. The challenge of a registry is remembered, and so are tokens until shortly before they expire, so
//! that later requests go through at once. One lock per registry: of many threads that need the same token, one
//! fetches it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Url};
use serde::Deserialize;
use tokio::time::Instant;

use crate::transport::{Call, Transport, read_document};
use crate::{Error, Result, ShownUrl};

/// Far above any token in use; they travel in a header.
const TOKEN_DOCUMENT_BYTES_MAX: u64 = 256 * 1024;
/// What a token lives when its server does not say (distribution specification).
const TOKEN_LIFE_DEFAULT: Duration = Duration::from_secs(60);
/// A token is not used in the last moments of its life.
const TOKEN_MARGIN_MAX: Duration = Duration::from_secs(10);
const CLIENT_ID: &str = "rbuild";

/// Text that no `Debug` shows.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What proves to a registry who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password, or an access token in its place.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token, which the token server exchanges (`identitytoken` of Docker's configuration).
    IdentityToken(Secret),
    /// A token for the registry itself (`registrytoken`).
    RegistryToken(Secret),
}

/// Knows the user's credentials.
pub trait CredentialSource: Send + Sync {
    /// The credential for a registry (`docker.io`, `ghcr.io`, `127.0.0.1:5000`) or, with stores that go into such
    /// detail, for one repository of it; `repository` is empty for questions to the registry as a whole. Asked
    /// at most once for each pair and client, from the calling thread.
    ///
    /// # Errors
    /// When there should be a credential and it cannot be had. Where there is none, that is `Ok(None)`.
    fn credential(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credential>, Box<dyn std::error::Error + Send + Sync>>;
}

/// Has no credentials.
#[derive(Debug, Clone, Copy, Default)]
pub struct Anonymous;

impl CredentialSource for Anonymous {
    fn credential(
        &self,
        _registry: &str,
        _repository: &str,
    ) -> Result<Option<Credential>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(None)
    }
}

/// What a request needs to be allowed to do, and on whose behalf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) registry: String,
    pub(crate) repository: String,
    /// `repository:<name>:<actions>`, sorted.
    pub(crate) scopes: Vec<String>,
}

impl Access {
    /// The same, and reading another repository.
    pub(crate) fn and_pull(&self, repository: &str) -> Self {
        let mut access = self.clone();
        access.scopes.push(format!("repository:{repository}:pull"));
        access.scopes.sort();
        access.scopes.dedup();
        access
    }
}

/// What is known about asking each registry.
pub(crate) struct Auth {
    source: Arc<dyn CredentialSource>,
    registries: Mutex<HashMap<String, Arc<tokio::sync::Mutex<RegistryAuth>>>>,
}

#[derive(Default)]
struct RegistryAuth {
    challenge: Option<Challenge>,
    credentials: HashMap<String, Option<Credential>>,
    tokens: HashMap<Vec<String>, Token>,
}

struct Token {
    header: HeaderValue,
    expires: Instant,
}

impl Auth {
    pub(crate) fn new(source: Arc<dyn CredentialSource>) -> Self {
        Self { source, registries: Mutex::new(HashMap::new()) }
    }

    /// The `Authorization` header to start with: none until the registry has asked for one.
    pub(crate) async fn header(&self, transport: &Transport, access: &Access) -> Result<Option<HeaderValue>> {
        let registry = self.registry(&access.registry);
        let mut registry = registry.lock().await;
        match registry.challenge.clone() {
            None => Ok(None),
            Some(challenge) => self.answer(transport, access, &mut registry, &challenge).await,
        }
    }

    /// The header to try next after `401`; `None` when there is nothing else to try. `rejected` is the header that
    /// was sent, `url` where.
    pub(crate) async fn after_401(
        &self,
        transport: &Transport,
        access: &Access,
        url: &Url,
        (answer, rejected): (&HeaderMap, Option<&HeaderValue>),
    ) -> Result<Option<HeaderValue>> {
        let Some(challenge) = Challenge::of(answer) else { return Ok(None) };
        challenge.check(access, url)?;
        let registry = self.registry(&access.registry);
        let mut registry = registry.lock().await;
        registry.challenge = Some(challenge.clone());
        registry.tokens.retain(|_, token| Some(&token.header) != rejected);
        let header = self.answer(transport, access, &mut registry, &challenge).await?;
        Ok(header.filter(|header| Some(header) != rejected))
    }

    fn registry(&self, name: &str) -> Arc<tokio::sync::Mutex<RegistryAuth>> {
        let mut registries = self.registries.lock().unwrap_or_else(PoisonError::into_inner);
        registries.entry(name.to_owned()).or_default().clone()
    }

    async fn answer(
        &self,
        transport: &Transport,
        access: &Access,
        registry: &mut RegistryAuth,
        challenge: &Challenge,
    ) -> Result<Option<HeaderValue>> {
        let credential = self.credential(access, registry)?;
        if let Some(Credential::RegistryToken(token)) = &credential {
            return bearer(token.expose()).map(Some).ok_or(Error::Challenge {
                registry: access.registry.clone(),
                reason: "the configured token cannot be sent in a header",
            });
        }
        let Challenge::Bearer(server) = challenge else {
            return Ok(credential.as_ref().and_then(basic));
        };
        let scopes = server.scopes_with(&access.scopes);
        if let Some(token) = registry.tokens.get(&scopes).filter(|token| Instant::now() < token.expires) {
            return Ok(Some(token.header.clone()));
        }
        let token = server.fetch_token(transport, credential.as_ref(), &scopes).await?;
        let header = token.header.clone();
        registry.tokens.insert(scopes, token);
        Ok(Some(header))
    }

    fn credential(&self, access: &Access, registry: &mut RegistryAuth) -> Result<Option<Credential>> {
        if let Some(known) = registry.credentials.get(&access.repository) {
            return Ok(known.clone());
        }
        let credential = self
            .source
            .credential(&access.registry, &access.repository)
            .map_err(|source| Error::Credentials { registry: access.registry.clone(), source })?;
        registry.credentials.insert(access.repository.clone(), credential.clone());
        Ok(credential)
    }
}

fn bearer(token: &str) -> Option<HeaderValue> {
    sensitive(&format!("Bearer {token}"))
}

/// A refresh token is of no use where a password is asked for.
fn basic(credential: &Credential) -> Option<HeaderValue> {
    let Credential::Password { username, password } = credential else { return None };
    let pair = format!("{username}:{}", password.expose());
    sensitive(&format!("Basic {}", STANDARD.encode(pair)))
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// How a registry wants to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Challenge {
    Basic,
    Bearer(TokenServer),
    /// A bearer challenge without a usable address.
    Unusable,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct TokenServer {
    realm: Url,
    service: Option<String>,
    /// What the registry thinks the request needs, separated by spaces.
    scope: Option<String>,
}

impl Challenge {
    /// The strongest challenge that we can answer.
    fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let offers: Vec<Offer> = texts.flat_map(parse_offers).collect();
        let offer = |scheme: &str| offers.iter().find(|offer| offer.scheme.eq_ignore_ascii_case(scheme));
        match (offer("bearer"), offer("basic")) {
            (Some(bearer), _) => Some(Self::bearer(bearer)),
            (None, Some(_)) => Some(Self::Basic),
            (None, None) => None,
        }
    }

    fn bearer(offer: &Offer) -> Self {
        let realm = offer.get("realm").and_then(|realm| realm.parse::<Url>().ok());
        match realm.filter(|realm| matches!(realm.scheme(), "http" | "https") && realm.has_host()) {
            None => Self::Unusable,
            Some(realm) => Self::Bearer(TokenServer {
                realm,
                service: offer.get("service").map(str::to_owned),
                scope: offer.get("scope").map(str::to_owned),
            }),
        }
    }

    /// Refuses what would be unsafe to answer.
    fn check(&self, access: &Access, url: &Url) -> Result<()> {
        let reason = match self {
            Self::Unusable => "its token server has no usable address",
            Self::Bearer(server) if url.scheme() == "https" && server.realm.scheme() != "https" => {
                "its token server is not encrypted, the registry is"
            }
            _ => return Ok(()),
        };
        Err(Error::Challenge { registry: access.registry.clone(), reason })
    }
}

/// What a token server answers.
#[derive(Deserialize)]
struct TokenDocument {
    token: Option<String>,
    access_token: Option<String>,
    #[serde(rename = "expires_in")]
    expires_in_seconds: Option<u64>,
}

impl TokenServer {
    /// The scopes of the request and of the challenge, sorted; the challenge's are left out where ours say the same.
    fn scopes_with(&self, ours: &[String]) -> Vec<String> {
        let mut scopes = ours.to_vec();
        scopes.extend(
            self.scope
                .iter()
                .filter(|_| ours.is_empty())
                .flat_map(|scope| scope.split(' ').filter(|part| !part.is_empty()).map(str::to_owned)),
        );
        scopes.sort();
        scopes.dedup();
        scopes
    }

    async fn fetch_token(
        &self,
        transport: &Transport,
        credential: Option<&Credential>,
        scopes: &[String],
    ) -> Result<Token> {
        let document = transport
            .retry(async || {
                let call = self.call(credential, scopes);
                let shown = ShownUrl::of(&call.url);
                let response = transport.send(call).await?.expect(&[200]).await?;
                read_document(response, &shown, TOKEN_DOCUMENT_BYTES_MAX).await
            })
            .await?;
        self.token(&document)
            .ok_or_else(|| Error::Protocol { url: ShownUrl::of(&self.realm), missing: "a token" })
    }

    fn token(&self, document: &[u8]) -> Option<Token> {
        let document: TokenDocument = serde_json::from_slice(document).ok()?;
        let text = document.token.or(document.access_token).filter(|token| !token.is_empty())?;
        let life = document.expires_in_seconds.map_or(TOKEN_LIFE_DEFAULT, Duration::from_secs);
        let life = life.clamp(Duration::from_secs(1), Duration::from_secs(24 * 3600));
        let expires = Instant::now() + life - (life / 4).min(TOKEN_MARGIN_MAX);
        Some(Token { header: bearer(&text)?, expires })
    }

    fn call(&self, credential: Option<&Credential>, scopes: &[String]) -> Call {
        match credential {
            Some(Credential::IdentityToken(token)) => self.exchange(token, scopes),
            credential => self.ask(credential.and_then(basic), scopes),
        }
    }

    /// The token server's own protocol: a query, and basic authorization for those who have one.
    fn ask(&self, authorization: Option<HeaderValue>, scopes: &[String]) -> Call {
        let mut url = self.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            self.service.iter().for_each(|service| {
                query.append_pair("service", service);
            });
            scopes.iter().for_each(|scope| {
                query.append_pair("scope", scope);
            });
        }
        Call { authorization, ..Call::new(Method::GET, url) }
    }

    /// OAuth 2: a refresh token for an access token.
    fn exchange(&self, refresh_token: &Secret, scopes: &[String]) -> Call {
        let mut form = Url::parse("http://form").expect("a constant address parses");
        form.query_pairs_mut()
            .append_pair("grant_type", "refresh_token")
            .append_pair("service", self.service.as_deref().unwrap_or_default())
            .append_pair("client_id", CLIENT_ID)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("refresh_token", refresh_token.expose());
        let mut call = Call::new(Method::POST, self.realm.clone());
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        call.body = Some(form.query().unwrap_or_default().to_owned().into());
        call
    }
}

/// One challenge of a `WWW-Authenticate` header.
#[derive(Debug, PartialEq, Eq)]
struct Offer {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Offer {
    fn get(&self, name: &str) -> Option<&str> {
        let mut found = self.parameters.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_str())
    }
}

/// Reads the challenges of one header (RFC 9110, 11.6.1). A header may hold several, and a comma separates
/// challenges as well as parameters: a word with an equals sign behind it is a parameter, another is a scheme.
fn parse_offers(header: &str) -> Vec<Offer> {
    let mut offers: Vec<Offer> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let (word, after) = rest.split_at(rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len()));
        if let Some(value) = after.trim_start().strip_prefix('=') {
            let (value, after) = parse_value(value.trim_start());
            if let Some(offer) = offers.last_mut() {
                offer.parameters.push((word.to_owned(), value));
            }
            rest = after;
        } else if word.is_empty() {
            return offers;
        } else {
            offers.push(Offer { scheme: word.to_owned(), parameters: Vec::new() });
            rest = after;
        }
    }
}

/// A quoted string or a bare word, and what follows it.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, after) = text.split_at(text.find([' ', '\t', ',']).unwrap_or(text.len()));
        return (word.to_owned(), after);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// Puts an `Authorization` into the headers of a request.
pub(crate) fn authorize(headers: &mut HeaderMap, authorization: Option<&HeaderValue>) {
    if let Some(value) = authorization {
        headers.insert(AUTHORIZATION, value.clone());
    }
}
