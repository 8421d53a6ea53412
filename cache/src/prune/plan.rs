//! What to forget: a decision on a [`State`], taken in memory.

use std::collections::HashSet;

use super::blobs::Blob;
use super::item::{Item, Usage};
use super::state::{Entry, Keeper, Known, Root, State, What};
use super::{PrunePolicy, Removal};
use crate::Mutable;
use crate::lease::stamp_of;

/// What goes.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) removals: Vec<Removal>,
    /// What the cache takes when all that is done.
    pub(super) cache_bytes: u64,
    /// Of which entries the removals are, where these are results.
    removed: Vec<Option<i64>>,
    pub(super) results: Vec<Doomed>,
    pub(super) snapshots: Vec<Doomed>,
    /// The newest first: one that another is told from is older than that.
    pub(super) layers: Vec<i64>,
    pub(super) packs: Vec<Doomed>,
    pub(super) blobs: Vec<Blob>,
    pub(super) mutables: Vec<Mutable>,
    /// What there was when it was made.
    pub(super) known: Known,
}

/// A row that goes, unless it was used since it had this stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Doomed {
    pub(super) id: i64,
    pub(super) stamp: i64,
}

/// A plan in the making.
struct Planner<'a> {
    state: &'a State,
    holders: Vec<u32>,
    /// By entry.
    gone: Vec<bool>,
    /// By piece: whether a root holds it.
    pinned: Vec<bool>,
    /// What neither images nor containers hold.
    cache_bytes: u64,
    removals: Vec<Removal>,
    /// By removal: the result that goes.
    removed: Vec<Option<i64>>,
}

impl State {
    /// Carries out the policies in their order, on a disk with so many bytes free.
    pub(super) fn plan(&self, policies: &[PrunePolicy<'_>], free_bytes: u64) -> Plan {
        let mut planner = Planner::new(self);
        let free_at_first = planner.cache_bytes.saturating_add(free_bytes);
        let pins = self.pins();
        let holders = planner.holders.clone();
        let item = |entry: &Entry| self.item(entry, &holders, &pins);
        for (index, policy) in policies.iter().enumerate() {
            let free_bytes = free_at_first - planner.cache_bytes;
            let keep_bytes = policy.limits.map(|limits| limits.keep_bytes(planner.cache_bytes, free_bytes));
            planner.apply(index, policy, keep_bytes, &item);
        }
        planner.finish()
    }

    /// All that takes room.
    pub(super) fn usage(&self) -> Usage {
        let (holders, pins) = (self.holders(), self.pins());
        let image = |root: &Root| match &root.keeper {
            Keeper::Image(image) => Some(self.image_item(root, image, &holders)),
            Keeper::Container | Keeper::Process => None,
        };
        let mut items: Vec<Item> = self.roots.iter().filter_map(image).collect();
        items.extend(self.entries.iter().map(|entry| self.item(entry, &holders, &pins)));
        items.sort_by_key(|item| std::cmp::Reverse(item.last_used));
        let mut usage = Usage { items, cache_bytes: Planner::new(self).cache_bytes, ..Usage::default() };
        for (piece, holders) in self.pieces.iter().zip(&holders) {
            let bytes = if *holders > 1 { &mut usage.shared_bytes } else { &mut usage.private_bytes };
            *bytes += piece.size_bytes;
        }
        let everything = self.plan(&[PrunePolicy::default()], 0);
        usage.reclaimable_bytes = everything.removals.iter().map(|removal| removal.freed_bytes).sum();
        usage
    }
}

impl<'a> Planner<'a> {
    fn new(state: &'a State) -> Self {
        let (mut pinned, mut kept) = (vec![false; state.pieces.len()], vec![false; state.pieces.len()]);
        for root in &state.roots {
            let for_good = !matches!(root.keeper, Keeper::Process);
            for piece in root.pieces.iter().map(|piece| *piece as usize) {
                pinned[piece] = true;
                kept[piece] |= for_good;
            }
        }
        let cached = state.pieces.iter().zip(&kept).filter(|(_, kept)| !**kept);
        Self {
            state,
            holders: state.holders(),
            gone: vec![false; state.entries.len()],
            pinned,
            cache_bytes: cached.map(|(piece, _)| piece.size_bytes).sum(),
            removals: Vec::new(),
            removed: Vec::new(),
        }
    }

