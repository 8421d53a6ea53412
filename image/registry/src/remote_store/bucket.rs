//! Object stores: S3 and what speaks its protocol, Google's, Azure's, and a directory.
//!
//! ```text
//! <prefix>records/<name>          documents
//! <prefix>blobs/sha256/<hex>      blobs
//! ```
//!
//! The crate `object_store` signs requests and repeats those that fail in passing. What it does not do is done here: a download
//! that breaks goes on where it broke, and is verified as it comes.

use std::fmt;
use std::io::{Read, Write};
use std::path::Path as DiskPath;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    Certificate, ClientOptions as HttpOptions, GetOptions, GetRange, ObjectStore, ObjectStoreExt as _,
    RetryConfig, WriteMultipart,
};
use rbuild_image::{Descriptor, Digest, Hasher};

use crate::push::read_up_to;
use crate::transport::install_cryptography;
use crate::{BlobUpload, ClientOptions, Error, PushOutcome, Result, Secret, ShownUrl, Watch};

/// What one part of an upload has; the least that S3 takes is 5 MiB.
const PART_SIZE_BYTES: usize = 8 * 1024 * 1024;
/// How many parts are on their way at a time.
const PARTS_AT_ONCE: usize = 4;
/// How often a request that failed in passing is sent again, and for how long.
const RETRIES: usize = 4;
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a part may take to be sent: the HTTP client counts that as waiting for an answer. A slow line has some 70 kB a second.
pub(super) const PART_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a download may break without having brought anything.
const BREAKS_MAX: u32 = 3;

/// Which protocol a bucket speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BucketKind {
    /// Amazon's, and that of many others.
    S3 {
        /// Where it is.
        region: Option<String>,
        /// `http(s)://host[:port]`, where it is not Amazon's.
        endpoint: Option<String>,
        /// Whether the bucket is a part of the path rather than of the host's name.
        path_style: bool,
        /// The name of the key; without one it is asked of the machine's metadata service.
        access_key_id: Option<String>,
        /// The key.
        secret_access_key: Option<Secret>,
        /// Of keys that expire.
        session_token: Option<Secret>,
    },
    /// Google's.
    Gcs {
        /// The JSON of a service account, where it is not the machine's own.
        service_account: Option<Secret>,
        /// `http(s)://host[:port]`, where it is not Google's.
        endpoint: Option<String>,
    },
    /// Azure's.
    Azure {
        /// The account.
        account: String,
        /// Its key, where it is not the machine's own identity.
        access_key: Option<Secret>,
        /// `http(s)://host[:port]`, where it is not Azure's.
        endpoint: Option<String>,
    },
}

/// A bucket of an object store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BucketOptions {
    /// Its name; Azure calls it a container.
    pub bucket: String,
    /// What all names in it begin with.
    pub prefix: String,
    /// What it speaks.
    pub kind: BucketKind,
}

