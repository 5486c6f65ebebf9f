//! A vhost-user back-end for any virtio device whose requests are descriptor chains with an answer.

mod device;
mod memory;
mod pool;
mod protocol;
mod queue;
mod request;
mod ring;
mod transport;

#[cfg(test)]
mod tests;

pub use device::{Device, Outcome, Place};
pub use memory::{GuestIovecs, preadv2, pwritev2};
pub use request::{Fault, Request};
pub use transport::{Socket, Transport};
