//! Users of a client on a stream, whom nobody has judged: each gets what a process of the host with his ids gets.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, UtimensatFlags};
use nix::sys::time::TimeSpec;
use postern_server::p9::message::*;
use postern_server::p9::wire::{Measured, Text};
use postern_tests::dotu::{dm, mode};
use postern_tests::fuse::Result;
use postern_tests::hostile::tried;
use postern_tests::prelude::*;
use postern_tests::share::Scratch;
use postern_tests::stream::{Client, listen};
use rustix::fs::XattrFlags;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// Owner, member of the group, and neither. Each has a group of his own number.
const USERS: [u32; 3] = [1000, 1001, 1002];
/// P9_ATTR_*
const MODE: u32 = 1;
const UID: u32 = 2;
const GID: u32 = 4;
const SIZE: u32 = 8;
const TIMES: u32 = 16 | 32;
const EXACT: u32 = 128 | 256;

/// What is tried. A name with d is that of a directory with a file `f`, a directory `e` and what is made as `new`.
#[derive(Clone, Copy, Debug)]
enum Try {
    Read,
    Write,
    ReadWrite,
    Truncate,
    Chmod,
    ChmodSetGid,
    ChownAway,
    ChownTo,
    ChgrpOwn,
    ChgrpOther,
    Resize,
    Touch,
    TouchAt,
    Look,
    GetXattr,
    SetXattr,
    List,
    Search,
    Create,
    Mkdir,
    Symlink,
    Mkfifo,
    Link,
    Unlink,
    Rmdir,
    Rename,
    MoveOut,
}

use Try::*;

const OF_FILES: &[Try] = &[
    Read,
    Write,
    ReadWrite,
    Truncate,
    Chmod,
    ChmodSetGid,
    ChownAway,
    ChownTo,
    ChgrpOwn,
    ChgrpOther,
    Resize,
    Touch,
    TouchAt,
    Look,
    GetXattr,
    SetXattr,
];
const OF_DIRECTORIES: &[Try] = &[
    List, Search, Create, Mkdir, Symlink, Mkfifo, Link, Unlink, Rmdir, Rename, MoveOut, Chmod, ChownAway, ChgrpOwn,
    Touch, GetXattr, SetXattr,
];

fn file_modes() -> [u32; 9] {
    [0o600, 0o640, 0o644, 0o660, 0o666, 0o400, 0o200, 0o044, 0o000]
}

fn directory_modes() -> [u32; 9] {
    [0o700, 0o750, 0o755, 0o770, 0o775, 0o777, 0o1777, 0o2777, 0o311]
}

/// The same as a process does.
fn on_the_host(what: Try, node: &Path, user: (u32, u32), top: &Path) -> std::io::Result<()> {
    let open = |read, write, truncate| File::options().read(read).write(write).truncate(truncate).open(node).map(drop);
    let chmod = |mode| fs::set_permissions(node, fs::Permissions::from_mode(mode));
    let times = |at: TimeSpec| {
        let follow = UtimensatFlags::FollowSymlink;
        nix::sys::stat::utimensat(nix::fcntl::AT_FDCWD, node, &at, &at, follow).map_err(Into::into)
    };
    let new = node.join("new");
    match what {
        Read => open(true, false, false),
        Write => open(false, true, false),
        ReadWrite => open(true, true, false),
        Truncate => open(false, true, true),
        Chmod => chmod(0o604),
        ChmodSetGid => chmod(0o2755),
        ChownAway => chown(node, Some(user.0 + 1), None),
        ChownTo => chown(node, Some(user.0), None),
        ChgrpOwn => chown(node, None, Some(user.1)),
        ChgrpOther => chown(node, None, Some(user.1 + 1)),
        Resize => File::options().write(true).open(node)?.set_len(3),
        Touch => times(TimeSpec::UTIME_NOW),
        TouchAt => times(TimeSpec::new(1000, 0)),
        Look => fs::metadata(node).map(drop),
        GetXattr => Ok(rustix::fs::getxattr(node, "user.a", &mut [0; 8]).map(drop)?),
        SetXattr => Ok(rustix::fs::setxattr(node, "user.b", b"x", XattrFlags::empty())?),
        List => fs::read_dir(node).map(drop),
        Search => fs::metadata(node.join("f")).map(drop),
        Create => File::options().write(true).create_new(true).mode(0o644).open(new).map(drop),
        Mkdir => fs::DirBuilder::new().mode(0o755).create(new),
        Symlink => symlink("f", new),
        Mkfifo => Ok(nix::sys::stat::mknod(&new, SFlag::S_IFIFO, Mode::from_bits_retain(0o644), 0)?),
        Link => fs::hard_link(node.join("f"), new),
        Unlink => fs::remove_file(node.join("f")),
        Rmdir => fs::remove_dir(node.join("e")),
        Rename => fs::rename(node.join("f"), new),
        MoveOut => fs::rename(node.join("f"), top.join("new")),
    }
}

