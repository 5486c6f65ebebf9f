//! Walking a path of QEMU's: one name after the other from the root of the share, as after chroot(2), no symbolic link
//! followed.

use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};

use crate::fs::{Fs, NodeId, ROOT};

/// Longest path, bytes. limits.h: PATH_MAX, without its NUL
const PATH_MAX: usize = 4095;

/// A place in the share, held until dropped.
pub(super) struct Spot<'a, F: Fs> {
    fs: &'a F,
    /// From below the root down.
    way: Vec<NodeId>,
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
        self.way.last().copied().unwrap_or(ROOT)
    }

    /// The guest's ".." comes as it is: QEMU stops it at the root only.
    fn enter(&mut self, name: &[u8]) -> Result<()> {
        if name == b".." {
            if let Some(left) = self.way.pop() {
                self.fs.forget(left, 1);
            }
            return Ok(());
        }
        self.way.push(self.fs.lookup(self.node(), &FileName::new(name)?)?.node);
        Ok(())
    }
}

impl<F: Fs> Drop for Spot<'_, F> {
    fn drop(&mut self) {
        self.way.iter().for_each(|node| self.fs.forget(*node, 1));
    }
}

fn names(path: &[u8]) -> Result<impl Iterator<Item = &[u8]>> {
    if path.len() > PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let names = path.strip_prefix(b"/").ok_or(Errno::EINVAL)?;
    Ok(names.split(|byte| *byte == b'/').filter(|name| !name.is_empty()))
}
