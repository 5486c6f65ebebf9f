//! Ids of the guest that are others in the share, and the reverse, on top of the share's map.
//!
//! In a user namespace the kernel applies the map; in the initial one this does ([`Translation::mapped`]).
//!
//! Written by people as virtiofsd has it, `KIND:FROM:TO:COUNT` with any delimiter, once per range. What a guest asks
//! for goes one way and is a law; what it is shown goes the other way and is a convenience.

use std::fmt;
use std::str::FromStr;

use postern_ipc::id::{GuestGid, GuestUid};
use postern_ipc::span::{BadSpans, Becomes, Shown, Span, Spans};
use postern_ipc::{Errno, Result};

use crate::idmap::IdMaps;

/// Whom an unmapped id is shown as. Linux: overflowuid
const NOBODY: u32 = 65534;

/// A user id of the share: what its map takes as its inner side.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShareUid(pub u32);

/// A group id of the share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShareGid(pub u32);

/// A user id as the system calls of the helper take it: the share's in a user namespace, in the initial one the host's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KernelUid(pub u32);

/// A group id as they take it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KernelGid(pub u32);

/// What a range is of, and what it becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Guest,
    Host,
    SquashGuest,
    SquashHost,
    ForbidGuest,
    Map,
}

/// The kinds as people write them.
const KINDS: [(&str, Kind); 6] = [
    ("guest", Kind::Guest),
    ("host", Kind::Host),
    ("squash-guest", Kind::SquashGuest),
    ("squash-host", Kind::SquashHost),
    ("forbid-guest", Kind::ForbidGuest),
    ("map", Kind::Map),
];

/// One range and its kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    kind: Kind,
    from: u32,
    /// Nothing where a range is forbidden.
    to: u32,
    count: u32,
}

/// Why something is no range.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadRule(String);

impl fmt::Display for BadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" is none of ", self.0)?;
        let pattern = |kind| if kind == Kind::ForbidGuest { ":FROM:COUNT" } else { ":FROM:TO:COUNT" };
        KINDS.iter().enumerate().try_for_each(|(index, (name, kind))| {
            write!(f, "{}{name}{}", if index == 0 { "" } else { ", " }, pattern(*kind))
        })
    }
}

impl std::error::Error for BadRule {}

impl FromStr for Rule {
    type Err = BadRule;

    /// The delimiter is what follows the kind.
    fn from_str(text: &str) -> std::result::Result<Self, BadRule> {
        Self::parse(text).ok_or_else(|| BadRule(text.into()))
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let delimiter = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_".contains(*c))?;
        let mut fields = text.split(delimiter);
        let name = fields.next()?;
        let (_, kind) = *KINDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        let digits = |field: &&str| field.bytes().all(|byte| byte.is_ascii_digit());
        let numbers: Vec<u32> =
            fields.map(|field| Some(field).filter(digits)?.parse().ok()).collect::<Option<Vec<_>>>()?;
        match (kind, &numbers[..]) {
            (Kind::ForbidGuest, &[from, count]) => Some(Self { kind, from, to: 0, count }),
            (Kind::ForbidGuest, _) => None,
            (_, &[from, to, count]) => Some(Self { kind, from, to, count }),
            _ => None,
        }
    }

    /// What it makes of the guest's ids.
    fn outward(self) -> Option<Span> {
        let becomes = match self.kind {
            Kind::Guest | Kind::Map => Becomes::From(self.to),
            Kind::SquashGuest => Becomes::One(self.to),
            Kind::ForbidGuest => Becomes::Nobody,
            Kind::Host | Kind::SquashHost => return None,
        };
        Some(Span { first: self.from, count: self.count, becomes })
    }

    /// What it shows of the share's.
    fn inward(self) -> Option<Span> {
        let (first, becomes) = match self.kind {
            Kind::Host => (self.from, Becomes::From(self.to)),
            Kind::SquashHost => (self.from, Becomes::One(self.to)),
            Kind::Map => (self.to, Becomes::From(self.from)),
            Kind::Guest | Kind::SquashGuest | Kind::ForbidGuest => return None,
        };
        Some(Span { first, count: self.count, becomes })
    }

    /// The first id of the share that it makes the guest's.
    pub fn target(self) -> Option<u32> {
        matches!(self.kind, Kind::Guest | Kind::Map | Kind::SquashGuest).then_some(self.to)
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, from, to, count } = self;
        let name = KINDS.iter().find(|(_, known)| known == kind).map_or("", |(name, _)| name);
        match kind {
            Kind::ForbidGuest => write!(f, "{name}:{from}:{count}"),
            _ => write!(f, "{name}:{from}:{to}:{count}"),
        }
    }
}

