//! From the server to the helper and back: one message each way, with a descriptor where one is needed.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Child;

use postern_ipc::channel::{Channel, pass};

/// Bytes of a message: a header and an operation's fields, or attributes.
const MESSAGE: usize = 128;

/// The helper: answers until nobody is there. What opens says so by its first byte.
pub fn help() {
    let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("dup");
    let channel = Channel::take(&socket.into()).expect("a channel");
    let opened = File::open("/").expect("/");
    let mut message = [0; MESSAGE];
    while channel.receive(&mut message).expect("a message").len > 0 {
        let given = [opened.as_fd()];
        channel.send(&[&message, b""], &given[..usize::from(message[0])]).expect("a server");
    }
}

/// The server's end.
pub struct Hop {
    helper: Child,
    channel: Channel,
    node: OwnedFd,
}

impl Hop {
    /// Starts a helper.
    pub fn start() -> Self {
        let (socket, theirs) = UnixStream::pair().expect("sockets");
        let helper = super::become_part(super::ROLES[2], theirs.into());
        let (ours, its) = Channel::pair().expect("a channel");
        its.parts().into_iter().for_each(|part| pass(&socket, part).expect("a helper"));
        Self { helper, channel: ours, node: File::open("/").expect("/").into() }
    }

    /// There, with a descriptor if `sends`, and back, with one if something is opened.
    pub fn call(&self, sends: bool, opens: bool) -> Option<OwnedFd> {
        let mut message = [0; MESSAGE];
        message[0] = opens.into();
        let sent = [self.node.as_fd()];
        self.channel.send(&[&message, b""], &sent[..usize::from(sends)]).expect("a helper");
        self.channel.receive(&mut message).expect("a helper").descriptors.pop()
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        let _ = self.helper.kill();
        let _ = self.helper.wait();
    }
}
