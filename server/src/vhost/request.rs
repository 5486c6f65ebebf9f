//! A request: one descriptor chain, read once.
//!
//! A chain is whatever a hostile guest wrote. What of it can be used is gathered as a readable and a writable run of
//! guest memory; what is wrong with it becomes a [`Fault`], with everything before the faulty descriptor still there,
//! so that a device that finds its header can answer an errno to it. The buffers are kept from chain to chain.

use std::sync::Arc;

use postern_ipc::{Errno, Result};
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, little_endian};

use super::device::Outcome;
use super::memory::{Cursor, GuestIovecs, Memory, Segments, Span};

/// Most descriptors of a chain, indirect ones included: as many as QEMU takes (VIRTQUEUE_MAX_SIZE), and as many as
/// preadv2(2) takes iovecs (IOV_MAX).
const MAX_DESCRIPTORS: u16 = 1024;

/// `struct vring_desc` of linux/virtio_ring.h.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Descriptor {
    address: little_endian::U64,
    len: little_endian::U32,
    flags: little_endian::U16,
    next: little_endian::U16,
}

/// Its bytes.
const DESCRIPTOR: u32 = 16;
const _: () = assert!(size_of::<Descriptor>() == DESCRIPTOR as usize);

/// The memory of a request that holds none.
static NOTHING: Memory = Memory::new();

/// What is wrong with a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A buffer or table lies outside the guest's memory; it and what follows it in the same direction is left out.
    Address,
    /// A readable buffer follows a writable one.
    Order,
    /// A descriptor leads out of its table or back to where the chain has been, or an indirect table is no table.
    Chain,
    /// More descriptors or bytes than a chain may have.
    TooLong,
}

impl Fault {
    /// What to answer.
    pub fn errno(self) -> Errno {
        match self {
            Self::Address => Errno::EFAULT,
            Self::Order | Self::Chain => Errno::EINVAL,
            Self::TooLong => Errno::E2BIG,
        }
    }
}

/// What the guest asks, and the room for the answer.
#[derive(Debug)]
pub struct Request {
    /// None between chains of the pool, so that an unused one holds no mapping.
    memory: Option<Arc<Memory>>,
    queue: usize,
    head: u16,
    readable: Half,
    writable: Half,
    table: Segments,
    next: Cursor,
    remaining: usize,
    fault: Option<Fault>,
    /// What the device knows it by from when it puts it off until it is given back; 0 for a new one.
    pub ticket: u64,
}

/// The buffers of one direction.
#[derive(Debug, Default)]
struct Half {
    segments: Segments,
    /// A buffer is missing: nothing behind it counts.
    broken: bool,
}

impl Request {
    /// An empty one for chains of `queue`.
    pub(super) fn new(queue: usize) -> Self {
        Self {
            memory: None,
            queue,
            head: 0,
            readable: Half::default(),
            writable: Half::default(),
            table: Segments::default(),
            next: Cursor::default(),
            remaining: 0,
            fault: None,
            ticket: 0,
        }
    }

    /// The queue it came from, counted from 0.
    pub fn queue(&self) -> usize {
        self.queue
    }

    /// What is wrong with the chain, if anything.
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Bytes that can still be read.
    pub fn remaining(&self) -> usize {
        self.remaining
    }

