//! The power that root of the share has over its nodes.
//!
//! In a user namespace the kernel bounds it: a capability counts for an inode only if its owner and group are mapped.
//! In the initial one (`--identity=soft`) it would count for all. There the helper has none but for one call at a time,
//! and acts as root's id does; what more is to be done to a node, its owner does if he and the group are mapped:
//!
//! - whoever is mapped may do what he may do without any capability, so the kernel judges such a call, at the moment
//!   that it is made and on the inode that it is made on;
//! - reading, writing and searching against permission bits (CAP_DAC_OVERRIDE), giving away (CAP_CHOWN) and setting
//!   file capabilities (CAP_SETFCAP) nobody may without: these are had, the first once it was refused without, for one
//!   call in which they count for no inode but such as are held by descriptors, and only if all of these are mapped;
//! - CAP_FOWNER and CAP_FSETID are not had at all.

use std::os::fd::AsFd;

use postern_ipc::attr::Attr;
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};
use postern_policy::idmap::IdMaps;
use rustix::thread::CapabilitySet;

use crate::caller::{self, As, Making, acting};
use crate::names::{ACLS, CAPABILITY};
use crate::pin::Pin;
use crate::share::Share;

/// What reads, writes and searches whatever permission bits say.
const BITS: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::DAC_READ_SEARCH);

/// As whom a thread acts for root of the share, with no power but to become others.
fn plain() -> Result<As> {
    caller::plain()
}

fn with(who: As, capabilities: CapabilitySet) -> As {
    As { capabilities: who.capabilities.union(capabilities), ..who }
}

/// Does `act` as `who`, and against permission bits only if they stand in the way.
fn against<T>(who: As, bits: CapabilitySet, mut act: impl FnMut() -> Result<T>) -> Result<T> {
    match acting(who, &mut act) {
        Err(Errno::EACCES) if !bits.is_empty() => acting(with(who, bits), act),
        done => done,
    }
}

impl Share {
    /// The map, if it is not the kernel that judges what this thread does.
    fn judged(&self) -> Option<&IdMaps> {
        self.translation.map().filter(|_| !caller::is_alone())
    }

    /// Does `act` to a node, as root of the share, whatever its permission bits say.
    pub(crate) fn over<T>(&self, node: impl AsFd, mut act: impl FnMut() -> Result<T>) -> Result<T> {
        let Some(maps) = self.judged() else { return act() };
        let owner = Owner::of(&Attr::of(node)?, maps)?;
        against(owner.mapped.map_or_else(plain, Ok)?, owner.bits(), act)
    }

    /// Does `act` to a node, as root of the share with a capability that nothing stands in for, and as one of a group.
    pub(crate) fn over_with<T>(
        &self,
        node: impl AsFd,
        more: CapabilitySet,
        group: Option<u32>,
        act: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(maps) = self.judged() else { return act() };
        match Owner::of(&Attr::of(node)?, maps)?.mapped {
            Some(owner) => acting(As { groups: [group, None], ..with(owner, more) }, act),
            None => acting(plain()?, act),
        }
    }

    /// Does `act` to a node, which is its owner's to do. CAP_FOWNER asks for his id only, and for no group's.
    pub(crate) fn owning<T>(&self, node: impl AsFd, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let Some(maps) = self.judged() else { return act() };
        let owner = Owner::of(&Attr::of(node)?, maps)?;
        acting(owner.mapped.or(owner.user).map_or_else(plain, Ok)?, act)
    }

    /// Does `act`, which changes an attribute of a node, as root of the share: ACLs are its owner's to change, others
    /// of who may write, and for file capabilities nothing stands in. capabilities(7): CAP_SETFCAP
    pub(crate) fn changing<T>(&self, node: impl AsFd, name: &[u8], act: impl FnMut() -> Result<T>) -> Result<T> {
        match name {
            CAPABILITY => self.over_with(node, CapabilitySet::SETFCAP, None, act),
            name if ACLS.contains(&name) => self.owning(node, act),
            _ => self.over(node, act),
        }
    }

    /// Does `act`, which looks a name up in a directory, as root of the share.
    pub(crate) fn through<T>(&self, dir: impl AsFd, mut act: impl FnMut() -> Result<T>) -> Result<T> {
        let Some(maps) = self.judged() else { return act() };
        let dir = Owner::of(&Attr::of(dir)?, maps)?;
        against(plain()?, dir.bits(), act)
    }

    /// The same for `act` that makes a node.
    pub(crate) fn making_as_root<T>(&self, dir: impl AsFd, mut act: impl FnMut() -> Result<T>) -> Result<T> {
        let Some(maps) = self.judged() else { return act() };
        let dir = Owner::of(&Attr::of(dir)?, maps)?;
        let groups = [None, dir.mapped.map(|owner| owner.gid)];
        against(As { groups, ..plain()? }, dir.bits(), act)
    }