/// A bucket, and the way to it.
#[derive(Clone)]
pub(super) struct Bucket {
    pub(super) store: Arc<dyn ObjectStore>,
    /// The same, with more patience.
    uploads: Arc<dyn ObjectStore>,
    prefix: String,
    /// `s3://bucket/prefix`.
    shown: String,
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Bucket {
    pub(super) fn directory(path: &DiskPath) -> Result<Self> {
        let shown = path.display().to_string();
        let failed = |source| Error::Object { verb: "open", object: shown.clone(), source };
        std::fs::create_dir_all(path).map_err(|source| failed(object_store_error(source)))?;
        let store: Arc<dyn ObjectStore> = Arc::new(LocalFileSystem::new_with_prefix(path).map_err(failed)?);
        Ok(Self { uploads: Arc::clone(&store), store, prefix: String::new(), shown })
    }

    pub(super) fn new(options: &BucketOptions, client: &ClientOptions) -> Result<Self> {
        install_cryptography();
        let scheme = match options.kind {
            BucketKind::S3 { .. } => "s3",
            BucketKind::Gcs { .. } => "gs",
            BucketKind::Azure { .. } => "az",
        };
        let shown = format!("{scheme}://{}/{}", options.bucket, options.prefix);
        let store = |read_timeout| {
            build(options, http_options(client, &options.kind)?.with_read_timeout(read_timeout))
                .map_err(|source| Error::Object { verb: "open", object: shown.clone(), source })
        };
        let (store, uploads) = (store(client.read_timeout)?, store(client.read_timeout.max(PART_TIMEOUT))?);
        Ok(Self { store, uploads, prefix: options.prefix.clone(), shown })
    }

    /// A store whose objects have names of others' making, with one that has more patience.
    pub(super) fn of(store: impl ObjectStore, uploads: impl ObjectStore, shown: String) -> Self {
        Self { store: Arc::new(store), uploads: Arc::new(uploads), prefix: String::new(), shown }
    }

    pub(super) fn path(&self, rest: &str) -> Path {
        Path::from(format!("{}{rest}", self.prefix))
    }

    pub(super) fn document_path(&self, name: &str) -> Path {
        self.path(&format!("records/{name}"))
    }

    pub(super) fn blob(&self, digest: Digest) -> Path {
        self.path(&format!("blobs/sha256/{}", digest.hex()))
    }

    pub(super) fn failed(&self, verb: &'static str, path: &Path) -> impl Fn(object_store::Error) -> Error {
        let object = format!("{} of {}", path, self.shown);
        move |source| Error::Object { verb, object: object.clone(), source }
    }

    pub(super) async fn has_blob(&self, digest: Digest) -> Result<bool> {
        let path = self.blob(digest);
        match self.store.head(&path).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(source) => Err(self.failed("look for", &path)(source)),
        }
    }

    pub(super) async fn push_blob(&self, upload: &BlobUpload<'_>, watch: Watch<'_>) -> Result<PushOutcome> {
        let digest = upload.descriptor.digest;
        if self.has_blob(digest).await? {
            return Ok(PushOutcome::AlreadyThere);
        }
        self.write(&self.blob(digest), upload, watch).await?;
        Ok(PushOutcome::Uploaded)
    }

    /// Writes an object, which comes into being whole, and as its descriptor says.
    pub(super) async fn write(&self, path: &Path, upload: &BlobUpload<'_>, watch: Watch<'_>) -> Result<()> {
        let digest = upload.descriptor.digest;
        let failed = self.failed("write", path);
        let mut source = Verified::new(upload)?;
        let first = source.next_part()?;
        if first.len() < PART_SIZE_BYTES {
            source.finish(digest)?;
            return self.uploads.put(path, first.into()).await.map(drop).map_err(failed);
        }
        let parts = self.uploads.put_multipart(path).await.map_err(&failed)?;
        let mut writer = WriteMultipart::new_with_chunk_size(parts, PART_SIZE_BYTES);
        let mut part = first;
        // An object comes into being when its last part is announced, and that is done once all has been verified.
        let sent = async {
            while !part.is_empty() {
                if watch.cancel.load(Ordering::Relaxed) {
                    return Err(Error::Cancelled);
                }
                writer.wait_for_capacity(PARTS_AT_ONCE).await.map_err(&failed)?;
                writer.put(part);
                (watch.progress)(source.hasher.size_bytes());
                part = source.next_part()?;
            }
            source.finish(digest)
        };
        if let Err(error) = sent.await {
            writer.abort().await.ok();
            return Err(error);
        }
        writer.finish().await.map(drop).map_err(failed)
    }

    pub(super) async fn fetch_blob(
        &self,
        descriptor: &Descriptor,
        sink: &mut dyn Write,
        watch: Watch<'_>,
    ) -> Result<()> {
        self.read(&self.blob(descriptor.digest), descriptor, sink, watch).await
    }

