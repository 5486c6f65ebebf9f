//! RENAME, RENAME2.

use libc::{RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT};
use postern_tests::prelude::*;

// rename(2): "renames a file, moving it between directories if required"
#[apply(behaviour)]
fn a_file_moves_between_directories(share: &Share) {
    share.mkdir("a", 0o755).unwrap();
    share.mkdir("b", 0o755).unwrap();
    let node = share.put("a/f", b"x").unwrap();
    share.rename("a/f", "b/g").unwrap();
    assert_eq!(share.lookup("b/g").unwrap().nodeid, node);
    assert_eq!(share.lookup("a/f").map(drop), Err(ENOENT));
    assert_eq!((share.host.list("a"), share.host.read("b/g")), (vec![], b"x".to_vec()));
}

// rename(2): "Any other hard links to the file (as created using link(2)) are unaffected"
#[apply(behaviour)]
fn other_names_of_a_renamed_file_stay(share: &Share) {
    share.put("a", b"x").unwrap();
    share.link("a", "b").unwrap();
    share.rename("a", "c").unwrap();
    assert_eq!(share.host.list(""), ["b", "c"]);
}

// rename(2): "Open file descriptors for oldpath are also unaffected"
#[apply(behaviour)]
fn an_open_file_survives_its_renaming(share: &Share) {
    let file = share.create("a", O_RDWR, 0o644).unwrap();
    share.rename("a", "b").unwrap();
    share.write(&file, 0, b"x").unwrap();
    assert_eq!(share.host.read("b"), b"x");
}

// rename(2): "If newpath already exists, it will be atomically replaced"
#[apply(behaviour)]
fn an_existing_file_is_replaced(share: &Share) {
    let node = share.put("new", b"new").unwrap();
    let old = share.create("old", O_RDWR, 0o644).unwrap();
    share.write(&old, 0, b"old").unwrap();
    share.rename("new", "old").unwrap();
    assert_eq!(share.lookup("old").unwrap().nodeid, node);
    assert_eq!(share.get("old").unwrap(), b"new");
    assert_eq!(share.read(&old, 0, 10).unwrap(), b"old");
    assert_eq!(share.fgetattr(&old).unwrap().nlink, 0);
}

// rename(2): "If oldpath and newpath are existing hard links referring to the same file, then rename() does nothing,
// and returns a success status"
#[apply(behaviour)]
fn renaming_one_name_of_a_file_to_another_does_nothing(share: &Share) {
    share.put("a", b"x").unwrap();
    share.link("a", "b").unwrap();
    share.rename("a", "b").unwrap();
    assert_eq!(share.host.list(""), ["a", "b"]);
}

// rename(2): "oldpath can specify a directory. In this case, newpath must either not exist, or it must specify an empty
// directory"
#[apply(behaviour)]
fn a_directory_replaces_an_empty_directory(share: &Share) {
    share.mkdir("a", 0o755).unwrap();
    let node = share.put("a/f", b"x").unwrap();
    share.mkdir("b", 0o755).unwrap();
    share.rename("a", "b").unwrap();
    assert_eq!(share.lookup("b/f").unwrap().nodeid, node);
    assert_eq!(share.host.list(""), ["b"]);
}

// rename(2): "ENOTEMPTY or EEXIST  newpath is a nonempty directory"
#[apply(behaviour)]
fn a_directory_that_is_not_empty_is_not_replaced(share: &Share) {
    share.mkdir("a", 0o755).unwrap();
    share.mkdir("b", 0o755).unwrap();
    share.put("b/f", b"").unwrap();
    assert_eq!(share.rename("a", "b"), Err(ENOTEMPTY));
}

// rename(2): "ENOTDIR  oldpath is a directory, and newpath exists but is not a directory"
#[apply(behaviour)]
fn a_directory_does_not_replace_a_file(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    share.put("f", b"").unwrap();
    assert_eq!(share.rename("d", "f"), Err(ENOTDIR));
}

// rename(2): "EISDIR  newpath is an existing directory, but oldpath is not a directory"
#[apply(behaviour)]
fn a_file_does_not_replace_a_directory(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    share.put("f", b"").unwrap();
    assert_eq!(share.rename("f", "d"), Err(EISDIR));
}

// rename(2): "EINVAL  an attempt was made to make a directory a subdirectory of itself"
#[apply(behaviour)]
fn a_directory_does_not_move_into_itself(share: &Share) {
    share.mkdir("a", 0o755).unwrap();
    share.mkdir("a/b", 0o755).unwrap();
    assert_eq!(share.rename("a", "a/b/c"), Err(EINVAL));
    assert_eq!(share.rename("a", "a/c"), Err(EINVAL));
}

