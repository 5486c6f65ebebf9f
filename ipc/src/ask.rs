//! What a server asks of a helper that it has not started: which directory to share, and how. It comes before the
//! handshake, in one message with the directory's descriptor; a policy of the host's decides. postern-policy(5)

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use serde::{Deserialize, Serialize};

use crate::attr::Mode;
use crate::channel::{receive, send};
use crate::errno::{Errno, Result};
use crate::few::Few as _;
use crate::frame::Malformed;
use crate::hello::{LENGTH, Unheard, message, parse};
use crate::model::Model;

/// Most bytes of a map of attributes' names.
pub const MAP_MAX: usize = 1024;

/// A map of attributes' names as people write it, which is not known to be one yet: up to 1024 bytes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MapText(String);

impl TryFrom<String> for MapText {
    type Error = &'static str;

    fn try_from(text: String) -> std::result::Result<Self, Self::Error> {
        if text.len() > MAP_MAX { Err("it has more than 1024 bytes") } else { Ok(Self(text)) }
    }
}

impl From<MapText> for String {
    fn from(MapText(text): MapText) -> Self {
        text
    }
}

/// Asks for a directory, whose descriptor comes along. It has no id and no path: the one is known of whoever asks, the
/// other of the descriptor.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Ask {
    /// [`crate::hello::VERSION`] of the server.
    pub version: u32,
    /// Nothing of it is to be changed.
    pub readonly: bool,
    /// Where the guest's ownership and modes are to be kept.
    pub model: Model,
    /// Permission bits of the host's files, where the model has any.
    pub fmode: Option<Mode>,
    /// Those of its directories.
    pub dmode: Option<Mode>,
    /// What the guest's extended attributes are called on the host's files.
    pub xattrmap: Option<MapText>,
}

/// Asks for `dir`.
///
/// # Errors
/// Those of sendmsg(2).
pub fn send_ask(socket: &UnixStream, ask: &Ask, dir: BorrowedFd<'_>) -> Result<()> {
    let sent = send(socket, &[&message(ask)?, b""], &[dir])?;
    if sent == LENGTH { Ok(()) } else { Err(Errno::EPROTO) }
}

/// Waits to be asked, as long as the socket's timeout says. Whatever else comes along is closed.
///
/// # Errors
/// If it is no such message with one descriptor, ECONNRESET if the other end is gone, EAGAIN if the time is up, those
/// of recvmsg(2).
pub fn receive_ask(socket: &UnixStream) -> std::result::Result<(Ask, OwnedFd), Unheard> {
    let mut bytes = [0; LENGTH];
    let got = receive(socket, &mut bytes)?;
    let descriptor = <[OwnedFd; 1]>::all_of(got.descriptors);
    match (got.len, descriptor) {
        (0, None) => Err(Errno::ECONNRESET.into()),
        (LENGTH, Some([descriptor])) if !got.lost => Ok((parse(&bytes)?, descriptor)),
        (LENGTH, _) => Err(Unheard::Malformed(Malformed("not one descriptor came along with the question"))),
        _ => Err(Errno::EPROTO.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hello::{Hello, VERSION, receive_hello, send_hello};
    use std::os::fd::AsFd as _;

    fn question(map: usize) -> Ask {
        let (fmode, xattrmap) = (Some(Mode::new(0o640)), Some(MapText("x".repeat(map))));
        Ask { version: VERSION, readonly: true, model: Model::MappedXattr, fmode, dmode: None, xattrmap }
    }

    fn dir() -> std::fs::File {
        std::fs::File::open("/").unwrap()
    }

    #[test]
    fn what_is_asked_comes_with_its_descriptor_and_before_the_handshake() {
        let (server, warden) = UnixStream::pair().unwrap();
        let longest = question(MAP_MAX);
        send_ask(&server, &longest, dir().as_fd()).unwrap();
        send_hello(&server, &Hello { version: VERSION, channels: 1, wants_map: false }).unwrap();
        let (ask, fd) = receive_ask(&warden).unwrap();
        assert_eq!(ask, longest);
        assert!(std::fs::File::from(fd).metadata().unwrap().is_dir());
        assert!(receive_hello(&warden).is_ok());
    }

    #[test]
    fn one_descriptor_comes_along_and_whole_messages_only() {
        let bytes = message(&question(5)).unwrap();
        let dir = dir();
        let fd = dir.as_fd();
        let wrong = Unheard::Malformed(Malformed("not one descriptor came along with the question"));
        for (bytes, fds, why) in [
            (&bytes[..], &[][..], wrong),
            (&bytes[..], &[fd, fd][..], wrong),
            (&bytes[..100], &[fd][..], Errno::EPROTO.into()),
        ] {
            let (server, warden) = UnixStream::pair().unwrap();
            send(&server, &[bytes, b""], fds).unwrap();
            assert_eq!(receive_ask(&warden).err(), Some(why));
        }
    }

    #[test]
    fn a_map_is_no_longer_than_one_can_be() {
        let (server, warden) = UnixStream::pair().unwrap();
        send_ask(&server, &question(MAP_MAX + 1), dir().as_fd()).unwrap();
        assert_eq!(receive_ask(&warden).err(), Some(Errno::EPROTO.into()));
        assert!(MapText::try_from("x".repeat(MAP_MAX + 1)).is_err());
    }

    #[test]
    fn silence_and_nonsense_are_no_question() {
        let (server, warden) = UnixStream::pair().unwrap();
        warden.set_read_timeout(Some(std::time::Duration::from_millis(1))).unwrap();
        assert_eq!(receive_ask(&warden).err(), Some(Errno::EAGAIN.into()));
        send(&server, &[&[0xff; LENGTH], b""], &[dir().as_fd()]).unwrap();
        assert_eq!(receive_ask(&warden).err(), Some(Errno::EPROTO.into()));
        drop(server);
        assert_eq!(receive_ask(&warden).err(), Some(Errno::ECONNRESET.into()));
    }
}
