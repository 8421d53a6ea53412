//! What every command needs: where the store is, how to reach registries, the clock. Made lazily, so that a command pays
//! only for what it uses. The one place that reads the environment.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rayon::ThreadPool;
use rbuild_cache::fail_point::Failing;
use rbuild_cache::layer::{Owners, PART_SIZE_BYTES};
use rbuild_cache::{LayerForm, OverlayXattrs, Store, StoreOptions, Trees};
use rbuild_executor::Networks;
use rbuild_executor::rootless::{Isolation, Privilege};
use rbuild_frontend::parse_size_bytes;
use rbuild_registry::{Client, ClientOptions, Credential, CredentialSource, Proxies, Secret};
use rbuild_solver::images::Images;
use rbuild_solver::local::GitOptions;
use rbuild_solver::threads::Threads;

use crate::args::{GlobalArgs, IsolationArg, LayersArg};
use crate::config::Config;
use crate::credentials::{CredentialFiles, Login};
use crate::progress::{Palette, Terminal};
use crate::report::{Failure, Kind, eprint};
use crate::{registries_conf, registry_hosts};

/// What of the environment git needs to run and to reach its servers.
const GIT_VARIABLES: [&str; 13] = [
    "PATH",
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
];
/// The config file of the machine.
const CONFIG: &str = "/etc/rbuild/rbuild.toml";
/// What all processes of root have in common until the machine is switched off.
const ROOT_RUN: &str = "/run/rbuild";
/// How long a server may take to answer that is not needed.
const PATIENCE: Duration = Duration::from_secs(5);
/// The store of root.
const ROOT_STORE: &str = "/var/lib/rbuild";

/// What a command runs in.
#[derive(Debug)]
pub(crate) struct App {
    root: PathBuf,
    in_user_namespace: bool,
    /// Whether this process has made that user namespace.
    made_here: bool,
    single_id: bool,
    trees: Trees,
    layers: Option<LayersArg>,
    part_size: Option<String>,
    offline: bool,
    cancel: Arc<AtomicBool>,
    images: OnceLock<Images>,
    threads: Threads,
}

impl App {
    /// Settles where the store is; opens nothing.
    pub(crate) fn new(global: &GlobalArgs, privilege: &Privilege) -> Self {
        let made_here = matches!(privilege, Privilege::UserNamespace { .. });
        let root = global.root.clone().unwrap_or_else(|| default_root(made_here));
        let is_chroot = matches!(privilege, Privilege::Chroot { .. });
        let single_id = matches!(privilege, Privilege::UserNamespace { single: Some(_), .. });
        Self {
            root,
            in_user_namespace: privilege.in_user_namespace(),
            made_here,
            single_id,
            trees: if is_chroot { Trees::Plain } else { Trees::Mounted },
            layers: global.layers,
            part_size: global.part_size.clone(),
            offline: global.offline,
            cancel: Arc::default(),
            images: OnceLock::new(),
            threads: Threads::default(),
        }
    }

