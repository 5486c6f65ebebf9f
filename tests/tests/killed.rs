//! A process that its seccomp filter kills is named, and so is the call. postern-helper(8): PROCESSES

use std::process::Command;
use std::time::{Duration, Instant};

use libc::c_long;
use postern_policy::sandbox::seccomp::named;
use postern_tests::prelude::*;
use postern_tests::puppet::{Door, Fate, Puppet};
use postern_tests::twin::{children, goes};

/// A call that none of the lists has.
const FORBIDDEN: c_long = libc::SYS_getuid;

/// Its filter judges this as any call of its own.
fn kill(pid: u32) {
    assert_eq!(Puppet::hold(pid).call(Door::Own, FORBIDDEN as u64, [0; 6]), Fate::Killed);
}

/// The line of the log that begins so, once there is one.
fn line_of(share: &Share, beginning: &str) -> String {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let log = share.server.log();
        if let Some(line) = log.lines().find(|line| line.starts_with(beginning)) {
            return line.to_owned();
        }
        assert!(Instant::now() < end, "no line begins with {beginning:?}:\n{log}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the kernel has said in its log what it killed a process for, and who starts this kind may read that there.
/// It does not say so where an audit daemon takes it, nor when it has said much lately.
fn is_told(on: Kind, pid: u32) -> bool {
    let restricted = std::fs::read_to_string("/proc/sys/kernel/dmesg_restrict").unwrap().trim() == "1";
    let log = String::from_utf8_lossy(&Command::new("dmesg").output().unwrap().stdout).into_owned();
    let about = format!(" pid={pid} ");
    let told = log.lines().any(|line| line.contains("type=1326") && line.contains(&about));
    told && !(restricted && on.is_ordinary_user())
}

/// What is said of a killed process.
fn how(pid: u32, told: bool) -> String {
    if told {
        format!("was killed by its seccomp filter for calling {}: this is a bug or an attack", named(FORBIDDEN))
    } else {
        format!("(journalctl -k, or ausearch -m SECCOMP -p {pid})")
    }
}

// postern-helper(8): "If its seccomp filter has killed it, the warden says for which call"
#[apply(promise)]
fn a_helper_killed_by_its_filter_is_reported_with_the_call(on: Kind) {
    let share = on.serve();
    let [warden] = children(share.server.child.id())[..] else { panic!("one warden") };
    let [helper] = children(warden)[..] else { panic!("one helper") };
    kill(helper);
    assert!(goes(helper));
    let line = line_of(&share, "postern-helper: error: the helper was killed by its seccomp filter");
    assert!(line.ends_with(&how(helper, is_told(on, helper))), "{line}");
    share.mkdir("d", 0o755).unwrap();
}

// postern-helper(8): "Of a server that its filter has killed it says the same"
#[apply(promise)]
fn a_server_killed_by_its_filter_is_reported_by_the_warden(on: Kind) {
    let share = on.serve();
    let server = share.server.child.id();
    let [warden] = children(server)[..] else { panic!("one warden") };
    kill(server);
    assert!(goes(warden));
    if is_told(on, server) {
        let line = line_of(&share, "postern-helper: error: the server was killed by its seccomp filter");
        assert!(line.ends_with(&how(server, true)), "{line}");
    }
}

// postern-server(1): "A server that has started the helper says what its warden was killed by"
#[apply(promise)]
fn a_warden_killed_by_its_filter_is_reported_by_the_server(on: Kind) {
    let share = on.serve();
    let [warden] = children(share.server.child.id())[..] else { panic!("one warden") };
    kill(warden);
    let line = line_of(&share, "postern-server: error: the helper's warden was killed by its seccomp filter");
    assert!(line.ends_with(&how(warden, false)), "{line}");
    assert!(share.server.lives());
}
