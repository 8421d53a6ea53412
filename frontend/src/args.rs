//! Variables and their scopes.
//!
//! * Global ARGs, those before the first FROM, are seen by FROM lines, and are the defaults of ARGs without a default in
//!   stages.
//! * In a stage the last writer wins, be it ARG or ENV; what ENV writes also goes into the image.
//! * The platform arguments and `TARGETSTAGE` are global without being declared.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use rbuild_image::Platform;
use rbuild_llb::{ProxyEnv, SourceRange};

use crate::error::{Error, ErrorKind};
use crate::expand::{Expander, Variables};
use crate::instruction::ArgDeclaration;
use crate::options::Options;

/// The build argument that gives all that is made one time.
pub(crate) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Build arguments that steer the builder and are never variables of a RUN.
pub(crate) const CONTROL_ARGS: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Variables in the order in which they were first set. A copy shares them until one of the two changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Env(Rc<Pairs>);

#[derive(Debug, Clone, Default)]
struct Pairs {
    pairs: Vec<(String, String)>,
    positions: HashMap<String, usize>,
}

impl Env {
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        let Pairs { pairs, positions } = Rc::make_mut(&mut self.0);
        if let Some(position) = positions.get(name) {
            value.clone_into(&mut pairs[*position].1);
        } else {
            positions.insert(name.to_owned(), pairs.len());
            pairs.push((name.to_owned(), value.to_owned()));
        }
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.pairs.iter().map(|(name, _)| name.as_str())
    }

    /// `NAME=value`, in order.
    pub(crate) fn to_strings(&self) -> Vec<String> {
        self.0.pairs.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

impl Variables for Env {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.positions.get(name).map(|position| self.0.pairs[*position].1.as_str())
    }
}

/// An ARG before the first FROM.
#[derive(Debug, Clone)]
pub(crate) struct GlobalArg {
    pub(crate) declarations: Vec<ArgDeclaration>,
    pub(crate) comments: Vec<String>,
    pub(crate) range: SourceRange,
}

/// The variables that FROM lines see.
#[derive(Debug, Clone)]
pub(crate) struct Globals {
    pub(crate) env: Env,
    /// Every name that an ARG declared, with a value or without.
    pub(crate) declared: BTreeSet<String>,
}

impl Globals {
    /// The platform arguments, then the global ARGs in order, each with the value given for it or its default.
    pub(crate) fn new(
        options: &Options,
        target_stage: &str,
        args: &[GlobalArg],
        escape: char,
    ) -> Result<Self, Error> {
        let mut globals = Self { env: Env::default(), declared: BTreeSet::new() };
        for (name, value) in platform_args(options, target_stage) {
            let value = options.build_args.get(&name).unwrap_or(&value);
            globals.env.set(&name, value);
        }
        for arg in args {
            for declaration in &arg.declarations {
                globals.declare(declaration, options, escape).map_err(|error| error.at(arg.range))?;
            }
        }
        Ok(globals)
    }

    fn declare(
        &mut self,
        declaration: &ArgDeclaration,
        options: &Options,
        escape: char,
    ) -> Result<(), Error> {
        let key = &declaration.key;
        self.declared.insert(key.clone());
        if let Some(value) = options.build_args.get(key) {
            self.env.set(key, value);
        } else if let Some(default) = &declaration.default {
            let value = Expander::new(escape)
                .expand(default, &self.env)
                .map_err(|source| ErrorKind::Expand { word: default.clone(), source })?;
            self.env.set(key, &value.text);
        }
        Ok(())
    }
}

fn platform_args(options: &Options, target_stage: &str) -> Vec<(String, String)> {
    let target_stage = if target_stage.is_empty() { "default" } else { target_stage };
    let mut args = vec![("TARGETSTAGE".to_owned(), target_stage.to_owned())];
    for (prefix, platform) in [("BUILD", &options.build_platform), ("TARGET", &options.platform)] {
        args.extend(parts(platform).map(|(name, value)| (format!("{prefix}{name}"), value)));
    }
    args
}

fn parts(platform: &Platform) -> [(&'static str, String); 5] {
    [
        ("PLATFORM", platform.to_string()),
        ("OS", platform.os.clone()),
        ("OSVERSION", platform.os_version.clone().unwrap_or_default()),
        ("ARCH", platform.architecture.clone()),
        ("VARIANT", platform.variant.clone().unwrap_or_default()),
    ]
}

/// The proxies among the build arguments, in either case.
pub(crate) fn proxy(options: &Options) -> Option<ProxyEnv> {
    let mut proxy = ProxyEnv::default();
    let mut found = false;
    for (name, value) in &options.build_args {
        if let Some(slot) = proxy_slot(&mut proxy, name) {
            value.clone_into(slot);
            found = true;
        }
    }
    found.then_some(proxy)
}

fn proxy_slot<'a>(proxy: &'a mut ProxyEnv, name: &str) -> Option<&'a mut String> {
    Some(match name.to_ascii_lowercase().as_str() {
        "http_proxy" => &mut proxy.http,
        "https_proxy" => &mut proxy.https,
        "ftp_proxy" => &mut proxy.ftp,
        "no_proxy" => &mut proxy.no,
        "all_proxy" => &mut proxy.all,
        _ => return None,
    })
}

/// Whether a build argument is a proxy's address, which may hold credentials, or an exception from it.
pub fn is_proxy(name: &str) -> bool {
    proxy_slot(&mut ProxyEnv::default(), name).is_some()
}

/// Whether a build argument means something without an ARG that declares it.
pub(crate) fn is_predefined(name: &str) -> bool {
    name == EPOCH || name.starts_with("BUILDKIT_") || is_proxy(name)
}

/// A global argument that is not empty.
pub(crate) fn value<'a>(globals: &'a Globals, name: &str) -> Option<&'a str> {
    globals.env.get(name).filter(|value| !value.is_empty())
}

/// A build argument that is not empty.
pub(crate) fn control<'a>(options: &'a Options, name: &str) -> Option<&'a str> {
    options.build_args.get(name).map(String::as_str).filter(|value| !value.is_empty())
}
