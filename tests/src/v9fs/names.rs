//! Names: what is made, found, moved and removed.

use libc::{O_EXCL, O_TRUNC, S_IFDIR, S_IFLNK, S_IFMT, S_ISGID};
use nix::errno::Errno;
use postern_server::fuse::abi::{CreateIn, EntryOut, LinkIn, MkdirIn, MknodIn, OpenOut, RenameIn};
use postern_server::p9::message::*;
use postern_server::p9::wire::Text;
use zerocopy::IntoBytes;

use super::{Call, reply};
use crate::fuse::{Request, Result};

impl Call<'_> {
    pub(super) fn lookup(&self) -> Result<Vec<u8>> {
        self.entry(Request::split_name(&self.request.args).0)
    }

    pub(super) fn readlink(&self) -> Result<Vec<u8>> {
        self.client.readlink(self.fid()?)
    }

    pub(super) fn symlink(&self) -> Result<Vec<u8>> {
        let (name, rest) = Request::split_name(&self.request.args);
        let (target, _) = Request::split_name(rest);
        let dfid = self.fid()?;
        let message = Tsymlink { dfid, name: Text(name), target: Text(target), gid: self.parent(dfid)?.gid };
        self.client.call::<_, Rsymlink>(&message)?;
        self.entry(name)
    }

    pub(super) fn mknod(&self) -> Result<Vec<u8>> {
        let (MknodIn { mode, rdev, umask, .. }, rest) = self.request.parse();
        let (name, dfid) = (Request::split_name(rest).0, self.fid()?);
        let (major, minor) = (rdev >> 8 & 0xfff, rdev & 0xff | rdev >> 12 & 0xf_ff00);
        let (gid, mode) = (self.parent(dfid)?.gid, self.masked(mode, umask)?);
        self.client.call::<_, Rmknod>(&Tmknod { dfid, name: Text(name), mode, major, minor, gid })?;
        self.entry(name)
    }

    /// A directory in a set-group-id directory is one too.
    pub(super) fn mkdir(&self) -> Result<Vec<u8>> {
        let (MkdirIn { mode, umask }, rest) = self.request.parse();
        let (name, dfid) = (Request::split_name(rest).0, self.fid()?);
        let parent = self.parent(dfid)?;
        let mode = self.masked(mode, umask)? | parent.setgid;
        let message = Tmkdir { dfid, name: Text(name), mode, gid: parent.gid };
        self.client.call::<_, Rmkdir>(&message)?;
        self.entry(name)
    }

    pub(super) fn unlink(&self, flags: u32) -> Result<Vec<u8>> {
        let name = Text(Request::split_name(&self.request.args).0);
        self.client.call::<_, Runlinkat>(&Tunlinkat { dirfd: self.fid()?, name, flags }).map(|_| Vec::new())
    }

    pub(super) fn rename(&self) -> Result<Vec<u8>> {
        let (RenameIn { newdir }, rest) = self.request.parse();
        let (old, rest) = Request::split_name(rest);
        let (new, _) = Request::split_name(rest);
        let (olddirfid, newdirfid) = (self.fid()?, self.mount.fid(self.caller.uid, newdir)?);
        let message = Trenameat { olddirfid, oldname: Text(old), newdirfid, newname: Text(new) };
        self.client.call::<_, Rrenameat>(&message)?;
        self.mount.moved((self.node, old), (newdir, new));
        Ok(Vec::new())
    }

    pub(super) fn link(&self) -> Result<Vec<u8>> {
        let (LinkIn { oldnodeid }, rest) = self.request.parse();
        let name = Request::split_name(rest).0;
        let fid = self.mount.fid(self.caller.uid, oldnodeid)?;
        self.client.call::<_, Rlink>(&Tlink { dfid: self.fid()?, fid, name: Text(name) })?;
        self.entry(name)
    }

    /// The kernel looks first, and makes only what is not there.
    pub(super) fn create(&self) -> Result<Vec<u8>> {
        let (CreateIn { flags, mode, umask, .. }, rest) = self.request.parse();
        let (name, flags) = (Request::split_name(rest).0, flags.cast_signed());
        let (entry, fid) = match self.mount.find(self.caller.uid, self.node, name) {
            Ok(_) if flags & O_EXCL != 0 => return Err(Errno::EEXIST),
            Ok(entry) => match entry.attr.mode & S_IFMT {
                S_IFDIR => return Err(Errno::EISDIR),
                S_IFLNK => return Err(Errno::ELOOP),
                _ => (entry, self.open_node(entry.nodeid, flags)?),
            },
            Err(Errno::ENOENT) => self.make(name, flags & !O_TRUNC, self.masked(mode, umask)?)?,
            Err(errno) => return Err(errno),
        };
        Ok([entry.as_bytes(), OpenOut { fh: fid.into(), ..Default::default() }.as_bytes()].concat())
    }

    fn make(&self, name: &[u8], flags: i32, mode: u32) -> Result<(EntryOut, u32)> {
        let dir = self.fid()?;
        let (gid, fid) = (self.parent(dir)?.gid, self.mount.walk(dir, &[])?);
        let message = Tlcreate { fid, name: Text(name), flags: flags.cast_unsigned(), mode, gid };
        let made = self.client.call::<_, Rlcreate>(&message);
        if let Err(errno) = made {
            self.client.clunk(fid)?;
            return Err(errno);
        }
        Ok((self.mount.find(self.caller.uid, self.node, name)?, fid))
    }

    fn entry(&self, name: &[u8]) -> Result<Vec<u8>> {
        reply(&self.mount.find(self.caller.uid, self.node, name)?)
    }

    /// With ACLs the kernel leaves the umask to the file system: a default ACL counts instead.
    fn masked(&self, mode: u32, umask: u32) -> Result<u32> {
        if !self.mount.posix_acl {
            return Ok(mode);
        }
        match self.value(b"system.posix_acl_default", 0) {
            Ok(_) => Ok(mode),
            Err(Errno::ENODATA) => Ok(mode & !umask),
            Err(errno) => Err(errno),
        }
    }

    /// What a directory gives to what is made in it.
    fn parent(&self, dfid: u32) -> Result<Inherited> {
        let dir = self.client.getattr(dfid)?;
        let setgid = dir.mode & S_ISGID;
        Ok(Inherited { gid: if setgid == 0 { self.caller.gid } else { dir.gid }, setgid })
    }
}

struct Inherited {
    gid: u32,
    setgid: u32,
}
