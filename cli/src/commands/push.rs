//! `rbuild push`: sends an image to a registry.

use rbuild_image::Platform;
use rbuild_solver::images::{CompressionConfig, Watch};

use super::{print, reference};
use crate::app::App;
use crate::args::PushArgs;
use crate::report::Failure;
use crate::transfers::Transfers;

pub(crate) fn run(app: &App, args: &PushArgs) -> Result<u8, Failure> {
    let reference = reference(&args.image)?;
    let cancel = app.cancel_on_interrupt()?;
    let transfers = Transfers::start(args.quiet);
    let watch = Watch { transfers: &|transfer| transfers.show(transfer), cancel: &cancel };
    let pushed = app.images()?.push(&reference, &Platform::host(), &CompressionConfig::default(), watch);
    transfers.finish();
    let digest = pushed?;
    if args.quiet { Ok(0) } else { print(&format!("{}@{digest}\n", reference.familiar_name())).map(|()| 0) }
}
