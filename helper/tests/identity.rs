//! Whose files the guest's are on the host, in the four forms, and what may not be planted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};

use common::*;
use postern_ipc::Errno;
use postern_ipc::attr::{Attr, Changes, Dev, NodeKind, OpenFlags, XattrFlags};
use postern_ipc::hello::{Hello, LENGTH, News, VERSION, receive_news, send_hello};
use postern_ipc::id::{GuestGid, GuestUid};
use postern_ipc::name::XattrName;
use postern_ipc::op::*;

const MAP: [&str; 2] = ["--uid-map=:0:100000:1000:", "--gid-map=:0:200000:1000:"];
const USER: By = By::User { uid: 4242, subordinate: Some((300_000, 65_536)) };
const ALONE: By = By::User { uid: 4242, subordinate: None };

fn owner(path: &Path) -> (u32, u32) {
    let meta = path.symlink_metadata().unwrap();
    (meta.uid(), meta.gid())
}

/// A directory whose owner on the host is `id`.
fn owned(id: u32) -> tempfile::TempDir {
    let dir = dir();
    chown(dir.path(), Some(id), Some(id)).unwrap();
    dir
}

/// A directory whose owner and group are guest root's by [`MAP`].
fn mapped_dir() -> tempfile::TempDir {
    let dir = dir();
    chown(dir.path(), Some(100_000), Some(200_000)).unwrap();
    dir
}

fn setattr(changes: Changes) -> SetAttr {
    SetAttr { changes }
}

fn chown_to(uid: u32) -> SetAttr {
    setattr(Changes { uid: Some(GuestUid(uid)), ..Changes::default() })
}

#[test]
fn with_a_map_files_belong_to_the_mapped_ids() {
    let dir = mapped_dir();
    let sut = Sut::new(dir.path(), &MAP);
    assert_eq!(sut.create(user(5), "f", 0o644).unwrap().uid, GuestUid(5));
    assert_eq!(owner(&dir.path().join("f")), (100_005, 200_005));
    sut.mkdir(ROOT, "d", 0o755).unwrap();
    assert_eq!(owner(&dir.path().join("d")), (100_000, 200_000));
    sut.ask(ROOT, chown_to(999), &[&sut.node("f")]).unwrap();
    assert_eq!(owner(&dir.path().join("f")).0, 100_999);
}

// user_namespaces(7): chown to an unmapped id "fails with EINVAL"; setfsuid is refused silently; creating EOVERFLOW
#[test]
fn an_id_outside_the_map_is_an_error_and_never_itself() {
    let dir = mapped_dir();
    let sut = Sut::new(dir.path(), &MAP);
    for id in [1000, 65_534, 100_000, u32::MAX] {
        assert_eq!(errno(sut.create(user(id), "f", 0o644)), Errno::EOVERFLOW, "{id}");
        assert_eq!(errno(sut.ask(ROOT, chown_to(id), &[&sut.root])), Errno::EINVAL, "{id}");
    }
    let group = postern_ipc::id::Caller::User { uid: GuestUid(1), gid: GuestGid(1000), group: None };
    assert_eq!(errno(sut.mkdir(group, "d", 0o755)), Errno::EOVERFLOW);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    assert_eq!(sut.create(user(7), "f", 0o644).unwrap().uid, GuestUid(7), "and afterwards all is as before");
}

// CAP_DAC_OVERRIDE counts for inodes whose owner and group are both mapped. capabilities(7), user_namespaces(7)
#[test]
fn a_host_file_of_an_unmapped_owner_is_nobodys_and_out_of_reach() {
    let dir = mapped_dir();
    std::fs::write(dir.path().join("host"), "secret").unwrap();
    std::fs::set_permissions(dir.path().join("host"), PermissionsExt::from_mode(0o600)).unwrap();
    let sut = Sut::new(dir.path(), &MAP);
    let node = sut.node("host");
    let attr = sut.ask(ROOT, Stat {}, &[&node]).unwrap().reply;
    assert_eq!((attr.uid.0, attr.gid.0), (65_534, 65_534));
    assert_eq!(errno(sut.ask(ROOT, Open { flags: OpenFlags::READ }, &[&node])), Errno::EACCES);
    let mode = setattr(Changes { mode: Some(mode(0o666)), ..Changes::default() });
    assert_eq!(errno(sut.ask(ROOT, mode, &[&node])), Errno::EPERM);
    assert_eq!(errno(sut.ask(ROOT, chown_to(0), &[&node])), Errno::EPERM);
}

