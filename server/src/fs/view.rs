//! The share as users see it who act alone: each has a tree of his own, with nodes that he found himself. So no
//! descriptor that one user may have is ever used for another. Open files and locks are counted for all together.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use hashbrown::HashMap;
use postern_ipc::id::{GuestGid, GuestUid};
use postern_ipc::{Errno, Result};

use super::tree::Tree;

/// Most users at once.
pub(super) const VIEWS_MAX: usize = 64;

/// The trees that are in use.
#[derive(Default)]
pub(super) struct Views(Mutex<HashMap<(GuestUid, GuestGid), Weak<Tree>>>);

impl Views {
    /// The one of this user, which `make` makes if it is not there.
    ///
    /// # Errors
    /// EMFILE if there are too many.
    pub(super) fn of(&self, user: (GuestUid, GuestGid), make: impl FnOnce() -> Result<Tree>) -> Result<Arc<Tree>> {
        let mut views = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(view) = views.get(&user).and_then(Weak::upgrade) {
            return Ok(view);
        }
        views.retain(|_, view| view.strong_count() > 0);
        if views.len() >= VIEWS_MAX {
            return Err(Errno::EMFILE);
        }
        let view = Arc::new(make()?);
        views.insert(user, Arc::downgrade(&view));
        Ok(view)
    }
}
