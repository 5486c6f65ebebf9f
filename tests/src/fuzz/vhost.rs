//! Messages of a VMM. docs/interop/vhost-user.rst of QEMU

use std::fs::File;
use std::io::{IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::fuse::PATIENCE;

/// Bytes of the memory that comes along as a descriptor.
const MEMORY: u64 = 1 << 20;
/// Where the seed puts it in the guest, and in the VMM.
const GUEST: u64 = 0x10_0000;
const USER: u64 = 0x7f00_0000_0000;

/// Messages: each is its request, how it is sent, the length of its body, 16 bits, and then that. `how` says in its
/// bits whether an answer is wanted, it is an answer itself, its version is wrong and its length a lie; how many
/// descriptors come along (2 bits); and what they are of (2 bits). The next VMM is served, whatever this one said.
pub fn vhost(mut bytes: &[u8]) {
    let vmm = super::connect();
    vmm.set_read_timeout(Some(PATIENCE)).expect("a socket");
    while let Some(([request, how, l0, l1], rest)) = bytes.split_first_chunk() {
        let (body, left) = rest.split_at(rest.len().min(u16::from_le_bytes([*l0, *l1]).into()));
        bytes = left;
        if say(&vmm, *request, *how, body).is_err() {
            break;
        }
    }
    let _ = vmm.shutdown(Shutdown::Write);
    let ended = (&vmm).read_to_end(&mut Vec::new());
    assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset), "no end in time");
    let next = super::connect();
    next.set_read_timeout(Some(PATIENCE)).expect("a socket");
    say(&next, 1, 0, b"").expect("heard");
    (&next).read_exact(&mut [0; 20]).expect("features");
}

/// Sends one message with its descriptors.
fn say(vmm: &UnixStream, request: u8, how: u8, body: &[u8]) -> nix::Result<()> {
    let bit = |number: u32| u32::from(how >> number & 1);
    let flags = (1 + bit(2)) | bit(1) << 2 | bit(0) << 3;
    let size = u32::try_from(body.len()).expect("16 bits") + bit(3);
    let message = [&u32::from(request).to_ne_bytes(), &flags.to_ne_bytes(), &size.to_ne_bytes(), body].concat();
    let descriptors: Vec<_> = (0..how >> 4 & 3).map(|_| descriptor(how >> 6)).collect();
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let rights = if raw.is_empty() { &rights[..0] } else { &rights };
    sendmsg::<()>(vmm.as_raw_fd(), &[IoSlice::new(&message)], rights, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

fn descriptor(kind: u8) -> OwnedFd {
    match kind {
        0 => EventFd::from_flags(EfdFlags::EFD_NONBLOCK).expect("eventfd").into(),
        1 => {
            let memory = File::from(memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).expect("memfd"));
            memory.set_len(MEMORY).expect("sparse");
            memory.into()
        }
        2 => {
            let (ours, theirs) = UnixStream::pair().expect("sockets");
            let _ = (&ours).write_all(b"8 bytes.");
            theirs.into()
        }
        _ => File::open("/dev/null").expect("null").into(),
    }
}

/// All that a VMM says to bring a ring to life, and to let it go.
pub(super) fn seed() -> Vec<u8> {
    let message = |request: u8, how: u8, words: &[u32]| {
        let body: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let length = u16::try_from(body.len()).expect("small").to_le_bytes();
        [vec![request, how], length.to_vec(), body].concat()
    };
    let halves = |wide: u64| [(wide & 0xffff_ffff) as u32, (wide >> 32) as u32];
    let [event, memory] = [0b1_0001, 0b101_0001];
    let region = [0, GUEST, MEMORY, USER, 0].map(halves).concat();
    let table = [vec![1, 0], region[2..].to_vec()].concat();
    let ring = [vec![1, 0], [USER, USER + 0x2000, USER + 0x1000, 0].map(halves).concat()].concat();
    [
        message(1, 0, &[]),
        message(3, 0, &[]),
        message(15, 0, &[]),
        message(16, 0, &halves(1 << 0 | 1 << 3 | 1 << 15)),
        message(2, 1, &halves(1 << 32 | 1 << 30 | 1 << 29 | 1 << 28)),
        message(17, 0, &[]),
        message(36, 0, &[]),
        message(37, memory, &region),
        message(8, 1, &[1, 256]),
        message(10, 1, &[1, 0]),
        message(9, 1, &ring),
        message(13, event, &[1, 0]),
        message(14, event, &[1, 0]),
        message(12, event, &[1, 0]),
        message(18, 1, &[1, 1]),
        message(11, 0, &[1, 0]),
        message(38, 1, &region),
        message(5, memory, &table),
        message(34, 1, &[]),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conversation_is_one_that_a_device_agrees_to() {
        let vmm = crate::fuzz::connect();
        vmm.set_read_timeout(Some(PATIENCE)).unwrap();
        let seed = seed();
        let mut left = seed.as_slice();
        while let Some(([request, how, l0, l1], rest)) = left.split_first_chunk() {
            let (body, next) = rest.split_at(u16::from_le_bytes([*l0, *l1]).into());
            say(&vmm, *request, *how, body).unwrap();
            left = next;
        }
        vmm.shutdown(Shutdown::Write).unwrap();
        let mut answers = Vec::new();
        (&vmm).read_to_end(&mut answers).unwrap();
        let mut rest = answers.as_slice();
        let mut agreed = 0;
        while let Some((header, next)) = rest.split_first_chunk::<12>() {
            let [request, size] = [0, 8].map(|at| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap()));
            let (body, next) = next.split_at(size as usize);
            // What only says whether it was done says 0.
            let told = [1, 11, 15, 17, 24, 36].contains(&request);
            assert!(told || body == [0; 8], "request {request} is refused");
            (rest, agreed) = (next, agreed + 1);
        }
        assert!(agreed > 12, "{agreed} answers");
    }
}
