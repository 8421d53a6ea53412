//! From a reference to a manifest: by tag or digest, and through an index to a platform.

use std::fmt;

use rbuild_image::{
    Descriptor, Digest, Index, MANIFEST_SIZE_BYTES_MAX, Manifest, MediaType, Platform, Reference,
};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::session::{Session, Target};
use crate::transport::{Answer, Call, read_document};
use crate::{Error, Result, ShownUrl};

/// What we can make an image of. Registries convert, or refuse, by this list.
const ACCEPTED: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";
/// An image config is its history and labels; nobody comes near this.
const CONFIG_SIZE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// An index in an index is allowed and unheard of.
const INDEX_DEPTH_MAX: usize = 3;
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// A document of a registry: its name and its bytes, which fit each other.
#[derive(Clone, PartialEq, Eq)]
pub struct Resolved {
    /// Names the document.
    pub descriptor: Descriptor,
    /// The document as stored. Its digest is over these bytes, so they are never written anew.
    pub bytes: Vec<u8>,
}

impl fmt::Debug for Resolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolved").field("descriptor", &self.descriptor).finish_non_exhaustive()
    }
}

/// An image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedImage {
    /// The index that the reference names, unless it names a manifest.
    pub index: Option<Resolved>,
    /// The manifest, as stored.
    pub manifest: Resolved,
    /// The manifest, as read.
    pub parsed: Manifest,
    /// The config, as stored.
    pub config: Resolved,
}

impl Session {
    pub(crate) async fn resolve(&self, reference: &Reference) -> Result<Resolved> {
        self.anywhere(reference, async |place| {
            let target = self.target(place, "pull").await?;
            self.manifest(&target, place).await
        })
        .await
    }