/// Both ways of users or groups.
struct Ways {
    outward: Spans,
    inward: Spans,
}

impl Ways {
    fn new(rules: &[Rule]) -> std::result::Result<Self, BadSpans> {
        Ok(Self {
            outward: Spans::new(rules.iter().filter_map(|rule| rule.outward()).collect())?,
            inward: Spans::new(rules.iter().filter_map(|rule| rule.inward()).collect())?,
        })
    }
}

/// How the ids of one share are translated. Of an id that no range has, nothing becomes another.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Translation {
    uids: Spans,
    gids: Spans,
    shown: Shown,
    map: Option<Mapped>,
}

/// The share's map, where no kernel applies it.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Mapped {
    maps: IdMaps,
    /// The host's ids as the guest sees them.
    shown: Shown,
}

impl Translation {
    /// By these ranges.
    ///
    /// # Errors
    /// Says which range is empty, too long or overlapping.
    pub fn new(users: &[Rule], groups: &[Rule]) -> std::result::Result<Self, BadSpans> {
        let (users, groups) = (Ways::new(users)?, Ways::new(groups)?);
        let shown = Shown { uids: users.inward, gids: groups.inward };
        Ok(Self { uids: users.outward, gids: groups.outward, shown, map: None })
    }

    /// The same in the initial namespace, where ids are the host's.
    ///
    /// # Errors
    /// If map and ranges together are too many ranges.
    pub fn mapped(self, maps: IdMaps) -> std::result::Result<Self, BadSpans> {
        let shown = Shown {
            uids: maps.uids.shown(NOBODY)?.then(&self.shown.uids)?,
            gids: maps.gids.shown(NOBODY)?.then(&self.shown.gids)?,
        };
        Ok(Self { map: Some(Mapped { maps, shown }), ..self })
    }

    /// The map that no kernel applies.
    pub fn map(&self) -> Option<&IdMaps> {
        self.map.as_ref().map(|map| &map.maps)
    }

    /// Nothing becomes anything else.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Who a user of the guest is in the share.
    ///
    /// # Errors
    /// EPERM for whom it forbids.
    pub fn uid(&self, uid: GuestUid) -> Result<ShareUid> {
        self.uids.of(uid.0).map(ShareUid).ok_or(Errno::EPERM)
    }

    /// The same of groups.
    ///
    /// # Errors
    /// EPERM for one that it forbids.
    pub fn gid(&self, gid: GuestGid) -> Result<ShareGid> {
        self.gids.of(gid.0).map(ShareGid).ok_or(Errno::EPERM)
    }

    /// Who that is for the kernel.
    ///
    /// # Errors
    /// EPERM as for [`Self::uid`]; EOVERFLOW for whom the map has not, where no kernel says so.
    pub fn kernel_uid(&self, uid: GuestUid) -> Result<KernelUid> {
        let uid = self.uid(uid)?;
        let mapped = |map: &IdMaps| map.host_uid(uid).map(|uid| uid.0).ok_or(Errno::EOVERFLOW);
        self.map().map_or(Ok(uid.0), mapped).map(KernelUid)
    }

    /// The same of groups.
    ///
    /// # Errors
    /// As for [`Self::kernel_uid`].
    pub fn kernel_gid(&self, gid: GuestGid) -> Result<KernelGid> {
        let gid = self.gid(gid)?;
        let mapped = |map: &IdMaps| map.host_gid(gid).map(|gid| gid.0).ok_or(Errno::EOVERFLOW);
        self.map().map_or(Ok(gid.0), mapped).map(KernelGid)
    }

    /// A user of the kernel's as the guest sees him; `None` where the map has none.
    pub fn user(&self, KernelUid(uid): KernelUid) -> Option<u32> {
        let share = self.map().map_or(Some(uid), |map| map.uids.inward(uid));
        share.and_then(|uid| self.shown.uids.of(uid))
    }

    /// The same of groups.
    pub fn group(&self, KernelGid(gid): KernelGid) -> Option<u32> {
        let share = self.map().map_or(Some(gid), |map| map.gids.inward(gid));
        share.and_then(|gid| self.shown.gids.of(gid))
    }

    /// How the guest sees what the kernel shows.
    pub fn shown(&self) -> &Shown {
        self.map.as_ref().map_or(&self.shown, |map| &map.shown)
    }
}

#[cfg(test)]
mod tests;
