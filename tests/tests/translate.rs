//! Ids of the guest that are others in the share (`--translate-uid`, `--translate-gid`). postern-helper(8)

use std::os::fd::AsFd;

use postern_ipc::Errno;
use postern_ipc::attr::{Changes, Mode, NodeKind, OpenFlags, RenameFlags, XattrFlags};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::{FileName, Target, XattrName};
use postern_ipc::op::{Create, Mkdir, Mknod, Open, Rename, SetAttr, SetXattr, Symlink, TmpFile};
use postern_tests::named::{ACCESS, acl, capability};
use postern_tests::prelude::*;
use postern_tests::share::Scratch;
use postern_tests::stream::{Client, listen};
use postern_tests::twin::{Twin, ends};

/// A share with these ranges for users and for groups.
fn translated(on: Kind, users: &[&str], groups: &[&str]) -> Share {
    setup(on, users, groups).serve()
}

fn setup(on: Kind, users: &[&str], groups: &[&str]) -> Setup {
    arguments(users, groups).iter().fold(on.setup(), |setup, argument| setup.arg(argument))
}

fn arguments(users: &[&str], groups: &[&str]) -> Vec<String> {
    let users = users.iter().map(|range| format!("--translate-uid={range}"));
    users.chain(groups.iter().map(|range| format!("--translate-gid={range}"))).collect()
}

fn shown(share: &Share, name: &str) -> (u32, u32) {
    let attr = share.getattr(name).unwrap();
    let looked = share.lookup(name).unwrap().attr;
    assert_eq!((attr.uid, attr.gid), (looked.uid, looked.gid));
    (attr.uid, attr.gid)
}

// postern-helper(8): "map  the guest's ids from FROM on are the share's from TO on, and are shown so"
#[apply(translates)]
fn a_map_goes_both_ways(on: Kind) {
    let share = translated(on, &["map:1000:5:10"], &["map:2000:70:10"]);
    let user = share.as_ids(1003, 2009);
    user.create("f", O_RDWR, 0o644).unwrap();
    user.symlink("f", "l").unwrap();
    user.mknod("p", S_IFIFO | 0o644, 0).unwrap();
    let made = user.mkdir("d", 0o755).unwrap().attr;
    assert_eq!((made.uid, made.gid), (1003, 2009));
    for name in ["f", "l", "p", "d"] {
        assert_eq!((share.host.stat(name).owner, shown(&share, name)), (ids(8, 79), (1003, 2009)), "{name}");
    }
    let given = share.chown("f", Some(1001), Some(2001)).unwrap();
    assert_eq!((share.host.stat("f").owner, (given.uid, given.gid)), (ids(6, 71), (1001, 2001)));
    share.host.chown("f", 7, 72);
    share.host.write("g", b"");
    share.host.chown("g", 14, 79);
    assert_eq!(shown(&share, "g"), (1009, 2009));
}

// postern-helper(8): "An id that no range has is itself"
#[apply(translates)]
fn ids_of_no_range_are_themselves(on: Kind) {
    let share = translated(on, &["map:1000:5:10"], &[]);
    share.as_ids(999, 1000).mkdir("a", 0o755).unwrap();
    share.as_ids(1010, 1010).mkdir("b", 0o755).unwrap();
    share.mkdir("c", 0o755).unwrap();
    let owners = ["a", "b", "c"].map(|name| (share.host.stat(name).owner, shown(&share, name)));
    assert_eq!(owners[0], (ids(999, 1000), (999, 1000)));
    assert_eq!(owners[1], (ids(1010, 1010), (1010, 1010)));
    assert_eq!(owners[2], (ids(0, 0), (0, 0)));
}

// postern-helper(8): "guest  The first half of map only", "host  The second half"
#[apply(translates)]
fn what_is_asked_and_what_is_shown_may_differ(on: Kind) {
    let share = translated(on, &["guest:1000:5:2", "host:5:3000:1"], &["host:20:30:2"]);
    share.as_ids(1000, 20).mkdir("a", 0o755).unwrap();
    share.as_ids(1001, 21).mkdir("b", 0o755).unwrap();
    assert_eq!((share.host.stat("a").owner, shown(&share, "a")), (ids(5, 20), (3000, 30)));
    assert_eq!((share.host.stat("b").owner, shown(&share, "b")), (ids(6, 21), (6, 31)));
}

