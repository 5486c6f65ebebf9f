//! Where the two threads of a channel run while they exchange messages.
//!
//! To wake a CPU that sleeps takes longer than most operations do, and the kernel likes to wake one: the thread that
//! asks is not seen to be about to sleep. So where the answer came from another CPU, both keep to one for a while: that
//! of the thread that asks, which it leaves free while it waits. Measured on two CPUs of a virtual machine: an exchange
//! takes 15 to 20 µs where the kernel chooses, 7 to 8 so.

use nix::sched::sched_getcpu;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Exchanges on one CPU before the kernel chooses again.
const STRETCH: u32 = 256;

/// The number of a CPU. sched_getcpu(3)
pub type Cpu = u16;

/// The one that this thread is on.
fn current() -> Option<Cpu> {
    Cpu::try_from(sched_getcpu().ok()?).ok()
}

/// What a thread may choose from.
#[derive(Debug)]
pub struct Seat {
    allowed: CpuSet,
    /// The only one that it uses for now.
    taken: Option<Cpu>,
}

impl Seat {
    /// The CPUs that this thread may use; `None` if it has no choice.
    pub fn new() -> Option<Self> {
        let allowed = sched_getaffinity(None).ok().filter(|allowed| allowed.count() > 1)?;
        Some(Self { allowed, taken: None })
    }

    /// Comes to the CPU where it is waited for, if it may, or goes where it likes; gives where it was.
    pub fn follow(&mut self, cpu: Option<Cpu>) -> Option<Cpu> {
        let here = current();
        if cpu != self.taken {
            self.take(cpu);
        }
        here
    }

    /// Whoever has meanwhile been told by others where to run (taskset(1)) keeps to that.
    fn take(&mut self, cpu: Option<Cpu>) {
        let Ok(now) = sched_getaffinity(None) else { return };
        if self.taken.is_none_or(|taken| now != only(taken)) {
            self.allowed = now;
        }
        let wanted = cpu.filter(|&cpu| usize::from(cpu) < CpuSet::MAX_CPU && self.allowed.is_set(cpu.into()));
        let set = wanted.map_or(self.allowed, only);
        if now == set || sched_setaffinity(None, &set).is_ok() {
            self.taken = wanted;
        }
    }
}

fn only(cpu: Cpu) -> CpuSet {
    let mut set = CpuSet::new();
    set.set(cpu.into());
    set
}

/// Of the thread that asks.
#[derive(Debug)]
pub(crate) struct Company {
    seat: Option<Seat>,
    /// Exchanges to be made on one CPU.
    left: u32,
    /// Where the last question came from.
    asked: Option<Cpu>,
}

impl Company {
    /// Of a thread that may use the same CPUs as this one.
    pub(crate) fn new() -> Self {
        Self { seat: Seat::new(), left: 0, asked: None }
    }

    /// Before a question: gives where whoever answers should come to.
    pub(crate) fn ask(&mut self) -> Option<Cpu> {
        self.asked = self.seat.as_ref().and_then(|_| current());
        let here = self.asked.filter(|_| self.left > 0);
        self.keep_to(here);
        here
    }

    /// After it: the answer, if there is one, came from the CPU `from`.
    pub(crate) fn answered(&mut self, from: Option<Cpu>) {
        self.keep_to(None);
        self.left = match from {
            _ if self.left > 0 => self.left.saturating_sub(1),
            Some(from) if self.asked.is_some_and(|asked| asked != from) => STRETCH,
            _ => 0,
        };
    }

    fn keep_to(&mut self, cpu: Option<Cpu>) {
        if let Some(seat) = &mut self.seat {
            seat.follow(cpu);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpus() -> Vec<Cpu> {
        let set = sched_getaffinity(None).unwrap();
        (0..1024).filter(|&cpu| set.is_set(cpu.into())).collect()
    }

    #[test]
    fn who_follows_comes_and_goes() {
        let all = cpus();
        let Some(mut seat) = Seat::new() else { return assert_eq!(all.len(), 1) };
        for &cpu in &all {
            seat.follow(Some(cpu));
            assert_eq!((cpus(), current()), (vec![cpu], Some(cpu)));
            assert_eq!(seat.follow(None), Some(cpu));
            assert_eq!(cpus(), all);
        }
        for none in [1023, 1024, Cpu::MAX] {
            seat.follow(Some(none));
            assert_eq!(cpus(), all);
        }
    }

    #[test]
    fn company_is_kept_for_a_stretch_where_answers_come_from_elsewhere() {
        let mut company = Company::new();
        if company.seat.is_none() {
            return assert_eq!(company.ask(), None);
        }
        for here in [false, true] {
            assert_eq!(company.ask(), None, "nothing came from elsewhere");
            company.answered(company.asked.filter(|_| here));
        }
        company.ask();
        company.answered(Some(Cpu::MAX - 1));
        for _ in 0..STRETCH {
            let here = company.ask();
            assert_eq!((here, cpus().len()), (current(), 1));
            company.answered(here);
            assert!(cpus().len() > 1);
        }
        assert_eq!(company.ask(), None, "the kernel chooses again");
    }
}
