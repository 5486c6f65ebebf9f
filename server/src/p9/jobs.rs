//! What waits for the threads of a slot.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Most that wait; then whoever brings more waits, too.
const WAITING_MAX: usize = 64;

/// A queue whose users can wait until all of it is done.
pub(super) struct Jobs<J> {
    queue: Mutex<Queue<J>>,
    more: Condvar,
    fewer: Condvar,
}

struct Queue<J> {
    waiting: VecDeque<J>,
    /// Those waiting and those that are being done.
    open: usize,
}

impl<J> Default for Jobs<J> {
    fn default() -> Self {
        let queue = Queue { waiting: VecDeque::new(), open: 0 };
        Self { queue: Mutex::new(queue), more: Condvar::new(), fewer: Condvar::new() }
    }
}

impl<J> Jobs<J> {
    /// Waits for room and brings one more.
    pub(super) fn push(&self, job: J) {
        let full = |queue: &mut Queue<J>| queue.open >= WAITING_MAX;
        let queue = self.fewer.wait_while(self.lock(), full);
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.open = queue.open.saturating_add(1);
        queue.waiting.push_back(job);
        drop(queue);
        self.more.notify_one();
    }

    /// Waits for one and takes it.
    pub(super) fn pop(&self) -> J {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.waiting.pop_front() {
                return job;
            }
            queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// One that was taken is done.
    pub(super) fn done(&self) {
        let mut queue = self.lock();
        queue.open = queue.open.saturating_sub(1);
        drop(queue);
        self.fewer.notify_all();
    }

    /// Waits until all are done.
    pub(super) fn settle(&self) {
        let queue = self.fewer.wait_while(self.lock(), |queue| queue.open > 0);
        drop(queue.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, Queue<J>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
