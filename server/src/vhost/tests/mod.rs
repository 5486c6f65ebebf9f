//! The transport with a device that echoes, against a guest that is right, wrong or hostile.
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "a panic is a failed test")]

mod driver;

use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use postern_ipc::Errno;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures as Protocol};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::{Device, Outcome, Place, Request, Socket, Threads, Transport};
use driver::{ANSWER, BASE, Descriptor, Driver, INDIRECT, NEXT, REQUEST, RING, SIZE, WRITE, arrived};

/// Answers by the first byte of a request: `e` with the rest of it, `s` as `e` in the pool once the gate named by the
/// second byte is open, `n` with nothing, `q` with the number of its queue, `p` with a panic; with an errno, four
/// bytes, what is wrong.
struct Echo {
    queues: usize,
    config: Option<Vec<u8>>,
    open: Mutex<HashSet<u8>>,
    opened: Condvar,
    waiting: AtomicUsize,
    entered: Mutex<HashSet<usize>>,
    resets: AtomicUsize,
}

impl Device for Echo {
    fn config(&self) -> Option<&[u8]> {
        self.config.as_deref()
    }

    fn queues(&self) -> usize {
        self.queues
    }

    fn enter(&self, thread: usize) {
        assert!(self.entered.lock().unwrap().insert(thread));
    }

    fn handle(&self, request: &mut Request, place: Place) -> Outcome {
        self.answer(request, place).unwrap_or_else(|errno| {
            let written = request.write_at(0, &errno.raw().to_le_bytes());
            Outcome::Done(if written.is_ok() { 4 } else { 0 })
        })
    }

    fn reset(&self) {
        self.resets.fetch_add(1, Ordering::SeqCst);
    }
}

impl Echo {
    fn answer(&self, request: &mut Request, place: Place) -> Result<Outcome, Errno> {
        if let Some(fault) = request.fault() {
            return Err(fault.errno());
        }
        match request.read_obj::<u8>()? {
            b'e' => {}
            b's' if place == Place::Worker => return Ok(Outcome::Later),
            b's' => self.wait(request.read_obj()?),
            b'q' => {
                request.write_at(0, &[u8::try_from(request.queue()).unwrap()])?;
                return Ok(Outcome::Done(1));
            }
            b'n' => return Ok(Outcome::Done(0)),
            b'p' => panic!("asked to"),
            _ => return Err(Errno::ENOSYS),
        }
        let mut rest = vec![0; request.remaining()];
        let rest = request.read_rest(&mut rest)?;
        request.write_at(0, rest)?;
        Ok(Outcome::Done(u32::try_from(rest.len()).unwrap()))
    }

