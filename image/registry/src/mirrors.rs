//! Mirrors: places that have what a registry has, and are asked before it; and registries that have moved, of which the new place is
//! asked in their stead.
//!
//! What comes from a mirror is checked as what comes from the registry. A tag is as good as the mirror's word for it, as a
//! tag always is as good as the word of whoever is asked. What is pushed goes to the registry itself.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use rbuild_image::Reference;

use crate::error::Error;
use crate::session::Session;
use crate::{ClientOptions, Result};

/// Another place for the repositories of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// `host[:port][/path]`, which stands for the registry, or for the part of its names that the mirror is for.
    pub location: String,
    /// Whether it is only asked for what is named by its digest.
    pub by_digest_only: bool,
}

impl Mirror {
    fn applies(&self, reference: &Reference) -> bool {
        reference.digest().is_some() || !self.by_digest_only
    }
}

/// The settings for a reference: those under the longest of the prefixes that its name begins with (`docker.io/library` precedes
/// `docker.io`), and what it is called elsewhere.
struct Found<'a, T> {
    settings: &'a T,
    whole: String,
    matched: usize,
}

impl<T> Found<'_, T> {
    fn name_at(&self, location: &str) -> Option<Reference> {
        format!("{location}{}", &self.whole[self.matched..]).parse().ok()
    }
}

fn find<'a, T>(settings: &'a BTreeMap<String, T>, reference: &Reference) -> Option<Found<'a, T>> {
    let name = repository(reference);
    let matching =
        settings.iter().filter_map(|(prefix, found)| Some((prefix, found, matched(prefix, &name)?)));
    let (_, settings, matched) = matching.max_by_key(|(prefix, ..)| prefix.len())?;
    Some(Found { settings, whole: reference.to_string(), matched })
}

/// `registry/repository`, with which a whole reference begins.
fn repository(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

/// How much of a name a prefix stands for: `docker.io/library` for itself, `*.example.com` for any host below that domain.
fn matched(prefix: &str, name: &str) -> Option<usize> {
    let end = match prefix.strip_prefix('*') {
        Some(suffix) => {
            let start = name.find(suffix).filter(|start| !name[..*start].contains('/'))?;
            start + suffix.len()
        }
        None => name.starts_with(prefix).then_some(prefix.len())?,
    };
    matches!(name.as_bytes().get(end), None | Some(b'/')).then_some(end)
}

/// Whether nothing is to be had from the place of a reference, nor sent to it.
pub(crate) fn is_blocked(options: &ClientOptions, reference: &Reference) -> bool {
    let name = repository(reference);
    options.blocked.iter().any(|prefix| matched(prefix, &name).is_some())
}

fn names(options: &ClientOptions, reference: &Reference) -> Vec<Reference> {
    let Some(found) = find(&options.mirrors, reference) else { return Vec::new() };
    let mirrors = found.settings.iter().filter(|mirror| mirror.applies(reference));
    mirrors.filter_map(|mirror| found.name_at(&mirror.location)).collect()
}

/// What is asked for in the end.
fn home(options: &ClientOptions, reference: &Reference) -> Reference {
    let found = find(&options.moved, reference);
    found.and_then(|found| found.name_at(found.settings)).unwrap_or_else(|| reference.clone())
}

impl Session {
    /// Has `pull` try each mirror of a reference, and then its registry.
    ///
    /// A mirror that lacks something is passed over. One that fails otherwise is not asked again, and the user is told.
    pub(crate) async fn anywhere<T>(
        &self,
        reference: &Reference,
        mut pull: impl AsyncFnMut(&Reference) -> Result<T>,
    ) -> Result<T> {
        for mirror in names(&self.transport.options, reference) {
            if self.has_failed(mirror.registry()) {
                continue;
            }
            match pull(&mirror).await {
                Err(Error::Cancelled) => return Err(Error::Cancelled),
                Err(error) if error.is_not_found() => {}
                Err(error) => self.give_up(&mirror, &error),
                found => return found,
            }
        }
        pull(&home(&self.transport.options, reference)).await
    }

    fn has_failed(&self, mirror: &str) -> bool {
        self.failed_mirrors.lock().unwrap_or_else(PoisonError::into_inner).contains(mirror)
    }

    fn give_up(&self, mirror: &Reference, error: &Error) {
        let registry = mirror.registry();
        let mut failed = self.failed_mirrors.lock().unwrap_or_else(PoisonError::into_inner);
        if failed.insert(registry.to_owned())
            && let Some(sink) = &self.transport.options.warnings
        {
            sink(registry, &format!("this mirror is not asked any more: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_mirrored_by_their_longest_prefix() {
        let mirror =
            |location: &str, by_digest_only| Mirror { location: location.to_owned(), by_digest_only };
        let options = ClientOptions {
            mirrors: [
                ("docker.io", vec![mirror("mirror.example", false), mirror("pinned.example:5000/hub", true)]),
                ("docker.io/library", vec![mirror("base.example/debs", false)]),
                ("*.corp.example", vec![mirror("near.example/corp", false)]),
            ]
            .map(|(prefix, mirrors)| (prefix.to_owned(), mirrors))
            .into(),
            ..ClientOptions::default()
        };
        let digest = format!("sha256:{}", "a".repeat(64));
        let pinned = format!("docker.io/team/app@{digest}");
        let cases = [
            ("docker.io/library/debian:12", vec!["base.example/debs/debian:12".to_owned()]),
            ("docker.io/team/app:1", vec!["mirror.example/team/app:1".to_owned()]),
            (
                pinned.as_str(),
                vec![
                    format!("mirror.example/team/app@{digest}"),
                    format!("pinned.example:5000/hub/team/app@{digest}"),
                ],
            ),
            ("docker.io/library-of/app:1", vec!["mirror.example/library-of/app:1".to_owned()]),
            ("a.b.corp.example/app:1", vec!["near.example/corp/app:1".to_owned()]),
            ("corp.example/app:1", vec![]),
            ("other.example/x.corp.example/app:1", vec![]),
            ("other.example/app:1", vec![]),
        ];
        for (name, expected) in cases {
            let found = names(&options, &name.parse().unwrap());
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{name}");
        }
    }

    #[test]
    fn what_has_moved_is_asked_for_where_it_is() {
        let moved = [("old.example/team", "new.example:5000/team"), ("*.old.example", "new.example")];
        let options = ClientOptions {
            moved: moved.map(|(from, to)| (from.to_owned(), to.to_owned())).into(),
            ..ClientOptions::default()
        };
        let cases = [
            ("old.example/team/app:1", "new.example:5000/team/app:1"),
            ("eu.old.example/app:1", "new.example/app:1"),
            ("old.example/teams/app:1", "old.example/teams/app:1"),
        ];
        for (name, expected) in cases {
            assert_eq!(home(&options, &name.parse().unwrap()).to_string(), expected);
        }
    }
}
