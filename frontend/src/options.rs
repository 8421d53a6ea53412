//! What a build was asked for beside the Dockerfile itself.

use std::collections::BTreeMap;

use rbuild_image::{Digest, ImageConfig, Platform, Reference};
use rbuild_llb::{ExtraHost, Network, ResolveMode, Ulimit};

use crate::remote::RemoteContext;

/// Everything outside the Dockerfile that decides what it means.
///
/// The crate reads neither environment nor clock: what depends on them is in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `--build-arg`. One without a value in the caller's environment is not in here.
    pub build_args: BTreeMap<String, String>,
    /// `--target`: the name of the stage to build; `None` is the last one.
    pub target: Option<String>,
    /// What the image is to run on.
    pub platform: Platform,
    /// Whether [`platform`](Self::platform) is what it is because nobody said otherwise. A base image for another
    /// platform that the machine can run is then taken as it is.
    pub platform_is_default: bool,
    /// What the build itself runs on.
    pub build_platform: Platform,
    /// `--label`: set on the result after all instructions.
    pub labels: Vec<(String, String)>,
    /// `--unsetlabel`: labels that the result does not have, whoever set them, unless `labels` does.
    pub unset_labels: Vec<String>,
    /// `--unsetenv`: variables that the result does not have. Steps see them.
    pub unset_env: Vec<String>,
    /// Which steps ignore the cache.
    pub no_cache: NoCache,
    /// The network of every RUN that does not ask for another.
    pub network: Network,
    /// Lines for `/etc/hosts` of every RUN.
    pub extra_hosts: Vec<ExtraHost>,
    /// Resource limits of every RUN.
    pub ulimits: Vec<Ulimit>,
    /// The size of `/dev/shm` of every RUN; `None` is the executor's default.
    pub shm_size_bytes: Option<u64>,
    /// The parent of every RUN's control group.
    pub cgroup_parent: Option<String>,
    /// The host name of every RUN; empty is the executor's default.
    pub hostname: String,
    /// Memory, CPU and other limits of every RUN; no part of any key.
    pub limits: BTreeMap<String, String>,
    /// Where images are looked for.
    pub resolve_mode: ResolveMode,
    /// The build context.
    pub context: MainContext,
    /// `--build-context`, by name; `name::platform` holds for that platform only.
    pub contexts: BTreeMap<String, NamedContext>,
    /// The `.dockerignore` rules of the main context, as [`dockerignore::parse`](crate::dockerignore::parse)
    /// gives them.
    pub ignore: Vec<String>,
    /// When the build began, RFC 3339; what `created` in config and history says.
    pub created: String,
    /// `SOURCE_DATE_EPOCH`, Unix seconds: replaces [`created`](Self::created), and is the time of files that the
    /// build itself makes.
    pub source_date_epoch: Option<i64>,
    /// Whether the result is one of several platforms, so that step names tell which.
    pub multi_platform: bool,
}

impl Options {
    /// The options of a plain `rbuild .` for one platform, at a given time (RFC 3339).
    pub fn new(platform: Platform, created: impl Into<String>) -> Self {
        Self {
            build_args: BTreeMap::new(),
            target: None,
            build_platform: platform.clone(),
            platform,
            platform_is_default: true,
            labels: Vec::new(),
            unset_labels: Vec::new(),
            unset_env: Vec::new(),
            no_cache: NoCache::Never,
            network: Network::Default,
            extra_hosts: Vec::new(),
            ulimits: Vec::new(),
            shm_size_bytes: None,
            cgroup_parent: None,
            hostname: String::new(),
            limits: BTreeMap::new(),
            resolve_mode: ResolveMode::Default,
            context: MainContext::Local,
            contexts: BTreeMap::new(),
            ignore: Vec::new(),
            created: created.into(),
            source_date_epoch: None,
            multi_platform: false,
        }
    }
}

/// Which steps ignore the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NoCache {
    /// None.
    #[default]
    Never,
    /// Every RUN, COPY and ADD.
    All,
    /// Every RUN, COPY and ADD of these stages, by name in any case.
    Stages(Vec<String>),
}

/// Where the build context is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MainContext {
    /// A directory of the machine that asked for the build: the local source `context`.
    #[default]
    Local,
    /// A repository or a file of a web server. `.dockerignore` does not apply to it.
    Remote(RemoteContext),
}

/// What a name given with `--build-context` stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// An image: `docker-image://…`.
    Image(Reference),
    /// A directory of the machine that asked for the build.
    Local {
        /// The name under which the solver knows the directory.
        name: String,
        /// The rules of the directory's own `.dockerignore`.
        ignore: Vec<String>,
    },
    /// A repository or a file of a web server.
    Remote(RemoteContext),
    /// An image in an OCI image layout, which the caller has already read.
    OciLayout {
        /// The name under which the solver knows the layout.
        store: String,
        /// The manifest.
        digest: Digest,
        /// The image's config.
        config: Box<ImageConfig>,
    },
}
