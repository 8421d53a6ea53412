//! A process in its container: its output, its end, and what it leaves.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, OFlags, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions};
use rustix::termios::Winsize;

use crate::cgroup::{self, Cgroup, CgroupSpec, CgroupSupport, DeviceRule};
use crate::error::{Error, Note};
use crate::handshake::{Channel, Message, Stub};
use crate::laid_over::LaidOver;
use crate::network::{Connection, Network, SharedConnection};
use crate::output::{OutputSink, Stream, TerminalSize};
use crate::process::Exit;
use crate::spawn::Spawner;

/// How often a wait that can be cancelled looks at its flag.
const CANCEL_INTERVAL: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// How much output is read at a time: what a pipe holds.
const READ_SIZE_BYTES: usize = 64 * 1024;

/// A process in its container, from another thread: to signal it while one waits.
#[derive(Debug, Clone)]
pub struct Handle {
    pid: i32,
    pidfd: Arc<OwnedFd>,
    terminal: Option<Arc<OwnedFd>>,
    /// The name of its control group.
    group: Option<Arc<str>>,
    /// What ends it and all others of the container.
    end: Signal,
    /// Its connection to networks, where it has one of its own, until it has ended.
    connection: Weak<Mutex<Connection>>,
}

impl Handle {
    /// The process id outside of the container.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// A descriptor that becomes readable when the process ends.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// The controlling side of its terminal, to write input to, where it has one.
    pub fn terminal(&self) -> Option<BorrowedFd<'_>> {
        self.terminal.as_deref().map(AsFd::as_fd)
    }

    /// Its connection to networks, where it has one of its own, as long as it runs. Whoever keeps this keeps the connection.
    pub fn connection(&self) -> Option<SharedConnection> {
        self.connection.upgrade()
    }

    /// Its control group, opened anew, where it has one of its own.
    ///
    /// # Errors
    ///
    /// When it cannot be opened; it is gone when the process has ended.
    pub fn cgroup(&self) -> Result<Option<Cgroup>, Error> {
        let open = |name: &Arc<str>| Cgroup::open(CgroupSupport::get(), name);
        Ok(self.group.as_ref().map(open).transpose()?)
    }

    /// The root directory that the process sees, as long as it runs.
    ///
    /// # Errors
    ///
    /// When it has ended, or the kernel refuses.
    pub fn root(&self) -> Result<OwnedFd, Error> {
        let failed = |error: Errno| Error::setup("open the root directory of the process", error);
        let path = format!("/proc/{}/root", self.pid);
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(failed)?;
        // The number may be another's by now; what has not ended still has it.
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut [PollFd::new(&*self.pidfd, PollFlags::IN)], Some(&now)) {
            Ok(0) => Ok(root),
            Ok(_) => Err(failed(Errno::SRCH)),
            Err(error) => Err(failed(error)),
        }
    }

    /// Sends a signal. As PID 1 of its namespace the process only feels those that it handles, and `SIGKILL`.
    /// One that has ended feels nothing; that is no error.
    ///
    /// # Errors
    ///
    /// A number that is no signal.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        let sent = Signal::from_named_raw(signal)
            .ok_or(Errno::INVAL)
            .and_then(|signal| rustix::process::pidfd_send_signal(&*self.pidfd, signal));
        match sent {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(Error::setup("send a signal to the process", error)),
        }
    }

    /// Ends the process, and with it all others of the container.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn kill(&self) -> Result<(), Error> {
        self.signal(self.end.as_raw())
    }

    /// Sets the size of its terminal, which tells the process with `SIGWINCH`. Without a terminal, nothing.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        let Some(terminal) = self.terminal() else { return Ok(()) };
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(terminal, size)
            .map_err(|error| Error::setup("resize the terminal", error))
    }
}

/// What a wait found.
struct Ready {
    ended: bool,
    /// In the order of the outputs.
    outputs: Vec<bool>,
}

/// The control group of a process, which goes with it.
#[derive(Debug)]
pub(crate) struct Group {
    cgroup: Option<Cgroup>,
    pub(crate) devices: Devices,
}

