//! Locks of 9P: byte ranges that hold between the processes of a guest, between guests, between servers, and towards
//! the host's processes.

use std::fs::File;

use nix::fcntl::{FcntlArg, fcntl};
use postern_server::p9::message::*;
use postern_server::p9::wire::Text;
use postern_tests::p9::{Client, ROOT, decode};
use postern_tests::prelude::*;
use postern_tests::share::Share9p;
use postern_tests::vmm::{Machine, Vmm};
use rustix::fs::{FlockOperation, flock};

/// P9_LOCK_TYPE_*
const READ: u8 = 0;
const WRITE: u8 = 1;
const UNLOCK: u8 = 2;
/// P9_LOCK_SUCCESS, P9_LOCK_BLOCKED
const HELD: Result<u8, nix::errno::Errno> = Ok(0);
const BLOCKED: Result<u8, nix::errno::Errno> = Ok(1);
/// P9_LOCK_FLAGS_BLOCK
const WAIT: u32 = 1;

/// Part of a file: start and length.
type Part = (u64, u64);
const ALL: Part = (0, 0);

fn message(fid: u32, kind: u8, (start, length): Part, process: u32) -> Tlock<'static> {
    Tlock { fid, kind, flags: 0, start, length, proc_id: process, client_id: Text(b"machine") }
}

/// Tlock, of a process: its status.
fn lock(guest: &Client, fid: u32, kind: u8, part: Part, process: u32) -> Result<u8, nix::errno::Errno> {
    guest.call::<_, Rlock>(&message(fid, kind, part, process)).map(|answer| answer.status)
}

/// Tgetlock, of a process: kind, part, and who has it.
fn getlock(guest: &Client, fid: u32, kind: u8, (start, length): Part, process: u32) -> (u8, Part, u32, Vec<u8>) {
    let message = Tgetlock { fid, kind, start, length, proc_id: process, client_id: Text(b"machine") };
    let body = guest.recv(guest.send(&message, &[], 0)).unwrap();
    let Rgetlock { kind, start, length, proc_id, client_id } = decode(&body);
    (kind, (start, length), proc_id, client_id.0.to_vec())
}

fn raw(kind: i32, (start, length): Part) -> libc::flock {
    let (l_type, l_whence) = (kind as i16, libc::SEEK_SET as i16);
    libc::flock { l_type, l_whence, l_start: start as i64, l_len: length as i64, l_pid: 0 }
}

/// Opens a file of the share on the host.
fn on_host(share: &Share9p, path: &str) -> File {
    File::options().read(true).write(true).open(share.host.path(path)).unwrap()
}

/// F_SETLK of a process of the host: this one.
fn host_lock(file: &File, kind: i32, part: Part) -> nix::Result<i32> {
    fcntl(file, FcntlArg::F_SETLK(&raw(kind, part)))
}

/// F_OFD_SETLK on the host.
fn host_ofd_lock(file: &File, kind: i32, part: Part) -> nix::Result<i32> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&raw(kind, part)))
}

/// Whether the host could have all of the file for itself.
fn is_free(share: &Share9p, path: &str) -> bool {
    let mut found = raw(libc::F_WRLCK, ALL);
    fcntl(on_host(share, path), FcntlArg::F_OFD_GETLK(&mut found)).unwrap();
    i32::from(found.l_type) == libc::F_UNLCK
}

