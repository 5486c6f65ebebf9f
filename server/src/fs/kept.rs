//! What is open, or was a moment ago, and may be asked for again: compilers open the same headers, programs the same
//! libraries.
//!
//! To open is to ask the helper, so what was opened for reading is kept for a while, and is the same open file for all
//! who open it; a directory, in which each has a place of his own, for one at a time. It is given again only for what
//! opening anew would give: the file has not changed since before it was opened (its ctime, which also tells of new
//! owners, modes and names), and its file system asks nobody else when a file is opened.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;
use postern_ipc::attr::{Attr, Dev, Time};

use super::file::OpenFile;
use super::{NodeId, Object};

/// Younger changes may share their ctime with the next: the kernel's clock for files ticks so seldom.
const TICK: Duration = Duration::from_millis(100);

/// Local file systems, which judge who opens a file by its attributes and nothing else. linux/magic.h
const LOCAL: [u32; 7] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0x794c_7630, // overlayfs
    0xf2f5_2010, // F2FS
    0x2fc1_2fc1, // ZFS
];

/// When a file had last changed before it was opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Unchanged(Time);

impl Unchanged {
    /// As `attr` says, asked before the file is opened and after `asked`; `None` if it may have changed again in the
    /// same tick.
    pub fn since(attr: &Attr, asked: SystemTime) -> Option<Self> {
        let asked = asked.duration_since(UNIX_EPOCH).ok()?;
        let then = Duration::new(u64::try_from(attr.ctime.sec).ok()?, attr.ctime.nsec);
        (asked.checked_sub(then)? > TICK).then_some(Self(attr.ctime))
    }

    /// Whether it is so still.
    pub fn is(self, file: impl AsFd) -> bool {
        Attr::of(file).is_ok_and(|now| now.ctime == self.0)
    }
}

/// Files that were opened for reading and nothing else, the oldest of which makes room for the next.
#[derive(Debug)]
pub struct Kept {
    files: Mutex<Slots>,
    most: usize,
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Option<Arc<OpenFile>>>,
    /// The oldest one.
    next: usize,
    by_node: HashMap<(NodeId, Object), usize>,
    /// Whether the file system that was last asked is local: its mount stays, and so does its number.
    local: Option<(Dev, bool)>,
}

impl Kept {
    /// None yet, at most `most`.
    pub fn new(most: usize) -> Self {
        Self { files: Mutex::default(), most }
    }

    /// What was opened, if its file has not changed since before that; otherwise it is kept no longer. A directory that
    /// is open is somebody else's.
    pub fn get(&self, node: NodeId, object: Object) -> Option<Arc<OpenFile>> {
        let file = self.lock().get((node, object))?;
        if file.unchanged.is_some_and(|unchanged| unchanged.is(&*file)) {
            return Some(file);
        }
        let mut files = self.lock();
        // Another may have been put in its place meanwhile.
        let gone = if files.has((node, object), &file) { files.take((node, object)) } else { None };
        drop(files);
        drop(gone);
        None
    }

    /// Keeps a file of the file system `dev` that was opened for reading and nothing else after it was last seen to be
    /// unchanged.
    pub fn put(&self, file: &Arc<OpenFile>, dev: Dev) {
        if file.unchanged.is_none() || self.most == 0 || !self.is_local(&**file, dev) {
            return;
        }
        let of = (file.node, file.object);
        let mut files = self.lock();
        let before = files.take(of);
        let at = files.next;
        let oldest = match files.slots.get_mut(at) {
            Some(slot) => slot.replace(Arc::clone(file)),
            None => {
                files.slots.push(Some(Arc::clone(file)));
                None
            }
        };
        if let Some(oldest) = &oldest {
            files.by_node.remove(&(oldest.node, oldest.object));
        }
        files.by_node.insert(of, at);
        files.next = if at.saturating_add(1) < self.most { at.saturating_add(1) } else { 0 };
        drop(files);
        drop((before, oldest));
    }

    /// Whether the file system `dev`, of which `file` is, asks nobody else when a file is opened.
    pub fn is_local(&self, file: impl AsFd, dev: Dev) -> bool {
        if let Some((asked, local)) = self.lock().local
            && asked == dev
        {
            return local;
        }
        let is = rustix::fs::fstatfs(file).map(|fs| u32::try_from(fs.f_type).is_ok_and(|kind| LOCAL.contains(&kind)));
        let local = is.unwrap_or(false);
        self.lock().local = Some((dev, local));
        local
    }

    /// The guest has no use for the node any more, or its last name went: what is held holds its disk space.
    pub fn forget(&self, node: NodeId) {
        let mut files = self.lock();
        let gone = if files.by_node.is_empty() {
            [None, None]
        } else {
            [Object::File, Object::Dir].map(|object| files.take((node, object)))
        };
        drop(files);
        drop(gone);
    }

