//! What a file is: the attributes both sides read by statx(2), and the changes that may be asked for.

use std::os::fd::AsFd;

use bitflags::bitflags;
use rustix::fs::{AtFlags, Statx, StatxAttributes, StatxFlags, StatxTimestamp};
use serde::{Deserialize, Serialize};

use crate::errno::{Errno, Result};
use crate::id::{GuestGid, GuestUid};

/// A moment since the epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Time {
    /// Whole seconds; negative before 1970.
    pub sec: i64,
    /// 0 to 999 999 999.
    pub nsec: u32,
}

/// A device number, split as the kernel does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Dev {
    /// 12 bits on Linux.
    pub major: u32,
    /// 20 bits on Linux.
    pub minor: u32,
}

impl Dev {
    /// As 32 bits: the kernel's `new_encode_dev`, which FUSE and 9P use.
    pub fn encode(self) -> u32 {
        (self.minor & 0xff) | (self.major & 0xfff) << 8 | (self.minor & 0xf_ff00) << 12
    }

    /// The reverse: the kernel's `new_decode_dev`.
    pub fn decode(raw: u32) -> Self {
        Self { major: (raw >> 8) & 0xfff, minor: (raw & 0xff) | ((raw >> 12) & 0xf_ff00) }
    }
}

/// Which file: no two files of a share have the same, as long as either lives.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct FileId {
    /// Mount id, unique since boot where the kernel can tell (6.8). statx(2): STATX_MNT_ID_UNIQUE
    pub mount: u64,
    /// The file system; a btrfs mount has several.
    pub dev: Dev,
    /// Inode number.
    pub ino: u64,
}

/// The attributes of a file, ids as the share's map has them until they are [`shown`](crate::span::Shown). statx(2)
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attr {
    /// Mount, device and inode.
    pub id: FileId,
    /// File type and permission bits, S_IFMT included.
    pub mode: u32,
    /// Number of names.
    pub nlink: u32,
    /// Owner; 65534 when outside the map.
    pub uid: GuestUid,
    /// Group; 65534 when outside the map.
    pub gid: GuestGid,
    /// What a device node stands for.
    pub rdev: Dev,
    /// Bytes.
    pub size: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    /// Preferred size of a read or write, bytes.
    pub blksize: u32,
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Birth, where the file system knows it.
    pub btime: Option<Time>,
    /// It is the root of a mount: a submount of the share, or the share itself.
    pub mount_root: bool,
    /// It is an automount trigger: going below it may wait for who mounts there.
    pub automount: bool,
}

/// `STATX_MNT_ID_UNIQUE` of linux/stat.h, Linux 6.8; a kernel that does not know it ignores it.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

impl Attr {
    /// Of an open or O_PATH descriptor itself. One system call.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn of(fd: impl AsFd) -> Result<Self> {
        Self::at(fd, c"", AtFlags::EMPTY_PATH)
    }

    /// Of the entry `name` in a directory; a symlink is not followed, an automount not triggered.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn of_entry(dir: impl AsFd, name: &crate::name::FileName) -> Result<Self> {
        Self::at(dir, name.as_c_str(), AtFlags::empty())
    }

    /// Of what a relative path leads to; a symlink at its end is not followed. On the way the mount decides: that of a
    /// share follows none (MOUNT_ATTR_NOSYMFOLLOW).
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn of_path(dir: impl AsFd, path: &std::ffi::CStr) -> Result<Self> {
        Self::at(dir, path, AtFlags::empty())
    }

    fn at(dir: impl AsFd, path: &std::ffi::CStr, flags: AtFlags) -> Result<Self> {
        let flags = flags | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME | MNT_ID_UNIQUE;
        Self::from_statx(&rustix::fs::statx(dir, path, flags, mask)?)
    }

    fn from_statx(stat: &Statx) -> Result<Self> {
        let mask = StatxFlags::from_bits_retain(stat.stx_mask);
        if !mask.intersects(StatxFlags::MNT_ID | MNT_ID_UNIQUE) {
            return Err(Errno::ENOSYS);
        }
        Ok(Self {
            id: FileId { mount: stat.stx_mnt_id, dev: dev(stat.stx_dev_major, stat.stx_dev_minor), ino: stat.stx_ino },
            mode: u32::from(stat.stx_mode),
            nlink: stat.stx_nlink,
            uid: GuestUid(stat.stx_uid),
            gid: GuestGid(stat.stx_gid),
            rdev: dev(stat.stx_rdev_major, stat.stx_rdev_minor),
            size: stat.stx_size,
            blocks: stat.stx_blocks,
            blksize: stat.stx_blksize,
            atime: time(&stat.stx_atime),
            mtime: time(&stat.stx_mtime),
            ctime: time(&stat.stx_ctime),
            btime: mask.contains(StatxFlags::BTIME).then(|| time(&stat.stx_btime)),
            mount_root: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
            automount: stat.stx_attributes.contains(StatxAttributes::AUTOMOUNT),
        })
    }

    /// The file type bits. inode(7)
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }

    /// A regular file with a set-user-id or set-group-id bit, which a write by an ordinary process may take away.
    pub fn has_setid(&self) -> bool {
        self.kind() == libc::S_IFREG && self.mode & (libc::S_ISUID | libc::S_ISGID) != 0
    }
}

fn dev(major: u32, minor: u32) -> Dev {
    Dev { major, minor }
}

fn time(stamp: &StatxTimestamp) -> Time {
    Time { sec: stamp.tv_sec, nsec: stamp.tv_nsec }
}

/// Permission bits with set-id and sticky: 0 to 07777. chmod(2)
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Mode(u32);

/// In octal, as everybody reads it.
impl std::fmt::Debug for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "0{:03o}", self.0)
    }
}

