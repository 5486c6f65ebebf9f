//! The FUSE protocol, level 7.45: message layouts, opcodes and flag bits, and nothing else.
//!
//! Source: Linux, `include/uapi/linux/fuse.h`. Every message starts with an [`InHeader`] or an
//! [`OutHeader`]; all numbers are in the byte order of the host. No structure has hidden padding,
//! so each can be read from and written to bytes as it is. Unknown flag bits survive a round trip.

use bitflags::bitflags;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

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
    /// What the guest can do (INIT request) and what it is granted (INIT reply). On the wire in two
    /// words, the lower half in `flags`, the upper half in `flags2`.
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
        /// SETXATTR has the long [`super::abi::SetxattrIn`].
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

    /// Which members of [`SetattrIn`] are valid.
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

    /// [`OpenIn::open_flags`], [`CreateIn::open_flags`]: beside the flags of open(2).
    OpenInFlags: u32 {
        /// The file is truncated by a caller who may not keep its set-id bits.
        KILL_SUIDGID = 0;
    }

    /// [`OpenOut::open_flags`]: how the guest is to treat the open file.
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

    /// [`GetattrIn::getattr_flags`], [`StatxIn::getattr_flags`].
    GetattrFlags: u32 {
        /// `fh` is valid.
        FH = 0;
    }

    /// [`Attr::flags`].
    AttrFlags: u32 {
        /// The directory is the root of another mount.
        SUBMOUNT = 0;
        /// The file is to be mapped directly.
        DAX = 1;
    }

    /// [`ReadIn::read_flags`].
    ReadFlags: u32 {
        /// `lock_owner` is valid.
        LOCKOWNER = 1;
    }

    /// [`WriteIn::write_flags`].
    WriteFlags: u32 {
        /// Comes from the page cache, any open handle of the file may be given.
        CACHE = 0;
        /// `lock_owner` is valid.
        LOCKOWNER = 1;
        /// Clear set-id bits.
        KILL_SUIDGID = 2;
    }

    /// [`ReleaseIn::release_flags`].
    ReleaseFlags: u32 {
        /// Flush too.
        FLUSH = 0;
        /// Drop the flock(2) lock of `lock_owner`.
        FLOCK_UNLOCK = 1;
    }

    /// [`FsyncIn::fsync_flags`].
    FsyncFlags: u32 {
        /// As fdatasync(2): data, and of the metadata only what reading it back needs.
        FDATASYNC = 0;
    }

    /// [`SetxattrIn::setxattr_flags`].
    SetxattrFlags: u32 {
        /// Clear the set-group-id bit, an access ACL was set by a caller outside the file's group.
        ACL_KILL_SGID = 0;
    }

    /// [`LkIn::lk_flags`].
    LkFlags: u32 {
        /// A flock(2) lock on the whole file.
        FLOCK = 0;
    }

    /// [`IoctlIn::flags`], [`IoctlOut::flags`].
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

    /// [`PollIn::flags`].
    PollFlags: u32 {
        /// Notify when ready.
        SCHEDULE_NOTIFY = 0;
    }

    /// [`SetupmappingIn::flags`].
    MappingFlags: u64 {
        /// Map for writing.
        WRITE = 0;
        /// Map for reading.
        READ = 1;
    }
}

