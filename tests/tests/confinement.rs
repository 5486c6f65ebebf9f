//! What server and helper can still do while they serve, as the kernel sees it in /proc.

use std::collections::BTreeMap;
use std::fs;

use postern_tests::prelude::*;
use postern_tests::twin::children;

/// The processes of a share: server, warden, helper.
fn processes(share: &Share) -> [u32; 3] {
    let server = share.server.child.id();
    let warden = children(server).pop().expect("a warden");
    [server, warden, children(warden).pop().expect("a helper")]
}

/// `/proc/PID/status` of every thread.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let parse = |status: String| {
        let pairs = status.lines().filter_map(|line| line.split_once(':'));
        pairs.map(|(key, value)| (key.into(), value.trim().into())).collect()
    };
    tasks.map(|task| parse(fs::read_to_string(task.unwrap().path().join("status")).unwrap())).collect()
}

fn namespace(pid: u32, kind: &str) -> std::path::PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

// seccomp(2): "SECCOMP_SET_MODE_FILTER", mode 2 of proc(5), on every thread that serves
#[apply(promise)]
fn debian_1144050_every_thread_that_serves_in_these_tests_is_filtered(share: &Share) {
    share.put("f", b"x").unwrap();
    let [server, _, helper] = processes(share);
    for thread in [server, helper].into_iter().flat_map(threads) {
        assert_eq!((thread["Seccomp"].as_str(), thread["NoNewPrivs"].as_str()), ("2", "1"), "{thread:?}");
    }
}

// capabilities(7): the server has none, can get none; the helper has those that operations need
#[apply(promise)]
fn capabilities_are_cut(share: &Share) {
    let [server, warden, helper] = processes(share);
    for thread in threads(server) {
        let caps = ["CapInh", "CapPrm", "CapEff", "CapAmb"].map(|set| thread[set].as_str());
        assert_eq!(caps, ["0000000000000000"; 4], "{}", thread["Name"]);
    }
    let needless = ["SYS_ADMIN", "SYS_PTRACE", "SYS_RESOURCE", "LINUX_IMMUTABLE", "NET_ADMIN", "SYS_MODULE"];
    let numbers = [21, 19, 24, 9, 12, 16];
    for thread in [warden, helper].into_iter().flat_map(threads) {
        let caps = u64::from_str_radix(&thread["CapPrm"], 16).unwrap();
        for (name, number) in needless.into_iter().zip(numbers) {
            assert_eq!(caps & 1 << number, 0, "CAP_{name} of {}", thread["Name"]);
        }
    }
}

// user_namespaces(7): the server is no owner of the helper's namespace, and no root of the host
#[apply(promise)]
fn server_and_helper_are_in_sibling_user_namespaces(share: &Share) {
    let [server, _, helper] = processes(share);
    let own = namespace(std::process::id(), "user");
    assert_ne!(namespace(server, "user"), own);
    assert_ne!(namespace(server, "user"), namespace(helper, "user"));
    if share.kind().in_user_namespace() {
        assert_ne!(namespace(helper, "user"), own);
    }
    for thread in threads(server) {
        let ids: Vec<_> = thread["Uid"].split_whitespace().chain(thread["Gid"].split_whitespace()).collect();
        let root = share.host.uid(0).to_string();
        assert!(ids.iter().all(|&id| id != "0" && id != root), "{ids:?}");
        assert_eq!(thread["Groups"], "");
    }
}

// pivot_root(2): nothing of the host is below either's root
#[apply(promise)]
fn the_root_is_empty(share: &Share) {
    let [server, _, helper] = processes(share);
    for pid in [server, helper] {
        let names = fs::read_dir(format!("/proc/{pid}/root/")).unwrap().count();
        assert_eq!(names, 0, "process {pid}");
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        assert!(mounts.lines().count() <= 1, "{mounts}");
    }
}

// network_namespaces(7), ipc_namespaces(7): neither has a network
#[apply(promise)]
fn there_is_no_network(share: &Share) {
    let [server, _, helper] = processes(share);
    for pid in [server, helper] {
        for kind in ["net", "ipc", "mnt"] {
            assert_ne!(namespace(pid, kind), namespace(std::process::id(), kind), "{kind} of {pid}");
        }
        let devices = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
        assert!(devices.lines().skip(2).all(|line| line.trim().starts_with("lo:")), "{devices}");
    }
}

// core(5), prctl(2): PR_SET_DUMPABLE: memory of either is nobody's
#[apply(promise)]
fn memory_is_not_dumped(share: &Share) {
    for pid in processes(share) {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
        use std::os::unix::fs::MetadataExt;
        assert_eq!(fs::metadata(format!("/proc/{pid}/mem")).unwrap().uid(), 0, "process {pid} is dumpable");
    }
}

// postern-helper(8): descriptors that each holds: the server none of a directory that can be climbed, the helper none of the host
#[apply(promise)]
fn no_descriptor_leads_out_of_the_share(share: &Share) {
    share.mkdir("d", 0o755).unwrap();
    share.lookup("d").unwrap();
    share.opendir("d").unwrap();
    let outside = fs::metadata(share.host.path("..")).unwrap();
    use std::os::unix::fs::MetadataExt;
    let [server, _, helper] = processes(share);
    for pid in [server, helper] {
        for fd in fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let above = fd.unwrap().path().join("..");
            let Ok(meta) = fs::metadata(&above) else { continue };
            assert_ne!((meta.dev(), meta.ino()), (outside.dev(), outside.ino()), "{}", above.display());
        }
    }
}
