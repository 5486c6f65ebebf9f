//! A split virtqueue as its driver sees it (virtio 1.2, section 2.7).
//!
//! The lower half ([`Ring::set_desc`], [`Ring::offer`], [`Ring::set_avail_idx`]) does what it is told,
//! right or wrong. The upper half ([`Ring::prepare`], [`Ring::wait`]) keeps [`SLOTS`] requests in flight,
//! laid out as Linux does it: header, arguments, then data in pages that do not follow each other.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use virtio_bindings::virtio_ring::{
    VRING_AVAIL_F_NO_INTERRUPT, VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE, VRING_USED_F_NO_NOTIFY,
};
use virtio_queue::desc::split::Descriptor;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::memory::Memory;

/// Requests in flight on one ring.
pub const SLOTS: u16 = 32;
/// Bytes of memory that a ring and its slots take.
pub const SIZE: u64 = SLOT_AREA + SLOTS as u64 * SLOT;
/// Most bytes of data in a request or a reply.
pub const DATA_MAX: usize = 1 << 20;

const AVAIL: u64 = 0x8000;
const USED: u64 = 0x9000;
const SLOT_AREA: u64 = 0x10000;
const SLOT: u64 = 0x15_0000;
const PAGE: usize = 4096;
/// Within a slot: request header and arguments, reply header and arguments, data, indirect table.
const ARGS: u64 = 0;
const REPLY: u64 = 0x2_0000;
const DATA: u64 = 0x4_0000;
const TABLE: u64 = 0x14_1000;

/// What a driver may use.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Entries, a power of two.
    pub size: u16,
    /// Both sides say from which index on they want to be woken.
    pub event_idx: bool,
    /// Chains stand in tables of their own.
    pub indirect: bool,
}

/// A request on its way: what the device may read, and the room it may write.
#[derive(Clone, Copy, Debug, Default)]
pub struct Message<'a> {
    /// Fixed header.
    pub header: &'a [u8],
    /// Arguments, contiguous.
    pub args: &'a [u8],
    /// Data, in pages.
    pub data: &'a [u8],
    /// Bytes of the reply's header; 0 when no reply is expected.
    pub reply_header: usize,
    /// Room for the reply's arguments, contiguous.
    pub reply_args: usize,
    /// Room for the reply's data, in pages.
    pub reply_data: usize,
}

/// A request in flight.
#[derive(Debug)]
pub struct Ticket {
    /// First descriptor.
    pub head: u16,
    /// What the chain consists of.
    pub pieces: Vec<Piece>,
}

/// A piece of memory in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Guest address.
    pub addr: u64,
    /// Bytes.
    pub len: u32,
    /// Whether the device writes it.
    pub writable: bool,
}

/// One virtqueue.
pub struct Ring {
    /// Where it lies in guest memory.
    pub base: u64,
    /// What it was set up with.
    pub style: Style,
    /// Driver to device.
    pub kick: EventFd,
    /// Device to driver.
    pub call: EventFd,
    /// The device gave this ring up.
    pub err: EventFd,
    /// A call, or the end of the connection.
    events: Epoll,
    mem: Memory,
    avail_idx: u16,
    used_idx: u16,
    free: Vec<u16>,
    done: HashMap<u16, u32>,
}

impl Ring {
    /// An empty ring in the [`SIZE`] bytes at `base`.
    pub fn new(mem: &Memory, base: u64, style: Style, connection: &impl AsRawFd) -> Self {
        let event = || EventFd::new(EFD_NONBLOCK).expect("eventfd");
        let mut ring = Self {
            base,
            style,
            kick: event(),
            call: event(),
            err: event(),
            events: Epoll::new().expect("epoll"),
            mem: mem.clone(),
            avail_idx: 0,
            used_idx: 0,
            free: Vec::new(),
            done: HashMap::new(),
        };
        ring.watch(ring.call.as_raw_fd(), EventSet::IN | EventSet::EDGE_TRIGGERED);
        ring.watch(connection.as_raw_fd(), EventSet::READ_HANG_UP);
        ring.reset();
        ring
    }

    fn watch(&self, fd: RawFd, events: EventSet) {
        let event = EpollEvent::new(events, fd.try_into().expect("a descriptor"));
        self.events.ctl(ControlOperation::Add, fd, event).expect("epoll");
    }

