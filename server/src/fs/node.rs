//! The table of nodes: what the guest's node ids stand for.
//!
//! A node remembers who it is (mount, device, inode, birth) and where it was last seen (parent, name); an O_PATH
//! descriptor of it is only a cache. At most `most_held` descriptors are held; the hand of a clock takes them from nodes
//! that were not used since it last came by. A node that is open keeps its own; one that cannot be found by name any more
//! loses it last, and is forgotten with it: a guest that never gives references back fills no memory with such nodes.
//!
//! A node that was never used holds none, and is stale once the host replaced its file. The guest then looks the name up
//! once more, which must lead somewhere: what is found in a directory where that happened is held at once.
//!
//! A guest that never forgets comes to an end at `most` nodes.
//!
//! One lock guards the table; no system call is made under it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use postern_ipc::attr::{Attr, Dev, FileId, Time};
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};

use super::{NodeId, ROOT};
use crate::quota::Quota;

/// All nodes the guest may name.
pub struct Nodes {
    table: Mutex<Table>,
    most_held: usize,
    /// What a node is depends on the name by which its descriptor was opened.
    by_name: bool,
    /// There is a directory in which the host replaces names.
    replaced: AtomicBool,
}

struct Table {
    nodes: HashMap<NodeId, Node>,
    by_identity: HashMap<FileId, NodeId>,
    /// Nodes that hold a descriptor, in the order the clock's hand meets them.
    clock: VecDeque<NodeId>,
    common: Arc<Common>,
}

/// What tables of one root have together.
struct Common {
    /// The last number given away.
    last: AtomicU64,
    /// Nodes that they know, but for the root.
    known: Quota,
}

struct Node {
    identity: Identity,
    seen: Option<Seen>,
    /// References of the guest: look-ups not yet forgotten.
    lookups: u64,
    /// Nodes last seen in this one; it stays while they do.
    children: u64,
    /// Open handles.
    opens: u64,
    pin: Option<Arc<OwnedFd>>,
    used: bool,
    /// The host replaces names in it.
    replaced: bool,
}

/// Which file a node is. An inode number may be given to another file once this one is gone; the birth differs then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    id: FileId,
    born: Option<Time>,
}

