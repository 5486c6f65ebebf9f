//! All files of a tree in memory, and their names.

use hashbrown::{HashMap, HashSet};
use postern_ipc::attr::RenameFlags;
use postern_ipc::id::Caller;
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};

use super::inode::{Body, Inode};
use crate::fs::lock::ranges::Ranges;
use crate::fs::lock::{Conflict, Holder, Lock, LockOwner};
use crate::fs::{Entry, Fh, Handle, NodeId, Object, ROOT};

pub(super) struct State {
    pub(super) inodes: HashMap<NodeId, Inode>,
    pub(super) open: HashMap<Fh, NodeId>,
    pub(super) locks: HashMap<(NodeId, LockOwner), Locked>,
    pub(super) last: u64,
}

/// What an owner has locked, and through which handles.
#[derive(Default)]
pub(super) struct Locked {
    pub(super) ranges: Ranges,
    pub(super) handles: HashSet<Fh>,
}

impl State {
    pub(super) fn inode(&mut self, node: NodeId) -> Result<&mut Inode> {
        self.inodes.get_mut(&node).ok_or(Errno::ESTALE)
    }

    pub(super) fn file(&mut self, handle: Handle) -> Result<&mut Inode> {
        if self.open.get(&handle.fh) != Some(&handle.node) {
            return Err(Errno::EBADF);
        }
        let inode = self.inode(handle.node)?;
        let is_dir = matches!(inode.body, Body::Dir { .. });
        if is_dir == (handle.object == Object::Dir) { Ok(inode) } else { Err(Errno::EBADF) }
    }

    pub(super) fn child(&mut self, parent: NodeId, name: &FileName) -> Result<NodeId> {
        self.inode(parent)?.names()?.get(name.as_bytes()).copied().ok_or(Errno::ENOENT)
    }

    pub(super) fn entry(&mut self, node: NodeId) -> Result<Entry> {
        let inode = self.inode(node)?;
        inode.lookups = inode.lookups.saturating_add(1);
        Ok(Entry { node, attr: inode.attr() })
    }

    pub(super) fn next(&mut self) -> u64 {
        self.last = self.last.wrapping_add(1);
        self.last
    }

    pub(super) fn add(&mut self, mode: u32, caller: Caller, body: Body) -> NodeId {
        let node = NodeId(self.next());
        self.inodes.insert(node, Inode::new(node, mode, caller, body));
        node
    }

    pub(super) fn make(
        &mut self,
        caller: Caller,
        parent: NodeId,
        name: &FileName,
        mode: u32,
        body: Body,
    ) -> Result<Entry> {
        if self.inode(parent)?.names()?.contains_key(name.as_bytes()) {
            return Err(Errno::EEXIST);
        }
        let node = self.add(mode, caller, body);
        self.attach(node, parent, name)?;
        self.entry(node)
    }

    pub(super) fn attach(&mut self, node: NodeId, parent: NodeId, name: &FileName) -> Result<()> {
        let dir = self.inode(parent)?;
        dir.names()?.insert(name.as_bytes().to_vec(), node);
        dir.touch();
        let inode = self.inode(node)?;
        inode.attr.nlink = inode.attr.nlink.saturating_add(1);
        if let Body::Dir { parent: up, .. } = &mut inode.body {
            *up = parent;
        }
        Ok(())
    }

    pub(super) fn detach(&mut self, parent: NodeId, name: &FileName) -> Result<()> {
        let dir = self.inode(parent)?;
        let node = dir.names()?.remove(name.as_bytes()).ok_or(Errno::ENOENT)?;
        dir.touch();
        let inode = self.inode(node)?;
        inode.attr.nlink = inode.attr.nlink.saturating_sub(1);
        self.sweep(node);
        Ok(())
    }

    /// Forgets what has neither a name nor a user.
    pub(super) fn sweep(&mut self, node: NodeId) {
        let idle = |inode: &Inode| inode.attr.nlink == 0 && inode.lookups == 0 && inode.opens == 0;
        if node != ROOT && self.inodes.get(&node).is_some_and(idle) {
            self.inodes.remove(&node);
        }
    }

    pub(super) fn open(&mut self, node: NodeId) -> Result<Fh> {
        let inode = self.inode(node)?;
        inode.opens = inode.opens.saturating_add(1);
        let fh = Fh(self.next());
        self.open.insert(fh, node);
        Ok(fh)
    }

    pub(super) fn stands_against(&mut self, file: Handle, owner: &LockOwner, lock: Lock) -> Result<Option<Conflict>> {
        self.file(file)?.data()?;
        let others = self.locks.iter().filter(|((node, other), _)| *node == file.node && other != owner);
        let found = others.into_iter().find_map(|((_, other), held)| Some((held.ranges.against(lock)?, other.clone())));
        Ok(found.map(|(lock, other)| Conflict { lock, holder: Holder::Client(other) }))
    }

    /// `name` may be removed as a directory, or as something else.
    pub(super) fn removable(&mut self, parent: NodeId, name: &FileName, as_dir: bool) -> Result<()> {
        let node = self.child(parent, name)?;
        match (&self.inode(node)?.body, as_dir) {
            (Body::Dir { names, .. }, true) if !names.is_empty() => Err(Errno::ENOTEMPTY),
            (Body::Dir { .. }, true) => Ok(()),
            (Body::Dir { .. }, false) => Err(Errno::EISDIR),
            (_, true) => Err(Errno::ENOTDIR),
            (_, false) => Ok(()),
        }
    }

    /// `node` is `below` or one of the directories above it.
    pub(super) fn is_above(&mut self, node: NodeId, below: NodeId) -> Result<bool> {
        let mut at = below;
        loop {
            if at == node {
                return Ok(true);
            }
            let Body::Dir { parent, .. } = &self.inode(at)?.body else { return Ok(false) };
            if at == *parent {
                return Ok(false);
            }
            at = *parent;
        }
    }

    pub(super) fn rename(
        &mut self,
        from: (NodeId, &FileName),
        to: (NodeId, &FileName),
        flags: RenameFlags,
    ) -> Result<()> {
        let moved = self.child(from.0, from.1)?;
        let there = self.child(to.0, to.1).ok();
        let (exchange, keep) = (flags.contains(RenameFlags::EXCHANGE), flags.contains(RenameFlags::NOREPLACE));
        match there {
            _ if exchange && keep => return Err(Errno::EINVAL),
            _ if self.is_above(moved, to.0)? => return Err(Errno::EINVAL),
            Some(_) if keep => return Err(Errno::EEXIST),
            None if exchange => return Err(Errno::ENOENT),
            Some(there) if there == moved => return Ok(()),
            Some(_) if !exchange => {
                let as_dir = matches!(self.inode(moved)?.body, Body::Dir { .. });
                self.removable(to.0, to.1, as_dir)?;
                self.detach(to.0, to.1)?;
            }
            _ => {}
        }
        self.inode(from.0)?.names()?.remove(from.1.as_bytes());
        self.attach(moved, to.0, to.1)?;
        if let Some(there) = there.filter(|_| exchange) {
            self.attach(there, from.0, from.1)?;
        }
        for node in [Some(moved), there.filter(|_| exchange)].into_iter().flatten() {
            let inode = self.inode(node)?;
            inode.attr.nlink = inode.attr.nlink.saturating_sub(1);
        }
        Ok(())
    }
}
