//! SETXATTR, GETXATTR, LISTXATTR, REMOVEXATTR.

use libc::{XATTR_CREATE, XATTR_REPLACE};
use postern_tests::prelude::*;

// setxattr(2): "sets the value of the extended attribute identified by name"
#[apply(behaviour)]
fn an_attribute_is_kept_on_the_host(share: &Share) {
    share.put("f", b"").unwrap();
    share.setxattr("f", "user.colour", b"re\0d", 0).unwrap();
    assert_eq!(share.getxattr("f", "user.colour").unwrap(), b"re\0d");
    assert_eq!(share.host.getxattr("f", "user.colour").unwrap(), b"re\0d");
}

// getxattr(2): "retrieves the value of the extended attribute"
#[apply(behaviour)]
fn an_attribute_of_the_host_is_shown(share: &Share) {
    share.host.write("f", b"");
    share.host.setxattr("f", "user.colour", b"red");
    assert_eq!(share.getxattr("f", "user.colour").unwrap(), b"red");
    assert_eq!(share.listxattr("f").unwrap(), ["user.colour"]);
}

// setxattr(2): "By default (i.e., flags is zero), the extended attribute will be created if it does not exist, or the
// value will be replaced if the attribute already exists"
#[apply(behaviour)]
fn an_attribute_is_replaced(share: &Share) {
    share.put("f", b"").unwrap();
    share.setxattr("f", "user.a", b"long value", 0).unwrap();
    share.setxattr("f", "user.a", b"short", 0).unwrap();
    assert_eq!(share.getxattr("f", "user.a").unwrap(), b"short");
}

// setxattr(2): "XATTR_CREATE  Perform a pure create, which fails if the named attribute exists already": EEXIST
#[apply(behaviour)]
fn an_attribute_is_created_once(share: &Share) {
    share.put("f", b"").unwrap();
    share.setxattr("f", "user.a", b"1", XATTR_CREATE).unwrap();
    assert_eq!(share.setxattr("f", "user.a", b"2", XATTR_CREATE), Err(EEXIST));
    assert_eq!(share.getxattr("f", "user.a").unwrap(), b"1");
}

// setxattr(2): "XATTR_REPLACE Perform a pure replace operation, which fails if the named attribute does not already
// exist": ENODATA
#[apply(behaviour)]
fn a_missing_attribute_is_not_replaced(share: &Share) {
    share.put("f", b"").unwrap();
    assert_eq!(share.setxattr("f", "user.a", b"1", XATTR_REPLACE), Err(ENODATA));
    share.setxattr("f", "user.a", b"1", 0).unwrap();
    share.setxattr("f", "user.a", b"2", XATTR_REPLACE).unwrap();
    assert_eq!(share.getxattr("f", "user.a").unwrap(), b"2");
}

// setxattr(2): flags are XATTR_CREATE, XATTR_REPLACE or 0: EINVAL
#[apply(behaviour)]
fn unknown_flags_set_nothing(share: &Share) {
    share.put("f", b"").unwrap();
    assert_eq!(share.setxattr("f", "user.a", b"1", 1 << 20), Err(EINVAL));
}

// getxattr(2): "ENODATA  The named attribute does not exist, or the process has no access to this attribute"
#[apply(behaviour)]
fn a_missing_attribute_has_no_value(share: &Share) {
    share.put("f", b"").unwrap();
    assert_eq!(share.getxattr("f", "user.none"), Err(ENODATA));
    assert_eq!(share.getxattr_size("f", "user.none"), Err(ENODATA));
    assert_eq!(share.removexattr("f", "user.none"), Err(ENODATA));
}

// getxattr(2): "If size is specified as zero, these calls return the current size of the named extended attribute"
#[apply(behaviour)]
fn the_size_of_an_attribute_is_told(share: &Share) {
    share.put("f", b"").unwrap();
    share.setxattr("f", "user.a", b"hello", 0).unwrap();
    assert_eq!(share.getxattr_size("f", "user.a"), Ok(5));
}

// getxattr(2): "ERANGE  The size of the value buffer is too small to hold the result"
#[apply(behaviour)]
fn a_value_that_does_not_fit_is_not_cut(share: &Share) {
    share.put("f", b"").unwrap();
    share.setxattr("f", "user.a", b"hello", 0).unwrap();
    assert_eq!(share.getxattr_into("f", "user.a", 4), Err(ERANGE));
    assert_eq!(share.getxattr_into("f", "user.a", 5).unwrap(), b"hello");
}

