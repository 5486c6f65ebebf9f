//! What the helper is asked for, and what it is not asked for again.

use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use postern_tests::kind::bin_dir;
use postern_tests::mounts;
use postern_tests::prelude::*;

/// A share that counts.
struct Counted {
    share: Share,
    socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl Counted {
    fn new(on: Kind) -> Self {
        Self::with(on, &[])
    }

    fn with(on: Kind, args: &[&str]) -> Self {
        Self::of(args.iter().fold(on.setup(), |setup, arg| setup.arg(arg)))
    }

    fn of(setup: Setup) -> Self {
        let dir = tempfile::TempDir::new_in("/var/tmp").unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        let socket = dir.path().join("stat");
        let share = setup.arg(&format!("--stats-socket={}", socket.display())).serve();
        Self { share, socket, _dir: dir }
    }

    /// How often the helper is asked while `act` acts.
    fn hops<R>(&self, act: impl FnOnce(&Share) -> R) -> (u64, R) {
        let before = hops(&self.socket);
        let result = act(&self.share);
        (hops(&self.socket) - before, result)
    }
}

/// How often the helper was asked.
fn hops(socket: &Path) -> u64 {
    let output = std::process::Command::new(bin_dir().join("postern")).arg("stat").arg(socket).arg("--once").output();
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let count = text.split_once("the helper was asked ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    count.unwrap_or_else(|| panic!("{text}"))
}

// postern-server(1): stat; what has not changed is opened without the helper, by whoever opens it
#[apply(promise)]
fn what_is_opened_once_more_is_not_asked_for(on: Kind) {
    let counted = Counted::new(on);
    let share = &counted.share;
    share.host.mkdir("d");
    share.host.write("d/f", b"hello");
    // Longer than the kernel's clock for files stands still.
    sleep(Duration::from_millis(150));
    let all = || (share.get("d/f").unwrap(), share.list("d").unwrap());
    all();
    let (asked, (first, dir, second)) = counted.hops(|share| {
        for _ in 0..20 {
            assert_eq!(all(), (b"hello".to_vec(), vec!["f".into()]));
        }
        let (first, dir) = (share.open("d/f", O_RDONLY).unwrap(), share.opendir("d").unwrap());
        (first, dir, share.open("d/f", O_RDONLY).unwrap())
    });
    assert_eq!(asked, 0);
    share.release(&first).unwrap();
    assert_eq!(share.read(&second, 1, 9).unwrap(), b"ello");
    let (asked, other) = counted.hops(|share| share.opendir("d").unwrap());
    assert_eq!(asked, 1, "each who reads a directory has a place in it");
    for dir in [dir, other] {
        assert_eq!(share.entries(&dir).unwrap().iter().filter(|entry| entry.name == "f").count(), 1);
    }
    let (asked, file) = counted.hops(|share| share.open("d/f", O_WRONLY).unwrap());
    share.write(&file, 0, b"other").unwrap();
    assert_eq!((asked, share.get("d/f").unwrap()), (1, b"other".to_vec()));
}

/// A share with a directory `d` of files that have not changed for a while, and their nodes in the order in which the
/// guest came to know them.
fn files(on: Kind, count: usize, args: &[&str]) -> (Counted, Vec<(String, u64)>) {
    let counted = Counted::with(on, args);
    let share = &counted.share;
    share.host.mkdir("d");
    share.host.mkdir("d/dir");
    (0..count).for_each(|n| share.host.write(&format!("d/f{n}"), format!("text of f{n}").as_bytes()));
    // Longer than the kernel's clock for files stands still.
    sleep(Duration::from_millis(150));
    let dir = share.opendir("d").unwrap();
    let listed = share.readdirplus(&dir, 0, 32_768).unwrap();
    let nodes = listed.into_iter().map(|(entry, dirent)| (dirent.name, entry.nodeid));
    let nodes = nodes.filter(|(name, _)| name.starts_with('f')).collect();
    (counted, nodes)
}

/// What a file says that is opened and closed.
fn text(share: &Share, node: u64) -> nix::Result<String> {
    let file = share.open(node, O_RDONLY)?;
    let text = share.read(&file, 0, 99)?;
    share.release(&file)?;
    Ok(String::from_utf8(text).unwrap())
}

fn each_says_what_it_is<'a>(share: &Share, nodes: impl Iterator<Item = &'a (String, u64)>) {
    nodes.for_each(|(name, node)| assert_eq!(text(share, *node), Ok(format!("text of {name}"))));
}

// postern-server(1): --open-ahead: "in the order in which they were listed"
#[apply(promise)]
fn files_opened_in_their_order_are_asked_for_together(on: Kind) {
    let (counted, nodes) = files(on, 40, &[]);
    let (asked, ()) = counted.hops(|share| each_says_what_it_is(share, nodes.iter()));
    assert!((6..=9).contains(&asked), "one, two, four, and then eight at once: {asked}");
    assert_eq!(counted.hops(|share| each_says_what_it_is(share, nodes.iter())).0, 0);
}

// postern-server(1): --open-ahead: "one here and one there" is opened by itself, and with 0 all are
#[apply(promise)]
fn files_opened_in_no_order_are_asked_for_one_by_one(on: Kind) {
    let (counted, nodes) = files(on, 40, &[]);
    let here_and_there = [20, 39, 5, 30, 10].map(|at: usize| &nodes[at]);
    assert_eq!(counted.hops(|share| each_says_what_it_is(share, here_and_there.into_iter())).0, 5);
    let (counted, nodes) = files(on, 40, &[]);
    assert_eq!(counted.hops(|share| each_says_what_it_is(share, nodes.iter().rev())).0, 40);
    let (counted, nodes) = files(on, 40, &["--open-ahead=0"]);
    assert_eq!(counted.hops(|share| each_says_what_it_is(share, nodes.iter())).0, 40);
}

// postern-server(1): --open-ahead: "or the directories in it": whoever walks a tree comes to the next directory only
// after all that is in the one before
#[apply(promise)]
fn directories_of_a_tree_that_is_walked_are_asked_for_together(on: Kind) {
    let counted = Counted::new(on);
    counted.share.host.mkdir("d");
    for (n, below) in (0..20).flat_map(|n| ["", "/a", "/b"].map(|below| (n, below))) {
        counted.share.host.mkdir(&format!("d/{n}{below}"));
        counted.share.host.write(&format!("d/{n}{below}/f{n}"), b"");
    }
    // Longer than the kernel's clock for files stands still.
    sleep(Duration::from_millis(150));
    let mut dirs = 0;
    let (asked, names) = counted.hops(|share| {
        let top = share.lookup("d").unwrap().nodeid;
        walk(share, top, &mut dirs)
    });
    let mut expected: Vec<_> = (0..20).flat_map(|n| vec![format!("f{n}"); 3]).collect();
    expected.sort_unstable();
    assert_eq!((dirs, names), (61, expected));
    assert!(asked < 30, "{asked} questions for {dirs} directories");
}

/// Names of files below a directory, and how many directories there are.
fn walk(share: &Share, node: u64, dirs: &mut usize) -> Vec<String> {
    let dir = share.opendir(node).unwrap();
    let listed = share.readdirplus(&dir, 0, 32_768).unwrap();
    *dirs += 1;
    let mut names = Vec::new();
    for (entry, dirent) in listed.into_iter().filter(|(_, dirent)| !dirent.name.starts_with('.')) {
        if entry.attr.mode & S_IFMT == S_IFDIR {
            names.extend(walk(share, entry.nodeid, dirs));
        } else {
            names.push(dirent.name);
        }
    }
    share.releasedir(&dir).unwrap();
    names.sort_unstable();
    names
}

// opendir(3), readdir(3): what is listed is what is there when the directory is opened
#[apply(promise)]
fn a_directory_that_was_opened_with_others_lists_what_it_would_by_itself(on: Kind) {
    let counted = Counted::new(on);
    let host = &counted.share.host;
    host.mkdir("d");
    (0..20).for_each(|n| host.mkdir(&format!("d/{n}")));
    sleep(Duration::from_millis(150));
    let dir = counted.share.opendir("d").unwrap();
    let listed = counted.share.readdirplus(&dir, 0, 32_768).unwrap();
    let nodes: Vec<_> = listed.into_iter().map(|(entry, dirent)| (dirent.name, entry.nodeid)).collect();
    let nodes: Vec<_> = nodes.into_iter().filter(|(name, _)| !name.starts_with('.')).collect();
    let list = |node: u64| -> nix::Result<Vec<String>> {
        let dir = counted.share.opendir(node)?;
        let entries = counted.share.entries(&dir)?;
        counted.share.releasedir(&dir)?;
        Ok(entries.into_iter().map(|entry| entry.name).filter(|name| !name.starts_with('.')).collect())
    };
    let (asked, ()) = counted.hops(|_| nodes[..10].iter().for_each(|(_, node)| assert_eq!(list(*node), Ok(vec![]))));
    assert!(asked < 6, "others are open: {asked}");
    let [(filled, a), (replaced, b), (removed, c)] = &nodes[10..13] else { unreachable!() };
    host.write(&format!("d/{filled}/new"), b"");
    std::fs::remove_dir(host.path(&format!("d/{replaced}"))).unwrap();
    host.mkdir(&format!("d/{replaced}"));
    std::fs::remove_dir(host.path(&format!("d/{removed}"))).unwrap();
    assert_eq!(counted.hops(|_| list(*a)), (1, Ok(vec!["new".to_owned()])), "it has changed");
    assert_eq!([b, c].map(|node| list(*node)), [Err(ESTALE), Err(ESTALE)]);
    assert_eq!(counted.hops(|_| list(nodes[13].1)), (0, Ok(vec![])), "that one has not");
}

// postern-server(1): --rlimit-nofile, --open-ahead: "on local file systems only": what is mounted says itself what it
// is
#[apply(promise)]
fn a_file_system_that_is_mounted_in_a_local_one_is_not_taken_for_local(on: Kind) {
    mounts::alone();
    let plant = |host: &Host| {
        host.mkdir("d");
        for n in 0..6 {
            host.mkdir(&format!("d/local{n}"));
            host.mkdir(&format!("d/unknown{n}"));
            mounts::unknown(&host.path(&format!("d/unknown{n}")));
            host.chown(&format!("d/unknown{n}"), 0, 0);
            host.write(&format!("d/unknown{n}/f"), b"hello");
        }
    };
    let counted = Counted::of(on.setup().plant(plant));
    sleep(Duration::from_millis(150));
    let dir = counted.share.opendir("d").unwrap();
    for (entry, dirent) in counted.share.readdirplus(&dir, 0, 32_768).unwrap() {
        if dirent.name.starts_with('.') {
            continue;
        }
        let below = counted.share.opendir(entry.nodeid).unwrap();
        if dirent.name.starts_with("unknown") {
            assert_eq!(counted.share.readdirplus(&below, 0, 4096).unwrap().len(), 3);
            let file = counted.share.lookup((entry.nodeid, "f")).unwrap().nodeid;
            let (asked, ()) =
                counted.hops(|share| (0..3).for_each(|_| assert_eq!(text(share, file).unwrap(), "hello")));
            assert_eq!(asked, 3, "its files are not kept");
        }
        counted.share.releasedir(&below).unwrap();
    }
    mounts::detach_all(&counted.share.host.path(""));
}

// postern-server(1): --open-ahead: files kept open are passed over, and the others are opened ahead all the same
#[apply(promise)]
fn files_that_were_opened_before_leave_the_others_in_their_order(on: Kind) {
    let (counted, nodes) = files(on, 160, &[]);
    each_says_what_it_is(&counted.share, nodes.iter().rev().step_by(2));
    let (asked, ()) = counted.hops(|share| each_says_what_it_is(share, nodes.iter()));
    assert!((10..=28).contains(&asked), "80 files, four or more at once: {asked}");
}

// postern-server(1): --rlimit-nofile: "until it is found to have changed"
#[apply(promise)]
fn files_that_have_changed_are_asked_for_together_again(on: Kind) {
    let (counted, nodes) = files(on, 40, &[]);
    each_says_what_it_is(&counted.share, nodes.iter());
    for (name, _) in &nodes {
        counted.share.host.write(&format!("d/{name}"), format!("text of {name}").as_bytes());
    }
    sleep(Duration::from_millis(150));
    let (asked, ()) = counted.hops(|share| each_says_what_it_is(share, nodes.iter()));
    assert!((6..=9).contains(&asked), "one, two, four, and then eight at once: {asked}");
}

// open(2): what is opened is what is there when it is opened
#[apply(promise)]
fn what_was_opened_with_others_is_what_it_would_be_by_itself(on: Kind) {
    let (counted, nodes) = files(on, 40, &[]);
    let share = &counted.share;
    let (asked, ()) = counted.hops(|share| each_says_what_it_is(share, nodes[..10].iter()));
    assert!(asked < 6, "others are open: {asked}");
    let [(written, a), (replaced, b), (removed, c)] = &nodes[10..13] else { unreachable!() };
    let (name, node) = &nodes[13];
    let (asked, open) = counted.hops(|share| share.open(*node, O_RDONLY).unwrap());
    assert_eq!(asked, 0);
    std::fs::remove_file(share.host.path(&format!("d/{name}"))).unwrap();
    assert_eq!((share.getattr(*node).unwrap().nlink, share.read(&open, 0, 4).unwrap()), (0, b"text".to_vec()));
    share.host.write(&format!("d/{written}"), b"other");
    share.host.write("d/new", b"another");
    std::fs::rename(share.host.path("d/new"), share.host.path(&format!("d/{replaced}"))).unwrap();
    std::fs::remove_file(share.host.path(&format!("d/{removed}"))).unwrap();
    assert_eq!(text(share, *a).unwrap(), "other");
    assert_eq!([b, c].map(|node| text(share, *node)), [Err(ESTALE), Err(ESTALE)]);
    assert_eq!(share.get(format!("d/{replaced}").as_str()).unwrap(), b"another");
    assert_eq!(share.get(format!("d/{removed}").as_str()), Err(ENOENT));
}

// path_resolution(7): "the process does not have search permission": the server does not, the helper does, and what it
// found it gives away
#[apply(promise)]
fn what_was_found_or_made_in_a_private_directory_is_not_looked_for_again(on: Kind) {
    let counted = Counted::new(on);
    counted.share.host.mkdir("d");
    counted.share.host.chmod("d", 0o700);
    counted.share.host.write("d/f", b"hello");
    let dir = counted.share.lookup("d").unwrap().nodeid;
    let (asked, found) = counted.hops(|share| share.lookup((dir, "f")).unwrap().nodeid);
    assert_eq!(asked, 1);
    let (asked, made) = counted.hops(|share| share.create((dir, "g"), O_WRONLY, 0o644).unwrap().node);
    assert_eq!(asked, 1);
    for (node, name) in [(found, "f"), (made, "g")] {
        assert_eq!(counted.hops(|share| share.getattr(node).unwrap()).0, 0, "{name}");
        assert_eq!(counted.hops(|share| share.chmod(node, 0o600).unwrap()).0, 1, "{name}");
        assert_eq!(counted.hops(|share| share.unlink((dir, name)).unwrap()).0, 2, "who it is, and that it shall go");
        assert_eq!(counted.share.getattr(node).unwrap().nlink, 0, "{name}");
    }
}
