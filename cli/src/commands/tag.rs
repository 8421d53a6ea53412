//! `rbuild tag`: gives an image another name.

use super::reference;
use crate::app::App;
use crate::args::TagArgs;
use crate::report::Failure;

pub(crate) fn run(app: &App, args: &TagArgs) -> Result<u8, Failure> {
    let target = reference(&args.target)?;
    let images = app.images()?;
    let found = images.find(&args.source)?;
    images.store().images().put(&target, &found.target, &found.snapshots)?;
    Ok(0)
}
