//! A 9P client over a real ring: what a guest's 9p driver sends in 9P2000.L or in both dialects, one function per
//! message.

use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use postern_server::p9::message::*;
use postern_server::p9::wire::{Get, Put, Reader, Text};

use crate::fuse::{PATIENCE, Result};
use crate::ring::{Message as Chain, Ticket};
use crate::vmm::Vmm;

/// The fid of the root that [`Client::mount`] attaches.
pub const ROOT: u32 = 0;
/// Bytes of an answer before its content: header and count.
const CONTENT: usize = HEADER + 4;
/// Room for an error in words.
const ERROR: usize = 64;
/// Room for an answer without content.
const ROOM: usize = 8192;

/// A guest's session.
pub struct Client {
    /// The device.
    pub vmm: Vmm,
    tags: AtomicU16,
    fids: AtomicU32,
}

/// A request without an answer yet.
#[derive(Debug)]
pub struct Pending {
    kind: u8,
    tag: u16,
    ticket: Ticket,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of its qid.
    pub ino: u64,
    /// Where to go on.
    pub next: u64,
    /// DT_*.
    pub kind: u8,
    /// Its name.
    pub name: Vec<u8>,
}

impl Client {
    /// A device to which nothing was said yet.
    pub fn unmounted(vmm: Vmm) -> Self {
        Self { vmm, tags: AtomicU16::new(0), fids: AtomicU32::new(ROOT + 1) }
    }

    /// Agrees on the dialect.
    pub fn agreed(vmm: Vmm) -> Self {
        let client = Self::unmounted(vmm);
        assert_eq!(client.version(1 << 20, b"9P2000.L"), Ok((1 << 20, b"9P2000.L".to_vec())));
        client
    }

    /// Agrees on the dialect, and attaches as the guest's root.
    pub fn mount(vmm: Vmm) -> Self {
        let client = Self::agreed(vmm);
        client.attach_as(ROOT, 0).expect("attached");
        client
    }

    /// A fid that stands for nothing.
    pub fn fid(&self) -> u32 {
        self.fids.fetch_add(1, Ordering::Relaxed)
    }

    /// Puts a whole message on the ring, header included, with so many bytes of room for content.
    pub fn send_raw(&self, message: &[u8], data: &[u8], room: usize) -> Pending {
        let (kind, tag) = (message.get(4).copied().unwrap_or(0), message.get(5..7));
        let tag = u16::from_le_bytes(tag.map_or([0; 2], |tag| tag.try_into().expect("two bytes")));
        let (reply_header, reply_args) = if room > 0 { (CONTENT, 0) } else { (HEADER, ROOM) };
        let chain = Chain { header: message, args: &[], data, reply_header, reply_args, reply_data: room };
        let mut ring = self.vmm.ring(0);
        let ticket = ring.prepare(&chain);
        ring.offer(ticket.head);
        Pending { kind, tag, ticket }
    }

    /// Sends a message, with content behind it and room for content in its answer.
    pub fn send<T: Message + Put>(&self, message: &T, data: &[u8], room: usize) -> Pending {
        let tag = self.tags.fetch_add(1, Ordering::Relaxed) % NOTAG;
        self.send_raw(&frame(message, tag, data.len()), data, room)
    }

    /// The body of the answer, checked as a guest's driver does.
    pub fn recv(&self, pending: Pending) -> Result<Vec<u8>> {
        let (kind, tag) = (pending.kind, pending.tag);
        let answer = self.recv_any(pending, PATIENCE).expect("an answer in time");
        let mut from = Reader::new(&answer);
        let (size, answered, its) = (u32::get(&mut from), u8::get(&mut from), u16::get(&mut from));
        assert_eq!((size, its), (Ok(answer.len() as u32), Ok(tag)));
        let body = answer[HEADER..].to_vec();
        if answered == Ok(Rlerror::NUMBER) {
            let ecode = decode::<Rlerror>(&body).ecode;
            assert!((1..512).contains(&ecode), "no errno of the guest's: {ecode}");
            return Err(Errno::from_raw(ecode as i32));
        }
        if answered == Ok(Rerror::NUMBER) {
            return Err(crate::dotu::error(&body));
        }
        assert_eq!(answered, Ok(kind + 1), "the answer to something else");
        Ok(body)
    }

