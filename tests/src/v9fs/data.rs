//! Open files.

use libc::{O_CREAT, O_EXCL, O_TRUNC};
use postern_server::fuse::abi::{
    FsyncFlags, FsyncIn, OpenIn, OpenInFlags, OpenOut, ReadIn, ReleaseIn, SetattrIn, SetattrValid, WriteFlags, WriteIn,
    WriteOut,
};
use postern_server::p9::message::{Rfsync, Rlopen, Tfsync, Tlopen};

use super::attr::fid;
use super::{CONTENT, Call, reply};
use crate::fuse::Result;

impl Call<'_> {
    pub(super) fn open(&self) -> Result<Vec<u8>> {
        let (OpenIn { flags, open_flags }, _) = self.request.parse();
        if open_flags.contains(OpenInFlags::KILL_SUIDGID) {
            self.take_privileges(self.fid()?)?;
        }
        let fid = self.open_node(self.node, flags.cast_signed())?;
        reply(&OpenOut { fh: fid.into(), ..Default::default() })
    }

    /// A fid of its own for an open file; the kernel empties the file itself.
    pub(super) fn open_node(&self, node: u64, flags: i32) -> Result<u32> {
        let fid = self.mount.walk(self.mount.fid(self.caller.uid, node)?, &[])?;
        let open = Tlopen { fid, flags: (flags & !(O_CREAT | O_EXCL | O_TRUNC)).cast_unsigned() };
        let opened = self.client.call::<_, Rlopen>(&open).and_then(|_| match flags & O_TRUNC {
            0 => Ok(()),
            _ => self.change(fid, &SetattrIn { valid: SetattrValid::SIZE, ..Default::default() }),
        });
        if let Err(errno) = opened {
            self.client.clunk(fid)?;
            return Err(errno);
        }
        Ok(fid)
    }

    /// As many messages as it takes, until one brings nothing.
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        let (ReadIn { fh, offset, size, .. }, _) = self.request.parse();
        let mut data = Vec::new();
        while data.len() < size as usize {
            let left = size - data.len() as u32;
            match self.client.read(fid(fh), offset.wrapping_add(data.len() as u64), left.min(CONTENT)) {
                Ok(more) if more.is_empty() => break,
                Ok(more) => data.extend(more),
                Err(errno) if data.is_empty() => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(data)
    }

    pub(super) fn write(&self) -> Result<Vec<u8>> {
        let (WriteIn { fh, offset, write_flags, .. }, _) = self.request.parse();
        if write_flags.contains(WriteFlags::KILL_SUIDGID) {
            self.take_privileges(fid(fh))?;
        }
        let size = self.write_all(fid(fh), offset, self.request.data)?;
        reply(&WriteOut { size, padding: 0 })
    }

    pub(super) fn write_all(&self, fid: u32, offset: u64, data: &[u8]) -> Result<u32> {
        let mut written = 0;
        for part in data.chunks(CONTENT as usize) {
            match self.client.write(fid, offset.wrapping_add(written.into()), part) {
                Ok(count) => written += count,
                Err(errno) if written == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(written)
    }

    pub(super) fn fsync(&self) -> Result<Vec<u8>> {
        let (FsyncIn { fh, fsync_flags, .. }, _) = self.request.parse();
        let datasync = fsync_flags.contains(FsyncFlags::FDATASYNC).into();
        self.client.call::<_, Rfsync>(&Tfsync { fid: fid(fh), datasync }).map(|_| Vec::new())
    }

    pub(super) fn release(&self) -> Result<Vec<u8>> {
        let (ReleaseIn { fh, .. }, _) = self.request.parse();
        self.client.clunk(fid(fh)).map(|()| Vec::new())
    }
}
