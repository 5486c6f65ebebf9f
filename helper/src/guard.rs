//! What a guest may plant for the host's users to step on.
//!
//! The clone's attributes protect whoever comes through the clone. By the host's own path a set-id file works, so does
//! a device node. Where a mapped id is a real user's (all of them, the host's root itself, or the one who shares his
//! directory) such things are refused with EPERM, unless they do nothing on the host's mount either, or no other user
//! can reach the directory, or an option allows them. Which kinds of nodes are made at all, an option says as well.

use std::fmt::Display;
use std::os::fd::{AsFd, OwnedFd};

use nix::libc;
use postern_ipc::attr::{Attr, Mode, NodeKind};
use postern_ipc::model::Model;
use postern_ipc::name::XattrName;
use postern_ipc::{Errno, Result};
use postern_policy::fatal::{Started, Step as _};
use postern_policy::idmap::Extent;
use postern_policy::kinds::Kinds;
use rustix::fs::{AtFlags, Mode as Bits, OFlags, StatxFlags, openat, statx};

use crate::args::{Args, Form};
use crate::clone::Source;
use crate::identity::Identity;
use crate::names::CAPABILITY;
use crate::pin::Pin;

/// What is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Guard {
    /// Set-user-id and set-group-id bits of files, and file capabilities.
    pub(crate) setid: bool,
    /// Device nodes other than whiteouts.
    pub(crate) devices: bool,
    /// Another owner, other permission bits or another ACL of such a node that is there.
    pub(crate) handed: bool,
    /// Of the nodes that the share may have, those that the guest may make.
    pub(crate) kinds: Kinds,
}

/// Set-id bits.
pub(crate) const SETID: u32 = libc::S_ISUID | libc::S_ISGID;

impl Guard {
    /// Decides for a share. `closed` says that no other user can reach the directory.
    pub(crate) fn decide(args: &Args, identity: &Identity, source: Source, closed: bool) -> Self {
        let real = identity.real.iter().any(|extents| !extents.is_empty());
        let setid = !real || args.allow_setid || source.nosuid || closed;
        // Elsewhere the kernel refuses device nodes: no capability of a user namespace makes one.
        let host = identity.form == Form::Host;
        let harmless = args.allow_devices || source.nodev || closed;
        let (devices, handed) = (host && harmless, !real || harmless);
        let guard = Self { setid, devices, handed, kinds: args.mknod.unwrap_or(Kinds::all()) };
        // A file only stands for what a mapped model's guest makes.
        let mapped = Model::from(args.security_model).is_mapped();
        let refused = |what: &str, option: &str| {
            let allowed = if args.by_policy { String::new() } else { format!(" ({option} allows them)") };
            log::info!("{what} give EPERM: host users can reach {}{allowed}", args.shown());
        };
        if !guard.setid && !mapped {
            refused("set-id bits and file capabilities", "--allow-setid");
        }
        if host && !guard.devices && !mapped {
            refused("device nodes", "--allow-devices");
        }
        guard
    }

    /// Whether a file may get these permission bits. Not even those it has: between a look at them and the change it
    /// may be given to somebody else.
    pub(crate) fn file_mode(self, mode: Mode) -> Result<()> {
        if mode.bits() & SETID != 0 && !self.setid { Err(Errno::EPERM) } else { Ok(()) }
    }

    /// Whether such a node may be made. A character device 0:0 is a whiteout and opens nothing.
    pub(crate) fn node(self, kind: NodeKind) -> Result<()> {
        match kind {
            NodeKind::File | NodeKind::Fifo | NodeKind::Socket => Ok(()),
            NodeKind::Char(dev) if (dev.major, dev.minor) == (0, 0) => Ok(()),
            NodeKind::Char(_) | NodeKind::Block(_) if self.devices => Ok(()),
            NodeKind::Char(_) | NodeKind::Block(_) => Err(Errno::EPERM),
        }
    }

