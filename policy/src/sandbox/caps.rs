//! Capabilities: everything that is not on a list goes, for good. capabilities(7)

use std::fmt::Display;

use caps::{CapSet, Capability, CapsHashSet};

use crate::fatal::Fatal;
use crate::right::{Right, Rights};

/// A row of a list of capabilities.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// What is kept.
    pub capability: Capability,
    /// In shares that grant this right.
    pub right: Right,
    /// What for.
    pub why: &'static str,
}

/// The capabilities that `table` keeps in a share with `rights`.
pub fn of(table: &[Need], rights: Rights) -> Vec<Capability> {
    table.iter().filter(|need| rights.allow(need.right)).map(|need| need.capability).collect()
}

/// Keeps `list` in the permitted and effective sets, as far as it is there; inheritable and ambient sets become empty,
/// and the bounding set is cut to `list` where this process may do that (CAP_SETPCAP).
///
/// # Errors
/// If the kernel refuses.
pub fn keep(list: &[Capability]) -> Result<(), Fatal> {
    let list: CapsHashSet = list.iter().copied().collect();
    let permitted = told(caps::read(None, CapSet::Permitted))?;
    if told(caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP))? {
        for capability in told(caps::read(None, CapSet::Bounding))?.difference(&list) {
            told(caps::drop(None, CapSet::Bounding, *capability))?;
        }
    }
    told(caps::clear(None, CapSet::Ambient))?;
    told(caps::clear(None, CapSet::Inheritable))?;
    let kept = permitted.intersection(&list).copied().collect();
    told(caps::set(None, CapSet::Effective, &kept))?;
    told(caps::set(None, CapSet::Permitted, &kept))
}

fn told<T>(result: Result<T, impl Display>) -> Result<T, Fatal> {
    result.map_err(|error| Fatal::new("cut the capabilities", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_share_keeps_fewer_capabilities() {
        let need = |capability, right| Need { capability, right, why: "" };
        let table = [need(Capability::CAP_CHOWN, Right::Write), need(Capability::CAP_DAC_READ_SEARCH, Right::Read)];
        assert_eq!(of(&table, Rights::READ), [Capability::CAP_DAC_READ_SEARCH]);
        assert_eq!(of(&table, Rights::READ_WRITE).len(), 2);
    }
}
