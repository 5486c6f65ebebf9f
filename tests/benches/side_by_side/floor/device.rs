//! As much of vhost-user as brings the benchmark's client to its rings.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;

use postern_tests::vmm::PROTOCOL_FEATURES;
use vhost::vhost_user::message::FrontendReq;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::answers::Answers;
use super::vring::{Memory, Vring};
use crate::vhost_user::Message;

const FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC | PROTOCOL_FEATURES;

/// What is known of a ring before it starts.
#[derive(Default)]
struct Draft {
    size: u16,
    /// Descriptors, used ring, available ring: addresses of the VMM's.
    places: [u64; 3],
    kick: Option<File>,
    call: Option<File>,
}

/// Serves the VMM on standard input until it is gone.
pub fn serve(polls: bool) {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().expect("dup");
    let mut stream = UnixStream::from(stdin);
    let (mut memory, mut drafts) = (None, BTreeMap::<usize, Draft>::new());
    while let Some(mut message) = Message::receive(&mut stream) {
        let index = message.payload.first().map_or(0, |&index| index.into());
        let draft = drafts.entry(index).or_default();
        let reply = |value: u64| Message::reply(message.number, value.to_ne_bytes().into()).send(&stream);
        match FrontendReq::try_from(message.number).expect("a request") {
            FrontendReq::GET_FEATURES => reply(FEATURES),
            FrontendReq::GET_PROTOCOL_FEATURES => reply(0),
            FrontendReq::SET_MEM_TABLE => {
                memory = Some(Memory::new([8, 16, 24, 32].map(|at| message.u64(at)), message.files.remove(0)));
            }
            FrontendReq::SET_VRING_NUM => draft.size = message.u32(4) as u16,
            FrontendReq::SET_VRING_ADDR => draft.places = [8, 16, 24].map(|at| message.u64(at)),
            FrontendReq::SET_VRING_CALL => draft.call = message.files.pop(),
            FrontendReq::SET_VRING_KICK => draft.kick = message.files.pop(),
            FrontendReq::SET_VRING_ENABLE => {
                let vring = vring(drafts.remove(&index).expect("set up"), memory.clone().expect("shared"));
                thread::spawn(move || vring.serve(polls && index > 0, Answers::new()));
            }
            _ => {}
        }
    }
}

fn vring(draft: Draft, memory: Memory) -> Vring {
    let [desc, used, avail] = draft.places.map(|place| memory.of_user(place));
    let (kick, call) = draft.kick.zip(draft.call).expect("both");
    Vring { memory, size: draft.size, desc, avail, used, kick, call }
}
