//! Attributes kept in files beside the node, as QEMU's `mapped-file` does: those of `NAME` in `.virtfs_metadata/NAME`
//! of the same directory, those of the share's root in `.virtfs_metadata_root` in it, a line each: `virtfs.uid=1000`.
//!
//! They belong to a name. Of a descriptor the kernel tells the path; whoever has a name goes by that. A file that loses
//! its last name takes them along, in attributes as [`super::xattr`] has them, where its file system can. What lies
//! there may be anything: it is looked at by O_PATH first, and only a regular file is opened, and only its beginning
//! read.

use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use postern_ipc::attr::{Attr, Dev};
use postern_ipc::model::{METADATA, METADATA_OF_ROOT};
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};
use rustix::fs::{
    AtFlags, Mode, OFlags, RawDir, RenameFlags, ftruncate, linkat, mkdirat, openat, renameat_with, unlinkat,
};
use rustix::io::{pread, pwrite};

use super::{Kept, Subject, xattr};
use crate::pin::Pin;
use crate::share::{PATH_NAME, Share};

/// Most bytes that are read of what is kept: four lines, and room for what others may add.
const TEXT_MAX: usize = 1024;
/// How often a node is looked for whose directories are being renamed.
const TRIES: u32 = 4;
/// Entries of a directory are read so many bytes at a time.
const ENTRIES: usize = 4096;

/// What is kept of a node.
pub(super) fn read(share: &Share, subject: Subject<'_>) -> Result<Kept> {
    let place = match Place::of(share, subject, false)? {
        Where::In(place) => place,
        Where::Nowhere => return Ok(Kept::default()),
        Where::Nameless => return xattr::read(subject.node),
    };
    let Some(file) = place.open(share, OFlags::RDONLY)? else { return Ok(Kept::default()) };
    let mut text = [0; TEXT_MAX];
    let length = pread(&file, &mut text[..], 0)?;
    Ok(parse(text.get(..length).unwrap_or_default()))
}

/// Keeps what is given beside what is kept already, in the same file: it may have several names, as the node has.
pub(super) fn write(share: &Share, subject: Subject<'_>, new: Kept) -> Result<()> {
    let old = read(share, subject)?;
    let place = match Place::of(share, subject, true)? {
        Where::In(place) => place,
        Where::Nowhere => return Err(Errno::EIO),
        Where::Nameless => return xattr::write(subject.node, new),
    };
    let file = place.open_or_make(share)?;
    let text = print(Kept {
        uid: new.uid.or(old.uid),
        gid: new.gid.or(old.gid),
        mode: new.mode.or(old.mode),
        rdev: new.rdev.or(old.rdev),
    });
    if pwrite(&file, text.as_bytes(), 0)? != text.len() {
        return Err(Errno::ENOSPC);
    }
    Ok(ftruncate(&file, u64::try_from(text.len()).map_err(|_| Errno::EFBIG)?)?)
}

fn parse(text: &[u8]) -> Kept {
    let value = |key: &str| {
        let line =
            text.split(|&byte| byte == b'\n').filter_map(|line| line.strip_prefix(key.as_bytes())).next_back()?;
        let number: i64 = std::str::from_utf8(line).ok()?.trim().parse().ok()?;
        // QEMU prints an int.
        i32::try_from(number).map(i32::cast_unsigned).or_else(|_| u32::try_from(number)).ok()
    };
    Kept {
        uid: value("virtfs.uid="),
        gid: value("virtfs.gid="),
        mode: value("virtfs.mode="),
        rdev: value("virtfs.rdev=").map(Dev::decode),
    }
}

fn print(kept: Kept) -> String {
    let lines = [("uid", kept.uid), ("gid", kept.gid), ("mode", kept.mode), ("rdev", kept.rdev.map(Dev::encode))];
    let line = |(key, value): (&str, Option<u32>)| value.map(|n| format!("virtfs.{key}={}\n", n.cast_signed()));
    lines.into_iter().filter_map(line).collect()
}

/// Where something is kept: a name in a directory of metadata.
struct Place<'a> {
    dir: Holder<'a>,
    name: CString,
}

