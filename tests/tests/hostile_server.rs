//! A server that the guest has taken over, against the helper: what breaks the protocol ends it for good, what only
//! asks too much gets an errno, and nothing outside the share is ever touched.

use std::fs::File as HostFile;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::sys::stat::SFlag;
use postern_ipc::Errno;
use postern_ipc::attr::{Changes, Dev, Mode, NodeKind, OpenFlags, RenameFlags, XattrFlags};
use postern_ipc::few::EACH_MAX;
use postern_ipc::frame;
use postern_ipc::hello::{CHANNELS_MAX, Hello, LENGTH, News, VERSION, receive_news, send_hello};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::{FileName, Names, Target, XattrName};
use postern_ipc::op::*;
use postern_tests::mounts;
use postern_tests::prelude::{S_IFDIR, S_IFREG, apply, ids, promise};
use postern_tests::twin::{self, Twin};
use rustix::fs::{Mode as HostMode, OFlags, open, openat};

fn name(name: &str) -> FileName {
    FileName::new(name.as_bytes()).unwrap()
}

fn mkdir(dir: &str) -> Mkdir {
    Mkdir { name: name(dir), mode: Mode::new(0o755), umask: Mode::new(0) }
}

fn create(file: &str, mode: u32) -> Create {
    let flags = OpenFlags::READ | OpenFlags::WRITE;
    Create { name: name(file), mode: Mode::new(mode), umask: Mode::new(0), flags }
}

fn open_for(flags: OpenFlags) -> Open {
    Open { flags }
}

fn each(names: &[&str]) -> OpenEach {
    OpenEach { names: Names::try_from(names.iter().map(|text| name(text)).collect::<Vec<_>>()).unwrap() }
}

fn user(id: u32) -> Caller {
    Caller::User { uid: GuestUid(id), gid: GuestGid(id), group: None }
}

/// Sends bytes and descriptors, and expects the helper to take them as the end.
fn end_by(mut twin: Twin, frame: impl FnOnce(&mut Twin) -> Vec<u8>, at: &[BorrowedFd<'_>]) {
    let frame = frame(&mut twin);
    // It does not wait for the rest of what is too long.
    let sent = twin.channel.send(&[&frame, b""], at);
    assert!(matches!(sent, Ok(()) | Err(Errno::EPIPE)), "{sent:?}");
    twin.assert_ended();
}

// postern-ipc: a request is a row of the table, with its descriptors
#[apply(promise)]
fn a_server_that_keeps_the_protocol_is_served(on: Kind) {
    let mut twin = Twin::new(on);
    let root = twin.root.try_clone().unwrap();
    twin.ask_as(user(1000), &mkdir("d"), &[root.as_fd()], b"").unwrap();
    let dir = twin.pin("d");
    let (attr, given, _) = twin.ask_as(user(1000), &create("f", 0o644), &[dir.as_fd()], b"").unwrap();
    let attr = twin.shown.attr(attr);
    assert_eq!((attr.uid, attr.gid), (GuestUid(1000), GuestGid(1000)));
    let [node, file] = <[OwnedFd; 2]>::try_from(given).unwrap();
    std::io::Write::write_all(&mut HostFile::from(file), b"hello").unwrap();
    assert_eq!(twin.ask(&Stat {}, &[node.as_fd()]).unwrap().0.size, 5);
    assert_eq!((twin.host.read("d/f"), twin.host.stat("d/f").owner), (b"hello".to_vec(), ids(1000, 1000)));
    twin.assert_contained();
}

// postern-helper(8): a malformed frame is the end of the helper
#[apply(promise)]
fn a_malformed_frame_is_the_end(on: Kind) {
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 12] = [
        |frame| frame.truncate(1),
        |frame| frame.truncate(15),
        |frame| frame.truncate(16),
        |frame| frame.truncate(frame.len() - 1),
        |frame| frame.push(0),
        |frame| frame[4..6].copy_from_slice(&0_u16.to_le_bytes()),
        |frame| frame[4..6].copy_from_slice(&999_u16.to_le_bytes()),
        |frame| frame[6..8].copy_from_slice(&1_u16.to_le_bytes()),
        |frame| frame[8..12].copy_from_slice(&u32::MAX.to_le_bytes()),
        |frame| frame[12..16].copy_from_slice(&u32::MAX.to_le_bytes()),
        |frame| frame[16..].fill(0xff),
        |frame| frame.resize(postern_ipc::frame::FRAME_MAX + 1, 0),
    ];
    for damage in damages {
        let twin = Twin::new(on);
        let root = twin.root.try_clone().unwrap();
        let frame = |twin: &mut Twin| {
            let mut frame = twin.frame(Caller::Root, &mkdir("new"), 0);
            damage(&mut frame);
            frame
        };
        end_by(twin, frame, &[root.as_fd()]);
    }
}

