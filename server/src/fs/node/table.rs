//! What the lock guards: nodes, their files, and whose descriptors are held.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};

use super::files::Files;
use super::slab::Slab;
use super::{Identity, Seen};
use crate::fs::{NodeId, ROOT};
use crate::quota::Quota;

/// Of one view of the share.
pub(super) struct Table {
    /// All.
    pub(super) nodes: Slab,
    /// The one that a file is; of two files that had one inode number, the later.
    files: Files,
    /// Nodes that hold a descriptor, in the order the clock's hand meets them.
    pub(super) clock: VecDeque<NodeId>,
    /// Shared with other views.
    pub(super) common: Arc<Common>,
}

/// What tables of one root have together.
pub(super) struct Common {
    /// Nodes that they know, but for the root.
    pub(super) known: Quota,
    /// Their numbers, and the last one given.
    views: Mutex<(Vec<u16>, u16)>,
}

impl Common {
    /// For tables that may know `most` nodes together.
    pub(super) fn new(most: usize) -> Self {
        Self { known: Quota::new(most, "nodes (--max-nodes)"), views: Mutex::new((Vec::new(), VIEWS - 1)) }
    }

    /// A number that no other table has, and none had lately.
    ///
    /// # Errors
    /// ENFILE if there are too many tables.
    fn view(&self) -> Result<u16> {
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        let (live, last) = &mut *views;
        let after = (1..=VIEWS).map(|step| last.wrapping_add(step) % VIEWS);
        *last = after.into_iter().find(|number| !live.contains(number)).ok_or(Errno::ENFILE)?;
        live.push(*last);
        Ok(*last)
    }

    fn gone(&self, view: u16) {
        self.views.lock().unwrap_or_else(PoisonError::into_inner).0.retain(|number| *number != view);
    }
}

/// Numbers of views: as many as there is room for in the number of a node.
const VIEWS: u16 = 4096;

/// One file that the guest knows.
pub(super) struct Node {
    /// Which file.
    pub(super) identity: Identity,
    /// Where it was last seen, unless that name is gone.
    pub(super) seen: Option<Seen>,
    /// References of the guest: look-ups not yet forgotten.
    pub(super) lookups: u64,
    /// Nodes last seen in this one; it stays while they do.
    pub(super) children: u32,
    /// Open handles.
    pub(super) opens: u32,
    /// An O_PATH descriptor of it.
    pub(super) pin: Option<Arc<OwnedFd>>,
    /// Since the clock's hand last came by.
    pub(super) used: bool,
    /// The host replaces names in it.
    pub(super) replaced: bool,
}

impl Node {
    /// Nothing refers to it yet.
    pub(super) fn new(identity: Identity) -> Self {
        Self { identity, seen: None, lookups: 0, children: 0, opens: 0, pin: None, used: false, replaced: false }
    }
}

/// What is gone because a node has another name than before; nothing if it has not.
pub(super) type Moved = Option<Vec<Node>>;

impl Drop for Table {
    fn drop(&mut self) {
        self.common.known.give_back(self.nodes.len().saturating_sub(1));
        self.common.gone(self.nodes.view());
    }
}

impl Table {
    /// Of the root alone.
    ///
    /// # Errors
    /// ENFILE if there are too many tables.
    pub(super) fn new(root: Arc<OwnedFd>, identity: Identity, common: Arc<Common>) -> Result<Self> {
        let view = common.view()?;
        let node = Node { pin: Some(root), lookups: 1, used: true, ..Node::new(identity) };
        let mut table = Self { nodes: Slab::new(view, node), files: Files::new(), clock: VecDeque::new(), common };
        table.index(identity, ROOT);
        Ok(table)
    }

    /// Which node a file is.
    pub(super) fn known(&self, identity: Identity) -> Option<NodeId> {
        let place = self.files.get(&identity.id, |place| self.is(place, identity))?;
        let id = self.nodes.id(place)?;
        (self.nodes.get(id)?.identity == identity).then_some(id)
    }

    /// A node of this inode number is at `place`.
    fn is(&self, place: u32, identity: Identity) -> bool {
        self.nodes.at(place).is_some_and(|node| node.identity.id == identity.id)
    }

    fn index(&mut self, identity: Identity, node: NodeId) {
        let Some(place) = self.nodes.place(node) else { return };
        let nodes = &self.nodes;
        self.files
            .insert(&identity.id, place, |other| nodes.at(other).is_some_and(|node| node.identity.id == identity.id));
    }

