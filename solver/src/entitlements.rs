//! What a step may only do when whoever asked for the build allowed it.

use std::fmt;
use std::str::FromStr;

use rbuild_llb::{ExecOp, Network, Op, Security, SourceRange};

use crate::graph::Graph;

/// A right that steps do not have by themselves, by BuildKit's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entitlement {
    /// `network.host`: `RUN --network=host`.
    NetworkHost,
    /// `security.insecure`: `RUN --security=insecure`.
    SecurityInsecure,
}

/// The rights that a build has. None, by default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entitlements {
    network_host: bool,
    security_insecure: bool,
}

impl Entitlement {
    const ALL: [Self; 2] = [Self::NetworkHost, Self::SecurityInsecure];

    const fn name(self) -> &'static str {
        match self {
            Self::NetworkHost => "network.host",
            Self::SecurityInsecure => "security.insecure",
        }
    }

    fn is_needed(self, exec: &ExecOp) -> bool {
        match self {
            Self::NetworkHost => exec.network == Network::Host,
            Self::SecurityInsecure => exec.security == Security::Insecure,
        }
    }
}

impl fmt::Display for Entitlement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Entitlement {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|entitlement| entitlement.name() == text).ok_or(())
    }
}

impl Entitlements {
    /// Gives a right.
    pub const fn allow(&mut self, entitlement: Entitlement) {
        match entitlement {
            Entitlement::NetworkHost => self.network_host = true,
            Entitlement::SecurityInsecure => self.security_insecure = true,
        }
    }

    /// Whether it has a right.
    pub const fn allows(self, entitlement: Entitlement) -> bool {
        match entitlement {
            Entitlement::NetworkHost => self.network_host,
            Entitlement::SecurityInsecure => self.security_insecure,
        }
    }

    /// The first right that a step needs and the build does not have, and the lines of the step.
    pub(crate) fn lacking(self, graph: &Graph<'_>) -> Option<(Entitlement, Option<SourceRange>)> {
        let lacking = |exec: &ExecOp| {
            Entitlement::ALL.into_iter().find(|right| right.is_needed(exec) && !self.allows(*right))
        };
        (0..graph.len()).map(|position| graph.vertex(position)).find_map(|vertex| match &vertex.op {
            Op::Exec(exec) => lacking(exec).map(|right| (right, vertex.meta.source)),
            Op::Source(_) | Op::File(_) | Op::Merge(_) | Op::Diff(_) => None,
        })
    }
}
