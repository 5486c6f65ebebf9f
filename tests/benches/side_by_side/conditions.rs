//! The machine that figures are from, and what else it did meanwhile.

use std::ffi::OsStr;
use std::fmt::{self, Display};
use std::fs;
use std::process::Command;

use postern_tests::Kind;
use postern_tests::share::DISK;

/// What the figures mean.
pub const HEAD: &str = "\
# postern beside its peers

postern runs as root with a map of ids, its seccomp filters killing and Landlock on. Times and rates are medians of all \
operations of a round (on streams means), and of alternating rounds, between which all servers are started anew in \
another order. `ratio` is postern's time to that of the better peer: below 1, postern is faster; for a rate, too. \
`spread` is half the distance between the quartiles of the rounds' ratios. CPU is what all processes of the server spend \
on one operation, µs, or in a real guest on the whole work, s. All data is in the page cache.

`floor` is an empty server with an empty helper: they answer the same requests with made-up answers, without a file \
system; what a request needs of the helper goes through a channel as postern's, with a descriptor where a file is \
opened, and file data is copied once. \
`to floor` is postern's time to that. `aim` says \"yes\" where the ratio is reached, \"floor\" where postern is within \
15 % of the floor instead.

`calls` is what the kernel takes for the same work, when a process of the host does it by itself. `least` is the ratio at \
which a server would be that does nothing but these calls on top of what the floor does (where file data is moved: \
what takes longer of the two). An aim below it takes answering from what is remembered, as postern does where there is \
no such figure, or a cheaper way between server and helper.
";

/// The machine.
pub struct Conditions {
    facts: Vec<(&'static str, String)>,
    spent: Spent,
}

impl Conditions {
    /// As it is.
    pub fn now() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").expect("/proc");
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(": ").unwrap_or_default().1.to_owned()
        };
        let facts = vec![
            ("date", output("date", &["-u", "+%F %R UTC"])),
            ("commit", output("git", &["describe", "--always", "--dirty", "--exclude=*"])),
            ("kernel", output("uname", &["-srm"])),
            ("CPU", format!("{}, {} of them", field("model name"), cpuinfo.matches("processor\t").count())),
            ("governor", governor()),
            ("mitigations", mitigations()),
            ("machine", if field("flags").contains("hypervisor") { "virtual" } else { "physical" }.into()),
            ("load before", load()),
            ("disk", output("findmnt", &["-no", "FSTYPE", "-T", DISK])),
            ("virtiofsd", output(Kind::Virtiofsd.program(), &["--version"])),
            ("C virtiofsd", output(Kind::CVirtiofsd.program(), &["--version"])),
            ("C helper", output("dpkg-query", &["-W", "-f", "${Package} ${Version}", "qemu-system-common"])),
            ("diod", output("dpkg-query", &["-W", "-f", "${Version}", "diod"])),
        ];
        Self { facts, spent: Spent::now() }
    }

    /// What the machine did since.
    pub fn during(&self) -> String {
        let Spent { all, steal } = Spent::now();
        let stolen = (steal - self.spent.steal) / (all - self.spent.all).max(1.0);
        format!("- load after: {}\n- stolen by the hypervisor meanwhile: {:.1} %", load(), stolen * 100.0)
    }
}

impl Display for Conditions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.facts.iter().try_for_each(|(name, value)| writeln!(f, "- {name}: {value}"))
    }
}

/// CPU time of the whole machine since it started, ticks. proc_stat(5)
struct Spent {
    all: f64,
    steal: f64,
}

impl Spent {
    fn now() -> Self {
        let stat = fs::read_to_string("/proc/stat").expect("/proc");
        let line = stat.lines().next().expect("cpu");
        let ticks: Vec<f64> = line.split_whitespace().skip(1).map(|ticks| ticks.parse().expect("a number")).collect();
        // The last two are contained in the first two.
        Self { all: ticks[..8].iter().sum(), steal: ticks[7] }
    }
}

fn load() -> String {
    let load = fs::read_to_string("/proc/loadavg").expect("/proc");
    load.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn governor() -> String {
    let governor = fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    governor.map_or_else(|_| "not ours to say".into(), |name| name.trim().into())
}

/// Those in force.
fn mitigations() -> String {
    let files = fs::read_dir("/sys/devices/system/cpu/vulnerabilities").expect("/sys");
    let mut found: Vec<_> = files
        .map(|file| file.expect("/sys"))
        .filter_map(|file| {
            let text = fs::read_to_string(file.path()).expect("/sys");
            let how = text.trim().strip_prefix("Mitigation: ")?.to_owned();
            Some(format!("{} ({how})", file.file_name().display()))
        })
        .collect();
    found.sort();
    found.join(", ")
}

/// The first line that a command prints.
fn output(program: impl AsRef<OsStr>, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&output).lines().next().unwrap_or("unknown").to_owned()
}
