//! Which device files the processes of a group can open: rules for version 1, a small program for version 2.
//!
//! A process of root may make device files (Docker lets it, and installers do it), and an image may bring some. What keeps
//! them from the disks of the machine is that they cannot be opened.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

use super::{Directory, Error, Version};
use crate::container::DeviceAccess;
use crate::sys;

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum DeviceKind {
    Block,
    Character,
}

/// What may be done, as bits that are the kernel's.
const MAKE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const EVERYTHING: u32 = MAKE | READ | WRITE;

/// Allows something with some devices. What no rule allows is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    kind: DeviceKind,
    /// Any when not given.
    major: Option<u32>,
    /// Any when not given.
    minor: Option<u32>,
    access: u32,
}

const fn make_any(kind: DeviceKind) -> DeviceRule {
    DeviceRule { kind, major: None, minor: None, access: MAKE }
}

const fn character(major: u32, minor: Option<u32>) -> DeviceRule {
    DeviceRule { kind: DeviceKind::Character, major: Some(major), minor, access: EVERYTHING }
}

/// Docker's: every file can be made, those of `/dev` and terminals opened.
pub(crate) const SANDBOX: [DeviceRule; 11] = [
    make_any(DeviceKind::Block),
    make_any(DeviceKind::Character),
    character(1, Some(3)),
    character(1, Some(5)),
    character(1, Some(7)),
    character(1, Some(8)),
    character(1, Some(9)),
    character(5, Some(0)),
    character(5, Some(1)),
    character(5, Some(2)),
    character(136, None),
];

/// Lets the processes of a group do with devices what [`SANDBOX`] and further rules say.
pub(super) fn confine(directory: &Directory, further: &[DeviceRule]) -> Result<(), Error> {
    let failed = Error::io("confine the devices of", &directory.path);
    match directory.hierarchy.version {
        Version::V1 => {
            directory.write("devices.deny", "a")?;
            let mut rules = SANDBOX.iter().chain(further);
            rules.try_for_each(|rule| directory.write("devices.allow", &rule.line()))
        }
        Version::V2 if further.is_empty() => sandbox_program()
            .and_then(|program| sys::attach_device_program(&directory.lock, program))
            .map_err(failed),
        Version::V2 => sys::load_device_program(&program(&[&SANDBOX, further].concat()))
            .and_then(|program| sys::attach_device_program(&directory.lock, &program))
            .map_err(failed),
    }
}

/// The program, loaded once.
fn sandbox_program() -> std::io::Result<&'static OwnedFd> {
    static PROGRAM: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(program) = PROGRAM.get() {
        return Ok(program);
    }
    let program = sys::load_device_program(&program(&SANDBOX))?;
    Ok(PROGRAM.get_or_init(|| program))
}

impl DeviceRule {
    /// What a line means as version 1 reads it: `c 1:* rwm`; for all kinds with `a`. `None` when it is none.
    pub fn parse(line: &str) -> Option<Vec<Self>> {
        let [kind, numbers, access] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
        let kinds = match kind {
            "a" => vec![DeviceKind::Block, DeviceKind::Character],
            "b" => vec![DeviceKind::Block],
            "c" => vec![DeviceKind::Character],
            _ => return None,
        };
        let number = |text: &str| if text == "*" { Some(None) } else { text.parse().ok().map(Some) };
        let (major, minor) = numbers.split_once(':')?;
        let (major, minor) = (number(major)?, number(minor)?);
        let bit = |letter| match letter {
            'r' => Some(READ),
            'w' => Some(WRITE),
            'm' => Some(MAKE),
            _ => None,
        };
        let access: u32 =
            access.chars().map(bit).collect::<Option<Vec<_>>>()?.into_iter().fold(0, |all, bit| all | bit);
        let rule = |kind| Self { kind, major, minor, access };
        (access != 0).then(|| kinds.into_iter().map(rule).collect())
    }

    /// What may be done with one device.
    pub(crate) fn new(kind: DeviceKind, major: u32, minor: u32, access: DeviceAccess) -> Self {
        let bit = |wanted, bit| if wanted { bit } else { 0 };
        let DeviceAccess { read, write, make } = access;
        let access = bit(read, READ) | bit(write, WRITE) | bit(make, MAKE);
        Self { kind, major: Some(major), minor: Some(minor), access }
    }

    /// As version 1 reads it: `c 136:* rwm`.
    fn line(&self) -> String {
        let kind = match self.kind {
            DeviceKind::Block => 'b',
            DeviceKind::Character => 'c',
        };
        let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
        let access: String = [(READ, 'r'), (WRITE, 'w'), (MAKE, 'm')]
            .iter()
            .filter(|(bit, _)| self.access & bit != 0)
            .map(|one| one.1)
            .collect();
        format!("{kind} {}:{} {access}", number(self.major), number(self.minor))
    }
}

/// One instruction of eBPF, as the kernel has it in memory.
const fn instruction(code: u8, destination: u8, source: u8, offset: i16, value: i32) -> u64 {
    let [low, high] = offset.to_le_bytes();
    let [a, b, c, d] = value.to_le_bytes();
    u64::from_le_bytes([code, source << 4 | destination, low, high, a, b, c, d])
}

