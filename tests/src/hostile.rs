//! What clients that mean harm send, whatever they speak.

use std::io::{ErrorKind, Write};
use std::time::{Duration, Instant};

use postern_server::p9::message::*;
use postern_server::p9::wire::{Measured, Text};

use crate::Kind;
use crate::p9::frame;

/// Says how often a class of attacks was tried; never is no proof.
///
/// # Panics
/// When it was not tried at all.
pub fn tried(class: &str, attempts: usize) {
    assert_ne!(attempts, 0, "{class}");
    println!("{class}: {attempts} attempts");
}

/// What holds alike for all kinds that a promise is made for, and costs a process each time: one kind tries every
/// fifth.
pub fn is_its_turn(on: Kind, attempt: usize) -> bool {
    [Kind::Mapped, Kind::Soft, Kind::Root, Kind::User, Kind::Host][attempt % 5] == on
}

/// Checks that a log that was begun at `since` is one of good order, and short. postern-server(1): "At most 100 lines
/// of each level from error to info are written within ten seconds"
///
/// # Panics
/// When it is not.
pub fn assert_short(log: &str, since: Instant) {
    let most = 2 * 101 * (1 + since.elapsed().as_secs() / 10) + 10;
    assert!(log.lines().count() as u64 <= most, "{} lines", log.lines().count());
    assert!(!log.contains("error:") && !log.contains("panic"), "{log}");
}

/// Writes until nothing is taken any more; says how many bytes were.
///
/// # Panics
/// When everything is.
pub fn write_until_full(to: &mut impl Write, bytes: &[u8]) -> usize {
    let (mut taken, mut refused) = (0, 0);
    while refused < 100 {
        match to.write(&bytes[taken % bytes.len()..]) {
            Ok(more) => (taken, refused) = (taken + more, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                refused += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        assert!(taken < 64 << 20, "it takes everything");
    }
    taken
}

/// Numbers that look like any, the same each time. Never of 0.
pub struct Dice(pub u64);

impl Dice {
    /// One of as many as it has sides, from 0.
    pub fn throw(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % sides
    }
}

/// Names that are no names: path_resolution(7). Some would lead out of a share, to what is beside it.
pub fn bad_names() -> Vec<Vec<u8>> {
    let bad: [&[u8]; 12] = [
        b"",
        b".",
        b"..",
        b"/",
        b"a/b",
        b"d/f",
        b"/etc/passwd",
        b"../outside/canary",
        b"../outside/new",
        b"f/..",
        b"f\0",
        b"f\0g",
    ];
    let long = [256, 4096, 65_000].map(|len| vec![b'n'; len]);
    bad.into_iter().map(<[u8]>::to_vec).chain(long).collect()
}

/// One good 9P message of each kind, about these fids.
pub fn p9_messages([fid, other]: [u32; 2]) -> Vec<Vec<u8>> {
    let name = Text(b"name");
    macro_rules! frames { ($($message:expr),* $(,)?) => { vec![$(frame(&$message, 7, 0)),*] } }
    frames![
        Tstatfs { fid },
        Tlopen { fid, flags: 0 },
        Tlcreate { fid, name, flags: 0, mode: 0, gid: 0 },
        Tsymlink { dfid: fid, name, target: name, gid: 0 },
        Tmknod { dfid: fid, name, mode: 0, major: 0, minor: 0, gid: 0 },
        Trename { fid, dfid: other, name },
        Treadlink { fid },
        Tgetattr { fid, request_mask: 0 },
        Tsetattr {
            fid,
            valid: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            atime_sec: 0,
            atime_nsec: 0,
            mtime_sec: 0,
            mtime_nsec: 0
        },
        Txattrwalk { fid, newfid: other, name },
        Txattrcreate { fid, name, size: 1, flags: 0 },
        Treaddir { fid, offset: 0, count: 0 },
        Tfsync { fid, datasync: 0 },
        Tlock { fid, kind: 0, flags: 0, start: 0, length: 0, proc_id: 0, client_id: name },
        Tgetlock { fid, kind: 0, start: 0, length: 0, proc_id: 0, client_id: name },
        Tlink { dfid: fid, fid: other, name },
        Tmkdir { dfid: fid, name, mode: 0, gid: 0 },
        Trenameat { olddirfid: fid, oldname: name, newdirfid: other, newname: name },
        Tunlinkat { dirfd: fid, name, flags: 0 },
        Tauth { afid: fid, uname: name, aname: name, n_uname: 0 },
        Tattach { fid, afid: 1, uname: name, aname: name, n_uname: 0 },
        Tflush { oldtag: 99 },
        Twalk { fid, newfid: other, names: vec![name, name] },
        Tread { fid, offset: 0, count: 1 },
        Twrite { fid, offset: 0, count: 0 },
        Tclunk { fid },
        Tremove { fid },
        Topen { fid, mode: 0 },
        Tcreate { fid, name, perm: 0, mode: 0, extension: name },
        Tstat { fid },
        Twstat { fid, stat: record(Stat { name, ..Stat::DONT_TOUCH }) },
    ]
}

/// The attributes of Twstat, measured twice.
pub fn record(stat: Stat<'_>) -> Measured<Measured<Stat<'_>>> {
    Measured(Measured(stat))
}
