//! The room for an answer in guest memory: for the content of a file, and for directory entries.

use std::os::fd::BorrowedFd;

use postern_ipc::{Errno, Result};
use rustix::io::ReadWriteFlags;
use zerocopy::IntoBytes;

use super::abi::{self, Direntplus, OutHeader, RECORD_ALIGN};
use super::settings::Settings;
use super::wire;
use crate::fs::{Detail, Dirent, Listing, Sink, Source, Wait};
use crate::vhost::{Request, preadv2, pwritev2};

/// What follows the header of an answer, up to the size the guest asked for.
pub(super) struct Room<'a> {
    request: &'a Request,
    filled: usize,
    most: usize,
}

impl<'a> Room<'a> {
    /// At most `size` bytes.
    pub(super) fn new(request: &'a Request, size: u32) -> Self {
        let room = request.room().saturating_sub(size_of::<OutHeader>());
        Self { request, filled: 0, most: room.min(usize::try_from(size).unwrap_or(usize::MAX)) }
    }

    /// Bytes filled.
    pub(super) fn filled(&self) -> usize {
        self.filled
    }

    fn at(&self) -> usize {
        self.filled.saturating_add(size_of::<OutHeader>())
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
pub(super) struct Data<'a> {
    request: &'a mut Request,
    left: usize,
}

impl<'a> Data<'a> {
    /// The next `size` bytes of the request.
    ///
    /// # Errors
    /// EINVAL if there are fewer.
    pub(super) fn new(request: &'a mut Request, size: u32) -> Result<Self> {
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

/// Bytes of the kernel's own entry with the shortest name. linux/dirent.h: struct linux_dirent64
const DIRENT_MIN: usize = 24;

/// Directory entries in FUSE's form, into a [`Room`].
pub(super) struct Entries<'a> {
    /// Where they go.
    pub room: Room<'a>,
    /// How long entries of READDIRPLUS are remembered.
    pub settings: &'a Settings,
    /// READDIR or READDIRPLUS.
    pub detail: Detail,
}

impl Entries<'_> {
    fn size(&self, name_len: usize) -> usize {
        let head = match self.detail {
            Detail::Names => size_of::<abi::Dirent>(),
            Detail::Entries => size_of::<Direntplus>(),
        };
        head.saturating_add(name_len).next_multiple_of(RECORD_ALIGN)
    }
}

impl Listing for Entries<'_> {
    /// The shortest name grows most on its way into the answer.
    fn raw_room(&self) -> usize {
        self.room.room().saturating_mul(DIRENT_MIN).checked_div(self.size(1)).unwrap_or_default()
    }

    fn fits(&self, name_len: usize) -> bool {
        self.size(name_len) <= self.room.room()
    }

    fn push(&mut self, entry: &Dirent<'_>) {
        let namelen = u32::try_from(entry.name.len()).unwrap_or_default();
        let dirent = abi::Dirent { ino: entry.ino, off: entry.next, namelen, kind: u32::from(entry.kind) };
        let found = entry.entry.map(|entry| wire::entry_out(self.settings, &entry)).unwrap_or_default();
        let plus = Direntplus { entry: found, dirent };
        let head = match self.detail {
            Detail::Names => dirent.as_bytes(),
            Detail::Entries => plus.as_bytes(),
        };
        let used = head.len().saturating_add(entry.name.len());
        let padding = self.size(entry.name.len()).saturating_sub(used);
        for part in [head, entry.name, [0; RECORD_ALIGN].get(..padding).unwrap_or_default()] {
            if self.room.put(part).is_err() {
                return;
            }
        }
    }
}
