//! A server that breaks the protocol ends the helper for good, with one line; one that is merely gone ends it quietly.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use common::*;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use postern_ipc::attr::{Attr, OpenFlags, XattrFlags};
use postern_ipc::channel::{Channel, take};
use postern_ipc::frame::{FRAME_MAX, HEADER, encode, split};
use postern_ipc::hello::{Hello, News, VERSION, receive_news, send_hello};
use postern_ipc::name::XattrName;
use postern_ipc::op::{Kind, Lookup, SetXattr, Stat, Write};
use postern_ipc::{Errno, Result};

/// A helper with the bare end of a channel.
struct Raw {
    started: Started,
    root: OwnedFd,
    channel: Channel,
    _dir: tempfile::TempDir,
}

impl Raw {
    fn new() -> Self {
        let dir = dir();
        std::fs::write(dir.path().join("f"), "text").unwrap();
        let started = Started::new(By::Root, dir.path(), &[]);
        started.greet(1, false);
        assert!(matches!(receive_news(&started.socket), Ok(News::Welcome(_))), "{}", started.log());
        let root = take(&started.socket).unwrap();
        let channel = take_all(&started.socket, 1).remove(0);
        Self { started, root, channel, _dir: dir }
    }

    /// What the helper answers: its errno, and how many descriptors came along.
    fn exchange(&self, frame: &[u8], at: &[BorrowedFd<'_>]) -> (Option<Errno>, usize) {
        self.channel.send(&[frame, b""], at).unwrap();
        let mut buffer = vec![0; FRAME_MAX];
        let got = self.channel.receive(&mut buffer).unwrap();
        let (header, _, _) = split(&buffer[..got.len]).unwrap();
        (header.errno, got.descriptors.len())
    }

    /// It ends for good and says why, in one line; the other side hears of it.
    fn ends(mut self, why: &str) {
        let wanted = format!("error: the server broke the protocol: {why}\n");
        assert_eq!(self.started.status(), Some(3), "{}", self.started.log());
        assert_eq!(self.started.log().matches(&wanted).count(), 1, "{}", self.started.log());
        assert_eq!(receive_news(&self.started.socket), Ok(News::Refused("the protocol was broken".into())));
        assert_eq!(receive_news(&self.started.socket), Err(Errno::ECONNRESET));
    }
}

fn frame(kind: u16, body: &impl serde::Serialize, data: usize) -> Vec<u8> {
    let mut out = Vec::new();
    encode(&mut out, 9, kind, None, body, data).unwrap();
    out
}

fn stat() -> Vec<u8> {
    frame(Kind::Stat as u16, &(ROOT, Stat {}), 0)
}

#[test]
fn an_honest_request_is_answered() {
    let raw = Raw::new();
    assert_eq!(raw.exchange(&stat(), &[raw.root.as_fd()]), (None, 0));
}

#[test]
fn a_truncated_frame_ends_it() {
    for cut in [1, HEADER - 1, HEADER, HEADER + 3] {
        let raw = Raw::new();
        raw.channel.send(&[&stat()[..cut], b""], &[raw.root.as_fd()]).unwrap();
        let why = if cut < HEADER { "shorter than a header" } else { "shorter than its header says" };
        raw.ends(why);
    }
}

#[test]
fn a_frame_longer_than_any_ends_it() {
    let raw = Raw::new();
    // It does not wait for the rest.
    let sent = raw.channel.send(&[&stat(), &vec![0; FRAME_MAX]], &[raw.root.as_fd()]);
    assert!(matches!(sent, Ok(()) | Err(Errno::EPIPE)), "{sent:?}");
    raw.ends("longer than a frame");
}

#[test]
fn an_unknown_operation_ends_it() {
    let raw = Raw::new();
    raw.channel.send(&[&frame(99, &ROOT, 0), b""], &[]).unwrap();
    raw.ends("unknown operation");
}

#[test]
fn a_request_with_an_errno_ends_it() {
    let raw = Raw::new();
    let mut out = Vec::new();
    encode(&mut out, 1, Kind::Stat as u16, Some(Errno::EIO), &(), 0).unwrap();
    raw.channel.send(&[&out, b""], &[raw.root.as_fd()]).unwrap();
    raw.ends("a request carries an errno");
}

#[test]
fn a_name_that_is_a_path_ends_it() {
    #[derive(serde::Serialize)]
    struct Bytes<'a>(#[serde(serialize_with = "bytes")] &'a [u8]);
    fn bytes<S: serde::Serializer>(bytes: &[u8], serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }
    for bad in [&b"a/b"[..], b"..", b".", b"", b"a\0b", &[b'x'; 256]] {
        let raw = Raw::new();
        let out = frame(Kind::Lookup as u16, &(ROOT, Bytes(bad)), 0);
        raw.channel.send(&[&out, b""], &[raw.root.as_fd()]).unwrap();
        raw.ends("body does not decode");
    }
}

