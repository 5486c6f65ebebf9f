//! Why a program cannot start, for the person who started it.

use std::fmt::{self, Display};

use postern_ipc::Errno;

use crate::journal;

/// `cannot WHAT on WHAT: WHY; what to do`. Printed by `main`, which then exits with 1.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fatal(String);

impl Fatal {
    /// `step` says what could not be done, as in `cannot open the shared directory`.
    pub fn new(step: impl Display, why: impl Display) -> Self {
        Self(format!("cannot {step}: {why}"))
    }

    /// What another process of the same program has said already.
    pub fn relayed(text: String) -> Self {
        Self(text)
    }

    /// Tells the person.
    pub fn tell(&self, program: &str) {
        journal::put(program, &one_line(&self.0));
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(mut self, hint: &str) -> Self {
        self.0.push_str("; ");
        self.0.push_str(hint);
        self
    }
}

impl Display for Fatal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fatal {}

/// The same without an end of a line or anything else that a terminal obeys: whoever names a directory or a process has
/// a say in a text, and shall not forge a second one.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// What a step of a program's start gives.
pub type Started<T> = Result<T, Fatal>;

/// Names the step that failed.
pub trait Step<T> {
    /// As [`Fatal::new`].
    ///
    /// # Errors
    /// The same error, told to a person.
    fn step(self, step: impl Display) -> Result<T, Fatal>;
}

impl<T, E: Into<Errno>> Step<T> for Result<T, E> {
    fn step(self, step: impl Display) -> Result<T, Fatal> {
        self.map_err(|error| Fatal::new(step, error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_one_line_whatever_it_is_made_of() {
        assert_eq!(one_line("share /a\nok\r\x1b[2J/\u{9b}/\u{e4} b"), "share /a\\nok\\r\\u{1b}[2J/\\u{9b}/\u{e4} b");
    }

    #[test]
    fn a_failure_says_what_why_and_what_to_do() {
        let failed: Result<(), Errno> = Err(Errno::ENOENT);
        let fatal = failed.step("open the shared directory /x").unwrap_err().hint("create it");
        assert_eq!(
            fatal.to_string(),
            "cannot open the shared directory /x: ENOENT: No such file or directory; create it"
        );
    }
}
