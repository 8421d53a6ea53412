//! The attempts that one process can make and tell of: system calls, and what the file systems of the kernel offer.
//!
//! In a script `{file}` is a file of the machine, `{pid}` a process of the machine, `{disk}` the number of its disk, and `{address}` a
//! socket of the machine without a file. What comes of it is the last thing that the script says.

/// One attempt.
pub(super) struct Attempt {
    pub(super) name: &'static str,
    /// For busybox's shell, with `call` (see `call.c`).
    pub(super) script: &'static str,
    /// One of these is said at the end.
    pub(super) seen: &'static [&'static str],
}

const DENIED: &[&str] = &["EPERM"];
/// A process outside has no number inside.
const UNKNOWN: &[&str] = &["ESRCH"];
/// The root of a user namespace is refused as anybody is, before anybody looks at how it is mounted.
const READ_ONLY: &[&str] = &["EROFS", "EACCES"];
/// Some kernels have no such file.
const READ_ONLY_OR_MISSING: &[&str] = &["EROFS", "EACCES", "ENOENT"];
/// Rootless no device can be made; as root none can be opened.
const NO_DEVICE: &[&str] = &["EPERM", "EACCES"];
const EMPTY: &[&str] = &["", "0"];
const ABSENT: &[&str] = &["No such file or directory"];

const fn attempt(name: &'static str, script: &'static str, seen: &'static [&'static str]) -> Attempt {
    Attempt { name, script, seen }
}

