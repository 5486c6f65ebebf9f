//! Descriptor chains, well-formed and malformed: each has one answer, and the ring goes on.

use postern_ipc::Errno;

use super::driver::{ANSWER, BASE, Descriptor, INDIRECT, NEXT, REQUEST, RING, SIZE, WRITE};
use super::{READ, ROOM, errno, simple};

/// Where malformed chains find their indirect table, from the beginning of memory.
const TABLE: u64 = 0x6_0000;
const OUTSIDE: u64 = BASE + SIZE;

#[test]
fn an_indirect_table_may_stand_alone_or_end_a_chain() {
    let (mut driver, _) = simple(true);
    let table = 0x6_0000;
    driver.write(REQUEST, b"ehello");
    driver.table(
        table,
        &[(BASE + REQUEST, 6, NEXT, 1), (BASE + ANSWER, 2, NEXT | WRITE, 2), (BASE + ANSWER + 16, 9, WRITE, 0)],
    );
    driver.table(0, &[(BASE + table, 48, INDIRECT, 0)]);
    driver.offer(0, 0);
    assert_eq!(driver.used(0), (0, 5));
    assert_eq!((driver.read(ANSWER, 2), driver.read(ANSWER + 16, 3)), (b"he".to_vec(), b"llo".to_vec()));

    driver.table(table, &[(BASE + REQUEST + 3, 3, NEXT, 1), (BASE + ANSWER, 64, WRITE, 0)]);
    driver.table(0, &[(BASE + REQUEST, 3, NEXT, 1), (BASE + table, 32, INDIRECT, 0)]);
    driver.offer(0, 0);
    assert_eq!((driver.used(0), driver.read(ANSWER, 5)), ((0, 5), b"hello".to_vec()));
}

/// Name, ring's table, indirect table, and the errno that is answered; `None` where there is no room for it.
type Malformed = (&'static str, &'static [Descriptor], &'static [Descriptor], Option<Errno>);

const MALFORMED: &[Malformed] = &[
    ("nothing to read", &[ROOM], &[], Some(Errno::EINVAL)),
    ("nowhere to answer", &[(BASE + REQUEST, 6, 0, 0)], &[], None),
    ("no bytes at all", &[(BASE + REQUEST, 0, 0, 0)], &[], None),
    ("next outside the table, no room", &[(BASE + REQUEST, 6, NEXT, 99)], &[], None),
    ("next outside the table", &[READ, (BASE + ANSWER, 64, NEXT | WRITE, RING)], &[], Some(Errno::EINVAL)),
    ("a loop over one", &[(BASE + REQUEST, 6, NEXT, 0)], &[], None),
    ("a loop over two", &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 0)], &[], Some(Errno::EINVAL)),
    ("a loop over the last", &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 1)], &[], Some(Errno::EINVAL)),
    (
        "writable before readable",
        &[(BASE + ANSWER, 64, NEXT | WRITE, 1), (BASE + REQUEST, 6, 0, 0)],
        &[],
        Some(Errno::EINVAL),
    ),
    ("a request outside memory", &[(OUTSIDE, 6, NEXT, 1), ROOM], &[], Some(Errno::EFAULT)),
    ("a request below memory", &[(8, 6, NEXT, 1), ROOM], &[], Some(Errno::EFAULT)),
    ("a request over the end of memory", &[(OUTSIDE - 3, 6, NEXT, 1), ROOM], &[], Some(Errno::EFAULT)),
    ("a request around the end of the address space", &[(u64::MAX - 2, 6, NEXT, 1), ROOM], &[], Some(Errno::EFAULT)),
    (
        "data outside memory",
        &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 2), (OUTSIDE, 4096, WRITE, 0)],
        &[],
        Some(Errno::EFAULT),
    ),
    ("room outside memory", &[READ, (OUTSIDE, 64, WRITE, 0)], &[], None),
    (
        "more than four gigabytes",
        &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 2), (OUTSIDE, u32::MAX, WRITE, 0)],
        &[],
        Some(Errno::E2BIG),
    ),
    ("an indirect table with a successor", &[(BASE + TABLE, 32, INDIRECT | NEXT, 1), ROOM], &[READ, ROOM], None),
    ("an indirect table without entries", &[(BASE + TABLE, 0, INDIRECT, 0)], &[READ, ROOM], None),
    ("an indirect table of a broken length", &[(BASE + TABLE, 33, INDIRECT, 0)], &[READ, ROOM], None),
    (
        "an indirect table outside memory",
        &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 2), (OUTSIDE, 32, INDIRECT, 0)],
        &[],
        Some(Errno::EFAULT),
    ),
    (
        "an indirect table in another",
        &[(BASE + TABLE, 48, INDIRECT, 0)],
        &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 2), (BASE + TABLE, 48, INDIRECT, 0)],
        Some(Errno::EINVAL),
    ),
    (
        "next outside an indirect table",
        &[(BASE + TABLE, 32, INDIRECT, 0)],
        &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 2)],
        Some(Errno::EINVAL),
    ),
    (
        "a loop in an indirect table",
        &[(BASE + TABLE, 32, INDIRECT, 0)],
        &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 1)],
        Some(Errno::EINVAL),
    ),
];

// CVE-2026-16457, CVE-2026-50626: QEMU's virtio spins on such chains.
#[test]
fn a_malformed_chain_is_answered_and_the_next_one_served() {
    let (mut driver, _) = simple(true);
    for (name, ring, indirect, answer) in MALFORMED {
        driver.write(REQUEST, b"ehello");
        driver.table(TABLE, indirect);
        driver.table(0, ring);
        driver.offer(0, 0);
        let expected = answer.map(errno).unwrap_or_default();
        assert_eq!(driver.used(0), (0, u32::try_from(expected.len()).unwrap()), "{name}");
        assert_eq!(driver.read(ANSWER, expected.len()), expected, "{name}");
        assert_eq!(driver.ask(0, b"ealive"), b"alive", "{name}");
    }
}

#[test]
fn a_chain_is_at_most_1024_buffers_long() {
    let (mut driver, _) = simple(true);
    for (count, expected) in [(1024_u16, b"hello".to_vec()), (1025, errno(Errno::E2BIG))] {
        driver.write(REQUEST, b"ehello");
        let mut table = vec![READ];
        table.extend((2..=count).map(|next| (BASE + ANSWER + u64::from(next) * 2, 1, NEXT | WRITE, next)));
        table[1] = (BASE + ANSWER, 64, NEXT | WRITE, 2);
        table[usize::from(count) - 1].2 = WRITE;
        driver.table(TABLE, &table);
        driver.table(0, &[(BASE + TABLE, u32::from(count) * 16, INDIRECT, 0)]);
        driver.offer(0, 0);
        assert_eq!(driver.used(0), (0, u32::try_from(expected.len()).unwrap()));
        assert_eq!(driver.read(ANSWER, expected.len()), expected);
    }
}

#[test]
fn buffers_without_bytes_change_nothing() {
    let (mut driver, _) = simple(true);
    driver.write(REQUEST, b"ehello");
    let chain = [(0, 0, NEXT, 1), (BASE + REQUEST, 6, NEXT, 2), (OUTSIDE, 0, NEXT | WRITE, 3), ROOM];
    driver.table(0, &chain);
    driver.offer(0, 0);
    assert_eq!((driver.used(0), driver.read(ANSWER, 5)), ((0, 5), b"hello".to_vec()));
}