    /// The next `len` bytes, as they are in the guest's memory, for [`super::pwritev2`].
    ///
    /// # Errors
    /// EINVAL if there are not so many.
    pub fn take(&mut self, len: usize) -> Result<GuestIovecs<'_>> {
        self.remaining = self.remaining.checked_sub(len).ok_or(Errno::EINVAL)?;
        let at = self.next;
        self.next = self.readable.segments.advance(at, len);
        Ok(self.readable.segments.run(self.memory(), at, len))
    }

    /// Copies the next bytes.
    ///
    /// # Errors
    /// EINVAL if there are not so many.
    pub fn read_exact(&mut self, into: &mut [u8]) -> Result<()> {
        self.take(into.len())?.copy_to(into)
    }

    /// Reads a structure.
    ///
    /// # Errors
    /// EINVAL if there is less.
    pub fn read_obj<T: FromBytes + IntoBytes>(&mut self) -> Result<T> {
        let mut value = T::new_zeroed();
        self.read_exact(value.as_mut_bytes())?;
        Ok(value)
    }

    /// Copies all that is left to the beginning of `into`.
    ///
    /// # Errors
    /// E2BIG if it does not fit; nothing is read then.
    pub fn read_rest<'b>(&mut self, into: &'b mut [u8]) -> Result<&'b mut [u8]> {
        let rest = into.get_mut(..self.remaining).ok_or(Errno::E2BIG)?;
        self.read_exact(rest)?;
        Ok(rest)
    }

    /// Reading begins anew; a guest that changed its memory meanwhile is seen to have done so.
    pub fn rewind(&mut self) {
        self.next = Cursor::default();
        self.remaining = usize::try_from(self.readable.segments.len()).unwrap_or(usize::MAX);
    }

    /// Bytes of room for the answer.
    pub fn room(&self) -> usize {
        usize::try_from(self.writable.segments.len()).unwrap_or(usize::MAX)
    }

    /// `len` bytes of the room from `offset` on, for [`super::preadv2`].
    ///
    /// # Errors
    /// ENOBUFS if there is less room.
    pub fn room_at(&self, offset: usize, len: usize) -> Result<GuestIovecs<'_>> {
        offset.checked_add(len).filter(|end| *end <= self.room()).ok_or(Errno::ENOBUFS)?;
        let at = self.writable.segments.advance(Cursor::default(), offset);
        Ok(self.writable.segments.run(self.memory(), at, len))
    }

    /// Copies `bytes` into the room at `offset`.
    ///
    /// # Errors
    /// ENOBUFS if there is less room; nothing is written then.
    pub fn write_at(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        self.room_at(offset, bytes.len())?.copy_from(bytes)
    }

    /// The chain's first descriptor, by which it is given back.
    pub(super) fn head(&self) -> u16 {
        self.head
    }

    /// The used length that `outcome` stands for: never more than there is room.
    pub(super) fn used(&self, outcome: Outcome) -> u32 {
        match outcome {
            Outcome::Done(len) => u32::try_from(self.room()).unwrap_or(u32::MAX).min(len),
            Outcome::Later => 0,
        }
    }

    /// Bytes that were read.
    pub(super) fn consumed(&self) -> u64 {
        self.readable.segments.len().saturating_sub(u64::try_from(self.remaining).unwrap_or(u64::MAX))
    }

    /// Lets go of the guest's memory.
    pub(super) fn release(&mut self) {
        self.readable.clear();
        self.writable.clear();
        self.table.clear();
        self.rewind();
        self.memory = None;
    }

    fn memory(&self) -> &Memory {
        self.memory.as_deref().unwrap_or(&NOTHING)
    }

    /// Reads the chain that begins at `head` in the ring's table of `size` descriptors, in place of what was there.
    pub(super) fn load(&mut self, memory: &Arc<Memory>, ring: &Span, size: u16, head: u16) {
        if !self.memory.as_ref().is_some_and(|held| Arc::ptr_eq(held, memory)) {
            self.memory = Some(Arc::clone(memory));
        }
        self.head = head;
        self.fault = None;
        self.ticket = 0;
        self.readable.clear();
        self.writable.clear();
        if let Err(fault) = self.walk(ring, size, head) {
            self.fault.get_or_insert(fault);
        }
        self.rewind();
    }

    fn walk(&mut self, ring: &Span, size: u16, head: u16) -> std::result::Result<(), Fault> {
        let mut indirect = false;
        let mut index = head;
        let mut entries = u32::from(size);
        let mut steps = entries;
        let mut left = MAX_DESCRIPTORS;
        loop {
            steps = steps.checked_sub(1).ok_or(Fault::Chain)?;
            left = left.checked_sub(1).ok_or(Fault::TooLong)?;
            if u32::from(index) >= entries {
                return Err(Fault::Chain);
            }
            let descriptor = if indirect { self.indirect(index) } else { direct(ring, index) }?;
            if descriptor.has(VRING_DESC_F_INDIRECT) {
                if indirect || descriptor.has(VRING_DESC_F_NEXT) {
                    return Err(Fault::Chain);
                }
                entries = self.switch(&descriptor)?;
                (indirect, index, steps) = (true, 0, entries);
                left = left.saturating_add(1);
                continue;
            }
            self.push(&descriptor)?;
            if !descriptor.has(VRING_DESC_F_NEXT) {
                return Ok(());
            }
            index = descriptor.next.get();
        }
    }

    /// Finds the indirect table of a descriptor; gives the number of its entries.
    fn switch(&mut self, to: &Descriptor) -> std::result::Result<u32, Fault> {
        let len = to.len.get();
        if len == 0 || !len.is_multiple_of(DESCRIPTOR) {
            return Err(Fault::Chain);
        }
        self.table.clear();
        let memory = self.memory.as_deref().unwrap_or(&NOTHING);
        memory.resolve(to.address.get(), len, &mut self.table).map_err(|_| Fault::Address)?;
        Ok(len / DESCRIPTOR)
    }

    fn indirect(&self, index: u16) -> std::result::Result<Descriptor, Fault> {
        let at = self.table.advance(Cursor::default(), offset_of(index));
        let mut descriptor = Descriptor::new_zeroed();
        let read = self.table.run(self.memory(), at, size_of::<Descriptor>()).copy_to(descriptor.as_mut_bytes());
        read.map(|()| descriptor).map_err(|_| Fault::Address)
    }

    /// Adds a buffer; one without bytes adds nothing.
    fn push(&mut self, descriptor: &Descriptor) -> std::result::Result<(), Fault> {
        let len = descriptor.len.get();
        let total = self.readable.segments.len().saturating_add(self.writable.segments.len());
        if total.saturating_add(u64::from(len)) > u64::from(u32::MAX) {
            return Err(Fault::TooLong);
        }
        let write = descriptor.has(VRING_DESC_F_WRITE);
        if !write && self.writable.segments.len() > 0 {
            self.fault.get_or_insert(Fault::Order);
        }
        let memory = self.memory.as_deref().unwrap_or(&NOTHING);
        let half = if write { &mut self.writable } else { &mut self.readable };
        if len > 0 && !half.broken && memory.resolve(descriptor.address.get(), len, &mut half.segments).is_err() {
            half.broken = true;
            self.fault.get_or_insert(Fault::Address);
        }
        Ok(())
    }
}

