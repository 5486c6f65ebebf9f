//! What a warden, and a helper, can do that somebody has taken over, and what the warden takes from the other side: one
//! greeting, and nothing else.
#![cfg(target_arch = "x86_64")]

use std::collections::BTreeSet;
use std::io::{IoSlice, Write as _};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use nix::sys::socket::sockopt::PassCred;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg, setsockopt};
use postern_ipc::hello::{CHANNELS_MAX, Hello, LENGTH, News, VERSION, receive_news, send_hello};
use postern_tests::hostile::{is_its_turn, tried};
use postern_tests::kind::to_host;
use postern_tests::prelude::*;
use postern_tests::process::descriptor_of;
use postern_tests::puppet::{Door, Fate, Puppet};
use postern_tests::twin::{self, Twin};
use postern_tests::wishes::{HELPERS, NAME, NUMBERS, UNFILTERED, wishes};

/// Who is made to call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Warden,
    Helper,
}

impl Who {
    fn of(self, twin: &Twin) -> u32 {
        if self == Self::Warden { twin.warden.id() } else { twin.helper() }
    }

    /// The calls that it tells to be on its list. postern-helper(8): --explain
    fn told(self, on: Kind) -> BTreeSet<libc::c_long> {
        let twin = Twin::with(on, &["--explain"]);
        let (log, name) = (twin.scratch.log(), if self == Self::Warden { "warden" } else { "helper" });
        let lines = log.lines().skip_while(|line| !line.starts_with(&format!("process\t{name}\t")));
        let calls = lines.take_while(|line| !line.starts_with("end")).filter_map(|line| line.strip_prefix("call\t"));
        let number = |call: &str| call.split(['(', ')']).nth(1).and_then(|number| number.parse().ok());
        let told: BTreeSet<_> = calls.map(|call| number(call).unwrap_or_else(|| panic!("{call}"))).collect();
        assert!(told.len() > 20, "{log}");
        told
    }

    /// What becomes of it by a call, with a path of the host wherever `args` have [`NAME`].
    fn fate(self, on: Kind, door: Door, number: libc::c_long, args: [u64; 6]) -> Fate {
        let twin = Twin::new(on);
        let mut puppet = Puppet::hold(self.of(&twin));
        let name = puppet.put(b"/etc/passwd\0");
        let args = args.map(|arg| if arg == NAME { name } else { arg });
        let fate = puppet.call(door, number.try_into().unwrap(), args);
        twin.assert_contained();
        fate
    }

    fn sweep(self, on: Kind) {
        let told = self.told(on);
        let mut attempts = 0;
        for number in NUMBERS.filter(|number| is_its_turn(on, *number as usize)) {
            let doors = [(Door::Own, !told.contains(&number)), (Door::X32, true), (Door::I386, true)];
            for (door, _) in doors.into_iter().filter(|(door, sent)| *sent && !unfiltered(*door, number)) {
                assert_eq!(self.fate(on, door, number, [0; 6]), Fate::Killed, "{door:?} {number}");
                attempts += 1;
            }
        }
        tried(&format!("calls that a {self:?} has not"), attempts);
    }
}

fn unfiltered(door: Door, number: libc::c_long) -> bool {
    door == Door::Own && UNFILTERED.contains(&number)
}

// postern-helper(8): --explain: what it says is so, and all that is so
#[apply(promise)]
fn a_warden_is_killed_for_every_call_that_it_does_not_tell(on: Kind) {
    Who::Warden.sweep(on);
}

// postern-helper(8): --explain: what it says is so, and all that is so
#[apply(promise)]
fn a_helper_is_killed_for_every_call_that_it_does_not_tell(on: Kind) {
    Who::Helper.sweep(on);
}

/// Of what somebody would want, what a warden's list has besides its helper's calls: those that make a helper.
const WARDENS: [&str; 8] = [
    "go elsewhere",
    "have another list",
    "make two sockets",
    "make a process",
    "make a thread",
    // It is told that there is no such call, so that it makes them where their flags are seen.
    "make any of these",
    "name a process",
    "send a signal by descriptor",
];