/// The same over 9P, by the root's fid of a user.
fn over_9p(what: Try, client: &Client, root: u32, path: &str, user: u32) -> Result<()> {
    let node = client.walk(root, path)?;
    let open = |flags: i32| client.open(root, path, flags).map(drop);
    let set = |valid, value: u32| {
        let secs = if valid & EXACT == 0 { 0 } else { 1000 };
        client.ask(
            &Tsetattr {
                fid: node,
                valid,
                mode: value,
                uid: value,
                gid: value,
                size: value.into(),
                atime_sec: secs,
                atime_nsec: 0,
                mtime_sec: secs,
                mtime_nsec: 0,
            },
            &[],
        )
    };
    let (name, gid) = (Text(b"new"), user);
    let rename = |to| Trenameat { olddirfid: node, oldname: Text(b"f"), newdirfid: to, newname: name };
    let done = match what {
        Read => return open(O_RDONLY),
        Write => return open(O_WRONLY),
        ReadWrite => return open(O_RDWR),
        Truncate => return open(O_WRONLY | O_TRUNC),
        List => return open(O_RDONLY | O_DIRECTORY),
        Search => return client.walk(node, "f").map(drop),
        Chmod => set(MODE, 0o604),
        ChmodSetGid => set(MODE, 0o2755),
        ChownAway => set(UID, user + 1),
        ChownTo => set(UID, user),
        ChgrpOwn => set(GID, user),
        ChgrpOther => set(GID, user + 1),
        Resize => set(SIZE, 3),
        Touch => set(TIMES, 0),
        TouchAt => set(TIMES | EXACT, 0),
        Look => client.ask(&Tgetattr { fid: node, request_mask: 0x7ff }, &[]),
        GetXattr => client.ask(&Txattrwalk { fid: node, newfid: client.fid(), name: Text(b"user.a") }, &[]),
        SetXattr => {
            client.ask(&Txattrcreate { fid: node, name: Text(b"user.b"), size: 1, flags: 0 }, &[])?;
            client.ask(&Twrite { fid: node, offset: 0, count: 1 }, b"x")?;
            return client.clunk(node);
        }
        Create => client.ask(&Tlcreate { fid: node, name, flags: O_WRONLY as u32, mode: 0o644, gid }, &[]),
        Mkdir => client.ask(&Tmkdir { dfid: node, name, mode: 0o755, gid }, &[]),
        Symlink => client.ask(&Tsymlink { dfid: node, name, target: Text(b"f"), gid }, &[]),
        Mkfifo => client.ask(&Tmknod { dfid: node, name, mode: S_IFIFO | 0o644, major: 0, minor: 0, gid }, &[]),
        Link => client.walk(node, "f").and_then(|fid| client.ask(&Tlink { dfid: node, fid, name }, &[])),
        Unlink => client.ask(&Tunlinkat { dirfd: node, name: Text(b"f"), flags: 0 }, &[]),
        Rmdir => client.ask(&Tunlinkat { dirfd: node, name: Text(b"e"), flags: 0x200 }, &[]),
        Rename => client.ask(&rename(node), &[]),
        MoveOut => client.ask(&rename(root), &[]),
    };
    done.and(client.clunk(node))
}

/// A node of the first user and the second one's group.
fn plant(host: &Host, path: &str, is_dir: bool, mode: u32) {
    if is_dir {
        host.mkdir(path);
        host.write(&format!("{path}/f"), b"inside");
        host.mkdir(&format!("{path}/e"));
        ["f", "e"].iter().for_each(|name| host.chown(&format!("{path}/{name}"), USERS[0], USERS[1]));
    } else {
        host.write(path, b"content");
    }
    host.setxattr(path, "user.a", b"value");
    host.chown(path, USERS[0], USERS[1]);
    host.chmod(path, mode);
}

