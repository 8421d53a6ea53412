//! Stages to vertices and image config.
//!
//! [`lower`] is the whole story in order. Stages are lowered in the order of the file, each starting from a copy of the
//! [`State`] of its base; [`Lowerer::step`] is the one place that tells instructions apart. Instructions that only
//! change the config are in `config`, those that make a vertex in a file of their own.

mod add;
mod config;
mod copy;
mod epoch;
mod finish;
mod from;
mod history;
mod mounts;
mod outline;
mod run;
mod state;
mod tree;
mod workdir;

use std::collections::HashMap;

use rbuild_llb::pattern::Patterns;
use rbuild_llb::{Builder, Edge, Meta, Op, ProxyEnv, Vertex};

use crate::args::{self, CONTROL_ARGS, Globals};
use crate::context::Contexts;
use crate::error::{Error, ErrorKind};
use crate::expand::{Expander, Variables};
use crate::file::FileText;
use crate::instruction::{Command, Instruction};
use crate::lint::{self, Linter, Rule, checks};
use crate::options::{NoCache, Options};
use crate::parser::{self, Dockerfile};
use crate::resolver::ImageResolver;
use crate::stage::{Graph, StageId, Step};
use crate::{Checked, Lowered, Outline, suggest};
use epoch::Places;
use finish::Times;
use from::{Origins, Surroundings};
use outline::Collected;
use state::{Current, State};
use tree::LocalTrees;

/// The images under `docker/` that are this very frontend under another name.
const OWN_SYNTAX: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// What is needed beside the state of a stage, for as long as the build is lowered.
struct Lowerer<'a> {
    options: &'a Options,
    text: &'a FileText,
    graph: &'a Graph,
    globals: &'a Globals,
    escape: char,
    proxy: Option<ProxyEnv>,
    times: Times,
    linter: &'a mut Linter,
    outline: Collected,
    builder: Builder,
    locals: LocalTrees,
    /// The rules of `.dockerignore`, where lint can judge them: none takes back what others left out.
    ignored: Option<Patterns>,
    /// The stages that are lowered.
    done: HashMap<StageId, State>,
}

/// What every translation is given.
#[derive(Clone, Copy)]
struct Request<'a> {
    source: &'a [u8],
    options: &'a Options,
    resolver: &'a dyn ImageResolver,
}

/// Translates a Dockerfile.
///
/// # Errors
/// When the Dockerfile or the options are wrong, or a base image cannot be resolved.
pub fn lower(source: &[u8], options: &Options, resolver: &dyn ImageResolver) -> Result<Lowered, Error> {
    let mut linter = Linter::default();
    let request = Request { source, options, resolver };
    let lowered = translate(request, &mut linter, Graph::reachable, finish::finish);
    let warnings = linter.finish();
    match lowered {
        Ok(lowered) => Ok(Lowered { warnings, ..lowered }),
        Err(error) => Err(error.after(warnings)),
    }
}

/// Looks for mistakes in a Dockerfile: in all its stages, or in what `options.target` needs.
pub fn check(source: &[u8], options: &Options, resolver: &dyn ImageResolver) -> Checked {
    let mut linter = Linter::default();
    let request = Request { source, options, resolver };
    let scope = if options.target.is_none() { |graph: &Graph, _| graph.all() } else { Graph::reachable };
    let result = translate(request, &mut linter, scope, |lowerer, _| lowerer.linter.verdict());
    Checked { error: result.err(), warnings: linter.finish() }
}

/// Lists what a build can be given: arguments, secrets, agents, caches.
///
/// # Errors
/// As [`lower`].
pub fn outline(source: &[u8], options: &Options, resolver: &dyn ImageResolver) -> Result<Outline, Error> {
    let mut linter = Linter::default();
    let request = Request { source, options, resolver };
    translate(request, &mut linter, Graph::reachable, |lowerer, target| Ok(lowerer.finish_outline(target)))
}

