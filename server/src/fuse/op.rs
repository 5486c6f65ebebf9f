//! The opcodes: one row each, and what a row does. A row takes its arguments, calls the file system and gives an
//! answer; it writes neither bytes nor errnos.

use postern_ipc::attr::{Attr, Dev, Mode, NodeKind, OpenFlags, RenameFlags};
use postern_ipc::name::Target;
use postern_ipc::{Errno, Result};
use zerocopy::{Immutable, IntoBytes, KnownLayout};

use super::abi::{self, opcode};
use super::args::Call;
use super::ioctl::ioctl;
use super::listing::{opendir, readdir, readdirplus, releasedir};
use super::session::{Filled, Session, run};
use super::wire;
use super::xattr::{getxattr, listxattr, removexattr, setxattr};
use crate::content::{Data, Room};
use crate::fs::{Entry, Fh, Fs, Handle, NodeId, Object, Seek, Spot, Wait};
use crate::vhost::Place;

/// Does a request belong to the queue's worker or to the pool?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// It answers at once, or finds out itself that it would wait.
    Quick,
    /// It may wait for a disk.
    Slow,
}

/// Does the guest wait for an answer?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answered {
    /// Yes.
    Yes,
    /// No: fuse.h defines none.
    Never,
}

macro_rules! opcodes {
    ($($opcode:ident $row:ident $pace:ident $answered:ident;)*) => {
        /// What is known of an opcode before its request is looked at: name, pace, answer. `None`: not served.
        pub(super) fn known(opcode: u32) -> Option<(&'static str, Pace, Answered)> {
            match opcode {
                $(opcode::$opcode => Some((stringify!($row), Pace::$pace, Answered::$answered)),)*
                _ => None,
            }
        }

        /// Does a request; the bytes of the answer behind its header.
        pub(super) fn dispatch<F: Fs>(session: &Session<F>, call: &mut Call<'_>) -> Result<usize> {
            match call.header.opcode {
                $(opcode::$opcode => run(session, call, $row),)*
                _ => Err(Errno::ENOSYS),
            }
        }
    };
}

opcodes! {
    LOOKUP lookup Quick Yes;
    FORGET forget Quick Never;
    BATCH_FORGET batch_forget Quick Never;
    GETATTR getattr Quick Yes;
    STATX statx Quick Yes;
    SETATTR setattr Quick Yes;
    READLINK readlink Quick Yes;
    SYMLINK symlink Quick Yes;
    MKNOD mknod Quick Yes;
    MKDIR mkdir Quick Yes;
    UNLINK unlink Quick Yes;
    RMDIR rmdir Quick Yes;
    RENAME rename Quick Yes;
    RENAME2 rename2 Quick Yes;
    LINK link Quick Yes;
    OPEN open Quick Yes;
    CREATE create Quick Yes;
    TMPFILE tmpfile Quick Yes;
    READ read Quick Yes;
    WRITE write Quick Yes;
    FLUSH flush Quick Yes;
    RELEASE release Quick Yes;
    STATFS statfs Quick Yes;
    SYNCFS syncfs Slow Yes;
    FSYNC fsync Slow Yes;
    FSYNCDIR fsyncdir Slow Yes;
    FALLOCATE fallocate Slow Yes;
    LSEEK lseek Quick Yes;
    COPY_FILE_RANGE copy_file_range Slow Yes;
    COPY_FILE_RANGE_64 copy_file_range_64 Slow Yes;
    SETXATTR setxattr Quick Yes;
    GETXATTR getxattr Quick Yes;
    LISTXATTR listxattr Quick Yes;
    REMOVEXATTR removexattr Quick Yes;
    ACCESS access Quick Yes;
    OPENDIR opendir Quick Yes;
    READDIR readdir Quick Yes;
    READDIRPLUS readdirplus Quick Yes;
    RELEASEDIR releasedir Quick Yes;
    IOCTL ioctl Quick Yes;
    INIT init Quick Yes;
    INTERRUPT interrupt Quick Never;
    DESTROY destroy Quick Yes;
}

