//! A guest that mounts 9P2000.L: what Linux's v9fs makes of the requests of its processes.
//!
//! [`Mount`] takes each request in the form that FUSE has for it, and says it in 9P. What the protocol has no words
//! for is in [`WORDLESS`]. As v9fs does with `access=user`, every user attaches and walks for himself. What a guest's
//! kernel does for FUSE by leaving it to the server, it does here: the umask, the group of what is made in a
//! set-group-id directory, taking set-id bits off what is written.

mod attr;
mod data;
mod dir;
mod names;
mod nodes;
mod xattr;

use std::sync::Mutex;

use postern_server::fuse::abi::{InitFlags, opcode as op};
use postern_server::p9::message::*;
use postern_server::p9::wire::Text;
use zerocopy::{Immutable, IntoBytes};

use crate::fuse::{Caller, Request, Result};
use crate::kernel::{Kernel, Wordless};
use crate::p9::Client;
use nodes::Nodes;

/// What no 9P client can ask for, and why. A behaviour that needs it does not hold on such a share.
pub const WORDLESS: &[(&[u32], &str)] = &[
    (&[op::ACCESS], "the guest's kernel judges by the mode it was told"),
    (&[op::TMPFILE], "nothing is made without a name"),
    (&[op::RENAME2], "Trenameat has no flags"),
    (&[op::FALLOCATE], "space comes with what is written"),
    (&[op::LSEEK], "holes read as zeros"),
    (&[op::COPY_FILE_RANGE, op::COPY_FILE_RANGE_64], "the guest reads and writes"),
    (&[op::IOCTL], "no message for ioctl(2)"),
    (&[op::SYNCFS], "files are synchronised one by one"),
];

/// A share mounted over 9P.
pub struct Mount {
    client: Client,
    posix_acl: bool,
    nodes: Mutex<Nodes>,
}

impl Mount {
    /// Of a client that has agreed on the dialect; `posix_acl` is the option `posixacl`.
    pub fn new(client: Client, posix_acl: bool) -> Self {
        Self { client, posix_acl, nodes: Mutex::default() }
    }
}

impl Kernel for Mount {
    fn call(&self, _: usize, caller: Caller, request: &Request<'_>) -> Result<Vec<u8>> {
        let call = Call { mount: self, client: &self.client, caller, request, node: request.nodeid };
        match request.opcode {
            op::LOOKUP => call.lookup(),
            op::GETATTR => call.getattr(),
            op::STATX => call.statx(),
            op::SETATTR => call.setattr(),
            op::READLINK => call.readlink(),
            op::SYMLINK => call.symlink(),
            op::MKNOD => call.mknod(),
            op::MKDIR => call.mkdir(),
            op::UNLINK => call.unlink(0),
            op::RMDIR => call.unlink(AT_REMOVEDIR),
            op::RENAME => call.rename(),
            op::LINK => call.link(),
            op::CREATE => call.create(),
            op::OPEN | op::OPENDIR => call.open(),
            op::READ => call.read(),
            op::WRITE => call.write(),
            op::FLUSH => Ok(Vec::new()),
            op::RELEASE | op::RELEASEDIR => call.release(),
            op::FSYNC | op::FSYNCDIR => call.fsync(),
            op::READDIR => call.readdir(),
            op::STATFS => call.statfs(),
            op::SETXATTR => call.setxattr(),
            op::GETXATTR => call.getxattr(),
            op::LISTXATTR => call.listxattr(),
            op::REMOVEXATTR => call.removexattr(),
            opcode => wordless(opcode),
        }
    }

    fn tell(&self, _: Caller, request: &Request<'_>) {
        self.forget(request);
    }

    /// Nothing is left to the server; the umask comes with the request where ACLs may count instead.
    fn granted(&self) -> InitFlags {
        if self.posix_acl { InitFlags::DONT_MASK } else { InitFlags::empty() }
    }
}

/// Unlinkat's flag for directories. linux/net/9p/9p.h: P9_DOTL_AT_REMOVEDIR
const AT_REMOVEDIR: u32 = 0x200;
/// Bytes that a message with content has beside it at most. linux/net/9p/9p.h: P9_IOHDRSZ
const IOHDRSZ: u32 = 24;
/// Most bytes of content in a message.
const CONTENT: u32 = (1 << 20) - IOHDRSZ;

/// A request on its way.
struct Call<'a> {
    mount: &'a Mount,
    client: &'a Client,
    caller: Caller,
    request: &'a Request<'a>,
    node: u64,
}

impl Call<'_> {
    /// The caller's fid of the request's node.
    fn fid(&self) -> Result<u32> {
        self.mount.fid(self.caller.uid, self.node)
    }

    /// Another fid of the same, which lives until `act` is done.
    fn with_clone<T>(&self, act: impl FnOnce(u32) -> Result<T>) -> Result<T> {
        let fid = self.mount.walk(self.fid()?, &[])?;
        let done = act(fid);
        let clunked = self.client.clunk(fid);
        let done = done?;
        clunked.map(|()| done)
    }
}

/// The walk of [`Client`], by names that need not be text.
impl Mount {
    fn walk(&self, fid: u32, names: &[&[u8]]) -> Result<u32> {
        let newfid = self.client.fid();
        let names = names.iter().map(|name| Text(name)).collect();
        self.client.call::<_, Rwalk>(&Twalk { fid, newfid, names })?;
        Ok(newfid)
    }
}

/// A reply of one structure.
fn reply(structure: &(impl IntoBytes + Immutable)) -> Result<Vec<u8>> {
    Ok(structure.as_bytes().to_vec())
}

fn wordless(opcode: u32) -> ! {
    let row = WORDLESS.iter().find(|row| row.0.contains(&opcode));
    let why = row.unwrap_or_else(|| panic!("{opcode} is FUSE's own: the test is to be applied as `virtiofs`")).1;
    std::panic::panic_any(Wordless { opcode, why })
}
