//! Workloads of names and attributes.

use std::mem::offset_of;

use nix::errno::Errno;
use postern_server::fuse::abi::{
    AttrOut, CreateIn, EntryOut, GetattrIn, MkdirIn, OpenIn, OpenOut, ReleaseIn, RenameIn, SetattrIn, WriteIn, WriteOut,
};
use postern_tests::prelude::*;

use crate::guest::{Guest, Prepared};
use crate::pipeline::{self, Lane, ROUNDS};
use crate::workload::{PAGE, Step, node};

/// One request, as it is.
fn repeat<'a>(guest: &'a Guest<'a>, request: &Request<'_>) -> Step<'a> {
    let request = guest.prepare(request);
    Box::new(move || {
        guest.call(&request).expect("answered");
        1
    })
}

pub fn lookup<'a>(guest: &'a Guest<'a>) -> Step<'a> {
    repeat(guest, &request_lookup(b"small"))
}

fn request_lookup(name: &[u8]) -> Request<'static> {
    Request::new(opcode::LOOKUP, ROOT_ID).name(name).room::<EntryOut>()
}

/// So many at once.
pub fn lookups<'a, const DEPTH: usize>(guest: &'a Guest<'a>) -> Step<'a> {
    let lane = |_| Lane::new(vec![guest.prepare(&request_lookup(b"small"))], |_, _| ());
    let mut lanes: Vec<_> = (0..DEPTH).map(lane).collect();
    Box::new(move || pipeline::run(guest, &mut lanes, ROUNDS))
}

pub fn getattr<'a>(guest: &'a Guest<'a>) -> Step<'a> {
    repeat(guest, &request_getattr(node(guest, "small")))
}

fn request_getattr(node: u64) -> Request<'static> {
    Request::new(opcode::GETATTR, node).arg(&GetattrIn::default()).room::<AttrOut>()
}

fn request_setattr(node: u64) -> Request<'static> {
    let arg = SetattrIn { valid: SetattrValid::MODE, mode: 0o700, ..Default::default() };
    Request::new(opcode::SETATTR, node).arg(&arg).room::<AttrOut>()
}

pub fn setattr<'a>(guest: &'a Guest<'a>) -> Step<'a> {
    let request = guest.prepare(&request_setattr(node(guest, "small")));
    let mut modes = [0o600_u32, 0o644].into_iter().cycle();
    Box::new(move || {
        request.arg(offset_of!(SetattrIn, mode), modes.next().expect("a cycle"));
        guest.call(&request).expect("chmod");
        1
    })
}

/// close(2): FLUSH if the server wants it, and RELEASE.
pub struct Close<'a> {
    flush: Option<Prepared<'a>>,
    release: Prepared<'a>,
}

impl<'a> Close<'a> {
    /// Of no file yet.
    pub fn new(guest: &Guest<'a>) -> Self {
        let release = guest.prepare(&Request::new(opcode::RELEASE, 0).arg(&ReleaseIn::default()));
        Self { flush: guest.prepare_flush(), release }
    }

    /// The handle is the first field of both.
    pub fn call(&self, guest: &Guest<'_>, node: u64, fh: u64) {
        for request in self.flush.iter().chain([&self.release]) {
            request.node(node);
            request.arg(offset_of!(ReleaseIn, fh), fh);
            guest.call(request).expect("close");
        }
    }
}

pub fn create<'a>(guest: &'a Guest<'a>) -> Step<'a> {
    let page = [2; PAGE as usize];
    let arg = CreateIn { flags: (O_WRONLY | O_CREAT | O_EXCL) as u32, mode: S_IFREG | 0o644, ..Default::default() };
    let create = Request::new(opcode::CREATE, ROOT_ID).arg(&arg).name(b"new").room::<EntryOut>().room::<OpenOut>();
    let write = Request::new(opcode::WRITE, 0).arg(&WriteIn { size: PAGE, ..Default::default() }).data(&page);
    let lookup = guest.prepare(&request_lookup(b"new"));
    let create = guest.prepare(&create);
    let write = guest.prepare(&write.room::<WriteOut>());
    let unlink = guest.prepare(&Request::new(opcode::UNLINK, ROOT_ID).name(b"new"));
    let close = Close::new(guest);
    Box::new(move || {
        assert_eq!(guest.call(&lookup), Err(Errno::ENOENT));
        guest.call(&create).expect("create");
        let node = create.answer(offset_of!(EntryOut, nodeid));
        let fh = create.answer(size_of::<EntryOut>() + offset_of!(OpenOut, fh));
        write.node(node);
        write.arg(offset_of!(WriteIn, fh), fh);
        guest.call(&write).expect("write");
        close.call(guest, node, fh);
        guest.call(&lookup).expect("made above");
        guest.call(&unlink).expect("unlink");
        guest.forget(node, 2);
        1
    })
}

