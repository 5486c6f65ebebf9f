//! What every frontend begins with: meet the helper, and serve from behind walls.

use std::ffi::CStr;
use std::os::fd::RawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use nix::unistd::{SysconfVar, User, sysconf};
use postern_ipc::channel::{Channel, close_inherited, take};
use postern_ipc::client::Links;
use postern_ipc::hello::{self, News, Root, receive_news};
use postern_ipc::model::{KnownTo, Model};
use postern_ipc::{Errno, Result};
use postern_policy::account::Account;
use postern_policy::death;
use postern_policy::fatal::{Fatal, Step as _};
use postern_policy::journal;
use postern_policy::sandbox::seccomp::Call;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::args::{ProcessArgs, ShareArgs};
use crate::fs::tree::{Limits, Settings, Share, Tree};
use crate::fs::walk::Walker;
use crate::{confine, heap, launch, stats};

/// A process that is still what it was started as: the time to make sockets.
pub struct Start<'a> {
    process: &'a ProcessArgs,
    user: Option<User>,
    stats: Option<UnixListener>,
    look: Duration,
    /// Threads that may look for the helper's answer at once.
    lookers: u16,
}

/// A share whose helper is there, before the walls.
pub struct Met<'a> {
    process: &'a ProcessArgs,
    helper: UnixStream,
    /// The helper's process, if it was started here.
    child: Option<Pid>,
    stats: Option<UnixListener>,
    links: Arc<Links>,
    walker: Walker,
    /// How long threads look for what is to come next before they sleep.
    pub look: Duration,
    /// The share.
    pub tree: Arc<Tree>,
    /// Nothing of it can be changed.
    pub readonly: bool,
    /// Who root of the guest is.
    pub root: Root,
    /// Where the guest's ownership and modes are kept.
    pub model: Model,
    /// Who knows its ACLs.
    pub acls: KnownTo,
}

impl<'a> Start<'a> {
    /// Closes what the caller has left open, but for descriptors `named` on the command line; opens the log; finds whom
    /// to become, and listens for who asks for figures.
    ///
    /// # Errors
    /// Says what is wrong with the log, the user or the socket.
    pub fn new(process: &'a ProcessArgs, named: &[Option<RawFd>]) -> std::result::Result<Self, Fatal> {
        heap::settle();
        close_inherited(named).step("close the descriptors of its caller")?;
        journal::open("postern-server", process.log_level, process.syslog)?;
        // The standard hook may look for symbols in files, which a filter answers by killing.
        std::panic::set_hook(Box::new(|panic| log::error!("{panic}")));
        let (user, stats) = (confine::user(&process.user)?, launch::stats(process)?);
        // One CPU is left to the helper.
        Ok(Self { process, user, stats, look: look(process), lookers: cpus().saturating_sub(1) })
    }

    /// Becomes another user, and meets the helper, for so many channels.
    ///
    /// # Errors
    /// Says what is wrong with the helper or the share.
    pub fn meet(self, share: &ShareArgs, settings: Settings, channels: u16) -> std::result::Result<Met<'a>, Fatal> {
        let (helper, child) = launch::helper(share, self.process)?;
        let child = child.as_ref().map(Pid::from_child);
        let descriptors = confine::step_down(self.process, self.user.as_ref())?;
        let (facts, walker) = confine::meet(&helper, channels)?;
        let step = "open the share";
        let top = take(&helper).step(step)?;
        let links = Arc::new(Links::new(take_channels(&helper, channels).step(step)?, self.look, self.lookers));
        let hello::Share { readonly, root, model, acls, capabilities, shown, .. } = facts;
        let share =
            Share { root: top, links: Arc::clone(&links), walker, model, capabilities, shown, who_is_root: root };
        let limits = Limits { descriptors, nodes: self.process.max_nodes, ahead: self.process.open_ahead };
        let tree = Arc::new(Tree::new(share, limits, settings).step(step)?);
        let Self { process, stats, look, .. } = self;
        Ok(Met { process, helper, child, stats, links, walker, look, tree, readonly, root, model, acls })
    }
}

