//! What is known of requests while they are served: how long each kind takes, how many ask the helper, how often a
//! worker had to sleep.
//!
//! There is one set of figures in a process, as there is one log, and it is kept only if somebody may ask for it
//! (`--stats-socket`): a clock is read twice for each request then. [`socket`] gives the figures away, [`view`] shows
//! them.

pub mod histogram;
pub mod socket;
pub mod view;

use std::fmt::{self, Write as _};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use postern_ipc::Errno;
use postern_ipc::client::Links;

use histogram::Histogram;

static STATS: OnceLock<Stats> = OnceLock::new();

/// The figures of a process.
struct Stats {
    since: Instant,
    /// By the number that an operation has in its protocol.
    operations: [OnceLock<Box<Operation>>; 256],
    slept: AtomicU64,
    looked: AtomicU64,
}

/// The figures of one operation.
struct Operation {
    name: &'static str,
    failed: AtomicU64,
    nanos: AtomicU64,
    took: Histogram,
}

/// Figures are kept from now on.
fn keep() {
    let new = || Stats {
        since: Instant::now(),
        operations: [const { OnceLock::new() }; 256],
        slept: AtomicU64::new(0),
        looked: AtomicU64::new(0),
    };
    STATS.get_or_init(new);
}

/// A worker slept, and woke.
pub fn slept() {
    if let Some(stats) = STATS.get() {
        stats.slept.fetch_add(1, Ordering::Relaxed);
    }
}

/// A worker found its next request by looking for it instead.
pub fn looked() {
    if let Some(stats) = STATS.get() {
        stats.looked.fetch_add(1, Ordering::Relaxed);
    }
}

/// Of one request; of nothing where neither figures nor a log of requests are kept.
#[must_use]
pub struct Watch(Option<Instant>);

/// A request begins.
pub fn watch() -> Watch {
    Watch((STATS.get().is_some() || log::log_enabled!(log::Level::Debug)).then(Instant::now))
}

impl Watch {
    /// The request has been done: the operation's number and name, why it failed if it did, and what the log says of it
    /// besides.
    pub fn end(self, number: u8, name: &'static str, failed: Option<Errno>, about: fmt::Arguments<'_>) {
        let Some(began) = self.0 else { return };
        let took = began.elapsed();
        if let Some(operation) = STATS.get().and_then(|stats| stats.operations.get(usize::from(number))) {
            operation.get_or_init(|| Box::new(Operation::new(name))).count(took.as_nanos(), failed.is_some());
        }
        if log::log_enabled!(log::Level::Debug) {
            let outcome = failed.map_or("ok".into(), |errno| format!("{errno:?}"));
            log::debug!("{name}{about} -> {outcome} {}us", took.as_micros());
        }
    }
}

impl Operation {
    fn new(name: &'static str) -> Self {
        Self { name, failed: AtomicU64::new(0), nanos: AtomicU64::new(0), took: Histogram::default() }
    }

    fn count(&self, nanos: u128, failed: bool) {
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        self.took.count(nanos);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        self.failed.fetch_add(failed.into(), Ordering::Relaxed);
    }
}

impl Stats {
    /// All of it in words, with what `links` were asked. postern-server(1): STATISTICS
    fn text(&self, links: &Links) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(1 << 14);
        writeln!(text, "postern {}", view::VERSION)?;
        let figures = [
            ("uptime", u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX)),
            ("hops", links.hops()),
            ("found", links.found()),
            ("looked", self.looked.load(Ordering::Relaxed)),
            ("slept", self.slept.load(Ordering::Relaxed)),
        ];
        figures.iter().try_for_each(|(name, figure)| writeln!(text, "{name} {figure}"))?;
        for operation in self.operations.iter().filter_map(OnceLock::get) {
            let [failed, nanos] = [&operation.failed, &operation.nanos].map(|figure| figure.load(Ordering::Relaxed));
            write!(text, "op {} {failed} {nanos}", operation.name)?;
            operation.took.counts().filled().try_for_each(|(bucket, count)| write!(text, " {bucket}:{count}"))?;
            writeln!(text)?;
        }
        Ok(text)
    }
}
