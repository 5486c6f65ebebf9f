//! A real guest mounts a share over 9P: by vhost-user in QEMU 11.1, at the smallest and the largest size of a message
//! it can have, and as the three users that it attaches; and on a stream.

use std::path::Path;
use std::time::Duration;

use postern_tests::guest::{Guest, Kernel};
use postern_tests::host::Host;
use postern_tests::kind::Kind;
use postern_tests::share::{Scratch, Server};
use postern_tests::stream::{connect, listen};

/// Mounts the share at /s in 9P2000.L with these options.
fn mount(guest: &mut Guest, options: &str) {
    mount_as(guest, "9p2000.L", options);
}

/// Mounts it in this dialect.
fn mount_as(guest: &mut Guest, version: &str, options: &str) {
    guest.ok(&format!("mkdir -p /s; mount -t 9p -o trans=virtio,version={version},{options} share /s"));
}

// mount(8), v9fs: "msize=n  the number of bytes to use for 9p packet payload"; "cache=mode"
#[test]
fn a_share_is_used_over_9p_at_every_size_of_message() {
    let server = Kind::Mapped.setup().p9().start();
    let mut guest = Guest::boot(Kernel::V6_12P9, Kind::Mapped, &[("share", &server)]);
    for (round, options) in
        ["msize=4096", "msize=512000", "msize=131072,cache=mmap", "msize=512000,cache=loose"].iter().enumerate()
    {
        mount(&mut guest, options);
        let report = guest.ok(&format!("mkdir /s/{round}; cd /s/{round}\n{WORK}\ncd /; umount /s"));
        assert_eq!(report, PRINTS, "{options}");
        let dir = server.dir().join(round.to_string());
        assert_eq!(std::fs::metadata(dir.join("big")).unwrap().len(), 3_000_000, "{options}");
        assert_eq!(std::fs::read(dir.join("sub/moved")).unwrap(), b"hello\nmore\n", "{options}");
    }
    assert!(guest.power_off().success());
}

/// What programs do: content, names, attributes, links, many files, and the end of a file that is still open.
const WORK: &str = r#"
echo hello >f; echo more >>f; cat f; stat -c '%F %a %u:%g %s' f
dd if=/dev/urandom of=/tmp/big bs=1000 count=3000 2>/dev/null; cp /tmp/big big; cmp big /tmp/big
chmod 640 f; chown 1000:1001 f; touch -d @1000000 f; stat -c '%a %u:%g %Y' f
ln -s f soft; readlink soft; ln f hard; stat -c %h hard; mkfifo pipe; stat -c %F pipe
mkdir sub; mv hard sub/moved; rm f; cat soft 2>/dev/null || echo dangling
for i in $(seq 200); do : >sub/$i; done; ls sub | wc -l; rm sub/[0-9]*; ls sub
setfattr -n user.color -v blue sub/moved; getfattr --only-values -n user.color sub/moved; echo
exec 3<>gone; rm gone; echo alive >&3; exec 3>&-
truncate -s 5 short; stat -c %s short; rm short; sync; rmdir sub 2>/dev/null || echo full
df . | tail -n 1 | tr -s ' ' | cut -d' ' -f1
"#;

// mount(8), v9fs: "version=9p2000.u". Renames stay in a directory, and there are no extended attributes. A sync, to
// which QEMU gives no answer, ends.
#[test]
fn a_share_is_used_over_9p2000_u_at_every_size_of_message() {
    let server = Kind::Mapped.setup().p9().start();
    let mut guest = Guest::boot(Kernel::V6_12P9, Kind::Mapped, &[("share", &server)]);
    for (round, options) in
        ["msize=4096", "msize=512000", "msize=131072,cache=mmap", "msize=512000,cache=loose"].iter().enumerate()
    {
        mount_as(&mut guest, "9p2000.u", options);
        let report = guest.ok(&format!("mkdir /s/{round}; cd /s/{round}\n{WORK_U}\ncd /; umount /s"));
        assert_eq!(report, PRINTS_U, "{options}");
        let dir = server.dir().join(round.to_string());
        assert_eq!(std::fs::metadata(dir.join("big")).unwrap().len(), 3_000_000, "{options}");
        assert_eq!(std::fs::read(dir.join("sub/f")).unwrap(), b"hello\nmore\n", "{options}");
    }
    assert!(guest.power_off().success());
}

