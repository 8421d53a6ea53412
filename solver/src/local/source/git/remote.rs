//! Where a repository is: an address that is safe to pass to git, and what to show to its server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_llb::{GitSource, without_credentials};
use rbuild_registry::Secret;
use url::Url;

use super::GitError;
use crate::local::{LocalWorker, WorkerError};

/// What git may speak. Others, `ext::` among them, run programs or read files of the host.
pub(super) const PROTOCOLS: [&str; 4] = ["https", "http", "ssh", "git"];
/// The user that token servers of git hosts expect beside a token.
const TOKEN_USER: &str = "x-access-token";
/// A token for one of its repositories is shown to all of this host, as its submodules are on it, too.
const GITHUB: [&str; 2] = ["https://github.com/", "https://www.github.com/"];

/// A repository elsewhere.
#[derive(Debug, Clone)]
pub(super) struct Remote {
    /// Its address, without credentials.
    pub(super) url: String,
    /// Its `host` or `host:port`, if it has the form of a URL.
    host: Option<String>,
    /// The `Authorization` that the address brought along.
    authorization: Option<Secret>,
    pub(super) is_ssh: bool,
}

impl Remote {
    /// Reads an address.
    pub(super) fn parse(text: &str) -> Result<Self, GitError> {
        let unusable = |reason| GitError::Remote { remote: without_credentials(text), reason };
        if text.starts_with('-') || text.contains(char::is_control) {
            return Err(unusable("it could be taken for an option"));
        }
        let Some((scheme, _)) = text.split_once("://") else {
            return scp_like(text).ok_or_else(|| unusable("it has no scheme"));
        };
        if !PROTOCOLS.contains(&scheme) {
            return Err(unusable("only https, http, ssh and git are allowed"));
        }
        let mut url = Url::parse(text).map_err(|_| unusable("it is no URL"))?;
        let host = url.host_str().filter(|host| !host.is_empty() && !host.starts_with('-'));
        let host = host.ok_or_else(|| unusable("it has no host"))?.to_owned();
        let host = url.port().map_or_else(|| host.clone(), |port| format!("{host}:{port}"));
        let is_ssh = scheme == "ssh";
        // The user of ssh is whose account it is, and no secret; the password of one would be.
        let authorization = if is_ssh { None } else { take_credentials(&mut url) };
        url.set_password(None).ok();
        Ok(Self { url: url.into(), host: Some(host), authorization, is_ssh })
    }

    /// The addresses that may see the authorization of this one.
    fn scope(&self) -> &str {
        GITHUB.into_iter().find(|prefix| self.url.starts_with(prefix)).unwrap_or(&self.url)
    }
}

/// `user@host:path`.
fn scp_like(text: &str) -> Option<Remote> {
    let (user, rest) = text.split_once('@')?;
    let (host, _) = rest.split_once(':')?;
    let is_word = |text: &str, more: &str| {
        !text.is_empty()
            && !text.starts_with('-')
            && text.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(letter))
    };
    (is_word(user, "-_.") && is_word(host, "-_.")).then(|| Remote {
        url: text.to_owned(),
        host: None,
        authorization: None,
        is_ssh: true,
    })
}

fn take_credentials(url: &mut Url) -> Option<Secret> {
    let decoded = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let (user, password) = (decoded(url.username()), url.password().map(decoded).unwrap_or_default());
    url.set_username("").ok();
    (!user.is_empty() || !password.is_empty()).then(|| basic(&user, &password))
}

fn basic(user: &str, password: &str) -> Secret {
    Secret::new(format!("basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

/// A piece of git's configuration.
pub(super) type Setting = (String, Secret);

impl LocalWorker<'_> {
    /// What git is told so that the remote's server knows who asks: the build's secrets before the address's own.
    pub(super) fn git_authorization(
        &self,
        source: &GitSource,
        remote: &Remote,
    ) -> Result<Vec<Setting>, WorkerError> {
        let mut found = None;
        for (id, is_token) in secret_ids(source, remote) {
            let Some(text) = self.secret_text(&id)? else { continue };
            found = Some(if is_token { basic(TOKEN_USER, text.expose()) } else { text });
            break;
        }
        let Some(value) = found.or_else(|| remote.authorization.clone()) else { return Ok(Vec::new()) };
        let header = Secret::new(format!("Authorization: {}", value.expose()));
        Ok(vec![
            (format!("http.{}.extraheader", remote.scope()), header),
            // A redirect could lead the header elsewhere.
            (format!("http.{}.followRedirects", remote.scope()), Secret::new("false")),
        ])
    }
}

/// The secrets that may hold credentials, the most special first; `true` for those that hold a bare token.
fn secret_ids(source: &GitSource, remote: &Remote) -> Vec<(String, bool)> {
    let named = [(&source.auth_header_secret, false), (&source.auth_token_secret, true)];
    let named = named.into_iter().filter_map(|(id, is_token)| Some((id.clone()?, is_token)));
    let of_host = remote
        .host
        .iter()
        .flat_map(|host| named.clone().map(move |(id, is_token)| (format!("{id}.{host}"), is_token)));
    of_host.chain(named.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_no_part_of_the_address() {
        let remote = Remote::parse("https://me:s%40cret@host:8443/a/b.git").unwrap();
        assert_eq!(remote.url, "https://host:8443/a/b.git");
        assert_eq!(remote.authorization.unwrap().expose(), "basic bWU6c0BjcmV0");
        assert_eq!(Remote::parse("ssh://git@host/a").unwrap().url, "ssh://git@host/a");
        assert!(Remote::parse("git@host.example:a/b.git").unwrap().is_ssh);
    }

    #[test]
    fn addresses_that_are_not_for_git_are_refused() {
        let refused = [
            "ext::sh -c touch% /tmp/x",
            "file:///etc",
            "--upload-pack=x",
            "-oProxyCommand=x@host:a",
            "me@-oProxyCommand=x:a",
            "ssh://-oProxyCommand=x/a",
            "/etc",
            "host:a",
            "https://",
            "https://a\nb/c",
        ];
        for remote in refused {
            assert!(Remote::parse(remote).is_err(), "{remote}");
        }
        let error = Remote::parse("htp://me:secret@host/x").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn secrets_of_the_host_come_first() {
        let source = GitSource {
            auth_token_secret: Some("T".into()),
            auth_header_secret: Some("H".into()),
            ..GitSource::default()
        };
        let remote = Remote::parse("http://host:81/a.git").unwrap();
        let ids: Vec<_> = secret_ids(&source, &remote).into_iter().map(|(id, _)| id).collect();
        assert_eq!(ids, ["H.host:81", "T.host:81", "H", "T"]);
    }
}
