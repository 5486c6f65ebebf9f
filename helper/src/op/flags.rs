//! What chattr(1) and project quotas use, and writing a file system to disk. These need an open file: regular files
//! and directories have them, ENOTTY for all else.

use std::os::fd::OwnedFd;

use nix::libc;
use postern_ipc::id::Caller;
use postern_ipc::op::{Answer, Fsx, GetFlags, GetFsx, GetVersion, SetFlags, SetFsx, SyncFs};
use postern_ipc::{Errno, Result};
use postern_policy::right::Right;
use postern_policy::sandbox::seccomp::Call;
use rustix::fs::{IFlags, OFlags, ioctl_getflags, ioctl_setflags, syncfs};

use crate::pin::Pin;
use crate::serve::Serve;
use crate::share::{self, Share};
use crate::sys::{self, FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR, FS_IOC_GETVERSION, FsXattr};

/// `_IOR('f', 1, long)` and `_IOW('f', 2, long)` of linux/fs.h.
const FS_IOC_GETFLAGS: u32 = 0x8008_6601;
const FS_IOC_SETFLAGS: u32 = 0x4008_6602;

/// linux/fs.h: what is made in a directory is of its project.
const FS_XFLAG_PROJINHERIT: u32 = 0x200;

const fn ioctl(number: u32, why: &'static str) -> Call {
    Call::at(libc::SYS_ioctl, why).eq(1, number)
}

const OPEN: &[Call] = &[share::READ, share::BLOCKING, share::WAIT];

fn open(node: &Pin, share: &Share) -> Result<OwnedFd> {
    if !node.is_dir() {
        node.require_file().map_err(|_| Errno::ENOTTY)?;
    }
    share.open(node, OFlags::RDONLY)
}

/// EINVAL for a file of another project than it is of: the kernel says so to root of a user namespace only, and lets
/// the owner in the initial one.
fn require_project(changes: bool) -> Result<()> {
    if changes { Err(Errno::EINVAL) } else { Ok(()) }
}

impl Serve for GetFlags {
    const NEEDS: Right = Right::Read;
    const CALLS: &'static [&'static [Call]] = &[&[ioctl(FS_IOC_GETFLAGS, "reads inode flags")], OPEN];

    fn serve(self, [node]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        Ok((ioctl_getflags(open(node, share)?)?.bits(), [], vec![]))
    }
}

impl Serve for SetFlags {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] = &[
        &[
            ioctl(FS_IOC_SETFLAGS, "sets inode flags"),
            ioctl(FS_IOC_GETFLAGS, "looks whether a project's is to change"),
            share::STAT,
        ],
        OPEN,
    ];

    fn serve(self, [node]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        let file = open(node, share)?;
        let flags = IFlags::from_bits_retain(self.flags);
        if share.translation.map().is_some() {
            let now = ioctl_getflags(&file)?;
            require_project((flags ^ now).intersects(IFlags::PROJECT_INHERIT))?;
        }
        share.owning(&file, || Ok(ioctl_setflags(&file, flags)?))?;
        Ok(((), [], vec![]))
    }
}

impl Serve for GetFsx {
    const NEEDS: Right = Right::Read;
    const CALLS: &'static [&'static [Call]] = &[&[ioctl(FS_IOC_FSGETXATTR, "reads the project")], OPEN];

    fn serve(self, [node]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        let FsXattr { xflags, extsize, nextents, projid, cowextsize, .. } = sys::get_fsx(open(node, share)?)?;
        Ok((Fsx { xflags, extsize, nextents, projid, cowextsize }, [], vec![]))
    }
}

impl Serve for SetFsx {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] = &[
        &[
            ioctl(FS_IOC_FSSETXATTR, "sets inode flags and hints"),
            ioctl(FS_IOC_FSGETXATTR, "looks whether the project is to change"),
            share::STAT,
        ],
        OPEN,
    ];

    fn serve(self, [node]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        let file = open(node, share)?;
        let fsx = FsXattr::new(self.fsx);
        if share.translation.map().is_some() {
            let now = sys::get_fsx(&file)?;
            require_project(fsx.projid != now.projid || (fsx.xflags ^ now.xflags) & FS_XFLAG_PROJINHERIT != 0)?;
        }
        share.owning(&file, || sys::set_fsx(&file, fsx))?;
        Ok(((), [], vec![]))
    }
}

impl Serve for GetVersion {
    const NEEDS: Right = Right::Read;
    const CALLS: &'static [&'static [Call]] = &[&[ioctl(FS_IOC_GETVERSION, "reads the generation")], OPEN];

    fn serve(self, [node]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        Ok((sys::get_version(open(node, share)?)?, [], vec![]))
    }
}

impl Serve for SyncFs {
    const NEEDS: Right = Right::Read;
    const CALLS: &'static [&'static [Call]] = &[&[Call::any(libc::SYS_syncfs, "writes the file system to disk")], OPEN];

    fn serve(self, [node]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        syncfs(open(node, share)?)?;
        Ok(((), [], vec![]))
    }
}
