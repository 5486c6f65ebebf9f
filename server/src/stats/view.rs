//! `postern stat`: the figures of a server, for people.
//!
//! The server may be the guest's by now: what it says is believed only as far as it is words and numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use postern_policy::fatal::{Fatal, Step as _};

use super::histogram::Counts;

/// Of the text.
pub(super) const VERSION: u32 = 2;
/// Longest text.
const TEXT_MAX: u64 = 4 << 20;
/// Longest name of an operation.
const NAME_MAX: usize = 24;
/// How long a server may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The figures at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Nanoseconds.
    uptime: u64,
    hops: u64,
    found: u64,
    looked: u64,
    slept: u64,
    operations: BTreeMap<String, Operation>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Operation {
    failed: u64,
    nanos: u64,
    took: Counts,
}

impl Figures {
    /// Asks the server that listens at `path`.
    ///
    /// # Errors
    /// Says why there are none.
    pub fn ask(path: &Path) -> Result<Self, Fatal> {
        let step = || format!("ask {} for figures", path.display());
        let hint = "name the --stats-socket of a postern-server that runs";
        let server = UnixStream::connect(path).step(step()).map_err(|fatal| fatal.hint(hint))?;
        server.set_read_timeout(Some(PATIENCE)).step(step())?;
        let mut text = Vec::new();
        server.take(TEXT_MAX).read_to_end(&mut text).step(step())?;
        let text = str::from_utf8(&text).ok();
        text.and_then(Self::parse).ok_or_else(|| Fatal::new(step(), "what it says cannot be understood").hint(hint))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != format!("postern {VERSION}") {
            return None;
        }
        let mut figures = Self::default();
        for line in lines {
            let mut words = line.split(' ');
            match words.next()? {
                "uptime" => figures.uptime = words.next()?.parse().ok()?,
                "hops" => figures.hops = words.next()?.parse().ok()?,
                "found" => figures.found = words.next()?.parse().ok()?,
                "looked" => figures.looked = words.next()?.parse().ok()?,
                "slept" => figures.slept = words.next()?.parse().ok()?,
                "op" => {
                    let name = words.next().filter(|name| is_name(name))?.to_owned();
                    figures.operations.insert(name, Operation::parse(words)?);
                }
                _ => return None,
            }
        }
        Some(figures)
    }

    /// What came since `before`, whose time `uptime` becomes.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let operations = self.operations.iter().map(|(name, now)| {
            (name.clone(), before.operations.get(name).map_or_else(|| now.clone(), |then| now.since(then)))
        });
        Self {
            uptime: self.uptime.saturating_sub(before.uptime),
            hops: self.hops.saturating_sub(before.hops),
            found: self.found.saturating_sub(before.found),
            looked: self.looked.saturating_sub(before.looked),
            slept: self.slept.saturating_sub(before.slept),
            operations: operations.collect(),
        }
    }

    /// As a table: operations that took the longest, all together, first.
    pub fn table(&self) -> String {
        let seconds = (self.uptime as f64 / 1e9).max(f64::MIN_POSITIVE);
        let mut rows: Vec<_> = self.operations.iter().filter(|(_, operation)| operation.took.total() > 0).collect();
        rows.sort_by_key(|(_, operation)| std::cmp::Reverse(operation.nanos));
        let requests: u64 = rows.iter().fold(0, |sum, (_, operation)| sum.saturating_add(operation.took.total()));
        let waking = match (self.slept, self.looked) {
            (0, 0) => String::new(),
            (slept, looked) => format!("; workers slept {slept} times, and looking spared them {looked}"),
        };
        let found = match self.found {
            0 => String::new(),
            found => format!(", and looking spared {found} sleeps"),
        };
        let mut text = format!(
            "{requests} requests in {seconds:.1} s; the helper was asked {} times{found}{waking}\n\
             {:<14}{:>10}{:>12}{:>9}{:>10}{:>10}{:>8}\n",
            self.hops, "operation", "requests", "per second", "failed", "p50", "p99", "busy",
        );
        for (name, operation) in rows {
            let total = operation.took.total();
            let [p50, p99] = [50, 99].map(|percent| time(operation.took.percentile(percent).unwrap_or(0)));
            let _ = writeln!(
                text,
                "{name:<14}{total:>10}{:>12.1}{:>9}{p50:>10}{p99:>10}{:>7.1}%",
                total as f64 / seconds,
                operation.failed,
                operation.nanos as f64 / seconds / 1e7,
            );
        }
        text
    }
}

