//! The one error that travels: an errno of Linux. Conversions from every library's error end here.

use std::{fmt, io};

use serde::{Deserialize, Serialize};

/// An error number, 1 to 4095 as the kernel's own. errno(3)
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Errno(u16);

/// What an operation of a share gives.
pub type Result<T> = std::result::Result<T, Errno>;

macro_rules! errnos {
    ($($name:ident)*) => { impl Errno { $(
        #[doc = concat!(stringify!($name), ". errno(3)")]
        pub const $name: Errno = Errno(libc::$name as u16);
    )* } };
}

// The numbers of libc are small positive constants.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
mod numbers {
    use super::Errno;
    errnos! {
        EPERM ENOENT EIO ENXIO E2BIG EBADF EAGAIN ENOMEM EACCES EFAULT EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL
        ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC EROFS EMLINK EPIPE ERANGE ENAMETOOLONG ENOSYS ENOTEMPTY ELOOP ENODATA
        EOVERFLOW EPROTO ETOOMANYREFS EOPNOTSUPP ESTALE EDQUOT EINTR ENOTCONN ECONNRESET ESRCH ETIMEDOUT ENOBUFS ENOLCK
        EBADSLT
    }
}

impl Errno {
    /// The positive number.
    pub fn raw(self) -> i32 {
        i32::from(self.0)
    }

    /// What it means, in a few words. strerror(3)
    pub fn desc(self) -> &'static str {
        nix::errno::Errno::from_raw(self.raw()).desc()
    }

    /// From a positive number; anything that is no errno becomes EIO.
    pub fn from_raw(raw: i32) -> Self {
        u16::try_from(raw).ok().and_then(|n| Self::try_from(n).ok()).unwrap_or(Self::EIO)
    }
}

impl TryFrom<u16> for Errno {
    type Error = &'static str;

    fn try_from(raw: u16) -> std::result::Result<Self, Self::Error> {
        if (1..4096).contains(&raw) { Ok(Self(raw)) } else { Err("not an errno") }
    }
}

impl From<Errno> for u16 {
    fn from(errno: Errno) -> u16 {
        errno.0
    }
}

impl From<nix::errno::Errno> for Errno {
    fn from(errno: nix::errno::Errno) -> Self {
        Self::from_raw(errno as i32)
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::from_raw(errno.raw_os_error())
    }
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        error.raw_os_error().map_or(Self::EIO, Self::from_raw)
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&nix::errno::Errno::from_raw(self.raw()), f)
    }
}

/// `ENOENT: No such file or directory`
impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}: {}", self.desc())
    }
}

impl std::error::Error for Errno {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_of_the_kernel_are_errnos() {
        assert!(Errno::try_from(0).is_err());
        assert!(Errno::try_from(4096).is_err());
        assert_eq!(Errno::from_raw(-2), Errno::EIO);
        assert_eq!(Errno::from_raw(libc::ENOENT), Errno::ENOENT);
    }
}