/// Who has what in a directory, in the guest's ids, and without what differs from time to time.
fn picture(host: &Host, path: &str) -> Vec<impl PartialEq + std::fmt::Debug + use<>> {
    let of = |name: String, path: &str| {
        let stat = host.stat(path);
        (name, stat.mode, stat.owner, if stat.kind() == S_IFDIR { 0 } else { stat.size })
    };
    let inside = if host.stat(path).kind() == S_IFDIR { host.list(path) } else { vec![] };
    let all = inside.into_iter().map(|name| (name.clone(), format!("{path}/{name}")));
    all.chain([(".".into(), path.to_owned())]).map(|(name, path)| of(name, &path)).collect()
}

/// Does something as a process of the host with these ids, and no other group.
fn as_process<R: Send>(host: &Host, user: u32, act: impl FnOnce((u32, u32)) -> R + Send) -> R {
    let (uid, gid) = (host.uid(user), host.gid(user));
    std::thread::scope(|scope| {
        let process = scope.spawn(move || {
            let id = rustix::process::Gid::from_raw(gid);
            set_thread_groups(&[]).unwrap();
            set_thread_res_gid(id, id, id).unwrap();
            let id = rustix::process::Uid::from_raw(uid);
            set_thread_res_uid(id, id, id).unwrap();
            act((uid, gid))
        });
        process.join().unwrap()
    })
}

// path_resolution(7), "Permissions"; capabilities(7); inode(7)
#[apply(promise)]
fn each_user_gets_what_a_process_of_his_gets(on: Kind) {
    let scratch = Scratch::new(on, false);
    let host = Host::new(scratch.path("share"), on);
    nix::sys::stat::umask(Mode::empty());
    let _server = listen(on, &scratch, &["--xattr"]);
    let client = Client::connect(&scratch);
    // The way to the share is its starter's alone: a process of another goes by a descriptor.
    let top = File::open(scratch.path("share")).unwrap();
    let top = format!("/proc/self/fd/{}", top.as_raw_fd());
    let tries = |modes: [u32; 9], is_dir, all: &'static [Try]| {
        modes.into_iter().flat_map(move |mode| all.iter().map(move |what| (mode, is_dir, *what)))
    };
    let all: Vec<_> =
        tries(file_modes(), false, OF_FILES).chain(tries(directory_modes(), true, OF_DIRECTORIES)).collect();
    let (mut refused, mut granted) = (0, 0);
    for user in USERS {
        let root = client.attach(user).unwrap();
        for (mode, is_dir, what) in &all {
            plant(&host, "local", *is_dir, *mode);
            let path = Path::new(&top).join("local");
            let expected = as_process(&host, user, |ids| {
                on_the_host(*what, &path, ids, Path::new(&top)).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap()))
            });
            let expected = (expected, picture(&host, "local"), host.list(""));
            clear(&host);

            plant(&host, "local", *is_dir, *mode);
            let done = over_9p(*what, &client, root, "local", user);
            let done = (done, picture(&host, "local"), host.list(""));
            clear(&host);
            assert_eq!(done, expected, "{what:?} of {mode:o} by {user}, directory: {is_dir}");
            *if done.0.is_ok() { &mut granted } else { &mut refused } += 1;
        }
    }
    assert!(refused > 200 && granted > 200, "{refused} refused, {granted} granted");
    scratch.assert_contained();
}

fn clear(host: &Host) {
    for name in host.list("") {
        let path = host.path(&name);
        if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    }
}

