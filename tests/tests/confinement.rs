//! What server and helper can still do while they serve, as the kernel sees it in /proc.

use std::fs;

use postern_tests::prelude::*;
use postern_tests::processes::{Processes, threads};

// postern-helper(8): PROCESSES; postern-server(1): DESCRIPTION: ids, capabilities, filters, namespaces, maps, roots,
// descriptors
#[apply(promise)]
fn each_process_is_what_it_is_promised_to_be(share: &Share) {
    share.getattr("").unwrap();
    Processes::standalone(share.kind(), share.server.child.id()).assert_promised();
}

// seccomp(2): "SECCOMP_SET_MODE_FILTER", mode 2 of proc(5), on every thread that serves
#[apply(promise)]
fn debian_1144050_every_thread_that_serves_in_these_tests_is_filtered(share: &Share) {
    share.put("f", b"x").unwrap();
    for thread in Processes::standalone(share.kind(), share.server.child.id()).pids.into_iter().flat_map(threads) {
        assert_eq!((thread["Seccomp"].as_str(), thread["NoNewPrivs"].as_str()), ("2", "1"), "{thread:?}");
    }
}

// postern-server(1): DESCRIPTION: "What its caller has left open it closes"; so does postern-helper(8)
#[apply(promise)]
fn what_the_caller_has_left_open_is_closed(on: Kind) {
    let script = r#"exec "$0" "$@" 7</etc/passwd 8</ 100</etc"#;
    let share = on.setup().under(&["bash", "-c", script]).serve();
    share.getattr("").unwrap();
    Processes::standalone(on, share.server.child.id()).assert_promised();
}

// core(5), prctl(2): PR_SET_DUMPABLE: memory of either is nobody's
#[apply(promise)]
fn memory_is_not_dumped(share: &Share) {
    for pid in Processes::standalone(share.kind(), share.server.child.id()).pids {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid(), 0, "process {pid} is dumpable");
    }
}

// postern-helper(8): descriptors that each holds: the server none of a directory that can be climbed, the helper none
// of the host
#[apply(promise)]
fn no_descriptor_leads_out_of_the_share(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    share.lookup("d").unwrap();
    share.opendir("d").unwrap();
    let outside = fs::metadata(share.host.path("..")).unwrap();
    use std::os::unix::fs::MetadataExt;
    let [server, _, helper] = Processes::standalone(share.kind(), share.server.child.id()).pids;
    for pid in [server, helper] {
        for fd in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let above = fd.unwrap().path().join("..");
            let Ok(meta) = fs::metadata(&above) else { continue };
            assert_ne!((meta.dev(), meta.ino()), (outside.dev(), outside.ino()), "{}", above.display());
        }
    }
}
