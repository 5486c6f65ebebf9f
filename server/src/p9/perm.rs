//! How 9P2000.u says what a file is and how it is opened: bits of `perm` and `mode`, and an extension in words.

use postern_ipc::attr::{Attr, Dev, NodeKind, OpenFlags};
use postern_ipc::{Errno, Result};

use super::convert::kills_setid;

/// Bits of `perm` above the nine of every Unix. linux/net/9p/9p.h: P9_DM*
mod dm {
    pub(super) const DIR: u32 = 0x8000_0000;
    pub(super) const SYMLINK: u32 = 0x0200_0000;
    pub(super) const LINK: u32 = 0x0100_0000;
    pub(super) const DEVICE: u32 = 0x0080_0000;
    pub(super) const NAMED_PIPE: u32 = 0x0020_0000;
    pub(super) const SOCKET: u32 = 0x0010_0000;
    pub(super) const SETUID: u32 = 0x0008_0000;
    pub(super) const SETGID: u32 = 0x0004_0000;
    pub(super) const SETVTX: u32 = 0x0001_0000;
}

/// Bits of a mode in open(2)'s and in 9P2000.u's places.
const BITS: [(u32, u32); 4] = [(0o777, 0o777), (0o4000, dm::SETUID), (0o2000, dm::SETGID), (0o1000, dm::SETVTX)];
/// All of them in 9P2000.u's; the others of `perm` say what kind of file it is.
const PERMISSIONS: u32 = 0o777 | dm::SETUID | dm::SETGID | dm::SETVTX;

/// Bits of how a file is opened. linux/net/9p/9p.h: P9_O*; open(5)
mod o {
    pub(super) const ACCESS: u8 = 3;
    pub(super) const WRITE: u8 = 1;
    pub(super) const RDWR: u8 = 2;
    pub(super) const TRUNC: u8 = 0x10;
    pub(super) const RCLOSE: u8 = 0x40;
    pub(super) const APPEND: u8 = 0x80;
}

/// What Tcreate makes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Making {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link; the extension is what it says.
    Symlink,
    /// Another name of what a fid stands for; the extension is the fid.
    Link,
    /// A device, a pipe or a socket.
    Node(NodeKind),
}

