//! Workloads of open files and directories.

use std::mem::offset_of;

use postern_server::fuse::abi::{Dirent, Direntplus, OpenIn, OpenOut, ReadIn, ReleaseIn, WriteIn, WriteOut};
use postern_tests::prelude::*;
use zerocopy::FromBytes;

use crate::guest::Guest;
use crate::names::Close;
use crate::pipeline::{self, Lane, ROUNDS};
use crate::workload::{DIRS, LARGE, MANY, MIB, PAGE, Step, dir, entry, node};

/// The same file again and again.
pub fn open<'a>(guest: &'a Guest<'a>) -> Step<'a> {
    open_each(guest, vec![node(guest, "small")])
}

/// Files that were not opened lately.
pub fn open_many<'a>(guest: &'a Guest<'a>) -> Step<'a> {
    let files = |i| {
        let dir = node(guest, &dir(i));
        (0..MANY).map(move |i| guest.process.lookup((dir, entry(i).as_str())).expect("planted").nodeid)
    };
    open_each(guest, (0..DIRS).flat_map(files).collect())
}

/// The same in the order in which they are listed, each directory before its files are opened.
pub fn open_listed<'a>(guest: &'a Guest<'a>) -> Step<'a> {
    let mut lists: Vec<_> = (0..DIRS).map(|i| list(guest, node(guest, &dir(i)))).collect();
    let mut open = open_each(guest, (0..DIRS).flat_map(|i| listed(guest, &dir(i))).collect());
    let (mut at, mut left) = (0, 0);
    Box::new(move || {
        if left == 0 {
            lists[at]();
            (at, left) = ((at + 1) % lists.len(), MANY);
        }
        left -= 1;
        open()
    })
}

/// Nodes of a directory's files in the order in which they are listed.
fn listed(guest: &Guest<'_>, dir: &str) -> Vec<u64> {
    let process = guest.process;
    let dir = process.opendir(node(guest, dir)).expect("planted");
    let mut listed = Vec::new();
    let mut offset = 0;
    loop {
        let page = process.readdirplus(&dir, offset, PAGE).expect("a directory");
        let Some((_, last)) = page.last() else { break };
        offset = last.off;
        listed.extend(page.into_iter().filter(|(_, entry)| !entry.name.starts_with('.')).map(|(out, _)| out.nodeid));
    }
    process.releasedir(&dir).expect("open");
    assert_eq!(listed.len(), MANY as usize);
    listed
}

fn open_each<'a>(guest: &'a Guest<'a>, nodes: Vec<u64>) -> Step<'a> {
    let open = guest.prepare(&Request::new(opcode::OPEN, 0).arg(&OpenIn::default()).room::<OpenOut>());
    let read = guest.prepare(&request_read(opcode::READ, 0, PAGE));
    let close = Close::new(guest);
    let mut nodes = nodes.into_iter().cycle();
    Box::new(move || {
        let node = nodes.next().expect("a cycle");
        open.node(node);
        guest.call(&open).expect("open");
        let fh = open.answer(offset_of!(OpenOut, fh));
        read.node(node);
        read.arg(offset_of!(ReadIn, fh), fh);
        guest.call(&read).expect("read");
        close.call(guest, node, fh);
        1
    })
}

fn request_read(opcode: u32, node: u64, size: u32) -> Request<'static> {
    Request::new(opcode, node).arg(&ReadIn { size, ..Default::default() }).room_data(size as usize)
}

/// A whole directory, a page of entries at a time, from OPENDIR to RELEASEDIR.
pub fn readdirplus<'a>(guest: &'a Guest<'a>) -> Step<'a> {
    list(guest, node(guest, &dir(0)))
}

fn list<'a>(guest: &'a Guest<'a>, node: u64) -> Step<'a> {
    let open = guest.prepare(&Request::new(opcode::OPENDIR, node).arg(&OpenIn::default()).room::<OpenOut>());
    let read = guest.prepare(&request_read(opcode::READDIRPLUS, node, PAGE));
    let close = guest.prepare(&Request::new(opcode::RELEASEDIR, node).arg(&ReleaseIn::default()));
    Box::new(move || {
        guest.call(&open).expect("opendir");
        let fh: u64 = open.answer(offset_of!(OpenOut, fh));
        read.arg(offset_of!(ReadIn, fh), fh);
        let (mut offset, mut entries) = (0, 0);
        loop {
            read.arg(offset_of!(ReadIn, offset), offset);
            guest.call(&read).expect("readdir");
            let Some((count, next)) = last(&read.data()) else { break };
            (offset, entries) = (next, entries + count);
        }
        close.arg(offset_of!(ReleaseIn, fh), fh);
        guest.call(&close).expect("releasedir");
        entries
    })
}

/// Number of entries in a reply, and where the one after the last is.
fn last(mut reply: &[u8]) -> Option<(u32, u64)> {
    let (mut count, mut next) = (0, None);
    while let Ok((entry, _)) = Direntplus::read_from_prefix(reply) {
        let Dirent { off, namelen, .. } = entry.dirent;
        let size = (size_of::<Direntplus>() + namelen as usize).next_multiple_of(abi::RECORD_ALIGN);
        reply = &reply[size..];
        count += 1;
        next = Some(off);
    }
    next.map(|next| (count, next))
}

/// A place in the large file, for pieces of `size` bytes.
pub struct Places {
    size: u64,
    state: u64,
}

impl Places {
    /// The first.
    pub fn new(size: u32) -> Self {
        Self { size: size.into(), state: 0 }
    }

    /// The one after it.
    pub fn next(&mut self) -> u64 {
        self.state += 1;
        self.state * self.size % LARGE
    }

    /// Any.
    pub fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 32) % (LARGE / self.size) * self.size
    }
}

pub fn bulk_read<'a>(guest: &'a Guest<'a>) -> Step<'a> {
    let read = guest.prepare(&guest.process.read_as(opcode::READ, &guest.large, 0, MIB));
    let mut places = Places::new(MIB);
    Box::new(move || {
        read.arg(offset_of!(ReadIn, offset), places.next());
        guest.call(&read).expect("read");
        1
    })
}

pub fn bulk_write<'a>(guest: &'a Guest<'a>) -> Step<'a> {
    let File { node, fh, .. } = guest.large;
    let arg = WriteIn { fh, size: MIB, ..Default::default() };
    let data = vec![3; MIB as usize];
    let write = guest.prepare(&Request::new(opcode::WRITE, node).arg(&arg).data(&data).room::<WriteOut>());
    let mut places = Places::new(MIB);
    Box::new(move || {
        write.arg(offset_of!(WriteIn, offset), places.next());
        guest.call(&write).expect("write");
        1
    })
}

/// So many at once.
pub fn random_reads<'a, const DEPTH: usize>(guest: &'a Guest<'a>) -> Step<'a> {
    let read = guest.process.read_as(opcode::READ, &guest.large, 0, PAGE);
    let lane = |seed| {
        let mut places = Places { size: PAGE.into(), state: seed };
        Lane::new(vec![guest.prepare(&read)], move |reads, _| reads[0].arg(offset_of!(ReadIn, offset), places.random()))
    };
    let mut lanes: Vec<_> = (0..DEPTH as u64).map(lane).collect();
    Box::new(move || pipeline::run(guest, &mut lanes, ROUNDS))
}
