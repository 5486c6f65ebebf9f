//! One channel's requests, one after the other.
//!
//! The laws of this border:
//! - a frame that no honest server sends ends the process for good, with one log line;
//! - the share's right, and whether a name is the guest's to use, is checked in [`permit`] and nowhere else;
//! - an id of the guest becomes one of the share in one place for each way that it comes: whom to act as ([`caller`]),
//!   whose a node becomes, whom an attribute's value names;
//! - a caller whom the kernel is to judge is become for all that an operation does;
//! - what may be called is what the rows of the table say they call: [`calls`] is the seccomp list of this very share;
//! - nothing is kept from one request to the next but two numbers (how many descriptors may still be in flight, and when
//!   all requests so far had been done at the rate allowed) and the last descriptors that were proven, as a cache that
//!   may be emptied at any time ([`held`]).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::libc;
use postern_ipc::channel::{Channel, Received};
use postern_ipc::few::{Descriptors, Few as _};
use postern_ipc::frame::{self, DATA_MAX, FRAME_MAX, Header, Malformed};
use postern_ipc::held::{self, Coming, UNHELD};
use postern_ipc::id::Caller;
use postern_ipc::model::Model;
use postern_ipc::name::FileName;
use postern_ipc::op::{self, Answer, Kind, Op};
use postern_ipc::{Errno, Result};
use postern_policy::limit::Rate;
use postern_policy::right::{Right, Rights};
use postern_policy::sandbox::seccomp::{Call, bits};

use smallvec::SmallVec;

use crate::caller;
use crate::held::Held;
use crate::model;
use crate::pin::{self, Disbelief, Pin};
use crate::share::{self, Share};

/// Most descriptors of a channel's answers that the server has not taken yet, unless one answer has more. They count
/// for the user whose id the helper has, who could not send any in his other programs if there were many. unix(7):
/// ETOOMANYREFS
const IN_FLIGHT: usize = 4;
/// Longest pause before it is looked again whether the server has taken them.
const LONGEST: Duration = Duration::from_millis(10);

/// What a row of the table has to say besides what `ipc` says of it.
pub(crate) trait Serve: Op {
    /// The right without which the row is not served at all.
    const NEEDS: Right;
    /// What it calls, in any share that serves it.
    const CALLS: &'static [&'static [Call]];
    /// What it calls besides where the share may be changed.
    const WRITES: &'static [&'static [Call]] = &[];
    /// Afterwards a node may have lost its last name.
    const UNNAMES: bool = false;
    /// What it gives was opened to read: nothing has to be written before it can be closed.
    const GIVES_TO_READ: bool = false;

    /// The right that this request needs.
    fn needs(&self) -> Right {
        Self::NEEDS
    }

    /// As how many requests it counts.
    fn count(&self) -> usize {
        1
    }

    /// The name that must be there.
    fn finds(&self) -> Option<&FileName> {
        None
    }

    /// The name that comes to be there.
    fn makes(&self) -> Option<&FileName> {
        None
    }

    /// Does it. The descriptors are proven, `data` is within the row's cap.
    fn serve(self, at: Self::At<&Pin>, data: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd>;
}

/// A request, ready to be decoded as what its kind says.
struct Request<'a> {
    header: Header,
    body: &'a [u8],
    data: &'a [u8],
    descriptors: Descriptors,
    comings: &'a [Coming],
}

/// An answer on its way: header and body, descriptors, bulk data.
struct Reply<'a> {
    out: &'a mut Vec<u8>,
    gives: Descriptors,
    data: Vec<u8>,
    /// [`Serve::GIVES_TO_READ`]
    to_read: bool,
    /// Requests it answers.
    count: usize,
}

