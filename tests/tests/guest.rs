//! Real guests do on a share what programs do on a local file system, and both sides see the same.
//!
//! Each [row](rows) is one behaviour. Where one does not hold, a table says why.

#[path = "guest/rows.rs"]
mod rows;

use std::any::Any;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::statvfs::statvfs;
use postern_tests::guest::{Guest, Kernel, Privileges};
use postern_tests::kind::Kind;
use postern_tests::proxy::{Helper, Proxy};
use postern_tests::share::Scratch;

use rows::{ANY_KERNEL, NEW_KERNEL, Row};

/// Rules that do not hold, each with the reason.
type Lacks = &'static [(&'static str, &'static str)];

/// What Linux's 9P driver cannot do, whatever serves it.
const NO_9P_GUEST: Lacks = &[
    ("a hole takes no space and is found by SEEK_DATA and SEEK_HOLE", "no message for it"),
    ("fallocate allots, extends and punches", "no message for it"),
    ("a file written through shared mappings holds what was written", "not without a cache"),
    ("renameat2 keeps the target, exchanges, and leaves a whiteout when told so", "Trenameat has no flags"),
    ("times are kept to the nanosecond", "to the driver they are of whole seconds"),
    ("an access control list lets in whom it names", "not without a cache"),
    ("a default access control list is inherited and stands in for the umask", "not without a cache"),
    ("O_TMPFILE makes a file without a name, which a link names", "nothing is made without a name"),
    ("chattr sets an inode's flags", "no message for ioctl(2)"),
    ("the time of birth is told", "the driver does not ask"),
];

/// What it cannot do in 9P2000.u besides.
const NO_9P2000_U_GUEST: Lacks = &[
    ("extended attributes are set, listed, read and removed", "no message for them"),
    ("a new file is its creator's, with the umask taken off", "Tcreate tells no group"),
];

/// What QEMU's 9P server cannot do, whoever has the files.
const NO_QEMU: Lacks = &[("an unlinked file lives while it is open", "it finds what is open by its path")];

/// What is not tried in 9P2000.u by QEMU, which does not answer its fsync: who asks for it waits for ever.
const NO_FSYNC: [&str; 2] =
    ["a file written through shared mappings holds what was written", "sync in all its forms succeeds"];

/// What QEMU cannot do with the host's files itself, since it opens no special file (CVE-2023-2861).
const NO_SPECIAL_FILES: Lacks = &[
    ("a new file is its creator's, with the umask taken off", "it opens the fifo to change its mode"),
    ("a fifo carries data within the guest", "likewise"),
    ("a socket is bound and found", "likewise"),
];

/// What a server with the host's own ids, run by root, cannot show.
const NO_MAP: Lacks = &[
    ("a file of an id that is not mapped is nobody's, and nobody gives one away", "every id is the host's"),
    ("a device node is refused", "root of the host makes them"),
];

#[test]
fn a_guest_with_linux_6_1_sees_a_file_system_like_its_own() {
    virtiofs(Kernel::V6_1, Kind::Mapped).holds(&[ANY_KERNEL], &[]);
}

#[test]
fn a_guest_with_linux_6_12_sees_a_file_system_like_its_own() {
    virtiofs(Kernel::V6_12, Kind::Mapped).holds(&[ANY_KERNEL, NEW_KERNEL], &[]);
}

#[test]
fn a_guest_with_linux_6_12_sees_the_same_by_qemus_proxy() {
    proxy(Kernel::V6_12, Helper::Postern(Kind::Mapped), "9p2000.L")
        .holds(&[ANY_KERNEL, NEW_KERNEL], &[NO_9P_GUEST, NO_QEMU]);
}

#[test]
fn a_guest_with_linux_6_1_sees_the_same_by_qemus_proxy() {
    proxy(Kernel::V6_1, Helper::Postern(Kind::Mapped), "9p2000.L").holds(&[ANY_KERNEL], &[NO_9P_GUEST, NO_QEMU]);
}

#[test]
fn a_guest_sees_the_same_by_a_9p_device() {
    p9(Kind::Mapped).holds(&[ANY_KERNEL, NEW_KERNEL], &[NO_9P_GUEST]);
}

#[test]
fn a_guest_with_linux_6_12_that_speaks_9p2000_u_sees_what_that_can_say() {
    let scene = proxy(Kernel::V6_12, Helper::Postern(Kind::Mapped), "9p2000.u");
    scene.holds(&[ANY_KERNEL, NEW_KERNEL], &[NO_9P_GUEST, NO_QEMU, NO_9P2000_U_GUEST]);
}

#[test]
fn a_guest_with_linux_6_1_that_speaks_9p2000_u_sees_what_that_can_say() {
    let scene = proxy(Kernel::V6_1, Helper::Postern(Kind::Mapped), "9p2000.u");
    scene.holds(&[ANY_KERNEL], &[NO_9P_GUEST, NO_QEMU, NO_9P2000_U_GUEST]);
}

/// The peers prove the rows: they do all but what they are known not to do.
mod slow {
    use super::*;

