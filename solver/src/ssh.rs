//! The ssh agents that a build may let its steps use, by id.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The agents of a build.
#[derive(Debug, Clone, Default)]
pub struct SshAgents {
    agents: BTreeMap<String, SshAgent>,
}

/// A socket of the host that steps may speak to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshAgent {
    /// Where an agent listens.
    pub socket: PathBuf,
    /// Whether all that a step sends is passed on. Otherwise only what lists the keys and signs with them.
    pub raw: bool,
}

impl SshAgents {
    /// Adds an agent. It replaces an earlier one of the id.
    pub fn add(&mut self, id: impl Into<String>, agent: SshAgent) {
        self.agents.insert(id.into(), agent);
    }

    /// The agent of an id, if the build was given one.
    pub fn get(&self, id: &str) -> Option<&SshAgent> {
        self.agents.get(id)
    }
}
