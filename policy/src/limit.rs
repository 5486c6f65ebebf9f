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

fn both(resource: Resource, limit: u64) -> rustix::io::Result<()> {
    setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })
}

/// So many times in such a time; then wait.
#[derive(Debug)]
pub struct Rate {
    most: usize,
    within: Duration,
    past: Vec<Instant>,
}

impl Rate {
    /// At most `most` times `within` any stretch of that length.
    pub fn new(most: usize, within: Duration) -> Self {
        Self { most, within, past: Vec::with_capacity(most) }
    }

    /// Counts one more; says how long it has to wait.
    pub fn count(&mut self, now: Instant) -> Duration {
        self.past.retain(|&then| now.saturating_duration_since(then) < self.within);
        let wait = match self.past.first() {
            Some(&first) if self.past.len() >= self.most => {
                self.within.saturating_sub(now.saturating_duration_since(first))
            }
            _ => Duration::ZERO,
        };
        if self.past.len() >= self.most {
            self.past.remove(0);
        }
        self.past.push(now.checked_add(wait).unwrap_or(now));
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eleventh_time_in_ten_seconds_waits_for_the_first_to_be_past() {
        let start = Instant::now();
        let mut rate = Rate::new(10, Duration::from_secs(10));
        for step in 0..10 {
            assert_eq!(rate.count(start + Duration::from_millis(step)), Duration::ZERO);
        }
        assert_eq!(rate.count(start + Duration::from_secs(1)), Duration::from_secs(9));
        assert_eq!(rate.count(start + Duration::from_secs(60)), Duration::ZERO);
    }
}