// postern-helper(8): "squash-guest  ... all are the share's TO", "squash-host"
#[apply(translates)]
fn many_ids_may_be_one(on: Kind) {
    let all = ["squash-guest:0:7:4294967295", "squash-host:0:1000:4294967295"];
    let share = translated(on, &all, &all);
    for (name, uid, gid) in [("a", 0, 0), ("b", 1000, 5), ("c", 60_000, 4_000_000_000), ("d", 7, 7)] {
        share.as_ids(uid, gid).mkdir(name, 0o755).unwrap();
        assert_eq!((share.host.stat(name).owner, shown(&share, name)), (ids(7, 7), (1000, 1000)), "{name}");
    }
    share.chown("a", Some(12), Some(13)).unwrap();
    assert_eq!(share.host.stat("a").owner, ids(7, 7));
}

// postern-helper(8): "forbid-guest  Nothing is made by these ids or given to them: EPERM"
#[apply(translates)]
fn a_forbidden_id_gets_nothing(on: Kind) {
    let share = translated(on, &["forbid-guest:1000:10"], &["forbid-guest:2000:10"]);
    for guest in [share.as_ids(1000, 5), share.as_ids(1009, 5), share.as_ids(5, 2000), share.as_ids(5, 2009)] {
        assert_eq!(guest.create("f", O_RDWR, 0o644), Err(EPERM));
        assert_eq!(guest.mkdir("d", 0o755).map(drop), Err(EPERM));
        assert_eq!(guest.mknod("p", S_IFIFO | 0o644, 0).map(drop), Err(EPERM));
        assert_eq!(guest.symlink("x", "l").map(drop), Err(EPERM));
    }
    assert_eq!(share.host.list(""), [""; 0]);
    share.put("f", b"").unwrap();
    assert_eq!(share.chown("f", Some(1005), None).map(drop), Err(EPERM));
    assert_eq!(share.chown("f", Some(5), Some(2005)).map(drop), Err(EPERM));
    assert_eq!(share.host.stat("f").owner, ids(0, 0));
}

// postern-helper(8): "what there is they may use as the guest's kernel lets them"
#[apply(translates)]
fn a_forbidden_user_uses_what_is_there(on: Kind) {
    let share = translated(on, &["forbid-guest:1000:10"], &[]);
    share.host.write("f", b"hello");
    share.host.chown("f", 1000, 1000);
    let user = share.as_user(1000);
    assert_eq!(shown(&share, "f"), (1000, 1000));
    assert_eq!(user.get("f").unwrap(), b"hello");
    user.chmod("f", 0o600).unwrap();
    user.rename("f", "g").unwrap();
    user.unlink("g").unwrap();
}

// postern-helper(8): root of the guest is one of its ids
#[apply(translates)]
fn root_of_the_guest_may_be_another(on: Kind) {
    let share = translated(on, &["map:0:1000:1"], &["map:0:2000:1"]);
    share.mkdir("d", 0o755).unwrap();
    share.create("f", O_RDWR, 0o600).unwrap();
    share.chown("f", Some(5), Some(6)).unwrap();
    let file = share.open("f", O_RDWR).unwrap();
    share.write(&file, 0, b"root has all power over files").unwrap();
    assert_eq!((share.host.stat("d").owner, shown(&share, "d")), (ids(1000, 2000), (0, 0)));
    assert_eq!((share.host.stat("f").owner, shown(&share, "f")), (ids(5, 6), (5, 6)));
}

// postern-helper(8): "what there is they may use as the guest's kernel lets them", root too
#[apply(translates)]
fn root_of_the_guest_may_be_forbidden(on: Kind) {
    let share = translated(on, &["forbid-guest:0:1"], &[]);
    assert_eq!(share.mkdir("d", 0o755).map(drop), Err(EPERM));
    share.as_user(5).mkdir("d", 0o755).unwrap();
    assert_eq!(share.chown("d", Some(0), None).map(drop), Err(EPERM));
    share.rmdir("d").unwrap();
}

