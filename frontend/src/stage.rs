//! The stages of a file and what they need of one another.
//!
//! A node of the graph is a stage of the file, or something that only a `--from` names (an image, a context). Edges
//! lead from a stage to its base and to what it copies or mounts from. What is reachable from the target is built;
//! nothing else is even looked up.
//!
//! Names: FROM finds an earlier stage by its exact lower-case name; `--from` and `--target` find any stage in any
//! case, and of two with one name the last; `--from=2` counts the stages of the file.

use std::collections::{HashMap, HashSet};

use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::Dfs;
use rbuild_image::{Platform, Reference};
use rbuild_llb::SourceRange;

use crate::args::Globals;
use crate::context::Contexts;
use crate::error::{Error, ErrorKind};
use crate::expand::{Expander, NoVariables};
use crate::file::StageText;
use crate::instruction::{self, Command, Instruction, Parsed};
use crate::options::NamedContext;
use crate::{parser, suggest};

/// The most ONBUILD triggers that one base may have.
pub const ONBUILD_TRIGGERS_MAX: usize = 1_000;

/// The position of a stage in its graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StageId(pub(crate) usize);

/// What a stage starts from.
#[derive(Debug, Clone)]
pub(crate) enum Base {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(StageId),
    /// A context that the caller named, instead of what the file says.
    Context(Box<NamedContext>),
    /// An image, as written and as it is understood.
    Image(String, Reference),
}

/// An instruction, and what it copies or mounts from.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub(crate) command: Command,
    /// For COPY one at most; for RUN one for each mount.
    pub(crate) sources: Vec<Option<StageId>>,
}

/// A node of the graph.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    /// The name it can be found by, in lower case; empty when it has none.
    pub(crate) name: String,
    /// What a progress display calls it.
    pub(crate) display_name: String,
    pub(crate) base: Base,
    /// `--platform`, expanded.
    pub(crate) platform: Option<Platform>,
    pub(crate) steps: Vec<Step>,
    pub(crate) comments: Vec<String>,
    pub(crate) range: SourceRange,
    /// Only a `--from` names it; it has no instructions.
    pub(crate) is_external: bool,
    triggers_fired: bool,
}

impl Stage {
    /// The base image as it is called in the file, or else `name`.
    pub(crate) fn base_name(&self, name: &str) -> String {
        match &self.base {
            Base::Image(written, _) => written.clone(),
            _ => name.to_owned(),
        }
    }
}

/// The stages of a build.
#[derive(Debug)]
pub(crate) struct Graph {
    stages: Vec<Stage>,
    by_name: HashMap<String, StageId>,
    externals: HashMap<String, StageId>,
    file_stages: usize,
    edges: DiGraph<(), ()>,
}

impl Graph {
    /// Builds the graph of a file.
    pub(crate) fn new(
        file: &[StageText],
        globals: &Globals,
        contexts: &Contexts<'_>,
        escape: char,
    ) -> Result<Self, Error> {
        let mut graph = Self {
            stages: Vec::with_capacity(file.len()),
            by_name: HashMap::new(),
            externals: HashMap::new(),
            file_stages: file.len(),
            edges: DiGraph::new(),
        };
        for stage in file {
            graph.add(stage, globals, contexts, escape).map_err(|error| error.at(stage.from.range))?;
        }
        for (index, text) in file.iter().enumerate() {
            let id = StageId(index);
            if let Base::Context(_) = graph.stages[index].base
                && graph.is_replaced(id, contexts)
            {
                continue;
            }
            let steps = text.commands.iter().map(|command| graph.step(command.clone(), contexts));
            graph.stages[index].steps = steps.collect::<Result<_, _>>()?;
            graph.connect(id);
        }
        graph.check_cycles()?;
        if let [only] = graph.stages.as_mut_slice() {
            only.display_name.clear();
        }
        Ok(graph)
    }

