//! The client's side: starting a monitor, and asking one.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rbuild_executor::{Stream, TerminalSize};

use crate::monitor::MONITOR_NAME;
use crate::processes::of_container;
use crate::protocol::{
    self, Attach, Exec, Frame, Input, Launch, Opening, Reply, Request, Stop, Update, Usage, VERSION, expect,
    send,
};
use crate::spec::{Attachment, NetworkMode, overlay};
use crate::state::{Action, START_FAILED, StartFailure, Status};
use crate::{Container, ContainerError, Containers, SOCKET, generate_id};

/// A monitor that was started and waits to be told its container. It ends when this is dropped.
///
/// To start one costs the time of an `execve`, which passes while the caller still makes the container.
#[derive(Debug)]
pub struct IdleMonitor(UnixStream);

impl IdleMonitor {
    /// Starts one.
    ///
    /// # Errors
    /// When this program cannot be executed again.
    pub fn start() -> Result<Self, ContainerError> {
        let (socket, _child) = rbuild_executor::detached::start(MONITOR_NAME)?;
        Ok(Self(socket))
    }
}

/// How a container is started.
#[derive(Debug)]
pub struct StartOptions {
    /// Its monitor.
    pub monitor: IdleMonitor,
    /// Whether the store marks its layers with `user.` attributes, as in user namespaces.
    pub user_xattrs: bool,
    /// Whether files cannot be given to others than their maker.
    pub squash_owners: bool,
    /// The directory of mount-point stubs.
    pub stubs: std::path::PathBuf,
    /// The directory of the leases of addresses.
    pub networks: std::path::PathBuf,
    /// The size of the container's terminal, if it has one.
    pub size: TerminalSize,
    /// How the caller takes part, if it does.
    pub attach: Option<Attach>,
}

/// A container, or a further process, that runs.
#[derive(Debug)]
pub struct Started {
    /// What the machine could not do.
    pub warnings: Vec<String>,
    /// Where the caller takes part.
    pub session: Session,
}

/// A client's part in a process: its output comes, its input goes, and last comes how it ended.
#[derive(Debug, Clone)]
pub struct Session {
    socket: Arc<UnixStream>,
}

/// What comes of a process.
#[derive(Debug)]
pub enum Event {
    /// Output.
    Output(Stream, Vec<u8>),
    /// It has ended so.
    Exited(i32),
}

impl Session {
    /// The next of what comes.
    ///
    /// # Errors
    /// [`ContainerError::MonitorLost`] when the monitor is gone.
    pub fn next_event(&self) -> Result<Event, ContainerError> {
        match protocol::receive(&self.socket) {
            Ok(Some(Frame::Output(stream, bytes))) => Ok(Event::Output(stream, bytes)),
            Ok(Some(Frame::Message(Reply::Exited { code }))) => Ok(Event::Exited(code)),
            Ok(_) | Err(_) => Err(ContainerError::MonitorLost),
        }
    }

    /// Sends input.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        protocol::send_stdin(&self.socket, bytes)
    }

    /// Ends the input.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn end_input(&self) -> io::Result<()> {
        send(&self.socket, &Input::StdinEnd)
    }

    /// Says that nobody reads this output any more.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn close_output(&self, stream: Stream) -> io::Result<()> {
        send(&self.socket, &Input::OutputClosed { stderr: stream == Stream::Stderr })
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        send(&self.socket, &Input::Signal(signal))
    }

    /// Sets the size of the terminal.
    ///
    /// # Errors
    /// When the monitor is gone.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        send(&self.socket, &Input::Resize(size))
    }

    /// Leaves: nothing more comes.
    pub fn leave(&self) {
        // One that is closed already is left.
        drop(self.socket.shutdown(std::net::Shutdown::Both));
    }
}

