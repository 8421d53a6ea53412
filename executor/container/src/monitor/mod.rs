//! The monitor: the process that owns a container's process. One for each container that runs, detached from whoever started it.
//!
//! It holds the container's lock, starts the process, writes its log, serves clients over a socket in the container's directory,
//! starts the process again where a policy says so, runs its health checks, and notes its end. It is one program with a thread
//! for each thing that waits. What it notes is in the container's row before any client hears of it, so a client that heard
//! finds it there. When it is killed, the kernel kills the process, and the row is read with the lock free: the container was lost.

mod health;
mod hub;
mod network;
mod pause;
mod process;
mod session;
mod usage;

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rbuild_cache::layer::Owners;
use rbuild_cache::{LayerForm, OverlayXattrs, Store, StoreOptions, Trees};
use rbuild_executor::cgroup::CgroupSupport;
use rbuild_executor::{Executor, ExecutorOptions, Exit, Handle, Networks, Running};
use rustix::event::{PollFd, PollFlags, poll};

use self::hub::{Hub, locked};
use self::process::Input;
use crate::log::LogWriter;
use crate::protocol::{Attach, Failed, Launch, Opening, Reply, Request, VERSION, expect, send};
use crate::state::{Ended, Health, Run, Status};
use crate::{Container, ContainerError, Containers, SOCKET, Volumes, signal};

/// The name that the monitor is executed under.
pub const MONITOR_NAME: &str = "rbuild-monitor";

/// How long to wait before the first restart; doubled for each further one.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest wait before a restart.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(60);
/// A process that ran so long is not taken to fail at its start: the waits begin anew.
const RESTART_RESET: Duration = Duration::from_secs(10);

/// The clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    /// Unix nanoseconds.
    pub now_ns: fn() -> i64,
}

/// What all threads of a monitor share.
struct Monitor {
    containers: Containers,
    id: String,
    launch: Launch,
    clock: Clock,
    executor: Executor,
    networks: Networks,
    shared: Mutex<Shared>,
    changed: Condvar,
    /// The threads that serve clients.
    sessions: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Default)]
struct Shared {
    current: Option<Arc<Current>>,
    /// A person has stopped it: it is not started again.
    stop_requested: bool,
    /// How it ended, when it runs no more, its end is noted, and its lock is free.
    done: Option<i32>,
}

/// The process that runs now.
struct Current {
    handle: Handle,
    hub: Arc<Hub>,
    input: Input,
}

/// Runs a monitor, whose first client is at the other end of `socket`. Returns when its container has ended.
pub fn run(socket: UnixStream, clock: Clock) {
    // What does not depend on the container is made while the client may still be making that.
    let executor = Executor::new(ExecutorOptions::default());
    CgroupSupport::get();
    let Ok(Opening { version: VERSION, request: Request::Launch(launch) }) = expect(&socket) else { return };
    let attach = launch.attach;
    let begin = || {
        let (monitor, lock) = Monitor::open(*launch, clock, executor?)?;
        let listener = monitor.listen()?;
        let (running, warnings) = monitor.start()?;
        Ok::<_, ContainerError>((monitor, lock, listener, running, warnings))
    };
    match begin() {
        Ok((monitor, lock, listener, running, warnings)) => {
            // A client that went away meanwhile loses nothing but the word.
            drop(send(&socket, &Reply::Started { warnings }));
            if let Some(part) = attach.and_then(|attach| session::Part::new(&monitor, attach, true)) {
                monitor.serve(move |monitor| session::attach(monitor, &socket, &part));
            } else {
                drop(socket);
            }
            monitor.accept(listener);
            monitor.watch(running, lock);
        }
        Err(error) => drop(send(&socket, &Reply::Failed(Failed::new(&error)))),
    }
}

impl Failed {
    fn new(error: &ContainerError) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        let exit_code = match error {
            ContainerError::Executor(error) => error.exit_code(),
            _ => None,
        };
        Self { message, exit_code, illegal: matches!(error, ContainerError::Illegal { .. }) }
    }
}

impl Monitor {
    fn open(launch: Launch, clock: Clock, executor: Executor) -> Result<(Arc<Self>, File), ContainerError> {
        let options = StoreOptions {
            xattrs: if launch.user_xattrs { OverlayXattrs::User } else { OverlayXattrs::Trusted },
            owners: if launch.squash_owners { Owners::Squash } else { Owners::Keep },
            trees: Trees::Mounted,
            // It reads layers, and makes none.
            layers: LayerForm::default(),
            part_size_bytes: rbuild_cache::layer::PART_SIZE_BYTES,
            now: clock.now_ns,
        };
        let containers = Containers::new(Store::open(&launch.root, &options)?);
        let container = containers.get(&launch.id)?;
        let lock = containers.lock(&container)?;
        end_leftovers(&container);
        let networks = Networks::new(launch.networks.clone());
        let monitor = Self {
            containers,
            networks,
            id: launch.id.clone(),
            launch,
            clock,
            executor,
            shared: Mutex::default(),
            changed: Condvar::new(),
            sessions: Mutex::default(),
        };
        Ok((Arc::new(monitor), lock))
    }