    /// A context of the stage's own name replaces the stage and all its instructions.
    fn is_replaced(&self, id: StageId, contexts: &Contexts<'_>) -> bool {
        let stage = &self.stages[id.0];
        !stage.name.is_empty() && contexts.find(&stage.name, stage.platform.as_ref()).is_some()
    }

    fn add(
        &mut self,
        text: &StageText,
        globals: &Globals,
        contexts: &Contexts<'_>,
        escape: char,
    ) -> Result<(), Error> {
        let expander = Expander::new(escape);
        let base = expand(&expander, &text.from.base, globals)?;
        if base.is_empty() {
            let similar = similar_argument(&expander, &text.from.base, globals);
            return Err(ErrorKind::BlankBase { expression: text.from.base.clone(), similar }.into());
        }
        let platform = text.from.platform.as_deref();
        let platform = platform.map(|written| parse_platform(&expander, written, globals)).transpose()?;
        let name = text.name.clone();
        let own = (!name.is_empty()).then(|| contexts.find(&name, platform.as_ref())).flatten();
        let base = match (own, self.by_name.get(&base)) {
            (Some(context), _) => Base::Context(Box::new(context.clone())),
            (None, Some(stage)) => Base::Stage(*stage),
            (None, None) => find_base(&base, platform.as_ref(), contexts)?,
        };
        let display_name =
            if name.is_empty() { format!("stage-{}", self.stages.len()) } else { name.clone() };
        let id = self.push(Stage {
            display_name,
            base,
            platform,
            steps: Vec::new(),
            comments: text.from.comments.clone(),
            range: text.from.range,
            is_external: false,
            triggers_fired: false,
            name,
        });
        let name = &self.stages[id.0].name;
        if !name.is_empty() {
            self.by_name.insert(name.clone(), id);
        }
        Ok(())
    }

    fn push(&mut self, stage: Stage) -> StageId {
        let id = StageId(self.stages.len());
        self.stages.push(stage);
        let node = self.edges.add_node(());
        debug_assert_eq!(node.index(), id.0, "nodes and stages are numbered alike");
        id
    }

    /// Finds what an instruction copies or mounts from.
    fn step(&mut self, command: Command, contexts: &Contexts<'_>) -> Result<Step, Error> {
        let range = command.range;
        let sources = match &command.instruction {
            Instruction::Copy(copy) => match &copy.from {
                Some(from) => vec![Some(self.copy_source(from, range, contexts)?)],
                None => Vec::new(),
            },
            Instruction::Run(run) => {
                let froms: Vec<_> = run.mounts.iter().map(|mount| mount.from.clone()).collect();
                let find = |from: Option<String>| {
                    from.map(|from| self.named_source(&from, range, contexts)).transpose()
                };
                froms.into_iter().map(find).collect::<Result<_, _>>()?
            }
            _ => Vec::new(),
        };
        Ok(Step { command, sources })
    }

    /// `COPY --from`: a position or a name.
    fn copy_source(
        &mut self,
        from: &str,
        range: SourceRange,
        contexts: &Contexts<'_>,
    ) -> Result<StageId, Error> {
        let expanded = Expander::new('\\').expand(from, &NoVariables);
        if expanded.is_ok_and(|expanded| expanded.text != from) {
            return Err(Error::new(ErrorKind::FromExpansion).at(range));
        }
        if !from.bytes().all(|byte| byte.is_ascii_digit()) {
            return self.named_source(from, range, contexts);
        }
        let index = from.parse::<usize>().ok().filter(|index| *index < self.file_stages);
        index
            .map(StageId)
            .ok_or_else(|| Error::new(ErrorKind::StageIndex { index: from.to_owned() }).at(range))
    }

