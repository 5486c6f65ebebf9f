//! What a helper at work calls, as strace(1) sees it.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::SFlag;
use nix::unistd::Pid;
use postern_ipc::id::Caller;
use postern_tests::hostile::tried;
use postern_tests::prelude::{apply, promise};
use postern_tests::sweep::requests;
use postern_tests::twin::{Outcome, Twin};

/// Whether all threads of a process are traced.
fn is_traced(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let status = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("status")).unwrap();
    tasks.map(|task| status(task.unwrap())).all(|status| !status.contains("TracerPid:\t0\n"))
}

fn trace(pid: u32, out: &Path) -> Child {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-y", "-qq", "-e", "trace=%file", "-o"]).arg(out).arg("-p").arg(pid.to_string());
    let strace = strace.spawn().expect("strace: tests/prepare");
    assert!((0..500).any(|_| is_traced(pid) || (std::thread::sleep(Duration::from_millis(10)), false).1), "not traced");
    strace
}

/// Nodes of every kind.
fn plant(twin: &Twin) -> Vec<OwnedFd> {
    twin.host.mkdir("d");
    twin.host.write("f", b"hello");
    twin.host.symlink("../outside/canary", "l");
    for (name, kind) in [("fifo", SFlag::S_IFIFO), ("socket", SFlag::S_IFSOCK), ("device", SFlag::S_IFCHR)] {
        twin.host.mknod(name, kind);
    }
    [".", "d", "f", "l", "fifo", "socket", "device"].map(|name| twin.pin(name)).into()
}

/// A line's call and what stands between its parentheses; `None` for what is no call.
fn parse(line: &str) -> Option<(&str, &str)> {
    let (_, call) = line.trim_start_matches(|c: char| c.is_ascii_digit()).split_at_checked(1)?;
    let (name, rest) = call.trim_start().split_once('(')?;
    let args = rest.rsplit_once(") ").map_or(rest, |(args, _)| args);
    name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then_some((name, args))
}

/// Where a call names a directory.
fn directories(name: &str, args: &str) -> Vec<String> {
    // Texts may have commas in them.
    let mut plain = String::new();
    let mut quoted = false;
    for (before, char) in std::iter::once(' ').chain(args.chars()).zip(args.chars()) {
        quoted ^= char == '"' && before != '\\';
        plain.push(if quoted && char == ',' { ';' } else { char });
    }
    let args: Vec<String> = plain.split(',').map(|arg| arg.trim().to_owned()).collect();
    match name {
        "symlinkat" => vec![args[1].clone()],
        "linkat" | "renameat2" => vec![args[0].clone(), args[2].clone()],
        _ => vec![args[0].clone()],
    }
}

// postern-helper(8): every path call is on a descriptor; extended attributes are reached by number in /proc/self/fd
#[apply(promise)]
fn cve_2018_16359_every_path_call_of_a_helper_at_work_is_on_a_descriptor(on: Kind) {
    let mut twin = Twin::new(on);
    let nodes = plant(&twin);
    let out = twin.scratch.path("trace");
    let mut strace = trace(twin.helper(), &out);
    let mut asked = 0;
    for request in requests().iter().step_by(3) {
        for (node, other) in nodes.iter().zip(nodes.iter().cycle().skip(1)) {
            let at = [node.as_fd(), other.as_fd()];
            let serial = twin.serial();
            let frame = request.frame(serial, Caller::Root);
            let outcome = twin.exchange(&frame, &request.data, &at[..request.kind.descriptors()]);
            assert!(matches!(outcome, Outcome::Answered(..)), "{:?}: {outcome:?}", request.kind);
            asked += 1;
        }
    }
    kill(Pid::from_raw(strace.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    strace.wait().unwrap();
    tried("requests of a traced helper", asked);

    let log = std::fs::read(&out).unwrap();
    let log = String::from_utf8_lossy(&log);
    let (mut calls, mut opened, mut attributes) = (0, 0, 0);
    for line in log.lines().filter(|line| !line.contains("resumed>") && !line.contains("+++")) {
        let Some((name, args)) = parse(line) else { panic!("{line}") };
        calls += 1;
        if name.ends_with("xattr") {
            attributes += 1;
            let path = args.trim_start_matches('"').split('"').next().unwrap();
            assert!(path.parse::<u32>().is_ok(), "{line}");
            continue;
        }
        for directory in directories(name, args) {
            let number = directory.split('<').next().unwrap();
            // A strace older than a call shows its arguments as they are.
            let unknown = number.strip_prefix("0x").is_some_and(|hex| i32::from_str_radix(hex, 16).is_ok());
            assert!(unknown || number.parse::<u32>().is_ok(), "{line}");
        }
        if name == "openat" && !args.contains("O_PATH") {
            opened += 1;
            let made = args.contains("O_CREAT|O_EXCL") || args.contains("O_TMPFILE");
            assert!(made || args.contains("O_NONBLOCK"), "{line}");
            let got = line.rsplit_once(" = ").unwrap().1;
            assert!(!["fifo>", "socket>", "device>"].iter().any(|special| got.contains(special)), "{line}");
        }
    }
    assert!(
        calls > asked && opened > 100 && attributes > 100,
        "{calls} calls, {opened} opened, {attributes} attributes"
    );
    assert!(log.contains("/fifo>"), "strace names no files");
    twin.assert_contained();
}
