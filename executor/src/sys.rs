//! The system calls that neither nix nor rustix wraps safely. The only file with `unsafe`.

#![expect(unsafe_code, reason = "this module is where the workspace keeps it")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The name that init is executed under.
pub(crate) const INIT_NAME: &CStr = c"rbuild-init";
/// The descriptor of init's end of the control socket.
const CONTROL_FD: RawFd = 3;
/// No descriptor that is handed to [`clone_init`] may be below: the child overwrites those up to [`CONTROL_FD`].
pub(crate) const PREPARED_FD_MIN: RawFd = 10;

/// What a new init starts with. All descriptors are at least [`PREPARED_FD_MIN`].
#[derive(Debug)]
pub(crate) struct InitDescriptors<'a> {
    /// The program to execute.
    pub program: BorrowedFd<'a>,
    /// Becomes 0, 1 and 2.
    pub stdio: [BorrowedFd<'a>; 3],
    /// Becomes 3.
    pub control: BorrowedFd<'a>,
    /// The directory of the control group that it begins in, of version 2; the thread's own when not given.
    pub cgroup: Option<BorrowedFd<'a>>,
}

/// What the child of [`clone_init`] does before `execveat`: numbers and pointers, worked out before it exists.
struct Start {
    program: RawFd,
    /// Which descriptor becomes which.
    moves: [(RawFd, RawFd); 4],
    argv: [*const libc::c_char; 2],
    envp: [*const libc::c_char; 1],
}

/// The stack of the child until `execveat`: a few frames, in a C library that may be built without optimisation.
const START_STACK_BYTES: usize = 64 * 1024;

/// Starts init in new namespaces: a child that executes `program` at once.
///
/// It borrows this process' memory until then (`CLONE_VM`, `CLONE_VFORK`), as `posix_spawn` does: to copy the page tables of a large
/// program, and to fault its pages in again, took longer than to execute a new one.
///
/// The calling thread must have all signals blocked, so that no handler of ours runs in the child.
/// Returns its process id here and a descriptor of it.
pub(crate) fn clone_init(namespaces: i32, descriptors: &InitDescriptors<'_>) -> io::Result<(i32, OwnedFd)> {
    let [stdin, stdout, stderr] = descriptors.stdio;
    let start = Start {
        program: descriptors.program.as_raw_fd(),
        moves: [
            (stdin.as_raw_fd(), 0),
            (stdout.as_raw_fd(), 1),
            (stderr.as_raw_fd(), 2),
            (descriptors.control.as_raw_fd(), CONTROL_FD),
        ],
        argv: [INIT_NAME.as_ptr(), std::ptr::null()],
        envp: [std::ptr::null()],
    };
    let mut pidfd: RawFd = -1;
    let mut stack = vec![0_u128; START_STACK_BYTES / size_of::<u128>()];
    // SAFETY: `clone_args` is plain integers, for which zero means "not given".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    #[expect(clippy::cast_sign_loss, reason = "flags, a signal and a descriptor: none is negative")]
    {
        let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | namespaces;
        args.flags = flags as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        if let Some(cgroup) = descriptors.cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = cgroup.as_raw_fd() as u64;
        }
    }
    args.pidfd = &raw mut pidfd as u64;
    args.stack = stack.as_mut_ptr() as u64;
    args.stack_size = START_STACK_BYTES as u64;
    // SAFETY: this thread stands still until the child has executed the program or is gone (CLONE_VFORK). So `start`, `stack` and `pidfd`
    // outlive the child's use of them, and of the thread-local storage that both have one makes use at a time.
    let result = unsafe { clone(&args, start_init, &start) };
    let pid = i32::try_from(result).map_err(io::Error::other)?;
    if pid < 0 {
        return Err(io::Error::from_raw_os_error(-pid));
    }
    // SAFETY: with CLONE_PIDFD the kernel stored a new descriptor there, which nobody else owns.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// Linux 5.7. The binding has it as a signed number that cannot hold it.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Makes a child that calls `child` with `start` on the stack that `args` names. Returns what the kernel does: a process id, or an
/// error's number, negated.
///
/// # Safety
///
/// `args` must name a stack, and all that it and `start` lead to must be there as long as the child uses it.
unsafe fn clone(args: &libc::clone_args, child: extern "C" fn(&Start) -> !, start: &Start) -> libc::c_long {
    let clone3 = (libc::SYS_clone3, [&raw const *args as u64, size_of::<libc::clone_args>() as u64, 0]);
    // SAFETY: as the caller promises.
    let result = unsafe { call_cloning(clone3, child, start) };
    if result != -libc::c_long::from(libc::ENOSYS) || args.flags & CLONE_INTO_CGROUP != 0 {
        return result;
    }
    // In a container without rights this call is hidden, as a filter cannot look into its arguments. The older one has room for the same,
    // but for a control group.
    let older = [args.flags | args.exit_signal, args.stack + args.stack_size, args.pidfd];
    // SAFETY: as the caller promises.
    unsafe { call_cloning((libc::SYS_clone, older), child, start) }
}

