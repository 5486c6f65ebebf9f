//! The warden: shakes hands with the server, builds the share, and outlives every helper.
//!
//! It parses the handshake and nothing else. It holds what must not die with a helper: the clone of the mount, by
//! which a descriptor is known. Whatever the helper dies of, another one takes its place; but not when the server
//! has broken the protocol.

use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use postern_ipc::channel::{Channel, pass};
use postern_ipc::hello::{CHANNELS_MAX, Hello, News, Share as Facts, VERSION, receive_hello, send_news};
use postern_ipc::{Errno, Result};
use postern_policy::fatal::{Fatal, Step as _};
use postern_policy::journal;
use postern_policy::limit::Rate;
use postern_policy::sandbox::namespace::{self, User};
use postern_policy::sandbox::seccomp::Program;
use postern_policy::sandbox::{self, caps};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::process::{
    Pid, PidfdFlags, Signal as Kill, WaitId, WaitIdOptions, WaitIdStatus, fchdir, getpid, getppid, pidfd_open,
    pidfd_send_signal, set_parent_process_death_signal, waitid,
};

use crate::args::Args;
use crate::clone::{Clone, Place};
use crate::ending::Ending;
use crate::guard::{self, Guard};
use crate::identity::Identity;
use crate::mapper::{self, Outside};
use crate::share::Share;
use crate::walls::{self, Walls};
use crate::{start, sys, worker};

/// A helper that keeps dying is started this often in that time; then it waits.
const RESTARTS: usize = 10;
const RESTARTS_WITHIN: Duration = Duration::from_secs(10);
/// What a helper says once its walls stand; else it says why they do not, in at most so many bytes.
const READY: &[u8] = b"ready";
const REASON: usize = 1024;
/// How long the server may take to hear news.
const PATIENCE: Duration = Duration::from_secs(10);

/// From the first greeting to the last.
pub(crate) fn run(args: &Args, socket: &UnixStream) -> std::result::Result<Ending, Fatal> {
    let dir = start::shared_dir(&args.shared_dir)?;
    let identity = Identity::decide(args)?;
    let closed = guard::closed(&dir, &identity)?;
    let hello = greet(socket, &identity)?;
    log::info!("{}: {}", args.shared_dir.display(), identity.root());
    let clone = enter(args, &identity, dir)?;
    let guard = Guard::decide(args, &identity, clone.mount.source, closed);
    let warden = Warden { args, clone, guard, channels: hello.channels };
    let signals = signals().step("wait for signals")?;
    warden.confine()?;
    warden.watch(socket, &signals)
}

/// Hears what the server wants, and maps its user namespace if it has one.
fn greet(socket: &UnixStream, identity: &Identity) -> std::result::Result<Hello, Fatal> {
    let step = "shake hands with the server";
    socket.set_write_timeout(Some(PATIENCE)).step(step)?;
    let (hello, pid) = receive_hello(socket).step(step)?;
    if hello.version != VERSION {
        let why = format!("it speaks version {}, this helper version {VERSION}", hello.version);
        return Err(Fatal::new(step, why).hint("install both from the same release"));
    }
    if !(1..=CHANNELS_MAX).contains(&hello.channels) {
        return Err(Fatal::new(step, format!("it asks for {} channels, 1 to {CHANNELS_MAX} may be", hello.channels)));
    }
    if hello.wants_map {
        let pid = Pid::from_raw(pid).ok_or_else(|| Fatal::new(step, "it has no process id here"))?;
        let (maps, uid, gid) = identity.for_server(mapper::ids_of(pid)?)?;
        mapper::write(pid, &maps, &identity.writers)?;
        send_news(socket, &News::Mapped { uid, gid }).step(step)?;
    }
    Ok(hello)
}

/// The share, and the way to a process's own descriptors, which is not in its root any more.
struct Held {
    mount: Clone,
    proc: OwnedFd,
}

/// Enters the share's namespaces and leaves everything else.
fn enter(args: &Args, identity: &Identity, dir: OwnedFd) -> std::result::Result<Held, Fatal> {
    // The working directory goes along into the new mount namespace, where the descriptor would be a stranger.
    fchdir(&dir).step(format!("enter the shared directory {}", args.shared_dir.display()))?;
    match identity.namespace {
        User::Stay => namespace::enter(User::Stay)?,
        User::New => {
            let outside = Outside::new(&identity.maps, &identity.writers)?;
            namespace::enter(User::New)?;
            outside.map()?;
            become_root(identity)?;
        }
    }
    sandbox::not_dumpable()?;
    namespace::isolate();
    let mount = Clone::of_working_dir(&dir, args.rights())?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = open("/proc", flags, Mode::empty()).step("open /proc")?;
    if !args.no_empty_root {
        namespace::empty_root().map_err(|fatal| fatal.hint("--no-empty-root goes without"))?;
    }
    Ok(Held { mount, proc })
}