/// The answer to CREATE and TMPFILE.
#[derive(Clone, Copy, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct CreateOut {
    entry: abi::EntryOut,
    open: abi::OpenOut,
}

fn lookup<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::EntryOut> {
    let name = call.last_name(false)?;
    match s.fs.lookup(call.node(), &name) {
        Err(Errno::ENOENT) if !s.settings.negative_timeout.is_zero() => Ok(wire::negative(s.settings.negative_timeout)),
        found => Ok(s.entry(&found?)),
    }
}

fn forget<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    let args: abi::ForgetIn = call.take()?;
    s.fs.forget(call.node(), args.nlookup);
    Ok(())
}

fn batch_forget<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    let args: abi::BatchForgetIn = call.take()?;
    for _ in 0..args.count {
        let one: abi::ForgetOne = call.take()?;
        s.fs.forget(NodeId(one.nodeid), one.nlookup);
    }
    Ok(())
}

fn attributes<F: Fs>(s: &Session<F>, call: &Call<'_>, flags: abi::GetattrFlags, handle: u64) -> Result<Attr> {
    let file = flags.contains(abi::GetattrFlags::FH).then(|| call.handle(handle, Object::File));
    s.fs.getattr(call.node(), file)
}

fn getattr<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::AttrOut> {
    let args: abi::GetattrIn = call.take()?;
    Ok(wire::attr_out(&s.settings, &attributes(s, call, args.getattr_flags, args.fh)?))
}

fn statx<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::StatxOut> {
    let args: abi::StatxIn = call.take()?;
    Ok(wire::statx_out(&s.settings, &attributes(s, call, args.getattr_flags, args.fh)?))
}

fn setattr<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::AttrOut> {
    let args: abi::SetattrIn = call.take()?;
    let file = args.valid.contains(abi::SetattrValid::FH).then(|| call.handle(args.fh, Object::File));
    let changed = s.fs.setattr(call.node(), file, &wire::changes(&args)?)?;
    Ok(wire::attr_out(&s.settings, &changed))
}

fn readlink<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<Filled> {
    let mut room = room(call, u32::MAX);
    s.fs.readlink(call.node(), &mut room)?;
    Ok(Filled(room.filled()))
}

fn symlink<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::EntryOut> {
    let (name, target) = (call.name()?, Target::new(call.string()?)?);
    let entry = s.fs.symlink(call.caller()?, call.node(), &name, target)?;
    s.labelled(call, &name, entry)
}

fn mknod<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::EntryOut> {
    let (args, name): (abi::MknodIn, _) = (call.take()?, call.last_name(s.labels())?);
    let kind = NodeKind::new(args.mode, Dev::decode(args.rdev))?;
    let (mode, umask) = (Mode::new(args.mode), s.umask(args.umask));
    let entry = s.fs.mknod(call.caller()?, call.node(), &name, kind, mode, umask)?;
    s.labelled(call, &name, entry)
}

fn mkdir<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::EntryOut> {
    let (args, name): (abi::MkdirIn, _) = (call.take()?, call.last_name(s.labels())?);
    let (mode, umask) = (Mode::new(args.mode), s.umask(args.umask));
    let entry = s.fs.mkdir(call.caller()?, call.node(), &name, mode, umask)?;
    s.labelled(call, &name, entry)
}

fn unlink<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    let name = call.last_name(false)?;
    s.fs.unlink(call.node(), &name)
}

fn rmdir<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    let name = call.last_name(false)?;
    s.fs.rmdir(call.node(), &name)
}

fn rename<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    let args: abi::RenameIn = call.take()?;
    let (name, new_name) = (call.name()?, call.last_name(false)?);
    s.fs.rename((call.node(), &name), (NodeId(args.newdir), &new_name), RenameFlags::empty())
}

fn rename2<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    let args: abi::Rename2In = call.take()?;
    let (name, new_name) = (call.name()?, call.last_name(false)?);
    let flags = RenameFlags::from_bits(args.flags).ok_or(Errno::EINVAL)?;
    s.fs.rename((call.node(), &name), (NodeId(args.newdir), &new_name), flags)
}

