//! `rbuild logs`: what a container has printed, and prints.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use rbuild_container::{Container, ContainerError, Containers, LogLine, LogReader, LogTail};
use rbuild_executor::Stream;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

use super::{EXIT_FAILED, containers, failure, unwritten};
use crate::app::App;
use crate::args::LogsArgs;
use crate::commands::filter::time_ns;
use crate::commands::io_failure;
use crate::report::{Failure, Kind};

/// How long to wait for a change before looking whether the container is there at all: its monitor may have been killed.
const LOOK_INTERVAL: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

pub(super) fn logs(app: &App, args: &LogsArgs) -> Result<u8, Failure> {
    let containers = containers(app)?;
    let container = containers.find(&args.container).map_err(failure)?;
    if container.state.spec.log.discard {
        let message = "configured logging driver does not support reading";
        return Err(Failure::new(Kind::Run(EXIT_FAILED), message));
    }
    let shown = Shown {
        timestamps: args.timestamps,
        since: args.since.as_deref().map(time_ns).transpose()?,
        until: args.until.as_deref().map(time_ns).transpose()?,
    };
    let reader = containers.log(&container, tail(&args.tail)?).map_err(failure)?;
    let written = if args.follow {
        follow(&containers, &container, reader, &shown)
    } else {
        print_rest(reader, &shown)
    };
    match written {
        Err(Stopped::ReaderGone) | Ok(()) => Ok(0),
        Err(Stopped::Failed(failure)) => Err(*failure),
    }
}

fn tail(text: &str) -> Result<LogTail, Failure> {
    if text == "all" || text.starts_with('-') {
        return Ok(LogTail::All);
    }
    let invalid = |_| Failure::new(Kind::Run(EXIT_FAILED), format!("invalid --tail `{text}`"));
    text.parse().map(LogTail::Lines).map_err(invalid)
}

/// Which lines are shown, and how.
struct Shown {
    timestamps: bool,
    since: Option<i64>,
    until: Option<i64>,
}

/// Why nothing more is shown.
enum Stopped {
    /// The reader of standard output went away, which is no failure.
    ReaderGone,
    Failed(Box<Failure>),
}

impl From<Failure> for Stopped {
    fn from(failure: Failure) -> Self {
        Self::Failed(Box::new(failure))
    }
}

impl Stopped {
    fn writing(stream: Stream) -> impl FnOnce(io::Error) -> Self {
        move |error| match error.kind() {
            io::ErrorKind::BrokenPipe => Self::ReaderGone,
            _ => unwritten(stream, &error).into(),
        }
    }
}

fn print_rest(mut reader: LogReader, shown: &Shown) -> Result<(), Stopped> {
    print_lines(&mut reader, shown)
}

fn print_lines(reader: &mut LogReader, shown: &Shown) -> Result<(), Stopped> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut err = io::BufWriter::new(io::stderr().lock());
    let read = |error| Stopped::from(io_failure("read", "the log".as_ref())(error));
    while let Some(line) = reader.next_line().map_err(read)? {
        if line.stream == "stderr" {
            shown.write(&line, &mut err).map_err(Stopped::writing(Stream::Stderr))?;
        } else {
            shown.write(&line, &mut out).map_err(Stopped::writing(Stream::Stdout))?;
        }
    }
    out.flush().map_err(Stopped::writing(Stream::Stdout))?;
    err.flush().map_err(Stopped::writing(Stream::Stderr))
}

impl Shown {
    fn write(&self, line: &LogLine, out: &mut dyn io::Write) -> io::Result<()> {
        let time = line.time_ns().unwrap_or_default();
        if self.since.is_some_and(|since| time < since) || self.until.is_some_and(|until| time > until) {
            return Ok(());
        }
        if self.timestamps {
            write!(out, "{} ", line.time)?;
        }
        out.write_all(line.log.as_bytes())
    }
}

/// Prints what is there, and what comes until the container has ended.
fn follow(
    containers: &Containers,
    container: &Container,
    mut reader: LogReader,
    shown: &Shown,
) -> Result<(), Stopped> {
    let directory = containers.directory(&container.id);
    let watch = io_failure("watch", &directory);
    let flags = inotify::WatchFlags::MODIFY | inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE;
    let watched = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
    let watched =
        watched.and_then(|inotify| inotify::add_watch(&inotify, &directory, flags).map(|_| inotify));
    let inotify = watched.map_err(|error| watch(error.into()))?;
    loop {
        // In this order: what was written before the end is there when the end is seen.
        let active = match containers.get(&container.id) {
            Err(ContainerError::NotFound { .. }) => false,
            found => found.map_err(failure)?.state.status.is_active(),
        };
        print_lines(&mut reader, shown)?;
        if !active {
            return Ok(());
        }
        let mut events = [0; 4096];
        // A signal and nothing to read are as good as a change.
        let _ = poll(&mut [PollFd::new(&inotify, PollFlags::IN)], Some(&LOOK_INTERVAL));
        let _ = rustix::io::read(inotify.as_fd(), &mut events);
    }
}
