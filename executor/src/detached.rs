//! This very program once more, for something that outlives the command that asked for it.
//!
//! A detached program shares nothing with its parent but one socket, which comes as its standard input: it has a session, a working
//! directory (`/`), standard descriptors (`/dev/null`) and signals of its own, and no descriptor that the parent's caller left open.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};

use crate::error::Error;
use crate::sys;

/// Starts this program again under another name, detached. Returns its end of the socket, and the child, which the caller may wait for.
///
/// # Errors
/// When it cannot be started.
pub fn start(name: &str) -> Result<(UnixStream, Child), Error> {
    let failed = |error: io::Error| Error::setup_at("start", name, error);
    let (ours, theirs) = UnixStream::pair().map_err(failed)?;
    #[expect(clippy::disallowed_methods, reason = "the wrapper that starts this program again")]
    let mut program = std::process::Command::new("/proc/self/exe");
    program.arg0(name).env_clear().current_dir("/");
    program.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
    Ok((ours, program.spawn().map_err(failed)?))
}

/// The socket to the parent, when this program was started by [`start`] under that name.
///
/// To be called at the start of `main`, before anything is opened.
///
/// # Errors
/// When the process cannot be detached.
pub fn hook(name: &str) -> Option<io::Result<UnixStream>> {
    let own = std::env::args_os().next();
    own.is_some_and(|own| own.as_bytes() == name.as_bytes()).then(detach)
}

fn detach() -> io::Result<UnixStream> {
    sys::close_all_but_standard();
    // The parent may have been waiting for some in a thread of its own; what it ignores stays ignored.
    nix::sys::signal::SigSet::empty().thread_set_mask()?;
    nix::unistd::setsid()?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o022));
    Ok(socket.into())
}
