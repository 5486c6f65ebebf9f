//! As much of vhost-user as brings the benchmark's client to its rings.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread;

use postern_tests::vmm::PROTOCOL_FEATURES;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use vhost::vhost_user::message::FrontendReq;
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};

use super::answers::Answers;
use super::vring::{Memory, Vring};

const FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_EVENT_IDX | 1 << VIRTIO_RING_F_INDIRECT_DESC | PROTOCOL_FEATURES;
/// Bytes before a message's payload: number, flags, length.
const HEADER: usize = 12;
/// Flags of a reply: version 1, bit 2.
const REPLY: u32 = 1 | 1 << 2;

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
    while let Some((request, payload, mut files)) = receive(&mut stream) {
        let word = |at: usize| u64::from_ne_bytes(payload[at..at + 8].try_into().expect("eight bytes"));
        let number = |at: usize| u32::from_ne_bytes(payload[at..at + 4].try_into().expect("four bytes"));
        let index = payload.first().map_or(0, |&index| index.into());
        let draft = drafts.entry(index).or_default();
        match request {
            FrontendReq::GET_FEATURES => reply(&mut stream, request, FEATURES),
            FrontendReq::GET_PROTOCOL_FEATURES => reply(&mut stream, request, 0),
            FrontendReq::SET_MEM_TABLE => {
                memory = Some(Memory::new(word(8), word(16), word(24), word(32), files.remove(0)));
            }
            FrontendReq::SET_VRING_NUM => draft.size = number(4) as u16,
            FrontendReq::SET_VRING_ADDR => draft.places = [8, 16, 24].map(word),
            FrontendReq::SET_VRING_CALL => draft.call = files.pop(),
            FrontendReq::SET_VRING_KICK => draft.kick = files.pop(),
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

fn receive(stream: &mut UnixStream) -> Option<(FrontendReq, Vec<u8>, Vec<File>)> {
    let mut header = [0; HEADER];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut header)];
    let got = recvmsg(&*stream, parts, &mut control, RecvFlags::CMSG_CLOEXEC).expect("received");
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            files.extend(rights.map(File::from));
        }
    }
    if got.bytes < HEADER {
        return None;
    }
    let [number, _, len] = [0, 4, 8].map(|at| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four bytes")));
    let mut payload = vec![0; len as usize];
    stream.read_exact(&mut payload).expect("a payload");
    Some((FrontendReq::try_from(number).expect("a request"), payload, files))
}

fn reply(stream: &mut UnixStream, request: FrontendReq, value: u64) {
    let header = [request as u32, REPLY, 8].map(u32::to_ne_bytes).concat();
    stream.write_all(&[&header[..], &value.to_ne_bytes()].concat()).expect("sent");
}
