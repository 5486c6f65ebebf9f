//! The handlers: each row of the table with the right it needs and the system calls it makes.

mod attr;
mod create;
mod flags;
mod keep;
mod look;
mod named;
mod open;
mod remove;
mod xattr;
