//! LOOKUP, FORGET, BATCH_FORGET.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use postern_tests::prelude::*;

// path_resolution(7): "If the component does not exist, an ENOENT error is returned"
#[apply(behaviour)]
fn a_name_that_does_not_exist_is_not_found(share: &Share) {
    assert_eq!(share.lookup("none").map(|e| e.nodeid), Err(ENOENT));
}

// stat(2): "These functions return information about a file"
#[apply(behaviour)]
fn a_name_is_found_with_the_attributes_the_host_has(share: &Share) {
    share.host.write("f", b"hello");
    let (entry, stat) = (share.lookup("f").unwrap(), share.host.stat("f"));
    assert_ne!(entry.nodeid, ROOT_ID);
    assert_eq!((entry.attr.ino, entry.attr.size, entry.attr.mode), (stat.ino, 5, stat.mode));
    assert_eq!((u64::from(entry.attr.nlink), entry.attr.blocks), (1, stat.blocks));
    assert_eq!((entry.attr.mtime as i64, i64::from(entry.attr.mtimensec)), stat.mtime);
}

// path_resolution(7): "If the component is found, but is neither a directory nor a symbolic link, an ENOTDIR error is
// returned"
#[apply(behaviour)]
fn a_file_has_nothing_below_it(share: &Share) {
    share.host.write("f", b"");
    assert_eq!(share.lookup("f/x").map(|e| e.nodeid), Err(ENOTDIR));
}

// open(2): "O_NOFOLLOW If the trailing component of pathname is a symbolic link, then the open fails"; the guest
// follows itself
#[apply(behaviour)]
fn a_symbolic_link_is_found_itself(share: &Share) {
    share.host.mkdir("d");
    share.host.symlink("d", "l");
    let entry = share.lookup("l").unwrap();
    assert_eq!(entry.attr.mode & S_IFMT, S_IFLNK);
    assert_eq!(share.lookup((entry.nodeid, "x")).map(|e| e.nodeid), Err(ENOTDIR));
}

// pathname(7): "NAME_MAX  maximum length of a filename" is 255 bytes
#[apply(behaviour)]
fn a_name_of_255_bytes_is_found(share: &Share) {
    let name = "n".repeat(255);
    share.host.write(&name, b"");
    share.lookup(name.as_str()).unwrap();
}

// path_resolution(7): "ENAMETOOLONG"; NAME_MAX is 255
#[apply(behaviour)]
fn a_name_of_256_bytes_is_too_long(share: &Share) {
    assert_eq!(share.lookup("n".repeat(256).as_str()).map(|e| e.nodeid), Err(ENAMETOOLONG));
}

// path_resolution(7): a filename is any bytes but "/" and NUL
#[apply(behaviour)]
fn names_are_bytes(share: &Share) {
    for name in [&b"\xff\xfe"[..], b"a\nb", b"\\", b" ", b"...", b"-rf", b"\x01", "ümläut".as_bytes()] {
        let made = share.mkdir((ROOT_ID, OsStr::from_bytes(name)), 0o755).unwrap();
        assert_eq!(share.lookup((ROOT_ID, OsStr::from_bytes(name))).unwrap().nodeid, made.nodeid);
    }
    assert_eq!(share.list("").unwrap(), share.host.list(""));
    assert_eq!(share.host.list("").len(), 8);
}

// link(2): "both names refer to the same file (and so have the same permissions and ownership) and it is impossible to
// tell which name was the "original""
#[apply(behaviour)]
fn hard_links_are_one_node(share: &Share) {
    share.host.write("a", b"");
    std::fs::hard_link(share.host.path("a"), share.host.path("b")).unwrap();
    let (a, b) = (share.lookup("a").unwrap(), share.lookup("b").unwrap());
    assert_eq!((a.nodeid, a.generation, a.attr.nlink), (b.nodeid, b.generation, 2));
}

// inode(7): "Each inode is uniquely identified by its inode number and device"
#[apply(behaviour)]
fn different_files_are_different_nodes(share: &Share) {
    share.host.write("a", b"");
    share.host.write("b", b"");
    assert_ne!(share.lookup("a").unwrap().nodeid, share.lookup("b").unwrap().nodeid);
}

// inode(7): a file keeps its inode for as long as it lives
#[apply(behaviour)]
fn a_file_stays_the_same_node(share: &Share) {
    share.host.write("f", b"");
    let first = share.lookup("f").unwrap();
    let again = share.lookup("f").unwrap();
    assert_eq!((first.nodeid, first.generation), (again.nodeid, again.generation));
}

// FUSE: a node that was looked up but never used is found by its name, or else stale, so that the guest looks it up
// anew
#[apply(behaviour)]
fn an_unused_node_that_the_host_replaces_is_stale_or_itself(share: &Share) {
    share.host.write("f", b"old");
    let node = share.lookup("f").unwrap().nodeid;
    share.host.write("g", b"newer");
    share.host.rename("g", "f");
    let size = share.getattr(node).map(|attr| attr.size);
    assert!(size == Err(ESTALE) || size == Ok(3), "{size:?}");
}

// path_resolution(7): a guest that is told ESTALE looks the name up once more, and what it finds then is there to be
// used
#[apply(behaviour)]
fn a_node_found_where_the_host_replaces_files_stays_the_file_it_was(share: &Share) {
    share.host.write("f", b"");
    let replaced = |size| {
        let node = share.lookup("f").unwrap().nodeid;
        share.host.write("g", &vec![0; size]);
        share.host.rename("g", "f");
        share.getattr(node).map(|attr| attr.size)
    };
    let first = replaced(1);
    assert!(first == Err(ESTALE) || first == Ok(0), "{first:?}");
    assert_eq!([2, 3, 4].map(replaced), [1, 2, 3].map(Ok));
}