// path_resolution(7): a name is no path; its type refuses others, so a frame with one is malformed
#[apply(promise)]
fn a_name_that_is_a_path_is_the_end(on: Kind) {
    for bad in [&b"."[..], b"..", b"../outside/new", b"a/b", b"/etc", b"a\0b", b"\0"] {
        let twin = Twin::new(on);
        let root = twin.root.try_clone().unwrap();
        let good = "N".repeat(bad.len());
        let frame = |twin: &mut Twin| {
            let mut frame = twin.frame(Caller::Root, &mkdir(&good), 0);
            let at = frame.windows(bad.len()).position(|bytes| bytes == good.as_bytes()).unwrap();
            frame[at..at + bad.len()].copy_from_slice(bad);
            frame
        };
        end_by(twin, frame, &[root.as_fd()]);
    }
}

// postern-ipc: names in one directory, 1 to EACH_MAX
#[apply(promise)]
fn no_names_or_too_many_are_the_end(on: Kind) {
    for count in [0, EACH_MAX + 1, 400] {
        let twin = Twin::new(on);
        let root = twin.root.try_clone().unwrap();
        let names = vec![name("a"); count];
        let frame = |twin: &mut Twin| {
            let mut frame = Vec::new();
            let (serial, kind) = (twin.serial(), OpenEach::KIND as u16);
            frame::encode(&mut frame, serial, kind, None, &(Caller::Root, &names), 0).unwrap();
            frame
        };
        end_by(twin, frame, &[root.as_fd()]);
    }
}

// postern-helper(8): as many as the operation's row says: one fewer, one more is a broken frame
#[apply(promise)]
fn a_wrong_number_of_descriptors_is_the_end(on: Kind) {
    let rename = || Rename { name: name("a"), new_name: name("b"), flags: RenameFlags::empty() };
    for (said, count) in [(0, 0), (2, 2), (3, 3), (253, 253), (1, 0), (1, 2), (1, 253), (2, 1), (255, 1)] {
        let mut twin = Twin::new(on);
        let frame = twin.frame(Caller::Root, &mkdir("new"), 0);
        send_with_roots(&twin, &frame, said, count);
        twin.assert_ended();
    }
    for (said, count) in [(0, 0), (1, 1), (3, 3), (2, 0), (2, 1), (2, 3), (1, 2)] {
        let mut twin = Twin::new(on);
        let frame = twin.frame(Caller::Root, &rename(), 0);
        send_with_roots(&twin, &frame, said, count);
        twin.assert_ended();
    }
}

/// Sends a frame that is said to come with so many descriptors, and any number of them, all of the root.
fn send_with_roots(twin: &Twin, frame: &[u8], said: u8, count: usize) {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::fd::AsRawFd;
    let [descriptors, output, _] = twin.channel.parts();
    if count > 0 {
        let raw = vec![twin.root.as_raw_fd(); count];
        let parts = [std::io::IoSlice::new(&[0])];
        let rights = [ControlMessage::ScmRights(&raw)];
        sendmsg::<()>(descriptors.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None).unwrap();
    }
    // Both say the number 0, so that nothing but the count can be wrong.
    let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
    let message = [&length[..], &[said, 0, 0, 0], frame].concat();
    rustix::io::write(output, &message).unwrap();
}

// postern-helper(8): A descriptor is believed only if it is O_PATH and ... shows a mount id of the clone's list
#[apply(promise)]
fn a_descriptor_of_another_mount_is_the_end(on: Kind) {
    let path = OFlags::PATH | OFlags::CLOEXEC;
    type Foreign = fn(&Twin, OFlags) -> OwnedFd;
    let foreign: [Foreign; 6] = [
        |_, path| open("/", path, HostMode::empty()).unwrap(),
        |_, path| open("/etc", path, HostMode::empty()).unwrap(),
        |_, path| open("/proc/self/root", path, HostMode::empty()).unwrap(),
        |twin, path| open(twin.host.path(""), path, HostMode::empty()).unwrap(),
        |twin, path| open(twin.host.path("d"), path, HostMode::empty()).unwrap(),
        |twin, path| open(twin.scratch.path("outside"), path, HostMode::empty()).unwrap(),
    ];
    for foreign in foreign {
        let twin = Twin::new(on);
        twin.host.mkdir("d");
        let fd = foreign(&twin, path);
        end_by(twin, |twin| twin.frame(Caller::Root, &mkdir("new"), 0), &[fd.as_fd()]);
    }
}

// postern-helper(8): it is O_PATH: a descriptor with a mode is none that names a node
#[apply(promise)]
fn a_descriptor_that_is_open_is_the_end(on: Kind) {
    type Opened = fn(&Twin) -> OwnedFd;
    let opened: [Opened; 5] = [
        |twin| openat(&twin.root, ".", OFlags::RDONLY | OFlags::CLOEXEC, HostMode::empty()).unwrap(),
        |_| UnixStream::pair().unwrap().0.into(),
        |_| nix::unistd::pipe().unwrap().0,
        |_| nix::sys::memfd::memfd_create(c"m", nix::sys::memfd::MFdFlags::empty()).unwrap(),
        |_| HostFile::open("/dev/null").unwrap().into(),
    ];
    for opened in opened {
        let twin = Twin::new(on);
        let fd = opened(&twin);
        end_by(twin, |twin| twin.frame(Caller::Root, &mkdir("new"), 0), &[fd.as_fd()]);
    }
}

