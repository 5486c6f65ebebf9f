//! Acting as a user of the guest. Credentials change around a closure and nowhere else: around the making of a node,
//! which is to be his ([`run`]), or around all of an operation, which the kernel is to judge by what he is ([`alone`]).
//!
//! Only this thread's credentials change. Each change is read back; the guard exists before the first one and undoes
//! them. If it cannot, the process ends: a helper that is not sure who it is must not answer.

use std::cell::Cell;

use nix::libc;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use postern_ipc::attr::Mode;
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::{Errno, Result};
use postern_policy::sandbox::seccomp::Call;
use postern_policy::translate::{KernelGid, KernelUid, Translation};
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

/// As what a thread acts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct As {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: [Option<u32>; 2],
    /// Effective ones, as far as the thread may have them.
    pub(crate) capabilities: CapabilitySet,
}

/// What this thread is; that never changes.
#[derive(Clone, Copy)]
struct Own {
    /// It may leave groups and join others; where one id only is mapped it may not.
    groups: bool,
    capabilities: CapabilitySets,
    power: Power,
    /// Outside of any guard.
    root: As,
}

thread_local! {
    static OWN: Cell<Option<Own>> = const { Cell::new(None) };
    static NOW: Cell<Option<As>> = const { Cell::new(None) };
    /// The file mode mask, which is this thread's own (CLONE_FS) and set nowhere else, once it is set.
    static MASK: Cell<Option<Mode>> = const { Cell::new(None) };
    /// A user, not root of the guest, acts alone.
    static ALONE_NOW: Cell<bool> = const { Cell::new(false) };
}

/// Whose power the helper has over files when it acts for root of the share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Power {
    /// The kernel counts it for inodes of the map only.
    Kernel,
    /// The kernel would count it for all. It is had for one call at a time.
    Judged,
}

/// Learns, before the first request, what this thread is, and lets go of all power that is not to be had at once.
pub(crate) fn prepare(power: Power) -> Result<()> {
    let groups = set_thread_groups(&[]).is_ok();
    let (uid, gid) = (setfsuid(Uid::from_raw(ASK)).as_raw(), setfsgid(Gid::from_raw(ASK)).as_raw());
    let capabilities = capabilities(None)?;
    let held = if power == Power::Kernel { capabilities.permitted } else { BESIDE };
    let root = As { uid, gid, groups: [None; 2], capabilities: held };
    OWN.set(Some(Own { groups, capabilities, power, root }));
    NOW.set(Some(root));
    effective(held)
}

/// A user of the guest as the kernel knows him.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who {
    uid: KernelUid,
    gid: KernelGid,
    group: Option<KernelGid>,
    /// He is root in the guest as well as in the share: others with root's id have none of its power.
    root: bool,
}

impl Who {
    /// EPERM for one whom the share forbids, EOVERFLOW for one whom it has not where no kernel says so.
    fn of(uid: GuestUid, gid: GuestGid, group: Option<GuestGid>, translation: &Translation) -> Result<Self> {
        let (of, gid) = (translation.kernel_uid(uid)?, translation.kernel_gid(gid)?);
        // A group that is not mapped is nobody's: then the caller is not of it.
        let group = match group.map(|group| translation.kernel_gid(group)) {
            Some(Err(Errno::EOVERFLOW)) => None,
            group => group.transpose()?,
        };
        Ok(Self { uid: of, gid, group, root: uid == GuestUid(0) && of.0 == root()?.uid })
    }

    /// Whose it is to be what `caller` makes; `None` for whom this thread is already. Errors as for [`Self::of`].
    pub(crate) fn makes(caller: Caller, translation: &Translation) -> Result<Option<Self>> {
        match caller {
            Caller::Root => Self::of(GuestUid(0), GuestGid(0), None, translation).map(Some),
            Caller::User { uid, gid, group } => Self::of(uid, gid, group, translation).map(Some),
            Caller::Alone { .. } => Ok(None),
        }
    }
}

/// What whoever makes a node has besides what he is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Making {
    pub(crate) capabilities: CapabilitySet,
    /// The same, if permission bits stand in the way.
    pub(crate) if_refused: Option<CapabilitySet>,
    /// A group that root of the guest is of.
    pub(crate) roots_group: Option<u32>,
}

/// Does `act` as `who`, if this thread is not what is to act, with `mask` as file mode mask. EOVERFLOW if his ids have
/// no host id.
pub(crate) fn run<T>(who: Option<Who>, mask: Mode, making: Making, act: impl Fn() -> Result<T>) -> Result<T> {
    if MASK.replace(Some(mask)) != Some(mask) {
        umask(rustix::fs::Mode::from_raw_mode(mask.bits()));
    }
    let Some(Who { uid, gid, group, root }) = who else { return act() };
    let own = own()?;
    let group = group.map(|group| group.0).filter(|group| own.groups && *group != ASK);
    let kept = |capabilities: CapabilitySet| if root { capabilities } else { capabilities.intersection(OVERRIDE) };
    let groups = [group, making.roots_group.filter(|_| root)];
    let who = As { uid: uid.0, gid: gid.0, groups, capabilities: kept(making.capabilities) };
    match (acting(who, &act), making.if_refused) {
        (Err(Errno::EACCES), Some(more)) => acting(As { capabilities: kept(more), ..who }, act),
        (made, _) => made,
    }
}