impl Containers {
    /// Starts the process of a container, under a monitor that outlives the caller.
    ///
    /// # Errors
    /// When its state forbids it, or it cannot be run. Its status is then what it was, and its state says why.
    pub fn start(&self, container: &Container, options: StartOptions) -> Result<Started, ContainerError> {
        container.check(Action::Start)?;
        // A person starts it: restarts count from here.
        self.change(&container.id, |state| (state.restart_count, state.start_failure) = (0, None))?;
        if options.attach.is_some() {
            self.note(container, "attach", []);
        }
        let launch = Launch {
            root: self.store().root().to_owned(),
            user_xattrs: options.user_xattrs,
            squash_owners: options.squash_owners,
            id: container.id.clone(),
            stubs: options.stubs,
            networks: options.networks,
            size: options.size,
            attach: options.attach,
        };
        let socket = options.monitor.0;
        open(&socket, Request::Launch(Box::new(launch)))?;
        started(socket).inspect_err(|error| self.note_start_failure(container, error))
    }

    /// Notes why a container could not be started. The error itself is told to whoever tried.
    fn note_start_failure(&self, container: &Container, error: &ContainerError) {
        if let ContainerError::Refused { message, exit_code } = error {
            let failure = StartFailure { code: exit_code.unwrap_or(START_FAILED), message: message.clone() };
            drop(self.change(&container.id, |state| state.start_failure = Some(failure)));
        }
    }

    /// Takes part in a container that runs.
    ///
    /// # Errors
    /// When it does not run.
    pub fn attach(&self, container: &Container, attach: Attach) -> Result<Session, ContainerError> {
        container.check(Action::Attach)?;
        let session = self.talk(container, Request::Attach(attach), started)?.session;
        self.note(container, "attach", []);
        Ok(session)
    }

    /// Runs a further process in a container that runs.
    ///
    /// # Errors
    /// When it does not run, or the process cannot be run.
    pub fn exec(&self, container: &Container, exec: Exec) -> Result<Session, ContainerError> {
        container.check(Action::Exec)?;
        let exec = Exec { id: generate_id()?, ..exec };
        let (id, line) = (exec.id.clone(), exec.args.join(" "));
        let note = |action| self.note(container, &format!("{action}: {line}"), [("execID", id.clone())]);
        note("exec_create");
        let session = self.talk(container, Request::Exec(Box::new(exec)), started)?.session;
        note("exec_start");
        Ok(session)
    }

