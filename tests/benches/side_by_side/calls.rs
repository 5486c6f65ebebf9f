//! What a workload is made of: the system calls of one who serves each request when it comes and remembers nothing,
//! made by one process for itself. Nobody asks and nobody is asked.

use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use postern_tests::prelude::*;
use postern_tests::share::Scratch;
use rustix::fs::{
    AtFlags, Mode, OFlags, RawDir, RenameFlags, Statx, StatxFlags, fchmod, mkdirat, openat, renameat_with, statx,
    unlinkat,
};
use rustix::path::Arg;

use crate::files::Places;
use crate::workload::{DIRS, MANY, MIB, PAGE, Step, dir, entry, plant};

/// The part of a workload that is the kernel's.
#[derive(Clone, Copy)]
pub struct Calls {
    /// Makes them, again and again, below a directory: several at once of what is so short that a clock would count.
    pub start: Start,
    /// Most of them is to move file data, which the floor does too: least is what takes longer of the two, and not
    /// their sum.
    pub moves_data: bool,
}

type Start = fn(&Path) -> Step<'static>;

/// A tree of its own.
pub struct Tree(Scratch);

impl Tree {
    /// Below `place`, with all that workloads need.
    pub fn below(place: &str) -> Self {
        let scratch = Scratch::below(place, Kind::Host, false);
        plant(&Host::new(scratch.path("share"), Kind::Host));
        Self(scratch)
    }

    /// The root of what is shared.
    pub fn root(&self) -> PathBuf {
        self.0.path("share")
    }
}

/// Of what takes less than a microsecond.
const AT_ONCE: u32 = 16;

const fn calls(start: Start) -> Option<Calls> {
    Some(Calls { start, moves_data: false })
}

const fn data(start: Start) -> Option<Calls> {
    Some(Calls { start, moves_data: true })
}

/// LOOKUP.
pub const LOOKUP: Option<Calls> = calls(|root| {
    let dir = pin(root);
    Box::new(move || (0..AT_ONCE).map(|_| stat_name(&dir, "small")).sum())
});

/// GETATTR.
pub const GETATTR: Option<Calls> = calls(|root| {
    let node = pin(&root.join("small"));
    Box::new(move || (0..AT_ONCE).map(|_| stat(&node)).sum())
});

/// SETATTR of the mode, with what it answers.
pub const SETATTR: Option<Calls> = calls(|root| {
    let file = File::open(root.join("small")).expect("planted");
    let mut modes = [0o600, 0o644].into_iter().cycle();
    Box::new(move || {
        fchmod(&file, Mode::from_raw_mode(modes.next().expect("a cycle"))).expect("own");
        stat(&file)
    })
});

/// OPEN and RELEASE of files that are not open: READ is little, and the floor copies as much.
pub const OPEN_MANY: Option<Calls> = calls(|root| {
    let dirs: Vec<_> = (0..DIRS).map(|i| pin(&root.join(dir(i)))).collect();
    let names: Vec<_> = (0..MANY).map(entry).collect();
    let mut next = 0;
    Box::new(move || {
        let (dir, name) = (&dirs[next / names.len()], &names[next % names.len()]);
        next = (next + 1) % (dirs.len() * names.len());
        drop(openat(dir, name.as_str(), OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()).expect("planted"));
        1
    })
});

/// LOOKUP in vain, CREATE, WRITE, RELEASE, LOOKUP, UNLINK.
pub const CREATE: Option<Calls> = calls(|root| {
    let dir = pin(root);
    let page = [2; PAGE as usize];
    let how = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    Box::new(move || {
        is_not_there(&dir, "new");
        let file = openat(&dir, "new", how, Mode::from_raw_mode(0o644)).expect("not there");
        stat(&file);
        File::from(file).write_all_at(&page, 0).expect("room");
        stat_name(&dir, "new");
        unlinkat(&dir, "new", AtFlags::empty()).expect("made above");
        1
    })
});

/// LOOKUP in vain, MKDIR, LOOKUP in vain, RENAME, RMDIR.
pub const MKDIR: Option<Calls> = calls(|root| {
    let dir = pin(root);
    Box::new(move || {
        is_not_there(&dir, "old");
        mkdirat(&dir, "old", Mode::from_raw_mode(0o755)).expect("not there");
        stat_name(&dir, "old");
        is_not_there(&dir, "new");
        renameat_with(&dir, "old", &dir, "new", RenameFlags::empty()).expect("made above");
        unlinkat(&dir, "new", AtFlags::REMOVEDIR).expect("renamed");
        1
    })
});

/// OPENDIR, READDIRPLUS of all entries, RELEASEDIR.
pub const READDIRPLUS: Option<Calls> = calls(|root| {
    let root = root.join(dir(0));
    let dir = pin(&root);
    Box::new(move || {
        let (open, mut buffer) = (File::open(&root).expect("planted"), [MaybeUninit::uninit(); 32 * 1024]);
        let (mut entries, mut count) = (RawDir::new(open, &mut buffer), 0);
        while let Some(entry) = entries.next() {
            count += stat_name(&dir, entry.expect("an entry").file_name());
        }
        count
    })
});

/// READ of 1 MiB after the other.
pub const BULK_READ: Option<Calls> = data(|root| {
    let file = File::open(root.join("large")).expect("planted");
    let (mut buffer, mut places) = (vec![0; MIB as usize], Places::new(MIB));
    Box::new(move || {
        file.read_exact_at(&mut buffer, places.next()).expect("planted");
        1
    })
});

/// WRITE of the same.
pub const BULK_WRITE: Option<Calls> = data(|root| {
    let file = File::options().write(true).open(root.join("large")).expect("planted");
    let (buffer, mut places) = (vec![3; MIB as usize], Places::new(MIB));
    Box::new(move || {
        file.write_all_at(&buffer, places.next()).expect("planted");
        1
    })
});

/// READ of a page at random, each into another.
pub const RANDOM_READ: Option<Calls> = data(|root| {
    let file = File::open(root.join("large")).expect("planted");
    let mut places = Places::new(PAGE);
    let mut pages = vec![[0; PAGE as usize]; 32];
    let mut next = 0;
    Box::new(move || {
        next = (next + 1) % pages.len();
        file.read_exact_at(&mut pages[next], places.random()).expect("planted");
        1
    })
});

fn pin(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).expect("planted")
}

fn stat(node: impl AsFd) -> u32 {
    statx(node, "", AtFlags::EMPTY_PATH, StatxFlags::ALL).expect("open");
    1
}

fn look_up(dir: &OwnedFd, name: impl Arg) -> rustix::io::Result<Statx> {
    statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::ALL)
}

fn stat_name(dir: &OwnedFd, name: impl Arg) -> u32 {
    look_up(dir, name).expect("there");
    1
}

fn is_not_there(dir: &OwnedFd, name: &str) {
    assert_eq!(look_up(dir, name).err(), Some(rustix::io::Errno::NOENT));
}