const WORK_U: &str = r#"
echo hello >f; echo more >>f; cat f; stat -c '%F %a %u:%g %s' f
dd if=/dev/urandom of=/tmp/big bs=1000 count=3000 2>/dev/null; cp /tmp/big big; cmp big /tmp/big
dd if=/tmp/big of=big bs=100000 conv=fsync 2>/dev/null; cmp big /tmp/big
chmod 4640 f; stat -c %a f; chmod 640 f; chown 1000:1001 f; touch -d @1000000 f; stat -c '%a %u:%g %Y' f
ln -s f soft; readlink soft; mkdir -m 1755 sub; stat -c '%F %a' sub; ln f sub/f; stat -c %h f
mkfifo pipe; stat -c %F pipe; (cat pipe & echo through >pipe; wait)
mv f moved; mv soft sub 2>/dev/null; ls; mv moved f; mv f sub/f; ls sub; cat sub/soft 2>/dev/null
for i in $(seq 200); do : >sub/$i; done; ls sub | wc -l; rm sub/[0-9]*; ls -a sub
exec 3<>gone; rm gone; echo alive >&3; exec 3>&-
truncate -s 5 short; stat -c %s short; rm short; sync; rmdir sub 2>/dev/null || echo full
getfattr -n user.color sub 2>/dev/null || echo none
"#;

const PRINTS_U: &str = "hello\nmore\nregular file 644 0:0 11\n4640\n640 1000:1001 1000000\nf\n\
    directory 1755\n2\nfifo\nthrough\nbig\nmoved\npipe\nsub\nf\nsoft\nhello\nmore\n\
    202\n.\n..\nf\nsoft\n5\nfull\nnone\n";

const PRINTS: &str = "hello\nmore\nregular file 644 0:0 11\n640 1000:1001 1000000\nf\n2\nfifo\ndangling\n201\nmoved\nblue\n5\nfull\nshare\n";

// mount(8), v9fs: "access=<mode>  user: a user must be authenticated ...; <uid>: allows only user with uid=<uid>; any:
// does single attach and performs all operations as one user; client: ACL based access check on the 9p client side"
#[test]
fn users_have_the_rights_that_the_access_mode_gives_them() {
    let server = Kind::Mapped.setup().p9().posix_acl().start();
    let mut guest = Guest::boot(Kernel::V6_12P9, Kind::Mapped, &[("share", &server)]);
    judge(&mut guest, &server, "9p2000.L", ",posixacl", MATRIX);
    assert!(guest.power_off().success());
}

/// Lets three users try what they can, in each access mode.
fn judge(guest: &mut Guest, server: &Server, version: &str, more: &str, matrix: &[(&str, &str)]) {
    mount_as(guest, version, "access=user");
    guest.ok("cd /s; echo s >private; chown alice private; chmod 600 private; echo s >group; chgrp staff group; chmod 640 group; cd /; umount /s");
    for (mode, expected) in matrix {
        mount_as(guest, version, &format!("access={mode}{more}"));
        let report: String =
            ["root", "alice", "bob"].map(|user| guest.run(&format!("su {user} -c '{TRY}'")).text).concat();
        guest.ok("umount /s");
        std::fs::read_dir(server.dir())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| made(path))
            .for_each(|path| std::fs::remove_file(path).unwrap());
        assert_eq!(report, *expected, "access={mode}");
    }
}

// Linux 6.12, fs/9p/v9fs.c: access=client is of 9P2000.L, and access=user in its place. Nobody names a group: it is the
// directory's.
#[test]
fn users_have_the_rights_that_the_access_mode_gives_them_over_9p2000_u() {
    let server = Kind::Mapped.setup().p9().start();
    let mut guest = Guest::boot(Kernel::V6_12P9, Kind::Mapped, &[("share", &server)]);
    let of = |access| MATRIX_U.iter().find(|row| row.0 == access).unwrap().1;
    assert_eq!(of("client"), of("user"));
    judge(&mut guest, &server, "9p2000.u", "", MATRIX_U);
    assert!(guest.power_off().success());
}

fn made(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"made."))
}

const TRY: &str = r#"cd /s
try() { "$@" >/dev/null 2>&1 && echo -n " yes" || echo -n " no"; }
echo -n $(id -un)
for f in private group; do try cat $f; try sh -c "echo s >>$f"; done
(: >made.$(id -un)) 2>/dev/null && echo "" $(stat -c %u:%g made.$(id -un)) || echo"#;

