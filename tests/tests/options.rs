//! Every option of `postern-server virtiofs` has its whole effect. postern-server(1)

use std::fs;
use std::time::Duration;

use postern_server::fuse::abi::{AttrOut, EntryOut, GetattrIn, OpenOutFlags};
use postern_tests::prelude::*;
use postern_tests::twin::{children, ends, goes};
use zerocopy::FromBytes;

/// open(2) flags of the descriptor that the server has for a file which the guest opened.
fn host_flags(share: &Share, name: &str) -> i32 {
    let pid = share.server.serving();
    let numbers = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|entry| entry.unwrap());
    let named = numbers.filter(|entry| fs::read_link(entry.path()).is_ok_and(|path| path.ends_with(name)));
    let flags = named.map(|entry| {
        let number = entry.file_name().into_string().unwrap();
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).unwrap();
        let octal = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        i32::from_str_radix(octal.trim(), 8).unwrap()
    });
    flags.filter(|flags| flags & libc::O_PATH == 0).last().expect("an open file")
}

/// A field of `/proc/PID/status`.
fn status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

/// Waits for a line of the log.
fn await_log(share: &Share, what: &str) -> String {
    for _ in 0..1000 {
        if let Some(line) = share.server.log().lines().find(|line| line.contains(what)) {
            return line.to_owned();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    panic!("no line of the log has {what:?}");
}

/// What a VMM and its guest get of a share with these options.
fn serve_with(on: Kind, args: &[&str]) -> Share {
    args.iter().fold(on.setup().plain(), |setup, arg| setup.arg(arg)).serve()
}

// postern-server(1): --cache: "file data ... until the file is opened again and has changed; always; not cached"
#[apply(promise)]
fn the_cache_policy_decides_whether_data_is_kept(on: Kind) {
    use OpenOutFlags as F;
    let direct = F::NOFLUSH | F::DIRECT_IO | F::PARALLEL_DIRECT_WRITES;
    let kept = F::CACHE_DIR | F::KEEP_CACHE;
    for (cache, of_file, of_dir, notices) in [
        (Cache::Auto, F::NOFLUSH, F::empty(), true),
        (Cache::Always, F::NOFLUSH | F::KEEP_CACHE, kept, false),
        (Cache::Never, direct, F::empty(), true),
        (Cache::Metadata, direct, kept, true),
    ] {
        let share = on.setup().cache(cache).serve();
        let created = share.create("f", O_RDWR, 0o644).unwrap();
        let opened = share.open("f", O_RDONLY).unwrap();
        let dir = share.opendir("").unwrap();
        assert_eq!([created.out, opened.out, dir.out], [of_file, of_file, of_dir], "{cache:?}");
        assert_eq!(share.granted().contains(InitFlags::AUTO_INVAL_DATA), notices, "{cache:?}");
        assert_eq!(share.granted().contains(InitFlags::CACHE_SYMLINKS), cache != Cache::Never, "{cache:?}");
    }
}

// virtiofsd: --cache: "auto", "always", "never": the same flags make data bypass the guest's cache or stay in it
#[apply(virtiofs)]
fn data_bypasses_the_guests_cache_or_stays_in_it(on: Kind) {
    let both = OpenOutFlags::DIRECT_IO | OpenOutFlags::KEEP_CACHE;
    for (cache, flags) in [
        (Cache::Auto, OpenOutFlags::empty()),
        (Cache::Always, OpenOutFlags::KEEP_CACHE),
        (Cache::Never, OpenOutFlags::DIRECT_IO),
    ] {
        let share = on.setup().cache(cache).serve();
        share.host.write("f", b"x");
        assert_eq!(share.open("f", O_RDONLY).unwrap().out & both, flags, "{cache:?}");
    }
}

// postern-server(1): --cache=metadata: names and attributes "1 day"
#[apply(promise)]
fn metadata_is_believed_for_a_day(on: Kind) {
    let share = on.setup().cache(Cache::Metadata).serve();
    let entry = share.mkdir("d", 0o755).unwrap();
    assert_eq!((entry.entry_valid, entry.attr_valid), (86_400, 86_400));
}

// postern-server(1): --entry-timeout, --attr-timeout: "fractions are allowed"
#[apply(promise)]
fn timeouts_are_told_to_the_guest(on: Kind) {
    let share = serve_with(on, &["--entry-timeout=2.5", "--attr-timeout=0.25"]);
    let is_told = |entry: &EntryOut| {
        assert_eq!((entry.entry_valid, entry.entry_valid_nsec), (2, 500_000_000));
        assert_eq!((entry.attr_valid, entry.attr_valid_nsec), (0, 250_000_000));
    };
    is_told(&share.mkdir("d", 0o755).unwrap());
    is_told(&share.lookup("d").unwrap());
    let dir = share.opendir("").unwrap();
    let listed = share.readdirplus(&dir, 0, 4096).unwrap();
    is_told(&listed.iter().find(|(_, entry)| entry.name == "d").unwrap().0);
    let request = Request::new(opcode::GETATTR, ROOT_ID).arg(&GetattrIn::default()).room::<AttrOut>();
    let attr = AttrOut::read_from_bytes(&share.raw(&request).unwrap()).unwrap();
    assert_eq!((attr.attr_valid, attr.attr_valid_nsec), (0, 250_000_000));
}

// postern-server(1): --negative-timeout: "How long it is remembered that a name is not there. The default is 0."
#[apply(promise)]
fn a_missing_name_is_remembered_if_so_asked(on: Kind) {
    let missing = Request::new(opcode::LOOKUP, ROOT_ID).name(b"missing").room::<EntryOut>();
    assert_eq!(serve_with(on, &[]).raw(&missing), Err(ENOENT));
    let told = serve_with(on, &["--negative-timeout=1.5"]).raw(&missing).unwrap();
    let entry = EntryOut::read_from_bytes(&told).unwrap();
    assert_eq!((entry.nodeid, entry.entry_valid, entry.entry_valid_nsec), (0, 1, 500_000_000));
}

// postern-server(1): --allow-mmap: "Shared mappings of files work although --cache=never"
#[apply(promise)]
fn mappings_of_uncached_files_are_allowed_if_so_asked(on: Kind) {
    let granted = |args: &[&str]| serve_with(on, args).granted().contains(InitFlags::DIRECT_IO_ALLOW_MMAP);
    assert!(!granted(&["--cache=never"]));
    assert!(granted(&["--cache=never", "--allow-mmap"]));
}

// postern-server(1), virtiofsd: --allow-direct-io: "O_DIRECT of the guest reaches the host"
#[apply(promise)]
fn direct_io_reaches_the_host_if_so_asked(on: Kind) {
    for allowed in [false, true] {
        let args: &[_] = if allowed { &["--allow-direct-io"] } else { &[] };
        let share = serve_with(on, args);
        let file = share.create("f", O_RDWR | libc::O_DIRECT, 0o644).unwrap();
        assert_eq!(host_flags(&share, "f") & libc::O_DIRECT != 0, allowed);
        assert_eq!(share.write(&file, 0, &[7; 8192]).unwrap(), 8192);
        share.release(&file).unwrap();
        let file = share.open("f", O_RDONLY | libc::O_DIRECT).unwrap();
        assert_eq!(host_flags(&share, "f") & libc::O_DIRECT != 0, allowed);
        assert!(share.read(&file, 0, 4096).unwrap() == [7; 4096]);
    }
}

// linux/fuse.h: FUSE_WRITEBACK_CACHE: the guest reads the rest of a page that it writes to, and knows the end itself
#[apply(virtiofs)]
fn a_guest_that_collects_writes_may_read_what_it_writes(on: Kind) {
    let share = on.setup().writeback().serve();
    assert!(share.granted().contains(InitFlags::WRITEBACK_CACHE));
    share.host.write("f", b"hello");
    let file = share.open("f", O_WRONLY | O_APPEND).unwrap();
    assert_eq!(share.read(&file, 0, 10).unwrap(), b"hello");
    assert_eq!(share.write(&file, 0, b"J").unwrap(), 1);
    assert_eq!(share.host.read("f"), b"Jello");
    let new = share.create("g", O_WRONLY | O_APPEND, 0o644).unwrap();
    assert_eq!(share.write(&new, 5, b"x").unwrap(), 1);
    assert_eq!(share.read(&new, 0, 10).unwrap(), b"\0\0\0\0\0x");
}

// postern-server(1): --writeback: off, a file is opened as the guest's process did
#[apply(promise)]
fn writes_are_not_collected_unless_asked_for(share: &Share) {
    assert!(!share.granted().contains(InitFlags::WRITEBACK_CACHE));
    share.host.write("f", b"hello");
    share.open("f", O_WRONLY | O_APPEND).unwrap();
    let flags = host_flags(share, "f");
    assert_eq!((flags & libc::O_ACCMODE, flags & O_APPEND), (O_WRONLY, O_APPEND));
}

// postern-server(1): --writeout: "What the guest writes is on its way to the disk before the write returns"
#[apply(promise)]
fn what_is_written_goes_to_the_disk_at_once_if_so_asked(on: Kind) {
    for (args, waits) in [(&[][..], true), (&["--writeout=immediate"], false)] {
        let share = serve_with(on, args);
        let file = share.create("f", O_RDWR, 0o644).unwrap();
        let copy = share.create("copy", O_RDWR, 0o644).unwrap();
        assert_eq!(share.write(&file, 0, &[b'x'; 65_536]).unwrap(), 65_536);
        assert_eq!(share.copy_file_range((&file, 0), (&copy, 0), 65_536).unwrap(), 65_536);
        for name in ["f", "copy"] {
            assert_eq!(share.host.waits_for_its_place(name), waits, "{name} with {args:?}");
        }
    }
}

// postern-server(1): --no-readdirplus: "The guest reads directories by names only"
#[apply(promise)]
fn directories_are_read_by_names_only_if_so_asked(on: Kind) {
    let share = serve_with(on, &["--no-readdirplus"]);
    let both = InitFlags::DO_READDIRPLUS | InitFlags::READDIRPLUS_AUTO;
    assert_eq!(share.granted() & both, InitFlags::empty());
    share.put("f", b"").unwrap();
    assert_eq!(share.list("").unwrap(), ["f"]);
}

// postern-server(1): --xattr: "Extended attributes", off by default; fuse: ENOSYS once and the guest does not ask again
#[apply(promise)]
fn extended_attributes_are_off_unless_asked_for(on: Kind) {
    let share = serve_with(on, &[]);
    share.put("f", b"").unwrap();
    share.host.setxattr("f", "user.a", b"x");
    assert_eq!(share.getxattr("f", "user.a").map(drop), Err(ENOSYS));
    assert_eq!(share.setxattr("f", "user.b", b"y", 0), Err(ENOSYS));
    assert_eq!(share.listxattr("f").map(drop), Err(ENOSYS));
    assert_eq!(share.removexattr("f", "user.a"), Err(ENOSYS));
    assert_eq!(share.host.getxattr("f", "user.a").unwrap(), b"x");
    assert_eq!(share.host.getxattr("f", "user.b"), None);
}

// postern-server(1): --posix-acl, --security-label: each "implies --xattr"
#[apply(promise)]
fn what_needs_extended_attributes_turns_them_on(on: Kind) {
    for option in ["--xattr", "--posix-acl", "--security-label"] {
        let share = serve_with(on, &[option]);
        share.put("f", b"").unwrap();
        share.setxattr("f", "user.a", b"x", 0).unwrap();
        assert_eq!(share.host.getxattr("f", "user.a").unwrap(), b"x", "{option}");
        assert_eq!(share.granted().contains(InitFlags::POSIX_ACL), option == "--posix-acl");
        assert_eq!(share.granted().contains(InitFlags::DONT_MASK), option == "--posix-acl");
        assert_eq!(share.granted().contains(InitFlags::SECURITY_CTX), option == "--security-label");
    }
}

// postern-server(1): --preserve-noatime: "O_NOATIME of the guest reaches the host, where the helper may use it"
#[apply(promise)]
fn access_times_are_left_alone_if_so_asked(on: Kind) {
    for preserved in [false, true] {
        let args: &[_] = if preserved { &["--preserve-noatime"] } else { &[] };
        let share = serve_with(on, args);
        share.put("f", b"hello").unwrap();
        let file = share.open("f", O_RDONLY | libc::O_NOATIME).unwrap();
        assert_eq!(host_flags(&share, "f") & libc::O_NOATIME != 0, preserved);
        let old = std::time::UNIX_EPOCH + Duration::from_secs(1);
        let times = fs::FileTimes::new().set_accessed(old);
        fs::File::open(share.host.path("f")).unwrap().set_times(times).unwrap();
        share.read(&file, 0, 5).unwrap();
        assert_eq!(share.host.stat("f").atime.0 == 1, preserved);
    }
}

// postern-server(1): --no-killpriv-v2: "The guest clears set-id bits itself, by a request of its own"
#[apply(promise)]
fn clearing_set_id_bits_is_left_to_the_guest_if_so_asked(on: Kind) {
    let share = serve_with(on, &["--no-killpriv-v2"]);
    assert!(!share.granted().contains(InitFlags::HANDLE_KILLPRIV_V2));
    share.put("f", b"hello").unwrap();
    share.chmod("f", 0o4755).unwrap();
    let file = share.open("f", O_WRONLY).unwrap();
    share.write(&file, 0, b"J").unwrap();
    assert_eq!(share.host.stat("f").perm(), 0o4755);
    share.chmod("f", 0o755).unwrap();
    assert_eq!(share.host.stat("f").perm(), 0o755);
}

fn most_files(pid: u32) -> String {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

// postern-server(1): --rlimit-nofile: "the default is 100000, or what the caller's own limit allows"
#[apply(promise)]
fn descriptors_are_limited_by_option_and_caller(on: Kind) {
    let share = serve_with(on, &["--rlimit-nofile=1000"]);
    assert_eq!(most_files(share.server.child.id()), "1000 1000");
    let share = on.setup().under(&["prlimit", "--nofile=300:600"]).serve();
    assert_eq!(most_files(share.server.child.id()), "600 600");
    let names: Vec<_> = (0..700).map(|i| format!("f{i}")).collect();
    names.iter().for_each(|name| share.host.write(name, name.as_bytes()));
    let nodes: Vec<_> = names.iter().map(|name| share.lookup(name.as_str()).unwrap().nodeid).collect();
    for (node, name) in nodes.iter().zip(&names).step_by(50) {
        assert_eq!(share.get(*node).unwrap(), name.as_bytes());
    }
}

// postern-server(1): --socket-group: "Members of GROUP, a name or a number, may connect"; "Only the owner may connect,
// unless"
#[apply(promise)]
fn a_group_may_connect_if_so_asked(on: Kind) {
    use std::os::unix::fs::MetadataExt;
    let socket = |share: &Share| {
        let meta = fs::metadata(share.server.socket()).unwrap();
        (meta.mode() & 0o777, meta.gid())
    };
    let own = on.starter().1.as_raw();
    assert_eq!(socket(&serve_with(on, &[])), (0o600, own));
    assert_eq!(socket(&serve_with(on, &["--socket-group", &own.to_string()])), (0o660, own));
    if on != Kind::User {
        let group = nix::unistd::Group::from_name("daemon").unwrap().unwrap().gid.as_raw();
        assert_eq!(socket(&serve_with(on, &["--socket-group=daemon"])), (0o660, group));
    }
}

// postern-server(1): --user: "Become this user when started by root; the default is nobody"
#[apply(promise)]
fn a_server_started_by_root_becomes_the_user_named(on: Kind) {
    let id = |name: &str| nix::unistd::User::from_name(name).unwrap().unwrap().uid.to_string();
    for (args, name) in [(&[][..], "nobody"), (&["--user=daemon"], "daemon"), (&["--user=1"], "daemon")] {
        let share = serve_with(on, args);
        share.put("f", b"x").unwrap();
        let uids = status(share.server.child.id(), "Uid");
        let uids: Vec<_> = uids.split_whitespace().collect();
        if on == Kind::User {
            assert_ne!(uids[1], id(name), "an ordinary user stays what he is");
        } else {
            assert_eq!(uids, [&id(name); 4], "{args:?}");
        }
    }
}

// postern-server(1): --log-level: "debug is a line for each request"
#[apply(promise)]
fn each_request_is_a_line_of_the_log_if_so_asked(on: Kind) {
    let share = serve_with(on, &["--log-level=debug"]);
    share.mkdir("d", 0o755).unwrap();
    assert_eq!(share.as_user(7).mkdir("d", 0o755).map(drop), Err(EEXIST));
    let line = await_log(&share, "uid=7 -> EEXIST");
    assert!(line.starts_with("postern-server: debug: ") && line.ends_with("us") && line.contains("node=1"), "{line}");
    await_log(&share, "postern-helper: debug: ");
}

// postern-server(1): --log-level: off, error and warn say less than info, the default
#[apply(promise)]
fn the_log_says_no_more_than_asked_for(on: Kind) {
    assert!(serve_with(on, &[]).server.log().contains("postern-server: info: ready"));
    let share = serve_with(on, &["--log-level=off", "--seccomp=log"]);
    share.put("f", b"x").unwrap();
    assert_eq!(share.server.log(), "");
}

// postern-server(1): --once: "End when the VMM disconnects. Otherwise the next VMM ... is served"; exit status 0
#[apply(promise)]
fn a_server_for_one_vmm_ends_with_it(on: Kind) {
    let setup = on.setup().plain().arg("--once");
    let mut server = setup.start();
    let guest = server.mount(&setup);
    guest.put("f", b"x").unwrap();
    let warden = children(server.child.id()).pop().unwrap();
    drop(guest);
    assert!(ends(&mut server.child), "the server goes on");
    assert_eq!(server.child.wait().unwrap().code(), Some(0));
    assert!(goes(warden), "the helper goes on");
}

// postern-server(1): --num-request-queues: "1 to 32; the default is 4"; "A VMM may use fewer"
#[apply(promise)]
fn request_queues_are_as_many_as_asked_for(on: Kind) {
    use vhost::vhost_user::VhostUserFrontend;
    for (args, queues) in [(&[][..], 4), (&["--num-request-queues=1"], 1), (&["--num-request-queues=32"], 32)] {
        let share = serve_with(on, args);
        assert_eq!(share.fuse().vmm.frontend().get_queue_num().unwrap(), queues + 1);
        share.put("f", b"x").unwrap();
        assert_eq!(share.get("f").unwrap(), b"x");
    }
}

// postern-server(1): --queue-threads: "one for each queue, or for each CPU that the process may use if those are fewer"
#[apply(promise)]
fn queues_have_as_many_threads_as_asked_for_or_as_there_are_cpus(on: Kind) {
    let cpus = std::thread::available_parallelism().unwrap().get();
    let pinned = |setup: Setup| setup.under(&["taskset", "-c", "0"]);
    let (one, asked) = (pinned(on.setup()), pinned(on.setup().arg("--queue-threads=3")));
    let most = on.setup().arg("--queue-threads=32");
    for (setup, threads) in [(on.setup(), cpus.min(4)), (one, 1), (asked, 3), (most, 4)] {
        let share = setup.queues(4).serve();
        for queue in 0..4 {
            share.on_queue(queue).put(format!("f{queue}").as_str(), b"x").unwrap();
        }
        let tasks = std::fs::read_dir(format!("/proc/{}/task", share.server.child.id())).unwrap();
        let names = tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap());
        assert_eq!(names.filter(|name| name.starts_with("queue-")).count(), threads);
    }
}

// postern-server(1): --thread-pool-size: "With 0 such requests hold up the others of their queue", which is all
#[apply(promise)]
fn everything_is_done_without_a_thread_pool(on: Kind) {
    let share = serve_with(on, &["--thread-pool-size=0", "--allow-direct-io"]);
    let file = share.create("f", O_RDWR | libc::O_SYNC | libc::O_DIRECT, 0o644).unwrap();
    assert_eq!(share.write(&file, 0, &[7; 1 << 20]).unwrap(), 1 << 20);
    assert_eq!(share.read(&file, 4096, 4096).unwrap(), [7; 4096]);
    share.fsync(&file, abi::FsyncFlags::empty()).unwrap();
    share.syncfs(ROOT_ID).unwrap();
    let other = share.create("g", O_RDWR, 0o644).unwrap();
    assert_eq!(share.copy_file_range((&file, 0), (&other, 0), 8192).unwrap(), 8192);
    assert_eq!(share.list("").unwrap(), ["f", "g"]);
}

// postern-server(1): --seccomp: "Anything but kill weakens both processes and logs a warning"
#[apply(promise)]
fn a_weaker_filter_is_warned_of(on: Kind) {
    for (mode, filtered) in [("log", "2"), ("none", "0")] {
        let share = serve_with(on, &[&format!("--seccomp={mode}")]);
        share.put("f", b"x").unwrap();
        let server = share.server.child.id();
        let helper = children(children(server)[0])[0];
        assert_eq!([server, helper].map(|pid| status(pid, "Seccomp")), [filtered; 2], "{mode}");
        for program in ["postern-server", "postern-helper"] {
            await_log(&share, &format!("{program}: warning: --seccomp={mode}"));
        }
    }
}

// postern-server(1): --no-landlock: "Weakens both processes and logs a warning"
#[apply(promise)]
fn going_without_landlock_is_warned_of(on: Kind) {
    let share = serve_with(on, &["--no-landlock"]);
    share.put("f", b"x").unwrap();
    for program in ["postern-server: warning: ", "postern-helper: warning: "] {
        let log = share.server.log();
        assert!(log.lines().any(|line| line.starts_with(program) && line.contains("--no-landlock")), "{log}");
    }
}

// postern-helper(8): --allow-setid: "The guest may set set-id bits and file capabilities"
#[apply(promise)]
fn set_id_files_are_planted_if_so_asked(on: Kind) {
    let share = on.setup().public().arg("--allow-setid").serve();
    await_log(&share, "warning: --allow-setid");
    share.create("f", O_RDWR, 0o4755).unwrap();
    assert_eq!(share.host.stat("f").perm(), 0o4755);
    share.chmod("f", 0o6755).unwrap();
    assert_eq!(share.host.stat("f").perm(), 0o6755);
    let capability = [&0x0200_0001_u32.to_le_bytes()[..], &[0; 16]].concat();
    share.setxattr("f", "security.capability", &capability, 0).unwrap();
}

// postern-helper(8): --allow-devices: "The guest may make device nodes, with --identity=host"
#[apply(promise)]
fn device_nodes_are_planted_if_so_asked(on: Kind) {
    let share = on.setup().public().arg("--allow-devices").serve();
    await_log(&share, "warning: --allow-devices");
    let made = share.mknod("null", S_IFCHR | 0o666, 1 << 8 | 3).map(drop);
    if on == Kind::Host {
        assert_eq!((made, share.host.stat("null").kind()), (Ok(()), S_IFCHR));
        assert_eq!(share.chmod("null", 0o4666).map(drop), Err(EPERM), "--allow-setid was not given");
    } else {
        assert_eq!(made, Err(EPERM));
    }
}
