//! QEMU's `-fsdev proxy`: what its requests do, on postern and on QEMU's own helper, which proves the tests.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use macro_rules_attribute::apply;
use nix::errno::Errno::{self, *};
use postern_tests::Kind;
use postern_tests::proxy::Arg::{self, D, Q, S};
use postern_tests::proxy::Helper::{self, Postern};
use postern_tests::proxy::{Proxy, kind::*, payload, request, requests};

/// O_* of open(2).
const RDWR: u32 = libc::O_RDWR.cast_unsigned();
const CREAT: u32 = (libc::O_CREAT | libc::O_RDWR).cast_unsigned();
const EXCL: u32 = libc::O_EXCL.cast_unsigned();
const DIRECTORY: u32 = libc::O_DIRECTORY.cast_unsigned();
/// Leave this id as it is.
const KEEP: u32 = u32::MAX;

/// What postern does and QEMU's own helper does, too.
macro_rules! behaviour {
    ($($function:tt)*) => {
        each! { mapped Postern(Kind::Mapped), root Postern(Kind::Root), user Postern(Kind::User),
            host Postern(Kind::Host), c_helper Helper::C; $($function)* }
    };
}

/// What only postern does.
macro_rules! promise {
    ($($function:tt)*) => {
        each! { mapped Postern(Kind::Mapped), root Postern(Kind::Root), user Postern(Kind::User),
            host Postern(Kind::Host); $($function)* }
    };
}

macro_rules! each {
    ($($test:ident $helper:expr),*; fn $name:ident($proxy:ident: &mut Proxy) $body:block) => {
        fn $name($proxy: &mut Proxy) $body

        mod $name {
            use super::*;
            $(
                #[test]
                fn $test() {
                    let mut proxy = Proxy::serve($helper, &[]);
                    super::$name(&mut proxy);
                    proxy.assert_contained();
                }
            )*
        }
    };
}

fn p(path: &str) -> Arg<'_> {
    S(path.as_bytes())
}

fn create(proxy: &mut Proxy, path: &str) -> File {
    proxy.open(CREATE, &[p(path), D(CREAT), D(0o644), D(0), D(0)]).unwrap()
}

fn mkdir(proxy: &mut Proxy, path: &str) {
    assert_eq!(proxy.status(MKDIR, &[D(0), D(0), p(path), D(0o755)]), Ok(0));
}

// open(2)
#[apply(behaviour)]
fn a_file_is_made_of_its_caller_written_and_read(proxy: &mut Proxy) {
    let mut file = proxy.open(CREATE, &[p("//f"), D(CREAT | EXCL), D(0o640), D(1000), D(1001)]).unwrap();
    file.write_all(b"content").unwrap();
    let stat = proxy.stat("//f").unwrap();
    assert_eq!((stat.mode, stat.uid, stat.gid, stat.size), (libc::S_IFREG | 0o640, 1000, 1001, 7));
    let host = proxy.host.stat("f");
    assert_eq!((host.ino, stat.ino), (stat.ino, host.ino));
    let mut file = proxy.open(OPEN, &[p("//f"), D(RDWR)]).unwrap();
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    let again = proxy.open(CREATE, &[p("//f"), D(CREAT | EXCL), D(0o640), D(0), D(0)]);
    assert_eq!(again.unwrap_err(), EEXIST);
    assert_eq!(proxy.open(OPEN, &[p("//g"), D(RDWR)]).unwrap_err(), ENOENT);
}

// open(2): O_DIRECTORY; readdir(3)
#[apply(behaviour)]
fn a_directory_is_opened_and_lists(proxy: &mut Proxy) {
    mkdir(proxy, "//d");
    create(proxy, "//d/f");
    let dir = proxy.open(OPEN, &[p("//d"), D(DIRECTORY)]).unwrap();
    let mut dir = nix::dir::Dir::from_fd(dir.into()).unwrap();
    let mut names: Vec<_> = dir.iter().map(|entry| entry.unwrap().file_name().to_owned()).collect();
    names.sort();
    assert_eq!(names, [c".".to_owned(), c"..".to_owned(), c"f".to_owned()]);
    assert_eq!(proxy.open(OPEN, &[p("//d"), D(RDWR)]).unwrap_err(), EISDIR);
}

