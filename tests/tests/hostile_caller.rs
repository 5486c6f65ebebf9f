//! What a hostile user does to a helper of root's that any user may ask for a share. postern-policy(5)

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, UnixCredentials, sendmsg};
use nix::sys::stat::SFlag;
use nix::unistd::{Gid, Pid, Uid};
use postern_ipc::ask::send_ask;
use postern_ipc::hello::{Hello, LENGTH, News, VERSION, receive_news, send_hello};
use postern_ipc::id::Caller;
use postern_ipc::op::{Create, Mkdir};
use postern_tests::kind::bin_dir;
use postern_tests::mounts;
use postern_tests::prelude::*;
use postern_tests::processes::owner_of_namespace;
use postern_tests::share::Scratch;
use postern_tests::systemd::{INSTANCE, Systemd, as_user, ask, host_with, policy, question, write_policy};
use postern_tests::twin::{Twin, ends};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{OpenTreeFlags, open_tree};

/// The user, his group and no others.
fn ann() -> (Uid, Gid, &'static [u32]) {
    let (uid, gid) = Kind::User.starter();
    (uid, gid, &[])
}

/// Another one, who has no subordinate ids.
fn bob() -> (Uid, Gid, &'static [u32]) {
    let (uid, gid) = Kind::MappedXattr.starter();
    (uid, gid, &[])
}

/// A host with this policy, whose users ask a helper for shares; and a directory of ann's that all can reach.
fn host(policy: Option<&str>) -> (Scratch, Systemd) {
    host_with(policy);
    let scratch = Scratch::new(Kind::User, true);
    let systemd = Systemd::listen(&scratch.path(""));
    (scratch, systemd)
}

