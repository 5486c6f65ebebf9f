//! Where log lines go: the standard error output or syslog. One line, one fact.
//!
//! Opened before the walls are raised; nothing is opened afterwards.

use std::io::Write;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use log::{Level, LevelFilter, Log, Metadata, Record};
use postern_ipc::Errno;

use crate::fatal::{Fatal, Step as _};

/// Where the system's log listens. syslog(3): _PATH_LOG
const SOCKET: &str = "/dev/log";
/// LOG_DAEMON of syslog(3), which a line's priority carries above its severity.
const FACILITY: u32 = 3 << 3;

#[derive(Debug)]
struct Journal {
    program: &'static str,
    system: Option<UnixDatagram>,
}

static JOURNAL: OnceLock<Journal> = OnceLock::new();

/// From now on log lines of `level` and worse are written, to syslog if so asked.
///
/// # Errors
/// If the system's log cannot be reached.
pub fn open(program: &'static str, level: LevelFilter, syslog: bool) -> Result<(), Fatal> {
    let system = syslog.then(connect).transpose()?;
    let journal = JOURNAL.get_or_init(|| Journal { program, system });
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
    socket.connect(SOCKET).step(step()).map_err(|fatal| fatal.hint("leave --syslog out"))?;
    Ok(socket)
}

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    /// What the system's log does not take goes to the standard error output; what that does not take is lost.
    fn log(&self, record: &Record<'_>) {
        let (name, severity) = describe(record.level());
        let text = record.args();
        let taken = self.system.as_ref().is_some_and(|socket| {
            let line = format!("<{}>{}[{}]: {text}", FACILITY | severity, self.program, std::process::id());
            socket.send(line.as_bytes()).is_ok()
        });
        if !taken {
            let line = format!("{}: {name}: {text}\n", self.program);
            let _ = std::io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}

/// The name of a level and its severity for syslog(3).
fn describe(level: Level) -> (&'static str, u32) {
    match level {
        Level::Error => ("error", 3),
        Level::Warn => ("warning", 4),
        Level::Info => ("info", 6),
        Level::Debug | Level::Trace => ("debug", 7),
    }
}
