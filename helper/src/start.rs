//! What this process was started with is hostile: descriptors, environment, signals, limits, file mode mask; where its
//! caller is not who has a say in it, timers, importance and terminal too.

use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getpeername, getsockopt, sockopt};
use postern_ipc::{Errno, channel};
use postern_policy::fatal::{Fatal, Step as _};
use postern_policy::limit;
use rustix::fs::{Mode, OFlags, open};

use crate::args::Args;
use crate::sys;

/// Where systemd passes the first descriptor. sd_listen_fds(3): SD_LISTEN_FDS_START
const ACTIVATED: RawFd = 3;

/// Whether systemd has passed one descriptor to this very process. sd_listen_fds(3)
pub(crate) fn is_activated() -> bool {
    let says = |name: &str, number: u32| std::env::var(name).is_ok_and(|value| value == number.to_string());
    says("LISTEN_PID", std::process::id()) && says("LISTEN_FDS", 1)
}

/// Forgets what the caller left and keeps the socket he gave.
pub(crate) fn clean(args: &Args, activated: bool) -> Result<UnixStream, Fatal> {
    let socket = match args.sock_fd {
        Some(number) => socket(number, &format!("--sock-fd {number}"))?,
        None if activated => socket(ACTIVATED, "the socket that systemd passed (--by-policy)")?,
        None => {
            return Err(Fatal::new("find a server (--by-policy)", "systemd has not passed one socket (LISTEN_FDS)")
                .hint("enable postern-helper.socket, which starts this program"));
        }
    };
    sys::close_others(&[socket.as_fd()]).step("close the descriptors of its caller")?;
    sys::forget_signals().step("reset its signals")?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    rustix::process::chdir("/").step("leave the working directory of its caller")?;
    limit::no_core()?;
    if args.by_policy {
        sys::forget_timers().step("stop the timers of its caller")?;
        sys::forget_importance().step("be no more important than others")?;
        // Who leads its process group stays at its terminal, which can end or stop a share of its caller's only.
        let _ = rustix::process::setsid();
        limit::lift()?;
    } else {
        limit::largest_files()?;
    }
    limit::descriptors(args.rlimit_nofile)?;
    silence(args.explain)?;
    Ok(socket)
}

fn socket(number: RawFd, shown: &str) -> Result<UnixStream, Fatal> {
    let step = format!("use {shown}");
    let wrong = |why: &str| {
        Fatal::new(&step, why).hint("give the number of a connected Unix socket, stream or seqpacket, left open for it")
    };
    let fd = channel::inherited(number).map_err(|errno| wrong(&errno.to_string()))?;
    let connected = |fd: &OwnedFd| -> Result<(), Fatal> {
        match getsockopt(fd, sockopt::SockType) {
            Ok(SockType::Stream | SockType::SeqPacket) => {}
            Ok(_) => return Err(wrong("it is a datagram socket")),
            Err(errno) => return Err(wrong(&Errno::from(errno).to_string())),
        }
        let peer = getpeername::<SockaddrStorage>(std::os::fd::AsRawFd::as_raw_fd(fd));
        match peer.map(|address| address.family()) {
            Ok(Some(AddressFamily::Unix)) => Ok(()),
            Ok(_) => Err(wrong("it is not a Unix socket")),
            Err(errno) => Err(wrong(&Errno::from(errno).to_string())),
        }
    };
    connected(&fd)?;
    Ok(UnixStream::from(fd))
}

/// Nothing is read from the standard input, and written to the standard output only what it is to explain. In their
/// place is the end of a pipe that has no other: /dev/null is the host's, and who may change modes could change its.
fn silence(explains: bool) -> Result<(), Fatal> {
    let nothing = nothing()?;
    nix::unistd::dup2_stdin(&nothing).step("close the standard input")?;
    if explains {
        return Ok(());
    }
    nix::unistd::dup2_stdout(&nothing).step("close the standard output")
}

/// The standard error output is a hostile caller's; there is the system's log.
pub(crate) fn mute() -> Result<(), Fatal> {
    nix::unistd::dup2_stderr(nothing()?).step("close the standard error output")
}

fn nothing() -> Result<std::io::PipeReader, Fatal> {
    let (nothing, _) = std::io::pipe().step("make an empty pipe")?;
    Ok(nothing)
}

/// The directory to share, by O_PATH.
pub(crate) fn shared_dir(path: &Path) -> Result<OwnedFd, Fatal> {
    open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(Errno::from).map_err(
        |errno| {
            let fatal = Fatal::new(format!("open the shared directory {}", path.display()), errno);
            match errno {
                Errno::ENOENT => fatal.hint("create it or name another"),
                Errno::ENOTDIR => fatal.hint("name a directory"),
                Errno::EACCES => fatal.hint("whoever starts the helper must be able to reach it"),
                _ => fatal,
            }
        },
    )
}
