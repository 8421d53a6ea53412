//! Emits classic BPF over `struct seccomp_data`.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
    SECCOMP_RET_KILL_PROCESS, sock_filter,
};

use super::profile::{Comparison, Condition, Verdict};

/// Where `struct seccomp_data` has the number.
const NUMBER_OFFSET: u32 = 0;
/// Where it has the calling convention.
const ARCH_OFFSET: u32 = 4;
/// Where it has the low half of the first argument, on a little-endian machine.
const ARGUMENT_OFFSET: u32 = 16;
/// How far it is to the next argument.
const ARGUMENT_SIZE_BYTES: u32 = 8;

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

/// Ends in a return on every path.
fn decide(verdict: &Verdict) -> Vec<sock_filter> {
    let mut code = Vec::new();
    for (conditions, action) in &verdict.rules {
        // From the end, as a condition that does not hold leads behind all that follows it.
        let mut rule = vec![ret(*action)];
        for condition in conditions.iter().rev() {
            let mut test = test(condition, rule.len());
            test.append(&mut rule);
            rule = test;
        }
        code.append(&mut rule);
    }
    code.push(ret(verdict.otherwise));
    code
}

/// Falls through where the condition holds, else skips `rest` instructions more than it has.
///
/// An instruction compares 32 bits, so an argument is looked at in halves, the upper one first.
fn test(condition: &Condition, rest: usize) -> Vec<sock_filter> {
    let Condition { index, mask, comparison, value } = *condition;
    let upper = half(index, upper(mask), 4);
    let lower = half(index, lower(mask), 0);
    let (high, low) = (self::upper(value), self::lower(value));
    let lower_only = |last| [lower.clone(), vec![last]].concat();
    match comparison {
        Comparison::NotEqual if self::upper(mask) == 0 => lower_only(jump(BPF_JEQ, low, rest, 0)),
        Comparison::NotEqual => {
            let last = lower_only(jump(BPF_JEQ, low, rest, 0));
            [upper, vec![jump(BPF_JEQ, high, 0, last.len())], last].concat()
        }
        Comparison::Equal | Comparison::MaskedEqual => {
            let last = lower_only(jump(BPF_JEQ, low, 0, rest));
            [upper, vec![jump(BPF_JEQ, high, 0, rest + last.len())], last].concat()
        }
        Comparison::Greater | Comparison::GreaterOrEqual => {
            let kind = if comparison == Comparison::Greater { BPF_JGT } else { BPF_JGE };
            let last = lower_only(jump(kind, low, 0, rest));
            let above = jump(BPF_JGT, high, last.len() + 1, 0);
            [upper, vec![above, jump(BPF_JEQ, high, 0, rest + last.len())], last].concat()
        }
        Comparison::Less | Comparison::LessOrEqual => {
            let kind = if comparison == Comparison::Less { BPF_JGE } else { BPF_JGT };
            let last = lower_only(jump(kind, low, rest, 0));
            let above = jump(BPF_JGT, high, rest + last.len() + 1, 0);
            [upper, vec![above, jump(BPF_JEQ, high, 0, last.len())], last].concat()
        }
    }
}

/// Loads the masked half of an argument.
fn half(index: u32, mask: u32, offset: u32) -> Vec<sock_filter> {
    let load = load(ARGUMENT_OFFSET + index * ARGUMENT_SIZE_BYTES + offset);
    if mask == u32::MAX { vec![load] } else { vec![load, and(mask)] }
}

const fn upper(value: u64) -> u32 {
    (value >> 32) as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
const fn lower(value: u64) -> u32 {
    value as u32
}

fn and(mask: u32) -> sock_filter {
    instruction(BPF_ALU | BPF_AND | BPF_K, mask, 0, 0)
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

fn ret(value: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, value, 0, 0)
}

#[expect(clippy::cast_possible_truncation, reason = "codes are 16 bits, and the callers keep jumps within 8")]
fn instruction(code: u32, k: u32, jt: usize, jf: usize) -> sock_filter {
    sock_filter { code: code as u16, jt: jt as u8, jf: jf as u8, k }
}
