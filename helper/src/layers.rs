//! Each layer holds alone: a probe that gets through where nothing else is up is stopped where only the layer is.

use std::fs::{create_dir, read_dir, rename, write};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use postern_ipc::attr::{Mode as Bits, OpenFlags};
use postern_ipc::channel::Channel;
use postern_ipc::frame::{self, FRAME_MAX, Malformed};
use postern_ipc::id::Caller;
use postern_ipc::model::Model;
use postern_ipc::name::FileName;
use postern_ipc::op::{Mkdir, Op, Open};
use postern_ipc::{Errno, Result};
use postern_policy::kinds::Kinds;
use postern_policy::right::Rights;
use postern_policy::sandbox::landlock::{Allow, enforce};
use postern_policy::sandbox::seccomp::{Mode as Seccomp, Program};
use postern_policy::translate::Translation;
use rustix::fs::{FileType, Mode, OFlags, makedev, mkdirat, mknodat, open, openat};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use tempfile::TempDir;

use crate::clone::{Clone, Place};
use crate::guard::Guard;
use crate::held::AllHeld;
use crate::names::Names;
use crate::pin::{Disbelief, Pin};
use crate::serve;
use crate::share::Share;

/// A directory to be shared, `share`, and one beside it, `outside`.
struct Ground {
    place: TempDir,
    clone: Clone,
}

impl Ground {
    /// With a clone of the share's mount that has these attributes, and no other layer.
    fn new(rights: Rights) -> Self {
        Self::planted(rights, |_| {})
    }

