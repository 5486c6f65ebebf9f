//! What a frontend asks, row by row.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::FallocateFlags;
use postern_ipc::attr::{Attr, Changes, Mode, NodeKind, OpenFlags, RenameFlags, XattrFlags};
use postern_ipc::hello::Root;
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::{FileName, Target, XattrName};
use postern_ipc::op::{self, Fsx};
use postern_ipc::{Errno, Result};

use super::Tree;
use crate::fs::file::OpenFile;
use crate::fs::lock::{self, Claim, Conflict, Lock, LockOwner};
use crate::fs::walk::{Walker, Way};
use crate::fs::writeout::Writeout;
use crate::fs::{Detail, Entry, Fh, Fs, Handle, Listing, NodeId, Object, Seek, Sink, Source, Space, Spot, Wait};

impl Fs for Tree {
    fn enter(&self, thread: usize) {
        self.links.enter(thread);
    }

    fn reset(&self) {
        self.locks.clear();
        self.files.clear();
        self.kept.clear();
        self.ahead.clear();
        self.nodes.reset();
    }

    fn acting_as(self: &Arc<Self>, uid: GuestUid, gid: GuestGid) -> Result<Arc<Self>> {
        if uid == GuestUid(0) && self.who_is_root != Root::Translated {
            return Ok(Arc::clone(self));
        }
        self.views.of((uid, gid), || self.view(Caller::Alone { uid, gid }))
    }

    fn lookup(&self, parent: NodeId, name: &FileName) -> Result<Entry> {
        let dir = self.pin(parent)?;
        let (attr, pin) = if self.nodes.is_replaced(parent) {
            self.walk.open(&dir, name).map(|(attr, pin)| (attr, Some(pin)))?
        } else {
            self.walk.stat(&dir, name)?
        };
        self.held(parent, name, attr, pin)
    }

    fn walk(&self, from: NodeId, names: &[FileName], found: &mut dyn FnMut(Entry)) -> Result<()> {
        let (mut dir, mut names) = (from, names.iter().peekable());
        while let Some(name) = names.peek() {
            if !self.finds_in(dir) {
                let entry = self.lookup(dir, name)?;
                dir = entry.node;
                found(entry);
                names.next();
                continue;
            }
            let pin = self.pin(dir)?;
            let mut way = Way::from(&pin);
            while let Some(name) = names.peek().filter(|_| self.finds_in(dir)) {
                let Some(stepped) = self.walk.step(&mut way, name) else { break };
                let (attr, pin) = stepped?;
                let entry = self.held(dir, name, attr, pin)?;
                dir = entry.node;
                found(entry);
                names.next();
            }
        }
        Ok(())
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.nodes.forget(node, count);
        self.kept.forget(node);
    }

    fn seen(&self, node: NodeId) -> Result<(NodeId, FileName)> {
        self.nodes.seen(node)
    }

    fn getattr(&self, node: NodeId, file: Option<Handle>) -> Result<Attr> {
        let file = file.map(|file| self.files.get(file)).transpose()?;
        let attr = match file {
            Some(file) if self.walk.walker == Walker::Server => Attr::of(file.as_fd()),
            Some(file) => self.walk.attr(&self.pin(file.node)?),
            None => self.walk.attr(&self.pin(node)?),
        };
        self.shown(attr?)
    }

    fn setattr(&self, node: NodeId, file: Option<Handle>, changes: &Changes) -> Result<Attr> {
        let file = file.map(|file| self.files.get(file)).transpose()?;
        if changes.size.is_some() && file.is_some_and(|file| !file.writable) {
            return Err(Errno::EINVAL);
        }
        let attr = self.ask(node, &op::SetAttr { changes: *changes }, |attr, _, _| attr)?;
        if attr.has_setid() {
            self.files.got_setid(node);
        }
        self.shown(attr)
    }

    fn readlink(&self, node: NodeId, to: &mut dyn Sink) -> Result<()> {
        self.walk.readlink(&self.pin(node)?, |target| to.put(target))?
    }

