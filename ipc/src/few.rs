//! Descriptors of a frame: none, one, two, or of several files at once, unless somebody is hostile. Few take nothing
//! from the heap.

use std::os::fd::OwnedFd;

use smallvec::SmallVec;

/// Descriptors as they came: however many, all are owned.
pub type Descriptors = SmallVec<[OwnedFd; 2]>;

/// Most files that one request opens.
pub const EACH_MAX: usize = 8;

/// One for each of several files, as far as it could be opened.
pub type Each<T> = SmallVec<[T; EACH_MAX]>;

/// As many as a row of the table says.
pub trait Few<T>: Sized {
    /// All of `from`, if they are as many.
    fn all_of(from: impl IntoIterator<Item = T>) -> Option<Self>;
}

impl<T> Few<T> for [T; 0] {
    fn all_of(from: impl IntoIterator<Item = T>) -> Option<Self> {
        from.into_iter().next().is_none().then_some([])
    }
}

impl<T> Few<T> for [T; 1] {
    fn all_of(from: impl IntoIterator<Item = T>) -> Option<Self> {
        let mut from = from.into_iter();
        match (from.next(), from.next()) {
            (Some(one), None) => Some([one]),
            _ => None,
        }
    }
}

impl<T> Few<T> for [T; 2] {
    fn all_of(from: impl IntoIterator<Item = T>) -> Option<Self> {
        let mut from = from.into_iter();
        match (from.next(), from.next(), from.next()) {
            (Some(one), Some(other), None) => Some([one, other]),
            _ => None,
        }
    }
}

impl<T> Few<T> for Each<T> {
    fn all_of(from: impl IntoIterator<Item = T>) -> Option<Self> {
        let mut from = from.into_iter();
        let each = from.by_ref().take(EACH_MAX).collect();
        from.next().is_none().then_some(each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_more_nor_fewer_are_taken() {
        for count in 0..4 {
            let list = || 0..count;
            let taken = (
                <[u8; 0]>::all_of(list()).is_some(),
                <[u8; 1]>::all_of(list()).is_some(),
                <[u8; 2]>::all_of(list()).is_some(),
            );
            assert_eq!(taken, (count == 0, count == 1, count == 2));
        }
        assert_eq!(<[u8; 2]>::all_of([5, 6]), Some([5, 6]));
        for count in 0..EACH_MAX + 3 {
            assert_eq!(Each::all_of(0..count).map(|each| each.len()), (count <= EACH_MAX).then_some(count));
        }
    }
}
