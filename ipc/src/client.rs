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
mod tests {
    use super::*;
    use crate::attr::RenameFlags;
    use crate::name::FileName;
    use crate::op::{Kind, Rename, Rmdir, SyncFs};

    const HOUR: Duration = Duration::from_secs(3600);

    fn serve_one(end: &Channel) {
        let mut buffer = vec![0; FRAME_MAX];
        let got = end.receive(&mut buffer).unwrap();
        let (header, _, _) = frame::split(&buffer[..got.len]).unwrap();
        let mut out = Vec::new();
        frame::encode(&mut out, header.serial, header.kind, None, &(), 0).unwrap();
        end.send(&[&out, b""], &[]).unwrap();
    }

    fn ask<O: Op>(links: &Links, op: &O) -> Result<()> {
        let null = Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").unwrap()));
        let at = O::At::all_of([&null]).unwrap();
        links.call(Caller::Root, op, &at, b"", |_, _, _| ())
    }

    fn rmdir() -> Rmdir {
        Rmdir { name: FileName::new(b"d").unwrap() }
    }

    #[test]
    fn a_repeatable_request_is_asked_again_of_a_new_helper() {
        let (mine, old) = Channel::pair().unwrap();
        let (fresh, new) = Channel::pair().unwrap();
        let links = Links::new(vec![mine], Duration::ZERO, 0);
        drop(old);
        links.renew(vec![fresh]);
        let helper = std::thread::spawn(move || serve_one(&new));
        assert_eq!(ask(&links, &SyncFs {}), Ok(()));
        helper.join().unwrap();
    }

    #[test]
    fn what_may_have_been_done_is_not_done_twice() {
        let (mine, old) = Channel::pair().unwrap();
        let (fresh, new) = Channel::pair().unwrap();
        let links = Links::new(vec![mine], Duration::ZERO, 0);
        links.renew(vec![fresh]);
        let dying = std::thread::spawn(move || old.receive(&mut [0; FRAME_MAX]).map(drop));
        assert_eq!(ask(&links, &rmdir()), Err(Errno::EIO));
        dying.join().unwrap().unwrap();
        let helper = std::thread::spawn(move || serve_one(&new));
        assert_eq!(ask(&links, &rmdir()), Ok(()), "the next request goes to the new helper");
        helper.join().unwrap();
    }

    // postern-ipc: again: may be sent once more
    #[test]
    fn a_request_that_no_helper_outlives_is_not_asked_for_ever() {
        let dying = |end: Channel| std::thread::spawn(move || end.receive(&mut [0; FRAME_MAX]).map(drop));
        let ends: Vec<_> = (0..3).map(|_| Channel::pair().unwrap()).collect();
        let mut ends = ends.into_iter();
        let (mine, first) = ends.next().unwrap();
        let (second, its) = ends.next().unwrap();
        let (third, living) = ends.next().unwrap();
        let links = Links::new(vec![mine], Duration::ZERO, 0);
        links.renew(vec![second]);
        let helpers = [dying(first), dying(its)];
        assert_eq!(ask(&links, &SyncFs {}), Err(Errno::EIO));
        helpers.into_iter().for_each(|helper| helper.join().unwrap().unwrap());
        links.renew(vec![third]);
        let helper = std::thread::spawn(move || serve_one(&living));
        assert_eq!(ask(&links, &SyncFs {}), Ok(()), "the next request goes to the new helper");
        helper.join().unwrap();
    }

    #[test]
    fn without_a_helper_the_answer_is_eio_at_once() {
        let (mine, old) = Channel::pair().unwrap();
        let links = Links::new(vec![mine], Duration::ZERO, 0);
        drop(old);
        links.end();
        assert_eq!(ask(&links, &rmdir()), Err(Errno::EIO));
    }

    #[test]
    fn an_answer_that_comes_at_once_is_looked_for_and_nobody_sleeps() {
        let (mine, its) = Channel::pair().unwrap();
        let mut buffer = [0; 8];
        for (look, most, often) in [(HOUR, 1, 92), (Duration::ZERO, 1, 0), (HOUR, 0, 0)] {
            let (lookers, mut patience) = (Lookers::new(most), Patience::new(look));
            for _ in 0..100 {
                its.send(&[b"answer", b""], &[]).unwrap();
                assert_eq!(lookers.await_answer(&mine, &mut patience, &mut buffer).unwrap().len, 6);
            }
            assert_eq!((lookers.found.into_inner(), lookers.now.into_inner()), (often, 0));
        }
    }

    #[test]
    fn who_looks_sees_that_the_helper_is_gone() {
        let (mine, its) = Channel::pair().unwrap();
        let (lookers, mut patience) = (Lookers::new(1), Patience::new(HOUR));
        (0..8).for_each(|_| its.send(&[b"answer", b""], &[]).unwrap());
        drop(its);
        let lengths: Vec<_> =
            (0..9).map(|_| lookers.await_answer(&mine, &mut patience, &mut [0; 8]).unwrap().len).collect();
        assert_eq!(lengths, [6, 6, 6, 6, 6, 6, 6, 6, 0]);
        assert_eq!(lookers.found.into_inner(), 1);
    }

