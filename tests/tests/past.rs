//! Faults that other servers of host directories have had, each by its number. What a test elsewhere shows already is
//! named in postern-security(7), whose every row names a test.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use postern_tests::kind::to_host;
use postern_tests::prelude::*;

/// Descriptors and resident memory of all processes of a share: count, KiB.
fn held(share: &Share) -> (usize, u64) {
    let mut processes = vec![share.server.child.id()];
    let mut at = 0;
    while let Some(&process) = processes.get(at) {
        processes.extend(postern_tests::twin::children(process));
        at += 1;
    }
    let descriptors = |pid: &u32| std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
    let memory = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default().to_owned();
        line.split_whitespace().nth(1).map_or(0, |number| number.parse::<u64>().unwrap())
    };
    (processes.iter().map(descriptors).sum(), processes.iter().map(memory).sum())
}

/// Does something many times, and sees that the processes hold no more than before.
fn costs_nothing_that_lasts(share: &Share, rounds: u32, act: impl Fn(u32)) {
    (0..rounds / 10).for_each(&act);
    let (descriptors, memory) = held(share);
    (0..rounds).for_each(&act);
    let (descriptors_after, memory_after) = held(share);
    assert!(descriptors_after <= descriptors + 8, "{descriptors} descriptors, then {descriptors_after}");
    assert!(memory_after <= memory + 2048, "{memory} KiB, then {memory_after}");
}

// The host, or another guest, swaps a directory for a link out of the share while this guest works in it.
#[apply(promise)]
fn cve_2016_9602_a_directory_swapped_for_a_link_leads_nowhere(share: &Share) {
    share.host.mkdir("d");
    share.host.write("d/canary", b"inner");
    share.host.symlink("../outside", "l");
    let (d, l, t) = (share.host.path("d"), share.host.path("l"), share.host.path("t"));
    let done = AtomicBool::new(false);
    let seen = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for (from, to) in [(&d, &t), (&l, &d), (&d, &l), (&t, &d)] {
                    std::fs::rename(from, to).unwrap();
                }
            }
        });
        let mut seen = BTreeSet::new();
        for round in 0..4000 {
            seen.extend(share.get("d/canary").ok());
            let _ = share.put("d/canary", b"inner");
            let _ = share.mkdir(format!("d/{round}").as_str(), 0o755);
            let _ = share.rmdir(format!("d/{round}").as_str());
        }
        done.store(true, Ordering::Relaxed);
        seen
    });
    assert!(seen.iter().all(|content| content != b"alive"), "the canary outside was read");
    assert!(seen.contains(b"inner".as_slice()) || seen.contains(b"".as_slice()), "the file inside was never read");
    share.server.assert_contained();
}

#[apply(promise)]
fn cve_2016_9913_nothing_leaks_by_names_values_and_links(share: &Share) {
    share.host.write("f", b"x");
    costs_nothing_that_lasts(share, 2000, |round| {
        let value = vec![7; (round % 4000) as usize];
        share.setxattr("f", "user.a", &value, 0).unwrap();
        assert_eq!(share.getxattr("f", "user.a").unwrap().len(), value.len());
        let _ = share.listxattr("f").unwrap();
        let name = format!("l{}", round % 3);
        let node = share.link("f", name.as_str()).unwrap().nodeid;
        share.unlink(name.as_str()).unwrap();
        share.forget(node, 1);
        let made = share.create("new", O_RDWR, 0o644).unwrap();
        share.release(&made).unwrap();
        share.unlink("new").unwrap();
        share.forget(made.node, 1);
    });
}

