//! The table, and what it was measured on.

use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::fs;
use std::process::Command;

use postern_tests::Kind;
use postern_tests::share::DISK;

use crate::workload::Unit;

/// What one operation took, seconds.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Until it was answered: the median, or on a stream the mean.
    pub time: f64,
    /// Of the server's processes: the mean.
    pub cpu: f64,
}

/// A workload by all servers, ours first.
pub struct Row {
    /// Of what.
    pub name: String,
    /// How it is told.
    pub unit: Unit,
    /// A sample for each server and round.
    pub samples: Vec<Vec<Sample>>,
}

impl Row {
    /// Without samples, for so many servers.
    pub fn new(name: impl Into<String>, unit: Unit, servers: usize) -> Self {
        Self { name: name.into(), unit, samples: vec![Vec::new(); servers] }
    }

    fn each(&self, field: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(|rounds| median(rounds.iter().map(&field).collect())).collect()
    }
}

impl Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (times, cpu) = (self.each(|sample| sample.time), self.each(|sample| sample.cpu));
        match self.unit {
            Unit::Micros => write!(f, "| {}, µs |", self.name)?,
            Unit::Rate(unit, _) => write!(f, "| {}, {unit} |", self.name)?,
        }
        for time in &times {
            match self.unit {
                Unit::Micros => write!(f, " {} |", number(time * 1e6))?,
                Unit::Rate(_, count) => write!(f, " {} |", number(1.0 / time / count))?,
            }
        }
        write!(f, " {} |", ratio(&times))?;
        cpu.iter().try_for_each(|cpu| write!(f, " {} |", number(cpu * 1e6)))?;
        write!(f, " {} |", ratio(&cpu))
    }
}

/// Ours to that of the better peer.
fn ratio(values: &[f64]) -> String {
    let (ours, peers) = values.split_first().expect("ours");
    let best = peers.iter().copied().reduce(f64::min);
    best.map_or_else(|| "–".into(), |best| format!("**{:.2}**", ours / best))
}

/// Three digits.
fn number(value: f64) -> String {
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$}")
}

/// The one in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The table of some rows.
pub fn table(title: &str, servers: &[&str], rows: &[Row]) -> String {
    let names = servers.join(" | ");
    let cpu: Vec<_> = servers.iter().map(|name| format!("CPU: {name}")).collect();
    let head = format!("| | {names} | ratio | {} | ratio |", cpu.join(" | "));
    let line = format!("|---|{}", "--:|".repeat(2 * servers.len() + 2));
    let rows: Vec<_> = rows.iter().map(Row::to_string).collect();
    format!("## {title}\n\n{head}\n{line}\n{}\n", rows.join("\n"))
}

/// What the figures mean, and the machine they are from.
pub fn conditions(rounds: usize) -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").expect("/proc");
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(": ").unwrap_or_default().1.to_owned()
    };
    let load = fs::read_to_string("/proc/loadavg").expect("/proc");
    let facts = [
        ("date", output("date", &["-u", "+%F %R UTC"])),
        ("commit", output("git", &["describe", "--always", "--dirty", "--exclude=*"])),
        ("kernel", output("uname", &["-srm"])),
        ("CPU", format!("{}, {} of them", field("model name"), cpuinfo.matches("processor\t").count())),
        ("machine", if field("flags").contains("hypervisor") { "virtual" } else { "physical" }.into()),
        ("load", load.split(' ').take(3).collect::<Vec<_>>().join(" ")),
        ("disk", output("findmnt", &["-no", "FSTYPE", "-T", DISK])),
        ("virtiofsd", output(Kind::Virtiofsd.program(), &["--version"])),
        ("C virtiofsd", output(Kind::CVirtiofsd.program(), &["--version"])),
        ("C helper", output("dpkg-query", &["-W", "-f", "${Package} ${Version}", "qemu-system-common"])),
        ("diod", output("dpkg-query", &["-W", "-f", "${Version}", "diod"])),
    ];
    let facts: Vec<_> = facts.iter().map(|(name, value)| format!("- {name}: {value}")).collect();
    format!(
        "# postern beside its peers\n\n\
         postern runs as root with a map of ids, its seccomp filters killing and Landlock on. Times and rates are medians \
         of all operations of a round (on streams means), and of {rounds} alternating rounds, between which all servers are started anew \
         in another order; `ratio` is postern's time to that of the \
         better peer: below 1, postern is faster. CPU is what all processes of the server spend on one operation, µs. \
         All data is in the page cache.\n\n\
         {}\n",
        facts.join("\n")
    )
}

/// The first line that a command prints.
fn output(program: impl AsRef<OsStr>, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown").to_owned()
}
