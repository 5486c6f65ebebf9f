//! A QEMU that means harm, behind `-fsdev proxy`: requests of every type, cut anywhere, in pieces, with descriptors, in
//! floods whose answers nobody takes. Each is answered, nothing is kept, nothing is spent when it is over, and the log
//! stays short.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Instant;

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use postern_tests::hostile::{Dice, assert_short, is_its_turn, tried};
use postern_tests::prelude::{Kind, apply, promise};
use postern_tests::process::{assert_settles, descriptors, memory};
use postern_tests::proxy::Helper::Postern;
use postern_tests::proxy::{Arg, Proxy, kind, payload, request, requests};
use postern_tests::twin::{children, goes};

/// Most bytes of a payload. 9p-proxy.h: PROXY_MAX_IO_SZ
const MOST: usize = 64 * 1024;

/// What a program is watched by.
struct Storm {
    proxy: Proxy,
    since: Instant,
    before: (u64, usize),
}

impl Storm {
    fn over(on: Kind) -> Self {
        let mut proxy = Proxy::serve(Postern(on), &[]);
        plant(&proxy);
        assert!(proxy.lives());
        let before = (memory(proxy.pid()), descriptors(proxy.pid()));
        Self { proxy, since: Instant::now(), before }
    }

    /// Checks that it is what it was.
    fn assert_calm(mut self) {
        assert!(self.proxy.lives());
        assert_settles(self.proxy.pid());
        let after = (memory(self.proxy.pid()), descriptors(self.proxy.pid()));
        assert!(after.1 <= self.before.1 + 2 && after.0 < self.before.0 + 4096, "{:?}, then {after:?}", self.before);
        assert_short(&self.proxy.log(), self.since);
        self.proxy.assert_contained();
    }
}

/// What [`requests`] are about.
fn plant(proxy: &Proxy) {
    proxy.host.write("f", b"hello");
    proxy.host.symlink("../outside/canary", "s");
}

/// Takes the answer to a request of this type, whatever it is.
fn answered(proxy: &mut Proxy, number: u32) {
    match number {
        kind::OPEN | kind::CREATE => drop(proxy.opened()),
        _ => drop(proxy.answer()),
    }
}

// 9p-proxy.h: ProxyHeader
#[apply(promise)]
fn every_type_with_every_size_and_filling_is_answered(on: Kind) {
    let mut storm = Storm::over(on);
    let mut attempts = 0;
    for number in (0..40).chain([1 << 16, 1 << 31, u32::MAX]) {
        for size in [0, 1, 2, 3, 4, 7, 8, 9, 16, 100, 4095, 4096, MOST - 1, MOST] {
            for fill in [0, 1, b'/', 0xff] {
                assert!(storm.proxy.send(&request(number, &vec![fill; size])));
                answered(&mut storm.proxy, number);
                attempts += 1;
            }
        }
    }
    tried("sizes of requests", attempts);
    storm.assert_calm();
}

// 9p-proxy.h: a string is counted by 16 bits
#[apply(promise)]
fn damaged_requests_that_come_in_any_pieces_are_each_answered(on: Kind) {
    let mut storm = Storm::over(on);
    let (mut dice, mut attempts) = (Dice(0x2545_f491_4f6c_dd1d), 0);
    for _ in 0..400 {
        let good = requests();
        let numbers: Vec<_> = (0..1 + dice.throw(8)).map(|_| dice.throw(good.len())).collect();
        let mut bytes = Vec::new();
        for &index in &numbers {
            let mut payload = payload(&good[index].1);
            for _ in 0..dice.throw(3) {
                let at = dice.throw(payload.len());
                payload[at] = dice.throw(256) as u8;
            }
            bytes.extend(request(good[index].0, &payload));
        }
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            let (piece, rest) = left.split_at(left.len().min(1 + dice.throw(60)));
            assert!(storm.proxy.send(piece));
            left = rest;
        }
        numbers.iter().for_each(|&index| answered(&mut storm.proxy, good[index].0));
        attempts += numbers.len();
    }
    tried("damaged requests in pieces", attempts);
    storm.assert_calm();
}

