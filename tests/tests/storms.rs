//! A guest and a VMM that mean harm to a server under load: memory goes, rings stop, kicks pour in, chains are whatever
//! they are. Requests of other rings are answered meanwhile, nothing is spent when it is over, and the log stays short.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postern_server::fuse::abi::*;
use postern_server::p9::message::Tversion;
use postern_server::p9::wire::Text;
use postern_tests::fuse::Caller;
use postern_tests::hostile::tried;
use postern_tests::memory::BASE;
use postern_tests::p9::frame;
use postern_tests::prelude::*;
use postern_tests::process::memory;
use postern_tests::ring;
use postern_tests::vmm::Vmm;
use virtio_bindings::virtio_ring::{VRING_DESC_F_INDIRECT, VRING_DESC_F_NEXT, VRING_DESC_F_WRITE};
use virtio_queue::desc::split::Descriptor;
use zerocopy::IntoBytes;

const NEXT: u16 = VRING_DESC_F_NEXT as u16;
const WRITE: u16 = VRING_DESC_F_WRITE as u16;
const INDIRECT: u16 = VRING_DESC_F_INDIRECT as u16;
/// How long one request may take while others mean harm.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How long a server with nothing to do is watched.
const A_MOMENT: Duration = Duration::from_millis(200);

/// Does harm in a thread of its own while another queue is used; says how often that was.
fn while_used(share: &Share, harm: impl FnOnce(&AtomicBool) + Send) -> usize {
    share.host.write("f", b"hello");
    let done = AtomicBool::new(false);
    let (other, mut rounds) = (share.on_queue(1), 0);
    std::thread::scope(|scope| {
        let harming = scope.spawn(|| {
            harm(&done);
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let since = Instant::now();
            assert_eq!(other.get("f").unwrap(), b"hello");
            assert!(since.elapsed() < AT_ONCE, "held up for {:?}", since.elapsed());
            rounds += 1;
        }
        harming.join().unwrap();
    });
    rounds
}

/// Checks that the server is there, does nothing, has not said much and serves all rings once they are started anew.
fn assert_calm(share: &Share) {
    assert!(share.server.lives(), "the server has ended");
    let before = share.server.cpu_time();
    std::thread::sleep(A_MOMENT);
    let spent = share.server.cpu_time() - before;
    assert!(spent < A_MOMENT / 2, "{spent:?} of {A_MOMENT:?} spent on nothing");
    assert!(share.server.log().lines().count() < 150, "{} lines", share.server.log().lines().count());
    share.fuse().vmm.reboot();
    share.fuse().init(postern_tests::fuse::LINUX).unwrap();
    for queue in 0..2 {
        share.on_queue(queue).getattr(ROOT_ID).unwrap();
    }
    share.server.assert_contained();
}

/// A good request of virtio-fs.
fn statfs() -> Vec<u8> {
    let header = InHeader { len: 40, opcode: opcode::STATFS, nodeid: ROOT_ID, unique: 99, ..Default::default() };
    header.as_bytes().to_vec()
}

/// Offers the chain that begins at entry 0, in slot 0, as fast as it is used.
fn offer(vmm: &Vmm, chain: &[Descriptor]) {
    let mut ring = vmm.ring(1);
    for (index, &desc) in (0..).zip(chain) {
        ring.set_desc(index, desc);
    }
    ring.offer(0);
    let _ = ring.used(Duration::from_millis(2));
}

// vhost-user: ADD_MEM_REG, REM_MEM_REG at any moment
#[apply(promise)]
fn memory_that_goes_while_requests_are_in_it_harms_nobody(on: Kind) {
    let share = on.setup().queues(2).serve();
    let vmm = &share.fuse().vmm;
    let (start, size) = (BASE + (1 << 40), 1 << 20);
    let mut attempts = 0;
    let used = while_used(&share, |_| {
        let gone = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for round in 0..150 {
                    vmm.plug(start, size);
                    std::thread::sleep(Duration::from_micros(round * 7));
                    vmm.unplug(start, size);
                }
                gone.store(true, Ordering::Relaxed);
            });
            let at = vmm.ring(1).slot_addr(0);
            vmm.mem.write(at, &statfs());
            while !gone.load(Ordering::Relaxed) {
                // The answer, the table, or the far end of the answer lies where memory comes and goes.
                offer(vmm, &[Descriptor::new(at, 40, NEXT, 1), Descriptor::new(start, 96, WRITE, 0)]);
                offer(vmm, &[Descriptor::new(start, 64, INDIRECT, 0)]);
                offer(vmm, &[Descriptor::new(at, 40, NEXT, 1), Descriptor::new(start + size - 50, 96, WRITE, 0)]);
                attempts += 3;
            }
        });
    });
    tried("requests in memory that goes", attempts);
    assert!(used > 10, "the other queue was used {used} times");
    assert_calm(&share);
}

