//! A device that does not know its tag gets one: QEMU's C virtiofsd leaves that to the VMM, and User-Mode Linux has
//! none to give. Only messages pass through here, which is all before the guest mounts; requests do not.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use vhost::vhost_user::message::{FrontendReq, VhostUserProtocolFeatures as Protocol};

use crate::vhost_user::Message;

/// Bytes of a tag in the config space. virtio 1.2, section 5.11.4
const TAG: usize = 36;
/// Where a GET_CONFIG has the bytes asked for: behind their place, number and flags.
const CONFIG: usize = 12;
/// Flag of a request: to be answered in any case.
const NEED_REPLY: u32 = 1 << 3;
/// What is answered always.
const ANSWERED: [FrontendReq; 4] = [
    FrontendReq::GET_FEATURES,
    FrontendReq::GET_PROTOCOL_FEATURES,
    FrontendReq::GET_VRING_BASE,
    FrontendReq::GET_QUEUE_NUM,
];

/// Listens at `own` for the VMM of the server at `socket`, who is told this tag.
pub fn listen(own: &Path, socket: &Path, tag: &'static str) {
    let listener = UnixListener::bind(own).expect("own directory");
    let socket = socket.to_owned();
    thread::spawn(move || {
        let (vmm, _) = listener.accept().expect("a VMM");
        relay(vmm, UnixStream::connect(socket).expect("a server"), tag);
    });
}

fn relay(mut vmm: UnixStream, mut server: UnixStream, tag: &str) {
    while let Some(mut request) = Message::receive(&mut vmm) {
        let number = FrontendReq::try_from(request.number).ok();
        if number == Some(FrontendReq::GET_CONFIG) {
            let config = [tag.as_bytes(), &vec![0; TAG - tag.len()], &1_u32.to_le_bytes()].concat();
            let (at, len) = (request.u32(0) as usize, request.u32(4) as usize);
            request.payload[CONFIG..].copy_from_slice(&config[at..at + len]);
            Message::reply(request.number, request.payload).send(&vmm);
            continue;
        }
        if number == Some(FrontendReq::SET_PROTOCOL_FEATURES) {
            request.payload = (request.u64(0) & !Protocol::CONFIG.bits()).to_ne_bytes().into();
        }
        request.send(&server);
        if request.flags & NEED_REPLY != 0 || number.is_some_and(|number| ANSWERED.contains(&number)) {
            let Some(mut reply) = Message::receive(&mut server) else { return };
            if number == Some(FrontendReq::GET_PROTOCOL_FEATURES) {
                reply.payload = (reply.u64(0) | Protocol::CONFIG.bits()).to_ne_bytes().into();
            }
            reply.send(&vmm);
        }
    }
}
