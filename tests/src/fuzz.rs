//! What foreign bytes do to everything that decodes them: each target takes any bytes at all, and must neither panic
//! nor stall, and answer in the form of its protocol. Frontends serve a tree in memory.
//!
//! `tests/fuzz/run TARGET` searches for bytes by coverage. What it begins with are ordinary tests: whole conversations,
//! made here, with thousands of changed copies, and in `tests/fuzz/corpus` what earlier searches came by, as few as
//! reach the same.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use postern_ipc::attr::Mode;
use postern_ipc::frame;
use postern_ipc::hello;
use postern_ipc::id::Caller;
use postern_ipc::name::FileName;
use postern_ipc::op::{self, Kind, Op};
use postern_server::fs::synthetic::Synthetic;
use postern_server::fuse::abi::{InHeader, opcode};
use postern_server::p9::message::*;
use postern_server::p9::wire::{Measured, Text};
use postern_server::vhost::{Socket, Threads, Transport};
use postern_server::{fuse, p9, proxy};
use tempfile::TempDir;
use virtio_queue::desc::split::Descriptor;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::dotu::dm;
use crate::fuse::{LINUX, Link, PATIENCE};
use crate::memory::BASE;
use crate::ring::{self, Message};
use crate::vmm::{Machine, Vmm};

mod vhost;

pub use vhost::vhost;

/// Something that takes foreign bytes.
pub type Target = fn(&[u8]);

/// All of them by name.
pub const TARGETS: &[(&str, Target)] =
    &[("frame", frame), ("p9", p9), ("proxy", proxy), ("fuse", fuse), ("chain", chain), ("vhost", vhost)];

/// What earlier searches came by for the target of this name; a line of hexadecimal digits each.
///
/// # Panics
/// When it is something else.
pub fn corpus(name: &str) -> Vec<Vec<u8>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let byte = |digits: &[u8]| u8::from_str_radix(str::from_utf8(digits).expect("digits"), 16).expect("digits");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.lines().map(|line| line.as_bytes().chunks(2).map(byte).collect()).collect()
}

/// What the target of this name takes.
pub fn target(name: &str) -> Target {
    TARGETS.iter().find(|(known, _)| *known == name).unwrap_or_else(|| panic!("{name} is no target")).1
}

/// A frame of the server's, as the helper decodes it, and one of the helper's, as the server does. What decodes is
/// encoded as the same bytes.
pub fn frame(bytes: &[u8]) {
    let _ = hello_of(bytes);
    let Ok((header, body, _)) = frame::split(bytes) else { return };
    let Ok(kind) = Kind::try_from(header.kind) else { return };
    macro_rules! rows {
        ($($row:ident)*) => { match kind { $(Kind::$row => {
            if let Ok(request) = frame::owned::<(Caller, op::$row)>(body) {
                assert_eq!(encoded(&request), body);
            }
            if let Ok(reply) = frame::owned::<<op::$row as Op>::Reply>(body) {
                assert_eq!(encoded(&reply), body);
            }
        })* } };
    }
    rows! {
        Lookup Stat Readlink SetAttr Open OpenDir Create TmpFile Mkdir Mknod Symlink Link Unlink Rmdir Rename GetXattr
        SetXattr ListXattr RemoveXattr GetFlags SetFlags GetFsx SetFsx GetVersion SyncFs Write Fallocate CopyRange
        OpenEach
    }
}

fn encoded(value: &impl serde::Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    frame::encode(&mut out, 0, 0, None, value, 0).expect("it came from as many bytes");
    out.split_off(frame::HEADER)
}

/// The news that open a share, as the server reads them.
fn hello_of(bytes: &[u8]) -> Option<hello::News> {
    let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
    ours.write_all(bytes.get(..bytes.len().min(4096)).unwrap_or_default()).expect("fits a socket");
    drop(ours);
    hello::receive_news(&theirs).ok()
}

/// Sends bytes on a stream and takes all that is answered until `serve` ends.
fn converse(bytes: &[u8], serve: impl FnOnce(UnixStream) + Send + 'static) -> Vec<u8> {
    let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
    ours.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut sending = ours.try_clone().expect("dup");
    let server = std::thread::spawn(move || serve(theirs));
    let bytes = bytes.to_vec();
    let sender = std::thread::spawn(move || {
        let _ = sending.write_all(&bytes);
        let _ = sending.shutdown(Shutdown::Write);
    });
    let mut answers = Vec::new();
    let ended = ours.read_to_end(&mut answers);
    assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset), "no end in time");
    sender.join().expect("sent");
    server.join().expect("no panic");
    answers
}

