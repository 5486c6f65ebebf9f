//! What a guest sees of several file systems in one share.
//!
//! The inode numbers of two file systems may be equal, and a frontend that shows one device only must not show them so.
//! The numbers of the root's file system stay as they are, below 2^63. All others have the topmost bit set, then 16
//! bits for what they begin with: their device and the upper 17 bits of their own number; then the lower 47 bits of it.
//! Where those 16 bits are used up, each number gets one of its own. A number is the same as long as the server lives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use hashbrown::HashMap;
use postern_ipc::attr::{Attr, Dev};
use postern_ipc::{Errno, Result};

/// Set in every number that is not of the root's file system.
const FOREIGN: u64 = 1 << 63;
/// Lower bits of an inode number, which are kept.
const LOW: u32 = 47;
/// Most beginnings with bits of their own; one more stands for all others.
const BEGINNINGS: usize = (1 << 16) - 1;
/// Most numbers without.
const SINGLES: usize = 1 << 20;

/// What becomes of mounts below the share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Multidevs {
    /// They are file systems of their own in the guest, too.
    #[default]
    Apart,
    /// They are directories like others, and no two inode numbers are equal.
    Remap,
    /// They are not there.
    Forbid,
    /// They are directories like others, and inode numbers may be equal: that is said once.
    Warn,
}

/// The file systems of a share.
#[derive(Debug)]
pub(super) struct Devices {
    policy: Multidevs,
    root: Dev,
    warned: AtomicBool,
    numbers: Mutex<Numbers>,
}

#[derive(Debug, Default)]
struct Numbers {
    beginnings: HashMap<(Dev, u64), u64>,
    singles: HashMap<(Dev, u64), u64>,
}

impl Devices {
    /// Of a share whose root has these attributes.
    pub(super) fn new(policy: Multidevs, root: &Attr) -> Self {
        Self { policy, root: root.id.dev, warned: AtomicBool::new(false), numbers: Mutex::default() }
    }

    /// Names have to be looked at before they are listed.
    pub(super) fn hides(&self) -> bool {
        self.policy == Multidevs::Forbid
    }

    /// The attributes as the guest is to see them.
    ///
    /// # Errors
    /// ENODEV for what is not to be seen; EOVERFLOW if there are no numbers left.
    pub(super) fn shown(&self, mut attr: Attr) -> Result<Attr> {
        match self.policy {
            Multidevs::Apart => {}
            Multidevs::Remap => {
                attr.id.ino = self.number(attr.id.dev, attr.id.ino)?;
                attr.id.dev = self.root;
                attr.mount_root = false;
            }
            _ if attr.id.dev == self.root => {}
            Multidevs::Forbid => return Err(Errno::ENODEV),
            Multidevs::Warn => {
                if !self.warned.swap(true, Ordering::Relaxed) {
                    log::warn!("several file systems in one share: inode numbers may be equal; see --multidevs");
                }
            }
        }
        Ok(attr)
    }

    /// The number of an inode as the guest is to see it.
    ///
    /// # Errors
    /// EOVERFLOW if there are no numbers left.
    pub(super) fn number(&self, dev: Dev, ino: u64) -> Result<u64> {
        if self.policy != Multidevs::Remap || dev == self.root && ino < FOREIGN {
            return Ok(ino);
        }
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner).number(dev, ino).ok_or(Errno::EOVERFLOW)
    }
}

impl Numbers {
    fn number(&mut self, dev: Dev, ino: u64) -> Option<u64> {
        let low = ino & ((1 << LOW) - 1);
        let index = next(&mut self.beginnings, (dev, ino >> LOW), BEGINNINGS);
        if let Some(index) = index {
            return Some(FOREIGN | index << LOW | low);
        }
        let last = u64::try_from(BEGINNINGS).ok()?;
        next(&mut self.singles, (dev, ino), SINGLES).map(|single| FOREIGN | last << LOW | single)
    }
}

/// The number a key has, or its first: the count of those before it; `None` if there are `most` already.
fn next(of: &mut HashMap<(Dev, u64), u64>, key: (Dev, u64), most: usize) -> Option<u64> {
    if let Some(known) = of.get(&key) {
        return Some(*known);
    }
    if of.len() >= most {
        return None;
    }
    let first = u64::try_from(of.len()).ok()?;
    of.insert(key, first);
    Some(first)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn numbers(policy: Multidevs) -> Devices {
        let root = Attr::of(std::fs::File::open("/proc").unwrap()).unwrap();
        Devices { root: Dev { major: 8, minor: 1 }, ..Devices::new(policy, &root) }
    }

    #[test]
    fn no_two_inodes_have_one_number_and_each_keeps_its_own() {
        let devices = numbers(Multidevs::Remap);
        let inos = [1, 2, (1 << LOW) - 1, 1 << LOW, 1 << 62, FOREIGN, FOREIGN | 1, u64::MAX];
        let all = || {
            let of = |minor| inos.map(|ino| devices.number(Dev { major: 8, minor }, ino).unwrap());
            (1..2000).flat_map(of).collect::<Vec<_>>()
        };
        let first = all();
        assert_eq!(first.iter().collect::<HashSet<_>>().len(), first.len());
        assert_eq!(all(), first);
        assert_eq!(first[..4], inos[..4], "the root's own stay as they are");
    }

    #[test]
    fn when_beginnings_are_used_up_numbers_are_given_one_by_one_up_to_a_bound() {
        let devices = numbers(Multidevs::Remap);
        let other = Dev { major: 9, minor: 0 };
        let mut seen = HashSet::new();
        for beginning in 0..BEGINNINGS as u64 + 1000 {
            let dev = Dev { minor: u32::try_from(beginning >> 17).unwrap(), ..other };
            assert!(seen.insert(devices.number(dev, beginning << LOW).unwrap()));
        }
        let many = Dev { major: 10, minor: 0 };
        let refused = (0..=SINGLES as u64).find_map(|ino| devices.number(many, ino).err());
        assert_eq!(refused, Some(Errno::EOVERFLOW));
        assert!(devices.number(other, 0).is_ok());
    }

    #[test]
    fn other_policies_change_no_number() {
        for policy in [Multidevs::Apart, Multidevs::Forbid, Multidevs::Warn] {
            assert_eq!(numbers(policy).number(Dev { major: 9, minor: 0 }, 7), Ok(7));
        }
    }
}
