//! A channel: one end of a SEQPACKET socketpair that carries frames and descriptors.
//!
//! Every descriptor of a message is owned before anything else about it is judged. The control buffer holds as many
//! as one message can carry (SCM_MAX_FD of the kernel), so none is ever cut off and left behind.
#![allow(unsafe_code)]

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
};

use crate::errno::{Errno, Result};

/// Most descriptors of one message. The kernel's SCM_MAX_FD.
const SCM_MAX_FD: usize = 253;
/// Room for that many, with the control message's header.
const CONTROL: usize = SCM_MAX_FD * size_of::<RawFd>() + 32;

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
    /// All its descriptors, close-on-exec.
    pub descriptors: Vec<OwnedFd>,
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
        let [head, data] = parts.map(IoSlice::new);
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &[] } else { &rights[..] };
        loop {
            match sendmsg::<()>(self.0.as_raw_fd(), &[head, data], control, MsgFlags::MSG_NOSIGNAL, None) {
                Err(nix::Error::EINTR) => {}
                sent => return Ok(sent.map(drop)?),
            }
        }
    }

    /// Waits for a message.
    ///
    /// # Errors
    /// Those of recvmsg(2).
    pub fn receive(&self, buffer: &mut [u8]) -> Result<Received> {
        let mut control = [0_u8; CONTROL];
        loop {
            match receive_into(self.0.as_raw_fd(), buffer, &mut control) {
                Err(Errno::EINTR) => {}
                received => return received,
            }
        }
    }
}

fn receive_into(socket: RawFd, buffer: &mut [u8], control: &mut [u8]) -> Result<Received> {
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<()>(socket, &mut parts, Some(control), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for item in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(raw) = item {
            descriptors.extend(raw.into_iter().map(own));
        }
    }
    let truncated = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
    Ok(Received { len: message.bytes, truncated, descriptors })
}

/// A descriptor number that the kernel has just installed for us.
fn own(raw: RawFd) -> OwnedFd {
    // SAFETY: the number comes from this very recvmsg, which installed it in our table; nobody else knows it.
    unsafe { OwnedFd::from_raw_fd(raw) }
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
    Ok(own(raw))
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

    // ATTACKS B11: room for fewer descriptors than were sent leaves some installed without an owner.
    #[test]
    fn as_many_descriptors_as_a_message_can_carry_are_all_owned() {
        let (a, b) = Channel::pair().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        a.send(&[b"x", b""], &[null.as_fd(); SCM_MAX_FD]).unwrap();
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
    fn a_closed_end_reads_as_nothing_and_refuses_writing() {
        let (a, b) = Channel::pair().unwrap();
        drop(a);
        assert_eq!(b.receive(&mut [0; 8]).unwrap().len, 0);
        assert_eq!(b.send(&[b"x", b""], &[]).err(), Some(Errno::EPIPE));
    }
}
