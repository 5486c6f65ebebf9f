//! How often the server and its helper take memory from the heap while they answer.
//!
//! The kernel counts: a probe at the entry of each of the C library's functions that give memory, in a trace buffer of
//! our own that sees these processes alone. Needs root and tracefs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::contestant::{Contestant, SERVERS, Shape};
use crate::report::number;
use crate::workload::WORKLOADS;
use crate::{Args, PLACES};

const TRACING: &str = "/sys/kernel/tracing";
/// What gives memory. malloc(3), posix_memalign(3)
const FUNCTIONS: [&str; 5] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"];
/// Operations before, and those that are watched, or a few more.
const OPERATIONS: u32 = 2000;
/// Where probes are made.
const PROBES: &str = "uprobe_events";
/// Our own source.
const OWN: [&str; 4] = ["/server/src/", "/helper/src/", "/ipc/src/", "/policy/src/"];
/// Words of the stack that are looked at for return addresses.
const WORDS: usize = 40;

/// The table, and from where memory was taken.
pub fn run(args: &Args, tell: &mut impl FnMut(String)) {
    let title = "allocations per operation: tmpfs, one CPU, sleeping guest";
    if !title.contains(&args.table) {
        return;
    }
    if !Path::new(TRACING).join(PROBES).exists() {
        return tell(format!("## {title}\n\nNot counted: this kernel has no {TRACING}/{PROBES}.\n"));
    }
    let [shape, _] = Shape::both();
    let mut table = format!("## {title}\n\n| | server | helper | from |\n|---|--:|--:|---|\n");
    for queues in [1, 4] {
        let contestant = Contestant::start(SERVERS[0], PLACES[0].1, shape, queues, args);
        let guest = contestant.guest(shape.waiting);
        let probes = Probes::set(&contestant.processes);
        for workload in WORKLOADS.iter().filter(|row| row.queues == queues && args.wants(row.name)) {
            let mut step = (workload.start)(&guest);
            let mut work = || {
                let mut done = 0;
                while done < OPERATIONS {
                    done += step();
                }
                done
            };
            work();
            let (done, taken) = probes.watch(work);
            let per = |who: &dyn Fn(u32) -> bool| {
                let count = taken.iter().filter(|taken| who(taken.pid)).count();
                number(count as f64 / f64::from(done))
            };
            let server = contestant.processes[0];
            let (own, helpers) = (per(&|pid| pid == server), per(&|pid| pid != server));
            table += &format!("| {} | {own} | {helpers} | {} |\n", workload.name, origins(&taken, done));
        }
    }
    tell(table);
}

/// Memory that was given to somebody.
struct Taken {
    /// The process.
    pid: u32,
    /// What its stack looks like.
    stack: Vec<u64>,
}

/// Probes that are there as long as this value.
struct Probes {
    /// Their group, and the name of our buffer: of this process alone.
    name: String,
    buffer: PathBuf,
    /// Process of each thread.
    threads: BTreeMap<u32, u32>,
}

impl Probes {
    fn set(processes: &[u32]) -> Self {
        let name = format!("postern_bench_{}", std::process::id());
        let library = library();
        let symbols = command("nm", &["-D", "--defined-only", &library]);
        let stack: Vec<_> = (0..WORDS).map(|word| format!("s{word}=$stack{word}:x64")).collect();
        for function in FUNCTIONS {
            let address = symbols.lines().find_map(|line| {
                let [address, _, name] = line.split(' ').collect::<Vec<_>>()[..] else { return None };
                (name.split('@').next() == Some(function)).then_some(address)
            });
            let address = address.expect("a function of the C library");
            order(
                Path::new(TRACING),
                PROBES,
                &format!("p:{name}/{function} {library}:0x{address} {}", stack.join(" ")),
            );
        }
        let buffer = Path::new(TRACING).join("instances").join(&name);
        fs::create_dir(&buffer).expect("a trace buffer: root, and tracefs");
        let task = |&pid: &u32| {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("alive");
            tasks.map(move |task| (task.expect("alive").file_name().to_string_lossy().parse().expect("a number"), pid))
        };
        let threads: BTreeMap<_, _> = processes.iter().flat_map(task).collect();
        let list: Vec<_> = threads.keys().map(u32::to_string).collect();
        order(&buffer, "set_event_pid", &list.join(" "));
        order(&buffer, "buffer_size_kb", "32768");
        order(&buffer, "trace_clock", "global");
        Self { name, buffer, threads }
    }

