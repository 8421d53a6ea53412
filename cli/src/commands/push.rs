//! `rbuild push`: sends an image to a registry.

use rbuild_image::Platform;
use rbuild_solver::images::{CompressionConfig, Watch};

use super::{note_image, print, reference};
use crate::app::App;
use crate::args::PushArgs;
use crate::fields;
use crate::report::{Failure, Kind};
use crate::transfers::Transfers;

pub(crate) fn run(app: &App, args: &PushArgs) -> Result<u8, Failure> {
    let reference = reference(&args.image)?;
    let compression = compression(args)?;
    let cancel = app.cancel_on_interrupt()?;
    let images = app.images()?;
    // Somebody may remove the image while it is read.
    let _lease = images.store().lease()?;
    let transfers = Transfers::start(args.quiet);
    let watch = Watch { transfers: &|transfer| transfers.show(transfer), cancel: &cancel };
    let pushed = images.push(&reference, &Platform::host(), &compression, watch);
    transfers.finish();
    let digest = pushed?;
    note_image(app, "push", &reference.familiar(), &reference.familiar_name())?;
    if args.quiet { Ok(0) } else { print(&format!("{}@{digest}\n", reference.familiar_name())).map(|()| 0) }
}

/// `gzip`, `zstd,9`, `none`.
fn compression(args: &PushArgs) -> Result<CompressionConfig, Failure> {
    let Some(text) = &args.compression else {
        return Ok(CompressionConfig { force: args.force_compression, ..CompressionConfig::default() });
    };
    let (form, level) =
        text.split_once(',').map_or((text.as_str(), None), |(form, level)| (form, Some(level)));
    let level = level.map(str::parse).transpose().ok();
    match (fields::compression(form), level) {
        (Some(compression), Some(level)) => {
            Ok(CompressionConfig { compression, level, force: args.force_compression })
        }
        _ => Err(Failure::new(
            Kind::Input,
            format!("invalid --compression `{text}` (expected gzip, zstd,9, none)"),
        )),
    }
}
