//! A split virtqueue as its device sees it (virtio 1.2, section 2.7), with event indexes and indirect tables.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::split::Descriptor;
use vm_memory::mmap::MmapRegion;
use vm_memory::{Bytes, FileOffset, VolatileMemory, VolatileSlice};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::answers::Answers;

/// Longest pause of a client that has its turn.
const TURN: Duration = Duration::from_micros(200);

/// The guest's memory, in one region.
#[derive(Clone)]
pub struct Memory {
    region: Arc<MmapRegion>,
    /// Guest address of its first byte.
    guest: u64,
    /// The same in the VMM.
    user: u64,
}

impl Memory {
    /// As SET_MEM_TABLE tells it.
    pub fn new([guest, size, user, offset]: [u64; 4], file: File) -> Self {
        let size = size.try_into().expect("64-bit host");
        let region = MmapRegion::from_file(FileOffset::new(file, offset), size).expect("mmap of a memfd");
        Self { region: Arc::new(region), guest, user }
    }

    /// Where something lies that the VMM names by its own address.
    pub fn of_user(&self, user: u64) -> usize {
        (user - self.user) as usize
    }

    fn of_guest(&self, guest: u64) -> usize {
        (guest - self.guest) as usize
    }

    fn slice(&self) -> VolatileSlice<'_> {
        self.region.as_volatile_slice()
    }

    fn load(&self, at: usize) -> u16 {
        self.slice().load(at, Ordering::Acquire).expect("in memory")
    }

    fn store(&self, at: usize, value: u16) {
        self.slice().store(value, at, Ordering::Release).expect("in memory");
    }
}

/// A piece of a chain: where, and how long.
type Piece = (usize, usize);

/// One virtqueue.
pub struct Vring {
    /// Where it lies.
    pub memory: Memory,
    /// Entries.
    pub size: u16,
    /// Where its three parts begin.
    pub desc: usize,
    /// Likewise.
    pub avail: usize,
    /// Likewise.
    pub used: usize,
    /// Driver to device.
    pub kick: File,
    /// Device to driver.
    pub call: File,
}

/// What is read and written, kept from one request to the next.
#[derive(Default)]
struct Buffers {
    readable: Vec<Piece>,
    writable: Vec<Piece>,
    asked: Vec<u8>,
    said: Vec<u8>,
}

impl Vring {
    /// Answers each request; ends with the process. One that polls sleeps only while it is the turn of others, whose CPU
    /// it would take.
    pub fn serve(self, polls: bool, mut answers: Answers) {
        let kicks = Epoll::new().expect("epoll");
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        kicks.ctl(ControlOperation::Add, self.kick.as_raw_fd(), event).expect("epoll");
        let mut buffers = Buffers::default();
        let mut next = 0_u16;
        loop {
            let end = self.available();
            if end == next {
                if !polls || !self.comes_soon(next) {
                    self.sleep(next, &kicks);
                }
                continue;
            }
            let start = next;
            while next != end {
                let head = self.memory.load(self.avail + 4 + 2 * usize::from(next % self.size));
                let written = self.answer(head, &mut answers, &mut buffers);
                let entry = self.used + 4 + 8 * usize::from(next % self.size);
                self.memory.slice().write_obj([u32::from(head), written], entry).expect("in memory");
                next = next.wrapping_add(1);
            }
            self.give(start, end);
        }
    }

    fn available(&self) -> u16 {
        self.memory.load(self.avail + 2)
    }

    /// Looks for entry `next` as long as a client that has its turn may take.
    fn comes_soon(&self, next: u16) -> bool {
        let since = Instant::now();
        while since.elapsed() < TURN {
            if (0..64).any(|_| self.available() != next) {
                return true;
            }
        }
        false
    }

    /// Until entry `next` is available, or for no reason.
    fn sleep(&self, next: u16, kicks: &Epoll) {
        self.memory.store(self.used + 4 + 8 * usize::from(self.size), next);
        fence(Ordering::SeqCst);
        if self.available() == next {
            let _ = kicks.wait(-1, &mut [EpollEvent::default()]);
        }
    }

    /// Bytes written.
    fn answer(&self, head: u16, answers: &mut Answers, buffers: &mut Buffers) -> u32 {
        let Buffers { readable, writable, asked, said } = buffers;
        readable.clear();
        writable.clear();
        said.clear();
        self.walk(head, readable, writable);
        let total = readable.iter().map(|(_, len)| len).sum();
        asked.resize(asked.len().max(total), 0);
        let mut rest = &mut asked[..total];
        for &(at, len) in &*readable {
            let piece = rest.split_off_mut(..len).expect("the sum of all");
            self.memory.slice().read_slice(piece, at).expect("in memory");
        }
        let data = answers.answer(&asked[..total], said);
        self.scatter(writable, [said, data])
    }

    /// Both parts after each other.
    fn scatter(&self, writable: &[Piece], parts: [&[u8]; 2]) -> u32 {
        let mut pieces = writable.iter().copied();
        let mut room = (0, 0);
        for mut part in parts {
            while !part.is_empty() {
                if room.1 == 0 {
                    room = pieces.next().expect("room for the answer");
                }
                let piece = part.split_off(..part.len().min(room.1)).expect("not longer");
                self.memory.slice().write_slice(piece, room.0).expect("in memory");
                room = (room.0 + piece.len(), room.1 - piece.len());
            }
        }
        parts.iter().map(|part| part.len() as u32).sum()
    }

    fn walk(&self, head: u16, readable: &mut Vec<Piece>, writable: &mut Vec<Piece>) {
        let (mut table, mut index) = (self.desc, head);
        loop {
            let desc: Descriptor = self.memory.slice().read_obj(table + 16 * usize::from(index)).expect("in memory");
            let flags = u32::from(desc.flags());
            let piece = (self.memory.of_guest(desc.addr().0), desc.len() as usize);
            if flags & VRING_DESC_F_INDIRECT != 0 {
                (table, index) = (piece.0, 0);
                continue;
            }
            if flags & VRING_DESC_F_WRITE != 0 { &mut *writable } else { &mut *readable }.push(piece);
            if flags & VRING_DESC_F_NEXT == 0 {
                return;
            }
            index = desc.next();
        }
    }

    /// Gives the driver what is on the used ring from `start` to `end`, and calls if it waits for one of these.
    fn give(&self, start: u16, end: u16) {
        self.memory.store(self.used + 2, end);
        fence(Ordering::SeqCst);
        let awaited = self.memory.load(self.avail + 4 + 2 * usize::from(self.size));
        if end.wrapping_sub(awaited).wrapping_sub(1) < end.wrapping_sub(start) {
            (&self.call).write_all(&1_u64.to_ne_bytes()).expect("call");
        }
    }
}
