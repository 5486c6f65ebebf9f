//! All locks of all owners, and how the host's kernel comes to know of them.
//!
//! Each owner has, for each file, an open file description of its own, which the helper opens for its first lock there:
//! the kernel takes each such description for another owner, so locks hold between guests, between servers and towards
//! the host's processes. It is closed with the owner's last lock.
//! fcntl(2): "Open file description locks"
//!
//! Nothing here ever waits for a lock. Both owners and parts are counted for each session, because the kernel's memory
//! for them counts for nobody.
//!
//! Order of locks: an owner's own, then the table's. No system call is made under the table's.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{HashMap, HashSet};
use nix::fcntl::{FcntlArg, fcntl};
use postern_ipc::attr::OpenFlags;
use postern_ipc::{Errno, Result};
use postern_policy::sandbox::seccomp::{Call, bits};

use super::ranges::Ranges;
use super::{Claim, Conflict, Holder, Lock, LockKind, LockOwner, Range};
use crate::fs::{Fh, Handle, NodeId};

/// Most owners of a session, each counted once for every file.
const OWNERS_MAX: usize = 4096;
/// Most parts of files that a session has locked, and handles by which it did.
const PARTS_MAX: usize = 16_384;

/// What locking calls, beside the list of every server.
pub const CALLS: &[Call] = &[
    Call::at(libc::SYS_fcntl, "locks part of a file, never waiting").eq(1, bits(libc::F_OFD_SETLK)),
    Call::at(libc::SYS_fcntl, "tells which lock stands in the way").eq(1, bits(libc::F_OFD_GETLK)),
];

/// All locks.
pub struct Locks {
    table: Mutex<Table>,
    /// Most descriptors for them.
    most: usize,
}

#[derive(Default)]
struct Table {
    by_node: HashMap<NodeId, HashMap<LockOwner, Arc<Holding>>>,
    by_session: HashMap<u64, Usage>,
    owners: usize,
}

#[derive(Clone, Copy, Default)]
struct Usage {
    owners: usize,
    parts: usize,
}

/// What one owner has of one file.
struct Holding {
    node: NodeId,
    owner: LockOwner,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    description: Option<Description>,
    ranges: Ranges,
    /// Through which it locked.
    handles: HashSet<Fh>,
    /// It is not in the table any more.
    over: bool,
}

/// An open file description.
struct Description {
    file: OwnedFd,
    writable: bool,
}

/// The kernel frees its locks with the last descriptor of it, and the helper may not have closed its own yet.
impl Drop for Description {
    fn drop(&mut self) {
        let _ = Range::new(0, 0).and_then(|all| set(self.file.as_fd(), all, None));
    }
}

/// How a file is opened to be locked.
pub type Open<'a> = &'a dyn Fn(OpenFlags) -> Result<OwnedFd>;

impl Locks {
    /// With at most so many descriptors, and half of them for one session.
    pub fn new(most: usize) -> Self {
        Self { table: Mutex::default(), most }
    }

    /// Takes a lock through an open file, which `open` can open once more.
    ///
    /// # Errors
    /// ENOLCK if there are too many, and those of opening.
    pub fn lock(&self, file: Handle, owner: &LockOwner, lock: Lock, open: Open<'_>) -> Result<Claim> {
        loop {
            let holding = self.holding(file.node, owner)?;
            let mut state = holding.lock();
            if state.over {
                continue;
            }
            let claimed = self.claim(&holding, &mut state, file.fh, lock, open);
            self.settle(&holding, &mut state);
            return claimed;
        }
    }

    /// Gives part of a file back.
    ///
    /// # Errors
    /// ENOLCK if that would leave too many parts.
    pub fn unlock(&self, node: NodeId, owner: &LockOwner, range: Range) -> Result<()> {
        let Some(holding) = self.known(node, owner) else { return Ok(()) };
        let mut state = holding.lock();
        let done = self.change(&holding, &mut state, range, None);
        self.settle(&holding, &mut state);
        done
    }

