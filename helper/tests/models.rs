//! What is kept of a mapped share's files may be anybody's, and who asks may be the guest: nothing of it leads
//! elsewhere, is waited for, or is reached by a name or a descriptor.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use common::*;
use postern_ipc::attr::{Changes, NodeKind, OpenFlags, RenameFlags, XattrFlags};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::{Target, XattrName};
use postern_ipc::op::*;
use postern_ipc::{Errno, Result};
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, openat};

const FILE: [&str; 1] = ["--security-model=mapped-file"];
const XATTR: [&str; 1] = ["--security-model=mapped-xattr"];
const OURS: [&str; 2] = [".virtfs_metadata", ".virtfs_metadata_root"];

fn chown(sut: &Sut, node: &OwnedFd, uid: u32) -> Result<u32> {
    let changes = Changes { uid: Some(GuestUid(uid)), ..Changes::default() };
    Ok(sut.ask(ROOT, SetAttr { changes }, &[node])?.reply.uid.0)
}

fn uid(sut: &Sut, text: &str) -> Result<u32> {
    Ok(sut.ask(ROOT, Lookup { name: name(text) }, &[&sut.root])?.reply.uid.0)
}

/// A server that may walk, as none does in such a share.
fn pin(sut: &Sut, path: &str) -> OwnedFd {
    openat(&sut.root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

// CVE-2017-7493
#[test]
fn no_operation_takes_a_name_of_the_models_own() {
    let dir = dir();
    let sut = Sut::new(dir.path(), &FILE);
    sut.create(ROOT, "f", 0o644).unwrap();
    chown(&sut, &sut.root, 5).unwrap();
    let (root, f, flags) = (&sut.root, sut.node("f"), OpenFlags::READ | OpenFlags::WRITE);
    for hidden in OURS.map(name) {
        let (mode, umask) = (mode(0o644), mode(0));
        let found = [
            sut.ask(ROOT, Lookup { name: hidden }, &[root]).map(drop),
            sut.ask(ROOT, Unlink { name: hidden }, &[root]).map(drop),
            sut.ask(ROOT, Rmdir { name: hidden }, &[root]).map(drop),
            sut.ask(ROOT, rename(hidden, name("g")), &[root, root]).map(drop),
        ];
        assert_eq!(found, [Err(Errno::ENOENT); 4]);
        let target = Target::new(b"/etc").unwrap();
        let made = [
            sut.ask(ROOT, Create { name: hidden, mode, umask, flags }, &[root]).map(drop),
            sut.ask(ROOT, Mkdir { name: hidden, mode, umask }, &[root]).map(drop),
            sut.ask(ROOT, Mknod { name: hidden, kind: NodeKind::File, mode, umask }, &[root]).map(drop),
            sut.ask(ROOT, Symlink { name: hidden, target }, &[root]).map(drop),
            sut.ask(ROOT, Link { name: hidden }, &[&f, root]).map(drop),
            sut.ask(ROOT, rename(name("f"), hidden), &[root, root]).map(drop),
        ];
        assert_eq!(made, [Err(Errno::EINVAL); 6]);
    }
    assert_eq!(uid(&sut, "f"), Ok(0));
}

fn rename(from: postern_ipc::name::FileName, to: postern_ipc::name::FileName) -> Rename {
    Rename { name: from, new_name: to, flags: RenameFlags::empty() }
}

// CVE-2017-7493, by a server that got a descriptor all the same
#[test]
fn a_descriptor_of_metadata_is_not_taken() {
    let dir = dir();
    let sut = Sut::new(dir.path(), &FILE);
    sut.create(user(1000), "f", 0o644).unwrap();
    chown(&sut, &sut.root, 5).unwrap();
    for path in [".virtfs_metadata", ".virtfs_metadata/f", ".virtfs_metadata_root"] {
        let hidden = pin(&sut, path);
        assert_eq!(errno(sut.ask(ROOT, Stat {}, &[&hidden])), Errno::ESTALE, "{path}");
        assert_eq!(errno(sut.ask(ROOT, Open { flags: OpenFlags::WRITE }, &[&hidden])), Errno::ESTALE, "{path}");
        assert_eq!(errno(sut.ask(ROOT, OpenDir {}, &[&hidden])), Errno::ESTALE, "{path}");
        assert_eq!(errno(sut.ask(ROOT, Unlink { name: name("f") }, &[&hidden])), Errno::ESTALE, "{path}");
        assert_eq!(errno(sut.ask(ROOT, Link { name: name("g") }, &[&hidden, &sut.root])), Errno::ESTALE, "{path}");
    }
    assert_eq!(uid(&sut, "f"), Ok(1000));
}

#[test]
fn no_attribute_of_the_models_own_is_set_by_who_asks() {
    let dir = dir();
    for options in [XATTR, FILE] {
        let sut = Sut::new(dir.path(), &options);
        let _ = sut.create(user(1000), "f", 0o644);
        let f = sut.node("f");
        for text in ["user.virtfs.uid", "user.virtfs.mode", "user.virtfs.anything"] {
            let name = XattrName::new(text.as_bytes()).unwrap();
            let set = SetXattr { name, flags: XattrFlags::empty() };
            assert_eq!(errno(sut.send(ROOT, set, &[&f], &[0; 4])), Errno::EPERM);
            assert_eq!(errno(sut.ask(ROOT, RemoveXattr { name }, &[&f])), Errno::EPERM);
            assert_eq!(errno(sut.ask(ROOT, GetXattr { name, size: 100 }, &[&f])), Errno::ENODATA);
        }
        assert_eq!(sut.ask(ROOT, ListXattr { size: 1000 }, &[&f]).unwrap().data, b"");
    }
}

/// Something that may lie where metadata should, and what makes it.
type Plant<'a> = (&'a str, &'a dyn Fn(&Path));

// fifo(7), open(2): pipes wait for a writer when they are opened, devices do things
#[test]
fn whatever_lies_where_metadata_should_is_neither_followed_nor_opened_nor_waited_for() {
    let dir = dir();
    let at = |path: &str| dir.path().join(path);
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("f"), "virtfs.uid=666\n").unwrap();
    let plants: [Plant<'_>; 6] = [
        ("pipe", &|path| mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap()),
        ("device", &|path| mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), 0x103).unwrap()),
        ("link", &|path| symlink(outside.path().join("f"), path).unwrap()),
        ("directory", &|path| std::fs::create_dir(path).unwrap()),
        ("socket", &|path| mknodat(CWD, path, FileType::Socket, Mode::from_raw_mode(0o666), 0).unwrap()),
        ("dangling", &|path| symlink("/nowhere", path).unwrap()),
    ];
    let since = Instant::now();
    let sut = Sut::new(dir.path(), &FILE);
    sut.create(user(1000), "f", 0o644).unwrap();
    for (what, plant) in plants {
        let kept = at(".virtfs_metadata/f");
        std::fs::remove_file(&kept).or_else(|_| std::fs::remove_dir(&kept)).unwrap();
        plant(&kept);
        assert_eq!(uid(&sut, "f"), Ok(0), "{what}: as the host has it");
        assert_eq!(chown(&sut, &sut.node("f"), 7), Err(Errno::EIO), "{what}");
    }
    std::fs::remove_dir_all(at(".virtfs_metadata")).unwrap();
    for (what, plant) in plants.into_iter().filter(|(what, _)| *what != "directory") {
        plant(&at(".virtfs_metadata"));
        assert_eq!(uid(&sut, "f"), Ok(0), "{what}: as the host has it");
        assert!(chown(&sut, &sut.node("f"), 7).is_err(), "{what}");
        assert!(sut.create(user(7), "new", 0o644).is_err(), "{what}");
        assert!(!at("new").exists(), "{what}: nothing is made of which nothing can be kept");
        std::fs::remove_file(at(".virtfs_metadata")).unwrap();
    }
    symlink(outside.path(), at(".virtfs_metadata")).unwrap();
    assert_eq!(uid(&sut, "f"), Ok(0), "a directory elsewhere is not read");
    assert!(chown(&sut, &sut.node("f"), 7).is_err());
    assert_eq!(std::fs::read_to_string(outside.path().join("f")).unwrap(), "virtfs.uid=666\n");
    assert!(since.elapsed() < Duration::from_secs(10));
}