// vhost-user: GET_VRING_BASE stops a ring whatever is under way in it
#[apply(promise)]
fn rings_that_stop_while_requests_are_in_them_harm_nobody(on: Kind) {
    let share = on.setup().queues(2).serve();
    let vmm = &share.fuse().vmm;
    let mut attempts = 0;
    while_used(&share, |_| {
        for round in 0..150_u64 {
            let at = vmm.ring(1).slot_addr(0);
            vmm.mem.write(at, &statfs());
            let mut ring = vmm.ring(1);
            for slot in 0..30_u16 {
                let (head, reply) = (slot * 2, at + 4096 * (1 + u64::from(slot)));
                ring.set_desc(head, Descriptor::new(at, 40, NEXT, head + 1));
                ring.set_desc(head + 1, Descriptor::new(reply, 96, WRITE, 0));
                ring.offer(head);
            }
            drop(ring);
            std::thread::sleep(Duration::from_micros(round));
            vmm.stop(1);
            vmm.ring(1).reset();
            vmm.start(1);
            attempts += 30;
        }
    });
    tried("requests in rings that stop", attempts);
    assert_calm(&share);
}

// virtio 1.2, 2.7.10: a driver notifies when it likes
#[apply(promise)]
fn a_storm_of_kicks_holds_up_no_other_queue(on: Kind) {
    let share = on.setup().queues(2).serve();
    let vmm = &share.fuse().vmm;
    let mut attempts = 0;
    let used = while_used(&share, |_| {
        let kick = vmm.ring(1).kick.try_clone().unwrap();
        let end = Instant::now() + Duration::from_millis(700);
        while Instant::now() < end {
            kick.write(1).unwrap();
            attempts += 1;
        }
    });
    tried("kicks for nothing", attempts);
    assert!(used > 10, "the other queue was used {used} times");
    assert_calm(&share);
}

