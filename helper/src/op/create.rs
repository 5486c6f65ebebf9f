//! Making nodes. What is made is the caller's, whatever the helper is.

use std::os::fd::OwnedFd;

use nix::libc;
use postern_ipc::attr::{Dev, Mode, NodeKind, OpenFlags};
use postern_ipc::id::Caller;
use postern_ipc::name::FileName;
use postern_ipc::op::{Answer, Create, Link, Mkdir, Mknod, Symlink, TmpFile};
use postern_ipc::{Errno, Result};
use postern_policy::right::Right;
use postern_policy::sandbox::seccomp::Call;
use rustix::fs::{AtFlags, FileType, OFlags, linkat, makedev, mkdirat, mknodat, symlinkat};
use rustix::io::pwrite;

use crate::caller;
use crate::model::{self, Birth};
use crate::op::{keep, open};
use crate::pin::Pin;
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
        &[share::CREATE, share::BLOCKING, share::PIN_NAME, share::PIN_AGAIN],
        &[share::WRITE, share::READ, share::WAIT, share::STAT],
        caller::CALLS,
        keep::CALLS,
    ];

    fn makes(&self) -> Option<&FileName> {
        Some(&self.name)
    }

    fn serve(self, [dir]: [&Pin; 1], _: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd> {
        share.permit_mode(self.mode)?;
        let birth = Birth::of(share, dir, caller, (libc::S_IFREG, None), self.mode, self.umask)?;
        let how = open::how(self.flags)? | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        for _ in 0..TRIES {
            match birth.run(share, dir, || share.make(dir, self.name.as_c_str(), how, bits(birth.mode))) {
                Err(Errno::EEXIST) if !self.flags.contains(OpenFlags::EXCL) => {}
                made => {
                    let file = made?;
                    birth.keep(share, &file, dir, &self.name)?;
                    let node = share.pin_again(&file)?;
                    return Ok((share.attr_at(&node, dir, &self.name)?, [node, file], vec![]));
                }
            }
            match open_existing(&self, dir, share) {
                Err(Errno::ENOENT) => {}
                opened => {
                    let (node, file) = opened?;
                    return Ok((share.attr_at(&node, dir, &self.name)?, [node, file], vec![]));
                }
            }
        }
        Err(Errno::ENOENT)
    }
}

/// What is there is judged by O_PATH before it is opened: a pipe or a device never is.
fn open_existing(op: &Create, dir: &Pin, share: &Share) -> Result<(OwnedFd, OwnedFd)> {
    let node = Pin::of_name(dir, &op.name, share)?;
    let file = open::file(&node, op.flags.difference(OpenFlags::EXCL), share)?;
    Ok((node.into(), file))
}

impl Serve for TmpFile {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] =
        &[&[share::TMPFILE, share::BLOCKING, share::PIN_AGAIN, share::STAT], caller::CALLS];

    fn serve(self, [dir]: [&Pin; 1], _: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd> {
        share.permit_mode(self.mode)?;
        if !self.flags.contains(OpenFlags::WRITE) {
            return Err(Errno::EINVAL);
        }
        if share.model.keeps_by_name() && dir.is_dir() {
            return Err(Errno::EOPNOTSUPP);
        }
        let birth = Birth::of(share, dir, caller, (libc::S_IFREG, None), self.mode, self.umask)?;
        let linkable = if self.flags.contains(OpenFlags::EXCL) { OFlags::EXCL } else { OFlags::empty() };
        let how = open::how(self.flags)? | OFlags::TMPFILE | linkable;
        let file = birth.run(share, dir, || share.make(dir, c".", how, bits(birth.mode)))?;
        birth.keep_nameless(share, &file)?;
        let node = share.pin_again(&file)?;
        Ok((share.attr(&node)?, [node, file], vec![]))
    }
}