    pub(crate) async fn resolve_platform(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<ResolvedImage> {
        self.anywhere(reference, async |place| self.resolve_platform_at(place, platform).await).await
    }

    async fn resolve_platform_at(&self, reference: &Reference, platform: &Platform) -> Result<ResolvedImage> {
        let target = self.target(reference, "pull").await?;
        let mut manifest = self.manifest(&target, reference).await?;
        let mut index = None;
        for _ in 0..INDEX_DEPTH_MAX {
            if !manifest.descriptor.media_type.is_index() {
                break;
            }
            let entry = select(reference, &manifest, platform)?;
            let entry_manifest = self.manifest(&target, &reference.with_digest(entry.digest)).await?;
            check_size(&target.url(&format!("manifests/{}", entry.digest))?, &entry, &entry_manifest)?;
            index.get_or_insert(std::mem::replace(&mut manifest, entry_manifest));
        }
        if manifest.descriptor.media_type.is_index() {
            return Err(Error::NestedIndex {
                reference: Box::new(reference.clone()),
                depth_max: INDEX_DEPTH_MAX,
            });
        }
        let parsed = Manifest::parse(&manifest.bytes)
            .map_err(|source| Error::Manifest { reference: Box::new(reference.clone()), source })?;
        let config = self.small_blob(&target, &parsed.config).await?;
        Ok(ResolvedImage { index, manifest, parsed, config })
    }

    pub(crate) async fn head(&self, reference: &Reference) -> Result<Option<Descriptor>> {
        match self.anywhere(reference, async |place| self.head_at(place).await).await {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(Some),
        }
    }

    async fn head_at(&self, reference: &Reference) -> Result<Descriptor> {
        let target = self.target(reference, "pull").await?;
        let url = target.url(&format!("manifests/{}", selector(reference)))?;
        let call = || Call::new(Method::HEAD, url.clone()).header(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let answer = self.request_with_retries(&target, &[200], call).await?;
        match described(reference, &answer) {
            Some(descriptor) => Ok(descriptor),
            // Some registries say too little; then only the document itself tells.
            None => Ok(self.manifest(&target, reference).await?.descriptor),
        }
    }

    /// Fetches and checks the manifest or index that a reference names.
    async fn manifest(&self, target: &Target, reference: &Reference) -> Result<Resolved> {
        let url = target.url(&format!("manifests/{}", selector(reference)))?;
        let call = || Call::new(Method::GET, url.clone()).header(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let shown = ShownUrl::of(&url);
        let (stated, header_type, bytes) = self
            .transport
            .retry(async || {
                let answer = self.request(target, &[200], call).await?;
                let facts = (stated_digest(&answer), content_type(&answer));
                Ok((facts.0, facts.1, read_document(answer, &shown, MANIFEST_SIZE_BYTES_MAX).await?))
            })
            .await?;
        let found = Digest::of(&bytes);
        match reference.digest().or(stated) {
            Some(expected) if expected != found => Err(Error::DigestMismatch { url: shown, expected, found }),
            _ => {
                let media_type = media_type_of(reference, header_type, &bytes)?;
                Ok(Resolved { descriptor: Descriptor::new(media_type, found, bytes.len() as u64), bytes })
            }
        }
    }

    async fn small_blob(&self, target: &Target, descriptor: &Descriptor) -> Result<Resolved> {
        let url = target.url(&format!("blobs/{}", descriptor.digest))?;
        let shown = ShownUrl::of(&url);
        if descriptor.size_bytes > CONFIG_SIZE_BYTES_MAX {
            return Err(Error::TooLarge { url: shown, limit_bytes: CONFIG_SIZE_BYTES_MAX });
        }
        let bytes = self
            .transport
            .retry(async || {
                let answer = self.request(target, &[200], || Call::new(Method::GET, url.clone())).await?;
                read_document(answer, &shown, descriptor.size_bytes).await
            })
            .await?;
        let blob = Resolved { descriptor: descriptor.clone(), bytes };
        check_size(&url, descriptor, &blob)?;
        match Digest::of(&blob.bytes) {
            found if found == descriptor.digest => Ok(blob),
            found => Err(Error::DigestMismatch { url: shown, expected: descriptor.digest, found }),
        }
    }
}

/// What stands for a reference in an address: its digest, or its tag.
pub(crate) fn selector(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    }
}

/// The digest that the registry states, unless it is of an algorithm we cannot check.
pub(crate) fn stated_digest(answer: &Answer) -> Option<Digest> {
    answer.text(&CONTENT_DIGEST).and_then(|text| text.parse().ok())
}

/// The type without its parameters.
fn content_type(answer: &Answer) -> Option<String> {
    let text = answer.text(&CONTENT_TYPE)?;
    Some(text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase())
}

/// The descriptor that the headers of a manifest amount to.
fn described(reference: &Reference, answer: &Answer) -> Option<Descriptor> {
    let digest = reference.digest().or_else(|| stated_digest(answer))?;
    let media_type = MediaType::from(content_type(answer)?.as_str());
    // The length that the library knows is that of the body, which a HEAD does not have.
    let size_bytes = answer.text(&CONTENT_LENGTH)?.parse().ok()?;
    is_image(&media_type).then(|| Descriptor::new(media_type, digest, size_bytes))
}

const fn is_image(media_type: &MediaType) -> bool {
    media_type.is_index() || media_type.is_manifest()
}

/// The parts of a document that tell a manifest from an index.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Outline {
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
}

/// What a document is: what it says itself, or else its header. They must agree, and with what is in it.
fn media_type_of(reference: &Reference, header: Option<String>, bytes: &[u8]) -> Result<MediaType> {
    let ambiguous = || Error::AmbiguousManifest { reference: Box::new(reference.clone()) };
    let unsupported = |media_type: String| Error::UnsupportedMediaType {
        reference: Box::new(reference.clone()),
        media_type,
    };
    let generic = |name: &String| matches!(name.as_str(), "" | "application/json" | "text/plain");
    let header = header.filter(|name| !generic(name));
    let outline: Outline = serde_json::from_slice(bytes)
        .map_err(|_| unsupported(header.clone().unwrap_or_else(|| "unknown".to_owned())))?;
    let name = match (outline.media_type, header) {
        (Some(inside), Some(header)) if inside != header => return Err(ambiguous()),
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) if outline.manifests.is_some() => MediaType::OciIndex.as_str().to_owned(),
        (None, None) => MediaType::OciManifest.as_str().to_owned(),
    };
    let media_type = MediaType::from(name.as_str());
    let (index_like, manifest_like) =
        (outline.manifests.is_some(), outline.layers.is_some() || outline.config.is_some());
    if !is_image(&media_type) {
        return Err(unsupported(crate::error::clean(&name)));
    }
    if index_like == manifest_like || media_type.is_index() != index_like {
        return Err(ambiguous());
    }
    Ok(media_type)
}

