//! A file of a tree in memory.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use postern_ipc::attr::{Attr, Changes, Dev, FileId, Time, TimeChange};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::{Errno, Result};

use crate::fs::NodeId;

/// Most bytes of one file.
pub(super) const FILE_MAX: usize = 1 << 24;

pub(super) struct Inode {
    pub(super) attr: Attr,
    pub(super) lookups: u64,
    pub(super) opens: u64,
    pub(super) body: Body,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

pub(super) enum Body {
    Dir { parent: NodeId, names: BTreeMap<Vec<u8>, NodeId> },
    File(Vec<u8>),
    Link(Vec<u8>),
    Special,
}

impl Inode {
    pub(super) fn new(node: NodeId, mode: u32, caller: Caller, body: Body) -> Self {
        let (uid, gid) = match caller {
            Caller::Root => (GuestUid(0), GuestGid(0)),
            Caller::User { uid, gid, .. } | Caller::Alone { uid, gid } => (uid, gid),
        };
        let (now, dev) = (now(), Dev::default());
        let attr = Attr {
            id: FileId { mount: 1, dev, ino: node.0 },
            mode,
            nlink: 0,
            uid,
            gid,
            rdev: dev,
            size: 0,
            blocks: 0,
            blksize: 4096,
            atime: now,
            mtime: now,
            ctime: now,
            btime: Some(now),
            mount_root: false,
            automount: false,
        };
        Self { attr, lookups: 0, opens: 0, body, xattrs: BTreeMap::new() }
    }

    pub(super) fn attr(&self) -> Attr {
        let (size, nlink) = match &self.body {
            Body::Dir { names, .. } => (names.len(), 2),
            Body::File(data) => (data.len(), self.attr.nlink),
            Body::Link(target) => (target.len(), self.attr.nlink),
            Body::Special => (0, self.attr.nlink),
        };
        let size = u64::try_from(size).unwrap_or(u64::MAX);
        Attr { size, blocks: size.div_ceil(512), nlink, ..self.attr }
    }

    pub(super) fn names(&mut self) -> Result<&mut BTreeMap<Vec<u8>, NodeId>> {
        if let Body::Dir { names, .. } = &mut self.body { Ok(names) } else { Err(Errno::ENOTDIR) }
    }

    pub(super) fn data(&mut self) -> Result<&mut Vec<u8>> {
        match &mut self.body {
            Body::File(data) => Ok(data),
            Body::Dir { .. } => Err(Errno::EISDIR),
            Body::Link(_) => Err(Errno::ELOOP),
            Body::Special => Err(Errno::ENXIO),
        }
    }

    pub(super) fn touch(&mut self) {
        (self.attr.mtime, self.attr.ctime) = (now(), now());
    }

    pub(super) fn change(&mut self, changes: &Changes) -> Result<()> {
        let attr = &mut self.attr;
        attr.uid = changes.uid.unwrap_or(attr.uid);
        attr.gid = changes.gid.unwrap_or(attr.gid);
        attr.mode = changes.mode.map_or(attr.mode, |mode| attr.kind() | mode.bits());
        if let Some(size) = changes.size {
            self.data()?.resize(length(size)?, 0);
            self.touch();
        }
        for (change, stamp) in [(changes.atime, &mut self.attr.atime), (changes.mtime, &mut self.attr.mtime)] {
            match change {
                TimeChange::Keep => {}
                TimeChange::Now => *stamp = now(),
                TimeChange::At(time) => *stamp = time,
            }
        }
        self.attr.ctime = now();
        Ok(())
    }
}

pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time { sec: i64::try_from(since.as_secs()).unwrap_or_default(), nsec: since.subsec_nanos() }
}

pub(super) fn length(size: u64) -> Result<usize> {
    usize::try_from(size).ok().filter(|&size| size <= FILE_MAX).ok_or(Errno::EFBIG)
}
