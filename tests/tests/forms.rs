//! The forms in which postern is started: each end by itself, with the sockets that it is given. postern-server(1)

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::geteuid;
use postern_tests::hostile::tried;
use postern_tests::kind::bin_dir;
use postern_tests::pair::{self, CONFINED, PASS, Pair, assert_works, mount};
use postern_tests::prelude::*;
use postern_tests::processes::Processes;
use postern_tests::puppet::{Door, Fate, Puppet};
use postern_tests::share::Scratch;
use postern_tests::twin::{ends, goes};
use postern_tests::wishes::{FD, HERE, NAME, Row};

/// How it is done.
#[derive(Clone, Copy)]
struct Form {
    /// Of the socket between them.
    socket: SockType,
    /// Words before the server's script.
    under: &'static [&'static str],
    script: &'static str,
    /// Further arguments of the helper and the server.
    args: [&'static [&'static str]; 2],
}

const FORM: Form = Form { socket: SockType::Stream, under: &["sh", "-c"], script: PASS, args: [&[], &[]] };
/// The server's user namespace is somebody else's, who allows no more of them.
const NO_NAMESPACES: Form = Form { under: &pair::NO_NAMESPACES, script: CONFINED, ..FORM };

/// The helper is started by who starts this kind, the server by an ordinary user. VMMs come by `vmm`.
fn start(on: Kind, form: Form, vmm: OwnedFd) -> Pair {
    let scratch = Scratch::new(on, true);
    let host = Host::new(scratch.path("share"), on);
    let (theirs, ours) = socketpair(AddressFamily::Unix, form.socket, None, SockFlag::SOCK_CLOEXEC).unwrap();
    let log = || File::options().create(true).append(true).open(scratch.path("log")).unwrap();
    let mut helper = Command::new("sh");
    helper.args(["-c", PASS]).arg(bin_dir().join("postern-helper")).args(["--sock-fd=3", "--shared-dir"]);
    helper.arg(scratch.path("share")).args(on.identity()).args(form.args[0]).stdin(theirs).stderr(log());
    let mut server = Command::new(form.under[0]);
    server.args(&form.under[1..]).arg(form.script).arg(bin_dir().join("postern-server")).arg("virtiofs");
    server.args(["--sock-fd=3", "--fd=4", "--xattr"]).args(form.args[1]).stdin(ours).stdout(vmm).stderr(log());
    for (command, kind) in [(&mut helper, on), (&mut server, Kind::User)] {
        let (uid, gid) = kind.starter();
        if geteuid().is_root() && !uid.is_root() {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
    }
    let [helper, server] = [helper, server].map(|mut command| command.spawn().unwrap());
    Pair { guest: None, host, server, helper, scratch }
}

/// With a VMM that is there already.
fn connected(on: Kind, form: Form) -> Pair {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut pair = start(on, form, theirs.into());
    pair.guest = Some(mount(ours));
    pair
}

/// With VMMs that come one after the other.
fn listening(on: Kind, form: Form) -> Pair {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("socket");
    let mut pair = start(on, form, UnixListener::bind(&path).unwrap().into());
    for _ in 0..3 {
        pair.guest = None;
        pair.guest = Some(mount(UnixStream::connect(&path).unwrap()));
        pair.lookup("").unwrap_err();
    }
    pair
}

/// The first bytes of a file of /proc/PID.
fn proc(pid: u32, file: &str) -> io::Result<String> {
    std::fs::read_to_string(format!("/proc/{pid}/{file}"))
}

// postern-server(1): --sock-fd: "A helper is at the other end of descriptor N already"
#[apply(promise)]
fn a_helper_started_by_another_is_met_by_a_stream(on: Kind) {
    let pair = connected(on, FORM);
    assert_works(&pair, &pair.host);
}

// postern-helper(8): --sock-fd: "of other users' ids only the server that started the helper, or one of root's, gets
// any"
#[apply(promise)]
fn a_server_met_by_chance_becomes_no_user_of_the_host(on: Kind) {
    let pair = connected(on, FORM);
    let map = proc(pair.server.id(), "uid_map").unwrap();
    let told = pair.scratch.log().contains("it gets no id map");
    assert_eq!((map.trim().is_empty(), told), (!on.has_ids_for_all(), !on.has_ids_for_all()), "{map:?}");
}

// postern-helper(8): PROCESSES, of a tool that has started both
#[apply(promise)]
fn each_process_is_what_it_is_promised_to_be(on: Kind) {
    let pair = connected(on, FORM);
    pair.getattr("").unwrap();
    Processes::managed(on, pair.server.id(), pair.helper.id()).assert_promised();
}

// postern-server(1): --sock-fd: "a Unix stream or seqpacket socket"
#[apply(promise)]
fn a_helper_started_by_another_is_met_by_packets(on: Kind) {
    let pair = connected(on, Form { socket: SockType::SeqPacket, ..FORM });
    assert_works(&pair, &pair.host);
}

// postern-server(1): --fd: "a Unix stream socket, listening or connected"
#[apply(promise)]
fn vmms_come_by_a_listening_socket(on: Kind) {
    let pair = listening(on, FORM);
    assert_works(&pair, &pair.host);
}

// postern-server(1): EXIT STATUS: "0 when the VMM disconnected and --once or a connected --fd was given";
// postern-helper(8): "0 The server is gone"
#[apply(promise)]
fn both_end_with_a_connected_vmm(on: Kind) {
    let mut pair = connected(on, FORM);
    pair.put("f", b"x").unwrap();
    pair.guest = None;
    for process in [&mut pair.server, &mut pair.helper] {
        assert!(ends(process));
        assert_eq!(process.wait().unwrap().code(), Some(0));
    }
}

// postern-server(1): --sock-fd: the helper "knows the directory and what is allowed"
#[apply(promise)]
fn what_is_allowed_is_the_helpers_to_say(on: Kind) {
    let pair = connected(on, Form { args: [&["--readonly"], &[]], ..FORM });
    pair.host.write("f", b"hello");
    assert_eq!(pair.get("f").unwrap(), b"hello");
    assert_eq!(pair.put("g", b"x").map(drop), Err(EROFS));
    assert_eq!(pair.unlink("f"), Err(EROFS));
}

// user_namespaces(7): /proc/sys/user/max_user_namespaces: "ENOSPC": the helper looks names up, and the server's list
// has no openat, statx, readlinkat
#[apply(promise)]
fn without_user_namespaces_the_helper_walks(on: Kind) {
    let pair = listening(on, NO_NAMESPACES);
    let log = pair.scratch.log();
    let warnings = log.lines().filter(|line| line.contains("the helper looks up every name (slower)")).count();
    assert_eq!(warnings, 1, "{log}");
    assert!(proc(pair.server.id(), "status").unwrap().contains("Seccomp:\t2"));
    assert_works(&pair, &pair.host);
}

// open(2): O_PATH: without an empty root any path of the host would be named; postern-security(7): it has no such call
// then
#[cfg(target_arch = "x86_64")]
#[apply(promise)]
fn a_server_without_an_empty_root_names_nothing(on: Kind) {
    let pinned = (libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC) as u64;
    let rows: [Row; 6] = [
        ("a path of the host", libc::SYS_openat, [HERE, NAME, pinned, 0, 0, 0]),
        ("a name of the share", libc::SYS_openat, [FD, NAME, pinned, 0, 0, 0]),
        ("a path of the host by newer rules", libc::SYS_openat2, [HERE, NAME, NAME, 24, 0, 0]),
        ("attributes of a path", libc::SYS_statx, [HERE, NAME, 0, 0xfff, NAME, 0]),
        ("a link of the host's", libc::SYS_readlinkat, [HERE, NAME, NAME, 8, 0, 0]),
        ("whether a path is there", libc::SYS_faccessat2, [HERE, NAME, 0, 0, 0, 0]),
    ];
    for (what, number, args) in rows {
        let pair = listening(on, NO_NAMESPACES);
        let mut puppet = Puppet::hold(pair.server.id());
        let path = puppet.put(b"/etc/passwd\0");
        let args = args.map(|arg| if arg == NAME { path } else { arg });
        assert_eq!(puppet.call(Door::Own, number as u64, args), Fate::Killed, "{what}");
    }
    tried("names that a server without an empty root has", rows.len());
}

// postern-server(1): --rlimit-nofile: "Half are for nodes, of which any number is served", whoever looks them up
#[apply(promise)]
fn without_user_namespaces_any_number_of_nodes_is_served(on: Kind) {
    let pair = connected(on, Form { args: [&[], &["--rlimit-nofile=512"]], ..NO_NAMESPACES });
    let names: Vec<_> = (0..600).map(|i| format!("f{i}")).collect();
    names.iter().for_each(|name| pair.host.write(name, name.as_bytes()));
    let nodes: Vec<_> = names.iter().map(|name| pair.lookup(name.as_str()).unwrap().nodeid).collect();
    pair.rename("f1", "moved").unwrap();
    for (node, name) in nodes.iter().zip(&names).step_by(50) {
        assert_eq!(pair.get(*node).unwrap(), name.as_bytes());
    }
    assert_eq!(pair.get(nodes[1]).unwrap(), b"f1");
}

// postern-helper(8): "When the server is gone, or on SIGTERM, SIGINT or SIGHUP, both end"
#[apply(promise)]
fn a_helper_told_to_end_leaves_open_files_readable(on: Kind) {
    let mut pair = connected(on, FORM);
    let file = pair.create("f", O_RDWR, 0o644).unwrap();
    pair.write(&file, 0, b"hello").unwrap();
    let child = postern_tests::twin::children(pair.helper.id())[0];
    let pid = nix::unistd::Pid::from_raw(pair.helper.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(ends(&mut pair.helper) && goes(child));
    assert_eq!(pair.helper.wait().unwrap().code(), Some(0));
    assert_eq!(pair.read(&file, 0, 10).unwrap(), b"hello");
    assert_eq!(pair.mkdir("d", 0o755).map(drop), Err(EIO));
}