    /// Forgets what a policy selects, the least recently used first, until little enough is left.
    fn apply(
        &mut self,
        index: usize,
        policy: &PrunePolicy<'_>,
        keep_bytes: Option<u64>,
        item: &dyn Fn(&Entry) -> Item,
    ) {
        for (at, entry) in self.state.entries.iter().enumerate() {
            if keep_bytes.is_some_and(|keep| self.cache_bytes <= keep) {
                return;
            }
            let too_young = policy.unused_since.is_some_and(|since| entry.last_used >= stamp_of(since));
            if self.gone[at] || entry.in_use || too_young || (!policy.all && self.frees_nothing(entry)) {
                continue;
            }
            let item = item(entry);
            if policy.selects.is_none_or(|selects| selects(&item)) {
                self.gone[at] = true;
                let freed_bytes = self.release(entry);
                self.removed.push(entry.result);
                self.removals.push(Removal { item, policy: index, freed_bytes });
            }
        }
    }

    /// Whether all that an entry holds is held by images, containers or running processes.
    fn frees_nothing(&self, entry: &Entry) -> bool {
        !entry.pieces.is_empty() && entry.pieces.iter().all(|piece| self.pinned[*piece as usize])
    }

    /// Takes a holder from pieces; returns what that frees.
    fn release(&mut self, entry: &Entry) -> u64 {
        let mut freed_bytes = 0;
        for piece in entry.pieces.iter().map(|piece| *piece as usize) {
            self.holders[piece] -= 1;
            if self.holders[piece] == 0 {
                freed_bytes += self.state.pieces[piece].size_bytes;
            }
        }
        self.cache_bytes -= freed_bytes;
        freed_bytes
    }

    fn finish(self) -> Plan {
        let Self { state, holders, gone, cache_bytes, removals, removed, .. } = self;
        let mut plan = Plan { removals, removed, cache_bytes, known: state.known, ..Plan::default() };
        let forgotten = state.entries.iter().zip(&gone).filter(|(_, gone)| **gone);
        let doomed = |entry: &Entry| Some(Doomed { id: entry.result?, stamp: entry.last_used });
        plan.results = forgotten.filter_map(|(entry, _)| doomed(entry)).collect();
        plan.snapshots = state.unheld_snapshots(&gone);
        for (piece, _) in
            state.pieces.iter().zip(&holders).filter(|(piece, holders)| **holders == 0 && !piece.in_use)
        {
            match &piece.what {
                What::Layer(id) => plan.layers.push(*id),
                What::Pack(id) => plan.packs.push(Doomed { id: *id, stamp: piece.last_used }),
                What::Blob(blob) => plan.blobs.push(*blob),
                What::Mutable(mutable) => plan.mutables.push(mutable.clone()),
            }
        }
        plan.layers.reverse();
        plan
    }
}

impl State {
    /// The snapshots that nothing names any longer.
    fn unheld_snapshots(&self, gone: &[bool]) -> Vec<Doomed> {
        let kept = self.entries.iter().zip(gone).filter(|(_, gone)| !**gone);
        let named =
            kept.map(|(entry, _)| &entry.snapshots).chain(self.roots.iter().map(|root| &root.snapshots));
        let mut held: HashSet<i64> = named.flatten().copied().collect();
        let rows = held.iter().filter_map(|id| self.snapshots.get(id));
        let flats: Vec<i64> = rows.flat_map(|row| &row.flats).copied().collect();
        held.extend(flats);
        let unheld = self.snapshots.iter().filter(|(id, _)| !held.contains(id));
        unheld.map(|(id, row)| Doomed { id: *id, stamp: row.last_used }).collect()
    }
}

impl Plan {
    /// Takes the results that stayed after all from what went.
    pub(super) fn spare(&mut self, stayed: &HashSet<i64>) {
        let removed = std::mem::take(&mut self.removed);
        let mut went = removed.iter().map(|result| result.is_none_or(|result| !stayed.contains(&result)));
        let mut kept_bytes = 0;
        self.removals.retain(|removal| {
            let went = went.next().unwrap_or(true);
            kept_bytes += if went { 0 } else { removal.freed_bytes };
            went
        });
        self.cache_bytes += kept_bytes;
    }
}