// postern-helper(8): the walls of both
#[apply(promise)]
fn a_warden_is_killed_for_what_somebody_would_want_of_it(on: Kind) {
    let (mut attempts, mut own) = (0, 0);
    let more = [
        ("stop a process", libc::SYS_pidfd_send_signal, [99_999, libc::SIGSTOP as u64, 0, 0, 0, 0]),
        ("be traced by anybody", libc::SYS_prctl, [libc::PR_SET_PTRACER as u64, u64::MAX, 0, 0, 0, 0]),
        ("leave its mounts", libc::SYS_unshare, [libc::CLONE_NEWNS as u64, 0, 0, 0, 0, 0]),
        ("make a process in a user namespace", libc::SYS_clone, [libc::CLONE_NEWUSER as u64 | 17, 0, 0, 0, 0, 0]),
    ];
    for (what, number, args) in wishes().into_iter().chain(more) {
        let fate = Who::Warden.fate(on, Door::Own, number, args);
        if WARDENS.contains(&what) || HELPERS.contains(&what) {
            own += 1;
            assert_ne!(fate, Fate::Killed, "{what}");
        } else {
            assert_eq!(fate, Fate::Killed, "{what}");
        }
        attempts += 1;
    }
    assert_eq!(own, WARDENS.len() + HELPERS.len());
    tried("wishes of a taken-over warden", attempts);
}

/// Opens what `path` leads to from a directory that a process holds, in each way that its list has.
fn opened(puppet: &mut Puppet, dir: u64, path: &str) -> Vec<Fate> {
    let name = puppet.put(format!("{path}\0").as_bytes());
    let ways = [libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR].map(|way| way | libc::O_NONBLOCK | libc::O_CLOEXEC);
    ways.map(|way| puppet.call(Door::Own, libc::SYS_openat as u64, [dir, name, way as u64, 0, 0, 0])).into()
}

// landlock(7): both reach files beneath the share only; what leads to /proc leads nowhere
#[apply(promise)]
fn neither_warden_nor_helper_opens_anything_of_another_process_or_of_the_kernel(on: Kind) {
    let mut attempts = 0;
    for who in [Who::Warden, Who::Helper] {
        let twin = Twin::new(on);
        let pids = [1, std::process::id(), twin.warden.id(), twin.helper()];
        let of_processes = ["mem", "environ", "maps", "fd/0", "root/etc/passwd", "oom_score_adj", "task/../mem"];
        let of_processes = pids.into_iter().flat_map(|pid| of_processes.map(|file| format!("{pid}/{file}")));
        let of_the_kernel = ["sys/kernel/core_pattern", "sys/kernel/hostname", "sysrq-trigger", "kcore", "self/mem"];
        let (pid, held) = (who.of(&twin), if who == Who::Warden { "/proc" } else { "/proc/PID/fd" });
        let held = held.replace("PID", &pid.to_string());
        let dir = descriptor_of(pid, Path::new(&held));
        let mut puppet = Puppet::hold(pid);
        // What it holds itself is its own.
        let own = format!("{pid}/fd/0");
        for path in of_processes.filter(|path| *path != own).chain(of_the_kernel.map(String::from)) {
            let path = if who == Who::Warden { path } else { format!("../../{path}") };
            for fate in opened(&mut puppet, dir, &path) {
                assert!(matches!(fate, Fate::Returned(..0)), "{who:?} {path}: {fate:?}");
                attempts += 1;
            }
        }
    }
    tried("files of processes and of the kernel", attempts);
}

/// How many ways lead from the /proc that a process holds to files of the host, of how many.
fn ways_out(twin: &Twin, who: Who) -> (usize, usize) {
    let pid = who.of(twin);
    let held = if who == Who::Warden { "/proc".into() } else { format!("/proc/{pid}/fd") };
    let dir = descriptor_of(pid, Path::new(&held));
    let canary = twin.scratch.path("outside/canary");
    let mut puppet = Puppet::hold(pid);
    // As the library has it, with O_LARGEFILE.
    let pinned = (libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC | 0o100_000) as u64;
    let links = ["self/root", "self/cwd", "1/root", "thread-self/root", "../cwd", "../root", "../../1/root"];
    let (mut found, mut tried) = (0, 0);
    for way in (0..8).map(|up| "../".repeat(up)).chain(links.map(|link| format!("{link}/"))) {
        for path in [canary.to_str().unwrap(), "/etc/passwd"] {
            let name = puppet.put(format!("{way}{}\0", &path[1..]).as_bytes());
            // The mode that it has.
            for (number, argument) in [(libc::SYS_openat, pinned), (libc::SYS_fchmodat, 0o644)] {
                match puppet.call(Door::Own, number as u64, [dir, name, argument, 0, 0, 0]) {
                    Fate::Returned(0..) => found += 1,
                    fate => assert!(matches!(fate, Fate::Returned(_)), "{way}{path}: {fate:?}"),
                }
                tried += 1;
            }
        }
    }
    (found, tried)
}

