//! The mapped security models and `none`: what the guest owns is kept beside the host's files, which belong to the user
//! who serves. QEMU's formats, as its own 9p file system driver reads and writes them.

use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use postern_ipc::name::{FileName, Names};
use postern_ipc::op::OpenEach;
use postern_server::fuse::abi::WriteFlags;
use postern_tests::prelude::*;
use postern_tests::proxy::{Arg, Helper, Proxy, kind};
use postern_tests::twin::{Twin, children};
use rustix::fs::XattrFlags;

const MAPPED: [Kind; 3] = [Kind::MappedXattr, Kind::MappedFile, Kind::MappedLinks];
/// Names of `mapped-file`'s own.
const OURS: [&str; 2] = [".virtfs_metadata", ".virtfs_metadata_root"];

fn number(share: &Share, path: &str, name: &str) -> Option<u32> {
    let value = share.host.getxattr(path, &format!("user.virtfs.{name}"))?;
    Some(u32::from_le_bytes(value.try_into().expect("32 bits")))
}

/// Permission bits on the host.
fn real(share: &Share, path: &str) -> u32 {
    std::fs::symlink_metadata(share.host.path(path)).unwrap().mode()
}

fn refused(kind: Kind, args: &[&str]) -> String {
    let setup = args.iter().fold(kind.setup(), |setup, arg| setup.arg(arg));
    let mut server = setup.start();
    assert!(!server.child.wait().unwrap().success(), "{args:?}");
    server.log()
}

// qemu(1): "In \"mapped-xattr\" mode ... file attributes like uid, gid, mode bits and link target are stored as file
// attributes"
#[test]
fn mapped_xattr_keeps_numbers_in_little_endian_attributes() {
    let share = Kind::MappedXattr.serve();
    let user = share.as_ids(1000, 1001);
    user.put("f", b"text").unwrap();
    user.mkdir("d", 0o751).unwrap();
    user.symlink("over/there", "l").unwrap();
    user.mknod("c", S_IFCHR | 0o640, 4 << 8 | 64).unwrap();
    user.mknod("p", S_IFIFO | 0o600, 0).unwrap();
    for (name, mode) in [
        ("f", S_IFREG | 0o644),
        ("d", S_IFDIR | 0o751),
        ("l", S_IFLNK | 0o777),
        ("c", S_IFCHR | 0o640),
        ("p", S_IFIFO | 0o600),
    ] {
        let kept = ["uid", "gid", "mode"].map(|key| number(&share, name, key));
        assert_eq!(kept, [Some(1000), Some(1001), Some(mode)], "{name}");
        let host = if name == "d" { S_IFDIR | 0o700 } else { S_IFREG | 0o600 };
        assert_eq!(real(&share, name), host, "{name}");
        assert_eq!(share.getattr(name).unwrap().mode, mode, "{name}");
    }
    assert_eq!(share.host.getxattr("c", "user.virtfs.rdev"), Some(1088_u64.to_le_bytes().into()));
    assert_eq!(share.host.read("l"), b"over/there");
    assert_eq!((share.readlink("l").unwrap(), share.getattr("c").unwrap().rdev), ("over/there".into(), 4 << 8 | 64));
}

// qemu(1): "In \"mapped-file\" mode ... the attributes are stored in the hidden .virtfs_metadata directory"
#[test]
fn mapped_file_keeps_lines_of_decimal_numbers_beside() {
    let share = Kind::MappedFile.serve();
    share.as_ids(1000, 1001).put("f", b"text").unwrap();
    let kept = |path: &str| String::from_utf8(share.host.read(path)).unwrap();
    assert_eq!(kept(".virtfs_metadata/f"), "virtfs.uid=1000\nvirtfs.gid=1001\nvirtfs.mode=33188\n");
    assert_eq!(
        (real(&share, ".virtfs_metadata"), real(&share, ".virtfs_metadata/f")),
        (S_IFDIR | 0o700, S_IFREG | 0o600)
    );
    share.chmod("f", 0o4711).unwrap();
    share.as_user(7).symlink("f", "l").unwrap();
    share.mknod("c", S_IFCHR | 0o640, 1 << 8 | 3).unwrap();
    assert_eq!(kept(".virtfs_metadata/f"), "virtfs.uid=1000\nvirtfs.gid=1001\nvirtfs.mode=35273\n");
    assert_eq!(kept(".virtfs_metadata/c"), "virtfs.uid=0\nvirtfs.gid=0\nvirtfs.mode=8608\nvirtfs.rdev=259\n");
    share.chown(ROOT_ID, Some(5), Some(6)).unwrap();
    assert_eq!(kept(".virtfs_metadata_root"), "virtfs.uid=5\nvirtfs.gid=6\nvirtfs.mode=16895\n");
    // Moved, linked and removed with the name.
    share.mkdir("d", 0o755).unwrap();
    share.rename("f", "d/g").unwrap();
    share.link("d/g", "h").unwrap();
    assert!(!share.host.exists(".virtfs_metadata/f"));
    share.chown("h", Some(42), None).unwrap();
    assert_eq!([share.getattr("d/g").unwrap().uid, share.getattr("h").unwrap().uid], [42, 42]);
    share.unlink("h").unwrap();
    assert!(!share.host.exists(".virtfs_metadata/h"));
    assert_eq!(share.getattr("d/g").unwrap().uid, 42);
    share.unlink("d/g").unwrap();
    assert!(share.host.path("d/.virtfs_metadata").exists());
    share.rmdir("d").unwrap();
    assert!(!share.host.exists("d") && !share.host.exists(".virtfs_metadata/d"));
}

