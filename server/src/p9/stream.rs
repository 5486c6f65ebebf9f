//! 9P on a stream: a Unix socket, a connected descriptor, or the standard input and output.
//!
//! Each client has a slot, which it loses if it does not attach soon while others may wait for it: one thread that
//! reads requests and answers what answers at once, and a few for what may wait for a disk, so that neither a slow
//! request nor a client who reads no answers holds up another client. Answers may come in another order than requests.
//! A client that breaks the framing is disconnected; an error in a request is answered. All threads are made, and have
//! entered the file system, when [`Streams::new`] returns.

use std::fs::File;
use std::io::{self, Error, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::exchange::Exchange;
use super::fid::Limits;
use super::grace::{GRACE, Grace, Timely};
use super::jobs::Jobs;
use super::message::{HEADER, Message as _, TWRITE, Tversion, Twrite};
use super::session::{Call, Header, MSIZE_MIN, Session, Settings};
use super::user::Users;
use crate::fs::Fs;
use crate::vhost::{Outcome, Place, accept};

/// Two ends of a stream, which may be one descriptor: there is no dup(2) behind the walls.
#[derive(Debug)]
pub struct Wires {
    /// Requests come from here.
    pub input: Arc<File>,
    /// Answers go here.
    pub output: Arc<File>,
}

impl From<OwnedFd> for Wires {
    /// Of a socket.
    fn from(socket: OwnedFd) -> Self {
        let input = Arc::new(File::from(socket));
        Self { output: Arc::clone(&input), input }
    }
}

/// Where clients come from.
#[derive(Debug)]
pub enum Clients {
    /// Any number of them.
    Listening(UnixListener),
    /// This one.
    Connected(Wires),
}

/// One of them, and how long it may take to attach.
type Client = (Wires, Option<Duration>);

/// The slots, with their threads.
pub struct Streams {
    clients: SyncSender<Client>,
    gone: Receiver<()>,
}

impl Streams {
    /// For so many clients at once, each with so many threads for what may wait. Threads are counted from 0 when they
    /// enter the file system.
    ///
    /// # Errors
    /// Those of pthread_create(3).
    pub fn new<F: Fs + 'static>(
        fs: &Arc<F>,
        users: &Users,
        settings: Settings,
        slots: usize,
        pool: usize,
    ) -> io::Result<Self> {
        let (clients, waiting) = sync_channel(0);
        let (leaving, gone) = channel();
        let door = Arc::new(Door { waiting: Mutex::new(waiting), leaving });
        let limits = Limits::new(settings.fids);
        let slot = || Slot::new(Arc::clone(fs), users.clone(), settings, limits.clone(), pool > 0);
        let slots: Vec<_> = (0..slots).map(|_| Arc::new(slot())).collect();
        let each = pool.saturating_add(1);
        let started = Arc::new(Barrier::new(slots.len().saturating_mul(each).saturating_add(1)));
        for (first, slot) in slots.iter().enumerate() {
            for number in 0..each {
                let (slot, door, started) = (Arc::clone(slot), Arc::clone(&door), Arc::clone(&started));
                let thread = first.saturating_mul(each).saturating_add(number);
                thread::Builder::new().name(format!("client-{first}-{number}")).spawn(move || {
                    slot.fs.enter(thread);
                    started.wait();
                    if number == 0 { slot.receive(&door) } else { slot.work() }
                })?;
            }
        }
        started.wait();
        Ok(Self { clients, gone })
    }

    /// Serves the one client until it goes, or all that come for ever; those without a slot wait.
    ///
    /// # Errors
    /// Those of accept(2) that do not pass.
    pub fn serve(&self, clients: Clients) -> io::Result<()> {
        let give = |client| self.clients.send(client).map_err(|_| Error::from(ErrorKind::BrokenPipe));
        match clients {
            Clients::Connected(wires) => {
                give((wires, None))?;
                self.gone.recv().map_err(|_| Error::from(ErrorKind::BrokenPipe))
            }
            Clients::Listening(listener) => loop {
                give((Wires::from(OwnedFd::from(accept(&listener)?)), Some(GRACE)))?;
                self.gone.try_iter().for_each(drop);
            },
        }
    }
}

/// Where slots find clients, and say that one is gone.
struct Door {
    waiting: Mutex<Receiver<Client>>,
    leaving: Sender<()>,
}

/// A client and its session.
pub(super) struct Connection<F: Fs> {
    session: Session<F>,
    grace: Grace,
    output: Mutex<Arc<File>>,
}

