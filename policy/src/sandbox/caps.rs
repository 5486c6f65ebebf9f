//! Capabilities: everything that is not on a list goes, for good. capabilities(7)

use std::fmt::Display;

use caps::{CapSet, Capability, CapsHashSet};

use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits};

use crate::fatal::{Fatal, Step as _};

/// A row of a list of capabilities.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// What is kept.
    pub capability: Capability,
    /// What for.
    pub why: &'static str,
}

/// Whether this process has it to keep.
pub fn is_there(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Permitted, capability).unwrap_or(false)
}

/// Keeps `list` in the permitted and effective sets, as far as it is there; inheritable and ambient sets become empty,
/// and the bounding set is cut to `list` where this process may do that (CAP_SETPCAP).
///
/// # Errors
/// If the kernel refuses.
pub fn keep(list: &[Need]) -> Result<(), Fatal> {
    bound(list)?;
    let list: CapsHashSet = list.iter().map(|need| need.capability).collect();
    let permitted = told(caps::read(None, CapSet::Permitted))?;
    told(caps::clear(None, CapSet::Ambient))?;
    told(caps::clear(None, CapSet::Inheritable))?;
    let kept = permitted.intersection(&list).copied().collect();
    told(caps::set(None, CapSet::Effective, &kept))?;
    told(caps::set(None, CapSet::Permitted, &kept))
}

/// Cuts the bounding set to `list` where this process may do that. Who is root and will be somebody else may not later.
///
/// # Errors
/// If the kernel refuses.
pub fn bound(list: &[Need]) -> Result<(), Fatal> {
    if !told(caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP))? {
        return Ok(());
    }
    let list: CapsHashSet = list.iter().map(|need| need.capability).collect();
    let bounding = told(caps::read(None, CapSet::Bounding))?;
    bounding.difference(&list).try_for_each(|capability| told(caps::drop(None, CapSet::Bounding, *capability)))
}

/// From now on capabilities do not change with user ids, nor are there any for root's.
///
/// # Errors
/// EPERM without CAP_SETPCAP.
pub fn stay() -> Result<(), Fatal> {
    let bits = CapabilitiesSecureBits::NO_SETUID_FIXUP | CapabilitiesSecureBits::NO_ROOT;
    set_capabilities_secure_bits(bits).step("keep capabilities whoever it is")
}

fn told<T>(result: Result<T, impl Display>) -> Result<T, Fatal> {
    result.map_err(|error| Fatal::new("cut the capabilities", error))
}
