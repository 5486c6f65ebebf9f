//! IOCTL: file attributes as chattr(1) and xfs_io(8) know them, and nothing else.

use libc::{FS_IOC_GETFLAGS, FS_IOC_GETVERSION, FS_IOC_SETFLAGS};
use postern_tests::prelude::*;

const FS_IOC_FSGETXATTR: u64 = 0x801c_581f;
const FS_IOC_FSSETXATTR: u64 = 0x401c_5820;
const FS_IMMUTABLE_FL: u32 = 0x10;
const FS_NODUMP_FL: u32 = 0x40;
const FS_XFLAG_NODUMP: u32 = 0x80;
const FS_IOC_FIEMAP: u64 = 0xc020_660b;

fn flags(share: &Share, file: &File) -> Result<u32, nix::errno::Errno> {
    let reply = share.ioctl(file, FS_IOC_GETFLAGS, &[], 4)?;
    Ok(u32::from_le_bytes(reply.try_into().unwrap()))
}

// ioctl_iflags(2): "FS_IOC_GETFLAGS" and "FS_IOC_SETFLAGS": "a file's inode flags ... can be ... retrieved and
// modified"
#[apply(behaviour)]
fn inode_flags_are_set_and_shown(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    let before = flags(share, &file).unwrap();
    share.ioctl(&file, FS_IOC_SETFLAGS, &(before | FS_NODUMP_FL).to_le_bytes(), 0).unwrap();
    assert_eq!(flags(share, &file), Ok(before | FS_NODUMP_FL));
    assert_eq!(share.host.flags("f"), before | FS_NODUMP_FL);
}

// ioctl_iflags(2): flags of directories too
#[apply(behaviour)]
fn inode_flags_of_a_directory_are_set(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    let dir = share.opendir("d").unwrap();
    let before = flags(share, &dir).unwrap();
    share.ioctl(&dir, FS_IOC_SETFLAGS, &(before | FS_NODUMP_FL).to_le_bytes(), 0).unwrap();
    assert_eq!(share.host.flags("d"), before | FS_NODUMP_FL);
}

// ioctl_iflags(2): a file open for reading is enough
#[apply(behaviour)]
fn inode_flags_are_set_through_a_file_open_for_reading(share: &Share) {
    share.put("f", b"").unwrap();
    let file = share.open("f", O_RDONLY).unwrap();
    let before = flags(share, &file).unwrap();
    share.ioctl(&file, FS_IOC_SETFLAGS, &(before | FS_NODUMP_FL).to_le_bytes(), 0).unwrap();
    assert_eq!(share.host.flags("f"), before | FS_NODUMP_FL);
}

// ioctl_iflags(2): "FS_IMMUTABLE_FL ... can be set or cleared only by ... CAP_LINUX_IMMUTABLE": EPERM
#[apply(behaviour)]
fn an_immutable_file_is_not_made(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    let before = flags(share, &file).unwrap();
    let immutable = (before | FS_IMMUTABLE_FL).to_le_bytes();
    assert_eq!(share.ioctl(&file, FS_IOC_SETFLAGS, &immutable, 0), Err(EPERM));
    assert_eq!(share.host.flags("f"), before);
}

// ioctl_fsgetxattr: "FS_IOC_FSGETXATTR" and "FS_IOC_FSSETXATTR": struct fsxattr of 28 bytes
#[apply(behaviour)]
fn extended_inode_flags_are_set_and_shown(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    let mut attr = share.ioctl(&file, FS_IOC_FSGETXATTR, &[], 28).unwrap();
    assert_eq!(attr.len(), 28);
    let xflags = u32::from_le_bytes(attr[..4].try_into().unwrap());
    attr[..4].copy_from_slice(&(xflags | FS_XFLAG_NODUMP).to_le_bytes());
    share.ioctl(&file, FS_IOC_FSSETXATTR, &attr, 0).unwrap();
    assert_eq!(share.host.flags("f") & FS_NODUMP_FL, FS_NODUMP_FL);
    assert_eq!(share.ioctl(&file, FS_IOC_FSGETXATTR, &[], 28).unwrap()[..4], attr[..4]);
}

// inode(7): the generation of an inode, "FS_IOC_GETVERSION"
#[apply(behaviour)]
fn the_generation_is_shown(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    let version = share.ioctl(&file, FS_IOC_GETVERSION, &[], 8).unwrap();
    assert_eq!(version[..4], share.host.version("f").to_le_bytes());
    assert_eq!(version[4..], [0; 4]);
}

// ioctl(2): "ENOTTY The specified operation does not apply to the kind of object that the file descriptor fd
// references"
#[apply(behaviour)]
fn no_other_request_reaches_the_host(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    assert_eq!(share.ioctl(&file, 0x5401, &[], 36), Err(ENOTTY));
    assert_eq!(share.ioctl(&file, FS_IOC_FIEMAP, &[0; 32], 32), Err(ENOTTY));
}

// FUSE: sizes that are not the request's own: EINVAL
#[apply(behaviour)]
fn a_request_of_the_wrong_size_is_refused(share: &Share) {
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    let before = flags(share, &file).unwrap();
    assert_eq!(share.ioctl(&file, FS_IOC_SETFLAGS, &[0], 0), Err(EINVAL));
    assert_eq!(share.ioctl(&file, FS_IOC_FSSETXATTR, &[0; 27], 0), Err(EINVAL));
    assert_eq!(flags(share, &file), Ok(before));
}