#[test]
fn without_a_map_every_id_is_itself() {
    let dir = dir();
    let sut = Sut::new(dir.path(), &[]);
    sut.create(user(1234), "f", 0o644).unwrap();
    assert_eq!(owner(&dir.path().join("f")), (1234, 1234));
    assert!(sut.log().contains("every id is itself"), "{}", sut.log());
    // CVE-2020-35517: a device node that the guest made in the share led it to the host's device.
    let null = Mknod {
        name: name("null"),
        kind: NodeKind::Char(Dev { major: 1, minor: 3 }),
        mode: mode(0o666),
        umask: mode(0),
    };
    assert_eq!(errno(sut.ask(ROOT, null, &[&sut.root])), Errno::EPERM);
}

// The guest's kernel has judged the permission, supplementary groups it did not send included.
#[test]
fn a_user_makes_files_where_the_guests_kernel_lets_him() {
    let dir = dir();
    std::fs::create_dir(dir.path().join("group")).unwrap();
    std::fs::set_permissions(dir.path().join("group"), PermissionsExt::from_mode(0o770)).unwrap();
    let sut = Sut::new(dir.path(), &[]);
    let op = Mkdir { name: name("d"), mode: mode(0o755), umask: mode(0) };
    assert_eq!(sut.ask(user(1000), op, &[&sut.node("group")]).unwrap().reply.uid, GuestUid(1000));
}

#[test]
fn an_ordinary_users_guest_root_is_the_user_and_others_are_subordinate_ids() {
    let dir = owned(4242);
    let sut = Sut::by(USER, dir.path(), &[]);
    sut.create(ROOT, "root", 0o644).unwrap();
    sut.create(user(1), "one", 0o644).unwrap();
    sut.create(user(65_536), "last", 0o644).unwrap();
    assert_eq!(owner(&dir.path().join("root")), (4242, 4242));
    assert_eq!(owner(&dir.path().join("one")), (300_000, 300_000));
    assert_eq!(owner(&dir.path().join("last")), (365_535, 365_535));
    assert_eq!(errno(sut.create(user(65_537), "beyond", 0o644)), Errno::EOVERFLOW);
    sut.ask(ROOT, chown_to(2), &[&sut.node("root")]).unwrap();
    assert_eq!(owner(&dir.path().join("root")).0, 300_001);
}

#[test]
fn without_subordinate_ids_the_user_is_alone_and_a_line_says_so() {
    let dir = owned(4242);
    let sut = Sut::by(ALONE, dir.path(), &[]);
    sut.create(ROOT, "f", 0o644).unwrap();
    assert_eq!(owner(&dir.path().join("f")), (4242, 4242));
    assert_eq!(errno(sut.create(user(1), "g", 0o644)), Errno::EOVERFLOW);
    assert_eq!(errno(sut.ask(ROOT, chown_to(1), &[&sut.node("f")])), Errno::EINVAL);
    let log = sut.log();
    assert_eq!(log.matches("makes all that one): cannot use subordinate user ids").count(), 1, "{log}");
    let group = postern_ipc::id::Caller::User { uid: GuestUid(0), gid: GuestGid(0), group: Some(GuestGid(0)) };
    assert!(sut.mkdir(group, "d", 0o755).is_ok());
}