impl<F: Fs> Connection<F> {
    /// Answers a whole message, into `room`.
    fn answer(&self, message: &[u8], place: Place, serial: u64, room: &mut [u8]) -> Outcome {
        let Some((header, rest)) = split(message) else { return Outcome::Done(0) };
        let copied = if header.kind == Twrite::NUMBER { TWRITE } else { rest.len() };
        let (args, data) = rest.split_at_checked(copied).unwrap_or((rest, &[]));
        let outcome =
            self.session.answer(Call { header, place, serial, args, carrier: &mut Exchange::new(data, room) });
        if self.session.is_attached() {
            self.grace.end();
        }
        outcome
    }

    /// A client that is gone needs no answer: its reader notices.
    fn send(&self, answer: &[u8]) {
        let output = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = (Timely { wire: &output, grace: &self.grace }).write_all(answer) {
            log::debug!("an answer was not taken: {error}");
        }
    }
}

/// A request that may wait.
pub(super) struct Job<F: Fs> {
    connection: Arc<Connection<F>>,
    message: Vec<u8>,
    serial: u64,
}

/// The threads of one client at a time.
struct Slot<F: Fs> {
    fs: Arc<F>,
    users: Users,
    settings: Settings,
    limits: Limits,
    has_pool: bool,
    jobs: Jobs<Job<F>>,
}

impl<F: Fs> Slot<F> {
    fn new(fs: Arc<F>, users: Users, settings: Settings, limits: Limits, has_pool: bool) -> Self {
        Self { fs, users, settings, limits, has_pool, jobs: Jobs::default() }
    }

    fn room(&self) -> Vec<u8> {
        vec![0; usize::try_from(self.settings.msize).unwrap_or_default()]
    }

    /// Serves one client after another.
    fn receive(&self, door: &Door) {
        let mut room = self.room();
        loop {
            let next = door.waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok((Wires { input, output }, hurry)) = next else { return };
            log::info!("a client has connected");
            let (users, limits) = (self.users.clone(), self.limits.clone());
            let session = Session::beside(Arc::clone(&self.fs), users, self.settings, limits);
            let connection = Arc::new(Connection { session, grace: Grace::new(hurry), output: Mutex::new(output) });
            match self.converse(&input, &connection, &mut room) {
                Ok(()) => log::info!("a client has disconnected"),
                Err(error) => log::warn!("a client was disconnected: {error}"),
            }
            self.jobs.settle();
            drop(connection);
            let _ = door.leaving.send(());
        }
    }

    fn converse(&self, input: &File, connection: &Arc<Connection<F>>, room: &mut [u8]) -> io::Result<()> {
        let place = if self.has_pool { Place::Worker } else { Place::Pool };
        let mut message = Vec::new();
        let mut input = Timely { wire: input, grace: &connection.grace };
        while let Some(header) = next(&mut input, &mut message, connection.session.msize())? {
            if header.kind == Tversion::NUMBER {
                self.jobs.settle();
            }
            match connection.answer(&message, place, 0, room) {
                Outcome::Later => {
                    let (connection, message) = (Arc::clone(connection), std::mem::take(&mut message));
                    let serial = connection.session.flights.put_off(header.tag);
                    let bytes = message.capacity();
                    self.jobs.push(Job { connection, message, serial }, bytes);
                }
                Outcome::Done(size) => connection.send(filled(room, size)),
            }
        }
        Ok(())
    }

    /// Does what may wait, for as long as the process lives.
    fn work(&self) {
        let mut room = self.room();
        loop {
            let (Job { connection, message, serial }, bytes) = self.jobs.pop();
            let flights = &connection.session.flights;
            if flights.begin(serial)
                && let Outcome::Done(size) = connection.answer(&message, Place::Pool, serial, &mut room)
            {
                connection.send(filled(&room, size));
            }
            flights.land(serial);
            drop(connection);
            self.jobs.done(bytes);
        }
    }
}

fn filled(room: &[u8], size: u32) -> &[u8] {
    usize::try_from(size).ok().and_then(|size| room.get(..size)).unwrap_or_default()
}

fn split(message: &[u8]) -> Option<(Header, &[u8])> {
    let (header, rest) = message.split_first_chunk::<HEADER>()?;
    Some((Header::read(header).ok()?, rest))
}

/// Reads the next message; none if the client has said all.
fn next(input: &mut impl Read, message: &mut Vec<u8>, msize: u32) -> io::Result<Option<Header>> {
    message.clear();
    message.resize(HEADER, 0);
    match input.read_exact(message) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let broken = |why: &'static str| Error::new(ErrorKind::InvalidData, why);
    let (header, _) = split(message).ok_or_else(|| broken("no header"))?;
    if header.size > msize.max(MSIZE_MIN) {
        return Err(broken("its message is larger than agreed on"));
    }
    let size = usize::try_from(header.size).ok().filter(|&size| size >= HEADER);
    message.resize(size.ok_or_else(|| broken("its message is smaller than a header"))?, 0);
    input.read_exact(message.get_mut(HEADER..).unwrap_or_default())?;
    Ok(Some(header))
}
