//! The guest's memory: memfd regions that the server maps too.

use std::fs::File;
use std::sync::Arc;

use nix::sys::memfd::{MFdFlags, memfd_create};
use vhost::VhostUserMemoryRegionInfo;
use vm_memory::{
    ByteValued, Bytes, FileOffset, GuestAddress, GuestAddressSpace, GuestMemoryAtomic, GuestMemoryBackend,
    GuestMemoryMmap, GuestRegionMmap,
};

/// Where the first region starts: not at 0, so that a guest address is no offset and no pointer.
pub const BASE: u64 = 0x4000_0000;

/// All regions; clones see regions come and go.
#[derive(Clone)]
pub struct Memory(GuestMemoryAtomic<GuestMemoryMmap>);

impl Memory {
    /// One region of `size` bytes at [`BASE`].
    pub fn new(size: u64) -> Self {
        let map = GuestMemoryMmap::from_arc_regions(vec![region(BASE, size)]);
        Self(GuestMemoryAtomic::new(map.expect("one region overlaps nothing")))
    }

    /// Adds a region and says how the server is told of it.
    pub fn insert(&self, start: u64, size: u64) -> VhostUserMemoryRegionInfo {
        let region = region(start, size);
        let map = self.0.memory().insert_region(region.clone()).expect("free range");
        self.0.lock().expect("no holder panicked").replace(map);
        info(&region)
    }

    /// Takes a region away and says how the server is told of it.
    pub fn remove(&self, start: u64, size: u64) -> VhostUserMemoryRegionInfo {
        let (map, region) = self.0.memory().remove_region(GuestAddress(start), size).expect("a known region");
        self.0.lock().expect("no holder panicked").replace(map);
        info(&region)
    }

    /// Every region as the server is told of it.
    pub fn table(&self) -> Vec<VhostUserMemoryRegionInfo> {
        self.0.memory().iter().map(info).collect()
    }

    /// The address in this process by which vhost-user names guest address `addr`.
    pub fn user_addr(&self, addr: u64) -> u64 {
        self.0.memory().get_host_address(GuestAddress(addr)).expect("in memory") as u64
    }

    /// Stores `bytes` at `addr`.
    pub fn write(&self, addr: u64, bytes: &[u8]) {
        self.0.memory().write_slice(bytes, GuestAddress(addr)).expect("in memory");
    }

    /// The `len` bytes at `addr`.
    pub fn read(&self, addr: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.memory().read_slice(&mut bytes, GuestAddress(addr)).expect("in memory");
        bytes
    }

    /// Stores a structure at `addr`.
    pub fn write_obj<T: ByteValued>(&self, addr: u64, value: T) {
        self.0.memory().write_obj(value, GuestAddress(addr)).expect("in memory");
    }

    /// The structure at `addr`.
    pub fn read_obj<T: ByteValued>(&self, addr: u64) -> T {
        self.0.memory().read_obj(GuestAddress(addr)).expect("in memory")
    }

    /// Publishes a ring index or flag at `addr`: what was written before is seen before.
    pub fn store(&self, addr: u64, value: u16) {
        let order = std::sync::atomic::Ordering::Release;
        self.0.memory().store(value.to_le(), GuestAddress(addr), order).expect("in memory");
    }

    /// Reads a ring index or flag at `addr`: what is read after was written before.
    pub fn load(&self, addr: u64) -> u16 {
        let order = std::sync::atomic::Ordering::Acquire;
        u16::from_le(self.0.memory().load(GuestAddress(addr), order).expect("in memory"))
    }
}

fn region(start: u64, size: u64) -> Arc<GuestRegionMmap> {
    let file = File::from(memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).expect("memfd"));
    file.set_len(size).expect("sparse memfd");
    let size = size.try_into().expect("64-bit host");
    let region = GuestRegionMmap::from_range(GuestAddress(start), size, Some(FileOffset::new(file, 0)));
    Arc::new(region.expect("mmap of a memfd"))
}

fn info(region: &GuestRegionMmap) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo::from_guest_region(region).expect("backed by a file")
}