impl Operation {
    fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let mut operation =
            Self { failed: words.next()?.parse().ok()?, nanos: words.next()?.parse().ok()?, took: Counts::default() };
        for word in words {
            let (bucket, count) = word.split_once(':')?;
            operation.took.set(bucket.parse().ok()?, count.parse().ok()?)?;
        }
        Some(operation)
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            failed: self.failed.saturating_sub(before.failed),
            nanos: self.nanos.saturating_sub(before.nanos),
            took: self.took.since(&before.took),
        }
    }
}

/// Nothing that a terminal would take for a command.
fn is_name(name: &str) -> bool {
    (1..=NAME_MAX).contains(&name.len())
        && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
}

/// In three digits and a unit.
fn time(nanos: u64) -> String {
    let units = [(1e9, "s"), (1e6, "ms"), (1e3, "µs")];
    let nanos = nanos as f64;
    let (unit, name) = units.into_iter().find(|(unit, _)| nanos >= *unit).unwrap_or((1.0, "ns"));
    let value = nanos / unit;
    let digits = if value < 10.0 && unit > 1.0 { 1 } else { 0 };
    format!("{value:.digits$} {name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "postern 2\nuptime 2000000000\nhops 3\nfound 2\nlooked 4\nslept 5\nop lookup 1 1000 2:1 9:1\nop read 0 9000 40:2\n";

    #[test]
    fn figures_are_shown_with_what_takes_most_time_first() {
        let table = Figures::parse(TEXT).unwrap().table();
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        let first = "4 requests in 2.0 s; the helper was asked 3 times, and looking spared 2 sleeps; workers slept 5 \
                     times, and looking spared them 4";
        assert_eq!(table.lines().next(), Some(first));
        assert_eq!(rows[2][..4], ["read", "2", "1.0", "0"]);
        assert_eq!(rows[3], ["lookup", "2", "1.0", "1", "2", "ns", "9", "ns", "0.0%"]);
    }

    #[test]
    fn what_came_between_two_moments_is_shown_alone() {
        let then = Figures::parse(TEXT).unwrap();
        let now =
            TEXT.replace("uptime 2", "uptime 3").replace("2:1", "2:8").replace("op read", "op write 0 7 1:1\nop read");
        let between = Figures::parse(&now).unwrap().since(&then);
        assert_eq!((between.uptime, between.operations["lookup"].took.total()), (1_000_000_000, 7));
        assert_eq!((between.operations["write"].took.total(), between.operations["read"].took.total()), (1, 0));
        assert_eq!(between.table().lines().count(), 2 + 2);
    }

    #[test]
    fn a_server_writes_nothing_else_to_the_terminal() {
        for wrong in [
            "postern 1\n",
            "postern 2\nop \x1b[2J 0 0\n",
            "postern 2\nop Lookup 0 0\n",
            "postern 2\nop lookup 0\n",
            "postern 2\nop lookup 0 0 999999:1\n",
            "postern 2\nop lookup 0 0 -1:1\n",
            "postern 2\nuptime 99999999999999999999999\n",
            "postern 2\nhello\n",
            "postern 2\n\n",
            "",
        ] {
            assert_eq!(Figures::parse(wrong), None, "{wrong:?}");
        }
        assert!(Figures::parse("postern 2\n").unwrap().table().starts_with("0 requests in 0.0 s"));
    }

    #[test]
    fn times_have_three_digits_at_most() {
        let shown = [0, 999, 1000, 12_345, 999_999, 1_000_000, 90_000_000, 2_500_000_000].map(time);
        assert_eq!(shown, ["0 ns", "999 ns", "1.0 µs", "12 µs", "1000 µs", "1.0 ms", "90 ms", "2.5 s"]);
    }
}
