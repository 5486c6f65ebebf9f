//! Which nodes a guest may make besides files, directories and links (`--mknod`). postern-helper(8)

use std::os::fd::AsFd;

use libc::RENAME_WHITEOUT;
use postern_ipc::Errno;
use postern_ipc::attr::{Dev, Mode, NodeKind, RenameFlags};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::FileName;
use postern_ipc::op::{Mknod, Rename};
use postern_server::fuse::abi::SetattrIn;
use postern_tests::named::{ACCESS, acl};
use postern_tests::prelude::*;
use postern_tests::twin::Twin;

/// The names of the kinds, and what mknod(2) makes one by.
const KINDS: [(&str, u32, u32); 4] = [
    ("fifo", S_IFIFO, 0),
    ("socket", S_IFSOCK, 0),
    ("whiteout", S_IFCHR, 0),
    // "null", which a root of a user namespace cannot make anyway.
    ("device", S_IFCHR, 1 << 8 | 3),
];

fn with(on: Kind, kinds: &str) -> Share {
    on.setup().arg(&format!("--mknod={kinds}")).serve()
}

/// What comes of making one of each kind.
fn made(share: &Share) -> [Result<(), nix::errno::Errno>; 4] {
    KINDS.map(|(name, kind, dev)| share.mknod(name, kind | 0o600, dev).map(drop))
}

// mknod(2): "EPERM  The filesystem containing pathname does not support the type of node requested"
#[apply(promise)]
fn a_guest_makes_nodes_of_the_kinds_named_only(on: Kind) {
    let device = if on.has_devices() { Ok(()) } else { Err(EPERM) };
    for (kinds, may) in [
        ("fifo", [Ok(()), Err(EPERM), Err(EPERM), Err(EPERM)]),
        ("socket,whiteout", [Err(EPERM), Ok(()), Ok(()), Err(EPERM)]),
        ("device", [Err(EPERM), Err(EPERM), Err(EPERM), device]),
        ("none", [Err(EPERM); 4]),
        ("fifo,socket,whiteout,device", [Ok(()), Ok(()), Ok(()), device]),
    ] {
        let share = with(on, kinds);
        assert_eq!(made(&share), may, "{kinds}");
        share.mknod("f", S_IFREG | 0o600, 0).unwrap();
        let expected = KINDS.iter().zip(may).filter(|(_, may)| may.is_ok()).map(|((name, ..), _)| *name);
        let mut expected: Vec<_> = expected.chain(["f"]).collect();
        expected.sort_unstable();
        assert_eq!(share.host.list(""), expected, "{kinds}");
    }
}

// postern-helper(8): --mknod: "With a mapped security model it is the same, although files stand for them"
#[test]
fn nodes_that_a_file_stands_for_are_of_the_kinds_named_too() {
    for on in [Kind::MappedXattr, Kind::MappedLinks, Kind::MappedFile] {
        assert_eq!(made(&with(on, "whiteout")), [Err(EPERM), Err(EPERM), Ok(()), Err(EPERM)], "{on:?}");
        assert_eq!(made(&on.serve()), [Ok(()); 4], "{on:?}");
    }
}

// rename(2): RENAME_WHITEOUT makes one; postern-helper(8): --mknod: "What there is already the guest may use"
#[apply(promise)]
fn no_whiteout_is_left_behind_where_none_may_be_made(on: Kind) {
    let share = with(on, "fifo");
    share.put("f", b"hello").unwrap();
    assert_eq!(share.rename2("f", "g", RENAME_WHITEOUT), Err(EPERM));
    assert_eq!(share.host.list(""), ["f"]);
    share.host.mknod("s", nix::sys::stat::SFlag::S_IFSOCK);
    share.rename("s", "t").unwrap();
    share.unlink("t").unwrap();
}

// postern-helper(8): --mknod: "device, which is still refused where the above says so"
#[test]
fn devices_that_host_users_could_open_stay_refused() {
    let share = Kind::Host.setup().public().arg("--mknod=device").serve();
    assert_eq!(share.mknod("null", S_IFCHR | 0o666, 1 << 8 | 3).map(drop), Err(EPERM));
}

/// A device node and a whiteout, both of root of the guest.
fn plant_devices(host: &Host) {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    for (name, dev) in [("zero", makedev(1, 5)), ("whiteout", 0)] {
        mknod(&host.path(name), SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, dev).unwrap();
        host.chown(name, 0, 0);
    }
}

