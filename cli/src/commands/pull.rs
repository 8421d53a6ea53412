//! `rbuild pull`: fetches an image from a registry.

use rbuild_solver::images::{PullPolicy, Watch};

use super::{note_image, platform, print, reference};
use crate::app::App;
use crate::args::PullArgs;
use crate::report::Failure;
use crate::transfers::Transfers;

pub(crate) fn run(app: &App, args: &PullArgs) -> Result<u8, Failure> {
    let reference = reference(&args.image)?;
    let platform = platform(args.platform.as_deref())?;
    let cancel = app.cancel_on_interrupt()?;
    let transfers = Transfers::start(args.quiet);
    let watch = Watch { transfers: &|transfer| transfers.show(transfer), cancel: &cancel };
    let images = app.images()?;
    // From before the first lookup until it has its name.
    let _lease = images.store().lease()?;
    let pulled = images.pull(&reference, &platform, PullPolicy::Always, watch);
    let pulled = pulled.and_then(|(image, snapshot)| {
        images.pull_attestations(&reference, &image, watch)?;
        Ok((image, snapshot))
    });
    transfers.finish();
    let (image, snapshot) = pulled?;
    images.store().images().put(&reference, &image.target, &[snapshot])?;
    note_image(app, "pull", &reference.familiar(), &reference.familiar_name())?;
    print(&format!("{reference}\n")).map(|()| 0)
}