// rename(2): "ENOENT  The link named by oldpath does not exist"
#[apply(behaviour)]
fn a_missing_name_is_not_renamed(share: &Share) {
    assert_eq!(share.rename("none", "new"), Err(ENOENT));
}

// rename(2): "If oldpath refers to a symbolic link, the link is renamed; if newpath refers to a symbolic link, the link
// will be overwritten"
#[apply(behaviour)]
fn a_symbolic_link_is_renamed_itself(share: &Share) {
    share.put("f", b"x").unwrap();
    share.symlink("f", "l").unwrap();
    share.symlink("elsewhere", "m").unwrap();
    share.rename("l", "m").unwrap();
    assert_eq!(share.readlink("m").unwrap(), "f");
    assert_eq!(share.host.list(""), ["f", "m"]);
}

// rename(2): "ENAMETOOLONG  oldpath or newpath was too long"
#[apply(behaviour)]
fn a_file_is_not_renamed_to_a_name_too_long(share: &Share) {
    share.put("f", b"").unwrap();
    assert_eq!(share.rename("f", "n".repeat(256).as_str()), Err(ENAMETOOLONG));
    share.rename("f", "n".repeat(255).as_str()).unwrap();
}

// rename(2): nodes below a directory are the same after it has moved
#[apply(behaviour)]
fn nodes_below_a_moved_directory_stay(share: &Share) {
    share.mkdir("a", 0o755).unwrap();
    share.mkdir("a/b", 0o755).unwrap();
    let node = share.put("a/b/f", b"x").unwrap();
    share.mkdir("c", 0o755).unwrap();
    share.rename("a/b", "c/d").unwrap();
    assert_eq!(share.lookup("c/d/f").unwrap().nodeid, node);
    assert_eq!(share.getattr(node).unwrap().size, 1);
}

// rename(2): "RENAME_NOREPLACE  Don't overwrite newpath of the rename. Return an error if newpath already exists"
#[apply(behaviour)]
fn noreplace_does_not_replace(share: &Share) {
    share.put("a", b"a").unwrap();
    share.put("b", b"b").unwrap();
    assert_eq!(share.rename2("a", "b", RENAME_NOREPLACE), Err(EEXIST));
    share.rename2("a", "c", RENAME_NOREPLACE).unwrap();
    assert_eq!((share.host.read("b"), share.host.read("c")), (b"b".to_vec(), b"a".to_vec()));
}

// rename(2): "RENAME_EXCHANGE Atomically exchange oldpath and newpath. Both pathnames must exist but may be of
// different types"
#[apply(behaviour)]
fn exchange_swaps_a_file_and_a_directory(share: &Share) {
    let file = share.put("f", b"x").unwrap();
    let dir = share.mkdir("d", 0o755).unwrap().nodeid;
    share.put("d/g", b"y").unwrap();
    share.rename2("f", "d", RENAME_EXCHANGE).unwrap();
    assert_eq!((share.lookup("d").unwrap().nodeid, share.lookup("f").unwrap().nodeid), (file, dir));
    assert_eq!((share.host.read("d"), share.host.read("f/g")), (b"x".to_vec(), b"y".to_vec()));
}

// rename(2): "ENOENT  ... RENAME_EXCHANGE was specified in flags and newpath does not exist"
#[apply(behaviour)]
fn exchange_needs_both_names(share: &Share) {
    share.put("f", b"x").unwrap();
    assert_eq!(share.rename2("f", "none", RENAME_EXCHANGE), Err(ENOENT));
}

// rename(2): "RENAME_WHITEOUT creates a "whiteout" object at the source of the rename at the same time as performing
// the rename"
#[apply(behaviour)]
fn whiteout_leaves_a_whiteout(share: &Share) {
    share.put("f", b"x").unwrap();
    share.rename2("f", "g", RENAME_WHITEOUT).unwrap();
    let left = share.lookup("f").unwrap().attr;
    assert_eq!((left.mode & S_IFMT, left.rdev), (S_IFCHR, 0));
    assert_eq!(share.host.read("g"), b"x");
}

// rename(2): "EINVAL Both RENAME_NOREPLACE and RENAME_EXCHANGE were specified in flags"; "An invalid flag was specified
// in flags"
#[apply(behaviour)]
fn contradictory_and_unknown_flags_are_invalid(share: &Share) {
    share.put("a", b"").unwrap();
    share.put("b", b"").unwrap();
    assert_eq!(share.rename2("a", "b", RENAME_NOREPLACE | RENAME_EXCHANGE), Err(EINVAL));
    assert_eq!(share.rename2("a", "b", 1 << 20), Err(EINVAL));
}