    fn container(&self) -> Result<Container, ContainerError> {
        self.containers.get(&self.id)
    }

    /// Binds the socket, over what a monitor that was killed has left.
    fn listen(&self) -> Result<UnixListener, ContainerError> {
        let directory = self.containers.directory(&self.id);
        let path = directory.join(SOCKET);
        let failed = ContainerError::io("listen on", &path);
        let bind = || {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            // A path through a descriptor is short, whatever the store is called.
            let open = File::open(&directory)?;
            UnixListener::bind(rbuild_cache::root_dir::proc_path(open.as_fd()).join(SOCKET))
        };
        bind().map_err(failed)
    }

    /// Starts the process, and notes that.
    fn start(self: &Arc<Self>) -> Result<(Running, Vec<String>), ContainerError> {
        let container = self.container()?;
        let spec = &container.state.spec;
        let directory = self.containers.directory(&self.id);
        let log = LogWriter::open(&directory, &spec.log)
            .map_err(ContainerError::io("open the log in", &directory))?;
        let store = self.containers.store();
        let stubs = Some(self.launch.stubs.as_path());
        let mounted = store.mount_writable(&container.snapshot, &directory, stubs, spec.durability())?;
        let mounts = process::mounts(spec, &Volumes::new(store.clone()));
        let joined = self.join_networks(&container)?;
        let endpoint = joined.endpoint.clone();
        let (mut room, warnings) = process::room(&container, mounted.into(), joined, mounts)?;
        room.pid = self.pid_namespace(&spec.pid)?;
        let hub = Hub::new(Some(log), self.clock);
        let (stdio, input) = Input::stdio(spec.tty.then_some(self.launch.size), spec.open_stdin, &hub)?;
        let running = self.executor.spawn(room, stdio)?;
        let handle = running.handle();
        input.connect(&handle, spec.open_stdin);
        let run = Run {
            pid: handle.pid(),
            monitor: rustix::process::getpid().as_raw_nonzero().get(),
            started: (self.clock.now_ns)(),
            endpoint,
        };
        let health = health::of(spec).map(|_| Health::default());
        self.containers
            .change(&self.id, |state| (state.status, state.health) = (Status::Running(run), health))?;
        self.containers.note_networks(&container, "connect");
        watch_end(handle.clone(), Arc::clone(&hub));
        let current = Arc::new(Current { handle, hub, input });
        locked(&self.shared).current = Some(Arc::clone(&current));
        health::watch(self, spec, &current);
        Ok((running, warnings))
    }

    /// Serves a client on a thread of its own.
    fn serve(self: &Arc<Self>, session: impl FnOnce(&Arc<Self>) + Send + 'static) {
        let monitor = Arc::clone(self);
        let thread = thread::spawn(move || session(&monitor));
        let mut sessions = locked(&self.sessions);
        sessions.retain(|session| !session.is_finished());
        sessions.push(thread);
    }

