//! `rbuild load`: reads images from a tar or an OCI layout.

use rbuild_image::Reference;
use rbuild_solver::images::{Loaded, Watch};

use super::{import, print, silent};
use crate::app::App;
use crate::args::LoadArgs;
use crate::report::Failure;

pub(crate) fn run(app: &App, args: &LoadArgs) -> Result<u8, Failure> {
    let images = app.images()?;
    let cancel = app.cancel_on_interrupt()?;
    let watch = Watch { transfers: &silent, cancel: &cancel };
    let loaded = match &args.input {
        Some(path) if path.is_dir() => images.load_directory(path, watch)?,
        Some(path) => images.load(import::open(path)?, watch)?,
        None => images.load(std::io::stdin(), watch)?,
    };
    print(&loaded.iter().map(line).collect::<String>()).map(|()| 0)
}

fn line(loaded: &Loaded) -> String {
    if loaded.names.is_empty() {
        return format!("Loaded image ID: {}\n", loaded.id);
    }
    loaded.names.iter().map(Reference::familiar).map(|name| format!("Loaded image: {name}\n")).collect()
}
