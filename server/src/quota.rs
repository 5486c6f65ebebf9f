//! How much guests may make the server hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use postern_ipc::{Errno, Result};

/// So much of something for all guests together. Those who work side by side may come to have a few more.
#[derive(Debug)]
pub struct Quota {
    held: AtomicUsize,
    most: usize,
    /// What is held, and the option that says how much may be.
    of: &'static str,
    /// It was said that there is no more.
    told: AtomicBool,
}

impl Quota {
    /// At most `most` of what the log calls `of`.
    pub fn new(most: usize, of: &'static str) -> Self {
        Self { held: AtomicUsize::new(0), most, of, told: AtomicBool::new(false) }
    }

    /// There is room for `count` more.
    ///
    /// # Errors
    /// ENFILE if there is not; the first time the log says so.
    pub fn room(&self, count: usize) -> Result<()> {
        if self.held.load(Ordering::Relaxed).saturating_add(count) <= self.most {
            return Ok(());
        }
        if !self.told.swap(true, Ordering::Relaxed) {
            log::warn!("guests hold {} {}, and are given no more: ENFILE", self.most, self.of);
        }
        Err(Errno::ENFILE)
    }

    /// So many more are held.
    pub fn add(&self, count: usize) {
        self.held.fetch_add(count, Ordering::Relaxed);
    }

    /// So many fewer are.
    pub fn give_back(&self, count: usize) {
        self.held.fetch_sub(count, Ordering::Relaxed);
    }

    /// Room for `count` more, for as long as the ticket lives.
    ///
    /// # Errors
    /// As [`Self::room`].
    pub fn ticket(self: &Arc<Self>, count: usize) -> Result<Ticket> {
        self.room(count)?;
        self.add(count);
        Ok(Ticket { quota: Arc::clone(self), count })
    }
}

/// Part of a quota.
#[derive(Debug)]
pub struct Ticket {
    quota: Arc<Quota>,
    count: usize,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.quota.give_back(self.count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_had_again() {
        let quota = Arc::new(Quota::new(3, "things"));
        let two = quota.ticket(2).unwrap();
        assert_eq!((quota.room(1), quota.room(2)), (Ok(()), Err(Errno::ENFILE)));
        assert_eq!(quota.ticket(2).err(), Some(Errno::ENFILE));
        drop(two);
        assert!(quota.ticket(3).is_ok());
    }

    #[test]
    fn no_count_is_too_large_to_be_refused() {
        let quota = Quota::new(usize::MAX - 1, "things");
        quota.add(1);
        assert_eq!(quota.room(usize::MAX), Err(Errno::ENFILE));
    }
}
