//! The handshake on `sock_fd`, and the news the warden sends there later.
//!
//! `sock_fd` is a Unix STREAM or SEQPACKET socket, as whoever started the two chose. Every message has the same
//! length, so both kinds read alike; descriptors follow a message one by one, by passfd: of a channel its parts, as
//! [`Channel::take`](crate::channel::Channel::take) takes them.
//!
//! ```text
//! server → warden   Ask              only if it did not start the warden; see `ask`
//! server → warden   Hello            the sender's process id comes with it, from the kernel
//! warden → server   Mapped           only if the server asked for a map of its user namespace
//! warden → server   Welcome          then the share's root (O_PATH) and the channels asked for
//! warden → server   Renewed          the helper was replaced: new channels, as many as before
//! warden → server   Refused          it will not go on; says why, then closes
//! ```

use std::fmt;
use std::io::{IoSliceMut, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixCredentials, recvmsg, setsockopt, sockopt::PassCred};
use serde::{Deserialize, Serialize};

use crate::errno::{Errno, Result};
use crate::frame::{Malformed, body, encode, split};
use crate::id::{GuestGid, GuestUid};
use crate::model::{KnownTo, Model};
use crate::span::Shown;

/// Of the frames and the handshake together; both sides must have the same.
pub const VERSION: u32 = 9;
/// Bytes of every message of the handshake.
pub const LENGTH: usize = 4096;
/// Most bytes of a reason.
const REASON_MAX: usize = 400;
/// Most channels one server may ask for.
pub const CHANNELS_MAX: u16 = 64;

/// Opens the conversation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`] of the server.
    pub version: u32,
    /// How many channels, 1 to [`CHANNELS_MAX`].
    pub channels: u16,
    /// The server has unshared its user namespace and waits for the share's map to be written to it.
    pub wants_map: bool,
}

/// What the warden says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum News {
    /// The server's user namespace has its map.
    Mapped {
        /// The server's own uid inside: mapped, but the owner of nothing in the share.
        uid: GuestUid,
        /// Its gid inside.
        gid: GuestGid,
    },
    /// The share is open.
    Welcome(Share),
    /// The helper was replaced.
    Renewed,
    /// It is over.
    Refused(String),
}

/// Who root of the guest is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Root {
    /// The host's.
    Host,
    /// Root of the share's ids only.
    Share,
    /// Somebody else, or nobody: his id is translated.
    Translated,
}

/// Facts of the share.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Share {
    /// [`VERSION`] of the helper.
    pub version: u32,
    /// Nothing of it may be changed.
    pub readonly: bool,
    /// Who root of the guest is.
    pub root: Root,
    /// Where the guest's ownership and modes are kept.
    pub model: Model,
    /// Who knows its ACLs, `system.posix_acl_*`.
    pub acls: KnownTo,
    /// Who knows its file capabilities, `security.capability`.
    pub capabilities: KnownTo,
    /// How its ids are shown to the guest.
    pub shown: Shown,
}

/// Sends what opens the conversation. The kernel adds this process's credentials: in a user namespace without a map it
/// could not name them itself.
///
/// # Errors
/// Those of setsockopt(2) and write(2).
pub fn send_hello(mut socket: &UnixStream, hello: &Hello) -> Result<()> {
    setsockopt(socket, PassCred, &true)?;
    socket.write_all(&message(hello)?)?;
    Ok(setsockopt(socket, PassCred, &false)?)
}

/// Why what opens a conversation is not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unheard {
    /// It did not come.
    Errno(Errno),
    /// It is none.
    Malformed(Malformed),
}

impl fmt::Display for Unheard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Errno(errno) => errno.fmt(f),
            Self::Malformed(malformed) => malformed.fmt(f),
        }
    }
}

impl<E: Into<Errno>> From<E> for Unheard {
    fn from(error: E) -> Self {
        Self::Errno(error.into())
    }
}

/// Waits for the server's first message; with it comes the process id of the sender, seen from here. There is no room
/// for descriptors.
///
/// # Errors
/// If it is none, or came with descriptors or without credentials; ECONNRESET if the other end is gone; those of
/// recvmsg(2).
pub fn receive_hello(socket: &UnixStream) -> std::result::Result<(Hello, i32), Unheard> {
    setsockopt(socket, PassCred, &true)?;
    let mut bytes = [0; LENGTH];
    let mut control = nix::cmsg_space!(UnixCredentials);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_WAITALL | MsgFlags::MSG_CMSG_CLOEXEC;
    let got = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    if got.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Err(Unheard::Malformed(Malformed("its greeting came with descriptors, which none has")));
    }
    let pid = got.cmsgs()?.find_map(|item| match item {
        ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
        _ => None,
    });
    let len = got.bytes;
    setsockopt(socket, PassCred, &false)?;
    match (len, pid) {
        (0, _) => Err(Errno::ECONNRESET.into()),
        (LENGTH, Some(pid)) => Ok((parse(&bytes)?, pid)),
        _ => Err(Errno::EPROTO.into()),
    }
}