    /// What a helper sees of so many requests: how their descriptors come, and how many. It holds nothing of the request
    /// with the number `forgets`.
    fn comings(links: &Links, its: &Channel, forgets: usize, ask: impl FnOnce(&Links)) -> Vec<(Comings, usize)> {
        std::thread::scope(|scope| {
            let serving = scope.spawn(move || {
                let (mut buffer, mut seen) = (vec![0; FRAME_MAX], Vec::new());
                loop {
                    let got = its.receive(&mut buffer).unwrap();
                    let (header, ..) = frame::split(&buffer[..got.len]).unwrap();
                    if header.kind == Kind::Stat as u16 {
                        return seen;
                    }
                    let errno = if seen.len() == forgets { Some(UNHELD) } else { Some(Errno::EROFS) };
                    seen.push((got.comings, got.descriptors.len()));
                    let mut out = Vec::new();
                    frame::encode(&mut out, header.serial, header.kind, errno, &(), 0).unwrap();
                    its.send(&[&out, b""], &[]).unwrap();
                }
            });
            ask(links);
            let mut end = Vec::new();
            frame::encode(&mut end, 0, Kind::Stat as u16, None, &(), 0).unwrap();
            let link = lock(&links.links[0]);
            link.channel.as_ref().unwrap().send(&[&end, b""], &[]).unwrap();
            serving.join().unwrap()
        })
    }

    fn file() -> Arc<OwnedFd> {
        Arc::new(std::fs::File::open("/dev/null").unwrap().into())
    }

    fn ask_about<O: Op>(links: &Links, op: &O, at: &[&Arc<OwnedFd>]) {
        let at = O::At::all_of(at.iter().copied()).unwrap();
        assert_eq!(links.call(Caller::Root, op, &at, b"", |_, _, _| ()), Err(Errno::EROFS));
    }

    const SENT: Coming = Coming::Sent;

    #[test]
    fn a_descriptor_that_the_helper_holds_is_not_sent_again() {
        let (mine, its) = Channel::pair().unwrap();
        let links = Links::new(vec![mine], Duration::ZERO, 0);
        let (a, b, c) = (file(), file(), file());
        let name = |text: &[u8]| FileName::new(text).unwrap();
        let rename = Rename { name: name(b"a"), new_name: name(b"b"), flags: RenameFlags::empty() };
        let seen = comings(&links, &its, usize::MAX, |links| {
            [&a, &a, &b, &a, &c, &a, &b].iter().for_each(|one| ask_about(links, &rmdir(), &[one]));
            ask_about(links, &rename, &[&c, &c]);
            ask_about(links, &rename, &[&a, &c]);
        });
        let (first, other) = (Slot::B, Slot::A);
        let kept = |slot| ([Coming::Kept(slot), SENT], 1);
        let held = |slot| ([Coming::Held(slot), SENT], 0);
        let each = [kept(first), held(first), kept(other), held(first), kept(other), held(first), kept(other)];
        assert_eq!(seen[..7], each, "the one that was not used last is replaced");
        assert_eq!(seen[7], ([Coming::Kept(first), Coming::Held(first)], 1));
        assert_eq!(seen[8], ([Coming::Kept(other), Coming::Held(first)], 1));
    }

    // close(2): the number is given to the next that is opened.
    #[test]
    fn another_descriptor_with_the_number_of_one_that_is_held_is_sent() {
        let (mine, its) = Channel::pair().unwrap();
        let links = Links::new(vec![mine], Duration::ZERO, 0);
        let seen = comings(&links, &its, usize::MAX, |links| {
            for _ in 0..4 {
                ask_about(links, &rmdir(), &[&file()]);
            }
        });
        assert_eq!(seen.len(), 4);
        assert!(seen.iter().all(|(comings, sent)| matches!(comings, [Coming::Kept(_), Coming::Sent]) && *sent == 1));
    }

    #[test]
    fn a_helper_that_holds_nothing_more_is_sent_all_once_more() {
        let (mine, its) = Channel::pair().unwrap();
        let links = Links::new(vec![mine], Duration::ZERO, 0);
        let a = file();
        let seen = comings(&links, &its, 1, |links| (0..3).for_each(|_| ask_about(links, &rmdir(), &[&a])));
        let kept = Coming::Kept(Slot::B);
        let held = Coming::Held(Slot::B);
        assert_eq!(seen, [([kept, SENT], 1), ([held, SENT], 0), ([SENT, SENT], 1), ([kept, SENT], 1)]);
    }

    #[test]
    fn one_that_a_request_names_twice_is_then_sent_twice() {
        let (mine, its) = Channel::pair().unwrap();
        let links = Links::new(vec![mine], Duration::ZERO, 0);
        let (a, name) = (file(), |text: &[u8]| FileName::new(text).unwrap());
        let rename = Rename { name: name(b"a"), new_name: name(b"b"), flags: RenameFlags::empty() };
        let seen = comings(&links, &its, 0, |links| ask_about(links, &rename, &[&a, &a]));
        assert_eq!(seen, [([Coming::Kept(Slot::B), Coming::Held(Slot::B)], 1), ([SENT, SENT], 2)]);
    }

    #[test]
    fn another_helper_holds_nothing() {
        let (mine, old) = Channel::pair().unwrap();
        let (fresh, new) = Channel::pair().unwrap();
        let links = Links::new(vec![mine], Duration::ZERO, 0);
        let a = file();
        assert_eq!(comings(&links, &old, usize::MAX, |links| ask_about(links, &rmdir(), &[&a])).len(), 1);
        links.renew(vec![fresh]);
        drop(old);
        let seen = comings(&links, &new, usize::MAX, |links| ask_about(links, &rmdir(), &[&a]));
        assert!(matches!(seen[..], [([Coming::Kept(_), Coming::Sent], 1)]), "{seen:?}");
    }

    #[test]
    fn an_answer_to_another_question_is_not_taken() {
        let mut out = Vec::new();
        frame::encode(&mut out, 8, Kind::Rmdir as u16, None, &(), 0).unwrap();
        assert!(answer::<Rmdir>(&out, 7, Descriptors::new()).is_err());
        assert!(answer::<SyncFs>(&out, 8, Descriptors::new()).is_err());
        assert!(answer::<Rmdir>(&out, 8, Descriptors::new()).is_ok_and(|answer| answer.is_ok()));
    }
}