    /// Whether a node may get another owner, other permission bits or another ACL. A device node that host users may
    /// open is one that was made for them.
    pub(crate) fn hand(self, node: &Pin) -> Result<()> {
        if self.handed || !node.is_device() {
            return Ok(());
        }
        let attr = Attr::of(node)?;
        let whiteout = attr.kind() == libc::S_IFCHR && (attr.rdev.major, attr.rdev.minor) == (0, 0);
        if whiteout { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Whether the host's file may get an attribute of this name.
    pub(crate) fn xattr(self, name: &XattrName) -> Result<()> {
        if name.as_bytes() == CAPABILITY && !self.setid { Err(Errno::EPERM) } else { Ok(()) }
    }
}

/// Whether some directory above `dir`, which is the guest's to open for others, lets only its owner through, and that
/// is root or the one real user whose ids are mapped anyway.
pub(crate) fn closed(dir: &OwnedFd, shown: impl Display, identity: &Identity) -> Started<bool> {
    let step = &format!("judge who can reach the shared directory {shown}");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut below = stat(dir).step(step)?.place;
    let up = |from: &OwnedFd| {
        openat(from, c"..", flags, Bits::empty()).step(step).map_err(|fatal| {
            fatal.hint("whoever starts the helper must be able to search it and every directory above it")
        })
    };
    let mut above = up(dir)?;
    loop {
        let stat = stat(&above).step(step)?;
        if stat.place == below {
            return Ok(false);
        }
        if stat.only_owner && (stat.owner == 0 || alone(&identity.real, stat.owner)) {
            return Ok(true);
        }
        below = stat.place;
        above = up(&above)?;
    }
}

/// The one user of the host whose id is mapped is `owner`.
fn alone([users, _]: &[Vec<Extent>; 2], owner: u32) -> bool {
    matches!(users[..], [user] if user.outside == owner && user.count == 1)
}

struct Stat {
    place: (u64, u64, u32, u32),
    owner: u32,
    only_owner: bool,
}

fn stat(dir: impl AsFd) -> Result<Stat> {
    let mask = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    let stat = statx(dir, c"", AtFlags::EMPTY_PATH, mask)?;
    let through = u32::from(stat.stx_mode) & (libc::S_IXGRP | libc::S_IXOTH);
    Ok(Stat {
        place: (stat.stx_mnt_id, stat.stx_ino, stat.stx_dev_major, stat.stx_dev_minor),
        owner: stat.stx_uid,
        only_owner: through == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_ipc::attr::Dev;

    const REFUSES: Guard = Guard { setid: false, devices: false, handed: false, kinds: Kinds::all() };
    const ALLOWS: Guard = Guard { setid: true, devices: true, handed: true, kinds: Kinds::all() };

    #[test]
    fn set_id_bits_are_refused() {
        assert_eq!(REFUSES.file_mode(Mode::new(0o4755)), Err(Errno::EPERM));
        assert_eq!(REFUSES.file_mode(Mode::new(0o2755)), Err(Errno::EPERM));
        assert_eq!(REFUSES.file_mode(Mode::new(0o1777)), Ok(()));
        assert_eq!(ALLOWS.file_mode(Mode::new(0o6755)), Ok(()));
    }

    #[test]
    fn of_devices_only_whiteouts_may_be_made() {
        assert_eq!(REFUSES.node(NodeKind::Char(Dev { major: 0, minor: 0 })), Ok(()));
        assert_eq!(REFUSES.node(NodeKind::Char(Dev { major: 1, minor: 3 })), Err(Errno::EPERM));
        assert_eq!(REFUSES.node(NodeKind::Block(Dev { major: 0, minor: 0 })), Err(Errno::EPERM));
        assert_eq!(REFUSES.node(NodeKind::Fifo), Ok(()));
    }

    #[test]
    fn file_capabilities_count_as_set_id_bits() {
        let name = |name: &str| XattrName::new(name.as_bytes()).unwrap();
        assert_eq!(REFUSES.xattr(&name("security.capability")), Err(Errno::EPERM));
        assert_eq!(REFUSES.xattr(&name("user.capability")), Ok(()));
    }

    #[test]
    fn a_directory_of_the_only_mapped_user_is_closed_to_others() {
        let users = |users: &[(u32, u32)]| {
            let extent = |&(outside, count)| Extent { inside: 0, outside, count };
            [users.iter().map(extent).collect(), vec![]]
        };
        assert!(alone(&users(&[(1000, 1)]), 1000));
        assert!(!alone(&users(&[(1000, 1)]), 1001));
        assert!(!alone(&users(&[(0, 65_536)]), 0));
        assert!(!alone(&users(&[(1000, 1), (1001, 1)]), 1000));
    }
}
