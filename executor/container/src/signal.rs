//! Signals by name, as `--signal` and `STOPSIGNAL` give them.

/// The first real-time signal, as libc counts for programs.
const RTMIN: i32 = 34;
/// The last one.
const RTMAX: i32 = 64;

/// Signals by number, from 1; as on all architectures that containers run on.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The signal that ends a process in good order.
pub(crate) const TERM: i32 = 15;
/// The signal that ends a process.
pub const KILL: i32 = 9;
/// The signal that stops a process.
pub(crate) const STOP: i32 = 19;
/// The signal that lets a stopped process go on.
pub(crate) const CONT: i32 = 18;

/// The number of a signal: `SIGTERM`, `term`, `15`, `RTMIN+3`.
pub fn parse_signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=RTMAX).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let real_time = |base: i32, offset: &str| match offset {
        "" => Some(base),
        offset => offset.parse::<i32>().ok().map(|offset| base + offset),
    };
    let number = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(offset), _) => real_time(RTMIN, offset)?,
        (_, Some(offset)) => real_time(RTMAX, offset)?,
        _ => {
            let position = NAMES.iter().position(|known| *known == name)?;
            i32::try_from(position).ok()? + 1
        }
    };
    (1..=RTMAX).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_found_in_any_spelling() {
        let cases = [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("winch", Some(28)),
            ("SIGNOSUCH", None),
            ("0", None),
            ("65", None),
            ("RTMAX+1", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_signal(text), expected, "{text}");
        }
    }
}
