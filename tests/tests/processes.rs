//! A file system of processes in a share: what a guest, or a server that it has taken over, could do with the files of
//! the helper itself, of the server and of others there; and mounts that come when the share is served already.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use postern_ipc::Errno;
use postern_ipc::hello::{Hello, News, VERSION, receive_news, send_hello};
use postern_ipc::id::Caller;
use postern_ipc::name::FileName;
use postern_ipc::op::{Lookup, OpenDir, Stat};
use postern_tests::foreign::mute;
use postern_tests::hostile::tried;
use postern_tests::mounts;
use postern_tests::prelude::*;
use postern_tests::sweep::{one_of_each, requests};
use postern_tests::twin::{self, Outcome, Twin};
use rustix::fs::{Mode, OFlags, openat};

/// What a process has there.
const FILES: [&str; 20] = [
    ".",
    "mem",
    "maps",
    "smaps",
    "environ",
    "auxv",
    "pagemap",
    "clear_refs",
    "syscall",
    "stack",
    "comm",
    "oom_score_adj",
    "attr/current",
    "fd",
    "fdinfo",
    "map_files",
    "ns",
    "exe",
    "root",
    "cwd",
];

fn plant(host: &Host) {
    host.mkdir("p");
    mounts::processes(&host.path("p"));
}

/// Where processes and their threads are, below a file system of them.
fn places(pids: &[u32]) -> Vec<String> {
    let threads = |pid: &u32| {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let own = *pid;
        tasks.map(move |task| format!("{own}/task/{}", task.unwrap().file_name().to_str().unwrap())).collect::<Vec<_>>()
    };
    let own = pids.iter().map(u32::to_string);
    own.chain(pids.iter().flat_map(threads)).collect()
}

// proc_pid_mem(5): a process may open its own memory without any right: the helper its own, for whoever asks it to
#[apply(promise)]
fn a_helper_opens_and_changes_nothing_of_any_process(on: Kind) {
    mounts::alone();
    let mut twin = Twin::planted(on, &["--readonly"], plant);
    let pids = [twin.helper(), twin.warden.id(), std::process::id(), 1];
    let mut attempts = 0;
    for path in places(&pids).iter().flat_map(|place| FILES.map(|file| format!("p/{place}/{file}"))) {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Of another thread than its first a process shows less.
        let Ok(node) = openat(&twin.root, path.as_str(), flags, Mode::empty()) else { continue };
        for request in one_of_each() {
            let serial = twin.serial();
            let at = vec![node.as_fd(); request.kind.descriptors()];
            match twin.exchange(&request.frame(serial, Caller::Root), &request.data, &at) {
                Outcome::Answered(Some(_), given) if given.is_empty() => attempts += 1,
                other => panic!("{path}: {:?}: {other:?}", request.kind),
            }
        }
    }
    // Reading, writing, both, whatever else: the first of a row is not all of it.
    let memory = twin.pin(&format!("p/{}/mem", twin.helper()));
    for request in requests().into_iter().filter(|request| request.kind.descriptors() == 1).step_by(3) {
        let serial = twin.serial();
        let outcome = twin.exchange(&request.frame(serial, Caller::Root), &request.data, &[memory.as_fd()]);
        assert!(matches!(&outcome, Outcome::Answered(Some(_), given) if given.is_empty()), "{:?}", request.kind);
        attempts += 1;
    }
    tried("files of processes", attempts);
    let root = twin.root.try_clone().unwrap();
    twin.ask(&Stat {}, &[root.as_fd()]).unwrap();
    assert_eq!(twin.errors(), 0, "{}", twin.scratch.log());
    mounts::detach_all(&twin.host.path("p"));
}

// postern-helper(8): what is in a proc file system can be looked at, and not opened
#[apply(promise)]
fn a_guest_sees_processes_and_opens_nothing_of_them(on: Kind) {
    mounts::alone();
    let share = on.setup().plant(plant).readonly().serve();
    let warden = twin::children(share.server.child.id())[0];
    let helper = twin::children(warden)[0];
    share.lookup("p").unwrap();
    let mut attempts = 0;
    for path in places(&[share.server.child.id(), warden, helper, 1]) {
        for file in ["mem", "environ", "maps", "comm", "auxv"] {
            let path = format!("p/{path}/{file}");
            for flags in [O_RDONLY, O_RDWR, O_WRONLY, O_RDONLY | O_TRUNC] {
                assert!(share.open(path.as_str(), flags).is_err(), "{path} {flags:o}");
                attempts += 1;
            }
        }
        assert!(share.list(format!("p/{path}/fd").as_str()).is_err(), "{path}");
    }
    tried("files of processes for a guest", attempts);
    mounts::detach_all(&share.host.path("p"));
}

