//! Which changes a document holds, and which of them the author of another one had seen.

use std::collections::BTreeMap;

use automerge::{Automerge, ChangeHash};

use super::actor::Actor;

/// The changes of a loaded document, each after those that it depends on.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    nodes: Vec<Node>,
    by_hash: BTreeMap<[u8; 32], usize>,
    last: BTreeMap<Actor, usize>,
    ops: u64,
}

/// One change.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Its author.
    pub(super) actor: Actor,
    /// Its position among its author's changes of this document, from 1.
    pub(super) seq: u64,
    /// The counters of its operations.
    pub(super) counters: std::ops::RangeInclusive<u64>,
    /// The changes that its author had seen last, by index.
    pub(super) deps: Vec<usize>,
}

impl History {
    /// Reads it from automerge; `None` for a document that is not one of ours: an actor of another length, or a dependency that is not there.
    pub(super) fn of(doc: &Automerge) -> Option<Self> {
        let mut history = Self::default();
        for meta in doc.get_changes_meta(&[]) {
            let actor = Actor::from_automerge(&meta.actor)?;
            history.push(meta.hash, (actor, meta.seq), meta.start_op..=meta.max_op, &meta.deps)?;
        }
        Some(history)
    }

    /// Adds a change; `None` when one that it depends on is not there.
    pub(super) fn push(
        &mut self,
        hash: ChangeHash,
        (actor, seq): (Actor, u64),
        counters: std::ops::RangeInclusive<u64>,
        deps: &[ChangeHash],
    ) -> Option<usize> {
        let deps = deps.iter().map(|dep| self.position(&dep.0)).collect::<Option<Vec<_>>>()?;
        let index = self.nodes.len();
        self.ops += (counters.end() + 1).saturating_sub(*counters.start());
        self.nodes.push(Node { actor, seq, counters, deps });
        self.by_hash.insert(hash.0, index);
        self.last.insert(actor, index);
        Some(index)
    }

    /// How many changes there are.
    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// How many operations they hold, deletions included.
    pub(super) fn ops(&self) -> u64 {
        self.ops
    }

    /// Where that change is.
    pub(super) fn position(&self, hash: &[u8; 32]) -> Option<usize> {
        self.by_hash.get(hash).copied()
    }

    /// The change at an index.
    pub(super) fn node(&self, index: usize) -> Option<&Node> {
        self.nodes.get(index)
    }

    /// The last change of an author.
    pub(super) fn last_of(&self, actor: Actor) -> Option<(usize, &Node)> {
        let index = *self.last.get(&actor)?;
        Some((index, self.nodes.get(index)?))
    }

    /// The change that holds an operation.
    pub(super) fn holder(&self, actor: Actor, counter: u64) -> Option<(usize, &Node)> {
        self.nodes.iter().enumerate().find(|(_, node)| node.actor == actor && node.counters.contains(&counter))
    }

    /// For each change, whether it is one of `heads` or what they build on.
    pub(super) fn seen_from(&self, heads: &[usize]) -> Vec<bool> {
        let mut seen = vec![false; self.nodes.len()];
        for head in heads {
            if let Some(seen) = seen.get_mut(*head) {
                *seen = true;
            }
        }
        // Dependencies come first, so one pass from the end reaches everything.
        for (index, node) in self.nodes.iter().enumerate().rev() {
            if seen.get(index).is_some_and(|seen| *seen) {
                for dep in &node.deps {
                    if let Some(seen) = seen.get_mut(*dep) {
                        *seen = true;
                    }
                }
            }
        }
        seen
    }
}
