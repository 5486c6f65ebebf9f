//! The requests: one row each, and what a row does. 9p-proxy.h: T_OPEN to T_GETVERSION

use std::os::fd::{BorrowedFd, OwnedFd};

use postern_ipc::attr::{Changes, Mode, NodeKind, OpenFlags, RenameFlags, Time, TimeChange, XattrFlags};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::{Target, XattrName};
use postern_ipc::{Errno, Result};
use rustix::io::{ReadWriteFlags, preadv2};

use super::path::Spot;
use super::wire::{self, Reader, Reply};
use crate::fs::{Entry, Fh, Fs, Handle, Object, Sink, Wait, open_flags};

/// Most bytes of a string in an answer.
const STRING_MAX: u32 = u16::MAX as u32;
/// A value that is 64 KiB long, whose counted length is 0 then.
const WRAPPED: u32 = 1 << 16;
/// No id: it is left as it is, or not told. chown(2)
const KEEP: u32 = u32::MAX;

/// An answer: a message, or a descriptor.
pub(super) enum Answer {
    /// To OPEN and CREATE.
    Open(Result<OwnedFd>),
    /// To all others.
    Message(Result<Reply>),
}

impl Answer {
    /// Why the request failed, if it did.
    pub(super) fn failed(&self) -> Option<Errno> {
        match self {
            Self::Open(Err(errno)) | Self::Message(Err(errno)) => Some(*errno),
            Self::Open(Ok(_)) | Self::Message(Ok(_)) => None,
        }
    }
}

macro_rules! requests {
    ($($number:literal $row:ident $answer:ident;)*) => {
        /// Does a request and says how it is called; ENOSYS for an unknown one.
        pub(super) fn dispatch<F: Fs>(fs: &F, number: u32, payload: &[u8]) -> (&'static str, Answer) {
            let args = &mut Reader::new(payload);
            match number {
                $($number => (stringify!($row), Answer::$answer($row(fs, args))),)*
                _ => ("unknown", Answer::Message(Err(Errno::ENOSYS))),
            }
        }
    };
}

requests! {
    2 open Open;
    3 create Open;
    4 mknod Message;
    5 mkdir Message;
    6 symlink Message;
    7 link Message;
    8 lstat Message;
    9 readlink Message;
    10 statfs Message;
    11 chmod Message;
    12 chown Message;
    13 truncate Message;
    14 utime Message;
    15 rename Message;
    16 remove Message;
    17 lgetxattr Message;
    18 llistxattr Message;
    19 lsetxattr Message;
    20 lremovexattr Message;
    21 getversion Message;
}

/// The node at a path that is the last of the arguments.
fn last<'a, F: Fs>(fs: &'a F, args: &mut Reader<'_>) -> Result<Spot<'a, F>> {
    let path = args.string()?;
    args.end()?;
    Spot::find(fs, path)
}

/// 9P2000.u tells no group: then it is root's.
fn caller(uid: u32, gid: u32) -> Caller {
    let known = |id| if id == KEEP { 0 } else { id };
    Caller::User { uid: GuestUid(known(uid)), gid: GuestGid(known(gid)), group: None }
}

/// Nothing of QEMU's refers to a node: it is looked up anew each time.
fn made<F: Fs>(fs: &F, entry: Result<Entry>) -> Result<Reply> {
    fs.forget(entry?.node, 1);
    Ok(Reply::Status(0))
}

/// QEMU's buffers are not aligned for O_DIRECT; who truncates is not told, so set-id bits go.
fn flags(raw: u32) -> Result<OpenFlags> {
    Ok(open_flags(raw)?.difference(OpenFlags::DIRECT).union(OpenFlags::KILL_SETID))
}

fn open<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<OwnedFd> {
    let (path, flags) = (args.string()?, flags(args.d()?)?);
    args.end()?;
    let spot = Spot::find(fs, path)?;
    let node = spot.node();
    let is_dir = spot.attr()?.kind() == libc::S_IFDIR;
    let (fh, object) = match flags.contains(OpenFlags::WRITE) {
        true if is_dir => return Err(Errno::EISDIR),
        false if is_dir => (fs.opendir(node)?, Object::Dir),
        _ => (fs.open(node, flags)?, Object::File),
    };
    fs.give(Handle { node, fh, object })
}