// fcntl(2): "Record locks ... F_SETLK"; "Open file description locks ... conflicting lock combinations (i.e., a read
// lock and a write lock or two write locks) where one lock is an open file description lock and the other is a
// traditional record lock conflict". flock(2) is another kind of lock: "there is no interaction between the types of
// lock".
#[apply(promise)]
fn locks_hold_between_the_guest_and_the_host(share: &Share9p) {
    share.host.write("f", b"0123456789");
    let (fid, file) = (share.open("f", O_RDWR).unwrap(), on_host(share, "f"));
    assert_eq!(lock(share, fid, WRITE, (2, 3), 1), HELD);
    assert_eq!(host_lock(&file, libc::F_RDLCK, (4, 1)), Err(EAGAIN));
    assert_eq!(host_ofd_lock(&file, libc::F_RDLCK, (4, 1)), Err(EAGAIN));
    assert_eq!(host_lock(&file, libc::F_WRLCK, (5, 1)), Ok(0));
    assert_eq!(flock(&file, FlockOperation::NonBlockingLockExclusive), Ok(()), "another kind of lock");

    assert_eq!(lock(share, fid, READ, (5, 1), 1), BLOCKED);
    let here = std::process::id();
    assert_eq!(getlock(share, fid, READ, ALL, 1), (WRITE, (5, 1), here, b"".to_vec()));
    assert_eq!(host_lock(&file, libc::F_RDLCK, (5, 1)), Ok(0));
    assert_eq!(lock(share, fid, READ, (5, 1), 1), HELD, "readers share");
    assert_eq!(host_lock(&file, libc::F_UNLCK, ALL), Ok(0));
    assert_eq!(lock(share, fid, UNLOCK, (2, 2), 1), HELD);
    assert_eq!(host_ofd_lock(&file, libc::F_WRLCK, (0, 4)), Ok(0));
    assert_eq!(getlock(share, fid, WRITE, (0, 4), 1), (WRITE, (0, 4), 0, b"".to_vec()), "nobody's in particular");
}

// fcntl(2): "F_GETLK ... return details about one of the locks that prevent"
#[apply(promise)]
fn locks_hold_between_the_processes_of_a_guest(share: &Share9p) {
    share.host.write("f", b"");
    let fids = [share.open("f", O_RDWR).unwrap(), share.open("f", O_RDWR).unwrap()];
    assert_eq!(lock(share, fids[0], WRITE, (10, 10), 7), HELD);
    assert_eq!(lock(share, fids[1], WRITE, (10, 10), 7), HELD, "a process never stands in its own way");
    assert_eq!(lock(share, fids[0], READ, (19, 1), 8), BLOCKED);
    assert_eq!(lock(share, fids[0], READ, (20, 0), 8), HELD);
    assert_eq!(getlock(share, fids[1], READ, ALL, 8), (WRITE, (10, 10), 7, b"machine".to_vec()));
    assert_eq!(getlock(share, fids[1], WRITE, (15, 0), 7), (READ, (20, 0), 8, b"machine".to_vec()));
    assert_eq!(getlock(share, fids[1], READ, (15, 0), 7), (UNLOCK, (15, 0), 7, b"machine".to_vec()));
    // Linux sends P9_LOCK_TYPE_UNLCK whatever it asks for.
    assert_eq!(getlock(share, fids[1], UNLOCK, (20, 1), 7), (READ, (20, 0), 8, b"machine".to_vec()));
    assert_eq!(lock(share, fids[0], WRITE, (15, 10), 7), BLOCKED, "all of it or nothing");
    assert_eq!(lock(share, fids[1], UNLOCK, ALL, 8), HELD);
    assert_eq!(lock(share, fids[0], WRITE, (15, 10), 7), HELD);
    assert_eq!(lock(share, fids[0], READ, (12, 2), 7), HELD, "part of it is for readers now");
    assert_eq!(lock(share, fids[1], READ, (12, 2), 8), HELD);
    assert_eq!(lock(share, fids[1], READ, (12, 3), 8), BLOCKED);
}

// Another machine, or another guest that says it is the same process of the same machine.
#[apply(promise)]
fn locks_hold_between_two_servers_of_a_directory(on: Kind) {
    let share = on.setup().serve_9p();
    share.host.write("f", b"");
    let server = on.setup().p9().beside(&share.server);
    let other = Client::mount(Vmm::connect(server.connect(), &Machine { request_queues: 0, ..Machine::default() }));
    let (mine, theirs) = (share.open("f", O_RDWR).unwrap(), other.open("f", O_RDWR).unwrap());
    assert_eq!(lock(&share, mine, WRITE, (0, 5), 1), HELD);
    assert_eq!(lock(&other, theirs, WRITE, ALL, 1), BLOCKED);
    assert_eq!(lock(&other, theirs, WRITE, (5, 0), 1), HELD);
    assert_eq!(lock(&share, mine, READ, (5, 1), 1), BLOCKED);
    drop(server);
    let freed = (0..500).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        lock(&share, mine, READ, (5, 1), 1) == HELD
    });
    assert!(freed, "a server that is gone holds nothing");
}