// postern-helper(8): it is connected: a directory that the host moved out of the share while it was held is ESTALE
#[apply(promise)]
fn a_directory_moved_out_of_the_share_is_stale(on: Kind) {
    let mut twin = Twin::new(on);
    twin.host.mkdir("d");
    twin.host.mkdir("d/e");
    twin.host.write("d/f", b"secret");
    let (dir, below, file) = (twin.pin("d"), twin.pin("d/e"), twin.pin("d/f"));
    twin.ask(&mkdir("before"), &[dir.as_fd()]).unwrap();
    let (inside, outside) = (twin.host.path("d"), twin.scratch.path("moved"));
    std::fs::rename(&inside, &outside).unwrap();
    for held in [&dir, &below] {
        assert_eq!(twin.ask(&mkdir("after"), &[held.as_fd()]).map(drop), Err(Errno::ESTALE));
        assert_eq!(twin.ask(&create("after", 0o644), &[held.as_fd()]).map(drop), Err(Errno::ESTALE));
        assert_eq!(twin.ask(&OpenDir {}, &[held.as_fd()]).map(drop), Err(Errno::ESTALE));
        let unlink = Unlink { name: name("f") };
        assert_eq!(twin.ask(&unlink, &[held.as_fd()]).map(drop), Err(Errno::ESTALE));
        let root = twin.root.try_clone().unwrap();
        let fetch = Rename { name: name("f"), new_name: name("fetched"), flags: RenameFlags::empty() };
        assert_eq!(twin.ask(&fetch, &[held.as_fd(), root.as_fd()]).map(drop), Err(Errno::ESTALE));
    }
    assert_eq!(twin.ask(&open_for(OpenFlags::READ), &[file.as_fd()]).map(drop), Err(Errno::ESTALE));
    let all = Changes { mode: Some(Mode::new(0o777)), ..Changes::default() };
    assert_eq!(twin.ask(&SetAttr { changes: all }, &[file.as_fd()]).map(drop), Err(Errno::ESTALE));
    assert_eq!(postern_tests::host::names(&outside), ["before", "e", "f"]);
    std::fs::rename(&outside, &inside).unwrap();
    twin.ask(&mkdir("again"), &[dir.as_fd()]).unwrap();
    twin.assert_contained();
}

// The same of what is in another mount below it: the way to that mount's own root is as it was
#[apply(promise)]
fn a_mount_moved_out_of_the_share_with_its_directory_is_stale(on: Kind) {
    mounts::alone();
    let mut twin = Twin::planted(on, &[], |host| {
        host.mkdir("d");
        host.mkdir("d/m");
        mounts::memory(&host.path("d/m"), (host.uid(0), host.gid(0)));
        host.mkdir("d/m/x");
        host.write("d/m/x/f", b"secret");
    });
    let held = ["d/m", "d/m/x"].map(|path| twin.pin(path));
    for dir in &held {
        twin.ask(&OpenDir {}, &[dir.as_fd()]).unwrap();
    }
    let (inside, outside) = (twin.host.path("d"), twin.scratch.path("moved"));
    std::fs::rename(&inside, &outside).unwrap();
    for dir in &held {
        assert_eq!(twin.ask(&OpenDir {}, &[dir.as_fd()]).map(drop), Err(Errno::ESTALE));
        assert_eq!(twin.ask(&mkdir("after"), &[dir.as_fd()]).map(drop), Err(Errno::ESTALE));
        assert_eq!(twin.ask(&each(&["f"]), &[dir.as_fd()]).map(drop), Err(Errno::ESTALE));
    }
    std::fs::rename(&outside, &inside).unwrap();
    twin.ask(&OpenDir {}, &[held[1].as_fd()]).unwrap();
    mounts::detach(&twin.host.path("d/m"));
}

// postern-helper(8): a path too long for that is judged by a step up
#[apply(promise)]
fn a_directory_deeper_than_a_path_is_long_is_served_and_can_become_stale(on: Kind) {
    let mut twin = Twin::new(on);
    let long = "d".repeat(250);
    let mut dirs = vec![twin.root.try_clone().unwrap()];
    for _ in 0..20 {
        let at = dirs.last().unwrap().try_clone().unwrap();
        twin.ask(&mkdir(&long), &[at.as_fd()]).unwrap();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        dirs.push(openat(&at, long.as_str(), flags, HostMode::empty()).unwrap());
    }
    let bottom = dirs.last().unwrap();
    twin.ask(&mkdir("new"), &[bottom.as_fd()]).unwrap();
    std::fs::rename(twin.host.path(&long), twin.scratch.path("moved")).unwrap();
    let after = twin.ask(&mkdir("after"), &[bottom.as_fd()]).map(drop);
    assert!(after.is_err(), "made in a directory outside the share");
    std::fs::rename(twin.scratch.path("moved"), twin.host.path(&long)).unwrap();
}

