//! What a share lets be done to it.

use postern_ipc::{Errno, Result};

/// What an operation needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Right {
    /// To look.
    Read,
    /// To change something.
    Write,
}

/// What a share grants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rights {
    write: bool,
}

impl Rights {
    /// Of a share that nobody may change.
    pub const READ: Self = Self { write: false };
    /// Of any other.
    pub const READ_WRITE: Self = Self { write: true };

    /// Whether `right` is granted.
    pub fn allow(self, right: Right) -> bool {
        right == Right::Read || self.write
    }

    /// The permission check.
    ///
    /// # Errors
    /// EROFS, as a file system mounted read-only gives.
    pub fn require(self, right: Right) -> Result<()> {
        if self.allow(right) { Ok(()) } else { Err(Errno::EROFS) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_only_share_grants_reading_only() {
        assert_eq!(Rights::READ.require(Right::Read), Ok(()));
        assert_eq!(Rights::READ.require(Right::Write), Err(Errno::EROFS));
        assert_eq!(Rights::READ_WRITE.require(Right::Write), Ok(()));
    }
}
