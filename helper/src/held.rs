//! The descriptors of the last requests, so that the next ones need not bring them again.
//!
//! That a descriptor is the share's is proven when it comes, and stays true: no descriptor goes over to another mount.
//! That its node is still in the share is proven anew for each request. What is held keeps a node from being freed; so
//! files are let go, on all channels, when a name is removed, and one without a name is not held.
//!
//! Nothing is closed under a lock: the last who closes a file frees what is in it, which may take long.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use postern_ipc::frame::Malformed;
use postern_ipc::held::{Coming, Slots, UNHELD};

use crate::pin::{Disbelief, Pin};
use crate::share::Share;

type Channel = Mutex<Slots<Arc<Pin>>>;

/// What is held on all channels.
#[derive(Debug)]
pub(crate) struct AllHeld {
    channels: Box<[Channel]>,
    /// How often files were let go.
    removals: AtomicU64,
}

impl AllHeld {
    /// Nothing yet, on so many channels.
    pub(crate) fn new(channels: usize) -> Self {
        Self { channels: (0..channels).map(|_| Channel::default()).collect(), removals: AtomicU64::new(0) }
    }

    /// Each channel's.
    pub(crate) fn each(&self) -> impl Iterator<Item = Held<'_>> {
        self.channels.iter().map(|mine| Held { mine, all: self })
    }
}

/// What is held on one channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held<'a> {
    mine: &'a Channel,
    all: &'a AllHeld,
}

impl Held<'_> {
    /// Lets go what is to be replaced by what has come. It comes first: whatever becomes of a request, the server takes
    /// for held what it has sent, and nothing else must be found in its place.
    pub(crate) fn make_room(self, comings: &[Coming]) {
        for coming in comings {
            if let Coming::Kept(slot) = coming {
                let old = lock(self.mine).slot(*slot).take();
                drop(old);
            }
        }
    }

    /// The next descriptor of a request, proven; `sent` are those that came with it.
    pub(crate) fn prove(
        self,
        coming: Coming,
        sent: &mut impl Iterator<Item = OwnedFd>,
        share: &Share,
    ) -> Result<Arc<Pin>, Disbelief> {
        if let Coming::Held(slot) = coming {
            let pin = lock(self.mine).slot(slot).clone().ok_or(Disbelief::Errno(UNHELD))?;
            pin.prove_again(share)?;
            return Ok(pin);
        }
        let removals = self.all.removals.load(Ordering::SeqCst);
        let fd = sent.next().ok_or(Disbelief::Malformed(Malformed("a request has a wrong number of descriptors")))?;
        let pin = Arc::new(Pin::prove(fd, share)?);
        if let Coming::Kept(slot) = coming {
            let mut mine = lock(self.mine);
            // Who removes a name meanwhile comes by here afterwards, or was counted before.
            if pin.is_dir() || pin.is_named() && self.all.removals.load(Ordering::SeqCst) == removals {
                *mine.slot(slot) = Some(Arc::clone(&pin));
            }
        }
        Ok(pin)
    }

    /// A node may have lost its last name: what is in it is to be freed.
    pub(crate) fn let_files_go(self) {
        self.all.removals.fetch_add(1, Ordering::SeqCst);
        for channel in &self.all.channels {
            let files = lock(channel).take_all(|pin| !pin.is_dir());
            drop(files);
        }
    }
}

/// A panic ends the process.
fn lock(channel: &Channel) -> MutexGuard<'_, Slots<Arc<Pin>>> {
    channel.lock().unwrap_or_else(PoisonError::into_inner)
}