// open_tree(2): ".." ends at the root of a detached mount
#[apply(promise)]
fn nothing_lies_above_the_root(on: Kind) {
    let mut twin = Twin::new(on);
    let up = openat(&twin.root, "..", OFlags::PATH | OFlags::CLOEXEC, HostMode::empty()).unwrap();
    let (above, root) = (rustix::fs::fstat(&up).unwrap(), rustix::fs::fstat(&twin.root).unwrap());
    assert_eq!((above.st_dev, above.st_ino), (root.st_dev, root.st_ino));
    let root = twin.root.try_clone().unwrap();
    let (_, given, _) = twin.ask(&OpenDir {}, &[root.as_fd()]).unwrap();
    let up = openat(&given[0], "../outside", OFlags::PATH | OFlags::CLOEXEC, HostMode::empty());
    assert_eq!(up.map(drop), Err(rustix::io::Errno::NOENT));
    twin.assert_contained();
}

// mount_setattr(2): MOUNT_ATTR_NOSYMFOLLOW; symlink(7): the helper follows none
#[apply(promise)]
fn a_symbolic_link_is_not_followed(on: Kind) {
    let mut twin = Twin::new(on);
    twin.host.symlink("../outside", "dir");
    twin.host.symlink("../outside/canary", "file");
    let (dir, file) = (twin.pin("dir"), twin.pin("file"));
    assert_eq!(twin.ask(&mkdir("new"), &[dir.as_fd()]).map(drop), Err(Errno::ENOTDIR));
    assert_eq!(twin.ask(&Unlink { name: name("canary") }, &[dir.as_fd()]).map(drop), Err(Errno::ENOTDIR));
    assert!(twin.ask(&OpenDir {}, &[dir.as_fd()]).is_err());
    for flags in [OpenFlags::READ, OpenFlags::WRITE | OpenFlags::TRUNC] {
        assert!(twin.ask(&open_for(flags), &[file.as_fd()]).is_err());
    }
    let cut = SetAttr { changes: Changes { size: Some(0), ..Changes::default() } };
    assert!(twin.ask(&cut, &[file.as_fd()]).is_err());
    let root = twin.root.try_clone().unwrap();
    assert!(twin.ask(&create("file", 0o644), &[root.as_fd()]).is_err());
    let (_, given, _) = twin.ask(&OpenDir {}, &[root.as_fd()]).unwrap();
    let through = openat(&given[0], "dir/canary", OFlags::RDONLY | OFlags::CLOEXEC, HostMode::empty());
    assert!(through.is_err(), "a donated directory follows links");
    twin.assert_contained();
}

// open(2): "ENXIO"; the helper opens regular files and directories only
#[apply(promise)]
fn a_special_file_is_not_opened(on: Kind) {
    let mut twin = Twin::new(on);
    for (file, kind) in [("p", SFlag::S_IFIFO), ("s", SFlag::S_IFSOCK), ("null", SFlag::S_IFCHR)] {
        twin.host.mknod(file, kind);
        let pin = twin.pin(file);
        for flags in [OpenFlags::READ, OpenFlags::WRITE, OpenFlags::READ | OpenFlags::TRUNC] {
            assert_eq!(twin.ask(&open_for(flags), &[pin.as_fd()]).map(drop), Err(Errno::ENXIO), "{file}");
        }
        let root = twin.root.try_clone().unwrap();
        assert!(twin.ask(&create(file, 0o644), &[root.as_fd()]).is_err());
    }
}

// open(2): as for one file: regular ones only, by the names themselves, for reading only
#[apply(promise)]
fn of_several_names_the_regular_files_and_directories_are_opened(on: Kind) {
    let mut twin = Twin::new(on);
    twin.host.mkdir("d");
    for (file, kind) in [("d/pipe", SFlag::S_IFIFO), ("d/socket", SFlag::S_IFSOCK), ("d/null", SFlag::S_IFCHR)] {
        twin.host.mknod(file, kind);
    }
    twin.host.write("d/a", b"one");
    twin.host.write("d/z", b"two");
    twin.host.mkdir("d/dir");
    twin.host.symlink("a", "d/link");
    let (dir, file) = (twin.pin("d"), twin.pin("d/a"));
    let all = each(&["a", "none", "dir", "link", "pipe", "socket", "null", "z"]);
    let (attrs, given, _) = twin.ask(&all, &[dir.as_fd()]).unwrap();
    let kinds: Vec<_> = attrs.iter().map(|attr| attr.map(|attr| attr.kind())).collect();
    let (a_file, a_dir) = (Some(S_IFREG), Some(S_IFDIR));
    assert_eq!(kinds, [a_file, None, a_dir, None, None, None, None, a_file]);
    let texts = given.into_iter().map(|file| {
        assert!(std::io::Write::write_all(&mut HostFile::from(file.try_clone().unwrap()), b"x").is_err());
        std::io::read_to_string(HostFile::from(file)).map_err(|error| error.kind())
    });
    let is_dir = Err(std::io::ErrorKind::IsADirectory);
    assert_eq!(texts.collect::<Vec<_>>(), [Ok("one".to_owned()), is_dir, Ok("two".to_owned())]);
    let (attrs, given, _) = twin.ask(&all, &[file.as_fd()]).unwrap();
    assert!(attrs.len() == EACH_MAX && attrs.iter().all(Option::is_none) && given.is_empty(), "in no directory");
    twin.assert_contained();
}

