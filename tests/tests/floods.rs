//! A server that the guest has taken over floods, stalls and leaves: the host is not used up, and nothing stays.

use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use postern_ipc::channel::{Channel, take};
use postern_ipc::few::EACH_MAX;
use postern_ipc::frame::FRAME_MAX;
use postern_ipc::hello::{CHANNELS_MAX, Hello, News, VERSION, receive_news, send_hello};
use postern_ipc::id::Caller;
use postern_ipc::op::{Kind as Row, Stat};
use postern_tests::host::Host;
use postern_tests::hostile::tried;
use postern_tests::prelude::{Kind, apply, promise};
use postern_tests::process::{cpu_time, descriptors, memory};
use postern_tests::share::Scratch;
use postern_tests::sweep::{Request, requests};
use postern_tests::twin::{self, Twin, answered};

/// How long whoever has nothing to do is watched.
const A_MOMENT: Duration = Duration::from_millis(400);
/// What a helper may have more than one that was just started, KiB: buffers, thread stacks.
const MORE_MEMORY: u64 = 16 << 10;

/// Checks that a process does nothing.
fn assert_idle(pid: u32) {
    let before = cpu_time(pid);
    std::thread::sleep(A_MOMENT);
    let spent = cpu_time(pid) - before;
    assert!(spent < A_MOMENT / 4, "{spent:?} of {A_MOMENT:?} spent on nothing");
}

/// Requests that bring much, answer much or give descriptors.
fn heavy() -> Vec<Request> {
    let rows = [Row::Open, Row::Lookup, Row::OpenDir, Row::ListXattr, Row::Write, Row::SetXattr, Row::Create];
    let some = requests().into_iter().filter(|request| rows.contains(&request.kind)).step_by(7);
    some.chain(requests().into_iter().rfind(|request| request.kind == Row::OpenEach)).collect()
}

/// Sends until it is told to stop, and counts.
fn flood(twin: &Twin, requests: &[Request], sent: &AtomicUsize, stop: &AtomicBool) {
    for (request, serial) in requests.iter().cycle().zip(1..).take_while(|_| !stop.load(Ordering::Relaxed)) {
        let frame = request.frame(serial, Caller::Root);
        twin.channel.send(&[&frame, &request.data], &[twin.root.as_fd()]).unwrap();
        sent.fetch_add(1, Ordering::Relaxed);
    }
}

/// Waits until the helper has taken nothing for a while.
fn until_full(sent: &AtomicUsize) {
    let mut before = usize::MAX;
    while before != sent.load(Ordering::Relaxed) {
        before = sent.load(Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(200));
    }
}

// postern-security(7): CPU, memory and descriptors used on the host stay within limits
#[apply(promise)]
fn answers_that_nobody_takes_cost_a_stall_and_no_more(on: Kind) {
    let mut twin = Twin::new(on);
    twin.host.write("f", b"hello");
    let helper = twin.helper();
    let before = (memory(helper), descriptors(helper));
    let (sent, stop, requests) = (AtomicUsize::new(0), AtomicBool::new(false), heavy());
    std::thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(&twin, &requests, &sent, &stop));
        until_full(&sent);
        assert_idle(helper);
        assert_idle(twin.warden.id());
        let after = (memory(helper), descriptors(helper));
        assert!(
            after.0 < before.0 + MORE_MEMORY && after.1 < before.1 + 8 + EACH_MAX,
            "{before:?} KiB and descriptors, then {after:?}"
        );
        stop.store(true, Ordering::Relaxed);
        let mut buffer = vec![0; FRAME_MAX];
        let mut taken = 0;
        while !flooding.is_finished() || taken < sent.load(Ordering::Relaxed) {
            assert_ne!(answered(&twin.channel, &mut buffer).len, 0, "an answer is missing");
            taken += 1;
        }
    });
    let sent = sent.into_inner();
    let root = twin.root.try_clone().unwrap();
    let frame = twin.frame(Caller::Root, &Stat {}, 0);
    twin.exchange(&frame, b"", &[root.as_fd()]);
    assert_eq!((twin.helper(), twin.errors()), (helper, 0));
    tried("answers not taken", sent);
}