    /// What is taken meanwhile.
    fn watch<T>(&self, work: impl FnOnce() -> T) -> (T, Vec<Taken>) {
        let enable = format!("events/{}/enable", self.name);
        fs::File::create(self.buffer.join("trace")).expect("ours"); // empties it
        order(&self.buffer, &enable, "1");
        let done = work();
        order(&self.buffer, &enable, "0");
        let trace = fs::read_to_string(self.buffer.join("trace")).expect("ours");
        let lines = trace.lines().filter(|line| !line.starts_with('#'));
        (done, lines.map(|line| self.taken(line)).collect())
    }

    /// `NAME-TID [CPU] FLAGS TIME: FUNCTION: (ADDRESS) s0=0x... s1=0x...`
    fn taken(&self, line: &str) -> Taken {
        let (task, rest) = line.split_once(" [").expect("a CPU");
        let thread = task.rsplit_once('-').expect("a thread").1.trim().parse().expect("a number");
        let words = rest.split_whitespace().filter_map(|word| word.split_once("=0x"));
        let stack = words.map(|(_, word)| u64::from_str_radix(word, 16).expect("a number")).collect();
        Taken { pid: self.threads[&thread], stack }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.buffer);
        for function in FUNCTIONS {
            order(Path::new(TRACING), PROBES, &format!("-:{}/{function}", self.name));
        }
    }
}

/// Lines of our own source that memory was taken from, each with how often in an operation.
fn origins(taken: &[Taken], operations: u32) -> String {
    let images: BTreeMap<_, _> = taken.iter().map(|taken| (taken.pid, Image::of(taken.pid))).collect();
    let mut counts = BTreeMap::<String, u32>::new();
    let mut known = BTreeMap::new();
    for Taken { pid, stack } in taken {
        let image = &images[pid];
        let callers = stack.iter().filter(|word| image.text.contains(word));
        let mut lines = callers.map(|word| known.entry((*pid, *word)).or_insert_with(|| image.line(*word)).clone());
        *counts.entry(lines.find_map(|line| line).unwrap_or_else(|| "elsewhere".into())).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().filter(|(_, count)| *count > operations / 100).collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let per = |count: u32| number(f64::from(count) / f64::from(operations));
    counts.iter().map(|(line, count)| format!("{line} ({})", per(*count))).collect::<Vec<_>>().join(", ")
}

/// A program in memory.
struct Image {
    program: PathBuf,
    /// Where its code is.
    text: Range<u64>,
    /// Where its first byte is.
    base: u64,
}

impl Image {
    fn of(pid: u32) -> Self {
        let program = fs::read_link(format!("/proc/{pid}/exe")).expect("alive");
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("alive");
        let own = maps.lines().filter(|line| line.ends_with(&*program.to_string_lossy()));
        let ranges: Vec<_> = own
            .map(|line| {
                let (range, rest) = line.split_once(' ').expect("proc_pid_maps(5)");
                let (start, end) = range.split_once('-').expect("proc_pid_maps(5)");
                let number = |word| u64::from_str_radix(word, 16).expect("a number");
                (number(start)..number(end), rest.starts_with("r-x"))
            })
            .collect();
        let text = ranges.iter().find(|(_, code)| *code).expect("code").0.clone();
        Self { program, text, base: ranges[0].0.start }
    }

    /// Our own line that called from there, if it is one.
    fn line(&self, address: u64) -> Option<String> {
        let before = format!("{:#x}", address - self.base - 1);
        let frames = command("addr2line", &["-i", "-e", &self.program.to_string_lossy(), &before]);
        let own = |line: &str| {
            let at = OWN.iter().find_map(|part| line.find(part))?;
            Some(line[at..].split(' ').next().expect("a word").trim_start_matches('/').to_owned())
        };
        frames.lines().find_map(own)
    }
}

/// The C library that programs here are linked with.
fn library() -> String {
    let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
    let path = maps.lines().filter_map(|line| line.split_whitespace().last()).find(|path| path.contains("/libc.so"));
    path.expect("a C library that is shared").into()
}

fn command(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    String::from_utf8(output.stdout).expect("text")
}

/// Tells the kernel's tracer something.
fn order(dir: &Path, file: &str, what: &str) {
    let mut file =
        fs::OpenOptions::new().write(true).append(file == PROBES).open(dir.join(file)).expect("root, and tracefs");
    file.write_all(what.as_bytes()).unwrap_or_else(|e| panic!("{what}: {e}"));
}