    /// The same of a share in which something is before it is cloned.
    fn planted(rights: Rights, plant: impl FnOnce(&Path)) -> Self {
        let place = tempfile::tempdir().unwrap();
        for name in ["share", "outside"] {
            create_dir(place.path().join(name)).unwrap();
        }
        plant(&place.path().join("share"));
        // This thread's working directory is its own from now on.
        unshare(CloneFlags::CLONE_FS).unwrap();
        rustix::process::chdir(place.path().join("share")).unwrap();
        let dir = open(".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let clone = Clone::of_working_dir(&dir, rights).unwrap();
        Self { place, clone }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A descriptor by the host's own mount.
    fn foreign(&self, name: &str) -> OwnedFd {
        open(self.path(name), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    /// A descriptor by the clone.
    fn held(&self, name: &str) -> OwnedFd {
        openat(self.clone.root().unwrap(), name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    /// What operations share.
    fn share(&self, rights: Rights) -> Share {
        let root = self.clone.root().unwrap();
        Share {
            rights,
            guard: Guard { setid: true, devices: true, handed: true, kinds: Kinds::all() },
            translation: Translation::default(),
            numbers: open("/proc/self/fd", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap(),
            model: Model::Passthrough,
            names: Names::new(None, Model::Passthrough),
            store: None,
            root_place: Place::of(&root).unwrap(),
            root,
            mounts: self.clone.mounts.clone(),
            max_rate: None,
            chmods_by_descriptor: true,
        }
    }

    fn outside(&self) -> usize {
        read_dir(self.path("outside")).unwrap().count()
    }
}

/// The probe: makes a directory.
fn probe(dir: impl AsFd, name: &str) -> Result<()> {
    Ok(mkdirat(dir, name, Mode::from_raw_mode(0o755))?)
}

// ATTACKS: a descriptor is believed only if it is of the share's mounts
#[test]
fn the_check_of_the_mount_holds_alone() {
    let ground = Ground::new(Rights::READ_WRITE);
    let foreign = || ground.foreign("outside");
    assert_eq!((probe(foreign(), "through"), ground.outside()), (Ok(()), 1));
    let proven = Pin::prove(foreign(), &ground.share(Rights::READ_WRITE));
    assert_eq!(proven.err(), Some(Disbelief::Malformed(Malformed("a descriptor is not of the share's mounts"))));
    // Of the very same directory, by another mount.
    assert!(Pin::prove(ground.foreign("share"), &ground.share(Rights::READ_WRITE)).is_err());
    assert!(Pin::prove(ground.held("."), &ground.share(Rights::READ_WRITE)).is_ok());
}

// ATTACKS: a directory that the host moved out of the share keeps its mount
#[test]
fn the_check_of_the_way_to_the_root_holds_alone() {
    let ground = Ground::new(Rights::READ_WRITE);
    create_dir(ground.path("share/d")).unwrap();
    let held = ground.held("d");
    rename(ground.path("share/d"), ground.path("outside/d")).unwrap();
    assert!(ground.clone.mounts.all.contains(&Place::of(&held).unwrap().mount), "the mount tells nothing");
    assert_eq!(probe(&held, "through"), Ok(()));
    assert!(ground.path("outside/d/through").exists());
    let proven = Pin::prove(held, &ground.share(Rights::READ_WRITE));
    assert_eq!(proven.err(), Some(Disbelief::Errno(Errno::ESTALE)));
}

/// What must not be told to anybody.
static SECRET: [u8; 16] = *b"the helper's own";

// proc_pid_mem(5): who may trace a process may open its memory, and everybody may trace himself: here the helper may
#[test]
fn the_check_of_what_is_the_kernels_holds_alone() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
    let ground = Ground::planted(Rights::READ_WRITE, |share| {
        create_dir(share.join("p")).unwrap();
        mount("proc", share.join("p"), "proc", MountFlags::empty(), None).unwrap();
    });
    let memory = ground.held(&format!("p/{}/mem", std::process::id()));
    let mut share = ground.share(Rights::READ_WRITE);
    share.mounts.all.push(Place::of(&memory).unwrap().mount);
    let open = || Open { flags: OpenFlags::READ | OpenFlags::WRITE };
    let (errno, given) = asked(&share, &memory, open());
    assert_eq!((errno, given.len()), (None, 1));
    let (secret, mut told) = (std::ptr::from_ref(&SECRET).addr(), [0; SECRET.len()]);
    assert_eq!(rustix::io::pread(&given[0], &mut told[..], secret as u64), Ok(SECRET.len()));
    assert_eq!(told, SECRET);
    share.mounts.kernels.push(Place::of(&memory).unwrap().mount);
    let (errno, given) = asked(&share, &memory, open());
    assert_eq!((errno, given.len()), (Some(Errno::EACCES), 0));
    unmount(ground.path("share/p"), UnmountFlags::DETACH).unwrap();
}

// path_resolution(7): a name is one component
#[test]
fn the_check_of_names_holds_alone() {
    let ground = Ground::new(Rights::READ_WRITE);
    // By the host's mount, where nothing else keeps ".." inside.
    let dir = ground.foreign("share");
    assert_eq!((probe(&dir, "../outside/through"), ground.outside()), (Ok(()), 1));
    let named =
        |name: &str| FileName::new(name.as_bytes()).and_then(|name| probe(&dir, name.as_c_str().to_str().unwrap()));
    assert_eq!(named("../outside/stopped"), Err(Errno::EINVAL));
    assert_eq!(named(ground.path("outside/stopped").to_str().unwrap()), Err(Errno::EINVAL));
    assert_eq!((named("inside"), ground.outside()), (Ok(()), 1));
}

/// What a helper without any other layer answers, and gives.
fn asked<O: Op>(share: &Share, at: &OwnedFd, op: O) -> (Option<Errno>, Vec<OwnedFd>) {
    let (server, helper) = Channel::pair().unwrap();
    std::thread::scope(|scope| {
        let serving = scope.spawn(|| {
            crate::caller::prepare(crate::caller::Power::Kernel).unwrap();
            serve::channel(&{ helper }, share, AllHeld::new(1).each().next().unwrap())
        });
        let mut out = Vec::new();
        frame::encode(&mut out, 1, O::KIND as u16, None, &(Caller::Root, op), 0).unwrap();
        server.send(&[&out, b""], &[at.as_fd()]).unwrap();
        let mut answer = vec![0; FRAME_MAX];
        let got = server.receive(&mut answer).unwrap();
        drop(server);
        assert_eq!(serving.join().unwrap(), Ok(()));
        (frame::split(&answer[..got.len]).unwrap().0.errno, got.descriptors.into_vec())
    })
}

/// The probe, by such a helper.
fn asked_for(share: &Share, at: &OwnedFd, name: &str) -> Option<Errno> {
    let name = FileName::new(name.as_bytes()).unwrap();
    asked(share, at, Mkdir { name, mode: Bits::new(0o755), umask: Bits::new(0) }).0
}

// postern-helper(8): the share's right is checked in one place
#[test]
fn the_check_of_rights_holds_alone() {
    let ground = Ground::new(Rights::READ_WRITE);
    let at = ground.held(".");
    assert_eq!(asked_for(&ground.share(Rights::READ_WRITE), &at, "through"), None);
    assert_eq!(asked_for(&ground.share(Rights::READ), &at, "stopped"), Some(Errno::EROFS));
    assert!(ground.path("share/through").exists() && !ground.path("share/stopped").exists());
}

// mount_setattr(2): MOUNT_ATTR_RDONLY
#[test]
fn the_read_only_clone_holds_alone() {
    assert_eq!(probe(Ground::new(Rights::READ_WRITE).held("."), "through"), Ok(()));
    let ground = Ground::new(Rights::READ);
    assert_eq!(probe(ground.held("."), "stopped"), Err(Errno::EROFS));
    // Although the check of rights lets it through.
    assert_eq!(asked_for(&ground.share(Rights::READ_WRITE), &ground.held("."), "stopped"), Some(Errno::EROFS));
    assert!(!ground.path("share/stopped").exists());
}

// mount_setattr(2): MOUNT_ATTR_NOSYMFOLLOW; open_tree(2): the clone's root is a root
#[test]
fn the_clone_holds_alone() {
    let ground = Ground::new(Rights::READ_WRITE);
    std::os::unix::fs::symlink("../outside", ground.path("share/out")).unwrap();
    let (foreign, held) = (ground.foreign("share"), ground.held("."));
    assert_eq!((probe(&foreign, "out/one"), probe(&foreign, "../outside/two"), ground.outside()), (Ok(()), Ok(()), 2));
    assert_eq!((probe(&held, "out/three"), probe(&held, "../outside/four")), (Err(Errno::ELOOP), Err(Errno::ENOENT)));
    assert_eq!(ground.outside(), 2);
}

// mount_setattr(2): MOUNT_ATTR_NODEV, MOUNT_ATTR_NOEXEC
#[test]
fn what_the_clone_does_not_do_holds_alone() {
    let ground = Ground::new(Rights::READ_WRITE);
    let null = ground.path("share/null");
    mknodat(rustix::fs::CWD, &null, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(1, 3)).unwrap();
    std::fs::copy("/bin/true", ground.path("share/true")).unwrap();
    let opened = |dir: OwnedFd| Ok(openat(dir, "null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map(drop)?);
    let run = |dir: OwnedFd| {
        let path = format!("/proc/{}/fd/{}/true", std::process::id(), dir.as_raw_fd());
        Command::new(path).status().map_err(Errno::from).map(|status| status.success())
    };
    assert_eq!((opened(ground.foreign("share")), run(ground.foreign("share"))), (Ok(()), Ok(true)));
    assert_eq!((opened(ground.held(".")), run(ground.held("."))), (Err(Errno::EACCES), Err(Errno::EACCES)));
}

// landlock(7): what is allowed beneath a directory is not allowed beside it
#[test]
fn landlock_holds_alone() {
    let ground = Ground::new(Rights::READ_WRITE);
    let (outside, inside) = (ground.foreign("outside"), ground.held("."));
    let probed = |allow: Option<Allow<'_>>, name: &str| {
        std::thread::scope(|scope| {
            let probing = || {
                let _domain = allow.map(enforce).transpose().unwrap();
                (probe(&outside, name), probe(&inside, name))
            };
            scope.spawn(probing).join().unwrap()
        })
    };
    let root = ground.clone.root().unwrap();
    let beneath = |rights| Some(Allow::Beneath { dir: root.as_fd(), rights });
    let denied = Err(Errno::EACCES);
    assert_eq!(probed(None, "through"), (Ok(()), Ok(())));
    assert_eq!(probed(beneath(Rights::READ_WRITE), "beneath"), (denied, Ok(())));
    assert_eq!(probed(beneath(Rights::READ), "read"), (denied, denied));
    assert_eq!(probed(Some(Allow::Nothing), "nothing"), (denied, denied));
}

/// Runs this very test once more as a process of its own, in which `what` is to be done; `under` starts it.
fn again(under: &[&str], what: &str) -> ExitStatus {
    let name = std::thread::current().name().unwrap().to_owned();
    let this = std::env::current_exe().unwrap();
    let mut words = under.iter().map(Into::into).chain([this.into_os_string(), "--exact".into(), name.into()]);
    Command::new(words.next().unwrap()).args(words).env("LAYER", what).status().unwrap()
}

fn told() -> Option<String> {
    std::env::var("LAYER").ok()
}

// seccomp(2): the list of a helper opens nothing by its path, whatever is up besides
#[test]
fn seccomp_holds_alone() {
    let Some(what) = told() else {
        assert_eq!(again(&[], "through").code(), Some(7));
        for stopped in ["socket", "by path", "program"] {
            assert_eq!(again(&[], stopped).signal(), Some(libc::SIGSYS), "{stopped}");
        }
        return;
    };
    let list = serve::calls(Rights::READ_WRITE, Model::Passthrough);
    if what != "through" {
        Program::new(&list, Seccomp::Kill).unwrap().apply().unwrap();
    }
    let all = what == "through";
    if all || what == "socket" {
        assert!(std::os::unix::net::UnixDatagram::unbound().is_ok());
    }
    if all || what == "by path" {
        assert!(rustix::fs::open("/etc/passwd", OFlags::RDONLY, Mode::empty()).is_ok());
    }
    if all || what == "program" {
        assert!(Command::new("/bin/true").status().is_ok());
    }
    std::process::exit(7);
}

// user_namespaces(7): root of a namespace is nobody to ids that are not of its map
#[test]
fn the_map_of_ids_holds_alone() {
    let act = |place: &Path| {
        let own = std::os::unix::fs::chown(place.join("own"), Some(77), None);
        let other = std::fs::read(place.join("other"));
        (own.map_err(|e| e.raw_os_error().unwrap()), other.map(drop).map_err(|e| e.raw_os_error().unwrap()))
    };
    if let Some(place) = told() {
        assert_eq!(act(Path::new(&place)), (Err(libc::EINVAL), Err(libc::EACCES)));
        std::process::exit(7);
    }
    let place = tempfile::tempdir().unwrap();
    for name in ["own", "other"] {
        write(place.path().join(name), b"x").unwrap();
        std::fs::set_permissions(place.path().join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    std::os::unix::fs::chown(place.path().join("other"), Some(5), Some(5)).unwrap();
    // Root of it has all capabilities there, and no other layer is up.
    let stopped = again(&["unshare", "--user", "--map-root-user", "--"], place.path().to_str().unwrap());
    assert_eq!(stopped.code(), Some(7));
    assert_eq!(act(place.path()), (Ok(()), Ok(())));
}

// fchmodat2(2): Linux 6.6; fchmodat(2) through the number before that
#[test]
fn permission_bits_are_changed_alike_on_kernels_old_and_new() {
    let ground = Ground::planted(Rights::READ_WRITE, |share| write(share.join("f"), "text").unwrap());
    let both = [(false, 0o604), (true, 0o640)];
    for (chmods_by_descriptor, mode) in both.into_iter().take(if crate::sys::has_chmod() { 2 } else { 1 }) {
        let share = Share { chmods_by_descriptor, ..ground.share(Rights::READ_WRITE) };
        crate::caller::prepare(crate::caller::Power::Kernel).unwrap();
        let node = Pin::prove(ground.held("f"), &share).unwrap();
        share.chmod(&node, Mode::from_raw_mode(mode)).unwrap();
        assert_eq!(ground.path("share/f").metadata().unwrap().permissions().mode() & 0o7777, mode);
    }
}
