//! A vhost-user back-end for any virtio device whose requests are descriptor chains with an answer.
//!
//! A [`Transport`] has worker threads for the queues of its [`Device`] and a pool for requests that may block. It
//! serves one VMM after another and outlives all of them. What a guest may do wrong costs that guest a request
//! ([`Fault`], answered by the device) or a ring, which then stands still; what a VMM may do wrong costs it its
//! connection.
//!
//! A request's road: a `worker` wakes by its `events`, `queue` takes a head from the `ring`, `request` reads the chain
//! into runs of guest `memory`, the device answers in place, and `queue` gives the answers of a batch back at once; or
//! the request goes to the `pool` and is given back from there. `protocol` is what the VMM may change about all this
//! while it runs, `transport` the socket and the threads. A worker sleeps in one place, `Events::wait`, and as long as
//! its [`Patience`](postern_ipc::patience::Patience) says not before it has looked for more.
//!
//! # System calls
//! All threads are made, and have entered the device, when [`Transport::new`] returns. From then on, beside what the
//! device does, what the allocator needs (brk, mmap and mprotect without PROT_EXEC, mremap, munmap, madvise) and what
//! the log needs:
//!
//! | thread | calls |
//! |---|---|
//! | worker | epoll_pwait (own epoll, without signal mask), write (eventfds, 8 bytes), futex |
//! | pool | futex, write (eventfds, 8 bytes) |
//! | worker, pool | preadv2, pwritev2 where the device uses them here; munmap, close when the last request of an old memory ends |
//! | in [`Transport::serve`] | accept4 (SOCK_CLOEXEC), clock_nanosleep (when descriptors are short), recvmsg, sendmsg, fstat and mmap (PROT_READ\|PROT_WRITE, MAP_SHARED\|MAP_NORESERVE) of guest memory, munmap, epoll_ctl, write, futex, close |
//! | any, in debug builds | fcntl (F_GETFD) before each close |

mod device;
mod events;
mod memory;
mod pool;
mod protocol;
mod queue;
mod request;
mod ring;
mod transport;
mod worker;

#[cfg(test)]
mod tests;

pub use device::{Device, Outcome, Place};
pub use memory::{GuestIovecs, preadv2, pwritev2};
pub use request::{Fault, Request};
pub(crate) use transport::accept;
pub use transport::{Socket, Threads, Transport};
