//! Landlock: a second opinion of the kernel on every path, and on signals and sockets where it has one. landlock(7)
//!
//! The floor is ABI 2 (Linux 5.19): without it rename(2) and link(2) between directories cannot be allowed. Every
//! right that the running kernel knows is handled. It does not stop chmod, chown, utimensat, xattrs, ioctls, O_PATH
//! or stat: where a process may call them at all, its empty root and its ids do.

use std::fmt::{self, Display};
use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};

use crate::fatal::Fatal;
use crate::right::{Right, Rights};

/// The floor.
const FLOOR: ABI = ABI::V2;
/// The newest ABI whose rights have been looked at.
const NEWEST: ABI = ABI::V9;

/// What may be done with files; everything else may not.
#[derive(Clone, Copy, Debug)]
pub enum Allow<'a> {
    /// Nothing at all.
    Nothing,
    /// These rights in a directory and below.
    Beneath {
        /// The directory.
        dir: BorrowedFd<'a>,
        /// What the share grants.
        rights: Rights,
    },
}

impl Allow<'_> {
    fn beneath(self) -> BitFlags<AccessFs> {
        match self {
            Self::Nothing => BitFlags::empty(),
            Self::Beneath { rights, .. } => rights_beneath(rights),
        }
    }
}

/// What is in force.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    abi: ABI,
    beneath: BitFlags<AccessFs>,
}

/// What may be done beneath the share; nothing may elsewhere.
impl Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rights: Vec<_> = self.beneath.iter().map(|right| format!("{right:?}")).collect();
        let what = if rights.is_empty() { "nothing".into() } else { format!("beneath the share {}", rights.join(" ")) };
        write!(f, "{what}; elsewhere nothing (ABI {:?})", self.abi)
    }
}

/// Restricts this thread and its descendants from now on. Sets no_new_privs, which Landlock asks for.
///
/// # Errors
/// If the kernel has no Landlock, has it switched off, or has less than the floor.
pub fn enforce(allow: Allow<'_>) -> Result<Domain, Fatal> {
    let status = restrict(allow).map_err(|error| {
        fatal(error).hint("Linux 5.19 or newer with \"landlock\" among its lsm= is needed; --no-landlock goes without")
    })?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err(fatal("the kernel did not enforce it")),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => {
            let abi = ABI::from(status.landlock);
            Ok(Domain { abi, beneath: allow.beneath() & AccessFs::from_all(abi) })
        }
    }
}

/// The newest ABI all of whose rights the kernel has; nothing is restricted.
///
/// # Errors
/// As [`enforce`].
pub fn probe() -> Result<ABI, Fatal> {
    has(FLOOR).map_err(fatal)?;
    let newer = [ABI::V6, ABI::V5, ABI::V4, ABI::V3];
    Ok(newer.into_iter().find(|&abi| has(abi).is_ok()).unwrap_or(FLOOR))
}

fn has(abi: ABI) -> Result<(), landlock::RulesetError> {
    let mut wanted = Ruleset::default().set_compatibility(CompatLevel::HardRequirement);
    wanted = wanted.handle_access(AccessFs::from_all(abi))?;
    if !AccessNet::from_all(abi).is_empty() {
        wanted = wanted.handle_access(AccessNet::from_all(abi))?;
    }
    if !Scope::from_all(abi).is_empty() {
        wanted = wanted.scope(Scope::from_all(abi))?;
    }
    wanted.create().map(drop)
}

fn fatal(error: impl Display) -> Fatal {
    Fatal::new("enter a landlock domain", error)
}

fn restrict(allow: Allow<'_>) -> Result<RestrictionStatus, landlock::RulesetError> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(FLOOR))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    allowing(ruleset, allow)?.restrict_self()
}

fn allowing(ruleset: RulesetCreated, allow: Allow<'_>) -> Result<RulesetCreated, landlock::RulesetError> {
    match allow {
        Allow::Nothing => Ok(ruleset),
        Allow::Beneath { dir, rights } => ruleset.add_rule(PathBeneath::new(dir, rights_beneath(rights))),
    }
}

/// Nothing is executed in a share, no device is spoken to, no socket connected.
fn rights_beneath(rights: Rights) -> BitFlags<AccessFs> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let never = make_bitflags!(AccessFs::{Execute | IoctlDev | ResolveUnix});
    if rights.allow(Right::Write) { AccessFs::from_all(NEWEST) & !never } else { read }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_share_may_be_read_and_nothing_else() {
        let read = rights_beneath(Rights::READ);
        assert!(read.contains(AccessFs::ReadFile) && !read.contains(AccessFs::WriteFile));
        assert!((read & AccessFs::from_write(NEWEST)).is_empty());
    }

    #[test]
    fn nothing_of_a_share_may_be_executed() {
        assert!(!rights_beneath(Rights::READ_WRITE).contains(AccessFs::Execute));
        assert!(rights_beneath(Rights::READ_WRITE).contains(AccessFs::Refer));
    }
}
