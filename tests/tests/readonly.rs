//! `--readonly`: "prevent the guest from making modifications to the filesystem"; EROFS.

use postern_server::fuse::abi::SetattrIn;
use postern_tests::prelude::*;

/// A read-only share with something in it.
fn serve(on: Kind) -> Share {
    let share = on.setup().readonly().serve();
    share.host.write("f", b"hello");
    share.host.mkdir("d");
    share.host.symlink("f", "l");
    share.host.setxattr("f", "user.a", b"x");
    share
}

// mount(2): "MS_RDONLY  Mount filesystem read-only"
#[apply(behaviour)]
fn a_read_only_share_is_read(on: Kind) {
    let share = serve(on);
    assert_eq!(share.get("f").unwrap(), b"hello");
    assert_eq!(share.list("").unwrap(), ["d", "f", "l"]);
    assert_eq!(share.readlink("l").unwrap(), "f");
    assert_eq!(share.getxattr("f", "user.a").unwrap(), b"x");
    share.statfs(ROOT_ID).unwrap();
}

// open(2): "EROFS  pathname refers to a file on a read-only filesystem and write access was requested"
#[apply(behaviour)]
fn no_file_of_a_read_only_share_is_opened_for_writing(on: Kind) {
    let share = serve(on);
    for flags in [O_WRONLY, O_RDWR, O_WRONLY | O_APPEND, O_RDONLY | O_TRUNC, O_RDWR | O_TRUNC] {
        assert_eq!(share.open("f", flags), Err(EROFS), "{flags:o}");
    }
    assert_eq!(share.create("f", O_WRONLY, 0o644), Err(EROFS));
    assert_eq!(share.host.read("f"), b"hello");
}

// mkdir(2), rename(2), unlink(2), ...: "EROFS  pathname refers to a file on a read-only filesystem"
#[apply(behaviour)]
fn no_name_of_a_read_only_share_is_made_or_removed(on: Kind) {
    let share = serve(on);
    assert_eq!(share.create("g", O_RDWR, 0o644), Err(EROFS));
    assert_eq!(share.mkdir("e", 0o755).map(drop), Err(EROFS));
    assert_eq!(share.mknod("p", S_IFIFO | 0o644, 0).map(drop), Err(EROFS));
    assert_eq!(share.symlink("x", "m").map(drop), Err(EROFS));
    assert_eq!(share.link("f", "g").map(drop), Err(EROFS));
    assert_eq!(share.unlink("f"), Err(EROFS));
    assert_eq!(share.rmdir("d"), Err(EROFS));
    assert_eq!(share.rename("f", "g"), Err(EROFS));
    assert_eq!(share.host.list(""), ["d", "f", "l"]);
}

// renameat2(2): "RENAME_EXCHANGE", on a read-only share
#[apply(behaviour)]
fn no_names_of_a_read_only_share_are_exchanged(on: Kind) {
    let share = serve(on);
    assert_eq!(share.rename2("f", "d", libc::RENAME_EXCHANGE), Err(EROFS));
    assert_eq!(share.host.stat("d").kind(), S_IFDIR);
}

// open(2): O_TMPFILE makes a file, too
#[apply(behaviour)]
fn no_temporary_file_is_made_on_a_read_only_share(on: Kind) {
    assert_eq!(serve(on).tmpfile("", O_RDWR, 0o644), Err(EROFS));
}

// chmod(2), chown(2), truncate(2), utimensat(2): "EROFS"
#[apply(behaviour)]
fn no_attribute_of_a_read_only_share_changes(on: Kind) {
    let share = serve(on);
    let before = share.host.stat("f");
    assert_eq!(share.chmod("f", 0o600).map(drop), Err(EROFS));
    assert_eq!(share.chown("f", Some(1), Some(1)).map(drop), Err(EROFS));
    assert_eq!(share.truncate("f", 0).map(drop), Err(EROFS));
    let times = SetattrIn { valid: SetattrValid::MTIME, mtime: 1, ..Default::default() };
    assert_eq!(share.setattr("f", &times).map(drop), Err(EROFS));
    assert_eq!(share.host.stat("f"), before);
}

// setxattr(2), removexattr(2): "EROFS"
#[apply(behaviour)]
fn no_extended_attribute_of_a_read_only_share_changes(on: Kind) {
    let share = serve(on);
    assert_eq!(share.setxattr("f", "user.b", b"y", 0), Err(EROFS));
    assert_eq!(share.removexattr("f", "user.a"), Err(EROFS));
    assert_eq!(share.listxattr("f").unwrap(), ["user.a"]);
}

// open(2): a file open for reading stays that, whatever is asked of it
#[apply(behaviour)]
fn an_open_file_of_a_read_only_share_is_not_changed(on: Kind) {
    let share = serve(on);
    let file = share.open("f", O_RDONLY).unwrap();
    let before = share.host.stat("f");
    assert!(share.write(&file, 0, b"J").is_err());
    assert!(share.ftruncate(&file, 0).is_err());
    assert_eq!((share.host.stat("f"), share.host.read("f")), (before, b"hello".to_vec()));
}

// open(2): a file open for reading stays that, by whatever other request
#[apply(behaviour)]
fn an_open_file_of_a_read_only_share_is_not_changed_otherwise(on: Kind) {
    let share = serve(on);
    let file = share.open("f", O_RDONLY).unwrap();
    let before = share.host.stat("f");
    assert!(share.fallocate(&file, 0, 0, 100).is_err());
    assert!(share.copy_file_range((&file, 0), (&file, 5), 1).is_err());
    assert!(share.ioctl(&file, libc::FS_IOC_SETFLAGS, &0x40_u32.to_le_bytes(), 0).is_err());
    assert_eq!((share.host.stat("f"), share.host.read("f")), (before, b"hello".to_vec()));
}

// statvfs(3): access times count as modifications: a read-only share's do not change
#[apply(behaviour)]
fn reading_a_read_only_share_leaves_no_trace(on: Kind) {
    let share = serve(on);
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1);
    std::fs::File::open(share.host.path("f")).unwrap().set_times(std::fs::FileTimes::new().set_accessed(old)).unwrap();
    let before = share.host.stat("f");
    share.get("f").unwrap();
    assert_eq!(share.host.stat("f"), before);
}

// open(2): O_APPEND is about writing; a descriptor for reading may have it
#[apply(behaviour)]
fn a_file_is_opened_for_reading_whatever_else_its_flags_say(on: Kind) {
    let share = serve(on);
    for flag in [O_APPEND, libc::O_SYNC, libc::O_DSYNC, libc::O_NOATIME, libc::O_NONBLOCK] {
        let file = share.open("f", O_RDONLY | flag).unwrap();
        assert_eq!(share.read(&file, 0, 10).unwrap(), b"hello", "{flag:o}");
        share.release(&file).unwrap();
    }
}