    fn wait(&self, gate: u8) {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        drop(self.opened.wait_while(self.open.lock().unwrap(), |open| !open.contains(&gate)).unwrap());
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    fn open(&self, gate: u8) {
        self.open.lock().unwrap().insert(gate);
        self.opened.notify_all();
    }

    fn await_waiting(&self, count: usize) {
        while self.waiting.load(Ordering::SeqCst) != count {
            thread::sleep(Duration::from_micros(20));
        }
    }
}

fn echo(queues: usize) -> Arc<Echo> {
    Arc::new(Echo {
        queues,
        config: None,
        open: Mutex::default(),
        opened: Condvar::new(),
        waiting: AtomicUsize::new(0),
        entered: Mutex::default(),
        resets: AtomicUsize::new(0),
    })
}

/// A worker for each queue, that looks for requests as long as by default.
fn threads(device: &Echo, pool: usize) -> Threads {
    Threads { workers: device.queues, pool, poll: Duration::from_micros(50) }
}

/// Serves `device` to the other end of the stream given back, until that end is closed.
fn serve(device: &Arc<Echo>, pool: usize) -> (UnixStream, JoinHandle<()>) {
    serve_by(device, threads(device, pool))
}

fn serve_by(device: &Arc<Echo>, threads: Threads) -> (UnixStream, JoinHandle<()>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let transport = Transport::new(Arc::clone(device) as Arc<dyn Device>, threads).unwrap();
    let socket = Socket::inherited(theirs.into()).unwrap();
    (ours, thread::spawn(move || transport.serve(socket, false).unwrap()))
}

/// A driver of a device with one queue and a pool of two threads.
fn simple(event_idx: bool) -> (Driver, Arc<Echo>) {
    let device = echo(1);
    let (stream, _) = serve(&device, 2);
    (Driver::connect(stream, 1, event_idx), device)
}

fn errno(errno: Errno) -> Vec<u8> {
    errno.raw().to_le_bytes().to_vec()
}

#[test]
fn a_request_is_answered_on_the_queue_it_came_from() {
    for (event_idx, workers) in [(false, 1), (true, 1), (true, 2), (false, 3), (true, 3)] {
        let device = echo(3);
        let (stream, _) = serve_by(&device, Threads { workers, ..threads(&device, 0) });
        let mut driver = Driver::connect(stream, 3, event_idx);
        for round in 0..100_u8 {
            for queue in [0, 2, 1] {
                assert_eq!(driver.ask(queue, &[b'e', round, 7]), [round, 7]);
                assert_eq!(driver.ask(queue, b"q"), [u8::try_from(queue).unwrap()]);
            }
        }
    }
}

#[test]
fn what_comes_on_one_queue_while_its_worker_is_at_another_is_served_then() {
    for event_idx in [false, true] {
        let device = echo(3);
        let (stream, _) = serve_by(&device, Threads { workers: 1, ..threads(&device, 0) });
        let mut driver = Driver::connect(stream, 3, event_idx);
        for gate in 0..100 {
            let at = usize::from(gate % 3);
            let others = [(at + 1) % 3, (at + 2) % 3];
            driver.lay_out(at, 0, &[b's', gate, b'x'], 16);
            driver.offer(at, 0);
            device.await_waiting(1);
            for queue in others {
                driver.lay_out(queue, 0, b"ehi", 16);
                driver.offer(queue, 0);
            }
            // The connection changes it without waiting for the worker.
            let base = driver.vmm.get_vring_base(others[0]).unwrap();
            driver.start(others[0], u16::try_from(base).unwrap());
            device.open(gate);
            assert_eq!((driver.used(at), driver.used(others[0]), driver.used(others[1])), ((0, 1), (0, 2), (0, 2)));
        }
    }
}

#[test]
fn a_worker_that_waits_holds_up_its_own_queues_alone() {
    let device = echo(4);
    let (stream, _) = serve_by(&device, Threads { workers: 2, ..threads(&device, 0) });
    let mut driver = Driver::connect(stream, 4, true);
    driver.lay_out(2, 0, b"s1x", 16);
    driver.offer(2, 0);
    device.await_waiting(1);
    for queue in [1, 3] {
        assert_eq!(driver.ask(queue, b"ehi"), b"hi");
    }
    driver.lay_out(0, 0, b"ehi", 16);
    driver.offer(0, 0);
    assert!(driver.nothing_used(0));
    device.open(b'1');
    assert_eq!((driver.used(2), driver.used(0)), ((0, 1), (0, 2)));
}

#[test]
fn indices_wrap_around() {
    let (mut driver, _) = simple(true);
    for round in 0..70_000_u32 {
        assert_eq!(driver.ask(0, &[&b"e"[..], &round.to_le_bytes()].concat()), round.to_le_bytes());
    }
}

#[test]
fn a_kick_for_nothing_does_nothing() {
    let (mut driver, _) = simple(true);
    for _ in 0..3 {
        driver.queues[0].kick.write(1).unwrap();
        assert!(driver.nothing_used(0));
    }
    assert_eq!(driver.ask(0, b"ehello"), b"hello");
}

#[test]
fn every_thread_enters_the_device_before_anything_is_served() {
    let device = echo(2);
    let _transport = Transport::new(Arc::clone(&device) as Arc<dyn Device>, threads(&device, 3)).unwrap();
    assert_eq!(*device.entered.lock().unwrap(), (0..5).collect());
}

// virtio 1.2, 2.7.10.1: "the device ... SHOULD NOT write avail_event" until it wants to be notified again.
#[test]
fn a_device_at_work_wants_no_kick_and_an_idle_one_does() {
    for event_idx in [false, true] {
        let (mut driver, device) = {
            let device = echo(1);
            let (stream, _) = serve(&device, 0);
            (Driver::connect(stream, 1, event_idx), device)
        };
        driver.ask(0, b"e");
        driver.lay_out(0, 0, b"s1x", 16);
        driver.lay_out(0, 2, b"e2", 16);
        driver.await_idle(0);
        assert!(driver.offer(0, 0), "no kick wanted by a worker that sleeps");
        device.await_waiting(1);
        assert!(!driver.offer(0, 2), "kick wanted by a worker that is at work");
        device.open(b'1');
        assert_eq!((driver.used(0), driver.used(0)), ((0, 1), (2, 1)));
        assert!(driver.called(0, true));
        driver.await_idle(0);
    }
}

#[test]
fn the_guest_is_called_when_it_says_so_and_not_else() {
    let (mut driver, _) = simple(true);
    driver.ask(0, b"e");
    while driver.called(0, false) {}
    driver.used_event(0, 5);
    for _ in 1..5 {
        driver.ask(0, b"e");
    }
    assert!(!driver.called(0, false));
    driver.ask(0, b"e");
    assert!(driver.called(0, true));
    driver.ask(0, b"e");
    assert!(!driver.called(0, false));

    let (mut driver, _) = simple(false);
    driver.ask(0, b"e");
    while driver.called(0, false) {}
    driver.no_interrupt(0, true);
    driver.ask(0, b"e");
    assert!(!driver.called(0, false));
    driver.no_interrupt(0, false);
    driver.ask(0, b"e");
    assert!(driver.called(0, true));
}

#[test]
fn slow_requests_are_overtaken_and_may_end_in_any_order() {
    let (mut driver, device) = simple(true);
    for (head, request) in [(0, b"s1one"), (2, b"s2two"), (4, b"e3___")] {
        driver.lay_out(0, head, request, 16);
        driver.offer(0, head);
    }
    assert_eq!(driver.used(0), (4, 4));
    device.await_waiting(2);
    device.open(b'2');
    assert_eq!(driver.used(0), (2, 3));
    assert_eq!(driver.answer(0, 2, 3), b"two");
    assert!(driver.nothing_used(0));
    device.open(b'1');
    assert_eq!(driver.used(0), (0, 3));
    assert_eq!(driver.answer(0, 0, 3), b"one");
}

#[test]
fn without_a_pool_slow_requests_are_handled_in_their_worker() {
    let device = echo(1);
    device.open(b'1');
    let (stream, _) = serve(&device, 0);
    let mut driver = Driver::connect(stream, 1, true);
    assert_eq!(driver.ask(0, b"s1abc"), b"abc");
}

#[test]
fn a_panic_of_the_device_costs_one_request() {
    for pool in [0, 1] {
        let device = echo(1);
        let (stream, _) = serve(&device, pool);
        let mut driver = Driver::connect(stream, 1, true);
        assert_eq!(driver.ask(0, b"p"), b"");
        assert_eq!(driver.ask(0, b"eok"), b"ok");
    }
}

#[test]
fn an_indirect_table_may_stand_alone_or_end_a_chain() {
    let (mut driver, _) = simple(true);
    let table = 0x6_0000;
    driver.write(REQUEST, b"ehello");
    driver.table(
        table,
        &[(BASE + REQUEST, 6, NEXT, 1), (BASE + ANSWER, 2, NEXT | WRITE, 2), (BASE + ANSWER + 16, 9, WRITE, 0)],
    );
    driver.table(0, &[(BASE + table, 48, INDIRECT, 0)]);
    driver.offer(0, 0);
    assert_eq!(driver.used(0), (0, 5));
    assert_eq!((driver.read(ANSWER, 2), driver.read(ANSWER + 16, 3)), (b"he".to_vec(), b"llo".to_vec()));

    driver.table(table, &[(BASE + REQUEST + 3, 3, NEXT, 1), (BASE + ANSWER, 64, WRITE, 0)]);
    driver.table(0, &[(BASE + REQUEST, 3, NEXT, 1), (BASE + table, 32, INDIRECT, 0)]);
    driver.offer(0, 0);
    assert_eq!((driver.used(0), driver.read(ANSWER, 5)), ((0, 5), b"hello".to_vec()));
}

/// Where malformed chains find their indirect table, from the beginning of memory.
const TABLE: u64 = 0x6_0000;
/// A readable and a writable buffer that are all right.
const READ: Descriptor = (BASE + REQUEST, 6, NEXT, 1);
const ROOM: Descriptor = (BASE + ANSWER, 64, WRITE, 0);
const OUTSIDE: u64 = BASE + SIZE;

/// Name, ring's table, indirect table, and the errno that is answered; `None` where there is no room for it.
type Malformed = (&'static str, &'static [Descriptor], &'static [Descriptor], Option<Errno>);

const MALFORMED: &[Malformed] = &[
    ("nothing to read", &[ROOM], &[], Some(Errno::EINVAL)),
    ("nowhere to answer", &[(BASE + REQUEST, 6, 0, 0)], &[], None),
    ("no bytes at all", &[(BASE + REQUEST, 0, 0, 0)], &[], None),
    ("next outside the table, no room", &[(BASE + REQUEST, 6, NEXT, 99)], &[], None),
    ("next outside the table", &[READ, (BASE + ANSWER, 64, NEXT | WRITE, RING)], &[], Some(Errno::EINVAL)),
    ("a loop over one", &[(BASE + REQUEST, 6, NEXT, 0)], &[], None),
    ("a loop over two", &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 0)], &[], Some(Errno::EINVAL)),
    ("a loop over the last", &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 1)], &[], Some(Errno::EINVAL)),
    (
        "writable before readable",
        &[(BASE + ANSWER, 64, NEXT | WRITE, 1), (BASE + REQUEST, 6, 0, 0)],
        &[],
        Some(Errno::EINVAL),
    ),
    ("a request outside memory", &[(OUTSIDE, 6, NEXT, 1), ROOM], &[], Some(Errno::EFAULT)),
    ("a request below memory", &[(8, 6, NEXT, 1), ROOM], &[], Some(Errno::EFAULT)),
    ("a request over the end of memory", &[(OUTSIDE - 3, 6, NEXT, 1), ROOM], &[], Some(Errno::EFAULT)),
    ("a request around the end of the address space", &[(u64::MAX - 2, 6, NEXT, 1), ROOM], &[], Some(Errno::EFAULT)),
    (
        "data outside memory",
        &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 2), (OUTSIDE, 4096, WRITE, 0)],
        &[],
        Some(Errno::EFAULT),
    ),
    ("room outside memory", &[READ, (OUTSIDE, 64, WRITE, 0)], &[], None),
    (
        "more than four gigabytes",
        &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 2), (OUTSIDE, u32::MAX, WRITE, 0)],
        &[],
        Some(Errno::E2BIG),
    ),
    ("an indirect table with a successor", &[(BASE + TABLE, 32, INDIRECT | NEXT, 1), ROOM], &[READ, ROOM], None),
    ("an indirect table without entries", &[(BASE + TABLE, 0, INDIRECT, 0)], &[READ, ROOM], None),
    ("an indirect table of a broken length", &[(BASE + TABLE, 33, INDIRECT, 0)], &[READ, ROOM], None),
    (
        "an indirect table outside memory",
        &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 2), (OUTSIDE, 32, INDIRECT, 0)],
        &[],
        Some(Errno::EFAULT),
    ),
    (
        "an indirect table in another",
        &[(BASE + TABLE, 48, INDIRECT, 0)],
        &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 2), (BASE + TABLE, 48, INDIRECT, 0)],
        Some(Errno::EINVAL),
    ),
    (
        "next outside an indirect table",
        &[(BASE + TABLE, 32, INDIRECT, 0)],
        &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 2)],
        Some(Errno::EINVAL),
    ),
    (
        "a loop in an indirect table",
        &[(BASE + TABLE, 32, INDIRECT, 0)],
        &[READ, (BASE + ANSWER, 64, NEXT | WRITE, 1)],
        Some(Errno::EINVAL),
    ),
];

