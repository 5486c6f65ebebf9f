//! The server's side of the channels: typed from end to end, and renewed when the helper is replaced.
//!
//! Lock order: a link's own lock, then the news. A link has one request under way.
//!
//! Where the threads of a channel run is the kernel's to choose. To keep both on one CPU makes an exchange by itself
//! half as long, and the work of a guest half as long again: the CPU left alone sleeps deeper when the guest wants it.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::channel::{Channel, Received};
use crate::errno::{Errno, Result};
use crate::few::{Descriptors, Few};
use crate::frame::{self, FRAME_MAX, Malformed};
use crate::held::{Coming, Comings, MOST, Slot, Slots, UNHELD};
use crate::id::Caller;
use crate::op::Op;
use crate::patience::Patience;

/// How long an operation waits for another helper.
const REPLACEMENT: Duration = Duration::from_secs(5);

/// Everything that can be asked of the helper, by as many threads as there are channels.
#[derive(Debug)]
pub struct Links {
    links: Box<[Mutex<Link>]>,
    news: Mutex<Standing>,
    changed: Condvar,
    hops: AtomicU64,
    lookers: Lookers,
}

/// Who looks for an answer, and does not sleep.
#[derive(Debug)]
struct Lookers {
    now: AtomicU16,
    /// So many at once.
    most: u16,
    /// How often one found it.
    found: AtomicU64,
}

/// How it stands with the helper.
#[derive(Debug)]
struct Standing {
    /// Channels to a new helper that their links have not taken yet.
    fresh: Vec<Option<Channel>>,
    /// There will be no other helper.
    ended: bool,
}

/// One channel with its buffers.
#[derive(Debug)]
struct Link {
    channel: Option<Channel>,
    believed: Believed,
    patience: Patience,
    serial: u32,
    out: Vec<u8>,
    input: Box<[u8]>,
}

/// What the helper may hold of this channel's last requests. Nothing is kept open by that; but no other descriptor can
/// come to be taken for one of these, as by its number it could.
#[derive(Debug)]
struct Believed {
    slots: Slots<Weak<OwnedFd>>,
    /// The one that was used last.
    last: Slot,
}

/// Why an exchange failed.
enum Broken {
    /// The request did not reach the helper.
    Unsent,
    /// The helper went away before it answered: it may have acted or not.
    Unanswered,
    /// The request cannot be sent as it is, for a reason that is no fault of the helper.
    Refused(Errno),
}