// rename(2): "RENAME_EXCHANGE", "RENAME_NOREPLACE"; and what was kept of a name that is replaced is gone with it
#[test]
fn mapped_file_moves_what_is_kept_with_the_name() {
    let share = Kind::MappedFile.serve();
    share.as_user(1).put("a", b"a").unwrap();
    share.as_user(2).put("b", b"b").unwrap();
    let owners = |share: &Share| ["a", "b"].map(|name| share.getattr(name).map(|attr| attr.uid));
    share.rename2("a", "b", libc::RENAME_EXCHANGE).unwrap();
    assert_eq!(owners(&share), [Ok(2), Ok(1)]);
    assert_eq!(share.rename2("a", "b", libc::RENAME_NOREPLACE), Err(EEXIST));
    assert_eq!(owners(&share), [Ok(2), Ok(1)]);
    // Of what the host has made nothing is kept: neither is of what it replaces.
    std::fs::write(share.host.path("plain"), b"").unwrap();
    share.rename2("plain", "b", libc::RENAME_EXCHANGE).unwrap();
    assert_eq!(share.getattr("plain").unwrap().uid, 1);
    share.rename("b", "plain").unwrap();
    assert!(!share.host.exists(".virtfs_metadata/plain") && !share.host.exists(".virtfs_metadata/b"));
    assert_eq!(owners(&share), [Ok(2), Err(ENOENT)]);
}

// CVE-2017-7493: "a guest may modify the metadata files in the .virtfs_metadata directory"
#[test]
fn cve_2017_7493_metadata_is_not_there_for_the_guest() {
    let share = Kind::MappedFile.serve();
    share.put("f", b"text").unwrap();
    share.chmod(ROOT_ID, 0o755).unwrap();
    for name in OURS {
        assert!(share.host.exists(name));
        assert_eq!(share.lookup(name).map(drop), Err(ENOENT));
        assert_eq!(share.put(name, b"x").map(drop), Err(EINVAL));
        assert_eq!(share.create(name, O_RDWR, 0o644).map(drop), Err(EINVAL));
        assert_eq!(share.mkdir(name, 0o755).map(drop), Err(EINVAL));
        assert_eq!(share.mknod(name, S_IFREG | 0o644, 0).map(drop), Err(EINVAL));
        assert_eq!(share.symlink("/etc", name).map(drop), Err(EINVAL));
        assert_eq!(share.link("f", name).map(drop), Err(EINVAL));
        assert_eq!(share.rename("f", name), Err(EINVAL));
        assert_eq!(share.rename(name, "g"), Err(ENOENT));
        assert_eq!(share.rename2("f", name, libc::RENAME_EXCHANGE), Err(EINVAL));
        assert_eq!(share.unlink(name), Err(ENOENT));
        assert_eq!(share.rmdir(name), Err(ENOENT));
    }
    assert_eq!(share.list(ROOT_ID).unwrap(), ["f"]);
    let dir = share.opendir(ROOT_ID).unwrap();
    let names: Vec<_> = share.readdirplus(&dir, 0, 4096).unwrap().into_iter().map(|(_, entry)| entry.name).collect();
    assert!(!names.iter().any(|name| OURS.contains(&name.as_str())), "{names:?}");
    assert_eq!(share.getattr("f").unwrap().mode, S_IFREG | 0o644);
}

