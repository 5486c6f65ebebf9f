//! A server that the guest has taken over tries everything there is to try with the helper. What breaks the protocol
//! ends it for good with one line, what only asks is answered; nothing outside is reached, and the host is not used up.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

use nix::sys::stat::SFlag;
use postern_ipc::Errno;
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::op::{Kind as Row, Stat};
use postern_tests::foreign::{FOREIGN, mute};
use postern_tests::host::snapshot;
use postern_tests::hostile::{is_its_turn, tried};
use postern_tests::kind::to_guest;
use postern_tests::mounts;
use postern_tests::prelude::{Host, Kind, apply, promise};
use postern_tests::sweep::{Request, callers, one_of_each, requests};
use postern_tests::twin::{Outcome, Twin};

// postern-helper(8): A descriptor is believed only if it is O_PATH and shows a mount id of the share's list
#[apply(promise)]
fn no_operation_believes_a_descriptor_that_is_not_the_shares(on: Kind) {
    mounts::alone();
    let mut attempts = 0;
    for (number, request) in one_of_each().into_iter().enumerate() {
        let slots = request.kind.descriptors();
        for (other, &(what, make)) in FOREIGN.iter().enumerate() {
            if !is_its_turn(on, number + other) {
                continue;
            }
            for slot in 0..slots {
                let twin = Twin::new(on);
                let (good, bad) = (twin.root.try_clone().unwrap(), make(&twin));
                let mut at = vec![good.as_fd(); slots];
                at[slot] = bad.as_fd();
                let frame = request.frame(1, Caller::Root);
                twin.channel.send(&[&frame, &request.data], &at).unwrap_or_else(|e| panic!("{what}: {e:?}"));
                twin.assert_ended();
                attempts += 1;
            }
        }
    }
    tried("foreign descriptors", attempts);
}

// statx(2): AT_STATX_DONT_SYNC; fuse(4): a mount is its user's alone, and others get EACCES
#[apply(promise)]
fn no_operation_waits_for_a_descriptor_whose_file_system_never_answers(on: Kind) {
    mounts::alone();
    let mut attempts = 0;
    let mut twin = Twin::new(on);
    for request in one_of_each() {
        let mute = mute();
        let at = vec![mute.as_fd(); request.kind.descriptors()];
        let serial = twin.serial();
        attempts += 1;
        match twin.exchange(&request.frame(serial, Caller::Root), &request.data, &at) {
            Outcome::Ended => std::mem::replace(&mut twin, Twin::new(on)).assert_ended(),
            Outcome::Answered(errno, given) => assert_eq!((errno, given.len()), (Some(Errno::EACCES), 0)),
        }
    }
    tried("descriptors of a mute file system", attempts);
    twin.assert_contained();
}

/// Whose the share is on the host.
fn owner(host: &Host) -> (u32, u32) {
    let root = std::fs::metadata(host.path("")).unwrap();
    (root.uid(), root.gid())
}

/// The nodes of a share, each pinned, in a directory of their own.
fn plant(twin: &Twin, dir: &str) -> Vec<OwnedFd> {
    let host = &twin.host;
    let at = |name: &str| format!("{dir}/{name}");
    host.mkdir(dir);
    for name in ["d", "gone", "moved"] {
        host.mkdir(&at(name));
    }
    for name in ["f", "d/f", "lost", "moved/f"] {
        host.write(&at(name), b"hello");
    }
    host.symlink("../../outside", &at("out"));
    host.symlink("../../outside/canary", &at("canary"));
    for (name, kind) in [("p", SFlag::S_IFIFO), ("s", SFlag::S_IFSOCK), ("c", SFlag::S_IFCHR)] {
        host.mknod(&at(name), kind);
    }
    // Those that make links and special files make them of the host's root.
    let (uid, gid) = owner(host);
    ["out", "canary", "p", "s", "c"].iter().for_each(|name| host.chown_host(&at(name), uid, gid));
    let names = ["", "d", "f", "out", "canary", "p", "s", "c", "gone", "lost", "moved", "moved/f"];
    let mut pins: Vec<_> = names.iter().map(|name| twin.pin(at(name).trim_end_matches('/'))).collect();
    pins.push(twin.pin("m"));
    std::fs::remove_dir(host.path(&at("gone"))).unwrap();
    host.unlink(&at("lost"));
    std::fs::rename(host.path(&at("moved")), twin.scratch.path(&format!("outside-{dir}"))).unwrap();
    pins
}

