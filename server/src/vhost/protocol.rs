//! What a VMM may ask of a vhost-user back-end: memory, rings, features. docs/interop/vhost-user.rst of QEMU
//!
//! A request that cannot be done is refused with one log line and, where the VMM wants an answer, an error; the
//! connection goes on. A VMM that breaks the protocol loses its connection, nothing else.

use std::fs::File;
use std::io;
use std::sync::Arc;

use postern_ipc::Errno;
use vhost::vhost_user::message::{
    VhostTransferStateDirection, VhostTransferStatePhase, VhostUserConfigFlags, VhostUserInflight, VhostUserLog,
    VhostUserMemoryRegion, VhostUserProtocolFeatures, VhostUserShMemConfig, VhostUserSharedMsg,
    VhostUserSingleMemoryRegion, VhostUserVirtioFeatures, VhostUserVringAddrFlags, VhostUserVringState,
};
use vhost::vhost_user::{Backend, Error, GpuBackend, Result, VhostUserBackendReqHandlerMut};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::device::Device;
use super::memory::{MAX_REGIONS, Memory, Place, Region, SHARE};
use super::queue::Queue;
use super::ring::{Addresses, MAX_SIZE, Ring};

/// Feature bits that every device has.
const FEATURES: u64 = 1 << VIRTIO_F_VERSION_1
    | 1 << VIRTIO_RING_F_EVENT_IDX
    | 1 << VIRTIO_RING_F_INDIRECT_DESC
    | VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits();

/// One VMM's use of the device.
pub(super) struct Connection {
    device: Arc<dyn Device>,
    queues: Arc<[Arc<Queue>]>,
    settings: Box<[Setting]>,
    memory: Arc<Memory>,
    features: u64,
    /// For requests of ours to the VMM. There are none, but it takes a closed one for our end.
    requests: Option<Backend>,
}

/// What the VMM said of a ring.
#[derive(Default)]
struct Setting {
    /// Descriptors; 0 means not told yet.
    size: u16,
    at: Option<Addresses>,
    /// The index to begin with.
    base: u16,
    kick: Option<File>,
    enabled: bool,
    running: bool,
}

impl Connection {
    /// Nothing agreed yet.
    pub(super) fn new(device: Arc<dyn Device>, queues: Arc<[Arc<Queue>]>) -> Self {
        let settings = queues.iter().map(|_| Setting::default()).collect();
        Self { device, queues, settings, memory: Arc::default(), features: 0, requests: None }
    }

    /// The VMM is gone: nothing of its is kept.
    pub(super) fn end(&mut self) {
        self.reset();
        for queue in self.queues.iter() {
            queue.set_call(None);
            queue.set_error(None);
        }
    }

    /// Stops all rings, waits for what is under way and has the device forget its guest.
    fn reset(&mut self) {
        for index in 0..self.queues.len() {
            self.forget(index);
        }
        self.device.reset();
    }

    /// Stops a ring and forgets its kick, so that it does not start again before the VMM says so.
    fn forget(&mut self, index: usize) {
        self.stop(index);
        if let (Some(setting), Some(queue)) = (self.settings.get_mut(index), self.queues.get(index))
            && let Some(kick) = setting.kick.take()
        {
            let _ = queue.unwatch(&kick);
        }
    }

    fn stop(&mut self, index: usize) {
        if let (Some(setting), Some(queue)) = (self.settings.get_mut(index), self.queues.get(index)) {
            setting.base = queue.stop().unwrap_or(setting.base);
            setting.running = false;
        }
    }

    fn setting(&mut self, index: u32) -> Result<(usize, &mut Setting)> {
        let index = usize::try_from(index).map_err(|_| Error::InvalidParam)?;
        self.settings.get_mut(index).map(|setting| (index, setting)).ok_or(Error::InvalidParam)
    }

    fn queue(&self, index: usize) -> Result<&Arc<Queue>> {
        self.queues.get(index).ok_or(Error::InvalidParam)
    }

    /// The ring of `setting` as it lies in the present memory.
    fn find(&self, index: usize) -> Option<Arc<Ring>> {
        let setting = self.settings.get(index)?;
        let event_idx = self.features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let ring = Ring::find(&self.memory, setting.size, setting.at?, event_idx);
        if ring.is_none() {
            log::warn!("queue {index}: its ring is not within a region of shared memory: {SHARE}");
        }
        ring.map(Arc::new)
    }

    /// Starts a ring that has all it needs, or stops one that has not.
    fn settle(&mut self, index: usize) -> Result<()> {
        let Some(setting) = self.settings.get(index) else { return Err(Error::InvalidParam) };
        let ready = setting.enabled && setting.kick.is_some() && setting.size > 0 && setting.at.is_some();
        if setting.running && !ready {
            self.stop(index);
        } else if !setting.running && ready {
            let base = setting.base;
            let ring = self.find(index).ok_or_else(|| refusal(Errno::EFAULT))?;
            self.queue(index)?.start(&ring, &self.memory, base).map_err(|_| refusal(Errno::EFAULT))?;
            self.settings.get_mut(index).ok_or(Error::InvalidParam)?.running = true;
        }
        Ok(())
    }

