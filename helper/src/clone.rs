//! The share's mount: a detached, private, recursive clone of the host's, with attributes of its own.
//!
//! Every descriptor that the server gets comes from it, and one that comes back is known by its mount id. It stays
//! detached: attached in a namespace it would lose its submounts with that namespace and show what lies under them.
//! The warden holds it, so that no helper's death ends it. A file system that the host unmounts stays busy in it.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::libc;
use postern_ipc::{Errno, Result};
use postern_policy::fatal::{Fatal, Started, Step as _};
use postern_policy::kernels;
use postern_policy::right::{Right, Rights};
use rustix::fs::{
    AtFlags, Mode, OFlags, ResolveFlags, StatVfsMountFlags, StatxAttributes, StatxFlags, fstatfs, fstatvfs, openat,
    openat2, statx,
};
use rustix::mount::{OpenTreeFlags, open_tree};

use crate::sys;

/// `STATX_MNT_ID_UNIQUE` of linux/stat.h, Linux 6.8; a kernel that does not know it ignores it.
const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
/// What shows the mount of a descriptor, whether it is a mount's root, and whether it has a name.
const MOUNT: StatxFlags =
    StatxFlags::MNT_ID.union(MNT_ID_UNIQUE).union(StatxFlags::TYPE).union(StatxFlags::INO).union(StatxFlags::NLINK);
/// Nothing of the share is followed, triggered or waited for. A FUSE server may never answer.
pub(crate) const QUIETLY: AtFlags =
    AtFlags::EMPTY_PATH.union(AtFlags::SYMLINK_NOFOLLOW).union(AtFlags::NO_AUTOMOUNT).union(AtFlags::STATX_DONT_SYNC);

/// Which mount a descriptor came from, and which file of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Unique since boot where the kernel can tell.
    pub(crate) mount: u64,
    /// The file system's device, as statx(2) splits it.
    pub(crate) dev: (u32, u32),
    /// Inode number.
    pub(crate) ino: u64,
    /// S_IFMT bits.
    pub(crate) kind: u32,
    /// It is the root of its mount.
    pub(crate) mount_root: bool,
    /// It has no name, or had none when it was looked at.
    pub(crate) unnamed: bool,
}

impl Place {
    /// Of a descriptor, without waiting for its file system.
    pub(crate) fn of(fd: impl AsFd) -> Result<Self> {
        let stat = statx(fd, c"", QUIETLY, MOUNT)?;
        if !StatxFlags::from_bits_retain(stat.stx_mask).intersects(StatxFlags::MNT_ID | MNT_ID_UNIQUE) {
            return Err(Errno::ENOSYS);
        }
        Ok(Self {
            mount: stat.stx_mnt_id,
            dev: (stat.stx_dev_major, stat.stx_dev_minor),
            ino: stat.stx_ino,
            kind: u32::from(stat.stx_mode) & libc::S_IFMT,
            mount_root: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
            unnamed: stat.stx_nlink == 0,
        })
    }
}

/// The clone, and what is known of it.
#[derive(Debug)]
pub(crate) struct Clone {
    /// Holds it: it is gone when this is closed.
    tree: OwnedFd,
    /// Its mounts.
    pub(crate) mounts: Mounts,
    /// What all the mounts it was made from keep from the host's users.
    pub(crate) source: Source,
}

/// The ids of a clone's mounts.
#[derive(Clone, Debug)]
pub(crate) struct Mounts {
    /// All of them.
    pub(crate) all: Vec<u64>,
    /// Those whose files are the kernel itself, or cover such. The helper opens nothing there.
    pub(crate) kernels: Vec<u64>,
}

/// Whether all mounts of the host that hold the share have these attributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Source {
    /// Set-id bits do nothing there.
    pub(crate) nosuid: bool,
    /// Device nodes do nothing there.
    pub(crate) nodev: bool,
}

impl Clone {
    /// Clones the mount of the working directory, which is `dir` as this mount namespace has it; its mounts are
    /// private, none comes or goes meanwhile.
    pub(crate) fn of_working_dir(dir: &OwnedFd, rights: Rights) -> Started<Self> {
        let step = "clone the mount of the shared directory";
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(rustix::fs::CWD, "", flags).step(step)?;
        sys::mount_setattr(&tree, attributes(rights), libc::MS_PRIVATE).step("set the attributes of the clone")?;
        let submounts = submounts().step("read /proc/self/mountinfo")?;
        refuse_kernels(dir, &submounts, rights)?;
        let root = root(&tree).step("enter the shared directory as guest root").map_err(|fatal| {
            fatal.hint("the host id that guest root is mapped to must own it or be able to search it")
        })?;
        let mounts = mounts(&root, &submounts).step("list the mounts of the share")?;
        let here = fstatvfs(dir).step("read the attributes of the shared directory's mount")?.f_flag;
        let all =
            |flag: StatVfsMountFlags, name: &str| here.contains(flag) && submounts.iter().all(|mount| mount.has(name));
        let source =
            Source { nosuid: all(StatVfsMountFlags::NOSUID, "nosuid"), nodev: all(StatVfsMountFlags::NODEV, "nodev") };
        Ok(Self { tree, mounts, source })
    }