/// What there is of a place.
enum Where<'a> {
    In(Place<'a>),
    /// There is no directory of metadata.
    Nowhere,
    /// The node has lost its last name.
    Nameless,
}

enum Holder<'a> {
    Root(&'a OwnedFd),
    Metadata(OwnedFd),
}

impl AsFd for Holder<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Root(root) => root.as_fd(),
            Self::Metadata(dir) => dir.as_fd(),
        }
    }
}

impl<'a> Place<'a> {
    /// Makes a directory of metadata, if it is to be there.
    fn of(share: &'a Share, subject: Subject<'_>, make: bool) -> Result<Where<'a>> {
        let (dir, name) = match subject.at {
            Some((dir, name)) => (metadata(dir, make)?, name.as_c_str().to_owned()),
            None => match Found::of(share, subject.node)? {
                Found::Root => {
                    return Ok(Where::In(Self { dir: Holder::Root(&share.root), name: METADATA_OF_ROOT.to_owned() }));
                }
                Found::Entry(dir, name) => (metadata(&dir, make)?, name),
                Found::Nameless => return Ok(Where::Nameless),
            },
        };
        Ok(dir.map_or(Where::Nowhere, |dir| Where::In(Self { dir: Holder::Metadata(dir), name })))
    }

    /// `None` if there is nothing, or nothing that may be opened.
    fn open(&self, share: &Share, how: OFlags) -> Result<Option<OwnedFd>> {
        let node = match openat(&self.dir, self.name.as_c_str(), PATH_NAME, Mode::empty()).map_err(Errno::from) {
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
            opened => opened?,
        };
        match Attr::of(&node)?.kind() {
            nix::libc::S_IFREG => share.open(&node, how).map(Some),
            _ => Ok(None),
        }
    }

    /// EIO if something else is there.
    fn open_or_make(&self, share: &Share) -> Result<OwnedFd> {
        let how = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        match share.make(self.dir.as_fd(), self.name.as_c_str(), how, Mode::RUSR | Mode::WUSR) {
            Err(Errno::EEXIST) => self.open(share, OFlags::WRONLY)?.ok_or(Errno::EIO),
            made => made,
        }
    }
}

/// The directory of metadata in `dir`; `None` if there is none. What is no directory gives ENOTDIR when it is used.
fn metadata(dir: impl AsFd, make: bool) -> Result<Option<OwnedFd>> {
    if make {
        match mkdirat(&dir, METADATA, Mode::RWXU).map_err(Errno::from) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    match openat(&dir, METADATA, PATH_NAME, Mode::empty()).map_err(Errno::from) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        opened => opened.map(Some),
    }
}

/// Where a node is now.
enum Found {
    Root,
    Entry(OwnedFd, CString),
    Nameless,
}

impl Found {
    /// The clone follows no symbolic link and the kernel names no "..": the path leads to where it says, or nowhere.
    /// ESTALE if the node has a name, but not that by which the descriptor was opened: it is to be looked up again.
    fn of(share: &Share, node: BorrowedFd<'_>) -> Result<Self> {
        let Attr { id, nlink, .. } = Attr::of(node)?;
        for _ in 0..TRIES {
            let path = share.path(node)?;
            let Some(at) = path.iter().rposition(|&byte| byte == b'/') else { break };
            let (dir, name) = path.split_at(at);
            let name = match name.get(1..) {
                None | Some([]) => return Ok(Self::Root),
                Some(name) => name,
            };
            let dir = dir.strip_prefix(b"/").filter(|dir| !dir.is_empty()).unwrap_or(b".");
            let found = FileName::new(name).and_then(|name| {
                let dir = openat(&share.root, dir, PATH_NAME, Mode::empty())?;
                let there = Attr::of_entry(&dir, &name)?;
                Ok((there.id == id).then(|| Self::Entry(dir, name.as_c_str().to_owned())))
            });
            if let Ok(Some(found)) = found {
                return Ok(found);
            }
            if share.path(node)? == path {
                break;
            }
        }
        if nlink == 0 { Ok(Self::Nameless) } else { Err(Errno::ESTALE) }
    }
}

