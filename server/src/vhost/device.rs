//! What a virtio device is to the transport: something that answers requests.

use super::request::Request;

/// A device. Everything may be called by several threads at once, [`handle`](Self::handle) by all of them.
pub trait Device: Send + Sync + 'static {
    /// Feature bits of this kind of device; the transport adds its own.
    fn features(&self) -> u64 {
        0
    }

    /// The config space, for a VMM that asks the back-end for it; `None` leaves it to the VMM.
    fn config(&self) -> Option<&[u8]>;

    /// How many queues there are, 1 to 256. virtio-fs: queue 0 is the one of high priority.
    fn queues(&self) -> usize;

    /// The lane of a queue, counted from 0. Queues of one lane have one worker, whose lanes may be several: as many
    /// lanes as there are workers lie between two of one worker's.
    fn lane(&self, queue: usize) -> usize {
        queue
    }

    /// Called once at the start of each thread that will call [`handle`](Self::handle): first the workers, in the
    /// order of their lanes, then the pool's threads. `thread` counts from 0 over both.
    fn enter(&self, thread: usize) {
        let _ = thread;
    }

    /// Answers a request: reads it, writes the answer into its room.
    ///
    /// At [`Place::Worker`] the requests behind it wait, so what may block says [`Outcome::Later`]: the request is
    /// then handled again from its beginning in the pool, whatever has been read or written of it.
    fn handle(&self, request: &mut Request, place: Place) -> Outcome;

    /// The answer to a request that was handled in the pool has been given to the guest. `ticket` is what the device
    /// had set as the request's, 0 if it did not.
    fn given_back(&self, ticket: u64) {
        let _ = ticket;
    }

    /// The VMM has reset the device or is gone: forget what the guest holds. No request is under way.
    fn reset(&self);
}

/// Where a request is handled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In its queue's worker, which must not block.
    Worker,
    /// Where it may take its time; there is no later.
    Pool,
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Done; bytes written from the start of its room: the used length. 0 is no answer, as for FORGET.
    Done(u32),
    /// May block: to be handled again at [`Place::Pool`].
    Later,
}
