//! Where log lines go: the standard error output or syslog. One line, one fact.
//!
//! Opened before the walls are raised; nothing is opened afterwards. A guest can cause lines as fast as it likes, so
//! only so many of a level are written in a while; those of debug and trace all, because they were asked for. And
//! nobody goes on reading for sure: what the log does not take soon is lost, and counted.

use std::fmt::Arguments;
use std::io::Write;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};
use postern_ipc::Errno;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::fatal::{Fatal, Step as _, one_line};

/// Where the system's log listens. syslog(3): _PATH_LOG
const SOCKET: &str = "/dev/log";
/// LOG_DAEMON of syslog(3), which a line's priority carries above its severity.
const FACILITY: u32 = 3 << 3;

/// Most lines of one level within [`WHILE`]. postern-server(1), postern-helper(8)
const MOST: u32 = 100;
const WHILE: Duration = Duration::from_secs(10);

/// Longest line, bytes, with its end: a pipe takes as much whole or not at all. pipe(7): PIPE_BUF
pub const LINE: usize = 4096;
/// How long the standard error output may have no room; then lines are lost until it has some again.
const PATIENCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

#[derive(Debug)]
struct Journal {
    program: &'static str,
    system: Option<UnixDatagram>,
    own: Quotas,
    relayed: Quotas,
}

/// Of error, warn and info.
type Quotas = [Mutex<Quota>; 3];

/// How many lines of a level were written lately.
#[derive(Default, Debug)]
struct Quota {
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Quota {
    /// Whether one more may be written; then also how many before it were not.
    fn take(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= WHILE) {
            (self.since, self.lines) = (Some(now), 0);
        }
        if self.lines >= MOST {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.lines = self.lines.saturating_add(1);
        Some(std::mem::take(&mut self.left_out))
    }
}

static JOURNAL: OnceLock<Journal> = OnceLock::new();

/// From now on log lines of `level` and worse are written, to syslog if so asked.
///
/// # Errors
/// If the system's log cannot be reached.
pub fn open(program: &'static str, level: LevelFilter, syslog: bool) -> Result<(), Fatal> {
    let system = syslog.then(connect).transpose()?;
    let journal =
        JOURNAL.get_or_init(|| Journal { program, system, own: Quotas::default(), relayed: Quotas::default() });
    log::set_logger(journal).map_err(|_| Errno::EBUSY).step("open the log twice")?;
    log::set_max_level(level);
    Ok(())
}

/// The descriptor that must stay open for the system's log, if it is used.
pub fn descriptor() -> Option<BorrowedFd<'static>> {
    JOURNAL.get()?.system.as_ref().map(|socket| socket.as_fd())
}

fn connect() -> Result<UnixDatagram, Fatal> {
    let step = || format!("reach the system's log at {SOCKET}");
    let socket = UnixDatagram::unbound().step(step())?;
    socket.connect(SOCKET).step(step()).map_err(|fatal| fatal.hint("start a system log, or leave --syslog out"))?;
    Ok(socket)
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        self.say(&self.own, record.level(), record.args());
    }

    fn flush(&self) {}
}

impl Journal {
    fn say(&self, quotas: &Quotas, level: Level, text: &Arguments<'_>) {
        let (name, severity, quota) = describe(level);
        let quota = quota.and_then(|index| quotas.get(index));
        let written = match quota {
            Some(quota) => quota.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()),
            None => Some(0),
        };
        match written {
            None => return,
            Some(0) => {}
            Some(left_out) => self.write(name, severity, &format_args!("{left_out} lines left out")),
        }
        self.write(name, severity, text);
    }

    /// What the system's log does not take goes to the standard error output; what that does not take is lost.
    fn write(&self, name: &str, severity: u32, text: &Arguments<'_>) {
        let text = one_line(&text.to_string());
        let taken = self.system.as_ref().is_some_and(|socket| {
            let line = format!("<{}>{}[{}]: {text}", FACILITY | severity, self.program, std::process::id());
            socket.send(line.as_bytes()).is_ok()
        });
        if !taken {
            put(self.program, &format!("{name}: {text}"));
        }
    }
}

/// This process is a new one: what its parent has lost is not its to tell.
pub fn begin() {
    *LOST.lock().unwrap_or_else(PoisonError::into_inner) = 0;
}

