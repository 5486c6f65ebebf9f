//! Walking a path of QEMU's: one name after the other from the root of the share, as after chroot(2), no symbolic link
//! followed.

use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};

use crate::fs::{Entry, Fs, NodeId, ROOT};

/// Longest path, bytes. limits.h: PATH_MAX, without its NUL
const PATH_MAX: usize = 4095;

/// A place in the share, held until dropped.
pub(super) struct Spot<'a, F: Fs> {
    fs: &'a F,
    /// From below the root down.
    way: Vec<Entry>,
}

impl<'a, F: Fs> Spot<'a, F> {
    /// Where a path leads.
    ///
    /// # Errors
    /// EINVAL for a path that does not begin at the root, ENAMETOOLONG, and those of looking up.
    pub(super) fn find(fs: &'a F, path: &[u8]) -> Result<Self> {
        let mut spot = Self { fs, way: Vec::new() };
        for name in names(path)? {
            spot.enter(name)?;
        }
        Ok(spot)
    }

    /// The directory that a path's last name is in, and that name.
    ///
    /// # Errors
    /// As [`Self::find`]; EINVAL for the root, "." and "..".
    pub(super) fn parent(fs: &'a F, path: &'a [u8]) -> Result<(Self, FileName)> {
        let mut spot = Self { fs, way: Vec::new() };
        let mut names = names(path)?.peekable();
        while let Some(name) = names.next() {
            if names.peek().is_none() {
                return Ok((spot, FileName::new(name)?));
            }
            spot.enter(name)?;
        }
        Err(Errno::EINVAL)
    }

    /// The node there.
    pub(super) fn node(&self) -> NodeId {
        self.way.last().map_or(ROOT, |entry| entry.node)
    }

    /// "." and ".." come as they are: QEMU stops ".." at the root only.
    fn enter(&mut self, name: &[u8]) -> Result<()> {
        if matches!(name, b"." | b"..") {
            if self.way.last().is_some_and(|entry| entry.attr.kind() != libc::S_IFDIR) {
                return Err(Errno::ENOTDIR);
            }
            let left = if name == b".." { self.way.pop() } else { None };
            left.iter().for_each(|entry| self.fs.forget(entry.node, 1));
            return Ok(());
        }
        self.way.push(self.fs.lookup(self.node(), &FileName::new(name)?)?);
        Ok(())
    }
}

impl<F: Fs> Drop for Spot<'_, F> {
    fn drop(&mut self) {
        self.way.iter().for_each(|entry| self.fs.forget(entry.node, 1));
    }
}

/// Some of QEMU's paths count the NUL at their end.
fn names(path: &[u8]) -> Result<impl Iterator<Item = &[u8]>> {
    let path = path.strip_suffix(b"\0").unwrap_or(path);
    if path.len() > PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let names = path.strip_prefix(b"/").ok_or(Errno::EINVAL)?;
    Ok(names.split(|byte| *byte == b'/').filter(|name| !name.is_empty()))
}
