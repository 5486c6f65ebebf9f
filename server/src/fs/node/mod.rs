//! The table of nodes: what the guest's node ids stand for.
//!
//! A node remembers who it is (mount, device, inode, birth) and where it was last seen (parent, name); an O_PATH
//! descriptor of it is only a cache. At most `most_held` descriptors are held; the hand of a clock takes them from
//! nodes that were not used since it last came by. A node that is open keeps its own; one that cannot be found by name
//! any more loses it last, and is forgotten with it: a guest that never gives references back fills no memory with such
//! nodes.
//!
//! A node that was never used holds none, and is stale once the host replaced its file. The guest then looks the name
//! up once more, which must lead somewhere: what is found in a directory where that happened is held at once.
//!
//! A guest that never forgets comes to an end at `most` nodes.
//!
//! One lock guards the table; no system call is made under it.

mod files;
#[cfg(test)]
mod sequences;
mod slab;
mod table;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postern_ipc::attr::{Attr, Dev, FileId, Time};
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};

use self::table::{Common, Table};
use super::{NodeId, ROOT};

/// All nodes the guest may name.
pub struct Nodes {
    table: Mutex<Table>,
    most_held: usize,
    /// What a node is depends on the name by which its descriptor was opened.
    by_name: bool,
    /// There is a directory in which the host replaces names.
    replaced: AtomicBool,
}
/// Which file a node is. An inode number may be given to another file once this one is gone; the birth differs then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    id: FileId,
    /// Nanoseconds since the epoch, modulo 2^64; the file system may not know.
    born: u64,
}

impl Identity {
    /// As its attributes say.
    pub fn of(attr: &Attr) -> Self {
        let since = |Time { sec, nsec }| sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(nsec.into());
        Self { id: attr.id, born: attr.btime.map_or(0, since) }
    }

    /// The file system it is of.
    pub fn dev(&self) -> Dev {
        self.id.dev
    }
}

/// Where a node was last seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The directory.
    pub parent: NodeId,
    name: Box<[u8]>,
}

impl Seen {
    fn new(parent: NodeId, name: &FileName) -> Self {
        Self { parent, name: name.as_bytes().into() }
    }

    /// The name in it.
    ///
    /// # Errors
    /// None in fact: it was a file name when it came.
    pub fn name(&self) -> Result<FileName> {
        FileName::new(&self.name)
    }

    fn is(&self, parent: NodeId, name: &FileName) -> bool {
        self.parent == parent && *self.name == *name.as_bytes()
    }
}
/// How to reach a node.
pub enum Place {
    /// Here it is.
    Pinned(Arc<OwnedFd>),
    /// Look there, and believe only this identity.
    Named(Seen, Identity),
}

impl Nodes {
    /// A table that knows the root only; it may come to know `most` nodes, and hold descriptors of `most_held`.
    ///
    /// # Errors
    /// None in fact: it is the first table.
    pub fn new(root: Arc<OwnedFd>, attr: &Attr, most_held: usize, most: usize) -> Result<Self> {
        Self::of(root, Identity::of(attr), most_held, Arc::new(Common::new(most)))
    }

    /// Another table of the same root, which gives no node a number that this one does; both together may come to know
    /// as many nodes as this one alone.
    ///
    /// # Errors
    /// ENFILE if there is no room for it.
    pub fn beside(&self, most_held: usize) -> Result<Self> {
        self.room()?;
        let table = self.lock();
        let root = table.nodes.get(ROOT).ok_or(Errno::ESTALE)?;
        let pin = root.pin.clone().ok_or(Errno::ESTALE)?;
        let beside = Self::of(pin, root.identity, most_held, Arc::clone(&table.common))?;
        Ok(beside.by_name(self.by_name))
    }

    fn of(root: Arc<OwnedFd>, identity: Identity, most_held: usize, common: Arc<Common>) -> Result<Self> {
        let table = Table::new(root, identity, common)?;
        Ok(Self { table: Mutex::new(table), most_held, by_name: false, replaced: AtomicBool::new(false) })
    }

    /// What a node is depends on the name by which its descriptor was opened: of a file with several, that by which it
    /// was seen last.
    #[must_use]
    pub fn by_name(self, by_name: bool) -> Self {
        Self { by_name, ..self }
    }

    /// The file system that a node is of.
    ///
    /// # Errors
    /// ESTALE for a node that the guest does not know.
    pub fn dev(&self, node: NodeId) -> Result<Dev> {
        self.lock().nodes.get(node).map(|node| node.identity.id.dev).ok_or(Errno::ESTALE)
    }

    /// Which file a node is, the directory in which it was last seen and its name there; `None` if it has none.
    pub fn sight(&self, node: NodeId) -> Option<(Identity, NodeId, FileName)> {
        let table = self.lock();
        let entry = table.nodes.get(node)?;
        let seen = entry.seen.as_ref()?;
        Some((entry.identity, seen.parent, seen.name().ok()?))
    }

    /// Forgets everything but the root, as if the guest had given all references back.
    pub fn reset(&self) {
        let mut table = self.lock();
        let gone = table.reset();
        drop(table);
        drop(gone);
    }

    /// There is room for one more, which is asked before one is made.
    ///
    /// # Errors
    /// ENFILE if there is not.
    pub fn room(&self) -> Result<()> {
        self.lock().common.known.room(1)
    }