impl Identity {
    /// As its attributes say.
    pub fn of(attr: &Attr) -> Self {
        Self { id: attr.id, born: attr.btime }
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
    pub fn new(root: OwnedFd, attr: &Attr, most_held: usize, most: usize) -> Self {
        let common = Common { last: AtomicU64::new(ROOT.0), known: Quota::new(most, "nodes (--max-nodes)") };
        Self::of(Arc::new(root), Identity::of(attr), most_held, Arc::new(common))
    }

    /// Another table of the same root, which gives no node a number that this one does; both together may come to know
    /// as many nodes as this one alone.
    ///
    /// # Errors
    /// ENFILE if there is no room for it.
    pub fn beside(&self, most_held: usize) -> Result<Self> {
        self.room()?;
        let table = self.lock();
        let root = table.nodes.get(&ROOT).ok_or(Errno::ESTALE)?;
        let pin = root.pin.clone().ok_or(Errno::ESTALE)?;
        let beside = Self::of(pin, root.identity, most_held, Arc::clone(&table.common));
        Ok(beside.by_name(self.by_name))
    }

    fn of(root: Arc<OwnedFd>, identity: Identity, most_held: usize, common: Arc<Common>) -> Self {
        let node = Node {
            identity,
            seen: None,
            lookups: 1,
            children: 0,
            opens: 0,
            pin: Some(root),
            used: true,
            replaced: false,
        };
        let table = Table {
            nodes: HashMap::from_iter([(ROOT, node)]),
            by_identity: HashMap::from_iter([(identity.id, ROOT)]),
            clock: VecDeque::new(),
            common,
        };
        Self { table: Mutex::new(table), most_held, by_name: false, replaced: AtomicBool::new(false) }
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
        self.lock().nodes.get(&node).map(|node| node.identity.id.dev).ok_or(Errno::ESTALE)
    }

    /// Forgets everything but the root, as if the guest had given all references back.
    pub fn reset(&self) {
        let mut table = self.lock();
        let gone: Vec<Node> = table.nodes.extract_if(|&id, _| id != ROOT).map(|(_, node)| node).collect();
        table.common.known.give_back(gone.len());
        table.by_identity.retain(|_, &mut id| id == ROOT);
        table.clock.clear();
        if let Some(root) = table.nodes.get_mut(&ROOT) {
            (root.children, root.opens) = (0, 0);
        }
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
        let seen = Seen::new(parent, name);
        let known =
            table.by_identity.get(&attr.id).and_then(|id| table.nodes.get(id)).and_then(|node| node.seen.as_ref());
        let other = !known.is_some_and(|known| known.is(parent, name));
        let found = table.found(Some(seen), Identity::of(attr));
        let spare = found.ok().filter(|_| other && self.by_name).and_then(|node| table.unpin(node));
        drop(table);
        drop(spare);
        found
    }

    /// A file without a name was made: it keeps its descriptor for as long as it lives.
    ///
    /// # Errors
    /// ENFILE if it is one too many.
    pub fn nameless(&self, attr: &Attr, pin: OwnedFd) -> Result<NodeId> {
        let node = self.lock().found(None, Identity::of(attr))?;
        self.hold(node, Arc::new(pin));
        Ok(node)
    }

    /// The guest gives references back; more than it has, and those of the root, change nothing.
    pub fn forget(&self, node: NodeId, count: u64) {
        let mut table = self.lock();
        if node != ROOT
            && let Some(entry) = table.nodes.get_mut(&node)
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
        let entry = table.nodes.get_mut(&node).ok_or(Errno::ESTALE)?;
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
        let entry = table.nodes.get(&node).ok_or(Errno::ESTALE)?;
        let gone = if node == ROOT { Errno::EINVAL } else { Errno::ENOENT };
        let Seen { parent, name } = entry.seen.clone().ok_or(gone)?;
        let dir = table.nodes.get_mut(&parent).ok_or(Errno::ESTALE)?;
        dir.lookups = dir.lookups.saturating_add(1);
        Ok((parent, FileName::new(&name)?))
    }

    /// A name in `dir` led to another file than before.
    pub fn replaced(&self, dir: NodeId) {
        if let Some(entry) = self.lock().nodes.get_mut(&dir) {
            entry.replaced = true;
            self.replaced.store(true, Ordering::Relaxed);
        }
    }

    /// The host replaces names in `dir`.
    pub fn is_replaced(&self, dir: NodeId) -> bool {
        self.replaced.load(Ordering::Relaxed) && self.lock().nodes.get(&dir).is_some_and(|entry| entry.replaced)
    }

    /// A descriptor of `node` was opened: keep it, and give back others that have become too many.
    pub fn hold(&self, node: NodeId, pin: Arc<OwnedFd>) -> Arc<OwnedFd> {
        let mut table = self.lock();
        let spare = table.hold(node, &pin, self.most_held);
        let held = table.nodes.get(&node).and_then(|entry| entry.pin.clone());
        drop(table);
        drop(spare);
        held.unwrap_or(pin)
    }

    /// Which node a file is, if the guest knows it.
    pub fn known(&self, attr: &Attr) -> Option<NodeId> {
        let table = self.lock();
        let node = *table.by_identity.get(&attr.id)?;
        (table.nodes.get(&node)?.identity == Identity::of(attr)).then_some(node)
    }

    /// A name of `node` was removed. If it was the one the node is known by, the node has only `pin` left.
    pub fn unnamed(&self, node: NodeId, parent: NodeId, name: &FileName, pin: Arc<OwnedFd>) {
        let mut table = self.lock();
        let known = table.nodes.get(&node).and_then(|n| n.seen.as_ref()).is_some_and(|seen| seen.is(parent, name));
        let mut gone = Vec::new();
        if known {
            table.see(node, None);
            gone = table.sweep(parent);
        }
        // Only now: what has a name would be the first to give its descriptor back.
        let other_name = !known && self.by_name;
        let spare = if other_name { Vec::new() } else { table.hold(node, &pin, self.most_held) };
        drop(table);
        drop((gone, spare));
    }

    /// `node` has a new name.
    pub fn renamed(&self, node: NodeId, parent: NodeId, name: &FileName) {
        self.lock().see(node, Some(Seen::new(parent, name)));
    }

    /// A handle to `node` was opened.
    pub fn opened(&self, node: NodeId) {
        if let Some(entry) = self.lock().nodes.get_mut(&node) {
            entry.opens = entry.opens.saturating_add(1);
        }
    }

    /// A handle to `node` was closed.
    pub fn closed(&self, node: NodeId) {
        let mut table = self.lock();
        if let Some(entry) = table.nodes.get_mut(&node) {
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

impl Drop for Table {
    fn drop(&mut self) {
        self.common.known.give_back(self.nodes.len().saturating_sub(1));
    }
}

impl Table {
    fn found(&mut self, seen: Option<Seen>, identity: Identity) -> Result<NodeId> {
        let known = self.by_identity.get(&identity.id).copied();
        let node = match known.filter(|id| self.nodes.get(id).is_some_and(|node| node.identity == identity)) {
            Some(node) => node,
            None => self.add(identity)?,
        };
        if let Some(entry) = self.nodes.get_mut(&node) {
            entry.lookups = entry.lookups.saturating_add(1);
            let same = matches!((&entry.seen, &seen), (Some(a), Some(b)) if a.parent == b.parent && a.name == b.name);
            if !same && node != ROOT {
                self.see(node, seen);
            }
        }
        Ok(node)
    }

    fn add(&mut self, identity: Identity) -> Result<NodeId> {
        self.common.known.room(1)?;
        self.common.known.add(1);
        let id = NodeId(self.common.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1));
        let node =
            Node { identity, seen: None, lookups: 0, children: 0, opens: 0, pin: None, used: false, replaced: false };
        self.nodes.insert(id, node);
        self.by_identity.insert(identity.id, id);
        Ok(id)
    }

    /// Moves `node` to where it was seen, keeping the count of its old and new directory.
    fn see(&mut self, node: NodeId, seen: Option<Seen>) {
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
    fn sweep(&mut self, node: NodeId) -> Vec<Node> {
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

    fn remove(&mut self, id: NodeId) -> Option<Node> {
        let node = self.nodes.remove(&id)?;
        self.common.known.give_back(1);
        if self.by_identity.get(&node.identity.id) == Some(&id) {
            self.by_identity.remove(&node.identity.id);
        }
        Some(node)
    }

    /// Takes a node's descriptor away: it is opened again by name.
    fn unpin(&mut self, node: NodeId) -> Option<Arc<OwnedFd>> {
        let pin = self.nodes.get_mut(&node).filter(|_| node != ROOT)?.pin.take()?;
        self.clock.retain(|held| *held != node);
        Some(pin)
    }

    /// Keeps `pin` for `node`, unless it is held already. What has become too many is dropped by the caller, outside the
    /// lock.
    fn hold(&mut self, node: NodeId, pin: &Arc<OwnedFd>, most: usize) -> Vec<Arc<OwnedFd>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use postern_ipc::attr::Dev;
    use postern_ipc::id::{GuestGid, GuestUid};

    fn attr(ino: u64, born: i64) -> Attr {
        let now = Time { sec: born, nsec: 0 };
        let dev = Dev::default();
        Attr {
            id: FileId { mount: 1, dev, ino },
            mode: libc::S_IFREG,
            nlink: 1,
            uid: GuestUid(0),
            gid: GuestGid(0),
            rdev: dev,
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: now,
            mtime: now,
            ctime: now,
            btime: Some(now),
            mount_root: false,
            automount: false,
        }
    }

    fn name(name: &str) -> FileName {
        FileName::new(name.as_bytes()).unwrap()
    }

    fn null() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn nodes(most_held: usize) -> Nodes {
        Nodes::new(null(), &attr(1, 0), most_held, 1000)
    }

    #[test]
    fn two_names_of_one_file_are_one_node() {
        let nodes = nodes(8);
        let a = nodes.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
        assert_eq!(nodes.found(ROOT, &name("b"), &attr(5, 0)).unwrap(), a);
        nodes.forget(a, 1);
        assert!(nodes.place(a).is_ok());
        nodes.forget(a, 1);
        assert_eq!(nodes.place(a).err(), Some(Errno::ESTALE));
    }

    #[test]
    fn an_inode_number_given_to_a_new_file_is_a_new_node() {
        let nodes = nodes(8);
        let old = nodes.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
        assert_ne!(nodes.found(ROOT, &name("a"), &attr(5, 1)).unwrap(), old);
    }

    #[test]
    fn forgetting_the_root_or_too_much_changes_nothing_else() {
        let nodes = nodes(8);
        nodes.forget(ROOT, u64::MAX);
        assert!(nodes.place(ROOT).is_ok());
        nodes.forget(NodeId(99), 1);
        let a = nodes.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
        nodes.forget(a, u64::MAX);
        assert_eq!(nodes.count().0, 1);
    }

    #[test]
    fn a_forgotten_directory_stays_while_something_was_seen_in_it() {
        let nodes = nodes(8);
        let dir = nodes.found(ROOT, &name("d"), &attr(5, 0)).unwrap();
        let file = nodes.found(dir, &name("f"), &attr(6, 0)).unwrap();
        nodes.forget(dir, 1);
        assert!(nodes.place(dir).is_ok());
        nodes.forget(file, 1);
        assert_eq!(nodes.count().0, 1);
    }

    #[test]
    fn only_so_many_descriptors_are_held_and_the_used_ones_stay() {
        let nodes = nodes(4);
        let ids: Vec<_> =
            (0..20).map(|i| nodes.found(ROOT, &name(&i.to_string()), &attr(10 + i, 0)).unwrap()).collect();
        for &id in &ids {
            nodes.hold(id, Arc::new(null()));
            let _ = nodes.place(ids[0]);
        }
        assert_eq!(nodes.count().1, 4);
        assert!(matches!(nodes.place(ids[0]), Ok(Place::Pinned(_))));
        assert!(matches!(nodes.place(ids[3]), Ok(Place::Named(..))));
    }

    #[test]
    fn a_node_without_a_name_keeps_its_descriptor() {
        let nodes = nodes(2);
        let a = nodes.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
        nodes.hold(a, Arc::new(null()));
        nodes.unnamed(a, ROOT, &name("a"), Arc::new(null()));
        for i in 0..10 {
            let other = nodes.found(ROOT, &name(&i.to_string()), &attr(10 + i, 0)).unwrap();
            nodes.hold(other, Arc::new(null()));
        }
        assert!(matches!(nodes.place(a), Ok(Place::Pinned(_))));
    }

    // A guest that makes files, removes them and never forgets them: nothing but our memory would be used up.
    #[test]
    fn nodes_that_nothing_leads_to_any_more_do_not_pile_up() {
        let nodes = nodes(4);
        let gone = (0..1000).map(|i| {
            let node = nodes.found(ROOT, &name("a"), &attr(10 + i, 0)).unwrap();
            nodes.unnamed(node, ROOT, &name("a"), Arc::new(null()));
            assert!(matches!(nodes.place(node), Ok(Place::Pinned(_))), "the last one has its descriptor");
            node
        });
        let gone: Vec<_> = gone.collect();
        assert_eq!(nodes.count(), (1 + 4, 4));
        assert_eq!(nodes.place(gone[0]).err(), Some(Errno::ESTALE));
        gone.iter().for_each(|&node| nodes.forget(node, 1));
        assert_eq!(nodes.count().0, 1);
    }

    // unlink(2): "If the name was the last link to a file but any processes still have the file open, the file will
    // remain in existence"
    #[test]
    fn a_node_without_a_name_stays_as_long_as_it_is_open() {
        let nodes = nodes(4);
        let open = nodes.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
        nodes.opened(open);
        nodes.unnamed(open, ROOT, &name("a"), Arc::new(null()));
        for i in 0..100 {
            let node = nodes.found(ROOT, &name("b"), &attr(10 + i, 0)).unwrap();
            nodes.unnamed(node, ROOT, &name("b"), Arc::new(null()));
        }
        assert!(matches!(nodes.place(open), Ok(Place::Pinned(_))));
    }

    #[test]
    fn where_a_node_was_last_seen_is_held_and_follows_its_name() {
        let nodes = nodes(8);
        let dir = nodes.found(ROOT, &name("d"), &attr(5, 0)).unwrap();
        let file = nodes.found(ROOT, &name("f"), &attr(6, 0)).unwrap();
        nodes.renamed(file, dir, &name("g"));
        assert_eq!(nodes.seen(file), Ok((dir, name("g"))));
        nodes.forget(dir, 1);
        nodes.forget(file, 1);
        assert!(nodes.place(dir).is_ok());
        nodes.forget(dir, 1);
        assert_eq!(nodes.seen(dir), Err(Errno::ESTALE));
        assert_eq!(nodes.seen(ROOT), Err(Errno::EINVAL));
    }

    #[test]
    fn a_reset_leaves_the_root_only() {
        let nodes = nodes(8);
        let dir = nodes.found(ROOT, &name("d"), &attr(5, 0)).unwrap();
        nodes.found(dir, &name("f"), &attr(6, 0)).unwrap();
        nodes.hold(dir, Arc::new(null()));
        nodes.reset();
        assert_eq!(nodes.count(), (1, 0));
        assert!(nodes.place(ROOT).is_ok());
    }

    #[test]
    fn there_are_no_more_nodes_than_may_be() {
        let nodes = Nodes::new(null(), &attr(1, 0), 4, 2);
        let a = nodes.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
        nodes.found(ROOT, &name("b"), &attr(6, 0)).unwrap();
        assert_eq!(
            (nodes.room(), nodes.found(ROOT, &name("c"), &attr(7, 0))),
            (Err(Errno::ENFILE), Err(Errno::ENFILE))
        );
        assert_eq!(nodes.found(ROOT, &name("link"), &attr(5, 0)), Ok(a));
        nodes.forget(a, 2);
        assert_eq!(nodes.room(), Ok(()));
        nodes.found(ROOT, &name("c"), &attr(7, 0)).unwrap();
    }

    #[test]
    fn tables_of_one_root_share_the_room_and_the_numbers_but_no_node() {
        let first = Nodes::new(null(), &attr(1, 0), 8, 2);
        let second = first.beside(8).unwrap();
        let a = first.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
        let b = second.found(ROOT, &name("a"), &attr(5, 0)).unwrap();
        assert!(a != b && first.place(b).is_err() && second.place(a).is_err());
        assert_eq!((first.room(), second.room()), (Err(Errno::ENFILE), Err(Errno::ENFILE)));
        assert!(first.beside(8).is_err());
        drop(second);
        assert_eq!(first.room(), Ok(()));
        first.reset();
        assert!((0..2).all(|ino| first.found(ROOT, &name("b"), &attr(7 + ino, 0)).is_ok()));
        assert_eq!(first.room(), Err(Errno::ENFILE));
    }
}