    /// The guest's memory is another from now on. Rings go on in it; requests under way keep the old one.
    fn remap(&mut self, memory: Memory) {
        self.memory = Arc::new(memory);
        for index in 0..self.queues.len() {
            if !self.settings.get(index).is_some_and(|setting| setting.running) {
                // One that had to wait for its memory; why it still cannot start was logged.
                let _ = self.settle(index);
                continue;
            }
            match (self.find(index), self.queues.get(index)) {
                (Some(ring), Some(queue)) => queue.rebase(&ring, &self.memory),
                _ => self.stop(index),
            }
        }
    }

    fn map(region: &VhostUserMemoryRegion, file: File) -> Result<Region> {
        let place = place(region);
        Region::map(place, file, region.mmap_offset).map_err(|errno| {
            let Place { guest, size, .. } = place;
            log::error!("cannot map {size} bytes of guest memory at {guest:#x}: {errno}: {SHARE}");
            refusal(errno)
        })
    }

    fn refuse_region(errno: Errno, region: &VhostUserMemoryRegion) -> Error {
        let Place { guest, user, size } = place(region);
        log::warn!("refused a region of guest memory: {size} bytes at {guest:#x}, {user:#x} in the VMM: {errno}");
        refusal(errno)
    }
}

fn place(region: &VhostUserMemoryRegion) -> Place {
    Place { guest: region.guest_phys_addr, user: region.user_addr, size: region.memory_size }
}

/// What cannot be done, as opposed to a broken protocol: the connection goes on.
fn refusal(errno: Errno) -> Error {
    Error::ReqHandlerError(io::Error::from_raw_os_error(errno.raw()))
}

/// What was never offered, so that no VMM may ask for it.
fn never_offered<T>() -> Result<T> {
    Err(Error::InvalidOperation("not offered"))
}

impl VhostUserBackendReqHandlerMut for Connection {
    fn set_owner(&mut self) -> Result<()> {
        Ok(())
    }

    fn reset_owner(&mut self) -> Result<()> {
        self.reset_device()
    }

    fn reset_device(&mut self) -> Result<()> {
        self.reset();
        for setting in &mut self.settings {
            setting.enabled = false;
        }
        Ok(())
    }

    fn get_features(&mut self) -> Result<u64> {
        Ok(FEATURES | self.device.features())
    }

    fn set_features(&mut self, features: u64) -> Result<()> {
        if features & !(FEATURES | self.device.features()) != 0 {
            return Err(Error::FeatureMismatch);
        }
        self.features = features;
        // Without the means to enable rings they are enabled from the start.
        let enabled = features & VhostUserVirtioFeatures::PROTOCOL_FEATURES.bits() == 0;
        for index in 0..self.settings.len() {
            if let Some(setting) = self.settings.get_mut(index) {
                setting.enabled |= enabled;
            }
            self.settle(index)?;
        }
        Ok(())
    }

    fn set_mem_table(
        &mut self,
        regions: &[VhostUserMemoryRegion],
        files: Vec<File>,
        _postcopy: Option<bool>,
    ) -> Result<Option<Vec<u64>>> {
        let mut memory = Memory::new();
        for (region, file) in regions.iter().zip(files) {
            let mapped = Self::map(region, file)?;
            memory = memory.with(mapped).map_err(|errno| Self::refuse_region(errno, region))?;
        }
        self.remap(memory);
        Ok(None)
    }

    fn get_max_mem_slots(&mut self) -> Result<u64> {
        u64::try_from(MAX_REGIONS).map_err(|_| Error::BackendInternalError)
    }

    fn add_mem_region(
        &mut self,
        region: &VhostUserSingleMemoryRegion,
        file: File,
        _postcopy: Option<bool>,
    ) -> Result<Option<u64>> {
        let mapped = Self::map(region, file)?;
        let memory = self.memory.with(mapped).map_err(|errno| Self::refuse_region(errno, region))?;
        self.remap(memory);
        Ok(None)
    }

    fn remove_mem_region(&mut self, region: &VhostUserSingleMemoryRegion) -> Result<()> {
        let memory = self.memory.without(place(region)).map_err(|errno| Self::refuse_region(errno, region))?;
        self.remap(memory);
        Ok(())
    }

    fn set_vring_num(&mut self, index: u32, num: u32) -> Result<()> {
        let size = u16::try_from(num).ok().filter(|size| size.is_power_of_two() && *size <= MAX_SIZE);
        let (_, setting) = self.setting(index)?;
        if setting.running {
            return Err(Error::InvalidOperation("the size of a running ring"));
        }
        setting.size = size.ok_or(Error::InvalidParam)?;
        Ok(())
    }