// mkdir(2), mknod(2), symlink(2), link(2), readlink(2)
#[apply(behaviour)]
fn names_of_every_kind_are_made_of_their_caller(proxy: &mut Proxy) {
    assert_eq!(proxy.status(MKDIR, &[D(1000), D(1001), p("//d"), D(0o750)]), Ok(0));
    let fifo = libc::S_IFIFO | 0o600;
    assert_eq!(proxy.status(MKNOD, &[D(1000), D(1001), p("//d/fifo"), D(fifo), Q(0)]), Ok(0));
    assert_eq!(proxy.status(SYMLINK, &[D(1000), D(1001), p("/some/where"), p("//d/s")]), Ok(0));
    for (path, mode) in [("//d", libc::S_IFDIR | 0o750), ("//d/fifo", fifo), ("//d/s", libc::S_IFLNK | 0o777)] {
        let stat = proxy.stat(path).unwrap();
        assert_eq!((stat.mode, stat.uid, stat.gid), (mode, 1000, 1001), "{path}");
    }
    assert_eq!(proxy.string(READLINK, &[p("//d/s"), D(4096)]).unwrap(), b"/some/where");
    create(proxy, "//f");
    assert_eq!(proxy.status(LINK, &[p("//f"), p("//d/l")]), Ok(0));
    assert_eq!((proxy.stat("//d/l").unwrap().ino, proxy.stat("//f").unwrap().nlink), (proxy.host.stat("f").ino, 2));
}

// A guest that speaks 9P2000.u tells no group.
#[apply(behaviour)]
fn what_is_made_without_a_group_is_of_roots(proxy: &mut Proxy) {
    assert_eq!(proxy.status(MKDIR, &[D(1000), D(KEEP), p("//d"), D(0o755)]), Ok(0));
    let stat = proxy.stat("//d").unwrap();
    assert_eq!((stat.uid, stat.gid), (1000, 0));
}

// rename(2), remove(3)
#[apply(behaviour)]
fn names_are_moved_and_removed(proxy: &mut Proxy) {
    mkdir(proxy, "//d");
    create(proxy, "//f");
    assert_eq!(proxy.status(RENAME, &[p("//f"), p("//d/g")]), Ok(0));
    assert_eq!(proxy.stat("//f"), Err(ENOENT));
    assert_eq!(proxy.status(REMOVE, &[p("//d")]), Err(ENOTEMPTY));
    assert_eq!(proxy.status(REMOVE, &[p("//d/g")]), Ok(0));
    assert_eq!(proxy.status(REMOVE, &[p("//d")]), Ok(0));
    assert_eq!(proxy.status(REMOVE, &[p("//d")]), Err(ENOENT));
    assert_eq!(proxy.host.list(""), Vec::<String>::new());
}

// chmod(2), lchown(2), truncate(2), utimensat(2)
#[apply(behaviour)]
fn attributes_are_changed(proxy: &mut Proxy) {
    create(proxy, "//f").write_all(b"0123456789").unwrap();
    assert_eq!(proxy.status(CHMOD, &[p("//f"), D(0o604)]), Ok(0));
    assert_eq!(proxy.status(CHOWN, &[p("//f"), D(1000), D(1001)]), Ok(0));
    assert_eq!(proxy.status(CHOWN, &[p("//f"), D(KEEP), D(1002)]), Ok(0));
    assert_eq!(proxy.status(TRUNCATE, &[p("//f"), Q(4)]), Ok(0));
    assert_eq!(proxy.status(UTIME, &[p("//f"), Q(7), Q(8), Q(1_000_000_000), Q(9)]), Ok(0));
    let stat = proxy.stat("//f").unwrap();
    assert_eq!((stat.mode & 0o7777, stat.uid, stat.gid, stat.size), (0o604, 1000, 1002, 4));
    assert_eq!(stat.mtime, (1_000_000_000, 9));
    let omit = Q(libc::UTIME_OMIT.cast_unsigned());
    assert_eq!(proxy.status(UTIME, &[p("//f"), Q(0), omit, Q(0), omit]), Ok(0));
    assert_eq!(proxy.stat("//f").unwrap().mtime, (1_000_000_000, 9));
}

