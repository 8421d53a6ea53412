//! The commands on the files of a container: `diff`, `commit`, `export`.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};

use rbuild_cache::layer::{self, ArchiveOptions};
use rbuild_container::{ChangeKind, Status};
use rbuild_image::{History, ImageConfig, Platform};
use rbuild_solver::images::{AssembleOptions, ImageError};
use rbuild_solver::shared::Tree;

use super::{EXIT_FAILED, containers, failure};
use crate::app::{App, unix_now};
use crate::args::{CommitArgs, ContainerArg, ExportArgs};
use crate::commands::import::changed;
use crate::commands::{io_failure, print, reference};
use crate::format::rfc3339;
use crate::report::{Failure, Kind};

pub(super) fn diff(app: &App, args: &ContainerArg) -> Result<u8, Failure> {
    let containers = containers(app)?;
    let container = containers.find(&args.container).map_err(failure)?;
    let mut text = String::new();
    for (kind, path) in containers.changes(&container).map_err(failure)? {
        let letter = match kind {
            ChangeKind::Added => 'A',
            ChangeKind::Changed => 'C',
            ChangeKind::Deleted => 'D',
        };
        text += &format!("{letter} /{}\n", path.display());
    }
    print(&text).map(|()| 0)
}

pub(super) fn export(app: &App, args: &ExportArgs) -> Result<u8, Failure> {
    if args.output.is_none() && io::stdout().is_terminal() {
        let message = "cowardly refusing to save to a terminal. Use the -o flag or redirect";
        return Err(Failure::new(Kind::Run(EXIT_FAILED), message));
    }
    let containers = containers(app)?;
    let container = containers.find(&args.container).map_err(failure)?;
    let root = containers.view(&container).map_err(failure)?;
    containers.note(&container, "export", []);
    let mut out: Box<dyn Write> = match &args.output {
        Some(path) => Box::new(File::create(path).map_err(io_failure("create", path))?),
        None => Box::new(io::stdout()),
    };
    let mut out = io::BufWriter::new(&mut out);
    layer::export(&root, &ArchiveOptions::default(), &mut out)
        .map_err(|error| Failure::caused_by(Kind::Environment, &error))?;
    out.flush().map_err(io_failure("write", "the archive".as_ref())).map(|()| 0)
}

pub(super) fn commit(app: &App, args: &CommitArgs) -> Result<u8, Failure> {
    let refused = |failure: Failure| Failure { kind: Kind::Run(EXIT_FAILED), ..failure };
    let name = args.name.as_deref().map(reference).transpose().map_err(refused)?;
    let containers = containers(app)?;
    let container = containers.find(&args.container).map_err(failure)?;
    let runs = matches!(container.state.status, Status::Running(_));
    let held = (args.pause && runs).then(|| containers.hold(&container)).transpose().map_err(failure)?;
    let snapshot = containers.commit(&container).map_err(failure)?;
    drop(held);
    let images = app.images()?;
    let spec = &container.state.spec;
    let layers = images.describe(&Tree::Here(snapshot.clone()), None)?;
    let is_changed = snapshot != container.snapshot;
    let mut config = match images.find(&spec.image_id) {
        // An image that was removed has left its layers and its config to the container, and no history.
        Err(ImageError::NotFound { .. }) => {
            let continuing = layers.iter().rev().take_while(|layer| layer.continues).count();
            let own = if is_changed { 1 + continuing } else { 0 };
            let history = vec![History::default(); layers.len() - own];
            ImageConfig { history, ..ImageConfig::new(Platform::host()) }
        }
        base => images.open(&base?.target, &Platform::host())?.config,
    };
    let created = rfc3339(unix_now());
    config.config = spec.config.clone();
    config.created = Some(created.clone());
    config.author = args.author.clone().or(config.author);
    let mut config = changed(config, &args.changes, &created).map_err(refused)?;
    config.history.push(History {
        created: Some(created),
        created_by: Some(spec.args().join(" ")),
        author: args.author.clone(),
        comment: args.message.clone(),
        empty_layer: !is_changed,
    });
    let image = images.assemble(config, &layers, &AssembleOptions::default())?;
    images.name(&image.target, &[snapshot], name.as_slice())?;
    containers.note(&container, "commit", args.message.clone().map(|message| ("comment", message)));
    print(&format!("{}\n", image.id())).map(|()| 0)
}
