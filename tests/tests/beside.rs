//! What is beside a share on its host and has to do with it all the same: other shares of the same directory, mounts
//! that are shared with other namespaces, programs that hold leases, processes of the same user.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postern_ipc::Errno;
use postern_ipc::attr::OpenFlags;
use postern_ipc::hello::{Hello, News, VERSION, receive_news, send_hello};
use postern_ipc::name::{FileName, Names};
use postern_ipc::op::{Lookup, Open, OpenEach, Stat};
use postern_tests::hostile::tried;
use postern_tests::kind::to_host;
use postern_tests::mounts;
use postern_tests::prelude::*;
use postern_tests::processes::{Processes, owner_of_namespace};
use postern_tests::twin::{self, Twin};

fn read() -> Open {
    Open { flags: OpenFlags::READ }
}

// statx(2): STATX_MNT_ID: an id may be given to another mount; STATX_MNT_ID_UNIQUE: it never is. Each share has a clone
#[apply(promise)]
fn a_descriptor_of_another_share_of_the_same_directory_is_the_end(on: Kind) {
    let mut attempts = 0;
    for goes_first in [false, true] {
        let other = Twin::new(on);
        other.host.write("f", b"");
        let descriptors = [other.root.try_clone().unwrap(), other.pin("f")];
        // The first that comes after one that is gone may have got its numbers.
        let other = (!goes_first).then_some(other);
        for descriptor in descriptors {
            let mut twin = Twin::new(on);
            let frame = twin.frame(postern_ipc::id::Caller::Root, &Stat {}, 0);
            twin.channel.send(&[&frame, b""], &[descriptor.as_fd()]).unwrap();
            twin.assert_ended();
            attempts += 1;
        }
        drop(other);
    }
    tried("descriptors of other shares", attempts);
}

// mount_namespaces(7): MS_SHARED: an unmounting reaches all copies but private ones
#[apply(promise)]
fn what_is_unmounted_on_a_shared_mount_uncovers_nothing(on: Kind) {
    mounts::alone();
    let mut twin = Twin::planted(on, &[], |host| {
        mounts::bind(&host.path(""), &host.path(""));
        mounts::share(&host.path(""));
        host.mkdir("m");
        host.write("m/covered", b"secret");
        mounts::memory(&host.path("m"), (host.uid(0), host.gid(0)));
        host.write("m/f", b"above");
    });
    let [dir, file] = ["m", "m/f"].map(|path| twin.pin(path));
    mounts::detach(&twin.host.path("m"));
    assert_eq!(twin.host.list("m"), ["covered"]);
    let lookup = |name: &str| Lookup { name: FileName::new(name.as_bytes()).unwrap() };
    assert_eq!(twin.ask(&lookup("covered"), &[dir.as_fd()]).map(drop), Err(Errno::ENOENT));
    assert!(twin.ask(&lookup("f"), &[dir.as_fd()]).is_ok() && twin.ask(&read(), &[file.as_fd()]).is_ok());
    let root = twin.root.try_clone().unwrap();
    let (_, again, _) = twin.ask(&lookup("m"), &[root.as_fd()]).unwrap();
    assert_eq!(twin.ask(&lookup("covered"), &[again[0].as_fd()]).map(drop), Err(Errno::ENOENT));
    assert_eq!(twin.errors(), 0, "{}", twin.scratch.log());
    mounts::detach_all(&twin.host.path(""));
}

// postern-server(1): --open-ahead: "What is mounted in the directory is not opened so": whoever serves it may take his
// time
#[apply(promise)]
fn what_is_mounted_there_is_not_opened_with_others(on: Kind) {
    mounts::alone();
    let mut twin = Twin::planted(on, &[], |host| {
        ["d", "m"].into_iter().for_each(|dir| host.mkdir(dir));
        ["f", "g"].into_iter().for_each(|file| host.write(file, b"hello"));
        mounts::memory(&host.path("m"), (host.uid(0), host.gid(0)));
        mounts::bind(&host.path("f"), &host.path("g"));
    });
    let root = twin.root.try_clone().unwrap();
    let names = ["d", "m", "f", "g", "none"].map(|name| FileName::new(name.as_bytes()).unwrap());
    let each = OpenEach { names: Names::try_from(names.to_vec()).unwrap() };
    let (attrs, given, _) = twin.ask(&each, &[root.as_fd()]).unwrap();
    let opened: Vec<_> = attrs.iter().map(Option::is_some).collect();
    assert_eq!((opened, given.len()), (vec![true, false, true, false, false], 2));
    mounts::detach_all(&twin.host.path(""));
}

