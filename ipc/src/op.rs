//! THE TABLE: every operation the helper does, told once.
//!
//! A row reads: number, name, [descriptors sent along], { what is asked } + bulk data if it brings any -> what is
//! answered [descriptors given back, or a list of them: `each`] + bulk data if it answers with any; at the end `again`
//! when a request whose answer was lost with its helper may be sent once more (doing it twice is the same as doing it
//! once) or `once`.
//!
//! Every operation can besides fail with EROFS (read-only share, row needs a right to write), EPERM (an id comes with
//! it that the share forbids), ESTALE (a descriptor's node has been moved out of the share), EIO (no helper) and what
//! the file system itself gives.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::attr::{Attr, Changes, Mode, NodeKind, OpenFlags, RenameFlags, XattrFlags};
use crate::errno::Result;
use crate::few::{Each, Few};
use crate::frame::DATA_MAX;
use crate::name::{FileName, Names, Target, XattrName};

/// What a row of the table says of its operation.
pub trait Op: Serialize + DeserializeOwned + std::fmt::Debug {
    /// Its number on the wire and its name in logs.
    const KIND: Kind;
    /// Descriptors that come along, in the order of the row.
    type At<T>: AsRef<[T]> + Few<T>;
    /// Most bytes of bulk data the request brings.
    const DATA: usize;
    /// The answer.
    type Reply: Serialize + DeserializeOwned + std::fmt::Debug;
    /// Descriptors given back, in the order of the row.
    type Gives<T>: AsRef<[T]> + Few<T> + IntoIterator<Item = T>;
    /// Most bytes of bulk data the answer brings.
    const REPLY_DATA: usize;
    /// Doing it twice is the same as doing it once.
    const REPEATABLE: bool;
}

