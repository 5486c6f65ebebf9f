//! FUSE, as a virtio-fs guest speaks it.

pub mod abi;