// A node that one user has found is another's only if he finds it himself.
#[apply(promise)]
fn what_one_user_has_found_or_opened_helps_no_other(on: Kind) {
    let scratch = Scratch::new(on, false);
    let host = Host::new(scratch.path("share"), on);
    plant(&host, "d", true, 0o700);
    let _server = listen(on, &scratch, &[]);
    let client = Client::connect(&scratch);
    let [alice, bob] = [USERS[0], USERS[2]].map(|user| client.attach(user).unwrap());
    let found = client.walk(alice, "d/f").unwrap();
    let open = client.open(alice, "d/f", O_RDWR).unwrap();
    let dir = client.open(alice, "d", O_RDONLY | O_DIRECTORY).unwrap();
    assert_eq!(client.walk(bob, "d/f"), Err(EACCES));
    let names = |path: &'static str| path.split('/').map(|name| Text(name.as_bytes())).collect();
    for (user, path, found) in [(bob, "d/f", 1), (bob, "d/e/../f", 1), (bob, "d/../d/f", 3), (alice, "d/e/../f", 4)] {
        let walk = Twalk { fid: user, newfid: client.fid(), names: names(path) };
        assert_eq!(client.call::<_, Rwalk>(&walk).unwrap().qids.len(), found, "{path} in one message");
    }
    assert_eq!(client.open(bob, "d", O_RDONLY), Err(EACCES));
    let other = Client::connect(&scratch);
    let root = other.attach(USERS[2]).unwrap();
    assert_eq!(other.walk(root, "d/f"), Err(EACCES), "nor on another connection");

    // One operation is one user's, whoever's fids it names.
    let refused = |done: Result<Vec<u8>>| assert_eq!(done.map(drop), Err(EPERM));
    let (name, fid) = (Text(b"mine"), found);
    refused(client.ask(&Tlink { dfid: bob, fid, name }, &[]));
    refused(client.ask(&Trename { fid, dfid: bob, name }, &[]));
    let dir_fid = client.walk(alice, "d").unwrap();
    let rename = |from, to| Trenameat { olddirfid: from, oldname: Text(b"f"), newdirfid: to, newname: name };
    refused(client.ask(&rename(dir_fid, bob), &[]));
    refused(client.ask(&rename(bob, dir_fid), &[]));

    // What is open stays so; what is only found is judged again.
    host.chmod("d", 0);
    host.chmod("d/f", 0);
    let body = client.ask(&Tread { fid: open, offset: 0, count: 10 }, &[]).unwrap();
    assert_eq!(&body[4..], b"inside");
    assert_eq!(client.ask(&Tlopen { fid: found, flags: 0 }, &[]), Err(EACCES));
    assert_eq!(client.walk(alice, "d/f"), Err(EACCES));
    client.ask(&Treaddir { fid: dir, offset: 0, count: 4096 }, &[]).unwrap();
}

// What is closed may be kept for a moment, if nothing has changed: for nobody else than who had it open.
#[apply(promise)]
fn what_one_user_has_closed_opens_for_no_other(on: Kind) {
    let scratch = Scratch::new(on, false);
    let host = Host::new(scratch.path("share"), on);
    plant(&host, "d", true, 0o711);
    host.chmod("d/f", 0o600);
    std::thread::sleep(std::time::Duration::from_millis(150));
    let _server = listen(on, &scratch, &[]);
    let client = Client::connect(&scratch);
    let [alice, bob] = [USERS[0], USERS[2]].map(|user| client.attach(user).unwrap());
    let mut attempts = 0;
    for (path, flags) in [("d/f", O_RDONLY), ("d", O_RDONLY | O_DIRECTORY)] {
        for _ in 0..20 {
            let open = client.open(alice, path, flags).unwrap();
            client.ask(&Tclunk { fid: open }, &[]).unwrap();
            assert_eq!(client.open(bob, path, flags), Err(EACCES), "{path}");
            attempts += 1;
        }
    }
    tried("files that somebody has closed", attempts);
}

