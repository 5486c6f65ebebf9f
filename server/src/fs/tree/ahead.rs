//! Opening files and directories with others, before they are asked for.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::SystemTime;

use postern_ipc::attr::{Attr, OpenFlags};
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result, op};

use super::Tree;
use crate::fs::ahead::Opened;
use crate::fs::file::OpenFile;
use crate::fs::kept::Unchanged;
use crate::fs::node::Identity;
use crate::fs::{NodeId, Object};

/// What is to be opened, where it stands in its order.
pub(super) struct Next {
    identity: Identity,
    dir: NodeId,
    name: FileName,
    /// How many after it may be opened with it.
    more: usize,
    /// It was opened ahead.
    opened: Option<Opened>,
}

impl Tree {
    /// `node` is to be opened for reading, which whoever reads in the order listed goes on with; `None` where none is
    /// known.
    pub(super) fn next(&self, node: NodeId, object: Object) -> Option<Next> {
        if !self.ahead.is_wanted() || !self.walk.finds() {
            return None;
        }
        let (identity, dir, name) = self.nodes.sight(node)?;
        let more = self.ahead.step(dir, &name, object);
        Some(Next { identity, dir, name, more, opened: self.ahead.take(identity, object) })
    }

    /// Opens it, if it was opened ahead, or others are to be opened with it. As with all that is open, the node holds its
    /// descriptor: its name may lead elsewhere meanwhile.
    ///
    /// # Errors
    /// EIO if there is no helper.
    pub(super) fn open_in_order(&self, node: NodeId, object: Object, next: Next) -> Result<Option<Arc<OpenFile>>> {
        let Next { identity, dir, name, more, opened } = next;
        if let Some(Opened { file, unchanged, .. }) = opened
            && unchanged.is(&file)
        {
            return Ok(Some(self.for_reading(file, (node, object), identity, Some(unchanged))));
        }
        let Some(names) = self.ahead.names(dir, &name, object, more) else { return Ok(None) };
        let Ok(pin) = self.pin(dir) else { return Ok(None) };
        // What is mounted in a directory may be of a kind of its own.
        if self.nodes.dev(dir) != Ok(identity.dev()) || !self.kept.is_local(&*pin, identity.dev()) {
            return Ok(None);
        }
        let (removals, asked) = (self.ahead.removals(), SystemTime::now());
        let each = self.call(&op::OpenEach { names }, &[pin.as_fd()], b"", |attrs, files, _| (attrs, files));
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
        if others.is_empty() {
            self.ahead.in_vain(dir, object);
        }
        self.ahead.put(others, removals);
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
}