#[test]
fn bulk_data_for_a_row_without_any_ends_it() {
    let raw = Raw::new();
    raw.channel.send(&[&frame(Kind::Stat as u16, &(ROOT, Stat {}), 4), b"data"], &[raw.root.as_fd()]).unwrap();
    raw.ends("a request has more bulk data than its row takes");
}

#[test]
fn a_wrong_number_of_descriptors_ends_it() {
    for many in [0, 2] {
        let raw = Raw::new();
        raw.channel.send(&[&stat(), b""], &vec![raw.root.as_fd(); many]).unwrap();
        raw.ends("a request has a wrong number of descriptors");
    }
}

// ATTACKS B11: as many as one message can carry.
#[test]
fn two_hundred_and_fifty_three_descriptors_end_it() {
    let raw = Raw::new();
    let rights = [raw.root.as_raw_fd(); 253];
    let control = [ControlMessage::ScmRights(&rights)];
    let [descriptors, output, _] = raw.channel.parts();
    let parts = [std::io::IoSlice::new(&[0])];
    sendmsg::<()>(descriptors.as_raw_fd(), &parts, &control, MsgFlags::empty(), None).unwrap();
    let frame = stat();
    let length = u8::try_from(frame.len()).unwrap();
    rustix::io::write(output, &[&[length, 0, 0, 0, 253, 0, 0, 0], &frame[..]].concat()).unwrap();
    raw.ends("a request has a wrong number of descriptors");
}

#[test]
fn a_descriptor_that_is_not_o_path_ends_it() {
    let raw = Raw::new();
    let file = File::open("/dev/null").unwrap();
    raw.channel.send(&[&stat(), b""], &[file.as_fd()]).unwrap();
    raw.ends("a descriptor is not O_PATH");
}

