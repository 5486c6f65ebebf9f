//! Workloads of streams: 9P beside diod, and QEMU's proxy protocol beside QEMU's own helper.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use postern_server::p9::message::*;
use postern_server::p9::wire::{Put, Text};
use postern_tests::p9::frame;
use postern_tests::prelude::*;
use postern_tests::proxy::{Arg, kind};
use postern_tests::share::Scratch;

use crate::contestant::Shape;
use crate::report::{Aim, Columns, Row, Sample, table};
use crate::stream::{Answer, Client, Cycle, Exchange};
use crate::workload::{PAGE, Unit};
use crate::{Args, PLACES, cpu};

/// Who serves a stream.
pub struct Server {
    /// As the table names it.
    pub name: &'static str,
    /// The command that serves the first path on the second.
    command: fn(&Path, &Path) -> Command,
    /// What begins a connection to such a share.
    begin: fn(&Path) -> Vec<Exchange>,
}

/// A protocol, ours first of those who speak it.
pub struct Protocol {
    /// As the table names it.
    pub name: &'static str,
    /// Who speaks it.
    pub servers: &'static [Server],
    /// What is done.
    pub workloads: &'static [Workload],
}

/// A row of the table.
pub struct Workload {
    /// What is done.
    pub name: &'static str,
    /// What the one with this number does of all that are under way at once.
    task: fn(u16) -> Task,
}

/// Some requests again and again, and what comes before and after them.
struct Task {
    before: Vec<Exchange>,
    cycle: Cycle,
    after: Vec<Exchange>,
}

impl Task {
    /// With nothing before and after.
    fn of(cycle: Cycle) -> Self {
        Self { before: vec![], cycle, after: vec![] }
    }
}

/// How many requests are under way at once.
pub const DEPTHS: [u16; 2] = [1, 8];

/// All of them.
pub const PROTOCOLS: &[Protocol] = &[
    Protocol {
        name: "9P on a stream",
        servers: &[
            Server { name: "postern", command: postern_9p, begin: |_| mount(b"/") },
            Server { name: "diod", command: diod, begin: |dir| mount(dir.as_os_str().as_bytes()) },
        ],
        workloads: &[
            Workload {
                name: "walk of three names, clunk",
                task: |n| Task::of(vec![p9(n, &walk(n, &[b"a", b"b", b"small"])), p9(n, &clunk(n))]),
            },
            Workload {
                name: "getattr",
                task: |n| Task {
                    before: vec![p9(n, &walk(n, &[b"small"]))],
                    cycle: vec![p9(n, &Tgetattr { fid: fid(n), request_mask: 0x7ff })],
                    after: vec![p9(n, &clunk(n))],
                },
            },
            Workload {
                name: "create, remove",
                task: |n| {
                    let name = format!("new{n}").into_bytes();
                    let flags = (O_RDWR | O_CREAT | O_EXCL) as u32;
                    let create = Tlcreate { fid: fid(n), name: Text(&name), flags, mode: 0o644, gid: 0 };
                    // diod has no Tunlinkat.
                    Task::of(vec![p9(n, &walk(n, &[])), p9(n, &create), p9(n, &Tremove { fid: fid(n) })])
                },
            },
            Workload {
                name: "open, read 4 KiB, clunk",
                task: |n| {
                    Task::of(vec![p9(n, &walk(n, &[b"small"])), p9(n, &open(n)), p9(n, &read(n)), p9(n, &clunk(n))])
                },
            },
            Workload {
                name: "read 4 KiB",
                task: |n| Task {
                    before: vec![p9(n, &walk(n, &[b"small"])), p9(n, &open(n))],
                    cycle: vec![p9(n, &read(n))],
                    after: vec![p9(n, &clunk(n))],
                },
            },
        ],
    },
    Protocol {
        name: "proxy protocol",
        servers: &[
            Server { name: "postern", command: postern_proxy, begin: |_| first_stat() },
            Server { name: "C helper", command: c_helper, begin: |_| first_stat() },
        ],
        workloads: &[
            Workload {
                name: "LSTAT below three directories",
                task: |_| Task::of(vec![proxy(kind::LSTAT, &[Arg::S(b"//a/b/small")])]),
            },
            Workload { name: "LSTAT", task: |_| Task::of(vec![proxy(kind::LSTAT, &[Arg::S(b"//small")])]) },
            Workload {
                name: "CREATE, REMOVE",
                task: |n| {
                    let path = format!("//new{n}").into_bytes();
                    let flags = (O_RDWR | O_CREAT | O_EXCL) as u32;
                    let create = [Arg::S(&path), Arg::D(flags), Arg::D(0o644), Arg::D(0), Arg::D(0)];
                    let create = Exchange { answer: Answer::Descriptor, ..proxy(kind::CREATE, &create) };
                    Task::of(vec![create, proxy(kind::REMOVE, &[Arg::S(&path)])])
                },
            },
            Workload {
                name: "OPEN",
                task: |_| {
                    let open = proxy(kind::OPEN, &[Arg::S(b"//small"), Arg::D(O_RDONLY as u32)]);
                    Task::of(vec![Exchange { answer: Answer::Descriptor, ..open }])
                },
            },
            Workload {
                name: "CHMOD",
                task: |_| Task::of(vec![proxy(kind::CHMOD, &[Arg::S(b"//small"), Arg::D(0o644)])]),
            },
        ],
    },
];

