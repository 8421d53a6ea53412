//! What is known of a stage while it is lowered.

use rbuild_image::{ImageConfig, Platform};
use rbuild_llb::{Edge, SourceRange};

use super::history::Timeline;
use super::tree::LocalId;
use crate::args::Env;
use crate::expand::Variables;
use crate::paths;
use crate::stage::{Stage, StageId};

/// What a stage hands on to the stages that start from it.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// The root file system; `None` is the empty tree.
    pub(super) edge: Option<Edge>,
    /// The local directory that the root is, of a stage that is only read from.
    pub(super) local: Option<LocalId>,
    /// All but the history.
    pub(super) config: ImageConfig,
    pub(super) history: Timeline,
    /// How many of the history entries are the base image's.
    pub(super) history_inherited: usize,
    pub(super) platform: Platform,
    /// What words are expanded with and processes see: the image's variables and the declared arguments.
    pub(super) env: Env,
    /// The declared arguments, in order, with the values they had where they were declared.
    pub(super) args: Vec<(String, Option<String>)>,
    /// A WORKDIR of this file has been seen.
    pub(super) has_workdir: bool,
}

impl State {
    /// The working directory as a clean, absolute path.
    pub(super) fn directory(&self) -> String {
        paths::absolute(&self.config.config.working_dir)
    }

    /// The shell that shell-form instructions are run with.
    pub(super) fn shell(&self) -> Vec<String> {
        let default: &[&str] =
            if self.config.platform.os == "windows" { &["cmd", "/S", "/C"] } else { &["/bin/sh", "-c"] };
        match &self.config.config.shell {
            Some(shell) if !shell.is_empty() => shell.clone(),
            _ => default.iter().map(|word| (*word).to_owned()).collect(),
        }
    }
}

/// A stage that is being lowered.
#[derive(Debug)]
pub(super) struct Current {
    pub(super) id: StageId,
    pub(super) state: State,
    progress: Progress,
    /// Where CMD, ENTRYPOINT and HEALTHCHECK were last set in this stage.
    pub(super) cmd: Option<SourceRange>,
    pub(super) entrypoint: Option<SourceRange>,
    pub(super) healthcheck: Option<SourceRange>,
}

/// Counts the steps of a stage for its `[build 2/5]`.
#[derive(Debug)]
struct Progress {
    stage: String,
    index: usize,
    total: usize,
    shows_platform: bool,
}

impl Current {
    pub(super) fn new(
        id: StageId,
        stage: &Stage,
        state: State,
        has_image: bool,
        shows_platform: bool,
    ) -> Self {
        let steps = stage.steps.iter().filter(|step| step.command.instruction.is_step()).count();
        let total = if stage.is_external { 0 } else { steps + usize::from(has_image) };
        let progress = Progress { stage: stage.display_name.clone(), index: 0, total, shows_platform };
        Self { id, state, progress, cmd: None, entrypoint: None, healthcheck: None }
    }

    /// Counts a step that makes no vertex.
    pub(super) fn skip_step(&mut self) {
        self.progress.index += 1;
    }

    /// Counts a step and names it: `[linux/amd64 build 2/5] ONBUILD RUN make`.
    pub(super) fn title(&mut self, text: &str, is_trigger: bool) -> String {
        let progress = &mut self.progress;
        if progress.total == 0 {
            return text.to_owned();
        }
        progress.index += 1;
        let platform = if progress.shows_platform { platform_prefix(&self.state) } else { String::new() };
        let stage = if progress.stage.is_empty() { String::new() } else { format!("{} ", progress.stage) };
        let width = progress.total.ilog10() as usize + 1;
        let trigger = if is_trigger { "ONBUILD " } else { "" };
        let (index, total) = (progress.index, progress.total);
        format!("[{platform}{stage}{index:>width$}/{total}] {trigger}{text}")
    }
}

/// `linux/amd64 `, or `linux/amd64->arm64 ` where the stage cross-compiles.
fn platform_prefix(state: &State) -> String {
    let own = &state.platform;
    let variable = |name: &str| state.env.get(name).filter(|value| !value.is_empty());
    let target = variable("TARGETPLATFORM").and_then(|text| text.parse::<Platform>().ok()).or_else(|| {
        let architecture = variable("TARGETARCH")?;
        let os = variable("TARGETOS").unwrap_or(&own.os);
        Some(Platform::new(os, architecture, variable("TARGETVARIANT")))
    });
    match target {
        Some(target) if target.os != own.os => format!("{own}->{target} "),
        Some(target) if target.architecture != own.architecture => {
            let text = target.to_string();
            let architecture = text.split_once('/').map_or(text.as_str(), |(_, rest)| rest);
            format!("{own}->{architecture} ")
        }
        _ => format!("{own} "),
    }
}
