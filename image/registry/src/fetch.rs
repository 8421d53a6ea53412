//! Blobs to a sink: verified while they stream, resumed where a connection broke.
//!
//! A [`Received`] remembers over all attempts what the sink was given. Each attempt asks for the rest with a
//! `Range`. A server that sends more than the rest, down to the whole blob again, is accepted: what the sink has is
//! skipped. Digest and size are checked once the last byte is there.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rbuild_image::{Descriptor, Digest, Hasher, Reference};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, Url};
use tokio::time::Instant;

use crate::session::{Session, Target};
use crate::transport::{Answer, Call};
use crate::{Error, Result, ShownUrl, Watch};

/// An attempt that brought this much counts as a success: the next cut is a first failure again.
const ATTEMPT_PROGRESS_BYTES_MIN: u64 = 256 * 1024;
/// What has to arrive within one read timeout; a server below it holds the line without serving.
const TRICKLE_BYTES_MIN: u64 = 1024;

impl Session {
    pub(crate) async fn fetch_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        sink: &mut dyn Write,
        watch: Watch<'_>,
    ) -> Result<()> {
        let _permit = self.transfers.acquire().await.map_err(|_| Error::Cancelled)?;
        let target = self.target(reference, "pull").await?;
        let shown = ShownUrl::of(&blob_url(&target, descriptor)?);
        let mut received = Received::new(sink, watch, descriptor.size_bytes, shown);
        // What one place began another may end: all have the same bytes, or the digest is wrong in the end.
        self.anywhere(reference, async |place| {
            let target = self.target(place, "pull").await?;
            let url = blob_url(&target, descriptor)?;
            let attempt = async |received: &mut Received<'_>| {
                self.fetch_rest(&target, &url, descriptor.size_bytes, received).await
            };
            self.resume(&mut received, attempt).await
        })
        .await?;
        received.verify(descriptor.digest)
    }

    /// Makes attempts until one is through.
    pub(crate) async fn resume(
        &self,
        received: &mut Received<'_>,
        mut attempt: impl AsyncFnMut(&mut Received<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut failures = 0;
        loop {
            let before_bytes = received.size_bytes();
            let Err(error) = attempt(received).await else { return Ok(()) };
            let got_on = received.size_bytes() - before_bytes >= ATTEMPT_PROGRESS_BYTES_MIN;
            failures = if got_on { 1 } else { failures + 1 };
            self.transport.back_off(error, failures).await?;
        }
    }

    /// One attempt at what is missing of a blob.
    async fn fetch_rest(
        &self,
        target: &Target,
        url: &Url,
        expected_bytes: u64,
        received: &mut Received<'_>,
    ) -> Result<()> {
        let start = received.size_bytes();
        let answer = self.request(target, &[200, 206], || ranged(Call::new(Method::GET, url.clone()), start));
        let answer = answer.await?;
        check_length(&answer, expected_bytes)?;
        received.take(answer, self.transport.options.read_timeout).await?;
        match received.size_bytes() {
            complete if complete == expected_bytes => Ok(()),
            received_bytes => Err(Error::Cut { url: ShownUrl::of(url), received_bytes }),
        }
    }
}

fn blob_url(target: &Target, descriptor: &Descriptor) -> Result<Url> {
    target.url(&format!("blobs/{}", descriptor.digest))
}

/// A whole blob of another length than its descriptor says is refused before a byte is stored.
fn check_length(answer: &Answer, expected_bytes: u64) -> Result<()> {
    let stated = answer.text(&CONTENT_LENGTH).and_then(|text| text.parse().ok());
    match stated {
        Some(found_bytes) if answer.status().as_u16() == 200 && found_bytes != expected_bytes => {
            Err(Error::SizeMismatch { url: answer.shown(), expected_bytes, found_bytes })
        }
        _ => Ok(()),
    }
}

/// Asks for what comes after the first `start` bytes.
pub(crate) fn ranged(call: Call, start: u64) -> Call {
    if start == 0 {
        return call;
    }
    let range = HeaderValue::try_from(format!("bytes={start}-"));
    call.header(RANGE, range.expect("digits make a valid header"))
}

