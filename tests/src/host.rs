//! The share as the host sees it, in the guest's ids.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{Gid, Uid};
use rustix::fs::XattrFlags;

use crate::kind::{Kind, Range, to_guest, to_host};

/// The shared directory on the host.
#[derive(Debug)]
pub struct Host {
    root: PathBuf,
    uids: Vec<Range>,
    gids: Vec<Range>,
    kept: Option<Kept>,
}

/// What the host's stat(2) shows, with the guest's ids; `None` for an id the guest cannot have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Inode number.
    pub ino: u64,
    /// Kind and permission bits.
    pub mode: u32,
    /// Owner and group.
    pub owner: (Option<u32>, Option<u32>),
    /// Bytes.
    pub size: u64,
    /// Units of 512 bytes.
    pub blocks: u64,
    /// Number of names.
    pub nlink: u64,
    /// Last access, seconds and nanoseconds.
    pub atime: (i64, i64),
    /// Last modification.
    pub mtime: (i64, i64),
    /// Last change.
    pub ctime: (i64, i64),
}

impl Stat {
    /// Permission bits.
    pub fn perm(&self) -> u32 {
        self.mode & 0o7777
    }

    /// Kind bits.
    pub fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
}

/// Owner and group of a [`Stat`], both known to the guest.
pub fn ids(uid: u32, gid: u32) -> (Option<u32>, Option<u32>) {
    (Some(uid), Some(gid))
}

impl Host {
    /// The view of `root` that a kind's ids give.
    pub fn new(root: PathBuf, kind: Kind) -> Self {
        let kept = kind.security_model().map(|model| Kept { by_name: model == "mapped-file", root: root.clone() });
        Self { root, uids: kind.uids(), gids: kind.gids(), kept }
    }

