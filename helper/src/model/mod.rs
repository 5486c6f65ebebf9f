//! What the mapped security models make of attributes: the guest's owner, mode and device numbers are kept beside those
//! of the host's inodes, which stay the helper's own. `xattr` and `file` are the two places to keep them.
//!
//! What is kept may have been written by anybody on the host. It says nothing that the host's inode contradicts: only a
//! regular file may stand for a symbolic link, a pipe, a socket or a device, and none of them is ever opened as one.

mod birth;
mod file;
mod xattr;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use nix::libc;
use postern_ipc::attr::{Attr, Changes, Dev, Mode};
use postern_ipc::id::{GuestGid, GuestUid};
use postern_ipc::model::Model;
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};
use postern_policy::fatal::Fatal;
use postern_policy::right::{Right, Rights};
use postern_policy::sandbox::seccomp::Call;
use rustix::buffer::spare_capacity;
use rustix::fs::OFlags;
use rustix::io::pread;

use crate::args::Args;
use crate::guard::SETID;
use crate::pin::Pin;
use crate::share::Share;

pub(crate) use birth::Birth;
pub(crate) use file::{link, remove_dir, rename, unlink};
pub(crate) use xattr::{hidden, renamed as xattr_name, shown as shown_xattrs};

/// Permission bits of the host's files and directories, as QEMU gives them.
const FMODE: Mode = Mode::new(0o600);
const DMODE: Mode = Mode::new(0o700);

/// What a share of a mapped model calls besides what its operations do.
const CALLS: &[Call] = &[
    Call::any(libc::SYS_getxattr, "reads what is kept of a node"),
    Call::any(libc::SYS_pread64, "reads what is kept of a node, or what a symbolic link says"),
];
/// Besides, where it may be changed.
const WRITES: &[Call] = &[
    Call::any(libc::SYS_pwrite64, "keeps attributes, or what a symbolic link says"),
    Call::at(libc::SYS_getdents64, "looks whether a directory has nothing but metadata"),
];

/// The system calls of a model.
pub(crate) fn calls(model: Model, rights: Rights) -> impl Iterator<Item = Call> {
    let always = if model.is_mapped() { CALLS } else { &[] };
    let changing = if model.is_mapped() && rights.allow(Right::Write) { WRITES } else { &[] };
    always.iter().chain(changing).copied()
}

/// What is kept of a node. What is not kept is as the host's inode has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Kept {
    uid: Option<u32>,
    gid: Option<u32>,
    /// With type bits.
    mode: Option<u32>,
    rdev: Option<Dev>,
}

impl Kept {
    /// The attributes of a node as the guest is to see them.
    fn over(self, host: Attr) -> Attr {
        let kind = self.mode.map_or(host.kind(), |mode| kind(host.kind(), mode & libc::S_IFMT));
        let device = kind != host.kind() && matches!(kind, libc::S_IFCHR | libc::S_IFBLK);
        let known = |id: &u32| *id != u32::MAX;
        Attr {
            mode: kind | self.mode.unwrap_or(host.mode) & 0o7777,
            uid: self.uid.filter(known).map_or(host.uid, GuestUid),
            gid: self.gid.filter(known).map_or(host.gid, GuestGid),
            rdev: if device { self.rdev.unwrap_or_default() } else { host.rdev },
            ..host
        }
    }
}

/// What a host's node of a kind is, if it is said to be another.
fn kind(host: u32, said: u32) -> u32 {
    match (host, said) {
        (libc::S_IFREG, libc::S_IFLNK | libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFCHR | libc::S_IFBLK) => said,
        _ => host,
    }
}

/// A node, and which entry of which directory led to it, where that is known.
#[derive(Clone, Copy)]
struct Subject<'a> {
    node: BorrowedFd<'a>,
    at: Option<(&'a Pin, &'a FileName)>,
}

/// What a mapped model is told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    model: Model,
    /// Permission bits of the host's files.
    fmode: Mode,
    /// Of its directories.
    dmode: Mode,
}

/// Where a mapped model keeps the guest's attributes.
#[derive(Debug)]
pub(crate) struct Store {
    plan: Plan,
    /// What is kept is read and changed by several calls: there is one change at a time, and nobody reads meanwhile.
    lock: RwLock<()>,
}

impl Plan {
    /// That of a share, if its model keeps attributes.
    ///
    /// # Errors
    /// If the file system cannot keep attributes, or a mode is given that no file would have.
    pub(crate) fn of(args: &Args, dir: &OwnedFd) -> std::result::Result<Option<Self>, Fatal> {
        let model = Model::from(args.security_model);
        if !matches!(model, Model::MappedXattr | Model::MappedFile) {
            for (option, given) in [("--fmode", args.fmode), ("--dmode", args.dmode)] {
                if given.is_some() {
                    let why = format!("with --security-model={} files have the guest's modes", args.security_model);
                    return Err(Fatal::new(format!("use {option}"), why)
                        .hint("leave it out, or choose --security-model=mapped-xattr or mapped-file"));
                }
            }
        }
        if !model.is_mapped() {
            return Ok(None);
        }
        if !model.keeps_by_name() {
            xattr::probe(args, dir)?;
        }
        let (fmode, dmode) = (args.fmode.unwrap_or(FMODE), args.dmode.unwrap_or(DMODE));
        Ok(Some(Self { model, fmode, dmode }))
    }

