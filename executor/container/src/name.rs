//! Ids and names of containers.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use crate::ContainerError;

const ADJECTIVES: [&str; 24] = [
    "amber", "brisk", "calm", "clever", "coral", "crisp", "eager", "fair", "gentle", "golden", "hardy",
    "jolly", "keen", "lively", "mellow", "nimble", "plain", "quiet", "rapid", "sharp", "steady", "sunny",
    "swift", "vivid",
];
const NOUNS: [&str; 24] = [
    "anvil", "badger", "birch", "bobbin", "cedar", "comet", "crane", "ember", "falcon", "ferry", "finch",
    "harbor", "heron", "lantern", "maple", "meadow", "otter", "pebble", "piston", "quarry", "raven",
    "sparrow", "thistle", "willow",
];

/// An id that no other container has: 64 hex digits of the kernel's randomness.
///
/// # Errors
/// When the kernel gives none.
pub fn generate_id() -> Result<String, ContainerError> {
    Ok(random::<32>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A name that can be pronounced, taken from an id: `nimble_otter_3f`.
pub fn generate_name(id: &str) -> String {
    let number =
        |at: usize| id.get(at..at + 4).and_then(|hex| usize::from_str_radix(hex, 16).ok()).unwrap_or(0);
    let pick = |words: &[&'static str; 24], at: usize| words[number(at) % words.len()];
    format!("{}_{}_{}", pick(&ADJECTIVES, 0), pick(&NOUNS, 4), id.get(8..12).unwrap_or("0"))
}

/// Whether containers can have this name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`, as with Docker.
pub(crate) fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() > 1
        && letters.all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-'))
}

fn random<const N: usize>() -> Result<[u8; N], ContainerError> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; N];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(ContainerError::io("read", path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_names_follow_them() {
        let (a, b) = (generate_id().unwrap(), generate_id().unwrap());
        assert_eq!((a.len(), a == b), (64, false));
        assert_eq!(generate_name("00000000ab12"), "amber_anvil_ab12");
    }
}