    /// A stage in any case, or else something outside the file.
    fn named_source(
        &mut self,
        from: &str,
        range: SourceRange,
        contexts: &Contexts<'_>,
    ) -> Result<StageId, Error> {
        let stage = self.by_name.get(&from.to_lowercase()).or_else(|| self.externals.get(from));
        if let Some(id) = stage {
            return Ok(*id);
        }
        let id = self.push(Stage {
            name: String::new(),
            display_name: String::new(),
            base: find_base(from, None, contexts).map_err(|error| error.at(range))?,
            platform: None,
            steps: Vec::new(),
            comments: Vec::new(),
            range,
            is_external: true,
            triggers_fired: true,
        });
        self.externals.insert(from.to_owned(), id);
        Ok(id)
    }

    /// Adds the edges of a stage.
    fn connect(&mut self, id: StageId) {
        let stage = &self.stages[id.0];
        let base = match stage.base {
            Base::Stage(base) => Some(base),
            _ => None,
        };
        let used: HashSet<StageId> =
            stage.steps.iter().flat_map(|step| step.sources.iter().flatten().copied()).chain(base).collect();
        for used in used {
            self.edges.update_edge(NodeIndex::new(id.0), NodeIndex::new(used.0), ());
        }
    }

    fn check_cycles(&self) -> Result<(), Error> {
        let cycles = petgraph::algo::kosaraju_scc(&self.edges);
        let is_cycle = |members: &&Vec<NodeIndex>| {
            members.len() > 1 || members.first().is_some_and(|node| self.edges.contains_edge(*node, *node))
        };
        let first = cycles
            .iter()
            .filter(is_cycle)
            .flat_map(|members| members.iter().min().map(|first| (StageId(first.index()), members)));
        let Some((id, members)) = first.min_by_key(|(id, _)| *id) else { return Ok(()) };
        let stage = &self.stages[id.0];
        let is_member = |source: &StageId| members.contains(&NodeIndex::new(source.0));
        let to_blame = stage.steps.iter().find(|step| step.sources.iter().flatten().any(is_member));
        let range = to_blame.map_or(stage.range, |step| step.command.range);
        Err(Error::new(ErrorKind::CircularStage { stage: stage.display_name.clone() }).at(range))
    }

    /// The stage to build.
    pub(crate) fn target(&self, name: Option<&str>) -> Result<StageId, Error> {
        let Some(name) = name else { return Ok(StageId(self.file_stages - 1)) };
        self.by_name.get(&name.to_lowercase()).copied().ok_or_else(|| {
            let similar = suggest::nearest(name, self.names());
            ErrorKind::UnknownTarget { target: name.to_owned(), similar }.into()
        })
    }

    /// The names of the stages that have one.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.stages.iter().map(|stage| stage.name.as_str()).filter(|name| !name.is_empty())
    }

    /// Every stage of the file and what they need, in the order they must be lowered in.
    pub(crate) fn all(&self) -> Vec<StageId> {
        self.in_order((0..self.stages.len()).map(StageId).collect())
    }

    pub(crate) fn stage(&self, id: StageId) -> &Stage {
        &self.stages[id.0]
    }

    /// The stages that the target needs, itself included, in the order they must be lowered in: what has no
    /// instructions first, then the stages of the file.
    pub(crate) fn reachable(&self, target: StageId) -> Vec<StageId> {
        let mut walk = Dfs::new(&self.edges, NodeIndex::new(target.0));
        let found = std::iter::from_fn(|| walk.next(&self.edges)).map(|node| StageId(node.index()));
        self.in_order(found.collect())
    }

    fn in_order(&self, mut stages: Vec<StageId>) -> Vec<StageId> {
        stages.sort_by_key(|id| (!self.stages[id.0].is_external, *id));
        stages
    }

    /// Puts the triggers of a stage's base in front of its instructions, once. Whether it now needs other stages.
    pub(crate) fn fire_triggers(
        &mut self,
        id: StageId,
        inherited: &[String],
        contexts: &Contexts<'_>,
    ) -> Result<bool, Error> {
        if std::mem::replace(&mut self.stages[id.0].triggers_fired, true) {
            return Ok(false);
        }
        let mut triggers = inherited.to_vec();
        if let Base::Stage(base) = self.stages[id.0].base {
            triggers.extend(self.stages[base.0].steps.iter().filter_map(
                |step| match &step.command.instruction {
                    Instruction::Onbuild(trigger) => Some(trigger.clone()),
                    _ => None,
                },
            ));
        }
        let range = self.stages[id.0].range;
        if triggers.len() > ONBUILD_TRIGGERS_MAX {
            return Err(Error::new(ErrorKind::TooManyTriggers { max: ONBUILD_TRIGGERS_MAX }).at(range));
        }
        let mut steps = Vec::with_capacity(triggers.len() + self.stages[id.0].steps.len());
        for trigger in &triggers {
            let command = parse_trigger(trigger, range).map_err(|source| {
                Error::new(ErrorKind::Onbuild { trigger: trigger.clone(), source }).at(range)
            })?;
            steps.push(self.step(command, contexts)?);
        }
        let has_sources = steps.iter().any(|step| step.sources.iter().any(Option::is_some));
        steps.append(&mut self.stages[id.0].steps);
        self.stages[id.0].steps = steps;
        if has_sources {
            self.connect(id);
            self.check_cycles()?;
        }
        Ok(has_sources)
    }
}

