//! Looking: names, attributes, what a symbolic link says.

use std::os::fd::OwnedFd;

use nix::libc;
use postern_ipc::Errno;
use postern_ipc::attr::Attr;
use postern_ipc::id::Caller;
use postern_ipc::name::TARGET_MAX;
use postern_ipc::op::{Answer, Lookup, Readlink, Stat};
use postern_policy::right::Right;
use postern_policy::sandbox::seccomp::Call;
use rustix::fs::readlinkat_raw;

use crate::pin::Pin;
use crate::serve::Serve;
use crate::share::{self, Share};

impl Serve for Lookup {
    const NEEDS: Right = Right::Read;
    const CALLS: &'static [&'static [Call]] = &[&[share::PIN_NAME, share::STAT]];

    fn serve(self, [dir]: [Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        let node = share.pin_name(&dir, &self.name)?;
        Ok((Attr::of(&node)?, [node], vec![]))
    }
}

impl Serve for Stat {
    const NEEDS: Right = Right::Read;
    const CALLS: &'static [&'static [Call]] = &[&[share::STAT]];

    fn serve(self, [node]: [Pin; 1], _: &[u8], _: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        Ok((Attr::of(&node)?, [], vec![]))
    }
}

impl Serve for Readlink {
    const NEEDS: Right = Right::Read;
    const CALLS: &'static [&'static [Call]] = &[&[Call::any(libc::SYS_readlinkat, "reads a symbolic link")]];

    fn serve(self, [node]: [Pin; 1], _: &[u8], _: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        if !node.is_symlink() {
            return Err(Errno::EINVAL);
        }
        let mut target = Vec::with_capacity(TARGET_MAX);
        readlinkat_raw(&node, c"", rustix::buffer::spare_capacity(&mut target))?;
        Ok(((), [], target))
    }
}
