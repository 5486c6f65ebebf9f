//! Locks on parts of files, as fcntl(2) has them: ranges of bytes that readers share or one writer has.
//!
//! What is locked and by whom is told here, which parts one owner has in [`ranges`], and how the host's kernel comes to
//! know of it in [`table`].

pub mod ranges;
pub mod table;

use postern_ipc::{Errno, Result};

/// The last byte that a file can have. fcntl(2): off_t
const END: u64 = i64::MAX.cast_unsigned();
/// Longest name of a guest's machine, bytes. Linux's have at most 64: uname(2)
const MACHINE_MAX: usize = 255;

/// Some bytes of a file: at least one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Range {
    start: u64,
    /// Belongs to it.
    last: u64,
}

impl Range {
    /// `length` bytes from `start` on, or with 0 all that there can be.
    ///
    /// # Errors
    /// EINVAL for a start behind all files, EOVERFLOW for an end there. fcntl(2)
    pub fn new(start: u64, length: u64) -> Result<Self> {
        if start > END {
            return Err(Errno::EINVAL);
        }
        let last = match length.checked_sub(1) {
            None => END,
            Some(more) => start.checked_add(more).filter(|&last| last <= END).ok_or(Errno::EOVERFLOW)?,
        };
        Ok(Self { start, last })
    }

    /// Its first byte.
    pub fn start(self) -> u64 {
        self.start
    }

    /// How many bytes; 0 if it has no end.
    pub fn length(self) -> u64 {
        if self.last == END { 0 } else { self.last.saturating_sub(self.start).saturating_add(1) }
    }

    fn overlaps(self, other: Self) -> bool {
        self.start <= other.last && other.start <= self.last
    }
}

/// What a lock is for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LockKind {
    /// Shared with other readers: F_RDLCK
    Read,
    /// With nobody: F_WRLCK
    Write,
}

/// A lock.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Lock {
    /// What for.
    pub kind: LockKind,
    /// On what.
    pub range: Range,
}

impl Lock {
    /// Two owners cannot have both.
    fn conflicts(self, other: Self) -> bool {
        (self.kind == LockKind::Write || other.kind == LockKind::Write) && self.range.overlaps(other.range)
    }
}

/// Whose a lock is: a process of a machine, as a client says, and the session in which it does. Two sessions are never
/// the same owner, whatever they say.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct LockOwner {
    session: u64,
    machine: Box<[u8]>,
    process: u32,
}

impl LockOwner {
    /// A process of a machine of a session.
    ///
    /// # Errors
    /// EINVAL if no machine has such a long name.
    pub fn new(session: u64, machine: &[u8], process: u32) -> Result<Self> {
        if machine.len() > MACHINE_MAX {
            return Err(Errno::EINVAL);
        }
        Ok(Self { session, machine: machine.into(), process })
    }
}

/// Whether a lock was to be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// It is held now.
    Granted,
    /// Another one stands in the way.
    Refused,
}

/// A lock that stands in the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// Itself.
    pub lock: Lock,
    /// Whose it is.
    pub holder: Holder,
}

/// Who has a lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Holder {
    /// One of the clients served here.
    Client(LockOwner),
    /// A process of the host; 0 if the kernel does not say which.
    Host(u32),
}

impl Holder {
    /// The process's number where it runs; 0 if nobody says.
    pub fn process(&self) -> u32 {
        match self {
            Self::Client(owner) => owner.process,
            Self::Host(process) => *process,
        }
    }

    /// The machine it runs on; nothing for the host.
    pub fn machine(&self) -> &[u8] {
        match self {
            Self::Client(owner) => &owner.machine,
            Self::Host(_) => b"",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // fcntl(2): "EOVERFLOW"; "EINVAL"; "Specifying 0 for l_len has the special meaning: lock all bytes ... to the end
    // of file"
    #[test]
    fn a_range_ends_where_files_do() {
        assert_eq!(Range::new(END + 1, 1), Err(Errno::EINVAL));
        assert_eq!(Range::new(u64::MAX, u64::MAX), Err(Errno::EINVAL));
        assert_eq!(Range::new(1, END + 1), Err(Errno::EOVERFLOW));
        assert_eq!(Range::new(END, u64::MAX), Err(Errno::EOVERFLOW));
        assert_eq!(Range::new(1, END), Range::new(1, 0));
        assert_eq!(Range::new(7, 0).unwrap().length(), 0);
        assert_eq!(Range::new(7, 5).map(|range| (range.start(), range.last, range.length())), Ok((7, 11, 5)));
    }

    #[test]
    fn a_machine_with_an_endless_name_owns_nothing() {
        assert_eq!(LockOwner::new(1, &[b'm'; MACHINE_MAX + 1], 1), Err(Errno::EINVAL));
        assert_ne!(LockOwner::new(1, b"m", 1), LockOwner::new(2, b"m", 1));
    }
}
