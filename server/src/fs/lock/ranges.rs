//! Which parts of a file one owner has locked, as the kernel keeps them: in order, without overlap, and two of a kind
//! that touch are one.

use std::ops;

use super::{Lock, LockKind, Range};

/// The parts.
#[derive(Clone, Debug, Default)]
pub struct Ranges(Vec<Lock>);

/// What becomes of [`Ranges`] when a part of the file is locked or given back.
#[derive(Debug)]
pub struct Change {
    replaced: ops::Range<usize>,
    by: Vec<Lock>,
}

impl Change {
    /// How many parts come, and how many go.
    pub fn counts(&self) -> (usize, usize) {
        (self.by.len(), self.replaced.len())
    }
}

impl Ranges {
    /// Nothing is locked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many parts.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Lock> {
        self.0.iter()
    }

    /// What it means to lock `range`, or with no kind to give it back. At most two of those that are there are cut,
    /// and all that are covered go.
    pub fn plan(&self, range: Range, kind: Option<LockKind>) -> Change {
        let before = range.start.saturating_sub(1);
        let behind = range.last.saturating_add(1);
        let first = self.0.partition_point(|lock| lock.range.last < before);
        let touched = self.0.get(first..).unwrap_or_default().iter().take_while(|lock| lock.range.start <= behind);
        let mut new = range;
        let (mut left, mut right, mut count) = (None, None, 0_usize);
        for lock in touched {
            count = count.saturating_add(1);
            let Range { start, last } = lock.range;
            if Some(lock.kind) == kind {
                new = Range { start: new.start.min(start), last: new.last.max(last) };
                continue;
            }
            if start < range.start {
                left = Some(Lock { range: Range { start, last: last.min(before) }, ..*lock });
            }
            if last > range.last {
                right = Some(Lock { range: Range { start: start.max(behind), last }, ..*lock });
            }
        }
        let middle = kind.map(|kind| Lock { kind, range: new });
        let by = [left, middle, right].into_iter().flatten().collect();
        Change { replaced: first..first.saturating_add(count), by }
    }

    /// Makes a change that was planned for what is there.
    pub fn apply(&mut self, change: Change) {
        self.0.splice(change.replaced, change.by);
    }

    /// A part that stands in the way of another owner's lock.
    pub fn against(&self, lock: Lock) -> Option<Lock> {
        self.0.iter().find(|held| held.conflicts(lock)).copied()
    }

    /// A lock that the kernel tells of is among these.
    pub fn has(&self, lock: Lock) -> bool {
        self.0.contains(&lock)
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects)]
mod tests {
    use super::LockKind::{Read, Write};
    use super::*;
    use crate::fs::lock::END;

    fn range(start: u64, last: u64) -> Range {
        Range { start, last }
    }

    fn set(ranges: &mut Ranges, start: u64, last: u64, kind: Option<LockKind>) {
        let change = ranges.plan(range(start, last), kind);
        ranges.apply(change);
    }

    fn told(ranges: &Ranges) -> Vec<(LockKind, u64, u64)> {
        ranges.iter().map(|lock| (lock.kind, lock.range.start, lock.range.last)).collect()
    }

    // fcntl(2): "a read lock ... converted to a write lock"; a part of it splits
    #[test]
    fn locks_of_one_owner_merge_split_and_convert() {
        let mut ranges = Ranges::default();
        set(&mut ranges, 10, 19, Some(Read));
        set(&mut ranges, 30, 39, Some(Read));
        set(&mut ranges, 20, 29, Some(Read));
        assert_eq!(told(&ranges), [(Read, 10, 39)]);
        set(&mut ranges, 15, 24, Some(Write));
        assert_eq!(told(&ranges), [(Read, 10, 14), (Write, 15, 24), (Read, 25, 39)]);
        set(&mut ranges, 0, 20, None);
        assert_eq!(told(&ranges), [(Write, 21, 24), (Read, 25, 39)]);
        set(&mut ranges, 30, 30, None);
        assert_eq!(told(&ranges), [(Write, 21, 24), (Read, 25, 29), (Read, 31, 39)]);
        set(&mut ranges, 0, END, Some(Write));
        assert_eq!(told(&ranges), [(Write, 0, END)]);
        set(&mut ranges, 0, END, None);
        assert!(ranges.is_empty());
    }

    // Every byte of a small file by itself, against doing it as the sentence above says.
    #[test]
    fn any_order_of_locks_leaves_each_byte_as_it_was_last_set() {
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let (mut ranges, mut bytes) = (Ranges::default(), [None; 16]);
        for _ in 0..20_000 {
            let start = next(16);
            let last = start + next(16 - start);
            let kind = [None, Some(Read), Some(Write)][usize::try_from(next(3)).unwrap()];
            set(&mut ranges, start, last, kind);
            (start..=last).for_each(|at| bytes[usize::try_from(at).unwrap()] = kind);
            let of = |at: u64| ranges.iter().find(|lock| lock.range.overlaps(range(at, at))).map(|lock| lock.kind);
            assert!((0..16).all(|at| of(at) == bytes[usize::try_from(at).unwrap()]));
            let all = told(&ranges);
            assert!(all.iter().zip(all.iter().skip(1)).all(|(a, b)| a.2 < b.1 && (a.2 + 1 < b.1 || a.0 != b.0)));
        }
    }

    #[test]
    fn readers_share_and_a_writer_does_not() {
        let mut ranges = Ranges::default();
        set(&mut ranges, 5, 9, Some(Read));
        assert_eq!(ranges.against(Lock { kind: Read, range: range(0, END) }), None);
        assert!(ranges.against(Lock { kind: Write, range: range(9, 9) }).is_some());
        assert_eq!(ranges.against(Lock { kind: Write, range: range(10, END) }), None);
    }
}
