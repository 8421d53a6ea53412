//! `rbuild rmi`: takes names from images, and removes an image with its last name. Docker's words.

use std::collections::BTreeSet;

use rbuild_cache::ImageRecord;
use rbuild_container::{Container, Containers};
use rbuild_image::Reference;

use super::{FAILED, print};
use crate::app::{App, color};
use crate::args::RmiArgs;
use crate::report::Failure;

/// What is to go: a name, or the image with all that it has.
enum Meant {
    Name(Reference),
    Image,
}

pub(crate) fn run(app: &App, args: &RmiArgs) -> Result<u8, Failure> {
    super::container::each(&args.images, |name| match find(app, name) {
        // Who insists is only told.
        Err(failure) if args.force && failure.kind == FAILED => {
            failure.show(color());
            Ok(())
        }
        found => remove(app, name, &found?, args.force),
    })
}

fn find(app: &App, name: &str) -> Result<ImageRecord, Failure> {
    Ok(app.images()?.find(name)?)
}

fn remove(app: &App, name: &str, found: &ImageRecord, force: bool) -> Result<(), Failure> {
    let images = app.images()?.store().images();
    let named = name.parse().ok().filter(|reference| found.names.contains(reference));
    let meant = named.map_or(Meant::Image, Meant::Name);
    let user = user_of(app, found)?;
    match meant {
        // The image itself stays for a container that runs.
        Meant::Name(reference) if found.names.len() > 1 || (force && is_running(user.as_ref())) => {
            images.untag(&reference)?;
            untagged(&[reference])
        }
        Meant::Name(reference) => {
            if let Some(user) = user.filter(|_| !force) {
                let message = format!(
                    "conflict: unable to remove repository reference \"{name}\" (must force) - container {} is using \
                     its referenced image {}",
                    user.short_id(),
                    found.id().short()
                );
                return Err(Failure::new(FAILED, message));
            }
            images.remove(&reference)?;
            untagged(&[reference])?;
            deleted(found)
        }
        Meant::Image => {
            if let Some((how, why)) = obstacle(found, user.as_ref(), force) {
                let id = found.id().short();
                let message = format!("conflict: unable to delete {id} ({how}) - image is {why}");
                return Err(Failure::new(FAILED, message));
            }
            images.remove_target(found.target.digest)?;
            untagged(&found.names)?;
            deleted(found)
        }
    }
}

/// Why an image cannot go, and whether force would help.
fn obstacle(found: &ImageRecord, user: Option<&Container>, force: bool) -> Option<(&'static str, String)> {
    let repositories: BTreeSet<String> = found.names.iter().map(Reference::familiar_name).collect();
    match user {
        Some(user) if is_running(Some(user)) => {
            Some(("cannot be forced", format!("being used by running container {}", user.short_id())))
        }
        _ if force => None,
        _ if repositories.len() > 1 => {
            Some(("must be forced", "referenced in multiple repositories".to_owned()))
        }
        user => user
            .map(|user| ("must be forced", format!("being used by stopped container {}", user.short_id()))),
    }
}

/// A container that stands on the image; one that runs, if there is one.
fn user_of(app: &App, found: &ImageRecord) -> Result<Option<Container>, Failure> {
    let id = found.id().to_string();
    let containers = Containers::new(app.store()?.clone()).list().map_err(super::container::failure)?;
    let users = containers.into_iter().filter(|container| container.state.spec.image_id == id);
    Ok(users.max_by_key(|container| container.state.status.is_active()))
}

fn is_running(user: Option<&Container>) -> bool {
    user.is_some_and(|user| user.state.status.is_active())
}

fn untagged(names: &[Reference]) -> Result<(), Failure> {
    print(&names.iter().map(|name| format!("Untagged: {}\n", name.familiar())).collect::<String>())
}

fn deleted(image: &ImageRecord) -> Result<(), Failure> {
    print(&format!("Deleted: {}\n", image.id()))
}
