//! `images --filter`, and the name behind it: which images are listed, and under which of their names.

use rbuild_image::{Platform, Reference};
use rbuild_llb::pattern::Glob;

use super::Listed;
use crate::app::{App, unix_now};
use crate::commands::filter::{ObjectFilters, dangling, invalid};
use crate::format::parse_rfc3339;
use crate::report::Failure;

/// What all filters of a command line ask for together.
#[derive(Debug, Default)]
pub(super) struct ImageFilters {
    dangling: Option<bool>,
    /// One of them has to fit.
    names: Vec<Glob>,
    /// Made before then, and after: Unix seconds.
    before: Option<i64>,
    since: Option<i64>,
    objects: ObjectFilters,
}

impl ImageFilters {
    /// Reads filters. `name` is a pattern as well.
    ///
    /// # Errors
    /// When one is none, or names an image that there is not.
    pub(super) fn parse(app: &App, texts: &[String], name: Option<&str>) -> Result<Self, Failure> {
        let mut filters = Self::default();
        let mut objects = Vec::new();
        for text in texts {
            match text.split_once('=') {
                Some(("dangling", value)) => filters.dangling = Some(dangling(value)?),
                Some(("reference", pattern)) => filters.names.push(glob(pattern)?),
                Some(("before", image)) => filters.before = Some(time_of(app, image)?),
                Some(("since", image)) => filters.since = Some(time_of(app, image)?),
                _ => objects.push(text.clone()),
            }
        }
        filters.names.extend(name.map(glob).transpose()?);
        filters.objects = ObjectFilters::parse(&objects, unix_now())?;
        Ok(filters)
    }

    /// Leaves of an image's names those that are meant. Whether the image is, as far as they tell.
    pub(super) fn selects_names(&self, names: &mut Vec<Reference>) -> bool {
        if self.dangling.is_some_and(|dangling| dangling != names.is_empty()) {
            return false;
        }
        if self.names.is_empty() {
            return true;
        }
        names.retain(|name| self.names.iter().any(|glob| fits(glob, name)));
        !names.is_empty()
    }

    /// Whether what has no name can be meant.
    pub(super) fn may_be_unnamed(&self) -> bool {
        self.names.is_empty() && self.dangling != Some(false)
    }

    /// Whether an image is meant.
    pub(super) fn selects(&self, image: &Listed) -> bool {
        let created = image.created().unwrap_or_default();
        self.before.is_none_or(|before| created < before)
            && self.since.is_none_or(|since| created > since)
            && self.objects.selects(created, &image.image.config.config.labels)
    }
}

/// As people type it, with the tag or without.
fn fits(glob: &Glob, name: &Reference) -> bool {
    glob.matches(name.familiar()) || glob.matches(name.familiar_name())
}

fn glob(pattern: &str) -> Result<Glob, Failure> {
    Glob::new(pattern).map_err(|_| invalid(&format!("reference={pattern}")))
}

fn time_of(app: &App, name: &str) -> Result<i64, Failure> {
    let images = app.images()?;
    let image = images.open(&images.find(name)?.target, &Platform::host())?;
    Ok(image.config.created.as_deref().and_then(parse_rfc3339).unwrap_or_default())
}