pub(super) const ATTEMPTS: &[Attempt] = &[
    // Mounts.
    attempt("mount a tmpfs", "call mount none /tmp tmpfs 0 0", DENIED),
    attempt("mount proc once more", "call mount none /tmp proc 0 0", DENIED),
    attempt("mount sysfs once more", "call mount none /tmp sysfs 0 0", DENIED),
    attempt("mount control groups", "call mount none /tmp cgroup2 0 0", DENIED),
    attempt("mount the devices group", "call mount none /tmp cgroup 0 devices", DENIED),
    attempt("mount debugfs", "call mount none /tmp debugfs 0 0", DENIED),
    attempt("mount an overlay", "call mount none /tmp overlay 0 lowerdir=/bin:/etc", DENIED),
    attempt("make /proc/sys writable", "call mount none /proc/sys 0 0x1020 0", DENIED),
    attempt("make /sys writable", "call mount none /sys 0 0x1020 0", DENIED),
    attempt("uncover /proc/kcore", "call umount2 /proc/kcore 2", DENIED),
    attempt("uncover /proc", "call umount2 /proc 2", DENIED),
    attempt("share the root mount", "call mount none / 0 0x104000 0", DENIED),
    attempt("open a new file system", "call fsopen tmpfs 0", DENIED),
    attempt("pick a file system to change", "call fspick -100 /proc 0", DENIED),
    attempt("copy the tree of mounts", "call open_tree -100 / 1", DENIED),
    attempt("move a mount", "call move_mount -100 /dev -100 /tmp 0", DENIED),
    attempt("change a mount's flags", "call mount_setattr -100 /proc/sys 0 @32:0,0,1 32", DENIED),
    attempt("change another root", "cd /tmp && call pivot_root . .", DENIED),
    // Namespaces.
    attempt("unshare the user namespace", "call unshare 0x10000000", DENIED),
    attempt("unshare the mounts", "call unshare 0x20000", DENIED),
    attempt("unshare the network", "call unshare 0x40000000", DENIED),
    attempt("unshare the process ids", "call unshare 0x20000000", DENIED),
    attempt("unshare the control groups", "call unshare 0x2000000", DENIED),
    attempt("clone into a user namespace", "call clone 0x10000011 0 0 0 0", DENIED),
    attempt("clone3 into a user namespace", "call clone3 @88:0x10000000 88", &["ENOSYS"]),
    attempt("join the mounts of process 1", "call openat -100 /proc/1/ns/mnt 0 , setns $ 0", DENIED),
    attempt("join the network of process 1", "call openat -100 /proc/1/ns/net 0 , setns $ 0", DENIED),
    attempt("join all of process 1", "call pidfd_open 1 0 , setns $ 0x20000", DENIED),
    attempt(
        "join the mounts of the machine",
        "call openat -100 /proc/{pid}/ns/mnt 0 , setns $ 0",
        &["ENOENT"],
    ),
    // Processes of the machine: the one that started rbuild, and with it rbuild's own.
    attempt("see a process of the machine", "ls -d /proc/{pid}", ABSENT),
    attempt("kill a process of the machine", "call kill {pid} 0", UNKNOWN),
    attempt("kill the parent", "call kill $(awk '{print $4}' /proc/1/stat | sed 's/^0$/{pid}/') 0", UNKNOWN),
    attempt("queue a signal to the machine", "call rt_sigqueueinfo {pid} 10 @128:10,0,-1", UNKNOWN),
    attempt("trace a process of the machine", "call ptrace 16 {pid} 0 0", UNKNOWN),
    attempt("seize a process of the machine", "call ptrace 0x4206 {pid} 0 0", UNKNOWN),
    attempt(
        "read memory of the machine",
        "call process_vm_readv {pid} @16:4096,0,1 1 @16:4096,0,1 1 0",
        UNKNOWN,
    ),
    attempt(
        "write memory of the machine",
        "call process_vm_writev {pid} @16:4096,0,1 1 @16:4096,0,1 1 0",
        UNKNOWN,
    ),
    attempt("hold a process of the machine", "call pidfd_open {pid} 0", UNKNOWN),
    attempt("limit a process of the machine", "call prlimit64 {pid} 7 0 @16", UNKNOWN),
    attempt("bind a process of the machine to a processor", "call sched_setaffinity {pid} 8 @8:1", UNKNOWN),
    attempt("slow a process of the machine down", "call setpriority 0 {pid} 19", UNKNOWN),
    attempt("take a descriptor of another process", "call pidfd_open 1 0 , pidfd_getfd $ 0 0", DENIED),
    attempt("advise another process's memory", "call pidfd_open 1 0 , process_madvise $ @16 1 21 0", DENIED),
    attempt("compare with another process", "call kcmp 1 {pid} 0 0 0", DENIED),
    attempt("see more than three descriptors", "ls /proc/1/fd | grep -v '^[012]$' | grep -v '^10$'", EMPTY),
    // Files of the machine.
    attempt("leave through the root of process 1", "cat /proc/1/root{file}", ABSENT),
    attempt("leave through the directory of process 1", "cat /proc/1/cwd/../../../../..{file}", ABSENT),
    attempt("leave upwards", "cd /tmp/../../../..; cat ./{file}", ABSENT),
    attempt(
        "leave a change of root",
        "mkdir /tmp/jail; call chroot /tmp/jail , chdir ../../../../../../.. , openat -100 .{file} 0",
        &["ENOENT"],
    ),
    attempt("open a file by its handle", "call open_by_handle_at -100 @16:8,1,2,0 0", DENIED),
    attempt("name a file of the machine in a mount", "grep -F '{file}' /proc/self/mountinfo", EMPTY),
    // Devices.
    attempt(
        "read the disk",
        "call mknodat -100 /tmp/disk 0060600 {disk} , openat -100 /tmp/disk 0",
        NO_DEVICE,
    ),
    attempt(
        "read the disk from /dev",
        "call mknodat -100 /dev/disk 0060600 {disk} , openat -100 /dev/disk 0",
        NO_DEVICE,
    ),
    attempt("read memory", "call mknodat -100 /tmp/mem 0020600 0x101 , openat -100 /tmp/mem 0", NO_DEVICE),
    attempt(
        "write to ports",
        "call mknodat -100 /dev/port 0020600 0x104 , openat -100 /dev/port 1",
        NO_DEVICE,
    ),
    attempt(
        "write to the kernel's log",
        "call mknodat -100 /dev/kmsg 0020600 0x10b , openat -100 /dev/kmsg 1",
        NO_DEVICE,
    ),
    attempt(
        "make an interface",
        "call mknodat -100 /dev/tun 0020600 0xac8 , openat -100 /dev/tun 2",
        NO_DEVICE,
    ),
    attempt(
        "make a file system of its own",
        "call mknodat -100 /dev/fuse 0020600 0xae5 , openat -100 /dev/fuse 2",
        NO_DEVICE,
    ),
    attempt(
        "control loop devices",
        "call mknodat -100 /dev/loopc 0020600 0xaed , openat -100 /dev/loopc 2",
        NO_DEVICE,
    ),
    // The kernel.
    attempt("load a module", "call init_module @64 64 @8", DENIED),
    attempt("load a module from a file", "call openat -100 /bin/call 0 , finit_module $ @8 0", DENIED),
    attempt("unload a module", "call delete_module overlay 0x800", DENIED),
    attempt("load another kernel", "call kexec_load 0 0 0 0", DENIED),
    attempt("restart the machine's keyboard", "call reboot 0xfee1dead 0x28121969 0 0", DENIED),
    attempt("load a BPF program", "call bpf 0 @72:2,4,8,1 72", DENIED),
    attempt("count events of the machine", "call perf_event_open @112:1,112 -1 0 -1 0", DENIED),
    attempt("handle page faults of others", "call userfaultfd 0", DENIED),
    attempt("make a ring of requests", "call io_uring_setup 4 @120", DENIED),
    attempt("watch all files", "call fanotify_init 0 0", DENIED),
    attempt("read the kernel's log", "call syslog 3 @64 64", DENIED),
    attempt("set the time", "call clock_settime 0 @16:1", DENIED),
    attempt("set the time of day", "call settimeofday @16:1 0", DENIED),
    attempt("turn the clock slowly", "call adjtimex @208:1", DENIED),
    attempt("swap to a file", "call swapon /bin/call 0", DENIED),
    attempt("end swapping", "call swapoff /bin/call", DENIED),
    attempt("write accounts of processes", "call acct /tmp/accounts", DENIED),
    attempt("set quotas", "call quotactl 0x80000100 none 0 0", DENIED),
    attempt("hang up the terminal", "call vhangup", DENIED),
    attempt("choose where memory lies", "call personality 0x40000", DENIED),
    attempt("name the machine", "call sethostname mine 4", DENIED),
    attempt("name the machine's domain", "call setdomainname mine 4", DENIED),
    // Keys, which are not in any namespace.
    attempt("make a key", "call add_key user rbuild %6d696e65 4 -3", DENIED),
    attempt("look for a key", "call keyctl 10 -3 user rbuild 0", DENIED),
    attempt("ask for a key", "call request_key user rbuild 0 -3", DENIED),
    attempt("see keys", "cat /proc/keys", EMPTY),
    // Rights.
    attempt("take all capabilities", "call capset @8:0x20080522 @24:0xffffffff,0xffffffff", DENIED),
    attempt("take an ambient capability", "call prctl 47 2 21 0 0", DENIED),
    attempt("take back a dropped capability", "call prctl 24 21 , prctl 47 2 21 0 0", DENIED),
    attempt(
        "give a file all capabilities",
        "cp /bin/busybox /root; call setxattr /root/busybox security.capability \
         @20:0x2000001,0xffffffff,0,0xffffffff,0 20 0 >/dev/null; /root/busybox true",
        &["Operation not permitted"],
    ),
    attempt(
        "become more by set-user-id",
        "cp /bin/busybox /tmp; chmod 4755 /tmp/busybox; /tmp/busybox grep CapBnd /proc/self/status | cut -f2",
        &["00000000a80425fb"],
    ),
    attempt("come before all others", "call setpriority 0 0 -20", &["EACCES", "EPERM"]),
    attempt("run in real time", "call sched_setscheduler 0 1 @4:50", DENIED),
    attempt("read and write in real time", "call ioprio_set 1 0 0x2000", DENIED),
    attempt("be spared when memory is short", "echo -1000 >/proc/self/oom_score_adj", &["Permission denied"]),
    // Sockets.
    attempt("reach a socket without a file", "call socket 1 1 0 , connect $ {address}", &["ECONNREFUSED"]),
    attempt("reach the hypervisor", "call socket 40 1 0", DENIED),
    attempt("use the kernel's ciphers", "call socket 38 5 0", DENIED),
    attempt("switch an interface off", "ip link set lo down", &["Operation not permitted"]),
    attempt("make a network interface", "ip link add x type dummy", &["Operation not permitted"]),
    attempt("reach the metadata of a cloud", "nc -w 2 169.254.169.254 80", &["Network is unreachable"]),
    attempt(
        "send raw packets to the metadata of a cloud",
        "ping -c 1 -W 1 169.254.169.254",
        &["Network is unreachable"],
    ),
    // The terminal of the one who calls.
    attempt("type into the terminal", "call ioctl 1 0x5412 %61", &["ENOTTY"]),
    attempt("paste into the terminal", "call ioctl 1 0x541c @16:3", &["ENOTTY"]),
    attempt("find the terminal", "call openat -100 /dev/tty 2", &["ENXIO"]),
    // What the kernel shows as files.
    attempt("choose who gets core dumps", "call openat -100 /proc/sys/kernel/core_pattern 1", READ_ONLY),
    attempt("choose who loads modules", "call openat -100 /proc/sys/kernel/modprobe 1", READ_ONLY_OR_MISSING),
    attempt(
        "choose who runs programs",
        "call openat -100 /proc/sys/fs/binfmt_misc/register 1",
        READ_ONLY_OR_MISSING,
    ),
    attempt("overcommit memory", "call openat -100 /proc/sys/vm/overcommit_memory 1", READ_ONLY),
    attempt("forward packets", "call openat -100 /proc/sys/net/ipv4/ip_forward 1", READ_ONLY),
    attempt("press magic keys", "call openat -100 /proc/sysrq-trigger 1", READ_ONLY_OR_MISSING),
    attempt("move interrupts", "call openat -100 /proc/irq/default_smp_affinity 1", READ_ONLY),
    attempt(
        "choose who hears of devices",
        "call openat -100 /sys/kernel/uevent_helper 1",
        READ_ONLY_OR_MISSING,
    ),
    attempt(
        "change huge pages",
        "call openat -100 /sys/kernel/mm/transparent_hugepage/enabled 1",
        READ_ONLY_OR_MISSING,
    ),
    attempt("suspend the machine", "call openat -100 /sys/power/state 1", READ_ONLY_OR_MISSING),
    attempt(
        "be told when a group is empty",
        "call openat -100 /sys/fs/cgroup/release_agent 1",
        READ_ONLY_OR_MISSING,
    ),
    attempt("ask to be told", "call openat -100 /sys/fs/cgroup/notify_on_release 1", READ_ONLY_OR_MISSING),
    attempt("make a control group", "call mkdirat -100 /sys/fs/cgroup/mine 0755", READ_ONLY_OR_MISSING),
    attempt("read the kernel's memory", "cat /proc/kcore 2>/dev/null | head -c 1 | wc -c", EMPTY),
    attempt("read timers", "cat /proc/timer_list", EMPTY),
    attempt("read firmware", "ls /sys/firmware", EMPTY),
    attempt("read messages", "call openat -100 /proc/kmsg 0", &["EPERM", "EACCES"]),
    // A container may change its own names, as Docker's; a step's cannot be changed.
    attempt(
        "change hosts",
        "echo '0.0.0.0 changed-inside' >>/etc/hosts && echo done",
        &["done", "Read-only file system"],
    ),
];
