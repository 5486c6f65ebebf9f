//! Extended attributes that have another name on the host: --xattrmap, by rules as virtiofsd has them, or `guest`.

use std::os::fd::AsFd;

use libc::{FALLOC_FL_KEEP_SIZE, XATTR_CREATE};
use postern_ipc::Errno;
use postern_ipc::attr::{Changes, OpenFlags, XattrFlags};
use postern_ipc::id::{Caller, GuestGid, GuestUid};
use postern_ipc::name::XattrName;
use postern_ipc::op::{GetXattr, ListXattr, Open, RemoveXattr, SetAttr, SetXattr};
use postern_tests::prelude::*;
use postern_tests::twin::Twin;

/// A behaviour of every server that is told a map itself: a helper of root's has it on its own command line.
macro_rules! told {
    ($($function:tt)*) => {
        postern_tests::each! { mapped Mapped, root Root, user User, host Host, p9_mapped P9Mapped, p9_user P9User,
            mapped_xattr MappedXattr, mapped_file MappedFile, virtiofsd Virtiofsd, c_virtiofsd CVirtiofsd;
            $($function)* }
    };
}

/// What `guest` puts before `trusted.*` and `security.*`.
const STORE: &str = "user.postern.";
/// CAP_NET_RAW, permitted.
const NET_RAW: [u32; 5] = [0x0200_0001, 1 << 13, 0, 0, 0];

fn net_raw() -> Vec<u8> {
    NET_RAW.iter().flat_map(|word| word.to_le_bytes()).collect()
}

// virtiofsd, xattr-mapping: "/prefix/all/trusted./user.virtiofs./ /bad/server//trusted./ /bad/client/user.virtiofs.//
// /ok/all///"
#[apply(told)]
fn a_class_of_attributes_is_stored_under_another_name(on: Kind) {
    let rules = "/prefix/all/trusted./user.virtiofs./ /bad/server//trusted./ /bad/client/user.virtiofs.// /ok/all///";
    let share = on.setup().xattrmap(rules).serve();
    share.put("f", b"").unwrap();
    share.host.setxattr("f", "trusted.hosts", b"x");
    share.setxattr("f", "trusted.a", b"one", XATTR_CREATE).unwrap();
    share.setxattr("f", "user.b", b"two", 0).unwrap();
    assert_eq!(share.host.getxattr("f", "user.virtiofs.trusted.a").unwrap(), b"one");
    assert_eq!(share.host.getxattr("f", "trusted.a"), None);
    assert_eq!((share.getxattr("f", "trusted.a"), share.getxattr_size("f", "trusted.a")), (Ok(b"one".into()), Ok(3)));
    assert_eq!(share.listxattr("f").unwrap(), ["trusted.a", "user.b"]);
    assert_eq!(share.setxattr("f", "trusted.a", b"1", XATTR_CREATE), Err(EEXIST));
    share.removexattr("f", "trusted.a").unwrap();
    assert_eq!(share.host.getxattr("f", "user.virtiofs.trusted.a"), None);
    assert_eq!(share.getxattr("f", "trusted.a"), Err(ENODATA));
}

// virtiofsd, xattr-mapping: "This is equivalent to the map rule", which "must be the last rule in the set"
#[apply(told)]
fn all_attributes_are_stored_below_a_prefix(on: Kind) {
    let share = on.setup().xattrmap(":map::user.virtiofs.:").serve();
    share.put("f", b"").unwrap();
    share.host.setxattr("f", "user.hosts", b"x");
    for name in ["user.a", "trusted.b", "security.c"] {
        share.setxattr("f", name, name.as_bytes(), 0).unwrap();
        assert_eq!(share.host.getxattr("f", &format!("user.virtiofs.{name}")).unwrap(), name.as_bytes());
    }
    assert_eq!(share.listxattr("f").unwrap(), ["security.c", "trusted.b", "user.a"]);
    assert_eq!(share.getxattr("f", "user.hosts"), Err(ENODATA));
}

// virtiofsd, xattr-mapping: bad: "denied using EPERM; when the server passes an attribute name matching prepend it's
// hidden"
#[apply(told)]
fn a_bad_attribute_is_not_there_and_cannot_be_made(on: Kind) {
    let share = on.setup().xattrmap(":bad:all:user.secret.:user.secret.: :ok:all:::").serve();
    share.put("f", b"").unwrap();
    share.host.setxattr("f", "user.secret.a", b"x");
    assert_eq!(share.setxattr("f", "user.secret.a", b"y", 0), Err(EPERM));
    assert_eq!(share.removexattr("f", "user.secret.a"), Err(EPERM));
    assert_eq!(share.getxattr("f", "user.secret.a"), Err(ENODATA));
    share.setxattr("f", "user.secre", b"z", 0).unwrap();
    assert_eq!(share.listxattr("f").unwrap(), ["user.secre"]);
    assert_eq!(share.host.getxattr("f", "user.secret.a").unwrap(), b"x");
}

