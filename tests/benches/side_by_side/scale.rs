//! What a share costs that nobody asks anything of, and one of which a guest knows very much.

use std::fs;
use std::mem::offset_of;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use postern_server::fuse::abi::{AttrOut, EntryOut, GetattrIn};
use postern_tests::prelude::*;

use crate::contestant::{SERVERS, Server, setup};
use crate::guest::{Guest, Waiting};
use crate::report::{median, number};
use crate::{Args, PLACES, cpu};

/// Starts of each server.
const STARTS: usize = 9;
/// How long an idle server is looked at.
const WATCH: Duration = Duration::from_secs(10);
/// Files of one directory.
const PER_DIR: u32 = 1000;

/// A line of the table: what, the most it may be, and what it is for each server that can do it.
struct Line {
    name: String,
    aim: Option<f64>,
    values: Vec<Option<f64>>,
}

/// The table.
pub fn run(args: &Args, tell: &mut impl FnMut(String)) {
    let title = "scale: tmpfs, any CPU";
    if !title.contains(&args.table) {
        return;
    }
    let servers: Vec<_> = SERVERS
        .into_iter()
        .filter_map(|server| match server {
            Server::Real(name, kind, []) => Some((name, setup(kind, &[], PLACES[0].1, args))),
            _ => None,
        })
        .take(if args.alone { 1 } else { usize::MAX })
        .collect();
    let each = |measure: fn(&Setup) -> f64| servers.iter().map(|(_, setup)| Some(measure(setup))).collect::<Vec<_>>();
    let mut lines = vec![
        Line { name: "start to listening, ms".into(), aim: Some(20.0), values: each(start) },
        Line { name: "start to a mounted guest, ms".into(), aim: None, values: each(mount) },
        Line { name: "resident memory of all processes, MiB".into(), aim: Some(8.0), values: each(resident) },
        Line { name: "the same, shared pages divided, MiB".into(), aim: Some(8.0), values: each(proportional) },
        Line { name: "wake-ups a second of an idle guest's server".into(), aim: Some(0.0), values: each(wakeups) },
    ];
    lines.extend(many(args.nodes, &servers));
    let names: Vec<_> = servers.iter().map(|(name, _)| *name).collect();
    let lines: Vec<_> = lines.iter().map(Line::to_string).collect();
    let dashes = "--:|".repeat(names.len() + 1);
    tell(format!("## {title}\n\n| | {} | aim |\n|---|{dashes}\n{}\n", names.join(" | "), lines.join("\n")));
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "| {} |", self.name)?;
        for value in &self.values {
            write!(f, " {} |", value.map_or_else(|| "–".into(), number))?;
        }
        match self.aim.zip(self.values[0]) {
            Some((aim, ours)) => write!(f, " ≤ {aim}: {} |", if ours <= aim { "yes" } else { "**no**" }),
            None => write!(f, " – |"),
        }
    }
}

/// Milliseconds from the start of the server until it can be connected to.
fn start(setup: &Setup) -> f64 {
    let time = |_| {
        let start = Instant::now();
        let server = setup.start();
        while UnixStream::connect(server.socket()).is_err() {
            sleep(Duration::from_micros(100));
        }
        start.elapsed().as_secs_f64() * 1e3
    };
    median((0..STARTS).map(time).collect())
}

/// The same until the guest's INIT is answered.
fn mount(setup: &Setup) -> f64 {
    let time = |_| {
        let start = Instant::now();
        let _share = setup.clone().serve();
        start.elapsed().as_secs_f64() * 1e3
    };
    median((0..STARTS).map(time).collect())
}

/// Without the guest's memory, MiB.
fn resident(setup: &Setup) -> f64 {
    idle_memory(setup, |pid| memory(pid, &["RssAnon:", "RssFile:"]))
}

/// The same, with what several processes share divided among them. proc_pid_smaps(5)
fn proportional(setup: &Setup) -> f64 {
    idle_memory(setup, |pid| {
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("alive");
        number_of(&smaps, "Pss_Anon:") + number_of(&smaps, "Pss_File:")
    })
}

/// Of all processes together, MiB.
fn idle_memory(setup: &Setup, kib: impl Fn(u32) -> u64) -> f64 {
    let share = setup.clone().serve();
    let family = cpu::family(share.server.child.id());
    family.into_iter().map(kib).sum::<u64>() as f64 / 1024.0
}