// setxattr(2), getxattr(2), listxattr(2), removexattr(2)
#[apply(behaviour)]
fn extended_attributes_are_set_read_listed_and_removed(proxy: &mut Proxy) {
    create(proxy, "//f");
    let get = [p("//f"), p("user.a")];
    let sized = |size| [D(size), get[0], get[1]];
    assert_eq!(proxy.status(LSETXATTR, &[get[0], get[1], S(b"value"), D(5), D(0)]), Ok(0));
    assert_eq!(proxy.status(LGETXATTR, &sized(0)), Ok(5));
    assert_eq!(proxy.string(LGETXATTR, &sized(64)).unwrap(), b"value");
    assert_eq!(proxy.string(LGETXATTR, &sized(4)), Err(ERANGE));
    let names = proxy.string(LLISTXATTR, &[D(4096), p("//f")]).unwrap();
    assert!(names.split(|byte| *byte == 0).any(|name| name == b"user.a"));
    assert_eq!(proxy.status(LLISTXATTR, &[D(0), p("//f")]), Ok(i32::try_from(names.len()).unwrap()));
    assert_eq!(proxy.status(LSETXATTR, &[get[0], get[1], S(b"v"), D(1), D(1)]), Err(EEXIST));
    assert_eq!(proxy.status(LREMOVEXATTR, &get), Ok(0));
    assert_eq!(proxy.status(LREMOVEXATTR, &get), Err(ENODATA));
}

// statfs(2)
#[apply(behaviour)]
fn the_size_of_the_file_system_is_told(proxy: &mut Proxy) {
    let bytes = proxy.ask(STATFS, &[p("/")]).unwrap();
    let quads: Vec<_> = bytes.chunks(8).map(|quad| u64::from_ne_bytes(quad.try_into().unwrap())).collect();
    let host = nix::sys::statvfs::statvfs(&proxy.host.path("")).unwrap();
    assert_eq!((quads.len(), quads[2], quads[9]), (11, host.blocks(), 255));
}

// QEMU stops ".." at the root only: path_resolution(7)
#[apply(behaviour)]
fn a_way_up_ends_at_the_root(proxy: &mut Proxy) {
    mkdir(proxy, "//d");
    mkdir(proxy, "//d/e");
    let root = proxy.stat("/").unwrap();
    for path in ["//d/..", "//d/e/../..", "//d/../../../..", "//..", "//d/../d/e/../.."] {
        assert_eq!(proxy.stat(path), Ok(root), "{path}");
    }
    assert_eq!(proxy.stat("//d/e/../../d/e"), proxy.stat("//d/e"));
    // What it lists to a guest that speaks 9P2000.u, it asks about: "." too.
    assert_eq!(proxy.stat("//d/./e/."), proxy.stat("//d/e"));
    create(proxy, "//f");
    assert_eq!((proxy.stat("//f/."), proxy.stat("//f/..")), (Err(ENOTDIR), Err(ENOTDIR)));
}

// Some of QEMU's paths count the NUL at their end, as its V9fsPath does.
#[apply(behaviour)]
fn a_path_may_count_its_nul(proxy: &mut Proxy) {
    mkdir(proxy, "//d");
    assert_eq!((proxy.stat("/\0"), proxy.stat("//d\0")), (proxy.stat("/"), proxy.stat("//d")));
}

// ioctl_iflags(2): FS_IOC_GETVERSION. virtfs-proxy-helper leaves the upper half as it was on its stack.
// chroot(2), path_resolution(7): the helper searches what the server's own id may not
#[apply(behaviour)]
fn a_path_leads_through_directories_of_any_mode(proxy: &mut Proxy) {
    let mut path = String::from("/");
    for (depth, mode) in [0o755, 0o700, 0o755, 0o700, 0o755].into_iter().enumerate() {
        path += &format!("/d{depth}");
        assert_eq!(proxy.status(MKDIR, &[D(0), D(0), p(&path), D(mode)]), Ok(0));
    }
    let file = format!("{path}/f");
    create(proxy, &file).write_all(b"below").unwrap();
    assert_eq!(proxy.stat(&file).unwrap().size, 5);
    assert_eq!(proxy.stat(&format!("{file}/g")), Err(ENOTDIR));
    assert_eq!(proxy.stat(&format!("{path}/none/g")), Err(ENOENT));
    assert_eq!(proxy.stat(&format!("{path}/../../d3/d4/./f")).unwrap().size, 5);
}

