//! What a request comes by and its answer goes by: a descriptor chain, or a stream.

use std::os::fd::BorrowedFd;

use postern_ipc::{Errno, Result};

use crate::content::{Data, Room};
use crate::fs::{Sink, Source, Wait};
use crate::vhost::Request;

/// One request behind its decoded part, and the room for its answer. It is a [`Source`] of as many bytes as
/// [`expect`](Self::expect) said, and a [`Sink`] of those that [`aim`](Self::aim) set apart.
pub(super) trait Carrier: Source + Sink {
    /// Bytes of room for an answer, its header counted.
    fn capacity(&self) -> usize;

    /// `count` bytes of content follow.
    ///
    /// # Errors
    /// EINVAL if there are not exactly so many.
    fn expect(&mut self, count: u32) -> Result<()>;

    /// Content of the answer goes to `start`, `most` bytes at most.
    fn aim(&mut self, start: usize, most: usize);

    /// Bytes of content that were put there.
    fn filled(&self) -> usize;

    /// Copies `bytes` into the answer.
    ///
    /// # Errors
    /// ENOBUFS if there is no room, EFAULT.
    fn write_at(&mut self, at: usize, bytes: &[u8]) -> Result<()>;
}

/// A descriptor chain: content moves between guest memory and the page cache by itself.
pub(super) struct Chain<'a> {
    request: &'a mut Request,
    start: usize,
    most: usize,
    filled: usize,
}

impl<'a> Chain<'a> {
    /// What is left of a request.
    pub(super) fn new(request: &'a mut Request) -> Self {
        Self { request, start: 0, most: 0, filled: 0 }
    }

    /// Fills more of the room by what `fill` does.
    fn fill<R>(&mut self, fill: impl FnOnce(&mut Room<'_>) -> Result<R>) -> Result<R> {
        let size = u32::try_from(Sink::room(self)).unwrap_or(u32::MAX);
        let mut room = Room::new(self.request, self.start.saturating_add(self.filled), size);
        let done = fill(&mut room)?;
        self.filled = self.filled.saturating_add(room.filled());
        Ok(done)
    }

    fn data(&mut self) -> Result<Data<'_>> {
        let left = u32::try_from(self.left()).map_err(|_| Errno::EINVAL)?;
        Data::new(self.request, left)
    }
}

impl Sink for Chain<'_> {
    fn room(&self) -> usize {
        self.most.saturating_sub(self.filled)
    }

    fn read_from(&mut self, file: BorrowedFd<'_>, offset: u64, wait: Wait) -> Result<usize> {
        self.fill(|room| room.read_from(file, offset, wait))
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.fill(|room| room.put(bytes))
    }
}

impl Source for Chain<'_> {
    fn left(&self) -> usize {
        self.request.remaining()
    }

    fn write_to(&mut self, file: BorrowedFd<'_>, offset: u64) -> Result<usize> {
        self.data()?.write_to(file, offset)
    }

    fn take(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.data()?.take(buffer)
    }
}

impl Carrier for Chain<'_> {
    fn capacity(&self) -> usize {
        self.request.room()
    }

    fn expect(&mut self, count: u32) -> Result<()> {
        if usize::try_from(count) == Ok(self.request.remaining()) { Ok(()) } else { Err(Errno::EINVAL) }
    }

    fn aim(&mut self, start: usize, most: usize) {
        (self.start, self.most, self.filled) = (start, most, 0);
    }

    fn filled(&self) -> usize {
        self.filled
    }

    fn write_at(&mut self, at: usize, bytes: &[u8]) -> Result<()> {
        self.request.write_at(at, bytes)
    }
}

/// Bytes in memory, for what is not the content of a file: a symbolic link's target, an extended attribute's value.
pub(super) struct Buffer {
    /// What was put.
    pub bytes: Vec<u8>,
    most: usize,
}

impl Buffer {
    /// Takes at most `most` bytes.
    pub(super) fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most }
    }
}

impl Sink for Buffer {
    fn room(&self) -> usize {
        self.most.saturating_sub(self.bytes.len())
    }

    /// # Errors
    /// EINVAL: no content of a file goes here.
    fn read_from(&mut self, _: BorrowedFd<'_>, _: u64, _: Wait) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.len() > self.room() {
            return Err(Errno::ERANGE);
        }
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}
