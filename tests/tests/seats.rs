//! Worker and helper run on one CPU while they exchange messages, wherever they may choose.

use std::os::fd::AsFd as _;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use postern_ipc::frame;
use postern_ipc::id::Caller;
use postern_ipc::op::Stat;
use postern_ipc::seat::Cpu;
use postern_tests::hostile::tried;
use postern_tests::prelude::*;
use postern_tests::twin::{Outcome, Twin, children};

/// The threads of a process, and of each the CPUs that it may use.
fn seats(pid: u32) -> Vec<(Pid, CpuSet)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let ids = tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap());
    ids.map(Pid::from_raw).map(|task| (task, sched_getaffinity(task).unwrap())).collect()
}

fn has(set: &CpuSet, cpu: Cpu) -> bool {
    set.is_set(cpu.into()).unwrap_or(false)
}

fn only(cpu: Cpu) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(cpu.into()).unwrap();
    set
}

/// The CPUs of this process, which it gives to what it starts.
fn allowed() -> (CpuSet, Vec<Cpu>) {
    let set = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let cpus = (0..1024).filter(|&cpu| has(&set, cpu)).collect();
    (set, cpus)
}

/// Others tell all threads of a process where to run.
fn taskset(pid: u32, set: &CpuSet) {
    seats(pid).into_iter().for_each(|(task, _)| sched_setaffinity(task, set).unwrap());
}

/// Asks something, and says where that is waited for.
fn ask(twin: &mut Twin, cpu: Option<Cpu>) -> Outcome {
    let root = twin.root.try_clone().unwrap();
    let mut question = twin.frame(Caller::Root, &Stat {}, 0);
    frame::place(&mut question, cpu);
    twin.exchange(&question, b"", &[root.as_fd()])
}

/// Sets that threads of the helper keep to, other than `all`.
fn kept(twin: &Twin, all: &CpuSet) -> Vec<CpuSet> {
    seats(twin.helper()).into_iter().map(|(_, set)| set).filter(|set| set != all).collect()
}

// postern-security(7): It can also say on which CPU, of those that the helper may use
#[apply(promise)]
fn a_server_moves_a_helpers_thread_to_cpus_that_it_may_use_and_to_no_other(on: Kind) {
    let (all, cpus) = allowed();
    let mut twin = Twin::new(on);
    let told = (0..2100).chain((2100..Cpu::MAX).step_by(61)).chain([Cpu::MAX - 1]);
    let count = told.map(|cpu| {
        let answered = ask(&mut twin, Some(cpu));
        assert!(matches!(answered, Outcome::Answered(None, _)), "{cpu}: {answered:?}");
        let expected = if cpus.contains(&cpu) && cpus.len() > 1 { vec![only(cpu)] } else { vec![] };
        assert_eq!(kept(&twin, &all), expected, "{cpu}");
    });
    tried("CPUs named", count.count());
    ask(&mut twin, cpus.first().copied());
    ask(&mut twin, None);
    assert_eq!((kept(&twin, &all), twin.errors()), (vec![], 0));
}

// taskset(1), of a process that runs
#[apply(promise)]
fn a_helpers_thread_that_is_told_by_others_where_to_run_stays_there(on: Kind) {
    let (all, cpus) = allowed();
    let [first, second, ..] = cpus[..] else { return assert_eq!(cpus.len(), 1, "a machine of one CPU") };
    let mut twin = Twin::new(on);
    ask(&mut twin, Some(first));
    taskset(twin.helper(), &only(second));
    for cpu in [None, Some(first), Some(second), None] {
        ask(&mut twin, cpu);
        assert!(seats(twin.helper()).iter().all(|(_, set)| *set == only(second)), "{cpu:?}");
    }
    taskset(twin.helper(), &all);
    ask(&mut twin, Some(first));
    assert_eq!(kept(&twin, &all), [only(first)]);
}

// An exchange between two CPUs is followed by some on one.
#[apply(promise)]
fn a_worker_that_has_its_answer_runs_where_it_likes(on: Kind) {
    let (all, cpus) = allowed();
    let [first, second, ..] = cpus[..] else { return assert_eq!(cpus.len(), 1, "a machine of one CPU") };
    let share = on.setup().serve();
    let server = share.server.child.id();
    let helper = children(children(server)[0])[0];
    share.put("f", b"").unwrap();
    let told = [(server, only(first)), (helper, only(second))];
    told.iter().for_each(|(pid, set)| taskset(*pid, set));
    share.chmod("f", 0o600).unwrap();
    for (pid, set) in told {
        assert!(seats(pid).iter().all(|(_, its)| *its == set), "what others told it does not count");
        taskset(pid, &all);
    }
    share.chmod("f", 0o644).unwrap();
    assert_eq!(seats(helper).iter().filter(|(_, set)| *set != all).count(), 1, "nobody came");
    assert!(seats(server).iter().all(|(_, set)| *set == all));
}