    /// Whatever the device says, perhaps nothing.
    pub fn recv_any(&self, pending: Pending, patience: Duration) -> Option<Vec<u8>> {
        self.vmm.ring(0).wait(pending.ticket, patience)
    }

    /// Sends a message and waits for its answer, to the byte.
    pub fn call<T: Message + Put, R: for<'a> Get<'a>>(&self, message: &T) -> Result<R> {
        self.recv(self.send(message, &[], 0)).map(|body| decode(&body))
    }

    /// Tversion: what was agreed.
    pub fn version(&self, msize: u32, version: &[u8]) -> Result<(u32, Vec<u8>)> {
        let message = Tversion { msize, version: Text(version) };
        let body = self.recv(self.send_raw(&frame(&message, NOTAG, 0), &[], 0))?;
        let agreed: Rversion<'_> = decode(&body);
        Ok((agreed.msize, agreed.version.0.to_vec()))
    }

    /// Tattach, as a user.
    pub fn attach_as(&self, fid: u32, uid: u32) -> Result<Qid> {
        let message = Tattach { fid, afid: NOFID, uname: Text(b"user"), aname: Text(b""), n_uname: uid };
        self.call::<_, Rattach>(&message).map(|answer| answer.qid)
    }

    /// Twalk to a path, from the root.
    pub fn walk(&self, path: &str) -> Result<u32> {
        self.walk_from(ROOT, path)
    }