// mount(2): MS_RDONLY of the clone, for the helper and for whoever holds a donated descriptor
#[apply(promise)]
fn a_read_only_share_stays_unchanged(on: Kind) {
    let mut twin = Twin::with(on, &["--readonly"]);
    twin.host.write("f", b"hello");
    twin.host.mkdir("d");
    let before = (twin.host.stat("f"), twin.host.stat(""));
    let (root, file) = (twin.root.try_clone().unwrap(), twin.pin("f"));
    let rofs = Err(Errno::EROFS);
    let at = [root.as_fd()];
    let node = [file.as_fd()];
    let (mode, umask) = (Mode::new(0o644), Mode::new(0));
    let target = Target::new(b"x").unwrap();
    let flags = OpenFlags::READ | OpenFlags::WRITE;
    assert_eq!(twin.ask(&mkdir("new"), &at).map(drop), rofs);
    assert_eq!(twin.ask(&create("new", 0o644), &at).map(drop), rofs);
    assert_eq!(twin.ask(&create("f", 0o644), &at).map(drop), rofs);
    assert_eq!(twin.ask(&TmpFile { mode, umask, flags }, &at).map(drop), rofs);
    assert_eq!(twin.ask(&Mknod { name: name("n"), kind: NodeKind::Fifo, mode, umask }, &at).map(drop), rofs);
    assert_eq!(twin.ask(&Symlink { name: name("n"), target }, &at).map(drop), rofs);
    assert_eq!(twin.ask(&Link { name: name("n") }, &[file.as_fd(), root.as_fd()]).map(drop), rofs);
    assert_eq!(twin.ask(&Unlink { name: name("f") }, &at).map(drop), rofs);
    assert_eq!(twin.ask(&Rmdir { name: name("d") }, &at).map(drop), rofs);
    let rename = Rename { name: name("f"), new_name: name("g"), flags: RenameFlags::empty() };
    assert_eq!(twin.ask(&rename, &[root.as_fd(), root.as_fd()]).map(drop), rofs);
    let mode = SetAttr { changes: Changes { mode: Some(Mode::new(0)), ..Changes::default() } };
    assert_eq!(twin.ask(&mode, &node).map(drop), rofs);
    let set = SetXattr { name: XattrName::new(b"user.a").unwrap(), flags: XattrFlags::empty() };
    assert_eq!(twin.ask_as(Caller::Root, &set, &node, b"x").map(drop), rofs);
    assert_eq!(twin.ask(&RemoveXattr { name: XattrName::new(b"user.a").unwrap() }, &node).map(drop), rofs);
    assert_eq!(twin.ask(&SetFlags { flags: 0x40 }, &node).map(drop), rofs);
    assert_eq!(twin.ask(&SetFsx { fsx: Fsx::default() }, &node).map(drop), rofs);
    assert_eq!(twin.ask_as(Caller::Root, &Write { offset: 0 }, &node, b"J").map(drop), rofs);
    assert_eq!(twin.ask(&Fallocate { mode: 0, offset: 0, length: 100 }, &node).map(drop), rofs);
    let copy = CopyRange { from_offset: 0, to_offset: 5, length: 1 };
    assert_eq!(twin.ask(&copy, &[file.as_fd(), file.as_fd()]).map(drop), rofs);
    for flags in [OpenFlags::WRITE, OpenFlags::READ | OpenFlags::TRUNC, OpenFlags::WRITE | OpenFlags::APPEND] {
        assert_eq!(twin.ask(&open_for(flags), &node).map(drop), rofs, "{flags:?}");
    }
    let (_, dir, _) = twin.ask(&OpenDir {}, &at).unwrap();
    let made = openat(&dir[0], "new", OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, HostMode::from(0o644));
    assert_eq!(made.map(drop), Err(rustix::io::Errno::ROFS));
    let (_, file, _) = twin.ask(&open_for(OpenFlags::READ), &node).unwrap();
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 },
        last_modification: rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 },
    };
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file[0]));
    let kept = rustix::fs::XattrFlags::empty();
    let by_itself = [
        rustix::fs::fchmod(&file[0], HostMode::from(0o777)),
        rustix::fs::fchown(&file[0], None, Some(rustix::process::Gid::from_raw(7))),
        rustix::fs::futimens(&file[0], &times),
        rustix::fs::fsetxattr(&file[0], "user.a", b"x", kept),
        rustix::fs::ioctl_setflags(&file[0], rustix::fs::IFlags::NODUMP),
        open(again, OFlags::WRONLY | OFlags::CLOEXEC, HostMode::empty()).map(drop),
    ];
    assert_eq!(by_itself, [Err(rustix::io::Errno::ROFS); 6]);
    assert_eq!((twin.host.stat("f"), twin.host.stat("")), before);
}