    /// Sends a signal to the process of a container.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&self, container: &Container, signal: i32) -> Result<(), ContainerError> {
        container.check(Action::Kill)?;
        self.ask(container, Request::Signal(signal))?;
        self.note(container, "kill", [("signal", signal.to_string())]);
        Ok(())
    }

    /// Ends the process of a container in good order, or else by force. One that does not run has ended already.
    ///
    /// # Errors
    /// When the monitor fails.
    pub fn stop(&self, container: &Container, stop: Stop) -> Result<(), ContainerError> {
        if !container.state.status.is_active() {
            return Ok(());
        }
        self.or_gone(container, self.ask(container, Request::Stop(stop)))?;
        self.note(container, "stop", []);
        Ok(())
    }

    /// Waits until a container runs no more, and will not by itself. Returns its exit code, which its monitor knows also where the
    /// container is removed then, or started again.
    ///
    /// # Errors
    /// When the container had ended before, and is gone.
    pub fn wait(&self, container: &Container) -> Result<i32, ContainerError> {
        if container.state.status.is_active()
            && let Some(code) = self.or_gone(container, self.talk(container, Request::Wait, ended))?.flatten()
        {
            return Ok(code);
        }
        let status = self.get(&container.id)?.state.status;
        Ok(status.ended().map_or(0, |ended| ended.code))
    }

    /// Freezes a container. A word on how, where it is not as it should be.
    ///
    /// # Errors
    /// When its state forbids it.
    pub fn pause(&self, container: &Container) -> Result<Option<String>, ContainerError> {
        container.check(Action::Pause)?;
        self.ask(container, Request::Pause)
    }

    /// Freezes a container until what comes back is dropped, or this process ends.
    ///
    /// # Errors
    /// When its state forbids it.
    pub fn hold(&self, container: &Container) -> Result<Held, ContainerError> {
        container.check(Action::Pause)?;
        self.talk(container, Request::Hold, |socket| done(&socket).map(|_| Held(socket)))
    }

    /// Lets a frozen container go on.
    ///
    /// # Errors
    /// When its state forbids it.
    pub fn unpause(&self, container: &Container) -> Result<(), ContainerError> {
        container.check(Action::Unpause)?;
        self.ask(container, Request::Unpause).map(drop)
    }

    /// Changes what may change of a container, running or not.
    ///
    /// # Errors
    /// When the machine refuses a limit.
    pub fn update(&self, container: &Container, update: &Update) -> Result<(), ContainerError> {
        if container.state.status.is_active() {
            self.ask(container, Request::Update(update.clone()))?;
        }
        self.change(&container.id, |state| {
            overlay(&mut state.spec.limits, &update.limits);
            state.spec.restart = update.restart.unwrap_or(state.spec.restart);
        })?;
        self.note(container, "update", []);
        Ok(())
    }

    /// Puts a container on a network, at once where it runs.
    ///
    /// # Errors
    /// When its state or its other networks forbid it, or it cannot have what it is to have there.
    pub fn connect_network(
        &self,
        container: &Container,
        attachment: Attachment,
    ) -> Result<(), ContainerError> {
        if container.state.status.is_active() {
            return self.ask(container, Request::Connect(attachment)).map(drop);
        }
        self.set_network(container, |mode| mode.with(attachment))
    }

    /// Takes a container from a network, at once where it runs.
    ///
    /// # Errors
    /// When it is not on it.
    pub fn disconnect_network(&self, container: &Container, network: &str) -> Result<(), ContainerError> {
        if container.state.status.is_active() {
            return self.ask(container, Request::Disconnect(network.to_owned())).map(drop);
        }
        self.set_network(container, |mode| mode.without(network, &container.id))
    }

    /// Gives a container that does not run other networks.
    fn set_network(
        &self,
        container: &Container,
        change: impl FnOnce(&NetworkMode) -> Result<NetworkMode, ContainerError>,
    ) -> Result<(), ContainerError> {
        // Whoever holds it runs the container.
        let _lock = self.lock(container)?;
        let mode = change(&self.get(&container.id)?.state.spec.network)?;
        self.change(&container.id, |state| state.spec.network = mode)
    }

    /// The processes of a container that runs, as the host sees them.
    ///
    /// # Errors
    /// When it does not run.
    pub fn processes(&self, container: &Container) -> Result<Vec<i32>, ContainerError> {
        container.check(Action::Top)?;
        self.note(container, "top", []);
        Ok(container.state.status.run().map(of_container).unwrap_or_default())
    }

    /// What a container that runs uses and has used.
    ///
    /// # Errors
    /// When it does not run.
    pub fn usage(&self, container: &Container) -> Result<Usage, ContainerError> {
        container.check(Action::Top)?;
        let usage = |socket| match expect(&socket).map_err(|_| ContainerError::MonitorLost)? {
            Reply::Usage(usage) => Ok(*usage),
            reply => Err(refusal(reply)),
        };
        self.talk(container, Request::Usage, usage)
    }

    /// The root directory of a container that runs, as its processes see it.
    pub(crate) fn live_root(&self, container: &Container) -> Result<OwnedFd, ContainerError> {
        self.talk(container, Request::Root, |socket| {
            done(&socket)?;
            protocol::receive_descriptor(&socket).map_err(ContainerError::Talk)
        })
    }

    fn connect(&self, container: &Container) -> Result<UnixStream, ContainerError> {
        let directory = self.directory(&container.id);
        let connect = || {
            let open = File::open(&directory)?;
            UnixStream::connect(rbuild_cache::root_dir::proc_path(open.as_fd()).join(SOCKET))
        };
        // Its monitor has gone between the look at the row and now.
        connect().map_err(|_| not_running(container))
    }

    /// Sends a request to a container's monitor, and takes the answer.
    fn talk<T>(
        &self,
        container: &Container,
        request: Request,
        answer: impl FnOnce(UnixStream) -> Result<T, ContainerError>,
    ) -> Result<T, ContainerError> {
        let socket = self.connect(container)?;
        match open(&socket, request).and_then(|()| answer(socket)) {
            // It was about to go: it had ended its container.
            Err(ContainerError::Talk(_) | ContainerError::MonitorLost)
                if !self.get(&container.id)?.state.status.is_active() =>
            {
                Err(not_running(container))
            }
            answered => answered,
        }
    }

    fn ask(&self, container: &Container, request: Request) -> Result<Option<String>, ContainerError> {
        self.talk(container, request, |socket| done(&socket))
    }

    /// The answer to what is done as well when the container has ended meanwhile; `None` when it has.
    fn or_gone<T>(
        &self,
        container: &Container,
        answer: Result<T, ContainerError>,
    ) -> Result<Option<T>, ContainerError> {
        match answer {
            Err(error) => match self.get(&container.id) {
                Ok(now) if now.state.status.is_active() => Err(error),
                _ => Ok(None),
            },
            Ok(answer) => Ok(Some(answer)),
        }
    }
}

