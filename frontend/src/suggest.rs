//! "Did you mean": the nearest of some names.

/// Further away than this is another word, not a typing error.
const DISTANCE_MAX: usize = 2;

/// The nearest name, if one is near and none is equal. Case counts. What shares no letter is not near.
pub(crate) fn nearest<'a>(found: &str, names: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let length = found.chars().count();
    let mut best: Option<(usize, &str)> = None;
    for name in names {
        if name == found {
            return None;
        }
        let distance = distance(found, name);
        if distance <= DISTANCE_MAX && distance < length && best.is_none_or(|(least, _)| distance < least) {
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

/// How many letters are to be added, dropped, changed, or swapped with their neighbour (optimal string alignment).
/// Words whose lengths differ too much are not compared.
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    if left.len().abs_diff(right.len()) > DISTANCE_MAX {
        return DISTANCE_MAX + 1;
    }
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, character) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let changed = last[column] + usize::from(character != other);
            let mut least = changed.min(last[column + 1] + 1).min(current[column] + 1);
            let is_swap = row > 0 && column > 0 && left[row - 1] == *other && right[column - 1] == *character;
            if is_swap {
                least = least.min(before_last[column - 1] + 1);
            }
            current.push(least);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[right.len()]
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
        assert_eq!(nearest("0", ["a"]), None);
        assert_eq!(nearest_in_any_case("CPOY", ["copy", "cmd"]).as_deref(), Some("COPY"));
        assert_eq!(nearest("RNU", ["ENV", "RUN"]).as_deref(), Some("RUN"));
        assert_eq!(nearest_in_any_case("rnu", ["RUN"]).as_deref(), Some("run"));
    }
}
