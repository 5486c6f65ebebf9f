//! What the warden waits for: the helper's death, the server's silence, a signal.

use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use postern_ipc::Result;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::WaitIdStatus;

use crate::child::Helper;

/// Those besides the helper who can end a wait.
#[derive(Debug)]
pub(crate) struct Others<'a> {
    socket: &'a UnixStream,
    signals: SignalFd,
}

/// What ends a wait.
#[derive(Debug)]
pub(crate) enum Event {
    /// The server is gone, or a signal asks for the end.
    Over,
    /// The server says something although it is not its turn.
    Spoke,
    /// The helper is dead.
    Died(WaitIdStatus),
}

impl<'a> Others<'a> {
    /// From now on SIGTERM, SIGINT and SIGHUP ask for the end.
    pub(crate) fn new(socket: &'a UnixStream) -> Result<Self> {
        let asking: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&asking), None)?;
        Ok(Self { socket, signals: SignalFd::with_flags(&asking, SfdFlags::SFD_CLOEXEC)? })
    }

    /// Waits for them or the helper, whose log it writes meanwhile.
    pub(crate) fn wait(&self, helper: &mut Helper) -> Result<Event> {
        loop {
            let events = [helper.process(), helper.lines.output(), self.socket.as_fd(), self.signals.as_fd()];
            let [died, logs, spoke, asked] = ready(events, None)?;
            if logs {
                helper.lines.relay();
            }
            if asked || (spoke && self.gone()) {
                return Ok(Event::Over);
            }
            if spoke {
                return Ok(Event::Spoke);
            }
            if let Some(status) = died.then(|| helper.status()).transpose()?.flatten() {
                return Ok(Event::Died(status));
            }
        }
    }

    /// Lets time pass. Whether the end came first.
    pub(crate) fn over_within(&self, pause: Duration) -> Result<bool> {
        if pause.is_zero() {
            return Ok(false);
        }
        let [spoke, asked] = ready([self.socket.as_fd(), self.signals.as_fd()], Some(pause))?;
        Ok(asked || (spoke && self.gone()))
    }

    /// Nothing more comes from the server.
    fn gone(&self) -> bool {
        let mut socket = self.socket;
        !matches!(socket.read(&mut [0]), Ok(read) if read > 0)
    }
}

/// Which of these have something to say, once one has or the time is up.
pub(crate) fn ready<const N: usize>(fds: [BorrowedFd<'_>; N], timeout: Option<Duration>) -> Result<[bool; N]> {
    let timeout = timeout.and_then(|pause| Timespec::try_from(pause).ok());
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    rustix::io::retry_on_intr(|| poll(&mut polled, timeout.as_ref()))?;
    Ok(polled.map(|fd| !fd.revents().is_empty()))
}
