//! A channel: messages with descriptors, both ways, between two processes.
//!
//! The bytes of a message go through a pipe, which takes the kernel half the time that a socket does; its descriptors,
//! if it brings any, have been sent through a SEQPACKET socket before. The pipes are in packet mode (O_DIRECT), so what
//! is written at once is read at once, and more than one message may be on its way. A number says which descriptors are
//! a message's: none is ever taken for another's.
//!
//! Every descriptor of a message is owned before anything else about it is judged. The control buffer holds as many
//! as one message can carry (SCM_MAX_FD of the kernel), so none is ever cut off and left behind.
#![allow(unsafe_code)]

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{read, readv, retry_on_intr, writev};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::pipe::{PipeFlags, pipe_with};
use smallvec::SmallVec;

use crate::errno::{Errno, Result};
use crate::few::{Descriptors, EACH_MAX};
use crate::frame::Malformed;
use crate::held::Comings;

/// Most descriptors of one message. The kernel's SCM_MAX_FD.
const SCM_MAX_FD: usize = 253;
/// Most descriptors we send with one message; no row of the table has more.
const SENT_MAX: usize = EACH_MAX;
/// Bytes that stand before a message on the pipe: its length, how many descriptors were sent, how they come, and the
/// number that was sent with them.
const ENVELOPE: usize = 8;
/// Pause before it is tried again whether there is memory for a message.
const SHORT_OF_MEMORY: Duration = Duration::from_millis(1);

nix::ioctl_read_bad!(
    /// Bytes sent and not taken yet, as the kernel counts them. linux/sockios.h: SIOCOUTQ
    outq,
    libc::TIOCOUTQ,
    libc::c_int
);

/// One end.
#[derive(Debug)]
pub struct Channel {
    /// Descriptors, both ways.
    descriptors: OwnedFd,
    /// Bytes to the other end.
    output: OwnedFd,
    /// Bytes from there.
    input: OwnedFd,
    /// Of the last descriptors sent.
    number: AtomicU8,
}

/// A message as it came.
#[derive(Debug, Default)]
pub struct Received {
    /// Its length, bytes; 0 means the other end is gone.
    pub len: usize,
    /// What no honest end sends. Then nothing else is to be believed.
    pub fault: Option<Malformed>,
    /// Some of its descriptors are lost: this process may hold no more (RLIMIT_NOFILE).
    pub lost: bool,
    /// All its descriptors, close-on-exec; unless some are lost as many as it said.
    pub descriptors: Descriptors,
    /// How those of a request come.
    pub comings: Comings,
}

