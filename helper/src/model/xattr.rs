//! Attributes kept in extended attributes of the node, as QEMU's `mapped-xattr` does: `user.virtfs.uid`, `.gid` and
//! `.mode` are 32 bits and `.rdev` is 64, little-endian. None of these names is the guest's; only its ACLs are kept
//! among them, with a name of their own.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use postern_ipc::attr::Dev;
use postern_ipc::model::Model;
use postern_ipc::name::XattrName;
use postern_ipc::{Errno, Result};
use postern_policy::fatal::Fatal;
use rustix::fs::{XattrFlags, getxattr, setxattr};

use super::Kept;
use crate::args::Args;
use crate::share::Share;

const UID: &CStr = c"user.virtfs.uid";
const GID: &CStr = c"user.virtfs.gid";
const MODE: &CStr = c"user.virtfs.mode";
const RDEV: &CStr = c"user.virtfs.rdev";

/// What all of them begin with.
const OURS: &[u8] = b"user.virtfs.";
/// The guest's names that are kept with that beginning before them.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Whether the file system of a share has such attributes.
pub(super) fn probe(args: &Args, dir: &OwnedFd) -> std::result::Result<(), Fatal> {
    match getxattr(format!("/proc/self/fd/{}", dir.as_raw_fd()), UID, &mut [0_u8; 8][..]).map_err(Errno::from) {
        Err(Errno::EOPNOTSUPP) => {
            let what = format!("keep attributes in {} (--security-model)", args.shown());
            Err(Fatal::new(what, "its file system has no user.* attributes")
                .hint("choose another directory, or --security-model=mapped-file"))
        }
        _ => Ok(()),
    }
}

/// What is kept of a node.
pub(super) fn read(node: BorrowedFd<'_>) -> Result<Kept> {
    let mode = number(node, MODE)?.map(u32::from_le_bytes);
    let device = mode.is_some_and(|mode| matches!(mode & libc::S_IFMT, libc::S_IFCHR | libc::S_IFBLK));
    let rdev = if device { number(node, RDEV)?.map(u64::from_le_bytes) } else { None };
    Ok(Kept {
        uid: number(node, UID)?.map(u32::from_le_bytes),
        gid: number(node, GID)?.map(u32::from_le_bytes),
        mode,
        rdev: rdev.and_then(|rdev| u32::try_from(rdev).ok()).map(Dev::decode),
    })
}

/// A value of another size is none, and what the helper may not read has none.
fn number<const N: usize>(node: BorrowedFd<'_>, name: &CStr) -> Result<Option<[u8; N]>> {
    let mut value = [0; N];
    match getxattr(Share::number(node), name, &mut value[..]).map_err(Errno::from) {
        Ok(length) => Ok((length == N).then_some(value)),
        Err(Errno::ENODATA | Errno::ERANGE | Errno::EOPNOTSUPP | Errno::EACCES | Errno::EPERM) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Keeps what is given.
pub(super) fn write(node: BorrowedFd<'_>, kept: Kept) -> Result<()> {
    let put = |name: &CStr, value: Option<&[u8]>| {
        let Some(value) = value else { return Ok(()) };
        Ok::<_, Errno>(setxattr(Share::number(node.as_fd()), name, value, XattrFlags::empty())?)
    };
    put(UID, kept.uid.map(u32::to_le_bytes).as_ref().map(|bytes| &bytes[..]))?;
    put(GID, kept.gid.map(u32::to_le_bytes).as_ref().map(|bytes| &bytes[..]))?;
    put(MODE, kept.mode.map(u32::to_le_bytes).as_ref().map(|bytes| &bytes[..]))?;
    let rdev = kept.rdev.map(|rdev| u64::from(rdev.encode()).to_le_bytes());
    put(RDEV, rdev.as_ref().map(|bytes| &bytes[..]))
}

/// Whether a name is the model's own.
pub(crate) fn hidden(model: Model, name: &XattrName) -> bool {
    model.is_mapped() && name.as_bytes().starts_with(OURS)
}

/// The name by which the host's file has an attribute of the guest's. EOPNOTSUPP for an ACL that there is no place for:
/// on the host's inode it would be an ACL of the host.
pub(crate) fn renamed(model: Model, name: &XattrName) -> Result<XattrName> {
    match (ACLS.contains(&name.as_bytes()), model) {
        (true, Model::MappedXattr | Model::MappedLinks) => XattrName::new(&[OURS, name.as_bytes()].concat()),
        (true, Model::MappedFile) => Err(Errno::EOPNOTSUPP),
        _ => Ok(*name),
    }
}

/// The names of the host's file that the guest is to see, each ended by a NUL.
pub(crate) fn shown(model: Model, names: &[u8]) -> Vec<u8> {
    let one = |name: &[u8]| -> Option<Vec<u8>> {
        let Some(ours) = name.strip_prefix(OURS) else {
            return (!ACLS.contains(&name)).then(|| name.to_owned());
        };
        (ACLS.contains(&ours) && !model.keeps_by_name()).then(|| ours.to_owned())
    };
    let names = names.split(|&byte| byte == 0).filter(|name| !name.is_empty());
    names.filter_map(one).flat_map(|name| name.into_iter().chain([0])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_sees_its_own_names_only_and_its_acls_by_theirs() {
        let host = b"user.virtfs.uid\0user.a\0user.virtfs.system.posix_acl_access\0security.selinux\0user.virtfs.x\0system.posix_acl_default\0";
        let shown = |model| String::from_utf8(shown(model, host)).unwrap();
        assert_eq!(shown(Model::MappedXattr), "user.a\0system.posix_acl_access\0security.selinux\0");
        assert_eq!(shown(Model::MappedFile), "user.a\0security.selinux\0");
    }

    #[test]
    fn names_of_the_model_are_refused_and_acls_renamed() {
        let name = |text: &str| XattrName::new(text.as_bytes()).unwrap();
        for text in ["user.virtfs.uid", "user.virtfs.", "user.virtfs.system.posix_acl_access"] {
            assert!(hidden(Model::MappedXattr, &name(text)) && hidden(Model::MappedFile, &name(text)), "{text}");
            assert!(!hidden(Model::None, &name(text)), "{text}");
        }
        assert!(!hidden(Model::MappedXattr, &name("user.virtfs")));
        let acl = name("system.posix_acl_default");
        assert_eq!(renamed(Model::MappedXattr, &acl), Ok(name("user.virtfs.system.posix_acl_default")));
        assert_eq!(renamed(Model::MappedFile, &acl), Err(Errno::EOPNOTSUPP));
        assert_eq!(renamed(Model::None, &acl), Ok(acl));
    }
}