// open(2): a donated descriptor has the mode that was asked for
#[apply(promise)]
fn a_donated_descriptor_can_do_no_more_than_was_asked(on: Kind) {
    let mut twin = Twin::new(on);
    twin.host.write("f", b"hello");
    let file = twin.pin("f");
    let (_, read, _) = twin.ask(&open_for(OpenFlags::READ), &[file.as_fd()]).unwrap();
    assert_eq!(rustix::io::write(&read[0], b"x"), Err(rustix::io::Errno::BADF));
    let (_, write, _) = twin.ask(&open_for(OpenFlags::WRITE), &[file.as_fd()]).unwrap();
    assert_eq!(rustix::io::read(&write[0], &mut [0; 1][..]), Err(rustix::io::Errno::BADF));
    assert_eq!(twin.host.read("f"), b"hello");
}

// user_namespaces(7): an id outside the map: EOVERFLOW to create, EINVAL to give away
#[apply(promise)]
fn an_id_outside_the_map_cannot_be_assumed(on: Kind) {
    let mut twin = Twin::new(on);
    let Some(unmapped) = twin.host.unmapped_id() else {
        return assert!(!on.has_map(), "every id of the guest is an id of the host");
    };
    twin.host.write("f", b"");
    let (root, file) = (twin.root.try_clone().unwrap(), twin.pin("f"));
    let overflow = Err(Errno::EOVERFLOW);
    assert_eq!(twin.ask_as(user(unmapped), &mkdir("d"), &[root.as_fd()], b"").map(drop), overflow);
    assert_eq!(twin.ask_as(user(unmapped), &create("g", 0o644), &[root.as_fd()], b"").map(drop), overflow);
    let group = Caller::User { uid: GuestUid(1), gid: GuestGid(1), group: Some(GuestGid(unmapped)) };
    let member = twin.ask_as(group, &mkdir("e"), &[root.as_fd()], b"");
    assert!(member.is_err() || twin.host.stat("e").owner == ids(1, 1));
    let give = Changes { uid: Some(GuestUid(unmapped)), ..Changes::default() };
    assert_eq!(twin.ask(&SetAttr { changes: give }, &[file.as_fd()]).map(drop), Err(Errno::EINVAL));
    let give = Changes { gid: Some(GuestGid(unmapped)), ..Changes::default() };
    assert_eq!(twin.ask(&SetAttr { changes: give }, &[file.as_fd()]).map(drop), Err(Errno::EINVAL));
    assert_eq!(twin.host.stat("f").owner, ids(0, 0));
}

// capabilities(7): a root of a user namespace has no CAP_MKNOD that counts; the host form is told by option
#[apply(promise)]
fn a_device_is_made_by_a_root_of_the_host_only(on: Kind) {
    let mut twin = Twin::new(on);
    let root = twin.root.try_clone().unwrap();
    let kind = NodeKind::new(libc::S_IFCHR, Dev { major: 1, minor: 3 }).unwrap();
    let null = Mknod { name: name("null"), kind, mode: Mode::new(0o666), umask: Mode::new(0) };
    let made = twin.ask(&null, &[root.as_fd()]).map(drop);
    assert_eq!(made, if on.in_user_namespace() { Err(Errno::EPERM) } else { Ok(()) });
}

// xattr(7): the helper reaches no attribute that the share's root may not
#[apply(promise)]
fn trusted_attributes_are_out_of_reach(on: Kind) {
    let mut twin = Twin::new(on);
    twin.host.write("f", b"");
    twin.host.setxattr("f", "trusted.secret", b"x");
    let file = twin.pin("f");
    let secret = || XattrName::new(b"trusted.secret").unwrap();
    assert!(twin.ask(&GetXattr { name: secret(), size: 100 }, &[file.as_fd()]).is_err());
    let set = SetXattr { name: secret(), flags: XattrFlags::empty() };
    assert!(twin.ask_as(Caller::Root, &set, &[file.as_fd()], b"y").is_err());
    assert!(twin.ask(&RemoveXattr { name: secret() }, &[file.as_fd()]).is_err());
    let (_, _, names) = twin.ask(&ListXattr { size: 1000 }, &[file.as_fd()]).unwrap();
    assert_eq!(names, b"");
    assert_eq!(twin.host.getxattr("f", "trusted.secret").unwrap(), b"x");
}

