//! The OCI distribution protocol: the one crate of rbuild that opens a socket.
//!
//! The life of a pull: [`Client::resolve_platform`] turns a [`Reference`] into a manifest for a platform and its
//! config (`resolve.rs`); the layers it names are fetched, several at a time, with [`Client::fetch_blob`]
//! (`fetch.rs`). A push goes the other way, blobs first, manifest last (`push.rs`). [`Client::http_get`] fetches a
//! file for `ADD` (`http.rs`). Below them, `session.rs` speaks to one registry: which address it has (`host.rs`),
//! who asks (`auth.rs`), and what a status means; `transport.rs` sends one request: time limits, redirects,
//! retries.
//!
//! ```text
//! GET  /v2/<name>/manifests/<tag>            401, WWW-Authenticate: Bearer realm=…,service=…,scope=…
//! GET  <realm>?service=…&scope=…             200 {"token": …}           basic, if there are credentials
//! GET  /v2/<name>/manifests/<tag>            200 index                  Bearer from here on
//! GET  /v2/<name>/manifests/sha256:…         200 manifest
//! GET  /v2/<name>/blobs/sha256:…             307 elsewhere              where no Authorization is sent
//! GET  elsewhere, Range: bytes=N-            206                        after a cut
//! ```
//!
//! Invariants:
//! * Nothing is `Ok` before its digest and size were checked. A sink may have been given bytes that turn out wrong;
//!   it learns so from the error.
//! * Everything a server sends has a limit: documents, tokens, error bodies, redirects, waiting times.
//! * A credential goes to the registry it belongs to and to the token server that registry names, never along a
//!   redirect to another origin, never from an encrypted registry to an unencrypted token server. No error and no
//!   `Debug` shows one.
//! * The environment is not read: proxies, certificates and credentials come from the caller.
//!
//! The rest of rbuild is threads, so every method of [`Client`] blocks. Call them from as many threads as there
//! is work; they share connections, tokens and a budget of retries.
#![forbid(unsafe_code)]

mod auth;
mod delete;
mod error;
mod fetch;
mod host;
mod http;
mod mirrors;
mod options;
mod pace;
mod push;
mod remote_store;
mod resolve;
mod session;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod transport;

use std::fmt;
use std::future::Future;
use std::io::{self, Read, Write};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rbuild_image::{Descriptor, Digest, MediaType, Platform, Reference};
use tokio::runtime::{Builder, Runtime};

pub use auth::{Anonymous, Credential, CredentialSource, Secret};
pub use error::{Error, ErrorCode, Result, ShownUrl, StatusError};
pub use fetch::RANGES_MIN;
pub use http::{HttpFile, HttpOutcome, HttpRequest};
pub use mirrors::Mirror;
pub use options::{ClientOptions, HostTls, Proxies, Security, WarningSink};
pub use push::PushOutcome;
pub use remote_store::{ActionsOptions, BucketKind, BucketOptions, ListedBlob, RemoteStore};
pub use resolve::{Resolved, ResolvedImage};

use session::Session;

/// How late a raised cancel flag may be seen.
const CANCEL_POLL: Duration = Duration::from_millis(50);
/// The threads that drive connections. Hashing and disk work are done by the callers' threads.
const WORKER_THREADS: usize = 2;

/// Follows a transfer and can stop it.
#[derive(Clone, Copy)]
pub struct Watch<'a> {
    /// Is told the number of bytes of the blob that are through, from the start of the blob. A push that starts
    /// over begins again at zero.
    pub progress: &'a dyn Fn(u64),
    /// Stops the transfer once it is `true`.
    pub cancel: &'a AtomicBool,
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("cancel", self.cancel).finish_non_exhaustive()
    }
}

/// Opens a blob at its start. Called once for each try.
pub type OpenBlob<'a> = &'a dyn Fn() -> io::Result<Box<dyn Read + Send>>;

/// A blob to push, and where the registry may already have it.
#[derive(Clone, Copy)]
pub struct BlobUpload<'a> {
    /// Names the blob.
    pub descriptor: &'a Descriptor,
    /// Opens it.
    pub open: OpenBlob<'a>,
    /// Repositories of the same registry that have the blob, likeliest first (`library/debian`).
    pub mount_from: &'a [String],
}

impl fmt::Debug for BlobUpload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobUpload")
            .field("descriptor", self.descriptor)
            .field("mount_from", &self.mount_from)
            .finish_non_exhaustive()
    }
}

/// Talks to registries and web servers. Cheap to make: threads, certificates and connections come with the first
/// request, so a build without network does not pay for it.
///
/// Must not be called from inside an asynchronous runtime.
#[derive(Debug)]
pub struct Client {
    session: Session,
    runtime: OnceLock<Runtime>,
}

impl Client {
    /// A client that asks `credentials` when a registry wants to know who asks.
    pub fn new(options: ClientOptions, credentials: Arc<dyn CredentialSource>) -> Self {
        Self { session: Session::new(options, credentials), runtime: OnceLock::new() }
    }

    /// The manifest or index that a reference names, as stored.
    ///
    /// # Errors
    /// When there is none, it is no image, or its bytes are not what the reference or the registry says.
    pub fn resolve(&self, reference: &Reference, cancel: &AtomicBool) -> Result<Resolved> {
        self.block_on(cancel, self.session.resolve(reference))
    }

