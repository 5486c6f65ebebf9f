//! How many shares one user has at once, where root serves him: one locked file for each. The kernel unlocks them,
//! whatever a helper dies of.

use std::os::fd::OwnedFd;

use postern_ipc::Errno;
use postern_policy::fatal::{Fatal, Started, Step as _};
use rustix::fs::{FlockOperation, Mode, OFlags, flock, mkdir, open};

/// Where the files are: for root alone, so that nobody else can hold their locks.
const DIRS: [(&str, u32); 2] = [("/run/postern", 0o755), ("/run/postern/shares", 0o700)];

/// One of a user's shares, as long as it is open.
#[derive(Debug)]
pub(crate) struct Slot(#[expect(dead_code, reason = "holds the lock")] OwnedFd);

impl Slot {
    /// The next one that is free, of so many.
    pub(crate) fn take(uid: u32, most: u16) -> Started<Self> {
        let step = "count the shares of a user";
        for (dir, mode) in DIRS {
            match mkdir(dir, Mode::from_raw_mode(mode)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(Fatal::new(format!("{step} in {dir}"), Errno::from(errno))),
            }
        }
        let [_, (dir, _)] = DIRS;
        for number in 0..most {
            let path = format!("{dir}/{uid}.{number}");
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = open(&path, flags, Mode::from_raw_mode(0o600)).step(format!("{step} in {path}"))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self(file)),
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(errno) => return Err(Fatal::new(format!("{step} in {path}"), Errno::from(errno))),
            }
        }
        Err(Fatal::new("share one more directory", format!("there are {most} already"))
            .hint("end one, or have shares-per-user of postern-policy(5) raised"))
    }
}
