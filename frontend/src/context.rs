//! Named contexts: what the caller puts in the place of a name.

use std::collections::HashMap;

use rbuild_image::{Platform, Reference};

use crate::options::{NamedContext, Options};

/// How often a context that is an image may lead to another context.
pub(crate) const REDIRECTIONS_MAX: usize = 10;

/// The contexts of a build, by normalised name.
#[derive(Debug)]
pub(crate) struct Contexts<'a> {
    by_name: HashMap<String, &'a NamedContext>,
    target: &'a Platform,
}

impl<'a> Contexts<'a> {
    pub(crate) fn new(options: &'a Options) -> Self {
        let by_name = options.contexts.iter().map(|(name, context)| {
            let name = match name.split_once("::") {
                Some((name, platform)) => {
                    let platform = platform.parse().map_or(platform.to_owned(), |p: Platform| p.to_string());
                    format!("{}::{platform}", normalize(name))
                }
                None => normalize(name),
            };
            (name, context)
        });
        Self { by_name: by_name.collect(), target: &options.platform }
    }

    /// The context of a name: the one for the platform, or else the one for all. `scratch` and `context` cannot be
    /// replaced.
    pub(crate) fn find(&self, name: &str, platform: Option<&Platform>) -> Option<&'a NamedContext> {
        if self.by_name.is_empty()
            || ["scratch", "context"].iter().any(|word| name.eq_ignore_ascii_case(word))
        {
            return None;
        }
        let name = normalize(name);
        let for_platform = format!("{name}::{}", platform.unwrap_or(self.target));
        self.by_name.get(&for_platform).or_else(|| self.by_name.get(&name)).copied()
    }
}

/// The short form of an image's name without `:latest`; of other names, themselves.
fn normalize(name: &str) -> String {
    let familiar = name.parse::<Reference>().map_or(name.to_owned(), |reference| reference.familiar());
    familiar.strip_suffix(":latest").map_or(familiar.clone(), str::to_owned)
}