/// Which devices the processes of a group can open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Devices {
    /// Those that a sandbox has.
    Confined,
    /// Whichever they find.
    All,
}

impl Group {
    /// Makes it, or nothing where it is not required and cannot be.
    pub(crate) fn create(
        spec: &CgroupSpec,
        wanted: Devices,
        allowed: &[DeviceRule],
    ) -> Result<Option<Self>, Error> {
        static CLEAN: Once = Once::new();
        let support = CgroupSupport::get();
        CLEAN.call_once(|| cgroup::clean_up(support, spec.parent.as_deref()));
        let mut cgroup = match Cgroup::create(support, spec) {
            Err(_) if spec.optional => return Ok(None),
            created => created?,
        };
        let confined = wanted == Devices::Confined && cgroup.confine_devices(support, allowed).is_ok();
        let devices = if confined { Devices::Confined } else { Devices::All };
        Ok(Some(Self { cgroup: Some(cgroup), devices }))
    }

    pub(crate) const fn cgroup(&self) -> Option<&Cgroup> {
        self.cgroup.as_ref()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // One that cannot be removed is empty, and the next rbuild removes it.
        drop(self.cgroup.take().map(Cgroup::remove));
    }
}

/// A process in its container. Dropping it kills it and waits until it is gone.
pub struct Running {
    handle: Handle,
    outputs: Vec<(Stream, OwnedFd)>,
    sink: Option<Box<dyn OutputSink>>,
    notes: Vec<Note>,
    stubs: Vec<Stub>,
    /// Kept where there are stubs to remove.
    root: Option<OwnedFd>,
    /// Held until the process has ended.
    network: Network,
    exit: Option<Exit>,
    group: Option<Group>,
    oom_kills: u64,
    /// Whether the container has no PID namespace of its own.
    shares_pids: bool,
    /// What stands for its mounts where it has none.
    laid_over: Option<LaidOver>,
    /// The thread that made it, where it is this process's alone.
    spawner: Option<Spawner>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Running").field("pid", &self.handle.pid).field("exit", &self.exit).finish()
    }
}

impl Running {
    pub(crate) fn new(
        pid: i32,
        pidfd: OwnedFd,
        outputs: Vec<(Stream, OwnedFd)>,
        sink: Option<Box<dyn OutputSink>>,
    ) -> Self {
        let handle = Handle {
            pid,
            pidfd: Arc::new(pidfd),
            terminal: None,
            group: None,
            end: Signal::KILL,
            connection: Weak::new(),
        };
        Self {
            handle,
            outputs,
            sink,
            notes: Vec::new(),
            stubs: Vec::new(),
            root: None,
            network: Network::None,
            exit: None,
            group: None,
            oom_kills: 0,
            shares_pids: false,
            laid_over: None,
            spawner: None,
        }
    }

    /// Keeps its control group as long as it runs.
    pub(crate) fn keep_group(&mut self, group: Group) {
        self.handle.group = group.cgroup().map(|cgroup| cgroup.name().into());
        self.group = Some(group);
    }

    /// Its control group, as long as it runs.
    pub fn cgroup(&self) -> Option<&Cgroup> {
        self.group.as_ref()?.cgroup()
    }

    /// How many processes of the container the kernel has killed for want of memory; known when it has ended.
    pub fn oom_kills(&self) -> u64 {
        self.oom_kills
    }

    /// Keeps the process's connection to a network, which is disconnected after it.
    pub(crate) fn keep_network(&mut self, network: Network) {
        if let Network::Own(connection) = &network {
            self.handle.connection = Arc::downgrade(connection);
        }
        self.network = network;
    }

    /// Keeps what stands for its mounts until it has ended. Its processes are a supervisor's to end, which must be told.
    pub(crate) fn keep_laid_over(&mut self, laid_over: LaidOver) {
        self.laid_over = Some(laid_over);
        self.handle.end = Signal::TERM;
    }

    /// Ends all others of the container with the process, as its PID namespace is somebody else's.
    pub(crate) fn end_group(&mut self) {
        self.shares_pids = true;
    }

    /// Keeps the thread that made it as long as this: the process ends with it.
    pub(crate) fn keep(&mut self, spawner: Spawner) {
        self.spawner = Some(spawner);
    }

