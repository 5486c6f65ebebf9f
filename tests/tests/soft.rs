//! The map without a user namespace (`--identity=soft`): whatever is asked, the helper does what the kernel does for a
//! helper in a user namespace with the same map. user_namespaces(7), postern-helper(8)

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use nix::errno::Errno::{EACCES, EPERM};
use postern_ipc::Errno;
use postern_ipc::attr::{Changes, Mode, NodeKind, OpenFlags, RenameFlags, Time, TimeChange, XattrFlags};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::{FileName, Names, Target, XattrName};
use postern_ipc::op::{
    CopyRange, Create, Fallocate, Fsx, GetXattr, Link, Lookup, Mkdir, Mknod, Open, OpenDir, OpenEach, RemoveXattr,
    Rename, Rmdir, SetAttr, SetFlags, SetFsx, SetXattr, Symlink, TmpFile, Unlink, Write,
};
use postern_tests::host::ids;
use postern_tests::hostile::tried;
use postern_tests::named::{ACCESS, CAPABILITY, DEFAULT, acl, capability, own_capability};
use postern_tests::twin::{Twin, ends};
use postern_tests::{Host, Kind, Setup};
use rustix::fs::{CWD, RenameFlags as RawFlags};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

/// Owner and group on the host: root of the guest, a user of it, and whoever is not mapped.
const ROOT: u32 = 100_000;
const USER: u32 = 101_000;
const FOREIGN: u32 = 5;
const OWNERS: [(u32, u32); 7] = [
    (ROOT, ROOT),
    (USER, USER),
    (FOREIGN, FOREIGN),
    (USER, FOREIGN),
    (FOREIGN, USER),
    (ROOT, FOREIGN),
    (FOREIGN, ROOT),
];
const FILE_MODES: [u32; 4] = [0o000, 0o600, 0o644, 0o6755];
const DIR_MODES: [u32; 4] = [0o700, 0o755, 0o1777, 0o2777];
const CALLERS: [Caller; 4] = [
    Caller::Root,
    Caller::User { uid: GuestUid(1000), gid: GuestGid(1000), group: None },
    Caller::Alone { uid: GuestUid(0), gid: GuestGid(0) },
    Caller::Alone { uid: GuestUid(1000), gid: GuestGid(1000) },
];

type Outcome = Result<String, Errno>;

fn name(name: &str) -> FileName {
    FileName::new(name.as_bytes()).unwrap()
}

fn xattr(name: &str) -> XattrName {
    XattrName::new(name.as_bytes()).unwrap()
}

/// Asks as `caller`; what is said is told, but for times and numbers.
macro_rules! ask {
    ($twin:expr, $caller:expr, $op:expr, $at:expr) => {
        ask!($twin, $caller, $op, $at, b"")
    };
    ($twin:expr, $caller:expr, $op:expr, $at:expr, $data:expr) => {
        $twin
            .ask_as($caller, &$op, $at, $data)
            .map(|(_, given, data)| format!("{} {}", given.len(), data.escape_ascii()))
    };
}