// CVE-2026-16457, CVE-2026-50626: QEMU's virtio spins on such chains.
#[test]
fn a_malformed_chain_is_answered_and_the_next_one_served() {
    let (mut driver, _) = simple(true);
    for (name, ring, indirect, answer) in MALFORMED {
        driver.write(REQUEST, b"ehello");
        driver.table(TABLE, indirect);
        driver.table(0, ring);
        driver.offer(0, 0);
        let expected = answer.map(errno).unwrap_or_default();
        assert_eq!(driver.used(0), (0, u32::try_from(expected.len()).unwrap()), "{name}");
        assert_eq!(driver.read(ANSWER, expected.len()), expected, "{name}");
        assert_eq!(driver.ask(0, b"ealive"), b"alive", "{name}");
    }
}

#[test]
fn a_chain_is_at_most_1024_buffers_long() {
    let (mut driver, _) = simple(true);
    for (count, expected) in [(1024_u16, b"hello".to_vec()), (1025, errno(Errno::E2BIG))] {
        driver.write(REQUEST, b"ehello");
        let mut table = vec![READ];
        table.extend((2..=count).map(|next| (BASE + ANSWER + u64::from(next) * 2, 1, NEXT | WRITE, next)));
        table[1] = (BASE + ANSWER, 64, NEXT | WRITE, 2);
        table[usize::from(count) - 1].2 = WRITE;
        driver.table(TABLE, &table);
        driver.table(0, &[(BASE + TABLE, u32::from(count) * 16, INDIRECT, 0)]);
        driver.offer(0, 0);
        assert_eq!(driver.used(0), (0, u32::try_from(expected.len()).unwrap()));
        assert_eq!(driver.read(ANSWER, expected.len()), expected);
    }
}

