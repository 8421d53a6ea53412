//! How ops are hashed: framed, versioned, domain-tagged.
//!
//! Everything is fed through a [`KeyHasher`], so two different values never feed the same bytes.
//!
//! Two digests come from here:
//! * [`OpDigest`]: an op alone. What is in it and what is not, and why, is the table in the solver's `cache_key`.
//! * `VertexDigest`: an op, its platform and all that it depends on. Only used to merge equal vertices within one
//!   graph, so *everything* that changes what a step does or shows is in it.

use std::fmt;

use rbuild_image::KeyHasher;
use serde::{Deserialize, Serialize};

use crate::{Op, OutputIndex, Vertex};

/// The digest of an op without its inputs: what the step does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpDigest(pub [u8; 32]);

impl fmt::Debug for OpDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The digest of a vertex with all that it depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct VertexDigest([u8; 32]);

impl VertexDigest {
    /// Serialises the op as JSON: field names frame the values, and nothing is left out. This digest is never
    /// stored, so a change of the form costs nothing.
    pub(crate) fn of(vertex: &Vertex, inputs: impl Iterator<Item = (Self, OutputIndex)>) -> Self {
        let op = |op: &Op| serde_json::to_vec(op).expect("ops have no map with non-string keys");
        let mut hasher = KeyHasher::new("rbuild.vertex.v1");
        hasher.bytes(&op(&vertex.op));
        hasher.option(vertex.platform.as_ref(), |hasher, platform| {
            hasher.str(&platform.to_string());
        });
        for (digest, output) in inputs {
            hasher.bytes(&digest.0).number(output.0);
        }
        Self(hasher.finish())
    }
}
