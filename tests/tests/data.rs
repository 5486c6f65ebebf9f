//! OPEN, READ, WRITE, FALLOCATE, LSEEK, COPY_FILE_RANGE, FLUSH, FSYNC, RELEASE, SYNCFS.

use libc::{
    FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE, O_DIRECT, O_NOATIME,
    O_SYNC, SEEK_DATA, SEEK_HOLE,
};
use postern_server::fuse::abi::FsyncFlags;
use postern_tests::prelude::*;

/// A file with these contents, open for reading and writing.
fn open_new(share: &Share, name: &str, data: &[u8]) -> File {
    let file = share.create(name, O_RDWR, 0o644).unwrap();
    assert_eq!(share.write(&file, 0, data).unwrap() as usize, data.len());
    file
}

/// Bytes that differ from page to page.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 4096 + i % 251) as u8).collect()
}

// open(2): "ENOENT  O_CREAT is not set and the named file does not exist"
#[apply(behaviour)]
fn a_missing_file_is_not_opened(share: &Share) {
    assert_eq!(share.open("none", O_RDONLY), Err(ENOENT));
}

// read(2): "attempts to read up to count bytes from file descriptor fd"
#[apply(behaviour)]
fn what_the_host_wrote_is_read(share: &Share) {
    share.host.write("f", b"hello");
    assert_eq!(share.get("f").unwrap(), b"hello");
}

// write(2): "writes up to count bytes from the buffer starting at buf to the file referred to by the file descriptor
// fd"
#[apply(behaviour)]
fn what_is_written_is_on_the_host(share: &Share) {
    let file = open_new(share, "f", b"hello world");
    assert_eq!(share.write(&file, 6, b"there").unwrap(), 5);
    assert_eq!(share.host.read("f"), b"hello there");
}

// read(2): "If the file offset is at or past the end of file, no bytes are read, and read() returns zero"
#[apply(behaviour)]
fn nothing_is_read_past_the_end(share: &Share) {
    let file = open_new(share, "f", b"hello");
    assert_eq!(share.read(&file, 5, 10).unwrap(), b"");
    assert_eq!(share.read(&file, 5000, 10).unwrap(), b"");
    assert_eq!(share.read(&file, 0, 0).unwrap(), b"");
}

// read(2): "It is not an error if this number is smaller than the number of bytes requested; this may happen ... close
// to end-of-file"
#[apply(behaviour)]
fn a_read_across_the_end_is_short(share: &Share) {
    let file = open_new(share, "f", b"hello");
    assert_eq!(share.read(&file, 3, 4096).unwrap(), b"lo");
}

// lseek(2): "If data is later written at this point, subsequent reads of the data in the gap (a "hole") return null
// bytes ('\0')"
#[apply(behaviour)]
fn a_gap_reads_as_zeros(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    share.write(&file, 5000, b"x").unwrap();
    assert_eq!(share.read(&file, 0, 8192).unwrap(), [vec![0; 5000], b"x".to_vec()].concat());
}

// virtio-fs: a request carries up to 1 MiB when the guest's ring has room for it
#[apply(behaviour)]
fn a_request_carries_a_mebibyte(share: &Share) {
    let data = pattern(1 << 20);
    let file = open_new(share, "f", &data);
    assert!(share.read(&file, 0, 1 << 20).unwrap() == data);
    assert!(share.host.read("f") == data);
}

// linux/fuse.h: FUSE_MAX_PAGES: "init_out.max_pages contains the max number of req pages"
#[apply(virtiofs)]
fn a_guest_is_told_that_a_request_carries_a_mebibyte(share: &Share) {
    assert!(share.fuse().init.max_write >= 1 << 20 && share.fuse().init.max_pages >= 256);
}

// read(2), write(2): any offset and any length
#[apply(behaviour)]
fn odd_offsets_and_lengths_are_exact(share: &Share) {
    let data = pattern(300_000);
    let file = open_new(share, "f", &data);
    for (offset, len) in [(1, 1), (4095, 2), (4096, 4096), (4097, 12_289), (65_535, 131_074), (299_999, 1)] {
        let part = share.read(&file, offset as u64, len as u32).unwrap();
        assert!(part == data[offset..offset + len], "{len} bytes at {offset}");
        let inverted: Vec<u8> = part.iter().map(|byte| !byte).collect();
        assert_eq!(share.write(&file, offset as u64, &inverted).unwrap() as usize, len);
        assert!(share.read(&file, offset as u64, len as u32).unwrap() == inverted);
        share.write(&file, offset as u64, &part).unwrap();
    }
    assert!(share.host.read("f") == data);
}

