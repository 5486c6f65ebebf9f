//! postern beside its peers: what one request costs, in one run, on the same client and trees of the same shape. On
//! vrings beside virtiofsd and QEMU's C virtiofsd, on streams beside diod and QEMU's virtfs-proxy-helper.
//!
//! Nothing here is asserted: figures are for reading. `tests/bench` builds what is measured and runs this.

mod cpu;
mod files;
mod guest;
mod names;
mod report;
mod stream;
mod streams;
mod workload;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Parser;
use postern_tests::share::DISK;
use postern_tests::{Kind, Setup, Share};

use guest::{Guest, Waiting};
use report::{Row, Sample, conditions, median, table};
use streams::PROTOCOLS;
use workload::{WORKLOADS, Workload, plant};

/// Measures postern beside virtiofsd and QEMU's C virtiofsd
#[derive(Parser)]
#[command(name = "tests/bench")]
struct Args {
    /// Only workloads whose names contain one of these
    #[arg(value_name = "WORKLOAD")]
    workloads: Vec<String>,
    /// Rounds, in each of which all servers take turns, between one start of the servers and the next
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Milliseconds that a server has for a workload in a round
    #[arg(long, value_name = "MS", default_value_t = 50)]
    slice: u64,
    /// Only tables whose titles contain this
    #[arg(long, value_name = "TITLE", default_value = "")]
    table: String,
    /// Only postern
    #[arg(long)]
    alone: bool,
    /// One more argument for postern, such as --with=--seccomp=none
    #[arg(long, value_name = "ARGUMENT")]
    with: Vec<String>,
    /// Write the figures to tests/benches/RESULTS.md too
    #[arg(long)]
    record: bool,
    #[arg(long, hide = true)]
    bench: bool,
}

/// Ours first.
const SERVERS: [(&str, Kind); 3] =
    [("postern", Kind::Mapped), ("virtiofsd", Kind::Virtiofsd), ("C virtiofsd", Kind::CVirtiofsd)];

/// Where the trees are.
const PLACES: [(&str, &str); 2] = [("tmpfs", "/dev/shm"), ("disk", DISK)];

/// A server with its tree.
struct Contestant {
    share: Share,
    processes: Vec<u32>,
}

impl Contestant {
    /// Starts it on one CPU, and goes to another.
    fn start(setup: Setup, server: usize, client: usize) -> Self {
        cpu::pin(server);
        let share = setup.serve();
        cpu::pin(client);
        plant(&share.host);
        Self { processes: cpu::family(share.server.child.id()), share }
    }

    /// Does a workload for a while.
    fn measure(&self, guest: &Guest<'_>, workload: &Workload, slice: Duration) -> Sample {
        let mut step = (workload.start)(guest);
        let warm = Instant::now();
        while warm.elapsed() < slice / 10 {
            step();
        }
        let (mut times, mut count) = (Vec::new(), 0);
        let (start, spent) = (Instant::now(), cpu::spent(&self.processes));
        while start.elapsed() < slice {
            let start = Instant::now();
            let done = step();
            times.push(start.elapsed().as_secs_f64() / f64::from(done));
            count += done;
        }
        let cpu = (cpu::spent(&self.processes) - spent).as_secs_f64() / f64::from(count);
        Sample { time: median(times), cpu }
    }
}

fn main() {
    let args = Args::parse();
    let servers = if args.alone { &SERVERS[..1] } else { &SERVERS };
    let names: Vec<_> = servers.iter().map(|server| server.0).collect();
    let wanted = |row: &&Workload| args.workloads.is_empty() || args.workloads.iter().any(|w| row.name.contains(w));
    let workloads: Vec<_> = WORKLOADS.iter().filter(wanted).collect();
    let [first, second, ..] = cpu::allowed()[..] else { panic!("two CPUs are needed") };
    let modes =
        [("one CPU, sleeping guest", first, Waiting::Asleep), ("two CPUs, polling guest", second, Waiting::Polling)];

    let mut text = conditions(args.rounds * servers.len());
    print!("{text}");
    for (place, dir) in PLACES {
        for (mode, server_cpu, waiting) in modes {
            let title = format!("{place}, {mode}");
            if !title.contains(&args.table) {
                continue;
            }
            let setup = |kind: Kind| {
                let more = args.with.iter().filter(|_| kind.is_postern());
                more.fold(kind.setup().below(dir), |setup, arg| setup.arg(arg))
            };
            let mut rows: Vec<_> = workloads.iter().map(|row| Row::new(row.name, row.unit, servers.len())).collect();
            // Where memory lies makes a difference of a quarter: each server is once the first to get some.
            for start in 0..servers.len() {
                let order = (0..servers.len()).map(|turn| (start + turn) % servers.len());
                let started = order.map(|who| (who, Contestant::start(setup(servers[who].1), server_cpu, first)));
                let contestants: BTreeMap<_, _> = started.collect();
                compare(&contestants, waiting, &workloads, &mut rows, &args);
            }
            let table = table(&title, &names, &rows);
            println!("\n{table}");
            text += &format!("\n{table}");
        }
    }
    for (place, dir) in PLACES {
        for (mode, server) in [("one CPU", first), ("two CPUs", second)] {
            for protocol in PROTOCOLS {
                let title = format!("{}: {place}, {mode}", protocol.name);
                if title.contains(&args.table) {
                    let table = streams::compare(protocol, &title, dir, (server, first), &args);
                    println!("\n{table}");
                    text += &format!("\n{table}");
                }
            }
        }
    }
    if args.record {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/RESULTS.md"), text).expect("own tree");
    }
}

/// All workloads by all contestants, who take turns.
fn compare(
    contestants: &BTreeMap<usize, Contestant>,
    waiting: Waiting,
    workloads: &[&Workload],
    rows: &mut [Row],
    args: &Args,
) {
    let guests: Vec<_> = contestants.values().map(|contestant| Guest::new(&contestant.share, waiting)).collect();
    for round in 0..args.rounds {
        for (workload, Row { samples, .. }) in workloads.iter().zip(&mut *rows) {
            for turn in 0..contestants.len() {
                let who = (round + turn) % contestants.len();
                let slice = Duration::from_millis(args.slice);
                samples[who].push(contestants[&who].measure(&guests[who], workload, slice));
            }
        }
    }
}
