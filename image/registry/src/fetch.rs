//! Blobs to a sink: verified while they stream, resumed where a connection broke.
//!
//! A [`Received`] remembers over all attempts what the sink was given. Each attempt asks for the rest with a
//! `Range`. A server that sends more than the rest, down to the whole blob again, is accepted: what the sink has is
//! skipped. Digest and size are checked once the last byte is there.
//!
//! A large blob is fetched in ranges, several at a time over connections of their own, as many as other blobs leave free: a server,
//! or the way to it, often gives one connection less than it has. The sink is given them in their order.
//!
//! What comes is read while the sink is written to: of what waits in the system, the server sends the end a second time.

use std::io::Write;
use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;
use rbuild_image::{Descriptor, Digest, Hasher, Reference};
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, Url};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::session::{Session, Target};
use crate::transport::{Answer, Call};
use crate::{Error, Result, ShownUrl, Watch};

/// An attempt that brought this much counts as a success: the next cut is a first failure again.
const ATTEMPT_PROGRESS_BYTES_MIN: u64 = 256 * 1024;
const THE_RANGE: &str = "the range that was asked for";
/// A blob that has fewer ranges is fetched in one.
pub const RANGES_MIN: u64 = 4;
/// How many ranges of one blob are fetched at a time.
const RANGES_AT_ONCE: usize = 4;
/// How many pieces of a body, of some hundred kilobytes at most, wait for the sink.
const CHUNKS_AHEAD: usize = 8;

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

    /// One attempt at what is missing of a blob. A server shows with the first range whether it serves ranges.
    async fn fetch_rest(
        &self,
        target: &Target,
        url: &Url,
        expected_bytes: u64,
        received: &mut Received<'_>,
    ) -> Result<()> {
        let options = &self.transport.options;
        let rest = received.size_bytes()..expected_bytes;
        let is_large = rest.end - rest.start >= RANGES_MIN * options.range_size_bytes;
        let first = if is_large { rest.start..rest.start + options.range_size_bytes } else { rest.clone() };
        let call = || ranged(Call::new(Method::GET, url.clone()), &first, expected_bytes);
        let answer = self.request(target, &[200, 206], call).await?;
        check_length(&answer, expected_bytes)?;
        received.take(answer).await?;
        if is_large && received.size_bytes() == first.end {
            self.fetch_ranges(target, url, expected_bytes, received).await?;
        }
        match received.size_bytes() {
            complete if complete == expected_bytes => Ok(()),
            received_bytes => Err(Error::Cut { url: ShownUrl::of(url), received_bytes }),
        }
    }

    /// Fetches what is missing in ranges, and passes them on in their order. All but one take the place of a further blob.
    async fn fetch_ranges(
        &self,
        target: &Target,
        url: &Url,
        expected_bytes: u64,
        received: &mut Received<'_>,
    ) -> Result<()> {
        let mut next = received.size_bytes();
        let mut coming = FuturesOrdered::new();
        loop {
            while next < expected_bytes && coming.len() < RANGES_AT_ONCE {
                let place = self.transfers.try_acquire().ok();
                if place.is_none() && !coming.is_empty() {
                    break;
                }
                let end = expected_bytes.min(next + self.transport.options.range_size_bytes);
                let range = next..end;
                next = end;
                coming.push_back(async move {
                    let _place = place;
                    self.fetch_range(target, url, range, expected_bytes).await
                });
            }
            match coming.next().await {
                Some(part) => received.push(&part?)?,
                None => return Ok(()),
            }
        }
    }

    /// One range, whole.
    async fn fetch_range(
        &self,
        target: &Target,
        url: &Url,
        range: Range<u64>,
        expected_bytes: u64,
    ) -> Result<Vec<u8>> {
        let call = || ranged(Call::new(Method::GET, url.clone()), &range, expected_bytes);
        let answer = self.request(target, &[200, 206], call).await?;
        if answer.status().as_u16() == 200 {
            // It serves no ranges any more: the next attempt finds out.
            return Err(Error::Cut { url: ShownUrl::of(url), received_bytes: range.start });
        }
        if answer.text(&CONTENT_RANGE).and_then(range_start) != Some(range.start) {
            return Err(Error::Protocol { url: ShownUrl::of(url), missing: THE_RANGE });
        }
        let mut reading = JoinSet::new();
        reading.spawn(whole(answer, range, ShownUrl::of(url)));
        reading.join_next().await.and_then(Result::ok).unwrap_or(Err(Error::Cancelled))
    }
}

