//! Walks: from a fid by names to another.

use std::sync::Arc;

use postern_ipc::attr::Attr;
use postern_ipc::name::FileName;
use postern_ipc::{Errno, Result};

use super::fid::{Found, Held, Role};
use super::message::{Qid, Rwalk, Twalk};
use super::session::{Call, Session};
use super::wire::Text;
use crate::fs::{Entry, Fs, ROOT};

/// A walk that ends before its last name moves no fid.
pub(super) fn walk<F: Fs>(s: &Session<F>, _: &mut Call<'_>, t: Twalk<'_>) -> Result<Rwalk> {
    let from = s.fids.get(t.fid)?;
    let mut way = Way { held: Arc::clone(&from.held), found: from.found.clone(), qids: Vec::new() };
    match way.go(&t.names) {
        Err(errno) if way.qids.is_empty() => return Err(errno),
        Err(_) => return Ok(Rwalk { qids: way.qids }),
        Ok(()) => {}
    }
    let new = from.at(way.held, way.found, Role::Walked);
    if t.newfid == t.fid { s.fids.replace(t.fid, &from, new) } else { s.fids.insert(t.newfid, new) }?;
    Ok(Rwalk { qids: way.qids })
}

/// How far a walk has come.
struct Way<F: Fs> {
    held: Arc<Held<F>>,
    found: Option<Arc<Found<F>>>,
    qids: Vec<Qid>,
}

impl<F: Fs> Way<F> {
    /// Names between dots are looked up in one go. intro(5): "The name .. refers to the parent directory"; that of the
    /// root is the root. diod's clients say "." too, and its server stays where it is.
    fn go(&mut self, names: &[Text<'_>]) -> Result<()> {
        let mut ahead = Vec::new();
        for Text(name) in names {
            match (*name, FileName::new(name)) {
                (b"." | b"..", _) => {
                    self.down(&mut ahead)?;
                    self.dots(name)?;
                }
                (_, Ok(name)) => ahead.push(name),
                (_, Err(errno)) => return self.down(&mut ahead).and(Err(errno)),
            }
        }
        self.down(&mut ahead)
    }

    fn down(&mut self, names: &mut Vec<FileName>) -> Result<()> {
        let (fs, mut left) = (Arc::clone(&self.held.fs), names.iter());
        let walked = fs.walk(self.held.node, names, &mut |Entry { node, attr }| {
            self.found = left.next().map(|name| Found::new(&self.held, name));
            self.held = Held::new(&fs, node);
            self.qids.push(Qid::of(&attr));
        });
        names.clear();
        walked
    }

    fn dots(&mut self, name: &[u8]) -> Result<()> {
        let mut attr = dir(&self.held)?;
        if name == b".." {
            self.found = None;
            if self.held.node != ROOT {
                self.held = Held::new(&self.held.fs, self.held.fs.seen(self.held.node)?.0);
                attr = self.held.fs.getattr(self.held.node, None)?;
            }
        }
        self.qids.push(Qid::of(&attr));
        Ok(())
    }
}

fn dir<F: Fs>(held: &Held<F>) -> Result<Attr> {
    let attr = held.fs.getattr(held.node, None)?;
    if attr.kind() == libc::S_IFDIR { Ok(attr) } else { Err(Errno::ENOTDIR) }
}
