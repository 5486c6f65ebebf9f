//! 9P on a stream, by the real server behind its walls: listening, on a descriptor, and at the standard input and
//! output.

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use postern_server::p9::message::*;
use postern_server::p9::wire::{Put, Text};
use postern_tests::p9::{decode, frame};
use postern_tests::prelude::*;
use postern_tests::share::Scratch;
use postern_tests::stream::{Server, command, connect, listen, receive};

fn ask<T: Message + Put>(to: &mut impl Write, from: &mut impl Read, message: &T, data: &[u8]) -> Vec<u8> {
    to.write_all(&[frame(message, 9, data.len()), data.to_vec()].concat()).unwrap();
    let (kind, tag, body) = receive(from);
    assert_eq!((kind, tag), (T::NUMBER + 1, 9), "{body:?}");
    body
}

fn mount(to: &mut impl Write, from: &mut impl Read) {
    ask(to, from, &Tversion { msize: 1 << 20, version: Text(b"9P2000.L") }, &[]);
    ask(to, from, &Tattach { fid: 0, afid: NOFID, uname: Text(b""), aname: Text(b""), n_uname: 0 }, &[]);
}

/// Makes a file, syncs it and reads it again.
fn work(to: &mut impl Write, from: &mut impl Read, name: &str) {
    ask(to, from, &Twalk { fid: 0, newfid: 1, names: vec![] }, &[]);
    let flags = (O_RDWR | O_CREAT | O_EXCL) as u32;
    ask(to, from, &Tlcreate { fid: 1, name: Text(name.as_bytes()), flags, mode: 0o600, gid: 0 }, &[]);
    let data = vec![b'd'; 500_000];
    ask(to, from, &Twrite { fid: 1, offset: 0, count: 500_000 }, &data);
    ask(to, from, &Tfsync { fid: 1, datasync: 0 }, &[]);
    let body = ask(to, from, &Tread { fid: 1, offset: 0, count: 600_000 }, &[]);
    assert_eq!(decode::<Rread<'_>>(&body).data.0, data);
    ask(to, from, &Tclunk { fid: 1 }, &[]);
}

fn both(stream: &UnixStream) -> (UnixStream, UnixStream) {
    (stream.try_clone().unwrap(), stream.try_clone().unwrap())
}

#[apply(promise)]
fn clients_of_a_listening_server_work_side_by_side(on: Kind) {
    let scratch = Scratch::new(on, false);
    let _server = listen(on, &scratch, &["--trust-client"]);
    let streams = [(); 3].map(|()| connect(&scratch));
    for stream in &streams {
        let (mut to, mut from) = both(stream);
        mount(&mut to, &mut from);
    }
    for (number, stream) in streams.iter().enumerate() {
        let (mut to, mut from) = both(stream);
        work(&mut to, &mut from, &format!("f{number}"));
    }
    for number in 0..3 {
        assert_eq!(std::fs::metadata(scratch.path(&format!("share/f{number}"))).unwrap().len(), 500_000);
    }
    scratch.assert_contained();
}

// A client that takes no answers, one that breaks off in a message, and one that asks for more than agreed on.
#[apply(promise)]
fn a_client_that_means_harm_holds_up_nobody_else(on: Kind) {
    let scratch = Scratch::new(on, false);
    std::fs::write(scratch.path("share/large"), vec![b'x'; 1 << 20]).unwrap();
    let server = listen(on, &scratch, &["--trust-client", "--clients=2"]);
    let deaf = connect(&scratch);
    let (mut to, mut from) = both(&deaf);
    mount(&mut to, &mut from);
    ask(&mut to, &mut from, &Twalk { fid: 0, newfid: 1, names: vec![Text(b"large")] }, &[]);
    ask(&mut to, &mut from, &Tlopen { fid: 1, flags: 0 }, &[]);
    for _ in 0..20 {
        to.write_all(&frame(&Tread { fid: 1, offset: 0, count: 1 << 20 }, 1, 0)).unwrap();
    }
    for rest in [&b""[..], &[50, 0, 0, 0, 110], &[0; 7], &[0xff; 7], &[3, 0, 0, 0, 100, 0, 0]] {
        let mut other = connect(&scratch);
        other.write_all(rest).unwrap();
        drop(other);
        let (mut to, mut from) = both(&connect(&scratch));
        mount(&mut to, &mut from);
        work(&mut to, &mut from, "f");
        std::fs::remove_file(scratch.path("share/f")).unwrap();
    }
    drop((deaf, to, from));
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", server.0.id())).unwrap().count();
    let last = [connect(&scratch), connect(&scratch)];
    for stream in &last {
        let (mut to, mut from) = both(stream);
        mount(&mut to, &mut from);
    }
    assert!(descriptors() < 40, "what the clients had open is closed");
    scratch.assert_contained();
}

#[apply(promise)]
fn a_client_at_standard_input_and_output_is_served_until_it_goes(on: Kind) {
    let scratch = Scratch::new(on, false);
    let command = command(on, &scratch, &["--stdio", "--trust-client"]);
    let mut server = Server(scratch.spawn_at(command, on, Stdio::piped(), Stdio::piped()));
    let (mut to, mut from) = (server.0.stdin.take().unwrap(), server.0.stdout.take().unwrap());
    mount(&mut to, &mut from);
    work(&mut to, &mut from, "f");
    drop(to);
    assert!(server.0.wait().unwrap().success());
}

#[apply(promise)]
fn a_client_at_a_descriptor_is_served_until_it_goes(on: Kind) {
    let scratch = Scratch::new(on, false);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let theirs = OwnedFd::from(theirs);
    nix::fcntl::fcntl(&theirs, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let way = format!("--stream-fd={}", theirs.as_raw_fd());
    let mut server = Server(scratch.spawn(command(on, &scratch, &[&way, "--trust-client"]), on));
    drop(theirs);
    let (mut to, mut from) = both(&ours);
    mount(&mut to, &mut from);
    work(&mut to, &mut from, "f");
    drop((ours, to, from));
    assert!(server.0.wait().unwrap().success());
}

// diodls(8), diodcat(8): what diod's own server tells them, which knows no other ids than the host's
#[test]
fn diod_s_clients_are_told_what_diod_tells_them() {
    let scratch = Scratch::new(Kind::Root, false);
    let (share, theirs) = (scratch.path("share"), scratch.path("diod"));
    let content: Vec<String> = (0..50_000).map(|line| line.to_string()).collect();
    std::fs::create_dir(share.join("sub")).unwrap();
    std::fs::write(share.join("sub/large"), content.join("\n")).unwrap();
    std::os::unix::fs::symlink("sub/large", share.join("link")).unwrap();
    let _ours = listen(Kind::Root, &scratch, &["--trust-client"]);
    drop(connect(&scratch));
    let mut diod = Command::new("/usr/sbin/diod");
    diod.args(["-f", "-n", "-N", "-L", "stderr", "-e"]).arg(&share).arg("-l").arg(&theirs).stderr(Stdio::null());
    let _diod = Server(diod.spawn().unwrap());
    let end = Instant::now() + Duration::from_secs(10);
    while UnixStream::connect(&theirs).is_err() {
        assert!(Instant::now() < end, "diod does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    let said = |program: &str, server: &std::path::Path, name: &str, words: &[&str]| {
        let mut command = Command::new(format!("/usr/sbin/{program}"));
        let output = command.arg("-s").arg(server).args(["-a", name]).args(words).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // diod shows what is above its export.
        let lines = text.lines().filter(|line| !line.ends_with(" ..")).map(str::to_owned);
        (output.status.code(), lines.collect::<Vec<_>>(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (program, words) in [
        ("diodls", &[][..]),
        ("diodls", &["-l"]),
        ("diodls", &["-l", "sub", "sub/large"]),
        ("diodls", &["sub/missing"]),
        ("diodcat", &["sub/large"]),
        ("diodcat", &["sub/large", "missing"]),
        ("diodcat", &["sub"]),
    ] {
        let (ours, theirs) = (
            said(program, &scratch.path("socket"), "/", words),
            said(program, &theirs, share.to_str().unwrap(), words),
        );
        assert_eq!(ours, theirs, "{program} {words:?}");
    }
    assert_eq!(said("diodcat", &scratch.path("socket"), "/", &["sub/large"]), (Some(0), content, String::new()));
    scratch.assert_contained();
}
