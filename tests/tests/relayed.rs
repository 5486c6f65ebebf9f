//! The log of a helper: a pipe to its warden, who writes whole lines of it to the log of whoever started both. A helper
//! that somebody has taken over writes what it likes there; and nobody waits for who reads the log.
#![cfg(target_arch = "x86_64")]

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postern_ipc::op::Stat;
use postern_policy::journal::LINE;
use postern_tests::hostile::tried;
use postern_tests::prelude::*;
use postern_tests::process::{assert_settles, memory};
use postern_tests::puppet::{Door, Fate, Puppet};
use postern_tests::twin::{Twin, children, goes};

/// What of a line is left of it in the log, once it is there.
fn await_line(twin: &Twin, what: &str) -> String {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let log = twin.scratch.log();
        if let Some(line) = log.lines().find(|line| line.contains(what)) {
            return line.to_owned();
        }
        assert!(Instant::now() < end, "no line has {what:?}:\n{log}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn assert_serves(twin: &mut Twin) {
    let root = twin.root.try_clone().unwrap();
    twin.ask(&Stat {}, &[root.as_fd()]).unwrap();
}

// fchmod(2), ftruncate(2), tty_ioctl(4): TIOCSTI: what holds the log could change it
#[apply(promise)]
fn a_helper_changes_nothing_of_the_log(on: Kind) {
    let mut twin = Twin::new(on);
    assert_serves(&mut twin);
    let of_log = || {
        let meta = std::fs::metadata(twin.scratch.path("log")).unwrap();
        (meta.mode(), meta.len(), meta.uid(), meta.ctime(), meta.ctime_nsec())
    };
    let (before, mut puppet) = (of_log(), Puppet::hold(twin.helper()));
    for (number, argument) in [(libc::SYS_fchmod, 0o777), (libc::SYS_ftruncate, 0), (libc::SYS_fchmod, 0)] {
        for standard in 0..3 {
            let fate = puppet.call(Door::Own, number as u64, [standard, argument, 0, 0, 0, 0]);
            assert!(matches!(fate, Fate::Returned(_)), "{number} of {standard}: {fate:?}");
        }
    }
    assert_eq!(of_log(), before);
}

/// What a helper may write: lines that are none, forged, too long, or without an end.
fn floods() -> Vec<Vec<u8>> {
    let line = |text: &str| text.repeat(1500 / text.len()).into_bytes();
    vec![
        line("postern-helper: error: a flood\n"),
        line("postern-helper: warning: a flood\n"),
        line("postern-helper: debug: not asked for\n"),
        line("postern-server: info: ready\n"),
        line("\n"),
        line("\x1b[2J\x07\r\n"),
        vec![0xff; 1500],
        vec![b'x'; 1500],
    ]
}

// postern-helper(8): PROCESSES: "whose lines the warden writes, of each level no more than of its own"
#[apply(promise)]
fn a_helper_that_floods_its_log_costs_a_short_one(on: Kind) {
    let mut twin = Twin::new(on);
    assert_serves(&mut twin);
    let (warden, since) = (twin.warden.id(), Instant::now());
    let (before, mut puppet) = (memory(warden), Puppet::hold(twin.helper()));
    let mut attempts = 0;
    for flood in floods() {
        let text = puppet.put(&flood);
        for _ in 0..200 {
            let fate = puppet.call(Door::Own, libc::SYS_write as u64, [2, text, flood.len() as u64, 0, 0, 0]);
            let full = -i64::from(libc::EAGAIN);
            assert!(matches!(fate, Fate::Returned(taken) if taken > 0 || taken == full), "{fate:?}");
            attempts += 1;
        }
    }
    assert_serves(&mut twin);
    assert_settles(warden);
    assert!(memory(warden) < before + 256, "{before} KiB, then {}", memory(warden));
    let log = twin.scratch.log();
    let most = 3 * 102 * (1 + since.elapsed().as_secs() / 10) + 10;
    assert!(log.lines().count() as u64 <= most, "{} lines", log.lines().count());
    for line in log.lines() {
        assert!(line.starts_with("postern-helper: ") && line.len() < LINE, "{line:?}");
        assert!(!line.contains(char::is_control) && !line.contains("debug: "), "{line:?}");
    }
    tried("lines too many", attempts);
}

// postern-helper(8): PROCESSES: "its last words come first"
#[apply(promise)]
fn what_a_helper_wrote_last_stands_before_what_it_died_of(on: Kind) {
    let mut twin = Twin::new(on);
    assert_serves(&mut twin);
    let helper = twin.helper();
    let mut puppet = Puppet::hold(helper);
    // Not the end of a line.
    let words = b"malloc(): corrupted top size";
    let text = puppet.put(words);
    let written = puppet.call(Door::Own, libc::SYS_write as u64, [2, text, words.len() as u64, 0, 0, 0]);
    assert_eq!(written, Fate::Returned(words.len() as i64));
    assert_eq!(puppet.call(Door::Own, libc::SYS_getuid as u64, [0; 6]), Fate::Killed);
    assert!(goes(helper));
    await_line(&twin, "the helper was killed by its seccomp filter");
    let log = twin.scratch.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("error: ")).collect();
    assert_eq!(lines[0], "postern-helper: error: malloc(): corrupted top size");
    assert!(lines[1].contains("the helper was killed"), "{log}");
    twin.renew();
    assert_serves(&mut twin);
}