/// Says something to the server; descriptors that belong to it follow by [`crate::channel::pass`].
///
/// # Errors
/// Those of write(2).
pub fn send_news(mut socket: &UnixStream, news: &News) -> Result<()> {
    let news = match news {
        News::Refused(reason) => &News::Refused(cut(reason)),
        other => other,
    };
    Ok(socket.write_all(&message(news)?)?)
}

/// As many whole characters as fit.
fn cut(reason: &str) -> String {
    let ends = reason.char_indices().map(|(at, char)| at.saturating_add(char.len_utf8()));
    let end = ends.take_while(|&end| end <= REASON_MAX).last().unwrap_or(0);
    reason.get(..end).unwrap_or_default().to_owned()
}

/// Waits for the warden to say something.
///
/// # Errors
/// ECONNRESET if it is gone, EPROTO if it is nonsense, those of read(2).
pub fn receive_news(mut socket: &UnixStream) -> Result<News> {
    let mut bytes = [0; LENGTH];
    match socket.read_exact(&mut bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err(Errno::ECONNRESET),
        other => {
            other?;
            parse(&bytes)
        }
    }
}

pub(crate) fn message(content: &impl Serialize) -> Result<[u8; LENGTH]> {
    let mut frame = Vec::with_capacity(LENGTH);
    encode(&mut frame, 0, 0, None, content, 0).map_err(|_| Errno::E2BIG)?;
    let mut bytes = [0; LENGTH];
    bytes.get_mut(..frame.len()).ok_or(Errno::E2BIG)?.copy_from_slice(&frame);
    Ok(bytes)
}

/// The padding belongs to the message: its length is the header's and the rest is zero.
pub(crate) fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8; LENGTH]) -> Result<T> {
    let end = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last.saturating_add(1));
    (end..=LENGTH)
        .find_map(|len| split(bytes.get(..len)?).ok())
        .and_then(|(_, content, _)| body(content).ok())
        .ok_or(Errno::EPROTO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::{Becomes, SPANS_MAX, Span, Spans};

    /// As many ranges as there may be.
    fn longest() -> Shown {
        let first = |first| Span { first, count: 1, becomes: Becomes::From(first) };
        let table = || Spans::new((0..u32::try_from(SPANS_MAX).unwrap()).map(first).collect()).unwrap();
        Shown { uids: table(), gids: table() }
    }

    const HELLO: Hello = Hello { version: VERSION, channels: 3, wants_map: false };

    #[test]
    fn the_handshake_tells_who_the_server_is() {
        let (server, warden) = UnixStream::pair().unwrap();
        send_hello(&server, &HELLO).unwrap();
        let (hello, pid) = receive_hello(&warden).unwrap();
        assert_eq!((hello, pid), (HELLO, i32::try_from(std::process::id()).unwrap()));
    }

    #[test]
    fn a_greeting_with_descriptors_is_none_and_leaves_none_behind() {
        use std::os::fd::AsFd as _;
        for count in [1, 2] {
            let (server, warden) = UnixStream::pair().unwrap();
            let file = std::fs::File::open("/").unwrap();
            let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
            crate::channel::send(&server, &[&message(&HELLO).unwrap(), b""], &vec![file.as_fd(); count]).unwrap();
            let before = open();
            assert!(matches!(receive_hello(&warden), Err(Unheard::Malformed(_))), "{count}");
            assert_eq!(open(), before);
        }
    }

    #[test]
    fn news_come_back_as_they_went() {
        let (server, warden) = UnixStream::pair().unwrap();
        let (acls, capabilities) = (KnownTo::Nobody, KnownTo::Guest);
        let (root, model) = (Root::Host, Model::MappedFile);
        let share = Share { version: 1, readonly: true, root, model, acls, capabilities, shown: longest() };
        for news in [News::Renewed, News::Refused("x".repeat(50)), News::Welcome(share)] {
            send_news(&warden, &news).unwrap();
            assert_eq!(receive_news(&server), Ok(news));
        }
        drop(warden);
        assert_eq!(receive_news(&server), Err(Errno::ECONNRESET));
    }

    #[test]
    fn a_long_reason_is_cut_between_two_characters() {
        let (server, warden) = UnixStream::pair().unwrap();
        send_news(&warden, &News::Refused("x".repeat(REASON_MAX - 1) + "\u{fc}")).unwrap();
        assert_eq!(receive_news(&server), Ok(News::Refused("x".repeat(REASON_MAX - 1))));
    }

    #[test]
    fn nonsense_is_a_protocol_error() {
        let (mut server, warden) = UnixStream::pair().unwrap();
        server.write_all(&[0xff; LENGTH]).unwrap();
        assert_eq!(receive_news(&warden), Err(Errno::EPROTO));
        server.write_all(&[0; LENGTH]).unwrap();
        assert!(receive_hello(&warden).is_err());
    }
}
