//! Reading a donated directory descriptor, from where the guest says.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use postern_ipc::{Errno, Result};
use rustix::fs::{RawDir, SeekFrom, seek};

use super::Listing;

/// Most bytes of entries taken from the kernel at once.
const BUFFER: usize = 32 * 1024;
/// Room for the entry with the longest name. linux/dirent.h: struct linux_dirent64
const LONGEST: usize = 280;
/// Room for a few entries with short names: fewer are not worth another call.
const SHORT: usize = 96;

/// Where a directory stream stands; several readers of one handle take turns.
#[derive(Debug, Default)]
pub struct Stream {
    /// The kernel's position, if it is known.
    at: Option<u64>,
}

/// An entry as the kernel gives it.
pub struct Raw<'a> {
    /// Inode number.
    pub ino: u64,
    /// Position of the entry after it.
    pub next: u64,
    /// DT_* of readdir(3).
    pub kind: u8,
    /// Without its NUL.
    pub name: &'a [u8],
}

/// What became of the entries of one call.
enum Batch {
    /// All were taken.
    Taken,
    /// Some were refused.
    Refused,
    /// There were none.
    End,
}

impl Stream {
    /// Gives the entries from `offset` on to `take` until it says that it has enough, or `to` has little room left.
    /// No more are asked for than surely fit: to go back costs an ordered directory a search.
    ///
    /// # Errors
    /// Those of getdents64(2) and lseek(2); EINVAL for an offset no entry named.
    pub fn read(
        &mut self,
        dir: BorrowedFd<'_>,
        offset: u64,
        to: &mut dyn Listing,
        mut take: impl FnMut(&Raw<'_>, &mut dyn Listing) -> Result<bool>,
    ) -> Result<()> {
        if self.at != Some(offset) {
            seek(dir, SeekFrom::Start(offset))?;
        }
        self.at = None;
        let mut bytes = [MaybeUninit::<u8>::uninit(); BUFFER];
        let empty = to.raw_room();
        let mut wanted = empty.max(LONGEST);
        let mut at = offset;
        loop {
            let buffer = bytes.get_mut(..wanted.min(BUFFER)).unwrap_or_default();
            match batch(dir, buffer, &mut at, |raw| take(raw, to)) {
                Ok(Batch::Taken) => {}
                Ok(Batch::Refused) => return Ok(()),
                Ok(Batch::End) => break,
                // The next entry is longer than what was asked for.
                Err(Errno::EINVAL) if at != offset => break,
                Err(errno) => return Err(errno),
            }
            let room = to.raw_room();
            if room == empty {
                continue; // none of them is there any more
            }
            if room < SHORT {
                break;
            }
            wanted = room;
        }
        self.at = Some(at);
        Ok(())
    }
}

/// One call's entries; `at` is moved behind each that was taken.
fn batch(
    dir: BorrowedFd<'_>,
    buffer: &mut [MaybeUninit<u8>],
    at: &mut u64,
    mut take: impl FnMut(&Raw<'_>) -> Result<bool>,
) -> Result<Batch> {
    let mut entries = RawDir::new(dir, buffer);
    loop {
        let entry = match entries.next() {
            // A directory that was removed while open has an end and nothing before it, as readdir(3) says.
            None | Some(Err(rustix::io::Errno::NOENT)) => return Ok(Batch::End),
            Some(entry) => entry?,
        };
        let raw = Raw {
            ino: entry.ino(),
            next: entry.next_entry_cookie(),
            kind: kind(entry.file_type()),
            name: entry.file_name().to_bytes(),
        };
        if !take(&raw)? {
            return Ok(Batch::Refused);
        }
        *at = raw.next;
        if entries.is_buffer_empty() {
            return Ok(Batch::Taken);
        }
    }
}

/// readdir(3): DT_*, which are the type bits of a mode shifted by twelve.
fn kind(kind: rustix::fs::FileType) -> u8 {
    u8::try_from(kind.as_raw_mode() >> 12).unwrap_or(0)
}