// poll(2): POLLHUP: an end of a file is there for ever
#[apply(promise)]
fn a_helper_that_closes_its_log_keeps_nobody_busy(on: Kind) {
    let mut twin = Twin::new(on);
    assert_serves(&mut twin);
    let mut puppet = Puppet::hold(twin.helper());
    for standard in 0..3 {
        assert_eq!(puppet.call(Door::Own, libc::SYS_close as u64, [standard, 0, 0, 0, 0, 0]), Fate::Returned(0));
    }
    assert_settles(twin.warden.id());
    assert_serves(&mut twin);
}

/// A log that is full once as much as a pipe holds was written to it.
fn unread(log: &Path) -> File {
    nix::unistd::mkfifo(log, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(log).unwrap()
}

/// Everything that is there now.
fn read(mut log: &File) -> String {
    let mut bytes = Vec::new();
    let _ = log.read_to_end(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

// postern-helper(8), postern-server(1): --log-level: "A log that nobody reads is not waited for"
#[apply(promise)]
fn a_log_that_nobody_reads_delays_nobody(on: Kind) {
    let setup = on.setup().plain().arg("--log-level=debug");
    // The test has the log open for as long as it runs.
    let share = setup.plant(|host| std::mem::forget(unread(&host.path("../log")))).serve();
    let log = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(share.host.path("../log")).unwrap();
    std::fs::remove_file(share.host.path("../log")).unwrap();
    let since = Instant::now();
    for number in 0..600 {
        share.mkdir(format!("d{number}").as_str(), 0o755).unwrap();
    }
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    let helpers = || children(children(share.server.child.id())[0]);
    let helper = helpers()[0];
    kill(Pid::from_raw(helper as i32), Signal::SIGKILL).unwrap();
    while helpers().contains(&helper) || helpers().is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    share.mkdir("after", 0o755).unwrap();
    // All that has no room is lost by now.
    std::thread::sleep(Duration::from_millis(500));
    assert!(read(&log).len() > 60_000);
    let mut heard = String::new();
    for number in 0..1000 {
        share.mkdir(format!("e{number}").as_str(), 0o755).unwrap();
        heard += &read(&log);
        if ["postern-server", "postern-helper"].iter().all(|by| heard.contains(&format!("{by}: warning: "))) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    for by in ["postern-server", "postern-helper"] {
        let told: Vec<_> = heard.lines().filter(|line| line.starts_with(&format!("{by}: warning: "))).collect();
        assert_eq!(told.len(), 1, "{heard}");
        assert!(told[0].ends_with(" lines lost, which nobody read"), "{told:?}");
    }
}
