//! What each request of virtio-fs costs: all servers take turns.

use std::cell::LazyCell;
use std::time::Duration;

use crate::calls::Calls;
use crate::contestant::{Contestant, SERVERS, Server, Shape, repeat};
use crate::report::{Aim, Columns, Row, median, table};
use crate::workload::{DEEP, WORKLOADS, Workload};
use crate::{Args, PLACES, calls, cpu, plot, plots};

/// How many CPUs a shape has, in names of plots.
const CPUS: [&str; 3] = ["one", "two", "any"];

/// What one costs.
pub fn run(args: &Args, tell: &mut impl FnMut(String)) {
    for (place, dir) in PLACES {
        for (which, shape) in Shape::both().into_iter().chain([Shape::FREE]).enumerate() {
            let title = format!("{place}, {}", shape.name);
            let workloads: Vec<_> = WORKLOADS.iter().collect();
            if let Some(rows) = compare(&title, dir, shape, which, &workloads, args, tell) {
                let name = format!("latency-{place}-{}", CPUS[which]);
                args.keep(&name, &plots::latency(&title, &columns(args).0, &rows));
            }
        }
    }
}

/// How many are answered, by how many are under way.
pub fn depth(args: &Args, tell: &mut impl FnMut(String)) {
    let mut panels = Vec::new();
    for (which, shape) in Shape::both().into_iter().enumerate() {
        for (request, workloads) in &DEEP {
            let title = format!("{request} by depth, tmpfs, {}", shape.name);
            let workloads: Vec<_> = workloads.iter().collect();
            let rows = compare(&title, PLACES[0].1, shape, which, &workloads, args, tell);
            panels.extend(rows.map(|rows| plots::depth(&format!("{request}, {} CPU", CPUS[which]), &rows)));
        }
    }
    if !panels.is_empty() {
        let title = "Requests answered by how many are under way";
        args.keep("depth", &plot::figure(title, &columns(args).0.names(), &panels));
    }
}

/// One table, if it is wanted.
fn compare(
    title: &str,
    place: &'static str,
    shape: Shape,
    which: usize,
    workloads: &[&Workload],
    args: &Args,
    tell: &mut impl FnMut(String),
) -> Option<Vec<Row>> {
    let workloads: Vec<_> = workloads.iter().copied().filter(|workload| args.wants(workload.name)).collect();
    if !title.contains(&args.table) || workloads.is_empty() {
        return None;
    }
    let (columns, servers) = columns(args);
    let mut rows: Vec<_> = workloads
        .iter()
        .map(|workload| {
            let aim = Aim {
                time: workload.aims.and_then(|aims| aims.get(which).copied()),
                cpu: workload.cpu_aim.filter(|_| which == 0),
            };
            let moves_data = workload.calls.is_some_and(|calls| calls.moves_data);
            Row { moves_data, ..Row::new(workload.name, workload.unit, aim, columns.count()) }
        })
        .collect();
    measure(&servers, place, shape, &workloads, &mut rows, args);
    tell(table(title, &columns, &rows));
    Some(rows)
}

/// Who is measured, in the order of the columns.
fn columns(args: &Args) -> (Columns, Vec<Server>) {
    let servers = if args.alone { &SERVERS[..1] } else { &SERVERS };
    let names = servers.iter().map(|server| match server {
        Server::Real(name, ..) => *name,
        Server::Floor => "floor",
    });
    let columns = Columns { servers: names.collect(), floor: true };
    (columns, servers.iter().copied().chain([Server::Floor]).collect())
}

/// All workloads by all servers, who take turns. Where memory lies makes a difference of a quarter: each server is once
/// the first to get some.
fn measure(
    servers: &[Server],
    place: &'static str,
    shape: Shape,
    workloads: &[&Workload],
    rows: &mut [Row],
    args: &Args,
) {
    let mut queues: Vec<_> = workloads.iter().map(|workload| workload.queues).collect();
    queues.sort_unstable();
    queues.dedup();
    for queues in queues {
        for start in 0..servers.len() {
            let mut contestants: Vec<_> = (0..servers.len())
                .map(|turn| (start + turn) % servers.len())
                .map(|who| (who, Contestant::start(servers[who], place, shape, queues, args)))
                .collect();
            contestants.sort_by_key(|(who, _)| *who);
            let tree = LazyCell::new(|| calls::Tree::below(place));
            let guests: Vec<_> = contestants.iter().map(|(_, contestant)| contestant.guest(shape.waiting)).collect();
            for round in 0..args.rounds(servers.len()) {
                for (workload, row) in workloads.iter().zip(&mut *rows).filter(|(row, _)| row.queues == queues) {
                    for turn in 0..servers.len() {
                        let who = (round + turn) % servers.len();
                        let (sample, times) = contestants[who].1.measure(&guests[who], workload, args.slice());
                        row.samples[who].push(sample);
                        row.times[who].extend(times);
                    }
                    if let (Some(calls), Some(_)) = (workload.calls, shape.server) {
                        cpu::stay(shape.server);
                        row.calls.push(alone(calls, &tree, args.slice()));
                        cpu::stay(shape.client);
                    }
                }
            }
        }
    }
}

/// What the calls of a workload take by themselves, seconds.
fn alone(calls: Calls, tree: &calls::Tree, slice: Duration) -> f64 {
    let mut step = (calls.start)(&tree.root());
    repeat(&mut step, slice / 10);
    median(repeat(&mut step, slice).0)
}
