//! From the server to the helper and back: one frame each way, with a descriptor where one is needed.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

/// Bytes of a frame: a header and an operation's fields, or attributes.
const FRAME: usize = 128;

/// The helper: answers until nobody is there. What opens says so by its first byte.
pub fn help() {
    let stdin = std::io::stdin();
    let opened = std::fs::File::open("/").expect("/");
    let mut frame = [0; FRAME];
    while receive(stdin.as_fd(), &mut frame).is_some() {
        let given = [opened.as_fd()];
        send(stdin.as_fd(), &frame, &given[..usize::from(frame[0])]);
    }
}

/// The server's end.
pub struct Hop {
    helper: Child,
    channel: OwnedFd,
    node: OwnedFd,
}

impl Hop {
    /// Starts a helper.
    pub fn start() -> Self {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("sockets");
        let helper = super::become_part(super::ROLES[2], theirs);
        Self { helper, channel: ours, node: std::fs::File::open("/").expect("/").into() }
    }

    /// There with so many descriptors, and back with one if something is opened.
    pub fn call(&self, sent: usize, opens: bool) -> Option<OwnedFd> {
        let mut frame = [0; FRAME];
        frame[0] = opens.into();
        send(self.channel.as_fd(), &frame, &[self.node.as_fd(); 2][..sent]);
        receive(self.channel.as_fd(), &mut frame).expect("a helper").pop()
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        let _ = self.helper.kill();
        let _ = self.helper.wait();
    }
}

fn send(channel: BorrowedFd<'_>, frame: &[u8], descriptors: &[BorrowedFd<'_>]) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
    }
    sendmsg(channel, &[IoSlice::new(frame)], &mut control, SendFlags::empty()).expect("sent");
}

/// The descriptors that came along; `None` when nobody is there any more.
fn receive(channel: BorrowedFd<'_>, frame: &mut [u8]) -> Option<Vec<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = recvmsg(channel, &mut [IoSliceMut::new(frame)], &mut control, RecvFlags::CMSG_CLOEXEC).expect("received");
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    (got.bytes > 0).then_some(descriptors)
}
