//! placeholder

pub mod fuse;