// 9P2000.u has messages of its own for most of that.
#[apply(promise)]
fn the_other_dialect_is_no_way_around(on: Kind) {
    let scratch = Scratch::new(on, false);
    let host = Host::new(scratch.path("share"), on);
    plant(&host, "d", true, 0o700);
    plant(&host, "open", true, 0o755);
    host.chmod("open/f", 0o600);
    let _server = listen(on, &scratch, &[]);
    let client = Client::speaking(&scratch, b"9P2000.u");
    let [alice, bob] = [USERS[0], USERS[2]].map(|user| client.attach(user).unwrap());
    let denied = |done: Result<Vec<u8>>| assert_eq!(done.map(drop), Err(EACCES));
    assert_eq!(client.walk(bob, "d/f"), Err(EACCES));
    let [dir, file] = ["open", "open/f"].map(|path| client.walk(bob, path).unwrap());
    denied(client.ask(&Topen { fid: file, mode: mode::READ }, &[]));
    denied(client.ask(&Topen { fid: file, mode: mode::WRITE | mode::TRUNC }, &[]));
    let create = |fid, perm, extension| Tcreate { fid, name: Text(b"new"), perm, mode: mode::READ, extension };
    for perm in [0o644, dm::DIR | 0o755, dm::SYMLINK, dm::NAMED_PIPE] {
        denied(client.ask(&create(dir, perm, Text(b"f")), &[]));
    }
    // Alice's file by another name in the root, where Bob may make names.
    let of_alice = client.walk(alice, "d/f").unwrap();
    let link = of_alice.to_string();
    assert_eq!(client.ask(&create(bob, dm::LINK, Text(link.as_bytes())), &[]), Err(EPERM));
    let wstat = |fid, stat| client.ask(&Twstat { fid, stat: Measured(Measured(stat)) }, &[]).map(drop);
    let keep = Stat::DONT_TOUCH;
    assert_eq!(wstat(file, Stat { mode: 0o777, ..keep }), Err(EPERM));
    assert_eq!(wstat(file, Stat { length: 0, ..keep }), Err(EACCES));
    assert_eq!(wstat(file, Stat { name: Text(b"g"), ..keep }), Err(EACCES));
    assert_eq!(wstat(of_alice, Stat { n_gid: USERS[2], ..keep }), Err(EPERM));
    denied(client.ask(&Tremove { fid: file }, &[]));
    assert_eq!((host.list(""), host.list("open")), (vec!["d".into(), "open".into()], vec!["e".into(), "f".into()]));
    assert_eq!(host.read("open/f"), b"inside");
    client.ask(&create(bob, 0o644, Text(b"")), &[]).unwrap();
    assert_eq!(host.stat("new").owner, ids(USERS[2], USERS[2]));
}

// fcntl(2): "EBADF": a lock for writing is for who may write
#[apply(promise)]
fn a_user_locks_what_he_may_open(on: Kind) {
    let scratch = Scratch::new(on, false);
    let host = Host::new(scratch.path("share"), on);
    host.write("f", b"");
    host.chown("f", USERS[0], USERS[1]);
    host.chmod("f", 0o644);
    let _server = listen(on, &scratch, &[]);
    let client = Client::connect(&scratch);
    let [alice, bob] = [USERS[0], USERS[2]].map(|user| client.attach(user).unwrap());
    let fids = [client.open(alice, "f", O_RDONLY).unwrap(), client.open(bob, "f", O_RDONLY).unwrap()];
    let lock = |fid, kind| {
        let message = Tlock { fid, kind, flags: 0, start: 0, length: 0, proc_id: 1, client_id: Text(b"machine") };
        client.call::<_, Rlock>(&message).map(|answer| answer.status)
    };
    assert_eq!((lock(fids[1], 1), lock(fids[1], 0)), (Err(EACCES), Ok(0)));
    assert_eq!(lock(fids[0], 1), Ok(1), "one process is not the same as two users");
    client.clunk(fids[1]).unwrap();
    assert_eq!(lock(fids[0], 1), Ok(0));
}

// intro(5): the server believes no gid that is not the user's; mkdir(2): "the set-group-ID bit"
#[apply(promise)]
fn a_file_is_of_its_makers_group_whatever_the_client_says(on: Kind) {
    let scratch = Scratch::new(on, false);
    let host = Host::new(scratch.path("share"), on);
    host.mkdir("d");
    host.chown("d", USERS[0], USERS[1]);
    host.chmod("d", 0o2777);
    let _server = listen(on, &scratch, &[]);
    let client = Client::connect(&scratch);
    let root = client.attach(USERS[0]).unwrap();
    for gid in [0, 6, USERS[1], u32::MAX] {
        let made = |dir: &str| {
            let dfid = client.walk(root, dir).unwrap();
            client.ask(&Tmkdir { dfid, name: Text(b"e"), mode: 0o755, gid }, &[]).unwrap();
            client
                .ask(&Tlcreate { fid: dfid, name: Text(b"f"), flags: O_RDWR as u32, mode: 0o2755, gid }, &[])
                .unwrap();
        };
        made("");
        made("d");
        let device = Tmknod { dfid: root, name: Text(b"dev"), mode: S_IFCHR | 0o666, major: 1, minor: 3, gid };
        assert_eq!(client.ask(&device, &[]).map(drop), Err(EPERM));
        assert_eq!(["e", "f"].map(|name| host.stat(name).owner), [ids(USERS[0], USERS[0]); 2]);
        assert_eq!(["d/e", "d/f"].map(|name| host.stat(name).owner), [ids(USERS[0], USERS[1]); 2]);
        assert_eq!(host.stat("d/f").perm() & 0o2000, 0, "he is not of that group");
        ["e", "d/e"].iter().for_each(|name| fs::remove_dir(host.path(name)).unwrap());
        ["f", "d/f"].iter().for_each(|name| host.unlink(name));
    }
}

