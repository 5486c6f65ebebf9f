//! A 9P2000.L client on a stream, and a server that listens for it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use postern_server::p9::message::*;
use postern_server::p9::wire::{Get, Put, Text};

use crate::dotu;
use crate::fuse::Result;
use crate::kind::Kind;
use crate::p9::{decode, frame};
use crate::share::Scratch;

/// A server that ends with its test.
#[derive(Debug)]
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The command that serves the share of `scratch`, told where clients come from.
pub fn command(kind: Kind, scratch: &Scratch, way: &[&str]) -> Command {
    let mut command = Command::new(kind.program());
    command.arg("9p").arg("--shared-dir").arg(scratch.path("share")).args(kind.identity()).args(way);
    command
}

/// Serves by --listen.
pub fn listen(kind: Kind, scratch: &Scratch, more: &[&str]) -> Server {
    let way = format!("--listen=unix:{}", scratch.path("socket").display());
    let way: Vec<_> = [way.as_str()].into_iter().chain(more.iter().copied()).collect();
    Server(scratch.spawn(command(kind, scratch, &way), kind))
}

/// Connects as soon as the server listens.
///
/// # Panics
/// When that takes longer than ten seconds.
pub fn connect(scratch: &Scratch) -> UnixStream {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match UnixStream::connect(scratch.path("socket")) {
            Ok(stream) => {
                stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
                return stream;
            }
            Err(error) => assert!(Instant::now() < end, "{error}\n{}", scratch.log()),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The next answer: its number, tag and body.
pub fn receive(from: &mut impl Read) -> (u8, u16, Vec<u8>) {
    let mut head = [0; HEADER];
    from.read_exact(&mut head).expect("an answer");
    let size = u32::from_le_bytes(head[..4].try_into().expect("four bytes"));
    let mut body = vec![0; size as usize - HEADER];
    from.read_exact(&mut body).expect("all of it");
    (head[4], u16::from_le_bytes([head[5], head[6]]), body)
}

/// A client with one request at a time.
pub struct Client {
    stream: Mutex<UnixStream>,
    fids: AtomicU32,
}

impl Client {
    /// Connects and agrees on 9P2000.L; attaches as nobody yet.
    pub fn connect(scratch: &Scratch) -> Self {
        Self::speaking(scratch, b"9P2000.L")
    }

    /// Connects and agrees on a dialect.
    pub fn speaking(scratch: &Scratch, dialect: &[u8]) -> Self {
        let client = Self { stream: Mutex::new(connect(scratch)), fids: AtomicU32::new(1 << 16) };
        client.ask(&Tversion { msize: 1 << 20, version: Text(dialect) }, &[]).expect("a version");
        client
    }

    /// A fid that stands for nothing.
    pub fn fid(&self) -> u32 {
        self.fids.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a message with content; the body of its answer.
    pub fn ask<T: Message + Put>(&self, message: &T, data: &[u8]) -> Result<Vec<u8>> {
        let mut stream = self.stream.lock().expect("no panic");
        stream.write_all(&[frame(message, 9, data.len()), data.to_vec()].concat()).expect("sent");
        let (kind, tag, body) = receive(&mut *stream);
        assert_eq!(tag, 9);
        match kind {
            Rlerror::NUMBER => Err(Errno::from_raw(decode::<Rlerror>(&body).ecode as i32)),
            Rerror::NUMBER => Err(dotu::error(&body)),
            _ => {
                assert_eq!(kind, T::NUMBER + 1);
                Ok(body)
            }
        }
    }

    /// Sends a message and waits for its answer, to the byte.
    pub fn call<T: Message + Put, R: for<'a> Get<'a>>(&self, message: &T) -> Result<R> {
        self.ask(message, &[]).map(|body| decode(&body))
    }

    /// Tattach as a user: the fid of the root.
    pub fn attach(&self, uid: u32) -> Result<u32> {
        let fid = self.fid();
        let message = Tattach { fid, afid: NOFID, uname: Text(b"nobody"), aname: Text(b""), n_uname: uid };
        self.call::<_, Rattach>(&message).map(|_| fid)
    }

    /// Twalk to a path, one name at a time: a new fid.
    pub fn walk(&self, from: u32, path: &str) -> Result<u32> {
        let fid = self.fid();
        self.call::<_, Rwalk>(&Twalk { fid: from, newfid: fid, names: vec![] })?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let step = Twalk { fid, newfid: fid, names: vec![Text(name.as_bytes())] };
            if let Err(errno) = self.call::<_, Rwalk>(&step) {
                self.clunk(fid)?;
                return Err(errno);
            }
        }
        Ok(fid)
    }

    /// Tlopen of what a path leads to.
    pub fn open(&self, from: u32, path: &str, flags: i32) -> Result<u32> {
        let fid = self.walk(from, path)?;
        match self.call::<_, Rlopen>(&Tlopen { fid, flags: flags as u32 }) {
            Ok(_) => Ok(fid),
            Err(errno) => self.clunk(fid).and(Err(errno)),
        }
    }

    /// Tclunk.
    pub fn clunk(&self, fid: u32) -> Result<()> {
        self.call::<_, Rclunk>(&Tclunk { fid }).map(drop)
    }
}

/// Bytes of a message that are agreed on.
pub const MSIZE: u32 = 8192;
/// Fid of the root after the [`greeting`].
pub const ROOT: u32 = 0;
/// Of the file `f`, which is open.
pub const OPEN: u32 = 1;
/// Of nothing.
pub const NONE: u32 = 2;

/// What a client says first: it attaches and opens `f`.
pub fn greeting() -> Vec<u8> {
    let nobody = Text(b"");
    [
        frame(&Tversion { msize: MSIZE, version: Text(b"9P2000.L") }, 0xffff, 0),
        frame(&Tattach { fid: ROOT, afid: NOFID, uname: nobody, aname: nobody, n_uname: 0 }, 1, 0),
        frame(&Twalk { fid: ROOT, newfid: OPEN, names: vec![Text(b"f")] }, 1, 0),
        frame(&Tlopen { fid: OPEN, flags: libc::O_RDWR as u32 }, 1, 0),
    ]
    .concat()
}

/// Number of its messages.
pub const GREETED: usize = 4;

/// The messages that came, each as long as it says.
///
/// # Panics
/// When the last is cut off.
pub fn whole(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let Some((size, _)) = bytes.split_first_chunk() {
        let size = u32::from_le_bytes(*size) as usize;
        assert!((HEADER..=bytes.len()).contains(&size), "{size} bytes of {}", bytes.len());
        (bytes, count) = (&bytes[size..], count + 1);
    }
    assert!(bytes.is_empty());
    count
}

/// Messages that are answered with much.
pub fn heavy() -> Vec<u8> {
    let wants = [
        frame(&Tread { fid: OPEN, offset: 0, count: MSIZE }, 1, 0),
        frame(&Tgetattr { fid: OPEN, request_mask: 0x7ff }, 2, 0),
        frame(&Tfsync { fid: OPEN, datasync: 0 }, 3, 0),
        frame(&Txattrwalk { fid: OPEN, newfid: NONE, name: Text(b"") }, 4, 0),
        frame(&Tclunk { fid: NONE }, 5, 0),
    ];
    wants.concat().repeat(20)
}

/// A client that has said the [`greeting`] and was answered.
///
/// # Panics
/// When it is not, as all here.
pub fn mounted(scratch: &Scratch) -> UnixStream {
    let mut client = connect(scratch);
    client.write_all(&greeting()).unwrap();
    (0..GREETED).for_each(|_| drop(receive(&mut client)));
    client
}
