//! Provenance: how a result was made, said in SLSA's forms and in BuildKit's words, so that what reads one reads the other.
//!
//! | field | min | max |
//! |---|---|---|
//! | what was built from: images, repositories, files of web servers, with their digests | yes | yes |
//! | when, by whom, for which request | yes | yes |
//! | build arguments and labels | no | yes |
//! | which secrets and agents steps ask for, by their ids | no | yes |
//! | the steps (`ops`), and the Dockerfile with the lines that each comes from | no | yes |
//!
//! Values of secrets are not in a definition; proxies and credentials of URLs are taken out of it before.

mod ops;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rbuild_image::{Platform, Reference, package_url};
use rbuild_llb::{
    Definition, ExecOp, MountKind, Network, Op, SourceOp, Vertex, VertexId, without_credentials,
};
use serde_json::{Map, Value, json};

use crate::explain::public;
use crate::images::Predicate;

const BUILD_TYPE: &str = "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md";
const BUILD_TYPE_V02: &str = "https://mobyproject.org/buildkit@v1";
/// Arguments of the request that only the whole provenance holds begin with one of these.
const VALUES: [&str; 2] = ["build-arg:", "label:"];

/// How much is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Detail {
    /// Nothing that could be private.
    Min,
    /// All that is known.
    #[default]
    Max,
}

/// In which form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// SLSA 1.
    #[default]
    V1,
    /// SLSA 0.2, which older readers know.
    V02,
}

/// The digest of a source: the name of the algorithm, and hex digits.
pub type SourceDigest = (&'static str, String);

/// A build, as far as it is said how it went.
#[derive(Clone, Copy)]
pub struct Provenance<'a> {
    /// What was done.
    pub definition: &'a Definition,
    /// What sources turned out to be.
    pub pinned: &'a dyn Fn(&SourceOp) -> Option<SourceDigest>,
    /// What was asked for.
    pub request: &'a Request,
    /// Who built.
    pub builder_id: &'a str,
    /// Which build it was.
    pub invocation_id: &'a str,
    /// When it began, RFC 3339.
    pub started: &'a str,
    /// When it ended, RFC 3339.
    pub finished: &'a str,
    /// Whether the user says that it gives the same bytes each time.
    pub reproducible: bool,
    /// How much is said.
    pub detail: Detail,
    /// In which form.
    pub form: Form,
    /// What the file is called that says it beside files, if one is to.
    pub file: Option<&'a str>,
}

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// What the Dockerfile is called.
    pub dockerfile_name: String,
    /// The Dockerfile.
    pub dockerfile: Vec<u8>,
    /// The main context, where that is elsewhere.
    pub context: Option<SourceOp>,
    /// Arguments by BuildKit's names for them: `target`, `build-arg:NAME`, `label:NAME`.
    pub arguments: BTreeMap<String, String>,
}

impl fmt::Debug for Provenance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provenance").field("invocation_id", &self.invocation_id).finish_non_exhaustive()
    }
}

