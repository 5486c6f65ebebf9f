//! What may be done: rights, ids, limits, and the walls around both programs.
//!
//! The laws of this crate:
//! - an id of the host is its own type, cannot travel, and is reached from an id of the guest only through a
//!   [`translate::Translation`] and an [`idmap::IdMap`]; an id outside the map is an error, never itself;
//! - a share is read-only or it is not ([`right`]); whoever asks is refused in one place;
//! - who is given a share that he has only asked for, root's rules say ([`rules`]), and a bad line of theirs gives
//!   nobody any;
//! - a wall that cannot be had ends the start ([`fatal::Fatal`]); only an option of its own weakens it, and then a
//!   warning says so ([`sandbox`]).
//!
//! Nothing here is unsafe.
#![forbid(unsafe_code)]

pub mod account;
pub mod death;
pub mod fatal;
pub mod host;
pub mod idmap;
pub mod journal;
pub mod kernels;
pub mod kinds;
pub mod limit;
pub mod modcaps;
pub mod right;
pub mod rules;
pub mod sandbox;
pub mod subid;
pub mod translate;
pub mod xattrmap;
