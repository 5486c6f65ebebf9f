//! A descriptor proven to be the share's. The server is assumed to be the guest's: what it sends is believed only here.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc;
use postern_ipc::frame::Malformed;
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};
use postern_policy::sandbox::seccomp::{Call, bits};
use rustix::fs::{Mode, OFlags, StatxFlags, fcntl_getfl, openat, readlinkat_raw, statx};

use crate::clone::{Place, QUIETLY};
use crate::share::Share;

/// An O_PATH descriptor of a node of the share.
#[derive(Debug)]
pub(crate) struct Pin {
    fd: OwnedFd,
    place: Place,
}

/// Why a descriptor is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Disbelief {
    /// An honest server could have sent it: the request fails.
    Errno(Errno),
    /// It could not: the server is broken or hostile.
    Malformed(Malformed),
}

/// What [`Pin::prove`] calls.
pub(crate) const CALLS: &[Call] = &[
    Call::at(libc::SYS_fcntl, "a descriptor of the server's must be O_PATH").eq(1, bits(libc::F_GETFL)),
    Call::any(
        libc::SYS_statx,
        "shows the mount that a descriptor came from, and that a directory is still in the share",
    ),
    Call::any(libc::SYS_readlinkat, "shows the same of other nodes"),
];

/// What the kernel adds to the path of a node without a name.
const DELETED: &[u8] = b" (deleted)";

impl Pin {
    /// The only way in for what the server sends. `F_GETFL` comes first, because it never waits for a file system; then
    /// the judgement of the mount, before anything else is done with the descriptor.
    pub(crate) fn prove(fd: OwnedFd, share: &Share) -> std::result::Result<Self, Disbelief> {
        if !fcntl_getfl(&fd).map_err(Errno::from).map_err(Disbelief::Errno)?.contains(OFlags::PATH) {
            return Err(Disbelief::Malformed(Malformed("a descriptor is not O_PATH")));
        }
        let pin = Self::of_share(fd, share)?;
        pin.prove_again(share)?;
        Ok(pin)
    }

    /// What was proven once is of the share for ever; whether its node still is in it may have changed.
    pub(crate) fn prove_again(&self, share: &Share) -> std::result::Result<(), Disbelief> {
        let believed = self
            .connected(share)
            .and_then(|connected| Ok(connected && (!share.model.keeps_by_name() || self.visible(share)?)));
        match believed {
            Ok(true) => Ok(()),
            Ok(false) => Err(Disbelief::Errno(Errno::ESTALE)),
            Err(errno) => Err(Disbelief::Errno(errno)),
        }
    }

    /// What `name` in a proven directory is now, a symbolic link itself. EXDEV for what the share has not.
    pub(crate) fn of_name(dir: &Self, name: &FileName, share: &Share) -> Result<Self> {
        let fd = share.pin_name(dir, name)?;
        match Self::of_share(fd, share) {
            Ok(pin) => Ok(pin),
            Err(Disbelief::Errno(errno)) => Err(errno),
            Err(Disbelief::Malformed(_)) => Err(Errno::EXDEV),
        }
    }

    /// Judges the mount.
    fn of_share(fd: OwnedFd, share: &Share) -> std::result::Result<Self, Disbelief> {
        let place = Place::of(&fd).map_err(Disbelief::Errno)?;
        if !share.mounts.all.contains(&place.mount) {
            return Err(Disbelief::Malformed(Malformed("a descriptor is not of the share's mounts")));
        }
        if share.mounts.kernels.contains(&place.mount) {
            return Err(Disbelief::Errno(Errno::EACCES));
        }
        Ok(Self { fd, place })
    }

    /// Whether the node is below the share's root. The host may have moved the directory away while it was held: its
    /// mount id stays, and Landlock does not notice. Its path then reads as "/". A step up takes the kernel less time
    /// than a path, but tells of the way to the root of the node's own mount only, and of directories that may be
    /// searched.
    fn connected(&self, share: &Share) -> Result<bool> {
        if self.is_dir() && self.place.mount == share.root_place.mount {
            match self.has_parent(share) {
                Err(Errno::EACCES) => {}
                known => return known,
            }
        }
        let mut text = [0; 1 + DELETED.len() + 1];
        match readlinkat_raw(&share.numbers, Share::number(self), &mut text[..]) {
            Ok(length) => Ok(match text.get(..length).and_then(|path| path.strip_prefix(b"/")) {
                Some([]) => is_root(self.place, share),
                Some(rest) if *rest == *DELETED => is_named_deleted(self.place, share),
                _ => true,
            }),
            Err(rustix::io::Errno::NAMETOOLONG) => self.has_parent(share),
            Err(errno) => Err(errno.into()),
        }
    }

    /// The kernel refuses the way up from a directory that is not below its mount's root. A file has no way up: one
    /// whose path is longer than PATH_MAX is believed.
    fn has_parent(&self, share: &Share) -> Result<bool> {
        if !self.is_dir() {
            return Ok(true);
        }
        match share.through(self, || Ok(statx(self, c"..", QUIETLY, StatxFlags::empty())?)) {
            Ok(_) => Ok(true),
            Err(Errno::ENOENT) => Ok(false),
            Err(errno) => Err(errno),
        }
    }

    /// Both are of one mount.
    pub(crate) fn is_beside(&self, other: &Self) -> bool {
        self.place.mount == other.place.mount
    }

    /// It had a name when it was proven.
    pub(crate) fn is_named(&self) -> bool {
        !self.place.unnamed
    }

    /// It is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        self.place.kind == libc::S_IFDIR
    }

    /// It is a symbolic link.
    pub(crate) fn is_symlink(&self) -> bool {
        self.place.kind == libc::S_IFLNK
    }

    /// It is a device node.
    pub(crate) fn is_device(&self) -> bool {
        matches!(self.place.kind, libc::S_IFCHR | libc::S_IFBLK)
    }

    /// It is a regular file, and may be opened; otherwise the errno that opening gives. open(2)
    pub(crate) fn require_file(&self) -> Result<()> {
        openable(self.place.kind)
    }

    /// No name on the way to the node, or its own, is the security model's.
    fn visible(&self, share: &Share) -> Result<bool> {
        Ok(!share.path(self)?.split(|&byte| byte == b'/').any(|name| share.model.hides(name)))
    }
}

/// Whether what is of this kind (S_IFMT) may be opened, as a regular file may. open(2)
pub(crate) fn openable(kind: u32) -> Result<()> {
    match kind {
        libc::S_IFREG => Ok(()),
        libc::S_IFDIR => Err(Errno::EISDIR),
        libc::S_IFLNK => Err(Errno::ELOOP),
        _ => Err(Errno::ENXIO),
    }
}

impl From<Pin> for OwnedFd {
    fn from(pin: Pin) -> Self {
        pin.fd
    }
}

impl AsFd for Pin {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn is_root(place: Place, share: &Share) -> bool {
    (place.mount, place.dev, place.ino) == (share.root_place.mount, share.root_place.dev, share.root_place.ino)
}

/// "/ (deleted)" is a node without name or way to the root, or one of that very name in the root.
fn is_named_deleted(place: Place, share: &Share) -> bool {
    let named = FileName::new(DELETED).and_then(|name| {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = share.through(&share.root, || Ok(openat(&share.root, name.as_c_str(), flags, Mode::empty())?))?;
        Place::of(fd)
    });
    named.is_ok_and(|named| (named.dev, named.ino) == (place.dev, place.ino))
}
