//! Emits classic BPF over `struct seccomp_data`.

use libc::{
    BPF_ABS, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_ERRNO, SECCOMP_RET_KILL_PROCESS, sock_filter,
};

use super::profile::{Condition, Verdict};

/// Where `struct seccomp_data` has the number.
const NUMBER_OFFSET: u32 = 0;
/// Where it has the calling convention.
const ARCH_OFFSET: u32 = 4;
/// Where it has the low half of the first argument, on a little-endian machine.
const ARGUMENT_OFFSET: u32 = 16;

/// The farthest a conditional jump goes.
const JUMP_MAX: usize = u8::MAX as usize;

/// What happens to the calls of one convention.
pub(super) struct Block {
    pub audit_arch: u32,
    /// In order, the first from 0.
    pub entries: Vec<Entry>,
}

/// The verdict from one number up to the next entry's.
pub(super) struct Entry {
    pub first: u32,
    pub verdict: Verdict,
}

/// The whole program.
pub(super) fn program(blocks: &[Block]) -> Vec<sock_filter> {
    let mut program = vec![load(ARCH_OFFSET)];
    for block in blocks {
        let mut body = vec![load(NUMBER_OFFSET)];
        body.extend(search(&block.entries));
        program.push(jump(BPF_JEQ, block.audit_arch, 1, 0));
        program.push(skip(body.len()));
        program.extend(body);
    }
    program.push(ret(SECCOMP_RET_KILL_PROCESS));
    program
}

/// A binary search over the entries.
fn search(entries: &[Entry]) -> Vec<sock_filter> {
    if let [only] = entries {
        return decide(&only.verdict);
    }
    let (low, high) = entries.split_at(entries.len() / 2);
    let low_code = search(low);
    let mut code = Vec::new();
    match high.first() {
        None => return low_code,
        Some(middle) if low_code.len() <= JUMP_MAX => {
            code.push(jump(BPF_JGE, middle.first, low_code.len(), 0));
        }
        Some(middle) => {
            code.push(jump(BPF_JGE, middle.first, 0, 1));
            code.push(skip(low_code.len()));
        }
    }
    code.extend(low_code);
    code.extend(search(high));
    code
}

/// Ends in a return on every path. Arguments that are looked at are 32 bits wide in the kernel, which ignores the upper half,
/// and so must the filter: otherwise a process could hide a value behind it.
fn decide(verdict: &Verdict) -> Vec<sock_filter> {
    let refuse = errno(libc::EPERM);
    match verdict {
        Verdict::Allow => vec![ret(SECCOMP_RET_ALLOW)],
        Verdict::Errno(number) => vec![errno(*number)],
        Verdict::AllowIf(Condition::In(values)) => compare(values, ret(SECCOMP_RET_ALLOW), refuse),
        Verdict::AllowIf(Condition::NotIn(values)) => compare(values, refuse, ret(SECCOMP_RET_ALLOW)),
        Verdict::AllowIf(Condition::HasNone(mask)) => {
            vec![load(ARGUMENT_OFFSET), jump(BPF_JSET, *mask, 1, 0), ret(SECCOMP_RET_ALLOW), refuse]
        }
    }
}

/// `found` when the first argument is one of `values`.
fn compare(values: &[u32], found: sock_filter, otherwise: sock_filter) -> Vec<sock_filter> {
    let mut code = vec![load(ARGUMENT_OFFSET)];
    for (index, value) in values.iter().enumerate() {
        // Over the comparisons left and over `otherwise`.
        code.push(jump(BPF_JEQ, *value, values.len() - index, 0));
    }
    code.extend([otherwise, found]);
    code
}

fn load(offset: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0)
}

/// `then` and `otherwise` are how many instructions are skipped; at most [`JUMP_MAX`].
fn jump(condition: u32, operand: u32, then: usize, otherwise: usize) -> sock_filter {
    debug_assert!(then <= JUMP_MAX && otherwise <= JUMP_MAX, "a conditional jump reaches 255 instructions");
    instruction(BPF_JMP | condition | BPF_K, operand, then, otherwise)
}

fn skip(count: usize) -> sock_filter {
    #[expect(clippy::cast_possible_truncation, reason = "programs are shorter than 4096 instructions")]
    instruction(BPF_JMP | BPF_JA, count as u32, 0, 0)
}

fn errno(number: i32) -> sock_filter {
    ret(SECCOMP_RET_ERRNO | number.unsigned_abs())
}

fn ret(value: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, value, 0, 0)
}

#[expect(clippy::cast_possible_truncation, reason = "codes are 16 bits, and the callers keep jumps within 8")]
fn instruction(code: u32, k: u32, jt: usize, jf: usize) -> sock_filter {
    sock_filter { code: code as u16, jt: jt as u8, jf: jf as u8, k }
}
