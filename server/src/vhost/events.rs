//! What wakes a worker: the kicks of its queues, and the connection. Edge-triggered, so that none needs to be read.

use std::os::fd::{AsFd, OwnedFd};

use postern_ipc::Result;
use rustix::event::{EventfdFlags, epoll, eventfd};

/// Most told at once; others are told the next time.
const MOST: usize = 8;
/// The connection has changed something.
const WAKE: u64 = u64::MAX;

/// Of one worker.
pub(super) struct Events {
    events: OwnedFd,
    wake: OwnedFd,
}

/// Which of a worker's queues were kicked, by their positions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Kicked(u64);

impl Kicked {
    /// Whether the queue at `position` was.
    pub(super) fn has(self, position: usize) -> bool {
        u32::try_from(position).ok().and_then(|bit| self.0.checked_shr(bit)).is_some_and(|bits| bits & 1 == 1)
    }
}

impl Events {
    /// # Errors
    /// Those of eventfd(2) and epoll_create(2).
    pub(super) fn new() -> Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        listen(&events, &wake, WAKE)?;
        Ok(Self { events, wake })
    }

    /// A write to `kick` wakes the worker for its queue at `position`.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): EPERM if it is nothing that can be waited for.
    pub(super) fn add(&self, kick: impl AsFd, position: usize) -> Result<()> {
        listen(&self.events, kick, u64::try_from(position).unwrap_or(WAKE))
    }

    /// A write to `kick` wakes nobody any more.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn remove(&self, kick: impl AsFd) -> Result<()> {
        Ok(epoll::delete(&self.events, kick)?)
    }

    /// The worker shall look what has changed.
    pub(super) fn wake(&self) {
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    /// Sleeps until there may be something to do; gives for which queues the guest said so.
    pub(super) fn wait(&self) -> Kicked {
        let none = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(WAKE) };
        let mut events = [none; MOST];
        let count = epoll::wait(&self.events, &mut events, None).unwrap_or(0);
        let bit = |event: &epoll::Event| 1_u64.checked_shl(u32::try_from(event.data.u64()).ok()?);
        Kicked(events.iter().take(count).filter_map(bit).fold(0, |all, bit| all | bit))
    }
}

fn listen(events: impl AsFd, to: impl AsFd, data: u64) -> Result<()> {
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    Ok(epoll::add(events, to, epoll::EventData::new_u64(data), flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_learns_which_queues_were_kicked() {
        let (events, kicks) = (Events::new().unwrap(), [(); 12].map(|()| eventfd(0, EventfdFlags::NONBLOCK).unwrap()));
        for (position, kick) in kicks.iter().enumerate() {
            events.add(kick, position).unwrap();
        }
        let kick = |position: usize| assert_eq!(rustix::io::write(&kicks[position], &1_u64.to_ne_bytes()), Ok(8));
        let woken_by = |kicked: Kicked| (0..64).filter(|&position| kicked.has(position)).collect::<Vec<_>>();
        kick(3);
        kick(11);
        assert_eq!(woken_by(events.wait()), [3, 11]);
        events.wake();
        assert_eq!(woken_by(events.wait()), [0; 0]);
        events.remove(&kicks[3]).unwrap();
        (0..12).for_each(kick);
        let mut all = [woken_by(events.wait()), woken_by(events.wait())].concat();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11]);
    }
}
