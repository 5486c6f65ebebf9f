//! What the confined processes can do by themselves once somebody has taken them over: nothing but what is on their
//! lists. Real servers and helpers at work are made to call everything else, and are killed for it.
#![cfg(target_arch = "x86_64")]

use std::collections::BTreeSet;

use postern_server::confine;
use postern_server::fs::lock;
use postern_server::fs::walk::Walker;
use postern_tests::hostile::{is_its_turn, tried};
use postern_tests::prelude::*;
use postern_tests::puppet::{Door, Fate, Puppet};
use postern_tests::twin::children;

/// The last number of Linux 6.18, and some that may come.
const NUMBERS: std::ops::RangeInclusive<libc::c_long> = 0..=480;

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

/// uretprobe and uprobe: the kernel lets them past every list, and they do nothing but where it put them itself.
const UNFILTERED: [libc::c_long; 2] = [335, 336];

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

/// AT_FDCWD as a register has it.
const HERE: u64 = libc::AT_FDCWD as u64;
/// A descriptor's number that no process here has.
const FD: u64 = 99_999;
const PINNED: u64 = (libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC) as u64;

/// A call that is on the list with other arguments, and these; `NAME` stands for the address of one.
type Row = (&'static str, libc::c_long, [u64; 6]);
const NAME: u64 = u64::MAX - 1;

fn flags(flags: libc::c_int) -> u64 {
    PINNED | flags as u64
}

fn otherwise() -> Vec<Row> {
    let mut rows = vec![
        ("a path of the host pinned", libc::SYS_openat, [HERE, NAME, PINNED, 0, 0, 0]),
        ("the same, upper bits set", libc::SYS_openat, [0xffff_ff9c, NAME, PINNED, 0, 0, 0]),
        ("a name opened for reading", libc::SYS_openat, [FD, NAME, 0, 0, 0, 0]),
        ("a name pinned, links followed", libc::SYS_openat, [FD, NAME, libc::O_PATH as u64, 0, 0, 0]),
        ("a path of the host's attributes", libc::SYS_statx, [HERE, NAME, 0, 0xfff, NAME, 0]),
        ("a link of the host's", libc::SYS_readlinkat, [HERE, NAME, NAME, 8, 0, 0]),
        ("memory to execute", libc::SYS_mmap, [0, 4096, 7, 0x22, u64::MAX, 0]),
        ("memory made executable", libc::SYS_mprotect, [NAME & !4095, 4096, 5, 0, 0, 0]),
        ("a datagram to somebody", libc::SYS_sendto, [FD, NAME, 1, 0, NAME, 16]),
        ("waiting with other signals", libc::SYS_epoll_pwait, [FD, NAME, 1, 0, NAME, 8]),
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

// postern-security(7): system calls of one list with pinned arguments
#[apply(promise)]
fn a_server_is_killed_for_a_call_of_its_list_with_other_arguments(on: Kind) {
    let rows = otherwise();
    for (what, number, args) in &rows {
        assert_eq!(fate_with_name(on, Who::Server, *number, *args), Fate::Killed, "{what}: {args:x?}");
    }
    tried("calls of the list with other arguments", rows.len());
}

/// What somebody would want to do: ATTACKS' A12 to A15 and what is like it. Each is off every list.
fn wishes() -> Vec<Row> {
    let own = |number| (number, [FD, NAME, 0, 0, 0, 0]);
    let plain = [
        ("open a path of the host", own(libc::SYS_open)),
        ("open it another way", own(libc::SYS_openat2)),
        ("open by a handle", own(libc::SYS_open_by_handle_at)),
        ("get a handle", own(libc::SYS_name_to_handle_at)),
        ("change a mode", own(libc::SYS_chmod)),
        ("change it by descriptor", (libc::SYS_fchmod, [FD, 0o777, 0, 0, 0, 0])),
        ("change it in a directory", (libc::SYS_fchmodat, [FD, NAME, 0o777, 0, 0, 0])),
        ("change it without following", (libc::SYS_fchmodat2, [FD, NAME, 0o777, 0x1000, 0, 0])),
        ("change an owner", (libc::SYS_fchown, [FD, 0, 0, 0, 0, 0])),
        ("change an owner in a directory", (libc::SYS_fchownat, [FD, NAME, 0, 0, 0x1000, 0])),
        ("change times", (libc::SYS_utimensat, [FD, 0, 0, 0, 0, 0])),
        ("set an attribute", (libc::SYS_fsetxattr, [FD, NAME, NAME, 1, 0, 0])),
        ("set it by path", (libc::SYS_setxattr, [NAME, NAME, NAME, 1, 0, 0])),
        ("set it by a newer call", (463, [FD, NAME, 0, NAME, NAME, 16])),
        ("read an attribute", (libc::SYS_fgetxattr, [FD, NAME, NAME, 8, 0, 0])),
        ("list attributes", (libc::SYS_flistxattr, [FD, NAME, 8, 0, 0, 0])),
        ("remove an attribute", (libc::SYS_fremovexattr, [FD, NAME, 0, 0, 0, 0])),
        ("set inode flags", (libc::SYS_ioctl, [FD, 0x4008_6602, NAME, 0, 0, 0])),
        ("fake a terminal's input", (libc::SYS_ioctl, [FD, 0x5412, NAME, 0, 0, 0])),
        ("set inode attributes by a newer call", (469, [FD, NAME, NAME, 24, 0, 0])),
        ("truncate by path", own(libc::SYS_truncate)),
        ("truncate by descriptor", own(libc::SYS_ftruncate)),
        ("make a directory", (libc::SYS_mkdirat, [FD, NAME, 0o777, 0, 0, 0])),
        ("make a node", (libc::SYS_mknodat, [FD, NAME, 0o020_666, 0x103, 0, 0])),
        ("make a link", (libc::SYS_linkat, [FD, NAME, FD, NAME, 0, 0])),
        ("make a symbolic link", (libc::SYS_symlinkat, [NAME, FD, NAME, 0, 0, 0])),
        ("remove a name", (libc::SYS_unlinkat, [FD, NAME, 0, 0, 0, 0])),
        ("move a name", (libc::SYS_renameat2, [FD, NAME, FD, NAME, 0, 0])),
        ("ask what it may", (libc::SYS_faccessat2, [FD, NAME, 0, 0, 0, 0])),
        ("go elsewhere", (libc::SYS_fchdir, [FD, 0, 0, 0, 0, 0])),
        ("change its root", own(libc::SYS_chroot)),
        ("pivot its root", own(libc::SYS_pivot_root)),
        ("make a socket", (libc::SYS_socket, [1, 1, 0, 0, 0, 0])),
        ("make two sockets", (libc::SYS_socketpair, [1, 1, 0, NAME, 0, 0])),
        ("connect", (libc::SYS_connect, [FD, NAME, 110, 0, 0, 0])),
        ("listen", (libc::SYS_bind, [FD, NAME, 110, 0, 0, 0])),
        ("send a signal", (libc::SYS_kill, [1, 0, 0, 0, 0, 0])),
        ("send it to everybody", (libc::SYS_kill, [u64::MAX, 9, 0, 0, 0, 0])),
        ("send it to a thread", (libc::SYS_tgkill, [1, 1, 0, 0, 0, 0])),
        ("send it with a value", (libc::SYS_rt_sigqueueinfo, [1, 9, NAME, 0, 0, 0])),
        ("name a process", (libc::SYS_pidfd_open, [1, 0, 0, 0, 0, 0])),
        ("take a descriptor of another's", (libc::SYS_pidfd_getfd, [FD, 0, 0, 0, 0, 0])),
        ("send a signal by descriptor", (libc::SYS_pidfd_send_signal, [FD, 9, 0, 0, 0, 0])),
        ("trace", (libc::SYS_ptrace, [16, 1, 0, 0, 0, 0])),
        ("read another's memory", (libc::SYS_process_vm_readv, [1, NAME, 1, NAME, 1, 0])),
        ("write another's memory", (libc::SYS_process_vm_writev, [1, NAME, 1, NAME, 1, 0])),
        ("compare with another", (libc::SYS_kcmp, [1, 1, 0, 0, 0, 0])),
        ("limit another", (libc::SYS_prlimit64, [1, 7, NAME, 0, 0, 0])),
        ("raise its own limits", (libc::SYS_prlimit64, [0, 7, NAME, 0, 0, 0])),
        ("be more important", (libc::SYS_setpriority, [0, 0, 0, 0, 0, 0])),
        ("move another", (libc::SYS_sched_setaffinity, [1, 8, NAME, 0, 0, 0])),
        ("schedule another", (libc::SYS_sched_setattr, [1, NAME, 0, 0, 0, 0])),
        ("make rings", (libc::SYS_io_uring_setup, [1, NAME, 0, 0, 0, 0])),
        ("use rings", (libc::SYS_io_uring_enter, [FD, 1, 0, 0, 0, 0])),
        ("widen rings", (libc::SYS_io_uring_register, [FD, 0, 0, 0, 0, 0])),
        ("submit old ones", (libc::SYS_io_setup, [1, NAME, 0, 0, 0, 0])),
        ("become a program", (libc::SYS_execve, [NAME, 0, 0, 0, 0, 0])),
        ("become one that is memory", (libc::SYS_execveat, [FD, NAME, 0, 0, 0x1000, 0])),
        ("make memory with a number", (libc::SYS_memfd_create, [NAME, 0, 0, 0, 0, 0])),
        ("make secret memory", (libc::SYS_memfd_secret, [0; 6])),
        ("fork", (libc::SYS_fork, [0; 6])),
        ("fork and wait", (libc::SYS_vfork, [0; 6])),
        ("make a process", (libc::SYS_clone, [17, 0, 0, 0, 0, 0])),
        ("make one in namespaces", (libc::SYS_clone, [0x1002_0011, 0, 0, 0, 0, 0])),
        ("make a thread", (libc::SYS_clone, [0x3d_0f00, 0, 0, 0, 0, 0])),
        ("make any of these", (libc::SYS_clone3, [NAME, 88, 0, 0, 0, 0])),
        ("leave namespaces", (libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0, 0])),
        ("enter namespaces", (libc::SYS_setns, [FD, 0, 0, 0, 0, 0])),
        ("mount", (libc::SYS_mount, [NAME, NAME, NAME, 0, 0, 0])),
        ("unmount", (libc::SYS_umount2, [NAME, 2, 0, 0, 0, 0])),
        ("take a mount", (libc::SYS_open_tree, [HERE, NAME, 1, 0, 0, 0])),
        ("move a mount", (libc::SYS_move_mount, [FD, NAME, HERE, NAME, 4, 0])),
        ("change a mount", (libc::SYS_mount_setattr, [FD, NAME, 0, NAME, 32, 0])),
        ("make a file system", (libc::SYS_fsopen, [NAME, 0, 0, 0, 0, 0])),
        ("handle another's faults", (libc::SYS_userfaultfd, [0; 6])),
        ("add a key", (libc::SYS_add_key, [NAME, NAME, NAME, 1, 0, 0])),
        ("use keys", (libc::SYS_keyctl, [0; 6])),
        ("load a program into the kernel", (libc::SYS_bpf, [5, NAME, 128, 0, 0, 0])),
        ("measure", (libc::SYS_perf_event_open, [NAME, 1, u64::MAX, u64::MAX, 0, 0])),
        ("start another kernel", (libc::SYS_kexec_file_load, [FD, FD, 1, NAME, 0, 0])),
        ("load a module", (libc::SYS_finit_module, [FD, NAME, 0, 0, 0, 0])),
        ("read the kernel's log", (libc::SYS_syslog, [3, NAME, 8, 0, 0, 0])),
        ("become somebody", (libc::SYS_setresuid, [0, 0, 0, 0, 0, 0])),
        ("become somebody to files", (libc::SYS_setfsuid, [0, 0, 0, 0, 0, 0])),
        ("have capabilities", (libc::SYS_capset, [NAME, NAME, 0, 0, 0, 0])),
        ("be dumpable", (libc::SYS_prctl, [4, 1, 0, 0, 0, 0])),
        ("have another list", (libc::SYS_seccomp, [1, 0, NAME, 0, 0, 0])),
        ("have another code segment", (libc::SYS_modify_ldt, [1, NAME, 16, 0, 0, 0])),
        ("watch the file system", (libc::SYS_inotify_init1, [0; 6])),
        ("watch all of it", (libc::SYS_fanotify_init, [0, 0, 0, 0, 0, 0])),
        ("set quotas", (libc::SYS_quotactl, [0, NAME, 0, NAME, 0, 0])),
        ("set the clock", (libc::SYS_clock_settime, [0, NAME, 0, 0, 0, 0])),
        ("set the host's name", (libc::SYS_sethostname, [NAME, 1, 0, 0, 0, 0])),
        ("list the mounts", (458, [NAME, NAME, 8, 0, 0, 0])),
    ];
    plain.into_iter().map(|(what, (number, args))| (what, number, args)).collect()
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

/// Of those, what the helper is for.
const HELPERS: [&str; 15] = [
    "change it by descriptor",
    "change it in a directory",
    "change an owner in a directory",
    "change times",
    "set it by path",
    "set inode flags",
    "truncate by descriptor",
    "make a directory",
    "make a node",
    "make a link",
    "make a symbolic link",
    "remove a name",
    "move a name",
    "become somebody to files",
    "have capabilities",
];

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

/// The number by which a process holds a file.
fn descriptor_of(pid: u32, path: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let wanted = std::fs::metadata(path).unwrap();
    let mut held = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|fd| fd.unwrap());
    let same = |meta: std::fs::Metadata| (meta.dev(), meta.ino()) == (wanted.dev(), wanted.ino());
    let found = held.find(|fd| std::fs::metadata(fd.path()).is_ok_and(same));
    found.unwrap().file_name().to_str().unwrap().parse().unwrap()
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