/// What the host sees below a directory: all but times and numbers.
fn state(dir: &Path, seen: &mut String) {
    let meta = std::fs::symlink_metadata(dir).unwrap();
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(dir, &mut names[..]).unwrap_or(0);
    let values = names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(|name| {
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(dir, name, &mut value[..]).unwrap_or(0);
        format!("{}={}", name.escape_ascii(), value[..length].escape_ascii())
    });
    let values: Vec<String> = values.collect();
    let size = if meta.is_dir() { 0 } else { meta.len() };
    *seen += &format!("{:o} {} {} {size} {values:?}\n", meta.mode(), meta.uid(), meta.gid());
    if meta.is_dir() {
        for name in postern_tests::host::names(dir) {
            *seen += &name;
            *seen += " ";
            state(&dir.join(name), seen);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    File,
    Dir,
}

use What::{Dir, File};

fn plant(host: &Host, path: &str, what: What, (uid, gid): (u32, u32), mode: u32) {
    match what {
        File => host.write(path, b"hello"),
        Dir => host.mkdir(path),
    }
    host.chown_host(path, uid, gid);
    host.chmod(path, mode);
}

/// A share in each of the two forms, in which the same is done.
struct Both {
    twins: [Twin; 2],
    cases: usize,
    stricter: usize,
    different: Vec<String>,
}

/// What may be refused here, or for another reason, and not there: who moves a whiteout or replaces a file of another
/// in a sticky directory is one of several users only; a file whose group is not mapped gets another name from who may
/// write to the directory; a sticky directory's attributes are changed by who may write to it; and what is asked for is
/// looked at before its file.
const DIFFERENT: [&str; 8] = [
    "leave a whiteout",
    "rename over",
    "exchange",
    "another name",
    "capability unmapped",
    "flags of a project",
    "project",
    "user.a of a Dir",
];

impl Both {
    fn new() -> Self {
        Self { twins: [Kind::Mapped, Kind::Soft].map(Twin::new), cases: 0, stricter: 0, different: Vec::new() }
    }

    /// What comes of it in each: the answer, and what the host sees before and after in the directory `case`.
    fn outcomes(
        &mut self,
        plant: impl Fn(&Host),
        act: impl Fn(&mut Twin) -> Outcome,
    ) -> [(Outcome, String, String); 2] {
        self.cases += 1;
        self.twins.each_mut().map(|twin| {
            twin.host.mkdir("case");
            plant(&twin.host);
            let see = |twin: &Twin| {
                let mut seen = String::new();
                state(&twin.host.path("case"), &mut seen);
                seen
            };
            let before = see(twin);
            let outcome = act(twin);
            let after = see(twin);
            std::fs::remove_dir_all(twin.host.path("case")).unwrap();
            (outcome, before, after)
        })
    }

    fn same(&mut self, case: impl Fn() -> String, plant: impl Fn(&Host), act: impl Fn(&mut Twin) -> Outcome) {
        let [(kernels, before, after), (ours, _, ours_after)] = self.outcomes(plant, act);
        if (&ours, &ours_after) != (&kernels, &after) {
            let case = case();
            if ours.is_err() && ours_after == before && DIFFERENT.iter().any(|prefix| case.starts_with(prefix)) {
                return self.stricter += 1;
            }
            self.different
                .push(format!("{case}: {ours:?}, not {kernels:?}\n{before}-- kernel:\n{after}-- ours:\n{ours_after}"));
        }
    }

    /// Says how often it was tried.
    fn assert_same(self, class: &str) {
        let some = self.different.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
        assert!(self.different.is_empty(), "{} of {} differ:\n{some}", self.different.len(), self.cases);
        println!("{} refused otherwise than by the kernel", self.stricter);
        tried(class, self.cases);
    }
}

type NodeOp = (&'static str, fn(&mut Twin, Caller, &OwnedFd) -> Outcome);

fn set(changes: Changes) -> SetAttr {
    SetAttr { changes }
}

fn keep() -> Changes {
    Changes::default()
}

fn xattr_of(twin: &mut Twin, caller: Caller, node: &OwnedFd, name: &str, value: &[u8]) -> Outcome {
    let set = SetXattr { name: xattr(name), flags: XattrFlags::empty() };
    ask!(twin, caller, set, &[node.as_fd()], value)?;
    ask!(twin, caller, GetXattr { name: xattr(name), size: 100 }, &[node.as_fd()])
}

/// All that can be asked of one node.
const ON_NODES: &[NodeOp] = &[
    ("chmod 640", |t, c, n| ask!(t, c, set(Changes { mode: Some(Mode::new(0o640)), ..keep() }), &[n.as_fd()])),
    ("chmod 6755", |t, c, n| ask!(t, c, set(Changes { mode: Some(Mode::new(0o6755)), ..keep() }), &[n.as_fd()])),
    ("chown 0", |t, c, n| ask!(t, c, set(Changes { uid: Some(GuestUid(0)), ..keep() }), &[n.as_fd()])),
    ("chown 1000", |t, c, n| ask!(t, c, set(Changes { uid: Some(GuestUid(1000)), ..keep() }), &[n.as_fd()])),
    ("chgrp 1000", |t, c, n| ask!(t, c, set(Changes { gid: Some(GuestGid(1000)), ..keep() }), &[n.as_fd()])),
    ("chgrp 7", |t, c, n| ask!(t, c, set(Changes { gid: Some(GuestGid(7)), ..keep() }), &[n.as_fd()])),
    ("chown 7:7", |t, c, n| {
        ask!(t, c, set(Changes { uid: Some(GuestUid(7)), gid: Some(GuestGid(7)), ..keep() }), &[n.as_fd()])
    }),
    ("chown unmapped", |t, c, n| ask!(t, c, set(Changes { uid: Some(GuestUid(65_536)), ..keep() }), &[n.as_fd()])),
    ("chgrp unmapped", |t, c, n| ask!(t, c, set(Changes { gid: Some(GuestGid(70_000)), ..keep() }), &[n.as_fd()])),
    ("chown -1", |t, c, n| ask!(t, c, set(Changes { uid: Some(GuestUid(u32::MAX)), ..keep() }), &[n.as_fd()])),
    ("touch", |t, c, n| {
        ask!(t, c, set(Changes { atime: TimeChange::Now, mtime: TimeChange::Now, ..keep() }), &[n.as_fd()])
    }),
    ("touch at", |t, c, n| {
        ask!(t, c, set(Changes { mtime: TimeChange::At(Time { sec: 7, nsec: 0 }), ..keep() }), &[n.as_fd()])
    }),
    ("truncate", |t, c, n| ask!(t, c, set(Changes { size: Some(2), ..keep() }), &[n.as_fd()])),
    ("truncate and kill", |t, c, n| {
        ask!(t, c, set(Changes { size: Some(2), kill_setid: true, ..keep() }), &[n.as_fd()])
    }),
    ("read", |t, c, n| ask!(t, c, Open { flags: OpenFlags::READ }, &[n.as_fd()])),
    ("read with others", |t, c, _| {
        let names = Names::try_from(vec![name("n"), name("none")]).unwrap();
        ask!(t, c, OpenEach { names }, &[t.pin("case").as_fd()])
    }),
    ("read quietly", |t, c, n| ask!(t, c, Open { flags: OpenFlags::READ | OpenFlags::NOATIME }, &[n.as_fd()])),
    ("open to write", |t, c, n| ask!(t, c, Open { flags: OpenFlags::WRITE | OpenFlags::TRUNC }, &[n.as_fd()])),
    ("write", |t, c, n| ask!(t, c, Write { offset: 0 }, &[n.as_fd()], b"J")),
    ("fallocate", |t, c, n| ask!(t, c, Fallocate { mode: 0, offset: 0, length: 100 }, &[n.as_fd()])),
    ("copy", |t, c, n| ask!(t, c, CopyRange { from_offset: 0, to_offset: 3, length: 2 }, &[n.as_fd(), n.as_fd()])),
    ("list", |t, c, n| ask!(t, c, OpenDir {}, &[n.as_fd()])),
    ("user.a", |t, c, n| xattr_of(t, c, n, "user.a", b"x")),
    ("trusted.a", |t, c, n| xattr_of(t, c, n, "trusted.a", b"x")),
    ("security.a", |t, c, n| xattr_of(t, c, n, "security.a", b"x")),
    ("acl", |t, c, n| xattr_of(t, c, n, ACCESS, &acl(1000, 7))),
    ("acl without sgid", |t, c, n| {
        let set = SetXattr { name: xattr(ACCESS), flags: XattrFlags::KILL_SGID };
        ask!(t, c, set, &[n.as_fd()], &acl(1000, 7))
    }),
    ("acl unmapped user", |t, c, n| xattr_of(t, c, n, ACCESS, &acl(70_000, 7))),
    ("acl unmapped group", |t, c, n| xattr_of(t, c, n, ACCESS, &acl(7, 70_000))),
    ("acl nobody", |t, c, n| xattr_of(t, c, n, ACCESS, &acl(u32::MAX, 7))),
    ("default acl", |t, c, n| xattr_of(t, c, n, DEFAULT, &acl(0, 0))),
    ("capability", |t, c, n| xattr_of(t, c, n, CAPABILITY, &own_capability())),
    ("capability of root", |t, c, n| xattr_of(t, c, n, CAPABILITY, &capability(0))),
    ("capability of a user", |t, c, n| xattr_of(t, c, n, CAPABILITY, &capability(1000))),
    ("capability unmapped", |t, c, n| xattr_of(t, c, n, CAPABILITY, &capability(70_000))),
    ("capability of one byte", |t, c, n| xattr_of(t, c, n, CAPABILITY, b"x")),
    ("capability by turns", |t, c, n| {
        let size = ask!(t, c, GetXattr { name: xattr(CAPABILITY), size: 0 }, &[n.as_fd()]);
        let small = ask!(t, c, GetXattr { name: xattr(CAPABILITY), size: 5 }, &[n.as_fd()]);
        let removed = ask!(t, c, RemoveXattr { name: xattr(CAPABILITY) }, &[n.as_fd()]);
        Ok(format!("{size:?} {small:?} {removed:?}"))
    }),
    ("flags", |t, c, n| ask!(t, c, SetFlags { flags: 0x8_0040 }, &[n.as_fd()])),
    ("flags of a project", |t, c, n| ask!(t, c, SetFlags { flags: 0x2008_0000 }, &[n.as_fd()])),
    ("immutable", |t, c, n| ask!(t, c, SetFlags { flags: 0x8_0010 }, &[n.as_fd()])),
    ("project", |t, c, n| ask!(t, c, SetFsx { fsx: Fsx { projid: 7, ..Fsx::default() } }, &[n.as_fd()])),
    ("another name", |t, c, n| {
        let case = t.pin("case");
        ask!(t, c, Link { name: name("other") }, &[n.as_fd(), case.as_fd()])
    }),
];

// postern-helper(8): --identity=soft: "as in a user namespace"
#[test]
fn what_is_done_to_a_node_is_what_the_kernel_does_in_a_user_namespace() {
    let mut both = Both::new();
    let files = FILE_MODES.map(|mode| (File, mode));
    for (what, mode) in files.into_iter().chain(DIR_MODES.map(|mode| (Dir, mode))) {
        for owner in OWNERS {
            for caller in [CALLERS[0], CALLERS[2], CALLERS[3]] {
                for (op, act) in ON_NODES {
                    both.same(
                        || format!("{op} of a {what:?} of {owner:?} with mode {mode:o} as {caller}"),
                        |host| plant(host, "case/n", what, owner, mode),
                        |twin| {
                            let node = twin.pin("case/n");
                            act(twin, caller, &node)
                        },
                    );
                }
            }
        }
    }
    both.assert_same("what is done to nodes");
}

// user_namespaces(7): what is there is shown by the guest's numbers or as nobody's
#[test]
fn attributes_are_shown_as_in_a_user_namespace() {
    let mut both = Both::new();
    let ids = [0, 5, ROOT, USER, ROOT + 65_535, ROOT + 65_536];
    for id in ids {
        for (attribute, value) in [(ACCESS, acl(id, USER)), (ACCESS, acl(ROOT, id)), (CAPABILITY, capability(id))] {
            both.same(
                || format!("{attribute} of {id}"),
                |host| {
                    plant(host, "case/n", File, (ROOT, ROOT), 0o644);
                    host.setxattr("case/n", attribute, &value);
                },
                |twin| {
                    let node = twin.pin("case/n");
                    let size = ask!(twin, Caller::Root, GetXattr { name: xattr(attribute), size: 0 }, &[node.as_fd()]);
                    let got = ask!(twin, Caller::Root, GetXattr { name: xattr(attribute), size: 100 }, &[node.as_fd()]);
                    Ok(format!("{size:?} {got:?}"))
                },
            );
        }
    }
    both.same(
        || "capabilities of the host's".into(),
        |host| {
            plant(host, "case/n", File, (ROOT, ROOT), 0o644);
            host.setxattr("case/n", CAPABILITY, &own_capability());
        },
        |twin| {
            let node = twin.pin("case/n");
            ask!(twin, Caller::Root, GetXattr { name: xattr(CAPABILITY), size: 100 }, &[node.as_fd()])
        },
    );
    both.assert_same("attributes shown");
}

type DirOp = (&'static str, fn(&mut Twin, Caller, &OwnedFd) -> Outcome);

fn rename(twin: &mut Twin, caller: Caller, dirs: [&OwnedFd; 2], names: [&str; 2], flags: RenameFlags) -> Outcome {
    let [old, new] = names.map(name);
    let rename = Rename { name: old, new_name: new, flags };
    ask!(twin, caller, rename, &[dirs[0].as_fd(), dirs[1].as_fd()])
}

/// All that can be asked of a directory in which there is `n`.
const IN_DIRS: &[DirOp] = &[
    ("look up", |t, c, d| ask!(t, c, Lookup { name: name("n") }, &[d.as_fd()])),
    ("unlink", |t, c, d| ask!(t, c, Unlink { name: name("n") }, &[d.as_fd()])),
    ("rmdir", |t, c, d| ask!(t, c, Rmdir { name: name("n") }, &[d.as_fd()])),
    ("rename", |t, c, d| rename(t, c, [d, d], ["n", "m"], RenameFlags::empty())),
    ("rename over", |t, c, d| rename(t, c, [d, d], ["mine", "n"], RenameFlags::empty())),
    ("exchange", |t, c, d| rename(t, c, [d, d], ["mine", "n"], RenameFlags::EXCHANGE)),
    ("leave a whiteout", |t, c, d| rename(t, c, [d, d], ["n", "m"], RenameFlags::WHITEOUT)),
    ("open what is there", |t, c, d| {
        let flags = OpenFlags::READ | OpenFlags::WRITE;
        ask!(t, c, Create { name: name("n"), mode: Mode::new(0o644), umask: Mode::new(0), flags }, &[d.as_fd()])
    }),
];

// unlink(2): "EPERM or EACCES  The directory containing pathname has the sticky bit (S_ISVTX) set and the process's
// effective UID is neither the UID of the file to be deleted nor that of the directory containing it"
#[test]
fn names_are_removed_and_moved_as_in_a_user_namespace() {
    let mut both = Both::new();
    for mode in [0o755, 0o777, 0o1777] {
        for dir in OWNERS {
            for (what, child) in [File, Dir].into_iter().flat_map(|what| OWNERS.map(|owner| (what, owner))) {
                for caller in [CALLERS[0], CALLERS[3]] {
                    for (op, act) in IN_DIRS {
                        both.same(
                            || format!("{op}: a {what:?} of {child:?} in a directory of {dir:?} with mode {mode:o} as {caller}"),
                            |host| {
                                plant(host, "case/d", Dir, dir, mode);
                                plant(host, "case/d/n", what, child, 0o755);
                                plant(host, "case/d/mine", what, (USER, USER), 0o755);
                            },
                            |twin| {
                                let dir = twin.pin("case/d");
                                act(twin, caller, &dir)
                            },
                        );
                    }
                }
            }
        }
    }
    both.assert_same("what is done to names");
}

/// All that can be made in a directory.
const MADE: &[DirOp] = &[
    ("create", |t, c, d| {
        let flags = OpenFlags::READ | OpenFlags::WRITE;
        ask!(t, c, Create { name: name("f"), mode: Mode::new(0o6755), umask: Mode::new(0o27), flags }, &[d.as_fd()])
    }),
    ("tmpfile", |t, c, d| {
        let flags = OpenFlags::READ | OpenFlags::WRITE;
        ask!(t, c, TmpFile { mode: Mode::new(0o2755), umask: Mode::new(0), flags }, &[d.as_fd()])
    }),
    ("mkdir", |t, c, d| {
        ask!(t, c, Mkdir { name: name("f"), mode: Mode::new(0o777), umask: Mode::new(0o22) }, &[d.as_fd()])
    }),
    ("mknod", |t, c, d| {
        let op = Mknod { name: name("f"), kind: NodeKind::Fifo, mode: Mode::new(0o2666), umask: Mode::new(0) };
        ask!(t, c, op, &[d.as_fd()])
    }),
    ("device", |t, c, d| {
        let kind = NodeKind::Char(postern_ipc::attr::Dev { major: 1, minor: 3 });
        ask!(t, c, Mknod { name: name("f"), kind, mode: Mode::new(0o666), umask: Mode::new(0) }, &[d.as_fd()])
    }),
    ("symlink", |t, c, d| ask!(t, c, Symlink { name: name("f"), target: Target::new(b"x").unwrap() }, &[d.as_fd()])),
];

// mkdir(2), open(2): "EOVERFLOW" for a caller whose ids have no mapping (user_namespaces(7))
#[test]
fn what_is_made_is_made_as_in_a_user_namespace() {
    let mut both = Both::new();
    let user = |uid, gid, group: Option<u32>| Caller::User {
        uid: GuestUid(uid),
        gid: GuestGid(gid),
        group: group.map(GuestGid),
    };
    let alone = |uid, gid| Caller::Alone { uid: GuestUid(uid), gid: GuestGid(gid) };
    let more = [
        user(0, 1000, None),
        user(7, 8, Some(1000)),
        user(7, 8, Some(70_000)),
        user(7, 1000, Some(u32::MAX)),
        user(70_000, 0, None),
        user(0, 70_000, None),
        user(u32::MAX, 0, None),
        alone(0, 1000),
        alone(70_000, 0),
        alone(0, 70_000),
    ];
    for mode in [0o700, 0o755, 0o777, 0o2777, 0o3775] {
        for dir in OWNERS {
            for caller in CALLERS.into_iter().chain(more) {
                for (op, act) in MADE {
                    both.same(
                        || format!("{op} in a directory of {dir:?} with mode {mode:o} as {caller}"),
                        |host| plant(host, "case/d", Dir, dir, mode),
                        |twin| {
                            let dir = twin.pin("case/d");
                            act(twin, caller, &dir)
                        },
                    );
                }
            }
        }
    }
    both.assert_same("what is made");
}

// postern-helper(8): --identity=soft: "A name moves to another directory only if root of the share, or an owner ...,
// may move it there: else it is EXDEV, as between file systems"
#[test]
fn between_directories_names_move_as_in_a_user_namespace_or_not_at_all() {
    let mut both = Both::new();
    let mut stricter = 0;
    let modes = [0o755, 0o1777];
    let places: Vec<_> = modes.iter().flat_map(|&mode| OWNERS.map(|owner| (owner, mode))).collect();
    for &(from, from_mode) in &places {
        for &(to, to_mode) in &places {
            for (what, owner) in [File, Dir].into_iter().flat_map(|what| OWNERS.map(|owner| (what, owner))) {
                let [kernels, ours] = both.outcomes(
                    |host| {
                        plant(host, "case/from", Dir, from, from_mode);
                        plant(host, "case/to", Dir, to, to_mode);
                        plant(host, "case/from/n", what, owner, 0o755);
                    },
                    |twin| {
                        let (from, to) = (twin.pin("case/from"), twin.pin("case/to"));
                        rename(twin, Caller::Root, [&from, &to], ["n", "n"], RenameFlags::empty())
                    },
                );
                let case = || format!("a {what:?} of {owner:?} from {from:?} {from_mode:o} to {to:?} {to_mode:o}");
                if ours == kernels {
                    continue;
                }
                stricter += 1;
                assert!(ours.0.is_err() && ours.1 == ours.2, "{}: {kernels:?} {ours:?}", case());
                let all = [from, to, owner].iter().all(|&(uid, gid)| uid != FOREIGN && gid != FOREIGN);
                assert!(matches!(ours.0, Err(Errno::EXDEV)) || !all, "{}: {:?}", case(), ours.0);
            }
        }
    }
    println!("{stricter} moves refused that the kernel makes");
    both.assert_same("moves between directories");
}

/// Does something in another thread, again and again, as long as `act` takes.
fn meanwhile<T>(mut again: impl FnMut() + Send, act: impl FnOnce() -> T) -> T {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                again();
            }
        });
        let done = act();
        over.store(true, Relaxed);
        done
    })
}

