use std::os::fd::AsFd;

use rustix::fs::{MemfdFlags, memfd_create};

use super::*;

const PAGE: u64 = 4096;

fn file(len: u64) -> File {
    let file = File::from(memfd_create("memory", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(len).unwrap();
    file
}

fn region(guest: u64, size: u64) -> Region {
    Region::map(Place { guest, user: guest ^ (1 << 40), size }, file(size), 0).unwrap()
}

/// Two regions that follow each other and one apart.
fn memory() -> Memory {
    let memory = Memory::new().with(region(2 * PAGE, PAGE)).unwrap();
    memory.with(region(PAGE, PAGE)).unwrap().with(region(9 * PAGE, PAGE)).unwrap()
}

fn segments(memory: &Memory, parts: &[(u64, u32)]) -> Segments {
    let mut segments = Segments::default();
    for (address, len) in parts {
        memory.resolve(*address, *len, &mut segments).unwrap();
    }
    segments
}

fn all<'a>(memory: &'a Memory, segments: &'a Segments) -> GuestIovecs<'a> {
    segments.run(memory, Cursor::default(), usize::try_from(segments.len()).unwrap())
}

#[test]
fn adjacent_bytes_of_a_region_are_one_segment() {
    let memory = memory();
    assert_eq!(segments(&memory, &[(PAGE, 10), (PAGE + 10, 6), (PAGE + 17, 1)]).list.len(), 2);
    assert_eq!(segments(&memory, &[(2 * PAGE - 1, 1), (2 * PAGE, 1)]).list.len(), 2);
    assert_eq!(segments(&memory, &[(2 * PAGE - 1, 2)]).list.len(), 2);
}

#[test]
fn what_is_not_wholly_in_memory_adds_nothing() {
    let memory = memory();
    let mut segments = Segments::default();
    for (address, len) in [(0, 1), (PAGE - 1, 2), (3 * PAGE - 1, 2), (9 * PAGE, 4097), (u64::MAX, 1), (u64::MAX, 2)] {
        assert_eq!(memory.resolve(address, len, &mut segments), Err(Errno::EFAULT), "{len} at {address:#x}");
    }
    assert_eq!((segments.len(), segments.list.len()), (0, 0));
}

#[test]
fn bytes_are_copied_in_order_from_any_place() {
    let memory = memory();
    let segments = segments(&memory, &[(PAGE + 100, 3), (2 * PAGE - 2, 4), (9 * PAGE, 3)]);
    all(&memory, &segments).copy_from(b"0123456789").unwrap();
    for start in 0..10 {
        for len in 0..=10 - start {
            let mut bytes = vec![0; len];
            let at = segments.advance(segments.advance(Cursor::default(), start / 2), start - start / 2);
            segments.run(&memory, at, len).copy_to(&mut bytes).unwrap();
            assert_eq!(bytes, &b"0123456789"[start..start + len]);
        }
    }
}

#[test]
fn files_are_read_and_written_without_a_copy() {
    let memory = memory();
    let there = segments(&memory, &[(PAGE + 100, 3), (2 * PAGE - 2, 4), (9 * PAGE, 3)]);
    all(&memory, &there).copy_from(b"0123456789").unwrap();
    let file = file(0);
    let some = there.run(&memory, there.advance(Cursor::default(), 1), 8);
    assert_eq!(pwritev2(file.as_fd(), &some, 5, ReadWriteFlags::empty()), Ok(8));
    let back = segments(&memory, &[(3 * PAGE - 20, 1), (9 * PAGE + 50, 30)]);
    assert_eq!(preadv2(file.as_fd(), &all(&memory, &back), 4, ReadWriteFlags::empty()), Ok(9));
    let mut bytes = [0; 9];
    all(&memory, &back).copy_to(&mut bytes).unwrap();
    assert_eq!(bytes, [0, b'1', b'2', b'3', b'4', b'5', b'6', b'7', b'8']);
}

#[test]
fn an_offset_that_is_none_is_refused() {
    let memory = memory();
    let some = segments(&memory, &[(PAGE, 1)]);
    for offset in [u64::MAX, 1 << 63] {
        assert_eq!(preadv2(file(1).as_fd(), &all(&memory, &some), offset, ReadWriteFlags::empty()), Err(Errno::EINVAL));
    }
}

// CVE-2023-41051: a region's mapping must be as long as the region says.
#[test]
fn a_region_is_as_long_as_its_file_at_most() {
    let place = |size| Place { guest: 0, user: 0, size };
    assert_eq!(Region::map(place(2 * PAGE), file(PAGE), 0).err(), Some(Errno::EINVAL));
    assert_eq!(Region::map(place(PAGE), file(PAGE), PAGE).err(), Some(Errno::EINVAL));
    assert_eq!(Region::map(place(PAGE), file(PAGE), u64::MAX - 1).err(), Some(Errno::EINVAL));
    assert_eq!(Region::map(place(0), file(PAGE), 0).err(), Some(Errno::EINVAL));
    let last = Place { guest: u64::MAX - 10, user: 0, size: PAGE };
    assert_eq!(Region::map(last, file(PAGE), 0).err(), Some(Errno::EINVAL));
}

#[test]
fn memory_that_cannot_be_shared_for_writing_is_refused() {
    let shared = file(PAGE);
    let path = format!("/proc/self/fd/{}", shared.as_raw_fd());
    let readable = File::open(path).unwrap();
    assert_eq!(Region::map(Place { guest: 0, user: 0, size: PAGE }, readable, 0).err(), Some(Errno::EACCES));
}
