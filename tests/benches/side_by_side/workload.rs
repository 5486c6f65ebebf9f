//! What is measured: one row each. A guest sends what Linux sends for the same system calls, FLUSH only where the server
//! wants it.

use postern_tests::prelude::*;

use crate::guest::Guest;
use crate::{files, names};

/// A part of a workload, done again and again; gives how many operations it was.
pub type Step<'a> = Box<dyn FnMut() -> u32 + 'a>;

/// How a workload is told.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// Microseconds of one operation.
    Micros,
    /// So many operations make one of these per second.
    Rate(&'static str, f64),
}

/// A row of the table.
pub struct Workload {
    /// What is done.
    pub name: &'static str,
    /// How it is told.
    pub unit: Unit,
    /// Opens what it needs.
    pub start: for<'a> fn(&'a Guest<'a>) -> Step<'a>,
}

/// All of them.
pub const WORKLOADS: &[Workload] = &[
    Workload { name: "LOOKUP", unit: Unit::Micros, start: names::lookup },
    Workload { name: "GETATTR", unit: Unit::Micros, start: names::getattr },
    Workload { name: "SETATTR (mode)", unit: Unit::Micros, start: names::setattr },
    Workload { name: "create, write 4 KiB, close, unlink", unit: Unit::Micros, start: names::create },
    Workload { name: "open, read 4 KiB, close", unit: Unit::Micros, start: files::open },
    Workload { name: "mkdir, rename, rmdir", unit: Unit::Micros, start: names::mkdir },
    Workload { name: "READDIRPLUS, per entry", unit: Unit::Micros, start: files::readdirplus },
    Workload { name: "1 MiB READ", unit: Unit::Rate("MiB/s", 1.0), start: files::bulk_read },
    Workload { name: "1 MiB WRITE", unit: Unit::Rate("MiB/s", 1.0), start: files::bulk_write },
    Workload { name: "random 4 KiB READ", unit: Unit::Rate("k/s", 1000.0), start: files::random_read },
    Workload { name: "random 4 KiB READ, 32 at once", unit: Unit::Rate("k/s", 1000.0), start: files::random_reads },
];

/// Bytes of a page.
pub const PAGE: u32 = 4096;
/// Bytes of the longest request.
pub const MIB: u32 = 1 << 20;
/// Bytes of the large file.
pub const LARGE: u64 = 64 << 20;
/// Entries of the large directory; their names are of one length.
const MANY: u32 = 1000;

/// Makes the tree that the workloads need.
pub fn plant(host: &Host) {
    host.write("small", &[1; PAGE as usize]);
    host.write("large", &vec![1; LARGE as usize]);
    host.mkdir("many");
    for i in 0..MANY {
        host.write(&format!("many/{i:08}"), b"");
    }
}

/// The node of something planted.
pub fn node(guest: &Guest<'_>, name: &str) -> u64 {
    guest.process.lookup(name).expect("planted").nodeid
}