// 9p-proxy.c: answers come in the order of their requests, an opened file's descriptor with the number that says so
#[apply(behaviour)]
fn requests_that_come_together_are_answered_one_by_one(proxy: &mut Proxy) {
    create(proxy, "//f");
    let lstat = |path| (LSTAT, vec![p(path)]);
    let requests = [
        lstat("//f"),
        lstat("//none"),
        (OPEN, vec![p("//f"), D(RDWR)]),
        (OPEN, vec![p("//none"), D(RDWR)]),
        lstat("//f"),
    ];
    let mut bytes = Vec::new();
    for (kind, args) in &requests {
        bytes.extend(request(*kind, &payload(args)));
    }
    let (together, rest) = bytes.split_at(bytes.len() - 5);
    assert!(proxy.send(together));
    let first = proxy.answer().unwrap();
    assert_eq!(proxy.answer(), Err(ENOENT));
    proxy.opened().unwrap().write_all(b"x").unwrap();
    assert_eq!(proxy.opened().unwrap_err(), ENOENT);
    assert!(proxy.send(rest));
    let last = proxy.answer().unwrap();
    assert_eq!((first.len(), last.len()), (116, 116));
    assert_eq!(proxy.host.read("f"), b"x");
}

#[apply(promise)]
fn virtfs_proxy_helper_the_generation_is_told_in_64_bits(proxy: &mut Proxy) {
    create(proxy, "//f");
    let told = proxy.ask(GETVERSION, &[p("//f")]).unwrap();
    assert_eq!(u64::from_ne_bytes(told.try_into().unwrap()), u64::from(proxy.host.version("f")));
}

// virtfs-proxy-helper trusts the size over the value's length, and stores its heap.
#[apply(promise)]
fn virtfs_proxy_helper_a_value_that_is_not_as_long_as_its_size_says_is_not_stored(proxy: &mut Proxy) {
    create(proxy, "//f");
    for size in [0, 4, 6, 2000, 65_535, u32::MAX] {
        let set = [p("//f"), p("user.a"), S(b"value"), D(size), D(0)];
        assert_eq!(proxy.status(LSETXATTR, &set), Err(EINVAL), "{size}");
    }
    let wrapped = [p("//f"), p("user.a"), S(b""), D(65_536), D(0)];
    assert_eq!(proxy.status(LSETXATTR, &wrapped), Err(E2BIG));
    assert_eq!(proxy.host.getxattr("f", "user.a"), None);
}

// QEMU copies the answer without looking at its length.
#[apply(promise)]
fn qemu_proxy_client_no_answer_is_longer_than_asked_for(proxy: &mut Proxy) {
    assert_eq!(proxy.status(SYMLINK, &[D(0), D(0), p("0123456789"), p("//s")]), Ok(0));
    assert_eq!(proxy.string(READLINK, &[p("//s"), D(4)]).unwrap(), b"0123");
    create(proxy, "//f");
    assert_eq!(proxy.status(LSETXATTR, &[p("//f"), p("user.a"), S(&[7; 3000]), D(3000), D(0)]), Ok(0));
    assert_eq!(proxy.string(LGETXATTR, &[D(2999), p("//f"), p("user.a")]), Err(ERANGE));
    assert_eq!(proxy.string(LGETXATTR, &[D(u32::MAX), p("//f"), p("user.a")]).unwrap(), [7; 3000]);
}

// CVE-2016-9602
#[apply(promise)]
fn no_symbolic_link_is_followed(proxy: &mut Proxy) {
    mkdir(proxy, "//d");
    create(proxy, "//d/f");
    for (target, name) in [("d", "inside"), ("../outside", "outside"), ("/", "top")] {
        proxy.host.symlink(target, name);
        let below = format!("//{name}/f");
        assert_eq!(proxy.stat(&below), Err(ENOTDIR), "{name}");
        assert_eq!(proxy.open(OPEN, &[p(&below), D(RDWR)]).unwrap_err(), ENOTDIR);
        let made = proxy.open(CREATE, &[p(&below), D(CREAT), D(0o644), D(0), D(0)]);
        assert_eq!(made.unwrap_err(), ENOTDIR);
    }
    proxy.host.symlink("../outside/canary", "canary");
    assert_eq!(proxy.open(OPEN, &[p("//canary"), D(RDWR)]).unwrap_err(), ELOOP);
    assert_eq!(proxy.status(CHMOD, &[p("//canary"), D(0o777)]), Err(EOPNOTSUPP));
    assert_eq!(proxy.status(TRUNCATE, &[p("//canary"), Q(0)]), Err(EINVAL));
}

