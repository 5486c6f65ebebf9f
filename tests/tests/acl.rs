//! POSIX ACLs: extended attributes that the guest checks and the server keeps.

use postern_server::fuse::abi::SetxattrFlags;
use postern_tests::prelude::*;

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";

const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const NO_ID: u32 = u32::MAX;

/// An ACL as it stands in its attribute: version 2, then tag, permissions and id of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let entry =
        |&(tag, perm, id): &(u16, u16, u32)| [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat();
    [2_u32.to_le_bytes().to_vec(), entries.iter().flat_map(entry).collect()].concat()
}

/// Read and write for user 1000 and group 2000, beside `rw-r-----`.
fn shared_with_some() -> Vec<u8> {
    acl(&[
        (USER_OBJ, 6, NO_ID),
        (USER, 6, 1000),
        (GROUP_OBJ, 4, NO_ID),
        (GROUP, 6, 2000),
        (MASK, 6, NO_ID),
        (OTHER, 0, NO_ID),
    ])
}

// acl(5): "ACL_USER, ACL_GROUP" entries name users and groups of the guest
#[apply(behaviour)]
fn an_acl_is_kept(on: Kind) {
    let share = on.setup().posix_acl().serve();
    share.put("f", b"").unwrap();
    share.setxattr("f", ACCESS, &shared_with_some(), 0).unwrap();
    assert_eq!(share.getxattr("f", ACCESS).unwrap(), shared_with_some());
}

// user_namespaces(7): ids in ACLs are those of the user namespace; the host's file has the host's
#[apply(behaviour)]
fn an_acl_names_the_hosts_ids_on_the_host(on: Kind) {
    let share = on.setup().posix_acl().serve();
    share.put("f", b"").unwrap();
    share.setxattr("f", ACCESS, &shared_with_some(), 0).unwrap();
    let (uid, gid) = (share.host.uid(1000), share.host.gid(2000));
    let expected = acl(&[
        (USER_OBJ, 6, NO_ID),
        (USER, 6, uid),
        (GROUP_OBJ, 4, NO_ID),
        (GROUP, 6, gid),
        (MASK, 6, NO_ID),
        (OTHER, 0, NO_ID),
    ]);
    assert_eq!(share.host.getxattr("f", ACCESS).unwrap(), expected);
}

// acl(5): "CORRESPONDENCE BETWEEN ACL ENTRIES AND FILE PERMISSION BITS": the group bits are the mask
#[apply(behaviour)]
fn an_acl_sets_the_permission_bits(on: Kind) {
    let share = on.setup().posix_acl().serve();
    share.put("f", b"").unwrap();
    share.setxattr("f", ACCESS, &shared_with_some(), 0).unwrap();
    assert_eq!((share.getattr("f").unwrap().mode, share.host.stat("f").perm()), (S_IFREG | 0o660, 0o660));
}

// acl(5): "Modification of the file permission bits results in the modification of the associated ACL entries"
#[apply(behaviour)]
fn chmod_changes_the_mask(on: Kind) {
    let share = on.setup().posix_acl().serve();
    share.put("f", b"").unwrap();
    share.setxattr("f", ACCESS, &shared_with_some(), 0).unwrap();
    share.chmod("f", 0o600).unwrap();
    let masked = share.getxattr("f", ACCESS).unwrap();
    assert_eq!(masked[4 + 4 * 8..][..4], [MASK as u8, 0, 0, 0]);
}

// acl(5): "the new object inherits the default ACL of the containing directory as its access ACL"; "the umask is
// ignored"
#[apply(behaviour)]
fn a_default_acl_is_inherited(on: Kind) {
    let share = on.setup().posix_acl().serve();
    share.mkdir("d", 0o755).unwrap();
    share.setxattr("d", DEFAULT, &shared_with_some(), 0).unwrap();
    let user = share.as_user(0).with_umask(0o077);
    user.create("d/f", O_RDWR, 0o666).unwrap();
    user.mkdir("d/e", 0o777).unwrap();
    user.mknod("d/p", S_IFIFO | 0o666, 0).unwrap();
    let perms = ["d/f", "d/e", "d/p"].map(|name| share.host.stat(name).perm());
    assert_eq!(perms, [0o660, 0o660, 0o660]);
    assert_eq!(share.getxattr("d/f", ACCESS).unwrap(), shared_with_some());
    assert_eq!(share.getxattr("d/e", DEFAULT).unwrap(), shared_with_some());
}