impl Serve for Mkdir {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] =
        &[&[Call::any(libc::SYS_mkdirat, "makes a directory"), share::STAT], caller::CALLS];

    fn makes(&self) -> Option<&FileName> {
        Some(&self.name)
    }

    fn serve(self, [dir]: [&Pin; 1], _: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd> {
        let birth = Birth::of(share, dir, caller, (libc::S_IFDIR, None), self.mode, self.umask)?;
        birth.run(share, dir, || Ok(mkdirat(dir, self.name.as_c_str(), bits(birth.mode))?))?;
        Ok((birth.named(share, dir, &self.name)?, [], vec![]))
    }
}

impl Serve for Mknod {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] = &[
        &[Call::any(libc::SYS_mknodat, "makes a pipe, a socket's name, a device or a file"), share::STAT],
        caller::CALLS,
    ];

    fn makes(&self) -> Option<&FileName> {
        Some(&self.name)
    }

    fn serve(self, [dir]: [&Pin; 1], _: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd> {
        share.guard.kinds.permit(self.kind)?;
        share.permit_mode(self.mode)?;
        let (kind, dev) = node(self.kind);
        let birth = Birth::of(share, dir, caller, (kind.as_raw_mode(), Some(dev)), self.mode, self.umask)?;
        let (kind, dev) = if share.model.is_mapped() {
            (FileType::RegularFile, 0)
        } else {
            share.guard.node(self.kind)?;
            (kind, makedev(dev.major, dev.minor))
        };
        birth.run(share, dir, || Ok(mknodat(dir, self.name.as_c_str(), kind, bits(birth.mode), dev)?))?;
        Ok((birth.named(share, dir, &self.name)?, [], vec![]))
    }
}

fn node(kind: NodeKind) -> (FileType, Dev) {
    match kind {
        NodeKind::File => (FileType::RegularFile, Dev::default()),
        NodeKind::Fifo => (FileType::Fifo, Dev::default()),
        NodeKind::Socket => (FileType::Socket, Dev::default()),
        NodeKind::Char(dev) => (FileType::CharacterDevice, dev),
        NodeKind::Block(dev) => (FileType::BlockDevice, dev),
    }
}

impl Serve for Symlink {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] =
        &[&[Call::any(libc::SYS_symlinkat, "makes a symbolic link"), share::STAT], caller::CALLS];

    fn makes(&self) -> Option<&FileName> {
        Some(&self.name)
    }

    fn serve(self, [dir]: [&Pin; 1], _: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd> {
        let birth = Birth::of(share, dir, caller, (libc::S_IFLNK, None), Mode::new(0o777), Mode::new(0))?;
        if birth.is_kept() {
            let how = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let file = birth.run(share, dir, || share.make(dir, self.name.as_c_str(), how, bits(birth.mode)))?;
            birth.keep(share, &file, dir, &self.name)?;
            let target = self.target.as_c_str().to_bytes();
            if pwrite(&file, target, 0).map_err(Errno::from) != Ok(target.len()) {
                model::unlink(share, dir, &self.name)?;
                return Err(Errno::ENOSPC);
            }
        } else {
            birth.run(share, dir, || Ok(symlinkat(self.target.as_c_str(), dir, self.name.as_c_str())?))?;
        }
        Ok((share.entry(dir, &self.name)?, [], vec![]))
    }
}

impl Serve for Link {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] =
        &[&[Call::any(libc::SYS_linkat, "gives a node another name, through its number"), share::STAT]];

    fn makes(&self) -> Option<&FileName> {
        Some(&self.name)
    }

    /// By number: AT_EMPTY_PATH is refused in a user namespace.
    fn serve(self, [node, dir]: [&Pin; 2], _: &[u8], share: &Share, _: Caller) -> Answer<Self, OwnedFd> {
        let (number, name) = (Share::number(node), self.name.as_c_str());
        let link = || Ok(linkat(&share.numbers, number.as_c_str(), dir, name, AtFlags::SYMLINK_FOLLOW)?);
        model::link(share, node, (dir, &self.name), || share.linking(node, dir, link))?;
        Ok((share.attr_at(node, dir, &self.name)?, [], vec![]))
    }
}
