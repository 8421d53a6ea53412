//! `--build-context NAME=VALUE`: what names in the Dockerfile stand for.

use std::collections::BTreeMap;
use std::path::Path;

use rbuild_frontend::{NamedContext, RemoteContext};
use rbuild_image::{Digest, Platform};
use rbuild_solver::images::LayoutSelector;
use rbuild_solver::local::LocalContext;

use super::{MAIN_CONTEXT, Remote, Trees, ignore, place};
use crate::commands::build::settings::Settings;
use crate::commands::{platform, reference};
use crate::report::{Failure, Kind};

const IMAGE_SCHEMES: [&str; 2] = ["docker-image://", "container-image://"];
const LAYOUT_SCHEME: &str = "oci-layout://";
/// What a layout's image is called that is not named, as everywhere.
const TAG_DEFAULT: &str = "latest";

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Named {
    pub(super) contexts: BTreeMap<String, NamedContext>,
    pub(super) trees: Trees,
}

/// Reads `--build-context`; of two of one name the last counts.
pub(super) fn contexts(settings: &Settings, remote: &Remote<'_>) -> Result<Named, Failure> {
    let mut named = Named::default();
    for text in &settings.build_contexts {
        let add = match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                named.add(name, value, settings, remote)
            }
            _ => Err(Failure::new(Kind::Input, "expected NAME=VALUE")),
        };
        add.map_err(|failure| failure.while_doing(&format!("invalid --build-context `{text}`")))?;
    }
    Ok(named)
}

impl Named {
    fn add(
        &mut self,
        name: &str,
        value: &str,
        settings: &Settings,
        remote: &Remote<'_>,
    ) -> Result<(), Failure> {
        let (plain, asked) = name.split_once("::").map_or((name, None), |(name, asked)| (name, Some(asked)));
        reference(plain)?;
        if [MAIN_CONTEXT, "scratch"].contains(&plain) {
            return Err(Failure::new(Kind::Input, format!("`{plain}` always means the same")));
        }
        let image = IMAGE_SCHEMES.iter().find_map(|scheme| value.strip_prefix(scheme));
        let context = if let Some(image) = image {
            NamedContext::Image(reference(image)?)
        } else if let Some(layout) = value.strip_prefix(LAYOUT_SCHEME) {
            return match asked {
                Some(asked) => self.layout(name, layout, &platform(Some(asked))?, remote),
                None => self.layouts(plain, layout, &settings.platforms(), remote),
            };
        } else if let Some(context) = address(value)? {
            NamedContext::Remote(context)
        } else {
            self.directory(name, Path::new(value))?
        };
        self.contexts.insert(name.to_owned(), context);
        Ok(())
    }

    fn directory(&mut self, name: &str, path: &Path) -> Result<NamedContext, Failure> {
        let directory = place::directory(path)?;
        let ignore = ignore::of_directory(&directory)?;
        self.trees.contexts.insert(name.to_owned(), LocalContext::directory(directory));
        Ok(NamedContext::Local { name: name.to_owned(), ignore })
    }

    /// One image for each platform that is built for; the first is also for whatever else a stage asks for.
    fn layouts(
        &mut self,
        name: &str,
        text: &str,
        platforms: &[Platform],
        remote: &Remote<'_>,
    ) -> Result<(), Failure> {
        for (position, platform) in platforms.iter().enumerate() {
            let of_platform = format!("{name}::{platform}");
            let name = if position == 0 { name } else { &of_platform };
            self.layout(name, text, platform, remote)?;
        }
        Ok(())
    }

    /// `path[:tag][@digest]`.
    fn layout(
        &mut self,
        name: &str,
        text: &str,
        platform: &Platform,
        remote: &Remote<'_>,
    ) -> Result<(), Failure> {
        let (path, selector) = layout_selector(text)?;
        let directory = place::directory(Path::new(path))?;
        let image = remote.images()?.open_layout(&directory, &selector, platform)?;
        self.trees.layouts.insert(name.to_owned(), directory);
        let digest = image.manifest_descriptor.digest;
        let config = Box::new(image.config);
        let context = NamedContext::OciLayout { store: name.to_owned(), digest, config };
        self.contexts.insert(name.to_owned(), context);
        Ok(())
    }
}

fn address(value: &str) -> Result<Option<RemoteContext>, Failure> {
    if Path::new(value).is_dir() {
        return Ok(None);
    }
    RemoteContext::named(value).map_err(|error| Failure::caused_by(Kind::Input, &error))
}

fn layout_selector(text: &str) -> Result<(&str, LayoutSelector), Failure> {
    let (rest, digest) = text.split_once('@').map_or((text, None), |(rest, digest)| (rest, Some(digest)));
    let (path, tag) = match rest.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (rest, TAG_DEFAULT),
    };
    let digest = digest.map(str::parse::<Digest>).transpose();
    let digest = digest.map_err(|error| Failure::caused_by(Kind::Input, &error))?;
    Ok((path, digest.map_or_else(|| LayoutSelector::Tag(tag.to_owned()), LayoutSelector::Digest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_of_a_layout_has_a_tag_or_a_digest() {
        let tag = |tag: &str| LayoutSelector::Tag(tag.to_owned());
        let digest = Digest::of("x");
        let cases = [
            ("/a/b".to_owned(), "/a/b", tag("latest")),
            ("a:v1".to_owned(), "a", tag("v1")),
            ("/a:b/c".to_owned(), "/a:b/c", tag("latest")),
            (format!("a@{digest}"), "a", LayoutSelector::Digest(digest)),
            (format!("a:v1@{digest}"), "a", LayoutSelector::Digest(digest)),
        ];
        for (text, path, selector) in cases {
            assert_eq!(layout_selector(&text).unwrap(), (path, selector), "{text}");
        }
        assert!(layout_selector("a@sha256:1").is_err());
    }
}
