//! The heap as a filtered process needs it.
#![allow(unsafe_code)]

/// Keeps to one arena: glibc's others read `/proc/sys/vm/overcommit_memory` when they shrink, which the filter answers
/// by killing. Requests do not allocate once they are under way, so that one is enough. mallopt(3): M_ARENA_MAX
#[cfg(target_env = "gnu")]
pub fn settle() {
    // SAFETY: mallopt only stores a number, under malloc's own lock; no thread but this one exists yet.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Other C libraries have one heap.
#[cfg(not(target_env = "gnu"))]
pub fn settle() {}
