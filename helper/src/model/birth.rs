//! How a node comes into being: as whom, with which permission bits on the host, and what is kept of it.

use std::os::fd::{AsFd, BorrowedFd};

use nix::libc;
use postern_ipc::attr::{Attr, Dev, Mode};
use postern_ipc::id::Caller;
use postern_ipc::model::Model;
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};
use rustix::fs::{AtFlags, unlinkat};

use super::{Kept, Subject};
use crate::caller::{self, Who};
use crate::pin::Pin;
use crate::share::Share;

/// All that is to be said of a new node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Birth {
    /// As whom; `None` as the helper is; EOVERFLOW for who has no host id.
    who: Result<Option<Who>>,
    umask: Mode,
    /// Permission bits on the host, before the umask.
    pub(crate) mode: Mode,
    /// An owner that cannot be had is not missed.
    lenient: bool,
    kept: Option<Kept>,
}

impl Birth {
    /// Of a node of a kind (S_IFMT) that `caller` makes in `dir`.
    pub(crate) fn of(
        share: &Share,
        dir: &Pin,
        caller: Caller,
        (kind, rdev): (u32, Option<Dev>),
        mode: Mode,
        umask: Mode,
    ) -> Result<Self> {
        let Some(store) = &share.store else {
            let who = match Who::makes(caller, &share.translation) {
                Err(errno) if errno != Errno::EOVERFLOW => return Err(errno),
                who => who,
            };
            return Ok(Self { who, umask, mode, lenient: share.model == Model::None, kept: None });
        };
        if store.plan.model == Model::MappedLinks && kind == libc::S_IFLNK {
            return Ok(Self { who: Ok(None), umask, mode, lenient: false, kept: None });
        }
        let kept = Kept { rdev, ..kept(&share.attr(dir)?, caller, kind | mode.bits() & !umask.bits()) };
        let mode = store.plan.host_mode(kept.mode.unwrap_or(kind));
        Ok(Self { who: Ok(None), umask: Mode::new(0), mode, lenient: false, kept: Some(kept) })
    }

    /// Makes it in `dir`.
    pub(crate) fn run<T>(&self, share: &Share, dir: &Pin, make: impl Fn() -> Result<T>) -> Result<T> {
        let making = share.making(dir)?;
        let as_root = || share.making_as_root(dir, || caller::run(None, self.umask, making, &make));
        let as_who = |who| match who {
            None => as_root(),
            who => caller::run(who, self.umask, making, &make),
        };
        match self.who.and_then(as_who) {
            Err(Errno::EOVERFLOW) if self.lenient => as_root(),
            made => made,
        }
    }

    /// Keeps what is to be kept of the node that was made as `name` in `dir`. Without it there is no node.
    pub(crate) fn keep(&self, share: &Share, node: impl AsFd, dir: &Pin, name: &FileName) -> Result<()> {
        let node = node.as_fd();
        let kept = self.keep_of(share, Subject { node, at: Some((dir, name)) });
        if kept.is_err() {
            // The first error is the one to tell.
            let _ = remove(node, dir, name);
        }
        kept
    }

    /// Keeps what is to be kept of what is `name` in `dir` now, and shows it.
    pub(crate) fn named(&self, share: &Share, dir: &Pin, name: &FileName) -> Result<Attr> {
        if self.kept.is_none() {
            return share.entry(dir, name);
        }
        let node = share.pin_name(dir, name)?;
        self.keep(share, &node, dir, name)?;
        share.attr_at(&node, dir, name)
    }

    /// A file stands for the node.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// The same of a node that has no name.
    pub(crate) fn keep_nameless(&self, share: &Share, node: impl AsFd) -> Result<()> {
        self.keep_of(share, Subject { node: node.as_fd(), at: None })
    }

    fn keep_of(&self, share: &Share, subject: Subject<'_>) -> Result<()> {
        let (Some(store), Some(kept)) = (&share.store, self.kept) else { return Ok(()) };
        let _one = store.alone();
        store.keep(share, subject, kept)
    }
}

fn remove(node: BorrowedFd<'_>, dir: &Pin, name: &FileName) -> Result<()> {
    let is_dir = Attr::of(node)?.kind() == libc::S_IFDIR;
    let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    Ok(unlinkat(dir, name.as_c_str(), flags)?)
}

/// Whose a node is that `caller` makes in a directory. inode(7): S_ISGID; open(2): "the set-group-ID bit"
fn kept(dir: &Attr, caller: Caller, mode: u32) -> Kept {
    let (uid, own, group) = match caller {
        Caller::Root => (0, 0, None),
        Caller::User { uid, gid, group } => (uid.0, gid.0, group.map(|group| group.0)),
        Caller::Alone { uid, gid } => (uid.0, gid.0, None),
    };
    if dir.mode & libc::S_ISGID == 0 {
        return Kept { uid: Some(uid), gid: Some(own), mode: Some(mode), rdev: None };
    }
    let gid = dir.gid.0;
    let member = uid == 0 || own == gid || group == Some(gid);
    let executable = mode & (libc::S_ISGID | libc::S_IXGRP) == libc::S_ISGID | libc::S_IXGRP;
    let mode = match mode & libc::S_IFMT {
        libc::S_IFDIR => mode | libc::S_ISGID,
        _ if executable && !member => mode & !libc::S_ISGID,
        _ => mode,
    };
    Kept { uid: Some(uid), gid: Some(gid), mode: Some(mode), rdev: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_ipc::id::{GuestGid, GuestUid};

    // inode(7): "files created there inherit their group ID from the directory, not from the effective group ID of the
    // creating process, and directories created there will also get the S_ISGID bit set"
    #[test]
    fn a_set_group_id_directory_gives_its_group_and_strangers_no_bit_of_it() {
        let here = Attr::of(std::fs::File::open("/proc").unwrap()).unwrap();
        let dir = Attr { mode: libc::S_IFDIR | 0o2777, gid: GuestGid(50), ..here };
        let user = |group| Caller::User { uid: GuestUid(1000), gid: GuestGid(1000), group };
        let made = |caller, mode| {
            let made = kept(&dir, caller, mode);
            (made.uid.unwrap(), made.gid.unwrap(), made.mode.unwrap())
        };
        let (dir_mode, file) = (libc::S_IFDIR | 0o755, libc::S_IFREG | 0o2755);
        assert_eq!(made(user(None), dir_mode), (1000, 50, dir_mode | 0o2000));
        assert_eq!(made(user(None), file), (1000, 50, libc::S_IFREG | 0o755));
        assert_eq!(made(user(Some(GuestGid(50))), file), (1000, 50, file));
        assert_eq!(made(Caller::Root, file), (0, 50, file));
        let plain = Attr { mode: libc::S_IFDIR | 0o777, ..dir };
        assert_eq!(kept(&plain, user(None), file).gid, Some(1000));
    }
}
