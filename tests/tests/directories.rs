//! OPENDIR, READDIR, READDIRPLUS, RELEASEDIR, FSYNCDIR.

use postern_tests::prelude::*;

// open(2): "EISDIR  pathname refers to a directory and the access requested involved writing"
#[apply(behaviour)]
fn a_directory_opened_for_writing_is_refused(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    assert_eq!(share.open("d", O_WRONLY), Err(EISDIR));
}