fn mount(aname: &[u8]) -> Vec<Exchange> {
    let version = Tversion { msize: 65_536, version: Text(b"9P2000.L") };
    let attach = Tattach { fid: 0, afid: NOFID, uname: Text(b"root"), aname: Text(aname), n_uname: 0 };
    vec![p9(NOTAG, &version), p9(0, &attach)]
}

/// When it is answered, all processes of the server are there.
fn first_stat() -> Vec<Exchange> {
    vec![proxy(kind::LSTAT, &[Arg::S(b"/")])]
}

fn p9<T: Message + Put>(tag: u16, message: &T) -> Exchange {
    Exchange { request: frame(message, tag, 0), answer: Answer::P9 }
}

fn fid(n: u16) -> u32 {
    u32::from(n) + 1
}

fn walk<'a>(n: u16, names: &[&'a [u8]]) -> Twalk<'a> {
    Twalk { fid: 0, newfid: fid(n), names: names.iter().map(|name| Text(name)).collect() }
}

fn open(n: u16) -> Tlopen {
    Tlopen { fid: fid(n), flags: O_RDONLY as u32 }
}

fn read(n: u16) -> Tread {
    Tread { fid: fid(n), offset: 0, count: PAGE }
}

fn clunk(n: u16) -> Tclunk {
    Tclunk { fid: fid(n) }
}