/// Does all of an operation as `caller`, if he is to be judged by the kernel. EOVERFLOW as for [`run`]; EPERM for one
/// whom the share forbids.
pub(crate) fn alone<T>(caller: Caller, translation: &Translation, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let Caller::Alone { uid, gid } = caller else { return act() };
    let Who { uid, gid, root, .. } = Who::of(uid, gid, None, translation)?;
    let capabilities = if root { own()?.root.capabilities } else { CapabilitySet::empty() };
    let alone = || {
        ALONE_NOW.set(!root);
        let done = act();
        ALONE_NOW.set(false);
        done
    };
    acting(As { uid: uid.0, gid: gid.0, groups: [None; 2], capabilities }, alone)
}

/// Whether a user, not root of the guest, acts alone: then the kernel judges him, and nobody else does.
pub(crate) fn is_alone() -> bool {
    ALONE_NOW.get()
}

/// Does what the share's own rules want and no user asked for, whoever acts.
pub(crate) fn for_the_share<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    if !ALONE_NOW.replace(false) {
        return act();
    }
    let done = root().and_then(|root| acting(As { gid: now()?.gid, ..root }, act));
    ALONE_NOW.set(true);
    done
}

/// What this thread is outside of any guard.
pub(crate) fn root() -> Result<As> {
    Ok(own()?.root)
}

/// The same, of the group that root of the guest acts as one of.
pub(crate) fn plain() -> Result<As> {
    Ok(As { gid: now()?.gid, ..root()? })
}

fn own() -> Result<Own> {
    OWN.get().ok_or(Errno::EPERM)
}

fn now() -> Result<As> {
    NOW.get().ok_or(Errno::EPERM)
}

/// Does `act` as `who`.
pub(crate) fn acting<T>(who: As, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let _back = Back(now()?);
    become_(who)?;
    act()
}

/// Undoes what has been done so far.
struct Back(As);

impl Drop for Back {
    fn drop(&mut self) {
        if become_(self.0).is_err() {
            log::error!("cannot be again what it was before it acted as a user: giving up");
            std::process::abort();
        }
    }
}

/// Groups come first, because only a user's capabilities change with his id: what gives ids is then still there, or not
/// needed, as on the way back to the thread's own.
fn become_(who: As) -> Result<()> {
    let mut is = now()?;
    if who.groups != is.groups {
        join(who.groups)?;
        is.groups = who.groups;
        NOW.set(Some(is));
    }
    if who.gid != is.gid {
        as_group(who.gid)?;
        is.gid = who.gid;
        NOW.set(Some(is));
    }
    if who.uid == is.uid && who.capabilities == is.capabilities {
        return Ok(());
    }
    if who.uid != is.uid {
        as_user(who.uid)?;
        is.uid = who.uid;
        NOW.set(Some(is));
    }
    effective(who.capabilities)?;
    NOW.set(Some(who));
    Ok(())
}

/// A group that is not mapped is nobody's: then nobody is of it.
fn join(groups: [Option<u32>; 2]) -> Result<()> {
    let groups: Vec<RawGid> = groups.into_iter().flatten().map(RawGid::from_raw).collect();
    match set_thread_groups(&groups) {
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

fn as_user(uid: u32) -> Result<()> {
    setfsuid(Uid::from_raw(uid));
    if setfsuid(Uid::from_raw(ASK)).as_raw() == uid { Ok(()) } else { Err(refused(CapabilitySet::SETUID)) }
}

/// What a user keeps whom the guest's kernel has let pass: identity decides who owns the new file, not who may make it.
const OVERRIDE: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(BESIDE);
/// What is no power over files, but the way back.
const BESIDE: CapabilitySet = CapabilitySet::SETUID.union(CapabilitySet::SETGID);

fn effective(wanted: CapabilitySet) -> Result<()> {
    let sets = own()?.capabilities;
    Ok(set_capabilities(None, CapabilitySets { effective: sets.permitted.intersection(wanted), ..sets })?)
}

/// Whether this thread has the privilege to keep set-id bits (`--modcaps`), or the owner puts them back.
pub(crate) fn keeps_setid() -> bool {
    has(CapabilitySet::FSETID) || OWN.get().is_some_and(|own| own.power == Power::Judged)
}

/// Does `act` without the privilege to keep set-id bits, so that the kernel takes them away. chmod(2), write(2)
pub(crate) fn without_fsetid<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    let now = now()?;
    acting(As { capabilities: now.capabilities.difference(CapabilitySet::FSETID), ..now }, act)
}