/// The program: 1 if a rule allows what is asked, else 0.
///
/// What is asked lies where register 1 leads: kind and access in one word, then the two numbers.
fn program(rules: &[DeviceRule]) -> Vec<u64> {
    const LOAD: u8 = 0x61;
    const MOVE: u8 = 0xbc;
    const SET: u8 = 0xb7;
    const AND: u8 = 0x54;
    const SHIFT_RIGHT: u8 = 0x74;
    const EXIT: u8 = 0x95;
    let (kind, access, major, minor) = (2, 3, 4, 5);
    let mut code = vec![
        instruction(LOAD, kind, 1, 0, 0),
        instruction(MOVE, access, kind, 0, 0),
        instruction(AND, kind, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, access, 0, 0, 16),
        instruction(LOAD, major, 1, 4, 0),
        instruction(LOAD, minor, 1, 8, 0),
    ];
    for rule in rules {
        code.extend(rule.code([kind, access, major, minor]));
    }
    code.extend([instruction(SET, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    code
}

impl DeviceRule {
    /// Returns 1 where the rule holds, else goes on behind it. Register 1 is free for use.
    fn code(&self, [kind, access, major, minor]: [u8; 4]) -> Vec<u64> {
        const MOVE: u8 = 0xbc;
        const SET: u8 = 0xb7;
        const AND: u8 = 0x54;
        const JUMP_IF_NOT: u8 = 0x56;
        const EXIT: u8 = 0x95;
        let kind_value = match self.kind {
            DeviceKind::Block => 1,
            DeviceKind::Character => 2,
        };
        let number =
            |register: u8, number: Option<u32>| number.map(|number| (register, number.cast_signed()));
        let tests =
            [Some((kind, kind_value)), Some((1, 0)), number(major, self.major), number(minor, self.minor)];
        let mut code = vec![
            instruction(MOVE, 1, access, 0, 0),
            instruction(AND, 1, 0, 0, (!self.access & EVERYTHING).cast_signed()),
        ];
        let tests: Vec<_> = tests.into_iter().flatten().collect();
        for (index, (register, value)) in (0..).zip(&tests) {
            // Over the tests that follow, and the two instructions that return.
            let behind = i16::try_from(tests.len()).unwrap_or(i16::MAX) - index + 1;
            code.push(instruction(JUMP_IF_NOT, *register, 0, behind, *value));
        }
        code.extend([instruction(SET, 0, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)]);
        code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_lines_of_version_1() {
        let lines: Vec<String> = SANDBOX.iter().map(DeviceRule::line).collect();
        assert_eq!(lines[..3], ["b *:* m", "c *:* m", "c 1:3 rwm"]);
        assert_eq!(lines.last().unwrap(), "c 136:* rwm");
    }

    #[test]
    fn lines_are_read() {
        let lines = |text: &str| -> Option<Vec<String>> {
            DeviceRule::parse(text).map(|rules| rules.iter().map(DeviceRule::line).collect())
        };
        assert_eq!(lines("c 10:200 rw").unwrap(), ["c 10:200 rw"]);
        assert_eq!(lines("a *:* m").unwrap(), ["b *:* m", "c *:* m"]);
        for text in ["", "c 10:200", "x 1:1 r", "c 1 r", "c 1:x r", "c 1:1 ", "c 1:1 rx", "c 1:1  r"] {
            assert_eq!(lines(text), None, "{text}");
        }
    }

    /// What a program answers, by an interpreter of the instructions that it has.
    fn ask(program: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> u32 {
        let words = [access << 16 | kind, major, minor];
        let mut registers = [0_u32; 11];
        let mut at = 0;
        loop {
            let [code, operands, low, high, value @ ..] = program[at].to_le_bytes();
            let (to, from) = (usize::from(operands & 15), usize::from(operands >> 4));
            let (offset, value) = (i16::from_le_bytes([low, high]), u32::from_le_bytes(value));
            at += 1;
            match code {
                0x61 => registers[to] = words[usize::try_from(offset).unwrap() / 4],
                0xbc => registers[to] = registers[from],
                0xb7 => registers[to] = value,
                0x54 => registers[to] &= value,
                0x74 => registers[to] >>= value,
                0x56 if registers[to] != value => at += usize::try_from(offset).unwrap(),
                0x56 => {}
                0x95 => return registers[0],
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn the_program_says_what_the_rules_say() {
        let program = program(&SANDBOX);
        let (block, character) = (1, 2);
        let cases = [
            (character, READ | WRITE, 1, 3, 1),
            (character, READ, 136, 7, 1),
            (character, EVERYTHING, 5, 2, 1),
            (character, MAKE, 99, 99, 1),
            (block, MAKE, 8, 0, 1),
            (block, READ, 8, 0, 0),
            (block, MAKE | READ, 8, 0, 0),
            (character, READ, 1, 1, 0),
            (block, READ, 1, 3, 0),
            (character, WRITE, 10, 200, 0),
        ];
        for (kind, access, major, minor, expected) in cases {
            assert_eq!(
                ask(&program, kind, access, major, minor),
                expected,
                "{kind} {access} {major}:{minor}"
            );
        }
    }
}