// postern-helper(8): nothing between two requests: what comes along with requests does not stay
#[apply(promise)]
fn descriptors_do_not_pile_up_in_the_helper(on: Kind) {
    let mut twin = Twin::new(on);
    twin.host.mkdir("d");
    let dir = twin.pin("d");
    let open = |twin: &Twin| std::fs::read_dir(format!("/proc/{}/fd", twin.helper())).unwrap().count();
    let rounds = |twin: &mut Twin| {
        for _ in 0..100 {
            twin.ask(&OpenDir {}, &[dir.as_fd()]).unwrap();
            assert_eq!(twin.ask(&Rmdir { name: name("none") }, &[dir.as_fd()]).map(drop), Err(Errno::ENOENT));
        }
        open(twin)
    };
    let first = rounds(&mut twin);
    assert_eq!(rounds(&mut twin), first);
}

// postern-helper(8): --max-rate: "Most requests a second that a channel does, on average; as many may come at once.
// Then it waits"
#[apply(promise)]
fn a_channel_is_no_faster_than_it_may_be(on: Kind) {
    let mut twin = Twin::with(on, &["--max-rate=50"]);
    let root = twin.pin(".");
    let start = std::time::Instant::now();
    for _ in 0..75 {
        twin.ask(&OpenDir {}, &[root.as_fd()]).unwrap();
    }
    assert!(start.elapsed() >= std::time::Duration::from_millis(500), "{:?}", start.elapsed());
    let start = std::time::Instant::now();
    for _ in 0..10 {
        twin.ask(&each(&["f"; 5]), &[root.as_fd()]).unwrap();
    }
    assert!(start.elapsed() >= std::time::Duration::from_millis(900), "each name counts: {:?}", start.elapsed());
}

// unix(7): "ETOOMANYREFS": descriptors in flight count for their sender's user, and starve the other programs of his
#[apply(promise)]
fn answers_that_nobody_takes_hold_few_descriptors_in_flight(on: Kind) {
    left_in_flight(Twin::new(on), &open_for(OpenFlags::READ), "f", 1, 4);
    left_in_flight(Twin::new(on), &each(&["f"; EACH_MAX]), ".", EACH_MAX, EACH_MAX);
}

/// As many requests as a channel takes that nobody serves.
const MANY: usize = 16;

/// Asks many times about `path` and takes nothing, while no more than `most` descriptors may be in flight; then takes
/// all: `gives` with each answer.
fn left_in_flight<O: Op>(mut twin: Twin, op: &O, path: &str, gives: usize, most: usize) {
    use nix::sys::signal::{Signal, kill};
    twin.host.write("f", b"hello");
    let node = twin.pin(path);
    let helper = nix::unistd::Pid::from_raw(twin.helper() as i32);
    for _ in 0..MANY {
        let frame = twin.frame(Caller::Root, op, 0);
        twin.channel.send(&[&frame, b""], &[node.as_fd()]).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    kill(helper, Signal::SIGSTOP).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(50));
    let given = |twin: &Twin| twin.channel.receive(&mut vec![0; 4096]).map(|got| got.descriptors.len());
    let waiting = || {
        let mut poll = [nix::poll::PollFd::new(twin.channel.parts()[2], nix::poll::PollFlags::POLLIN)];
        nix::poll::poll(&mut poll, nix::poll::PollTimeout::ZERO).unwrap() > 0
    };
    let mut in_flight = 0;
    while waiting() {
        in_flight += given(&twin).unwrap();
    }
    kill(helper, Signal::SIGCONT).unwrap();
    assert!(in_flight <= most, "{in_flight} descriptors were in flight");
    (in_flight / gives..MANY).for_each(|_| assert_eq!(given(&twin), Ok(gives)));
}

