//! Servers in this process: a registry, GitHub's cache service, an object store, each of which can be told to misbehave.
//!
//! [`FakeRegistry`] listens on a port of the loopback interface, keeps repositories in memory, and speaks the
//! distribution protocol, the token protocol and, below `/files/`, plain file serving: enough to pull, push and
//! `ADD` against. It is a [`FaultyServer`]: a [`Fault`] is played for the next requests that fit its method and path. Every request is
//! recorded, so that a test can say what should have gone over the wire.
//!
//! Threads and the standard library only: it shares no code with the client that it tests. [`S3Server`] is no fake, [`FaultyS3`] is one that
//! misbehaves, and a
//! [`Wire`] lies before any of them: it counts what goes over it, and breaks.

mod actions;
mod message;
mod s3;
mod serve;
mod server;
mod wire;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rbuild_image::{Descriptor, DiffId, Digest, ImageConfig, Manifest, MediaType, Platform, Reference};

pub use actions::FakeActions;
pub use message::Request;
pub use s3::{FaultyS3, S3Server};
pub use server::FaultyServer;
use server::lock;
pub use wire::{Moved, Wire};

/// How the next fitting answer goes wrong.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Another status, with these headers and this body.
    Status(u16, Vec<(&'static str, String)>, String),
    /// The connection closes after so many bytes of the body.
    CutAfter(usize),
    /// One bit of the body is wrong.
    WrongBytes,
    /// A shorter body, with the length to match.
    Shorter(usize),
    /// A body that never ends.
    Endless,
    /// One byte of the body at a time, with a pause before each.
    Drip(Duration),
    /// A redirect to this address.
    Redirect(String),
    /// At most so many bytes of the range that was asked for.
    ShortRange(usize),
    /// The whole body, although a range was asked for.
    RangeIgnored,
    /// A range that starts further on than was asked for.
    RangeElsewhere,
    /// No answer.
    Silence,
    /// The request is carried out, and answered with `502`.
    LostAnswer,
    /// Half of the request's body is lost; what there is of it is carried out, and answered with `502`.
    HalfLost,
    /// Further headers on an otherwise good answer.
    Headers(Vec<(&'static str, String)>),
}

/// Whom the registry lets in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Door {
    /// Everybody.
    #[default]
    Open,
    /// A user with a password.
    Basic(String, String),
    /// Bearers of a token, which is given to those who know the user and password, or to everybody if there is
    /// none; a refresh token is the password without the user. A token is good for so many requests.
    Token {
        /// User and password.
        login: Option<(String, String)>,
        /// The requests after which a token has expired.
        uses: usize,
    },
}

/// A file below `/files/`.
#[derive(Debug, Clone, Default)]
pub struct ServedFile {
    /// Its content.
    pub content: Vec<u8>,
    /// Its validator, with its quotes.
    pub etag: Option<String>,
    /// When it was changed, as an HTTP date.
    pub last_modified: Option<String>,
}

#[derive(Debug, Default)]
struct Repository {
    blobs: BTreeMap<String, Vec<u8>>,
    /// By digest: type and bytes.
    manifests: BTreeMap<String, (String, Vec<u8>)>,
    tags: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Token {
    uses_left: usize,
    scopes: Vec<String>,
}

#[derive(Debug, Default)]
struct State {
    repositories: BTreeMap<String, Repository>,
    uploads: HashMap<String, Vec<u8>>,
    files: HashMap<String, ServedFile>,
    door: Door,
    tokens: HashMap<String, Token>,
    /// For names of uploads and tokens.
    counter: usize,
}

impl State {
    fn next_name(&mut self, kind: &str) -> String {
        self.counter += 1;
        format!("{kind}-{}", self.counter)
    }
}

/// A registry in this process. Stops when dropped.
#[derive(Debug)]
pub struct FakeRegistry {
    server: FaultyServer,
    state: Arc<Mutex<State>>,
}

impl Deref for FakeRegistry {
    type Target = FaultyServer;

    fn deref(&self) -> &FaultyServer {
        &self.server
    }
}

impl FakeRegistry {
    /// Starts an empty registry on a free port.
    ///
    /// # Errors
    /// When there is no loopback interface to listen on.
    pub fn start() -> io::Result<Self> {
        let state = Arc::<Mutex<State>>::default();
        let served = Arc::clone(&state);
        let server =
            FaultyServer::start(move |request, host| serve::answer(&mut lock(&served), request, host))?;
        Ok(Self { server, state })
    }

    /// A reference to something of this registry: `app:1`.
    ///
    /// # Panics
    /// When `rest` cannot stand in a reference.
    pub fn reference(&self, rest: &str) -> Reference {
        format!("{}/{rest}", self.name()).parse().expect("a test's reference is well-formed")
    }

    /// Puts a blob into a repository.
    pub fn add_blob(&self, repository: &str, bytes: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(MediaType::OciLayer, bytes);
        let mut state = self.state();
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        repository.blobs.insert(descriptor.digest.to_string(), bytes.to_vec());
        descriptor
    }

    /// Puts a manifest or index into a repository, under its digest and a tag.
    pub fn add_manifest(
        &self,
        repository: &str,
        tag: &str,
        media_type: &MediaType,
        bytes: &[u8],
    ) -> Descriptor {
        let descriptor = Descriptor::of(media_type.clone(), bytes);
        let digest = descriptor.digest.to_string();
        let mut state = self.state();
        let repository = state.repositories.entry(repository.to_owned()).or_default();
        repository.manifests.insert(digest.clone(), (media_type.as_str().to_owned(), bytes.to_vec()));
        repository.tags.insert(tag.to_owned(), digest);
        descriptor
    }

    /// Puts an image of uncompressed layers into a repository.
    pub fn add_image(
        &self,
        repository: &str,
        tag: &str,
        platform: &Platform,
        layers: &[&[u8]],
    ) -> Descriptor {
        let mut config = ImageConfig::new(platform.clone());
        config.rootfs.diff_ids = layers.iter().map(|layer| DiffId(Digest::of(layer))).collect();
        let config = config.to_bytes();
        let layers = layers.iter().map(|layer| self.add_blob(repository, layer)).collect();
        self.add_blob(repository, &config);
        let manifest = Manifest::new(Descriptor::of(MediaType::OciConfig, &config), layers);
        let mut descriptor =
            self.add_manifest(repository, tag, &MediaType::OciManifest, &manifest.to_bytes());
        descriptor.platform = Some(platform.clone());
        descriptor
    }

    /// Serves a file as `/files/<name>`.
    pub fn add_file(&self, name: &str, file: ServedFile) {
        self.state().files.insert(name.to_owned(), file);
    }

    /// Whom to let in from now on.
    pub fn set_door(&self, door: Door) {
        self.state().door = door;
    }

    /// A blob, if the repository has it.
    pub fn blob(&self, repository: &str, digest: Digest) -> Option<Vec<u8>> {
        self.state().repositories.get(repository)?.blobs.get(&digest.to_string()).cloned()
    }

    /// The bytes of a manifest or index, by tag or digest, if the repository has it.
    pub fn manifest(&self, repository: &str, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        let repository = state.repositories.get(repository)?;
        let digest = repository.tags.get(name).map_or(name, String::as_str);
        repository.manifests.get(digest).map(|(_, bytes)| bytes.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