// A value that changes while it is read must not bring bytes that were never in it.
#[apply(promise)]
fn cve_2017_15038_a_value_that_changes_while_it_is_read_is_one_of_its_values(share: &Share) {
    share.host.write("f", b"x");
    let path = share.host.path("f");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let values = [vec![b'a'; 10], vec![b'b'; 3000]];
            for value in values.iter().cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                rustix::fs::lsetxattr(&path, "user.a", value, rustix::fs::XattrFlags::empty()).unwrap();
            }
        });
        for round in 0..4000 {
            let size = [0, 10, 3000, 65_536][round % 4];
            match share.getxattr_into("f", "user.a", size) {
                Ok(value) if size > 0 => {
                    assert!(value == [b'a'; 10] || value == [b'b'; 3000], "{} bytes", value.len());
                }
                _ => {}
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

// fids and paths of 9pfs were changed by one request and used by another.
#[apply(promise)]
fn cve_2018_19364_renames_walks_and_listings_at_once_keep_every_file(on: Kind) {
    let share = on.setup().queues(4).serve();
    for dir in ["a", "b"] {
        share.mkdir(dir, 0o755).unwrap();
    }
    for number in 0..16 {
        share.put(format!("a/{number}").as_str(), format!("content of {number}").as_bytes()).unwrap();
    }
    thread::scope(|scope| {
        for worker in 0..8_u32 {
            let guest = share.on_queue((worker % 4) as usize);
            scope.spawn(move || {
                for round in 0..400_u32 {
                    let number = (round * 7 + worker) % 16;
                    let (here, there) = (format!("a/{number}"), format!("b/{number}"));
                    match worker % 4 {
                        0 => drop(guest.rename(here.as_str(), there.as_str())),
                        1 => drop(guest.rename(there.as_str(), here.as_str())),
                        2 => {
                            // It may be under way from one to the other.
                            for path in [&here, &there] {
                                let content = guest.get(path.as_str());
                                let expected = format!("content of {number}");
                                assert!(content.is_err() || content.unwrap() == expected.as_bytes());
                            }
                        }
                        _ => drop(guest.list("a")),
                    }
                }
            });
        }
    });
    let mut names: Vec<_> = [share.host.list("a"), share.host.list("b")].concat();
    names.sort_by_key(|name| name.parse::<u32>().unwrap());
    assert_eq!(names, (0..16).map(|number| number.to_string()).collect::<Vec<_>>());
    for number in 0..16 {
        let path = ["a", "b"].map(|dir| format!("{dir}/{number}")).into_iter().find(|path| share.host.exists(path));
        assert_eq!(share.get(path.unwrap().as_str()).unwrap(), format!("content of {number}").as_bytes());
    }
}

// The size that a guest asks for is not the size of what is allocated for it.
#[apply(promise)]
fn cve_2026_9238_a_size_of_four_gibibytes_takes_no_memory(share: &Share) {
    use postern_tests::fuse::Request;

    share.host.write("f", b"x");
    share.setxattr("f", "user.a", b"value", 0).unwrap();
    let node = share.lookup("f").unwrap().nodeid;
    let (file, dir) = (share.open("f", O_RDONLY).unwrap(), share.opendir("").unwrap());
    let huge = u32::MAX;
    costs_nothing_that_lasts(share, 200, |_| {
        let get = Request::new(opcode::GETXATTR, node)
            .arg(&abi::GetxattrIn { size: huge, padding: 0 })
            .name(b"user.a")
            .room_bytes(64);
        assert_eq!(share.raw(&get).unwrap(), b"value");
        assert!(!share.raw(&share.read_as(opcode::READDIR, &dir, 0, huge).room_data(4096)).unwrap().is_empty());
        assert_eq!(share.raw(&share.read_as(opcode::READ, &file, 0, huge).room_data(4096)).unwrap(), b"x");
    });
}

// Kata containers, GHSA-2gv2-cffp-j227: names with a slash reached the host once the sandbox was off.
#[apply(promise)]
fn ghsa_2gv2_cffp_j227_names_are_checked_with_every_wall_down(on: Kind) {
    let share = on.setup().arg("--seccomp=none").arg("--no-landlock").serve();
    share.host.write("f", b"hello");
    share.host.mkdir("d");
    for name in ["../outside/evil", "/tmp/evil", "..", "d/../../outside/evil", ""] {
        let place = (ROOT_ID, name);
        assert!(share.symlink("/etc/passwd", place).is_err(), "{name}");
        assert!(share.mkdir(place, 0o755).is_err(), "{name}");
        assert!(share.mknod(place, S_IFREG | 0o644, 0).is_err(), "{name}");
        assert!(share.create(place, O_RDWR, 0o644).is_err(), "{name}");
        assert!(share.link("f", place).is_err(), "{name}");
        assert!(share.rename("f", place).is_err(), "{name}");
        assert!(share.rename(place, "moved").is_err(), "{name}");
        assert!(share.unlink(place).is_err(), "{name}");
        assert!(share.rmdir(place).is_err(), "{name}");
        assert!(share.lookup(place).is_err(), "{name}");
    }
    assert_eq!(share.host.list(""), ["d", "f"]);
    share.server.assert_contained();
}

// Opened for reading, with the flag that empties it.
#[apply(promise)]
fn cve_2026_63318_a_read_only_file_is_not_emptied_by_o_trunc(on: Kind) {
    let share = on.setup().readonly().plant(|host| host.write("f", b"kept")).serve();
    let before = share.host.stat("f");
    for flags in [O_RDONLY, O_WRONLY, O_RDWR].map(|mode| mode | O_TRUNC) {
        assert_eq!(share.open("f", flags).map(drop), Err(EROFS), "{flags:o}");
        assert_eq!(share.create("f", flags, 0o644).map(drop), Err(EROFS), "{flags:o}");
    }
    let after = share.host.stat("f");
    assert_eq!((after.size, after.mtime, after.ctime), (before.size, before.mtime, before.ctime));
    assert_eq!(share.host.read("f"), b"kept");
}

// The groups of whoever starts the server: a file made in a directory of one of them kept its set-group-id bit.
#[apply(promise)]
fn cve_2022_0358_groups_of_who_starts_the_server_are_not_the_guests(on: Kind) {
    let group = to_host(&on.gids(), 50).unwrap().to_string();
    // Nobody but root has groups to give.
    let words = ["setpriv", "--groups", &group, "--"];
    let share = on.setup().under(if on.is_ordinary_user() { &[] } else { &words }).serve();
    share.host.mkdir("d");
    share.host.chown("d", 0, 50);
    share.host.chmod("d", 0o2777);
    share.as_user(1000).create("d/f", O_RDWR, 0o2755).unwrap();
    let made = share.host.stat("d/f");
    assert_eq!((made.owner, made.perm()), (ids(1000, 50), 0o755));
}

// vmm-sys-util before 0.12 believed a length that it decoded, vm-memory before 0.12.2 one of a region.
#[test]
fn cve_2023_50711_cve_2023_41051_crates_that_had_them_are_newer() {
    let top = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let lock = std::fs::read_to_string(top.join("Cargo.lock")).unwrap();
    for (name, least) in [("vmm-sys-util", [0, 12, 0]), ("vm-memory", [0, 12, 2])] {
        let start = format!("name = \"{name}\"\nversion = \"");
        let found = lock.split(&start).skip(1);
        let versions: Vec<Vec<u32>> = found
            .map(|rest| rest.split('"').next().unwrap().split('.').map(|part| part.parse().unwrap()).collect())
            .collect();
        assert!(!versions.is_empty() && versions.iter().all(|version| version[..] >= least[..]), "{name} {versions:?}");
    }
}
