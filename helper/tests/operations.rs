//! Every operation once, as the server asks for it, in a share of root's with an identity map.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt};
use std::process::Stdio;

use common::*;
use postern_ipc::Errno;
use postern_ipc::attr::{Attr, Changes, Dev, NodeKind, OpenFlags, RenameFlags, Time, TimeChange, XattrFlags};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::{Target, XattrName};
use postern_ipc::op::*;

const RW: OpenFlags = OpenFlags::READ.union(OpenFlags::WRITE);

fn xattr(text: &str) -> XattrName {
    XattrName::new(text.as_bytes()).unwrap()
}

fn create(text: &str, flags: OpenFlags) -> Create {
    Create { name: name(text), mode: mode(0o666), umask: mode(0o022), flags }
}

#[test]
fn lookup_pins_a_name_and_a_symlink_itself() {
    let dir = dir();
    std::fs::write(dir.path().join("f"), "text").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", dir.path().join("l")).unwrap();
    let sut = Sut::new(dir.path(), &[]);
    let found = sut.ask(ROOT, Lookup { name: name("f") }, &[&sut.root]).unwrap();
    assert_eq!((found.reply.size, found.gives.len()), (4, 1));
    assert_eq!(Attr::of(&found.gives[0]).unwrap(), found.reply);
    let link = sut.ask(ROOT, Lookup { name: name("l") }, &[&sut.root]).unwrap();
    assert_eq!(link.reply.kind(), 0o120_000);
    assert_eq!(errno(sut.ask(ROOT, Lookup { name: name("x") }, &[&sut.root])), Errno::ENOENT);
    assert_eq!(errno(sut.ask(ROOT, Lookup { name: name("x") }, &[&found.gives[0]])), Errno::ENOTDIR);
}

#[test]
fn stat_and_readlink_tell_what_a_node_is() {
    let dir = dir();
    std::os::unix::fs::symlink("over/there", dir.path().join("l")).unwrap();
    let sut = Sut::new(dir.path(), &[]);
    assert!(sut.ask(ROOT, Stat {}, &[&sut.root]).unwrap().reply.mount_root);
    assert_eq!(sut.ask(ROOT, Readlink {}, &[&sut.node("l")]).unwrap().data, b"over/there");
    assert_eq!(errno(sut.ask(ROOT, Readlink {}, &[&sut.root])), Errno::EINVAL);
}

#[test]
fn setattr_changes_owner_mode_size_and_times() {
    let dir = dir();
    std::fs::write(dir.path().join("f"), "0123456789").unwrap();
    let sut = Sut::new(dir.path(), &[]);
    let changes = Changes {
        uid: Some(GuestUid(1234)),
        gid: Some(GuestGid(4321)),
        mode: Some(mode(0o640)),
        size: Some(3),
        atime: TimeChange::At(Time { sec: 5, nsec: 6 }),
        mtime: TimeChange::At(Time { sec: -7, nsec: 8 }),
        kill_setid: false,
    };
    let attr = sut.ask(ROOT, SetAttr { changes }, &[&sut.node("f")]).unwrap().reply;
    assert_eq!((attr.uid.0, attr.gid.0, attr.mode & 0o7777, attr.size), (1234, 4321, 0o640, 3));
    assert_eq!((attr.atime, attr.mtime), (Time { sec: 5, nsec: 6 }, Time { sec: -7, nsec: 8 }));
    let meta = dir.path().join("f").metadata().unwrap();
    assert_eq!((meta.uid(), meta.len(), meta.mtime()), (1234, 3, -7));
    let now = Changes { mtime: TimeChange::Now, ..Changes::default() };
    let attr = sut.ask(ROOT, SetAttr { changes: now }, &[&sut.node("f")]).unwrap().reply;
    assert!(attr.mtime.sec > 1_000_000_000 && attr.atime == Time { sec: 5, nsec: 6 });
}

// chown(2) takes -1 for "leave it"; an id it is not.
#[test]
fn the_id_that_is_none_is_refused() {
    let dir = dir();
    let sut = Sut::new(dir.path(), &[]);
    let changes = Changes { uid: Some(GuestUid(u32::MAX)), ..Changes::default() };
    assert_eq!(errno(sut.ask(ROOT, SetAttr { changes }, &[&sut.root])), Errno::EINVAL);
}

