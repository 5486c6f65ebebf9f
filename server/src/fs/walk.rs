//! Looking a name up: by the server itself where it may, by the helper otherwise.
//!
//! The server walks only in an empty root: there an O_PATH descriptor of the share is all it can start from. What its
//! own id may not search the helper looks up, so nothing depends on the server's rights but speed.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode as NixMode;
use postern_ipc::attr::Attr;
use postern_ipc::client::Links;
use postern_ipc::id::Caller;
use postern_ipc::name::{FileName, TARGET_MAX};
use postern_ipc::op::{Lookup, Readlink, Stat};
use postern_ipc::{Errno, Result};

/// Who looks names up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Walker {
    /// The server, and the helper where the server may not.
    Server,
    /// The helper alone: the server has no empty root.
    Helper,
}

/// A way down from a directory, one system call for each name: the kernel follows no symbolic link on the share's mount
/// and never leaves it, so a path is as safe as its names one by one.
pub struct Way<'a> {
    from: &'a Arc<OwnedFd>,
    path: Vec<u8>,
    /// Nothing below is to be reached by it.
    ends: bool,
}

impl<'a> Way<'a> {
    /// Of no name yet.
    pub fn from(dir: &'a Arc<OwnedFd>) -> Self {
        Self { from: dir, path: Vec::new(), ends: false }
    }

    fn push(&mut self, name: &FileName) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend(name.as_bytes());
    }

    fn reached(&mut self, attr: &Attr) {
        self.ends = attr.automount || attr.kind() != libc::S_IFDIR;
    }

    fn fits(&self, name: &FileName) -> bool {
        self.path.len().saturating_add(name.as_bytes().len()) < TARGET_MAX
    }

    fn path(&self) -> CString {
        // Names have no NUL.
        CString::new(self.path.as_slice()).unwrap_or_default()
    }
}

/// Looks names up.
pub struct Walk {
    links: Arc<Links>,
    /// Who.
    pub walker: Walker,
    /// As whom.
    pub caller: Caller,
}

impl Walk {
    /// Through these links, as the share's root.
    pub fn new(links: Arc<Links>, walker: Walker) -> Self {
        Self { links, walker, caller: Caller::Root }
    }

    /// The same as somebody else.
    pub fn by(&self, caller: Caller) -> Self {
        Self { links: Arc::clone(&self.links), caller, ..*self }
    }

    /// The server finds names itself. It may search what its own id may, so it finds none for a user who acts alone.
    pub fn finds(&self) -> bool {
        self.walker == Walker::Server && self.caller == Caller::Root
    }

    /// What a name in `dir` is, and the descriptor with which the helper answers if it had to be asked.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ENAMETOOLONG, EACCES.
    pub fn stat(&self, dir: &Arc<OwnedFd>, name: &FileName) -> Result<(Attr, Option<OwnedFd>)> {
        self.look(dir, name, || Ok((Attr::of_entry(dir.as_fd(), name)?, None)), |attr, pin| (attr, Some(pin)))
    }

    /// What the next name of a way is. `None` if a directory on the way has to be the start of another.
    ///
    /// # Errors
    /// As [`Self::stat`].
    pub fn step(&self, way: &mut Way<'_>, name: &FileName) -> Option<Result<(Attr, Option<OwnedFd>)>> {
        if way.path.is_empty() {
            way.push(name);
            return Some(self.stat(way.from, name).inspect(|(attr, _)| way.reached(attr)));
        }
        if !self.finds() || way.ends || !way.fits(name) {
            return None;
        }
        way.push(name);
        match Attr::of_path(way.from, &way.path()) {
            Err(Errno::EACCES) => None,
            looked => Some(looked.inspect(|attr| way.reached(attr)).map(|attr| (attr, None))),
        }
    }

    /// An O_PATH descriptor of a name in `dir`, and what it is.
    ///
    /// # Errors
    /// As [`Self::stat`].
    pub fn open(&self, dir: &Arc<OwnedFd>, name: &FileName) -> Result<(Attr, OwnedFd)> {
        let here = || {
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let pin = openat(dir, name.as_c_str(), flags, NixMode::empty())?;
            let attr = Attr::of(pin.as_fd())?;
            Ok((attr, pin))
        };
        self.look(dir, name, here, |attr, pin| (attr, pin))
    }

    /// What a node is.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn attr(&self, pin: &Arc<OwnedFd>) -> Result<Attr> {
        match self.walker {
            Walker::Server => Attr::of(pin),
            Walker::Helper => self.links.call(self.caller, &Stat {}, &[pin], b"", |attr, [], _| attr),
        }
    }

    /// Gives what a symbolic link says to `take`.
    ///
    /// # Errors
    /// Those of readlink(2).
    pub fn readlink<R>(&self, pin: &Arc<OwnedFd>, take: impl FnOnce(&[u8]) -> R) -> Result<R> {
        match self.walker {
            Walker::Server => Ok(take(rustix::fs::readlinkat(pin, c"", Vec::new())?.as_bytes())),
            Walker::Helper => self.links.call(self.caller, &Readlink {}, &[pin], b"", |(), [], target| take(target)),
        }
    }

    fn look<T>(
        &self,
        dir: &Arc<OwnedFd>,
        name: &FileName,
        here: impl FnOnce() -> Result<T>,
        there: impl FnOnce(Attr, OwnedFd) -> T,
    ) -> Result<T> {
        if self.finds() {
            match here() {
                Err(Errno::EACCES) => {}
                looked => return looked,
            }
        }
        self.links.call(self.caller, &Lookup { name: *name }, &[dir], b"", |attr, [pin], _| there(attr, pin))
    }
}
