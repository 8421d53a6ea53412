//! FROM: where stages start.

use std::collections::HashMap;

use rbuild_image::{ImageConfig, Platform, Reference};
use rbuild_llb::{Edge, ImageSource, Meta, OciLayoutSource, Op, SourceOp, Vertex};

use super::Lowerer;
use super::history::{self, Timeline};
use super::state::{Current, State};
use crate::args::Env;
use crate::context::{Contexts, REDIRECTIONS_MAX};
use crate::error::{Error, ErrorKind};
use crate::expand::Variables;
use crate::lint::Rule;
use crate::options::{NamedContext, Options};
use crate::remote::RemoteContext;
use crate::resolver::{ImageResolver, ResolvedImage};
use crate::stage::{Base, Graph, Stage, StageId};
use crate::{paths, suggest};

const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Image names that people mistype.
const COMMON_IMAGES: [&str; 7] = ["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];
/// The fields of a config that are about the platform; all else that rbuild does not know is about the image that it
/// was, and would be wrong of the one that it becomes.
const KEPT_EXTRA: &str = "os.features";

/// What a stage that does not start from another turned out to start from.
#[derive(Debug, Clone)]
enum Origin {
    Scratch,
    Image(Box<ImageOrigin>),
    Local { name: String, ignore: Vec<String> },
    Remote(Box<RemoteContext>),
}

#[derive(Debug, Clone)]
struct ImageOrigin {
    source: SourceOp,
    /// The name for people.
    name: String,
    config: ImageConfig,
    /// What it was asked for, and is run as.
    platform: Platform,
}

/// Who and what is asked about a base.
pub(super) struct Surroundings<'a> {
    pub(super) contexts: &'a Contexts<'a>,
    pub(super) options: &'a Options,
    pub(super) resolver: &'a dyn ImageResolver,
}

/// Where the stages start.
#[derive(Debug, Default)]
pub(super) struct Origins {
    by_stage: HashMap<StageId, Origin>,
    images: HashMap<(Reference, Platform), ResolvedImage>,
}

impl Origins {
    /// Resolves the bases of stages, those that are not yet.
    pub(super) fn resolve(
        &mut self,
        graph: &Graph,
        stages: &[StageId],
        around: &Surroundings<'_>,
    ) -> Result<(), Error> {
        let Surroundings { contexts, options, resolver } = around;
        let mut wanted = Vec::new();
        for id in stages {
            let stage = graph.stage(*id);
            let is_new = !self.by_stage.contains_key(id) && !matches!(stage.base, Base::Stage(_));
            if is_new {
                let place = place(stage, contexts).map_err(|error| error.at(stage.range))?;
                wanted.push((*id, place));
            }
        }
        let platform = |id: &StageId| graph.stage(*id).platform.clone().unwrap_or(options.platform.clone());
        let images: Vec<_> = wanted
            .iter()
            .filter_map(|(id, place)| match place {
                Place::Image(reference) => Some((reference.clone(), platform(id))),
                Place::Known(_) => None,
            })
            .collect();
        if !images.is_empty() {
            resolver.prefetch(&images);
        }
        for (id, place) in wanted {
            let origin = match place {
                Place::Known(origin) => *origin,
                Place::Image(reference) => {
                    let stage = graph.stage(id);
                    self.image(graph, stage, reference, around).map_err(|error| error.at(stage.range))?
                }
            };
            self.by_stage.insert(id, origin);
        }
        Ok(())
    }

