//! A server that the guest has taken over: what stands at the other end of the helper's socket, and says what it
//! likes.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use postern_ipc::channel::{Channel, Received, take};
use postern_ipc::frame::{self, FRAME_MAX, Header};
use postern_ipc::hello::{Hello, News, VERSION, receive_news, send_hello};
use postern_ipc::id::Caller;
use postern_ipc::op::Op;
use postern_ipc::span::Shown;
use postern_ipc::{Errno, Result};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::FdFlags;

use crate::host::Host;
use crate::kind::{Kind, bin_dir};
use crate::share::Scratch;

/// How long news may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the helper answers with.
pub type Answer<O> = Result<(<O as Op>::Reply, Vec<OwnedFd>, Vec<u8>)>;

/// What became of a frame.
#[derive(Debug)]
pub enum Outcome {
    /// It was answered, perhaps with an errno.
    Answered(Option<Errno>, Vec<OwnedFd>),
    /// The helper has closed the channel.
    Ended,
}

/// A hostile server and the helper it was given.
pub struct Twin {
    /// The share as the host sees it.
    pub host: Host,
    /// Where it lies.
    pub scratch: Scratch,
    /// Its root, as the helper gives it to a server.
    pub root: OwnedFd,
    /// How ids are shown to the guest.
    pub shown: Shown,
    /// Where operations are asked for.
    pub channel: Channel,
    /// Where the handshake was.
    pub socket: UnixStream,
    /// The process started: the warden.
    pub warden: Child,
    serial: u32,
    buffer: Vec<u8>,
}

impl Twin {
    /// Shakes hands with a helper of this kind.
    pub fn new(kind: Kind) -> Self {
        Self::with(kind, &[])
    }

    /// Shakes hands with a helper that has more arguments.
    pub fn with(kind: Kind, args: &[&str]) -> Self {
        Self::planted(kind, args, |_| {})
    }

    /// The same, with something in the share before the helper starts.
    pub fn planted(kind: Kind, args: &[&str], plant: impl FnOnce(&Host)) -> Self {
        let (scratch, socket, warden) = start_planted(kind, args, plant);
        Self::greet(kind, scratch, socket, warden)
    }

