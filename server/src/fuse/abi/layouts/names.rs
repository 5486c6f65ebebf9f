//! Of nodes, of names in directories, and of extended attributes.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::*;

layouts! {
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

    /// ACCESS.
    AccessIn [8] {
        /// R_OK, W_OK, X_OK of access(2).
        mask: u32,
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
}