#[test]
fn a_user_may_give_a_map_of_his_own_ids_and_no_others() {
    let dir = owned(4242);
    let mine = ["--uid-map=:0:300000:10:", "--gid-map=:0:300000:10:"];
    chown(dir.path(), Some(300_000), Some(300_000)).unwrap();
    let sut = Sut::by(USER, dir.path(), &mine);
    sut.create(user(3), "f", 0o644).unwrap();
    assert_eq!(owner(&dir.path().join("f")), (300_003, 300_003));
    assert!(sut.create(ROOT, "setid", 0o4755).is_ok(), "subordinate ids are nobody's");
    let mut started = Started::new(USER, dir.path(), &["--uid-map=:0:0:10:"]);
    started.greet(1, false);
    assert_eq!(started.status(), Some(1));
    assert!(started.log().contains("cannot write a map by /usr/bin/newuidmap"), "{}", started.log());
}

#[test]
fn the_hosts_root_has_all_ids_and_no_user_namespace() {
    let dir = dir();
    let sut = Sut::new(dir.path(), &["--identity=host", "--allow-setid", "--allow-devices"]);
    sut.create(user(77), "f", 0o6755).unwrap();
    let meta = dir.path().join("f").metadata().unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (77, 0o6755));
    let node = |kind| Mknod { name: name("n"), kind, mode: mode(0o600), umask: mode(0) };
    let null = NodeKind::Char(Dev { major: 1, minor: 3 });
    sut.ask(ROOT, node(null), &[&sut.root]).unwrap();
    assert_eq!(errno(sut.open("n", OpenFlags::READ)), Errno::ENXIO);
    assert_eq!(errno(sut.create(user(u32::MAX), "g", 0o600)), Errno::EOVERFLOW);
    let namespace = |pid: u32| std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap();
    assert_eq!(namespace(sut.worker()), namespace(std::process::id()));
    for option in ["--identity=host", "--allow-setid", "--allow-devices"] {
        assert!(sut.log().contains(&format!("warning: {option}")), "{option}: {}", sut.log());
    }
}

#[test]
fn only_root_can_be_the_hosts_root() {
    let dir = owned(4242);
    let mut started = Started::new(USER, dir.path(), &["--identity=host"]);
    started.greet(1, false);
    assert_eq!(started.status(), Some(1));
    assert!(started.log().contains("cannot be the host's root: not started by it;"), "{}", started.log());
}

