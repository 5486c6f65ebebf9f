//! When what the guest writes goes from the page cache to the disk.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use postern_ipc::{Errno, Result};

/// QEMU's `writeout`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Writeout {
    /// When the kernel sees fit.
    #[default]
    Later,
    /// It is on its way before the guest is answered, so that the host's page cache does not fill with it. What the
    /// guest wrote there before has arrived by then. No promise that it outlives a crash: that is FSYNC's.
    Immediate,
}

impl Writeout {
    /// After a write of `length` bytes at `offset`.
    ///
    /// # Errors
    /// Those of sync_file_range(2). EIO is a write that failed earlier: the guest must hear of it now, because the
    /// kernel tells it once for each open file.
    pub(super) fn after(self, file: BorrowedFd<'_>, offset: u64, length: u64) -> Result<()> {
        // To 0 bytes the system call gives a meaning of its own: all up to the end.
        if self == Self::Later || length == 0 {
            return Ok(());
        }
        let signed = |n: u64| i64::try_from(n).map_err(|_| Errno::EFBIG);
        sync_file_range(file, signed(offset)?, signed(length)?)
    }
}

/// Starts writing out, when an earlier start for the same pages is through.
fn sync_file_range(file: BorrowedFd<'_>, offset: i64, length: i64) -> Result<()> {
    let flags = libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE;
    // SAFETY: the call takes numbers only, and the descriptor is borrowed while it lasts.
    let done = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, length, flags) };
    if done == 0 { Ok(()) } else { Err(nix::errno::Errno::last().into()) }
}
