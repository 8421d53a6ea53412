//! Mirrors: places that have what a registry has, and are asked before it.
//!
//! What comes from a mirror is checked as what comes from the registry. A tag is as good as the mirror's word for it, as a
//! tag always is as good as the word of whoever is asked. What is pushed goes to the registry itself.

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
    /// What a reference is called there, whose name begins with `prefix`.
    fn name(&self, reference: &Reference, prefix: &str) -> Option<Reference> {
        let whole = reference.to_string();
        let applies = reference.digest().is_some() || !self.by_digest_only;
        let rest = whole.strip_prefix(prefix).filter(|_| applies)?;
        format!("{}{rest}", self.location).parse().ok()
    }
}

/// The longest of these that a reference's name begins with: `docker.io/library` precedes `docker.io`.
pub(crate) fn prefix_of<'a>(
    prefixes: impl IntoIterator<Item = &'a String>,
    reference: &Reference,
) -> Option<&'a String> {
    let name = format!("{}/{}", reference.registry(), reference.repository());
    let begins =
        |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    prefixes.into_iter().filter(|prefix| begins(prefix)).max_by_key(|prefix| prefix.len())
}

fn names(options: &ClientOptions, reference: &Reference) -> Vec<Reference> {
    let Some(prefix) = prefix_of(options.mirrors.keys(), reference) else { return Vec::new() };
    options.mirrors[prefix].iter().filter_map(|mirror| mirror.name(reference, prefix)).collect()
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
        pull(reference).await
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
            ("other.example/app:1", vec![]),
        ];
        for (name, expected) in cases {
            let found = names(&options, &name.parse().unwrap());
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), expected, "{name}");
        }
    }
}
