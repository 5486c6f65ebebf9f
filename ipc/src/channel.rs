//! A channel: one end of a SEQPACKET socketpair that carries frames and descriptors.
//!
//! Every descriptor of a message is owned before anything else about it is judged. The control buffer holds as many
//! as one message can carry (SCM_MAX_FD of the kernel), so none is ever cut off and left behind.
#![allow(unsafe_code)]

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::errno::{Errno, Result};
use crate::few::{Descriptors, EACH_MAX};

/// Most descriptors of one message. The kernel's SCM_MAX_FD.
const SCM_MAX_FD: usize = 253;
/// Most descriptors we send with one message; no row of the table has more.
const SENT_MAX: usize = EACH_MAX;

nix::ioctl_read_bad!(
    /// Bytes sent and not taken yet, as the kernel counts them. linux/sockios.h: SIOCOUTQ
    outq,
    libc::TIOCOUTQ,
    libc::c_int
);

/// One end.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// A message as it came.
#[derive(Debug)]
pub struct Received {
    /// Bytes written to the buffer; 0 means the other end is gone.
    pub len: usize,
    /// It was longer than the buffer.
    pub truncated: bool,
    /// Some of its descriptors are lost: this process may hold no more (RLIMIT_NOFILE).
    pub lost: bool,
    /// All its descriptors, close-on-exec.
    pub descriptors: Descriptors,
}

impl Channel {
    /// Two connected ends, close-on-exec.
    ///
    /// # Errors
    /// Those of socketpair(2).
    pub fn pair() -> Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(a), Self(b)))
    }

    /// Sends `parts` as one message with `descriptors`.
    ///
    /// # Errors
    /// Those of sendmsg(2): EPIPE when the other end is gone, ETOOMANYREFS when too many descriptors are in flight.
    pub fn send(&self, parts: &[&[u8]; 2], descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        send(&self.0, parts, descriptors).map(drop)
    }

    /// Whether the other end has taken all that was sent.
    ///
    /// # Errors
    /// None while this end is open.
    pub fn is_taken(&self) -> Result<bool> {
        let mut bytes = 0;
        // SAFETY: the kernel writes one int to where the pointer leads.
        unsafe { outq(self.0.as_raw_fd(), &raw mut bytes) }?;
        Ok(bytes == 0)
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// Those of recvmsg(2).
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Received> {
        receive(&self.0, buffer)
    }

    /// A message, if one is there.
    ///
    /// # Errors
    /// Those of recvmsg(2) but EAGAIN.
    pub fn look(&self, buffer: &mut [u8]) -> Result<Option<Received>> {
        match receive_with(&self.0, buffer, RecvFlags::DONTWAIT) {
            Err(Errno::EAGAIN) => Ok(None),
            other => other.map(Some),
        }
    }
}

/// Sends `parts` with `descriptors` at once; tells how many bytes went.
pub(crate) fn send(socket: impl AsFd, parts: &[&[u8]; 2], descriptors: &[BorrowedFd<'_>]) -> Result<usize> {
    let parts = parts.map(IoSlice::new);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SENT_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::EINVAL);
    }
    Ok(rustix::io::retry_on_intr(|| sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL))?)
}

/// Waits for what was sent at once.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received> {
    receive_with(socket, buffer, RecvFlags::empty())
}

fn receive_with(socket: impl AsFd, buffer: &mut [u8], flags: RecvFlags) -> Result<Received> {
    let flags = flags | RecvFlags::CMSG_CLOEXEC;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(SCM_MAX_FD))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut part = [IoSliceMut::new(buffer)];
    let got = rustix::io::retry_on_intr(|| recvmsg(&socket, &mut part, &mut control, flags))?;
    let mut descriptors = Descriptors::new();
    for item in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = item {
            descriptors.extend(rights);
        }
    }
    let (truncated, lost) = (got.flags.contains(ReturnFlags::TRUNC), got.flags.contains(ReturnFlags::CTRUNC));
    Ok(Received { len: got.bytes, truncated, lost, descriptors })
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Channel {
    fn from(end: OwnedFd) -> Self {
        Self(end)
    }
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
mod tests {
    use super::*;

    #[test]
    fn a_message_keeps_its_borders_and_its_descriptors() {
        let (a, b) = Channel::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        a.send(&[b"one", b"two"], &[null.as_fd(), null.as_fd()]).unwrap();
        a.send(&[b"x", b""], &[]).unwrap();
        let mut buffer = [0; 64];
        let first = b.receive(&mut buffer).unwrap();
        assert_eq!((first.len, first.descriptors.len()), (6, 2));
        assert_eq!(&buffer[..6], b"onetwo");
        assert_eq!(b.receive(&mut buffer).unwrap().len, 1);
    }

    #[test]
    fn who_looks_finds_what_is_there_and_does_not_wait() {
        let (a, b) = Channel::pair().unwrap();
        assert!(b.look(&mut [0; 8]).unwrap().is_none());
        a.send(&[b"one", b""], &[]).unwrap();
        assert_eq!(b.look(&mut [0; 8]).unwrap().map(|got| got.len), Some(3));
        drop(a);
        assert_eq!(b.look(&mut [0; 8]).unwrap().map(|got| got.len), Some(0), "the other end is gone");
    }

    // ATTACKS B11: room for fewer descriptors than were sent leaves some installed without an owner.
    #[test]
    fn as_many_descriptors_as_a_message_can_carry_are_all_owned() {
        let (a, b) = Channel::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let raw = [null.as_raw_fd(); SCM_MAX_FD];
        let rights = [nix::sys::socket::ControlMessage::ScmRights(&raw)];
        let flags = nix::sys::socket::MsgFlags::empty();
        nix::sys::socket::sendmsg::<()>(a.0.as_raw_fd(), &[IoSlice::new(b"x")], &rights, flags, None).unwrap();
        let got = b.receive(&mut [0; 8]).unwrap();
        assert_eq!((got.descriptors.len(), got.truncated), (SCM_MAX_FD, false));
    }

    #[test]
    fn a_message_longer_than_the_buffer_says_so() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&[&[1; 100], b""], &[]).unwrap();
        assert!(b.receive(&mut [0; 8]).unwrap().truncated);
    }

    #[test]
    fn what_the_other_end_has_not_received_is_not_taken() {
        let (a, b) = Channel::pair().unwrap();
        assert_eq!(a.is_taken(), Ok(true));
        a.send(&[b"x", b""], &[]).unwrap();
        assert_eq!(a.is_taken(), Ok(false));
        b.receive(&mut [0; 8]).unwrap();
        assert_eq!(a.is_taken(), Ok(true));
        a.send(&[b"x", b""], &[]).unwrap();
        drop(b);
        assert_eq!(a.is_taken(), Ok(true));
    }

    #[test]
    fn a_closed_end_reads_as_nothing_and_refuses_writing() {
        let (a, b) = Channel::pair().unwrap();
        drop(a);
        assert_eq!(b.receive(&mut [0; 8]).unwrap().len, 0);
        assert_eq!(b.send(&[b"x", b""], &[]).err(), Some(Errno::EPIPE));
    }
}
