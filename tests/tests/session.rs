//! INIT, DESTROY and the device below them: queues, memory, reboots, VMMs that come and go.

use postern_server::fuse::abi::{InHeader, InitIn, InitOut};
use postern_tests::fuse::{LINUX, PATIENCE, Process};
use postern_tests::memory::BASE;
use postern_tests::prelude::*;
use postern_tests::ring::{self, Piece};
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::VhostUserProtocolFeatures as Protocol;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use zerocopy::IntoBytes;

/// Sends STATFS from memory at `addr` and gives the length of the reply, which goes there too.
fn statfs_at(share: &Share, addr: u64) -> usize {
    let header = InHeader { len: 40, opcode: opcode::STATFS, nodeid: ROOT_ID, unique: 99, ..Default::default() };
    share.fuse().vmm.mem.write(addr, header.as_bytes());
    let mut ring = share.fuse().vmm.ring(1);
    let piece = |offset, len, writable| Piece { addr: addr + offset, len, writable };
    let ticket = ring.send_pieces(vec![piece(0, 40, false), piece(40, 96, true)]);
    ring.wait(ticket, PATIENCE).unwrap().len()
}

// FUSE: "the smaller of the two minor versions" is spoken, and only what the guest offered is granted
#[apply(virtiofs)]
fn no_more_is_granted_than_offered(on: Kind) {
    let share = on.serve();
    assert_eq!((share.fuse().init.major, LINUX & share.granted()), (7, share.granted()));
    assert!(share.fuse().init.minor <= abi::MINOR);
    let modest = InitFlags::INIT_EXT | InitFlags::MAX_PAGES | InitFlags::BIG_WRITES;
    let share = on.setup().without(modest.complement()).serve();
    assert_eq!(share.granted() & modest, share.granted());
    share.put("f", b"x").unwrap();
    assert_eq!(share.get("f").unwrap(), b"x");
}

// FUSE: "If the kernel supports a larger major version, then userspace shall reply with the major version it supports,
// ignore the rest of the INIT message and expect a new INIT message"
#[apply(virtiofs)]
fn a_guest_of_a_later_major_version_is_told_ours(share: &Share) {
    share.raw(&Request::new(opcode::DESTROY, 0)).unwrap();
    let init = InitIn { major: 8, minor: 0, ..Default::default() };
    let reply = share.raw(&Request::new(opcode::INIT, 0).arg(&init).room::<InitOut>()).unwrap();
    assert_eq!(reply[..4], 7_u32.to_le_bytes());
    share.fuse().init(LINUX).unwrap();
    share.getattr(ROOT_ID).unwrap();
}

// FUSE: DESTROY ends a session; the next INIT starts another
#[apply(virtiofs)]
fn a_guest_may_mount_again(share: &Share) {
    share.put("f", b"x").unwrap();
    for _ in 0..3 {
        share.raw(&Request::new(opcode::DESTROY, 0)).unwrap();
        share.fuse().init(LINUX).unwrap();
        assert_eq!(share.get("f").unwrap(), b"x");
    }
}

// virtio 1.2, 2.1: a driver may reset the device at any time and start anew
#[apply(virtiofs)]
fn a_guest_may_reboot(share: &Share) {
    share.put("f", b"x").unwrap();
    share.open("f", O_RDWR).unwrap();
    for _ in 0..3 {
        share.fuse().vmm.reboot();
        share.fuse().init(LINUX).unwrap();
        assert_eq!(share.get("f").unwrap(), b"x");
    }
}

// postern-server(1): the server goes on listening when the VMM disconnects
#[apply(behaviour)]
fn another_vmm_may_come(on: Kind) {
    let mut share = on.serve();
    share.put("f", b"x").unwrap();
    for _ in 0..3 {
        share.reconnect();
        assert_eq!(share.get("f").unwrap(), b"x");
    }
}

// FUSE: opcodes that are not served are answered by ENOSYS, once and for all
#[apply(virtiofs)]
fn what_is_not_served_is_not_implemented(share: &Share) {
    use opcode::{BMAP, NOTIFY_REPLY, POLL, REMOVEMAPPING, SETUPMAPPING};
    for opcode in [BMAP, POLL, NOTIFY_REPLY, SETUPMAPPING, REMOVEMAPPING, 7, 19, 54, 4095, 4096, u32::MAX] {
        let request = Request::new(opcode, ROOT_ID).bytes(&[0; 64]).room_bytes(64);
        assert_eq!(share.raw(&request), Err(ENOSYS), "{opcode}");
    }
}

// FUSE: INTERRUPT has no reply of its own, and a request that is done already is not disturbed
#[apply(virtiofs)]
fn an_interrupt_is_taken(share: &Share) {
    share.put("f", b"x").unwrap();
    let pending = share.send(&Request::new(opcode::LOOKUP, ROOT_ID).name(b"f").room::<abi::EntryOut>());
    share.interrupt(&pending);
    assert!(share.fuse().recv(pending).is_ok());
}

// virtio 1.2, 2.7.7: a driver without EVENT_IDX
#[apply(behaviour)]
fn a_driver_may_lack_event_idx(on: Kind) {
    let share = on.setup().machine(|m| m.features &= !(1 << VIRTIO_RING_F_EVENT_IDX)).serve();
    share.put("f", b"x").unwrap();
    assert_eq!(share.get("f").unwrap(), b"x");
}