    /// Twalk to a path: a new fid, if all of it was found.
    pub fn walk_from(&self, fid: u32, path: &str) -> Result<u32> {
        let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).map(|name| Text(name.as_bytes())).collect();
        let (newfid, count) = (self.fid(), names.len());
        let answer: Rwalk = self.call(&Twalk { fid, newfid, names })?;
        if answer.qids.len() == count { Ok(newfid) } else { Err(Errno::ENOENT) }
    }

    /// Tlopen of what a path leads to.
    pub fn open(&self, path: &str, flags: i32) -> Result<u32> {
        let fid = self.walk(path)?;
        self.call::<_, Rlopen>(&Tlopen { fid, flags: flags as u32 }).map(|_| fid)
    }

    /// Tlcreate of a name in a directory that is walked to.
    pub fn create(&self, dir: &str, name: &str, flags: i32, mode: u32) -> Result<u32> {
        let fid = self.walk(dir)?;
        let message = Tlcreate { fid, name: Text(name.as_bytes()), flags: flags as u32, mode, gid: 0 };
        self.call::<_, Rlcreate>(&message).map(|_| fid)
    }

    /// Tread, with room in pages.
    pub fn read(&self, fid: u32, offset: u64, count: u32) -> Result<Vec<u8>> {
        let room = (count as usize).clamp(ERROR, 1 << 20);
        let body = self.recv(self.send(&Tread { fid, offset, count }, &[], room))?;
        Ok(decode::<Rread<'_>>(&body).data.0.to_vec())
    }

    /// Twrite, from pages.
    pub fn write(&self, fid: u32, offset: u64, data: &[u8]) -> Result<u32> {
        let count = data.len().try_into().expect("small");
        let body = self.recv(self.send(&Twrite { fid, offset, count }, data, 0))?;
        Ok(decode::<Rwrite>(&body).count)
    }

    /// Treaddir once: names, and where the next are.
    pub fn readdir(&self, fid: u32, offset: u64, count: u32) -> Result<Vec<(String, u64)>> {
        let text = |entry: Entry| (String::from_utf8(entry.name).expect("UTF-8"), entry.next);
        Ok(self.entries(fid, offset, count)?.into_iter().map(text).collect())
    }

    /// Treaddir once.
    pub fn entries(&self, fid: u32, offset: u64, count: u32) -> Result<Vec<Entry>> {
        let body = self.recv(self.send(&Treaddir { fid, offset, count }, &[], count as usize))?;
        let mut from = Reader::new(decode::<Rreaddir<'_>>(&body).data.0);
        let mut entries = Vec::new();
        while from.finish().is_err() {
            let qid = Qid::get(&mut from).expect("a qid");
            let next = u64::get(&mut from).expect("an offset");
            let kind = u8::get(&mut from).expect("a kind");
            assert_eq!(qid.kind & 0x80 != 0, kind == libc::DT_DIR, "qid and kind differ");
            let name = Text::get(&mut from).expect("a name").0.to_vec();
            entries.push(Entry { ino: qid.path, next, kind, name });
        }
        Ok(entries)
    }

    /// Treadlink.
    pub fn readlink(&self, fid: u32) -> Result<Vec<u8>> {
        let body = self.recv(self.send(&Treadlink { fid }, &[], 0))?;
        Ok(decode::<Rreadlink<'_>>(&body).target.0.to_vec())
    }

    /// Tgetattr.
    pub fn getattr(&self, fid: u32) -> Result<Rgetattr> {
        self.call(&Tgetattr { fid, request_mask: 0x3fff })
    }

    /// Tclunk.
    pub fn clunk(&self, fid: u32) -> Result<()> {
        self.call::<_, Rclunk>(&Tclunk { fid }).map(drop)
    }

    /// Tmkdir below the root.
    pub fn mkdir(&self, name: &str, mode: u32) -> Result<Qid> {
        let message = Tmkdir { dfid: ROOT, name: Text(name.as_bytes()), mode, gid: 0 };
        self.call::<_, Rmkdir>(&message).map(|answer| answer.qid)
    }

    /// Tunlinkat.
    pub fn unlink(&self, dirfd: u32, name: &str, flags: u32) -> Result<()> {
        self.call::<_, Runlinkat>(&Tunlinkat { dirfd, name: Text(name.as_bytes()), flags }).map(drop)
    }

    /// Txattrwalk and all Tread of it.
    pub fn getxattr(&self, path: &str, name: &str) -> Result<Vec<u8>> {
        let (fid, newfid) = (self.walk(path)?, self.fid());
        let walked: Result<Rxattrwalk> = self.call(&Txattrwalk { fid, newfid, name: Text(name.as_bytes()) });
        self.clunk(fid)?;
        let value = self.read(newfid, 0, 65_536)?;
        assert_eq!(walked?.size, value.len() as u64);
        self.clunk(newfid).map(|()| value)
    }

    /// Txattrcreate, Twrite, Tclunk.
    pub fn setxattr(&self, path: &str, name: &str, value: &[u8], flags: u32) -> Result<()> {
        let fid = self.walk(path)?;
        let size = value.len() as u64;
        self.call::<_, Rxattrcreate>(&Txattrcreate { fid, name: Text(name.as_bytes()), size, flags })?;
        if !value.is_empty() {
            self.write(fid, 0, value)?;
        }
        self.clunk(fid)
    }
}

/// A message as bytes, with `more` to follow.
pub fn frame<T: Message + Put>(message: &T, tag: u16, more: usize) -> Vec<u8> {
    let mut body = Vec::new();
    message.put(&mut body);
    let size = u32::try_from(HEADER + body.len() + more).expect("small");
    [&size.to_le_bytes()[..], &[T::NUMBER], &tag.to_le_bytes(), &body].concat()
}

/// What a body consists of, to the byte.
pub fn decode<'a, T: Get<'a>>(body: &'a [u8]) -> T {
    let mut from = Reader::new(body);
    let value = T::get(&mut from).expect("a whole message");
    from.finish().expect("nothing behind it");
    value
}
