//! The system calls that no library offers safely, one function each. The only unsafe code of the helper.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction, sigprocmask};
use nix::unistd::ForkResult;
use postern_ipc::{Errno, Result};
use rustix::fs::Mode;
use rustix::process::Pid;

/// Forgets the environment of whoever started this process.
pub(crate) fn forget_environment() {
    // SAFETY: called first thing in main, when no other thread exists that could read the environment.
    let _ = unsafe { nix::env::clearenv() };
}

/// Whether set-id bits or file capabilities have given this process what whoever started it does not have. getauxval(3)
pub(crate) fn has_more_than_its_caller() -> bool {
    // SAFETY: reads a number that the kernel left at the program's start.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// All threads share one heap: for a second one glibc wants to know how many processors there are, and opens files to
/// find out, which no list of ours allows. mallopt(3): M_ARENA_MAX
pub(crate) fn one_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: stores a number under malloc's own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Every signal does what it does by default and none is blocked, whatever the caller left; writing to a closed
/// socket or beyond a limit on file sizes is an errno, not a death.
pub(crate) fn forget_signals() -> Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    let ignore = SigAction::new(SigHandler::SigIgn, SaFlags::empty(), SigSet::empty());
    for signal in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        let action = if matches!(signal, Signal::SIGPIPE | Signal::SIGXFSZ) { &ignore } else { &default };
        // SAFETY: installs no handler, so there is no function that would have to be safe to call at any moment.
        unsafe { sigaction(signal, action) }?;
    }
    for number in libc::SIGRTMIN()..=libc::SIGRTMAX() {
        // SAFETY: as above.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    Ok(sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?)
}

/// No timer of the caller's goes off. setitimer(2): "preserved" by execve(2)
pub(crate) fn forget_timers() -> Result<()> {
    let never = libc::timeval { tv_sec: 0, tv_usec: 0 };
    let never = libc::itimerval { it_interval: never, it_value: never };
    for timer in [libc::ITIMER_REAL, libc::ITIMER_VIRTUAL, libc::ITIMER_PROF] {
        // SAFETY: the kernel only reads the new value, and writes no old one to a null pointer.
        if unsafe { libc::setitimer(timer, &raw const never, std::ptr::null_mut()) } != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
    }
    Ok(())
}

/// No more CPU and disk than for others whom nobody prefers. Who is less important stays so: it is his share. sched(7)
pub(crate) fn forget_importance() -> Result<()> {
    // SAFETY: reads a number of this thread.
    let class = unsafe { libc::sched_getscheduler(0) };
    let (class, reset) = (class & !libc::SCHED_RESET_ON_FORK, class & libc::SCHED_RESET_ON_FORK);
    if [libc::SCHED_FIFO, libc::SCHED_RR, libc::SCHED_DEADLINE].contains(&class) {
        let ordinary = libc::sched_param { sched_priority: 0 };
        // SAFETY: the kernel only reads the parameter.
        if unsafe { libc::sched_setscheduler(0, libc::SCHED_OTHER | reset, &raw const ordinary) } != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
    }
    if rustix::process::getpriority_process(None)? < 0 {
        rustix::process::setpriority_process(None, 0)?;
    }
    Ok(())
}

/// The supplementary groups of who connected to a Unix socket. unix(7): SO_PEERGROUPS
pub(crate) fn peer_groups(socket: impl AsFd) -> Result<Vec<libc::gid_t>> {
    let socket = socket.as_fd().as_raw_fd();
    let mut groups: Vec<libc::gid_t> = Vec::new();
    loop {
        let mut bytes = libc::socklen_t::try_from(size_of_val(groups.as_slice())).unwrap_or(0);
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERGROUPS);
        // SAFETY: the kernel writes at most `bytes` bytes, which `groups` has, and how many there are to `bytes`.
        let done = unsafe { libc::getsockopt(socket, level, name, groups.as_mut_ptr().cast(), &raw mut bytes) };
        let wanted = usize::try_from(bytes).unwrap_or(0).checked_div(size_of::<libc::gid_t>()).unwrap_or(0);
        match done {
            0 => {
                groups.truncate(wanted);
                return Ok(groups);
            }
            _ => match std::io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ERANGE) => groups.resize(wanted, 0),
                error => return Err(error.into()),
            },
        }
    }
}

/// A second process; `None` in it.
pub(crate) fn fork() -> Result<Option<Pid>> {
    // SAFETY: the warden has one thread, so the child finds no lock held by a thread that it does not have.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => Ok(None),
        ForkResult::Parent { child } => Ok(Pid::from_raw(child.as_raw())),
    }
}

/// In the place of a standard output is `by`, which stays open as well.
pub(crate) fn replace(standard: RawFd, by: impl AsFd) -> Result<()> {
    // SAFETY: what is closed is a standard output, which this program refers to by its number alone.
    match unsafe { libc::syscall(libc::SYS_dup3, by.as_fd().as_raw_fd(), standard, 0) } {
        -1 => Err(std::io::Error::last_os_error().into()),
        _ => Ok(()),
    }
}

