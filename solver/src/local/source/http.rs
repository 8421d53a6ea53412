//! A file of a web server as a tree of its own.
//!
//! A file is asked for with the validators under which it came last, so one that has not changed is not sent again. What has
//! come is a blob of the content store until prune takes it. With a checksum, no server need be asked for the key.

use std::fs::File;
use std::io::{self, BufReader};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt, fchown};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rbuild_cache::layer::compression;
use rbuild_cache::layer::reader::{Kind, TarReader};
use rbuild_cache::{CacheKey, Download, Expected, Snapshot};
use rbuild_image::{Digest, KeyHasher};
use rbuild_llb::{HttpSource, without_credentials};
use rbuild_registry::{HttpOutcome, HttpRequest, Secret};
use thiserror::Error;
use url::Url;

use super::image::emit_transfer;
use crate::cache_key::SourceIdentity;
use crate::images::Transfer;
use crate::local::{LocalWorker, WorkerError};
use crate::worker::Context;

/// The largest file that is fetched: 256 GiB. Disks end before; this ends a body that never does.
const HTTP_FILE_SIZE_BYTES_MAX: u64 = 256 << 30;
/// The secrets that hold credentials, by host: a whole `Authorization` header, or a bearer token.
const HEADER_SECRET: &str = "HTTP_AUTH_HEADER_";
const TOKEN_SECRET: &str = "HTTP_AUTH_TOKEN_";

/// Why a file of a web server cannot be used.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The server could not be asked, or what it sent could not be taken.
    #[error(transparent)]
    Fetch(#[from] rbuild_registry::Error),
    /// The file is another one than the Dockerfile says.
    #[error("digest mismatch for `{url}`: {found} (expected: {expected})")]
    Checksum {
        /// The address, without credentials.
        url: String,
        /// What the Dockerfile says.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// The secret that the source names is not there.
    #[error("failed to retrieve HTTP auth secret `{id}`: there is no such secret")]
    NoSecret {
        /// Which.
        id: String,
    },
}

/// What is asked of a server. With a checksum, the file of an earlier build may do; without one, only what the server has now.
pub(super) fn question(source: &HttpSource) -> String {
    let checksum = source.checksum.map(|checksum| checksum.to_string()).unwrap_or_default();
    format!("{}#{checksum}", source.url)
}

/// A file that is in the content store.
#[derive(Debug, Clone, Copy)]
pub(super) struct RemoteFile {
    pub(super) digest: Digest,
    /// Unix seconds.
    last_modified: Option<i64>,
}

impl From<&Download> for RemoteFile {
    fn from(download: &Download) -> Self {
        Self { digest: download.digest, last_modified: download.last_modified_seconds }
    }
}

impl LocalWorker<'_> {
    /// A file is its content and what its server says of its age.
    pub(in crate::local) fn identify_http(
        &self,
        source: &HttpSource,
        cx: &Context<'_>,
    ) -> Result<SourceIdentity, WorkerError> {
        let file = match source.checksum {
            Some(digest) => RemoteFile { digest, last_modified: None },
            None => self.remote_file(source, cx)?,
        };
        let mut hasher = KeyHasher::new("rbuild.http.v1");
        hasher.bytes(file.digest.as_bytes());
        hasher.option(file.last_modified.as_ref(), |hasher, seconds| {
            hasher.signed(*seconds);
        });
        Ok(SourceIdentity(hasher.finish()))
    }

    /// Makes the tree that holds the file.
    pub(in crate::local) fn unpack_http(
        &self,
        source: &HttpSource,
        cx: &Context<'_>,
    ) -> Result<Vec<Snapshot>, WorkerError> {
        let file = self.remote_file(source, cx)?;
        let active = self.prepare(&Snapshot::empty())?;
        let path = active.upper().join(&source.filename);
        self.write_file(source, file, &path)
            .map_err(WorkerError::io("write", format!("`{}`", source.filename)))?;
        Ok(vec![active.commit()?])
    }

    fn write_file(&self, source: &HttpSource, remote: RemoteFile, path: &Path) -> io::Result<()> {
        let mut blob = self.blob(remote)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        io::copy(&mut blob, &mut file)?;
        if !self.options.single_id {
            fchown(&file, Some(source.uid), Some(source.gid))?;
        }
        file.set_permissions(PermissionsExt::from_mode(source.mode))?;
        file.set_modified(unix_time(remote.last_modified.unwrap_or(0)))
    }

    fn blob(&self, file: RemoteFile) -> io::Result<File> {
        let opened = self.store().content().open(file.digest).map_err(io::Error::other)?;
        opened.ok_or_else(|| io::Error::other(rbuild_cache::Error::BlobMissing(file.digest)))
    }

    /// What the server says, or the time of the newest file in an archive.
    pub(super) fn http_time(
        &self,
        source: &HttpSource,
        cx: &Context<'_>,
    ) -> Result<Option<i64>, WorkerError> {
        let file = self.remote_file(source, cx)?;
        if file.last_modified.is_some() {
            return Ok(file.last_modified);
        }
        let blob = self.blob(file).map_err(WorkerError::io("read", format!("`{}`", source.filename)))?;
        Ok(newest_file(blob))
    }

    /// Has the file in the content store, and checks that it is the one that was asked for.
    fn remote_file(&self, source: &HttpSource, cx: &Context<'_>) -> Result<RemoteFile, WorkerError> {
        let file = self.options.pins.files.get(&question(source), || self.fetch(source, cx))?;
        match source.checksum {
            Some(expected) if expected != file.digest => {
                let (url, found) = (shown(&source.url), file.digest);
                Err(HttpError::Checksum { url, expected, found }.into())
            }
            _ => Ok(file),
        }
    }

    fn fetch(&self, source: &HttpSource, cx: &Context<'_>) -> Result<RemoteFile, WorkerError> {
        let (content, downloads) = (self.store().content(), self.store().downloads()?);
        let key = request_key(source);
        let mut known = downloads.get(key)?;
        if let Some(download) = &known
            && !content.contains(download.digest)?
        {
            known = None;
        }
        if let Some(download) = &known
            && source.checksum == Some(download.digest)
        {
            return Ok(download.into());
        }
        let request = self.request(source, known.as_ref())?;
        let mut writer = content.writer(HTTP_FILE_SIZE_BYTES_MAX)?;
        let progress = |current_bytes| {
            emit_transfer(cx, Transfer { name: "downloading".to_owned(), current_bytes, total_bytes: None });
        };
        let watch = rbuild_registry::Watch { progress: &progress, cancel: cx.cancel };
        let outcome = self.images.registry().http_get(&request, &mut writer, watch);
        if let (Err(rbuild_registry::Error::Offline { .. }), Some(download)) = (&outcome, &known) {
            return Ok(download.into());
        }
        match (outcome.map_err(fetch_error)?, known) {
            (HttpOutcome::NotModified, Some(download)) => Ok((&download).into()),
            (HttpOutcome::NotModified, None) => unreachable!("no condition was sent"),
            (HttpOutcome::Fetched(file), _) => {
                let expected = Expected { digest: file.digest, size_bytes: file.size_bytes };
                writer.commit(Some(expected))?;
                let download = Download {
                    digest: file.digest,
                    etag: file.etag,
                    last_modified: file.last_modified,
                    last_modified_seconds: file.last_modified_seconds,
                };
                downloads.put(key, &download)?;
                Ok((&download).into())
            }
        }
    }

    fn request(&self, source: &HttpSource, known: Option<&Download>) -> Result<HttpRequest, WorkerError> {
        let public = source.headers.iter().map(|(name, value)| (name.clone(), Secret::new(value)));
        let authorization = self.http_authorization(source)?;
        let private = authorization.map(|value| ("Authorization".to_owned(), value));
        Ok(HttpRequest {
            url: source.url.clone(),
            headers: public.chain(private).collect(),
            etag: known.and_then(|known| known.etag.clone()),
            last_modified: known.and_then(|known| known.last_modified.clone()),
            size_bytes_max: HTTP_FILE_SIZE_BYTES_MAX,
        })
    }

    /// The `Authorization` that the build's secrets have for the host.
    fn http_authorization(&self, source: &HttpSource) -> Result<Option<Secret>, WorkerError> {
        if let Some(id) = &source.auth_header_secret {
            let header = self.secret_text(id)?;
            return header.map(Some).ok_or_else(|| HttpError::NoSecret { id: id.clone() }.into());
        }
        let url = Url::parse(&source.url).ok();
        let Some(host) = url.as_ref().and_then(Url::host_str) else { return Ok(None) };
        let token = self.secret_text(&format!("{TOKEN_SECRET}{host}"))?;
        match token {
            Some(token) => Ok(Some(Secret::new(format!("Bearer {}", token.expose())))),
            None => self.secret_text(&format!("{HEADER_SECRET}{host}")),
        }
    }
}

