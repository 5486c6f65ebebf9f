//! What server, warden and helper are, as the kernel sees it in /proc, beside what they are promised to be.
//!
//! [`STATUS`] and the tables below it are the promise, a row for each property and a column for each process.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::kind::{Kind, to_host};
use crate::twin::children;

/// The processes of a share that is served.
#[derive(Clone, Copy, Debug)]
pub struct Processes {
    /// Its kind.
    pub kind: Kind,
    /// Whether somebody else has started both programs.
    pub managed: bool,
    /// server, warden, helper
    pub pids: [u32; 3],
}

/// What a line of /proc/PID/status says.
#[derive(Clone, Copy, Debug)]
pub enum Says {
    /// This.
    Text(&'static str),
    /// An id that is neither the host's root nor guest root, four times.
    Own,
    /// The host's id of guest root, four times.
    Root,
    /// No group; of a process whose ids the share does not map, what it was started with.
    NoGroup,
    /// No group, where the ids are mapped; the host's root keeps its own.
    RootsGroups,
    /// The capabilities that the share's operations need.
    Needed,
    /// The same; of a thread that serves without a user namespace what changes its ids, until it needs others.
    Now,
}

use Says::{Needed, NoGroup, Now, Own, Root, RootsGroups, Text};

const NONE: Says = Text("0000000000000000");

/// proc(5): /proc/PID/status, of each thread.
pub const STATUS: &[(&str, [Says; 3])] = &[
    // server, warden, helper
    ("Uid", [Own, Root, Root]),
    ("Gid", [Own, Root, Root]),
    ("Groups", [NoGroup, RootsGroups, RootsGroups]),
    ("CapInh", [NONE, NONE, NONE]),
    ("CapPrm", [NONE, Needed, Needed]),
    ("CapEff", [NONE, Needed, Now]),
    ("CapBnd", [NONE, Needed, Needed]),
    ("CapAmb", [NONE, NONE, NONE]),
    ("NoNewPrivs", [Text("1"), Text("1"), Text("1")]),
    ("Seccomp", [Text("2"), Text("2"), Text("2")]),
    // One list; clone3(2) absent besides; the warden's are the helper's too.
    ("Seccomp_filters", [Text("1"), Text("2"), Text("3")]),
];

/// Whose a namespace is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The server's alone.
    Servers,
    /// The helper's side's alone.
    Helpers,
    /// The helper's side's alone, but the host's with `--identity=host` and `soft`.
    HelpersUnlessItStays,
    /// The server's alone; the host's where the server has got no ids.
    ServersIfMapped,
    /// The host's.
    Hosts,
}

use Whose::{Helpers, HelpersUnlessItStays, Hosts, Servers, ServersIfMapped};

/// namespaces(7): /proc/PID/ns
pub const NAMESPACES: &[(&str, [Whose; 3])] = &[
    // server, warden, helper
    ("user", [Servers, HelpersUnlessItStays, HelpersUnlessItStays]),
    ("mnt", [Servers, Helpers, Helpers]),
    ("net", [ServersIfMapped, Helpers, Helpers]),
    ("ipc", [ServersIfMapped, Helpers, Helpers]),
    ("uts", [ServersIfMapped, Helpers, Helpers]),
    ("pid", [Hosts, Hosts, Hosts]),
    ("cgroup", [Hosts, Hosts, Hosts]),
    ("time", [Hosts, Hosts, Hosts]),
];

/// What a descriptor leads to, by what /proc/PID/fd shows of it, and which processes may have such.
pub const DESCRIPTORS: &[(&str, [bool; 3])] = &[
    // server, warden, helper
    ("/dev/null", [true, false, false]),
    // Channels; the end of a pipe that has no other, in its place; the helper's log.
    ("pipe:", [true, true, true]),
    // The log; a helper's is a pipe to its warden.
    ("LOG", [true, true, false]),
    // Descriptors of channels, the other side, VMMs.
    ("socket:", [true, true, true]),
    // Of the share's mount, which is in no namespace: its root begins there.
    ("/", [true, true, true]),
    // /proc/self/fd, which leads to the helper's own descriptors only.
    ("/PID/fd", [false, false, true]),
    // Rings and memory of the guest.
    ("anon_inode:[eventpoll]", [true, false, false]),
    ("anon_inode:[eventfd]", [true, false, false]),
    ("/memfd:", [true, false, false]),
    // What the warden waits for.
    ("anon_inode:[signalfd]", [false, true, false]),
    ("anon_inode:[pidfd]", [false, true, false]),
    ("pidfd:", [false, true, false]),
    // Where the kernel says for which call it has killed a process.
    ("/dev/kmsg", [false, true, false]),
];

