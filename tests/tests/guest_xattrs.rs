//! A real guest's kernel has the attributes that are its own on a share with --xattrmap=guest: overlayfs stacks on it,
//! and file capabilities work in it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use postern_tests::guest::{Guest, Kernel};
use postern_tests::host::Host;
use postern_tests::kind::Kind;
use postern_tests::share::Server;

const KIND: Kind = Kind::Mapped;

fn served(options: &[&str]) -> (Server, Guest) {
    let setup = options.iter().fold(KIND.setup().public().arg("--tag=mnt"), |setup, option| setup.arg(option));
    let share = setup.start();
    let guest = Guest::boot(Kernel::Uml, KIND, &[("mnt", &share)]);
    (share, guest)
}

/// Layers on the share, and what is done to their stack.
const LAYERS: &str = "mkdir -p /stack /mnt/lower/d /mnt/upper /mnt/work; cd /mnt/lower
    echo lower >f; echo there >gone; echo below >d/x; ln -s f l; chmod 640 f; chown alice f";
const STACK: &str = "mount -t overlay overlay -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work /stack";
const SHOW: &str = "cd /stack; find . | sort; cat f l; stat -c '%n %U %a' f d";

// Linux, Documentation/filesystems/overlayfs.rst: "a wide range of filesystems ... the upper filesystem ... must
// support the creation of trusted.* and/or user.* extended attributes"
#[test]
fn overlayfs_stacks_on_a_share_that_stores_its_attributes() {
    let (share, mut guest) = served(&["--xattrmap=guest"]);
    guest.ok(LAYERS);
    guest.ok(STACK);
    guest.ok("cd /stack; echo more >>f; rm gone; rm -r d; mkdir d; echo above >d/y; ln -s nowhere d/l; mv d/y d/z");
    let shown = ".\n./d\n./d/l\n./d/z\n./f\n./l\nlower\nmore\nlower\nmore\nf alice 640\nd root 755\n";
    assert_eq!(guest.ok(SHOW), shown);
    guest.ok("cd /; umount /stack");
    guest.ok(STACK);
    assert_eq!(guest.ok(SHOW), shown, "mounted again");
    assert_eq!(
        guest.ok("/usr/bin/getfattr --absolute-names --only-values -n trusted.overlay.opaque /mnt/upper/d"),
        "y"
    );
    assert_eq!(guest.ok("cat /mnt/lower/f /mnt/lower/gone /mnt/lower/d/x"), "lower\nthere\nbelow\n");
    let host = Host::new(share.dir(), KIND);
    assert_eq!(host.getxattr("upper/d", "user.postern.trusted.overlay.opaque").unwrap(), b"y");
    let whiteout = fs::symlink_metadata(host.path("upper/gone")).unwrap();
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
}

// the same: without them a remote file system cannot be the upper layer
#[test]
fn overlayfs_does_not_stack_on_a_share_that_has_no_attributes_for_it() {
    let (_share, mut guest) = served(&[]);
    guest.ok(LAYERS);
    assert_ne!(guest.run(STACK).status, 0);
}

// capabilities(7): "file capability sets ... determine the capabilities of a thread after an execve(2)"
#[test]
fn capabilities_of_a_file_work_in_the_guest_until_it_is_written_to() {
    let (share, mut guest) = served(&["--xattrmap=guest"]);
    guest.ok("cd /mnt; cp /usr/bin/cat reader; chmod 757 reader; echo secret >f; chmod 600 f");
    let read = "/usr/bin/setpriv --reuid alice --regid alice --clear-groups /mnt/reader /mnt/f";
    assert!(guest.run(read).text.contains("Permission denied"));
    guest.ok("/usr/sbin/setcap cap_dac_override+ep /mnt/reader");
    assert_eq!(guest.ok(read), "secret\n");
    let host = Host::new(share.dir(), KIND);
    assert_eq!(host.getxattr("reader", "security.capability"), None);
    assert!(host.getxattr("reader", "user.postern.security.capability").is_some());
    guest.ok("/usr/bin/setpriv --reuid alice --regid alice --clear-groups sh -c 'echo >>/mnt/reader'");
    assert!(guest.run(read).text.contains("Permission denied"));
    assert_eq!(guest.ok("/usr/sbin/getcap /mnt/reader"), "");
}
