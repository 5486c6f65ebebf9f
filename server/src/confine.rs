//! The server's walls. It holds no capability, reaches no file but through descriptors of the share, and makes the
//! system calls of one list.

use std::os::unix::net::UnixStream;

use nix::unistd::{Gid, Uid, User, setgroups, setresgid, setresuid};
use postern_ipc::Errno;
use postern_ipc::hello::{self, Hello, News, Share};
use postern_policy::fatal::{Fatal, Step as _};
use postern_policy::limit;
use postern_policy::sandbox::seccomp::{Call, Mode, Program, bits};
use postern_policy::sandbox::{self, caps, landlock, namespace};

use crate::args::ProcessArgs;
use crate::fs::walk::Walker;

/// Whom a server started by root is to become.
///
/// # Errors
/// Says what is wrong with the user.
pub fn user(name: &str) -> Result<Option<User>, Fatal> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let step = || format!("become {name} (--user)");
    let user = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    let user = user.ok().flatten().ok_or_else(|| Fatal::new(step(), "there is no such user"))?;
    if user.uid.is_root() {
        return Err(
            Fatal::new(step(), "the server must not be root").hint("choose a user that owns nothing in the share")
        );
    }
    Ok(Some(user))
}

/// Limits, and another id than root's. Tells how many descriptors may be open.
///
/// # Errors
/// Says what cannot be given up.
pub fn step_down(args: &ProcessArgs, user: Option<&User>) -> Result<u64, Fatal> {
    let descriptors = limit::descriptors(args.rlimit_nofile)?;
    limit::no_core()?;
    if let Some(user) = user {
        let step = || format!("become {} (--user)", user.name);
        setgroups(&[]).step(step())?;
        become_ids(user.uid, user.gid).step(step())?;
    }
    Ok(descriptors)
}

fn become_ids(uid: Uid, gid: Gid) -> Result<(), Errno> {
    setresgid(gid, gid, gid)?;
    Ok(setresuid(uid, uid, uid)?)
}

/// Meets the helper's side on `sock_fd`: gets the share's map for a user namespace of this process's own, an empty
/// root in it, and an id that owns nothing. Where there can be none the helper does all looking up.
///
/// # Errors
/// Says what the other side refused.
pub fn meet(socket: &UnixStream, channels: u16) -> Result<(Share, Walker), Fatal> {
    let step = "agree with the helper";
    let namespaces = namespace::enter(namespace::User::New);
    if let Err(why) = &namespaces {
        log::warn!("{why}: the server has no empty root, the helper looks up every name (slower)");
    }
    let wants_map = namespaces.is_ok();
    match hello::send_hello(socket, &Hello { version: hello::VERSION, channels, wants_map }) {
        // One that has ended may have said why.
        Err(Errno::EPIPE | Errno::ECONNRESET) => {}
        sent => sent.step(step)?,
    }
    let mut own = None;
    loop {
        match hear(socket)? {
            News::Mapped { uid, gid } => own = Some((Uid::from_raw(uid.0), Gid::from_raw(gid.0))),
            News::Welcome(share) if share.version == hello::VERSION => {
                let walker = settle(own)?;
                // Names that lead past what is kept beside a node are not this process's to look up.
                let walker = if share.model.is_mapped() { Walker::Helper } else { walker };
                return Ok((share, walker));
            }
            News::Welcome(share) => {
                let why = format!("the helper speaks version {}, the server {}", share.version, hello::VERSION);
                return Err(Fatal::new(step, why).hint("install both from the same release"));
            }
            News::Renewed => return Err(Fatal::new(step, Errno::EPROTO)),
            News::Refused(why) => return Err(Fatal::new(step, why)),
        }
    }
}

fn hear(socket: &UnixStream) -> Result<News, Fatal> {
    hello::receive_news(socket).map_err(|errno| match errno {
        Errno::ECONNRESET => Fatal::new("agree with the helper", "it ended; its own message says why"),
        other => Fatal::new("agree with the helper", other),
    })
}

/// In its namespaces, with the map written.
fn settle(own: Option<(Uid, Gid)>) -> Result<Walker, Fatal> {
    let Some((uid, gid)) = own else { return Ok(Walker::Helper) };
    namespace::isolate();
    namespace::empty_root()?;
    let step = "take an id of its own";
    match setgroups(&[]).map_err(Errno::from) {
        // user_namespaces(7): where a user has mapped his own group only, nobody leaves his groups.
        Err(Errno::EPERM) => {}
        left => left.step(step)?,
    }
    caps::bound(&[])?;
    become_ids(uid, gid).step(step)?;
    Ok(Walker::Server)
}

/// From now on this thread, and those it makes, have no capability and no file system but the share's descriptors.
///
/// # Errors
/// If a wall cannot be raised.
pub fn renounce(no_landlock: bool) -> Result<Option<landlock::Domain>, Fatal> {
    caps::keep(&[])?;
    sandbox::not_dumpable()?;
    sandbox::no_new_privs()?;
    if no_landlock {
        log::warn!("without Landlock (--no-landlock), seccomp alone keeps the server from opening files");
        return Ok(None);
    }
    landlock::enforce(landlock::Allow::Nothing).map(Some)
}

/// From now on all threads of this process keep to the list, which is longer by what this `frontend` alone calls.
///
/// # Errors
/// If the kernel refuses.
pub fn filter(walker: Walker, frontend: &[Call], mode: Mode) -> Result<Program, Fatal> {
    if mode != Mode::Kill {
        log::warn!("--seccomp={mode}: system calls outside the server's list are not stopped");
    }
    let program = Program::new(calls(walker).chain(frontend), mode)?;
    program.apply_to_all_threads()?;
    Ok(program)
}

