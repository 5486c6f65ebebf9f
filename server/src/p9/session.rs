//! A client's session: header in, header out, and one road for every request between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use postern_ipc::{Errno, Result};

use super::carrier::Carrier;
use super::fid::{Fids, Limits};
use super::flight::Flights;
use super::message::{HEADER, Message as _, Rerror, Rlerror, Rversion, Tversion};
use super::op::{self, Pace};
use super::user::Users;
use super::wire::{Get, Put, Reader, Text};
use crate::fs::{Fs, Wait};
use crate::stats;
use crate::vhost::{Outcome, Place};

/// Least bytes of a message that a client may ask for. As QEMU: P9_MIN_MSIZE
pub const MSIZE_MIN: u32 = 4096;
/// Most bytes of a message that a client is granted.
pub const MSIZE_MAX: u32 = 1 << 20;
/// Bytes of an [`Rerror`] without the words.
const RERROR: usize = HEADER + 2 + 4;

/// What a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    /// 9P2000.L
    L,
    /// 9P2000.u
    U,
}

impl Dialect {
    /// As Tversion says it.
    fn named(version: &[u8]) -> Option<Self> {
        [Self::L, Self::U].into_iter().find(|dialect| dialect.name().as_bytes() == version)
    }

    fn name(self) -> &'static str {
        match self {
            Self::L => "9P2000.L",
            Self::U => "9P2000.u",
        }
    }
}

/// What the guest is told.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Most bytes of a message, [`MSIZE_MIN`] to [`MSIZE_MAX`].
    pub msize: u32,
    /// Extended attributes.
    pub xattr: bool,
    /// POSIX ACLs.
    pub posix_acl: bool,
    /// Most fids of all clients.
    pub fids: usize,
}

/// What stands before every message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header {
    /// Bytes of the message, these included.
    pub size: u32,
    /// Number of the message.
    pub kind: u8,
    /// What the answer is to be known by.
    pub tag: u16,
}

impl Header {
    /// # Errors
    /// None: there are enough bytes.
    pub(super) fn read(bytes: &[u8; HEADER]) -> Result<Self> {
        let mut from = Reader::new(bytes);
        Ok(Self { size: u32::get(&mut from)?, kind: u8::get(&mut from)?, tag: u16::get(&mut from)? })
    }

    fn write(self) -> Vec<u8> {
        let mut to = Vec::with_capacity(HEADER);
        self.size.put(&mut to);
        self.kind.put(&mut to);
        self.tag.put(&mut to);
        to
    }
}

/// One request, decoded as far as its header.
pub(super) struct Call<'a> {
    /// Its header.
    pub header: Header,
    /// Where it is handled.
    pub place: Place,
    /// Its serial number if it was put off, else 0.
    pub serial: u64,
    /// What follows the header, without content.
    pub args: &'a [u8],
    /// For content, and the room for the answer.
    pub carrier: &'a mut dyn Carrier,
}

impl Call<'_> {
    pub(super) fn wait(&self) -> Wait {
        if self.place == Place::Worker { Wait::Never } else { Wait::AsNeeded }
    }
}

/// How many sessions there have been.
static SESSIONS: AtomicU64 = AtomicU64::new(0);

/// One share for one client.
pub struct Session<F: Fs> {
    /// Of which each who attaches has a view of his own: nothing else is to be done on it.
    pub(super) share: Arc<F>,
    /// No other session's.
    pub(super) number: u64,
    pub(super) users: Users,
    pub(super) settings: Settings,
    pub(super) fids: Fids<F>,
    pub(super) flights: Flights,
    /// Somebody has attached.
    pub(super) attached: AtomicBool,
    /// Most bytes of a message; 0 before Tversion.
    msize: AtomicU32,
    /// The client has last asked for 9P2000.u, and expects its errors: set before msize is.
    is_u: AtomicBool,
}

impl<F: Fs> Session<F> {
    /// For the only client, who begins with Tversion.
    pub fn new(share: Arc<F>, users: Users, settings: Settings) -> Self {
        Self::beside(share, users, settings, Limits::new(settings.fids))
    }

    /// For one of the clients who have these limits together.
    pub(super) fn beside(share: Arc<F>, users: Users, settings: Settings, limits: Limits) -> Self {
        let (fids, flights) = (Fids::new(limits), Flights::default());
        let number = SESSIONS.fetch_add(1, Ordering::Relaxed);
        let (attached, msize, is_u) = (AtomicBool::new(false), AtomicU32::new(0), AtomicBool::new(false));
        Self { share, number, users, settings, fids, flights, attached, msize, is_u }
    }

    /// The client was let in once.
    pub(super) fn is_attached(&self) -> bool {
        self.attached.load(Ordering::Acquire)
    }

    /// The client holds nothing any more, and must begin with Tversion again.
    pub(super) fn reset(&self) {
        self.msize.store(0, Ordering::Release);
        self.fids.clear();
    }

    /// Most bytes of a message; 0 before Tversion.
    pub(super) fn msize(&self) -> u32 {
        self.msize.load(Ordering::Acquire)
    }

    /// What the client speaks; 9P2000.L before Tversion.
    pub(super) fn dialect(&self) -> Dialect {
        if self.is_u.load(Ordering::Acquire) { Dialect::U } else { Dialect::L }
    }