    /// A lock that stands in the way of this one; `file` is any description of the file that has no lock.
    ///
    /// # Errors
    /// Those of fcntl(2).
    pub fn test(&self, node: NodeId, file: BorrowedFd<'_>, owner: &LockOwner, lock: Lock) -> Result<Option<Conflict>> {
        let holding = self.known(node, owner);
        let state = holding.as_ref().map(|holding| holding.lock());
        let own = state.as_ref().and_then(|state| state.description.as_ref());
        let Some((found, process)) = get(own.map_or(file, |own| own.file.as_fd()), lock)? else { return Ok(None) };
        drop(state);
        let holder = match process {
            Some(process) => Holder::Host(process),
            None => self.holder(node, owner, found).map_or(Holder::Host(0), Holder::Client),
        };
        Ok(Some(Conflict { lock: found, holder }))
    }

    /// Whoever locked through this handle loses what he has of the file. fcntl(2): "If a process closes any file
    /// descriptor referring to a file, then all of the process's locks on that file are released"
    pub fn closed(&self, node: NodeId, fh: Fh) {
        for holding in self.of(node) {
            let mut state = holding.lock();
            if state.handles.contains(&fh) {
                self.end(&holding, &mut state);
            }
        }
    }

    /// Nobody has a lock any more.
    pub fn clear(&self) {
        let gone = std::mem::take(&mut *self.table());
        for holding in gone.by_node.into_values().flat_map(HashMap::into_values) {
            let mut state = holding.lock();
            state.over = true;
            state.description = None;
        }
    }

    /// What `owner` has of a file, perhaps nothing yet.
    fn holding(&self, node: NodeId, owner: &LockOwner) -> Result<Arc<Holding>> {
        let mut table = self.table();
        if let Some(holding) = table.by_node.get(&node).and_then(|owners| owners.get(owner)) {
            return Ok(Arc::clone(holding));
        }
        let usage = table.by_session.get(&owner.session).copied().unwrap_or_default();
        if table.owners >= self.most || usage.owners >= OWNERS_MAX.min(self.most / 2) {
            return Err(Errno::ENOLCK);
        }
        let holding = Arc::new(Holding { node, owner: owner.clone(), state: Mutex::default() });
        table.by_node.entry(node).or_default().insert(owner.clone(), Arc::clone(&holding));
        table.owners = table.owners.saturating_add(1);
        table.by_session.entry(owner.session).or_default().owners = usage.owners.saturating_add(1);
        Ok(holding)
    }

    fn known(&self, node: NodeId, owner: &LockOwner) -> Option<Arc<Holding>> {
        self.table().by_node.get(&node)?.get(owner).cloned()
    }

    fn of(&self, node: NodeId) -> Vec<Arc<Holding>> {
        self.table().by_node.get(&node).map(|owners| owners.values().cloned().collect()).unwrap_or_default()
    }

    /// One of ours that has what the kernel found; one that is just being changed is not waited for.
    fn holder(&self, node: NodeId, except: &LockOwner, found: Lock) -> Option<LockOwner> {
        let has = |holding: &Arc<Holding>| {
            holding.owner != *except && holding.state.try_lock().is_ok_and(|state| state.ranges.has(found))
        };
        self.of(node).into_iter().find(has).map(|holding| holding.owner.clone())
    }

    fn claim(&self, holding: &Holding, state: &mut State, fh: Fh, lock: Lock, open: Open<'_>) -> Result<Claim> {
        state.reach(lock.kind, open)?;
        let new = usize::from(!state.handles.contains(&fh));
        self.room(&holding.owner, new)?;
        match self.change(holding, state, lock.range, Some(lock.kind)) {
            Ok(()) => {
                state.handles.insert(fh);
                self.table().count(&holding.owner, new, 0);
                Ok(Claim::Granted)
            }
            Err(Errno::EAGAIN) => Ok(Claim::Refused),
            Err(errno) => Err(errno),
        }
    }

    /// Locks or gives back, in the kernel and here.
    fn change(&self, holding: &Holding, state: &mut State, range: Range, kind: Option<LockKind>) -> Result<()> {
        let Some(description) = &state.description else { return Ok(()) };
        let change = state.ranges.plan(range, kind);
        let (more, fewer) = change.counts();
        self.room(&holding.owner, more.saturating_sub(fewer))?;
        set(description.file.as_fd(), range, kind)?;
        state.ranges.apply(change);
        self.table().count(&holding.owner, more, fewer);
        Ok(())
    }

    /// An owner without locks is none.
    fn settle(&self, holding: &Arc<Holding>, state: &mut State) {
        if state.ranges.is_empty() && !state.over {
            self.end(holding, state);
        }
    }

