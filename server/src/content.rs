//! The content of files in guest memory: where an answer's goes to, and where a request's comes from.

use std::os::fd::BorrowedFd;

use postern_ipc::{Errno, Result};
use rustix::io::ReadWriteFlags;

use crate::fs::{Sink, Source, Wait};
use crate::vhost::{Request, preadv2, pwritev2};

/// What follows the header of an answer, up to the size the guest asked for.
pub(crate) struct Room<'a> {
    request: &'a Request,
    header: usize,
    filled: usize,
    most: usize,
}

impl<'a> Room<'a> {
    /// At most `size` bytes, behind a header of so many.
    pub(crate) fn new(request: &'a Request, header: usize, size: u32) -> Self {
        let room = request.room().saturating_sub(header);
        Self { request, header, filled: 0, most: room.min(usize::try_from(size).unwrap_or(usize::MAX)) }
    }

    /// Bytes filled.
    pub(crate) fn filled(&self) -> usize {
        self.filled
    }

    fn at(&self) -> usize {
        self.filled.saturating_add(self.header)
    }
}

impl Sink for Room<'_> {
    fn room(&self) -> usize {
        self.most.saturating_sub(self.filled)
    }

    fn read_from(&mut self, file: BorrowedFd<'_>, offset: u64, wait: Wait) -> Result<usize> {
        let flags = if wait == Wait::Never { ReadWriteFlags::NOWAIT } else { ReadWriteFlags::empty() };
        let start = self.filled;
        while self.room() > 0 {
            let done = self.filled.saturating_sub(start);
            let at = u64::try_from(done).ok().and_then(|done| offset.checked_add(done)).ok_or(Errno::EINVAL)?;
            let read = preadv2(file, &self.request.room_at(self.at(), self.room())?, at, flags)?;
            let full = read == self.room();
            self.filled = self.filled.saturating_add(read);
            // Without waiting, less than asked for may be all that is in the cache; nothing is the end of the file.
            if read == 0 || full || wait == Wait::AsNeeded {
                break;
            }
        }
        Ok(self.filled.saturating_sub(start))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > self.room() {
            return Err(Errno::ERANGE);
        }
        self.request.write_at(self.at(), bytes)?;
        self.filled = self.filled.saturating_add(bytes.len());
        Ok(())
    }
}

/// The data of a WRITE.
pub(crate) struct Data<'a> {
    request: &'a mut Request,
    left: usize,
}

impl<'a> Data<'a> {
    /// The next `size` bytes of the request.
    ///
    /// # Errors
    /// EINVAL if there are fewer.
    pub(crate) fn new(request: &'a mut Request, size: u32) -> Result<Self> {
        let left = usize::try_from(size).ok().filter(|&n| n <= request.remaining()).ok_or(Errno::EINVAL)?;
        Ok(Self { request, left })
    }
}

impl Source for Data<'_> {
    fn left(&self) -> usize {
        self.left
    }

    fn write_to(&mut self, file: BorrowedFd<'_>, offset: u64) -> Result<usize> {
        let left = std::mem::take(&mut self.left);
        pwritev2(file, &self.request.take(left)?, offset, ReadWriteFlags::empty())
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let len = buffer.len().min(self.left);
        self.request.read_exact(buffer.get_mut(..len).unwrap_or_default())?;
        self.left = self.left.saturating_sub(len);
        Ok(len)
    }
}