fn link<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::EntryOut> {
    let (args, name): (abi::LinkIn, _) = (call.take()?, call.last_name(false)?);
    Ok(s.entry(&s.fs.link(NodeId(args.oldnodeid), call.node(), &name)?))
}

fn open<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::OpenOut> {
    let args: abi::OpenIn = call.take()?;
    let flags = wire::open_flags(&s.settings, args.flags, args.open_flags)?;
    let handle = s.fs.open(call.node(), flags)?;
    Ok(abi::OpenOut { fh: handle.0, open_flags: s.settings.cache.file(), backing_id: 0 })
}

fn create<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<CreateOut> {
    let (args, name): (abi::CreateIn, _) = (call.take()?, call.last_name(s.labels())?);
    let flags = wire::open_flags(&s.settings, args.flags, args.open_flags)?;
    let (mode, umask) = (Mode::new(args.mode), s.umask(args.umask));
    // A label is for a new file only, so that must be known.
    let labelled = s.label(call)?.is_some();
    let exclusive = if labelled { flags | OpenFlags::EXCL } else { flags };
    let asked = s.incapable.ask();
    match s.fs.create(call.caller()?, call.node(), &name, mode, umask, exclusive) {
        Err(Errno::EEXIST) if !flags.contains(OpenFlags::EXCL) => {
            let entry = s.fs.lookup(call.node(), &name)?;
            Ok(s.created(s.entry(&entry), s.fs.open(entry.node, flags)?))
        }
        made => {
            let (entry, handle) = made?;
            match s.labelled(call, &name, entry) {
                Ok(out) => {
                    if flags.contains(OpenFlags::EXCL) && !labelled {
                        s.incapable.learn(entry.node, asked);
                    }
                    Ok(s.created(out, handle))
                }
                Err(errno) => {
                    let _ = s.fs.release(Handle { node: entry.node, fh: handle, object: Object::File });
                    Err(errno)
                }
            }
        }
    }
}

fn tmpfile<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<CreateOut> {
    let args: abi::CreateIn = call.take()?;
    let flags = wire::open_flags(&s.settings, args.flags, args.open_flags)?;
    let (mode, umask) = (Mode::new(args.mode), s.umask(args.umask));
    // Nothing is called so.
    call.string()?;
    let (entry, handle) = s.fs.tmpfile(call.caller()?, call.node(), mode, umask, flags)?;
    if let Err(errno) = s.set_label(call, entry.node) {
        let _ = s.fs.release(Handle { node: entry.node, fh: handle, object: Object::File });
        s.fs.forget(entry.node, 1);
        return Err(errno);
    }
    Ok(s.created(s.entry(&entry), handle))
}

fn read<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<Filled> {
    let args: abi::ReadIn = call.take()?;
    let (file, wait) = (call.handle(args.fh, Object::File), call.wait());
    let mut room = room(call, args.size);
    s.fs.read(file, args.offset, wait, &mut room).map(Filled)
}

fn write<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::WriteOut> {
    let args: abi::WriteIn = call.take()?;
    let kill_setid = args.write_flags.contains(abi::WriteFlags::KILL_SUIDGID);
    let (file, wait) = (call.handle(args.fh, Object::File), call.wait());
    let mut data = Data::new(call.request, args.size)?;
    let written = s.fs.write(file, args.offset, kill_setid, wait, &mut data)?;
    Ok(abi::WriteOut { size: u32::try_from(written).map_err(|_| Errno::EIO)?, padding: 0 })
}

fn release<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    let args: abi::ReleaseIn = call.take()?;
    s.fs.release(call.handle(args.fh, Object::File))
}

fn flush<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    let args: abi::FlushIn = call.take()?;
    s.fs.flush(call.handle(args.fh, Object::File))
}

fn statfs<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::StatfsOut> {
    Ok(wire::statfs_out(&s.fs.statfs(call.node())?))
}

fn syncfs<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    s.fs.syncfs(call.node())
}