#[test]
fn cve_2017_7493_metadata_is_not_opened_for_a_server_that_was_taken_over() {
    let mut twin = Twin::new(Kind::MappedFile);
    twin.host.write(OURS[1], b"virtfs.uid=0");
    twin.host.write("f", b"text");
    let names = ["f", OURS[1]].map(|name| FileName::new(name.as_bytes()).unwrap());
    let each = OpenEach { names: Names::try_from(names.to_vec()).unwrap() };
    let root = twin.root.try_clone().unwrap();
    assert_eq!(twin.ask(&each, &[root.as_fd()]).map(drop), Err(postern_ipc::Errno::EOPNOTSUPP));
}

#[test]
fn cve_2017_7493_metadata_is_not_there_over_9p() {
    let share = Kind::MappedFile.setup().serve_9p();
    share.mkdir("d", 0o755).unwrap();
    assert!(share.host.exists(OURS[0]) && share.host.exists(OURS[1]));
    for name in OURS {
        assert_eq!(share.walk(name).map(drop), Err(ENOENT));
        assert_eq!(share.create("", name, O_RDWR, 0o644).map(drop), Err(EINVAL));
        assert_eq!(share.mkdir(name, 0o755).map(drop), Err(EINVAL));
        assert_eq!(share.unlink(postern_tests::p9::ROOT, name, 0), Err(ENOENT));
    }
    let root = share.open("", O_RDONLY).unwrap();
    let names: Vec<_> = share.readdir(root, 0, 4096).unwrap().into_iter().map(|(name, _)| name).collect();
    assert!(!names.iter().any(|name| OURS.contains(&name.as_str())), "{names:?}");
}

// QEMU reads directories by itself there: metadata could not be hidden.
#[test]
fn mapped_file_is_refused_behind_qemus_proxy() {
    let mut proxy = Proxy::serve(Helper::Postern(Kind::MappedFile), &[]);
    assert_eq!(proxy.ended(), Some(1));
    let log = proxy.log();
    assert!(log.contains("would show .virtfs_metadata in each; choose --security-model=mapped-xattr"), "{log}");
}

#[test]
fn mapped_xattr_serves_qemus_proxy() {
    let mut proxy = Proxy::serve(Helper::Postern(Kind::MappedXattr), &[]);
    let args = [Arg::D(1000), Arg::D(1001), Arg::S(b"//c"), Arg::D(S_IFCHR | 0o640), Arg::Q(4 << 8 | 64)];
    proxy.status(kind::MKNOD, &args).unwrap();
    let stat = proxy.stat("//c").unwrap();
    assert_eq!((stat.mode, stat.uid, stat.gid, stat.rdev), (S_IFCHR | 0o640, 1000, 1001, 4 << 8 | 64));
    assert_eq!(proxy.open(kind::OPEN, &[Arg::S(b"//c"), Arg::D(0)]).map(drop), Err(ENXIO));
    proxy.status(kind::SYMLINK, &[Arg::D(7), Arg::D(8), Arg::S(b"c"), Arg::S(b"//l")]).unwrap();
    assert_eq!(proxy.string(kind::READLINK, &[Arg::S(b"//l"), Arg::D(4096)]).unwrap(), b"c");
    proxy.status(kind::CHOWN, &[Arg::S(b"//l"), Arg::D(9), Arg::D(u32::MAX)]).unwrap();
    let stat = proxy.stat("//l").unwrap();
    assert_eq!((stat.mode, stat.uid, stat.gid), (S_IFLNK | 0o777, 9, 8));
    let set = [Arg::S(b"//l"), Arg::S(b"user.virtfs.uid"), Arg::S(b"\0\0\0\0"), Arg::D(4), Arg::D(0)];
    assert_eq!(proxy.status(kind::LSETXATTR, &set), Err(EPERM));
}

