//! What may be said between postern's server and its helper, and nothing else; and how long one waits for it
//! ([`patience`]).
//!
//! The laws of the border, each kept in one place of this crate:
//! - every operation is one row of the table in [`op`]: request, reply, descriptors, bulk data, errors;
//! - a value from the other side becomes a type in one constructor ([`name`], [`id`], [`attr`]) and is trusted
//!   from there on;
//! - lengths meet their cap before anything is allocated, and a frame is consumed exactly ([`frame`]);
//! - descriptors are owned before anything else is judged ([`channel`]);
//! - what the helper holds from one request to the next is a cache, and may be gone at any time ([`held`]).
//!
//! A frame that breaks a law is the sender's end: the helper exits, the server treats its helper as gone.

pub mod ask;
pub mod attr;
pub mod channel;
pub mod client;
pub mod errno;
pub mod few;
pub mod frame;
pub mod held;
pub mod hello;
pub mod id;
pub mod model;
pub mod name;
pub mod op;
pub mod patience;
pub mod span;

pub use errno::{Errno, Result};
