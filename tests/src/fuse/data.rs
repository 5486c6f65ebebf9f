//! Open files: OPEN, READ, WRITE and what else takes a file handle; the file system as a whole.

use postern_server::fuse::abi::{opcode as op, *};
use zerocopy::FromBytes;

use super::*;

impl Process {
    /// OPEN.
    pub fn open(&self, target: impl Target, flags: i32) -> Result<File> {
        self.open_with(target, flags, OpenInFlags::empty())
    }

    /// OPEN with flags beside those of open(2).
    pub fn open_with(&self, target: impl Target, flags: i32, open_flags: OpenInFlags) -> Result<File> {
        self.open_as(op::OPEN, target, flags, open_flags)
    }

    /// READ.
    pub fn read(&self, file: &File, offset: u64, size: u32) -> Result<Vec<u8>> {
        self.raw(&self.read_as(op::READ, file, offset, size))
    }

    /// The request that READ sends.
    pub fn read_as(&self, opcode: u32, file: &File, offset: u64, size: u32) -> Request<'static> {
        let flags = file.flags as u32;
        let arg = ReadIn { fh: file.fh, offset, size, flags, ..Default::default() };
        Request::new(opcode, file.node).arg(&arg).room_data(size as usize)
    }

    /// WRITE; gives the number of bytes written.
    pub fn write(&self, file: &File, offset: u64, data: &[u8]) -> Result<u32> {
        self.write_with(file, offset, data, WriteFlags::empty())
    }

    /// WRITE with flags.
    pub fn write_with(&self, file: &File, offset: u64, data: &[u8], write_flags: WriteFlags) -> Result<u32> {
        let arg = WriteIn {
            fh: file.fh,
            offset,
            size: data.len().try_into().expect("small"),
            write_flags,
            flags: file.flags as u32,
            ..Default::default()
        };
        Ok(self.ask::<WriteOut>(Request::new(op::WRITE, file.node).arg(&arg).data(data))?.size)
    }

    /// COPY_FILE_RANGE; gives the number of bytes copied.
    pub fn copy_file_range(&self, from: (&File, u64), to: (&File, u64), len: u64) -> Result<u32> {
        Ok(self.ask::<WriteOut>(copy(op::COPY_FILE_RANGE, from, to, len))?.size)
    }

    /// COPY_FILE_RANGE_64; gives the number of bytes copied.
    pub fn copy_file_range_64(&self, from: (&File, u64), to: (&File, u64), len: u64) -> Result<u64> {
        Ok(self.ask::<CopyFileRangeOut>(copy(op::COPY_FILE_RANGE_64, from, to, len))?.bytes_copied)
    }

    /// FALLOCATE.
    pub fn fallocate(&self, file: &File, mode: i32, offset: u64, length: u64) -> Result<()> {
        let arg = FallocateIn { fh: file.fh, offset, length, mode: mode as u32, padding: 0 };
        self.tell(&Request::new(op::FALLOCATE, file.node).arg(&arg))
    }

    /// LSEEK.
    pub fn lseek(&self, file: &File, offset: u64, whence: i32) -> Result<u64> {
        let arg = LseekIn { fh: file.fh, offset, whence: whence as u32, padding: 0 };
        Ok(self.ask::<LseekOut>(Request::new(op::LSEEK, file.node).arg(&arg))?.offset)
    }

    /// FLUSH.
    pub fn flush(&self, file: &File) -> Result<()> {
        let arg = FlushIn { fh: file.fh, ..Default::default() };
        self.tell(&Request::new(op::FLUSH, file.node).arg(&arg))
    }

    /// FSYNC.
    pub fn fsync(&self, file: &File, fsync_flags: FsyncFlags) -> Result<()> {
        self.sync_as(op::FSYNC, file, fsync_flags)
    }

    pub(super) fn sync_as(&self, opcode: u32, file: &File, fsync_flags: FsyncFlags) -> Result<()> {
        let arg = FsyncIn { fh: file.fh, fsync_flags, padding: 0 };
        self.tell(&Request::new(opcode, file.node).arg(&arg))
    }

    /// RELEASE.
    pub fn release(&self, file: &File) -> Result<()> {
        self.release_as(op::RELEASE, file)
    }

    pub(super) fn release_as(&self, opcode: u32, file: &File) -> Result<()> {
        let arg = ReleaseIn { fh: file.fh, flags: file.flags as u32, ..Default::default() };
        self.tell(&Request::new(opcode, file.node).arg(&arg))
    }

    /// Writes a whole new file.
    pub fn put(&self, place: impl Place, data: &[u8]) -> Result<u64> {
        let file = self.create(place, libc::O_WRONLY | libc::O_EXCL, 0o644)?;
        assert_eq!(self.write(&file, 0, data)? as usize, data.len());
        self.release(&file)?;
        Ok(file.node)
    }

    /// Reads a whole file of at most 1 MiB.
    pub fn get(&self, target: impl Target) -> Result<Vec<u8>> {
        let file = self.open(target, libc::O_RDONLY)?;
        let data = self.read(&file, 0, 1 << 20)?;
        self.release(&file)?;
        Ok(data)
    }

    /// IOCTL with `input`, into a buffer of `out_size` bytes.
    pub fn ioctl(&self, file: &File, cmd: u64, input: &[u8], out_size: u32) -> Result<Vec<u8>> {
        let is_dir = file.flags & libc::O_DIRECTORY != 0;
        let arg = IoctlIn {
            fh: file.fh,
            flags: if is_dir { IoctlFlags::DIR } else { IoctlFlags::empty() },
            cmd: cmd.try_into().expect("32 bits"),
            arg: 0x7fff_dead_b000,
            in_size: input.len().try_into().expect("small"),
            out_size,
        };
        let request = Request::new(op::IOCTL, file.node).arg(&arg).data(input);
        let reply = self.raw(&request.room::<IoctlOut>().room_data(out_size as usize))?;
        let (out, data) = IoctlOut::read_from_prefix(&reply).expect("a whole IoctlOut");
        assert_eq!((out.result, out.flags, out.in_iovs, out.out_iovs), (0, IoctlFlags::empty(), 0, 0));
        Ok(data.to_vec())
    }

    /// GETLK, SETLK or SETLKW of a whole file.
    pub fn lock(&self, opcode: u32, file: &File, kind: i32, lk_flags: LkFlags) -> Result<()> {
        let lk = FileLock { start: 0, end: i64::MAX as u64, kind: kind as u32, pid: 4711 };
        let arg = LkIn { fh: file.fh, owner: 1, lk, lk_flags, padding: 0 };
        let request = Request::new(opcode, file.node).arg(&arg);
        self.raw(&if opcode == op::GETLK { request.room::<LkOut>() } else { request }).map(drop)
    }

    /// STATFS.
    pub fn statfs(&self, target: impl Target) -> Result<StatfsOut> {
        self.ask(Request::new(op::STATFS, target.node(self)?))
    }

    /// SYNCFS.
    pub fn syncfs(&self, target: impl Target) -> Result<()> {
        self.tell(&Request::new(op::SYNCFS, target.node(self)?).arg(&SyncfsIn::default()))
    }

    /// INTERRUPT, on the high-priority queue.
    pub fn interrupt(&self, pending: &Pending) {
        let request = Request::new(op::INTERRUPT, 0).arg(&InterruptIn { unique: pending.unique });
        self.unanswered(&request.no_reply());
    }

    pub(super) fn open_as(
        &self,
        opcode: u32,
        target: impl Target,
        flags: i32,
        open_flags: OpenInFlags,
    ) -> Result<File> {
        let node = target.node(self)?;
        let arg = OpenIn { flags: flags as u32, open_flags };
        let out: OpenOut = self.ask(Request::new(opcode, node).arg(&arg))?;
        Ok(File { node, fh: out.fh, flags, out: out.open_flags })
    }
}

fn copy(opcode: u32, from: (&File, u64), to: (&File, u64), len: u64) -> Request<'static> {
    let arg = CopyFileRangeIn {
        fh_in: from.0.fh,
        off_in: from.1,
        nodeid_out: to.0.node,
        fh_out: to.0.fh,
        off_out: to.1,
        len,
        flags: 0,
    };
    Request::new(opcode, from.0.node).arg(&arg)
}
