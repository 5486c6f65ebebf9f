//! Making nodes. What is made is the caller's, whatever the helper is.

use std::os::fd::OwnedFd;

use nix::libc;
use postern_ipc::attr::{Attr, Mode, NodeKind, OpenFlags};
use postern_ipc::id::Caller;
use postern_ipc::op::{Answer, Create, Link, Mkdir, Mknod, Symlink, TmpFile};
use postern_ipc::{Errno, Result};
use postern_policy::right::Right;
use postern_policy::sandbox::seccomp::Call;
use rustix::fs::{AtFlags, Dev, FileType, OFlags, linkat, makedev, mkdirat, mknodat, symlinkat};

use crate::caller;
use crate::op::{keep, open};
use crate::pin::{Disbelief, Pin};
use crate::serve::Serve;
use crate::share::{self, Share};

/// How often a name that comes and goes is tried.
const TRIES: u32 = 8;

fn bits(mode: Mode) -> rustix::fs::Mode {
    rustix::fs::Mode::from_raw_mode(mode.bits())
}

impl Serve for Create {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] = &[
        &[share::CREATE, share::BLOCKING, share::PIN_NAME, share::WRITE, share::READ, share::WAIT, share::STAT],
        caller::CALLS,
        keep::CALLS,
    ];

    fn serve(self, [dir]: [Pin; 1], _: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd> {
        share.guard.file_mode(self.mode)?;
        let how = open::how(self.flags)? | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let make = || share.make(&dir, self.name.as_c_str(), how, bits(self.mode));
        for _ in 0..TRIES {
            match caller::run(caller, self.umask, make) {
                Err(Errno::EEXIST) if !self.flags.contains(OpenFlags::EXCL) => {}
                made => {
                    let file = made?;
                    return Ok((Attr::of(&file)?, [file], vec![]));
                }
            }
            match open_existing(&self, &dir, share) {
                Err(Errno::ENOENT) => {}
                opened => {
                    let file = opened?;
                    return Ok((Attr::of(&file)?, [file], vec![]));
                }
            }
        }
        Err(Errno::ENOENT)
    }
}

/// What is there is judged by O_PATH before it is opened: a pipe or a device never is.
fn open_existing(op: &Create, dir: &Pin, share: &Share) -> Result<OwnedFd> {
    let node = Pin::prove(share.pin_name(dir, &op.name)?, share).map_err(|why| match why {
        Disbelief::Errno(errno) => errno,
        Disbelief::Malformed(_) => Errno::EXDEV,
    })?;
    open::file(&node, op.flags.difference(OpenFlags::EXCL), share)
}

impl Serve for TmpFile {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] =
        &[&[share::TMPFILE, share::BLOCKING, share::PIN_AGAIN, share::STAT], caller::CALLS];

    fn serve(self, [dir]: [Pin; 1], _: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd> {
        share.guard.file_mode(self.mode)?;
        if !self.flags.contains(OpenFlags::WRITE) {
            return Err(Errno::EINVAL);
        }
        let linkable = if self.flags.contains(OpenFlags::EXCL) { OFlags::EXCL } else { OFlags::empty() };
        let how = open::how(self.flags)? | OFlags::TMPFILE | linkable;
        let file = caller::run(caller, self.umask, || share.make(&dir, c".", how, bits(self.mode)))?;
        let node = share.pin_again(&file)?;
        Ok((Attr::of(&node)?, [node, file], vec![]))
    }
}

impl Serve for Mkdir {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] =
        &[&[Call::at(libc::SYS_mkdirat, "makes a directory"), share::STAT], caller::CALLS];

    fn serve(self, [dir]: [Pin; 1], _: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd> {
        caller::run(caller, self.umask, || Ok(mkdirat(&dir, self.name.as_c_str(), bits(self.mode))?))?;
        Ok((share.entry(&dir, &self.name)?, [], vec![]))
    }
}

impl Serve for Mknod {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] = &[
        &[Call::at(libc::SYS_mknodat, "makes a pipe, a socket's name, a device or a file"), share::STAT],
        caller::CALLS,
    ];

    fn serve(self, [dir]: [Pin; 1], _: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd> {
        share.guard.node(self.kind)?;
        share.guard.file_mode(self.mode)?;
        let (kind, dev) = node(self.kind);
        let make = || Ok(mknodat(&dir, self.name.as_c_str(), kind, bits(self.mode), dev)?);
        caller::run(caller, self.umask, make)?;
        Ok((share.entry(&dir, &self.name)?, [], vec![]))
    }
}

fn node(kind: NodeKind) -> (FileType, Dev) {
    match kind {
        NodeKind::File => (FileType::RegularFile, 0),
        NodeKind::Fifo => (FileType::Fifo, 0),
        NodeKind::Socket => (FileType::Socket, 0),
        NodeKind::Char(dev) => (FileType::CharacterDevice, makedev(dev.major, dev.minor)),
        NodeKind::Block(dev) => (FileType::BlockDevice, makedev(dev.major, dev.minor)),
    }
}

impl Serve for Symlink {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] =
        &[&[Call::any(libc::SYS_symlinkat, "makes a symbolic link").descriptor(1), share::STAT], caller::CALLS];

    fn serve(self, [dir]: [Pin; 1], _: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd> {
        let make = || Ok(symlinkat(self.target.as_c_str(), &dir, self.name.as_c_str())?);
        caller::run(caller, Mode::new(0), make)?;
        Ok((share.entry(&dir, &self.name)?, [], vec![]))
    }
}

impl Serve for Link {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] =
        &[&[Call::at(libc::SYS_linkat, "gives a node another name, through its number").descriptor(2), share::STAT]];

    /// By number: AT_EMPTY_PATH is refused in a user namespace.
    fn serve(self, [node, dir]: [Pin; 2], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        let (number, name) = (Share::number(&node), self.name.as_c_str());
        linkat(&share.numbers, number, &dir, name, AtFlags::SYMLINK_FOLLOW)?;
        Ok((Attr::of(&node)?, [], vec![]))
    }
}
