//! Directory entries in 9P2000.L's form: `qid[13] offset[8] type[1] name[s]`.

use postern_ipc::name::NAME_MAX;

use super::convert::qid_kind;
use super::message::Qid;
use super::wire::{Put, Text};
use crate::fs::{Dirent, Listing, Sink};

/// Bytes of an entry without its name.
const HEAD: usize = 13 + 8 + 1 + 2;
/// Bytes of the entry with the longest name: with less room a directory might seem to end where it does not.
pub(super) const LONGEST: usize = HEAD + NAME_MAX;
/// Bytes of the kernel's own entry with the shortest name. linux/dirent.h: struct linux_dirent64
const DIRENT_MIN: usize = 24;

/// Entries on their way into an answer.
pub(super) struct Entries<'a> {
    to: &'a mut dyn Sink,
}

impl<'a> Entries<'a> {
    /// None yet.
    pub(super) fn new(to: &'a mut dyn Sink) -> Self {
        Self { to }
    }
}

impl Listing for Entries<'_> {
    /// The shortest name grows most on its way into the answer.
    fn raw_room(&self) -> usize {
        self.to.room().saturating_mul(DIRENT_MIN).checked_div(HEAD.saturating_add(1)).unwrap_or_default()
    }

    fn fits(&self, name_len: usize) -> bool {
        HEAD.saturating_add(name_len) <= self.to.room()
    }

    fn push(&mut self, entry: &Dirent<'_>) {
        let qid = Qid { kind: qid_kind(u32::from(entry.kind) << 12), version: 0, path: entry.ino };
        let mut bytes = Vec::with_capacity(HEAD.saturating_add(entry.name.len()));
        qid.put(&mut bytes);
        entry.next.put(&mut bytes);
        entry.kind.put(&mut bytes);
        Text(entry.name).put(&mut bytes);
        let _ = self.to.put(&bytes);
    }
}
