//! Messages, and what they consist of.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::*;

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