// CVE-2016-9602: whole paths are walked by the kernel while the host swaps a directory on the way for a link out of the
// share
#[apply(promise)]
fn cve_2016_9602_a_path_leads_nowhere_while_links_are_swapped_in(proxy: &mut Proxy) {
    mkdir(proxy, "//a");
    mkdir(proxy, "//a/d");
    proxy.host.write("a/d/canary", b"inner");
    proxy.host.symlink("../../outside", "a/l");
    let [d, l, t] = ["a/d", "a/l", "a/t"].map(|name| proxy.host.path(name));
    let inside = proxy.host.stat("a/d/canary").ino;
    let done = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (from, to) in [(&d, &t), (&l, &d), (&d, &l), (&t, &d)] {
                    std::fs::rename(from, to).unwrap();
                }
            }
        });
        let (mut seen, mut looked) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..4000 {
            let _ = proxy.status(CHMOD, &[p("//a/d/canary"), D(0o600)]);
            if let Ok(mut file) = proxy.open(OPEN, &[p("//a/d/canary"), D(RDWR)]) {
                let mut content = String::new();
                file.read_to_string(&mut content).unwrap();
                seen.insert(content);
            }
            looked.extend(proxy.stat("//a/d/canary").map(|stat| stat.ino));
            let _ = proxy.open(CREATE, &[p("//a/d/new"), D(CREAT), D(0o644), D(0), D(0)]);
            let _ = proxy.status(REMOVE, &[p("//a/d/new")]);
        }
        done.store(true, Ordering::Relaxed);
        (seen, looked)
    });
    assert_eq!(seen, (BTreeSet::from(["inner".to_owned()]), BTreeSet::from([inside])));
    proxy.assert_contained();
}

// CVE-2023-2861
#[apply(promise)]
fn what_is_no_file_is_not_opened(proxy: &mut Proxy) {
    for (name, kind) in [("//fifo", libc::S_IFIFO), ("//socket", libc::S_IFSOCK)] {
        assert_eq!(proxy.status(MKNOD, &[D(0), D(0), p(name), D(kind | 0o666), Q(0)]), Ok(0));
        assert_eq!(proxy.open(OPEN, &[p(name), D(RDWR)]).unwrap_err(), ENXIO);
        assert_eq!(proxy.open(CREATE, &[p(name), D(CREAT), D(0o644), D(0), D(0)]).unwrap_err(), ENXIO);
        assert_eq!(proxy.status(TRUNCATE, &[p(name), Q(0)]), Err(EINVAL));
    }
}

fn refused(proxy: &mut Proxy, kind: u32, payload: &[u8]) -> Errno {
    assert!(proxy.send(&request(kind, payload)));
    match kind {
        OPEN | CREATE => proxy.opened().map(drop).unwrap_err(),
        _ => proxy.answer().map(drop).unwrap_err(),
    }
}

#[apply(promise)]
fn a_request_too_short_or_too_long_changes_nothing(proxy: &mut Proxy) {
    create(proxy, "//f");
    let before = proxy.stat("//f");
    for (kind, args) in requests() {
        let whole = payload(&args);
        for cut in 0..whole.len() {
            assert_eq!(refused(proxy, kind, &whole[..cut]), EINVAL, "{kind} cut to {cut}");
        }
        assert_eq!(refused(proxy, kind, &[&whole[..], b"x"].concat()), EINVAL, "{kind} and one byte");
    }
    assert_eq!((proxy.stat("//f"), proxy.host.list("")), (before, vec!["f".to_owned()]));
}

