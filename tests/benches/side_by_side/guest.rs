//! A guest that does nothing but ask.
//!
//! Requests are laid out once and offered again and again with another node, handle or offset: what a client costs is
//! little, and the same whoever serves it.

use std::cell::Cell;
use std::os::fd::AsRawFd;
use std::time::Instant;

use nix::errno::Errno;
use postern_server::fuse::abi::{FlushIn, ForgetIn, InHeader, OpenOutFlags, OutHeader, opcode};
use postern_tests::File;
use postern_tests::fuse::{Caller, Link, PATIENCE, Pending, Process, Request};
use postern_tests::prelude::O_RDWR;
use postern_tests::ring::Piece;
use vm_memory::ByteValued;
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

/// The first ring of requests.
const REQUESTS: usize = 1;
/// The ring of FORGET.
const HIGH_PRIORITY: usize = 0;

/// What the guest's CPU does until a reply is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// It sleeps, and is interrupted.
    Asleep,
    /// It looks at the used ring.
    Polling,
}

/// The guest.
pub struct Guest<'a> {
    /// For what comes before the measurement.
    pub process: &'a Process,
    /// The large file.
    pub large: File,
    /// Whether the server wants to hear of every close(2).
    flushes: bool,
    waiting: Waiting,
    /// Rings of requests.
    queues: usize,
    /// A call of any of them.
    calls: Epoll,
    forget: Prepared<'a>,
    forgetting: Cell<bool>,
}

/// A request in memory, to be offered as often as wanted.
pub struct Prepared<'a> {
    link: &'a Link,
    request: Pending,
}

impl<'a> Guest<'a> {
    /// In the place of `process`; it finds out what the server wants to hear.
    pub fn new(process: &'a Process, waiting: Waiting, queues: usize) -> Self {
        let large = process.open("large", O_RDWR).expect("planted");
        let wanted = !large.out.contains(OpenOutFlags::NOFLUSH);
        let flushes = wanted && process.flush(&large) != Err(Errno::ENOSYS);
        let forget = Request::new(opcode::FORGET, 0).arg(&ForgetIn::default()).no_reply();
        let forget = Prepared::new(process.fuse(), HIGH_PRIORITY, &forget);
        let calls = Epoll::new().expect("epoll");
        for queue in REQUESTS..REQUESTS + queues {
            let call = process.fuse().vmm.ring(queue).call.as_raw_fd();
            let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
            calls.ctl(ControlOperation::Add, call, event).expect("epoll");
        }
        Self { process, large, flushes, waiting, queues, calls, forget, forgetting: Cell::new(false) }
    }