// postern-helper(8): --identity=soft: the owner does what is his, so the kernel judges at the moment of the call
#[test]
fn a_file_that_the_host_takes_away_is_not_changed_any_more() {
    let mut twin = Twin::new(Kind::Soft);
    plant(&twin.host, "f", File, (USER, USER), 0o600);
    let (node, path) = (twin.pin("f"), twin.host.path("f"));
    let (mut taken, mut done, mut refused) = (0, 0, 0);
    let see = || std::fs::metadata(&path).map(|meta| (meta.mode(), meta.mtime(), meta.gid())).unwrap();
    let take = || {
        std::os::unix::fs::chown(&path, Some(FOREIGN), Some(FOREIGN)).unwrap();
        let first = see();
        (0..50).for_each(|_| assert_eq!(see(), first, "changed while it was not the guest's"));
        std::os::unix::fs::chown(&path, Some(USER), Some(USER)).unwrap();
        taken += 1;
    };
    let ask = || {
        for number in 0..20_000_u32 {
            let changes = match number % 3 {
                0 => Changes { mode: Some(Mode::new(0o600 + (number / 3 % 8))), ..keep() },
                1 => Changes { mtime: TimeChange::At(Time { sec: number.into(), nsec: 0 }), ..keep() },
                _ => Changes { gid: Some(GuestGid(number % 7)), ..keep() },
            };
            match ask!(twin, Caller::Root, set(changes), &[node.as_fd()]) {
                Ok(_) => done += 1,
                Err(errno) => {
                    assert_eq!(errno, Errno::EPERM);
                    refused += 1;
                }
            }
        }
    };
    meanwhile(take, ask);
    tried("files taken away", taken);
    tried("changes before", done);
    tried("changes after", refused);
}

