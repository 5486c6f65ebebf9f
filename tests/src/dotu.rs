//! What a guest's 9p driver sends in 9P2000.u and in no other dialect, one function per message.

use nix::errno::Errno;
use postern_server::p9::message::*;
use postern_server::p9::wire::{Get, Measured, Reader, Text};

use crate::fuse::Result;
use crate::p9::{Client, ROOT, decode};

/// Bits of `perm`. linux/net/9p/9p.h: P9_DM*
pub mod dm {
    /// A directory.
    pub const DIR: u32 = 0x8000_0000;
    /// A symbolic link.
    pub const SYMLINK: u32 = 0x0200_0000;
    /// Another name of a file.
    pub const LINK: u32 = 0x0100_0000;
    /// A device.
    pub const DEVICE: u32 = 0x0080_0000;
    /// A FIFO.
    pub const NAMED_PIPE: u32 = 0x0020_0000;
    /// A Unix socket.
    pub const SOCKET: u32 = 0x0010_0000;
    /// S_ISUID
    pub const SETUID: u32 = 0x0008_0000;
    /// S_ISGID
    pub const SETGID: u32 = 0x0004_0000;
    /// S_ISVTX
    pub const SETVTX: u32 = 0x0001_0000;
}

/// How a file is opened. linux/net/9p/9p.h: P9_O*
pub mod mode {
    /// For reading.
    pub const READ: u8 = 0;
    /// For writing.
    pub const WRITE: u8 = 1;
    /// For both.
    pub const RDWR: u8 = 2;
    /// Emptied.
    pub const TRUNC: u8 = 0x10;
    /// Removed when the fid is clunked.
    pub const RCLOSE: u8 = 0x40;
    /// Written at its end.
    pub const APPEND: u8 = 0x80;
}

/// The attributes of a file, its strings owned.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// All but the strings.
    pub numbers: Stat<'static>,
    /// Its name.
    pub name: String,
    /// What the dialect says beside Plan 9's.
    pub extension: String,
}

impl From<Stat<'_>> for Record {
    fn from(stat: Stat<'_>) -> Self {
        let text = |text: Text<'_>| String::from_utf8(text.0.to_vec()).expect("UTF-8");
        let (name, extension) = (text(stat.name), text(stat.extension));
        assert_eq!([stat.uid, stat.gid, stat.muid], [Text(b""); 3], "the numbers say it");
        let none = Text(b"");
        Self {
            numbers: Stat { name: none, uid: none, gid: none, muid: none, extension: none, ..stat },
            name,
            extension,
        }
    }
}

impl Client {
    /// Begins anew in 9P2000.u, and attaches as the guest's root.
    pub fn speak_u(&self, msize: u32) {
        assert_eq!(self.version(msize, b"9P2000.u"), Ok((msize, b"9P2000.u".to_vec())));
        self.attach_as(ROOT, 0).expect("attached");
    }

    /// Topen of what a path leads to.
    pub fn open_u(&self, path: &str, mode: u8) -> Result<u32> {
        let fid = self.walk(path)?;
        self.call::<_, Ropen>(&Topen { fid, mode }).map(|_| fid)
    }

    /// Tcreate in what a fid stands for, which stands for what was made then.
    pub fn make_from(&self, fid: u32, name: &str, perm: u32, mode: u8, extension: &str) -> Result<Qid> {
        let (name, extension) = (Text(name.as_bytes()), Text(extension.as_bytes()));
        self.call::<_, Rcreate>(&Tcreate { fid, name, perm, mode, extension }).map(|answer| answer.qid)
    }

    /// Tcreate below a directory that is walked to; the fid.
    pub fn make(&self, dir: &str, name: &str, perm: u32, mode: u8, extension: &str) -> Result<u32> {
        let fid = self.walk(dir)?;
        match self.make_from(fid, name, perm, mode, extension) {
            Ok(_) => Ok(fid),
            Err(errno) => self.clunk(fid).and(Err(errno)),
        }
    }

    /// Tstat.
    pub fn stat(&self, fid: u32) -> Result<Record> {
        let body = self.recv(self.send(&Tstat { fid }, &[], 0))?;
        Ok(decode::<Rstat<'_>>(&body).stat.0.0.into())
    }

    /// Twstat.
    pub fn wstat(&self, fid: u32, stat: Stat<'_>) -> Result<()> {
        self.call::<_, Rwstat>(&Twstat { fid, stat: Measured(Measured(stat)) }).map(drop)
    }

    /// Tread once of a directory: its records, and how many bytes they have.
    pub fn records(&self, fid: u32, offset: u64, count: u32) -> Result<(Vec<Record>, u64)> {
        let bytes = self.read(fid, offset, count)?;
        let mut from = Reader::new(&bytes);
        let mut records = Vec::new();
        while from.finish().is_err() {
            records.push(Measured::<Stat<'_>>::get(&mut from).expect("whole records").0.into());
        }
        Ok((records, bytes.len() as u64))
    }

    /// All records of a directory, as Linux reads it.
    pub fn list_u(&self, path: &str, count: u32) -> Result<Vec<Record>> {
        let dir = self.open_u(path, mode::READ)?;
        let (mut all, mut at) = (Vec::new(), 0);
        loop {
            let (records, bytes) = self.records(dir, at, count)?;
            if records.is_empty() {
                return self.clunk(dir).map(|()| all);
            }
            all.extend(records);
            at += bytes;
        }
    }
}

/// What an Rerror says.
pub fn error(body: &[u8]) -> Errno {
    let Rerror { ename, errno } = decode(body);
    let errno = Errno::from_raw(errno as i32);
    assert_eq!(ename.0, errno.desc().as_bytes());
    errno
}