// postern-server(1): "The host's root has to be named"; --attach-as
#[apply(promise)]
fn a_client_is_only_whom_it_may_be(on: Kind) {
    let scratch = Scratch::new(on, false);
    let host = Host::new(scratch.path("share"), on);
    host.write("f", b"");
    host.chmod("f", 0o600);
    let host_root = host.uid(0) == 0;
    let attach = |client: &Client, n_uname, uname: &[u8]| {
        let fid = client.fid();
        let message = Tattach { fid, afid: NOFID, uname: Text(uname), aname: Text(b""), n_uname };
        client.call::<_, Rattach>(&message).map(|_| fid)
    };
    {
        let _server = listen(on, &scratch, &[]);
        let client = Client::connect(&scratch);
        match attach(&client, 0, b"") {
            Ok(root) => assert!(!host_root && client.open(root, "f", O_RDWR).is_ok()),
            Err(errno) => assert!(host_root && errno == EPERM),
        }
        // As Linux does when it mounts: for nobody in particular.
        let nobody = attach(&client, NONUNAME, b"nobody").unwrap();
        assert_eq!(client.open(nobody, "f", O_RDONLY), Err(EACCES));
        client.ask(&Tgetattr { fid: nobody, request_mask: 0x7ff }, &[]).unwrap();
        assert!(attach(&client, NONUNAME, b"1000").is_ok());
    }
    fs::remove_file(scratch.path("socket")).unwrap();
    let _server = listen(on, &scratch, &["--attach-as=1000:1001", "--attach-as", "0"]);
    let client = Client::connect(&scratch);
    for (n_uname, uname, may) in [
        (1001, &b""[..], false),
        (NONUNAME, b"1001", false),
        (1000, b"", true),
        (NONUNAME, b"nobody", true),
        (0, b"", true),
    ] {
        assert_eq!(attach(&client, n_uname, uname).map(drop), if may { Ok(()) } else { Err(EPERM) }, "{n_uname}");
    }
    let root = attach(&client, 0, b"").unwrap();
    assert!(client.open(root, "f", O_RDWR).is_ok());
    host.chown("f", 5, 1001);
    host.chmod("f", 0o640);
    let first = attach(&client, NONUNAME, b"nobody").unwrap();
    assert!(client.open(first, "f", O_RDONLY).is_ok(), "the first that is named, of his group");
    assert_eq!(client.open(first, "f", O_WRONLY), Err(EACCES));
}

// getrlimit(2): "RLIMIT_NOFILE"
#[apply(promise)]
fn many_users_have_no_more_than_one_has(on: Kind) {
    let scratch = Scratch::new(on, false);
    let host = Host::new(scratch.path("share"), on);
    (0..100).for_each(|n| host.write(&format!("f{n}"), b""));
    let server = listen(on, &scratch, &["--rlimit-nofile=512"]);
    let client = Client::connect(&scratch);
    let roots: Vec<_> = (1..).map_while(|uid| client.attach(uid).ok()).collect();
    assert_eq!(roots.len(), 64);
    assert_eq!(client.attach(999), Err(EMFILE));
    for (nth, root) in roots.iter().enumerate() {
        for n in (0..100).step_by(1 + nth % 3) {
            client.walk(*root, &format!("f{n}")).unwrap();
        }
    }
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", server.0.id())).unwrap().count();
    assert!(descriptors() < 400, "{}", descriptors());
    let open: Vec<_> = (0..1000).map_while(|n| client.open(roots[n % 64], "f0", O_RDONLY).ok()).collect();
    assert!((50..400).contains(&open.len()) && descriptors() < 512, "{} {}", open.len(), descriptors());
    for root in &roots {
        client.walk(*root, "f99").unwrap();
    }
    drop(client);
    let client = Client::connect(&scratch);
    let root = loop {
        match client.attach(999) {
            Err(EMFILE) => std::thread::sleep(std::time::Duration::from_millis(10)), // until the other's end is noticed
            attached => break attached.unwrap(),
        }
    };
    client.open(root, "f7", O_RDONLY).unwrap();
    assert!(server.0.id() > 0 && fs::metadata(scratch.path("share")).unwrap().mode() & 0o777 == 0o777);
}