// CVE-2016-7116: a name is one component
#[apply(promise)]
fn a_name_that_is_none_changes_nothing(proxy: &mut Proxy) {
    create(proxy, "//f");
    let long = format!("//{}", "n".repeat(256));
    let deep = "/d".repeat(3000);
    let bad = [
        ("", EINVAL),
        ("f", EINVAL),
        ("/", EINVAL),
        ("//.", EINVAL),
        ("//..", EINVAL),
        ("//f\0g", EINVAL),
        (&long, ENAMETOOLONG),
        (&deep, ENAMETOOLONG),
        ("//f/g", ENOTDIR),
    ];
    for (path, errno) in bad {
        let path = p(path);
        assert_eq!(proxy.status(MKDIR, &[D(0), D(0), path, D(0o755)]), Err(errno), "{path:?}");
        assert_eq!(proxy.open(CREATE, &[path, D(CREAT), D(0o644), D(0), D(0)]).unwrap_err(), errno, "{path:?}");
        assert_eq!(proxy.status(LINK, &[p("//f"), path]), Err(errno), "{path:?}");
        assert_eq!(proxy.status(RENAME, &[p("//f"), path]), Err(errno), "{path:?}");
        assert_eq!(proxy.status(SYMLINK, &[D(0), D(0), p("t"), path]), Err(errno), "{path:?}");
        assert_eq!(proxy.status(MKNOD, &[D(0), D(0), path, D(libc::S_IFIFO), Q(0)]), Err(errno), "{path:?}");
    }
    assert_eq!(proxy.host.list(""), ["f"]);
}

#[apply(promise)]
fn an_unknown_request_is_answered(proxy: &mut Proxy) {
    for kind in [0, 1, 22, u32::MAX] {
        assert_eq!(refused(proxy, kind, b""), ENOSYS, "{kind}");
    }
    assert!(proxy.lives());
}

#[apply(promise)]
fn noise_is_answered_with_errors(proxy: &mut Proxy) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    for round in 0..5000_usize {
        let mut noise = vec![0; round % 97];
        for byte in &mut noise {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *byte = state.to_be_bytes()[0] & if round % 2 == 0 { 0x0f } else { 0xff };
        }
        refused(proxy, u32::try_from(2 + round % 20).unwrap(), &noise);
    }
    assert!(proxy.lives());
}

#[apply(promise)]
fn a_request_longer_than_any_ends_the_connection_with_a_line(proxy: &mut Proxy) {
    assert!(proxy.send(&[LSTAT.to_ne_bytes(), 65_537_u32.to_ne_bytes()].concat()));
    assert_eq!(proxy.ended(), Some(1));
    let log = proxy.log();
    assert!(log.contains("cannot understand QEMU: a request is longer than 64 KiB"), "{log}");
}

// A server that is asked for a descriptor and answers nothing makes QEMU 7.2 take the size of its request for one.
#[apply(promise)]
fn qemu_proxy_client_every_request_is_answered_while_helpers_die(proxy: &mut Proxy) {
    create(proxy, "//f");
    let (mut opened, mut failed) = (0, 0);
    for round in 0..40 {
        for _ in 0..25 {
            match proxy.open(OPEN, &[p("//f"), D(RDWR)]) {
                Ok(_) => opened += 1,
                Err(errno) => {
                    assert_eq!(errno, EIO);
                    failed += 1;
                }
            }
        }
        if round % 8 == 0 {
            proxy.kill_helper();
        }
    }
    assert_eq!(opened + failed, 1000);
    assert!(opened >= 900, "opening is asked for again: {opened}");
    proxy.kill_warden();
    // The helper goes with its warden, a moment later.
    let pause = || std::thread::sleep(std::time::Duration::from_millis(1));
    let gone = (0..5000).find_map(|_| {
        pause();
        proxy.open(OPEN, &[p("//f"), D(RDWR)]).err()
    });
    assert_eq!(gone, Some(EIO));
    assert!(proxy.stat("//f").is_ok());
    assert_eq!(proxy.status(CHMOD, &[p("//f"), D(0o600)]), Err(EIO));
}

// CVE-2026-63318: O_TRUNC on a read-only export
#[test]
fn a_read_only_share_stays_as_it_is() {
    for kind in [Kind::Mapped, Kind::Root, Kind::User, Kind::Host] {
        let mut proxy = Proxy::serve(Postern(kind), &["--readonly"]);
        proxy.host.write("f", b"kept");
        let before = proxy.stat("//f").unwrap();
        let read = [OPEN, LSTAT, READLINK, STATFS, LGETXATTR, LLISTXATTR, GETVERSION];
        for (number, args) in requests().into_iter().filter(|(number, _)| !read.contains(number)) {
            assert_eq!(refused(&mut proxy, number, &payload(&args)), EROFS, "{number}");
        }
        for flags in [libc::O_RDWR, libc::O_WRONLY, libc::O_TRUNC, libc::O_RDWR | libc::O_TRUNC] {
            let opened = proxy.open(OPEN, &[p("//f"), D(flags.cast_unsigned())]);
            assert_eq!(opened.unwrap_err(), EROFS, "{flags:o}");
        }
        let mut file = proxy.open(OPEN, &[p("//f"), D(0)]).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        file.rewind().unwrap();
        assert_eq!((text.as_str(), proxy.stat("//f").unwrap()), ("kept", before));
        assert_eq!(nix::sys::stat::fchmod(file.as_fd(), nix::sys::stat::Mode::S_IRWXU), Err(EROFS));
    }
}

