//! A world of mounts that ends with the test: of this thread and of the processes that it starts.

use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, unmount,
};

/// From now on nothing this thread mounts is seen outside.
///
/// # Panics
/// When it is not root's.
pub fn alone() {
    unshare(CloneFlags::CLONE_NEWNS).expect("root");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).expect("own mounts");
}

/// A file system in memory with room for 1 MiB, which `owner` owns.
pub fn memory(at: &Path, owner: (u32, u32)) {
    let options = format!("size=1m,mode=755,uid={},gid={}", owner.0, owner.1);
    let options = std::ffi::CString::new(options).expect("no NUL");
    mount("tmpfs", at, "tmpfs", MountFlags::empty(), options.as_c_str()).expect("tmpfs");
}

/// A file system in memory of a kind that is not known to be local.
pub fn unknown(at: &Path) {
    mount("ramfs", at, "ramfs", MountFlags::empty(), None).expect("ramfs");
}

/// The processes there are.
pub fn processes(at: &Path) {
    kernels("proc", at).expect("proc");
}

/// A file system whose files are the kernel itself, if it has one of this kind.
///
/// # Errors
/// Those of mount(2); ENODEV if there is none.
pub fn kernels(kind: &str, at: &Path) -> rustix::io::Result<()> {
    mount(kind, at, kind, MountFlags::empty(), None)
}

/// A directory in which each name is waited for until somebody mounts what it stands for, which nobody does.
/// Linux: Documentation/filesystems/autofs.rst
pub fn automatic(at: &Path) {
    let (asked, asks) = rustix::pipe::pipe().expect("a pipe");
    let options = format!("fd={},pgrp=1,minproto=5,maxproto=5,indirect", asks.as_raw_fd());
    let options = std::ffi::CString::new(options).expect("no NUL");
    mount("autofs", at, "autofs", MountFlags::empty(), options.as_c_str()).expect("autofs");
    // Questions are lost as soon as nobody could read them: both ends are held as long as this process lives.
    std::mem::forget((asked, asks));
}

/// Layers on top of each other, as mount(8) is told of them.
pub fn overlay(at: &Path, layers: &str) {
    let layers = std::ffi::CString::new(layers).expect("no NUL");
    mount("overlay", at, "overlay", MountFlags::empty(), layers.as_c_str()).expect("overlay");
}

/// What is at `from` is at `at` too.
pub fn bind(from: &Path, at: &Path) {
    mount_bind(from, at).expect("two files or two directories");
}

/// What is mounted at `at` or below it from now on is mounted in all copies that are no private ones.
pub fn share(at: &Path) {
    mount_change(at, MountPropagationFlags::SHARED).expect("a mount");
}

/// A /dev of its own: the devices of the one that was there, and nothing else.
pub fn devices(place: &Path) {
    memory(place, (0, 0));
    for name in ["null", "zero", "full", "urandom"] {
        std::fs::write(place.join(name), "").expect("own directory");
        bind(&Path::new("/dev").join(name), &place.join(name));
    }
    mount_bind_recursive(place, "/dev").expect("two directories");
}

/// Unmounts what is at `at`, whoever uses it.
pub fn detach(at: &Path) {
    unmount(at, UnmountFlags::DETACH).expect("mounted");
}

/// Unmounts all that is at `at`.
pub fn detach_all(at: &Path) {
    while unmount(at, UnmountFlags::DETACH).is_ok() {}
}