#[test]
fn buffers_without_bytes_change_nothing() {
    let (mut driver, _) = simple(true);
    driver.write(REQUEST, b"ehello");
    let chain = [(0, 0, NEXT, 1), (BASE + REQUEST, 6, NEXT, 2), (OUTSIDE, 0, NEXT | WRITE, 3), ROOM];
    driver.table(0, &chain);
    driver.offer(0, 0);
    assert_eq!((driver.used(0), driver.read(ANSWER, 5)), ((0, 5), b"hello".to_vec()));
}

#[test]
fn a_ring_that_the_guest_breaks_stands_still_alone_until_it_is_set_up_again() {
    let jump: fn(&mut Driver) = |driver| {
        driver.jump(0, 1000);
        driver.queues[0].kick.write(1).unwrap();
    };
    let head: fn(&mut Driver) = |driver| assert!(driver.offer(0, RING));
    for (what, taken) in [(jump, 1), (head, 1)] {
        let device = echo(2);
        let (stream, _) = serve(&device, 1);
        let mut driver = Driver::connect(stream, 2, true);
        driver.ask(0, b"e");
        driver.await_idle(0);
        what(&mut driver);
        assert!(arrived(&driver.queues[0].error, true));
        driver.queues[0].kick.write(1).unwrap();
        assert!(driver.nothing_used(0));
        assert_eq!(driver.ask(1, b"eother"), b"other");
        assert_eq!(driver.vmm.get_vring_base(0).unwrap(), taken);
        driver.jump(0, 1);
        driver.start(0, 1);
        assert_eq!(driver.ask(0, b"eagain"), b"again");
    }
}