/// Lets the host exchange a file or directory of a user's, `d/x`, with one that is not the guest's, `d/y`, while the
/// guest asks for something; tells how often it was done. Nothing becomes of what is not the guest's.
fn exchanged(what: What, mode: u32, owner: (u32, u32), act: impl Fn(&mut Twin, &OwnedFd, &OwnedFd) -> Outcome) {
    let mut twin = Twin::new(Kind::Soft);
    plant(&twin.host, "d", Dir, owner, mode);
    plant(&twin.host, "e", Dir, (ROOT, ROOT), 0o777);
    plant(&twin.host, "d/y", what, (FOREIGN, FOREIGN), 0o755);
    let (dir, other) = (twin.pin("d"), twin.pin("e"));
    let [x, y, moved] = ["d/x", "d/y", "e/x"].map(|path| twin.host.path(path));
    let foreign = y.metadata().unwrap().ino();
    let exchange = || {
        let _ = rustix::fs::renameat_with(CWD, &x, CWD, &y, RawFlags::EXCHANGE);
    };
    let (mut done, mut refused) = (0, 0);
    for _ in 0..300 {
        if !x.exists() {
            plant(&twin.host, "d/x", what, (USER, USER), 0o755);
        }
        let ask = || (0..100).find_map(|_| act(&mut twin, &dir, &other).map_err(|_| refused += 1).ok());
        done += usize::from(meanwhile(exchange, ask).is_some());
        let there = [&x, &y].into_iter().any(|path| path.symlink_metadata().is_ok_and(|meta| meta.ino() == foreign));
        assert!(there, "what is not the guest's is gone from its directory");
        // Whichever is left of the two is where it was.
        if !y.exists() {
            std::fs::rename(&x, &y).unwrap();
        } else if y.metadata().unwrap().ino() != foreign {
            exchange();
        }
        let _ = std::fs::remove_file(&moved);
        let _ = std::fs::remove_dir(&moved);
    }
    tried("done to what is the guest's", done);
    tried("refused", refused);
}

