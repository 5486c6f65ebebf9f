//! A helper under test, started as its users start it, and this process in the part of its server.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postern_ipc::attr::{Attr, Mode, OpenFlags};
use postern_ipc::channel::{Channel, take};
use postern_ipc::client::Links;
use postern_ipc::few::Few as _;
use postern_ipc::hello::{Hello, News, VERSION, receive_news, send_hello};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::FileName;
use postern_ipc::op::{Create, Lookup, Mkdir, Op, Open};
use postern_ipc::{Errno, Result};

pub const ROOT: Caller = Caller::Root;

pub fn user(uid: u32) -> Caller {
    Caller::User { uid: GuestUid(uid), gid: GuestGid(uid), group: None }
}

pub fn name(text: &str) -> FileName {
    FileName::new(text.as_bytes()).unwrap()
}

pub fn mode(bits: u32) -> Mode {
    Mode::new(bits)
}

/// A directory to share, which everybody may search.
pub fn dir() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    dir
}

/// Who starts the helper.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    Root,
    /// An ordinary user, who has these subordinate ids or none.
    User {
        uid: u32,
        subordinate: Option<(u32, u32)>,
    },
}

/// The helper at work.
pub struct Sut {
    pub links: Links,
    pub root: OwnedFd,
    pub socket: UnixStream,
    pub child: Child,
    pub channels: u16,
    log: PathBuf,
    _keep: tempfile::TempDir,
}

/// A helper that has been started and not yet greeted.
pub struct Started {
    pub socket: UnixStream,
    pub child: Child,
    log: PathBuf,
    keep: tempfile::TempDir,
}

impl Started {
    pub fn new(by: By, dir: &Path, options: &[&str]) -> Self {
        let keep = tempfile::tempdir().unwrap();
        let log = keep.path().join("log");
        let (socket, theirs) = UnixStream::pair().unwrap();
        let mut command = command(by, keep.path());
        command.arg("--shared-dir").arg(dir).args(options);
        command.stdin(OwnedFd::from(theirs)).stderr(std::fs::File::create(&log).unwrap()).stdout(Stdio::null());
        Self { socket, child: command.spawn().unwrap(), log, keep }
    }

    pub fn greet(&self, channels: u16, wants_map: bool) {
        send_hello(&self.socket, &Hello { version: VERSION, channels, wants_map }).unwrap();
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn status(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

/// The socket is handed over as descriptor 3, as a shell does it.
fn command(by: By, keep: &Path) -> Command {
    let helper = env!("CARGO_BIN_EXE_postern-helper");
    let start = "exec \"$0\" --sock-fd 3 \"$@\" 3<&0 </dev/null";
    let By::User { uid, subordinate } = by else {
        let mut command = Command::new("sh");
        command.args(["-c", start, helper]);
        return command;
    };
    std::fs::set_permissions(keep, PermissionsExt::from_mode(0o755)).unwrap();
    let etc = keep.join("etc");
    std::fs::create_dir(&etc).unwrap();
    let id = uid.to_string();
    std::fs::write(etc.join("passwd"), format!("root:x:0:0::/:/bin/sh\ntester:x:{id}:{id}::/:/bin/sh\n")).unwrap();
    std::fs::write(etc.join("group"), format!("root:x:0:\ntester:x:{id}:\n")).unwrap();
    let grant = subordinate.map_or_else(String::new, |(first, count)| format!("tester:{first}:{count}\n"));
    for file in ["subuid", "subgid"] {
        std::fs::write(etc.join(file), &grant).unwrap();
    }
    // A copy, because the one of the build directory may be out of the user's reach.
    let copy = keep.join("postern-helper");
    let script = format!(
        "cp \"$0\" {copy} && mount --bind {etc} /etc && \
         exec setpriv --reuid {id} --regid {id} --clear-groups sh -c '{start}' {copy} \"$@\"",
        etc = etc.display(),
        copy = copy.display()
    );
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script, helper]);
    command
}

impl Sut {
    /// A helper started by root.
    pub fn new(dir: &Path, options: &[&str]) -> Self {
        Self::by(By::Root, dir, options)
    }

    pub fn by(by: By, dir: &Path, options: &[&str]) -> Self {
        Self::with_channels(by, dir, options, 1)
    }

