//! "Did you mean": the nearest of some names.

/// Further away than this is another word, not a typing error.
const DISTANCE_MAX: usize = 2;

/// The nearest name, if one is near and none is equal. Case counts.
pub(crate) fn nearest<'a>(found: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for name in names {
        if name == found {
            return None;
        }
        let distance = distance(found, name);
        if distance <= DISTANCE_MAX && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, name));
        }
    }
    best.map(|(_, name)| name.to_owned())
}

/// As [`nearest`], but case does not count; the answer is in lower case if what was found is, and in upper otherwise.
pub(crate) fn nearest_in_any_case<'a>(
    found: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let names: Vec<String> = names.into_iter().map(str::to_ascii_lowercase).collect();
    let lower = found.to_ascii_lowercase();
    let name = nearest(&lower, names.iter().map(String::as_str))?;
    Some(if found == lower { name } else { name.to_ascii_uppercase() })
}

/// Levenshtein's distance, in one row. Words whose lengths differ too much are not compared.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let length = left.chars().count();
    if length.abs_diff(right.len()) > DISTANCE_MAX {
        return DISTANCE_MAX + 1;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, character) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(character != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found() {
        let names = ["target", "type", "source"];
        assert_eq!(nearest("traget", names).as_deref(), Some("target"));
        assert_eq!(nearest("typ", names).as_deref(), Some("type"));
        assert_eq!(nearest("type", names), None);
        assert_eq!(nearest("elsewhere", names), None);
        assert_eq!(nearest_in_any_case("CPOY", ["copy", "cmd"]).as_deref(), Some("COPY"));
        assert_eq!(nearest_in_any_case("rnu", ["RUN"]).as_deref(), Some("run"));
    }
}
