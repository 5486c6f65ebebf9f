//! A queue: a ring, what its worker does with it, and what the connection may do to it meanwhile.
//!
//! Lock order: `front`, then `back`. The worker holds `front` for a batch of requests and never sleeps with it; the
//! connection, when it wants it, raises `wanted` first, and the worker leaves after the request it is at. `back` is
//! held for as long as it takes to write used elements.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use postern_ipc::Result;

use super::device::{Device, Outcome, Place};
use super::events::Events;
use super::memory::{Memory, SHARE};
use super::pool::Pool;
use super::request::Request;
use super::ring::{Available, Broken, Ring, Used};

/// Most requests answered before the guest is told.
const BATCH: usize = 16;
/// A request that moved more bytes than this is told at once: the guest can go on while the next is served.
const LARGE: u64 = 64 << 10;
/// Most requests kept for reuse.
const SPARE: usize = 64;

/// One queue of the device.
pub(super) struct Queue {
    index: usize,
    front: Mutex<Option<Front>>,
    wanted: AtomicBool,
    back: Mutex<Back>,
    /// No request is under way in the pool.
    idle: Condvar,
    /// Wakes the worker.
    events: Arc<Events>,
    /// Which of the worker's queues it is.
    position: usize,
}

/// What is left to do on a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Left {
    /// Nothing that was seen.
    Nothing,
    /// More than one batch.
    More,
    /// The connection is at it, and wakes the worker when it is done.
    Taken,
}

/// How requests come.
struct Front {
    available: Available,
    /// The one at hand.
    request: Request,
    /// The guest has not broken the ring.
    enabled: bool,
    /// The worker is at it, and wants no kicks.
    busy: bool,
    /// Kicks for nothing while nothing has ever been in it.
    silent: u8,
}

/// How answers leave.
#[derive(Default)]
struct Back {
    used: Option<Used>,
    /// Interrupts the guest. eventfd(2)
    call: Option<File>,
    /// Tells the VMM that the ring broke. eventfd(2)
    error: Option<File>,
    /// Requests in the pool.
    under_way: u16,
    /// Somebody waits for `idle`.
    awaited: bool,
    /// Unused ones, holding no memory of the guest.
    spare: Vec<Request>,
}

/// A chain to give back: its head and the bytes written.
type Answer = (u16, u32);

impl Queue {
    /// Queue `index` of the device; `events` wake its worker, to whom it is the queue at `position`.
    pub(super) fn new(index: usize, events: Arc<Events>, position: usize) -> Self {
        Self {
            index,
            front: Mutex::default(),
            wanted: AtomicBool::new(false),
            back: Mutex::default(),
            idle: Condvar::new(),
            events,
            position,
        }
    }

    /// The worker shall wake when `kick` is written.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): EPERM if it is nothing that can be waited for.
    pub(super) fn watch(&self, kick: impl AsFd) -> Result<()> {
        self.events.add(kick, self.position)
    }

