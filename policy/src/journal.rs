//! Where log lines go: the standard error output or syslog. One line, one fact.
//!
//! Opened before the walls are raised; nothing is opened afterwards. A guest can cause lines as fast as it likes, so
//! only so many of a level are written in a while; those of debug and trace all, because they were asked for.

use std::io::Write;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};
use postern_ipc::Errno;

use crate::fatal::{Fatal, Step as _, one_line};

/// Where the system's log listens. syslog(3): _PATH_LOG
const SOCKET: &str = "/dev/log";
/// LOG_DAEMON of syslog(3), which a line's priority carries above its severity.
const FACILITY: u32 = 3 << 3;

/// Most lines of one level within [`WHILE`]. postern-server(1), postern-helper(8)
const MOST: u32 = 100;
const WHILE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Journal {
    program: &'static str,
    system: Option<UnixDatagram>,
    /// Of error, warn and info.
    quotas: [Mutex<Quota>; 3],
}

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
    let journal = JOURNAL.get_or_init(|| Journal { program, system, quotas: Default::default() });
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
        let (name, severity, quota) = describe(record.level());
        let quota = quota.and_then(|index| self.quotas.get(index));
        let written = match quota {
            Some(quota) => quota.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now()),
            None => Some(0),
        };
        match written {
            None => return,
            Some(0) => {}
            Some(left_out) => self.write(name, severity, &format_args!("{left_out} lines left out")),
        }
        self.write(name, severity, record.args());
    }

    fn flush(&self) {}
}

impl Journal {
    /// What the system's log does not take goes to the standard error output; what that does not take is lost.
    fn write(&self, name: &str, severity: u32, text: &std::fmt::Arguments<'_>) {
        let text = one_line(&text.to_string());
        let taken = self.system.as_ref().is_some_and(|socket| {
            let line = format!("<{}>{}[{}]: {text}", FACILITY | severity, self.program, std::process::id());
            socket.send(line.as_bytes()).is_ok()
        });
        if !taken {
            let line = format!("{}: {name}: {text}\n", self.program);
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }
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
}
