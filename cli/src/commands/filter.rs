//! `--filter` of the commands that show and remove what is stored, and the sizes and times in them.

use std::collections::BTreeMap;

use rbuild_cache::prune::{Item, ItemKind, SpaceLimits};
use rbuild_frontend::parse_size_bytes;

use super::FAILED;
use crate::app::unix_now_ns;
use crate::args::SpaceArgs;
use crate::format::parse_rfc3339;
use crate::report::{Failure, Kind};

const NS_PER_SECOND: i64 = 1_000_000_000;

/// The filters of commands with Docker's words, which look at when a thing was made and at its labels.
#[derive(Debug, Default)]
pub(crate) struct ObjectFilters {
    /// Only what was made before then, Unix seconds.
    pub(crate) created_before: Option<i64>,
    labels: Vec<LabelRule>,
}

#[derive(Debug)]
struct LabelRule {
    name: String,
    value: Option<String>,
    negated: bool,
}

impl ObjectFilters {
    /// What was made before a time, Unix seconds.
    pub(crate) fn made_before(created_before: Option<i64>) -> Self {
        Self { created_before, labels: Vec::new() }
    }

    /// Reads filters, at a time in Unix seconds.
    ///
    /// # Errors
    /// When one is none.
    pub(crate) fn parse(texts: &[String], now: i64) -> Result<Self, Failure> {
        let mut filters = Self::default();
        for text in texts {
            let malformed = || invalid(text);
            if let Some(age) = text.strip_prefix("until=") {
                let before = age_limit(age, now).ok_or_else(malformed)?;
                filters.created_before =
                    Some(filters.created_before.map_or(before, |other| other.min(before)));
            } else {
                filters.labels.push(LabelRule::parse(text).ok_or_else(malformed)?);
            }
        }
        Ok(filters)
    }

    /// Whether a thing is meant.
    pub(crate) fn selects(&self, created: i64, labels: &BTreeMap<String, String>) -> bool {
        self.created_before.is_none_or(|before| created < before)
            && self.labels.iter().all(|rule| rule.is_met(labels))
    }

    /// Whether labels are asked for, which what is cached has none of.
    pub(crate) fn names_labels(&self) -> bool {
        !self.labels.is_empty()
    }
}

/// A filter that is none, in Docker's words.
pub(crate) fn invalid(text: &str) -> Failure {
    Failure::new(FAILED, format!("invalid filter '{text}'"))
}

/// The value of `dangling=`.
///
/// # Errors
/// When it is none.
pub(crate) fn dangling(value: &str) -> Result<bool, Failure> {
    match value {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(invalid(&format!("dangling={other}"))),
    }
}

impl LabelRule {
    fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("label")?;
        let (label, negated) = match rest.strip_prefix("!=") {
            Some(label) => (label, true),
            None => (rest.strip_prefix('=')?, false),
        };
        let (name, value) = label.split_once('=').map_or((label, None), |(name, value)| (name, Some(value)));
        (!name.is_empty()).then(|| Self { name: name.to_owned(), value: value.map(str::to_owned), negated })
    }

    fn is_met(&self, labels: &BTreeMap<String, String>) -> bool {
        let found = labels.get(&self.name);
        let has = found.is_some_and(|found| self.value.as_ref().is_none_or(|value| found == value));
        has != self.negated
    }
}

/// What all filters of a command line ask for together.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    /// Only what was not used since then, Unix seconds.
    pub(crate) unused_since: Option<i64>,
    rules: Vec<Rule>,
}

/// One filter.
#[derive(Debug)]
struct Rule {
    property: Property,
    /// Whether it is met by what does not have the property.
    negated: bool,
}

#[derive(Debug)]
enum Property {
    Id(String),
    Description(String),
    Type(Vec<ItemKind>),
    InUse,
    Shared,
    Private,
}

/// The types as they are shown, in BuildKit's words where it has them.
const TYPES: [(ItemKind, &str); 6] = [
    (ItemKind::Step, "regular"),
    (ItemKind::Source, "source"),
    (ItemKind::CacheMount, "exec.cachemount"),
    (ItemKind::GitMirror, "source.git"),
    (ItemKind::Leftover, "internal"),
    (ItemKind::Image, "image"),
];

/// The word for a kind.
pub(crate) fn type_name(kind: ItemKind) -> &'static str {
    TYPES.iter().find(|(known, _)| *known == kind).map_or("", |(_, name)| name)
}

