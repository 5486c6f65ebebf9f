//! Changing attributes.

use std::os::fd::OwnedFd;

use nix::libc;
use postern_ipc::attr::{Changes, Mode, TimeChange};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::model::Model;
use postern_ipc::op::{Answer, SetAttr};
use postern_ipc::{Errno, Result};
use postern_policy::right::Right;
use postern_policy::sandbox::seccomp::Call;
use rustix::fs::{AtFlags, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, chownat, ftruncate, utimensat};
use rustix::process::{Gid, Uid};
use rustix::thread::CapabilitySet;

use crate::op::keep;
use crate::pin::Pin;
use crate::serve::Serve;
use crate::share::{self, Share};

/// What chown(2) takes for "leave it", and so no id.
const KEEP: u32 = u32::MAX;

impl Serve for SetAttr {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] = &[
        &[
            Call::any(libc::SYS_fchownat, "changes the owner"),
            Call::any(libc::SYS_utimensat, "changes the times"),
            Call::any(libc::SYS_ftruncate, "changes the size"),
            share::WRITE,
            share::BLOCKING,
            share::WAIT,
            share::STAT,
        ],
        share::CHMOD,
        keep::CALLS,
    ];

    fn serve(self, [node]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        let Changes { uid, gid, mode, size, atime, mtime, kill_setid } = self.changes;
        if uid.is_some() || gid.is_some() || mode.is_some() {
            share.guard.hand(node)?;
        }
        if !share.change(node, &self.changes, |mode| chmod(node, mode, share))? {
            if uid.is_some() || gid.is_some() {
                own(node, uid, gid, share)?;
            }
            if let Some(mode) = mode {
                permit(node, mode, share)?;
            }
        }
        if (uid.is_some() || gid.is_some()) && node.require_file().is_ok() {
            keep::capability(node, share)?;
        }
        if let Some(size) = size {
            resize(node, size, kill_setid, share)?;
        }
        if (atime, mtime) != (TimeChange::Keep, TimeChange::Keep) {
            let times = Timestamps { last_access: time(atime), last_modification: time(mtime) };
            share.owning(node, || Ok(utimensat(node, c"", &times, AtFlags::EMPTY_PATH)?))?;
        }
        Ok((share.attr(node)?, [], vec![]))
    }
}

/// One of the new group may give his file to it: only for a new owner a capability is needed.
fn own(node: &Pin, uid: Option<GuestUid>, gid: Option<GuestGid>, share: &Share) -> Result<()> {
    // An owner that cannot be had is not missed.
    let missed = |errno| match errno {
        Errno::EPERM | Errno::EINVAL if share.model == Model::None => Ok(()),
        errno => Err(errno),
    };
    let kernel = || {
        let uid = uid.map(|uid| share.translation.kernel_uid(uid)).transpose()?.map(|uid| uid.0);
        let gid = gid.map(|gid| share.translation.kernel_gid(gid)).transpose()?.map(|gid| gid.0);
        Ok((uid, gid))
    };
    let (uid, gid) = match kernel() {
        Err(Errno::EOVERFLOW) => return missed(Errno::EINVAL),
        ids => ids?,
    };
    if uid == Some(KEEP) || gid == Some(KEEP) {
        return Err(Errno::EINVAL);
    }
    let needed = if uid.is_some() { CapabilitySet::CHOWN } else { CapabilitySet::empty() };
    let (uid, group) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    share.over_with(node, needed, gid, || Ok(chownat(node, c"", uid, group, AtFlags::EMPTY_PATH)?)).or_else(missed)
}

/// EOPNOTSUPP for a symbolic link, as every kernel from 6.6 on says.
fn permit(node: &Pin, mode: Mode, share: &Share) -> Result<()> {
    if node.is_symlink() {
        return Err(Errno::EOPNOTSUPP);
    }
    if !node.is_dir() {
        share.guard.file_mode(mode)?;
    }
    chmod(node, mode, share)
}

fn chmod(node: &Pin, mode: Mode, share: &Share) -> Result<()> {
    share.chmod(node, rustix::fs::Mode::from_raw_mode(mode.bits()))
}

/// By opening, because truncate(2) would wait for the holder of a lease.
fn resize(node: &Pin, size: u64, kill_setid: bool, share: &Share) -> Result<()> {
    share.require_file(node).map_err(|errno| if errno == Errno::EISDIR { errno } else { Errno::EINVAL })?;
    let file = share.open(node, OFlags::WRONLY)?;
    keep::setid(&file, kill_setid, share, || Ok(ftruncate(&file, size)?))
}

fn time(change: TimeChange) -> Timespec {
    match change {
        TimeChange::Keep => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        TimeChange::Now => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        TimeChange::At(time) => Timespec { tv_sec: time.sec, tv_nsec: i64::from(time.nsec) },
    }
}
