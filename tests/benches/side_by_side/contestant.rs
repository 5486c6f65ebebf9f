//! Who is measured: a server with its tree, and the client that asks it.

use std::time::{Duration, Instant};

use postern_tests::share::Setup;
use postern_tests::{Kind, Process, Share};

use crate::guest::{Guest, Waiting};
use crate::report::{Sample, median};
use crate::workload::{Step, Workload, plant};
use crate::{Args, cpu, floor};

/// Who serves virtio-fs.
#[derive(Clone, Copy)]
pub enum Server {
    /// One of those that serve directories, with these arguments.
    Real(&'static str, Kind, &'static [&'static str]),
    /// An empty server with an empty helper.
    Floor,
}

/// Ours, and the peers.
pub const SERVERS: [Server; 4] = [
    Server::Real("postern", Kind::Mapped, &[]),
    Server::Real("virtiofsd", Kind::Virtiofsd, &[]),
    Server::Real("virtiofsd, pool of 4", Kind::Virtiofsd, &["--thread-pool-size=4"]),
    Server::Real("C virtiofsd", Kind::CVirtiofsd, &[]),
];

/// What a client and a server stand on.
#[derive(Clone, Copy)]
pub struct Shape {
    /// As the table names it.
    pub name: &'static str,
    /// Where the server runs; the kernel chooses if nothing is said.
    pub server: Option<usize>,
    /// Where the client runs.
    pub client: Option<usize>,
    /// What the client does meanwhile.
    pub waiting: Waiting,
}

impl Shape {
    /// Both, on the CPUs that there are.
    pub fn both() -> [Self; 2] {
        let [first, second, ..] = cpu::ALLOWED[..] else { panic!("two CPUs are needed") };
        let shape = |name, server, waiting| Self { name, server: Some(server), client: Some(first), waiting };
        [
            shape("one CPU, sleeping guest", first, Waiting::Asleep),
            shape("two CPUs, polling guest", second, Waiting::Polling),
        ]
    }

    /// Nobody is told where to run.
    pub const FREE: Self =
        Self { name: "any CPU, sleeping guest", server: None, client: None, waiting: Waiting::Asleep };
}

/// A server below `place` with its own arguments, and postern with those that it is to be measured with.
pub fn setup(kind: Kind, own: &[&str], place: &'static str, args: &Args) -> Setup {
    let given = args.with.iter().filter(|_| kind.is_postern()).map(String::as_str);
    own.iter().copied().chain(given).fold(kind.setup().below(place), |setup, arg| setup.arg(arg))
}

/// A server with its tree.
pub struct Contestant {
    /// The root of the guest.
    pub process: Process,
    /// All of the server.
    pub processes: Vec<u32>,
    /// How many request queues it serves.
    queues: usize,
    _running: Running,
}

#[expect(dead_code, reason = "ends when it is dropped")]
enum Running {
    Real(Box<Share>),
    Floor(floor::Floor),
}

impl Contestant {
    /// Starts it below `place` on one CPU, and goes to another.
    pub fn start(server: Server, place: &'static str, shape: Shape, queues: usize, args: &Args) -> Self {
        cpu::stay(shape.server);
        let contestant = match server {
            Server::Real(_, kind, own) => {
                let setup = setup(kind, own, place, args);
                let queues = if kind.is_postern() { queues } else { 1 };
                let share = if queues == 1 { setup } else { setup.queues(queues) }.serve();
                plant(&share.host);
                let processes = cpu::family(share.server.child.id());
                Self { process: Process::clone(&share), processes, queues, _running: Running::Real(Box::new(share)) }
            }
            Server::Floor => {
                let floor = floor::Floor::start(shape.waiting);
                let process = floor.mount();
                let processes = cpu::family(floor.pid());
                Self { process, processes, queues: 1, _running: Running::Floor(floor) }
            }
        };
        cpu::stay(shape.client);
        contestant
    }

    /// A guest that asks it.
    pub fn guest(&self, waiting: Waiting) -> Guest<'_> {
        Guest::new(&self.process, waiting, self.queues)
    }

    /// Does a workload for a while; also gives what each operation took.
    pub fn measure(&self, guest: &Guest<'_>, workload: &Workload, slice: Duration) -> (Sample, Vec<f32>) {
        let mut step = (workload.start)(guest);
        repeat(&mut step, slice / 10);
        let spent = cpu::spent(&self.processes);
        let (times, count) = repeat(&mut step, slice);
        let cpu = (cpu::spent(&self.processes) - spent).as_secs_f64() / f64::from(count);
        let each = times.iter().map(|&time| time as f32).collect();
        (Sample { time: median(times), cpu }, each)
    }
}

/// Takes steps for a while: what an operation took in each, seconds, and how many they were.
pub fn repeat(step: &mut Step<'_>, slice: Duration) -> (Vec<f64>, u32) {
    let (mut times, mut count) = (Vec::new(), 0);
    let start = Instant::now();
    while times.is_empty() || start.elapsed() < slice {
        let start = Instant::now();
        let done = step();
        times.push(start.elapsed().as_secs_f64() / f64::from(done));
        count += done;
    }
    (times, count)
}
