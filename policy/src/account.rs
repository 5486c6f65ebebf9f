//! What a process says of its own walls if it is asked to: `--explain`.
//!
//! One line each on the standard output, three columns with tabs between them: a [`Topic`], what is so, why. The lines
//! are made from what the process has put in force, not from what it was told to.

use std::fmt::{self, Display, Write as _};
use std::io::Write as _;
use std::str::FromStr;

use crate::fatal::{Fatal, Step as _};
use crate::sandbox::caps::Need;
use crate::sandbox::landlock::Domain;
use crate::sandbox::seccomp::Program;

/// What a line is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Topic {
    /// The first of a process: its part, and its process id.
    Process,
    /// A capability that it keeps, and what for.
    Capability,
    /// What Landlock lets it do, and what came of a try.
    Landlock,
    /// What becomes of it if it makes a system call that its list does not have, and how long the list is.
    Filter,
    /// A system call that its list has, and with which arguments and what for.
    Call,
    /// The last of a process.
    End,
}

/// As they are written.
const NAMES: [(Topic, &str); 6] = [
    (Topic::Process, "process"),
    (Topic::Capability, "capability"),
    (Topic::Landlock, "landlock"),
    (Topic::Filter, "filter"),
    (Topic::Call, "call"),
    (Topic::End, "end"),
];

impl Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(topic, _)| topic == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Topic {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        NAMES.iter().find(|(_, name)| *name == text).map(|(topic, _)| *topic).ok_or("no topic")
    }
}

/// One line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// What it is about.
    pub topic: Topic,
    /// What is so.
    pub what: String,
    /// Why.
    pub why: String,
}

impl FromStr for Line {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut columns = text.splitn(3, '\t');
        let topic = columns.next().unwrap_or_default().parse()?;
        let mut next = || columns.next().map(str::to_owned).ok_or("a column is missing");
        Ok(Self { topic, what: next()?, why: next()? })
    }
}

/// What one process has to say.
#[derive(Debug)]
pub struct Account(String);

impl Account {
    /// Of this process, which is the `part`.
    pub fn of(part: &str) -> Self {
        Self(String::new()).line(Topic::Process, part, std::process::id())
    }

    /// The capabilities it keeps.
    #[must_use]
    pub fn capabilities(self, list: &[Need]) -> Self {
        list.iter().fold(self, |account, need| account.line(Topic::Capability, need.capability, need.why))
    }

    /// The Landlock domain it is in, and what came of tries to read: each with the place.
    #[must_use]
    pub fn landlock(self, domain: Option<&Domain>, tried: &[(&str, postern_ipc::Result<()>)]) -> Self {
        let what = domain.map_or_else(|| "no domain".into(), Domain::to_string);
        let outcome = |(place, result): &(&str, postern_ipc::Result<()>)| match result {
            Ok(()) => format!("reading {place} works"),
            Err(errno) => format!("reading {place} gives {errno:?}"),
        };
        self.line(Topic::Landlock, what, tried.iter().map(outcome).collect::<Vec<_>>().join(", "))
    }

    /// The system calls of its list.
    #[must_use]
    pub fn calls(self, program: &Program) -> Self {
        let length = format!("{} instructions", program.len());
        let account = self.line(Topic::Filter, program.mode(), length);
        program.rows().fold(account, |account, call| account.line(Topic::Call, call, call.why))
    }

    fn line(mut self, topic: Topic, what: impl Display, why: impl Display) -> Self {
        // A String takes everything.
        let _ = writeln!(self.0, "{topic}\t{what}\t{why}");
        self
    }

    /// Says it.
    ///
    /// # Errors
    /// If nobody takes it.
    pub fn tell(self) -> Result<(), Fatal> {
        let Self(text) = self.line(Topic::End, "", "");
        let mut out = std::io::stdout();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).step("say what confines this process (--explain)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::seccomp::{Call, Mode};

    #[test]
    fn what_is_said_can_be_read_again() {
        const CALLS: &[Call] =
            &[Call::at(libc::SYS_openat, "opens").eq(2, 0x20).null(3), Call::any(libc::SYS_exit, "ends")];
        let program = Program::new(CALLS, Mode::Kill).unwrap();
        let Account(text) =
            Account::of("helper").landlock(None, &[("/", Err(postern_ipc::Errno::EACCES))]).calls(&program);
        let lines: Vec<Line> = text.lines().map(|line| line.parse().unwrap()).collect();
        assert_eq!((lines[0].topic, lines[0].what.as_str()), (Topic::Process, "helper"));
        assert_eq!((lines[1].what.as_str(), lines[1].why.as_str()), ("no domain", "reading / gives EACCES"));
        assert_eq!((lines[2].topic, lines[2].what.as_str()), (Topic::Filter, "kill"));
        assert_eq!(lines[3].what, format!("exit ({})", libc::SYS_exit));
        let opens = format!(
            "openat ({}): argument 0 is a descriptor, argument 2 is 0x20, argument 3 is null",
            libc::SYS_openat
        );
        assert_eq!(lines.last().unwrap(), &Line { topic: Topic::Call, what: opens, why: "opens".into() });
    }

    #[test]
    fn nonsense_is_no_line() {
        assert!("".parse::<Line>().is_err());
        assert!("call\topenat".parse::<Line>().is_err());
        assert!("guess\ta\tb".parse::<Line>().is_err());
    }
}
