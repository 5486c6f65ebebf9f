//! Open files and directories: what the guest's handles stand for.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use postern_ipc::attr::OpenFlags;
use postern_ipc::{Errno, Result};

use super::dir::Stream;
use super::kept::Unchanged;
use super::{Fh, Handle, NodeId, Object};
use crate::quota::Quota;

/// A donated data descriptor with what is known of it.
#[derive(Debug)]
pub struct OpenFile {
    pub(super) descriptor: OwnedFd,
    /// Of which node.
    pub node: NodeId,
    /// What it was opened as.
    pub object: Object,
    /// It can be written to.
    pub writable: bool,
    /// It had set-id bits when it was opened: a write of ours would take them away even where the writer may keep them.
    setid: AtomicBool,
    /// The file system can say that a read would wait.
    nowait: AtomicBool,
    /// Each write waits for the disk.
    pub writes_wait: bool,
    /// It may be kept when it is closed.
    pub(super) unchanged: Option<Unchanged>,
    /// Where the reading of a directory stands.
    pub stream: Mutex<Stream>,
}

impl OpenFile {
    /// A new one.
    pub fn new(descriptor: OwnedFd, node: NodeId, object: Object, setid: bool, flags: OpenFlags) -> Self {
        Self {
            descriptor,
            node,
            object,
            writable: flags.contains(OpenFlags::WRITE),
            setid: AtomicBool::new(setid),
            nowait: AtomicBool::new(true),
            writes_wait: flags.intersects(OpenFlags::SYNC | OpenFlags::DSYNC | OpenFlags::DIRECT),
            unchanged: None,
            stream: Mutex::default(),
        }
    }

    /// It was opened for reading and nothing else, after the file had last changed.
    #[must_use]
    pub fn unchanged(self, unchanged: Option<Unchanged>) -> Self {
        Self { unchanged, ..self }
    }

    /// Set-id bits may be there and must be kept by asking the helper to write.
    pub fn has_setid(&self) -> bool {
        self.setid.load(Ordering::Relaxed)
    }

    /// It got set-id bits after it was opened.
    fn got_setid(&self) {
        self.setid.store(self.writable, Ordering::Relaxed);
    }

    /// A write took the set-id bits away.
    pub fn lost_setid(&self) {
        self.setid.store(false, Ordering::Relaxed);
    }

    /// Reads can be tried without waiting.
    pub fn knows_nowait(&self) -> bool {
        self.nowait.load(Ordering::Relaxed)
    }

    /// RWF_NOWAIT gave EOPNOTSUPP: the file system has no such reads (tmpfs) and does not wait for a disk either.
    pub fn cannot_nowait(&self) {
        self.nowait.store(false, Ordering::Relaxed);
    }
}

impl AsFd for OpenFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl From<OpenFile> for OwnedFd {
    fn from(file: OpenFile) -> Self {
        file.descriptor
    }
}

/// All open handles of guests.
pub struct Files {
    open: Mutex<(HashMap<Fh, Arc<OpenFile>>, u64)>,
    held: Quota,
}

impl Files {
    /// None yet, at most `most`.
    pub fn new(most: usize) -> Self {
        Self { open: Mutex::new((HashMap::new(), 0)), held: Quota::new(most, "open files (--rlimit-nofile)") }
    }

    /// There is room for one more, which is asked before the helper opens it.
    ///
    /// # Errors
    /// ENFILE if there is not.
    pub fn room(&self) -> Result<()> {
        self.held.room(1)
    }

    /// A handle for it.
    pub fn insert(&self, file: Arc<OpenFile>) -> Fh {
        self.held.add(1);
        self.with(|(open, last)| {
            *last = last.wrapping_add(1);
            open.insert(Fh(*last), file);
            Fh(*last)
        })
    }

    /// A node got set-id bits: all who have it open for writing are to know.
    pub fn got_setid(&self, node: NodeId) {
        self.with(|(open, _)| open.values().filter(|file| file.node == node).for_each(|file| file.got_setid()));
    }

    /// What a handle stands for.
    ///
    /// # Errors
    /// EBADF if it stands for nothing, or for something else.
    pub fn get(&self, handle: Handle) -> Result<Arc<OpenFile>> {
        let file = self.with(|(open, _)| open.get(&handle.fh).cloned());
        file.filter(|file| file.node == handle.node && file.object == handle.object).ok_or(Errno::EBADF)
    }

    /// The handle is used no more.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn remove(&self, handle: Handle) -> Result<Arc<OpenFile>> {
        self.get(handle)?;
        let file = self.with(|(open, _)| open.remove(&handle.fh)).ok_or(Errno::EBADF)?;
        self.held.give_back(1);
        Ok(file)
    }

    /// No handle is used any more.
    pub fn clear(&self) {
        let gone = self.with(|(open, _)| std::mem::take(open));
        self.held.give_back(gone.len());
        drop(gone);
    }

    fn with<R>(&self, act: impl FnOnce(&mut (HashMap<Fh, Arc<OpenFile>>, u64)) -> R) -> R {
        act(&mut self.open.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> Arc<OpenFile> {
        let null = std::fs::File::open("/dev/null").unwrap().into();
        Arc::new(OpenFile::new(null, NodeId(1), Object::File, false, OpenFlags::READ))
    }

    #[test]
    fn a_handle_is_never_given_twice_and_good_for_its_node_and_kind_only() {
        let files = Files::new(8);
        let fh = files.insert(null());
        let handle = Handle { node: NodeId(1), fh, object: Object::File };
        assert!(files.get(handle).is_ok());
        assert_eq!(files.get(Handle { node: NodeId(2), ..handle }).err(), Some(Errno::EBADF));
        assert_eq!(files.remove(Handle { object: Object::Dir, ..handle }).err(), Some(Errno::EBADF));
        files.remove(handle).unwrap();
        assert_ne!(files.insert(null()), fh);
        assert_eq!(files.get(handle).err(), Some(Errno::EBADF));
    }

    #[test]
    fn at_the_limit_the_answer_is_enfile() {
        let files = Files::new(1);
        assert_eq!(files.room(), Ok(()));
        files.insert(null());
        assert_eq!(files.room(), Err(Errno::ENFILE));
        files.clear();
        assert_eq!(files.room(), Ok(()));
    }
}
