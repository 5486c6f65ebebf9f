//! What holds for every map of ids and of attributes' names, whatever people write and guests ask.
#![allow(clippy::unwrap_used, clippy::arithmetic_side_effects, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use postern_ipc::name::XattrName;
use postern_policy::idmap::{Extent, IdMap};
use postern_policy::xattrmap::XattrMap;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// Beginnings of names that rules and guests have in common.
const PIECES: [&str; 8] = ["user.", "trusted.", "security.", "system.", "user.postern.", "user.x.", "x", ""];

fn name() -> impl Strategy<Value = XattrName> {
    let piece = select(&PIECES[..]);
    let text = (vec(piece, 1..4), "[a-z.]{1,3}").prop_map(|(pieces, rest)| pieces.concat() + &rest);
    text.prop_map(|text| XattrName::new(text.as_bytes()).unwrap())
}

fn rule() -> impl Strategy<Value = String> {
    let types = select(&["prefix", "ok", "bad", "unsupported"][..]);
    let scopes = select(&["client", "server", "all"][..]);
    let piece = || select(&PIECES[..]);
    (types, scopes, piece(), piece())
        .prop_map(|(what, scope, key, prepend)| format!(":{what}:{scope}:{key}:{prepend}:"))
}

/// Any list of rules that has an answer for all names.
fn rules() -> impl Strategy<Value = XattrMap> {
    let last = select(&[":ok:all:::", ":bad:all:::", ":prefix:all::user.x.: :bad:server:::"][..]);
    (vec(rule(), 0..5), last).prop_map(|(rules, last)| (rules.join(" ") + last).parse().unwrap())
}

/// The maps that know a name on the host by itself: `guest`, and any `map`.
fn stores() -> impl Strategy<Value = XattrMap> {
    let piece = || select(&PIECES[..]);
    let map = (piece(), piece()).prop_map(|(key, prepend)| format!("/map/{key}/{prepend}/"));
    prop_oneof![Just("guest".to_owned()), map].prop_map(|text| text.parse().unwrap())
}

/// Ids that are few enough to meet, and those at the end.
fn extent() -> impl Strategy<Value = Extent> {
    let id = || prop_oneof![0..40_u32, u32::MAX - 12..=u32::MAX];
    (id(), id(), 0..12_u32).prop_map(|(inside, outside, count)| Extent { inside, outside, count })
}

/// The ids of one side, one by one; none if two are the same or there is no such id.
fn ids(extents: &[Extent], side: fn(&Extent) -> u32) -> Option<BTreeSet<u64>> {
    let all: Vec<u64> = extents.iter().flat_map(|e| (0..u64::from(e.count)).map(|n| u64::from(side(e)) + n)).collect();
    let different: BTreeSet<u64> = all.iter().copied().collect();
    (different.len() == all.len() && !different.contains(&u64::from(u32::MAX))).then_some(different)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4096, failure_persistence: None, ..ProptestConfig::default() })]

    // postern-helper(8): a name is listed if the guest can ask for it by that name
    #[test]
    fn a_name_that_is_shown_leads_back_to_what_it_is_on_the_host(map in rules(), host in name()) {
        if let Some(shown) = map.inward(host.as_bytes()) {
            prop_assert_eq!(map.outward(&shown), Ok(Some(host)));
        }
    }

    #[test]
    fn what_a_guest_stores_it_finds_by_the_same_name(map in stores(), name in name()) {
        if let Ok(Some(host)) = map.outward(&name) {
            prop_assert_eq!(map.inward(host.as_bytes()), Some(name));
        }
    }

    #[test]
    fn two_names_of_a_guest_are_never_one_on_the_host(map in stores(), a in name(), b in name()) {
        if let (Ok(Some(x)), Ok(Some(y))) = (map.outward(&a), map.outward(&b)) {
            prop_assert_eq!(x == y, a == b);
        }
    }

    // postern-helper(8): --xattrmap=guest
    #[test]
    fn what_is_stored_for_the_guests_kernel_has_one_way_in(name in name(), host in name()) {
        let map: XattrMap = "guest".parse().unwrap();
        let begins = |name: &XattrName, with: &[&str]| with.iter().any(|w| name.as_bytes().starts_with(w.as_bytes()));
        let (classes, stored) = (["trusted.", "security."], ["user.postern.trusted.", "user.postern.security."]);
        if let Ok(Some(found)) = map.outward(&name) {
            prop_assert_eq!(begins(&found, &["user.postern."]), begins(&name, &classes));
            prop_assert!(!begins(&found, &classes), "the host's own {:?}", found);
        }
        let shown = map.inward(host.as_bytes());
        prop_assert!(shown.is_none_or(|shown| !begins(&shown, &["user.postern."])));
        prop_assert_eq!(shown.is_some_and(|shown| begins(&shown, &classes)), begins(&host, &stored));
    }

    #[test]
    fn any_text_is_a_map_or_says_why_not(text in "[:/ ]?(map|prefix|ok|bad|guest|all|client|:|/| |[\n\\PC]){0,12}") {
        if let Err(why) = text.parse::<XattrMap>() {
            prop_assert!(!why.to_string().is_empty() && !why.to_string().contains('\n'));
        }
    }

    // user_namespaces(7): ranges "cannot overlap", and 4294967295 is no id
    #[test]
    fn a_map_of_ids_is_one_exactly_if_no_id_is_in_it_twice(extents in vec(extent(), 0..5)) {
        let whole = !extents.is_empty() && extents.iter().all(|extent| extent.count > 0);
        let sides = [ids(&extents, |e| e.inside), ids(&extents, |e| e.outside)];
        let can_be = whole && sides.iter().all(Option::is_some);
        prop_assert_eq!(IdMap::new(extents).is_ok(), can_be);
    }

    #[test]
    fn an_id_goes_out_and_comes_back_as_itself_or_not_at_all(extents in vec(extent(), 1..5), id in 0..52_u32) {
        let Ok(map) = IdMap::new(extents.clone()) else { return Ok(()) };
        let inside = extents.iter().any(|e| (e.inside..e.inside + e.count).contains(&id));
        let outside = extents.iter().any(|e| (e.outside..e.outside + e.count).contains(&id));
        prop_assert_eq!((map.outward(id).is_some(), map.inward(id).is_some()), (inside, outside));
        if let Some(host) = map.outward(id) {
            prop_assert_eq!(map.inward(host), Some(id));
        }
        if let Some(guest) = map.inward(id) {
            prop_assert_eq!(map.outward(guest), Some(id));
        }
    }

    #[test]
    fn a_map_of_ids_is_written_as_it_is_read(extents in vec(extent(), 1..5)) {
        let Ok(map) = IdMap::new(extents.clone()) else { return Ok(()) };
        let read: Vec<Extent> = map.to_string().split(' ').map(|range| range.parse().unwrap()).collect();
        prop_assert_eq!(read, extents);
    }
}
