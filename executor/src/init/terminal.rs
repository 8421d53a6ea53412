//! A terminal in the container's own `/dev/pts`, so that the process can find its name.

use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, posix_openpt, ptsname_r, unlockpt};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree};
use rustix::termios::Winsize;

use crate::handshake::{Channel, Failure, Step, StepExt as _};
use crate::output::TerminalSize;

/// Makes a terminal the standard input and output and the controlling one; sends its other side to the parent. Returns its name.
///
/// After `pivot_root`: `/dev` is ours.
pub(super) fn open(size: TerminalSize, channel: &mut Channel) -> Step<String> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let controller = posix_openpt(flags).step("open a terminal")?;
    unlockpt(&controller).step("unlock the terminal")?;
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&controller, size).step("set the size of the terminal")?;
    let name = take(&controller)?;
    channel
        .send_terminal(controller.as_fd())
        .map_err(|error| Failure::Handshake { reason: error.to_string() })?;
    Ok(name)
}

fn take(controller: &PtyMaster) -> Step<String> {
    let name = ptsname_r(controller).step("name the terminal")?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let terminal = rustix::fs::open(&name, flags, Mode::empty()).step_at("open the terminal", &name)?;
    rustix::process::ioctl_tiocsctty(&terminal).step_at("take over the terminal", &name)?;
    nix::unistd::dup2_stdin(&terminal).step_at("use the terminal", &name)?;
    nix::unistd::dup2_stdout(&terminal).step_at("use the terminal", &name)?;
    nix::unistd::dup2_stderr(&terminal).step_at("use the terminal", &name)?;
    Ok(name)
}

/// Programs that want to be heard write to `/dev/console`: in a new container that is this terminal.
pub(super) fn console(name: &str) -> Step<()> {
    let path = Path::new("/dev/console");
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    drop(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).step_at("create", path)?);
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = open_tree(CWD, name, flags).step_at("mount on", path)?;
    move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step_at("mount on", path)
}
