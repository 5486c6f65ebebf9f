//! Directories.

use postern_server::fuse::abi::{Dirent, RECORD_ALIGN, ReadIn};
use zerocopy::IntoBytes;

use super::Call;
use super::attr::fid;
use crate::fuse::Result;

/// Bytes of entries that the kernel asks for at once.
const BUFFER: u32 = 64 << 10;

impl Call<'_> {
    /// The kernel has a buffer of its own, and hands on what fits.
    pub(super) fn readdir(&self) -> Result<Vec<u8>> {
        let (ReadIn { fh, offset, size, .. }, _) = self.request.parse();
        let mut records = Vec::new();
        for entry in self.client.entries(fid(fh), offset, BUFFER)? {
            let namelen = entry.name.len().try_into().expect("at most 255");
            let dirent = Dirent { ino: entry.ino, off: entry.next, namelen, kind: entry.kind.into() };
            let mut record = [dirent.as_bytes(), &entry.name].concat();
            record.resize(record.len().next_multiple_of(RECORD_ALIGN), 0);
            if records.len() + record.len() > size as usize {
                break;
            }
            records.extend(record);
        }
        Ok(records)
    }
}
