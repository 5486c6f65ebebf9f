//! What a frontend asks of a file system, and the file systems there are: the share ([`tree`]) and one that lives in
//! memory for tests ([`synthetic`]).
//!
//! A frontend speaks in node ids, file handles and the guest's ids only. Every call may come from any thread.

pub mod ahead;
mod devices;
pub mod dir;
pub mod file;
mod flags;
pub mod kept;
pub mod lock;
pub mod node;
pub mod synthetic;
pub mod tree;
mod view;
pub mod walk;
mod writeout;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use postern_ipc::attr::{Attr, Changes, Mode, NodeKind, OpenFlags, RenameFlags, XattrFlags};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::{FileName, Target, XattrName};
use postern_ipc::op::Fsx;
use postern_ipc::{Errno, Result};

pub use devices::Multidevs;
pub use flags::open_flags;
pub use lock::{Claim, Conflict, Lock, LockOwner};
pub use writeout::Writeout;

/// A node of the share as the guest names it: FUSE nodeid. Never given to another node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NodeId(pub u64);

/// The root of the share. linux/fuse.h: FUSE_ROOT_ID
pub const ROOT: NodeId = NodeId(1);

/// An open file or directory as the guest names it: FUSE fh. Never given to another.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fh(pub u64);

/// What a handle was opened as.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Object {
    /// A regular file.
    File,
    /// A directory.
    Dir,
}

/// A handle as it comes from the guest: good for the node and the kind of object it was opened on, EBADF otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Handle {
    /// The node it is said to be of.
    pub node: NodeId,
    /// The number.
    pub fh: Fh,
    /// What it is used as.
    pub object: Object,
}

/// A name that led to a node; the guest holds one more reference to it.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Which node.
    pub node: NodeId,
    /// Its attributes.
    pub attr: Attr,
}

/// May a call wait for a disk?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// No: EAGAIN if it would, and the call is made again where it may.
    Never,
    /// Yes.
    AsNeeded,
}

/// Where the content of a file goes to: guest memory, as a rule.
pub trait Sink {
    /// Bytes that still fit.
    fn room(&self) -> usize;
    /// Fills the room from `file` at `offset`, stopping at the end of the file. Bytes read.
    ///
    /// # Errors
    /// Those of preadv2(2); EAGAIN with [`Wait::Never`] where it would wait.
    fn read_from(&mut self, file: BorrowedFd<'_>, offset: u64, wait: Wait) -> Result<usize>;
    /// Appends bytes; EINVAL if they do not fit.
    ///
    /// # Errors
    /// As said, and EFAULT.
    fn put(&mut self, bytes: &[u8]) -> Result<()>;
}

/// Where the content of a file comes from.
pub trait Source {
    /// Bytes left.
    fn left(&self) -> usize;
    /// Writes what is left to `file` at `offset`. Bytes written.
    ///
    /// # Errors
    /// Those of pwritev2(2).
    fn write_to(&mut self, file: BorrowedFd<'_>, offset: u64) -> Result<usize>;
    /// Takes up to `buffer.len()` bytes.
    ///
    /// # Errors
    /// EFAULT.
    fn take(&mut self, buffer: &mut [u8]) -> Result<usize>;
}

/// One entry of a directory.
#[derive(Clone, Copy, Debug)]
pub struct Dirent<'a> {
    /// Inode number.
    pub ino: u64,
    /// Where the next entry is read from.
    pub next: u64,
    /// DT_* of readdir(3).
    pub kind: u8,
    /// "." and ".." included.
    pub name: &'a [u8],
    /// For READDIRPLUS: what a look-up gives; none for "." and "..".
    pub entry: Option<Entry>,
}

/// Where the entries of a directory go to.
pub trait Listing {
    /// As many bytes of the kernel's own entries, `struct linux_dirent64`, as surely fit.
    fn raw_room(&self) -> usize;
    /// An entry with a name of `name_len` bytes still fits.
    fn fits(&self, name_len: usize) -> bool;
    /// Appends an entry that fits.
    fn push(&mut self, entry: &Dirent<'_>);
}

/// Attributes or names only: READDIRPLUS or READDIR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detail {
    /// READDIR
    Names,
    /// READDIRPLUS: every entry counts as looked up.
    Entries,
}

/// What SEEK_DATA and SEEK_HOLE look for. lseek(2)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Seek {
    /// SEEK_DATA
    Data(u64),
    /// SEEK_HOLE
    Hole(u64),
}