/// What a sink was given so far.
pub(crate) struct Received<'a> {
    sink: &'a mut dyn Write,
    watch: Watch<'a>,
    hasher: Hasher,
    limit_bytes: u64,
    url: ShownUrl,
}

impl<'a> Received<'a> {
    pub(crate) fn new(sink: &'a mut dyn Write, watch: Watch<'a>, limit_bytes: u64, url: ShownUrl) -> Self {
        Self { sink, watch, hasher: Hasher::default(), limit_bytes, url }
    }

    pub(crate) const fn size_bytes(&self) -> u64 {
        self.hasher.size_bytes()
    }

    pub(crate) const fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Passes on what is new in a `200` or `206`, to the end of its body. A part that is not the last is a cut.
    pub(crate) async fn take(&mut self, mut answer: Answer, read_timeout: Duration) -> Result<()> {
        let mut skip = self.overlap(&answer)?;
        let total = answer.text(&CONTENT_RANGE).and_then(range_total);
        let mut pace = Pace::start(read_timeout);
        while let Some(chunk) = answer.chunk().await? {
            let known = skip.min(chunk.len() as u64);
            skip -= known;
            let fresh = &chunk[usize::try_from(known).unwrap_or(chunk.len())..];
            self.push(fresh)?;
            if pace.is_too_slow(chunk.len() as u64) {
                return Err(Error::Stalled { url: self.url.clone(), received_bytes: self.size_bytes() });
            }
        }
        match total {
            Some(total) if self.size_bytes() < total => {
                Err(Error::Cut { url: self.url.clone(), received_bytes: self.size_bytes() })
            }
            _ => Ok(()),
        }
    }

    /// How much of the answer's body the sink already has.
    fn overlap(&self, answer: &Answer) -> Result<u64> {
        if answer.status().as_u16() == 200 {
            return Ok(self.size_bytes());
        }
        let start = answer.text(&CONTENT_RANGE).and_then(range_start);
        start
            .and_then(|start| self.size_bytes().checked_sub(start))
            .ok_or_else(|| Error::Protocol { url: self.url.clone(), missing: "the range that was asked for" })
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        if self.watch.cancel.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
        if self.size_bytes() + bytes.len() as u64 > self.limit_bytes {
            return Err(Error::TooLarge { url: self.url.clone(), limit_bytes: self.limit_bytes });
        }
        self.sink.write_all(bytes).map_err(|source| Error::Sink { url: self.url.clone(), source })?;
        self.hasher.update(bytes);
        (self.watch.progress)(self.size_bytes());
        Ok(())
    }

    pub(crate) fn verify(self, expected: Digest) -> Result<()> {
        let (url, found) = (self.url.clone(), self.finish());
        if found == expected { Ok(()) } else { Err(Error::DigestMismatch { url, expected, found }) }
    }

    /// The digest of all that the sink was given.
    pub(crate) fn finish(self) -> Digest {
        self.hasher.finish()
    }
}

/// The `N` of `bytes N-M/L`.
fn range_start(header: &str) -> Option<u64> {
    header.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok()
}

/// The `L` of `bytes N-M/L`.
fn range_total(header: &str) -> Option<u64> {
    header.rsplit_once('/')?.1.trim().parse().ok()
}

/// Notices a server that sends, but hardly.
struct Pace {
    window: Duration,
    started: Instant,
    received_bytes: u64,
}

impl Pace {
    fn start(window: Duration) -> Self {
        Self { window, started: Instant::now(), received_bytes: 0 }
    }

    /// Counts what came; whether the window that ends with it brought too little.
    fn is_too_slow(&mut self, bytes: u64) -> bool {
        self.received_bytes += bytes;
        if self.received_bytes >= TRICKLE_BYTES_MIN {
            *self = Self::start(self.window);
        }
        self.started.elapsed() > self.window
    }
}