/// Who may read and write `private` (of alice alone) and `group` (of root; staff, and so alice, may read), and whose it
/// is what he makes.
const MATRIX: &[(&str, &str)] = &[
    ("user", "root yes yes yes yes 0:0\nalice yes yes yes no 1000:1000\nbob no no no no 1001:1001\n"),
    ("client", "root yes yes yes yes 0:0\nalice yes yes yes no 1000:1000\nbob no no no no 1001:1001\n"),
    ("any", "root yes yes yes yes 0:0\nalice yes yes yes no 0:1000\nbob no no no no 0:1001\n"),
    ("1000", "root no no no no\nalice yes yes yes no 0:1000\nbob no no no no\n"),
];

/// The same in 9P2000.u.
const MATRIX_U: &[(&str, &str)] = &[
    ("user", "root yes yes yes yes 0:0\nalice yes yes yes no 1000:0\nbob no no no no 1001:0\n"),
    ("client", "root yes yes yes yes 0:0\nalice yes yes yes no 1000:0\nbob no no no no 1001:0\n"),
    ("any", "root yes yes yes yes 0:0\nalice yes yes yes no 0:0\nbob no no no no 0:0\n"),
    ("1000", "root no no no no\nalice yes yes yes no 0:0\nbob no no no no\n"),
];

// flock(1), fcntl(2); v9fs: "locktimeout=n  the number of seconds between retries of a blocked lock" (30)
#[test]
fn locks_of_a_guest_hold_on_the_host_and_for_another_mount() {
    let setup = Kind::Mapped.setup().p9();
    let server = setup.start();
    let other = setup.beside(&server);
    let mut guest = Guest::boot(Kernel::V6_12P9, Kind::Mapped, &[("share", &server), ("other", &other)]);
    // Both say that they are `share`: the guest takes one after the other.
    guest.ok("mkdir -p /s /o; for m in /s /o; do
        mount -t 9p -o trans=virtio,version=9p2000.L,msize=131072,locktimeout=1 share $m; done; echo 0123456789 >/s/f");
    let file = std::fs::File::options().read(true).write(true).open(server.dir().join("f")).unwrap();
    let lock = |kind: i32, start, len| {
        let (l_type, l_whence) = (kind as i16, libc::SEEK_SET as i16);
        let part = libc::flock { l_type, l_whence, l_start: start, l_len: len, l_pid: 0 };
        nix::fcntl::fcntl(&file, nix::fcntl::FcntlArg::F_SETLK(&part))
    };

    // A process of the guest has all of it, by flock(2).
    let held = "flock -x /s/f sh -c 'echo >/tmp/held; sleep 1000' >/dev/null 2>&1 & echo $! >/tmp/pid
        until [ -e /tmp/held ]; do sleep 0.1; done";
    assert_eq!(
        guest.ok(&format!("{held}; flock -n /s/f true || echo here; flock -n /o/f true || echo there")),
        "here\nthere\n"
    );
    assert_eq!(lock(libc::F_WRLCK, 3, 1), Err(nix::errno::Errno::EAGAIN));
    guest.ok("kill $(pidof sleep)");
    while lock(libc::F_WRLCK, 3, 1).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }

    // The host has byte 3 now. The guest takes the others by fcntl(2), and learns who has that one; then it waits.
    let perl = format!("cat >/tmp/lock <<'EOF'\n{FCNTL}\nEOF\n/usr/bin/perl /tmp/lock");
    let told = format!("4+6 yes\n2+2 no\n3 {}\n", std::process::id());
    assert_eq!(guest.ok(&perl), told);
    guest.ok("(flock -x /o/f sh -c 'echo got >/o/got') >/dev/null 2>&1 & sleep 2; [ ! -e /o/got ]");
    assert_eq!(lock(libc::F_UNLCK, 3, 1), Ok(0));
    guest.ok("until [ -e /s/got ]; do sleep 0.1; done");
    assert_eq!(lock(libc::F_WRLCK, 0, 0), Ok(0), "what ended has let go");
    assert!(guest.power_off().success());
}

/// Locks bytes 4 to 9 and 2 to 3, and asks who has the last of them. 2 is F_UNLCK, 1 F_WRLCK; 5, 6: F_GETLK, F_SETLK.
const FCNTL: &str = r#"open F, "+<", "/s/f" or die;
sub part { pack "s s x4 q q i x4", 1, 0, @_, 0 }
for ([4, 6], [2, 2]) { print "$$_[0]+$$_[1] ", fcntl(F, 6, part @$_) ? "yes\n" : "no\n"; }
my $part = part 2, 2;
fcntl F, 5, $part or die;
my ($kind, $whence, $start, $length, $process) = unpack "s s x4 q q i", $part;
print "$start ", -$process, "\n";"#;