/// Makes a system call by its number and its first three arguments, whose child calls `child` with `start`.
///
/// No C library offers this, and a child that shares memory must not return from the function that its parent is in.
///
/// # Safety
///
/// As for [`clone`].
#[cfg(target_arch = "x86_64")]
unsafe fn call_cloning(
    (number, [first, second, third]): (libc::c_long, [u64; 3]),
    child: extern "C" fn(&Start) -> !,
    start: &Start,
) -> libc::c_long {
    let result: libc::c_long;
    // SAFETY: the parent's registers and stack are as they were but for what the system call clobbers. The child, whose stack is aligned
    // and empty, calls a function that does not return.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {start}",
            "call {child}",
            "2:",
            start = in(reg) start,
            child = in(reg) child,
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") 0,
            in("r8") 0,
            out("rcx") _,
            out("r11") _,
        );
    }
    result
}

/// As for the other architecture.
#[cfg(target_arch = "aarch64")]
unsafe fn call_cloning(
    (number, [first, second, third]): (libc::c_long, [u64; 3]),
    child: extern "C" fn(&Start) -> !,
    start: &Start,
) -> libc::c_long {
    let result: libc::c_long;
    // SAFETY: as for the other architecture.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, 0",
            "mov x0, {start}",
            "blr {child}",
            "2:",
            start = in(reg) start,
            child = in(reg) child,
            in("x8") number,
            inlateout("x0") first => result,
            in("x1") second,
            in("x2") third,
            in("x3") 0,
            in("x4") 0,
        );
    }
    result
}

/// Becomes init. Only makes system calls: it runs in the memory of a program whose other threads go on, any of which may hold the
/// allocator's lock.
extern "C" fn start_init(start: &Start) -> ! {
    // SAFETY: system calls that are async-signal-safe, on values computed before. `argv` and `envp` end with a null pointer. `_exit`
    // runs no destructor of the parent's. The descriptors are a copy of the parent's table (no CLONE_FILES).
    unsafe {
        for (from, to) in start.moves {
            libc::dup2(from, to);
        }
        // What the caller of rbuild left open without close-on-exec goes no further than here.
        libc::syscall(libc::SYS_close_range, CONTROL_FD + 1, i32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        let (argv, envp) = (start.argv.as_ptr(), start.envp.as_ptr());
        libc::syscall(libc::SYS_execveat, start.program, c"".as_ptr(), argv, envp, libc::AT_EMPTY_PATH);
        libc::_exit(*libc::__errno_location());
    }
}

/// Init's end of the control socket. To be called once, and only in init.
///
/// Fails when there is no such descriptor: somebody has executed this program under init's name by hand.
pub(crate) fn take_control_socket() -> io::Result<OwnedFd> {
    // SAFETY: sets a flag of a descriptor, or fails.
    check(unsafe { libc::fcntl(CONTROL_FD, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: it is open, `clone_init` put it there, nothing before `main` owns it, and this is called once.
    Ok(unsafe { OwnedFd::from_raw_fd(CONTROL_FD) })
}

/// What `mount_setattr` changes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct MountChange {
    /// `MOUNT_ATTR_*` to set.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// `MS_PRIVATE` and its like, or 0 for no change.
    pub propagation: u64,
    /// Also all mounts below.
    pub recursive: bool,
}

/// Changes the mount that `mount` is open on.
pub(crate) fn mount_setattr(mount: BorrowedFd<'_>, change: MountChange) -> io::Result<()> {
    let MountChange { set, clear, propagation, recursive } = change;
    let attr = libc::mount_attr { attr_set: set, attr_clr: clear, propagation, userns_fd: 0 };
    set_mount_attr(mount, attr, if recursive { libc::AT_RECURSIVE } else { 0 })
}

/// Has the mount that `mount` is open on show the owners of files by the map of a user namespace.
pub(crate) fn mount_idmapped(mount: BorrowedFd<'_>, ids: BorrowedFd<'_>) -> io::Result<()> {
    let userns_fd = u64::try_from(ids.as_raw_fd()).map_err(io::Error::other)?;
    let attr = libc::mount_attr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd };
    set_mount_attr(mount, attr, 0)
}

fn set_mount_attr(mount: BorrowedFd<'_>, attr: libc::mount_attr, flags: i32) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | flags;
    // SAFETY: the path ends with a zero, `attr` outlives the call and has the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    check(result)
}

/// Filters the system calls of this thread and its descendants by a classic BPF program.
pub(crate) fn install_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel reads `len` instructions there and writes none; it verifies them.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The part of `union bpf_attr` that loading reads.
#[repr(C)]
struct BpfLoad {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
}

/// The part of `union bpf_attr` that attaching reads.
#[repr(C)]
struct BpfAttach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Loads a program that decides on the use of devices; the kernel verifies it.
pub(crate) fn load_device_program(code: &[u64]) -> io::Result<OwnedFd> {
    let load = BpfLoad {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(code.len()).map_err(io::Error::other)?,
        insns: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kern_version: 0,
        prog_flags: 0,
    };
    // SAFETY: the kernel reads the structure, whose size is passed, and `insn_cnt` instructions and the license, which both outlive the call.
    let loaded =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<BpfLoad>()) };
    check(loaded)?;
    let descriptor = RawFd::try_from(loaded).map_err(io::Error::other)?;
    // SAFETY: the kernel made this descriptor just now, with close-on-exec, and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Lets a program decide for the processes of the control group that `group` is open on. It goes with the group.
pub(crate) fn attach_device_program(group: &OwnedFd, program: &OwnedFd) -> io::Result<()> {
    let attach = BpfAttach {
        target_fd: group.as_raw_fd().cast_unsigned(),
        attach_bpf_fd: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the kernel reads the structure, whose size is passed.
    check(unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attach, size_of::<BpfAttach>()) })
}