#[test]
fn a_guest_with_more_requests_under_way_than_descriptors_breaks_its_ring() {
    let (mut driver, device) = simple(true);
    driver.lay_out(0, 0, b"s1x", 16);
    for _ in 0..=RING {
        driver.await_idle(0);
        driver.offer(0, 0);
    }
    assert!(arrived(&driver.queues[0].error, true));
    device.open(b'1');
    for _ in 0..RING {
        assert_eq!(driver.used(0), (0, 1));
    }
    assert!(driver.nothing_used(0));
}

// vhost-user: GET_VRING_BASE stops the ring; what it took before is finished first.
#[test]
fn stopping_a_ring_waits_for_what_is_under_way() {
    let (mut driver, device) = simple(true);
    driver.ask(0, b"e");
    driver.lay_out(0, 0, b"s1late", 16);
    driver.offer(0, 0);
    device.await_waiting(1);
    let opener = Arc::clone(&device);
    let opener = thread::spawn(move || {
        thread::sleep(Duration::from_millis(30));
        opener.open(b'1');
    });
    assert_eq!(driver.vmm.get_vring_base(0).unwrap(), 2);
    opener.join().unwrap();
    assert_eq!(driver.used(0), (0, 4));
    driver.lay_out(0, 2, b"ewait", 16);
    driver.offer(0, 2);
    driver.queues[0].kick.write(1).unwrap();
    assert!(driver.nothing_used(0), "a stopped ring serves nothing");
    driver.start(0, 2);
    assert_eq!(driver.used(0), (2, 4), "what came meanwhile is served without a kick");
}

