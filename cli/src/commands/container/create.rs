//! From the flags of `run` and `create` to a container: what the image says, under what the user says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rbuild_cache::Snapshot;
use rbuild_container::{
    Container, ContainerError, ContainerSpec, Containers, LogOptions, RestartPolicy, parse_signal,
};
use rbuild_executor::cgroup::Limits;
use rbuild_executor::{Capabilities, Resource, Ulimit};
use rbuild_frontend::parse_size_bytes;
use rbuild_image::{ContainerConfig, Healthcheck, ParsePlatformError, Platform};
use rbuild_solver::images::{ImageError, PullPolicy, StoredImage, Watch};

use super::limits::{limits, rates};
use super::{EXIT_CANNOT_RUN, containers, failure, isolation, networks, volumes};
use crate::app::{App, environment};
use crate::args::{CreateArgs, CreateOptions, PullArg};
use crate::commands::build::{confinement, extra_host, ulimit};
use crate::commands::{io_failure, print, reference, silent, trust};
use crate::report::{Failure, Kind, image_kind};

pub(super) fn create(app: &App, args: &CreateArgs) -> Result<u8, Failure> {
    let created = Created::new(app, &args.options, true, failure)?;
    print(&format!("{}\n", created.container.id)).map(|()| 0)
}

/// A container that is ready to start.
pub(super) struct Created {
    pub(super) containers: Containers,
    pub(super) container: Container,
}

impl Created {
    /// `attended` containers have an input that ends with their user's. What `refused` makes of an error depends on the command, as with
    /// Docker.
    pub(super) fn new(
        app: &App,
        options: &CreateOptions,
        attended: bool,
        refused: fn(ContainerError) -> Failure,
    ) -> Result<Self, Failure> {
        let cidfile = options.cidfile.as_ref();
        if let Some(file) = cidfile.filter(|file| file.exists()) {
            let message = "container ID file found, make sure the other container isn't running or delete";
            return Err(invalid(format!("{message} {}", file.display())));
        }
        if let Some(flag) = options.unsupported.0 {
            return Err(invalid(format!("`--{flag}` is not supported")));
        }
        // From before the image is looked up until the container's row keeps it; not while it runs.
        let _lease = app.store()?.lease()?;
        let (image, snapshot) = image(app, options)?;
        let mut spec = spec(options, image.config.config.clone())?;
        spec.image_id = image.id().to_string();
        (spec.attended, spec.stdin_once) = (attended, options.interactive && attended);
        if spec.args().is_empty() {
            return Err(refused(ContainerError::NoCommand));
        }
        let containers = containers(app)?;
        volumes::take_over(&mut spec, &containers, &options.volumes_from)?;
        volumes::add_images(&mut spec)?;
        spec.network = networks::mode(app, &containers, options)?;
        spec.links = networks::links(&containers, &options.links)?;
        isolation::settle(&mut spec, &containers, options)?;
        let container = containers.create(options.name.as_deref(), &snapshot, spec).map_err(refused)?;
        if let Some(file) = cidfile {
            fs::write(file, &container.id).map_err(io_failure("write", file))?;
        }
        Ok(Self { containers, container })
    }

    /// Removes the container where it could not be started and is not to stay.
    pub(super) fn or_removed<T>(&self, started: Result<T, Failure>) -> Result<T, Failure> {
        if started.is_err() && self.container.state.spec.auto_remove {
            // The first error is the one that tells.
            drop(self.containers.remove_with_volumes(&self.container));
        }
        started
    }
}

/// The image, fetched where that is needed and wanted.
fn image(app: &App, options: &CreateOptions) -> Result<(StoredImage, Snapshot), Failure> {
    let images = app.images()?;
    let name = options.image();
    let reference = reference(name).ok();
    let platform = options
        .platform
        .as_deref()
        .map(|text| text.parse().map_err(|error: ParsePlatformError| invalid(error.to_string())));
    let platform = platform.transpose()?.unwrap_or_else(Platform::host);
    let policy = match options.pull {
        PullArg::Always => PullPolicy::Always,
        PullArg::Missing => PullPolicy::Missing,
        PullArg::Never => PullPolicy::Never,
        PullArg::Newer => PullPolicy::Newer,
    };
    let cancel = Arc::clone(app.cancel());
    let watch = Watch { transfers: &silent, cancel: &cancel };
    let not_found = || cannot_pull(ImageError::NotFound { name: name.to_owned() });
    let by_id = if policy == PullPolicy::Always { None } else { images.find(name).ok() };
    let Some(record) = by_id else {
        let reference = reference.ok_or_else(not_found)?;
        return images.pull(&reference, &platform, policy, watch).map_err(cannot_pull);
    };
    let image = match images.open_exactly(&record.target, &platform)? {
        Some(image) => image,
        None if options.platform.is_none() => images.open(&record.target, &platform)?,
        None => {
            let reference = reference.ok_or_else(not_found)?;
            return images.pull(&reference, &platform, policy, watch).map_err(cannot_pull);
        }
    };
    if let Some(snapshot) = images.snapshot(&image)? {
        return Ok((image, snapshot));
    }
    let name = record.names.first().cloned().or(reference).ok_or_else(not_found)?;
    let snapshot = images.unpack(&name, &image, watch).map_err(cannot_pull)?;
    Ok((image, snapshot))
}