/// Reads a body on while what came of it is written.
async fn read_ahead(mut answer: Answer, sender: mpsc::Sender<Result<Bytes>>) {
    while let Some(chunk) = answer.chunk().await.transpose() {
        let is_last = chunk.is_err();
        // A receiver that is gone wants no more.
        if sender.send(chunk).await.is_err() || is_last {
            return;
        }
    }
}

/// The body of an answer that is this range.
async fn whole(mut answer: Answer, range: Range<u64>, url: ShownUrl) -> Result<Vec<u8>> {
    let limit_bytes = range.end - range.start;
    let mut part = Vec::with_capacity(usize::try_from(limit_bytes).unwrap_or(0));
    let mut pace = answer.pace();
    while let Some(chunk) = answer.chunk().await? {
        part.extend_from_slice(&chunk);
        if part.len() as u64 > limit_bytes {
            return Err(Error::TooLarge { url, limit_bytes });
        }
        if pace.is_too_slow(chunk.len() as u64) {
            return Err(Error::Stalled { url, received_bytes: range.start });
        }
    }
    let is_whole = part.len() as u64 == limit_bytes;
    if is_whole { Ok(part) } else { Err(Error::Cut { url, received_bytes: range.start }) }
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

/// Asks for these of `total` bytes. All of them are asked for without a range, the last ones without an end.
fn ranged(call: Call, range: &Range<u64>, total: u64) -> Call {
    if range.end < total {
        return with_range(call, &format!("bytes={}-{}", range.start, range.end - 1));
    }
    from(call, range.start)
}

/// Asks for what comes after the first `start` bytes.
pub(crate) fn from(call: Call, start: u64) -> Call {
    if start == 0 { call } else { with_range(call, &format!("bytes={start}-")) }
}

fn with_range(call: Call, range: &str) -> Call {
    call.header(RANGE, HeaderValue::from_str(range).expect("digits make a valid header"))
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

    /// Passes on what is new in a `200` or `206`, to the end of its body. Gives the size of the whole, if the server says it.
    pub(crate) async fn take(&mut self, answer: Answer) -> Result<Option<u64>> {
        let mut skip = self.overlap(&answer)?;
        let total = answer.text(&CONTENT_RANGE).and_then(range_total);
        let mut pace = answer.pace();
        let (sender, mut chunks) = mpsc::channel(CHUNKS_AHEAD);
        let mut reading = JoinSet::new();
        reading.spawn(read_ahead(answer, sender));
        while let Some(chunk) = chunks.recv().await {
            let chunk = chunk?;
            let known = skip.min(chunk.len() as u64);
            skip -= known;
            let fresh = &chunk[usize::try_from(known).unwrap_or(chunk.len())..];
            self.push(fresh)?;
            if pace.is_too_slow(chunk.len() as u64) {
                return Err(Error::Stalled { url: self.url.clone(), received_bytes: self.size_bytes() });
            }
        }
        Ok(total)
    }

    /// How much of the answer's body the sink already has.
    fn overlap(&self, answer: &Answer) -> Result<u64> {
        if answer.status().as_u16() == 200 {
            return Ok(self.size_bytes());
        }
        let start = answer.text(&CONTENT_RANGE).and_then(range_start);
        start
            .and_then(|start| self.size_bytes().checked_sub(start))
            .ok_or_else(|| Error::Protocol { url: self.url.clone(), missing: THE_RANGE })
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