    /// Makes Ctrl-C and SIGTERM set the flag that libraries look at. To be called before any thread exists.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn cancel_on_interrupt(&self) -> Result<Arc<AtomicBool>, Failure> {
        crate::signal::cancel_on_interrupt(Arc::clone(&self.cancel))
            .map_err(|error| Failure::new(Kind::Environment, format!("failed to watch signals: {error}")))?;
        Ok(Arc::clone(&self.cancel))
    }

    /// The flag that [`cancel_on_interrupt`](Self::cancel_on_interrupt) sets.
    pub(crate) const fn cancel(&self) -> &Arc<AtomicBool> {
        &self.cancel
    }

    /// Threads for heavy work on many files, as many as there are cores.
    ///
    /// # Errors
    /// When they cannot be started.
    pub(crate) fn pool(&self) -> Result<&Arc<ThreadPool>, Failure> {
        let failed = |error| Failure::new(Kind::Environment, format!("failed to start threads: {error}"));
        self.threads.pool().map_err(failed)
    }

    /// The store's images, and with them the store.
    ///
    /// # Errors
    /// When the store cannot be opened.
    pub(crate) fn images(&self) -> Result<&Images, Failure> {
        if let Some(images) = self.images.get() {
            return Ok(images);
        }
        let xattrs = if self.in_user_namespace { OverlayXattrs::User } else { OverlayXattrs::Trusted };
        let owners = if self.single_id { Owners::Squash } else { Owners::Keep };
        let layers = layer_form(self.layers)?;
        let part_size_bytes = part_size_bytes(self.part_size.as_deref())?;
        let options =
            StoreOptions { xattrs, owners, trees: self.trees, layers, part_size_bytes, now: unix_now_ns };
        let store = Store::open(&self.root, &options).map_err(|error| {
            Failure::from(error).hint("`--root DIR` or RBUILD_ROOT names another place for the store")
        })?;
        let client = Arc::new(Client::new(self.client_options()?, Arc::new(Credentials(credential_files()))));
        Ok(self.images.get_or_init(|| Images::new(store, client, self.threads.clone())))
    }

    /// A client for what can be done without: one that is soon out of patience.
    ///
    /// # Errors
    /// When the config file cannot be read.
    pub(crate) fn impatient_client(&self) -> Result<Client, Failure> {
        let options = ClientOptions {
            connect_timeout: PATIENCE,
            read_timeout: 4 * PATIENCE,
            retries: 2,
            retry_after_max: PATIENCE,
            ..self.client_options()?
        };
        Ok(Client::new(options, Arc::new(Credentials(credential_files()))))
    }

    /// How servers are spoken to.
    ///
    /// # Errors
    /// When a config file cannot be read.
    pub(crate) fn client_options(&self) -> Result<ClientOptions, Failure> {
        client_options(self.offline)
    }

    /// How git is called.
    pub(crate) fn git_options(&self) -> GitOptions {
        git_options(self.offline)
    }

    /// Whether nobody is to be asked for anything.
    pub(crate) const fn is_offline(&self) -> bool {
        self.offline
    }

    /// The store's root.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether this process is in a user namespace, so that the store marks its layers in another way.
    pub(crate) const fn in_user_namespace(&self) -> bool {
        self.in_user_namespace
    }

    /// Whether only one user id is mapped, so that files cannot be given to others.
    pub(crate) const fn single_id(&self) -> bool {
        self.single_id
    }

    /// Refuses where a container cannot be had: one that is kept needs mounts.
    ///
    /// # Errors
    /// With isolation `chroot`.
    pub(crate) fn needs_mounts(&self) -> Result<(), Failure> {
        if self.trees == Trees::Mounted {
            return Ok(());
        }
        let refused = "isolation `chroot` builds, and runs no containers";
        Err(Failure::new(Kind::Environment, refused)
            .hint("`rbuild doctor` says what forbids user namespaces here"))
    }

    /// The store.
    ///
    /// # Errors
    /// As [`images`](Self::images).
    pub(crate) fn store(&self) -> Result<&Store, Failure> {
        Ok(self.images()?.store())
    }

    /// Where steps and containers get networks of their own.
    pub(crate) fn networks(&self) -> Networks {
        Networks::new(self.networks_directory())
    }

    /// Where the leases of addresses are.
    pub(crate) fn networks_directory(&self) -> PathBuf {
        let run = if self.made_here {
            path("XDG_RUNTIME_DIR").map(|directory| directory.join("rbuild"))
        } else {
            Some(ROOT_RUN.into())
        };
        run.unwrap_or_else(|| self.root.join("run")).join("networks")
    }

    /// Who owns files that are written for the user. In a user namespace its root is the user.
    pub(crate) fn owner(&self) -> (u32, u32) {
        (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
    }
}

fn default_root(rootless: bool) -> PathBuf {
    if !rootless {
        return ROOT_STORE.into();
    }
    let data = path("XDG_DATA_HOME").filter(|path| path.is_absolute());
    let home = || path("HOME").unwrap_or_else(|| "/".into()).join(".local/share");
    data.unwrap_or_else(home).join("rbuild")
}

