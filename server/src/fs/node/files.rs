//! Which node a file is.

use std::hash::BuildHasher as _;

use hashbrown::{DefaultHashBuilder, HashTable};
use postern_ipc::attr::FileId;

/// So many tables, each of which grows by itself: what one request waits for is a small part of the whole.
const SHARDS: usize = 64;

/// Places of nodes by their files, found by a hash; whether it is the right one its node says.
pub(super) struct Files {
    shards: Vec<HashTable<Entry>>,
    hasher: DefaultHashBuilder,
}

#[derive(Clone, Copy)]
struct Entry {
    hash: u32,
    place: u32,
}

impl Entry {
    /// As tables want it, who look at its highest and its lowest bits.
    fn spread(self) -> u64 {
        spread(self.hash)
    }
}

fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Files {
    /// None.
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| HashTable::new()).collect(), hasher: DefaultHashBuilder::default() }
    }

    /// The place of a file's node, of which `is` tells whether it is the file's.
    pub(super) fn get(&self, id: &FileId, is: impl Fn(u32) -> bool) -> Option<u32> {
        let (shard, hash) = self.hash(id);
        let found = self.shards.get(shard)?.find(spread(hash), |entry| entry.hash == hash && is(entry.place));
        found.map(|entry| entry.place)
    }

    /// From now on a file's node is at `place`.
    pub(super) fn insert(&mut self, id: &FileId, place: u32, is: impl Fn(u32) -> bool) {
        let (shard, hash) = self.hash(id);
        let Some(shard) = self.shards.get_mut(shard) else { return };
        match shard.find_mut(spread(hash), |entry| entry.hash == hash && is(entry.place)) {
            Some(entry) => entry.place = place,
            None => drop(shard.insert_unique(spread(hash), Entry { hash, place }, |entry| entry.spread())),
        }
    }

    /// A file has no node at `place` any more.
    pub(super) fn remove(&mut self, id: &FileId, place: u32) {
        let (shard, hash) = self.hash(id);
        let Some(shard) = self.shards.get_mut(shard) else { return };
        if let Ok(entry) = shard.find_entry(spread(hash), |entry| entry.hash == hash && entry.place == place) {
            entry.remove();
        }
    }

    fn hash(&self, id: &FileId) -> (usize, u32) {
        let hash = self.hasher.hash_one(id);
        // The high half chooses the shard, the low one the place in it.
        let (high, low) = (hash >> 32, hash & u64::from(u32::MAX));
        (usize::try_from(high).unwrap_or(0) % SHARDS, u32::try_from(low).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_ipc::attr::Dev;

    fn id(ino: u64) -> FileId {
        FileId { mount: 1, dev: Dev::default(), ino }
    }

    #[test]
    fn every_file_is_found_and_only_while_it_is_there() {
        let mut files = Files::new();
        let is = |ino: u64| move |place: u32| u64::from(place) == ino;
        for ino in 0..10_000_u32 {
            files.insert(&id(ino.into()), ino, is(ino.into()));
        }
        for ino in (0..10_000_u32).step_by(2) {
            files.remove(&id(ino.into()), ino);
        }
        for ino in 0..10_000_u32 {
            assert_eq!(files.get(&id(ino.into()), is(ino.into())), (ino % 2 == 1).then_some(ino));
        }
    }

    #[test]
    fn of_two_nodes_the_later_is_the_files() {
        let mut files = Files::new();
        files.insert(&id(7), 1, |_| true);
        files.insert(&id(7), 2, |place| place == 1);
        assert_eq!(files.get(&id(7), |_| true), Some(2));
        files.remove(&id(7), 1);
        assert_eq!(files.get(&id(7), |_| true), Some(2));
        files.remove(&id(7), 2);
        assert_eq!(files.get(&id(7), |_| true), None);
    }
}
