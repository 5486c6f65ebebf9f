//! What the guest's kernel knows: inodes, by which names it found them, and the fids its users have of them.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};

use nix::errno::Errno;
use postern_server::fuse::abi::{BatchForgetIn, EntryOut, ForgetIn, ForgetOne, ROOT_ID, opcode as op};
use postern_server::p9::message::Rgetattr;
use zerocopy::FromBytes;

use super::Mount;
use crate::fuse::{Request, Result};

/// What tells files apart: kind and number of the qid, and when the file was born, because numbers are used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Identity {
    kind: u8,
    path: u64,
    born: (u64, u64),
}

impl Identity {
    fn of(attr: &Rgetattr) -> Self {
        Self { kind: attr.qid.kind, path: attr.qid.path, born: (attr.btime_sec, attr.btime_nsec) }
    }
}

struct Node {
    identity: Option<Identity>,
    parent: u64,
    name: Vec<u8>,
    /// One per user.
    fids: HashMap<u32, u32>,
    lookups: u64,
}

/// All inodes in use.
pub(super) struct Nodes {
    table: HashMap<u64, Node>,
    known: HashMap<Identity, u64>,
    next: u64,
}

impl Default for Nodes {
    /// The root, to which nobody has attached.
    fn default() -> Self {
        let root = Node { identity: None, parent: ROOT_ID, name: Vec::new(), fids: HashMap::new(), lookups: 1 };
        Self { table: HashMap::from([(ROOT_ID, root)]), known: HashMap::new(), next: ROOT_ID + 1 }
    }
}

impl Nodes {
    fn get(&mut self, node: u64) -> Result<&mut Node> {
        self.table.get_mut(&node).ok_or(Errno::ESTALE)
    }

    /// The inode of a file that was found at a place.
    fn found(&mut self, identity: Identity, parent: u64, name: &[u8]) -> (u64, &mut Node) {
        let id = *self.known.entry(identity).or_insert(self.next);
        self.next = self.next.max(id + 1);
        let new = || Node { identity: Some(identity), parent, name: name.into(), fids: HashMap::new(), lookups: 0 };
        let node = self.table.entry(id).or_insert_with(new);
        (node.parent, node.name) = (parent, name.into());
        (id, node)
    }

    /// Takes lookups back; the fids of an inode that is known no longer.
    fn forget(&mut self, id: u64, count: u64) -> Vec<u32> {
        let Some(node) = self.table.get_mut(&id).filter(|_| id != ROOT_ID) else { return Vec::new() };
        node.lookups = node.lookups.saturating_sub(count);
        if node.lookups > 0 {
            return Vec::new();
        }
        let node = self.table.remove(&id).expect("there");
        node.identity.map(|identity| self.known.remove(&identity));
        node.fids.into_values().collect()
    }
}

impl Mount {
    fn nodes(&self) -> MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fid that a user has of an inode; he walks to it where it was last seen, if he has none.
    pub(super) fn fid(&self, uid: u32, id: u64) -> Result<u32> {
        let (identity, parent, name) = {
            let mut nodes = self.nodes();
            let node = nodes.get(id)?;
            if let Some(fid) = node.fids.get(&uid) {
                return Ok(*fid);
            }
            (node.identity, node.parent, node.name.clone())
        };
        let fid = match identity {
            None => {
                let fid = self.client.fid();
                self.client.attach_as(fid, uid).map(|_| fid)?
            }
            Some(identity) => {
                let fid = self.walk(self.fid(uid, parent)?, &[&name])?;
                if Identity::of(&self.client.getattr(fid)?) != identity {
                    self.client.clunk(fid)?;
                    return Err(Errno::ESTALE);
                }
                fid
            }
        };
        self.nodes().get(id)?.fids.insert(uid, fid);
        Ok(fid)
    }

    /// Looks a name up.
    pub(super) fn find(&self, uid: u32, dir: u64, name: &[u8]) -> Result<EntryOut> {
        let fid = self.walk(self.fid(uid, dir)?, &[name])?;
        let attr = self.client.getattr(fid)?;
        let (nodeid, old) = {
            let mut nodes = self.nodes();
            let (id, node) = nodes.found(Identity::of(&attr), dir, name);
            node.lookups += 1;
            (id, node.fids.insert(uid, fid))
        };
        old.map_or(Ok(()), |old| self.client.clunk(old))?;
        Ok(EntryOut { nodeid, attr: super::attr::attr(&attr), ..Default::default() })
    }

    /// A name has moved.
    pub(super) fn moved(&self, from: (u64, &[u8]), to: (u64, &[u8])) {
        let mut nodes = self.nodes();
        let there = nodes.table.values_mut().find(|node| (node.parent, node.name.as_slice()) == from);
        if let Some(node) = there {
            (node.parent, node.name) = (to.0, to.1.into());
        }
    }

    /// FORGET and BATCH_FORGET: what is known no longer is clunked.
    pub(super) fn forget(&self, request: &Request<'_>) {
        let forgotten: Vec<(u64, u64)> = match request.opcode {
            op::FORGET => vec![(request.nodeid, request.parse::<ForgetIn>().0.nlookup)],
            op::BATCH_FORGET => {
                let (_, list) = request.parse::<BatchForgetIn>();
                let one = |bytes: &[u8]| ForgetOne::read_from_bytes(bytes).expect("a whole one");
                list.chunks(size_of::<ForgetOne>()).map(one).map(|one| (one.nodeid, one.nlookup)).collect()
            }
            opcode => super::wordless(opcode),
        };
        for (node, count) in forgotten {
            let fids = self.nodes().forget(node, count);
            fids.into_iter().for_each(|fid| self.client.clunk(fid).expect("a fid in use"));
        }
    }
}
