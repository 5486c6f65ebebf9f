//! What the confined processes can do by themselves once somebody has taken them over: nothing but what is on their
//! lists. Real servers and helpers at work are made to call everything else, and are killed for it.
#![cfg(target_arch = "x86_64")]

use std::collections::BTreeSet;
use std::path::Path;

use postern_server::confine;
use postern_server::fs::lock;
use postern_server::fs::walk::Walker;
use postern_tests::hostile::{is_its_turn, tried};
use postern_tests::prelude::*;
use postern_tests::process::descriptor_of;
use postern_tests::puppet::{Door, Fate, Puppet};
use postern_tests::twin::children;
use postern_tests::wishes::{FD, HELPERS, HERE, NAME, NUMBERS, Row, UNFILTERED, wishes};

/// Who is made to call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Server,
    Helper,
}

/// What one of the processes of a share does with a call.
fn fate(on: Kind, who: Who, door: Door, number: libc::c_long, args: impl FnOnce(&mut Puppet) -> [u64; 6]) -> Fate {
    let share = on.setup().plant(|host| host.write("f", b"hello")).serve();
    fate_in(&share, who, door, number, args)
}

fn fate_in(
    share: &Share,
    who: Who,
    door: Door,
    number: libc::c_long,
    args: impl FnOnce(&mut Puppet) -> [u64; 6],
) -> Fate {
    share.lookup("f").unwrap();
    let server = share.server.child.id();
    let pid = match who {
        Who::Server => server,
        Who::Helper => children(children(server)[0])[0],
    };
    let mut puppet = Puppet::hold(pid);
    let args = args(&mut puppet);
    let fate = puppet.call(door, number.try_into().unwrap(), args);
    share.server.assert_contained();
    assert_eq!(share.host.read("f"), b"hello");
    fate
}

/// The same, of a call with a path of the host wherever `args` have [`NAME`].
fn fate_with_name(on: Kind, who: Who, number: libc::c_long, args: [u64; 6]) -> Fate {
    fate(on, who, Door::Own, number, |puppet| {
        let name = puppet.put(b"/etc/passwd\0");
        args.map(|arg| if arg == NAME { name } else { arg })
    })
}

// seccomp(2): SECCOMP_RET_KILL_PROCESS
#[apply(promise)]
fn a_server_is_killed_for_every_call_that_is_not_on_its_list(on: Kind) {
    let listed = confine::calls(Walker::Server).chain(lock::table::CALLS).map(|call| call.number);
    let listed: BTreeSet<_> = listed.chain(UNFILTERED).collect();
    let mut attempts = 0;
    for number in NUMBERS.filter(|number| !listed.contains(number) && is_its_turn(on, *number as usize)) {
        assert_eq!(fate(on, Who::Server, Door::Own, number, |_| [0; 6]), Fate::Killed, "call {number}");
        attempts += 1;
    }
    for number in UNFILTERED {
        let fate = fate(on, Who::Server, Door::Own, number, |_| [0; 6]);
        assert!(matches!(fate, Fate::Killed | Fate::Ended | Fate::Returned(..0)), "call {number}: {fate:?}");
    }
    tried("calls that are not on the list", attempts);
}

// seccomp(2): "arch": a list is about one table of numbers, and the kernel has others
#[apply(promise)]
fn a_server_is_killed_for_every_call_by_another_door(on: Kind) {
    let mut attempts = 0;
    for number in NUMBERS.filter(|number| is_its_turn(on, *number as usize)) {
        for door in [Door::X32, Door::I386] {
            assert_eq!(fate(on, Who::Server, door, number, |_| [0; 6]), Fate::Killed, "{door:?} {number}");
            attempts += 1;
        }
    }
    tried("calls by another door", attempts);
}

const PINNED: u64 = (libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC) as u64;

fn flags(flags: libc::c_int) -> u64 {
    PINNED | flags as u64
}

