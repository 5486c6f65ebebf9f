//! What the lock guards: nodes, their files, and whose descriptors are held.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hashbrown::HashMap;
use postern_ipc::attr::FileId;
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};

use super::{Identity, Seen};
use crate::fs::{NodeId, ROOT};
use crate::quota::Quota;

/// Of one view of the share.
pub(super) struct Table {
    /// All.
    pub(super) nodes: HashMap<NodeId, Node>,
    /// The one that a file is; of two files that had one inode number, the later.
    pub(super) by_identity: HashMap<FileId, NodeId>,
    /// Nodes that hold a descriptor, in the order the clock's hand meets them.
    pub(super) clock: VecDeque<NodeId>,
    /// Shared with other views.
    pub(super) common: Arc<Common>,
}

/// What tables of one root have together.
pub(super) struct Common {
    /// The last number given away.
    pub(super) last: AtomicU64,
    /// Nodes that they know, but for the root.
    pub(super) known: Quota,
}

/// One file that the guest knows.
pub(super) struct Node {
    /// Which file.
    pub(super) identity: Identity,
    /// Where it was last seen, unless that name is gone.
    pub(super) seen: Option<Seen>,
    /// References of the guest: look-ups not yet forgotten.
    pub(super) lookups: u64,
    /// Nodes last seen in this one; it stays while they do.
    pub(super) children: u64,
    /// Open handles.
    pub(super) opens: u64,
    /// An O_PATH descriptor of it.
    pub(super) pin: Option<Arc<OwnedFd>>,
    /// Since the clock's hand last came by.
    pub(super) used: bool,
    /// The host replaces names in it.
    pub(super) replaced: bool,
}

impl Node {
    fn new(identity: Identity) -> Self {
        Self { identity, seen: None, lookups: 0, children: 0, opens: 0, pin: None, used: false, replaced: false }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        self.common.known.give_back(self.nodes.len().saturating_sub(1));
    }
}

impl Table {
    /// Of the root alone.
    pub(super) fn new(root: Arc<OwnedFd>, identity: Identity, common: Arc<Common>) -> Self {
        let node = Node { pin: Some(root), lookups: 1, used: true, ..Node::new(identity) };
        Self {
            nodes: HashMap::from_iter([(ROOT, node)]),
            by_identity: HashMap::from_iter([(identity.id, ROOT)]),
            clock: VecDeque::new(),
            common,
        }
    }

    /// The node that a file is, with one more reference of the guest; a new one if need be. Tells besides whether its
    /// name is another than before.
    ///
    /// # Errors
    /// ENFILE if it is one too many.
    pub(super) fn found(&mut self, at: Option<(NodeId, &FileName)>, identity: Identity) -> Result<(NodeId, bool)> {
        let known = self.by_identity.get(&identity.id).copied();
        let node = match known.filter(|id| self.nodes.get(id).is_some_and(|node| node.identity == identity)) {
            Some(node) => node,
            None => self.add(identity)?,
        };
        let Some(entry) = self.nodes.get_mut(&node) else { return Err(Errno::ESTALE) };
        entry.lookups = entry.lookups.saturating_add(1);
        let same = matches!((&entry.seen, at), (Some(seen), Some((parent, name))) if seen.is(parent, name));
        let moved = !same && node != ROOT;
        if moved {
            self.see(node, at.map(|(parent, name)| Seen::new(parent, name)));
        }
        Ok((node, moved))
    }

    fn add(&mut self, identity: Identity) -> Result<NodeId> {
        self.common.known.room(1)?;
        self.common.known.add(1);
        let id = NodeId(self.common.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1));
        self.nodes.insert(id, Node::new(identity));
        self.by_identity.insert(identity.id, id);
        Ok(id)
    }

    /// Moves `node` to where it was seen, keeping the count of its old and new directory.
    pub(super) fn see(&mut self, node: NodeId, seen: Option<Seen>) {
        let new = seen.as_ref().map(|seen| seen.parent);
        let Some(entry) = self.nodes.get_mut(&node) else { return };
        let old = std::mem::replace(&mut entry.seen, seen).map(|seen| seen.parent);
        if old == new {
            return;
        }
        if let Some(parent) = new.and_then(|id| self.nodes.get_mut(&id)) {
            parent.children = parent.children.saturating_add(1);
        }
        if let Some(parent) = old.and_then(|id| self.nodes.get_mut(&id)) {
            parent.children = parent.children.saturating_sub(1);
        }
    }

    /// Removes `node` and then its directories upwards, as far as nothing refers to them. What was removed is dropped
    /// by the caller, outside the lock: it closes descriptors.
    pub(super) fn sweep(&mut self, node: NodeId) -> Vec<Node> {
        let mut gone = Vec::new();
        let mut at = Some(node);
        while let Some(id) = at.filter(|&id| id != ROOT) {
            let idle = |node: &Node| node.lookups == 0 && node.children == 0 && node.opens == 0;
            if !self.nodes.get(&id).is_some_and(idle) {
                break;
            }
            at = self.nodes.get(&id).and_then(|node| node.seen.as_ref()).map(|seen| seen.parent);
            self.see(id, None);
            gone.extend(self.remove(id));
        }
        gone
    }

    pub(super) fn remove(&mut self, id: NodeId) -> Option<Node> {
        let node = self.nodes.remove(&id)?;
        self.common.known.give_back(1);
        if self.by_identity.get(&node.identity.id) == Some(&id) {
            self.by_identity.remove(&node.identity.id);
        }
        Some(node)
    }

    /// Takes a node's descriptor away: it is opened again by name.
    pub(super) fn unpin(&mut self, node: NodeId) -> Option<Arc<OwnedFd>> {
        let pin = self.nodes.get_mut(&node).filter(|_| node != ROOT)?.pin.take()?;
        self.clock.retain(|held| *held != node);
        Some(pin)
    }

    /// Keeps `pin` for `node`, unless it is held already. What has become too many is dropped by the caller, outside the
    /// lock.
    pub(super) fn hold(&mut self, node: NodeId, pin: &Arc<OwnedFd>, most: usize) -> Vec<Arc<OwnedFd>> {
        match self.nodes.get_mut(&node) {
            Some(entry) if entry.pin.is_none() => entry.pin = Some(Arc::clone(pin)),
            _ => return Vec::new(),
        }
        self.clock.push_back(node);
        self.spare(most)
    }

    /// Turns the clock's hand until no more than `most` descriptors are held: once around for nodes not used since,
    /// once for all that can be found by name, and if that is not enough for those whose last name is gone: they are
    /// forgotten (ESTALE), because nothing leads to them any more. What is open is never taken.
    fn spare(&mut self, most: usize) -> Vec<Arc<OwnedFd>> {
        let mut spare = Vec::new();
        let round = self.clock.len();
        let mut turns = round.saturating_mul(3);
        while self.clock.len() > most && turns > 0 {
            turns = turns.saturating_sub(1);
            let Some(id) = self.clock.pop_front() else { break };
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let needed = node.opens > 0 || (node.seen.is_none() && turns >= round);
            if std::mem::take(&mut node.used) || needed {
                self.clock.push_back(id);
                continue;
            }
            spare.extend(node.pin.take());
            if node.seen.is_none() {
                self.remove(id);
            }
        }
        spare
    }
}
