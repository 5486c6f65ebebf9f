//! What `postern explain` says is so. postern(1)

use std::os::unix::process::CommandExt;
use std::process::{Command, Output};

use nix::unistd::geteuid;
use postern_tests::kind::bin_dir;
use postern_tests::prelude::*;
use postern_tests::share::Scratch;
use postern_tests::twin::goes;

/// What is said of a share of this kind, by who starts it.
fn ask(on: Kind, frontend: &[&str], more: &[&str]) -> Output {
    let scratch = Scratch::new(on, false);
    let mut command = Command::new(bin_dir().join("postern"));
    command.arg("explain").args(frontend).arg("--shared-dir").arg(scratch.path("share")).args(on.identity()).args(more);
    if geteuid().is_root() && on.is_ordinary_user() {
        let (uid, gid) = on.starter();
        command.uid(uid.as_raw()).gid(gid.as_raw());
    }
    let output = command.current_dir("/").output().unwrap();
    assert_eq!(std::fs::read_dir(scratch.path("share")).unwrap().count(), 0, "the share was changed");
    output
}

const VIRTIOFS: &[&str] = &["virtiofs", "--socket-path=/nowhere/socket", "--socket-group=nobody"];

/// The table, cut into its processes: server, warden, helper. All of them are gone.
fn explain(on: Kind, frontend: &[&str], more: &[&str]) -> [String; 3] {
    let output = ask(on, frontend, more);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let (_, rest) = text.split_once("SERVER: process ").unwrap();
    let (server, rest) = rest.split_once("WARDEN: process ").unwrap();
    let (warden, helper) = rest.split_once("HELPER: process ").unwrap();
    [server, warden, helper].map(|part| {
        let (pid, part) = part.split_once('\n').unwrap();
        assert!(goes(pid.parse().unwrap()), "{pid} goes on");
        part.to_owned()
    })
}

