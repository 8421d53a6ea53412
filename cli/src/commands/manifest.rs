//! `rbuild manifest inspect`: what a registry has under a name, without fetching it; `rbuild copy` brings it elsewhere without
//! keeping it.

use rbuild_solver::images::Watch;

use super::{print, reference};
use crate::app::App;
use crate::args::{CopyArgs, ManifestCommand, ManifestInspectArgs};
use crate::report::{Failure, Kind};
use crate::transfers::Transfers;

pub(crate) fn run(app: &App, command: &ManifestCommand) -> Result<u8, Failure> {
    match command {
        ManifestCommand::Inspect(args) => inspect(app, args),
    }
}

fn inspect(app: &App, args: &ManifestInspectArgs) -> Result<u8, Failure> {
    let reference = reference(&args.image)?;
    let cancel = app.cancel_on_interrupt()?;
    let found = app.images()?.registry_handle().resolve(&reference, &cancel).map_err(remote)?;
    if args.digest {
        return print(&format!("{}\n", found.descriptor.digest)).map(|()| 0);
    }
    let text = String::from_utf8_lossy(&found.bytes);
    if args.raw {
        return print(&text).map(|()| 0);
    }
    let value: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| Failure::new(Kind::Remote, format!("failed to read the manifest: {error}")))?;
    print(&format!("{value:#}\n")).map(|()| 0)
}

pub(crate) fn copy(app: &App, args: &CopyArgs) -> Result<u8, Failure> {
    let (from, to) = (reference(&args.source)?, reference(&args.destination)?);
    let cancel = app.cancel_on_interrupt()?;
    let transfers = Transfers::start(args.quiet);
    let watch = Watch { transfers: &|transfer| transfers.show(transfer), cancel: &cancel };
    let copied = app.images()?.copy(&from, &to, watch);
    transfers.finish();
    let digest = copied?;
    if args.quiet { Ok(0) } else { print(&format!("{}@{digest}\n", to.familiar_name())).map(|()| 0) }
}

fn remote(error: rbuild_registry::Error) -> Failure {
    rbuild_solver::images::ImageError::from(error).into()
}
