//! A file system in memory, for testing frontends without a helper: names, data, links, renames and attributes behave
//! as on a disk; what needs a host (flags, project ids, holes) is refused as a file system does that has none.

mod inode;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use postern_ipc::attr::{Attr, Changes, Mode, NodeKind, OpenFlags, RenameFlags, XattrFlags};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::{FileName, Target, XattrName};
use postern_ipc::op::Fsx;
use postern_ipc::{Errno, Result};
use rustix::fs::MemfdFlags;

use self::inode::{Body, FILE_MAX, Inode, length};
use self::state::State;
use super::lock::{self, Claim, Conflict, Lock, LockOwner};
use super::{Detail, Dirent, Entry, Fh, Fs, Handle, Listing, NodeId, ROOT, Seek, Sink, Source, Space, Spot, Wait};

/// What its sizes are told in.
const BLOCK: u64 = 4096;

/// The whole of it.
pub struct Synthetic(Mutex<State>);

impl Default for Synthetic {
    fn default() -> Self {
        let body = Body::Dir { parent: ROOT, names: BTreeMap::new() };
        let root = Inode::new(ROOT, libc::S_IFDIR | 0o755, Caller::Root, body);
        let state = State {
            inodes: HashMap::from_iter([(ROOT, root)]),
            open: HashMap::new(),
            locks: HashMap::new(),
            last: ROOT.0,
        };
        Self(Mutex::new(state))
    }
}

