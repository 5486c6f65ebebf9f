//! A 9P guest that means harm: whatever it sends, it gets an error or nothing, nothing outside the share changes, and
//! the server lives and answers.

use std::time::Duration;

use postern_server::p9::message::*;
use postern_server::p9::wire::{Put, Text};
use postern_tests::dotu::dm;
use postern_tests::fuse::PATIENCE;
use postern_tests::hostile::{bad_names, p9_messages, record};
use postern_tests::p9::{ROOT, frame};
use postern_tests::prelude::*;
use postern_tests::process;
use postern_tests::share::Share9p;

/// A share with a file `f`, a directory `d` with a file, a fifo, and symbolic links out of it.
fn bait(share: &Share9p) {
    share.host.write("f", b"hello");
    share.host.mkdir("d");
    share.host.write("d/f", b"inner");
    share.host.symlink("../outside", "out");
    share.host.symlink("../outside/canary", "canary");
}

/// Checks that the server is what it was, and the share and its surroundings too.
fn assert_unharmed(share: &Share9p) {
    assert!(share.server.lives(), "the server has ended");
    share.version(1 << 20, b"9P2000.L").unwrap();
    share.attach_as(ROOT, 0).unwrap();
    assert_eq!(share.getattr(ROOT).unwrap().mode, S_IFDIR | 0o777);
    assert_eq!(share.host.list(""), ["canary", "d", "f", "out"]);
    assert_eq!((share.host.read("f"), share.host.list("d")), (b"hello".to_vec(), vec!["f".into()]));
    share.server.assert_contained();
}

/// Fids that stand for nothing.
const NONE: [u32; 2] = [4711, 4712];
/// What a client may speak.
const DIALECTS: [&[u8]; 2] = [b"9P2000.L", b"9P2000.u"];

/// Begins anew in a dialect.
fn speak(share: &Share9p, dialect: &[u8]) {
    share.version(1 << 20, dialect).unwrap();
    share.attach_as(ROOT, 0).unwrap();
}

/// Sends bytes; whatever comes back is an error or nothing.
fn assert_refused(share: &Share9p, message: &[u8]) {
    let answer = share.recv_any(share.send_raw(message, &[], 0), PATIENCE).expect("given back");
    assert!(answer.is_empty() || is_error(&answer), "{message:02x?} -> {answer:02x?}");
}

fn is_error(answer: &[u8]) -> bool {
    [Rlerror::NUMBER, Rerror::NUMBER].contains(&answer[4])
}

// intro(5): "Each message consists of a sequence of bytes ... size[4]"
#[apply(promise)]
fn a_truncated_or_mismeasured_message_is_refused(share: &Share9p) {
    bait(share);
    for (dialect, message) in
        DIALECTS.iter().flat_map(|dialect| p9_messages(NONE).into_iter().map(move |m| (dialect, m)))
    {
        speak(share, dialect);
        for len in 1..message.len() {
            assert_refused(share, &message[..len]);
            let mut measured = message[..len].to_vec();
            if let Some(size) = measured.get_mut(..4) {
                size.copy_from_slice(&(len as u32).to_le_bytes());
                if message[4] != Twrite::NUMBER || len < message.len() {
                    assert_refused(share, &measured);
                }
            }
        }
        for size in [0_u32, 6, 7, message.len() as u32 - 1, message.len() as u32 + 1, u32::MAX] {
            let lying = [&size.to_le_bytes(), &message[4..]].concat();
            assert_refused(share, &lying);
        }
        let mut longer = [message.as_slice(), b"x"].concat();
        longer[..4].copy_from_slice(&(message.len() as u32 + 1).to_le_bytes());
        assert_refused(share, &longer);
    }
    assert_unharmed(share);
}

