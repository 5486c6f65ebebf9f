//! What a helper holds of the last requests is what the server sent, is judged anew each time, and is let go in time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::os::fd::{AsFd as _, OwnedFd};

use common::*;
use postern_ipc::attr::{Attr, RenameFlags};
use postern_ipc::channel::{Channel, take};
use postern_ipc::frame::{FRAME_MAX, encode, owned, split};
use postern_ipc::held::{Coming, Comings, Slot, UNHELD};
use postern_ipc::hello::{News, receive_news};
use postern_ipc::op::{Mkdir, Op, Rename, Rmdir, Stat, Unlink};
use postern_ipc::{Errno, Result};
use rustix::fs::{Mode, OFlags, openat};

const KEPT: Coming = Coming::Kept(Slot::A);
const HELD: Coming = Coming::Held(Slot::A);
const SENT: Coming = Coming::Sent;

/// A helper with bare channels.
struct Raw {
    started: Started,
    root: OwnedFd,
    channels: Vec<Channel>,
    dir: tempfile::TempDir,
}

impl Raw {
    fn new(options: &[&str]) -> Self {
        let dir = dir();
        std::fs::write(dir.path().join("f"), "text").unwrap();
        std::fs::create_dir_all(dir.path().join("d/e")).unwrap();
        let started = Started::new(By::Root, dir.path(), options);
        started.greet(2, false);
        assert!(matches!(receive_news(&started.socket), Ok(News::Welcome(_))), "{}", started.log());
        let root = take(&started.socket).unwrap();
        let channels = take_all(&started.socket, 2);
        Self { started, root, channels, dir }
    }

