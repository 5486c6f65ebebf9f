//! A queue: the worker that serves a ring, and what the connection may do to the ring meanwhile.
//!
//! Lock order: `front`, then `back`. The worker holds `front` for a batch of requests and never sleeps with it; the
//! connection, when it wants it, raises `wanted` first, and the worker leaves after the request it is at. `back` is
//! held for as long as it takes to write used elements.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use postern_ipc::Result;
use rustix::event::{EventfdFlags, epoll, eventfd};

use super::device::{Device, Outcome, Place};
use super::memory::{Memory, SHARE};
use super::patience::Patience;
use super::pool::Pool;
use super::request::Request;
use super::ring::{Available, Broken, Ring, Used};
use crate::stats;

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
    /// Wakes the worker: kicks and `wake`, edge-triggered, so that neither needs to be read.
    events: OwnedFd,
    wake: OwnedFd,
}

/// What wakes a worker.
enum Event {
    /// The connection has changed something.
    Wake,
    /// The guest has made something available.
    Kick,
}

/// How requests come.
struct Front {
    available: Available,
    /// The one at hand.
    request: Request,
    /// The guest has not broken the ring.
    enabled: bool,
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

/// How much of what the guest made available was taken.
enum Taken {
    Some,
    All,
}

impl Queue {
    /// # Errors
    /// Those of eventfd(2) and epoll_create(2).
    pub(super) fn new(index: usize) -> Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let queue = Self {
            index,
            front: Mutex::default(),
            wanted: AtomicBool::new(false),
            back: Mutex::default(),
            idle: Condvar::new(),
            events,
            wake,
        };
        queue.listen(&queue.wake, Event::Wake)?;
        Ok(queue)
    }

    fn listen(&self, to: impl AsFd, event: Event) -> Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.events, to, epoll::EventData::new_u64(event as u64), flags)?)
    }

    /// The worker shall wake when `kick` is written.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): EPERM if it is nothing that can be waited for.
    pub(super) fn watch(&self, kick: impl AsFd) -> Result<()> {
        self.listen(kick, Event::Kick)
    }

    /// The worker shall not wake for `kick` any more.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn unwatch(&self, kick: impl AsFd) -> Result<()> {
        Ok(epoll::delete(&self.events, kick)?)
    }

    /// Serves `ring` from index `base` of its available ring on.
    ///
    /// # Errors
    /// The ring is not there.
    pub(super) fn start(&self, ring: &Arc<Ring>, memory: &Arc<Memory>, base: u16) -> std::result::Result<(), Broken> {
        let used = Used::new(Arc::clone(ring))?;
        let available = Available::new(Arc::clone(ring), Arc::clone(memory), base);
        let front = Front { available, request: Request::new(self.index), enabled: true, silent: 0 };
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
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
        result
    }

    /// Sleeps until there may be something to do; gives whether the guest said so.
    fn wait(&self) -> bool {
        let mut events = [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 2];
        let count = epoll::wait(&self.events, &mut events, None).unwrap_or(0);
        events.iter().take(count).any(|event| event.data.u64() == Event::Kick as u64)
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

/// The thread of a queue.
pub(super) struct Worker {
    queue: Arc<Queue>,
    device: Arc<dyn Device>,
    pool: Option<Arc<Pool>>,
    answers: Vec<Answer>,
    patience: Patience,
}

impl Worker {
    /// Without a pool every request is handled here, however long it takes.
    pub(super) fn new(queue: Arc<Queue>, device: Arc<dyn Device>, pool: Option<Arc<Pool>>, patience: Patience) -> Self {
        Self { queue, device, pool, answers: Vec::with_capacity(BATCH), patience }
    }

    /// Serves the queue for as long as the process lives.
    pub(super) fn run(mut self) -> ! {
        let queue = Arc::clone(&self.queue);
        loop {
            let kicked = queue.wait();
            stats::slept();
            self.patience.woke();
            loop {
                if queue.wanted.load(Ordering::SeqCst) || !self.serve(&queue, kicked) {
                    break;
                }
            }
        }
    }

    /// Answers a batch; gives whether there is more to do at once.
    fn serve(&mut self, queue: &Arc<Queue>, kicked: bool) -> bool {
        let mut slot = lock(&queue.front);
        let Some(front) = slot.as_mut().filter(|front| front.enabled) else { return false };
        let taken = self.take(queue, front);
        let given = queue.give_back(&mut self.answers);
        let more = given.and(taken).and_then(|taken| match taken {
            Taken::Some => Ok(true),
            Taken::All => Ok(self.watch(queue, front)? || front.available.listen()?),
        });
        if kicked {
            front.hear(queue.index);
        }
        more.unwrap_or_else(|broken| {
            queue.disable(&mut slot, broken);
            false
        })
    }

    /// Looks for more with the guest's kicks still off; gives whether to go on.
    fn watch(&mut self, queue: &Queue, front: &mut Front) -> std::result::Result<bool, Broken> {
        let found = self.patience.watch(|| Ok(queue.wanted.load(Ordering::Relaxed) || front.available.look()?))?;
        if found {
            stats::looked();
        }
        Ok(found)
    }

    fn take(&mut self, queue: &Arc<Queue>, front: &mut Front) -> std::result::Result<Taken, Broken> {
        front.available.quiet()?;
        while front.available.pop(&mut front.request)? {
            let moved = self.answer(queue, front)?;
            let wanted = queue.wanted.load(Ordering::SeqCst);
            if wanted || moved >= LARGE || self.answers.len() >= BATCH {
                return Ok(Taken::Some);
            }
        }
        Ok(Taken::All)
    }

    /// Answers the request that was popped, or sends it to the pool; gives the bytes it moved.
    fn answer(&mut self, queue: &Arc<Queue>, front: &mut Front) -> std::result::Result<u64, Broken> {
        let place = if self.pool.is_some() { Place::Worker } else { Place::Pool };
        let outcome = handle(&*self.device, &mut front.request, place);
        if let (Outcome::Later, Some(pool)) = (outcome, &self.pool) {
            let fresh = queue.hand_over(front.available.size())?;
            let mut request = std::mem::replace(&mut front.request, fresh);
            request.rewind();
            pool.push(Arc::clone(queue), request);
            return Ok(0);
        }
        let len = front.request.used(outcome);
        self.answers.push((front.request.head(), len));
        Ok(u64::from(len).max(front.request.consumed()))
    }
}
