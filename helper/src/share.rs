//! The share as one helper process sees it: where descriptors are proven, reopened and looked up.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use postern_ipc::model::Model;
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};
use postern_policy::right::Rights;
use postern_policy::sandbox::seccomp::{Call, bits};
use postern_policy::translate::Translation;
use rustix::buffer::spare_capacity;
use rustix::fs::{AtFlags, Mode, OFlags, chmodat, fcntl_setfl, openat, readlinkat_raw};
use rustix::path::DecInt;

use crate::clone::{Mounts, Place};
use crate::guard::Guard;
use crate::model::Store;
use crate::names::Names;
use crate::pin::Pin;
use crate::sys;

/// Everything that operations share. Nothing in it changes between two requests but a lock.
#[derive(Debug)]
pub(crate) struct Share {
    /// What it grants.
    pub(crate) rights: Rights,
    /// What may not be planted in it for the host's users to step on.
    pub(crate) guard: Guard,
    /// Which ids of the guest are others here.
    pub(crate) translation: Translation,
    /// This process's own /proc/self/fd, opened before Landlock: descriptors are reopened by number in it.
    pub(crate) numbers: OwnedFd,
    /// Where the guest's ownership and modes are kept.
    pub(crate) model: Model,
    /// What its extended attributes are called.
    pub(crate) names: Names,
    /// That place, where it is not the host's inodes.
    pub(crate) store: Option<Store>,
    /// The clone's root.
    pub(crate) root: OwnedFd,
    /// The same, to be recognised.
    pub(crate) root_place: Place,
    /// The clone's mounts.
    pub(crate) mounts: Mounts,
    /// Most requests a second on a channel.
    pub(crate) max_rate: Option<u32>,
    /// The kernel changes permission bits of what a descriptor stands for, which takes it less long: Linux 6.6.
    pub(crate) chmods_by_descriptor: bool,
}

/// Longest path that the kernel tells, with its NUL. limits.h
const PATH_MAX: usize = 4096;

/// How often and after what time an open that somebody's lease stands in the way of is tried again.
const LEASE_TRIES: [u64; 7] = [1, 4, 16, 64, 128, 256, 512];

/// An O_PATH descriptor of a name, or of a pinned node once more.
const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
/// The same of a name that may be a symbolic link, which is not followed.
pub(crate) const PATH_NAME: OFlags = PATH.union(OFlags::NOFOLLOW);
/// Added whenever content is opened, or made.
const MAKING: OFlags = OFlags::CLOEXEC.union(OFlags::NOCTTY);
/// Added whenever what is there is opened: neither a pipe nor the holder of a lease is waited for.
const ALWAYS: OFlags = OFlags::NONBLOCK.union(MAKING);

/// What F_SETFL sets and clears; it leaves the rest as it is. fcntl(2)
const SETTABLE: OFlags = OFlags::APPEND.union(OFlags::DIRECT).union(OFlags::NOATIME);

/// O_LARGEFILE is added by the library.
const fn flags(flags: OFlags) -> u32 {
    flags.union(OFlags::LARGEFILE).bits()
}

/// Flags of content opened for reading; for writing the others may be there.
const READ_FLAGS: u32 =
    flags(ALWAYS) | bits(libc::O_DIRECTORY | libc::O_APPEND | libc::O_DIRECT | libc::O_NOATIME | libc::O_SYNC);
const WRITE_FLAGS: u32 = READ_FLAGS | bits(libc::O_WRONLY | libc::O_RDWR);
const CREATE_FLAGS: u32 = bits(libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW);
const TMPFILE_FLAGS: u32 = bits(libc::O_TMPFILE);

/// Pins a name.
pub(crate) const PIN_NAME: Call = Call::at(libc::SYS_openat, "pins a name by O_PATH").eq(2, flags(PATH_NAME));
/// Pins a node again, through its number.
pub(crate) const PIN_AGAIN: Call = Call::at(libc::SYS_openat, "pins what was just made by O_PATH").eq(2, flags(PATH));
/// Opens content for reading.
pub(crate) const READ: Call = Call::at(libc::SYS_openat, "opens a node by its number for reading").only(2, READ_FLAGS);
/// Opens content for writing.
pub(crate) const WRITE: Call =
    Call::at(libc::SYS_openat, "opens a node by its number for writing").only(2, WRITE_FLAGS);
/// Makes a file.
pub(crate) const CREATE: Call = Call::at(libc::SYS_openat, "makes a file that is not there")
    .masked(2, CREATE_FLAGS, CREATE_FLAGS)
    .only(2, WRITE_FLAGS | CREATE_FLAGS);