/// The way of every translation, whose errors say which word is to blame.
fn translate<T>(
    request: Request<'_>,
    linter: &mut Linter,
    scope: impl Fn(&Graph, StageId) -> Vec<StageId>,
    finish: impl FnOnce(Lowerer<'_>, StageId) -> Result<T, Error>,
) -> Result<T, Error> {
    walk(request, linter, scope, finish).map_err(|error| error.in_source(request.source))
}

/// Parses, resolves, lowers the stages that `scope` chooses, and ends with what is wanted.
fn walk<T>(
    request: Request<'_>,
    linter: &mut Linter,
    scope: impl Fn(&Graph, StageId) -> Vec<StageId>,
    finish: impl FnOnce(Lowerer<'_>, StageId) -> Result<T, Error>,
) -> Result<T, Error> {
    let Request { source, options, resolver } = request;
    check_syntax(source, options)?;
    let file = parser::parse(source)?;
    linter.configure(lint_config(&file, options)?);
    let text = FileText::new(&file)?;
    let escape = file.directives.escape;
    let last = text.stages.last().map(|stage| stage.name.as_str()).unwrap_or_default();
    let target_name = options.target.as_deref().unwrap_or(last);
    checks::file(&file, &text, options, linter);
    let mut globals = Globals::new(options, target_name, &text.globals, escape)?;
    checks::bases(&text, &globals, escape, linter);

    let contexts = Contexts::new(options);
    let epoch = Places { options, contexts: &contexts, text: &text, resolver, escape }.epoch(&mut globals)?;
    let options = &*epoch.replace_in(options);
    let mut graph = Graph::new(&text.stages, &globals, &contexts, escape)?;
    let target = graph.target(options.target.as_deref())?;
    let around = Surroundings { contexts: &contexts, options, resolver };
    let origins = resolve(&mut graph, |graph| scope(graph, target), &around)?;
    let times = Times::new(options, epoch)?;
    let mut lowerer = Lowerer {
        options,
        text: &text,
        graph: &graph,
        globals: &globals,
        escape,
        proxy: args::proxy(options),
        times,
        linter,
        outline: Collected::default(),
        builder: Builder::new(),
        locals: LocalTrees::default(),
        ignored: checks::ignore_rules(options),
        done: HashMap::new(),
    };
    for id in scope(&graph, target) {
        let state = lowerer.stage(id, &origins)?;
        lowerer.done.insert(id, state);
    }
    finish(lowerer, target)
}

/// Resolves base images and lets their triggers fire, until that needs no further stages.
fn resolve(
    graph: &mut Graph,
    scope: impl Fn(&Graph) -> Vec<StageId>,
    around: &Surroundings<'_>,
) -> Result<Origins, Error> {
    let mut origins = Origins::default();
    loop {
        let reachable = scope(graph);
        origins.resolve(graph, &reachable, around)?;
        let mut has_new_sources = false;
        for id in reachable {
            has_new_sources |= graph.fire_triggers(id, origins.triggers(id), around.contexts)?;
        }
        if !has_new_sources {
            return Ok(origins);
        }
    }
}

/// The frontends that Dockerfiles ask for are nearly always this one; others rbuild does not have.
fn check_syntax(source: &[u8], options: &Options) -> Result<(), Error> {
    let (syntax, range) = match args::control(options, "BUILDKIT_SYNTAX") {
        Some(syntax) => (syntax.to_owned(), None),
        None => match parser::syntax(source) {
            Some((syntax, range)) => (syntax, Some(range)),
            None => return Ok(()),
        },
    };
    let Some(image) = syntax.split_whitespace().next() else { return Ok(()) };
    let name = image.split('@').next().unwrap_or(image);
    let name = name.strip_prefix("docker.io/").unwrap_or(name);
    let name = name.split(':').next().unwrap_or(name);
    if name == "dockerfile.v0" || OWN_SYNTAX.contains(&name) {
        return Ok(());
    }
    let error = Error::new(ErrorKind::UnsupportedSyntax { image: image.to_owned() });
    Err(match range {
        Some(range) => error.at(range),
        None => error,
    })
}

fn lint_config(file: &Dockerfile, options: &Options) -> Result<lint::Config, Error> {
    if let Some(text) = options.build_args.get("BUILDKIT_DOCKERFILE_CHECK") {
        return lint::Config::parse(text);
    }
    let Some(text) = &file.directives.check else { return Ok(lint::Config::default()) };
    lint::Config::parse(text).map_err(|error| match file.directives.check_range {
        Some(range) => error.at(range),
        None => error,
    })
}

impl Lowerer<'_> {
    /// Lowers one stage.
    fn stage(&mut self, id: StageId, origins: &Origins) -> Result<State, Error> {
        let stage = self.graph.stage(id);
        let mut current = self.start(id, origins);
        for step in &stage.steps {
            self.step(&mut current, step).map_err(|error| error.at(step.command.range))?;
        }
        current.state.history.freeze();
        Ok(current.state)
    }

    /// Lowers one instruction: the one place that tells them apart.
    fn step(&mut self, current: &mut Current, step: &Step) -> Result<(), Error> {
        let command = &step.command;
        match &command.instruction {
            Instruction::Add(add) => self.add(current, command, add)?,
            Instruction::Arg(declarations) => self.arg(current, command, declarations)?,
            Instruction::Cmd(line) => self.cmd(current, command, line),
            Instruction::Copy(copy) => self.copy(current, step, copy)?,
            Instruction::Entrypoint(line) => self.entrypoint(current, command, line),
            Instruction::Env(pairs) => self.env(current, command, pairs)?,
            Instruction::Expose(ports) => self.expose(current, command, ports)?,
            Instruction::Healthcheck(check) => self.healthcheck(current, command, check),
            Instruction::Label(pairs) => self.label(current, command, pairs)?,
            Instruction::Maintainer(name) => self.maintainer(current, name),
            Instruction::Onbuild(trigger) => Self::onbuild(current, trigger),
            Instruction::Run(run) => self.run(current, step, run)?,
            Instruction::Shell(shell) => self.shell(current, shell),
            Instruction::StopSignal(signal) => self.stop_signal(current, command, signal)?,
            Instruction::User(user) => self.user(current, command, user)?,
            Instruction::Volume(volumes) => self.volume(current, command, volumes)?,
            Instruction::Workdir(path) => self.workdir(current, command, path)?,
        }
        Ok(())
    }

    /// Expands a word with the environment as it is.
    fn expand(&mut self, current: &Current, command: &Command, word: &str) -> Result<String, Error> {
        Ok(self.expand_with(current, command, Expander::new(self.escape), word)?.text)
    }

    fn expand_all(
        &mut self,
        current: &Current,
        command: &Command,
        words: &[String],
    ) -> Result<Vec<String>, Error> {
        words.iter().map(|word| self.expand(current, command, word)).collect()
    }

    fn expand_with(
        &mut self,
        current: &Current,
        command: &Command,
        expander: Expander,
        word: &str,
    ) -> Result<crate::expand::Expanded, Error> {
        let env = &current.state.env;
        let expanded = expander
            .expand(word, env)
            .map_err(|source| ErrorKind::Expand { word: word.to_owned(), source })?;
        for name in &expanded.unmatched {
            let is_declared = current.state.args.iter().any(|(declared, _)| declared == name);
            if is_declared || CONTROL_ARGS.contains(&name.as_str()) {
                continue;
            }
            let similar = suggest::nearest(name, env.names());
            let hint = similar.map(|similar| format!(" (did you mean ${similar}?)")).unwrap_or_default();
            let message = format!("Usage of undefined variable '${name}'{hint}");
            self.linter.report(Rule::UndefinedVar, &command.comments, command.range, message);
        }
        Ok(expanded)
    }

    /// Adds a vertex that a line of the Dockerfile asks for.
    fn add_vertex(&mut self, op: Op, inputs: Vec<Edge>, meta: Meta) -> Edge {
        self.builder.add(Vertex { op, inputs, platform: None, meta }).into()
    }

    /// The facts about a step that may not be taken from the cache when the user says so.
    fn meta(&self, current: &Current, command: &Command, name: String) -> Meta {
        let stage = self.graph.stage(current.id);
        let ignore_cache = match &self.options.no_cache {
            NoCache::Never => false,
            NoCache::All => true,
            NoCache::Stages(names) => {
                !stage.name.is_empty() && names.iter().any(|name| name.eq_ignore_ascii_case(&stage.name))
            }
        };
        Meta { name, source: Some(command.range), ignore_cache, ..Meta::default() }
    }

    /// What a progress display shows of an instruction: the text with variables filled in where that is possible.
    fn describe(code: &str, expander: Expander, env: &dyn Variables) -> String {
        let text = expander.expand(code, env).map_or_else(|_| code.to_owned(), |expanded| expanded.text);
        match text.split_once(' ') {
            Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
            None => text.to_uppercase(),
        }
    }
}
