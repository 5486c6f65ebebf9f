//! Nodes by their numbers, side by side in memory.
//!
//! A number says the view of the share it is of, a place, and how often that place had been taken before. Places are
//! taken again, numbers are not, as far as a guest can tell: a place has 16 million of them. There is no table to grow:
//! one more node never costs more than a chunk.

use super::table::Node;
use crate::fs::{NodeId, ROOT};

/// Nodes allocated together.
const CHUNK: usize = 256;
/// Bits of a number: its place, then its turn, then its view.
const PLACE_BITS: u32 = 28;
const TURN_BITS: u32 = 24;
const PLACE: u64 = (1 << PLACE_BITS) - 1;
const TURN: u32 = (1 << TURN_BITS) - 1;

/// All nodes of a view.
pub(super) struct Slab {
    chunks: Vec<Vec<Slot>>,
    free: Vec<u32>,
    len: usize,
    view: u16,
    /// The turn of a place that was never taken.
    first: u32,
    /// The latest turn of any place.
    latest: u32,
}

struct Slot {
    turn: u32,
    node: Option<Node>,
}

impl Slab {
    /// Of the root alone.
    pub(super) fn new(view: u16, root: Node) -> Self {
        let mut slab = Self { chunks: Vec::new(), free: Vec::new(), len: 0, view, first: 0, latest: 0 };
        slab.insert(root);
        slab
    }

    /// How many.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Which view's.
    pub(super) fn view(&self) -> u16 {
        self.view
    }

    /// A number for `node`; `None` if there are 268 million nodes.
    pub(super) fn insert(&mut self, node: Node) -> Option<NodeId> {
        let place = match self.free.pop() {
            Some(place) => place,
            None => self.grow()?,
        };
        let id = self.id(place)?;
        self.slot_mut(place)?.node = Some(node);
        self.len = self.len.saturating_add(1);
        Some(id)
    }

    /// The node of a number.
    pub(super) fn get(&self, id: NodeId) -> Option<&Node> {
        let place = self.place(id)?;
        self.at(place)
    }

    /// The same to change it.
    pub(super) fn get_mut(&mut self, id: NodeId) -> Option<&mut Node> {
        let place = self.place(id)?;
        self.slot_mut(place)?.node.as_mut()
    }

    /// The number is not used any more.
    pub(super) fn remove(&mut self, id: NodeId) -> Option<Node> {
        let place = self.place(id)?;
        let slot = self.slot_mut(place)?;
        let node = slot.node.take()?;
        slot.turn = slot.turn.wrapping_add(1) & TURN;
        let turn = slot.turn;
        self.latest = self.latest.max(turn);
        self.free.push(place);
        self.len = self.len.saturating_sub(1);
        Some(node)
    }

    /// Leaves the root only; gives what is gone, and the memory back.
    pub(super) fn reset(&mut self) -> Vec<Node> {
        let Some(root) = self.slot_mut(0).and_then(|slot| slot.node.take()) else { return Vec::new() };
        let chunks = std::mem::take(&mut self.chunks);
        let first = self.latest.wrapping_add(1) & TURN;
        *self = Self::new(self.view, root);
        (self.first, self.latest) = (first, first);
        chunks.into_iter().flatten().filter_map(|slot| slot.node).collect()
    }

    /// The place of a number that is in use.
    pub(super) fn place(&self, id: NodeId) -> Option<u32> {
        if id == ROOT {
            return Some(0);
        }
        let place = u32::try_from(id.0 & PLACE).ok()?.checked_sub(1)?;
        (self.id(place)? == id && self.at(place).is_some()).then_some(place)
    }

    /// The number of a place in its present turn.
    pub(super) fn id(&self, place: u32) -> Option<NodeId> {
        if place == 0 {
            return Some(ROOT);
        }
        let turn = u64::from(self.slot(place)?.turn) << PLACE_BITS;
        let view = u64::from(self.view) << (PLACE_BITS + TURN_BITS);
        Some(NodeId(view | turn | u64::from(place).checked_add(1)?))
    }

    /// The node at a place.
    pub(super) fn at(&self, place: u32) -> Option<&Node> {
        self.slot(place)?.node.as_ref()
    }

    fn slot(&self, place: u32) -> Option<&Slot> {
        let place = usize::try_from(place).ok()?;
        self.chunks.get(place / CHUNK)?.get(place % CHUNK)
    }

