//! Extended attributes: a fid that holds a value is walked to and read, or made, written and set when it is clunked.

use std::sync::PoisonError;

use postern_ipc::attr::XattrFlags;
use postern_ipc::frame::DATA_MAX;
use postern_ipc::name::XattrName;
use postern_ipc::{Errno, Result};

use super::carrier::{Buffer, Carrier};
use super::fid::{Fid, NewValue, Role, Value};
use super::message::{Rxattrcreate, Rxattrwalk, Txattrcreate, Txattrwalk};
use super::session::{Call, Session};
use crate::fs::{Fs, xattr_name};

/// The new fid holds the value, or with an empty name the list of names, as it was at this moment.
pub(super) fn xattrwalk<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Txattrwalk<'_>) -> Result<Rxattrwalk> {
    let fid = s.fids.get(t.fid)?;
    s.has_xattr()?;
    let mut value = Buffer::new(DATA_MAX);
    let most = u32::try_from(DATA_MAX).unwrap_or(u32::MAX);
    match t.name.0 {
        b"" => fid.fs().listxattr(fid.node(), most, &mut value)?,
        name => fid.fs().getxattr(fid.node(), &s.xattr_name(name)?, most, &mut value)?,
    };
    let ticket = s.fids.value(value.bytes.len())?;
    let size = u64::try_from(value.bytes.len()).map_err(|_| Errno::EIO)?;
    s.fids.insert(t.newfid, fid.with(Role::Value(Value::new(value.bytes, ticket))))?;
    Ok(Rxattrwalk { size })
}

/// The fid takes a value of `size` bytes from now on.
pub(super) fn xattrcreate<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Txattrcreate<'_>) -> Result<Rxattrcreate> {
    let fid = s.fids.get(t.fid)?;
    fid.is_walked()?;
    let name = s.xattr_name(t.name.0)?;
    let settable = XattrFlags::CREATE | XattrFlags::REPLACE;
    let flags = XattrFlags::from_bits(t.flags).filter(|&flags| settable.contains(flags)).ok_or(Errno::EINVAL)?;
    let size = usize::try_from(t.size).ok().filter(|&size| size <= DATA_MAX).ok_or(Errno::E2BIG)?;
    let new = NewValue::new(name, flags, size, s.fids.value(size)?);
    s.fids.replace(t.fid, &fid, fid.with(Role::NewValue(Box::new(new))))?;
    Ok(Rxattrcreate {})
}

/// Part of a value that was walked to.
pub(super) fn read_value(value: &[u8], offset: u64, to: &mut dyn Carrier) -> Result<()> {
    let start = usize::try_from(offset).unwrap_or(usize::MAX).min(value.len());
    let rest = value.get(start..).unwrap_or_default();
    to.put(rest.get(..to.room()).unwrap_or(rest))
}

/// The next part of a value: parts come in order. ENOSPC beyond its announced size.
pub(super) fn write_value(new: &NewValue, offset: u64, from: &mut dyn Carrier) -> Result<usize> {
    let mut written = new.value.lock().unwrap_or_else(PoisonError::into_inner);
    if usize::try_from(offset) != Ok(written.len) {
        return Err(Errno::EINVAL);
    }
    let end = written.len.checked_add(from.left()).ok_or(Errno::ENOSPC)?;
    let start = written.len;
    let taken = from.take(written.bytes.get_mut(start..end).ok_or(Errno::ENOSPC)?)?;
    written.len = end;
    Ok(taken)
}

/// All of the value has come: it is set. Linux removes an attribute by replacing it with nothing.
pub(super) fn set_value<F: Fs>(fid: &Fid<F>, new: &NewValue) -> Result<()> {
    let written = new.value.lock().unwrap_or_else(PoisonError::into_inner);
    if written.len != written.bytes.len() {
        return Err(Errno::EINVAL);
    }
    if written.bytes.is_empty() && new.flags == XattrFlags::REPLACE {
        return fid.fs().removexattr(fid.node(), &new.name);
    }
    fid.fs().setxattr(fid.node(), &new.name, &written.bytes, new.flags)
}

impl<F: Fs> Session<F> {
    fn has_xattr(&self) -> Result<()> {
        if self.settings.xattr { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
    }

    fn xattr_name(&self, name: &[u8]) -> Result<XattrName> {
        self.has_xattr()?;
        xattr_name(name, self.settings.posix_acl)
    }
}