// fcntl(2): "If a process closes any file descriptor referring to a file, then all of the process's locks on that file
// are released"; "when the process terminates"
#[apply(promise)]
fn locks_end_with_the_fid_the_version_and_the_guest(on: Kind) {
    let share = on.setup().serve_9p();
    share.host.write("f", b"");
    let fids = [(); 3].map(|()| share.open("f", O_RDWR).unwrap());
    lock(&share, fids[0], WRITE, (0, 1), 1).unwrap();
    lock(&share, fids[1], WRITE, (1, 1), 1).unwrap();
    lock(&share, fids[1], WRITE, (2, 1), 2).unwrap();
    share.clunk(fids[2]).unwrap();
    assert_eq!(lock(&share, fids[0], READ, (0, 2), 3), BLOCKED, "nobody locked through that one");
    share.clunk(fids[0]).unwrap();
    assert_eq!(lock(&share, fids[1], READ, (0, 2), 3), HELD, "process 1 has closed the file");
    assert_eq!(lock(&share, fids[1], READ, (2, 1), 3), BLOCKED, "process 2 has not");
    share.version(1 << 20, b"9P2000.L").unwrap();
    assert!(is_free(&share, "f"));
    share.attach_as(ROOT, 0).unwrap();
    let fid = share.open("f", O_RDWR).unwrap();
    assert_eq!(lock(&share, fid, WRITE, ALL, 1), HELD);
    let Share9p { server, host, .. } = &share;
    assert!(!is_free(&share, "f") && host.exists("f") && server.lives());
    let share = share.reconnect();
    share.getattr(ROOT).unwrap();
    assert!(is_free(&share, "f"), "the guest is gone");
}

// fcntl(2): "In order to place a write lock, fd must be open for writing". A guest's kernel has seen to that; what
// comes otherwise is its flock(2), for which any descriptor will do.
#[apply(promise)]
fn a_lock_is_not_bound_to_how_the_fid_was_opened(share: &Share9p) {
    share.host.write("f", b"");
    let (reader, writer) = (share.open("f", O_RDONLY).unwrap(), share.open("f", O_WRONLY).unwrap());
    let file = on_host(share, "f");
    for fid in [reader, writer] {
        for kind in [READ, WRITE, READ] {
            assert_eq!(lock(share, fid, kind, ALL, 1), HELD);
            assert_eq!(host_ofd_lock(&file, libc::F_WRLCK, ALL), Err(EAGAIN));
        }
        assert_eq!(lock(share, fid, UNLOCK, ALL, 1), HELD);
        assert!(is_free(share, "f"));
    }
    // From reading to writing there is no moment without the lock: it is refused, and the read lock stays.
    assert_eq!(lock(share, reader, READ, (0, 10), 1), HELD);
    assert_eq!(host_ofd_lock(&file, libc::F_RDLCK, (0, 10)), Ok(0));
    assert_eq!(lock(share, reader, WRITE, (0, 10), 1), BLOCKED);
    assert_eq!(host_ofd_lock(&file, libc::F_WRLCK, (0, 10)), Err(EAGAIN));
    assert_eq!(lock(share, writer, WRITE, (10, 1), 1), HELD);
}

// mount(8): "ro"; fcntl(2): "F_RDLCK" needs no more than reading
#[apply(promise)]
fn a_read_only_share_has_read_locks_only(on: Kind) {
    let share = on.setup().readonly().plant(|host| host.write("f", b"")).serve_9p();
    let (fid, file) = (share.open("f", O_RDONLY).unwrap(), on_host(&share, "f"));
    assert_eq!(lock(&share, fid, WRITE, ALL, 1), Err(EROFS));
    assert_eq!(lock(&share, fid, READ, (0, 5), 1), HELD);
    assert_eq!(host_ofd_lock(&file, libc::F_WRLCK, (4, 1)), Err(EAGAIN));
    assert_eq!(lock(&share, fid, WRITE, (0, 5), 1), Err(EROFS));
    assert_eq!(host_ofd_lock(&file, libc::F_WRLCK, (4, 1)), Err(EAGAIN), "it still has it");
}

