//! What the empty server says: what a client of the benchmark expects, made up before.

use std::os::fd::OwnedFd;

use nix::errno::Errno;
use postern_server::fuse::abi::{
    AttrOut, Dirent, Direntplus, EntryOut, InHeader, InitIn, InitOut, OpenOut, OpenOutFlags, OutHeader, ReadIn,
    WriteIn, WriteOut, opcode,
};
use postern_tests::prelude::*;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::hop::Hop;
use crate::workload::{MANY, MIB, PAGE, entry};

/// The node of all that exists.
const NODE: u64 = 2;

/// Entries in a page.
const PER_PAGE: usize = PAGE as usize / (size_of::<Direntplus>() + 8);

/// What one queue's thread answers with.
pub struct Answers {
    hop: Hop,
    /// Data of every file.
    data: Vec<u8>,
    /// The pages of every directory.
    pages: Vec<Vec<u8>>,
    /// Whether the file is there that a workload creates.
    created: bool,
    open: Vec<OwnedFd>,
}

impl Answers {
    /// With a helper of its own.
    pub fn new() -> Self {
        let entries: Vec<_> = (0..MANY).map(directory_entry).collect();
        let pages = entries.chunks(PER_PAGE).map(<[_]>::concat).collect();
        Self { hop: Hop::start(), data: vec![1; MIB as usize], pages, created: false, open: Vec::new() }
    }

    /// Writes the answer's header and arguments, and gives the data behind them.
    pub fn answer(&mut self, asked: &[u8], said: &mut Vec<u8>) -> &[u8] {
        let (header, args) = InHeader::read_from_prefix(asked).expect("a header");
        if header.opcode == opcode::FORGET {
            return &[];
        }
        said.extend(OutHeader::default().as_bytes());
        let (error, data) = match self.serve(header.opcode, args, said) {
            Ok(data) => (0, data),
            Err(errno) => (-(errno as i32), &[][..]),
        };
        let len = (said.len() + data.len()) as u32;
        said[..size_of::<OutHeader>()].copy_from_slice(OutHeader { len, error, unique: header.unique }.as_bytes());
        data
    }

    fn serve(&mut self, opcode: u32, args: &[u8], said: &mut Vec<u8>) -> Result<&[u8], Errno> {
        match opcode {
            opcode::INIT => put(said, &init(read(args))),
            opcode::LOOKUP if args == b"new\0" && !self.created || args == b"old\0" => return Err(ENOENT),
            opcode::LOOKUP => put(said, &found()),
            opcode::GETATTR => put(said, &AttrOut::default()),
            opcode::SETATTR => {
                self.hop.call(false, false);
                put(said, &AttrOut::default());
            }
            opcode::OPEN | opcode::OPENDIR => self.open(true, said),
            opcode::CREATE => {
                put(said, &found());
                self.open(false, said);
                self.created = true;
            }
            opcode::RELEASE | opcode::RELEASEDIR => drop(self.open.pop()),
            opcode::READ => return Ok(&self.data[..read::<ReadIn>(args).size as usize]),
            opcode::WRITE => put(said, &WriteOut { size: read::<WriteIn>(args).size, padding: 0 }),
            opcode::READDIRPLUS => {
                let page = read::<ReadIn>(args).offset as usize / PER_PAGE;
                return Ok(self.pages.get(page).map_or(&[], Vec::as_slice));
            }
            opcode::MKDIR => {
                self.hop.call(false, false);
                put(said, &found());
            }
            opcode::UNLINK | opcode::RMDIR => {
                self.hop.call(false, false);
                self.created = false;
            }
            opcode::RENAME => drop(self.hop.call(false, false)),
            _ => return Err(ENOSYS),
        }
        Ok(&[])
    }

    fn open(&mut self, sends: bool, said: &mut Vec<u8>) {
        self.open.extend(self.hop.call(sends, true));
        put(said, &OpenOut { fh: 1, open_flags: OpenOutFlags::NOFLUSH, backing_id: 0 });
    }
}

fn put(said: &mut Vec<u8>, what: &(impl IntoBytes + Immutable)) {
    said.extend(what.as_bytes());
}

fn read<T: FromBytes>(args: &[u8]) -> T {
    T::read_from_prefix(args).expect("arguments").0
}

/// All that is offered, and the longest requests.
fn init(asked: InitIn) -> InitOut {
    let InitIn { major, minor, max_readahead, flags, flags2, .. } = asked;
    let max_pages = (MIB / PAGE) as u16;
    InitOut { major, minor, max_readahead, flags, flags2, max_write: MIB, max_pages, ..Default::default() }
}

fn found() -> EntryOut {
    EntryOut { nodeid: NODE, ..Default::default() }
}

fn directory_entry(i: u32) -> Vec<u8> {
    let name = entry(i);
    let dirent = Dirent { ino: 2, off: u64::from(i) + 1, namelen: name.len() as u32, kind: 8 };
    [Direntplus { entry: found(), dirent }.as_bytes(), name.as_bytes()].concat()
}