// setxattr(2): "a zero-length value is permitted"
#[apply(behaviour)]
fn a_value_may_be_empty(share: &Share) {
    share.put("f", b"").unwrap();
    share.setxattr("f", "user.a", b"", 0).unwrap();
    assert_eq!((share.getxattr("f", "user.a"), share.getxattr_size("f", "user.a")), (Ok(vec![]), Ok(0)));
}

// listxattr(2): "The list is the set of (null-terminated) names, one after the other"
#[apply(behaviour)]
fn all_attributes_are_listed(share: &Share) {
    share.put("f", b"").unwrap();
    assert_eq!(share.listxattr("f").unwrap(), [""; 0]);
    for name in ["user.b", "user.a", "user.c"] {
        share.setxattr("f", name, b"x", 0).unwrap();
    }
    assert_eq!(share.listxattr("f").unwrap(), ["user.a", "user.b", "user.c"]);
    assert!(share.listxattr_into("f", 100).unwrap().ends_with('\0'));
}

// listxattr(2): "If size is specified as zero, these calls return the current size of the list of extended attribute
// names"
#[apply(behaviour)]
fn the_size_of_the_list_is_told(share: &Share) {
    share.put("f", b"").unwrap();
    assert_eq!(share.listxattr_size("f"), Ok(0));
    share.setxattr("f", "user.a", b"x", 0).unwrap();
    assert_eq!(share.listxattr_size("f"), Ok(7));
}

// listxattr(2): "ERANGE  The size of the list buffer is too small to hold the result"
#[apply(behaviour)]
fn a_list_that_does_not_fit_is_not_cut(share: &Share) {
    share.put("f", b"").unwrap();
    share.setxattr("f", "user.a", b"x", 0).unwrap();
    assert_eq!(share.listxattr_into("f", 6), Err(ERANGE));
    assert_eq!(share.listxattr_into("f", 7).unwrap(), "user.a\0");
}

// removexattr(2): "removes the extended attribute identified by name"
#[apply(behaviour)]
fn an_attribute_is_removed(share: &Share) {
    share.put("f", b"").unwrap();
    share.setxattr("f", "user.a", b"x", 0).unwrap();
    share.removexattr("f", "user.a").unwrap();
    assert_eq!(share.host.getxattr("f", "user.a"), None);
}

// xattr(7): "Extended attribute names are ... limited to 255 bytes": ERANGE
#[apply(behaviour)]
fn the_name_of_an_attribute_has_at_most_255_bytes(share: &Share) {
    share.put("f", b"").unwrap();
    let (fits, long) = (format!("user.{}", "n".repeat(250)), format!("user.{}", "n".repeat(251)));
    share.setxattr("f", &fits, b"x", 0).unwrap();
    assert_eq!(share.setxattr("f", &long, b"x", 0), Err(ERANGE));
    assert_eq!(share.getxattr("f", &long), Err(ERANGE));
    assert_eq!(share.removexattr("f", &long), Err(ERANGE));
}

// xattr(7): "VFS imposes ... a 64 KiB attribute value size limit": E2BIG
#[apply(behaviour)]
fn a_value_has_at_most_65536_bytes(share: &Share) {
    share.put("f", b"").unwrap();
    assert_eq!(share.setxattr("f", "user.a", &vec![1; 65_537], 0), Err(E2BIG));
    share.setxattr("f", "user.a", &[1; 2000], 0).unwrap();
    assert_eq!(share.getxattr("f", "user.a").unwrap(), [1; 2000]);
}

// xattr(7): "the currently defined extended attribute classes are security, system, trusted, and user": EOPNOTSUPP
#[apply(behaviour)]
fn an_unknown_class_is_not_supported(share: &Share) {
    share.put("f", b"").unwrap();
    assert_eq!(share.setxattr("f", "colour", b"red", 0), Err(EOPNOTSUPP));
    assert_eq!(share.setxattr("f", "paint.colour", b"red", 0), Err(EOPNOTSUPP));
    assert_eq!(share.getxattr("f", "paint.colour"), Err(EOPNOTSUPP));
}

// xattr(7): "user extended attributes ... only for regular files and directories"
#[apply(behaviour)]
fn user_attributes_are_for_files_and_directories(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    share.setxattr("d", "user.a", b"x", 0).unwrap();
    assert_eq!(share.getxattr("d", "user.a").unwrap(), b"x");
    share.symlink("d", "l").unwrap();
    share.mknod("p", S_IFIFO | 0o600, 0).unwrap();
    assert_eq!(share.setxattr("l", "user.a", b"x", 0), Err(EPERM));
    assert_eq!(share.setxattr("p", "user.a", b"x", 0), Err(EPERM));
}

