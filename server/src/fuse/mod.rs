//! FUSE, as a virtio-fs guest speaks it: decode once, call the file system, encode once.

pub mod abi;
mod args;
mod incapable;
mod init;
mod ioctl;
mod listing;
mod op;
mod session;
mod settings;
mod wire;
mod xattr;

pub use session::{Session, TAG_MAX};
pub use settings::{Cache, Settings};