std::thread_local! {
    /// The link this thread prefers.
    static MINE: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

impl Links {
    /// One link for each channel. Who asks looks for the answer for `look` at most before it sleeps (0 is never), and
    /// `lookers` at once: as many as leave a CPU to the helper.
    pub fn new(channels: Vec<Channel>, look: Duration, lookers: u16) -> Self {
        let fresh = channels.iter().map(|_| None).collect();
        let links = channels.into_iter().map(|channel| Mutex::new(Link::new(channel, look))).collect();
        Self {
            links,
            news: Mutex::new(Standing { fresh, ended: false }),
            changed: Condvar::new(),
            hops: AtomicU64::new(0),
            lookers: Lookers::new(lookers),
        }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.links.len()
    }

    /// How often something was asked.
    pub fn hops(&self) -> u64 {
        self.hops.load(Ordering::Relaxed)
    }

    /// How often the answer was found by looking for it, and nobody slept.
    pub fn found(&self) -> u64 {
        self.lookers.found.load(Ordering::Relaxed)
    }

    /// From now on this thread uses link `index`, which no other thread should use.
    pub fn enter(&self, index: usize) {
        MINE.set(index);
    }

    /// The helper was replaced: `channels` lead to the new one.
    pub fn renew(&self, channels: Vec<Channel>) {
        lock(&self.news).fresh = channels.into_iter().map(Some).collect();
        self.changed.notify_all();
    }

    /// The helper was replaced, and its channels are about to be taken: those to the one before that nobody has used lead
    /// nowhere.
    pub fn make_room(&self) {
        lock(&self.news).fresh.iter_mut().for_each(|channel| *channel = None);
    }

    /// There is no helper any more and will be none.
    pub fn end(&self) {
        lock(&self.news).ended = true;
        self.changed.notify_all();
    }

    /// Asks the helper. What it still holds of `at` is not sent again. `data` goes along as it is; the answer's bulk
    /// data is given to `take` before it is overwritten by the next.
    ///
    /// # Errors
    /// What the operation's row says; EIO if the helper is gone, or went while it did something that cannot be
    /// asked twice.
    pub fn call<O: Op, R>(
        &self,
        caller: Caller,
        op: &O,
        at: &O::At<&Arc<OwnedFd>>,
        data: &[u8],
        take: impl FnOnce(O::Reply, O::Gives<OwnedFd>, &[u8]) -> R,
    ) -> Result<R> {
        self.hops.fetch_add(1, Ordering::Relaxed);
        let index = MINE.get();
        let mut link = lock(self.links.get(index).or(self.links.first()).ok_or(Errno::EIO)?);
        let mut again = O::REPEATABLE;
        loop {
            let broken = match link.exchange(caller, op, at.as_ref(), data, &self.lookers) {
                Ok(answer) => {
                    let (reply, gives, range) = answer?;
                    return Ok(take(reply, gives, link.input.get(range).unwrap_or_default()));
                }
                Err(broken) => broken,
            };
            link.believed = Believed::default();
            if let Broken::Refused(errno) = broken {
                return Err(errno);
            }
            link.channel = None;
            // Once: a request that no helper outlives would end them for ever.
            if matches!(broken, Broken::Unanswered) && !std::mem::take(&mut again) {
                log::warn!("{:?} was under way when the helper ended: answered EIO", O::KIND);
                return Err(Errno::EIO);
            }
            link.channel = Some(self.await_channel(index)?);
        }
    }

    fn await_channel(&self, index: usize) -> Result<Channel> {
        let standing = lock(&self.news);
        let waiting =
            |standing: &mut Standing| !standing.ended && standing.fresh.get(index).is_none_or(Option::is_none);
        let (mut standing, _) =
            self.changed.wait_timeout_while(standing, REPLACEMENT, waiting).unwrap_or_else(PoisonError::into_inner);
        standing.fresh.get_mut(index).and_then(Option::take).ok_or(Errno::EIO)
    }
}

type Exchanged<O> = Result<(<O as Op>::Reply, <O as Op>::Gives<OwnedFd>, std::ops::Range<usize>)>;

impl Link {
    fn new(channel: Channel, look: Duration) -> Self {
        let input = vec![0; FRAME_MAX].into();
        let patience = Patience::new(look);
        Self { channel: Some(channel), believed: Believed::default(), patience, serial: 0, out: Vec::new(), input }
    }

    fn exchange<O: Op>(
        &mut self,
        caller: Caller,
        op: &O,
        at: &[&Arc<OwnedFd>],
        data: &[u8],
        lookers: &Lookers,
    ) -> std::result::Result<Exchanged<O>, Broken> {
        self.serial = self.serial.wrapping_add(1);
        frame::encode(&mut self.out, self.serial, O::KIND as u16, None, &(caller, op), data.len())
            .map_err(|_| Broken::Refused(Errno::E2BIG))?;
        let (comings, sent) = self.believed.comings(at);
        let got = match self.transfer(comings, &sent, data, lookers) {
            // It has done nothing, and wants all of them.
            Ok(got) if sent.len() < at.len() && self.is_unheld(&got) => {
                self.believed = Believed::default();
                let all: Sent<'_> = at.iter().map(|one| one.as_fd()).collect();
                self.transfer(Comings::default(), &all, data, lookers)
            }
            got => got,
        };
        let got = got?;
        let message = self.input.get(..got.len).filter(|_| got.fault.is_none()).ok_or(Broken::Unanswered)?;
        if got.lost {
            return Err(Broken::Refused(Errno::ENFILE));
        }
        answer::<O>(message, self.serial, got.descriptors).map_err(|malformed| {
            log::error!("the helper's answer to {:?} is malformed: {malformed}", O::KIND);
            Broken::Unanswered
        })
    }

    /// Sends the request that is in `out`, and waits for the answer.
    fn transfer(
        &mut self,
        comings: Comings,
        sent: &Sent<'_>,
        data: &[u8],
        lookers: &Lookers,
    ) -> std::result::Result<Received, Broken> {
        let channel = self.channel.as_ref().ok_or(Broken::Unsent)?;
        channel.send_coming(&[&self.out, data], sent, comings).map_err(|errno| match errno {
            Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN => Broken::Unsent,
            Errno::ETOOMANYREFS => Broken::Refused(Errno::ENFILE),
            other => Broken::Refused(other),
        })?;
        let got = lookers.await_answer(channel, &mut self.patience, &mut self.input).map_err(|_| Broken::Unanswered)?;
        if got.len == 0 { Err(Broken::Unanswered) } else { Ok(got) }
    }

    fn is_unheld(&self, got: &Received) -> bool {
        let message = self.input.get(..got.len).unwrap_or_default();
        got.fault.is_none() && frame::split(message).is_ok_and(|(header, ..)| header.errno == Some(UNHELD))
    }
}

/// Descriptors that go along.
type Sent<'a> = smallvec::SmallVec<[BorrowedFd<'a>; MOST]>;

