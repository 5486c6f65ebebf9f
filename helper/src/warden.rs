//! The warden: shakes hands with the server, builds the share, and outlives every helper.
//!
//! It parses the handshake and nothing else. It holds what must not die with a helper: the clone of the mount, by
//! which a descriptor is known. Whatever the helper dies of, another one takes its place; but not when the server
//! has broken the protocol.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::libc;
use postern_ipc::channel::{Channel, pass};
use postern_ipc::hello::{CHANNELS_MAX, Hello, News, Share as Facts, VERSION, receive_hello, send_news};
use postern_ipc::{Errno, Result};
use postern_policy::account::Account;
use postern_policy::death::Witness;
use postern_policy::fatal::{Fatal, Started, Step as _};
use postern_policy::limit::Rate;
use postern_policy::sandbox;
use postern_policy::sandbox::caps::{self, Need};
use postern_policy::sandbox::landlock::{Allow, enforce};
use postern_policy::sandbox::namespace::{self, User};
use postern_policy::sandbox::seccomp::Program;
use postern_policy::translate::Translation;
use rustix::fs::{Mode, OFlags, open, openat};
use rustix::process::{Pid, fchdir, getppid};

use crate::args::{Args, Form};
use crate::child::{Ends, Helper};
use crate::clone::{Clone, Place};
use crate::ending::Ending;
use crate::event::{Event, Others};
use crate::guard::{self, Guard};
use crate::identity::Identity;
use crate::mapper::{Outside, Process};
use crate::model::{Plan, Store};
use crate::names::Names;
use crate::share::Share;
use crate::sys;
use crate::walls::{self, Walls};

/// A helper that keeps dying is started this often in that time; then it waits.
const RESTARTS: u32 = 10;
const RESTARTS_WITHIN: Duration = Duration::from_secs(10);
/// How long the server may take to hear news, and how long there may be no room for a descriptor in flight.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before it is looked again whether there is room. unix(7): ETOOMANYREFS
const CROWDED: Duration = Duration::from_millis(50);

/// From the first greeting to the last.
pub(crate) fn run(args: &Args, socket: &UnixStream, dir: OwnedFd, identity: &Identity) -> Started<Ending> {
    let plan = Plan::of(args, &dir)?;
    let closed = guard::closed(&dir, args.shown(), identity)?;
    let (hello, server) = greet(socket, identity)?;
    log::info!("{}: {}", args.shown(), identity.root_on_host());
    let witness = Witness::call();
    let translation = identity.kernels()?;
    let clone = enter(args, identity, dir)?;
    let guard = Guard::decide(args, identity, clone.mount.source, closed);
    let model = args.security_model.into();
    let capabilities = walls::capabilities(args.rights(), guard, model, identity.form, args.modcaps.as_ref())?;
    let names = Names::new(args.xattrmap.clone(), model);
    let warden = Warden {
        args,
        identity,
        translation,
        clone,
        guard,
        capabilities,
        plan,
        names,
        channels: hello.channels,
        witness,
        chmods_by_descriptor: sys::has_chmod(),
    };
    let others = Others::new(socket).step("wait for signals")?;
    warden.confine()?;
    let ended = warden.watch(socket, &others)?;
    if let Some(how) = server.and_then(|pid| warden.witness.killed(pid)) {
        log::error!("the server {how}");
    }
    Ok(ended)
}

/// Hears what the server wants and who it is, and maps its user namespace if it has one.
fn greet(socket: &UnixStream, identity: &Identity) -> Started<(Hello, Option<Pid>)> {
    let step = "shake hands with the server";
    socket.set_write_timeout(Some(PATIENCE)).step(step)?;
    let (hello, pid) = receive_hello(socket).map_err(|why| Fatal::new(step, why))?;
    if hello.version != VERSION {
        let why = format!("it speaks version {}, this helper version {VERSION}", hello.version);
        return Err(Fatal::new(step, why).hint("install both from the same release"));
    }
    if !(1..=CHANNELS_MAX).contains(&hello.channels) {
        return Err(Fatal::new(step, format!("it asks for {} channels, 1 to {CHANNELS_MAX} may be", hello.channels)));
    }
    let server = Pid::from_raw(pid);
    if hello.wants_map {
        let pid = server.ok_or_else(|| Fatal::new(step, "it has no process id here"))?;
        let process = Process::hold(pid)?;
        let ids = process.ids()?;
        if identity.may_be_had_by(ids, Some(pid) == getppid()) {
            let (maps, uid, gid) = identity.for_server(ids)?;
            process.write(&maps, &identity.writers, identity.has_groups())?;
            send_news(socket, &News::Mapped { uid, gid }).step(step)?;
        } else {
            log::warn!(
                "the server is uid {}, and some of the share's ids are neither its own nor subordinate ones (/etc/subuid, \
                 /etc/subgid): it gets no id map, and the helper looks up every name (slower)",
                ids.0
            );
        }
    }
    Ok((hello, server))
}