// virtiofsd, xattr-mapping: unsupported: "denied using ENOTSUP"
#[apply(told)]
fn an_unsupported_attribute_is_unknown(on: Kind) {
    let share = on.setup().xattrmap("/unsupported/all/user.label/user.label/ /ok/all///").serve();
    share.put("f", b"").unwrap();
    share.host.setxattr("f", "user.label", b"x");
    assert_eq!(share.setxattr("f", "user.label", b"y", 0), Err(EOPNOTSUPP));
    assert_eq!(share.getxattr("f", "user.label"), Err(EOPNOTSUPP));
    assert_eq!(share.listxattr("f").unwrap(), [""; 0]);
}

// xattr(7): names are "limited to 255 bytes": ERANGE, here by what stands before them on the host
#[apply(told)]
fn a_name_that_is_too_long_on_the_host_is_refused(on: Kind) {
    let share = on.setup().xattrmap("/map/user.long./user.virtiofs./").serve();
    share.put("f", b"").unwrap();
    let (fits, long) = (format!("user.long.{}", "n".repeat(231)), format!("user.long.{}", "n".repeat(232)));
    share.setxattr("f", &fits, b"x", 0).unwrap();
    assert_eq!(share.setxattr("f", &long, b"x", 0), Err(ERANGE));
    assert_eq!((share.getxattr("f", &long), share.removexattr("f", &long)), (Err(ERANGE), Err(ERANGE)));
    assert_eq!(share.listxattr("f").unwrap(), [fits]);
}

/// A share whose guest's kernel has attributes of its own, where users of the host can reach it.
fn guests(on: Kind) -> Share {
    on.setup().public().xattrmap("guest").serve()
}

// postern-helper(8): --xattrmap=guest: "stored as user.postern.*"
#[apply(promise)]
fn the_guests_kernel_has_its_trusted_and_security_attributes(on: Kind) {
    let share = guests(on);
    share.mkdir("d", 0o755).unwrap();
    for (name, value) in [
        ("trusted.overlay.opaque", &b"y"[..]),
        ("security.selinux", b"u:r:t:s0\0"),
        ("security.capability", &net_raw()),
    ] {
        share.setxattr("d", name, value, 0).unwrap();
        assert_eq!(share.getxattr("d", name).unwrap(), value);
        assert_eq!(share.host.getxattr("d", &format!("{STORE}{name}")).unwrap(), value);
        assert_eq!(share.host.getxattr("d", name), None, "the host has it, too");
    }
    share.setxattr("d", "user.a", b"x", 0).unwrap();
    let names = ["security.capability", "security.selinux", "trusted.overlay.opaque", "user.a"];
    assert_eq!(share.listxattr("d").unwrap(), names);
    let length = names.iter().map(|name| name.len() + 1).sum::<usize>() as u32;
    assert_eq!(share.listxattr_size("d").unwrap(), length);
    assert_eq!(share.listxattr_into("d", length - 1), Err(ERANGE));
    assert_eq!(share.listxattr_into("d", length).unwrap().len(), length as usize);
}

// postern-helper(8): --xattrmap=guest: "by their own name these are not there for the guest"
#[apply(promise)]
fn what_is_stored_for_the_guests_kernel_is_not_forged(on: Kind) {
    let share = guests(on);
    share.put("f", b"").unwrap();
    share.setxattr("f", "trusted.a", b"kernel's", 0).unwrap();
    for name in ["trusted.a", "trusted.b", "", "x", "user.postern.trusted.a"].map(|rest| format!("{STORE}{rest}")) {
        assert_eq!(share.setxattr("f", &name, b"forged", 0), Err(EPERM), "{name}");
        assert_eq!(share.getxattr("f", &name), Err(ENODATA), "{name}");
        assert_eq!(share.removexattr("f", &name), Err(EPERM), "{name}");
    }
    assert_eq!(share.listxattr("f").unwrap(), ["trusted.a"]);
    assert_eq!(share.getxattr("f", "trusted.a").unwrap(), b"kernel's");
}

