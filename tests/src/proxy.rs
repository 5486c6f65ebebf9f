//! QEMU's side of `-fsdev proxy`: a client of the protocol in 9p-proxy.h, and the program at its other end.

use std::fs::File;
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::io::FdFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::host::Host;
use crate::kind::Kind;
use crate::share::Scratch;
use crate::twin::children;

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Helper {
    /// postern, in one of its identity cases.
    Postern(Kind),
    /// QEMU's own, as root.
    C,
}

impl Helper {
    /// Whose ids are served.
    pub fn kind(self) -> Kind {
        match self {
            Self::Postern(kind) => kind,
            Self::C => Kind::Host,
        }
    }

    fn command(self, dir: &Path, fd: &str) -> Command {
        match self {
            Self::Postern(kind) => {
                let mut command = Command::new(kind.program());
                command.args(["proxy", "--fd", fd, "--shared-dir"]).arg(dir).args(kind.identity());
                command
            }
            Self::C => {
                let mut command = Command::new("/usr/lib/qemu/virtfs-proxy-helper");
                command.args(["-n", "-f", fd, "-p"]).arg(dir);
                command
            }
        }
    }
}

/// An argument of a request.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    /// 32 bits.
    D(u32),
    /// 64 bits.
    Q(u64),
    /// A counted string.
    S(&'a [u8]),
}

/// Types of requests. 9p-proxy.h
#[allow(missing_docs, reason = "they are named")]
pub mod kind {
    pub const OPEN: u32 = 2;
    pub const CREATE: u32 = 3;
    pub const MKNOD: u32 = 4;
    pub const MKDIR: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const LINK: u32 = 7;
    pub const LSTAT: u32 = 8;
    pub const READLINK: u32 = 9;
    pub const STATFS: u32 = 10;
    pub const CHMOD: u32 = 11;
    pub const CHOWN: u32 = 12;
    pub const TRUNCATE: u32 = 13;
    pub const UTIME: u32 = 14;
    pub const RENAME: u32 = 15;
    pub const REMOVE: u32 = 16;
    pub const LGETXATTR: u32 = 17;
    pub const LLISTXATTR: u32 = 18;
    pub const LSETXATTR: u32 = 19;
    pub const LREMOVEXATTR: u32 = 20;
    pub const GETVERSION: u32 = 21;
}

/// What the answer to a request is.
pub type Answer<T> = Result<T, Errno>;

/// What LSTAT tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in stat(2)")]
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub mtime: (u64, u64),
}

/// A share that is served by such a program, and the connection to it.
#[derive(Debug)]
pub struct Proxy {
    /// The share as the host sees it.
    pub host: Host,
    socket: UnixStream,
    program: Option<Program>,
}

/// The process at the other end, started for one test, and where it works.
#[derive(Debug)]
struct Program {
    child: Child,
    scratch: Scratch,
}

