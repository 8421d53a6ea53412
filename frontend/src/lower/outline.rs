//! What a build can be given, noted while it is lowered.

use std::collections::{BTreeMap, BTreeSet};

use rbuild_llb::SourceRange;

use super::{Lowerer, mounts};
use crate::args::GlobalArg;
use crate::expand::{Expander, Variables};
use crate::file::FileText;
use crate::instruction::Command;
use crate::instruction::mount::{MountSpec, MountType};
use crate::stage::StageId;
use crate::subrequest::{Outline, OutlineArg, OutlineMount, description};

/// What has been noted so far.
#[derive(Debug, Default)]
pub(super) struct Collected {
    args: BTreeMap<String, OutlineArg>,
    secrets: BTreeMap<String, OutlineMount>,
    ssh: BTreeMap<String, OutlineMount>,
    caches: BTreeMap<String, OutlineMount>,
}

impl Collected {
    /// Notes an ARG of a stage; of a name that several declare, the last one counts. One that only takes a global value over is
    /// described where that is declared, if it is: those of the platform are what they are.
    pub(super) fn arg(&mut self, file: &FileText, command: &Command, key: &str, is_inherited: bool) {
        if !is_inherited {
            self.note(key, &command.comments, command.range);
        } else if let Some(global) = file.globals.iter().rfind(|arg| declares(arg, key)) {
            self.note(key, &global.comments, global.range);
        }
    }

    fn note(&mut self, key: &str, comments: &[String], range: SourceRange) {
        let description = description(comments, key);
        self.args
            .insert(key.to_owned(), OutlineArg { name: key.to_owned(), description, value: None, range });
    }

    pub(super) fn arg_value(&mut self, key: &str, value: Option<&str>) {
        if let Some(arg) = self.args.get_mut(key) {
            arg.value = value.filter(|value| !value.is_empty()).map(str::to_owned);
        }
    }

    /// Notes what a mount asks for. The first mention counts, but required is what anyone requires.
    pub(super) fn mount(&mut self, spec: &MountSpec, range: SourceRange) {
        let (mounts, id) = match spec.kind {
            MountType::Secret => (&mut self.secrets, mounts::secret_id(spec)),
            MountType::Ssh => (&mut self.ssh, mounts::ssh_id(spec)),
            MountType::Cache => (&mut self.caches, mounts::cache_id(spec)),
            MountType::Bind | MountType::Tmpfs => return,
        };
        let mount = OutlineMount { id: id.clone(), required: false, range };
        mounts.entry(id).or_insert(mount).required |= spec.required;
    }
}

fn declares(arg: &GlobalArg, key: &str) -> bool {
    arg.declarations.iter().any(|declaration| declaration.key == key)
}

impl Lowerer<'_> {
    pub(super) fn finish_outline(mut self, target: StageId) -> Outline {
        self.note_globals(target);
        let stage = self.graph.stage(target);
        let mut args: Vec<OutlineArg> = self.outline.args.into_values().collect();
        args.sort_by_key(|arg| arg.range.line_first);
        let values = |mounts: BTreeMap<String, OutlineMount>| mounts.into_values().collect();
        Outline {
            name: stage.name.clone(),
            description: description(&stage.comments, &stage.name),
            args,
            secrets: values(self.outline.secrets),
            ssh: values(self.outline.ssh),
            caches: values(self.outline.caches),
        }
    }

    /// Notes the global ARGs that FROM lines use, and those that their defaults use.
    fn note_globals(&mut self, target: StageId) {
        let expander = Expander::new(self.escape);
        let used_by = |word: &str| {
            let expanded = expander.expand(word, &self.globals.env).unwrap_or_default();
            expanded.matched.into_iter().chain(expanded.unmatched)
        };
        let mut wanted: Vec<String> = Vec::new();
        for id in self.graph.reachable(target) {
            let Some(stage) = self.text.stages.get(id.0) else { continue };
            wanted.extend(used_by(&stage.from.base));
            wanted.extend(stage.from.platform.iter().flat_map(|platform| used_by(platform)));
        }
        let mut seen = BTreeSet::new();
        while let Some(name) = wanted.pop() {
            let Some(global) = self.text.globals.iter().rfind(|arg| declares(arg, &name)) else { continue };
            if !seen.insert(name.clone()) {
                continue;
            }
            let of_name = global.declarations.iter().filter(|declaration| declaration.key == name);
            wanted
                .extend(of_name.filter_map(|one| one.default.as_ref()).flat_map(|default| used_by(default)));
            if !self.outline.args.contains_key(&name) {
                self.outline.note(&name, &global.comments, global.range);
                self.outline.arg_value(&name, self.globals.env.get(&name));
            }
        }
    }
}
