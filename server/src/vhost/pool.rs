//! The pool: a few threads for requests that may block, so that they never hold up the others of their queue.
//! It holds at most as many requests as all rings have descriptors.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::device::{Device, Place};
use super::queue::{Queue, handle, lock};
use super::request::Request;

/// What waits for a thread, and the threads that wait for something.
#[derive(Default)]
pub(super) struct Pool {
    jobs: Mutex<Jobs>,
    more: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: VecDeque<(Arc<Queue>, Request)>,
    /// Threads without work.
    idle: usize,
}

impl Pool {
    pub(super) fn push(&self, queue: Arc<Queue>, request: Request) {
        let mut jobs = lock(&self.jobs);
        jobs.waiting.push_back((queue, request));
        let wake = jobs.idle > 0;
        drop(jobs);
        if wake {
            self.more.notify_one();
        }
    }

    fn pop(&self) -> (Arc<Queue>, Request) {
        let mut jobs = lock(&self.jobs);
        loop {
            if let Some(job) = jobs.waiting.pop_front() {
                return job;
            }
            jobs.idle = jobs.idle.saturating_add(1);
            jobs = self.more.wait(jobs).unwrap_or_else(PoisonError::into_inner);
            jobs.idle = jobs.idle.saturating_sub(1);
        }
    }

    /// Handles requests for as long as the process lives.
    pub(super) fn run(&self, device: &dyn Device) -> ! {
        loop {
            let (queue, mut request) = self.pop();
            let outcome = handle(device, &mut request, Place::Pool);
            let ticket = request.ticket;
            queue.complete(request, outcome);
            device.given_back(ticket);
        }
    }
}