/// How many of a directory's links are its directory of metadata, if the file system counts them.
pub(super) fn hidden_links(dir: BorrowedFd<'_>, links: u32) -> u32 {
    let hidden = || Attr::of_entry(dir, &FileName::new(METADATA.to_bytes())?);
    u32::from(links > 2 && hidden().is_ok_and(|attr| attr.kind() == nix::libc::S_IFDIR))
}

/// Removes a name, and what is kept of it.
pub(crate) fn unlink(share: &Share, dir: &Pin, name: &FileName) -> Result<()> {
    let remove = || share.removing(dir, name, || Ok(unlinkat(dir, name.as_c_str(), AtFlags::empty())?));
    let Some(store) = share.store.as_ref().filter(|_| share.model.keeps_by_name()) else { return remove() };
    let _one = store.alone();
    take_along(share, dir, name)?;
    remove()?;
    forget(dir, name)
}

/// A file that is about to lose its last name may be open, and go on.
fn take_along(share: &Share, dir: &Pin, name: &FileName) -> Result<()> {
    let node = share.pin_name(dir, name)?;
    let attr = Attr::of(&node)?;
    if attr.kind() == nix::libc::S_IFREG && attr.nlink == 1 {
        let kept = read(share, Subject { node: node.as_fd(), at: Some((dir, name)) })?;
        // A file system without such attributes has none to take along.
        let _ = xattr::write(node.as_fd(), kept);
    }
    Ok(())
}

/// Removes a directory that is empty for the guest, and what is kept of it.
pub(crate) fn remove_dir(share: &Share, dir: &Pin, name: &FileName) -> Result<()> {
    let remove = || share.removing(dir, name, || Ok(unlinkat(dir, name.as_c_str(), AtFlags::REMOVEDIR)?));
    let Some(store) = share.store.as_ref().filter(|_| share.model.keeps_by_name()) else { return remove() };
    let _one = store.alone();
    match remove() {
        Err(Errno::ENOTEMPTY) => {
            let node = share.pin_name(dir, name)?;
            clear(share, &node)?;
            remove()?;
        }
        removed => removed?,
    }
    forget(dir, name)
}