// chmod(2): EOPNOTSUPP for a symbolic link; truncate(2): "EISDIR", "EINVAL  The named file is not ... a regular file"
#[test]
fn what_cannot_be_changed_says_so() {
    let dir = dir();
    std::os::unix::fs::symlink("x", dir.path().join("l")).unwrap();
    sh(&format!("mkfifo {}/p", dir.path().display()));
    let sut = Sut::new(dir.path(), &[]);
    let set = |path: &str, changes| errno(sut.ask(ROOT, SetAttr { changes }, &[&sut.node(path)]));
    assert_eq!(set("l", Changes { mode: Some(mode(0)), ..Changes::default() }), Errno::EOPNOTSUPP);
    assert_eq!(set("", Changes { size: Some(0), ..Changes::default() }), Errno::EISDIR);
    assert_eq!(set("p", Changes { size: Some(0), ..Changes::default() }), Errno::EINVAL);
    let owned = Changes { uid: Some(GuestUid(9)), ..Changes::default() };
    assert_eq!(sut.ask(ROOT, SetAttr { changes: owned }, &[&sut.node("l")]).unwrap().reply.uid.0, 9);
}

#[test]
fn open_gives_a_descriptor_that_reads_and_writes() {
    let dir = dir();
    std::fs::write(dir.path().join("f"), "text").unwrap();
    let sut = Sut::new(dir.path(), &[]);
    assert_eq!(text(sut.open("f", OpenFlags::READ).unwrap()), "text");
    let mut file = sut.open("f", OpenFlags::WRITE | OpenFlags::APPEND).unwrap();
    file.write_all(b" more").unwrap();
    assert_eq!(text(sut.open("f", RW).unwrap()), "text more");
    let flags = rustix::fs::fcntl_getfl(&file).unwrap();
    assert!(flags.contains(rustix::fs::OFlags::APPEND) && !flags.contains(rustix::fs::OFlags::NONBLOCK));
    sut.open("f", OpenFlags::READ | OpenFlags::TRUNC).unwrap();
    assert_eq!(dir.path().join("f").metadata().unwrap().len(), 0);
    assert_eq!(errno(sut.open("f", OpenFlags::empty())), Errno::EINVAL);
}

// open(2): "ENXIO  The file is a UNIX domain socket" and more; the helper opens nothing but files and directories.
// CVE-2023-2861: a guest that has a special file opened.
#[test]
fn pipes_sockets_devices_links_and_directories_are_not_opened_as_files() {
    let dir = dir();
    let path = dir.path().display();
    sh(&format!(
        "mkfifo {path}/p; mkdir {path}/d; ln -s /etc/passwd {path}/l; mknod {path}/c c 1 3; mknod {path}/b b 7 0"
    ));
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
    let sut = Sut::new(dir.path(), &[]);
    for (path, why) in [("p", Errno::ENXIO), ("s", Errno::ENXIO), ("c", Errno::ENXIO), ("b", Errno::ENXIO)] {
        assert_eq!(errno(sut.open(path, RW)), why, "{path}");
        let existing = sut.ask(ROOT, create(path, RW), &[&sut.root]);
        assert_eq!(errno(existing), why, "create {path}");
    }
    assert_eq!(errno(sut.open("l", RW)), Errno::ELOOP);
    assert_eq!(errno(sut.ask(ROOT, create("l", RW), &[&sut.root])), Errno::ELOOP);
    assert_eq!(errno(sut.open("d", OpenFlags::READ)), Errno::EISDIR);
    assert_eq!(errno(sut.ask(ROOT, OpenDir {}, &[&sut.node("p")])), Errno::ENOTDIR);
}

#[test]
fn opendir_gives_a_descriptor_that_lists() {
    let dir = dir();
    sh(&format!("mkdir {0}/d; touch {0}/d/a {0}/d/b", dir.path().display()));
    let sut = Sut::new(dir.path(), &[]);
    let list = sut.ask(ROOT, OpenDir {}, &[&sut.node("d")]).unwrap().gives.remove(0);
    let mut names: Vec<_> = rustix::fs::Dir::new(list)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, [".", "..", "a", "b"]);
}

