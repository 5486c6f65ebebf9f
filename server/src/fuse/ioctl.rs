//! The ioctls that are served: a file's flags, its project and its version. ioctl_iflags(2), linux/fs.h

use postern_ipc::op::Fsx;
use postern_ipc::{Errno, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::abi;
use super::args::Call;
use super::op::room;
use super::session::{Filled, Session};
use crate::fs::{Fs, Object, Sink as _};

/// `struct fsxattr` of linux/fs.h.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FsXattr {
    xflags: u32,
    extsize: u32,
    nextents: u32,
    projid: u32,
    cowextsize: u32,
    pad: [u8; 8],
}

/// The ioctls served, as linux/fs.h numbers them for 64 bits, and for 32 where that differs.
mod ioctl_nr {
    pub(super) const GETFLAGS: u32 = 0x8008_6601;
    pub(super) const SETFLAGS: u32 = 0x4008_6602;
    pub(super) const GETFLAGS32: u32 = 0x8004_6601;
    pub(super) const SETFLAGS32: u32 = 0x4004_6602;
    pub(super) const GETVERSION: u32 = 0x8008_7601;
    pub(super) const GETVERSION32: u32 = 0x8004_7601;
    pub(super) const FSGETXATTR: u32 = 0x801c_581f;
    pub(super) const FSSETXATTR: u32 = 0x401c_5820;
}

/// The answer to IOCTL: its header is written last, once the data behind it is there.
pub(super) fn ioctl<F: Fs>(s: &Session<F>, call: &mut Call<'_>) -> Result<Filled> {
    let args: abi::IoctlIn = call.take()?;
    if args.flags.contains(abi::IoctlFlags::UNRESTRICTED) {
        return Err(Errno::ENOTTY);
    }
    let object = if args.flags.contains(abi::IoctlFlags::DIR) { Object::Dir } else { Object::File };
    s.fs.check(call.handle(args.fh, object))?;
    let input = call.bytes(args.in_size)?;
    let word = || u32::read_from_prefix(input).map(|(word, _)| word).map_err(|_| Errno::EINVAL);
    let node = call.node();
    let mut out = Vec::new();
    match args.cmd {
        ioctl_nr::GETFLAGS | ioctl_nr::GETFLAGS32 => out.extend(u64::from(s.fs.get_flags(node)?).to_ne_bytes()),
        ioctl_nr::GETVERSION | ioctl_nr::GETVERSION32 => out.extend(u64::from(s.fs.get_version(node)?).to_ne_bytes()),
        ioctl_nr::SETFLAGS | ioctl_nr::SETFLAGS32 => s.fs.set_flags(node, word()?)?,
        ioctl_nr::FSGETXATTR => {
            let Fsx { xflags, extsize, nextents, projid, cowextsize } = s.fs.get_fsx(node)?;
            out.extend(FsXattr { xflags, extsize, nextents, projid, cowextsize, pad: [0; 8] }.as_bytes());
        }
        ioctl_nr::FSSETXATTR => {
            let (asked, _) = FsXattr::read_from_prefix(input).map_err(|_| Errno::EINVAL)?;
            let FsXattr { xflags, extsize, nextents, projid, cowextsize, .. } = asked;
            s.fs.set_fsx(node, Fsx { xflags, extsize, nextents, projid, cowextsize })?;
        }
        _ => return Err(Errno::ENOTTY),
    }
    // A word is answered in as many bytes as are asked for: 4 or 8.
    out.truncate(usize::try_from(args.out_size).unwrap_or(usize::MAX));
    let header = abi::IoctlOut::default();
    let mut room = room(call, u32::MAX);
    room.put(header.as_bytes())?;
    room.put(&out)?;
    Ok(Filled(room.filled()))
}