    /// Forgets all requests and zeroes the ring, as a driver does that starts anew.
    pub fn reset(&mut self) {
        self.mem.write(self.base, &vec![0; usize::try_from(SLOT_AREA).expect("small")]);
        self.avail_idx = 0;
        self.used_idx = 0;
        self.free = (0..SLOTS).collect();
        self.done.clear();
    }

    /// Guest address of the descriptor table.
    pub fn desc_addr(&self) -> u64 {
        self.base
    }

    /// Guest address of the available ring.
    pub fn avail_addr(&self) -> u64 {
        self.base + AVAIL
    }

    /// Guest address of the used ring.
    pub fn used_addr(&self) -> u64 {
        self.base + USED
    }

    /// Memory of `slot` that is free for a test that writes its chains itself.
    pub fn slot_addr(&self, slot: u16) -> u64 {
        self.base + SLOT_AREA + u64::from(slot) * SLOT
    }

    /// Fills entry `index` of the descriptor table.
    pub fn set_desc(&self, index: u16, desc: Descriptor) {
        self.mem.write_obj(self.desc_addr() + 16 * u64::from(index), desc);
    }

    /// Puts `head` on the available ring and wakes the device if it wants that.
    pub fn offer(&mut self, head: u16) {
        let entry = u64::from(self.avail_idx % self.style.size);
        self.mem.write_obj(self.avail_addr() + 4 + 2 * entry, head.to_le());
        self.set_avail_idx(self.avail_idx.wrapping_add(1));
        if self.wants_kick() {
            self.kick.write(1).expect("kick");
        }
    }

    /// Says that entries up to `idx` are available.
    pub fn set_avail_idx(&mut self, idx: u16) {
        self.avail_idx = idx;
        self.mem.store(self.avail_addr() + 2, idx);
        fence(Ordering::SeqCst);
    }

    /// The index up to which entries are available.
    pub fn avail_idx(&self) -> u16 {
        self.avail_idx
    }

    fn wants_kick(&self) -> bool {
        if self.style.event_idx {
            let event = self.mem.load(self.used_addr() + 4 + 8 * u64::from(self.style.size));
            self.avail_idx.wrapping_sub(1) == event
        } else {
            u32::from(self.mem.load(self.used_addr())) & VRING_USED_F_NO_NOTIFY == 0
        }
    }

    /// Tells the device (not) to call; with event index it does so once for the next used entry.
    pub fn want_call(&self, wanted: bool) {
        if self.style.event_idx {
            if wanted {
                self.mem.store(self.avail_addr() + 4 + 2 * u64::from(self.style.size), self.used_idx);
            }
        } else {
            let flags = if wanted { 0 } else { VRING_AVAIL_F_NO_INTERRUPT };
            self.mem.store(self.avail_addr(), flags.try_into().expect("one bit"));
        }
        fence(Ordering::SeqCst);
    }

    /// The next used entry: head of its chain and bytes written. `None` after `patience`.
    ///
    /// # Panics
    /// When the device has closed the connection.
    pub fn used(&mut self, patience: Duration) -> Option<(u32, u32)> {
        let end = Instant::now() + patience;
        loop {
            if let Some(elem) = self.poll() {
                return Some(elem);
            }
            self.want_call(true);
            if let Some(elem) = self.poll() {
                return Some(elem);
            }
            self.sleep(end.checked_duration_since(Instant::now())?);
        }
    }

    /// The next used entry if there is one already.
    pub fn poll(&mut self) -> Option<(u32, u32)> {
        if self.mem.load(self.used_addr() + 2) == self.used_idx {
            return None;
        }
        let entry = u64::from(self.used_idx % self.style.size);
        let elem: [u32; 2] = self.mem.read_obj(self.used_addr() + 4 + 8 * entry);
        self.used_idx = self.used_idx.wrapping_add(1);
        Some((u32::from_le(elem[0]), u32::from_le(elem[1])))
    }