fn path(of: &std::path::Path) -> OwnedFd {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(of, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

// The same directory by the host's own mount is not the share's; nor is a memory file whose mount id is 0.
#[test]
fn a_descriptor_of_another_mount_ends_it() {
    let raw = Raw::new();
    raw.channel.send(&[&stat(), b""], &[path(raw._dir.path()).as_fd()]).unwrap();
    raw.ends("a descriptor is not of the share's mounts");
    for other in ["/", "/proc", "/dev"] {
        let raw = Raw::new();
        raw.channel.send(&[&stat(), b""], &[path(other.as_ref()).as_fd()]).unwrap();
        raw.ends("a descriptor is not of the share's mounts");
    }
}

// The plain mount id of a memory file is 0, as is a field that the kernel did not fill.
#[test]
fn a_descriptor_of_a_file_without_a_mount_ends_it() {
    let raw = Raw::new();
    let memory = rustix::fs::memfd_create("m", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let pinned = path(format!("/proc/self/fd/{}", memory.as_raw_fd()).as_ref());
    raw.channel.send(&[&stat(), b""], &[pinned.as_fd()]).unwrap();
    raw.ends("a descriptor is not of the share's mounts");
}

// ATTACKS B1: whoever asks such a file system for attributes waits until he is killed.
#[test]
fn a_descriptor_of_a_fuse_mount_that_never_answers_ends_it() {
    let Ok(device) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse") else { return };
    let at = dir();
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("mute"), at.path(), Some("fuse"), flags, Some(options.as_str())).unwrap();
    let raw = Raw::new();
    raw.channel.send(&[&stat(), b""], &[path(at.path()).as_fd()]).unwrap();
    raw.ends("a descriptor is not of the share's mounts");
    nix::mount::umount2(at.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
}

/// A file of a FUSE server that takes part until it is open and then never answers again: whoever closes it waits, even
/// when he is killed. linux/fuse.h: FUSE_INIT, FUSE_OPEN
fn mute_file() -> Option<(File, tempfile::TempDir, File)> {
    let mut device = File::options().read(true).write(true).open("/dev/fuse").ok()?;
    let at = dir();
    let path = at.path().join("mute");
    File::create(&path).unwrap();
    let options = format!("fd={},rootmode=100644,user_id=0,group_id=0", device.as_raw_fd());
    let flags = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("mute"), &path, Some("fuse"), flags, Some(options.as_str())).unwrap();
    let opening = std::thread::spawn(move || {
        let file = File::options().write(true).open(&path).unwrap();
        nix::mount::umount2(&path, nix::mount::MntFlags::MNT_DETACH).unwrap();
        file
    });
    let init = [7, 31, 4096, 0, 0, 4096, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].map(u32::to_le_bytes).concat();
    for answer in [init, vec![0; 16]] {
        let mut request = vec![0; 1 << 17];
        std::io::Read::read(&mut device, &mut request).unwrap();
        let len = u32::try_from(answer.len().saturating_add(16)).unwrap().to_le_bytes();
        let answer = [&len[..], &[0; 4], &request[8..16], &answer].concat();
        std::io::Write::write_all(&mut device, &answer).unwrap();
    }
    Some((opening.join().unwrap(), at, device))
}

// ATTACKS B1: "close of a foreign data descriptor may block"; nothing is started while one is open here
#[test]
fn a_helper_that_cannot_close_a_descriptor_keeps_no_warden() {
    let mut raw = Raw::new();
    let Some((file, _at, device)) = mute_file() else { return };
    let sent = raw.channel.send(&[&stat(), b""], &[file.as_fd()]);
    std::thread::sleep(std::time::Duration::from_millis(200));
    raw.started.socket.shutdown(std::net::Shutdown::Both).unwrap_or_default();
    let ended = (0..200).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        matches!(raw.started.child.try_wait(), Ok(Some(_)))
    });
    drop(device);
    assert_eq!(sent, Ok(()));
    assert!(ended, "the warden waits for ever: {}", raw.started.log());
}

