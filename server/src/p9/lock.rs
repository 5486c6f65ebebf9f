//! Locks on parts of files. A client that would wait for one is told that it is not to be had, and asks again later, as
//! Linux's does; so no request ever waits for a lock.

use postern_ipc::{Errno, Result};

use super::message::{Rgetlock, Rlock, Tgetlock, Tlock};
use super::session::{Call, Session};
use super::wire::{Put, Text};
use crate::fs::Fs;
use crate::fs::lock::{Claim, Conflict, Lock, LockKind, LockOwner, Range};

/// P9_LOCK_FLAGS_BLOCK: the client would wait. linux/net/9p/9p.h
const FLAG_BLOCK: u32 = 1;
/// P9_LOCK_TYPE_RDLCK, P9_LOCK_TYPE_WRLCK, P9_LOCK_TYPE_UNLCK
const READ: u8 = 0;
const WRITE: u8 = 1;
const UNLOCK: u8 = 2;
/// P9_LOCK_SUCCESS, P9_LOCK_BLOCKED
const SUCCESS: u8 = 0;
const BLOCKED: u8 = 1;

/// Takes a lock or gives it back. What was held before another server was started cannot be reclaimed: EINVAL.
pub(super) fn lock<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Tlock<'_>) -> Result<Rlock> {
    let fid = s.fids.get(t.fid)?;
    let file = fid.opened()?.handle;
    if t.flags & !FLAG_BLOCK != 0 {
        return Err(Errno::EINVAL);
    }
    let owner = LockOwner::new(s.number, t.client_id.0, t.proc_id)?;
    let range = Range::new(t.start, t.length)?;
    let claim = match kind(t.kind)? {
        Some(kind) => fid.fs().lock(file, &owner, Lock { kind, range })?,
        None => fid.fs().unlock(file, &owner, range).map(|()| Claim::Granted)?,
    };
    Ok(Rlock { status: if claim == Claim::Granted { SUCCESS } else { BLOCKED } })
}

/// Tells a lock that stands in the way. Linux does not say which kind it would take: then any does.
pub(super) fn getlock<'a, F: Fs>(s: &Session<F>, _: &mut Call<'a>, t: Tgetlock<'a>) -> Result<Told<'a>> {
    let fid = s.fids.get(t.fid)?;
    let file = fid.opened()?.handle;
    let owner = LockOwner::new(s.number, t.client_id.0, t.proc_id)?;
    let (kind, range) = (kind(t.kind)?.unwrap_or(LockKind::Write), Range::new(t.start, t.length)?);
    Ok(match fid.fs().getlock(file, &owner, Lock { kind, range })? {
        Some(conflict) => Told::Conflict(conflict),
        None => Told::Free(t),
    })
}

fn kind(number: u8) -> Result<Option<LockKind>> {
    match number {
        READ => Ok(Some(LockKind::Read)),
        WRITE => Ok(Some(LockKind::Write)),
        UNLOCK => Ok(None),
        _ => Err(Errno::EINVAL),
    }
}

/// The answer to Tgetlock.
pub(super) enum Told<'a> {
    /// Nothing stands in the way of this.
    Free(Tgetlock<'a>),
    /// This does.
    Conflict(Conflict),
}

impl Put for Told<'_> {
    fn put(&self, to: &mut Vec<u8>) {
        let answer = match self {
            Self::Free(asked) => Rgetlock {
                kind: UNLOCK,
                start: asked.start,
                length: asked.length,
                proc_id: asked.proc_id,
                client_id: asked.client_id,
            },
            Self::Conflict(Conflict { lock: Lock { kind, range }, holder }) => Rgetlock {
                kind: if *kind == LockKind::Read { READ } else { WRITE },
                start: range.start(),
                length: range.length(),
                proc_id: holder.process(),
                client_id: Text(holder.machine()),
            },
        };
        answer.put(to);
    }
}