/// Half of COPY_FILE_RANGE: an open file and a place in it, bytes.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// The open file.
    pub file: Handle,
    /// Bytes from its start.
    pub offset: u64,
}

/// Sizes of a file system. statvfs(3)
#[derive(Clone, Copy, Debug, Default)]
pub struct Space {
    /// Size of a block, bytes.
    pub bsize: u64,
    /// Unit of the three block counts, bytes.
    pub frsize: u64,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub bfree: u64,
    /// Free blocks for ordinary users.
    pub bavail: u64,
    /// All inodes.
    pub files: u64,
    /// Free inodes.
    pub ffree: u64,
    /// Longest name, bytes.
    pub namelen: u64,
}

/// A file system. Errors are those of the system call that each method is named for, ESTALE for an unknown node and
/// EBADF for an unknown handle besides.
#[allow(clippy::missing_errors_doc, reason = "said once above")]
pub trait Fs: Send + Sync {
    /// The thread with this number starts to call: it has a way to the helper of its own.
    fn enter(&self, thread: usize);
    /// The guest is gone: nothing it held is held any longer.
    fn reset(&self);
    /// The same files as a user has them whom nobody has judged: whatever is done here is done as him, and nodes of one
    /// user are none of another. Root of the
    /// share has them as they are. EMFILE if there are too many users.
    fn acting_as(self: &Arc<Self>, uid: GuestUid, gid: GuestGid) -> Result<Arc<Self>>
    where
        Self: Sized;

    /// Finds a name and takes a reference to its node.
    fn lookup(&self, parent: NodeId, name: &FileName) -> Result<Entry>;
    /// Finds names, each below the one before it: tells each that is there, and takes a reference to its node. The
    /// error is that of the first that is not.
    fn walk(&self, from: NodeId, names: &[FileName], found: &mut dyn FnMut(Entry)) -> Result<()> {
        let mut dir = from;
        for name in names {
            let entry = self.lookup(dir, name)?;
            dir = entry.node;
            found(entry);
        }
        Ok(())
    }
    /// Gives `count` references back.
    fn forget(&self, node: NodeId, count: u64);
    /// The directory in which a node was last seen, with one more reference to it, and the node's name there. Another
    /// may have taken that name since. EINVAL for the root, ENOENT if the name was removed.
    fn seen(&self, node: NodeId) -> Result<(NodeId, FileName)>;
    /// stat(2), of an open file if a handle is given.
    fn getattr(&self, node: NodeId, file: Option<Handle>) -> Result<Attr>;
    /// chmod(2), chown(2), truncate(2), utimensat(2); with a handle ftruncate(2), which wants it open for writing.
    fn setattr(&self, node: NodeId, file: Option<Handle>, changes: &Changes) -> Result<Attr>;
    /// readlink(2)
    fn readlink(&self, node: NodeId, to: &mut dyn Sink) -> Result<()>;
    /// statvfs(3)
    fn statfs(&self, node: NodeId) -> Result<Space>;
    /// syncfs(2)
    fn syncfs(&self, node: NodeId) -> Result<()>;

    /// mkdir(2)
    fn mkdir(&self, caller: Caller, parent: NodeId, name: &FileName, mode: Mode, umask: Mode) -> Result<Entry>;
    /// mknod(2)
    fn mknod(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &FileName,
        kind: NodeKind,
        mode: Mode,
        umask: Mode,
    ) -> Result<Entry>;
    /// symlink(2)
    fn symlink(&self, caller: Caller, parent: NodeId, name: &FileName, target: Target) -> Result<Entry>;
    /// link(2)
    fn link(&self, node: NodeId, parent: NodeId, name: &FileName) -> Result<Entry>;
    /// unlink(2)
    fn unlink(&self, parent: NodeId, name: &FileName) -> Result<()>;
    /// rmdir(2)
    fn rmdir(&self, parent: NodeId, name: &FileName) -> Result<()>;
    /// renameat2(2)
    fn rename(&self, from: (NodeId, &FileName), to: (NodeId, &FileName), flags: RenameFlags) -> Result<()>;

