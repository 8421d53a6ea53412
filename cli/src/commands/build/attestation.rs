//! `--attest`, `--provenance` and `--sbom`: what is said of the result beside it, in BuildKit's spelling.
//!
//! ```text
//! --provenance=true|false|mode=min|max[,version=v1|v0.2][,builder-id=URL][,reproducible=true]     how it was made
//!             [,filename=NAME][,inline-only=true]                              beside files, or not
//! --sbom=true|false|generator=IMAGE[,KEY=VALUE]                                 what it is made of, says a scanner
//! --attest type=provenance|sbom,…                                               either
//! ```
//!
//! Nothing is said unless it is asked for: when a build was made differs each time, and with it the index.

use std::collections::BTreeMap;

use rbuild_frontend::sbom::{self, MAIN_STATEMENT, Scanner};
use rbuild_frontend::{ImageResolver as _, Lowered, MainContext, csv, is_proxy, parse_bool};
use rbuild_image::{Platform, Reference};
use rbuild_llb::{Definition, ResolveMode, SourceOp, without_credentials};
use rbuild_solver::images::Images;
use rbuild_solver::local::Pins;
use rbuild_solver::provenance::{Detail, Form, Provenance, Request};
use rbuild_solver::shared::Tree;

use super::base::StoreResolver;
use super::input::Input;
use super::output::Built;
use super::settings::Settings;
use crate::app::unix_now_ns;
use crate::args::BuildArgs;
use crate::commands::reference;
use crate::fields::{FieldError, Fields};
use crate::format::rfc3339_ns;
use crate::report::{Failure, Kind};

/// BuildKit's own.
const GENERATOR: &str = "docker/buildkit-syft-scanner:stable-1";
/// What provenance is called beside files.
const FILE: &str = "provenance.json";
/// What fields are of, for messages.
const WHAT: &str = "attestation";
const NS_OF_MS: i64 = 1_000_000;

/// What is to be said of the result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attestations {
    pub(crate) provenance: Option<ProvenanceSpec>,
    sbom: Option<SbomSpec>,
}

/// How it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProvenanceSpec {
    detail: Detail,
    form: Form,
    builder_id: String,
    reproducible: bool,
    /// What it is called beside files; `inline-only` is for images alone.
    file: Option<String>,
}

/// What it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SbomSpec {
    generator: Reference,
    parameters: BTreeMap<String, String>,
}

impl Attestations {
    /// Reads the words of the command line.
    ///
    /// # Errors
    /// When one is malformed.
    pub(crate) fn parse(args: &BuildArgs) -> Result<Self, Failure> {
        let mut asked: BTreeMap<String, Fields> = BTreeMap::new();
        let words = args.attestations.iter().filter(|word| !word.is_empty());
        let mut words = words.map(|word| typed(word)).collect::<Result<Vec<_>, _>>()?;
        for (kind, word) in [("provenance", &args.provenance), ("sbom", &args.sbom)] {
            if let Some(word) = word.as_deref().filter(|word| !word.is_empty()) {
                words.push((kind.to_owned(), short(word)?));
            }
        }
        // The last word decides.
        asked.extend(words);
        let mut wanted = |kind| -> Result<Option<Fields>, Failure> {
            let Some(mut fields) = asked.remove(kind) else { return Ok(None) };
            let is_disabled = flag(&mut fields, "disabled").map_err(refused)?;
            Ok((!is_disabled).then_some(fields))
        };
        Ok(Self {
            provenance: wanted("provenance")?.map(provenance).transpose().map_err(refused)?,
            sbom: wanted("sbom")?.map(sbom).transpose()?,
        })
    }

