//! What is looked at, one row each.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, access};
use postern_ipc::Errno;
use postern_policy::kernels;
use postern_policy::sandbox::{landlock, namespace};
use postern_policy::subid;
use rustix::process::{Resource, getrlimit};

use super::{Finding, Patient};

/// A check; `None` where there is nothing to be said.
type Check = fn(&Patient) -> Option<Finding>;

/// All of them. The last one leaves the process in namespaces of its own.
pub(super) const CHECKS: &[(&str, Check)] = &[
    ("kernel", kernel),
    ("Landlock", landlock),
    ("seccomp", seccomp),
    ("core files", dumpable),
    ("newuidmap", newuidmap),
    ("subordinate ids", subordinate),
    ("descriptors", descriptors),
    ("socket", socket),
    ("KVM", kvm),
    ("directory", directory),
    ("mounts", mounts),
    ("extended attributes", xattrs),
    ("user namespaces", namespaces),
];

/// Oldest kernel: mount_setattr(2) and STATX_MNT_ID are older, Landlock's second ABI is of 5.19.
const OLDEST: (u32, u32) = (6, 1);
/// Descriptors below which a share of many files is slow, because their descriptors come and go.
const FEW: u64 = 4096;
/// What keeps ordinary users from user namespaces: where, the value that does, what mends it.
const FORBIDDERS: &[(&str, &str, &str)] = &[
    ("proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
    ("proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    (
        "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "give postern-helper and postern-server AppArmor profiles with \"userns,\", or sysctl \
         kernel.apparmor_restrict_unprivileged_userns=0",
    ),
];

/// Where root's helpers listen.
const HELPERS: &str = "run/postern/helper.socket";

fn kernel(patient: &Patient) -> Option<Finding> {
    let release = patient.text("proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    let version = (numbers.next()?, numbers.next().unwrap_or(0));
    let (major, minor) = OLDEST;
    Some(if version >= OLDEST {
        Finding::Good(format!("{release}, {major}.{minor} or newer is needed"))
    } else {
        Finding::bad(format!("{release} is too old"), format!("install {major}.{minor} or newer"))
    })
}

fn landlock(_: &Patient) -> Option<Finding> {
    Some(match landlock::probe() {
        Ok(abi) => {
            Finding::Good(format!("the kernel has what ABI {abi} has; what 6 has (Linux 6.12) limits signals too"))
        }
        Err(fatal) => Finding::bad(
            fatal.to_string(),
            "add landlock to the lsm= of the kernel's command line, as in lsm=landlock,lockdown,yama,apparmor,bpf; \
             --no-landlock goes without",
        ),
    })
}

fn seccomp(patient: &Patient) -> Option<Finding> {
    let actions = patient.text("proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    Some(if actions.split(' ').any(|action| action == "kill_process") {
        Finding::Good("the kernel has it".into())
    } else {
        Finding::bad("the kernel cannot kill a process that calls what it must not", "it needs CONFIG_SECCOMP_FILTER")
    })
}

/// Acting as a user of the guest makes a helper what this says: with 1, a process that others of the same id look into.
/// An ordinary user's does not start then. proc_sys_fs(5): suid_dumpable
fn dumpable(patient: &Patient) -> Option<Finding> {
    let what = "programs that change their ids may be looked into by processes of the host with a guest's ids";
    let finding = if patient.uid.is_root() { Finding::poor } else { Finding::bad };
    (patient.text("proc/sys/fs/suid_dumpable")? == "1").then(|| finding(what, "sysctl fs.suid_dumpable=0, or 2"))
}

/// An ordinary user cannot write a map of more than one id without.
fn newuidmap(patient: &Patient) -> Option<Finding> {
    if patient.uid.is_root() {
        return None;
    }
    let missing: Vec<_> = ["newuidmap", "newgidmap"].into_iter().filter(|tool| subid::tool(tool).is_none()).collect();
    Some(if missing.is_empty() {
        Finding::Good("installed".into())
    } else {
        let what = format!("{} is not installed, so guests have one user only, root", missing.join(" and "));
        Finding::poor(what, "install the package uidmap")
    })
}

fn subordinate(patient: &Patient) -> Option<Finding> {
    if patient.uid.is_root() {
        return Some(Finding::Good("root may map any; --uid-map and --gid-map say which".into()));
    }
    let [uids, gids] = ["etc/subuid", "etc/subgid"].map(|path| patient.text(path).unwrap_or_default());
    let lacking = [("--add-subuids", &uids), ("--add-subgids", &gids)]
        .into_iter()
        .filter(|(_, file)| subid::grants(file, Some(&patient.name), patient.uid.as_raw()).is_empty());
    let options: Vec<_> = lacking
        .map(|(option, file)| {
            let (first, last) = subid::free(&subid::all(file));
            format!("{option} {first}-{last}")
        })
        .collect();
    Some(if options.is_empty() {
        Finding::Good(format!("{} has some", patient.name))
    } else {
        let what = format!("{} has none, so guests have one user only, root", patient.name);
        Finding::poor(what, format!("usermod {} {}", options.join(" "), patient.name))
    })
}

fn descriptors(_: &Patient) -> Option<Finding> {
    let most = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    Some(if most >= FEW {
        Finding::Good(format!("{most} may be open"))
    } else {
        let what = format!("only {most} may be open, so a share of many files is slow");
        Finding::poor(what, "raise the hard limit: LimitNOFILE= of a unit, limits.conf(5)")
    })
}

/// QEMU and server meet there.
fn socket(patient: &Patient) -> Option<Finding> {
    if patient.uid.is_root() {
        return Some(Finding::Good("in /run; --socket-group lets QEMU of another user connect".into()));
    }
    let place = std::env::var_os("XDG_RUNTIME_DIR");
    Some(match place.filter(|dir| access(Path::new(dir), AccessFlags::W_OK).is_ok()) {
        Some(dir) => Finding::Good(format!("in {}", Path::new(&dir).display())),
        None => {
            Finding::poor("XDG_RUNTIME_DIR is no place for one", "name one in a directory of your own: --socket-path")
        }
    })
}

fn kvm(patient: &Patient) -> Option<Finding> {
    let device = patient.root.join("dev/kvm");
    Some(match access(&device, AccessFlags::R_OK | AccessFlags::W_OK) {
        Ok(()) => Finding::Good("/dev/kvm can be opened".into()),
        Err(nix::errno::Errno::ENOENT) => Finding::poor(
            "there is none, so guests are emulated, which is slow",
            "turn virtualisation on in the firmware, or nested virtualisation in the host that this one is a guest of",
        ),
        Err(errno) => Finding::poor(
            format!("/dev/kvm cannot be opened ({}), so guests are emulated, which is slow", Errno::from(errno)),
            format!("usermod --append --groups kvm {}", patient.name),
        ),
    })
}

fn directory(patient: &Patient) -> Option<Finding> {
    let dir = patient.dir.as_deref()?;
    let shown = dir.display();
    let meta = match dir.metadata() {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => return Some(Finding::bad(format!("{shown} is none"), "name a directory")),
        Err(error) => {
            let why = Errno::from(error);
            return Some(Finding::bad(
                format!("{shown}: {why}"),
                "create it, name another, or let its user search the way",
            ));
        }
    };
    if let Err(errno) = access(dir, AccessFlags::R_OK | AccessFlags::X_OK) {
        let what = format!("{shown} cannot be read: {}", Errno::from(errno));
        return Some(Finding::bad(what, "let its user read and search it, or name another"));
    }
    let readonly = statvfs(dir).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_RDONLY));
    Some(if readonly {
        Finding::poor(format!("{shown} is mounted read-only"), "say --readonly, or mount it for writing")
    } else if patient.uid.is_root() || meta.uid() == patient.uid.as_raw() {
        Finding::Good(format!("{shown}, mode {:o}", meta.permissions().mode() & 0o7777))
    } else {
        let what = format!("{shown} is user {}'s, whom guests see as nobody", meta.uid());
        Finding::poor(what, "share a directory of your own, or start as root with a map")
    })
}