    /// The worker shall not wake for `kick` any more.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn unwatch(&self, kick: impl AsFd) -> Result<()> {
        self.events.remove(kick)
    }

    /// Serves `ring` from index `base` of its available ring on.
    ///
    /// # Errors
    /// The ring is not there.
    pub(super) fn start(&self, ring: &Arc<Ring>, memory: &Arc<Memory>, base: u16) -> std::result::Result<(), Broken> {
        let used = Used::new(Arc::clone(ring))?;
        let available = Available::new(Arc::clone(ring), Arc::clone(memory), base);
        let front = Front { available, request: Request::new(self.index), enabled: true, busy: true, silent: 0 };
        self.with_front(|slot| {
            lock(&self.back).used = Some(used);
            *slot = Some(front);
        });
        Ok(())
    }

    /// Goes on in other mappings, without waiting for requests under way: they keep theirs, and are given back
    /// through the new ones.
    pub(super) fn rebase(&self, ring: &Arc<Ring>, memory: &Arc<Memory>) {
        self.with_front(|slot| {
            if let Some(front) = slot {
                front.available.rebase(Arc::clone(ring), Arc::clone(memory));
                front.request.release();
            }
            if let Some(used) = &mut lock(&self.back).used {
                used.rebase(Arc::clone(ring));
            }
        });
    }

    /// Takes no more requests, waits for those under way, and gives the index of the next; `None` if it was not
    /// running.
    pub(super) fn stop(&self) -> Option<u16> {
        let base = self.with_front(Option::take)?.available.base();
        let mut back = lock(&self.back);
        back.awaited = true;
        let mut back = self.idle.wait_while(back, |back| back.under_way > 0).unwrap_or_else(PoisonError::into_inner);
        back.awaited = false;
        back.used = None;
        Some(base)
    }

    /// Interrupts go to `call` from now on. It is called at once: what was published before may have gone to another.
    pub(super) fn set_call(&self, call: Option<File>) {
        let mut back = lock(&self.back);
        back.call = call;
        signal(back.call.as_ref());
    }

    /// The VMM learns on `error` that the ring broke.
    pub(super) fn set_error(&self, error: Option<File>) {
        lock(&self.back).error = error;
    }

    fn with_front<R>(&self, change: impl FnOnce(&mut Option<Front>) -> R) -> R {
        self.wanted.store(true, Ordering::SeqCst);
        let result = change(&mut lock(&self.front));
        self.wanted.store(false, Ordering::SeqCst);
        self.events.wake();
        result
    }

    /// Has `handler` answer a batch, with the guest's kicks off. `kicked` if the guest said that there is one.
    pub(super) fn serve(self: &Arc<Self>, handler: &mut Handler, kicked: bool) -> Left {
        if self.is_wanted() {
            return Left::Taken;
        }
        let mut slot = lock(&self.front);
        let Some(front) = slot.as_mut().filter(|front| front.enabled) else { return Left::Nothing };
        let left = front.serve(self, handler);
        if kicked {
            front.hear(self.index);
        }
        left.unwrap_or_else(|broken| {
            self.disable(&mut slot, broken);
            Left::Nothing
        })
    }

    /// Whether there is more, for a worker that looks instead of being kicked.
    pub(super) fn look(&self) -> Left {
        if self.is_wanted() {
            return Left::Taken;
        }
        match lock(&self.front).as_mut().filter(|front| front.enabled).map(|front| front.available.look()) {
            None | Some(Ok(false)) => Left::Nothing,
            // What is broken is told by who serves it.
            Some(Ok(true) | Err(_)) => Left::More,
        }
    }

    /// The worker is about to sleep: the guest shall kick, unless there is more already.
    pub(super) fn rest(&self) -> Left {
        if self.is_wanted() {
            return Left::Taken;
        }
        let mut slot = lock(&self.front);
        let Some(front) = slot.as_mut().filter(|front| front.enabled && front.busy) else { return Left::Nothing };
        front.busy = false;
        match front.available.listen() {
            Ok(false) => Left::Nothing,
            Ok(true) => Left::More,
            Err(broken) => {
                self.disable(&mut slot, broken);
                Left::Nothing
            }
        }
    }

    fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Gives answers back, and calls the guest once if it wants that.
    fn give_back(&self, answers: &mut Vec<Answer>) -> std::result::Result<(), Broken> {
        if answers.is_empty() {
            return Ok(());
        }
        lock(&self.back).give_back(answers.drain(..))
    }

    /// Gives the answer of the pool back.
    pub(super) fn complete(&self, mut request: Request, outcome: Outcome) {
        let answer = (request.head(), request.used(outcome));
        request.release();
        let mut back = lock(&self.back);
        let given = back.give_back(std::iter::once(answer));
        back.under_way = back.under_way.saturating_sub(1);
        if back.spare.len() < SPARE {
            back.spare.push(request);
        }
        if back.awaited && back.under_way == 0 {
            self.idle.notify_all();
        }
        drop(back);
        if let Err(broken) = given {
            self.disable(&mut lock(&self.front), broken);
        }
    }

    /// Counts a request that goes to the pool; gives an unused one in its place.
    fn hand_over(&self, size: u16) -> std::result::Result<Request, Broken> {
        let mut back = lock(&self.back);
        if back.under_way >= size {
            return Err(Broken::Crowd);
        }
        back.under_way = back.under_way.saturating_add(1);
        Ok(back.spare.pop().unwrap_or_else(|| Request::new(self.index)))
    }

    fn disable(&self, slot: &mut Option<Front>, why: Broken) {
        let was = slot.as_mut().is_some_and(|front| std::mem::take(&mut front.enabled));
        if was {
            log::warn!("queue {}: {why}: it stands still until the guest sets it up again", self.index);
            signal(lock(&self.back).error.as_ref());
        }
    }
}