impl Filters {
    /// Reads filters, at a time in Unix seconds.
    ///
    /// # Errors
    /// When one is none.
    pub(crate) fn parse(texts: &[String], now: i64) -> Result<Self, Failure> {
        let mut filters = Self::default();
        for text in texts.iter().flat_map(|text| text.split(',')) {
            match text.split_once('=') {
                Some(("until" | "unused-for", age)) => {
                    let since = age_limit(age, now).ok_or_else(|| malformed(text))?;
                    filters.unused_since = Some(filters.unused_since.map_or(since, |other| other.min(since)));
                }
                _ => filters.rules.push(Rule::parse(text).ok_or_else(|| malformed(text))?),
            }
        }
        Ok(filters)
    }

    /// Whether an item is meant, as far as that does not depend on its age.
    pub(crate) fn selects(&self, item: &Item) -> bool {
        self.rules.iter().all(|rule| rule.property.is_of(item) != rule.negated)
    }

    /// Whether images are asked for by their type.
    pub(crate) fn names_images(&self) -> bool {
        self.rules.iter().any(|rule| {
            !rule.negated
                && matches!(&rule.property, Property::Type(kinds) if kinds.contains(&ItemKind::Image))
        })
    }

    /// Whether there is any other filter than of age.
    pub(crate) fn has_rules(&self) -> bool {
        !self.rules.is_empty()
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let (text, negated) = match text.split_once("!=") {
            Some((name, value)) => (format!("{name}={value}"), true),
            None => (text.to_owned(), false),
        };
        let property = match text.split_once('=') {
            Some(("id", id)) => Property::Id(id.to_owned()),
            Some(("description", text)) => Property::Description(text.to_owned()),
            Some(("type", name)) => Property::Type(kinds(name)?),
            Some(_) => return None,
            None => match text.as_str() {
                "inuse" => Property::InUse,
                "shared" => Property::Shared,
                "private" => Property::Private,
                _ => return None,
            },
        };
        Some(Self { property, negated })
    }
}

impl Property {
    fn is_of(&self, item: &Item) -> bool {
        match self {
            Self::Id(id) => !id.is_empty() && item.id.starts_with(id.as_str()),
            Self::Description(text) => item.description == *text,
            Self::Type(kinds) => kinds.contains(&item.kind),
            Self::InUse => !item.is_reclaimable(),
            Self::Shared => item.shared_bytes > 0,
            Self::Private => item.shared_bytes == 0,
        }
    }
}

/// The kinds that a word stands for: BuildKit's, or a plainer one.
fn kinds(name: &str) -> Option<Vec<ItemKind>> {
    let kinds = match name {
        "step" => vec![ItemKind::Step],
        "cache-mount" => vec![ItemKind::CacheMount],
        "git" | "source.git.checkout" => vec![ItemKind::GitMirror],
        "source" => vec![ItemKind::Source, ItemKind::GitMirror],
        name => TYPES.iter().filter(|(_, known)| *known == name).map(|(kind, _)| *kind).collect(),
    };
    (!kinds.is_empty()).then_some(kinds)
}

fn malformed(text: &str) -> Failure {
    Failure::new(Kind::Input, format!("invalid filter `{text}`")).hint(
        "filters are until=24h, unused-for=1h, type=step, id=ID, description=TEXT, inuse, shared, private",
    )
}

/// The Unix time that is so long ago; a time is also taken as it is.
pub(crate) fn age_limit(text: &str, now: i64) -> Option<i64> {
    duration_seconds(text).map(|seconds| now.saturating_sub(seconds)).or_else(|| parse_rfc3339(text))
}

/// A time, or how long ago it was, in Unix nanoseconds.
///
/// # Errors
/// When it is neither.
pub(crate) fn time_ns(text: &str) -> Result<i64, Failure> {
    let seconds = |text: &str| text.parse::<i64>().ok().map(|seconds| seconds.saturating_mul(NS_PER_SECOND));
    let ago = |seconds: i64| unix_now_ns().saturating_sub(seconds.saturating_mul(NS_PER_SECOND));
    let exact = |time: jiff::Timestamp| i64::try_from(time.as_nanosecond()).ok();
    seconds(text)
        .or_else(|| duration_seconds(text).map(ago))
        .or_else(|| text.parse().ok().and_then(exact))
        .ok_or_else(|| Failure::new(FAILED, format!("invalid value for a time: `{text}`")))
}

