//! The vhost-user front-end: what a VMM does to bring a virtio-fs device to life.

use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard};

use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures as Protocol};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VringConfigData};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use crate::memory::{BASE, Memory};
use crate::ring::{self, Ring, Style};

/// Feature bit of vhost-user: there are protocol features.
pub const PROTOCOL_FEATURES: u64 = 1 << 30;

/// What the VMM and the guest's driver are able to do.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Request queues; one more carries FORGET and INTERRUPT.
    pub request_queues: usize,
    /// Entries of each ring, a power of two.
    pub queue_size: u16,
    /// Virtio features, of which the server's are used.
    pub features: u64,
    /// vhost-user protocol features, of which the server's are used.
    pub protocol: Protocol,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            request_queues: 1,
            queue_size: 1024,
            features: 1 << VIRTIO_F_VERSION_1
                | 1 << VIRTIO_RING_F_EVENT_IDX
                | 1 << VIRTIO_RING_F_INDIRECT_DESC
                | PROTOCOL_FEATURES,
            protocol: Protocol::MQ | Protocol::REPLY_ACK | Protocol::CONFIGURE_MEM_SLOTS | Protocol::CONFIG,
        }
    }
}

/// A connected device. Ring 0 is the high-priority one, the others carry requests.
pub struct Vmm {
    /// The guest's memory.
    pub mem: Memory,
    /// Virtio features in use.
    pub features: u64,
    /// vhost-user protocol features in use.
    pub protocol: Protocol,
    frontend: Mutex<Frontend>,
    rings: Vec<Mutex<Ring>>,
}

impl Vmm {
    /// Negotiates, shares the memory and starts the rings.
    pub fn connect(stream: UnixStream, machine: &Machine) -> Self {
        let connection = stream.try_clone().expect("dup");
        let count = machine.request_queues + 1;
        let mut frontend = Frontend::from_stream(stream, count as u64);
        frontend.set_owner().expect("SET_OWNER");
        let features = frontend.get_features().expect("GET_FEATURES") & machine.features;
        assert_ne!(features & PROTOCOL_FEATURES, 0, "no protocol features");
        let protocol = frontend.get_protocol_features().expect("GET_PROTOCOL_FEATURES") & machine.protocol;
        frontend.set_protocol_features(protocol).expect("SET_PROTOCOL_FEATURES");
        if protocol.contains(Protocol::REPLY_ACK) {
            frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        }
        frontend.set_features(features).expect("SET_FEATURES");

        let mem = Memory::new(count as u64 * ring::SIZE);
        let style = Style {
            size: machine.queue_size,
            event_idx: features & 1 << VIRTIO_RING_F_EVENT_IDX != 0,
            indirect: features & 1 << VIRTIO_RING_F_INDIRECT_DESC != 0,
        };
        let base = |index: usize| BASE + index as u64 * ring::SIZE;
        let ring = |index| Mutex::new(Ring::new(&mem, base(index), style, &connection));
        let rings = (0..count).map(ring).collect();
        let vmm = Self { mem, features, protocol, frontend: Mutex::new(frontend), rings };
        vmm.share_memory();
        (0..count).for_each(|index| vmm.start(index));
        vmm
    }

    /// The front-end itself, for messages that have no helper here.
    pub fn frontend(&self) -> MutexGuard<'_, Frontend> {
        self.frontend.lock().expect("no holder panicked")
    }

    /// Ring `index`; 0 is the high-priority one.
    pub fn ring(&self, index: usize) -> MutexGuard<'_, Ring> {
        self.rings[index].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Number of rings.
    pub fn rings(&self) -> usize {
        self.rings.len()
    }

    fn share_memory(&self) {
        let table = self.mem.table();
        let mut frontend = self.frontend();
        if self.protocol.contains(Protocol::CONFIGURE_MEM_SLOTS) {
            assert!(frontend.get_max_mem_slots().expect("GET_MAX_MEM_SLOTS") >= 8);
            for region in &table {
                frontend.add_mem_region(region).expect("ADD_MEM_REG");
            }
        } else {
            frontend.set_mem_table(&table).expect("SET_MEM_TABLE");
        }
    }

    /// The first `len` bytes of the device's config space.
    pub fn config(&self, len: u32) -> Vec<u8> {
        let room = vec![0; len as usize];
        let reply = self.frontend().get_config(0, len, VhostUserConfigFlags::empty(), &room);
        reply.expect("GET_CONFIG").1
    }

    /// Plugs `size` bytes of memory in at guest address `start`.
    pub fn plug(&self, start: u64, size: u64) {
        let region = self.mem.insert(start, size);
        self.frontend().add_mem_region(&region).expect("ADD_MEM_REG");
    }

    /// Takes the memory at `start` away again.
    pub fn unplug(&self, start: u64, size: u64) {
        let region = self.mem.remove(start, size);
        self.frontend().remove_mem_region(&region).expect("REM_MEM_REG");
    }

    /// Starts ring `index` where its driver stands.
    pub fn start(&self, index: usize) {
        let ring = self.ring(index);
        let addr = VringConfigData {
            queue_max_size: ring.style.size,
            queue_size: ring.style.size,
            desc_table_addr: self.mem.user_addr(ring.desc_addr()),
            avail_ring_addr: self.mem.user_addr(ring.avail_addr()),
            used_ring_addr: self.mem.user_addr(ring.used_addr()),
            ..Default::default()
        };
        let mut frontend = self.frontend();
        frontend.set_vring_num(index, ring.style.size).expect("SET_VRING_NUM");
        frontend.set_vring_base(index, ring.avail_idx()).expect("SET_VRING_BASE");
        frontend.set_vring_addr(index, &addr).expect("SET_VRING_ADDR");
        frontend.set_vring_call(index, &ring.call).expect("SET_VRING_CALL");
        frontend.set_vring_err(index, &ring.err).expect("SET_VRING_ERR");
        frontend.set_vring_kick(index, &ring.kick).expect("SET_VRING_KICK");
        frontend.set_vring_enable(index, true).expect("SET_VRING_ENABLE");
    }

    /// Stops ring `index` and says up to which index the device has taken requests.
    pub fn stop(&self, index: usize) -> u16 {
        let base = self.frontend().get_vring_base(index).expect("GET_VRING_BASE");
        base.try_into().expect("a ring index")
    }

    /// What a guest does that reboots: stops all rings and starts them empty.
    pub fn reboot(&self) {
        for index in 0..self.rings() {
            self.stop(index);
            self.ring(index).reset();
            self.start(index);
        }
    }
}