    /// What other threads need of it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What the machine lacks, and what this container has instead.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// See [`Handle::signal`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn signal(&self, signal: i32) -> Result<(), Error> {
        self.handle.signal(signal)
    }

    /// See [`Handle::kill`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn kill(&self) -> Result<(), Error> {
        self.handle.kill()
    }

    /// See [`Handle::resize`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn resize(&self, size: TerminalSize) -> Result<(), Error> {
        self.handle.resize(size)
    }

    /// Passes on all output and waits for the end. All that was written has been passed on when this returns.
    ///
    /// # Errors
    ///
    /// The kernel's refusal to wait; none that is known.
    pub fn wait(&mut self) -> Result<Exit, Error> {
        self.wait_unless(None, None)
    }

    /// The same, and kills the process when `cancelled` becomes true.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] when it did; what was written until then has been passed on.
    pub fn wait_cancellable(&mut self, cancelled: &AtomicBool) -> Result<Exit, Error> {
        self.wait_unless(Some(cancelled), None)
    }

    /// The same, and kills the process when it has run for so long from now on.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] and [`Error::TimedOut`].
    pub fn wait_at_most(&mut self, timeout: Option<Duration>, cancelled: &AtomicBool) -> Result<Exit, Error> {
        self.wait_unless(Some(cancelled), timeout)
    }

    fn wait_unless(
        &mut self,
        cancelled: Option<&AtomicBool>,
        timeout: Option<Duration>,
    ) -> Result<Exit, Error> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let began = Instant::now();
        let reason_to_end = || {
            let is_cancelled = cancelled.is_some_and(|flag| flag.load(Ordering::Relaxed));
            let late = timeout.filter(|timeout| began.elapsed() >= *timeout).map(|_| Error::TimedOut);
            if is_cancelled { Some(Error::Cancelled) } else { late }
        };
        let interval = cancelled.map(|_| CANCEL_INTERVAL);
        let mut buffer = vec![0; READ_SIZE_BYTES];
        let mut ended_by = None;
        loop {
            let ready = self.poll(interval)?;
            self.read_outputs(&mut buffer, &ready);
            if ready.ended {
                break;
            }
            if ended_by.is_none() {
                ended_by = reason_to_end();
                ended_by.as_ref().map_or(Ok(()), |_| self.kill())?;
            }
        }
        let exit = self.reap()?;
        self.drain(&mut buffer)?;
        self.remove_stubs();
        ended_by.map_or(Ok(exit), Err)
    }

    /// Reads what is left in the pipes: all writers ended with the namespace.
    fn drain(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        loop {
            let ready = self.poll(Some(Timespec { tv_sec: 0, tv_nsec: 0 }))?;
            if !ready.outputs.contains(&true) {
                return Ok(());
            }
            self.read_outputs(buffer, &ready);
        }
    }

    /// Waits until something happens, or for `limit`.
    fn poll(&self, limit: Option<Timespec>) -> Result<Ready, Error> {
        let pidfd = std::iter::once(PollFd::new(&*self.handle.pidfd, PollFlags::IN));
        let outputs = self.outputs.iter().map(|(_, output)| PollFd::new(output, PollFlags::IN));
        let mut polled: Vec<PollFd<'_>> = pidfd.chain(outputs).collect();
        match poll(&mut polled, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(Error::setup("wait for the process", error)),
        }
        let mut ready = polled.iter().map(|polled| !polled.revents().is_empty());
        Ok(Ready { ended: ready.next().unwrap_or(false), outputs: ready.collect() })
    }

    /// Reads each output that is ready once; forgets those that have ended, or that nobody wants any more.
    fn read_outputs(&mut self, buffer: &mut [u8], ready: &Ready) {
        let mut ready = ready.outputs.iter();
        let sink = &mut self.sink;
        self.outputs.retain(|(stream, output)| {
            if ready.next() != Some(&true) {
                return true;
            }
            match rustix::io::read(output, &mut *buffer) {
                Ok(0) => false,
                Ok(size) => sink.as_mut().is_none_or(|sink| sink.write(*stream, &buffer[..size]).is_ok()),
                Err(Errno::AGAIN | Errno::INTR) => true,
                // A terminal whose last user has closed it says EIO.
                Err(_) => false,
            }
        });
    }

    fn reap(&mut self) -> Result<Exit, Error> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let status = loop {
            match rustix::process::waitid(WaitId::PidFd(self.handle.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Ok(Some(status)) => break status,
                Ok(None) | Err(Errno::INTR) => {}
                Err(error) => return Err(Error::setup("wait for the process", error)),
            }
        };
        let code = || Exit::Code(status.exit_status().unwrap_or(-1));
        let exit = status.terminating_signal().map_or_else(code, Exit::Signal);
        self.exit = Some(exit);
        self.oom_kills = self.cgroup().map_or(0, Cgroup::oom_kills);
        if self.shares_pids {
            // No namespace ends the others with it.
            self.cgroup().map_or(Ok(()), Cgroup::kill)?;
        }
        self.group = None;
        Ok(exit)
    }

    /// Listens to init until it has executed the program. `root`, if any, is kept if there will be something to remove in it.
    ///
    /// `told` is how instructing init went. It counts only where init itself says nothing.
    pub(crate) fn hear(
        &mut self,
        mut channel: Channel,
        told: io::Result<()>,
        root: Option<OwnedFd>,
    ) -> Result<(), Error> {
        let heard = self.listen(&mut channel, told);
        self.root = root.filter(|_| !self.stubs.is_empty());
        heard
    }

    fn listen(&mut self, channel: &mut Channel, told: io::Result<()>) -> Result<(), Error> {
        let failed = |source| Error::Handshake { verb: "hear", source };
        let mut executing = false;
        loop {
            match channel.receive().map_err(failed)? {
                Some(Message::Note(note)) => self.notes.push(note),
                Some(Message::Stub(stub)) => self.stubs.push(stub),
                Some(Message::Terminal) => {
                    let terminal = channel.receive_terminal().map_err(failed)?;
                    self.attach_terminal(terminal).map_err(failed)?;
                }
                Some(Message::Executing) => executing = true,
                Some(Message::Failed(failure)) => {
                    self.reap()?;
                    return Err(failure.into());
                }
                None if executing => return Ok(()),
                None => {
                    let exit = self.reap()?;
                    told.map_err(|source| Error::Handshake { verb: "instruct", source })?;
                    return Err(Error::InitDied { exit });
                }
            }
        }
    }

    fn attach_terminal(&mut self, terminal: OwnedFd) -> io::Result<()> {
        self.outputs.push((Stream::Stdout, terminal.try_clone()?));
        self.handle.terminal = Some(Arc::new(terminal));
        Ok(())
    }

    /// Removes the mount targets that init made and nothing has used, last made first.
    ///
    /// Failures stay silent: a stub that cannot be removed is an empty file or directory in the result, nothing more.
    fn remove_stubs(&mut self) {
        self.laid_over = None;
        let Some(root) = self.root.take() else { return };
        for stub in self.stubs.drain(..).rev() {
            let _ = remove_stub(root.as_fd(), &stub);
        }
    }
}

fn remove_stub(root: BorrowedFd<'_>, stub: &Stub) -> rustix::io::Result<()> {
    use rustix::fs::{Mode, ResolveFlags, openat2};
    let (Some(parent), Some(name)) = (stub.path.parent(), stub.path.file_name()) else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = openat2(root, parent, flags, Mode::empty(), resolve)?;
    if stub.directory {
        rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR)?;
    } else {
        let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let is_file = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file();
        if !is_file || stat.st_size != 0 {
            return Ok(());
        }
        rustix::fs::unlinkat(&parent, name, AtFlags::empty())?;
    }
    let (tv_sec, tv_nsec) = stub.parent_modified;
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec, tv_nsec },
    };
    rustix::fs::utimensat(&parent, ".", &times, AtFlags::empty())
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.exit.is_none() {
            // Neither fails on a child of ours; there is nobody to tell here.
            drop(self.kill());
            drop(self.reap());
        }
        self.remove_stubs();
    }
}
