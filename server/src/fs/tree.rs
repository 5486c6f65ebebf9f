//! The share: what needs no credentials is done here on donated descriptors, the rest is one call to the helper.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, PoisonError};

use nix::fcntl::FallocateFlags;
use postern_ipc::attr::{Attr, Changes, Dev, Mode, NodeKind, OpenFlags, RenameFlags, XattrFlags};
use postern_ipc::client::Links;
use postern_ipc::frame::DATA_MAX;
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::model::Model;
use postern_ipc::name::{FileName, Target, XattrName};
use postern_ipc::op::{self, Fsx, Op};
use postern_ipc::{Errno, Result};

use super::devices::{Devices, Multidevs};
use super::dir::Raw;
use super::file::{Files, OpenFile};
use super::lock::table::Locks;
use super::lock::{self, Claim, Conflict, Lock, LockOwner};
use super::node::{Identity, Nodes, Place};
use super::view::{VIEWS_MAX, Views};
use super::walk::{Walk, Walker, Way};
use super::writeout::Writeout;
use super::{Detail, Dirent, Entry, Fh, Fs, Handle, Listing, NodeId, Object, Seek, Sink, Source, Space, Spot, Wait};

/// Most directories opened one below the other to find a node again.
const DEEPEST: usize = 65_536;

/// The share as the server sees it.
pub struct Tree {
    nodes: Nodes,
    files: Arc<Files>,
    locks: Arc<Locks>,
    walk: Walk,
    links: Arc<Links>,
    devices: Arc<Devices>,
    writeout: Writeout,
    views: Arc<Views>,
    /// Most descriptors of nodes that all views hold together.
    for_views: usize,
    model: Model,
}

/// What the helper's side gave.
pub struct Share {
    /// O_PATH descriptor of its root.
    pub root: OwnedFd,
    /// Channels to the helper.
    pub links: Arc<Links>,
    /// Who looks names up.
    pub walker: Walker,
    /// Where the guest's ownership and modes are kept.
    pub model: Model,
}

/// How the share is shown and written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// What becomes of mounts below it.
    pub multidevs: Multidevs,
    /// When what the guest writes goes to the disk.
    pub writeout: Writeout,
    /// Users act alone, and each has a view of his own.
    pub alone: bool,
}

/// How much a guest may make the server hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Descriptors in all.
    pub descriptors: u64,
    /// Nodes, most of them without a descriptor.
    pub nodes: u64,
}

/// Descriptors that are neither nodes nor open files: sockets, rings, guest memory.
const OTHERS: u64 = 64;

