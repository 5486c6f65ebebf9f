//! What a client's fids stand for: a node, the user who attached, and perhaps something open.
//!
//! A fid never changes: a message that changes what it stands for puts another in its place, so a thread that still
//! works with the old one has it whole. What a fid holds of the file system it gives back when the last such thread is
//! done. No path is kept: the name a node was found by is only a hint of what to remove or rename, and looked up
//! again before it is believed.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use postern_ipc::attr::XattrFlags;
use postern_ipc::name::{FileName, XattrName};
use postern_ipc::{Errno, Result};

use super::dotu::ReadTo;
use crate::fs::{Fs, Handle, NodeId};
use crate::quota::{Quota, Ticket};

/// Most bytes of extended attributes' values that fids hold. QEMU: max_xattr, of 64 KiB each
const VALUES_MAX: usize = 64 << 20;

/// How much the clients of a server may make it hold, all together.
#[derive(Clone, Debug)]
pub(super) struct Limits {
    fids: Arc<Quota>,
    values: Arc<Quota>,
}

impl Limits {
    /// So many fids.
    pub(super) fn new(fids: usize) -> Self {
        let fids = Quota::new(fids, "fids (--max-fids)");
        let values = Quota::new(VALUES_MAX, "bytes of extended attributes in 9P fids");
        Self { fids: Arc::new(fids), values: Arc::new(values) }
    }
}

/// One reference to a node of the file system.
pub(super) struct Held<F: Fs> {
    /// As it is for the user who attached.
    pub fs: Arc<F>,
    /// Which.
    pub node: NodeId,
}

impl<F: Fs> Held<F> {
    /// Owns the reference that a look-up gave.
    pub(super) fn new(fs: &Arc<F>, node: NodeId) -> Arc<Self> {
        Arc::new(Self { fs: Arc::clone(fs), node })
    }
}

impl<F: Fs> Drop for Held<F> {
    fn drop(&mut self) {
        self.fs.forget(self.node, 1);
    }
}

/// Where a node was found.
pub(super) struct Found<F: Fs> {
    /// The directory.
    pub parent: Arc<Held<F>>,
    /// Its name there.
    pub name: Box<[u8]>,
}

impl<F: Fs> Found<F> {
    /// As a look-up says.
    pub(super) fn new(parent: &Arc<Held<F>>, name: &FileName) -> Arc<Self> {
        Arc::new(Self { parent: Arc::clone(parent), name: name.as_bytes().into() })
    }
}

/// An open file or directory, closed when nobody uses it any more.
pub(super) struct Opened<F: Fs> {
    /// As it is for the user who opened it.
    pub fs: Arc<F>,
    /// Its handle.
    pub handle: Handle,
    /// It is removed when its fid is clunked. open(5): ORCLOSE
    pub removes: bool,
    /// Of a directory that is read as records.
    pub place: Mutex<ReadTo>,
}

impl<F: Fs> Opened<F> {
    /// Owns the handle.
    pub(super) fn new(fs: &Arc<F>, handle: Handle) -> Self {
        Self { fs: Arc::clone(fs), handle, removes: false, place: Mutex::default() }
    }

    /// To be removed when its fid is clunked, or not.
    pub(super) fn removed(mut self, removes: bool) -> Self {
        self.removes = removes;
        self
    }
}

impl<F: Fs> Drop for Opened<F> {
    fn drop(&mut self) {
        let _ = self.fs.release(self.handle);
    }
}

/// The value of an extended attribute, or all their names.
pub(super) struct Value {
    /// As it was when its fid was walked to.
    pub bytes: Box<[u8]>,
    _room: Ticket,
}

impl Value {
    /// Of these bytes.
    pub(super) fn new(bytes: Vec<u8>, room: Ticket) -> Self {
        Self { bytes: bytes.into(), _room: room }
    }
}

/// The value of an extended attribute that is being written; set when its fid is clunked.
pub(super) struct NewValue {
    /// Which.
    pub name: XattrName,
    /// How.
    pub flags: XattrFlags,
    /// As long as was announced.
    pub value: Mutex<Written>,
    _room: Ticket,
}

/// Bytes, and how many of them have come.
pub(super) struct Written {
    /// All.
    pub bytes: Vec<u8>,
    /// From their beginning.
    pub len: usize,
}

/// What a fid is good for beside naming its node.
pub(super) enum Role<F: Fs> {
    /// Nothing.
    Walked,
    /// Reading and writing.
    Opened(Opened<F>),
    /// Reading the value of an extended attribute.
    Value(Value),
    /// Writing one.
    NewValue(Box<NewValue>),
}

