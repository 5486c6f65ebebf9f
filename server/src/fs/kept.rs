//! What was open a moment ago, and may be asked for again: compilers open the same headers, shells the same programs.
//!
//! To open is to ask the helper, so what the guest closes is kept for a while. It is given again only for what opening
//! anew would give: the file has not changed since before it was opened (its ctime, which also tells of new owners,
//! modes and names), and its file system asks nobody else when a file is opened.

use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hashbrown::HashMap;
use postern_ipc::attr::{Attr, Time};

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
pub struct Unchanged {
    since: Time,
    /// Its file system is known to be one of [`LOCAL`].
    local: bool,
}

impl Unchanged {
    /// As `attr` says, asked before the file is opened; `None` if it may have changed again in the same tick.
    pub fn since(attr: &Attr) -> Option<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let then = Duration::new(u64::try_from(attr.ctime.sec).ok()?, attr.ctime.nsec);
        (now.checked_sub(then)? > TICK).then_some(Self { since: attr.ctime, local: false })
    }
}

/// Files nobody has open, the oldest of which makes room for the next.
#[derive(Debug)]
pub struct Kept {
    idle: Mutex<Idle>,
    most: usize,
}

#[derive(Debug, Default)]
struct Idle {
    slots: Vec<Option<OpenFile>>,
    /// The oldest one.
    next: usize,
    by_node: HashMap<(NodeId, Object), usize>,
}

impl Kept {
    /// None yet, at most `most`.
    pub fn new(most: usize) -> Self {
        Self { idle: Mutex::default(), most }
    }

    /// What was opened for reading, if its file has not changed since before that.
    pub fn take(&self, node: NodeId, object: Object) -> Option<OpenFile> {
        let file = self.lock().take((node, object))?;
        let now = Attr::of(&file).ok()?.ctime;
        file.unchanged.is_some_and(|unchanged| unchanged.since == now).then_some(file)
    }

    /// Keeps a file, if it was opened for reading and nothing else after it was last seen to be unchanged.
    pub fn put(&self, mut file: OpenFile) {
        let Some(unchanged) = &mut file.unchanged else { return };
        unchanged.local = unchanged.local || is_local(&file.descriptor);
        if !unchanged.local || self.most == 0 {
            return;
        }
        let of = (file.node, file.object);
        let mut idle = self.lock();
        let before = idle.take(of);
        let at = idle.next;
        let oldest = match idle.slots.get_mut(at) {
            Some(slot) => slot.replace(file),
            None => {
                idle.slots.push(Some(file));
                None
            }
        };
        if let Some(oldest) = &oldest {
            idle.by_node.remove(&(oldest.node, oldest.object));
        }
        idle.by_node.insert(of, at);
        idle.next = if at.saturating_add(1) < self.most { at.saturating_add(1) } else { 0 };
        drop(idle);
        drop((before, oldest));
    }

    /// The guest has no use for the node any more, or its last name went: what is held holds its disk space.
    pub fn forget(&self, node: NodeId) {
        let mut idle = self.lock();
        let gone = if idle.by_node.is_empty() {
            [None, None]
        } else {
            [Object::File, Object::Dir].map(|object| idle.take((node, object)))
        };
        drop(idle);
        drop(gone);
    }

    /// Nothing is kept.
    pub fn clear(&self) {
        let gone = std::mem::take(&mut *self.lock());
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn take(&mut self, of: (NodeId, Object)) -> Option<OpenFile> {
        let at = self.by_node.remove(&of)?;
        self.slots.get_mut(at)?.take()
    }
}

fn is_local(descriptor: impl AsFd) -> bool {
    rustix::fs::fstatfs(descriptor).is_ok_and(|fs| u32::try_from(fs.f_type).is_ok_and(|kind| LOCAL.contains(&kind)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_ipc::attr::OpenFlags;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    const FILE: Object = Object::File;

    fn open(node: u64, path: &Path) -> OpenFile {
        let file = std::os::fd::OwnedFd::from(std::fs::File::open(path).unwrap());
        let since = Attr::of(&file).unwrap().ctime;
        let file = OpenFile::new(file, NodeId(node), FILE, false, OpenFlags::READ);
        file.unchanged(Some(Unchanged { since, local: false }))
    }

    fn file() -> tempfile::NamedTempFile {
        tempfile::NamedTempFile::new().unwrap()
    }

    #[test]
    fn what_is_kept_is_given_once() {
        let (kept, file) = (Kept::new(4), file());
        kept.put(open(2, file.path()));
        assert!(kept.take(NodeId(3), FILE).is_none() && kept.take(NodeId(2), Object::Dir).is_none());
        assert!(kept.take(NodeId(2), FILE).is_some());
        assert!(kept.take(NodeId(2), FILE).is_none());
    }

    #[test]
    fn what_has_changed_is_not_given() {
        let (kept, file) = (Kept::new(4), file());
        kept.put(open(2, file.path()));
        std::thread::sleep(TICK);
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(kept.take(NodeId(2), FILE).is_none());
    }

    #[test]
    fn what_has_just_changed_is_not_kept() {
        let file = file();
        let mut attr = Attr::of(file.as_file()).unwrap();
        assert_eq!(Unchanged::since(&attr), None);
        std::thread::sleep(TICK.saturating_mul(2));
        assert!(Unchanged::since(&attr).is_some());
        attr.ctime.sec = i64::MAX;
        assert_eq!(Unchanged::since(&attr), None, "the clock went back");
    }

    // open(2) of a file of a network or of /proc asks somebody else, who may say something else the next time
    #[test]
    fn only_files_of_local_file_systems_are_kept() {
        let kept = Kept::new(4);
        kept.put(open(2, Path::new("/proc/self/status")));
        assert!(kept.lock().slots.is_empty());
    }

    #[test]
    fn the_oldest_makes_room_and_no_more_are_kept_than_said() {
        let (kept, file) = (Kept::new(3), file());
        for node in 1..=100 {
            kept.put(open(node, file.path()));
            if node % 7 == 0 {
                kept.forget(NodeId(node - 1));
            }
        }
        let held: Vec<_> = (1..=100).filter(|&node| kept.take(NodeId(node), FILE).is_some()).collect();
        assert_eq!(held, [98, 99, 100]);
        assert!(kept.lock().by_node.is_empty());
        assert_eq!(kept.lock().slots.len(), 3);
    }

    #[test]
    fn what_is_put_twice_is_kept_once() {
        let (kept, file) = (Kept::new(3), file());
        for _ in 0..2 {
            kept.put(open(1, file.path()));
        }
        assert!(kept.take(NodeId(1), FILE).is_some());
        assert!(kept.take(NodeId(1), FILE).is_none());
        assert!(kept.lock().slots.iter().all(Option::is_none));
    }
}
