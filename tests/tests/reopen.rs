//! What is open, or was a moment ago, is opened again as if it were opened for the first time, only faster.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use postern_tests::kind::bin_dir;
use postern_tests::prelude::*;

/// Longer than the kernel's clock for files stands still: what was changed before differs from what is changed next.
fn a_moment_later() {
    sleep(Duration::from_millis(150));
}

/// Opens and closes a file, which has not changed for a moment.
fn read_once(share: &Share, path: &str) {
    a_moment_later();
    share.get(path).unwrap();
}

/// How often the helper was asked.
fn hops(socket: &Path) -> u64 {
    let output = std::process::Command::new(bin_dir().join("postern")).arg("stat").arg(socket).arg("--once").output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let count = text.split_once("the helper was asked ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    count.unwrap_or_else(|| panic!("{text}"))
}

// postern-server(1): stat; what has not changed is opened without the helper, by whoever opens it
#[test]
fn what_is_opened_once_more_is_not_asked_for() {
    for on in [Kind::Root, Kind::User] {
        opens_without_the_helper(on);
    }
}

fn opens_without_the_helper(on: Kind) {
    let dir = tempfile::TempDir::new_in("/var/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let socket = dir.path().join("stat");
    let share = on.setup().arg(&format!("--stats-socket={}", socket.display())).serve();
    share.host.mkdir("d");
    share.host.write("d/f", b"hello");
    read_once(&share, "d/f");
    share.list("d").unwrap();
    let before = hops(&socket);
    for _ in 0..20 {
        assert_eq!((share.get("d/f").unwrap(), share.list("d").unwrap()), (b"hello".to_vec(), vec!["f".into()]));
    }
    let (first, dir) = (share.open("d/f", O_RDONLY).unwrap(), share.opendir("d").unwrap());
    let second = share.open("d/f", O_RDONLY).unwrap();
    assert_eq!(hops(&socket), before);
    share.release(&first).unwrap();
    assert_eq!(share.read(&second, 1, 9).unwrap(), b"ello");
    let other = share.opendir("d").unwrap();
    assert!(hops(&socket) > before, "each who reads a directory has a place in it");
    for dir in [dir, other] {
        assert_eq!(share.entries(&dir).unwrap().iter().filter(|entry| entry.name == "f").count(), 1);
    }
    let before = hops(&socket);
    let file = share.open("d/f", O_WRONLY).unwrap();
    share.write(&file, 0, b"other").unwrap();
    assert!(hops(&socket) > before);
    assert_eq!(share.get("d/f").unwrap(), b"other");
}

// open(2): "EACCES  The requested access to the file is not allowed"
#[apply(behaviour)]
fn who_may_open_a_file_is_asked_each_time(share: &Share) {
    let Some(stranger) = share.host.foreign_id() else { return };
    share.host.write("f", b"for all");
    share.host.chown_host("f", stranger, stranger);
    share.host.chmod("f", 0o644);
    read_once(share, "f");
    assert_eq!(share.get("f").unwrap(), b"for all");
    share.host.chmod("f", 0o600);
    assert_eq!(share.get("f"), Err(EACCES));
    share.host.chmod("f", 0o644);
    assert_eq!(share.get("f").unwrap(), b"for all");
}

// read(2): what the host has written since the file was opened before
#[apply(behaviour)]
fn what_the_host_writes_meanwhile_is_read(share: &Share) {
    share.host.write("f", b"old");
    read_once(share, "f");
    share.host.write("f", b"new and longer");
    assert_eq!(share.get("f").unwrap(), b"new and longer");
    share.host.write("g", b"another");
    share.host.rename("g", "f");
    assert_eq!(share.get("f").unwrap(), b"another");
}

// readdir(3): a directory that is opened again shows what is in it now
#[apply(behaviour)]
fn a_directory_opened_again_shows_what_is_there_now(share: &Share) {
    share.host.mkdir("d");
    share.host.write("d/a", b"");
    a_moment_later();
    for _ in 0..2 {
        assert_eq!(share.list("d").unwrap(), ["a"]);
    }
    share.host.write("d/b", b"");
    assert_eq!(share.list("d").unwrap(), ["a", "b"]);
    share.lookup("d/a").unwrap();
    share.unlink("d/a").unwrap();
    assert_eq!(share.list("d").unwrap(), ["b"]);
    share.host.unlink("d/b");
    assert_eq!(share.list("d").unwrap(), Vec::<String>::new());
}

// unlink(2): "If the name was the last link to a file and no processes have the file open, the file is deleted and the
// space it was using is made available for reuse"
#[apply(promise)]
fn a_file_that_was_read_and_is_gone_takes_no_space(share: &Share) {
    share.host.write("f", b"large");
    share.host.write("other", b"");
    share.host.write("g", b"large");
    for name in ["f", "g"] {
        read_once(share, name);
    }
    let (f, g) = (share.lookup("f").unwrap(), share.lookup("g").unwrap());
    share.unlink("f").unwrap();
    share.rename("other", "g").unwrap();
    for node in [f.nodeid, g.nodeid] {
        share.forget(node, 99);
    }
    let deleted = || {
        let held = std::fs::read_dir(format!("/proc/{}/fd", share.server.child.id())).unwrap();
        let mut paths = held.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
        paths.find(|path| [Path::new("/f (deleted)"), Path::new("/g (deleted)")].contains(&path.as_path()))
    };
    let end = Instant::now() + Duration::from_secs(10);
    while deleted().is_some() {
        assert!(Instant::now() < end, "{:?} is still held", deleted());
        sleep(Duration::from_millis(5));
    }
}