/// Fields of /proc/PID/status, KiB.
fn memory(pid: u32, fields: &[&str]) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("alive");
    fields.iter().map(|field| number_of(&status, field)).sum()
}

fn number_of(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}

/// Of all threads of all processes, while the guest asks nothing.
fn wakeups(setup: &Setup) -> f64 {
    let share = setup.clone().serve();
    share.host.write("asked for", b"");
    share.lookup("asked for").expect("planted");
    let family = cpu::family(share.server.child.id());
    sleep(Duration::from_secs(1));
    let before = switches(&family);
    sleep(WATCH);
    (switches(&family) - before) as f64 / WATCH.as_secs_f64()
}

/// How often their threads went to sleep.
fn switches(processes: &[u32]) -> u64 {
    let tasks = processes.iter().flat_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).expect("alive"));
    let status = tasks.map(|task| fs::read_to_string(task.expect("alive").path().join("status")).expect("alive"));
    status.map(|status| number_of(&status, "voluntary_ctxt_switches:")).sum()
}

/// What a guest costs that has looked up very many files.
fn many(nodes: u32, servers: &[(&str, Setup)]) -> [Line; 5] {
    let figures: Vec<_> = servers.iter().map(|(_, setup)| know(nodes, setup)).collect();
    let line = |name: &str, aim, value: fn(&Known) -> f64| {
        let values = figures.iter().map(|known| known.as_ref().map(value)).collect();
        Line { name: format!("{name}, {nodes} nodes"), aim, values }
    };
    [
        line("memory, bytes a node", Some(200.0), |known| known.memory),
        line("LOOKUP, µs, the first hundredth", None, |known| known.first),
        line("LOOKUP, µs, the last hundredth", None, |known| known.last),
        line("GETATTR of any, µs", None, |known| known.getattr),
        line("GETATTR of one, µs", None, |known| known.same),
    ]
}

/// Figures of a server that knows many nodes.
struct Known {
    memory: f64,
    first: f64,
    last: f64,
    getattr: f64,
    same: f64,
}

/// `None` if it does not get so far.
fn know(nodes: u32, setup: &Setup) -> Option<Known> {
    let share = setup.clone().serve();
    grow(&share.server.dir(), nodes);
    share.host.write("large", b"");
    let family = cpu::family(share.server.child.id());
    let used = || family.iter().map(|&pid| memory(pid, &["RssAnon:"])).sum::<u64>();
    let guest = Guest::new(&share, Waiting::Asleep, 1);
    let before = used();
    let (mut found, mut times) = (Vec::new(), Vec::new());
    let lookup = guest.prepare(&Request::new(opcode::LOOKUP, ROOT_ID).name(&name_of(0)).room::<EntryOut>());
    for dir in 0..nodes / PER_DIR {
        let dir = share.lookup(dir.to_string().as_str()).ok()?.nodeid;
        for file in 0..PER_DIR {
            lookup.node(dir);
            lookup.arg(0, name_of(file));
            let start = Instant::now();
            guest.call(&lookup).ok()?;
            times.push(start.elapsed().as_secs_f64() * 1e6);
            found.push(lookup.answer::<u64>(offset_of!(EntryOut, nodeid)));
        }
    }
    let memory = (used() - before) as f64 * 1024.0 / f64::from(nodes);
    let getattr = guest.prepare(&Request::new(opcode::GETATTR, 0).arg(&GetattrIn::default()).room::<AttrOut>());
    let ask = |node| {
        getattr.node(node);
        let start = Instant::now();
        guest.call(&getattr).expect("there");
        start.elapsed().as_secs_f64() * 1e6
    };
    let hundredth = times.len() / 100;
    // 7919 is a prime: neighbours are not asked for after each other.
    let any = (0..hundredth).map(|i| ask(found[i * 7919 % found.len()])).collect();
    let same = (0..hundredth).map(|_| ask(found[0])).collect();
    Some(Known {
        memory,
        first: median(times[..hundredth].into()),
        last: median(times[times.len() - hundredth..].into()),
        getattr: median(any),
        same: median(same),
    })
}

fn name_of(file: u32) -> [u8; 8] {
    format!("{file:08}").into_bytes().try_into().expect("eight digits")
}

fn grow(share: &Path, nodes: u32) {
    for dir in 0..nodes / PER_DIR {
        let dir = share.join(dir.to_string());
        fs::create_dir(&dir).expect("own directory");
        for file in 0..PER_DIR {
            fs::write(dir.join(format!("{file:08}")), b"").expect("own directory");
        }
    }
}
