//! A share that a server has asked for, which did not start its helper: a user's, and the helper is root's.
//!
//! Of the one who asks the kernel's word is taken (SO_PEERCRED, or who started this process); of the directory, its
//! descriptor's. A path is never taken from him: the descriptor's own is one that leads back to the very same
//! directory, or there is no share. The policy decides, and one line says how. postern-policy(5)

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use postern_ipc::Errno;
use postern_ipc::ask::{Ask, MapText, receive_ask};
use postern_ipc::attr::Mode as Bits;
use postern_ipc::hello::VERSION;
use postern_policy::fatal::{Fatal, Started, Step as _};
use postern_policy::rules::{self, Caller, Grant, Host};
use postern_policy::xattrmap::{BadXattrMap, XattrMap};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};

use crate::args::Args;
use crate::clone::Place;
use crate::ending::Ending;
use crate::identity::Identity;
use crate::slot::Slot;
use crate::{sys, warden};

/// How long a server may take to ask, and then to shake hands.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked for and given.
struct Share {
    args: Args,
    dir: OwnedFd,
    identity: Identity,
    _slot: Slot,
}

/// From the question to the last greeting. Who asks is who is at the other end, unless somebody else has started this.
pub(crate) fn run(args: &Args, socket: &UnixStream, caller: Option<Caller>) -> Started<Ending> {
    let caller = caller.map_or_else(|| peer(socket), Ok)?;
    let share = decide(args, socket, &caller)
        .map_err(|why| Fatal::relayed(format!("uid {} gid {} is given no share: {why}", caller.uid, caller.gid)))?;
    nix::unistd::setgroups(&caller.groups.iter().copied().map(Into::into).collect::<Vec<_>>())
        .step("leave its own groups")?;
    warden::run(&share.args, socket, share.dir, &share.identity)
}

fn peer(socket: &UnixStream) -> Started<Caller> {
    let step = "learn who asks";
    let peer = getsockopt(socket, PeerCredentials).step(step)?;
    Ok(Caller { uid: peer.uid(), gid: peer.gid(), groups: sys::peer_groups(socket).step(step)? })
}

fn decide(args: &Args, socket: &UnixStream, caller: &Caller) -> Started<Share> {
    let policy = rules::read()?;
    let slot = Slot::take(caller.uid, policy.shares_per_user)?;
    socket.set_read_timeout(Some(PATIENCE)).step("limit the time of a server")?;
    let (ask, descriptor) = receive_ask(socket).map_err(|why| Fatal::new("hear what is to be shared", why))?;
    check(&ask)?;
    let (dir, path) = place(&descriptor)?;
    let grant = policy.judge(caller, &path, &Host);
    let grant = grant.map_err(|why| Fatal::new(format!("share {}", path.display()), why))?;
    let identity = Identity::of_caller(caller, &grant.ids)?;
    let xattrmap = map(args, ask.xattrmap)?;
    let args = Args {
        xattrmap,
        shared_dir: Some(path),
        readonly: ask.readonly || grant.readonly,
        security_model: ask.model.into(),
        fmode: ask.fmode,
        dmode: ask.dmode,
        ..args.clone()
    };
    tell(&args, caller, &grant, &identity);
    Ok(Share { args, dir, identity, _slot: slot })
}

fn check(ask: &Ask) -> Started<()> {
    let step = "understand what is to be shared";
    if ask.version != VERSION {
        let why = format!("the server speaks version {}, this helper version {VERSION}", ask.version);
        return Err(Fatal::new(step, why).hint("install both from the same release"));
    }
    if [ask.fmode, ask.dmode].into_iter().flatten().any(|mode: Bits| mode.bits() > 0o777) {
        return Err(Fatal::new(step, "--fmode and --dmode must be up to 777"));
    }
    Ok(())
}

/// A caller may have names of attributes become others, as the kernel judges what comes of them by his ids; but not
/// where who runs this has said himself what they become.
fn map(args: &Args, asked: Option<MapText>) -> Started<Option<XattrMap>> {
    let step = "use the map of attributes asked for (--xattrmap)";
    match (&args.xattrmap, asked) {
        (own, None) => Ok(own.clone()),
        (Some(_), Some(_)) => {
            Err(Fatal::new(step, "the helper's own command line has one").hint("leave --xattrmap out"))
        }
        (None, Some(text)) => String::from(text).parse().map(Some).map_err(|why: BadXattrMap| Fatal::new(step, why)),
    }
}

/// The directory that a descriptor is of, by O_PATH, and where it is. Other mount namespaces have other directories at
/// the same path, so the path must lead back.
fn place(descriptor: &OwnedFd) -> Started<(OwnedFd, PathBuf)> {
    let step = "use the descriptor of the directory";
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(descriptor, c".", flags, Mode::empty()).map_err(|errno| {
        let fatal = Fatal::new(step, Errno::from(errno));
        match errno {
            rustix::io::Errno::NOTDIR => fatal.hint("pass one of a directory"),
            rustix::io::Errno::ACCESS => fatal.hint("its file system keeps root out, so no helper of root's serves it"),
            _ => fatal,
        }
    })?;
    let path = std::fs::read_link(format!("/proc/self/fd/{}", dir.as_raw_fd())).step(step)?;
    let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let found = openat2(CWD, &path, flags, Mode::empty(), resolve).map_err(Errno::from).and_then(Place::of);
    let is = Place::of(&dir).step(step)?;
    if path.is_absolute() && found == Ok(is) {
        return Ok((dir, path));
    }
    Err(Fatal::new(step, format!("another directory or none is at {} on this host", path.display()))
        .hint("it was moved or removed, is covered by a mount, or belongs to another mount namespace"))
}

/// The line for who wants to know later what was shared.
fn tell(args: &Args, caller: &Caller, grant: &Grant, identity: &Identity) {
    log::info!(
        "uid {} gid {} is given {:?}, {}, {}{}, uids {}, gids {}, by {}",
        caller.uid,
        caller.gid,
        args.shared_dir.as_deref().unwrap_or(std::path::Path::new("")),
        if args.readonly { "read-only" } else { "read-write" },
        args.security_model,
        if args.xattrmap.is_some() { ", with a map of attributes" } else { "" },
        identity.maps.uids,
        identity.maps.gids,
        grant.rule.map_or_else(|| "default".into(), |number| format!("rule {number}")),
    );
}
