//! SYMLINK, READLINK, LINK.

use postern_tests::prelude::*;

// symlink(2): "creates a symbolic link named linkpath which contains the string target"
#[apply(behaviour)]
fn a_symbolic_link_keeps_its_text(share: &Share) {
    for (name, text) in [("a", "f"), ("b", "/etc/passwd"), ("c", "../../.."), ("d", "no//such/.")] {
        share.symlink(text, name).unwrap();
        assert_eq!(share.readlink(name).unwrap(), text);
        assert_eq!(std::fs::read_link(share.host.path(name)).unwrap().to_str(), Some(text));
    }
}

// symlink(2): permissions of a link are 0777 whatever the umask
#[apply(behaviour)]
fn a_symbolic_link_has_all_permissions(share: &Share) {
    let entry = share.symlink("f", "l").unwrap();
    assert_eq!(entry.attr.mode, S_IFLNK | 0o777);
}

// symlink(2): "ENAMETOOLONG  target or linkpath was too long": PATH_MAX is 4096 with its NUL
#[apply(behaviour)]
fn the_text_of_a_symbolic_link_has_at_most_4095_bytes(share: &Share) {
    let (fits, long) = ("t".repeat(4095), "t".repeat(4096));
    share.symlink(&fits, "l").unwrap();
    assert_eq!(share.readlink("l").unwrap(), fits);
    assert_eq!(share.symlink(&long, "m").map(drop), Err(ENAMETOOLONG));
}

// symlink(2): "ENOENT  ... target is the empty string"
#[apply(behaviour)]
fn a_symbolic_link_has_some_text(share: &Share) {
    assert_eq!(share.symlink("", "l").map(drop), Err(ENOENT));
}

// symlink(2): "EEXIST  linkpath already exists"
#[apply(behaviour)]
fn a_symbolic_link_is_not_made_where_something_is(share: &Share) {
    share.put("f", b"").unwrap();
    assert_eq!(share.symlink("x", "f").map(drop), Err(EEXIST));
}

// readlink(2): "EINVAL  The named file (i.e., the final filename component of pathname) is not a symbolic link"
#[apply(behaviour)]
fn only_a_symbolic_link_can_be_read_as_one(share: &Share) {
    share.put("f", b"").unwrap();
    share.mkdir("d", 0o755).unwrap();
    assert!(share.readlink("f").is_err() && share.readlink("d").is_err());
}

// link(2): "creates a new link (also known as a hard link) to an existing file"
#[apply(behaviour)]
fn a_hard_link_is_the_same_file(share: &Share) {
    let node = share.put("a", b"x").unwrap();
    share.mkdir("d", 0o755).unwrap();
    let entry = share.link("a", "d/b").unwrap();
    assert_eq!((entry.nodeid, entry.attr.nlink), (node, 2));
    assert_eq!(share.host.stat("a").ino, share.host.stat("d/b").ino);
}

// link(2): "If newpath exists, it will not be overwritten"; "EEXIST  newpath already exists"
#[apply(behaviour)]
fn a_hard_link_overwrites_nothing(share: &Share) {
    share.put("a", b"a").unwrap();
    share.put("b", b"b").unwrap();
    assert_eq!(share.link("a", "b").map(drop), Err(EEXIST));
    assert_eq!(share.get("b").unwrap(), b"b");
}

// link(2): "EPERM  oldpath is a directory"
#[apply(behaviour)]
fn a_directory_has_no_hard_links(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    assert_eq!(share.link("d", "e").map(drop), Err(EPERM));
}

// link(2): "By default, linkat(), does not dereference oldpath if it is a symbolic link"
#[apply(behaviour)]
fn a_hard_link_to_a_symbolic_link_is_one(share: &Share) {
    share.put("f", b"x").unwrap();
    share.symlink("f", "l").unwrap();
    let entry = share.link("l", "m").unwrap();
    assert_eq!(entry.attr.mode & S_IFMT, S_IFLNK);
    assert_eq!(share.readlink("m").unwrap(), "f");
}

// link(2): a FIFO is a file like any other
#[apply(behaviour)]
fn a_fifo_has_hard_links(share: &Share) {
    share.mknod("p", S_IFIFO | 0o600, 0).unwrap();
    assert_eq!(share.link("p", "q").unwrap().attr.nlink, 2);
}

// link(2): "ENOENT An attempt was made to link to a /proc/self/fd/NN file corresponding to a file that has been
// deleted"
#[apply(behaviour)]
fn a_file_without_names_gets_no_new_one(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    share.unlink("f").unwrap();
    assert_eq!(share.link(file.node, "g").map(drop), Err(ENOENT));
}

// link(2): "ENAMETOOLONG  oldpath or newpath was too long"
#[apply(behaviour)]
fn a_hard_link_has_a_name_of_at_most_255_bytes(share: &Share) {
    share.put("f", b"").unwrap();
    assert_eq!(share.link("f", "n".repeat(256).as_str()).map(drop), Err(ENAMETOOLONG));
    share.link("f", "n".repeat(255).as_str()).unwrap();
}

// link(2): "ENOTDIR  A component used as a directory in oldpath or newpath is not, in fact, a directory"
#[apply(behaviour)]
fn a_hard_link_is_not_made_below_a_file(share: &Share) {
    share.put("f", b"").unwrap();
    let file = share.put("g", b"").unwrap();
    assert_eq!(share.link("f", (file, "h")).map(drop), Err(ENOTDIR));
}

// inode(7): "ctime is changed by ... link count"
#[apply(behaviour)]
fn a_new_name_changes_the_time_of_change(share: &Share) {
    share.put("f", b"").unwrap();
    let before = share.host.stat("f").ctime;
    std::thread::sleep(std::time::Duration::from_millis(20));
    share.link("f", "g").unwrap();
    assert!(share.host.stat("f").ctime > before);
}
