//! The filter for system calls: a profile (`profile.rs`, `default.json`) says what is allowed, this module turns it into one classic
//! BPF program.
//!
//! ```text
//! load the calling convention → one block each; an unknown convention kills the process
//! block: load the number → binary search over ranges of numbers with one verdict → return, or look at an argument
//! ```
//!
//! A number above the highest that the profile knows gives `ENOSYS` where it refuses what it does not know, so that a C library newer than the profile falls back
//! to older calls instead of failing. That also refuses x32, whose numbers start at 2^30.
//! The program is compiled in the parent, once, and handed to init in a sealed file.

mod bpf;
mod profile;

use std::io;
use std::os::fd::OwnedFd;

use libc::{SECCOMP_RET_ERRNO, sock_filter};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use serde::{Deserialize, Serialize};

use crate::Capabilities;
use bpf::{Block, Entry};
use profile::{DEFAULT, Profile, Verdict, Verdicts};

pub use profile::ProfileError;

/// The most instructions the kernel takes (`BPF_MAXINSNS`).
const INSTRUCTIONS_MAX: usize = 4096;
/// One instruction in the file: code, two jumps, operand.
const INSTRUCTION_SIZE_BYTES: usize = 8;
/// Above are private calls of 32-bit ARM, far from all others.
const REGULAR_NUMBER_MAX: u32 = 0xffff;

/// As if the kernel had no such call.
const NO_SUCH_CALL: u32 = SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
/// The most conditions of one rule: a jump over all of them must fit.
const CONDITIONS_MAX: usize = 32;

/// Which filter a process has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// Docker's default profile.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// The text of a profile in Docker's format.
    Profile(String),
}

impl Seccomp {
    /// A profile of one's own.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn profile(text: String) -> Result<Self, ProfileError> {
        Profile::parse(&text)?;
        Ok(Self::Profile(text))
    }

    /// Compiles it for a process with these capabilities, or nothing where there is no filter for this machine.
    fn compile(&self, capabilities: Capabilities) -> Result<Option<Vec<sock_filter>>, ProfileError> {
        match self {
            Self::Default => compile(&DEFAULT, capabilities),
            Self::Unconfined => Ok(None),
            Self::Profile(text) => compile(&Profile::parse(text)?, capabilities),
        }
    }
}

/// A calling convention: its name in profiles, `AUDIT_ARCH_*`, and the numbers and names of its calls in order.
struct Convention {
    name: &'static str,
    audit_arch: u32,
    calls: Vec<(u32, &'static str)>,
}

macro_rules! convention {
    ($name:literal, $audit_arch:literal, $module:ident) => {
        Convention {
            name: $name,
            audit_arch: $audit_arch,
            calls: syscalls::$module::Sysno::iter()
                .filter_map(|call| Some((u32::try_from(call.id()).ok()?, call.name())))
                .collect(),
        }
    };
}

/// Those that this machine's kernel serves, its own first; none where the profile does not know the machine.
fn conventions() -> Vec<Convention> {
    if cfg!(target_arch = "x86_64") {
        vec![
            convention!("SCMP_ARCH_X86_64", 0xc000_003e, x86_64),
            convention!("SCMP_ARCH_X86", 0x4000_0003, x86),
        ]
    } else if cfg!(target_arch = "aarch64") {
        vec![convention!("SCMP_ARCH_AARCH64", 0xc000_00b7, aarch64), arm()]
    } else {
        Vec::new()
    }
}

/// 32-bit ARM has calls of its own, which the table lacks.
fn arm() -> Convention {
    const PRIVATE: [(u32, &str); 3] =
        [(0xf_0001, "breakpoint"), (0xf_0002, "cacheflush"), (0xf_0005, "set_tls")];
    let mut convention = convention!("SCMP_ARCH_ARM", 0x4000_0028, arm);
    convention.calls.extend(PRIVATE);
    convention
}

fn compile(profile: &Profile, capabilities: Capabilities) -> Result<Option<Vec<sock_filter>>, ProfileError> {
    let verdicts = profile.verdicts(capabilities)?;
    let mut conventions = conventions();
    let native = conventions.first().map_or("", |first| first.name);
    conventions.retain(|convention| profile.has_architecture(convention.name, native));
    let blocks: Vec<Block> = conventions.into_iter().map(|convention| block(convention, &verdicts)).collect();
    let program = (!blocks.is_empty()).then(|| bpf::program(&blocks));
    match program {
        Some(program) if program.len() > INSTRUCTIONS_MAX => Err(ProfileError::TooLarge),
        program => Ok(program),
    }
}

fn block(convention: Convention, verdicts: &Verdicts<'_>) -> Block {
    let mut calls: Vec<(u32, Option<&Verdict>)> =
        convention.calls.into_iter().map(|(number, name)| (number, verdicts.get(name))).collect();
    calls.sort_by_key(|(number, _)| *number);
    let known = |&(number, verdict): &(u32, Option<&Verdict>)| {
        (verdict.is_some() && number <= REGULAR_NUMBER_MAX).then_some(number)
    };
    let highest = calls.iter().filter_map(known).max().unwrap_or(0);
    let missing = |number: u32| {
        let unknown = number > highest && verdicts.refuses();
        Verdict::always(if unknown { NO_SUCH_CALL } else { verdicts.default })
    };

    let mut entries: Vec<Entry> = Vec::new();
    let mut next = 0;
    for (number, verdict) in calls {
        // Numbers that no call has, and the tail.
        for gap in [next, highest + 1].into_iter().filter(|gap| (next..number).contains(gap)) {
            push(&mut entries, gap, missing(gap));
        }
        push(&mut entries, number, verdict.cloned().unwrap_or_else(|| missing(number)));
        next = number + 1;
    }
    for gap in [next, highest + 1].into_iter().filter(|gap| *gap >= next) {
        push(&mut entries, gap, missing(gap));
    }
    Block { audit_arch: convention.audit_arch, entries }
}

/// Starts a new range unless it has the verdict of the one before.
fn push(entries: &mut Vec<Entry>, first: u32, verdict: Verdict) {
    if entries.last().is_none_or(|last| last.verdict != verdict) {
        entries.push(Entry { first, verdict });
    }
}

/// Compiles into a sealed file in memory.
pub(crate) fn compile_to_file(seccomp: &Seccomp, capabilities: Capabilities) -> io::Result<Option<OwnedFd>> {
    let Some(program) = seccomp.compile(capabilities).map_err(io::Error::other)? else { return Ok(None) };
    let mut bytes = Vec::with_capacity(program.len() * INSTRUCTION_SIZE_BYTES);
    for instruction in &program {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jt, instruction.jf]);
        bytes.extend(instruction.k.to_ne_bytes());
    }
    let file = memfd_create("seccomp", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let written = rustix::io::pwrite(&file, &bytes, 0)?;
    if written != bytes.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(Some(file))
}

/// Reads what [`compile_to_file`] wrote.
pub(crate) fn read_file(file: &OwnedFd) -> io::Result<Vec<sock_filter>> {
    let mut bytes = vec![0; INSTRUCTIONS_MAX * INSTRUCTION_SIZE_BYTES];
    let size = rustix::io::pread(file, &mut bytes, 0)?;
    let decode = |bytes: &[u8; INSTRUCTION_SIZE_BYTES]| {
        let [code0, code1, jt, jf, operand @ ..] = *bytes;
        let code = u16::from_ne_bytes([code0, code1]);
        sock_filter { code, jt, jf, k: u32::from_ne_bytes(operand) }
    };
    Ok(bytes[..size].as_chunks().0.iter().map(decode).collect())
}

#[cfg(test)]
mod tests;
