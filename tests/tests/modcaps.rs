//! Capabilities that somebody wants the helper to have besides those it needs, or to do without. postern-helper(8)

use libc::{FS_IOC_GETFLAGS, FS_IOC_SETFLAGS};
use postern_ipc::Errno;
use postern_ipc::attr::{Changes, Mode, OpenFlags, XattrFlags};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::{FileName, XattrName};
use postern_ipc::op::{GetXattr, Mkdir, Open, SetAttr, SetXattr};
use postern_tests::prelude::*;
use postern_tests::processes::{Processes, threads};
use postern_tests::twin::Twin;
use std::os::fd::AsFd;

/// Numbers of linux/capability.h.
const CHOWN: u32 = 0;
const DAC_READ_SEARCH: u32 = 2;
const LINUX_IMMUTABLE: u32 = 9;
const SYS_ADMIN: u32 = 21;

/// A promise of those whose helper has its capabilities all the time; with `--identity=soft` it has each for one call.
macro_rules! lasting {
    ($($function:tt)*) => {
        postern_tests::each! { mapped Mapped, root Root, user User, host Host; $($function)* }
    };
}

fn with(on: Kind, modcaps: &str) -> Share {
    on.setup().arg(&format!("--modcaps={modcaps}")).serve()
}

/// Of warden and helper, in every set that they have and every thread, whether a capability is there.
fn has(share: &Share, number: u32) -> bool {
    let [_, warden, helper] = Processes::standalone(share.kind(), share.server.child.id()).pids;
    let sets = |status: std::collections::BTreeMap<String, String>| {
        ["CapPrm", "CapEff", "CapBnd"].map(|set| u64::from_str_radix(&status[set], 16).unwrap() >> number & 1 == 1)
    };
    let all: Vec<_> = [warden, helper].into_iter().flat_map(threads).flat_map(sets).collect();
    assert!(all.iter().all(|there| *there == all[0]), "some have it: {all:?}");
    all[0]
}

