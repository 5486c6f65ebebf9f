//! How the program ends. The numbers are postern-helper(8)'s and stay.

use std::process::ExitCode;

/// Besides these 2: the command line is wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Ending {
    /// The server is gone, or somebody asked for the end.
    Done = 0,
    /// It could not start or go on, and has said why.
    Failed = 1,
    /// The server broke the protocol.
    Protocol = 3,
}

impl Ending {
    /// The exit status.
    pub(crate) fn status(self) -> i32 {
        i32::from(self as u8)
    }
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        Self::from(ending as u8)
    }
}