/// Rows are listed once; from the list come the dispatch and the seccomp list.
macro_rules! table {
    ($($row:ident),* $(,)?) => {
        fn dispatch(kind: Kind, request: Request<'_>, reply: &mut Reply<'_>, share: &Share, held: Held<'_>) -> Served {
            match kind { $(Kind::$row => answer::<op::$row>(request, reply, share, held),)* }
        }

        /// The system calls of a share that grants `rights` and has this security model.
        pub(crate) fn calls(rights: Rights, model: Model) -> Vec<Call> {
            let rows = [$(row::<op::$row>(rights)),*];
            let others = [pin::CALLS, caller::ALONE, BASE].concat().into_iter().chain(model::calls(model, rights));
            rows.into_iter().flatten().chain(others).collect()
        }
    };
}

table! {
    Lookup, Stat, Readlink, SetAttr, Open, OpenDir, Create, TmpFile, Mkdir, Mknod, Symlink, Link, Unlink, Rmdir, Rename,
    GetXattr, SetXattr, ListXattr, RemoveXattr, GetFlags, SetFlags, GetFsx, SetFsx, GetVersion, SyncFs, Write,
    Fallocate, CopyRange, OpenEach,
}

/// linux/sockios.h
const SIOCOUTQ: u32 = 0x5411;

/// What every helper calls, whatever its share grants.
const BASE: &[Call] = &[
    Call::any(libc::SYS_readv, "takes a request"),
    Call::any(libc::SYS_read, "takes the rest of a long one"),
    Call::any(libc::SYS_recvmsg, "takes a request's descriptors"),
    Call::any(libc::SYS_sendmsg, "gives an answer's descriptors"),
    Call::any(libc::SYS_writev, "gives an answer"),
    Call::at(libc::SYS_ioctl, "looks whether answers were taken").eq(1, SIOCOUTQ),
    share::WAIT,
    Call::any(libc::SYS_close, "lets a descriptor go"),
    Call::at(libc::SYS_fcntl, "a debug build looks whether what it closes is open").eq(1, bits(libc::F_GETFD)),
    Call::any(libc::SYS_write, "logs to the standard error output").eq(0, bits(libc::STDERR_FILENO)),
    Call::any(libc::SYS_ppoll, "looks whether the standard error output has room").null(3),
    Call::any(libc::SYS_sendto, "logs to the system's log, which is connected").null(4),
    Call::any(libc::SYS_getpid, "the system's log wants it"),
    Call::any(libc::SYS_clock_gettime, "how long a request took"),
    Call::any(libc::SYS_brk, "memory"),
    Call::any(libc::SYS_mmap, "memory, never of a file, never to be executed")
        .only(2, bits(libc::PROT_READ | libc::PROT_WRITE))
        .masked(3, bits(libc::MAP_ANONYMOUS), bits(libc::MAP_ANONYMOUS)),
    Call::any(libc::SYS_mprotect, "memory, never to be executed").only(2, bits(libc::PROT_READ | libc::PROT_WRITE)),
    Call::any(libc::SYS_mremap, "memory"),
    Call::any(libc::SYS_munmap, "memory"),
    Call::any(libc::SYS_madvise, "memory of a thread that ends"),
    Call::any(libc::SYS_futex, "waits for the other threads' end"),
    Call::any(libc::SYS_sched_yield, "two threads meet at the start"),
    Call::any(libc::SYS_sigaltstack, "a thread ends"),
    Call::any(libc::SYS_rt_sigprocmask, "a thread ends"),
    Call::any(libc::SYS_exit, "a thread ends"),
    Call::any(libc::SYS_exit_group, "the helper ends"),
    Call::any(libc::SYS_restart_syscall, "goes on after a stop"),
    Call::any(libc::SYS_rt_sigreturn, "goes on after a stop"),
];

fn row<O: Serve>(rights: Rights) -> Vec<Call> {
    let served: &[&[Call]] = if rights.allow(O::NEEDS) { O::CALLS } else { &[] };
    let changing: &[&[Call]] = if rights.allow(Right::Write) { O::WRITES } else { &[] };
    served.iter().chain(changing).copied().flatten().copied().collect()
}

/// Whether an answer is ready to be sent, or the server is none.
type Served = std::result::Result<(), Malformed>;

/// Why a channel is served no more although its other end is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// The server broke the protocol.
    Protocol(Malformed),
    /// The kernel takes or gives no messages: memory may be short.
    Channel(Errno),
}

