//! How long a thread looks for what is to come next before it sleeps: a worker for the next request, whoever asks the
//! helper for its answer.
//!
//! Waking a CPU that sleeps takes longer than most requests do. So a thread looks on for a moment, as long as that
//! pays: where what it looks for does not come in time, or the CPU is wanted by others (the guest or the helper, where
//! they have no other), it sleeps at once, for more and more requests.

use std::time::{Duration, Instant};

/// More between two looks, and the CPU was somebody else's.
const AWAY: Duration = Duration::from_micros(10);
/// Requests that are slept for after one look in vain, and after many.
const PAUSE: (u32, u32) = (8, 4096);

/// Of one thread.
#[derive(Clone, Debug)]
pub struct Patience {
    /// Longest look. What comes later is not worth it.
    most: Duration,
    /// Since when there is nothing to do.
    idle: Instant,
    /// Requests to sleep for until the next look.
    pause: u32,
    /// The pause after the next look in vain.
    penalty: u32,
}

impl Patience {
    /// To look for `most`; 0 is never.
    pub fn new(most: Duration) -> Self {
        Self { most, idle: Instant::now(), pause: PAUSE.0, penalty: PAUSE.0 }
    }

    /// Calls `look` until it finds something, the time is up or the CPU is lost; gives whether it did.
    ///
    /// # Errors
    /// Those of `look`.
    pub fn watch<E>(&mut self, look: impl FnMut() -> Result<bool, E>) -> Result<bool, E> {
        if self.most.is_zero() {
            return Ok(false);
        }
        self.idle = Instant::now();
        if self.pause > 0 {
            return Ok(false);
        }
        let found = self.spin(look)?;
        if found {
            self.penalty = (self.penalty / 2).max(PAUSE.0);
        } else {
            self.pause = self.penalty;
            self.penalty = self.penalty.saturating_mul(2).min(PAUSE.1);
        }
        Ok(found)
    }

    fn spin<E>(&self, mut look: impl FnMut() -> Result<bool, E>) -> Result<bool, E> {
        let mut seen = Duration::ZERO;
        loop {
            if look()? {
                return Ok(true);
            }
            let now = self.idle.elapsed();
            if now > self.most || now.saturating_sub(seen) > AWAY {
                return Ok(false);
            }
            seen = now;
            std::hint::spin_loop();
        }
    }

    /// The thread slept, and there is something to do again. If that did not take long, looking would have paid; waking
    /// may have taken as long again.
    pub fn woke(&mut self) {
        if self.pause > 0 {
            self.woke_after(self.idle.elapsed());
        }
    }

    fn woke_after(&mut self, slept: Duration) {
        if slept <= self.most.saturating_mul(2) {
            self.pause = self.pause.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const INSTANT: Duration = Duration::from_nanos(1);

    /// How often it looks when it sleeps `sleeps` times for less than an hour.
    fn looks(patience: &mut Patience, sleeps: u32, found: bool) -> usize {
        let looks = |_: &u32| {
            let mut looked = false;
            let look = || -> Result<bool, ()> {
                looked = true;
                Ok(found)
            };
            patience.most = INSTANT;
            assert_eq!(patience.watch(look), Ok(looked && found));
            patience.most = HOUR;
            patience.woke();
            looked
        };
        (0..sleeps).filter(looks).count()
    }

    #[test]
    fn it_keeps_looking_as_long_as_it_finds_something() {
        let mut patience = Patience::new(HOUR);
        assert_eq!(looks(&mut patience, PAUSE.0, true), 0);
        assert_eq!(looks(&mut patience, 100, true), 100);
    }

    #[test]
    fn looks_in_vain_become_rare() {
        let mut patience = Patience::new(HOUR);
        assert_eq!(looks(&mut patience, 10_000, false), 11);
        assert_eq!(looks(&mut patience, 10 * PAUSE.1, false), 10);
    }

    #[test]
    fn requests_that_come_late_are_not_waited_for() {
        let mut patience = Patience::new(INSTANT);
        let look = || -> Result<bool, ()> { panic!("it looked") };
        for _ in 0..100 {
            assert_eq!(patience.watch(look), Ok(false));
            std::thread::sleep(INSTANT);
            patience.woke();
        }
    }

    #[test]
    fn what_came_late_by_the_waking_alone_is_looked_for() {
        for (slept, looks) in [(HOUR * 2, true), (HOUR * 2 + INSTANT, false)] {
            let mut patience = Patience::new(HOUR);
            (0..PAUSE.0).for_each(|_| patience.woke_after(slept));
            assert_eq!(patience.watch(|| Ok::<_, ()>(true)), Ok(looks));
        }
    }

    #[test]
    fn without_time_it_never_looks() {
        let mut patience = Patience::new(Duration::ZERO);
        let look = || -> Result<bool, ()> { panic!("it looked") };
        for _ in 0..100 {
            assert_eq!(patience.watch(look), Ok(false));
            patience.woke();
        }
    }
}
