//! The FUSE client: what a guest's kernel sends, one function per operation.
//!
//! [`Link`] speaks the protocol and holds every reply to its rules; [`Process`] is a process in the
//! guest, with ids of its own, and names files as a process does or as the kernel does.

mod attr;
mod data;
mod dir;
mod link;
mod names;
mod process;
mod request;
mod xattr;

use std::time::Duration;

use nix::errno::Errno;
use postern_server::fuse::abi::InitFlags;
use zerocopy::FromBytes;

pub use link::{Link, Pending};
pub use process::{Entry, File, Place, Process, Target};
pub use request::Request;

/// What an operation gives.
pub type Result<T> = std::result::Result<T, Errno>;

/// How long a reply may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a Linux 7.2 virtio-fs guest offers in INIT.
pub const LINUX: InitFlags = InitFlags::all()
    .difference(InitFlags::FILE_OPS)
    .difference(InitFlags::HAS_INODE_DAX)
    .difference(InitFlags::INIT_RESERVED)
    .difference(InitFlags::MAP_ALIGNMENT)
    .difference(InitFlags::PASSTHROUGH)
    .difference(InitFlags::OVER_IO_URING);

/// Ids a request is made with.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// fsuid.
    pub uid: u32,
    /// fsgid.
    pub gid: u32,
}

impl Caller {
    /// The guest's root.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };
}

/// The structure a reply consists of, to the byte.
fn decode<T: FromBytes>(reply: &[u8]) -> T {
    T::read_from_bytes(reply).unwrap_or_else(|_| panic!("{} bytes of reply instead of {}", reply.len(), size_of::<T>()))
}
