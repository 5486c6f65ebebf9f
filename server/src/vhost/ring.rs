//! A split virtqueue, as the device sees it. virtio 1.2, section 2.7
//!
//! Our own rather than virtio-queue's: that one looks every ring access up in the memory table, publishes the used
//! index for each element instead of once a batch, and ends a bad chain silently, so that a cut one looks whole.
//! The two sides of the ring are two types: the worker alone takes from the available ring, while workers and pool
//! give back through the used ring under its lock.

use std::fmt;
use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use virtio_bindings::virtio_ring::{VRING_AVAIL_F_NO_INTERRUPT, VRING_USED_F_NO_NOTIFY};
use vm_memory::Bytes;

use super::memory::{Memory, Span};
use super::request::Request;

/// Most descriptors of a ring. virtio 1.2, section 2.7
pub(super) const MAX_SIZE: u16 = 32768;

/// Offset of `flags` in both rings.
const FLAGS: usize = 0;
/// Offset of `idx` in both rings.
const INDEX: usize = 2;
/// Offset of the first element in both rings.
const ELEMENTS: usize = 4;
/// Bytes of an element of the used ring: head and length.
const USED_ELEMENT: usize = 8;

/// Where the VMM says that a ring is, in addresses of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

/// A ring in the guest's memory.
#[derive(Debug)]
pub(super) struct Ring {
    /// A power of two.
    size: u16,
    event_idx: bool,
    descriptors: Span,
    available: Span,
    used: Span,
}

/// Why a ring cannot go on. Only a guest out of its mind does that; there is nothing left that could be answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Broken {
    /// The available index is further ahead than the ring is long.
    Jump { from: u16, to: u16 },
    /// A chain begins outside the descriptor table.
    Head(u16),
    /// More chains are under way than the ring has descriptors.
    Crowd,
    /// The ring is not where it was checked to be.
    Lost,
}

type Result<T> = std::result::Result<T, Broken>;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Jump { from, to } => write!(f, "its available index jumped from {from} to {to}"),
            Self::Head(head) => write!(f, "descriptor {head} is outside the table"),
            Self::Crowd => write!(f, "it has more requests under way than descriptors"),
            Self::Lost => write!(f, "it is not within a region of guest memory"),
        }
    }
}

impl Ring {
    /// Finds the ring in `memory`; `None` if any of its parts is not within one region, or not aligned there.
    pub(super) fn find(memory: &Memory, size: u16, at: Addresses, event_idx: bool) -> Option<Self> {
        let count = usize::from(size);
        let bytes = |each: usize, more: usize| count.checked_mul(each)?.checked_add(more);
        let ring = Self {
            size,
            event_idx,
            descriptors: memory.span(at.descriptors, bytes(16, 0)?)?,
            available: memory.span(at.available, bytes(2, ELEMENTS.checked_add(2)?)?)?,
            used: memory.span(at.used, bytes(USED_ELEMENT, ELEMENTS.checked_add(2)?)?)?,
        };
        load(&ring.available, INDEX).and(load(&ring.used, INDEX)).ok().map(|_| ring)
    }

    fn slot(&self, index: Wrapping<u16>) -> usize {
        usize::from(index.0 & self.size.wrapping_sub(1))
    }

    /// Behind the last element: `used_event` in the available ring, `avail_event` in the used ring.
    fn event(&self, element: usize) -> usize {
        usize::from(self.size).saturating_mul(element).saturating_add(ELEMENTS)
    }
}

/// Reads two bytes, once. What must not be read before them is ordered after them.
fn load(span: &Span, offset: usize) -> Result<u16> {
    let slice = span.slice().map_err(|_| Broken::Lost)?;
    slice.load::<u16>(offset, Ordering::Acquire).map(u16::from_le).map_err(|_| Broken::Lost)
}

/// Writes two bytes after everything written before.
fn store(span: &Span, offset: usize, value: u16) -> Result<()> {
    let slice = span.slice().map_err(|_| Broken::Lost)?;
    slice.store::<u16>(value.to_le(), offset, Ordering::Release).map_err(|_| Broken::Lost)
}

/// What the guest makes available.
#[derive(Debug)]
pub(super) struct Available {
    ring: Arc<Ring>,
    memory: Arc<Memory>,
    /// The next to take.
    next: Wrapping<u16>,
    /// The guest's index when last looked at.
    seen: Wrapping<u16>,
}

impl Available {
    /// Begins at index `base`.
    pub(super) fn new(ring: Arc<Ring>, memory: Arc<Memory>, base: u16) -> Self {
        Self { ring, memory, next: Wrapping(base), seen: Wrapping(base) }
    }