// postern-helper(8): --xattrmap=guest: "those of the host are hidden"
#[apply(promise)]
fn the_hosts_own_trusted_and_security_attributes_stay_its_own(on: Kind) {
    let share = guests(on);
    share.host.write("f", b"");
    share.host.setxattr("f", "trusted.a", b"host's");
    share.host.setxattr("f", "security.a", b"host's");
    assert_eq!(share.listxattr("f").unwrap(), [""; 0]);
    for name in ["trusted.a", "security.a"] {
        assert_eq!(share.getxattr("f", name), Err(ENODATA));
        share.setxattr("f", name, b"guest's", 0).unwrap();
        share.removexattr("f", name).unwrap();
        assert_eq!(share.host.getxattr("f", name).unwrap(), b"host's");
    }
}

/// What takes the capabilities of an open file away.
type Act<'a> = (&'a str, &'a dyn Fn(&Share, &File));

// capabilities(7): "if the file's contents are changed ... its security.capability extended attribute is removed",
// which the host's kernel does not do for another name
#[apply(promise)]
fn capabilities_that_are_stored_go_when_the_file_changes(on: Kind) {
    let share = guests(on);
    let acts: [Act<'_>; 7] = [
        ("a write", &|share, file| assert_eq!(share.write(file, 0, b"J").unwrap(), 1)),
        ("a write beside set-id bits", &|share, file| {
            let _ = share.chmod("f", 0o4755);
            assert_eq!(share.write(file, 0, b"J").unwrap(), 1);
        }),
        ("a new length", &|share, _| _ = share.truncate("f", 3).unwrap()),
        ("an opening that empties", &|share, _| _ = share.open("f", O_WRONLY | O_TRUNC).unwrap()),
        ("a new owner", &|share, _| _ = share.chown("f", Some(1), Some(1)).unwrap()),
        ("an allocation", &|share, file| share.fallocate(file, FALLOC_FL_KEEP_SIZE, 0, 8192).unwrap()),
        ("a copy", &|share, file| {
            share.put("source", b"content").unwrap();
            let source = share.open("source", O_RDONLY).unwrap();
            assert_eq!(share.copy_file_range((&source, 0), (file, 0), 7).unwrap(), 7);
        }),
    ];
    for (what, act) in acts {
        share.put("f", b"hello").unwrap();
        let file = share.open("f", O_RDWR).unwrap();
        share.setxattr("f", "security.capability", &net_raw(), 0).unwrap();
        share.chmod("f", 0o755).unwrap();
        assert_eq!(share.getxattr("f", "security.capability").unwrap(), net_raw());
        act(&share, &file);
        assert_eq!(share.getxattr("f", "security.capability"), Err(ENODATA), "{what}");
        share.unlink("f").unwrap();
    }
}

// postern-helper(8): "where user.* attributes can be": a symbolic link is a file with a mapped model, and no other has
// any
#[test]
fn whatever_a_file_stands_for_has_the_guests_attributes() {
    for on in [Kind::MappedXattr, Kind::MappedFile] {
        let share = guests(on);
        share.symlink("nowhere", "l").unwrap();
        share.mknod("p", S_IFIFO | 0o600, 0).unwrap();
        for name in ["l", "p"] {
            share.setxattr(name, "security.selinux", b"u:r:t:s0", 0).unwrap();
            assert_eq!(share.listxattr(name).unwrap(), ["security.selinux"], "{on:?}");
            assert_eq!(share.setxattr(name, "user.a", b"x", 0), Err(EPERM));
            assert_eq!(share.setxattr(name, "user.virtfs.uid", b"x", 0), Err(EPERM));
        }
    }
    let share = guests(Kind::Mapped);
    share.symlink("nowhere", "l").unwrap();
    assert_eq!(share.setxattr("l", "security.selinux", b"u:r:t:s0", 0), Err(EPERM));
    assert_eq!(share.getxattr("l", "security.selinux"), Err(ENODATA));
}

// postern-helper(8): --readonly: "Nothing of the share may be changed"
#[apply(promise)]
fn stored_attributes_of_a_read_only_share_are_read(on: Kind) {
    let share = on.setup().readonly().xattrmap("guest").plant(|host| {
        host.write("f", b"");
        host.setxattr("f", "user.postern.trusted.a", b"x");
    });
    let share = share.serve();
    assert_eq!(
        (share.listxattr("f").unwrap(), share.getxattr("f", "trusted.a").unwrap()),
        (vec!["trusted.a".into()], b"x".to_vec())
    );
    assert_eq!(share.setxattr("f", "trusted.a", b"y", 0), Err(EROFS));
    assert_eq!(share.removexattr("f", "trusted.a"), Err(EROFS));
}

