//! What a directory lists.

use std::os::fd::{AsFd, OwnedFd};

use postern_ipc::attr::{Attr, Dev};
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};

use super::Tree;
use crate::fs::dir::Raw;
use crate::fs::{Detail, Dirent, Listing, NodeId};

/// A directory that is being listed.
pub(super) struct Listed<'a> {
    pub(super) tree: &'a Tree,
    pub(super) node: NodeId,
    pub(super) dev: Dev,
    /// Its O_PATH descriptor: the helper believes no other.
    pub(super) pin: &'a OwnedFd,
    pub(super) detail: Detail,
}

impl Listed<'_> {
    /// The guest's look-ups count for entries that reach it only.
    pub(super) fn give(&self, raw: &Raw<'_>, to: &mut dyn Listing) -> Result<bool> {
        if !to.fits(raw.name.len()) {
            return Ok(false);
        }
        let Self { tree, node, dev, pin, detail } = *self;
        if tree.model.hides(raw.name) {
            return Ok(true);
        }
        let ino = tree.devices.number(dev, raw.ino)?;
        // A regular file may stand for anything.
        let kind = if tree.model.is_mapped() && raw.kind == libc::DT_REG { libc::DT_UNKNOWN } else { raw.kind };
        let mut dirent = Dirent { ino, next: raw.next, kind, name: raw.name, entry: None };
        if let (true, Ok(name)) = (detail == Detail::Entries || tree.devices.hides(), FileName::new(raw.name)) {
            let looked = tree.walk.stat(pin.as_fd(), &name).and_then(|(attr, _)| match detail {
                Detail::Entries => tree.entry(node, &name, attr).map(Some),
                Detail::Names => tree.shown(attr).map(|_| None),
            });
            match looked {
                Ok(entry) => {
                    dirent.kind = entry.map_or(dirent.kind, |entry| dirent_kind(&entry.attr));
                    dirent.entry = entry;
                }
                Err(Errno::ENOENT | Errno::ENODEV) => return Ok(true),
                Err(_) => {}
            }
        }
        to.push(&dirent);
        Ok(true)
    }
}

/// readdir(3): DT_*, which are the type bits of a mode shifted by twelve.
fn dirent_kind(attr: &Attr) -> u8 {
    u8::try_from(attr.kind() >> 12).unwrap_or(libc::DT_UNKNOWN)
}
