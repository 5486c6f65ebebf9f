//! Boots a real Linux guest whose file systems are served over vhost-user, and does in it what a test says.
//!
//! A guest has busybox and nothing else: the host's `/usr`, shared as `usr`, gives it the rest. Whatever goes wrong
//! with the machinery (no boot, no answer) panics with what the guest's kernel and the servers said.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tempfile::TempDir;

use crate::kind::{Frontend, Kind};
use crate::share::Server;

/// How long a guest may take to come up, or to answer one request: emulated, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// What a VMM may do.
#[derive(Clone, Copy, Debug)]
pub enum Privileges {
    /// What its user can do, and no more even if that is root.
    None,
    /// All.
    Root,
}

impl Privileges {
    /// The command to run it by.
    fn command(self) -> &'static str {
        match self {
            Self::None => "setpriv --bounding-set -all --inh-caps -all",
            Self::Root => "",
        }
    }
}

/// What a guest runs on.
#[derive(Clone, Copy, Debug)]
pub enum Kernel {
    /// Debian 12's kernel, in QEMU.
    V6_1,
    /// The kernel of Debian 12's backports, in QEMU.
    V6_12,
    /// The same in QEMU 11.1, where the shares are virtio-9p devices, left for a script to mount.
    V6_12P9,
    /// Linux 7.2 as a process. Its device has to know its tag: serve with `--tag`.
    Uml,
}

impl Kernel {
    fn command(self) -> Command {
        let program = |name| Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("guest").join(name));
        let mut qemu = program("qemu");
        match self {
            Self::V6_1 => qemu.arg("6.1"),
            Self::V6_12 | Self::V6_12P9 => qemu.arg("6.12"),
            Self::Uml => return program("uml"),
        };
        qemu
    }
}

/// The host's `/usr`, served read-only.
///
/// A server's mistake must not cost the host its programs, and the guest's root may be the host's: the server sees
/// `/usr` through a read-only mount of its own.
#[derive(Debug)]
struct Programs {
    place: TempDir,
    server: Child,
}

impl Programs {
    fn serve(kind: Kind, kernel: Kernel) -> Self {
        let place = TempDir::new().unwrap();
        let log = File::create(place.path().join("log")).unwrap();
        let server = kind.command(Frontend::Virtiofs, Path::new("/usr"), &place.path().join("socket"));
        let server = Command::new("unshare")
            .args(["--mount", "sh", "-c", r#"mount -o bind,ro /usr /usr && exec "$0" "$@""#])
            .arg(server.get_program())
            .args(server.get_args())
            .args(kind.is_postern().then_some("--readonly"))
            .args(matches!(kernel, Kernel::Uml).then_some("--tag=usr"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { place, server }
    }

    fn socket(&self) -> PathBuf {
        self.place.path().join("socket")
    }
}

impl Drop for Programs {
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
    programs: Programs,
    place: TempDir,
}

impl Guest {
    /// Boots `kernel` with each share mounted at the root's directory of that name. The programs come from a server of
    /// this kind, too.
    pub fn boot(kernel: Kernel, kind: Kind, shares: &[(&str, &Server)]) -> Self {
        Self::boot_with(kernel, kind, shares, &[])
    }

    /// The same with more options for QEMU, whose monitor [`monitor`](Self::monitor) then speaks to.
    pub fn boot_with(kernel: Kernel, kind: Kind, shares: &[(&str, &Server)], options: &[&str]) -> Self {
        Self::boot_as(Privileges::None, kernel, kind, shares, options)
    }

    /// The same with a VMM that has these privileges.
    pub fn boot_as(
        privileges: Privileges,
        kernel: Kernel,
        kind: Kind,
        shares: &[(&str, &Server)],
        options: &[&str],
    ) -> Self {
        let shares: Vec<_> = shares.iter().map(|(tag, server)| (*tag, server.socket())).collect();
        Self::start(privileges, kernel, kind, &shares, options)
    }

    /// The same with nothing but sockets that the shares are served at.
    pub fn boot_at(kernel: Kernel, kind: Kind, shares: &[(&str, &Path)]) -> Self {
        Self::start(Privileges::None, kernel, kind, shares, &[])
    }

    fn start(privileges: Privileges, kernel: Kernel, kind: Kind, shares: &[(&str, &Path)], options: &[&str]) -> Self {
        let (programs, place) = (Programs::serve(kind, kernel), TempDir::new().unwrap());
        let usr = programs.socket();
        let prefix = if matches!(kernel, Kernel::V6_12P9) { "9p:" } else { "" };
        let shares = shares.iter().map(|(tag, socket)| (format!("{prefix}{tag}"), *socket));
        let sockets = shares.chain([("usr".into(), usr.as_path())]);
        let console = place.path().join("console");
        let monitor = format!("unix:{},server=on,wait=off", place.path().join("monitor").display());
        let more = ["--", "-monitor", &monitor].into_iter().chain(options.iter().copied());
        let machine = kernel
            .command()
            .args(sockets.map(|(tag, socket)| format!("{tag}={}", listening(socket).display())))
            .args(more.take(if options.is_empty() { 0 } else { usize::MAX }))
            .env("CONSOLE", &console)
            .env("AS", privileges.command())
            .env("QUEUES", if kind.is_postern() { "2" } else { "1" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::options().create(true).append(true).open(&console).unwrap())
            .spawn()
            .unwrap();
        let mut guest = Self { machine, programs, place };
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

    /// Boots again, without an end of the VMM: the share is mounted anew.
    pub fn reboot(&mut self) {
        self.machine.stdin.as_mut().unwrap().write_all(b"9\nreboot -f").unwrap();
        assert_eq!(self.line(), "ready");
    }

    /// Tells QEMU's monitor something, which must have nothing to complain of.
    pub fn monitor(&self, command: &str) {
        let mut monitor = UnixStream::connect(self.place.path().join("monitor")).unwrap();
        let answer = |monitor: &mut UnixStream| {
            let mut text = Vec::new();
            while !text.ends_with(b"(qemu) ") {
                let mut byte = [0];
                monitor.read_exact(&mut byte).unwrap();
                text.extend(byte);
            }
            String::from_utf8_lossy(&text).into_owned()
        };
        answer(&mut monitor);
        writeln!(monitor, "{command}").unwrap();
        let said = answer(&mut monitor);
        assert!(!said.contains("Error"), "{command}: {said}");
    }

    /// Unmounts all and powers the guest off.
    pub fn power_off(mut self) -> ExitStatus {
        let stdin = self.machine.stdin.as_mut().unwrap();
        stdin.write_all(b"29\nsync; umount -a; poweroff -f\n").unwrap();
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

    /// The end of what the guest's kernel and the server of its programs have printed.
    fn story(&self) -> String {
        let [console, programs] = [&self.place, &self.programs.place].map(TempDir::path);
        format!("--- console\n{}\n--- /usr\n{}", tail(&console.join("console")), tail(&programs.join("log")))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        end(&mut self.machine);
    }
}

/// Waits until a server listens there.
fn listening(socket: &Path) -> &Path {
    let end = format!(" {}", socket.display());
    let accepts = |line: &str| line.ends_with(&end) && line.split(' ').nth(3) == Some("00010000"); // SO_ACCEPTCON
    let start = Instant::now();
    while !fs::read_to_string("/proc/net/unix").unwrap().lines().any(accepts) {
        assert!(start.elapsed() < PATIENCE, "no server listens at {}", socket.display());
        sleep(Duration::from_millis(10));
    }
    socket
}

fn end(process: &mut Child) {
    let _gone = process.kill();
    let _reaped = process.wait();
}

fn tail(file: &Path) -> String {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
