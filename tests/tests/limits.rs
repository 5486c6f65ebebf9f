//! A bounded server serves an unbounded guest.

use postern_tests::prelude::*;

/// `count` files in directories of a hundred.
fn plant(share: &Share, count: usize) -> Vec<String> {
    let path = |i: usize| format!("d{}/f{}", i / 100, i % 100);
    for i in 0..count {
        if i % 100 == 0 {
            share.host.mkdir(&format!("d{}", i / 100));
        }
        share.host.write(&path(i), format!("{i}").as_bytes());
    }
    (0..count).map(path).collect()
}

// getrlimit(2): "RLIMIT_NOFILE ... one greater than the maximum file descriptor number that can be opened by this
// process"; nodes known to the guest are not open files of the server
#[apply(behaviour)]
fn a_tree_may_be_larger_than_the_descriptor_limit(on: Kind) {
    let share = on.setup().few_descriptors().serve();
    // It is the same table for all kinds: so many are enough with two.
    let paths = plant(&share, if [Kind::Root, Kind::Mapped].contains(&on) { 20_000 } else { 2000 });
    let nodes: Vec<_> = paths.iter().map(|path| share.lookup(path.as_str()).unwrap()).collect();
    for (entry, path) in nodes.iter().zip(&paths) {
        let attr = share.getattr(entry.nodeid).unwrap();
        assert_eq!((attr.ino, attr.size), (share.host.stat(path).ino, entry.attr.size), "{path}");
    }
    for (i, entry) in nodes.iter().enumerate().step_by(97) {
        assert_eq!(share.get(entry.nodeid).unwrap(), format!("{i}").as_bytes());
    }
}

// FUSE: a node given up for lack of descriptors is found again wherever its name went
#[apply(behaviour)]
fn idle_nodes_are_found_again_after_renames(on: Kind) {
    let share = on.setup().few_descriptors().serve();
    let paths = plant(&share, 1200);
    let nodes: Vec<_> = paths.iter().map(|path| share.lookup(path.as_str()).unwrap().nodeid).collect();
    share.rename("d0", "moved").unwrap();
    share.rename("d1/f0", "elsewhere").unwrap();
    assert_eq!(share.get(nodes[7]).unwrap(), b"7");
    assert_eq!(share.get(nodes[100]).unwrap(), b"100");
    assert_eq!(share.get(nodes[1199]).unwrap(), b"1199");
}

// FUSE: a node whose last name is gone is kept while the guest knows it
#[apply(behaviour)]
fn nodes_without_names_are_kept_among_many(on: Kind) {
    let share = on.setup().few_descriptors().serve();
    share.host.write("gone", b"still here");
    let file = share.open("gone", O_RDONLY).unwrap();
    share.unlink("gone").unwrap();
    for path in plant(&share, 1200) {
        share.lookup(path.as_str()).unwrap();
    }
    assert_eq!(share.getattr(file.node).unwrap().nlink, 0);
    assert_eq!(share.read(&file, 0, 100).unwrap(), b"still here");
}

// open(2): "EMFILE  The per-process limit on the number of open file descriptors has been reached"; "ENFILE"
#[apply(behaviour)]
fn cve_2020_10717_too_many_open_files_are_refused_and_harm_nobody(on: Kind) {
    let share = on.setup().few_descriptors().serve();
    share.host.write("f", b"hello");
    share.host.write("g", b"there");
    let mut open = Vec::new();
    let refusal = loop {
        match share.open("f", O_RDONLY) {
            Ok(file) => open.push(file),
            Err(errno) => break errno,
        }
        assert!(open.len() < 2000, "no limit");
    };
    assert!(matches!(refusal, EMFILE | ENFILE), "{refusal}");
    assert!(open.len() > 100, "only {} files", open.len());
    assert_eq!(share.getattr(ROOT_ID).unwrap().mode & S_IFMT, S_IFDIR);
    assert_eq!(share.read(&open[50], 0, 10).unwrap(), b"hello");
    open.drain(..20).for_each(|file| share.release(&file).unwrap());
    assert_eq!(share.get("g").unwrap(), b"there");
}

// postern-server(1): --rlimit-nofile: "then it gets ENFILE, which the log says once"
#[apply(promise)]
fn the_log_says_which_option_limits_open_files(on: Kind) {
    let share = on.setup().few_descriptors().serve();
    share.host.write("f", b"");
    let opened: Vec<_> = (0..2000).map(|_| share.open("f", O_RDONLY)).collect();
    assert_eq!(opened.last().unwrap().as_ref().err(), Some(&ENFILE));
    assert_eq!(share.server.log().matches("(--rlimit-nofile)").count(), 1);
}

// path_resolution(7): directories a hundred levels deep
#[apply(behaviour)]
fn a_tree_may_be_a_hundred_levels_deep(share: &Share) {
    let mut dir = ROOT_ID;
    for level in 0..100 {
        dir = share.mkdir((dir, format!("level{level}")), 0o755).unwrap().nodeid;
    }
    share.create((dir, "f"), O_RDWR, 0o644).unwrap();
    let path: String = (0..100).map(|level| format!("level{level}/")).collect();
    assert!(share.host.exists(&format!("{path}f")));
    share.lookup(format!("{path}f").as_str()).unwrap();
}

// postern-server(1): --max-nodes: "Others give ENFILE, and nothing new is made, which the log says once."
#[apply(promise)]
fn a_guest_that_never_forgets_comes_to_an_end(on: Kind) {
    let share = on.setup().arg("--max-nodes=1024").serve();
    let paths = plant(&share, 1200);
    let dir = share.lookup("d0").unwrap().nodeid;
    let looked: Vec<_> = paths.iter().map(|path| share.lookup(path.as_str())).collect();
    let known: Vec<_> = looked.iter().flatten().map(|entry| entry.nodeid).collect();
    assert!(looked.iter().flatten().count() > 1000 && looked.last().unwrap().as_ref().err() == Some(&ENFILE));
    assert_eq!(share.create("new", O_RDWR, 0o644).err(), Some(ENFILE));
    assert_eq!(share.mkdir("new", 0o755).err(), Some(ENFILE));
    assert_eq!(share.tmpfile("", O_RDWR, 0o600).err(), Some(ENFILE));
    assert!(!share.host.exists("new"));
    assert_eq!(share.get(known[0]).unwrap(), b"0");
    assert_eq!(share.list(dir).unwrap().len(), 100);
    assert_eq!(share.server.log().matches("(--max-nodes)").count(), 1);
    known.iter().for_each(|&node| share.forget(node, 1));
    share.create("new", O_RDWR, 0o644).unwrap();
    share.lookup(paths[1199].as_str()).unwrap();
}

// FUSE: looking up and forgetting for ever costs nothing that lasts
#[apply(behaviour)]
fn forgotten_nodes_leave_no_descriptors(share: &Share) {
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", share.server.serving())).unwrap().count();
    let paths = plant(share, 100);
    let visit = || {
        for path in &paths {
            let (dir, file) = path.split_once('/').unwrap();
            let dir = share.lookup(dir).unwrap().nodeid;
            let file = share.lookup((dir, file)).unwrap().nodeid;
            share.batch_forget(&[(file, 1), (dir, 1)]);
        }
        share.getattr(ROOT_ID).unwrap();
    };
    visit();
    let before = descriptors();
    (0..20).for_each(|_| visit());
    assert!(descriptors() <= before + 5, "{} after {before}", descriptors());
}
