//! Attestations: what is said of an image beside it, in the form in which BuildKit keeps it.
//!
//! An index names them among its images: each is a manifest for the platform `unknown/unknown`, whose annotations say which image
//! it is of, and whose layers are in-toto statements. What is said is said of a manifest, by its digest.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Descriptor, Digest, Index, Platform, Reference};

/// In an index: what an entry is that is no image.
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const ATTESTATION: &str = "attestation-manifest";
/// In an index: the manifest that an entry is about.
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
/// On a layer: what its statement says of its subjects.
pub const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
const STATEMENT: &str = "https://in-toto.io/Statement/v0.1";
const SHA256: &str = "sha256";

impl Descriptor {
    /// The manifest that this entry of an index attests; `None` of an image.
    pub fn attests(&self) -> Option<Digest> {
        self.annotations.get(REFERENCE_TYPE).filter(|kind| *kind == ATTESTATION)?;
        self.annotations.get(REFERENCE_DIGEST)?.parse().ok()
    }

    /// The same as the entry of an index that attests a manifest.
    #[must_use]
    pub fn attesting(self, manifest: Digest) -> Self {
        let said = [(REFERENCE_TYPE, ATTESTATION.to_owned()), (REFERENCE_DIGEST, manifest.to_string())];
        let annotations = said.map(|(key, value)| (key.to_owned(), value)).into();
        Self { platform: Some(Platform::new("unknown", "unknown", None)), annotations, ..self }
    }
}

impl Index {
    /// Its entries but those that attest others.
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|entry| entry.attests().is_none())
    }
}

/// An in-toto statement: something that is said of things that are named by their digests.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// The version of its form.
    #[serde(rename = "_type")]
    pub kind: String,
    /// What is said: the name of the predicate's form.
    #[serde(rename = "predicateType")]
    pub predicate_type: String,
    /// What it is said of.
    #[serde(default, deserialize_with = "crate::config::null_is_default")]
    pub subject: Vec<Subject>,
    /// What is said.
    pub predicate: Value,
}

/// What something is said of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its name; `_` for something that has none.
    pub name: String,
    /// Its digests, by algorithm.
    pub digest: BTreeMap<String, String>,
}

impl Subject {
    /// The manifest of this digest.
    pub fn new(name: String, manifest: Digest) -> Self {
        Self { name, digest: [(SHA256.to_owned(), manifest.hex())].into() }
    }
}

impl Statement {
    /// Says something of `subject`.
    pub fn new(predicate_type: String, subject: Vec<Subject>, predicate: Value) -> Self {
        Self { kind: STATEMENT.to_owned(), predicate_type, subject, predicate }
    }

    /// Says of one manifest what was said of another.
    pub fn move_to(&mut self, before: Digest, now: Digest) {
        for subject in &mut self.subject {
            let found = subject.digest.get_mut(SHA256).filter(|found| **found == before.hex());
            found.into_iter().for_each(|found| *found = now.hex());
        }
    }
}

/// An image as package URLs name it: `pkg:docker/team/app@1?platform=linux%2Famd64`.
pub fn package_url(reference: &Reference, platform: &Platform) -> String {
    let version = reference.tag().map(|tag| format!("@{tag}")).unwrap_or_default();
    let digest = reference.digest().map(|digest| format!("digest={digest}&")).unwrap_or_default();
    let platform = platform.to_string().replace('/', "%2F");
    format!("pkg:docker/{}{version}?{digest}platform={platform}", reference.familiar_name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MediaType;

    #[test]
    fn an_entry_says_what_it_attests() {
        let image = Descriptor::of(MediaType::OciManifest, b"image");
        let entry = Descriptor::of(MediaType::OciManifest, b"said").attesting(image.digest);
        assert_eq!((image.attests(), entry.attests()), (None, Some(image.digest)));
        assert_eq!(entry.platform.as_ref().unwrap().to_string(), "unknown/unknown");
        let index = Index::new(vec![image.clone(), entry]);
        assert_eq!(index.images().collect::<Vec<_>>(), [&image]);
        let other =
            Descriptor { annotations: [(REFERENCE_TYPE.to_owned(), "signature".to_owned())].into(), ..image };
        assert_eq!(other.attests(), None);
    }

    #[test]
    fn a_statement_moves_with_its_manifest() {
        let [before, now, other] = [b"1", b"2", b"3"].map(Digest::of);
        let subjects = [before, other].map(|digest| Subject::new("_".into(), digest)).to_vec();
        let mut statement = Statement::new("test".into(), subjects, Value::Null);
        statement.move_to(before, now);
        let digests: Vec<_> =
            statement.subject.iter().map(|subject| subject.digest[SHA256].clone()).collect();
        assert_eq!(digests, [now.hex(), other.hex()]);
    }

    #[test]
    fn images_have_package_urls() {
        let cases = [
            ("busybox", "pkg:docker/busybox@latest?platform=linux%2Famd64"),
            ("127.0.0.1:5000/team/app:1", "pkg:docker/127.0.0.1:5000/team/app@1?platform=linux%2Famd64"),
        ];
        for (name, url) in cases {
            assert_eq!(package_url(&name.parse().unwrap(), &Platform::new("linux", "amd64", None)), url);
        }
    }
}
