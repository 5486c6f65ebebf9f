//! A connection: a request, its answer, the next request.

use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use postern_ipc::{Errno, Result};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::op::{Answer, dispatch};
use super::wire::{self, HEADER, PAYLOAD_MAX};
use crate::fs::Fs;

/// Serves QEMU until it goes. Every request is answered before the connection ends, whatever becomes of the helper.
///
/// # Errors
/// Says why the connection was ended from here.
pub fn serve<F: Fs>(fs: &F, mut qemu: UnixStream) -> std::result::Result<(), &'static str> {
    let mut payload = vec![0; PAYLOAD_MAX];
    let mut header = [0; HEADER];
    // An end between two messages is QEMU's; nobody is left to be told of another.
    while qemu.read_exact(&mut header).is_ok() {
        let [k0, k1, k2, k3, s0, s1, s2, s3] = header;
        let size = usize::try_from(u32::from_ne_bytes([s0, s1, s2, s3])).unwrap_or(usize::MAX);
        let Some(payload) = payload.get_mut(..size) else { return Err("a request is longer than 64 KiB") };
        if qemu.read_exact(payload).is_err() {
            return Err("a request is shorter than it says");
        }
        let began = std::time::Instant::now();
        let (name, answer) = dispatch(fs, u32::from_ne_bytes([k0, k1, k2, k3]), payload);
        log::debug!("{name} -> {} {}us", outcome(&answer), began.elapsed().as_micros());
        if send(&qemu, answer).is_err() {
            break;
        }
    }
    Ok(())
}

fn outcome(answer: &Answer) -> String {
    match answer {
        Answer::Open(Err(errno)) | Answer::Message(Err(errno)) => format!("{errno:?}"),
        _ => "ok".into(),
    }
}

fn send(qemu: &UnixStream, answer: Answer) -> Result<()> {
    match answer {
        Answer::Message(answer) => send_all(qemu, &wire::message(answer)),
        Answer::Open(Err(errno)) => send_all(qemu, &wire::opened(Some(errno))),
        Answer::Open(Ok(file)) => match send_with(qemu, &wire::opened(None), &[file.as_fd()]) {
            // Too many descriptors are in flight: QEMU lives on without this one.
            Err(Errno::ETOOMANYREFS) => send_all(qemu, &wire::opened(Some(Errno::ENFILE))),
            sent => sent.map(drop),
        },
    }
}

fn send_all(qemu: &UnixStream, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        let sent = send_with(qemu, bytes, &[])?;
        bytes = bytes.get(sent..).unwrap_or_default();
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
