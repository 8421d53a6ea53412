//! `rbuild rmi`: takes names from images, and removes an image with its last name.

use rbuild_container::Containers;
use rbuild_image::Reference;

use super::print;
use crate::app::App;
use crate::args::RmiArgs;
use crate::report::{Failure, Kind};

pub(crate) fn run(app: &App, args: &RmiArgs) -> Result<u8, Failure> {
    for name in &args.images {
        match remove(app, name, args.force) {
            Err(failure) if args.force && failure.kind == Kind::Input => {}
            result => result?,
        }
    }
    Ok(0)
}

fn remove(app: &App, name: &str, force: bool) -> Result<(), Failure> {
    let images = app.images()?;
    let found = images.find(name)?;
    let as_name: Option<Reference> = name.parse().ok().filter(|reference| found.names.contains(reference));
    let last = found.names.len() <= 1;
    if last && !force {
        refuse_used(app, &found)?;
    }
    match &as_name {
        Some(reference) => {
            images.store().images().remove(reference)?;
            print(&format!("Untagged: {}\n", reference.familiar()))?;
        }
        None if found.names.len() > 1 && !force => {
            let message = format!("image `{name}` has several names (use --force to remove all)");
            return Err(Failure::new(Kind::Input, message));
        }
        None => {
            for reference in &found.names {
                print(&format!("Untagged: {}\n", reference.familiar()))?;
            }
            images.store().images().remove_target(found.target.digest)?;
        }
    }
    if as_name.is_none() || last {
        print(&format!("Deleted: {}\n", found.config.unwrap_or(found.target.digest)))?;
    }
    Ok(())
}

/// An image that a container stands on stays, unless the user insists.
fn refuse_used(app: &App, found: &rbuild_cache::ImageRecord) -> Result<(), Failure> {
    let id = found.config.map(|digest| digest.to_string());
    let containers = Containers::new(app.store()?.clone()).list().map_err(super::container::failure)?;
    match containers.iter().find(|container| Some(&container.state.spec.image_id) == id.as_ref()) {
        None => Ok(()),
        Some(user) => {
            let message = format!("image is used by container `{}` (use --force to remove it)", user.name);
            Err(Failure::new(Kind::Input, message))
        }
    }
}