#[test]
fn create_makes_a_file_of_its_callers_and_opens_it() {
    let dir = dir();
    let sut = Sut::new(dir.path(), &[]);
    let made = sut.ask(user(1000), create("f", RW), &[&sut.root]).unwrap();
    assert_eq!((made.reply.uid.0, made.reply.gid.0, made.reply.mode), (1000, 1000, 0o100_644));
    let [node, file] = <[OwnedFd; 2]>::try_from(made.gives).unwrap();
    std::fs::File::from(file).write_all_at(b"text", 0).unwrap();
    assert_eq!(sut.ask(ROOT, Stat {}, &[&node]).unwrap().reply.size, 4, "the first of the two is the node");
    assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"text");
    assert_eq!(errno(sut.ask(user(1000), create("f", RW | OpenFlags::EXCL), &[&sut.root])), Errno::EEXIST);
    let again = sut.ask(user(1001), create("f", RW), &[&sut.root]).unwrap();
    assert_eq!((again.reply.uid.0, again.reply.size), (1000, 4), "the file that is there is opened, not changed");
    let cut = sut.ask(user(1001), create("f", RW | OpenFlags::TRUNC), &[&sut.root]).unwrap();
    assert_eq!(cut.reply.size, 0);
}

#[test]
fn tmpfile_makes_a_file_that_can_get_a_name_later() {
    let dir = dir();
    let sut = Sut::new(dir.path(), &[]);
    let op = || TmpFile { mode: mode(0o600), umask: mode(0), flags: RW };
    let made = sut.ask(user(7), op(), &[&sut.root]).unwrap();
    assert_eq!((made.reply.nlink, made.reply.uid.0, made.gives.len()), (0, 7, 2));
    let [node, file] = <[OwnedFd; 2]>::try_from(made.gives).unwrap();
    std::fs::File::from(file).write_all_at(b"text", 0).unwrap();
    sut.ask(ROOT, Link { name: name("f") }, &[&node, &sut.root]).unwrap();
    assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"text");
    let never = TmpFile { flags: RW | OpenFlags::EXCL, ..op() };
    let node = sut.ask(ROOT, never, &[&sut.root]).unwrap().gives.remove(0);
    assert_eq!(errno(sut.ask(ROOT, Link { name: name("g") }, &[&node, &sut.root])), Errno::ENOENT);
}

#[test]
fn mkdir_mknod_and_symlink_make_nodes_of_their_callers() {
    let dir = dir();
    let sut = Sut::new(dir.path(), &[]);
    let at = &[&sut.root];
    let attr = sut.ask(user(5), Mkdir { name: name("d"), mode: mode(0o777), umask: mode(0o027) }, at).unwrap().reply;
    assert_eq!((attr.mode, attr.uid.0, attr.gid.0), (0o40_750, 5, 5));
    for (text, kind, bits) in [
        ("f", NodeKind::File, 0o100_600),
        ("p", NodeKind::Fifo, 0o010_600),
        ("s", NodeKind::Socket, 0o140_600),
        ("w", NodeKind::Char(Dev { major: 0, minor: 0 }), 0o020_600),
    ] {
        let op = Mknod { name: name(text), kind, mode: mode(0o600), umask: mode(0) };
        let attr = sut.ask(user(5), op, at).unwrap().reply;
        assert_eq!((attr.mode, attr.uid.0), (bits, 5), "{text}");
    }
    let op = Symlink { name: name("l"), target: Target::new(b"../../etc").unwrap() };
    assert_eq!(sut.ask(user(5), op, at).unwrap().reply.uid.0, 5);
    assert_eq!(std::fs::read_link(dir.path().join("l")).unwrap().to_str(), Some("../../etc"));
    assert_eq!(errno(sut.mkdir(ROOT, "d", 0o700)), Errno::EEXIST);
}