#[apply(promise)]
fn random_bytes_do_no_harm(share: &Share9p) {
    bait(share);
    let mut random = 0x1234_5678_9abc_def1_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let good = p9_messages(NONE);
    for round in 0..8_000 {
        if round % 4_000 == 0 {
            speak(share, DIALECTS[round / 4_000]);
        }
        let mut message = good[next() as usize % good.len()].clone();
        for _ in 0..1 + next() % 4 {
            // Size, tag and fids stay as they are in most: the decoder behind them is what is tried.
            let at = next() as usize % message.len();
            if !(4..5).contains(&at) && !(7..11).contains(&at) {
                message[at] = next() as u8;
            }
        }
        let answer = share.recv_any(share.send_raw(&message, &[], 0), PATIENCE);
        assert!(answer.is_some(), "{message:02x?}");
    }
    for kind in DIALECTS.iter().flat_map(|dialect| {
        speak(share, dialect);
        0..=u8::MAX
    }) {
        let body: Vec<u8> = (0..next() % 64).map(|_| next() as u8).collect();
        let size = (HEADER + body.len()) as u32;
        let message = [&size.to_le_bytes()[..], &[kind, 1, 0], &body].concat();
        assert!(share.recv_any(share.send_raw(&message, &[], 0), PATIENCE).is_some(), "{message:02x?}");
    }
    assert_unharmed(share);
}

// CVE-2016-7116: "../" in names. path_resolution(7): a component has no '/', no NUL, at most 255 bytes
#[apply(promise)]
fn cve_2016_7116_a_bad_name_names_nothing(share: &Share9p) {
    bait(share);
    let file = share.walk("f").unwrap();
    for name in &bad_names() {
        let name = Text(name);
        let (fid, newfid) = (share.walk("").unwrap(), share.fid());
        let good = Text(b"new");
        let mut frames = vec![
            frame(&Tlcreate { fid, name, flags: O_RDWR as u32, mode: 0o600, gid: 0 }, 1, 0),
            frame(&Tsymlink { dfid: fid, name, target: good, gid: 0 }, 1, 0),
            frame(&Tmknod { dfid: fid, name, mode: S_IFREG | 0o600, major: 0, minor: 0, gid: 0 }, 1, 0),
            frame(&Trename { fid: file, dfid: fid, name }, 1, 0),
            frame(&Tlink { dfid: fid, fid: file, name }, 1, 0),
            frame(&Tmkdir { dfid: fid, name, mode: 0o700, gid: 0 }, 1, 0),
            frame(&Trenameat { olddirfid: fid, oldname: name, newdirfid: fid, newname: good }, 1, 0),
            frame(&Trenameat { olddirfid: fid, oldname: Text(b"f"), newdirfid: fid, newname: name }, 1, 0),
            frame(&Tunlinkat { dirfd: fid, name, flags: 0 }, 1, 0),
            frame(&Tunlinkat { dirfd: fid, name, flags: 0x200 }, 1, 0),
        ];
        if !matches!(name.0, b"." | b"..") {
            frames.push(frame(&Twalk { fid, newfid, names: vec![name] }, 1, 0));
        }
        frames.iter().for_each(|frame| assert_refused(share, frame));
    }
    speak(share, b"9P2000.u");
    for name in &bad_names() {
        let (fid, name) = (share.walk("").unwrap(), Text(name));
        for perm in [0o600, dm::DIR | 0o700, dm::SYMLINK, dm::LINK, dm::NAMED_PIPE, dm::SOCKET] {
            assert_refused(share, &frame(&Tcreate { fid, name, perm, mode: 2, extension: Text(b"0") }, 1, 0));
        }
    }
    assert_unharmed(share);
}

// 9P2000.u: what a file is beside Plan 9's kinds is said in words
#[apply(promise)]
fn an_extension_that_means_nothing_makes_nothing(share: &Share9p) {
    bait(share);
    share.speak_u(1 << 20);
    let long = vec![b'9'; 65_000];
    let words: [&[u8]; 10] =
        [b"", b"-1", b"0x1", b" 1", b"1 2", b"4711", b"99999999999999999999", b"1\n\n", b"\0", b"\xff\xfe"];
    for extension in words.into_iter().chain([long.as_slice()]) {
        let make =
            |perm| frame(&Tcreate { fid: ROOT, name: Text(b"n"), perm, mode: 0, extension: Text(extension) }, 1, 0);
        assert_refused(share, &make(dm::LINK));
        assert_refused(share, &make(dm::DEVICE));
        if extension.is_empty() || extension.contains(&0) || extension.len() > 4095 {
            assert_refused(share, &make(dm::SYMLINK));
        }
    }
    for kinds in [dm::DIR | dm::LINK, dm::SYMLINK | dm::SOCKET, 0x4000_0000, 0x2000_0000, 0x0800_0000, u32::MAX] {
        let make = Tcreate { fid: ROOT, name: Text(b"n"), perm: kinds, mode: 0, extension: Text(b"c 1 3") };
        assert_refused(share, &frame(&make, 1, 0));
    }
    assert_unharmed(share);
}