/// A share with a submount, and a directory for each row of the table.
fn planted(on: Kind) -> (Twin, Vec<Vec<OwnedFd>>) {
    mounts::alone();
    let plant_mount = |host: &Host| {
        host.mkdir("m");
        mounts::memory(&host.path("m"), owner(host));
        host.write("m/f", b"hello");
    };
    let twin = Twin::planted(on, &[], plant_mount);
    let nodes = (0..=Row::ALL.len()).map(|row| plant(&twin, &format!("row{row}"))).collect();
    (twin, nodes)
}

/// Asks on each node, or each pair of them; every request is answered. Says how many there were.
fn ask_on_all(twin: &mut Twin, request: &Request, caller: Caller, nodes: &[OwnedFd]) -> usize {
    let pairs: Vec<Vec<_>> = match request.kind.descriptors() {
        1 => nodes.iter().map(|node| vec![node.as_fd()]).collect(),
        _ => nodes.iter().flat_map(|a| nodes.iter().map(|b| vec![a.as_fd(), b.as_fd()])).collect(),
    };
    for at in &pairs {
        let serial = twin.serial();
        let outcome = twin.exchange(&request.frame(serial, caller), &request.data, at);
        assert!(matches!(outcome, Outcome::Answered(..)), "{:?}: {outcome:?}\n{}", request.kind, twin.scratch.log());
    }
    pairs.len()
}

/// Checks that the helper is the one it was, that nothing was wrong with it, and that nothing outside was touched.
fn assert_unmoved(twin: &mut Twin, helper: u32) {
    let root = twin.root.try_clone().unwrap();
    twin.ask(&Stat {}, &[root.as_fd()]).unwrap();
    assert_eq!((twin.helper(), twin.errors()), (helper, 0), "{}", twin.scratch.log());
    twin.assert_contained();
}