    fn image(
        &mut self,
        graph: &Graph,
        stage: &Stage,
        reference: Reference,
        around: &Surroundings<'_>,
    ) -> Result<Origin, Error> {
        let Surroundings { options, resolver, .. } = around;
        let platform = stage.platform.clone().unwrap_or_else(|| options.platform.clone());
        let key = (reference, platform);
        if !self.images.contains_key(&key) {
            let found = resolver.resolve(&key.0, &key.1, options.resolve_mode).map_err(|source| {
                let names = graph.names().chain(COMMON_IMAGES);
                let similar = suggest::nearest(&key.0.familiar_name(), names);
                ErrorKind::Resolve { name: stage.base_name(&key.0.familiar()), similar, source }
            })?;
            self.images.insert(key.clone(), found);
        }
        let image = self.images[&key].clone();
        let (_, asked) = key;
        let is_free = stage.platform.is_none() && options.platform_is_default;
        let platform = match &stage.base {
            // Whoever names an image as a context has chosen its platform.
            Base::Context(_) => image.config.platform.clone(),
            _ if is_free => detect(&image.config.platform, asked, options),
            _ => asked,
        };
        let name = image.reference.to_string();
        let source = SourceOp::Image(ImageSource {
            reference: image.reference,
            resolve_mode: options.resolve_mode,
            layer_limit: None,
        });
        Ok(Origin::Image(Box::new(ImageOrigin { source, name, config: image.config, platform })))
    }

    /// The ONBUILD triggers of the image that a stage starts from.
    pub(super) fn triggers(&self, id: StageId) -> &[String] {
        match self.by_stage.get(&id) {
            Some(Origin::Image(image)) => &image.config.config.on_build,
            _ => &[],
        }
    }
}

/// What is known of a base before anyone is asked.
enum Place {
    Known(Box<Origin>),
    Image(Reference),
}

fn place(stage: &Stage, contexts: &Contexts<'_>) -> Result<Place, Error> {
    match &stage.base {
        Base::Image(_, reference) => Ok(Place::Image(reference.clone())),
        Base::Context(context) => place_of_context(context, stage.platform.as_ref(), contexts),
        Base::Scratch | Base::Stage(_) => Ok(Place::Known(Box::new(Origin::Scratch))),
    }
}

/// A context that is an image may stand for a name that is a context again.
fn place_of_context(
    context: &NamedContext,
    platform: Option<&Platform>,
    contexts: &Contexts<'_>,
) -> Result<Place, Error> {
    let mut context = context;
    for _ in 0..=REDIRECTIONS_MAX {
        let origin = match context {
            NamedContext::Local { name, ignore } => {
                Origin::Local { name: name.clone(), ignore: ignore.clone() }
            }
            NamedContext::Remote(remote) => Origin::Remote(Box::new(remote.clone())),
            NamedContext::OciLayout { store, digest, config } => Origin::Image(Box::new(ImageOrigin {
                source: SourceOp::OciLayout(OciLayoutSource {
                    store: store.clone(),
                    digest: *digest,
                    layer_limit: None,
                }),
                name: format!("oci-layout://{store}@{digest}"),
                config: (**config).clone(),
                platform: config.platform.clone(),
            })),
            NamedContext::Image(reference) if reference.familiar_name() == "scratch" => Origin::Scratch,
            NamedContext::Image(reference) => match contexts.find(&reference.to_string(), platform) {
                Some(next) if next != context => {
                    context = next;
                    continue;
                }
                _ => return Ok(Place::Image(reference.clone())),
            },
        };
        return Ok(Place::Known(Box::new(origin)));
    }
    let name = match context {
        NamedContext::Image(reference) => reference.familiar(),
        _ => String::new(),
    };
    Err(ErrorKind::ContextDepth { name, max: REDIRECTIONS_MAX }.into())
}

/// The platform of an image that is not for the one asked for, if this machine can run it.
fn detect(found: &Platform, asked: Platform, options: &Options) -> Platform {
    let is_same = found.os == asked.os && found.architecture == asked.architecture;
    if !is_same && found.runs_on(&options.build_platform) { found.clone() } else { asked }
}