// mount(8), v9fs: "trans=fd  used with rfdno, wfdno: use these file descriptors". Each user of the guest attaches as
// himself; nobody believes the guest's kernel what he may.
#[test]
fn a_guest_mounts_a_stream_that_is_a_line_to_the_host() {
    let scratch = Scratch::new(Kind::Mapped, false);
    let host = Host::new(scratch.path("share"), Kind::Mapped);
    let _server = listen(Kind::Mapped, &scratch, &["--xattr"]);
    drop(connect(&scratch));
    let line = format!("socket,id=line,path={}", scratch.path("socket").display());
    let options = ["-chardev", &line, "-serial", "chardev:line"];
    let mut guest = Guest::boot_with(Kernel::V6_12, Kind::Mapped, &[], &options);
    guest.ok("mkdir /s; stty -F /dev/ttyS2 raw -echo; exec 9<>/dev/ttyS2
         mount -t 9p -o trans=fd,rfdno=9,wfdno=9,version=9p2000.L,msize=4096,access=user none /s
         echo hello >/s/f; mkdir /s/d; mv /s/f /s/d/g; sync");
    assert_eq!(host.read("d/g"), b"hello\n");
    host.chmod("d", 0o700);
    let report = guest.run(&format!("cd /s; for user in alice bob; do su $user -c '{ALONE}'; done")).text;
    assert_eq!(report, "alice 1000:1000 no no\nbob 1001:1001 no no\n");
    assert_eq!(host.stat("of.alice").owner, (Some(1000), Some(1000)));
    guest.ok("cat /s/d/g; umount /s");
    assert!(guest.power_off().success());
    scratch.assert_contained();
}

/// Makes a file of one's own; tries one behind a closed door, and to close another's.
const ALONE: &str = r#"
: >of.$(id -un) && echo -n "$(id -un) $(stat -c %u:%g of.$(id -un))"
cat d/g 2>/dev/null && echo -n " yes" || echo -n " no"
chmod 700 /s 2>/dev/null && echo " yes" || echo " no""#;

// mount(8), v9fs: "trans=name  unix, tcp, fd"
#[test]
fn a_guest_mounts_a_stream_by_descriptors_a_socket_and_tcp() {
    let scratch = Scratch::new(Kind::Mapped, false);
    let host = Host::new(scratch.path("share"), Kind::Mapped);
    let _server = listen(Kind::Mapped, &scratch, &["--trust-client"]);
    drop(connect(&scratch));
    let socket = scratch.path("socket");
    // A serial line, and an address of the guest's network behind which a relay waits.
    let line = format!("socket,id=line,path={}", socket.display());
    let net = format!("user,id=net,guestfwd=tcp:10.0.2.100:564-cmd:socat STDIO UNIX-CONNECT:{}", socket.display());
    let options = [
        "-chardev",
        &line,
        "-serial",
        "chardev:line",
        "-netdev",
        &net,
        "-device",
        "virtio-net-pci,netdev=net,romfile=",
    ];
    let mut guest = Guest::boot_with(Kernel::V6_12, Kind::Mapped, &[], &options);
    guest.ok("mkdir /s; ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0
        /usr/bin/socat UNIX-LISTEN:/tmp/socket,fork TCP:10.0.2.100:564 >/dev/null 2>&1 &
        until [ -e /tmp/socket ]; do sleep 0.1; done");
    for (number, (version, how, what)) in STREAMS.iter().enumerate() {
        guest.ok(&format!(
            "stty -F /dev/ttyS2 raw -echo; exec 9<>/dev/ttyS2
            mount -t 9p -o version={version},trans={how} {what} /s
            echo hello >/s/f; mkdir /s/{number}; mv /s/f /s/g; ln /s/g /s/{number}/h; rm /s/g; sync
            [ $(ls /s | wc -l) = {}  ]; cat /s/{number}/h; umount /s",
            number + 1
        ));
        assert_eq!(host.read(&format!("{number}/h")), b"hello\n", "{how}");
    }
    assert!(guest.power_off().success());
    scratch.assert_contained();
}

/// Dialect, transport, and to what.
const STREAMS: &[(&str, &str, &str)] = &[
    ("9p2000.L", "fd,rfdno=9,wfdno=9,msize=4096", "none"),
    ("9p2000.L", "tcp,port=564,msize=65536", "10.0.2.100"),
    ("9p2000.u", "tcp,port=564,msize=1048576", "10.0.2.100"),
    ("9p2000.L", "unix,msize=65536", "/tmp/socket"),
    ("9p2000.u", "unix,msize=8192", "/tmp/socket"),
];
