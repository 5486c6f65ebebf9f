//! Gets an id map into the kernel, from outside of the user namespace it is for. user_namespaces(7)
//!
//! Root writes it; an ordinary user has newuidmap(1) and newgidmap(1) write it, which are looked for at fixed places
//! and never through $PATH; one id, his own, he may write himself.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use nix::unistd::setfsuid;
use postern_policy::fatal::{Fatal, Step as _};
use postern_policy::host::{HostGid, HostUid};
use postern_policy::idmap::{IdMap, IdMaps};
use postern_policy::subid;
use rustix::fs::{Mode, OFlags, open};
use rustix::process::{Pid, WaitOptions, getpid, waitpid};

use crate::sys;

/// How a map gets into the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Writer {
    /// By writing the file.
    Direct,
    /// By a program with the privilege to.
    Tool(Tool),
}

/// newuidmap or newgidmap.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tool(PathBuf);

impl Tool {
    /// Looks for it.
    pub(crate) fn find(name: &str) -> Result<Self, Fatal> {
        subid::tool(name).map(Self).ok_or_else(|| {
            Fatal::new(format!("find {name}"), format!("not in {}", subid::PLACES.join(", ")))
                .hint("install the package uidmap")
        })
    }

    fn run(&self, pid: Pid, map: &IdMap) -> Result<(), Fatal> {
        let step = || format!("write a map by {}", self.0.display());
        let mut command = Command::new(&self.0);
        command.arg(pid.as_raw_nonzero().to_string()).args(map.arguments()).env_clear();
        let output = command.output().step(step())?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().escape_debug().to_string();
        Err(Fatal::new(step(), said).hint("compare the map with /etc/subuid and /etc/subgid"))
    }
}

/// A process whose number cannot become another one's unnoticed: its directory in /proc is held.
#[derive(Debug)]
pub(crate) struct Process {
    pid: Pid,
    dir: OwnedFd,
}

impl Process {
    /// That of a number.
    pub(crate) fn hold(pid: Pid) -> Result<Self, Fatal> {
        let path = format!("/proc/{}", pid.as_raw_nonzero());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = open(&path, flags, Mode::empty()).step(format!("look at {path}"))?;
        Ok(Self { pid, dir })
    }

    /// Its user and group ids as they are on this side.
    pub(crate) fn ids(&self) -> Result<(HostUid, HostGid), Fatal> {
        let step = || format!("read the server's ids from {}", self.shown("status"));
        let status = fs::read_to_string(self.path("status")).step(step())?;
        let id = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().nth(1)?.parse().ok()
        };
        let ids = id("Uid:").map(HostUid).zip(id("Gid:").map(HostGid));
        ids.ok_or_else(|| Fatal::new(step(), "there are none"))
    }

    /// Writes both maps for its user namespace, which has none yet. Nobody inside can leave `groups` if there are none
    /// to join: neither lets the kernel a user map his own group without that, nor would newgidmap(1).
    pub(crate) fn write(&self, maps: &IdMaps, [uids, gids]: &[Writer; 2], groups: bool) -> Result<(), Fatal> {
        if !groups {
            self.put("setgroups", "deny")?;
        }
        self.one("gid_map", &maps.gids, gids)?;
        self.one("uid_map", &maps.uids, uids)
    }

    fn one(&self, file: &str, map: &IdMap, writer: &Writer) -> Result<(), Fatal> {
        match writer {
            Writer::Direct => self.put(file, &map.proc_text()),
            Writer::Tool(tool) => tool.run(self.pid, map),
        }
    }

    fn put(&self, file: &str, text: &str) -> Result<(), Fatal> {
        let open = || fs::OpenOptions::new().write(true).open(self.path(file));
        let opened = match open() {
            // It is its user's, and a helper that is root's need not have CAP_DAC_OVERRIDE.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                let HostUid(owner) = self.ids()?.0;
                let own = setfsuid(owner.into());
                let opened = open();
                setfsuid(own);
                opened
            }
            opened => opened,
        };
        // The kernel takes a map in one write only.
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
        written.step(format!("write \"{}\" to {}", text.trim_end().escape_debug(), self.shown(file)))
    }

    fn path(&self, file: &str) -> String {
        format!("/proc/self/fd/{}/{file}", self.dir.as_raw_fd())
    }

    fn shown(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.pid.as_raw_nonzero())
    }
}

/// A process that stays outside of the namespaces this one is about to enter, and maps this one from there.
#[derive(Debug)]
pub(crate) struct Outside {
    child: Pid,
    wire: UnixStream,
}

impl Outside {
    /// Starts it.
    pub(crate) fn new(maps: &IdMaps, writers: &[Writer; 2], groups: bool) -> Result<Self, Fatal> {
        let step = "start a process that writes the id map";
        let inside = getpid();
        let (wire, theirs) = UnixStream::pair().step(step)?;
        match sys::fork().step(step)? {
            Some(child) => Ok(Self { child, wire }),
            None => {
                drop(wire);
                serve(theirs, || Process::hold(inside)?.write(maps, writers, groups));
                std::process::exit(0)
            }
        }
    }

    /// This process is in its user namespace now.
    pub(crate) fn map(mut self) -> Result<(), Fatal> {
        let step = "learn whether the id map is written";
        self.wire.write_all(b"?").step(step)?;
        let mut told = String::new();
        self.wire.read_to_string(&mut told).step(step)?;
        waitpid(Some(self.child), WaitOptions::empty()).step(step)?;
        match told.as_str() {
            "ok" => Ok(()),
            "" => Err(Fatal::new(step, "the process that writes it is gone")),
            _ => Err(Fatal::relayed(told)),
        }
    }
}

fn serve(mut wire: UnixStream, write: impl FnOnce() -> Result<(), Fatal>) {
    if wire.read_exact(&mut [0]).is_ok() {
        let told = write().map_or_else(|fatal| fatal.to_string(), |()| "ok".to_owned());
        let _ = wire.write_all(told.as_bytes());
    }
}