// user_namespaces(7): what has no id in the map is 65534, which may be shown as another
#[apply(promise)]
fn nobody_may_be_shown_as_somebody(on: Kind) {
    let share = translated(on, &["squash-host:65534:1000:1"], &["squash-host:65534:1000:1"]);
    let Some(foreign) = share.host.foreign_id() else {
        return assert!(!on.has_map(), "every id of the host is an id of the guest");
    };
    share.host.write("f", b"");
    share.host.chown_host("f", foreign, foreign);
    assert_eq!(shown(&share, "f"), (1000, 1000));
}

// postern-helper(8): a group that comes along with a creation is forbidden as all others are
#[apply(promise)]
fn a_supplementary_group_is_translated_too(on: Kind) {
    let share = translated(on, &[], &["map:2000:70:10", "forbid-guest:3000:1"]);
    share.mkdir("d", 0o755).unwrap();
    share.chown("d", Some(0), Some(2005)).unwrap();
    share.chmod("d", 0o2770).unwrap();
    assert_eq!(share.host.stat("d").owner, ids(0, 75));
    share.as_user(1000).in_group(2005).create("d/f", O_RDWR, 0o2755).unwrap();
    let made = share.host.stat("d/f");
    assert_eq!((made.perm(), made.owner, shown(&share, "d/f")), (0o2755, ids(1000, 75), (1000, 2005)));
    share.as_user(1000).in_group(75).create("d/g", O_RDWR, 0o2755).unwrap();
    assert_eq!(share.host.stat("d/g").perm(), 0o2755, "75 is nobody else's, and so itself");
    assert_eq!(share.as_user(1000).in_group(3000).create("d/h", O_RDWR, 0o644), Err(EPERM));
}

// postern-helper(8): "The ids in POSIX ACLs are translated, too"; virtiofsd refuses to have both
#[apply(promise)]
fn acls_name_translated_ids(on: Kind) {
    let share = setup(on, &["map:1000:5:10", "forbid-guest:3000:1"], &["map:2000:70:10"]).posix_acl().serve();
    share.put("f", b"").unwrap();
    share.setxattr("f", ACCESS, &acl(1001, 2002), 0).unwrap();
    assert_eq!(share.getxattr("f", ACCESS).unwrap(), acl(1001, 2002));
    let (uid, gid) = (share.host.uid(6), share.host.gid(72));
    assert_eq!(share.host.getxattr("f", ACCESS).unwrap(), acl(uid, gid));
    assert_eq!(share.setxattr("f", ACCESS, &acl(3000, 2002), 0), Err(EPERM));
    assert_eq!(share.setxattr("f", ACCESS, &acl(1001, 2002)[..30], 0), Err(EINVAL));
    assert_eq!(share.host.getxattr("f", ACCESS).unwrap(), acl(uid, gid));
    share.setxattr("f", ACCESS, b"", 0).unwrap();
    assert_eq!(share.host.getxattr("f", ACCESS), None, "an empty one is none");
}

// postern-helper(8): what an attribute is on the host decides, whatever the guest calls it
#[apply(promise)]
fn an_acl_by_another_name_is_translated_too(on: Kind) {
    let setup = setup(on, &["map:1000:5:10", "forbid-guest:3000:1"], &["map:2000:70:10"]);
    let share = setup.arg("--xattrmap=:prefix:client:posix_acl_:system.: :ok:all:::").serve();
    share.put("f", b"").unwrap();
    let other = ACCESS.strip_prefix("system.").unwrap();
    share.setxattr("f", other, &acl(1001, 2002), 0).unwrap();
    assert_eq!(share.getxattr("f", other).unwrap(), acl(1001, 2002));
    assert_eq!(share.host.getxattr("f", ACCESS).unwrap(), acl(share.host.uid(6), share.host.gid(72)));
    assert_eq!(share.setxattr("f", other, &acl(3000, 2002), 0), Err(EPERM));
}

