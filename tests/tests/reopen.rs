//! What is open, or was a moment ago, is opened again as if it were opened for the first time, only faster.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

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