/// `1h30m`, `7d`, `90s`, in seconds.
fn duration_seconds(text: &str) -> Option<i64> {
    let mut total: i64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).filter(|digits| *digits > 0)?;
        let (number, unit) = rest.split_at(digits);
        let seconds = match unit.as_bytes()[0] {
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 24 * 3600,
            b'w' => 7 * 24 * 3600,
            _ => return None,
        };
        total = total.checked_add(number.parse::<i64>().ok()?.checked_mul(seconds)?)?;
        rest = &unit[1..];
    }
    (!text.is_empty()).then_some(total)
}

/// The limits that a prune is to stop at; `None` when it is to remove all.
///
/// # Errors
/// When a size is none.
pub(crate) fn space_limits(args: &SpaceArgs) -> Result<Option<SpaceLimits>, Failure> {
    let size = |flag: &str, text: &Option<String>| {
        let malformed = |text: &String| {
            let message = format!("invalid {flag} `{text}` (expected 500mb, 10gb)");
            move || Failure::new(Kind::Input, message)
        };
        text.as_ref().map(|text| parse_size_bytes(text).ok_or_else(malformed(text))).transpose()
    };
    let reserved_bytes = size("--reserved-space", &args.reserved_space)?;
    let max_used_bytes = size("--max-used-space", &args.max_used_space)?;
    let min_free_bytes = size("--min-free-space", &args.min_free_space)?;
    let is_limited = [reserved_bytes, max_used_bytes, min_free_bytes].iter().any(Option::is_some);
    let limits =
        SpaceLimits { max_used_bytes, min_free_bytes, reserved_bytes: reserved_bytes.unwrap_or_default() };
    Ok(is_limited.then_some(limits))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(kind: ItemKind) -> Item {
        Item {
            kind,
            id: "abc123".into(),
            description: "RUN make".into(),
            created: 0,
            last_used: 0,
            private_bytes: 5,
            shared_bytes: 0,
            users: vec!["app".into()],
            in_use: false,
        }
    }

    #[test]
    fn filters_select() {
        let cases = [
            ("type=step", true),
            ("type=regular", true),
            ("type!=regular", false),
            ("type=source", false),
            ("type=exec.cachemount", false),
            ("id=abc", true),
            ("id!=abc", false),
            ("description=RUN make", true),
            ("inuse", true),
            ("shared", false),
            ("private,type=step", true),
            ("private,type=image", false),
        ];
        for (text, expected) in cases {
            let filters = Filters::parse(&[text.to_owned()], 0).unwrap();
            assert_eq!(filters.selects(&item(ItemKind::Step)), expected, "{text}");
        }
        for text in ["", "type=", "type=x", "until=x", "nosuch=1", "nosuch", "until="] {
            assert!(Filters::parse(&[text.to_owned()], 0).is_err(), "{text}");
        }
    }

    #[test]
    fn objects_are_selected_by_age_and_label() {
        let labels = BTreeMap::from([("env".to_owned(), "ci".to_owned())]);
        let cases: [(&[&str], bool); 9] = [
            (&[], true),
            (&["label=env"], true),
            (&["label=env=ci"], true),
            (&["label=env=prod"], false),
            (&["label!=env=prod"], true),
            (&["label!=env"], false),
            (&["label=env", "label=team"], false),
            (&["label=env", "until=10s"], true),
            (&["until=11s"], false),
        ];
        for (texts, expected) in cases {
            let texts: Vec<String> = texts.iter().map(ToString::to_string).collect();
            let filters = ObjectFilters::parse(&texts, 100).unwrap();
            assert_eq!(filters.selects(89, &labels), expected, "{texts:?}");
        }
        for text in ["", "label", "label=", "label!", "type=step", "until=x"] {
            assert!(ObjectFilters::parse(&[text.to_owned()], 0).is_err(), "{text}");
        }
    }

    #[test]
    fn ages_are_durations_or_times() {
        let cases = [
            ("24h", Some(1_000_000 - 86_400)),
            ("1h30m", Some(1_000_000 - 5_400)),
            ("2d", Some(1_000_000 - 172_800)),
            ("1w1s", Some(1_000_000 - 604_801)),
            ("1970-01-02T00:00:00Z", Some(86_400)),
            ("24", None),
            ("h", None),
            ("", None),
            ("-1h", None),
            ("99999999999999999999h", None),
        ];
        for (text, expected) in cases {
            assert_eq!(age_limit(text, 1_000_000), expected, "{text}");
        }
    }
}
