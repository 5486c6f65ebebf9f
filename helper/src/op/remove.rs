//! Removing and moving names.

use std::os::fd::OwnedFd;

use nix::libc;
use postern_ipc::id::Caller;
use postern_ipc::op::{Answer, Rename, Rmdir, Unlink};
use postern_policy::right::Right;
use postern_policy::sandbox::seccomp::Call;
use rustix::fs::{AtFlags, RenameFlags, renameat_with, unlinkat};

use crate::pin::Pin;
use crate::serve::Serve;
use crate::share::Share;

const UNLINK: Call = Call::at(libc::SYS_unlinkat, "removes a name");

impl Serve for Unlink {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] = &[&[UNLINK]];

    fn serve(self, [dir]: [Pin; 1], _: &[u8], _: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        unlinkat(&dir, self.name.as_c_str(), AtFlags::empty())?;
        Ok(((), [], vec![]))
    }
}

impl Serve for Rmdir {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] = &[&[UNLINK]];

    fn serve(self, [dir]: [Pin; 1], _: &[u8], _: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        unlinkat(&dir, self.name.as_c_str(), AtFlags::REMOVEDIR)?;
        Ok(((), [], vec![]))
    }
}

impl Serve for Rename {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] = &[&[Call::at(libc::SYS_renameat2, "moves a name").descriptor(2)]];

    fn serve(self, [dir, new_dir]: [Pin; 2], _: &[u8], _: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        let flags = RenameFlags::from_bits_retain(self.flags.bits());
        renameat_with(&dir, self.name.as_c_str(), &new_dir, self.new_name.as_c_str(), flags)?;
        Ok(((), [], vec![]))
    }
}
