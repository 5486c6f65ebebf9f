//! Tables, and what is read from them.

use std::fmt::Write as _;

use crate::workload::Unit;

/// Not more than this above the floor counts as being there.
const NEAR: f64 = 1.15;

/// What one operation took, seconds.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Until it was answered: the median, or on a stream the mean.
    pub time: f64,
    /// Of the server's processes: the mean.
    pub cpu: f64,
}

impl Sample {
    /// Of what was not brought about.
    pub const NEVER: Self = Self { time: f64::INFINITY, cpu: f64::INFINITY };
}

/// Ratios to be reached, if any is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Aim {
    /// Of times.
    pub time: Option<f64>,
    /// Of CPU.
    pub cpu: Option<f64>,
}

/// Who has a column.
#[derive(Clone, Debug)]
pub struct Columns {
    /// Ours, then the peers.
    pub servers: Vec<&'static str>,
    /// Whether the floor stands behind them.
    pub floor: bool,
}

impl Columns {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.servers.len() + usize::from(self.floor)
    }

    /// What stands above them.
    pub fn names(&self) -> Vec<&'static str> {
        self.servers.iter().copied().chain(self.floor.then_some("floor")).collect()
    }
}

/// A workload by all who have a column.
pub struct Row {
    /// Of what.
    pub name: String,
    /// How it is told.
    pub unit: Unit,
    /// What is to be reached.
    pub aim: Aim,
    /// A sample for each column and round.
    pub samples: Vec<Vec<Sample>>,
    /// What single operations took, for each column, seconds; none on a stream.
    pub times: Vec<Vec<f32>>,
    /// What the kernel's calls took alone, for each round, seconds.
    pub calls: Vec<f64>,
    /// [`crate::calls::Calls::moves_data`]
    pub moves_data: bool,
}

impl Row {
    /// Without samples, for so many columns.
    pub fn new(name: impl Into<String>, unit: Unit, aim: Aim, columns: usize) -> Self {
        let (samples, times) = (vec![Vec::new(); columns], vec![Vec::new(); columns]);
        Self { name: name.into(), unit, aim, samples, times, calls: Vec::new(), moves_data: false }
    }

    /// Each column's median of the rounds.
    pub fn medians(&self, field: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples.iter().map(|rounds| median(rounds.iter().map(&field).collect())).collect()
    }

    /// Ours to that of the better peer, if there is one among the first so many.
    pub fn ratio(&self, servers: usize) -> Option<f64> {
        to_best(&self.medians(|sample| sample.time)[..servers])
    }

    fn line(&self, columns: &Columns) -> String {
        let (times, cpu) = (self.medians(|sample| sample.time), self.medians(|sample| sample.cpu));
        let mut line = format!("| {}, {} |", self.name, self.unit.name());
        times.iter().for_each(|time| write!(line, " {} |", number(self.unit.of(*time))).expect("a string"));
        let servers = columns.servers.len();
        let floor = columns.floor.then(|| times[servers]);
        if let Some(floor) = floor {
            let calls = (!self.calls.is_empty()).then(|| median(self.calls.clone()));
            let least = calls.map(|calls| if self.moves_data { calls.max(floor) } else { calls + floor });
            let least = to_best(&[&[least.unwrap_or(f64::NAN)], &times[1..servers]].concat()).unwrap_or(f64::NAN);
            let calls = number(self.unit.of(calls.unwrap_or(f64::NAN)));
            write!(line, " {:.2} | {calls} | {} |", times[0] / floor, number(least)).expect("a string");
        }
        write!(line, " {} | {} |", ratio(&times[..servers]), self.spread(servers)).expect("a string");
        write!(line, " {} |", verdict(&times[..servers], self.aim.time, floor)).expect("a string");
        cpu.iter().for_each(|cpu| write!(line, " {} |", number(self.unit.of_cpu(*cpu))).expect("a string"));
        write!(line, " {} |", ratio(&cpu[..servers])).expect("a string");
        write!(line, " {} |", verdict(&cpu[..servers], self.aim.cpu, None)).expect("a string");
        line
    }

    /// Of the ratios of the rounds.
    fn spread(&self, servers: usize) -> String {
        let rounds = 0..self.samples[0].len();
        let times = |round: usize| self.samples[..servers].iter().map(|column| column[round].time).collect::<Vec<_>>();
        let mut ratios: Vec<_> = rounds.filter_map(|round| to_best(&times(round))).collect();
        if ratios.is_empty() {
            return "–".into();
        }
        ratios.sort_by(f64::total_cmp);
        let quartile = |of: usize| ratios[(ratios.len() - 1) * of / 4];
        format!("± {:.2}", (quartile(3) - quartile(1)) / 2.0)
    }
}

/// Ours to that of the better peer.
fn to_best(values: &[f64]) -> Option<f64> {
    let (ours, peers) = values.split_first().expect("ours");
    peers.iter().copied().reduce(f64::min).map(|best| ours / best)
}

fn ratio(values: &[f64]) -> String {
    to_best(values).map_or_else(|| "–".into(), |ratio| format!("**{ratio:.2}**"))
}

/// Whether the aim is reached.
fn verdict(values: &[f64], aim: Option<f64>, floor: Option<f64>) -> String {
    let Some((aim, ratio)) = aim.zip(to_best(values)) else { return "–".into() };
    let near = floor.is_some_and(|floor| values[0] <= floor * NEAR);
    let word = if ratio <= aim {
        "yes"
    } else if near {
        "floor"
    } else {
        "**no**"
    };
    format!("≤ {aim:.2}: {word}")
}

/// Three digits; a dash for what is none.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let decimals = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.decimals$}")
}

/// The one in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The table of some rows.
pub fn table(title: &str, columns: &Columns, rows: &[Row]) -> String {
    let names = columns.names();
    let cpu: Vec<_> = names.iter().map(|name| format!("CPU: {name}")).collect();
    let floor = if columns.floor { " to floor | calls | least |" } else { "" };
    let head = format!("| | {} |{floor} ratio | spread | aim | {} | ratio | aim |", names.join(" | "), cpu.join(" | "));
    let line = format!("|---|{}", "--:|".repeat(2 * names.len() + 5 + 3 * usize::from(columns.floor)));
    let rows: Vec<_> = rows.iter().map(|row| row.line(columns)).collect();
    format!("## {title}\n\n{head}\n{line}\n{}\n", rows.join("\n"))
}