/// Closes every descriptor above standard error that is not in `keep`.
pub(crate) fn close_others(keep: &[BorrowedFd<'_>]) -> Result<()> {
    let mut kept: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    kept.sort_unstable();
    let mut from: RawFd = 3;
    for fd in kept.into_iter().filter(|&fd| fd > libc::STDERR_FILENO) {
        close_range(from, fd.saturating_sub(1))?;
        from = fd.saturating_add(1);
    }
    close_range(from, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: closes descriptors that nothing uses any more: at start-up those the caller left, in a new child those
    // whose owners are on the parent's side of the fork and are never dropped here.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// Sets attributes (MOUNT_ATTR_*) and propagation (MS_*) of a mount and all below it at once.
pub(crate) fn mount_setattr(tree: impl AsFd, attributes: u64, propagation: u64) -> Result<()> {
    let change = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | libc::AT_RECURSIVE;
    let fd = tree.as_fd().as_raw_fd();
    // SAFETY: the path is an empty C string and the structure is of the size given; the kernel only reads both.
    let done = unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd, c"".as_ptr(), flags, &raw const change, size_of_val(&change))
    };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

/// Changes the permission bits of what an O_PATH descriptor stands for. fchmodat2(2), Linux 6.6
pub(crate) fn chmod(node: impl AsFd, mode: Mode) -> Result<()> {
    fchmodat2(node.as_fd().as_raw_fd(), mode)
}

/// Whether [`chmod`] can be called: where nothing is open, the kernel says so, and a filter that does not know the call
/// something else.
pub(crate) fn has_chmod() -> bool {
    fchmodat2(-1, Mode::empty()) == Err(Errno::EBADF)
}

fn fchmodat2(node: RawFd, mode: Mode) -> Result<()> {
    // SAFETY: the path is an empty C string, which the kernel only reads.
    match unsafe { libc::syscall(libc::SYS_fchmodat2, node, c"".as_ptr(), mode.bits(), libc::AT_EMPTY_PATH) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error().into()),
    }
}

/// `struct fsxattr` of linux/fs.h.
#[repr(C)]
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct FsXattr {
    pub(crate) xflags: u32,
    pub(crate) extsize: u32,
    pub(crate) nextents: u32,
    pub(crate) projid: u32,
    pub(crate) cowextsize: u32,
    pad: [u8; 8],
}

/// Numbers of linux/fs.h: `_IOR('v', 1, long)`, `_IOR('X', 31, struct fsxattr)`, `_IOW('X', 32, struct fsxattr)`.
pub(crate) const FS_IOC_GETVERSION: u32 = 0x8008_7601;
pub(crate) const FS_IOC_FSGETXATTR: u32 = 0x801c_581f;
pub(crate) const FS_IOC_FSSETXATTR: u32 = 0x401c_5820;

/// FS_IOC_GETVERSION
pub(crate) fn get_version(file: impl AsFd) -> Result<u32> {
    // SAFETY: the kernel writes an int, whatever the number's encoding says of a long.
    let request = unsafe { rustix::ioctl::Getter::<FS_IOC_GETVERSION, u32>::new() };
    // SAFETY: the request fits its number, as said above.
    Ok(unsafe { rustix::ioctl::ioctl(file, request) }?)
}

/// FS_IOC_FSGETXATTR
pub(crate) fn get_fsx(file: impl AsFd) -> Result<FsXattr> {
    // SAFETY: the number is that of a call which writes one `struct fsxattr`, of which FsXattr is the layout.
    let request = unsafe { rustix::ioctl::Getter::<FS_IOC_FSGETXATTR, FsXattr>::new() };
    // SAFETY: the request fits its number, as said above.
    Ok(unsafe { rustix::ioctl::ioctl(file, request) }?)
}

/// FS_IOC_FSSETXATTR
pub(crate) fn set_fsx(file: impl AsFd, fsx: FsXattr) -> Result<()> {
    // SAFETY: the number is that of a call which reads one `struct fsxattr`, of which FsXattr is the layout.
    let request = unsafe { rustix::ioctl::Setter::<FS_IOC_FSSETXATTR, FsXattr>::new(fsx) };
    // SAFETY: the request fits its number, as said above.
    Ok(unsafe { rustix::ioctl::ioctl(file, request) }?)
}

impl FsXattr {
    /// With its padding zero.
    pub(crate) fn new(fsx: postern_ipc::op::Fsx) -> Self {
        let postern_ipc::op::Fsx { xflags, extsize, nextents, projid, cowextsize } = fsx;
        Self { xflags, extsize, nextents, projid, cowextsize, pad: [0; 8] }
    }
}