// virtio 1.2, 2.7.5.3: a driver without INDIRECT_DESC
#[apply(behaviour)]
fn a_driver_may_lack_indirect_descriptors(on: Kind) {
    let share = on.setup().machine(|m| m.features &= !(1 << VIRTIO_RING_F_INDIRECT_DESC)).serve();
    let data: Vec<u8> = (0..1 << 20).map(|i: u32| (i % 251) as u8).collect();
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    assert_eq!(share.write(&file, 0, &data).unwrap(), 1 << 20);
    assert!(share.read(&file, 0, 1 << 20).unwrap() == data);
}

// virtio 1.2, 2.7: "Queue Size ... a power of 2"; indices wrap
#[apply(behaviour)]
fn a_small_ring_goes_round_many_times(on: Kind) {
    let share = on.setup().machine(|m| m.queue_size = 32).serve();
    share.put("f", b"x").unwrap();
    for _ in 0..1000 {
        share.getattr(ROOT_ID).unwrap();
    }
    assert_eq!(share.get("f").unwrap(), b"x");
}

// vhost-user: a VMM that knows no more than memory tables
#[apply(behaviour)]
fn a_vmm_may_know_no_memory_slots(on: Kind) {
    let share = on.setup().machine(|m| m.protocol = Protocol::MQ | Protocol::REPLY_ACK).serve();
    share.put("f", b"x").unwrap();
    assert_eq!(share.get("f").unwrap(), b"x");
}

// vhost-user: ADD_MEM_REG: memory plugged into a running guest is as good as the rest
#[apply(virtiofs)]
fn memory_may_be_plugged_in_and_out(share: &Share) {
    let vmm = &share.fuse().vmm;
    let (start, size) = (BASE + (1 << 40), 1 << 20);
    for _ in 0..3 {
        vmm.plug(start, size);
        assert_eq!(statfs_at(share, start), 96);
        vmm.unplug(start, size);
        share.getattr(ROOT_ID).unwrap();
    }
}

// virtio 1.2, 2.7.5: a buffer is contiguous in the guest's memory, whatever regions the VMM made of it
#[apply(virtiofs)]
fn a_buffer_may_lie_in_two_regions(share: &Share) {
    let vmm = &share.fuse().vmm;
    let end = BASE + vmm.rings() as u64 * ring::SIZE;
    vmm.plug(end, 1 << 20);
    assert_eq!(statfs_at(share, end - 20), 96, "the request in two regions");
    assert_eq!(statfs_at(share, end - 60), 96, "the reply in two regions");
}

// virtio-fs: several request queues serve one file system
#[apply(virtiofs)]
fn all_request_queues_see_one_tree(on: Kind) {
    let share = on.setup().queues(4).serve();
    for queue in 0..4 {
        let guest = share.on_queue(queue);
        let file = guest.create(format!("f{queue}").as_str(), O_RDWR, 0o644).unwrap();
        let other = share.on_queue((queue + 1) % 4);
        assert_eq!(other.write(&file, 0, b"x").unwrap(), 1);
        assert_eq!(guest.read(&file, 0, 10).unwrap(), b"x");
    }
    assert_eq!(share.list("").unwrap().len(), 4);
}

// virtio-fs: requests of different queues run at the same time
#[apply(virtiofs)]
fn request_queues_work_in_parallel(on: Kind) {
    let share = on.setup().queues(4).serve();
    let work = |queue: usize| {
        let guest: Process = share.on_queue(queue).as_user(1000 + queue as u32);
        for i in 0..50 {
            let name = format!("q{queue}-{i}");
            let data = name.repeat(1000);
            guest.put(name.as_str(), data.as_bytes()).unwrap();
            assert!(guest.get(name.as_str()).unwrap() == data.as_bytes());
            guest.rename(name.as_str(), format!("{name}-renamed").as_str()).unwrap();
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|queue| drop(scope.spawn(move || work(queue)))));
    let names = share.host.list("");
    assert_eq!(names.len(), 200);
    for name in names {
        let queue: u32 = name[1..2].parse().unwrap();
        assert_eq!(share.host.stat(&name).owner, ids(1000 + queue, 1000 + queue), "{name}");
    }
}

// vhost-user: a queue that is not enabled yet keeps its requests
#[apply(virtiofs)]
fn a_stopped_queue_is_started_again(share: &Share) {
    let vmm = &share.fuse().vmm;
    for _ in 0..3 {
        vmm.stop(1);
        vmm.start(1);
        share.getattr(ROOT_ID).unwrap();
    }
}

// virtio-fs: config space: "tag ... num_request_queues" for a server with a tag
#[apply(virtiofs)]
fn the_tag_is_in_the_config_space(on: Kind) {
    let share = on.setup().tag("my share").serve();
    let config = share.fuse().vmm.config(40);
    assert_eq!(config[..9], *b"my share\0");
    let queues = share.fuse().vmm.frontend().get_queue_num().unwrap() as u32 - 1;
    assert_eq!(config[36..], queues.to_le_bytes());
}