    #[test]
    fn a_guest_of_the_c_virtiofsd_lacks_what_that_lacks() {
        let lacks: Lacks = &[
            ("a supplementary group opens a directory that belongs to it", "CREATE_SUPP_GROUP is not granted"),
            ("a share that is read-only stays as it is", "no such option"),
            ("O_TMPFILE makes a file without a name, which a link names", "no TMPFILE"),
            ("chattr sets an inode's flags", "no IOCTL"),
            ("the time of birth is told", "no STATX"),
        ];
        virtiofs(Kernel::V6_12, Kind::CVirtiofsd).holds(&[ANY_KERNEL, NEW_KERNEL], &[NO_MAP, lacks]);
    }

    #[test]
    fn a_guest_of_qemus_own_proxy_helper_lacks_what_that_lacks() {
        let lacks: Lacks = &[("a share that is read-only stays as it is", "this QEMU was not told what is read-only")];
        proxy(Kernel::V6_12, Helper::C, "9p2000.L")
            .holds(&[ANY_KERNEL, NEW_KERNEL], &[NO_9P_GUEST, NO_QEMU, NO_MAP, lacks]);
    }

    #[test]
    fn a_guest_of_qemus_own_file_access_lacks_what_that_lacks() {
        local(Kernel::V6_12, "9p2000.L")
            .holds(&[ANY_KERNEL, NEW_KERNEL], &[NO_9P_GUEST, NO_QEMU, NO_SPECIAL_FILES, NO_MAP]);
    }

    #[test]
    fn a_guest_of_qemus_own_file_access_that_speaks_9p2000_u_lacks_more() {
        let lacks: Lacks = &[
            (
                "a supplementary group opens a directory that belongs to it",
                "it takes off an inherited set-group-id bit",
            ),
            ("a share that is read-only stays as it is", "it opens no file of one, not even for reading"),
        ];
        let any_server = [NO_9P_GUEST, NO_QEMU, NO_9P2000_U_GUEST];
        let scene = local(Kernel::V6_12, "9p2000.u");
        scene.holds(&[ANY_KERNEL, NEW_KERNEL], &[&any_server[..], &[NO_SPECIAL_FILES, NO_MAP, lacks]].concat());
    }
}

/// A guest in which two shares are mounted: `/mnt`, and `/kept`, which is read-only.
struct Scene {
    guest: Guest,
    mnt: PathBuf,
    kept: PathBuf,
    /// Host id of the guest's root.
    root: u32,
    /// Whether the guest speaks 9P2000.u.
    dotu: bool,
    /// What has to be there meanwhile.
    _servers: Box<dyn Any>,
}

fn virtiofs(kernel: Kernel, kind: Kind) -> Scene {
    let share = kind.setup().posix_acl().start();
    let kept = if kind.is_postern() { kind.setup().readonly().start() } else { kind.setup().start() };
    let guest = Guest::boot(kernel, kind, &[("mnt", &share), ("kept", &kept)]);
    let root = kind.uids()[0].host;
    Scene { guest, mnt: share.dir(), kept: kept.dir(), root, dotu: false, _servers: Box::new((share, kept)) }
}

/// A virtio-9p device of postern's own.
fn p9(kind: Kind) -> Scene {
    let (share, kept) = (kind.setup().p9().start(), kind.setup().p9().readonly().start());
    let mut guest = Guest::boot(Kernel::V6_12P9, kind, &[("share", &share), ("other", &kept)]);
    // Both say that they are `share`: the guest takes one after the other.
    for dir in ["mnt", "kept"] {
        guest.ok(&mount_9p("share", dir, "9p2000.L"));
    }
    let root = kind.uids()[0].host;
    Scene { guest, mnt: share.dir(), kept: kept.dir(), root, dotu: false, _servers: Box::new((share, kept)) }
}

/// QEMU speaks 9P with the guest and asks a helper.
fn proxy(kernel: Kernel, helper: Helper, version: &str) -> Scene {
    let readonly: &[&str] = if helper == Helper::C { &[] } else { &["--readonly"] };
    let (mnt, kept) = (Proxy::serve(helper, &[]), Proxy::serve(helper, readonly));
    let [first, second] = [&mnt, &kept].map(|proxy| format!("proxy,sock_fd={}", proxy.inherited()));
    let guest = by_qemu(kernel, version, Privileges::None, &[("mnt", first), ("kept", second)]);
    Scene {
        guest,
        mnt: mnt.host.path(""),
        kept: kept.host.path(""),
        root: helper.kind().uids()[0].host,
        dotu: version == "9p2000.u",
        _servers: Box::new((mnt, kept)),
    }
}

