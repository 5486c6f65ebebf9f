//! The device's side of the socket: threads made once, and one VMM after another.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use postern_ipc::Errno;
use postern_ipc::patience::Patience;
use rustix::fs::OFlags;
use rustix::net::{AddressFamily, SocketType, sockopt};
use vhost::vhost_user::{BackendReqHandler, Error};

use super::device::Device;
use super::events::Events;
use super::pool::Pool;
use super::protocol::Connection;
use super::queue::{Handler, Queue, lock};
use super::worker::Worker;

/// How long to wait when there are no descriptors for another connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Where VMMs come from.
#[derive(Debug)]
pub enum Socket {
    /// One after the other connects to it.
    Listening(UnixListener),
    /// One is already there, and there will be no other.
    Connected(UnixStream),
}

impl Socket {
    /// Finds out what kind of socket was passed to the process, and has it block.
    ///
    /// # Errors
    /// ENOTSOCK; EINVAL if it is no Unix stream socket.
    pub fn inherited(socket: OwnedFd) -> io::Result<Self> {
        if (sockopt::socket_domain(&socket)?, sockopt::socket_type(&socket)?)
            != (AddressFamily::UNIX, SocketType::STREAM)
        {
            return Err(os_error(Errno::EINVAL));
        }
        rustix::fs::fcntl_setfl(&socket, rustix::fs::fcntl_getfl(&socket)?.difference(OFlags::NONBLOCK))?;
        let listening = sockopt::socket_acceptconn(&socket)?;
        Ok(if listening { Self::Listening(socket.into()) } else { Self::Connected(socket.into()) })
    }

    /// The one that is there, or the first to come; no other will be let in.
    ///
    /// # Errors
    /// Those of accept(2) that do not pass.
    pub fn accept(self) -> io::Result<UnixStream> {
        match self {
            Self::Connected(stream) => Ok(stream),
            Self::Listening(listener) => accept(&listener),
        }
    }
}

/// Who does a device's work.
#[derive(Clone, Copy, Debug)]
pub struct Threads {
    /// Threads that serve queues, one lane of them or several; at least one.
    pub workers: usize,
    /// Threads for requests that may block; with 0 the workers do those too.
    pub pool: usize,
    /// How long a worker may look for the next request before it sleeps; 0 for not at all.
    pub poll: Duration,
}

/// A device with its threads.
pub struct Transport {
    device: Arc<dyn Device>,
    queues: Arc<[Arc<Queue>]>,
}

impl Transport {
    /// Starts the threads. All there will ever be are running, and have entered the device, when this returns.
    ///
    /// # Errors
    /// Those of making threads and eventfds.
    pub fn new(device: Arc<dyn Device>, threads: Threads) -> io::Result<Self> {
        let workers = threads.workers.max(1);
        let events = (0..workers).map(|_| Events::new().map(Arc::new));
        let events = events.collect::<Result<Vec<_>, Errno>>().map_err(os_error)?;
        let (mut queues, mut served) = (Vec::new(), vec![Vec::new(); workers]);
        for (index, lane) in (0..device.queues()).map(|index| (index, device.lane(index))) {
            let worker = lane.checked_rem(workers).unwrap_or(0);
            if let (Some(its), Some(events)) = (served.get_mut(worker), events.get(worker)) {
                let queue = Arc::new(Queue::new(index, Arc::clone(events), its.len()));
                its.push(Arc::clone(&queue));
                queues.push(queue);
            }
        }
        let pool = (threads.pool > 0).then(Arc::<Pool>::default);
        let started = Arc::new(Barrier::new(workers.saturating_add(threads.pool).saturating_add(1)));
        let start = |thread: usize, name: &str, run: Box<dyn FnOnce() + Send>| {
            let (device, started) = (Arc::clone(&device), Arc::clone(&started));
            let begin = move || {
                device.enter(thread);
                started.wait();
                run();
            };
            thread::Builder::new().name(format!("{name}-{thread}")).spawn(begin).map(drop)
        };
        for (thread, (queues, events)) in served.into_iter().zip(events).enumerate() {
            let handler = Handler::new(Arc::clone(&device), pool.clone());
            let worker = Worker::new(queues, events, handler, Patience::new(threads.poll));
            start(thread, "queue", Box::new(move || worker.run()))?;
        }
        for (thread, pool) in (workers..).zip(std::iter::repeat_n(pool, threads.pool).flatten()) {
            let device = Arc::clone(&device);
            start(thread, "pool", Box::new(move || pool.run(&*device)))?;
        }
        started.wait();
        Ok(Self { device, queues: queues.into() })
    }

    /// Serves VMMs: until the first one goes if `once` or if the socket is connected already, else for ever. Between
    /// two of them the device is reset; all requests of the old one are finished by then, so that one which the
    /// device cannot finish keeps the next waiting.
    ///
    /// # Errors
    /// Those of accept(2) that do not pass.
    pub fn serve(&self, socket: Socket, once: bool) -> io::Result<()> {
        match socket {
            Socket::Connected(stream) => self.attend(stream),
            Socket::Listening(listener) => loop {
                self.attend(accept(&listener)?);
                if once {
                    break;
                }
            },
        }
        Ok(())
    }

    /// Serves one VMM until it goes.
    fn attend(&self, stream: UnixStream) {
        log::info!("a VMM has connected");
        let connection = Connection::new(Arc::clone(&self.device), Arc::clone(&self.queues));
        let connection = Arc::new(Mutex::new(connection));
        let mut requests = BackendReqHandler::from_stream(stream, Arc::clone(&connection));
        let end = loop {
            match requests.handle_request() {
                Ok(()) | Err(Error::ReqHandlerError(_) | Error::SocketRetry(_)) => {}
                Err(error) => break error,
            }
        };
        lock(&connection).end();
        match end {
            Error::Disconnected | Error::SocketBroken(_) => log::info!("the VMM has disconnected"),
            error => log::warn!("the VMM broke the vhost-user protocol and was disconnected: {error}"),
        }
    }
}

/// Waits for the next connection, and for descriptors where they are short.
pub(crate) fn accept(listener: &UnixListener) -> io::Result<UnixStream> {
    let mut told = false;
    loop {
        let error = match listener.accept() {
            Ok((stream, _)) => return Ok(stream),
            Err(error) => error,
        };
        match Errno::from_raw(error.raw_os_error().unwrap_or_default()) {
            Errno::EINTR | Errno::EAGAIN => {}
            Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM => {
                if !std::mem::replace(&mut told, true) {
                    log::warn!("cannot accept a connection yet: {error}");
                }
                thread::sleep(PAUSE);
            }
            _ => return Err(error),
        }
    }
}

fn os_error(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw())
}