    /// What is had for making a node in a directory.
    pub(crate) fn making(&self, dir: impl AsFd) -> Result<Making> {
        let root = caller::root()?;
        let had = Making { capabilities: root.capabilities, if_refused: None, roots_group: None };
        let Some(maps) = self.judged() else { return Ok(had) };
        let dir = Owner::of(&Attr::of(dir)?, maps)?;
        let if_refused = dir.mapped.map(|_| root.capabilities.union(BITS));
        Ok(Making { if_refused, roots_group: dir.mapped.map(|owner| owner.gid), ..had })
    }

    /// Does `act`, which removes a name from a directory, as root of the share.
    pub(crate) fn removing<T>(&self, dir: &Pin, name: &FileName, act: impl Fn() -> Result<T>) -> Result<T> {
        self.naming([(dir, name)], true, act)
    }

    /// Does `act`, which moves one name to another or exchanges them, as root of the share. Who moves a directory to
    /// another one writes to it, whatever is there when the name is looked up: between directories nobody has any
    /// capability. EXDEV where none of their owners may do it for root, who could with one.
    pub(crate) fn moving<T>(
        &self,
        old: (&Pin, &FileName),
        new: (&Pin, &FileName),
        owners_may: bool,
        act: impl Fn() -> Result<T>,
    ) -> Result<T> {
        self.naming([old, new], owners_may, act)
    }

    /// Does `act`, which gives a node a name in a directory, as root of the share.
    pub(crate) fn linking<T>(&self, node: &Pin, dir: &Pin, act: impl Fn() -> Result<T>) -> Result<T> {
        let Some(maps) = self.judged() else { return act() };
        let (node, dir) = (Owner::of(&Attr::of(node)?, maps)?, Owner::of(&Attr::of(dir)?, maps)?);
        let bits = if node.mapped.is_some() { dir.bits() } else { CapabilitySet::empty() };
        match (against(plain()?, bits, &act), node.user) {
            (Err(Errno::EPERM), Some(owner)) => against(owner, bits, act),
            (done, _) => done,
        }
    }

    /// As root first; then, if all that is named is mapped, as one owner after the other: a sticky directory asks who
    /// that is.
    fn naming<T, const N: usize>(
        &self,
        names: [(&Pin, &FileName); N],
        owners_may: bool,
        act: impl Fn() -> Result<T>,
    ) -> Result<T> {
        let Some(maps) = self.judged() else { return act() };
        let dirs = names.map(|(dir, _)| Attr::of(dir));
        let dirs = dirs.into_iter().collect::<Result<Vec<Attr>>>()?;
        let one = dirs.windows(2).all(|pair| matches!(pair, [a, b] if a.id == b.id));
        let owners = dirs.iter().map(|dir| Owner::of(dir, maps)).collect::<Result<Vec<Owner>>>()?;
        let all_mapped = owners.iter().all(|dir| dir.mapped.is_some());
        let bits = if one && all_mapped { BITS } else { CapabilitySet::empty() };
        let refused = match against(plain()?, bits, &act) {
            Err(Errno::EPERM) if owners_may && (all_mapped || one) => Errno::EPERM,
            Err(Errno::EACCES) if owners_may && all_mapped && !one => Errno::EACCES,
            done => return done,
        };
        let named = |(dir, name): &(&Pin, &FileName)| match self.through(dir, || Attr::of_entry(*dir, name)) {
            Err(Errno::ENOENT) => Ok(None),
            found => Owner::of(&found?, maps).map(Some),
        };
        let named = names.iter().filter_map(|name| named(name).transpose()).collect::<Result<Vec<Owner>>>()?;
        let root = plain()?.uid;
        if named.iter().any(|owner| owner.mapped.is_none() && owner.user.is_none_or(|user| user.uid != root)) {
            return Err(refused);
        }
        let mut groups = owners.iter().filter_map(|dir| dir.mapped.map(|owner| owner.gid));
        let groups = [groups.next(), groups.next()];
        let mut denied = refused == Errno::EACCES;
        for owner in named.iter().chain(&owners).filter_map(|owner| owner.mapped) {
            match against(As { groups, ..owner }, bits, &act) {
                Err(Errno::EACCES) => denied = true,
                Err(Errno::EPERM) => {}
                done => return done,
            }
        }
        Err(match denied {
            true if !one && all_mapped => Errno::EXDEV,
            true => Errno::EACCES,
            false => refused,
        })
    }
}

/// Whose a node is: as whom to act.
struct Owner {
    /// As its owner, if he is mapped.
    user: Option<As>,
    /// The same and as one of its group, if both are mapped.
    mapped: Option<As>,
}

impl Owner {
    fn of(attr: &Attr, maps: &IdMaps) -> Result<Self> {
        let (uid, gid) = (attr.uid.0, attr.gid.0);
        let user = maps.uids.inward(uid).map(|_| Ok::<_, Errno>(As { uid, ..plain()? })).transpose()?;
        let mapped = user.filter(|_| maps.gids.inward(gid).is_some()).map(|user| As { gid, ..user });
        Ok(Self { user, mapped })
    }

    /// What its permission bits do not stand in the way of.
    fn bits(&self) -> CapabilitySet {
        if self.mapped.is_some() { BITS } else { CapabilitySet::empty() }
    }
}
