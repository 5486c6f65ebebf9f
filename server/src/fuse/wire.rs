//! Between our types and FUSE's.

use std::time::Duration;

use postern_ipc::attr::{Attr, Changes, Mode, OpenFlags, Time, TimeChange};
use postern_ipc::id::{GuestGid, GuestUid};
use postern_ipc::{Errno, Result};

use super::abi::{
    self, AttrFlags, AttrOut, EntryOut, OpenInFlags, SetattrIn, SetattrValid, StatfsOut, Statx, StatxOut, SxTime,
};
use super::settings::Settings;
use crate::fs::{self, Entry, ROOT, Space};

/// STATX_BASIC_STATS and STATX_BTIME of linux/stat.h.
const STATX_BASIC: u32 = 0x7ff;
const STATX_BTIME: u32 = 0x800;

fn attr(attr: &Attr, flags: AttrFlags) -> abi::Attr {
    abi::Attr {
        ino: attr.id.ino,
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.sec.cast_unsigned(),
        mtime: attr.mtime.sec.cast_unsigned(),
        ctime: attr.ctime.sec.cast_unsigned(),
        atimensec: attr.atime.nsec,
        mtimensec: attr.mtime.nsec,
        ctimensec: attr.ctime.nsec,
        mode: attr.mode,
        nlink: attr.nlink,
        uid: attr.uid.0,
        gid: attr.gid.0,
        rdev: attr.rdev.encode(),
        blksize: attr.blksize,
        flags,
    }
}

/// The answer to GETATTR and SETATTR.
pub(super) fn attr_out(settings: &Settings, of: &Attr) -> AttrOut {
    AttrOut {
        attr_valid: settings.attr_timeout.as_secs(),
        attr_valid_nsec: settings.attr_timeout.subsec_nanos(),
        dummy: 0,
        attr: attr(of, AttrFlags::empty()),
    }
}

/// The answer to LOOKUP and to all that makes a node.
pub(super) fn entry_out(settings: &Settings, entry: &Entry) -> EntryOut {
    let submount = settings.announce_submounts && entry.attr.mount_root && entry.node != ROOT;
    let flags = if submount { AttrFlags::SUBMOUNT } else { AttrFlags::empty() };
    EntryOut {
        nodeid: entry.node.0,
        generation: 0,
        entry_valid: settings.entry_timeout.as_secs(),
        entry_valid_nsec: settings.entry_timeout.subsec_nanos(),
        attr_valid: settings.attr_timeout.as_secs(),
        attr_valid_nsec: settings.attr_timeout.subsec_nanos(),
        attr: attr(&entry.attr, flags),
    }
}

/// The answer to LOOKUP of a name that is not there, to be remembered.
pub(super) fn negative(timeout: Duration) -> EntryOut {
    EntryOut { entry_valid: timeout.as_secs(), entry_valid_nsec: timeout.subsec_nanos(), ..EntryOut::default() }
}

/// The answer to STATX.
pub(super) fn statx_out(settings: &Settings, of: &Attr) -> StatxOut {
    let stamp = |time: Time| SxTime { sec: time.sec, nsec: time.nsec, reserved: 0 };
    let stat = Statx {
        mask: STATX_BASIC | if of.btime.is_some() { STATX_BTIME } else { 0 },
        blksize: of.blksize,
        nlink: of.nlink,
        uid: of.uid.0,
        gid: of.gid.0,
        mode: u16::try_from(of.mode).unwrap_or_default(),
        ino: of.id.ino,
        size: of.size,
        blocks: of.blocks,
        atime: stamp(of.atime),
        btime: stamp(of.btime.unwrap_or_default()),
        ctime: stamp(of.ctime),
        mtime: stamp(of.mtime),
        rdev_major: of.rdev.major,
        rdev_minor: of.rdev.minor,
        dev_major: of.id.dev.major,
        dev_minor: of.id.dev.minor,
        ..Statx::default()
    };
    StatxOut {
        attr_valid: settings.attr_timeout.as_secs(),
        attr_valid_nsec: settings.attr_timeout.subsec_nanos(),
        stat,
        ..StatxOut::default()
    }
}

/// The answer to STATFS.
pub(super) fn statfs_out(space: &Space) -> StatfsOut {
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    StatfsOut {
        blocks: space.blocks,
        bfree: space.bfree,
        bavail: space.bavail,
        files: space.files,
        ffree: space.ffree,
        bsize: small(space.bsize),
        namelen: small(space.namelen),
        frsize: small(space.frsize),
        ..StatfsOut::default()
    }
}

/// What SETATTR asks for.
///
/// # Errors
/// EINVAL for a time with too many nanoseconds.
pub(super) fn changes(asked: &SetattrIn) -> Result<Changes> {
    let has = |flag| asked.valid.contains(flag);
    let time = |set, now, sec: u64, nsec| match (has(set), has(now)) {
        (false, _) => Ok(TimeChange::Keep),
        (true, true) => Ok(TimeChange::Now),
        (true, false) if nsec < 1_000_000_000 => Ok(TimeChange::At(Time { sec: sec.cast_signed(), nsec })),
        (true, false) => Err(Errno::EINVAL),
    };
    Ok(Changes {
        uid: has(SetattrValid::UID).then_some(GuestUid(asked.uid)),
        gid: has(SetattrValid::GID).then_some(GuestGid(asked.gid)),
        mode: has(SetattrValid::MODE).then(|| Mode::new(asked.mode)),
        size: has(SetattrValid::SIZE).then_some(asked.size),
        atime: time(SetattrValid::ATIME, SetattrValid::ATIME_NOW, asked.atime, asked.atimensec)?,
        mtime: time(SetattrValid::MTIME, SetattrValid::MTIME_NOW, asked.mtime, asked.mtimensec)?,
        kill_setid: has(SetattrValid::KILL_SUIDGID),
    })
}

/// open(2) flags of the guest, which are the host's on every architecture served, as ours.
///
/// # Errors
/// EINVAL for an access mode that is none.
pub(super) fn open_flags(settings: &Settings, raw: u32, more: OpenInFlags) -> Result<OpenFlags> {
    let mut flags = fs::open_flags(raw)?;
    if settings.writeback {
        // A guest that collects writes reads the rest of a page first, and knows the end of the file itself.
        flags |= OpenFlags::READ;
        flags.remove(OpenFlags::APPEND);
    }
    flags.set(OpenFlags::DIRECT, flags.contains(OpenFlags::DIRECT) && settings.allow_direct_io);
    flags.set(OpenFlags::NOATIME, flags.contains(OpenFlags::NOATIME) && settings.preserve_noatime);
    flags.set(OpenFlags::KILL_SETID, more.contains(OpenInFlags::KILL_SUIDGID));
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_io_and_noatime_reach_the_host_only_when_allowed() {
        let raw = (libc::O_DIRECT | libc::O_NOATIME).cast_unsigned();
        let flags = open_flags(&Settings::default(), raw, OpenInFlags::empty()).unwrap();
        assert_eq!(flags, OpenFlags::READ);
    }
}
