//! What a hostile user does who can start a helper that root has lent capabilities. postern-helper(8): --by-policy

use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::{Gid, Uid};
use postern_ipc::attr::Mode;
use postern_ipc::hello::{Hello, News, VERSION, receive_news, send_hello};
use postern_ipc::name::FileName;
use postern_ipc::op::Mkdir;
use postern_tests::kind::bin_dir;
use postern_tests::mounts;
use postern_tests::prelude::*;
use postern_tests::processes::{descriptors, owner_of_namespace, threads};
use postern_tests::share::Scratch;
use postern_tests::systemd::{ask, host_with};
use postern_tests::twin::{Twin, children, ends};
use rustix::fs::{Mode as Bits, OFlags, XattrFlags, open, setxattr};

/// DAC_READ_SEARCH, SETGID, SETUID, SYS_ADMIN, SETFCAP: numbers of linux/capability.h.
const LENT: [u32; 5] = [2, 6, 7, 21, 31];

/// The user, who has no right that others have not.
fn ann() -> (Uid, Gid) {
    Kind::User.starter()
}

/// A host whose helper has capabilities of its file's, and a system log.
struct Lender {
    scratch: Scratch,
    log: UnixDatagram,
}

impl Lender {
    fn new(policy: Option<&str>) -> Self {
        host_with(policy);
        let scratch = Scratch::new(Kind::User, true);
        let devices = scratch.path("dev");
        fs::create_dir(&devices).unwrap();
        mounts::devices(&devices);
        mounts::detach(&devices);
        let log = UnixDatagram::bind("/dev/log").unwrap();
        log.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let lender = Self { scratch, log };
        fs::copy(bin_dir().join("postern-helper"), lender.helper()).unwrap();
        chown(lender.helper(), Some(0), Some(0)).unwrap();
        lender.lend(&LENT);
        lender
    }

    fn helper(&self) -> PathBuf {
        self.scratch.path("helper")
    }

    /// setcap(8): `=p`. linux/capability.h: struct vfs_cap_data, revision 2
    fn lend(&self, numbers: &[u32]) {
        let permitted: u32 = numbers.iter().map(|number| 1 << number).sum();
        let value: Vec<u8> =
            [0x0200_0000, permitted, 0, 0, 0].iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
        let name = CString::new("security.capability").unwrap();
        setxattr(self.helper(), name.as_c_str(), &value, XattrFlags::empty()).unwrap();
    }

    /// The server's socket, and what ann starts by "$@" in this script of root's. What she has is nothing after env(1).
    fn start(&self, script: &str) -> (UnixStream, Child) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (uid, gid) = ann();
        let mut command = Command::new("bash");
        command.args(["--norc", "-c", &format!("exec 3<&0 </dev/null; {script}"), "bash"]);
        command.args(["setpriv", &format!("--reuid={uid}"), &format!("--regid={gid}"), "--clear-groups", "env"]);
        command.arg(self.helper()).args(["--by-policy", "--sock-fd", "3"]);
        let log = File::create(self.scratch.path("log")).unwrap();
        let child = command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        (ours, child)
    }

    /// Why a directory is not given.
    fn refusal(&self, script: &str, dir: &Path) -> String {
        let (socket, mut child) = self.start(script);
        ask(&socket, path_of(dir));
        let _ = send_hello(&socket, &Hello { version: VERSION, channels: 1, wants_map: false });
        let news = receive_news(&socket);
        assert!(ends(&mut child), "{script}: it goes on: {}", self.scratch.log());
        assert_eq!(child.wait().unwrap().code(), Some(1), "{news:?}");
        match news {
            Ok(News::Refused(why)) => {
                assert!(self.logged(&why), "{why:?} is not logged");
                why
            }
            _ => self.scratch.log(),
        }
    }

    /// Whether there is a line in the system's log.
    fn logged(&self, what: &str) -> bool {
        let mut text = [0; 4096];
        std::iter::from_fn(|| {
            self.log.recv(&mut text).ok().map(|length| String::from_utf8_lossy(&text[..length]).into_owned())
        })
        .any(|line| line.contains(what))
    }

    /// The share is given.
    fn given(self, script: &str) -> Twin {
        let (socket, child) = self.start(script);
        ask(&socket, path_of(&self.scratch.path("share")));
        Twin::greet(Kind::User, self.scratch, socket, child)
    }
}