impl Channel {
    /// Two connected ends, close-on-exec.
    ///
    /// # Errors
    /// Those of socketpair(2) and pipe2(2).
    pub fn pair() -> Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let pipe = || pipe_with(PipeFlags::CLOEXEC | PipeFlags::DIRECT);
        let ((to_a, from_b), (to_b, from_a)) = (pipe()?, pipe()?);
        Ok((Self::of(a, from_a, to_a), Self::of(b, from_b, to_b)))
    }

    /// The descriptors that an end consists of, in the order in which it is handed over.
    pub fn parts(&self) -> [BorrowedFd<'_>; 3] {
        [self.descriptors.as_fd(), self.output.as_fd(), self.input.as_fd()]
    }

    /// Takes an end whose parts were [passed](pass) one after the other.
    ///
    /// # Errors
    /// As [`take`].
    pub fn take(socket: &UnixStream) -> Result<Self> {
        Ok(Self::of(take(socket)?, take(socket)?, take(socket)?))
    }

    fn of(descriptors: OwnedFd, output: OwnedFd, input: OwnedFd) -> Self {
        Self { descriptors, output, input, number: AtomicU8::new(0) }
    }

    /// Sends `parts` as one message with `descriptors`. Short of memory, it waits.
    ///
    /// # Errors
    /// EPIPE when the other end is gone; E2BIG; those of sendmsg(2), as ETOOMANYREFS when too many descriptors are in
    /// flight: then nothing was sent.
    pub fn send(&self, parts: &[&[u8]; 2], descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        self.send_coming(parts, descriptors, Comings::default())
    }

    /// The same for a request whose descriptors come so.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn send_coming(&self, parts: &[&[u8]; 2], descriptors: &[BorrowedFd<'_>], comings: Comings) -> Result<()> {
        let envelope = self.envelope(parts, descriptors, comings)?;
        self.write([&envelope, parts[0], parts[1]])
    }

    /// Sends `parts` with descriptors that are closed before the other end is woken: then there is nothing left to do
    /// for this one, which would keep the other from going on. Not for files that were opened to write: some file systems
    /// write all that is new in them when they are closed.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn give(&self, parts: &[&[u8]; 2], descriptors: Descriptors) -> Result<()> {
        let given: SmallVec<[_; 2]> = descriptors.iter().map(AsFd::as_fd).collect();
        let envelope = self.envelope(parts, &given, Comings::default())?;
        drop(given);
        drop(descriptors);
        self.write([&envelope, parts[0], parts[1]])
    }

    /// What stands before a message. Its descriptors are sent.
    fn envelope(&self, parts: &[&[u8]; 2], descriptors: &[BorrowedFd<'_>], comings: Comings) -> Result<[u8; ENVELOPE]> {
        let length = parts.iter().map(|part| part.len()).fold(0, usize::saturating_add);
        let [l0, l1, l2, l3] = u32::try_from(length).map_err(|_| Errno::E2BIG)?.to_le_bytes();
        let sent = u8::try_from(descriptors.len()).map_err(|_| Errno::EINVAL)?;
        let [first, second] = comings.map(u8::from);
        let mut number = 0;
        if sent > 0 {
            number = self.number.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
            send(&self.descriptors, &[&[number], &[]], descriptors)?;
        }
        Ok([l0, l1, l2, l3, sent, first, second, number])
    }

    /// All or nothing: descriptors and a part of a message that is never ended would be taken for the next one's.
    fn write(&self, parts: [&[u8]; 3]) -> Result<()> {
        let mut parts = parts.map(IoSlice::new);
        let mut left: &mut [IoSlice<'_>] = &mut parts;
        while !left.is_empty() {
            match writev(&self.output, left) {
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOMEM) => std::thread::sleep(SHORT_OF_MEMORY),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Whether the other end has taken all descriptors that were sent.
    ///
    /// # Errors
    /// None while this end is open.
    pub fn is_taken(&self) -> Result<bool> {
        let mut bytes = 0;
        // SAFETY: the kernel writes one int to where the pointer leads.
        unsafe { outq(self.descriptors.as_raw_fd(), &raw mut bytes) }?;
        Ok(bytes == 0)
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// Those of read(2) and recvmsg(2).
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Received> {
        let mut envelope = [0; ENVELOPE];
        let mut parts = [IoSliceMut::new(&mut envelope), IoSliceMut::new(buffer)];
        let got = retry_on_intr(|| readv(&self.input, &mut parts))?;
        if got == 0 {
            return Ok(Received::default());
        }
        let faulty = |why| Received { len: got, fault: Some(Malformed(why)), ..Received::default() };
        let Some(mut len) = got.checked_sub(ENVELOPE) else { return Ok(faulty("shorter than an envelope")) };
        let [l0, l1, l2, l3, sent, first, second, number] = envelope;
        let length = usize::try_from(u32::from_le_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if length == 0 {
            return Ok(faulty("empty"));
        }
        if length > buffer.len() {
            return Ok(faulty("longer than a frame"));
        }
        while len < length {
            let more = buffer.get_mut(len..).unwrap_or_default();
            match retry_on_intr(|| read(&self.input, &mut *more))? {
                0 => return Ok(Received::default()),
                more => len = len.saturating_add(more),
            }
        }
        if len != length {
            return Ok(faulty("not as its envelope says"));
        }
        let mut got = Received { len, ..Received::default() };
        match (first.try_into(), second.try_into()) {
            (Ok(first), Ok(second)) => got.comings = [first, second],
            (Err(fault), _) | (_, Err(fault)) => got.fault = Some(fault),
        }
        if sent > 0 {
            let taken = self.take_descriptors(number)?;
            got.lost = taken.lost;
            got.descriptors = taken.descriptors;
            let fewer = got.lost && got.descriptors.len() < usize::from(sent);
            if taken.len != 1 || got.descriptors.len() != usize::from(sent) && !fewer {
                got.fault = Some(Malformed("not with the descriptors that its envelope says"));
            }
        } else if number != 0 {
            got.fault = Some(Malformed("not as its envelope says"));
        }
        Ok(got)
    }

    /// Those that were sent before a message. They are there, or never come. `len` is 1 if they have its number.
    fn take_descriptors(&self, number: u8) -> Result<Taken> {
        let mut its = [0];
        match receive_with(&self.descriptors, &mut its, RecvFlags::DONTWAIT) {
            Err(Errno::EAGAIN) => Ok(Taken { len: 0, lost: false, descriptors: Descriptors::new() }),
            got => got.map(|got| if its == [number] { got } else { Taken { len: 0, ..got } }),
        }
    }

    /// A message, if one is there.
    ///
    /// # Errors
    /// Those of poll(2) and of [`Self::receive`].
    pub fn look(&self, buffer: &mut [u8]) -> Result<Option<Received>> {
        let mut input = [PollFd::new(&self.input, PollFlags::IN)];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match retry_on_intr(|| poll(&mut input, Some(&at_once)))? {
            0 => Ok(None),
            _ => self.receive(buffer).map(Some),
        }
    }
}

/// What a socket gave.
pub(crate) struct Taken {
    /// Bytes.
    pub(crate) len: usize,
    /// Some of its descriptors are lost.
    pub(crate) lost: bool,
    /// All others.
    pub(crate) descriptors: Descriptors,
}

/// Sends `parts` with `descriptors` at once; tells how many bytes went.
pub(crate) fn send(socket: impl AsFd, parts: &[&[u8]; 2], descriptors: &[BorrowedFd<'_>]) -> Result<usize> {
    let parts = parts.map(IoSlice::new);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SENT_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::EINVAL);
    }
    Ok(retry_on_intr(|| sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL))?)
}

/// Waits for what was sent at once.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Taken> {
    receive_with(socket, buffer, RecvFlags::empty())
}

fn receive_with(socket: impl AsFd, buffer: &mut [u8], flags: RecvFlags) -> Result<Taken> {
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut part = [IoSliceMut::new(buffer)];
    let got = retry_on_intr(|| recvmsg(&socket, &mut part, &mut control, flags))?;
    let mut descriptors = Descriptors::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = item {
            descriptors.extend(rights);
        }
    }
    Ok(Taken { len: got.bytes, lost: got.flags.contains(ReturnFlags::CTRUNC), descriptors })
}

/// Hands a descriptor over on the start-up socket.
///
/// # Errors
/// Those of sendmsg(2).
pub fn pass(socket: &UnixStream, descriptor: BorrowedFd<'_>) -> Result<()> {
    Ok(passfd::FdPassingExt::send_fd(socket, descriptor.as_raw_fd())?)
}

/// Takes a descriptor that [`pass`] sent; close-on-exec.
///
/// # Errors
/// Those of recvmsg(2); EIO when there was none.
pub fn take(socket: &UnixStream) -> Result<OwnedFd> {
    let raw = passfd::FdPassingExt::recv_fd(socket)?;
    // SAFETY: the number comes from this very call, which received it into our table; nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// A descriptor number given on the command line, such as `--sock-fd 3`. Only for start-up, before any other
/// descriptor is opened; made close-on-exec.
///
/// # Errors
/// EBADF if it is not open, EINVAL for 0, 1 and 2.
pub fn inherited(number: RawFd) -> Result<OwnedFd> {
    if number <= libc::STDERR_FILENO {
        return Err(Errno::EINVAL);
    }
    // SAFETY: nothing of this process owns a descriptor that its parent passed by number; fcntl below proves it open
    // before the value is used, and on failure the number is given up again without being closed.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    match rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC) {
        Ok(()) => Ok(descriptor),
        Err(errno) => {
            let _ = std::os::fd::IntoRawFd::into_raw_fd(descriptor);
            Err(errno.into())
        }
    }
}

/// Closes what the caller of this program has left open above the standard error output, but for the numbers that its
/// command line names. Only for start-up, as [`inherited`].
///
/// # Errors
/// If /proc/self/fd cannot be read.
pub fn close_inherited(named: &[Option<RawFd>]) -> Result<()> {
    let entries = std::fs::read_dir("/proc/self/fd")?;
    let open: Vec<RawFd> = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    // 0, 1 and 2 are refused; that of the directory itself is closed by now.
    open.into_iter().filter(|number| !named.contains(&Some(*number))).for_each(|number| drop(inherited(number)));
    Ok(())
}

#[cfg(test)]
mod tests;