impl Making {
    /// As `perm` and the extension say.
    ///
    /// # Errors
    /// EINVAL for more than one kind, for a kind that Unix has not (append-only, exclusive, temporary), and for a
    /// device that is described wrongly.
    pub(super) fn new(perm: u32, extension: &[u8]) -> Result<Self> {
        match perm & !PERMISSIONS {
            0 => Ok(Self::File),
            dm::DIR => Ok(Self::Dir),
            dm::SYMLINK => Ok(Self::Symlink),
            dm::LINK => Ok(Self::Link),
            dm::NAMED_PIPE => Ok(Self::Node(NodeKind::Fifo)),
            dm::SOCKET => Ok(Self::Node(NodeKind::Socket)),
            dm::DEVICE => device(extension).map(Self::Node),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// `b 8 1` or `c 1 3`: kind, major, minor.
fn device(extension: &[u8]) -> Result<NodeKind> {
    let mut words = extension.split(|&byte| byte == b' ');
    let (kind, major, minor) = (words.next(), words.next(), words.next());
    let dev = Dev { major: number(major)?, minor: number(minor)? };
    match (kind, words.next()) {
        (Some(b"b"), None) => Ok(NodeKind::Block(dev)),
        (Some(b"c"), None) => Ok(NodeKind::Char(dev)),
        _ => Err(Errno::EINVAL),
    }
}

/// A decimal number; Linux ends a fid with a newline.
///
/// # Errors
/// EINVAL for anything else.
pub(super) fn number(word: Option<&[u8]>) -> Result<u32> {
    let word = word.unwrap_or_default();
    let digits = word.strip_suffix(b"\n").unwrap_or(word);
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    digits.and_then(|digits| digits.parse().ok()).ok_or(Errno::EINVAL)
}

/// Permission, set-id and sticky bits of `perm`, as open(2) has them.
pub(super) fn mode(perm: u32) -> u32 {
    BITS.iter()
        .filter(|(_, theirs)| *theirs > 0o777 && perm & theirs != 0)
        .fold(perm & 0o777, |mode, (ours, _)| mode | ours)
}

/// `perm` of a file.
pub(super) fn perm(mode: u32) -> u32 {
    let kind = match mode & libc::S_IFMT {
        libc::S_IFDIR => dm::DIR,
        libc::S_IFLNK => dm::SYMLINK,
        libc::S_IFBLK | libc::S_IFCHR => dm::DEVICE,
        libc::S_IFIFO => dm::NAMED_PIPE,
        libc::S_IFSOCK => dm::SOCKET,
        _ => 0,
    };
    BITS.iter()
        .filter(|(ours, _)| *ours > 0o777 && mode & ours != 0)
        .fold(kind | mode & 0o777, |perm, (_, theirs)| perm | theirs)
}

/// Is this new `perm` of a file that has the other one of the same kind? Linux can be told to see no special files;
/// then it says nothing of their kind.
pub(super) fn is_kind(new: u32, now: u32) -> bool {
    let (new, now) = (new & !PERMISSIONS, now & !PERMISSIONS);
    new == now || new == 0 && now != dm::DIR
}

/// What 9P2000.u says of a file beside the numbers, unless it is a symbolic link: how many names it has, which device
/// it is.
pub(super) fn extension(attr: &Attr) -> String {
    let Dev { major, minor } = attr.rdev;
    match attr.kind() {
        libc::S_IFDIR | libc::S_IFREG => format!("HARDLINKCOUNT {}", attr.nlink),
        libc::S_IFBLK => format!("b {major} {minor}"),
        libc::S_IFCHR => format!("c {major} {minor}"),
        _ => String::new(),
    }
}

/// How Topen and Tcreate open a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Opening {
    /// As the file system knows it.
    pub flags: OpenFlags,
    /// It is to be removed when the fid goes.
    pub removes: bool,
}

impl Opening {
    /// On behalf of `uid`. To execute is to read; to close on exec is the client's own business.
    pub(super) fn new(mode: u8, uid: u32) -> Self {
        let mut flags = match mode & o::ACCESS {
            o::WRITE => OpenFlags::WRITE,
            o::RDWR => OpenFlags::READ | OpenFlags::WRITE,
            _ => OpenFlags::READ,
        };
        flags.set(OpenFlags::TRUNC, mode & o::TRUNC != 0);
        flags.set(OpenFlags::APPEND, mode & o::APPEND != 0);
        flags.set(OpenFlags::KILL_SETID, kills_setid(uid));
        Self { flags, removes: mode & o::RCLOSE != 0 }
    }

    /// A directory is read and no more. open(5)
    ///
    /// # Errors
    /// EISDIR.
    pub(super) fn suits_a_directory(self) -> Result<()> {
        let changes = self.removes || self.flags.intersects(OpenFlags::WRITE | OpenFlags::TRUNC);
        if changes { Err(Errno::EISDIR) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mode_is_the_same_there_and_back() {
        for bits in 0..0o10000 {
            assert_eq!(mode(perm(bits)), bits, "{bits:o}");
        }
        assert_eq!(perm(libc::S_IFDIR | 0o1755), dm::DIR | dm::SETVTX | 0o755);
        assert!(is_kind(0o600, perm(libc::S_IFIFO | 0o644)) && !is_kind(0o600, dm::DIR) && !is_kind(dm::DIR, 0o600));
    }

    // linux/fs/9p/vfs_inode.c: "b %u %u", "c %u %u"
    #[test]
    fn a_device_is_described_in_three_words() {
        let dev = Dev { major: 8, minor: 1 };
        assert_eq!(Making::new(dm::DEVICE | 0o600, b"b 8 1"), Ok(Making::Node(NodeKind::Block(dev))));
        assert_eq!(Making::new(dm::DEVICE, b"c 8 1"), Ok(Making::Node(NodeKind::Char(dev))));
        for wrong in
            [&b""[..], b"b", b"b 8", b"b 8 1 2", b"x 8 1", b"b -8 1", b"b +8 1", b"b 8 99999999999", b"b 8 \xff"]
        {
            assert_eq!(Making::new(dm::DEVICE, wrong), Err(Errno::EINVAL), "{}", wrong.escape_ascii());
        }
        for kinds in
            [dm::DIR | dm::SYMLINK, dm::DEVICE | dm::SOCKET, 0x4000_0000, 0x2000_0000, 0x0400_0000, !PERMISSIONS]
        {
            assert_eq!(Making::new(kinds, b"c 1 3"), Err(Errno::EINVAL), "{kinds:x}");
        }
    }
}
