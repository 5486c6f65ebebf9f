//! Reading a donated directory descriptor, from where the guest says.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use postern_ipc::Result;
use rustix::fs::{RawDir, SeekFrom, seek};

/// Most bytes of entries taken from the kernel at once.
const BUFFER: usize = 32 * 1024;
/// Room for the entry with the longest name. linux/dirent.h: struct linux_dirent64
const LONGEST: usize = 280;

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

impl Stream {
    /// Gives the entries from `offset` on to `take` until it says that it has enough. `about` bytes of entries are
    /// wanted.
    ///
    /// # Errors
    /// Those of getdents64(2) and lseek(2); EINVAL for an offset no entry named.
    pub fn read(
        &mut self,
        dir: BorrowedFd<'_>,
        offset: u64,
        about: usize,
        mut take: impl FnMut(&Raw<'_>) -> Result<bool>,
    ) -> Result<()> {
        if self.at != Some(offset) {
            seek(dir, SeekFrom::Start(offset))?;
        }
        self.at = None;
        let mut bytes = [MaybeUninit::<u8>::uninit(); BUFFER];
        let buffer = bytes.get_mut(..about.clamp(LONGEST, BUFFER)).unwrap_or_default();
        let mut entries = RawDir::new(dir, buffer);
        let mut last = offset;
        while let Some(entry) = entries.next() {
            // A directory that was removed while open has an end and nothing before it, as readdir(3) says.
            let entry = match entry {
                Err(rustix::io::Errno::NOENT) => break,
                entry => entry?,
            };
            let raw = Raw {
                ino: entry.ino(),
                next: entry.next_entry_cookie(),
                kind: kind(entry.file_type()),
                name: entry.file_name().to_bytes(),
            };
            if !take(&raw)? {
                return Ok(());
            }
            last = raw.next;
        }
        self.at = Some(last);
        Ok(())
    }
}

/// readdir(3): DT_*, which are the type bits of a mode shifted by twelve.
fn kind(kind: rustix::fs::FileType) -> u8 {
    u8::try_from(kind.as_raw_mode() >> 12).unwrap_or(0)
}