/// What a driver may lay out, given where a good request of so many bytes is and where there is room.
type Layout = (&'static str, fn(u64, u32, u64) -> Vec<Descriptor>);

/// The last byte of memory is the one before this.
fn end(vmm: &Vmm) -> u64 {
    BASE + vmm.rings() as u64 * ring::SIZE
}

const LAYOUTS: &[Layout] = &[
    ("a loop of one", |at, len, _| vec![Descriptor::new(at, len, NEXT, 0)]),
    ("a loop of two", |at, len, room| {
        vec![Descriptor::new(at, len, NEXT, 1), Descriptor::new(room, 9, NEXT | WRITE, 0)]
    }),
    ("a way out of the table", |at, len, _| vec![Descriptor::new(at, len, NEXT, u16::MAX)]),
    ("a request that is nowhere", |_, len, room| {
        vec![Descriptor::new(0, len, NEXT, 1), Descriptor::new(room, 4096, WRITE, 0)]
    }),
    ("a request at the end of all addresses", |_, len, room| {
        vec![Descriptor::new(u64::MAX, len, NEXT, 1), Descriptor::new(room, 4096, WRITE, 0)]
    }),
    ("an answer that is nowhere", |at, len, _| {
        vec![Descriptor::new(at, len, NEXT, 1), Descriptor::new(16, 4096, WRITE, 0)]
    }),
    ("an answer at the end of all addresses", |at, len, _| {
        vec![Descriptor::new(at, len, NEXT, 1), Descriptor::new(u64::MAX - 8, 4096, WRITE, 0)]
    }),
    ("no bytes at all", |at, _, room| vec![Descriptor::new(at, 0, NEXT, 1), Descriptor::new(room, 0, WRITE, 0)]),
    ("more bytes than there are", |at, _, room| {
        vec![Descriptor::new(at, u32::MAX, NEXT, 1), Descriptor::new(room, u32::MAX, WRITE, 0)]
    }),
    ("an answer before the request", |at, len, room| {
        vec![Descriptor::new(room, 4096, WRITE | NEXT, 1), Descriptor::new(at, len, 0, 0)]
    }),
    ("no room", |at, len, _| vec![Descriptor::new(at, len, 0, 0)]),
    ("too little room", |at, len, room| vec![Descriptor::new(at, len, NEXT, 1), Descriptor::new(room, 3, WRITE, 0)]),
    ("no request", |_, _, room| vec![Descriptor::new(room, 4096, WRITE, 0)]),
    ("a table that is nowhere", |_, _, _| vec![Descriptor::new(64, 64, INDIRECT, 0)]),
    ("a table of half an entry", |at, _, _| vec![Descriptor::new(at, 24, INDIRECT, 0)]),
    ("a table without entries", |at, _, _| vec![Descriptor::new(at, 0, INDIRECT, 0)]),
    ("a table with a next", |at, _, _| vec![Descriptor::new(at, 32, INDIRECT | NEXT, 0)]),
    ("a table of all memory", |at, _, _| vec![Descriptor::new(at, !15, INDIRECT, 0)]),
    ("a table that is an answer", |_, _, room| vec![Descriptor::new(room, 64, INDIRECT | WRITE, 0)]),
    ("all flags", |at, len, _| vec![Descriptor::new(at, len, u16::MAX, u16::MAX)]),
];

/// Lays everything out on a ring of a device and calls `served` after each, with the ring started anew.
fn lay_out_everything(vmm: &Vmm, index: usize, request: &[u8], mut served: impl FnMut(&str)) -> usize {
    let length = request.len().try_into().unwrap();
    let mut attempts = 0;
    let mut attack = |what: &str, act: &dyn Fn(&Vmm, u64)| {
        let at = vmm.ring(index).slot_addr(0);
        vmm.mem.write(at, request);
        act(vmm, at);
        let _ = vmm.ring(index).used(Duration::from_millis(20));
        vmm.reboot();
        served(what);
        attempts += 1;
    };
    for (what, chain) in LAYOUTS {
        attack(what, &|vmm, at| {
            let mut ring = vmm.ring(index);
            (0..).zip(chain(at, length, at + 0x1_0000)).for_each(|(index, desc)| ring.set_desc(index, desc));
            ring.offer(0);
        });
    }
    attack("a request across the end of memory", &|vmm, at| {
        let mut ring = vmm.ring(index);
        ring.set_desc(0, Descriptor::new(end(vmm) - 5, length, NEXT, 1));
        ring.set_desc(1, Descriptor::new(at, 4096, WRITE, 0));
        ring.offer(0);
    });
    attack("a table in a table", &|vmm, at| {
        vmm.mem.write_obj(at + 0x2000, Descriptor::new(at + 0x2000, 16, INDIRECT, 0));
        let mut ring = vmm.ring(index);
        ring.set_desc(0, Descriptor::new(at + 0x2000, 16, INDIRECT, 0));
        ring.offer(0);
    });
    attack("an endless table", &|vmm, at| {
        for entry in 0..u16::MAX {
            vmm.mem.write_obj(at + 0x2000 + 16 * u64::from(entry), Descriptor::new(at, length, NEXT, entry + 1));
        }
        let mut ring = vmm.ring(index);
        ring.set_desc(0, Descriptor::new(at + 0x2000, u32::from(u16::MAX) * 16, INDIRECT, 0));
        ring.offer(0);
    });
    for head in [1024, u16::MAX] {
        attack("a head outside the table", &|vmm, _| vmm.ring(index).offer(head));
    }
    for jump in [1025, 0x4000, 0x8000, u16::MAX] {
        attack("an index that jumps", &|vmm, _| {
            let mut ring = vmm.ring(index);
            let jumped = ring.avail_idx().wrapping_add(jump);
            ring.set_avail_idx(jumped);
            ring.kick.write(1).unwrap();
        });
    }
    attempts
}

// virtio 1.2, 2.7: what a driver must not do
#[apply(promise)]
fn whatever_a_driver_lays_out_a_file_system_device_serves_on(on: Kind) {
    let share = on.setup().queues(2).serve();
    for index in [0, 1] {
        let attempts = lay_out_everything(&share.fuse().vmm, index, &statfs(), |what| {
            assert!(share.server.lives(), "{what} has ended the server");
            share.fuse().init(postern_tests::fuse::LINUX).unwrap();
            share.getattr(ROOT_ID).unwrap();
        });
        tried("layouts of a file system device", attempts);
    }
    assert_calm(&share);
}

// virtio 1.2, 2.7: what a driver must not do
#[apply(promise)]
fn whatever_a_driver_lays_out_a_9p_device_serves_on(on: Kind) {
    let share = on.setup().serve_9p();
    let version = frame(&Tversion { msize: 8192, version: Text(b"9P2000.L") }, 0xffff, 0);
    let attempts = lay_out_everything(&share.vmm, 0, &version, |what| {
        assert!(share.server.lives(), "{what} has ended the server");
        assert!(share.version(8192, b"9P2000.L").is_ok(), "{what}");
    });
    tried("layouts of a 9P device", attempts);
    assert!(share.server.log().lines().count() < 150, "{}", share.server.log());
    share.server.assert_contained();
}

// FUSE: every opcode, every word of its arguments at its edges, on nodes and handles that are there and that are not
#[apply(promise)]
fn every_opcode_with_every_word_at_its_edges_is_answered(share: &Share) {
    share.host.write("f", b"hello");
    share.host.mkdir("d");
    share.host.symlink("../outside/canary", "canary");
    let nodes = ["f", "d", "canary"].map(|name| share.lookup(name).unwrap().nodeid);
    let (file, dir) = (share.open("f", O_RDWR).unwrap(), share.opendir("d").unwrap());
    let before = memory(share.server.serving());
    let mut attempts = 0;
    let sessions = [opcode::INIT, opcode::DESTROY];
    let waiting = [opcode::SETLKW];
    for opcode in (0..64).chain([4096, u32::MAX]).filter(|op| !sessions.contains(op) && !waiting.contains(op)) {
        for (word, value) in (0..14).flat_map(|word| [0, 1, 1 << 31, u32::MAX].map(|value| (word, value))) {
            for (node, fh) in
                [(nodes[0], file.fh), (nodes[1], dir.fh), (nodes[2], 0), (ROOT_ID, u64::MAX), (u64::MAX, 1)]
            {
                let mut args = [0_u8; 56];
                args[..8].copy_from_slice(&fh.to_ne_bytes());
                args[word * 4..word * 4 + 4].copy_from_slice(&value.to_ne_bytes());
                let request = Request::new(opcode, node).bytes(&args).name(b"f").name(b"g").room_bytes(4096);
                let pending = share.fuse().send(1, Caller::ROOT, &request);
                share.fuse().recv_any(pending, AT_ONCE).unwrap_or_else(|| panic!("{request:?} is not answered"));
                attempts += 1;
            }
        }
    }
    tried("words of requests", attempts);
    let after = memory(share.server.serving());
    assert!(after < before + (32 << 10), "{before} KiB, then {after}");
    assert!(share.server.log().lines().count() < 500, "{} lines", share.server.log().lines().count());
    share.getattr(ROOT_ID).unwrap();
    share.server.assert_contained();
}
