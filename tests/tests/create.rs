//! CREATE, MKDIR, MKNOD, TMPFILE.

use postern_tests::prelude::*;

// open(2): "O_CREAT  If pathname does not exist, create it as a regular file"
#[apply(behaviour)]
fn a_created_file_is_open(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    assert_eq!(share.write(&file, 0, b"hello").unwrap(), 5);
    assert_eq!(share.read(&file, 0, 10).unwrap(), b"hello");
    assert_eq!(share.lookup("f").unwrap().nodeid, file.node);
    assert_eq!(share.host.read("f"), b"hello");
}

// open(2): "The effective mode is modified by the process's umask in the usual way: ... the mode of the created file is
// (mode & ~umask)"
#[apply(behaviour)]
fn the_umask_takes_bits_from_a_new_file(share: &Share) {
    share.with_umask(0o027).create("f", O_RDWR, 0o666).unwrap();
    share.with_umask(0).create("g", O_RDWR, 0o666).unwrap();
    assert_eq!((share.host.stat("f").perm(), share.host.stat("g").perm()), (0o640, 0o666));
}

// mkdir(2): "the mode of the created directory is (mode & ~umask & 0777)"
#[apply(behaviour)]
fn the_umask_takes_bits_from_a_new_directory(share: &Share) {
    share.with_umask(0o027).mkdir("d", 0o777).unwrap();
    assert_eq!(share.host.stat("d").mode, S_IFDIR | 0o750);
}

// mknod(2): "the permissions of the created node are (mode & ~umask)"
#[apply(behaviour)]
fn the_umask_takes_bits_from_a_new_node(share: &Share) {
    share.with_umask(0o027).mknod("p", S_IFIFO | 0o666, 0).unwrap();
    assert_eq!(share.host.stat("p").mode, S_IFIFO | 0o640);
}

// open(2): "the mode applies only to future accesses of the newly created file; the open() call that creates a
// read-only file may well return a read/write file descriptor"
#[apply(behaviour)]
fn the_mode_of_a_new_file_counts_for_later_opens_only(share: &Share) {
    let user = share.as_user(1000);
    let file = user.create("f", O_RDWR, 0o000).unwrap();
    assert_eq!(user.write(&file, 0, b"x").unwrap(), 1);
    assert_eq!(share.host.stat("f").perm(), 0);
}

// open(2): "EEXIST  pathname already exists and O_CREAT and O_EXCL were used"
#[apply(behaviour)]
fn exclusive_creation_of_what_exists_is_refused(share: &Share) {
    share.host.write("f", b"x");
    share.host.mkdir("d");
    share.host.symlink("nowhere", "l");
    for name in ["f", "d", "l"] {
        assert_eq!(share.create(name, O_RDWR | O_EXCL, 0o644), Err(EEXIST), "{name}");
    }
}

// open(2): O_CREAT without O_EXCL opens a file that exists, as it is
#[apply(behaviour)]
fn creation_opens_a_file_that_exists(share: &Share) {
    share.host.write("f", b"old");
    share.host.chmod("f", 0o640);
    let file = share.as_user(1000).create("f", O_RDWR, 0o777).unwrap();
    assert_eq!(share.read(&file, 0, 10).unwrap(), b"old");
    let stat = share.host.stat("f");
    assert_eq!((stat.perm(), stat.owner), (0o640, ids(0, 0)));
}

// open(2): "O_TRUNC If the file already exists and is a regular file and the access mode allows writing ... it will be
// truncated to length 0"
#[apply(behaviour)]
fn creation_can_empty_a_file_that_exists(share: &Share) {
    share.host.write("f", b"old");
    let file = share.create("f", O_RDWR | O_TRUNC, 0o644).unwrap();
    assert_eq!((share.fgetattr(&file).unwrap().size, share.host.stat("f").size), (0, 0));
}

// open(2): "EISDIR  pathname refers to a directory and the access requested involved writing"
#[apply(behaviour)]
fn creation_does_not_open_a_directory(share: &Share) {
    share.host.mkdir("d");
    assert_eq!(share.create("d", O_RDWR, 0o644), Err(EISDIR));
}

// open(2): "ELOOP  pathname was a symbolic link, and flags specified O_NOFOLLOW"; the guest resolves links itself
#[apply(behaviour)]
fn creation_does_not_follow_a_symbolic_link(share: &Share) {
    share.host.symlink("target", "l");
    assert!(share.create("l", O_RDWR, 0o644).is_err());
    assert!(!share.host.exists("target"));
}

