//! Extended attributes whose values name users and groups.

/// Who may do what with a file.
pub const ACCESS: &str = "system.posix_acl_access";
/// The same of what is made in a directory.
pub const DEFAULT: &str = "system.posix_acl_default";
/// What a program may do.
pub const CAPABILITY: &str = "security.capability";

/// `rw-rw----`, with the same for a user and a group. acl(5), linux/posix_acl_xattr.h
pub fn acl(user: u32, group: u32) -> Vec<u8> {
    let entries = [(1, u32::MAX), (2, user), (4, u32::MAX), (8, group), (16, u32::MAX), (32, u32::MAX)];
    let entry = |(tag, id): (u16, u32)| {
        let perm: u16 = if tag == 32 { 0 } else { 6 };
        [&tag.to_le_bytes()[..], &perm.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [2_u32.to_le_bytes().to_vec(), entries.into_iter().flat_map(entry).collect()].concat()
}

/// A few, for programs of the user namespace whose root this is. linux/capability.h: VFS_CAP_REVISION_3
pub fn capability(root: u32) -> Vec<u8> {
    [&[1, 0, 0, 3][..], &[4; 16], &root.to_le_bytes()].concat()
}

/// The same for root of whoever reads it. VFS_CAP_REVISION_2
pub fn own_capability() -> Vec<u8> {
    [&[1, 0, 0, 2][..], &[4; 16]].concat()
}