/// `security.capability` with CAP_NET_RAW. linux/capability.h
fn net_raw() -> Vec<u8> {
    [0x0200_0001_u32, 1 << 13, 0, 0, 0].iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// What is tried on a file of user 1000, which only he may read.
type Act = fn(&Share) -> Result<(), nix::errno::Errno>;

/// capabilities(7): what each is for, and what comes of it without.
const TAKEN: [(&str, Act, nix::errno::Errno); 7] = [
    ("-chown", |share| share.chown("f", Some(5), None).map(drop), EPERM),
    ("-dac_override", |share| share.open("f", O_RDONLY).map(drop), EACCES),
    ("-fowner", |share| share.chmod("f", 0o644).map(drop), EPERM),
    ("-setfcap", |share| share.setxattr("f", "security.capability", &net_raw(), 0), EPERM),
    ("-setuid", |share| share.as_ids(1000, 0).mkdir("d", 0o755).map(drop), EPERM),
    ("-setgid", |share| share.as_ids(0, 1000).mkdir("d", 0o755).map(drop), EPERM),
    ("-mknod", |share| share.mknod("null", S_IFCHR | 0o666, 1 << 8 | 3).map(drop), EPERM),
];

// postern-helper(8): --modcaps: "What then is not allowed gives the guest the kernel's error"
#[apply(lasting)]
fn without_a_capability_the_kernel_refuses_what_it_is_for(on: Kind) {
    for (modcaps, act, errno) in TAKEN {
        let may = if modcaps == "-mknod" && !on.has_devices() { Err(EPERM) } else { Ok(()) };
        for (share, done) in [(with(on, modcaps), Err(errno)), (on.serve(), may)] {
            share.host.write("f", b"hello");
            share.host.chown("f", 1000, 1000);
            share.host.chmod("f", 0o600);
            assert_eq!(act(&share), done, "{modcaps}");
        }
    }
}

// capabilities(7): "CAP_FSETID  Don't clear set-user-ID and set-group-ID mode bits when a file is modified"
#[apply(lasting)]
fn without_cap_fsetid_a_write_clears_set_id_bits(on: Kind) {
    let share = with(on, "-fsetid");
    share.put("f", b"hello").unwrap();
    share.chmod("f", 0o6755).unwrap();
    let file = share.open("f", O_RDWR).unwrap();
    share.write(&file, 0, b"J").unwrap();
    assert_eq!((share.host.read("f"), share.host.stat("f").perm()), (b"Jello".to_vec(), 0o755));
}

// proc(5): CapPrm, CapEff, CapBnd; postern-helper(8): --modcaps: "for good"
#[apply(lasting)]
fn what_is_taken_no_process_of_the_share_has(on: Kind) {
    let before = on.serve();
    assert!(has(&before, CHOWN) && !has(&before, DAC_READ_SEARCH));
    let share = with(on, "-chown:+DAC_READ_SEARCH:-mknod:+fowner");
    assert!(!has(&share, CHOWN) && has(&share, DAC_READ_SEARCH));
    share.put("f", b"hello").unwrap();
    assert_eq!(share.get("f").unwrap(), b"hello");
}

// capabilities(7): "CAP_DAC_READ_SEARCH  Bypass file read permission checks"; writing is another one's
#[apply(lasting)]
fn a_share_may_be_read_beyond_the_hosts_permissions_and_written_within(on: Kind) {
    let share = with(on, "-dac_override:+dac_read_search");
    share.host.write("f", b"hello");
    share.host.chown("f", 1000, 1000);
    share.host.chmod("f", 0o600);
    assert_eq!(share.get("f").unwrap(), b"hello");
    assert_eq!(share.open("f", O_WRONLY).map(drop), Err(EACCES));
}

// xattr(7): trusted attributes are for "processes that have the CAP_SYS_ADMIN capability"
#[test]
fn the_hosts_root_may_have_its_trusted_attributes() {
    let share = with(Kind::Host, "+sys_admin");
    assert!(has(&share, SYS_ADMIN));
    let told = "warning: --modcaps: the helper has CAP_SYS_ADMIN: the guest has the host's trusted.* and security.*";
    assert!(share.server.log().contains(told), "{}", share.server.log());
    share.host.write("f", b"");
    share.host.setxattr("f", "trusted.there", b"x");
    assert_eq!(share.getxattr("f", "trusted.there").unwrap(), b"x");
    share.setxattr("f", "trusted.overlay.opaque", b"y", 0).unwrap();
    assert_eq!(share.host.getxattr("f", "trusted.overlay.opaque").unwrap(), b"y");
    let mut names = share.listxattr("f").unwrap();
    names.sort();
    assert_eq!(names, ["trusted.overlay.opaque", "trusted.there"]);
    let readonly = Kind::Host.setup().readonly().arg("--modcaps=+sys_admin").plant(|host| {
        host.write("f", b"");
        host.setxattr("f", "trusted.there", b"x");
    });
    let readonly = readonly.serve();
    assert_eq!(readonly.getxattr("f", "trusted.there").unwrap(), b"x");
    assert_eq!(readonly.setxattr("f", "trusted.there", b"y", 0), Err(EROFS));
}

// ioctl_iflags(2): "FS_IMMUTABLE_FL ... can be set or cleared only by ... CAP_LINUX_IMMUTABLE"
#[test]
fn the_hosts_root_may_make_files_that_nobody_changes() {
    const FS_IMMUTABLE_FL: u32 = 0x10;
    let share = with(Kind::Host, "+linux_immutable");
    assert!(has(&share, LINUX_IMMUTABLE));
    let file = share.create("f", O_RDWR, 0o644).unwrap();
    let flags = u32::from_le_bytes(share.ioctl(&file, FS_IOC_GETFLAGS, &[], 4).unwrap().try_into().unwrap());
    share.ioctl(&file, FS_IOC_SETFLAGS, &(flags | FS_IMMUTABLE_FL).to_le_bytes(), 0).unwrap();
    assert_eq!(share.unlink("f"), Err(EPERM));
    share.ioctl(&file, FS_IOC_SETFLAGS, &flags.to_le_bytes(), 0).unwrap();
    share.unlink("f").unwrap();
}

// postern-helper(8): --modcaps: "what no operation has a use for is refused", in one line that says why
#[test]
fn what_makes_no_sense_is_refused() {
    let word = |word: &str| format!("{word:?} is no capability of capabilities(7) with + or - before it");
    let keep = |name: &str, why: &str| format!("cannot keep {name} (--modcaps): {why}");
    let (useless, nothing) = ("no operation of this share has a use for it", "it gives nothing in a user namespace");
    for (on, args, told) in [
        (Kind::Mapped, &["--modcaps=chown"][..], word("chown")),
        (Kind::Mapped, &["--modcaps="], word("")),
        (Kind::Mapped, &["--modcaps=-chown:+everything"], word("+everything")),
        (Kind::Mapped, &["--modcaps=+sys_resource"], keep("CAP_SYS_RESOURCE", useless)),
        (Kind::Host, &["--modcaps=-chown:+net_admin"], keep("CAP_NET_ADMIN", useless)),
        (Kind::Host, &["--modcaps=+sys_ptrace"], keep("CAP_SYS_PTRACE", useless)),
        (Kind::Host, &["--modcaps=+chown", "--readonly"], keep("CAP_CHOWN", useless)),
        (Kind::Mapped, &["--modcaps=+mknod"], keep("CAP_MKNOD", useless)),
        (Kind::Mapped, &["--modcaps=+sys_admin"], keep("CAP_SYS_ADMIN", nothing)),
        (Kind::User, &["--modcaps=+linux_immutable"], keep("CAP_LINUX_IMMUTABLE", nothing)),
        (Kind::MappedXattr, &["--modcaps=+chown"], keep("CAP_CHOWN", useless)),
    ] {
        let mut server = args.iter().fold(on.setup(), |setup, arg| setup.arg(arg)).start();
        assert!(!server.child.wait().unwrap().success(), "{args:?}");
        assert!(server.log().contains(&told), "{args:?}: {}", server.log());
    }
}

// capabilities(7): a set that root was started with is all that it has
#[test]
fn what_the_helper_was_started_without_it_cannot_keep() {
    let setup = Kind::Host.setup().under(&["setpriv", "--bounding-set=-linux_immutable"]);
    let mut server = setup.arg("--modcaps=+linux_immutable").start();
    assert!(!server.child.wait().unwrap().success());
    let told = "cannot keep CAP_LINUX_IMMUTABLE (--modcaps): the helper was started without it";
    assert!(server.log().contains(told), "{}", server.log());
}

// postern-helper(8): --modcaps: "whatever the server says": what is taken no caller has, and what is added only root of
// the guest
#[test]
fn a_taken_over_server_gets_nothing_back() {
    let mut twin = Twin::with(Kind::Host, &["--modcaps=-chown:-dac_override:-setuid:+sys_admin"]);
    for name in ["f", "own"] {
        twin.host.write(name, b"hello");
        twin.host.chmod(name, 0o600);
        twin.host.setxattr(name, "trusted.a", b"x");
    }
    twin.host.chown("f", 1000, 1000);
    let (f, own, root) = (twin.pin("f"), twin.pin("own"), twin.root.try_clone().unwrap());
    let user = |uid| Caller::User { uid: GuestUid(uid), gid: GuestGid(0), group: None };
    let alone = |uid| Caller::Alone { uid: GuestUid(uid), gid: GuestGid(0) };
    let give = SetAttr { changes: Changes { uid: Some(GuestUid(1000)), ..Changes::default() } };
    let open = Open { flags: OpenFlags::WRITE };
    for caller in [Caller::Root, user(0), user(1000), alone(0), alone(1000)] {
        assert_eq!(twin.ask_as(caller, &give, &[own.as_fd()], b"").err(), Some(Errno::EPERM), "{caller:?}");
        assert!(twin.ask_as(caller, &open, &[f.as_fd()], b"").is_err(), "{caller:?}");
    }
    let mkdir = |name: &[u8]| Mkdir { name: FileName::new(name).unwrap(), mode: Mode::new(0o755), umask: Mode::new(0) };
    for caller in [user(1000), alone(1000), user(65_534), alone(65_534)] {
        assert_eq!(twin.ask_as(caller, &mkdir(b"d"), &[root.as_fd()], b"").err(), Some(Errno::EPERM), "{caller:?}");
    }
    twin.ask(&mkdir(b"d"), &[root.as_fd()]).unwrap();
    let name = XattrName::new(b"trusted.a").unwrap();
    let (get, set) = (GetXattr { name, size: 9 }, SetXattr { name, flags: XattrFlags::empty() });
    assert_eq!(twin.ask(&get, &[own.as_fd()]).unwrap().2, b"x");
    for caller in [alone(1000), alone(65_534)] {
        assert!(twin.ask_as(caller, &get, &[own.as_fd()], b"").is_err());
        assert!(twin.ask_as(caller, &set, &[own.as_fd()], b"forged").is_err());
    }
    assert_eq!(twin.host.getxattr("own", "trusted.a").unwrap(), b"x");
}
