//! `postern explain`: what confines each process of a share with these options, and what the other side could do to it.
//!
//! The share is started for real, with a socket of its own instead of the VMM's. Each process says what it has put in
//! force (`account`), the kernel says the rest (`seen`), and the share ends.

mod deeds;
mod seen;

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use postern_policy::account::{Line, Topic};
use postern_policy::fatal::{Fatal, Step as _};
use rustix::io::FdFlags;

use crate::args::{Frontend, ShareArgs};
use deeds::deeds;
use seen::seen;

/// Options that say where guests come from, each with a value; nobody comes to a share that is only looked at.
const WAYS: [&str; 7] =
    ["--socket-path", "--fd", "--socket-user", "--socket-group", "--listen", "--stream-fd", "--stats-socket"];
/// The same without a value.
const STDIO: &str = "--stdio";

/// Who says what to whom.
const SAYS: [(&str, &str, &str); 5] = [
    ("server", "guest", "whatever it likes, by rings and messages; each length, id, flag, name and handle is checked"),
    ("server", "warden", "news, the share's root and channels"),
    ("server", "helper", "answers, and descriptors of files"),
    ("warden", "server", "one greeting; another word ends the share"),
    ("helper", "server", "requests, with descriptors of the share; one that no honest server sends ends the share"),
];

/// What one process has said.
#[derive(Debug)]
struct Part {
    name: String,
    pid: u32,
    lines: Vec<Line>,
}

impl Part {
    fn about(&self, topic: Topic) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.topic == topic)
    }
}

/// The table for a share that `server`, the program, has by this command line, of which `frontend` is what it says.
///
/// # Errors
/// Says why there is no such share.
pub fn explain(server: &Path, frontend: &Frontend, words: &[OsString]) -> Result<String, Fatal> {
    let (share, stream) = match frontend {
        Frontend::Virtiofs(args) => (&args.share, false),
        Frontend::P9(args) => (&args.share, args.way.is_stream()),
        Frontend::Proxy(args) => (&args.share, false),
    };
    let ShareArgs { sock_fd: None, helper_socket: None, by_policy: false, .. } = share else {
        let step = "explain a share whose helper takes no orders (--sock-fd, --helper-socket, --by-policy)";
        return Err(Fatal::new(step, "it cannot be asked")
            .hint("name the directory by --shared-dir, and options of postern-helper as postern-server has them"));
    };
    let step = || format!("start {}", server.display());
    let (_vmm, theirs) = UnixStream::pair().map(|(ours, theirs)| (ours, OwnedFd::from(theirs))).step(step())?;
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).step(step())?;
    let mut command = Command::new(server);
    command.args(without_ways(words)).arg(if stream { "--stream-fd" } else { "--fd" });
    command.arg(theirs.as_raw_fd().to_string()).arg("--explain").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().step(step())?;
    let parts = child.stdout.take().map(|out| parts(BufReader::new(out).lines().map_while(Result::ok)));
    let text = parts.filter(|parts| parts.len() == 3).map(|parts| render(&parts));
    // It may have ended already.
    let _ = child.kill();
    let _ = child.wait();
    text.ok_or_else(|| Fatal::new("explain the share", "it could not be started; its own message says why"))
}

fn without_ways(words: &[OsString]) -> Vec<&OsStr> {
    let mut words = words.iter().map(OsString::as_os_str);
    let mut rest = Vec::new();
    while let Some(word) = words.next() {
        let name = word.as_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
        if WAYS.iter().any(|way| way.as_bytes() == name) {
            if name == word.as_bytes() {
                words.next();
            }
        } else if word != STDIO {
            rest.push(word);
        }
    }
    rest
}

/// What the processes say, up to the last one, which is the server.
fn parts(lines: impl Iterator<Item = String>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for line in lines.filter_map(|line| line.parse::<Line>().ok()) {
        match (line.topic, parts.last_mut()) {
            (Topic::Process, _) => {
                parts.push(Part { name: line.what, pid: line.why.parse().unwrap_or_default(), lines: Vec::new() });
            }
            (Topic::End, Some(part)) if part.name == "server" => break,
            (_, Some(part)) => part.lines.push(line),
            (_, None) => {}
        }
    }
    parts
}

/// The server first: a guest meets it first.
fn render(parts: &[Part]) -> String {
    let server = parts.iter().filter(|part| part.name == "server");
    let helpers = parts.iter().filter(|part| part.name != "server");
    let mut text = String::new();
    for part in server.chain(helpers) {
        let others = parts.iter().filter(|other| (other.name == "server") != (part.name == "server"));
        // A String takes everything.
        let _ = writeln!(text, "{}: process {}\n", part.name.to_uppercase(), part.pid);
        rows(&mut text, "as the kernel shows it", seen(part.pid).into_iter());
        let said = |topic| part.about(topic).map(|line| (line.what.clone(), line.why.clone()));
        rows(&mut text, "capabilities", said(Topic::Capability));
        rows(&mut text, "Landlock", said(Topic::Landlock));
        rows(&mut text, "what becomes of it by any other system call than these", said(Topic::Filter));
        rows(&mut text, "system calls", said(Topic::Call));
        let told = SAYS.iter().filter(|(to, ..)| *to == part.name);
        rows(&mut text, "what it is told", told.map(|(_, by, what)| (format!("by the {by}"), (*what).to_owned())));
        for other in others {
            rows(
                &mut text,
                &format!("what the {} could do to it besides, by its list", other.name),
                deeds(other).into_iter(),
            );
        }
    }
    text
}

/// A heading, and below it a line for each of what is so and why; "none" where there is nothing.
fn rows(text: &mut String, heading: &str, rows: impl Iterator<Item = (String, String)>) {
    let rows: Vec<_> = rows.collect();
    let width = rows.iter().map(|(what, _)| what.chars().count()).max().unwrap_or_default().min(60);
    let _ = writeln!(text, "  {heading}{}", if rows.is_empty() { ": none" } else { "" });
    for (what, why) in rows {
        let _ = writeln!(text, "{}", format!("    {what:width$}  {why}").trim_end());
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(words: &[&str]) -> Vec<String> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        without_ways(&words).into_iter().map(|word| word.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn where_guests_come_from_is_left_out() {
        assert_eq!(rest(&["virtiofs", "--socket-path", "s", "--readonly"]), ["virtiofs", "--readonly"]);
        assert_eq!(rest(&["9p", "--listen=unix:s", "--stdio", "--clients=2"]), ["9p", "--clients=2"]);
        assert_eq!(rest(&["virtiofs", "--fd", "3", "--shared-dir", "--fd=x"]), ["virtiofs", "--shared-dir"]);
    }

    #[test]
    fn what_each_process_says_stands_apart() {
        let said =
            "process\twarden\t7\ncapability\tA\tb\nend\t\t\nprocess\tserver\t8\ncall\tc\td\nend\t\t\nprocess\tx\t9\n";
        let parts = parts(said.lines().map(str::to_owned));
        let names: Vec<_> = parts.iter().map(|part| (part.name.as_str(), part.pid)).collect();
        assert_eq!(names, [("warden", 7), ("server", 8)]);
        assert_eq!(parts[1].about(Topic::Call).map(|line| line.what.as_str()).collect::<Vec<_>>(), ["c"]);
    }
}
