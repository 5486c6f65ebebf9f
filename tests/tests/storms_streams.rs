//! Clients of a listening 9P server that mean harm: messages end anywhere or say what they are not, answers are not
//! taken, clients come in crowds and leave at any byte. Others are served meanwhile, nothing is spent when it is over,
//! and the log stays short.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use postern_server::p9::message::*;
use postern_server::p9::wire::Text;
use postern_tests::hostile::{Dice, assert_short, is_its_turn, p9_messages, tried, write_until_full};
use postern_tests::p9::frame;
use postern_tests::prelude::*;
use postern_tests::process::{assert_settles, descriptors, memory};
use postern_tests::share::Scratch;
use postern_tests::stream::{
    Client, GREETED, MSIZE, NONE, OPEN, Server, connect, greeting, heavy, listen, mounted, receive, whole,
};

/// Clients served at once.
const SLOTS: usize = 4;
/// How long one request may take while others mean harm.
const AT_ONCE: Duration = Duration::from_secs(2);
/// A listening server, and a client who wants nothing but its due.
struct Storm {
    scratch: Scratch,
    server: Server,
    bystander: Client,
    since: Instant,
    /// KiB, and descriptors, with all clients there are slots for.
    before: (u64, usize),
}

impl Storm {
    fn over(on: Kind) -> Self {
        Self::with(on, &[])
    }

    fn with(on: Kind, more: &[&str]) -> Self {
        let scratch = Scratch::new(on, false);
        Host::new(scratch.path("share"), on).write("f", &[b'x'; 1 << 20]);
        let slots = format!("--clients={SLOTS}");
        let server = listen(on, &scratch, &[&["--trust-client", "--xattr", &slots], more].concat());
        let bystander = Client::connect(&scratch);
        let guests: Vec<_> = (1..SLOTS).map(|_| mounted(&scratch)).collect();
        let before = (memory(server.0.id()), descriptors(server.0.id()));
        drop(guests);
        assert_eq!(bystander.attach(0), Ok(1 << 16));
        Self { scratch, server, bystander, since: Instant::now(), before }
    }

    /// Checks that the one who wants its due gets it.
    fn assert_served(&self) {
        let since = Instant::now();
        self.bystander.call::<_, Rgetattr>(&Tgetattr { fid: 1 << 16, request_mask: 0 }).unwrap();
        assert!(since.elapsed() < AT_ONCE, "held up for {:?}", since.elapsed());
    }

    /// Checks that nothing is left but the one who stays, that nothing is done, and that not much was said.
    fn assert_calm(mut self) {
        let pid = self.server.0.id();
        self.assert_served();
        let after = || (memory(pid), descriptors(pid));
        let end = Instant::now() + AT_ONCE;
        while after().1 > self.before.1 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let after = after();
        assert!(after.1 <= self.before.1 && after.0 < self.before.0 + (16 << 10), "{:?} then {after:?}", self.before);
        assert_settles(pid);
        assert_eq!(self.server.0.try_wait().unwrap(), None);
        assert_short(&self.scratch.log(), self.since);
        drop(Client::connect(&self.scratch));
        self.scratch.assert_contained();
    }
}

/// How a client breaks off.
#[derive(Clone, Copy)]
enum Leaves {
    /// At once.
    Gone,
    /// It says no more, but listens.
    Silent,
    /// It is there until the slots are needed.
    Stalls,
}

