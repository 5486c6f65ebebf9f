//! Which ids of the guest are which ids of the host. user_namespaces(7)
//!
//! Written by people as virtiofsd has it, `:INSIDE:OUTSIDE:COUNT:` with any delimiter, once per range; written to the
//! kernel as lines of `/proc/PID/uid_map`. A map the kernel would refuse is refused here, with the reason.

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use postern_ipc::span::{BadSpans, Becomes, Span, Spans};
use serde::Deserialize;

use crate::host::{HostGid, HostUid};
use crate::translate::{ShareGid, ShareUid};

/// Most ranges of one map. user_namespaces(7): UID_GID_MAP_MAX_EXTENTS
const RANGES_MAX: usize = 340;

/// `count` ids from `inside` on are the ids from `outside` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Extent {
    /// First id of the guest.
    pub inside: u32,
    /// First id of the host.
    pub outside: u32,
    /// How many, at least 1.
    pub count: u32,
}

/// Why a map cannot be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadMap(String);

impl fmt::Display for BadMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadMap {}

impl FromStr for Extent {
    type Err = BadMap;

    /// `:INSIDE:OUTSIDE:COUNT:`; whatever comes first is the delimiter, the last one may be left out.
    fn from_str(text: &str) -> Result<Self, BadMap> {
        let wrong = || BadMap(format!("\"{text}\" is not :INSIDE:OUTSIDE:COUNT:"));
        let delimiter = text.chars().next().filter(|c| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let inner = text.strip_prefix(delimiter).ok_or_else(wrong)?;
        let fields: Vec<&str> = inner.strip_suffix(delimiter).unwrap_or(inner).split(delimiter).collect();
        let [inside, outside, count] = fields.try_into().map_err(|_| wrong())?;
        let number = |field: &str| field.parse::<u32>().map_err(|_| wrong());
        let extent = Self { inside: number(inside)?, outside: number(outside)?, count: number(count)? };
        extent.check()?;
        Ok(extent)
    }
}

/// As on the command line.
impl TryFrom<String> for Extent {
    type Error = BadMap;

    fn try_from(text: String) -> Result<Self, BadMap> {
        text.parse()
    }
}

impl Extent {
    /// A range of guest ids that are the host's own.
    pub const fn same(first: u32, count: u32) -> Self {
        Self { inside: first, outside: first, count }
    }

    fn check(self) -> Result<(), BadMap> {
        if self.count == 0 {
            return Err(BadMap(format!("range {self} is empty")));
        }
        let ends = [self.inside, self.outside].map(|first| first.checked_add(self.count));
        if ends.contains(&None) {
            return Err(BadMap(format!("range {self} goes beyond the last id, 4294967294")));
        }
        Ok(())
    }

    fn insides(self) -> Range<u32> {
        self.inside..self.inside.saturating_add(self.count)
    }

    fn outsides(self) -> Range<u32> {
        self.outside..self.outside.saturating_add(self.count)
    }

    fn outward(self, inside: u32) -> Option<u32> {
        let offset = inside.checked_sub(self.inside).filter(|&offset| offset < self.count)?;
        self.outside.checked_add(offset)
    }

    fn inward(self, outside: u32) -> Option<u32> {
        let offset = outside.checked_sub(self.outside).filter(|&offset| offset < self.count)?;
        self.inside.checked_add(offset)
    }
}

impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ":{}:{}:{}:", self.inside, self.outside, self.count)
    }
}

/// A valid map: at least one range, none overlapping another on either side.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdMap(Vec<Extent>);

impl IdMap {
    /// The ranges as one map.
    ///
    /// # Errors
    /// Says which range is empty, too long, overlapping, or one too many.
    pub fn new(extents: Vec<Extent>) -> Result<Self, BadMap> {
        if extents.is_empty() {
            return Err(BadMap("a map has at least one range".into()));
        }
        if extents.len() > RANGES_MAX {
            return Err(BadMap(format!("a map has at most {RANGES_MAX} ranges")));
        }
        extents.iter().try_for_each(|extent| extent.check())?;
        disjoint(&extents, "inside", Extent::insides)?;
        disjoint(&extents, "outside", Extent::outsides)?;
        Ok(Self(extents))
    }

    /// One id of the host is the guest's root; there are no others.
    pub fn single(outside: u32) -> Self {
        Self(vec![Extent { inside: 0, outside, count: 1 }])
    }

