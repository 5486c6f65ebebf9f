//! What will be asked for next. Whoever reads a tree opens the files of a directory in the order in which they were
//! listed, and the directories too, each after all that is in the one before; one question to the helper opens several
//! for little more than one.
//!
//! Remembered are the names of directories that were listed lately, how far they were opened in that order, and what
//! was opened before it was asked for: all of it bounded, the oldest makes room for the next. It is given only while it
//! has not changed since before it was opened, as what is [kept](super::kept).

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use postern_ipc::name::{FileName, Names};
use postern_ipc::{Errno, Result};

use super::kept::Unchanged;
use super::node::Identity;
use super::{NodeId, Object};

mod order;

pub use order::Roll;

/// Most directories whose names are remembered.
const DIRS: usize = 16;
/// Most files and directories open ahead.
pub const OPEN_MAX: usize = 64;

/// A file or directory open for reading before it was asked for.
#[derive(Debug)]
pub struct Opened {
    /// In which directory.
    pub dir: NodeId,
    /// As what.
    pub object: Object,
    /// Which one.
    pub identity: Identity,
    /// Open.
    pub file: OwnedFd,
    /// Since before that.
    pub unchanged: Unchanged,
}

/// All of it.
#[derive(Debug)]
pub struct Ahead {
    state: Mutex<State>,
    /// How many are opened with one that is asked for, at most.
    with: usize,
    /// How many are open at once, at most.
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    rolls: VecDeque<Roll>,
    opened: VecDeque<Opened>,
    /// How often something lost a name, or all did.
    removals: u64,
}

impl Ahead {
    /// Nothing yet. `with` may be opened with one that is asked for, `most` may be open.
    pub fn new(with: u8, most: usize) -> Self {
        Self { state: Mutex::default(), with: usize::from(with).min(most), most }
    }

    /// Whether anything is to be opened ahead at all.
    pub fn is_wanted(&self) -> bool {
        self.with > 0
    }

    /// `dir` is about to be listed from `offset` on, if that is its beginning or where it was listed to.
    pub fn listing(&self, dir: NodeId, offset: u64) -> Option<Roll> {
        if !self.is_wanted() {
            return None;
        }
        let rolls = &mut self.lock().rolls;
        let known = rolls.iter().position(|roll| roll.dir == Some(dir)).and_then(|at| rolls.remove(at));
        if offset > 0 {
            return known.filter(|roll| roll.end == offset);
        }
        // Whoever walks a tree comes back to those above.
        let oldest = || {
            let done = rolls.iter().take(DIRS / 2).position(|roll| roll.dirs.is_done()).unwrap_or(0);
            if rolls.len() >= DIRS { rolls.remove(done) } else { None }
        };
        Some(known.or_else(oldest).unwrap_or_default().anew(dir))
    }

    /// What was about to be listed has been.
    pub fn listed(&self, roll: Roll) {
        let rolls = &mut self.lock().rolls;
        // Two may have listed it at once.
        rolls.retain(|other| other.dir != roll.dir);
        rolls.push_back(roll);
    }

    /// `name` in `dir` is to be opened. How many after it may be opened with it: twice as many each time, as long as
    /// the order is kept.
    pub fn step(&self, dir: NodeId, name: &FileName, object: Object) -> usize {
        self.lock().roll(dir).map_or(0, |roll| roll.of(object).step(name, self.with))
    }

    /// `name` in `dir` and so many names after it, if they are known.
    ///
    /// # Errors
    /// None in fact: they are not too many.
    pub fn names(&self, dir: NodeId, name: &FileName, object: Object, more: usize) -> Result<Names> {
        let mut names = vec![*name];
        if let Some(roll) = self.lock().roll(dir) {
            let order = roll.of(object);
            names.extend(order.from(order.at).filter_map(|(_, name)| FileName::new(name).ok()).take(more));
        }
        Names::try_from(names).map_err(|_| Errno::EINVAL)
    }

    /// Nothing came of opening others of `dir`: no more are.
    pub fn in_vain(&self, dir: NodeId, object: Object) {
        self.lock().in_vain(dir, object);
    }

    /// How often something lost a name, as what is opened now may have.
    pub fn removals(&self) -> u64 {
        self.lock().removals
    }

    /// These were opened ahead, since there had been so many removals.
    pub fn put(&self, opened: Vec<Opened>, removals: u64) {
        let mut gone = Vec::new();
        let mut state = self.lock();
        for one in opened {
            gone.extend(state.take(one.identity));
            if state.opened.len() >= self.most
                && let Some(unused) = state.opened.pop_front()
            {
                state.in_vain(unused.dir, unused.object);
                gone.push(unused);
            }
            state.opened.push_back(one);
        }
        if state.removals != removals {
            gone.extend(state.opened.drain(..));
        }
        drop(state);
        drop(gone);
    }

