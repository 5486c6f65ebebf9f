//! OPENDIR, READDIR, READDIRPLUS, RELEASEDIR, FSYNCDIR.

use std::collections::BTreeSet;

use libc::{DT_DIR, DT_FIFO, DT_LNK, DT_REG};
use postern_server::fuse::abi::FsyncFlags;
use postern_tests::prelude::*;

/// A directory of `count` empty files.
fn fill(share: &Share, dir: &str, count: usize) -> BTreeSet<String> {
    share.host.mkdir(dir);
    let name = |i| format!("file-{i:05}");
    (0..count).for_each(|i| share.host.write(&format!("{dir}/{}", name(i)), b""));
    (0..count).map(name).collect()
}

fn dotless(entries: &[Entry]) -> BTreeSet<String> {
    entries.iter().map(|entry| entry.name.clone()).filter(|name| name != "." && name != "..").collect()
}

// open(2): "EISDIR  pathname refers to a directory and the access requested involved writing"
#[apply(behaviour)]
fn a_directory_opened_for_writing_is_refused(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    assert_eq!(share.open("d", O_WRONLY), Err(EISDIR));
}

// opendir(3): "ENOTDIR  name is not a directory"
#[apply(behaviour)]
fn a_file_is_not_opened_as_a_directory(share: &Share) {
    share.put("f", b"").unwrap();
    share.symlink(".", "l").unwrap();
    assert_eq!((share.opendir("f"), share.opendir("l")), (Err(ENOTDIR), Err(ENOTDIR)));
}

// readdir(3): "returns a pointer to a dirent structure representing the next directory entry"
#[apply(behaviour)]
fn every_entry_has_its_name_inode_and_kind(share: &Share) {
    share.put("f", b"").unwrap();
    share.mkdir("d", 0o755).unwrap();
    share.symlink("f", "l").unwrap();
    share.mknod("p", S_IFIFO | 0o600, 0).unwrap();
    let dir = share.opendir(ROOT_ID).unwrap();
    let entries = share.entries(&dir).unwrap();
    for (name, kind) in [("f", DT_REG), ("d", DT_DIR), ("l", DT_LNK), ("p", DT_FIFO)] {
        let entry = entries.iter().find(|entry| entry.name == name).unwrap();
        assert_eq!((entry.kind, entry.ino), (kind, share.host.stat(name).ino), "{name}");
    }
}

// readdir(3): a directory contains "." and ".."
#[apply(behaviour)]
fn a_directory_contains_dot_and_dotdot(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    let dir = share.opendir("d").unwrap();
    let mut names: Vec<_> = share.entries(&dir).unwrap().into_iter().map(|entry| (entry.name, entry.kind)).collect();
    names.sort();
    assert_eq!(names, [(".".into(), DT_DIR), ("..".into(), DT_DIR)]);
}

// getdents(2): "On end of directory, 0 is returned"; every entry comes once whatever the size of the buffer
#[apply(behaviour)]
fn a_directory_is_read_in_pieces_of_any_size(share: &Share) {
    let names = fill(share, "d", 100);
    let dir = share.opendir("d").unwrap();
    for size in [64, 200, 4096, 65_536] {
        let mut seen: Vec<Entry> = Vec::new();
        loop {
            let off = seen.last().map_or(0, |entry| entry.off);
            let more = share.readdir(&dir, off, size).unwrap();
            if more.is_empty() {
                break;
            }
            seen.extend(more);
        }
        assert_eq!((seen.len(), dotless(&seen)), (102, names.clone()), "in pieces of {size}");
    }
}

// telldir(3): "returns the current location associated with the directory stream", to be used by seekdir(3)
#[apply(behaviour)]
fn reading_goes_on_where_it_was(share: &Share) {
    fill(share, "d", 50);
    let dir = share.opendir("d").unwrap();
    let all = share.entries(&dir).unwrap();
    for (i, entry) in all.iter().enumerate().rev() {
        let next = share.readdir(&dir, entry.off, 4096).unwrap();
        assert_eq!(next.first(), all.get(i + 1));
    }
}

// rewinddir(3): "resets the position of the directory stream to the beginning of the directory. It also causes the
// directory stream to refer to the current state of the corresponding directory"
#[apply(behaviour)]
fn a_rewound_directory_is_as_it_is_now(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    let dir = share.opendir("d").unwrap();
    share.entries(&dir).unwrap();
    share.put("d/new", b"").unwrap();
    assert_eq!(dotless(&share.entries(&dir).unwrap()), ["new".to_string()].into());
}

// readdir(3): "If a file is removed from or added to the directory after the most recent call to opendir(3) or
// rewinddir(3), whether a subsequent call returns an entry for that file is unspecified"; the others come once
#[apply(behaviour)]
fn removing_entries_while_reading_loses_no_others(share: &Share) {
    let names = fill(share, "d", 200);
    let dir = share.opendir("d").unwrap();
    let mut seen = Vec::new();
    let mut off = 0;
    loop {
        let more = share.readdir(&dir, off, 1024).unwrap();
        let Some(last) = more.last() else { break };
        off = last.off;
        for name in dotless(&more) {
            let path = format!("d/{name}");
            share.lookup(path.as_str()).unwrap();
            share.unlink(path.as_str()).unwrap();
            seen.push(name);
        }
    }
    assert_eq!(seen.len(), 200);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), names);
    share.rmdir("d").unwrap();
}