    fn set_vring_addr(
        &mut self,
        index: u32,
        _flags: VhostUserVringAddrFlags,
        descriptors: u64,
        used: u64,
        available: u64,
        _log: u64,
    ) -> Result<()> {
        let (at, setting) = self.setting(index)?;
        let running = setting.running;
        setting.at = Some(Addresses { descriptors, available, used });
        if running {
            self.stop(at);
            self.settle(at)?;
        }
        Ok(())
    }

    fn set_vring_base(&mut self, index: u32, base: u32) -> Result<()> {
        let (_, setting) = self.setting(index)?;
        if setting.running {
            return Err(Error::InvalidOperation("the index of a running ring"));
        }
        setting.base = u16::try_from(base).map_err(|_| Error::InvalidParam)?;
        Ok(())
    }

    fn get_vring_base(&mut self, index: u32) -> Result<VhostUserVringState> {
        let (at, _) = self.setting(index)?;
        self.forget(at);
        let (_, setting) = self.setting(index)?;
        Ok(VhostUserVringState::new(index, setting.base.into()))
    }

    fn set_vring_kick(&mut self, index: u8, kick: Option<File>) -> Result<()> {
        let (index, _) = self.setting(index.into())?;
        let Some(kick) = kick else {
            log::warn!("queue {index}: refused to poll its ring instead of being kicked");
            return Err(refusal(Errno::EOPNOTSUPP));
        };
        let queue = self.queue(index)?;
        queue.watch(&kick).map_err(|errno| {
            log::warn!("queue {index}: refused a kick that cannot be waited for: {errno}");
            refusal(errno)
        })?;
        let (_, setting) = self.setting(u32::try_from(index).map_err(|_| Error::InvalidParam)?)?;
        let old = setting.kick.replace(kick);
        if let Some(old) = old {
            let _ = self.queue(index)?.unwatch(&old);
        }
        self.settle(index)
    }

    fn set_vring_call(&mut self, index: u8, call: Option<File>) -> Result<()> {
        self.queue(index.into())?.set_call(call);
        Ok(())
    }

    fn set_vring_err(&mut self, index: u8, error: Option<File>) -> Result<()> {
        self.queue(index.into())?.set_error(error);
        Ok(())
    }

    fn set_vring_enable(&mut self, index: u32, enable: bool) -> Result<()> {
        let (index, setting) = self.setting(index)?;
        setting.enabled = enable;
        self.settle(index)
    }

    fn get_protocol_features(&mut self) -> Result<VhostUserProtocolFeatures> {
        let config =
            self.device.config().map_or(VhostUserProtocolFeatures::empty(), |_| VhostUserProtocolFeatures::CONFIG);
        Ok(config
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS)
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<()> {
        let offered = self.get_protocol_features()?.bits();
        if features & !offered == 0 { Ok(()) } else { Err(Error::FeatureMismatch) }
    }

    fn get_queue_num(&mut self) -> Result<u64> {
        u64::try_from(self.queues.len()).map_err(|_| Error::BackendInternalError)
    }

    /// What is asked for beyond the config space is zero.
    fn get_config(&mut self, offset: u32, size: u32, _flags: VhostUserConfigFlags) -> Result<Vec<u8>> {
        let (Ok(offset), Ok(size)) = (usize::try_from(offset), usize::try_from(size)) else {
            return Err(Error::InvalidParam);
        };
        let config = self.device.config().and_then(|config| config.get(offset..)).unwrap_or_default();
        Ok(config.iter().copied().chain(std::iter::repeat(0)).take(size).collect())
    }

    fn set_config(&mut self, _offset: u32, _bytes: &[u8], _flags: VhostUserConfigFlags) -> Result<()> {
        log::warn!("refused to change the config space: nothing in it can be written");
        Err(refusal(Errno::EPERM))
    }

    fn set_backend_req_fd(&mut self, requests: Backend) {
        self.requests = Some(requests);
    }

    fn set_gpu_socket(&mut self, _gpu: GpuBackend) -> Result<()> {
        never_offered()
    }

    fn get_shared_object(&mut self, _uuid: VhostUserSharedMsg) -> Result<File> {
        never_offered()
    }

    fn get_inflight_fd(&mut self, _inflight: &VhostUserInflight) -> Result<(VhostUserInflight, File)> {
        never_offered()
    }

    fn set_inflight_fd(&mut self, _inflight: &VhostUserInflight, _file: File) -> Result<()> {
        never_offered()
    }

    fn set_device_state_fd(
        &mut self,
        _direction: VhostTransferStateDirection,
        _phase: VhostTransferStatePhase,
        _file: File,
    ) -> Result<Option<File>> {
        never_offered()
    }

    fn check_device_state(&mut self) -> Result<()> {
        never_offered()
    }

    fn get_shmem_config(&mut self) -> Result<VhostUserShMemConfig> {
        never_offered()
    }

    fn set_log_base(&mut self, _log: &VhostUserLog, _file: File) -> Result<()> {
        never_offered()
    }
}
