//! A VMM with a guest that does exactly what a test says, right or wrong.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{Ordering, fence};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use vhost::vhost_user::message::VhostUserHeaderFlag;
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory, VolatileSlice};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Guest physical address of the first byte.
pub(super) const BASE: u64 = 0x1000_0000;
/// The VMM has the guest's memory here: nowhere, since only the device looks at these addresses.
pub(super) const USER: u64 = 0x7f00_0000_0000;
/// Bytes that the VMM shares at first. There is as much again behind them, for hot-plugging.
pub(super) const SIZE: u64 = 1 << 20;
/// Descriptors of a ring.
pub(super) const RING: u16 = 16;

pub(super) const NEXT: u16 = VRING_DESC_F_NEXT as u16;
pub(super) const WRITE: u16 = VRING_DESC_F_WRITE as u16;
pub(super) const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;

const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;
const INDIRECT_DESC: u64 = 1 << 28;
const PROTOCOL_FEATURES: u64 = 1 << 30;

const QUEUE: usize = 0x1_0000;
const AVAILABLE: usize = 0x4000;
const USED: usize = 0x8000;
/// Where requests and answers of a queue are.
pub(super) const REQUEST: u64 = 0xc000;
pub(super) const ANSWER: u64 = 0xe000;

/// How long to wait for what must come, and for what must not.
const SOON: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_millis(30);

pub(super) struct Driver {
    pub(super) vmm: Frontend,
    pub(super) queues: Vec<Virtqueue>,
    pub(super) event_idx: bool,
    memory: MmapRegion,
    file: File,
}

pub(super) struct Virtqueue {
    index: usize,
    pub(super) kick: EventFd,
    pub(super) call: EventFd,
    pub(super) error: EventFd,
    pub(super) available: u16,
    pub(super) used: u16,
}

/// A descriptor: address, length, flags, next.
pub(super) type Descriptor = (u64, u32, u16, u16);

impl Driver {
    /// Agrees on everything and starts all queues.
    pub(super) fn connect(stream: UnixStream, queues: usize, event_idx: bool) -> Self {
        let mut driver = Self::new(stream, queues, event_idx);
        driver.vmm.set_mem_table(&[driver.region(0, SIZE)]).unwrap();
        for index in 0..queues {
            driver.start(index, 0);
        }
        driver
    }

    /// Agrees on features only.
    pub(super) fn new(stream: UnixStream, queues: usize, event_idx: bool) -> Self {
        let mut vmm = Frontend::from_stream(stream, u64::try_from(queues).unwrap());
        vmm.set_owner().unwrap();
        let wanted = VERSION_1 | INDIRECT_DESC | PROTOCOL_FEATURES | if event_idx { EVENT_IDX } else { 0 };
        assert_eq!(vmm.get_features().unwrap() & wanted, wanted);
        let protocol = vmm.get_protocol_features().unwrap();
        vmm.set_protocol_features(protocol).unwrap();
        vmm.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        vmm.set_features(wanted).unwrap();
        let file = File::from(memfd_create("postern-guest", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(SIZE * 2).unwrap();
        let mapped = FileOffset::new(file.try_clone().unwrap(), 0);
        let memory = MmapRegion::from_file(mapped, usize::try_from(SIZE * 2).unwrap()).unwrap();
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let queue = |index| Virtqueue { index, kick: event(), call: event(), error: event(), available: 0, used: 0 };
        Self { vmm, queues: (0..queues).map(queue).collect(), event_idx, memory, file }
    }

    /// `size` bytes of the guest's memory from `offset`, as a VMM describes them.
    pub(super) fn region(&self, offset: u64, size: u64) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: BASE + offset,
            memory_size: size,
            userspace_addr: USER + offset,
            mmap_offset: offset,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    /// What the guest's memory is kept in.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn start(&mut self, index: usize, base: u16) {
        let queue = &self.queues[index];
        let at = USER + (index * QUEUE) as u64;
        let rings = VringConfigData {
            queue_max_size: RING,
            queue_size: RING,
            desc_table_addr: at,
            avail_ring_addr: at + AVAILABLE as u64,
            used_ring_addr: at + USED as u64,
            ..Default::default()
        };
        self.vmm.set_vring_num(index, RING).unwrap();
        self.vmm.set_vring_base(index, base).unwrap();
        self.vmm.set_vring_addr(index, &rings).unwrap();
        self.vmm.set_vring_call(index, &queue.call).unwrap();
        self.vmm.set_vring_err(index, &queue.error).unwrap();
        self.vmm.set_vring_kick(index, &queue.kick).unwrap();
        self.vmm.set_vring_enable(index, true).unwrap();
    }

    fn part(&self, offset: usize) -> VolatileSlice<'_> {
        self.memory.get_slice(offset, self.memory.size() - offset).unwrap()
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) {
        self.part(usize::try_from(offset).unwrap()).copy_from(bytes);
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.part(usize::try_from(offset).unwrap()).copy_to(&mut bytes);
        bytes
    }

    fn load(&self, offset: usize) -> u16 {
        self.part(offset).load(0, Ordering::SeqCst).unwrap()
    }

