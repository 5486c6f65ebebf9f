//! A process in the guest, and how it names files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use postern_server::fuse::abi::{InitFlags, OpenOutFlags, ROOT_ID};
use zerocopy::FromBytes;

use super::{Caller, Link, Pending, Request, Result, decode};
use crate::kernel::Kernel;

/// A process in the guest.
#[derive(Clone)]
pub struct Process {
    /// The kernel it runs on.
    pub kernel: Arc<dyn Kernel>,
    /// Its ids.
    pub caller: Caller,
    /// Its umask.
    pub umask: u32,
    group: Option<u32>,
    ring: usize,
}

impl Process {
    /// The guest's root, umask 022, on the first request queue.
    pub fn new(kernel: Arc<dyn Kernel>) -> Self {
        Self { kernel, caller: Caller::ROOT, umask: 0o022, group: None, ring: 1 }
    }

    /// The same as another user, whose group has the same number.
    pub fn as_user(&self, id: u32) -> Self {
        self.as_ids(id, id)
    }

    /// The same with other ids.
    pub fn as_ids(&self, uid: u32, gid: u32) -> Self {
        Self { caller: Caller { uid, gid }, ..self.clone() }
    }

    /// The same with another umask.
    pub fn with_umask(&self, umask: u32) -> Self {
        Self { umask, ..self.clone() }
    }

    /// The same as a member of supplementary group `gid`, which matters for what it creates now.
    pub fn in_group(&self, gid: u32) -> Self {
        Self { group: Some(gid), ..self.clone() }
    }

    /// The same on request queue `queue`, counted from 0.
    pub fn on_queue(&self, queue: usize) -> Self {
        Self { ring: queue + 1, ..self.clone() }
    }

    /// Sends a request and waits for its reply.
    pub fn raw(&self, request: &Request<'_>) -> Result<Vec<u8>> {
        self.kernel.call(self.ring, self.caller, request)
    }

    /// The FUSE session.
    ///
    /// # Panics
    /// When the share is served over another protocol: such a test applies to virtio-fs only.
    pub fn fuse(&self) -> &Link {
        self.kernel.fuse().expect("a FUSE session: the test is to be applied as `virtiofs`")
    }

    /// What the kernel leaves to the server.
    pub fn granted(&self) -> InitFlags {
        self.kernel.granted()
    }

    /// Sends a request over FUSE and does not wait.
    pub fn send(&self, request: &Request<'_>) -> Pending {
        self.fuse().send(self.ring, self.caller, request)
    }

    pub(super) fn ask<T: FromBytes>(&self, request: Request<'_>) -> Result<T> {
        Ok(decode(&self.raw(&request.room::<T>())?))
    }

    pub(super) fn tell(&self, request: &Request<'_>) -> Result<()> {
        let reply = self.raw(request)?;
        assert!(reply.is_empty(), "{} bytes of reply instead of none", reply.len());
        Ok(())
    }

    /// Mode as the guest's kernel sends it: it applies the umask unless the server wants to.
    pub(super) fn masked(&self, mode: u32) -> u32 {
        let left_to_server = self.granted().contains(InitFlags::DONT_MASK);
        if left_to_server { mode } else { mode & !self.umask }
    }

    /// The extension that creating requests end with.
    pub(super) fn creating<'a>(&self, request: Request<'a>) -> Request<'a> {
        match self.group {
            Some(group) if self.granted().contains(InitFlags::CREATE_SUPP_GROUP) => request.group(group),
            _ => request,
        }
    }
}

/// A file: by its path from the root of the share, or by its nodeid.
pub trait Target {
    /// Looks it up if need be.
    fn node(&self, guest: &Process) -> Result<u64>;
}

impl Target for u64 {
    fn node(&self, _: &Process) -> Result<u64> {
        Ok(*self)
    }
}

impl Target for &str {
    fn node(&self, guest: &Process) -> Result<u64> {
        let names = self.split('/').filter(|name| !name.is_empty());
        names.into_iter().try_fold(ROOT_ID, |dir, name| Ok(guest.lookup((dir, name))?.nodeid))
    }
}

/// A name in a directory: by a path, or by nodeid and name.
pub trait Place {
    /// The directory and the name.
    fn place(&self, guest: &Process) -> Result<(u64, Vec<u8>)>;
}

impl Place for &str {
    fn place(&self, guest: &Process) -> Result<(u64, Vec<u8>)> {
        let (dir, name) = self.rsplit_once('/').unwrap_or(("", self));
        Ok((dir.node(guest)?, name.into()))
    }
}

impl<N: AsRef<OsStr>> Place for (u64, N) {
    fn place(&self, _: &Process) -> Result<(u64, Vec<u8>)> {
        Ok((self.0, self.1.as_ref().as_bytes().to_vec()))
    }
}

/// An open file or directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Its node.
    pub node: u64,
    /// Its number.
    pub fh: u64,
    /// Flags it was opened with.
    pub flags: i32,
    /// How the guest is to treat it.
    pub out: OpenOutFlags,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Inode number.
    pub ino: u64,
    /// Where to go on.
    pub off: u64,
    /// DT_*.
    pub kind: u8,
    /// Its name.
    pub name: String,
}