    /// The node that a file is, with one more reference of the guest; a new one if need be. Tells besides, if its name
    /// is another than before, what is gone by that.
    ///
    /// # Errors
    /// ENFILE if it is one too many.
    pub(super) fn found(&mut self, at: Option<(NodeId, &FileName)>, identity: Identity) -> Result<(NodeId, Moved)> {
        let node = match self.known(identity) {
            Some(node) => node,
            None => self.add(identity)?,
        };
        let Some(entry) = self.nodes.get_mut(node) else { return Err(Errno::ESTALE) };
        entry.lookups = entry.lookups.saturating_add(1);
        let same = matches!((&entry.seen, at), (Some(seen), Some((parent, name))) if seen.is(parent, name));
        let moved = !same && node != ROOT;
        Ok((node, moved.then(|| self.see(node, at.map(|(parent, name)| Seen::new(parent, name))))))
    }

    fn add(&mut self, identity: Identity) -> Result<NodeId> {
        self.common.known.room(1)?;
        let id = self.nodes.insert(Node::new(identity)).ok_or(Errno::ENFILE)?;
        self.common.known.add(1);
        self.index(identity, id);
        Ok(id)
    }

    /// Moves `node` to where it was seen; the root is in no directory. What is gone by that, as nothing refers to it
    /// any more, is dropped by the caller, outside the lock: it closes descriptors.
    pub(super) fn see(&mut self, node: NodeId, seen: Option<Seen>) -> Vec<Node> {
        let seen = seen.filter(|seen| node != ROOT && seen.parent != node);
        let stale = seen.as_ref().and_then(|seen| self.above(seen.parent, node));
        let mut gone = stale.map(|stale| self.see(stale, None)).unwrap_or_default();
        if let Some(parent) = self.put(node, seen) {
            gone.extend(self.sweep(parent));
        }
        gone
    }

    /// Of `at` and the directories above it the one that was last seen in `node`. If `node` is now below it, it is
    /// there no more: nodes that were each above the other would never go.
    fn above(&self, at: NodeId, node: NodeId) -> Option<NodeId> {
        self.nodes.get(node).filter(|node| node.children > 0)?;
        let parent = |id: &NodeId| self.nodes.get(*id)?.seen.as_ref().map(|seen| seen.parent);
        std::iter::successors(Some(at), parent).find(|id| parent(id) == Some(node))
    }

    /// Keeps the count of its old and new directory; the old one, if it is left.
    fn put(&mut self, node: NodeId, seen: Option<Seen>) -> Option<NodeId> {
        let new = seen.as_ref().map(|seen| seen.parent);
        let old = std::mem::replace(&mut self.nodes.get_mut(node)?.seen, seen).map(|seen| seen.parent);
        if old == new {
            return None;
        }
        if let Some(parent) = new.and_then(|id| self.nodes.get_mut(id)) {
            parent.children = parent.children.saturating_add(1);
        }
        let left = self.nodes.get_mut(old?)?;
        left.children = left.children.saturating_sub(1);
        old
    }

    /// Removes `node` and then its directories upwards, as far as nothing refers to them. What was removed is dropped
    /// by the caller, outside the lock: it closes descriptors.
    pub(super) fn sweep(&mut self, node: NodeId) -> Vec<Node> {
        let mut gone = Vec::new();
        let mut at = Some(node);
        while let Some(id) = at.filter(|&id| id != ROOT) {
            let idle = |node: &Node| node.lookups == 0 && node.children == 0 && node.opens == 0;
            if !self.nodes.get(id).is_some_and(idle) {
                break;
            }
            at = self.put(id, None);
            gone.extend(self.remove(id));
        }
        gone
    }

    pub(super) fn remove(&mut self, id: NodeId) -> Option<Node> {
        let place = self.nodes.place(id)?;
        let node = self.nodes.remove(id)?;
        self.common.known.give_back(1);
        self.files.remove(&node.identity.id, place);
        Some(node)
    }

    /// Leaves the root only, as if the guest had given all references back. What is gone is dropped by the caller,
    /// outside the lock.
    pub(super) fn reset(&mut self) -> Vec<Node> {
        let gone = self.nodes.reset();
        self.common.known.give_back(gone.len());
        self.files = Files::new();
        self.clock.clear();
        if let Some(root) = self.nodes.get_mut(ROOT) {
            (root.children, root.opens) = (0, 0);
            let identity = root.identity;
            self.index(identity, ROOT);
        }
        gone
    }

    /// Takes a node's descriptor away: it is opened again by name.
    pub(super) fn unpin(&mut self, node: NodeId) -> Option<Arc<OwnedFd>> {
        let pin = self.nodes.get_mut(node).filter(|_| node != ROOT)?.pin.take()?;
        self.clock.retain(|held| *held != node);
        Some(pin)
    }

    /// Keeps `pin` for `node`, unless it is held already. What has become too many is dropped by the caller, outside
    /// the lock.
    pub(super) fn hold(&mut self, node: NodeId, pin: &Arc<OwnedFd>, most: usize) -> Vec<Arc<OwnedFd>> {
        match self.nodes.get_mut(node) {
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
            let Some(node) = self.nodes.get_mut(id) else { continue };
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