/// QEMU speaks 9P with the guest and does what it asks, as root.
fn local(kernel: Kernel, version: &str) -> Scene {
    let [mnt, kept] = [(); 2].map(|()| Scratch::new(Kind::Host, false));
    let of = |scratch: &Scratch| format!("local,security_model=passthrough,path={}", scratch.path("share").display());
    let shares = [("mnt", of(&mnt)), ("kept", format!("{},readonly=on", of(&kept)))];
    let guest = by_qemu(kernel, version, Privileges::Root, &shares);
    Scene {
        guest,
        mnt: mnt.path("share"),
        kept: kept.path("share"),
        root: 0,
        dotu: version == "9p2000.u",
        _servers: Box::new((mnt, kept)),
    }
}

fn by_qemu(kernel: Kernel, version: &str, privileges: Privileges, shares: &[(&str, String)]) -> Guest {
    let device = |(tag, fsdev): &(&str, String)| {
        let device = format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}");
        ["-fsdev".into(), format!("{fsdev},id={tag}"), "-device".into(), device]
    };
    let options: Vec<String> = shares.iter().flat_map(device).collect();
    let options: Vec<_> = options.iter().map(String::as_str).collect();
    let mut guest = Guest::boot_as(privileges, kernel, Kind::Mapped, &[], &options);
    for (tag, _) in shares {
        guest.ok(&mount_9p(tag, tag, version));
    }
    guest
}

fn mount_9p(tag: &str, dir: &str, version: &str) -> String {
    format!("mkdir -p /{dir}; mount -t 9p -o trans=virtio,version={version},msize=262144 {tag} /{dir}")
}

impl Scene {
    /// Every rule holds in the guest but those of `lacks`, which do not; what it did instead is printed.
    fn holds(self, rows: &[&[Row]], lacks: &[Lacks]) {
        let tried = |row: &&Row| !self.dotu || !NO_FSYNC.contains(&row.rule);
        let rows: Vec<&Row> = rows.iter().copied().flatten().filter(tried).collect();
        let lacking = |rule: &str| lacks.iter().copied().flatten().any(|(lack, _)| *lack == rule);
        let expected: Vec<_> = rows.iter().map(|row| row.rule).filter(|rule| lacking(rule)).collect();
        assert_eq!(broken(self, &rows), expected);
    }
}

/// The rules that do not hold in the guest; what it did instead is printed.
fn broken<'a>(scene: Scene, rows: &[&'a Row]) -> Vec<&'a str> {
    let Scene { mut guest, mnt, kept, root, dotu, _servers } = scene;
    fs::write(mnt.join("foreign"), "held").unwrap();
    fs::write(kept.join("f"), "kept").unwrap();
    guest.ok(r#"printf '#!/bb/sh\nuser=$1; shift; exec su -s /bb/sh "$user" -c "$*"' >/bb/by; chmod +x /bb/by"#);

    let mut broken = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let start = Instant::now();
        let said = guest.run(&format!("mkdir /mnt/{number}; cd /mnt/{number}\n{}", row.script)).text;
        let left = found(&mnt.join(number.to_string()), root);
        println!("{:?} {}", start.elapsed(), row.rule);
        if !(same("prints", &said, row.prints) & same("leaves", &left, row.leaves)) {
            broken.push(row.rule);
        }
    }
    // QEMU tells sizes in units of its own, and 9P2000.u has no words for them.
    if !dotu {
        let host = statvfs(&mnt).unwrap();
        let told = guest.ok("stat -f -c '%b %s' /mnt");
        let bytes: u64 = told.split_whitespace().map(|number| number.parse::<u64>().unwrap()).product();
        assert!((host.blocks() * host.block_size()).abs_diff(bytes) < 1 << 20, "{told}");
    }
    guest.power_off();
    broken
}

fn same(what: &str, is: &str, should: &str) -> bool {
    let same = is.trim_end() == should.trim_end();
    if !same {
        println!("{what}:\n{is}\ninstead of:\n{should}\n");
    }
    same
}

/// A line for every file below `dir`: path, owner and group as the guest knows them, mode, and what it is or holds.
fn found(dir: &Path, root: u32) -> String {
    let mut lines = Vec::new();
    collect(dir, dir, root, &mut lines);
    lines.sort();
    lines.join("\n")
}

fn collect(top: &Path, dir: &Path, root: u32, lines: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, meta) = (entry.path(), entry.metadata().unwrap());
        let name = path.strip_prefix(top).unwrap().display();
        let (uid, gid) = (meta.uid().wrapping_sub(root), meta.gid().wrapping_sub(root));
        lines.push(format!("{name} {uid}:{gid} {:o} {}", meta.mode() & 0o7777, nature(&path, &meta)));
        if meta.is_dir() {
            collect(top, &path, root, lines);
        }
    }
}

fn nature(path: &Path, meta: &fs::Metadata) -> String {
    let kind = meta.file_type();
    if kind.is_symlink() {
        format!("-> {}", fs::read_link(path).unwrap().display())
    } else if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else if kind.is_socket() {
        "socket".to_owned()
    } else if !kind.is_file() {
        format!("device {}", meta.rdev())
    } else if meta.len() > 64 {
        format!("{} bytes", meta.len())
    } else {
        format!("{:?}", String::from_utf8_lossy(&fs::read(path).unwrap()))
    }
}
