//! Attributes.

use libc::{S_IFMT, S_IFREG, S_ISGID, S_ISUID, S_IXGRP};
use postern_server::fuse::abi::{
    Attr, AttrFlags, AttrOut, GetattrFlags, GetattrIn, SetattrIn, SetattrValid, StatfsOut, Statx, StatxOut, SxTime,
};
use postern_server::p9::message::{Rgetattr, Rsetattr, Rstatfs, Tsetattr, Tstatfs};

use super::{Call, reply};
use crate::fuse::Result;

/// What Tsetattr changes. linux/net/9p/9p.h: P9_ATTR_*
const VALID: &[(SetattrValid, u32)] = &[
    (SetattrValid::MODE, 1),
    (SetattrValid::UID, 1 << 1),
    (SetattrValid::GID, 1 << 2),
    (SetattrValid::SIZE, 1 << 3),
    (SetattrValid::ATIME, 1 << 4),
    (SetattrValid::MTIME, 1 << 5),
    (SetattrValid::CTIME, 1 << 6),
];
/// The time is said, not the server's now.
const EXACT: &[(SetattrValid, SetattrValid, u32)] =
    &[(SetattrValid::ATIME, SetattrValid::ATIME_NOW, 1 << 7), (SetattrValid::MTIME, SetattrValid::MTIME_NOW, 1 << 8)];

impl Call<'_> {
    pub(super) fn getattr(&self) -> Result<Vec<u8>> {
        let (arg, _) = self.request.parse::<GetattrIn>();
        let fid = if arg.getattr_flags.contains(GetattrFlags::FH) { fid(arg.fh) } else { self.fid()? };
        self.told(fid)
    }

    pub(super) fn statx(&self) -> Result<Vec<u8>> {
        reply(&StatxOut { stat: statx(&self.client.getattr(self.fid()?)?), ..Default::default() })
    }

    /// What is changed by an open file is changed by its fid.
    pub(super) fn setattr(&self) -> Result<Vec<u8>> {
        let (mut arg, _) = self.request.parse::<SetattrIn>();
        let fid = if arg.valid.contains(SetattrValid::FH) { fid(arg.fh) } else { self.fid()? };
        if arg.valid.contains(SetattrValid::KILL_SUIDGID)
            && let Some(mode) = without_setid(self.client.getattr(fid)?.mode)
        {
            (arg.valid, arg.mode) = (arg.valid | SetattrValid::MODE, mode);
        }
        self.change(fid, &arg)?;
        self.told(fid)
    }

    pub(super) fn change(&self, fid: u32, arg: &SetattrIn) -> Result<()> {
        let has = |flag| arg.valid.contains(flag);
        let plain = VALID.iter().filter(|row| has(row.0)).map(|row| row.1);
        let exact = EXACT.iter().filter(|row| has(row.0) && !has(row.1)).map(|row| row.2);
        let message = Tsetattr {
            fid,
            valid: plain.chain(exact).sum(),
            mode: arg.mode,
            uid: arg.uid,
            gid: arg.gid,
            size: arg.size,
            atime_sec: arg.atime,
            atime_nsec: arg.atimensec.into(),
            mtime_sec: arg.mtime,
            mtime_nsec: arg.mtimensec.into(),
        };
        self.client.call::<_, Rsetattr>(&message).map(drop)
    }

    /// What the kernel does before someone who may not keep set-id bits and file capabilities writes.
    pub(super) fn take_privileges(&self, fid: u32) -> Result<()> {
        if let Some(mode) = without_setid(self.client.getattr(fid)?.mode) {
            self.change(fid, &SetattrIn { valid: SetattrValid::MODE, mode, ..Default::default() })?;
        }
        match self.remove("security.capability".as_bytes()) {
            Err(nix::errno::Errno::ENODATA) => Ok(()),
            removed => removed,
        }
    }

    pub(super) fn statfs(&self) -> Result<Vec<u8>> {
        let space: Rstatfs = self.client.call(&Tstatfs { fid: self.fid()? })?;
        let Rstatfs { blocks, bfree, bavail, files, ffree, bsize, namelen, .. } = space;
        reply(&StatfsOut { blocks, bfree, bavail, files, ffree, bsize, namelen, frsize: bsize, ..Default::default() })
    }

    fn told(&self, fid: u32) -> Result<Vec<u8>> {
        reply(&AttrOut { attr: attr(&self.client.getattr(fid)?), ..Default::default() })
    }
}

/// The fid of an open file.
pub(super) fn fid(fh: u64) -> u32 {
    fh.try_into().expect("a fid")
}

/// The mode of a file without its set-id bits, if it has any: set-group-id without execution is no set-id bit.
fn without_setid(mode: u32) -> Option<u32> {
    let sgid = if mode & S_IXGRP != 0 { S_ISGID } else { 0 };
    let bits = mode & (S_ISUID | sgid);
    (mode & S_IFMT == S_IFREG && bits != 0).then_some(mode & 0o7777 & !bits)
}

/// As stat(2) shows it.
pub(super) fn attr(from: &Rgetattr) -> Attr {
    Attr {
        ino: from.qid.path,
        size: from.size,
        blocks: from.blocks,
        atime: from.atime_sec,
        mtime: from.mtime_sec,
        ctime: from.ctime_sec,
        atimensec: small(from.atime_nsec),
        mtimensec: small(from.mtime_nsec),
        ctimensec: small(from.ctime_nsec),
        mode: from.mode,
        nlink: small(from.nlink),
        uid: from.uid,
        gid: from.gid,
        rdev: small(from.rdev),
        blksize: small(from.blksize),
        flags: AttrFlags::empty(),
    }
}

/// As statx(2) shows it. linux/net/9p/9p.h: the bits of `valid` up to P9_STATS_BTIME are those of STATX_*
fn statx(from: &Rgetattr) -> Statx {
    let time = |sec: u64, nsec| SxTime { sec: sec.cast_signed(), nsec: small(nsec), reserved: 0 };
    Statx {
        mask: small(from.valid),
        blksize: small(from.blksize),
        nlink: small(from.nlink),
        uid: from.uid,
        gid: from.gid,
        mode: from.mode.try_into().expect("16 bits"),
        ino: from.qid.path,
        size: from.size,
        blocks: from.blocks,
        atime: time(from.atime_sec, from.atime_nsec),
        btime: time(from.btime_sec, from.btime_nsec),
        ctime: time(from.ctime_sec, from.ctime_nsec),
        mtime: time(from.mtime_sec, from.mtime_nsec),
        ..Default::default()
    }
}

fn small(number: u64) -> u32 {
    number.try_into().expect("32 bits")
}