/// Makes a file without a name.
pub(crate) const TMPFILE: Call = Call::at(libc::SYS_openat, "makes a file without a name")
    .masked(2, TMPFILE_FLAGS, TMPFILE_FLAGS)
    .only(2, WRITE_FLAGS | TMPFILE_FLAGS | bits(libc::O_EXCL));
/// Waits for a lease.
pub(crate) const WAIT: Call =
    Call::any(libc::SYS_clock_nanosleep, "waits for the holder of a lease, and where requests come too fast");
/// Changes permission bits.
pub(crate) const CHMOD: &[Call] = &[
    Call::any(libc::SYS_fchmodat, "changes the permission bits, through the node's number"),
    Call::any(libc::SYS_fchmodat2, "changes them through its descriptor"),
];
/// O_NONBLOCK is for opening only.
pub(crate) const BLOCKING: Call = Call::at(libc::SYS_fcntl, "takes O_NONBLOCK away again").eq(1, bits(libc::F_SETFL));
/// Fills attributes.
pub(crate) const STAT: Call = Call::any(libc::SYS_statx, "reads attributes");

impl Share {
    /// Whether a directory can be opened for reading.
    pub(crate) fn reads(dir: &OwnedFd) -> Result<()> {
        Ok(openat(dir, c".", ALWAYS.union(OFlags::DIRECTORY), Mode::empty()).map(drop)?)
    }

    /// The number of a descriptor: its name in `numbers`.
    pub(crate) fn number(fd: impl AsFd) -> DecInt {
        DecInt::from_fd(fd)
    }

    /// Pins `name` in `dir`; a symbolic link is pinned itself.
    pub(crate) fn pin_name(&self, dir: &Pin, name: &FileName) -> Result<OwnedFd> {
        self.through(dir, || Ok(openat(dir, name.as_c_str(), PATH_NAME, Mode::empty())?))
    }

    /// Pins an open file.
    pub(crate) fn pin_again(&self, file: &OwnedFd) -> Result<OwnedFd> {
        Ok(openat(&self.numbers, Self::number(file), PATH, Mode::empty())?)
    }

    /// The path of a node from the share's root, as the kernel knows it: "/" for the root and for what has been moved
    /// out of the share. ENAMETOOLONG if it has 4096 bytes or more.
    pub(crate) fn path(&self, node: impl AsFd) -> Result<Vec<u8>> {
        let mut path = Vec::with_capacity(PATH_MAX);
        readlinkat_raw(&self.numbers, Self::number(node), spare_capacity(&mut path))?;
        Ok(path)
    }

    /// Opens a pinned regular file or directory. Waits a little for the holder of a lease; EAGAIN when he keeps it.
    pub(crate) fn open(&self, node: impl AsFd, how: OFlags) -> Result<OwnedFd> {
        patiently(|| self.open_at_once(&node, how))
    }

    /// The same without waiting: EAGAIN where somebody has a lease.
    pub(crate) fn open_at_once(&self, node: impl AsFd, how: OFlags) -> Result<OwnedFd> {
        let number = Self::number(&node);
        let open = |how| Ok(openat(&self.numbers, number.as_c_str(), how | ALWAYS, Mode::empty())?);
        self.over(&node, || {
            let (file, how) = willing(how, open)?;
            fcntl_setfl(&file, how & SETTABLE)?;
            Ok(file)
        })
    }

    /// Changes the permission bits of what is no symbolic link.
    pub(crate) fn chmod(&self, node: &Pin, mode: Mode) -> Result<()> {
        self.owning(node, || {
            if self.chmods_by_descriptor {
                sys::chmod(node, mode)
            } else {
                Ok(chmodat(&self.numbers, Self::number(node), mode, AtFlags::empty())?)
            }
        })
    }

    /// Makes what is not there. `how` says whether by a name (O_CREAT) or without one (O_TMPFILE).
    pub(crate) fn make(&self, dir: impl AsFd, name: &std::ffi::CStr, how: OFlags, mode: Mode) -> Result<OwnedFd> {
        let (file, _) = willing(how, |how| Ok(openat(&dir, name, how | MAKING, mode)?))?;
        Ok(file)
    }
}

/// O_NOATIME is the owner's; for others a wish that is not granted. Tells how it was opened.
fn willing(how: OFlags, open: impl Fn(OFlags) -> Result<OwnedFd>) -> Result<(OwnedFd, OFlags)> {
    match open(how) {
        Err(Errno::EPERM) if how.contains(OFlags::NOATIME) => {
            let how = how.difference(OFlags::NOATIME);
            Ok((open(how)?, how))
        }
        opened => Ok((opened?, how)),
    }
}

fn patiently<T>(act: impl Fn() -> Result<T>) -> Result<T> {
    for pause in LEASE_TRIES {
        match act() {
            Err(Errno::EAGAIN) => std::thread::sleep(Duration::from_millis(pause)),
            done => return done,
        }
    }
    act()
}