#[test]
fn metadata_that_says_nothing_or_too_much_is_bounded() {
    let dir = dir();
    let sut = Sut::new(dir.path(), &FILE);
    sut.create(user(1000), "f", 0o644).unwrap();
    let kept = dir.path().join(".virtfs_metadata/f");
    for text in ["", "\0\0\0", "virtfs.uid=x\nvirtfs.mode=99999999999999\n", "uid=1\n"] {
        std::fs::write(&kept, text).unwrap();
        assert_eq!(uid(&sut, "f"), Ok(0), "{text:?}");
    }
    std::fs::File::create(&kept).unwrap().set_len(1 << 40).unwrap();
    assert_eq!(uid(&sut, "f"), Ok(0));
    assert_eq!(chown(&sut, &sut.node("f"), 8), Ok(8));
    assert_eq!(std::fs::read(&kept).unwrap(), b"virtfs.uid=8\n");
    std::fs::write(&kept, "virtfs.mode=16895\n").unwrap();
    let attr = sut.ask(ROOT, Lookup { name: name("f") }, &[&sut.root]).unwrap().reply;
    assert_eq!(attr.kind(), 0o100_000, "a file is no directory, whatever is said");
}

// symlink(7); limits.h: PATH_MAX
#[test]
fn a_link_that_a_file_stands_for_says_no_more_than_a_path() {
    let dir = dir();
    let sut = Sut::new(dir.path(), &XATTR);
    let target = Target::new(b"over/there").unwrap();
    sut.ask(user(7), Symlink { name: name("l"), target }, &[&sut.root]).unwrap();
    let said = || sut.ask(ROOT, Readlink {}, &[&sut.node("l")]).unwrap().data;
    assert_eq!(said(), b"over/there");
    std::fs::write(dir.path().join("l"), [b'x'; 100_000]).unwrap();
    assert_eq!(said().len(), 4095);
    std::fs::write(dir.path().join("l"), b"a\0b").unwrap();
    assert_eq!(said(), b"a");
    assert_eq!(errno(sut.ask(ROOT, Readlink {}, &[&sut.root])), Errno::EINVAL);
}

