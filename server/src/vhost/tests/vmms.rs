//! What a VMM may do to a device: give it memory and eventfds and take them away, read its config space, break the
//! protocol, and go.

use std::io::{Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use postern_ipc::Errno;
use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;
use vhost::vhost_user::message::{VhostUserConfigFlags, VhostUserProtocolFeatures as Protocol};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::driver::{ANSWER, BASE, Driver, NEXT, RING, SIZE, WRITE};
use super::{Device, Echo, ROOM, Socket, Transport, echo, errno, serve, simple, threads};

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