fn create<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<OwnedFd> {
    let path = args.string()?;
    let (flags, mode, uid, gid) = (flags(args.d()?)?, Mode::new(args.d()?), args.d()?, args.d()?);
    args.end()?;
    let (dir, name) = Spot::parent(fs, path)?;
    let (entry, fh): (Entry, Fh) = fs.create(caller(uid, gid), dir.node(), &name, mode, Mode::new(0), flags)?;
    let given = fs.give(Handle { node: entry.node, fh, object: Object::File });
    fs.forget(entry.node, 1);
    given
}

fn mknod<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    let caller = caller(args.d()?, args.d()?);
    let (path, mode, rdev) = (args.string()?, args.d()?, wire::dev(args.q()?));
    args.end()?;
    let (dir, name) = Spot::parent(fs, path)?;
    let kind = NodeKind::new(mode, rdev)?;
    made(fs, fs.mknod(caller, dir.node(), &name, kind, Mode::new(mode), Mode::new(0)))
}

fn mkdir<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    let caller = caller(args.d()?, args.d()?);
    let (path, mode) = (args.string()?, Mode::new(args.d()?));
    args.end()?;
    let (dir, name) = Spot::parent(fs, path)?;
    made(fs, fs.mkdir(caller, dir.node(), &name, mode, Mode::new(0)))
}

fn symlink<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    let caller = caller(args.d()?, args.d()?);
    let (target, path) = (Target::new(args.string()?)?, args.string()?);
    args.end()?;
    let (dir, name) = Spot::parent(fs, path)?;
    made(fs, fs.symlink(caller, dir.node(), &name, target))
}

fn link<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    let (old, path) = (args.string()?, args.string()?);
    args.end()?;
    let (old, (dir, name)) = (Spot::find(fs, old)?, Spot::parent(fs, path)?);
    made(fs, fs.link(old.node(), dir.node(), &name))
}

fn lstat<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    last(fs, args)?.attr().map(Reply::Attr)
}

/// As much of the target as there is room for. readlink(2)
fn readlink<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    let (path, size) = (args.string()?, args.d()?);
    args.end()?;
    let mut target = Bytes::new(STRING_MAX);
    fs.readlink(Spot::find(fs, path)?.node(), &mut target)?;
    target.held.truncate(usize::try_from(size).unwrap_or(usize::MAX));
    Ok(Reply::String(target.held))
}

fn statfs<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    fs.statfs(last(fs, args)?.node()).map(Reply::Space)
}

fn change<F: Fs>(fs: &F, path: &[u8], changes: &Changes) -> Result<Reply> {
    fs.setattr(Spot::find(fs, path)?.node(), None, changes)?;
    Ok(Reply::Status(0))
}

fn chmod<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    let (path, mode) = (args.string()?, Mode::new(args.d()?));
    args.end()?;
    change(fs, path, &Changes { mode: Some(mode), ..Changes::default() })
}

fn chown<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    let path = args.string()?;
    let mut id = || args.d().map(|id| (id != KEEP).then_some(id));
    let (uid, gid) = (id()?.map(GuestUid), id()?.map(GuestGid));
    args.end()?;
    change(fs, path, &Changes { uid, gid, ..Changes::default() })
}

fn truncate<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    let (path, size) = (args.string()?, args.q()?);
    args.end()?;
    change(fs, path, &Changes { size: Some(size), kill_setid: true, ..Changes::default() })
}

fn utime<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    let path = args.string()?;
    let (atime, mtime) = (time(args)?, time(args)?);
    args.end()?;
    change(fs, path, &Changes { atime, mtime, ..Changes::default() })
}

