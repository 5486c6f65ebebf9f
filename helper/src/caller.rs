//! Acting as a user of the guest. Credentials change around a closure and nowhere else.
//!
//! Only this thread's credentials change. Each change is read back; the guard exists before the first one and undoes
//! in reverse. If it cannot, the process ends: a helper that is not sure who it is must not answer.

use std::cell::Cell;

use nix::libc;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use postern_ipc::attr::Mode;
use postern_ipc::id::Caller;
use postern_ipc::{Errno, Result};
use postern_policy::sandbox::seccomp::Call;
use rustix::process::{Gid as RawGid, umask};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups};

/// The kernel takes these away from a thread whose file system uid leaves 0 and gives them back when it returns.
/// capabilities(7): "Effect of user ID changes on capabilities"
const OF_ROOT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::MAC_OVERRIDE)
    .union(CapabilitySet::MKNOD);

/// Not an id: asks who one is. setfsuid(2)
const ASK: u32 = u32::MAX;

/// What acting as somebody calls.
pub(crate) const CALLS: &[Call] = &[
    Call::any(libc::SYS_setfsuid, "the new file is the caller's"),
    Call::any(libc::SYS_setfsgid, "the new file is of the caller's group"),
    Call::any(libc::SYS_setgroups, "a set-group-id directory asks whether the caller is of its group"),
    Call::any(libc::SYS_umask, "bits the new file must not have, unless a default ACL decides"),
    Call::any(libc::SYS_capset, "the guest's kernel has judged the permission already"),
];

/// What acting without CAP_FSETID calls.
pub(crate) const FSETID_CALL: Call =
    Call::any(libc::SYS_capset, "set-id bits are to go, as they do for a user without privileges");

/// What this thread is outside of any guard; that never changes.
#[derive(Clone, Copy)]
struct Own {
    /// It may leave groups and join others; where one id only is mapped it may not.
    groups: bool,
    capabilities: CapabilitySets,
}

thread_local! {
    static OWN: Cell<Option<Own>> = const { Cell::new(None) };
}

/// Learns, before the first request, what this thread is.
pub(crate) fn prepare() -> Result<()> {
    let groups = set_thread_groups(&[]).is_ok();
    OWN.set(Some(Own { groups, capabilities: capabilities(None)? }));
    Ok(())
}

/// Does `act` as `caller`, with `mask` as file mode mask. EOVERFLOW if the caller's ids have no host id.
pub(crate) fn run<T>(caller: Caller, mask: Mode, act: impl FnOnce() -> Result<T>) -> Result<T> {
    umask(rustix::fs::Mode::from_raw_mode(mask.bits()));
    let _back = Identity::become_(caller)?;
    act()
}

/// Undoes in reverse what has been done so far.
struct Identity {
    uid: bool,
    gid: bool,
    groups: bool,
}

impl Identity {
    fn become_(caller: Caller) -> Result<Self> {
        let mut back = Self { uid: false, gid: false, groups: false };
        let Caller::User { uid, gid, group } = caller else { return Ok(back) };
        if let Some(group) = group.filter(|_| OWN.get().is_some_and(|own| own.groups)) {
            back.groups = true;
            join(group.0)?;
        }
        if gid.0 != 0 {
            back.gid = true;
            as_group(gid.0)?;
        }
        if uid.0 != 0 {
            back.uid = true;
            as_user(uid.0)?;
        }
        Ok(back)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        let undone = (!self.uid || as_user(0).is_ok())
            && (!self.gid || as_group(0).is_ok())
            && (!self.groups || set_thread_groups(&[]).is_ok());
        if !undone {
            log::error!("cannot be root of the share again after acting as a user: giving up");
            std::process::abort();
        }
    }
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
    if setfsgid(Gid::from_raw(ASK)).as_raw() == gid { Ok(()) } else { Err(Errno::EOVERFLOW) }
}

/// A user who is not root keeps the right to pass where the guest's kernel let him: identity decides who owns the new
/// file, not who may make it.
fn as_user(uid: u32) -> Result<()> {
    setfsuid(Uid::from_raw(uid));
    if setfsuid(Uid::from_raw(ASK)).as_raw() != uid {
        return Err(Errno::EOVERFLOW);
    }
    if uid == 0 {
        Ok(())
    } else {
        effective(|permitted| permitted.difference(OF_ROOT).union(CapabilitySet::DAC_OVERRIDE))
    }
}

fn effective(choose: impl FnOnce(CapabilitySet) -> CapabilitySet) -> Result<()> {
    let sets = OWN.get().ok_or(Errno::EPERM)?.capabilities;
    Ok(set_capabilities(None, CapabilitySets { effective: choose(sets.permitted), ..sets })?)
}

/// Does `act` without the privilege to keep set-id bits, so that the kernel takes them away. chmod(2), write(2)
pub(crate) fn without_fsetid<T>(act: impl FnOnce() -> Result<T>) -> Result<T> {
    effective(|permitted| permitted.difference(CapabilitySet::FSETID))?;
    let done = act();
    if effective(|permitted| permitted).is_err() {
        log::error!("cannot have CAP_FSETID again: giving up");
        std::process::abort();
    }
    done
}