// postern-server(1): --xattrmap: "Implies --xattr"
#[apply(promise)]
fn attributes_with_a_map_need_no_other_option(on: Kind) {
    let share = on.setup().plain().xattrmap("guest").serve();
    share.put("f", b"").unwrap();
    share.setxattr("f", "trusted.a", b"x", 0).unwrap();
    let share = on.setup().plain().xattrmap("guest").p9().serve_9p();
    share.setxattr("", "trusted.a", b"x", 0).unwrap();
    assert_eq!(share.host.getxattr("", "user.postern.trusted.a").unwrap(), b"x");
}

/// What a server says that cannot start.
fn refusal(setup: &Setup) -> String {
    let mut server = setup.start();
    assert!(!server.child.wait().unwrap().success());
    server.log()
}

// postern-server(1): --posix-acl: "enforced by the guest's kernel and inherited by the host's file system"
#[test]
fn acls_that_the_host_does_not_know_are_refused_where_it_has_to_inherit_them() {
    let acl = "system.posix_acl_default";
    let stored = ":map::user.virtiofs.:";
    let said = refusal(&Kind::Mapped.setup().posix_acl().xattrmap(stored));
    assert!(
        said.contains("cannot serve POSIX ACLs (--posix-acl): the host does not know those of this share"),
        "{said}"
    );
    let share = Kind::Mapped.setup().posix_acl().xattrmap(stored).serve_9p();
    share.mkdir("d", 0o755).unwrap();
    share.setxattr("d", acl, b"whatever it is", 0).unwrap();
    assert_eq!(share.host.getxattr("d", &format!("user.virtiofs.{acl}")).unwrap(), b"whatever it is");
    let none = Kind::Mapped.setup().posix_acl().xattrmap(":bad:all:system.:system.: :ok:all:::");
    for setup in [none.clone(), none.p9()] {
        let said = refusal(&setup);
        assert!(said.contains("cannot serve POSIX ACLs (--posix-acl): this share has no place for them"), "{said}");
    }
    let granted = Kind::Mapped.setup().posix_acl().xattrmap("guest").serve().granted();
    assert!(granted.contains(InitFlags::POSIX_ACL));
}