macro_rules! ops {
    ($($(#[$doc:meta])* $number:literal $name:ident [$($at:ident),*] { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? }
        $(+ $data:ident)? -> $reply:ty, [$($gives:ident),* $(; $each:ident)?] $(+ $reply_data:ident)?, $again:ident;)*) => {
        /// The operations by number.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u16)]
        pub enum Kind { $($(#[$doc])* $name = $number,)* }

        impl Kind {
            /// Every row, in the order of the table.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),*];

            /// How many descriptors come along with a request.
            pub fn descriptors(self) -> usize {
                match self { $(Kind::$name => count!($($at)*),)* }
            }
        }

        impl TryFrom<u16> for Kind {
            type Error = &'static str;
            fn try_from(number: u16) -> std::result::Result<Self, Self::Error> {
                match number { $($number => Ok(Kind::$name),)* _ => Err("unknown operation") }
            }
        }

        $(
            $(#[$doc])*
            #[derive(Debug, Serialize, Deserialize)]
            #[allow(missing_docs, reason = "the row says it; a field with a unit says its own")]
            pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }

            impl Op for $name {
                const KIND: Kind = Kind::$name;
                type At<T> = [T; count!($($at)*)];
                const DATA: usize = most!($($data)?);
                type Reply = $reply;
                type Gives<T> = gives!(T, count!($($gives)*) $(, $each)?);
                const REPLY_DATA: usize = most!($($reply_data)?);
                const REPEATABLE: bool = repeatable!($again);
            }
        )*
    };
}

macro_rules! count {
    () => {
        0
    };
    ($a:ident) => {
        1
    };
    ($a:ident $b:ident) => {
        2
    };
}

macro_rules! gives {
    ($t:ty, $count:expr) => {
        [$t; $count]
    };
    ($t:ty, $count:expr, each) => {
        Each<$t>
    };
}

macro_rules! most {
    () => {
        0
    };
    ($data:ident) => {
        DATA_MAX
    };
}

macro_rules! repeatable {
    (again) => {
        true
    };
    (once) => {
        false
    };
}

ops! {
    /// Look a name up and pin it by an O_PATH descriptor, for a server that may not search the directory itself.
    /// ENOENT, ENOTDIR. openat(2)
    1 Lookup [dir] { name: FileName } -> Attr, [node], again;

    /// The attributes of a node. statx(2)
    2 Stat [node] {} -> Attr, [], again;

    /// What a symbolic link says. EINVAL if it is none. readlink(2)
    3 Readlink [node] {} -> (), [] + target, again;

    /// Change owner, mode, size and times. EPERM; EINVAL for an id outside the map. chown(2), chmod(2), truncate(2),
    /// utimensat(2)
    4 SetAttr [node] { changes: Changes } -> Attr, [], again;

    /// Open a regular file. ENXIO for devices, pipes and sockets, EISDIR, ELOOP for a symlink, EACCES, ETXTBSY. open(2)
    5 Open [node] { flags: OpenFlags } -> (), [file], again;

    /// Open a directory for reading its entries. ENOTDIR. open(2)
    6 OpenDir [node] {} -> (), [file], again;

    /// Make a regular file and open it, or open the one that is there (EEXIST with EXCL). ENOSPC, EDQUOT;
    /// EOVERFLOW if the caller's ids have no host id. open(2)
    7 Create [dir] {
        name: FileName,
        /// Before the umask.
        mode: Mode,
        /// Bits the new file must not have, unless a default ACL decides. umask(2)
        umask: Mode,
        flags: OpenFlags,
    } -> Attr, [node, file], once;

    /// Make a file without a name and open it. EOPNOTSUPP where the file system cannot. open(2): O_TMPFILE
    8 TmpFile [dir] { mode: Mode, umask: Mode, flags: OpenFlags } -> Attr, [node, file], once;

    /// Make a directory. ENOENT, ENOTDIR, EEXIST, EDQUOT; EOVERFLOW if the caller's ids have no host id. mkdirat(2)
    9 Mkdir [dir] { name: FileName, mode: Mode, umask: Mode } -> Attr, [], once;

    /// Make a file, pipe, socket or device node. EPERM for a device the share does not allow. mknodat(2)
    10 Mknod [dir] { name: FileName, kind: NodeKind, mode: Mode, umask: Mode } -> Attr, [], once;

    /// Make a symbolic link. EEXIST, EDQUOT. symlinkat(2)
    11 Symlink [dir] { name: FileName, target: Target } -> Attr, [], once;

    /// Give a node another name in `dir`. EEXIST, EMLINK, EXDEV, EPERM for a directory. linkat(2)
    12 Link [node, dir] { name: FileName } -> Attr, [], once;

    /// Remove a name that is no directory. ENOENT, EISDIR, EBUSY. unlinkat(2)
    13 Unlink [dir] { name: FileName } -> (), [], once;

    /// Remove an empty directory. ENOENT, ENOTDIR, ENOTEMPTY, EBUSY. unlinkat(2): AT_REMOVEDIR
    14 Rmdir [dir] { name: FileName } -> (), [], once;

    /// Move a name. EXDEV, EEXIST, ENOTEMPTY, EINVAL for a directory into itself or flags that exclude each other.
    /// renameat2(2)
    15 Rename [dir, new_dir] { name: FileName, new_name: FileName, flags: RenameFlags } -> (), [], once;

    /// The value of an extended attribute, or with `size` 0 only its length. ENODATA, ERANGE, EOPNOTSUPP. getxattr(2)
    16 GetXattr [node] {
        name: XattrName,
        /// Room for the value, bytes; 0 asks for the length.
        size: u32,
    } -> u32, [] + value, again;

    /// Set an extended attribute. EEXIST, ENODATA, ENOSPC, EPERM. setxattr(2)
    17 SetXattr [node] { name: XattrName, flags: XattrFlags } + value -> (), [], once;

    /// The names of the extended attributes, each ended by a NUL, or with `size` 0 only their length. ERANGE.
    /// listxattr(2)
    18 ListXattr [node] {
        /// Room for the names, bytes; 0 asks for the length.
        size: u32,
    } -> u32, [] + names, again;

    /// Remove an extended attribute. ENODATA, EPERM. removexattr(2)
    19 RemoveXattr [node] { name: XattrName } -> (), [], once;

    /// Inode flags. ENOTTY where the file system has none. ioctl_iflags(2): FS_IOC_GETFLAGS
    20 GetFlags [node] {} -> u32, [], again;

    /// Set inode flags. EPERM for those that need CAP_LINUX_IMMUTABLE on the host. ioctl_iflags(2): FS_IOC_SETFLAGS
    21 SetFlags [node] { flags: u32 } -> (), [], again;

    /// Extended inode flags and project id. linux/fs.h: FS_IOC_FSGETXATTR
    22 GetFsx [node] {} -> Fsx, [], again;

    /// Set extended inode flags and project id. linux/fs.h: FS_IOC_FSSETXATTR
    23 SetFsx [node] { fsx: Fsx } -> (), [], again;

    /// The inode's generation. linux/fs.h: FS_IOC_GETVERSION
    24 GetVersion [node] {} -> u32, [], again;

    /// Write the node's file system to disk. syncfs(2)
    25 SyncFs [node] {} -> (), [], again;

    /// Write and keep set-id bits, for a caller of the guest that may; the server's own write takes them away.
    /// pwrite(2)
    26 Write [node] {
        /// Bytes from the start of the file.
        offset: u64,
    } + data -> u32, [], again;

    /// Allocate or punch and keep set-id bits. fallocate(2)
    27 Fallocate [node] {
        /// FALLOC_FL_*
        mode: u32,
        /// Bytes.
        offset: u64,
        /// Bytes, not 0.
        length: u64,
    } -> (), [], once;

    /// Copy within or between files and keep the second's set-id bits. copy_file_range(2)
    28 CopyRange [from, to] {
        /// Bytes from the start of the first file.
        from_offset: u64,
        /// Bytes from the start of the second file.
        to_offset: u64,
        /// Bytes.
        length: u64,
    } -> u64, [], again;

    /// Open regular files and directories of a directory for reading, as far as they are such, of its mount and can be
    /// opened at once: what each is, and the open ones in the same order. EOPNOTSUPP with the mapped security models.
    /// open(2)
    29 OpenEach [dir] { names: Names } -> Vec<Option<Attr>>, [file; each], again;
}

/// `struct fsxattr` of linux/fs.h, whose padding stays 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Fsx {
    /// FS_XFLAG_*
    pub xflags: u32,
    /// Extent size hint, bytes.
    pub extsize: u32,
    /// Number of extents; only read.
    pub nextents: u32,
    /// Project id.
    pub projid: u32,
    /// Copy-on-write extent size hint, bytes.
    pub cowextsize: u32,
}

/// What a handler gives back: reply, descriptors, bulk data.
pub type Answer<O, T> = Result<(<O as Op>::Reply, <O as Op>::Gives<T>, Vec<u8>)>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_numbered_in_order_without_gaps() {
        for (index, kind) in Kind::ALL.iter().enumerate() {
            assert_eq!(*kind as usize, index + 1);
            assert_eq!(Kind::try_from(*kind as u16), Ok(*kind));
        }
        assert!(Kind::try_from(0).is_err());
    }
}
