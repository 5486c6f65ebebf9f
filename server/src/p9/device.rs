//! The virtio-9p device: a session whose requests are descriptor chains. Virtio 1.2 names it only (5, device id 9);
//! linux/virtio_9p.h and the driver say the rest.

use std::cell::RefCell;

use postern_ipc::{Errno, Result};

use super::carrier::Chain;
use super::message::{HEADER, Message as _, TWRITE, Twrite};
use super::session::{Call, Header, Session};
use crate::fs::Fs;
use crate::vhost::{self, Outcome, Place, Request};

/// Feature: the config space has a tag. linux/virtio_9p.h: VIRTIO_9P_MOUNT_TAG
const MOUNT_TAG: u64 = 1;
/// Longest tag, bytes: a vhost-user config space has 256, two of them for the tag's length. QEMU:
/// VHOST_USER_MAX_CONFIG_SIZE
pub const TAG_MAX: usize = 254;
/// Most bytes of a request that are copied: two strings of any length and a few numbers. Content stays where it is.
const COPIED_MAX: usize = 2 * 65_536 + 1024;

std::thread_local! {
    /// The arguments of the request this thread works on.
    static ARGS: RefCell<Box<[u8]>> = RefCell::new(vec![0; COPIED_MAX].into());
}

/// One share for one guest.
pub struct Device<F: Fs> {
    session: Session<F>,
    config: Box<[u8]>,
}

impl<F: Fs> Device<F> {
    /// Which the guest finds by its tag, of at most [`TAG_MAX`] bytes.
    pub fn new(session: Session<F>, tag: &str) -> Self {
        let len = u16::try_from(tag.len()).unwrap_or(u16::MAX);
        Self { session, config: [&len.to_le_bytes(), tag.as_bytes()].concat().into() }
    }

    fn answer(&self, request: &mut Request, place: Place) -> Result<(Outcome, u16)> {
        let header = Header::read(&request.read_obj()?)?;
        let (serial, fault) = (request.ticket, request.fault());
        if !self.session.flights.begin(serial) {
            return Ok((Outcome::Done(0), header.tag));
        }
        ARGS.with_borrow_mut(|buffer| {
            let args = match fault {
                Some(fault) => Err(fault.errno()),
                None => arguments(header, request, buffer),
            };
            let carrier = &mut Chain::new(request);
            let outcome = match args {
                Ok(args) => self.session.answer(Call { header, place, serial, args, carrier }),
                Err(errno) => self.session.refuse(&mut Call { header, place, serial, args: &[], carrier }, errno),
            };
            Ok((outcome, header.tag))
        })
    }
}

/// What follows the header, as far as it is copied. Guests before Linux 5.17 do not count the content of a Twrite in
/// its size.
fn arguments<'b>(header: Header, request: &mut Request, buffer: &'b mut [u8]) -> Result<&'b [u8]> {
    let size = usize::try_from(header.size).map_err(|_| Errno::EINVAL)?;
    let (whole, fixed) = (request.remaining().saturating_add(HEADER), HEADER.saturating_add(TWRITE));
    let writes = header.kind == Twrite::NUMBER;
    if size != whole && !(writes && size == fixed) {
        return Err(Errno::EINVAL);
    }
    let copied = if writes { TWRITE } else { request.remaining() };
    let args = buffer.get_mut(..copied).ok_or(Errno::E2BIG)?;
    request.read_exact(args)?;
    Ok(args)
}

impl<F: Fs + 'static> vhost::Device for Device<F> {
    fn features(&self) -> u64 {
        MOUNT_TAG
    }

    fn config(&self) -> Option<&[u8]> {
        Some(&self.config)
    }

    fn queues(&self) -> usize {
        1
    }

    fn enter(&self, thread: usize) {
        self.session.share.enter(thread);
    }

    /// Without a header nobody can be answered.
    fn handle(&self, request: &mut Request, place: Place) -> Outcome {
        match self.answer(request, place) {
            Ok((Outcome::Later, tag)) => {
                request.ticket = self.session.flights.put_off(tag);
                Outcome::Later
            }
            Ok((done, _)) => done,
            Err(_) => Outcome::Done(0),
        }
    }

    fn given_back(&self, ticket: u64) {
        self.session.flights.land(ticket);
    }

    fn reset(&self) {
        self.session.reset();
        self.session.share.reset();
    }
}