fn fetch_error(error: rbuild_registry::Error) -> WorkerError {
    match error {
        rbuild_registry::Error::Cancelled => WorkerError::Cancelled,
        error => HttpError::Fetch(error).into(),
    }
}

/// Names what is asked of a server. Credentials are not in it: the server judges the validators for whoever asks.
fn request_key(source: &HttpSource) -> CacheKey {
    let mut hasher = KeyHasher::new("rbuild.download.v1");
    hasher.str(&without_credentials(&source.url));
    hasher.list(&source.headers, |hasher, (name, value)| {
        hasher.str(name).str(value);
    });
    CacheKey(hasher.finish())
}

/// An address for messages: without credentials, and without a query, which may be a signature.
fn shown(url: &str) -> String {
    let public = without_credentials(url);
    public.split(['?', '#']).next().unwrap_or_default().to_owned()
}

fn unix_time(seconds: i64) -> SystemTime {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { SystemTime::UNIX_EPOCH - distance } else { SystemTime::UNIX_EPOCH + distance }
}

/// The time of the newest regular file of an archive; `None` when it is none.
fn newest_file(archive: File) -> Option<i64> {
    let tar = compression::decompress(archive).ok()?;
    let mut tar = TarReader::new(BufReader::new(tar));
    let mut newest = None;
    while let Some(entry) = tar.next_entry().ok()? {
        if matches!(entry.kind, Kind::File { .. }) {
            newest = newest.max(Some(entry.mtime.seconds));
        }
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_credentials_nor_signatures_are_shown() {
        assert_eq!(shown("https://me:secret@host/a?sig=secret#f"), "https://host/a");
        assert_eq!(shown("https://host/a@b"), "https://host/a@b");
    }
}
