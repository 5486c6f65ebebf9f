//! Flag words.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Flag words: each row is a bit number and its name.
macro_rules! flags {
    ($($(#[$doc:meta])* $name:ident: $bits:ty { $($(#[doc = $flag_doc:literal])* $flag:ident = $bit:literal;)* })*) => {$(
        $(#[$doc])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
        pub struct $name($bits);
        bitflags! {
            impl $name: $bits { $($(#[doc = $flag_doc])* const $flag = 1 << $bit;)* }
        }
    )*};
}

flags! {
    /// What the guest can do (INIT request) and what it is granted (INIT reply). On the wire in two words, the lower
    /// half in `flags`, the upper half in `flags2`.
    InitFlags: u64 {
        /// Several reads of one file may be in flight.
        ASYNC_READ = 0;
        /// POSIX record locks are taken by GETLK, SETLK and SETLKW.
        POSIX_LOCKS = 1;
        /// Reserved: file handles for fstat and the like.
        FILE_OPS = 2;
        /// OPEN carries O_TRUNC and truncates; the guest sends no SETATTR for it.
        ATOMIC_O_TRUNC = 3;
        /// LOOKUP of "." and ".." works, so that the guest can export the file system by NFS.
        EXPORT_SUPPORT = 4;
        /// A WRITE may carry more than 4 KiB.
        BIG_WRITES = 5;
        /// The guest leaves the umask to the server.
        DONT_MASK = 6;
        /// `/dev/fuse` only.
        SPLICE_WRITE = 7;
        /// `/dev/fuse` only.
        SPLICE_MOVE = 8;
        /// `/dev/fuse` only.
        SPLICE_READ = 9;
        /// flock(2) locks are taken by SETLK and SETLKW with [`LkFlags::FLOCK`].
        FLOCK_LOCKS = 10;
        /// IOCTL may name a directory.
        HAS_IOCTL_DIR = 11;
        /// The guest drops a file's cached pages when its mtime or size has changed.
        AUTO_INVAL_DATA = 12;
        /// READDIRPLUS is served.
        DO_READDIRPLUS = 13;
        /// The guest chooses between READDIR and READDIRPLUS.
        READDIRPLUS_AUTO = 14;
        /// Direct I/O may be submitted asynchronously.
        ASYNC_DIO = 15;
        /// The guest caches writes, and owns mtime and size meanwhile.
        WRITEBACK_CACHE = 16;
        /// OPEN answered by ENOSYS means that files need no opening.
        NO_OPEN_SUPPORT = 17;
        /// Look-ups and readdir of one directory may run in parallel.
        PARALLEL_DIROPS = 18;
        /// The server clears set-id bits and capabilities on every write, chown and truncate.
        HANDLE_KILLPRIV = 19;
        /// POSIX ACLs: the guest checks them, the server keeps them.
        POSIX_ACL = 20;
        /// `/dev/fuse` only.
        ABORT_ERROR = 21;
        /// `max_pages` of the reply is valid.
        MAX_PAGES = 22;
        /// The guest may cache the targets of symbolic links.
        CACHE_SYMLINKS = 23;
        /// OPENDIR answered by ENOSYS means that directories need no opening.
        NO_OPENDIR_SUPPORT = 24;
        /// The guest drops cached pages only when told so.
        EXPLICIT_INVAL_DATA = 25;
        /// `map_alignment` of the reply is valid.
        MAP_ALIGNMENT = 26;
        /// A directory with [`AttrFlags::SUBMOUNT`] becomes a mount of its own in the guest.
        SUBMOUNTS = 27;
        /// As HANDLE_KILLPRIV, but only where the guest asks for it, request by request.
        HANDLE_KILLPRIV_V2 = 28;
        /// SETXATTR has the long [`super::SetxattrIn`].
        SETXATTR_EXT = 29;
        /// `flags2` is valid.
        INIT_EXT = 30;
        /// Must not be used.
        INIT_RESERVED = 31;
        /// Creating requests carry the new file's security context.
        SECURITY_CTX = 32;
        /// [`AttrFlags::DAX`] is honoured.
        HAS_INODE_DAX = 33;
        /// Creating requests carry the caller's group that matches the directory's.
        CREATE_SUPP_GROUP = 34;
        /// An entry can be expired without being invalidated.
        HAS_EXPIRE_ONLY = 35;
        /// Files opened for direct I/O can still be mapped shared.
        DIRECT_IO_ALLOW_MMAP = 36;
        /// `/dev/fuse` only.
        PASSTHROUGH = 37;
        /// The guest refuses to export the file system by NFS.
        NO_EXPORT_SUPPORT = 38;
        /// The guest can be told to send its unanswered requests again.
        HAS_RESEND = 39;
        /// The guest may mount with mapped ids: then only creating requests carry valid ids.
        ALLOW_IDMAP = 40;
        /// `/dev/fuse` only.
        OVER_IO_URING = 41;
        /// `request_timeout` of the reply is valid.
        REQUEST_TIMEOUT = 42;
    }

    /// Which members of [`super::SetattrIn`] are valid.
    SetattrValid: u32 {
        /// Set the permission bits.
        MODE = 0;
        /// Set the owner.
        UID = 1;
        /// Set the group.
        GID = 2;
        /// Set the size.
        SIZE = 3;
        /// Set the time of last access.
        ATIME = 4;
        /// Set the time of last modification.
        MTIME = 5;
        /// `fh` is valid.
        FH = 6;
        /// The time of last access is the server's now.
        ATIME_NOW = 7;
        /// The time of last modification is the server's now.
        MTIME_NOW = 8;
        /// `lock_owner` is valid.
        LOCKOWNER = 9;
        /// The time of last change comes from a guest with write-back cache.
        CTIME = 10;
        /// Clear set-id bits.
        KILL_SUIDGID = 11;
    }

    /// [`super::OpenIn::open_flags`], [`super::CreateIn::open_flags`]: beside the flags of open(2).
    OpenInFlags: u32 {
        /// The file is truncated by a caller who may not keep its set-id bits.
        KILL_SUIDGID = 0;
    }

    /// [`super::OpenOut::open_flags`]: how the guest is to treat the open file.
    OpenOutFlags: u32 {
        /// No page cache for this file.
        DIRECT_IO = 0;
        /// Cached pages stay valid over the open.
        KEEP_CACHE = 1;
        /// Seeking is an error.
        NONSEEKABLE = 2;
        /// Directory entries may be cached.
        CACHE_DIR = 3;
        /// The file has no position.
        STREAM = 4;
        /// No FLUSH on close.
        NOFLUSH = 5;
        /// Direct writes to one file may run in parallel.
        PARALLEL_DIRECT_WRITES = 6;
        /// `/dev/fuse` only.
        PASSTHROUGH = 7;
    }

    /// [`super::GetattrIn::getattr_flags`], [`super::StatxIn::getattr_flags`].
    GetattrFlags: u32 {
        /// `fh` is valid.
        FH = 0;
    }

    /// [`super::Attr::flags`].
    AttrFlags: u32 {
        /// The directory is the root of another mount.
        SUBMOUNT = 0;
        /// The file is to be mapped directly.
        DAX = 1;
    }

    /// [`super::ReadIn::read_flags`].
    ReadFlags: u32 {
        /// `lock_owner` is valid.
        LOCKOWNER = 1;
    }

    /// [`super::WriteIn::write_flags`].
    WriteFlags: u32 {
        /// Comes from the page cache, any open handle of the file may be given.
        CACHE = 0;
        /// `lock_owner` is valid.
        LOCKOWNER = 1;
        /// Clear set-id bits.
        KILL_SUIDGID = 2;
    }

    /// [`super::ReleaseIn::release_flags`].
    ReleaseFlags: u32 {
        /// Flush too.
        FLUSH = 0;
        /// Drop the flock(2) lock of `lock_owner`.
        FLOCK_UNLOCK = 1;
    }

    /// [`super::FsyncIn::fsync_flags`].
    FsyncFlags: u32 {
        /// As fdatasync(2): data, and of the metadata only what reading it back needs.
        FDATASYNC = 0;
    }

    /// [`super::SetxattrIn::setxattr_flags`].
    SetxattrFlags: u32 {
        /// Clear the set-group-id bit, an access ACL was set by a caller outside the file's group.
        ACL_KILL_SGID = 0;
    }

    /// [`super::LkIn::lk_flags`].
    LkFlags: u32 {
        /// A flock(2) lock on the whole file.
        FLOCK = 0;
    }

    /// [`super::IoctlIn::flags`], [`super::IoctlOut::flags`].
    IoctlFlags: u32 {
        /// 32-bit layout on a 64-bit guest.
        COMPAT = 0;
        /// Any memory of the caller may be asked for.
        UNRESTRICTED = 1;
        /// Reply: again, with these iovecs.
        RETRY = 2;
        /// Caller is 32-bit.
        BITS_32 = 3;
        /// The file is a directory.
        DIR = 4;
        /// x32 layout on a 64-bit guest.
        COMPAT_X32 = 5;
    }

    /// [`super::PollIn::flags`].
    PollFlags: u32 {
        /// Notify when ready.
        SCHEDULE_NOTIFY = 0;
    }

    /// [`super::SetupmappingIn::flags`].
    MappingFlags: u64 {
        /// Map for writing.
        WRITE = 0;
        /// Map for reading.
        READ = 1;
    }
}