    fn statfs(&self, node: NodeId) -> Result<Space> {
        let space = rustix::fs::fstatvfs(self.pin(node)?.as_fd())?;
        Ok(Space {
            bsize: space.f_bsize,
            frsize: space.f_frsize,
            blocks: space.f_blocks,
            bfree: space.f_bfree,
            bavail: space.f_bavail,
            files: space.f_files,
            ffree: space.f_ffree,
            namelen: space.f_namemax,
        })
    }

    fn syncfs(&self, node: NodeId) -> Result<()> {
        self.ask(node, &op::SyncFs {}, |(), _, _| ())
    }

    fn mkdir(&self, caller: Caller, parent: NodeId, name: &FileName, mode: Mode, umask: Mode) -> Result<Entry> {
        self.make(caller, parent, name, &op::Mkdir { name: *name, mode, umask })
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
        self.make(caller, parent, name, &op::Mknod { name: *name, kind, mode, umask })
    }

    fn symlink(&self, caller: Caller, parent: NodeId, name: &FileName, target: Target) -> Result<Entry> {
        self.make(caller, parent, name, &op::Symlink { name: *name, target })
    }

    fn link(&self, node: NodeId, parent: NodeId, name: &FileName) -> Result<Entry> {
        let (pin, dir) = (self.pin(node)?, self.pin(parent)?);
        let at = [&pin, &dir];
        let attr = self.call(&op::Link { name: *name }, &at, b"", |attr, [], _| attr)?;
        self.entry(parent, name, attr)
    }

    fn unlink(&self, parent: NodeId, name: &FileName) -> Result<()> {
        self.remove(parent, name, &op::Unlink { name: *name })
    }

    fn rmdir(&self, parent: NodeId, name: &FileName) -> Result<()> {
        self.remove(parent, name, &op::Rmdir { name: *name })
    }

    fn rename(&self, from: (NodeId, &FileName), to: (NodeId, &FileName), flags: RenameFlags) -> Result<()> {
        let (old_dir, new_dir) = (self.pin(from.0)?, self.pin(to.0)?);
        let moved = self.nodes.known(&self.walk.stat(&old_dir, from.1)?.0);
        let replaced = match self.last_sight(&new_dir, to.1) {
            Err(Errno::ENOENT) => None,
            replaced => Some(replaced?),
        };
        let op = op::Rename { name: *from.1, new_name: *to.1, flags };
        let renamed = self.call(&op, &[&old_dir, &new_dir], b"", |(), [], _| ());
        replaced.iter().for_each(|going| self.ahead.removed(going.identity));
        renamed?;
        let replaced = replaced.and_then(|going| going.node);
        let same = matches!((moved, &replaced), (Some(a), Some((b, _))) if a == *b);
        if same {
            return Ok(());
        }
        if let Some((node, pin)) = replaced {
            if flags.contains(RenameFlags::EXCHANGE) {
                self.nodes.renamed(node, from.0, from.1);
            } else {
                self.unnamed(node, to.0, to.1, pin);
            }
        }
        if let Some(node) = moved {
            self.nodes.renamed(node, to.0, to.1);
        }
        Ok(())
    }

    fn open(&self, node: NodeId, flags: OpenFlags) -> Result<Fh> {
        self.files.room()?;
        let ask = |pin: &Arc<OwnedFd>| self.call(&op::Open { flags }, &[pin], b"", |(), [file], _| file);
        if flags == OpenFlags::READ {
            return self.open_to_read(node, Object::File, ask);
        }
        let pin = self.pin(node)?;
        let file = ask(&pin)?;
        let setid = flags.contains(OpenFlags::WRITE) && self.walk.attr(&pin)?.has_setid();
        Ok(self.keep(OpenFile::new(file, node, Object::File, setid, flags).into()))
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
        self.files.room()?;
        self.nodes.room()?;
        let op = op::Create { name: *name, mode, umask, flags };
        let (attr, pin, file) = self.create_in(caller, parent, &op, |attr, [pin, file], _| (attr, pin, file))?;
        let entry = self.held(parent, name, attr, Some(pin))?;
        Ok((entry, self.keep(OpenFile::new(file, entry.node, Object::File, attr.has_setid(), flags).into())))
    }