    /// Every id that exists here is itself. `here` is what this process finds in its own `/proc/self/uid_map` or
    /// `gid_map`: on a host all of them, in a container those it was given.
    ///
    /// # Errors
    /// If `here` is no such file.
    pub fn identity(here: &str) -> Result<Self, BadMap> {
        let wrong = |line: &str| BadMap(format!("\"{line}\" is no line of an id map"));
        let extent = |line: &str| {
            let numbers: Vec<u32> = line.split_ascii_whitespace().map_while(|field| field.parse().ok()).collect();
            match numbers[..] {
                [first, _, count] => Ok(Extent::same(first, count)),
                _ => Err(wrong(line)),
            }
        };
        Self::new(here.lines().map(extent).collect::<Result<_, _>>()?)
    }

    /// The ranges.
    pub fn extents(&self) -> &[Extent] {
        &self.0
    }

    /// The same with one more id.
    ///
    /// # Errors
    /// As [`IdMap::new`].
    pub fn with(&self, inside: u32, outside: u32) -> Result<Self, BadMap> {
        Self::new(self.0.iter().copied().chain([Extent { inside, outside, count: 1 }]).collect())
    }

    /// The host's number for a guest's; none outside the map.
    pub fn outward(&self, inside: u32) -> Option<u32> {
        self.0.iter().find_map(|extent| extent.outward(inside))
    }

    /// The guest's number for a host's; none outside the map.
    pub fn inward(&self, outside: u32) -> Option<u32> {
        self.0.iter().find_map(|extent| extent.inward(outside))
    }

    /// The highest id of the guest.
    pub fn last_inside(&self) -> u32 {
        self.0.iter().map(|extent| extent.insides().end.saturating_sub(1)).max().unwrap_or(0)
    }

    /// Every guest id is the same id of the host.
    pub fn is_identity(&self) -> bool {
        self.0.iter().all(|extent| extent.inside == extent.outside)
    }

    /// As whom the host's ids are shown: as the guest's, or as `other` where there is none. user_namespaces(7)
    ///
    /// # Errors
    /// If that takes more ranges than a table has.
    pub fn shown(&self, other: u32) -> Result<Spans, BadSpans> {
        let mut extents = self.0.clone();
        extents.sort_by_key(|extent| extent.outside);
        let mut spans = Vec::new();
        let mut next = 0;
        let unmapped = |first: u32, end: u32| {
            let count = end.saturating_sub(first);
            (count > 0).then_some(Span { first, count, becomes: Becomes::One(other) })
        };
        for extent in extents {
            let Range { start, end } = extent.outsides();
            spans.extend(unmapped(next, start));
            spans.push(Span { first: start, count: extent.count, becomes: Becomes::From(extent.inside) });
            next = end;
        }
        spans.extend(unmapped(next, u32::MAX));
        Spans::new(spans)
    }

    /// What `/proc/PID/uid_map` takes: a line for each range.
    pub fn proc_text(&self) -> String {
        self.0.iter().map(|extent| format!("{} {} {}\n", extent.inside, extent.outside, extent.count)).collect()
    }

    /// What newuidmap(1) takes: three arguments for each range.
    pub fn arguments(&self) -> Vec<String> {
        let numbers = self.0.iter().flat_map(|extent| [extent.inside, extent.outside, extent.count]);
        numbers.map(|number| number.to_string()).collect()
    }
}

fn disjoint(extents: &[Extent], side: &str, range: fn(Extent) -> Range<u32>) -> Result<(), BadMap> {
    let mut sorted = extents.to_vec();
    sorted.sort_by_key(|&extent| range(extent).start);
    for (first, second) in sorted.iter().zip(sorted.iter().skip(1)) {
        if range(*second).start < range(*first).end {
            return Err(BadMap(format!("ranges {first} and {second} have {side} ids in common")));
        }
    }
    Ok(())
}

impl fmt::Display for IdMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(index, extent)| {
            let between = if index == 0 { "" } else { " " };
            write!(f, "{between}{extent}")
        })
    }
}

/// Users and groups of one share.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct IdMaps {
    /// Of user ids.
    pub uids: IdMap,
    /// Of group ids.
    pub gids: IdMap,
}

impl IdMaps {
    /// The host's user for one of the share's.
    pub fn host_uid(&self, uid: ShareUid) -> Option<HostUid> {
        self.uids.outward(uid.0).map(HostUid)
    }

    /// The host's group for one of the share's.
    pub fn host_gid(&self, gid: ShareGid) -> Option<HostGid> {
        self.gids.outward(gid.0).map(HostGid)
    }