impl Synthetic {
    fn state<R>(&self, act: impl FnOnce(&mut State) -> Result<R>) -> Result<R> {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn answer(value: &[u8], size: u32, to: &mut dyn Sink) -> Result<u32> {
    if size > 0 {
        to.put(value)?;
    }
    u32::try_from(value.len()).map_err(|_| Errno::E2BIG)
}

fn masked(kind: u32, mode: Mode, umask: Mode) -> u32 {
    kind | (mode.bits() & !umask.bits())
}

impl Fs for Synthetic {
    fn enter(&self, _: usize) {}

    /// It judges nobody.
    fn acting_as(self: &Arc<Self>, _: GuestUid, _: GuestGid) -> Result<Arc<Self>> {
        Ok(Arc::clone(self))
    }

    fn reset(&self) {
        let _ = self.state(|state| {
            state.open.clear();
            state.locks.clear();
            for inode in state.inodes.values_mut() {
                (inode.lookups, inode.opens) = (0, 0);
            }
            state.inodes.retain(|&node, inode| node == ROOT || inode.attr.nlink > 0);
            Ok(())
        });
    }

    fn lookup(&self, parent: NodeId, name: &FileName) -> Result<Entry> {
        self.state(|state| {
            let node = state.child(parent, name)?;
            state.entry(node)
        })
    }

    fn forget(&self, node: NodeId, count: u64) {
        let _ = self.state(|state| {
            let inode = state.inode(node)?;
            inode.lookups = inode.lookups.saturating_sub(count);
            state.sweep(node);
            Ok(())
        });
    }

    fn seen(&self, node: NodeId) -> Result<(NodeId, FileName)> {
        self.state(|state| {
            state.inode(node)?;
            let of = |dir: &Inode| match &dir.body {
                Body::Dir { names, .. } => {
                    names.iter().find(|(_, there)| **there == node).map(|(name, _)| name.clone())
                }
                _ => None,
            };
            let found = state.inodes.iter().find_map(|(&parent, dir)| Some((parent, of(dir)?)));
            let gone = if node == ROOT { Errno::EINVAL } else { Errno::ENOENT };
            let (parent, name) = found.ok_or(gone)?;
            state.entry(parent)?;
            Ok((parent, FileName::new(&name)?))
        })
    }

    fn getattr(&self, node: NodeId, file: Option<Handle>) -> Result<Attr> {
        self.state(|state| match file {
            Some(file) => Ok(state.file(file)?.attr()),
            None => Ok(state.inode(node)?.attr()),
        })
    }

    fn setattr(&self, node: NodeId, file: Option<Handle>, changes: &Changes) -> Result<Attr> {
        self.state(|state| {
            file.map_or(Ok(()), |file| state.file(file).map(drop))?;
            let inode = state.inode(node)?;
            inode.change(changes)?;
            Ok(inode.attr())
        })
    }

    fn readlink(&self, node: NodeId, to: &mut dyn Sink) -> Result<()> {
        self.state(|state| match &state.inode(node)?.body {
            Body::Link(target) => to.put(target),
            _ => Err(Errno::EINVAL),
        })
    }

    fn statfs(&self, node: NodeId) -> Result<Space> {
        self.state(|state| state.inode(node).map(drop))?;
        let blocks = 1 << 20;
        Ok(Space {
            bsize: BLOCK,
            frsize: BLOCK,
            blocks,
            bfree: blocks,
            bavail: blocks,
            files: blocks,
            ffree: blocks,
            namelen: 255,
        })
    }

    fn syncfs(&self, node: NodeId) -> Result<()> {
        self.state(|state| state.inode(node).map(drop))
    }

    fn mkdir(&self, caller: Caller, parent: NodeId, name: &FileName, mode: Mode, umask: Mode) -> Result<Entry> {
        let body = Body::Dir { parent, names: BTreeMap::new() };
        self.state(|state| state.make(caller, parent, name, masked(libc::S_IFDIR, mode, umask), body))
    }

    fn mknod(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &FileName,
        kind: NodeKind,
        mode: Mode,
        umask: Mode,
    ) -> Result<Entry> {
        let (kind, body) = match kind {
            NodeKind::File => (libc::S_IFREG, Body::File(Vec::new())),
            NodeKind::Fifo => (libc::S_IFIFO, Body::Special),
            NodeKind::Socket => (libc::S_IFSOCK, Body::Special),
            NodeKind::Char(_) | NodeKind::Block(_) => return Err(Errno::EPERM),
        };
        self.state(|state| state.make(caller, parent, name, masked(kind, mode, umask), body))
    }

    fn symlink(&self, caller: Caller, parent: NodeId, name: &FileName, target: Target) -> Result<Entry> {
        let body = Body::Link(target.as_c_str().to_bytes().to_vec());
        self.state(|state| state.make(caller, parent, name, libc::S_IFLNK | 0o777, body))
    }

    fn link(&self, node: NodeId, parent: NodeId, name: &FileName) -> Result<Entry> {
        self.state(|state| {
            if matches!(state.inode(node)?.body, Body::Dir { .. }) {
                return Err(Errno::EPERM);
            }
            if state.child(parent, name).is_ok() {
                return Err(Errno::EEXIST);
            }
            state.attach(node, parent, name)?;
            state.entry(node)
        })
    }

    fn unlink(&self, parent: NodeId, name: &FileName) -> Result<()> {
        self.state(|state| {
            state.removable(parent, name, false)?;
            state.detach(parent, name)
        })
    }

    fn rmdir(&self, parent: NodeId, name: &FileName) -> Result<()> {
        self.state(|state| {
            state.removable(parent, name, true)?;
            state.detach(parent, name)
        })
    }

    fn rename(&self, from: (NodeId, &FileName), to: (NodeId, &FileName), flags: RenameFlags) -> Result<()> {
        self.state(|state| state.rename(from, to, flags))
    }

    fn open(&self, node: NodeId, flags: OpenFlags) -> Result<Fh> {
        self.state(|state| {
            let data = state.inode(node)?.data()?;
            if flags.contains(OpenFlags::TRUNC) {
                data.clear();
            }
            state.open(node)
        })
    }

    fn create(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &FileName,
        mode: Mode,
        umask: Mode,
        flags: OpenFlags,
    ) -> Result<(Entry, Fh)> {
        let made = self.mknod(caller, parent, name, NodeKind::File, mode, umask);
        let entry = match made {
            Err(Errno::EEXIST) if !flags.contains(OpenFlags::EXCL) => self.lookup(parent, name),
            made => made,
        }?;
        Ok((entry, self.open(entry.node, flags)?))
    }

    fn tmpfile(&self, caller: Caller, parent: NodeId, mode: Mode, umask: Mode, _: OpenFlags) -> Result<(Entry, Fh)> {
        self.state(|state| {
            state.inode(parent)?.names()?;
            let node = state.add(masked(libc::S_IFREG, mode, umask), caller, Body::File(Vec::new()));
            Ok((state.entry(node)?, state.open(node)?))
        })
    }

    fn release(&self, handle: Handle) -> Result<()> {
        self.state(|state| {
            let inode = state.file(handle)?;
            inode.opens = inode.opens.saturating_sub(1);
            state.open.remove(&handle.fh);
            state.locks.retain(|(node, _), held| *node != handle.node || !held.handles.contains(&handle.fh));
            state.sweep(handle.node);
            Ok(())
        })
    }

    /// What is in memory only cannot be used elsewhere.
    /// What the file holds now, in a file of its own.
    fn give(&self, handle: Handle) -> Result<OwnedFd> {
        let data = self.state(|state| state.file(handle)?.data().cloned())?;
        self.release(handle)?;
        let given = rustix::fs::memfd_create("synthetic", MemfdFlags::CLOEXEC)?;
        rustix::io::pwrite(&given, &data, 0)?;
        Ok(given)
    }

    fn flush(&self, file: Handle) -> Result<()> {
        self.check(file)
    }

    fn read(&self, file: Handle, offset: u64, _: Wait, to: &mut dyn Sink) -> Result<usize> {
        self.state(|state| {
            let data = state.file(file)?.data()?;
            let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
            let rest = data.get(start..).unwrap_or_default();
            let part = rest.get(..to.room()).unwrap_or(rest);
            to.put(part).map(|()| part.len())
        })
    }

    fn write(&self, file: Handle, offset: u64, kill_setid: bool, _: Wait, from: &mut dyn Source) -> Result<usize> {
        self.state(|state| {
            let inode = state.file(file)?;
            let start = length(offset)?;
            let end = start.checked_add(from.left()).filter(|&end| end <= FILE_MAX).ok_or(Errno::EFBIG)?;
            let data = inode.data()?;
            data.resize(data.len().max(end), 0);
            let taken = from.take(data.get_mut(start..end).unwrap_or_default())?;
            if kill_setid {
                inode.attr.mode &= !(libc::S_ISUID | libc::S_ISGID);
            }
            inode.touch();
            Ok(taken)
        })
    }

    fn fsync(&self, file: Handle, _: bool) -> Result<()> {
        self.state(|state| state.file(file).map(drop))
    }

    fn fallocate(&self, file: Handle, mode: u32, offset: u64, size: u64) -> Result<()> {
        self.state(|state| {
            let data = state.file(file)?.data()?;
            let end = length(offset.checked_add(size).ok_or(Errno::EFBIG)?)?;
            if mode != 0 {
                return Err(Errno::EOPNOTSUPP);
            }
            data.resize(data.len().max(end), 0);
            Ok(())
        })
    }

    fn lseek(&self, file: Handle, seek: Seek) -> Result<u64> {
        self.state(|state| {
            let end = u64::try_from(state.file(file)?.data()?.len()).unwrap_or(u64::MAX);
            match seek {
                Seek::Data(offset) | Seek::Hole(offset) if offset >= end => Err(Errno::ENXIO),
                Seek::Data(offset) => Ok(offset),
                Seek::Hole(_) => Ok(end),
            }
        })
    }

    fn copy_range(&self, _: Spot, _: Spot, _: u64) -> Result<u64> {
        Err(Errno::EOPNOTSUPP)
    }

    fn lock(&self, file: Handle, owner: &LockOwner, lock: Lock) -> Result<Claim> {
        self.state(|state| {
            if state.stands_against(file, owner, lock)?.is_some() {
                return Ok(Claim::Refused);
            }
            let held = state.locks.entry((file.node, owner.clone())).or_default();
            let change = held.ranges.plan(lock.range, Some(lock.kind));
            held.ranges.apply(change);
            held.handles.insert(file.fh);
            Ok(Claim::Granted)
        })
    }

    fn unlock(&self, file: Handle, owner: &LockOwner, range: lock::Range) -> Result<()> {
        self.state(|state| {
            state.file(file)?.data()?;
            if let Some(held) = state.locks.get_mut(&(file.node, owner.clone())) {
                let change = held.ranges.plan(range, None);
                held.ranges.apply(change);
            }
            state.locks.retain(|_, held| !held.ranges.is_empty());
            Ok(())
        })
    }

    fn getlock(&self, file: Handle, owner: &LockOwner, lock: Lock) -> Result<Option<Conflict>> {
        self.state(|state| state.stands_against(file, owner, lock))
    }

    fn opendir(&self, node: NodeId) -> Result<Fh> {
        self.state(|state| {
            state.inode(node)?.names()?;
            state.open(node)
        })
    }

    fn readdir(&self, dir: Handle, offset: u64, detail: Detail, to: &mut dyn Listing) -> Result<()> {
        self.state(|state| {
            let Body::Dir { parent, names } = &state.file(dir)?.body else { return Err(Errno::ENOTDIR) };
            let dots = [(b".".to_vec(), dir.node), (b"..".to_vec(), *parent)];
            let all: Vec<_> = dots.into_iter().chain(names.clone()).collect();
            let skip = usize::try_from(offset).unwrap_or(usize::MAX);
            for (index, (name, node)) in (1_u64..).zip(all).skip(skip) {
                if !to.fits(name.len()) {
                    break;
                }
                let plus = detail == Detail::Entries && FileName::new(&name).is_ok();
                let entry = if plus { Some(state.entry(node)?) } else { None };
                let kind = u8::try_from(state.inode(node)?.attr.kind() >> 12).unwrap_or_default();
                to.push(&Dirent { ino: node.0, next: index, kind, name: &name, entry });
            }
            Ok(())
        })
    }

    fn getxattr(&self, node: NodeId, name: &XattrName, size: u32, to: &mut dyn Sink) -> Result<u32> {
        self.state(|state| {
            let value = state.inode(node)?.xattrs.get(name.as_bytes()).ok_or(Errno::ENODATA)?;
            answer(value, size, to)
        })
    }

    fn setxattr(&self, node: NodeId, name: &XattrName, value: &[u8], flags: XattrFlags) -> Result<()> {
        self.state(|state| {
            let xattrs = &mut state.inode(node)?.xattrs;
            match xattrs.contains_key(name.as_bytes()) {
                true if flags.contains(XattrFlags::CREATE) => return Err(Errno::EEXIST),
                false if flags.contains(XattrFlags::REPLACE) => return Err(Errno::ENODATA),
                _ => xattrs.insert(name.as_bytes().to_vec(), value.to_vec()),
            };
            Ok(())
        })
    }

    fn listxattr(&self, node: NodeId, size: u32, to: &mut dyn Sink) -> Result<u32> {
        self.state(|state| {
            let xattrs = &state.inode(node)?.xattrs;
            let names: Vec<u8> = xattrs.keys().flat_map(|name| name.iter().copied().chain([0])).collect();
            answer(&names, size, to)
        })
    }

    fn removexattr(&self, node: NodeId, name: &XattrName) -> Result<()> {
        self.state(|state| state.inode(node)?.xattrs.remove(name.as_bytes()).map(drop).ok_or(Errno::ENODATA))
    }

    fn check(&self, handle: Handle) -> Result<()> {
        self.state(|state| state.file(handle).map(drop))
    }

    fn get_flags(&self, _: NodeId) -> Result<u32> {
        Err(Errno::ENOTTY)
    }

    fn set_flags(&self, _: NodeId, _: u32) -> Result<()> {
        Err(Errno::ENOTTY)
    }

    fn get_fsx(&self, _: NodeId) -> Result<Fsx> {
        Err(Errno::ENOTTY)
    }

    fn set_fsx(&self, _: NodeId, _: Fsx) -> Result<()> {
        Err(Errno::ENOTTY)
    }

    fn get_version(&self, _: NodeId) -> Result<u32> {
        Err(Errno::ENOTTY)
    }
}
