//! `--annotation`: free-form facts on the documents of an image, in BuildKit's spelling.
//!
//! ```text
//! key=value                                   the manifest of every platform
//! index:key=value                             the index
//! manifest[linux/amd64],index:key=value       the manifest of one platform, and the index
//! ```

use std::collections::BTreeMap;

use rbuild_image::Platform;

use crate::report::{Failure, Kind};

/// What an annotation is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Manifest,
    ManifestDescriptor,
    Index,
    IndexDescriptor,
}

/// All annotations of a build.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Annotations(Vec<Annotation>);

#[derive(Debug, PartialEq, Eq)]
struct Annotation {
    place: Place,
    /// Only for this platform.
    platform: Option<Platform>,
    key: String,
    value: String,
}

impl Annotations {
    /// Reads the words of the command line.
    ///
    /// # Errors
    /// When one has no value, or names a place or a platform that does not exist.
    pub(crate) fn parse(words: &[String]) -> Result<Self, Failure> {
        let parsed = words.iter().map(|word| parse(word)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self(parsed.into_iter().flatten().collect()))
    }

    /// The first word that asks for an index, which only an image for several platforms has.
    pub(crate) fn of_index(&self) -> Option<&str> {
        let on_index = |found: &&Annotation| matches!(found.place, Place::Index | Place::IndexDescriptor);
        self.0.iter().find(on_index).map(|found| found.key.as_str())
    }

    pub(crate) fn manifest(&self, platform: &Platform) -> BTreeMap<String, String> {
        self.on(Place::Manifest, Some(platform))
    }

    pub(crate) fn manifest_descriptor(&self, platform: &Platform) -> BTreeMap<String, String> {
        self.on(Place::ManifestDescriptor, Some(platform))
    }

    pub(crate) fn index(&self) -> BTreeMap<String, String> {
        self.on(Place::Index, None)
    }

    pub(crate) fn index_descriptor(&self) -> BTreeMap<String, String> {
        self.on(Place::IndexDescriptor, None)
    }

    fn on(&self, place: Place, platform: Option<&Platform>) -> BTreeMap<String, String> {
        let applies = |found: &&Annotation| {
            found.place == place && (found.platform.is_none() || found.platform.as_ref() == platform)
        };
        self.0.iter().filter(applies).map(|found| (found.key.clone(), found.value.clone())).collect()
    }
}

fn parse(word: &str) -> Result<Vec<Annotation>, Failure> {
    let malformed = |why: &str| Failure::new(Kind::Input, format!("invalid annotation `{word}`: {why}"));
    let (left, value) = word.split_once('=').ok_or_else(|| malformed("expected NAME=VALUE"))?;
    let (places, key) = left.split_once(':').unwrap_or(("manifest", left));
    if key.is_empty() {
        return Err(malformed("it has no name"));
    }
    let annotation = |place: &str| {
        let (name, platform) = match place.split_once('[') {
            Some((name, platform)) => {
                (name, Some(platform.strip_suffix(']').ok_or_else(|| malformed("`]` is missing"))?))
            }
            None => (place, None),
        };
        let platform = platform.map(str::parse).transpose().map_err(|_| malformed("unknown platform"))?;
        let place = place_of(name).ok_or_else(|| malformed(&format!("unknown type `{name}`")))?;
        Ok(Annotation { place, platform, key: key.to_owned(), value: value.to_owned() })
    };
    places.split(',').map(annotation).collect()
}

fn place_of(name: &str) -> Option<Place> {
    match name {
        "manifest" => Some(Place::Manifest),
        "manifest-descriptor" => Some(Place::ManifestDescriptor),
        "index" => Some(Place::Index),
        "index-descriptor" => Some(Place::IndexDescriptor),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn annotations(words: &[&str]) -> Annotations {
        Annotations::parse(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>()).unwrap()
    }

    fn one(key: &str, value: &str) -> BTreeMap<String, String> {
        [(key.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn an_annotation_is_on_the_manifest_unless_it_says_otherwise() {
        let (amd64, arm64) = ("linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap());
        let plain = annotations(&["a=b=c", "manifest:org.x:y=1"]);
        assert_eq!(
            plain.manifest(&amd64),
            [one("a", "b=c"), one("org.x:y", "1")].into_iter().flatten().collect()
        );
        let placed = annotations(&[
            "manifest[linux/arm64],index:a=b",
            "manifest-descriptor:c=d",
            "index-descriptor:e=f",
        ]);
        assert_eq!(placed.manifest(&amd64), BTreeMap::new());
        assert_eq!(placed.manifest(&arm64), one("a", "b"));
        assert_eq!(placed.manifest_descriptor(&amd64), one("c", "d"));
        assert_eq!((placed.index(), placed.index_descriptor()), (one("a", "b"), one("e", "f")));
        assert_eq!((plain.of_index(), placed.of_index()), (None, Some("a")));
    }

    #[test]
    fn malformed_ones_are_refused() {
        for word in [
            "a",
            "=b",
            "index:=b",
            "manifest[no/such/place/at/all]:a=b",
            "manifest[linux/amd64:a=b",
            "manifest,nosuch:a=b",
            "manifset:a=b",
        ] {
            assert!(Annotations::parse(&[word.to_owned()]).is_err(), "{word}");
        }
    }
}