fn path_of(path: &Path) -> OwnedFd {
    open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Bits::empty()).unwrap()
}

fn mkdir(twin: &mut Twin) {
    let root = twin.root.try_clone().unwrap();
    let name = FileName::new(b"made").unwrap();
    twin.ask(&Mkdir { name, mode: Mode::new(0o755), umask: Mode::new(0) }, &[root.as_fd()]).unwrap();
}

const PLAIN: &str = r#"exec "$@""#;

// postern-policy(5): "guest root is the caller and the other ids are his subordinate ones": whoever is at the other end
#[test]
fn who_starts_it_is_given_what_is_his() {
    let lender = Lender::new(None);
    assert!(!Path::new("/run/postern/shares").exists());
    let log = lender.log.try_clone().unwrap();
    let mut twin = lender.given(PLAIN);
    let (uid, gid) = (ann().0.as_raw(), ann().1.as_raw());
    let mut text = [0; 4096];
    let length = log.recv(&mut text).unwrap();
    let told = String::from_utf8_lossy(&text[..length]);
    assert!(told.contains(&format!("uid {uid} gid {gid} is given \"")) && told.ends_with("by default"), "{told}");
    mkdir(&mut twin);
    assert_eq!(twin.host.stat("made").owner, ids(0, 0));
    assert_eq!(owner_of_namespace(twin.helper()), 0, "all power in it would be his");
    for (file, own) in [("uid_map", uid), ("gid_map", gid)] {
        let map = fs::read_to_string(format!("/proc/{}/{file}", twin.warden.id())).unwrap();
        let first: Vec<u32> = map.lines().next().unwrap().split_whitespace().map(|n| n.parse().unwrap()).collect();
        assert_eq!((first, map.lines().count()), (vec![0, own, 1], 2), "{map}");
    }
    for status in [twin.warden.id(), twin.helper()].into_iter().flat_map(threads) {
        for (name, id) in [("Uid", uid), ("Gid", gid)] {
            assert!(status[name].split_whitespace().all(|own| own == id.to_string()), "{status:?}");
        }
        let words = ["Groups", "NoNewPrivs", "Seccomp", "CapInh", "CapAmb"].map(|name| status[name].as_str());
        assert_eq!(words, ["", "1", "2", "0000000000000000", "0000000000000000"]);
        let bounding = u64::from_str_radix(&status["CapBnd"], 16).unwrap();
        assert_eq!(bounding & (1 << 21 | 1 << 27 | 1 << 24), 0, "{status:?}");
    }
    twin.assert_contained();
}

// postern-server(1): --by-policy
#[test]
fn a_server_of_an_ordinary_user_starts_it() {
    let lender = Lender::new(None);
    let helper = lender.helper();
    let share = Kind::User.setup().arg("--by-policy").arg(&format!("--helper={}", helper.display())).serve();
    share.put("f", b"hello").unwrap();
    share.chown("f", Some(1000), Some(1000)).unwrap();
    assert_eq!((share.host.read("f"), share.host.stat("f").owner), (b"hello".to_vec(), ids(1000, 1000)));
    assert_eq!(share.as_ids(4_000_000, 0).mkdir("d", 0o755).map(drop), Err(EOVERFLOW));
    let readonly = Kind::User.setup().readonly().arg("--by-policy").arg(&format!("--helper={}", helper.display()));
    assert_eq!(readonly.serve().mkdir("d", 0o755).map(drop), Err(EROFS));
}

// postern-helper(8): --by-policy: "A caller may say --by-policy --sock-fd N, in this order, and nothing else"
#[test]
fn nothing_else_may_be_said() {
    let lender = Lender::new(None);
    let (uid, gid) = ann();
    let share = format!("--shared-dir={}", lender.scratch.path("share").display());
    for words in [
        &[][..],
        &["--by-policy"],
        &["--by-policy", "--sock-fd=3"],
        &["--sock-fd", "3", "--by-policy"],
        &["--by-policy", "--sock-fd", "x"],
        &["--by-policy", "--sock-fd", "3", "--seccomp=none"],
        &["--by-policy", "--sock-fd", "3", "--log-level=off"],
        &["--by-policy", "--sock-fd", "3", "--no-landlock", "--no-empty-root"],
        &["--by-policy", "--sock-fd", "3", "--mknod=fifo"],
        &["--by-policy", "--syslog", "--sock-fd", "3"],
        &["--sock-fd", "3", share.as_str()],
        &["--sock-fd", "3", share.as_str(), "--identity=host"],
        &["--help"],
        &["--version"],
    ] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec 3<&0 </dev/null; exec "$@""#, "sh"]).arg(lender.helper()).args(words);
        command.env("LISTEN_FDS", "1").stdin(OwnedFd::from(theirs)).uid(uid.as_raw()).gid(gid.as_raw());
        let output = command.output().unwrap();
        drop(command);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{words:?}: {told}");
        assert!(told.contains("it has more privileges than who starts it; he may say"), "{told}");
        assert_eq!(((&ours).read(&mut [0]).unwrap(), output.stdout.len()), (0, 0), "{words:?}");
    }
}