// rename(2): "Open file descriptors for oldpath are also unaffected"
#[apply(behaviour)]
fn a_node_in_use_that_the_host_renames_is_still_there(share: &Share) {
    share.host.write("old", b"x");
    let node = share.lookup("old").unwrap().nodeid;
    share.getattr(node).unwrap();
    share.host.rename("old", "new");
    assert_eq!(share.getattr(node).unwrap().size, 1);
    assert_eq!(share.lookup("new").unwrap().nodeid, node);
    assert_eq!(share.lookup("old").map(|e| e.nodeid), Err(ENOENT));
}

// unlink(2): "If the name was the last link to a file but any processes still have the file open, the file will remain
// in existence"
#[apply(behaviour)]
fn a_node_in_use_that_the_host_unlinks_is_still_there(share: &Share) {
    share.host.write("f", b"x");
    let node = share.lookup("f").unwrap().nodeid;
    share.getattr(node).unwrap();
    share.host.unlink("f");
    let attr = share.getattr(node).unwrap();
    assert_eq!((attr.size, attr.nlink), (1, 0));
}

// rename(2): "If newpath already exists, it will be atomically replaced"
#[apply(behaviour)]
fn a_file_that_the_host_replaces_is_another_node(share: &Share) {
    share.host.write("f", b"old");
    let old = share.lookup("f").unwrap();
    share.getattr(old.nodeid).unwrap();
    share.host.write("g", b"newer");
    share.host.rename("g", "f");
    let new = share.lookup("f").unwrap();
    assert_ne!((old.nodeid, old.generation), (new.nodeid, new.generation));
    assert_eq!((share.getattr(old.nodeid).unwrap().size, new.attr.size), (3, 5));
}

// FUSE: nodeid and generation together are never used for two files
#[apply(behaviour)]
fn a_name_used_again_is_another_node(share: &Share) {
    let mut seen = std::collections::HashSet::new();
    for _ in 0..20 {
        let entry = share.mkdir("d", 0o755).unwrap();
        assert!(seen.insert((entry.nodeid, entry.generation)));
        share.rmdir("d").unwrap();
        share.forget(entry.nodeid, 1);
    }
}

// FUSE: each LOOKUP adds one to a node's count, FORGET takes away as many as it says
#[apply(behaviour)]
fn a_node_lives_until_its_last_lookup_is_forgotten(share: &Share) {
    share.host.write("f", b"x");
    let node = share.lookup("f").unwrap().nodeid;
    share.lookup("f").unwrap();
    share.forget(node, 1);
    assert_eq!(share.getattr(node).unwrap().size, 1);
    share.forget(node, 1);
    share.lookup("f").unwrap();
}

// FUSE: BATCH_FORGET is any number of FORGETs
#[apply(behaviour)]
fn many_nodes_are_forgotten_at_once(share: &Share) {
    let make = |i| (share.mkdir(format!("d{i}").as_str(), 0o755).unwrap().nodeid, 1);
    let nodes: Vec<_> = (0..100).map(make).collect();
    share.batch_forget(&nodes);
    assert_eq!(share.list("").unwrap().len(), 100);
    share.lookup("d7").unwrap();
}

// FUSE: a forgotten file that is open stays open
#[apply(behaviour)]
fn an_open_file_outlives_its_node(share: &Share) {
    share.host.write("f", b"x");
    let file = share.open("f", O_RDONLY).unwrap();
    share.forget(file.node, 1);
    assert_eq!(share.lookup("f").unwrap().attr.size, 1);
    assert_eq!(share.read(&file, 0, 10).unwrap(), b"x");
}

// path_resolution(7): a path may be longer than PATH_MAX when it is walked name by name
#[apply(behaviour)]
fn a_tree_may_be_deeper_than_a_path_is_long(share: &Share) {
    let name = "d".repeat(250);
    let mut dirs = vec![ROOT_ID];
    for _ in 0..20 {
        dirs.push(share.mkdir((*dirs.last().unwrap(), &name), 0o755).unwrap().nodeid);
    }
    let bottom = *dirs.last().unwrap();
    let file = share.create((bottom, "f"), O_RDWR, 0o644).unwrap();
    share.write(&file, 0, b"deep").unwrap();
    assert_eq!(share.lookup((bottom, "f")).unwrap().attr.size, 4);
    share.unlink((bottom, "f")).unwrap();
    for dir in dirs.iter().rev().skip(1) {
        share.rmdir((*dir, &name)).unwrap();
    }
    assert_eq!(share.host.list(""), [""; 0]);
}

// mknod(2): "S_IFIFO", "S_IFSOCK", "S_IFCHR" are kinds of file; the guest opens them itself
#[apply(behaviour)]
fn special_files_of_the_host_are_shown(share: &Share) {
    use nix::sys::stat::SFlag;
    share.host.mknod("fifo", SFlag::S_IFIFO);
    share.host.mknod("sock", SFlag::S_IFSOCK);
    share.host.mknod("null", SFlag::S_IFCHR);
    let kind = |name| share.lookup(name).unwrap().attr.mode & S_IFMT;
    assert_eq!([kind("fifo"), kind("sock"), kind("null")], [S_IFIFO, S_IFSOCK, S_IFCHR]);
    assert_eq!(share.lookup("null").unwrap().attr.rdev, 1 << 8 | 3);
}
