//! Changing content and keeping set-id bits, or taking them away, as the guest's kernel has judged.
//!
//! A write by root keeps them, by anybody else takes them away. The kernel counts only the host's root as root here
//! (`capable(CAP_FSETID)`), so in a user namespace the bits are put back after the change.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use nix::libc;
use postern_ipc::attr::{Attr, OpenFlags};
use postern_ipc::id::Caller;
use postern_ipc::op::{Answer, CopyRange, Fallocate, Write};
use postern_ipc::{Errno, Result};
use postern_policy::right::Right;
use postern_policy::sandbox::seccomp::Call;
use rustix::fs::{FallocateFlags, Mode, OFlags, copy_file_range, fallocate, fchmod, ftruncate, removexattr};

use crate::caller::{for_the_share, keeps_setid, without_fsetid};
use crate::guard::SETID;
use crate::pin::Pin;
use crate::serve::Serve;
use crate::share::{self, Share};

/// What [`setid`], [`disarm`], [`capability`] and [`truncate`] call.
pub(crate) const CALLS: &[Call] = &[
    Call::any(libc::SYS_ftruncate, "cuts a file"),
    Call::any(libc::SYS_fchmod, "puts set-id bits back"),
    Call::any(libc::SYS_removexattr, "takes file capabilities away"),
    share::STAT,
    share::WRITE,
    share::BLOCKING,
    share::WAIT,
];

/// Most bytes that one request copies; the guest asks again for the rest.
const COPY_MAX: u64 = 64 << 20;

/// Does `act`, which changes what is in `file`. Set-id bits go if they are to be killed, or may not be planted in this
/// share, or the helper has no say in it; else they stay. File capabilities always go.
pub(crate) fn setid<T>(file: &OwnedFd, kill: bool, share: &Share, act: impl FnOnce() -> Result<T>) -> Result<T> {
    capability(file, share)?;
    let before = Attr::of(file)?;
    if !before.has_setid() {
        return act();
    }
    if kill || !share.guard.setid || !keeps_setid() {
        return without_fsetid(act);
    }
    let done = act();
    if Attr::of(file)?.mode != before.mode {
        share.owning(file, || Ok(fchmod(file, Mode::from_raw_mode(before.mode & 0o7777))?))?;
    }
    done
}

/// Takes set-id bits and file capabilities from a file that is to be given to the server for writing, where they may
/// not be planted: what is written to a mapping of it no kernel counts as a write.
pub(crate) fn disarm(node: &Pin, file: &OwnedFd, share: &Share) -> Result<()> {
    if share.guard.setid {
        return Ok(());
    }
    for_the_share(|| {
        let now = Attr::of(file)?;
        if now.has_setid() {
            share.owning(file, || Ok(fchmod(file, Mode::from_raw_mode(now.mode & 0o7777 & !SETID))?))?;
        }
        remove(node, c"security.capability", share)
    })
}

/// Takes file capabilities away that the host's kernel does not know for what they are: a file with a new content or
/// owner is not what they were given to. capabilities(7)
pub(crate) fn capability(node: impl AsFd, share: &Share) -> Result<()> {
    let Some(name) = &share.names.kept_capability else { return Ok(()) };
    for_the_share(|| remove(node, name.as_c_str(), share))
}

fn remove(node: impl AsFd, name: &CStr, share: &Share) -> Result<()> {
    let remove = || Ok(removexattr(Share::number(&node), name)?);
    match share.changing(&node, name.to_bytes(), remove) {
        Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Cuts an opened file to nothing, as O_TRUNC does.
pub(crate) fn truncate(node: &Pin, flags: OpenFlags, file: &OwnedFd, share: &Share) -> Result<()> {
    let kill = flags.contains(OpenFlags::KILL_SETID);
    if kill {
        share.kill_setid(node)?;
    }
    if flags.contains(OpenFlags::WRITE) {
        return setid(file, kill, share, || Ok(ftruncate(file, 0)?));
    }
    let writable = share.open(node, OFlags::WRONLY)?;
    setid(&writable, kill, share, || Ok(ftruncate(&writable, 0)?))
}

fn writable(node: &Pin, share: &Share) -> Result<OwnedFd> {
    share.require_file(node)?;
    share.open(node, OFlags::WRONLY)
}

impl Serve for Write {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] = &[&[Call::any(libc::SYS_pwrite64, "writes")], CALLS];

    fn serve(self, [node]: [&Pin; 1], data: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        let file = writable(node, share)?;
        let written = setid(&file, false, share, || Ok(rustix::io::pwrite(&file, data, self.offset)?))?;
        Ok((u32::try_from(written).map_err(|_| Errno::EIO)?, [], vec![]))
    }
}

impl Serve for Fallocate {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] = &[&[Call::any(libc::SYS_fallocate, "allocates or punches")], CALLS];

    fn serve(self, [node]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        let file = writable(node, share)?;
        let mode = FallocateFlags::from_bits_retain(self.mode);
        setid(&file, false, share, || Ok(fallocate(&file, mode, self.offset, self.length)?))?;
        Ok(((), [], vec![]))
    }
}

impl Serve for CopyRange {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] = &[&[Call::any(libc::SYS_copy_file_range, "copies"), share::READ], CALLS];

    fn serve(self, [from, to]: [&Pin; 2], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        share.require_file(from)?;
        let (from, to) = (share.open(from, OFlags::RDONLY)?, writable(to, share)?);
        let length = usize::try_from(self.length.min(COPY_MAX)).map_err(|_| Errno::EINVAL)?;
        let (mut from_offset, mut to_offset) = (self.from_offset, self.to_offset);
        let copy = || Ok(copy_file_range(&from, Some(&mut from_offset), &to, Some(&mut to_offset), length)?);
        let copied = setid(&to, false, share, copy)?;
        Ok((u64::try_from(copied).map_err(|_| Errno::EIO)?, [], vec![]))
    }
}