fn otherwise() -> Vec<Row> {
    let mut rows = vec![
        ("a path of the host pinned", libc::SYS_openat, [HERE, NAME, PINNED, 0, 0, 0]),
        ("the same, upper bits set", libc::SYS_openat, [0xffff_ff9c, NAME, PINNED, 0, 0, 0]),
        ("a name opened for reading", libc::SYS_openat, [FD, NAME, 0, 0, 0, 0]),
        ("a name pinned, links followed", libc::SYS_openat, [FD, NAME, libc::O_PATH as u64, 0, 0, 0]),
        ("a link of the host's", libc::SYS_readlinkat, [HERE, NAME, NAME, 8, 0, 0]),
        ("memory to execute", libc::SYS_mmap, [0, 4096, 7, 0x22, u64::MAX, 0]),
        ("memory made executable", libc::SYS_mprotect, [NAME & !4095, 4096, 5, 0, 0, 0]),
        ("a datagram to somebody", libc::SYS_sendto, [FD, NAME, 1, 0, NAME, 16]),
        ("an option of a socket's own protocol", libc::SYS_getsockopt, [FD, 6, 1, NAME, NAME, 0]),
        ("writing back and waiting", libc::SYS_sync_file_range, [FD, 0, 1, 7, 0, 0]),
    ];
    let open = [libc::O_CREAT, libc::O_TRUNC, libc::O_RDWR, libc::O_WRONLY, libc::O_TMPFILE, libc::O_DIRECTORY];
    rows.extend(open.map(|flag| ("a pinned name with more flags", libc::SYS_openat, [FD, NAME, flags(flag), 0, 0, 0])));
    let commands = [
        libc::F_DUPFD,
        libc::F_SETFL,
        libc::F_GETFL,
        libc::F_SETOWN,
        libc::F_GETOWN,
        libc::F_SETLK,
        libc::F_DUPFD_CLOEXEC,
        libc::F_NOTIFY,
        libc::F_SETLEASE,
        libc::F_GETLEASE,
        libc::F_SETPIPE_SZ,
        libc::F_ADD_SEALS,
        // F_SETSIG, F_SETOWN_EX, F_SET_RW_HINT of linux/fcntl.h
        10,
        15,
        1036,
    ];
    rows.extend(commands.map(|command| ("a command of fcntl", libc::SYS_fcntl, [FD, command as u64, 0, 0, 0, 0])));
    rows
}

// postern-security(7): system calls of one list, their arguments pinned where that keeps something out
#[apply(promise)]
fn a_server_is_killed_for_a_call_of_its_list_with_other_arguments(on: Kind) {
    let rows = otherwise();
    for (what, number, args) in &rows {
        assert_eq!(fate_with_name(on, Who::Server, *number, *args), Fate::Killed, "{what}: {args:x?}");
    }
    tried("calls of the list with other arguments", rows.len());
}

// postern-security(7): "an empty root": its list has paths of all kinds, by a directory that is held and by its own
#[apply(promise)]
fn a_server_sees_nothing_of_the_host_by_any_path(on: Kind) {
    let share = on.setup().plant(|host| host.write("f", b"hello")).serve();
    share.lookup("f").unwrap();
    let pid = share.server.child.id();
    let canary = share.server.dir().parent().unwrap().join("outside/canary");
    let root = descriptor_of(pid, &share.host.path(""));
    let mut puppet = Puppet::hold(pid);
    let mut look = |number, dir, path: &str, argument| {
        let (name, room) = (puppet.put(format!("{path}\0").as_bytes()), puppet.put(&[0; 256]));
        let args =
            if number == libc::SYS_statx { [dir, name, 0, 0xfff, room, 0] } else { [dir, name, argument, 0, 0, 0] };
        puppet.call(Door::Own, number as u64, args)
    };
    assert_eq!(look(libc::SYS_statx, HERE, "/", 0), Fate::Returned(0));
    assert_eq!(look(libc::SYS_statx, root, "f", 0), Fate::Returned(0));
    let mut attempts = 0;
    for path in [canary.to_str().unwrap(), "/etc/passwd", "/proc/self/root/etc/passwd"] {
        assert!(Path::new(path).exists());
        for way in (0..4).map(|up| "../".repeat(up)).chain(["/".into(), "/../".into()]) {
            let path = format!("{way}{}", &path[1..]);
            for (number, dir) in [(libc::SYS_statx, HERE), (libc::SYS_statx, root), (libc::SYS_openat, root)] {
                let fate = look(number, dir, &path, PINNED);
                assert_eq!(fate, Fate::Returned(-i64::from(libc::ENOENT)), "{number} {path}");
                attempts += 1;
            }
        }
    }
    tried("paths of the host", attempts);
}

