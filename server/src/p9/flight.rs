//! Requests that are under way in other threads, so that Tflush can wait for them or call them off.
//!
//! Whoever puts a request off says so here, with its tag; whoever has sent its answer says that it has landed. A Tflush
//! waits for requests older than itself only: two that name each other, or one that names itself, wait for nobody.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// All that are under way, by serial number.
#[derive(Default)]
pub(super) struct Flights {
    flying: Mutex<State>,
    landed: Condvar,
}

#[derive(Default)]
struct State {
    by_serial: BTreeMap<u64, Flight>,
    last: u64,
}

struct Flight {
    tag: u16,
    begun: bool,
    called_off: bool,
}

impl Flights {
    /// A request was put off; its serial number, which is never 0.
    pub(super) fn put_off(&self, tag: u16) -> u64 {
        let mut state = self.lock();
        state.last = state.last.wrapping_add(1).max(1);
        let serial = state.last;
        state.by_serial.insert(serial, Flight { tag, begun: false, called_off: false });
        serial
    }

    /// A request that was put off is about to be done; `false` if nobody wants it any more.
    pub(super) fn begin(&self, serial: u64) -> bool {
        let mut state = self.lock();
        let Some(flight) = state.by_serial.get_mut(&serial) else { return true };
        flight.begun = true;
        !flight.called_off
    }

    /// The answer was sent, or never will be.
    pub(super) fn land(&self, serial: u64) {
        if self.lock().by_serial.remove(&serial).is_some() {
            self.landed.notify_all();
        }
    }

    /// Calls off requests of this tag that have not begun; whether there are any of it at all.
    pub(super) fn call_off(&self, tag: u16) -> bool {
        let mut state = self.lock();
        let mut any = false;
        for flight in state.by_serial.values_mut().filter(|flight| flight.tag == tag) {
            any = true;
            flight.called_off = !flight.begun;
        }
        any
    }

    /// Waits until no request of this tag that is older than `serial` is under way.
    pub(super) fn wait(&self, tag: u16, serial: u64) {
        let older = |state: &mut State| state.by_serial.range(..serial).any(|(_, flight)| flight.tag == tag);
        let state = self.landed.wait_while(self.lock(), older);
        drop(state.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.flying.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_begun_is_called_off_and_what_has_is_waited_for() {
        let flights = Flights::default();
        let (first, second) = (flights.put_off(7), flights.put_off(7));
        assert!(flights.begin(first));
        assert!(flights.call_off(7));
        assert!(!flights.begin(second));
        let flush = flights.put_off(8);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| flights.wait(7, flush));
            flights.land(second);
            assert!(!waiting.is_finished());
            flights.land(first);
        });
        assert!(!flights.call_off(7));
    }

    // Two Tflush that name each other's tag, and one that names its own.
    #[test]
    fn flushes_never_wait_for_each_other_for_ever() {
        let flights = Flights::default();
        let (first, second) = (flights.put_off(1), flights.put_off(2));
        flights.wait(2, first);
        flights.wait(1, first);
        flights.land(first);
        flights.wait(1, second);
    }
}