// umask(2): a thread remembers which it has
#[test]
fn every_request_has_its_own_umask() {
    let dir = dir();
    let sut = Sut::new(dir.path(), &[]);
    for (i, (umask, bits)) in
        [(0, 0o777), (0o077, 0o700), (0o077, 0o700), (0, 0o777), (0o022, 0o755)].iter().enumerate()
    {
        let op = Mkdir { name: name(&format!("d{i}")), mode: mode(0o777), umask: mode(*umask) };
        assert_eq!(sut.ask(user(5), op, &[&sut.root]).unwrap().reply.mode, 0o40_000 | bits, "{umask:o}");
    }
}

#[test]
fn link_gives_another_name_and_unlink_takes_it_away() {
    let dir = dir();
    std::fs::write(dir.path().join("f"), "").unwrap();
    std::os::unix::fs::symlink("x", dir.path().join("l")).unwrap();
    let sut = Sut::new(dir.path(), &[]);
    let linked = sut.ask(ROOT, Link { name: name("g") }, &[&sut.node("f"), &sut.root]).unwrap();
    assert_eq!(linked.reply.nlink, 2);
    let linked = sut.ask(ROOT, Link { name: name("m") }, &[&sut.node("l"), &sut.root]).unwrap();
    assert_eq!((linked.reply.kind(), linked.reply.nlink), (0o120_000, 2), "the link itself, not what it points to");
    assert_eq!(errno(sut.ask(ROOT, Link { name: name("d") }, &[&sut.root, &sut.root])), Errno::EPERM);
    sut.ask(ROOT, Unlink { name: name("g") }, &[&sut.root]).unwrap();
    assert_eq!(errno(sut.ask(ROOT, Unlink { name: name("g") }, &[&sut.root])), Errno::ENOENT);
    sut.mkdir(ROOT, "d", 0o755).unwrap();
    assert_eq!(errno(sut.ask(ROOT, Unlink { name: name("d") }, &[&sut.root])), Errno::EISDIR);
    assert_eq!(errno(sut.ask(ROOT, Rmdir { name: name("f") }, &[&sut.root])), Errno::ENOTDIR);
    sut.ask(ROOT, Rmdir { name: name("d") }, &[&sut.root]).unwrap();
}

#[test]
fn rename_moves_replaces_exchanges_and_leaves_a_whiteout() {
    let dir = dir();
    let path = dir.path().display();
    sh(&format!("mkdir {path}/d; echo a >{path}/a; echo b >{path}/b"));
    let sut = Sut::new(dir.path(), &[]);
    let deeper = sut.node("d");
    let rename = |from: &str, to: &str, flags, at: [&OwnedFd; 2]| {
        sut.ask(ROOT, Rename { name: name(from), new_name: name(to), flags }, &at).map(|_| ())
    };
    let here = [&sut.root, &sut.root];
    assert_eq!(rename("a", "b", RenameFlags::NOREPLACE, here), Err(Errno::EEXIST));
    rename("a", "b", RenameFlags::EXCHANGE, here).unwrap();
    assert_eq!(text(sut.open("a", OpenFlags::READ).unwrap()), "b\n");
    rename("a", "c", RenameFlags::empty(), [&sut.root, &deeper]).unwrap();
    assert_eq!(text(sut.open("d/c", OpenFlags::READ).unwrap()), "b\n");
    assert_eq!(rename("d", "e", RenameFlags::empty(), [&sut.root, &deeper]), Err(Errno::EINVAL));
    rename("b", "w", RenameFlags::WHITEOUT, here).unwrap();
    let left = dir.path().join("b").metadata().unwrap();
    assert_eq!((left.mode() & 0o170_000, left.rdev()), (0o020_000, 0));
}