    /// Its root by O_PATH, as the server gets it.
    pub(crate) fn root(&self) -> Result<OwnedFd> {
        root(&self.tree)
    }
}

/// What is changed there the kernel does, so nothing of it is shared, and nothing that has it in it for writing.
fn refuse_kernels(dir: &OwnedFd, submounts: &[Submount], rights: Rights) -> Started<()> {
    let kind = fstatfs(dir).step("look at the shared directory's file system")?.f_type;
    if let Some(name) = kernels::of_magic(kind) {
        return Err(Fatal::new(format!("share a directory of {name}"), "nothing in it would be opened")
            .hint("share another directory"));
    }
    let found = submounts.iter().find(|mount| mount.is_kernels());
    match found.filter(|_| rights.allow(Right::Write)) {
        None => Ok(()),
        Some(Submount { below, kind, .. }) => {
            let (below, kind) = (below.display(), String::from_utf8_lossy(kind));
            Err(Fatal::new(
                format!("share a directory that has {kind} in it, at {below}"),
                "what is changed there the kernel does, with the helper's rights",
            )
            .hint("share it read-only, or directories beside it"))
        }
    }
}

fn root(tree: &OwnedFd) -> Result<OwnedFd> {
    Ok(openat(tree, c".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Nothing of a share is a device, a program, a set-id program or a way elsewhere; a read-only share is read-only for
/// every descriptor that ever comes from it.
fn attributes(rights: Rights) -> u64 {
    let always =
        libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NOSYMFOLLOW;
    if rights.allow(Right::Write) { always } else { always | libc::MOUNT_ATTR_RDONLY }
}

/// The ids of the clone's mounts. A detached tree is in no mountinfo, so every mount point of its source is opened
/// through it; what is then no mount's root came after the clone, or is covered by another mount.
fn mounts(root: &OwnedFd, submounts: &[Submount]) -> Result<Mounts> {
    let mut mounts = Mounts { all: vec![Place::of(root)?.mount], kernels: Vec::new() };
    for submount in submounts {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match openat2(root, &submount.below, flags, Mode::empty(), resolve).map_err(Errno::from) {
            Ok(fd) => {
                let place = Place::of(fd)?;
                if place.mount_root && !mounts.all.contains(&place.mount) {
                    mounts.all.push(place.mount);
                }
                if submount.is_kernels() {
                    mounts.kernels.push(place.mount);
                }
            }
            // Nobody who has the share's ids only gets there either.
            Err(Errno::ENOENT | Errno::EACCES | Errno::ENOTDIR | Errno::ELOOP) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(mounts)
}

/// A mount of the host below the shared directory.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Submount {
    /// Where, from the shared directory.
    below: PathBuf,
    /// `nosuid,nodev,relatime` and the like.
    options: Vec<u8>,
    /// `ext4`, `proc` and the like.
    kind: Vec<u8>,
}

impl Submount {
    fn is_kernels(&self) -> bool {
        kernels::has_name(&self.kind)
    }

    fn has(&self, option: &str) -> bool {
        self.options.split(|&byte| byte == b',').any(|mine| mine == option.as_bytes())
    }
}

fn submounts() -> Result<Vec<Submount>> {
    let dir = std::fs::read_link("/proc/self/cwd")?;
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(table.split(|&byte| byte == b'\n').filter_map(|line| submount(line, &dir)).collect())
}

/// A line of mountinfo: id, parent, device, root, mount point, options, ..., -, file system, ... proc_pid_mountinfo(5)
fn submount(line: &[u8], dir: &Path) -> Option<Submount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let point = unescape(fields.nth(4)?);
    let options = fields.next()?.to_vec();
    let kind = fields.skip_while(|field| *field != b"-").nth(1)?.to_vec();
    let below = Path::new(OsStr::from_bytes(&point)).strip_prefix(dir).ok()?;
    (!below.as_os_str().is_empty()).then(|| Submount { below: below.to_owned(), options, kind })
}

/// `\040` and the like stand for bytes. proc_pid_mountinfo(5), fstab(5)
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| after.first_chunk::<3>()).flatten();
        match octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()) {
            Some(code) => {
                out.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = br"36 35 98:0 /mnt1 /srv/a\040b/sub rw,nosuid,relatime master:1 - ext3 /dev/root rw";

    #[test]
    fn a_mount_below_the_shared_directory_is_found_with_its_options() {
        let found = submount(LINE, Path::new("/srv/a b")).unwrap();
        assert_eq!(found.below, Path::new("sub"));
        assert!(found.has("nosuid") && !found.has("nodev"));
        assert_eq!(found.kind, b"ext3");
    }

    #[test]
    fn mounts_beside_above_and_at_the_shared_directory_are_not_below_it() {
        for dir in ["/srv/a b/sub", "/srv/a b/sub/deeper", "/srv/a", "/other"] {
            assert_eq!(submount(LINE, Path::new(dir)), None, "{dir}");
        }
        assert_eq!(submount(b"", Path::new("/")), None);
    }

    #[test]
    fn only_octal_triples_are_escapes() {
        assert_eq!(unescape(br"a\134b\04"), br"a\b\04");
    }
}
