//! What is mounted below the share: part of it, and a file system of its own in the guest.

use std::ops::Deref;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use postern_ipc::attr::{Mode, OpenFlags};
use postern_ipc::id::Caller;
use postern_ipc::name::FileName;
use postern_ipc::op::{Mkdir, Open, Stat};
use postern_server::fuse::abi::{AttrFlags, EntryOut};
use postern_tests::fuse::Request;
use postern_tests::mounts;
use postern_tests::prelude::*;
use postern_tests::twin::{Twin, children};
use rustix::fs::{Mode as Bits, OFlags};

/// A share with a file system in memory at `m`, another at `n`, and the directory `outside` bound to `b`.
struct Mounted(Share);

impl Mounted {
    fn serve(on: Kind, args: &[&str]) -> Self {
        mounts::alone();
        Self(args.iter().fold(on.setup().plant(plant), |setup, arg| setup.arg(arg)).serve())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.host.path(path)
    }
}

/// The host's root mounts these things, each with a file of the guest's root in it.
fn plant(host: &Host) {
    let owner = (host.uid(0), host.gid(0));
    for name in ["m", "n", "b", "later"] {
        host.mkdir(name);
    }
    for name in ["m", "b", "later"] {
        host.write(&format!("{name}/covered"), b"covered");
    }
    mounts::memory(&host.path("m"), owner);
    mounts::memory(&host.path("n"), owner);
    std::fs::create_dir(host.path("../beside")).unwrap();
    host.chown("../beside", 0, 0);
    mounts::bind(&host.path("../beside"), &host.path("b"));
    for name in ["m", "n", "b"] {
        host.write(&format!("{name}/f"), name.as_bytes());
    }
}

impl Deref for Mounted {
    type Target = Share;

    fn deref(&self) -> &Share {
        &self.0
    }
}

impl Drop for Mounted {
    /// The directories have to go when the test ends.
    fn drop(&mut self) {
        for name in ["m", "n", "b", "later"] {
            mounts::detach_all(&self.path(name));
        }
    }
}