// write(2): "If count is zero and fd refers to a regular file, then write() may return a failure status if one of the
// errors is detected ... otherwise 0 is returned without causing any other effect"
#[apply(behaviour)]
fn nothing_can_be_written(share: &Share) {
    let file = open_new(share, "f", b"hello");
    assert_eq!(share.write(&file, 100, b"").unwrap(), 0);
    assert_eq!(share.host.stat("f").size, 5);
}

// read(2): "EBADF  fd is not a valid file descriptor or is not open for reading"
#[apply(behaviour)]
fn a_file_open_for_writing_is_not_read(share: &Share) {
    share.put("f", b"x").unwrap();
    let file = share.open("f", O_WRONLY).unwrap();
    assert_eq!(share.read(&file, 0, 1), Err(EBADF));
}

// write(2): "EBADF  fd is not a valid file descriptor or is not open for writing"
#[apply(behaviour)]
fn a_file_open_for_reading_is_not_written(share: &Share) {
    share.put("f", b"x").unwrap();
    let file = share.open("f", O_RDONLY).unwrap();
    assert_eq!(share.write(&file, 0, b"y"), Err(EBADF));
    assert_eq!(share.host.read("f"), b"x");
}

// open(2): "O_TRUNC  If the file already exists ... it will be truncated to length 0"
#[apply(behaviour)]
fn an_open_can_empty_the_file(share: &Share) {
    share.put("f", b"old").unwrap();
    share.open("f", O_WRONLY | O_TRUNC).unwrap();
    assert_eq!(share.host.stat("f").size, 0);
}

// open(2): "O_APPEND  Before each write(2), the file offset is positioned at the end of the file, as if with lseek(2)"
#[apply(behaviour)]
fn appending_goes_to_the_end_wherever_it_is_now(share: &Share) {
    share.put("f", b"one ").unwrap();
    let file = share.open("f", O_WRONLY | O_APPEND).unwrap();
    std::fs::write(share.host.path("f"), b"one two ").unwrap();
    assert_eq!(share.write(&file, 4, b"three").unwrap(), 5);
    assert_eq!(share.host.read("f"), b"one two three");
}

// open(2): two open file descriptions of one file see each other's writes
#[apply(behaviour)]
fn one_file_can_be_open_many_times(share: &Share) {
    share.put("f", b"hello").unwrap();
    let (reader, writer) = (share.open("f", O_RDONLY).unwrap(), share.open("f", O_WRONLY).unwrap());
    assert_ne!(reader.fh, writer.fh);
    share.write(&writer, 0, b"J").unwrap();
    assert_eq!(share.read(&reader, 0, 10).unwrap(), b"Jello");
    share.release(&writer).unwrap();
    assert_eq!(share.read(&reader, 0, 10).unwrap(), b"Jello");
}

// open(2): "A file's permissions are checked when it is opened"
#[apply(behaviour)]
fn an_open_file_stays_usable_without_permissions(share: &Share) {
    let file = share.as_user(1000).create("f", O_RDWR, 0o644).unwrap();
    share.chmod("f", 0).unwrap();
    assert_eq!(share.write(&file, 0, b"x").unwrap(), 1);
    assert_eq!(share.read(&file, 0, 1).unwrap(), b"x");
}

// proc(5): "/proc/self/fd/N" opens a file anew whether it has a name or not
#[apply(behaviour)]
fn an_open_file_without_a_name_can_be_opened_again(share: &Share) {
    let file = open_new(share, "f", b"hello");
    share.unlink("f").unwrap();
    let again = share.open(file.node, O_RDONLY).unwrap();
    assert_eq!(share.read(&again, 0, 10).unwrap(), b"hello");
}

