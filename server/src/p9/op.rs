//! The messages served: one row each, and what a row does. A row has its request, calls the file system and gives an
//! answer; it writes neither bytes nor errnos.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use postern_ipc::attr::{Attr, Dev, Mode, NodeKind, OpenFlags, RenameFlags};
use postern_ipc::name::{FileName, Target};
use postern_ipc::{Errno, Result};

use super::convert::{changes, creator, getattr as attributes, kills_setid, open_flags, statfs as space, wants_dir};
use super::dotu::{create, open, read_dir, stat, wstat};
use super::fid::{Fid, Found, Held, Opened, Role};
use super::listing::{Entries, LONGEST};
use super::lock::{getlock, lock};
#[allow(clippy::wildcard_imports, reason = "nearly all of the table")]
use super::message::*;
use super::session::{Call, Dialect, Filled, Session, run};
use super::walk::walk;
use super::xattr::{read_value, set_value, write_value, xattrcreate, xattrwalk};
use crate::fs::{Detail, Entry, Fs, Handle, Object, ROOT};
use crate::vhost::Place;

/// Does a request belong to the queue's worker or to the pool?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pace {
    /// It answers at once, or finds out itself that it would wait.
    Quick,
    /// It may wait for a disk.
    Slow,
}

/// Who sends a message?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Spoken {
    /// Clients of any dialect.
    Both,
    /// Those of 9P2000.L.
    L,
    /// Those of 9P2000.u.
    U,
}

impl Spoken {
    fn is_of(self, dialect: Dialect) -> bool {
        match self {
            Self::Both => true,
            Self::L => dialect == Dialect::L,
            Self::U => dialect == Dialect::U,
        }
    }
}

macro_rules! served {
    ($($message:ident $row:ident $spoken:ident $pace:ident;)*) => {
        /// What is known of a message before it is looked at: name and pace. `None`: not served in this dialect.
        pub(super) fn known(dialect: Dialect, kind: u8) -> Option<(&'static str, Pace)> {
            match kind {
                $($message::NUMBER if Spoken::$spoken.is_of(dialect) => Some((stringify!($row), Pace::$pace)),)*
                _ => None,
            }
        }

        /// Does a request; the bytes of the answer behind its header.
        pub(super) fn dispatch<F: Fs>(session: &Session<F>, call: &mut Call<'_>) -> Result<usize> {
            match call.header.kind {
                $($message::NUMBER => run(session, call, $row),)*
                _ => Err(Errno::EOPNOTSUPP),
            }
        }
    };
}

served! {
    Tversion version Both Quick;
    Tauth auth Both Quick;
    Tattach attach Both Quick;
    Tflush flush Both Quick;
    Twalk walk Both Quick;
    Tclunk clunk Both Quick;
    Tremove remove Both Quick;
    Tstatfs statfs L Quick;
    Tgetattr getattr L Quick;
    Tsetattr setattr L Quick;
    Treadlink readlink L Quick;
    Tlopen lopen L Quick;
    Tlcreate lcreate L Quick;
    Tread read Both Quick;
    Twrite write Both Quick;
    Treaddir readdir L Quick;
    Tfsync fsync L Slow;
    Tmkdir mkdir L Quick;
    Tmknod mknod L Quick;
    Tsymlink symlink L Quick;
    Tlink link L Quick;
    Trename rename L Quick;
    Trenameat renameat L Quick;
    Tunlinkat unlinkat L Quick;
    Txattrwalk xattrwalk L Quick;
    Txattrcreate xattrcreate L Quick;
    Tlock lock L Quick;
    Tgetlock getlock L Quick;
    Topen open U Quick;
    Tcreate create U Quick;
    Tstat stat U Quick;
    Twstat wstat U Quick;
}

/// Unlinkat's flag for directories. linux/net/9p/9p.h: P9_DOTL_AT_REMOVEDIR
const AT_REMOVEDIR: u32 = 0x200;

fn version<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tversion<'_>) -> Result<Rversion<'static>> {
    s.version(&t)
}

/// Nobody proves who he is: the guest's kernel has judged that. ENOENT is what diod says where no proof is wanted, and
/// its clients go on with no other error.
fn auth<F: Fs>(_: &Session<F>, _: &mut Call<'_>, _: Tauth<'_>) -> Result<Rauth> {
    Err(Errno::ENOENT)
}

