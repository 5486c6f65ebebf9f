//! Locks are left to the guest: it keeps them itself when the server does not offer to.

use libc::{F_UNLCK, F_WRLCK};
use postern_server::fuse::abi::LkFlags;
use postern_tests::prelude::*;

// FUSE: without POSIX_LOCKS and FLOCK_LOCKS a guest's kernel does its locks alone
#[apply(virtiofs)]
fn locks_are_not_taken_over(share: &Share) {
    assert!(!share.granted().intersects(InitFlags::POSIX_LOCKS | InitFlags::FLOCK_LOCKS));
}

// FUSE: "ENOSYS" tells the guest to do it itself
#[apply(virtiofs)]
fn a_lock_request_is_not_implemented(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    for opcode in [opcode::GETLK, opcode::SETLK, opcode::SETLKW] {
        for flags in [LkFlags::empty(), LkFlags::FLOCK] {
            assert_eq!(share.lock(opcode, &file, F_WRLCK, flags), Err(ENOSYS));
        }
    }
    assert!(share.lock(opcode::SETLK, &file, F_UNLCK, LkFlags::empty()).is_err());
}