// A record is measured twice, and its strings besides: each measure may lie.
#[apply(promise)]
fn a_record_that_is_not_as_long_as_it_says_changes_nothing(share: &Share9p) {
    bait(share);
    share.speak_u(1 << 20);
    let fid = share.walk("f").unwrap();
    let good = frame(&Twstat { fid, stat: record(Stat { length: 0, name: Text(b"gone"), ..Stat::DONT_TOUCH }) }, 1, 0);
    let (outer, inner) = (HEADER + 4, HEADER + 6);
    let name = inner + 41;
    for at in [outer, inner, name, name + 6, name + 8, name + 10, name + 12] {
        let said = u16::from_le_bytes([good[at], good[at + 1]]);
        for lie in [0, 1, said.wrapping_sub(1), said + 1, said + 2, 0x7fff, 0xffff] {
            let mut lying = good.clone();
            lying[at..at + 2].copy_from_slice(&lie.to_le_bytes());
            if lie != said {
                assert_refused(share, &lying);
            }
        }
    }
    assert_unharmed(share);
}

// CVE-2016-9602: symbolic links are the guest's to follow
#[apply(promise)]
fn a_symbolic_link_leads_nowhere(share: &Share9p) {
    bait(share);
    for path in ["out/canary", "out/..", "canary/.."] {
        assert_eq!(share.walk(path).map(drop), Err(ENOENT), "{path}");
    }
    for flags in [O_RDONLY, O_RDWR, O_RDWR | O_TRUNC, O_DIRECTORY] {
        assert!(share.open("canary", flags).is_err() && share.open("out", flags).is_err());
    }
    assert!(share.create("out", "new", O_RDWR, 0o600).is_err());
    assert!(share.create("", "canary", O_RDWR | O_TRUNC, 0o600).is_err());
    assert_unharmed(share);
}

// CVE-2017-7471: names relative to the root of the attach
#[apply(promise)]
fn cve_2017_7471_the_root_cannot_be_moved_or_removed(share: &Share9p) {
    bait(share);
    let [remove, rename] = [(); 2].map(|()| share.walk("").unwrap());
    assert_refused(share, &frame(&Tremove { fid: remove }, 1, 0));
    let dir = share.walk("d").unwrap();
    assert_refused(share, &frame(&Trename { fid: rename, dfid: dir, name: Text(b"root") }, 1, 0));
    assert_unharmed(share);
}

// CVE-2023-2861: FIFOs, sockets and devices are opened by the guest's kernel, never by the server
#[apply(promise)]
fn cve_2023_2861_a_special_file_is_not_opened(share: &Share9p) {
    let fifo = Tmknod { dfid: ROOT, name: Text(b"p"), mode: S_IFIFO | 0o600, major: 0, minor: 0, gid: 0 };
    share.call::<_, Rmknod>(&fifo).unwrap();
    for flags in [O_RDONLY, O_WRONLY, O_RDWR | O_TRUNC] {
        assert_eq!(share.open("p", flags), Err(ENXIO), "{flags:o}");
    }
    share.speak_u(1 << 20);
    share.make("", "s", dm::SOCKET | 0o600, 0, "").unwrap();
    for (name, mode) in ["p", "s"].into_iter().flat_map(|name| [0, 1, 2, 3, 0x11, 0x40].map(|mode| (name, mode))) {
        assert_eq!(share.open_u(name, mode), Err(ENXIO), "{name} {mode:x}");
    }
    for name in ["p", "s"] {
        let fid = share.walk(name).unwrap();
        assert!(share.wstat(fid, Stat { length: 0, ..Stat::DONT_TOUCH }).is_err());
    }
}