#[test]
fn xattrs_are_set_read_listed_and_removed() {
    let dir = dir();
    std::fs::write(dir.path().join("f"), "").unwrap();
    let sut = Sut::new(dir.path(), &[]);
    let node = sut.node("f");
    let get = |size| sut.ask(ROOT, GetXattr { name: xattr("user.a"), size }, &[&node]);
    let set =
        |flags, value: &[u8]| sut.send(ROOT, SetXattr { name: xattr("user.a"), flags }, &[&node], value).map(|_| ());
    assert_eq!(errno(get(0)), Errno::ENODATA);
    assert_eq!(set(XattrFlags::REPLACE, b"x"), Err(Errno::ENODATA));
    set(XattrFlags::CREATE, b"value").unwrap();
    assert_eq!(set(XattrFlags::CREATE, b"value"), Err(Errno::EEXIST));
    assert_eq!(get(0).unwrap().reply, 5);
    assert_eq!(errno(get(3)), Errno::ERANGE);
    assert_eq!(get(100).unwrap().data, b"value");
    let list = |size| sut.ask(ROOT, ListXattr { size }, &[&node]);
    assert_eq!((list(0).unwrap().reply, list(100).unwrap().data), (7, b"user.a\0".to_vec()));
    sut.ask(ROOT, RemoveXattr { name: xattr("user.a") }, &[&node]).unwrap();
    assert_eq!(errno(get(0)), Errno::ENODATA);
    assert_eq!(errno(sut.ask(ROOT, GetXattr { name: xattr("btrfs.x"), size: 0 }, &[&node])), Errno::EOPNOTSUPP);
    assert_eq!(
        errno(sut.send(ROOT, SetXattr { name: xattr("trusted.x"), flags: XattrFlags::empty() }, &[&node], b"x")),
        Errno::EPERM
    );
}