/// Message layouts, each with its size in the C header.
macro_rules! layouts {
    ($($(#[$doc:meta])* $name:ident [$size:literal] { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
        pub struct $name { $($(#[$field_doc])* pub $field: $ty,)* }
        const _: () = assert!(size_of::<$name>() == $size);
    )*};
}

layouts! {
    /// Starts every request.
    InHeader [40] {
        /// Bytes of the whole request, this header and all extensions included.
        len: u32,
        /// One of [`opcode`].
        opcode: u32,
        /// Pairs the reply with its request.
        unique: u64,
        /// The node the request is about.
        nodeid: u64,
        /// Caller's fsuid, a guest id.
        uid: u32,
        /// Caller's fsgid, a guest id.
        gid: u32,
        /// Caller's process, in the guest.
        pid: u32,
        /// Extensions at the end of the request, in units of 8 bytes.
        total_extlen: u16,
        /// Zero.
        padding: u16,
    }

    /// Starts every reply.
    OutHeader [16] {
        /// Bytes of the whole reply, this header included.
        len: u32,
        /// 0 or a negative errno; with an error nothing follows.
        error: i32,
        /// Of the request.
        unique: u64,
    }

    /// What stat(2) shows.
    Attr [88] {
        /// Inode number.
        ino: u64,
        /// Bytes.
        size: u64,
        /// Units of 512 bytes.
        blocks: u64,
        /// Last access, seconds.
        atime: u64,
        /// Last modification, seconds.
        mtime: u64,
        /// Last change, seconds.
        ctime: u64,
        /// Last access, nanoseconds below a second.
        atimensec: u32,
        /// Last modification, nanoseconds below a second.
        mtimensec: u32,
        /// Last change, nanoseconds below a second.
        ctimensec: u32,
        /// Kind and permission bits.
        mode: u32,
        /// Number of names.
        nlink: u32,
        /// Owner, a guest id.
        uid: u32,
        /// Group, a guest id.
        gid: u32,
        /// Number of a device node, encoded as the kernel's `new_encode_dev`.
        rdev: u32,
        /// Preferred block size for I/O, bytes.
        blksize: u32,
        /// Submount, DAX.
        flags: AttrFlags,
    }

    /// Reply to GETATTR and SETATTR.
    AttrOut [104] {
        /// For how long the attributes may be cached, seconds.
        attr_valid: u64,
        /// And nanoseconds.
        attr_valid_nsec: u32,
        /// Zero.
        dummy: u32,
        /// The attributes.
        attr: Attr,
    }

    /// Reply to LOOKUP and to all that makes a name; each raises the node's look-up count by one.
    EntryOut [128] {
        /// 0 in a reply to LOOKUP: the name does not exist, which may be cached.
        nodeid: u64,
        /// Differs for every use of the same nodeid.
        generation: u64,
        /// For how long the name may be cached, seconds.
        entry_valid: u64,
        /// For how long the attributes may be cached, seconds.
        attr_valid: u64,
        /// And nanoseconds.
        entry_valid_nsec: u32,
        /// And nanoseconds.
        attr_valid_nsec: u32,
        /// The attributes.
        attr: Attr,
    }

    /// FORGET.
    ForgetIn [8] {
        /// Taken from the node's look-up count.
        nlookup: u64,
    }

    /// BATCH_FORGET, followed by `count` times [`ForgetOne`].
    BatchForgetIn [8] {
        /// Number of nodes.
        count: u32,
        /// Zero.
        dummy: u32,
    }

    /// One node of a BATCH_FORGET.
    ForgetOne [16] {
        /// The node.
        nodeid: u64,
        /// Taken from its look-up count.
        nlookup: u64,
    }

    /// GETATTR.
    GetattrIn [16] {
        /// Whether `fh` is valid.
        getattr_flags: GetattrFlags,
        /// Zero.
        dummy: u32,
        /// An open file of the node.
        fh: u64,
    }

    /// SETATTR.
    SetattrIn [88] {
        /// What to set.
        valid: SetattrValid,
        /// Zero.
        padding: u32,
        /// An open file of the node.
        fh: u64,
        /// Bytes.
        size: u64,
        /// Owner of POSIX locks.
        lock_owner: u64,
        /// Seconds.
        atime: u64,
        /// Seconds.
        mtime: u64,
        /// Seconds.
        ctime: u64,
        /// Nanoseconds below a second.
        atimensec: u32,
        /// Nanoseconds below a second.
        mtimensec: u32,
        /// Nanoseconds below a second.
        ctimensec: u32,
        /// Permission bits, the kind is ignored.
        mode: u32,
        /// Zero.
        unused4: u32,
        /// A guest id.
        uid: u32,
        /// A guest id.
        gid: u32,
        /// Zero.
        unused5: u32,
    }

    /// MKNOD, followed by the name.
    MknodIn [16] {
        /// Kind and permission bits.
        mode: u32,
        /// Number of the device, encoded as the kernel's `new_encode_dev`.
        rdev: u32,
        /// Caller's umask, applied already unless [`InitFlags::DONT_MASK`].
        umask: u32,
        /// Zero.
        padding: u32,
    }

    /// MKDIR, followed by the name.
    MkdirIn [8] {
        /// Permission bits.
        mode: u32,
        /// Caller's umask, applied already unless [`InitFlags::DONT_MASK`].
        umask: u32,
    }

    /// RENAME, followed by the old and the new name.
    RenameIn [8] {
        /// Directory of the new name.
        newdir: u64,
    }

    /// RENAME2, followed by the old and the new name.
    Rename2In [16] {
        /// Directory of the new name.
        newdir: u64,
        /// RENAME_* of renameat2(2).
        flags: u32,
        /// Zero.
        padding: u32,
    }

    /// LINK, followed by the new name; the request's node is its directory.
    LinkIn [8] {
        /// The node to give another name.
        oldnodeid: u64,
    }

    /// OPEN and OPENDIR.
    OpenIn [8] {
        /// Flags of open(2) in the guest's values.
        flags: u32,
        /// Beside them.
        open_flags: OpenInFlags,
    }

    /// CREATE, followed by the name; TMPFILE, followed by an empty name.
    CreateIn [16] {
        /// Flags of open(2) in the guest's values.
        flags: u32,
        /// Permission bits.
        mode: u32,
        /// Caller's umask, applied already unless [`InitFlags::DONT_MASK`].
        umask: u32,
        /// Beside `flags`.
        open_flags: OpenInFlags,
    }

    /// Reply to OPEN and OPENDIR; follows the [`EntryOut`] in a reply to CREATE and TMPFILE.
    OpenOut [16] {
        /// The open file.
        fh: u64,
        /// How to treat it.
        open_flags: OpenOutFlags,
        /// `/dev/fuse` only.
        backing_id: i32,
    }

    /// RELEASE and RELEASEDIR.
    ReleaseIn [24] {
        /// The open file; not used again.
        fh: u64,
        /// Flags it was opened with.
        flags: u32,
        /// What else to do.
        release_flags: ReleaseFlags,
        /// Owner of locks.
        lock_owner: u64,
    }

    /// FLUSH: one descriptor of an open file was closed.
    FlushIn [24] {
        /// The open file.
        fh: u64,
        /// Zero.
        unused: u32,
        /// Zero.
        padding: u32,
        /// Owner whose POSIX locks end.
        lock_owner: u64,
    }

    /// READ, READDIR and READDIRPLUS.
    ReadIn [40] {
        /// The open file.
        fh: u64,
        /// Bytes; in a directory the `off` of the last entry seen, 0 at first.
        offset: u64,
        /// Most bytes to return.
        size: u32,
        /// Whether `lock_owner` is valid.
        read_flags: ReadFlags,
        /// Owner of locks.
        lock_owner: u64,
        /// The file's flags of open(2) now.
        flags: u32,
        /// Zero.
        padding: u32,
    }

    /// WRITE, followed by the data.
    WriteIn [40] {
        /// The open file.
        fh: u64,
        /// Bytes.
        offset: u64,
        /// Bytes of data.
        size: u32,
        /// Where it comes from.
        write_flags: WriteFlags,
        /// Owner of locks.
        lock_owner: u64,
        /// The file's flags of open(2) now.
        flags: u32,
        /// Zero.
        padding: u32,
    }

    /// Reply to WRITE and COPY_FILE_RANGE.
    WriteOut [8] {
        /// Bytes written.
        size: u32,
        /// Zero.
        padding: u32,
    }

    /// Reply to STATFS; members as in statvfs(3).
    StatfsOut [80] {
        /// Size, in units of `frsize`.
        blocks: u64,
        /// Free.
        bfree: u64,
        /// Free for ordinary users.
        bavail: u64,
        /// Inodes.
        files: u64,
        /// Free inodes.
        ffree: u64,
        /// Preferred block size for I/O, bytes.
        bsize: u32,
        /// Longest name, bytes.
        namelen: u32,
        /// Unit of the counts, bytes.
        frsize: u32,
        /// Zero.
        padding: u32,
        /// Zero.
        spare: [u32; 6],
    }

    /// FSYNC and FSYNCDIR.
    FsyncIn [16] {
        /// The open file.
        fh: u64,
        /// How much to sync.
        fsync_flags: FsyncFlags,
        /// Zero.
        padding: u32,
    }

    /// SYNCFS.
    SyncfsIn [8] {
        /// Zero.
        padding: u64,
    }

    /// SETXATTR, followed by the name and the value.
    SetxattrIn [16] {
        /// Bytes of the value.
        size: u32,
        /// XATTR_* of setxattr(2).
        flags: u32,
        /// Missing, as what follows, without [`InitFlags::SETXATTR_EXT`].
        setxattr_flags: SetxattrFlags,
        /// Zero.
        padding: u32,
    }

    /// GETXATTR, followed by the name, and LISTXATTR.
    GetxattrIn [8] {
        /// Room for the value, bytes; 0 asks for its size.
        size: u32,
        /// Zero.
        padding: u32,
    }

    /// Reply to GETXATTR and LISTXATTR with `size` 0.
    GetxattrOut [8] {
        /// Bytes.
        size: u32,
        /// Zero.
        padding: u32,
    }

    /// A range of a file and how it is locked.
    FileLock [24] {
        /// First byte.
        start: u64,
        /// Last byte; `i64::MAX` is the end of the file wherever it moves.
        end: u64,
        /// F_RDLCK, F_WRLCK or F_UNLCK.
        kind: u32,
        /// Who holds it.
        pid: u32,
    }

    /// GETLK, SETLK and SETLKW.
    LkIn [48] {
        /// The open file.
        fh: u64,
        /// Who asks.
        owner: u64,
        /// What for.
        lk: FileLock,
        /// Whether it is a flock(2) lock.
        lk_flags: LkFlags,
        /// Zero.
        padding: u32,
    }

    /// Reply to GETLK.
    LkOut [24] {
        /// The lock in the way.
        lk: FileLock,
    }

    /// ACCESS.
    AccessIn [8] {
        /// R_OK, W_OK, X_OK of access(2).
        mask: u32,
        /// Zero.
        padding: u32,
    }

    /// INIT. A guest before 7.36 sends the first four members only.
    InitIn [64] {
        /// Protocol major version.
        major: u32,
        /// Protocol minor version.
        minor: u32,
        /// Bytes.
        max_readahead: u32,
        /// [`InitFlags`], lower half.
        flags: u32,
        /// [`InitFlags`], upper half.
        flags2: u32,
        /// Zero.
        unused: [u32; 11],
    }

    /// Reply to INIT.
    InitOut [64] {
        /// Protocol major version.
        major: u32,
        /// Protocol minor version.
        minor: u32,
        /// Bytes.
        max_readahead: u32,
        /// [`InitFlags`], lower half.
        flags: u32,
        /// Most background requests in flight.
        max_background: u16,
        /// From this many on the guest holds new ones back.
        congestion_threshold: u16,
        /// Most bytes in a WRITE.
        max_write: u32,
        /// Granularity of timestamps, nanoseconds.
        time_gran: u32,
        /// Most pages of data in a request.
        max_pages: u16,
        /// Alignment of mappings, as a power of two.
        map_alignment: u16,
        /// [`InitFlags`], upper half.
        flags2: u32,
        /// `/dev/fuse` only.
        max_stack_depth: u32,
        /// The guest gives up on the server after this many seconds; 0 is never.
        request_timeout: u16,
        /// Zero.
        unused: [u16; 11],
    }

    /// INTERRUPT.
    InterruptIn [8] {
        /// Of the request to interrupt.
        unique: u64,
    }

    /// BMAP.
    BmapIn [16] {
        /// Block of the file.
        block: u64,
        /// Bytes.
        blocksize: u32,
        /// Zero.
        padding: u32,
    }

    /// Reply to BMAP.
    BmapOut [8] {
        /// Block of the device.
        block: u64,
    }

    /// IOCTL, followed by `in_size` bytes.
    IoctlIn [32] {
        /// The open file.
        fh: u64,
        /// How to read `arg`.
        flags: IoctlFlags,
        /// Request number of ioctl(2).
        cmd: u32,
        /// Address in the caller's memory, or a plain number.
        arg: u64,
        /// Bytes that follow.
        in_size: u32,
        /// Most bytes to return.
        out_size: u32,
    }

    /// Reply to IOCTL, followed by the data.
    IoctlOut [16] {
        /// What ioctl(2) returns.
        result: i32,
        /// Whether to come again.
        flags: IoctlFlags,
        /// Iovecs to send.
        in_iovs: u32,
        /// Iovecs to fill.
        out_iovs: u32,
    }

    /// POLL.
    PollIn [24] {
        /// The open file.
        fh: u64,
        /// Names the waiter.
        kh: u64,
        /// Whether to notify.
        flags: PollFlags,
        /// Events of poll(2).
        events: u32,
    }

    /// Reply to POLL.
    PollOut [8] {
        /// Events of poll(2) that are ready.
        revents: u32,
        /// Zero.
        padding: u32,
    }

    /// FALLOCATE.
    FallocateIn [32] {
        /// The open file.
        fh: u64,
        /// Bytes.
        offset: u64,
        /// Bytes.
        length: u64,
        /// FALLOC_FL_* of fallocate(2).
        mode: u32,
        /// Zero.
        padding: u32,
    }

    /// A directory entry, followed by its name and zeros up to [`RECORD_ALIGN`].
    Dirent [24] {
        /// Inode number.
        ino: u64,
        /// Where to go on after this entry.
        off: u64,
        /// Bytes of the name.
        namelen: u32,
        /// DT_* of readdir(3).
        kind: u32,
    }

    /// A directory entry with what a LOOKUP of it replies; followed as [`Dirent`] is.
    Direntplus [152] {
        /// A `nodeid` of 0: not looked up, and no look-up count raised.
        entry: EntryOut,
        /// The entry.
        dirent: Dirent,
    }

    /// LSEEK.
    LseekIn [24] {
        /// The open file.
        fh: u64,
        /// Bytes.
        offset: u64,
        /// SEEK_DATA or SEEK_HOLE of lseek(2).
        whence: u32,
        /// Zero.
        padding: u32,
    }

    /// Reply to LSEEK.
    LseekOut [8] {
        /// Bytes.
        offset: u64,
    }

    /// COPY_FILE_RANGE (answered by [`WriteOut`]) and COPY_FILE_RANGE_64 (by [`CopyFileRangeOut`]);
    /// the request's node is the source.
    CopyFileRangeIn [56] {
        /// Open source.
        fh_in: u64,
        /// Bytes.
        off_in: u64,
        /// Destination.
        nodeid_out: u64,
        /// Open destination.
        fh_out: u64,
        /// Bytes.
        off_out: u64,
        /// Bytes.
        len: u64,
        /// Of copy_file_range(2).
        flags: u64,
    }

    /// Reply to COPY_FILE_RANGE_64.
    CopyFileRangeOut [8] {
        /// Bytes.
        bytes_copied: u64,
    }

    /// SETUPMAPPING.
    SetupmappingIn [40] {
        /// The open file.
        fh: u64,
        /// Bytes, into the file.
        foffset: u64,
        /// Bytes.
        len: u64,
        /// For what.
        flags: MappingFlags,
        /// Bytes, into the shared memory window.
        moffset: u64,
    }

    /// REMOVEMAPPING, followed by `count` times [`RemovemappingOne`].
    RemovemappingIn [4] {
        /// Number of mappings.
        count: u32,
    }

    /// One mapping of a REMOVEMAPPING.
    RemovemappingOne [16] {
        /// Bytes, into the shared memory window.
        moffset: u64,
        /// Bytes.
        len: u64,
    }

    /// A time of [`Statx`].
    SxTime [16] {
        /// Seconds.
        sec: i64,
        /// Nanoseconds below a second.
        nsec: u32,
        /// Zero.
        reserved: i32,
    }

    /// What statx(2) shows.
    Statx [256] {
        /// STATX_*: which members are valid.
        mask: u32,
        /// Preferred block size for I/O, bytes.
        blksize: u32,
        /// STATX_ATTR_*.
        attributes: u64,
        /// Number of names.
        nlink: u32,
        /// Owner, a guest id.
        uid: u32,
        /// Group, a guest id.
        gid: u32,
        /// Kind and permission bits.
        mode: u16,
        /// Zero.
        spare0: u16,
        /// Inode number.
        ino: u64,
        /// Bytes.
        size: u64,
        /// Units of 512 bytes.
        blocks: u64,
        /// Which of `attributes` are known.
        attributes_mask: u64,
        /// Last access.
        atime: SxTime,
        /// Birth.
        btime: SxTime,
        /// Last change.
        ctime: SxTime,
        /// Last modification.
        mtime: SxTime,
        /// Of a device node.
        rdev_major: u32,
        /// Of a device node.
        rdev_minor: u32,
        /// Of the file system.
        dev_major: u32,
        /// Of the file system.
        dev_minor: u32,
        /// Zero.
        spare2: [u64; 14],
    }

    /// STATX.
    StatxIn [24] {
        /// Whether `fh` is valid.
        getattr_flags: GetattrFlags,
        /// Zero.
        reserved: u32,
        /// An open file of the node.
        fh: u64,
        /// AT_STATX_* of statx(2).
        sx_flags: u32,
        /// STATX_*: what is wanted.
        sx_mask: u32,
    }

    /// Reply to STATX.
    StatxOut [288] {
        /// For how long the attributes may be cached, seconds.
        attr_valid: u64,
        /// And nanoseconds.
        attr_valid_nsec: u32,
        /// Zero.
        flags: u32,
        /// Zero.
        spare: [u64; 2],
        /// The attributes.
        stat: Statx,
    }

    /// Starts an extension at the end of a creating request.
    ExtHeader [8] {
        /// Bytes of the extension, this header included, up to [`RECORD_ALIGN`].
        size: u32,
        /// [`EXT_GROUPS`], or the number of security contexts.
        kind: u32,
    }

    /// Extension [`EXT_GROUPS`], after its header; followed by `nr_groups` guest ids of 4 bytes.
    SuppGroups [4] {
        /// Number of groups.
        nr_groups: u32,
    }

    /// [`ExtHeader`] of security contexts, seen as what it then is.
    SecctxHeader [8] {
        /// Bytes, this header included.
        size: u32,
        /// Number of [`Secctx`] that follow.
        nr_secctx: u32,
    }

    /// A security context: followed by the xattr's name with its NUL and by the value, then zeros up
    /// to [`RECORD_ALIGN`].
    Secctx [8] {
        /// Bytes of the value.
        size: u32,
        /// Zero.
        padding: u32,
    }
}