    fn tmpfile(
        &self,
        caller: Caller,
        parent: NodeId,
        mode: Mode,
        umask: Mode,
        flags: OpenFlags,
    ) -> Result<(Entry, Fh)> {
        self.files.room()?;
        self.nodes.room()?;
        let op = op::TmpFile { mode, umask, flags };
        let (attr, pin, file) = self.create_in(caller, parent, &op, |attr, [pin, file], _| (attr, pin, file))?;
        let shown = self.shown(attr)?;
        let entry = Entry { node: self.nodes.nameless(&attr, pin)?, attr: shown };
        Ok((entry, self.keep(OpenFile::new(file, entry.node, Object::File, attr.has_setid(), flags).into())))
    }

    fn release(&self, handle: Handle) -> Result<()> {
        self.close(handle).map(drop)
    }

    fn give(&self, handle: Handle) -> Result<OwnedFd> {
        self.kept.forget(handle.node);
        let file = self.close(handle)?;
        Arc::into_inner(file).map(OwnedFd::from).ok_or(Errno::EBUSY)
    }

    fn flush(&self, file: Handle) -> Result<()> {
        self.files.get(file).map(drop)
    }

    fn read(&self, file: Handle, offset: u64, wait: Wait, to: &mut dyn Sink) -> Result<usize> {
        let file = self.files.get(file)?;
        if wait == Wait::Never && file.knows_nowait() {
            match to.read_from(file.as_fd(), offset, Wait::Never) {
                Err(Errno::EOPNOTSUPP) => file.cannot_nowait(),
                read => return read,
            }
        }
        to.read_from(file.as_fd(), offset, Wait::AsNeeded)
    }

    fn write(&self, file: Handle, offset: u64, kill_setid: bool, wait: Wait, from: &mut dyn Source) -> Result<usize> {
        let file = self.files.get(file)?;
        if wait == Wait::Never && (file.writes_wait || self.writeout == Writeout::Immediate) {
            return Err(Errno::EAGAIN);
        }
        if kill_setid && file.has_setid() {
            if self.model.is_mapped() {
                let changes = Changes { kill_setid, ..Changes::default() };
                self.ask(file.node, &op::SetAttr { changes }, |_, _, _| ())?;
            }
            file.lost_setid();
        }
        let wrote = if self.keeps_setid(&file) {
            self.write_keeping(&file, offset, from)?
        } else {
            self.disarm(&file)?;
            from.write_to(file.as_fd(), offset)?
        };
        self.writeout.after(file.as_fd(), offset, u64::try_from(wrote).map_err(|_| Errno::EIO)?)?;
        Ok(wrote)
    }

    fn fsync(&self, handle: Handle, data_only: bool) -> Result<()> {
        let file = self.files.get(handle)?;
        let sync = if data_only { rustix::fs::fdatasync } else { rustix::fs::fsync };
        Ok(sync(&file)?)
    }

    fn fallocate(&self, file: Handle, mode: u32, offset: u64, length: u64) -> Result<()> {
        let file = self.files.get(file)?;
        if self.keeps_setid(&file) {
            let op = op::Fallocate { mode, offset, length };
            return self.ask(file.node, &op, |(), _, _| ());
        }
        self.disarm(&file)?;
        let mode = i32::try_from(mode).ok().and_then(FallocateFlags::from_bits).ok_or(Errno::EOPNOTSUPP)?;
        let signed = |n: u64| i64::try_from(n).map_err(|_| Errno::EINVAL);
        Ok(nix::fcntl::fallocate(&*file, mode, signed(offset)?, signed(length)?)?)
    }

    fn lseek(&self, file: Handle, seek: Seek) -> Result<u64> {
        let from = match seek {
            Seek::Data(offset) => rustix::fs::SeekFrom::Data(offset),
            Seek::Hole(offset) => rustix::fs::SeekFrom::Hole(offset),
        };
        Ok(rustix::fs::seek(&*self.files.get(file)?, from)?)
    }

