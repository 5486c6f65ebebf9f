//! Walking a path of QEMU's: one name after the other from the root of the share, as after chroot(2), no symbolic link
//! followed.

use postern_ipc::attr::Attr;
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
        spot.go(names(path)?)?;
        Ok(spot)
    }

    /// The directory that a path's last name is in, and that name.
    ///
    /// # Errors
    /// As [`Self::find`]; EINVAL for the root, "." and "..".
    pub(super) fn parent(fs: &'a F, path: &'a [u8]) -> Result<(Self, FileName)> {
        let mut spot = Self { fs, way: Vec::new() };
        let mut names = names(path)?;
        let last = names.next_back().ok_or(Errno::EINVAL)?;
        spot.go(names)?;
        Ok((spot, FileName::new(last)?))
    }

    /// The node there.
    pub(super) fn node(&self) -> NodeId {
        self.way.last().map_or(ROOT, |entry| entry.node)
    }

    /// What is there.
    ///
    /// # Errors
    /// Those of stat(2).
    pub(super) fn attr(&self) -> Result<Attr> {
        self.way.last().map_or_else(|| self.fs.getattr(ROOT, None), |entry| Ok(entry.attr))
    }

    /// "." and ".." come as they are: QEMU stops ".." at the root only.
    fn go<'b>(&mut self, names: impl Iterator<Item = &'b [u8]>) -> Result<()> {
        let mut ahead = Vec::new();
        for name in names {
            match (name, FileName::new(name)) {
                (b"." | b"..", _) => {
                    self.enter(&mut ahead)?;
                    self.dots(name)?;
                }
                (_, Ok(name)) => ahead.push(name),
                (_, Err(errno)) => return self.enter(&mut ahead).and(Err(errno)),
            }
        }
        self.enter(&mut ahead)
    }

    fn enter(&mut self, names: &mut Vec<FileName>) -> Result<()> {
        let (from, way) = (self.node(), &mut self.way);
        let entered = self.fs.walk(from, names, &mut |entry| way.push(entry));
        names.clear();
        entered
    }

    fn dots(&mut self, name: &[u8]) -> Result<()> {
        if self.way.last().is_some_and(|entry| entry.attr.kind() != libc::S_IFDIR) {
            return Err(Errno::ENOTDIR);
        }
        let left = if name == b".." { self.way.pop() } else { None };
        left.iter().for_each(|entry| self.fs.forget(entry.node, 1));
        Ok(())
    }
}

impl<F: Fs> Drop for Spot<'_, F> {
    fn drop(&mut self) {
        self.way.iter().for_each(|entry| self.fs.forget(entry.node, 1));
    }
}

/// Some of QEMU's paths count the NUL at their end.
fn names(path: &[u8]) -> Result<impl DoubleEndedIterator<Item = &[u8]>> {
    let path = path.strip_suffix(b"\0").unwrap_or(path);
    if path.len() > PATH_MAX {
        return Err(Errno::ENAMETOOLONG);
    }
    let names = path.strip_prefix(b"/").ok_or(Errno::EINVAL)?;
    Ok(names.split(|byte| *byte == b'/').filter(|name| !name.is_empty()))
}
