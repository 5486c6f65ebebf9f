//! What is measured: one row each. A guest sends what Linux sends for the same system calls, FLUSH only where the
//! server wants it.

use postern_tests::prelude::*;

use crate::calls::Calls;
use crate::guest::Guest;
use crate::{calls, files, names};

/// A part of a workload, done again and again; gives how many operations it was.
pub type Step<'a> = Box<dyn FnMut() -> u32 + 'a>;

/// How a workload is told.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// Microseconds of one operation.
    Micros,
    /// Seconds of one.
    Seconds,
    /// So many operations make one of these per second.
    Rate(&'static str, f64),
}

impl Unit {
    /// As a table has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Micros => "µs",
            Self::Seconds => "s",
            Self::Rate(name, _) => name,
        }
    }

    /// CPU time of one that took so many seconds of it: microseconds, or seconds of what takes long.
    pub fn of_cpu(self, seconds: f64) -> f64 {
        if matches!(self, Self::Seconds) { seconds } else { seconds * 1e6 }
    }

    /// An operation of so many seconds.
    pub fn of(self, seconds: f64) -> f64 {
        match self {
            Self::Micros => seconds * 1e6,
            Self::Seconds => seconds,
            Self::Rate(_, count) => 1.0 / seconds / count,
        }
    }
}

/// A row of the table.
pub struct Workload {
    /// What is done.
    pub name: &'static str,
    /// How it is told.
    pub unit: Unit,
    /// Ratio to the better peer that is to be reached: on one CPU, on two.
    pub aims: Option<[f64; 2]>,
    /// The same of CPU time on one CPU, where no request needs the helper.
    pub cpu_aim: Option<f64>,
    /// Request queues, of servers that have several.
    pub queues: usize,
    /// What it takes the kernel, where that is of interest.
    pub calls: Option<Calls>,
    /// Opens what it needs.
    pub start: for<'a> fn(&'a Guest<'a>) -> Step<'a>,
}

const fn row(
    name: &'static str,
    unit: Unit,
    aims: [f64; 2],
    cpu_aim: Option<f64>,
    calls: Option<Calls>,
    start: for<'a> fn(&'a Guest<'a>) -> Step<'a>,
) -> Workload {
    Workload { name, unit, aims: Some(aims), cpu_aim, queues: 1, calls, start }
}

const fn deep(name: &'static str, start: for<'a> fn(&'a Guest<'a>) -> Step<'a>) -> Workload {
    Workload { name, unit: THOUSANDS, aims: None, cpu_aim: None, queues: 1, calls: None, start }
}

const THOUSANDS: Unit = Unit::Rate("k/s", 1000.0);
const MIBS: Unit = Unit::Rate("MiB/s", 1.0);

/// All of them. Where the aim is a rate so many times the peer's, a part of its time is said.
pub const WORKLOADS: &[Workload] = &[
    row("LOOKUP", Unit::Micros, [0.8, 0.15], Some(1.0), calls::LOOKUP, names::lookup),
    row("GETATTR", Unit::Micros, [0.85, 0.15], Some(1.0), calls::GETATTR, names::getattr),
    row("SETATTR (mode)", Unit::Micros, [1.2, 0.35], None, calls::SETATTR, names::setattr),
    row("open, read 4 KiB, close", Unit::Micros, [0.85, 0.35], None, None, files::open),
    row(
        "open, read 4 KiB, close, 5000 files in turn",
        Unit::Micros,
        [0.85, 0.35],
        None,
        calls::OPEN_MANY,
        files::open_many,
    ),
    row("open, read 4 KiB, close, 5000 files as listed", Unit::Micros, [0.85, 0.35], None, None, files::open_listed),
    row("create, write 4 KiB, close, unlink", Unit::Micros, [0.9, 0.35], None, calls::CREATE, names::create),
    row("mkdir, rename, rmdir", Unit::Micros, [1.15, 0.5], None, calls::MKDIR, names::mkdir),
    row("READDIRPLUS, per entry", Unit::Micros, [0.8, 0.5], Some(1.0), calls::READDIRPLUS, files::readdirplus),
    row("1 MiB READ", MIBS, [1.0, 0.8], Some(1.0), calls::BULK_READ, files::bulk_read),
    row("1 MiB WRITE", MIBS, [1.0, 0.8], Some(1.0), calls::BULK_WRITE, files::bulk_write),
    row(
        "random 4 KiB READ, 32 at once",
        THOUSANDS,
        [1.0 / 1.3, 1.0 / 1.5],
        Some(1.0),
        calls::RANDOM_READ,
        files::random_reads::<32>,
    ),
    Workload {
        queues: 4,
        ..row("metadata, 8 at once, 4 queues", THOUSANDS, [1.0 / 1.1, 1.0 / 1.5], None, None, names::mixed)
    },
];

/// Requests under way at once.
pub const DEPTHS: [u32; 6] = [1, 2, 4, 8, 16, 32];

/// The same request so many times at once.
pub const DEEP: [(&str, [Workload; 6]); 2] = [
    (
        "LOOKUP",
        [
            deep("LOOKUP, 1 at once", names::lookups::<1>),
            deep("LOOKUP, 2 at once", names::lookups::<2>),
            deep("LOOKUP, 4 at once", names::lookups::<4>),
            deep("LOOKUP, 8 at once", names::lookups::<8>),
            deep("LOOKUP, 16 at once", names::lookups::<16>),
            deep("LOOKUP, 32 at once", names::lookups::<32>),
        ],
    ),
    (
        "random 4 KiB READ",
        [
            deep("random 4 KiB READ, 1 at once", files::random_reads::<1>),
            deep("random 4 KiB READ, 2 at once", files::random_reads::<2>),
            deep("random 4 KiB READ, 4 at once", files::random_reads::<4>),
            deep("random 4 KiB READ, 8 at once", files::random_reads::<8>),
            deep("random 4 KiB READ, 16 at once", files::random_reads::<16>),
            deep("random 4 KiB READ, 32 at once", files::random_reads::<32>),
        ],
    ),
];

/// Bytes of a page.
pub const PAGE: u32 = 4096;
/// Bytes of the longest request.
pub const MIB: u32 = 1 << 20;
/// Bytes of the large file.
pub const LARGE: u64 = 64 << 20;
/// Entries of a large directory.
pub const MANY: u32 = 1000;
/// Large directories: together more files than any server keeps open for who opens them next.
pub const DIRS: u32 = 5;

/// Name of large directory `i`.
pub fn dir(i: u32) -> String {
    format!("many{i}")
}

/// Name of entry `i` of a large directory: all are of one length.
pub fn entry(i: u32) -> String {
    format!("{i:08}")
}

/// Makes the tree that the workloads need.
pub fn plant(host: &Host) {
    host.write("small", &[1; PAGE as usize]);
    host.write("large", &vec![1; LARGE as usize]);
    for dir in (0..DIRS).map(dir) {
        host.mkdir(&dir);
        for i in 0..MANY {
            host.write(&format!("{dir}/{}", entry(i)), &[1; PAGE as usize]);
        }
    }
}

/// The node of something planted.
pub fn node(guest: &Guest<'_>, name: &str) -> u64 {
    guest.process.lookup(name).expect("planted").nodeid
}