    /// Shakes hands with a helper that is there.
    pub fn greet(kind: Kind, scratch: Scratch, socket: UnixStream, warden: Child) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        send_hello(&socket, &Hello { version: VERSION, channels: 1, wants_map: false }).expect("hello");
        let news = receive_news(&socket);
        let log = || std::fs::read_to_string(scratch.path("log")).unwrap_or_default();
        let Ok(News::Welcome(share)) = news else { panic!("{news:?}\n{}", log()) };
        let root = take(&socket).expect("the root");
        let channel = Channel::take(&socket).expect("a channel");
        let host = Host::new(scratch.path("share"), kind);
        Self { host, scratch, root, shown: share.shown, channel, socket, warden, serial: 0, buffer: vec![0; FRAME_MAX] }
    }

    /// Pins what a path of the share names, as a server does.
    pub fn pin(&self, path: &str) -> OwnedFd {
        openat(&self.root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).expect(path)
    }

    /// Asks as the guest's root.
    pub fn ask<O: Op>(&mut self, op: &O, at: &[BorrowedFd<'_>]) -> Answer<O> {
        self.ask_as(Caller::Root, op, at, b"")
    }

    /// Asks on behalf of `caller`, with bulk data.
    ///
    /// # Panics
    /// When the helper does not answer, or with what is no answer.
    pub fn ask_as<O: Op>(&mut self, caller: Caller, op: &O, at: &[BorrowedFd<'_>], data: &[u8]) -> Answer<O> {
        let frame = self.frame(caller, op, data.len());
        self.channel.send(&[&frame, data], at).expect("the helper listens");
        let mut buffer = vec![0; FRAME_MAX];
        let got = answered(&self.channel, &mut buffer);
        assert_ne!(got.len, 0, "the helper has ended");
        let (header, body, data): (Header, _, _) = frame::split(&buffer[..got.len]).expect("a frame");
        assert_eq!((header.serial, header.kind), (self.serial, O::KIND as u16));
        match header.errno {
            Some(errno) => Err(errno),
            None => Ok((frame::owned(body).expect("a reply"), got.descriptors.into_vec(), data.to_vec())),
        }
    }

    /// Sends whatever frame with bulk data after it, and waits for what becomes of it.
    ///
    /// # Panics
    /// When that takes too long, or what is answered is no frame.
    pub fn exchange(&mut self, frame: &[u8], data: &[u8], at: &[BorrowedFd<'_>]) -> Outcome {
        self.channel.send(&[frame, data], at).expect("the helper listens");
        match answered(&self.channel, &mut self.buffer) {
            Received { len: 0, .. } => Outcome::Ended,
            got => {
                let (header, ..) = frame::split(&self.buffer[..got.len]).expect("a frame");
                Outcome::Answered(header.errno, got.descriptors.into_vec())
            }
        }
    }

    /// A serial that no request has had.
    pub fn serial(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    /// A request as it is sent.
    pub fn frame<O: Op>(&mut self, caller: Caller, op: &O, data: usize) -> Vec<u8> {
        let mut frame = Vec::new();
        frame::encode(&mut frame, self.serial(), O::KIND as u16, None, &(caller, op), data).expect("encodable");
        frame
    }

    /// Checks that the helper has taken something as the end: it answers no more, is not replaced, and is gone, and one
    /// line says so.
    pub fn assert_ended(mut self) {
        let got = answered(&self.channel, &mut vec![0; FRAME_MAX]);
        assert_eq!(got.len, 0, "answered: {got:?}");
        let news = receive_news(&self.socket);
        assert!(matches!(news, Ok(News::Refused(_)) | Err(Errno::ECONNRESET)), "{news:?}");
        assert!(ends(&mut self.warden), "the warden goes on");
        assert_eq!(self.errors(), 1, "{}", self.scratch.log());
        self.assert_contained();
    }

    /// Checks that nothing beside the share has changed.
    pub fn assert_contained(&self) {
        self.scratch.assert_contained();
    }

    /// Lines of the log that say that something is wrong.
    pub fn errors(&self) -> usize {
        self.scratch.log().lines().filter(|line| line.contains("error: ")).count()
    }

    /// The helper's process id.
    pub fn helper(&self) -> u32 {
        children(self.warden.id()).pop().expect("a helper")
    }

    /// Waits for the warden to say that the helper was replaced, and takes the new channel.
    pub fn renew(&mut self) {
        assert_eq!(receive_news(&self.socket), Ok(News::Renewed));
        self.channel = Channel::take(&self.socket).expect("a channel");
    }
}

impl Drop for Twin {
    fn drop(&mut self) {
        let _ = self.warden.kill();
        let _ = self.warden.wait();
        if std::thread::panicking() {
            self.scratch.show_log();
        }
    }
}

/// What comes next on a channel.
///
/// # Panics
/// When nothing comes, and the channel is not closed either.
pub fn answered(channel: &Channel, buffer: &mut [u8]) -> Received {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(got) = channel.look(buffer).expect("a channel") {
            return got;
        }
        assert!(Instant::now() < end, "the helper neither answers nor ends");
        std::thread::sleep(Duration::from_micros(20));
    }
}

/// A helper that has not been greeted yet.
pub fn start(kind: Kind, args: &[&str]) -> (Scratch, UnixStream, Child) {
    start_planted(kind, args, |_| {})
}

/// The same, with something in the share before it starts.
pub fn start_planted(kind: Kind, args: &[&str], plant: impl FnOnce(&Host)) -> (Scratch, UnixStream, Child) {
    let scratch = Scratch::new(kind, false);
    plant(&Host::new(scratch.path("share"), kind));
    let (socket, theirs) = UnixStream::pair().expect("socketpair");
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).expect("own descriptor");
    let mut command = Command::new(bin_dir().join("postern-helper"));
    command.arg("--sock-fd").arg(theirs.as_fd().as_raw_fd().to_string());
    command.arg("--shared-dir").arg(scratch.path("share")).args(kind.identity()).args(args);
    let warden = scratch.spawn(command, kind);
    (scratch, socket, warden)
}

/// Processes started by `pid`.
pub fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Whether a process that is not ours goes away.
pub fn goes(pid: u32) -> bool {
    let lives = || std::fs::read_link(format!("/proc/{pid}/exe")).is_ok();
    let end = Instant::now() + PATIENCE;
    while lives() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(2));
    }
    !lives()
}

/// Whether a process ends by itself.
pub fn ends(child: &mut Child) -> bool {
    let end = Instant::now() + PATIENCE;
    while child.try_wait().expect("own child").is_none() {
        if Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}
