//! postern beside its peers: what one request costs, in one run, on the same client and trees of the same shape. On
//! vrings beside virtiofsd and QEMU's C virtiofsd, on streams beside diod and QEMU's virtfs-proxy-helper.
//!
//! Nothing here is asserted: figures are for reading. `tests/bench` builds what is measured and runs this.

mod allocations;
mod calls;
mod conditions;
mod contestant;
mod cpu;
mod files;
mod floor;
mod guest;
mod names;
mod pipeline;
mod plot;
mod plots;
mod real;
mod report;
mod requests;
mod scale;
mod stream;
mod streams;
mod tagged;
mod vhost_user;
mod workload;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use postern_tests::share::DISK;

use conditions::Conditions;

/// Measures postern beside virtiofsd and QEMU's C virtiofsd
#[derive(Parser)]
#[command(name = "tests/bench")]
struct Args {
    /// Only these sections
    #[arg(value_name = "SECTION")]
    sections: Vec<Section>,
    /// Only workloads whose names contain one of these
    #[arg(long, value_name = "WORKLOAD")]
    only: Vec<String>,
    /// Rounds, in each of which all servers take turns; each server is once the first to be started
    #[arg(long, value_name = "N", default_value_t = 10)]
    rounds: usize,
    /// Milliseconds that a server has for a workload in a round
    #[arg(long, value_name = "MS", default_value_t = 50)]
    slice: u64,
    /// Files that a guest looks up
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    nodes: u32,
    /// Rounds of real work in a guest, in each of which all servers take turns
    #[arg(long, value_name = "N", default_value_t = 3)]
    guest_rounds: usize,
    /// A source tree that a guest works with, a tar file; by default a kernel's and busybox's, which all servers can
    /// hold
    #[arg(long, value_name = "FILE", default_values = TREES, value_parser = whole_path)]
    tree: Vec<PathBuf>,
    /// Only tables whose titles contain this
    #[arg(long, value_name = "TITLE", default_value = "")]
    table: String,
    /// Only postern and the floor
    #[arg(long)]
    alone: bool,
    /// One more argument for postern, such as --with=--seccomp=none
    #[arg(long, value_name = "ARGUMENT")]
    with: Vec<String>,
    /// Write the figures to tests/benches/RESULTS.md in place of those there, and the plots beside it
    #[arg(long, conflicts_with_all = ["only", "table", "alone", "with"])]
    record: bool,
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn wants(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| workload.contains(part))
    }

    fn slice(&self) -> Duration {
        Duration::from_millis(self.slice)
    }

    /// Writes a plot: to the figures if they are recorded.
    fn keep(&self, name: &str, svg: &str) {
        let dir = if self.record { FIGURES } else { env!("CARGO_TARGET_TMPDIR") };
        let file = Path::new(dir).join(name).with_extension("svg");
        fs::write(&file, svg).expect("own tree");
        println!("plotted in {}", file.display());
    }

    /// Rounds between one start of so many servers and the next.
    fn rounds(&self, servers: usize) -> usize {
        self.rounds.div_ceil(servers)
    }
}

/// The benchmark does not run where it was called.
fn whole_path(path: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(path);
    if path.is_absolute() { Ok(path) } else { Err("its whole path is needed".into()) }
}

/// A part of the run.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    /// What each request of virtio-fs costs
    Requests,
    /// How many requests are answered when several are under way
    Depth,
    /// How often memory is taken from the heap
    Allocations,
    /// What an idle share costs, and one of which a guest knows much
    Scale,
    /// Real work in a real guest
    Guest,
    /// 9P and QEMU's proxy protocol on streams
    Streams,
}

/// Where figures are kept.
const FIGURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches");

/// What a guest works with.
const TREES: [&str; 2] = [
    concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/linux.tar"),
    concat!(env!("CARGO_MANIFEST_DIR"), "/.cache/uml/busybox.tar"),
];

/// Where the shares are.
const PLACES: [(&str, &str); 2] = [("tmpfs", "/dev/shm"), ("disk", DISK)];

fn main() {
    if floor::is_meant() {
        return floor::serve();
    }
    let args = Args::parse();
    LazyLock::force(&cpu::ALLOWED); // before anything is pinned
    let conditions = Conditions::now();
    println!("{conditions}");
    let mut tables = Vec::new();
    let mut tell = |table: String| {
        println!("\n{table}");
        tables.push(table);
    };
    for section in Section::value_variants() {
        if args.sections.is_empty() || args.sections.contains(section) {
            cpu::stay(None);
            match section {
                Section::Requests => requests::run(&args, &mut tell),
                Section::Depth => requests::depth(&args, &mut tell),
                Section::Allocations => allocations::run(&args, &mut tell),
                Section::Scale => scale::run(&args, &mut tell),
                Section::Guest => real::run(&args, &mut tell),
                Section::Streams => streams::run(&args, &mut tell),
            }
        }
    }
    let during = conditions.during();
    println!("\n{during}");
    if args.record {
        let text = format!("{}\n{conditions}{during}\n\n{}", conditions::HEAD, tables.join("\n"));
        fs::write(Path::new(FIGURES).join("RESULTS.md"), text).expect("own tree");
    }
}
