//! What a process has taken of the host, as /proc shows it. proc(5)

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// Time it has spent on a CPU.
///
/// # Panics
/// When it is gone, as all here.
pub fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("alive");
    let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
    let ticks: u64 = fields.skip(11).take(2).map(|ticks| ticks.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(ticks * 10)
}

/// Memory of its own that is there, KiB.
pub fn memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("alive");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("a process with memory");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

/// Descriptors that it holds.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).expect("alive").count()
}

/// Checks that a process does nothing, once it has done what was asked of it.
///
/// # Panics
/// When it is busy for longer than a few seconds.
pub fn assert_settles(pid: u32) {
    const A_MOMENT: Duration = Duration::from_millis(200);
    let is_idle = || {
        let before = cpu_time(pid);
        std::thread::sleep(A_MOMENT);
        cpu_time(pid) - before <= A_MOMENT / 10
    };
    assert!((0..25).any(|_| is_idle()), "time is spent on nothing");
}

/// The number by which a process holds a file.
pub fn descriptor_of(pid: u32, path: &Path) -> u64 {
    let wanted = fs::metadata(path).expect("there");
    let mut held = fs::read_dir(format!("/proc/{pid}/fd")).expect("alive").map(|fd| fd.expect("alive"));
    let same = |meta: fs::Metadata| (meta.dev(), meta.ino()) == (wanted.dev(), wanted.ino());
    let found = held.find(|fd| fs::metadata(fd.path()).is_ok_and(same));
    found.expect("held").file_name().to_str().and_then(|name| name.parse().ok()).expect("a number")
}