impl Met<'_> {
    /// Raises the walls around this thread and those that `threads` makes; there can be no others later. `calls` are
    /// the system calls that only this frontend makes.
    ///
    /// # Errors
    /// Says what could not be raised or made.
    pub fn behind_walls<T>(
        self,
        calls: &[Call],
        threads: impl FnOnce() -> std::result::Result<T, Fatal>,
    ) -> std::result::Result<T, Fatal> {
        let Self { process, helper, child, stats, links, walker, readonly, .. } = self;
        let domain = confine::renounce(process.no_landlock)?;
        let tried = process.explain.then(|| ("its root directory", reads(c"/")));
        if let Some(listener) = stats {
            let links = Arc::clone(&links);
            aside("stats", move || stats::socket::tell(&listener, &links))?;
        }
        let listen = move || {
            attend(&helper, &links);
            if let Some(death) = child.and_then(death) {
                log::error!("the helper's warden {death}");
            }
        };
        aside("news", listen)?;
        let made = threads()?;
        let program = confine::filter(walker, calls, process.seccomp)?;
        if let Some(tried) = tried {
            Account::of("server").landlock(domain.as_ref(), &[tried]).calls(&program).tell()?;
        }
        log::info!("ready{}", if readonly { ", read-only" } else { "" });
        Ok(made)
    }
}

/// Asked before the walls, behind which nobody tells of CPUs. Where the machine has one there is nothing to look for: who
/// could ask or answer meanwhile is kept from it.
fn look(process: &ProcessArgs) -> Duration {
    let alone = sysconf(SysconfVar::_NPROCESSORS_ONLN) == Ok(Some(1));
    if alone { Duration::ZERO } else { Duration::from_micros(process.poll_us) }
}

/// CPUs that this process may use.
pub fn cpus() -> u16 {
    std::thread::available_parallelism().ok().and_then(|cpus| cpus.get().try_into().ok()).unwrap_or(1)
}

/// Starts a thread, and waits until it runs: one that has only begun still makes system calls which the filter does not
/// allow.
fn aside(name: &str, act: impl FnOnce() + Send + 'static) -> std::result::Result<(), Fatal> {
    let (running, is_running) = std::sync::mpsc::channel();
    let begin = move || {
        drop::<Sender<()>>(running);
        act();
    };
    std::thread::Builder::new().name(name.into()).spawn(begin).step("start a thread")?;
    let _ = is_running.recv();
    Ok(())
}

fn take_channels(helper: &UnixStream, count: u16) -> Result<Vec<Channel>> {
    (0..count).map(|_| Channel::take(helper)).collect()
}

/// Whether a directory can be opened for reading.
fn reads(path: &CStr) -> Result<()> {
    Ok(open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map(drop)?)
}

/// What the helper's process died of, once it has, if it did not simply end.
fn death(child: Pid) -> Option<String> {
    let status = waitid(WaitId::Pid(child), WaitIdOptions::EXITED).ok()??;
    status.terminating_signal().map(|_| death::of(child, &status))
}

/// Listens to what the warden says as long as it is there.
fn attend(helper: &UnixStream, links: &Links) {
    let channels = u16::try_from(links.count()).unwrap_or(u16::MAX);
    let why = loop {
        match receive_news(helper) {
            Ok(News::Renewed) => {
                links.make_room();
                match take_channels(helper, channels) {
                    Ok(channels) => {
                        log::warn!("the helper was replaced");
                        links.renew(channels);
                    }
                    Err(errno) => break errno.to_string(),
                }
            }
            Ok(News::Refused(why)) => break why,
            Ok(_) => break Errno::EPROTO.to_string(),
            Err(errno) => break errno.to_string(),
        }
    };
    log::error!("the helper is gone ({why}): what needs it gives EIO; restart the VM's share");
    links.end();
}
