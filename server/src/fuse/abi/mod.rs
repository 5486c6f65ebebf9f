//! The FUSE protocol, level 7.45: message layouts, opcodes and flag bits, and nothing else.
//!
//! Source: Linux, `include/uapi/linux/fuse.h`. Every message starts with an [`InHeader`] or an [`OutHeader`]; all
//! numbers are in the byte order of the host. No structure has hidden padding, so each can be read from and written to
//! bytes as it is. Unknown flag bits survive a round trip.

mod flags;
mod layouts;

pub use flags::*;
pub use layouts::*;

/// Protocol major version.
pub const MAJOR: u32 = 7;
/// Protocol minor version these layouts are of.
pub const MINOR: u32 = 45;
/// nodeid of the root of the file system.
pub const ROOT_ID: u64 = 1;
/// Records that follow each other (directory entries, extensions) start at multiples of this.
pub const RECORD_ALIGN: usize = 8;
/// Most security contexts one creating request can carry.
pub const MAX_SECCTX: u32 = 31;
/// [`ExtHeader::kind`] of a list of supplementary groups; smaller kinds are a [`SecctxHeader`].
pub const EXT_GROUPS: u32 = 32;
/// uid or gid of a request whose caller has no id in the guest's mount, see [`InitFlags::ALLOW_IDMAP`].
pub const INVALID_ID: u32 = u32::MAX;
/// Bit of [`InHeader::unique`]: the request was sent once before.
pub const UNIQUE_RESEND: u64 = 1 << 63;
/// Most iovecs, in and out together, of an unrestricted ioctl.
pub const IOCTL_MAX_IOV: usize = 256;
/// Bytes of [`SetxattrIn`] from a guest that was not granted [`InitFlags::SETXATTR_EXT`].
pub const COMPAT_SETXATTR_IN_SIZE: usize = 8;

/// What a request asks for: [`InHeader::opcode`].
#[allow(missing_docs, reason = "the names are the protocol's own")]
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    /// Has no reply.
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const ACCESS: u32 = 34;
    pub const CREATE: u32 = 35;
    pub const INTERRUPT: u32 = 36;
    pub const BMAP: u32 = 37;
    pub const DESTROY: u32 = 38;
    pub const IOCTL: u32 = 39;
    pub const POLL: u32 = 40;
    pub const NOTIFY_REPLY: u32 = 41;
    /// Has no reply.
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SETUPMAPPING: u32 = 48;
    pub const REMOVEMAPPING: u32 = 49;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
    pub const COPY_FILE_RANGE_64: u32 = 53;
}