    /// Whether owner and group of an inode, by the host's numbers, are both mapped: only then a capability counts for
    /// it. user_namespaces(7)
    pub fn have(&self, uid: u32, gid: u32) -> bool {
        self.uids.inward(uid).is_some() && self.gids.inward(gid).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(ranges: &[&str]) -> Result<IdMap, BadMap> {
        IdMap::new(ranges.iter().map(|range| range.parse()).collect::<Result<_, _>>()?)
    }

    // virtiofsd(1): "--uid-map=:namespace_uid:host_uid:count: ... the delimiter can be any character"
    #[test]
    fn a_range_is_read_with_any_delimiter() {
        let wanted = Extent { inside: 1, outside: 100_000, count: 65_536 };
        for text in [":1:100000:65536:", "/1/100000/65536/", ":1:100000:65536", " 1 100000 65536"] {
            assert_eq!(text.parse(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in
            ["", ":", "1:2:3", ":1:2:", ":1:2:3:4:", ":1:2:-3:", ":1:2:x:", ":1::3:", ":1:2:4294967296:", ": 1:2:3:"]
        {
            assert!(text.parse::<Extent>().is_err(), "{text}");
        }
        assert_eq!(":0:0:0:".parse::<Extent>().unwrap_err().to_string(), "range :0:0:0: is empty");
    }

    // user_namespaces(7): "The range of user IDs (group IDs) specified in each line cannot overlap"; 4294967295 is no
    // id.
    #[test]
    fn a_map_the_kernel_would_refuse_is_refused() {
        assert!(map(&[]).is_err());
        assert!(map(&[":0:1000:2:", ":1:5000:1:"]).unwrap_err().to_string().contains("inside"));
        assert!(map(&[":0:1000:2:", ":9:1001:1:"]).unwrap_err().to_string().contains("outside"));
        assert!(map(&[":1:4294967295:1:"]).is_err());
        assert!(map(&[":0:0:4294967295:"]).is_ok());
        let many: Vec<Extent> = (0..341).map(|id| Extent::same(id, 1)).collect();
        assert!(IdMap::new(many).is_err());
    }

    #[test]
    fn ids_are_found_in_both_directions_and_not_outside() {
        let map = map(&[":0:1000:1:", ":1:100000:65536:"]).unwrap();
        assert_eq!((map.outward(0), map.outward(1), map.outward(65_536)), (Some(1000), Some(100_000), Some(165_535)));
        assert_eq!(map.outward(65_537), None);
        assert_eq!((map.inward(1000), map.inward(100_001), map.inward(1001)), (Some(0), Some(2), None));
        assert_eq!(map.last_inside(), 65_536);
        assert_eq!(map.proc_text(), "0 1000 1\n1 100000 65536\n");
    }

    // user_namespaces(7): an id without a mapping "is converted to the overflow user ID"
    #[test]
    fn ids_of_the_host_are_shown_as_the_guests_or_as_nobody() {
        let shown = map(&[":1:100000:65536:", ":0:1000:1:"]).unwrap().shown(65_534).unwrap();
        let wanted = [(0, 65_534), (1000, 0), (1001, 65_534), (100_000, 1), (165_535, 65_536), (165_536, 65_534)];
        for (id, guest) in wanted.into_iter().chain([(65_534, 65_534), (u32::MAX - 1, 65_534)]) {
            assert_eq!(shown.of(id), Some(guest), "{id}");
        }
        assert!(map(&[":0:0:4294967295:"]).unwrap().shown(65_534).unwrap().of(7) == Some(7));
        let many: Vec<Extent> = (0..60).map(|id| Extent::same(id * 2, 1)).collect();
        assert!(IdMap::new(many).unwrap().shown(65_534).is_err());
    }

    #[test]
    fn the_identity_map_is_of_the_ids_there_are() {
        let host = IdMap::identity("         0          0 4294967295\n").unwrap();
        assert!(host.is_identity());
        assert_eq!(host.proc_text(), "0 0 4294967295\n");
        let container = IdMap::identity("0 1000 1\n1 100000 65536\n").unwrap();
        assert_eq!(container.proc_text(), "0 0 1\n1 1 65536\n");
        assert!(IdMap::identity("0 0\n").is_err());
        assert!(IdMap::identity("").is_err());
    }

    #[test]
    fn a_host_id_is_reached_through_the_map_only() {
        let maps = IdMaps { uids: map(&[":0:100000:10:"]).unwrap(), gids: IdMap::single(5) };
        assert_eq!(maps.host_uid(ShareUid(9)), Some(HostUid(100_009)));
        assert_eq!(maps.host_uid(ShareUid(10)), None);
        assert_eq!(maps.host_gid(ShareGid(0)), Some(HostGid(5)));
    }
}