    fn slot_mut(&mut self, place: u32) -> Option<&mut Slot> {
        let place = usize::try_from(place).ok()?;
        self.chunks.get_mut(place / CHUNK)?.get_mut(place % CHUNK)
    }

    /// A place that was never taken.
    fn grow(&mut self) -> Option<u32> {
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let full = self.chunks.len().saturating_sub(1).checked_mul(CHUNK)?;
        let chunk = self.chunks.last_mut()?;
        let place = u32::try_from(full.checked_add(chunk.len())?).ok().filter(|&place| u64::from(place) < PLACE)?;
        chunk.push(Slot { turn: self.first, node: None });
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::node::Identity;
    use postern_ipc::attr::{Dev, FileId};

    fn node(ino: u64) -> Node {
        Node::new(Identity { id: FileId { mount: 1, dev: Dev::default(), ino }, born: 0 })
    }

    fn ino(slab: &Slab, id: NodeId) -> Option<u64> {
        slab.get(id).map(|node| node.identity.id.ino)
    }

    #[test]
    fn a_place_is_taken_again_and_its_number_is_not() {
        let mut slab = Slab::new(0, node(1));
        let old = slab.insert(node(5)).unwrap();
        assert!(slab.remove(old).is_some() && slab.remove(old).is_none());
        let new = slab.insert(node(6)).unwrap();
        assert_ne!(old, new);
        assert_eq!((ino(&slab, old), ino(&slab, new), slab.len()), (None, Some(6), 2));
        assert_eq!(slab.chunks.iter().map(Vec::len).sum::<usize>(), 2);
    }

    #[test]
    fn the_root_has_its_number_in_every_view_and_others_are_of_one_view() {
        let mut views = [Slab::new(0, node(1)), Slab::new(1, node(1)), Slab::new(4095, node(1))];
        let ids = views.each_mut().map(|view| view.insert(node(5)).unwrap());
        for (i, view) in views.iter().enumerate() {
            assert_eq!(ino(view, ROOT), Some(1));
            for (j, id) in ids.into_iter().enumerate() {
                assert_eq!(ino(view, id), (i == j).then_some(5));
            }
        }
    }

    #[test]
    fn no_number_that_was_not_given_leads_anywhere() {
        let mut slab = Slab::new(3, node(1));
        let given: Vec<_> = (0..1000).map(|n| slab.insert(node(10 + n)).unwrap()).collect();
        let forged = (0..64).flat_map(|bit| given.iter().map(move |id| NodeId(id.0 ^ (1 << bit))));
        for id in forged.chain([NodeId(0), NodeId(u64::MAX), NodeId(PLACE), NodeId(1 << 32 | 1)]) {
            assert!(slab.get(id).is_none() || given.contains(&id) || id == ROOT, "{id:?}");
        }
        for (n, id) in (10..).zip(&given) {
            assert_eq!(ino(&slab, *id), Some(n));
        }
    }

    #[test]
    fn a_reset_gives_all_nodes_back_and_no_number_again() {
        let mut slab = Slab::new(0, node(1));
        let old: Vec<_> = (0..600).map(|n| slab.insert(node(10 + n)).unwrap()).collect();
        slab.remove(old[7]).unwrap();
        assert_eq!((slab.reset().len(), slab.len()), (599, 1));
        assert_eq!(ino(&slab, ROOT), Some(1));
        let new: Vec<_> = (0..600).map(|n| slab.insert(node(10 + n)).unwrap()).collect();
        assert!(old.iter().all(|id| slab.get(*id).is_none() && !new.contains(id)));
    }

    // Turns are counted in as many bits as there are in a number
    #[test]
    fn after_its_last_turn_a_place_begins_anew() {
        let mut slab = Slab::new(0, node(1));
        let first = slab.insert(node(5)).unwrap();
        slab.slot_mut(1).unwrap().turn = TURN;
        let last = slab.id(1).unwrap();
        slab.remove(last).unwrap();
        assert_eq!(slab.insert(node(6)), Some(first));
    }

    #[test]
    fn a_node_takes_less_than_a_hundred_bytes() {
        assert!(size_of::<Slot>() <= 96, "{}", size_of::<Slot>());
    }
}