/// There is one tree, the share; a name for it may be left out.
fn attach<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tattach<'_>) -> Result<Rattach> {
    if t.afid != NOFID {
        return Err(Errno::EINVAL);
    }
    if !matches!(t.aname.0, b"" | b"/") {
        return Err(Errno::ENOENT);
    }
    let (fs, uid) = s.users.attach(&s.share, t.n_uname, t.uname.0)?;
    let attr = fs.getattr(ROOT, None)?;
    s.fids.insert(t.fid, Fid { held: Held::new(&fs, ROOT), found: None, uid, role: Role::Walked })?;
    s.attached.store(true, Ordering::Release);
    Ok(Rattach { qid: Qid::of(&attr) })
}

/// Waits for the request if it is under way in another thread: its answer goes first.
fn flush<F: Fs>(s: &Session<F>, call: &mut Call<'_>, t: Tflush) -> Result<Rflush> {
    let under_way = s.flights.call_off(t.oldtag);
    if under_way && call.place == Place::Worker {
        return Err(Errno::EAGAIN);
    }
    s.flights.wait(t.oldtag, call.serial);
    Ok(Rflush {})
}

/// The fid is gone whatever the answer says; the value of an extended attribute is set now, and what was opened to be
/// removed is.
fn clunk<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tclunk) -> Result<Rclunk> {
    let fid = s.fids.remove(t.fid)?;
    match &fid.role {
        Role::NewValue(new) => set_value(&fid, new)?,
        Role::Opened(opened) if opened.removes => fid.unlink()?,
        _ => {}
    }
    Ok(Rclunk {})
}

/// The fid is gone whatever the answer says.
fn remove<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tremove) -> Result<Rremove> {
    s.fids.remove(t.fid)?.unlink()?;
    Ok(Rremove {})
}

fn statfs<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tstatfs) -> Result<Rstatfs> {
    let fid = s.fids.get(t.fid)?;
    Ok(space(&fid.fs().statfs(fid.node())?))
}

fn getattr<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tgetattr) -> Result<Rgetattr> {
    Ok(attributes(&s.fids.get(t.fid)?.attr()?))
}

fn setattr<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tsetattr) -> Result<Rsetattr> {
    let fid = s.fids.get(t.fid)?;
    fid.fs().setattr(fid.node(), None, &changes(&t, fid.uid)?)?;
    Ok(Rsetattr {})
}

fn readlink<F: Fs>(s: &Session<F>, call: &mut Call<'_>, t: Treadlink) -> Result<Filled> {
    let fid = s.fids.get(t.fid)?;
    s.aim(call, &Filled::Text, u32::MAX);
    fid.fs().readlink(fid.node(), call.carrier)?;
    Ok(Filled::Text)
}

fn lopen<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tlopen) -> Result<Rlopen> {
    let fid = s.fids.get(t.fid)?;
    fid.is_walked()?;
    let flags = open_flags(t.flags, fid.uid)?;
    let attr = fid.fs().getattr(fid.node(), None)?;
    if wants_dir(t.flags) && attr.kind() != libc::S_IFDIR {
        return Err(Errno::ENOTDIR);
    }
    let opened = fid.open(&attr, flags)?;
    s.fids.replace(t.fid, &fid, fid.with(Role::Opened(opened)))?;
    Ok(Rlopen { qid: Qid::of(&attr), iounit: 0 })
}

/// The fid of the directory becomes the one of the open file.
fn lcreate<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tlcreate<'_>) -> Result<Rlcreate> {
    let dir = s.fids.get(t.fid)?;
    dir.is_walked()?;
    let (name, flags) = (FileName::new(t.name.0)?, open_flags(t.flags, dir.uid)?);
    let caller = creator(dir.uid, t.gid);
    let (entry, fh) = dir.fs().create(caller, dir.node(), &name, Mode::new(t.mode), Mode::new(0), flags)?;
    let opened = Opened::new(dir.fs(), Handle { node: entry.node, fh, object: Object::File });
    let (held, found) = (Held::new(dir.fs(), entry.node), Found::new(&dir.held, &name));
    s.fids.replace(t.fid, &dir, dir.at(held, Some(found), Role::Opened(opened)))?;
    Ok(Rlcreate { qid: Qid::of(&entry.attr), iounit: 0 })
}

