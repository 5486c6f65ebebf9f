//! A request before it is sent, well-formed or not.

use postern_server::fuse::abi::{EXT_GROUPS, ExtHeader, RECORD_ALIGN, SuppGroups};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// A request before it is sent.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    pub(crate) opcode: u32,
    pub(crate) nodeid: u64,
    pub(crate) args: Vec<u8>,
    pub(super) extlen: u16,
    pub(crate) data: &'a [u8],
    pub(crate) room_args: usize,
    pub(crate) room_data: usize,
    pub(super) no_reply: bool,
    pub(super) claimed_len: Option<u32>,
}

impl<'a> Request<'a> {
    /// Nothing but a header.
    pub fn new(opcode: u32, nodeid: u64) -> Self {
        Self {
            opcode,
            nodeid,
            args: Vec::new(),
            extlen: 0,
            data: &[],
            room_args: 0,
            room_data: 0,
            no_reply: false,
            claimed_len: None,
        }
    }

    /// Adds a structure.
    pub fn arg(self, arg: &(impl IntoBytes + Immutable)) -> Self {
        self.bytes(arg.as_bytes())
    }

    /// Adds bytes as they are.
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        self.args.extend(bytes);
        self
    }

    /// Adds a name and its NUL.
    pub fn name(self, name: &[u8]) -> Self {
        self.bytes(name).bytes(b"\0")
    }

    /// Adds data in pages.
    pub fn data(mut self, data: &'a [u8]) -> Self {
        self.data = data;
        self
    }

    /// Adds the supplementary group of the caller that matters here.
    pub fn group(mut self, group: u32) -> Self {
        let size = size_of::<ExtHeader>() + size_of::<SuppGroups>() + size_of::<u32>();
        self.extlen = (size / RECORD_ALIGN).try_into().expect("small");
        self.arg(&ExtHeader { size: size as u32, kind: EXT_GROUPS }).arg(&SuppGroups { nr_groups: 1 }).arg(&group)
    }

    /// Says that `units` of 8 bytes at the end are extensions.
    pub fn extlen(mut self, units: u16) -> Self {
        self.extlen = units;
        self
    }

    /// Makes room for a structure in the reply.
    pub fn room<T>(self) -> Self {
        let room = self.room_args + size_of::<T>();
        self.room_bytes(room)
    }

    /// Makes room for a reply of `room` bytes.
    pub fn room_bytes(mut self, room: usize) -> Self {
        self.room_args = room;
        self
    }

    /// Makes room for data in the reply.
    pub fn room_data(mut self, room: usize) -> Self {
        self.room_data = room;
        self
    }

    /// The structure its arguments begin with, and what follows it.
    pub(crate) fn parse<T: FromBytes>(&self) -> (T, &[u8]) {
        T::read_from_prefix(&self.args).expect("a whole structure")
    }

    /// Its first name, and what follows that.
    pub(crate) fn split_name(bytes: &[u8]) -> (&[u8], &[u8]) {
        let end = bytes.iter().position(|&byte| byte == 0).expect("a NUL behind a name");
        (&bytes[..end], &bytes[end + 1..])
    }

    /// Offers no memory for a reply.
    pub fn no_reply(mut self) -> Self {
        self.no_reply = true;
        self
    }

    /// Lies about the length of the request.
    pub fn claim_len(mut self, len: u32) -> Self {
        self.claimed_len = Some(len);
        self
    }
}