// open(2): "O_NOATIME ... EPERM" is between the guest's user and its kernel; the server reads the file
#[apply(behaviour)]
fn a_file_opened_without_access_time_is_read(share: &Share) {
    share.as_user(1000).put("f", b"x").unwrap();
    let file = share.open("f", O_RDONLY | O_NOATIME).unwrap();
    assert_eq!(share.read(&file, 0, 1).unwrap(), b"x");
}

// open(2): "O_DIRECT" asks for alignment that a guest's buffers need not have: the server's own cache takes care
#[apply(behaviour)]
fn direct_io_needs_no_alignment(share: &Share) {
    share.put("f", b"hello").unwrap();
    let file = share.open("f", O_RDWR | O_DIRECT).unwrap();
    assert_eq!(share.read(&file, 1, 3).unwrap(), b"ell");
    assert_eq!(share.write(&file, 3, b"p").unwrap(), 1);
    assert_eq!(share.host.read("f"), b"helpo");
}

// open(2): "O_SYNC Write operations on the file will complete according to the requirements of synchronized I/O file
// integrity completion"
#[apply(behaviour)]
fn a_synchronous_write_is_a_write(share: &Share) {
    share.put("f", b"").unwrap();
    let file = share.open("f", O_WRONLY | O_SYNC).unwrap();
    assert_eq!(share.write(&file, 0, b"x").unwrap(), 1);
}

// open(2): O_LARGEFILE; a 64-bit offset_t
#[apply(behaviour)]
fn a_file_can_be_larger_than_four_gibibytes(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    let far = 5 << 30;
    assert_eq!(share.write(&file, far, b"far").unwrap(), 3);
    assert_eq!(share.read(&file, far, 10).unwrap(), b"far");
    assert_eq!(share.read(&file, far - 2, 3).unwrap(), b"\0\0f");
    assert_eq!(share.getattr("f").unwrap().size, far + 3);
}

// write(2): "EFBIG  An attempt was made to write a file that exceeds the implementation-defined maximum file size"
#[apply(behaviour)]
fn a_write_beyond_the_largest_file_is_refused(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    assert_eq!(share.write(&file, i64::MAX as u64 - 1, b"x"), Err(EFBIG));
    assert_eq!(share.write(&file, u64::MAX, b"x"), Err(EINVAL));
    assert_eq!(share.read(&file, u64::MAX, 1), Err(EINVAL));
}

// open(2): files of all owners and modes; the guest's kernel has checked the caller
#[apply(behaviour)]
fn a_file_is_opened_for_whom_the_guest_lets(share: &Share) {
    share.as_user(1000).put("f", b"x").unwrap();
    share.chmod("f", 0o400).unwrap();
    for guest in [share.as_user(0), share.as_user(1000), share.as_user(2000)] {
        let file = guest.open("f", O_RDWR).unwrap();
        assert_eq!(guest.read(&file, 0, 1).unwrap(), b"x");
        assert_eq!(guest.write(&file, 0, b"x").unwrap(), 1);
    }
}

// fallocate(2): "If the size of the file is less than offset+len, then the file is increased to this size"
#[apply(behaviour)]
fn space_can_be_allocated(share: &Share) {
    let file = open_new(share, "f", b"x");
    share.fallocate(&file, 0, 0, 100_000).unwrap();
    let stat = share.host.stat("f");
    assert_eq!(stat.size, 100_000);
    assert!(stat.blocks * 512 >= 100_000);
}

// fallocate(2): "FALLOC_FL_KEEP_SIZE If ... the file size will not be changed even if offset+len is greater than the
// file size"
#[apply(behaviour)]
fn space_can_be_allocated_beyond_the_end(share: &Share) {
    let file = open_new(share, "f", b"x");
    share.fallocate(&file, FALLOC_FL_KEEP_SIZE, 0, 100_000).unwrap();
    let stat = share.host.stat("f");
    assert_eq!(stat.size, 1);
    assert!(stat.blocks * 512 >= 100_000);
}

// fallocate(2): "FALLOC_FL_PUNCH_HOLE ... subsequent reads from this range will return zeros"
#[apply(behaviour)]
fn a_hole_can_be_punched(share: &Share) {
    let file = open_new(share, "f", &vec![1; 3 << 16]);
    share.fallocate(&file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 16, 1 << 16).unwrap();
    assert!(share.read(&file, 1 << 16, 1 << 16).unwrap().iter().all(|&byte| byte == 0));
    assert_eq!((share.read(&file, 65_535, 1).unwrap(), share.read(&file, 2 << 16, 1).unwrap()), (vec![1], vec![1]));
    assert_eq!(share.host.stat("f").blocks, 2 << 7);
}