impl Front {
    fn serve(&mut self, queue: &Arc<Queue>, handler: &mut Handler) -> std::result::Result<Left, Broken> {
        if !self.busy && !self.available.look()? {
            return Ok(Left::Nothing);
        }
        self.busy = true;
        let taken = self.take(queue, handler);
        queue.give_back(&mut handler.answers)?;
        taken
    }

    fn take(&mut self, queue: &Arc<Queue>, handler: &mut Handler) -> std::result::Result<Left, Broken> {
        self.available.quiet()?;
        while self.available.pop(&mut self.request)? {
            let moved = self.answer(queue, handler)?;
            if queue.is_wanted() || moved >= LARGE || handler.answers.len() >= BATCH {
                return Ok(Left::More);
            }
        }
        Ok(Left::Nothing)
    }

    /// Answers the request that was popped, or sends it to the pool; gives the bytes it moved.
    fn answer(&mut self, queue: &Arc<Queue>, handler: &mut Handler) -> std::result::Result<u64, Broken> {
        let place = if handler.pool.is_some() { Place::Worker } else { Place::Pool };
        let outcome = handle(&*handler.device, &mut self.request, place);
        if let (Outcome::Later, Some(pool)) = (outcome, &handler.pool) {
            let fresh = queue.hand_over(self.available.size())?;
            let mut request = std::mem::replace(&mut self.request, fresh);
            request.rewind();
            pool.push(Arc::clone(queue), request);
            return Ok(0);
        }
        let len = self.request.used(outcome);
        handler.answers.push((self.request.head(), len));
        Ok(u64::from(len).max(self.request.consumed()))
    }

    /// The guest has kicked. If it never made anything available that we could see, it probably did so in memory that
    /// only the VMM has. The first such kick does not count: QEMU kicks once when it starts a ring.
    fn hear(&mut self, index: usize) {
        if self.silent < 2 && self.available.is_untouched() {
            self.silent = self.silent.saturating_add(1);
            if self.silent == 2 {
                log::warn!(
                    "queue {index}: kicks for an empty ring: if the guest hangs, its memory is not shared: {SHARE}"
                );
            }
        }
    }
}

impl Back {
    fn give_back(&mut self, answers: impl Iterator<Item = Answer>) -> std::result::Result<(), Broken> {
        let Some(used) = &mut self.used else { return Ok(()) };
        for (head, len) in answers {
            used.push(head, len)?;
        }
        if used.publish()? {
            signal(self.call.as_ref());
        }
        Ok(())
    }
}

/// Adds one to an eventfd. One that cannot take it has been told already.
fn signal(eventfd: Option<&File>) {
    if let Some(mut eventfd) = eventfd {
        let _ = eventfd.write(&1_u64.to_ne_bytes());
    }
}

/// A panic of a thread that held the lock has been reported; what it guards is valid after each step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Has the device handle a request. It must not panic; if it does, the guest finds an answer without bytes, and only
/// this request is lost.
pub(super) fn handle(device: &dyn Device, request: &mut Request, place: Place) -> Outcome {
    let handled = catch_unwind(AssertUnwindSafe(|| device.handle(request, place)));
    handled.unwrap_or_else(|_| {
        log::error!("queue {}: a request made the device panic: it is answered with nothing", request.queue());
        Outcome::Done(0)
    })
}

/// Who answers requests.
pub(super) struct Handler {
    device: Arc<dyn Device>,
    /// Without one every request is answered at once, however long it takes.
    pool: Option<Arc<Pool>>,
    answers: Vec<Answer>,
}

impl Handler {
    /// Without a pool every request is handled where it is taken.
    pub(super) fn new(device: Arc<dyn Device>, pool: Option<Arc<Pool>>) -> Self {
        Self { device, pool, answers: Vec::with_capacity(BATCH) }
    }
}