// postern-helper(8): a share with one id: "squash-guest:0:0:4294967295 makes all users of the guest that one"
#[test]
fn where_one_id_is_mapped_all_users_may_be_it() {
    let (uid, gid) = Kind::User.starter();
    let single =
        |setup: Setup| setup.arg(&format!("--uid-map=:0:{uid}:1:")).arg(&format!("--gid-map=:0:{gid}:1:")).serve();
    let share = single(Kind::User.setup());
    assert_eq!(share.as_user(1000).mkdir("d", 0o755).map(drop), Err(EOVERFLOW));
    let all = ["squash-guest:0:0:4294967295", "host:0:1000:1"];
    let share = single(setup(Kind::User, &all, &all));
    let user = share.as_ids(1000, 100);
    user.mkdir("d", 0o755).unwrap();
    user.put("d/f", b"hello").unwrap();
    share.chown("d/f", Some(33), Some(33)).unwrap();
    assert_eq!((share.host.stat("d").owner, share.host.stat("d/f").owner), (ids(0, 0), ids(0, 0)));
    assert_eq!((shown(&share, "d"), shown(&share, "d/f")), ((1000, 1000), (1000, 1000)));
}

// postern-server(1): one line says what cannot be and what to do
#[apply(promise)]
fn ranges_that_cannot_be_are_refused(on: Kind) {
    let refused = |more: &[&str], why: &str| {
        let mut server = more.iter().fold(on.setup(), |setup, argument| setup.arg(argument)).start();
        assert!(ends(&mut server.child), "{more:?}");
        let log = server.log();
        assert!(log.contains(why), "{more:?}: {log}");
    };
    refused(
        &["--translate-uid=map:0:5:2", "--translate-uid=forbid-guest:1:1"],
        "ranges 0-1 and 1-1 have ids in common",
    );
    refused(&["--translate-gid=map:0:4294967294:2"], "goes beyond the last id");
    refused(&["--translate-uid=map:0:5"], "is none of guest:FROM:TO:COUNT");
    refused(&["--translate-uid=map:0:0:1", "--security-model=mapped-xattr"], "are kept as they are");
    if on.has_map() {
        refused(&["--translate-gid=squash-guest:0:70000:5"], "70000 is no group id of the share, whose map is ");
        refused(&["--translate-uid=map:1000:3000000:5"], "3000000 is no user id of the share, whose map is ");
    }
}

fn name(name: &str) -> FileName {
    FileName::new(name.as_bytes()).unwrap()
}

/// Creations of everything there is, each tried by `ask`.
macro_rules! creations {
    ($ask:ident) => {{
        let (mode, umask) = (Mode::new(0o644), Mode::new(0));
        let flags = OpenFlags::READ | OpenFlags::WRITE;
        let target = Target::new(b"x").unwrap();
        [
            $ask!(Create { name: name("f"), mode, umask, flags }),
            $ask!(TmpFile { mode, umask, flags }),
            $ask!(Mkdir { name: name("d"), mode, umask }),
            $ask!(Mknod { name: name("p"), kind: NodeKind::Fifo, mode, umask }),
            $ask!(Symlink { name: name("l"), target }),
        ]
    }};
}

