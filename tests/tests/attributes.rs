//! GETATTR, STATX, SETATTR, ACCESS.

use std::time::{SystemTime, UNIX_EPOCH};

use libc::{F_OK, R_OK, STATX_BASIC_STATS, STATX_BTIME, W_OK, X_OK};
use postern_server::fuse::abi::SetattrIn;
use postern_tests::prelude::*;

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// The time of a file that was changed long ago.
fn age(share: &Share, path: &str) {
    let valid = SetattrValid::ATIME | SetattrValid::MTIME;
    share.setattr(path, &SetattrIn { valid, atime: 1000, mtime: 2000, ..Default::default() }).unwrap();
}

// stat(2): "S_IFDIR  0040000  directory"
#[apply(behaviour)]
fn the_root_is_a_directory(share: &Share) {
    let attr = share.getattr(ROOT_ID).unwrap();
    assert_eq!((attr.mode, attr.ino), (S_IFDIR | 0o777, share.host.stat("").ino));
}

// stat(2): "st_size  This field gives the size of the file (if it is a regular file or a symbolic link) in bytes"
#[apply(behaviour)]
fn what_the_host_writes_shows_in_the_size(share: &Share) {
    share.host.write("f", b"one");
    let node = share.lookup("f").unwrap().nodeid;
    std::fs::write(share.host.path("f"), b"one two").unwrap();
    assert_eq!(share.getattr(node).unwrap().size, 7);
}

// stat(2): "The size of a symbolic link is the length of the pathname it contains, without a terminating null byte"
#[apply(behaviour)]
fn a_symbolic_link_is_as_long_as_its_text(share: &Share) {
    share.host.symlink("somewhere", "l");
    assert_eq!(share.getattr("l").unwrap().size, 9);
}

// stat(2): "st_nlink  This field contains the number of hard links to the file"
#[apply(behaviour)]
fn a_directory_counts_links_as_the_host_does(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    share.mkdir("d/e", 0o755).unwrap();
    assert_eq!(u64::from(share.getattr("d").unwrap().nlink), share.host.stat("d").nlink);
}

// stat(2): "st_blocks  This may be smaller than st_size/512 when the file has holes"
#[apply(behaviour)]
fn a_sparse_file_has_few_blocks(share: &Share) {
    share.put("f", b"x").unwrap();
    share.truncate("f", 1 << 30).unwrap();
    let attr = share.getattr("f").unwrap();
    assert_eq!(attr.size, 1 << 30);
    assert!(attr.blocks < 100);
    assert_eq!(attr.blocks, share.host.stat("f").blocks);
}

// stat(2): "st_blksize  This field gives the "preferred" block size for efficient filesystem I/O"
#[apply(behaviour)]
fn a_block_size_is_given(share: &Share) {
    share.put("f", b"x").unwrap();
    assert!(share.getattr("f").unwrap().blksize >= 512);
}

// fstat(2): "is identical to stat(), except that the file about which information is to be retrieved is specified by
// the file descriptor"
#[apply(behaviour)]
fn attributes_of_an_open_file_are_those_of_its_node(share: &Share) {
    let file = share.create("f", O_RDWR, 0o640).unwrap();
    share.write(&file, 0, b"four").unwrap();
    let (by_node, by_file) = (share.getattr(file.node).unwrap(), share.fgetattr(&file).unwrap());
    assert_eq!((by_node.size, by_node.ino, by_node.mode), (by_file.size, by_file.ino, by_file.mode));
}

// unlink(2): "the file will remain in existence until the last file descriptor referring to it is closed"
#[apply(behaviour)]
fn an_open_file_without_a_name_has_attributes(share: &Share) {
    let file = share.create("f", O_RDWR, 0o640).unwrap();
    share.unlink("f").unwrap();
    share.write(&file, 0, b"four").unwrap();
    let attr = share.fgetattr(&file).unwrap();
    assert_eq!((attr.size, attr.nlink), (4, 0));
}

// statx(2): "stx_btime  The file's creation timestamp"
#[apply(behaviour)]
fn the_time_of_birth_is_shown(share: &Share) {
    share.host.write("f", b"x");
    let stat = share.statx("f", STATX_BASIC_STATS | STATX_BTIME).unwrap();
    let on_host = std::fs::metadata(share.host.path("f")).unwrap().created().unwrap();
    let on_host = on_host.duration_since(UNIX_EPOCH).unwrap();
    assert_ne!(stat.mask & STATX_BTIME, 0);
    assert_eq!((stat.btime.sec, stat.btime.nsec), (on_host.as_secs() as i64, on_host.subsec_nanos()));
}

