//! Blobs and manifests to a registry, with as little traffic as it allows.
//!
//! ```text
//! HEAD  blobs/<digest>                               200   there already
//! POST  blobs/uploads/?mount=<digest>&from=<other>   201   taken from another repository
//!                                                    202   not to be had there; an upload may begin instead
//! POST  blobs/uploads/                               202   Location: where to upload
//! PUT   <location>?digest=<digest>                   201   the whole blob in one request
//! PATCH <location>, Content-Range: 0-4194303 …       202   or, where that is refused, in pieces
//! PATCH <location>, Transfer-Encoding: chunked       202   or, where it is made as it is sent, in one that has no length
//! ```
//!
//! An upload that breaks starts over in a new session, a large one in pieces from then on: the way is one on which uploads break. Of a
//! piece that breaks is sent again, from memory, what the registry says has not arrived.

use std::future::Future;
use std::io::{self, Read};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::stream;
use rbuild_image::{Descriptor, Digest, Hasher, MediaType, Reference};
use reqwest::header::{
    CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE,
};
use reqwest::{Body, Method, Url};
use tokio::sync::mpsc;

use crate::resolve::{selector, stated_digest};
use crate::session::{Session, Target};
use crate::transport::{Answer, Call};
use crate::{BlobUpload, Error, OpenBlob, Result, ShownUrl, Watch};

/// How many repositories are tried for a mount; each costs a round trip.
const MOUNT_SOURCES_MAX: usize = 3;
/// What one piece of a chunked upload has. Larger ones are refused by well-known registries.
const CHUNK_SIZE_BYTES: usize = 4 * 1024 * 1024;
/// A registry may ask for larger pieces, which are held in memory.
const CHUNK_SIZE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What is read of a blob, and counted, at once.
const READ_SIZE_BYTES: usize = 128 * 1024;
/// How many pieces of [`READ_SIZE_BYTES`] are read ahead of the connection.
const READ_AHEAD: usize = 8;
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// How a blob is sent.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// In one request.
    Whole,
    /// In pieces, after each of which the registry says what it has.
    Pieces,
}

/// How a blob came to be in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushOutcome {
    /// It was there.
    AlreadyThere,
    /// The registry took it from another of its repositories.
    Mounted {
        /// Which one.
        from: String,
    },
    /// It was sent.
    Uploaded,
}

impl Session {
    pub(crate) async fn push_blob(
        &self,
        reference: &Reference,
        upload: &BlobUpload<'_>,
        watch: Watch<'_>,
    ) -> Result<PushOutcome> {
        let _permit = self.transfers.acquire().await.map_err(|_| Error::Cancelled)?;
        let target = self.target(reference, "pull,push").await?;
        if let Some(there) = self.find(&target, upload.descriptor.digest, upload.mount_from).await? {
            return Ok(there);
        }
        let mut forms = [Form::Whole, Form::Pieces];
        self.transport
            .retry(async || {
                let sent = renewed(async || self.upload(&target, (upload, forms), watch).await).await;
                if upload.descriptor.size_bytes > CHUNK_SIZE_BYTES as u64 {
                    forms = [Form::Pieces, Form::Whole];
                }
                sent
            })
            .await?;
        Ok(PushOutcome::Uploaded)
    }

    pub(crate) async fn find_blob(
        &self,
        reference: &Reference,
        digest: Digest,
        mount_from: &[String],
    ) -> Result<Option<PushOutcome>> {
        let target = self.target(reference, "pull,push").await?;
        self.find(&target, digest, mount_from).await
    }

    /// How a blob is there without being sent.
    async fn find(
        &self,
        target: &Target,
        digest: Digest,
        mount_from: &[String],
    ) -> Result<Option<PushOutcome>> {
        if self.has_blob(target, digest).await? {
            return Ok(Some(PushOutcome::AlreadyThere));
        }
        for from in mount_from.iter().take(MOUNT_SOURCES_MAX) {
            if self.mount(target, digest, from).await? {
                return Ok(Some(PushOutcome::Mounted { from: from.clone() }));
            }
        }
        Ok(None)
    }

    pub(crate) async fn push_unnamed(
        &self,
        reference: &Reference,
        open: OpenBlob<'_>,
        watch: Watch<'_>,
    ) -> Result<(Digest, u64)> {
        let _permit = self.transfers.acquire().await.map_err(|_| Error::Cancelled)?;
        let target = self.target(reference, "pull,push").await?;
        self.transport.retry(async || renewed(async || self.stream(&target, open, watch).await).await).await
    }