/// A 9P client's stream, after it has mounted.
pub fn p9(bytes: &[u8]) {
    let version = |version| crate::p9::frame(&Tversion { msize: 8192, version: Text(version) }, NOTAG, 0);
    let attach = Tattach { fid: 0, afid: NOFID, uname: Text(b""), aname: Text(b""), n_uname: 0 };
    let dialect: &[u8] = if bytes.first().is_some_and(|first| first & 1 == 1) { b"9P2000.u" } else { b"9P2000.L" };
    let hello = [version(dialect), crate::p9::frame(&attach, 0, 0)].concat();
    let sent = [hello.as_slice(), bytes.get(1..).unwrap_or_default()].concat();
    let answers = converse(&sent, |stream| {
        let settings = p9::Settings { msize: 8192, xattr: true, posix_acl: true, fids: 1024 };
        let streams =
            p9::Streams::new(&Arc::new(Synthetic::default()), &p9::Users::Judged, settings, 1, 0).expect("a thread");
        streams.serve(p9::Clients::Connected(p9::Wires::from(OwnedFd::from(stream)))).expect("served");
    });
    let mut left = answers.as_slice();
    while let Some((size, _)) = left.split_first_chunk() {
        let size = u32::from_le_bytes(*size) as usize;
        assert!((7..=8192).contains(&size), "an answer of {size} bytes");
        left = left.get(size..).expect("whole answers");
    }
    assert!(left.is_empty(), "half an answer");
}

/// What QEMU sends to its proxy.
pub fn proxy(bytes: &[u8]) {
    converse(bytes, |stream| {
        let _ = proxy::serve(&Synthetic::default(), stream);
    });
}

/// A connection to the one virtio-fs device of this process, which forgets what the one before it held.
fn connect() -> UnixStream {
    static DEVICE: OnceLock<TempDir> = OnceLock::new();
    let place = DEVICE.get_or_init(|| {
        let place = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(place.path().join("socket")).expect("a socket");
        // A VMM may be gone before it is answered. Programs in Rust ignore that signal, libFuzzer's do not.
        SigSet::from(Signal::SIGPIPE).thread_block().expect("a mask");
        let settings = fuse::Settings { xattr: true, posix_acl: true, ..fuse::Settings::default() };
        let session = fuse::Session::new(Arc::new(Synthetic::default()), settings, 1, None);
        let transport =
            Transport::new(Arc::new(session), Threads { workers: 1, pool: 0, poll: Duration::ZERO }).expect("threads");
        std::thread::spawn(move || transport.serve(Socket::Listening(listener), false));
        place
    });
    UnixStream::connect(place.path().join("socket")).expect("served")
}

/// A VMM that is its next.
fn plug() -> Vmm {
    Vmm::connect(connect(), &Machine { queue_size: 256, ..Machine::default() })
}

/// Requests of a guest's kernel: each is its length and the room for its answer, 16 bits each, and then itself; the
/// length in its header is put right now and then, which few bytes have by chance.
pub fn fuse(mut bytes: &[u8]) {
    let link = Link::open(plug(), LINUX);
    while let Some(([l0, l1, r0, r1], rest)) = bytes.split_first_chunk() {
        let (length, room) = (u16::from_le_bytes([*l0, *l1]), u16::from_le_bytes([*r0, *r1]));
        let (request, left) = rest.split_at(rest.len().min(usize::from(length)));
        bytes = left;
        let mut request = request.to_vec();
        if let Ok((header, _)) = InHeader::mut_from_prefix(&mut request)
            && room & 1 == 0
        {
            header.len = length.into();
        }
        let message =
            Message { header: &request, reply_header: 16, reply_data: usize::from(room), ..Message::default() };
        let mut ring = link.vmm.ring(1);
        let ticket = ring.prepare(&message);
        ring.offer(ticket.head);
        let answer = ring.wait(ticket, PATIENCE).expect("an answer in time");
        if let Ok((header, _)) = postern_server::fuse::abi::OutHeader::read_from_prefix(&answer) {
            assert_eq!(header.len as usize, answer.len());
        }
    }
}

/// A descriptor table of 16 entries and the heads of up to four chains: the ring answers or is given up, and another
/// device is not the worse for it.
pub fn chain(bytes: &[u8]) {
    let vmm = plug();
    let mut ring = vmm.ring(1);
    let (heads, table) = bytes.split_at(bytes.len().min(4));
    for (index, entry) in (0..16).zip(table.chunks_exact(size_of::<Descriptor>())) {
        let [a0, a1, a2, a3, a4, .., l0, l1, l2, _, f0, f1, n0, n1] = entry else { continue };
        // Most of them in memory, and not longer than it.
        let address = BASE + u64::from_le_bytes([*a0, *a1, *a2, a3 & 0x3f, a4 & 1, 0, 0, 0]) % (2 * ring::SIZE);
        let length = u32::from_le_bytes([*l0, *l1, *l2, 0]);
        let (flags, next) = (u16::from_le_bytes([*f0, *f1]), u16::from_le_bytes([*n0, *n1]) % 20);
        ring.set_desc(index, Descriptor::new(address, length, flags, next));
    }
    for head in heads {
        ring.offer(u16::from(*head) % 20);
    }
    for _ in heads {
        if ring.used(Duration::from_millis(20)).is_none() {
            break;
        }
    }
    drop(ring);
    // Whatever became of the ring, the connection is served.
    vmm.stop(1);
}

