//! What 9P2000.u says in messages of its own: opening and making by Plan 9's bits, attributes as one record, and
//! directories that are read as such records.

use std::sync::{Arc, PoisonError};

use postern_ipc::attr::{Attr, Changes, Mode, OpenFlags, RenameFlags, Time, TimeChange};
use postern_ipc::id::{GuestGid, GuestUid};
use postern_ipc::name::{FileName, NAME_MAX, TARGET_MAX, Target};
use postern_ipc::{Errno, Result};

use super::carrier::{Buffer, Carrier};
use super::convert::{creator, kills_setid, qid_kind};
use super::fid::{Fid, Found, Held, Opened, Role};
use super::message::{HEADER, Qid, Rcreate, Ropen, Rstat, Rwstat, Stat, Tcreate, Topen, Tstat, Twstat};
use super::perm::{Making, Opening, extension, is_kind, mode, number, perm};
use super::session::{Call, Session};
use super::wire::{Measured, Put, Text};
use crate::fs::{Detail, Dirent, Entry, Fs, Handle, Listing, NodeId, Object, ROOT};
use crate::vhost::Place;

/// Bytes of a record without its strings, its size included.
const HEAD: usize = 63;
/// Longest extension, but for symbolic links: `HARDLINKCOUNT 4294967295`.
const EXTENSION_MAX: usize = 24;
/// Bytes of the record with the longest name: with less room a directory might seem to end where it does not.
const LONGEST: usize = HEAD + EXTENSION_MAX + NAME_MAX;
/// Bytes of the kernel's own entry with the shortest name. linux/dirent.h: struct linux_dirent64
const DIRENT_MIN: usize = 24;

/// A file or directory; of anything else the guest opens its own.
pub(super) fn open<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Topen) -> Result<Ropen> {
    let fid = s.fids.get(t.fid)?;
    fid.is_walked()?;
    let opening = Opening::new(t.mode, fid.uid);
    let attr = fid.fs().getattr(fid.node(), None)?;
    if attr.kind() == libc::S_IFDIR {
        opening.suits_a_directory()?;
    }
    let opened = fid.open(&attr, opening.flags)?;
    s.fids.replace(t.fid, &fid, fid.with(Role::Opened(opened.removed(opening.removes))))?;
    Ok(Ropen { qid: Qid::of(&attr), iounit: 0 })
}

/// The fid of the directory becomes the one of what was made; a file or directory is open then. A name that is taken is
/// refused, as open(5) has it.
pub(super) fn create<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tcreate<'_>) -> Result<Rcreate> {
    let dir = s.fids.get(t.fid)?;
    dir.is_walked()?;
    let (name, making) = (FileName::new(t.name.0)?, Making::new(t.perm, t.extension.0)?);
    let opening = Opening::new(t.mode, dir.uid);
    let (entry, role) = s.make(&dir, &name, making, &t, opening)?;
    let (held, found) = (Held::new(dir.fs(), entry.node), Found::new(&dir.held, &name));
    s.fids.replace(t.fid, &dir, dir.at(held, Some(found), role))?;
    Ok(Rcreate { qid: Qid::of(&entry.attr), iounit: 0 })
}

/// Attributes. ENAMETOOLONG if a symbolic link says more than fits into a message.
pub(super) fn stat<F: Fs>(s: &Session<F>, call: &mut Call<'_>, t: Tstat) -> Result<Shown> {
    let shown = shown(&*s.fids.get(t.fid)?)?;
    // The record is measured once more outside.
    let fits = shown.size().saturating_add(size_of::<u16>()) <= s.room(call, HEADER);
    if fits { Ok(shown) } else { Err(Errno::ENAMETOOLONG) }
}