// pivot_root(2), path_resolution(7): from the /proc that both hold no way leads up to what their root was
#[apply(promise)]
fn neither_warden_nor_helper_finds_a_way_out_of_their_empty_root(on: Kind) {
    let mut attempts = 0;
    for who in [Who::Warden, Who::Helper] {
        let (found, of) = ways_out(&Twin::new(on), who);
        assert_eq!(found, 0, "{who:?}");
        assert_ne!(
            ways_out(&Twin::with(on, &["--no-empty-root"]), who).0,
            0,
            "{who:?}: without that wall there is one"
        );
        attempts += of;
    }
    tried("ways out of an empty root", attempts);
}

/// A process of the user that root of the share is on the host.
fn bystander(on: Kind) -> Child {
    let mut command = Command::new("sleep");
    command.arg("60").uid(to_host(&on.uids(), 0).unwrap()).gid(to_host(&on.gids(), 0).unwrap());
    command.spawn().unwrap()
}

/// Whether a warden can end a process.
fn ends(puppet: &mut Puppet, pid: u32) -> bool {
    let fd = match puppet.call(Door::Own, libc::SYS_pidfd_open as u64, [pid.into(), 0, 0, 0, 0, 0]) {
        Fate::Returned(fd @ 3..) => fd.cast_unsigned(),
        other => panic!("{pid} is not to be named: {other:?}"),
    };
    match puppet.call(Door::Own, libc::SYS_pidfd_send_signal as u64, [fd, libc::SIGKILL as u64, 0, 0, 0, 0]) {
        Fate::Returned(0) => true,
        other => {
            assert_eq!(other, Fate::Returned(-i64::from(libc::EPERM)), "{pid}");
            false
        }
    }
}

// kill(2): "the real or effective user ID of the sending process must equal the real or saved set-user-ID of the
// target"; landlock(7): LANDLOCK_SCOPE_SIGNAL
#[apply(promise)]
fn a_warden_ends_its_helper_and_nobody_else_of_the_same_user(on: Kind) {
    for (more, gets_through) in [(&[][..], false), (&["--no-landlock"][..], true)] {
        let (twin, mut other) = (Twin::with(on, more), bystander(on));
        let helper = twin.helper();
        let mut puppet = Puppet::hold(twin.warden.id());
        assert_eq!(ends(&mut puppet, other.id()), gets_through, "{more:?}");
        assert!(ends(&mut puppet, helper) && twin::goes(helper));
        other.kill().unwrap();
        let died_of = other.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&died_of), Some(libc::SIGKILL));
    }
    tried("processes to be killed", 4);
}

/// Greets, with each byte as it is sent in the hands of `damage`; what the server hears.
fn greeted(on: Kind, damage: impl FnOnce(&mut [u8])) -> (bool, usize) {
    let (scratch, socket, mut warden) = twin::start(on, &[]);
    let mut hello = good_hello();
    damage(&mut hello);
    let _ = (&socket).write_all(&hello);
    let welcome = matches!(receive_news(&socket), Ok(News::Welcome(_)));
    drop(socket);
    assert!(twin::ends(&mut warden), "it goes on\n{}", scratch.log());
    let lines = scratch.log().lines().filter(|line| line.contains("cannot") || line.contains("error")).count();
    assert!(!scratch.log().contains("panic"), "{}", scratch.log());
    scratch.assert_contained();
    (welcome, lines)
}

/// As it is on the wire.
fn good_hello() -> Vec<u8> {
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    send_hello(&ours, &Hello { version: VERSION, channels: 1, wants_map: false }).unwrap();
    let mut bytes = vec![0; LENGTH];
    std::io::Read::read_exact(&mut theirs, &mut bytes).unwrap();
    bytes
}

