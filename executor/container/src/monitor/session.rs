//! One client of a monitor.

use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rbuild_executor::Handle;

use super::hub::{Hub, Next, Queue};
use super::process::{Input, further, security};
use super::{ALL_OUTPUT, Current, Monitor, watch_end};
use crate::protocol::{
    self, Attach, Exec, Failed, Frame, Opening, Reply, Request, Stop, Update, VERSION, send,
};
use crate::spec::STOP_TIMEOUT_SECONDS_DEFAULT;
use crate::state::Action;
use crate::{ContainerError, signal};

/// Serves a client that has connected.
pub(super) fn serve(monitor: &Arc<Monitor>, socket: UnixStream) {
    let Ok(opening) = protocol::expect::<Opening>(&socket) else { return };
    let answer = if opening.version == VERSION {
        answer(monitor, &socket, opening.request)
    } else {
        Err(ContainerError::ForeignMonitor)
    };
    let reply = match answer {
        Ok(Some(reply)) => reply,
        Ok(None) => return,
        Err(error) => Reply::Failed(Failed::new(&error)),
    };
    // A client that went away wants no answer.
    drop(send(&socket, &reply));
}

/// Does what was asked for; `None` when all has been said.
fn answer(
    monitor: &Arc<Monitor>,
    socket: &UnixStream,
    request: Request,
) -> Result<Option<Reply>, ContainerError> {
    let done = |note| Ok(Some(Reply::Done { note }));
    match request {
        Request::Launch(_) => Err(ContainerError::ForeignMonitor),
        Request::Attach(wanted) => {
            legal(monitor, Action::Attach)?;
            send(socket, &Reply::Started { warnings: Vec::new() }).map_err(ContainerError::Talk)?;
            if let Some(part) = Part::new(monitor, wanted, false) {
                attach(monitor, socket, &part);
            }
            Ok(None)
        }
        Request::Exec(exec) => {
            let current = legal(monitor, Action::Exec)?;
            self::exec(monitor, socket, &current, &exec).map(|()| None)
        }
        Request::Signal(signal) => {
            let current = legal(monitor, Action::Kill)?;
            send_signal(monitor, &current, signal)?;
            done(None)
        }
        Request::Stop(stop) => self::stop(monitor, stop).and_then(|()| done(None)),
        Request::Pause => {
            let current = legal(monitor, Action::Pause)?;
            monitor.pause(&current).and_then(done)
        }
        Request::Hold => hold(monitor, socket).map(|()| None),
        Request::Unpause => {
            let current = legal(monitor, Action::Unpause)?;
            monitor.unpause(&current).and_then(|()| done(None))
        }
        Request::Root => {
            let root = legal(monitor, Action::Top)?.handle.root()?;
            send(socket, &Reply::Done { note: None }).map_err(ContainerError::Talk)?;
            protocol::send_descriptor(socket, root.as_fd()).map_err(ContainerError::Talk)?;
            Ok(None)
        }
        Request::Resize(size) => {
            legal(monitor, Action::Top)?.handle.resize(size)?;
            done(None)
        }
        Request::Update(update) => self::update(monitor, &update).and_then(|()| done(None)),
        Request::Connect(attachment) => {
            let current = legal(monitor, Action::Top)?;
            monitor.connect_running(&current, attachment).and_then(|()| done(None))
        }
        Request::Disconnect(network) => {
            let current = legal(monitor, Action::Top)?;
            monitor.disconnect_running(&current, &network).and_then(|()| done(None))
        }
        Request::Usage => {
            let current = legal(monitor, Action::Top)?;
            Ok(Some(Reply::Usage(Box::new(monitor.usage(&current)?))))
        }
        Request::Wait => {
            // Without a limit it is over when this returns.
            let code = monitor.wait_done(None).unwrap_or_default();
            Ok(Some(Reply::Exited { code }))
        }
    }
}

/// Freezes the container as long as a client is there.
fn hold(monitor: &Monitor, socket: &UnixStream) -> Result<(), ContainerError> {
    let current = legal(monitor, Action::Pause)?;
    let note = monitor.pause(&current)?;
    // One that has gone by now is seen below.
    drop(send(socket, &Reply::Done { note }));
    while let Ok(Some(_)) = protocol::receive::<protocol::Input>(socket) {}
    monitor.thaw(&current)
}

/// The process, if its state allows the action.
fn legal(monitor: &Monitor, action: Action) -> Result<Arc<Current>, ContainerError> {
    let container = monitor.container()?;
    let check = || container.state.status.check(action, &container.name, &container.id);
    check()?;
    monitor.current().ok_or_else(|| ContainerError::Illegal {
        message: format!("container {} is not running", container.id),
    })
}

/// A client's part in the process that runs now. It misses nothing that comes after this was made.
pub(super) struct Part {
    current: Arc<Current>,
    queue: Arc<Queue>,
    stdin: bool,
    /// It is the client for whom the container runs.
    owner: bool,
}

impl Part {
    /// `None` when nothing runs.
    pub(super) fn new(monitor: &Monitor, wanted: Attach, owner: bool) -> Option<Self> {
        let current = monitor.current()?;
        let queue = current.hub.subscribe(wanted);
        Some(Self { current, queue, stdin: wanted.stdin, owner })
    }
}

/// Lets a client take part until the process ends or the client goes.
pub(super) fn attach(monitor: &Arc<Monitor>, socket: &UnixStream, part: &Part) {
    let current = &part.current;
    let stdin_once = monitor.container().is_ok_and(|container| container.state.spec.stdin_once);
    let input = part.stdin.then_some(&current.input);
    converse(socket, &current.hub, &part.queue, |frame| match frame {
        Frame::Message(protocol::Input::OutputClosed { stderr }) if part.owner => {
            current.hub.close_output(stderr);
        }
        frame => take_input(frame, input, &current.handle, |signal| send_signal(monitor, current, signal)),
    });
    if part.stdin && stdin_once {
        current.input.close();
    }
}

