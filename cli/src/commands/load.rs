//! `rbuild load`: reads images from a tar or an OCI layout.

use rbuild_image::Reference;
use rbuild_solver::images::{ImageError, Loaded, Watch};

use super::{import, note_image, platform, print, silent};
use crate::app::App;
use crate::args::{LoadArgs, given};
use crate::report::{Failure, Kind};

pub(crate) fn run(app: &App, args: &LoadArgs) -> Result<u8, Failure> {
    let images = app.images()?;
    let cancel = app.cancel_on_interrupt()?;
    let watch = Watch { transfers: &silent, cancel: &cancel };
    // From before the first lookup until all have their names.
    let _lease = images.store().lease()?;
    let platform = args.platform.as_deref().map(|text| platform(Some(text))).transpose()?;
    let platform = platform.as_ref();
    let loaded = match given(args.input.as_ref()) {
        Some(path) if path.is_dir() => images.load_directory(path, platform, watch),
        Some(path) => images.load(import::open(path)?, platform, watch),
        None => images.load(std::io::stdin(), platform, watch),
    };
    let loaded = loaded.map_err(failure)?;
    for image in &loaded {
        let id = image.id.to_string();
        note_image(app, "load", &id, &id)?;
    }
    print(&loaded.iter().map(line).collect::<String>()).map(|()| 0)
}

/// What is wrong with an image that is loaded, is wrong with the archive.
fn failure(error: ImageError) -> Failure {
    match &error {
        ImageError::Unpack { .. }
        | ImageError::LayerCount { .. }
        | ImageError::NoPlatform { .. }
        | ImageError::Document { .. } => Failure::caused_by(Kind::Input, &error),
        _ => error.into(),
    }
}

fn line(loaded: &Loaded) -> String {
    if loaded.names.is_empty() {
        return format!("Loaded image ID: {}\n", loaded.id);
    }
    loaded.names.iter().map(Reference::familiar).map(|name| format!("Loaded image: {name}\n")).collect()
}
