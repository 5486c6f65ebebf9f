//! A request that came as bytes, and the room for its answer in memory: how a stream carries 9P.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::BorrowedFd;

use postern_ipc::{Errno, Result};
use rustix::io::{ReadWriteFlags, preadv2, pwritev2};

use super::carrier::Carrier;
use crate::fs::{Sink, Source, Wait};

/// What is left of a request, and the answer.
pub(super) struct Exchange<'a> {
    data: &'a [u8],
    answer: &'a mut [u8],
    start: usize,
    most: usize,
    filled: usize,
}

impl<'a> Exchange<'a> {
    /// With this content, and room for an answer of so many bytes.
    pub(super) fn new(data: &'a [u8], answer: &'a mut [u8]) -> Self {
        Self { data, answer, start: 0, most: 0, filled: 0 }
    }

    /// The room that is left for content.
    fn free(&mut self) -> &mut [u8] {
        let from = self.start.saturating_add(self.filled);
        let to = self.start.saturating_add(self.most);
        self.answer.get_mut(from..to).unwrap_or_default()
    }
}

impl Sink for Exchange<'_> {
    fn room(&self) -> usize {
        self.most.saturating_sub(self.filled)
    }

    fn read_from(&mut self, file: BorrowedFd<'_>, offset: u64, wait: Wait) -> Result<usize> {
        let flags = if wait == Wait::Never { ReadWriteFlags::NOWAIT } else { ReadWriteFlags::empty() };
        let wanted = self.room();
        let mut total = 0_usize;
        loop {
            let at = u64::try_from(total).ok().and_then(|done| offset.checked_add(done)).ok_or(Errno::EINVAL)?;
            let read = preadv2(file, &mut [IoSliceMut::new(self.free())], at, flags)?;
            self.filled = self.filled.saturating_add(read);
            total = total.saturating_add(read);
            // Without waiting, less than asked for may be all that is in the cache; nothing is the end of the file.
            if read == 0 || total == wanted || wait == Wait::AsNeeded {
                return Ok(total);
            }
        }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.free().get_mut(..bytes.len()).ok_or(Errno::ERANGE)?.copy_from_slice(bytes);
        self.filled = self.filled.saturating_add(bytes.len());
        Ok(())
    }
}

impl Source for Exchange<'_> {
    fn left(&self) -> usize {
        self.data.len()
    }

    fn write_to(&mut self, file: BorrowedFd<'_>, offset: u64) -> Result<usize> {
        let data = std::mem::take(&mut self.data);
        Ok(pwritev2(file, &[IoSlice::new(data)], offset, ReadWriteFlags::empty())?)
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let (taken, rest) = self.data.split_at_checked(buffer.len()).unwrap_or((self.data, &[]));
        buffer.get_mut(..taken.len()).unwrap_or_default().copy_from_slice(taken);
        self.data = rest;
        Ok(taken.len())
    }
}

impl Carrier for Exchange<'_> {
    fn capacity(&self) -> usize {
        self.answer.len()
    }

    fn expect(&mut self, count: u32) -> Result<()> {
        if usize::try_from(count) == Ok(self.data.len()) { Ok(()) } else { Err(Errno::EINVAL) }
    }

    fn aim(&mut self, start: usize, most: usize) {
        (self.start, self.most, self.filled) = (start, most, 0);
    }

    fn filled(&self) -> usize {
        self.filled
    }

    fn write_at(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        let end = at.checked_add(bytes.len()).ok_or(Errno::ENOBUFS)?;
        self.answer.get_mut(at..end).ok_or(Errno::ENOBUFS)?.copy_from_slice(bytes);
        Ok(())
    }
}
