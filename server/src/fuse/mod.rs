//! FUSE, as a virtio-fs guest speaks it: decode once, call the file system, encode once.

pub mod abi;
mod args;
mod init;
mod listing;
mod op;
mod session;
mod settings;
mod wire;

pub use session::{Session, TAG_MAX};
pub use settings::{Cache, Settings};