/// The list without what a frontend adds. Who walks decides whether there is a way to a name at all.
pub fn calls<'a>(walker: Walker) -> impl Iterator<Item = &'a Call> {
    CALLS.iter().chain(if walker == Walker::Server { WALKING } else { &[] })
}

/// Only in an empty root.
const WALKING: &[Call] = &[
    Call::at(libc::SYS_openat, "pins a name in a directory of the share")
        .eq(2, bits(libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC)),
    Call::any(libc::SYS_statx, "the attributes of a node or of a name in a directory"),
    Call::at(libc::SYS_readlinkat, "what a symbolic link says"),
];

/// linux/wait.h
const P_PID: u32 = 1;

/// What every server does.
const CALLS: &[Call] = &[
    Call::at(libc::SYS_fstatfs, "STATFS"),
    Call::any(libc::SYS_getdents64, "READDIR"),
    Call::any(libc::SYS_lseek, "READDIR from where the guest says, LSEEK"),
    Call::any(libc::SYS_preadv2, "READ into guest memory"),
    Call::any(libc::SYS_pwritev2, "WRITE from guest memory"),
    Call::at(libc::SYS_fsync, "FSYNC"),
    Call::at(libc::SYS_fdatasync, "FSYNC of the data"),
    Call::at(libc::SYS_sync_file_range, "WRITE with --writeout=immediate")
        .eq(3, libc::SYNC_FILE_RANGE_WAIT_BEFORE | libc::SYNC_FILE_RANGE_WRITE),
    Call::at(libc::SYS_fallocate, "FALLOCATE"),
    Call::any(libc::SYS_copy_file_range, "COPY_FILE_RANGE"),
    Call::any(libc::SYS_close, "a descriptor is done with"),
    Call::any(libc::SYS_writev, "frames to the helper"),
    Call::any(libc::SYS_readv, "frames of the helper"),
    Call::any(libc::SYS_sendmsg, "descriptors for the helper, answers to the VMM"),
    Call::any(libc::SYS_recvmsg, "descriptors of the helper, messages of the VMM"),
    Call::at(libc::SYS_recvfrom, "the handshake's later news"),
    Call::at(libc::SYS_sendto, "a log line to syslog").null(4),
    Call::at(libc::SYS_accept4, "the next VMM"),
    Call::any(libc::SYS_read, "kicks of the guest, news and long frames of the helper"),
    Call::any(libc::SYS_write, "calls to the guest, log lines"),
    Call::any(libc::SYS_ppoll, "looks whether the log takes a line, or the helper has answered"),
    Call::any(libc::SYS_epoll_pwait, "waits for kicks"),
    Call::at(libc::SYS_epoll_ctl, "waits for the kicks of another ring"),
    Call::at(libc::SYS_getsockopt, "the VMM's socket for requests of ours is one").eq(1, bits(libc::SOL_SOCKET)),
    Call::at(libc::SYS_fstat, "the size of guest memory"),
    Call::any(libc::SYS_waitid, "what the helper's warden died of").eq(0, P_PID).eq(3, bits(libc::WEXITED)),
    Call::any(libc::SYS_futex, "locks and the pool's queue"),
    Call::any(libc::SYS_mmap, "guest memory, heap").only(2, bits(libc::PROT_READ | libc::PROT_WRITE)),
    Call::any(libc::SYS_munmap, "guest memory, heap"),
    Call::any(libc::SYS_mremap, "heap"),
    Call::any(libc::SYS_brk, "heap"),
    Call::any(libc::SYS_madvise, "heap"),
    Call::any(libc::SYS_mprotect, "heap").only(2, bits(libc::PROT_READ | libc::PROT_WRITE)),
    Call::any(libc::SYS_clock_gettime, "log lines, waiting, looking for what is to come"),
    Call::any(libc::SYS_clock_nanosleep, "waiting for descriptors to become free"),
    Call::any(libc::SYS_getrandom, "seeds of hash tables"),
    Call::any(libc::SYS_getpid, "log lines"),
    Call::any(libc::SYS_gettid, "a panic's message"),
    Call::any(libc::SYS_sched_yield, "locks"),
    Call::any(libc::SYS_rt_sigreturn, "the end of a signal handler"),
    Call::any(libc::SYS_rt_sigprocmask, "the end of the process"),
    Call::any(libc::SYS_sigaltstack, "the end of a thread"),
    Call::any(libc::SYS_restart_syscall, "after a stop"),
    Call::at(libc::SYS_fcntl, "descriptors of a VMM stay in this process").eq(1, bits(libc::F_SETFD)),
    Call::at(libc::SYS_fcntl, "debug builds look at a descriptor before they close it").eq(1, bits(libc::F_GETFD)),
    Call::any(libc::SYS_exit, "the end of a thread"),
    Call::any(libc::SYS_exit_group, "the end of the process"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_does_not_walk_has_no_call_that_takes_a_name() {
        let by_name = [libc::SYS_openat, libc::SYS_statx, libc::SYS_readlinkat];
        let has = |walker| by_name.map(|number| calls(walker).any(|call| call.number == number));
        assert_eq!((has(Walker::Server), has(Walker::Helper)), ([true; 3], [false; 3]));
    }
}
