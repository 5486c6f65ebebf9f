//! Looking: names, attributes, what a symbolic link says.

use std::os::fd::OwnedFd;

use nix::libc;
use postern_ipc::id::Caller;
use postern_ipc::name::{FileName, TARGET_MAX};
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

    fn finds(&self) -> Option<&FileName> {
        Some(&self.name)
    }

    fn serve(self, [dir]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        let node = share.pin_name(dir, &self.name)?;
        Ok((share.attr_at(&node, dir, &self.name)?, [node], vec![]))
    }
}

impl Serve for Stat {
    const NEEDS: Right = Right::Read;
    const CALLS: &'static [&'static [Call]] = &[&[share::STAT]];

    fn serve(self, [node]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        Ok((share.attr(node)?, [], vec![]))
    }
}

impl Serve for Readlink {
    const NEEDS: Right = Right::Read;
    const CALLS: &'static [&'static [Call]] = &[&[Call::any(libc::SYS_readlinkat, "reads a symbolic link")]];

    fn serve(self, [node]: [&Pin; 1], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        let mut target = Vec::with_capacity(TARGET_MAX);
        if node.is_symlink() {
            readlinkat_raw(node, c"", rustix::buffer::spare_capacity(&mut target))?;
        } else {
            share.read_link(node, &mut target)?;
        }
        Ok(((), [], target))
    }
}