/// Changes what is not left as it is, or all at once nothing: then what was written goes to the disk. stat(5)
pub(super) fn wstat<F: Fs>(s: &Session<F>, call: &mut Call<'_>, t: Twstat<'_>) -> Result<Rwstat> {
    let (fid, new) = (s.fids.get(t.fid)?, t.stat.0.0);
    if (Stat { muid: Text(b""), ..new }) == Stat::DONT_TOUCH {
        if call.place == Place::Worker {
            return Err(Errno::EAGAIN);
        }
        return sync(&fid).map(|()| Rwstat {});
    }
    let now = shown(&fid)?;
    let changes = changes(&new, &now.stat(), fid.uid)?;
    let name = match new.name.0 {
        name if name.is_empty() || name == now.name => None,
        name => Some(FileName::new(name)?),
    };
    if changes != (Changes { kill_setid: changes.kill_setid, ..Changes::default() }) {
        fid.fs().setattr(fid.node(), None, &changes)?;
    }
    if let Some(new_name) = name {
        let (parent, name) = fid.whereabouts()?;
        fid.fs().rename((parent.node, &name), (parent.node, &new_name), RenameFlags::empty())?;
    }
    Ok(Rwstat {})
}

/// The next entries of a directory: from its beginning, or from where the last reading ended. read(5): "seeking other
/// than to the beginning is illegal in a directory". Linux fills its buffer by ever smaller readings until one brings
/// nothing, and goes on with an empty buffer: so what is too small for any name brings nothing.
pub(super) fn read_dir<F: Fs>(dir: &Opened<F>, offset: u64, to: &mut dyn Carrier) -> Result<()> {
    let mut place = dir.place.lock().unwrap_or_else(PoisonError::into_inner);
    let mut at = match offset {
        0 => ReadTo::default(),
        _ if offset == place.bytes => *place,
        _ => return Err(Errno::EINVAL),
    };
    if to.room() < LONGEST {
        return if offset == 0 { Err(Errno::EINVAL) } else { Ok(()) };
    }
    let mut batch = Batch { fs: &dir.fs, entries: Vec::new(), left: to.room() };
    dir.fs.readdir(dir.handle, at.next, Detail::Entries, &mut batch)?;
    for listed in &batch.entries {
        let mut shown = listed_as(dir, listed)?;
        if shown.size() > to.room() {
            if at.bytes != offset {
                break;
            }
            shown.extension.clear();
        }
        let mut bytes = Vec::with_capacity(shown.size());
        Measured(shown.stat()).put(&mut bytes);
        to.put(&bytes)?;
        let size = u64::try_from(bytes.len()).map_err(|_| Errno::EIO)?;
        at = ReadTo { bytes: at.bytes.saturating_add(size), next: listed.next };
    }
    *place = at;
    Ok(())
}

/// How far a directory was read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct ReadTo {
    /// The client has had so many bytes.
    bytes: u64,
    /// From there the file system reads on.
    next: u64,
}

/// One entry of a directory.
struct Listed<F: Fs> {
    name: Box<[u8]>,
    ino: u64,
    kind: u8,
    next: u64,
    found: Option<(Arc<Held<F>>, Attr)>,
}

/// Entries that fit, as far as can be told before symbolic links are read.
struct Batch<'a, F: Fs> {
    fs: &'a Arc<F>,
    entries: Vec<Listed<F>>,
    left: usize,
}

fn most(name_len: usize) -> usize {
    name_len.saturating_add(HEAD + EXTENSION_MAX)
}

impl<F: Fs> Listing for Batch<'_, F> {
    /// The shortest name grows most on its way into the answer.
    fn raw_room(&self) -> usize {
        self.left.saturating_mul(DIRENT_MIN).checked_div(most(1)).unwrap_or_default()
    }

    fn fits(&self, name_len: usize) -> bool {
        most(name_len) <= self.left
    }

    fn push(&mut self, &Dirent { ino, next, kind, name, entry }: &Dirent<'_>) {
        let found = entry.map(|Entry { node, attr }| (Held::new(self.fs, node), attr));
        self.left = self.left.saturating_sub(most(name.len()));
        self.entries.push(Listed { name: name.into(), ino, kind, next, found });
    }
}

/// A file as a record of 9P2000.u shows it.
pub(super) struct Shown {
    numbers: Stat<'static>,
    name: Vec<u8>,
    extension: Vec<u8>,
}