/// Everything below the share has owners of the map.
fn assert_owners(twin: &Twin, on: Kind) {
    let mut left = vec![twin.host.path("")];
    while let Some(path) = left.pop() {
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let known = match on.security_model() {
            None => to_guest(&on.uids(), meta.uid()).is_some() && to_guest(&on.gids(), meta.gid()).is_some(),
            // All is his who shares it.
            Some(_) => (meta.uid(), meta.gid()) == (on.starter().0.as_raw(), on.starter().1.as_raw()),
        };
        assert!(known, "{}", path.display());
        if meta.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}

// postern-security(7): nothing outside the shared directory can be reached
#[apply(promise)]
fn every_operation_at_every_edge_on_every_node_is_answered_and_stays_inside(on: Kind) {
    let (mut twin, nodes) = planted(on);
    let helper = twin.helper();
    let moved = || (0..=Row::ALL.len()).map(|row| snapshot(&twin.scratch.path(&format!("outside-row{row}"))));
    let before: Vec<_> = moved().collect();
    let mut attempts = 0;
    for request in requests() {
        attempts += ask_on_all(&mut twin, &request, Caller::Root, &nodes[request.kind as usize]);
    }
    tried("operations on nodes", attempts);
    assert_unmoved(&mut twin, helper);
    let moved = (0..=Row::ALL.len()).map(|row| snapshot(&twin.scratch.path(&format!("outside-row{row}"))));
    assert!(moved.eq(before), "what was moved out of the share has changed");
    assert_owners(&twin, on);
    mounts::detach_all(&twin.host.path("m"));
}

// postern-security(7): no id outside the map can be assumed
#[apply(promise)]
fn every_operation_as_everybody_leaves_owners_of_the_map(on: Kind) {
    let (mut twin, nodes) = planted(on);
    let helper = twin.helper();
    let mut attempts = 0;
    for caller in callers() {
        for request in one_of_each() {
            attempts += ask_on_all(&mut twin, &request, caller, &nodes[request.kind as usize][..4]);
        }
    }
    tried("callers", attempts);
    assert_unmoved(&mut twin, helper);
    assert_owners(&twin, on);
    mounts::detach_all(&twin.host.path("m"));
}

// postern-security(7), for whom the kernel is to judge and for whom it is not
#[apply(promise)]
fn every_operation_at_every_edge_as_a_user_is_answered_and_stays_inside(on: Kind) {
    let (mut twin, nodes) = planted(on);
    let helper = twin.helper();
    let (uid, gid) = (GuestUid(1), GuestGid(1));
    let users = [Caller::Alone { uid, gid }, Caller::User { uid, gid, group: Some(GuestGid(2)) }];
    let mut attempts = 0;
    for request in requests() {
        for caller in users {
            attempts += ask_on_all(&mut twin, &request, caller, &nodes[request.kind as usize]);
        }
    }
    tried("operations of users", attempts);
    assert_unmoved(&mut twin, helper);
    assert_owners(&twin, on);
    mounts::detach_all(&twin.host.path("m"));
}

// postern-security(7): a read-only share stays unchanged
#[apply(promise)]
fn every_operation_at_every_edge_leaves_a_read_only_share_as_it_was(on: Kind) {
    let mut twin = Twin::with(on, &["--readonly"]);
    twin.host.mkdir("d");
    twin.host.write("f", b"hello");
    twin.host.setxattr("f", "user.a", b"x");
    twin.host.symlink("../outside", "out");
    twin.host.mknod("p", SFlag::S_IFIFO);
    let helper = twin.helper();
    let before = snapshot(&twin.host.path(""));
    let nodes = ["", "d", "f", "out", "p"].map(|name| twin.pin(if name.is_empty() { "." } else { name }));
    let mut attempts = 0;
    for request in requests() {
        attempts += ask_on_all(&mut twin, &request, Caller::Root, &nodes);
    }
    for (request, caller) in one_of_each().iter().flat_map(|request| callers().into_iter().map(move |c| (request, c))) {
        attempts += ask_on_all(&mut twin, request, caller, &nodes);
    }
    tried("operations on a read-only share", attempts);
    assert_unmoved(&mut twin, helper);
    assert_eq!(snapshot(&twin.host.path("")), before);
}

// postern-ipc: a frame is refused unless header, body and data fill the message exactly, and each field is of its type
#[apply(promise)]
fn each_byte_of_each_row_may_be_anything(on: Kind) {
    let mut attempts = 0;
    let mut twin = Twin::new(on);
    for request in one_of_each() {
        let good = request.frame(1, Caller::Root);
        for at in (0..good.len()).filter(|&at| is_its_turn(on, at)) {
            let root = twin.root.try_clone().unwrap();
            let mut frame = good.clone();
            frame[at] = !frame[at];
            let places = vec![root.as_fd(); request.kind.descriptors()];
            attempts += 1;
            if let Outcome::Ended = twin.exchange(&frame, &request.data, &places) {
                assert!(!twin.scratch.log().contains("a bug"), "{}", twin.scratch.log());
                std::mem::replace(&mut twin, Twin::new(on)).assert_ended();
            }
        }
    }
    tried("damaged bytes", attempts);
    twin.assert_contained();
}

// postern-security(7), where the guest's ids and modes are kept beside the host's
fn stays_inside(on: Kind) {
    every_operation_at_every_edge_on_every_node_is_answered_and_stays_inside(on);
    every_operation_at_every_edge_leaves_a_read_only_share_as_it_was(on);
    every_operation_as_everybody_leaves_owners_of_the_map(on);
}

#[test]
fn every_operation_stays_inside_where_ownership_is_kept_in_attributes() {
    stays_inside(Kind::MappedXattr);
}

#[test]
fn every_operation_stays_inside_where_links_are_kept_as_links() {
    stays_inside(Kind::MappedLinks);
}

#[test]
fn every_operation_stays_inside_where_ownership_is_kept_in_files() {
    stays_inside(Kind::MappedFile);
}
