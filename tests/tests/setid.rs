//! Set-id bits and file capabilities: cleared when the guest asks, kept when it does not.

use libc::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE};
use postern_server::fuse::abi::{OpenInFlags, SetattrIn, WriteFlags};
use postern_tests::prelude::*;

/// A file of user 1000 with both set-id bits.
fn setid_file(share: &Share) {
    share.as_user(1000).put("f", b"hello").unwrap();
    share.chmod("f", 0o6755).unwrap();
    assert_eq!(share.host.stat("f").perm(), 0o6755);
}

fn perm(share: &Share) -> u32 {
    assert_eq!(share.getattr("f").unwrap().mode & 0o7777, share.host.stat("f").perm());
    share.host.stat("f").perm()
}

// chmod(2): "S_ISUID  (04000)  set-user-ID"
#[apply(behaviour)]
fn set_id_bits_are_set(share: &Share) {
    setid_file(share);
    share.mkdir("d", 0o755).unwrap();
    share.chmod("d", 0o7777).unwrap();
    assert_eq!(share.host.stat("d").perm(), 0o7777);
}

// open(2): the mode of a new file may have set-id bits
#[apply(behaviour)]
fn a_new_file_may_have_set_id_bits(share: &Share) {
    share.as_user(1000).create("f", O_RDWR, 0o6755).unwrap();
    assert_eq!(perm(share), 0o6755);
    share.as_user(1000).mknod("n", S_IFREG | 0o4755, 0).unwrap();
    assert_eq!(share.host.stat("n").perm(), 0o4755);
}

// write(2): "if the calling process ... the set-user-ID and set-group-ID bits are cleared": the guest says when
#[apply(behaviour)]
fn a_write_clears_set_id_bits_when_the_guest_says_so(share: &Share) {
    setid_file(share);
    let file = share.as_user(1000).open("f", O_WRONLY).unwrap();
    share.as_user(1000).write_with(&file, 0, b"J", WriteFlags::KILL_SUIDGID).unwrap();
    assert_eq!(perm(share), 0o755);
    assert_eq!(share.host.read("f"), b"Jello");
}

// capabilities(7): "CAP_FSETID Don't clear set-user-ID and set-group-ID mode bits when a file is modified": the guest's
// root has it
#[apply(behaviour)]
fn a_write_keeps_set_id_bits_otherwise(share: &Share) {
    setid_file(share);
    let file = share.open("f", O_RDWR).unwrap();
    share.write(&file, 0, b"J").unwrap();
    assert_eq!(perm(share), 0o6755);
    assert_eq!(share.host.read("f"), b"Jello");
}

// capabilities(7): CAP_FSETID, over many bytes
#[apply(behaviour)]
fn a_large_write_keeps_set_id_bits_too(share: &Share) {
    setid_file(share);
    let file = share.open("f", O_RDWR).unwrap();
    let data: Vec<u8> = (0..300_000).map(|i| (i % 251) as u8).collect();
    assert_eq!(share.write(&file, 1, &data).unwrap(), 300_000);
    assert_eq!(perm(share), 0o6755);
    assert!(share.host.read("f")[1..] == data);
}

// capabilities(7): CAP_FSETID, for a file that got its bits after it was opened
#[apply(behaviour)]
fn bits_set_after_the_open_are_cleared_when_the_guest_says_so(share: &Share) {
    share.as_user(1000).put("f", b"hello").unwrap();
    let file = share.open("f", O_RDWR).unwrap();
    share.chmod("f", 0o6755).unwrap();
    share.write_with(&file, 0, b"J", WriteFlags::KILL_SUIDGID).unwrap();
    assert_eq!(perm(share), 0o755);
}

// truncate(2) by one without CAP_FSETID clears the bits
#[apply(behaviour)]
fn a_truncation_clears_set_id_bits_when_the_guest_says_so(share: &Share) {
    setid_file(share);
    let valid = SetattrValid::SIZE | SetattrValid::KILL_SUIDGID;
    share.as_user(1000).setattr("f", &SetattrIn { valid, size: 2, ..Default::default() }).unwrap();
    assert_eq!((perm(share), share.host.stat("f").size), (0o755, 2));
}

// capabilities(7): CAP_FSETID
#[apply(behaviour)]
fn a_truncation_keeps_set_id_bits_otherwise(share: &Share) {
    setid_file(share);
    share.truncate("f", 2).unwrap();
    assert_eq!((perm(share), share.host.stat("f").size), (0o6755, 2));
    let file = share.open("f", O_RDWR).unwrap();
    share.ftruncate(&file, 1).unwrap();
    assert_eq!((perm(share), share.host.stat("f").size), (0o6755, 1));
}