// CVE-2026-9238: "count drives allocation"
#[apply(promise)]
fn counts_beyond_the_message_size_get_what_fits(share: &Share9p) {
    bait(share);
    share.version(4096, b"9P2000.L").unwrap();
    share.attach_as(ROOT, 0).unwrap();
    let (dir, file) = (share.open("", O_RDONLY).unwrap(), share.open("f", O_RDWR).unwrap());
    let asked = |message: &[u8]| share.recv_any(share.send_raw(message, &[], 1 << 20), PATIENCE).unwrap();
    let entries = asked(&frame(&Treaddir { fid: dir, offset: 0, count: u32::MAX }, 1, 0));
    assert!(entries[4] == Rreaddir::NUMBER && entries.len() <= 4096);
    share.host.write("f", &[b'x'; 10_000]);
    let data = asked(&frame(&Tread { fid: file, offset: 0, count: u32::MAX }, 1, 0));
    assert_eq!((data[4], data.len()), (Rread::NUMBER, 4096));
    share.speak_u(4096);
    (0..60).for_each(|n| share.host.write(&format!("d/{n}"), b""));
    let (dir, file) = (share.open_u("d", 0).unwrap(), share.open_u("f", 0).unwrap());
    for (fid, least) in [(dir, 3000), (file, 4096)] {
        let data = asked(&frame(&Tread { fid, offset: 0, count: u32::MAX }, 1, 0));
        assert!(data[4] == Rread::NUMBER && (least..=4096).contains(&data.len()), "{}", data.len());
    }
    (0..60).for_each(|n| share.host.unlink(&format!("d/{n}")));
    share.version(4096, b"9P2000.L").unwrap();
    share.attach_as(ROOT, 0).unwrap();
    let file = share.open("f", O_RDWR).unwrap();
    share.host.write("f", b"hello");
    for count in [1, 6, u32::MAX] {
        let lying = frame(&Twrite { fid: file, offset: 0, count }, 1, 5);
        let answer = share.recv_any(share.send_raw(&lying, b"abcde", 0), PATIENCE).unwrap();
        assert_eq!(answer[4], Rlerror::NUMBER, "{count}");
    }
    assert_eq!(share.create("", "new", 3, 0o600), Err(EINVAL));
    let larger = frame(&Twrite { fid: file, offset: 0, count: 8000 }, 1, 8000);
    let answer = share.recv_any(share.send_raw(&larger, &[0; 8000], 0), PATIENCE).unwrap();
    assert_eq!(answer[4], Rlerror::NUMBER, "a message larger than agreed");
    assert_unharmed(share);
}

// CVE-2026-8348: fids that hold a value exhaust the host's memory
#[apply(promise)]
fn values_that_fids_hold_have_a_bound(share: &Share9p) {
    bait(share);
    share.setxattr("f", "user.a", &[b'v'; 4000], 0).unwrap();
    let fid = share.walk("f").unwrap();
    let walk = || share.call::<_, Rxattrwalk>(&Txattrwalk { fid, newfid: share.fid(), name: Text(b"user.a") });
    let create = || {
        let fid = share.walk("f").unwrap();
        share.call::<_, Rxattrcreate>(&Txattrcreate { fid, name: Text(b"user.b"), size: 65_536, flags: 0 })
    };
    let held = (0..2000).take_while(|_| create().is_ok()).count();
    assert_eq!((held, walk().map(drop), create().map(drop)), (1024, Err(ENFILE), Err(ENFILE)));
    let large = Txattrcreate { fid, name: Text(b"user.b"), size: u64::MAX, flags: 0 };
    assert_eq!(share.call::<_, Rxattrcreate>(&large).map(drop), Err(E2BIG));
    assert_unharmed(share);
}

