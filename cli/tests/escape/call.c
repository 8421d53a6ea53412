/* The tool of the attempts to escape: makes system calls as they are written on its command line, and says how the last one went.
 *
 *     call unshare 0x10000000
 *     call open /proc/1/ns/mnt 0 0 , setns $ 0
 *
 * Calls are separated by commas; the first that is refused is the last. An argument is a number, `$` (what the call before
 * returned), `@SIZE[:WORD...]` (a buffer that begins with these 32-bit words), `%HEX` (these bytes) or else a string.
 * Prints `done`, or the name of the error. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CALL(name) {#name, SYS_##name}
static const struct { const char *name; long number; } calls[] = {
    CALL(acct), CALL(add_key), CALL(adjtimex), CALL(bpf), CALL(capset), CALL(chdir), CALL(chroot),
    CALL(clock_settime), CALL(clone), CALL(clone3), CALL(connect), CALL(delete_module), CALL(fanotify_init),
    CALL(finit_module), CALL(fsopen), CALL(fspick), CALL(init_module), CALL(io_uring_setup), CALL(ioctl),
    CALL(ioprio_set), CALL(kcmp), CALL(kexec_load), CALL(keyctl), CALL(kill), CALL(mkdirat), CALL(mknodat),
    CALL(mount), CALL(mount_setattr), CALL(move_mount), CALL(open_by_handle_at), CALL(open_tree), CALL(openat),
    CALL(perf_event_open), CALL(personality), CALL(pidfd_getfd), CALL(pidfd_open), CALL(pivot_root), CALL(prctl),
    CALL(prlimit64), CALL(process_madvise), CALL(process_vm_readv), CALL(process_vm_writev), CALL(ptrace),
    CALL(quotactl), CALL(reboot), CALL(request_key), CALL(rt_sigqueueinfo), CALL(sched_setaffinity),
    CALL(sched_setscheduler), CALL(setdomainname), CALL(sethostname), CALL(setns), CALL(setpriority),
    CALL(settimeofday), CALL(setxattr), CALL(socket), CALL(swapoff), CALL(swapon), CALL(syslog), CALL(umount2),
    CALL(unshare), CALL(userfaultfd), CALL(vhangup),
};

static long number_of(const char *name) {
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (!strcmp(calls[i].name, name)) return calls[i].number;
    char *end;
    long number = strtol(name, &end, 0);
    if (*end) { printf("no such call: %s\n", name); exit(2); }
    return number;
}

static long bytes(const char *hex) {
    unsigned char *to = calloc(1, strlen(hex) / 2 + 1), *next = to;
    for (; hex[0] && hex[1]; hex += 2) {
        char digits[3] = {hex[0], hex[1], 0};
        *next++ = strtoul(digits, 0, 16);
    }
    return (long)to;
}

static long buffer(char *text) {
    unsigned *to = calloc(1, strtoul(text, &text, 0) + sizeof *to), *next = to;
    while (*text) *next++ = strtoul(text + 1, &text, 0);
    return (long)to;
}

static long argument(char *text, long previous) {
    char *end;
    long number = strtol(text, &end, 0);
    if (*text && !*end) return number;
    switch (*text) {
    case '$': return previous;
    case '@': return buffer(text + 1);
    case '%': return bytes(text + 1);
    default: return (long)text;
    }
}

int main(int argc, char **argv) {
    long result = 0;
    for (int i = 1; i < argc && result >= 0; i++) {
        long number = number_of(argv[i]), arguments[6] = {0};
        for (int n = 0; ++i < argc && strcmp(argv[i], ","); n++)
            if (n < 6) arguments[n] = argument(argv[i], result);
        errno = 0;
        result = syscall(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
        if (number == SYS_clone && result == 0) _exit(0);
    }
    puts(result < 0 ? strerrorname_np(errno) : "done");
    return result < 0;
}
