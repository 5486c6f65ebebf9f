//! Other file systems in a share whose files are the kernel itself: what a server that somebody has taken over could
//! tell the host's kernel by the helper. Of that of processes a file of its own is about.

use std::collections::VecDeque;
use std::fs::read_dir;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use postern_ipc::Errno;
use postern_ipc::attr::OpenFlags;
use postern_ipc::hello::{Hello, News, VERSION, receive_news, send_hello};
use postern_ipc::id::Caller;
use postern_ipc::op::{Open, Stat};
use postern_tests::hostile::tried;
use postern_tests::mounts;
use postern_tests::prelude::*;
use postern_tests::sweep::one_of_each;
use postern_tests::twin::{self, Outcome, Twin};

/// Those that a kernel may have.
const KERNELS: [&str; 11] = [
    "sysfs",
    "cgroup2",
    "debugfs",
    "tracefs",
    "bpf",
    "securityfs",
    "binfmt_misc",
    "configfs",
    "pstore",
    "devpts",
    "fusectl",
];
/// Those that each kernel has on which this is tested.
const ALWAYS: [&str; 3] = ["sysfs", "cgroup2", "devpts"];
/// Most files of one that are tried.
const MOST: usize = 25;

/// Those that this kernel has.
fn here() -> Vec<&'static str> {
    let place = tempfile::tempdir().unwrap();
    let can = |kind: &&str| mounts::kernels(kind, place.path()).map(|()| mounts::detach(place.path())).is_ok();
    let found: Vec<_> = KERNELS.into_iter().filter(can).collect();
    assert!(ALWAYS.iter().all(|kind| found.contains(kind)), "{found:?}");
    found
}

/// What a helper says to a server that is to have such a share.
fn told(on: Kind, args: &[&str], plant: impl FnOnce(&Host)) -> Result<News, Errno> {
    let (scratch, socket, mut warden) = twin::start_planted(on, args, plant);
    let _ = send_hello(&socket, &Hello { version: VERSION, channels: 1, wants_map: false });
    let news = receive_news(&socket);
    drop(socket);
    assert!(twin::ends(&mut warden));
    ["k", ""].iter().for_each(|name| mounts::detach_all(&scratch.path("share").join(name)));
    news
}

fn assert_refused(news: &Result<News, Errno>, kind: &str) {
    assert!(matches!(news, Ok(News::Refused(why)) if why.contains(kind)), "{kind}: {news:?}");
}

// postern-helper(8): a directory that has a file system of the kernel's own in it is shared for reading only
#[apply(promise)]
fn what_the_kernel_does_is_not_shared_for_writing(on: Kind) {
    mounts::alone();
    let found = here();
    for kind in &found {
        let news = told(on, &[], |host| {
            host.mkdir("k");
            mounts::kernels(kind, &host.path("k")).unwrap();
        });
        assert_refused(&news, &format!("a directory that has {kind} in it, at k"));
    }
    tried("file systems of the kernel's", found.len());
}

// mount(8): --bind: a directory, or a file, of such a file system is of it
#[apply(promise)]
fn a_piece_of_the_kernel_is_not_shared_for_writing(on: Kind) {
    mounts::alone();
    mounts::kernels("sysfs", Path::new("/mnt")).unwrap();
    for piece in ["kernel", "kernel/uevent_seqnum"] {
        let news = told(on, &[], |host| {
            let (from, to) = (Path::new("/mnt").join(piece), host.path("k"));
            if from.is_dir() {
                host.mkdir("k")
            } else {
                host.write("k", b"")
            }
            mounts::bind(&from, &to);
        });
        assert_refused(&news, "a directory that has sysfs in it, at k");
    }
}

// namespaces(7): a file that a namespace is bound to, as ip-netns(8) does, is opened to enter it
#[apply(promise)]
fn a_namespace_in_a_share_is_not_opened(on: Kind) {
    mounts::alone();
    let plant = |host: &Host| {
        host.write("k", b"");
        mounts::bind(Path::new("/proc/self/ns/net"), &host.path("k"));
    };
    assert_refused(&told(on, &[], plant), "a directory that has nsfs in it, at k");
    let mut twin = Twin::planted(on, &["--readonly"], plant);
    let file = twin.pin("k");
    let opened = twin.ask(&Open { flags: OpenFlags::READ }, &[file.as_fd()]).map(drop);
    assert_eq!(opened, Err(Errno::EACCES));
    mounts::detach_all(&twin.host.path("k"));
}

// postern-helper(8): a directory of such a file system is not shared
#[apply(promise)]
fn the_kernel_itself_is_not_shared(on: Kind) {
    mounts::alone();
    for kind in here() {
        for args in [&[][..], &["--readonly"]] {
            let mut closed = false;
            let news = told(on, args, |host| {
                mounts::kernels(kind, &host.path("")).unwrap();
                closed = host.stat("").perm() & 0o005 == 0;
            });
            if closed && on.is_ordinary_user() {
                assert!(!matches!(news, Ok(News::Welcome(_))), "{kind}: {news:?}");
            } else {
                assert_refused(&news, &format!("share a directory of {kind}"));
            }
        }
    }
}

/// Files and directories of a tree, those at its top first.
fn files(top: &Path) -> Vec<PathBuf> {
    let (mut found, mut left) = (vec![PathBuf::new()], VecDeque::from([PathBuf::new()]));
    while let Some(dir) = left.pop_front().filter(|_| found.len() < MOST) {
        for entry in read_dir(top.join(&dir)).unwrap().map(Result::unwrap) {
            let path = dir.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                left.push_back(path.clone());
            }
            found.push(path);
        }
    }
    found.truncate(MOST);
    found
}

// postern-helper(8): what is in such a file system can be looked at, and not opened
#[apply(promise)]
fn a_helper_opens_and_changes_nothing_that_is_the_kernels(on: Kind) {
    mounts::alone();
    let found = here();
    let mut twin = Twin::planted(on, &["--readonly"], |host| {
        for kind in &found {
            host.mkdir(kind);
            mounts::kernels(kind, &host.path(kind)).unwrap();
        }
    });
    let mut attempts = 0;
    for kind in &found {
        for path in files(&twin.host.path(kind)) {
            let node = twin.pin(Path::new(kind).join(&path).to_str().unwrap().trim_end_matches('/'));
            for request in one_of_each() {
                let serial = twin.serial();
                let at = vec![node.as_fd(); request.kind.descriptors()];
                match twin.exchange(&request.frame(serial, Caller::Root), &request.data, &at) {
                    Outcome::Answered(Some(_), given) if given.is_empty() => attempts += 1,
                    other => panic!("{kind} {}: {:?}: {other:?}", path.display(), request.kind),
                }
            }
        }
    }
    tried("files of the kernel's", attempts);
    let root = twin.root.try_clone().unwrap();
    twin.ask(&Stat {}, &[root.as_fd()]).unwrap();
    assert_eq!(twin.errors(), 0, "{}", twin.scratch.log());
    found.iter().for_each(|kind| mounts::detach_all(&twin.host.path(kind)));
}