#[test]
fn setting_an_acl_may_take_the_set_group_id_bit_away() {
    let dir = dir();
    let sut = Sut::new(dir.path(), &["--allow-setid"]);
    let acl: Vec<u8> = [2_u32.to_le_bytes().to_vec()]
        .into_iter()
        .chain(
            [(1_u16, 6_u16, u32::MAX), (4, 4, u32::MAX), (0x20, 4, u32::MAX)]
                .map(|(tag, perm, id)| [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()),
        )
        .flatten()
        .collect();
    for (flags, left) in [(XattrFlags::empty(), 0o2000), (XattrFlags::KILL_SGID, 0)] {
        let text = format!("f{left}");
        std::fs::write(dir.path().join(&text), "").unwrap();
        std::fs::set_permissions(dir.path().join(&text), PermissionsExt::from_mode(0o2755)).unwrap();
        sut.send(ROOT, SetXattr { name: xattr("system.posix_acl_access"), flags }, &[&sut.node(&text)], &acl).unwrap();
        assert_eq!(dir.path().join(&text).metadata().unwrap().mode() & 0o6000, left);
    }
}

#[test]
fn inode_flags_project_and_generation_are_read_and_set() {
    let dir = dir();
    std::fs::write(dir.path().join("f"), "").unwrap();
    let sut = Sut::new(dir.path(), &[]);
    let node = sut.node("f");
    let flags = match sut.ask(ROOT, GetFlags {}, &[&node]) {
        Err(Errno::ENOTTY | Errno::EOPNOTSUPP) => return,
        flags => flags.unwrap().reply,
    };
    const NODUMP: u32 = 0x40;
    const IMMUTABLE: u32 = 0x10;
    sut.ask(ROOT, SetFlags { flags: flags | NODUMP }, &[&node]).unwrap();
    assert_eq!(sut.ask(ROOT, GetFlags {}, &[&node]).unwrap().reply, flags | NODUMP);
    assert_eq!(errno(sut.ask(ROOT, SetFlags { flags: flags | IMMUTABLE }, &[&node])), Errno::EPERM);
    let fsx = sut.ask(ROOT, GetFsx {}, &[&node]).unwrap().reply;
    sut.ask(ROOT, SetFsx { fsx }, &[&node]).unwrap();
    sut.ask(ROOT, GetVersion {}, &[&node]).unwrap();
    sh(&format!("mkfifo {}/p", dir.path().display()));
    assert_eq!(errno(sut.ask(ROOT, GetFlags {}, &[&sut.node("p")])), Errno::ENOTTY);
}

#[test]
fn syncfs_writes_the_file_system_to_disk() {
    let dir = dir();
    let sut = Sut::new(dir.path(), &[]);
    sut.ask(ROOT, SyncFs {}, &[&sut.root]).unwrap();
}

#[test]
fn write_fallocate_and_copyrange_keep_set_id_bits() {
    let dir = dir();
    for text in ["f", "g"] {
        std::fs::write(dir.path().join(text), "0123456789").unwrap();
        std::fs::set_permissions(dir.path().join(text), PermissionsExt::from_mode(0o6755)).unwrap();
    }
    let sut = Sut::new(dir.path(), &["--allow-setid"]);
    let (f, g) = (sut.node("f"), sut.node("g"));
    let bits = |text: &str| dir.path().join(text).metadata().unwrap().mode() & 0o7777;
    assert_eq!(sut.send(ROOT, Write { offset: 2 }, &[&f], b"xx").unwrap().reply, 2);
    assert_eq!(bits("f"), 0o6755);
    sut.ask(ROOT, Fallocate { mode: 0, offset: 0, length: 100 }, &[&f]).unwrap();
    assert_eq!((bits("f"), dir.path().join("f").metadata().unwrap().len()), (0o6755, 100));
    let op = CopyRange { from_offset: 1, to_offset: 0, length: 4 };
    assert_eq!(sut.ask(ROOT, op, &[&f, &g]).unwrap().reply, 4);
    assert_eq!((bits("g"), &std::fs::read(dir.path().join("g")).unwrap()[..6]), (0o6755, &b"1xx445"[..]));
    let cut = |kill_setid| SetAttr { changes: Changes { size: Some(1), kill_setid, ..Changes::default() } };
    sut.ask(ROOT, cut(false), &[&f]).unwrap();
    assert_eq!(bits("f"), 0o6755);
    sut.open("f", OpenFlags::READ | OpenFlags::TRUNC).unwrap();
    assert_eq!(bits("f"), 0o6755);
    sut.open("f", OpenFlags::WRITE | OpenFlags::TRUNC | OpenFlags::KILL_SETID).unwrap();
    assert_eq!(bits("f"), 0o755);
    sut.ask(ROOT, cut(true), &[&g]).unwrap();
    assert_eq!(bits("g"), 0o755);
}

// fcntl(2): F_SETLEASE; an open that conflicts blocks, or with O_NONBLOCK fails with EWOULDBLOCK
#[test]
fn a_lease_does_not_hold_the_helper_up_for_long() {
    let dir = dir();
    std::fs::write(dir.path().join("f"), "").unwrap();
    let sut = Sut::new(dir.path(), &[]);
    let f = dir.path().join("f").display().to_string();
    // perl's fcntl with F_SETLEASE (1024) and F_RDLCK (0).
    let hold = "open F,'<',shift; $SIG{IO}='IGNORE'; fcntl(F,1024,0) or die; $|=1; print 1; sleep 20";
    let mut holder = std::process::Command::new("perl").args(["-e", hold, &f]).stdout(Stdio::piped()).spawn().unwrap();
    holder.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let since = std::time::Instant::now();
    assert_eq!(errno(sut.open("f", RW)), Errno::EAGAIN);
    assert!(since.elapsed().as_secs() < 5);
    holder.kill().unwrap();
    holder.wait().unwrap();
    sut.open("f", RW).unwrap();
}

// CVE-2022-0358: a file made in a set-group-id directory by a stranger to the group kept the bit.
#[test]
fn cve_2022_0358_a_supplementary_group_counts_in_a_set_group_id_directory() {
    let dir = dir();
    let sut = Sut::new(dir.path(), &["--allow-setid"]);
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o2777)).unwrap();
    std::os::unix::fs::chown(dir.path(), None, Some(50)).unwrap();
    let by = |group| Caller::User { uid: GuestUid(1000), gid: GuestGid(1000), group };
    let attr = sut.create(by(Some(GuestGid(50))), "member", 0o2755).unwrap();
    assert_eq!((attr.gid.0, attr.mode & 0o2000), (50, 0o2000));
    let attr = sut.create(by(None), "other", 0o2755).unwrap();
    assert_eq!((attr.gid.0, attr.mode & 0o2000), (50, 0));
}
