//! What another process died of, for the log.
//!
//! Of one that its seccomp filter has killed a parent learns the signal only. The number of the call is in the kernel's
//! log, which a [`Witness`] reads who is called before the death.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Seek as _, SeekFrom};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, WaitIdStatus};

use crate::sandbox::seccomp;

/// The kernel's log. Linux: Documentation/ABI/testing/dev-kmsg
const LOG: &str = "/dev/kmsg";
/// Longest record. Linux: PRINTK_MESSAGE_MAX, and its dictionary
const RECORD: usize = 8192;
/// How much later than the death a record may come: a thread of the kernel's writes it.
const LATE: Duration = Duration::from_millis(100);
/// What every record of a call for which a process was killed has in it. Linux: AUDIT_SECCOMP, SIGSYS
const KILLED: [&str; 2] = ["audit: type=1326 ", " sig=31 "];

/// The end of what is said of a process that its filter has killed.
const HOW: &str = "this is a bug or an attack";

/// Who saw for which calls processes were killed, if the kernel's log is its to read.
#[derive(Debug)]
pub struct Witness(Option<File>);

impl Witness {
    /// Sees what happens from now on.
    pub fn call() -> Self {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let log = open(LOG, flags, Mode::empty()).ok().map(File::from);
        Self(log.and_then(|mut log| log.seek(SeekFrom::End(0)).is_ok().then_some(log)))
    }

    /// The call for which the process `pid` was killed. What is older than the answer is not told again.
    fn call_of(&self, pid: Pid) -> Option<libc::c_long> {
        let mut log = self.0.as_ref()?;
        let mut record = [0; RECORD];
        let until = Instant::now().checked_add(LATE)?;
        loop {
            match log.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(record.get(..length)?);
                    if let Some(number) = number(&text, pid) {
                        return Some(number);
                    }
                }
                // The oldest records are gone; the next that is there comes next.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = Timespec::try_from(until.checked_duration_since(Instant::now())?).ok()?;
                    poll(&mut [PollFd::new(log, PollFlags::IN)], Some(&left)).ok()?;
                }
                Err(_) => return None,
            }
        }
    }

    /// Whether a process, be it a child of this one or not, was killed by its filter, and for which call.
    pub fn killed(&self, pid: Pid) -> Option<String> {
        self.call_of(pid)
            .map(|number| format!("was killed by its seccomp filter for calling {}: {HOW}", seccomp::named(number)))
    }

    /// What a child of this process died of, as [`of`] says it; of one killed by its filter also for which call.
    pub fn death(&self, pid: Pid, status: &WaitIdStatus) -> String {
        let filtered = status.terminating_signal() == Some(libc::SIGSYS);
        filtered.then(|| self.killed(pid)).flatten().unwrap_or_else(|| of(pid, status))
    }
}

/// What a child of this process died of: `was ended by SIGSEGV`.
pub fn of(pid: Pid, status: &WaitIdStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exited with status {code}"),
        (_, Some(libc::SIGSYS)) => unseen(pid),
        (_, Some(number)) => match Signal::try_from(number) {
            Ok(signal) => format!("was ended by {signal}"),
            Err(_) => format!("was ended by signal {number}"),
        },
        _ => "ended".into(),
    }
}

/// Where people find what this process may not read.
fn unseen(pid: Pid) -> String {
    let pid = pid.as_raw_nonzero();
    format!(
        "was killed by its seccomp filter: {HOW}; the call is behind \"pid={pid} ... syscall=\" in the kernel's log \
         (journalctl -k, or ausearch -m SECCOMP -p {pid})"
    )
}

/// The number of the call in a record that says of the process `pid` that it was killed for it.
fn number(record: &str, pid: Pid) -> Option<libc::c_long> {
    let pid = format!(" pid={} ", pid.as_raw_nonzero());
    let about = KILLED.into_iter().chain([pid.as_str()]).all(|part| record.contains(part));
    let (_, behind) = record.split_once(" syscall=").filter(|_| about)?;
    behind.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = "5,1323,37408759770,-;audit: type=1326 audit(1795254920.233:530): auid=4294967295 uid=0 gid=0 \
                          ses=4294967295 pid=10212 comm=\"postern-helper\" exe=\"/usr/libexec/postern-helper\" sig=31 \
                          arch=c000003e syscall=16 compat=0 ip=0x7f6dcc6f34f7 code=0x80000000\n";

    fn pid(number: i32) -> Pid {
        Pid::from_raw(number).unwrap()
    }

    #[test]
    fn a_record_names_the_call_for_which_a_process_was_killed() {
        assert_eq!(number(RECORD, pid(10212)), Some(16));
    }

    #[test]
    fn records_of_other_processes_and_of_other_things_name_none() {
        assert_eq!(number(RECORD, pid(1021)), None);
        assert_eq!(number(&RECORD.replace("sig=31", "sig=0"), pid(10212)), None);
        assert_eq!(number(&RECORD.replace("1326", "1300"), pid(10212)), None);
        assert_eq!(number("", pid(10212)), None);
    }

    #[test]
    fn who_may_not_read_the_log_says_where_it_is() {
        assert_eq!(Witness(None).killed(pid(7)), None);
        assert!(unseen(pid(7)).contains("ausearch -m SECCOMP -p 7"));
    }
}