/// Of a name that is gone nothing is kept.
fn forget(dir: &Pin, name: &FileName) -> Result<()> {
    let Some(metadata) = metadata(dir, false)? else { return Ok(()) };
    match unlinkat(&metadata, name.as_c_str(), AtFlags::empty()).map_err(Errno::from) {
        Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::EISDIR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Removes the directory of metadata from a directory that has nothing else: what is kept in it is of names gone.
fn clear(share: &Share, dir: &OwnedFd) -> Result<()> {
    let list = |dir: &OwnedFd| share.open(dir, OFlags::RDONLY | OFlags::DIRECTORY);
    each(&list(dir)?, |name| if name == METADATA.to_bytes() { Ok(()) } else { Err(Errno::ENOTEMPTY) })?;
    let Some(metadata) = metadata(dir, false)? else { return Err(Errno::ENOTEMPTY) };
    each(&list(&metadata)?, |name| {
        let name = FileName::new(name)?;
        unlinkat(&metadata, name.as_c_str(), AtFlags::empty()).map_err(|_| Errno::ENOTEMPTY)
    })?;
    Ok(unlinkat(dir, METADATA, AtFlags::REMOVEDIR)?)
}

fn each(dir: &OwnedFd, act: impl Fn(&[u8]) -> Result<()>) -> Result<()> {
    let mut buffer = [MaybeUninit::uninit(); ENTRIES];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        match entry?.file_name().to_bytes() {
            b"." | b".." => {}
            name => act(name)?,
        }
    }
    Ok(())
}

/// Moves a name by `host`, and what is kept of it.
pub(crate) fn rename(
    share: &Share,
    (dir, name): (&Pin, &FileName),
    (new_dir, new_name): (&Pin, &FileName),
    flags: RenameFlags,
) -> Result<()> {
    // A whiteout is root's, whoever else may move the name.
    let owners_may = !flags.contains(RenameFlags::WHITEOUT);
    let host = || {
        let rename = || Ok(renameat_with(dir, name.as_c_str(), new_dir, new_name.as_c_str(), flags)?);
        share.moving((dir, name), (new_dir, new_name), owners_may, rename)
    };
    let Some(store) = share.store.as_ref().filter(|_| share.model.keeps_by_name()) else { return host() };
    let _one = store.alone();
    let old = Attr::of_entry(dir, name)?.id;
    match Attr::of_entry(new_dir, new_name) {
        // Two names of one file, or one name: rename(2) does nothing.
        Ok(new) if new.id == old => return host(),
        Ok(_) if flags.is_empty() => take_along(share, new_dir, new_name)?,
        _ => {}
    }
    match host() {
        // What is empty for the guest may be replaced.
        Err(Errno::ENOTEMPTY | Errno::EEXIST) if flags.is_empty() => {
            clear(share, &share.pin_name(new_dir, new_name)?)?;
            host()?;
        }
        moved => moved?,
    }
    let exchange = if flags.contains(RenameFlags::EXCHANGE) { RenameFlags::EXCHANGE } else { RenameFlags::empty() };
    match carry((dir, name), (new_dir, new_name), exchange) {
        Err(Errno::ENOENT) if exchange.is_empty() => forget(new_dir, new_name),
        // One of the two has nothing that is kept.
        Err(Errno::ENOENT) => match carry((dir, name), (new_dir, new_name), RenameFlags::empty()) {
            Err(Errno::ENOENT) => carry((new_dir, new_name), (dir, name), RenameFlags::empty()).or_else(absent),
            carried => carried,
        },
        carried => carried,
    }
}

fn absent(errno: Errno) -> Result<()> {
    if errno == Errno::ENOENT { Ok(()) } else { Err(errno) }
}

/// Moves what is kept of a name; ENOENT if nothing is.
fn carry(old: (&Pin, &FileName), new: (&Pin, &FileName), flags: RenameFlags) -> Result<()> {
    let from = metadata(old.0, false)?.ok_or(Errno::ENOENT)?;
    let to = metadata(new.0, true)?.ok_or(Errno::EIO)?;
    Ok(renameat_with(&from, old.1.as_c_str(), &to, new.1.as_c_str(), flags)?)
}

/// Gives a node another name by `host`; what is kept of it has then another name, too.
pub(crate) fn link(
    share: &Share,
    node: &Pin,
    (dir, name): (&Pin, &FileName),
    host: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let Some(store) = share.store.as_ref().filter(|_| share.model.keeps_by_name()) else { return host() };
    let _one = store.alone();
    let found = Found::of(share, node.as_fd())?;
    host()?;
    forget(dir, name)?;
    let Found::Entry(old_dir, old_name) = found else { return Ok(()) };
    let Some(from) = metadata(&old_dir, false)? else { return Ok(()) };
    let to = metadata(dir, true)?.ok_or(Errno::EIO)?;
    let linked = linkat(&from, old_name.as_c_str(), &to, name.as_c_str(), AtFlags::empty());
    linked.map_err(Errno::from).or_else(absent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_reads_as_qemu_prints_it() {
        let kept = Kept {
            uid: Some(1000),
            gid: Some(u32::MAX - 1),
            mode: Some(0o20_644),
            rdev: Some(Dev { major: 4, minor: 64 }),
        };
        let text = "virtfs.uid=1000\nvirtfs.gid=-2\nvirtfs.mode=8612\nvirtfs.rdev=1088\n";
        assert_eq!(print(kept), text);
        assert_eq!(parse(text.as_bytes()), kept);
    }

    // CVE-2017-7493
    #[test]
    fn nonsense_is_nothing() {
        let hostile: [&[u8]; 6] = [
            b"",
            b"virtfs.uid",
            b"virtfs.uid=root\nvirtfs.gid=\nvirtfs.mode=0x1ff\n",
            b"virtfs.uid=99999999999999999999\nvirtfs.gid=4294967296\nvirtfs.mode=-9999999999\n",
            b"\xff\xfe\0\0virtfs.uid=1",
            &[b'9'; TEXT_MAX],
        ];
        for text in hostile {
            assert_eq!(parse(text), Kept::default(), "{}", text.escape_ascii());
        }
        assert_eq!(parse(b"virtfs.uid=1\nvirtfs.uid=2").uid, Some(2));
    }
}
