//! Messages, and what they consist of: here what all requests have, what attributes and extensions are, and how a
//! session begins.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::*;

pub use files::*;
pub use names::*;

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

mod files;
mod names;

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