// intro(5): "size[4]"; a client may go at any time
#[apply(promise)]
fn a_client_that_breaks_off_at_any_byte_holds_up_nobody(on: Kind) {
    let storm = Storm::over(on);
    let (mut attempts, mut stalled) = (0, Vec::new());
    for message in p9_messages([OPEN, NONE]) {
        for cut in 0..message.len() {
            for leaves in [Leaves::Gone, Leaves::Silent, Leaves::Stalls] {
                let mut client = connect(&storm.scratch);
                client.write_all(&[&greeting()[..], &message[..cut]].concat()).unwrap();
                attempts += 1;
                match leaves {
                    Leaves::Gone => {}
                    Leaves::Silent => {
                        client.shutdown(Shutdown::Write).unwrap();
                        let mut answers = Vec::new();
                        client.read_to_end(&mut answers).unwrap();
                        assert_eq!(whole(&answers), GREETED, "cut to {cut}");
                    }
                    Leaves::Stalls => stalled.push(client),
                }
            }
            // One slot is the bystander's, one is for the next to break off.
            if stalled.len() > SLOTS - 2 {
                stalled.remove(0);
            }
        }
        storm.assert_served();
    }
    tried("clients that break off", attempts);
    drop(stalled);
    storm.assert_calm();
}

// intro(5): "size[4]"
#[apply(promise)]
fn every_number_with_every_size_is_answered_or_ends_its_connection(on: Kind) {
    let storm = Storm::over(on);
    let mut attempts = 0;
    for number in (0..=u8::MAX).filter(|number| is_its_turn(on, usize::from(*number))) {
        for size in [0, 1, 6, 7, 8, 11, 19, 100, MSIZE - 1, MSIZE, MSIZE + 1, 1 << 20, 1 << 31, u32::MAX] {
            for fill in [0, 1, 0xff] {
                let body = (size as usize).saturating_sub(HEADER).min(MSIZE as usize);
                let message = [&size.to_le_bytes()[..], &[number, 9, 0], &vec![fill; body]].concat();
                let mut client = connect(&storm.scratch);
                // It may have broken off before all of it has come.
                let _ = client.write_all(&[greeting(), message].concat());
                let _ = client.shutdown(Shutdown::Write);
                let mut answers = Vec::new();
                let _ = client.read_to_end(&mut answers);
                let answered = whole(&answers);
                let taken = (HEADER as u32..=MSIZE).contains(&size);
                assert!(answered == GREETED + usize::from(taken), "{number}, {size} bytes of {fill}: {answered}");
                attempts += 1;
            }
        }
        storm.assert_served();
    }
    tried("sizes of messages", attempts);
    storm.assert_calm();
}

/// Good messages with some bytes changed, none of them in what says where the next message begins.
fn damaged(dice: &mut Dice) -> Vec<u8> {
    let good = p9_messages([dice.throw(3) as u32, dice.throw(3) as u32]);
    let mut message = good[dice.throw(good.len())].clone();
    for _ in 0..dice.throw(4) {
        let at = 4 + dice.throw(message.len() - 4);
        message[at] = dice.throw(256) as u8;
    }
    message
}

// Answers may come in another order: each message gets one, however many are under way, unless its flush comes first.
#[apply(promise)]
fn damaged_messages_that_come_all_at_once_are_each_answered(on: Kind) {
    let storm = Storm::over(on);
    let mut attempts = 0;
    for seed in 1..=12 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 >> seed);
        let mut messages: Vec<_> = (0..400).map(|_| damaged(&mut dice)).collect();
        // One that begins anew shrinks what is agreed on, and one that is flushed gets no answer.
        messages.retain(|message| ![Tversion::NUMBER, Tflush::NUMBER].contains(&message[4]));
        let mut client = connect(&storm.scratch);
        let answers = std::thread::scope(|scope| {
            let mut from = client.try_clone().unwrap();
            let reading = scope.spawn(move || {
                let mut answers = Vec::new();
                from.read_to_end(&mut answers).map(|_| answers)
            });
            client.write_all(&greeting()).unwrap();
            client.write_all(&messages.concat()).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            reading.join().unwrap().unwrap()
        });
        assert_eq!(whole(&answers), GREETED + messages.len());
        attempts += messages.len();
        storm.assert_served();
    }
    tried("damaged messages under way together", attempts);
    storm.assert_calm();
}

