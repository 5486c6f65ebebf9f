//! The least that a privilege split can cost: an empty server and an empty helper.
//!
//! Both are this program again. The server takes chains from vrings and answers them with what it has made up before;
//! for what needs credentials it sends a message through a channel as postern's to the helper, who sends one back; a
//! descriptor goes along where a file is opened, and comes back where something was opened. There is no file system, and
//! nothing is checked: it serves the benchmark's own client.

mod answers;
mod device;
mod hop;
mod vring;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use postern_tests::Process;
use postern_tests::fuse::{LINUX, Link};
use postern_tests::vmm::{Machine, Vmm};

use crate::guest::Waiting;

/// The arguments by which this program becomes the one or the other.
const ROLES: [&str; 3] = ["floor-server", "floor-server-polling", "floor-helper"];

/// Whether this process is a part of the floor.
pub fn is_meant() -> bool {
    role().is_some()
}

fn role() -> Option<&'static str> {
    let meant = std::env::args().nth(1)?;
    ROLES.into_iter().find(|role| *role == meant)
}

/// Becomes it, until its standard input ends.
pub fn serve() {
    match role() {
        Some("floor-helper") => hop::help(),
        role => device::serve(role == Some("floor-server-polling")),
    }
}

/// This program as the one or the other, which talks on its standard input.
fn become_part(role: &str, channel: OwnedFd) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("/proc"));
    command.arg(role).stdin(Stdio::from(channel)).spawn().expect("this program")
}

/// A running server with its helper.
pub struct Floor {
    server: Child,
    connection: UnixStream,
}

impl Floor {
    /// For a guest that waits so: one that polls has a CPU of its own, and so has the server, which then polls too.
    pub fn start(waiting: Waiting) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        let role = if waiting == Waiting::Polling { ROLES[1] } else { ROLES[0] };
        Self { server: become_part(role, theirs.into()), connection: ours }
    }

    /// A guest that mounts it.
    pub fn mount(&self) -> Process {
        let vmm = Vmm::connect(self.connection.try_clone().expect("dup"), &Machine::default());
        Process::new(Arc::new(Link::open(vmm, LINUX)))
    }

    /// The server's.
    pub fn pid(&self) -> u32 {
        self.server.id()
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
