//! A helper that dies is replaced; what the server holds stays good, and nothing below a submount comes to light.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postern_ipc::Errno;
use postern_ipc::attr::{Attr, OpenFlags};
use postern_ipc::op::{Lookup, Mkdir, OpenDir, Rename, Stat};

fn end(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}

/// A mount that goes with the test.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn tmpfs(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        sh(&format!("mount -t tmpfs none '{}'", at.display()));
        Self(at.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

// ATTACKS A1: the mount's clone outlives the helper, so that descriptors from before are still the share's.
#[test]
fn a_killed_helper_is_replaced_and_old_descriptors_stay_good() {
    let dir = dir();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    let sut = Sut::with_channels(By::Root, dir.path(), &[], 3);
    let node = sut.node("d");
    for signal in [Signal::SIGKILL, Signal::SIGSEGV, Signal::SIGTERM] {
        end(sut.worker(), signal);
        sut.renewed();
        let made = Mkdir { name: name(signal.as_str()), mode: mode(0o755), umask: mode(0) };
        sut.ask(user(3), made, &[&node]).unwrap();
        let line = format!("error: the helper was ended by {signal}\n");
        assert!(sut.log().contains(&line), "{}", sut.log());
    }
    assert_eq!(std::fs::read_dir(dir.path().join("d")).unwrap().count(), 3);
}

#[test]
fn a_helper_that_keeps_dying_is_given_time() {
    let dir = dir();
    let sut = Sut::new(dir.path(), &[]);
    let since = Instant::now();
    for _ in 0..15 {
        end(sut.worker(), Signal::SIGKILL);
        sut.renewed();
    }
    assert!(since.elapsed() >= Duration::from_secs(15 - 10), "{:?}", since.elapsed());
    assert!(sut.log().contains("info: starting another helper in "), "{}", sut.log());
}

#[test]
fn a_helper_does_not_outlive_its_warden() {
    let dir = dir();
    let mut sut = Sut::new(dir.path(), &[]);
    let worker = sut.worker();
    end(sut.child.id(), Signal::SIGKILL);
    sut.child.wait().unwrap();
    let since = Instant::now();
    while Path::new(&format!("/proc/{worker}/root")).read_link().is_ok() {
        assert!(since.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(5));
    }
    sut.links.end();
    assert_eq!(errno(sut.ask(ROOT, Stat {}, &[&sut.root])), Errno::EIO);
}

#[test]
fn a_submount_is_part_of_the_share() {
    let dir = dir();
    let mounted = Mounted::tmpfs(&dir.path().join("a b"));
    std::fs::write(mounted.0.join("inside"), "x").unwrap();
    let sut = Sut::new(dir.path(), &[]);
    let sub = sut.ask(ROOT, Lookup { name: name("a b") }, &[&sut.root]).unwrap();
    assert!(sub.reply.mount_root && sub.reply.id.mount != Attr::of(&sut.root).unwrap().id.mount);
    let sub = sub.gives.into_iter().next().unwrap();
    sut.ask(user(1), Mkdir { name: name("d"), mode: mode(0o755), umask: mode(0) }, &[&sub]).unwrap();
    assert!(mounted.0.join("d").is_dir());
    let moved = Rename { name: name("d"), new_name: name("d"), flags: postern_ipc::attr::RenameFlags::empty() };
    assert_eq!(errno(sut.ask(ROOT, moved, &[&sub, &sut.root])), Errno::EXDEV);
}

// ATTACKS A3, A4: neither the helper's death nor the host's umount uncovers what lies under a submount.
#[test]
fn what_lies_under_a_submount_never_comes_to_light() {
    let dir = dir();
    let at = dir.path().join("sub");
    std::fs::create_dir(&at).unwrap();
    std::fs::write(at.join("hidden"), "").unwrap();
    let mounted = Mounted::tmpfs(&at);
    sh(&format!("mount --make-shared {}", at.display()));
    let sut = Sut::new(dir.path(), &[]);
    end(sut.worker(), Signal::SIGKILL);
    sut.renewed();
    drop(mounted);
    assert!(at.join("hidden").exists());
    assert_eq!(errno(sut.ask(ROOT, Lookup { name: name("hidden") }, &[&sut.node("sub")])), Errno::ENOENT);
}

// ATTACKS A4: a mount that the host makes later does not arrive in the share.
#[test]
fn a_later_mount_of_the_host_does_not_arrive() {
    let dir = dir();
    let share = Mounted::tmpfs(&dir.path().join("share"));
    sh(&format!("mount --make-shared {0}; mkdir {0}/sub; touch {0}/sub/old", share.0.display()));
    let sut = Sut::new(&share.0, &[]);
    let later = Mounted::tmpfs(&share.0.join("sub"));
    std::fs::write(later.0.join("new"), "").unwrap();
    let sub = sut.node("sub");
    assert!(sut.ask(ROOT, Lookup { name: name("old") }, &[&sub]).is_ok());
    assert_eq!(errno(sut.ask(ROOT, Lookup { name: name("new") }, &[&sub])), Errno::ENOENT);
}

// ATTACKS A7: a directory keeps its mount id when the host moves it out of the share.
#[test]
fn a_directory_moved_out_of_the_share_is_stale_and_moved_back_it_is_not() {
    let outer = dir();
    let share = outer.path().join("share");
    std::fs::create_dir_all(share.join("d/deep")).unwrap();
    std::fs::write(share.join("d/f"), "text").unwrap();
    std::fs::write(share.join(" (deleted)"), "").unwrap();
    let sut = Sut::new(&share, &[]);
    let nodes = [sut.node("d"), sut.node("d/deep"), sut.node("d/f")];
    std::fs::rename(share.join("d"), outer.path().join("d")).unwrap();
    for node in &nodes {
        assert_eq!(errno(sut.ask(ROOT, Stat {}, &[node])), Errno::ESTALE);
    }
    let mkdir = || Mkdir { name: name("n"), mode: mode(0o755), umask: mode(0) };
    assert_eq!(errno(sut.ask(ROOT, mkdir(), &[&nodes[0]])), Errno::ESTALE);
    assert_eq!(errno(sut.ask(ROOT, OpenDir {}, &[&nodes[1]])), Errno::ESTALE);
    std::fs::remove_file(outer.path().join("d/f")).unwrap();
    assert_eq!(errno(sut.ask(ROOT, Stat {}, &[&nodes[2]])), Errno::ESTALE, "without a name it is outside still");
    assert!(sut.ask(ROOT, Stat {}, &[&sut.node(" (deleted)")]).is_ok(), "a name like what the kernel adds");
    std::fs::rename(outer.path().join("d"), share.join("back")).unwrap();
    sut.ask(ROOT, mkdir(), &[&nodes[0]]).unwrap();
}

#[test]
fn a_removed_file_that_is_held_is_still_the_shares() {
    let dir = dir();
    std::fs::write(dir.path().join("f"), "text").unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    let sut = Sut::new(dir.path(), &[]);
    let (file, gone) = (sut.node("f"), sut.node("d"));
    std::fs::remove_file(dir.path().join("f")).unwrap();
    std::fs::remove_dir(dir.path().join("d")).unwrap();
    let opened = sut.ask(ROOT, postern_ipc::op::Open { flags: OpenFlags::READ }, &[&file]).unwrap().gives.remove(0);
    assert_eq!(text(opened.into()), "text");
    let mkdir = Mkdir { name: name("n"), mode: mode(0o755), umask: mode(0) };
    assert_eq!(errno(sut.ask(ROOT, mkdir, &[&gone])), Errno::ENOENT);
}

// A path longer than PATH_MAX has no text; a directory is then judged by its way up.
#[test]
fn a_tree_deeper_than_a_path_can_say_is_served_and_judged() {
    let outer = dir();
    let share = outer.path().join("share");
    std::fs::create_dir_all(share.join("d")).unwrap();
    let sut = Sut::new(&share, &[]);
    let long = "x".repeat(250);
    let (mut top, mut at) = (None, sut.node("d"));
    for _ in 0..20 {
        sut.ask(ROOT, Mkdir { name: name(&long), mode: mode(0o755), umask: mode(0) }, &[&at]).unwrap();
        at = sut.ask(ROOT, Lookup { name: name(&long) }, &[&at]).unwrap().gives.remove(0);
        top.get_or_insert(at.try_clone().unwrap());
    }
    assert!(sut.ask(ROOT, OpenDir {}, &[&at]).is_ok());
    std::fs::rename(share.join("d"), outer.path().join("d")).unwrap();
    assert_eq!(errno(sut.ask(ROOT, OpenDir {}, &[&at])), Errno::ESTALE);
    assert_eq!(errno(sut.ask(ROOT, OpenDir {}, &[&top.unwrap()])), Errno::ESTALE);
}

#[test]
fn the_root_of_a_file_system_can_be_shared() {
    let dir = dir();
    let mounted = Mounted::tmpfs(&dir.path().join("fs"));
    let sut = Sut::new(&mounted.0, &[]);
    sut.mkdir(user(2), "d", 0o755).unwrap();
    assert!(mounted.0.join("d").is_dir());
}