impl Proxy {
    /// Starts it.
    pub fn serve(helper: Helper, options: &[&str]) -> Self {
        let kind = helper.kind();
        let scratch = Scratch::new(kind, false);
        let dir = scratch.path("share");
        let (socket, theirs) = UnixStream::pair().unwrap();
        rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).unwrap();
        let mut command = helper.command(&dir, &theirs.as_raw_fd().to_string());
        command.args(options);
        let child = scratch.spawn(command, kind);
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { host: Host::new(dir, kind), socket, program: Some(Program { child, scratch }) }
    }

    /// Connects to one that is there already.
    pub fn meet(path: &Path, dir: &Path, kind: Kind) -> Self {
        let socket = UnixStream::connect(path).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { host: Host::new(dir.into(), kind), socket, program: None }
    }

    /// Sends bytes as they are; `false` if nobody takes them.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.socket.write_all(bytes).is_ok()
    }

    /// Sends a request.
    pub fn request(&mut self, kind: u32, args: &[Arg<'_>]) {
        assert!(self.send(&request(kind, &payload(args))));
    }

    /// The answer to a request that opens nothing: its payload, or the errno.
    pub fn answer(&mut self) -> Answer<Vec<u8>> {
        let mut header = [0; 8];
        self.socket.read_exact(&mut header).expect("an answer");
        let [failed, size] = [0, 4].map(|at| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap()));
        let mut payload = vec![0; usize::try_from(size).unwrap()];
        self.socket.read_exact(&mut payload).expect("as much as it says");
        match failed {
            0 => Ok(payload),
            _ => Err(errno(&payload)),
        }
    }

    /// Sends a request and takes its answer.
    pub fn ask(&mut self, kind: u32, args: &[Arg<'_>]) -> Answer<Vec<u8>> {
        self.request(kind, args);
        self.answer()
    }

    /// The same for a request that answers with a number.
    pub fn status(&mut self, kind: u32, args: &[Arg<'_>]) -> Answer<i32> {
        self.ask(kind, args).map(|payload| i32::from_ne_bytes(payload.try_into().expect("a status has 4 bytes")))
    }

    /// The same for a request that answers with a counted string.
    pub fn string(&mut self, kind: u32, args: &[Arg<'_>]) -> Answer<Vec<u8>> {
        let payload = self.ask(kind, args)?;
        let (length, string) = payload.split_at(2);
        assert_eq!(usize::from(u16::from_ne_bytes(length.try_into().unwrap())), string.len());
        Ok(string.into())
    }

    /// The same for OPEN and CREATE.
    pub fn open(&mut self, kind: u32, args: &[Arg<'_>]) -> Answer<File> {
        self.request(kind, args);
        self.opened()
    }

    /// The answer to OPEN and CREATE.
    pub fn opened(&mut self) -> Answer<File> {
        let (number, mut files) = self.receive();
        match i32::from_ne_bytes(number) {
            i32::MAX => {
                assert_eq!(files.len(), 1, "one descriptor");
                Ok(files.remove(0).into())
            }
            failed => {
                assert!(files.is_empty(), "an error comes alone");
                Err(Errno::from_raw(-failed))
            }
        }
    }

    /// The attributes at a path.
    pub fn stat(&mut self, path: &str) -> Answer<Stat> {
        let bytes = self.ask(kind::LSTAT, &[Arg::S(path.as_bytes())])?;
        assert_eq!(bytes.len(), 116);
        let q = |at: usize| u64::from_ne_bytes(bytes[at..at + 8].try_into().unwrap());
        let d = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
        Ok(Stat {
            dev: q(0),
            ino: q(8),
            nlink: q(16),
            mode: d(24),
            uid: d(28),
            gid: d(32),
            rdev: q(36),
            size: q(44),
            mtime: (q(84), q(92)),
        })
    }

    /// The process at the other end.
    pub fn pid(&self) -> u32 {
        self.program().child.id()
    }

    /// Says no more, and takes all that is answered.
    pub fn leave(&mut self) -> Vec<u8> {
        let mut answers = Vec::new();
        self.socket.shutdown(std::net::Shutdown::Write).unwrap();
        self.socket.read_to_end(&mut answers).unwrap();
        answers
    }

    /// The connection itself.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// The number of the connection, which processes that are started from now on inherit.
    pub fn inherited(&self) -> RawFd {
        rustix::io::fcntl_setfd(&self.socket, FdFlags::empty()).unwrap();
        self.socket.as_raw_fd()
    }

    /// Checks that nothing has changed beside the shared directory.
    pub fn assert_contained(&self) {
        self.program().scratch.assert_contained();
    }

    /// The other end still answers.
    pub fn lives(&mut self) -> bool {
        self.stat("/").is_ok()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.program().scratch.log()
    }

    /// Ends the process that acts for the server.
    pub fn kill_helper(&self) {
        // A helper that has just been ended is not there for a moment.
        children(self.warden()).into_iter().for_each(end);
    }

    /// Ends the process that would replace it, and with it the helper.
    pub fn kill_warden(&self) {
        end(self.warden());
    }

    /// Waits for the end of the process, and tells its exit status.
    pub fn ended(&mut self) -> Option<i32> {
        self.program.as_mut().expect("started here").child.wait().unwrap().code()
    }

    fn program(&self) -> &Program {
        self.program.as_ref().expect("started here")
    }

    fn warden(&self) -> u32 {
        children(self.program().child.id()).pop().expect("a warden")
    }

    fn receive(&mut self) -> ([u8; 4], Vec<OwnedFd>) {
        let mut number = [0; 4];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut parts = [std::io::IoSliceMut::new(&mut number)];
        let got = recvmsg(&self.socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC).expect("an answer");
        assert_eq!(got.bytes, 4, "an answer");
        let files = control.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(files) => Some(files.collect::<Vec<_>>()),
            _ => None,
        });
        let files = files.flatten().collect();
        (number, files)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        if std::thread::panicking() {
            self.scratch.show_log();
        }
    }
}

impl Arg<'_> {
    /// As it is sent.
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Self::D(value) => value.to_ne_bytes().into(),
            Self::Q(value) => value.to_ne_bytes().into(),
            Self::S(string) => {
                let length = u16::try_from(string.len() % (1 << 16)).unwrap();
                [&length.to_ne_bytes(), string].concat()
            }
        }
    }
}

/// One request of each type that changes something if it is taken as it is.
pub fn requests() -> Vec<(u32, Vec<Arg<'static>>)> {
    use Arg::{D, Q, S};
    use kind::*;

    let p = |path: &'static str| S(path.as_bytes());
    let (new, file) = (p("//new"), p("//f"));
    vec![
        (OPEN, vec![file, D(libc::O_RDWR.cast_unsigned())]),
        (CREATE, vec![new, D((libc::O_CREAT | libc::O_RDWR).cast_unsigned()), D(0o644), D(0), D(0)]),
        (MKNOD, vec![D(0), D(0), new, D(libc::S_IFIFO), Q(0)]),
        (MKDIR, vec![D(0), D(0), new, D(0o755)]),
        (SYMLINK, vec![D(0), D(0), p("target"), new]),
        (LINK, vec![file, new]),
        (LSTAT, vec![file]),
        (READLINK, vec![p("//s"), D(100)]),
        (STATFS, vec![file]),
        (CHMOD, vec![file, D(0o777)]),
        (CHOWN, vec![file, D(1), D(1)]),
        (TRUNCATE, vec![file, Q(0)]),
        (UTIME, vec![file, Q(1), Q(1), Q(1), Q(1)]),
        (RENAME, vec![file, new]),
        (REMOVE, vec![file]),
        (LGETXATTR, vec![D(100), file, p("user.a")]),
        (LLISTXATTR, vec![D(100), file]),
        (LSETXATTR, vec![file, p("user.a"), S(b"x"), D(1), D(0)]),
        (LREMOVEXATTR, vec![file, p("user.a")]),
        (GETVERSION, vec![file]),
    ]
}

/// What follows the header of a request.
pub fn payload(args: &[Arg<'_>]) -> Vec<u8> {
    args.iter().flat_map(|arg| arg.bytes()).collect()
}

/// A whole request, header and payload.
pub fn request(kind: u32, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap();
    [&kind.to_ne_bytes()[..], &size.to_ne_bytes(), payload].concat()
}

fn end(pid: u32) {
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
}

fn errno(payload: &[u8]) -> Errno {
    Errno::from_raw(-i32::from_ne_bytes(payload.try_into().expect("an errno has 4 bytes")))
}