fn proxy(kind: u32, args: &[Arg<'_>]) -> Exchange {
    let payload: Vec<u8> = args.iter().flat_map(|arg| arg.bytes()).collect();
    let size = u32::try_from(payload.len()).expect("small");
    Exchange { request: [&kind.to_ne_bytes()[..], &size.to_ne_bytes(), &payload].concat(), answer: Answer::Proxy }
}

/// As root with a map, as the tables of virtio-fs have it.
fn postern(frontend: &str, dir: &Path) -> Command {
    let mut command = Command::new(Kind::Mapped.program());
    command.args([frontend, "--shared-dir"]).arg(dir).args(Kind::Mapped.identity());
    command
}

fn postern_9p(dir: &Path, socket: &Path) -> Command {
    let mut command = postern("9p", dir);
    command.arg("--trust-client").arg(format!("--listen=unix:{}", socket.display()));
    command
}

fn postern_proxy(dir: &Path, socket: &Path) -> Command {
    let mut command = postern("proxy", dir);
    command.arg("--socket-path").arg(socket);
    command
}

fn diod(dir: &Path, socket: &Path) -> Command {
    let mut command = Command::new("/usr/sbin/diod");
    command.args(["-f", "-n", "-c", "/dev/null", "-L", "stderr", "-l"]).arg(socket).arg("-e").arg(dir);
    command
}

fn c_helper(dir: &Path, socket: &Path) -> Command {
    let mut command = Command::new("/usr/lib/qemu/virtfs-proxy-helper");
    command.args(["-n", "-u", "0", "-g", "0", "-s"]).arg(socket).arg("-p").arg(dir);
    command
}

/// A server with its tree and the connection to it.
pub struct Contestant {
    client: Client,
    processes: Vec<u32>,
    child: Child,
    _scratch: Scratch,
}

impl Contestant {
    /// Starts it in `place` on one CPU, and goes to another.
    pub fn start(server: &Server, place: &'static str, cpus: (Option<usize>, Option<usize>)) -> Self {
        let scratch = Scratch::below(place, Kind::Mapped, false);
        let host = Host::new(scratch.path("share"), Kind::Mapped);
        host.mkdir("a");
        host.mkdir("a/b");
        for file in ["small", "a/b/small"] {
            host.write(file, &[1; PAGE as usize]);
            host.chmod(file, 0o666);
        }
        cpu::stay(cpus.0);
        let child = scratch.spawn((server.command)(&scratch.path("share"), &scratch.path("socket")), Kind::Mapped);
        let mut client = Client::connect(&scratch.path("socket"));
        client.once(&(server.begin)(&scratch.path("share")));
        cpu::stay(cpus.1);
        Self { client, processes: cpu::family(child.id()), child, _scratch: scratch }
    }

    /// Does a workload for a while, with so many requests under way.
    pub fn measure(&mut self, workload: &Workload, depth: u16, slice: Duration) -> Sample {
        let (mut cycles, mut after) = (Vec::new(), Vec::new());
        for task in (0..depth).map(workload.task) {
            self.client.once(&task.before);
            cycles.push(task.cycle);
            after.extend(task.after);
        }
        self.client.repeat(&cycles, slice / 10);
        let (start, spent) = (Instant::now(), cpu::spent(&self.processes));
        let count = f64::from(self.client.repeat(&cycles, slice));
        let (time, cpu) = (start.elapsed(), cpu::spent(&self.processes) - spent);
        self.client.once(&after);
        Sample { time: time.as_secs_f64() / count, cpu: cpu.as_secs_f64() / count }
    }
}

impl Drop for Contestant {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All tables.
pub fn run(args: &Args, tell: &mut impl FnMut(String)) {
    for (place, dir) in PLACES {
        for (mode, Shape { server, client, .. }) in ["one CPU", "two CPUs"].into_iter().zip(Shape::both()) {
            for protocol in PROTOCOLS {
                let title = format!("{}: {place}, {mode}", protocol.name);
                if title.contains(&args.table) {
                    tell(compare(protocol, &title, dir, (server, client), args));
                }
            }
        }
    }
}

/// The table of a protocol: all servers take turns.
fn compare(
    protocol: &Protocol,
    title: &str,
    place: &'static str,
    cpus: (Option<usize>, Option<usize>),
    args: &Args,
) -> String {
    let servers = if args.alone { &protocol.servers[..1] } else { protocol.servers };
    let columns = Columns { servers: servers.iter().map(|server| server.name).collect(), floor: false };
    let workloads = protocol.workloads.iter().filter(|row| args.wants(row.name));
    let mut rows: Vec<_> = workloads
        .flat_map(|workload| DEPTHS.map(|depth| (workload, depth)))
        .map(|(workload, depth)| {
            let name = if depth == 1 { workload.name.into() } else { format!("{}, {depth} at once", workload.name) };
            (workload, depth, Row::new(name, Unit::Rate("k/s", 1000.0), Aim::default(), servers.len()))
        })
        .collect();
    for start in 0..servers.len() {
        let order = (0..servers.len()).map(|turn| (start + turn) % servers.len());
        let mut contestants: Vec<_> = order.map(|who| (who, Contestant::start(&servers[who], place, cpus))).collect();
        for _ in 0..args.rounds(servers.len()) {
            for (workload, depth, row) in &mut rows {
                for (who, contestant) in &mut contestants {
                    row.samples[*who].push(contestant.measure(workload, *depth, args.slice()));
                }
            }
        }
    }
    let rows: Vec<_> = rows.into_iter().map(|(_, _, row)| row).collect();
    table(title, &columns, &rows)
}
