//! QEMU's `-fsdev proxy`: QEMU (up to 9.1) speaks 9P with its guest and asks here for what needs a path.
//!
//! The protocol is that of `hw/9pfs/9p-proxy.h`: requests in the host's byte order, one under way at a time, each with
//! paths from the root of the share. An opened file is handed to QEMU as a descriptor, and what concerns its content
//! is then none of ours. `wire` says how messages look, `op` what they mean, `path` how a path is walked, `session`
//! is a connection.

mod op;
mod path;
mod session;
mod wire;

pub use session::serve;