/// Writes a line that another process of this program has written to what it takes for the standard error output, if it
/// is of a level that is wanted; there are so many of a level for all such lines.
pub fn relay(line: &[u8]) {
    let Some(journal) = JOURNAL.get() else { return };
    let line = String::from_utf8_lossy(line);
    // What the runtime says of a process that it ends has no level.
    let (level, text) = parse(&line, journal.program).unwrap_or((Level::Error, &line));
    if level <= log::max_level() {
        journal.say(&journal.relayed, level, &format_args!("{text}"));
    }
}

/// The level and the text of a line of `program`.
fn parse<'a>(line: &'a str, program: &str) -> Option<(Level, &'a str)> {
    let (name, text) = line.strip_prefix(program)?.strip_prefix(": ")?.split_once(": ")?;
    let mut levels = [Level::Error, Level::Warn, Level::Info, Level::Debug].into_iter();
    levels.find(|level| describe(*level).0 == name).map(|level| (level, text))
}

/// Lines that the standard error output did not take, since it took one.
static LOST: Mutex<u64> = Mutex::new(0);

/// Writes a line to the standard error output, in one piece: other processes write there as well. It is waited for
/// once, and not again until it has taken a line.
pub(crate) fn put(program: &str, text: &str) {
    let mut lost = LOST.lock().unwrap_or_else(PoisonError::into_inner);
    let (told, patience) = match *lost {
        0 => (String::new(), PATIENCE),
        lines => (format!("{program}: warning: {lines} lines lost, which nobody read\n"), Timespec::default()),
    };
    let line = cut(format!("{told}{program}: {text}"));
    let written = has_room(&patience) && std::io::stderr().write_all(line.as_bytes()).is_ok();
    *lost = if written { 0 } else { lost.saturating_add(1) };
}

/// Room for a line, so that writing it does not wait.
fn has_room(patience: &Timespec) -> bool {
    let output = std::io::stderr();
    let mut polled = [PollFd::new(&output, PollFlags::OUT)];
    let polls = rustix::io::retry_on_intr(|| poll(&mut polled, Some(patience)));
    polls.is_ok() && polled.iter().all(|fd| fd.revents().contains(PollFlags::OUT))
}

/// With its end, and no longer than a line may be.
fn cut(mut line: String) -> String {
    const END: &str = "...";
    if line.len() >= LINE {
        let most = LINE.saturating_sub(END.len()).saturating_sub(1);
        line.truncate((0..=most).rev().find(|at| line.is_char_boundary(*at)).unwrap_or(0));
        line.push_str(END);
    }
    line.push('\n');
    line
}

/// The name of a level, its severity for syslog(3), and its quota.
fn describe(level: Level) -> (&'static str, u32, Option<usize>) {
    match level {
        Level::Error => ("error", 3, Some(0)),
        Level::Warn => ("warning", 4, Some(1)),
        Level::Info => ("info", 6, Some(2)),
        Level::Debug | Level::Trace => ("debug", 7, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hundred_and_first_line_in_ten_seconds_is_left_out_and_counted() {
        let start = Instant::now();
        let mut quota = Quota::default();
        assert!((0..100).all(|_| quota.take(start) == Some(0)));
        assert_eq!((quota.take(start), quota.take(start + Duration::from_secs(9))), (None, None));
        assert_eq!(quota.take(start + Duration::from_secs(10)), Some(2));
        assert_eq!(quota.take(start + Duration::from_secs(11)), Some(0));
    }

    #[test]
    fn a_line_fits_into_a_pipe() {
        assert_eq!(cut("x".repeat(LINE - 1)), format!("{}\n", "x".repeat(LINE - 1)));
        for long in ["x".repeat(LINE), "\u{e4}".repeat(LINE), "\u{1f980}".repeat(LINE)] {
            let line = cut(long);
            assert!((LINE - 4..=LINE).contains(&line.len()) && line.ends_with("...\n"), "{}", line.len());
        }
    }

    #[test]
    fn a_line_of_the_same_program_has_a_level() {
        let parse = |line| parse(line, "postern-helper");
        assert_eq!(parse("postern-helper: warning: a: b"), Some((Level::Warn, "a: b")));
        assert_eq!(parse("postern-helper: debug: "), Some((Level::Debug, "")));
        for other in ["postern-server: info: ready", "postern-helper: fatal: a", "memory allocation failed", ""] {
            assert_eq!(parse(other), None);
        }
    }
}