// open(2): "ENXIO  The file is a UNIX domain socket", "... a device special file and no corresponding device exists"
#[test]
fn what_a_file_stands_for_is_not_opened_as_the_file() {
    for on in MAPPED {
        let share = on.serve();
        for (name, mode) in [("c", S_IFCHR), ("b", S_IFBLK), ("p", S_IFIFO), ("s", S_IFSOCK)] {
            share.mknod(name, mode | 0o666, 1 << 8 | 3).unwrap();
            for flags in [O_RDONLY, O_WRONLY, O_RDWR | O_TRUNC] {
                assert_eq!(share.open(name, flags).map(drop), Err(ENXIO), "{on:?} {name}");
            }
            assert_eq!(share.truncate(name, 0).map(drop), Err(EINVAL));
            assert_eq!(share.setxattr(name, "user.a", b"x", 0), Err(EPERM));
        }
        share.symlink("c", "l").unwrap();
        assert_eq!(share.open("l", O_RDONLY).map(drop), Err(ELOOP), "{on:?}");
        assert_eq!(share.truncate("l", 0).map(drop), Err(EINVAL));
        assert_eq!(share.chmod("l", 0o600).map(drop), Err(EOPNOTSUPP));
        assert_eq!(share.readlink("l").unwrap(), "c");
    }
}

// hw/9pfs: user.virtfs.* is the model's own
#[test]
fn attributes_of_the_model_are_not_the_guests() {
    for on in MAPPED {
        let share = on.serve();
        share.as_user(1000).put("f", b"").unwrap();
        share.setxattr("f", "user.color", b"blue", 0).unwrap();
        assert_eq!(share.listxattr("f").unwrap(), ["user.color"], "{on:?}");
        assert_eq!(share.listxattr_size("f").unwrap(), 11);
        assert_eq!(share.listxattr_into("f", 10), Err(ERANGE));
        for name in ["user.virtfs.uid", "user.virtfs.mode", "user.virtfs.", "user.virtfs.system.posix_acl_access"] {
            assert_eq!(share.getxattr("f", name), Err(ENODATA), "{on:?} {name}");
            assert_eq!(share.setxattr("f", name, &0_u32.to_le_bytes(), 0), Err(EPERM), "{on:?} {name}");
            assert_eq!(share.removexattr("f", name), Err(EPERM), "{on:?} {name}");
        }
        assert_eq!(share.getattr("f").unwrap().uid, 1000);
    }
}

// QEMU keeps the guest's ACLs under user.virtfs.system.posix_acl_*; a guest on 9P enforces and inherits them itself
#[test]
fn a_9p_guests_acls_are_kept_among_the_models_attributes() {
    let share = Kind::MappedXattr.setup().posix_acl().serve_9p();
    share.mkdir("d", 0o755).unwrap();
    share.setxattr("d", "system.posix_acl_default", b"whatever it is", 0).unwrap();
    assert_eq!(share.host.getxattr("d", "user.virtfs.system.posix_acl_default"), Some(b"whatever it is".to_vec()));
    assert_eq!(share.getxattr("d", "system.posix_acl_default").unwrap(), b"whatever it is");
    for kind in [Kind::MappedXattr, Kind::MappedFile, Kind::MappedLinks] {
        assert!(refused(kind, &["--posix-acl"]).contains("cannot serve POSIX ACLs (--posix-acl)"));
    }
}

// qemu(1): "fmode=fmode Specifies the default mode for newly created files on the host. Works only with security models
// \"mapped-xattr\" and \"mapped-file\""
#[test]
fn modes_of_the_hosts_files_are_as_told() {
    for on in [Kind::MappedXattr, Kind::MappedFile] {
        let share = on.setup().arg("--fmode=640").arg("--dmode=0750").serve();
        share.put("f", b"").unwrap();
        share.mkdir("d", 0o700).unwrap();
        share.symlink("f", "l").unwrap();
        assert_eq!(
            [real(&share, "f"), real(&share, "d"), real(&share, "l")],
            [S_IFREG | 0o640, S_IFDIR | 0o750, S_IFREG | 0o640]
        );
        share.chmod("f", 0o4777).unwrap();
        assert_eq!((real(&share, "f"), share.getattr("f").unwrap().mode), (S_IFREG | 0o640, S_IFREG | 0o4777));
    }
    for (kind, name) in [(Kind::User, "passthrough"), (Kind::MappedLinks, "mapped-links")] {
        for option in ["--fmode", "--dmode"] {
            let log = refused(kind, &[&format!("{option}=600")]);
            let says =
                format!("cannot use {option}: with --security-model={name} files have the guest's modes; leave it out");
            assert!(log.contains(&says), "{log}");
        }
    }
    for wrong in ["--fmode=1000", "--dmode=9", "--fmode=rw"] {
        assert!(refused(Kind::MappedXattr, &[wrong]).contains("must be an octal number up to 777"));
    }
    assert!(
        refused(Kind::User, &["--security-model=mapped-x"])
            .contains("[possible values: passthrough, none, mapped-xattr")
    );
}

