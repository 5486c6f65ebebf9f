//! The walls around both processes, as the kernel shows them; and what the program says when it cannot start.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod common;

use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use common::*;
use postern_ipc::hello::{News, receive_news};

const USER: By = By::User { uid: 4242, subordinate: Some((300_000, 65_536)) };

fn status(pid: u32) -> HashMap<String, String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines()
        .filter_map(|line| line.split_once(":\t"))
        .map(|(key, value)| (key.into(), value.trim().into()))
        .collect()
}

fn namespace(pid: u32, kind: &str) -> std::path::PathBuf {
    std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

fn shares(by: By, options: &[&str]) -> (Sut, tempfile::TempDir) {
    let dir = dir();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o777)).unwrap();
    (Sut::by(by, dir.path(), options), dir)
}

/// Every form: ids, capabilities of a share that may be changed and of one that may not.
const FORMS: [(By, &[&str], u64, u64); 6] = [
    (By::Root, &[], 0x8000_00db, 0xc4),
    (By::Root, &["--uid-map=:0:100000:10:", "--gid-map=:0:100000:10:"], 0x8000_00db, 0xc4),
    (USER, &[], 0x8000_00db, 0xc4),
    (By::Root, &["--identity=host"], 0x8000_00db, 0xc4),
    (By::Root, &["--security-model=mapped-xattr"], 0x8000_000a, 0x4),
    (USER, &["--security-model=mapped-file"], 0x8000_000a, 0x4),
];

#[test]
fn both_processes_hold_the_capabilities_of_the_operations_and_no_others() {
    for (by, options, write, read) in FORMS {
        for (more, wanted) in [(&[][..], write), (&["--readonly"], read)] {
            let (sut, _dir) = shares(by, &[options, more].concat());
            for pid in [sut.worker(), sut.child.id()] {
                let status = status(pid);
                let set = |name: &str| u64::from_str_radix(&status[name], 16).unwrap();
                let sets = ["CapPrm", "CapEff", "CapInh", "CapAmb"].map(set);
                assert_eq!(sets, [wanted, wanted, 0, 0], "{options:?} {more:?}");
                assert_eq!(set("CapBnd"), wanted, "{options:?} {more:?}");
            }
        }
    }
}

#[test]
fn every_thread_is_under_seccomp_and_no_new_privs() {
    for (by, options, ..) in FORMS {
        let (sut, _dir) = shares(by, options);
        for pid in [sut.worker(), sut.child.id()] {
            for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
                let task = task.unwrap().file_name().to_str().unwrap().parse().unwrap();
                let status = status(task);
                assert_eq!((status["Seccomp"].as_str(), status["NoNewPrivs"].as_str()), ("2", "1"), "{options:?}");
            }
        }
    }
}

#[test]
fn both_processes_live_in_namespaces_of_their_own_with_an_empty_root() {
    for (by, options, ..) in FORMS {
        let (sut, _dir) = shares(by, options);
        for pid in [sut.worker(), sut.child.id()] {
            for kind in ["mnt", "net", "ipc", "uts"] {
                assert_ne!(namespace(pid, kind), namespace(std::process::id(), kind), "{options:?} {kind}");
            }
            assert_eq!(std::fs::read_dir(format!("/proc/{pid}/root/")).unwrap().count(), 0, "{options:?}");
            let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
            assert_eq!(mounts.lines().count(), 1, "{mounts}");
            assert!(mounts.contains(" ro,nosuid,nodev,noexec"), "{mounts}");
        }
    }
}

#[test]
fn an_ordinary_users_helper_is_nobody_outside_its_map() {
    let (sut, _dir) = shares(USER, &[]);
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", sut.worker())).unwrap();
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", "4242", "1", "1", "300000", "65536"]);
    let status = status(sut.worker());
    assert_eq!(status["Uid"], "4242\t4242\t4242\t4242");
    assert_eq!(status["Groups"], "");
}

// ATTACKS A12: a process of the same user must not get into it.
#[test]
fn no_process_of_the_same_user_looks_into_either() {
    let (sut, _dir) = shares(USER, &[]);
    for pid in [sut.worker(), sut.child.id()] {
        let script = format!("cat /proc/{pid}/environ /proc/{pid}/maps /proc/{pid}/fd/0");
        let seen = std::process::Command::new("setpriv")
            .args(["--reuid", "4242", "--regid", "4242", "--clear-groups", "sh", "-c", &script])
            .output()
            .unwrap();
        assert!(!seen.status.success() && seen.stdout.is_empty(), "{seen:?}");
    }
}

