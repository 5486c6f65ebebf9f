//! The time that a client who listens for its turn has to attach: until then it holds a slot for nothing, and others
//! wait.

use std::fs::File;
use std::io::{self, Error, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How long it is. postern-server(1): --clients
pub(super) const GRACE: Duration = Duration::from_secs(10);

/// What is left of it.
#[derive(Debug)]
pub(super) struct Grace {
    /// None where nobody waits for the slot.
    until: Option<Instant>,
    over: AtomicBool,
}

impl Grace {
    /// From now on; without `limit` for ever.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { until: limit.and_then(|limit| Instant::now().checked_add(limit)), over: AtomicBool::new(false) }
    }

    /// The client has attached, and has all the time there is.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// Waits until a wire is ready for `what`, unless that is no matter of time any more.
    fn wait(&self, wire: &File, what: PollFlags) -> io::Result<()> {
        let Some(until) = self.until else { return Ok(()) };
        while !self.over.load(Ordering::Acquire) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(ErrorKind::TimedOut, format!("it did not attach within {GRACE:?}")));
            }
            let left = Timespec::try_from(left).unwrap_or_default();
            if rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(wire, what)], Some(&left)))? > 0 {
                break;
            }
        }
        Ok(())
    }
}

/// A wire of a client, read and written while there is time.
pub(super) struct Timely<'a> {
    /// The wire.
    pub wire: &'a File,
    /// What is left.
    pub grace: &'a Grace,
}

impl Read for Timely<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.grace.wait(self.wire, PollFlags::IN)?;
        self.wire.read(buffer)
    }
}

impl Write for Timely<'_> {
    /// What is answered to who has not attached is short: there is room for all of it, or for nothing.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.grace.wait(self.wire, PollFlags::OUT)?;
        self.wire.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn who_does_not_attach_is_waited_for_so_long_and_who_has_for_ever() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let wire = File::from(OwnedFd::from(ours));
        let grace = Grace::new(Some(Duration::from_millis(50)));
        let mut timely = Timely { wire: &wire, grace: &grace };
        let mut byte = [0];
        theirs.write_all(b"a").unwrap();
        timely.read_exact(&mut byte).unwrap();
        assert_eq!(timely.read_exact(&mut byte).unwrap_err().kind(), ErrorKind::TimedOut);
        // As much as there is room for, and then nothing.
        let full = std::iter::repeat_with(|| timely.write(&[0; 64])).find_map(Result::err).unwrap();
        assert_eq!(full.kind(), ErrorKind::TimedOut);
        grace.end();
        theirs.write_all(b"b").unwrap();
        timely.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"b");
    }
}