    fn store(&self, offset: usize, value: u16) {
        self.part(offset).store(value, 0, Ordering::SeqCst).unwrap();
        fence(Ordering::SeqCst);
    }

    /// Writes a descriptor table: that of a queue lies at `queue * 0x10000`.
    pub(super) fn table(&self, offset: u64, descriptors: &[Descriptor]) {
        for (index, (address, len, flags, next)) in descriptors.iter().enumerate() {
            let bytes = [&address.to_le_bytes()[..], &len.to_le_bytes(), &flags.to_le_bytes(), &next.to_le_bytes()];
            self.write(offset + index as u64 * 16, &bytes.concat());
        }
    }

    /// Makes the chain at `head` available; kicks if the device wants that, and gives whether it does.
    pub(super) fn offer(&mut self, index: usize, head: u16) -> bool {
        let at = index * QUEUE;
        let position = self.queues[index].available;
        self.store(at + AVAILABLE + 4 + usize::from(position % RING) * 2, head);
        self.jump(index, position.wrapping_add(1));
        let wanted = self.wants_kick(index, position);
        if wanted {
            self.queues[index].kick.write(1).unwrap();
        }
        wanted
    }

    /// Whether the device wants to be kicked for the chain at `position`.
    fn wants_kick(&self, index: usize, position: u16) -> bool {
        let used = index * QUEUE + USED;
        if self.event_idx { self.load(used + 4 + usize::from(RING) * 8) == position } else { self.load(used) == 0 }
    }

    /// Waits until the device wants to be kicked for the next chain: it has taken all the others.
    pub(super) fn await_idle(&self, index: usize) {
        let end = Instant::now() + SOON;
        while !self.wants_kick(index, self.queues[index].available) {
            assert!(Instant::now() < end, "the device is at work for ever");
            sleep(Duration::from_micros(20));
        }
    }

    /// Sets the available index, without a kick.
    pub(super) fn jump(&mut self, index: usize, to: u16) {
        self.queues[index].available = to;
        self.store(index * QUEUE + AVAILABLE + 2, to);
    }

    /// Wants to be called when the device passes used index `event`.
    pub(super) fn used_event(&self, index: usize, event: u16) {
        self.store(index * QUEUE + AVAILABLE + 4 + usize::from(RING) * 2, event);
    }

    /// Does not want to be called.
    pub(super) fn no_interrupt(&self, index: usize, unwanted: bool) {
        self.store(index * QUEUE + AVAILABLE, u16::from(unwanted));
    }

    fn poll(&mut self, index: usize, patience: Duration) -> Option<(u32, u32)> {
        let end = Instant::now() + patience;
        let queue = &self.queues[index];
        let at = queue.index * QUEUE + USED;
        while self.load(at + 2) == queue.used {
            if Instant::now() > end {
                return None;
            }
            sleep(Duration::from_micros(20));
        }
        let element = self.part(at + 4 + usize::from(queue.used % RING) * 8);
        let (head, len) = (element.read_obj(0).unwrap(), element.read_obj(4).unwrap());
        self.queues[index].used = self.queues[index].used.wrapping_add(1);
        Some((head, len))
    }

    /// The next used element: head and length.
    pub(super) fn used(&mut self, index: usize) -> (u32, u32) {
        self.poll(index, SOON).expect("the device has answered")
    }

    pub(super) fn nothing_used(&mut self, index: usize) -> bool {
        self.poll(index, NEVER).is_none()
    }

    /// Has been called since last asked. Waits until it is, if it should be.
    pub(super) fn called(&self, index: usize, should: bool) -> bool {
        arrived(&self.queues[index].call, should)
    }

    /// Lays a request with room for an answer out at descriptor `head` and the one behind it.
    pub(super) fn lay_out(&self, index: usize, head: u16, request: &[u8], room: u32) {
        let slot = u64::from(head) * 0x100;
        let at = (index * QUEUE) as u64;
        self.write(at + REQUEST + slot, request);
        let len = u32::try_from(request.len()).unwrap();
        let chain = [(BASE + at + REQUEST + slot, len, NEXT, head + 1), (BASE + at + ANSWER + slot, room, WRITE, 0)];
        self.table(at + u64::from(head) * 16, &chain);
    }

    /// The first `len` bytes of the answer to the request at `head`.
    pub(super) fn answer(&self, index: usize, head: u16, len: u32) -> Vec<u8> {
        self.read((index * QUEUE) as u64 + ANSWER + u64::from(head) * 0x100, usize::try_from(len).unwrap())
    }

    /// Sends a request and waits for its answer.
    pub(super) fn ask(&mut self, index: usize, request: &[u8]) -> Vec<u8> {
        self.lay_out(index, 0, request, 0x100);
        self.offer(index, 0);
        let (head, len) = self.used(index);
        assert_eq!(head, 0);
        self.answer(index, 0, len)
    }
}

/// Whether an eventfd was written since last asked. Waits until it is, if it should be.
pub(super) fn arrived(event: &EventFd, should: bool) -> bool {
    let end = Instant::now() + if should { SOON } else { NEVER };
    loop {
        if event.read().is_ok() {
            return true;
        }
        if Instant::now() > end {
            return false;
        }
        sleep(Duration::from_micros(20));
    }
}