// unlink(2): in a sticky directory only the owner's: who that is, is judged when the name is removed
#[test]
fn a_name_that_becomes_anothers_is_not_removed_from_a_sticky_directory() {
    exchanged(File, 0o1777, (FOREIGN, FOREIGN), |twin, dir, _| {
        ask!(twin, Caller::Root, Unlink { name: name("x") }, &[dir.as_fd()])
    });
}

// rename(2): "EACCES ... oldpath is a directory and does not allow write permission (needed to update the .. entry)"
#[test]
fn a_name_that_becomes_anothers_directory_is_not_moved() {
    exchanged(Dir, 0o777, (ROOT, ROOT), |twin, dir, other| {
        rename(twin, Caller::Root, [dir, other], ["x", "x"], RenameFlags::empty())
    });
}

/// Refuses what follows in this thread and what it starts: a new user namespace, as user.max_user_namespaces=0 does.
fn forbid_user_namespaces() {
    let new = |flags: libc::c_int| u64::try_from(flags).unwrap();
    let masked = SeccompCmpOp::MaskedEq(new(libc::CLONE_NEWUSER));
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, masked, new(libc::CLONE_NEWUSER)).unwrap();
    let rule = SeccompRule::new(vec![condition]).unwrap();
    let rules = [libc::SYS_unshare, libc::SYS_clone].map(|number| (number, vec![rule.clone()]));
    let refuse = SeccompAction::Errno(u32::try_from(libc::ENOSPC).unwrap());
    let filter = SeccompFilter::new(rules.into(), SeccompAction::Allow, refuse, TargetArch::x86_64).unwrap();
    seccompiler::apply_filter(&BpfProgram::try_from(filter).unwrap()).unwrap();
    assert_eq!(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER), Err(nix::Error::ENOSPC));
}