fn read<F: Fs>(s: &Session<F>, call: &mut Call<'_>, t: Tread) -> Result<Filled> {
    let fid = s.fids.get(t.fid)?;
    s.aim(call, &Filled::Content, t.count);
    match &fid.role {
        Role::Opened(opened) if opened.handle.object == Object::File => {
            fid.fs().read(opened.handle, t.offset, call.wait(), call.carrier)?;
        }
        Role::Opened(dir) if s.dialect() == Dialect::U => read_dir(dir, t.offset, call.carrier)?,
        Role::Opened(_) => return Err(Errno::EISDIR),
        Role::Value(value) => read_value(&value.bytes, t.offset, call.carrier)?,
        Role::Walked | Role::NewValue(_) => return Err(Errno::EBADF),
    }
    Ok(Filled::Content)
}

fn write<F: Fs>(s: &Session<F>, call: &mut Call<'_>, t: Twrite) -> Result<Rwrite> {
    let fid = s.fids.get(t.fid)?;
    call.carrier.expect(t.count)?;
    let written = match &fid.role {
        Role::Opened(file) => fid.fs().write(file.handle, t.offset, kills_setid(fid.uid), call.wait(), call.carrier)?,
        Role::NewValue(new) => write_value(new, t.offset, call.carrier)?,
        Role::Walked | Role::Value(_) => return Err(Errno::EBADF),
    };
    Ok(Rwrite { count: u32::try_from(written).map_err(|_| Errno::EIO)? })
}

fn readdir<F: Fs>(s: &Session<F>, call: &mut Call<'_>, t: Treaddir) -> Result<Filled> {
    let fid = s.fids.get(t.fid)?;
    s.aim(call, &Filled::Content, t.count);
    if call.carrier.room() < LONGEST {
        return Err(Errno::EINVAL);
    }
    let dir = fid.opened()?.handle;
    fid.fs().readdir(dir, t.offset, Detail::Names, &mut Entries::new(call.carrier))?;
    Ok(Filled::Content)
}

fn fsync<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tfsync) -> Result<Rfsync> {
    let fid = s.fids.get(t.fid)?;
    fid.fs().fsync(fid.opened()?.handle, t.datasync != 0)?;
    Ok(Rfsync {})
}

fn mkdir<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tmkdir<'_>) -> Result<Rmkdir> {
    let dir = s.fids.get(t.dfid)?;
    let name = FileName::new(t.name.0)?;
    let entry = dir.fs().mkdir(creator(dir.uid, t.gid), dir.node(), &name, Mode::new(t.mode), Mode::new(0))?;
    Ok(Rmkdir { qid: made(&dir, &entry) })
}

fn mknod<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tmknod<'_>) -> Result<Rmknod> {
    let dir = s.fids.get(t.dfid)?;
    let name = FileName::new(t.name.0)?;
    let kind = NodeKind::new(t.mode, Dev { major: t.major, minor: t.minor })?;
    let entry = dir.fs().mknod(creator(dir.uid, t.gid), dir.node(), &name, kind, Mode::new(t.mode), Mode::new(0))?;
    Ok(Rmknod { qid: made(&dir, &entry) })
}

fn symlink<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tsymlink<'_>) -> Result<Rsymlink> {
    let dir = s.fids.get(t.dfid)?;
    let (name, target) = (FileName::new(t.name.0)?, Target::new(t.target.0)?);
    let entry = dir.fs().symlink(creator(dir.uid, t.gid), dir.node(), &name, target)?;
    Ok(Rsymlink { qid: made(&dir, &entry) })
}

fn link<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tlink<'_>) -> Result<Rlink> {
    let (dir, fid) = (s.fids.get(t.dfid)?, s.fids.get(t.fid)?);
    fid.is_of_the_user_of(&dir)?;
    made(&dir, &dir.fs().link(fid.node(), dir.node(), &FileName::new(t.name.0)?)?);
    Ok(Rlink {})
}