    /// Lays a request out.
    pub fn prepare(&self, request: &Request<'_>) -> Prepared<'a> {
        self.prepare_on(0, request)
    }

    /// The same for one of the lanes that share the queues.
    pub fn prepare_on(&self, lane: usize, request: &Request<'_>) -> Prepared<'a> {
        Prepared::new(self.process.fuse(), REQUESTS + lane % self.queues, request)
    }

    /// A FLUSH of what `file` says, if the server wants it.
    pub fn prepare_flush(&self) -> Option<Prepared<'a>> {
        self.flushes.then(|| self.prepare(&Request::new(opcode::FLUSH, 0).arg(&FlushIn::default())))
    }

    /// Asks and waits for the answer.
    pub fn call(&self, prepared: &Prepared<'_>) -> Result<(), Errno> {
        prepared.offer();
        assert_eq!(self.wait(), prepared.head());
        prepared.outcome()
    }

    /// Which request is answered next.
    pub fn wait(&self) -> u16 {
        let mut ring = self.process.fuse().vmm.ring(REQUESTS);
        let used = match self.waiting {
            Waiting::Asleep => ring.used(PATIENCE),
            Waiting::Polling => (0..1_u64 << 32).find_map(|_| ring.poll()),
        };
        used.expect("an answer in time").0.try_into().expect("an index of the table")
    }

    /// Which requests are answered, on whatever queue: at least one.
    pub fn answered(&self) -> Vec<(usize, u16)> {
        let end = Instant::now() + PATIENCE;
        loop {
            let answered = self.look(false);
            if !answered.is_empty() {
                return answered;
            }
            assert!(Instant::now() < end, "no answer in time");
            if self.waiting == Waiting::Asleep {
                let answered = self.look(true);
                if !answered.is_empty() {
                    return answered;
                }
                self.sleep();
            }
        }
    }

    /// What is answered already; or else `ask` for a call.
    fn look(&self, ask: bool) -> Vec<(usize, u16)> {
        let mut answered = Vec::new();
        for index in self.rings() {
            let mut ring = self.process.fuse().vmm.ring(index);
            if ask {
                ring.want_call(true);
            }
            let heads = std::iter::from_fn(|| ring.poll());
            answered.extend(heads.map(|(head, _)| (index, head.try_into().expect("an index of the table"))));
        }
        answered
    }

    fn rings(&self) -> std::ops::Range<usize> {
        REQUESTS..REQUESTS + self.queues
    }

    /// Until one of the queues is called.
    fn sleep(&self) {
        let called = self.calls.wait(1000, &mut [EpollEvent::default()]);
        assert!(called.is_ok() || called.is_err_and(|e| e.kind() == std::io::ErrorKind::Interrupted));
    }

    /// Forgets a node that was looked up `nlookup` times, and does not wait.
    pub fn forget(&self, node: u64, nlookup: u64) {
        if self.forgetting.replace(true) {
            self.process.fuse().vmm.ring(HIGH_PRIORITY).used(PATIENCE).expect("used in time");
        }
        self.forget.node(node);
        self.forget.arg(std::mem::offset_of!(ForgetIn, nlookup), nlookup);
        self.forget.offer();
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        if self.forgetting.get() {
            self.process.fuse().vmm.ring(HIGH_PRIORITY).used(PATIENCE).expect("used in time");
        }
    }
}

impl<'a> Prepared<'a> {
    fn new(link: &'a Link, ring: usize, request: &Request<'_>) -> Self {
        Self { link, request: link.prepare(ring, Caller::ROOT, request) }
    }

    /// By which its answer is known.
    pub fn head(&self) -> u16 {
        self.request.ticket.head
    }

    /// By which its answer is known among several queues.
    pub fn ticket(&self) -> (usize, u16) {
        (self.request.ring, self.head())
    }

    /// Makes it available to the server.
    pub fn offer(&self) {
        self.link.vmm.ring(self.request.ring).offer(self.head());
    }

    /// What the answer's header says.
    pub fn outcome(&self) -> Result<(), Errno> {
        match self.reply::<i32>(std::mem::offset_of!(OutHeader, error)) {
            0 => Ok(()),
            error => Err(Errno::from_raw(-error)),
        }
    }

    /// Makes it about another node.
    pub fn node(&self, node: u64) {
        self.set(std::mem::offset_of!(InHeader, nodeid), node);
    }

    /// Changes a field at `offset` of its arguments.
    pub fn arg<T: ByteValued>(&self, offset: usize, value: T) {
        self.set(size_of::<InHeader>() + offset, value);
    }

    /// A field at `offset` of the answer behind its header.
    pub fn answer<T: ByteValued>(&self, offset: usize) -> T {
        self.reply(size_of::<OutHeader>() + offset)
    }

    /// The data of an answer, a page at most.
    pub fn data(&self) -> Vec<u8> {
        let len = self.reply::<u32>(std::mem::offset_of!(OutHeader, len)) as usize - size_of::<OutHeader>();
        let page = self.room().nth(1).expect("room for data");
        self.link.vmm.mem.read(page.addr, len)
    }

    fn set<T: ByteValued>(&self, offset: usize, value: T) {
        self.link.vmm.mem.write_obj(self.request.ticket.pieces[0].addr + offset as u64, value);
    }

    fn reply<T: ByteValued>(&self, offset: usize) -> T {
        let room = self.room().next().expect("room for an answer");
        self.link.vmm.mem.read_obj(room.addr + offset as u64)
    }

    fn room(&self) -> impl Iterator<Item = &Piece> {
        self.request.ticket.pieces.iter().filter(|piece| piece.writable)
    }
}

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        self.link.vmm.ring(self.request.ring).release(&self.request.ticket);
    }
}
