//! Extended attributes. The calls take paths only, so the working directory of each serving thread is the process's
//! /proc/self/fd, and the path is the node's number there. It leads to the very node, a symbolic link included.

use std::os::fd::OwnedFd;

use nix::libc;
use postern_ipc::attr::{Changes, Mode as Bits, XattrFlags};
use postern_ipc::frame::DATA_MAX;
use postern_ipc::id::Caller;
use postern_ipc::name::XattrName;
use postern_ipc::op::{Answer, GetXattr, ListXattr, RemoveXattr, SetXattr};
use postern_ipc::{Errno, Result};
use postern_policy::right::Right;
use postern_policy::sandbox::seccomp::Call;
use rustix::buffer::spare_capacity;
use rustix::fs::{
    Mode, XattrFlags as HostFlags, getxattr, getxattr_query, listxattr, listxattr_query, removexattr, setxattr,
};

use crate::guard::SETID;
use crate::names::{ACLS, Use, is_users};
use crate::op::named;
use crate::pin::Pin;
use crate::serve::Serve;
use crate::share::{self, Share};

/// Room for as much as was asked for and a frame holds.
fn room(size: u32) -> Vec<u8> {
    Vec::with_capacity(usize::try_from(size).unwrap_or(DATA_MAX).min(DATA_MAX))
}

fn length(bytes: usize) -> Result<u32> {
    u32::try_from(bytes).map_err(|_| Errno::E2BIG)
}

/// What was asked for: the size, or so many bytes.
fn sized<T>(size: u32, value: Vec<u8>) -> Result<(u32, [T; 0], Vec<u8>)> {
    match (size, length(value.len())?) {
        (0, length) => Ok((length, [], vec![])),
        (size, length) if size < length => Err(Errno::ERANGE),
        (_, length) => Ok((length, [], value)),
    }
}

impl Serve for GetXattr {
    const NEEDS: Right = Right::Read;
    const CALLS: &'static [&'static [Call]] = &[&[Call::any(libc::SYS_getxattr, "reads an attribute"), share::STAT]];

    fn serve(self, [node]: [&Pin; 1], _: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd> {
        let host = share.names.host(&self.name, caller, Use::Read)?;
        let (number, name) = (Share::number(node), host.as_c_str());
        let get =
            |value: &mut Vec<u8>| share.over(node, || Ok(getxattr(number.as_c_str(), name, spare_capacity(value))?));
        if let Some(most) = named::resized(&host, &share.translation) {
            let mut value = room(most);
            get(&mut value)?;
            named::inward(&host, &mut value, &share.translation)?;
            return sized(self.size, value);
        }
        if self.size == 0 {
            return Ok((length(share.over(node, || Ok(getxattr_query(number.as_c_str(), name)?))?)?, [], vec![]));
        }
        let mut value = room(self.size);
        get(&mut value)?;
        named::inward(&host, &mut value, &share.translation)?;
        Ok((length(value.len())?, [], value))
    }
}

impl Serve for ListXattr {
    const NEEDS: Right = Right::Read;
    const CALLS: &'static [&'static [Call]] = &[&[Call::any(libc::SYS_listxattr, "lists attributes")]];

    fn serve(self, [node]: [&Pin; 1], _: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd> {
        if !share.names.are_the_hosts() {
            return sized(self.size, shown(node, share, caller)?);
        }
        if self.size == 0 {
            return Ok((length(listxattr_query(Share::number(node))?)?, [], vec![]));
        }
        let mut names = room(self.size);
        listxattr(Share::number(node), spare_capacity(&mut names))?;
        Ok((length(names.len())?, [], names))
    }
}

/// The names that are the guest's.
fn shown(node: &Pin, share: &Share, caller: Caller) -> Result<Vec<u8>> {
    let mut names = room(u32::MAX);
    listxattr(Share::number(node), spare_capacity(&mut names))?;
    Ok(share.names.shown(&names, caller))
}

/// The host's name of an attribute that is to be changed. EPERM for a `user.*` one of what a file only stands for.
/// xattr(7): "user attributes are allowed only for regular files and directories"
fn changeable(node: &Pin, name: &XattrName, share: &Share, caller: Caller) -> Result<XattrName> {
    let host = share.names.host(name, caller, Use::Change)?;
    if ACLS.contains(&host.as_bytes()) {
        share.guard.hand(node)?;
    }
    let special = || Ok::<_, Errno>(!matches!(share.attr(node)?.kind(), libc::S_IFREG | libc::S_IFDIR));
    if share.model.is_mapped() && is_users(name) && special()? { Err(Errno::EPERM) } else { Ok(host) }
}

impl Serve for SetXattr {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] =
        &[&[Call::any(libc::SYS_setxattr, "sets an attribute"), share::STAT], share::CHMOD];

    fn serve(self, [node]: [&Pin; 1], data: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd> {
        let name = changeable(node, &self.name, share, caller)?;
        share.guard.xattr(&name)?;
        let flags = HostFlags::from_bits_retain(self.flags.difference(XattrFlags::KILL_SGID).bits());
        let value = named::outward(&name, data, &share.translation)?;
        let set = || Ok(setxattr(Share::number(node), name.as_c_str(), &value, flags)?);
        share.changing(node, name.as_bytes(), set)?;
        if self.flags.contains(XattrFlags::KILL_SGID) {
            kill_sgid(node, share)?;
        }
        Ok(((), [], vec![]))
    }
}

/// The guest's kernel has judged that whoever set the ACL is not of the file's group.
fn kill_sgid(node: &Pin, share: &Share) -> Result<()> {
    let mode = share.attr(node)?.mode & 0o7777;
    if mode & libc::S_ISGID == 0 {
        return Ok(());
    }
    let kept = Changes { mode: Some(Bits::new(mode & !libc::S_ISGID)), ..Changes::default() };
    if share.change(node, &kept, |_| Ok(()))? {
        return Ok(());
    }
    let taken = if share.guard.setid { libc::S_ISGID } else { SETID };
    share.chmod(node, Mode::from_raw_mode(mode & !taken))
}

impl Serve for RemoveXattr {
    const NEEDS: Right = Right::Write;
    const CALLS: &'static [&'static [Call]] =
        &[&[Call::any(libc::SYS_removexattr, "removes an attribute"), share::STAT]];

    fn serve(self, [node]: [&Pin; 1], _: &[u8], share: &Share, caller: Caller) -> Answer<Self, OwnedFd> {
        let name = changeable(node, &self.name, share, caller)?;
        let remove = || Ok(removexattr(Share::number(node), name.as_c_str())?);
        share.changing(node, name.as_bytes(), remove)?;
        Ok(((), [], vec![]))
    }
}