fn select(reference: &Reference, index: &Resolved, platform: &Platform) -> Result<Descriptor> {
    let index = Index::parse(&index.bytes)
        .map_err(|source| Error::Manifest { reference: Box::new(reference.clone()), source })?;
    index.select(platform).cloned().ok_or_else(|| Error::NoPlatform {
        reference: Box::new(reference.clone()),
        platform: Box::new(platform.clone()),
        available: index.manifests.iter().filter_map(known_platform).collect(),
    })
}

/// The platform of an entry; attestations have one in name only.
fn known_platform(entry: &Descriptor) -> Option<Platform> {
    entry.platform.clone().filter(|platform| platform.os != "unknown")
}

fn check_size(url: &reqwest::Url, descriptor: &Descriptor, found: &Resolved) -> Result<()> {
    let found_bytes = found.bytes.len() as u64;
    if found_bytes == descriptor.size_bytes {
        return Ok(());
    }
    Err(Error::SizeMismatch { url: ShownUrl::of(url), expected_bytes: descriptor.size_bytes, found_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

    fn classify(header: Option<&str>, body: &str) -> Result<MediaType> {
        let reference = "a".parse().unwrap();
        media_type_of(&reference, header.map(str::to_owned), body.as_bytes())
    }

    #[test]
    fn documents_are_what_they_say_and_hold() {
        let manifest = r#"{"config":{},"layers":[]}"#;
        let typed = format!(r#"{{"mediaType":"{MANIFEST}","config":{{}},"layers":[]}}"#);
        assert_eq!(classify(Some(MANIFEST), manifest).unwrap(), MediaType::OciManifest);
        assert_eq!(classify(None, manifest).unwrap(), MediaType::OciManifest);
        assert_eq!(classify(Some("text/plain"), &typed).unwrap(), MediaType::OciManifest);
        assert_eq!(classify(None, r#"{"manifests":[]}"#).unwrap(), MediaType::OciIndex);
    }

    #[test]
    fn ambiguous_documents_are_refused() {
        let both = r#"{"config":{},"layers":[],"manifests":[]}"#;
        let typed = format!(r#"{{"mediaType":"{MANIFEST}","config":{{}},"layers":[]}}"#);
        for (header, body) in [
            (Some(MANIFEST), both),
            (Some(INDEX), both),
            (None, both),
            (None, "{}"),
            (Some(INDEX), &typed),
            (Some(INDEX), r#"{"config":{},"layers":[]}"#),
        ] {
            assert!(
                matches!(classify(header, body), Err(Error::AmbiguousManifest { .. })),
                "{header:?} {body}"
            );
        }
    }

    #[test]
    fn other_documents_are_unsupported() {
        let schema1 = "application/vnd.docker.distribution.manifest.v1+prettyjws";
        for (header, body) in [(Some(schema1), r#"{"fsLayers":[]}"#), (Some(MANIFEST), "<html>"), (None, "")]
        {
            assert!(matches!(classify(header, body), Err(Error::UnsupportedMediaType { .. })), "{header:?}");
        }
    }
}