// postern-security(7): with the server in the guest's hands no forbidden id is had, whatever way it is asked for
#[apply(promise)]
fn a_server_in_the_guests_hands_gets_no_forbidden_id(on: Kind) {
    let ranges = arguments(&["forbid-guest:0:10", "squash-guest:1000:20:1"], &["forbid-guest:0:10"]);
    let mut twin = Twin::with(on, &ranges.iter().map(String::as_str).collect::<Vec<_>>());
    twin.host.write("mine", b"");
    twin.host.chown("mine", 20, 20);
    let (root, file) = (twin.root.try_clone().unwrap(), twin.pin("mine"));
    let user = |uid, gid, group: Option<u32>| Caller::User {
        uid: GuestUid(uid),
        gid: GuestGid(gid),
        group: group.map(GuestGid),
    };
    let alone = |uid, gid| Caller::Alone { uid: GuestUid(uid), gid: GuestGid(gid) };
    let forbidden = [
        Caller::Root,
        user(0, 20, None),
        user(9, 20, None),
        user(20, 9, None),
        user(20, 20, Some(9)),
        alone(0, 20),
        alone(20, 0),
    ];
    let mut attempts = 0;
    for caller in forbidden {
        macro_rules! ask {
            ($op:expr) => {
                twin.ask_as(caller, &$op, &[root.as_fd()], b"").map(drop)
            };
        }
        for refused in creations!(ask) {
            assert_eq!(refused, Err(Errno::EPERM), "{caller}");
            attempts += 1;
        }
    }
    let rename = Rename { name: name("mine"), new_name: name("new"), flags: RenameFlags::WHITEOUT };
    assert_eq!(
        twin.ask(&rename, &[root.as_fd(), root.as_fd()]).map(drop),
        Err(Errno::EPERM),
        "a whiteout is made by root"
    );
    for uid in 0..10 {
        let owners = [(Some(uid), None), (None, Some(uid)), (Some(uid), Some(20)), (Some(20), Some(uid))];
        for (uid, gid) in owners {
            let changes = Changes { uid: uid.map(GuestUid), gid: gid.map(GuestGid), ..Changes::default() };
            let asked = twin.ask(&SetAttr { changes }, &[file.as_fd()]);
            assert_eq!(asked.map(drop), Err(Errno::EPERM), "{changes:?}");
            attempts += 1;
        }
        let capabilities = capability(uid);
        for (attribute, value) in
            [(ACCESS, acl(uid, 20)), (ACCESS, acl(20, uid)), ("security.capability", capabilities)]
        {
            let set = SetXattr { name: XattrName::new(attribute.as_bytes()).unwrap(), flags: XattrFlags::empty() };
            let asked = twin.ask_as(Caller::Root, &set, &[file.as_fd()], &value);
            assert_eq!(asked.map(drop), Err(Errno::EPERM), "{attribute} {uid}");
            attempts += 1;
        }
    }
    assert_eq!((twin.host.list(""), twin.host.stat("mine").owner), (vec!["mine".to_owned()], ids(20, 20)));
    assert_eq!((twin.host.getxattr("mine", ACCESS), twin.host.getxattr("mine", "security.capability")), (None, None));
    println!("{attempts} attempts");
    twin.assert_contained();
}

// postern-helper(8): who gets root's id in the share and is not root of the guest has none of its power
#[apply(promise)]
fn root_s_id_is_not_root_s_power(on: Kind) {
    let ranges = arguments(&["squash-guest:1000:0:1"], &[]);
    let mut twin = Twin::with(on, &ranges.iter().map(String::as_str).collect::<Vec<_>>());
    for (file, owner) in [("own", 0), ("other", 5)] {
        twin.host.write(file, b"");
        twin.host.chown(file, owner, owner);
        twin.host.chmod(file, 0o600);
    }
    let (own, other) = (twin.pin("own"), twin.pin("other"));
    let alone = |id| Caller::Alone { uid: GuestUid(id), gid: GuestGid(0) };
    let mut open = |caller, file: &std::os::fd::OwnedFd| {
        twin.ask_as(caller, &Open { flags: OpenFlags::READ }, &[file.as_fd()], b"").map(drop)
    };
    assert_eq!((open(alone(1000), &own), open(alone(1000), &other)), (Ok(()), Err(Errno::EACCES)));
    assert_eq!((open(alone(0), &own), open(alone(0), &other)), (Ok(()), Ok(())));
    assert_eq!(open(alone(5), &own), Err(Errno::EACCES));
}

// postern-server(1): a client on a stream is judged by the host's kernel as who he is in the share
#[apply(promise)]
fn users_of_a_stream_are_who_they_are_in_the_share(on: Kind) {
    let scratch = Scratch::new(on, false);
    let host = Host::new(scratch.path("share"), on);
    for (name, owner) in [("five", 5), ("root", 0)] {
        host.write(name, b"");
        host.chown(name, owner, owner);
        host.chmod(name, 0o600);
    }
    let ranges = arguments(&["map:0:5:1", "forbid-guest:1000:1"], &["map:0:5:1"]);
    let _server = listen(on, &scratch, &ranges.iter().map(String::as_str).collect::<Vec<_>>());
    let client = Client::connect(&scratch);
    let root = client.attach(0).unwrap();
    client.open(root, "five", O_RDWR).unwrap();
    assert_eq!(client.open(root, "root", O_RDONLY), Err(EACCES));
    let forbidden = client.attach(1000);
    assert_eq!(forbidden.and_then(|root| client.open(root, "five", O_RDONLY)), Err(EPERM));
}
