//! The standard error output of a helper: a pipe, of which the warden writes whole lines to the log.
//!
//! The log is a file, a terminal or a pipe of whoever started this program. Who holds it can change its mode, empty it
//! or type into it, so a helper holds nothing of it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use postern_ipc::Result;
use postern_policy::journal::{self, LINE};
use rustix::io::read;
use rustix::pipe::{PipeFlags, pipe_with};

/// Reads that empty a pipe which nobody fills again. pipe(7): it holds 64 KiB
const WHOLE: usize = 64 * 1024 / LINE;

/// What one helper writes. No more than one line is kept of it, and its rest if it is too long is left out.
#[derive(Debug)]
pub(crate) struct Lines {
    output: OwnedFd,
    /// Held as well, so that a helper that closes it is no end to be told of again and again.
    input: OwnedFd,
    line: Vec<u8>,
}

impl Lines {
    /// Nobody waits at either end.
    pub(crate) fn new() -> Result<Self> {
        let (output, input) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { output, input, line: Vec::with_capacity(LINE) })
    }

    /// Readable once there is something.
    pub(crate) fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    /// What the helper writes to.
    pub(crate) fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    /// Writes what there is to the log, as far as it is whole lines and not much. Whether there was something.
    pub(crate) fn relay(&mut self) -> bool {
        let mut buffer = [0; LINE];
        let Ok(length @ 1..) = read(&self.output, &mut buffer) else { return false };
        for part in buffer.get(..length).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            let room = LINE.saturating_sub(self.line.len()).min(text.len());
            self.line.extend_from_slice(text.get(..room).unwrap_or_default());
            if is_whole {
                self.end_line();
            }
        }
        true
    }

    /// Writes all the rest of a helper that is dead. It may have passed its end on to a server that goes on writing: no
    /// more than was there is waited for.
    pub(crate) fn finish(&mut self) {
        let _ = (0..WHOLE).take_while(|_| self.relay()).count();
        self.end_line();
    }

    fn end_line(&mut self) {
        if !self.line.is_empty() {
            journal::relay(&self.line);
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::write;

    #[test]
    fn a_line_is_as_long_as_one_may_be_however_it_comes() {
        let mut lines = Lines::new().unwrap();
        for _ in 0..5 {
            assert_eq!(write(lines.input(), &[b'x'; LINE - 100]), Ok(LINE - 100));
            assert!(lines.relay());
        }
        assert_eq!((lines.line.len(), lines.line.capacity()), (LINE, LINE));
        write(lines.input(), b"y\nz").unwrap();
        assert!(lines.relay());
        assert_eq!(lines.line, b"z");
        lines.finish();
        assert!(lines.line.is_empty() && !lines.relay());
    }

    #[test]
    fn an_end_that_somebody_goes_on_writing_to_is_left() {
        let endless = || std::fs::File::open("/dev/zero").unwrap().into();
        let mut lines = Lines { output: endless(), input: endless(), line: Vec::new() };
        lines.finish();
        assert!(lines.relay(), "there is more");
    }

    #[test]
    fn all_that_a_pipe_holds_is_written() {
        let mut lines = Lines::new().unwrap();
        while write(lines.input(), &[b'x'; 64]).is_ok() {}
        lines.finish();
        assert!(!lines.relay());
    }
}