// lgetxattr(2): "identical to getxattr(), except in the case of a symbolic link, where the link itself is interrogated,
// not the file that it refers to"
#[apply(behaviour)]
fn attributes_of_a_symbolic_link_are_its_own(share: &Share) {
    share.put("f", b"").unwrap();
    share.setxattr("f", "user.a", b"x", 0).unwrap();
    share.symlink("f", "l").unwrap();
    assert!(share.getxattr("l", "user.a").is_err());
    assert_eq!(share.listxattr("l").unwrap_or_default(), [""; 0]);
    assert!(share.removexattr("l", "user.a").is_err());
    assert_eq!(share.getxattr("f", "user.a").unwrap(), b"x");
}

// xattr(7): "Trusted extended attributes are visible and accessible only to processes that have the CAP_SYS_ADMIN
// capability", which no server keeps
#[apply(behaviour)]
fn trusted_attributes_are_out_of_reach(share: &Share) {
    share.put("f", b"").unwrap();
    share.host.setxattr("f", "trusted.secret", b"x");
    assert_eq!(share.setxattr("f", "trusted.a", b"x", 0), Err(EPERM));
    assert_eq!(share.getxattr("f", "trusted.secret"), Err(ENODATA));
    assert_eq!(share.listxattr("f").unwrap(), [""; 0]);
}

// capabilities(7): "file capability sets are stored in an extended attribute named security.capability"; in a user
// namespace its root's id is added and taken away again
#[apply(behaviour)]
fn file_capabilities_are_kept(share: &Share) {
    share.put("f", b"").unwrap();
    let net_raw: Vec<u8> = [0x0200_0001_u32, 1 << 13, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    share.setxattr("f", "security.capability", &net_raw, 0).unwrap();
    assert_eq!(share.getxattr("f", "security.capability").unwrap(), net_raw);
    share.removexattr("f", "security.capability").unwrap();
    assert_eq!(share.getxattr("f", "security.capability"), Err(ENODATA));
}

// postern-server(1): --attr-timeout; a guest's kernel asks before every first write
#[apply(promise)]
fn that_a_file_has_no_capabilities_is_remembered_as_long_as_its_attributes_are(on: Kind) {
    let net_raw: Vec<u8> = [0x0200_0001_u32, 1 << 13, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect();
    for (timeout, seen) in [("0", true), ("1000", false)] {
        let share = on.setup().arg("--attr-timeout").arg(timeout).serve();
        share.create("new", O_RDWR | O_EXCL, 0o644).unwrap();
        share.host.write("old", b"");
        assert_eq!(share.getxattr("old", "security.capability"), Err(ENODATA));
        for name in ["new", "old"] {
            share.host.setxattr(name, "security.capability", &net_raw);
            let found = share.getxattr(name, "security.capability");
            assert_eq!(found != Err(ENODATA), seen, "{name}: {found:?}");
        }
        for name in ["new", "old"] {
            rustix::fs::removexattr(share.host.path(name), "security.capability").unwrap();
            share.setxattr(name, "security.capability", &net_raw, 0).unwrap();
            assert_eq!(share.getxattr(name, "security.capability").unwrap(), net_raw, "{name}: the guest's own");
        }
    }
}

// fsetxattr(2): "identical to setxattr(), only the extended attribute is set on the open file referred to by fd"
#[apply(behaviour)]
fn an_open_file_without_a_name_has_extended_attributes(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    share.unlink("f").unwrap();
    share.setxattr(file.node, "user.a", b"x", 0).unwrap();
    assert_eq!(share.getxattr(file.node, "user.a").unwrap(), b"x");
    assert_eq!(share.listxattr(file.node).unwrap(), ["user.a"]);
}

// FUSE: a guest without SETXATTR_EXT sends the short request
#[apply(virtiofs)]
fn an_older_guest_sets_attributes_too(on: Kind) {
    let share = on.setup().without(InitFlags::SETXATTR_EXT).serve();
    assert!(!share.granted().contains(InitFlags::SETXATTR_EXT));
    share.put("f", b"").unwrap();
    share.setxattr("f", "user.a", b"hello", 0).unwrap();
    assert_eq!(share.getxattr("f", "user.a").unwrap(), b"hello");
}
