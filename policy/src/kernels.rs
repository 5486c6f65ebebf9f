//! File systems whose files nobody has stored: what is read there the kernel tells, and what is written there it does,
//! by the rights of who opened the file. With the helper's rights a guest would write the memory of processes, end them
//! all, or have its own program run for those of another machine; none of that is in the share.
//!
//! No such file is opened, and where they could be changed by other calls, by a new mode or a new name, nothing is
//! shared that has them in it. Of devices the clone's attributes take care.

/// A name that mountinfo has for one, and its magic number. filesystems(5), linux/magic.h
struct Row(&'static str, u32);

const KERNELS: &[Row] = &[
    // Memory of processes, settings of the kernel.
    Row("proc", 0x9fa0),
    // Devices and their drivers; all of what is below it are others' mounts.
    Row("sysfs", 0x6265_6572),
    // Processes of the whole host, to be stopped or ended.
    Row("cgroup", 0x0027_e0eb),
    Row("cgroup2", 0x6367_7270),
    Row("resctrl", 0x0765_5821),
    // Whatever a driver's author wanted to look at or to change.
    Row("debugfs", 0x6462_6720),
    // What all processes do, and programs that run at it.
    Row("tracefs", 0x7472_6163),
    Row("bpf", 0xcafe_4a11),
    // Rules of security modules.
    Row("securityfs", 0x7363_6673),
    Row("selinuxfs", 0xf97c_ff8c),
    Row("smackfs", 0x4341_5d53),
    // Programs that run other programs.
    Row("binfmt_misc", 0x4249_4e4d),
    // Devices that a directory makes.
    Row("configfs", 0x6265_6570),
    Row("functionfs", 0x0a64_7361),
    // What firmware keeps, and what a kernel that died has left.
    Row("efivarfs", 0xde5e_81e4),
    Row("pstore", 0x6165_676c),
    // Terminals of other users, to be given away.
    Row("devpts", 0x1cd1),
    // Namespaces of other processes.
    Row("nsfs", 0x6e73_6673),
    // Other servers of file systems.
    Row("fusectl", 0x6573_5543),
    Row("nfsd", 0x6e66_7364),
    Row("rpc_pipefs", 0x6759_6969),
    // The machine below.
    Row("xenfs", 0xabba_1974),
];

/// Whether one is called so.
pub fn has_name(kind: &[u8]) -> bool {
    KERNELS.iter().any(|Row(name, _)| name.as_bytes() == kind)
}

/// What one is called whose `f_type` this is. statfs(2)
pub fn of_magic(f_type: libc::c_long) -> Option<&'static str> {
    KERNELS.iter().find(|Row(_, magic)| libc::c_long::from(*magic) == f_type).map(|Row(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use rustix::fs::statfs;
    use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};

    #[test]
    fn each_that_can_be_mounted_here_has_the_number_of_its_name() {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
        let place = tempfile::tempdir().unwrap();
        let mut mounted = Vec::new();
        for Row(name, _) in KERNELS {
            if mount(*name, place.path(), *name, MountFlags::empty(), None).is_ok() {
                assert_eq!(of_magic(statfs(place.path()).unwrap().f_type), Some(*name));
                unmount(place.path(), UnmountFlags::DETACH).unwrap();
                mounted.push(*name);
            }
        }
        assert!(mounted.contains(&"proc") && mounted.contains(&"sysfs"), "{mounted:?}");
    }

    #[test]
    fn what_is_stored_is_none_of_theirs() {
        for kind in ["ext4", "tmpfs", "overlay", "fuse", "nfs", "nfsd4", "", "cgroup3"] {
            assert!(!has_name(kind.as_bytes()), "{kind}");
        }
        assert_eq!(of_magic(statfs("/").unwrap().f_type), None);
    }
}
