//! Removing and moving names.

use std::os::fd::OwnedFd;

use nix::libc;
use postern_ipc::attr::{Attr, Dev, NodeKind};
use postern_ipc::id::Caller;
use postern_ipc::name::FileName;
use postern_ipc::op::{Answer, Rename, Rmdir, Unlink};
use postern_ipc::{Errno, Result};
use postern_policy::right::Right;
use postern_policy::sandbox::seccomp::Call;
use rustix::fs::RenameFlags;

use crate::caller::Who;
use crate::model;
use crate::pin::Pin;
use crate::serve::Serve;
use crate::share::{self, Share};

const UNLINK: Call = Call::any(libc::SYS_unlinkat, "removes a name");

/// EBUSY for a mount point. The kernel says so for those of the caller's mount namespace only, and the clone is in
/// none: a mount point would go, and with it, on the host too, what is mounted there.
fn stays(share: &Share, dir: &Pin, name: &FileName) -> Result<()> {
    let look = || share.through(dir, || Attr::of_entry(dir, name));
    let mounted = share.mounts.all.len() > 1 && look().is_ok_and(|attr| attr.mount_root);
    if mounted { Err(Errno::EBUSY) } else { Ok(()) }
}

impl Serve for Unlink {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] = &[&[UNLINK, share::STAT]];
    const UNNAMES: bool = true;

    fn finds(&self) -> Option<&FileName> {
        Some(&self.name)
    }

    fn serve(self, [dir]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        stays(share, dir, &self.name)?;
        model::unlink(share, dir, &self.name)?;
        Ok(((), [], vec![]))
    }
}

impl Serve for Rmdir {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] = &[&[UNLINK, share::STAT]];
    const UNNAMES: bool = true;

    fn finds(&self) -> Option<&FileName> {
        Some(&self.name)
    }

    fn serve(self, [dir]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        stays(share, dir, &self.name)?;
        model::remove_dir(share, dir, &self.name)?;
        Ok(((), [], vec![]))
    }
}

impl Serve for Rename {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] = &[&[Call::any(libc::SYS_renameat2, "moves a name"), share::STAT]];
    const UNNAMES: bool = true;

    fn finds(&self) -> Option<&FileName> {
        Some(&self.name)
    }

    fn makes(&self) -> Option<&FileName> {
        Some(&self.new_name)
    }

    fn serve(self, [dir, new_dir]: [&Pin; 2], _: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd> {
        stays(share, dir, &self.name)?;
        stays(share, new_dir, &self.new_name)?;
        let flags = RenameFlags::from_bits_retain(self.flags.bits());
        if flags.contains(RenameFlags::WHITEOUT) && share.model.is_mapped() {
            // It would be a device node of the host.
            return Err(Errno::EINVAL);
        }
        if flags.contains(RenameFlags::WHITEOUT) {
            share.guard.kinds.permit(NodeKind::Char(Dev::default()))?;
            // What is left behind is made by whoever asks.
            Who::makes(caller, &share.translation)?;
        }
        model::rename(share, (dir, &self.name), (new_dir, &self.new_name), flags)?;
        Ok(((), [], vec![]))
    }
}