// statx(2): "STATX_BASIC_STATS  [All of the above]"
#[apply(behaviour)]
fn statx_shows_what_stat_shows(share: &Share) {
    share.put("f", b"hello").unwrap();
    let (statx, attr) = (share.statx("f", STATX_BASIC_STATS).unwrap(), share.getattr("f").unwrap());
    assert_eq!(statx.mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
    assert_eq!((statx.ino, statx.size, statx.blocks), (attr.ino, attr.size, attr.blocks));
    assert_eq!((u32::from(statx.mode), statx.nlink), (attr.mode, attr.nlink));
    assert_eq!((statx.uid, statx.gid), (attr.uid, attr.gid));
    assert_eq!((statx.mtime.sec as u64, statx.mtime.nsec), (attr.mtime, attr.mtimensec));
}

// chmod(2): "change a file's mode bits"
#[apply(behaviour)]
fn chmod_changes_the_mode_on_the_host(share: &Share) {
    share.put("f", b"").unwrap();
    for mode in [0o000, 0o777, 0o1755, 0o640] {
        assert_eq!(share.chmod("f", mode).unwrap().mode, S_IFREG | mode);
        assert_eq!(share.host.stat("f").mode, S_IFREG | mode);
    }
}

// chmod(2): only the mode bits change; the kind of a file never does
#[apply(behaviour)]
fn chmod_keeps_the_kind(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    share.chmod("d", S_IFREG | 0o700).unwrap();
    assert_eq!(share.host.stat("d").mode, S_IFDIR | 0o700);
}

// fchmod(2): "changes the mode of the file referred to by the open file descriptor"
#[apply(behaviour)]
fn an_open_file_without_a_name_can_be_chmodded(share: &Share) {
    let file = share.create("f", O_RDONLY, 0o644).unwrap();
    share.unlink("f").unwrap();
    let valid = SetattrValid::MODE | SetattrValid::FH;
    let arg = SetattrIn { valid, mode: 0o600, fh: file.fh, ..Default::default() };
    assert_eq!(share.setattr(file.node, &arg).unwrap().mode & 0o7777, 0o600);
}

// fchmodat(2): "AT_SYMLINK_NOFOLLOW  If pathname is a symbolic link, do not dereference it"
#[apply(behaviour)]
fn chmod_of_a_symbolic_link_leaves_its_target_alone(share: &Share) {
    share.put("f", b"").unwrap();
    share.symlink("f", "l").unwrap();
    assert!(share.chmod("l", 0o600).is_err());
    assert_eq!(share.host.stat("f").perm(), 0o644);
}

// chown(2): "change the owner and group of a file"
#[apply(behaviour)]
fn chown_changes_owner_and_group_on_the_host(share: &Share) {
    share.put("f", b"").unwrap();
    let attr = share.chown("f", Some(1000), Some(2000)).unwrap();
    assert_eq!((attr.uid, attr.gid), (1000, 2000));
    assert_eq!(share.host.stat("f").owner, ids(1000, 2000));
}

// chown(2): "If the owner or group is specified as -1, then that ID is not changed"
#[apply(behaviour)]
fn chown_of_the_owner_keeps_the_group(share: &Share) {
    share.as_user(1000).put("f", b"").unwrap();
    share.chown("f", Some(7), None).unwrap();
    assert_eq!(share.host.stat("f").owner, ids(7, 1000));
    share.chown("f", None, Some(8)).unwrap();
    assert_eq!(share.host.stat("f").owner, ids(7, 8));
}

// lchown(2): "is like chown(), but does not dereference symbolic links"
#[apply(behaviour)]
fn chown_of_a_symbolic_link_leaves_its_target_alone(share: &Share) {
    share.put("f", b"").unwrap();
    share.symlink("f", "l").unwrap();
    share.chown("l", Some(1000), Some(1000)).unwrap();
    assert_eq!((share.host.stat("l").owner, share.host.stat("f").owner), (ids(1000, 1000), ids(0, 0)));
}

// truncate(2): "If the file previously was larger than this size, the extra data is lost"
#[apply(behaviour)]
fn a_file_can_be_cut(share: &Share) {
    share.put("f", b"hello").unwrap();
    assert_eq!(share.truncate("f", 2).unwrap().size, 2);
    assert_eq!(share.host.read("f"), b"he");
}

// truncate(2): "If the file previously was shorter, it is extended, and the extended part reads as null bytes ('\0')"
#[apply(behaviour)]
fn a_file_can_be_extended_by_zeros(share: &Share) {
    share.put("f", b"hello").unwrap();
    assert_eq!(share.truncate("f", 8).unwrap().size, 8);
    assert_eq!(share.host.read("f"), b"hello\0\0\0");
}

// ftruncate(2): "the file must be open for writing"; its name does not matter
#[apply(behaviour)]
fn an_open_file_without_a_name_can_be_cut(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    share.write(&file, 0, b"hello").unwrap();
    share.unlink("f").unwrap();
    assert_eq!(share.ftruncate(&file, 2).unwrap().size, 2);
    assert_eq!(share.read(&file, 0, 10).unwrap(), b"he");
}

// truncate(2): "EISDIR  The named file is a directory"
#[apply(behaviour)]
fn a_directory_cannot_be_cut(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    assert_eq!(share.truncate("d", 0).map(|a| a.size), Err(EISDIR));
}

// truncate(2): "EFBIG  The argument length is larger than the maximum file size"
#[apply(behaviour)]
fn a_file_cannot_be_larger_than_the_file_system_can_hold(share: &Share) {
    share.put("f", b"x").unwrap();
    assert_eq!(share.truncate("f", i64::MAX as u64).map(|a| a.size), Err(EFBIG));
    assert_eq!(share.host.stat("f").size, 1);
}

// truncate(2): "EINVAL  The argument length is negative"
#[apply(behaviour)]
fn a_file_cannot_have_a_negative_size(share: &Share) {
    share.put("f", b"x").unwrap();
    assert!(share.truncate("f", u64::MAX).is_err());
    assert_eq!(share.host.stat("f").size, 1);
}

// utimensat(2): "update the timestamps of a file with nanosecond precision"
#[apply(behaviour)]
fn times_are_set_to_the_nanosecond(share: &Share) {
    share.put("f", b"x").unwrap();
    let arg = SetattrIn {
        valid: SetattrValid::ATIME | SetattrValid::MTIME,
        atime: 1_000_000_001,
        atimensec: 123_456_789,
        mtime: 1_500_000_002,
        mtimensec: 987_654_321,
        ..Default::default()
    };
    let attr = share.setattr("f", &arg).unwrap();
    assert_eq!((attr.atime, attr.atimensec), (1_000_000_001, 123_456_789));
    let stat = share.host.stat("f");
    assert_eq!((stat.atime, stat.mtime), ((1_000_000_001, 123_456_789), (1_500_000_002, 987_654_321)));
}

// utimensat(2): "UTIME_OMIT  the corresponding file timestamp is left unchanged"
#[apply(behaviour)]
fn one_time_is_set_without_the_other(share: &Share) {
    share.put("f", b"x").unwrap();
    age(share, "f");
    share.setattr("f", &SetattrIn { valid: SetattrValid::MTIME, mtime: 5, ..Default::default() }).unwrap();
    assert_eq!((share.host.stat("f").atime, share.host.stat("f").mtime), ((1000, 0), (5, 0)));
    share.setattr("f", &SetattrIn { valid: SetattrValid::ATIME, atime: 6, ..Default::default() }).unwrap();
    assert_eq!((share.host.stat("f").atime, share.host.stat("f").mtime), ((6, 0), (5, 0)));
}

// utimensat(2): "UTIME_NOW  the corresponding file timestamp is set to the current time"
#[apply(behaviour)]
fn times_are_set_to_now(share: &Share) {
    share.put("f", b"x").unwrap();
    age(share, "f");
    let valid = SetattrValid::ATIME | SetattrValid::ATIME_NOW | SetattrValid::MTIME | SetattrValid::MTIME_NOW;
    share.setattr("f", &SetattrIn { valid, ..Default::default() }).unwrap();
    let stat = share.host.stat("f");
    assert!((now() - stat.atime.0).abs() < 60 && (now() - stat.mtime.0).abs() < 60, "{stat:?}");
}

// time(7): times before the Epoch are negative
#[apply(behaviour)]
fn a_time_before_1970_is_kept(share: &Share) {
    share.put("f", b"x").unwrap();
    let mtime = (-86_400_i64) as u64;
    let arg = SetattrIn { valid: SetattrValid::MTIME, mtime, mtimensec: 7, ..Default::default() };
    assert_eq!(share.setattr("f", &arg).unwrap().mtime, mtime);
    assert_eq!(share.host.stat("f").mtime, (-86_400, 7));
}

// inode(7): time stamps beyond 2038 are kept where the file system can
#[apply(behaviour)]
fn a_time_after_2038_is_kept(share: &Share) {
    share.put("f", b"x").unwrap();
    let arg = SetattrIn { valid: SetattrValid::MTIME, mtime: 1 << 33, ..Default::default() };
    assert_eq!(share.setattr("f", &arg).unwrap().mtime, 1 << 33);
    assert_eq!(share.host.stat("f").mtime, (1 << 33, 0));
}

// utimensat(2): symbolic links have times of their own with AT_SYMLINK_NOFOLLOW
#[apply(behaviour)]
fn times_of_a_symbolic_link_are_its_own(share: &Share) {
    share.put("f", b"").unwrap();
    share.symlink("f", "l").unwrap();
    age(share, "l");
    assert_eq!(share.host.stat("l").mtime, (2000, 0));
    assert_ne!(share.host.stat("f").mtime, (2000, 0));
}

// inode(7): "Last status change timestamp (ctime)  ...is changed by writing or by setting inode information"
#[apply(behaviour)]
fn setting_times_changes_the_time_of_change(share: &Share) {
    share.put("f", b"x").unwrap();
    let before = share.host.stat("f").ctime;
    std::thread::sleep(std::time::Duration::from_millis(20));
    age(share, "f");
    assert!(share.host.stat("f").ctime > before);
}

// inode(7): "The file's last modification timestamp (mtime) ... is changed by file modifications"
#[apply(behaviour)]
fn writing_changes_the_time_of_modification(share: &Share) {
    share.put("f", b"x").unwrap();
    age(share, "f");
    let file = share.open("f", O_WRONLY).unwrap();
    share.write(&file, 0, b"y").unwrap();
    assert!((now() - share.host.stat("f").mtime.0).abs() < 60);
}

// inode(7): "mtime of a directory is changed by the creation or deletion of files in that directory"
#[apply(behaviour)]
fn making_or_removing_a_name_changes_the_time_of_its_directory(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    age(share, "d");
    share.put("d/f", b"").unwrap();
    assert!((now() - share.host.stat("d").mtime.0).abs() < 60);
    age(share, "d");
    share.unlink("d/f").unwrap();
    assert!((now() - share.host.stat("d").mtime.0).abs() < 60);
}

// chmod(2), chown(2), truncate(2), utimensat(2): one SETATTR may carry them all
#[apply(behaviour)]
fn all_attributes_are_set_at_once(share: &Share) {
    share.put("f", b"hello").unwrap();
    let arg = SetattrIn {
        valid: SetattrValid::MODE
            | SetattrValid::UID
            | SetattrValid::GID
            | SetattrValid::SIZE
            | SetattrValid::ATIME
            | SetattrValid::MTIME,
        mode: 0o604,
        uid: 11,
        gid: 12,
        size: 3,
        atime: 13,
        mtime: 14,
        ..Default::default()
    };
    share.setattr("f", &arg).unwrap();
    let stat = share.host.stat("f");
    assert_eq!((stat.perm(), stat.owner, stat.size), (0o604, ids(11, 12), 3));
    assert_eq!((stat.atime, stat.mtime), ((13, 0), (14, 0)));
}

// fuse(4): with default_permissions the guest's kernel has checked already who may change attributes
#[apply(behaviour)]
fn the_server_leaves_permission_to_the_guest(share: &Share) {
    share.put("f", b"x").unwrap();
    let user = share.as_user(1000);
    assert_eq!(user.chmod("f", 0o600).unwrap().mode, S_IFREG | 0o600);
    user.truncate("f", 0).unwrap();
    let file = user.open("f", O_RDWR).unwrap();
    user.write(&file, 0, b"y").unwrap();
}

// access(2): "EACCES  The requested access would be denied to the file"
#[apply(behaviour)]
fn access_is_checked_for_the_caller(share: &Share) {
    share.put("f", b"x").unwrap();
    share.chmod("f", 0o640).unwrap();
    share.chown("f", Some(1000), Some(1000)).unwrap();
    assert_eq!(share.as_user(1000).access("f", R_OK | W_OK), Ok(()));
    assert_eq!(share.as_user(1000).access("f", X_OK), Err(EACCES));
    assert_eq!(share.as_ids(7, 1000).access("f", R_OK), Ok(()));
    assert_eq!(share.as_ids(7, 1000).access("f", W_OK), Err(EACCES));
    assert_eq!(share.as_user(7).access("f", R_OK), Err(EACCES));
    assert_eq!(share.as_user(7).access("f", F_OK), Ok(()));
}

// access(2): "a superuser ... execute permission is granted ... if execute permission is enabled for any of the file
// owner, group, or other"
#[apply(behaviour)]
fn root_may_access_all_but_what_nobody_may_execute(share: &Share) {
    share.put("f", b"x").unwrap();
    share.chmod("f", 0).unwrap();
    assert_eq!(share.access("f", R_OK | W_OK), Ok(()));
    assert_eq!(share.access("f", X_OK), Err(EACCES));
    share.chmod("f", 0o001).unwrap();
    assert_eq!(share.access("f", X_OK), Ok(()));
}

// FUSE: entry_valid and attr_valid say for how long the guest may believe what it was told
#[apply(virtiofs)]
fn the_cache_policy_decides_how_long_names_are_believed(on: Kind) {
    let valid = |cache| {
        let share = on.setup().cache(cache).serve();
        let entry = share.mkdir("d", 0o755).unwrap();
        assert_eq!(entry.entry_valid, entry.attr_valid);
        entry.entry_valid
    };
    assert_eq!([valid(Cache::Never), valid(Cache::Auto), valid(Cache::Always)], [0, 1, 86_400]);
}