    /// Permission bits on the host of what is to have `mode` in the guest.
    fn host_mode(&self, mode: u32) -> Mode {
        let is_dir = mode & libc::S_IFMT == libc::S_IFDIR;
        match (self.model, is_dir) {
            (Model::MappedLinks, true) => Mode::new(mode & 0o777 | DMODE.bits()),
            (Model::MappedLinks, false) => Mode::new(mode & 0o777 | FMODE.bits()),
            (_, true) => self.dmode,
            (_, false) => self.fmode,
        }
    }
}

impl Store {
    /// By a plan.
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan, lock: RwLock::new(()) }
    }

    /// What is done to the names of files is done to what is kept of them before anybody looks.
    fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.lock.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn shown(&self, share: &Share, subject: Subject<'_>) -> Result<Attr> {
        let _nobody_writes = self.lock.read().unwrap_or_else(PoisonError::into_inner);
        self.look(share, subject)
    }

    fn look(&self, share: &Share, subject: Subject<'_>) -> Result<Attr> {
        let mut host = Attr::of(subject.node)?;
        let kept = if self.plan.model.keeps_by_name() {
            if host.kind() == libc::S_IFDIR {
                host.nlink = host.nlink.saturating_sub(file::hidden_links(subject.node, host.nlink));
            }
            file::read(share, subject)?
        } else {
            xattr::read(subject.node)?
        };
        Ok(kept.over(host))
    }

    fn keep(&self, share: &Share, subject: Subject<'_>, kept: Kept) -> Result<()> {
        if self.plan.model.keeps_by_name() {
            file::write(share, subject, kept)
        } else {
            xattr::write(subject.node, kept)
        }
    }

    /// Changes owner and mode as chown(2) and chmod(2) do. What becomes of the host's inode is told by `permit`.
    fn change(
        &self,
        share: &Share,
        subject: Subject<'_>,
        changes: &Changes,
        permit: impl FnOnce(Mode) -> Result<()>,
    ) -> Result<()> {
        let _one = self.alone();
        let now = self.look(share, subject)?;
        let Some(kept) = changed(&now, changes)? else { return Ok(()) };
        if self.plan.model == Model::MappedLinks && now.kind() == libc::S_IFLNK {
            // A real one has no such attributes, and an owner that nothing depends on.
            return Ok(());
        }
        self.keep(share, subject, kept)?;
        match kept.mode {
            Some(mode) if self.plan.model == Model::MappedLinks && is_file_or_dir(now.kind()) => {
                permit(self.plan.host_mode(mode))
            }
            _ => Ok(()),
        }
    }
}

fn is_file_or_dir(kind: u32) -> bool {
    matches!(kind, libc::S_IFREG | libc::S_IFDIR)
}

/// What is to be kept after a change; `None` if there is none.
fn changed(now: &Attr, changes: &Changes) -> Result<Option<Kept>> {
    let Changes { uid, gid, mode, kill_setid, .. } = *changes;
    let (uid, gid) = (uid.map(|uid| uid.0), gid.map(|gid| gid.0));
    if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
        return Err(Errno::EINVAL);
    }
    if mode.is_some() && now.kind() == libc::S_IFLNK {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut bits = now.mode;
    if now.kind() != libc::S_IFDIR && (uid.is_some() || gid.is_some() || kill_setid) {
        bits = without_setid(bits);
    }
    if let Some(mode) = mode {
        bits = now.kind() | mode.bits();
    }
    let kept = Kept { uid, gid, mode: (mode.is_some() || bits != now.mode).then_some(bits), rdev: None };
    Ok((kept != Kept::default()).then_some(kept))
}

/// A set-group-id bit without the right to execute is a mark for locks. chown(2)
fn without_setid(mode: u32) -> u32 {
    if mode & libc::S_IXGRP == 0 { mode & !libc::S_ISUID } else { mode & !SETID }
}

impl Share {
    /// The attributes of a node.
    pub(crate) fn attr(&self, node: impl AsFd) -> Result<Attr> {
        self.attr_of(Subject { node: node.as_fd(), at: None })
    }

    /// The attributes of a node that `name` in `dir` led to.
    pub(crate) fn attr_at(&self, node: impl AsFd, dir: &Pin, name: &FileName) -> Result<Attr> {
        self.attr_of(Subject { node: node.as_fd(), at: Some((dir, name)) })
    }

    /// The attributes of `name` in `dir`.
    pub(crate) fn entry(&self, dir: &Pin, name: &FileName) -> Result<Attr> {
        match &self.store {
            None => self.through(dir, || Attr::of_entry(dir, name)),
            Some(_) => self.attr_at(self.pin_name(dir, name)?, dir, name),
        }
    }