#[test]
fn mapped_is_another_word_for_mapped_xattr() {
    let share = Kind::User.setup().arg("--security-model=mapped").serve();
    share.as_user(4_000_000_000).put("f", b"").unwrap();
    assert_eq!(number(&share, "f", "uid"), Some(4_000_000_000));
}

// The variant with real links: what mapped-xattr has written is read, and the host sees links and permissions.
#[test]
fn mapped_links_makes_real_links_and_permissions_and_reads_mapped_ones() {
    let share = Kind::MappedLinks.serve();
    share.as_user(1000).put("script", b"#!/bin/sh\n").unwrap();
    share.chmod("script", 0o6755).unwrap();
    assert_eq!((real(&share, "script"), share.getattr("script").unwrap().mode), (S_IFREG | 0o755, S_IFREG | 0o6755));
    share.chmod("script", 0o000).unwrap();
    assert_eq!(real(&share, "script"), S_IFREG | 0o600, "whoever serves may still read and write");
    share.with_umask(0).mkdir("d", 0o1777).unwrap();
    assert_eq!((real(&share, "d"), share.getattr("d").unwrap().mode), (S_IFDIR | 0o777, S_IFDIR | 0o1777));
    share.symlink("script", "l").unwrap();
    assert_eq!(std::fs::read_link(share.host.path("l")).unwrap().to_str(), Some("script"));
    share.chown("l", Some(5), Some(6)).unwrap();
    let link = share.getattr("l").unwrap();
    assert_eq!((link.mode, link.uid), (S_IFLNK | 0o777, 0), "a real link has no owner of the guest's");

    let old = share.host.path("old");
    std::fs::write(&old, "target").unwrap();
    for (name, value) in [("uid", 1000), ("mode", S_IFLNK | 0o777)] {
        let name = format!("user.virtfs.{name}");
        rustix::fs::setxattr(&old, name, &value.to_le_bytes(), XattrFlags::empty()).unwrap();
    }
    std::os::unix::fs::chown(&old, Some(std::fs::metadata(share.host.path("")).unwrap().uid()), None).unwrap();
    assert_eq!((share.readlink("old").unwrap(), share.getattr("old").unwrap().uid), ("target".into(), 1000));
}

// qemu(1): "\"none\": same as \"passthrough\" except the server won't report failures if it fails to set file
// attributes like ownership"
#[test]
fn none_does_not_miss_an_owner_that_cannot_be_had() {
    let plain = |model: &str| {
        let setup =
            Kind::User.setup().arg("--uid-map=:0:UID:1:".replace("UID", &Kind::User.starter().0.to_string()).as_str());
        let setup = setup.arg(&format!("--gid-map=:0:{}:1:", Kind::User.starter().1));
        setup.arg(&format!("--security-model={model}")).serve()
    };
    let strict = plain("passthrough");
    assert_eq!(strict.as_user(1000).mkdir("d", 0o755).map(drop), Err(EOVERFLOW));
    strict.mkdir("d", 0o755).unwrap();
    assert_eq!(strict.chown("d", Some(1000), None).map(drop), Err(EINVAL));
    let share = plain("none");
    share.as_user(1000).mkdir("d", 0o711).unwrap();
    share.as_user(1000).put("f", b"x").unwrap();
    share.chown("f", Some(1000), Some(1000)).unwrap();
    share.chmod("f", 0o640).unwrap();
    let (dir, file) = (share.getattr("d").unwrap(), share.getattr("f").unwrap());
    assert_eq!((dir.uid, dir.mode, file.uid, file.mode), (0, S_IFDIR | 0o711, 0, S_IFREG | 0o640));
    let meta = std::fs::metadata(share.host.path("f")).unwrap();
    assert_eq!((meta.uid(), meta.permissions().mode() & 0o7777), (Kind::User.starter().0.as_raw(), 0o640));
}

#[test]
fn a_read_only_mapped_share_shows_what_is_kept() {
    for on in MAPPED {
        let share = on
            .setup()
            .plant(|host| {
                host.write("f", b"text");
                host.chown("f", 1000, 1001);
                host.chmod("f", 0o4750);
            })
            .readonly()
            .serve();
        let attr = share.getattr("f").unwrap();
        assert_eq!((attr.uid, attr.gid, attr.mode), (1000, 1001, S_IFREG | 0o4750), "{on:?}");
        assert_eq!(share.get("f").unwrap(), b"text");
        assert_eq!(share.chmod("f", 0o644).map(drop), Err(EROFS));
        assert_eq!(share.mkdir("d", 0o755).map(drop), Err(EROFS));
        assert_eq!(share.setxattr("f", "user.a", b"x", 0), Err(EROFS));
    }
}