impl Mode {
    /// The permission bits of `mode`; file type bits are cut off.
    pub const fn new(mode: u32) -> Self {
        Self(mode & 0o7777)
    }

    /// What people write for a file's or directory's permissions: octal, at most 777.
    ///
    /// # Errors
    /// If it is anything else.
    pub fn permissions(text: &str) -> std::result::Result<Self, &'static str> {
        let bits = u32::from_str_radix(text, 8).ok().filter(|bits| *bits <= 0o777);
        bits.map(Self::new).ok_or("must be an octal number up to 777")
    }

    /// 0 to 07777.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl TryFrom<u32> for Mode {
    type Error = &'static str;

    fn try_from(mode: u32) -> std::result::Result<Self, Self::Error> {
        if mode <= 0o7777 { Ok(Self(mode)) } else { Err("mode has more than permission bits") }
    }
}

impl From<Mode> for u32 {
    fn from(mode: Mode) -> u32 {
        mode.0
    }
}

/// What mknod(2) makes, besides directories and links.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A named pipe.
    Fifo,
    /// A Unix socket's name.
    Socket,
    /// A character device; 0:0 is overlayfs's whiteout.
    Char(Dev),
    /// A block device.
    Block(Dev),
}

impl NodeKind {
    /// From the type bits of a mode; none means a regular file. EINVAL for a directory or symlink. mknod(2)
    ///
    /// # Errors
    /// EINVAL as said.
    pub fn new(mode: u32, rdev: Dev) -> Result<Self> {
        match mode & libc::S_IFMT {
            0 | libc::S_IFREG => Ok(Self::File),
            libc::S_IFIFO => Ok(Self::Fifo),
            libc::S_IFSOCK => Ok(Self::Socket),
            libc::S_IFCHR => Ok(Self::Char(rdev)),
            libc::S_IFBLK => Ok(Self::Block(rdev)),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// What becomes of a time stamp. utimensat(2)
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum TimeChange {
    /// UTIME_OMIT
    #[default]
    Keep,
    /// UTIME_NOW
    Now,
    /// This very moment.
    At(Time),
}

/// What SETATTR asks for; `None` leaves a thing as it is. Applied in this order: owner, mode, size, times.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Changes {
    /// New owner. chown(2)
    pub uid: Option<GuestUid>,
    /// New group. chown(2)
    pub gid: Option<GuestGid>,
    /// New permission bits. chmod(2)
    pub mode: Option<Mode>,
    /// New length, bytes. ftruncate(2)
    pub size: Option<u64>,
    /// Last access.
    pub atime: TimeChange,
    /// Last change of the content.
    pub mtime: TimeChange,
    /// Set-id bits are to go when the size changes, whoever asks (FATTR_KILL_SUIDGID).
    pub kill_setid: bool,
}

bitflags! {
    /// How a regular file is opened. The helper adds O_NONBLOCK, O_NOFOLLOW, O_CLOEXEC and O_NOCTTY itself. open(2)
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
    #[serde(try_from = "u32", into = "u32")]
    pub struct OpenFlags: u32 {
        /// For reading.
        const READ = 1;
        /// For writing.
        const WRITE = 1 << 1;
        /// O_APPEND
        const APPEND = 1 << 2;
        /// O_TRUNC
        const TRUNC = 1 << 3;
        /// O_DIRECT
        const DIRECT = 1 << 4;
        /// O_SYNC
        const SYNC = 1 << 5;
        /// O_DSYNC
        const DSYNC = 1 << 6;
        /// O_NOATIME
        const NOATIME = 1 << 7;
        /// O_EXCL, for CREATE and TMPFILE.
        const EXCL = 1 << 8;
        /// Set-id bits are to go with O_TRUNC (FUSE_OPEN_KILL_SUIDGID).
        const KILL_SETID = 1 << 9;
    }

    /// As renameat2(2) has them.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
    #[serde(try_from = "u32", into = "u32")]
    pub struct RenameFlags: u32 {
        /// RENAME_NOREPLACE
        const NOREPLACE = libc::RENAME_NOREPLACE;
        /// RENAME_EXCHANGE
        const EXCHANGE = libc::RENAME_EXCHANGE;
        /// RENAME_WHITEOUT
        const WHITEOUT = libc::RENAME_WHITEOUT;
    }

    /// As setxattr(2) has them, and one of FUSE.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
    #[serde(try_from = "u32", into = "u32")]
    pub struct XattrFlags: u32 {
        /// XATTR_CREATE: EEXIST if there is one.
        const CREATE = 1;
        /// XATTR_REPLACE: ENODATA if there is none.
        const REPLACE = 2;
        /// The ACL being set takes the set-group-id bit away (FUSE_SETXATTR_ACL_KILL_SGID).
        const KILL_SGID = 4;
    }
}

/// Flags travel as a number in which only the named bits may be set.
macro_rules! checked_flags {
    ($($flags:ident)*) => { $(
        impl TryFrom<u32> for $flags {
            type Error = &'static str;

            fn try_from(bits: u32) -> std::result::Result<Self, Self::Error> {
                Self::from_bits(bits).ok_or(concat!("unknown bits in ", stringify!($flags)))
            }
        }

        impl From<$flags> for u32 {
            fn from(flags: $flags) -> u32 {
                flags.bits()
            }
        }
    )* };
}

checked_flags! { OpenFlags RenameFlags XattrFlags }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_numbers_survive_32_bits() {
        for (major, minor) in [(0, 0), (1, 3), (8, 0x1_2345), (0xfff, 0xf_ffff)] {
            let dev = Dev { major, minor };
            assert_eq!(Dev::decode(dev.encode()), dev);
        }
    }
}
