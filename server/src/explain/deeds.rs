//! What one process could do to another, by the system calls that it may make.

use libc::c_long;
use postern_policy::account::Topic;
use postern_policy::sandbox::seccomp::named;

use super::Part;

/// What somebody would want who has taken a process over, and all calls by which it is done.
const DEEDS: &[(&str, &[c_long])] = &[
    (
        "send signals",
        &[
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_tgkill,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_rt_tgsigqueueinfo,
            libc::SYS_pidfd_send_signal,
        ],
    ),
    (
        "look into memory",
        &[libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev, libc::SYS_perf_event_open],
    ),
    ("take descriptors", &[libc::SYS_pidfd_getfd]),
    (
        "change limits and priority",
        &[
            libc::SYS_prlimit64,
            libc::SYS_setpriority,
            libc::SYS_ioprio_set,
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_setscheduler,
            libc::SYS_sched_setattr,
        ],
    ),
    ("enter namespaces", &[libc::SYS_setns]),
    (
        "change mounts",
        &[
            libc::SYS_mount,
            libc::SYS_umount2,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_mount_setattr,
            libc::SYS_fsopen,
            libc::SYS_pivot_root,
        ],
    ),
    ("reach others by new sockets", &[libc::SYS_socket, libc::SYS_connect, libc::SYS_bind]),
    ("run programs", &[libc::SYS_execve, libc::SYS_execveat]),
    ("make calls that no filter sees", &[libc::SYS_io_uring_setup, libc::SYS_io_uring_register]),
];

/// Each deed, and by which rows of its list the process `by` could do it.
pub(super) fn deeds(by: &Part) -> Vec<(String, String)> {
    let judge = |(deed, calls): &(&str, &[c_long])| {
        let names: Vec<String> = calls.iter().map(|&number| named(number)).collect();
        let of = |row: &str| names.iter().any(|name| row.strip_prefix(name).is_some_and(|rest| !rest.starts_with(' ')));
        let ways: Vec<&str> = by.about(Topic::Call).map(|line| line.what.as_str()).filter(|row| of(row)).collect();
        let why = match ways[..] {
            _ if !by.about(Topic::Filter).any(|line| line.what == "kill") => "not stopped by --seccomp".into(),
            [] => "no: none of these calls is on its list".into(),
            _ => format!("by {}", ways.join("; ")),
        };
        ((*deed).to_owned(), why)
    };
    DEEDS.iter().map(judge).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_policy::account::Line;

    fn part(mode: &str, calls: &[&str]) -> Part {
        let line = |call: &&str| Line { topic: Topic::Call, what: (*call).into(), why: String::new() };
        let filter = Line { topic: Topic::Filter, what: mode.into(), why: String::new() };
        let lines = std::iter::once(filter).chain(calls.iter().map(line)).collect();
        Part { name: "server".into(), pid: 1, lines }
    }

    fn why(mode: &str, calls: &[&str], deed: &str) -> String {
        deeds(&part(mode, calls)).into_iter().find(|(what, _)| what == deed).unwrap().1
    }

    #[test]
    fn a_deed_is_possible_by_the_calls_of_the_list_alone() {
        let kill = format!("{}: argument 1 is 0x9", named(libc::SYS_kill));
        assert_eq!(why("kill", &[&kill], "send signals"), format!("by {kill}"));
        assert!(why("kill", &[&kill], "run programs").starts_with("no: "));
        for mode in ["log", "none"] {
            assert!(why(mode, &[&kill], "run programs").starts_with("not stopped"));
        }
    }
}