/// What a guest may try to plant; all are refused or none.
fn plant(sut: &Sut) -> Vec<Errno> {
    let file = sut.create(ROOT, "f", 0o755).map(|_| sut.node("f")).unwrap();
    let capability = [1, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let xattr = SetXattr { name: XattrName::new(b"security.capability").unwrap(), flags: XattrFlags::empty() };
    let made = Mknod { name: name("n"), kind: NodeKind::File, mode: mode(0o2755), umask: mode(0) };
    let flags = OpenFlags::READ | OpenFlags::WRITE;
    let nameless = TmpFile { mode: mode(0o4755), umask: mode(0), flags };
    let change = setattr(Changes { mode: Some(mode(0o4755)), ..Changes::default() });
    let results = [
        sut.send(ROOT, xattr, &[&file], &capability).map(|_| ()),
        sut.ask(ROOT, made, &[&sut.root]).map(|_| ()),
        sut.ask(ROOT, nameless, &[&sut.root]).map(|_| ()),
        sut.create(ROOT, "c", 0o4755).map(|_| ()),
        sut.ask(ROOT, change, &[&file]).map(|_| ()),
    ];
    results.into_iter().filter_map(Result::err).collect()
}

// By the host's own path a set-id file works, whatever the attributes of the share's mount.
#[test]
fn set_id_bits_are_refused_where_users_of_the_host_could_step_on_them() {
    for options in [&[][..], &["--identity=host"]] {
        let dir = dir();
        let sut = Sut::new(dir.path(), options);
        assert_eq!(plant(&sut), [Errno::EPERM; 5]);
        assert!(sut.log().contains("--allow-setid allows them"));
        sut.mkdir(ROOT, "d", 0o755).unwrap();
        let bit = setattr(Changes { mode: Some(mode(0o2755)), ..Changes::default() });
        let attr = sut.ask(ROOT, bit, &[&sut.node("d")]).unwrap().reply;
        assert_eq!(attr.mode & 0o7777, 0o2755, "on a directory the bit only hands the group on");
    }
}

#[test]
fn set_id_bits_are_the_guests_business_where_nobody_else_can_step_on_them() {
    let closed = dir();
    std::fs::set_permissions(closed.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let inner = closed.path().join("share");
    std::fs::create_dir(&inner).unwrap();
    std::fs::set_permissions(&inner, PermissionsExt::from_mode(0o755)).unwrap();
    assert_eq!(plant(&Sut::new(&inner, &[])), []);
    assert_eq!(plant(&Sut::new(dir().path(), &["--allow-setid"])), []);
    let own = closed.path().join("own");
    std::fs::create_dir(&own).unwrap();
    for dir in [closed.path(), &own] {
        chown(dir, Some(4242), Some(4242)).unwrap();
    }
    assert_eq!(plant(&Sut::by(USER, &own, &[])), []);
}

// postern-helper(8): They give EPERM where a mapped id may be a host user's: guest root is the user who started it.
#[test]
fn an_ordinary_users_own_id_is_kept_from_other_users_as_root_is() {
    for by in [USER, ALONE] {
        assert_eq!(plant(&Sut::by(by, owned(4242).path(), &[])), [Errno::EPERM; 5]);
    }
}

// postern-helper(8): a directory above DIR lets nobody through but its owner. DIR itself is the guest's to open.
#[test]
fn a_share_is_not_closed_by_its_own_mode_which_the_guest_can_change() {
    let dir = dir();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let sut = Sut::new(dir.path(), &[]);
    let open = setattr(Changes { mode: Some(mode(0o755)), ..Changes::default() });
    sut.ask(ROOT, open, &[&sut.root]).unwrap();
    assert_eq!(plant(&sut), [Errno::EPERM; 5]);
}

// mmap(2): a write to a shared mapping is no write(2): no kernel takes set-id bits or capabilities away for it.
#[test]
fn a_file_opened_for_writing_has_no_set_id_bits_left_where_they_may_not_be_planted() {
    let capability = [1, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for options in [&[][..], &["--identity=host"]] {
        let dir = dir();
        let path = dir.path().join("su");
        std::fs::write(&path, "harmless").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o6755)).unwrap();
        rustix::fs::setxattr(&path, "security.capability", &capability, rustix::fs::XattrFlags::empty()).unwrap();
        let sut = Sut::new(dir.path(), options);
        drop(sut.open("su", OpenFlags::READ).unwrap());
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o6755, "a reader changes nothing");
        drop(sut.open("su", OpenFlags::READ | OpenFlags::WRITE).unwrap());
        let seen = rustix::fs::getxattr(&path, "security.capability", &mut [0; 64][..]);
        assert_eq!((path.metadata().unwrap().mode() & 0o7777, seen.is_ok()), (0o755, false), "{options:?}");
    }
}

// chmod(2) here is a look at the old bits and a change: between the two another channel may give the file away.
#[test]
fn set_id_bits_are_not_set_again_where_they_may_not_be_planted() {
    let dir = dir();
    let path = dir.path().join("su");
    std::fs::write(&path, "harmless").unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o4755)).unwrap();
    let sut = Sut::new(dir.path(), &[]);
    let chmod = |bits| setattr(Changes { mode: Some(mode(bits)), ..Changes::default() });
    assert_eq!(errno(sut.ask(ROOT, chmod(0o4750), &[&sut.node("su")])), Errno::EPERM);
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o4755);
    sut.ask(ROOT, chmod(0o750), &[&sut.node("su")]).unwrap();
    assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o750);
}

#[test]
fn a_file_that_has_set_id_bits_loses_them_by_a_write_where_they_may_not_be_planted() {
    let dir = dir();
    std::fs::write(dir.path().join("f"), "su").unwrap();
    std::fs::set_permissions(dir.path().join("f"), PermissionsExt::from_mode(0o4755)).unwrap();
    let sut = Sut::new(dir.path(), &["--identity=host"]);
    let node = sut.node("f");
    sut.send(ROOT, Write { offset: 0 }, &[&node], b"evil").unwrap();
    assert_eq!(Attr::of(&node).unwrap().mode & 0o7777, 0o755);
}