impl Provenance<'_> {
    /// What is to be said of the result.
    pub fn predicate(&self) -> Predicate {
        let steps = Steps::of(self.definition);
        let locals = self.locals(&steps);
        let materials = self.materials(&steps);
        let content = json!({
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "configSource": self.config_source(),
                    "request": self.request(&steps, &locals),
                },
                "internalParameters": self.internal(&steps),
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": { "id": self.builder_id },
                "metadata": {
                    "invocationID": self.invocation_id,
                    "startedOn": self.started,
                    "finishedOn": self.finished,
                    "buildkit_metadata": self.metadata(&steps),
                    "buildkit_hermetic": locals.is_empty() && !steps.execs().any(uses_network),
                    "buildkit_completeness": {
                        "request": self.arguments().count() == self.request.arguments.len(),
                        "resolvedDependencies": locals.is_empty(),
                    },
                    "buildkit_reproducible": self.reproducible,
                },
            },
        });
        let (version, content) = match self.form {
            Form::V1 => ("v1", content),
            Form::V02 => ("v0.2", older(content)),
        };
        let kind = format!("https://slsa.dev/provenance/{version}");
        Predicate { kind, content, subjects: Vec::new(), file: self.file.map(str::to_owned) }
    }

    /// The directories that were read, of which nobody else can know what was in them.
    fn locals(&self, steps: &Steps<'_>) -> BTreeSet<String> {
        let name = |source: &SourceOp| match source {
            SourceOp::Local(local) => Some(local.name.clone()),
            _ => None,
        };
        let dockerfile = self.request.context.is_none().then(|| "dockerfile".to_owned());
        steps.sources().filter_map(name).chain(dockerfile).collect()
    }

    fn config_source(&self) -> Value {
        let context = self.request.context.as_ref().and_then(|source| self.material(source, None));
        let mut said = context.unwrap_or_default();
        said.insert("path".to_owned(), json!(self.request.dockerfile_name));
        Value::Object(said)
    }

    fn request(&self, steps: &Steps<'_>, locals: &BTreeSet<String>) -> Value {
        let mut said = json!({
            "frontend": "dockerfile.v0",
            "args": self.arguments().collect::<BTreeMap<_, _>>(),
            "locals": locals.iter().map(|name| json!({ "name": name })).collect::<Vec<_>>(),
        });
        if self.detail == Detail::Max {
            for (name, found) in [("secrets", steps.secrets()), ("ssh", steps.agents())] {
                let entry = |(id, optional)| json!({ "id": id, "optional": optional });
                said[name] = found.into_iter().map(entry).collect();
            }
        }
        said
    }

    /// The arguments that are told.
    fn arguments(&self) -> impl Iterator<Item = (&String, &String)> {
        let is_told = |(name, _): &(&String, &String)| {
            self.detail == Detail::Max || !VALUES.iter().any(|prefix| name.starts_with(prefix))
        };
        self.request.arguments.iter().filter(is_told)
    }

    fn internal(&self, steps: &Steps<'_>) -> Value {
        let mut said = json!({ "builderPlatform": Platform::host().to_string() });
        if self.detail == Detail::Max {
            said["buildConfig"] = json!({ "llbDefinition": steps.definition() });
        }
        said
    }

    fn metadata(&self, steps: &Steps<'_>) -> Value {
        if self.detail == Detail::Min {
            return json!({});
        }
        let info = json!({
            "filename": self.request.dockerfile_name,
            "language": "Dockerfile",
            "data": STANDARD.encode(&self.request.dockerfile),
        });
        json!({ "source": { "locations": steps.locations(), "infos": [info] } })
    }

    /// What the result was made of, each once, in the order of their names.
    fn materials(&self, steps: &Steps<'_>) -> Vec<Value> {
        let material = |vertex: &&Vertex| match &vertex.op {
            Op::Source(source) => self.material(source, vertex.platform.as_ref()),
            _ => None,
        };
        let found = steps.vertices().filter_map(|vertex| material(&vertex));
        let context = self.request.context.as_ref().and_then(|source| self.material(source, None));
        let by_name = found.chain(context).map(|material| (material["uri"].to_string(), material));
        by_name.collect::<BTreeMap<_, _>>().into_values().map(Value::Object).collect()
    }

    fn material(&self, source: &SourceOp, platform: Option<&Platform>) -> Option<Map<String, Value>> {
        let host = Platform::host();
        let uri = match source {
            SourceOp::Image(image) => image_url(&image.reference, platform.unwrap_or(&host)),
            SourceOp::OciLayout(layout) => {
                format!("pkg:oci/{}?platform={}", layout.store, escaped(platform.unwrap_or(&host)))
            }
            SourceOp::Git(git) if git.git_ref.is_empty() => without_credentials(&git.remote),
            SourceOp::Git(git) => format!("{}#{}", without_credentials(&git.remote), git.git_ref),
            SourceOp::Http(http) => without_credentials(&http.url),
            SourceOp::Local(_) => return None,
        };
        let digest: BTreeMap<_, _> = (self.pinned)(source).into_iter().collect();
        let fields = [("uri".to_owned(), json!(uri)), ("digest".to_owned(), json!(digest))];
        Some(fields.into_iter().collect())
    }
}

/// The same in the older form.
fn older(mut said: Value) -> Value {
    let (mut defined, mut run) = (said["buildDefinition"].take(), said["runDetails"].take());
    let (outer, inner) = (defined["externalParameters"].take(), defined["internalParameters"].take());
    let mut metadata = run["metadata"].take();
    let mut source = outer["configSource"].clone();
    if let Some(source) = source.as_object_mut() {
        let path = source.remove("path");
        source.extend(path.map(|path| ("entryPoint".to_owned(), path)));
    }
    let mut older = json!({
        "builder": run["builder"].take(),
        "buildType": BUILD_TYPE_V02,
        "materials": defined["resolvedDependencies"].take(),
        "invocation": {
            "configSource": source,
            "parameters": outer["request"],
            "environment": { "platform": inner["builderPlatform"] },
        },
        "metadata": {
            "buildInvocationID": metadata["invocationID"].take(),
            "buildStartedOn": metadata["startedOn"].take(),
            "buildFinishedOn": metadata["finishedOn"].take(),
            "completeness": {
                "parameters": metadata["buildkit_completeness"]["request"].take(),
                "environment": true,
                "materials": metadata["buildkit_completeness"]["resolvedDependencies"].take(),
            },
            "reproducible": metadata["buildkit_reproducible"].take(),
            "https://mobyproject.org/buildkit@v1#metadata": metadata["buildkit_metadata"].take(),
            "https://mobyproject.org/buildkit@v1#hermetic": metadata["buildkit_hermetic"].take(),
        },
    });
    if let Some(steps) = inner.get("buildConfig") {
        older["buildConfig"] = steps.clone();
    }
    older
}

