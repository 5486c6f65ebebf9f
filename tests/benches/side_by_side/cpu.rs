//! Who runs where, and for how long.

use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// The CPUs this process might use when it first asked.
pub static ALLOWED: LazyLock<Vec<usize>> = LazyLock::new(|| {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("own");
    (0..CpuSet::count()).filter(|&cpu| set.is_set(cpu).expect("in range")).collect()
});

/// From now on this thread, and what it starts, runs on `cpu` alone, or on all of them again.
pub fn stay(cpu: Option<usize>) {
    let cpus = cpu.as_ref().map_or(&ALLOWED[..], std::slice::from_ref);
    let mut set = CpuSet::new();
    cpus.iter().for_each(|&cpu| set.set(cpu).expect("in range"));
    sched_setaffinity(Pid::from_raw(0), &set).expect("allowed CPUs");
}

/// A process and all its descendants.
pub fn family(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("alive").map(|task| task.expect("alive").path());
    let children = tasks.map(|task| fs::read_to_string(task.join("children")).expect("alive"));
    let children: Vec<u32> =
        children.flat_map(|list| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>()).collect();
    [pid].into_iter().chain(children.into_iter().flat_map(family)).collect()
}

/// What processes have spent on CPUs.
pub fn spent(processes: &[u32]) -> Duration {
    let spent = |&pid: &u32| -> Duration {
        let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).expect("alive");
        clock_gettime(clock).expect("alive").into()
    };
    processes.iter().map(spent).sum()
}
