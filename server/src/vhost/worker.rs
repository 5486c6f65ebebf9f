//! A worker: the thread of some queues, which it serves a batch of each in turn.
//!
//! It serves those that were kicked, and while it is awake also those whose rings show more; only when none of them
//! does, it has the guest kick again, and sleeps.

use std::sync::Arc;

use postern_ipc::patience::Patience;

use super::events::{Events, Kicked};
use super::queue::{Handler, Left, Queue};
use crate::stats;

/// The thread of some queues.
pub(super) struct Worker {
    /// In the order of their positions.
    queues: Vec<Arc<Queue>>,
    events: Arc<Events>,
    handler: Handler,
    patience: Patience,
}

impl Worker {
    /// Of `queues`, for which `events` wake it.
    pub(super) fn new(queues: Vec<Arc<Queue>>, events: Arc<Events>, handler: Handler, patience: Patience) -> Self {
        Self { queues, events, handler, patience }
    }

    /// Serves the queues for as long as the process lives.
    pub(super) fn run(mut self) -> ! {
        loop {
            let mut kicked = self.events.wait();
            stats::slept();
            self.patience.woke();
            while self.serve(std::mem::take(&mut kicked)) || self.watch() || self.rest() {}
        }
    }

    /// Serves a batch of each queue; gives whether one has more.
    fn serve(&mut self, kicked: Kicked) -> bool {
        let mut more = false;
        for (position, queue) in self.queues.iter().enumerate() {
            more |= queue.serve(&mut self.handler, kicked.has(position)) == Left::More;
        }
        more
    }

    /// Looks for more with the guest's kicks still off, unless the connection is at a queue; gives whether there is.
    fn watch(&mut self) -> bool {
        let queues = &self.queues;
        let look = || match queues.iter().map(|queue| queue.look()).find(|left| *left != Left::Nothing) {
            Some(Left::Taken) => Err(()),
            left => Ok(left.is_some()),
        };
        let found = self.patience.watch(look).unwrap_or(false);
        if found {
            stats::looked();
        }
        found
    }

    /// Has the guest kick; gives whether there was more before it could know.
    fn rest(&mut self) -> bool {
        self.queues.iter().fold(false, |more, queue| (queue.rest() == Left::More) | more)
    }
}
