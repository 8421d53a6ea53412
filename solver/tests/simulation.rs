//! Random graphs, random order, faults and cancellations, against an oracle that does one thing at a time.
//!
//! A seed decides everything. The scheduler is driven without threads: of all jobs that are in flight, in one build or
//! several on the same store, the seed picks which one ends next.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rbuild_image::KeyHasher;
use rbuild_llb::{Definition, Op, SourceOp, VertexId};
use rbuild_solver::cache_map;
use rbuild_solver::pool::Desk;
use rbuild_solver::progress::EventSink as _;
use rbuild_solver::scheduler::{Command, Job, Made, Report, Reuse, Scheduler};
use rbuild_solver::testing::{
    Record, RecordedEvents, Script, ScriptError, ScriptedWorker, Store, Tree, digest_tree,
};
use rbuild_solver::{
    CacheKey, CacheMap, Contribution, Graph, KeyTrace, Outcome, Selection, SolveError, Solved, SolvedVertex,
    SourceIdentity, cache_key, record_content_keys,
};

use crate::check_events;

const SEEDS: u64 = 1_000;
const SEEDS_NIGHTLY: u64 = 100_000;
const FILES: [&str; 3] = ["/a", "/b", "/c"];
const VERTICES_MAX: u64 = 14;

#[test]
fn a_thousand_seeds() {
    (0..SEEDS).for_each(simulate);
}

#[test]
#[ignore = "takes minutes: for nightly runs"]
fn a_hundred_thousand_seeds() {
    (0..SEEDS_NIGHTLY).for_each(simulate);
}

/// Says which seed it was, when a test fails.
struct ShownSeed(u64);

impl Drop for ShownSeed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed with seed {}: replay with `simulate({0})`", self.0);
        }
    }
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        let index = self.below(items.len() as u64);
        items[usize::try_from(index).unwrap()]
    }
}

/// How to write one vertex; inputs are positions in the list, as far as they exist.
#[derive(Debug, Clone)]
struct Recipe {
    kind: u64,
    text: u64,
    inputs: [u64; 2],
    file: &'static str,
    ignore_cache: bool,
}

impl Recipe {
    fn random(random: &mut Random) -> Self {
        Self {
            kind: random.below(10),
            text: random.below(3),
            inputs: [random.next(), random.next()],
            file: random.pick(&FILES),
            ignore_cache: random.chance(4),
        }
    }
}

/// What one project looks like: its graph and its files. It changes from build to build.
#[derive(Debug, Clone)]
struct Project {
    recipes: Vec<Recipe>,
    /// How many of the last vertices are results.
    results: u64,
    files: BTreeMap<&'static str, String>,
}

impl Project {
    fn random(random: &mut Random) -> Self {
        let count = 2 + random.below(VERTICES_MAX - 2);
        let recipes = (0..count).map(|_| Recipe::random(random)).collect();
        let files = FILES.into_iter().map(|file| (file, "start".to_owned())).collect();
        let results = if random.chance(70) { 1 } else { 2 + random.below(2) };
        Self { recipes, results, files }
    }

    /// As a user edits: a file, or a line of the Dockerfile.
    fn edit(&mut self, random: &mut Random) {
        if random.chance(50) {
            let length = random.below(3);
            self.files.insert(random.pick(&FILES), "x".repeat(usize::try_from(length).unwrap()));
        }
        if random.chance(50) {
            let position = random.below(self.recipes.len() as u64);
            let recipe = &mut self.recipes[usize::try_from(position).unwrap()];
            recipe.text = random.below(3);
            recipe.ignore_cache = random.chance(10);
        }
    }

    fn definition(&self) -> Definition {
        let mut script = Script::new();
        let image = script.image("base");
        let context = script.local("context");
        let mut made = vec![image];
        for recipe in &self.recipes {
            let input =
                |index: usize| made[usize::try_from(recipe.inputs[index] % made.len() as u64).unwrap()];
            let vertex = write(&mut script, recipe, context, input(0), input(1));
            if recipe.ignore_cache && vertex != image {
                script.ignore_cache(vertex);
            }
            made.push(vertex);
        }
        let results = made.len().min(usize::try_from(self.results).unwrap());
        script.results(&made[made.len() - results..])
    }

    fn worker(&self, store: &Arc<Store>) -> ScriptedWorker {
        let files: Vec<(&str, &str)> = self.files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        ScriptedWorker::new(store).with_local("context", &files)
    }
}