// execve(2): "file descriptors ... signals set to be ignored ... interval timers ... nice value ... resource limits"
// are kept; here none is
#[test]
fn nothing_is_kept_of_how_it_was_started() {
    const HOSTILE: &str = r#"export LD_PRELOAD=/no/such.so LISTEN_PID=$$ LISTEN_FDS=1 GLIBC_TUNABLES=glibc.malloc.check=3
        umask 0; ulimit -S -t 1 -f 1 -d 100000 -s 256; trap '' TERM INT HUP CHLD USR1 RTMIN+3; cd outside
        exec chrt --reset-on-fork -r 10 perl -e '
            use POSIX; POSIX::sigprocmask(SIG_BLOCK, POSIX::SigSet->new(SIGTERM, SIGALRM, SIGCHLD));
            POSIX::nice(-5); alarm 1; exec @ARGV' "$@" 7</etc/passwd 8</ 100<&2"#;
    let lender = Lender::new(None);
    let script = HOSTILE.replace("outside", &lender.scratch.path("outside").display().to_string());
    let mut twin = lender.given(&script);
    std::thread::sleep(Duration::from_millis(1500));
    mkdir(&mut twin);
    for pid in [twin.warden.id(), twin.helper()] {
        let status = &threads(pid)[0];
        assert_eq!(
            (status["Umask"].as_str(), status["SigBlk"].as_str()),
            if pid == twin.warden.id() { ("0077", status["SigBlk"].as_str()) } else { ("0077", "0000000000000000") }
        );
        // Two more are the C library's own.
        let ignored = u64::from_str_radix(&status["SigIgn"], 16).unwrap() & !(0b11 << 31);
        assert_eq!(ignored, 1 << (libc::SIGPIPE - 1) | 1 << (libc::SIGXFSZ - 1));
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // proc(5): session, nice, rt_priority, policy, of which state is the third
        let session: u32 = fields[3].parse().unwrap();
        assert_eq!((session, fields[16], fields[37], fields[38]), (twin.warden.id(), "0", "0", "0"), "{stat}");
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        for name in ["Max cpu time", "Max file size", "Max data size", "Max stack size"] {
            let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            let words: Vec<_> = line.split_whitespace().collect();
            assert_eq!(words[0], words[1], "{name} {line}");
        }
        for (number, target) in descriptors(pid) {
            let shown = target.display().to_string();
            let hosts = ["/etc", "/dev", "/var"].iter().any(|place| shown.starts_with(place));
            assert!(!hosts && (number > 2 || shown.starts_with("pipe:")), "{number}: {shown}");
        }
    }
    assert!(!twin.scratch.log().contains("postern"), "its standard error output is the caller's");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(twin.warden.id() as i32), nix::sys::signal::Signal::SIGTERM)
        .unwrap();
    assert!(ends(&mut twin.warden), "a signal that was ignored before asks for the end");
}