/// What it is called, and how it is made at a place.
type Disguise = (&'static str, fn(&Path));

/// What somebody may have done so that it does not look like a file system of processes.
const DISGUISES: [Disguise; 6] = [
    ("as it is", mounts::processes),
    ("a process's directory", |at| mounts::bind(Path::new("/proc/self"), at)),
    ("a directory in one", |at| mounts::bind(Path::new("/proc/sys/kernel"), at)),
    ("below another file system", |at| {
        mounts::memory(at, (0, 0));
        std::fs::create_dir(at.join("deeper")).unwrap();
        mounts::processes(&at.join("deeper"));
    }),
    ("a file", |at| {
        mounts::memory(at, (0, 0));
        std::fs::write(at.join("file"), "").unwrap();
        mounts::bind(Path::new("/proc/self/mem"), &at.join("file"));
    }),
    ("covered by another file system", |at| {
        mounts::processes(at);
        mounts::memory(at, (0, 0));
    }),
];

// postern-helper(8): a directory that has a proc file system in it is shared for reading only
#[apply(promise)]
fn processes_in_any_disguise_are_not_shared_for_writing(on: Kind) {
    mounts::alone();
    for (what, disguise) in DISGUISES {
        let mut place = None;
        let (scratch, socket, mut warden) = twin::start_planted(on, &[], |host| {
            host.mkdir("p");
            disguise(&host.path("p"));
            place = Some(host.path("p"));
        });
        let _ = send_hello(&socket, &Hello { version: VERSION, channels: 1, wants_map: false });
        let news = receive_news(&socket);
        assert!(
            matches!(&news, Ok(News::Refused(why)) if why.contains("that has proc in it")),
            "{what}: {news:?} {}",
            scratch.log()
        );
        assert!(twin::ends(&mut warden));
        let place = place.unwrap();
        ["deeper", "file"].iter().for_each(|name| mounts::detach_all(&place.join(name)));
        mounts::detach_all(&place);
    }
    tried("disguises", DISGUISES.len());
    // Nothing is stacked on processes: then it would have to be looked for there, too.
    let scratch = postern_tests::share::Scratch::new(on, false);
    let at = scratch.path("share");
    let over = nix::mount::mount(
        Some("over"),
        &at,
        Some("overlay"),
        nix::mount::MsFlags::empty(),
        Some("lowerdir=/proc:/sys"),
    );
    assert!(over.is_err());
}

fn lookup(name: &str) -> Lookup {
    Lookup { name: FileName::new(name.as_bytes()).unwrap() }
}

// mount_namespaces(7): MS_SHARED, MS_PRIVATE: "what the host mounts or unmounts later changes nothing in it"
#[apply(promise)]
fn what_is_mounted_on_a_shared_mount_later_does_not_arrive(on: Kind) {
    mounts::alone();
    let mut twin = Twin::planted(on, &[], |host| {
        mounts::bind(&host.path(""), &host.path(""));
        mounts::share(&host.path(""));
        ["later", "mute"].iter().for_each(|name| host.mkdir(name));
        host.write("later/below", b"x");
    });
    let (later, silent) = (twin.host.path("later"), twin.host.path("mute"));
    mounts::processes(&later);
    drop(mute());
    mounts::bind(Path::new("/mnt"), &silent);
    let root = twin.root.try_clone().unwrap();
    let mut attempts = 0;
    for (name, hidden) in [("later", "self"), ("mute", "x")] {
        let since = Instant::now();
        twin.ask(&lookup(name), &[root.as_fd()]).unwrap();
        let dir = twin.pin(name);
        twin.ask(&OpenDir {}, &[dir.as_fd()]).unwrap();
        twin.ask(&Stat {}, &[dir.as_fd()]).unwrap();
        assert_eq!(twin.ask(&lookup(hidden), &[dir.as_fd()]).map(drop), Err(Errno::ENOENT), "{name}");
        assert!(since.elapsed() < Duration::from_secs(2), "{name}");
        attempts += 4;
    }
    assert!(twin.ask(&lookup("below"), &[twin.pin("later").as_fd()]).is_ok());
    tried("mounts that come later", attempts);
    [&later, &silent, &twin.host.path("")].into_iter().for_each(|path| mounts::detach_all(path));
    assert_eq!(twin.errors(), 0, "{}", twin.scratch.log());
}