    /// Nothing is kept.
    pub fn clear(&self) {
        let gone = std::mem::take(&mut *self.lock());
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    fn get(&self, of: (NodeId, Object)) -> Option<Arc<OpenFile>> {
        let file = self.slots.get(*self.by_node.get(&of)?)?.as_ref()?;
        (file.object == Object::File || Arc::strong_count(file) == 1).then(|| Arc::clone(file))
    }

    fn has(&self, of: (NodeId, Object), file: &Arc<OpenFile>) -> bool {
        let kept = self.by_node.get(&of).and_then(|at| self.slots.get(*at)?.as_ref());
        kept.is_some_and(|kept| Arc::ptr_eq(kept, file))
    }

    fn take(&mut self, of: (NodeId, Object)) -> Option<Arc<OpenFile>> {
        let at = self.by_node.remove(&of)?;
        self.slots.get_mut(at)?.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_ipc::attr::OpenFlags;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    const FILE: Object = Object::File;

    fn open(node: u64, path: &Path) -> Arc<OpenFile> {
        let file = std::os::fd::OwnedFd::from(std::fs::File::open(path).unwrap());
        let attr = Attr::of(&file).unwrap();
        let object = if attr.kind() == libc::S_IFDIR { Object::Dir } else { FILE };
        let file = OpenFile::new(file, NodeId(node), object, false, OpenFlags::READ);
        Arc::new(file.unchanged(Some(Unchanged(attr.ctime))))
    }

    fn put(kept: &Kept, file: &Arc<OpenFile>) {
        kept.put(file, Attr::of(&**file).unwrap().id.dev);
    }

    fn file() -> tempfile::NamedTempFile {
        tempfile::NamedTempFile::new().unwrap()
    }

    #[test]
    fn a_file_is_given_to_all_who_open_it() {
        let (kept, file) = (Kept::new(4), file());
        put(&kept, &open(2, file.path()));
        assert!(kept.get(NodeId(3), FILE).is_none() && kept.get(NodeId(2), Object::Dir).is_none());
        let files = [(); 2].map(|()| kept.get(NodeId(2), FILE).unwrap());
        kept.forget(NodeId(2));
        assert!(Arc::ptr_eq(&files[0], &files[1]) && kept.get(NodeId(2), FILE).is_none());
    }

    #[test]
    fn a_directory_is_given_to_one_at_a_time() {
        let (kept, dir) = (Kept::new(4), tempfile::TempDir::new().unwrap());
        let opened = open(2, dir.path());
        put(&kept, &opened);
        assert!(kept.get(NodeId(2), Object::Dir).is_none());
        drop(opened);
        let again = kept.get(NodeId(2), Object::Dir);
        assert!(again.is_some() && kept.get(NodeId(2), Object::Dir).is_none());
    }

    #[test]
    fn what_has_changed_is_not_given() {
        let (kept, file) = (Kept::new(4), file());
        put(&kept, &open(2, file.path()));
        std::thread::sleep(TICK);
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(kept.get(NodeId(2), FILE).is_none());
        assert!(kept.lock().by_node.is_empty(), "it is kept no longer");
    }

    #[test]
    fn what_has_just_changed_is_not_kept() {
        let file = file();
        let mut attr = Attr::of(file.as_file()).unwrap();
        assert_eq!(Unchanged::since(&attr, SystemTime::now()), None);
        std::thread::sleep(TICK.saturating_mul(2));
        assert!(Unchanged::since(&attr, SystemTime::now()).is_some());
        attr.ctime.sec = i64::MAX;
        assert_eq!(Unchanged::since(&attr, SystemTime::now()), None, "the clock went back");
    }

    // open(2) of a file of a network or of /proc asks somebody else, who may say something else the next time
    #[test]
    fn only_files_of_local_file_systems_are_kept() {
        let kept = Kept::new(4);
        for _ in 0..2 {
            put(&kept, &open(2, Path::new("/proc/self/status")));
            assert!(kept.lock().slots.is_empty());
        }
        put(&kept, &open(2, file().path()));
        assert_eq!(kept.lock().slots.len(), 1);
    }

    #[test]
    fn the_oldest_makes_room_and_no_more_are_kept_than_said() {
        let (kept, file) = (Kept::new(3), file());
        for node in 1..=100 {
            put(&kept, &open(node, file.path()));
            if node % 7 == 0 {
                kept.forget(NodeId(node - 1));
            }
        }
        let held: Vec<_> = (1..=100).filter(|&node| kept.get(NodeId(node), FILE).is_some()).collect();
        assert_eq!(held, [98, 99, 100]);
        let files = kept.lock();
        assert_eq!((files.by_node.len(), files.slots.len()), (3, 3));
    }

    #[test]
    fn what_is_put_twice_is_kept_once() {
        let (kept, file) = (Kept::new(3), file());
        for _ in 0..2 {
            put(&kept, &open(1, file.path()));
        }
        assert!(kept.get(NodeId(1), FILE).is_some());
        assert!(kept.lock().slots.iter().flatten().count() == 1);
    }
}
