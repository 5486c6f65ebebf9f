//! What waits for the threads of a slot.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Most that wait or are being done; then whoever brings more waits, too.
const OPEN_MAX: usize = 64;
/// Bytes of them that are too many, unless it is one job alone.
const BYTES_MAX: usize = 8 << 20;

/// A queue whose users can wait until all of it is done.
pub(super) struct Jobs<J> {
    queue: Mutex<Queue<J>>,
    more: Condvar,
    fewer: Condvar,
}

struct Queue<J> {
    /// Each with its bytes.
    waiting: VecDeque<(J, usize)>,
    /// Those waiting and those that are being done.
    open: usize,
    /// Theirs.
    bytes: usize,
}

impl<J> Queue<J> {
    fn has_room(&self, bytes: usize) -> bool {
        self.open == 0 || (self.open < OPEN_MAX && self.bytes.saturating_add(bytes) <= BYTES_MAX)
    }
}

impl<J> Default for Jobs<J> {
    fn default() -> Self {
        let queue = Queue { waiting: VecDeque::new(), open: 0, bytes: 0 };
        Self { queue: Mutex::new(queue), more: Condvar::new(), fewer: Condvar::new() }
    }
}

impl<J> Jobs<J> {
    /// Waits for room and brings one more, which has so many bytes.
    pub(super) fn push(&self, job: J, bytes: usize) {
        let queue = self.fewer.wait_while(self.lock(), |queue| !queue.has_room(bytes));
        let mut queue = queue.unwrap_or_else(PoisonError::into_inner);
        queue.open = queue.open.saturating_add(1);
        queue.bytes = queue.bytes.saturating_add(bytes);
        queue.waiting.push_back((job, bytes));
        drop(queue);
        self.more.notify_one();
    }

    /// Waits for one and takes it, with its bytes.
    pub(super) fn pop(&self) -> (J, usize) {
        let mut queue = self.lock();
        loop {
            if let Some(job) = queue.waiting.pop_front() {
                return job;
            }
            queue = self.more.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// One of so many bytes that was taken is done.
    pub(super) fn done(&self, bytes: usize) {
        let mut queue = self.lock();
        queue.open = queue.open.saturating_sub(1);
        queue.bytes = queue.bytes.saturating_sub(bytes);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_few_and_small_together_or_one_alone() {
        let jobs = Jobs::default();
        let room = |bytes| jobs.lock().has_room(bytes);
        assert!(room(BYTES_MAX + 1));
        jobs.push((), 2);
        assert_eq!((room(BYTES_MAX - 2), room(BYTES_MAX - 1)), (true, false));
        for _ in 1..OPEN_MAX {
            assert!(room(0));
            jobs.push((), 0);
        }
        assert!(!room(0));
        let ((), bytes) = jobs.pop();
        jobs.done(bytes);
        assert!(room(BYTES_MAX));
    }
}
