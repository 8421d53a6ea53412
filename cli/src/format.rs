//! How tables, sizes, ages and ids are printed: as Docker prints them, because scripts and eyes are used to it.

use std::borrow::Cow;

/// A table with columns as wide as their widest cell, three spaces apart.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 3));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// How many digits Docker shows of a size where there is room.
pub(crate) const SIZE_DIGITS: usize = 4;

/// A size with three significant digits in decimal units: `1.23MB`.
pub(crate) fn size(bytes: u64) -> String {
    size_of_digits(bytes, 3)
}

/// A size with so many significant digits, three or more.
pub(crate) fn size_of_digits(bytes: u64, digits: usize) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = "";
    // What would be rounded to 1000 is one of the next unit.
    let at_most = 1000.0 - 0.5 / 10_f64.powi(i32::try_from(digits).unwrap_or(0) - 3);
    for name in UNITS {
        if value < at_most {
            break;
        }
        (value, unit) = (value / 1000.0, name);
    }
    let places = digits - [10.0, 100.0].iter().filter(|power| value >= **power).count() - 1;
    let number = format!("{value:.places$}");
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number}{unit}")
}

/// A size with four significant digits in binary units: `1.234MiB`.
pub(crate) fn binary_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    let digits = if value < 10.0 { 3 } else { usize::from(value < 100.0) + usize::from(value < 1000.0) };
    let number = format!("{value:.digits$}");
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { &number };
    format!("{number}{}", UNITS[unit])
}

/// How long ago something was: `3 hours ago`.
pub(crate) fn ago(now: i64, then: i64) -> String {
    format!("{} ago", duration(now.saturating_sub(then).max(0)))
}

/// A length of time in its largest unit, as Docker words it.
pub(crate) fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        3600..5400 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// Unix seconds as RFC 3339 in UTC.
pub(crate) fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// Unix seconds as Go prints a time: `2026-01-02 03:04:05 +0000 UTC`, where the user is.
pub(crate) fn go_time(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).map(|time| time.to_zoned(jiff::tz::TimeZone::system()));
    time.map_or_else(|_| seconds.to_string(), |time| time.strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string())
}

/// Unix nanoseconds as RFC 3339 with all digits, where the user is.
pub(crate) fn go_time_ns(nanoseconds: i64) -> String {
    let zone = jiff::tz::TimeZone::system();
    let time = jiff::Timestamp::from_nanosecond(nanoseconds.into()).map(|time| time.to_zoned(zone));
    time.map_or_else(
        |_| nanoseconds.to_string(),
        |time| {
            let text = time.strftime("%Y-%m-%dT%H:%M:%S%.9f%:z").to_string();
            text.strip_suffix("+00:00").map_or_else(|| text.clone(), |utc| format!("{utc}Z"))
        },
    )
}

/// Unix nanoseconds as RFC 3339 in UTC.
pub(crate) fn rfc3339_ns(nanoseconds: i64) -> String {
    jiff::Timestamp::from_nanosecond(nanoseconds.into())
        .map_or_else(|_| nanoseconds.to_string(), |time| time.to_string())
}

/// RFC 3339 as Unix seconds.
pub(crate) fn parse_rfc3339(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_second)
}

/// A text cut to a length, with an ellipsis where something is missing.
pub(crate) fn shorten(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max.saturating_sub(1)).chain(['…']).collect()
}

/// A text in which what would steer a terminal is seen instead: names and commands of images are whoever's made them.
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let steers = |c: char| is_control(c) && !matches!(c, '\n' | '\t');
    if text.contains(steers) {
        return text.chars().map(|c| if steers(c) { picture(c) } else { c }).collect();
    }
    text.into()
}

/// Unicode's picture of a control character, where it has one.
fn picture(c: char) -> char {
    match c {
        '\0'..='\x1f' => char::from_u32(0x2400 + u32::from(c)).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\x7f' => '\u{2421}',
        _ => char::REPLACEMENT_CHARACTER,
    }
}

/// Also the marks that reorder text: with them, a line can look like another.
pub(crate) fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_sizes_have_four_digits() {
        let cases = [(0, "0B"), (1023, "1023B"), (1024, "1KiB"), (1_294_336, "1.234MiB"), (8 << 30, "8GiB")];
        for (bytes, shown) in cases {
            assert_eq!(binary_size(bytes), shown);
        }
    }

    #[test]
    fn what_would_steer_a_terminal_is_seen() {
        let cases = [
            ("plain\tä\n", "plain\tä\n"),
            ("\x1b[31m\r\x7f", "␛[31m␍␡"),
            ("\u{9b}1m\u{202e}", "\u{fffd}1m\u{fffd}"),
        ];
        for (text, shown) in cases {
            assert_eq!(visible(text), shown);
        }
    }

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (12_345, "12.3kB"),
            (123_456, "123kB"),
            (999_999, "1MB"),
            (1_500_000_000, "1.5GB"),
            (100_000, "100kB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size(bytes), expected, "{bytes}");
        }
    }

    #[test]
    fn sizes_have_four_digits_where_there_is_room() {
        let cases = [
            (0, "0B"),
            (999, "999B"),
            (1_984_230, "1.984MB"),
            (4_902_000_000, "4.902GB"),
            (79_710_000, "79.71MB"),
            (536_900_000, "536.9MB"),
            (999_990, "1MB"),
            (999_940, "999.9kB"),
            (800_000, "800kB"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(size_of_digits(bytes, SIZE_DIGITS), expected, "{bytes}");
        }
    }

    #[test]
    fn durations_are_worded_as_docker_does() {
        let cases = [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (180, "3 minutes"),
            (3700, "About an hour"),
            (7200, "2 hours"),
            (172_800, "2 days"),
            (86_400 * 20, "2 weeks"),
            (86_400 * 90, "3 months"),
            (86_400 * 800, "2 years"),
        ];
        for (seconds, expected) in cases {
            assert_eq!(duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn tables_align() {
        let rows = [vec!["A".to_owned(), "LONG".to_owned()], vec!["abc".to_owned(), "x".to_owned()]];
        assert_eq!(table(&rows), "A     LONG\nabc   x\n");
    }

    #[test]
    fn times_round_trip() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(parse_rfc3339("2026-01-02T03:04:05.5Z"), Some(1_767_323_045));
    }
}