impl Lowerer<'_> {
    /// The state that a stage starts with.
    pub(super) fn start(&mut self, id: StageId, origins: &Origins) -> Current {
        let stage = self.graph.stage(id);
        let mut current = match (&stage.base, origins.by_stage.get(&id)) {
            (Base::Stage(base), _) => self.start_from_stage(id, *base),
            (_, Some(Origin::Image(image))) => self.start_from_image(id, image),
            (_, Some(Origin::Local { name, ignore })) => {
                let (local, edge) = self.local_tree(name, ignore);
                let mut current = self.start_empty(id, Some(edge), Some(local));
                // What only a `--from` names is read in place, as far as it is named.
                if !stage.is_external {
                    self.take_root(&mut current.state);
                }
                current
            }
            (_, Some(Origin::Remote(remote))) => {
                let edge = self.remote_context(remote);
                let mut current = self.start_empty(id, Some(edge), None);
                let name = stage.base_name(&stage.name);
                self.record_root(&mut current.state, format!("remote source for {name}"));
                current
            }
            (_, Some(Origin::Scratch) | None) => self.start_empty(id, None, None),
        };
        Self::prepare(&mut current.state);
        current
    }

    fn start_from_stage(&mut self, id: StageId, base: StageId) -> Current {
        let stage = self.graph.stage(id);
        // The base stands before this stage, is reachable as it is, and so has been lowered.
        let mut state = self.done[&base].clone();
        state.config.config.on_build.clear();
        Current::new(id, stage, state, false, self.options.multi_platform)
    }

    fn start_empty(&self, id: StageId, edge: Option<Edge>, local: Option<super::tree::LocalId>) -> Current {
        let stage = self.graph.stage(id);
        // Nothing is for no platform, so one that is given for it is not heard: BuildKit's rule.
        let given = stage.platform.clone().filter(|_| !matches!(stage.base, Base::Scratch));
        let platform = given.unwrap_or_else(|| self.options.platform.clone());
        let mut config = ImageConfig::new(platform.clone());
        config.config.working_dir = "/".to_owned();
        let state = State {
            edge,
            local,
            config,
            history: Timeline::default(),
            history_inherited: 0,
            platform,
            env: Env::default(),
            args: Vec::new(),
            has_workdir: false,
        };
        Current::new(id, stage, state, false, self.options.multi_platform)
    }

    fn start_from_image(&mut self, id: StageId, image: &ImageOrigin) -> Current {
        let stage = self.graph.stage(id);
        let mut config = image.config.clone();
        let has_layers = history::layer_count(&config) > 0;
        config.created = None;
        config.config.on_build.clear();
        config.rootfs.diff_ids.clear();
        config.extra.retain(|key, _| key == KEPT_EXTRA);
        let state = State {
            edge: None,
            local: None,
            history_inherited: config.history.len(),
            history: Timeline::of_image(std::mem::take(&mut config.history)),
            config,
            platform: image.platform.clone(),
            env: Env::default(),
            args: Vec::new(),
            has_workdir: false,
        };
        let mut current = Current::new(id, stage, state, true, self.options.multi_platform);
        let name = current.title(&format!("FROM {}", image.name), false);
        if has_layers {
            self.check_platform(stage, image);
            let meta = Meta { name, source: Some(stage.range), ..Meta::default() };
            let platform = Some(image.platform.clone());
            let vertex = Vertex { op: Op::Source(image.source.clone()), inputs: Vec::new(), platform, meta };
            current.state.edge = Some(self.builder.add(vertex).into());
        }
        current
    }

    fn check_platform(&mut self, stage: &Stage, image: &ImageOrigin) {
        let (expected, found) = (&image.platform, &image.config.platform);
        if expected.os != found.os || expected.architecture != found.architecture {
            let name = stage.base_name(&image.name);
            let message = format!(
                "Base image {name} was pulled with platform \"{found}\", expected \"{expected}\" for current build"
            );
            self.linter.report(Rule::InvalidBaseImagePlatform, &stage.comments, stage.range, message);
        }
    }

    /// Completes the config and takes the environment over from it.
    fn prepare(state: &mut State) {
        let config = &mut state.config.config;
        if config.env_get("PATH").is_none() && state.platform.os != "windows" {
            config.env_set("PATH", PATH_DEFAULT);
        }
        for pair in &config.env {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if state.env.get(name) != Some(value) {
                state.env.set(name, value);
            }
        }
        debug_assert!(state.env.get("PATH").is_some() || state.platform.os == "windows");
        if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
            config.working_dir = paths::absolute(&config.working_dir);
        }
    }
}