    /// The builds of the scans of results, as many as there are results, or none.
    ///
    /// # Errors
    /// When the scanner cannot be had, or is none.
    pub(crate) fn scans(
        &self,
        lowered: &[Lowered],
        resolver: &StoreResolver<'_>,
    ) -> Result<Vec<Definition>, Failure> {
        let Some(sbom) = &self.sbom else { return Ok(Vec::new()) };
        let (platform, mode) = (Platform::host(), ResolveMode::Default);
        let image = resolver.resolve(&sbom.generator, &platform, mode);
        let image = image.map_err(|error| Failure::caused_by(Kind::Remote, &error))?;
        let scanner = Scanner { image, platform, parameters: sbom.parameters.clone() };
        let scan = |lowered: &Lowered| {
            sbom::scan(&lowered.definition, &lowered.config.platform, &scanner)
                .map_err(|error| Failure::caused_by(Kind::Input, &error))
        };
        lowered.iter().map(scan).collect()
    }
}

/// `type=KIND,…`.
fn typed(word: &str) -> Result<(String, Fields), Failure> {
    let mut fields = fields(word)?;
    let missing = || Failure::new(Kind::Input, format!("attestation `{word}` has no `type=`"));
    let kind = fields.take("type").ok_or_else(missing)?;
    if matches!(kind.as_str(), "provenance" | "sbom") {
        return Ok((kind, fields));
    }
    let message = format!("unknown attestation type `{kind}` (expected provenance or sbom)");
    Err(Failure::new(Kind::Input, message))
}

/// `true`, `false`, or fields.
fn short(word: &str) -> Result<Fields, Failure> {
    match parse_bool(word) {
        Some(on) => Ok(Fields::of(WHAT, [("disabled".to_owned(), (!on).to_string())].into())),
        None => fields(word),
    }
}

fn fields(word: &str) -> Result<Fields, Failure> {
    let malformed = |why: &str| Failure::new(Kind::Input, format!("attestation `{word}`: {why}"));
    let field = |field: String| {
        let (key, value) = field.split_once('=').ok_or_else(|| malformed("expected KEY=VALUE"))?;
        Ok::<_, Failure>((key.trim().to_owned(), value.to_owned()))
    };
    let pairs = csv::split(word).map_err(malformed)?.into_iter().map(field).collect::<Result<_, _>>()?;
    Ok(Fields::of(WHAT, pairs))
}

/// Takes a field that is a flag.
fn flag(fields: &mut Fields, key: &str) -> Result<bool, FieldError> {
    Ok(fields.parse(key, parse_bool)?.unwrap_or(false))
}

fn refused(error: FieldError) -> Failure {
    Failure::new(Kind::Input, error.to_string())
}

fn provenance(mut fields: Fields) -> Result<ProvenanceSpec, FieldError> {
    let detail = fields.parse("mode", |mode| match mode {
        "max" | "full" => Some(Detail::Max),
        "min" => Some(Detail::Min),
        _ => None,
    })?;
    let form = fields.parse("version", |version| match version {
        "v1" => Some(Form::V1),
        "v0.2" => Some(Form::V02),
        _ => None,
    })?;
    let reproducible = flag(&mut fields, "reproducible")?;
    let file = fields.take("filename").unwrap_or_else(|| FILE.to_owned());
    let file = (!flag(&mut fields, "inline-only")?).then_some(file);
    let builder_id = fields.take("builder-id").unwrap_or_default();
    fields.nothing_left("provenance")?;
    let (detail, form) = (detail.unwrap_or(Detail::Max), form.unwrap_or(Form::V1));
    Ok(ProvenanceSpec { detail, form, builder_id, reproducible, file })
}

/// What is not the scanner's name is told to it.
fn sbom(mut fields: Fields) -> Result<SbomSpec, Failure> {
    let generator = fields.take("generator").filter(|name| !name.is_empty());
    let generator = reference(generator.as_deref().unwrap_or(GENERATOR))?;
    Ok(SbomSpec { generator, parameters: fields.rest() })
}

/// Says of each result what its scan found.
///
/// # Errors
/// When a scanner wrote something else than statements.
pub(super) fn add_scans(built: &mut [Built], scans: &[Option<Tree>], images: &Images) -> Result<(), Failure> {
    for (built, scan) in built.iter_mut().zip(scans) {
        if let Some(Tree::Here(found)) = scan {
            built.predicates.extend(images.unbundle(found, MAIN_STATEMENT)?);
        }
    }
    Ok(())
}