/// Relays both ways until the process ends or the client goes.
fn converse(
    socket: &UnixStream,
    hub: &Arc<Hub>,
    queue: &Arc<Queue>,
    mut take: impl FnMut(Frame<protocol::Input>),
) {
    thread::scope(|scope| {
        scope.spawn(|| tell(socket, queue));
        while let Ok(Some(frame)) = protocol::receive(socket) {
            take(frame);
        }
        hub.unsubscribe(queue);
    });
}

/// Tells a client what comes, up to the end.
fn tell(socket: &UnixStream, queue: &Queue) {
    loop {
        let told = match queue.next() {
            Next::Output(stream, bytes) => protocol::send_output(socket, stream, &bytes),
            Next::Exited(code) => {
                drop(send(socket, &Reply::Exited { code }));
                break;
            }
            Next::Gone => break,
        };
        if told.is_err() {
            break;
        }
    }
    // Wakes the one that listens to the client.
    drop(socket.shutdown(Shutdown::Both));
}

fn take_input(
    frame: Frame<protocol::Input>,
    input: Option<&Input>,
    handle: &Handle,
    mut signal: impl FnMut(i32) -> Result<(), ContainerError>,
) {
    match (frame, input) {
        (Frame::Stdin(bytes), Some(input)) => input.write(&bytes),
        (Frame::Message(protocol::Input::StdinEnd), Some(input)) => input.close(),
        // A process that has ended meanwhile needs neither size nor signal.
        (Frame::Message(protocol::Input::Resize(size)), _) => drop(handle.resize(size)),
        (Frame::Message(protocol::Input::Signal(number)), _) => drop(signal(number)),
        _ => {}
    }
}

/// Runs a further process. Its thread waits for it in any case: the container cannot end before all its processes are reaped.
fn exec(
    monitor: &Arc<Monitor>,
    socket: &UnixStream,
    current: &Current,
    exec: &Exec,
) -> Result<(), ContainerError> {
    let container = monitor.container()?;
    let hub = Hub::new(None, monitor.clock);
    let (stdio, input) = Input::stdio(exec.terminal, exec.stdin, &hub)?;
    let process = further(&container, exec)?;
    let privileged = security(exec.privileged || container.state.spec.privileged);
    let mut running = monitor.executor.join(&current.handle, process, privileged, stdio)?;
    let handle = running.handle();
    input.connect(&handle, exec.stdin);
    watch_end(handle.clone(), Arc::clone(&hub));
    let queue = hub.subscribe(ALL_OUTPUT);
    let told = send(socket, &Reply::Started { warnings: Vec::new() });
    thread::scope(|scope| {
        scope.spawn(|| {
            let code = running.wait().map_or(signal::KILL, rbuild_executor::Exit::code);
            let told = [("execID", exec.id.clone()), ("exitCode", code.to_string())];
            monitor.containers.note(&container, "exec_die", told);
            hub.finish(code);
        });
        if told.is_ok() && !exec.detach {
            converse(socket, &hub, &queue, |frame| match frame {
                Frame::Message(protocol::Input::OutputClosed { stderr }) => hub.close_output(stderr),
                frame => take_input(frame, Some(&input), &handle, |signal| Ok(handle.signal(signal)?)),
            });
        } else {
            hub.unsubscribe(&queue);
            drop(socket.shutdown(Shutdown::Both));
        }
        // A client that went away leaves a process that reads on: there is nothing more to read.
        input.close();
    });
    Ok(())
}

/// Sends a signal. One that is meant to end the container ends it for good, frozen or not.
fn send_signal(monitor: &Monitor, current: &Current, number: i32) -> Result<(), ContainerError> {
    let own = signal::parse_signal(&monitor.container()?.state.spec.config.stop_signal);
    let is_final = number == signal::KILL || number == own.unwrap_or(signal::TERM);
    if is_final {
        monitor.request_stop();
    }
    current.handle.signal(number)?;
    if is_final {
        monitor.thaw(current)?;
    }
    Ok(())
}

/// Asks the process to end, and ends it when it does not in time.
fn stop(monitor: &Monitor, stop: Stop) -> Result<(), ContainerError> {
    monitor.request_stop();
    let spec = monitor.container()?.state.spec;
    let own = signal::parse_signal(&spec.config.stop_signal).unwrap_or(signal::TERM);
    let timeout = stop.timeout_seconds.or(spec.stop_timeout).unwrap_or(STOP_TIMEOUT_SECONDS_DEFAULT.into());
    if let Some(current) = monitor.current() {
        current.handle.signal(stop.signal.unwrap_or(own))?;
        monitor.thaw(&current)?;
    }
    // A negative time is for ever.
    let limit = u64::try_from(timeout).ok().map(Duration::from_secs);
    if monitor.wait_done(limit).is_none()
        && let Some(current) = monitor.current()
    {
        current.handle.kill()?;
    }
    monitor.wait_done(None);
    Ok(())
}

fn update(monitor: &Monitor, update: &Update) -> Result<(), ContainerError> {
    let cgroup = monitor.current().map(|current| current.handle.cgroup()).transpose()?.flatten();
    if update.limits.is_empty() {
        return Ok(());
    }
    let cgroup = cgroup.ok_or(ContainerError::NoCgroup)?;
    cgroup.update(&update.limits).map_err(rbuild_executor::Error::from)?;
    Ok(())
}