// umask(2): "if the parent directory has no default ACL ... (mode & ~umask)", applied by the server when the guest
// leaves it to it
#[apply(behaviour)]
fn the_umask_counts_without_a_default_acl(on: Kind) {
    let share = on.setup().posix_acl().serve();
    let user = share.with_umask(0o027);
    user.create("f", O_RDWR, 0o666).unwrap();
    user.mkdir("d", 0o777).unwrap();
    user.mknod("p", S_IFIFO | 0o666, 0).unwrap();
    assert_eq!(["f", "d", "p"].map(|name| share.host.stat(name).perm()), [0o640, 0o750, 0o640]);
}

// acl(5): "only directories can have a default ACL": EACCES
#[apply(behaviour)]
fn a_file_has_no_default_acl(on: Kind) {
    let share = on.setup().posix_acl().serve();
    share.put("f", b"").unwrap();
    assert_eq!(share.setxattr("f", DEFAULT, &shared_with_some(), 0), Err(EACCES));
}

// acl_valid(3): "The entries are ... invalid": EINVAL
#[apply(behaviour)]
fn a_broken_acl_is_not_set(on: Kind) {
    let share = on.setup().posix_acl().serve();
    share.put("f", b"").unwrap();
    let without_owner = acl(&[(GROUP_OBJ, 4, NO_ID), (OTHER, 0, NO_ID)]);
    assert_eq!(share.setxattr("f", ACCESS, &without_owner, 0), Err(EINVAL));
    assert_eq!(share.setxattr("f", ACCESS, &shared_with_some()[..11], 0), Err(EINVAL));
}

// acl(5): an ACL that says no more than the mode is not stored
#[apply(behaviour)]
fn an_acl_is_removed(on: Kind) {
    let share = on.setup().posix_acl().serve();
    share.put("f", b"").unwrap();
    share.setxattr("f", ACCESS, &shared_with_some(), 0).unwrap();
    share.removexattr("f", ACCESS).unwrap();
    assert_eq!(share.getxattr("f", ACCESS), Err(ENODATA));
    let minimal = acl(&[(USER_OBJ, 7, NO_ID), (GROUP_OBJ, 5, NO_ID), (OTHER, 1, NO_ID)]);
    share.setxattr("f", ACCESS, &minimal, 0).unwrap();
    assert_eq!(share.getxattr("f", ACCESS), Err(ENODATA));
    assert_eq!(share.host.stat("f").perm(), 0o751);
}

// FUSE: ACL_KILL_SGID says that the caller is outside the file's group: chmod(2) would "turn off the S_ISGID bit"
#[apply(virtiofs)]
fn an_acl_set_from_outside_the_group_clears_the_set_group_id_bit(on: Kind) {
    let share = on.setup().posix_acl().serve();
    for (flags, perm) in [(SetxattrFlags::empty(), 0o2660), (SetxattrFlags::ACL_KILL_SGID, 0o660)] {
        share.as_user(1000).put("f", b"").unwrap();
        share.chmod("f", 0o2670).unwrap();
        share.setxattr_with("f", ACCESS, &shared_with_some(), 0, flags).unwrap();
        assert_eq!(share.host.stat("f").perm(), perm);
        share.unlink("f").unwrap();
    }
}

// FUSE: what was not offered is not granted
#[apply(virtiofs)]
fn acls_are_off_unless_asked_for(on: Kind) {
    assert!(!on.serve().granted().contains(InitFlags::POSIX_ACL));
    assert!(on.setup().posix_acl().serve().granted().contains(InitFlags::POSIX_ACL));
}