const NAMES: [&str; 3] = ["server", "warden", "helper"];

impl Processes {
    /// Those of a share whose server has started the helper's side.
    pub fn standalone(kind: Kind, server: u32) -> Self {
        Self::of(kind, false, server, children(server).pop().expect("a warden"))
    }

    /// Those of a share where somebody has started both.
    pub fn managed(kind: Kind, server: u32, warden: u32) -> Self {
        Self::of(kind, true, server, warden)
    }

    fn of(kind: Kind, managed: bool, server: u32, warden: u32) -> Self {
        Self { kind, managed, pids: [server, warden, children(warden).pop().expect("a helper")] }
    }

    /// Checks all that is promised.
    ///
    /// # Panics
    /// If something is otherwise.
    pub fn assert_promised(&self) {
        self.assert_status();
        self.assert_namespaces();
        self.assert_maps();
        self.assert_roots();
        self.assert_descriptors();
    }

    /// The server has ids of the share's. One that root's helper meets by chance gets none that are users'.
    fn is_mapped(&self) -> bool {
        !self.managed || self.kind.has_ids_for_all()
    }

    fn assert_status(&self) {
        for (column, pid) in self.pids.into_iter().enumerate() {
            for thread in threads(pid) {
                for (name, promised) in STATUS {
                    let text = thread[*name].as_str();
                    let kept = self.says(promised[column], name, text);
                    assert!(
                        kept,
                        "{} {}: {name} {text:?} is not {:?}",
                        NAMES[column], thread["Name"], promised[column]
                    );
                }
            }
        }
    }

    fn says(&self, promised: Says, name: &str, text: &str) -> bool {
        let root = |map: &[_]| to_host(map, 0).expect("guest root is mapped").to_string();
        let root = if name == "Gid" { root(&self.kind.gids()) } else { root(&self.kind.uids()) };
        let four = |is: &dyn Fn(&str) -> bool| text.split_whitespace().count() == 4 && text.split_whitespace().all(is);
        match promised {
            Text(said) => text == said,
            Own if self.is_mapped() => four(&|id| id != "0" && id != root),
            Own => four(&|id| id != "0"),
            Root => four(&|id| id == root),
            NoGroup if self.is_mapped() => text.is_empty(),
            RootsGroups if self.kind.in_user_namespace() => text.is_empty(),
            NoGroup | RootsGroups => true,
            Needed => u64::from_str_radix(text, 16) == Ok(self.needed()),
            Now => {
                let is = u64::from_str_radix(text, 16);
                is == Ok(self.needed()) || self.kind == Kind::Soft && is == Ok(capabilities(&[6, 7]))
            }
        }
    }

    /// capabilities(7): CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, SETFCAP; MKNOD where the guest may make
    /// devices: as the host's root, in a directory that no other user reaches, as a managed test's is not. Without a
    /// user namespace no FOWNER and no FSETID.
    fn needed(&self) -> u64 {
        if self.kind == Kind::Soft {
            return capabilities(&[0, 1, 6, 7, 31]);
        }
        let always = capabilities(&[0, 1, 3, 4, 6, 7, 31]);
        if self.kind.in_user_namespace() || self.managed { always } else { always | 1 << 27 }
    }

    fn assert_namespaces(&self) {
        let own = std::process::id();
        for (name, promised) in NAMESPACES {
            let [server, warden, helper] = self.pids.map(|pid| namespace(pid, name));
            assert_eq!(warden, helper, "{name}");
            for (column, (seen, other)) in
                [(&server, &warden), (&warden, &server), (&helper, &server)].into_iter().enumerate()
            {
                let hosts = match promised[column] {
                    Hosts => true,
                    HelpersUnlessItStays => self.kind.stays(),
                    ServersIfMapped => !self.is_mapped(),
                    Servers | Helpers => false,
                };
                assert_eq!(*seen == namespace(own, name), hosts, "{name} of {}", NAMES[column]);
                assert!(hosts || seen != other, "{name} is shared");
            }
        }
    }