/// A share has the mounts below its directory as they are when it starts: its clone of them is private.
/// proc_pid_mountinfo(5)
fn mounts(patient: &Patient) -> Option<Finding> {
    let dir = patient.dir.as_deref()?.canonicalize().ok()?;
    let table = patient.text("proc/self/mountinfo")?;
    let mounts = table.lines().filter_map(|line| {
        let (mount, source) = line.split_once(" - ")?;
        Some((Path::new(mount.split(' ').nth(4)?), source.split(' ').next()?))
    });
    let below: Vec<_> = mounts.filter(|(place, _)| *place != dir && place.starts_with(&dir)).collect();
    if let Some((place, kind)) = below.iter().find(|(_, kind)| kernels::has_name(kind.as_bytes())) {
        let what = format!("{} is {kind}, so {} is shared for reading only", place.display(), dir.display());
        return Some(Finding::poor(what, "share a directory beside it"));
    }
    let below = below.len();
    let later = "what the host mounts there later guests do not see, shared or not";
    Some(Finding::Good(format!("{below} below {}, which guests see too; {later}", dir.display())))
}

fn xattrs(patient: &Patient) -> Option<Finding> {
    let dir = patient.dir.as_deref().filter(|dir| dir.is_dir())?;
    Some(match rustix::fs::getxattr(dir, c"user.postern.doctor", &mut [0_u8; 0][..]) {
        Err(rustix::io::Errno::OPNOTSUPP) => Finding::poor(
            format!(
                "the file system of {} has no user.*, which --xattr and --security-model=mapped-xattr need",
                dir.display()
            ),
            "share a directory of another file system, such as ext4 or xfs",
        ),
        _ => Finding::Good("the file system has user.*, for --xattr".into()),
    })
}

