//! Extended attributes: a fid of the value is walked to and read, or made, written and clunked.

use libc::XATTR_REPLACE;
use nix::errno::Errno;
use postern_server::fuse::abi::{COMPAT_SETXATTR_IN_SIZE, GetxattrIn, GetxattrOut};
use postern_server::p9::message::{Rxattrcreate, Rxattrwalk, Txattrcreate, Txattrwalk};
use postern_server::p9::wire::Text;

use super::{Call, reply};
use crate::fuse::{Request, Result};

impl Call<'_> {
    pub(super) fn setxattr(&self) -> Result<Vec<u8>> {
        let (arg, rest) = self.request.args.split_at(COMPAT_SETXATTR_IN_SIZE);
        let flags = u32::from_ne_bytes(arg[4..].try_into().expect("four bytes"));
        let (name, value) = Request::split_name(rest);
        self.set(name, value, flags).map(|()| Vec::new())
    }

    pub(super) fn getxattr(&self) -> Result<Vec<u8>> {
        let (GetxattrIn { size, .. }, rest) = self.request.parse();
        self.value(Request::split_name(rest).0, size)
    }

    /// The names are the value of no name.
    pub(super) fn listxattr(&self) -> Result<Vec<u8>> {
        let (GetxattrIn { size, .. }, _) = self.request.parse();
        self.value(b"", size)
    }

    pub(super) fn removexattr(&self) -> Result<Vec<u8>> {
        self.remove(Request::split_name(&self.request.args).0).map(|()| Vec::new())
    }

    /// A value is replaced by nothing.
    pub(super) fn remove(&self, name: &[u8]) -> Result<()> {
        self.set(name, b"", XATTR_REPLACE.cast_unsigned())
    }

    fn set(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        self.with_clone(|fid| {
            let size = value.len() as u64;
            self.client.call::<_, Rxattrcreate>(&Txattrcreate { fid, name: Text(name), size, flags })?;
            self.write_all(fid, 0, value).map(drop)
        })
    }

    /// A value, or how long it is.
    pub(super) fn value(&self, name: &[u8], size: u32) -> Result<Vec<u8>> {
        let newfid = self.client.fid();
        let walked: Rxattrwalk = self.client.call(&Txattrwalk { fid: self.fid()?, newfid, name: Text(name) })?;
        let room = u32::try_from(walked.size).expect("small");
        let value = match size {
            0 => reply(&GetxattrOut { size: room, padding: 0 }),
            size if size < room => Err(Errno::ERANGE),
            _ => self.client.read(newfid, 0, room),
        };
        self.client.clunk(newfid)?;
        value
    }
}
