//! Acting as a user of the guest. Credentials change around a closure and nowhere else: around the making of a node,
//! which is to be his ([`run`]), or around all of an operation, which the kernel is to judge by what he is ([`alone`]).
//!
//! Only this thread's credentials change. Each change is read back; the guard exists before the first one and undoes
//! in reverse. If it cannot, the process ends: a helper that is not sure who it is must not answer.

use std::cell::Cell;

use nix::libc;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use postern_ipc::attr::Mode;
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::{Errno, Result};
use postern_policy::sandbox::seccomp::Call;
use postern_policy::translate::{ShareGid, ShareUid, Translation};
use rustix::process::{Gid as RawGid, umask};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups};

/// Not an id: asks who one is. setfsuid(2)
const ASK: u32 = u32::MAX;

/// What acting alone calls, in any share.
pub(crate) const ALONE: &[Call] = &[
    Call::any(libc::SYS_setfsuid, "the kernel judges a user by what he is"),
    Call::any(libc::SYS_setfsgid, "and by his group"),
    Call::any(libc::SYS_capset, "and not by the helper's privileges"),
];

/// What making something for somebody calls.
pub(crate) const CALLS: &[Call] = &[
    Call::any(libc::SYS_setgroups, "a set-group-id directory asks whether the caller is of its group"),
    Call::any(libc::SYS_umask, "bits the new file must not have, unless a default ACL decides"),
];

/// What this thread is outside of any guard; that never changes.
#[derive(Clone, Copy)]
struct Own {
    /// It may leave groups and join others; where one id only is mapped it may not.
    groups: bool,
    capabilities: CapabilitySets,
}

thread_local! {
    static OWN: Cell<Option<Own>> = const { Cell::new(None) };
    /// The user, not root of the guest, as whom this thread acts alone.
    static ALONE_AS: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Learns, before the first request, what this thread is.
pub(crate) fn prepare() -> Result<()> {
    let groups = set_thread_groups(&[]).is_ok();
    OWN.set(Some(Own { groups, capabilities: capabilities(None)? }));
    Ok(())
}

/// A user of the guest as the share knows him.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    uid: ShareUid,
    gid: ShareGid,
    group: Option<ShareGid>,
    /// He is root in the guest as well as in the share: others with root's id have none of its power.
    root: bool,
}

impl Who {
    /// EPERM for one whom the share forbids.
    fn of(uid: GuestUid, gid: GuestGid, group: Option<GuestGid>, translation: &Translation) -> Result<Self> {
        let (of, gid) = (translation.uid(uid)?, translation.gid(gid)?);
        let group = group.map(|group| translation.gid(group)).transpose()?;
        Ok(Self { uid: of, gid, group, root: uid == GuestUid(0) && of == ShareUid(0) })
    }

    /// Whose it is to be what `caller` makes; `None` for whom this thread is already. EPERM as for [`Self::of`].
    pub(crate) fn makes(caller: Caller, translation: &Translation) -> Result<Option<Self>> {
        match caller {
            Caller::Root => Self::of(GuestUid(0), GuestGid(0), None, translation).map(Some),
            Caller::User { uid, gid, group } => Self::of(uid, gid, group, translation).map(Some),
            Caller::Alone { .. } => Ok(None),
        }
    }
}

/// Does `act` as `who`, if this thread is not what is to act, with `mask` as file mode mask. EOVERFLOW if his ids have
/// no host id.
pub(crate) fn run<T>(who: Option<Who>, mask: Mode, act: impl FnOnce() -> Result<T>) -> Result<T> {
    umask(rustix::fs::Mode::from_raw_mode(mask.bits()));
    let _back = who.map(|who| Identity::become_(who, OVERRIDE)).transpose()?;
    act()
}

/// Does all of an operation as `caller`, if he is to be judged by the kernel. EOVERFLOW as for [`run`]; EPERM for one
/// whom the share forbids.
pub(crate) fn alone<T>(caller: Caller, translation: &Translation, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let Caller::Alone { uid, gid } = caller else { return act() };
    let who = Who::of(uid, gid, None, translation)?;
    let _back = Identity::become_(who, CapabilitySet::empty())?;
    ALONE_AS.set((!who.root).then_some(who.uid.0));
    let done = act();
    ALONE_AS.set(None);
    done
}