#[test]
fn a_disabled_ring_serves_nothing_until_it_is_enabled() {
    let (mut driver, _) = simple(true);
    driver.ask(0, b"e");
    driver.vmm.set_vring_enable(0, false).unwrap();
    driver.lay_out(0, 0, b"ewait", 16);
    driver.offer(0, 0);
    assert!(driver.nothing_used(0));
    driver.vmm.set_vring_enable(0, true).unwrap();
    assert_eq!(driver.used(0), (0, 4));
}

#[test]
fn resetting_the_device_stops_its_rings_and_resets_it() {
    let (mut driver, device) = simple(true);
    driver.ask(0, b"e");
    driver.vmm.reset_device().unwrap();
    assert_eq!(device.resets.load(Ordering::SeqCst), 1);
    driver.lay_out(0, 0, b"e", 16);
    driver.offer(0, 0);
    driver.queues[0].kick.write(1).unwrap();
    assert!(driver.nothing_used(0));
    driver.jump(0, 1);
    driver.start(0, 1);
    assert_eq!(driver.ask(0, b"eback"), b"back");
}

#[test]
fn memory_comes_and_goes_while_rings_run() {
    let (mut driver, device) = simple(true);
    let plugged = driver.region(SIZE, SIZE);
    assert!(driver.vmm.get_max_mem_slots().unwrap() >= 32);
    driver.vmm.add_mem_region(&plugged).unwrap();
    driver.write(SIZE + 64, b"s1plugged");
    let chain = [(BASE + SIZE + 64, 9, NEXT, 1), (BASE + SIZE + 256, 16, WRITE, 0)];
    driver.table(0, &chain);
    driver.offer(0, 0);
    device.await_waiting(1);
    driver.vmm.remove_mem_region(&plugged).unwrap();
    assert_eq!(driver.ask(0, b"eother"), b"other");
    device.open(b'1');
    assert_eq!(driver.used(0), (0, 7), "a request under way keeps its memory");
    assert_eq!(driver.read(SIZE + 256, 7), b"plugged");
    driver.table(0, &[(BASE + SIZE + 64, 9, NEXT, 1), ROOM]);
    driver.offer(0, 0);
    assert_eq!((driver.used(0), driver.read(ANSWER, 4)), ((0, 4), errno(Errno::EFAULT)));
}

#[test]
fn a_buffer_may_lie_across_regions_that_follow_each_other() {
    let (mut driver, _) = simple(true);
    driver.vmm.add_mem_region(&driver.region(SIZE, SIZE)).unwrap();
    driver.write(SIZE - 3, b"eacross");
    driver.table(0, &[(BASE + SIZE - 3, 7, NEXT, 1), (BASE + SIZE - 1, 64, WRITE, 0)]);
    driver.offer(0, 0);
    assert_eq!((driver.used(0), driver.read(SIZE - 1, 6)), ((0, 6), b"across".to_vec()));
}