/// A hostile server with so many channels.
fn greet(on: Kind, channels: u16, args: &[&str]) -> (Scratch, UnixStream, Child, Vec<Channel>, OwnedFd) {
    let (scratch, socket, warden) = twin::start(on, args);
    send_hello(&socket, &Hello { version: VERSION, channels, wants_map: false }).unwrap();
    assert!(matches!(receive_news(&socket), Ok(News::Welcome(_))), "{}", scratch.log());
    let root = take(&socket).unwrap();
    let channels = (0..channels).map(|_| Channel::take(&socket).unwrap()).collect();
    (scratch, socket, warden, channels, root)
}

/// Whether a pipe takes a message that is no longer than a page.
fn has_room(pipe: BorrowedFd<'_>) -> bool {
    let mut pipe = [PollFd::new(pipe, PollFlags::POLLOUT)];
    poll(&mut pipe, PollTimeout::ZERO).unwrap() > 0
}

// postern-ipc: CHANNELS_MAX
#[apply(promise)]
fn as_many_channels_as_may_be_all_flooded_stay_within_limits(on: Kind) {
    let (scratch, _socket, mut warden, channels, root) = greet(on, CHANNELS_MAX, &["--rlimit-nofile=512"]);
    Host::new(scratch.path("share"), on).write("f", b"hello");
    let helper = twin::children(warden.id()).pop().unwrap();
    let before = descriptors(helper);
    // Only what a pipe takes whole or not at all.
    let requests: Vec<_> = heavy().into_iter().filter(|request| request.data.len() < 1000).collect();
    let mut attempts = 0;
    for channel in &channels {
        let [descriptors, output, _] = channel.parts();
        rustix::io::ioctl_fionbio(descriptors, true).unwrap();
        for (request, serial) in requests.iter().cycle().zip(1..).take(200) {
            let frame = request.frame(serial, Caller::Root);
            attempts +=
                usize::from(has_room(output) && channel.send(&[&frame, &request.data], &[root.as_fd()]).is_ok());
        }
    }
    std::thread::sleep(A_MOMENT);
    assert_idle(helper);
    let (memory, held) = (memory(helper), descriptors(helper));
    // A frame in, a frame out, a stack.
    let most = u64::from(CHANNELS_MAX) * 3 * FRAME_MAX as u64 / 1024 + MORE_MEMORY;
    assert!(memory < most, "{memory} KiB of {most}");
    assert!(held < before + (3 + 2 + EACH_MAX) * channels.len(), "{held} descriptors, {before} before");
    tried("requests on all channels", attempts);
    assert_eq!(warden.try_wait().unwrap(), None, "{}", scratch.log());
    warden.kill().unwrap();
    warden.wait().unwrap();
    scratch.assert_contained();
}

// pipe(7): what is not written whole is waited for
#[apply(promise)]
fn a_message_that_never_ends_holds_up_no_other_channel_and_no_end(on: Kind) {
    let (scratch, socket, mut warden, channels, root) = greet(on, 2, &[]);
    let helper = twin::children(warden.id()).pop().unwrap();
    let request = requests().into_iter().find(|request| request.kind == Row::Stat).unwrap();
    let frame = request.frame(1, Caller::Root);
    rustix::io::write(channels[0].parts()[1], &[&[0, 16, 0, 0, 1, 0, 0, 0], &frame[..]].concat()).unwrap();
    channels[1].send(&[&frame, b""], &[root.as_fd()]).unwrap();
    assert_ne!(answered(&channels[1], &mut vec![0; FRAME_MAX]).len, 0);
    assert_idle(helper);
    drop((socket, channels));
    assert!(twin::ends(&mut warden) && twin::goes(helper), "{}", scratch.log());
}

