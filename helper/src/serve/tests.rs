use super::*;
use postern_policy::sandbox::seccomp::{Mode, Program};

fn numbers(rights: Rights) -> Vec<libc::c_long> {
    calls(rights, Model::MappedFile).iter().map(|call| call.number).collect()
}

#[test]
fn the_list_of_a_read_only_share_changes_nothing() {
    let writing = [
        libc::SYS_mkdirat,
        libc::SYS_mknodat,
        libc::SYS_symlinkat,
        libc::SYS_linkat,
        libc::SYS_unlinkat,
        libc::SYS_renameat2,
        libc::SYS_fchmodat,
        libc::SYS_fchmodat2,
        libc::SYS_fchmod,
        libc::SYS_fchownat,
        libc::SYS_utimensat,
        libc::SYS_ftruncate,
        libc::SYS_fallocate,
        libc::SYS_pwrite64,
        libc::SYS_copy_file_range,
        libc::SYS_setxattr,
        libc::SYS_removexattr,
        libc::SYS_setgroups,
    ];
    let (read, both) = (numbers(Rights::READ), numbers(Rights::READ_WRITE));
    for number in writing {
        assert!(!read.contains(&number) && both.contains(&number), "{number}");
    }
}

#[test]
fn cve_2018_16359_no_list_lets_a_process_be_made_a_program_be_run_or_a_mount_be_changed() {
    let never = [
        libc::SYS_clone,
        libc::SYS_clone3,
        libc::SYS_execve,
        libc::SYS_execveat,
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_socket,
        libc::SYS_connect,
        libc::SYS_ptrace,
        libc::SYS_pidfd_getfd,
        libc::SYS_process_vm_readv,
        libc::SYS_kill,
        libc::SYS_open_by_handle_at,
        libc::SYS_io_uring_setup,
        libc::SYS_bpf,
        libc::SYS_prctl,
        libc::SYS_seccomp,
    ];
    let both = numbers(Rights::READ_WRITE);
    assert_eq!(never.iter().find(|number| both.contains(number)), None);
}

#[test]
fn every_row_says_why_and_the_list_fits_the_kernel() {
    assert!(calls(Rights::READ_WRITE, Model::MappedFile).iter().all(|call| !call.why.is_empty()));
    assert!(Program::new(&calls(Rights::READ_WRITE, Model::MappedFile), Mode::Kill).is_ok());
    assert!(Program::new(&crate::walls::warden(Rights::READ_WRITE, Model::MappedFile), Mode::Kill).is_ok());
}
