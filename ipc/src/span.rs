//! Ranges of ids and what becomes of them: how the ids of a share are shown to the guest where they are not the same,
//! and what the guest's become.

use serde::{Deserialize, Serialize};

use crate::attr::Attr;
use crate::id::{GuestGid, GuestUid};

/// Most ranges of one table: two tables fit into a message of the handshake.
pub const SPANS_MAX: usize = 100;
/// Not an id. chown(2)
const NO_ID: u32 = u32::MAX;
/// The user who owns nothing. Linux: overflowuid
const NOBODY: u32 = 65534;

/// What becomes of a range of ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Becomes {
    /// As many ids from this one on.
    From(u32),
    /// All are this one.
    One(u32),
    /// None is anybody's.
    Nobody,
}

/// `count` ids from `first` on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Span {
    /// The lowest.
    pub first: u32,
    /// How many, at least 1.
    pub count: u32,
    /// What becomes of them.
    pub becomes: Becomes,
}

/// Why ranges are no table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadSpans {
    /// Of no ids.
    Empty(Span),
    /// It, or what becomes of it, has more ids than there are.
    TooLong(Span),
    /// They have ids in common.
    Overlap(Span, Span),
    /// More than [`SPANS_MAX`].
    TooMany,
}

impl std::fmt::Display for BadSpans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty(span) => write!(f, "the range from {} on is empty", span.first),
            Self::TooLong(span) => write!(f, "the range from {} on goes beyond the last id, 4294967294", span.first),
            Self::Overlap(a, b) => write!(f, "the ranges {a} and {b} have ids in common"),
            Self::TooMany => write!(f, "there are more than {SPANS_MAX} ranges"),
        }
    }
}

impl std::fmt::Display for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.first.saturating_add(self.count.saturating_sub(1)))
    }
}

impl Span {
    /// The part of `span`, whose ids are those from `to` on here, that has become what this range is of.
    fn of_part(&self, span: Self, to: u32) -> Option<Self> {
        let low = self.first.max(to);
        let high = self.first.saturating_add(self.count).min(to.saturating_add(span.count));
        let count = high.checked_sub(low).filter(|&count| count > 0)?;
        let becomes = match self.becomes {
            Becomes::From(first) => Becomes::From(first.saturating_add(low.saturating_sub(self.first))),
            other => other,
        };
        Some(Self { first: span.first.saturating_add(low.saturating_sub(to)), count, becomes })
    }

    fn check(self) -> Result<Self, BadSpans> {
        let ends = |first: u32| first.checked_add(self.count).is_some();
        let fits = ends(self.first)
            && match self.becomes {
                Becomes::From(to) => ends(to),
                Becomes::One(to) => to != NO_ID,
                Becomes::Nobody => true,
            };
        match (self.count, fits) {
            (0, _) => Err(BadSpans::Empty(self)),
            (_, false) => Err(BadSpans::TooLong(self)),
            _ => Ok(self),
        }
    }
}

/// A table of ranges that have no ids in common. An id of none of them stays what it is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<Span>", into = "Vec<Span>")]
pub struct Spans(Vec<Span>);

impl Spans {
    /// The ranges as one table, in whatever order they come.
    ///
    /// # Errors
    /// Says which range is none, or two of them none of one table.
    pub fn new(mut spans: Vec<Span>) -> Result<Self, BadSpans> {
        if spans.len() > SPANS_MAX {
            return Err(BadSpans::TooMany);
        }
        spans.iter().try_for_each(|span| span.check().map(drop))?;
        spans.sort_by_key(|span| span.first);
        for (a, b) in spans.iter().zip(spans.iter().skip(1)) {
            if b.first < a.first.saturating_add(a.count) {
                return Err(BadSpans::Overlap(*a, *b));
            }
        }
        Ok(Self(spans))
    }

    /// Every id stays what it is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What becomes of an id; `None` if it is nobody's.
    pub fn of(&self, id: u32) -> Option<u32> {
        let before = self.0.partition_point(|span| span.first <= id);
        let Some(span) = before.checked_sub(1).and_then(|last| self.0.get(last)) else { return Some(id) };
        match (id.saturating_sub(span.first), span.becomes) {
            (offset, _) if offset >= span.count => Some(id),
            (offset, Becomes::From(to)) => to.checked_add(offset),
            (_, Becomes::One(to)) => Some(to),
            (_, Becomes::Nobody) => None,
        }
    }

    /// One table for two: what becomes of an id by this one, becomes what `next` says of that.
    ///
    /// # Errors
    /// If it has too many ranges.
    pub fn then(&self, next: &Self) -> Result<Self, BadSpans> {
        let others = next.whole();
        let both = |span: Span| match span.becomes {
            Becomes::Nobody => vec![span],
            Becomes::One(to) => vec![Span { becomes: next.of(to).map_or(Becomes::Nobody, Becomes::One), ..span }],
            Becomes::From(to) => others.iter().filter_map(|other| other.of_part(span, to)).collect(),
        };
        let spans = self.whole().into_iter().flat_map(both);
        Self::new(spans.filter(|span| span.becomes != Becomes::From(span.first)).collect())
    }

    /// Ranges for all ids, in order: those of the table, and those of ids that stay what they are.
    fn whole(&self) -> Vec<Span> {
        let mut spans = Vec::with_capacity(self.0.len().saturating_mul(2).saturating_add(1));
        let mut next = 0;
        let end = Span { first: NO_ID, count: 0, becomes: Becomes::Nobody };
        for span in self.0.iter().chain([&end]) {
            let count = span.first.saturating_sub(next);
            spans.extend((count > 0).then_some(Span { first: next, count, becomes: Becomes::From(next) }));
            spans.extend((span.count > 0).then_some(*span));
            next = span.first.saturating_add(span.count);
        }
        spans
    }
}