// open(2): the lowest number that is free: of a program without standard descriptors the next file opened would be its
// log
#[test]
fn closed_standard_descriptors_are_nobodys_log() {
    let mut twin = Lender::new(None).given(r#"exec "$@" <&- >&- 2>&-"#);
    mkdir(&mut twin);
    let helper = children(twin.warden.id())[0];
    let standard = descriptors(helper).into_iter().filter(|(number, _)| *number <= 2);
    assert!(standard.map(|(_, target)| target.display().to_string()).all(|target| target.starts_with("pipe:")));
    twin.assert_contained();
}

// postern-helper(8): --by-policy: "limits that leave too little refuse him"
#[test]
fn limits_that_leave_too_little_are_refused() {
    let lender = Lender::new(None);
    let dir = lender.scratch.path("share");
    for (limit, what) in [
        ("-n 64", "open descriptors: it is 64, at least 512 are needed"),
        ("-v 200000", "address space"),
        ("-d 100000", "data"),
        ("-s 256", "the stack"),
        ("-t 5", "CPU time, in seconds: it is 5"),
    ] {
        let told = lender.refusal(&format!(r#"ulimit {limit}; exec "$@""#), &dir);
        assert!(told.contains("cannot serve within its caller's limit on ") && told.contains(what), "{limit}: {told}");
    }
}

// capabilities(7): "The process's no_new_privs", ptrace(2), file capabilities that are not all there
#[test]
fn who_has_not_all_that_it_takes_serves_nobody() {
    let lender = Lender::new(None);
    let dir = lender.scratch.path("share");
    let says = |script: &str, why: &str| {
        let told = lender.refusal(script, &dir);
        assert!(told.contains(why) && told.contains("setcap cap_dac_read_search"), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
    };
    says(r#"exec "${@:1:5}" setpriv --no-new-privs "${@:6}""#, "it has no more privileges than who starts it");
    for number in LENT {
        let rest: Vec<_> = LENT.into_iter().filter(|lent| *lent != number).collect();
        lender.lend(&rest);
        says(PLAIN, "its file has not lent it CAP_");
    }
    let name = CString::new("security.capability").unwrap();
    rustix::fs::removexattr(lender.helper(), name.as_c_str()).unwrap();
    says(PLAIN, "it has no more privileges than who starts it");
    for mode in [0o4755, 0o2755] {
        fs::set_permissions(lender.helper(), Permissions::from_mode(mode)).unwrap();
        says(PLAIN, "it has set-id bits");
    }
}

// postern-policy(5): the rules are root's, and count for who starts it
#[test]
fn the_rules_count_for_who_starts_it() {
    let uid = ann().0;
    let rules = format!("shares-per-user = 1\n[[rule]]\nusers = [{uid}]\nbelow = ['/etc']\nshare = 'no'\n");
    let lender = Lender::new(Some(&rules));
    assert!(lender.refusal(PLAIN, Path::new("/etc")).contains("rule 1 of /etc/postern/policy.toml says no"));
    let private = lender.scratch.path("outside");
    chown(&private, Some(0), Some(0)).unwrap();
    fs::set_permissions(&private, Permissions::from_mode(0o700)).unwrap();
    let told = lender.refusal(PLAIN, &private);
    assert!(told.contains("enter the shared directory") && told.contains("EACCES"), "{told}");
    let (socket, mut first) = lender.start(PLAIN);
    ask(&socket, path_of(&lender.scratch.path("share")));
    send_hello(&socket, &Hello { version: VERSION, channels: 1, wants_map: false }).unwrap();
    assert!(matches!(receive_news(&socket), Ok(News::Welcome(_))));
    assert!(lender.refusal(PLAIN, &lender.scratch.path("share")).contains("there are 1 already"));
    drop(socket);
    assert!(ends(&mut first));
}

// postern-helper(8): --by-policy: "without the system's log it serves nobody"
#[test]
fn who_cannot_be_told_of_is_not_served() {
    let lender = Lender::new(None);
    fs::remove_file("/dev/log").unwrap();
    let told = lender.refusal(PLAIN, &lender.scratch.path("share"));
    assert!(told.contains("cannot reach the system's log at /dev/log: ENOENT"), "{told}");
}

// postern-helper(8): --sock-fd: "a connected Unix socket"
#[test]
fn what_is_no_servers_socket_is_refused() {
    let lender = Lender::new(None);
    for (script, why) in [
        (r#"exec "$@" 3<&-"#, "EBADF"),
        (r#"exec "$@" 3</etc/passwd"#, "ENOTSOCK"),
        (r#"exec "${@:1:$#-1}" 0"#, "EINVAL"),
        (r#"exec "${@:1:$#-1}" -1"#, "EINVAL"),
        (r#"exec "${@:1:$#-1}" 2147483647"#, "EBADF"),
    ] {
        let (_socket, mut child) = lender.start(script);
        assert!(ends(&mut child));
        let told = lender.scratch.log();
        assert!(told.contains("cannot use --sock-fd ") && told.contains(why), "{script}: {told}");
        assert_eq!((child.wait().unwrap().code(), told.lines().count()), (Some(1), 1), "{told}");
    }
}
