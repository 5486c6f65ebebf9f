//! 9P2000.L, as a Linux guest speaks it over virtio: decode once, call the file system, encode once.

mod carrier;
mod convert;
mod device;
mod fid;
mod flight;
mod listing;
pub mod message;
mod op;
mod session;
pub mod wire;
mod xattr;

pub use device::{Device, TAG_MAX};
pub use session::{MSIZE_MAX, MSIZE_MIN, Session, Settings};
