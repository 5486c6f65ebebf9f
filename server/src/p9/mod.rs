//! 9P2000.L and 9P2000.u, as a Linux guest speaks them over virtio or on a stream: decode once, call the file system,
//! encode once.

mod carrier;
mod convert;
mod device;
mod dotu;
mod exchange;
mod fid;
mod flight;
mod grace;
mod jobs;
mod listing;
mod lock;
pub mod message;
mod op;
mod perm;
mod session;
mod stream;
mod user;
mod walk;
pub mod wire;
mod xattr;

#[cfg(test)]
mod tests;

pub use device::{Device, TAG_MAX};
pub use session::{MSIZE_MAX, MSIZE_MIN, Session, Settings};
pub use stream::{Clients, Streams, Wires};
pub use user::{User, Users};
