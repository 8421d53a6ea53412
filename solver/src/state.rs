//! What is known of one vertex while a build goes on.

use rbuild_llb::InputIndex;

use crate::build::{MissReason, Outcome};
use crate::cache_key::{CacheKey, ContentDigest, KeyTrace, SourceIdentity};
use crate::worker::Found;

/// Where a vertex is.
///
/// ```text
/// Planning ─┬─► Unneeded
///           ├─► Complete (found)          ┌──────────────► Complete (cut off)
///           └─► Waiting ─► Ready ─┬─► Probing ─┬─► Running ─► Complete (ran, or another build did)
///                                 └────────────┘      └─────► Failed, Cancelled
/// Reading ─┬─► Read                               (a local source, which is never a step)
///          └─► Failed, Cancelled
/// ```
///
/// A vertex that is being planned can fail too: its source cannot be pinned. One that is being probed can: its
/// inputs cannot be read. When the build stops, those that have not begun stay where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum State<O> {
    /// Its key is being made or looked up.
    Planning,
    /// A local source whose files are being digested.
    Reading,
    /// A local source that is digested.
    Read,
    /// What depends on it was found.
    Unneeded,
    /// It was not found, and an input of it is not there yet.
    Waiting {
        /// How many of its inputs are missing; one that is used twice counts twice.
        inputs_missing: usize,
    },
    /// Its inputs are there.
    Ready,
    /// Its content key is being made and looked up.
    Probing,
    /// It runs.
    Running(MissReason),
    /// Its outputs are there.
    Complete {
        /// What it made.
        outputs: Vec<O>,
        /// How they came about.
        outcome: Outcome,
    },
    /// It failed, and with it the build.
    Failed,
    /// It was stopped.
    Cancelled,
}

impl<O> State<O> {
    /// Whether a display shows it as running: `Started` was emitted, and no end yet.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self, Self::Reading | Self::Running(_))
    }

    /// The diagram above.
    fn may_become(&self, next: &Self) -> bool {
        use State::{
            Cancelled, Complete, Failed, Planning, Probing, Read, Reading, Ready, Running, Unneeded, Waiting,
        };
        matches!(
            (self, next),
            (Planning, Reading | Unneeded | Waiting { .. } | Complete { .. } | Failed)
                | (Reading, Read | Failed | Cancelled)
                | (Waiting { .. }, Waiting { .. } | Ready)
                | (Ready, Probing | Running(_))
                | (Probing, Running(_) | Complete { .. } | Failed)
                | (Running(_), Complete { .. } | Failed | Cancelled)
        )
    }

    /// What became of the vertex, once the build is over.
    pub(crate) const fn outcome(&self) -> Outcome {
        match self {
            Self::Complete { outcome, .. } => *outcome,
            Self::Read | Self::Reading => Outcome::Digested,
            _ => Outcome::Unneeded,
        }
    }
}

/// How far the content key of a vertex is, beside its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContentKey {
    /// Nobody asked for it: the vertex did not run, or it is a source.
    Unwanted,
    /// It is being made, or will be when there is room.
    Pending,
    /// It is known, and is not yet with the record.
    Known(CacheKey),
    /// It is with the record, or will be without us.
    Settled,
}

/// A vertex and all that is known of it.
#[derive(Debug)]
pub(crate) struct Node<O> {
    state: State<O>,
    /// What a source was pinned to.
    pub(crate) identity: Option<SourceIdentity>,
    /// The digests of what it takes from local sources, by input.
    pub(crate) contents: Vec<Option<ContentDigest>>,
    /// What its definition key is made of.
    pub(crate) trace: Option<KeyTrace>,
    /// Its definition key.
    pub(crate) key: Option<CacheKey>,
    /// What its definition key found.
    pub(crate) found: Found<O>,
    /// The input through which it depends on a vertex that must run whatever the cache has.
    pub(crate) tainted_by: Option<InputIndex>,
    /// Its content key.
    pub(crate) content_key: ContentKey,
}

impl<O> Node<O> {
    pub(crate) fn new(inputs: usize) -> Self {
        Self {
            state: State::Planning,
            identity: None,
            contents: vec![None; inputs],
            trace: None,
            key: None,
            found: None,
            tainted_by: None,
            content_key: ContentKey::Unwanted,
        }
    }

    pub(crate) const fn state(&self) -> &State<O> {
        &self.state
    }

    /// Moves on.
    pub(crate) fn enter(&mut self, next: State<O>) {
        debug_assert!(self.state.may_become(&next), "a vertex takes only the steps of the diagram");
        self.state = next;
    }

    /// One input more is there. Whether it was the last.
    pub(crate) fn input_arrived(&mut self) -> bool {
        let State::Waiting { inputs_missing } = self.state else { return false };
        match inputs_missing - 1 {
            0 => self.enter(State::Ready),
            inputs_missing => self.enter(State::Waiting { inputs_missing }),
        }
        inputs_missing == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<State<()>> {
        vec![
            State::Planning,
            State::Reading,
            State::Read,
            State::Unneeded,
            State::Waiting { inputs_missing: 1 },
            State::Ready,
            State::Probing,
            State::Running(MissReason::NoRecord),
            State::Complete { outputs: Vec::new(), outcome: Outcome::Cached },
            State::Failed,
            State::Cancelled,
        ]
    }

    /// Rows: from; columns: to; in the order of [`all`].
    #[test]
    fn the_whole_transition_table() {
        let expected = [
            ".x.xx...xx.", // planning
            "..x......xx", // reading
            "...........", // read
            "...........", // unneeded
            "....xx.....", // waiting
            "......xx...", // ready
            ".......xxx.", // probing
            "........xxx", // running
            "...........", // complete
            "...........", // failed
            "...........", // cancelled
        ];
        let found: Vec<String> = all()
            .iter()
            .map(|from| all().iter().map(|to| if from.may_become(to) { 'x' } else { '.' }).collect())
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn the_last_input_makes_it_ready() {
        let mut node = Node::<()>::new(2);
        node.enter(State::Waiting { inputs_missing: 2 });
        assert!(!node.input_arrived());
        assert!(node.input_arrived());
        assert_eq!(node.state(), &State::Ready);
        assert!(!node.input_arrived());
    }
}