    /// One upload of what has no name before its end.
    async fn stream(&self, target: &Target, open: OpenBlob<'_>, watch: Watch<'_>) -> Result<(Digest, u64)> {
        let (location, _) = self.open_session(target).await?;
        let mut blob = Unnamed::open(open)?;
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let mut call = Call::new(Method::PATCH, location).header(CONTENT_TYPE, OCTETS);
        call.body = Some(streamed(receiver));
        let feeding = async { blob.feed(sender, watch).await };
        let answer = with_feeder(self.request_once(target, &[201, 202, 204], call), feeding).await?;
        let digest = blob.digest()?;
        let url = with_digest(place_of_upload(&answer)?, digest);
        let call = || upload_call(Method::PUT, url.clone(), 0);
        check_stated(&self.request(target, &[201, 202, 204], call).await?, digest)?;
        Ok((digest, blob.read_bytes))
    }

    async fn has_blob(&self, target: &Target, digest: Digest) -> Result<bool> {
        let url = target.url(&format!("blobs/{digest}"))?;
        match self.request_with_retries(target, &[200], || Call::new(Method::HEAD, url.clone())).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Asks for a blob of another repository. A refusal is no error: there is the upload yet.
    async fn mount(&self, target: &Target, digest: Digest, from: &str) -> Result<bool> {
        if from == target.access.repository {
            return Ok(false);
        }
        let mut url = target.url("blobs/uploads/")?;
        url.query_pairs_mut().append_pair("mount", &digest.to_string()).append_pair("from", from);
        let wider = target.and_pull(from);
        let call =
            || Call::new(Method::POST, url.clone()).header(CONTENT_LENGTH, HeaderValue::from_static("0"));
        match self.request_with_retries(&wider, &[201, 202], call).await {
            Ok(answer) if answer.status().as_u16() == 201 => Ok(true),
            Ok(answer) => {
                self.abandon(target, &answer).await;
                Ok(false)
            }
            Err(Error::Status(error)) if error.status < 500 && error.status != 429 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Closes an upload session that was opened instead of a mount. If that fails the registry will time it out.
    async fn abandon(&self, target: &Target, answer: &Answer) {
        if let Ok(location) = place_of_upload(answer) {
            let call = || Call::new(Method::DELETE, location.clone());
            self.request(target, &[200, 202, 204], call).await.ok();
        }
    }

    /// One upload from beginning to end, in the first of the forms or, where that is refused, in the other.
    async fn upload(
        &self,
        target: &Target,
        (upload, [first, other]): (&BlobUpload<'_>, [Form; 2]),
        watch: Watch<'_>,
    ) -> Result<()> {
        match self.upload_as(target, (upload, first), watch).await {
            Err(error) if error.refuses_form() => self.upload_as(target, (upload, other), watch).await,
            result => result,
        }
    }

    async fn upload_as(
        &self,
        target: &Target,
        (upload, form): (&BlobUpload<'_>, Form),
        watch: Watch<'_>,
    ) -> Result<()> {
        let (location, chunk_size_bytes) = self.open_session(target).await?;
        match form {
            Form::Whole => self.put_whole(target, location, upload, watch).await,
            Form::Pieces => self.put_in_pieces(target, location, (upload, chunk_size_bytes), watch).await,
        }
    }

    /// Where to upload to, and in pieces of which size if it comes to that.
    async fn open_session(&self, target: &Target) -> Result<(Url, usize)> {
        let url = target.url("blobs/uploads/")?;
        let call =
            || Call::new(Method::POST, url.clone()).header(CONTENT_LENGTH, HeaderValue::from_static("0"));
        let answer = self.request_with_retries(target, &[202], call).await?;
        let asked = answer.text(&CHUNK_MIN_LENGTH).and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok((place_of_upload(&answer)?, CHUNK_SIZE_BYTES.max(asked).min(CHUNK_SIZE_BYTES_MAX)))
    }

    async fn put_whole(
        &self,
        target: &Target,
        location: Url,
        upload: &BlobUpload<'_>,
        watch: Watch<'_>,
    ) -> Result<()> {
        let mut blob = Blob::open(upload)?;
        let url = with_digest(location, upload.descriptor.digest);
        let (sender, receiver) = mpsc::channel(READ_AHEAD);
        let mut call = upload_call(Method::PUT, url, upload.descriptor.size_bytes);
        call.body = Some(streamed(receiver));
        let feeding = async { blob.feed(sender, watch).await };
        let answer = with_feeder(self.request_once(target, &[201, 202, 204], call), feeding).await?;
        check_stated(&answer, upload.descriptor.digest)
    }

    async fn put_in_pieces(
        &self,
        target: &Target,
        mut location: Url,
        (upload, chunk_size_bytes): (&BlobUpload<'_>, usize),
        watch: Watch<'_>,
    ) -> Result<()> {
        let mut blob = Blob::open(upload)?;
        loop {
            let start = blob.read_bytes;
            let piece = blob.read_up_to(chunk_size_bytes)?;
            if piece.is_empty() {
                break;
            }
            location = self.patch(target, location, start, piece).await?;
            (watch.progress)(blob.read_bytes);
        }
        let url = with_digest(location, upload.descriptor.digest);
        let call = || upload_call(Method::PUT, url.clone(), 0);
        let answer = self.request(target, &[201, 202, 204], call).await?;
        check_stated(&answer, upload.descriptor.digest)
    }

    /// Sends one piece, what is missing of it again if it must be, and gives the place of the next.
    async fn patch(&self, target: &Target, mut location: Url, start: u64, piece: Bytes) -> Result<Url> {
        let end = start + piece.len() as u64;
        let mut rest = piece.clone();
        let mut failed_before = false;
        self.transport
            .retry(async || {
                if std::mem::replace(&mut failed_before, true) {
                    let (arrived, next) = self.upload_status(target, &location).await?;
                    if arrived == end {
                        return Ok(next);
                    }
                    location = next;
                    let known = arrived.clamp(start, end) - start;
                    rest = piece.slice(usize::try_from(known).unwrap_or(0)..);
                }
                let length = rest.len() as u64;
                let range = format!("{}-{}", end - length, end - 1);
                let range = HeaderValue::try_from(range).expect("digits make a valid header");
                let call = || {
                    let mut call = upload_call(Method::PATCH, location.clone(), length)
                        .header(CONTENT_RANGE, range.clone());
                    call.body = Some(rest.clone().into());
                    call
                };
                place_of_upload(&self.request(target, &[201, 202, 204], call).await?)
            })
            .await
    }

    /// How much of an upload has arrived, and where it goes on.
    async fn upload_status(&self, target: &Target, location: &Url) -> Result<(u64, Url)> {
        let answer = self.request(target, &[204], || Call::new(Method::GET, location.clone())).await?;
        let last = answer.text(&RANGE).and_then(|range| range.split_once('-')?.1.parse::<u64>().ok());
        // `0-0` is what registries say of an upload that has nothing yet.
        let arrived = last.filter(|last| *last > 0).map_or(0, |last| last.saturating_add(1));
        Ok((arrived, place_of_upload(&answer)?))
    }

    pub(crate) async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &MediaType,
        bytes: &[u8],
    ) -> Result<Digest> {
        let target = self.target(reference, "pull,push").await?;
        let url = target.url(&format!("manifests/{}", selector(reference)))?;
        let digest = Digest::of(bytes);
        match reference.digest() {
            Some(expected) if expected != digest => {
                return Err(Error::DigestMismatch { url: ShownUrl::of(&url), expected, found: digest });
            }
            _ => {}
        }
        let content_type = HeaderValue::from_str(media_type.as_str())
            .map_err(|_| Error::Header { name: CONTENT_TYPE.to_string() })?;
        let body = Bytes::copy_from_slice(bytes);
        let call = || Call {
            body: Some(body.clone().into()),
            ..Call::new(Method::PUT, url.clone()).header(CONTENT_TYPE, content_type.clone())
        };
        let answer = self.request_with_retries(&target, &[200, 201, 202], call).await?;
        check_stated(&answer, digest)?;
        Ok(digest)
    }
}

/// An upload whose token may run out between the opening of the session and the body, once.
async fn renewed<T>(upload: impl AsyncFn() -> Result<T>) -> Result<T> {
    match upload().await {
        Err(Error::Status(error)) if error.status == 401 => upload().await,
        result => result,
    }
}

/// Where an upload goes on. It may be relative.
fn place_of_upload(answer: &Answer) -> Result<Url> {
    let missing = || Error::Protocol { url: answer.shown(), missing: "the place of the upload" };
    let location = answer.response.url().join(answer.text(&LOCATION).ok_or_else(missing)?);
    let usable = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    location.ok().filter(usable).ok_or_else(missing)
}

/// Closes an upload by naming its content; what the registry put into the query stays.
fn with_digest(mut location: Url, digest: Digest) -> Url {
    location.query_pairs_mut().append_pair("digest", &digest.to_string());
    location
}

fn upload_call(method: Method, url: Url, size_bytes: u64) -> Call {
    Call::new(method, url).header(CONTENT_TYPE, OCTETS).header(CONTENT_LENGTH, HeaderValue::from(size_bytes))
}

/// A registry that states a digest must state ours.
fn check_stated(answer: &Answer, expected: Digest) -> Result<()> {
    match stated_digest(answer) {
        Some(found) if found != expected => {
            Err(Error::DigestMismatch { url: answer.shown(), expected, found })
        }
        _ => Ok(()),
    }
}

/// A body that sends what it is fed.
fn streamed(receiver: mpsc::Receiver<io::Result<Bytes>>) -> Body {
    Body::wrap_stream(stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|piece| (piece, receiver))
    }))
}

/// Runs a request beside what feeds its body. An early answer ends the feeding, a failed feeding the request.
async fn with_feeder<T>(
    request: impl Future<Output = Result<T>>,
    feeding: impl Future<Output = Result<()>>,
) -> Result<T> {
    let (mut request, mut feeding) = (std::pin::pin!(request), std::pin::pin!(feeding));
    tokio::select! {
        biased;
        answer = request.as_mut() => answer,
        fed = feeding.as_mut() => {
            fed?;
            request.await
        }
    }
}

/// What an upload reads, piece by piece.
trait Pieces {
    /// The next piece; empty at the end.
    fn next_piece(&mut self) -> Result<Bytes>;

    /// How much has been read.
    fn read_bytes(&self) -> u64;

    /// Feeds all of it to a request, in this thread, while the connection's thread sends it.
    async fn feed(&mut self, sender: mpsc::Sender<io::Result<Bytes>>, watch: Watch<'_>) -> Result<()> {
        loop {
            if watch.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let piece = self.next_piece()?;
            // Nobody listens when the answer has come early; the request knows why.
            if piece.is_empty() || sender.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
            (watch.progress)(self.read_bytes());
        }
    }
}

/// A blob as it is read for upload.
struct Blob<'a> {
    descriptor: &'a Descriptor,
    reader: Box<dyn Read + Send>,
    read_bytes: u64,
}

impl<'a> Blob<'a> {
    fn open(upload: &BlobUpload<'a>) -> Result<Self> {
        let descriptor = upload.descriptor;
        let reader = (upload.open)().map_err(|source| Error::Source { digest: descriptor.digest, source })?;
        Ok(Self { descriptor, reader, read_bytes: 0 })
    }