    fn attr_of(&self, subject: Subject<'_>) -> Result<Attr> {
        match &self.store {
            None => Attr::of(subject.node),
            Some(store) => store.shown(self, subject),
        }
    }

    /// What a symbolic link says that a regular file stands for; EINVAL if it is none. What lies there is anybody's: it
    /// ends with the first NUL, as it would in a system call.
    pub(crate) fn read_link(&self, node: &Pin, to: &mut Vec<u8>) -> Result<()> {
        if self.store.is_none() || self.attr(node)?.kind() != libc::S_IFLNK {
            return Err(Errno::EINVAL);
        }
        pread(self.open(node, OFlags::RDONLY)?, spare_capacity(to), 0)?;
        to.truncate(to.iter().position(|&byte| byte == 0).unwrap_or(to.len()));
        Ok(())
    }

    /// It is a regular file, and may be opened; otherwise the errno that opening gives. open(2)
    pub(crate) fn require_file(&self, node: &Pin) -> Result<()> {
        node.require_file()?;
        if self.store.is_some() { crate::pin::openable(self.attr(node)?.kind()) } else { Ok(()) }
    }

    /// Whether a new file may have these permission bits: on the host, or only in what is kept of it.
    pub(crate) fn permit_mode(&self, mode: Mode) -> Result<()> {
        if self.store.is_some() { Ok(()) } else { self.guard.file_mode(mode) }
    }

    /// Changes what is kept of owner and mode. `false` if nothing is: then it is the host's inode that changes.
    pub(crate) fn change(
        &self,
        node: &Pin,
        changes: &Changes,
        permit: impl FnOnce(Mode) -> Result<()>,
    ) -> Result<bool> {
        let subject = Subject { node: node.as_fd(), at: None };
        self.store.as_ref().map_or(Ok(false), |store| store.change(self, subject, changes, permit).map(|()| true))
    }

    /// Takes set-id bits that are kept away.
    pub(crate) fn kill_setid(&self, node: &Pin) -> Result<()> {
        let changes = Changes { kill_setid: true, ..Changes::default() };
        self.change(node, &changes, |_| Ok(())).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(mode: u32) -> Attr {
        Attr { mode, ..Attr::of(std::fs::File::open("/proc/self/exe").unwrap()).unwrap() }
    }

    // CVE-2017-7493: what is kept may be anybody's.
    #[test]
    fn only_a_regular_file_is_said_to_be_something_else_and_never_a_directory() {
        let said = |host_mode, mode| Kept { mode: Some(mode), ..Kept::default() }.over(host(host_mode)).mode;
        assert_eq!(said(libc::S_IFREG | 0o600, libc::S_IFLNK | 0o777), libc::S_IFLNK | 0o777);
        assert_eq!(said(libc::S_IFREG | 0o600, libc::S_IFDIR | 0o755), libc::S_IFREG | 0o755);
        assert_eq!(said(libc::S_IFDIR | 0o700, libc::S_IFREG | 0o644), libc::S_IFDIR | 0o644);
        assert_eq!(said(libc::S_IFIFO | 0o600, libc::S_IFREG | 0o644), libc::S_IFIFO | 0o644);
        assert_eq!(said(libc::S_IFREG | 0o600, 0xffff_0000 | 0o644), libc::S_IFREG | 0o644);
        assert_eq!(said(libc::S_IFREG | 0o600, 0o4755), libc::S_IFREG | 0o4755);
    }

    #[test]
    fn what_is_not_kept_is_as_the_host_has_it() {
        let host = Attr { uid: GuestUid(7), gid: GuestGid(8), ..host(libc::S_IFREG | 0o640) };
        assert_eq!(Kept::default().over(host), host);
        let shown = Kept { uid: Some(1000), gid: Some(u32::MAX), ..Kept::default() }.over(host);
        assert_eq!((shown.uid.0, shown.gid.0, shown.mode), (1000, 8, libc::S_IFREG | 0o640));
    }

    // chown(2): "When the owner or group of an executable file is changed ... S_ISUID and S_ISGID mode bits are
    // cleared"
    #[test]
    fn a_new_owner_and_a_write_of_others_take_set_id_bits_away() {
        let after = |mode, changes| changed(&host(mode), &changes).unwrap().and_then(|kept| kept.mode);
        let owner = Changes { uid: Some(GuestUid(1)), ..Changes::default() };
        let kill = Changes { kill_setid: true, ..Changes::default() };
        assert_eq!(after(libc::S_IFREG | 0o6755, owner), Some(libc::S_IFREG | 0o755));
        assert_eq!(after(libc::S_IFREG | 0o6745, kill), Some(libc::S_IFREG | 0o2745));
        assert_eq!(after(libc::S_IFDIR | 0o6755, owner), None);
        assert_eq!(after(libc::S_IFREG | 0o755, kill), None);
        let mode = Changes { mode: Some(Mode::new(0o4711)), ..owner };
        assert_eq!(after(libc::S_IFREG | 0o755, mode), Some(libc::S_IFREG | 0o4711));
    }
}