    fn copy_range(&self, from: Spot, to: Spot, length: u64) -> Result<u64> {
        let (source, target) = (self.files.get(from.file)?, self.files.get(to.file)?);
        let copied = if self.keeps_setid(&target) {
            let (a, b) = (self.pin(source.node)?, self.pin(target.node)?);
            let op = op::CopyRange { from_offset: from.offset, to_offset: to.offset, length };
            self.call(&op, &[&a, &b], b"", |copied, [], _| copied)?
        } else {
            self.disarm(&target)?;
            let (mut from_at, mut to_at) = (from.offset, to.offset);
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            let copied = rustix::fs::copy_file_range(&*source, Some(&mut from_at), &*target, Some(&mut to_at), length)?;
            u64::try_from(copied).map_err(|_| Errno::EIO)?
        };
        self.writeout.after(target.as_fd(), to.offset, copied)?;
        Ok(copied)
    }

    fn lock(&self, handle: Handle, owner: &LockOwner, lock: Lock) -> Result<Claim> {
        self.lockable(handle)?;
        let open = |flags| self.ask(handle.node, &op::Open { flags }, |(), [file], _| file);
        self.locks.lock(handle, owner, lock, &open)
    }

    fn unlock(&self, handle: Handle, owner: &LockOwner, range: lock::Range) -> Result<()> {
        self.lockable(handle)?;
        self.locks.unlock(handle.node, owner, range)
    }

    fn getlock(&self, handle: Handle, owner: &LockOwner, lock: Lock) -> Result<Option<Conflict>> {
        let file = self.lockable(handle)?;
        self.locks.test(handle.node, file.as_fd(), owner, lock)
    }

    fn opendir(&self, node: NodeId) -> Result<Fh> {
        self.files.room()?;
        self.open_to_read(node, Object::Dir, |pin| self.call(&op::OpenDir {}, &[pin], b"", |(), [dir], _| dir))
    }

    fn readdir(&self, dir: Handle, offset: u64, detail: Detail, to: &mut dyn Listing) -> Result<()> {
        self.list(&*self.files.get(dir)?, offset, detail, to)
    }

    fn getxattr(&self, node: NodeId, name: &XattrName, size: u32, to: &mut dyn Sink) -> Result<u32> {
        let op = op::GetXattr { name: *name, size };
        self.ask(node, &op, |length, _, value| to.put(value).map(|()| length))?
    }

    fn setxattr(&self, node: NodeId, name: &XattrName, value: &[u8], flags: XattrFlags) -> Result<()> {
        let pin = self.pin(node)?;
        let op = op::SetXattr { name: *name, flags };
        self.call(&op, &[&pin], value, |(), [], _| ())
    }

    fn listxattr(&self, node: NodeId, size: u32, to: &mut dyn Sink) -> Result<u32> {
        self.ask(node, &op::ListXattr { size }, |length, _, names| to.put(names).map(|()| length))?
    }

    fn removexattr(&self, node: NodeId, name: &XattrName) -> Result<()> {
        self.ask(node, &op::RemoveXattr { name: *name }, |(), _, _| ())
    }

    fn check(&self, handle: Handle) -> Result<()> {
        self.files.get(handle).map(drop)
    }

    fn get_flags(&self, node: NodeId) -> Result<u32> {
        self.ask(node, &op::GetFlags {}, |flags, _, _| flags)
    }

    fn set_flags(&self, node: NodeId, flags: u32) -> Result<()> {
        self.ask(node, &op::SetFlags { flags }, |(), _, _| ())
    }

    fn get_fsx(&self, node: NodeId) -> Result<Fsx> {
        self.ask(node, &op::GetFsx {}, |fsx, _, _| fsx)
    }

    fn set_fsx(&self, node: NodeId, fsx: Fsx) -> Result<()> {
        self.ask(node, &op::SetFsx { fsx }, |(), _, _| ())
    }

    fn get_version(&self, node: NodeId) -> Result<u32> {
        self.ask(node, &op::GetVersion {}, |version, _, _| version)
    }
}
