//! A helper as the warden sees it: forked, told apart from the dead, ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use postern_ipc::channel::Channel;
use postern_ipc::{Errno, Result};
use postern_policy::death::Witness;
use postern_policy::fatal::{Fatal, Started, Step as _};
use postern_policy::journal;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitIdStatus, getpid, getppid, pidfd_open, pidfd_send_signal,
    set_parent_process_death_signal, waitid,
};

use crate::ending::Ending;
use crate::event::ready;
use crate::relay::Lines;
use crate::share::Share;
use crate::walls::Walls;
use crate::{sys, worker};

/// What a helper says once its walls stand; else it says why they do not, in at most so many bytes.
const READY: &[u8] = b"ready";
const REASON: usize = 1024;
/// How long it may take to die.
const DYING: Duration = Duration::from_secs(5);

/// A helper at work.
#[derive(Debug)]
pub(crate) struct Helper {
    pid: Pid,
    process: OwnedFd,
    /// What it writes to its log.
    pub(crate) lines: Lines,
}

/// The server's ends of its channels. Once handed over they are the server's alone, so that a helper sees them close.
pub(crate) type Ends = Vec<Channel>;

impl Helper {
    /// Forks one that serves so many channels, and waits until its walls stand. `share` is made in the new process.
    pub(crate) fn start(
        channels: u16,
        share: impl FnOnce() -> Started<Share>,
        walls: Walls<'_>,
        witness: &Witness,
    ) -> Started<(Self, Ends)> {
        let step = "start the helper";
        let pairs: Vec<_> = (0..channels).map(|_| Channel::pair()).collect::<Result<_>>().step(step)?;
        let (ends, served): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let (told, ready) = Channel::pair().step(step)?;
        let lines = Lines::new().step(step)?;
        let warden = getpid();
        let Some(pid) = sys::fork().step(step)? else {
            let ending = be(warden, &served, share, walls, &ready, &lines).unwrap_or_else(|fatal| {
                say(&ready, fatal.to_string().as_bytes());
                Ending::Failed
            });
            std::process::exit(ending.status())
        };
        drop((served, ready));
        let mut helper = Self { pid, process: pidfd_open(pid, PidfdFlags::empty()).step(step)?, lines };
        let mut text = [0; REASON];
        let heard = told.receive(&mut text).step(step)?;
        let said = text.get(..heard.len).unwrap_or_default();
        if said == READY {
            return Ok((helper, ends));
        }
        let status = helper.end().step(step)?;
        Err(match (said, status) {
            (b"", Some(status)) => Fatal::new(step, format!("it {}", witness.death(pid, &status))),
            (b"", None) => Fatal::new(step, "it cannot be killed"),
            (why, _) => Fatal::relayed(String::from_utf8_lossy(why).into_owned()),
        })
    }

    /// Readable once it is dead.
    pub(crate) fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// What it died of, for people.
    pub(crate) fn death(&self, status: &WaitIdStatus, witness: &Witness) -> String {
        witness.death(self.pid, status)
    }

    /// How it ended, once its last words are in the log.
    pub(crate) fn status(&mut self) -> Result<Option<WaitIdStatus>> {
        self.lines.finish();
        Ok(waitid(WaitId::PidFd(self.process()), WaitIdOptions::EXITED)?)
    }

    /// Ends it, if it is not dead already. One that waits for a file system cannot be killed, and is left alone.
    pub(crate) fn end(&mut self) -> Result<Option<WaitIdStatus>> {
        match pidfd_send_signal(self.process(), Signal::KILL).map_err(Errno::from) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(errno),
        }
        match ready([self.process()], Some(DYING))? {
            [true] => self.status(),
            [false] => {
                log::error!("the helper cannot be killed: it waits for a file system");
                Ok(None)
            }
        }
    }
}

/// In the new process: gives up what is the warden's, and serves.
fn be(
    warden: Pid,
    channels: &[Channel],
    share: impl FnOnce() -> Started<Share>,
    walls: Walls<'_>,
    ready: &Channel,
    lines: &Lines,
) -> Started<Ending> {
    journal::begin();
    sys::replace(libc::STDERR_FILENO, lines.input()).step("log by the warden")?;
    std::panic::set_hook(Box::new(|bug| {
        log::error!("a bug: {bug}");
        std::process::exit(Ending::Failed.status());
    }));
    set_parent_process_death_signal(Some(Signal::KILL)).step("die with the warden")?;
    if getppid() != Some(warden) {
        return Ok(Ending::Done);
    }
    let share = share()?;
    let kept = [share.root.as_fd(), share.numbers.as_fd()].into_iter().chain(ready.parts());
    let kept = kept.chain(journal::descriptor()).chain(channels.iter().flat_map(Channel::parts));
    sys::close_others(&kept.collect::<Vec<_>>()).step("close what is the warden's")?;
    sys::forget_signals().step("reset its signals")?;
    worker::run(&share, channels, walls, || say(ready, READY))
}

/// A warden that does not hear it is gone, and takes the helper along.
fn say(wire: &Channel, text: &[u8]) {
    let text = text.get(..REASON).unwrap_or(text);
    let _ = wire.send(&[text, b""], &[]);
}