/// Root of the mapped ids. Where one id only is mapped the user's groups stay; nobody inside can name them.
fn become_root(identity: &Identity) -> std::result::Result<(), Fatal> {
    let step = "become root of the mapped ids";
    if identity.has_groups() {
        nix::unistd::setgroups(&[]).step(step)?;
    }
    nix::unistd::setresgid(0.into(), 0.into(), 0.into()).step(step)?;
    nix::unistd::setresuid(0.into(), 0.into(), 0.into()).step(step)
}

struct Warden<'a> {
    args: &'a Args,
    clone: Held,
    guard: Guard,
    channels: u16,
}

/// A helper at work.
struct Helper {
    process: OwnedFd,
}

/// The server's ends of its channels. Once handed over they are the server's alone, so that a helper sees them close.
type Ends = Vec<Channel>;

/// What ends the wait.
enum Event {
    /// The server is gone, or a signal asks for the end.
    Over,
    /// The server says something although it is not its turn.
    Spoke,
    /// The helper is dead.
    Died(WaitIdStatus),
}

impl Warden<'_> {
    /// Keeps nothing but what a helper needs, which is this process's child, and what watching it does.
    fn confine(&self) -> std::result::Result<(), Fatal> {
        sandbox::no_new_privs()?;
        caps::keep(&walls::capabilities(self.args.rights(), self.guard))?;
        Program::absent(&[libc::SYS_clone3], self.args.seccomp)?.apply()?;
        Program::new(&walls::warden(self.args.rights()), self.args.seccomp)?.apply()
    }

    /// Opens the share to the server, and keeps it open.
    fn watch(&self, socket: &UnixStream, signals: &SignalFd) -> std::result::Result<Ending, Fatal> {
        let (mut helper, ends) = self.start()?;
        self.welcome(socket, ends).step("open the share to the server")?;
        let mut rate = Rate::new(RESTARTS, RESTARTS_WITHIN);
        loop {
            let status = match wait(&helper, socket, signals).step("wait for the helper")? {
                Event::Over => return self.stop(&helper, Ending::Done),
                Event::Spoke => {
                    log::error!("the server broke the protocol: it spoke out of turn");
                    self.refuse(socket);
                    return self.stop(&helper, Ending::Protocol);
                }
                Event::Died(status) => status,
            };
            if status.exit_status() == Some(Ending::Done.status()) {
                return Ok(Ending::Done);
            }
            if status.exit_status() == Some(Ending::Protocol.status()) {
                self.refuse(socket);
                return Ok(Ending::Protocol);
            }
            log::error!("the helper {}", death(&status));
            let Some((another, ends)) = self.replace(&mut rate, socket, signals)? else { return Ok(Ending::Done) };
            helper = another;
            match self.renew(socket, ends) {
                Err(Errno::EPIPE | Errno::ECONNRESET) => return self.stop(&helper, Ending::Done),
                renewed => renewed.step("tell the server of the new helper")?,
            }
        }
    }

    /// Starts another helper, after a pause if that happens too often. `None` if the end comes first. What keeps it from
    /// starting may pass, so it is tried several times.
    fn replace(
        &self,
        rate: &mut Rate,
        socket: &UnixStream,
        signals: &SignalFd,
    ) -> std::result::Result<Option<(Helper, Ends)>, Fatal> {
        for tries in (0..RESTARTS).rev() {
            let pause = rate.count(Instant::now());
            log::info!("starting another helper{}", after(pause));
            if let Pause::Over = rest(pause, socket, signals).step("wait before starting another helper")? {
                return Ok(None);
            }
            match self.start() {
                Err(fatal) if tries > 0 => log::error!("{fatal}"),
                started => return started.map(Some),
            }
        }
        Ok(None)
    }

    fn welcome(&self, socket: &UnixStream, ends: Ends) -> Result<()> {
        send_news(socket, &News::Welcome(Facts { version: VERSION, readonly: self.args.readonly }))?;
        pass(socket, self.clone.mount.root()?.as_fd())?;
        ends.iter().try_for_each(|end| pass(socket, end.as_fd()))
    }

    fn renew(&self, socket: &UnixStream, ends: Ends) -> Result<()> {
        send_news(socket, &News::Renewed)?;
        ends.iter().try_for_each(|end| pass(socket, end.as_fd()))
    }

    /// A server that broke the protocol hears that it is over; it need not listen.
    fn refuse(&self, socket: &UnixStream) {
        let _ = send_news(socket, &News::Refused("the protocol was broken".into()));
    }

    fn stop(&self, helper: &Helper, ending: Ending) -> std::result::Result<Ending, Fatal> {
        // It may have died meanwhile.
        let _ = pidfd_send_signal(&helper.process, Kill::KILL);
        waitid(WaitId::PidFd(helper.process.as_fd()), WaitIdOptions::EXITED).step("wait for the helper's end")?;
        Ok(ending)
    }

    /// Forks a helper and waits until its walls stand.
    fn start(&self) -> std::result::Result<(Helper, Ends), Fatal> {
        let step = "start the helper";
        let pairs: Vec<_> = (0..self.channels).map(|_| Channel::pair()).collect::<Result<_>>().step(step)?;
        let (ends, served): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        let (told, ready) = Channel::pair().step(step)?;
        let warden = getpid();
        let Some(pid) = sys::fork().step(step)? else {
            let ending = self.helper(warden, &served, &ready).unwrap_or_else(|fatal| {
                say(&ready, fatal.to_string().as_bytes());
                Ending::Failed
            });
            std::process::exit(ending.status())
        };
        drop((served, ready));
        let mut text = [0; REASON];
        let heard = told.receive(&mut text).step(step)?;
        match text.get(..heard.len).unwrap_or_default() {
            READY => Ok((Helper { process: pidfd_open(pid, PidfdFlags::empty()).step(step)? }, ends)),
            b"" => Err(Fatal::new(step, "it died at once")),
            why => Err(Fatal::relayed(String::from_utf8_lossy(why).into_owned())),
        }
    }

    /// In the new process.
    fn helper(&self, warden: Pid, channels: &[Channel], ready: &Channel) -> std::result::Result<Ending, Fatal> {
        std::panic::set_hook(Box::new(|bug| {
            log::error!("a bug: {bug}");
            std::process::exit(Ending::Failed.status());
        }));
        set_parent_process_death_signal(Some(Kill::KILL)).step("die with the warden")?;
        if getppid() != Some(warden) {
            return Ok(Ending::Done);
        }
        let share = self.share()?;
        let kept = [share.root.as_fd(), share.numbers.as_fd(), ready.as_fd()];
        let kept: Vec<BorrowedFd<'_>> =
            kept.into_iter().chain(journal::descriptor()).chain(channels.iter().map(AsFd::as_fd)).collect();
        sys::close_others(&kept).step("close what is the warden's")?;
        sys::forget_signals().step("reset its signals")?;
        let walls = Walls { seccomp: self.args.seccomp, landlock: !self.args.no_landlock };
        worker::run(&share, channels, walls, || say(ready, READY))
    }

    fn share(&self) -> std::result::Result<Share, Fatal> {
        let mount = &self.clone.mount;
        let root = mount.root().step("open the share's root")?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Share {
            rights: self.args.rights(),
            guard: self.guard,
            numbers: openat(&self.clone.proc, c"self/fd", flags, Mode::empty()).step("open /proc/self/fd")?,
            root_place: Place::of(&root).step("look at the share's root")?,
            root,
            mounts: mount.mounts.clone(),
        })
    }
}

