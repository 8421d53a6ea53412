//! `--chmod`: new permission bits, octal or symbolic.
//!
//! Symbolic modes are BuildKit's, which are BSD's and not quite those of chmod(1): `X` is for what somebody could execute before all
//! changes, and `-X` is `-x`; copying a class leaves setuid, setgid and sticky alone; `a=` leaves sticky; `t` is for whoever is
//! named but the others, and where nobody is named, letters beside a `t` mean nothing.

use rbuild_llb::Chmod;
use thiserror::Error;

/// All bits that chmod can set.
pub(super) const MODE_BITS: u32 = 0o7777;
const SET_ID: u32 = 0o6000;
const STICKY: u32 = 0o1000;
const USER: u32 = 0o4700;
const GROUP: u32 = 0o2070;
const OTHER: u32 = 0o007;
/// All that `a` names, and that `=` without a name clears.
const ALL: u32 = USER | GROUP | OTHER;
const PERMISSIONS: u32 = 0o777;
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
    By(Vec<Step>),
}

/// One change of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Takes these away.
    Clear(u32),
    /// Gives these.
    Set(u32),
    /// Gives these to directories, and to what somebody could execute before all changes (`X`).
    SetIfExecutable(u32),
    /// Takes away or gives, in the classes `to`, what a class has, by how far to shift that down.
    Copy {
        /// Those who get it, as a mask of permissions.
        to: u32,
        /// How.
        operator: Operator,
        /// Whose it is: 6 for the owner, 3 for the group, 0 for the others.
        shift: u32,
    },
}

/// What stands between a class and its permissions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `+`
    Add,
    /// `-`
    Remove,
    /// `=`
    Set,
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
        let mut steps = Vec::new();
        for part in text.split(',') {
            parse_part(part, &mut steps).ok_or_else(|| ParseModeError(text.to_owned()))?;
        }
        Ok(Self::By(steps))
    }

    /// The bits that come of `mode`.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            Self::To(bits) => *bits,
            Self::By(steps) => {
                let is_executable = is_dir || mode & EXECUTE != 0;
                steps.iter().fold(mode & MODE_BITS, |mode, step| step.apply(mode, is_executable))
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

impl Step {
    const fn apply(self, mode: u32, is_executable: bool) -> u32 {
        match self {
            Self::Clear(bits) => mode & !bits,
            Self::Set(bits) => mode | bits,
            Self::SetIfExecutable(bits) if is_executable => mode | bits,
            Self::SetIfExecutable(_) => mode,
            Self::Copy { to, operator, shift } => {
                let bits = (((mode >> shift) & OTHER) * EXECUTE) & to;
                match operator {
                    Operator::Add => mode | bits,
                    Operator::Remove => mode & !bits,
                    Operator::Set => mode & !to | bits,
                }
            }
        }
    }
}

/// One part between commas: whom, then one or more of operator and bits (`u+r-w`).
fn parse_part(part: &str, steps: &mut Vec<Step>) -> Option<()> {
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
        parse_bits(whom, operator, &rest[1..end], steps)?;
        rest = &rest[end..];
    }
    Some(())
}

/// The bits of those who are named, 0 where nobody is.
fn parse_whom(names: &str) -> Option<u32> {
    names.chars().try_fold(0, |whom, name| {
        Some(
            whom | match name {
                'u' => USER,
                'g' => GROUP,
                'o' => OTHER,
                'a' => ALL,
                _ => return None,
            },
        )
    })
}

fn parse_bits(whom: u32, operator: Operator, letters: &str, steps: &mut Vec<Step>) -> Option<()> {
    let shift = match letters {
        "u" => Some(6),
        "g" => Some(3),
        "o" => Some(0),
        _ => None,
    };
    if let Some(shift) = shift {
        let to = if whom == 0 { PERMISSIONS } else { whom & PERMISSIONS };
        steps.push(Step::Copy { to, operator, shift });
        return Some(());
    }
    let is_special = whom != OTHER;
    let (mut named, mut bits, mut conditional) = (whom, 0, 0);
    for letter in letters.chars() {
        match letter {
            'r' => bits |= 0o444,
            'w' => bits |= 0o222,
            'x' => bits |= EXECUTE,
            'X' if operator == Operator::Remove => bits |= EXECUTE,
            'X' => conditional |= EXECUTE,
            's' if is_special => bits |= SET_ID,
            't' if is_special => (named, bits) = (named | STICKY, bits | STICKY),
            's' | 't' => {}
            _ => return None,
        }
    }
    // Where only `t` has named somebody, that is nobody who has permissions.
    let (cleared, given) = if named == 0 { (ALL, MODE_BITS) } else { (named, named) };
    match operator {
        Operator::Remove => {
            steps.push(Step::Clear(bits & given));
            return Some(());
        }
        Operator::Set => steps.push(Step::Clear(cleared)),
        Operator::Add => {}
    }
    steps.extend([Step::Set(bits & given), Step::SetIfExecutable(conditional & given)]);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbolic_modes_change_bits_as_buildkit_does() {
        let cases = [
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o710, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwx,go=rX", 0o644, false, 0o744),
            ("ug+x,o=rX", 0o644, false, 0o754),
            ("a-x+X", 0o755, false, 0o755),
            ("-x,+X", 0o755, false, 0o755),
            ("u+x,go+X", 0o644, false, 0o744),
            ("u+x-X", 0o644, false, 0o644),
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
            ("a=rx", 0o7777, false, 0o1555),
            ("g=u", 0o2755, true, 0o2775),
            ("u=g", 0o4755, false, 0o4555),
            ("o-u", 0o647, false, 0o641),
            ("u+t", 0o755, true, 0o1755),
            ("g+t", 0o755, true, 0o1755),
            ("+xt", 0o644, false, 0o1644),
            ("=t", 0o755, false, 0o1755),
            ("u=t", 0o4755, false, 0o1055),
            ("o+s", 0o755, false, 0o755),
            ("+w", 0o444, false, 0o666),
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