// postern-helper(8): --identity=soft: "for hosts that have no user namespaces"
#[test]
fn a_host_without_user_namespaces_serves_a_map() {
    forbid_user_namespaces();
    let share = Kind::Soft.setup().posix_acl().serve();
    assert!(share.server.log().contains("the helper looks up every name"), "{}", share.server.log());
    let user = share.as_ids(1000, 2000);
    user.mkdir("d", 0o700).unwrap();
    user.put("d/f", b"hello").unwrap();
    user.symlink("f", "d/l").unwrap();
    assert_eq!(share.host.stat("d/f").owner, ids(1000, 2000));
    let shown = share.getattr("d/f").unwrap();
    assert_eq!((shown.uid, shown.gid), (1000, 2000));
    share.chown("d/f", Some(5), Some(6)).unwrap();
    assert_eq!(share.host.stat("d/f").owner, ids(5, 6));
    share.setxattr("d/f", ACCESS, &acl(7, 8), 0).unwrap();
    assert_eq!(share.getxattr("d/f", ACCESS).unwrap(), acl(7, 8));
    assert_eq!(share.host.getxattr("d/f", ACCESS).unwrap(), acl(ROOT + 7, ROOT + 8));
    share.host.write("foreign", b"secret");
    share.host.chown_host("foreign", FOREIGN, FOREIGN);
    share.host.chmod("foreign", 0o600);
    let shown = share.getattr("foreign").unwrap();
    assert_eq!((shown.uid, shown.gid), (65_534, 65_534));
    assert_eq!(share.open("foreign", libc::O_RDONLY), Err(EACCES));
    assert_eq!(share.chown("foreign", Some(0), Some(0)).map(drop), Err(EPERM));
    share.rename("d/f", "g").unwrap();
    share.unlink("g").unwrap();
}

