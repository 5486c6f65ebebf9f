//! What somebody would want of a process that he has taken over.

/// The last number of Linux 6.18, and some that may come.
pub const NUMBERS: std::ops::RangeInclusive<libc::c_long> = 0..=480;

/// uretprobe and uprobe: the kernel lets them past every list, and they do nothing but where it put them itself.
pub const UNFILTERED: [libc::c_long; 2] = [335, 336];

/// AT_FDCWD as a register has it.
pub const HERE: u64 = libc::AT_FDCWD as u64;
/// A descriptor's number that no process here has.
pub const FD: u64 = 99_999;
/// In place of an argument: the address of a path of the host.
pub const NAME: u64 = u64::MAX - 1;

/// What it is called, the number of the call, and its arguments.
pub type Row = (&'static str, libc::c_long, [u64; 6]);

/// What somebody would want to do: ATTACKS' A12 to A15 and what is like it. Each is off every list.
pub fn wishes() -> Vec<Row> {
    let own = |number| (number, [FD, NAME, 0, 0, 0, 0]);
    let plain = [
        ("open a path of the host", own(libc::SYS_open)),
        ("open it another way", own(libc::SYS_openat2)),
        ("open by a handle", own(libc::SYS_open_by_handle_at)),
        ("get a handle", own(libc::SYS_name_to_handle_at)),
        ("change a mode", own(libc::SYS_chmod)),
        ("change it by descriptor", (libc::SYS_fchmod, [FD, 0o777, 0, 0, 0, 0])),
        ("change it in a directory", (libc::SYS_fchmodat, [FD, NAME, 0o777, 0, 0, 0])),
        ("change it without following", (libc::SYS_fchmodat2, [FD, NAME, 0o777, 0x100, 0, 0])),
        ("change what a descriptor stands for", (libc::SYS_fchmodat2, [FD, NAME, 0o777, 0x1000, 0, 0])),
        ("change an owner", (libc::SYS_fchown, [FD, 0, 0, 0, 0, 0])),
        ("change an owner in a directory", (libc::SYS_fchownat, [FD, NAME, 0, 0, 0x1000, 0])),
        ("change times", (libc::SYS_utimensat, [FD, 0, 0, 0, 0, 0])),
        ("set an attribute", (libc::SYS_fsetxattr, [FD, NAME, NAME, 1, 0, 0])),
        ("set it by path", (libc::SYS_setxattr, [NAME, NAME, NAME, 1, 0, 0])),
        ("set it by a newer call", (463, [FD, NAME, 0, NAME, NAME, 16])),
        ("read an attribute", (libc::SYS_fgetxattr, [FD, NAME, NAME, 8, 0, 0])),
        ("list attributes", (libc::SYS_flistxattr, [FD, NAME, 8, 0, 0, 0])),
        ("remove an attribute", (libc::SYS_fremovexattr, [FD, NAME, 0, 0, 0, 0])),
        ("set inode flags", (libc::SYS_ioctl, [FD, 0x4008_6602, NAME, 0, 0, 0])),
        ("fake a terminal's input", (libc::SYS_ioctl, [FD, 0x5412, NAME, 0, 0, 0])),
        ("set inode attributes by a newer call", (469, [FD, NAME, NAME, 24, 0, 0])),
        ("truncate by path", own(libc::SYS_truncate)),
        ("truncate by descriptor", own(libc::SYS_ftruncate)),
        ("make a directory", (libc::SYS_mkdirat, [FD, NAME, 0o777, 0, 0, 0])),
        ("make a node", (libc::SYS_mknodat, [FD, NAME, 0o020_666, 0x103, 0, 0])),
        ("make a link", (libc::SYS_linkat, [FD, NAME, FD, NAME, 0, 0])),
        ("make a symbolic link", (libc::SYS_symlinkat, [NAME, FD, NAME, 0, 0, 0])),
        ("remove a name", (libc::SYS_unlinkat, [FD, NAME, 0, 0, 0, 0])),
        ("move a name", (libc::SYS_renameat2, [FD, NAME, FD, NAME, 0, 0])),
        ("ask what it may", (libc::SYS_faccessat2, [FD, NAME, 0, 0, 0, 0])),
        ("go elsewhere", (libc::SYS_fchdir, [FD, 0, 0, 0, 0, 0])),
        ("change its root", own(libc::SYS_chroot)),
        ("pivot its root", own(libc::SYS_pivot_root)),
        ("make a socket", (libc::SYS_socket, [1, 1, 0, 0, 0, 0])),
        ("make two sockets", (libc::SYS_socketpair, [1, 1, 0, NAME, 0, 0])),
        ("connect", (libc::SYS_connect, [FD, NAME, 110, 0, 0, 0])),
        ("listen", (libc::SYS_bind, [FD, NAME, 110, 0, 0, 0])),
        ("send a signal", (libc::SYS_kill, [1, 0, 0, 0, 0, 0])),
        ("send it to everybody", (libc::SYS_kill, [u64::MAX, 9, 0, 0, 0, 0])),
        ("send it to a thread", (libc::SYS_tgkill, [1, 1, 0, 0, 0, 0])),
        ("send it with a value", (libc::SYS_rt_sigqueueinfo, [1, 9, NAME, 0, 0, 0])),
        ("name a process", (libc::SYS_pidfd_open, [1, 0, 0, 0, 0, 0])),
        ("take a descriptor of another's", (libc::SYS_pidfd_getfd, [FD, 0, 0, 0, 0, 0])),
        ("send a signal by descriptor", (libc::SYS_pidfd_send_signal, [FD, 9, 0, 0, 0, 0])),
        ("trace", (libc::SYS_ptrace, [16, 1, 0, 0, 0, 0])),
        ("read another's memory", (libc::SYS_process_vm_readv, [1, NAME, 1, NAME, 1, 0])),
        ("write another's memory", (libc::SYS_process_vm_writev, [1, NAME, 1, NAME, 1, 0])),
        ("compare with another", (libc::SYS_kcmp, [1, 1, 0, 0, 0, 0])),
        ("limit another", (libc::SYS_prlimit64, [1, 7, NAME, 0, 0, 0])),
        ("raise its own limits", (libc::SYS_prlimit64, [0, 7, NAME, 0, 0, 0])),
        ("be more important", (libc::SYS_setpriority, [0, 0, 0, 0, 0, 0])),
        ("move another", (libc::SYS_sched_setaffinity, [1, 8, NAME, 0, 0, 0])),
        ("schedule another", (libc::SYS_sched_setattr, [1, NAME, 0, 0, 0, 0])),
        ("make rings", (libc::SYS_io_uring_setup, [1, NAME, 0, 0, 0, 0])),
        ("use rings", (libc::SYS_io_uring_enter, [FD, 1, 0, 0, 0, 0])),
        ("widen rings", (libc::SYS_io_uring_register, [FD, 0, 0, 0, 0, 0])),
        ("submit old ones", (libc::SYS_io_setup, [1, NAME, 0, 0, 0, 0])),
        ("become a program", (libc::SYS_execve, [NAME, 0, 0, 0, 0, 0])),
        ("become one that is memory", (libc::SYS_execveat, [FD, NAME, 0, 0, 0x1000, 0])),
        ("make memory with a number", (libc::SYS_memfd_create, [NAME, 0, 0, 0, 0, 0])),
        ("make secret memory", (libc::SYS_memfd_secret, [0; 6])),
        ("fork", (libc::SYS_fork, [0; 6])),
        ("fork and wait", (libc::SYS_vfork, [0; 6])),
        ("make a process", (libc::SYS_clone, [17, 0, 0, 0, 0, 0])),
        ("make one in namespaces", (libc::SYS_clone, [0x1002_0011, 0, 0, 0, 0, 0])),
        ("make a thread", (libc::SYS_clone, [0x3d_0f00, 0, 0, 0, 0, 0])),
        ("make any of these", (libc::SYS_clone3, [NAME, 88, 0, 0, 0, 0])),
        ("leave namespaces", (libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0, 0])),
        ("enter namespaces", (libc::SYS_setns, [FD, 0, 0, 0, 0, 0])),
        ("mount", (libc::SYS_mount, [NAME, NAME, NAME, 0, 0, 0])),
        ("unmount", (libc::SYS_umount2, [NAME, 2, 0, 0, 0, 0])),
        ("take a mount", (libc::SYS_open_tree, [HERE, NAME, 1, 0, 0, 0])),
        ("move a mount", (libc::SYS_move_mount, [FD, NAME, HERE, NAME, 4, 0])),
        ("change a mount", (libc::SYS_mount_setattr, [FD, NAME, 0, NAME, 32, 0])),
        ("make a file system", (libc::SYS_fsopen, [NAME, 0, 0, 0, 0, 0])),
        ("handle another's faults", (libc::SYS_userfaultfd, [0; 6])),
        ("add a key", (libc::SYS_add_key, [NAME, NAME, NAME, 1, 0, 0])),
        ("use keys", (libc::SYS_keyctl, [0; 6])),
        ("load a program into the kernel", (libc::SYS_bpf, [5, NAME, 128, 0, 0, 0])),
        ("measure", (libc::SYS_perf_event_open, [NAME, 1, u64::MAX, u64::MAX, 0, 0])),
        ("start another kernel", (libc::SYS_kexec_file_load, [FD, FD, 1, NAME, 0, 0])),
        ("load a module", (libc::SYS_finit_module, [FD, NAME, 0, 0, 0, 0])),
        ("read the kernel's log", (libc::SYS_syslog, [3, NAME, 8, 0, 0, 0])),
        ("become somebody", (libc::SYS_setresuid, [0, 0, 0, 0, 0, 0])),
        ("become somebody to files", (libc::SYS_setfsuid, [0, 0, 0, 0, 0, 0])),
        ("have capabilities", (libc::SYS_capset, [NAME, NAME, 0, 0, 0, 0])),
        ("be dumpable", (libc::SYS_prctl, [4, 1, 0, 0, 0, 0])),
        ("have another list", (libc::SYS_seccomp, [1, 0, NAME, 0, 0, 0])),
        ("have another code segment", (libc::SYS_modify_ldt, [1, NAME, 16, 0, 0, 0])),
        ("watch the file system", (libc::SYS_inotify_init1, [0; 6])),
        ("watch all of it", (libc::SYS_fanotify_init, [0, 0, 0, 0, 0, 0])),
        ("set quotas", (libc::SYS_quotactl, [0, NAME, 0, NAME, 0, 0])),
        ("set the clock", (libc::SYS_clock_settime, [0, NAME, 0, 0, 0, 0])),
        ("set the host's name", (libc::SYS_sethostname, [NAME, 1, 0, 0, 0, 0])),
        ("list the mounts", (458, [NAME, NAME, 8, 0, 0, 0])),
    ];
    plain.into_iter().map(|(what, (number, args))| (what, number, args)).collect()
}

/// Of those, what the helper is for.
pub const HELPERS: [&str; 17] = [
    "change it by descriptor",
    "change it in a directory",
    "change it without following",
    "change what a descriptor stands for",
    "change an owner in a directory",
    "change times",
    "set it by path",
    "set inode flags",
    "truncate by descriptor",
    "make a directory",
    "make a node",
    "make a link",
    "make a symbolic link",
    "remove a name",
    "move a name",
    "become somebody to files",
    "have capabilities",
];
