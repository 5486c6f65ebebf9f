//! Which nodes have no file capabilities, as far as is known.
//!
//! Before a file is first written to, given to somebody else or run, the guest's kernel asks for its
//! `security.capability`, which hardly any has (Linux: security/commoncap.c). That a node has none is remembered as long
//! as the guest may remember attributes: what the host gives a file meanwhile is seen as late as a change of mode is.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::fs::NodeId;

/// The attribute. capabilities(7), "File capability extended attribute versioning"
pub(super) const CAPABILITY: &[u8] = b"security.capability";
/// Nodes that are remembered, each in the one slot that its number leads to.
const SLOTS: usize = 1024;

/// A node, and until when it is known to have none.
type Known = Option<(NodeId, Instant)>;

/// The nodes of a guest.
pub(super) struct Incapable {
    lifetime: Duration,
    slots: Box<[Mutex<Known>]>,
    /// How often the guest gave a file capabilities.
    given: AtomicU64,
}

/// When the file system was asked: what it says is void if the guest gives capabilities meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked(u64);

impl Incapable {
    /// To be remembered for `lifetime`; 0 is not at all.
    pub(super) fn new(lifetime: Duration) -> Self {
        Self { lifetime, slots: (0..SLOTS).map(|_| Mutex::default()).collect(), given: AtomicU64::new(0) }
    }

    /// Before the file system is asked, or told to make a file.
    pub(super) fn ask(&self) -> Asked {
        Asked(self.given.load(Ordering::Acquire))
    }

    /// It says that `node` has none.
    pub(super) fn learn(&self, node: NodeId, asked: Asked) {
        let Some(until) = Instant::now().checked_add(self.lifetime).filter(|_| !self.lifetime.is_zero()) else {
            return;
        };
        self.slot(node, |slot| {
            if self.given.load(Ordering::Acquire) == asked.0 {
                *slot = Some((node, until));
            }
        });
    }

    /// Whether `node` is known to have none.
    pub(super) fn knows(&self, node: NodeId) -> bool {
        self.slot(node, |slot| slot.is_some_and(|(known, until)| known == node && Instant::now() < until))
    }

    /// The guest gave it some.
    pub(super) fn forget(&self, node: NodeId) {
        self.given.fetch_add(1, Ordering::AcqRel);
        self.slot(node, |slot| *slot = None);
    }

    fn slot<R: Default>(&self, node: NodeId, act: impl FnOnce(&mut Known) -> R) -> R {
        let place = usize::try_from(node.0).unwrap_or(usize::MAX) % SLOTS;
        let slot = self.slots.get(place).map(|slot| slot.lock().unwrap_or_else(PoisonError::into_inner));
        slot.map_or_else(R::default, |mut slot| act(&mut slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const NODE: NodeId = NodeId(7);

    #[test]
    fn what_is_learned_is_known_of_that_node_alone() {
        let incapable = Incapable::new(HOUR);
        assert!(!incapable.knows(NODE));
        incapable.learn(NODE, incapable.ask());
        let other = NodeId(NODE.0 + SLOTS as u64);
        assert!(incapable.knows(NODE) && !incapable.knows(other));
        incapable.learn(other, incapable.ask());
        assert!(incapable.knows(other) && !incapable.knows(NODE), "they have one slot");
    }

    #[test]
    fn capabilities_that_are_given_while_the_answer_is_on_its_way_are_seen() {
        let incapable = Incapable::new(HOUR);
        let asked = incapable.ask();
        incapable.forget(NODE);
        incapable.learn(NODE, asked);
        assert!(!incapable.knows(NODE));
        incapable.learn(NODE, incapable.ask());
        incapable.forget(NODE);
        assert!(!incapable.knows(NODE));
    }

    #[test]
    fn it_is_remembered_no_longer_than_attributes_are() {
        for lifetime in [Duration::ZERO, Duration::from_nanos(1)] {
            let incapable = Incapable::new(lifetime);
            incapable.learn(NODE, incapable.ask());
            std::thread::sleep(Duration::from_nanos(1));
            assert!(!incapable.knows(NODE));
        }
    }
}