/// Seconds and nanoseconds, of which two values mean something else. utimensat(2)
fn time(args: &mut Reader<'_>) -> Result<TimeChange> {
    let (sec, nsec) = (args.q()?.cast_signed(), args.q()?);
    match i64::try_from(nsec) {
        Ok(libc::UTIME_NOW) => Ok(TimeChange::Now),
        Ok(libc::UTIME_OMIT) => Ok(TimeChange::Keep),
        Ok(0..1_000_000_000) => {
            u32::try_from(nsec).map(|nsec| TimeChange::At(Time { sec, nsec })).map_err(|_| Errno::EINVAL)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn rename<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    let (old, new) = (args.string()?, args.string()?);
    args.end()?;
    let ((from, name), (to, new_name)) = (Spot::parent(fs, old)?, Spot::parent(fs, new)?);
    fs.rename((from.node(), &name), (to.node(), &new_name), RenameFlags::empty())?;
    Ok(Reply::Status(0))
}

/// A file, or an empty directory. remove(3)
fn remove<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    let path = args.string()?;
    args.end()?;
    let (dir, name) = Spot::parent(fs, path)?;
    match fs.unlink(dir.node(), &name) {
        Err(Errno::EISDIR) => fs.rmdir(dir.node(), &name),
        removed => removed,
    }?;
    Ok(Reply::Status(0))
}

/// A string, or with size 0 only how long it is.
fn sized(size: u32, get: impl FnOnce(u32, &mut Bytes) -> Result<u32>) -> Result<Reply> {
    let size = size.min(STRING_MAX);
    let mut value = Bytes::new(size);
    let length = get(size, &mut value)?;
    Ok(if size == 0 { Reply::Status(length) } else { Reply::String(value.held) })
}

fn lgetxattr<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    let (size, path, name) = (args.d()?, args.string()?, XattrName::new(args.string()?)?);
    args.end()?;
    let spot = Spot::find(fs, path)?;
    sized(size, |size, value| fs.getxattr(spot.node(), &name, size, value))
}

fn llistxattr<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    let (size, path) = (args.d()?, args.string()?);
    args.end()?;
    let spot = Spot::find(fs, path)?;
    sized(size, |size, names| fs.listxattr(spot.node(), size, names))
}

/// The size is told twice, and once in too few bits: what is stored is what was sent, or nothing.
fn lsetxattr<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    let (path, name, value) = (args.string()?, XattrName::new(args.string()?)?, args.string()?);
    let (size, flags) = (args.d()?, XattrFlags::from_bits(args.d()?).ok_or(Errno::EINVAL)?);
    args.end()?;
    match u32::try_from(value.len()) {
        Ok(0) if size == WRAPPED => return Err(Errno::E2BIG),
        Ok(length) if length == size && !flags.contains(XattrFlags::KILL_SGID) => {}
        _ => return Err(Errno::EINVAL),
    }
    fs.setxattr(Spot::find(fs, path)?.node(), &name, value, flags)?;
    Ok(Reply::Status(0))
}

fn lremovexattr<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    let (path, name) = (args.string()?, XattrName::new(args.string()?)?);
    args.end()?;
    fs.removexattr(Spot::find(fs, path)?.node(), &name)?;
    Ok(Reply::Status(0))
}

fn getversion<F: Fs>(fs: &F, args: &mut Reader<'_>) -> Result<Reply> {
    fs.get_version(last(fs, args)?.node()).map(Reply::Version)
}

/// An answer's string while it is gathered.
struct Bytes {
    held: Vec<u8>,
    most: usize,
}

impl Bytes {
    fn new(most: u32) -> Self {
        Self { held: Vec::new(), most: usize::try_from(most).unwrap_or(usize::MAX) }
    }
}

impl Sink for Bytes {
    fn room(&self) -> usize {
        self.most.saturating_sub(self.held.len())
    }

    fn read_from(&mut self, file: BorrowedFd<'_>, offset: u64, _: Wait) -> Result<usize> {
        let mut part = vec![0; self.room()];
        let read = preadv2(file, &mut [std::io::IoSliceMut::new(&mut part)], offset, ReadWriteFlags::empty())?;
        self.held.extend(part.get(..read).unwrap_or_default());
        Ok(read)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > self.room() {
            return Err(Errno::EINVAL);
        }
        self.held.extend(bytes);
        Ok(())
    }
}