/// What a fid stands for.
pub(super) struct Fid<F: Fs> {
    /// The node.
    pub held: Arc<Held<F>>,
    /// Where it was found; the root of the share was not.
    pub found: Option<Arc<Found<F>>>,
    /// The user who attached.
    pub uid: u32,
    /// What else.
    pub role: Role<F>,
}

impl<F: Fs> Fid<F> {
    /// The file system, as it is for the user who attached.
    pub(super) fn fs(&self) -> &Arc<F> {
        &self.held.fs
    }

    /// # Errors
    /// EPERM if the other fid is another user's: one operation is one user's.
    pub(super) fn is_of_the_user_of(&self, other: &Self) -> Result<()> {
        if Arc::ptr_eq(self.fs(), other.fs()) { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// The node.
    pub(super) fn node(&self) -> NodeId {
        self.held.node
    }

    /// The same node in another role.
    pub(super) fn with(&self, role: Role<F>) -> Self {
        Self { held: Arc::clone(&self.held), found: self.found.clone(), uid: self.uid, role }
    }

    /// Another node, for the same user.
    pub(super) fn at(&self, held: Arc<Held<F>>, found: Option<Arc<Found<F>>>, role: Role<F>) -> Self {
        Self { held, found, uid: self.uid, role }
    }

    /// What is open.
    ///
    /// # Errors
    /// EBADF if nothing is.
    pub(super) fn opened(&self) -> Result<&Opened<F>> {
        if let Role::Opened(opened) = &self.role { Ok(opened) } else { Err(Errno::EBADF) }
    }

    /// # Errors
    /// EINVAL if something is open already.
    pub(super) fn is_walked(&self) -> Result<()> {
        if matches!(self.role, Role::Walked) { Ok(()) } else { Err(Errno::EINVAL) }
    }
}

impl NewValue {
    /// `size` bytes of it are to come.
    pub(super) fn new(name: XattrName, flags: XattrFlags, size: usize, room: Ticket) -> Self {
        Self { name, flags, value: Mutex::new(Written { bytes: vec![0; size], len: 0 }), _room: room }
    }
}

/// All fids of a session.
pub(super) struct Fids<F: Fs> {
    table: Mutex<HashMap<u32, Arc<Fid<F>>>>,
    limits: Limits,
}

impl<F: Fs> Drop for Fids<F> {
    fn drop(&mut self) {
        self.clear();
    }
}

impl<F: Fs> Fids<F> {
    /// None yet.
    pub(super) fn new(limits: Limits) -> Self {
        Self { table: Mutex::default(), limits }
    }

    /// # Errors
    /// EBADF if it stands for nothing.
    pub(super) fn get(&self, fid: u32) -> Result<Arc<Fid<F>>> {
        self.with(|table| table.get(&fid).cloned()).ok_or(Errno::EBADF)
    }

    /// A fid that stands for nothing yet.
    ///
    /// # Errors
    /// EINVAL if it does, ENFILE if there are too many.
    pub(super) fn insert(&self, fid: u32, new: Fid<F>) -> Result<()> {
        let new = Arc::new(new);
        self.with(|table| {
            let Entry::Vacant(free) = table.entry(fid) else { return Err(Errno::EINVAL) };
            self.limits.fids.room(1)?;
            self.limits.fids.add(1);
            free.insert(Arc::clone(&new));
            Ok(())
        })
    }

    /// A fid that stands for `old` stands for `new` now.
    ///
    /// # Errors
    /// EBADF if it stands for something else meanwhile.
    pub(super) fn replace(&self, fid: u32, old: &Arc<Fid<F>>, new: Fid<F>) -> Result<()> {
        let mut new = Arc::new(new);
        self.with(|table| {
            let slot = table.get_mut(&fid).filter(|there| Arc::ptr_eq(there, old)).ok_or(Errno::EBADF)?;
            std::mem::swap(slot, &mut new);
            Ok(())
        })
    }

    /// It stands for nothing any more.
    ///
    /// # Errors
    /// EBADF if it did not before.
    pub(super) fn remove(&self, fid: u32) -> Result<Arc<Fid<F>>> {
        let gone = self.with(|table| table.remove(&fid)).ok_or(Errno::EBADF)?;
        self.limits.fids.give_back(1);
        Ok(gone)
    }

    /// None stands for anything any more.
    pub(super) fn clear(&self) {
        let gone = self.with(std::mem::take);
        self.limits.fids.give_back(gone.len());
    }

    /// Room for so many bytes of a value.
    ///
    /// # Errors
    /// ENFILE if there is none.
    pub(super) fn value(&self, size: usize) -> Result<Ticket> {
        self.limits.values.ticket(size)
    }

    /// What is thrown out of the table is dropped outside the lock: it closes descriptors.
    fn with<R>(&self, act: impl FnOnce(&mut HashMap<u32, Arc<Fid<F>>>) -> R) -> R {
        act(&mut self.table.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