fn sync<F: Fs>(s: &Session<F>, call: &mut Call<'_>, object: Object) -> Result<()> {
    let args: abi::FsyncIn = call.take()?;
    s.fs.fsync(call.handle(args.fh, object), args.fsync_flags.contains(abi::FsyncFlags::FDATASYNC))
}

fn fsync<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    sync(s, call, Object::File)
}

fn fsyncdir<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    sync(s, call, Object::Dir)
}

fn fallocate<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    let args: abi::FallocateIn = call.take()?;
    s.fs.fallocate(call.handle(args.fh, Object::File), args.mode, args.offset, args.length)
}

fn lseek<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::LseekOut> {
    let args: abi::LseekIn = call.take()?;
    let seek = match i32::try_from(args.whence) {
        Ok(libc::SEEK_DATA) => Seek::Data(args.offset),
        Ok(libc::SEEK_HOLE) => Seek::Hole(args.offset),
        _ => return Err(Errno::EINVAL),
    };
    Ok(abi::LseekOut { offset: s.fs.lseek(call.handle(args.fh, Object::File), seek)? })
}

fn copy<F: Fs>(s: &Session<F>, call: &mut Call<'_>, most: u64) -> Result<u64> {
    let args: abi::CopyFileRangeIn = call.take()?;
    if args.flags != 0 {
        return Err(Errno::EINVAL);
    }
    let target = Handle { node: NodeId(args.nodeid_out), fh: Fh(args.fh_out), object: Object::File };
    let from = Spot { file: call.handle(args.fh_in, Object::File), offset: args.off_in };
    let to = Spot { file: target, offset: args.off_out };
    s.fs.copy_range(from, to, args.len.min(most))
}

/// The older opcode answers with 32 bits: no more than they can say is copied at once.
fn copy_file_range<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::WriteOut> {
    let copied = copy(s, call, u64::from(u32::MAX) & !0xfff)?;
    Ok(abi::WriteOut { size: u32::try_from(copied).map_err(|_| Errno::EOVERFLOW)?, padding: 0 })
}

fn copy_file_range_64<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::CopyFileRangeOut> {
    Ok(abi::CopyFileRangeOut { bytes_copied: copy(s, call, u64::MAX)? })
}

/// By mode and caller, as the guest's kernel does it itself (`default_permissions`); ACLs are its business.
fn access<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    let args: abi::AccessIn = call.take()?;
    let attr = s.fs.getattr(call.node(), None)?;
    let any_x = attr.mode & 0o111 != 0 || attr.kind() == libc::S_IFDIR;
    let granted = match (call.header.uid == attr.uid.0, call.header.gid == attr.gid.0) {
        _ if call.header.uid == 0 => 0o6 | u32::from(any_x),
        (true, _) => attr.mode >> 6,
        (false, true) => attr.mode >> 3,
        (false, false) => attr.mode,
    };
    if args.mask & 0o7 & !granted == 0 { Ok(()) } else { Err(Errno::EACCES) }
}

fn init<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<abi::InitOut> {
    s.init(&call.take()?)
}

/// Nothing waits long enough to be interrupted; an answer is on its way.
fn interrupt<F: Fs>(_: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    call.take::<abi::InterruptIn>().map(drop)
}

fn destroy<F: Fs>(s: &Session<F>, _: &mut Call<'_>) -> Result<()> {
    s.unmount();
    Ok(())
}

impl<F: Fs> Session<F> {
    pub(super) fn entry(&self, entry: &Entry) -> abi::EntryOut {
        wire::entry_out(&self.settings, entry)
    }

    fn created(&self, entry: abi::EntryOut, handle: Fh) -> CreateOut {
        let open = abi::OpenOut { fh: handle.0, open_flags: self.settings.cache.file(), backing_id: 0 };
        CreateOut { entry, open }
    }
}

/// What follows the header of the answer, up to `size` bytes.
pub(super) fn room<'a>(call: &'a Call<'_>, size: u32) -> Room<'a> {
    Room::new(call.request, size_of::<abi::OutHeader>(), size)
}

impl Call<'_> {
    fn wait(&self) -> Wait {
        if self.place == Place::Worker { Wait::Never } else { Wait::AsNeeded }
    }
}