fn write(script: &mut Script, recipe: &Recipe, context: VertexId, one: VertexId, two: VertexId) -> VertexId {
    let Recipe { text, file, .. } = recipe;
    match recipe.kind {
        0 => script.image(&format!("image{text}")),
        1 | 2 => script.run(&format!("append {file} {text}"), &[one]),
        3 => script.run(&format!("length {file} /length"), &[one]),
        4 => script.run(&format!("write {file} {text}"), &[one]),
        5 => script.run(&format!("join {file}"), &[one, two]),
        6 => script.copy(one, context, file, &format!("/copied{text}")),
        7 => script.linked_copy(context, file, &format!("/linked{text}")),
        8 => script.copy(one, two, file, file),
        _ => script.merge(&[one, two]),
    }
}

/// A build that is under way.
struct Running<'a> {
    desk: Desk<'a, ScriptedWorker>,
    scheduler: Scheduler<'a, Tree, ScriptError>,
    events: &'a RecordedEvents,
    jobs: Vec<Job<Tree>>,
}

impl Running<'_> {
    fn obey(&mut self, commands: Vec<Command<Tree>>) {
        for command in commands {
            match command {
                Command::Emit(event) => self.events.emit(event),
                Command::Start(job) => self.jobs.push(job),
                Command::Stop => self.desk.stop(),
            }
        }
    }

    fn end_one(&mut self, random: &mut Random, runs: &mut HashMap<CacheKey, usize>) {
        let job = self.jobs.swap_remove(usize::try_from(random.below(self.jobs.len() as u64)).unwrap());
        let counted = match &job {
            Job::Run { step, reuse: Reuse::ByDefinition, .. } => Some(step.key),
            _ => None,
        };
        let report = self.desk.carry_out(job);
        if let (Some(key), Report::Ran { made: Made::Here(_), .. }) = (counted, &report) {
            *runs.entry(key).or_default() += 1;
        }
        let commands = self.scheduler.handle(report);
        self.obey(commands);
    }
}

type Result = std::result::Result<Solved<Tree>, SolveError<ScriptError>>;

/// Carries out builds beside each other, and checks what must hold of each.
fn run_beside_each_other(
    builds: &[(Definition, ScriptedWorker)],
    random: &mut Random,
    cancel_percent: u64,
    runs: &mut HashMap<CacheKey, usize>,
) -> Vec<Result> {
    let events: Vec<RecordedEvents> = builds.iter().map(|_| RecordedEvents::default()).collect();
    let graphs: Vec<Graph<'_>> =
        builds.iter().map(|(definition, _)| Graph::new(definition).unwrap()).collect();
    let mut running: Vec<Running<'_>> = Vec::new();
    for ((graph, (_, worker)), events) in graphs.iter().zip(builds).zip(&events) {
        let jobs = NonZeroUsize::new(1 + usize::try_from(random.below(6)).unwrap()).unwrap();
        let (desk, scheduler) = (Desk::new(graph, worker, events), Scheduler::new(graph, jobs));
        let mut build = Running { desk, scheduler, events, jobs: Vec::new() };
        let commands = build.scheduler.start();
        build.obey(commands);
        running.push(build);
    }
    loop {
        let mut going: Vec<&mut Running<'_>> =
            running.iter_mut().filter(|build| !build.scheduler.is_over()).collect();
        if going.is_empty() {
            break;
        }
        let chosen = usize::try_from(random.below(going.len() as u64)).unwrap();
        if random.chance(cancel_percent) {
            let commands = going[chosen].scheduler.cancel();
            going[chosen].obey(commands);
        }
        going[chosen].end_one(random, runs);
    }
    let results: Vec<Result> = running.into_iter().map(|build| build.scheduler.finish()).collect();
    for (result, events) in results.iter().zip(&events) {
        check_events(&events.take(), result.is_ok());
    }
    results
}

fn simulate(seed: u64) {
    let _shown = ShownSeed(seed);
    let random = &mut Random(seed);
    let store = Arc::new(Store::default());
    let mut project = Project::random(random);
    let mut runs = HashMap::new();
    for _ in 0..1 + random.below(4) {
        match random.below(3) {
            0 => alone(&project, &store, random, &mut runs),
            1 => beside_each_other(&project, &store, random, &mut runs),
            _ => with_trouble(&project, &store, random, &mut runs),
        }
        if random.chance(20) {
            forget_one(&store, random, &mut runs);
        }
        project.edit(random);
    }
    alone(&project, &store, random, &mut runs);
    for (key, count) in runs {
        assert_eq!(count, 1, "the step with key {key} ran {count} times");
    }
}

/// As pruning does: the step may run once more.
fn forget_one(store: &Store, random: &mut Random, runs: &mut HashMap<CacheKey, usize>) {
    let mut keys: Vec<CacheKey> = store.snapshot().into_keys().collect();
    keys.sort_unstable();
    if !keys.is_empty() {
        let key = random.pick(&keys);
        store.forget(key);
        runs.remove(&key);
    }
}

