//! Extended attributes, and the security labels of new files, which are such.

use postern_ipc::attr::XattrFlags;
use postern_ipc::name::{FileName, XattrName};
use postern_ipc::{Errno, Result};

use super::abi;
use super::args::{Call, Label};
use super::incapable::CAPABILITY;
use super::op::room;
use super::session::{Encode, Filled, Session};
use crate::content::Room;
use crate::fs::{Entry, Fs, NodeId, xattr_name};

pub(super) fn setxattr<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    let args = s.setxattr_in(call)?;
    let name = s.xattr_name(call.string()?)?;
    let mut flags =
        XattrFlags::from_bits(args.flags).filter(|f| !f.contains(XattrFlags::KILL_SGID)).ok_or(Errno::EINVAL)?;
    flags.set(XattrFlags::KILL_SGID, args.setxattr_flags.contains(abi::SetxattrFlags::ACL_KILL_SGID));
    let value = call.bytes(args.size)?;
    s.set(call.node(), &name, value, flags)
}

pub(super) fn getxattr<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<XattrAnswer> {
    let args: abi::GetxattrIn = call.take()?;
    let name = s.xattr_name(call.string()?)?;
    let (node, asked) = (call.node(), s.incapable.ask());
    let capability = name.as_bytes() == CAPABILITY;
    if capability && s.incapable.knows(node) {
        return Err(Errno::ENODATA);
    }
    let mut room = room(call, args.size);
    let length = s.fs.getxattr(node, &name, args.size, &mut room).inspect_err(|&errno| {
        if capability && errno == Errno::ENODATA {
            s.incapable.learn(node, asked);
        }
    })?;
    Ok(XattrAnswer::new(args.size, length, &room))
}

pub(super) fn listxattr<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<XattrAnswer> {
    let args: abi::GetxattrIn = call.take()?;
    s.has_xattr()?;
    let mut room = room(call, args.size);
    let length = s.fs.listxattr(call.node(), args.size, &mut room)?;
    Ok(XattrAnswer::new(args.size, length, &room))
}

pub(super) fn removexattr<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<()> {
    let name = s.xattr_name(call.string()?)?;
    s.fs.removexattr(call.node(), &name)
}

/// A length when none was given, else a value that is already in its place.
pub(super) enum XattrAnswer {
    Length(abi::GetxattrOut),
    Value(Filled),
}

impl XattrAnswer {
    fn new(size: u32, length: u32, room: &Room<'_>) -> Self {
        match size {
            0 => Self::Length(abi::GetxattrOut { size: length, padding: 0 }),
            _ => Self::Value(Filled(room.filled())),
        }
    }
}

impl Encode for XattrAnswer {
    fn encode(&self, call: &Call<'_>) -> Result<usize> {
        match self {
            Self::Length(length) => length.encode(call),
            Self::Value(filled) => filled.encode(call),
        }
    }
}

impl<F: Fs> Session<F> {
    pub(super) fn label<'a>(&self, call: &Call<'a>) -> Result<Option<Label<'a>>> {
        if self.labels() { call.label() } else { Ok(None) }
    }

    pub(super) fn labels(&self) -> bool {
        self.agreed(abi::InitFlags::SECURITY_CTX)
    }

    /// Gives a new file its security label, if the guest sent one; a file that cannot have it is not left behind.
    pub(super) fn labelled(&self, call: &Call<'_>, name: &FileName, entry: Entry) -> Result<abi::EntryOut> {
        match self.set_label(call, entry.node) {
            Ok(()) => Ok(self.entry(&entry)),
            Err(errno) => {
                let is_dir = entry.attr.kind() == libc::S_IFDIR;
                let _ = if is_dir { self.fs.rmdir(call.node(), name) } else { self.fs.unlink(call.node(), name) };
                self.fs.forget(entry.node, 1);
                Err(errno)
            }
        }
    }

    /// The same of a node whoever made it. Its name is that of any attribute: one that is an ACL's is no label.
    pub(super) fn set_label(&self, call: &Call<'_>, node: NodeId) -> Result<()> {
        let Some(Label { name, value }) = self.label(call)? else { return Ok(()) };
        self.set(node, &self.xattr_name(name)?, value, XattrFlags::empty())
    }

    fn set(&self, node: NodeId, name: &XattrName, value: &[u8], flags: XattrFlags) -> Result<()> {
        let done = self.fs.setxattr(node, name, value, flags);
        if name.as_bytes() == CAPABILITY {
            self.incapable.forget(node);
        }
        done
    }

    fn has_xattr(&self) -> Result<()> {
        if self.settings.xattr { Ok(()) } else { Err(Errno::ENOSYS) }
    }

    fn xattr_name(&self, name: &[u8]) -> Result<XattrName> {
        self.has_xattr()?;
        xattr_name(name, self.settings.posix_acl)
    }
}