fn rename<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Trename<'_>) -> Result<Rrename> {
    let (fid, dir) = (s.fids.get(t.fid)?, s.fids.get(t.dfid)?);
    fid.is_of_the_user_of(&dir)?;
    let new_name = FileName::new(t.name.0)?;
    let (parent, name) = fid.whereabouts()?;
    fid.fs().rename((parent.node, &name), (dir.node(), &new_name), RenameFlags::empty())?;
    Ok(Rrename {})
}

fn renameat<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Trenameat<'_>) -> Result<Rrenameat> {
    let (from, to) = (s.fids.get(t.olddirfid)?, s.fids.get(t.newdirfid)?);
    from.is_of_the_user_of(&to)?;
    let (name, new_name) = (FileName::new(t.oldname.0)?, FileName::new(t.newname.0)?);
    from.fs().rename((from.node(), &name), (to.node(), &new_name), RenameFlags::empty())?;
    Ok(Rrenameat {})
}

fn unlinkat<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tunlinkat<'_>) -> Result<Runlinkat> {
    let (dir, name) = (s.fids.get(t.dirfd)?, FileName::new(t.name.0)?);
    match t.flags {
        0 => dir.fs().unlink(dir.node(), &name),
        AT_REMOVEDIR => dir.fs().rmdir(dir.node(), &name),
        _ => Err(Errno::EINVAL),
    }?;
    Ok(Runlinkat {})
}

impl<F: Fs> Session<F> {
    /// Sets room for at most `count` bytes of content apart.
    fn aim(&self, call: &mut Call<'_>, filled: &Filled, count: u32) {
        let start = filled.start();
        let most = self.room(call, start).min(usize::try_from(count).unwrap_or(usize::MAX));
        call.carrier.aim(start, most);
    }
}

/// Something was made in a directory, and no fid stands for it.
fn made<F: Fs>(dir: &Fid<F>, entry: &Entry) -> Qid {
    drop(Held::new(dir.fs(), entry.node));
    Qid::of(&entry.attr)
}

impl<F: Fs> Fid<F> {
    /// Attributes of what it stands for: of the open file itself, if there is one.
    pub(super) fn attr(&self) -> Result<Attr> {
        let file = self.opened().ok().map(|opened| opened.handle).filter(|handle| handle.object == Object::File);
        self.fs().getattr(self.node(), file)
    }

    /// Removes a file or directory by the name that leads to it.
    fn unlink(&self) -> Result<()> {
        let attr = self.fs().getattr(self.node(), None)?;
        let (parent, name) = self.whereabouts()?;
        if attr.kind() == libc::S_IFDIR {
            self.fs().rmdir(parent.node, &name)
        } else {
            self.fs().unlink(parent.node, &name)
        }
    }

    /// A name that leads to what it stands for: the one it was walked by, or the one its node was last seen by.
    pub(super) fn whereabouts(&self) -> Result<(Arc<Held<F>>, FileName)> {
        if let Some(found) = &self.found {
            let name = FileName::new(&found.name)?;
            if self.is_at(&found.parent, &name) {
                return Ok((Arc::clone(&found.parent), name));
            }
        }
        let (parent, name) = self.fs().seen(self.node())?;
        let parent = Held::new(self.fs(), parent);
        if self.is_at(&parent, &name) { Ok((parent, name)) } else { Err(Errno::ENOENT) }
    }

    fn is_at(&self, parent: &Held<F>, name: &FileName) -> bool {
        let found = parent.fs.lookup(parent.node, name).map(|entry| Held::new(&parent.fs, entry.node));
        found.is_ok_and(|there| there.node == self.node())
    }

    /// Opens a file or directory; of anything else the guest opens its own.
    pub(super) fn open(&self, attr: &Attr, flags: OpenFlags) -> Result<Opened<F>> {
        let (fs, node) = (self.fs(), self.node());
        let (fh, object) = match attr.kind() {
            libc::S_IFDIR if flags.intersects(OpenFlags::WRITE | OpenFlags::TRUNC) => return Err(Errno::EISDIR),
            libc::S_IFDIR => (fs.opendir(node)?, Object::Dir),
            _ => (fs.open(node, flags)?, Object::File),
        };
        Ok(Opened::new(fs, Handle { node, fh, object }))
    }
}