// linux/fuse.h: "FUSE_ATTR_SUBMOUNT: Object is a submount root"; virtiofsd: --announce-submounts
#[apply(virtiofs)]
fn a_mount_below_the_share_is_announced(on: Kind) {
    let share = Mounted::serve(on, &[]);
    assert!(share.granted().contains(InitFlags::SUBMOUNTS));
    let flags = |name: &str| share.lookup(name).unwrap().attr.flags;
    assert_eq!(["m", "n", "later"].map(flags), [AttrFlags::SUBMOUNT, AttrFlags::SUBMOUNT, AttrFlags::empty()]);
    assert_eq!(flags("m/f"), AttrFlags::empty());
    let dir = share.opendir("").unwrap();
    let listed = share.readdirplus(&dir, 0, 4096).unwrap();
    let announced = listed.iter().filter(|(entry, _)| entry.attr.flags.contains(AttrFlags::SUBMOUNT));
    let names: Vec<_> = announced.map(|(_, entry)| entry.name.as_str()).filter(|&name| name != "b").collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

// postern-server(1): --announce-submounts: a bind mount of the same file system is a mount, too
#[apply(promise)]
fn a_directory_bound_below_the_share_is_announced(on: Kind) {
    let share = Mounted::serve(on, &[]);
    assert_eq!(share.lookup("b").unwrap().attr.flags, AttrFlags::SUBMOUNT);
    assert_eq!(share.get("b/f").unwrap(), b"b");
}

// postern-server(1): --no-announce-submounts: "Otherwise they are directories like others"
#[apply(promise)]
fn a_mount_is_a_directory_like_others_if_so_asked(on: Kind) {
    let share = Mounted::serve(on, &["--no-announce-submounts"]);
    assert!(!share.granted().contains(InitFlags::SUBMOUNTS));
    assert_eq!(["m", "n", "b"].map(|name| share.lookup(name).unwrap().attr.flags), [AttrFlags::empty(); 3]);
    assert_eq!(share.get("m/f").unwrap(), b"m");
}

/// Inode numbers by name: those looked up, and those listed.
fn numbers(share: &Share) -> Vec<u64> {
    let paths = ["m", "n", "b", "later", "m/f", "n/f", "b/f", "later/covered", "m/deep/f"];
    let looked = paths.map(|path| share.lookup(path).unwrap().attr.ino);
    let listed = ["m", "n", "b", "later"].iter().flat_map(|path| {
        let dir = share.opendir(*path).unwrap();
        let entries = share.readdir(&dir, 0, 4096).unwrap();
        entries
            .into_iter()
            .filter(|entry| !entry.name.starts_with('.'))
            .map(|entry| {
                let path = format!("{path}/{}", entry.name);
                assert_eq!(entry.ino, share.lookup(path.as_str()).unwrap().attr.ino, "{path}");
                entry.ino
            })
            .collect::<Vec<_>>()
    });
    assert!(listed.count() >= 5);
    looked.into()
}

// postern-server(1): --multidevs=remap: "no two inode numbers are equal"
#[apply(promise)]
fn inode_numbers_of_all_mounts_differ_if_so_asked(on: Kind) {
    for args in [&["--no-announce-submounts", "--multidevs=remap"][..], &["--no-announce-submounts"]] {
        let share = Mounted::serve(on, args);
        assert!(!share.granted().contains(InitFlags::SUBMOUNTS));
        std::fs::create_dir(share.path("m/deep")).unwrap();
        share.host.write("m/deep/f", b"f");
        let first = numbers(&share);
        let different: std::collections::HashSet<_> = first.iter().collect();
        // What is bound is of the root's file system, and keeps its number.
        assert_eq!(different.len(), first.len());
        assert_eq!(first[3], share.host.stat("later").ino);
        assert_eq!(numbers(&share), first);
        assert_eq!(share.getattr(share.lookup("m/f").unwrap().nodeid).unwrap().ino, first[4]);
    }
}

// postern-server(1): --multidevs=forbid: "They are not there"
#[apply(promise)]
fn mounts_are_not_there_if_so_asked(on: Kind) {
    let share = Mounted::serve(on, &["--multidevs=forbid"]);
    for path in ["m", "n", "m/f"] {
        assert_eq!(share.lookup(path).map(drop), Err(ENODEV), "{path}");
    }
    assert_eq!(share.get("b/f").unwrap(), b"b", "the same file system");
    assert_eq!(share.list("").unwrap(), ["b", "later"]);
    let dir = share.opendir("").unwrap();
    let listed = share.readdirplus(&dir, 0, 4096).unwrap();
    let names: Vec<_> =
        listed.iter().map(|(_, entry)| entry.name.as_str()).filter(|name| !name.starts_with('.')).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

// postern-server(1): --multidevs=warn: "said once"
#[apply(promise)]
fn equal_inode_numbers_are_warned_of_once_if_so_asked(on: Kind) {
    let share = Mounted::serve(on, &["--no-announce-submounts", "--multidevs=warn"]);
    let [m, n] = ["m/f", "n/f"].map(|path| share.lookup(path).unwrap());
    assert_eq!(m.attr.ino, n.attr.ino);
    assert_eq!(share.server.log().matches("inode numbers may be equal").count(), 1);
}

// postern-helper(8): "What is mounted below it when the helper starts is part of the share"
#[apply(behaviour)]
fn what_is_mounted_below_the_share_is_read_and_changed(on: Kind) {
    let share = Mounted::serve(on, &[]);
    for name in ["m", "n", "b"] {
        let path = |file: &str| format!("{name}/{file}");
        assert_eq!(share.get(path("f").as_str()).unwrap(), name.as_bytes());
        share.put(path("g").as_str(), b"new").unwrap();
        share.mkdir(path("d").as_str(), 0o755).unwrap();
        share.rename(path("g").as_str(), path("d/h").as_str()).unwrap();
        assert_eq!(share.host.read(&path("d/h")), b"new");
        assert_eq!(share.host.stat(&path("d/h")).owner, ids(0, 0));
        share.unlink(path("d/h").as_str()).unwrap();
        share.rmdir(path("d").as_str()).unwrap();
        assert_eq!(share.list(name).unwrap(), ["f"]);
    }
}

// inode(7): "an inode number unique in its filesystem" only
#[apply(behaviour)]
fn equal_inode_numbers_of_two_mounts_are_two_nodes(on: Kind) {
    let share = Mounted::serve(on, &[]);
    let [m, n] = ["m/f", "n/f"].map(|path| share.lookup(path).unwrap());
    assert_eq!(share.host.stat("m/f").ino, share.host.stat("n/f").ino);
    assert_ne!(m.nodeid, n.nodeid);
    assert_eq!([m, n].map(|entry| share.get(entry.nodeid).unwrap()), [b"m", b"n"]);
}

// linux/fuse.h: FUSE_SUBMOUNTS: a mount that is announced has inode numbers of its own
#[apply(virtiofs)]
fn a_mount_that_is_announced_keeps_its_inode_numbers(on: Kind) {
    let share = Mounted::serve(on, &[]);
    for path in ["m/f", "n/f"] {
        assert_eq!(share.lookup(path).unwrap().attr.ino, share.host.stat(path).ino);
    }
}

// statvfs(3): of the file system that the file is on
#[apply(behaviour)]
fn a_mount_below_the_share_has_its_own_space(on: Kind) {
    let share = Mounted::serve(on, &[]);
    let space = share.statfs("m/f").unwrap();
    assert_eq!(space.blocks * u64::from(space.frsize), 1 << 20);
    assert_ne!(share.statfs(ROOT_ID).unwrap().blocks, space.blocks);
}

// rename(2), link(2): "EXDEV oldpath and newpath are not on the same mounted filesystem", even if the same one is
// mounted twice
#[apply(behaviour)]
fn nothing_is_renamed_or_linked_across_mounts(on: Kind) {
    let share = Mounted::serve(on, &[]);
    share.put("f", b"x").unwrap();
    for (old, new) in [("f", "m/new"), ("m/f", "new"), ("m/f", "n/new"), ("f", "b/new"), ("b/f", "new")] {
        assert_eq!(share.rename(old, new), Err(EXDEV), "{old} {new}");
        assert_eq!(share.link(old, new).map(drop), Err(EXDEV), "{old} {new}");
    }
    assert_eq!(share.get("f").unwrap(), b"x");
}

// rmdir(2), rename(2): "EBUSY  pathname is ... used as a mount point"; the kernel would unmount it on the host
#[apply(promise)]
fn a_mount_point_stays(on: Kind) {
    let share = Mounted::serve(on, &[]);
    share.mkdir("d", 0o755).unwrap();
    assert_eq!(share.rmdir("n"), Err(EBUSY));
    assert_eq!(share.rename("n", "moved"), Err(EBUSY));
    assert_eq!(share.rename("d", "n"), Err(EBUSY));
    assert_eq!(share.rename2("d", "n", libc::RENAME_EXCHANGE), Err(EBUSY));
    assert_eq!(share.host.list("n"), ["f"]);
}

// postern-helper(8): "what the host mounts or unmounts later changes nothing in it"
#[apply(promise)]
fn what_the_host_mounts_later_does_not_arrive(on: Kind) {
    let share = Mounted::serve(on, &[]);
    share.lookup("later").unwrap();
    mounts::memory(&share.path("later"), (0, 0));
    std::fs::write(share.path("later/secret"), "secret").unwrap();
    assert_eq!(share.list("later").unwrap(), ["covered"]);
    assert_eq!(share.lookup("later/secret").map(drop), Err(ENOENT));
    share.put("later/new", b"below").unwrap();
    assert_eq!(share.host.list("later"), ["secret"]);
}

// postern-helper(8): "a file system that the host unmounts stays busy"; what it covers stays covered
#[apply(promise)]
fn what_the_host_unmounts_uncovers_nothing(on: Kind) {
    let share = Mounted::serve(on, &[]);
    for name in ["m", "b"] {
        mounts::detach(&share.path(name));
        assert_eq!(share.host.list(name), ["covered"]);
        assert_eq!(share.list(name).unwrap(), ["f"]);
        assert_eq!(share.lookup(format!("{name}/covered").as_str()).map(drop), Err(ENOENT));
        assert_eq!(share.get(format!("{name}/f").as_str()).unwrap(), name.as_bytes());
    }
}

// postern-helper(8): "If it dies, the warden starts another one", with the same mounts
#[apply(promise)]
fn mounts_below_the_share_outlive_the_helper(on: Kind) {
    let share = Mounted::serve(on, &[]);
    share.put("m/g", b"x").unwrap();
    let warden = children(share.server.child.id())[0];
    mounts::detach(&share.path("m"));
    let helper = nix::unistd::Pid::from_raw(children(warden)[0] as i32);
    nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL).unwrap();
    while share.mkdir("m/d", 0o755).map(drop) == Err(EIO) {}
    assert_eq!(share.list("m").unwrap(), ["d", "f", "g"]);
    assert_eq!(share.get("m/g").unwrap(), b"x");
}

// postern-server(1): --readonly: "Nothing of the share may be changed", mounts below it included
#[apply(promise)]
fn mounts_below_a_read_only_share_are_read_only(on: Kind) {
    let share = Mounted::serve(on, &["--readonly"]);
    for path in ["m/f", "b/f"] {
        assert!(share.get(path).is_ok());
        assert_eq!(share.open(path, O_WRONLY), Err(EROFS));
        assert_eq!(share.unlink(path), Err(EROFS));
        assert_eq!(share.chmod(path, 0o600).map(drop), Err(EROFS));
    }
}

// statx(2): STATX_MNT_ID; kernel: overlayfs: what is opened there is of the overlay's mount, whatever layer it is kept
// in
#[apply(promise)]
fn what_is_on_an_overlay_is_the_shares_and_what_is_below_it_is_not(on: Kind) {
    mounts::alone();
    let mut twin = Twin::planted(on, &[], |host| {
        for dir in ["../low", "../up", "../work", "../low/d", "../up/e"] {
            host.mkdir(dir);
        }
        host.write("../low/d/f", b"lower");
        let layers = format!(
            "lowerdir={},upperdir={},workdir={}",
            host.path("../low").display(),
            host.path("../up").display(),
            host.path("../work").display()
        );
        mounts::overlay(&host.path(""), &layers);
    });
    let name = |name: &str| FileName::new(name.as_bytes()).unwrap();
    let file = twin.pin("d/f");
    let (_, given, _) = twin.ask(&Open { flags: OpenFlags::READ | OpenFlags::WRITE }, &[file.as_fd()]).unwrap();
    rustix::io::pwrite(&given[0], b"upper", 0).unwrap();
    for dir in ["d", "e", "."] {
        let pin = twin.pin(dir);
        let mkdir = Mkdir { name: name("new"), mode: Mode::new(0o755), umask: Mode::new(0) };
        twin.ask(&mkdir, &[pin.as_fd()]).unwrap();
        twin.ask(&Stat {}, &[pin.as_fd()]).unwrap();
    }
    assert_eq!((twin.host.read("d/f"), twin.host.read("../low/d/f")), (b"upper".to_vec(), b"lower".to_vec()));
    assert!(!twin.host.exists("../low/d/new"));
    let lower = rustix::fs::open(twin.host.path("../low/d"), OFlags::PATH | OFlags::CLOEXEC, Bits::empty()).unwrap();
    let frame = twin.frame(Caller::Root, &Stat {}, 0);
    twin.channel.send(&[&frame, b""], &[lower.as_fd()]).unwrap();
    mounts::detach_all(&twin.host.path(""));
    twin.assert_ended();
}

// autofs(5): who looks a name up waits until it is mounted
#[apply(promise)]
fn a_name_that_nobody_mounts_keeps_only_its_own_queue_waiting(on: Kind) {
    mounts::alone();
    let plant = |host: &Host| {
        host.mkdir("automatic");
        mounts::automatic(&host.path("automatic"));
    };
    let share = on.setup().queues(2).arg("--queue-threads=2").plant(plant).serve();
    assert_eq!(share.list("automatic").unwrap(), [""; 0]);
    let automatic = share.lookup("automatic").unwrap().nodeid;
    let lookup = Request::new(opcode::LOOKUP, automatic).name(b"name").room::<EntryOut>();
    let waiting = share.send(&lookup);
    let other = share.on_queue(1);
    for round in 0..100 {
        let name = format!("f{round}");
        other.put(name.as_str(), b"x").unwrap();
        assert_eq!(other.get(name.as_str()).unwrap(), b"x");
    }
    assert!(share.fuse().recv_any(waiting, Duration::from_millis(100)).is_none(), "it does not wait");
}