fn cannot_pull(error: ImageError) -> Failure {
    let kind = match image_kind(&error) {
        Kind::Cancelled => Kind::Cancelled,
        _ => Kind::Run(EXIT_CANNOT_RUN),
    };
    Failure { kind, ..Failure::from(error) }
}

fn spec(options: &CreateOptions, image: ContainerConfig) -> Result<ContainerSpec, Failure> {
    let host = |text: &String| {
        let extra = extra_host(text).map_err(|failure| invalid(failure.message))?;
        Ok::<_, Failure>((extra.host, extra.ip))
    };
    let config = config(options, image)?;
    let volumes::Mounts { binds, tmpfs, volumes } = volumes::parse(options)?;
    Ok(ContainerSpec {
        image: options.image().to_owned(),
        hostname: options.hostname.clone().unwrap_or_default(),
        tty: options.tty,
        open_stdin: options.interactive,
        auto_remove: options.rm,
        init: options.init,
        readonly_root: options.read_only,
        privileged: options.privileged,
        cap_add: capabilities("CapAdd", &options.cap_add)?,
        cap_drop: capabilities("CapDrop", &options.cap_drop)?,
        confinement: confinement(&options.security_opts).map_err(|failure| invalid(failure.message))?,
        groups: options.groups.clone(),
        oom_score_adj: options.oom_score_adj.map(oom_score_adj).transpose()?,
        domainname: options.domainname.clone().unwrap_or_default(),
        devices: isolation::devices(&options.devices)?,
        device_rules: isolation::device_rules(&options.device_rules)?,
        sysctls: isolation::sysctls(&options.sysctls)?,
        cgroup_parent: options.cgroup_parent.clone(),
        tmpfs,
        binds,
        volumes,
        ports: networks::ports(options, &config)?,
        config,
        extra_hosts: options.add_hosts.iter().map(host).collect::<Result<_, _>>()?,
        dns: options.dns.clone(),
        dns_search: options.dns_search.clone(),
        dns_options: options.dns_options.clone(),
        trust: trust(&options.trust_ca)?,
        limits: Limits { devices: rates(&options.rates)?, ..limits(&options.resources)? },
        ulimits: options.ulimits.iter().map(|text| own_ulimit(text)).collect::<Result<_, _>>()?,
        shm_size_bytes: options.shm_size.as_deref().map(|text| size("--shm-size", text)).transpose()?,
        restart: restart(options)?,
        stop_timeout: options.stop_timeout,
        log: log(options)?,
        annotations: labels(&options.annotations),
        ..ContainerSpec::default()
    })
}

/// Names of capabilities, all known.
fn capabilities(flag: &str, names: &[String]) -> Result<Vec<String>, Failure> {
    let unknown = |name: &&String| Capabilities::from_name(name).is_none();
    match names.iter().find(unknown) {
        Some(name) => {
            let bare = name.to_uppercase();
            let bare = bare.strip_prefix("CAP_").unwrap_or(&bare);
            Err(invalid(format!("invalid {flag}: unknown capability: \"CAP_{bare}\"")))
        }
        None => Ok(names.to_vec()),
    }
}

fn oom_score_adj(score: i32) -> Result<i32, Failure> {
    let range = -1000..=1000;
    let refused = || invalid(format!("Invalid value {score}, range for oom score adj is [-1000, 1000]"));
    range.contains(&score).then_some(score).ok_or_else(refused)
}

fn own_ulimit(text: &str) -> Result<Ulimit, Failure> {
    let parsed = ulimit::parse(text).map_err(|failure| invalid(failure.message))?;
    // -1 is unlimited.
    let limit = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    let resource =
        Resource::from_name(&parsed.name).ok_or_else(|| invalid(format!("invalid --ulimit `{text}`")))?;
    Ok(Ulimit { resource, soft: limit(parsed.soft), hard: limit(parsed.hard) })
}

fn restart(options: &CreateOptions) -> Result<RestartPolicy, Failure> {
    let policy: RestartPolicy = options.restart.parse().map_err(invalid::<String>)?;
    if options.rm && policy != RestartPolicy::No {
        return Err(invalid("conflicting options: cannot specify both --restart and --rm"));
    }
    Ok(policy)
}