// flush(5): "a flush request may be flushed"; a tag is the client's
#[apply(promise)]
fn flushes_of_everything_and_of_each_other_end(on: Kind) {
    let storm = Storm::over(on);
    let mut client = mounted(&storm.scratch);
    let mut attempts = 0;
    for round in 0..200_u16 {
        let slow = frame(&Tfsync { fid: OPEN, datasync: 1 }, round % 3, 0);
        let flush = |tag, oldtag| frame(&Tflush { oldtag }, tag, 0);
        let own = [flush(7, 7), flush(8, 9), flush(9, 8), flush(round % 3, round % 3), flush(10, 0xffff)].concat();
        client.write_all(&[slow.clone(), own, slow, flush(11, round % 3)].concat()).unwrap();
        // The flush that came last is answered last.
        while receive(&mut client).1 != 11 {
            attempts += 1;
        }
    }
    tried("flushes", attempts);
    storm.assert_served();
    drop(client);
    storm.assert_calm();
}

// postern-server(1): --clients
#[apply(promise)]
fn answers_that_nobody_takes_hold_up_nobody_else(on: Kind) {
    let storm = Storm::over(on);
    let deaf: Vec<_> = (1..SLOTS).map(|_| mounted(&storm.scratch)).collect();
    let mut attempts = 0;
    for mut client in &deaf {
        client.set_nonblocking(true).unwrap();
        attempts += write_until_full(&mut client, &heavy()) / HEADER;
        storm.assert_served();
    }
    assert_settles(storm.server.0.id());
    storm.assert_served();
    let grown = memory(storm.server.0.id()).saturating_sub(storm.before.0);
    // postern-server(1): 8 MiB of requests that wait
    assert!(grown < (SLOTS as u64) * (8 << 10) + (16 << 10), "{grown} KiB more");
    tried("answers that nobody takes", attempts);
    drop(deaf);
    storm.assert_calm();
}

// postern-server(1): --clients: "others wait"
#[apply(promise)]
fn crowds_of_clients_come_and_go_without_a_trace(on: Kind) {
    let storm = Storm::over(on);
    let mut attempts = 0;
    for round in 0..2000 {
        let mut client = connect(&storm.scratch);
        client.write_all(&greeting()[..round % greeting().len()]).unwrap();
        attempts += 1;
    }
    storm.assert_served();
    // More than are listened for: who finds no room there is refused by the kernel.
    let path = storm.scratch.path("socket");
    let crowd: Vec<_> = std::thread::scope(|scope| {
        let come = || std::iter::repeat_with(|| UnixStream::connect(&path)).take(30).flatten().collect::<Vec<_>>();
        let coming: Vec<_> = (0..4).map(|_| scope.spawn(come)).collect();
        coming.into_iter().flat_map(|coming| coming.join().unwrap()).collect()
    });
    attempts += crowd.len();
    storm.assert_served();
    assert!(descriptors(storm.server.0.id()) < storm.before.1 + SLOTS, "those who wait have cost descriptors");
    drop(crowd);
    tried("clients in a crowd", attempts);
    storm.assert_calm();
}

/// What a client may come to say who never attaches: nothing, half of a greeting, all of it but a word, and no end of
/// greetings whose answers it does not take.
fn dawdlers(scratch: &Scratch) -> Vec<UnixStream> {
    let version = frame(&Tversion { msize: MSIZE, version: Text(b"9P2000.L") }, 0xffff, 0);
    let says = [vec![], greeting()[..9].to_vec(), version.clone(), version.repeat(50_000)];
    let clients = says.into_iter().map(|said| {
        let mut client = connect(scratch);
        client.set_nonblocking(true).unwrap();
        let _ = client.write(&said);
        client
    });
    clients.collect()
}

