//! The unprivileged side of postern: it parses everything the guest sends and asks the helper for the rest.

pub mod fs;
pub mod fuse;
pub mod vhost;
