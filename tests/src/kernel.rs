//! The guest's kernel: it carries the requests of the guest's processes to the share.
//!
//! A request has the form that Linux's FUSE driver gives it, whatever the share is served over. [`fuse::Link`] sends
//! it as it is; [`v9fs::Mount`] says the same in 9P, as Linux's v9fs does.
//!
//! [`fuse::Link`]: crate::fuse::Link
//! [`v9fs::Mount`]: crate::v9fs::Mount

use postern_server::fuse::abi::InitFlags;

use crate::fuse::{Caller, Link, Request, Result};

/// A kernel that has mounted a share.
pub trait Kernel: Send + Sync {
    /// Makes a request of a process and waits for what comes of it. `ring` is the virtqueue, if there are several.
    fn call(&self, ring: usize, caller: Caller, request: &Request<'_>) -> Result<Vec<u8>>;
    /// Makes a request to which there is no reply.
    fn tell(&self, caller: Caller, request: &Request<'_>);
    /// What is left to the server, or is known to be served, beyond the ordinary.
    fn granted(&self) -> InitFlags;
    /// The FUSE session; none with other protocols.
    fn fuse(&self) -> Option<&Link> {
        None
    }
}

/// A request that has no words in the protocol: no guest can make it.
#[derive(Clone, Copy, Debug)]
pub struct Wordless {
    /// What is asked for.
    pub opcode: u32,
    /// Why it cannot be said.
    pub why: &'static str,
}