    pub(super) fn version(&self, asked: &Tversion<'_>) -> Result<Rversion<'static>> {
        self.reset();
        let dialect = Dialect::named(asked.version.0);
        self.is_u.store(dialect == Some(Dialect::U), Ordering::Release);
        let msize = asked.msize.min(self.settings.msize);
        if msize < MSIZE_MIN {
            return Err(Errno::EINVAL);
        }
        let Some(dialect) = dialect else {
            return Ok(Rversion { msize, version: Text(b"unknown") });
        };
        self.msize.store(msize, Ordering::Release);
        log::info!("a guest mounted the share: {}, msize {msize}", dialect.name());
        Ok(Rversion { msize, version: Text(dialect.name().as_bytes()) })
    }

    /// Most bytes of content in an answer whose content begins at `start`.
    pub(super) fn room(&self, call: &Call<'_>, start: usize) -> usize {
        let msize = usize::try_from(self.msize()).unwrap_or(usize::MAX);
        call.carrier.capacity().min(msize).saturating_sub(start)
    }

    /// From header to header.
    pub(super) fn answer(&self, mut call: Call<'_>) -> Outcome {
        let header = call.header;
        let Some((name, pace)) = op::known(self.dialect(), header.kind) else {
            log::debug!("message {} -> EOPNOTSUPP", header.kind);
            return self.refuse(&mut call, Errno::EOPNOTSUPP);
        };
        if call.place == Place::Worker && pace == Pace::Slow {
            return Outcome::Later;
        }
        let watch = stats::watch();
        let done = self.act(&mut call);
        if done == Err(Errno::EAGAIN) && call.place == Place::Worker {
            return Outcome::Later;
        }
        watch.end(header.kind, name, done.err(), format_args!(" tag={}", header.tag));
        match done {
            Err(errno) => self.refuse(&mut call, errno),
            Ok(bytes) => reply(&mut call, header.kind.saturating_add(1), bytes),
        }
    }

    /// Answers with an error; its words, where the dialect has them, as far as there is room.
    pub(super) fn refuse(&self, call: &mut Call<'_>, errno: Errno) -> Outcome {
        let number = errno.raw().unsigned_abs();
        let (kind, put) = match self.dialect() {
            Dialect::L => (Rlerror::NUMBER, Rlerror { ecode: number }.encode(call)),
            Dialect::U => {
                let room = call.carrier.capacity().saturating_sub(RERROR);
                let words = errno.desc().as_bytes();
                let ename = Text(words.get(..room).unwrap_or(words));
                (Rerror::NUMBER, Rerror { ename, errno: number }.encode(call))
            }
        };
        put.map_or(Outcome::Done(0), |bytes| reply(call, kind, bytes))
    }

    fn act(&self, call: &mut Call<'_>) -> Result<usize> {
        let msize = self.msize();
        match call.header.kind {
            Tversion::NUMBER => {}
            _ if msize == 0 => return Err(Errno::ENOTCONN),
            _ if call.header.size > msize => return Err(Errno::E2BIG),
            _ => {}
        }
        op::dispatch(self, call)
    }
}

/// What an answer consists of behind its header.
pub(super) trait Encode {
    /// Puts it there. Bytes.
    ///
    /// # Errors
    /// ENOBUFS if the client left too little room, EFAULT.
    fn encode(&self, call: &mut Call<'_>) -> Result<usize>;
}

impl<T: Put> Encode for T {
    fn encode(&self, call: &mut Call<'_>) -> Result<usize> {
        let mut bytes = Vec::with_capacity(192);
        self.put(&mut bytes);
        call.carrier.write_at(HEADER, &bytes).map(|()| bytes.len())
    }
}

/// Content that is in its place already, behind its length in so many bytes.
pub(super) enum Filled {
    /// `count[4]`
    Content,
    /// `s[2]`
    Text,
}

impl Filled {
    /// Where the content begins.
    pub(super) fn start(&self) -> usize {
        HEADER.saturating_add(match self {
            Self::Content => size_of::<u32>(),
            Self::Text => size_of::<u16>(),
        })
    }
}

impl Encode for Filled {
    fn encode(&self, call: &mut Call<'_>) -> Result<usize> {
        let filled = call.carrier.filled();
        let mut length = Vec::new();
        match self {
            Self::Content => u32::try_from(filled).map_err(|_| Errno::EIO)?.put(&mut length),
            Self::Text => u16::try_from(filled).map_err(|_| Errno::EIO)?.put(&mut length),
        }
        call.carrier.write_at(HEADER, &length)?;
        Ok(filled.saturating_add(length.len()))
    }
}

/// One row of the table.
pub(super) fn run<'a, F: Fs, T: Get<'a>, R: Encode>(
    session: &Session<F>,
    call: &mut Call<'a>,
    row: fn(&Session<F>, &mut Call<'a>, T) -> Result<R>,
) -> Result<usize> {
    let mut args = Reader::new(call.args);
    let request = T::get(&mut args)?;
    args.finish()?;
    row(session, call, request)?.encode(call)
}

/// The header, last; without room for it there is no answer.
fn reply(call: &mut Call<'_>, kind: u8, bytes: usize) -> Outcome {
    let Ok(size) = u32::try_from(bytes.saturating_add(HEADER)) else { return Outcome::Done(0) };
    match call.carrier.write_at(0, &Header { size, kind, tag: call.header.tag }.write()) {
        Ok(()) => Outcome::Done(size),
        Err(_) => Outcome::Done(0),
    }
}
