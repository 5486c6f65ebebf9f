//! placeholder

pub mod guest;
