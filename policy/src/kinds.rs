//! Which nodes a guest may make besides files, directories and links. A pipe waits for whoever opens it, a socket is
//! somebody's address, a device is the host's: programs of the host that come by may not be made for that.

use std::fmt;
use std::str::FromStr;

use postern_ipc::attr::NodeKind;
use postern_ipc::{Errno, Result};

bitflags::bitflags! {
    /// A set of them; people write its names in small letters.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Kinds: u8 {
        /// Named pipes.
        const FIFO = 1;
        /// Names of Unix sockets.
        const SOCKET = 1 << 1;
        /// Character devices 0:0, of overlayfs: they open nothing.
        const WHITEOUT = 1 << 2;
        /// All other devices.
        const DEVICE = 1 << 3;
    }
}

/// The set without any.
const NONE: &str = "none";

impl Kinds {
    /// Whether such a node may be made.
    ///
    /// # Errors
    /// EPERM, as where a file system does not know its kind. mknod(2)
    pub fn permit(self, node: NodeKind) -> Result<()> {
        let kind = match node {
            NodeKind::File => Self::empty(),
            NodeKind::Fifo => Self::FIFO,
            NodeKind::Socket => Self::SOCKET,
            NodeKind::Char(dev) if (dev.major, dev.minor) == (0, 0) => Self::WHITEOUT,
            NodeKind::Char(_) | NodeKind::Block(_) => Self::DEVICE,
        };
        if self.contains(kind) { Ok(()) } else { Err(Errno::EPERM) }
    }
}

impl FromStr for Kinds {
    type Err = BadKinds;

    fn from_str(text: &str) -> std::result::Result<Self, BadKinds> {
        if text == NONE {
            return Ok(Self::empty());
        }
        text.split(',').map(|name| named(name).ok_or_else(|| BadKinds(name.into()))).collect()
    }
}

fn named(name: &str) -> Option<Kinds> {
    let mut known = Kinds::all().iter_names();
    known.find_map(|(flag, kind)| (flag.to_ascii_lowercase() == name).then_some(kind))
}

/// Why something is no set of kinds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadKinds(String);

impl fmt::Display for BadKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Kinds::all().iter_names().map(|(name, _)| name.to_ascii_lowercase()).collect();
        write!(f, "{:?} is none of {}, or {NONE} alone", self.0, names.join(", "))
    }
}

impl std::error::Error for BadKinds {}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_ipc::attr::Dev;

    const NULL: Dev = Dev { major: 1, minor: 3 };
    const ZERO: Dev = Dev { major: 0, minor: 0 };

    #[test]
    fn a_set_permits_what_it_names_and_files() {
        let kinds: Kinds = "socket,whiteout".parse().unwrap();
        assert_eq!(kinds, Kinds::SOCKET | Kinds::WHITEOUT);
        for (node, may) in [
            (NodeKind::File, true),
            (NodeKind::Fifo, false),
            (NodeKind::Socket, true),
            (NodeKind::Char(ZERO), true),
            (NodeKind::Char(NULL), false),
            (NodeKind::Block(ZERO), false),
        ] {
            assert_eq!(kinds.permit(node), if may { Ok(()) } else { Err(Errno::EPERM) }, "{node:?}");
        }
        assert_eq!("none".parse::<Kinds>().unwrap().permit(NodeKind::File), Ok(()));
        assert_eq!(Kinds::all().permit(NodeKind::Block(ZERO)), Ok(()));
    }

    #[test]
    fn what_is_no_kind_is_refused() {
        for (text, word) in [("pipe", "pipe"), ("", ""), ("fifo,", ""), ("fifo,none", "none"), ("FIFO", "FIFO")] {
            assert_eq!(text.parse::<Kinds>(), Err(BadKinds(word.into())));
        }
        let told = BadKinds("x".into()).to_string();
        assert_eq!(told, r#""x" is none of fifo, socket, whiteout, device, or none alone"#);
    }
}