/// An image is known by its tag, where it has one: its digest stands beside.
fn image_url(reference: &Reference, platform: &Platform) -> String {
    match reference.tag() {
        Some(tag) => package_url(&reference.with_tag(tag), platform),
        None => package_url(reference, platform),
    }
}

fn escaped(platform: &Platform) -> String {
    platform.to_string().replace('/', "%2F")
}

fn uses_network(exec: &ExecOp) -> bool {
    exec.network != Network::None
}

/// The steps that a result depends on, inputs before users.
struct Steps<'a> {
    definition: &'a Definition,
    /// Their numbers, by vertex.
    numbers: BTreeMap<VertexId, usize>,
}

impl<'a> Steps<'a> {
    fn of(definition: &'a Definition) -> Self {
        let mut needed: BTreeSet<VertexId> =
            definition.targets().iter().flatten().map(|edge| edge.vertex).collect();
        for id in definition.ids().rev() {
            if needed.contains(&id) {
                needed.extend(definition.vertex(id).inputs.iter().map(|edge| edge.vertex));
            }
        }
        Self { definition, numbers: needed.into_iter().zip(0..).collect() }
    }

    fn vertices(&self) -> impl Iterator<Item = &'a Vertex> {
        self.numbers.keys().map(|id| self.definition.vertex(*id))
    }

    fn sources(&self) -> impl Iterator<Item = &'a SourceOp> {
        self.vertices().filter_map(|vertex| match &vertex.op {
            Op::Source(source) => Some(source),
            _ => None,
        })
    }

    fn execs(&self) -> impl Iterator<Item = &'a ExecOp> {
        self.vertices().filter_map(|vertex| match &vertex.op {
            Op::Exec(exec) => Some(exec),
            _ => None,
        })
    }

    /// The secrets that steps ask for, and whether they go on without.
    fn secrets(&self) -> BTreeMap<&'a str, bool> {
        let of_step = |exec: &'a ExecOp| {
            let files = exec.mounts.iter().filter_map(|mount| match &mount.kind {
                MountKind::Secret(secret) => Some((secret.id.as_str(), secret.optional)),
                _ => None,
            });
            files.chain(exec.secret_env.iter().map(|secret| (secret.id.as_str(), secret.optional)))
        };
        self.execs().flat_map(of_step).collect()
    }

    /// The agents that steps ask for, and whether they go on without.
    fn agents(&self) -> BTreeMap<&'a str, bool> {
        let mounts = self.execs().flat_map(|exec| &exec.mounts);
        mounts
            .filter_map(|mount| match &mount.kind {
                MountKind::Ssh(socket) => Some((socket.id.as_str(), socket.optional)),
                _ => None,
            })
            .collect()
    }

    /// The steps, and at the end one that does nothing and depends on the result.
    fn definition(&self) -> Vec<Value> {
        let name = |edge: &rbuild_llb::Edge| format!("step{}:{}", self.numbers[&edge.vertex], edge.output.0);
        let step = |(number, vertex): (usize, &Vertex)| {
            let inputs: Vec<_> = vertex.inputs.iter().map(name).collect();
            json!({ "id": format!("step{number}"), "op": ops::op(&public(vertex)), "inputs": inputs })
        };
        let mut steps: Vec<_> = self.vertices().enumerate().map(step).collect();
        let results: Vec<_> = self.definition.targets().iter().flatten().map(name).collect();
        steps.push(json!({ "id": format!("step{}", steps.len()), "op": { "Op": {} }, "inputs": results }));
        steps
    }

    /// The lines of the Dockerfile that steps come from.
    fn locations(&self) -> Map<String, Value> {
        let location = |(number, vertex): (usize, &Vertex)| {
            let source = vertex.meta.source?;
            let line = |line| json!({ "line": line });
            let range = json!({ "start": line(source.line_first), "end": line(source.line_last) });
            Some((format!("step{number}"), json!({ "locations": [{ "ranges": [range] }] })))
        };
        self.vertices().enumerate().filter_map(location).collect()
    }
}

#[cfg(test)]
mod tests;
