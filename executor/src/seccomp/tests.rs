//! Runs the compiled program in an interpreter and looks at its verdicts.

use super::*;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;

/// Classic BPF as the kernel runs it, as far as the emitter uses it. Panics on anything else.
fn interpret(program: &[sock_filter], arch: u32, number: u32, first: u64) -> u32 {
    let mut data = Vec::new();
    data.extend(number.to_le_bytes());
    data.extend(arch.to_le_bytes());
    data.extend(0u64.to_le_bytes());
    data.extend(first.to_le_bytes());
    let (mut accumulator, mut at) = (0, 0);
    loop {
        let instruction = program[at];
        at += 1;
        let code = u32::from(instruction.code);
        let branch = |taken| usize::from(if taken { instruction.jt } else { instruction.jf });
        if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
            let offset = instruction.k as usize;
            accumulator = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
        } else if code == libc::BPF_RET | libc::BPF_K {
            return instruction.k;
        } else if code == libc::BPF_JMP | libc::BPF_JA {
            at += instruction.k as usize;
        } else if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K {
            at += branch(accumulator == instruction.k);
        } else if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K {
            at += branch(accumulator >= instruction.k);
        } else if code == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K {
            at += branch(accumulator & instruction.k != 0);
        } else {
            panic!("unexpected instruction {code:#x}");
        }
    }
}

fn blocks() -> Vec<Block> {
    [convention!(0xc000_003e, x86_64), convention!(0x4000_0003, x86), arm()]
        .into_iter()
        .map(|convention| block(convention, Capabilities::DEFAULT))
        .collect()
}

fn program() -> Vec<sock_filter> {
    bpf::program(&blocks())
}

fn number(name: &str) -> u32 {
    u32::try_from(name.parse::<syscalls::x86_64::Sysno>().unwrap().id()).unwrap()
}

#[test]
fn every_call_gets_the_profiles_verdict() {
    let program = program();
    for (arch, convention) in [
        (X86_64, convention!(0xc000_003e, x86_64)),
        (I386, convention!(0x4000_0003, x86)),
        (0x4000_0028, arm()),
    ] {
        let verdicts: Vec<_> = convention
            .calls
            .iter()
            .map(|&(number, name)| (number, name, profile::verdict(name, Capabilities::DEFAULT)))
            .collect();
        let highest = verdicts
            .iter()
            .filter(|(number, _, verdict)| verdict.is_some() && *number <= REGULAR_NUMBER_MAX)
            .map(|(number, ..)| *number)
            .max()
            .unwrap();
        for (number, name, verdict) in verdicts {
            let expected = match verdict {
                Some(Verdict::Allow) => ALLOW,
                Some(Verdict::Errno(errno)) => libc::SECCOMP_RET_ERRNO | errno.unsigned_abs(),
                Some(Verdict::AllowIf(_)) => continue,
                None if number > highest => ENOSYS,
                None => EPERM,
            };
            assert_eq!(interpret(&program, arch, number, 0), expected, "{name} of {arch:#x}");
        }
    }
}

#[test]
fn arguments_decide_where_the_profile_says_so() {
    const NEWUSER: u64 = 0x1000_0000;
    const NEWNS: u64 = 0x2_0000;
    let cases = [
        ("personality", 0, ALLOW),
        ("personality", 0x2_0008, ALLOW),
        ("personality", 0xffff_ffff, ALLOW),
        ("personality", 0x4_0000, EPERM),
        ("socket", 1, ALLOW),
        ("socket", 2, ALLOW),
        ("socket", 38, EPERM),
        ("socket", 40, EPERM),
        // The kernel looks at 32 bits of it: the upper half hides nothing.
        ("socket", 0x1_0000_0028, EPERM),
        ("clone", 17, ALLOW),
        ("clone", NEWUSER | 17, EPERM),
        ("clone", NEWNS, EPERM),
        ("clone3", 0, ENOSYS),
        ("unshare", 0, EPERM),
        ("mount", 0, EPERM),
        ("keyctl", 0, EPERM),
        ("chroot", 0, ALLOW),
    ];
    let program = program();
    for (name, first, expected) in cases {
        assert_eq!(interpret(&program, X86_64, number(name), first), expected, "{name}({first:#x})");
    }
}

#[test]
fn unknown_numbers_and_conventions_are_refused() {
    let program = program();
    // The tail, x32's `read`, and a negative number.
    for number in [5000, 0x4000_0000, u32::MAX] {
        assert_eq!(interpret(&program, X86_64, number, 0), ENOSYS, "{number:#x}");
        assert_eq!(interpret(&program, I386, number, 0), ENOSYS, "{number:#x}");
    }
    // A hole between calls that the profile knows.
    assert_eq!(interpret(&program, X86_64, 400, 0), EPERM);
    assert_eq!(interpret(&program, 0xdead_beef, 0, 0), KILL);
    // A 32-bit ARM private call is allowed, its neighbours are not.
    assert_eq!(interpret(&program, 0x4000_0028, 0x000f_0005, 0), ALLOW);
    assert_eq!(interpret(&program, 0x4000_0028, 0x000f_0007, 0), ENOSYS);
    assert_eq!(interpret(&program, 0x4000_0028, 0x000e_0000, 0), ENOSYS);
}

#[test]
fn capabilities_open_their_calls() {
    let all = compile(Capabilities::ALL).unwrap();
    for name in ["mount", "clone3", "unshare", "bpf", "kcmp", "reboot"] {
        assert_eq!(interpret(&all, X86_64, number(name), 0), ALLOW, "{name}");
    }
    assert_eq!(interpret(&all, X86_64, number("clone"), 0x1000_0000), ALLOW);
    let none = compile(Capabilities::NONE).unwrap();
    assert_eq!(interpret(&none, X86_64, number("chroot"), 0), EPERM);
}

#[test]
fn the_program_survives_the_file() {
    let program = compile(Capabilities::DEFAULT).unwrap();
    assert!(program.len() <= INSTRUCTIONS_MAX, "{} instructions", program.len());
    let file = compile_to_file(Capabilities::DEFAULT).unwrap().unwrap();
    let read = read_file(&file).unwrap();
    assert_eq!(read.len(), program.len());
    for (read, written) in read.iter().zip(&program) {
        assert_eq!((read.code, read.jt, read.jf, read.k), (written.code, written.jt, written.jf, written.k));
    }
}