// CVE-2016-9102 to 9106: memory and descriptors leak with each request of a kind
#[apply(promise)]
fn cve_2016_8576_cve_2017_7377_a_flood_of_one_kind_leaves_nothing_behind(share: &Share9p) {
    bait(share);
    let round = |count: usize| {
        for _ in 0..count {
            let fid = share.walk("d/f").unwrap();
            share.call::<_, Rxattrcreate>(&Txattrcreate { fid, name: Text(b"user.a"), size: 9, flags: 0 }).unwrap();
            assert_eq!(share.clunk(fid), Err(EINVAL), "not all of the value came");
            let open = share.open("f", O_RDWR).unwrap();
            share.clunk(open).unwrap();
            let fid = share.walk("f").unwrap();
            share.call::<_, Rlink>(&Tlink { dfid: ROOT, fid, name: Text(b"l") }).unwrap();
            share.unlink(ROOT, "l", 0).unwrap();
            share.clunk(fid).unwrap();
            assert_eq!(share.create("", "f", O_RDWR | O_EXCL | O_CREAT, 0), Err(EEXIST));
        }
    };
    round(200);
    let holds = || (process::memory(share.server.serving()), process::descriptors(share.server.serving()));
    let before = holds();
    round(2000);
    let after = holds();
    assert!(after.1 <= before.1 + 2 && after.0 < before.0 + 4096, "{before:?} KiB and descriptors, then {after:?}");
    assert_unharmed(share);
}

// CVE-2018-19489, CVE-2021-20181: fids, walks and renames race
#[apply(promise)]
fn cve_2018_19489_cve_2021_20181_requests_in_flight_together_race_without_harm(share: &Share9p) {
    bait(share);
    share.host.mkdir("d/e");
    share.host.write("d/e/f", b"x");
    for round in 0..300_u32 {
        let (fid, dir, newfid) = (share.walk("d/e/f").unwrap(), share.walk("d/e").unwrap(), share.fid());
        let names = || vec![Text(b"d"), Text(b"e"), Text(b".."), Text(b"e"), Text(b"f")];
        let (from, to) = if round % 2 == 0 { (b"e", b"x") } else { (b"x", b"e") };
        let d = share.walk("d").unwrap();
        let rename = Trenameat { olddirfid: d, oldname: Text(from), newdirfid: d, newname: Text(to) };
        let pending = [
            share.send(&Twalk { fid: ROOT, newfid, names: names() }, &[], 0),
            share.send(&rename, &[], 0),
            share.send(&Tlopen { fid, flags: O_RDWR as u32 }, &[], 0),
            share.send(&Tfsync { fid, datasync: 0 }, &[], 0),
            share.send(&Twalk { fid, newfid: fid, names: vec![] }, &[], 0),
            share.send(&Tclunk { fid }, &[], 0),
            share.send(&Tread { fid, offset: 0, count: 10 }, &[], 10),
            share.send(&Twalk { fid: dir, newfid: dir, names: vec![Text(b"..")] }, &[], 0),
            share.send(&Tremove { fid: dir }, &[], 0),
            share.send(&Tclunk { fid: newfid }, &[], 0),
        ];
        for one in pending {
            assert!(share.recv_any(one, PATIENCE).is_some());
        }
        let back = Trenameat { olddirfid: d, oldname: Text(b"x"), newdirfid: d, newname: Text(b"e") };
        let _ = share.recv(share.send(&back, &[], 0));
        share.clunk(d).unwrap();
    }
    share.unlink(share.walk("d/e").unwrap(), "f", 0).unwrap();
    share.unlink(share.walk("d").unwrap(), "e", 0x200).unwrap();
    assert_unharmed(share);
}

