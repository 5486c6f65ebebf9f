//! Faults that 9pfs has had, each by its number, and the bounds of a session. What a test elsewhere shows already is
//! named in postern-security(7).

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use postern_server::p9::message::*;
use postern_server::p9::wire::{Put, Text};
use postern_tests::p9::{ROOT, frame};
use postern_tests::prelude::*;
use postern_tests::process;
use postern_tests::share::Scratch;
use postern_tests::stream::{connect, listen, receive};

// The host, or another guest, swaps a directory for a link out of the share while this guest walks into it.
#[apply(promise)]
fn cve_2016_9602_a_directory_swapped_for_a_link_leads_no_walk_out(share: &Share9p) {
    share.host.mkdir("d");
    share.host.write("d/canary", b"inner");
    share.host.symlink("../outside", "l");
    let [d, l, t] = ["d", "l", "t"].map(|name| share.host.path(name));
    let done = AtomicBool::new(false);
    let (mut inside, mut missed) = (0, 0);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (from, to) in [(&d, &t), (&l, &d), (&d, &l), (&t, &d)] {
                    std::fs::rename(from, to).unwrap();
                }
            }
        });
        let clunk = |fid| share.clunk(fid).unwrap();
        for round in 0..3000 {
            match share.open("d/canary", O_RDONLY) {
                Ok(fid) => {
                    assert_eq!(share.read(fid, 0, 100).unwrap(), b"inner", "the canary outside was read");
                    clunk(fid);
                    inside += 1;
                }
                Err(_) => missed += 1,
            }
            if let Ok(fid) = share.create("d", &format!("new{round}"), O_RDWR, 0o600) {
                clunk(fid);
            }
            if let Ok(fid) = share.walk("d/canary") {
                let _ = share.call::<_, Rgetattr>(&Tgetattr { fid, request_mask: 0x7ff });
                clunk(fid);
            }
            if let Ok(dirfd) = share.walk("d") {
                let _ = share.unlink(dirfd, &format!("new{round}"), 0);
                let _ = share.call::<_, Rmkdir>(&Tmkdir { dfid: dirfd, name: Text(b"e"), mode: 0o700, gid: 0 });
                let _ = share.unlink(dirfd, "e", 0x200);
                clunk(dirfd);
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(inside > 0 && missed > 0, "{inside} times inside, {missed} times not");
    share.server.assert_contained();
}

// A value that changes while it is read must not bring bytes that were never in it.
#[apply(promise)]
fn cve_2017_15038_a_value_that_changes_while_it_is_walked_to_is_one_of_its_values(share: &Share9p) {
    share.host.write("f", b"x");
    let path = share.host.path("f");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let values = [vec![b'a'; 10], vec![b'b'; 3000]];
            for value in values.iter().cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                rustix::fs::lsetxattr(&path, "user.a", value, rustix::fs::XattrFlags::empty()).unwrap();
            }
        });
        let fid = share.walk("f").unwrap();
        for _ in 0..2000 {
            let newfid = share.fid();
            let Ok(Rxattrwalk { size }) = share.call(&Txattrwalk { fid, newfid, name: Text(b"user.a") }) else {
                continue;
            };
            let value = share.read(newfid, 0, 65_536).unwrap();
            assert!(value == [b'a'; 10] || value == [b'b'; 3000], "{} bytes", value.len());
            assert_eq!(value.len() as u64, size);
            assert_eq!(share.read(newfid, size, 65_536).unwrap(), b"", "beyond its end");
            share.clunk(newfid).unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
}

// intro(5): the client chooses fids: 2^32 of them. postern-server(1): --max-fids: "Others give ENFILE, which the log
// says once."
#[test]
fn cve_2026_8348_clients_with_all_fids_there_are_are_told_so_and_cost_no_more() {
    const MOST: u32 = 1 << 20;
    let scratch = Scratch::new(Kind::Root, false);
    let server = listen(Kind::Root, &scratch, &["--trust-client"]);
    let stream = connect(&scratch);
    let (mut to, mut from) = (stream.try_clone().unwrap(), std::io::BufReader::new(stream));
    let mut peaks = [0; 2];
    for peak in &mut peaks {
        say(&mut to, &Tversion { msize: 8192, version: Text(b"9P2000.L") });
        assert_eq!(receive(&mut from).0, Rversion::NUMBER);
        say(&mut to, &Tattach { fid: ROOT, afid: NOFID, uname: Text(b""), aname: Text(b""), n_uname: 0 });
        assert_eq!(receive(&mut from).0, Rattach::NUMBER);
        let mut refused = 0;
        for first in (1..=MOST + 1024).step_by(1024) {
            let walk = |newfid| frame(&Twalk { fid: ROOT, newfid, names: vec![] }, 1, 0);
            to.write_all(&(first..first + 1024).flat_map(walk).collect::<Vec<_>>()).unwrap();
            for _ in 0..1024 {
                refused += enfile(&mut from);
            }
        }
        assert_eq!(refused, 1024 + 1, "one fid is the root's");
        *peak = process::memory(server.0.id());
    }
    // The heap need not be as compact the second time; what leaked would be there twice.
    assert!(peaks[0] < 256 << 10 && peaks[1] < peaks[0] / 2 * 3, "{peaks:?} KiB");
    // They are all clients' together.
    let mut other = connect(&scratch);
    say(&mut other, &Tversion { msize: 8192, version: Text(b"9P2000.L") });
    assert_eq!(receive(&mut other).0, Rversion::NUMBER);
    say(&mut other, &Tattach { fid: ROOT, afid: NOFID, uname: Text(b""), aname: Text(b""), n_uname: 0 });
    assert_eq!(enfile(&mut other), 1);
    assert_eq!(scratch.log().matches("(--max-fids)").count(), 1);
    // One that goes makes room for one.
    for (message, answer) in [(Tclunk { fid: 1 }, Rclunk::NUMBER), (Tclunk { fid: 1 }, Rlerror::NUMBER)] {
        say(&mut to, &message);
        assert_eq!(receive(&mut from).0, answer);
    }
    for expected in [0, 1] {
        say(&mut to, &Twalk { fid: ROOT, newfid: MOST * 2 + expected, names: vec![] });
        assert_eq!(enfile(&mut from), expected);
    }
    scratch.assert_contained();
}

fn say(to: &mut impl Write, message: &(impl Message + Put)) {
    to.write_all(&frame(message, 1, 0)).unwrap();
}

/// Whether a walk has been refused because there are too many.
fn enfile(from: &mut impl Read) -> u32 {
    match receive(from) {
        (Rwalk::NUMBER, ..) => 0,
        (kind, _, body) => {
            assert_eq!((kind, body.as_slice()), (Rlerror::NUMBER, &23_u32.to_le_bytes()[..]));
            1
        }
    }
}