    fn end(&self, holding: &Arc<Holding>, state: &mut State) {
        let ended = std::mem::replace(state, State { over: true, ..State::default() });
        self.table().remove(holding, ended.ranges.len().saturating_add(ended.handles.len()));
    }

    fn room(&self, owner: &LockOwner, more: usize) -> Result<()> {
        let parts = self.table().by_session.get(&owner.session).map_or(0, |usage| usage.parts);
        if more == 0 || parts.saturating_add(more) <= PARTS_MAX { Ok(()) } else { Err(Errno::ENOLCK) }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn count(&mut self, owner: &LockOwner, more: usize, fewer: usize) {
        if let Some(usage) = self.by_session.get_mut(&owner.session) {
            usage.parts = usage.parts.saturating_add(more).saturating_sub(fewer);
        }
    }

    fn remove(&mut self, holding: &Arc<Holding>, parts: usize) {
        let Holding { node, owner, .. } = &**holding;
        let Some(owners) = self.by_node.get_mut(node) else { return };
        if !owners.get(owner).is_some_and(|there| Arc::ptr_eq(there, holding)) {
            return;
        }
        owners.remove(owner);
        if owners.is_empty() {
            self.by_node.remove(node);
        }
        self.owners = self.owners.saturating_sub(1);
        self.count(owner, 0, parts);
        if let Some(usage) = self.by_session.get_mut(&owner.session) {
            usage.owners = usage.owners.saturating_sub(1);
            if usage.owners == 0 {
                self.by_session.remove(&owner.session);
            }
        }
    }
}

impl Holding {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Has a description that is good for such locks. What was opened for reading is opened once more for writing; its
    /// locks are read locks, which the new description can have beside it before it goes.
    fn reach(&mut self, kind: LockKind, open: Open<'_>) -> Result<()> {
        let writable = kind == LockKind::Write;
        if self.description.as_ref().is_some_and(|there| there.writable || !writable) {
            return Ok(());
        }
        let file = if writable { open_for_writing(open, self.ranges.is_empty()) } else { open(OpenFlags::READ) }?;
        for held in self.ranges.iter() {
            set(file.as_fd(), held.range, Some(held.kind))?;
        }
        self.description = Some(Description { file, writable });
        Ok(())
    }
}

/// For both, as the owner may want to read later; what he may only write is opened for that.
fn open_for_writing(open: Open<'_>, only: bool) -> Result<OwnedFd> {
    let write = OpenFlags::WRITE | OpenFlags::APPEND;
    match open(write | OpenFlags::READ) {
        Err(Errno::EACCES) if only => open(write),
        opened => opened,
    }
}

/// As fcntl(2) takes it. F_SETLK: "EAGAIN"
fn raw(range: Range, kind: Option<LockKind>) -> Result<libc::flock> {
    let kind = match kind {
        None => libc::F_UNLCK,
        Some(LockKind::Read) => libc::F_RDLCK,
        Some(LockKind::Write) => libc::F_WRLCK,
    };
    let short = |value: libc::c_int| value.try_into().map_err(|_| Errno::EINVAL);
    Ok(libc::flock {
        l_type: short(kind)?,
        l_whence: short(libc::SEEK_SET)?,
        l_start: range.start().cast_signed(),
        l_len: range.length().cast_signed(),
        l_pid: 0,
    })
}

/// # Errors
/// EAGAIN if somebody else's stands in the way, EBADF if the file is not open for that.
fn set(file: BorrowedFd<'_>, range: Range, kind: Option<LockKind>) -> Result<()> {
    fcntl(file, FcntlArg::F_OFD_SETLK(&raw(range, kind)?))?;
    Ok(())
}

/// The lock that stands in the way, and the process that has it if the kernel says so.
fn get(file: BorrowedFd<'_>, lock: Lock) -> Result<Option<(Lock, Option<u32>)>> {
    let mut found = raw(lock.range, Some(lock.kind))?;
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut found))?;
    let kind = match libc::c_int::from(found.l_type) {
        libc::F_RDLCK => LockKind::Read,
        libc::F_WRLCK => LockKind::Write,
        _ => return Ok(None),
    };
    let range = Range::new(found.l_start.cast_unsigned(), found.l_len.cast_unsigned())?;
    // -1 is an open file description's, which no process owns; less is one of another machine.
    let process = (found.l_pid != -1).then(|| found.l_pid.try_into().unwrap_or(0));
    Ok(Some((Lock { kind, range }, process)))
}