/// Whole conversations, which random bytes are not: one for each language that a target understands.
pub fn seeds() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("frame", seed_of_frame()),
        ("p9", seed_of_p9()),
        ("p9", seed_of_dotu()),
        ("proxy", seed_of_proxy()),
        ("fuse", seed_of_fuse()),
        ("chain", seed_of_chain()),
        ("vhost", vhost::seed()),
    ]
}

fn seed_of_frame() -> Vec<u8> {
    let name = FileName::new(b"name").expect("a name");
    let mut out = Vec::new();
    let request = (Caller::Root, op::Mkdir { name, mode: Mode::new(0o755), umask: Mode::new(0o022) });
    frame::encode(&mut out, 1, Kind::Mkdir as u16, None, &request, 0).expect("small");
    out
}

fn seed_of_p9() -> Vec<u8> {
    let name = || Text(b"f");
    let messages: [&dyn Fn(u16) -> Vec<u8>; 14] = [
        &|tag| crate::p9::frame(&Twalk { fid: 0, newfid: 1, names: vec![] }, tag, 0),
        &|tag| crate::p9::frame(&Tlcreate { fid: 1, name: name(), flags: 0o102, mode: 0o644, gid: 0 }, tag, 0),
        &|tag| [crate::p9::frame(&Twrite { fid: 1, offset: 0, count: 4 }, tag, 4), b"data".to_vec()].concat(),
        &|tag| crate::p9::frame(&Tread { fid: 1, offset: 0, count: 100 }, tag, 0),
        &|tag| crate::p9::frame(&Tmkdir { dfid: 0, name: Text(b"d"), mode: 0o755, gid: 0 }, tag, 0),
        &|tag| crate::p9::frame(&Twalk { fid: 0, newfid: 2, names: vec![Text(b"d")] }, tag, 0),
        &|tag| crate::p9::frame(&Tgetattr { fid: 2, request_mask: 0x7ff }, tag, 0),
        &|tag| crate::p9::frame(&Trenameat { olddirfid: 0, oldname: name(), newdirfid: 2, newname: name() }, tag, 0),
        &|tag| crate::p9::frame(&Tlopen { fid: 2, flags: 0 }, tag, 0),
        &|tag| crate::p9::frame(&Treaddir { fid: 2, offset: 0, count: 1000 }, tag, 0),
        &|tag| crate::p9::frame(&Txattrcreate { fid: 1, name: Text(b"user.a"), size: 3, flags: 0 }, tag, 0),
        &|tag| crate::p9::frame(&Tsymlink { dfid: 0, name: Text(b"s"), target: Text(b"d/f"), gid: 0 }, tag, 0),
        &|tag| crate::p9::frame(&Tunlinkat { dirfd: 0, name: Text(b"s"), flags: 0 }, tag, 0),
        &|tag| crate::p9::frame(&Tclunk { fid: 2 }, tag, 0),
    ];
    let sent = messages.iter().zip(1..).flat_map(|(message, tag)| message(tag));
    [0].into_iter().chain(sent).collect()
}

/// The first byte says that it is 9P2000.u.
fn seed_of_dotu() -> Vec<u8> {
    let (name, none) = (Text(b"f"), Text(b""));
    let record = |stat| Measured(Measured(stat));
    let named = Stat { name: Text(b"g"), length: 2, mode: 0o600, ..Stat::DONT_TOUCH };
    let make = |fid, perm, extension| Tcreate { fid, name, perm, mode: 2, extension };
    let walk = |newfid| Twalk { fid: 0, newfid, names: vec![] };
    let messages = [
        crate::p9::frame(&walk(1), 1, 0),
        crate::p9::frame(&make(1, 0o644, none), 2, 0),
        [crate::p9::frame(&Twrite { fid: 1, offset: 0, count: 4 }, 3, 4), b"data".to_vec()].concat(),
        crate::p9::frame(&Tstat { fid: 1 }, 4, 0),
        crate::p9::frame(&Twstat { fid: 1, stat: record(named) }, 5, 0),
        crate::p9::frame(&Twstat { fid: 1, stat: record(Stat::DONT_TOUCH) }, 6, 0),
        crate::p9::frame(&walk(2), 7, 0),
        crate::p9::frame(&make(2, dm::LINK, Text(b"1")), 8, 0),
        crate::p9::frame(&Tremove { fid: 2 }, 9, 0),
        crate::p9::frame(&walk(3), 10, 0),
        crate::p9::frame(&make(3, dm::DEVICE | 0o600, Text(b"c 1 3")), 11, 0),
        crate::p9::frame(&walk(4), 12, 0),
        crate::p9::frame(&Topen { fid: 4, mode: 0 }, 13, 0),
        crate::p9::frame(&Tread { fid: 4, offset: 0, count: 4000 }, 14, 0),
        crate::p9::frame(&Tclunk { fid: 4 }, 15, 0),
    ];
    [1].into_iter().chain(messages.concat()).collect()
}

