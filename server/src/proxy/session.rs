//! A connection: a request, its answer, the next request.
//!
//! QEMU waits for each answer. Of requests that come together all the same, the answers are sent together.
//!
//! What is taken from a stream wakes who waits at its other end, though there is nothing for him yet. A request
//! therefore stays in the socket until it is answered.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use postern_ipc::{Errno, Result};
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

use super::op::{Answer, dispatch};
use super::wire::{self, HEADER, PAYLOAD_MAX};
use crate::fs::Fs;
use crate::stats;

/// Bytes of answers that wait for company at most.
const WAITING_MAX: usize = 64 * 1024;

/// Serves QEMU until it goes. Every request is answered before the connection ends, whatever becomes of the helper.
///
/// # Errors
/// Says why the connection was ended from here.
pub fn serve<F: Fs>(fs: &F, qemu: UnixStream) -> std::result::Result<(), &'static str> {
    let (mut requests, mut answers) = (Requests::new(), Vec::new());
    loop {
        let (kind, payload) = match requests.next() {
            Ok(Some(request)) => request,
            Ok(None) => {
                if send(&qemu, &mut answers).is_err() || !requests.receive(&qemu)? {
                    return Ok(());
                }
                continue;
            }
            Err(why) => {
                // Whether QEMU is there to hear it makes no difference.
                let _ = send(&qemu, &mut answers);
                return Err(why);
            }
        };
        let watch = stats::watch();
        let (name, answer) = dispatch(fs, kind, payload);
        watch.end(u8::try_from(kind).unwrap_or(0), name, answer.failed(), format_args!(""));
        let sent = match answer {
            Answer::Message(answer) => {
                answers.extend(wire::message(answer));
                Ok(())
            }
            Answer::Open(Err(errno)) => {
                answers.extend(wire::opened(Some(errno)));
                Ok(())
            }
            Answer::Open(Ok(file)) => give(&qemu, &mut answers, &file),
        };
        if sent.is_err() || (answers.len() > WAITING_MAX && send(&qemu, &mut answers).is_err()) {
            return Ok(());
        }
    }
}

/// What has come and was not taken yet.
struct Requests {
    bytes: Vec<u8>,
    /// Where what was not taken begins, and where it ends.
    from: usize,
    to: usize,
    /// From here on it is in the socket still.
    seen: usize,
}

impl Requests {
    fn new() -> Self {
        Self { bytes: vec![0; HEADER.saturating_add(PAYLOAD_MAX)], from: 0, to: 0, seen: 0 }
    }

    /// The next one, if all of it has come: its type and payload.
    fn next(&mut self) -> std::result::Result<Option<(u32, &[u8])>, &'static str> {
        let come = self.bytes.get(self.from..self.to).unwrap_or_default();
        let Some((header, rest)) = come.split_first_chunk() else { return Ok(None) };
        let [k0, k1, k2, k3, s0, s1, s2, s3]: [u8; HEADER] = *header;
        let size = usize::try_from(u32::from_ne_bytes([s0, s1, s2, s3])).unwrap_or(usize::MAX);
        if size > PAYLOAD_MAX {
            return Err("a request is longer than 64 KiB");
        }
        let Some(payload) = rest.get(..size) else { return Ok(None) };
        self.from = self.from.saturating_add(HEADER).saturating_add(size);
        Ok(Some((u32::from_ne_bytes([k0, k1, k2, k3]), payload)))
    }

    /// Waits for more; `false` if QEMU is gone. An end between two messages is its right, and nobody is left to be told
    /// of another.
    fn receive(&mut self, qemu: &UnixStream) -> std::result::Result<bool, &'static str> {
        while self.seen < self.to {
            match self.take(qemu, self.seen..self.to, RecvFlags::empty()) {
                0 => return Ok(false),
                come => self.seen = self.seen.saturating_add(come),
            }
        }
        self.bytes.copy_within(self.from..self.to, 0);
        self.to = self.to.saturating_sub(self.from);
        (self.from, self.seen) = (0, self.to);
        let come = self.take(qemu, self.to..self.bytes.len(), RecvFlags::PEEK);
        self.to = self.to.saturating_add(come);
        if come == 0 && self.to > 0 { Err("a request is shorter than it says") } else { Ok(come > 0) }
    }

    /// Receives so much at most; nothing if QEMU is gone.
    fn take(&mut self, qemu: &UnixStream, room: Range<usize>, flags: RecvFlags) -> usize {
        let room = self.bytes.get_mut(room).unwrap_or_default();
        rustix::io::retry_on_intr(|| recv(qemu, &mut *room, flags)).map_or(0, |(_, come)| come)
    }
}

/// Sends what waits to be sent.
fn send(qemu: &UnixStream, answers: &mut Vec<u8>) -> Result<()> {
    let mut left = answers.as_slice();
    while !left.is_empty() {
        let sent = send_with(qemu, left, &[])?;
        left = left.get(sent..).unwrap_or_default();
    }
    answers.clear();
    Ok(())
}

/// Sends a descriptor with the answer that it belongs to.
fn give(qemu: &UnixStream, answers: &mut Vec<u8>, file: &OwnedFd) -> Result<()> {
    send(qemu, answers)?;
    match send_with(qemu, &wire::opened(None), &[file.as_fd()]) {
        // Too many descriptors are in flight: QEMU lives on without this one.
        Err(Errno::ETOOMANYREFS) => answers.extend(wire::opened(Some(Errno::ENFILE))),
        sent => drop(sent?),
    }
    Ok(())
}

fn send_with(qemu: &UnixStream, bytes: &[u8], files: &[BorrowedFd<'_>]) -> Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() && !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(Errno::EINVAL);
    }
    let parts = [IoSlice::new(bytes)];
    Ok(rustix::io::retry_on_intr(|| sendmsg(qemu, &parts, &mut control, SendFlags::NOSIGNAL))?)
}