/// The share, and the way to a process's own descriptors, which is not in its root any more.
struct Held {
    mount: Clone,
    proc: OwnedFd,
}

/// Enters the share's namespaces and leaves everything else.
fn enter(args: &Args, identity: &Identity, dir: OwnedFd) -> Started<Held> {
    // The working directory goes along into the new mount namespace, where the descriptor would be a stranger.
    fchdir(&dir).step(format!("enter the shared directory {}", args.shown()))?;
    match identity.namespace() {
        User::Stay => namespace::enter(User::Stay)?,
        User::New => {
            let outside = Outside::new(&identity.maps, &identity.writers, identity.has_groups())?;
            namespace::enter(User::New)
                .map_err(|fatal| fatal.hint("--identity=soft goes without one where root starts the helper"))?;
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
    if identity.form == Form::Soft {
        // What this process has of root's power stays for all that it is somebody else.
        caps::stay()?;
        become_root(identity)?;
        sandbox::not_dumpable()?;
    }
    Ok(Held { mount, proc })
}

/// Root of the mapped ids. Where one id only is mapped the user's groups stay; nobody inside can name them.
fn become_root(identity: &Identity) -> Started<()> {
    let step = "become root of the mapped ids";
    if identity.has_groups() {
        nix::unistd::setgroups(&[]).step(step)?;
    }
    let (uid, gid) = identity.own();
    nix::unistd::setresgid(gid.into(), gid.into(), gid.into()).step(step)?;
    nix::unistd::setresuid(uid.into(), uid.into(), uid.into()).step(step)
}

struct Warden<'a> {
    args: &'a Args,
    identity: &'a Identity,
    /// How ids of the guest become those of system calls.
    translation: Translation,
    clone: Held,
    guard: Guard,
    capabilities: Vec<Need>,
    plan: Option<Plan>,
    names: Names,
    channels: u16,
    witness: Witness,
    chmods_by_descriptor: bool,
}

impl Warden<'_> {
    /// Keeps nothing but what a helper needs, which is this process's child, and what watching it does. The helper's
    /// Landlock domain is within this one, so it reaches nothing of the warden's.
    fn confine(&self) -> Started<()> {
        let rights = self.args.rights();
        sandbox::no_new_privs()?;
        caps::keep(&self.capabilities)?;
        let root = self.clone.mount.root().step("open the share's root")?;
        let allow = Allow::Beneath { dir: root.as_fd(), rights };
        let domain = (!self.args.no_landlock).then(|| enforce(allow)).transpose()?;
        Program::absent(&[libc::SYS_clone3], self.args.seccomp)?.apply()?;
        let program = Program::new(&walls::warden(rights, self.args.security_model.into()), self.args.seccomp)?;
        program.apply()?;
        if self.args.explain {
            let tried = [("the share", Share::reads(&root)), ("/proc", Share::reads(&self.clone.proc))];
            let account = Account::of("warden").capabilities(&self.capabilities);
            account.landlock(domain.as_ref(), &tried).calls(&program).tell()?;
        }
        Ok(())
    }

    /// Opens the share to the server, and keeps it open.
    fn watch(&self, socket: &UnixStream, others: &Others<'_>) -> Started<Ending> {
        let (mut helper, ends) = self.start()?;
        self.welcome(socket, &ends).step("open the share to the server")?;
        drop(ends);
        let mut rate = Rate::new(RESTARTS, RESTARTS_WITHIN);
        loop {
            let status = match others.wait(&mut helper).step("wait for the helper")? {
                Event::Over => return end(&mut helper, Ending::Done),
                Event::Spoke => {
                    log::error!("the server broke the protocol: it spoke out of turn");
                    refuse(socket);
                    return end(&mut helper, Ending::Protocol);
                }
                Event::Died(status) => status,
            };
            match status.exit_status() {
                Some(code) if code == Ending::Done.status() => return Ok(Ending::Done),
                Some(code) if code == Ending::Protocol.status() => {
                    refuse(socket);
                    return Ok(Ending::Protocol);
                }
                _ => log::error!("the helper {}", helper.death(&status, &self.witness)),
            }
            let Some((another, ends)) = self.replace(&mut rate, others)? else { return Ok(Ending::Done) };
            helper = another;
            match renew(socket, &ends) {
                Err(Errno::EPIPE | Errno::ECONNRESET) => return end(&mut helper, Ending::Done),
                renewed => renewed.step("tell the server of the new helper")?,
            }
        }
    }

    /// Starts another helper, after a pause if that happens too often. `None` if the end comes first. What keeps it
    /// from starting may pass, so it is tried several times.
    fn replace(&self, rate: &mut Rate, others: &Others<'_>) -> Started<Option<(Helper, Ends)>> {
        for tries in (0..RESTARTS).rev() {
            let pause = rate.count(1, Instant::now());
            log::info!("starting another helper{}", after(pause));
            if others.over_within(pause).step("wait before starting another helper")? {
                return Ok(None);
            }
            match self.start() {
                Err(fatal) if tries > 0 => log::error!("{fatal}"),
                started => return started.map(Some),
            }
        }
        Ok(None)
    }

    fn start(&self) -> Started<(Helper, Ends)> {
        let Args { seccomp, no_landlock, explain: told, .. } = *self.args;
        let walls = Walls { capabilities: &self.capabilities, seccomp, landlock: !no_landlock, told };
        Helper::start(self.channels, || self.share(), walls, &self.witness)
    }

    /// As a new helper sees it: the numbers are those of whoever opens them.
    fn share(&self) -> Started<Share> {
        let mount = &self.clone.mount;
        let root = mount.root().step("open the share's root")?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Share {
            rights: self.args.rights(),
            guard: self.guard,
            translation: self.translation.clone(),
            model: self.args.security_model.into(),
            names: self.names.clone(),
            store: self.plan.map(Store::new),
            numbers: openat(&self.clone.proc, c"self/fd", flags, Mode::empty()).step("open /proc/self/fd")?,
            root_place: Place::of(&root).step("look at the share's root")?,
            root,
            mounts: mount.mounts.clone(),
            max_rate: self.args.max_rate,
            chmods_by_descriptor: self.chmods_by_descriptor,
        })
    }

    fn welcome(&self, socket: &UnixStream, ends: &Ends) -> Result<()> {
        let Args { readonly, security_model, .. } = *self.args;
        let facts = Facts {
            version: VERSION,
            readonly,
            root: self.identity.root(),
            model: security_model.into(),
            acls: self.names.acls(),
            capabilities: self.names.capabilities(),
            shown: self.translation.shown().clone(),
        };
        send_news(socket, &News::Welcome(facts))?;
        hand(socket, self.clone.mount.root()?.as_fd())?;
        ends.iter().flat_map(Channel::parts).try_for_each(|part| hand(socket, part))
    }
}

fn renew(socket: &UnixStream, ends: &Ends) -> Result<()> {
    send_news(socket, &News::Renewed)?;
    ends.iter().flat_map(Channel::parts).try_for_each(|part| hand(socket, part))
}

/// Hands a descriptor over, as soon as what other programs of the same user have in flight leaves room for it.
fn hand(socket: &UnixStream, descriptor: BorrowedFd<'_>) -> Result<()> {
    let since = Instant::now();
    loop {
        match pass(socket, descriptor) {
            Err(Errno::ETOOMANYREFS) if since.elapsed() < PATIENCE => std::thread::sleep(CROWDED),
            handed => return handed,
        }
    }
}

/// A server that broke the protocol hears that it is over; it need not listen.
fn refuse(socket: &UnixStream) {
    let _ = send_news(socket, &News::Refused("the protocol was broken".into()));
}

fn end(helper: &mut Helper, ending: Ending) -> Started<Ending> {
    helper.end().step("end the helper")?;
    Ok(ending)
}

fn after(pause: Duration) -> String {
    if pause.is_zero() { String::new() } else { format!(" in {} s", pause.as_secs().saturating_add(1)) }
}
