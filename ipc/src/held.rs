//! What a helper holds of one request for the next: descriptors that need not be sent again.
//!
//! Each channel has a few slots. A request says of each of its descriptors whether it is sent, sent to be held in a
//! slot, or held there since an earlier one. A helper may give up what it holds at any time: then it answers
//! [`UNHELD`], has done nothing, and is asked again with all descriptors. So what is held is never more than a cache,
//! and a helper that knows nothing serves as well.

use crate::errno::Errno;
use crate::frame::Malformed;

/// The answer to a request for what is not held. No operation of the table gives it.
pub const UNHELD: Errno = Errno::EBADSLT;

/// Most descriptors that come with a request.
pub const MOST: usize = 2;

/// One of a channel's slots: as many as one request needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// The one.
    A,
    /// The other.
    B,
}

impl Slot {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// How a descriptor of a request comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Coming {
    /// It is sent.
    #[default]
    Sent,
    /// It is sent, and is to be held.
    Kept(Slot),
    /// It was sent before and is held.
    Held(Slot),
}

/// How all of a request's descriptors come, in the order of its row.
pub type Comings = [Coming; MOST];

impl From<Coming> for u8 {
    fn from(coming: Coming) -> Self {
        match coming {
            Coming::Sent => 0,
            Coming::Kept(Slot::A) => 1,
            Coming::Kept(Slot::B) => 2,
            Coming::Held(Slot::A) => 3,
            Coming::Held(Slot::B) => 4,
        }
    }
}

impl TryFrom<u8> for Coming {
    type Error = Malformed;

    fn try_from(number: u8) -> Result<Self, Malformed> {
        Ok(match number {
            0 => Self::Sent,
            1 => Self::Kept(Slot::A),
            2 => Self::Kept(Slot::B),
            3 => Self::Held(Slot::A),
            4 => Self::Held(Slot::B),
            _ => return Err(Malformed("a descriptor comes in no known way")),
        })
    }
}

/// The slots of a channel.
#[derive(Debug)]
pub struct Slots<T> {
    a: Option<T>,
    b: Option<T>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { a: None, b: None }
    }
}

impl<T> Slots<T> {
    /// What is in a slot.
    pub fn slot(&mut self, slot: Slot) -> &mut Option<T> {
        match slot {
            Slot::A => &mut self.a,
            Slot::B => &mut self.b,
        }
    }

    /// The slot whose content is such.
    pub fn find(&self, is_such: impl Fn(&T) -> bool) -> Option<Slot> {
        let is = |content: &Option<T>| content.as_ref().is_some_and(&is_such);
        if is(&self.a) { Some(Slot::A) } else { is(&self.b).then_some(Slot::B) }
    }

    /// Takes out what is such.
    pub fn take_all(&mut self, is_such: impl Fn(&T) -> bool) -> [Option<T>; MOST] {
        [&mut self.a, &mut self.b].map(|content| content.take_if(|content| is_such(content)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_come_is_read_as_it_was_written_and_no_other_is_known() {
        for number in 0..=u8::MAX {
            match Coming::try_from(number) {
                Ok(coming) => assert_eq!(u8::from(coming), number),
                Err(_) => assert!(number > 4),
            }
        }
    }

    #[test]
    fn a_slot_is_found_by_its_content_and_loses_what_is_taken_out() {
        let mut slots = Slots::default();
        *slots.slot(Slot::A) = Some(1);
        *slots.slot(Slot::B) = Some(2);
        assert_eq!((slots.find(|one| *one == 2), slots.find(|one| *one == 3)), (Some(Slot::B), None));
        assert_eq!(slots.take_all(|one| *one == 1), [Some(1), None]);
        assert_eq!((*slots.slot(Slot::A), *slots.slot(Slot::B)), (None, Some(2)));
    }
}