// postern-security(7): the server has system calls of one list
#[apply(promise)]
fn a_server_is_killed_for_what_somebody_would_want_of_it(on: Kind) {
    let rows = wishes();
    for (what, number, args) in &rows {
        assert_eq!(fate_with_name(on, Who::Server, *number, *args), Fate::Killed, "{what}");
    }
    tried("wishes of a taken-over server", rows.len());
}

// postern-security(7): its list of system calls is made from the operations that the share allows; its root is empty
#[apply(promise)]
fn a_helper_is_killed_for_what_somebody_would_want_of_it(on: Kind) {
    let rows = wishes();
    let mut own = 0;
    for (what, number, args) in &rows {
        let fate = fate_with_name(on, Who::Helper, *number, *args);
        if HELPERS.contains(what) {
            own += 1;
            assert!(matches!(fate, Fate::Returned(..0)) || args == &[0; 6], "{what}: {fate:?}");
        } else {
            assert_eq!(fate, Fate::Killed, "{what}");
        }
    }
    assert_eq!(own, HELPERS.len());
    tried("wishes of a taken-over helper", rows.len());
}

/// What a server with weaker walls gets that opens a file of the share by itself, and one that changes its mode.
fn opened_and_changed(on: Kind, weaker: &[&str]) -> [Fate; 2] {
    [(libc::SYS_openat, libc::O_RDONLY as u64), (libc::SYS_fchmodat, 0o644)].map(|(number, flags)| {
        let setup = on.setup().plant(|host| host.write("f", b"hello"));
        let share = weaker.iter().fold(setup, |setup, arg| setup.arg(arg)).serve();
        let root = descriptor_of(share.server.child.id(), &share.host.path(""));
        fate_in(&share, Who::Server, Door::Own, number, |puppet| [root, puppet.put(b"f\0"), flags, 0, 0, 0])
    })
}

// fchmod(2), proc(5): /proc/PID/fd: what is behind a number that a process holds is changed by who owns it
#[apply(promise)]
fn a_helper_changes_nothing_of_the_hosts_by_its_standard_descriptors(on: Kind) {
    use std::os::unix::fs::MetadataExt as _;
    let null = || {
        let meta = std::fs::metadata("/dev/null").unwrap();
        (meta.mode(), meta.uid(), meta.ctime(), meta.ctime_nsec())
    };
    let before = null();
    for number in [0, 1] {
        let own = fate(on, Who::Helper, Door::Own, libc::SYS_fchmod, |_| [number, 0o666, 0, 0, 0, 0]);
        assert!(matches!(own, Fate::Returned(_)), "{number}: {own:?}");
    }
    assert_eq!(null(), before);
}

// landlock(7), seccomp(2): two walls, of which the second alone stops what is not opening
#[apply(promise)]
fn each_wall_of_a_server_holds_alone_what_it_is_there_for(on: Kind) {
    let walls = |weaker| opened_and_changed(on, weaker);
    assert_eq!(walls(&[]), [Fate::Killed; 2]);
    assert_eq!(walls(&["--no-landlock"]), [Fate::Killed; 2]);
    assert_eq!(walls(&["--seccomp=none"])[0], Fate::Returned(-i64::from(libc::EACCES)));
    assert!(matches!(walls(&["--seccomp=none", "--no-landlock"])[0], Fate::Returned(3..)));
}
