//! Runs the compiled program in an interpreter and looks at its verdicts.

use super::*;

const X86_64: u32 = 0xc000_003e;
const I386: u32 = 0x4000_0003;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const EPERM: u32 = SECCOMP_RET_ERRNO | libc::EPERM as u32;
const ENOSYS: u32 = SECCOMP_RET_ERRNO | libc::ENOSYS as u32;
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
        } else if code == libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K {
            at += branch(accumulator > instruction.k);
        } else if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K {
            accumulator &= instruction.k;
        } else {
            panic!("unexpected instruction {code:#x}");
        }
    }
}

fn all_conventions() -> [Convention; 3] {
    [
        convention!("SCMP_ARCH_X86_64", 0xc000_003e, x86_64),
        convention!("SCMP_ARCH_X86", 0x4000_0003, x86),
        arm(),
    ]
}

fn program() -> Vec<sock_filter> {
    let verdicts = DEFAULT.verdicts(Capabilities::DEFAULT).unwrap();
    let blocks: Vec<Block> =
        all_conventions().into_iter().map(|convention| block(convention, &verdicts)).collect();
    bpf::program(&blocks)
}

/// The filter of a profile with these rules, for x86-64.
fn custom(head: &str, rules: &str) -> Vec<sock_filter> {
    let profile = Profile::parse(&format!("{{ {head}, \"syscalls\": [{rules}] }}")).unwrap();
    let verdicts = profile.verdicts(Capabilities::DEFAULT).unwrap();
    bpf::program(&[block(convention!("SCMP_ARCH_X86_64", 0xc000_003e, x86_64), &verdicts)])
}

fn number(name: &str) -> u32 {
    u32::try_from(name.parse::<syscalls::x86_64::Sysno>().unwrap().id()).unwrap()
}

#[test]
fn every_call_gets_the_profiles_verdict() {
    let program = program();
    let verdicts = DEFAULT.verdicts(Capabilities::DEFAULT).unwrap();
    for convention in all_conventions() {
        let arch = convention.audit_arch;
        let known: Vec<_> =
            convention.calls.iter().map(|&(number, name)| (number, name, verdicts.get(name))).collect();
        let highest = known
            .iter()
            .filter(|(number, _, verdict)| verdict.is_some() && *number <= REGULAR_NUMBER_MAX)
            .map(|(number, ..)| *number)
            .max()
            .unwrap();
        for (number, name, verdict) in known {
            let expected = match verdict {
                Some(verdict) if verdict.rules.is_empty() => verdict.otherwise,
                Some(_) => continue,
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
    let all = compile(&DEFAULT, Capabilities::ALL).unwrap().unwrap();
    for name in ["mount", "clone3", "unshare", "bpf", "kcmp", "reboot"] {
        assert_eq!(interpret(&all, X86_64, number(name), 0), ALLOW, "{name}");
    }
    assert_eq!(interpret(&all, X86_64, number("clone"), 0x1000_0000), ALLOW);
    let none = compile(&DEFAULT, Capabilities::NONE).unwrap().unwrap();
    assert_eq!(interpret(&none, X86_64, number("chroot"), 0), EPERM);
}

#[test]
fn the_program_survives_the_file() {
    let program = compile(&DEFAULT, Capabilities::DEFAULT).unwrap().unwrap();
    assert!(program.len() <= INSTRUCTIONS_MAX, "{} instructions", program.len());
    let file = compile_to_file(&Seccomp::Default, Capabilities::DEFAULT).unwrap().unwrap();
    let read = read_file(&file).unwrap();
    assert_eq!(read.len(), program.len());
    for (read, written) in read.iter().zip(&program) {
        assert_eq!((read.code, read.jt, read.jf, read.k), (written.code, written.jt, written.jf, written.k));
    }
}

#[test]
fn comparisons_are_of_64_bits() {
    const BIG: u64 = 7 << 32 | 5;
    let cases: [(&str, u64, &[u64], &[u64]); 7] = [
        ("EQ", BIG, &[BIG], &[5, 7 << 32, BIG + 1]),
        ("NE", BIG, &[5, 7 << 32, BIG + 1], &[BIG]),
        // Where the upper half may be ignored, it hides nothing.
        ("NE", 5, &[6], &[5, BIG]),
        ("LT", BIG, &[0, BIG - 1, 6 << 32 | 9], &[BIG, BIG + 1, 8 << 32]),
        ("LE", BIG, &[0, BIG, 6 << 32 | 9], &[BIG + 1, 8 << 32]),
        ("GT", BIG, &[BIG + 1, 8 << 32, u64::MAX], &[BIG, 6 << 32 | 9, 0]),
        ("GE", BIG, &[BIG, 8 << 32], &[BIG - 1, 6 << 32 | 9, 0]),
    ];
    for (op, value, hold, fail) in cases {
        let rule = format!(
            r#"{{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{{"index": 0, "value": {value}, "op": "SCMP_CMP_{op}"}}]}}"#
        );
        let program = custom(r#""defaultAction": "SCMP_ACT_ERRNO""#, &rule);
        for (arguments, expected) in [(hold, ALLOW), (fail, EPERM)] {
            for argument in arguments {
                let verdict = interpret(&program, X86_64, number("read"), *argument);
                assert_eq!(verdict, expected, "{argument:#x} {op} {value:#x}");
            }
        }
    }
}

#[test]
fn profiles_of_ones_own() {
    let rules = r#"
        {"name": "mkdir", "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
        {"names": ["kill", "tkill"], "action": "SCMP_ACT_KILL_PROCESS",
         "args": [{"index": 0, "value": 9, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 15, "valueTwo": 9, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["chroot"], "action": "SCMP_ACT_LOG", "includes": {"caps": ["CAP_SYS_CHROOT"], "minKernel": "4.8"}},
        {"names": ["reboot"], "action": "SCMP_ACT_TRAP", "includes": {"caps": ["CAP_SYS_BOOT"]}},
        {"names": ["mount"], "action": "SCMP_ACT_TRAP", "excludes": {"arches": ["s390x"]}, "args": null}
    "#;
    let program =
        custom(r#""defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"]"#, rules);
    let cases = [
        ("mkdir", 0, SECCOMP_RET_ERRNO | 13),
        ("kill", 9, KILL),
        ("kill", 8, ALLOW),
        ("kill", 9 + 16, ALLOW),
        ("chroot", 0, libc::SECCOMP_RET_LOG),
        ("reboot", 0, ALLOW),
        ("mount", 0, libc::SECCOMP_RET_TRAP),
        ("read", 0, ALLOW),
    ];
    for (name, first, expected) in cases {
        assert_eq!(interpret(&program, X86_64, number(name), first), expected, "{name}({first})");
    }
    // What is new is not refused by a list of what is forbidden.
    assert_eq!(interpret(&program, X86_64, 5000, 0), ALLOW);
    assert_eq!(interpret(&program, I386, 5, 0), KILL);
}

#[test]
fn profiles_that_cannot_be_used_are_refused() {
    let cases = [
        ("", "not a profile of system calls: "),
        ("{}", "not a profile of system calls: "),
        (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "the action `SCMP_ACT_NOTIFY` is not supported"),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_TRAP", "includes": {"caps": ["CAP_X"]}}]}"#,
            "unknown capability `CAP_X`",
        ),
        (
            r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_TRAP", "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]}]}"#,
            "there is no argument 6",
        ),
    ];
    for (text, expected) in cases {
        let error = Seccomp::profile(text.to_owned()).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}: {error}");
    }
}