// postern-ipc: every message of the handshake has the same length, and its padding is zero
#[apply(promise)]
fn a_greeting_with_any_byte_damaged_is_refused_in_one_line_or_means_something_else(on: Kind) {
    let mut attempts = 0;
    let used = good_hello().iter().rposition(|byte| *byte != 0).unwrap() + 9;
    let far = [used + 100, LENGTH / 2, LENGTH - 1];
    for at in (0..used).chain(far).filter(|at| is_its_turn(on, *at)) {
        for mask in [0xff, 1, 0x80] {
            let (welcome, lines) = greeted(on, |hello| hello[at] ^= mask);
            // Other channels, another serial, a map that it does not need.
            assert!(welcome || lines == 1, "byte {at}: {lines} lines");
            assert!(!welcome || at < used, "byte {at} is padding");
            attempts += 1;
        }
    }
    tried("damaged greetings", attempts);
}

// postern-ipc: after the greeting the server has nothing to say on that socket
#[apply(promise)]
fn a_flood_of_greetings_is_heard_once(on: Kind) {
    let mut attempts = 0;
    for together in [false, true] {
        let (scratch, socket, mut warden) = twin::start(on, &[]);
        attempts += send(&socket, 1);
        if !together {
            assert!(matches!(receive_news(&socket), Ok(News::Welcome(_))), "{}", scratch.log());
        }
        attempts += send(&socket, 500);
        assert!(twin::ends(&mut warden), "{}", scratch.log());
        assert_eq!(warden.wait().unwrap().code(), Some(3), "{}", scratch.log());
        assert_eq!(scratch.log().matches("error: ").count(), 1, "{}", scratch.log());
        scratch.assert_contained();
    }
    tried("greetings too many", attempts);
}

/// Sends so many greetings, as far as somebody takes them.
fn send(socket: &std::os::unix::net::UnixStream, count: usize) -> usize {
    let hello = good_hello();
    (0..count).take_while(|_| { socket }.write_all(&hello).is_ok()).count()
}

// unix(7): SCM_RIGHTS: who reads without room for descriptors gets none
#[apply(promise)]
fn descriptors_that_come_with_a_greeting_are_not_taken(on: Kind) {
    let null = std::fs::File::open("/dev/null").unwrap();
    let mut attempts = 0;
    for count in [1, 2, 3, 253] {
        let (scratch, socket, mut warden) = twin::start(on, &[]);
        setsockopt(&socket, PassCred, &true).unwrap();
        let (numbers, hello) = (vec![null.as_raw_fd(); count], good_hello());
        let (parts, rights) = ([IoSlice::new(&hello)], [ControlMessage::ScmRights(&numbers)]);
        let sent = sendmsg::<()>(socket.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None);
        assert_eq!(sent, Ok(LENGTH));
        assert!(twin::ends(&mut warden), "{}", scratch.log());
        let why = "cannot shake hands with the server: its greeting came with descriptors, which none has";
        assert!(matches!(receive_news(&socket), Ok(News::Refused(told)) if told == why));
        assert_eq!(scratch.log().matches(why).count(), 1, "{}", scratch.log());
        scratch.assert_contained();
        attempts += count;
    }
    tried("descriptors with a greeting", attempts);
}

// postern-ipc: CHANNELS_MAX
#[apply(promise)]
fn no_number_of_channels_but_those_that_may_be_is_given(on: Kind) {
    let mut attempts = 0;
    for channels in [0, 1, 2, CHANNELS_MAX - 1, CHANNELS_MAX, CHANNELS_MAX + 1, 1 << 8, 1 << 15, u16::MAX] {
        let (scratch, socket, mut warden) = twin::start(on, &[]);
        send_hello(&socket, &Hello { version: VERSION, channels, wants_map: false }).unwrap();
        let welcome = matches!(receive_news(&socket), Ok(News::Welcome(_)));
        assert_eq!(welcome, (1..=CHANNELS_MAX).contains(&channels), "{channels}\n{}", scratch.log());
        drop(socket);
        assert!(twin::ends(&mut warden));
        attempts += 1;
    }
    tried("numbers of channels", attempts);
}