// A caller whom nobody has judged is judged by the host's kernel, which does not know the guest's ids.
#[test]
fn nobody_but_root_acts_alone_in_a_mapped_share() {
    let dir = dir();
    for options in [XATTR, FILE] {
        let sut = Sut::new(dir.path(), &options);
        let alone = |uid| Caller::Alone { uid: GuestUid(uid), gid: GuestGid(uid) };
        assert_eq!(errno(sut.ask(alone(1000), Stat {}, &[&sut.root])), Errno::EPERM);
        assert!(sut.ask(alone(0), Stat {}, &[&sut.root]).is_ok());
    }
}

#[test]
fn set_id_bits_and_devices_of_the_guest_are_nothing_on_the_host() {
    let dir = dir();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    for (options, perm) in [(XATTR, 0o600), (FILE, 0o600), (["--security-model=mapped-links"], 0o755)] {
        let sut = Sut::new(dir.path(), &options);
        let text = format!("f{}", &options[0][23..]);
        assert_eq!(sut.create(ROOT, &text, 0o6755).unwrap().mode, 0o106_755);
        let meta = dir.path().join(&text).metadata().unwrap();
        assert_eq!(meta.permissions().mode(), 0o100_000 | perm);
        let kind = NodeKind::Block(postern_ipc::attr::Dev { major: 8, minor: 0 });
        let op = Mknod { name: name(&format!("{text}.dev")), kind, mode: mode(0o666), umask: mode(0) };
        let attr = sut.ask(ROOT, op, &[&sut.root]).unwrap().reply;
        assert_eq!((attr.mode, attr.rdev.major), (0o060_666, 8));
        assert!(dir.path().join(format!("{text}.dev")).metadata().unwrap().is_file());
    }
}
