//! A FUSE session, which holds every reply to the protocol's rules.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::errno::Errno;
use postern_server::fuse::abi::{self, InHeader, InitFlags, InitIn, InitOut, OutHeader, opcode};
use zerocopy::{FromBytes, IntoBytes};

use super::{Caller, PATIENCE, Request, Result, decode};
use crate::kernel::Kernel;
use crate::ring::{Message, Ticket};
use crate::vmm::Vmm;

/// A FUSE session over a device.
pub struct Link {
    /// The device.
    pub vmm: Vmm,
    /// What INIT granted.
    pub init: InitOut,
    unique: AtomicU64,
}

impl Link {
    /// Opens the session as a guest does that can `offer`.
    pub fn open(vmm: Vmm, offer: InitFlags) -> Self {
        let mut link = Self::unopened(vmm);
        link.init = link.init(offer).expect("INIT");
        link
    }

    /// A device to which nothing was said yet.
    pub fn unopened(vmm: Vmm) -> Self {
        Self { vmm, init: InitOut::default(), unique: AtomicU64::new(2) }
    }

    /// Sends INIT.
    pub fn init(&self, offer: InitFlags) -> Result<InitOut> {
        let bits = offer.bits();
        let init = InitIn {
            major: abi::MAJOR,
            minor: abi::MINOR,
            max_readahead: 128 << 10,
            flags: bits as u32,
            flags2: (bits >> 32) as u32,
            unused: [0; 11],
        };
        let request = Request::new(opcode::INIT, 0).arg(&init).room::<InitOut>();
        Ok(decode(&self.call(1, Caller::ROOT, &request)?))
    }

    /// Sends a request on ring `ring`.
    pub fn send(&self, ring: usize, caller: Caller, request: &Request<'_>) -> Pending {
        let pending = self.prepare(ring, caller, request);
        self.vmm.ring(ring).offer(pending.ticket.head);
        pending
    }

    /// Writes a request that is to be offered by hand.
    pub fn prepare(&self, ring: usize, caller: Caller, request: &Request<'_>) -> Pending {
        let unique = self.unique.fetch_add(2, Ordering::Relaxed);
        let len = size_of::<InHeader>() + request.args.len() + request.data.len();
        let header = InHeader {
            len: request.claimed_len.unwrap_or(len.try_into().expect("small")),
            opcode: request.opcode,
            unique,
            nodeid: request.nodeid,
            uid: caller.uid,
            gid: caller.gid,
            pid: 4711,
            total_extlen: request.extlen,
            padding: 0,
        };
        let message = Message {
            header: header.as_bytes(),
            args: &request.args,
            data: request.data,
            reply_header: if request.no_reply { 0 } else { size_of::<OutHeader>() },
            reply_args: request.room_args,
            reply_data: request.room_data,
        };
        Pending { ring, unique, ticket: self.vmm.ring(ring).prepare(&message) }
    }

    /// Waits for a reply and checks what a Linux guest checks.
    ///
    /// # Panics
    /// When none comes, or one that the guest's driver would refuse.
    pub fn recv(&self, pending: Pending) -> Result<Vec<u8>> {
        let unique = pending.unique;
        let reply = self.recv_any(pending, PATIENCE).expect("a reply in time");
        let (header, body) = OutHeader::read_from_prefix(&reply).expect("a whole header");
        assert_eq!(header.len as usize, reply.len(), "header and used ring differ in length");
        assert_eq!(header.unique, unique, "reply to another request");
        assert!((-511..=0).contains(&header.error), "no errno of the guest's: {}", header.error);
        if header.error < 0 {
            assert!(body.is_empty(), "an error with a body");
            return Err(Errno::from_raw(-header.error));
        }
        Ok(body.to_vec())
    }

    /// Waits for a reply of any kind.
    pub fn recv_any(&self, pending: Pending, patience: Duration) -> Option<Vec<u8>> {
        self.vmm.ring(pending.ring).wait(pending.ticket, patience)
    }
}

impl Kernel for Link {
    fn call(&self, ring: usize, caller: Caller, request: &Request<'_>) -> Result<Vec<u8>> {
        self.recv(self.send(ring, caller, request))
    }

    fn tell(&self, caller: Caller, request: &Request<'_>) {
        let pending = self.send(0, caller, request);
        let used = self.recv_any(pending, PATIENCE);
        assert_eq!(used.expect("used in time"), [], "no reply was expected");
    }

    fn granted(&self) -> InitFlags {
        InitFlags::from_bits_retain(u64::from(self.init.flags) | u64::from(self.init.flags2) << 32)
    }

    fn fuse(&self) -> Option<&Link> {
        Some(self)
    }
}

/// A request without a reply yet.
#[derive(Debug)]
pub struct Pending {
    /// On which ring.
    pub ring: usize,
    pub(super) unique: u64,
    /// Where it lies in memory.
    pub ticket: Ticket,
}