/// Starts a server in a user namespace of its own, run by user `uid` of the host, and says which map it got and
/// which ids it was told, if any.
fn mapped(by: By, uid: u32, dir: &Path, options: &[&str]) -> Option<(String, String, (u32, u32))> {
    let started = Started::new(by, dir, options);
    let (raw, typed) = std::os::unix::net::UnixStream::pair().unwrap();
    send_hello(&typed, &Hello { version: VERSION, channels: 1, wants_map: true }).unwrap();
    let mut hello = [0; LENGTH];
    std::io::Read::read_exact(&mut &raw, &mut hello).unwrap();
    let hex: String = hello.iter().map(|byte| format!("{byte:02x}")).collect();
    let program = r#"open S, "+<&=0"; setsockopt(S, 1, 16, 1); $hello = pack("H*", shift); syswrite(S, $hello);
        sysread(S, $news, length($hello)); syswrite(STDERR, $news);
        for my $map (qw(uid_map gid_map)) {
            open F, "/proc/self/$map";
            while (my $line = <F>) { print join(" ", split(" ", $line)), "\n" }
            print "-\n";
        }"#;
    let id = uid.to_string();
    let output = Command::new("setpriv")
        .args(["--reuid", &id, "--regid", &id, "--clear-groups", "unshare", "--user", "perl", "-e", program, &hex])
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(started.socket.try_clone().unwrap())))
        .output()
        .unwrap();
    let (raw, typed) = std::os::unix::net::UnixStream::pair().unwrap();
    std::io::Write::write_all(&mut &raw, &output.stderr).unwrap();
    drop(raw);
    let maps = String::from_utf8(output.stdout).unwrap();
    match receive_news(&typed) {
        Ok(News::Mapped { uid, gid }) => {
            let [uids, gids, _] = maps.split("-\n").map(str::to_owned).collect::<Vec<_>>().try_into().unwrap();
            Some((uids, gids, (uid.0, gid.0)))
        }
        Ok(News::Welcome(_)) => {
            assert_eq!(maps, "-\n-\n");
            None
        }
        other => panic!("{other:?} {}", started.log()),
    }
}

#[test]
fn the_servers_namespace_gets_the_shares_map_and_an_id_of_its_own() {
    let dir = dir();
    let (uids, gids) = ("0 100000 1000\n65534 65534 1\n".into(), "0 200000 1000\n65534 65534 1\n".into());
    assert_eq!(mapped(By::Root, 0, dir.path(), &MAP), Some((uids, gids, (65_534, 65_534))));
    let all = "0 0 4294967295\n".to_owned();
    let got = mapped(By::Root, 0, dir.path(), &[]);
    assert_eq!(got, Some((all.clone(), all, (65_534, 65_534))), "never the host's root");
}

// Who greets the helper could be anybody of the map, in the share and elsewhere.
#[test]
fn a_server_that_is_not_roots_gets_no_ids_of_other_users() {
    let dir = dir();
    for options in [&[][..], &["--identity=host"], &["--uid-map=:0:999:2:", "--gid-map=:0:999:1:"]] {
        assert_eq!(mapped(By::Root, 999, dir.path(), options), None, "{options:?}");
    }
    let own = ["--uid-map=:0:999:1:", "--gid-map=:0:999:1:"];
    let map = "0 999 1\n".to_owned();
    assert_eq!(mapped(By::Root, 999, dir.path(), &own), Some((map.clone(), map, (0, 0))));
}

#[test]
fn the_server_of_an_ordinary_user_is_the_last_of_his_subordinate_ids() {
    let dir = owned(4242);
    let map = "0 4242 1\n1 300000 65536\n".to_owned();
    assert_eq!(mapped(USER, 4242, dir.path(), &[]), Some((map.clone(), map, (65_536, 65_536))));
    let alone = "0 4242 1\n".to_owned();
    assert_eq!(mapped(ALONE, 4242, dir.path(), &[]), Some((alone.clone(), alone, (0, 0))));
}
