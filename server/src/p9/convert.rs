//! Between our types and 9P's.

use postern_ipc::attr::{Attr, Changes, Mode, OpenFlags, Time, TimeChange};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::{Errno, Result};

use super::message::{NONUNAME, Qid, Rgetattr, Rstatfs, Tsetattr};
use crate::fs::{self, Space};

/// Kinds of a qid. linux/net/9p/9p.h
mod qt {
    pub(super) const DIR: u8 = 0x80;
    pub(super) const SYMLINK: u8 = 0x02;
    pub(super) const FILE: u8 = 0x00;
}

/// What Tsetattr changes. linux/net/9p/9p.h: P9_ATTR_*
mod set {
    pub(super) const MODE: u32 = 1;
    pub(super) const UID: u32 = 1 << 1;
    pub(super) const GID: u32 = 1 << 2;
    pub(super) const SIZE: u32 = 1 << 3;
    pub(super) const ATIME: u32 = 1 << 4;
    pub(super) const MTIME: u32 = 1 << 5;
    pub(super) const ATIME_SET: u32 = 1 << 7;
    pub(super) const MTIME_SET: u32 = 1 << 8;
}

/// What Rgetattr holds. linux/net/9p/9p.h: P9_STATS_*
const STATS_BASIC: u64 = 0x7ff;
const STATS_BTIME: u64 = 0x800;

/// The file system type that a Linux guest shows. linux/magic.h: V9FS_MAGIC
const V9FS_MAGIC: u32 = 0x0102_1997;

/// For whom something is made. A mount as a whole has no user: that is the guest's root.
pub(super) fn creator(uid: u32, gid: u32) -> Caller {
    let uid = if uid == NONUNAME { 0 } else { uid };
    Caller::User { uid: GuestUid(uid), gid: GuestGid(gid), group: None }
}

/// A writer of this uid takes set-id bits away; only root keeps them, and who no one knows does not.
pub(super) fn kills_setid(uid: u32) -> bool {
    uid != 0
}

/// The kind of a qid, by the file type of a mode.
pub(super) fn qid_kind(mode: u32) -> u8 {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => qt::DIR,
        libc::S_IFLNK => qt::SYMLINK,
        _ => qt::FILE,
    }
}

impl Qid {
    /// Of a file. The version changes with the content and is never 0, which Linux takes for "do not cache".
    pub(super) fn of(attr: &Attr) -> Self {
        let Time { sec, nsec } = attr.mtime;
        let mixed = sec.cast_unsigned() ^ u64::from(nsec) << 2 ^ attr.size << 8;
        let version = u32::try_from((mixed ^ mixed >> 32) & 0xffff_ffff).unwrap_or_default().max(1);
        Self { kind: qid_kind(attr.mode), version, path: attr.id.ino }
    }
}

/// The answer to Tgetattr: generation and data version are not told.
pub(super) fn getattr(attr: &Attr) -> Rgetattr {
    let btime = attr.btime.unwrap_or_default();
    let sec = |time: Time| time.sec.cast_unsigned();
    let nsec = |time: Time| u64::from(time.nsec);
    Rgetattr {
        valid: STATS_BASIC | if attr.btime.is_some() { STATS_BTIME } else { 0 },
        qid: Qid::of(attr),
        mode: attr.mode,
        uid: attr.uid.0,
        gid: attr.gid.0,
        nlink: attr.nlink.into(),
        rdev: attr.rdev.encode().into(),
        size: attr.size,
        blksize: attr.blksize.into(),
        blocks: attr.blocks,
        atime_sec: sec(attr.atime),
        atime_nsec: nsec(attr.atime),
        mtime_sec: sec(attr.mtime),
        mtime_nsec: nsec(attr.mtime),
        ctime_sec: sec(attr.ctime),
        ctime_nsec: nsec(attr.ctime),
        btime_sec: sec(btime),
        btime_nsec: nsec(btime),
        generation: 0,
        data_version: 0,
    }
}

/// What Tsetattr asks for, on behalf of `uid`.
///
/// # Errors
/// EINVAL for a time with too many nanoseconds.
pub(super) fn changes(asked: &Tsetattr, uid: u32) -> Result<Changes> {
    let has = |bit| asked.valid & bit != 0;
    let time = |any, exact, sec: u64, nsec: u64| match (has(any), has(exact)) {
        (false, _) => Ok(TimeChange::Keep),
        (true, false) => Ok(TimeChange::Now),
        (true, true) => at(sec, nsec),
    };
    Ok(Changes {
        uid: has(set::UID).then_some(GuestUid(asked.uid)),
        gid: has(set::GID).then_some(GuestGid(asked.gid)),
        mode: has(set::MODE).then(|| Mode::new(asked.mode)),
        size: has(set::SIZE).then_some(asked.size),
        atime: time(set::ATIME, set::ATIME_SET, asked.atime_sec, asked.atime_nsec)?,
        mtime: time(set::MTIME, set::MTIME_SET, asked.mtime_sec, asked.mtime_nsec)?,
        kill_setid: kills_setid(uid),
    })
}

fn at(sec: u64, nsec: u64) -> Result<TimeChange> {
    let nsec = u32::try_from(nsec).ok().filter(|&nsec| nsec < 1_000_000_000).ok_or(Errno::EINVAL)?;
    Ok(TimeChange::At(Time { sec: sec.cast_signed(), nsec }))
}

/// Flags of Tlopen and Tlcreate, on behalf of `uid`: P9_DOTL_* of linux/net/9p/9p.h are open(2)'s. O_DIRECT is the
/// guest's own business, because its cache is not the host's, and so is O_NOATIME.
///
/// # Errors
/// EINVAL for an access mode that is none.
pub(super) fn open_flags(raw: u32, uid: u32) -> Result<OpenFlags> {
    let mut flags = fs::open_flags(raw)?.difference(OpenFlags::DIRECT | OpenFlags::NOATIME);
    flags.set(OpenFlags::KILL_SETID, kills_setid(uid));
    Ok(flags)
}

/// Only a directory is to be opened. linux/net/9p/9p.h: P9_DOTL_DIRECTORY
pub(super) fn wants_dir(raw: u32) -> bool {
    raw & 0o200_000 != 0
}

/// The answer to Tstatfs.
pub(super) fn statfs(space: &Space) -> Rstatfs {
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    Rstatfs {
        kind: V9FS_MAGIC,
        bsize: small(space.frsize),
        blocks: space.blocks,
        bfree: space.bfree,
        bavail: space.bavail,
        files: space.files,
        ffree: space.ffree,
        fsid: 0,
        namelen: small(space.namelen),
    }
}
