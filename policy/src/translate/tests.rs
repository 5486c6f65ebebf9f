#![allow(clippy::arithmetic_side_effects, reason = "a panic is a failed test")]

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
    let bad = ["", "map", "map:1:2", "map:1:2:3:", "map:1:2:3:4", "map:1:2/3", ":1:2:3", "other:1:2:3", "map:1:2:-3"];
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
    for bad in [["guest:0:1:2", "forbid-guest:1:5"], ["map:0:1:3", "guest:2:3:3"], ["map:0:1:3", "squash-host:3:9:1"]] {
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
    let table = Translation::new(&rules(&["map:5000:5:10", "forbid-guest:7:1"]), &[]).unwrap().mapped(maps).unwrap();
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