#[test]
fn the_socket_may_be_a_seqpacket_one() {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    let dir = dir();
    let pair = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let (socket, theirs) = (UnixStream::from(pair.0), pair.1);
    let mut child = std::process::Command::new("sh")
        .args(["-c", "exec \"$0\" --sock-fd 3 --shared-dir \"$1\" 3<&0 2>/dev/null"])
        .args([env!("CARGO_BIN_EXE_postern-helper").as_ref(), dir.path()])
        .stdin(theirs)
        .spawn()
        .unwrap();
    send_hello(&socket, &Hello { version: VERSION, channels: 2, wants_map: false }).unwrap();
    assert!(matches!(receive_news(&socket), Ok(News::Welcome(_))));
    let root = Arc::new(take(&socket).unwrap());
    let links = postern_ipc::client::Links::new(take_all(&socket, 2), std::time::Duration::ZERO, 0);
    let attr = links.call(ROOT, &Stat {}, &[&root], b"", |attr, _, _| attr).unwrap();
    assert_eq!(attr, Attr::of(&*root).unwrap());
    drop(socket);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_server_that_speaks_out_of_turn_ends_it() {
    let raw = Raw::new();
    std::io::Write::write_all(&mut &raw.started.socket, b"x").unwrap();
    raw.ends("it spoke out of turn");
}

#[test]
fn a_server_that_is_gone_ends_it_quietly() {
    let Raw { mut started, channel, .. } = Raw::new();
    drop(std::mem::replace(&mut started.socket, UnixStream::pair().unwrap().0));
    assert_eq!(started.status(), Some(0));
    drop(channel);
    let Raw { mut started, channel, .. } = Raw::new();
    drop(channel);
    assert_eq!(started.status(), Some(0), "a helper that nobody can ask is not needed");
}

#[test]
fn sigterm_ends_it_quietly() {
    let mut raw = Raw::new();
    let pid = nix::unistd::Pid::from_raw(raw.started.child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(raw.started.status(), Some(0));
}

#[test]
fn a_read_only_share_answers_erofs_and_lives() {
    let dir = dir();
    std::fs::write(dir.path().join("f"), "text").unwrap();
    let sut = Sut::new(dir.path(), &["--readonly"]);
    let node = sut.node("f");
    assert_eq!(errno(sut.mkdir(ROOT, "d", 0o755)), Errno::EROFS);
    assert_eq!(errno(sut.create(ROOT, "g", 0o755)), Errno::EROFS);
    assert_eq!(errno(sut.send(ROOT, Write { offset: 0 }, &[&node], b"x")), Errno::EROFS);
    let xattr = SetXattr { name: XattrName::new(b"user.a").unwrap(), flags: XattrFlags::empty() };
    assert_eq!(errno(sut.send(ROOT, xattr, &[&node], b"x")), Errno::EROFS);
    for flags in [OpenFlags::WRITE, OpenFlags::READ | OpenFlags::TRUNC] {
        assert_eq!(errno(sut.open("f", flags)), Errno::EROFS);
    }
    assert_eq!(text(sut.open("f", OpenFlags::READ | OpenFlags::NOATIME).unwrap()), "text");
    assert_eq!(sut.ask(ROOT, Lookup { name: name("f") }, &[&sut.root]).unwrap().reply, Attr::of(&node).unwrap());
    assert!(!sut.log().contains("error"), "{}", sut.log());
    // What was donated cannot change anything either.
    let changed = std::fs::OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", node.as_raw_fd()));
    assert_eq!(changed.unwrap_err().raw_os_error(), Some(nix::libc::EROFS));
}

fn refused(hello: Hello) -> (Option<i32>, Result<News>) {
    let dir = dir();
    let mut started = Started::new(By::Root, dir.path(), &[]);
    send_hello(&started.socket, &hello).unwrap();
    (started.status(), receive_news(&started.socket))
}

#[test]
fn a_greeting_that_cannot_be_met_is_refused_with_the_reason() {
    for (hello, why) in [
        (Hello { version: 99, channels: 1, wants_map: false }, "it speaks version 99"),
        (Hello { version: VERSION, channels: 0, wants_map: false }, "it asks for 0 channels"),
        (Hello { version: VERSION, channels: 65, wants_map: false }, "it asks for 65 channels"),
    ] {
        match refused(hello) {
            (Some(1), Ok(News::Refused(told))) => assert!(told.contains(why), "{told}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn as_many_channels_as_may_be_are_served_at_once() {
    let dir = dir();
    let sut = Sut::with_channels(By::Root, dir.path(), &[], 64);
    std::thread::scope(|scope| {
        for index in 0..sut.links.count() {
            let sut = &sut;
            scope.spawn(move || {
                sut.links.enter(index);
                assert_eq!(
                    sut.mkdir(user(u32::try_from(index).unwrap()), &format!("d{index}"), 0o755).unwrap().uid.0 as usize,
                    index
                );
            });
        }
    });
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 64);
}