// fcntl(2): "EBADF", "EINVAL", "EOVERFLOW"
#[apply(promise)]
fn a_lock_that_makes_no_sense_is_refused(share: &Share9p) {
    share.host.write("f", b"");
    let (fid, dir, walked) =
        (share.open("f", O_RDWR).unwrap(), share.open("", O_RDONLY).unwrap(), share.walk("f").unwrap());
    let good = message(fid, WRITE, ALL, 1);
    let refused = |message: Tlock<'_>| share.call::<_, Rlock>(&message).unwrap_err();
    assert_eq!([dir, walked, 99_999].map(|fid| refused(Tlock { fid, ..good.clone() })), [EBADF; 3]);
    for kind in [3, 0xff] {
        assert_eq!(refused(Tlock { kind, ..good.clone() }), EINVAL);
    }
    // P9_LOCK_FLAGS_RECLAIM is 2: nothing outlives a server, so nothing can be had back.
    for flags in [2, 3, 1 << 31] {
        assert_eq!(refused(Tlock { flags, ..good.clone() }), EINVAL);
    }
    for (start, length, errno) in
        [(1 << 63, 1, EINVAL), (u64::MAX, u64::MAX, EINVAL), (1, u64::MAX, EOVERFLOW), (1 << 62, 1 << 63, EOVERFLOW)]
    {
        assert_eq!(refused(Tlock { start, length, ..good.clone() }), errno);
    }
    let long = vec![b'm'; 60_000];
    assert_eq!(refused(Tlock { client_id: Text(&long), ..good.clone() }), EINVAL);
    let test = Tgetlock { fid, kind: 9, start: 0, length: 0, proc_id: 1, client_id: Text(b"") };
    assert_eq!(share.recv(share.send(&test, &[], 0)).map(drop), Err(EINVAL));
    assert_eq!(share.recv(share.send(&Tgetlock { kind: WRITE, fid: dir, ..test }, &[], 0)).map(drop), Err(EBADF));
    assert!(is_free(share, "f"));
    assert_eq!(share.call::<_, Rlock>(&Tlock { flags: WAIT, ..good }).map(|answer| answer.status), HELD);
}

// diod protocol.md, lock: "blocked" is for the client to wait, which can then be interrupted
#[apply(promise)]
fn no_lock_is_waited_for(share: &Share9p) {
    share.host.write("f", b"");
    let fid = share.open("f", O_RDWR).unwrap();
    lock(share, fid, WRITE, ALL, 1).unwrap();
    let waiting: Vec<_> = (2..10)
        .map(|process| share.send(&Tlock { flags: WAIT, ..message(fid, WRITE, ALL, process) }, &[], 0))
        .collect();
    for one in waiting {
        assert_eq!(decode::<Rlock>(&share.recv(one).unwrap()).status, 1);
    }
    assert_eq!(lock(share, fid, UNLOCK, ALL, 1), HELD);
    assert!(is_free(share, "f"), "none of them comes late");
}

// fcntl(2): "ENOLCK  Too many segment locks open, lock table is full"
#[apply(promise)]
fn a_guest_that_locks_without_end_is_stopped(on: Kind) {
    let share = on.setup().few_descriptors().serve_9p();
    share.host.write("f", b"");
    let fid = share.open("f", O_RDWR).unwrap();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", share.server.serving())).unwrap().count();
    let before = descriptors();
    let owners = (0..100_000).find(|&process| lock(&share, fid, READ, (1, 1), process) != HELD).unwrap();
    assert!((16..512).contains(&owners), "{owners}");
    assert_eq!(lock(&share, fid, READ, (1, 1), owners), Err(ENOLCK));
    assert!(descriptors() <= before + owners as usize);
    assert_eq!(lock(&share, fid, UNLOCK, ALL, 0), HELD);
    assert_eq!(lock(&share, fid, READ, (1, 1), owners), HELD, "where one goes there is room for another");
    let other = share.open("f", O_RDWR).unwrap();
    share.clunk(fid).unwrap();
    assert!(descriptors() <= before + 1 && is_free(&share, "f"));

    let parts = (0..100_000).find(|&part| lock(&share, other, WRITE, (part * 2, 1), 1) != HELD).unwrap();
    assert!((1000..100_000).contains(&parts), "{parts}");
    assert_eq!(lock(&share, other, READ, (parts * 2, 1), 1), Err(ENOLCK));
    assert_eq!(lock(&share, other, WRITE, ALL, 1), HELD, "fewer parts there can always be");
    assert_eq!(lock(&share, other, UNLOCK, ALL, 1), HELD);
    assert!(is_free(&share, "f"));
    share.getattr(ROOT).unwrap();
    assert!(share.server.lives());
}