impl TryFrom<Vec<Span>> for Spans {
    type Error = BadSpans;

    fn try_from(spans: Vec<Span>) -> Result<Self, BadSpans> {
        Self::new(spans)
    }
}

impl From<Spans> for Vec<Span> {
    fn from(spans: Spans) -> Self {
        spans.0
    }
}

/// How the ids of a share are shown to the guest.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Shown {
    /// Users.
    pub uids: Spans,
    /// Groups.
    pub gids: Spans,
}

impl Shown {
    /// Attributes as the guest is to see them.
    #[must_use]
    pub fn attr(&self, attr: Attr) -> Attr {
        let (uid, gid) = (self.uids.of(attr.uid.0), self.gids.of(attr.gid.0));
        Attr { uid: GuestUid(uid.unwrap_or(NOBODY)), gid: GuestGid(gid.unwrap_or(NOBODY)), ..attr }
    }
}

#[cfg(test)]
#[allow(clippy::arithmetic_side_effects, reason = "a panic is a failed test")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(first: u32, count: u32, becomes: Becomes) -> Span {
        Span { first, count, becomes }
    }

    #[test]
    fn an_id_becomes_what_its_range_says_or_stays_itself() {
        let ranges = [
            span(1000, 10, Becomes::From(5)),
            span(0, 1, Becomes::One(7)),
            span(2000, u32::MAX - 2000, Becomes::Nobody),
        ];
        let table = Spans::new(ranges.into()).unwrap();
        let becomes = [(0, Some(7)), (1, Some(1)), (999, Some(999)), (1000, Some(5)), (1009, Some(14))];
        let others = [(1010, Some(1010)), (2000, None), (u32::MAX - 1, None), (u32::MAX, Some(u32::MAX))];
        for (id, wanted) in becomes.into_iter().chain(others) {
            assert_eq!(table.of(id), wanted, "{id}");
        }
        assert_eq!(Spans::default().of(5), Some(5));
    }

    #[test]
    fn ranges_that_are_no_table_are_refused() {
        let refused = |spans: &[Span]| Spans::new(spans.to_vec()).unwrap_err();
        let (empty, long) = (span(5, 0, Becomes::Nobody), span(u32::MAX, 1, Becomes::Nobody));
        assert_eq!(refused(&[empty]), BadSpans::Empty(empty));
        assert_eq!(refused(&[long]), BadSpans::TooLong(long));
        for becomes in [Becomes::From(u32::MAX - 1), Becomes::One(u32::MAX)] {
            assert_eq!(refused(&[span(0, 2, becomes)]), BadSpans::TooLong(span(0, 2, becomes)));
        }
        let (a, b) = (span(0, 3, Becomes::One(0)), span(2, 3, Becomes::Nobody));
        assert_eq!(refused(&[b, a]).to_string(), "the ranges 0-2 and 2-4 have ids in common");
        let many: Vec<Span> = (0..101).map(|first| span(first, 1, Becomes::Nobody)).collect();
        assert_eq!(refused(&many), BadSpans::TooMany);
    }

    fn ranges() -> impl Strategy<Value = Vec<Span>> {
        let id = prop_oneof![0..200_u32, any::<u32>()];
        let count = prop_oneof![0..50_u32, any::<u32>()];
        let becomes =
            prop_oneof![id.clone().prop_map(Becomes::From), id.clone().prop_map(Becomes::One), Just(Becomes::Nobody)];
        let span = (id, count, becomes).prop_map(|(first, count, becomes)| span(first, count, becomes));
        prop::collection::vec(span, 0..8)
    }

    proptest! {
        /// A table does what a search through its ranges one by one would, and no two of them say what an id becomes.
        #[test]
        fn a_table_is_its_ranges(spans in ranges(), ids in prop::collection::vec(prop_oneof![0..260_u32, any::<u32>()], 32)) {
            let Ok(table) = Spans::new(spans.clone()) else { return Ok(()) };
            for id in ids {
                let mut of: Vec<&Span> = spans.iter().filter(|s| id >= s.first && id - s.first < s.count).collect();
                let wanted = match of.pop() {
                    None => Some(id),
                    Some(&Span { becomes: Becomes::From(to), first, .. }) => Some(to + (id - first)),
                    Some(&Span { becomes: Becomes::One(to), .. }) => Some(to),
                    Some(&Span { becomes: Becomes::Nobody, .. }) => None,
                };
                prop_assert!(of.is_empty());
                prop_assert_eq!(table.of(id), wanted);
                prop_assert!(id == NO_ID || wanted != Some(NO_ID), "no id becomes none");
            }
        }

        /// Two tables in one say what both say one after the other.
        #[test]
        fn two_tables_are_one(a in ranges(), b in ranges(), ids in prop::collection::vec(prop_oneof![0..260_u32, any::<u32>()], 32)) {
            let (Ok(a), Ok(b)) = (Spans::new(a), Spans::new(b)) else { return Ok(()) };
            let Ok(both) = a.then(&b) else { return Ok(()) };
            for id in ids.into_iter().filter(|&id| id != NO_ID) {
                prop_assert_eq!(both.of(id), a.of(id).and_then(|id| b.of(id)), "{}", id);
            }
        }

        /// What is refused has an empty range, one too long, or two with a common id.
        #[test]
        fn only_what_is_no_table_is_refused(spans in ranges()) {
            let apart = |a: &Span, b: &Span| a.first >= b.first + b.count || b.first >= a.first + a.count;
            let good = spans.iter().all(|s| s.check().is_ok())
                && spans.iter().enumerate().all(|(i, a)| spans.iter().skip(i + 1).all(|b| apart(a, b)));
            prop_assert_eq!(Spans::new(spans).is_ok(), good);
        }
    }
}
