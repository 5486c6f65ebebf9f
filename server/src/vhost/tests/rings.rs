//! Rings: who kicks and calls when, what breaks one, and what becomes of one that is stopped.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use vhost::VhostBackend;
use vhost::vhost_user::VhostUserFrontend;

use super::driver::{Driver, RING, arrived};
use super::{echo, serve, simple};

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