/// The words behind a property; several spaces are one.
fn property(part: &str, name: &str) -> String {
    let line = part.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap_or_else(|| panic!("{name}\n{part}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn has_call(part: &str, name: &str) -> bool {
    part.lines().any(|line| line.trim().starts_with(&format!("{name} (")))
}

// postern(1): explain: "ids, capabilities, namespaces"
#[apply(promise)]
fn ids_and_capabilities_are_told_inside_and_outside(on: Kind) {
    let [server, warden, helper] = explain(on, VIRTIOFS, &[]);
    let root = on.uids()[0].host;
    for part in [&warden, &helper] {
        assert_eq!(property(part, "uid"), format!("{root} outside, {} inside", if on.stays() { root } else { 0 }));
        let inside = property(part, "capabilities inside");
        let owners = if on == Kind::Soft { "" } else { "FOWNER FSETID " };
        assert!(inside.starts_with(&format!("CHOWN DAC_OVERRIDE {owners}SETGID SETUID ")), "{inside}");
        let outside = if on.stays() { inside.as_str() } else { "none" };
        assert!(on == Kind::Root || property(part, "capabilities outside") == outside, "{part}");
        assert_eq!(property(part, "CAP_CHOWN"), "SetAttr changes owners");
    }
    for set in ["capabilities inside", "capabilities outside", "can ever have", "groups"] {
        assert_eq!(property(&server, set), "none", "{set}");
    }
    assert!(!property(&server, "uid").starts_with(&format!("{root} ")), "{server}");
    let seen = if on.is_ordinary_user() { "only root may see" } else { "user mnt net ipc uts" };
    assert_eq!(property(&server, "namespaces of its side"), seen);
}

// postern(1): explain: "each system call with the arguments it may have and what it is for"
#[apply(promise)]
fn system_calls_are_told_with_their_arguments_and_reasons(on: Kind) {
    let [server, warden, helper] = explain(on, VIRTIOFS, &[]);
    let flags = libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let walks = format!("openat (257): argument 0 is a descriptor, argument 2 is {flags:#x}");
    assert_eq!(property(&server, &walks), "pins a name in a directory of the share");
    for (name, those) in [("mkdirat", [false, true, true]), ("clone", [false, true, false]), ("futex", [true; 3])] {
        assert_eq!([&server, &warden, &helper].map(|part| has_call(part, name)), those, "{name}");
    }
    for part in [&server, &warden, &helper] {
        assert!(property(part, "kill").ends_with(" instructions") && !has_call(part, "execve"), "{part}");
    }
    for part in [&warden, &helper] {
        assert_eq!(property(part, "send signals"), "no: none of these calls is on its list");
    }
    assert!(server.contains("by pidfd_send_signal"), "{server}");
}

// postern(1): explain: "what is shown is in force": other options, another table
#[apply(promise)]
fn a_readonly_share_is_told_to_change_nothing(on: Kind) {
    let [_, warden, helper] = explain(on, VIRTIOFS, &["--readonly"]);
    for part in [&warden, &helper] {
        let changing = ["mkdirat", "unlinkat", "renameat2", "fchownat", "setxattr", "pwrite64"];
        assert_eq!(changing.into_iter().find(|name| has_call(part, name)), None);
        assert_eq!(property(part, "capabilities inside"), "DAC_READ_SEARCH SETGID SETUID");
    }
    assert!(helper.contains("beneath the share ReadFile ReadDir; elsewhere nothing"), "{helper}");
}

// postern(1): explain: "what came of a try to get around"
#[apply(promise)]
fn what_landlock_stops_is_tried(on: Kind) {
    let [server, warden, helper] = explain(on, VIRTIOFS, &[]);
    assert!(server.contains("reading its root directory gives EACCES"), "{server}");
    assert!(warden.contains("reading the share works, reading /proc gives EACCES"), "{warden}");
    assert!(helper.contains("reading the share works, reading /proc/self/fd gives EACCES"), "{helper}");
    let [server, warden, helper] = explain(on, VIRTIOFS, &["--no-landlock"]);
    assert!(server.contains("reading its root directory works"), "{server}");
    assert!(warden.contains("reading the share works, reading /proc works"), "{warden}");
    assert!(helper.contains("reading the share works, reading /proc/self/fd works"), "{helper}");
}

// postern-server(1): --seccomp: "log lets it through", "none sets no list up"
#[apply(promise)]
fn a_list_that_stops_nothing_is_told_to_stop_nothing(on: Kind) {
    for mode in ["log", "none"] {
        let [server, _, helper] = explain(on, VIRTIOFS, &["--seccomp", mode]);
        assert_eq!(property(&helper, "run programs"), "not stopped by --seccomp");
        assert_eq!((has_call(&server, "openat"), has_call(&helper, "openat")), (mode == "log", mode == "log"));
    }
}

// postern(1): explain: "the share ... that postern-server would have by this command line"
#[apply(promise)]
fn every_frontend_is_explained(on: Kind) {
    let ways: [&[&str]; 4] = [
        &["9p", "--socket-path", "/nowhere/socket", "--tag=t"],
        &["9p", "--listen", "unix:/nowhere/socket"],
        &["9p", "--stdio", "--trust-client"],
        &["proxy", "--fd", "77"],
    ];
    for way in ways {
        let [server, ..] = explain(on, way, &[]);
        let locks = server.contains("locks part of a file, never waiting");
        assert_eq!(locks, way[0] == "9p", "{way:?}\n{server}");
    }
}

// postern(1): EXIT STATUS: explain: "1 if it could not be started"
#[apply(promise)]
fn what_cannot_be_shared_cannot_be_explained(on: Kind) {
    let output = ask(on, VIRTIOFS, &["--user=no-such-user", "--helper=/no/such"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{told}");
    assert!(told.lines().any(|line| line.starts_with("postern-server: cannot ")), "{told}");
    assert!(told.ends_with("cannot explain the share: it could not be started; its own message says why\n"), "{told}");
    for helper in [&["--sock-fd=3"][..], &["--helper-socket=/s", "--shared-dir=/"], &["--by-policy", "--shared-dir=/"]]
    {
        let mut command = Command::new(bin_dir().join("postern"));
        let output = command.args(["explain", "virtiofs", "--fd=4"]).args(helper).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
        assert!(told.contains("whose helper takes no orders"), "{told}");
    }
}
