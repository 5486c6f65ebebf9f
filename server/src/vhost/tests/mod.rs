//! The transport with a device that echoes, against a guest that is right, wrong or hostile.
#![allow(clippy::arithmetic_side_effects, clippy::cast_possible_truncation, reason = "a panic is a failed test")]

mod chains;
mod driver;
mod rings;
mod vmms;
mod workers;

use std::collections::HashSet;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use postern_ipc::Errno;

use super::{Device, Outcome, Place, Request, Socket, Threads, Transport};
use driver::{ANSWER, BASE, Descriptor, Driver, NEXT, REQUEST, WRITE};

/// A readable and a writable buffer that are all right.
const READ: Descriptor = (BASE + REQUEST, 6, NEXT, 1);
const ROOM: Descriptor = (BASE + ANSWER, 64, WRITE, 0);

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
