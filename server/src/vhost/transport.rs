//! The device's side of the socket: threads made once, and one VMM after another.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use postern_ipc::Errno;
use rustix::fs::OFlags;
use rustix::net::{AddressFamily, SocketType, sockopt};
use vhost::vhost_user::{BackendReqHandler, Error};

use super::device::Device;
use super::patience::Patience;
use super::pool::Pool;
use super::protocol::Connection;
use super::queue::{Queue, Worker, lock};

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

/// A device with its threads.
pub struct Transport {
    device: Arc<dyn Device>,
    queues: Arc<[Arc<Queue>]>,
}

impl Transport {
    /// Starts a worker for each queue, and `pool` threads for requests that may block; with 0 the workers do those
    /// too. A worker may look for the next request for `poll` before it sleeps. All threads there will ever be are
    /// running, and have entered the device, when this returns.
    ///
    /// # Errors
    /// Those of making threads and eventfds.
    pub fn new(device: Arc<dyn Device>, pool: usize, poll: Duration) -> io::Result<Self> {
        let queues = (0..device.queues()).map(|index| Queue::new(index).map(Arc::new));
        let queues: Arc<[_]> = queues.collect::<Result<Vec<_>, Errno>>().map_err(os_error)?.into();
        let jobs = (pool > 0).then(Arc::<Pool>::default);
        let threads = queues.len().saturating_add(pool);
        let started = Arc::new(Barrier::new(threads.saturating_add(1)));
        for thread in 0..threads {
            let (device, started) = (Arc::clone(&device), Arc::clone(&started));
            let (queue, jobs) = (queues.get(thread).cloned(), jobs.clone());
            let name = if queue.is_some() { format!("queue-{thread}") } else { format!("pool-{thread}") };
            thread::Builder::new().name(name).spawn(move || {
                device.enter(thread);
                started.wait();
                match (queue, jobs) {
                    (Some(queue), jobs) => Worker::new(queue, device, jobs, Patience::new(poll)).run(),
                    (None, Some(jobs)) => jobs.run(&*device),
                    (None, None) => {}
                }
            })?;
        }
        started.wait();
        Ok(Self { device, queues })
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