// postern-helper(8): --max-rate: "Most requests a second that a channel does ... Then it waits, and so does whoever
// asked"
#[apply(promise)]
fn a_channel_that_is_too_fast_delays_no_other_and_no_end(on: Kind) {
    let (scratch, socket, mut warden, channels, root) = greet(on, 2, &["--max-rate=1"]);
    let helper = twin::children(warden.id()).pop().unwrap();
    let request = requests().into_iter().find(|request| request.kind == Row::Stat).unwrap();
    let ask = |channel: &Channel, serial| {
        channel.send(&[&request.frame(serial, Caller::Root), b""], &[root.as_fd()]).unwrap();
    };
    (1..=20).for_each(|serial| ask(&channels[0], serial));
    let since = Instant::now();
    ask(&channels[1], 1);
    assert_ne!(channels[1].receive(&mut vec![0; FRAME_MAX]).unwrap().len, 0);
    assert!(since.elapsed() < A_MOMENT, "held up for {:?}", since.elapsed());
    // The fast one gets its answers, a second apart at most, however many it has asked for.
    for _ in 0..3 {
        let since = Instant::now();
        assert_ne!(channels[0].receive(&mut vec![0; FRAME_MAX]).unwrap().len, 0);
        assert!(since.elapsed() < Duration::from_secs(2), "waited for {:?}", since.elapsed());
    }
    assert_idle(helper);
    let since = Instant::now();
    drop((socket, channels));
    assert!(twin::ends(&mut warden) && twin::goes(helper), "{}", scratch.log());
    assert!(since.elapsed() < Duration::from_secs(1), "the end took {:?}", since.elapsed());
}

// postern-helper(8): a server that is gone takes its helper along
#[apply(promise)]
fn a_server_that_leaves_at_any_point_of_a_greeting_leaves_nothing_behind(on: Kind) {
    let mut attempts = 0;
    for length in [0, 1, 15, 16, 17, 100, 511] {
        let (scratch, mut socket, mut warden) = twin::start(on, &[]);
        socket.write_all(&vec![0; length]).unwrap();
        // Half of a greeting may be all there is for a while: nobody spins meanwhile.
        if length == 511 {
            assert_idle(warden.id());
        }
        drop(socket);
        assert!(twin::ends(&mut warden), "after {length} bytes: {}", scratch.log());
        attempts += 1;
    }
    // Welcome, the root, three channels.
    for taken in 0..=5 {
        for half in [false, true] {
            let (scratch, socket, mut warden) = twin::start(on, &[]);
            send_hello(&socket, &Hello { version: VERSION, channels: 3, wants_map: false }).unwrap();
            if taken > 0 {
                assert!(matches!(receive_news(&socket), Ok(News::Welcome(_))), "{}", scratch.log());
            }
            let given: Vec<_> = (1..taken).map(|_| take(&socket).unwrap()).collect();
            let helper = twin::children(warden.id()).pop();
            if half {
                socket.shutdown(std::net::Shutdown::Write).unwrap();
            } else {
                drop(socket);
            }
            assert!(twin::ends(&mut warden), "after {taken}: {}", scratch.log());
            assert!(helper.is_none_or(twin::goes), "after {taken}: {}", scratch.log());
            drop(given);
            scratch.assert_contained();
            attempts += 1;
        }
    }
    tried("leaving while greeting", attempts);
}

// postern-helper(8): a server that is gone takes its helper along
#[apply(promise)]
fn a_server_that_leaves_with_requests_in_flight_leaves_nothing_behind(on: Kind) {
    // A helper for each: of all a part.
    let requests: Vec<_> = heavy().into_iter().step_by(4).collect();
    for (request, serial) in requests.iter().zip(1..) {
        let mut twin = Twin::new(on);
        let helper = twin.helper();
        let frame = request.frame(serial, Caller::Root);
        for _ in 0..3 {
            twin.channel.send(&[&frame, &request.data], &[twin.root.as_fd()]).unwrap();
        }
        let other = UnixStream::pair().unwrap().0;
        if serial % 2 == 0 {
            // Its channels first.
            twin.channel = Channel::pair().unwrap().0;
        }
        twin.socket = other;
        assert!(twin::ends(&mut twin.warden), "{}", twin.scratch.log());
        assert!(twin::goes(helper), "{}", twin.scratch.log());
        assert_eq!(twin.errors(), 0, "{}", twin.scratch.log());
        twin.assert_contained();
    }
    tried("leaving with requests in flight", requests.len());
}
