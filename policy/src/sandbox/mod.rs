//! The walls around a process, from the outside in: namespaces, an empty root, capabilities, Landlock, seccomp.
//!
//! Both programs use the same walls with lists of their own. The order matters: what needs a capability comes before
//! [`caps::keep`], what opens something before [`landlock::enforce`], and [`seccomp::Program::apply`] is last.
//! A wall that cannot be raised is a [`Fatal`]; a weaker one is somebody's explicit wish and logs a warning.

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::fatal::{Fatal, Step as _};

pub mod caps;
pub mod landlock;
pub mod namespace;
pub mod seccomp;

/// Nothing executed from now on has more privileges than this process. prctl(2): PR_SET_NO_NEW_PRIVS
///
/// # Errors
/// If the kernel refuses.
pub fn no_new_privs() -> Result<(), Fatal> {
    rustix::thread::set_no_new_privs(true).step("renounce new privileges")
}

/// No other process of the same user may look into this one. prctl(2): PR_SET_DUMPABLE
///
/// # Errors
/// If the kernel refuses.
pub fn not_dumpable() -> Result<(), Fatal> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).step("close this process to others of its user")
}

/// Whether a process that acts as somebody else opens by that to the others of its user, whatever it has said before.
/// proc_sys_fs(5): suid_dumpable
pub fn opens_by_acting() -> bool {
    std::fs::read_to_string("/proc/sys/fs/suid_dumpable").is_ok_and(|value| value.trim() == "1")
}