    /// A name led to a file: its node, with one more reference of the guest.
    ///
    /// # Errors
    /// ENFILE if it is one too many.
    pub fn found(&self, parent: NodeId, name: &FileName, attr: &Attr) -> Result<NodeId> {
        let mut table = self.lock();
        let (node, moved) = table.found(Some((parent, name)), Identity::of(attr))?;
        let spare = if moved.is_some() && self.by_name { table.unpin(node) } else { None };
        drop(table);
        drop((moved, spare));
        Ok(node)
    }

    /// A file without a name was made: it keeps its descriptor for as long as it lives.
    ///
    /// # Errors
    /// ENFILE if it is one too many.
    pub fn nameless(&self, attr: &Attr, pin: OwnedFd) -> Result<NodeId> {
        let found = self.lock().found(None, Identity::of(attr));
        let (node, _) = found?;
        self.hold(node, Arc::new(pin));
        Ok(node)
    }

    /// The guest gives references back; more than it has, and those of the root, change nothing.
    pub fn forget(&self, node: NodeId, count: u64) {
        let mut table = self.lock();
        if node != ROOT
            && let Some(entry) = table.nodes.get_mut(node)
        {
            entry.lookups = entry.lookups.saturating_sub(count);
        }
        let gone = table.sweep(node);
        drop(table);
        drop(gone);
    }

    /// How to reach a node.
    ///
    /// # Errors
    /// ESTALE if the guest does not know it or its name is gone without leaving a descriptor.
    pub fn place(&self, node: NodeId) -> Result<Place> {
        let mut table = self.lock();
        let entry = table.nodes.get_mut(node).ok_or(Errno::ESTALE)?;
        if let Some(pin) = &entry.pin {
            entry.used = true;
            return Ok(Place::Pinned(Arc::clone(pin)));
        }
        entry.seen.clone().map(|seen| Place::Named(seen, entry.identity)).ok_or(Errno::ESTALE)
    }

    /// The directory in which `node` was last seen, with one more reference of the guest, and its name there.
    ///
    /// # Errors
    /// ESTALE for an unknown node, EINVAL for the root, ENOENT if the name is gone.
    pub fn seen(&self, node: NodeId) -> Result<(NodeId, FileName)> {
        let mut table = self.lock();
        let entry = table.nodes.get(node).ok_or(Errno::ESTALE)?;
        let gone = if node == ROOT { Errno::EINVAL } else { Errno::ENOENT };
        let Seen { parent, name } = entry.seen.clone().ok_or(gone)?;
        let dir = table.nodes.get_mut(parent).ok_or(Errno::ESTALE)?;
        dir.lookups = dir.lookups.saturating_add(1);
        Ok((parent, FileName::new(&name)?))
    }

    /// A name in `dir` led to another file than before.
    pub fn replaced(&self, dir: NodeId) {
        if let Some(entry) = self.lock().nodes.get_mut(dir) {
            entry.replaced = true;
            self.replaced.store(true, Ordering::Relaxed);
        }
    }

    /// The host replaces names in `dir`.
    pub fn is_replaced(&self, dir: NodeId) -> bool {
        self.replaced.load(Ordering::Relaxed) && self.lock().nodes.get(dir).is_some_and(|entry| entry.replaced)
    }

    /// A descriptor of `node` was opened: keep it, and give back others that have become too many.
    pub fn hold(&self, node: NodeId, pin: Arc<OwnedFd>) -> Arc<OwnedFd> {
        let mut table = self.lock();
        let spare = table.hold(node, &pin, self.most_held);
        let held = table.nodes.get(node).and_then(|entry| entry.pin.clone());
        drop(table);
        drop(spare);
        held.unwrap_or(pin)
    }

    /// Which node a file is, if the guest knows it.
    pub fn known(&self, attr: &Attr) -> Option<NodeId> {
        self.lock().known(Identity::of(attr))
    }

    /// A name of `node` was removed. If it was the one the node is known by, the node has only `pin` left.
    pub fn unnamed(&self, node: NodeId, parent: NodeId, name: &FileName, pin: Arc<OwnedFd>) {
        let mut table = self.lock();
        let known = table.nodes.get(node).and_then(|n| n.seen.as_ref()).is_some_and(|seen| seen.is(parent, name));
        let mut gone = Vec::new();
        if known {
            gone = table.see(node, None);
        }
        // Only now: what has a name would be the first to give its descriptor back.
        let other_name = !known && self.by_name;
        let spare = if other_name { Vec::new() } else { table.hold(node, &pin, self.most_held) };
        drop(table);
        drop((gone, spare));
    }

    /// `node` has a new name.
    pub fn renamed(&self, node: NodeId, parent: NodeId, name: &FileName) {
        let gone = self.lock().see(node, Some(Seen::new(parent, name)));
        drop(gone);
    }

    /// A handle to `node` was opened.
    pub fn opened(&self, node: NodeId) {
        if let Some(entry) = self.lock().nodes.get_mut(node) {
            entry.opens = entry.opens.saturating_add(1);
        }
    }

    /// A handle to `node` was closed.
    pub fn closed(&self, node: NodeId) {
        let mut table = self.lock();
        if let Some(entry) = table.nodes.get_mut(node) {
            entry.opens = entry.opens.saturating_sub(1);
        }
        let gone = table.sweep(node);
        drop(table);
        drop(gone);
    }

    /// Nodes and descriptors held, for the log.
    pub fn count(&self) -> (usize, usize) {
        let table = self.lock();
        (table.nodes.len(), table.clock.len())
    }

    /// A panic elsewhere leaves the table whole: no step between two of its changes can panic.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