impl Default for Believed {
    fn default() -> Self {
        Self { slots: Slots::default(), last: Slot::A }
    }
}

impl Believed {
    /// How each of `at` comes, and those that are to be sent; afterwards the helper holds them all.
    fn comings<'a>(&mut self, at: &[&'a Arc<OwnedFd>]) -> (Comings, Sent<'a>) {
        let (mut comings, mut sent) = (Comings::default(), Sent::new());
        for (coming, &one) in comings.iter_mut().zip(at) {
            *coming = match self.slots.find(|held| std::ptr::eq(held.as_ptr(), Arc::as_ptr(one))) {
                Some(slot) => Coming::Held(slot),
                None => {
                    sent.push(one.as_fd());
                    Coming::Kept(self.last.other())
                }
            };
            if let Coming::Held(slot) | Coming::Kept(slot) = *coming {
                *self.slots.slot(slot) = Some(Arc::downgrade(one));
                self.last = slot;
            }
        }
        (comings, sent)
    }
}

impl Lookers {
    fn new(most: u16) -> Self {
        Self { now: AtomicU16::new(0), most, found: AtomicU64::new(0) }
    }

    /// Looks for it, and sleeps if it does not come so soon or enough others look.
    fn await_answer(&self, channel: &Channel, patience: &mut Patience, input: &mut [u8]) -> Result<Received> {
        let (mut place, mut found) = (None, None);
        let looked = patience.watch(|| {
            if place.is_none() {
                place = Some(Looking::among(self).ok_or(None)?);
            }
            found = channel.look(input).map_err(Some)?;
            Ok(found.is_some())
        });
        drop(place);
        if let Err(Some(errno)) = looked {
            return Err(errno);
        }
        if let Some(found) = found {
            self.found.fetch_add(1, Ordering::Relaxed);
            return Ok(found);
        }
        let got = channel.receive(input)?;
        patience.woke();
        Ok(got)
    }
}

/// One of those who look.
struct Looking<'a>(&'a Lookers);

impl<'a> Looking<'a> {
    fn among(lookers: &'a Lookers) -> Option<Self> {
        let others = lookers.now.fetch_add(1, Ordering::Relaxed);
        let one = Self(lookers);
        (others < lookers.most).then_some(one)
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::Relaxed);
    }
}

fn answer<O: Op>(
    message: &[u8],
    serial: u32,
    descriptors: Descriptors,
) -> std::result::Result<Exchanged<O>, Malformed> {
    let (header, body, data) = frame::split(message)?;
    if header.serial != serial || header.kind != O::KIND as u16 || data.len() > O::REPLY_DATA {
        return Err(Malformed("answers something that was not asked"));
    }
    if let Some(errno) = header.errno {
        return Ok(Err(errno));
    }
    let reply = frame::owned(body)?;
    let gives = Few::all_of(descriptors).ok_or(Malformed("wrong number of descriptors"))?;
    Ok(Ok((reply, gives, message.len().saturating_sub(data.len())..message.len())))
}

/// A panic of another thread leaves nothing half done behind these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