    pub fn with_channels(by: By, dir: &Path, options: &[&str], channels: u16) -> Self {
        let Started { socket, child, log, keep } = {
            let started = Started::new(by, dir, options);
            started.greet(channels, false);
            started
        };
        match receive_news(&socket) {
            Ok(News::Welcome(_)) => {}
            other => panic!("{other:?}: {}", std::fs::read_to_string(&log).unwrap()),
        }
        let root = take(&socket).unwrap();
        let links = Links::new(take_all(&socket, channels), std::time::Duration::ZERO, 0);
        Self { links, root, socket, child, channels, log, _keep: keep }
    }

    /// Waits for the news that the helper was replaced.
    pub fn renewed(&self) {
        assert_eq!(receive_news(&self.socket), Ok(News::Renewed), "{}", self.log());
        self.links.renew(take_all(&self.socket, self.channels));
    }

    pub fn ask<O: Op>(&self, caller: Caller, op: O, at: &[&OwnedFd]) -> Result<Answer<O>> {
        self.send(caller, op, at, b"")
    }

    pub fn send<O: Op>(&self, caller: Caller, op: O, at: &[&OwnedFd], data: &[u8]) -> Result<Answer<O>> {
        let at: Vec<_> = at.iter().map(|fd| Arc::new(fd.try_clone().unwrap())).collect();
        let at = O::At::all_of(&at).expect("as many descriptors as the row says");
        self.links.call(caller, &op, &at, data, |reply, gives, data| Answer {
            reply,
            gives: gives.into_iter().collect(),
            data: data.to_vec(),
        })
    }

    /// The node at a path below the root, as a server finds it that may search everything.
    pub fn node(&self, path: &str) -> OwnedFd {
        let root = self.root.try_clone().unwrap();
        path.split('/')
            .filter(|part| !part.is_empty())
            .fold(root, |dir, part| self.ask(ROOT, Lookup { name: name(part) }, &[&dir]).unwrap().gives.remove(0))
    }

    pub fn mkdir(&self, caller: Caller, text: &str, bits: u32) -> Result<Attr> {
        Ok(self.ask(caller, Mkdir { name: name(text), mode: mode(bits), umask: mode(0) }, &[&self.root])?.reply)
    }

    /// Makes a file and writes it.
    pub fn create(&self, caller: Caller, text: &str, bits: u32) -> Result<Attr> {
        let flags = OpenFlags::READ | OpenFlags::WRITE | OpenFlags::EXCL;
        let op = Create { name: name(text), mode: mode(bits), umask: mode(0), flags };
        Ok(self.ask(caller, op, &[&self.root])?.reply)
    }

    pub fn open(&self, path: &str, flags: OpenFlags) -> Result<std::fs::File> {
        Ok(self.ask(ROOT, Open { flags }, &[&self.node(path)])?.gives.remove(0).into())
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// The line of the log that has `what` in it: a helper's come by the warden.
    pub fn line(&self, what: &str) -> String {
        let since = Instant::now();
        loop {
            if let Some(line) = self.log().lines().find(|line| line.contains(what)) {
                return line.to_owned();
            }
            assert!(since.elapsed() < Duration::from_secs(10), "{what}: {}", self.log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The process that serves.
    pub fn worker(&self) -> u32 {
        let warden = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{warden}/task/{warden}/children")).unwrap();
        children.split_ascii_whitespace().next().expect("a helper").parse().unwrap()
    }

    /// The exit status once it has ended by itself.
    pub fn ended(&mut self) -> Option<i32> {
        let since = Instant::now();
        loop {
            match self.child.try_wait().unwrap() {
                Some(status) => return status.code(),
                None if since.elapsed() > Duration::from_secs(20) => panic!("still there: {}", self.log()),
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Sut {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub struct Answer<O: Op> {
    pub reply: O::Reply,
    pub gives: Vec<OwnedFd>,
    pub data: Vec<u8>,
}

impl<O: Op> std::fmt::Debug for Answer<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {:?} {:?}", self.reply, self.gives, self.data)
    }
}

pub fn take_all(socket: &UnixStream, channels: u16) -> Vec<Channel> {
    (0..channels).map(|_| Channel::take(socket).unwrap()).collect()
}

pub fn text(mut file: std::fs::File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

pub fn errno<T: std::fmt::Debug>(result: Result<T>) -> Errno {
    result.unwrap_err()
}

/// Runs a program that must succeed.
pub fn sh(script: &str) {
    let status = Command::new("sh").args(["-ec", script]).arg0("sh").status().unwrap();
    assert!(status.success(), "{script}");
}