impl Shown {
    fn new(attr: &Attr, name: Vec<u8>, extension: Vec<u8>) -> Self {
        let numbers = Stat {
            kind: 0,
            dev: 0,
            qid: Qid::of(attr),
            mode: perm(attr.mode),
            atime: seconds(attr.atime),
            mtime: seconds(attr.mtime),
            length: attr.size,
            n_uid: attr.uid.0,
            n_gid: attr.gid.0,
            ..Stat::DONT_TOUCH
        };
        Self { numbers, name, extension }
    }

    /// Of what cannot be looked up, only the kind is known.
    fn kind(listed: &Listed<impl Fs>) -> Self {
        let mode = u32::from(listed.kind) << 12;
        let qid = Qid { kind: qid_kind(mode), version: 0, path: listed.ino };
        let numbers =
            Stat { kind: 0, dev: 0, qid, mode: perm(mode), atime: 0, mtime: 0, length: 0, ..Stat::DONT_TOUCH };
        Self { numbers, name: listed.name.to_vec(), extension: Vec::new() }
    }

    fn stat(&self) -> Stat<'_> {
        Stat { name: Text(&self.name), extension: Text(&self.extension), ..self.numbers }
    }

    /// Bytes of the record.
    fn size(&self) -> usize {
        HEAD.saturating_add(self.name.len()).saturating_add(self.extension.len())
    }
}

impl Put for Shown {
    fn put(&self, to: &mut Vec<u8>) {
        Rstat { stat: Measured(Measured(self.stat())) }.put(to);
    }
}

/// A moment in 32 bits; those before 1970 and after 2106 are the first and the last.
fn seconds(time: Time) -> u32 {
    u32::try_from(time.sec.max(0)).unwrap_or(u32::MAX - 1)
}

/// What Twstat asks for, on behalf of `uid`. What cannot be changed may be said as it is; who changed it last is
/// nobody's to say.
///
/// # Errors
/// EINVAL for a change of what cannot be changed.
fn changes(new: &Stat<'_>, now: &Stat<'_>, uid: u32) -> Result<Changes> {
    const KEEP: Stat<'static> = Stat::DONT_TOUCH;
    let stays = [
        new.kind == KEEP.kind || new.kind == now.kind,
        new.dev == KEEP.dev || new.dev == now.dev,
        new.qid == KEEP.qid || (new.qid.kind, new.qid.path) == (now.qid.kind, now.qid.path),
        new.mode == KEEP.mode || is_kind(new.mode, now.mode),
        new.extension == KEEP.extension || new.extension == now.extension,
        new.uid == KEEP.uid && new.gid == KEEP.gid,
    ];
    if stays.contains(&false) {
        return Err(Errno::EINVAL);
    }
    let time = |sec| if sec == !0 { TimeChange::Keep } else { TimeChange::At(Time { sec: i64::from(sec), nsec: 0 }) };
    Ok(Changes {
        uid: (new.n_uid != !0).then_some(GuestUid(new.n_uid)),
        gid: (new.n_gid != !0).then_some(GuestGid(new.n_gid)),
        mode: (new.mode != !0).then(|| Mode::new(mode(new.mode))),
        size: (new.length != !0).then_some(new.length),
        atime: time(new.atime),
        mtime: time(new.mtime),
        kill_setid: kills_setid(uid),
    })
}