// getdents(2): a directory of many thousand entries
#[apply(behaviour)]
fn a_large_directory_is_read_whole(share: &Share) {
    let names = fill(share, "d", 5000);
    let dir = share.opendir("d").unwrap();
    assert_eq!(dotless(&share.entries(&dir).unwrap()), names);
}

// FUSE: READDIRPLUS is READDIR with a LOOKUP of each entry
#[apply(virtiofs)]
fn readdirplus_looks_every_entry_up(share: &Share) {
    share.put("f", b"hello").unwrap();
    share.mkdir("d", 0o750).unwrap();
    share.symlink("f", "l").unwrap();
    let dir = share.opendir(ROOT_ID).unwrap();
    let entries = share.readdirplus(&dir, 0, 65_536).unwrap();
    assert_eq!(entries.len(), 5);
    for (plus, entry) in entries.iter().filter(|(_, entry)| !entry.name.starts_with('.')) {
        let looked_up = share.lookup(entry.name.as_str()).unwrap();
        assert_eq!((plus.nodeid, plus.generation), (looked_up.nodeid, looked_up.generation));
        assert_eq!((plus.attr.mode, plus.attr.size), (looked_up.attr.mode, looked_up.attr.size));
        assert_eq!((plus.attr.ino, plus.attr.ino), (looked_up.attr.ino, entry.ino));
    }
}

// FUSE: a READDIRPLUS entry with nodeid 0 was not looked up; Linux never forgets those of "." and ".."
#[apply(virtiofs)]
fn readdirplus_looks_up_neither_dot_nor_dotdot(share: &Share) {
    let dir = share.opendir(ROOT_ID).unwrap();
    let entries = share.readdirplus(&dir, 0, 65_536).unwrap();
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|(plus, _)| plus.nodeid == 0));
}

// FUSE: each entry of a READDIRPLUS with a nodeid adds one to the node's look-up count
#[apply(virtiofs)]
fn readdirplus_counts_as_a_lookup(share: &Share) {
    let made = share.mkdir("d", 0o755).unwrap();
    let dir = share.opendir(ROOT_ID).unwrap();
    share.readdirplus(&dir, 0, 65_536).unwrap();
    share.forget(made.nodeid, 1);
    assert_eq!(share.getattr(made.nodeid).unwrap().mode, S_IFDIR | 0o755);
}

// FUSE: a READDIRPLUS entry that does not fit is not looked up, and comes with the next
#[apply(virtiofs)]
fn readdirplus_goes_on_where_it_was(share: &Share) {
    let names = fill(share, "d", 100);
    let dir = share.opendir("d").unwrap();
    let mut seen: Vec<Entry> = Vec::new();
    loop {
        let off = seen.last().map_or(0, |entry| entry.off);
        let more = share.readdirplus(&dir, off, 1000).unwrap();
        if more.is_empty() {
            break;
        }
        seen.extend(more.into_iter().map(|(_, entry)| entry));
    }
    assert_eq!((seen.len(), dotless(&seen)), (102, names));
}

// FUSE: READDIR and READDIRPLUS of one open directory share their offsets
#[apply(virtiofs)]
fn readdir_goes_on_where_readdirplus_was(share: &Share) {
    fill(share, "d", 30);
    let dir = share.opendir("d").unwrap();
    let all = share.entries(&dir).unwrap();
    let (_, tenth) = &share.readdirplus(&dir, 0, 65_536).unwrap()[10];
    assert_eq!(share.readdir(&dir, tenth.off, 4096).unwrap().first(), all.get(11));
}

// rename(2): an open directory is the same after it has moved
#[apply(behaviour)]
fn an_open_directory_survives_its_renaming(share: &Share) {
    let names = fill(share, "d", 3);
    let dir = share.opendir("d").unwrap();
    share.rename("d", "e").unwrap();
    assert_eq!(dotless(&share.entries(&dir).unwrap()), names);
}

// opendir(3): several streams of one directory have positions of their own
#[apply(behaviour)]
fn open_directories_do_not_disturb_each_other(share: &Share) {
    fill(share, "d", 100);
    let (one, two) = (share.opendir("d").unwrap(), share.opendir("d").unwrap());
    let first = share.readdir(&one, 0, 512).unwrap();
    assert_eq!(share.readdir(&two, 0, 512).unwrap(), first);
    share.releasedir(&one).unwrap();
    assert_eq!(share.entries(&two).unwrap().len(), 102);
}

// fsync(2): "Calling fsync() does not necessarily ensure that the entry in the directory containing the file has also
// reached disk. For that an explicit fsync() on a file descriptor for the directory is also needed"
#[apply(behaviour)]
fn a_directory_is_synchronised(share: &Share) {
    let dir = share.opendir(ROOT_ID).unwrap();
    assert_eq!(share.fsyncdir(&dir, FsyncFlags::empty()), Ok(()));
    assert_eq!(share.fsyncdir(&dir, FsyncFlags::FDATASYNC), Ok(()));
    assert_eq!(share.releasedir(&dir), Ok(()));
}

// FUSE: READDIRPLUS and the guest's choice of it are granted to those who offer
#[apply(virtiofs)]
fn readdirplus_is_left_to_the_guest(share: &Share) {
    let both = InitFlags::DO_READDIRPLUS | InitFlags::READDIRPLUS_AUTO;
    assert_eq!(share.granted() & both, both);
}
