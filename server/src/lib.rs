//! The unprivileged side of postern: it parses everything the guest sends and asks the helper for the rest.

pub mod args;
pub mod confine;
mod content;
pub mod doctor;
pub mod dropin;
pub mod explain;
pub mod fs;
pub mod fuse;
pub mod heap;
pub mod launch;
pub mod p9;
pub mod proxy;
pub mod qemu;
pub mod quota;
pub mod start;
pub mod stats;
pub mod vhost;