/// A warden that does not hear it is gone, and takes the helper along.
fn say(wire: &Channel, text: &[u8]) {
    let _ = wire.send(&[text, b""], &[]);
}

/// SIGTERM, SIGINT and SIGHUP ask for the end.
fn signals() -> Result<SignalFd> {
    let asking: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP].into_iter().collect();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&asking), None)?;
    Ok(SignalFd::with_flags(&asking, SfdFlags::SFD_CLOEXEC)?)
}

fn wait(helper: &Helper, socket: &UnixStream, signals: &SignalFd) -> Result<Event> {
    let [died, spoke, asked] = [helper.process.as_fd(), socket.as_fd(), signals.as_fd()];
    let [died, spoke, asked] = ready([died, spoke, asked], None)?;
    if asked {
        return Ok(Event::Over);
    }
    if spoke {
        return Ok(if gone(socket) { Event::Over } else { Event::Spoke });
    }
    match died.then(|| waitid(WaitId::PidFd(helper.process.as_fd()), WaitIdOptions::EXITED)).transpose()?.flatten() {
        Some(status) => Ok(Event::Died(status)),
        None => wait(helper, socket, signals),
    }
}

/// Whether a pause before a new helper went by.
enum Pause {
    Done,
    Over,
}

fn rest(pause: Duration, socket: &UnixStream, signals: &SignalFd) -> Result<Pause> {
    if pause.is_zero() {
        return Ok(Pause::Done);
    }
    let [spoke, asked] = ready([socket.as_fd(), signals.as_fd()], Some(pause))?;
    Ok(if asked || (spoke && gone(socket)) { Pause::Over } else { Pause::Done })
}

fn ready<const N: usize>(fds: [BorrowedFd<'_>; N], timeout: Option<Duration>) -> Result<[bool; N]> {
    let timeout = timeout.and_then(|pause| Timespec::try_from(pause).ok());
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    loop {
        match poll(&mut polled, timeout.as_ref()) {
            Err(rustix::io::Errno::INTR) => {}
            done => {
                done?;
                return Ok(polled.map(|fd| !fd.revents().is_empty()));
            }
        }
    }
}

/// Nothing more comes from the server.
fn gone(mut socket: &UnixStream) -> bool {
    !matches!(socket.read(&mut [0]), Ok(read) if read > 0)
}

/// What the helper died of, for the log.
fn death(status: &WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (_, Some(libc::SIGSYS)) => {
            "made a system call that is not on its list (the kernel's log has its number)".into()
        }
        (_, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("was ended by {signal}"),
            Err(_) => format!("was ended by signal {number}"),
        },
        _ => "ended".into(),
    }
}

fn after(pause: Duration) -> String {
    if pause.is_zero() { String::new() } else { format!(" in {} s", pause.as_secs().saturating_add(1)) }
}