// QEMU's -fsdev proxy,socket=PATH removes the path when it has connected.
#[test]
fn qemu_finds_it_by_a_path() {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("socket");
    let mut server = Command::new(Kind::Mapped.program())
        .args(["proxy", "--shared-dir", "/var/tmp", "--socket-path"])
        .arg(&path)
        .args(Kind::Mapped.identity())
        .spawn()
        .unwrap();
    let wait = |what: &str, done: &mut dyn FnMut() -> bool| {
        assert!(
            (0..2000).any(|_| done() || {
                std::thread::sleep(Duration::from_millis(10));
                false
            }),
            "{what}"
        );
    };
    wait("no socket", &mut || path.exists());
    let mut qemu = Command::new("qemu-system-x86_64")
        .args([
            "-nodefaults",
            "-display",
            "none",
            "-machine",
            "q35",
            "-S",
            "-device",
            "virtio-9p-pci,fsdev=f,mount_tag=f",
        ])
        .arg("-fsdev")
        .arg(format!("proxy,id=f,socket={}", path.display()))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    wait("QEMU does not connect", &mut || !path.exists());
    // It starts only if the root of the share answers; then it has to be told to end.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(qemu.try_wait().unwrap(), None);
    qemu.kill().unwrap();
    qemu.wait().unwrap();
    let mut ended = None;
    wait("the server outlives its QEMU", &mut || {
        ended = server.try_wait().unwrap();
        ended.is_some()
    });
    assert!(ended.unwrap().success());
}

/// The program by the name of QEMU's own.
fn by_its_name(place: &std::path::Path) -> std::process::Command {
    let name = place.join("virtfs-proxy-helper");
    std::os::unix::fs::symlink(Kind::Mapped.program(), &name).unwrap();
    std::process::Command::new(name)
}

// virtfs-proxy-helper(1): -p, -s, -u, -g; it goes to the background
#[test]
fn by_the_name_of_qemus_helper_it_takes_that_programs_command_line() {
    use std::os::unix::fs::MetadataExt;

    let (place, share) = (tempfile::tempdir_in("/var/tmp").unwrap(), tempfile::tempdir_in("/var/tmp").unwrap());
    let path = place.path().join("socket");
    let mut helper = by_its_name(place.path());
    let started = helper.arg("-p").arg(share.path()).arg("-s").arg(&path).args(["-u", "1000", "-g", "1001"]).status();
    assert!(started.unwrap().success());
    let socket = path.metadata().unwrap();
    assert_eq!((socket.uid(), socket.gid(), socket.mode() & 0o777), (1000, 1001, 0o660));

    let mut proxy = Proxy::meet(&path, share.path(), Kind::Host);
    let mode = libc::S_IFREG | 0o4755;
    assert_eq!(proxy.status(MKNOD, &[D(1000), D(1001), p("//f"), D(mode), Q(0)]), Ok(0));
    assert_eq!((proxy.host.stat("f").owner.0, proxy.host.stat("f").perm()), (Some(1000), 0o4755));
    assert_eq!(proxy.status(MKNOD, &[D(0), D(0), p("//n"), D(libc::S_IFCHR | 0o600), Q(0x103)]), Ok(0));
}

#[test]
fn by_that_name_it_says_what_is_missing() {
    let place = tempfile::tempdir().unwrap();
    let mut helper = by_its_name(place.path());
    let said = |args: &[&str], helper: &mut std::process::Command| {
        let output = helper.args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, error) = said(&["-p", "/no/such/directory", "-s", "/tmp/no/socket", "-u", "0", "-g", "0"], &mut helper);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("/tmp/no/socket"), "{error}");
    let (code, error) =
        said(&["-p", "/tmp"], &mut std::process::Command::new(place.path().join("virtfs-proxy-helper")));
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("--fd"), "{error}");
}