    /// Writes an object to `sink`, however often it breaks off on the way.
    pub(super) async fn read(
        &self,
        path: &Path,
        descriptor: &Descriptor,
        sink: &mut dyn Write,
        watch: Watch<'_>,
    ) -> Result<()> {
        let mut hasher = Hasher::default();
        let mut breaks = 0;
        while hasher.size_bytes() < descriptor.size_bytes {
            let before = hasher.size_bytes();
            let attempt = self.fetch_rest(path, descriptor, (&mut hasher, sink), watch).await;
            let Err(error) = attempt else { continue };
            breaks = if hasher.size_bytes() > before { 1 } else { breaks + 1 };
            if breaks > BREAKS_MAX || !matches!(error, Error::Object { .. }) || error.is_not_found() {
                return Err(error);
            }
        }
        let found = hasher.finish();
        if found == descriptor.digest {
            return Ok(());
        }
        let url = ShownUrl::object(format!("{path} of {}", self.shown));
        Err(Error::DigestMismatch { url, expected: descriptor.digest, found })
    }

    /// One attempt at what is missing of a blob.
    async fn fetch_rest(
        &self,
        path: &Path,
        descriptor: &Descriptor,
        (hasher, sink): (&mut Hasher, &mut dyn Write),
        watch: Watch<'_>,
    ) -> Result<()> {
        let failed = self.failed("read", path);
        let url = || ShownUrl::object(format!("{path} of {}", self.shown));
        let range = Some(GetRange::Offset(hasher.size_bytes())).filter(|_| hasher.size_bytes() > 0);
        let found = self.store.get_opts(path, GetOptions { range, ..GetOptions::default() });
        let found = found.await.map_err(&failed)?;
        let found_bytes = found.meta.size;
        if found_bytes != descriptor.size_bytes {
            let expected_bytes = descriptor.size_bytes;
            return Err(Error::SizeMismatch { url: url(), expected_bytes, found_bytes });
        }
        let mut pieces = found.into_stream();
        while let Some(piece) = pieces.next().await {
            if watch.cancel.load(Ordering::Relaxed) {
                return Err(Error::Cancelled);
            }
            let piece = piece.map_err(&failed)?;
            if hasher.size_bytes() + piece.len() as u64 > descriptor.size_bytes {
                return Err(Error::TooLarge { url: url(), limit_bytes: descriptor.size_bytes });
            }
            sink.write_all(&piece).map_err(|source| Error::Sink { url: url(), source })?;
            hasher.update(&piece);
            (watch.progress)(hasher.size_bytes());
        }
        Ok(())
    }

    pub(super) async fn document(&self, name: &str, size_bytes_max: u64) -> Result<Vec<u8>> {
        self.read_document(&self.document_path(name), size_bytes_max).await
    }

    /// A small object as it is.
    pub(super) async fn read_document(&self, path: &Path, size_bytes_max: u64) -> Result<Vec<u8>> {
        let failed = self.failed("read", path);
        let found = self.store.get(path).await.map_err(&failed)?;
        let too_large = || Error::TooLarge {
            url: ShownUrl::object(format!("{path} of {}", self.shown)),
            limit_bytes: size_bytes_max,
        };
        let mut document = Vec::new();
        let mut pieces = found.into_stream();
        while let Some(piece) = pieces.next().await {
            document.extend_from_slice(&piece.map_err(&failed)?);
            if document.len() as u64 > size_bytes_max {
                return Err(too_large());
            }
        }
        Ok(document)
    }

    pub(super) async fn put_document(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.document_path(name);
        let payload = Bytes::copy_from_slice(bytes).into();
        self.store.put(&path, payload).await.map(drop).map_err(self.failed("write", &path))
    }
}

/// A blob that is compared with its descriptor as it is read.
struct Verified<'a> {
    descriptor: &'a Descriptor,
    reader: Box<dyn Read + Send>,
    hasher: Hasher,
}

impl<'a> Verified<'a> {
    fn new(upload: &BlobUpload<'a>) -> Result<Self> {
        let descriptor = upload.descriptor;
        let reader = (upload.open)().map_err(|source| Error::Source { digest: descriptor.digest, source })?;
        Ok(Self { descriptor, reader, hasher: Hasher::default() })
    }

    fn next_part(&mut self) -> Result<Bytes> {
        let part = read_up_to(&mut self.reader, PART_SIZE_BYTES)
            .map_err(|source| Error::Source { digest: self.descriptor.digest, source })?;
        self.hasher.update(&part);
        Ok(part)
    }