    /// open(2) of a regular file.
    fn open(&self, node: NodeId, flags: OpenFlags) -> Result<Fh>;
    /// open(2) with O_CREAT.
    fn create(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &FileName,
        mode: Mode,
        umask: Mode,
        flags: OpenFlags,
    ) -> Result<(Entry, Fh)>;
    /// open(2) with O_TMPFILE.
    fn tmpfile(&self, caller: Caller, parent: NodeId, mode: Mode, umask: Mode, flags: OpenFlags)
    -> Result<(Entry, Fh)>;
    /// close(2)
    fn release(&self, handle: Handle) -> Result<()>;
    /// Gives an open file or directory away, to be used elsewhere: the handle stands for nothing any more.
    fn give(&self, handle: Handle) -> Result<OwnedFd>;
    /// What close(2) of one of several descriptors does: the handle stays open.
    fn flush(&self, file: Handle) -> Result<()>;
    /// pread(2)
    fn read(&self, file: Handle, offset: u64, wait: Wait, to: &mut dyn Sink) -> Result<usize>;
    /// pwrite(2); set-id bits go if `kill_setid`, else they stay.
    fn write(&self, file: Handle, offset: u64, kill_setid: bool, wait: Wait, from: &mut dyn Source) -> Result<usize>;
    /// fsync(2), or fdatasync(2) with `data_only`; of a directory too.
    fn fsync(&self, handle: Handle, data_only: bool) -> Result<()>;
    /// fallocate(2); `mode` is FALLOC_FL_*.
    fn fallocate(&self, file: Handle, mode: u32, offset: u64, length: u64) -> Result<()>;
    /// lseek(2) for holes.
    fn lseek(&self, file: Handle, seek: Seek) -> Result<u64>;
    /// copy_file_range(2)
    fn copy_range(&self, from: Spot, to: Spot, length: u64) -> Result<u64>;

    /// fcntl(2): F_OFD_SETLK of a regular file that is open, for an owner. Never waits. ENOLCK if there are too many.
    fn lock(&self, file: Handle, owner: &LockOwner, lock: Lock) -> Result<Claim>;
    /// F_OFD_SETLK with F_UNLCK; what is not locked may be given back too.
    fn unlock(&self, file: Handle, owner: &LockOwner, range: lock::Range) -> Result<()>;
    /// F_OFD_GETLK: another owner's lock that stands in the way.
    fn getlock(&self, file: Handle, owner: &LockOwner, lock: Lock) -> Result<Option<Conflict>>;

    /// open(2) of a directory.
    fn opendir(&self, node: NodeId) -> Result<Fh>;
    /// getdents64(2) from `offset`, 0 or what an earlier entry named as next.
    fn readdir(&self, dir: Handle, offset: u64, detail: Detail, to: &mut dyn Listing) -> Result<()>;

    /// getxattr(2); gives the length when `size` is 0, else puts the value.
    fn getxattr(&self, node: NodeId, name: &XattrName, size: u32, to: &mut dyn Sink) -> Result<u32>;
    /// setxattr(2)
    fn setxattr(&self, node: NodeId, name: &XattrName, value: &[u8], flags: XattrFlags) -> Result<()>;
    /// listxattr(2); gives the length when `size` is 0, else puts the names.
    fn listxattr(&self, node: NodeId, size: u32, to: &mut dyn Sink) -> Result<u32>;
    /// removexattr(2)
    fn removexattr(&self, node: NodeId, name: &XattrName) -> Result<()>;

    /// The handle an ioctl(2) came by is good.
    fn check(&self, handle: Handle) -> Result<()>;
    /// ioctl_iflags(2): FS_IOC_GETFLAGS
    fn get_flags(&self, node: NodeId) -> Result<u32>;
    /// ioctl_iflags(2): FS_IOC_SETFLAGS
    fn set_flags(&self, node: NodeId, flags: u32) -> Result<()>;
    /// linux/fs.h: FS_IOC_FSGETXATTR
    fn get_fsx(&self, node: NodeId) -> Result<Fsx>;
    /// linux/fs.h: FS_IOC_FSSETXATTR
    fn set_fsx(&self, node: NodeId, fsx: Fsx) -> Result<()>;
    /// linux/fs.h: FS_IOC_GETVERSION
    fn get_version(&self, node: NodeId) -> Result<u32>;
}

/// An attribute's name as a guest says it. Without `--posix-acl` it cannot reach ACLs, which its kernel would not heed.
///
/// # Errors
/// EOPNOTSUPP for those, and those of [`XattrName::new`].
pub fn xattr_name(name: &[u8], posix_acl: bool) -> Result<XattrName> {
    if !posix_acl && name.starts_with(b"system.posix_acl_") {
        return Err(Errno::EOPNOTSUPP);
    }
    XattrName::new(name)
}
