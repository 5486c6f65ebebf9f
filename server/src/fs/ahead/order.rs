//! The names of a directory in the order in which they were listed, and how far they were opened in it.

use postern_ipc::name::FileName;

use super::super::dir::Raw;
use super::super::{NodeId, Object};

/// Bytes of names of files of each, and of directories; no others are remembered.
pub(super) const NAMES: usize = 16 * 1024;
/// So many names may be passed over: nobody asks for them.
const PASSED: usize = 8;

/// The names of a directory, in the order in which they were listed.
#[derive(Debug, Default)]
pub struct Roll {
    pub(super) dir: Option<NodeId>,
    /// Where the listing goes on.
    pub(super) end: u64,
    pub(super) files: Order,
    pub(super) dirs: Order,
}

impl Roll {
    /// An entry was listed.
    pub fn push(&mut self, entry: &Raw<'_>) {
        self.end = entry.next;
        match entry.kind {
            libc::DT_REG | libc::DT_UNKNOWN => self.files.push(entry.name),
            libc::DT_DIR if !matches!(entry.name, b"." | b"..") => self.dirs.push(entry.name),
            _ => {}
        }
    }

    /// Nothing is listed yet of `dir`; the memory is used again.
    pub(super) fn anew(self, dir: NodeId) -> Self {
        Self { dir: Some(dir), end: 0, files: self.files.anew(), dirs: self.dirs.anew() }
    }

    pub(super) fn of(&mut self, object: Object) -> &mut Order {
        match object {
            Object::File => &mut self.files,
            Object::Dir => &mut self.dirs,
        }
    }
}

/// Names of one kind, and how far they were opened in their order.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Each with its length before it.
    pub(super) names: Vec<u8>,
    /// No more are remembered.
    pub(super) full: bool,
    /// Behind the one that was opened last.
    pub(super) at: usize,
    /// How many were opened in their order.
    steps: u32,
    /// Others than were asked for were opened: no more are.
    pub(super) in_vain: bool,
}

impl Order {
    fn anew(mut self) -> Self {
        self.names.clear();
        Self { names: self.names, ..Self::default() }
    }

    fn push(&mut self, name: &[u8]) {
        let Ok(length) = u8::try_from(name.len()) else { return };
        self.full |= self.names.len().saturating_add(name.len()) >= NAMES;
        if !self.full {
            self.names.push(length);
            self.names.extend_from_slice(name);
        }
    }

    /// All were opened.
    pub(super) fn is_done(&self) -> bool {
        self.at >= self.names.len()
    }

    /// Names from a place on, each with the place behind it.
    pub(super) fn from(&self, mut at: usize) -> impl Iterator<Item = (usize, &[u8])> {
        std::iter::from_fn(move || {
            let (length, rest) = self.names.get(at..)?.split_first()?;
            let name = rest.get(..usize::from(*length))?;
            at = at.saturating_add(1).saturating_add(name.len());
            Some((at, name))
        })
    }

    /// The place behind a name that is not far from `at`.
    fn find(&self, at: usize, name: &FileName) -> Option<usize> {
        self.from(at).take(PASSED).find(|(_, next)| *next == name.as_bytes()).map(|(behind, _)| behind)
    }

    /// It is the one that was opened last.
    fn is_at(&self, name: &FileName) -> bool {
        let begin = self.at.checked_sub(name.as_bytes().len().saturating_add(1));
        begin.and_then(|begin| self.from(begin).next()) == Some((self.at, name.as_bytes()))
    }

    /// Who opens one twice keeps the order, and who goes back to the first ones may go through all of them again. How
    /// many after it may be opened with it.
    pub(super) fn step(&mut self, name: &FileName, most: usize) -> usize {
        if self.is_at(name) {
            return 0;
        }
        (self.at, self.steps) = match (self.find(self.at, name), self.find(0, name)) {
            (Some(behind), _) => (behind, self.steps.saturating_add(1)),
            (None, Some(behind)) => (behind, 0),
            (None, None) => (self.at, 0),
        };
        match self.steps {
            0 => 0,
            _ if self.in_vain => 0,
            steps => 1_usize.checked_shl(steps.saturating_sub(1)).unwrap_or(usize::MAX).min(most),
        }
    }
}
