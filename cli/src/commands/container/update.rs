//! `rbuild update`: changes what containers may use, running or not.

use rbuild_container::Update;

use super::create::invalid;
use super::limits::limits;
use super::{EXIT_FAILED, for_each};
use crate::app::App;
use crate::args::UpdateArgs;
use crate::report::{Failure, Kind};

pub(super) fn update(app: &App, args: &UpdateArgs) -> Result<u8, Failure> {
    let restart = args.restart.as_deref().map(str::parse).transpose().map_err(invalid::<String>)?;
    let update = Update { limits: limits(&args.resources)?, restart };
    if update == Update::default() {
        let message = "you must provide one or more flags when using this command";
        return Err(Failure::new(Kind::Run(EXIT_FAILED), message));
    }
    for_each(app, &args.containers, |containers, container| containers.update(container, &update))
}