impl From<Malformed> for Stop {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol(malformed)
    }
}

/// Serves until the other end is gone.
///
/// # Errors
/// Why it cannot go on.
pub(crate) fn channel(channel: &Channel, share: &Share, held: Held<'_>) -> std::result::Result<(), Stop> {
    let mut input = vec![0; FRAME_MAX];
    let mut out = Vec::with_capacity(FRAME_MAX - DATA_MAX);
    let mut in_flight = 0;
    let mut rate = share.max_rate.map(|most| Rate::new(most, Duration::from_secs(1)));
    loop {
        let got = match channel.receive(&mut input) {
            Ok(got) if got.len > 0 => got,
            Ok(_) => return Ok(()),
            Err(errno) => return ended(errno),
        };
        let mut wait = |count| {
            if let Some(rate) = &mut rate {
                std::thread::sleep(rate.count(count, Instant::now()));
            }
        };
        wait(1);
        let mut reply = Reply { out: &mut out, gives: Descriptors::new(), data: Vec::new(), to_read: false, count: 1 };
        let header = request(&input, got, &mut reply, share, held)?;
        let others = reply.count.saturating_sub(1);
        if let Err(errno) = send(channel, header, reply, &mut in_flight) {
            return ended(errno);
        }
        wait(others);
    }
}

fn ended(errno: Errno) -> std::result::Result<(), Stop> {
    match errno {
        Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN => Ok(()),
        other => Err(Stop::Channel(other)),
    }
}

fn request(
    input: &[u8],
    got: Received,
    reply: &mut Reply<'_>,
    share: &Share,
    held: Held<'_>,
) -> std::result::Result<Header, Malformed> {
    if let Some(fault) = got.fault {
        return Err(fault);
    }
    held.make_room(&got.comings);
    let (header, body, data) = frame::split(input.get(..got.len).unwrap_or_default())?;
    let kind = Kind::try_from(header.kind).map_err(Malformed)?;
    if header.errno.is_some() {
        return Err(Malformed("a request carries an errno"));
    }
    let (wanted, others) = got.comings.split_at_checked(kind.descriptors()).unwrap_or((&got.comings, &[]));
    let is_held = |coming: &&Coming| matches!(coming, Coming::Held(_));
    let sent = wanted.len().saturating_sub(wanted.iter().filter(is_held).count());
    if got.lost && got.descriptors.len() < sent {
        // They were sent; there was no room for them here.
        frame::encode(reply.out, header.serial, header.kind, Some(Errno::EMFILE), &(), 0)?;
        return Ok(header);
    }
    if got.descriptors.len() != sent || others.iter().any(|coming| *coming != Coming::Sent) {
        return Err(Malformed("a request has a wrong number of descriptors"));
    }
    let request = Request { header, body, data, descriptors: got.descriptors, comings: wanted };
    dispatch(kind, request, reply, share, held)?;
    Ok(header)
}