/// Whether the kernel can filter system calls: whether it knows what such a filter answers.
pub(crate) fn has_seccomp_filter() -> bool {
    const SECCOMP_GET_ACTION_AVAIL: libc::c_uint = 2;
    let action = libc::SECCOMP_RET_ERRNO;
    // SAFETY: the kernel reads one word there, which outlives the call.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) }).is_ok()
}

/// The version of Landlock, where it is there and on.
pub(crate) fn landlock_version() -> Option<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: libc::c_uint = 1;
    let none = std::ptr::null::<u8>();
    // SAFETY: with this flag the kernel reads nothing.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, LANDLOCK_CREATE_RULESET_VERSION)
    };
    u32::try_from(version).ok()
}

/// Leaves the caller's session keyring for a new, empty one.
pub(crate) fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, anonymous) })
}

/// Gives every signal its default action and unblocks all, as a program expects them to be when it starts.
pub(crate) fn reset_signals() {
    /// The kernel's own structure: the action, flags, a restorer on some machines, and the mask; zero is the default action.
    const DEFAULT_ACTION: [u64; 4] = [0; 4];
    const MASK_SIZE_BYTES: usize = 8;
    for signal in 1..=libc::SIGRTMAX() {
        // Not libc's `signal`, which leaves alone those that it uses itself: they can be inherited too.
        // SAFETY: the default action runs no code. The kernel reads at most the 32 bytes. SIGKILL and SIGSTOP refuse, rightly.
        unsafe {
            let action = DEFAULT_ACTION.as_ptr();
            let previous = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal, action, previous, MASK_SIZE_BYTES);
        }
    }
    // An empty set cannot be refused.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
}

/// Closes every descriptor but 0, 1 and 2. To be called before anything is opened: whatever owns one finds it closed.
pub(crate) fn close_all_but_standard() {
    // SAFETY: touches no memory. The caller promises that nobody owns what is closed.
    unsafe {
        libc::syscall(libc::SYS_close_range, CONTROL_FD, i32::MAX, 0);
    }
}

/// Switches the loopback interface of this network namespace on.
pub(crate) fn loopback_up(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: `ifreq` is plain data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes_with_nul()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    #[expect(clippy::cast_possible_truncation, reason = "the flags are 16 bits in `ifreq`")]
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into())
}

/// Runs `child` in a copy of this process and returns the copy's id here. `child`'s result is its exit code.
///
/// Refuses when this process has more than one thread: the copy would have only the calling one, and find the others' locks
/// held for ever.
pub(crate) fn fork(child: impl FnOnce() -> i32) -> io::Result<nix::unistd::Pid> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("more than one thread is running"));
    }
    // SAFETY: there is one thread, so the copy is whole.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(child),
        // SAFETY: ends the copy without running what the parent registered for its own exit.
        nix::unistd::ForkResult::Child => unsafe { libc::_exit(child()) },
    }
}

/// Has the kernel kill a program when the thread ends that starts it.
pub(crate) fn die_with_parent(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt as _;
    // SAFETY: sets a property of the calling process.
    let ask = || check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) }.into());
    // SAFETY: between fork and exec this makes one system call, which is async-signal-safe, and allocates nothing.
    unsafe { command.pre_exec(ask) };
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