#[test]
fn the_helper_holds_nothing_but_the_share_its_numbers_its_channels_and_a_way_to_the_log() {
    let (sut, dir) = shares(By::Root, &[]);
    let list = std::fs::read_dir(format!("/proc/{}/fd", sut.worker())).unwrap();
    let mut held: Vec<_> = list
        .map(|entry| std::fs::read_link(entry.unwrap().path()).unwrap().to_str().unwrap().to_owned())
        .map(|link| link.split(":[").next().unwrap().to_owned())
        .collect();
    held.sort();
    let numbers = format!("/{}/fd", sut.worker());
    // Of each of two channels a socket and two pipes, and three for what it logs.
    let wanted = [&["/", &numbers][..], &["pipe"; 7], &["socket"; 2]].concat();
    assert_eq!(held, wanted, "{}", dir.path().display());
}

#[test]
fn it_leaves_no_core_file_and_nothing_of_its_callers_environment() {
    let (sut, _dir) = shares(By::Root, &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", sut.worker())).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    assert_eq!(limit("Max open files"), ["4096", "4096"]);
}

#[test]
fn what_weakens_a_wall_says_so() {
    for (option, line) in [
        ("--seccomp=log", "warning: --seccomp=log: system calls outside the helper's list are not stopped"),
        ("--seccomp=none", "warning: --seccomp=none: system calls outside the helper's list are not stopped"),
        ("--no-landlock", "warning: --no-landlock"),
        ("--no-empty-root", "warning: --no-empty-root"),
    ] {
        let (sut, _dir) = shares(By::Root, &[option]);
        sut.mkdir(user(1), "d", 0o755).unwrap();
        assert!(sut.log().contains(line), "{}", sut.log());
    }
}

#[test]
fn a_request_is_one_debug_line() {
    let (sut, _dir) = shares(By::Root, &["--log-level=debug"]);
    sut.mkdir(user(1), "a\nb", 0o755).unwrap();
    let _ = sut.mkdir(user(1), "a\nb", 0o755);
    let line = sut.line("EEXIST");
    assert!(
        line.starts_with(
            r#"postern-helper: debug: mkdir { name: "a\nb", mode: 0755, umask: 0000 } uid=1 gid=1 -> EEXIST "#
        ),
        "{line}"
    );
}

fn fails(options: &[&str], dir: &str) -> String {
    let mut started = Started::new(By::Root, Path::new(dir), options);
    assert_eq!(started.status(), Some(1));
    let log = started.log();
    let told = receive_news(&started.socket);
    let last = log.lines().last().unwrap().to_owned();
    assert_eq!(Ok(News::Refused(last.strip_prefix("postern-helper: ").unwrap().to_owned())), told);
    last
}

#[test]
fn a_start_that_fails_says_what_why_and_what_to_do() {
    assert_eq!(
        fails(&[], "/no/such/directory"),
        "postern-helper: cannot open the shared directory /no/such/directory: ENOENT: No such file or directory; \
         create it or name another"
    );
    assert_eq!(
        fails(&[], "/etc/passwd"),
        "postern-helper: cannot open the shared directory /etc/passwd: ENOTDIR: Not a directory; name a directory"
    );
    let map = fails(&["--uid-map=:1:1000:1:"], "/tmp");
    assert!(map.ends_with("guest root is not mapped; give a range whose INSIDE is 0"), "{map}");
    let map = fails(&["--uid-map=:0:1000:2:", "--uid-map=:1:5:1:"], "/tmp");
    assert!(map.contains("have inside ids in common"), "{map}");
}

#[test]
fn a_guest_root_that_may_not_enter_the_directory_is_told() {
    let dir = dir();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let mut started = Started::new(By::Root, dir.path(), &["--uid-map=:0:100000:9:", "--gid-map=:0:100000:9:"]);
    started.greet(1, false);
    assert_eq!(started.status(), Some(1));
    assert!(started.log().contains("must own it or be able to search it"), "{}", started.log());
}

#[test]
fn a_descriptor_that_is_no_connected_unix_socket_is_refused() {
    let helper = env!("CARGO_BIN_EXE_postern-helper");
    for (redirect, why) in [("3</dev/null", "ENOTSOCK"), ("3<&-", "EBADF")] {
        let script = format!("exec {helper} --sock-fd 3 --shared-dir /tmp {redirect}");
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(said.starts_with(&format!("postern-helper: cannot use --sock-fd 3: {why}")), "{said}");
        assert!(said.contains("; give the number of a connected Unix socket"), "{said}");
    }
    let usage = std::process::Command::new(helper).arg("--sock-fd=3").output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}