/// Does what the share's own rules want and no user asked for, whoever acts.
pub(crate) fn for_the_share<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    let Some(uid) = ALONE_AS.get() else { return act() };
    as_root()?;
    let done = act();
    if as_user(uid, CapabilitySet::empty()).is_err() {
        give_up("be a user again after acting for the share");
    }
    done
}

/// Undoes in reverse what has been done so far.
struct Identity {
    uid: bool,
    gid: bool,
    groups: bool,
}

impl Identity {
    /// With no more than `kept` of root's power over files; root keeps all.
    fn become_(who: Who, kept: CapabilitySet) -> Result<Self> {
        let mut back = Self { uid: false, gid: false, groups: false };
        if let Some(group) = who.group.filter(|_| OWN.get().is_some_and(|own| own.groups)) {
            back.groups = true;
            join(group.0)?;
        }
        if who.gid.0 != 0 {
            back.gid = true;
            as_group(who.gid.0)?;
        }
        if !who.root {
            back.uid = true;
            as_user(who.uid.0, kept)?;
        }
        Ok(back)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let undone = (!self.uid || as_root().is_ok())
            && (!self.gid || as_group(0).is_ok())
            && (!self.groups || set_thread_groups(&[]).is_ok());
        if !undone {
            give_up("be root of the share again after acting as a user");
        }
    }
}

/// Who is not sure who he is must not answer.
fn give_up(what: &str) -> ! {
    log::error!("cannot {what}: giving up");
    std::process::abort();
}

/// A group that is not mapped is nobody's: then the caller is not of it.
fn join(group: u32) -> Result<()> {
    let group = if group == ASK { return Ok(()) } else { RawGid::from_raw(group) };
    match set_thread_groups(&[group]) {
        Err(rustix::io::Errno::INVAL) => Ok(()),
        joined => Ok(joined?),
    }
}

fn as_group(gid: u32) -> Result<()> {
    setfsgid(Gid::from_raw(gid));
    if setfsgid(Gid::from_raw(ASK)).as_raw() == gid { Ok(()) } else { Err(refused(CapabilitySet::SETGID)) }
}

fn has(power: CapabilitySet) -> bool {
    OWN.get().is_some_and(|own| own.capabilities.permitted.contains(power))
}

/// Why this thread does not become somebody: he has no id here, or it has not the power to be others (`--modcaps`).
fn refused(power: CapabilitySet) -> Errno {
    if has(power) { Errno::EOVERFLOW } else { Errno::EPERM }
}

/// What a user keeps whom the guest's kernel has let pass: identity decides who owns the new file, not who may make it.
const OVERRIDE: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(BESIDE);
/// What is no power over files, but the way back.
const BESIDE: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);

fn as_user(uid: u32, kept: CapabilitySet) -> Result<()> {
    setfsuid(Uid::from_raw(uid));
    if setfsuid(Uid::from_raw(ASK)).as_raw() != uid {
        return Err(refused(CapabilitySet::SETUID));
    }
    effective(|permitted| permitted.intersection(kept))
}

/// Back to root, whose id this thread has never given up; nothing else is needed for that.
fn as_root() -> Result<()> {
    setfsuid(Uid::from_raw(0));
    if setfsuid(Uid::from_raw(ASK)).as_raw() != 0 {
        return Err(Errno::EOVERFLOW);
    }
    effective(|permitted| permitted)
}

fn effective(choose: impl FnOnce(CapabilitySet) -> CapabilitySet) -> Result<()> {
    let sets = OWN.get().ok_or(Errno::EPERM)?.capabilities;
    Ok(set_capabilities(None, CapabilitySets { effective: choose(sets.permitted), ..sets })?)
}

/// Whether this thread has the privilege to keep set-id bits (`--modcaps`).
pub(crate) fn keeps_setid() -> bool {
    has(CapabilitySet::FSETID)
}

/// Does `act` without the privilege to keep set-id bits, so that the kernel takes them away. chmod(2), write(2)
pub(crate) fn without_fsetid<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    if ALONE_AS.get().is_some() {
        return act();
    }
    effective(|permitted| permitted.difference(CapabilitySet::FSETID))?;
    let done = act();
    if effective(|permitted| permitted).is_err() {
        give_up("have CAP_FSETID again");
    }
    done
}
