//! Opening files with others, before they are asked for.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use postern_ipc::attr::OpenFlags;
use postern_ipc::op;

use super::Tree;
use crate::fs::ahead::Opened;
use crate::fs::file::OpenFile;
use crate::fs::kept::Unchanged;
use crate::fs::node::Identity;
use crate::fs::{NodeId, Object};

impl Tree {
    /// Opens `node` for reading, if it was opened ahead, or others are to be opened with it.
    pub(super) fn open_in_order(&self, node: NodeId) -> Option<Arc<OpenFile>> {
        if !self.ahead.is_wanted() || !self.walk.finds() {
            return None;
        }
        let (identity, dir, name) = self.nodes.sight(node)?;
        let more = self.ahead.step(dir, &name);
        if self.kept.has(node, Object::File) {
            return None;
        }
        if let Some(Opened { file, unchanged, .. }) = self.ahead.take(identity) {
            return unchanged.is(&file).then(|| self.for_reading(file, node, identity, Some(unchanged)));
        }
        if more == 0 || self.kept.refuses(identity.dev()) {
            return None;
        }
        let names = self.ahead.names(dir, &name, more)?;
        let pin = self.pin(dir).ok()?;
        let asked = self.call(&op::OpenEach { names }, &[pin.as_fd()], b"", |attrs, files, _| (attrs, files));
        let (attrs, files) = asked.ok()?;
        let mut files = files.into_iter();
        let mut opened = attrs.iter().map(|attr| attr.as_ref().and_then(|attr| Some((attr, files.next()?))));
        let wanted = opened.next().flatten().filter(|(attr, _)| Identity::of(attr) == identity);
        let wanted = wanted.map(|(attr, file)| self.for_reading(file, node, identity, Unchanged::since(attr)));
        for (attr, file) in opened.flatten() {
            let identity = Identity::of(attr);
            if let Some(unchanged) = Unchanged::since(attr).filter(|_| self.kept.is_local(&file, identity.dev())) {
                self.ahead.put(Opened { identity, file, unchanged });
            }
        }
        wanted
    }

    fn for_reading(
        &self,
        file: OwnedFd,
        node: NodeId,
        identity: Identity,
        unchanged: Option<Unchanged>,
    ) -> Arc<OpenFile> {
        let file = OpenFile::new(file, node, Object::File, false, OpenFlags::READ);
        let file = Arc::new(file.unchanged(unchanged));
        self.for_others(&file, identity.dev());
        file
    }
}