    /// Serves clients until the monitor is gone: this thread, which nothing wakes, does not keep it.
    fn accept(self: &Arc<Self>, listener: UnixListener) {
        let monitor = Arc::downgrade(self);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let Some(monitor) = monitor.upgrade() else { return };
                monitor.serve(move |monitor| session::serve(monitor, socket));
            }
        });
    }

    /// Waits for the process, starts it again as its policy says, and notes the end.
    fn watch(self: &Arc<Self>, mut running: Running, lock: File) {
        let mut pause = RESTART_PAUSE_MIN;
        loop {
            let started = Instant::now();
            let (current, exit) = self.wait(&mut running);
            let oom_killed = running.oom_kills() > 0;
            // What is left of it goes before anybody hears of the end.
            drop(running);
            if started.elapsed() > RESTART_RESET {
                pause = RESTART_PAUSE_MIN;
            }
            let ended = Ended { code: exit.code(), oom_killed, ..Ended::default() };
            let restarted =
                self.wants_restart(&ended).then(|| self.restart(&current, &ended, pause)).flatten();
            let Some(again) = restarted else { return self.finish(&current, ended, lock) };
            running = again;
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
    }

    /// Waits for the end of the process. All its output is in the log then.
    fn wait(&self, running: &mut Running) -> (Arc<Current>, Exit) {
        let current =
            locked(&self.shared).current.clone().expect("what runs was made current when it was started");
        // That the kernel refuses to wait for a child is not known to happen.
        let exit = running.wait().unwrap_or(Exit::Signal(signal::KILL));
        current.hub.finish_log();
        (current, exit)
    }

    fn wants_restart(&self, ended: &Ended) -> bool {
        let Ok(container) = self.container() else { return false };
        let state = &container.state;
        !locked(&self.shared).stop_requested
            && state.spec.restart.restarts(ended.code, state.restart_count + 1)
    }

    /// Waits and starts again; `None` when a person stopped it meanwhile, or it cannot be started.
    fn restart(self: &Arc<Self>, current: &Current, ended: &Ended, pause: Duration) -> Option<Running> {
        let code = ended.code;
        let noted = self.containers.change(&self.id, |state| {
            let run = state.status.run().cloned();
            state.restart_count += 1;
            if let Some(run) = run {
                state.status = Status::Restarting { run, code };
            }
        });
        self.left_networks();
        current.hub.finish(code);
        let shared = locked(&self.shared);
        let wait = self.changed.wait_timeout_while(shared, pause, |shared| !shared.stop_requested);
        let (mut shared, _) = wait.unwrap_or_else(PoisonError::into_inner);
        shared.current = None;
        let stopped = shared.stop_requested;
        drop(shared);
        if stopped || noted.is_err() { None } else { self.start().ok().map(|(running, _)| running) }
    }

    /// Notes the end, removes what is to go, and tells the clients: in this order.
    fn finish(&self, current: &Current, ended: Ended, lock: File) {
        let code = ended.code;
        let finished = (self.clock.now_ns)();
        let noted = self.containers.change(&self.id, |state| {
            let started = state.status.run().map_or(finished, |run| run.started);
            state.status = Status::Exited(Ended { started, finished, ..ended });
            state.health = None;
        });
        // What was not noted reads as lost, since the lock is free from here on.
        drop(noted);
        self.left_networks();
        drop(fs::remove_file(self.containers.directory(&self.id).join(SOCKET)));
        drop(lock);
        if let Ok(container) = self.container()
            && container.state.spec.auto_remove
        {
            // What cannot be removed now stays, stopped, for a person to see.
            drop(self.containers.remove_with_volumes(&container));
        }
        self.networks.close();
        current.hub.finish(code);
        let mut shared = locked(&self.shared);
        (shared.current, shared.done) = (None, Some(code));
        drop(shared);
        self.changed.notify_all();
        let sessions = std::mem::take(&mut *locked(&self.sessions));
        for session in sessions {
            // One that panicked has nothing more to say.
            drop(session.join());
        }
    }

    fn left_networks(&self) {
        // One that somebody has removed is noted as gone.
        if let Ok(container) = self.container() {
            self.containers.note_networks(&container, "disconnect");
        }
    }

    fn current(&self) -> Option<Arc<Current>> {
        locked(&self.shared).current.clone()
    }

    /// Waits until the container runs no more and will not by itself. Its exit code; `None` when `limit` was over before.
    fn wait_done(&self, limit: Option<Duration>) -> Option<i32> {
        let shared = locked(&self.shared);
        match limit {
            Some(limit) => {
                let wait = self.changed.wait_timeout_while(shared, limit, |shared| shared.done.is_none());
                wait.unwrap_or_else(PoisonError::into_inner).0.done
            }
            None => {
                let wait = self.changed.wait_while(shared, |shared| shared.done.is_none());
                wait.unwrap_or_else(PoisonError::into_inner).done
            }
        }
    }

    /// A person wants it to end: it is not started again.
    fn request_stop(&self) {
        locked(&self.shared).stop_requested = true;
        self.changed.notify_all();
    }
}

/// Tells a hub when the process has ended, also while its output waits for a slow client.
fn watch_end(handle: Handle, hub: Arc<Hub>) {
    thread::spawn(move || {
        let mut polled = [PollFd::from_borrowed_fd(handle.pidfd(), PollFlags::IN)];
        while let Err(rustix::io::Errno::INTR) = poll(&mut polled, None) {}
        hub.process_ended();
    });
}

/// Ends what the monitor of a container that was lost has left: the kernel kills neither what is frozen nor what is in another PID
/// namespace with the first process.
pub(crate) fn end_leftovers(container: &Container) {
    if container.state.status.is_lost()
        && let Ok(group) = process::cgroup(container).find(CgroupSupport::get())
    {
        // What cannot be killed is seen by nobody but the machine's own tools.
        drop(group.kill());
        drop(group.remove());
    }
}

/// Everything of both outputs.
const ALL_OUTPUT: Attach = Attach { stdin: false, stdout: true, stderr: true };
