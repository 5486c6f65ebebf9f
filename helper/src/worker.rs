//! The helper proper: the process that serves the channels, behind all its walls.

use std::os::fd::AsFd as _;
use std::sync::mpsc;
use std::thread::{self, Builder};

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use postern_ipc::channel::Channel;
use postern_policy::account::Account;
use postern_policy::fatal::{Fatal, Step as _};
use postern_policy::sandbox::caps::keep;
use postern_policy::sandbox::landlock::{Allow, enforce};
use postern_policy::sandbox::seccomp::Program;
use rustix::process::fchdir;

use crate::caller::Power;
use crate::ending::Ending;
use crate::held::{AllHeld, Held};
use crate::serve::Stop;
use crate::share::Share;
use crate::walls::Walls;
use crate::{caller, serve, sys};

/// Stack of a serving thread, bytes.
const STACK: usize = 256 * 1024;

/// Raises the walls around this process, says by `ready` that they stand, and serves one thread a channel until all
/// other ends are gone or one has broken the protocol.
pub(crate) fn run(
    share: &Share,
    channels: &[Channel],
    walls: Walls<'_>,
    ready: impl FnOnce(),
) -> Result<Ending, Fatal> {
    keep(walls.capabilities)?;
    let allow = Allow::Beneath { dir: share.root.as_fd(), rights: share.rights };
    let domain = walls.landlock.then(|| enforce(allow)).transpose()?;
    let program = Program::new(&serve::calls(share.rights, share.model), walls.seccomp)?;
    if walls.told {
        let tried = [("the share", Share::reads(&share.root)), ("/proc/self/fd", Share::reads(&share.numbers))];
        let account = Account::of("helper").capabilities(walls.capabilities);
        account.landlock(domain.as_ref(), &tried).calls(&program).tell()?;
        sys::replace(libc::STDOUT_FILENO, std::io::stderr()).step("explain no more")?;
    }
    let held = AllHeld::new(channels.len());
    thread::scope(|scope| {
        let (settled, all_settled) = mpsc::channel();
        let mut starts = Vec::with_capacity(channels.len());
        for (channel, held) in channels.iter().zip(held.each()) {
            let (start, started) = mpsc::channel();
            let settled = settled.clone();
            let serving = move || {
                // Whoever waits for this has gone if it cannot be told; then nothing starts.
                let _ = settled.send(settle(share));
                if started.recv() == Ok(()) {
                    serve_channel(channel, share, held);
                }
            };
            Builder::new().stack_size(STACK).spawn_scoped(scope, serving).step("start a thread")?;
            starts.push(start);
        }
        drop(settled);
        all_settled.iter().take(channels.len()).collect::<Result<(), Fatal>>()?;
        // Nobody serves before everybody is confined: threads share their memory.
        program.apply_to_all_threads()?;
        ready();
        starts.iter().try_for_each(|start| start.send(()).map_err(|_| Fatal::new("start serving", "a thread is gone")))
    })?;
    Ok(Ending::Done)
}

/// A file mode mask and a working directory of this thread's own; xattr calls take the latter for granted.
fn settle(share: &Share) -> Result<(), Fatal> {
    unshare(CloneFlags::CLONE_FS).step("give a thread its own working directory")?;
    fchdir(&share.numbers).step("enter /proc/self/fd")?;
    let power = if share.translation.map().is_some() { Power::Judged } else { Power::Kernel };
    caller::prepare(power).step("learn what a thread may do")
}

fn serve_channel(channel: &Channel, share: &Share, held: Held<'_>) {
    let ending = match serve::channel(channel, share, held) {
        Ok(()) => return,
        Err(Stop::Protocol(malformed)) => {
            log::error!("the server broke the protocol: {malformed}");
            Ending::Protocol
        }
        // Another helper may have better luck; a channel without one would never answer.
        Err(Stop::Channel(errno)) => {
            log::error!("a channel to the server fails: {errno}");
            Ending::Failed
        }
    };
    std::process::exit(ending.status());
}