    fn finish(&mut self, expected: Digest) -> Result<()> {
        let found_bytes = self.hasher.size_bytes();
        let found = std::mem::take(&mut self.hasher).finish();
        if found == expected {
            return Ok(());
        }
        let expected_bytes = self.descriptor.size_bytes;
        Err(Error::SourceSize { digest: expected, expected_bytes, found_bytes })
    }
}

pub(super) fn retry_config() -> RetryConfig {
    RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_TIMEOUT, ..RetryConfig::default() }
}

fn build(options: &BucketOptions, http: HttpOptions) -> object_store::Result<Arc<dyn ObjectStore>> {
    let retry = retry_config();
    let bucket = &options.bucket;
    Ok(match &options.kind {
        BucketKind::S3 { region, endpoint, path_style, access_key_id, secret_access_key, session_token } => {
            let mut builder = AmazonS3Builder::new()
                .with_bucket_name(bucket)
                .with_virtual_hosted_style_request(!path_style)
                .with_retry(retry)
                .with_client_options(http);
            builder = with(builder, region.as_deref(), AmazonS3Builder::with_region);
            builder = with(builder, endpoint.as_deref(), AmazonS3Builder::with_endpoint);
            builder = with(builder, access_key_id.as_deref(), AmazonS3Builder::with_access_key_id);
            builder = with(builder, exposed(secret_access_key), AmazonS3Builder::with_secret_access_key);
            builder = with(builder, exposed(session_token), AmazonS3Builder::with_token);
            Arc::new(builder.build()?)
        }
        BucketKind::Gcs { service_account, endpoint } => {
            let mut builder = GoogleCloudStorageBuilder::new()
                .with_bucket_name(bucket)
                .with_retry(retry)
                .with_client_options(http);
            builder =
                with(builder, exposed(service_account), GoogleCloudStorageBuilder::with_service_account_key);
            builder = with(builder, endpoint.as_deref(), GoogleCloudStorageBuilder::with_base_url);
            Arc::new(builder.build()?)
        }
        BucketKind::Azure { account, access_key, endpoint } => {
            let mut builder = MicrosoftAzureBuilder::new()
                .with_account(account)
                .with_container_name(bucket)
                .with_retry(retry)
                .with_client_options(http);
            builder = with(builder, exposed(access_key), MicrosoftAzureBuilder::with_access_key);
            builder = with(builder, endpoint.clone(), MicrosoftAzureBuilder::with_endpoint);
            Arc::new(builder.build()?)
        }
    })
}

fn with<B, V>(builder: B, value: Option<V>, set: impl FnOnce(B, V) -> B) -> B {
    match value {
        Some(value) => set(builder, value),
        None => builder,
    }
}

fn exposed(secret: &Option<Secret>) -> Option<&str> {
    secret.as_ref().map(Secret::expose)
}

/// The client's settings for requests that `object_store` sends.
fn http_options(options: &ClientOptions, kind: &BucketKind) -> Result<HttpOptions> {
    let (BucketKind::S3 { endpoint, .. }
    | BucketKind::Gcs { endpoint, .. }
    | BucketKind::Azure { endpoint, .. }) = kind;
    let is_plain = endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let mut http = HttpOptions::new()
        .with_allow_http(is_plain)
        .with_connect_timeout(options.connect_timeout)
        .with_timeout_disabled()
        .with_proxy_excludes(options.proxies.bypass_with_loopback());
    for bundle in &options.certificates {
        let certificates = Certificate::from_pem_bundle(bundle);
        let certificates = certificates.map_err(|source| Error::Object {
            verb: "use the certificates for",
            object: "an object store".to_owned(),
            source,
        })?;
        http = certificates.into_iter().fold(http, HttpOptions::with_root_certificate);
    }
    let proxy = if is_plain { &options.proxies.http } else { &options.proxies.https };
    Ok(match proxy {
        Some(proxy) => http.with_proxy_url(proxy.expose()),
        None => http,
    })
}

fn object_store_error(source: std::io::Error) -> object_store::Error {
    object_store::Error::Generic { store: "directory", source: Box::new(source) }
}