/// Decodes, proves, checks the right, does and encodes; the same for every row.
fn answer<O: Serve>(request: Request<'_>, reply: &mut Reply<'_>, share: &Share, held: Held<'_>) -> Served {
    if request.data.len() > O::DATA {
        return Err(Malformed("a request has more bulk data than its row takes"));
    }
    let (caller, op): (Caller, O) = frame::owned(request.body)?;
    let told = log::log_enabled!(log::Level::Debug).then(|| (describe(&op, caller), Instant::now()));
    let done = match prove(request.descriptors, request.comings, share, held) {
        Ok(pins) => {
            reply.count = op.count();
            if O::UNNAMES {
                // Who holds a file keeps some file systems from removing it.
                held.let_files_go();
            }
            O::At::all_of(pins.iter().map(|pin| &**pin))
                .ok_or(Errno::EPROTO)
                .and_then(|at| permit(&op, share, caller).map(|()| at))
                .and_then(|at| caller::alone(caller, &share.translation, || op.serve(at, request.data, share, caller)))
                // A file system of any kind may say anything, but this is said here only.
                .map_err(|errno| if errno == UNHELD { Errno::EIO } else { errno })
        }
        Err(Disbelief::Errno(errno)) => Err(errno),
        Err(Disbelief::Malformed(malformed)) => return Err(malformed),
    };
    if O::UNNAMES {
        held.let_files_go();
    }
    if let Some((what, since)) = told {
        let how = done.as_ref().map_or_else(|errno| format!("{errno:?}"), |_| "ok".to_owned());
        log::debug!("{what} -> {how} {}us", since.elapsed().as_micros());
    }
    let header = request.header;
    match done {
        Ok((value, gives, data)) => {
            frame::encode(reply.out, header.serial, header.kind, None, &value, data.len())?;
            reply.data = data;
            reply.gives = gives.into_iter().collect();
            reply.to_read = O::GIVES_TO_READ;
            Ok(())
        }
        Err(errno) => frame::encode(reply.out, header.serial, header.kind, Some(errno), &(), 0),
    }
}

/// Whether the share grants it, and has such names. A name of the model's own is not there and cannot be.
/// Whom the kernel is to judge, only root can be where the ids it knows are not the guest's.
fn permit<O: Serve>(op: &O, share: &Share, caller: Caller) -> Result<()> {
    share.rights.require(op.needs())?;
    if share.model.is_mapped() && matches!(caller, Caller::Alone { uid, .. } if uid.0 != 0) {
        return Err(Errno::EPERM);
    }
    let hidden = |name: Option<&FileName>| name.is_some_and(|name| share.model.hides(name.as_bytes()));
    match (hidden(op.finds()), hidden(op.makes())) {
        (true, _) => Err(Errno::ENOENT),
        (_, true) => Err(Errno::EINVAL),
        _ => Ok(()),
    }
}

/// `mkdir { name: "a", mode: 0755, umask: 022 } uid=1000 gid=1000`
fn describe<O: Op>(op: &O, caller: Caller) -> String {
    let text = format!("{op:?}");
    let (row, fields) = text.split_once(' ').unwrap_or((&text, "{}"));
    format!("{} {fields} {caller}", row.to_lowercase())
}

fn prove(
    descriptors: Descriptors,
    comings: &[Coming],
    share: &Share,
    held: Held<'_>,
) -> std::result::Result<SmallVec<[Arc<Pin>; held::MOST]>, Disbelief> {
    let mut sent = descriptors.into_iter();
    comings.iter().map(|coming| held.prove(*coming, &mut sent, share)).collect()
}

/// A descriptor that cannot be sent is the request's failure, not the helper's end: too many may be in flight.
fn send(channel: &Channel, header: Header, reply: Reply<'_>, in_flight: &mut usize) -> Result<()> {
    let Reply { out, gives, data, to_read, .. } = reply;
    if in_flight.saturating_add(gives.len()) > IN_FLIGHT {
        until_taken(channel)?;
        *in_flight = 0;
    }
    *in_flight = in_flight.saturating_add(gives.len());
    let sent = if to_read {
        channel.give(&[out, &data], gives)
    } else {
        let gives: SmallVec<[_; 2]> = gives.iter().map(AsFd::as_fd).collect();
        channel.send(&[out, &data], &gives)
    };
    match sent {
        Err(errno @ (Errno::ETOOMANYREFS | Errno::ENOMEM | Errno::ENOBUFS)) => {
            let errno = if errno == Errno::ETOOMANYREFS { Errno::ENFILE } else { Errno::ENOMEM };
            let failed = frame::encode(out, header.serial, header.kind, Some(errno), &(), 0);
            failed.map_err(|_| Errno::EIO)?;
            channel.send(&[out, &[]], &[])
        }
        sent => sent,
    }
}

fn until_taken(channel: &Channel) -> Result<()> {
    let mut pause = Duration::from_micros(20);
    while !channel.is_taken()? {
        std::thread::sleep(pause);
        pause = pause.saturating_mul(2).min(LONGEST);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
