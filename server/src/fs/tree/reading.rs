//! Opening for reading: what is kept, what was opened before it was asked for, it and others with it by their names, or
//! it alone. By name is the faster way: the directory is one that the helper still holds, mostly, and need not be sent.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::SystemTime;

use postern_ipc::attr::{Attr, Dev, OpenFlags};
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result, op};

use super::Tree;
use crate::fs::ahead::Opened;
use crate::fs::file::OpenFile;
use crate::fs::kept::Unchanged;
use crate::fs::node::Identity;
use crate::fs::{Fh, NodeId, Object};

/// What is to be opened, where it stands in its order.
struct Next {
    identity: Identity,
    dir: NodeId,
    name: FileName,
    /// How many after it may be opened with it.
    more: usize,
    /// It was opened ahead.
    opened: Option<Opened>,
}

impl Tree {
    /// Opens for reading and nothing else: what is still open from before, or by its name, with others in their order, or
    /// by `ask`.
    pub(super) fn open_to_read(
        &self,
        node: NodeId,
        object: Object,
        ask: impl FnOnce(&Arc<OwnedFd>) -> Result<OwnedFd>,
    ) -> Result<Fh> {
        let next = self.next(node, object);
        let pin = self.pin(node)?;
        if let Some(file) = self.kept.get(node, object) {
            return Ok(self.keep(file));
        }
        let asked = SystemTime::now();
        let before = if self.walk.finds() { Some(self.walk.attr(&pin)?) } else { None };
        // A file system that shows two files as one shows what was written to one of them by its descriptor only.
        if let (Some(next), Some(before)) = (next, &before)
            && next.identity == Identity::of(before)
            && let Some(file) = self.open_by_name(node, object, &pin, next)?
        {
            return Ok(self.keep(file));
        }
        let file = OpenFile::new(ask(&pin)?, node, object, false, OpenFlags::READ);
        let file = Arc::new(file.unchanged(before.as_ref().and_then(|attr| Unchanged::since(attr, asked))));
        if let Some(before) = before {
            self.for_others(&file, before.id.dev);
        }
        Ok(self.keep(file))
    }

    /// `node` is to be opened for reading, which whoever reads in the order listed goes on with; `None` where none is
    /// known.
    fn next(&self, node: NodeId, object: Object) -> Option<Next> {
        if !self.ahead.is_wanted() || !self.walk.finds() {
            return None;
        }
        let (identity, dir, name) = self.nodes.sight(node)?;
        let more = self.ahead.step(dir, &name, object);
        Some(Next { identity, dir, name, more, opened: self.ahead.take(identity, object) })
    }

    /// Opens it, with others that are to be opened with it, unless it was opened ahead. As with all that is open, the node
    /// holds its descriptor: its name may lead elsewhere meanwhile. `None` where its name does not lead to it.
    ///
    /// # Errors
    /// EIO if there is no helper.
    fn open_by_name(
        &self,
        node: NodeId,
        object: Object,
        pin: &Arc<OwnedFd>,
        next: Next,
    ) -> Result<Option<Arc<OpenFile>>> {
        let Next { identity, dir, name, more, opened } = next;
        if let Some(Opened { file, unchanged, .. }) = opened
            && unchanged.is(&file)
        {
            return Ok(Some(self.for_reading(file, (node, object), identity, Some(unchanged))));
        }
        // What is mounted in a directory may be of a kind of its own.
        if self.nodes.dev(dir) != Ok(identity.dev()) || !self.kept.is_local(&**pin, identity.dev()) {
            return Ok(None);
        }
        let names = self.ahead.names(dir, &name, object, more)?;
        let alone = names.iter().len() == 1;
        let Ok(pin) = self.pin(dir) else { return Ok(None) };
        let (removals, asked) = (self.ahead.removals(), SystemTime::now());
        let each = self.call(&op::OpenEach { names }, &[&pin], b"", |attrs, files, _| (attrs, files));
        let (attrs, files) = match each {
            Err(Errno::EIO) => return Err(Errno::EIO),
            Err(_) => return Ok(None),
            Ok(each) => each,
        };
        let mut files = files.into_iter();
        let is_such = |attr: &Attr| (attr.kind() == libc::S_IFDIR) == (object == Object::Dir);
        let opened = attrs.iter().map(|attr| attr.as_ref().and_then(|attr| Some((attr, files.next()?))));
        let mut opened = opened.map(|one| one.filter(|(attr, _)| is_such(attr)));
        let wanted = opened.next().flatten().filter(|(attr, _)| Identity::of(attr) == identity);
        let wanted =
            wanted.map(|(attr, file)| self.for_reading(file, (node, object), identity, Unchanged::since(attr, asked)));
        let others = opened.flatten().filter_map(|(attr, file)| {
            let other = Identity::of(attr);
            let unchanged = Unchanged::since(attr, asked).filter(|_| other.dev() == identity.dev())?;
            Some(Opened { dir, object, identity: other, file, unchanged })
        });
        let others: Vec<_> = others.collect();
        if !others.is_empty() {
            self.ahead.put(others, removals);
        } else if !alone {
            self.ahead.in_vain(dir, object);
        }
        Ok(wanted)
    }

    fn for_reading(
        &self,
        file: OwnedFd,
        (node, object): (NodeId, Object),
        identity: Identity,
        unchanged: Option<Unchanged>,
    ) -> Arc<OpenFile> {
        let file = OpenFile::new(file, node, object, false, OpenFlags::READ);
        let file = Arc::new(file.unchanged(unchanged));
        self.for_others(&file, identity.dev());
        file
    }

    /// Keeps an open file of the file system `dev` for all who open it, unless its node went meanwhile.
    fn for_others(&self, file: &Arc<OpenFile>, dev: Dev) {
        self.kept.put(file, dev);
        if self.nodes.dev(file.node).is_err() {
            self.kept.forget(file.node);
        }
    }
}
