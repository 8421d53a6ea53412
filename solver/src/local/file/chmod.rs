//! `--chmod`: new permission bits, octal or as chmod(1) writes them.

use rbuild_llb::Chmod;
use thiserror::Error;

/// All bits that chmod can set.
pub(super) const MODE_BITS: u32 = 0o7777;
const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;
const STICKY: u32 = 0o1000;
const USER: u32 = 0o700;
const GROUP: u32 = 0o070;
const OTHER: u32 = 0o007;
const EXECUTE: u32 = 0o111;

/// A text that is no mode.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("invalid chmod parameter: `{0}`")]
pub struct ParseModeError(String);

/// A change of permission bits. The umask plays no part in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModeChange {
    /// These bits, whatever the old.
    To(u32),
    /// Changes in order.
    By(Vec<Clause>),
}

/// `u=rwX`: for whom, how, and which bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clause {
    /// The bits of those it is for, as a mask over the mode.
    whom: u32,
    operator: Operator,
    bits: Bits,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bits {
    /// These, in every place; `conditional` are for directories and what somebody can already execute (`X`).
    Fixed { always: u32, conditional: u32 },
    /// Those that the owner (`u`), the group (`g`) or the others (`o`) have, by how far to shift them down.
    Of { shift: u32 },
}

impl ModeChange {
    /// Reads the mode of an action.
    ///
    /// # Errors
    /// When a symbolic mode is malformed.
    pub fn new(mode: &Chmod) -> Result<Self, ParseModeError> {
        match mode {
            Chmod::Octal(bits) => Ok(Self::To(bits & MODE_BITS)),
            Chmod::Symbolic(text) => Self::parse(text),
        }
    }

    /// Reads a symbolic mode: `u=rwX,go=rX`, `+x`, `g=u`.
    ///
    /// # Errors
    /// When it is malformed.
    pub fn parse(text: &str) -> Result<Self, ParseModeError> {
        let mut clauses = Vec::new();
        for part in text.split(',') {
            parse_part(part, &mut clauses).ok_or_else(|| ParseModeError(text.to_owned()))?;
        }
        Ok(Self::By(clauses))
    }

    /// The bits that come of `mode`.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::To(bits) => *bits,
            Self::By(clauses) => {
                clauses.iter().fold(mode & MODE_BITS, |mode, clause| clause.apply(mode, is_dir))
            }
        }
    }

    /// The bits, if they do not depend on the old ones.
    pub const fn absolute(&self) -> Option<u32> {
        match self {
            Self::To(bits) => Some(*bits),
            Self::By(_) => None,
        }
    }
}

impl Clause {
    const fn apply(self, mode: u32, is_dir: bool) -> u32 {
        let bits = match self.bits {
            Bits::Fixed { always, conditional } if is_dir || mode & EXECUTE != 0 => always | conditional,
            Bits::Fixed { always, .. } => always,
            Bits::Of { shift } => ((mode >> shift) & OTHER) * EXECUTE,
        } & self.whom;
        match self.operator {
            Operator::Add => mode | bits,
            Operator::Remove => mode & !bits,
            Operator::Set => (mode & !self.whom) | bits,
        }
    }
}

/// One part between commas: whom, then one or more of operator and bits (`u+r-w`).
fn parse_part(part: &str, clauses: &mut Vec<Clause>) -> Option<()> {
    let start = part.find(['+', '-', '='])?;
    let (names, mut rest) = part.split_at(start);
    let whom = parse_whom(names)?;
    while let Some(sign) = rest.chars().next() {
        let operator = match sign {
            '+' => Operator::Add,
            '-' => Operator::Remove,
            _ => Operator::Set,
        };
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |at| at + 1);
        clauses.push(Clause { whom, operator, bits: parse_bits(&rest[1..end])? });
        rest = &rest[end..];
    }
    Some(())
}

fn parse_whom(names: &str) -> Option<u32> {
    if names.is_empty() {
        return Some(MODE_BITS);
    }
    names.chars().try_fold(0, |whom, name| {
        Some(
            whom | match name {
                'u' => SET_UID | USER,
                'g' => SET_GID | GROUP,
                'o' => OTHER,
                'a' => MODE_BITS,
                _ => return None,
            },
        )
    })
}

fn parse_bits(text: &str) -> Option<Bits> {
    match text {
        "u" => return Some(Bits::Of { shift: 6 }),
        "g" => return Some(Bits::Of { shift: 3 }),
        "o" => return Some(Bits::Of { shift: 0 }),
        _ => {}
    }
    let (mut always, mut conditional) = (0, 0);
    for letter in text.chars() {
        match letter {
            'r' => always |= 0o444,
            'w' => always |= 0o222,
            'x' => always |= EXECUTE,
            'X' => conditional |= EXECUTE,
            's' => always |= SET_UID | SET_GID,
            't' => always |= STICKY,
            _ => return None,
        }
    }
    Some(Bits::Fixed { always, conditional })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes_change_bits_as_chmod_does() {
        let cases = [
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("u=rwX,go=rX", 0o710, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("g=u", 0o640, false, 0o660),
            ("o=g", 0o751, false, 0o755),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, true, 0o2755),
            ("+t", 0o777, true, 0o1777),
            ("o+t", 0o777, true, 0o777),
            ("u+r-w", 0o200, false, 0o400),
            ("go=", 0o2777, false, 0o700),
            ("a=rx", 0o7777, false, 0o555),
            ("u=g,g=", 0o070, false, 0o700),
            ("+X", 0o644, false, 0o644),
            ("+X", 0o644, true, 0o755),
        ];
        for (text, mode, is_dir, expected) in cases {
            let change = ModeChange::parse(text).unwrap();
            assert_eq!(change.apply(mode, is_dir), expected, "{text} on {mode:o}");
        }
    }

    #[test]
    fn an_octal_mode_replaces_all_bits() {
        assert_eq!(ModeChange::new(&Chmod::Octal(0o4711)).unwrap().apply(0o644, true), 0o4711);
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in ["", "rwx", "u", "z=r", "u=q", "u=r,", "u=ug", "0644"] {
            assert_eq!(ModeChange::parse(text), Err(ParseModeError(text.to_owned())), "{text}");
        }
    }
}
