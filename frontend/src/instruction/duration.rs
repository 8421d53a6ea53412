//! Durations as Go writes them: `1m30s`, `1.5h`, `100ms`. In nanoseconds.

/// Units, largest first.
const UNITS: [(&str, i64); 8] = [
    ("h", 3_600_000_000_000),
    ("ms", 1_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ns", 1),
];

/// Reads a duration. `None` when it is none, or larger than 64 bits hold.
pub fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_i64;
    while !rest.is_empty() {
        let digits =
            |text: &str| text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
        let (whole, after) = rest.split_at(digits(rest));
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(digits(after)),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (unit, size) = UNITS.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        total = total.checked_add(whole.checked_mul(size)?)?.checked_add(fraction_of(fraction, size))?;
        rest = &after[unit.len()..];
    }
    Some(if negative { -total } else { total })
}

/// Digits below what fits are below a nanosecond.
fn fraction_of(digits: &str, size: i64) -> i64 {
    let (mut value, mut scale) = (0_i64, size);
    for digit in digits.bytes().take(18) {
        value += i64::from(digit - b'0') * (scale / 10) + i64::from(digit - b'0') * (scale % 10) / 10;
        scale /= 10;
    }
    value
}

/// Writes a duration as Go does: history entries of HEALTHCHECK hold it.
pub fn format(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let value = nanoseconds.unsigned_abs();
    let decimal = |size: u64| {
        let fraction = format!("{:0width$}", value % size, width = size.ilog10() as usize);
        let fraction = fraction.trim_end_matches('0');
        if fraction.is_empty() { String::new() } else { format!(".{fraction}") }
    };
    match value {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{value}ns"),
        1_000..1_000_000 => format!("{sign}{}{}µs", value / 1_000, decimal(1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}{}ms", value / 1_000_000, decimal(1_000_000)),
        _ => {
            let seconds = value / 1_000_000_000;
            let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
            let tail = format!("{}{}s", seconds % 60, decimal(1_000_000_000));
            match (hours, minutes) {
                (0, 0) => format!("{sign}{tail}"),
                (0, minutes) => format!("{sign}{minutes}m{tail}"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{tail}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        let cases = [
            ("30s", 30_000_000_000, "30s"),
            ("1m30s", 90_000_000_000, "1m30s"),
            ("1.5h", 5_400_000_000_000, "1h30m0s"),
            ("100ms", 100_000_000, "100ms"),
            (".5s", 500_000_000, "500ms"),
            ("1.234567891s", 1_234_567_891, "1.234567891s"),
            ("2us", 2_000, "2µs"),
            ("0", 0, "0s"),
            ("-1s", -1_000_000_000, "-1s"),
        ];
        for (text, nanoseconds, written) in cases {
            assert_eq!(parse(text), Some(nanoseconds), "{text}");
            assert_eq!(format(nanoseconds), written);
        }
        for text in ["", "1", "s", ".s", "1x", "9999999999h", "1h-1m"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