// open(2): O_TRUNC is a truncation
#[apply(behaviour)]
fn an_open_that_truncates_clears_set_id_bits_when_the_guest_says_so(share: &Share) {
    setid_file(share);
    share.as_user(1000).open_with("f", O_WRONLY | O_TRUNC, OpenInFlags::KILL_SUIDGID).unwrap();
    assert_eq!((perm(share), share.host.stat("f").size), (0o755, 0));
}

// capabilities(7): CAP_FSETID
#[apply(behaviour)]
fn an_open_that_truncates_keeps_set_id_bits_otherwise(share: &Share) {
    setid_file(share);
    share.open("f", O_WRONLY | O_TRUNC).unwrap();
    assert_eq!((perm(share), share.host.stat("f").size), (0o6755, 0));
}

// capabilities(7): CAP_FSETID; the guest's kernel clears the bits itself before it sends FALLOCATE
#[apply(behaviour)]
fn an_allocation_keeps_set_id_bits(share: &Share) {
    setid_file(share);
    let file = share.open("f", O_RDWR).unwrap();
    share.fallocate(&file, 0, 0, 100).unwrap();
    share.fallocate(&file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2).unwrap();
    assert_eq!((perm(share), share.host.stat("f").size), (0o6755, 100));
}

// capabilities(7): CAP_FSETID; the guest's kernel clears the bits itself before it sends COPY_FILE_RANGE
#[apply(behaviour)]
fn a_copy_keeps_set_id_bits(share: &Share) {
    setid_file(share);
    share.put("g", b"world").unwrap();
    let (from, to) = (share.open("g", O_RDONLY).unwrap(), share.open("f", O_RDWR).unwrap());
    assert_eq!(share.copy_file_range((&from, 0), (&to, 0), 5), Ok(5));
    assert_eq!(perm(share), 0o6755);
    assert_eq!(share.host.read("f"), b"world");
}

// chown(2): "When the owner or group of an executable file is changed ... the S_ISUID and S_ISGID mode bits are
// cleared"
#[apply(behaviour)]
fn a_new_owner_clears_set_id_bits(share: &Share) {
    setid_file(share);
    let valid = SetattrValid::UID | SetattrValid::KILL_SUIDGID;
    share.setattr("f", &SetattrIn { valid, uid: 7, ..Default::default() }).unwrap();
    assert_eq!(perm(share), 0o755);
}

// capabilities(7): "if the file's contents are changed ... its security.capability extended attribute is removed"
#[apply(behaviour)]
fn cve_2021_20263_a_write_takes_file_capabilities_away(share: &Share) {
    share.put("f", b"hello").unwrap();
    let net_raw: Vec<u8> = [0x0200_0001_u32, 1 << 13, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    share.setxattr("f", "security.capability", &net_raw, 0).unwrap();
    let file = share.open("f", O_WRONLY).unwrap();
    share.write_with(&file, 0, b"J", WriteFlags::KILL_SUIDGID).unwrap();
    assert_eq!(share.host.getxattr("f", "security.capability"), None);
}

// FUSE: HANDLE_KILLPRIV_V2 leaves it to the server to clear the bits when the guest says so
#[apply(virtiofs)]
fn clearing_bits_is_granted(share: &Share) {
    assert!(share.granted().contains(InitFlags::HANDLE_KILLPRIV_V2));
}

// postern-server(1): where ids of the host's users are mapped and others can reach the directory, a guest must not
// plant set-id files
#[apply(behaviour)]
fn set_id_files_are_not_planted_where_host_users_can_run_them(on: Kind) {
    let share = on.setup().public().serve();
    share.put("f", b"").unwrap();
    if share.kind().guards_host_users() {
        assert_eq!(share.chmod("f", 0o4755).map(drop), Err(EPERM));
        assert_eq!(share.create("g", O_RDWR, 0o4755), Err(EPERM));
        assert_eq!(share.mknod("null", S_IFCHR | 0o666, 1 << 8 | 3).map(drop), Err(EPERM));
        assert_eq!(share.setxattr("f", "security.capability", &[0; 20], 0), Err(EPERM));
        assert_eq!(share.host.stat("f").perm(), 0o644);
    } else {
        share.chmod("f", 0o4755).unwrap();
    }
}
