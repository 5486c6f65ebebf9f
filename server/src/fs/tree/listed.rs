//! What a directory lists.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, PoisonError};

use postern_ipc::attr::{Attr, Dev};
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};

use super::Tree;
use crate::fs::dir::Raw;
use crate::fs::file::OpenFile;
use crate::fs::{Detail, Dirent, Listing, NodeId};

impl Tree {
    /// Lists an open directory from `offset` on. In which order is remembered: what is in it will be opened so.
    pub(super) fn list(&self, dir: &OpenFile, offset: u64, detail: Detail, to: &mut dyn Listing) -> Result<()> {
        let pin = self.pin(dir.node)?;
        let listed = Listed { tree: self, node: dir.node, dev: self.nodes.dev(dir.node)?, pin: &pin, detail };
        let mut stream = dir.stream.lock().unwrap_or_else(PoisonError::into_inner);
        let mut roll = if self.walk.finds() { self.ahead.listing(dir.node, offset) } else { None };
        stream.read(dir.as_fd(), offset, to, |raw, to| {
            let given = listed.give(raw, to)?;
            roll.iter_mut().filter(|_| given).for_each(|roll| roll.push(raw));
            Ok(given)
        })?;
        roll.into_iter().for_each(|roll| self.ahead.listed(roll));
        Ok(())
    }
}

/// A directory that is being listed.
struct Listed<'a> {
    tree: &'a Tree,
    node: NodeId,
    dev: Dev,
    /// Its O_PATH descriptor: the helper believes no other.
    pin: &'a Arc<OwnedFd>,
    detail: Detail,
}

impl Listed<'_> {
    /// The guest's look-ups count for entries that reach it only.
    fn give(&self, raw: &Raw<'_>, to: &mut dyn Listing) -> Result<bool> {
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
            let looked = tree.walk.stat(pin, &name).and_then(|(attr, _)| match detail {
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