#[test]
fn regions_that_cannot_be_are_refused_and_the_rest_stays() {
    let (mut driver, _) = simple(true);
    let mut over = driver.region(SIZE - 4096, 8192);
    assert!(driver.vmm.add_mem_region(&over).is_err(), "over the first for guest and VMM");
    over.userspace_addr += 1 << 40;
    assert!(driver.vmm.add_mem_region(&over).is_err(), "over the first for the guest");
    let mut long = driver.region(SIZE, SIZE);
    long.memory_size *= 2;
    assert!(driver.vmm.add_mem_region(&long).is_err(), "longer than its file");
    long.memory_size = u64::MAX - 4095;
    assert!(driver.vmm.add_mem_region(&long).is_err(), "around the address space");
    let unaligned = vhost::VhostUserMemoryRegionInfo { mmap_offset: 1, memory_size: 4096, ..driver.region(SIZE, 4096) };
    assert!(driver.vmm.add_mem_region(&unaligned).is_err(), "not mappable");
    assert!(driver.vmm.remove_mem_region(&driver.region(SIZE, SIZE)).is_err(), "not there");
    assert_eq!(driver.ask(0, b"estill here"), b"still here");
}

#[test]
fn a_ring_whose_memory_is_taken_away_stops_and_comes_back_with_it() {
    let (mut driver, _) = simple(true);
    driver.ask(0, b"e");
    driver.vmm.remove_mem_region(&driver.region(0, SIZE)).unwrap();
    driver.lay_out(0, 0, b"ewait", 16);
    driver.offer(0, 0);
    driver.queues[0].kick.write(1).unwrap();
    assert!(driver.nothing_used(0));
    driver.vmm.add_mem_region(&driver.region(0, SIZE)).unwrap();
    assert_eq!(driver.used(0), (0, 4));
}

#[test]
fn a_ring_outside_memory_is_refused_and_the_connection_goes_on() {
    let device = echo(1);
    let (stream, _) = serve(&device, 0);
    let mut driver = Driver::new(stream, 1, true);
    driver.vmm.set_mem_table(&[driver.region(SIZE, SIZE)]).unwrap();
    let rings = vhost::VringConfigData {
        desc_table_addr: 16,
        avail_ring_addr: 1 << 20,
        used_ring_addr: 1 << 30,
        ..Default::default()
    };
    driver.vmm.set_vring_num(0, RING).unwrap();
    driver.vmm.set_vring_addr(0, &rings).unwrap();
    driver.vmm.set_vring_kick(0, &driver.queues[0].kick).unwrap();
    assert!(driver.vmm.set_vring_enable(0, true).is_err());
    driver.vmm.set_mem_table(&[driver.region(0, SIZE)]).unwrap();
    driver.start(0, 0);
    assert_eq!(driver.ask(0, b"efine"), b"fine");
}

#[test]
fn a_kick_is_taken_over_by_another() {
    let (mut driver, _) = simple(true);
    driver.ask(0, b"e");
    driver.queues[0].kick = EventFd::new(EFD_NONBLOCK).unwrap();
    driver.vmm.set_vring_kick(0, &driver.queues[0].kick).unwrap();
    assert_eq!(driver.ask(0, b"enew"), b"new");
    driver.queues[0].call = EventFd::new(EFD_NONBLOCK).unwrap();
    driver.vmm.set_vring_call(0, &driver.queues[0].call).unwrap();
    assert!(driver.called(0, true), "what was used before may have called the old one");
}

#[test]
fn the_config_space_is_offered_if_there_is_one() {
    let (driver, _) = simple(true);
    let protocol = driver.vmm.clone().get_protocol_features().unwrap();
    assert!(!protocol.contains(Protocol::CONFIG));
    drop(driver);

    let device = Arc::new(Echo { config: Some(b"\x03\0tag".to_vec()), ..Arc::into_inner(echo(1)).unwrap() });
    let (stream, _) = serve(&device, 0);
    let mut driver = Driver::new(stream, 1, true);
    let mut config = |offset, size: u32| {
        let buffer = vec![0; usize::try_from(size).unwrap()];
        driver.vmm.get_config(offset, size, VhostUserConfigFlags::WRITABLE, &buffer).map(|(_, bytes)| bytes)
    };
    assert_eq!(config(0, 5).unwrap(), b"\x03\0tag");
    assert_eq!(config(2, 2).unwrap(), b"ta");
    assert_eq!(config(4, 4).unwrap(), b"g\0\0\0");
    assert_eq!(config(100, 1).unwrap(), b"\0");
    assert!(driver.vmm.set_config(0, VhostUserConfigFlags::WRITABLE, b"x").is_err());
}

