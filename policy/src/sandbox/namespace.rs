//! Namespaces: a user namespace to be root in, and a root directory with nothing in it. namespaces(7)

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsmount, fsopen, mount_change, move_mount, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use crate::fatal::{Fatal, Step as _};

/// Whether a process gets a user namespace with its other ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum User {
    /// It stays in the one it is in, and needs CAP_SYS_ADMIN there.
    Stay,
    /// A new one, without a map yet.
    New,
}

/// Namespaces that hold nothing for this process, and what each of them keeps away.
const EMPTY: [(CloneFlags, &str); 3] = [
    (CloneFlags::CLONE_NEWNET, "the host's network"),
    (CloneFlags::CLONE_NEWIPC, "the host's System V and POSIX queues"),
    (CloneFlags::CLONE_NEWUTS, "the host's name"),
];

/// Enters a mount namespace of its own, in a user namespace of its own if so said. Nothing that is mounted or
/// unmounted outside from now on is seen in it.
///
/// # Errors
/// EPERM or ENOSPC where the host does not let its users have user namespaces.
pub fn enter(user: User) -> Result<(), Fatal> {
    let flags = match user {
        User::Stay => CloneFlags::CLONE_NEWNS,
        User::New => CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUSER,
    };
    unshare(flags).step("enter namespaces of its own").map_err(|fatal| {
        fatal.hint("sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone and the like may forbid them")
    })?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).step("make its mounts private")
}

/// Enters empty network, IPC and UTS namespaces. Where one is not to be had a warning says so: seccomp keeps the
/// process from all of them anyway.
pub fn isolate() {
    for (flag, what) in EMPTY {
        if let Err(errno) = unshare(flag) {
            log::warn!("cannot leave {what}: {}", postern_ipc::Errno::from(errno));
        }
    }
}

/// Makes an empty, read-only directory the root of this process's mount namespace and lets go of everything else in
/// it. Descriptors that are open stay good.
///
/// # Errors
/// If the kernel refuses: no CAP_SYS_ADMIN in the user namespace, or the root is the initial ramdisk's.
pub fn empty_root() -> Result<(), Fatal> {
    let step = "make an empty root";
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let filesystem = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).step(step)?;
    fsconfig_create(&filesystem).step(step)?;
    let empty = fsmount(&filesystem, FsMountFlags::FSMOUNT_CLOEXEC, attributes).step(step)?;
    move_mount(&empty, "", rustix::fs::CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).step(step)?;
    fchdir(&empty).step(step)?;
    pivot_root(".", ".").step(step)?;
    unmount(".", UnmountFlags::DETACH).step("let go of the old root")?;
    chdir("/").step(step)
}