fn path(name: &str) -> Option<PathBuf> {
    environment_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A variable of the environment, if it is set.
pub(crate) fn environment_os(name: &str) -> Option<OsString> {
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the environment")]
    std::env::var_os(name)
}

/// A variable of the environment, if it is set and text.
pub(crate) fn environment(name: &str) -> Option<String> {
    environment_os(name)?.into_string().ok()
}

/// The clock, in Unix seconds.
pub(crate) fn unix_now() -> i64 {
    let now = since_epoch();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}

/// The clock, in Unix nanoseconds.
pub(crate) fn unix_now_ns() -> i64 {
    i64::try_from(since_epoch().as_nanos()).unwrap_or(i64::MAX)
}

fn since_epoch() -> Duration {
    #[expect(clippy::disallowed_methods, reason = "this is the place that reads the clock")]
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Makes the store fail where a test asks for it. A release build never does.
pub(crate) fn arm_fail_point() -> Result<(), Failure> {
    let Some(text) = environment("RBUILD_FAIL_POINT") else { return Ok(()) };
    let failing: Failing = text
        .parse()
        .map_err(|error| Failure::caused_by(Kind::Input, &error).while_doing("RBUILD_FAIL_POINT"))?;
    failing.arm();
    Ok(())
}

/// Whether colours are wanted on standard error.
pub(crate) fn color() -> bool {
    std::io::stderr().is_terminal() && environment_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// What standard error is.
pub(crate) fn terminal() -> Terminal {
    let is_terminal =
        std::io::stderr().is_terminal() && environment("TERM").is_none_or(|term| term != "dumb");
    let palette = environment("BUILDKIT_COLORS").map_or_else(Palette::default, |text| Palette::parse(&text));
    Terminal { is_terminal, color: color(), palette }
}

/// Docker's `config.json`, if there is a place for one.
pub(crate) fn docker_config() -> Option<PathBuf> {
    crate::credentials::docker_config(path)
}

/// The config file, if there is one: the user's, or else the machine's.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn config() -> Result<Config, Failure> {
    let home = || path("HOME").map(|home| home.join(".config"));
    let users = path("XDG_CONFIG_HOME").or_else(home).map(|directory| directory.join("rbuild/rbuild.toml"));
    let found = users.into_iter().chain([CONFIG.into()]).find(|file| file.is_file());
    found.map_or_else(|| Ok(Config::default()), |file| Config::read(&file))
}

/// How steps and containers are set apart: what the command line, the environment or the config file says.
///
/// # Errors
/// When the config file is none, or asks for what there is not.
pub(crate) fn isolation(global: &GlobalArgs) -> Result<Isolation, Failure> {
    let asked = match global.isolation {
        Some(isolation) => Some(isolation),
        None => config()?.security.isolation,
    };
    match asked {
        None | Some(IsolationArg::Auto) => Ok(Isolation::Auto),
        Some(IsolationArg::User) => Ok(Isolation::User),
        Some(IsolationArg::Root) => Ok(Isolation::Root),
        Some(IsolationArg::Chroot) => Ok(Isolation::Chroot),
    }
}

/// In which form copies of directories are kept: what the command line, the environment or the config file says.
fn layer_form(given: Option<LayersArg>) -> Result<LayerForm, Failure> {
    let asked = match given {
        Some(form) => Some(form),
        None => config()?.store.layers,
    };
    Ok(match asked {
        None => LayerForm::Default,
        Some(LayersArg::Auto) => LayerForm::Auto,
        Some(LayersArg::Directory) => LayerForm::Directory,
        Some(LayersArg::Delta) => LayerForm::Delta,
        Some(LayersArg::Tree) => LayerForm::Tree,
    })
}

/// Into parts of what size archives are cut: what the command line, the environment or the config file says.
fn part_size_bytes(given: Option<&str>) -> Result<u64, Failure> {
    match given.or(config()?.store.part_size.as_deref()) {
        None => Ok(PART_SIZE_BYTES),
        Some(text) => parse_size_bytes(text).ok_or_else(|| {
            Failure::new(Kind::Input, format!("invalid part size `{text}` (expected 32m, or 0)"))
        }),
    }
}

pub(crate) fn credential_files() -> CredentialFiles {
    CredentialFiles::from_environment(path)
}

fn client_options(offline: bool) -> Result<ClientOptions, Failure> {
    let registries = config()?.registry;
    let hosts = registries.iter().filter_map(|(host, config)| Some((host.clone(), config.security()?)));
    let either = |upper: &str, lower: &str| {
        environment(lower).or_else(|| environment(upper)).filter(|value| !value.is_empty())
    };
    let mirrors =
        registries.iter().filter_map(|(host, config)| Some((host.clone(), config.mirrors()?))).collect();
    let mut options = ClientOptions {
        offline,
        mirrors,
        hosts: hosts.collect(),
        tls: registry_hosts::tls(&certificate_directories(), &registries),
        proxies: Proxies {
            http: either("HTTP_PROXY", "http_proxy").map(Secret::new),
            https: either("HTTPS_PROXY", "https_proxy").map(Secret::new),
            bypass: either("NO_PROXY", "no_proxy").unwrap_or_default(),
        },
        warnings: Some(Arc::new(|host, text| eprint(&format!("warning: {host}: {text}\n")))),
        ..ClientOptions::default()
    };
    registries_conf::tell(&registries_conf::files(path("HOME").as_deref()), &mut options)?;
    Ok(options)
}

/// Where Docker and Podman look for the certificates of registries, the user's own last.
fn certificate_directories() -> Vec<PathBuf> {
    let own = path("HOME").map(|home| home.join(".config/containers/certs.d"));
    ["/etc/docker/certs.d", "/etc/containers/certs.d"].into_iter().map(PathBuf::from).chain(own).collect()
}

/// What git may know of the environment.
fn git_options(offline: bool) -> GitOptions {
    let passed = GIT_VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), environment(name)?)));
    let known_hosts = path("HOME").map(|home| home.join(".ssh/known_hosts"));
    GitOptions {
        environment: passed.collect(),
        known_hosts: known_hosts.filter(|file| file.is_file()),
        offline,
    }
}

/// The user's credential files, as the registry client asks for them.
#[derive(Debug)]
struct Credentials(CredentialFiles);

impl CredentialSource for Credentials {
    fn credential(
        &self,
        registry: &str,
        repository: &str,
    ) -> Result<Option<Credential>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.0.login(registry, repository).map(|login| match login {
            Login::Password { user, password } => {
                Credential::Password { username: user, password: Secret::new(password) }
            }
            Login::IdentityToken(token) => Credential::IdentityToken(Secret::new(token)),
        }))
    }
}