/// Who is asked how a result was made.
pub(super) struct Witness<'a> {
    pub(super) settings: &'a Settings,
    pub(super) input: &'a Input,
    pub(super) pins: &'a Pins,
    pub(super) invocation_id: &'a str,
    /// When the build began, Unix milliseconds.
    pub(super) started_ms: i64,
}

impl Witness<'_> {
    /// Says of each result how it was made, where that is asked for.
    pub(super) fn testify(&self, built: &mut [Built]) {
        let Some(spec) = &self.settings.attestations.provenance else { return };
        let request = self.request();
        let pinned = |source: &SourceOp| self.pins.digest_of(source);
        let (started, finished) = (rfc3339_ns(self.started_ms * NS_OF_MS), rfc3339_ns(unix_now_ns()));
        for built in built {
            let provenance = Provenance {
                definition: &built.lowered.definition,
                pinned: &pinned,
                request: &request,
                builder_id: &spec.builder_id,
                invocation_id: self.invocation_id,
                started: &started,
                finished: &finished,
                reproducible: spec.reproducible,
                detail: spec.detail,
                form: spec.form,
                file: spec.file.as_deref(),
            };
            built.predicates.push(provenance.predicate());
        }
    }

    fn request(&self) -> Request {
        let settings = self.settings;
        let arguments = settings.build_args().iter().filter(|(name, _)| !is_proxy(name));
        let arguments = arguments.map(|(name, value)| (format!("build-arg:{name}"), value.clone()));
        let labels = settings.labels().iter().map(|(name, value)| (format!("label:{name}"), value.clone()));
        let target = settings.target.iter().map(|target| ("target".to_owned(), target.clone()));
        Request {
            dockerfile_name: without_credentials(&self.input.dockerfile_name),
            dockerfile: self.input.dockerfile.clone(),
            context: match &self.input.context {
                MainContext::Remote(context) => Some(context.source()),
                MainContext::Local => None,
            },
            arguments: arguments.chain(labels).chain(target).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short_provenance(word: &str) -> Result<ProvenanceSpec, String> {
        let read = short(word).and_then(|fields| provenance(fields).map_err(refused));
        read.map_err(|failure| failure.message)
    }

    #[test]
    fn provenance_is_whole_unless_it_says_otherwise() {
        let detail = |word| short_provenance(word).unwrap().detail;
        assert_eq!(detail("mode=max"), Detail::Max);
        assert_eq!(detail("reproducible=true"), Detail::Max);
        assert_eq!(detail("mode=min,inline-only=true"), Detail::Min);
        let spec = short_provenance("\"builder-id=https://ci/1,2\",reproducible=1").unwrap();
        assert_eq!((spec.builder_id.as_str(), spec.reproducible), ("https://ci/1,2", true));
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("mode=all", "attestation key `mode` cannot be `all`"),
            ("version=v2", "attestation key `version` cannot be `v2`"),
            ("reproducible=perhaps", "attestation key `reproducible` cannot be `perhaps`"),
            ("nonsense", "attestation `nonsense`: expected KEY=VALUE"),
            ("color=red", "attestation type `provenance` has no key `color`"),
        ];
        for (word, message) in cases {
            assert_eq!(short_provenance(word).unwrap_err(), message, "{word}");
        }
        assert_eq!(typed("mode=max").unwrap_err().message, "attestation `mode=max` has no `type=`");
        assert!(typed("type=opinion").unwrap_err().message.contains("unknown attestation type"));
    }

    #[test]
    fn a_scanner_is_told_what_is_not_its_name() {
        let spec = sbom(fields("generator=scan:1,LEVEL=2").unwrap()).unwrap();
        assert_eq!(spec.generator.familiar(), "scan:1");
        assert_eq!(spec.parameters, [("LEVEL".to_owned(), "2".to_owned())].into());
        assert_eq!(sbom(Fields::of(WHAT, BTreeMap::new())).unwrap().generator.familiar(), GENERATOR);
    }
}