impl<F: Fs> Session<F> {
    /// Makes what Tcreate asks for. Its group is the directory's, as open(5) has it; who its user's groups are nobody
    /// says, so only root makes files that take the group on.
    fn make(
        &self,
        dir: &Fid<F>,
        name: &FileName,
        making: Making,
        t: &Tcreate<'_>,
        opening: Opening,
    ) -> Result<(Entry, Role<F>)> {
        let (fs, parent) = (dir.fs(), dir.node());
        let around = fs.getattr(parent, None)?;
        if around.kind() != libc::S_IFDIR {
            return Err(Errno::ENOTDIR);
        }
        let caller = creator(dir.uid, around.gid.0);
        let setgid = if dir.uid == 0 { 0 } else { libc::S_ISGID };
        let (mode, umask) = (Mode::new(mode(t.perm) & !setgid), Mode::new(0));
        let opened = |entry: Entry, fh, object| {
            let handle = Handle { node: entry.node, fh, object };
            (entry, Role::Opened(Opened::new(fs, handle).removed(opening.removes)))
        };
        Ok(match making {
            Making::File => {
                let flags = opening.flags | OpenFlags::EXCL;
                let (entry, fh) = fs.create(caller, parent, name, mode, umask, flags)?;
                opened(entry, fh, Object::File)
            }
            Making::Dir => {
                opening.suits_a_directory()?;
                let entry = fs.mkdir(caller, parent, name, mode, umask)?;
                let fh = fs.opendir(entry.node).inspect_err(|_| fs.forget(entry.node, 1))?;
                opened(entry, fh, Object::Dir)
            }
            Making::Symlink => (fs.symlink(caller, parent, name, Target::new(t.extension.0)?)?, Role::Walked),
            Making::Link => {
                let fid = self.fids.get(number(Some(t.extension.0))?)?;
                fid.is_of_the_user_of(dir)?;
                (fs.link(fid.node(), parent, name)?, Role::Walked)
            }
            Making::Node(kind) => (fs.mknod(caller, parent, name, kind, mode, umask)?, Role::Walked),
        })
    }
}

/// What a fid stands for. Its name is the one it was last seen by.
fn shown<F: Fs>(fid: &Fid<F>) -> Result<Shown> {
    let (fs, attr, node) = (fid.fs(), fid.attr()?, fid.node());
    let name = match fs.seen(node) {
        _ if node == ROOT => b"/".to_vec(),
        Ok((parent, name)) => {
            drop(Held::new(fs, parent));
            name.as_bytes().to_vec()
        }
        Err(_) => fid.found.as_ref().map(|found| found.name.to_vec()).unwrap_or_default(),
    };
    Ok(Shown::new(&attr, name, told(&**fs, node, &attr)?))
}

fn listed_as<F: Fs>(dir: &Opened<F>, listed: &Listed<F>) -> Result<Shown> {
    let (fs, node) = (&dir.fs, dir.handle.node);
    let dots = match (&*listed.name, &listed.found) {
        (b".", None) => Some(fs.getattr(node, None)?),
        (b"..", None) => Some(above(fs, node)?),
        (_, found) => found.as_ref().map(|(_, attr)| *attr),
    };
    let Some(attr) = dots else { return Ok(Shown::kind(listed)) };
    let extension = match &listed.found {
        // It may be gone meanwhile, or be something else.
        Some((held, _)) => told(&**fs, held.node, &attr).unwrap_or_default(),
        None => extension(&attr).into(),
    };
    Ok(Shown::new(&attr, listed.name.to_vec(), extension))
}

fn above<F: Fs>(fs: &Arc<F>, dir: NodeId) -> Result<Attr> {
    let parent = if dir == ROOT { None } else { fs.seen(dir).ok() };
    let parent = parent.map(|(parent, _)| Held::new(fs, parent));
    fs.getattr(parent.map_or(dir, |parent| parent.node), None)
}

/// The extension that tells what a file is; a symbolic link's is what it says.
fn told(fs: &impl Fs, node: NodeId, attr: &Attr) -> Result<Vec<u8>> {
    if attr.kind() != libc::S_IFLNK {
        return Ok(extension(attr).into());
    }
    let mut target = Buffer::new(TARGET_MAX);
    fs.readlink(node, &mut target)?;
    Ok(target.bytes)
}

/// What has no content is on the disk.
fn sync<F: Fs>(fid: &Fid<F>) -> Result<()> {
    if let Role::Opened(opened) = &fid.role {
        return fid.fs().fsync(opened.handle, false);
    }
    let attr = fid.fs().getattr(fid.node(), None)?;
    match attr.kind() {
        libc::S_IFREG | libc::S_IFDIR => fid.fs().fsync(fid.open(&attr, OpenFlags::READ)?.handle, false),
        _ => Ok(()),
    }
}