// fallocate(2): "FALLOC_FL_ZERO_RANGE ... zeros space in the byte range starting at offset and continuing for len
// bytes"
#[apply(behaviour)]
fn a_range_can_be_zeroed(share: &Share) {
    let file = open_new(share, "f", b"hello");
    share.fallocate(&file, FALLOC_FL_ZERO_RANGE, 1, 3).unwrap();
    assert_eq!(share.host.read("f"), b"h\0\0\0o");
}

// fallocate(2): "FALLOC_FL_COLLAPSE_RANGE ... removes a byte range from a file, without leaving a hole"
#[apply(behaviour)]
fn a_range_can_be_collapsed(share: &Share) {
    let data = pattern(3 << 16);
    let file = open_new(share, "f", &data);
    share.fallocate(&file, FALLOC_FL_COLLAPSE_RANGE, 1 << 16, 1 << 16).unwrap();
    assert!(share.host.read("f") == [&data[..1 << 16], &data[2 << 16..]].concat());
}

// fallocate(2): "EINVAL offset was less than 0, or len was less than or equal to 0"; "EOPNOTSUPP The mode is not
// supported by the filesystem"
#[apply(behaviour)]
fn a_senseless_allocation_is_refused(share: &Share) {
    let file = open_new(share, "f", b"x");
    assert_eq!(share.fallocate(&file, 0, 0, 0), Err(EINVAL));
    assert!(share.fallocate(&file, 0, u64::MAX, 1).is_err());
    assert_eq!(share.fallocate(&file, 0x4000_0000, 0, 1), Err(EOPNOTSUPP));
}

// fallocate(2): "EBADF  fd is not a valid file descriptor, or is not opened for writing"
#[apply(behaviour)]
fn space_is_allocated_for_writers_only(share: &Share) {
    share.put("f", b"x").unwrap();
    let file = share.open("f", O_RDONLY).unwrap();
    assert_eq!(share.fallocate(&file, 0, 0, 100), Err(EBADF));
}

// lseek(2): "SEEK_DATA Adjust the file offset to the next location in the file greater than or equal to offset
// containing data"; "SEEK_HOLE"
#[apply(behaviour)]
fn data_and_holes_are_found(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    share.write(&file, 1 << 20, &[1; 4096]).unwrap();
    assert_eq!(share.lseek(&file, 0, SEEK_DATA), Ok(1 << 20));
    assert_eq!(share.lseek(&file, 0, SEEK_HOLE), Ok(0));
    assert_eq!(share.lseek(&file, 1 << 20, SEEK_HOLE), Ok((1 << 20) + 4096));
}

// lseek(2): "ENXIO  whence is SEEK_DATA or SEEK_HOLE, and offset is beyond the end of the file"
#[apply(behaviour)]
fn there_is_no_data_beyond_the_end(share: &Share) {
    let file = open_new(share, "f", b"hello");
    assert_eq!(share.lseek(&file, 5, SEEK_DATA), Err(ENXIO));
    assert_eq!(share.lseek(&file, 100, SEEK_HOLE), Err(ENXIO));
    assert_eq!(share.lseek(&file, 0, 99), Err(EINVAL));
}

// lseek(2): seeking does not disturb another request on the same open file
#[apply(behaviour)]
fn seeking_does_not_move_reads(share: &Share) {
    let file = open_new(share, "f", b"hello");
    share.lseek(&file, 3, SEEK_DATA).unwrap();
    assert_eq!(share.read(&file, 0, 2).unwrap(), b"he");
}

// copy_file_range(2): "performs an in-kernel copy between two file descriptors"
#[apply(behaviour)]
fn a_range_is_copied(share: &Share) {
    let (from, to) = (open_new(share, "a", b"hello world"), open_new(share, "b", b"........"));
    assert_eq!(share.copy_file_range((&from, 6), (&to, 2), 5), Ok(5));
    assert_eq!(share.host.read("b"), b"..world.");
}