/// The image's config with what the user changes.
fn config(options: &CreateOptions, image: ContainerConfig) -> Result<ContainerConfig, Failure> {
    let mut config = image;
    for pair in environment_of(&options.env, &options.env_files)? {
        let (name, value) = pair.split_once('=').unwrap_or((&pair, ""));
        config.env_set(name, value);
    }
    if let Some(word) = &options.entrypoint {
        // It takes the image's command away as well.
        config.entrypoint = Some(if word.is_empty() { Vec::new() } else { vec![word.clone()] });
        config.cmd = None;
    }
    if !options.command().is_empty() {
        config.cmd = Some(options.command().to_vec());
    }
    let workdir = options.workdir.as_ref().filter(|workdir| !workdir.is_empty());
    if let Some(relative) = workdir.filter(|workdir| !workdir.starts_with('/')) {
        return Err(invalid(format!("the working directory `{relative}` is not absolute")));
    }
    config.working_dir = workdir.cloned().unwrap_or(config.working_dir);
    config.user = options.user.clone().unwrap_or(config.user);
    for file in &options.label_files {
        config.labels.extend(labels(&lines_of(file)?));
    }
    if let Some(nameless) = options.labels.iter().find(|label| is_nameless(label)) {
        return Err(invalid(format!("invalid label '{nameless}': empty name")));
    }
    config.labels.extend(labels(&options.labels));
    config.exposed_ports.extend(networks::exposed(options)?);
    if let Some(name) = &options.stop_signal {
        stop_signal(Some(name)).map_err(|failure| invalid(failure.message))?;
        config.stop_signal.clone_from(name);
    }
    config.healthcheck = healthcheck(options, config.healthcheck)?;
    config.on_build = Vec::new();
    Ok(config)
}

/// `NAME[=VALUE]`.
pub(crate) fn labels(texts: &[String]) -> BTreeMap<String, String> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        (name.to_owned(), value.to_owned())
    };
    texts.iter().map(pair).collect()
}

/// Whether a pair of a name and a value has no name.
fn is_nameless(pair: &str) -> bool {
    pair.is_empty() || pair.starts_with('=')
}

/// `--env-file` and then `--env`; a name without a value is that of the user's environment, if it is there.
pub(super) fn environment_of(pairs: &[String], files: &[PathBuf]) -> Result<Vec<String>, Failure> {
    let mut all = Vec::new();
    for file in files {
        all.extend(lines_of(file)?);
    }
    if let Some(nameless) = pairs.iter().find(|pair| is_nameless(pair)) {
        return Err(invalid(format!("invalid environment variable: {nameless}")));
    }
    all.extend_from_slice(pairs);
    let known = |pair: String| {
        if pair.contains('=') {
            Some(pair)
        } else {
            environment(&pair).map(|value| format!("{pair}={value}"))
        }
    };
    Ok(all.into_iter().filter_map(known).collect())
}

/// What a file has of lines that say something.
fn lines_of(file: &Path) -> Result<Vec<String>, Failure> {
    let failed = |error| invalid(format!("open {}: {error}", file.display()));
    let text = fs::read_to_string(file).map_err(failed)?;
    let lines = text.lines().map(str::trim_start);
    Ok(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect())
}

/// A signal that the user named.
///
/// # Errors
/// When there is none of that name.
pub(super) fn stop_signal(name: Option<&String>) -> Result<Option<i32>, Failure> {
    let parse = |name: &String| {
        parse_signal(name)
            .ok_or_else(|| Failure::new(Kind::Run(super::EXIT_FAILED), format!("invalid signal: {name}")))
    };
    name.map(parse).transpose()
}

fn healthcheck(options: &CreateOptions, image: Option<Healthcheck>) -> Result<Option<Healthcheck>, Failure> {
    if options.no_healthcheck {
        return Ok(Some(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() }));
    }
    let mut check = image.clone().unwrap_or_default();
    if let Some(command) = &options.health_cmd {
        check.test = vec!["CMD-SHELL".to_owned(), command.clone()];
    }
    let durations = [
        (&options.health_interval, &mut check.interval_ns),
        (&options.health_timeout, &mut check.timeout_ns),
        (&options.health_start_period, &mut check.start_period_ns),
        (&options.health_start_interval, &mut check.start_interval_ns),
    ];
    for (text, duration) in durations {
        if let Some(text) = text {
            *duration = duration_ns(text).ok_or_else(|| invalid(format!("invalid duration `{text}`")))?;
        }
    }
    check.retries = options.health_retries.unwrap_or(check.retries);
    Ok(if check.test.is_empty() { image } else { Some(check) })
}

