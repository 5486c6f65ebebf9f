//! STATFS.

use postern_tests::prelude::*;

// statfs(2): "returns information about a mounted filesystem"
#[apply(behaviour)]
fn the_file_system_is_the_hosts(share: &Share) {
    let (guest, host) = (share.statfs(ROOT_ID).unwrap(), nix::sys::statvfs::statvfs(&share.host.path("")).unwrap());
    assert_eq!((guest.blocks, guest.files), (host.blocks(), host.files()));
    assert_eq!(u64::from(guest.bsize), host.block_size());
    assert_eq!(u64::from(guest.frsize), host.fragment_size());
    assert!(guest.bfree <= guest.blocks && guest.bavail <= guest.bfree && guest.ffree <= guest.files);
}

// statfs(2): "f_namelen  Maximum length of filenames"
#[apply(behaviour)]
fn the_longest_name_is_told(share: &Share) {
    assert_eq!(share.statfs(ROOT_ID).unwrap().namelen, 255);
}

// statfs(2): "path is the pathname of any file within the mounted filesystem"
#[apply(behaviour)]
fn any_file_stands_for_its_file_system(share: &Share) {
    share.put("f", b"").unwrap();
    share.symlink("f", "l").unwrap();
    let blocks = share.statfs(ROOT_ID).unwrap().blocks;
    assert_eq!((share.statfs("f").unwrap().blocks, share.statfs("l").unwrap().blocks), (blocks, blocks));
}