/// Of eight lanes six look a file up, open and close it, two make a directory, change its mode and remove it.
pub fn mixed<'a>(guest: &'a Guest<'a>) -> Step<'a> {
    let mut lanes: Vec<_> =
        (0..8).map(|lane| if lane % 4 == 3 { making(guest, lane) } else { opening(guest, lane) }).collect();
    Box::new(move || pipeline::run(guest, &mut lanes, ROUNDS))
}

fn opening<'a>(guest: &'a Guest<'a>, lane: usize) -> Lane<'a> {
    let node = node(guest, "small");
    let requests = [
        request_lookup(b"small"),
        request_getattr(node),
        Request::new(opcode::OPEN, node).arg(&OpenIn::default()).room::<OpenOut>(),
        Request::new(opcode::RELEASE, node).arg(&ReleaseIn::default()),
    ];
    let requests = requests.map(|request| guest.prepare_on(lane, &request)).into();
    Lane::new(requests, |requests, answered| {
        if let (2, [_, _, open, release]) = (answered, requests) {
            release.arg(offset_of!(ReleaseIn, fh), open.answer::<u64>(offset_of!(OpenOut, fh)));
        }
    })
}

fn making<'a>(guest: &'a Guest<'a>, lane: usize) -> Lane<'a> {
    let name = format!("made by {lane}").into_bytes();
    let arg = MkdirIn { mode: 0o755, umask: 0o022 };
    let requests = [
        Request::new(opcode::MKDIR, ROOT_ID).arg(&arg).name(&name).room::<EntryOut>(),
        request_getattr(0),
        request_setattr(0),
        Request::new(opcode::RMDIR, ROOT_ID).name(&name),
    ];
    let requests = requests.map(|request| guest.prepare_on(lane, &request)).into();
    Lane::new(requests, move |requests, answered| {
        let [mkdir, getattr, setattr, _] = requests else { unreachable!("four") };
        let node = mkdir.answer(offset_of!(EntryOut, nodeid));
        match answered {
            0 => [getattr, setattr].iter().for_each(|request| request.node(node)),
            3 => guest.forget(node, 1),
            _ => {}
        }
    })
}

pub fn mkdir<'a>(guest: &'a Guest<'a>) -> Step<'a> {
    let arg = MkdirIn { mode: 0o755, umask: 0o022 };
    let mkdir = Request::new(opcode::MKDIR, ROOT_ID).arg(&arg).name(b"old").room::<EntryOut>();
    let rename = Request::new(opcode::RENAME, ROOT_ID).arg(&RenameIn { newdir: ROOT_ID }).name(b"old").name(b"new");
    let [old, new] = [b"old", b"new"].map(|name| guest.prepare(&request_lookup(name)));
    let [mkdir, rename] = [mkdir, rename].map(|request| guest.prepare(&request));
    let rmdir = guest.prepare(&Request::new(opcode::RMDIR, ROOT_ID).name(b"new"));
    Box::new(move || {
        assert_eq!(guest.call(&old), Err(Errno::ENOENT));
        guest.call(&mkdir).expect("mkdir");
        assert_eq!(guest.call(&new), Err(Errno::ENOENT));
        guest.call(&rename).expect("rename");
        guest.call(&rmdir).expect("rmdir");
        guest.forget(mkdir.answer(offset_of!(EntryOut, nodeid)), 1);
        1
    })
}
