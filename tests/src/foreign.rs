//! Descriptors that a server can come by and that are none of the share's.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::sync::OnceLock;

use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::memfd::{MFdFlags, memfd_create};
use rustix::fs::{Mode, OFlags, inotify, open, openat};
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use crate::twin::Twin;

/// What it is called, and how it is come by.
pub type Foreign = (&'static str, fn(&Twin) -> OwnedFd);

/// All of them. They need a world of mounts of their own.
pub const FOREIGN: &[Foreign] = &[
    // Its own, and none of a file.
    ("one of its sockets", |_| UnixStream::pair().expect("sockets").0.into()),
    ("a datagram socket", |_| UnixDatagram::unbound().expect("a socket").into()),
    ("its end of the handshake", |twin| twin.socket.try_clone().expect("dup").into()),
    ("its end of this very channel", |twin| twin.channel.parts()[0].try_clone_to_owned().expect("dup")),
    ("where it writes to this very channel", |twin| twin.channel.parts()[1].try_clone_to_owned().expect("dup")),
    ("where it reads from this very channel", |twin| twin.channel.parts()[2].try_clone_to_owned().expect("dup")),
    ("a pipe to read from", |_| nix::unistd::pipe().expect("a pipe").0),
    ("a pipe to write to", |_| nix::unistd::pipe().expect("a pipe").1),
    ("an epoll instance", |_| Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).expect("epoll").0),
    ("an event counter", |_| EventFd::new().expect("eventfd").into()),
    ("an inotify instance", |_| inotify::init(inotify::CreateFlags::CLOEXEC).expect("inotify")),
    ("a process", |_| pidfd_open(getpid(), PidfdFlags::empty()).expect("pidfd")),
    ("memory", |_| memory()),
    // Open, of the host or donated.
    ("a device that is open", |_| File::open("/dev/null").expect("null").into()),
    ("a file of the host that is open", |_| File::open("/etc/passwd").expect("passwd").into()),
    ("a donated directory", |twin| openat(&twin.root, ".", READ, Mode::empty()).expect("the root")),
    ("a donated file", |twin| {
        twin.host.write("given", b"");
        openat(&twin.root, "given", READ, Mode::empty()).expect("a file")
    }),
    // O_PATH, of nothing that has a mount, or of another one.
    ("memory by O_PATH", |_| by_number(memory())),
    ("a pipe by O_PATH", |_| by_number(nix::unistd::pipe().expect("a pipe").0)),
    ("a socket by O_PATH", |_| by_number(UnixStream::pair().expect("sockets").0)),
    ("the host's root", |_| pinned("/")),
    ("a directory of the host", |_| pinned("/etc")),
    ("the shared directory by the host's mount", |twin| pinned(twin.host.path("").to_str().expect("UTF-8"))),
    ("a directory beside the share", |twin| pinned(twin.scratch.path("outside").to_str().expect("UTF-8"))),
    ("a canary beside the share", |twin| pinned(twin.scratch.path("outside/canary").to_str().expect("UTF-8"))),
    ("the shared directory by a clone of its own", |twin| {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(rustix::fs::CWD, twin.host.path(""), flags).expect("root");
        openat(&tree, ".", PATH, Mode::empty()).expect("a directory")
    }),
    ("a device", |_| pinned("/dev/null")),
    ("a socket's name", |twin| {
        let path = twin.scratch.path("listening");
        let _listener = UnixListener::bind(&path).expect("a name");
        pinned(path.to_str().expect("UTF-8"))
    }),
    ("its root, by /proc", |_| pinned("/proc/self/root")),
    ("its working directory, by /proc", |_| pinned("/proc/self/cwd")),
    ("its own descriptors, by /proc", |_| pinned("/proc/self/fd")),
    ("its own memory, by /proc", |_| pinned("/proc/self/mem")),
    ("a link of /proc", |_| open("/proc/self/exe", PATH | OFlags::NOFOLLOW, Mode::empty()).expect("a link")),
    ("a namespace", |_| pinned("/proc/self/ns/user")),
    ("the helper, by /proc", |twin| pinned(&format!("/proc/{}", twin.helper()))),
];

const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

fn pinned(path: &str) -> OwnedFd {
    open(path, PATH, Mode::empty()).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn memory() -> OwnedFd {
    memfd_create(c"foreign", MFdFlags::MFD_CLOEXEC).expect("memfd")
}

fn by_number(fd: impl AsFd) -> OwnedFd {
    pinned(&format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()))
}

/// The root of a mount whose FUSE server reads no request: whoever asks it for attributes waits. linux/fuse.h
pub fn mute() -> OwnedFd {
    static SERVER: OnceLock<File> = OnceLock::new();
    let at = "/mnt";
    SERVER.get_or_init(|| {
        let device = File::options().read(true).write(true).open("/dev/fuse").expect("FUSE");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let flags = nix::mount::MsFlags::empty();
        nix::mount::mount(Some("mute"), at, Some("fuse"), flags, Some(options.as_str())).expect("root");
        device
    });
    pinned(at)
}