fn seed_of_proxy() -> Vec<u8> {
    use crate::proxy::Arg::{D, Q, S};
    use crate::proxy::kind::{CHMOD, CREATE, LINK, LSTAT, MKDIR, REMOVE, RENAME, SYMLINK, TRUNCATE, UTIME};
    let requests: [(u32, &[crate::proxy::Arg<'_>]); 10] = [
        (MKDIR, &[D(0), D(0), S(b"//d"), D(0o755)]),
        (CREATE, &[S(b"//d/f"), D(0o102), D(0o644), D(0), D(0)]),
        (LSTAT, &[S(b"//d/../d/f")]),
        (CHMOD, &[S(b"//d/f"), D(0o600)]),
        (TRUNCATE, &[S(b"//d/f"), Q(100)]),
        (UTIME, &[S(b"//d/f"), Q(1), Q(2), Q(3), Q(4)]),
        (LINK, &[S(b"//d/f"), S(b"//g")]),
        (SYMLINK, &[D(0), D(0), S(b"d/f"), S(b"//s")]),
        (RENAME, &[S(b"//g"), S(b"//d/g")]),
        (REMOVE, &[S(b"//s")]),
    ];
    let frames = requests.iter().map(|(kind, args)| {
        let payload: Vec<u8> = args.iter().flat_map(|arg| arg.bytes()).collect();
        let size = u32::try_from(payload.len()).expect("small");
        [&kind.to_ne_bytes()[..], &size.to_ne_bytes(), &payload].concat()
    });
    frames.flatten().collect()
}

fn seed_of_fuse() -> Vec<u8> {
    let request = |(opcode, nodeid, rest): &(u32, u64, &[u8])| {
        let length = size_of::<InHeader>() + rest.len();
        let mut header = InHeader::new_zeroed();
        (header.opcode, header.unique, header.nodeid) = (*opcode, 2, *nodeid);
        let [length, room] = [length, 512].map(|n| u16::try_from(n).expect("small").to_le_bytes());
        [&length, &room, header.as_bytes(), rest].concat()
    };
    let requests: [(u32, u64, &[u8]); 9] = [
        (opcode::MKDIR, 1, b"\xed\x01\0\0\x12\0\0\0d\0"),
        (opcode::LOOKUP, 1, b"d\0"),
        (opcode::GETATTR, 2, &[0; 16]),
        (opcode::OPENDIR, 2, &[0; 8]),
        (
            opcode::READDIRPLUS,
            2,
            b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        ),
        (opcode::CREATE, 2, b"\x02\0\0\0\xa4\x81\0\0\x12\0\0\0\0\0\0\0f\0"),
        (opcode::SYMLINK, 2, b"l\0target\0"),
        (opcode::RENAME2, 2, b"\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0f\0g\0"),
        (opcode::FORGET, 2, &[1, 0, 0, 0, 0, 0, 0, 0]),
    ];
    requests.iter().flat_map(request).collect()
}

/// A chain as a driver lays it out: a request, and room for its answer; and one that goes round in a circle.
fn seed_of_chain() -> Vec<u8> {
    let entry = |offset: u32, length: u32, flags: u16, next: u16| {
        [&offset.to_le_bytes()[..], &[0; 4], &length.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()].concat()
    };
    let table =
        [entry(0x1_0000, 40, 1, 1), entry(0x1_1000, 512, 2, 0), entry(0x1_0000, 8, 1, 3), entry(0x1_0000, 8, 1, 2)];
    [vec![0, 0, 2, 2], table.concat()].concat()
}

/// A copy with a few changes, the same for the same number.
pub fn changed(seed: &[u8], number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 11).expect("64 bits") % below.max(1)
    };
    let mut bytes = seed.to_vec();
    for _ in 0..=next(6) {
        let at = next(bytes.len());
        match (next(6), bytes.is_empty()) {
            (0, false) => bytes[at] ^= 1 << next(8),
            (1, false) => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][next(5)],
            (2, false) => drop(bytes.drain(at..(at + next(16)).min(bytes.len()))),
            (3, false) => bytes.truncate(at),
            (4, false) => {
                let copy = bytes[at..(at + next(64)).min(bytes.len())].to_vec();
                let to = next(bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => bytes.insert(at, u8::try_from(next(256)).expect("a byte")),
        }
    }
    bytes
}