/// Tries, and if it may not looks who forbids it.
fn namespaces(patient: &Patient) -> Option<Finding> {
    let Err(fatal) = namespace::enter(namespace::User::New) else {
        return Some(Finding::Good("to be had".into()));
    };
    let forbids = |(path, value, _): &&(&str, &str, &str)| patient.text(path).as_deref() == Some(value);
    let remedies: Vec<_> = FORBIDDERS.iter().filter(forbids).map(|(_, _, remedy)| *remedy).collect();
    let remedy = if remedies.is_empty() {
        "a container's or a security module's policy forbids it: let it, or start as root on the host".into()
    } else {
        remedies.join("; ")
    };
    if patient.root.join(HELPERS).exists() {
        return Some(Finding::poor(
            fatal.to_string(),
            format!("say --helper-socket /{HELPERS}: helpers of root's are there"),
        ));
    }
    let others = "--identity=soft goes without where root starts the helper, and postern-helper.socket may be enabled, \
                  postern-policy(5)";
    Some(Finding::bad(fatal.to_string(), format!("{remedy}; {others}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::Uid;

    /// A host with these files of an ordinary user, ann.
    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Patient) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{text}\n")).unwrap();
        }
        let patient = Patient { root: root.path().into(), uid: Uid::from_raw(1000), name: "ann".into(), dir: None };
        (root, patient)
    }

    fn verdict(check: Check, files: &[(&str, &str)]) -> Finding {
        check(&host(files).1).unwrap()
    }

    #[test]
    fn a_kernel_is_new_enough_or_not() {
        let of = |release| verdict(kernel, &[("proc/sys/kernel/osrelease", release)]);
        for release in ["6.1.0-18-amd64", "6.12.1", "7.0-rc1"] {
            assert!(matches!(of(release), Finding::Good(_)), "{release}");
        }
        for release in ["5.19.17", "6.0.0", "4.18.0-553.el8"] {
            assert!(matches!(of(release), Finding::Bad { .. }), "{release}");
        }
    }

    #[test]
    fn a_user_without_subordinate_ids_is_told_the_command_that_gives_some() {
        let none = verdict(subordinate, &[("etc/subuid", "bob:100000:65536"), ("etc/subgid", "ann:100000:65536")]);
        assert!(none.to_string().ends_with("usermod --add-subuids 165536-231071 ann"), "{none}");
        let some = verdict(subordinate, &[("etc/subuid", "1000:100000:65536"), ("etc/subgid", "ann:100000:65536")]);
        assert_eq!(some, Finding::Good("ann has some".into()));
    }

    #[test]
    fn a_directory_that_cannot_be_shared_is_named() {
        let of = |dir: &Path| {
            let (_root, mut patient) = host(&[]);
            patient.dir = Some(dir.into());
            directory(&patient).unwrap()
        };
        assert!(matches!(of(Path::new("/no/such")), Finding::Bad { what, .. } if what.starts_with("/no/such: ENOENT")));
        assert!(matches!(of(Path::new("/etc/passwd")), Finding::Bad { what, .. } if what == "/etc/passwd is none"));
        assert!(matches!(of(Path::new("/")), Finding::Poor { what, .. } if what.starts_with("/ is user 0's")));
    }

    #[test]
    fn mounts_below_the_directory_are_counted() {
        let of = |kind: &str, place: &str| format!("36 35 98:0 / {place} rw,noatime shared:1 - {kind} none rw\n");
        let line = |place: &str| of("ext3", place);
        let (_root, mut patient) = host(&[]);
        let dir = patient.root.canonicalize().unwrap();
        patient.dir = Some(dir.clone());
        let at = |below: &str| line(&format!("{}{below}", dir.display()));
        let table = ["/", "/proc"].map(line).concat() + &["", "/a", "/a/b", "side"].map(at).concat();
        std::fs::create_dir_all(dir.join("proc/self")).unwrap();
        let told = |table: String| {
            std::fs::write(dir.join("proc/self/mountinfo"), table).unwrap();
            mounts(&patient).unwrap().to_string()
        };
        assert!(told(table.clone()).starts_with("2 below "));
        let sys = of("sysfs", &format!("{}/c", dir.display()));
        assert!(told(table + &sys).starts_with(&format!("{}/c is sysfs, so ", dir.display())));
    }

    #[test]
    fn helpers_that_others_may_look_into_are_named() {
        let of = |value, uid: u32| {
            let (_root, patient) = host(&[("proc/sys/fs/suid_dumpable", value)]);
            dumpable(&Patient { uid: uid.into(), ..patient })
        };
        assert!((of("0", 1).is_none(), of("2", 1).is_none()) == (true, true));
        assert!(matches!((of("1", 0), of("1", 1)), (Some(Finding::Poor { .. }), Some(Finding::Bad { .. }))));
    }

    #[test]
    fn a_kernel_that_cannot_kill_is_no_good() {
        assert!(matches!(verdict(seccomp, &[]), Finding::Bad { .. }));
        let avail = "kill_process kill_thread trap errno user_notif trace log allow";
        let found = verdict(seccomp, &[("proc/sys/kernel/seccomp/actions_avail", avail)]);
        assert!(matches!(found, Finding::Good(_)));
    }
}
