//! Clients that mean harm and have a 9P server of their own, on TCP or a pair of pipes: whatever they do, the server
//! goes with them, in good order, and its helper with it.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use postern_server::p9::message::*;
use postern_tests::hostile::{assert_short, is_its_turn, tried, write_until_full};
use postern_tests::p9::frame;
use postern_tests::prelude::*;
use postern_tests::process::{assert_settles, memory};
use postern_tests::share::Scratch;
use postern_tests::stream::{GREETED, MSIZE, OPEN, Server, command, greeting, heavy, receive, whole};
use postern_tests::twin::{children, ends, goes};

/// A stream without a listener behind it: the server is there for one client.
#[derive(Clone, Copy, Debug)]
enum Way {
    Tcp,
    Pipes,
}

const WAYS: [Way; 2] = [Way::Tcp, Way::Pipes];

/// A server that is there for one client, and the client's ends.
struct Lone {
    scratch: Scratch,
    server: Server,
    to: Option<File>,
    from: File,
    since: Instant,
}

impl Lone {
    fn serve(on: Kind, way: Way) -> Self {
        let scratch = Scratch::new(on, false);
        Host::new(scratch.path("share"), on).write("f", &[b'x'; 1 << 20]);
        let (server, to, from) = match way {
            Way::Tcp => tcp(on, &scratch),
            Way::Pipes => pipes(on, &scratch),
        };
        Self { scratch, server, to: Some(to), from, since: Instant::now() }
    }

    fn say(&self, bytes: &[u8]) -> std::io::Result<()> {
        self.to.as_ref().expect("not left").write_all(bytes)
    }

    /// Leaves and reads what was answered.
    fn leave(&mut self) -> Vec<u8> {
        let to = self.to.take().expect("not left");
        // Of pipes, closing is all there is.
        let _ = nix::sys::socket::shutdown(to.as_raw_fd(), nix::sys::socket::Shutdown::Write);
        drop(to);
        let mut answers = Vec::new();
        let _ = self.from.read_to_end(&mut answers);
        answers
    }

    /// Checks that the server has gone in good order, and its helper with it.
    fn assert_gone(mut self, helpers: Vec<u32>) {
        assert!(ends(&mut self.server.0), "it goes on\n{}", self.scratch.log());
        assert_eq!(self.server.0.wait().unwrap().code(), Some(0), "{}", self.scratch.log());
        assert!(helpers.into_iter().all(goes), "its helper goes on");
        assert_short(&self.scratch.log(), self.since);
        self.scratch.assert_contained();
    }

    /// Those it has started, as soon as it has.
    fn helpers(&self) -> Vec<u32> {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let helpers = children(self.server.0.id());
            if !helpers.is_empty() {
                return helpers;
            }
            assert!(Instant::now() < end, "{}", self.scratch.log());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn tcp(on: Kind, scratch: &Scratch) -> (Server, File, File) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let theirs = OwnedFd::from(listener.accept().unwrap().0);
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).unwrap();
    let way = format!("--stream-fd={}", theirs.as_raw_fd());
    let server = Server(scratch.spawn(command(on, scratch, &[&way, "--trust-client"]), on));
    let from = OwnedFd::from(client.try_clone().unwrap());
    (server, OwnedFd::from(client).into(), from.into())
}

fn pipes(on: Kind, scratch: &Scratch) -> (Server, File, File) {
    let ((stdin, to), (from, stdout)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
    let command = command(on, scratch, &["--stdio", "--trust-client"]);
    let server = Server(scratch.spawn_at(command, on, stdin.into(), stdout.into()));
    (server, OwnedFd::from(to).into(), OwnedFd::from(from).into())
}

// postern-server(1): --stream-fd, --stdio: "end when it goes"
#[apply(promise)]
fn a_lone_client_that_breaks_off_at_any_byte_ends_its_server(on: Kind) {
    let said = [greeting(), frame(&Twrite { fid: OPEN, offset: 0, count: 3 }, 9, 3), b"abc".into()].concat();
    let mut attempts = 0;
    for cut in (0..=said.len()).filter(|&cut| is_its_turn(on, cut)) {
        let mut lone = Lone::serve(on, WAYS[cut / 4 % 2]);
        lone.say(&said[..cut]).unwrap();
        let helpers = lone.helpers();
        let answers = lone.leave();
        assert!(whole(&answers) <= GREETED + 1);
        lone.assert_gone(helpers);
        attempts += 1;
    }
    tried("lone clients that break off", attempts);
}

// postern-server(1): "A client that breaks the framing is disconnected"
#[apply(promise)]
fn a_lone_client_that_breaks_the_framing_ends_its_server(on: Kind) {
    let mut attempts = 0;
    let sizes = [0, 1, 6, MSIZE + 1, 1 << 31, u32::MAX];
    for (way, size) in WAYS.into_iter().flat_map(|way| sizes.map(|size| (way, size))) {
        let mut lone = Lone::serve(on, way);
        let helpers = lone.helpers();
        lone.say(&[&greeting()[..], &size.to_le_bytes(), &[100, 0, 0]].concat()).unwrap();
        let mut answers = Vec::new();
        let _ = lone.from.read_to_end(&mut answers);
        assert_eq!(whole(&answers), GREETED, "{way:?} {size}");
        lone.assert_gone(helpers);
        attempts += 1;
    }
    tried("broken frames of lone clients", attempts);
}

// unix(7), tcp(7), pipe(7): what is not read fills up
#[apply(promise)]
fn a_lone_client_that_takes_no_answers_costs_a_stall_and_no_more(on: Kind) {
    let mut attempts = 0;
    for way in WAYS {
        let mut lone = Lone::serve(on, way);
        lone.say(&greeting()).unwrap();
        (0..GREETED).for_each(|_| drop(receive(&mut lone.from)));
        let (pid, helpers) = (lone.server.0.id(), lone.helpers());
        let before = memory(pid);
        rustix::io::ioctl_fionbio(lone.to.as_ref().unwrap(), true).unwrap();
        attempts += write_until_full(lone.to.as_mut().unwrap(), &heavy()) / HEADER;
        assert_settles(pid);
        let grown = memory(pid).saturating_sub(before);
        assert!(grown < (8 << 10) + (16 << 10), "{way:?}: {grown} KiB more");
        drop((lone.to.take(), std::mem::replace(&mut lone.from, File::open("/dev/null").unwrap())));
        lone.assert_gone(helpers);
    }
    tried("answers that a lone client does not take", attempts);
}
