//! What this process was started with is hostile: descriptors, environment, signals, limits, file mode mask.

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

/// Forgets what the caller left and keeps the socket he gave.
pub(crate) fn clean(args: &Args) -> Result<UnixStream, Fatal> {
    let socket = socket(args.sock_fd)?;
    sys::close_others(&[socket.as_fd()]).step("close the descriptors of its caller")?;
    sys::forget_signals().step("reset its signals")?;
    rustix::process::umask(Mode::from_raw_mode(0o077));
    limit::no_core()?;
    limit::largest_files()?;
    limit::descriptors(args.rlimit_nofile)?;
    silence()?;
    Ok(socket)
}

fn socket(number: RawFd) -> Result<UnixStream, Fatal> {
    let step = format!("use --sock-fd {number}");
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

/// Nothing is read from the standard input or written to the standard output.
fn silence() -> Result<(), Fatal> {
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).step("open /dev/null")?;
    nix::unistd::dup2_stdin(&null).step("close the standard input")?;
    nix::unistd::dup2_stdout(&null).step("close the standard output")
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
