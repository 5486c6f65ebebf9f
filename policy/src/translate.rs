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
#[allow(clippy::arithmetic_side_effects, reason = "a panic is a failed test")]
mod tests {
    use super::*;
    use crate::idmap::IdMap;
    use proptest::prelude::*;

    fn rules(texts: &[&str]) -> Vec<Rule> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn users(texts: &[&str]) -> std::result::Result<Translation, BadSpans> {
        Translation::new(&rules(texts), &[])
    }

    // virtiofsd(1): "--translate-uid <type>:<source base>:<target base>:<count>"
    #[test]
    fn a_range_is_read_in_every_kind_and_with_any_delimiter() {
        for text in
            ["guest:1:2:3", "host:1:2:3", "squash-guest:1:2:3", "squash-host:1:2:3", "forbid-guest:1:3", "map:1:2:3"]
        {
            assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
        }
        for text in ["map/1/2/3", "MAP:1:2:3", "map 1 2 3", "map\u{fc}1\u{fc}2\u{fc}3"] {
            assert_eq!(text.parse::<Rule>(), "map:1:2:3".parse(), "{text}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        let bad =
            ["", "map", "map:1:2", "map:1:2:3:", "map:1:2:3:4", "map:1:2/3", ":1:2:3", "other:1:2:3", "map:1:2:-3"];
        for text in bad.into_iter().chain(["map:1:2:+3", "map:1:2:4294967296", "map::2:3", "forbid-guest:1:2:3"]) {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
        let why = "map:1".parse::<Rule>().unwrap_err().to_string();
        assert!(why.starts_with("\"map:1\" is none of guest:FROM:TO:COUNT, host:"), "{why}");
    }

    #[test]
    fn a_map_goes_both_ways_and_the_others_one() {
        let of = |text: &str, id| {
            let table = users(&[text]).unwrap();
            (table.uid(GuestUid(id)).map(|uid| uid.0), table.shown().uids.of(id))
        };
        assert_eq!((of("map:10:20:5", 12), of("map:10:20:5", 22)), ((Ok(22), Some(12)), (Ok(22), Some(12))));
        assert_eq!((of("guest:10:20:5", 12), of("guest:10:20:5", 22)), ((Ok(22), Some(12)), (Ok(22), Some(22))));
        assert_eq!((of("host:10:20:5", 12), of("host:10:20:5", 22)), ((Ok(12), Some(22)), (Ok(22), Some(22))));
        assert_eq!(
            (of("squash-guest:10:20:5", 12), of("squash-guest:10:20:5", 15)),
            ((Ok(20), Some(12)), (Ok(15), Some(15)))
        );
        assert_eq!(of("squash-host:10:20:5", 12), (Ok(12), Some(20)));
        assert_eq!(
            (of("forbid-guest:10:5", 14), of("forbid-guest:10:5", 15)),
            ((Err(Errno::EPERM), Some(14)), (Ok(15), Some(15)))
        );
    }

    #[test]
    fn each_side_has_an_id_once_only() {
        assert!(users(&["host:0:1:2", "guest:0:5:1"]).is_ok());
        assert!(users(&["guest:0:7:5", "guest:5:7:5"]).is_ok());
        for bad in
            [["guest:0:1:2", "forbid-guest:1:5"], ["map:0:1:3", "guest:2:3:3"], ["map:0:1:3", "squash-host:3:9:1"]]
        {
            assert!(matches!(users(&bad), Err(BadSpans::Overlap(..))), "{bad:?}");
        }
        for bad in ["map:4294967295:0:1", "map:0:4294967295:1", "guest:0:4294967294:2", "squash-host:0:4294967295:5"] {
            assert!(matches!(users(&[bad]), Err(BadSpans::TooLong(_))), "{bad}");
        }
        assert!(matches!(users(&["map:0:1:0"]), Err(BadSpans::Empty(_))));
        assert!(users(&["squash-guest:0:0:4294967295"]).is_ok());
    }

    // user_namespaces(7): what has no mapping is nobody
    #[test]
    fn in_the_initial_namespace_the_map_comes_after_the_ranges() {
        let map = |text: &str| IdMap::new(vec![text.parse().unwrap()]).unwrap();
        let maps = IdMaps { uids: map(":0:100000:1000:"), gids: map(":0:200000:10:") };
        let table =
            Translation::new(&rules(&["map:5000:5:10", "forbid-guest:7:1"]), &[]).unwrap().mapped(maps).unwrap();
        let uid = |id| table.kernel_uid(GuestUid(id)).map(|uid| uid.0);
        assert_eq!(
            (uid(0), uid(5001), uid(7), uid(1000)),
            (Ok(100_000), Ok(100_006), Err(Errno::EPERM), Err(Errno::EOVERFLOW))
        );
        assert_eq!(table.kernel_gid(GuestGid(9)), Ok(KernelGid(200_009)));
        assert_eq!(table.kernel_gid(GuestGid(10)), Err(Errno::EOVERFLOW));
        let shown = |id| table.shown().uids.of(id);
        assert_eq!(
            (shown(100_006), shown(100_000), shown(0), shown(101_000)),
            (Some(5001), Some(0), Some(NOBODY), Some(NOBODY))
        );
        assert_eq!((table.user(KernelUid(100_006)), table.user(KernelUid(0))), (Some(5001), None));
        assert_eq!((table.group(KernelGid(200_003)), table.group(KernelGid(100_000))), (Some(3), None));
        assert!(!table.is_none());
    }

    #[test]
    fn groups_are_not_users() {
        let table = Translation::new(&rules(&["forbid-guest:5:1"]), &rules(&["map:5:6:1"])).unwrap();
        assert_eq!((table.uid(GuestUid(5)), table.gid(GuestGid(5))), (Err(Errno::EPERM), Ok(ShareGid(6))));
        assert!(!table.is_none() && Translation::default().is_none());
    }

    fn any_rule() -> impl Strategy<Value = Rule> {
        let number = || prop_oneof![0..100_u32, any::<u32>()];
        (prop::sample::select(&KINDS[..]), number(), number(), number()).prop_map(|((_, kind), from, to, count)| {
            let to = if kind == Kind::ForbidGuest { 0 } else { to };
            Rule { kind, from, to, count }
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(rule in any_rule()) {
            prop_assert_eq!(rule.to_string().parse(), Ok(rule));
        }

        #[test]
        fn nothing_that_is_read_panics(text in ".{0,40}") {
            let _ = text.parse::<Rule>();
        }

        /// Where every range is a map, what the guest makes its own is shown to it as its own.
        #[test]
        fn maps_are_undone_by_what_is_shown(froms in prop::collection::vec((0..50_u32, 0..50_u32, 1..8_u32), 1..4), id in 0..64_u32) {
            let maps: Vec<Rule> =
                froms.into_iter().map(|(from, to, count)| Rule { kind: Kind::Map, from, to, count }).collect();
            let Ok(table) = Translation::new(&maps, &[]) else { return Ok(()) };
            if maps.iter().any(|map| id >= map.from && id - map.from < map.count) {
                let there = table.uid(GuestUid(id)).unwrap().0;
                prop_assert_eq!(table.shown().uids.of(there), Some(id));
            }
        }

        /// Nobody whom a range forbids gets an id, and nobody else is refused.
        #[test]
        fn only_the_forbidden_are_refused(rules in prop::collection::vec(any_rule(), 0..5), id in prop_oneof![0..200_u32, any::<u32>()]) {
            let Ok(table) = Translation::new(&rules, &[]) else { return Ok(()) };
            let forbidden = rules.iter().any(|r| r.kind == Kind::ForbidGuest && id >= r.from && id - r.from < r.count);
            prop_assert_eq!(table.uid(GuestUid(id)) == Err(Errno::EPERM), forbidden);
        }
    }
}