/// A program of the host that has a file to itself as long as it lives. fcntl(2): F_SETLEASE, F_WRLCK
struct Holder(Child);

impl Holder {
    fn of(path: &Path) -> Self {
        let program = r#"$SIG{IO} = "IGNORE"; open(F, "+<", $ARGV[0]) && fcntl(F, 1024, 1) or die; print "held\n"; close(STDOUT); sleep(60)"#;
        let mut child = Command::new("perl").args(["-e", program]).arg(path).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said, "held\n");
        Self(child)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

// postern-helper(8): "a file that a lease holder does not give up within a second gives EAGAIN"
#[apply(promise)]
fn a_lease_of_a_host_program_costs_a_second_and_no_more(on: Kind) {
    let mut twin = Twin::new(on);
    twin.host.write("f", b"hello");
    let holder = Holder::of(&twin.host.path("f"));
    let file = twin.pin("f");
    let since = Instant::now();
    assert_eq!(twin.ask(&read(), &[file.as_fd()]).map(drop), Err(Errno::EAGAIN));
    let patiently = since.elapsed();
    assert!(patiently < Duration::from_secs(5), "{patiently:?}");
    let root = twin.root.try_clone().unwrap();
    twin.host.write("other", b"hello");
    let names = ["f", "other"].map(|name| FileName::new(name.as_bytes()).unwrap());
    let each = OpenEach { names: Names::try_from(names.to_vec()).unwrap() };
    let since = Instant::now();
    let (attrs, given, _) = twin.ask(&each, &[root.as_fd()]).unwrap();
    assert!(since.elapsed() < patiently, "what is opened with others is not waited for");
    let opened: Vec<_> = attrs.iter().map(Option::is_some).collect();
    assert_eq!((opened, given.len()), (vec![false, true], 1));
    drop(holder);
    twin.ask(&read(), &[file.as_fd()]).unwrap();
}

// mmap(2): "EPERM  The prot argument asks for PROT_EXEC but the mapped area belongs to a file on a filesystem that was
// mounted no-exec": ld.so(8) maps what execve(2) would
#[apply(promise)]
fn a_donated_program_is_not_mapped_to_be_executed(on: Kind) {
    let loaders = ["/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1", "/lib/ld-linux-riscv64-lp64d.so.1"];
    let loader = loaders.into_iter().find(|path| Path::new(path).exists()).unwrap();
    let mut twin = Twin::new(on);
    twin.host.write("f", &std::fs::read("/bin/true").unwrap());
    let file = twin.pin("f");
    let (_, given, _) = twin.ask(&read(), &[file.as_fd()]).unwrap();
    let runs = |path: &Path| Command::new(loader).arg(path).output().unwrap().status.success();
    let donated = format!("/proc/{}/fd/{}", std::process::id(), given[0].as_raw_fd());
    assert!(!runs(Path::new(&donated)) && runs(&twin.host.path("f")));
}

// user_namespaces(7): "a process whose effective user ID matches the owner of the namespace has all capabilities in it"
#[apply(promise)]
fn a_process_of_the_same_user_gets_no_hold_of_warden_and_helper(on: Kind) {
    let twin = Twin::new(on);
    let uid = match to_host(&on.uids(), 0).unwrap() {
        // The host's root has more than its id: there it is somebody else.
        0 => 65_534,
        uid => uid,
    };
    let mut attempts = 0;
    for pid in [twin.warden.id(), twin.helper()] {
        for words in ["--user", "--mount", "--net", "--user --mount --root"] {
            let mut command = Command::new("nsenter");
            command.args(words.split(' ')).args(["--target", &pid.to_string(), "true"]).uid(uid).gid(uid);
            assert!(!command.output().unwrap().status.success(), "{uid} {words}");
            attempts += 1;
        }
        let held = held(Command::new("perl").uid(uid).gid(uid), pid);
        assert_eq!(held, Vec::<String>::new(), "{uid} {pid}");
        attempts += WAYS;
    }
    tried("ways to get hold of a process of the same user", attempts);
}

// proc_sys_fs(5): suid_dumpable 1: "all processes dump core when possible", and are traced, whatever ids they act as.
// user_namespaces(7): who owns a namespace has all capabilities in it: an ordinary user of his helper's, root of the
// others'
#[apply(promise)]
fn a_helper_that_would_open_to_its_owners_processes_does_not_start(on: Kind) {
    mounts::alone();
    let told = |value: &str| {
        let (scratch, socket, mut warden) = twin::start_planted(on, &[], |host| {
            let says = host.path("../outside/suid_dumpable");
            std::fs::write(&says, value).unwrap();
            mounts::bind(&says, Path::new("/proc/sys/fs/suid_dumpable"));
        });
        let _ = send_hello(&socket, &Hello { version: VERSION, channels: 1, wants_map: false });
        let news = receive_news(&socket);
        let owner = twin::children(warden.id()).pop().map(owner_of_namespace);
        drop(socket);
        assert!(twin::ends(&mut warden));
        mounts::detach(Path::new("/proc/sys/fs/suid_dumpable"));
        (news, owner, scratch.log())
    };
    let (news, owner, log) = told("1\n");
    if on.is_ordinary_user() {
        assert!(log.contains("the helper: fs.suid_dumpable is 1; sysctl fs.suid_dumpable=0"), "{news:?} {log}");
        assert_eq!((log.lines().count(), owner), (1, None), "{log}");
    } else {
        assert!(matches!(news, Ok(News::Welcome(_))), "{news:?} {log}");
        assert_eq!(owner, Some(0));
    }
    for value in ["0\n", "2\n"] {
        let (news, _, log) = told(value);
        assert!(matches!(news, Ok(News::Welcome(_))), "{value}: {news:?} {log}");
    }
}

/// How many ways [`held`] tries.
const WAYS: usize = 10;

/// What perl(1), as it is to be started, gets of a process: its memory, where things lie in it, its environment, links
/// to what it has, its list of that, itself by ptrace(2), a descriptor of its by pidfd_getfd(2), its namespace by
/// setns(2).
fn held(perl: &mut Command, pid: u32) -> Vec<String> {
    let program = r#"
        my ($pid) = @ARGV;
        my $pidfd = syscall(434, $pid + 0, 0);
        $pidfd >= 0 or die;
        my %ways = (
            "memory to read" => sub { open(my $f, "<", "/proc/$pid/mem") },
            "memory to write" => sub { open(my $f, "+<", "/proc/$pid/mem") },
            "maps" => sub { open(my $f, "<", "/proc/$pid/maps") },
            "environment" => sub { open(my $f, "<", "/proc/$pid/environ") },
            "program" => sub { readlink("/proc/$pid/exe") },
            "link of a descriptor" => sub { readlink("/proc/$pid/fd/0") },
            "list of descriptors" => sub { opendir(my $d, "/proc/$pid/fd") },
            "trace" => sub { syscall(101, 0x4206, $pid + 0, 0, 0) == 0 },
            "descriptor" => sub { syscall(438, $pidfd, 0, 0) >= 0 },
            "namespace" => sub { syscall(308, $pidfd, 0x10000000) == 0 },
        );
        for (sort keys %ways) { print "$_\n" if $ways{$_}->() }"#;
    let output = perl.args(["-e", program, &pid.to_string()]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

// user_namespaces(7): a capability counts in one's own namespace and in those below it, not in one beside it
#[apply(promise)]
fn root_of_the_servers_namespace_gets_no_hold_of_warden_and_helper(on: Kind) {
    stands_beside(on);
}

#[test]
fn a_server_with_the_helpers_own_id_gets_no_hold_of_it() {
    stands_beside(Kind::MappedXattr);
}

/// Whoever is in the server's user namespace, has all capabilities there and none of the server's other walls, tries.
fn stands_beside(on: Kind) {
    let share = on.serve();
    share.getattr("").unwrap();
    let [server, warden, helper] = Processes::standalone(on, share.server.child.id()).pids;
    let namespace = format!("--user=/proc/{server}/ns/user");
    // Where it maps the host's root: it is his directory, and has only numbers in it.
    let roots = matches!(on, Kind::Root | Kind::Host | Kind::Soft);
    let expected = if roots { &["list of descriptors"][..] } else { &[] };
    for pid in [warden, helper] {
        let there = held(Command::new("nsenter").args([&namespace, "perl"]), pid);
        assert_eq!(there, expected, "{pid}");
        assert!(held(&mut Command::new("perl"), pid).len() > WAYS / 2, "root of the host gets nothing either");
    }
    tried("ways from a namespace beside it", 2 * WAYS);
}