fn path_of(path: &Path) -> OwnedFd {
    open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

fn assert_says(told: &str, parts: &[&str]) {
    assert!(parts.iter().all(|part| told.contains(part)), "{told:?} lacks one of {parts:?}");
}

/// The share is given, and works.
fn assert_given(scratch: Scratch, systemd: &Systemd, who: (Uid, Gid, &[u32])) -> Twin {
    let socket = systemd.ask(who, path_of(&scratch.path("share")));
    let mut twin = Twin::greet(Kind::User, scratch, socket, systemd.instance());
    let root = twin.root.try_clone().unwrap();
    let name = postern_ipc::name::FileName::new(b"made").unwrap();
    let mode = postern_ipc::attr::Mode::new(0o755);
    twin.ask(&Mkdir { name, mode, umask: postern_ipc::attr::Mode::new(0) }, &[root.as_fd()]).unwrap();
    twin
}

// ATTACKS: a descriptor that its holder got from somebody else gives no more than the caller's ids do
#[test]
fn a_directory_that_the_caller_may_not_search_is_not_shared() {
    let (scratch, systemd) = host(None);
    let dir = scratch.path("share");
    chown(&dir, Some(0), Some(0)).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
    assert_says(&systemd.refusal(ann(), path_of(&dir)), &["enter the shared directory", "EACCES"]);
}

// open(2): O_DIRECTORY: ENOTDIR; nothing else is opened, a FIFO would wait
#[test]
fn only_directories_are_shared() {
    let (scratch, systemd) = host(None);
    let host = Host::new(scratch.path("outside"), Kind::User);
    for (name, kind) in [("fifo", SFlag::S_IFIFO), ("socket", SFlag::S_IFSOCK), ("null", SFlag::S_IFCHR)] {
        host.mknod(name, kind);
        assert_says(&systemd.refusal(ann(), path_of(&host.path(name))), &["ENOTDIR", "pass one of a directory"]);
    }
    symlink("/etc", host.path("link")).unwrap();
    let memory = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let pipe = nix::unistd::pipe().unwrap().0;
    let socket = OwnedFd::from(UnixStream::pair().unwrap().0);
    let file = OwnedFd::from(File::open(host.path("canary")).unwrap());
    for fd in [path_of(&host.path("link")), memory, pipe, socket, file] {
        assert_says(&systemd.refusal(ann(), fd), &["ENOTDIR", "pass one of a directory"]);
    }
}

// postern-helper(8): a directory of the kernel's own files is not shared, with root's helper as with the user's own
#[test]
fn no_directory_of_the_kernels_is_shared() {
    let (scratch, systemd) = host(None);
    let devices = scratch.path("outside/sys");
    fs::create_dir(&devices).unwrap();
    mounts::kernels("sysfs", &devices).unwrap();
    let dirs = [("/proc", "proc"), ("/proc/1", "proc"), ("/proc/self/fdinfo", "proc"), ("/proc/sys/kernel", "proc")];
    let dirs = dirs.map(|(dir, kind)| (Path::new(dir).to_owned(), kind));
    for (dir, kind) in dirs.into_iter().chain([(devices.clone(), "sysfs"), (devices.join("kernel"), "sysfs")]) {
        let told = systemd.refusal(ann(), path_of(&dir));
        assert_says(&told, &["cannot share a directory of", kind, "nothing in it would be opened"]);
    }
    let above = File::open(scratch.path("outside")).unwrap();
    fs::set_permissions(scratch.path("outside"), Permissions::from_mode(0o755)).unwrap();
    assert_says(&systemd.refusal(ann(), above), &["that has sysfs in it, at sys", "share it read-only"]);
}

// postern-policy(5): below: "The directory's own path on this host counts, whatever way the caller came to it"
#[test]
fn a_rule_is_about_where_a_directory_is_and_not_about_how_it_was_found() {
    let (scratch, systemd) = host(None);
    let (inside, outside) = (scratch.path("share/in"), scratch.path("outside"));
    fs::create_dir(&inside).unwrap();
    chown(&inside, Some(ann().0.as_raw()), Some(ann().1.as_raw())).unwrap();
    symlink(&outside, scratch.path("share/out")).unwrap();
    symlink(&inside, scratch.path("in")).unwrap();
    let below = scratch.path("share").display().to_string();
    write_policy(&format!("[[rule]]\nbelow = ['{below}']\n[[rule]]\nshare = 'no'\n"));
    let follow = |name: &str| File::open(scratch.path(name)).unwrap();
    for name in ["share/out", "outside", "", "share/../outside"] {
        assert_says(&systemd.refusal(ann(), follow(name)), &["rule 2 of /etc/postern/policy.toml says no"]);
    }
    let socket = systemd.ask(ann(), follow("in"));
    send_hello(&socket, &Hello { version: VERSION, channels: 1, wants_map: false }).unwrap();
    assert!(matches!(receive_news(&socket), Ok(News::Welcome(_))), "{}", systemd.log());
}

// mount_namespaces(7): the same path is another directory there; open_tree(2): a detached tree has a root of its own
#[test]
fn a_directory_that_only_looks_like_one_of_a_rule_is_not_shared() {
    let (scratch, systemd) = host(None);
    let (share, outside) = (scratch.path("share"), scratch.path("outside"));
    write_policy(&format!(
        "[[rule]]\nbelow = ['{}', '/']\nuid-map = [':0:0:9:']\ngid-map = [':0:0:9:']\n",
        share.display()
    ));
    let elsewhere = std::thread::scope(|scope| {
        let there = || {
            mounts::alone();
            mounts::bind(&outside, &share);
            path_of(&share)
        };
        scope.spawn(there).join().unwrap()
    });
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let detached = open_tree(rustix::fs::CWD, &outside, flags).unwrap();
    let removed = scratch.path("share/removed");
    fs::create_dir(&removed).unwrap();
    let gone = path_of(&removed);
    fs::remove_dir(&removed).unwrap();
    let covered = path_of(&share);
    for fd in [elsewhere, detached, gone] {
        assert_says(&systemd.refusal(ann(), fd), &["another directory or none is at /"]);
    }
    mounts::bind(&outside, &share);
    assert_says(&systemd.refusal(ann(), covered), &["another directory or none is at /", "covered by a mount"]);
}

// postern-policy(5): "must be a regular file of root's that nobody else may write to, in such a directory ... A file
// with an error refuses everything"
#[test]
fn a_policy_that_somebody_else_may_have_written_refuses_everybody() {
    let (scratch, systemd) = host(Some(""));
    let dir = policy().parent().unwrap().to_owned();
    let refused = |why: &str| {
        let told = systemd.refusal(ann(), path_of(&scratch.path("share")));
        assert_says(&told, &["believe the policy /etc/postern/policy.toml", why]);
        assert_eq!(told.lines().count(), 1);
    };
    let mode = |path: &Path, bits| fs::set_permissions(path, Permissions::from_mode(bits)).unwrap();
    mode(&policy(), 0o622);
    refused("others than root may write to it");
    mode(&policy(), 0o644);
    mode(&dir, 0o1777);
    refused("others than root may write to its directory");
    mode(&dir, 0o755);
    chown(policy(), Some(ann().0.as_raw()), None).unwrap();
    refused("it belongs to user");
    chown(policy(), Some(0), None).unwrap();
    fs::rename(policy(), dir.join("other")).unwrap();
    symlink(dir.join("other"), policy()).unwrap();
    refused("symbolic link");
    fs::remove_file(policy()).unwrap();
    write_policy("[[rule]]\nsharing = 'no'\n");
    refused("line 2: unknown field `sharing`");
    write_policy("");
    assert_given(scratch, &systemd, ann());
}

// postern-helper(8): "may take ten seconds to ask"
#[test]
fn who_asks_nothing_is_not_waited_for() {
    let (_scratch, systemd) = host(None);
    let begin = Instant::now();
    let mut socket = systemd.connect(ann().0, ann().1, &[]);
    let mut instance = systemd.instance();
    while instance.try_wait().unwrap().is_none() && begin.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(instance.try_wait().unwrap().and_then(|status| status.code()), Some(1));
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    assert!(socket.write_all(&[0; 600]).is_err());
    assert_says(&systemd.log(), &["hear what is to be shared", "EAGAIN"]);
}

// postern-policy(5): shares-per-user
#[test]
fn a_user_who_floods_is_stopped_and_the_others_are_not() {
    let (scratch, systemd) = host(Some("shares-per-user = 3\n"));
    let idle: Vec<_> = (0..3).map(|_| (systemd.connect(ann().0, ann().1, &[]), systemd.instance())).collect();
    let waits = |pid: u32| fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|at| at.starts_with("unix_"));
    for (_, instance) in &idle {
        let end = Instant::now() + Duration::from_secs(5);
        while !waits(instance.id()) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    for _ in 0..20 {
        let told = systemd.refusal(ann(), path_of(&scratch.path("share")));
        assert_says(&told, &["share one more directory", "there are 3 already", "shares-per-user"]);
    }
    let dir = scratch.path("outside");
    fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
    let socket = systemd.ask(bob(), path_of(&dir));
    send_hello(&socket, &Hello { version: VERSION, channels: 1, wants_map: false }).unwrap();
    assert!(matches!(receive_news(&socket), Ok(News::Welcome(_))), "{}", systemd.log());
    drop(systemd.instance());
    for (socket, mut instance) in idle {
        drop(socket);
        assert!(ends(&mut instance));
    }
    assert_given(scratch, &systemd, ann());
}

// postern-policy(5): "Most shares of one user at once", whatever becomes of a helper
#[test]
fn a_share_counts_as_long_as_it_is_served() {
    let (scratch, systemd) = host(Some("shares-per-user = 1\n"));
    let dir = path_of(&scratch.path("share"));
    let mut twin = assert_given(scratch, &systemd, ann());
    let helper = Pid::from_raw(twin.helper() as i32);
    assert_says(&systemd.refusal(ann(), &dir), &["there are 1 already"]);
    nix::sys::signal::kill(helper, nix::sys::signal::Signal::SIGKILL).unwrap();
    twin.renew();
    assert_says(&systemd.refusal(ann(), &dir), &["there are 1 already"]);
    twin.socket.shutdown(std::net::Shutdown::Both).unwrap();
    assert!(ends(&mut twin.warden));
    let socket = systemd.ask(ann(), &dir);
    send_hello(&socket, &Hello { version: VERSION, channels: 1, wants_map: false }).unwrap();
    assert!(matches!(receive_news(&socket), Ok(News::Welcome(_))), "{}", systemd.log());
}

// What is no question ends the instance that it came to, with one line
#[test]
fn malformed_questions_end_their_instance_only() {
    let (scratch, systemd) = host(None);
    let dir = path_of(&scratch.path("share"));
    let good = {
        let (ours, theirs) = UnixStream::pair().unwrap();
        send_ask(&ours, &question(None), dir.as_fd()).unwrap();
        let mut bytes = [0; LENGTH];
        std::io::Read::read_exact(&mut &theirs, &mut bytes).unwrap();
        bytes
    };
    let (old, noise) = (
        {
            let mut old = good;
            old[18] ^= 0xff;
            old
        },
        [0xa5; LENGTH],
    );
    let many = vec![dir.as_raw_fd(); 253];
    for (bytes, fds) in [
        (&good[..], &many[..0]),
        (&good[..], &many[..2]),
        (&good[..], &many[..]),
        (&good[..LENGTH - 1], &many[..1]),
        (&good[..1], &many[..1]),
        (&old[..], &many[..1]),
        (&noise[..], &many[..1]),
        (&[][..], &[]),
    ] {
        let socket = systemd.connect(ann().0, ann().1, &[]);
        let rights = [ControlMessage::ScmRights(fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights };
        if !bytes.is_empty() {
            sendmsg::<()>(socket.as_raw_fd(), &[std::io::IoSlice::new(bytes)], control, MsgFlags::empty(), None)
                .unwrap();
        }
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let mut instance = systemd.instance();
        assert!(ends(&mut instance), "{} bytes, {} descriptors", bytes.len(), fds.len());
        assert_eq!(instance.wait().unwrap().code(), Some(1));
    }
    let log = systemd.log();
    let lines = log.lines().filter(|line| line.contains("is given no share: cannot ")).count();
    assert_eq!((lines, log.contains("a bug")), (8, false), "{log}");
    assert_given(scratch, &systemd, ann());
}

/// What is said to who asks for a directory with a map of attributes.
fn told_of_map(systemd: &Systemd, dir: &Path, map: &str) -> Result<News, postern_ipc::Errno> {
    let socket = systemd.connect(ann().0, ann().1, &[]);
    let _ = send_ask(&socket, &question(Some(map)), path_of(dir).as_fd());
    let _ = send_hello(&socket, &Hello { version: VERSION, channels: 1, wants_map: false });
    let news = receive_news(&socket);
    drop(socket);
    assert!(ends(&mut systemd.instance()), "it goes on");
    news
}

// postern-helper(8): --by-policy: "A map of attributes ... that the server asks for is taken, unless this command line
// has one"
#[test]
fn a_map_that_is_none_or_not_the_callers_to_choose_is_refused() {
    let (scratch, systemd) = host(None);
    let dir = scratch.path("share");
    let rules = ":bad:client:x:: ".repeat(63);
    for map in ["guest", ":map::user.mine.:", &format!("{rules}:ok:all:::")] {
        assert!(matches!(told_of_map(&systemd, &dir, map), Ok(News::Welcome(_))), "{map}: {}", systemd.log());
    }
    for (map, why) in [
        ("", "no rule takes the other names"),
        ("gest", "is neither guest nor"),
        (":ok:all:::\npostern-helper: error: forged", "is neither guest nor"),
        (&"\u{1b}".repeat(1024), "is none of prefix"),
        (&format!(":ok:all:{}::", "k".repeat(1000)), "is longer than a name can be"),
    ] {
        let Ok(News::Refused(told)) = told_of_map(&systemd, &dir, map) else { panic!("{map:?}: {}", systemd.log()) };
        assert_says(&told, &["cannot use the map of attributes asked for (--xattrmap)"]);
        assert!(systemd.log().contains(why) || told.contains(why), "{map:?}: {told}");
    }
    let log = systemd.log();
    assert_eq!(log.lines().filter(|line| line.contains("is given no share: cannot use the map")).count(), 5, "{log}");
    assert!(!log.contains('\u{1b}') && !log.lines().any(|line| line.starts_with("postern-helper: error: forged")));
    let own = Systemd::start(&scratch.path("share"), &INSTANCE.replace("--by-policy", "--by-policy --xattrmap=guest"));
    let Ok(News::Refused(told)) = told_of_map(&own, &dir, ":ok:all:::") else { panic!("{}", own.log()) };
    assert_says(&told, &["(--xattrmap)", "the helper's own command line has one"]);
}

// postern-helper(8): --xattrmap, for who is served by policy: names only become others, what the kernel lets him do
// does not
#[test]
fn a_map_gives_a_caller_no_attribute_that_was_not_his() {
    let share = Kind::Asked.setup().public().xattrmap(":prefix:all:user.cap:security.:: :ok:all:::");
    let mut server = share.start();
    let ended = server.child.wait().unwrap();
    assert!(!ended.success() && server.log().contains("(--xattrmap)"), "{}", server.log());
    let share = Kind::Asked.setup().public().xattrmap("guest").serve();
    share.put("f", b"hello").unwrap();
    share.setxattr("f", "trusted.a", b"x", 0).unwrap();
    assert_eq!(share.host.getxattr("f", "user.postern.trusted.a").unwrap(), b"x");
    assert_eq!(share.setxattr("f", "user.postern.trusted.a", b"forged", 0), Err(EPERM));
    let direct = Kind::Asked.setup().public().xattrmap(":ok:all:::").serve();
    direct.put("f", b"hello").unwrap();
    assert_eq!(direct.setxattr("f", "trusted.a", b"x", 0), Err(EPERM));
    assert_eq!(direct.setxattr("f", "security.capability", &[0; 20], 0), Err(EPERM));
}

/// A process of somebody's in a user namespace that has no map yet.
fn unmapped(who: (Uid, Gid, &[u32])) -> std::process::Child {
    let mut command = Command::new("unshare");
    command.args(["--user", "sleep", "60"]).uid(who.0.as_raw()).gid(who.1.as_raw());
    let child = command.spawn().unwrap();
    let asleep = || fs::read_to_string(format!("/proc/{}/comm", child.id())).is_ok_and(|name| name == "sleep\n");
    while !asleep() {
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

// newuidmap(1): "the process ... must be owned by the user"; unix(7): a privileged process may send another's
// credentials
#[test]
fn only_the_callers_own_process_gets_his_ids() {
    let (scratch, systemd) = host(None);
    for (owner, gets) in [(ann(), true), (bob(), false), ((Uid::from_raw(0), Gid::from_raw(0), &[][..]), false)] {
        let mut process = unmapped(owner);
        let socket = systemd.ask(ann(), path_of(&scratch.path("share")));
        let credentials = UnixCredentials::from(libc::ucred { pid: process.id() as i32, uid: 0, gid: 0 });
        let hello = {
            let (ours, theirs) = UnixStream::pair().unwrap();
            send_hello(&ours, &Hello { version: VERSION, channels: 1, wants_map: true }).unwrap();
            let mut bytes = [0; LENGTH];
            std::io::Read::read_exact(&mut &theirs, &mut bytes).unwrap();
            bytes
        };
        let control = [ControlMessage::ScmCredentials(&credentials)];
        sendmsg::<()>(socket.as_raw_fd(), &[std::io::IoSlice::new(&hello)], &control, MsgFlags::empty(), None).unwrap();
        let news = receive_news(&socket);
        assert_eq!(matches!(news, Ok(News::Mapped { .. })), gets, "{news:?} {}", systemd.log());
        let map = fs::read_to_string(format!("/proc/{}/uid_map", process.id())).unwrap();
        assert_eq!(!map.trim().is_empty(), gets, "{map}");
        process.kill().unwrap();
        process.wait().unwrap();
        drop(systemd.instance());
    }
}

// newgidmap(1), user_namespaces(7): who has no subordinate group ids cannot leave a group, which may be what keeps him
// out
#[test]
fn without_subordinate_ids_a_caller_stays_in_his_groups() {
    let (scratch, systemd) = host(None);
    let dir = scratch.path("share");
    chown(&dir, Some(0), Some(4242)).unwrap();
    fs::set_permissions(&dir, Permissions::from_mode(0o707)).unwrap();
    let (uid, gid, _) = bob();
    assert_says(&systemd.refusal((uid, gid, &[4242]), path_of(&dir)), &["enter the shared directory", "EACCES"]);
    fs::set_permissions(&dir, Permissions::from_mode(0o770)).unwrap();
    assert_says(&systemd.refusal((uid, gid, &[4243]), path_of(&dir)), &["enter the shared directory", "EACCES"]);
    let socket = systemd.ask((uid, gid, &[5, 4242]), path_of(&dir));
    let twin = Twin::greet(Kind::User, scratch, socket, systemd.instance());
    let status = fs::read_to_string(format!("/proc/{}/status", twin.helper())).unwrap();
    let groups = status.lines().find(|line| line.starts_with("Groups:")).unwrap();
    assert_eq!(groups.split_whitespace().collect::<Vec<_>>(), ["Groups:", "5", "4242"]);
    assert_eq!(fs::read_to_string(format!("/proc/{}/setgroups", twin.helper())).unwrap(), "deny\n");
}

// postern-policy(5): a guest has the caller's ids and his subordinate ones, "nothing more than newuidmap(1) and
// newgidmap(1) would give him"
#[test]
fn nothing_on_the_host_is_his_that_was_not() {
    let (scratch, systemd) = host(None);
    let mut twin = assert_given(scratch, &systemd, ann());
    let (warden, helper) = (twin.warden.id(), twin.helper());
    assert_eq!(owner_of_namespace(helper), 0, "all power in it would be his");
    let (uid, gid) = (ann().0.as_raw(), ann().1.as_raw());
    for (file, own) in [("uid_map", uid), ("gid_map", gid)] {
        let map = fs::read_to_string(format!("/proc/{warden}/{file}")).unwrap();
        let first: Vec<u32> = map.lines().next().unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!((first, map.lines().count()), (vec![0, own, 1], 2), "{map}");
    }
    for pid in [warden, helper] {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().split_whitespace().skip(1);
        assert!(field("Uid:").all(|id| id == uid.to_string()), "{status}");
        assert!(field("Gid:").all(|id| id == gid.to_string()), "{status}");
        assert_eq!(
            (field("Groups:").count(), field("NoNewPrivs:").next(), field("Seccomp:").next()),
            (0, Some("1"), Some("2"))
        );
    }
    let root = twin.root.try_clone().unwrap();
    let name = postern_ipc::name::FileName::new(b"foreign").unwrap();
    let mode = postern_ipc::attr::Mode::new(0o644);
    let flags = postern_ipc::attr::OpenFlags::WRITE | postern_ipc::attr::OpenFlags::EXCL;
    let as_user =
        |uid| Caller::User { uid: postern_ipc::id::GuestUid(uid), gid: postern_ipc::id::GuestGid(uid), group: None };
    let create = Create { name, mode, umask: mode, flags };
    assert_eq!(
        twin.ask_as(as_user(4_000_000), &create, &[root.as_fd()], b"").err(),
        Some(postern_ipc::Errno::EOVERFLOW)
    );
    twin.assert_contained();
}

// postern-helper(8): --by-policy: "systemd's socket"
#[test]
fn a_helper_that_systemd_did_not_start_serves_nobody() {
    let helper = bin_dir().join("postern-helper");
    let (ours, _theirs) = UnixStream::pair().unwrap();
    for (script, why) in [
        (r#"exec "$0" --by-policy 3<&0"#, "systemd has not passed one socket"),
        (r#"LISTEN_PID=1 LISTEN_FDS=1 exec "$0" --by-policy 3<&0"#, "systemd has not passed one socket"),
        (r#"export LISTEN_PID=$$ LISTEN_FDS=2; exec "$0" --by-policy 3<&0"#, "systemd has not passed one socket"),
        (r#"export LISTEN_PID=$$ LISTEN_FDS=1; exec "$0" --by-policy 3</dev/null"#, "ENOTSOCK"),
    ] {
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(&helper).stdin(OwnedFd::from(ours.try_clone().unwrap()));
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_says(&String::from_utf8(output.stderr).unwrap(), &["--by-policy", why]);
    }
}

// execve(2): a set-user-id program is started by whom it must not trust
#[test]
fn a_helper_with_set_id_bits_refuses_its_users() {
    let scratch = Scratch::new(Kind::User, true);
    let copy = scratch.path("helper");
    fs::copy(bin_dir().join("postern-helper"), &copy).unwrap();
    chown(&copy, Some(0), Some(0)).unwrap();
    fs::set_permissions(&copy, Permissions::from_mode(0o4755)).unwrap();
    let (uid, gid, _) = ann();
    let (ours, _theirs) = UnixStream::pair().unwrap();
    let script = r#"exec "$0" --sock-fd 3 --shared-dir /etc 3<&0"#;
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(&copy).stdin(OwnedFd::from(ours)).uid(uid.as_raw()).gid(gid.as_raw());
    let output = command.stdout(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_says(&String::from_utf8(output.stderr).unwrap(), &["more privileges than who starts it", "--by-policy"]);
}

/// What a process was started with that it has kept.
fn kept(pid: u32, fields: &[&str]) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &&str| status.lines().find(|line| line.starts_with(*name)).unwrap().split_once('\t').unwrap().1;
    fields.iter().map(field).map(str::to_owned).collect()
}

// postern-helper(8): "All other descriptors but the standard ones, the environment, signals and limits of the caller
// are given up"
#[test]
fn nothing_is_kept_of_how_an_instance_was_started() {
    const HOSTILE: &str = r#"export LISTEN_PID=$$ LISTEN_FDS=1; umask 0; ulimit -f 1; trap '' TERM INT HUP CHLD USR1 RTMIN+3
        exec "$0" --by-policy 3<&0 7</etc/passwd 8</ 9<&2 </etc/passwd"#;
    host_with(None);
    let scratch = Scratch::new(Kind::User, true);
    let (ours, theirs) = as_user(ann().0, ann().1, &[], || UnixStream::pair().unwrap());
    let mut command = Command::new("sh");
    command.args(["-c", HOSTILE]).arg(bin_dir().join("postern-helper")).current_dir(scratch.path("outside"));
    command.env("LD_PRELOAD", "/no/such.so").env("TZ", "/etc/shadow").stdin(OwnedFd::from(theirs));
    let instance = command.stderr(File::create(scratch.path("log")).unwrap()).spawn().unwrap();
    ask(&ours, path_of(&scratch.path("share")));
    let twin = Twin::greet(Kind::User, scratch, ours, instance);
    for pid in [twin.warden.id(), twin.helper()] {
        assert_eq!(kept(pid, &["Umask:"]), ["0077"]);
        let [ignored, caught] = kept(pid, &["SigIgn:", "SigCgt:"]).try_into().unwrap();
        let ignored = u64::from_str_radix(&ignored, 16).unwrap();
        // Two more are the C library's own.
        let ignored = ignored & !(0b11 << 31);
        assert_eq!(ignored, 1 << (libc::SIGPIPE - 1) | 1 << (libc::SIGXFSZ - 1), "caught: {caught}");
        let open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|fd| fd.unwrap().path()).collect();
        let leads = |path: &Path| fs::read_link(path).unwrap_or_default();
        assert!(open.iter().all(|fd| leads(fd) != Path::new("/etc/passwd")), "{open:?}");
        let input = leads(Path::new(&format!("/proc/{pid}/fd/0")));
        assert!(input.display().to_string().starts_with("pipe:["), "{}", input.display());
    }
    assert!(!Path::new(&format!("/proc/{}/cwd/canary", twin.warden.id())).exists());
    let pid = Pid::from_raw(twin.warden.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let mut twin = twin;
    assert!(ends(&mut twin.warden), "a signal that was ignored before asks for the end");
}

// postern-helper(8): --syslog; --by-policy: "One line says who was given what with which ids, or why not"
#[test]
fn the_systems_log_has_one_line_of_each_who_asked() {
    host_with(None);
    let scratch = Scratch::new(Kind::User, true);
    mounts::devices(&scratch.path("outside"));
    let log = UnixDatagram::bind("/dev/log").unwrap();
    log.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let syslog = INSTANCE.replace("--by-policy", "--by-policy --syslog");
    let systemd = Systemd::start(&scratch.path(""), &syslog);
    let line = |about: &str| {
        let mut lines = std::iter::from_fn(|| {
            let mut text = [0; 2048];
            let length = log.recv(&mut text).ok()?;
            Some(String::from_utf8_lossy(&text[..length]).into_owned())
        });
        lines
            .find(|line| line.contains("uid ") && line.contains(" is given "))
            .inspect(|line| assert_says(line, &[about]))
    };
    systemd.refusal(ann(), File::open("/dev/null").unwrap());
    assert_says(&line("is given no share: cannot ").unwrap(), &["<27>postern-helper[", "ENOTDIR"]);
    let _twin = assert_given(scratch, &systemd, ann());
    assert_says(&line("/share\", read-write, passthrough, ").unwrap(), &["<30>postern-helper[", ", by default"]);
    log.set_nonblocking(true).unwrap();
    assert_eq!(line(""), None);
}

// postern-helper(8): --by-policy: "One line says who was given what with which ids"
#[test]
fn the_log_says_who_shares_what() {
    let (scratch, systemd) = host(None);
    let dir = scratch.path("share").display().to_string();
    let _twin = assert_given(scratch, &systemd, ann());
    let log = systemd.log();
    let (uid, gid) = (ann().0.as_raw(), ann().1.as_raw());
    let start = format!(
        "postern-helper: info: uid {uid} gid {gid} is given \"{dir}\", read-write, passthrough, uids :0:{uid}:1: "
    );
    let lines: Vec<_> = log.lines().filter(|line| line.starts_with(&start)).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].ends_with(", by default"), "{log}");
}
