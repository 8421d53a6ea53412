//! Running a container's process, in the foreground.

use std::fs::File;
use std::path::PathBuf;

use rbuild_executor::{Container as Spec, Executor, Exit, Handle, Network, Process, Root, Running, Stdio};
use rbuild_image::ContainerConfig;
use rustix::fs::{FlockOperation, flock};

use crate::{Container, ContainerError, Containers, Status};

/// The `PATH` of an image that sets none, as Docker has it.
const PATH_DEFAULT: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a run changes of the image's config.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// In place of the image's `CMD`, if not empty.
    pub command: Vec<String>,
    /// In place of the image's `ENTRYPOINT`; an empty one is none. It takes the image's `CMD` away as well.
    pub entrypoint: Option<Vec<String>>,
    /// `NAME=value`, over the image's.
    pub env: Vec<String>,
    /// In place of the image's `WORKDIR`.
    pub workdir: Option<String>,
    /// In place of the image's `USER`.
    pub user: Option<String>,
    /// The host name; the container's short id when not given.
    pub hostname: Option<String>,
    /// Only loopback.
    pub no_network: bool,
    /// Lines of `/etc/hosts`: host name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// The root cannot be written to.
    pub readonly_root: bool,
}

impl RunOptions {
    /// The command line: entrypoint, then command.
    ///
    /// # Errors
    /// When that is nothing.
    pub fn args(&self, config: &ContainerConfig) -> Result<Vec<String>, ContainerError> {
        let entrypoint = self.entrypoint.clone().or_else(|| config.entrypoint.clone()).unwrap_or_default();
        let command = match (self.command.is_empty(), &self.entrypoint) {
            (false, _) => self.command.clone(),
            (true, Some(_)) => Vec::new(),
            (true, None) => config.cmd.clone().unwrap_or_default(),
        };
        let args: Vec<String> = entrypoint.into_iter().chain(command).collect();
        if args.is_empty() { Err(ContainerError::NoCommand) } else { Ok(args) }
    }

    /// The process that the image's config and these options make together.
    fn process(&self, config: &ContainerConfig, terminal: bool) -> Result<Process, ContainerError> {
        let mut config = config.clone();
        for pair in &self.env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            config.env_set(name, value);
        }
        if config.env_get("PATH").is_none() {
            config.env.insert(0, PATH_DEFAULT.to_owned());
        }
        if terminal && config.env_get("TERM").is_none() {
            config.env_set("TERM", "xterm");
        }
        let args = self.args(&config)?;
        let cwd = self.workdir.clone().unwrap_or_else(|| config.working_dir.clone());
        Ok(Process {
            env: config.env,
            cwd: if cwd.starts_with('/') { cwd } else { format!("/{cwd}") },
            user: self.user.clone().unwrap_or(config.user),
            ..Process::new(args)
        })
    }
}

/// A container whose process runs.
#[derive(Debug)]
pub struct Started {
    containers: Containers,
    container: Container,
    running: Running,
    #[expect(dead_code, reason = "held for its lock, which tells that the container runs")]
    lock: File,
}

impl Containers {
    /// Starts the process of a container. `stubs` is the directory of mount-point stubs, `now` the clock.
    ///
    /// # Errors
    /// When it runs already, or cannot be run. Its state is then what it was.
    pub fn start(
        &self,
        container: &Container,
        config: &ContainerConfig,
        options: &RunOptions,
        io: StartIo<'_>,
    ) -> Result<Started, ContainerError> {
        let lock = self.lock(container)?;
        let directory = self.directory(&container.id);
        let terminal = matches!(io.stdio, Stdio::Terminal { .. });
        let mounted = self.store.mount_writable(&container.snapshot, &directory, Some(&io.stubs))?;
        let spec = Spec {
            readonly_root: options.readonly_root,
            hostname: options.hostname.clone().unwrap_or_else(|| container.short_id().to_owned()),
            network: if options.no_network { Network::None } else { Network::Host },
            extra_hosts: options.extra_hosts.clone(),
            ..Spec::new(Root::Detached(mounted.into()), options.process(config, terminal)?)
        };
        let running = io.executor.spawn(spec, io.stdio)?;
        let mut container = container.clone();
        let started = (io.now)();
        container.state.status = Status::Running { pid: running.handle().pid(), started };
        self.store_state(&container)?;
        Ok(Started { containers: self.clone(), container, running, lock })
    }

    fn lock(&self, container: &Container) -> Result<File, ContainerError> {
        let path = self.directory(&container.id).join("lock");
        let file = File::create(&path).map_err(ContainerError::io("make", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(ContainerError::IsRunning { name: container.name.clone(), verb: "start" })
            }
            Err(error) => Err(ContainerError::io("lock", &path)(error.into())),
        }
    }

    fn store_state(&self, container: &Container) -> Result<(), ContainerError> {
        self.store.containers().update(&container.id, |_| Some(container.state.to_json()))?;
        Ok(())
    }
}

/// What surrounds a start.
#[derive(Debug)]
pub struct StartIo<'a> {
    /// Runs the process.
    pub executor: &'a Executor,
    /// Its standard descriptors.
    pub stdio: Stdio,
    /// The directory of mount-point stubs.
    pub stubs: PathBuf,
    /// The clock, Unix seconds.
    pub now: fn() -> i64,
}

impl Started {
    /// To signal the process, or resize its terminal, from another thread.
    pub fn handle(&self) -> Handle {
        self.running.handle()
    }

    /// Waits until the process ends, and notes how.
    ///
    /// # Errors
    /// When it cannot be waited for, or its end cannot be noted.
    pub fn wait(mut self, now: fn() -> i64) -> Result<Exit, ContainerError> {
        let exit = self.running.wait()?;
        self.container.state.status = Status::Exited { code: exit.code(), finished: now() };
        self.containers.store_state(&self.container)?;
        Ok(exit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(entrypoint: Option<&[&str]>, cmd: Option<&[&str]>) -> ContainerConfig {
        let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        ContainerConfig { entrypoint: entrypoint.map(list), cmd: cmd.map(list), ..ContainerConfig::default() }
    }

    #[test]
    fn command_lines_are_put_together_as_docker_does() {
        let options = |entrypoint: Option<&str>, command: &[&str]| RunOptions {
            entrypoint: entrypoint.map(|word| if word.is_empty() { vec![] } else { vec![word.to_owned()] }),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ..RunOptions::default()
        };
        let image = config(Some(&["/init"]), Some(&["serve"]));
        let cases: [(RunOptions, &[&str]); 5] = [
            (options(None, &[]), &["/init", "serve"]),
            (options(None, &["sh"]), &["/init", "sh"]),
            (options(Some("/bin/x"), &[]), &["/bin/x"]),
            (options(Some("/bin/x"), &["-v"]), &["/bin/x", "-v"]),
            (options(Some(""), &["sh"]), &["sh"]),
        ];
        for (options, expected) in cases {
            assert_eq!(options.args(&image).unwrap(), expected);
        }
        assert!(matches!(options(None, &[]).args(&config(None, None)), Err(ContainerError::NoCommand)));
    }

    #[test]
    fn the_environment_is_the_image_s_under_the_user_s() {
        let mut image = config(None, Some(&["sh"]));
        image.env = vec!["A=1".into(), "B=2".into()];
        let options = RunOptions { env: vec!["A=9".into(), "C=3".into()], ..RunOptions::default() };
        let process = options.process(&image, true).unwrap();
        assert_eq!(process.env, [PATH_DEFAULT, "A=9", "B=2", "C=3", "TERM=xterm"]);
        assert_eq!(process.cwd, "/");
    }
}