    /// The manifest for a platform and its config, through an index if that is what the reference names.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve), and [`Error::NoPlatform`]. An image that is not in an index is taken whatever
    /// its platform; its config tells.
    pub fn resolve_platform(
        &self,
        reference: &Reference,
        platform: &Platform,
        cancel: &AtomicBool,
    ) -> Result<ResolvedImage> {
        self.block_on(cancel, self.session.resolve_platform(reference, platform))
    }

    /// The descriptor of what a reference names, without fetching it; `None` when there is no such thing.
    ///
    /// The digest is the registry's word, unless the reference has one.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub fn head(&self, reference: &Reference, cancel: &AtomicBool) -> Result<Option<Descriptor>> {
        self.block_on(cancel, self.session.head(reference))
    }

    /// Writes a blob of the reference's repository to `sink`, in order, each byte once, however often the
    /// connection breaks.
    ///
    /// # Errors
    /// Among others when digest or size are not the descriptor's; what `sink` was given is then worthless.
    pub fn fetch_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        sink: &mut dyn Write,
        watch: Watch<'_>,
    ) -> Result<()> {
        self.block_on(watch.cancel, self.session.fetch_blob(reference, descriptor, sink, watch))
    }

    /// Sees to it that the reference's repository has a blob, with as little traffic as the registry allows.
    ///
    /// # Errors
    /// When the registry refuses, or the blob cannot be read or is not what its descriptor says.
    pub fn push_blob(
        &self,
        reference: &Reference,
        upload: &BlobUpload<'_>,
        watch: Watch<'_>,
    ) -> Result<PushOutcome> {
        self.block_on(watch.cancel, self.session.push_blob(reference, upload, watch))
    }

    /// How the reference's repository has a blob without its being sent: because it was there, or was taken from one of
    /// these repositories of the same registry. `None` when it is not to be had there.
    ///
    /// # Errors
    /// When the registry cannot be asked.
    pub fn find_blob(
        &self,
        reference: &Reference,
        digest: Digest,
        mount_from: &[String],
        cancel: &AtomicBool,
    ) -> Result<Option<PushOutcome>> {
        self.block_on(cancel, self.session.find_blob(reference, digest, mount_from))
    }

    /// Sends a blob that is made as it is sent, and says what it was: its digest, and its size in bytes.
    ///
    /// # Errors
    /// When the registry refuses, or the blob cannot be read. [`Error::refuses_form`] when it takes no blob whose size is
    /// not known before.
    pub fn push_unnamed(
        &self,
        reference: &Reference,
        open: OpenBlob<'_>,
        watch: Watch<'_>,
    ) -> Result<(Digest, u64)> {
        self.block_on(watch.cancel, self.session.push_unnamed(reference, open, watch))
    }

    /// Stores a manifest or index: under the reference's digest if it has one, under its tag otherwise. All it
    /// names must be there.
    ///
    /// # Errors
    /// When the registry refuses, or a digest is not that of the bytes.
    pub fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &MediaType,
        bytes: &[u8],
        cancel: &AtomicBool,
    ) -> Result<Digest> {
        self.block_on(cancel, self.session.push_manifest(reference, media_type, bytes))
    }

    /// The tags of the reference's repository, as the registry orders them.
    ///
    /// # Errors
    /// When the registry does not tell.
    pub fn list_tags(&self, reference: &Reference, cancel: &AtomicBool) -> Result<Vec<String>> {
        self.block_on(cancel, self.session.list_tags(reference))
    }

    /// Whether a registry lets us in.
    ///
    /// # Errors
    /// When it does not, or cannot be asked.
    pub fn ping(&self, registry: &str, cancel: &AtomicBool) -> Result<()> {
        self.block_on(cancel, self.session.ping(registry))
    }

    /// The repositories of a registry (`127.0.0.1:5000`). Many registries do not tell.
    ///
    /// # Errors
    /// When the registry does not tell.
    pub fn catalog(&self, registry: &str, cancel: &AtomicBool) -> Result<Vec<String>> {
        self.block_on(cancel, self.session.catalog(registry))
    }

    /// Fetches a file from a web server, unless it is the one that the caller already has.
    ///
    /// # Errors
    /// When it cannot be had, is too large, or changes under way; what `sink` was given is then worthless.
    pub fn http_get(
        &self,
        request: &HttpRequest,
        sink: &mut dyn Write,
        watch: Watch<'_>,
    ) -> Result<HttpOutcome> {
        self.block_on(watch.cancel, self.session.http_get(request, sink, watch))
    }

    /// What it was made with.
    pub(crate) const fn options(&self) -> &ClientOptions {
        &self.session.transport.options
    }

    fn block_on<T>(&self, cancel: &AtomicBool, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.runtime()?.block_on(until_cancelled(cancel, work))
    }

    fn runtime(&self) -> Result<&Runtime> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKER_THREADS)
            .thread_name("rbuild-network")
            .enable_all()
            .build()
            .map_err(|source| Error::Runtime { source })?;
        // When two threads come first, one of the two runtimes is dropped unused.
        Ok(self.runtime.get_or_init(|| runtime))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // Idle connections are not waited for.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn until_cancelled<T>(cancel: &AtomicBool, work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut work = pin!(work);
    loop {
        if cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        if let Ok(result) = tokio::time::timeout(CANCEL_POLL, work.as_mut()).await {
            return result;
        }
    }
}