// 9p-proxy.c: QEMU waits for each answer; somebody else need not
#[apply(promise)]
fn a_flood_whose_answers_nobody_takes_stalls_and_is_answered_in_the_end(on: Kind) {
    let mut storm = Storm::over(on);
    let file = Arg::S(b"//f");
    let flood = [
        (kind::OPEN, request(kind::OPEN, &payload(&[file, Arg::D(0)]))),
        (kind::LSTAT, request(kind::LSTAT, &payload(&[file]))),
        (kind::STATFS, request(kind::STATFS, &payload(&[file]))),
    ];
    let (mut taken, mut pauses) = (0, 0);
    storm.proxy.socket().set_nonblocking(true).unwrap();
    while pauses < 100 {
        // A request that does not fit whole is none of this flood.
        let (_, next) = &flood[taken % flood.len()];
        match rustix::io::write(storm.proxy.socket(), next) {
            Ok(length) if length == next.len() => (taken, pauses) = (taken + 1, 0),
            written => {
                assert_eq!(written, Err(rustix::io::Errno::AGAIN));
                std::thread::sleep(std::time::Duration::from_millis(2));
                pauses += 1;
            }
        }
    }
    assert_settles(storm.proxy.pid());
    let (memory, held) = (memory(storm.proxy.pid()), descriptors(storm.proxy.pid()));
    assert!(held < storm.before.1 + 8 && memory < storm.before.0 + 4096, "{:?}, then {memory} {held}", storm.before);
    storm.proxy.socket().set_nonblocking(false).unwrap();
    (0..taken).for_each(|index| answered(&mut storm.proxy, flood[index % flood.len()].0));
    tried("answers that nobody takes", taken);
    storm.assert_calm();
}

// unix(7): SCM_RIGHTS: who reads without room for descriptors gets none
#[apply(promise)]
fn descriptors_that_come_with_a_request_are_not_taken(on: Kind) {
    let mut storm = Storm::over(on);
    let null = File::open("/dev/null").unwrap();
    let message = request(kind::LSTAT, &payload(&[Arg::S(b"//f")]));
    let mut attempts = 0;
    for count in [1, 2, 253] {
        let numbers = vec![null.as_raw_fd(); count];
        for _ in 0..50 {
            let (parts, rights) = ([std::io::IoSlice::new(&message)], [ControlMessage::ScmRights(&numbers)]);
            sendmsg::<()>(storm.proxy.socket().as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
            assert!(storm.proxy.answer().is_ok());
            attempts += count;
        }
    }
    tried("descriptors of QEMU's", attempts);
    storm.assert_calm();
}

// postern-server(1): "One QEMU is served, and the program ends with it."
#[apply(promise)]
fn a_qemu_that_breaks_off_at_any_byte_ends_the_program(on: Kind) {
    let mut attempts = 0;
    for (row, (number, args)) in requests().into_iter().enumerate() {
        let whole = request(number, &payload(&args));
        for cut in (0..=whole.len()).filter(|cut| is_its_turn(on, cut + row) && (row < 2 || *cut < 9)) {
            let mut proxy = Proxy::serve(Postern(on), &[]);
            plant(&proxy);
            // Once it answers, there is a helper to go.
            assert!(proxy.lives());
            let helpers = children(proxy.pid());
            assert!(proxy.send(&whole[..cut]));
            let answers = proxy.leave();
            assert!(cut == whole.len() || answers.is_empty(), "{number} cut to {cut}");
            let between = cut == 0 || cut == whole.len();
            assert_eq!(proxy.ended(), Some(i32::from(!between)), "{number} cut to {cut}");
            assert!(helpers.into_iter().all(goes));
            assert!(proxy.log().lines().count() < 8, "{}", proxy.log());
            proxy.assert_contained();
            attempts += 1;
        }
    }
    tried("QEMUs that break off", attempts);
}

// QEMU takes the end of a connection for the answer to an OPEN: what was asked is answered first, whatever comes behind
// it.
#[apply(promise)]
fn what_comes_before_a_request_longer_than_any_is_answered(on: Kind) {
    let mut proxy = Proxy::serve(Postern(on), &[]);
    plant(&proxy);
    let file = Arg::S(b"//f");
    let good = [(kind::LSTAT, payload(&[file])), (kind::OPEN, payload(&[Arg::S(b"//none"), Arg::D(0)]))];
    let mut bytes: Vec<_> = good.iter().flat_map(|(number, payload)| request(*number, payload)).collect();
    bytes.extend(kind::OPEN.to_ne_bytes().into_iter().chain((MOST as u32 + 1).to_ne_bytes()));
    assert!(proxy.send(&bytes));
    assert_eq!(proxy.answer().map(|stat| stat.len()), Ok(116));
    assert_eq!(proxy.opened().map(drop), Err(nix::errno::Errno::ENOENT));
    assert_eq!(proxy.ended(), Some(1));
    assert_eq!(proxy.log().matches("a request is longer than 64 KiB").count(), 1, "{}", proxy.log());
}

// Half of a request may be all there is for a while: nobody spins meanwhile.
#[apply(promise)]
fn half_a_request_costs_no_time(on: Kind) {
    let mut storm = Storm::over(on);
    let whole = request(kind::LSTAT, &payload(&[Arg::S(b"//f")]));
    for cut in 1..whole.len() {
        assert!(storm.proxy.send(&whole[..cut]));
        if cut % 5 == 0 {
            assert_settles(storm.proxy.pid());
        }
        assert!(storm.proxy.send(&whole[cut..]));
        assert!(storm.proxy.answer().is_ok());
    }
    tried("halves of requests", whole.len() - 1);
    storm.assert_calm();
}