// postern-helper(8): one line says what cannot be and what to do
#[test]
fn who_needs_a_user_namespace_and_gets_none_is_told_of_the_form_without() {
    forbid_user_namespaces();
    let mut server = Kind::Mapped.setup().start();
    assert!(ends(&mut server.child));
    let log = server.log();
    assert!(log.contains("ENOSPC") && log.contains("--identity=soft goes without"), "{log}");
}

// postern-helper(8): --identity=soft: "root starts the helper"; no mapped security model, no --modcaps, no longer a
// table
#[test]
fn what_cannot_be_without_a_user_namespace_is_refused() {
    let refused = |setup: Setup, why: &str| {
        let mut server = setup.start();
        assert!(ends(&mut server.child), "{why}");
        assert!(server.log().contains(why), "{}", server.log());
    };
    let soft = || Kind::Soft.setup();
    refused(soft().arg("--security-model=mapped-xattr"), "nothing on the host belongs to the guest's users");
    refused(Kind::User.setup().arg("--identity=soft"), "not started by root");
    refused(Kind::Mapped.setup().arg("--identity=host"), "all are the host's own");
    refused(soft().arg("--modcaps=-chown"), "each is had for one call");
    let ranges = (0..60).map(|number| format!("--uid-map=:{}:{}:1:", 70_000 + 2 * number, 300_000 + 2 * number));
    refused(ranges.fold(soft(), |setup, range| setup.arg(&range)), "there are more than 100 ranges");
}