    /// Where a path of the share is.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// lstat(2).
    pub fn stat(&self, path: &str) -> Stat {
        let meta = fs::symlink_metadata(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
        let kept = |key| self.kept.as_ref().and_then(|kept| kept.read(&self.path(path), key));
        Stat {
            ino: meta.ino(),
            mode: kept("mode").unwrap_or(meta.mode()),
            owner: (
                kept("uid").or_else(|| to_guest(&self.uids, meta.uid())),
                kept("gid").or_else(|| to_guest(&self.gids, meta.gid())),
            ),
            size: meta.size(),
            blocks: meta.blocks(),
            nlink: meta.nlink() - u64::from(meta.is_dir() && self.path(path).join(METADATA).is_dir()),
            atime: (meta.atime(), meta.atime_nsec()),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Whether a name exists.
    pub fn exists(&self, path: &str) -> bool {
        fs::symlink_metadata(self.path(path)).is_ok()
    }

    /// Names of the guest's in a directory, sorted.
    pub fn list(&self, path: &str) -> Vec<String> {
        let own = |name: &String| self.kept.is_some() && [METADATA, METADATA_OF_ROOT].contains(&name.as_str());
        names(&self.path(path)).into_iter().filter(|name| !own(name)).collect()
    }

    /// Contents of a file.
    pub fn read(&self, path: &str) -> Vec<u8> {
        fs::read(self.path(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
    }

    /// Makes or replaces a file of the guest's root.
    pub fn write(&self, path: &str, data: &[u8]) {
        fs::write(self.path(path), data).expect(path);
        self.adopt(path);
        self.chown(path, 0, 0);
    }

    /// Makes a directory of the guest's root.
    pub fn mkdir(&self, path: &str) {
        fs::create_dir(self.path(path)).expect(path);
        self.adopt(path);
        self.chown(path, 0, 0);
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, text: &str, path: &str) {
        std::os::unix::fs::symlink(text, self.path(path)).expect(path);
    }

    /// Makes a FIFO, socket or device node.
    pub fn mknod(&self, path: &str, kind: SFlag) {
        let dev = if kind == SFlag::S_IFCHR { nix::sys::stat::makedev(1, 3) } else { 0 };
        nix::sys::stat::mknod(&self.path(path), kind, Mode::from_bits_truncate(0o666), dev).expect(path);
    }

    /// Renames within the share.
    pub fn rename(&self, old: &str, new: &str) {
        fs::rename(self.path(old), self.path(new)).expect(old);
    }

    /// Removes a file.
    pub fn unlink(&self, path: &str) {
        fs::remove_file(self.path(path)).expect(path);
    }

    /// Sets permission bits.
    pub fn chmod(&self, path: &str, mode: u32) {
        if let Some(kept) = &self.kept {
            return kept.write(&self.path(path), "mode", self.stat(path).kind() | mode);
        }
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(mode)).expect(path);
    }

    /// What is planted where the guest's attributes are kept beside belongs to whom the share's root does.
    fn adopt(&self, path: &str) {
        if self.kept.is_some() {
            let root = fs::metadata(&self.root).expect("the root");
            self.chown_host(path, root.uid(), root.gid());
        }
    }

    /// Gives a file to ids of the guest.
    pub fn chown(&self, path: &str, uid: u32, gid: u32) {
        if let Some(kept) = &self.kept {
            kept.write(&self.path(path), "uid", uid);
            return kept.write(&self.path(path), "gid", gid);
        }
        self.chown_host(path, self.uid(uid), self.gid(gid));
    }

    /// The host's user id of a user of the guest.
    pub fn uid(&self, uid: u32) -> u32 {
        to_host(&self.uids, uid).expect("a mapped id")
    }

    /// The host's group id of a group of the guest.
    pub fn gid(&self, gid: u32) -> u32 {
        to_host(&self.gids, gid).expect("a mapped id")
    }

    /// Gives a file to ids of the host.
    pub fn chown_host(&self, path: &str, uid: u32, gid: u32) {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
        let here = nix::fcntl::AT_FDCWD;
        nix::unistd::fchownat(here, &self.path(path), Some(uid), Some(gid), flags).expect(path);
    }

    /// A host id that no id of the guest stands for, if there is one.
    pub fn foreign_id(&self) -> Option<u32> {
        (0..1_000_000).find(|&id| to_guest(&self.uids, id).is_none() && to_guest(&self.gids, id).is_none())
    }

    /// An id that the guest has no use for: it stands for none of the host.
    pub fn unmapped_id(&self) -> Option<u32> {
        let id = 4_000_000_000;
        to_host(&self.uids, id).is_none().then_some(id)
    }

    /// Whether some of a file's blocks have no place on the disk yet, because what was written to them waits in the
    /// page cache. filefrag(8): "delalloc"
    pub fn waits_for_its_place(&self, path: &str) -> bool {
        let output = Command::new("/usr/sbin/filefrag").arg("-v").arg(self.path(path)).output().expect("filefrag");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).contains("delalloc")
    }

    /// Value of an extended attribute.
    pub fn getxattr(&self, path: &str, name: &str) -> Option<Vec<u8>> {
        let mut value = vec![0; 65536];
        let len = rustix::fs::lgetxattr(self.path(path), name, &mut value).ok()?;
        value.truncate(len);
        Some(value)
    }

    /// Inode flags, as lsattr(1) shows them.
    pub fn flags(&self, path: &str) -> u32 {
        rustix::fs::ioctl_getflags(self.open(path)).expect(path).bits()
    }

    /// Inode generation.
    pub fn version(&self, path: &str) -> u32 {
        let output = Command::new("lsattr").arg("-dv").arg(self.path(path)).output().expect("lsattr");
        let line = String::from_utf8(output.stdout).expect("UTF-8");
        line.split_whitespace().next().and_then(|version| version.parse().ok()).expect("a version")
    }

    fn open(&self, path: &str) -> fs::File {
        fs::File::open(self.path(path)).expect(path)
    }

    /// Sets an extended attribute.
    pub fn setxattr(&self, path: &str, name: &str, value: &[u8]) {
        rustix::fs::lsetxattr(self.path(path), name, value, XattrFlags::empty()).expect(name);
    }
}

/// Names that are `mapped-file`'s own.
const METADATA: &str = ".virtfs_metadata";
const METADATA_OF_ROOT: &str = ".virtfs_metadata_root";

/// Where a mapped security model keeps the guest's attributes, as QEMU documents it.
#[derive(Debug)]
struct Kept {
    by_name: bool,
    root: PathBuf,
}

impl Kept {
    fn read(&self, path: &Path, key: &str) -> Option<u32> {
        if self.by_name {
            let text = fs::read_to_string(self.file(path)).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("virtfs.{key}=")))?;
            return line.parse::<i64>().ok().map(|value| value as u32);
        }
        let mut value = [0; 4];
        rustix::fs::lgetxattr(path, format!("user.virtfs.{key}"), &mut value[..]).ok()?;
        Some(u32::from_le_bytes(value))
    }

    /// A symbolic link of the host's has none.
    fn write(&self, path: &Path, key: &str, value: u32) {
        let meta = fs::symlink_metadata(path).expect("there");
        if self.by_name {
            let file = self.file(path);
            let old = fs::read_to_string(&file).unwrap_or_default();
            let others: String =
                old.lines().filter(|l| !l.starts_with(&format!("virtfs.{key}="))).map(|l| format!("{l}\n")).collect();
            let dir = file.parent().expect("a directory");
            if fs::create_dir(dir).is_ok() {
                std::os::unix::fs::chown(dir, Some(meta.uid()), Some(meta.gid())).expect("own directory");
            }
            fs::write(&file, format!("{others}virtfs.{key}={}\n", value as i32)).expect("a file");
            std::os::unix::fs::chown(&file, Some(meta.uid()), Some(meta.gid())).expect("own file");
        } else if !meta.is_symlink() {
            let name = format!("user.virtfs.{key}");
            rustix::fs::lsetxattr(path, name, &value.to_le_bytes(), XattrFlags::empty()).expect("an attribute");
        }
    }

    fn file(&self, path: &Path) -> PathBuf {
        if path.components().eq(self.root.components()) {
            return self.root.join(METADATA_OF_ROOT);
        }
        let name = path.file_name().expect("a name");
        path.parent().expect("a directory").join(METADATA).join(name)
    }
}

/// Names in a directory, sorted.
pub fn names(dir: &Path) -> Vec<String> {
    let name = |name: &OsStr| String::from_utf8_lossy(name.as_bytes()).into_owned();
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut names: Vec<_> = entries.map(|entry| name(&entry.expect("readdir").file_name())).collect();
    names.sort();
    names
}

/// Everything that stat(2), read(2), readlink(2) and listxattr(2) show of a directory and what is below it, by path.
pub fn snapshot(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    see(dir, &mut seen);
    // Looking may have changed the times of access; once they are later than the others they stay. mount(8): relatime
    seen.clear();
    see(dir, &mut seen);
    seen
}

fn see(path: &Path, seen: &mut BTreeMap<PathBuf, String>) {
    let meta = fs::symlink_metadata(path).expect("there");
    let times =
        [(meta.atime(), meta.atime_nsec()), (meta.mtime(), meta.mtime_nsec()), (meta.ctime(), meta.ctime_nsec())];
    let owner = (meta.uid(), meta.gid());
    let mut names = vec![0; 65_536];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap_or(0);
    let content = match meta.mode() & libc::S_IFMT {
        libc::S_IFREG => fs::read(path).expect("root's"),
        libc::S_IFLNK => fs::read_link(path).expect("root's").into_os_string().into_encoded_bytes(),
        _ => vec![],
    };
    let what = format!(
        "{:o} {owner:?} {} {} {} {times:?} {} {}",
        meta.mode(),
        meta.nlink(),
        meta.size(),
        meta.rdev(),
        names[..length].escape_ascii(),
        content.escape_ascii()
    );
    seen.insert(path.to_path_buf(), what);
    if meta.is_dir() {
        let entries = fs::read_dir(path).expect("root's");
        entries.for_each(|entry| see(&entry.expect("readdir").path(), seen));
    }
}
