//! Messages of vhost-user as they are on the socket.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

/// Bytes before a message's payload: number, flags, length.
const HEADER: usize = 12;
/// Most descriptors that come with a message: one for each region of memory.
const FILES: usize = 8;
/// Flags of a reply: version 1, bit 2.
const REPLY: u32 = 1 | 1 << 2;

/// A request or a reply.
pub struct Message {
    /// Of the request; a reply has the same.
    pub number: u32,
    /// Version and kind.
    pub flags: u32,
    /// What it says.
    pub payload: Vec<u8>,
    /// What came along.
    pub files: Vec<File>,
}

impl Message {
    /// The answer to a request.
    pub fn reply(number: u32, payload: Vec<u8>) -> Self {
        Self { number, flags: REPLY, payload, files: Vec::new() }
    }

    /// The next one; `None` when nobody is there any more.
    pub fn receive(stream: &mut UnixStream) -> Option<Self> {
        let mut header = [0; HEADER];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut header)];
        let got = recvmsg(&*stream, parts, &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
        let mut files = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                files.extend(rights.map(File::from));
            }
        }
        if got.bytes < HEADER {
            return None;
        }
        let [number, flags, len] = [0, 4, 8].map(|at| word(&header, at));
        let mut payload = vec![0; len as usize];
        stream.read_exact(&mut payload).ok()?;
        Some(Self { number, flags, payload, files })
    }

    /// Sends it.
    pub fn send(&self, stream: &UnixStream) {
        let header = [self.number, self.flags, self.payload.len() as u32].map(u32::to_ne_bytes).concat();
        let files: Vec<_> = self.files.iter().map(File::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(&files)));
        }
        let parts = [IoSlice::new(&header), IoSlice::new(&self.payload)];
        sendmsg(stream, &parts, &mut control, SendFlags::empty()).expect("sent");
    }

    /// The number at `at`.
    pub fn u32(&self, at: usize) -> u32 {
        word(&self.payload, at)
    }

    /// Likewise.
    pub fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.payload[at..at + 8].try_into().expect("eight bytes"))
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}