    /// It lost a name, or may have: what is held holds its disk space.
    pub fn removed(&self, identity: Identity) {
        let mut state = self.lock();
        state.removals = state.removals.wrapping_add(1);
        let gone = state.take(identity);
        drop(state);
        drop(gone);
    }

    /// What was opened ahead, for whoever asks for it.
    pub fn take(&self, identity: Identity, object: Object) -> Option<Opened> {
        self.lock().take(identity).filter(|opened| opened.object == object)
    }

    /// Nothing is open ahead, and no directory is remembered.
    pub fn clear(&self) {
        let mut state = self.lock();
        let removals = state.removals.wrapping_add(1);
        let gone = std::mem::replace(&mut *state, State { removals, ..State::default() });
        drop(state);
        drop(gone);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn roll(&mut self, dir: NodeId) -> Option<&mut Roll> {
        self.rolls.iter_mut().find(|roll| roll.dir == Some(dir))
    }

    fn in_vain(&mut self, dir: NodeId, object: Object) {
        if let Some(roll) = self.roll(dir) {
            roll.of(object).in_vain = true;
        }
    }

    fn take(&mut self, identity: Identity) -> Option<Opened> {
        let at = self.opened.iter().position(|opened| opened.identity == identity)?;
        self.opened.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use super::order::NAMES;
    use super::*;
    use crate::fs::dir::Raw;
    use postern_ipc::attr::Attr;
    use std::time::SystemTime;

    const DIR: NodeId = NodeId(7);
    const FILE: Object = Object::File;

    fn name(name: &str) -> FileName {
        FileName::new(name.as_bytes()).unwrap()
    }

    fn entry(name: &str, kind: u8, next: u64) -> Raw<'_> {
        Raw { ino: 1, next, kind, name: name.as_bytes() }
    }

    /// Lists files named by numbers, whose offsets are those numbers and one more.
    fn list(ahead: &Ahead, dir: NodeId, numbers: std::ops::Range<u64>) {
        let mut roll = ahead.listing(dir, numbers.start).unwrap();
        for number in numbers {
            roll.push(&entry(&number.to_string(), libc::DT_REG, number.saturating_add(1)));
        }
        ahead.listed(roll);
    }

    fn named(ino: u64) -> Identity {
        let mut attr = Attr::of(std::fs::File::open("/etc/passwd").unwrap()).unwrap();
        attr.id.ino = ino;
        Identity::of(&attr)
    }

    fn opened(dir: NodeId, ino: u64) -> Opened {
        let file = OwnedFd::from(std::fs::File::open("/etc/passwd").unwrap());
        let unchanged = Unchanged::since(&Attr::of(&file).unwrap(), SystemTime::now()).unwrap();
        Opened { dir, object: FILE, identity: named(ino), file, unchanged }
    }

    fn steps(ahead: &Ahead, names: &[u64]) -> Vec<usize> {
        names.iter().map(|number| ahead.step(DIR, &name(&number.to_string()), FILE)).collect()
    }

    #[test]
    fn the_next_names_are_those_that_were_listed_next() {
        let ahead = Ahead::new(7, 64);
        list(&ahead, DIR, 0..20);
        list(&ahead, DIR, 20..40);
        assert_eq!(steps(&ahead, &[0, 1, 1, 2, 3, 3, 3, 4]), [1, 2, 0, 4, 7, 0, 0, 7], "more each time");
        let names = ahead.names(DIR, &name("4"), FILE, 3).unwrap();
        assert_eq!(names.iter().copied().collect::<Vec<_>>(), ["4", "5", "6", "7"].map(name));
        assert_eq!(steps(&ahead, &[10, 9, 19, 11, 20, 39]), [7, 0, 0, 1, 0, 0], "a few may be passed over");
        assert_eq!(steps(&ahead, &[1, 2, 3, 0]), [0, 1, 2, 0], "who begins again goes on");
        let alone = ahead.names(NodeId(8), &name("4"), FILE, 3).unwrap();
        assert_eq!(alone.iter().len(), 1, "it was not listed");
    }

    #[test]
    fn who_lists_from_elsewhere_or_anew_begins_anew() {
        let ahead = Ahead::new(7, 64);
        list(&ahead, DIR, 0..20);
        assert!(ahead.listing(DIR, 30).is_none() && steps(&ahead, &[0]) == [0]);
        list(&ahead, DIR, 0..20);
        assert_eq!(steps(&ahead, &[0, 1]), [1, 2]);
        list(&ahead, DIR, 0..20);
        assert_eq!(steps(&ahead, &[0]), [1]);
    }

    #[test]
    fn files_and_directories_have_each_their_own_order() {
        let ahead = Ahead::new(7, 64);
        let mut roll = ahead.listing(DIR, 0).unwrap();
        let (file, dir) = (libc::DT_REG, libc::DT_DIR);
        for (text, kind) in [
            (".", dir),
            ("..", dir),
            ("l", libc::DT_LNK),
            ("a", file),
            ("d", dir),
            ("b", libc::DT_UNKNOWN),
            ("e", dir),
            ("p", libc::DT_FIFO),
        ] {
            roll.push(&entry(text, kind, 1));
        }
        ahead.listed(roll);
        for (object, [first, second]) in [(FILE, ["a", "b"]), (Object::Dir, ["d", "e"])] {
            assert_eq!(ahead.step(DIR, &name(first), object), 1);
            let names = ahead.names(DIR, &name(first), object, 7).unwrap();
            assert_eq!(names.iter().copied().collect::<Vec<_>>(), [first, second].map(name));
        }
        assert_eq!(ahead.step(DIR, &name("l"), FILE), 0);
    }

    #[test]
    fn neither_names_nor_directories_nor_files_grow_without_end() {
        let ahead = Ahead::new(7, 3);
        for dir in 0..1000 {
            list(&ahead, NodeId(dir), 0..5000);
        }
        let state = ahead.lock();
        assert_eq!(state.rolls.len(), DIRS);
        assert!(state.rolls.iter().all(|roll| roll.files.names.len() <= NAMES && roll.files.full));
        drop(state);
        ahead.put((0..10).map(|ino| opened(DIR, ino)).collect(), 0);
        let there: Vec<_> = (0..10).filter(|ino| ahead.take(named(*ino), FILE).is_some()).collect();
        assert_eq!(there, [7, 8, 9]);
        assert!(ahead.take(named(9), FILE).is_none(), "it was given");
    }

    #[test]
    fn who_walks_a_tree_comes_back_to_directories_that_have_others_left() {
        let ahead = Ahead::new(7, 64);
        let mut top = ahead.listing(DIR, 0).unwrap();
        ["d", "e"].iter().for_each(|text| top.push(&entry(text, libc::DT_DIR, 1)));
        ahead.listed(top);
        assert_eq!(ahead.step(DIR, &name("d"), Object::Dir), 1);
        (100..200).for_each(|leaf| list(&ahead, NodeId(leaf), 0..20));
        assert_eq!(ahead.step(DIR, &name("e"), Object::Dir), 2);
        (100..200).for_each(|leaf| list(&ahead, NodeId(leaf), 0..20));
        assert_eq!(ahead.step(DIR, &name("d"), Object::Dir), 0, "it is remembered no more");
        assert_eq!(ahead.names(DIR, &name("d"), Object::Dir, 1).unwrap().iter().len(), 1);
    }

    #[test]
    fn where_it_was_in_vain_no_more_are_opened() {
        let ahead = Ahead::new(7, 3);
        list(&ahead, DIR, 0..20);
        assert_eq!(steps(&ahead, &[0, 1]), [1, 2]);
        ahead.put(vec![opened(DIR, 2)], 0);
        ahead.put((3..6).map(|ino| opened(NodeId(8), ino)).collect(), 0);
        assert_eq!(steps(&ahead, &[2, 3]), [0, 0]);
        list(&ahead, DIR, 0..20);
        assert_eq!(steps(&ahead, &[0, 1]), [1, 2]);
        ahead.in_vain(DIR, Object::Dir);
        assert_eq!(steps(&ahead, &[2]), [3], "files are others");
        ahead.in_vain(DIR, FILE);
        assert_eq!(steps(&ahead, &[3]), [0]);
    }

    #[test]
    fn what_was_opened_as_one_kind_is_not_given_as_another() {
        let ahead = Ahead::new(7, 3);
        ahead.put(vec![opened(DIR, 2)], 0);
        assert!(ahead.take(named(2), Object::Dir).is_none());
    }

    #[test]
    fn nothing_that_loses_its_name_is_held() {
        let ahead = Ahead::new(7, 8);
        ahead.put((0..4).chain(1..3).map(|ino| opened(DIR, ino)).collect(), 0);
        ahead.removed(named(1));
        let there = || (0..4).filter(|ino| ahead.lock().opened.iter().any(|file| file.identity == named(*ino)));
        assert_eq!(there().collect::<Vec<_>>(), [0, 2, 3]);
        ahead.put(vec![opened(DIR, 1)], 0);
        assert_eq!(there().count(), 0, "it may have been opened before");
        ahead.put(vec![opened(DIR, 1)], ahead.removals());
        assert_eq!(there().collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn nothing_is_remembered_where_nothing_is_wanted() {
        let ahead = Ahead::new(0, 64);
        assert!(ahead.listing(DIR, 0).is_none() && ahead.step(DIR, &name("a"), FILE) == 0);
        assert!(!Ahead::new(7, 0).is_wanted());
    }
}
