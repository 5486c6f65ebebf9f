//! Of open files: their data, their locks and what else is done with them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::*;

layouts! {
    /// OPEN and OPENDIR.
    OpenIn [8] {
        /// Flags of open(2) in the guest's values.
        flags: u32,
        /// Beside them.
        open_flags: OpenInFlags,
    }

    /// CREATE, followed by the name; TMPFILE, followed by an empty name.
    CreateIn [16] {
        /// Flags of open(2) in the guest's values.
        flags: u32,
        /// Permission bits.
        mode: u32,
        /// Caller's umask, applied already unless [`InitFlags::DONT_MASK`].
        umask: u32,
        /// Beside `flags`.
        open_flags: OpenInFlags,
    }

    /// Reply to OPEN and OPENDIR; follows the [`EntryOut`] in a reply to CREATE and TMPFILE.
    OpenOut [16] {
        /// The open file.
        fh: u64,
        /// How to treat it.
        open_flags: OpenOutFlags,
        /// `/dev/fuse` only.
        backing_id: i32,
    }

    /// RELEASE and RELEASEDIR.
    ReleaseIn [24] {
        /// The open file; not used again.
        fh: u64,
        /// Flags it was opened with.
        flags: u32,
        /// What else to do.
        release_flags: ReleaseFlags,
        /// Owner of locks.
        lock_owner: u64,
    }

    /// FLUSH: one descriptor of an open file was closed.
    FlushIn [24] {
        /// The open file.
        fh: u64,
        /// Zero.
        unused: u32,
        /// Zero.
        padding: u32,
        /// Owner whose POSIX locks end.
        lock_owner: u64,
    }

    /// READ, READDIR and READDIRPLUS.
    ReadIn [40] {
        /// The open file.
        fh: u64,
        /// Bytes; in a directory the `off` of the last entry seen, 0 at first.
        offset: u64,
        /// Most bytes to return.
        size: u32,
        /// Whether `lock_owner` is valid.
        read_flags: ReadFlags,
        /// Owner of locks.
        lock_owner: u64,
        /// The file's flags of open(2) now.
        flags: u32,
        /// Zero.
        padding: u32,
    }

    /// WRITE, followed by the data.
    WriteIn [40] {
        /// The open file.
        fh: u64,
        /// Bytes.
        offset: u64,
        /// Bytes of data.
        size: u32,
        /// Where it comes from.
        write_flags: WriteFlags,
        /// Owner of locks.
        lock_owner: u64,
        /// The file's flags of open(2) now.
        flags: u32,
        /// Zero.
        padding: u32,
    }

    /// Reply to WRITE and COPY_FILE_RANGE.
    WriteOut [8] {
        /// Bytes written.
        size: u32,
        /// Zero.
        padding: u32,
    }

    /// FSYNC and FSYNCDIR.
    FsyncIn [16] {
        /// The open file.
        fh: u64,
        /// How much to sync.
        fsync_flags: FsyncFlags,
        /// Zero.
        padding: u32,
    }

    /// SYNCFS.
    SyncfsIn [8] {
        /// Zero.
        padding: u64,
    }

    /// A range of a file and how it is locked.
    FileLock [24] {
        /// First byte.
        start: u64,
        /// Last byte; `i64::MAX` is the end of the file wherever it moves.
        end: u64,
        /// F_RDLCK, F_WRLCK or F_UNLCK.
        kind: u32,
        /// Who holds it.
        pid: u32,
    }

    /// GETLK, SETLK and SETLKW.
    LkIn [48] {
        /// The open file.
        fh: u64,
        /// Who asks.
        owner: u64,
        /// What for.
        lk: FileLock,
        /// Whether it is a flock(2) lock.
        lk_flags: LkFlags,
        /// Zero.
        padding: u32,
    }

    /// Reply to GETLK.
    LkOut [24] {
        /// The lock in the way.
        lk: FileLock,
    }

    /// BMAP.
    BmapIn [16] {
        /// Block of the file.
        block: u64,
        /// Bytes.
        blocksize: u32,
        /// Zero.
        padding: u32,
    }

    /// Reply to BMAP.
    BmapOut [8] {
        /// Block of the device.
        block: u64,
    }

    /// IOCTL, followed by `in_size` bytes.
    IoctlIn [32] {
        /// The open file.
        fh: u64,
        /// How to read `arg`.
        flags: IoctlFlags,
        /// Request number of ioctl(2).
        cmd: u32,
        /// Address in the caller's memory, or a plain number.
        arg: u64,
        /// Bytes that follow.
        in_size: u32,
        /// Most bytes to return.
        out_size: u32,
    }

    /// Reply to IOCTL, followed by the data.
    IoctlOut [16] {
        /// What ioctl(2) returns.
        result: i32,
        /// Whether to come again.
        flags: IoctlFlags,
        /// Iovecs to send.
        in_iovs: u32,
        /// Iovecs to fill.
        out_iovs: u32,
    }

    /// POLL.
    PollIn [24] {
        /// The open file.
        fh: u64,
        /// Names the waiter.
        kh: u64,
        /// Whether to notify.
        flags: PollFlags,
        /// Events of poll(2).
        events: u32,
    }

    /// Reply to POLL.
    PollOut [8] {
        /// Events of poll(2) that are ready.
        revents: u32,
        /// Zero.
        padding: u32,
    }

    /// FALLOCATE.
    FallocateIn [32] {
        /// The open file.
        fh: u64,
        /// Bytes.
        offset: u64,
        /// Bytes.
        length: u64,
        /// FALLOC_FL_* of fallocate(2).
        mode: u32,
        /// Zero.
        padding: u32,
    }

    /// LSEEK.
    LseekIn [24] {
        /// The open file.
        fh: u64,
        /// Bytes.
        offset: u64,
        /// SEEK_DATA or SEEK_HOLE of lseek(2).
        whence: u32,
        /// Zero.
        padding: u32,
    }

    /// Reply to LSEEK.
    LseekOut [8] {
        /// Bytes.
        offset: u64,
    }

    /// COPY_FILE_RANGE (answered by [`WriteOut`]) and COPY_FILE_RANGE_64 (by [`CopyFileRangeOut`]);
    /// the request's node is the source.
    CopyFileRangeIn [56] {
        /// Open source.
        fh_in: u64,
        /// Bytes.
        off_in: u64,
        /// Destination.
        nodeid_out: u64,
        /// Open destination.
        fh_out: u64,
        /// Bytes.
        off_out: u64,
        /// Bytes.
        len: u64,
        /// Of copy_file_range(2).
        flags: u64,
    }

    /// Reply to COPY_FILE_RANGE_64.
    CopyFileRangeOut [8] {
        /// Bytes.
        bytes_copied: u64,
    }

    /// SETUPMAPPING.
    SetupmappingIn [40] {
        /// The open file.
        fh: u64,
        /// Bytes, into the file.
        foffset: u64,
        /// Bytes.
        len: u64,
        /// For what.
        flags: MappingFlags,
        /// Bytes, into the shared memory window.
        moffset: u64,
    }

    /// REMOVEMAPPING, followed by `count` times [`RemovemappingOne`].
    RemovemappingIn [4] {
        /// Number of mappings.
        count: u32,
    }

    /// One mapping of a REMOVEMAPPING.
    RemovemappingOne [16] {
        /// Bytes, into the shared memory window.
        moffset: u64,
        /// Bytes.
        len: u64,
    }
}