// open(2): "ENOENT  O_CREAT is set and ... a directory component in pathname does not exist"
#[apply(behaviour)]
fn nothing_is_created_in_a_removed_directory(share: &Share) {
    let dir = share.mkdir("d", 0o755).unwrap().nodeid;
    share.rmdir("d").unwrap();
    assert_eq!(share.create((dir, "f"), O_RDWR, 0o644), Err(ENOENT));
    assert_eq!(share.mkdir((dir, "e"), 0o755).map(drop), Err(ENOENT));
    assert_eq!(share.mknod((dir, "p"), S_IFIFO | 0o644, 0).map(drop), Err(ENOENT));
    assert_eq!(share.symlink("x", (dir, "l")).map(drop), Err(ENOENT));
}

// mkdir(2): "ENOTDIR  A component used as a directory in pathname is not, in fact, a directory"
#[apply(behaviour)]
fn nothing_is_created_below_a_file(share: &Share) {
    let file = share.put("f", b"").unwrap();
    assert_eq!(share.create((file, "g"), O_RDWR, 0o644), Err(ENOTDIR));
    assert_eq!(share.mkdir((file, "d"), 0o755).map(drop), Err(ENOTDIR));
    assert_eq!(share.mknod((file, "p"), S_IFIFO | 0o644, 0).map(drop), Err(ENOTDIR));
    assert_eq!(share.symlink("x", (file, "l")).map(drop), Err(ENOTDIR));
}

// mkdir(2): "ENAMETOOLONG  pathname was too long"; NAME_MAX is 255
#[apply(behaviour)]
fn a_new_name_has_at_most_255_bytes(share: &Share) {
    let (fits, long) = ("n".repeat(255), "n".repeat(256));
    share.mkdir(fits.as_str(), 0o755).unwrap();
    assert_eq!(share.mkdir(long.as_str(), 0o755).map(drop), Err(ENAMETOOLONG));
    assert_eq!(share.create(long.as_str(), O_RDWR, 0o644), Err(ENAMETOOLONG));
    assert_eq!(share.mknod(long.as_str(), S_IFIFO | 0o644, 0).map(drop), Err(ENAMETOOLONG));
    assert_eq!(share.symlink("x", long.as_str()).map(drop), Err(ENAMETOOLONG));
    assert_eq!(share.list("").unwrap(), [fits]);
}

// mkdir(2): "attempts to create a directory named pathname"
#[apply(behaviour)]
fn a_new_directory_is_empty(share: &Share) {
    let made = share.mkdir("d", 0o755).unwrap();
    assert_eq!(made.attr.mode, S_IFDIR | 0o755);
    assert_eq!(share.lookup("d").unwrap().nodeid, made.nodeid);
    assert_eq!(share.list("d").unwrap(), [""; 0]);
    assert_eq!(share.host.stat("d").mode, S_IFDIR | 0o755);
}

// mkdir(2): "EEXIST pathname already exists (not necessarily as a directory). This includes the case where pathname is
// a symbolic link, dangling or not"
#[apply(behaviour)]
fn a_directory_is_not_made_where_something_is(share: &Share) {
    share.host.write("f", b"");
    share.host.mkdir("d");
    share.host.symlink("nowhere", "l");
    for name in ["f", "d", "l"] {
        assert_eq!(share.mkdir(name, 0o755).map(drop), Err(EEXIST), "{name}");
    }
}

// mkdir(2): "Apart from the permission bits, mode may carry the sticky bit" (Linux: S_ISVTX is honored)
#[apply(behaviour)]
fn a_directory_is_made_sticky(share: &Share) {
    share.with_umask(0).mkdir("d", 0o1777).unwrap();
    assert_eq!(share.host.stat("d").perm(), 0o1777);
}

// mknod(2): "S_IFREG ... (zero type is equivalent to type S_IFREG)"
#[apply(behaviour)]
fn mknod_makes_an_empty_file(share: &Share) {
    let made = share.mknod("f", S_IFREG | 0o640, 0).unwrap();
    assert_eq!((made.attr.mode, made.attr.size), (S_IFREG | 0o640, 0));
    assert_eq!(share.host.read("f"), b"");
}