    /// user_namespaces(7): both sides have the share's ids and no others, but for the server's own. Where the helper
    /// stays in the initial one, both have all.
    fn assert_maps(&self) {
        let all = || Kind::Host.uids();
        let [uids, gids] = if self.kind.stays() { [all(), all()] } else { [self.kind.uids(), self.kind.gids()] };
        for (file, ranges) in [("uid_map", uids), ("gid_map", gids)] {
            let promised: Vec<[u32; 3]> = ranges.iter().map(|range| [range.guest, range.host, range.count]).collect();
            let [server, warden, helper] = self.pids.map(|pid| map(pid, file));
            assert_eq!((&warden, &helper), (&promised, &promised), "{file}");
            let (shares, own): (Vec<_>, Vec<_>) = server.into_iter().partition(|extent| promised.contains(extent));
            assert_eq!(shares, if self.is_mapped() { promised } else { vec![] }, "{file} of the server");
            assert!(own.iter().all(|&[_, host, count]| (host != 0, count) == (true, 1)) && own.len() <= 1, "{own:?}");
        }
    }

    /// pivot_root(2): an empty directory on a mount that is the only one; without ids of its own a server stays where
    /// it was, with no call that takes a name.
    fn assert_roots(&self) {
        for (column, pid) in self.pids.into_iter().enumerate() {
            if column == 0 && !self.is_mapped() {
                continue;
            }
            let names = fs::read_dir(format!("/proc/{pid}/root/")).expect("root").count();
            let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("root");
            assert!(names == 0 && mounts.lines().count() <= 1, "{}: {names} names, {mounts}", NAMES[column]);
        }
    }

    fn assert_descriptors(&self) {
        for (column, pid) in self.pids.into_iter().enumerate() {
            for (number, target) in descriptors(pid) {
                let shown = target.display().to_string().replace(&format!("/{pid}/"), "/PID/");
                let log = [(2, 0), (1, 0), (2, 1)].contains(&(number, column));
                let shown = if log { "LOG".into() } else { shown };
                let allowed = |(name, may): &(&str, [bool; 3])| {
                    may[column] && (shown == *name || name.ends_with(':') && shown.starts_with(name))
                };
                assert!(DESCRIPTORS.iter().any(allowed), "{} has {number}: {shown}", NAMES[column]);
            }
        }
    }
}

fn capabilities(numbers: &[u64]) -> u64 {
    numbers.iter().map(|number| 1 << number).sum()
}

/// `/proc/PID/status` of every thread.
pub fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("alive");
    let parse = |status: String| {
        let pairs = status.lines().filter_map(|line| line.split_once(':'));
        pairs.map(|(key, value)| (key.into(), value.trim().into())).collect()
    };
    tasks.map(|task| parse(fs::read_to_string(task.expect("alive").path().join("status")).expect("alive"))).collect()
}

/// Which namespace of a kind a process is in.
pub fn namespace(pid: u32, kind: &str) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("root")
}

/// What a process's descriptors lead to.
pub fn descriptors(pid: u32) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("root").map(|entry| entry.expect("alive"));
    let number = |name: &std::ffi::OsStr| name.to_str().and_then(|name| name.parse().ok()).expect("a number");
    entries.filter_map(|entry| Some((number(&entry.file_name()), fs::read_link(entry.path()).ok()?))).collect()
}

fn map(pid: u32, file: &str) -> Vec<[u32; 3]> {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).expect("alive");
    let numbers = |line: &str| line.split_whitespace().map(|word| word.parse().expect("a number")).collect::<Vec<_>>();
    text.lines().map(|line| numbers(line).try_into().expect("three numbers")).collect()
}

/// The user who owns a process's user namespace. ioctl_nsfs(2): NS_GET_OWNER_UID
///
/// # Panics
/// When it is gone.
pub fn owner_of_namespace(pid: u32) -> u32 {
    let program =
        r#"open(F, "<", $ARGV[0]) or die; ioctl(F, 0xb704, $uid = pack("L", 77)) or die; print unpack("L", $uid)"#;
    let output = std::process::Command::new("perl")
        .args(["-e", program, &format!("/proc/{pid}/ns/user")])
        .output()
        .expect("a process");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("a process").parse().expect("a process")
}