/// One build and then the same again, compared in full with the oracle.
fn alone(project: &Project, store: &Arc<Store>, random: &mut Random, runs: &mut HashMap<CacheKey, usize>) {
    compare(project, store, random, runs);
    let (oracle_ran, must_run) = compare(project, store, random, runs);
    assert_eq!(oracle_ran, must_run, "the second build of the same has to run something else");
}

/// One build, compared in full with the oracle. What the oracle ran, and what of it ignores the cache.
fn compare(
    project: &Project,
    store: &Arc<Store>,
    random: &mut Random,
    runs: &mut HashMap<CacheKey, usize>,
) -> (BTreeSet<VertexId>, BTreeSet<VertexId>) {
    let definition = project.definition();
    let before = store.snapshot();
    let worker = project.worker(store);
    let oracle = Oracle::solve(&definition, &worker, before.clone());
    let builds = [(definition.clone(), project.worker(store))];
    let solved = run_beside_each_other(&builds, random, 0, runs).remove(0).unwrap();
    assert_eq!(trees(&solved), oracle.outputs);
    assert_eq!(trees(&solved), expected_outputs(&definition, &worker));
    let ran: Vec<&SolvedVertex> =
        solved.vertices.iter().filter(|solved| matches!(solved.outcome, Outcome::Ran(_))).collect();
    for vertex in &ran {
        check_run_was_needed(&oracle, vertex, &ran, &before);
    }
    let ran: BTreeSet<VertexId> = ran.into_iter().map(|solved| solved.vertex).collect();
    assert!(oracle.must_run.is_subset(&ran), "a step that ignores the cache did not run");
    record_content_keys(&definition, &builds[0].1, &solved.unkeyed, &AtomicBool::new(false)).unwrap();
    (oracle.ran, oracle.must_run)
}

/// The oracle would have run it too. Or it would have found, by content key, what another step of this very build
/// made: its record may not have that key yet, and nobody waits for it.
fn check_run_was_needed(
    oracle: &Oracle<'_>,
    vertex: &SolvedVertex,
    ran: &[&SolvedVertex],
    before: &HashMap<CacheKey, Record>,
) {
    let made_anew = |key: &CacheKey| ran.iter().any(|other| other.key == Some(*key));
    let was_there = |content_key: CacheKey| {
        before.iter().any(|(key, record)| record.content_key == Some(content_key) && !made_anew(key))
    };
    let needed = oracle.ran.contains(&vertex.vertex)
        || oracle.cut_off.get(&vertex.vertex).is_some_and(|content_key| !was_there(*content_key));
    assert!(needed, "{vertex:?} ran, which was not needed");
}

/// Several builds of two versions at once: all come out right, and nothing runs twice.
fn beside_each_other(
    project: &Project,
    store: &Arc<Store>,
    random: &mut Random,
    runs: &mut HashMap<CacheKey, usize>,
) {
    let mut edited = project.clone();
    edited.edit(random);
    let projects: Vec<&Project> =
        (0..2 + random.below(2)).map(|_| random.pick(&[project, &edited])).collect();
    let builds: Vec<_> =
        projects.iter().map(|project| (project.definition(), project.worker(store))).collect();
    let results = run_beside_each_other(&builds, random, 0, runs);
    for (result, (definition, worker)) in results.into_iter().zip(&builds) {
        assert_eq!(trees(&result.unwrap()), expected_outputs(definition, worker));
    }
}

/// Builds in which a step fails or which are cancelled.
fn with_trouble(
    project: &Project,
    store: &Arc<Store>,
    random: &mut Random,
    runs: &mut HashMap<CacheKey, usize>,
) {
    let definition = project.definition();
    let ids: Vec<VertexId> = definition.ids().collect();
    let faulty = definition.vertex(random.pick(&ids)).meta.name.clone();
    let builds = [
        (definition.clone(), project.worker(store).with_fault(&faulty)),
        (definition.clone(), project.worker(store)),
    ];
    for (result, (_, worker)) in run_beside_each_other(&builds, random, 5, runs).into_iter().zip(&builds) {
        match result {
            Ok(solved) => assert_eq!(trees(&solved), expected_outputs(&definition, worker)),
            Err(SolveError::Vertex { name, .. }) => assert_eq!(name, faulty),
            Err(SolveError::Cancelled) => {}
            Err(error) => panic!("unexpected error: {error:?}"),
        }
    }
}

fn trees(solved: &Solved<Tree>) -> Vec<Tree> {
    solved.outputs.iter().cloned().map(Option::unwrap).collect()
}

/// The results, made without any cache.
fn expected_outputs(definition: &Definition, worker: &ScriptedWorker) -> Vec<Tree> {
    let mut made: Vec<Vec<Tree>> = Vec::new();
    for vertex in definition.vertices() {
        let inputs: Vec<Tree> =
            vertex.inputs.iter().map(|edge| made[edge.vertex.index()][0].clone()).collect();
        made.push(worker.evaluate(vertex, &inputs).unwrap());
    }
    targets(definition).map(|id| made[id.index()][0].clone()).collect()
}