// postern-server(1): --clients: "A client that has not attached within ten seconds makes room for the next"
#[test]
fn clients_that_never_attach_make_room_for_those_that_do() {
    let scratch = Scratch::new(Kind::Mapped, false);
    Host::new(scratch.path("share"), Kind::Mapped).write("f", b"x");
    let server = listen(Kind::Mapped, &scratch, &["--trust-client", "--clients=4"]);
    drop(mounted(&scratch));
    let (since, before) = (Instant::now(), descriptors(server.0.id()));
    let mut dawdlers = dawdlers(&scratch);
    let dripping = &mut dawdlers[0];
    while since.elapsed() < Duration::from_secs(8) {
        let _ = dripping.write(&[0x13]);
        std::thread::sleep(Duration::from_secs(2));
    }
    // All slots are taken: who comes now waits for one.
    drop(mounted(&scratch));
    let waited = since.elapsed();
    assert!((Duration::from_secs(8)..Duration::from_secs(15)).contains(&waited), "{waited:?}");
    for client in &mut dawdlers {
        client.set_nonblocking(false).unwrap();
        // Its end: of a connection in which something was not read, a reset.
        let end = client.read_to_end(&mut Vec::new()).map_err(|error| error.kind());
        assert!(matches!(end, Ok(_) | Err(ErrorKind::ConnectionReset)), "{end:?}");
    }
    assert_eq!(scratch.log().matches("disconnected: it did not attach within 10s").count(), 4, "{}", scratch.log());
    assert!(descriptors(server.0.id()) <= before + 1);
    tried("clients that never attach", dawdlers.len());
}

// unix(7): SCM_RIGHTS: who reads without room for descriptors gets none
#[apply(promise)]
fn descriptors_that_come_with_a_message_are_not_taken(on: Kind) {
    let storm = Storm::over(on);
    let file = File::open("/dev/null").unwrap();
    let mut attempts = 0;
    for count in [1, 2, 253] {
        let mut client = mounted(&storm.scratch);
        let held = descriptors(storm.server.0.id());
        let files = vec![file.as_raw_fd(); count];
        for _ in 0..50 {
            let message = frame(&Tgetattr { fid: OPEN, request_mask: 0 }, 9, 0);
            let rights = [nix::sys::socket::ControlMessage::ScmRights(&files)];
            let parts = [std::io::IoSlice::new(&message)];
            let flags = nix::sys::socket::MsgFlags::empty();
            nix::sys::socket::sendmsg::<()>(client.as_raw_fd(), &parts, &rights, flags, None).unwrap();
            assert_eq!(receive(&mut client).0, Rgetattr::NUMBER);
            attempts += count;
        }
        assert!(descriptors(storm.server.0.id()) <= held, "descriptors of a client's");
    }
    tried("descriptors of a client's", attempts);
    storm.assert_calm();
}

// postern-server(1): --rlimit-nofile: a client who wants more than there is gets ENFILE, and keeps nobody out
#[apply(promise)]
fn a_client_that_opens_all_there_is_keeps_nobody_out(on: Kind) {
    let storm = Storm::with(on, &["--rlimit-nofile=512"]);
    let greedy = Client::connect(&storm.scratch);
    let root = greedy.attach(0).unwrap();
    let mut attempts = 0;
    let refused = (0..3000).find_map(|_| {
        attempts += 1;
        greedy.open(root, "f", O_RDONLY).err()
    });
    assert_eq!(refused, Some(ENFILE));
    // Files without a name are as many descriptors that are never given back.
    let dir = greedy.walk(root, "").unwrap();
    for _ in 0..50 {
        attempts += 1;
        let unlink = Tunlinkat { dirfd: dir, name: Text(b"gone"), flags: 0 };
        let fid = greedy.walk(root, "").unwrap();
        let flags = (O_RDWR | O_CREAT | O_EXCL) as u32;
        let create = Tlcreate { fid, name: Text(b"gone"), flags, mode: 0o600, gid: 0 };
        if greedy.call::<_, Rlcreate>(&create).is_ok() {
            greedy.call::<_, Runlinkat>(&unlink).unwrap();
        }
    }
    storm.assert_served();
    for _ in 0..5 {
        let other = Client::connect(&storm.scratch);
        let root = other.attach(0).unwrap();
        let walked = other.walk(root, "f").unwrap();
        other.call::<_, Rgetattr>(&Tgetattr { fid: walked, request_mask: 0 }).unwrap();
    }
    tried("files opened by one client", attempts);
    drop(greedy);
    assert!(mounted(&storm.scratch).write(b"").is_ok());
}