// copy_file_range(2): "If the file offset of fd_in is at or past the end of file, no bytes are copied, and
// copy_file_range() returns zero"
#[apply(behaviour)]
fn nothing_is_copied_from_past_the_end(share: &Share) {
    let (from, to) = (open_new(share, "a", b"hello"), open_new(share, "b", b""));
    assert_eq!(share.copy_file_range((&from, 5), (&to, 0), 10), Ok(0));
    assert_eq!(share.copy_file_range((&from, 3), (&to, 0), 10), Ok(2));
}

// copy_file_range(2): "EINVAL  fd_in and fd_out refer to the same file and the source and target ranges overlap"
#[apply(behaviour)]
fn overlapping_ranges_are_not_copied(share: &Share) {
    let file = open_new(share, "f", b"hello world");
    assert_eq!(share.copy_file_range((&file, 0), (&file, 2), 5), Err(EINVAL));
    assert_eq!(share.copy_file_range((&file, 0), (&file, 6), 5), Ok(5));
    assert_eq!(share.host.read("f"), b"hello hello");
}

// copy_file_range(2): "EBADF  fd_in is not open for reading, or fd_out is not open for writing"
#[apply(behaviour)]
fn a_copy_needs_a_reader_and_a_writer(share: &Share) {
    share.put("f", b"x").unwrap();
    let (reader, writer) = (share.open("f", O_RDONLY).unwrap(), share.create("g", O_WRONLY, 0o644).unwrap());
    assert_eq!(share.copy_file_range((&writer, 0), (&writer, 10), 1), Err(EBADF));
    assert_eq!(share.copy_file_range((&reader, 0), (&reader, 10), 1), Err(EBADF));
}

// FUSE: COPY_FILE_RANGE_64 answers with 64 bits what COPY_FILE_RANGE answers with 32
#[apply(behaviour)]
fn more_than_four_gibibytes_can_be_copied(share: &Share) {
    let (from, to) = (open_new(share, "a", b"hello"), open_new(share, "b", b""));
    assert_eq!(share.copy_file_range_64((&from, 1), (&to, 0), 3), Ok(3));
    assert_eq!(share.host.read("b"), b"ell");
    assert_eq!(share.copy_file_range_64((&from, 0), (&to, 0), u64::from(u32::MAX) + 5), Ok(5));
}

// fsync(2): "transfers ("flushes") all modified in-core data of (i.e., modified buffer cache pages for) the file"
#[apply(behaviour)]
fn a_file_is_synchronised(share: &Share) {
    let file = open_new(share, "f", b"x");
    assert_eq!(share.fsync(&file, FsyncFlags::empty()), Ok(()));
    assert_eq!(share.fsync(&file, FsyncFlags::FDATASYNC), Ok(()));
}

// syncfs(2): "synchronizes just the filesystem containing file referred to by the open file descriptor fd"
#[apply(behaviour)]
fn the_file_system_is_synchronised(share: &Share) {
    share.put("f", b"x").unwrap();
    assert_eq!(share.syncfs(ROOT_ID), Ok(()));
}

// close(2): FLUSH comes once per closed descriptor, unless ENOSYS says that there is no need; RELEASE once per open
// file
#[apply(behaviour)]
fn closing_one_descriptor_leaves_the_file_open(share: &Share) {
    let file = open_new(share, "f", b"x");
    assert!(matches!(share.flush(&file), Ok(()) | Err(ENOSYS)));
    assert_eq!(share.read(&file, 0, 1).unwrap(), b"x");
    assert_eq!(share.release(&file), Ok(()));
}

// virtio-fs: requests of one queue are answered in any order, each with its own data
#[apply(virtiofs)]
fn many_reads_are_in_flight_at_once(share: &Share) {
    let data = pattern(32 * 4096);
    let file = open_new(share, "f", &data);
    let read = |i: usize| share.send(&share.read_as(opcode::READ, &file, i as u64 * 4096, 4096));
    let pending: Vec<_> = (0..32).map(read).collect();
    for (i, pending) in pending.into_iter().enumerate().rev() {
        assert!(share.fuse().recv(pending).unwrap() == data[i * 4096..(i + 1) * 4096]);
    }
}