    /// The next piece; empty at the end. The last one is checked to be the last.
    fn read_up_to(&mut self, size_bytes: usize) -> Result<Bytes> {
        let piece = read_up_to(&mut self.reader, size_bytes)
            .map_err(|source| Error::Source { digest: self.descriptor.digest, source })?;
        self.read_bytes += piece.len() as u64;
        let expected_bytes = self.descriptor.size_bytes;
        if self.read_bytes > expected_bytes || (piece.is_empty() && self.read_bytes < expected_bytes) {
            return Err(Error::SourceSize {
                digest: self.descriptor.digest,
                expected_bytes,
                found_bytes: self.read_bytes,
            });
        }
        Ok(piece)
    }
}

impl Pieces for Blob<'_> {
    fn next_piece(&mut self) -> Result<Bytes> {
        self.read_up_to(READ_SIZE_BYTES)
    }

    fn read_bytes(&self) -> u64 {
        self.read_bytes
    }
}

/// A blob whose name is known once it has been read.
struct Unnamed {
    reader: Box<dyn Read + Send>,
    hasher: Hasher,
    read_bytes: u64,
    at_end: bool,
}

impl Unnamed {
    fn open(open: OpenBlob<'_>) -> Result<Self> {
        let reader = open().map_err(|source| Error::UnnamedSource { source })?;
        Ok(Self { reader, hasher: Hasher::default(), read_bytes: 0, at_end: false })
    }

    /// The digest of all of it. A registry that says it has everything before it was given everything is mistaken.
    fn digest(&mut self) -> Result<Digest> {
        if !self.at_end {
            let source = io::ErrorKind::UnexpectedEof.into();
            return Err(Error::UnnamedSource { source });
        }
        Ok(std::mem::take(&mut self.hasher).finish())
    }
}

impl Pieces for Unnamed {
    fn next_piece(&mut self) -> Result<Bytes> {
        let piece = read_up_to(&mut self.reader, READ_SIZE_BYTES)
            .map_err(|source| Error::UnnamedSource { source })?;
        self.hasher.update(&piece);
        self.read_bytes += piece.len() as u64;
        self.at_end = piece.is_empty();
        Ok(piece)
    }

    fn read_bytes(&self) -> u64 {
        self.read_bytes
    }
}

/// The next bytes, fewer only at the end.
pub(crate) fn read_up_to(reader: &mut dyn Read, size_bytes: usize) -> io::Result<Bytes> {
    let mut piece = Vec::with_capacity(size_bytes.min(READ_SIZE_BYTES));
    reader.take(size_bytes as u64).read_to_end(&mut piece)?;
    Ok(piece.into())
}