impl Tree {
    /// Of a share. An eighth of the descriptors is for locks, half of the rest for nodes, and as many open files as leave
    /// each of them its node's descriptor too. Where users act alone, nodes of theirs have as many again, and the open
    /// ones of those.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn new(share: Share, limits: Limits, settings: Settings) -> Result<Self> {
        let Share { root, links, walker, model } = share;
        let walk = Walk::new(Arc::clone(&links), walker);
        let attr = walk.attr(root.as_fd())?;
        let count = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        let for_locks = limits.descriptors / 8;
        let rest = limits.descriptors.saturating_sub(OTHERS).saturating_sub(for_locks);
        let part = count(if settings.alone { rest / 4 } else { rest / 2 });
        Ok(Self {
            nodes: Nodes::new(root, &attr, part, count(limits.nodes)).by_name(model.keeps_by_name()),
            files: Arc::new(Files::new(part)),
            locks: Arc::new(Locks::new(count(for_locks))),
            walk,
            links,
            devices: Arc::new(Devices::new(settings.multidevs, &attr)),
            writeout: settings.writeout,
            views: Arc::default(),
            for_views: part,
            model,
        })
    }

    /// The share as `user` has it.
    fn view(&self, user: Caller) -> Result<Self> {
        Ok(Self {
            nodes: self.nodes.beside(self.for_views / VIEWS_MAX)?,
            files: Arc::clone(&self.files),
            locks: Arc::clone(&self.locks),
            walk: self.walk.by(user),
            links: Arc::clone(&self.links),
            devices: Arc::clone(&self.devices),
            views: Arc::clone(&self.views),
            ..*self
        })
    }

    /// Asks the helper, on behalf of whose tree it is.
    fn call<O: Op, R>(
        &self,
        op: &O,
        at: &O::At<BorrowedFd<'_>>,
        data: &[u8],
        take: impl FnOnce(O::Reply, O::Gives<OwnedFd>, &[u8]) -> R,
    ) -> Result<R> {
        self.links.call(self.walk.caller, op, at, data, take)
    }

    /// An O_PATH descriptor of a node: the one held, or found again by name from the nearest directory that has one.
    fn pin(&self, node: NodeId) -> Result<Arc<OwnedFd>> {
        let mut below = Vec::new();
        let mut at = node;
        let mut pin = loop {
            match self.nodes.place(at)? {
                Place::Pinned(pin) => break pin,
                Place::Named(seen, identity) => {
                    let parent = seen.parent;
                    below.push((at, seen, identity));
                    at = parent;
                }
            }
            if below.len() > DEEPEST {
                return Err(Errno::ESTALE);
            }
        };
        while let Some((node, seen, identity)) = below.pop() {
            let found = self.walk.open(pin.as_fd(), &seen.name()?);
            let (descriptor, attr) = found.map_err(|errno| match errno {
                Errno::ENOENT | Errno::ENOTDIR => Errno::ESTALE,
                other => other,
            })?;
            if Identity::of(&attr) != identity {
                return Err(Errno::ESTALE);
            }
            pin = self.nodes.hold(node, Arc::new(descriptor));
        }
        Ok(pin)
    }

    /// Asks the helper about one node.
    fn ask<O, R>(&self, node: NodeId, op: &O, take: impl FnOnce(O::Reply, O::Gives<OwnedFd>, &[u8]) -> R) -> Result<R>
    where
        O: for<'a> Op<At<BorrowedFd<'a>> = [BorrowedFd<'a>; 1]>,
    {
        let pin = self.pin(node)?;
        self.call(op, &[pin.as_fd()], b"", take)
    }

    /// Asks the helper to make something in `parent`, which is to be the caller's; who acts alone makes only his own.
    fn create_in<O, R>(
        &self,
        caller: Caller,
        parent: NodeId,
        op: &O,
        take: impl FnOnce(O::Reply, O::Gives<OwnedFd>, &[u8]) -> R,
    ) -> Result<R>
    where
        O: for<'a> Op<At<BorrowedFd<'a>> = [BorrowedFd<'a>; 1]>,
    {
        let pin = self.pin(parent)?;
        let caller = if self.walk.caller == Caller::Root { caller } else { self.walk.caller };
        self.links.call(caller, op, &[pin.as_fd()], b"", take)
    }

    /// Asks the helper to make `name` in `parent`.
    fn make<O>(&self, caller: Caller, parent: NodeId, name: &FileName, op: &O) -> Result<Entry>
    where
        O: for<'a> Op<At<BorrowedFd<'a>> = [BorrowedFd<'a>; 1], Reply = Attr>,
    {
        self.nodes.room()?;
        let attr = self.create_in(caller, parent, op, |attr, _, _| attr)?;
        self.entry(parent, name, attr)
    }

    fn entry(&self, parent: NodeId, name: &FileName, attr: Attr) -> Result<Entry> {
        let shown = self.devices.shown(attr)?;
        Ok(Entry { node: self.nodes.found(parent, name, &attr)?, attr: shown })
    }

    /// The node a name stands for, if the guest knows it, and a descriptor of it, because the name is about to go.
    fn last_sight(&self, parent: &OwnedFd, name: &FileName) -> Result<Option<(NodeId, Arc<OwnedFd>)>> {
        let attr = self.walk.stat(parent.as_fd(), name)?;
        let Some(node) = self.nodes.known(&attr) else { return Ok(None) };
        if let Place::Pinned(pin) = self.nodes.place(node)? {
            return Ok(Some((node, pin)));
        }
        let (pin, found) = self.walk.open(parent.as_fd(), name)?;
        Ok((Identity::of(&found) == Identity::of(&attr)).then(|| (node, Arc::new(pin))))
    }

    fn remove<O>(&self, parent: NodeId, name: &FileName, op: &O) -> Result<()>
    where
        O: for<'a> Op<At<BorrowedFd<'a>> = [BorrowedFd<'a>; 1]>,
    {
        let dir = self.pin(parent)?;
        let node = self.last_sight(&dir, name)?;
        self.call(op, &[dir.as_fd()], b"", |_, _, _| ())?;
        if let Some((node, pin)) = node {
            self.nodes.unnamed(node, parent, name, pin);
        }
        Ok(())
    }

    fn keep(&self, node: NodeId, object: Object, file: OwnedFd, setid: bool, flags: OpenFlags) -> Fh {
        self.nodes.opened(node);
        self.files.insert(OpenFile::new(file, node, object, setid, flags))
    }

    fn close(&self, handle: Handle) -> Result<Arc<OpenFile>> {
        let file = self.files.remove(handle)?;
        self.locks.closed(file.node, handle.fh);
        self.nodes.closed(file.node);
        Ok(file)
    }

    /// An open file that can have locks.
    fn lockable(&self, handle: Handle) -> Result<Arc<OpenFile>> {
        if handle.object == Object::File { self.files.get(handle) } else { Err(Errno::EBADF) }
    }

    /// A write of this process's own would take set-id bits away that are to stay. Those that are kept elsewhere it cannot.
    fn keeps_setid(&self, file: &OpenFile) -> bool {
        file.has_setid() && !self.model.is_mapped()
    }

    /// Writes through the helper, which may keep set-id bits.
    fn write_keeping(&self, file: &OpenFile, offset: u64, from: &mut dyn Source) -> Result<usize> {
        let pin = self.pin(file.node)?;
        let mut buffer = vec![0; from.left().min(DATA_MAX)];
        let mut done = 0_usize;
        while from.left() > 0 {
            let part = from.take(&mut buffer)?;
            let data = buffer.get(..part).ok_or(Errno::EIO)?;
            let at = offset.checked_add(u64::try_from(done).map_err(|_| Errno::EFBIG)?).ok_or(Errno::EFBIG)?;
            let wrote = self.call(&op::Write { offset: at }, &[pin.as_fd()], data, |n, _, _| n);
            let wrote = match wrote {
                Ok(wrote) => usize::try_from(wrote).map_err(|_| Errno::EIO)?,
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            };
            done = done.saturating_add(wrote);
            if wrote < part {
                break;
            }
        }
        Ok(done)
    }
}

/// A directory that is being listed.
struct Listed<'a> {
    tree: &'a Tree,
    node: NodeId,
    dev: Dev,
    /// Its O_PATH descriptor: the helper believes no other.
    pin: &'a OwnedFd,
    detail: Detail,
}

impl Listed<'_> {
    /// The guest's look-ups count for entries that reach it only.
    fn give(&self, raw: &Raw<'_>, to: &mut dyn Listing) -> Result<bool> {
        if !to.fits(raw.name.len()) {
            return Ok(false);
        }
        let Self { tree, node, dev, pin, detail } = *self;
        if tree.model.hides(raw.name) {
            return Ok(true);
        }
        let ino = tree.devices.number(dev, raw.ino)?;
        // A regular file may stand for anything.
        let kind = if tree.model.is_mapped() && raw.kind == libc::DT_REG { libc::DT_UNKNOWN } else { raw.kind };
        let mut dirent = Dirent { ino, next: raw.next, kind, name: raw.name, entry: None };
        if let (true, Ok(name)) = (detail == Detail::Entries || tree.devices.hides(), FileName::new(raw.name)) {
            let looked = tree.walk.stat(pin.as_fd(), &name).and_then(|attr| match detail {
                Detail::Entries => tree.entry(node, &name, attr).map(Some),
                Detail::Names => tree.devices.shown(attr).map(|_| None),
            });
            match looked {
                Ok(entry) => {
                    dirent.kind = entry.map_or(dirent.kind, |entry| dirent_kind(&entry.attr));
                    dirent.entry = entry;
                }
                Err(Errno::ENOENT | Errno::ENODEV) => return Ok(true),
                Err(_) => {}
            }
        }
        to.push(&dirent);
        Ok(true)
    }
}

/// readdir(3): DT_*, which are the type bits of a mode shifted by twelve.
fn dirent_kind(attr: &Attr) -> u8 {
    u8::try_from(attr.kind() >> 12).unwrap_or(libc::DT_UNKNOWN)
}

impl Fs for Tree {
    fn enter(&self, thread: usize) {
        self.links.enter(thread);
    }

    fn reset(&self) {
        self.locks.clear();
        self.files.clear();
        self.nodes.reset();
    }

    fn acting_as(self: &Arc<Self>, uid: GuestUid, gid: GuestGid) -> Result<Arc<Self>> {
        if uid == GuestUid(0) {
            return Ok(Arc::clone(self));
        }
        self.views.of((uid, gid), || self.view(Caller::Alone { uid, gid }))
    }

    /// What the helper finds comes with a descriptor, which is not thrown away.
    fn lookup(&self, parent: NodeId, name: &FileName) -> Result<Entry> {
        let dir = self.pin(parent)?;
        if self.walk.finds() {
            return self.entry(parent, name, self.walk.stat(dir.as_fd(), name)?);
        }
        let (pin, attr) = self.walk.open(dir.as_fd(), name)?;
        let entry = self.entry(parent, name, attr)?;
        self.nodes.hold(entry.node, Arc::new(pin));
        Ok(entry)
    }

    fn walk(&self, from: NodeId, names: &[FileName], found: &mut dyn FnMut(Entry)) -> Result<()> {
        let (mut dir, mut names) = (from, names.iter().peekable());
        if !self.walk.finds() {
            return names.try_for_each(|name| {
                let entry = self.lookup(dir, name)?;
                dir = entry.node;
                found(entry);
                Ok(())
            });
        }
        while names.peek().is_some() {
            let pin = self.pin(dir)?;
            let mut way = Way::from(pin.as_fd());
            while let Some(name) = names.peek() {
                let Some(attr) = self.walk.step(&mut way, name) else { break };
                let entry = self.entry(dir, name, attr?)?;
                dir = entry.node;
                found(entry);
                names.next();
            }
        }
        Ok(())
    }

    fn forget(&self, node: NodeId, count: u64) {
        self.nodes.forget(node, count);
    }

    fn seen(&self, node: NodeId) -> Result<(NodeId, FileName)> {
        self.nodes.seen(node)
    }

    fn getattr(&self, node: NodeId, file: Option<Handle>) -> Result<Attr> {
        let file = file.map(|file| self.files.get(file)).transpose()?;
        let attr = match file {
            Some(file) if self.walk.walker == Walker::Server => Attr::of(file.as_fd()),
            Some(file) => self.walk.attr(self.pin(file.node)?.as_fd()),
            None => self.walk.attr(self.pin(node)?.as_fd()),
        };
        self.devices.shown(attr?)
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
        self.devices.shown(attr)
    }

    fn readlink(&self, node: NodeId, to: &mut dyn Sink) -> Result<()> {
        self.walk.readlink(self.pin(node)?.as_fd(), |target| to.put(target))?
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
        let at = [pin.as_fd(), dir.as_fd()];
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
        let moved = self.last_sight(&old_dir, from.1)?;
        let replaced = match self.last_sight(&new_dir, to.1) {
            Err(Errno::ENOENT) => None,
            replaced => replaced?,
        };
        let op = op::Rename { name: *from.1, new_name: *to.1, flags };
        self.call(&op, &[old_dir.as_fd(), new_dir.as_fd()], b"", |(), [], _| ())?;
        let same = matches!((&moved, &replaced), (Some((a, _)), Some((b, _))) if a == b);
        if same {
            return Ok(());
        }
        if let Some((node, pin)) = replaced {
            if flags.contains(RenameFlags::EXCHANGE) {
                self.nodes.renamed(node, from.0, from.1);
            } else {
                self.nodes.unnamed(node, to.0, to.1, pin);
            }
        }
        if let Some((node, _)) = moved {
            self.nodes.renamed(node, to.0, to.1);
        }
        Ok(())
    }

    fn open(&self, node: NodeId, flags: OpenFlags) -> Result<Fh> {
        self.files.room()?;
        let pin = self.pin(node)?;
        let file = self.call(&op::Open { flags }, &[pin.as_fd()], b"", |(), [file], _| file)?;
        let setid = flags.contains(OpenFlags::WRITE) && self.walk.attr(pin.as_fd())?.has_setid();
        Ok(self.keep(node, Object::File, file, setid, flags))
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
        let (attr, file) = self.create_in(caller, parent, &op, |attr, [file], _| (attr, file))?;
        let entry = self.entry(parent, name, attr)?;
        Ok((entry, self.keep(entry.node, Object::File, file, attr.has_setid(), flags)))
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
        let shown = self.devices.shown(attr)?;
        let entry = Entry { node: self.nodes.nameless(&attr, pin)?, attr: shown };
        Ok((entry, self.keep(entry.node, Object::File, file, attr.has_setid(), flags)))
    }

    fn release(&self, handle: Handle) -> Result<()> {
        self.close(handle).map(drop)
    }

    fn give(&self, handle: Handle) -> Result<OwnedFd> {
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
            self.call(&op, &[a.as_fd(), b.as_fd()], b"", |copied, [], _| copied)?
        } else {
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
        let file = self.ask(node, &op::OpenDir {}, |(), [file], _| file)?;
        Ok(self.keep(node, Object::Dir, file, false, OpenFlags::READ))
    }

    fn readdir(&self, dir: Handle, offset: u64, detail: Detail, to: &mut dyn Listing) -> Result<()> {
        let file = self.files.get(dir)?;
        let pin = self.pin(file.node)?;
        let dev = self.nodes.dev(file.node)?;
        let listed = Listed { tree: self, node: file.node, dev, pin: &pin, detail };
        let mut stream = file.stream.lock().unwrap_or_else(PoisonError::into_inner);
        stream.read(file.as_fd(), offset, to, |raw, to| listed.give(raw, to))
    }

    fn getxattr(&self, node: NodeId, name: &XattrName, size: u32, to: &mut dyn Sink) -> Result<u32> {
        let op = op::GetXattr { name: *name, size };
        self.ask(node, &op, |length, _, value| to.put(value).map(|()| length))?
    }

    fn setxattr(&self, node: NodeId, name: &XattrName, value: &[u8], flags: XattrFlags) -> Result<()> {
        let pin = self.pin(node)?;
        let op = op::SetXattr { name: *name, flags };
        self.call(&op, &[pin.as_fd()], value, |(), [], _| ())
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
