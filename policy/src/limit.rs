//! Limits of a process, set once at its start. getrlimit(2)

use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::fatal::{Fatal, Step as _};

/// Sets how many descriptors this process may have open, for good, and tells: what its caller allows is not exceeded.
///
/// # Errors
/// If it cannot be set.
pub fn descriptors(wanted: u64) -> Result<u64, Fatal> {
    let allowed = getrlimit(Resource::Nofile).maximum.map_or(wanted, |most| most.min(wanted));
    both(Resource::Nofile, allowed).step("limit the open descriptors")?;
    Ok(allowed)
}

/// No core file: it would hold what the guest's files hold.
///
/// # Errors
/// If it cannot be set.
pub fn no_core() -> Result<(), Fatal> {
    both(Resource::Core, 0).step("turn core files off")
}

/// A caller's limit on the size of files is lifted as far as he may: it is not the guest's.
///
/// # Errors
/// If it cannot be set.
pub fn largest_files() -> Result<(), Fatal> {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: maximum, maximum }).step("lift the limit on file sizes")
}

/// Fewest descriptors with which server and helper begin: both ends of as many channels as may be asked for, six each,
/// are more than half of them.
pub const LEAST_DESCRIPTORS: u64 = 512;

/// What a hostile caller may have limited, and how much of it serving takes.
const LIMITS: [(Resource, &str, u64); 7] = [
    (Resource::Fsize, "file sizes", 0),
    (Resource::Data, "data", 256 << 20),
    (Resource::As, "address space", 256 << 20),
    (Resource::Stack, "the stack", 1 << 20),
    (Resource::Nofile, "open descriptors", LEAST_DESCRIPTORS),
    (Resource::Cpu, "CPU time, in seconds", 60),
    (Resource::Nproc, "processes", 0),
];

/// All limits of a caller are lifted as far as he may; one that leaves too little refuses him.
///
/// # Errors
/// Says which leaves too little.
pub fn lift() -> Result<(), Fatal> {
    for (resource, what, least) in LIMITS {
        let maximum = getrlimit(resource).maximum;
        let step = || format!("serve within its caller's limit on {what}");
        if let Some(limit) = maximum.filter(|limit| *limit < least) {
            return Err(Fatal::new(step(), format!("it is {limit}, at least {least} are needed")));
        }
        setrlimit(resource, Rlimit { current: maximum, maximum }).step(step())?;
    }
    Ok(())
}

fn both(resource: Resource, limit: u64) -> rustix::io::Result<()> {
    setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })
}

/// So many times at once, and on average in such a time; then wait. A bucket that leaks, as a clock.
#[derive(Debug)]
pub struct Rate {
    each: Duration,
    all: Duration,
    /// When all that was counted is paid for.
    paid: Option<Instant>,
}

impl Rate {
    /// At most `most` times `within` that time; with 0, once.
    pub fn new(most: u32, within: Duration) -> Self {
        Self { each: within.checked_div(most).unwrap_or(within), all: within, paid: None }
    }

    /// Counts so many more; says how long they have to wait.
    pub fn count(&mut self, more: usize, now: Instant) -> Duration {
        let paid = self.paid.map_or(now, |paid| paid.max(now));
        let price = self.each.saturating_mul(u32::try_from(more).unwrap_or(u32::MAX));
        let paid = paid.checked_add(price).unwrap_or(paid);
        self.paid = Some(paid);
        paid.saturating_duration_since(now).saturating_sub(self.all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_ten_times_at_once_each_has_to_wait_for_its_second() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut rate = Rate::new(10, Duration::from_secs(10));
        for _ in 0..10 {
            assert_eq!(rate.count(1, start), Duration::ZERO);
        }
        assert_eq!(rate.count(1, start), Duration::from_secs(1));
        assert_eq!(rate.count(1, at(500)), Duration::from_millis(1500));
        assert_eq!(rate.count(1, at(3000)), Duration::ZERO);
        assert_eq!((rate.count(12, at(30_000)), rate.count(1, at(30_000))), (at(2000) - start, at(3000) - start));
        assert_eq!((0..11).filter(|_| rate.count(1, at(60_000)) == Duration::ZERO).count(), 10);
    }
}