    fn pin(&self, path: &str) -> OwnedFd {
        openat(&self.root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    fn on<O: Op>(&self, channel: usize, op: &O, sent: &[&OwnedFd], comings: Comings) -> Result<O::Reply> {
        let (mut out, mut buffer) = (Vec::new(), vec![0; FRAME_MAX]);
        encode(&mut out, 9, O::KIND as u16, None, &(ROOT, op), 0).unwrap();
        let sent: Vec<_> = sent.iter().map(|fd| fd.as_fd()).collect();
        self.channels[channel].send_coming(&[&out, b""], &sent, comings).unwrap();
        let got = self.channels[channel].receive(&mut buffer).unwrap();
        assert_ne!(got.len, 0, "{}", self.started.log());
        let (header, body, _) = split(&buffer[..got.len]).unwrap();
        header.errno.map_or_else(|| Ok(owned(body).unwrap()), Err)
    }

    fn ask<O: Op>(&self, op: &O, sent: &[&OwnedFd], comings: Comings) -> Result<O::Reply> {
        self.on(0, op, sent, comings)
    }

    fn stat(&self, sent: &[&OwnedFd], coming: Coming) -> Result<Attr> {
        self.ask(&Stat {}, sent, [coming, SENT])
    }

    /// Whether the process that serves has something open at the end of whose path is `name`.
    fn holds(&self, name: &str) -> bool {
        let warden = self.started.child.id();
        let children = std::fs::read_to_string(format!("/proc/{warden}/task/{warden}/children")).unwrap();
        let list = std::fs::read_dir(format!("/proc/{}/fd", children.trim())).unwrap();
        let mut links = list.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
        links.any(|link| link.to_str().unwrap().trim_end_matches(" (deleted)").ends_with(name))
    }
}

fn mkdir(text: &str) -> Mkdir {
    Mkdir { name: name(text), mode: mode(0o755), umask: mode(0) }
}

#[test]
fn what_was_sent_to_be_held_need_not_be_sent_again() {
    let raw = Raw::new(&[]);
    let (f, d) = (raw.pin("f"), raw.pin("d"));
    assert_eq!(raw.stat(&[&f], KEPT), Ok(Attr::of(&f).unwrap()));
    assert_eq!(raw.stat(&[&d], Coming::Kept(Slot::B)), Ok(Attr::of(&d).unwrap()));
    for _ in 0..3 {
        assert_eq!(raw.stat(&[], HELD), Ok(Attr::of(&f).unwrap()));
        assert_eq!(raw.stat(&[], Coming::Held(Slot::B)), Ok(Attr::of(&d).unwrap()));
    }
    assert_eq!(raw.stat(&[&d], KEPT), Ok(Attr::of(&d).unwrap()), "another comes in its place");
    assert_eq!(raw.stat(&[], HELD), Ok(Attr::of(&d).unwrap()));
    assert_eq!(raw.on(1, &Stat {}, &[], [HELD, SENT]), Err(UNHELD), "each channel holds its own");
}

#[test]
fn one_request_may_name_what_is_held_twice_or_hold_it_and_name_it() {
    let raw = Raw::new(&[]);
    let d = raw.pin("d");
    let rename = |from: &str, to: &str| Rename { name: name(from), new_name: name(to), flags: RenameFlags::empty() };
    assert_eq!(raw.ask(&rename("e", "g"), &[&d], [KEPT, HELD]), Ok(()));
    assert_eq!(raw.ask(&rename("g", "h"), &[], [HELD, HELD]), Ok(()));
    assert!(raw.dir.path().join("d/h").exists());
}

#[test]
fn what_is_not_held_is_not_taken_for_something_else_and_ends_nothing() {
    let raw = Raw::new(&[]);
    assert_eq!(raw.stat(&[], HELD), Err(UNHELD));
    assert_eq!(raw.ask(&mkdir("new"), &[], [HELD, SENT]), Err(UNHELD));
    let root = raw.pin(".");
    assert_eq!(raw.stat(&[&root], KEPT).map(drop), Ok(()));
    assert_eq!(raw.ask(&mkdir("new"), &[], [Coming::Held(Slot::B), SENT]), Err(UNHELD));
    assert!(!raw.dir.path().join("new").exists());
    assert_eq!(raw.ask(&mkdir("new"), &[], [HELD, SENT]).map(drop), Ok(()));
}

// A server takes for held what it has sent: what was held before must not be found in its place.
#[test]
fn what_is_not_believed_leaves_nothing_in_its_place() {
    let raw = Raw::new(&[]);
    let (f, e) = (raw.pin("f"), raw.pin("d/e"));
    let outside = dir();
    assert_eq!(raw.stat(&[&f], KEPT).map(drop), Ok(()));
    std::fs::rename(raw.dir.path().join("d"), outside.path().join("d")).unwrap();
    assert_eq!(raw.stat(&[&e], KEPT), Err(Errno::ESTALE));
    assert_eq!(raw.stat(&[], HELD), Err(UNHELD));
    // Nor what is to be held after one that is not believed.
    assert_eq!(raw.stat(&[&f], Coming::Kept(Slot::B)).map(drop), Ok(()));
    let rename = Rename { name: name("a"), new_name: name("b"), flags: RenameFlags::empty() };
    let both = [KEPT, Coming::Kept(Slot::B)];
    assert_eq!(raw.ask(&rename, &[&e, &raw.root], both), Err(Errno::ESTALE));
    assert_eq!(raw.stat(&[], Coming::Held(Slot::B)), Err(UNHELD));
}

// postern-helper(8): it is connected: a directory that the host moved out of the share while it was held is ESTALE
#[test]
fn what_is_held_is_stale_once_the_host_has_moved_it_out_of_the_share() {
    let raw = Raw::new(&[]);
    let (outside, e) = (dir(), raw.pin("d/e"));
    assert_eq!(raw.ask(&mkdir("before"), &[&e], [KEPT, SENT]).map(drop), Ok(()));
    let (inside, moved) = (raw.dir.path().join("d"), outside.path().join("d"));
    std::fs::rename(&inside, &moved).unwrap();
    assert_eq!(raw.ask(&mkdir("after"), &[], [HELD, SENT]).map(drop), Err(Errno::ESTALE));
    assert!(!moved.join("e/after").exists());
    std::fs::rename(&moved, &inside).unwrap();
    assert_eq!(raw.ask(&mkdir("after"), &[], [HELD, SENT]).map(drop), Ok(()));
}

// unlink(2): a file is freed once no process has it open
#[test]
fn a_file_is_let_go_when_a_name_is_removed_by_whomever() {
    let raw = Raw::new(&[]);
    let (f, d) = (raw.pin("f"), raw.pin("d"));
    assert_eq!(raw.stat(&[&f], KEPT).map(drop), Ok(()));
    assert_eq!(raw.stat(&[&d], Coming::Kept(Slot::B)).map(drop), Ok(()));
    assert!(raw.holds("/f") && raw.holds("/d"));
    assert_eq!(raw.on(1, &Unlink { name: name("f") }, &[&raw.root], [KEPT, SENT]), Ok(()));
    assert!(!raw.holds("/f"), "its blocks are not freed");
    assert_eq!(raw.stat(&[], HELD), Err(UNHELD));
    assert_eq!(raw.stat(&[], Coming::Held(Slot::B)).map(drop), Ok(()), "a directory may stay");
    // A name that is moved may take another's place.
    std::fs::write(raw.dir.path().join("f"), "text").unwrap();
    let f = raw.pin("f");
    assert_eq!(raw.stat(&[&f], KEPT).map(drop), Ok(()));
    let over = Rename { name: name("g"), new_name: name("f"), flags: RenameFlags::empty() };
    std::fs::write(raw.dir.path().join("g"), "text").unwrap();
    assert_eq!(raw.on(1, &over, &[], [HELD, HELD]), Ok(()));
    assert!(!raw.holds("/f"), "its blocks are not freed");
    // A network file system keeps a removed file that is held in its directory, under a name of its own.
    let f = raw.pin("f");
    assert_eq!(raw.stat(&[&f], KEPT).map(drop), Ok(()));
    assert_eq!(raw.on(1, &Rmdir { name: name("nothing") }, &[], [HELD, SENT]), Err(Errno::ENOENT));
    assert!(!raw.holds("/f"));
}

// open(2): O_TMPFILE, unlink(2): nobody removes the name of a file that has none
#[test]
fn a_file_without_a_name_is_not_held_and_a_directory_may_be() {
    let raw = Raw::new(&[]);
    let (f, e) = (raw.pin("f"), raw.pin("d/e"));
    std::fs::remove_file(raw.dir.path().join("f")).unwrap();
    std::fs::remove_dir(raw.dir.path().join("d/e")).unwrap();
    assert_eq!(raw.stat(&[&f], KEPT).map(drop), Ok(()));
    assert!(!raw.holds("/f"), "its blocks are not freed");
    assert_eq!(raw.stat(&[], HELD), Err(UNHELD));
    assert_eq!(raw.stat(&[&e], KEPT).map(drop), Ok(()));
    assert_eq!(raw.stat(&[], HELD).map(drop), Ok(()));
}

// postern-helper(8): --security-model=mapped-file: names of metadata are nobody's
#[test]
fn what_is_held_is_stale_once_it_lies_where_the_models_own_names_are() {
    let raw = Raw::new(&["--security-model=mapped-file"]);
    std::fs::create_dir_all(raw.dir.path().join(".virtfs_metadata")).unwrap();
    let e = raw.pin("d/e");
    assert_eq!(raw.stat(&[&e], KEPT).map(drop), Ok(()));
    assert_eq!(raw.stat(&[], HELD).map(drop), Ok(()));
    std::fs::rename(raw.dir.path().join("d"), raw.dir.path().join(".virtfs_metadata/d")).unwrap();
    assert_eq!(raw.stat(&[], HELD), Err(Errno::ESTALE));
}

#[test]
fn what_is_held_may_not_be_changed_where_the_share_is_read_only() {
    let raw = Raw::new(&["--readonly"]);
    let d = raw.pin("d");
    assert_eq!(raw.stat(&[&d], KEPT).map(drop), Ok(()));
    assert_eq!(raw.ask(&mkdir("new"), &[], [HELD, SENT]).map(drop), Err(Errno::EROFS));
}

#[test]
fn more_or_other_descriptors_than_the_row_has_end_it() {
    let cases: [(usize, Comings); 5] = [
        (1, [KEPT, HELD]),
        (1, [HELD, SENT]),
        (0, [HELD, HELD]),
        (0, [KEPT, SENT]),
        (2, [KEPT, Coming::Kept(Slot::B)]),
    ];
    for (count, comings) in cases {
        let mut raw = Raw::new(&[]);
        let mut out = Vec::new();
        encode(&mut out, 9, Stat::KIND as u16, None, &(ROOT, Stat {}), 0).unwrap();
        raw.channels[0].send_coming(&[&out, b""], &vec![raw.root.as_fd(); count], comings).unwrap();
        assert_eq!(raw.started.status(), Some(3), "{comings:?}: {}", raw.started.log());
        assert!(raw.started.log().contains("a request has a wrong number of descriptors"), "{}", raw.started.log());
    }
}