    /// Goes on with the same ring in other mappings.
    pub(super) fn rebase(&mut self, ring: Arc<Ring>, memory: Arc<Memory>) {
        self.ring = ring;
        self.memory = memory;
    }

    /// The index of the next chain to take.
    pub(super) fn base(&self) -> u16 {
        self.next.0
    }

    /// As if no driver had ever used it.
    pub(super) fn is_untouched(&self) -> bool {
        self.next.0 == 0 && self.seen.0 == 0
    }

    /// Most requests that can be under way.
    pub(super) fn size(&self) -> u16 {
        self.ring.size
    }

    /// Takes the next chain into `request`; `false` if there is none.
    pub(super) fn pop(&mut self, request: &mut Request) -> Result<bool> {
        if self.next == self.seen && !self.look()? {
            return Ok(false);
        }
        let offset = self.ring.slot(self.next).saturating_mul(2).saturating_add(ELEMENTS);
        let head = load(&self.ring.available, offset)?;
        if head >= self.ring.size {
            return Err(Broken::Head(head));
        }
        self.next += 1;
        request.load(&self.memory, &self.ring.descriptors, self.ring.size, head);
        Ok(true)
    }

    /// Whether there is more than was seen before.
    pub(super) fn look(&mut self) -> Result<bool> {
        let index = Wrapping(load(&self.ring.available, INDEX)?);
        if (index - self.next).0 > self.ring.size {
            return Err(Broken::Jump { from: self.next.0, to: index.0 });
        }
        self.seen = index;
        Ok(self.seen != self.next)
    }

    /// The guest need not kick for now. With event indices it has nothing to be told: it kicks once for each
    /// `avail_event` that is passed.
    pub(super) fn quiet(&mut self) -> Result<()> {
        if self.ring.event_idx {
            return Ok(());
        }
        store(&self.ring.used, FLAGS, VRING_USED_F_NO_NOTIFY.try_into().unwrap_or_default())
    }

    /// The guest shall kick for the next chain; gives whether one came before it could know that.
    pub(super) fn listen(&mut self) -> Result<bool> {
        if self.ring.event_idx {
            store(&self.ring.used, self.ring.event(USED_ELEMENT), self.next.0)?;
        } else {
            store(&self.ring.used, FLAGS, 0)?;
        }
        // The guest writes its index, then reads our event; we write our event, then read its index.
        fence(Ordering::SeqCst);
        self.look()
    }
}

/// What is given back to the guest.
#[derive(Debug)]
pub(super) struct Used {
    ring: Arc<Ring>,
    /// The next element to write.
    next: Wrapping<u16>,
    /// The index the guest knows.
    published: Wrapping<u16>,
    /// Nothing published yet: what the guest waits for is not known.
    fresh: bool,
}

impl Used {
    /// Goes on where the ring's own index is.
    pub(super) fn new(ring: Arc<Ring>) -> Result<Self> {
        let next = Wrapping(load(&ring.used, INDEX)?);
        Ok(Self { ring, next, published: next, fresh: true })
    }

    /// Goes on with the same ring in other mappings.
    pub(super) fn rebase(&mut self, ring: Arc<Ring>) {
        self.ring = ring;
    }

    /// Gives a chain back with `len` bytes written. The guest sees it when it is published.
    pub(super) fn push(&mut self, head: u16, len: u32) -> Result<()> {
        let element = u64::from(head) | u64::from(len) << 32;
        let offset = self.ring.slot(self.next).saturating_mul(USED_ELEMENT).saturating_add(ELEMENTS);
        let slice = self.ring.used.slice().map_err(|_| Broken::Lost)?;
        slice.write_slice(&element.to_le_bytes(), offset).map_err(|_| Broken::Lost)?;
        self.next += 1;
        Ok(())
    }

    /// Shows the guest what was pushed; gives whether it wants to be called.
    pub(super) fn publish(&mut self) -> Result<bool> {
        let (old, new) = (self.published, self.next);
        if old == new {
            return Ok(false);
        }
        store(&self.ring.used, INDEX, new.0)?;
        self.published = new;
        // We write our index, then read the guest's event; it writes its event, then reads our index.
        fence(Ordering::SeqCst);
        if std::mem::take(&mut self.fresh) {
            return Ok(true);
        }
        if self.ring.event_idx {
            let event = Wrapping(load(&self.ring.available, self.ring.event(2))?);
            return Ok((new - event - Wrapping(1)) < (new - old));
        }
        Ok(u32::from(load(&self.ring.available, FLAGS)?) & VRING_AVAIL_F_NO_INTERRUPT == 0)
    }
}