fn targets(definition: &Definition) -> impl Iterator<Item = VertexId> {
    definition.targets().iter().flatten().map(|edge| edge.vertex)
}

/// A solver as one would write it on paper: recursive, one step at a time.
struct Oracle<'a> {
    definition: &'a Definition,
    worker: &'a ScriptedWorker,
    records: HashMap<CacheKey, Record>,
    made: HashMap<VertexId, Tree>,
    outputs: Vec<Tree>,
    /// What it ran.
    ran: BTreeSet<VertexId>,
    /// What it found by content key, and that key.
    cut_off: BTreeMap<VertexId, CacheKey>,
    /// What ignores the cache, or is put together of what does.
    must_run: BTreeSet<VertexId>,
}

impl<'a> Oracle<'a> {
    fn solve(
        definition: &'a Definition,
        worker: &'a ScriptedWorker,
        records: HashMap<CacheKey, Record>,
    ) -> Self {
        let (made, outputs) = (HashMap::new(), Vec::new());
        let (ran, cut_off, must_run) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
        let mut oracle = Self { definition, worker, records, made, outputs, ran, cut_off, must_run };
        oracle.outputs = targets(definition).map(|target| oracle.make(target)).collect();
        oracle
    }

    fn make(&mut self, id: VertexId) -> Tree {
        if let Some(made) = self.made.get(&id) {
            return made.clone();
        }
        let tree = self.find_or_make(id);
        self.made.insert(id, tree.clone());
        tree
    }

    fn find_or_make(&mut self, id: VertexId) -> Tree {
        let vertex = self.definition.vertex(id);
        let map = CacheMap::of(vertex);
        let trace = self.trace(id);
        if !self.is_tainted(id)
            && let Some(record) = self.records.get(&trace.key())
        {
            return record.outputs[0].clone();
        }
        let inputs: Vec<Tree> = vertex.inputs.iter().map(|edge| self.make(edge.vertex)).collect();
        let contents: Vec<_> = inputs
            .iter()
            .zip(&map.inputs)
            .map(|(tree, request)| digest_tree(tree, &request.selection))
            .collect();
        let has_content_key = cache_map::has_content_key(&vertex.op);
        let content_key = has_content_key.then(|| cache_key::content_key(map.op, &contents));
        let matching = |record: &&Record| content_key.is_some() && record.content_key == content_key;
        let found = self.records.values().find(matching).filter(|_| !vertex.meta.ignore_cache).cloned();
        let record = found.inspect(|_| {
            self.cut_off.extend(content_key.map(|content_key| (id, content_key)));
        });
        let record = record.unwrap_or_else(|| {
            if !matches!(vertex.op, Op::Source(SourceOp::Local(_))) {
                self.ran.insert(id);
            }
            // A merge has no content key by which it could be found.
            if vertex.meta.ignore_cache || self.is_tainted(id) && !has_content_key {
                self.must_run.insert(id);
            }
            Record { outputs: self.worker.evaluate(vertex, &inputs).unwrap(), op: map.op, content_key }
        });
        let tree = record.outputs[0].clone();
        self.records.insert(trace.key(), record);
        tree
    }

    fn is_tainted(&self, id: VertexId) -> bool {
        let vertex = self.definition.vertex(id);
        vertex.meta.ignore_cache || vertex.inputs.iter().any(|edge| self.is_tainted(edge.vertex))
    }

    fn trace(&self, id: VertexId) -> KeyTrace {
        let vertex = self.definition.vertex(id);
        let map = CacheMap::of(vertex);
        let mut contributions = Vec::new();
        match &vertex.op {
            Op::Source(SourceOp::Image(image)) => {
                let mut hasher = KeyHasher::new("test.image.v1");
                let identity = hasher.str(&image.reference.to_string()).finish();
                contributions.push(Contribution::Identity(SourceIdentity(identity)));
            }
            Op::Source(SourceOp::Local(_)) => {
                let tree = &self.worker.evaluate(vertex, &[]).unwrap()[0];
                let identity = digest_tree(tree, &Selection::Whole).0;
                contributions.push(Contribution::Identity(SourceIdentity(identity)));
            }
            _ => {}
        }
        for (edge, request) in vertex.inputs.iter().zip(map.inputs) {
            let input = self.definition.vertex(edge.vertex);
            contributions.push(if matches!(input.op, Op::Source(SourceOp::Local(_))) {
                let tree = &self.worker.evaluate(input, &[]).unwrap()[0];
                Contribution::Content(digest_tree(tree, &request.selection))
            } else {
                let key = self.trace(edge.vertex).key();
                Contribution::Definition { key, output: edge.output, selection: request.selection }
            });
        }
        KeyTrace { op: map.op, inputs: contributions }
    }
}