/// Leaves `count` descriptors in flight that count for the user with this host id, until the sockets are dropped.
fn leave_in_flight(uid: u32, count: usize) -> [UnixStream; 2] {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    use std::os::fd::AsRawFd;
    let (ours, theirs) = UnixStream::pair().unwrap();
    let null = HostFile::open("/dev/null").unwrap();
    let send = || {
        let uid = rustix::process::Uid::from_raw(uid);
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        for part in vec![null.as_raw_fd(); count].chunks(200) {
            let parts = [std::io::IoSlice::new(b"x")];
            let rights = [ControlMessage::ScmRights(part)];
            sendmsg::<()>(ours.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
        }
    };
    std::thread::scope(|scope| scope.spawn(send).join().unwrap());
    [ours, theirs]
}

/// The user id that the host sees.
fn host_uid(pid: u32) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

// unix(7): "ETOOMANYREFS": what other programs of the same user leave in flight costs requests, not the helper
#[apply(promise)]
fn too_many_descriptors_in_flight_are_an_error_and_no_end(on: Kind) {
    let mut twin = Twin::with(on, &["--rlimit-nofile=512"]);
    twin.host.write("f", b"hello");
    let (root, file) = (twin.root.try_clone().unwrap(), twin.pin("f"));
    let others = leave_in_flight(host_uid(twin.helper()), 600);
    for _ in 0..3 {
        assert_eq!(twin.ask(&open_for(OpenFlags::READ), &[file.as_fd()]).map(drop), Err(Errno::ENFILE));
        assert_eq!(twin.ask(&Lookup { name: name("f") }, &[root.as_fd()]).map(drop), Err(Errno::ENFILE));
        twin.ask(&Stat {}, &[file.as_fd()]).unwrap();
    }
    drop(others);
    let opened = || twin.ask(&open_for(OpenFlags::READ), &[file.as_fd()]).is_ok();
    assert!(soon(opened), "the helper does not recover");
}

/// Another test may be at the same user's descriptors.
fn soon(mut happens: impl FnMut() -> bool) -> bool {
    (0..100).any(|_| happens() || (std::thread::sleep(std::time::Duration::from_millis(50)), false).1)
}

// unix(7): "ETOOMANYREFS"; the warden waits for room to hand new channels over
#[apply(promise)]
fn a_helper_is_replaced_although_many_descriptors_are_in_flight(on: Kind) {
    let mut twin = Twin::with(on, &["--rlimit-nofile=512"]);
    let helper = twin.helper();
    let others = leave_in_flight(host_uid(helper), 600);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(helper as i32), nix::sys::signal::Signal::SIGKILL).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(300));
    drop(others);
    twin.renew();
    let root = twin.root.try_clone().unwrap();
    twin.ask(&mkdir("d"), &[root.as_fd()]).unwrap();
}

// postern-helper(8): If the helper dies, the warden starts another and hands over new channels
#[apply(promise)]
fn a_helper_that_is_killed_is_replaced(on: Kind) {
    let mut twin = Twin::new(on);
    let root = twin.root.try_clone().unwrap();
    for round in 0..3 {
        twin.ask(&mkdir(&format!("d{round}")), &[root.as_fd()]).unwrap();
        let helper = nix::unistd::Pid::from_raw(twin.helper() as i32);
        nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL).unwrap();
        twin.renew();
    }
    twin.ask(&mkdir("last"), &[root.as_fd()]).unwrap();
    assert_eq!(twin.host.list("").len(), 4);
}

// postern-helper(8): a server that is gone takes its helper along
#[apply(promise)]
fn nothing_outlives_the_server(on: Kind) {
    let (scratch, socket, mut warden) = twin::start(on, &[]);
    send_hello(&socket, &Hello { version: VERSION, channels: 2, wants_map: false }).unwrap();
    assert!(matches!(receive_news(&socket), Ok(News::Welcome(_))), "{}", scratch.log());
    let helper = twin::children(warden.id()).pop().unwrap();
    drop(socket);
    assert!(twin::ends(&mut warden));
    assert!(twin::goes(helper), "helper {helper}");
}

// postern-ipc: the handshake: a version both know, as many channels as there may be
#[apply(promise)]
fn a_greeting_that_makes_no_sense_is_refused(on: Kind) {
    let good = Hello { version: VERSION, channels: 1, wants_map: false };
    let bad = [
        Hello { version: VERSION + 1, ..good },
        Hello { channels: 0, ..good },
        Hello { channels: CHANNELS_MAX + 1, ..good },
        Hello { channels: u16::MAX, ..good },
    ];
    for hello in bad {
        let (_scratch, socket, mut warden) = twin::start(on, &[]);
        send_hello(&socket, &hello).unwrap();
        assert!(matches!(receive_news(&socket), Ok(News::Refused(_)) | Err(Errno::ECONNRESET)), "{hello:?}");
        assert!(twin::ends(&mut warden), "{hello:?}");
    }
    let (_scratch, mut socket, mut warden) = twin::start(on, &[]);
    std::io::Write::write_all(&mut socket, &[0x55; LENGTH]).unwrap();
    assert!(twin::ends(&mut warden));
}

// postern-ipc: after the greeting the server has nothing to say on that socket
#[apply(promise)]
fn a_server_that_speaks_out_of_turn_is_the_end(on: Kind) {
    let mut twin = Twin::new(on);
    std::io::Write::write_all(&mut twin.socket, b"hello again").unwrap();
    twin.assert_ended();
}

// mount_setattr(2): MOUNT_ATTR_NOEXEC; execve(2): "EACCES  The filesystem is mounted noexec"
#[apply(promise)]
fn a_donated_program_is_not_executed(on: Kind) {
    use std::os::fd::AsRawFd;
    let mut twin = Twin::new(on);
    twin.host.write("true", &std::fs::read("/bin/true").unwrap());
    twin.host.chmod("true", 0o755);
    let pin = twin.pin("true");
    let (_, given, _) = twin.ask(&open_for(OpenFlags::READ), &[pin.as_fd()]).unwrap();
    for held in [&pin, &given[0]] {
        let path = format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd());
        let error = std::process::Command::new(path).status().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    }
    assert!(std::process::Command::new(twin.host.path("true")).status().unwrap().success());
}