// write(2): set-id bits go; they are the model's, and no write of the server's own takes them away
#[test]
fn bits_that_a_file_got_while_it_was_open_go_with_a_write() {
    for on in MAPPED {
        let share = on.serve();
        share.as_user(1000).put("f", b"hello").unwrap();
        let file = share.open("f", O_RDWR).unwrap();
        share.chmod("f", 0o6755).unwrap();
        share.write(&file, 0, b"J").unwrap();
        assert_eq!(share.getattr("f").unwrap().mode, S_IFREG | 0o6755, "{on:?}");
        share.write_with(&file, 0, b"Y", WriteFlags::KILL_SUIDGID).unwrap();
        assert_eq!(
            (share.getattr("f").unwrap().mode, share.host.read("f")),
            (S_IFREG | 0o755, b"Yello".to_vec()),
            "{on:?}"
        );
    }
}

// unlink(2): "If the name was the last link to a file but any processes still have the file open, the file will remain
// in existence"
#[test]
fn an_open_file_without_a_name_keeps_its_owner_and_mode() {
    for on in MAPPED {
        let share = on.serve();
        share.as_user(1000).put("f", b"x").unwrap();
        share.as_user(1001).put("g", b"y").unwrap();
        let (f, g) = (share.open("f", O_RDWR).unwrap(), share.open("g", O_RDWR).unwrap());
        share.unlink("f").unwrap();
        share.as_user(7).put("h", b"").unwrap();
        share.rename("h", "g").unwrap();
        let [f, g] = [f, g].map(|file| share.fgetattr(&file).unwrap());
        assert_eq!([(f.uid, f.mode), (g.uid, g.mode)], [1000, 1001].map(|uid| (uid, S_IFREG | 0o644)), "{on:?}");
        assert_eq!(share.getattr("g").unwrap().uid, 7);
    }
}

// What is kept belongs to a name there. path_resolution(7): ESTALE makes the guest look its name up again.
#[test]
fn a_file_with_several_names_is_the_same_by_each() {
    let share = Kind::MappedFile.serve();
    share.as_user(1000).put("a", b"x").unwrap();
    share.link("a", "b").unwrap();
    share.unlink("a").unwrap();
    let node = share.lookup("b").unwrap().nodeid;
    assert_eq!((share.getattr(node).unwrap().uid, share.getattr(node).unwrap().nlink), (1000, 1));
    share.chmod("b", 0o600).unwrap();
    assert_eq!(share.getattr(node).unwrap().mode, S_IFREG | 0o600);
    share.link("b", "c").unwrap();
    share.unlink("c").unwrap();
    assert_eq!(share.getattr(node).map(drop), Err(ESTALE));
    assert_eq!(share.getattr("b").unwrap().uid, 1000);
}

// postern-server(1): the host's kernel knows none of its users
#[test]
fn a_client_whom_nobody_has_judged_is_not_served_from_a_mapped_share() {
    let dir = tempfile::tempdir().unwrap();
    for model in ["mapped-xattr", "mapped-links", "mapped-file"] {
        let output = std::process::Command::new(Kind::Root.program())
            .args(["9p", "--stdio", &format!("--security-model={model}"), "--shared-dir"])
            .arg(dir.path())
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let why =
            format!("with the security model {model} the host's kernel cannot judge its users; say --trust-client");
        assert!(!output.status.success() && said.contains(&why), "{said}");
    }
}

// postern-helper(8): If the helper dies, the warden starts another: behind its walls, and with the same model
#[test]
fn another_helper_keeps_what_the_first_has_kept() {
    for on in MAPPED {
        let share = on.serve();
        share.as_user(1000).put("f", b"x").unwrap();
        let warden = children(share.server.child.id()).pop().expect("a warden");
        for helper in children(warden) {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(helper as i32), nix::sys::signal::SIGKILL).unwrap();
        }
        assert_eq!(share.getattr("f").unwrap().uid, 1000, "{on:?}");
        share.as_user(1001).put("g", b"y").unwrap();
        assert_eq!((share.getattr("g").unwrap().uid, share.host.stat("g").owner), (1001, ids(1001, 1001)), "{on:?}");
        assert_eq!(real(&share, "g"), real(&share, "f"), "{on:?}");
    }
}
