//! UNLINK, RMDIR.

use postern_tests::prelude::*;

// unlink(2): "deletes a name from the filesystem"
#[apply(behaviour)]
fn an_unlinked_name_is_gone(share: &Share) {
    share.put("f", b"x").unwrap();
    share.unlink("f").unwrap();
    assert!(!share.host.exists("f"));
    assert_eq!(share.lookup("f").map(drop), Err(ENOENT));
}

// unlink(2): "If the name was the last link to a file but any processes still have the file open, the file will remain
// in existence until the last file descriptor referring to it is closed"
#[apply(behaviour)]
fn an_open_file_survives_its_last_name(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    share.write(&file, 0, b"hello").unwrap();
    share.unlink("f").unwrap();
    assert_eq!(share.read(&file, 0, 10).unwrap(), b"hello");
    assert_eq!(share.write(&file, 5, b"!").unwrap(), 1);
    assert_eq!(share.fgetattr(&file).unwrap().nlink, 0);
    share.release(&file).unwrap();
}

// unlink(2): one of several names; the file stays
#[apply(behaviour)]
fn a_file_keeps_its_other_names(share: &Share) {
    let node = share.put("a", b"x").unwrap();
    share.link("a", "b").unwrap();
    share.unlink("a").unwrap();
    assert_eq!(share.getattr(node).unwrap().nlink, 1);
    assert_eq!(share.get("b").unwrap(), b"x");
}

// unlink(2): "If the name referred to a symbolic link, the link is removed"
#[apply(behaviour)]
fn a_symbolic_link_is_unlinked_itself(share: &Share) {
    share.put("f", b"").unwrap();
    share.symlink("f", "l").unwrap();
    share.unlink("l").unwrap();
    assert_eq!(share.host.list(""), ["f"]);
}

// unlink(2): "If the name referred to a socket, FIFO, or device, the name for it is removed"
#[apply(behaviour)]
fn a_fifo_is_unlinked(share: &Share) {
    share.mknod("p", S_IFIFO | 0o600, 0).unwrap();
    share.unlink("p").unwrap();
    assert!(!share.host.exists("p"));
}

// unlink(2): "EISDIR  pathname refers to a directory. (This is the non-POSIX value returned by Linux ...)"
#[apply(behaviour)]
fn a_directory_is_not_unlinked(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    assert_eq!(share.unlink("d"), Err(EISDIR));
    assert!(share.host.exists("d"));
}

// unlink(2): "ENOENT  A component in pathname does not exist"
#[apply(behaviour)]
fn a_missing_name_is_not_unlinked(share: &Share) {
    assert_eq!(share.unlink("none"), Err(ENOENT));
}

// unlink(2): "ENOTDIR  A component used as a directory in pathname is not, in fact, a directory"
#[apply(behaviour)]
fn nothing_is_removed_below_a_file(share: &Share) {
    let file = share.put("f", b"").unwrap();
    assert_eq!(share.unlink((file, "x")), Err(ENOTDIR));
    assert_eq!(share.rmdir((file, "x")), Err(ENOTDIR));
}

// unlink(2): "ENAMETOOLONG  pathname was too long"
#[apply(behaviour)]
fn a_name_too_long_is_not_removed(share: &Share) {
    let long = "n".repeat(256);
    assert_eq!(share.unlink(long.as_str()), Err(ENAMETOOLONG));
    assert_eq!(share.rmdir(long.as_str()), Err(ENAMETOOLONG));
}

// rmdir(2): "deletes a directory, which must be empty"
#[apply(behaviour)]
fn an_empty_directory_is_removed(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    share.rmdir("d").unwrap();
    assert!(!share.host.exists("d"));
}

// rmdir(2): "ENOTEMPTY  pathname contains entries other than . and .."
#[apply(behaviour)]
fn a_directory_that_is_not_empty_stays(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    share.put("d/f", b"").unwrap();
    assert_eq!(share.rmdir("d"), Err(ENOTEMPTY));
}

// rmdir(2): "ENOTDIR  pathname, or a component used as a directory in pathname, is not, in fact, a directory"
#[apply(behaviour)]
fn a_file_is_not_removed_as_a_directory(share: &Share) {
    share.put("f", b"").unwrap();
    share.mkdir("d", 0o755).unwrap();
    share.symlink("d", "l").unwrap();
    assert_eq!((share.rmdir("f"), share.rmdir("l")), (Err(ENOTDIR), Err(ENOTDIR)));
}

// rmdir(2): "ENOENT  A directory component in pathname does not exist"
#[apply(behaviour)]
fn a_missing_directory_is_not_removed(share: &Share) {
    assert_eq!(share.rmdir("none"), Err(ENOENT));
}

// rmdir(2), unlink(2): a directory in use may be removed; nothing is found in it afterwards
#[apply(behaviour)]
fn a_removed_directory_in_use_is_empty(share: &Share) {
    let dir = share.mkdir("d", 0o755).unwrap().nodeid;
    let open = share.opendir(dir).unwrap();
    share.rmdir("d").unwrap();
    assert_eq!(share.lookup((dir, "x")).map(drop), Err(ENOENT));
    assert!(share.entries(&open).unwrap().iter().all(|entry| entry.name.starts_with('.')));
    assert_eq!(share.getattr(dir).unwrap().nlink, 0);
}

// unlink(2): "the space it was using is made available for reuse"; the name too
#[apply(behaviour)]
fn a_name_can_be_used_again_while_the_old_file_is_open(share: &Share) {
    let old = share.create("f", O_RDWR, 0o644).unwrap();
    share.write(&old, 0, b"old").unwrap();
    share.unlink("f").unwrap();
    let new = share.create("f", O_RDWR | O_EXCL, 0o644).unwrap();
    share.write(&new, 0, b"newer").unwrap();
    assert_ne!(old.node, new.node);
    assert_eq!(share.read(&old, 0, 10).unwrap(), b"old");
    assert_eq!(share.get("f").unwrap(), b"newer");
}

// capabilities(7): "CAP_DAC_OVERRIDE  Bypass file read, write, and execute permission checks"; the guest has checked
#[apply(behaviour)]
fn a_name_in_a_closed_directory_of_a_user_is_removed(share: &Share) {
    share.as_user(1000).mkdir("d", 0o700).unwrap();
    share.as_user(1000).put("d/f", b"").unwrap();
    share.chmod("d", 0o500).unwrap();
    share.unlink("d/f").unwrap();
    share.rmdir("d").unwrap();
}