// mknod(2): "S_IFIFO, or S_IFSOCK to specify a ... FIFO (named pipe), or UNIX domain socket"
#[apply(behaviour)]
fn fifos_and_sockets_are_made(share: &Share) {
    share.mknod("p", S_IFIFO | 0o600, 0).unwrap();
    share.mknod("s", S_IFSOCK | 0o600, 0).unwrap();
    assert_eq!((share.host.stat("p").kind(), share.host.stat("s").kind()), (S_IFIFO, S_IFSOCK));
}

// mknod(2): "EEXIST  pathname already exists"
#[apply(behaviour)]
fn a_node_is_not_made_where_something_is(share: &Share) {
    share.host.write("f", b"x");
    assert_eq!(share.mknod("f", S_IFIFO | 0o600, 0).map(drop), Err(EEXIST));
}

// mknod(2): "EPERM mode requested creation of something other than a regular file, a FIFO (named pipe), or a UNIX
// domain socket, and the caller is not privileged": a root of a user namespace is not
#[apply(behaviour)]
fn devices_are_made_by_a_root_of_the_host_and_where_a_file_stands_for_them(share: &Share) {
    let made = share.mknod("null", S_IFCHR | 0o666, 1 << 8 | 3);
    if share.kind().has_devices() {
        assert_eq!(made.unwrap().attr.rdev, 1 << 8 | 3);
        assert_eq!(share.host.stat("null").kind(), S_IFCHR);
    } else {
        assert_eq!(made.map(drop), Err(EPERM));
    }
}

// user_namespaces(7): mknod(2) of devices is not permitted, but a whiteout (character device 0:0) is no device
#[apply(behaviour)]
fn whiteouts_are_made_by_every_root(share: &Share) {
    let made = share.mknod("w", S_IFCHR, 0).unwrap();
    assert_eq!((made.attr.mode & S_IFMT, made.attr.rdev), (S_IFCHR, 0));
}

// open(2): "O_TMPFILE  Create an unnamed temporary regular file. The pathname argument specifies a directory"
#[apply(behaviour)]
fn a_temporary_file_has_no_name(share: &Share) {
    let file = share.tmpfile("", O_RDWR, 0o640).unwrap();
    assert_eq!(share.write(&file, 0, b"hello").unwrap(), 5);
    assert_eq!(share.read(&file, 0, 10).unwrap(), b"hello");
    let attr = share.fgetattr(&file).unwrap();
    assert_eq!((attr.nlink, attr.mode, attr.size), (0, S_IFREG | 0o640, 5));
    assert_eq!(share.host.list(""), [""; 0]);
}

// open(2): "an O_TMPFILE file can be linked permanently into the filesystem, using linkat(2)"
#[apply(behaviour)]
fn a_temporary_file_can_be_given_a_name(share: &Share) {
    let file = share.tmpfile("", O_RDWR, 0o640).unwrap();
    share.write(&file, 0, b"hello").unwrap();
    assert_eq!(share.link(file.node, "f").unwrap().nodeid, file.node);
    assert_eq!((share.host.read("f"), share.host.stat("f").nlink), (b"hello".to_vec(), 1));
}

// open(2): "specifying O_EXCL in conjunction with O_TMPFILE prevents a temporary file from being linked into the
// filesystem"
#[apply(behaviour)]
fn an_exclusive_temporary_file_stays_nameless(share: &Share) {
    let file = share.tmpfile("", O_RDWR | O_EXCL, 0o640).unwrap();
    assert_eq!(share.link(file.node, "f").map(drop), Err(ENOENT));
}

// open(2): "O_TMPFILE must be specified with one of O_RDWR or O_WRONLY"; its directory must be one
#[apply(behaviour)]
fn a_temporary_file_needs_a_directory(share: &Share) {
    share.put("f", b"").unwrap();
    assert_eq!(share.tmpfile("f", O_RDWR, 0o640), Err(ENOTDIR));
}

// FUSE: a creating request gives the new node's first look-up
#[apply(behaviour)]
fn what_is_created_is_one_lookup(share: &Share) {
    let made = [
        share.mkdir("d", 0o755).unwrap().nodeid,
        share.mknod("p", S_IFIFO | 0o600, 0).unwrap().nodeid,
        share.symlink("x", "l").unwrap().nodeid,
    ];
    for (node, name) in made.into_iter().zip(["d", "p", "l"]) {
        assert_eq!(share.lookup(name).unwrap().nodeid, node);
        share.forget(node, 1);
        share.getattr(node).unwrap();
    }
}
