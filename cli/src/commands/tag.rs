//! `rbuild tag`: gives an image another name.

use rbuild_image::Reference;

use super::FAILED;
use crate::app::App;
use crate::args::TagArgs;
use crate::report::Failure;

pub(crate) fn run(app: &App, args: &TagArgs) -> Result<u8, Failure> {
    let target = name(&args.target)?;
    let images = app.images()?;
    let found = images.find(&args.source)?;
    images.store().images().put(&target, &found.target, &found.snapshots)?;
    Ok(0)
}

/// A name that an image may be given, in Docker's words where it may not.
fn name(text: &str) -> Result<Reference, Failure> {
    let refused = |why: &str| {
        let message = format!("Error parsing reference: \"{text}\" is not a valid repository/tag: {why}");
        Err(Failure::new(FAILED, message))
    };
    match text.parse::<Reference>() {
        Err(error) => refused(&error.to_string()),
        Ok(name) if name.digest().is_some() => refused("a name with a digest is not for tagging"),
        // It would be taken for an id ever after.
        Ok(name) if name.familiar_name() == "sha256" => {
            let message = "refusing to create an ambiguous tag using digest algorithm as name";
            Err(Failure::new(FAILED, message))
        }
        Ok(name) => Ok(name),
    }
}
