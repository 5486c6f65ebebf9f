//! Boots a real Linux guest whose file systems are served over vhost-user, and does in it what a test says.
//!
//! A guest has busybox and nothing else: the host's `/usr`, shared as `usr`, gives it the rest. Whatever goes wrong
//! with the machinery (no boot, no answer) panics with what the guest's kernel and the servers said.

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test's machinery fails by failing the test

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;

/// How long a guest may take to come up, or to answer one request: emulated, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a guest runs on.
#[derive(Clone, Copy, Debug)]
pub enum Kernel {
    /// Debian 12's kernel, in QEMU.
    V6_1,
    /// The kernel of Debian 12's backports, in QEMU.
    V6_12,
}

impl Kernel {
    fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
        }
    }
}

/// A program that serves a directory at a vhost-user socket until it is killed.
pub trait Server {
    /// The command that serves `dir` at `socket`.
    fn command(&self, dir: &Path, socket: &Path) -> Command;
}

/// The C virtiofsd of QEMU 7.2, which proves the tests.
#[derive(Clone, Copy, Debug)]
pub struct Virtiofsd;

impl Server for Virtiofsd {
    fn command(&self, dir: &Path, socket: &Path) -> Command {
        let mut command = Command::new("/usr/lib/qemu/virtiofsd");
        command
            .arg(format!("--socket-path={}", socket.display()))
            .arg("-o")
            .arg(format!("source={},xattr,posix_acl", dir.display()));
        command
    }
}

/// `postern-server`, as root, with these options.
#[derive(Clone, Debug)]
pub struct Postern(pub Vec<String>);

impl Server for Postern {
    fn command(&self, dir: &Path, socket: &Path) -> Command {
        let mut command = Command::new(binary("postern-server"));
        command.arg("virtiofs").arg("--shared-dir").arg(dir).arg("--socket-path").arg(socket).args(&self.0);
        command
    }
}

/// A program of this workspace: in `$POSTERN_BIN_DIR`, else in the target directory that the running test lies in.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let built = || Some(std::env::current_exe().ok()?.parent()?.parent()?.to_owned());
    std::env::var_os("POSTERN_BIN_DIR").map(PathBuf::from).or_else(built).unwrap().join(name)
}

/// A directory being served; the server dies with this value.
#[derive(Debug)]
pub struct Share {
    tag: &'static str,
    place: TempDir,
    server: Child,
}

impl Share {
    /// Starts `server` for `dir`, under a tag that is also the guest's mount point: `mnt` is mounted at `/mnt`.
    pub fn start(server: &dyn Server, dir: &Path, tag: &'static str) -> Self {
        let place = TempDir::new().unwrap();
        let log = File::create(place.path().join("log")).unwrap();
        let server = server
            .command(dir, &place.path().join("socket"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut share = Self { tag, place, server };
        share.await_socket();
        share
    }

    fn await_socket(&mut self) {
        let start = Instant::now();
        while !self.socket().exists() {
            let ended = self.server.try_wait().unwrap();
            assert!(ended.is_none() && start.elapsed() < PATIENCE, "no server ({ended:?}):\n{}", self.log());
            sleep(Duration::from_millis(10));
        }
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join("socket")
    }

    /// What the server has printed.
    pub fn log(&self) -> String {
        text_of(&self.place.path().join("log"))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        end(&mut self.server);
    }
}

/// What a script in the guest did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The exit status, as the guest's shell tells it.
    pub status: i32,
    /// Standard output and standard error together.
    pub text: String,
}

/// A running guest; it dies with this value.
#[derive(Debug)]
pub struct Guest {
    machine: Child,
    shares: Vec<Share>,
    console: PathBuf,
    _place: TempDir,
}

impl Guest {
    /// Boots `kernel` with the shares mounted, each at the root's directory named as its tag.
    pub fn boot(kernel: Kernel, shares: Vec<Share>) -> Self {
        let place = TempDir::new().unwrap();
        let console = place.path().join("console");
        let machine = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/guest/qemu"))
            .arg(kernel.name())
            .args(shares.iter().map(|share| format!("{}={}", share.tag, share.socket().display())))
            .env("CONSOLE", &console)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&console).unwrap())
            .spawn()
            .unwrap();
        let mut guest = Self { machine, shares, console, _place: place };
        assert_eq!(guest.line(), "ready");
        guest
    }

    /// Runs a shell script as root of the guest.
    pub fn run(&mut self, script: &str) -> Outcome {
        let request = format!("{}\n{script}", script.len());
        self.machine.stdin.as_mut().unwrap().write_all(request.as_bytes()).unwrap();
        let head = self.line();
        let (status, length) = head.split_once(' ').unwrap_or_else(|| self.fail("a broken answer"));
        let text = self.bytes(length.parse().unwrap());
        Outcome { status: status.parse().unwrap(), text: String::from_utf8_lossy(&text).into_owned() }
    }

    /// Runs a script that has to succeed, every command of it, and tells what it printed.
    pub fn ok(&mut self, script: &str) -> String {
        let Outcome { status, text } = self.run(&format!("set -e\n{script}"));
        assert_eq!(status, 0, "in the guest:\n{script}\n{text}\n{}", self.story());
        text
    }

    /// Unmounts all and powers the guest off.
    pub fn power_off(mut self) -> ExitStatus {
        let stdin = self.machine.stdin.as_mut().unwrap();
        stdin.write_all(b"23\numount -a; poweroff -f\n").unwrap();
        self.machine.wait().unwrap()
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        loop {
            match self.bytes(1).as_slice() {
                b"\n" => return String::from_utf8(line).unwrap(),
                byte => line.extend(byte),
            }
        }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let start = Instant::now();
        let mut bytes = vec![0; length];
        let mut rest = bytes.as_mut_slice();
        while !rest.is_empty() {
            let left = PATIENCE.saturating_sub(start.elapsed());
            let stdout = self.machine.stdout.as_mut().unwrap();
            let mut ready = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
            let answered = poll(&mut ready, PollTimeout::try_from(left).unwrap()).unwrap() > 0;
            let count = if answered { stdout.read(rest).unwrap() } else { 0 };
            if count == 0 {
                self.fail(if answered { "the guest is gone" } else { "the guest does not answer" });
            }
            rest = rest.split_at_mut(count).1;
        }
        bytes
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{what}\n{}", self.story())
    }

    /// The end of what the guest's kernel and every server have printed.
    fn story(&self) -> String {
        let servers = self.shares.iter().map(|share| format!("--- server of {}\n{}", share.tag, tail(&share.log())));
        format!("--- console\n{}\n{}", tail(&text_of(&self.console)), servers.collect::<String>())
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        end(&mut self.machine);
    }
}

fn end(process: &mut Child) {
    let _gone = process.kill();
    let _reaped = process.wait();
}

fn text_of(file: &Path) -> String {
    fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines.split_at(lines.len().saturating_sub(40)).1.join("\n")
}