    fn sleep(&self, patience: Duration) {
        let millis = patience.as_millis().clamp(1, 1000).try_into().expect("small");
        let mut event = [EpollEvent::default()];
        match self.events.wait(millis, &mut event) {
            Ok(count) => assert!(
                count == 0 || !event[0].event_set().contains(EventSet::READ_HANG_UP),
                "the server has closed the connection"
            ),
            Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::Interrupted, "{e}"),
        }
    }

    /// Writes a request; its memory is in use until [`Ring::wait`] or [`Ring::release`].
    ///
    /// # Panics
    /// With [`SLOTS`] requests, or one that is too large.
    pub fn prepare(&mut self, message: &Message<'_>) -> Ticket {
        let slot = self.free.pop().expect("a free slot");
        let pieces = self.lay_out(slot, message);
        Ticket { head: self.chain(slot, &pieces), pieces }
    }

    /// A request that is not in flight is not needed any more.
    pub fn release(&mut self, ticket: &Ticket) {
        self.free.push(ticket.head / self.stride());
    }

    /// Sends a chain of any pieces of memory.
    pub fn send_pieces(&mut self, pieces: Vec<Piece>) -> Ticket {
        let slot = self.free.pop().expect("a free slot");
        let head = self.chain(slot, &pieces);
        self.offer(head);
        Ticket { head, pieces }
    }

    /// Waits for the reply: the bytes the device says it has written.
    pub fn wait(&mut self, ticket: Ticket, patience: Duration) -> Option<Vec<u8>> {
        while !self.done.contains_key(&ticket.head) {
            let (head, len) = self.used(patience)?;
            let head = u16::try_from(head).expect("an index of the table");
            assert!(self.done.insert(head, len).is_none(), "chain {head} used twice");
        }
        let mut left = self.done.remove(&ticket.head).expect("seen above") as usize;
        let mut reply = Vec::with_capacity(left);
        for piece in ticket.pieces.iter().filter(|p| p.writable) {
            let len = left.min(piece.len as usize);
            reply.extend(self.mem.read(piece.addr, len));
            left -= len;
        }
        assert_eq!(left, 0, "more bytes used than there was room for");
        self.release(&ticket);
        Some(reply)
    }

    /// Descriptors of the table that each slot owns.
    fn stride(&self) -> u16 {
        self.style.size / SLOTS
    }

    fn lay_out(&self, slot: u16, message: &Message<'_>) -> Vec<Piece> {
        let at = self.slot_addr(slot);
        let (args, reply) = (message.header.len() as u64, message.reply_header as u64);
        self.mem.write(at + ARGS, message.header);
        self.mem.write(at + ARGS + args, message.args);
        let mut pieces = Vec::new();
        let mut piece = |addr, len: usize, writable| {
            if len > 0 {
                pieces.push(Piece { addr, len: len.try_into().expect("small"), writable });
            }
        };
        piece(at + ARGS, message.header.len(), false);
        piece(at + ARGS + args, message.args.len(), false);
        for (addr, range) in self.pages(at + DATA, message.data.len()) {
            self.mem.write(addr, &message.data[range.clone()]);
            piece(addr, range.len(), false);
        }
        piece(at + REPLY, message.reply_header, true);
        piece(at + REPLY + reply, message.reply_args, true);
        for (addr, range) in self.pages(at + DATA, message.reply_data) {
            piece(addr, range.len(), true);
        }
        pieces
    }

    /// Pages of `len` bytes of data, the first at the highest address; larger ones where the
    /// descriptor table has no room for single pages.
    fn pages(&self, at: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>)> + use<> {
        assert!(len <= DATA_MAX);
        let room = if self.style.indirect { PAGE } else { usize::from(self.stride()) - 4 };
        let page = if self.style.indirect { PAGE } else { DATA_MAX.div_ceil(room).next_multiple_of(PAGE) };
        let count = len.div_ceil(page);
        (0..count).map(move |i| {
            let range = i * page..len.min((i + 1) * page);
            (at + ((count - 1 - i) * page) as u64, range)
        })
    }

    /// Writes a chain, in the slot's own table or its part of the descriptor table.
    fn chain(&self, slot: u16, pieces: &[Piece]) -> u16 {
        let head = slot * self.stride();
        let next = VRING_DESC_F_NEXT as u16;
        let write = VRING_DESC_F_WRITE as u16;
        let (table, first) = if self.style.indirect {
            let table = self.slot_addr(slot) + TABLE;
            let bytes = u32::try_from(pieces.len() * 16).expect("small");
            self.set_desc(head, Descriptor::new(table, bytes, VRING_DESC_F_INDIRECT as u16, 0));
            (table, 0)
        } else {
            assert!(pieces.len() <= usize::from(self.stride()));
            (self.desc_addr(), head)
        };
        for (index, piece) in (first..).zip(pieces) {
            let last = usize::from(index - first) + 1 == pieces.len();
            let flags = if piece.writable { write } else { 0 } | if last { 0 } else { next };
            let desc = Descriptor::new(piece.addr, piece.len, flags, index + 1);
            self.mem.write_obj(table + 16 * u64::from(index), desc);
        }
        head
    }
}
