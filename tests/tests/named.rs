//! Values that name users and groups, under names that a map of the share's leads to: a server that the guest has taken
//! over sets every id at every edge by every name, and gets no other than the share's translation says.

use std::os::fd::{AsFd, OwnedFd};

use postern_ipc::Errno;
use postern_ipc::attr::XattrFlags;
use postern_ipc::id::Caller;
use postern_ipc::name::XattrName;
use postern_ipc::op::{GetXattr, RemoveXattr, SetXattr};
use postern_tests::hostile::tried;
use postern_tests::kind::{Range, to_host};
use postern_tests::named::{ACCESS, CAPABILITY, DEFAULT, acl, capability, own_capability};
use postern_tests::prelude::*;
use postern_tests::sweep::IDS;
use postern_tests::twin::{Answer, Twin};

/// Ten ids are others, ten are forbidden, a thousand are one.
const RANGES: [&str; 3] = ["map:1000:5:10", "forbid-guest:3000:10", "squash-guest:40000:20:1000"];
/// Two names lead to each of the host's attributes: its own, and one without its class.
const MAP: &str = "--xattrmap=:prefix:client:posix_acl_:system.: :prefix:client:capability:security.: :ok:all:::";

fn twin(on: Kind) -> Twin {
    let ranges = RANGES.iter().flat_map(|range| ["uid", "gid"].map(|of| format!("--translate-{of}={range}")));
    let arguments: Vec<_> = ranges.chain([MAP.into(), "--allow-setid".into()]).collect();
    let twin = Twin::with(on, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    twin.host.write("f", b"");
    twin.host.mkdir("d");
    twin
}

/// What [`RANGES`] make of an id, and the kernel by the share's map.
fn becomes(id: u32, map: &[Range]) -> Result<u32, Errno> {
    let share = match id {
        1000..1010 => id - 995,
        3000..3010 => return Err(Errno::EPERM),
        40_000..41_000 => 20,
        _ => id,
    };
    // The last is no id, which the map of all ids leaves out.
    to_host(map, share).filter(|_| share != u32::MAX).ok_or(Errno::EINVAL)
}

/// Ids at the edges of ranges, of maps and of the numbers.
fn edges() -> Vec<u32> {
    let of_ranges = [5, 14, 15, 20, 1000, 1009, 1010, 2999, 3000, 3009, 3010, 39_999, 40_000, 40_999, 41_000];
    IDS.into_iter().chain(of_ranges).collect()
}

fn set(twin: &mut Twin, node: &OwnedFd, name: &str, value: &[u8]) -> Result<(), Errno> {
    let name = XattrName::new(name.as_bytes()).unwrap();
    let set = SetXattr { name, flags: XattrFlags::empty() };
    twin.ask_as(Caller::Root, &set, &[node.as_fd()], value).map(drop)
}

fn get(twin: &mut Twin, node: &OwnedFd, name: &str) -> Answer<GetXattr> {
    let name = XattrName::new(name.as_bytes()).unwrap();
    twin.ask(&GetXattr { name, size: 65_536 }, &[node.as_fd()])
}

fn remove(twin: &mut Twin, node: &OwnedFd, name: &str) {
    let name = XattrName::new(name.as_bytes()).unwrap();
    let _ = twin.ask(&RemoveXattr { name }, &[node.as_fd()]);
}

// postern-helper(8): "The ids in POSIX ACLs are translated, too": what an attribute is on the host decides
#[apply(promise)]
fn an_acl_by_any_name_names_whom_the_share_says_or_nobody(on: Kind) {
    let mut twin = twin(on);
    let nodes = [("f", ACCESS, twin.pin("f")), ("d", DEFAULT, twin.pin("d")), ("d", ACCESS, twin.pin("d"))];
    let mut attempts = 0;
    for (path, attribute, node) in &nodes {
        for name in [attribute, &attribute["system.".len()..]] {
            for id in edges() {
                for (user, group) in [(id, 20), (20, id), (id, id)] {
                    let (uid, gid) = (becomes(user, &on.uids()), becomes(group, &on.gids()));
                    let told = set(&mut twin, node, name, &acl(user, group));
                    let there = twin.host.getxattr(path, attribute);
                    match (uid, gid) {
                        (Ok(uid), Ok(gid)) => {
                            assert_eq!((told, there), (Ok(()), Some(acl(uid, gid))), "{name} {user} {group}");
                            assert!(get(&mut twin, node, name).is_ok(), "{name} {user} {group}");
                        }
                        _ => {
                            let why =
                                if [uid, gid].contains(&Err(Errno::EPERM)) { Errno::EPERM } else { Errno::EINVAL };
                            assert_eq!((told, there), (Err(why), None), "{name} {user} {group}");
                        }
                    }
                    remove(&mut twin, node, name);
                    attempts += 1;
                }
            }
        }
    }
    tried("ids in ACLs", attempts);
    twin.assert_contained();
}

// capabilities(7): "Namespaced file capabilities": they count where root is whom the value names
#[apply(promise)]
fn capabilities_by_any_name_are_of_a_root_whom_the_share_says_or_none(on: Kind) {
    let mut twin = twin(on);
    let node = twin.pin("f");
    let mut attempts = 0;
    for name in [CAPABILITY, "capability"] {
        for id in edges() {
            let told = set(&mut twin, &node, name, &capability(id));
            let there = twin.host.getxattr("f", CAPABILITY);
            match becomes(id, &on.uids()) {
                Ok(uid) => {
                    // The host's root reads those of its own namespace without a root.
                    let kept = if uid == 0 { own_capability() } else { capability(uid) };
                    assert_eq!((told, there), (Ok(()), Some(kept)), "{name} {id}");
                    assert!(get(&mut twin, &node, name).is_ok(), "{name} {id}");
                }
                Err(why) => assert_eq!((told, there), (Err(why), None), "{name} {id}"),
            }
            remove(&mut twin, &node, name);
            attempts += 1;
        }
    }
    tried("ids in file capabilities", attempts);
    twin.assert_contained();
}

// linux/posix_acl_xattr.h, linux/capability.h: what is not of that form is not taken, by no name
#[apply(promise)]
fn values_cut_or_damaged_anywhere_change_nothing_or_name_nobody_forbidden(on: Kind) {
    let mut twin = twin(on);
    let node = twin.pin("f");
    let mut attempts = 0;
    for (attribute, value) in [(ACCESS, acl(1005, 1006)), (CAPABILITY, capability(1005))] {
        let plain = attribute.split_once('.').unwrap().1;
        for name in [attribute, plain] {
            for cut in 1..value.len() {
                // An ACL without entries is none.
                let empty = attribute == ACCESS && cut == 4;
                let told = set(&mut twin, &node, name, &value[..cut]);
                let there = twin.host.getxattr("f", attribute);
                assert_eq!((told.is_ok(), there), (empty, None), "{name} cut to {cut}");
                attempts += 1;
            }
            assert_eq!(set(&mut twin, &node, name, &[&value[..], b"x"].concat()), Err(Errno::EINVAL), "{name}");
            for (at, mask) in (0..value.len()).flat_map(|at| [1, 2, 0x80, 0xff].map(|mask| (at, mask))) {
                let mut damaged = value.clone();
                damaged[at] ^= mask;
                let told = set(&mut twin, &node, name, &damaged);
                let there = twin.host.getxattr("f", attribute);
                assert_eq!(told.is_ok(), there.is_some(), "{name} {at} {mask:x}: {told:?}");
                let forbidden = |id: u32| {
                    to_host(&on.uids(), id).is_some_and(|id| {
                        there.as_ref().is_some_and(|there| there.chunks_exact(4).any(|word| word == id.to_le_bytes()))
                    })
                };
                assert!(!(3000..3010).any(forbidden), "{name} {at} {mask:x}");
                remove(&mut twin, &node, name);
                attempts += 1;
            }
        }
    }
    tried("damaged values", attempts);
    twin.assert_contained();
}