fn listener(name: &str) -> (SocketAddr, UnixListener) {
    let address = SocketAddr::from_abstract_name(format!("postern-{name}-{}", std::process::id())).unwrap();
    let listener = UnixListener::bind_addr(&address).unwrap();
    (address, listener)
}

#[test]
fn one_vmm_after_another_is_served() {
    let device = echo(1);
    let (address, listening) = listener("after");
    let transport = Transport::new(Arc::clone(&device) as Arc<dyn Device>, threads(&device, 1)).unwrap();
    thread::spawn(move || transport.serve(Socket::Listening(listening), false));
    for count in 0..5 {
        let mut driver = Driver::connect(UnixStream::connect_addr(&address).unwrap(), 1, true);
        assert_eq!(device.resets.load(Ordering::SeqCst), count);
        assert_eq!(driver.ask(0, b"ehello"), b"hello");
    }
}

#[test]
fn serving_ends_with_the_first_vmm_if_told_so() {
    let device = echo(1);
    let (address, listening) = listener("once");
    let transport = Transport::new(Arc::clone(&device) as Arc<dyn Device>, threads(&device, 1)).unwrap();
    let served = thread::spawn(move || transport.serve(Socket::Listening(listening), true));
    drop(Driver::connect(UnixStream::connect_addr(&address).unwrap(), 1, true));
    served.join().unwrap().unwrap();
    assert_eq!(device.resets.load(Ordering::SeqCst), 1);
}

#[test]
fn a_vmm_that_breaks_the_protocol_loses_its_connection_only() {
    let device = echo(1);
    let (address, listening) = listener("broken");
    let transport = Transport::new(Arc::clone(&device) as Arc<dyn Device>, threads(&device, 1)).unwrap();
    thread::spawn(move || transport.serve(Socket::Listening(listening), false));
    let header =
        |request: u32, flags: u32, size: u32| [request.to_ne_bytes(), flags.to_ne_bytes(), size.to_ne_bytes()].concat();
    // A request that does not exist, another version, a body too long, too short, and half a header.
    let messages =
        [header(9999, 1, 0), header(1, 2, 0), header(1, 1, 1 << 30), header(8, 1, 4), header(1, 1, 0)[..5].to_vec()];
    for message in messages {
        let mut stream = UnixStream::connect_addr(&address).unwrap();
        stream.write_all(&message).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(stream.read(&mut [0; 64]).unwrap_or(0), 0, "{message:?}");
    }
    let driver = Driver::connect(UnixStream::connect_addr(&address).unwrap(), 1, true);
    assert!(driver.vmm.set_vring_num(0, 3).is_err(), "no power of two");
    let mut driver = Driver::connect(UnixStream::connect_addr(&address).unwrap(), 1, true);
    assert_eq!(driver.ask(0, b"ehello"), b"hello");
}

#[test]
fn nothing_of_a_vmm_that_is_gone_is_kept() {
    let device = echo(2);
    let (stream, served) = serve(&device, 2);
    let mut driver = Driver::connect(stream, 2, true);
    device.open(b'1');
    for queue in [0, 1] {
        driver.ask(queue, b"e");
        driver.ask(queue, b"s1x");
    }
    let inode = rustix::fs::fstat(driver.file()).unwrap().st_ino;
    drop(driver);
    served.join().unwrap();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let kept = maps.lines().filter(|line| line.contains("postern-guest") && line.contains(&format!(" {inode} ")));
    assert_eq!(kept.count(), 0);
}