// postern-helper(8): a rule that makes no sense is refused, with what is wrong with it
#[test]
fn what_is_no_map_is_refused() {
    for (map, why) in [
        ("host", r#""host" is neither guest nor :TYPE:SCOPE:KEY:PREPEND:"#),
        (":ok:client:::", "no rule takes the other names of the host: end with :ok:all::: or :bad:all:::"),
        (":prefix:all:trusted.:user.x.: :ok:all::", r#"":ok:all::" has no : at its end"#),
    ] {
        let said = refusal(&Kind::Mapped.setup().xattrmap(map));
        assert!(said.contains("--xattrmap") && said.contains(why), "{said}");
    }
}

fn trusted(name: &str) -> XattrName {
    XattrName::new(name.as_bytes()).unwrap()
}

// postern-helper(8): --xattrmap: the map is the helper's: a server that the guest has taken over has no other names
#[apply(promise)]
fn a_taken_over_server_reaches_no_name_but_by_the_map(on: Kind) {
    let mut twin = Twin::with(on, &["--xattrmap=guest"]);
    twin.host.write("f", b"");
    let kept = [
        ("user.postern.trusted.a", &b"kernel's"[..]),
        ("user.postern.x", b"x"),
        ("trusted.h", b"host's"),
        ("security.h", b"host's"),
    ];
    kept.iter().for_each(|(name, value)| twin.host.setxattr("f", name, value));
    let f = twin.pin("f");
    let names = [
        "user.postern.trusted.a",
        "user.postern.x",
        "user.postern.",
        "user.postern.user.postern.trusted.a",
        "user.postern.security.capability",
    ];
    let callers = [
        Caller::Root,
        Caller::User { uid: GuestUid(0), gid: GuestGid(0), group: None },
        Caller::Alone { uid: GuestUid(0), gid: GuestGid(0) },
    ];
    for (name, caller) in names.iter().flat_map(|name| callers.map(|caller| (trusted(name), caller))) {
        for bits in 0..8 {
            let set = SetXattr { name, flags: XattrFlags::from_bits_truncate(bits) };
            assert_eq!(twin.ask_as(caller, &set, &[f.as_fd()], b"forged").err(), Some(Errno::EPERM), "{name:?}");
        }
        assert_eq!(twin.ask_as(caller, &RemoveXattr { name }, &[f.as_fd()], b"").err(), Some(Errno::EPERM));
        for size in [0, 1, 65_536, u32::MAX] {
            let get = GetXattr { name, size };
            assert_eq!(twin.ask_as(caller, &get, &[f.as_fd()], b"").err(), Some(Errno::ENODATA), "{name:?}");
        }
    }
    for name in ["trusted.h", "security.h"].map(trusted) {
        assert_eq!(twin.ask(&GetXattr { name, size: 100 }, &[f.as_fd()]).err(), Some(Errno::ENODATA));
        assert_eq!(twin.ask(&RemoveXattr { name }, &[f.as_fd()]).err(), Some(Errno::ENODATA));
    }
    for size in [10, 100, u32::MAX] {
        assert_eq!(twin.ask(&ListXattr { size }, &[f.as_fd()]).unwrap().2, b"trusted.a\0");
    }
    assert_eq!(twin.ask(&ListXattr { size: 0 }, &[f.as_fd()]).unwrap().0, 10);
    for (name, value) in kept {
        assert_eq!(twin.host.getxattr("f", name).unwrap(), value, "{name}");
    }
}

// xattr(7): "Trusted extended attributes are visible and accessible only to processes that have the CAP_SYS_ADMIN
// capability"; for whom no guest's kernel has judged, the host's cannot ask for it in a user.* name
#[apply(promise)]
fn a_user_whom_nobody_has_judged_has_no_attributes_of_a_guests_kernel(on: Kind) {
    let mut twin = Twin::with(on, &["--xattrmap=guest"]);
    twin.host.write("f", b"");
    twin.host.chown("f", 1000, 1000);
    twin.host.setxattr("f", "user.postern.trusted.a", b"kernel's");
    let f = twin.pin("f");
    let user = Caller::Alone { uid: GuestUid(1000), gid: GuestGid(1000) };
    for name in ["trusted.a", "security.capability"].map(trusted) {
        let set = SetXattr { name, flags: XattrFlags::empty() };
        assert_eq!(twin.ask_as(user, &set, &[f.as_fd()], &net_raw()).err(), Some(Errno::EPERM));
        assert_eq!(twin.ask_as(user, &RemoveXattr { name }, &[f.as_fd()], b"").err(), Some(Errno::EPERM));
        assert_eq!(twin.ask_as(user, &GetXattr { name, size: 100 }, &[f.as_fd()], b"").err(), Some(Errno::ENODATA));
    }
    let set = SetXattr { name: trusted("user.a"), flags: XattrFlags::empty() };
    twin.ask_as(user, &set, &[f.as_fd()], b"own").unwrap();
    assert_eq!(twin.ask_as(user, &ListXattr { size: 100 }, &[f.as_fd()], b"").unwrap().2, b"user.a\0");
}

// capabilities(7): what a user may not change keeps its capabilities, and what he may loses them
#[apply(promise)]
fn a_user_whom_nobody_has_judged_takes_capabilities_from_what_he_changes_only(on: Kind) {
    let mut twin = Twin::with(on, &["--xattrmap=guest"]);
    twin.host.write("f", b"hello");
    twin.host.chmod("f", 0o755);
    twin.host.setxattr("f", "user.postern.security.capability", &net_raw());
    let f = twin.pin("f");
    let other = Caller::Alone { uid: GuestUid(1000), gid: GuestGid(1000) };
    let empty = || SetAttr { changes: Changes { size: Some(0), ..Changes::default() } };
    let own = SetAttr { changes: Changes { uid: Some(GuestUid(1000)), ..Changes::default() } };
    let trunc = Open { flags: OpenFlags::WRITE | OpenFlags::TRUNC };
    assert!(twin.ask_as(other, &empty(), &[f.as_fd()], b"").is_err());
    assert!(twin.ask_as(other, &own, &[f.as_fd()], b"").is_err());
    assert!(twin.ask_as(other, &trunc, &[f.as_fd()], b"").is_err());
    assert!(twin.host.getxattr("f", "user.postern.security.capability").is_some());
    twin.host.chown("f", 1000, 1000);
    twin.ask_as(other, &empty(), &[f.as_fd()], b"").unwrap();
    assert_eq!(twin.host.getxattr("f", "user.postern.security.capability"), None);
}