/// All that gives a node to others.
fn hand_over(share: &Share, name: &str) -> [Result<(), nix::errno::Errno>; 6] {
    [
        share.chmod(name, 0o666).map(drop),
        share.chown(name, Some(1), None).map(drop),
        share.chown(name, None, Some(1)).map(drop),
        share.chown(name, Some(0), Some(0)).map(drop),
        share.setxattr(name, ACCESS, &acl(1, 1), 0),
        share.removexattr(name, ACCESS),
    ]
}

// postern-helper(8): what the guest may plant: "a device node that is there, once it has another owner, other
// permission bits or another ACL"
#[apply(promise)]
fn a_device_that_is_there_is_not_given_to_users_of_the_host(on: Kind) {
    let public = || on.setup().public().plant(plant_devices).posix_acl();
    let share = public().serve();
    let before = |share: &Share| (share.host.stat("zero").mode, share.host.stat("zero").owner);
    let first = before(&share);
    let expected = if on.guards_host_users() { Err(EPERM) } else { Ok(()) };
    assert_eq!(hand_over(&share, "zero"), [expected; 6]);
    assert_eq!(before(&share) == first, on.guards_host_users());
    assert_eq!(share.host.getxattr("zero", ACCESS), None);
    assert_eq!(hand_over(&share, "whiteout"), [Ok(()); 6], "it opens nothing");
    let touched = SetattrValid::MTIME | SetattrValid::MTIME_NOW;
    share.setattr("zero", &SetattrIn { valid: touched, ..Default::default() }).unwrap();
    for harmless in [public().arg("--allow-devices"), on.setup().plant(plant_devices).posix_acl()] {
        assert_eq!(hand_over(&harmless.serve(), "zero"), [Ok(()); 6]);
    }
}

// postern-helper(8): a kind that there is not is refused, with those that there are
#[test]
fn what_is_no_kind_is_refused() {
    for (kinds, word) in [("pipe", "pipe"), ("fifo,", ""), ("fifo,none", "none")] {
        let mut server = Kind::Mapped.setup().arg(&format!("--mknod={kinds}")).start();
        assert!(!server.child.wait().unwrap().success());
        let told = format!("{word:?} is none of fifo, socket, whiteout, device, or none alone");
        assert!(server.log().contains(&told), "{}", server.log());
    }
}

// postern-security(7): kinds of node are checked in the helper: whoever asks for whomever
#[apply(promise)]
fn a_taken_over_server_makes_no_node_of_another_kind(on: Kind) {
    let mut twin = Twin::with(on, &["--mknod=socket"]);
    twin.host.write("f", b"");
    let root = twin.root.try_clone().unwrap();
    let (uid, gid) = (GuestUid(0), GuestGid(0));
    let callers = [Caller::Root, Caller::User { uid, gid, group: None }, Caller::Alone { uid, gid }];
    let devices = [(0, 0), (1, 3), (0, 1), (4095, 1_048_575)].map(|(major, minor)| Dev { major, minor });
    let kinds = devices.iter().flat_map(|dev| [NodeKind::Char(*dev), NodeKind::Block(*dev)]).chain([NodeKind::Fifo]);
    let name = |name: &[u8]| FileName::new(name).unwrap();
    for (kind, caller) in kinds.flat_map(|kind| callers.map(|caller| (kind, caller))) {
        for mode in [0o600, 0o4755] {
            let op = Mknod { name: name(b"n"), kind, mode: Mode::new(mode), umask: Mode::new(0) };
            let done = twin.ask_as(caller, &op, &[root.as_fd()], b"").err();
            assert_eq!(done, Some(Errno::EPERM), "{kind:?} {mode:o} by {caller:?}");
        }
    }
    for flags in [RenameFlags::WHITEOUT, RenameFlags::WHITEOUT | RenameFlags::NOREPLACE] {
        let op = Rename { name: name(b"f"), new_name: name(b"g"), flags };
        assert_eq!(twin.ask(&op, &[root.as_fd(), root.as_fd()]).err(), Some(Errno::EPERM));
    }
    assert_eq!(twin.host.list(""), ["f"]);
    let op = Mknod { name: name(b"s"), kind: NodeKind::Socket, mode: Mode::new(0o600), umask: Mode::new(0) };
    twin.ask(&op, &[root.as_fd()]).unwrap();
}