impl Half {
    fn clear(&mut self) {
        self.segments.clear();
        self.broken = false;
    }
}

impl Descriptor {
    fn has(&self, flag: u32) -> bool {
        u32::from(self.flags.get()) & flag != 0
    }
}

fn offset_of(index: u16) -> usize {
    usize::from(index).saturating_mul(size_of::<Descriptor>())
}

fn direct(ring: &Span, index: u16) -> std::result::Result<Descriptor, Fault> {
    let mut descriptor = Descriptor::new_zeroed();
    let table = ring.slice().map_err(|_| Fault::Address)?;
    let entry = table.subslice(offset_of(index), size_of::<Descriptor>()).map_err(|_| Fault::Address)?;
    entry.copy_to(descriptor.as_mut_bytes());
    Ok(descriptor)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use rustix::fs::{MemfdFlags, memfd_create};

    use super::super::memory::{Place, Region};
    use super::*;

    const GUEST: u64 = 0x1000;
    const SIZE: u64 = 0x2000;
    const RING: u16 = 8;

    fn memory() -> Arc<Memory> {
        let file = File::from(memfd_create("chains", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(SIZE).unwrap();
        let region = Region::map(Place { guest: GUEST, user: 0, size: SIZE }, file, 0).unwrap();
        Arc::new(Memory::new().with(region).unwrap())
    }

    /// A number that is as often near a border as not.
    fn odd(random: &mut u64, borders: &[u64]) -> u64 {
        *random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (pick, value) = (*random >> 33, *random >> 40);
        let border = borders.iter().cycle().nth(usize::try_from(pick % 64).unwrap()).unwrap();
        border.wrapping_add(value % 5).wrapping_sub(2)
    }

    // CVE-2026-16457, CVE-2026-50626: a guest may write anything into its descriptor tables.
    #[test]
    fn whatever_is_in_the_table_a_request_is_what_it_says() {
        let memory = memory();
        let ring = memory.span(0, usize::from(RING) * size_of::<Descriptor>()).unwrap();
        let mut request = Request::new(0);
        let mut random = 1;
        let mut faults = std::collections::HashSet::new();
        for _ in 0..200_000 {
            let table = ring.slice().unwrap();
            for index in 0..RING {
                let descriptor = Descriptor {
                    address: odd(&mut random, &[GUEST, GUEST + SIZE, GUEST + 0x800, GUEST, 0, u64::MAX]).into(),
                    len: u32::try_from(odd(&mut random, &[2, 16, 32, SIZE, 0xffff_fffd, 64]) & 0xffff_ffff)
                        .unwrap()
                        .into(),
                    flags: u16::try_from(odd(&mut random, &[1, 3, 2, 5, 1, 3]) & 7).unwrap().into(),
                    next: u16::try_from(odd(&mut random, &[u64::from(index) + 1, 4, u64::from(RING)]) & 0xffff)
                        .unwrap()
                        .into(),
                };
                table.subslice(offset_of(index), size_of::<Descriptor>()).unwrap().copy_from(descriptor.as_bytes());
            }
            request.load(&memory, &ring, RING, 0);
            faults.insert(format!("{:?}", request.fault()));
            let mut bytes = vec![0; request.remaining()];
            assert_eq!(request.read_exact(&mut bytes), Ok(()));
            assert_eq!(request.read_obj::<u8>(), Err(Errno::EINVAL));
            let room = request.room();
            assert_eq!(request.write_at(room, b"x"), Err(Errno::ENOBUFS));
            assert_eq!(request.room_at(room / 2, room - room / 2).map(|room| room.is_empty()), Ok(room == 0));
        }
        assert_eq!(faults.len(), 5, "all faults and none were met: {faults:?}");
    }
}