fn not_running(container: &Container) -> ContainerError {
    ContainerError::Illegal { message: format!("container {} is not running", container.id) }
}

/// A container that is frozen as long as this lives.
#[derive(Debug)]
pub struct Held(UnixStream);

impl Drop for Held {
    fn drop(&mut self) {
        // The monitor ends its side when the container goes on; one that is gone has ended it.
        drop(self.0.shutdown(std::net::Shutdown::Write));
        drop(protocol::receive::<Reply>(&self.0));
    }
}

fn open(socket: &UnixStream, request: Request) -> Result<(), ContainerError> {
    send(socket, &Opening { version: VERSION, request }).map_err(ContainerError::Talk)
}

fn started(socket: UnixStream) -> Result<Started, ContainerError> {
    match expect(&socket).map_err(|_| ContainerError::MonitorLost)? {
        Reply::Started { warnings } => {
            Ok(Started { warnings, session: Session { socket: Arc::new(socket) } })
        }
        reply => Err(refusal(reply)),
    }
}

fn done(socket: &UnixStream) -> Result<Option<String>, ContainerError> {
    match expect(socket).map_err(|_| ContainerError::MonitorLost)? {
        Reply::Done { note } => Ok(note),
        reply => Err(refusal(reply)),
    }
}

/// How a container has ended; `None` of a monitor of an older program, which says only that it has.
fn ended(socket: UnixStream) -> Result<Option<i32>, ContainerError> {
    match expect(&socket).map_err(|_| ContainerError::MonitorLost)? {
        Reply::Exited { code } => Ok(Some(code)),
        Reply::Done { .. } => Ok(None),
        reply => Err(refusal(reply)),
    }
}

fn refusal(reply: Reply) -> ContainerError {
    match reply {
        Reply::Failed(failed) if failed.illegal => ContainerError::Illegal { message: failed.message },
        Reply::Failed(failed) => {
            ContainerError::Refused { message: failed.message, exit_code: failed.exit_code }
        }
        _ => ContainerError::ForeignMonitor,
    }
}

impl Container {
    /// Whether an action is legal now.
    ///
    /// # Errors
    /// [`ContainerError::Illegal`] when it is not.
    pub fn check(&self, action: Action) -> Result<(), ContainerError> {
        self.state.status.check(action, &self.name, &self.id)
    }

    /// Whether its process runs, frozen or not.
    pub const fn is_running(&self) -> bool {
        matches!(self.state.status, Status::Running(_) | Status::Paused(_))
    }
}