// CVE-2018-19364, CVE-2026-48004, CVE-2026-93834: the path of a fid is changed by Twstat and used by another request
#[apply(promise)]
fn cve_2026_48004_cve_2026_93834_a_rename_by_twstat_races_without_harm(share: &Share9p) {
    bait(share);
    share.host.mkdir("d/e");
    share.host.write("d/e/g", b"x");
    share.speak_u(1 << 20);
    for round in 0..300_u32 {
        let (dir, open) = (share.walk("d/e").unwrap(), share.open_u("d/e", 0).unwrap());
        let (file, newfid) = (share.walk("d/e/g").unwrap(), share.fid());
        let name = if round % 2 == 0 { Text(b"x") } else { Text(b"y") };
        let named = |name| record(Stat { name, ..Stat::DONT_TOUCH });
        let pending = [
            share.send(&Twstat { fid: dir, stat: named(name) }, &[], 0),
            share.send(&Twstat { fid: file, stat: named(name) }, &[], 0),
            share.send(&Tread { fid: open, offset: 0, count: 4000 }, &[], 4000),
            share.send(&Tstat { fid: file }, &[], 0),
            share.send(&Twalk { fid: dir, newfid, names: vec![name] }, &[], 0),
            share.send(&Twstat { fid: file, stat: record(Stat::DONT_TOUCH) }, &[], 0),
            share.send(&Topen { fid: file, mode: 0 }, &[], 0),
            share.send(&Tstat { fid: dir }, &[], 0),
            share.send(&Tclunk { fid: open }, &[], 0),
            share.send(&Twstat { fid: file, stat: named(Text(b"g")) }, &[], 0),
            share.send(&Twstat { fid: dir, stat: named(Text(b"e")) }, &[], 0),
            share.send(&Tclunk { fid: dir }, &[], 0),
            share.send(&Tclunk { fid: file }, &[], 0),
            share.send(&Tclunk { fid: newfid }, &[], 0),
        ];
        for one in pending {
            assert!(share.recv_any(one, PATIENCE).is_some());
        }
    }
    assert_eq!((share.host.list("d"), share.host.list("d/e")), (vec!["e".into(), "f".into()], vec!["g".into()]));
    for path in ["d/e/g", "d/e"] {
        share.call::<_, Rremove>(&Tremove { fid: share.walk(path).unwrap() }).unwrap();
    }
    assert_unharmed(share);
}

// Tags are the client's: a server that keeps a table of them must not trip over one used twice.
#[apply(promise)]
fn a_tag_used_twice_at_once_confuses_nobody(share: &Share9p) {
    bait(share);
    let file = share.open("f", O_RDWR).unwrap();
    let same = |message: &dyn Fn() -> Vec<u8>| share.send_raw(&message(), &[], 0);
    let fsync = || frame(&Tfsync { fid: file, datasync: 0 }, 3, 0);
    let flush = || frame(&Tflush { oldtag: 3 }, 3, 0);
    let pending: Vec<_> = (0..30).map(|n| if n % 3 == 2 { same(&flush) } else { same(&fsync) }).collect();
    for one in pending {
        assert!(share.recv_any(one, PATIENCE).is_some());
    }
    assert_unharmed(share);
}

#[apply(promise)]
fn without_room_for_an_answer_or_a_session_nothing_happens(share: &Share9p) {
    bait(share);
    let mkdir = frame(&Tmkdir { dfid: ROOT, name: Text(b"d"), mode: 0o700, gid: 0 }, 1, 0);
    for room in [0, 1, 6, 7, 10] {
        let chain = postern_tests::ring::Message { header: &mkdir, reply_header: room, ..Default::default() };
        let mut ring = share.vmm.ring(0);
        let ticket = ring.prepare(&chain);
        ring.offer(ticket.head);
        assert_eq!(ring.wait(ticket, PATIENCE), Some(vec![]), "{room} bytes of room");
    }
    let _ = share.version(1 << 20, b"unknown").unwrap();
    for message in p9_messages(NONE) {
        assert_refused(share, &message);
    }
    share.speak_u(1 << 20);
    for room in [0, 1, 7, 12, 13, 20] {
        let missing = frame(&Tstat { fid: 4711 }, 1, 0);
        let chain = postern_tests::ring::Message { header: &missing, reply_header: room, ..Default::default() };
        let mut ring = share.vmm.ring(0);
        let ticket = ring.prepare(&chain);
        ring.offer(ticket.head);
        let answer = ring.wait(ticket, PATIENCE).unwrap();
        assert_eq!(answer.len(), if room < 13 { 0 } else { room }, "an error has as many words as fit");
    }
    let empty = frame(&Nothing, 0, 0);
    assert_refused(share, &empty);
    assert_unharmed(share);
}

/// A message of a number that nobody has.
struct Nothing;

impl Message for Nothing {
    const NUMBER: u8 = 255;
}

impl Put for Nothing {
    fn put(&self, _: &mut Vec<u8>) {}
}

// CVE-2026-16457: a broken chain costs its ring at most
#[apply(promise)]
fn a_guest_whose_ring_broke_is_served_when_it_reboots(share: &Share9p) {
    bait(share);
    share.vmm.ring(0).set_avail_idx(30_000);
    std::thread::sleep(Duration::from_millis(50));
    share.vmm.reboot();
    assert_unharmed(share);
}