/// `1m30s`, `500ms`, in nanoseconds.
fn duration_ns(text: &str) -> Option<i64> {
    let span: jiff::SignedDuration = text.parse().ok()?;
    i64::try_from(span.as_nanos()).ok().filter(|ns| *ns >= 0)
}

fn log(options: &CreateOptions) -> Result<LogOptions, Failure> {
    let mut log = LogOptions::default();
    match options.log_driver.as_str() {
        "json-file" | "local" => {}
        "none" => log.discard = true,
        driver => {
            return Err(invalid(format!("unknown log driver `{driver}`: there are json-file and none")));
        }
    }
    for option in &options.log_opts {
        match option.split_once('=') {
            Some(("max-size", text)) => log.max_size_bytes = Some(size("--log-opt max-size", text)?),
            Some(("max-file", text)) => {
                let count = text.parse().ok().filter(|count| *count > 0);
                log.max_files = Some(count.ok_or_else(|| invalid(format!("invalid max-file `{text}`")))?);
            }
            _ => return Err(invalid(format!("unknown log opt `{option}` for the json-file log driver"))),
        }
    }
    Ok(log)
}

/// A size that the user typed.
pub(super) fn size(flag: &str, text: &str) -> Result<u64, Failure> {
    parse_size_bytes(text).ok_or_else(|| invalid(format!("invalid {flag} `{text}` (expected 512m, 2g)")))
}

/// What the user typed is wrong.
pub(super) fn invalid<T: Into<String>>(message: T) -> Failure {
    Failure::new(Kind::Run(EXIT_CANNOT_RUN), message)
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser as _;
    use rbuild_executor::cgroup::CpuQuota;

    use super::*;
    use crate::args::{Cli, Command, ContainersCommand};

    pub(crate) fn options(line: &str) -> CreateOptions {
        let words = std::iter::once("rbuild").chain(line.split(' '));
        match Cli::try_parse_from(words).unwrap().command {
            Command::Containers(ContainersCommand::Create(args)) => args.options,
            _ => panic!("no create"),
        }
    }

    fn made(line: &str) -> ContainerSpec {
        let list = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
        let image = ContainerConfig {
            entrypoint: list(&["/init"]),
            cmd: list(&["serve"]),
            env: vec!["A=1".to_owned()],
            working_dir: "/image".to_owned(),
            ..ContainerConfig::default()
        };
        spec(&options(line), image).unwrap()
    }

    #[test]
    fn command_lines_are_put_together_as_docker_does() {
        let cases: [(&str, &[&str]); 5] = [
            ("create x", &["/init", "serve"]),
            ("create x sh", &["/init", "sh"]),
            ("create --entrypoint /bin/x x", &["/bin/x"]),
            ("create --entrypoint /bin/x x -v", &["/bin/x", "-v"]),
            ("create --entrypoint= x sh", &["sh"]),
        ];
        for (line, expected) in cases {
            assert_eq!(made(line).args(), expected, "{line}");
        }
    }

    #[test]
    fn flags_change_what_the_image_says() {
        let spec = made("create -e A=2 -e B=3 -m 64m --cpus 1.5 --pids-limit -1 --health-cmd true x");
        assert_eq!(spec.config.env, ["A=2", "B=3"]);
        assert_eq!(spec.limits.memory_bytes, Some(64 << 20));
        assert_eq!(spec.limits.cpu_quota, CpuQuota::new(150_000, 0));
        assert_eq!(spec.limits.pids, Some(u64::MAX));
        assert_eq!(spec.config.healthcheck.unwrap().test, ["CMD-SHELL", "true"]);
        let spec = made("create -e -A=1 -l -a=1 -w= x");
        assert_eq!(spec.config.env, ["A=1", "-A=1"]);
        assert_eq!((spec.config.labels["-a"].as_str(), spec.config.working_dir.as_str()), ("1", "/image"));
        let spec = made("create --health-interval 1m30s --no-healthcheck x");
        assert_eq!(spec.config.healthcheck.unwrap().test, ["NONE"]);
    }

    #[test]
    fn mistakes_are_docker_s() {
        for line in [
            "create --rm --restart always x",
            "create --restart sometimes x",
            "create --memory lots x",
            "create --cpus -1 x",
            "create --log-driver syslog x",
            "create --log-opt nosuch=1 x",
            "create --stop-signal NOSUCH x",
            "create -w here x",
            "create -e =x x",
            "create -e= x",
            "create --label =x x",
            "create --add-host foo x",
        ] {
            let Ok(cli) = Cli::try_parse_from(std::iter::once("rbuild").chain(line.split(' '))) else {
                continue;
            };
            let Command::Containers(ContainersCommand::Create(args)) = cli.command else { panic!() };
            assert!(spec(&args.options, ContainerConfig::default()).is_err(), "{line}");
        }
    }
}
