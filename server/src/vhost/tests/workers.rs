//! The threads that answer requests: which queues are whose, and what the pool is for.

use std::sync::Arc;

use vhost::VhostBackend;

use super::driver::Driver;
use super::{Device, Threads, Transport, echo, serve, serve_by, simple, threads};

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
fn every_thread_enters_the_device_before_anything_is_served() {
    let device = echo(2);
    let _transport = Transport::new(Arc::clone(&device) as Arc<dyn Device>, threads(&device, 3)).unwrap();
    assert_eq!(*device.entered.lock().unwrap(), (0..5).collect());
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