/// Reads a trigger. It stands, so to say, on the line of the FROM that fires it.
fn parse_trigger(trigger: &str, range: SourceRange) -> Result<Command, Error> {
    let file = parser::parse(trigger.as_bytes())?;
    let [node] = file.nodes.as_slice() else {
        return Err(ErrorKind::OnbuildNotSingle { trigger: trigger.to_owned() }.into());
    };
    match instruction::parse(node, file.directives.escape)? {
        Parsed::Command(command) if matches!(command.instruction, Instruction::Onbuild(_)) => {
            Err(ErrorKind::OnbuildChain.into())
        }
        Parsed::Command(command) => Ok(Command { range, is_trigger: true, ..command }),
        Parsed::From(_) => Err(ErrorKind::OnbuildForbidden { instruction: "FROM".to_owned() }.into()),
    }
}

/// A name that can be none is an error whether or not anybody needs the stage, as in BuildKit.
fn find_base(name: &str, platform: Option<&Platform>, contexts: &Contexts<'_>) -> Result<Base, Error> {
    if name == "scratch" {
        return Ok(Base::Scratch);
    }
    if let Some(context) = contexts.find(name, platform) {
        return Ok(Base::Context(Box::new(context.clone())));
    }
    let reference = name.parse();
    let reference = reference.map_err(|source| ErrorKind::BaseReference { name: name.to_owned(), source })?;
    Ok(Base::Image(name.to_owned(), reference))
}

fn expand(expander: &Expander, word: &str, globals: &Globals) -> Result<String, Error> {
    let expanded = expander.expand(word, &globals.env);
    let expanded = expanded.map_err(|source| ErrorKind::Expand { word: word.to_owned(), source })?;
    Ok(expanded.text)
}

fn parse_platform(expander: &Expander, written: &str, globals: &Globals) -> Result<Platform, Error> {
    let text = expand(expander, written, globals)?;
    let expression = written.to_owned();
    if text.is_empty() {
        let similar = similar_argument(expander, written, globals);
        return Err(ErrorKind::EmptyPlatform { expression, similar }.into());
    }
    text.parse().map_err(|source| ErrorKind::Platform { expression, source }.into())
}

/// The argument that was probably meant by one that is not defined.
fn similar_argument(expander: &Expander, word: &str, globals: &Globals) -> Option<String> {
    let unmatched = expander.expand(word, &globals.env).ok()?.unmatched;
    let names = || globals.env.names().chain(globals.declared.iter().map(String::as_str));
    unmatched.iter().find_map(|name| suggest::nearest(name, names()))
}
